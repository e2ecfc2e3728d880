//! A real store behind a switchboard: single operations can be made to fail, to wait, or to tell the test.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use holdfast::app::Store;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::context::{Context, ContextContent, ContextId, ContextPage};
use holdfast_store::{
    AccountChange, AccountRecord, AppendTurn, ContextStore, HandleRecord, KeyRecord, KeyStore,
    LivingContext, ProjectRecord, StoreError, UpstreamStore,
};
use tokio::sync::Semaphore;

mod audit;
mod budgets;
mod ledger;
mod responses;

/// What can be interfered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `ContextStore::insert`.
    Insert,
    /// `ContextStore::get`.
    Get,
    /// `ContextStore::content`.
    Content,
    /// `ContextStore::touch`. Called only if the expiry moves, so a test moves the clock first.
    Touch,
    /// `ContextStore::append_turn`.
    AppendTurn,
    /// `AuditStore::append_audit`.
    AppendAudit,
    /// `KeyStore::key_by_hash`.
    KeyByHash,
    /// `KeyStore::page_projects`.
    PageProjects,
    /// `UpstreamStore::put_handle`.
    PutHandle,
    /// `UpstreamStore::handles`.
    Handles,
    /// `UpstreamStore::doom_handles`.
    DoomHandles,
    /// `UpstreamStore::change_accounts`.
    ChangeAccounts,
    /// `UpstreamStore::acquire_lease`.
    AcquireLease,
    /// `ResponseStore::insert_response`.
    InsertResponse,
    /// `ResponseStore::response`.
    Response,
    /// `ResponseStore::chain`.
    Chain,
    /// `ResponseStore::delete_response`.
    DeleteResponse,
    /// `ResponseStore::insert_conversation`.
    InsertConversation,
    /// `ResponseStore::conversation`.
    Conversation,
    /// `ResponseStore::delete_conversation`.
    DeleteConversation,
    /// `ResponseStore::sweep_responses`.
    SweepResponses,
    /// `ResponseStore::responses_usage`.
    ResponsesUsage,
    /// `LedgerStore::append`.
    AppendLedger,
    /// `LedgerStore::query` and `LedgerStore::rows`.
    QueryLedger,
    /// `BudgetStore::reserve`.
    ReserveBudget,
}

/// What happens to one call.
pub enum Action {
    /// It goes through.
    Pass,
    /// It fails as if the database were away, and has no effect.
    Fail,
    /// It waits at a gate and then goes through.
    Wait(Gate),
    /// It goes through, and then the test is told.
    Then(Box<dyn FnOnce() + Send>),
}

/// A closed door that a test opens.
#[derive(Debug, Clone)]
pub struct Gate {
    arrivals: Arc<Semaphore>,
    passes: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Gate {
            arrivals: Arc::new(Semaphore::new(0)),
            passes: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Gate {
    /// Waits until somebody stands at the gate.
    pub async fn reached(&self) {
        self.arrivals.acquire().await.unwrap().forget();
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.passes.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn pass(&self) {
        self.arrivals.add_permits(1);
        self.passes.acquire().await.unwrap().forget();
    }
}

#[derive(Default)]
struct Plan {
    next: VecDeque<Action>,
    always_fails: bool,
}

/// The store with its switchboard.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    is_shared: bool,
    plans: Mutex<HashMap<Operation, Plan>>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn Store>, is_shared: bool) -> Self {
        FaultyStore {
            inner,
            is_shared,
            plans: Mutex::default(),
        }
    }

    /// Decides over the next calls of an operation, one each; after these they go through.
    pub fn plan(&self, operation: Operation, actions: impl IntoIterator<Item = Action>) {
        self.plans
            .lock()
            .unwrap()
            .entry(operation)
            .or_default()
            .next = actions.into_iter().collect();
    }

    /// All operations of this list fail from now on.
    pub fn break_down(&self, operations: &[Operation]) {
        for operation in operations {
            self.plans
                .lock()
                .unwrap()
                .entry(*operation)
                .or_default()
                .always_fails = true;
        }
    }

    /// Everything works again.
    pub fn mend(&self) {
        self.plans.lock().unwrap().clear();
    }

    /// Runs an operation as planned.
    async fn run<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let action = {
            let mut plans = self.plans.lock().unwrap();
            let plan = plans.entry(operation).or_default();
            if plan.always_fails {
                Action::Fail
            } else {
                plan.next.pop_front().unwrap_or(Action::Pass)
            }
        };
        match action {
            Action::Pass => call.await,
            Action::Fail => Err(StoreError::Unavailable("switched off by the test".into())),
            Action::Wait(gate) => {
                gate.pass().await;
                call.await
            }
            Action::Then(tell) => {
                let result = call.await;
                tell();
                result
            }
        }
    }
}

#[async_trait]
impl ContextStore for FaultyStore {
    fn is_shared(&self) -> bool {
        self.is_shared
    }

    async fn insert(&self, context: &Context, content: &ContextContent) -> Result<(), StoreError> {
        self.run(Operation::Insert, self.inner.insert(context, content))
            .await
    }

    async fn get(
        &self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<Context, StoreError> {
        self.run(Operation::Get, self.inner.get(project, id, now))
            .await
    }

    async fn content(&self, project: &str, id: &ContextId) -> Result<ContextContent, StoreError> {
        self.run(Operation::Content, self.inner.content(project, id))
            .await
    }

    async fn touch(
        &self,
        project: &str,
        id: &ContextId,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.run(
            Operation::Touch,
            self.inner.touch(project, id, expires_at, now),
        )
        .await
    }

    async fn append_turn(
        &self,
        project: &str,
        id: &ContextId,
        expected_version: u64,
        append: &AppendTurn,
        now: UnixMillis,
    ) -> Result<Context, StoreError> {
        self.run(
            Operation::AppendTurn,
            self.inner
                .append_turn(project, id, expected_version, append, now),
        )
        .await
    }

    async fn set_ttl(
        &self,
        project: &str,
        id: &ContextId,
        ttl_seconds: u32,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<Context, StoreError> {
        self.inner
            .set_ttl(project, id, ttl_seconds, expires_at, now)
            .await
    }

    async fn list(
        &self,
        project: &str,
        cursor: Option<&str>,
        limit: u32,
        now: UnixMillis,
    ) -> Result<ContextPage, StoreError> {
        self.inner.list(project, cursor, limit, now).await
    }

    async fn delete(
        &self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.inner.delete(project, id, now).await
    }

    async fn sweep(&self, now: UnixMillis, limit: u32) -> Result<Vec<Context>, StoreError> {
        self.inner.sweep(now, limit).await
    }

    async fn living(&self, now: UnixMillis, limit: u32) -> Result<Vec<Context>, StoreError> {
        self.inner.living(now, limit).await
    }

    async fn census(&self, now: UnixMillis) -> Result<Vec<LivingContext>, StoreError> {
        self.inner.census(now).await
    }
}

#[async_trait]
impl KeyStore for FaultyStore {
    async fn ensure_project(
        &self,
        name: &str,
        now: UnixMillis,
    ) -> Result<ProjectRecord, StoreError> {
        self.inner.ensure_project(name, now).await
    }

    async fn project(&self, name: &str) -> Result<ProjectRecord, StoreError> {
        self.inner.project(name).await
    }

    async fn insert_project(&self, project: &ProjectRecord) -> Result<(), StoreError> {
        self.inner.insert_project(project).await
    }

    async fn update_project(&self, project: &ProjectRecord) -> Result<ProjectRecord, StoreError> {
        self.inner.update_project(project).await
    }

    async fn page_projects(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ProjectRecord>, StoreError> {
        self.run(
            Operation::PageProjects,
            self.inner.page_projects(after, limit),
        )
        .await
    }

    async fn insert_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        self.inner.insert_key(key).await
    }

    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<KeyRecord>, StoreError> {
        self.run(Operation::KeyByHash, self.inner.key_by_hash(hash))
            .await
    }

    async fn key(&self, id: &str) -> Result<KeyRecord, StoreError> {
        self.inner.key(id).await
    }

    async fn page_keys(
        &self,
        project: Option<&str>,
        after: Option<&KeyRecord>,
        limit: u32,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        self.inner.page_keys(project, after, limit).await
    }

    async fn update_key(&self, key: &KeyRecord) -> Result<KeyRecord, StoreError> {
        self.inner.update_key(key).await
    }

    async fn touch_keys(&self, uses: &[(String, UnixMillis)]) -> Result<(), StoreError> {
        self.inner.touch_keys(uses).await
    }

    async fn revoke_key(&self, id: &str, now: UnixMillis) -> Result<KeyRecord, StoreError> {
        self.inner.revoke_key(id, now).await
    }
}

#[async_trait]
impl UpstreamStore for FaultyStore {
    async fn put_handle(&self, handle: &HandleRecord) -> Result<(), StoreError> {
        self.run(Operation::PutHandle, self.inner.put_handle(handle))
            .await
    }

    async fn handles(&self, context: &ContextId) -> Result<Vec<HandleRecord>, StoreError> {
        self.run(Operation::Handles, self.inner.handles(context))
            .await
    }

    async fn remove_handle(&self, place: &str, name: &str) -> Result<(), StoreError> {
        self.inner.remove_handle(place, name).await
    }

    async fn doom_handles(&self, context: &ContextId) -> Result<(), StoreError> {
        self.run(Operation::DoomHandles, self.inner.doom_handles(context))
            .await
    }

    async fn tidy_handles(
        &self,
        made_before: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.inner.tidy_handles(made_before, now).await
    }

    async fn doomed(
        &self,
        place: &str,
        now: UnixMillis,
        limit: u32,
    ) -> Result<Vec<HandleRecord>, StoreError> {
        self.inner.doomed(place, now, limit).await
    }

    async fn expiring(
        &self,
        place: &str,
        now: UnixMillis,
        before: UnixMillis,
        limit: u32,
    ) -> Result<Vec<HandleRecord>, StoreError> {
        self.inner.expiring(place, now, before, limit).await
    }

    async fn change_accounts(&self, changes: &[AccountChange]) -> Result<(), StoreError> {
        self.run(
            Operation::ChangeAccounts,
            self.inner.change_accounts(changes),
        )
        .await
    }

    async fn account(&self, context: &ContextId) -> Result<AccountRecord, StoreError> {
        self.inner.account(context).await
    }

    async fn acquire_lease(
        &self,
        name: &str,
        owner: &str,
        until: UnixMillis,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        self.run(
            Operation::AcquireLease,
            self.inner.acquire_lease(name, owner, until, now),
        )
        .await
    }

    async fn release_lease(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        self.inner.release_lease(name, owner).await
    }
}

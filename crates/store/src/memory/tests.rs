use super::*;
use crate::ResponseStore;
use crate::conformance;

#[tokio::test(flavor = "multi_thread")]
async fn contexts_conform() {
    conformance::contexts(&MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_conforms() {
    conformance::audit(&MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_conform() {
    conformance::upstreams(&MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_conform() {
    conformance::keys(&MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_conform() {
    conformance::responses(&MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_conforms() {
    conformance::ledger(&MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_conform() {
    conformance::budgets(&MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_are_empty_when_all_contexts_are_gone() {
    let store = MemoryStore::new();
    conformance::contexts(&store).await;
    store.sweep(UnixMillis::MAX, u32::MAX).await.expect("swept");
    let state = store.state();
    assert!(state.contexts.is_empty() && state.by_age.is_empty() && state.by_expiry.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_all_responses_are_gone() {
    let store = MemoryStore::new();
    conformance::responses(&store).await;
    let swept = store.sweep_responses(UnixMillis::MAX, u32::MAX).await;
    assert!(swept.expect("swept") > 0);
    assert!(store.state().responses.is_empty());
}

//! What every store does, as functions that panic where a store does otherwise.
//!
//! [`contexts`], [`keys`], [`upstreams`], [`responses`] and [`ledger`](fn@ledger) run everything, on a store that nobody else uses; each function also stands alone. They
//! need a runtime with several threads. Differences between stores, which the suite leaves open:
//! - `MemoryStore` keeps nothing beyond its own life.
//! - `SqliteStore` and `PostgresStore` answer `Corrupt` for counts beyond 63 bits, and for sums of tokens beyond that.

use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_protocol::UnixMillis;
use holdfast_protocol::chat::{ContentPart, Message, Role, Tool, ToolCall, ToolChoice};
use holdfast_protocol::context::{
    CachePolicy, Context, ContextContent, ContextId, ContextMode, Expiry, KeepWarm, OnTooSmall,
    ProfileKind, StoredMessage, Truncation, Turn, Warm,
};
use serde_json::{Map, json};

use crate::{AppendTurn, ContextStore, KeyStore, ResponseStore, StoreError};

pub mod audit;
pub mod budgets;
pub mod keys;
pub mod ledger;
pub mod lifetime;
pub mod listing;
mod numbers;
pub mod postgres_server;
pub mod proxy;
pub mod responses;
pub mod sealing;
pub mod stored;
pub mod turns;
pub mod upstreams;

/// 2023-11-14, an arbitrary moment at which the suite's contexts are made.
pub const NOW: UnixMillis = 1_700_000_000_000;

/// Lifetime of the suite's contexts, milliseconds.
pub const LIFETIME: UnixMillis = 3_600_000;

/// Everything a [`ContextStore`] promises.
pub async fn contexts(store: &dyn ContextStore) {
    stored::reads_back_whole(store).await;
    stored::an_id_is_stored_once(store).await;
    stored::foreign_is_unknown(store).await;
    stored::a_deleted_context_leaves_nothing(store).await;
    turns::append_changes_what_it_says(store).await;
    turns::a_refused_append_changes_nothing(store).await;
    turns::parallel_appends_make_each_turn_once(store).await;
    turns::parallel_inserts_of_one_id_store_one(store).await;
    lifetime::is_gone_at_the_very_instant(store).await;
    lifetime::touch_never_moves_backward(store).await;
    lifetime::parallel_touches_keep_the_latest(store).await;
    lifetime::ttl_moves_both_ways(store).await;
    lifetime::sweep_removes_the_expired_within_its_limit(store).await;
    listing::pages_are_newest_first_and_complete(store).await;
    listing::implicit_contexts_are_not_listed(store).await;
    listing::pages_are_stable_under_changes(store).await;
    listing::wrong_cursors_are_unknown(store).await;
    listing::living_spans_projects(store).await;
    listing::the_census_is_complete(store).await;
}

/// Everything an [`UpstreamStore`](crate::UpstreamStore) promises. Run it alone on its store.
pub async fn upstreams<S: ContextStore + crate::UpstreamStore>(store: &S) {
    upstreams::a_handle_reads_back_whole(store).await;
    upstreams::a_new_handle_dooms_the_one_before(store).await;
    upstreams::a_chain_keeps_what_it_continues_from(store).await;
    upstreams::doomed_handles_are_kept_until_they_end_by_themselves(store).await;
    upstreams::handles_of_removed_contexts_are_orphans(store).await;
    upstreams::expiring_handles_come_soonest_first(store).await;
    upstreams::accounts_add_up(store).await;
    upstreams::a_lease_has_one_owner_at_a_time(store).await;
    upstreams::parallel_takers_get_one_lease(store);
}

/// Everything a [`KeyStore`] promises.
pub async fn keys(store: &dyn KeyStore) {
    keys::projects_are_made_once(store).await;
    keys::a_key_reads_back_whole(store).await;
    keys::ids_and_hashes_are_unique(store).await;
    keys::lists_are_oldest_first(store).await;
    keys::the_first_revocation_counts(store).await;
    keys::a_projects_settings_change_by_version(store).await;
    keys::projects_are_paged_by_name(store).await;
    keys::a_key_changes_by_version(store).await;
    keys::a_rotated_key_is_found_by_both_secrets(store).await;
    keys::the_last_use_moves_forward(store).await;
    keys::keys_are_paged_oldest_first(store).await;
}

/// Everything a [`ResponseStore`] promises.
pub async fn responses(store: &dyn ResponseStore) {
    use responses::{conversations, endings};

    responses::a_response_reads_back_whole(store).await;
    responses::a_response_id_is_stored_once(store).await;
    responses::foreign_responses_are_unknown(store).await;
    responses::responses_branch(store).await;
    responses::chains_are_bounded(store).await;
    responses::only_what_is_there_is_continued(store).await;
    responses::parallel_inserts_of_one_response_store_one(store).await;
    responses::parallel_continuations_are_branches(store).await;
    endings::a_response_is_gone_at_the_very_instant(store).await;
    endings::the_deleted_leave_their_messages(store).await;
    endings::a_deletion_takes_along_what_was_kept_for_it(store).await;
    endings::the_expired_hold_up_no_deletion(store).await;
    endings::sweep_ends_the_expired_within_its_limit(store).await;
    endings::sweep_leaves_nothing_of_a_tree(store).await;
    conversations::a_conversation_reads_back_whole(store).await;
    conversations::a_conversation_id_is_stored_once(store).await;
    conversations::foreign_and_expired_conversations_are_unknown(store).await;
    conversations::parts_of_a_conversation_are_replaced(store).await;
    conversations::heads_move_only_as_expected(store).await;
    conversations::parallel_turns_move_the_head_once(store).await;
    conversations::a_head_that_ends_goes_back(store).await;
    conversations::responses_outlive_their_conversation(store).await;
}

/// Everything an [`AuditStore`](crate::AuditStore) promises. Run it on a store with an empty log.
pub async fn audit(store: &dyn crate::AuditStore) {
    audit::entries_form_a_chain(store).await;
    audit::parallel_appends_form_one_chain(store).await;
    audit::pages_are_complete_in_either_order(store).await;
}

/// Everything a [`LedgerStore`](crate::LedgerStore) promises.
pub async fn ledger(store: &dyn crate::LedgerStore) {
    ledger::a_row_reads_back_whole(store).await;
    ledger::a_row_counts_once(store).await;
    ledger::parallel_appends_count_once(store);
    ledger::sums_are_those_of_the_rows(store).await;
    ledger::groups_are_complete_and_in_order(store).await;
    ledger::rows_are_paged_latest_first(store).await;
    ledger::filters_leave_out_the_rest(store).await;
    ledger::the_old_are_erased(store).await;
}

/// Everything a [`BudgetStore`](crate::BudgetStore) promises.
pub async fn budgets<S: crate::BudgetStore + crate::LedgerStore>(store: &S) {
    budgets::rows_of_the_ledger_are_spent_once(store).await;
    budgets::spans_begin_at_their_day(store).await;
    budgets::a_row_takes_its_reservation_away(store).await;
    budgets::what_is_refused_reserves_nothing(store).await;
    budgets::parallel_reservations_keep_the_limit(store).await;
    budgets::reservations_lapse_and_are_released(store).await;
    budgets::amounts_beyond_any_bound_do_no_harm(store).await;
    budgets::a_notice_is_new_once(store).await;
}

/// A sliding session of `project` with an id of its own, made at `created_at`, with every field set.
pub fn sample_context(project: &str, created_at: UnixMillis) -> Context {
    let mut metadata = Map::new();
    metadata.insert("zebra".to_owned(), json!("comes first"));
    metadata.insert("aardvark".to_owned(), json!({"nested": [1, 2.5, null]}));
    Context {
        id: sample_id(created_at),
        project: project.to_owned(),
        model: "sample-model".to_owned(),
        requested_model: "models/Sample \u{0} Model".to_owned(),
        mode: ContextMode::Session,
        profile: ProfileKind::Ark,
        ttl_seconds: 3600,
        expiry: Expiry::Sliding,
        created_at,
        expires_at: created_at + LIFETIME,
        truncation: Some(Truncation::RollingTokens {
            rolling_tokens: true,
            max_window_tokens: Some(8192),
            rolling_window_tokens: None,
        }),
        tools: vec![Tool {
            name: "look_up".to_owned(),
            description: Some("Looks a word up.".to_owned()),
            parameters: Some(json!({"type": "object", "properties": {"z": {}, "a": {}}})),
            strict: Some(true),
        }],
        tool_choice: Some(ToolChoice::Named("look_up".to_owned())),
        display_name: Some("Größe \u{0} 大小".to_owned()),
        metadata,
        policy: CachePolicy {
            warm: Warm::Prewarm,
            keep_warm: KeepWarm::Auto,
            on_too_small: Some(OnTooSmall::Replay),
        },
        initial_tokens: 4000,
        prefix_tokens: 4000,
        turn_count: 0,
        dropped_messages: 0,
        version: 1,
        forked_from: None,
        implicit: None,
        made_by: Some("key-sample".to_owned()),
    }
}

/// Initial messages of several kinds, no turns.
pub fn sample_content() -> ContextContent {
    ContextContent {
        initial: vec![
            Message::text(
                Role::System,
                "You answer briefly.\n\"Quoted\" \u{0} \u{1F980}",
            ),
            Message {
                content: vec![
                    ContentPart::Text {
                        text: "What is this?".to_owned(),
                    },
                    ContentPart::ImageUrl {
                        url: "https://example.com/picture.png".to_owned(),
                        detail: Some("low".to_owned()),
                    },
                ],
                name: Some("ada".to_owned()),
                ..Message::text(Role::User, "")
            },
            Message {
                content: Vec::new(),
                tool_calls: vec![ToolCall {
                    id: "call-1".to_owned(),
                    name: "look_up".to_owned(),
                    arguments: "{\"word\": \"crab\"".to_owned(),
                }],
                reasoning: Some("It has claws.".to_owned()),
                ..Message::text(Role::Assistant, "")
            },
        ],
        turns: Vec::new(),
    }
}

/// What commits turn `number`, with its number in its text.
pub fn sample_append(number: u32, now: UnixMillis) -> AppendTurn {
    let message = |role, text: String| StoredMessage {
        message: Message::text(role, text),
        tokens: 10 + number,
    };
    AppendTurn {
        turn: Turn {
            number,
            messages: vec![
                message(Role::User, format!("question {number}")),
                message(Role::Assistant, format!("answer {number}")),
            ],
            committed_at: now,
        },
        dropped_messages: number / 2,
        prefix_tokens: 4000 + u64::from(number) * 20,
        expires_at: now + LIFETIME,
    }
}

/// An id no other call in this process returns.
fn sample_id(created_at: UnixMillis) -> ContextId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut random = [0x5a; 16];
    random[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    ContextId::new(created_at, random)
}

async fn insert(store: &dyn ContextStore, context: &Context) {
    store
        .insert(context, &sample_content())
        .await
        .expect("a new context is stored");
}

#[track_caller]
fn assert_not_found<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::NotFound)), "{result:?}");
}

#[track_caller]
fn assert_conflict<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Conflict)), "{result:?}");
}

/// Runs `task` for each number below `count` on a thread of its own, all beginning at once, and returns the results.
fn in_parallel<T: Send>(count: u32, task: impl AsyncFn(u32) -> T + Sync) -> Vec<T> {
    let runtime = tokio::runtime::Handle::current();
    let start = std::sync::Barrier::new(count as usize);
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..count)
                .map(|number| {
                    let (runtime, start, task) = (&runtime, &start, &task);
                    scope.spawn(move || {
                        start.wait();
                        runtime.block_on(task(number))
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no task panics"))
                .collect()
        })
    })
}

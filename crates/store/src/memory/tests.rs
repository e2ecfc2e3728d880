use super::*;
use crate::conformance;

#[tokio::test(flavor = "multi_thread")]
async fn contexts_conform() {
    conformance::contexts(&MemoryStore::new()).await;
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
async fn indexes_are_empty_when_all_contexts_are_gone() {
    let store = MemoryStore::new();
    conformance::contexts(&store).await;
    store.sweep(UnixMillis::MAX, u32::MAX).await.expect("swept");
    let state = store.state();
    assert!(state.contexts.is_empty() && state.by_age.is_empty() && state.by_expiry.is_empty());
}

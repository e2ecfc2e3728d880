//! One chain for all replicas.

use super::*;
use crate::conformance::audit::{sample_entry, verified};
use crate::{AuditBreak, AuditFilter, AuditOrder, AuditStore, AuditVerifier};

#[tokio::test(flavor = "multi_thread")]
async fn replicas_append_to_one_chain() {
    let options = options().await;
    let one = PostgresStore::open(&options).await.unwrap();
    let other = PostgresStore::open(&options).await.unwrap();
    let append = async |store: &PostgresStore, actor: &str| {
        for _ in 0..20 {
            let entry = sample_entry("key.create", actor);
            store.append_audit(&entry).await.unwrap();
        }
    };
    tokio::join!(append(&one, "one"), append(&other, "other"));
    assert_eq!(verified(&one).await.len(), 40);
}

#[tokio::test]
async fn a_change_is_noticed() {
    let store = opened().await;
    for _ in 0..3 {
        let entry = sample_entry("key.create", "key-0");
        store.append_audit(&entry).await.unwrap();
    }
    run(
        &store,
        "UPDATE audit SET actor = 'nobody' WHERE sequence = 2",
    )
    .await;
    let filter = AuditFilter::default();
    let page = store
        .audit_page(&filter, AuditOrder::Oldest, None, 10)
        .await;
    let mut verifier = AuditVerifier::default();
    let broken = page
        .unwrap()
        .iter()
        .find_map(|record| verifier.check(record).err());
    assert_eq!(broken, Some(AuditBreak::Changed(2)));
}

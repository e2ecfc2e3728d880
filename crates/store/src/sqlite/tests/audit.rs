//! Whoever can write to the file can't change the log unnoticed.

use super::*;
use crate::conformance::audit::sample_entry;
use crate::{AuditBreak, AuditFilter, AuditHash, AuditOrder, AuditStore, AuditVerifier};

async fn filled() -> (TempDir, SqliteStore) {
    let (directory, store) = opened().await;
    for number in 0..10 {
        let mut entry = sample_entry("key.create", "key-0");
        entry.at += number;
        store.append_audit(&entry).await.unwrap();
    }
    (directory, store)
}

async fn verify(store: &SqliteStore) -> Result<Option<(u64, AuditHash)>, AuditBreak> {
    let filter = AuditFilter::default();
    let page = store
        .audit_page(&filter, AuditOrder::Oldest, None, 1000)
        .await;
    let mut verifier = AuditVerifier::default();
    for record in page.unwrap() {
        verifier.check(&record)?;
    }
    Ok(verifier.head())
}

#[tokio::test]
async fn every_change_of_the_log_is_noticed_where_it_was_made() {
    for (tampering, expected) in [
        (
            "UPDATE audit SET actor = 'nobody' WHERE sequence = 4",
            AuditBreak::Changed(4),
        ),
        (
            "UPDATE audit SET at = at + 1 WHERE sequence = 4",
            AuditBreak::Changed(4),
        ),
        (
            "UPDATE audit SET project = NULL WHERE sequence = 4",
            AuditBreak::Changed(4),
        ),
        (
            "UPDATE audit SET details = '{}' WHERE sequence = 10",
            AuditBreak::Changed(10),
        ),
        (
            "UPDATE audit SET target = target || act, act = '' WHERE sequence = 1",
            AuditBreak::Changed(1),
        ),
        (
            "UPDATE audit SET hash = randomblob(32) WHERE sequence = 4",
            AuditBreak::Changed(4),
        ),
        (
            "UPDATE audit SET previous = randomblob(32) WHERE sequence = 4",
            AuditBreak::Unlinked(4),
        ),
        (
            "DELETE FROM audit WHERE sequence = 1",
            AuditBreak::Missing(1),
        ),
        (
            "DELETE FROM audit WHERE sequence = 4",
            AuditBreak::Missing(4),
        ),
        (
            "DELETE FROM audit WHERE sequence = 4; UPDATE audit SET sequence = sequence - 1 WHERE sequence > 4",
            AuditBreak::Unlinked(4),
        ),
        (
            "UPDATE audit SET sequence = 100 WHERE sequence = 4; UPDATE audit SET sequence = 4 WHERE sequence = 5; \
             UPDATE audit SET sequence = 5 WHERE sequence = 100",
            AuditBreak::Unlinked(4),
        ),
    ] {
        let (_directory, store) = filled().await;
        assert_eq!(verify(&store).await.unwrap().unwrap().0, 10);
        run(&store, tampering).await;
        assert_eq!(verify(&store).await, Err(expected), "{tampering}");
    }
}

#[tokio::test]
async fn what_is_missing_at_the_end_is_told_by_a_head_that_was_kept() {
    let (_directory, store) = filled().await;
    let kept = verify(&store).await.unwrap();
    run(&store, "DELETE FROM audit WHERE sequence > 7").await;
    let head = verify(&store).await.unwrap();
    assert_ne!(head, kept);
    // What is appended then does not make it look whole either.
    for _ in 0..3 {
        let entry = sample_entry("key.create", "key-0");
        store.append_audit(&entry).await.unwrap();
    }
    let head = verify(&store).await.unwrap();
    assert_eq!(head.unwrap().0, kept.unwrap().0);
    assert_ne!(head, kept);
}

//! The audit log.

use super::{NOW, in_parallel};
use crate::audit::{AuditEntry, AuditFilter, AuditOrder, AuditRecord, AuditStore, AuditVerifier};

/// An entry with every field set.
pub fn sample_entry(act: &str, actor: &str) -> AuditEntry {
    AuditEntry {
        at: NOW,
        actor: actor.to_owned(),
        act: act.to_owned(),
        target: "key-1".to_owned(),
        project: Some("alpha".to_owned()),
        request: Some("req-1".to_owned()),
        details: "{\"label\":\"Größe 大小\",\"before\":null}".to_owned(),
    }
}

async fn page(
    store: &dyn AuditStore,
    filter: &AuditFilter,
    order: AuditOrder,
    after: Option<u64>,
    limit: u32,
) -> Vec<AuditRecord> {
    let page = store.audit_page(filter, order, after, limit).await;
    page.expect("the store answers")
}

/// The whole chain, followed from its beginning.
pub async fn verified(store: &dyn AuditStore) -> Vec<AuditRecord> {
    let mut verifier = AuditVerifier::default();
    let mut records = Vec::new();
    loop {
        let after = verifier.head().map(|(sequence, _)| sequence);
        let next = page(store, &AuditFilter::default(), AuditOrder::Oldest, after, 7).await;
        if next.is_empty() {
            return records;
        }
        for record in &next {
            verifier.check(record).expect("the chain holds");
        }
        records.extend(next);
    }
}

/// What is appended reads back, in a chain.
pub async fn entries_form_a_chain(store: &dyn AuditStore) {
    let mut appended = Vec::new();
    for number in 0..20 {
        let mut entry = sample_entry("key.create", "key-0");
        entry.at += number;
        if number % 2 == 1 {
            entry.project = None;
            entry.request = None;
        }
        appended.push(store.append_audit(&entry).await.expect("appended"));
    }
    assert_eq!(verified(store).await, appended);
}

/// Parallel appends neither fork the chain nor lose an entry.
pub async fn parallel_appends_form_one_chain(store: &dyn AuditStore) {
    let before = verified(store).await.len();
    let appended = in_parallel(8, async |number| {
        let entry = sample_entry("project.update", &format!("actor-{number}"));
        for _ in 0..5 {
            store.append_audit(&entry).await.expect("appended");
        }
    });
    assert_eq!(verified(store).await.len(), before + 5 * appended.len());
}

/// Pages come in either order, complete, and with what was asked for.
pub async fn pages_are_complete_in_either_order(store: &dyn AuditStore) {
    for (act, actor) in [
        ("key.rotate", "one"),
        ("keyed", "one"),
        ("key.rotate", "two"),
    ] {
        let entry = sample_entry(act, actor);
        store.append_audit(&entry).await.expect("appended");
    }
    let all = verified(store).await;
    for order in [AuditOrder::Newest, AuditOrder::Oldest] {
        for act in [
            None,
            Some("key.rotate"),
            Some("key.*"),
            Some("*"),
            Some("none"),
        ] {
            for actor in [None, Some("one")] {
                let filter = AuditFilter {
                    act: act.map(str::to_owned),
                    actor: actor.map(str::to_owned),
                };
                let mut expected: Vec<AuditRecord> = all.clone();
                expected.retain(|record| filter.takes(&record.entry));
                if order == AuditOrder::Newest {
                    expected.reverse();
                }
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let next = page(store, &filter, order, after, 3).await;
                    assert!(next.len() <= 3);
                    let Some(last) = next.last() else { break };
                    after = Some(last.sequence);
                    found.extend(next);
                }
                assert_eq!(found, expected, "{filter:?}");
            }
        }
    }
}

//! How responses end: by deletion, by time, and what they leave for those that continue from them.

use super::{assert_gone, chain, insert, sample_continuation, sample_response, usage, whole};
use crate::conformance::{LIFETIME, NOW, assert_conflict};
use crate::{ResponseRecord, ResponseStore, ResponseUsage};

/// What these records count for when those that have ended are there for their messages only.
fn counted(living: &[&ResponseRecord], ended: &[&ResponseRecord]) -> ResponseUsage {
    let living_bytes: u64 = living.iter().map(|record| record.bytes()).sum();
    let ended_bytes: usize = ended.iter().map(|record| record.messages.len()).sum();
    ResponseUsage {
        responses: (living.len() + ended.len()) as u64,
        conversations: 0,
        bytes: living_bytes + ended_bytes as u64,
    }
}

async fn delete(store: &dyn ResponseStore, record: &ResponseRecord, now: i64) {
    store
        .delete_response(&record.project, &record.id, now)
        .await
        .expect("it is there");
}

/// One millisecond before its expiry a response is there; at its expiry it is gone, for every method.
pub async fn a_response_is_gone_at_the_very_instant(store: &dyn ResponseStore) {
    let record = sample_response("r-instant", "r-instant-1");
    insert(store, &record).await;
    let end = record.expires_at;
    for now in [end, end + 1] {
        assert_gone(store, "r-instant", "r-instant-1", now).await;
    }
    let stored = store.response("r-instant", "r-instant-1", end - 1).await;
    assert_eq!(stored.expect("there"), record);
    assert_eq!(chain(store, &record, end - 1).await, whole(&[&record]));
    delete(store, &record, end - 1).await;
    assert_gone(store, "r-instant", "r-instant-1", NOW).await;
    assert_eq!(usage(store, "r-instant").await, ResponseUsage::default());
}

/// What was deleted is gone for clients, but is still part of what came after it, for as long as that lives.
pub async fn the_deleted_leave_their_messages(store: &dyn ResponseStore) {
    let first = sample_response("r-leave", "r-leave-1");
    let middle = sample_continuation(&first, "r-leave-2");
    let last = sample_continuation(&middle, "r-leave-3");
    for record in [&first, &middle, &last] {
        insert(store, record).await;
    }

    delete(store, &middle, NOW).await;
    assert_gone(store, "r-leave", "r-leave-2", NOW).await;
    assert_eq!(
        usage(store, "r-leave").await,
        counted(&[&first, &last], &[&middle])
    );
    assert_conflict(store.insert_response(&middle, None).await);
    let sibling = sample_continuation(&first, "r-leave-4");
    insert(store, &sibling).await;
    delete(store, &sibling, NOW).await;

    delete(store, &first, NOW).await;
    assert_gone(store, "r-leave", "r-leave-1", NOW).await;
    assert_eq!(
        usage(store, "r-leave").await,
        counted(&[&last], &[&first, &middle])
    );
    assert_eq!(
        chain(store, &last, NOW).await,
        whole(&[&first, &middle, &last])
    );
    let next = sample_continuation(&last, "r-leave-5");
    insert(store, &next).await;
    delete(store, &last, NOW).await;
    assert_eq!(
        chain(store, &next, NOW).await,
        whole(&[&first, &middle, &last, &next])
    );

    delete(store, &next, NOW).await;
    assert_eq!(usage(store, "r-leave").await, ResponseUsage::default());
    insert(store, &first).await;
    insert(store, &middle).await;
    let stored = store.response("r-leave", "r-leave-2", NOW).await;
    assert_eq!(stored.expect("the ids are free again"), middle);
}

/// The last one that continued from something takes that along, and what another branch needs stays.
pub async fn a_deletion_takes_along_what_was_kept_for_it(store: &dyn ResponseStore) {
    let first = sample_response("r-along", "r-along-1");
    let shared = sample_continuation(&first, "r-along-shared");
    let left = sample_continuation(&shared, "r-along-left");
    let left_end = sample_continuation(&left, "r-along-left-end");
    let right = sample_continuation(&shared, "r-along-right");
    let right_end = sample_continuation(&right, "r-along-right-end");
    for record in [&first, &shared, &left, &left_end, &right, &right_end] {
        insert(store, record).await;
    }
    for record in [&shared, &left, &right] {
        delete(store, record, NOW).await;
    }
    assert_eq!(
        usage(store, "r-along").await,
        counted(&[&first, &left_end, &right_end], &[&shared, &left, &right])
    );
    delete(store, &left_end, NOW).await;
    assert_eq!(
        usage(store, "r-along").await,
        counted(&[&first, &right_end], &[&shared, &right])
    );
    assert_eq!(
        chain(store, &right_end, NOW).await,
        whole(&[&first, &shared, &right, &right_end])
    );
    delete(store, &right_end, NOW).await;
    assert_eq!(usage(store, "r-along").await, counted(&[&first], &[]));
    assert_eq!(chain(store, &first, NOW).await, whole(&[&first]));
}

/// What has expired keeps nothing from being deleted, swept or not, before it, after it or beside it.
pub async fn the_expired_hold_up_no_deletion(store: &dyn ResponseStore) {
    let soon = NOW + 10;
    let short = |record: ResponseRecord| ResponseRecord {
        expires_at: soon,
        ..record
    };
    let first = sample_response("r-hold", "r-hold-1");
    let after = short(sample_continuation(&first, "r-hold-after"));
    insert(store, &first).await;
    insert(store, &after).await;
    assert_eq!(usage(store, "r-hold").await.responses, 2);
    delete(store, &first, soon).await;
    assert_eq!(usage(store, "r-hold").await, ResponseUsage::default());

    let before = short(sample_response("r-hold", "r-hold-before"));
    let beside = short(sample_continuation(&before, "r-hold-beside"));
    let living = ResponseRecord {
        expires_at: NOW + LIFETIME,
        ..sample_continuation(&before, "r-hold-living")
    };
    let other = ResponseRecord {
        expires_at: NOW + LIFETIME,
        ..sample_continuation(&before, "r-hold-other")
    };
    for record in [&before, &beside, &living, &other] {
        insert(store, record).await;
    }
    delete(store, &living, soon).await;
    assert_eq!(usage(store, "r-hold").await, counted(&[&other], &[&before]));
    assert_eq!(chain(store, &other, soon).await, whole(&[&before, &other]));
    delete(store, &other, soon).await;
    assert_eq!(usage(store, "r-hold").await, ResponseUsage::default());
}

/// The sweep ends what has expired, the longest expired first and within its limit; what living ones need stays.
pub async fn sweep_ends_the_expired_within_its_limit(store: &dyn ResponseStore) {
    // Long before the other functions' responses, so that these do not expire here.
    let start = NOW - 1000 * LIFETIME;
    let times = |record: ResponseRecord, age| ResponseRecord {
        created_at: start,
        expires_at: start + age,
        ..record
    };
    let first = times(sample_response("r-sweep", "r-sweep-1"), 2);
    let middle = times(sample_continuation(&first, "r-sweep-2"), 1);
    let last = times(sample_continuation(&middle, "r-sweep-3"), 5);
    let alone = times(sample_response("r-sweep", "r-sweep-4"), 3);
    for record in [&first, &middle, &last, &alone] {
        insert(store, record).await;
    }
    let sweep = async |age, limit| {
        let swept = store.sweep_responses(start + age, limit).await;
        swept.expect("swept")
    };
    assert_eq!(sweep(0, 10).await, 0);
    assert_eq!(sweep(3, 0).await, 0);
    assert_eq!(
        usage(store, "r-sweep").await,
        counted(&[&first, &middle, &last, &alone], &[])
    );
    assert_eq!(sweep(3, 1).await, 1, "the longest expired");
    assert_eq!(
        usage(store, "r-sweep").await,
        counted(&[&first, &last, &alone], &[&middle])
    );
    assert_eq!(sweep(3, 1).await, 1);
    assert_eq!(sweep(3, 2).await, 1, "what is kept is not counted again");
    assert_eq!(sweep(3, 2).await, 0);
    assert_eq!(
        usage(store, "r-sweep").await,
        counted(&[&last], &[&first, &middle])
    );
    assert_eq!(
        chain(store, &last, start + 3).await,
        whole(&[&first, &middle, &last])
    );
    assert_gone(store, "r-sweep", "r-sweep-4", start).await;
    assert_gone(store, "r-sweep", "r-sweep-2", start).await;
    assert_eq!(sweep(5, 10).await, 1);
    assert_eq!(usage(store, "r-sweep").await, ResponseUsage::default());
}

/// A whole tree that expires together goes together, however many sweeps it takes.
pub async fn sweep_leaves_nothing_of_a_tree(store: &dyn ResponseStore) {
    let start = NOW - 900 * LIFETIME;
    for limit in [1, 2, 3, 100] {
        let mut records = vec![ResponseRecord {
            created_at: start,
            expires_at: start + 1,
            ..sample_response("r-tree", "r-tree-0")
        }];
        // Each continues from the one at half its number: a tree with two branches at each.
        for number in 1..20 {
            let next = sample_continuation(&records[number / 2], &format!("r-tree-{number}"));
            records.push(next);
        }
        for record in &records {
            insert(store, record).await;
        }
        let mut swept = 0;
        loop {
            let now = store.sweep_responses(start + 1, limit).await;
            let now = now.expect("swept");
            swept += now;
            if now < u64::from(limit) {
                break;
            }
        }
        assert_eq!(swept, 20);
        assert_eq!(usage(store, "r-tree").await, ResponseUsage::default());
    }
}

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn row(number: usize) -> LedgerRecord {
    LedgerRecord {
        id: number.to_string(),
        ..LedgerRecord::default()
    }
}

/// Gives everything to a store that takes it; answers the ids in the order in which they came.
fn drained(pending: &mut Pending) -> Vec<String> {
    let mut ids = Vec::new();
    while let Some(batch) = pending.next() {
        let rows = match &batch.rows {
            Some(rows) => rows.clone(),
            None => spool::read(batch.path.as_ref().unwrap()).unwrap().rows,
        };
        ids.extend(rows.into_iter().map(|row| row.id));
        if let Some(path) = pending.written(&batch) {
            spool::remove(&path, false).unwrap();
        }
    }
    ids
}

#[test]
fn rows_beyond_what_memory_keeps_come_back_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut pending = Pending::open(folder.path(), u64::MAX).unwrap();
    let count = CACHED_ROWS_MAX + 10;
    for number in 0..count {
        assert!(matches!(pending.add(row(number)), Kept::Safely));
    }
    assert_eq!(pending.rows(), count as u64);
    let expected: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    assert_eq!(drained(&mut pending), expected);
    assert_eq!((pending.rows(), pending.bytes(), pending.cached), (0, 0, 0));
    assert!(Segment::find(folder.path()).unwrap().is_empty());
}

#[test]
fn a_batch_that_is_put_back_comes_again_before_what_came_later() {
    let folder = tempfile::tempdir().unwrap();
    for mut pending in [
        Pending::in_memory(),
        Pending::open(folder.path(), u64::MAX).unwrap(),
    ] {
        pending.add(row(1));
        let batch = pending.next().unwrap();
        pending.add(row(2));
        pending.put_back(batch);
        assert_eq!(pending.state(), LedgerState::Behind);
        assert_eq!(pending.rows(), 2);
        assert_eq!(drained(&mut pending), ["1", "2"]);
        assert_eq!(pending.state(), LedgerState::Ok);
    }
}

#[test]
fn without_room_on_disk_memory_takes_so_many_and_then_says_no() {
    let folder = tempfile::tempdir().unwrap();
    let mut pending = Pending::open(folder.path(), 0).unwrap();
    for number in 0..LOOSE_ROWS_MAX {
        assert!(matches!(pending.add(row(number)), Kept::InMemory(_)));
    }
    let Kept::Not(lost) = pending.add(row(LOOSE_ROWS_MAX)) else {
        panic!("there is no room");
    };
    assert_eq!(lost.id, LOOSE_ROWS_MAX.to_string());
    assert!(!pending.is_on_disk());
    let batch = pending.next().unwrap();
    pending.put_back(batch);
    assert_eq!(pending.state(), LedgerState::Full);
    assert_eq!(drained(&mut pending).len(), LOOSE_ROWS_MAX);
    assert_eq!(pending.state(), LedgerState::Ok);
}

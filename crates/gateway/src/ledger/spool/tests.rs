#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn row(id: &str) -> LedgerRecord {
    LedgerRecord {
        id: id.to_owned(),
        ..LedgerRecord::default()
    }
}

fn filled(folder: &Path, ids: &[&str]) -> PathBuf {
    let mut segment = Segment::create(folder, 7).unwrap();
    for id in ids {
        segment.append(&frame(&row(id))).unwrap();
    }
    segment.path().to_owned()
}

fn ids(contents: &Contents) -> Vec<&str> {
    contents.rows.iter().map(|row| row.id.as_str()).collect()
}

#[test]
fn what_was_written_is_read_again_wherever_the_file_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), &["one", "two", "three"]);
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(ids(&read(&path).unwrap()), ["one", "two", "three"]);
    let mut seen = 0;
    for end in 0..whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        let contents = read(&path).unwrap();
        assert!(!contents.is_damaged, "cut at {end}");
        assert!(contents.rows.len() >= seen, "cut at {end}");
        seen = contents.rows.len();
    }
    assert_eq!(seen, 2, "a cut in the last row takes nothing else");
}

#[test]
fn damage_is_found_and_takes_one_row_at_most_where_lengths_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), &["one", "two", "three"]);
    let whole = std::fs::read(&path).unwrap();
    let first_json = MAGIC.len() + FRAME_BYTES;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let contents = read(&path).unwrap();
        assert!(contents.rows.len() < 3, "changed at {at}");
        if at >= first_json && at < first_json + 20 {
            assert!(contents.is_damaged);
            assert_eq!(ids(&contents), ["two", "three"], "changed at {at}");
        }
    }
}

#[test]
fn zeros_at_the_end_are_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), &["one"]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend([0; 4096]);
    std::fs::write(&path, &bytes).unwrap();
    let contents = read(&path).unwrap();
    assert!(!contents.is_damaged);
    assert_eq!(ids(&contents), ["one"]);
}

#[test]
fn files_from_before_are_found_oldest_first_and_others_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for number in [12, 3, 101] {
        Segment::create(folder.path(), number).unwrap();
    }
    std::fs::write(folder.path().join("note.txt"), "hello").unwrap();
    let found = Segment::find(folder.path()).unwrap();
    let numbers: Vec<u64> = found.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [3, 12, 101]);
    remove(found[0].1.path(), true).unwrap();
    remove(found[1].1.path(), false).unwrap();
    assert_eq!(Segment::find(folder.path()).unwrap().len(), 1);
    assert!(folder.path().join("000000000003.damaged").exists());
}

//! Golden fixtures: requests as they are understood, answers as they are written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod cached;
mod errors;
mod properties;
mod requests;

use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use super::encode_error;
use crate::UnixMillis;
use crate::error::ApiError;

/// 2027-01-15T08:00:00Z
const NOW: UnixMillis = 1_800_000_000_000;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/client/gemini")
}

fn check(name: &str, found: &str) {
    let path = folder().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, found).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == found,
        "{name} differs; if that is right, write it with UPDATE_GOLDEN=1\n--- expected\n{expected}\n--- found\n{found}"
    );
}

fn shown(error: &ApiError) -> String {
    let (status, body) = encode_error(error);
    let param = error.param.as_deref().unwrap_or("-");
    format!("{status} {param}\n{}\n", String::from_utf8_lossy(&body))
}

/// The fixtures whose names begin so, and what `decode` makes of them, each compared with what is beside it. Those with
/// `error` in their names must fail, and no other.
fn check_all<T: Debug>(
    start: &str,
    at_least: usize,
    decode: impl Fn(&Bytes) -> Result<T, ApiError>,
    show: impl Fn(T, &Bytes) -> String,
) {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(start) && name.ends_with(".json"))
        .collect();
    names.sort();
    assert!(names.len() >= at_least, "{start}");
    for name in names {
        let body = Bytes::from(fs::read(folder().join(&name)).unwrap());
        let result = decode(&body);
        assert_eq!(
            result.is_err(),
            name.contains("_error_"),
            "{name}: {result:?}"
        );
        let found = match result {
            Ok(value) => show(value, &body),
            Err(error) => shown(&error),
        };
        check(&name.replace(".json", ".expected.txt"), &found);
    }
}

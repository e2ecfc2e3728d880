//! Every decoder with every fixture of every dialect, as it is and with bytes changed: none may panic, and what `fuzz/`
//! checks must hold here, too. This is the small brother of `make fuzz`, which shares the checks.
//!
//! An input that once broke something belongs into `fixtures/fuzz/`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod draw;
mod streams;
mod targets;
mod upstream;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use draw::Draw;
use targets::TARGETS;

/// How often each fixture is changed; each change is shown to every decoder.
const CHANGES: usize = 10;
/// Bytes that mean something to some decoder.
const MEANINGFUL: &[u8] = b"\"\\{}[]:,-.0eE9 \n\r\tntf\0\x7f\x80\xc3\xff";

#[test]
fn no_decoder_panics_on_any_fixture_changed_or_not() {
    let fixtures = fixtures();
    assert!(fixtures.len() > 300, "only {} fixtures", fixtures.len());
    let mut draw = Draw::new(1);
    for (path, bytes) in &fixtures {
        check(path, "as it is", bytes);
        for _ in 0..CHANGES {
            let (changed, what) = change(bytes, &mut draw);
            check(path, &what, &changed);
        }
    }
}

/// Files that are no fixtures have names of their own: the frames of `.frames` files, in which changes break more.
fn fixtures() -> Vec<(PathBuf, Vec<u8>)> {
    let mut fixtures = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().ends_with(".expected.txt") {
                let bytes = fs::read(&path).unwrap();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "frames")
                {
                    fixtures.push((path.with_extension("bin"), streams::frames(&bytes)));
                }
                fixtures.push((path, bytes));
            }
        }
    }
    // The order of a folder is the file system's, and the changes are drawn in order.
    fixtures.sort();
    fixtures
}

fn change(bytes: &[u8], draw: &mut Draw) -> (Vec<u8>, String) {
    let mut changed = bytes.to_vec();
    let at = draw.below(bytes.len().max(1));
    let byte = draw.of_these(MEANINGFUL);
    let what = match draw.below(4) {
        _ if bytes.is_empty() => return (vec![byte], format!("{byte:#04x} alone")),
        0 => {
            changed.insert(at, byte);
            format!("{byte:#04x} put in at {at}")
        }
        1 => {
            changed.remove(at);
            format!("without the byte at {at}")
        }
        _ => {
            changed[at] = byte;
            format!("{byte:#04x} in place of the byte at {at}")
        }
    };
    (changed, what)
}

fn check(path: &Path, what: &str, bytes: &[u8]) {
    for (target, decode) in TARGETS {
        let result = catch_unwind(AssertUnwindSafe(|| decode(bytes)));
        assert!(result.is_ok(), "{target}: {}, {what}", path.display());
    }
}

//! Every decoder with every fixture of every dialect, as it is and with bytes changed: none may panic, and what `fuzz/`
//! checks must hold here, too. This is the small brother of `make fuzz`, which shares the checks.
//!
//! Inputs without an expected result, those that once broke something among them, are in `fuzz/seeds`.
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

/// How often each input is changed; each change is shown to every decoder.
const CHANGES: usize = 3;
/// Bytes that mean something to some decoder.
const MEANINGFUL: &[u8] = b"\"\\{}[]:,-.0eE9 \n\r\tntf\0\x7f\x80\xc3\xff";

#[test]
fn no_decoder_panics_on_any_fixture_changed_or_not() {
    let inputs = inputs();
    assert!(inputs.len() > 500, "only {} inputs", inputs.len());
    let mut draw = Draw::new(1);
    for (path, bytes) in &inputs {
        check(path, "as it is", bytes);
        for _ in 0..CHANGES {
            let (changed, what) = change(bytes, &mut draw);
            check(path, &what, &changed);
        }
    }
}

/// Fixtures and seeds, and beside them what fixtures consist of: the frames of `.frames` files, in which changes break
/// more, and the events of streams, which others send as bodies.
fn inputs() -> Vec<(PathBuf, Vec<u8>)> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![
        crate_folder.join("fixtures"),
        crate_folder.join("../../fuzz/seeds"),
    ];
    let mut inputs = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().ends_with(".expected.txt") {
                let bytes = fs::read(&path).unwrap();
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("frames") => inputs.push((path.join("bytes"), streams::frames(&bytes))),
                    Some("sse") => inputs.extend(events(&path, &bytes)),
                    _ => {}
                }
                inputs.push((path, bytes));
            }
        }
    }
    // The order of a folder is the file system's, and the changes are drawn in order.
    inputs.sort();
    inputs
}

fn events(path: &Path, stream: &[u8]) -> Vec<(PathBuf, Vec<u8>)> {
    let events = stream
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter_map(|line| line.strip_prefix(b"data: "))
        .filter(|data| data.starts_with(b"{"))
        .enumerate();
    events
        .map(|(number, data)| (path.join(number.to_string()), data.to_vec()))
        .collect()
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

//! What clients say stays private: sealed on disk where there is a key, gone when it is deleted, never in a log.

mod deletion;
mod logs;
mod sealing;

use std::path::{Path, PathBuf};

/// What a client says, and nobody else.
const CANARY: &str = "the-canary-sings-of-quarterly-figures";

/// All files below a folder in which these bytes stand.
fn files_with(folder: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // It may go while we look.
            let content = std::fs::read(&path).unwrap_or_default();
            if content.windows(bytes.len()).any(|window| window == bytes) {
                found.push(path);
            }
        }
    }
    found
}

/// All files below a folder in which the canary stands, as text or as tokens of the toy engine.
fn files_with_canary(folder: &Path) -> Vec<PathBuf> {
    let tokens = CANARY
        .bytes()
        .flat_map(|byte| u32::from(byte).to_le_bytes());
    let tokens: Vec<u8> = tokens.collect();
    let mut found = files_with(folder, CANARY.as_bytes());
    found.extend(files_with(folder, &tokens));
    found
}

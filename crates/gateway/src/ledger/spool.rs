//! Rows on disk that the store does not have yet: a folder of files that are only ever added to.
//!
//! A file begins with [`MAGIC`]; each row follows as the length of its JSON, the CRC-32 of that, and the JSON. A row is
//! handed to the system with one write, so that it survives the end of the process at any instant; [`Segment::sync`]
//! makes it survive the end of the machine.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_store::LedgerRecord;

/// What a file begins with: the name and version of its form.
const MAGIC: &[u8; 8] = b"HFLEDGR1";

/// Before each row: length and checksum, four bytes each, little-endian.
const FRAME_BYTES: usize = 8;

/// No row is longer; a length beyond is damage.
const ROW_BYTES_MAX: usize = 1024 * 1024;

const ENDING: &str = "rows";

/// A file of rows.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    /// `None`: nothing is added any more.
    file: Option<File>,
    /// Its size.
    pub(super) bytes: u64,
    is_synced: bool,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) rows: Vec<LedgerRecord>,
    /// Whether something in it is neither a row nor the beginning of one that was being written.
    pub(super) is_damaged: bool,
}

/// A row as it is written.
pub(super) fn frame(row: &LedgerRecord) -> Vec<u8> {
    let mut frame = vec![0; FRAME_BYTES];
    // The only way to fail is a map with keys that are no texts, and a row has none.
    if serde_json::to_writer(&mut frame, row).is_err() {
        frame.truncate(FRAME_BYTES);
    }
    let (head, json) = frame.split_at_mut(FRAME_BYTES);
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&crc32fast::hash(json).to_le_bytes());
    frame
}

impl Segment {
    /// Makes the folder, readable by its owner only, and finds the files from before, oldest first.
    pub(super) fn find(folder: &Path) -> io::Result<Vec<(u64, Segment)>> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let number = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse::<u64>().ok());
            let is_ours = path.extension().is_some_and(|ending| ending == ENDING);
            if let (Some(number), true) = (number, is_ours) {
                let bytes = std::fs::metadata(&path)?.len();
                let segment = Segment {
                    path,
                    file: None,
                    bytes,
                    is_synced: true,
                };
                found.push((number, segment));
            }
        }
        found.sort_by_key(|(number, _)| *number);
        Ok(found)
    }

    /// A new file.
    pub(super) fn create(folder: &Path, number: u64) -> io::Result<Segment> {
        let path = folder.join(format!("{number:012}.{ENDING}"));
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(MAGIC)?;
        Ok(Segment {
            path,
            file: Some(file),
            bytes: MAGIC.len() as u64,
            is_synced: false,
        })
    }

    /// Adds a row, all of it or nothing.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("the file is closed"));
        };
        if let Err(error) = file.write_all(frame) {
            // What was half written would hide what comes after it.
            if file.set_len(self.bytes).is_err() {
                self.file = None;
            }
            return Err(error);
        }
        self.bytes += frame.len() as u64;
        self.is_synced = false;
        Ok(())
    }

    /// Whether rows can be added.
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// What makes its rows survive a loss of power; blocking. `None`: they do already.
    pub(super) fn sync(&mut self) -> Option<impl FnOnce() -> io::Result<()> + Send + 'static> {
        if std::mem::replace(&mut self.is_synced, true) {
            return None;
        }
        let path = self.path.clone();
        Some(move || {
            File::open(&path)?.sync_all()?;
            match path.parent() {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            }
        })
    }

    /// Nothing is added any more.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a file; blocking.
pub(super) fn read(path: &Path) -> io::Result<Contents> {
    let bytes = std::fs::read(path)?;
    let mut contents = Contents::default();
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        // Less than the beginning is a file that was being made.
        contents.is_damaged = !MAGIC.starts_with(&bytes);
        return Ok(contents);
    };
    while let Some((head, after)) = rest.split_first_chunk::<FRAME_BYTES>() {
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length == 0 && rest.iter().all(|byte| *byte == 0) {
            // The file had grown and the bytes were not there yet when the power went.
            break;
        }
        if length > ROW_BYTES_MAX {
            contents.is_damaged = true;
            break;
        }
        let Some((json, following)) = after.split_at_checked(length) else {
            break;
        };
        let is_whole = crc32fast::hash(json) == u32::from_le_bytes([c0, c1, c2, c3]);
        match serde_json::from_slice(json) {
            Ok(row) if is_whole => contents.rows.push(row),
            // The next one may be whole, if only this one's bytes are wrong.
            _ => contents.is_damaged = true,
        }
        rest = following;
    }
    Ok(contents)
}

/// Removes a file whose rows are in the store; one with damage is kept under another name. Blocking.
pub(super) fn remove(path: &Path, is_damaged: bool) -> io::Result<()> {
    if is_damaged {
        return std::fs::rename(path, path.with_extension("damaged"));
    }
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests;

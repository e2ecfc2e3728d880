//! What the store does not have yet: files, and rows in memory beside them.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_store::LedgerRecord;

use super::LedgerState;
use super::spool::{self, Segment};

/// Rows of files that are kept in memory, too, so that they need not be read again.
const CACHED_ROWS_MAX: usize = 5_000;

/// Rows that are in memory only, where the disk has no place for them.
const LOOSE_ROWS_MAX: usize = 10_000;

/// A file that has grown to this size is closed, so that it can be read in one go, bytes.
const SEGMENT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Where a row has found its place.
pub(super) enum Kept {
    /// It survives the process.
    Safely,
    /// It does not; why, where the row before did.
    InMemory(Option<io::Error>),
    /// It has none.
    Not(Box<LedgerRecord>),
}

/// What is given to the store together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Its file; `None`: its rows are in memory only.
    pub(super) path: Option<PathBuf>,
    /// Its rows; `None`: they are to be read from the file.
    pub(super) rows: Option<Vec<LedgerRecord>>,
}

/// A file and what is known of it.
#[derive(Debug)]
struct Waiting {
    segment: Segment,
    /// How many rows are in it, as far as this process has counted.
    count: usize,
    /// All of them, unless they are too many or from before.
    rows: Option<Vec<LedgerRecord>>,
}

/// Everything that waits.
#[derive(Debug)]
pub(super) struct Pending {
    folder: Option<PathBuf>,
    bytes_max: u64,
    next_number: u64,
    /// What is added to.
    active: Option<Waiting>,
    /// Oldest first.
    closed: VecDeque<Waiting>,
    loose: Vec<LedgerRecord>,
    /// Rows of a batch without a file that is being written.
    loose_in_flight: usize,
    bytes: u64,
    cached: usize,
    /// Whether the store took the last batch.
    is_behind: bool,
    /// Whether the last row found no place on disk.
    is_full: bool,
}

type Sync = Box<dyn FnOnce() -> io::Result<()> + Send>;

impl Pending {
    /// Without a folder.
    pub(super) fn in_memory() -> Self {
        Pending {
            folder: None,
            bytes_max: 0,
            next_number: 0,
            active: None,
            closed: VecDeque::new(),
            loose: Vec::new(),
            loose_in_flight: 0,
            bytes: 0,
            cached: 0,
            is_behind: false,
            is_full: false,
        }
    }

    /// With what was left in the folder.
    pub(super) fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        let found = Segment::find(folder)?;
        Ok(Pending {
            folder: Some(folder.to_owned()),
            bytes_max,
            next_number: found.last().map_or(0, |(number, _)| number + 1),
            bytes: found.iter().map(|(_, segment)| segment.bytes).sum(),
            closed: found
                .into_iter()
                .map(|(_, segment)| Waiting {
                    segment,
                    count: 0,
                    rows: None,
                })
                .collect(),
            ..Pending::in_memory()
        })
    }

    /// Adds a row.
    pub(super) fn add(&mut self, row: LedgerRecord) -> Kept {
        let Some(folder) = self.folder.clone() else {
            return match self.keep_loose(row) {
                Ok(()) => Kept::Safely,
                Err(row) => Kept::Not(row),
            };
        };
        match self.add_to_file(&folder, &row) {
            Ok(()) => {
                self.is_full = false;
                if let Some(active) = &mut self.active {
                    active.count += 1;
                    match &mut active.rows {
                        Some(rows) if self.cached < CACHED_ROWS_MAX => {
                            rows.push(row);
                            self.cached += 1;
                        }
                        rows => self.cached -= rows.take().map_or(0, |rows| rows.len()),
                    }
                }
                Kept::Safely
            }
            Err(error) => {
                let is_news = !std::mem::replace(&mut self.is_full, true);
                match self.keep_loose(row) {
                    Ok(()) => Kept::InMemory(is_news.then_some(error)),
                    Err(row) => Kept::Not(row),
                }
            }
        }
    }

    /// Gives the row back where memory has no room either.
    fn keep_loose(&mut self, row: LedgerRecord) -> Result<(), Box<LedgerRecord>> {
        if self.loose.len() + self.loose_in_flight >= LOOSE_ROWS_MAX {
            self.is_full = true;
            return Err(Box::new(row));
        }
        self.loose.push(row);
        Ok(())
    }

    fn add_to_file(&mut self, folder: &Path, row: &LedgerRecord) -> io::Result<()> {
        let frame = spool::frame(row);
        if self.bytes + frame.len() as u64 > self.bytes_max {
            return Err(io::Error::other("the spool has reached its size"));
        }
        let is_closed = self.active.as_ref().is_some_and(|active| {
            !active.segment.is_open() || active.segment.bytes >= SEGMENT_BYTES_MAX
        });
        if is_closed {
            self.close_active();
        }
        let active = match &mut self.active {
            Some(active) => active,
            none => {
                let segment = Segment::create(folder, self.next_number)?;
                self.next_number += 1;
                self.bytes += segment.bytes;
                none.insert(Waiting {
                    segment,
                    count: 0,
                    rows: Some(Vec::new()),
                })
            }
        };
        active.segment.append(&frame)?;
        self.bytes += frame.len() as u64;
        Ok(())
    }

    fn close_active(&mut self) {
        if let Some(mut active) = self.active.take() {
            active.segment.close();
            self.closed.push_back(active);
        }
    }

    /// What is to be given to the store next: the oldest first. It stays until [`Pending::written`].
    pub(super) fn next(&mut self) -> Option<Batch> {
        if self.closed.is_empty() {
            self.close_active();
        }
        if let Some(oldest) = self.closed.front_mut() {
            let rows = oldest.rows.take();
            self.cached -= rows.as_ref().map_or(0, Vec::len);
            return Some(Batch {
                path: Some(oldest.segment.path().to_owned()),
                rows,
            });
        }
        let loose = std::mem::take(&mut self.loose);
        self.loose_in_flight = loose.len();
        (!loose.is_empty()).then_some(Batch {
            path: None,
            rows: Some(loose),
        })
    }

    /// The store did not take a batch.
    pub(super) fn put_back(&mut self, batch: Batch) {
        self.is_behind = true;
        match (batch.path, batch.rows) {
            (None, Some(mut rows)) => {
                self.loose_in_flight = 0;
                rows.append(&mut self.loose);
                self.loose = rows;
            }
            (Some(_), Some(rows)) => {
                if let Some(oldest) = self.closed.front_mut() {
                    self.cached += rows.len();
                    oldest.rows = Some(rows);
                }
            }
            (_, None) => {}
        }
    }

    /// The store has a batch. Its file is to be removed, where there is one.
    pub(super) fn written(&mut self, batch: &Batch) -> Option<PathBuf> {
        self.is_behind = false;
        if batch.path.is_none() {
            self.loose_in_flight = 0;
            self.is_full = false;
            return None;
        }
        let done = self.closed.pop_front()?;
        self.bytes -= done.segment.bytes;
        Some(done.segment.path().to_owned())
    }

    /// A batch can't be read: it waits no longer, and its file stays where it is.
    pub(super) fn set_aside(&mut self, batch: &Batch) {
        if batch.path.is_some()
            && let Some(unreadable) = self.closed.pop_front()
        {
            self.bytes -= unreadable.segment.bytes;
        }
    }

    /// What makes the files survive a loss of power.
    pub(super) fn syncs(&mut self) -> Vec<Sync> {
        let waiting = self.closed.iter_mut().chain(&mut self.active);
        waiting
            .filter_map(|waiting| waiting.segment.sync())
            .map(|sync| Box::new(sync) as Sync)
            .collect()
    }

    /// Rows that wait; those of files from before are not counted.
    pub(super) fn rows(&self) -> u64 {
        let on_disk: usize = (self.closed.iter().chain(&self.active))
            .map(|waiting| waiting.count)
            .sum();
        (on_disk + self.loose.len() + self.loose_in_flight) as u64
    }

    /// Size of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether everything that waits survives the process.
    pub(super) fn is_on_disk(&self) -> bool {
        self.loose.is_empty() && self.loose_in_flight == 0
    }

    /// Whether rows find a place.
    pub(super) fn state(&self) -> LedgerState {
        if self.is_behind && self.is_full {
            LedgerState::Full
        } else if self.is_behind {
            LedgerState::Behind
        } else {
            LedgerState::Ok
        }
    }
}

#[cfg(test)]
mod tests;

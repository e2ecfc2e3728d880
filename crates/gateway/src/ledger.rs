//! The ledger's writer: rows go to a file at once and to the store a moment later, many together.
//!
//! A row is handed to the system before the last byte of the answer it is about goes out, so that `kill -9` loses none;
//! that takes some microseconds and waits for no disk. The store, which syncs, has it within [`COMMIT_EVERY`], and then
//! the file goes. While the store is away the files stay, are synced, and are given to it when it is back or at the next
//! start. Ids of rows are unique and the store takes each once, so that what comes twice does no harm.

mod entry;
mod pending;
mod spool;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_protocol::UnixMillis;
use holdfast_store::{LedgerRecord, StoreError};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::app::{Clock, Store};
use crate::events::Events;
use pending::{Batch, Kept, Pending};

pub(crate) use entry::{Charge, Entry, Request};

/// How long a row may wait for others that are written with it.
const COMMIT_EVERY: Duration = Duration::from_millis(50);

/// Rows in one transaction.
const COMMIT_ROWS_MAX: usize = 500;

/// Pauses while the store does not take rows: the first, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long a reader waits for rows to be written that he may want to see.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// How often rows that are too old are looked for.
const ERASE_EVERY: Duration = Duration::from_secs(600);

/// Rows erased at once; between two rounds others can write.
const ERASE_ROWS_MAX: u32 = 2_000;

const DAY_MS: i64 = 86_400_000;

/// How the ledger is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerOptions {
    /// Folder for rows that the store does not have yet. `None`: they are in memory only, and a crash loses them.
    pub spool_dir: Option<PathBuf>,
    /// Most that they take there, bytes.
    pub spool_bytes_max: u64,
    /// How long rows are kept, days; 0: for ever.
    pub retention_days: u32,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        LedgerOptions {
            spool_dir: None,
            spool_bytes_max: 1024 * 1024 * 1024,
            retention_days: 400,
        }
    }
}

/// Whether rows find a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LedgerState {
    /// They do.
    Ok,
    /// The store does not take them; they wait on disk.
    Behind,
    /// Neither the store nor the disk takes them.
    Full,
}

/// The ledger.
pub(crate) struct Ledger {
    store: Arc<dyn Store>,
    events: Arc<Events>,
    clock: Clock,
    retention_days: u32,
    pending: Mutex<Pending>,
    /// Whoever writes to the store.
    writing: AsyncMutex<()>,
    wake: Notify,
}

impl Ledger {
    /// Finds what was left by the process before.
    ///
    /// # Errors
    /// The folder can't be made or read; the text says which.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        events: Arc<Events>,
        clock: Clock,
        options: LedgerOptions,
    ) -> Result<Self, String> {
        let LedgerOptions {
            spool_dir,
            spool_bytes_max,
            retention_days,
        } = options;
        let pending = match &spool_dir {
            None => Pending::in_memory(),
            Some(folder) => Pending::open(folder, spool_bytes_max).map_err(|error| {
                let shown = folder.display();
                format!("the ledger's spool {shown} can't be made or read: {error}")
            })?,
        };
        Ok(Ledger {
            store,
            events,
            clock,
            retention_days,
            pending: Mutex::new(pending),
            writing: AsyncMutex::default(),
            wake: Notify::new(),
        })
    }

    /// A row for a request that has just come.
    pub(crate) fn begin(self: &Arc<Self>, request: Request) -> Entry {
        Entry::new(Arc::clone(self), request, (self.clock)())
    }

    /// Adds a row for a charge that is nobody's request, or can't be a part of one's row.
    pub(crate) fn charge_apart(&self, row: LedgerRecord, charge: &Charge) {
        let now = (self.clock)();
        let mut row = LedgerRecord {
            id: entry::new_id(now),
            started_at: now,
            outcome: holdfast_store::ledger::words::COMPLETED.to_owned(),
            ..row
        };
        // Nothing stands in the row yet that the charge could not be added to.
        let _ = entry::add(&mut row, charge);
        self.record(row);
    }

    /// Adds a row. Waits for no store and no disk.
    pub(crate) fn record(&self, row: LedgerRecord) {
        let kept = {
            let mut pending = self.pending();
            let kept = pending.add(row);
            self.events.ledger_waits(pending.rows(), pending.bytes());
            kept
        };
        match kept {
            Kept::Safely | Kept::InMemory(None) => {}
            Kept::InMemory(Some(error)) => {
                tracing::error!(%error, "rows of the ledger are in memory only until the store has them");
            }
            Kept::Not(row) => {
                self.events.ledger_row_lost();
                // The log is the last place it can be recovered from; there is no prompt text in it.
                let row = serde_json::to_string(&*row).unwrap_or_default();
                tracing::error!(
                    row,
                    "the ledger is full: the store does not take rows and the spool has no room; a row is in this log only"
                );
            }
        }
        self.wake.notify_one();
    }

    /// Whether rows find a place.
    pub(crate) fn state(&self) -> LedgerState {
        self.pending().state()
    }

    /// Writes what waits, for somebody who is about to read. What can't be written now is written later.
    pub(crate) async fn flush(self: &Arc<Self>) {
        let ledger = Arc::clone(self);
        // On a task of its own, because a write that has begun must come to its end.
        let writing = tokio::spawn(async move { ledger.write().await });
        if tokio::time::timeout(FLUSH_WAIT, writing).await.is_err() {
            tracing::debug!("the ledger is read before all of it is written");
        }
    }

    /// Writes to the store what waits. Not to be dropped before it ends.
    ///
    /// # Errors
    /// The store does not take it. It is kept.
    pub(crate) async fn write(&self) -> Result<(), StoreError> {
        let _alone = self.writing.lock().await;
        loop {
            let next = self.pending().next();
            let Some(batch) = next else { return Ok(()) };
            let Some((rows, is_damaged)) = self.rows_of(&batch).await else {
                self.pending().set_aside(&batch);
                continue;
            };
            for rows in rows.chunks(COMMIT_ROWS_MAX) {
                if let Err(error) = self.store.append(rows).await {
                    self.pending().put_back(batch);
                    self.events.ledger_refused();
                    self.sync().await;
                    return Err(error);
                }
                self.events.ledger_written(rows.len() as u64);
            }
            let done = self.pending().written(&batch);
            self.report_waiting();
            let Some(path) = done else { continue };
            // Else the file would be given to the store again at the next start, which does no harm.
            let removed =
                tokio::task::spawn_blocking(move || spool::remove(&path, is_damaged)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%error, "a file of the ledger's spool can't be removed");
            }
        }
    }

    /// The rows of a batch, and whether its file is damaged; `None`: it can't be read.
    async fn rows_of(&self, batch: &Batch) -> Option<(Vec<LedgerRecord>, bool)> {
        if let Some(rows) = &batch.rows {
            return Some((rows.clone(), false));
        }
        let path = batch.path.clone()?;
        let shown = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || spool::read(&path)).await;
        match read {
            Ok(Ok(contents)) => {
                if contents.is_damaged {
                    tracing::error!(
                        file = shown,
                        "a file of the ledger's spool is damaged: what could be read of it counts, and the file is \
                         kept with the ending `.damaged`"
                    );
                }
                Some((contents.rows, contents.is_damaged))
            }
            Ok(Err(error)) => {
                tracing::error!(file = shown, %error, "a file of the ledger's spool can't be read and is left where it is");
                None
            }
            Err(_) => None,
        }
    }

    /// Makes what waits on disk survive a loss of power.
    async fn sync(&self) {
        let syncs = self.pending().syncs();
        if syncs.is_empty() {
            return;
        }
        let synced =
            tokio::task::spawn_blocking(move || syncs.into_iter().try_for_each(|sync| sync()))
                .await;
        if let Ok(Err(error)) = synced {
            tracing::error!(%error, "the ledger's spool can't be synced to disk");
        }
    }

    /// Writes until `stopping` is cancelled, and once more then.
    pub(crate) async fn run(&self, stopping: CancellationToken) {
        let mut retry = RETRY_FIRST;
        let mut is_away = false;
        // What the process before has left does not wait for the first row.
        self.wake.notify_one();
        loop {
            tokio::select! {
                () = stopping.cancelled() => return self.finish().await,
                () = self.wake.notified() => {}
            }
            let pause = if is_away { retry } else { COMMIT_EVERY };
            tokio::select! {
                () = stopping.cancelled() => return self.finish().await,
                () = tokio::time::sleep(pause) => {}
            }
            match self.write().await {
                Ok(()) if is_away => {
                    (is_away, retry) = (false, RETRY_FIRST);
                    tracing::info!("the store takes rows of the ledger again");
                }
                Ok(()) => {}
                Err(error) => {
                    if is_away {
                        retry = (retry * 2).min(RETRY_MAX);
                    } else {
                        tracing::warn!(%error, "the store does not take rows of the ledger; they wait on disk");
                    }
                    is_away = true;
                    self.wake.notify_one();
                }
            }
        }
    }

    /// Writes what waits as well as that can be done now.
    pub(crate) async fn finish(&self) {
        let Err(error) = self.write().await else {
            return;
        };
        let (rows, is_on_disk) = {
            let pending = self.pending();
            (pending.rows(), pending.is_on_disk())
        };
        if is_on_disk {
            tracing::warn!(%error, "rows of the ledger wait on disk for the next start");
        } else {
            tracing::error!(%error, rows, "rows of the ledger are lost: the store does not take them, and there is no spool");
        }
    }

    /// Erases what is older than the configuration wants to keep, now and then, until `stopping` is cancelled.
    pub(crate) async fn erase_until(&self, stopping: CancellationToken) {
        let mut ticks = tokio::time::interval(ERASE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.erase((self.clock)()).await {
                tracing::warn!(%error, "old rows of the ledger can't be erased now");
            }
        }
    }

    /// Erases what is too old at `now`; answers how many rows.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn erase(&self, now: UnixMillis) -> Result<u64, StoreError> {
        if self.retention_days == 0 {
            return Ok(0);
        }
        let before = now - i64::from(self.retention_days) * DAY_MS;
        let mut erased = 0;
        loop {
            let round = self.store.erase_before(before, ERASE_ROWS_MAX).await?;
            erased += round;
            if round < u64::from(ERASE_ROWS_MAX) {
                return Ok(erased);
            }
            tokio::task::yield_now().await;
        }
    }

    fn report_waiting(&self) {
        let (rows, bytes) = {
            let pending = self.pending();
            (pending.rows(), pending.bytes())
        };
        self.events.ledger_waits(rows, bytes);
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

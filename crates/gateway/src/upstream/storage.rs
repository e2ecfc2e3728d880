//! What upstreams charge for keeping copies, on its way into the ledger: a row for each hour of a copy's life once the
//! hour is over, and one for the part of an hour in which it ended.
//!
//! Hours are counted from when the copy was made, as providers that charge whole hours do. A row's id follows from the
//! copy and the hour, so that hours that are found again, after a restart or by another replica, are the same rows.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use holdfast_protocol::{Context, UnixMillis};
use holdfast_store::ledger::words;
use holdfast_store::{HandleRecord, LedgerRecord, StoreError};

use super::accounts::trillionths;
use super::{Shared, Target, billing};

const HOUR_MS: i64 = 3_600_000;

/// Copies that ended longer ago have been looked at, unless nothing ran for so long.
const LOOK_BACK_MS: i64 = 8 * 24 * HOUR_MS;

/// Place and name of a copy.
type Key = (String, String);

/// What has been accrued. Forgotten with the process, which costs the next one some rows that are there already.
#[derive(Default)]
pub(crate) struct Storage {
    known: Mutex<HashMap<Key, KeptCopy>>,
}

/// What is known of one copy.
#[derive(Debug, Clone)]
struct KeptCopy {
    /// Where its next hour begins.
    hour: UnixMillis,
    /// Its context's model, which nobody can look up once the context is gone.
    model: String,
    tokens: u64,
}

impl Storage {
    /// A copy has been made.
    pub(super) fn made(&self, context: &Context, record: &HandleRecord) {
        self.lock().insert(key(record), copy_of(context, record));
    }

    /// Accrues the hours that are over of all copies at `target`, the last ones of those that have ended included.
    ///
    /// # Errors
    /// The store can't be read. Nothing is lost: the hours are found again.
    pub(super) async fn accrue(&self, shared: &Shared, target: &Target) -> Result<(), StoreError> {
        if !charges(shared, target) {
            return Ok(());
        }
        let (store, place) = (&shared.store, &target.place);
        let now = (shared.clock)();
        let since = now - LOOK_BACK_MS;
        let mut records = store.expiring(place, since, i64::MAX, u32::MAX).await?;
        records.extend(store.doomed(place, since, u32::MAX).await?);
        for record in &records {
            self.accrue_one(shared, target, record, now, false).await;
        }
        let known: HashSet<&str> = records.iter().map(|record| record.name.as_str()).collect();
        self.lock()
            .retain(|(of, name), _| of != place || known.contains(name.as_str()));
        Ok(())
    }

    /// A copy ends now, before its time or at it. Called before it is forgotten.
    pub(super) async fn ends(&self, shared: &Shared, target: &Target, record: &HandleRecord) {
        if charges(shared, target) {
            let now = (shared.clock)();
            self.accrue_one(shared, target, record, now, true).await;
        }
    }

    async fn accrue_one(
        &self,
        shared: &Shared,
        target: &Target,
        record: &HandleRecord,
        now: UnixMillis,
        is_ended: bool,
    ) {
        // Answers of sessions that are copies as well are not stored for a price of their own.
        if record.turns > 0 {
            return;
        }
        let is_ended = is_ended || record.expires_at <= now;
        let end = record.expires_at.min(now);
        let is_due = |hour: i64| hour + HOUR_MS <= end || (is_ended && hour < end);
        let known = self.lock().get(&key(record)).cloned();
        let begins = known.as_ref().map_or(record.created_at, |copy| copy.hour);
        if !is_due(begins) {
            return;
        }
        let mut copy = match known {
            Some(copy) => copy,
            None => {
                let store = &shared.store;
                match store.get(&record.project, &record.context, now).await {
                    Ok(context) => copy_of(&context, record),
                    Err(_) => KeptCopy {
                        hour: record.created_at,
                        model: String::new(),
                        tokens: record.tokens.unwrap_or(0),
                    },
                }
            }
        };
        while is_due(copy.hour) {
            if let Some(row) = row(shared, target, record, &copy, end) {
                shared.ledger.record(row);
            }
            copy.hour += HOUR_MS;
        }
        self.lock().insert(key(record), copy);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, KeptCopy>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(record: &HandleRecord) -> Key {
    (record.place.clone(), record.name.clone())
}

fn copy_of(context: &Context, record: &HandleRecord) -> KeptCopy {
    KeptCopy {
        hour: record.created_at,
        model: context.model.clone(),
        tokens: record.tokens.unwrap_or(context.prefix_tokens),
    }
}

/// The row of a copy's next hour, or of the part of it up to `end`; `None` where it costs nothing.
fn row(
    shared: &Shared,
    target: &Target,
    record: &HandleRecord,
    copy: &KeptCopy,
    end: UnixMillis,
) -> Option<LedgerRecord> {
    let price = target.price(shared)?;
    let ms = (end - copy.hour).min(HOUR_MS).unsigned_abs();
    let cost = trillionths(price.storage(copy.tokens, ms));
    (cost != 0).then(|| LedgerRecord {
        id: id(record, copy.hour),
        project: record.project.clone(),
        model: copy.model.clone(),
        context: Some(record.context.to_string()),
        started_at: copy.hour,
        total_ms: ms,
        outcome: words::COMPLETED.to_owned(),
        cost,
        saved: -cost,
        currency: price.currency.to_string(),
        cost_source: words::ESTIMATE.to_owned(),
        ..billing::row(target, words::STORAGE)
    })
}

/// Whether the upstream charges for keeping copies.
fn charges(shared: &Shared, target: &Target) -> bool {
    let price = target.price(shared);
    price.is_some_and(|price| !price.storage(1_000_000, HOUR_MS.unsigned_abs()).is_zero())
}

/// The same for the same copy and hour, and for no other. The name itself is a secret towards clients.
fn id(record: &HandleRecord, hour: UnixMillis) -> String {
    let mut hasher = blake3::Hasher::new();
    let hour = hour.to_string();
    for field in [record.context.as_str(), &record.place, &record.name, &hour] {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field.as_bytes());
    }
    format!("storage-{}", &hasher.finalize().to_hex()[..32])
}

//! One request's row while it is being made.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use holdfast_protocol::usage::{BilledUsage, Receipt, Source};
use holdfast_protocol::{ApiError, UnixMillis};
use holdfast_store::LedgerRecord;
use holdfast_store::ledger::words;
use rand::RngExt;

use super::Ledger;
use crate::auth::Principal;
use crate::budgets::Payer;
use crate::limits::Reservation;

/// Longest name of a model that is written down as a request gave it, bytes.
const REQUESTED_MODEL_BYTES_MAX: usize = 256;

/// No request has as many tokens; an upstream may report anything, and what the ledger can't hold would hold it up.
const TOKENS_MAX: u64 = 1 << 40;

/// What is charged at once: by an upstream, or as the engine's work.
#[derive(Debug, Clone)]
pub(crate) struct Charge {
    /// Tokens by kind.
    pub(crate) usage: BilledUsage,
    /// Who counted them.
    pub(crate) source: Source,
    /// Trillionths.
    pub(crate) cost: i64,
    /// Against sending everything fresh, trillionths.
    pub(crate) saved: i64,
    /// ISO 4217 code; empty without a price.
    pub(crate) currency: String,
    /// Who says what it cost.
    pub(crate) cost_source: Source,
}

impl Charge {
    /// The embedded engine's work, which nobody charges for.
    pub(crate) fn of_engine(usage: BilledUsage) -> Self {
        Charge {
            usage,
            source: Source::Engine,
            cost: 0,
            saved: 0,
            currency: String::new(),
            cost_source: Source::Engine,
        }
    }
}

/// Which request a row is for.
pub(crate) struct Request {
    /// What is asked for, in the ledger's word.
    pub(crate) kind: &'static str,
    /// The dialect's word.
    pub(crate) surface: &'static str,
    /// The route's template.
    pub(crate) endpoint: String,
    /// The HTTP request's id.
    pub(crate) id: String,
}

/// A request's row, shared by whoever knows something of it. It is written once, by the first who knows how the request
/// ended; what comes later is refused or without effect. Of a request that has no row, nothing is noted.
#[derive(Clone, Default)]
pub(crate) struct Entry(Option<Arc<Shared>>);

struct Shared {
    ledger: Arc<Ledger>,
    began: Instant,
    /// The row's.
    id: String,
    payer: OnceLock<Arc<Payer>>,
    /// Of budgets, for the answer's head.
    warnings: Mutex<Vec<String>>,
    /// `None`: written.
    row: Mutex<Option<LedgerRecord>>,
    /// What the limits of its key, project and model hold for it, until it is known what it has used.
    reservation: Mutex<Option<Reservation>>,
}

impl Entry {
    /// Of a request that has no row.
    pub(crate) fn none() -> Self {
        Entry::default()
    }

    pub(super) fn new(ledger: Arc<Ledger>, request: Request, started_at: UnixMillis) -> Self {
        let row = LedgerRecord {
            id: new_id(started_at),
            kind: request.kind.to_owned(),
            surface: request.surface.to_owned(),
            endpoint: request.endpoint,
            request: request.id,
            started_at,
            ..LedgerRecord::default()
        };
        Entry(Some(Arc::new(Shared {
            ledger,
            began: Instant::now(),
            id: row.id.clone(),
            payer: OnceLock::new(),
            warnings: Mutex::default(),
            row: Mutex::new(Some(row)),
            reservation: Mutex::default(),
        })))
    }

    /// Tokens have been reserved for it. They are settled when the row is written.
    pub(crate) fn reserve(&self, reservation: Reservation) {
        if let Some(shared) = &self.0 {
            let has_row = lock(&shared.row);
            // The row of one that has ended settles nothing any more.
            if has_row.is_some() {
                *lock(&shared.reservation) = Some(reservation);
            }
        }
    }

    /// Who asks. Without this there is no row: nobody's project has made the request.
    pub(crate) fn set_principal(&self, principal: &Principal) {
        self.note(|row| {
            row.project.clone_from(&principal.project);
            row.key_id = Some(principal.key_id.clone());
        });
        if let Some(shared) = &self.0 {
            shared.payer.get_or_init(|| {
                Arc::new(Payer {
                    project: principal.project.clone(),
                    key_id: principal.key_id.clone(),
                    terms: Arc::clone(&principal.terms),
                })
            });
        }
    }

    /// Whose budgets hold; also when the row is written.
    pub(crate) fn payer(&self) -> Option<Arc<Payer>> {
        self.0.as_ref()?.payer.get().cloned()
    }

    /// The row's id, by which a reservation is settled.
    pub(crate) fn row_id(&self) -> Option<&str> {
        Some(self.0.as_ref()?.id.as_str())
    }

    /// A budget is nearly used up.
    pub(crate) fn warn(&self, warning: String) {
        if let Some(shared) = &self.0 {
            let mut warnings = lock(&shared.warnings);
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }

    /// What the answer's head warns of.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.0
            .as_ref()
            .map_or_else(Vec::new, |shared| lock(&shared.warnings).clone())
    }

    /// The model's name as the request gave it.
    pub(crate) fn set_requested_model(&self, name: &str) {
        let end = name.floor_char_boundary(REQUESTED_MODEL_BYTES_MAX);
        // Some databases take no NUL in a text, and no model's name has a control character.
        let name = name[..end].replace(char::is_control, "");
        self.note(|row| row.requested_model = name);
    }

    /// The configured model.
    pub(crate) fn set_model(&self, name: &str) {
        self.note(|row| name.clone_into(&mut row.model));
    }

    /// The context that is used or made.
    pub(crate) fn set_context(&self, id: &str) {
        self.note(|row| row.context = Some(id.to_owned()));
    }

    /// The answer's id.
    pub(crate) fn set_answer(&self, id: &str) {
        self.note(|row| row.answer = Some(id.to_owned()));
    }

    /// Whether the answer is a stream.
    pub(crate) fn set_stream(&self, is_stream: bool) {
        self.note(|row| row.stream = is_stream);
    }

    /// An upstream is asked.
    pub(crate) fn asks(&self, upstream: &str, model: &str) {
        self.note(|row| {
            row.upstream = Some(upstream.to_owned());
            row.upstream_model = Some(model.to_owned());
        });
    }

    /// The answer begins.
    pub(crate) fn first_token(&self) {
        let elapsed_ms = self.elapsed_ms();
        self.note(|row| row.first_token_ms = row.first_token_ms.or(Some(elapsed_ms)));
    }

    /// What the context's cache did.
    pub(crate) fn set_receipt(&self, receipt: &Receipt) {
        self.note(|row| {
            row.cache_status = Some(receipt.status.as_str().to_owned());
            row.cache_reason.clone_from(&receipt.reason);
        });
    }

    /// Why the answer ended.
    pub(crate) fn set_finish_reason(&self, reason: &'static str) {
        self.note(|row| row.finish_reason = Some(reason.to_owned()));
    }

    /// Adds what the request is charged for. `false`: the row is written already, or in another currency, so that the
    /// charge needs a row of its own.
    #[must_use]
    pub(crate) fn charge(&self, charge: &Charge) -> bool {
        let mut is_taken = false;
        self.note(|row| is_taken = add(row, charge));
        is_taken
    }

    /// The answer has been given whole, or its end is about to be.
    pub(crate) fn complete(&self) {
        self.end(words::COMPLETED, None);
    }

    /// A committed turn's answer is given again.
    pub(crate) fn replayed(&self) {
        self.end("replayed", None);
    }

    /// The client has left.
    pub(crate) fn cancel(&self) {
        self.end(words::CANCELLED, None);
    }

    /// The request ends in an error. Where nothing has been done for it and the error is not the server's, it counts as
    /// refused.
    pub(crate) fn fail(&self, error: &ApiError) {
        self.fail_with(error.kind.as_str(), error.kind.status());
    }

    /// See [`Entry::fail`]; for errors of which only the status is known.
    pub(crate) fn fail_with(&self, word: &str, status: u16) {
        let mut has_begun = false;
        self.note(|row| {
            has_begun = row.first_token_ms.is_some() || row.usage != BilledUsage::default();
        });
        let outcome = if status < 500 && !has_begun {
            words::REFUSED
        } else {
            words::FAILED
        };
        self.end(outcome, Some(word));
    }

    fn end(&self, outcome: &str, error: Option<&str>) {
        let Some(shared) = &self.0 else { return };
        let total_ms = self.elapsed_ms();
        let Some(mut row) = lock(&shared.row).take() else {
            return;
        };
        if let Some(reservation) = lock(&shared.reservation).take() {
            reservation.settle(counted_tokens(&row.usage));
        }
        if row.key_id.is_none() {
            return;
        }
        row.total_ms = total_ms;
        outcome.clone_into(&mut row.outcome);
        row.error = error.map(str::to_owned);
        shared.ledger.record(row);
    }

    fn elapsed_ms(&self) -> u64 {
        let elapsed = self.0.as_ref().map(|shared| shared.began.elapsed());
        elapsed.map_or(0, |elapsed| {
            u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
        })
    }

    fn note(&self, change: impl FnOnce(&mut LedgerRecord)) {
        if let Some(shared) = &self.0
            && let Some(row) = &mut *lock(&shared.row)
        {
            change(row);
        }
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry")
    }
}

/// What counts towards limits: all but what was read from a cache.
fn counted_tokens(usage: &BilledUsage) -> u64 {
    let fresh = usage.input_tokens.saturating_sub(usage.cache_read_tokens);
    fresh.saturating_add(usage.output_tokens)
}

/// Adds a charge to a row, unless that would add up different currencies.
pub(super) fn add(row: &mut LedgerRecord, charge: &Charge) -> bool {
    let has_other = !row.currency.is_empty() && !charge.currency.is_empty();
    if has_other && row.currency != charge.currency {
        return false;
    }
    row.usage = row.usage.plus(sound(charge.usage));
    worst(&mut row.usage_source, charge.source);
    if !charge.currency.is_empty() {
        row.currency.clone_from(&charge.currency);
        row.cost = row.cost.saturating_add(charge.cost);
        row.saved = row.saved.saturating_add(charge.saved);
        worst(&mut row.cost_source, charge.cost_source);
    }
    true
}

/// One estimate among counts makes the sum an estimate.
fn worst(word: &mut String, source: Source) {
    if word != words::ESTIMATE {
        source.as_str().clone_into(word);
    }
}

/// Counts that add up: whatever is read or written is input, and nothing is beyond measure.
fn sound(usage: BilledUsage) -> BilledUsage {
    let bound = |tokens: u64| tokens.min(TOKENS_MAX);
    let writes = usage.cache_writes;
    let mut usage = BilledUsage {
        input_tokens: bound(usage.input_tokens),
        cache_read_tokens: bound(usage.cache_read_tokens),
        cache_writes: holdfast_protocol::usage::CacheWrites {
            m5: bound(writes.m5),
            m30: bound(writes.m30),
            h1: bound(writes.h1),
            h12: bound(writes.h12),
            other: bound(writes.other),
        },
        output_tokens: bound(usage.output_tokens),
        reasoning_tokens: bound(usage.reasoning_tokens),
    };
    let cached = usage.cache_read_tokens + usage.cache_writes.total();
    usage.input_tokens = usage.input_tokens.max(cached);
    usage
}

/// An id that no other row has. Later ones are larger, also within a millisecond, so that rows come to lie where the last
/// ones are and are listed as they came.
pub(super) fn new_id(now: UnixMillis) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let random: u64 = rand::rng().random();
    format!("{now:012x}{number:08x}{random:016x}")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

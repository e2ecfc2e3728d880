//! Answers of committed session turns, kept for a short while.
//!
//! SDKs repeat a request whose connection broke. If that happened after the turn was committed, repeating the work
//! would remember the turn twice; so the repetition gets the answer that was lost. Without an `Idempotency-Key` that
//! is done only when the answer is known not to have been written out, because saying the same thing twice is
//! otherwise a person's right. With the key it is done always.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::chat::ChatResponse;
use holdfast_protocol::{ApiError, ContextId, UnixMillis};
use sha2::{Digest, Sha256};

/// How long an answer is kept.
const KEEP_MS: UnixMillis = 30_000;

/// Answers kept at most, bytes of text; the oldest go first.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// What makes two requests on one session the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RequestIdentity {
    context_id: ContextId,
    digest: [u8; 32],
}

/// The identity of a request and what its replay is bound to.
#[derive(Debug, Clone)]
pub(crate) struct Fingerprint {
    identity: RequestIdentity,
    body: [u8; 32],
    has_key: bool,
}

/// Whether an answer has been written out whole. Shared by the answer's body and the record of it.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    is_written: AtomicBool,
    is_over: AtomicBool,
}

/// Marks a delivery as over when it is dropped, written out or not.
#[derive(Debug)]
pub(crate) struct DeliveryGuard(Arc<Delivery>);

/// Where a commit leaves its answer.
pub(crate) struct Recorder {
    replays: Replays,
    fingerprint: Fingerprint,
    delivery: Arc<Delivery>,
}

struct Record {
    response: Arc<ChatResponse>,
    body: [u8; 32],
    has_key: bool,
    delivery: Arc<Delivery>,
    recorded_at: UnixMillis,
    bytes: usize,
}

#[derive(Default)]
struct Records {
    by_identity: HashMap<RequestIdentity, Record>,
    by_age: VecDeque<(UnixMillis, RequestIdentity)>,
    bytes: usize,
}

/// The answers kept.
#[derive(Clone, Default)]
pub(crate) struct Replays(Arc<Mutex<Records>>);

impl Fingerprint {
    /// Of a request with this body and, where given, this `Idempotency-Key`.
    pub(crate) fn new(context_id: &ContextId, idempotency_key: Option<&str>, body: &[u8]) -> Self {
        let body: [u8; 32] = Sha256::digest(body).into();
        let digest = match idempotency_key {
            None => body,
            Some(key) => Sha256::new()
                .chain_update(b"key:")
                .chain_update(key.as_bytes())
                .finalize()
                .into(),
        };
        Fingerprint {
            identity: RequestIdentity {
                context_id: context_id.clone(),
                digest,
            },
            body,
            has_key: idempotency_key.is_some(),
        }
    }
}

impl Delivery {
    /// The whole answer has been handed to the connection.
    pub(crate) fn written(&self) {
        self.is_written.store(true, Ordering::Release);
    }

    fn is_broken(&self) -> bool {
        self.is_over.load(Ordering::Acquire) && !self.is_written.load(Ordering::Acquire)
    }
}

impl DeliveryGuard {
    pub(crate) fn new(delivery: Arc<Delivery>) -> Self {
        DeliveryGuard(delivery)
    }

    /// See [`Delivery::written`].
    pub(crate) fn written(&self) {
        self.0.written();
    }
}

impl Drop for DeliveryGuard {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
    }
}

impl Recorder {
    /// Keeps the answer of a turn that has just been committed.
    pub(crate) fn record(self, response: Arc<ChatResponse>, now: UnixMillis) {
        let Recorder {
            replays,
            fingerprint,
            delivery,
        } = self;
        let Fingerprint {
            identity,
            body,
            has_key,
        } = fingerprint;
        let bytes = response_bytes(&response);
        let record = Record {
            response,
            body,
            has_key,
            delivery,
            recorded_at: now,
            bytes,
        };
        replays.records().insert(identity, record, now);
    }
}

impl Replays {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Where the commit of this request leaves its answer.
    pub(crate) fn recorder(&self, fingerprint: Fingerprint, delivery: Arc<Delivery>) -> Recorder {
        Recorder {
            replays: self.clone(),
            fingerprint,
            delivery,
        }
    }

    /// The answer that an equal request was given and did not get, or got under the same key. `delivery` is of the
    /// repetition: once it has been written out, the same words are a new turn again.
    ///
    /// # Errors
    /// The key was used with another body.
    pub(crate) fn find(
        &self,
        fingerprint: &Fingerprint,
        delivery: &Arc<Delivery>,
        now: UnixMillis,
    ) -> Result<Option<Arc<ChatResponse>>, ApiError> {
        let mut records = self.records();
        records.forget_old(now);
        let Some(record) = records.by_identity.get_mut(&fingerprint.identity) else {
            return Ok(None);
        };
        if record.body != fingerprint.body {
            return Err(ApiError::invalid(
                "Idempotency-Key",
                "was used for another request on this context just now",
            ));
        }
        if !record.has_key && !record.delivery.is_broken() {
            return Ok(None);
        }
        record.delivery = Arc::clone(delivery);
        Ok(Some(Arc::clone(&record.response)))
    }

    fn records(&self) -> std::sync::MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    fn insert(&mut self, identity: RequestIdentity, record: Record, now: UnixMillis) {
        self.forget_old(now);
        self.bytes += record.bytes;
        self.by_age
            .push_back((record.recorded_at, identity.clone()));
        if let Some(replaced) = self.by_identity.insert(identity, record) {
            self.bytes -= replaced.bytes;
        }
        while self.bytes > BYTES_MAX && self.forget_oldest() {}
    }

    fn forget_old(&mut self, now: UnixMillis) {
        while self
            .by_age
            .front()
            .is_some_and(|(recorded_at, _)| now - recorded_at >= KEEP_MS)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((recorded_at, identity)) = self.by_age.pop_front() else {
            return false;
        };
        // A newer record under the same identity has an entry of its own further back.
        if self
            .by_identity
            .get(&identity)
            .is_some_and(|record| record.recorded_at == recorded_at)
            && let Some(record) = self.by_identity.remove(&identity)
        {
            self.bytes -= record.bytes;
        }
        true
    }
}

fn response_bytes(response: &ChatResponse) -> usize {
    let choices = response.choices.iter().map(|choice| {
        let message = &choice.message;
        let calls: usize = message
            .tool_calls
            .iter()
            .map(|call| call.arguments.len() + call.name.len())
            .sum();
        let logprobs = choice.logprobs.as_ref().map_or(0, |tokens| {
            tokens
                .iter()
                .map(|token| (1 + token.top.len()) * size_of::<(String, Vec<u8>, f32)>())
                .sum()
        });
        message.joined_text().len()
            + message.reasoning.as_ref().map_or(0, String::len)
            + calls
            + logprobs
    });
    size_of::<Record>() + choices.sum::<usize>()
}

#[cfg(test)]
mod tests;

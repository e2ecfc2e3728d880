//! A clock that tests move.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The real time plus an offset. Clones share the offset.
#[derive(Debug, Clone, Default)]
pub struct VirtualClock {
    offset_ms: Arc<AtomicI64>,
}

impl VirtualClock {
    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond() + self.offset_ms.load(Ordering::SeqCst)
    }

    /// Whole seconds since the Unix epoch.
    pub fn now_seconds(&self) -> i64 {
        self.now_ms().div_euclid(1000)
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap();
        self.offset_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets how far the clock is off, seconds; negative: it is slow.
    pub fn skew(&self, seconds: i64) {
        self.offset_ms.store(seconds * 1000, Ordering::SeqCst);
    }
}

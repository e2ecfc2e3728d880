//! Time that stands still until a test moves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use holdfast::app::Clock;
use holdfast_protocol::UnixMillis;

/// 2026-11-22 12:00:00 UTC.
const START: UnixMillis = 1_795_348_800_000;

/// A clock that only [`TestClock::advance`] moves.
#[derive(Debug, Clone)]
pub struct TestClock(Arc<AtomicI64>);

impl Default for TestClock {
    fn default() -> Self {
        TestClock(Arc::new(AtomicI64::new(START)))
    }
}

impl TestClock {
    /// The time.
    pub fn now(&self) -> UnixMillis {
        self.0.load(Ordering::SeqCst)
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        self.0
            .fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Sets it to the system's time, for tests with servers that have clocks of their own.
    pub fn follow_system(&self) {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        self.0
            .store(i64::try_from(now.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// As the app takes it.
    pub fn as_clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

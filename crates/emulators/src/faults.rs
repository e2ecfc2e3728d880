//! Switches that make an emulator fail.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What goes wrong with one chat request (requests that create, list or drop cache resources are met only by
/// [`Faults::next_any`]).
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// This status in the provider's envelope, with `retry-after` seconds where given. Nothing is charged.
    Status(u16, Option<u64>),
    /// The connection is closed before a head is sent. Nothing is charged.
    CloseBeforeHead,
    /// The head comes so late.
    SlowStart(Duration),
    /// A pause before every frame after the first.
    SlowDrip(Duration),
    /// After so many frames the connection breaks.
    CutAfter(usize),
    /// After so many frames nothing comes any more, and the connection stays open.
    StallAfter(usize),
    /// After so many frames half of the next one, and the connection ends properly.
    HalfFrame(usize),
    /// After so many frames the provider's error in the stream.
    ErrorInside(usize),
    /// After so many frames one of so many bytes without an end.
    OversizedFrame(usize, usize),
    /// Frames are cut and joined so that borders of chunks have nothing to do with borders of events.
    Rechunked(usize),
    /// The usage is missing or wrong.
    Usage(UsageFault),
}

/// What a family does to the usage it reports (the bill stays right).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageFault {
    /// None at all.
    Missing,
    /// Every frame that can carries the running totals.
    Repeated,
    /// More cached tokens than tokens.
    Impossible,
}

/// The switches of one emulator.
#[derive(Debug, Default)]
pub struct Faults {
    next: Mutex<VecDeque<Fault>>,
    next_any: Mutex<VecDeque<Fault>>,
    always: Mutex<Vec<Fault>>,
    random: Mutex<Option<(StdRng, f64, Vec<Fault>)>>,
}

impl Faults {
    /// The next chat request without one gets this fault.
    pub fn next(&self, fault: Fault) {
        self.next.lock().unwrap().push_back(fault);
    }

    /// The next request of any kind gets this fault.
    pub fn next_any(&self, fault: Fault) {
        self.next_any.lock().unwrap().push_back(fault);
    }

    /// Every chat request gets this fault, until [`Faults::clear`].
    pub fn always(&self, fault: Fault) {
        self.always.lock().unwrap().push(fault);
    }

    /// With probability `p` a chat request gets one of these; the same seed, the same faults.
    pub fn random(&self, seed: u64, p: f64, faults: Vec<Fault>) {
        *self.random.lock().unwrap() = Some((StdRng::seed_from_u64(seed), p, faults));
    }

    /// No more faults.
    pub fn clear(&self) {
        self.next.lock().unwrap().clear();
        self.next_any.lock().unwrap().clear();
        self.always.lock().unwrap().clear();
        *self.random.lock().unwrap() = None;
    }

    pub(crate) fn of_request(&self, is_chat: bool) -> Vec<Fault> {
        let mut faults = Vec::new();
        faults.extend(self.next_any.lock().unwrap().pop_front());
        if !is_chat {
            return faults;
        }
        faults.extend(self.next.lock().unwrap().pop_front());
        faults.extend(self.always.lock().unwrap().iter().cloned());
        if let Some((random, p, choice)) = &mut *self.random.lock().unwrap()
            && random.random_bool(*p)
        {
            let index = random.random_range(0..choice.len());
            faults.push(choice[index].clone());
        }
        faults
    }
}

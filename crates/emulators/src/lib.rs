//! Upstream providers, emulated over real HTTP: each enforces its provider's documented rules on the raw JSON it gets
//! (limits, errors, cache semantics, usage, stream shape), keeps a bill of what the provider would have charged, and can
//! be told to fail.
//!
//! This crate shares no code with the product on purpose. What a provider does is written down a second time here, so
//! that a wrong codec in the gateway can't agree with itself.
//!
//! ```text
//! cargo run -p holdfast-emulators -- gemini --port 9001
//! ```

#![allow(
    clippy::unwrap_used,
    reason = "this is a part of tests: a broken emulator fails them by panicking"
)]

mod bill;
mod blocks;
mod clock;
pub mod families;
mod faults;
mod form;
mod reply;
mod request;
mod script;
mod server;

pub use bill::{Bill, Charge};
pub use blocks::{Block, chain, hash_hex, tokens};
pub use clock::VirtualClock;
pub use faults::{Fault, Faults, UsageFault};
pub use form::Field;
pub use reply::{Body, Reply, sse, sse_event};
pub use request::RawRequest;
pub use script::{Answer, Script, ToolCall};
pub use server::{Desk, Emulator};

/// A provider's rules. One value serves all requests of an emulator; state that lives between requests (cache entries,
/// stored responses) is behind its own lock.
pub trait Family: Send + Sync + 'static {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Answers one request by the provider's rules. Never blocks and never sleeps: timing is for [`Faults`].
    fn answer(&self, request: &RawRequest, desk: &Desk<'_>) -> Reply;

    /// A failure that a switch has ordered, in the provider's own envelope, with the message it really uses for the
    /// status where that is known.
    fn failure(&self, status: u16) -> Reply;

    /// The frame with which the provider reports an error in a stream that began with status 200.
    fn failure_in_stream(&self) -> bytes::Bytes;

    /// Forgets every cache entry and handle now, as an overloaded provider does.
    fn evict_all(&self);
}

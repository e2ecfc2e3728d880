//! The engine through its front door: on the toy model for what is exact, on the real one for what is true.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod properties;
mod queue;
#[cfg(feature = "llama")]
mod real;
mod support;
mod tiers;

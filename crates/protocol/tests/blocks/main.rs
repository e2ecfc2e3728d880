//! The dialects of blocks and markers, Anthropic Messages and Bedrock Converse, towards upstreams.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod anthropic;
mod bedrock;
mod golden;
mod properties;
mod regressions;
mod support;

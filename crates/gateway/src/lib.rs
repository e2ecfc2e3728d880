//! The gateway: configuration, command line, HTTP service and the embedded engine's place in it.
//!
//! The library is everything; the binary only calls [`cli::main`].

pub mod app;
pub mod auth;
mod backend;
pub mod catalog;
pub mod cli;
pub mod client;
pub mod config;
mod contexts;
mod events;
mod idempotency;
pub mod keys;
mod ledger;
mod local;
pub mod models;
mod responses;
mod routing;
pub mod serve;
pub mod server;
mod upstream;

//! The gateway: configuration, command line, HTTP service and the embedded engine's place in it.
//!
//! The library is everything; the binary only calls [`cli::main`].

mod admin;
mod admission;
pub mod app;
pub mod audit;
pub mod auth;
mod backend;
mod budgets;
pub mod catalog;
pub mod cli;
pub mod client;
pub mod config;
mod contexts;
pub mod data_key;
mod events;
mod idempotency;
pub mod keys;
mod ledger;
mod limits;
mod local;
pub mod models;
mod responses;
mod routing;
pub mod serve;
pub mod server;
pub mod service;
pub mod shared;
pub mod telemetry;
pub mod tls;
mod upstream;
pub mod webhooks;

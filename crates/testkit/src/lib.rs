//! What tests of the gateway share: a gateway in this process on the deterministic toy engine, a clock that tests
//! move, a store that fails or waits on demand, a PostgreSQL of one's own, a wire that can be damaged, and a client that
//! says what it saw.
//!
//! A test fails by panicking, and so does this crate.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod clock;
mod faults;
mod gateway;
mod redis_server;

pub use client::{Reply, TestClient};
pub use clock::TestClock;
pub use faults::{Action, FaultyStore, Gate, Operation};
pub use gateway::{TestGateway, TestGatewayBuilder, fleet, upstream};
pub use holdfast_store::conformance::postgres_server::PostgresServer;
pub use holdfast_store::conformance::proxy::{Proxy, Wire};
pub use redis_server::RedisServer;

//! What the benchmarks share: texts of an exact length, timed requests to the engine, llama.cpp's own server and nginx as
//! peers, a mock upstream, and Markdown tables. Nothing here judges; the programs in `bin` say what is measured and `docs/benchmarks.md` how to
//! read it.

pub mod engine;
pub mod machine;
pub mod nginx;
pub mod options;
pub mod peer;
pub mod prose;
pub mod report;
pub mod server;
pub mod sse;
pub mod statistics;
pub mod upstream;

/// A benchmark that can't go on says why and ends.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Of a step of a benchmark.
pub type Result<T> = std::result::Result<T, Error>;

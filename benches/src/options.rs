//! Command line options that the benchmarks have in common.

use std::path::{Path, PathBuf};

use clap::Args;
use tempfile::TempDir;

use crate::Result;

/// Options of every benchmark.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Small sizes and few repetitions: shows that the benchmark works, not how fast anything is
    #[arg(long)]
    pub quick: bool,
    /// Folder for what the benchmark writes, on the disk that is to be measured [default: the system's]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

/// Options of those that run a model.
#[derive(Debug, Clone, Args)]
pub struct ModelOptions {
    /// GGUF file
    #[arg(env = "HOLDFAST_TEST_MODEL", hide_env_values = true)]
    pub model: PathBuf,
    /// CPU threads [default: the machine's cores]
    #[arg(long)]
    pub threads: Option<u32>,
}

/// Options of those that also measure llama.cpp's own server.
#[derive(Debug, Clone, Args)]
pub struct PeerOptions {
    /// Python in which `benches/requirements.txt` is installed
    #[arg(
        long,
        env = "BENCH_PYTHON",
        hide_env_values = true,
        default_value = "python3"
    )]
    pub python: PathBuf,
    /// Leave llama.cpp's own server out
    #[arg(long)]
    pub no_peer: bool,
}

impl Common {
    /// The full size of something, or the small one.
    pub fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A folder that goes when the benchmark ends.
    ///
    /// # Errors
    /// It can't be made.
    pub fn scratch(&self) -> Result<TempDir> {
        Ok(match &self.scratch {
            Some(folder) => tempfile::tempdir_in(folder)?,
            None => tempfile::tempdir()?,
        })
    }
}

impl ModelOptions {
    /// CPU threads, for us and for the peer.
    pub fn threads(&self) -> u32 {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or(u32::try_from(cores).unwrap_or(1))
    }

    /// The model as tables show it: its file's name, without the path.
    pub fn name(&self) -> String {
        file_name(&self.model)
    }
}

/// A file's name without its path.
pub fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(
        || "model".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

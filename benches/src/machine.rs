//! Facts about the machine, without its name, and the memory that processes take.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::Result;
use crate::report::say;

/// Prints what figures depend on: date, processor, memory, load and versions. `facts` are the benchmark's own.
pub fn introduce(title: &str, facts: &[String]) {
    say(&format!("### {title}"));
    say("");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = field("/proc/meminfo", "MemTotal").map_or_else(
        || "unknown".to_owned(),
        |kib| format!("{:.0} GiB", kilobytes(&kib) as f64 / f64::from(1 << 20)),
    );
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    say(&format!(
        "- date: {}",
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC")
    ));
    say(&format!(
        "- processor: {processor}, {cores} cores, {memory} of memory"
    ));
    say(&format!("- load before the run: {load}"));
    say(&format!(
        "- holdfast {}, llama-cpp-2 0.1.160, {} build",
        env!("CARGO_PKG_VERSION"),
        if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        }
    ));
    for fact in facts {
        say(&format!("- {fact}"));
    }
}

/// Memory a process has in use, bytes. `None` is this process.
///
/// # Errors
/// The process has gone, or the system has no `/proc`.
pub fn resident_bytes(process: Option<u32>) -> Result<u64> {
    let process = process.map_or_else(|| "self".to_owned(), |id| id.to_string());
    let kib = field(&format!("/proc/{process}/status"), "VmRSS")
        .ok_or("the process's memory can't be read from /proc")?;
    Ok(kilobytes(&kib) * 1024)
}

/// Time that a process has had processors, all its threads together. Threads that have ended are not in it.
///
/// # Errors
/// The process has gone, or the system has no `/proc` with scheduler statistics.
pub fn processor_time(process: u32) -> Result<Duration> {
    let mut time = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        time += scheduled(&thread?.path())?;
    }
    Ok(time)
}

/// Time that the calling thread has had a processor.
///
/// # Errors
/// The system has no `/proc` with scheduler statistics.
pub fn own_processor_time() -> Result<Duration> {
    scheduled(Path::new("/proc/thread-self"))
}

fn scheduled(thread: &Path) -> Result<Duration> {
    let text = fs::read_to_string(thread.join("schedstat"))?;
    let nanoseconds = text
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    nanoseconds
        .map(Duration::from_nanos)
        .ok_or_else(|| "a thread's time can't be read from /proc".into())
}

/// The kind of file system a folder is on, such as `ext4` or `tmpfs`; the cost of a sync depends on it.
pub fn file_system(folder: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(mount, _)| folder.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len())
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kilobytes(text: &str) -> u64 {
    text.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

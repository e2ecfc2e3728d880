//! What a server in use needs besides its own parts: upstreams that answer, a right clock, space on the disk, a
//! certificate that lasts.

use std::path::Path;
use std::process::Command;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::Check;
use crate::app::UpstreamOptions;
use crate::cli::output::size;
use crate::config::Config;
use crate::serve::CERTIFICATE_WARN_SECONDS;
use crate::shared::SharedOptions;
use crate::upstream::{Probe, Probed, probe};

/// Tokens that are signed with the time are refused beyond this by some providers.
const SKEW_MAX: SignedDuration = SignedDuration::from_secs(60);

/// Below this the database soon can't be written, bytes.
const FREE_BYTES_MIN: u64 = 1 << 30;

const DAY_SECONDS: i64 = 86_400;

/// Asks each upstream for its list of models, which costs nothing; compares its clock with ours.
pub(super) async fn upstreams(config: &Config, checks: &mut Vec<Check>) {
    let probes = join_all(config.upstreams.iter().map(probe)).await;
    let mut clocks = Vec::new();
    for (upstream, probes) in config.upstreams.iter().zip(probes) {
        for probed in probes {
            checks.push(upstream_check(upstream, &probed));
            clocks.extend(probed.clock.map(|clock| (upstream.name.as_str(), clock)));
        }
    }
    checks.push(clock_check(&clocks, Timestamp::now()));
}

/// Asks the Redis that servers share. Without it a server goes on alone, so that this is no failure.
pub(super) async fn shared(options: &SharedOptions) -> Check {
    match options.probe().await {
        Ok(()) => Check::ok("shared", "the Redis of `[shared]` answers"),
        Err(why) => Check::warn(
            "shared",
            format!(
                "the Redis of `[shared]`: {why}; each server counts its share of the limits alone"
            ),
            "check `shared.url`, and whether the Redis is there and reachable from here",
        ),
    }
}

fn upstream_check(upstream: &UpstreamOptions, probed: &Probed) -> Check {
    let (name, title) = (&upstream.name, upstream.provider.title);
    let what = match &probed.worker {
        Some(worker) => format!("{name}, worker {worker}: {title} at {}", probed.url),
        None => format!("{name}: {title} at {}", probed.url),
    };
    if let Some(url) = &probed.unwell_at {
        return Check::fail(
            "upstream",
            format!("{what} answers, but does not say at {url} that it is well"),
            "it would get no requests; check `pool.health_path` of this upstream",
        );
    }
    match &probed.probe {
        Probe::Accepted => Check::ok("upstream", format!("{what} answers and takes the key")),
        Probe::Answers(status) => Check::ok(
            "upstream",
            format!(
                "{what} answers ({status}); whether it takes the key shows with the first chat"
            ),
        ),
        Probe::Refused(status) => Check::fail(
            "upstream",
            format!("{what} refuses the key ({status})"),
            "check what `api_key` of this upstream refers to, and whether the key may list models",
        ),
        Probe::Unreachable(why) => Check::fail(
            "upstream",
            format!("{what}: {why}"),
            "check the URL, the network and the proxy's variables (HTTPS_PROXY)",
        ),
    }
}

/// `clocks` are those of upstreams, as they told them just now.
fn clock_check(clocks: &[(&str, Timestamp)], now: Timestamp) -> Check {
    let Some((name, clock)) = clocks.first() else {
        return Check::ok("clock", format!("{now}; no upstream to compare with"));
    };
    let skew = now.duration_since(*clock).abs();
    if skew <= SKEW_MAX {
        return Check::ok("clock", format!("as the one of upstream {name}"));
    }
    Check::warn(
        "clock",
        format!(
            "{} seconds apart from the one of upstream {name}",
            skew.as_secs()
        ),
        "let the system set its clock (systemd-timesyncd, chrony): keys and expiry depend on it",
    )
}

/// Free space where the data is.
pub(super) fn disk(folder: &Path) -> Check {
    // A folder that is not there yet will be made below one that is.
    let existing = folder.ancestors().find(|folder| folder.is_dir());
    let free = existing.and_then(free_bytes);
    match free {
        None => Check::ok("disk", "free space is not known on this system"),
        Some(free) if free >= FREE_BYTES_MIN => Check::ok("disk", format!("{} free", size(free))),
        Some(free) => Check::warn(
            "disk",
            format!("only {} free at {}", size(free), folder.display()),
            "make room, or lower disk_mib_max of [[engines]]: without room contexts can't be stored",
        ),
    }
}

/// By POSIX's `df`, which is everywhere.
fn free_bytes(folder: &Path) -> Option<u64> {
    let output = Command::new("df").arg("-Pk").arg(folder).output().ok()?;
    free_of(&String::from_utf8(output.stdout).ok()?)
}

fn free_of(table: &str) -> Option<u64> {
    let line = table.lines().nth(1)?;
    let kib: u64 = line.split_whitespace().nth(3)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The listener's certificate; `None` without TLS.
pub(super) fn certificate(config: &Config) -> Option<Check> {
    let tls = config.tls.as_ref()?;
    let path = tls.files.cert.display();
    let Some(loaded) = &tls.loaded else {
        return Some(Check::ok("tls", format!("{path} (not read)")));
    };
    Some(lasts(
        &path.to_string(),
        loaded.expires_at_seconds - Timestamp::now().as_second(),
    ))
}

fn lasts(path: &str, left_seconds: i64) -> Check {
    let advice = "renew it, then `holdfast config reload`";
    if left_seconds <= 0 {
        return Check::fail("tls", format!("the certificate {path} has expired"), advice);
    }
    let days = left_seconds / DAY_SECONDS;
    let detail = format!("the certificate {path} lasts {days} more days");
    if left_seconds < CERTIFICATE_WARN_SECONDS {
        return Check::warn("tls", detail, advice);
    }
    Check::ok("tls", detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn free_space_is_read_in_bytes() {
        let table =
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 100 40 60 40% /\n";
        assert_eq!(free_of(table), Some(60 * 1024));
        assert_eq!(free_of("nonsense"), None);
        assert!(free_bytes(Path::new("/")).is_some());
    }

    #[test]
    fn a_certificate_that_ends_is_told_in_time() {
        let verdict = |days: i64| lasts("cert.pem", days * DAY_SECONDS).verdict;
        assert_eq!(verdict(60), Verdict::Ok);
        assert_eq!(verdict(13), Verdict::Warn);
        assert_eq!(verdict(0), Verdict::Fail);
    }

    #[test]
    fn a_clock_that_is_wrong_is_noticed() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let verdict = |offset: i64| {
            let clock = Timestamp::from_second(1_800_000_000 + offset).unwrap();
            clock_check(&[("u", clock)], now).verdict
        };
        assert_eq!(verdict(-60), Verdict::Ok);
        assert_eq!(verdict(61), Verdict::Warn);
        assert_eq!(clock_check(&[], now).verdict, Verdict::Ok);
    }
}

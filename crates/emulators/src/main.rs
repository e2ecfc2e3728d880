//! Starts an emulated provider by hand, to try the gateway without an account.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use holdfast_emulators::families::{self, Entry};
use holdfast_emulators::{Charge, Emulator, Fault, UsageFault};

/// Emulated upstream providers.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Which provider; none: lists them.
    family: Option<String>,
    /// Port on 127.0.0.1; 0: any free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Delay before every answer to a chat.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency_ms: u64,
    /// What goes wrong with chats, may be repeated: status:CODE[:RETRY_AFTER], close, slow-start:MS, slow-drip:MS, cut:FRAMES,
    /// stall:FRAMES, half:FRAMES, error:FRAMES, oversized:FRAMES:BYTES, rechunk:BYTES, usage:missing|repeated|impossible.
    #[arg(long, value_name = "FAULT", value_parser = parse_fault)]
    fault: Vec<Fault>,
    /// With this probability one of the faults befalls a chat; without it every chat gets all of them.
    #[arg(long, value_name = "P", value_parser = parse_probability, requires = "fault")]
    probability: Option<f64>,
    /// For --probability: the same seed gives the same faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> std::io::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout();
    let Some(name) = &arguments.family else {
        write!(out, "{}", list())?;
        return Ok(ExitCode::SUCCESS);
    };
    let Some(entry) = families::entry_by_name(name) else {
        write!(
            std::io::stderr(),
            "There is no family {name}. There are:\n{}",
            list()
        )?;
        return Ok(ExitCode::from(2));
    };
    let address = SocketAddr::from(([127, 0, 0, 1], arguments.port));
    let emulator = Emulator::start_on(address, (entry.make)()).await?;
    if arguments.latency_ms > 0 {
        emulator
            .faults()
            .always(Fault::SlowStart(Duration::from_millis(
                arguments.latency_ms,
            )));
    }
    match arguments.probability {
        Some(p) => emulator.faults().random(arguments.seed, p, arguments.fault),
        None => {
            for fault in arguments.fault {
                emulator.faults().always(fault);
            }
        }
    }
    write!(out, "{}", welcome(entry, &emulator.url))?;
    out.flush()?;
    tokio::signal::ctrl_c().await?;
    write!(out, "\n{}", bill_table(&emulator.bill().charges()))?;
    Ok(ExitCode::SUCCESS)
}

fn list() -> String {
    families::ALL
        .iter()
        .map(|entry| format!("  {:<18} {}\n", entry.name, entry.summary))
        .collect()
}

fn welcome(entry: &Entry, url: &str) -> String {
    let Entry {
        name,
        summary,
        provider,
        base_path,
        ..
    } = entry;
    format!(
        "{summary}, emulated on {url}. Ctrl-C ends it and prints the bill.\n\n\
         # holdfast.toml\n\
         [[upstreams]]\n\
         name = \"{name}-emulated\"\n\
         provider = \"{provider}\"\n\
         base_url = \"{url}{base_path}\"\n\
         api_key = \"env:EMULATED_KEY\"\n\n\
         # environment; any key will do, and each is an account of its own\n\
         export EMULATED_KEY=emulated-key\n"
    )
}

fn parse_probability(text: &str) -> Result<f64, String> {
    let p: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&p) {
        Ok(p)
    } else {
        Err("not between 0 and 1".to_owned())
    }
}

fn parse_fault(text: &str) -> Result<Fault, String> {
    let words: Vec<&str> = text.split(':').collect();
    let number = |word: &str| {
        word.parse::<u64>()
            .map_err(|_| format!("{word} is not a whole number"))
    };
    let count = |word: &str| {
        word.parse::<usize>()
            .map_err(|_| format!("{word} is not a whole number"))
    };
    let status = |word: &str| match word.parse::<u16>() {
        Ok(status @ 400..=599) => Ok(status),
        _ => Err(format!("{word} is not a status between 400 and 599")),
    };
    Ok(match words[..] {
        ["status", code] => Fault::Status(status(code)?, None),
        ["status", code, seconds] => Fault::Status(status(code)?, Some(number(seconds)?)),
        ["close"] => Fault::CloseBeforeHead,
        ["slow-start", ms] => Fault::SlowStart(Duration::from_millis(number(ms)?)),
        ["slow-drip", ms] => Fault::SlowDrip(Duration::from_millis(number(ms)?)),
        ["cut", frames] => Fault::CutAfter(count(frames)?),
        ["stall", frames] => Fault::StallAfter(count(frames)?),
        ["half", frames] => Fault::HalfFrame(count(frames)?),
        ["error", frames] => Fault::ErrorInside(count(frames)?),
        ["oversized", frames, bytes] => Fault::OversizedFrame(count(frames)?, count(bytes)?),
        ["rechunk", bytes] => Fault::Rechunked(count(bytes)?),
        ["usage", "missing"] => Fault::Usage(UsageFault::Missing),
        ["usage", "repeated"] => Fault::Usage(UsageFault::Repeated),
        ["usage", "impossible"] => Fault::Usage(UsageFault::Impossible),
        _ => return Err("unknown fault".to_owned()),
    })
}

/// One row for each account, model and kind. Accounts are keys, so only their ends are shown.
fn bill_table(charges: &[Charge]) -> String {
    let mut rows: BTreeMap<(String, &str, &str), (u64, Charge)> = BTreeMap::new();
    for charge in charges {
        let key = (
            masked(&charge.account),
            charge.model.as_str(),
            charge.kind.as_str(),
        );
        let (requests, total) = rows.entry(key).or_default();
        *requests += 1;
        total.uncached_input += charge.uncached_input;
        total.cache_read += charge.cache_read;
        for (ttl, tokens) in &charge.cache_write {
            *total.cache_write.entry(*ttl).or_default() += tokens;
        }
        total.output += charge.output;
        total.token_milliseconds += charge.token_milliseconds;
    }
    let head = [
        "account",
        "model",
        "kind",
        "requests",
        "uncached",
        "read",
        "written",
        "output",
        "token hours",
    ];
    let mut lines: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
    for ((account, model, kind), (requests, total)) in rows {
        let written: Vec<String> = total
            .cache_write
            .iter()
            .map(|(ttl, tokens)| {
                if *ttl == 0 {
                    tokens.to_string()
                } else {
                    format!("{tokens} ({} min)", ttl / 60)
                }
            })
            .collect();
        lines.push(vec![
            account,
            model.to_owned(),
            kind.to_owned(),
            requests.to_string(),
            total.uncached_input.to_string(),
            total.cache_read.to_string(),
            if written.is_empty() {
                "0".to_owned()
            } else {
                written.join(" + ")
            },
            total.output.to_string(),
            (total.token_milliseconds / 3_600_000).to_string(),
        ]);
    }
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut table = String::new();
    for line in &lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        table.push_str(cells.join("  ").trim_end());
        table.push('\n');
    }
    table
}

fn masked(account: &str) -> String {
    let count = account.chars().count();
    if count <= 4 {
        "****".to_owned()
    } else {
        format!(
            "****{}",
            account.chars().skip(count - 4).collect::<String>()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_nonsense_is_refused() {
        assert_eq!(parse_fault("status:429:7"), Ok(Fault::Status(429, Some(7))));
        assert_eq!(
            parse_fault("oversized:2:1000"),
            Ok(Fault::OversizedFrame(2, 1000))
        );
        assert_eq!(
            parse_fault("usage:missing"),
            Ok(Fault::Usage(UsageFault::Missing))
        );
        for nonsense in [
            "status:200",
            "status",
            "cut",
            "cut:-1",
            "slow-start:soon",
            "usage",
            "",
        ] {
            assert!(parse_fault(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn the_bill_adds_up_and_shows_no_key() {
        let charge = Charge {
            kind: "chat".to_owned(),
            account: "secret-key-1234".to_owned(),
            model: "m".to_owned(),
            uncached_input: 10,
            cache_write: BTreeMap::from([(1800, 5)]),
            ..Charge::default()
        };
        let table = bill_table(&[charge.clone(), charge]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 2);
        let row: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(
            row,
            [
                "****1234", "m", "chat", "2", "20", "0", "10", "(30", "min)", "0", "0"
            ]
        );
    }

    #[test]
    fn every_family_of_the_list_can_be_made_and_named() {
        for entry in families::ALL {
            assert_eq!((entry.make)().name(), entry.name, "{}", entry.summary);
        }
    }
}

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use clap::{CommandFactory, Parser};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_documented_commands_are_understood() {
    for line in [
        "holdfast serve --listen 127.0.0.1:0 --data-dir d --config f",
        "holdfast --config f serve",
        "holdfast chat",
        "holdfast chat question --context ctx-1 --max-tokens 5 --temperature 0",
        "holdfast chat --session --system text --url http://127.0.0.1:1",
        "holdfast context create --file f --role user --ttl 2h --mode common_prefix --name n --json",
        "holdfast context create --message m --message n",
        "holdfast context list --json",
        "holdfast context create --message m --warm prewarm --keep-warm auto --on-too-small replay",
        "holdfast context estimate --file f --model m --question-tokens 5 --json",
        "holdfast models prices --provider openai --model gpt-5 --json",
        "holdfast context show ctx-1",
        "holdfast context extend ctx-1 --ttl 3600",
        "holdfast context delete ctx-1 ctx-2",
        "holdfast context fork ctx-1 --at-turn 0 --mode session",
        "holdfast usage",
        "holdfast usage --by key,day --from 2026-11-01 --to 1795348800 --project * --csv",
        "holdfast usage --requests --parquet f",
        "holdfast models list --json",
        "holdfast models pull",
        "holdfast models pull hf:o/r/f.gguf --sha256 00 --name n",
        "holdfast models remove n",
        "holdfast key create --label l --project p --scope admin --scope inference",
        "holdfast key create --scope contexts:read --expires-in 30d --model gpt-* --model m --requests-per-minute 5 --json",
        "holdfast key list --project p --json",
        "holdfast key show key-1 --json",
        "holdfast key set key-1 --label l --tokens-per-minute 1000 --concurrent-requests 2",
        "holdfast key rotate key-1 --overlap 1h --json",
        "holdfast project create p --display-name d --model m --default-model m --contexts 5 --context-tokens 9 --json",
        "holdfast project list --json",
        "holdfast project show p --json",
        "holdfast project set p --requests-per-minute 5",
        "holdfast key revoke key-1",
        "holdfast config check examples/seed.toml",
        "holdfast config schema",
        "holdfast doctor --json",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_can_not_be_meant_is_a_usage_error() {
    for line in [
        "holdfast",
        "holdfast context create",
        "holdfast context extend ctx-1 --ttl soon",
        "holdfast context delete",
        "holdfast chat --context a --session",
        "holdfast key create --scope everything",
        "holdfast usage --json --csv",
        "holdfast usage --requests --by day",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn spans_of_time_are_read_and_shown() {
    for (text, expected) in [
        ("300", 300),
        ("45s", 45),
        ("30m", 1800),
        ("2H", 7200),
        ("7d", 604_800),
    ] {
        assert_eq!(seconds::parse(text), Ok(expected));
    }
    for bad in [
        "",
        "0",
        "-1",
        "1.5h",
        "h",
        "3w",
        "99999999999999999999",
        "999999999999999999d",
        "3\u{fc}",
    ] {
        assert!(seconds::parse(bad).is_err(), "{bad}");
    }
    for (value, expected) in [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3_725, "1h 2m"),
        (604_800, "7d"),
        (90_061, "1d 1h"),
    ] {
        assert_eq!(seconds::show(value), expected);
    }
}

#[test]
fn failures_say_what_was_done_and_what_to_try() {
    let error = crate::client::ClientError::Unreachable {
        url: "http://127.0.0.1:1".into(),
        cause: "Connection refused".into(),
    };
    let failure = Failure::from(error).doing("create the context");
    assert_eq!(
        failure.message,
        "could not create the context: no server answers at http://127.0.0.1:1: Connection refused"
    );
    assert!(failure.help.unwrap().contains("holdfast serve"));
}

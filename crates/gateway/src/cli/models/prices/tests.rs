#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use clap::Parser;

use super::*;
use crate::cli::Cli;

/// 2026-11-22.
const NOW: UnixMillis = 1_795_305_600_000;

fn with_file(text: &str) -> Catalog {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("prices.toml");
    std::fs::write(&path, text).unwrap();
    Catalog::load(&[path], false).unwrap()
}

fn shown(catalog: &Catalog, provider: Option<&str>, model: Option<&str>) -> Vec<String> {
    list(catalog, provider, model, NOW)
        .iter()
        .flat_map(Listed::cells)
        .map(|cells| cells.join("|"))
        .collect()
}

#[test]
fn the_command_is_understood() {
    for line in [
        "holdfast models prices",
        "holdfast models prices --provider openai --model gpt-5 --json",
    ] {
        if let Err(error) = Cli::try_parse_from(line.split(' ')) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn each_model_is_a_line_and_each_tier_another() {
    let catalog = Catalog::builtin();
    assert_eq!(
        shown(&catalog, Some("openai"), Some("gpt-5.6")),
        ["openai|gpt-5.6|USD|4|0.4|30m 5, 12h 10|20|-|now"]
    );
    assert_eq!(
        shown(&catalog, Some("gemini"), Some("gemini-2.5-pro")),
        [
            "gemini|gemini-2.5-pro|USD|1.25|0.125|-|10|4.5|now",
            "|  above 200000 tokens||2.5|0.25|-|15||"
        ]
    );
    assert_eq!(
        shown(&catalog, Some("gemini"), Some("gemini-3.8-flash")),
        [
            "gemini|gemini-3.8-flash|USD|0.75|0.075|-|3.75|0.5|until 2026-12-31",
            "gemini|gemini-3.8-flash|USD|1.5|0.15|-|7.5|1|from 2027-01-01"
        ]
    );
    assert_eq!(
        shown(&catalog, None, Some("kimi-k3")),
        [
            "kimi|kimi-k3|USD|3|0.3|5m 3, 1h 6|15|-|now",
            "fireworks|kimi-k3|USD|3|0.3|-|15|-|now"
        ]
    );
    assert!(shown(&catalog, Some("ollama"), None).is_empty());
    let all: usize = catalog.rows().iter().map(|row| row.providers.len()).sum();
    assert_eq!(list(&catalog, None, None, NOW).len(), all);
}

#[test]
fn what_a_file_overrides_is_still_shown() {
    let catalog = with_file(
        "schema = 1\n[[models]]\nprovider = \"openai\"\nmodel = \"gpt-4o\"\ninput = 2\noutput = 9\n",
    );
    let listed = list(&catalog, Some("openai"), Some("gpt-4o"), NOW);
    let states: Vec<(bool, State)> = listed
        .iter()
        .map(|listed| (listed.row.is_builtin, listed.state))
        .collect();
    assert_eq!(states, [(false, State::InForce), (true, State::Overridden)]);
    let azure = list(&catalog, Some("azure"), Some("gpt-4o"), NOW);
    assert_eq!(azure.len(), 1);
    assert_eq!(azure[0].state, State::InForce);
}

#[test]
fn json_has_everything_and_amounts_as_strings() {
    let catalog = Catalog::builtin();
    let listed = list(&catalog, None, Some("grok-4.7"), NOW);
    assert_eq!(
        listed[0].json(),
        json!({
            "provider": "xai",
            "model": "grok-4.7",
            "also": [],
            "prefixes": [],
            "currency": "USD",
            "input": "2",
            "output": "6",
            "cached_read": "0.5",
            "cached_read_explicit": null,
            "writes": {},
            "tiers": [{
                "above_tokens": 200_000,
                "input": "4",
                "output": "12",
                "cached_read": "1",
                "cached_read_explicit": null,
                "writes": {},
            }],
            "storage_per_mtok_hour": null,
            "storage_whole_hours": false,
            "min_cache_tokens": null,
            "context_tokens": 500_000,
            "max_output_tokens": null,
            "from": null,
            "until": null,
            "state": "in_force",
            "builtin": true,
        })
    );
}

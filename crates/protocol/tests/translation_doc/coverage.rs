//! That nothing is missing from the tables, and nothing vanishes without a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;

use bytes::Bytes;
use holdfast_protocol::chat::ClientDialect;
use holdfast_protocol::dialect;
use holdfast_protocol::upstream::OriginalCall;
use serde_json::Value;

use crate::clients::{self, CLIENTS, Client, End, end, is_gateways_own};
use crate::difference::{added, all_added};
use crate::features::{Feature, GROUPS};
use crate::internal;
use crate::reasons::{self, BESIDE_CONTEXT, LEFT_OUT, Why};
use crate::upstreams::{self, UPSTREAMS, requests};

fn features() -> impl Iterator<Item = &'static Feature> {
    GROUPS.iter().flat_map(|(_, features)| features.iter())
}

#[test]
fn what_is_left_out_towards_upstreams_is_what_there_are_reasons_for() {
    let mut left_out = BTreeSet::new();
    let mut left_out_beside = BTreeSet::new();
    for feature in features() {
        for upstream in UPSTREAMS {
            let cell = (feature.name, upstream.word());
            let fate = |is_beside| upstreams::fate(feature, upstream, is_beside);
            let alone = fate(false);
            let beside = fate(true);
            if beside == upstreams::Fate::LeftOut && beside != alone {
                left_out_beside.insert(cell.clone());
            }
            if alone == upstreams::Fate::LeftOut {
                left_out.insert(cell);
            }
        }
    }
    assert_listed(&left_out, &cells(LEFT_OUT), "LEFT_OUT");
    assert_listed(&left_out_beside, &cells(BESIDE_CONTEXT), "BESIDE_CONTEXT");
}

/// That exactly what was `found` is listed in the constant `list` of `reasons`.
fn assert_listed<T: Ord + Debug>(found: &BTreeSet<T>, listed: &BTreeSet<T>, list: &str) {
    let vanishes: Vec<&T> = found.difference(listed).collect();
    assert!(
        vanishes.is_empty(),
        "left out without a reason in {list}: {vanishes:#?}"
    );
    let arrives: Vec<&T> = listed.difference(found).collect();
    assert!(
        arrives.is_empty(),
        "{list} has reasons for what is not left out: {arrives:#?}"
    );
}

fn cells(reasons: &[Why]) -> BTreeSet<(&'static str, String)> {
    let mut all = BTreeSet::new();
    for (name, dialects) in reasons.iter().flat_map(|(_, cells)| cells.iter()) {
        for upstream in UPSTREAMS {
            if dialects.contains(&upstream.dialect) {
                assert!(
                    all.insert((*name, upstream.word())),
                    "two reasons for {name} at {}",
                    upstream.word()
                );
            }
        }
    }
    all
}

#[test]
fn what_is_left_out_of_clients_requests_is_what_there_are_reasons_for() {
    let mut left_out = BTreeSet::new();
    let mut repeated = BTreeSet::new();
    for client in &CLIENTS {
        let mut names = BTreeSet::new();
        for row in (client.rows)() {
            assert!(names.insert(row.name), "two rows are called {}", row.name);
            let cell = (format!("{:?}", client.dialect), row.name);
            match clients::fate(client, &row) {
                clients::Fate::LeftOut => drop(left_out.insert(cell)),
                clients::Fate::Repeated => drop(repeated.insert(cell)),
                _ => {}
            }
        }
    }
    let cells = |reasons: &[reasons::clients::Why]| {
        let cells = reasons.iter().flat_map(|(_, dialect, fields)| {
            fields
                .iter()
                .map(move |field| (format!("{dialect:?}"), *field))
        });
        cells.collect::<BTreeSet<_>>()
    };
    assert_listed(
        &left_out,
        &cells(reasons::clients::LEFT_OUT),
        "clients::LEFT_OUT",
    );
    assert_listed(
        &repeated,
        &cells(reasons::clients::REPEATED),
        "clients::REPEATED",
    );
}

/// What a client says and an upstream is not told is shown by a row of the table of upstreams, for its place in the
/// internal form.
#[test]
fn what_is_lost_on_the_whole_way_is_lost_in_a_table() {
    let mut lost: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for feature in features() {
        for upstream in UPSTREAMS {
            if upstreams::fate(feature, upstream, false) == upstreams::Fate::LeftOut
                && let Some((base, with)) = requests(feature, upstream.dialect)
            {
                let leaves = added(&internal::fields(&base), &internal::fields(&with));
                let names = leaves.iter().map(|leaf| leaf.name());
                lost.entry(upstream.word()).or_default().extend(names);
            }
        }
    }
    for client in &CLIENTS {
        for row in (client.rows)() {
            let clients::Fate::Internal { added: said, .. } = clients::fate(client, &row) else {
                continue;
            };
            if is_gateways_own(&said) {
                continue;
            }
            for upstream in UPSTREAMS {
                if end(client, &row, upstream) != End::LeftOut {
                    continue;
                }
                let lost = &lost[&upstream.word()];
                let loses_unknown = lost.contains("extra.something_new");
                for leaf in said
                    .iter()
                    .filter(|leaf| !is_gateways_own(&[(*leaf).clone()]))
                {
                    let name = leaf.name();
                    assert!(
                        lost.contains(&name) || (loses_unknown && name.starts_with("extra.")),
                        "{:?}: {} is left out by {} as `{name}`, which no feature shows",
                        client.dialect,
                        row.name,
                        upstream.word(),
                    );
                }
            }
        }
    }
}

#[test]
fn every_field_of_the_internal_form_has_its_row() {
    let nothing = Value::Object(Default::default());
    let mut touched = BTreeSet::new();
    let mut names = BTreeSet::new();
    for feature in features() {
        assert!(
            names.insert(feature.name),
            "two rows are called {}",
            feature.name
        );
        for upstream in UPSTREAMS {
            if let Some((base, with)) = requests(feature, upstream.dialect) {
                let leaves = all_added(&internal::fields(&base), &internal::fields(&with));
                touched.extend(
                    leaves.iter().flat_map(|leaf| {
                        (1..=leaf.path.len()).map(|end| leaf.path[..end].join("."))
                    }),
                );
            }
        }
    }
    let all = all_added(&nothing, &internal::fields(&internal::everything()));
    let missing: Vec<String> = all
        .iter()
        .filter(|leaf| !is_gateways_own(&[(*leaf).clone()]))
        .map(|leaf| leaf.name())
        .filter(|name| !touched.contains(name))
        .collect();
    assert!(missing.is_empty(), "no row in `features` says {missing:?}");
}

/// A new field of a client's dialect comes with a fixture; so it is seen here.
#[test]
fn every_field_of_the_clients_fixtures_has_its_row() {
    for client in &CLIENTS {
        let mut known = BTreeSet::new();
        for row in (client.rows)() {
            let (base, body) = client.bodies(&row);
            names(client.dialect, &base, "", &mut known);
            names(client.dialect, &body, "", &mut known);
        }
        let mut missing = BTreeMap::new();
        for (file, body) in fixtures(client) {
            let mut found = BTreeSet::new();
            names(client.dialect, &body, "", &mut found);
            for name in found.difference(&known) {
                missing.insert(name.clone(), file.clone());
            }
        }
        assert!(
            missing.is_empty(),
            "no row in `fields` for {:?} says {missing:#?}",
            client.dialect
        );
    }
}

/// Below these the client's own names stand.
fn is_free(dialect: ClientDialect, name: &str) -> bool {
    let ends: &[&str] = match dialect {
        ClientDialect::OpenAi => &[
            "parameters",
            "schema",
            "arguments",
            "metadata",
            "logit_bias",
        ],
        ClientDialect::Responses => &["parameters", "schema", "arguments", "metadata"],
        ClientDialect::Anthropic => &["input_schema", "schema", "input", "something_new"],
        ClientDialect::Gemini => &[
            "parameters",
            "parametersJsonSchema",
            "response",
            "responseJsonSchema",
            "responseSchema",
            "args",
            "labels",
            "somethingNew",
            "telepathy",
            "smell",
        ],
    };
    ends.iter().any(|end| name.rsplit('.').next() == Some(end))
}

fn names(dialect: ClientDialect, value: &Value, path: &str, names_found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = match dialect {
                    ClientDialect::Gemini => camel_case(name),
                    _ => name.clone(),
                };
                let path = match path {
                    "" => name,
                    path => format!("{path}.{name}"),
                };
                if !is_free(dialect, &path) {
                    names(dialect, value, &path, names_found);
                }
                names_found.insert(path);
            }
        }
        Value::Array(values) => {
            for value in values {
                names(dialect, value, path, names_found);
            }
        }
        _ => {}
    }
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap().to_owned();
    words.fold(first, |joined, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        joined + &head.to_uppercase() + tail
    })
}

/// Requests that are right, from the fixtures of the dialect's decoder.
fn fixtures(client: &Client) -> Vec<(String, Value)> {
    let folder = match client.dialect {
        ClientDialect::OpenAi => "openai",
        ClientDialect::Responses => "client/responses",
        ClientDialect::Anthropic => "client/anthropic",
        ClientDialect::Gemini => "client/gemini",
    };
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(folder);
    let files = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let fixtures: Vec<_> = files
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            let is_meant =
                name.starts_with("request_") && name.ends_with(".json") && !name.contains("error");
            let body = is_meant.then(|| std::fs::read(&path).unwrap())?;
            Some((name, serde_json::from_slice(&body).unwrap()))
        })
        .collect();
    assert!(!fixtures.is_empty(), "no requests in {}", folder.display());
    fixtures
}

#[test]
fn a_request_goes_to_its_own_dialect_as_it_came() {
    // What the gateway decides, or does itself.
    const OWN: &[&str] = &["model", "store", "context_id", "cachedContent"];
    let without_own = |mut body: Value| {
        body.as_object_mut()
            .unwrap()
            .retain(|name, _| !OWN.contains(&name.as_str()));
        body
    };
    for client in &CLIENTS {
        let Some(upstream) = UPSTREAMS
            .into_iter()
            .find(|upstream| dialect::upstream(upstream.dialect).speaks() == Some(client.dialect))
        else {
            continue;
        };
        let rules = upstream.rules();
        let mut passed = 0;
        for row in (client.rows)() {
            let (_, body) = client.bodies(&row);
            let Ok(read) = client.read(&body) else {
                continue;
            };
            let Some(original) = read.chat.original else {
                continue;
            };
            let call = dialect::upstream(upstream.dialect)
                .encode_original(&OriginalCall {
                    model: "m",
                    body: &original.body,
                    headers: &original.headers,
                    stream: read.chat.stream,
                    cache_key: None,
                    tenant_line: None,
                    rules: &rules,
                })
                .unwrap();
            let sent: Bytes = call.body.concat().into();
            let sent: Value = serde_json::from_slice(&sent).unwrap();
            assert_eq!(without_own(sent), without_own(body), "{}", row.name);
            passed += 1;
        }
        assert!(
            passed > 0,
            "no request of {:?} goes as it came",
            client.dialect
        );
    }
}

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::credential;
use axum::http::HeaderMap;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect()
}

#[test]
fn a_credential_is_found_in_each_of_the_three_headers() {
    for (name, value) in [
        ("authorization", "Bearer secret"),
        ("authorization", "bearer  secret "),
        ("x-api-key", "secret"),
        ("x-goog-api-key", "secret"),
    ] {
        assert_eq!(
            credential(&headers(&[(name, value)])),
            Some("secret"),
            "{name}: {value}"
        );
    }
}

#[test]
fn what_is_no_credential_is_not_taken_for_one() {
    for (name, value) in [
        ("authorization", "Basic secret"),
        ("authorization", "secret"),
        ("x-api-key", ""),
    ] {
        assert_eq!(
            credential(&headers(&[(name, value)])),
            None,
            "{name}: {value}"
        );
    }
    let long = "x".repeat(513);
    assert_eq!(credential(&headers(&[("x-api-key", &long)])), None);
}

#[test]
fn a_bearer_token_wins_over_the_other_headers() {
    assert_eq!(
        credential(&headers(&[
            ("x-api-key", "b"),
            ("authorization", "Bearer a")
        ])),
        Some("a")
    );
}

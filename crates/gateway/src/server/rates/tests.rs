#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

#[test]
fn durations_are_written_as_openai_writes_them() {
    for (millis, text) in [
        (0, "0ms"),
        (20, "20ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (59_001, "59.001s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (3_661_200, "1h1m1.2s"),
    ] {
        assert_eq!(duration(Duration::from_millis(millis)), text);
    }
}

#[test]
fn a_moment_is_not_before_its_time() {
    assert_eq!(moment(0, Duration::from_secs(60)), "1970-01-01T00:01:00Z");
    assert_eq!(moment(1, Duration::from_secs(60)), "1970-01-01T00:01:01Z");
}

//! `google.protobuf.Duration` and `google.protobuf.Timestamp`.

use jiff::Timestamp;

use crate::UnixMillis;

/// Digits of a second's fraction.
const FRACTION_MAX: usize = 9;

/// A duration such as `300s` or `3.5s` in whole seconds, rounded up; `None`: it is none, or not a positive one.
pub(super) fn whole_seconds(duration: &str) -> Option<u64> {
    let (digits, fraction) = match duration.strip_suffix('s')?.split_once('.') {
        Some((_, fraction)) if fraction.is_empty() || fraction.len() > FRACTION_MAX => return None,
        Some(parts) => parts,
        None => (duration.strip_suffix('s')?, ""),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    // A sign is no digit.
    if digits.is_empty() || !is_digits(digits) || !is_digits(fraction) {
        return None;
    }
    let seconds: u64 = digits.parse().ok()?;
    let is_more = fraction.bytes().any(|byte| byte != b'0');
    let seconds = seconds.checked_add(u64::from(is_more))?;
    (seconds > 0).then_some(seconds)
}

/// Whole seconds from `now` until `time`, rounded up; 0: it has passed. `None`: `time` is none.
pub(super) fn seconds_until(time: &str, now: UnixMillis) -> Option<u64> {
    let time: Timestamp = time.parse().ok()?;
    let left = time.as_nanosecond() - i128::from(now) * 1_000_000;
    let seconds = u64::try_from(left.max(0)).ok()?.div_ceil(1_000_000_000);
    Some(seconds)
}

/// RFC 3339 in UTC; a fraction has three digits.
pub(super) fn written(time: UnixMillis) -> String {
    let time = time.clamp(0, Timestamp::MAX.as_millisecond());
    let whole = Timestamp::from_second(time / 1_000).unwrap_or(Timestamp::UNIX_EPOCH);
    let date = whole.strftime("%Y-%m-%dT%H:%M:%S");
    match time % 1_000 {
        0 => format!("{date}Z"),
        millis => format!("{date}.{millis:03}Z"),
    }
}

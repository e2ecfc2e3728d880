//! Spans of time as people write and read them.

/// Seconds from `300`, `300s`, `30m`, `2h` or `7d`.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((index, last)) if last.is_ascii_alphabetic() => (&text[..index], last),
        _ => (text, 's'),
    };
    let factor = match unit.to_ascii_lowercase() {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        _ => None,
    };
    let number = digits.parse::<u64>().ok().filter(|number| *number > 0);
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "write seconds, or a number with a unit such as 30m, 2h or 7d".into())
}

/// Two units at most: `45s`, `12m 5s`, `2h 3m`, `6d 4h`.
pub(super) fn show(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let Some(first) = units.iter().position(|(size, _)| seconds >= *size) else {
        return "0s".into();
    };
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, unit) in units.iter().skip(first).take(2) {
        if rest / size > 0 {
            parts.push(format!("{}{unit}", rest / size));
        }
        rest %= size;
    }
    parts.join(" ")
}

/// Until the given Unix time, from now.
pub(super) fn until(unix_seconds: i64) -> String {
    let left = unix_seconds - crate::serve::now() / 1000;
    match u64::try_from(left) {
        Ok(left) if left > 0 => show(left),
        _ => "expired".into(),
    }
}

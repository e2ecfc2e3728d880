//! Limits of keys, projects and models where requests pass: what is reserved for a request, and the headers that say what
//! is left.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use holdfast_protocol::{ApiError, UnixMillis};

use super::observe::Trail;
use super::surface::Surface;
use crate::app::App;
use crate::limits::{Demand, Quota, Quotas};

/// Bytes of text that are about one token, where nobody counts.
const BYTES_PER_TOKEN: u64 = 4;

/// Counts the request towards its model and reserves what it may use, until its row of the ledger says what it has used.
///
/// # Errors
/// The limit that it does not fit into.
pub(super) async fn reserve(
    app: &App,
    trail: &Trail,
    model: &str,
    demand: Demand,
) -> Result<(), ApiError> {
    let Some(counted) = trail.counted() else {
        return Ok(());
    };
    match app.rates.reserve(&counted, model, demand).await {
        Ok((reservation, quotas)) => {
            trail.set_quotas(quotas);
            trail.entry.reserve(reservation);
            Ok(())
        }
        Err(refused) => {
            trail.set_quotas(refused.quotas);
            app.events.limited(&refused.refusal);
            Err(refused.into())
        }
    }
}

/// About how many tokens a text of so many bytes has.
pub(super) fn tokens_of(bytes: usize) -> u64 {
    u64::try_from(bytes)
        .unwrap_or(u64::MAX)
        .div_ceil(BYTES_PER_TOKEN)
}

/// Adds what is left of the tightest limits, as the surface's clients know it. Without a limit there is no header.
pub(super) fn add_headers(
    surface: Surface,
    headers: &mut HeaderMap,
    quotas: &Quotas,
    now: UnixMillis,
) {
    let limits = [("requests", quotas.requests), ("tokens", quotas.tokens)];
    for (what, quota) in limits {
        let Some(quota) = quota else { continue };
        let Quota {
            limit,
            remaining,
            reset,
        } = quota;
        let mut add = |name: String, value: String| {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                headers.insert(name, value);
            }
        };
        match surface {
            Surface::Anthropic => {
                let name = |field| format!("anthropic-ratelimit-{what}-{field}");
                add(name("limit"), limit.to_string());
                add(name("remaining"), remaining.to_string());
                add(name("reset"), moment(now, reset));
            }
            // Google has no such headers; whoever looks for some looks for these.
            Surface::OpenAi | Surface::Google => {
                let name = |field| format!("x-ratelimit-{field}-{what}");
                add(name("limit"), limit.to_string());
                add(name("remaining"), remaining.to_string());
                add(name("reset"), duration(reset));
            }
        }
    }
}

/// `6m0s`, `1.5s` or `20ms`, as OpenAI writes durations.
fn duration(time: Duration) -> String {
    let millis = time.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, millis) = (millis / 60_000, millis % 60_000);
    let mut text = match minutes {
        0 => String::new(),
        1..60 => format!("{minutes}m"),
        _ => format!("{}h{}m", minutes / 60, minutes % 60),
    };
    text.push_str(&(millis / 1000).to_string());
    let rest = format!("{:03}", millis % 1000);
    let rest = rest.trim_end_matches('0');
    if !rest.is_empty() {
        text.push('.');
        text.push_str(rest);
    }
    text.push('s');
    text
}

/// The moment so much later, in whole seconds, as RFC 3339 writes it.
fn moment(now: UnixMillis, later: Duration) -> String {
    let later = i64::try_from(later.as_millis()).unwrap_or(i64::MAX);
    // Not before it is true.
    let seconds = now
        .saturating_add(later)
        .saturating_add(999)
        .div_euclid(1000);
    jiff::Timestamp::from_second(seconds)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

#[cfg(test)]
mod tests;

//! Whether an upstream can be reached and takes the key, found out without a request that costs anything.

use holdfast_protocol::provider::UpstreamDialectName;
use holdfast_protocol::upstream::{HttpCall, Method};

use super::UpstreamOptions;
use super::account::Upstream;
use crate::app::system_clock;

/// What an upstream said to a request for its list of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probe {
    /// It gave the list: the key is good.
    Accepted,
    /// It refuses the key.
    Refused(u16),
    /// It is there, and has no list or does not give it; about the key that says nothing.
    Answers(u16),
    /// It can't be reached; why.
    Unreachable(String),
}

/// Asks an upstream for its models. Also returns its clock, where it tells.
pub(crate) async fn probe(options: &UpstreamOptions) -> (Probe, Option<jiff::Timestamp>) {
    let upstream = match Upstream::new(options.clone(), &system_clock()) {
        Ok(upstream) => upstream,
        Err(error) => return (Probe::Unreachable(error), None),
    };
    // Anthropic's base URL ends before the version.
    let path = match options.dialect {
        UpstreamDialectName::Anthropic => "/v1/models",
        _ => "/models",
    };
    let call = HttpCall {
        method: Method::Get,
        ..HttpCall::post(path, Vec::new())
    };
    match upstream.transport.send(call).await {
        Ok(reply) => {
            let date = reply.headers.get("date");
            let date = date.and_then(|value| value.to_str().ok());
            let date = date.and_then(|text| {
                let parsed = jiff::fmt::rfc2822::parse(text).ok()?;
                Some(parsed.timestamp())
            });
            let probe = match reply.status {
                200..300 => Probe::Accepted,
                status @ (401 | 403) => Probe::Refused(status),
                status => Probe::Answers(status),
            };
            (probe, date)
        }
        Err(failure) => (Probe::Unreachable(failure.message), None),
    }
}

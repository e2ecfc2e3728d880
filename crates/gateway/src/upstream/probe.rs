//! Whether an upstream can be reached and takes the key, found out without a request that costs anything.

use futures_util::{StreamExt, stream};
use holdfast_protocol::provider::UpstreamDialectName;
use holdfast_protocol::upstream::{HttpCall, Method};

use super::UpstreamOptions;
use super::account::Upstream;
use super::pool::{Worker, health_url};
use crate::app::system_clock;

/// Workers asked at a time.
const PROBES_AT_ONCE: usize = 16;

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

/// What one server of an upstream said.
pub(crate) struct Probed {
    /// Its name, where there are several.
    pub(crate) worker: Option<String>,
    /// Where it is.
    pub(crate) url: String,
    pub(crate) probe: Probe,
    /// Of a worker: where it was asked whether it is well, if it did not say yes there.
    pub(crate) unwell_at: Option<String>,
    /// Its clock, where it tells.
    pub(crate) clock: Option<jiff::Timestamp>,
}

/// Asks each server of an upstream for its models, and workers whether they are well.
pub(crate) async fn probe(options: &UpstreamOptions) -> Vec<Probed> {
    let upstream = match Upstream::new(options.clone(), &system_clock(), None) {
        Ok(upstream) => upstream,
        Err(error) => {
            return vec![Probed {
                worker: None,
                url: options.base_url.clone(),
                probe: Probe::Unreachable(error),
                unwell_at: None,
                clock: None,
            }];
        }
    };
    let pool = &upstream.pool;
    let probes = pool.members.iter().map(|member| async move {
        let worker = &*member.worker;
        let (probe, clock) = probe_one(options, worker).await;
        let unwell_at = match &pool.health {
            Some(health) if !matches!(probe, Probe::Unreachable(_)) => {
                let url = health_url(&worker.url, health);
                let is_well = worker.transport.is_well(&url, health.timeout).await;
                (!is_well).then_some(url)
            }
            _ => None,
        };
        Probed {
            worker: pool.is_fleet.then(|| worker.name.clone()),
            url: worker.url.clone(),
            probe,
            unwell_at,
            clock,
        }
    });
    // One after the other in groups: a fleet may have a thousand.
    stream::iter(probes)
        .buffered(PROBES_AT_ONCE)
        .collect()
        .await
}

async fn probe_one(options: &UpstreamOptions, worker: &Worker) -> (Probe, Option<jiff::Timestamp>) {
    // Anthropic's base URL ends before the version.
    let path = match options.dialect {
        UpstreamDialectName::Anthropic => "/v1/models",
        _ => "/models",
    };
    let call = HttpCall {
        method: Method::Get,
        ..HttpCall::post(path, Vec::new())
    };
    match worker.transport.send(call).await {
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

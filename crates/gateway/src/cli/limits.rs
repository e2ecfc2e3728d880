//! Flags for the limits of keys and projects.

use clap::Args;
use serde_json::{Map, Value};

#[derive(Debug, Args)]
pub(super) struct LimitArguments {
    /// Most requests that may begin within a minute
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u64>,
    /// Most tokens, of input and output together, within a minute
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u64>,
    /// Most requests that may run at the same time
    #[arg(long, value_name = "N")]
    concurrent_requests: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct ContextLimitArguments {
    /// Most living contexts
    #[arg(long, value_name = "N")]
    contexts: Option<u64>,
    /// Most tokens in living contexts
    #[arg(long, value_name = "N")]
    context_tokens: Option<u64>,
}

impl LimitArguments {
    /// Adds what was given to a request as its field `limits`.
    pub(super) fn add_to(&self, body: &mut Map<String, Value>) {
        add(
            body,
            &[
                ("requests_per_minute", self.requests_per_minute),
                ("tokens_per_minute", self.tokens_per_minute),
                ("concurrent_requests", self.concurrent_requests),
            ],
        );
    }
}

impl ContextLimitArguments {
    /// Adds what was given to a request's field `limits`.
    pub(super) fn add_to(&self, body: &mut Map<String, Value>) {
        let given = [
            ("contexts", self.contexts),
            ("context_tokens", self.context_tokens),
        ];
        add(body, &given);
    }
}

fn add(body: &mut Map<String, Value>, given: &[(&str, Option<u64>)]) {
    for (name, limit) in given {
        if let Some(limit) = limit {
            let limits = body.entry("limits").or_insert_with(|| Map::new().into());
            limits[*name] = (*limit).into();
        }
    }
}

/// What a list shows of them: those that are set.
pub(super) fn shown(entry: &Value) -> String {
    let limits = entry["limits"].as_object().into_iter().flatten();
    let set: Vec<String> = limits
        .filter(|(_, limit)| !limit.is_null())
        .map(|(name, limit)| format!("{name}={limit}"))
        .collect();
    set.join(" ")
}

//! Why a request could not read what an earlier one wrote (facts 2.3): the service keeps a fingerprint of every request
//! under the id of its answer.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::{Map, Value, json};

use super::cache::Settled;
use super::check::field;
use super::prompt::Prompt;
use crate::blocks::hash_hex;

/// Fingerprints kept.
const FINGERPRINTS_MAX: usize = 4_096;

#[derive(Debug, Clone)]
pub(super) struct Fingerprint {
    model: String,
    tools: String,
    system: String,
    settings: String,
    messages: Vec<String>,
    /// Tokens up to the last marker.
    cached_tokens: u64,
}

impl Fingerprint {
    pub(super) fn new(body: &Map<String, Value>, prompt: &Prompt) -> Self {
        let join = |range: std::ops::Range<usize>| {
            let contents: Vec<&str> = prompt.steps[range]
                .iter()
                .map(|step| step.block.content.as_str())
                .collect();
            hash_hex(&contents.join("\u{1}"))
        };
        let speed = field(body, "speed")
            .and_then(Value::as_str)
            .unwrap_or("standard");
        let marked = prompt
            .marks
            .iter()
            .map(|mark| mark.step + 1)
            .max()
            .unwrap_or_default();
        Fingerprint {
            model: format!("{}/{speed}", body["model"]),
            tools: join(0..prompt.tools_end),
            system: join(prompt.tools_end + 1..prompt.system_end),
            settings: format!(
                "{}{}",
                join(prompt.tools_end..prompt.tools_end + 1),
                join(prompt.system_end..prompt.system_end + 1)
            ),
            messages: prompt.steps[prompt.system_end + 1..]
                .iter()
                .map(|step| hash_hex(&step.block.content))
                .collect(),
            cached_tokens: prompt.steps[..marked]
                .iter()
                .map(|step| step.block.tokens)
                .sum(),
        }
    }

    /// The first part in which `self` is not a continuation of `earlier`.
    fn difference(&self, earlier: &Fingerprint) -> Option<&'static str> {
        if self.model != earlier.model {
            Some("model_changed")
        } else if self.tools != earlier.tools {
            Some("tools_changed")
        } else if self.system != earlier.system {
            Some("system_changed")
        } else if !self.messages.starts_with(&earlier.messages) {
            Some("messages_changed")
        } else if self.settings != earlier.settings {
            Some("unavailable")
        } else {
            None
        }
    }
}

/// The fingerprints of all accounts.
#[derive(Debug, Default)]
pub(super) struct Fingerprints {
    kept: Mutex<VecDeque<(String, String, Fingerprint)>>,
}

impl Fingerprints {
    pub(super) fn keep(&self, account: &str, id: &str, fingerprint: Fingerprint) {
        let mut kept = self.kept.lock().unwrap();
        kept.push_back((account.to_owned(), id.to_owned(), fingerprint));
        while kept.len() > FINGERPRINTS_MAX {
            kept.pop_front();
        }
    }

    /// The `diagnostics` of an answer, for a request that asked for them.
    pub(super) fn compare(
        &self,
        account: &str,
        body: &Map<String, Value>,
        now: &Fingerprint,
        settled: &Settled,
    ) -> Option<Value> {
        let asked = field(body, "diagnostics")?;
        let reason = asked["previous_message_id"].as_str().map_or(Value::Null, |id| {
            let kept = self.kept.lock().unwrap();
            let Some((_, _, earlier)) = kept.iter().find(|(of, kept, _)| of == account && kept == id) else {
                return json!({"type": "previous_message_not_found"});
            };
            match now.difference(earlier) {
                None => Value::Null,
                Some("unavailable") => json!({"type": "unavailable"}),
                Some(kind) => json!({
                    "type": kind,
                    "cache_missed_input_tokens": earlier.cached_tokens.saturating_sub(settled.read),
                }),
            }
        });
        Some(json!({"cache_miss_reason": reason}))
    }
}

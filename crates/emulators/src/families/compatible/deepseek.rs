//! DeepSeek (facts 2.8).

use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use super::envelope::Envelope;
use super::reasoning::Reasoning;
use super::units::{UnitLookup, Units};
use super::{Facts, Hit, NOT_IN_HISTORY, Provider, Turn};
use crate::families::chat_wire::Completion;

static FACTS: Facts = Facts {
    name: "deepseek",
    base_paths: &["", "/v1", "/beta"],
    models: &["deepseek-v4-pro", "deepseek-v4-flash"],
    owner: "deepseek",
    needs_key: true,
    envelope: Envelope::OpenAi,
    knows_developer: false,
    allows_no_output: false,
    ignored: NOT_IN_HISTORY,
    reasoning: Reasoning::Typed,
};

pub(super) struct DeepSeek {
    build_ms: i64,
    units: Mutex<Units>,
}

impl DeepSeek {
    pub(super) fn new(build: Duration) -> Self {
        DeepSeek {
            build_ms: i64::try_from(build.as_millis()).unwrap(),
            units: Mutex::default(),
        }
    }
}

impl Provider for DeepSeek {
    fn facts(&self) -> &Facts {
        &FACTS
    }

    fn meet(&self, turn: &Turn<'_>) -> Hit {
        Hit::read(self.units.lock().unwrap().meet(&UnitLookup {
            now_ms: turn.now_ms,
            visible_ms: turn.visible_ms + self.build_ms,
            salt: &format!("{}\n{}", turn.account, turn.model),
            prompt: &turn.prompt.token_ids(),
            ends: turn.prompt.ends(),
            answer: turn.said,
            is_missed: turn.is_missed,
        }))
    }

    fn finish(&self, turn: &Turn<'_>, hit: &Hit, completion: &mut Completion) {
        completion.usage["prompt_cache_hit_tokens"] = json!(hit.read);
        completion.usage["prompt_cache_miss_tokens"] = json!(turn.prompt.tokens() - hit.read);
    }

    fn clear(&self) {
        self.units.lock().unwrap().clear();
    }
}

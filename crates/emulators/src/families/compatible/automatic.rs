//! Providers that cache by themselves: one description each (facts 2.9 to 2.11, 2.14).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::chain::{Chain, ChainRules, Lookup};
use super::envelope::Envelope;
use super::reasoning::Reasoning;
use super::{Facts, Hit, NOT_IN_HISTORY, Provider, Turn, without};
use crate::Reply;
use crate::families::chat_wire::{self, Completion, UsagePlace};

/// How a request finds the server that holds its entries.
#[derive(Debug, Clone, Copy)]
enum Routing {
    /// All servers share entries.
    Shared,
    /// Each server has its own. A value in one of these places always leads to the same server, the first place that
    /// has one counts; requests without any take turns among so many servers.
    Affinity {
        headers: &'static [&'static str],
        fields: &'static [&'static str],
        servers: u64,
    },
}

pub(super) struct Automatic {
    facts: Facts,
    routing: Routing,
    /// Separates entries further.
    isolation_header: Option<&'static str>,
    /// Whether all accounts share entries.
    shares_accounts: bool,
    /// Between a request and the moment its entries can be read, milliseconds.
    delay_ms: i64,
    caches: fn(&str) -> bool,
    finish: fn(&Turn<'_>, &Hit, &mut Completion),
    seal: fn(&Turn<'_>, &Hit, Reply) -> Reply,
    chain: Mutex<Chain>,
    turns: AtomicU64,
}

impl Automatic {
    fn new(facts: Facts, step: u64, min: u64) -> Self {
        Automatic {
            facts,
            routing: Routing::Shared,
            isolation_header: None,
            shares_accounts: false,
            delay_ms: 0,
            caches: |_| true,
            finish: |_, _, _| {},
            seal: |_, _, reply| reply,
            chain: Mutex::new(Chain::new(ChainRules {
                step,
                min,
                idle_ms: None,
                recomputes_last: false,
                has_exact_end: false,
                capacity: 1_000_000,
            })),
            turns: AtomicU64::default(),
        }
    }

    fn idle_seconds(self, seconds: i64) -> Self {
        self.chain.lock().unwrap().rules.idle_ms = Some(seconds * 1000);
        self
    }

    fn server(&self, turn: &Turn<'_>) -> String {
        let Routing::Affinity {
            headers,
            fields,
            servers,
        } = self.routing
        else {
            return String::new();
        };
        let from_headers = headers.iter().find_map(|name| turn.request.header(name));
        let from_fields = || fields.iter().find_map(|name| turn.body[name].as_str());
        match from_headers
            .or_else(from_fields)
            .filter(|key| !key.is_empty())
        {
            Some(key) => format!("of {key}"),
            None => format!("{}", self.turns.fetch_add(1, Ordering::SeqCst) % servers),
        }
    }
}

impl Provider for Automatic {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn meet(&self, turn: &Turn<'_>) -> Hit {
        let server = self.server(turn);
        if !(self.caches)(turn.model) {
            return Hit {
                server,
                ..Hit::default()
            };
        }
        let account = if self.shares_accounts {
            ""
        } else {
            turn.account
        };
        let isolation = self
            .isolation_header
            .and_then(|name| turn.request.header(name))
            .unwrap_or_default();
        let done = self.chain.lock().unwrap().meet(&Lookup {
            now_ms: turn.now_ms,
            visible_ms: turn.visible_ms + self.delay_ms,
            salt: &format!("{account}\n{}\n{server}\n{isolation}", turn.model),
            prompt: &turn.prompt.token_ids(),
            tail: &[],
            is_missed: turn.is_missed,
            idle_ms: None,
        });
        Hit {
            server,
            ..Hit::read(done.read)
        }
    }

    fn finish(&self, turn: &Turn<'_>, hit: &Hit, completion: &mut Completion) {
        (self.finish)(turn, hit, completion);
    }

    fn seal(&self, turn: &Turn<'_>, hit: &Hit, reply: Reply) -> Reply {
        (self.seal)(turn, hit, reply)
    }

    fn clear(&self) {
        self.chain.lock().unwrap().clear();
    }
}

/// The usage comes with the finish reason, asked for or not.
fn usage_in_finish_chunk(_turn: &Turn<'_>, _hit: &Hit, completion: &mut Completion) {
    completion.quirks.usage_place = UsagePlace::FinishChunk;
    completion.include_usage = true;
}

/// About 500 tokens are advised, and it "takes effect asynchronously": ten seconds here [?].
pub(super) fn zhipu() -> Automatic {
    let facts = Facts {
        name: "zhipu",
        base_paths: &["/api/paas/v4", "/api/coding/paas/v4"],
        models: &["glm-5.3", "glm-5.3-flash"],
        owner: "z-ai",
        needs_key: true,
        envelope: Envelope::Zhipu,
        knows_developer: false,
        allows_no_output: false,
        ignored: NOT_IN_HISTORY,
        reasoning: Reasoning::Typed,
    };
    Automatic {
        delay_ms: 10_000,
        finish: usage_in_finish_chunk,
        ..Automatic::new(facts, 64, 500)
    }
}

/// Passive caching from 512 input tokens; how long depends on load: an hour of idleness here [?].
pub(super) fn minimax() -> Automatic {
    let facts = Facts {
        name: "minimax",
        base_paths: &["/v1"],
        models: &["MiniMax-M3", "MiniMax-M2.5"],
        owner: "minimax",
        needs_key: true,
        envelope: Envelope::OpenAi,
        knows_developer: false,
        allows_no_output: false,
        ignored: NOT_IN_HISTORY,
        reasoning: Reasoning::Unchecked,
    };
    Automatic::new(facts, 64, 512).idle_seconds(3600)
}

/// Entries per server; blocks of 128 were measured, and a full hit can equal the prompt.
pub(super) fn xai() -> Automatic {
    let facts = Facts {
        name: "xai",
        base_paths: &["/v1"],
        models: &["grok-4.7", "grok-4.3"],
        owner: "xai",
        needs_key: true,
        envelope: Envelope::Xai,
        knows_developer: true,
        allows_no_output: false,
        ignored: NOT_IN_HISTORY,
        reasoning: Reasoning::Xai,
    };
    let xai = Automatic {
        routing: Routing::Affinity {
            headers: &["x-grok-conv-id"],
            fields: &[],
            servers: 8,
        },
        finish: |_, hit, completion| {
            let reasoning = completion.usage["completion_tokens_details"]["reasoning_tokens"]
                .as_u64()
                .unwrap_or(0);
            let output = completion.usage["completion_tokens"].as_u64().unwrap_or(0);
            // Thinking isn't a part of the output here, but of the total.
            completion.usage["completion_tokens"] = json!(output - reasoning);
            completion.usage["prompt_tokens_details"] = json!({
                "text_tokens": completion.usage["prompt_tokens"],
                "audio_tokens": 0,
                "image_tokens": 0,
                "cached_tokens": hit.read,
            });
        },
        ..Automatic::new(facts, 128, 0)
    };
    xai.chain.lock().unwrap().rules.has_exact_end = true;
    xai
}

/// Blocks of 64 tokens [?], found again by `prompt_cache_key`.
pub(super) fn mistral() -> Automatic {
    let facts = Facts {
        name: "mistral",
        base_paths: &["/v1"],
        models: &["mistral-large-4"],
        owner: "mistralai",
        needs_key: true,
        envelope: Envelope::Object,
        knows_developer: false,
        allows_no_output: false,
        ignored: NOT_IN_HISTORY,
        reasoning: Reasoning::Unchecked,
    };
    Automatic {
        routing: Routing::Affinity {
            headers: &[],
            fields: &["prompt_cache_key"],
            servers: 8,
        },
        finish: |turn, hit, completion| {
            usage_in_finish_chunk(turn, hit, completion);
            without(&mut completion.usage, &["completion_tokens_details"]);
        },
        ..Automatic::new(facts, 64, 64)
    }
}

/// Only the gpt-oss models; two idle hours. 128 to 1024 tokens per model: 128 here.
pub(super) fn groq() -> Automatic {
    let facts = Facts {
        name: "groq",
        base_paths: &["/openai/v1"],
        models: &[
            "openai/gpt-oss-20b",
            "openai/gpt-oss-120b",
            "openai/gpt-oss-safeguard-20b",
            "llama-3.3-70b-versatile",
        ],
        owner: "groq",
        needs_key: true,
        envelope: Envelope::OpenAi,
        knows_developer: true,
        allows_no_output: false,
        ignored: NOT_IN_HISTORY,
        reasoning: Reasoning::Groq,
    };
    Automatic {
        caches: |model| model.trim_start_matches("openai/").starts_with("gpt-oss-"),
        finish: |_, hit, completion| {
            completion.quirks.reasoning_field = "reasoning";
            if hit.read == 0 {
                without(&mut completion.usage, &["prompt_tokens_details"]);
            }
        },
        ..Automatic::new(facts, 128, 128).idle_seconds(2 * 3600)
    }
}

/// Entries per replica. The headers name the counters always; the body may keep silent.
pub(super) fn fireworks(hides_details: bool, is_dedicated: bool) -> Automatic {
    let facts = Facts {
        name: "fireworks",
        base_paths: &["/inference/v1"],
        models: &["accounts/fireworks/models/kimi-k3"],
        owner: "fireworks",
        needs_key: true,
        envelope: Envelope::Fireworks,
        knows_developer: true,
        allows_no_output: false,
        ignored: NOT_IN_HISTORY,
        reasoning: Reasoning::Unchecked,
    };
    Automatic {
        routing: Routing::Affinity {
            headers: &["x-session-affinity"],
            fields: &["prompt_cache_key", "user"],
            servers: 8,
        },
        isolation_header: Some("x-prompt-cache-isolation-key"),
        shares_accounts: is_dedicated,
        finish: if hides_details {
            |_, _, completion| without(&mut completion.usage, &["prompt_tokens_details"])
        } else {
            |_, _, _| {}
        },
        seal: |turn, hit, reply| {
            reply
                .header("fireworks-prompt-tokens", turn.prompt.tokens().to_string())
                .header("fireworks-cached-prompt-tokens", hit.read.to_string())
        },
        ..Automatic::new(facts, 64, 0)
    }
}

/// Undocumented in all but the price.
pub(super) fn together(is_top_level: bool) -> Automatic {
    let facts = Facts {
        name: "together",
        base_paths: &["/v1"],
        models: &["deepseek-ai/DeepSeek-V4-Pro-0813"],
        owner: "together",
        needs_key: true,
        envelope: Envelope::OpenAi,
        knows_developer: true,
        allows_no_output: false,
        ignored: NOT_IN_HISTORY,
        reasoning: Reasoning::Unchecked,
    };
    Automatic {
        finish: if is_top_level {
            |_, hit, completion| {
                completion.usage["cached_tokens"] = json!(hit.read);
                without(&mut completion.usage, &["prompt_tokens_details"]);
            }
        } else {
            |_, _, _| {}
        },
        ..Automatic::new(facts, 64, 64)
    }
}

/// The wire and nothing else.
pub(super) fn openai_compatible() -> Automatic {
    let facts = Facts {
        name: "openai-compatible",
        base_paths: &["/v1"],
        models: &["model"],
        owner: "nobody",
        needs_key: false,
        envelope: Envelope::OpenAi,
        knows_developer: true,
        allows_no_output: false,
        ignored: NOT_IN_HISTORY,
        reasoning: Reasoning::Unchecked,
    };
    Automatic {
        caches: |_| false,
        finish: |turn, _, completion| {
            without(
                &mut completion.usage,
                &["prompt_tokens_details", "completion_tokens_details"],
            );
            completion.include_usage = chat_wire::wants_usage(turn.body);
        },
        ..Automatic::new(facts, 0, 0)
    }
}

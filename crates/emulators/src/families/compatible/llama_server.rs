//! llama.cpp's server and Ollama, which runs it inside (facts 3.3, 3.4).

use std::sync::Mutex;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::envelope::Envelope;
use super::reasoning::Reasoning;
use super::slots::{LlamaServerOptions, Slots};
use super::{Facts, Hit, NOT_IN_HISTORY, Provider, Turn};
use crate::families::chat_wire::{self, Completion};
use crate::reply::Body;
use crate::{Desk, RawRequest, Reply, sse};

static LLAMA_SERVER: Facts = Facts {
    name: "llama-server",
    base_paths: &["/v1", ""],
    models: &["model"],
    owner: "llamacpp",
    needs_key: false,
    envelope: Envelope::LlamaServer,
    knows_developer: true,
    allows_no_output: true,
    ignored: NOT_IN_HISTORY,
    reasoning: Reasoning::Unchecked,
};

static OLLAMA: Facts = Facts {
    name: "ollama",
    base_paths: &["/v1"],
    owner: "library",
    envelope: Envelope::OpenAi,
    ..LLAMA_SERVER
};

/// Bytes of KV state per token in a saved file, as large as a small model's.
const STATE_BYTES_PER_TOKEN: usize = 8192;

pub(super) struct LlamaServer {
    options: LlamaServerOptions,
    slots: Mutex<Slots>,
}

impl LlamaServer {
    pub(super) fn new(options: LlamaServerOptions) -> Self {
        LlamaServer {
            slots: Mutex::new(Slots::new(options.clone())),
            options,
        }
    }

    fn list_slots(&self) -> Reply {
        if !self.options.shows_slots {
            let message = "This server does not support slots endpoint. Start it with `--slots`";
            return refusal(501, message);
        }
        let slots: Vec<Value> = self
            .slots
            .lock()
            .unwrap()
            .sizes()
            .into_iter()
            .enumerate()
            .map(|(id, tokens)| json!({"id": id, "n_ctx": 131_072, "is_processing": false, "n_prompt_tokens": tokens}))
            .collect();
        Reply::json(200, &Value::Array(slots))
    }

    fn act(&self, request: &RawRequest, slot: &str) -> Reply {
        if !self.options.saves_slots {
            let message =
                "This server does not support slots action. Start it with `--slot-save-path`";
            return refusal(501, message);
        }
        let Ok(slot) = slot.parse::<usize>() else {
            return refusal(400, "Invalid slot ID");
        };
        let mut slots = self.slots.lock().unwrap();
        let slot = slots.index(slot);
        let action = request.query_value("action").unwrap_or_default();
        if action == "erase" {
            return Reply::json(
                200,
                &json!({"id_slot": slot, "n_erased": slots.erase(slot)}),
            );
        }
        let body = request.json().unwrap_or_default();
        let name = body["filename"].as_str().unwrap_or_default();
        if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
            return refusal(400, "Invalid filename");
        }
        match action {
            "save" => {
                let tokens = slots.save(slot, name);
                let value = json!({
                    "id_slot": slot,
                    "filename": name,
                    "n_saved": tokens,
                    "n_written": tokens * STATE_BYTES_PER_TOKEN,
                    "timings": {"save_ms": 49.865},
                });
                Reply::json(200, &value)
            }
            "restore" => match slots.restore(slot, name) {
                Some(tokens) => {
                    let value = json!({
                        "id_slot": slot,
                        "filename": name,
                        "n_restored": tokens,
                        "n_read": tokens * STATE_BYTES_PER_TOKEN,
                        "timings": {"restore_ms": 42.9},
                    });
                    Reply::json(200, &value)
                }
                None => {
                    let message = "Unable to restore slot, no available space in KV cache or invalid slot save file";
                    refusal(400, message)
                }
            },
            _ => refusal(400, "Invalid action"),
        }
    }
}

fn refusal(status: u16, message: &str) -> Reply {
    LLAMA_SERVER.envelope.reply(status, message, "")
}

impl Provider for LlamaServer {
    fn facts(&self) -> &Facts {
        &LLAMA_SERVER
    }

    fn meet(&self, turn: &Turn<'_>) -> Hit {
        let wanted = turn.body["id_slot"]
            .as_i64()
            .and_then(|slot| usize::try_from(slot).ok());
        let is_reuse_on = turn.body["cache_prompt"] != false && !turn.is_missed;
        let prompt = turn.prompt.token_ids();
        let hit = self
            .slots
            .lock()
            .unwrap()
            .meet(wanted, is_reuse_on, &prompt, turn.said);
        Hit {
            server: hit.slot.to_string(),
            ..Hit::read(hit.reused)
        }
    }

    fn finish(&self, turn: &Turn<'_>, hit: &Hit, completion: &mut Completion) {
        completion
            .extra_last
            .insert("timings".to_owned(), timings(turn, hit));
        super::without(&mut completion.usage, &["completion_tokens_details"]);
    }

    fn seal(&self, turn: &Turn<'_>, hit: &Hit, mut reply: Reply) -> Reply {
        // With usage in the stream the timings are beside it already; without, they are on the last chunk all the same.
        if let Body::Frames(frames) = &mut reply.body
            && !chat_wire::wants_usage(turn.body)
            && turn.usage_fault.is_none()
        {
            add_to_last_chunk(frames, turn, hit);
        }
        reply
    }

    fn other_route(
        &self,
        request: &RawRequest,
        path: Option<&str>,
        _desk: &Desk<'_>,
        _account: Option<&str>,
    ) -> Option<Reply> {
        match (request.method.as_str(), path?) {
            ("GET", "/health") => Some(Reply::json(200, &json!({"status": "ok"}))),
            ("GET", "/slots") => Some(self.list_slots()),
            ("POST", path) => path
                .strip_prefix("/slots/")
                .map(|slot| self.act(request, slot)),
            _ => None,
        }
    }

    fn clear(&self) {
        self.slots.lock().unwrap().clear();
    }
}

fn timings(turn: &Turn<'_>, hit: &Hit) -> Value {
    let fresh = turn.prompt.tokens() - hit.read;
    json!({
        "cache_n": hit.read,
        "prompt_n": fresh,
        "prompt_ms": fresh,
        "predicted_n": turn.output,
        "predicted_ms": turn.output,
    })
}

fn add_to_last_chunk(frames: &mut [Bytes], turn: &Turn<'_>, hit: &Hit) {
    let chunk = frames.iter_mut().rev().find_map(|frame| {
        let data = std::str::from_utf8(frame).ok()?.strip_prefix("data: ")?;
        let value = serde_json::from_str::<Map<String, Value>>(data).ok()?;
        Some((frame, value))
    });
    if let Some((frame, mut value)) = chunk {
        value.insert("timings".to_owned(), timings(turn, hit));
        *frame = sse(&Value::Object(value));
    }
}

/// Ollama: one slot that lives as long as the model stays loaded, and no counter of what it spared.
pub(super) struct Ollama {
    slots: Mutex<Slots>,
}

impl Ollama {
    pub(super) fn new() -> Self {
        Ollama {
            slots: Mutex::new(Slots::new(LlamaServerOptions {
                slots: 1,
                ram_cache: false,
                ..LlamaServerOptions::default()
            })),
        }
    }
}

impl Provider for Ollama {
    fn facts(&self) -> &Facts {
        &OLLAMA
    }

    fn meet(&self, turn: &Turn<'_>) -> Hit {
        let prompt = turn.prompt.token_ids();
        let hit = self
            .slots
            .lock()
            .unwrap()
            .meet(None, !turn.is_missed, &prompt, turn.said);
        Hit::read(hit.reused)
    }

    fn finish(&self, _turn: &Turn<'_>, _hit: &Hit, completion: &mut Completion) {
        completion.quirks.reasoning_field = "reasoning";
        super::without(
            &mut completion.usage,
            &["prompt_tokens_details", "completion_tokens_details"],
        );
    }

    fn clear(&self) {
        self.slots.lock().unwrap().clear();
    }
}

//! Chat Completions.

use serde_json::{Value, json};

use super::cache::Found;
use super::model::Era;
use super::prompt::Prompt;
use super::{Caller, Checked, Host, OpenAi, check, effort};
use crate::families::chat_wire::{self, Completion, Quirks};
use crate::reply::Body;
use crate::{Reply, sse};

impl OpenAi {
    pub(super) fn chat(&self, caller: &Caller<'_>) -> Checked<Reply> {
        let body = caller.body;
        let era = check::common(body, true, self.host)?;
        check::chat(body, era, self.host)?;
        let prompt = Prompt::of_chat(body, &caller.account, &self.region);
        let found = self.look_up(caller, era, &prompt);
        let input = prompt.tokens();
        let forced = chat_wire::forced_tool(body);
        let mut answer = caller
            .desk
            .script
            .take_with_refusal(input, forced.as_deref());
        if !effort::reasons(body) {
            answer.reasoning.clear();
        }
        let answer = chat_wire::limited(answer, chat_wire::output_limit(body));
        let output = chat_wire::output_tokens(&answer) * chat_wire::choices(body);
        let reasoning = chat_wire::reasoning_tokens(&answer) * chat_wire::choices(body);
        let usage = self.chat_usage(era, input, &found, output, reasoning);
        let id = format!("chatcmpl-{:012x}", caller.desk.next_id());
        let mut completion = Completion::new(body, id, caller.desk.now_ms, answer, usage);
        completion.usage_fault = caller.desk.usage_fault;
        completion.quirks = Quirks {
            // OpenAI doesn't show it in Chat.
            reasoning_field: "",
            ..Quirks::default()
        };
        let tier = body["service_tier"]
            .as_str()
            .filter(|tier| *tier != "auto")
            .unwrap_or("default");
        completion
            .extra
            .insert("service_tier".to_owned(), json!(tier));
        completion
            .extra
            .insert("system_fingerprint".to_owned(), json!("fp_emulated"));
        let mut reply = completion.reply(chat_wire::wants_stream(body));
        if self.is_azure()
            && let Body::Frames(frames) = &mut reply.body
        {
            frames.insert(0, sse(&prompt_filter()));
        }
        Ok(reply.charge(Self::charge(caller, "chat", &prompt, &found, output)))
    }

    fn chat_usage(
        &self,
        era: Era,
        input: u64,
        found: &Found,
        output: u64,
        reasoning: u64,
    ) -> Value {
        let mut usage = json!({
            "prompt_tokens": input,
            "completion_tokens": output,
            "total_tokens": input + output,
            "prompt_tokens_details": {"cached_tokens": found.read, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        });
        if era == Era::Breakpoints && self.host != Host::AzureProvisioned {
            usage["prompt_tokens_details"]["cache_write_tokens"] = json!(found.written());
        }
        usage
    }
}

/// Azure's streams begin with a chunk that has neither choices nor names.
fn prompt_filter() -> Value {
    json!({
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "object": "",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
    })
}

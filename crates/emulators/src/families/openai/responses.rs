//! Responses: answers, stored chains, prewarming and the reasons for misses.

use serde_json::{Value, json};

use super::cache::Found;
use super::model::Era;
use super::prompt::Prompt;
use super::{Caller, Checked, Host, OpenAi, check, effort, responses_check, responses_wire};
use crate::families::chat_wire;
use crate::{Answer, Desk, Reply, UsageFault};

/// How long responses are stored.
const STORED_MS: i64 = 30 * 86_400_000;
/// Below so many tokens there is nothing to diagnose.
const DIAGNOSED_TOKENS_MIN: u64 = 1024;

/// A stored response.
#[derive(Clone)]
pub(super) struct Stored {
    account: String,
    created_ms: i64,
    /// All items of the chain up to and with this response's output.
    items: Vec<Value>,
    response: Value,
    prompt: Prompt,
}

impl OpenAi {
    pub(super) fn respond(&self, caller: &Caller<'_>) -> Checked<Reply> {
        let body = caller.body;
        let era = check::common(body, false, self.host)?;
        check::response_limit(body)?;
        responses_check::request(body)?;
        effort::response(body)?;
        let mut items = self.chain(caller)?;
        let input = responses_check::items(body, era, self.host)?;
        self.check_reasoning(caller, &input)?;
        items.extend(input.iter().cloned());
        responses_check::calls(&items)?;
        let prompt = Prompt::of_response(body, &items, &caller.account, &self.region);
        let comparison = body["prompt_cache_options"]["comparison_response_id"].as_str();
        let compared = comparison.map(|id| self.find(&caller.account, id, caller.desk.now_ms));
        let found = self.look_up(caller, era, &prompt);

        let is_prewarm = body["prompt_cache_options"]["prewarm"] == true;
        let answer = if is_prewarm {
            Answer::default()
        } else {
            let forced = chat_wire::forced_tool(body);
            let mut answer = caller
                .desk
                .script
                .take_with_refusal(prompt.tokens(), forced.as_deref());
            if !effort::reasons(body) {
                answer.reasoning.clear();
            }
            chat_wire::limited(answer, chat_wire::output_limit(body))
        };
        let output_tokens = chat_wire::output_tokens(&answer);
        let id = format!("resp_{:024x}", caller.desk.next_id());
        let output = responses_wire::output(
            &answer,
            &id,
            responses_wire::Shown {
                summary: !body["reasoning"]["summary"].is_null(),
                sealed_for: effort::wants_encrypted(body).then_some(caller.account.as_str()),
            },
        );
        let mut response = self.skeleton(caller, &id);
        let reason = if answer.filtered {
            Some("content_filter")
        } else {
            answer.cut.then_some("max_output_tokens")
        };
        response["status"] = json!(if reason.is_some() {
            "incomplete"
        } else {
            "completed"
        });
        if let Some(reason) = reason {
            response["incomplete_details"] = json!({"reason": reason});
        }
        response["output"] = Value::Array(output.clone());
        let usage = self.response_usage(
            era,
            prompt.tokens(),
            &found,
            output_tokens,
            chat_wire::reasoning_tokens(&answer),
        );
        response["usage"] = match caller.desk.usage_fault {
            Some(UsageFault::Missing) => Value::Null,
            Some(UsageFault::Impossible) => chat_wire::impossible(&usage),
            Some(UsageFault::Repeated) | None => usage,
        };
        if let Some(compared) = compared {
            response["prompt_cache_diagnostics"] = match compared {
                Some(compared) => diagnose(&prompt, &found, &compared.prompt),
                None => json!({"type": "comparison_response_not_found"}),
            };
        }
        if response["store"] == true {
            items.extend(output.iter().cloned());
            let stored = Stored {
                account: caller.account.clone(),
                created_ms: caller.desk.now_ms,
                items,
                response: response.clone(),
                prompt: prompt.clone(),
            };
            self.state.lock().unwrap().responses.insert(id, stored);
        }
        let reply = if chat_wire::wants_stream(body) {
            let repeats = caller.desk.usage_fault == Some(UsageFault::Repeated);
            Reply::frames(responses_wire::frames(&response, repeats))
                .failing_with(responses_wire::failure())
        } else {
            Reply::json(200, &response)
        };
        let kind = if is_prewarm { "prewarm" } else { "chat" };
        Ok(reply.charge(Self::charge(caller, kind, &prompt, &found, output_tokens)))
    }

    /// The items before this request's own.
    fn chain(&self, caller: &Caller<'_>) -> Checked<Vec<Value>> {
        let body = caller.body;
        if let Some(id) = body["conversation"]
            .as_str()
            .or_else(|| body["conversation"]["id"].as_str())
        {
            if !body["previous_response_id"].is_null() {
                let message = "Mutually exclusive parameters: 'conversation' and 'previous_response_id'. Ensure you are \
                               only providing one of them.";
                return Err(check::invalid(
                    message,
                    Some("conversation"),
                    Some("mutually_exclusive_parameters"),
                ));
            }
            // Conversations are made by an API that is not emulated.
            return Err(not_found(&format!(
                "Conversation with id '{id}' not found."
            )));
        }
        let id = match &body["previous_response_id"] {
            Value::Null => return Ok(Vec::new()),
            Value::String(id) => id,
            _ => return Err(check::bad_type("previous_response_id", "a string")),
        };
        match self.find(&caller.account, id, caller.desk.now_ms) {
            Some(stored) => Ok(stored.items),
            None => Err(check::invalid(
                &format!("Previous response with id '{id}' not found."),
                Some("previous_response_id"),
                Some("previous_response_not_found"),
            )),
        }
    }

    fn find(&self, account: &str, id: &str, now_ms: i64) -> Option<Stored> {
        let state = self.state.lock().unwrap();
        let stored = state.responses.get(id)?;
        (stored.account == account && now_ms - stored.created_ms < STORED_MS)
            .then(|| stored.clone())
    }

    /// Whether an item of that id is in a stored response.
    pub(super) fn has_item(&self, account: &str, id: &str, now_ms: i64) -> bool {
        let state = self.state.lock().unwrap();
        state.responses.values().any(|stored| {
            stored.account == account
                && now_ms - stored.created_ms < STORED_MS
                && stored.items.iter().any(|item| item["id"] == id)
        })
    }

    /// `GET /responses/{id}`.
    pub(super) fn stored(&self, account: &str, id: &str, desk: &Desk<'_>) -> Checked<Reply> {
        match self.find(account, id, desk.now_ms) {
            Some(stored) => Ok(Reply::json(200, &stored.response)),
            None => Err(not_found(&format!("Response with id '{id}' not found."))),
        }
    }

    /// `DELETE /responses/{id}`. Later links of a chain keep what they were made from.
    pub(super) fn delete_stored(&self, account: &str, id: &str, desk: &Desk<'_>) -> Checked<Reply> {
        self.stored(account, id, desk)?;
        self.state.lock().unwrap().responses.remove(id);
        Ok(Reply::json(
            200,
            &json!({"id": id, "object": "response", "deleted": true}),
        ))
    }

    /// The response object before there is any output.
    fn skeleton(&self, caller: &Caller<'_>, id: &str) -> Value {
        let body = caller.body;
        let or = |value: &Value, default: Value| {
            if value.is_null() {
                default
            } else {
                value.clone()
            }
        };
        let stores = body["store"] != false && !self.is_zero_retention;
        let mut format = body["text"].clone();
        if !format.is_object() {
            format = json!({});
        }
        if format["format"].is_null() {
            format["format"] = json!({"type": "text"});
        }
        json!({
            "id": id,
            "object": "response",
            "created_at": caller.desk.now_ms.div_euclid(1000),
            "status": "in_progress",
            "background": false,
            "error": null,
            "incomplete_details": null,
            "instructions": body["instructions"],
            "max_output_tokens": body["max_output_tokens"],
            "model": body["model"],
            "output": [],
            "parallel_tool_calls": or(&body["parallel_tool_calls"], json!(true)),
            "previous_response_id": body["previous_response_id"],
            "prompt_cache_key": body["prompt_cache_key"],
            "prompt_cache_options": body["prompt_cache_options"],
            "reasoning": or(&body["reasoning"], json!({"effort": null, "summary": null})),
            "service_tier": body["service_tier"].as_str().filter(|tier| *tier != "auto").unwrap_or("default"),
            "store": stores,
            "temperature": or(&body["temperature"], json!(1.0)),
            "text": format,
            "tool_choice": or(&body["tool_choice"], json!("auto")),
            "tools": or(&body["tools"], json!([])),
            "top_p": or(&body["top_p"], json!(1.0)),
            "truncation": or(&body["truncation"], json!("disabled")),
            "usage": null,
            "user": body["user"],
            "metadata": or(&body["metadata"], json!({})),
        })
    }

    fn response_usage(
        &self,
        era: Era,
        input: u64,
        found: &Found,
        output: u64,
        reasoning: u64,
    ) -> Value {
        let mut details = json!({"cached_tokens": found.read});
        if era == Era::Breakpoints && self.host != Host::AzureProvisioned {
            let of = |ttl: u64| found.writes.get(&ttl).copied().unwrap_or(0);
            details["cache_write_tokens"] = json!(found.written());
            details["cache_write_tokens_details"] = json!({
                "ttl_30m_tokens": of(super::prompt::TTL_30M),
                "ttl_12h_tokens": of(super::prompt::TTL_12H),
            });
        }
        json!({
            "input_tokens": input,
            "input_tokens_details": details,
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": input + output,
        })
    }
}

pub(super) fn not_found(message: &str) -> Box<Reply> {
    Box::new(chat_wire::error(
        404,
        message,
        "invalid_request_error",
        None,
        None,
    ))
}

/// Why the cache did or didn't help, against an earlier response's prompt.
fn diagnose(prompt: &Prompt, found: &Found, earlier: &Prompt) -> Value {
    if found.read > 0 {
        return json!({"type": "cache_hit"});
    }
    if prompt.tokens() < DIAGNOSED_TOKENS_MIN {
        return json!({"type": "unavailable"});
    }
    let (now, before) = (&prompt.facets, &earlier.facets);
    let changes = [
        (now.model != before.model, "model_changed"),
        (now.key != before.key, "prompt_cache_key_changed"),
        (
            now.tools != before.tools || now.parallel_tool_calls != before.parallel_tool_calls,
            "tools_changed",
        ),
        (now.format != before.format, "text_format_changed"),
        (now.effort != before.effort, "reasoning_effort_changed"),
        (now.verbosity != before.verbosity, "verbosity_changed"),
        (
            now.context_management != before.context_management,
            "context_compacted",
        ),
        (now.tier != before.tier, "service_tier_changed"),
    ];
    let reusable = common_tokens(prompt, earlier);
    let reason = match changes.iter().find(|(is_changed, _)| *is_changed) {
        Some((_, reason)) => *reason,
        None if reusable < earlier.tokens() => "input_changed",
        // The same beginning, and still no entry: it has expired, or none was written.
        None => return json!({"type": "unavailable"}),
    };
    json!({
        "type": "cache_miss",
        "reason": reason,
        "cache_missed_tokens": prompt.tokens(),
        "comparison_reusable_tokens": reusable,
    })
}

/// Tokens of the parts that both begin with.
fn common_tokens(one: &Prompt, other: &Prompt) -> u64 {
    let same = one
        .parts
        .iter()
        .zip(&other.parts)
        .take_while(|(one, other)| one.head == other.head && one.text == other.text)
        .count();
    one.ends()[..same].last().copied().unwrap_or(0)
}

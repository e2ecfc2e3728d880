//! `generateContent`, `streamGenerateContent` and `countTokens`.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::caches::Cache;
use super::error::{self, invalid};
use super::messages::{COUNT_TOKENS, GENERATE_CONTENT};
use super::prompt::{self, list};
use super::{Call, Checked, Gemini, Host, proto, signature, thinking};
use crate::families::chat_wire;
use crate::{Answer, Block, Charge, RawRequest, Reply, UsageFault, chain, hash_hex, tokens};

/// The shortest prefix that implicit caching keeps, tokens (facts 2.4).
const IMPLICIT_TOKENS_MIN: u64 = 4096;

/// The shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One object.
    Whole,
    /// `alt=sse`.
    Events,
    /// A JSON array, sent piece by piece.
    Array,
}

impl Gemini {
    pub(super) fn generate(
        &self,
        request: &RawRequest,
        call: &Call<'_>,
        model: &str,
        form: Form,
    ) -> Checked<Reply> {
        const REQUEST: &str = "GenerateContentRequest";
        self.known_model(model, "generateContent")?;
        let body = request
            .json()
            .filter(Value::is_object)
            .ok_or_else(|| Box::new(proto::no_json()))?;
        let body = proto::read(&GENERATE_CONTENT, &body, self.host, "")?;
        if list(&body["contents"]).is_empty() {
            return invalid(format!("* {REQUEST}.contents: contents is not specified\n"));
        }
        prompt::check_generation(&body["generationConfig"])?;
        thinking::check(&body["generationConfig"], model, self.host)?;
        let cache = self.cache_of(call, model, &body)?;
        let cached_contents = cache.as_ref().map_or(&[][..], |cache| &cache.contents);
        prompt::check_system(REQUEST, &body["systemInstruction"], self.host)?;
        prompt::check_contents(
            REQUEST,
            cached_contents,
            list(&body["contents"]),
            self.strictness(model),
        )?;
        prompt::check_end(list(&body["contents"]))?;
        prompt::check_tools(REQUEST, &body["tools"], &body["toolConfig"], false)?;

        let blocks = prompt::blocks(&body);
        let new_tokens: u64 = blocks.iter().map(|block| block.tokens).sum();
        let (prompt_tokens, cached_tokens) = match &cache {
            Some(cache) => (cache.tokens + new_tokens, cache.tokens),
            None => (new_tokens, self.implicit_hit(call, model, &blocks)),
        };
        let (tools, config) = match &cache {
            Some(cache) => (&cache.tools, &cache.tool_config),
            None => (&body["tools"], &body["toolConfig"]),
        };
        let forced = prompt::forced_function(tools, config);
        let mut answer = call.desk.script.take(prompt_tokens, forced.as_deref());
        let generation = &body["generationConfig"];
        if !thinking::thinks(generation, model) {
            answer.reasoning.clear();
        }
        let answer = chat_wire::limited(answer, generation["maxOutputTokens"].as_u64());
        let thoughts = chat_wire::reasoning_tokens(&answer);
        let output = chat_wire::output_tokens(&answer);
        let rendering = Rendering {
            answer: &answer,
            shows_thoughts: generation["thinkingConfig"]["includeThoughts"] == true,
            signs: thinking::signs(model),
            id: call.desk.next_id(),
            model,
            usage: Usage {
                host: self.host,
                prompt: prompt_tokens,
                cached: cached_tokens,
                thoughts,
                candidates: output - thoughts,
                fault: call.desk.usage_fault,
            },
        };
        let reply = match form {
            Form::Whole => Reply::json(200, &rendering.whole()),
            Form::Events => {
                let frames = rendering.chunks().iter().map(event).collect();
                let failure = if self.error_is_event {
                    error::as_event()
                } else {
                    error::in_event_stream()
                };
                Reply::frames(frames).failing_with(failure)
            }
            Form::Array => {
                let mut reply = Reply::frames(array(&rendering.chunks()))
                    .failing_with(error::in_array_stream());
                reply.content_type = "application/json; charset=UTF-8";
                reply
            }
        };
        Ok(reply.charge(Charge {
            kind: "chat".to_owned(),
            account: call.account.clone(),
            model: model.to_owned(),
            uncached_input: prompt_tokens - cached_tokens,
            cache_read: cached_tokens,
            output,
            ..Charge::default()
        }))
    }

    /// The cache that the request names, if it names one, with all its rules checked.
    fn cache_of(&self, call: &Call<'_>, model: &str, body: &Value) -> Checked<Option<Cache>> {
        let Some(name) = body["cachedContent"]
            .as_str()
            .filter(|name| !name.is_empty())
        else {
            return Ok(None);
        };
        let is_set = |field: &str| match &body[field] {
            Value::Null => false,
            Value::Array(values) => !values.is_empty(),
            _ => true,
        };
        if ["systemInstruction", "tools", "toolConfig"]
            .iter()
            .any(|field| is_set(field))
        {
            return invalid(match self.host {
                Host::GeminiApi => {
                    "CachedContent can not be used with GenerateContent request setting system_instruction, tools or \
                     tool_config.\n\nProposed fix: move those values to CachedContent from GenerateContent request."
                }
                Host::Vertex => {
                    "Tool config, tools and system instruction should not be set in the request when using cached \
                     content."
                }
            });
        }
        let id = match self.host {
            Host::GeminiApi => name.strip_prefix("cachedContents/"),
            // A cache is bound to its location: a name from elsewhere is no name here.
            Host::Vertex => {
                let (project, location) = call.scope.split_once('/').unwrap_or_default();
                let own = format!("projects/{project}/locations/{location}/cachedContents/");
                name.starts_with("projects/")
                    .then(|| name.strip_prefix(&own).unwrap_or_default())
            }
        };
        let Some(id) = id.filter(|id| !id.contains('/')) else {
            return invalid("Invalid CachedContent name.");
        };
        let state = self.state.lock().unwrap();
        let cache = state
            .caches
            .get(&call.scope, id)
            .ok_or_else(|| self.no_cache(id))?;
        if cache.model != model {
            return invalid(format!(
                "Model used by GenerateContent request (models/{model}) and CachedContent (models/{}) has to be the \
                 same.",
                cache.model
            ));
        }
        Ok(Some(cache.clone()))
    }

    /// Tokens of the longest beginning that was in an earlier prompt, and remembers this one's.
    fn implicit_hit(&self, call: &Call<'_>, model: &str, blocks: &[Block]) -> u64 {
        if !self.has_implicit {
            return 0;
        }
        let seen = &mut self.state.lock().unwrap().seen;
        let hashes = chain(&format!("{} {model}", call.scope), blocks);
        let known = hashes
            .iter()
            .take_while(|hash| seen.contains(*hash))
            .count();
        seen.extend(hashes);
        let tokens: u64 = blocks[..known].iter().map(|block| block.tokens).sum();
        if tokens >= IMPLICIT_TOKENS_MIN {
            tokens
        } else {
            0
        }
    }

    pub(super) fn count_tokens(
        &self,
        request: &RawRequest,
        call: &Call<'_>,
        model: &str,
    ) -> Checked<Reply> {
        self.known_model(model, "countTokens")?;
        let body = request
            .json()
            .filter(Value::is_object)
            .ok_or_else(|| Box::new(proto::no_json()))?;
        let body = proto::read(&COUNT_TOKENS, &body, self.host, "")?;
        let inner = &body["generateContentRequest"];
        if !inner.is_null() && !list(&body["contents"]).is_empty() {
            return invalid(
                "* CountTokensRequest: contents and generate_content_request are mutually exclusive.\n",
            );
        }
        let counted = if inner.is_null() { &body } else { inner };
        if list(&counted["contents"]).is_empty() {
            return invalid("* CountTokensRequest.contents: contents is not specified\n");
        }
        let cache = self.cache_of(call, model, counted)?;
        prompt::check_contents(
            "CountTokensRequest",
            cache.as_ref().map_or(&[][..], |cache| &cache.contents),
            list(&counted["contents"]),
            self.strictness(model),
        )?;
        let own: u64 = prompt::blocks(counted)
            .iter()
            .map(|block| block.tokens)
            .sum();
        let cached = cache.as_ref().map_or(0, |cache| cache.tokens);
        let mut reply = json!({
            "totalTokens": own + cached,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": own + cached}],
        });
        if cached > 0 {
            reply["cachedContentTokenCount"] = json!(cached);
        }
        Ok(Reply::json(200, &reply))
    }
}

struct Usage {
    host: Host,
    prompt: u64,
    cached: u64,
    thoughts: u64,
    candidates: u64,
    fault: Option<UsageFault>,
}

impl Usage {
    /// The totals after so many tokens; counts of zero are left out, as proto-JSON does.
    fn json(&self, thoughts: u64, candidates: u64) -> Value {
        let cached = match self.fault {
            Some(UsageFault::Impossible) => self.prompt + 1000,
            _ => self.cached,
        };
        let mut usage = json!({
            "promptTokenCount": self.prompt,
            "totalTokenCount": self.prompt + thoughts + candidates,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": self.prompt}],
        });
        if candidates > 0 {
            usage["candidatesTokenCount"] = json!(candidates);
        }
        if thoughts > 0 {
            usage["thoughtsTokenCount"] = json!(thoughts);
        }
        if cached > 0 {
            usage["cachedContentTokenCount"] = json!(cached);
            usage["cacheTokensDetails"] = json!([{"modality": "TEXT", "tokenCount": cached}]);
        }
        if self.host == Host::Vertex {
            usage["trafficType"] = json!("ON_DEMAND");
        }
        usage
    }
}

struct Rendering<'a> {
    answer: &'a Answer,
    shows_thoughts: bool,
    signs: bool,
    id: u64,
    model: &'a str,
    usage: Usage,
}

impl Rendering<'_> {
    fn whole(&self) -> Value {
        let mut parts = Vec::new();
        if self.shows_thoughts && !self.answer.reasoning.is_empty() {
            parts.push(json!({"text": self.answer.reasoning, "thought": true}));
        }
        if !self.answer.text.is_empty() {
            let mut part = json!({"text": self.answer.text});
            if self.signs && self.answer.tool_calls.is_empty() {
                part["thoughtSignature"] = json!(signature::issue(self.id));
            }
            parts.push(part);
        }
        parts.extend(self.calls().into_iter().flatten());
        self.chunk(
            parts,
            Some(self.finish_reason()),
            self.usage.thoughts,
            self.usage.candidates,
        )
    }

    /// Totals run: each chunk says what has been generated by then.
    fn chunks(&self) -> Vec<Value> {
        let mut pieces: Vec<(Value, u64, u64)> = Vec::new();
        let reasoning = Answer::text(self.answer.reasoning.as_str());
        if self.shows_thoughts {
            for piece in reasoning.pieces() {
                let size = tokens(&piece);
                pieces.push((json!({"text": piece, "thought": true}), size, 0));
            }
        }
        for piece in self.answer.pieces() {
            let size = tokens(&piece);
            pieces.push((json!({"text": piece}), 0, size));
        }
        if let Some(calls) = self.calls() {
            for (part, call) in calls.into_iter().zip(&self.answer.tool_calls) {
                pieces.push((part, 0, tokens(&call.name) + tokens(&call.arguments)));
            }
        }
        let reason = self.finish_reason();
        if pieces.is_empty() || reason == "SAFETY" || reason == "MALFORMED_FUNCTION_CALL" {
            let mut chunks = self.running(pieces, None);
            chunks.push(self.chunk(
                Vec::new(),
                Some(reason),
                self.usage.thoughts,
                self.usage.candidates,
            ));
            return chunks;
        }
        // Models that sign end with an empty text, which carries the signature where no call did.
        if self.signs {
            let mut part = json!({"text": ""});
            if self.answer.tool_calls.is_empty() {
                part["thoughtSignature"] = json!(signature::issue(self.id));
            }
            pieces.push((part, 0, 0));
        }
        self.running(pieces, Some(reason))
    }

    fn running(&self, pieces: Vec<(Value, u64, u64)>, reason: Option<&str>) -> Vec<Value> {
        let count = pieces.len();
        let (mut thoughts, mut candidates) = (0, 0);
        let mut chunks = Vec::with_capacity(count);
        for (number, (part, thought_size, candidate_size)) in pieces.into_iter().enumerate() {
            // Pieces are counted each by itself, so their sum may exceed the true total.
            thoughts = (thoughts + thought_size).min(self.usage.thoughts);
            if candidate_size > 0 {
                thoughts = self.usage.thoughts;
            }
            candidates = (candidates + candidate_size).min(self.usage.candidates);
            let is_last = number + 1 == count && reason.is_some();
            if is_last {
                (thoughts, candidates) = (self.usage.thoughts, self.usage.candidates);
            }
            chunks.push(self.chunk(vec![part], reason.filter(|_| is_last), thoughts, candidates));
        }
        chunks
    }

    /// The calls as parts; `None` where the arguments of one are no JSON object, which the service notices itself.
    fn calls(&self) -> Option<Vec<Value>> {
        let mut parts = Vec::new();
        for (number, call) in self.answer.tool_calls.iter().enumerate() {
            let args: Map<String, Value> = serde_json::from_str(&call.arguments).ok()?;
            let id = hash_hex(&format!("call {} {number}", self.id));
            let mut part = json!({"functionCall": {"id": id, "name": call.name, "args": args}});
            if self.signs && number == 0 {
                part["thoughtSignature"] = json!(signature::issue(self.id));
            }
            parts.push(part);
        }
        Some(parts)
    }

    fn finish_reason(&self) -> &'static str {
        if self.answer.filtered {
            "SAFETY"
        } else if self.answer.cut {
            "MAX_TOKENS"
        } else if self.calls().is_none() {
            "MALFORMED_FUNCTION_CALL"
        } else {
            "STOP"
        }
    }

    /// A prompt that was blocked has no candidate; a candidate that was blocked may have no content.
    fn chunk(
        &self,
        parts: Vec<Value>,
        reason: Option<&str>,
        thoughts: u64,
        candidates: u64,
    ) -> Value {
        let mut chunk = json!({});
        let is_blocked_prompt = self.answer.filtered
            && self.answer.text.is_empty()
            && self.answer.reasoning.is_empty()
            && self.answer.tool_calls.is_empty();
        if is_blocked_prompt {
            chunk["promptFeedback"] = json!({"blockReason": "SAFETY"});
        } else {
            let mut candidate = json!({});
            if !parts.is_empty() {
                candidate["content"] = json!({"parts": parts, "role": "model"});
            } else if reason == Some("STOP") || reason == Some("MAX_TOKENS") {
                candidate["content"] = json!({"role": "model"});
            }
            if let Some(reason) = reason {
                candidate["finishReason"] = json!(reason);
            }
            candidate["index"] = json!(0);
            chunk["candidates"] = json!([candidate]);
        }
        if self.usage.fault != Some(UsageFault::Missing) {
            chunk["usageMetadata"] = self.usage.json(thoughts, candidates);
        }
        chunk["modelVersion"] = json!(self.model);
        chunk["responseId"] = json!(hash_hex(&format!("response {}", self.id)));
        chunk
    }
}

/// Google ends the lines of its events with CR and LF.
fn event(chunk: &Value) -> Bytes {
    format!("data: {chunk}\r\n\r\n").into()
}

fn array(chunks: &[Value]) -> Vec<Bytes> {
    let count = chunks.len();
    chunks
        .iter()
        .enumerate()
        .map(|(number, chunk)| {
            let before = if number == 0 { "[" } else { ",\r\n" };
            let after = if number + 1 == count { "\n]" } else { "\n" };
            format!("{before}{chunk:#}{after}").into()
        })
        .collect()
}

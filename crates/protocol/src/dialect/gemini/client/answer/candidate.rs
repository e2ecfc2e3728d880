//! One choice of an answer as its parts.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::chat::{Choice, Delta, FinishReason, ReasoningSignature, TokenLogprob, ToolCall};
use crate::dialect::gemini::call_id;

/// "Too small to tell": JSON has no minus infinity.
const LOGPROB_MIN: f32 = -9999.0;

/// A choice as it is streamed.
///
/// The last character of a text and the last call wait for what comes next, so that the chunk that ends the choice says
/// something: older clients of Google's forget a turn that has an empty piece.
#[derive(Debug)]
pub(super) struct Candidate {
    index: u32,
    shows_thoughts: bool,
    /// Why it ended, until it is told.
    pub(super) finish: Option<FinishReason>,
    has_ended: bool,
    parts: Parts,
    /// The end of the text so far, and whether it is a thought's.
    held: Option<(bool, String)>,
    call: Option<(u32, ToolCall)>,
    logprobs: Vec<TokenLogprob>,
    logprob_sum: f64,
    logprob_count: u32,
}

impl Candidate {
    pub(super) fn new(index: u32, shows_thoughts: bool) -> Self {
        Candidate {
            index,
            shows_thoughts,
            finish: None,
            has_ended: false,
            parts: Parts::default(),
            held: None,
            call: None,
            logprobs: Vec::new(),
            logprob_sum: 0.0,
            logprob_count: 0,
        }
    }

    /// What is to be sent for `delta`, if there is something.
    pub(super) fn delta(&mut self, delta: &Delta) -> Option<Value> {
        match delta {
            Delta::Text { text, logprobs } => {
                self.note(logprobs);
                self.text(false, text);
            }
            Delta::Refusal { text } => self.text(false, text),
            Delta::Reasoning { text } if self.shows_thoughts => self.text(true, text),
            Delta::ReasoningSignature { signature } => {
                self.settle();
                self.parts.sealed(signature, self.shows_thoughts);
            }
            Delta::ToolCallStart { index, id, name } => {
                self.settle();
                let call = ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    arguments: String::new(),
                };
                self.call = Some((*index, call));
            }
            Delta::ToolCallArguments { index, fragment } => {
                // Calls come one after the other at every provider.
                if let Some((open, call)) = &mut self.call
                    && open == index
                {
                    call.arguments.push_str(fragment);
                }
            }
            Delta::Reasoning { .. } | Delta::StopSequence { .. } => {}
        }
        if self.parts.list.is_empty() {
            return None;
        }
        let mut candidate = self.begun();
        candidate.insert("index".to_owned(), self.index.into());
        if !self.logprobs.is_empty() {
            let logprobs = logprobs_result(&std::mem::take(&mut self.logprobs));
            candidate.insert("logprobsResult".to_owned(), logprobs);
        }
        Some(candidate.into())
    }

    /// The last piece of a choice whose end was held back.
    pub(super) fn end_if_finished(&mut self) -> Option<Value> {
        let reason = self.finish.take().filter(|_| !self.has_ended)?;
        self.has_ended = true;
        self.settle();
        self.parts.end();
        let mut candidate = match (self.parts.list.is_empty(), reason) {
            (true, FinishReason::ContentFilter) => Map::new(),
            _ => self.begun(),
        };
        end_fields(
            &mut candidate,
            reason,
            self.index,
            (self.logprob_sum, self.logprob_count),
            &self.logprobs,
        );
        Some(candidate.into())
    }

    fn begun(&mut self) -> Map<String, Value> {
        let content = content(std::mem::take(&mut self.parts.list));
        Map::from_iter([("content".to_owned(), content)])
    }

    fn text(&mut self, is_thought: bool, text: &str) {
        if self.call.is_some() || self.held.as_ref().is_some_and(|held| held.0 != is_thought) {
            self.settle();
        }
        let (_, mut said) = self.held.take().unwrap_or_default();
        said.push_str(text);
        let Some(last) = said.pop() else { return };
        self.parts.text(is_thought, said);
        self.held = Some((is_thought, last.into()));
    }

    /// Makes parts of what was held back.
    fn settle(&mut self) {
        if let Some((is_thought, text)) = self.held.take() {
            self.parts.text(is_thought, text);
        }
        if let Some((_, call)) = self.call.take() {
            self.parts.call(&call);
        }
    }

    fn note(&mut self, logprobs: &[TokenLogprob]) {
        for token in logprobs {
            self.logprob_sum += number(token.logprob);
            self.logprob_count += 1;
        }
        self.logprobs.extend_from_slice(logprobs);
    }
}

/// A choice that is there as a whole.
pub(super) fn whole_candidate(choice: &Choice, shows_thoughts: bool) -> Value {
    let message = &choice.message;
    let mut parts = Parts::default();
    if let Some(reasoning) = message.reasoning.as_ref().filter(|_| shows_thoughts) {
        parts.text(true, reasoning.clone());
    }
    if let Some(signature) = &message.reasoning_signature {
        parts.sealed(signature, shows_thoughts);
    }
    parts.text(false, message.joined_text());
    parts.text(false, message.refusal.clone().unwrap_or_default());
    for call in &message.tool_calls {
        parts.call(call);
    }
    parts.end();
    let mut candidate = Map::new();
    if !parts.list.is_empty() || choice.finish_reason != FinishReason::ContentFilter {
        candidate.insert("content".to_owned(), content(parts.list));
    }
    let logprobs = choice.logprobs.as_deref().unwrap_or_default();
    let sum = logprobs.iter().map(|token| number(token.logprob)).sum();
    let count = u32::try_from(logprobs.len()).unwrap_or(u32::MAX);
    end_fields(
        &mut candidate,
        choice.finish_reason,
        choice.index,
        (sum, count),
        logprobs,
    );
    candidate.into()
}

/// Parts in order, and a signature that waits for the next one.
#[derive(Debug, Default)]
struct Parts {
    list: Vec<Value>,
    seal: Option<String>,
}

impl Parts {
    fn text(&mut self, is_thought: bool, text: String) {
        if text.is_empty() {
            return;
        }
        let mut part = json!({"text": text});
        if is_thought {
            part["thought"] = true.into();
        } else if let Some(seal) = self.seal.take() {
            part["thoughtSignature"] = seal.into();
        }
        self.list.push(part);
    }

    fn call(&mut self, call: &ToolCall) {
        let mut part = json!({
            "functionCall": {"id": call.id, "name": call.name, "args": args(&call.arguments)},
        });
        match call_id::decode(&call.id).signature {
            Some(own) => {
                self.end();
                part["thoughtSignature"] = own.into();
            }
            None => {
                if let Some(seal) = self.seal.take() {
                    part["thoughtSignature"] = seal.into();
                }
            }
        }
        self.list.push(part);
    }

    /// Gemini's own seals come as they were, on the part after the thoughts, where Gemini has them. Those of others stand
    /// on the thoughts themselves, because without these they are of no use; they have their maker's name and are in
    /// base64, because the field is bytes.
    fn sealed(&mut self, signature: &ReasoningSignature, shows_thoughts: bool) {
        match signature.of("gemini") {
            Some(own) => self.seal = Some(own.to_owned()),
            None if shows_thoughts => {
                let seal = BASE64.encode(signature.0.as_bytes());
                match self.list.last_mut() {
                    Some(thought) if thought["thought"] == true => {
                        thought["thoughtSignature"] = seal.into();
                    }
                    _ => self.seal = Some(seal),
                }
            }
            None => {}
        }
    }

    /// A signature that no part takes has one of its own.
    fn end(&mut self) {
        if let Some(seal) = self.seal.take() {
            let part = json!({"text": "", "thoughtSignature": seal});
            self.list.push(part);
        }
    }
}

/// A content of the model. One of nothing has an empty text, because clients read the first part unasked.
fn content(mut parts: Vec<Value>) -> Value {
    if parts.is_empty() {
        parts.push(json!({"text": ""}));
    }
    json!({"role": "model", "parts": parts})
}

fn end_fields(
    candidate: &mut Map<String, Value>,
    reason: FinishReason,
    index: u32,
    (logprob_sum, logprob_count): (f64, u32),
    logprobs: &[TokenLogprob],
) {
    let word = match reason {
        FinishReason::Stop | FinishReason::ToolCalls => "STOP",
        FinishReason::Length => "MAX_TOKENS",
        FinishReason::ContentFilter => "SAFETY",
    };
    candidate.insert("finishReason".to_owned(), word.into());
    candidate.insert("index".to_owned(), index.into());
    if logprob_count > 0 {
        let average = logprob_sum / f64::from(logprob_count);
        candidate.insert("avgLogprobs".to_owned(), average.into());
    }
    if !logprobs.is_empty() {
        candidate.insert("logprobsResult".to_owned(), logprobs_result(logprobs));
    }
}

fn logprobs_result(logprobs: &[TokenLogprob]) -> Value {
    let one =
        |token: &str, logprob: f32| json!({"token": token, "logProbability": number(logprob)});
    let chosen: Vec<Value> = logprobs
        .iter()
        .map(|token| one(&token.token, token.logprob))
        .collect();
    let mut result = json!({"chosenCandidates": chosen});
    if logprobs.iter().any(|token| !token.top.is_empty()) {
        let top: Vec<Value> = logprobs
            .iter()
            .map(|token| {
                let top = token.top.iter();
                let top: Vec<Value> = top.map(|(text, _, logprob)| one(text, *logprob)).collect();
                json!({"candidates": top})
            })
            .collect();
        result["topCandidates"] = top.into();
    }
    result
}

/// A log probability with the digits that it has, and not those of its conversion.
fn number(logprob: f32) -> f64 {
    let logprob = logprob.max(LOGPROB_MIN);
    logprob.to_string().parse().unwrap_or(f64::from(logprob))
}

/// A call's arguments as the object that the dialect wants; a length limit may have cut them.
fn args(arguments: &str) -> Value {
    match serde_json::from_str(arguments) {
        Ok(Value::Object(args)) => Value::Object(args),
        _ if arguments.trim().is_empty() => json!({}),
        _ => json!({"INVALID_JSON": arguments}),
    }
}

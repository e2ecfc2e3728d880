//! Streamed answers.
//!
//! Google has no last event: an answer has ended when its bytes have, and `finishReason` may come with every chunk. So
//! `Finish` and `Done` wait for the end.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{call_id, error};
use crate::chat::{Delta, FinishReason, ReasoningSignature, TokenLogprob};
use crate::sse;
use crate::upstream::{AnswerDecoder, AnswerEnd, AnswerEvent, Failure, FailureKind};
use crate::usage::BilledUsage;

/// The largest event an upstream may send, bytes. Images that it makes come inline.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What stands for a log probability that no number can say: JSON has no infinity.
const LOGPROB_MIN: f32 = -9999.0;

type Events = Vec<Result<AnswerEvent, Failure>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk {
    candidates: Option<Vec<Candidate>>,
    prompt_feedback: Option<PromptFeedback>,
    usage_metadata: Option<UsageMetadata>,
    response_id: Option<String>,
    error: Option<error::GoogleError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    index: Option<u32>,
    content: Option<Content>,
    finish_reason: Option<String>,
    logprobs_result: Option<LogprobsResult>,
}

#[derive(Deserialize)]
struct Content {
    parts: Option<Vec<Part>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    text: Option<String>,
    thought: Option<bool>,
    function_call: Option<FunctionCall>,
    thought_signature: Option<String>,
}

#[derive(Deserialize)]
struct FunctionCall {
    id: Option<String>,
    name: String,
    args: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogprobsResult {
    chosen_candidates: Option<Vec<LogprobsCandidate>>,
    top_candidates: Option<Vec<TopCandidates>>,
}

#[derive(Deserialize)]
struct TopCandidates {
    candidates: Option<Vec<LogprobsCandidate>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogprobsCandidate {
    token: Option<String>,
    log_probability: Option<f32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsageMetadata {
    prompt_token_count: Option<Value>,
    cached_content_token_count: Option<Value>,
    candidates_token_count: Option<Value>,
    thoughts_token_count: Option<Value>,
    tool_use_prompt_token_count: Option<Value>,
}

impl UsageMetadata {
    /// Facts 5.5.
    fn billed(&self) -> BilledUsage {
        // Counts beyond 32 bits are nonsense, and sums of those within can't overflow.
        let count = |tokens: &Option<Value>| {
            let tokens = tokens.as_ref().and_then(Value::as_u64);
            tokens
                .filter(|tokens| *tokens <= u64::from(u32::MAX))
                .unwrap_or(0)
        };
        BilledUsage {
            input_tokens: count(&self.prompt_token_count)
                + count(&self.tool_use_prompt_token_count),
            cache_read_tokens: count(&self.cached_content_token_count),
            output_tokens: count(&self.candidates_token_count) + count(&self.thoughts_token_count),
            reasoning_tokens: count(&self.thoughts_token_count),
            ..BilledUsage::default()
        }
    }
}

/// What is known of one choice.
#[derive(Debug, Default)]
struct Choice {
    calls: u32,
    finish: Option<FinishReason>,
}

/// Reads one answer.
#[derive(Debug)]
pub(super) struct GeminiDecoder {
    events: sse::Decoder,
    choices: BTreeMap<u32, Choice>,
    /// Calls of all choices: their number makes ids that differ.
    calls: u32,
    response_id: Option<String>,
    usage: Option<BilledUsage>,
    ended: bool,
}

impl GeminiDecoder {
    pub(super) fn new() -> Self {
        GeminiDecoder {
            events: sse::Decoder::new(EVENT_BYTES_MAX),
            choices: BTreeMap::new(),
            calls: 0,
            response_id: None,
            usage: None,
            ended: false,
        }
    }

    fn read(&mut self, event: &sse::Event, out: &mut Events) {
        if self.ended {
            return;
        }
        let data = event.data.as_bytes();
        if let Err(failure) = self.chunk(data, out) {
            self.ended = true;
            out.push(Err(failure));
        }
    }

    fn chunk(&mut self, data: &[u8], out: &mut Events) -> Result<(), Failure> {
        let chunk: Chunk = match serde_json::from_slice(data) {
            Ok(chunk) => chunk,
            Err(_) => {
                return Err(match error::of_body(data) {
                    Some(error) => error.failure(None, &|_| None),
                    None => Failure::malformed(),
                });
            }
        };
        if let Some(error) = chunk.error {
            return Err(error.failure(None, &|_| None));
        }
        if let Some(usage) = chunk.usage_metadata {
            // Running totals: repeated, never to be added.
            self.usage = Some(self.usage.unwrap_or_default().max(usage.billed()));
        }
        if let Some(id) = chunk.response_id.filter(|id| !id.is_empty()) {
            self.response_id = Some(id);
        }
        if let Some(reason) = chunk
            .prompt_feedback
            .and_then(|feedback| feedback.block_reason)
        {
            let message = format!("the prompt was blocked: {reason}");
            return Err(Failure::new(FailureKind::Filtered, &message));
        }
        for candidate in chunk.candidates.unwrap_or_default() {
            self.candidate(candidate, out)?;
        }
        Ok(())
    }

    fn candidate(&mut self, candidate: Candidate, out: &mut Events) -> Result<(), Failure> {
        let choice = candidate.index.unwrap_or(0);
        self.choices.entry(choice).or_default();
        let mut logprobs = candidate
            .logprobs_result
            .map(token_logprobs)
            .unwrap_or_default();
        let parts = candidate.content.and_then(|content| content.parts);
        let mut deltas = Vec::new();
        for part in parts.unwrap_or_default() {
            if let Some(text) = part.text.filter(|text| !text.is_empty()) {
                deltas.push(match part.thought {
                    Some(true) => Delta::Reasoning { text },
                    _ => Delta::Text {
                        text,
                        logprobs: std::mem::take(&mut logprobs),
                    },
                });
            }
            let signature = part.thought_signature.filter(|seal| !seal.is_empty());
            match (part.function_call, signature) {
                (Some(call), signature) => {
                    self.call(choice, call, signature.as_deref(), &mut deltas);
                }
                (None, Some(seal)) => deltas.push(Delta::ReasoningSignature {
                    signature: ReasoningSignature::new("gemini", &seal),
                }),
                (None, None) => {}
            }
        }
        if !logprobs.is_empty() {
            deltas.push(Delta::Text {
                text: String::new(),
                logprobs,
            });
        }
        out.extend(
            deltas
                .into_iter()
                .map(|delta| Ok(AnswerEvent::Delta { choice, delta })),
        );
        if let Some(word) = candidate.finish_reason {
            let finish = finish_reason(&word)?;
            self.choices.entry(choice).or_default().finish = Some(finish);
        }
        Ok(())
    }

    fn call(
        &mut self,
        choice: u32,
        call: FunctionCall,
        signature: Option<&str>,
        deltas: &mut Vec<Delta>,
    ) {
        let id = call_id::encode(
            call.id.as_deref().filter(|id| !id.is_empty()),
            self.response_id.as_deref(),
            self.calls,
            signature,
        );
        self.calls += 1;
        let calls = &mut self.choices.entry(choice).or_default().calls;
        let index = *calls;
        *calls += 1;
        deltas.push(Delta::ToolCallStart {
            index,
            id,
            name: call.name,
        });
        deltas.push(Delta::ToolCallArguments {
            index,
            fragment: match &call.args {
                Some(args) if args.get() != "null" => args.get().to_owned(),
                _ => "{}".to_owned(),
            },
        });
    }

    fn end(&mut self, out: &mut Events) {
        self.ended = true;
        let finishes: Option<Vec<_>> = self
            .choices
            .iter()
            .map(|(choice, state)| Some((*choice, state.calls > 0, state.finish?)))
            .collect();
        let Some(finishes) = finishes.filter(|finishes| !finishes.is_empty()) else {
            out.push(Err(Failure::cut_short()));
            return;
        };
        for (choice, has_calls, reason) in finishes {
            let reason = match reason {
                FinishReason::Stop if has_calls => FinishReason::ToolCalls,
                reason => reason,
            };
            out.push(Ok(AnswerEvent::Finish { choice, reason }));
        }
        out.push(Ok(AnswerEvent::Done(AnswerEnd {
            usage: self.usage,
            // protobuf leaves zeros out: no counter is a zero.
            cache_reported: self.usage.is_some(),
            ..AnswerEnd::default()
        })));
    }
}

impl AnswerDecoder for GeminiDecoder {
    fn push(&mut self, bytes: &[u8]) -> Events {
        let mut out = Vec::new();
        if self.ended {
            return out;
        }
        match self.events.push(bytes) {
            Ok(events) => {
                for event in events {
                    self.read(&event, &mut out);
                }
            }
            Err(_) => {
                self.ended = true;
                out.push(Err(Failure::malformed()));
            }
        }
        out
    }

    fn finish(&mut self) -> Events {
        let mut out = Vec::new();
        if self.ended {
            return out;
        }
        if let Some(event) = self.events.finish() {
            self.read(&event, &mut out);
        }
        if !self.ended {
            self.end(&mut out);
        }
        out
    }

    fn usage_so_far(&self) -> Option<BilledUsage> {
        self.usage
    }
}

/// A call that the model wrote wrongly is a failure, because there is nothing to answer with and another attempt often
/// does better. Words not known here end an answer as well as `STOP` does.
fn finish_reason(word: &str) -> Result<FinishReason, Failure> {
    match word {
        "MAX_TOKENS" => Ok(FinishReason::Length),
        "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION"
        | "MODEL_ARMOR" => Ok(FinishReason::ContentFilter),
        "MALFORMED_FUNCTION_CALL"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS"
        | "MISSING_THOUGHT_SIGNATURE"
        | "MALFORMED_RESPONSE" => Err(Failure::new(
            FailureKind::ServerError,
            &format!("the answer ended with {word}"),
        )),
        _ => Ok(FinishReason::Stop),
    }
}

fn token_logprobs(result: LogprobsResult) -> Vec<TokenLogprob> {
    let mut tops = result.top_candidates.unwrap_or_default().into_iter();
    result
        .chosen_candidates
        .unwrap_or_default()
        .into_iter()
        .map(|chosen| {
            let top = tops
                .next()
                .and_then(|top| top.candidates)
                .unwrap_or_default();
            let (token, bytes, logprob) = token_of(chosen);
            TokenLogprob {
                token,
                bytes,
                logprob,
                top: top.into_iter().map(token_of).collect(),
            }
        })
        .collect()
}

fn token_of(candidate: LogprobsCandidate) -> (String, Vec<u8>, f32) {
    let token = candidate.token.unwrap_or_default();
    let bytes = token.clone().into_bytes();
    // protobuf leaves zeros out, and the logarithm of a certain token's probability is zero.
    let logprob = Some(candidate.log_probability.unwrap_or(0.0));
    let logprob = logprob.filter(|logprob| logprob.is_finite());
    (token, bytes, logprob.unwrap_or(LOGPROB_MIN))
}

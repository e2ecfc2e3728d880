//! Answers, whole and as streams.

mod candidate;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value, json};

use self::candidate::{Candidate, whole_candidate};
use super::error;
use crate::chat::{ChatEvent, ChatHead, ChatResponse, FinishReason};
use crate::dialect::AnswerWriter;
use crate::error::ApiError;
use crate::usage::Usage;

/// Ends a line of a stream.
const LINE_END: &str = "\r\n";

/// How a stream's chunks are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamForm {
    /// As server-sent events (`alt=sse`).
    Sse,
    /// As elements of a JSON array.
    Array,
}

/// Writes one answer as a response, or as a stream of them.
#[derive(Debug)]
pub struct Writer {
    form: StreamForm,
    shows_thoughts: bool,
    id: String,
    model: String,
    candidates: BTreeMap<u32, Candidate>,
    /// Whether an element has been written.
    has_elements: bool,
}

impl Writer {
    /// With `shows_thoughts`, the model's thoughts are parts of the answer.
    pub fn new(form: StreamForm, shows_thoughts: bool) -> Self {
        Writer {
            form,
            shows_thoughts,
            id: String::new(),
            model: String::new(),
            candidates: BTreeMap::new(),
            has_elements: false,
        }
    }

    fn candidate(&mut self, index: u32) -> &mut Candidate {
        let shows_thoughts = self.shows_thoughts;
        self.candidates
            .entry(index)
            .or_insert_with(|| Candidate::new(index, shows_thoughts))
    }

    /// Ends those of which the end was held back.
    fn end_finished(&mut self, out: &mut BytesMut) {
        let finished: Vec<Value> = self
            .candidates
            .values_mut()
            .filter_map(Candidate::end_if_finished)
            .collect();
        for candidate in finished {
            self.chunk(vec![candidate], None, out);
        }
    }

    fn chunk(&mut self, candidates: Vec<Value>, usage: Option<Value>, out: &mut BytesMut) {
        let chunk = response(candidates, usage, &self.model, &self.id);
        self.element(&chunk, out);
    }

    fn element(&mut self, element: &Value, out: &mut BytesMut) {
        let text = on_one_line(element.to_string());
        match self.form {
            StreamForm::Sse => {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(LINE_END.as_bytes());
                out.extend_from_slice(LINE_END.as_bytes());
            }
            StreamForm::Array => {
                if std::mem::replace(&mut self.has_elements, true) {
                    out.extend_from_slice(b",");
                    out.extend_from_slice(LINE_END.as_bytes());
                }
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
}

impl AnswerWriter for Writer {
    fn whole(&mut self, answer: &ChatResponse) -> Bytes {
        let choices = answer.choices.iter();
        let candidates = choices
            .map(|choice| whole_candidate(choice, self.shows_thoughts))
            .collect();
        let usage = Some(usage_metadata(&answer.usage));
        let id = response_id(&answer.id);
        on_one_line(response(candidates, usage, &answer.model, id).to_string()).into()
    }

    /// Counts come with the last chunk only: before an upstream has reported them they would be guesses, and clients add
    /// up what changes from chunk to chunk.
    fn begin(&mut self, head: &ChatHead, _usage: &Usage) -> Bytes {
        response_id(&head.id).clone_into(&mut self.id);
        self.model.clone_from(&head.model);
        match self.form {
            StreamForm::Sse => Bytes::new(),
            StreamForm::Array => Bytes::from_static(b"["),
        }
    }

    fn event(&mut self, event: &ChatEvent) -> Bytes {
        let mut out = BytesMut::new();
        match event {
            ChatEvent::Delta { choice, delta } => {
                self.end_finished(&mut out);
                if let Some(candidate) = self.candidate(*choice).delta(delta) {
                    self.chunk(vec![candidate], None, &mut out);
                }
            }
            ChatEvent::Finish { choice, reason } => {
                self.end_finished(&mut out);
                self.candidate(*choice).finish = Some(*reason);
            }
            ChatEvent::Done { usage, .. } => {
                if self.candidates.is_empty() {
                    self.candidate(0).finish = Some(FinishReason::Stop);
                }
                let last = self.candidates.values_mut();
                let last = last.filter_map(Candidate::end_if_finished).collect();
                self.chunk(last, Some(usage_metadata(usage)), &mut out);
            }
            ChatEvent::Wire(_) => {}
        }
        out.freeze()
    }

    fn keep_alive(&mut self) -> Bytes {
        match self.form {
            // An event of nothing. Google's clients take a comment for a broken chunk.
            StreamForm::Sse => Bytes::from_static(b"\r\n\r\n"),
            StreamForm::Array => Bytes::from_static(b"\r\n"),
        }
    }

    fn error(&mut self, error: &ApiError) -> Bytes {
        let mut out = BytesMut::new();
        self.element(&error::body(error), &mut out);
        out.extend_from_slice(&self.end());
        out.freeze()
    }

    fn end(&mut self) -> Bytes {
        match self.form {
            StreamForm::Sse => Bytes::new(),
            StreamForm::Array => Bytes::from_static(b"]"),
        }
    }

    fn stream_type(&self) -> &'static str {
        match self.form {
            StreamForm::Sse => "text/event-stream",
            StreamForm::Array => "application/json",
        }
    }
}

fn response(candidates: Vec<Value>, usage: Option<Value>, model: &str, id: &str) -> Value {
    let mut response = Map::new();
    response.insert("candidates".to_owned(), candidates.into());
    if let Some(usage) = usage {
        response.insert("usageMetadata".to_owned(), usage);
    }
    response.insert("modelVersion".to_owned(), model.into());
    response.insert("responseId".to_owned(), id.into());
    response.into()
}

/// Counts by Google's convention: cached tokens are among the prompt's, thoughts are not among the candidates'. Zeros
/// are left out where Google leaves them out.
fn usage_metadata(usage: &Usage) -> Value {
    let thoughts = usage.reasoning_tokens.min(usage.output_tokens);
    let details = |tokens: u64| json!([{"modality": "TEXT", "tokenCount": tokens}]);
    let mut counts = json!({
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - thoughts,
        "totalTokenCount": usage.total_tokens(),
    });
    if usage.cached_input_tokens > 0 {
        counts["cachedContentTokenCount"] = usage.cached_input_tokens.into();
        counts["cacheTokensDetails"] = details(usage.cached_input_tokens);
    }
    counts["promptTokensDetails"] = details(usage.input_tokens);
    if thoughts > 0 {
        counts["thoughtsTokenCount"] = thoughts.into();
    }
    counts
}

fn response_id(id: &str) -> &str {
    id.strip_prefix("chatcmpl-").unwrap_or(id)
}

/// Some clients end lines at more than JSON escapes.
fn on_one_line(json: String) -> String {
    if !json.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
        return json;
    }
    // Such a symbol can only stand in a string, where its escape means the same.
    json.replace('\u{85}', "\\u0085")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

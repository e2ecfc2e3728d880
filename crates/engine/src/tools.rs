//! Answer text to deltas: thinking, tool calls, plain text.
//!
//! Text is passed on as soon as it cannot be the beginning of anything else. What looked like a tool call and turns out
//! malformed is given back as the text it was. The deltas, joined, do not depend on how the text was cut.

mod call;
mod forced;
#[cfg(test)]
mod tests;

use holdfast_protocol::chat::Delta;

use self::call::{Call, Value, ValueEnd};
use self::forced::ForcedCall;
use crate::sampling::SplitMix64;

/// How tool calls are looked for in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToolOutput {
    /// The answer is text, whatever it looks like.
    #[default]
    None,
    /// The same, and thinking is text too: the prompt was no chat.
    Raw,
    /// The answer is one call, as `Grammar::ToolCalls` forces it.
    Forced,
    /// The answer is text in which the model may call tools in the notation it was trained on: `<tool_call>` (Hermes,
    /// Qwen), `[TOOL_CALLS]` (Mistral), `<|python_tag|>` or bare JSON (Llama). Bare JSON counts only as the whole
    /// answer; it is also what remains of the others when their marker is a control token without text.
    Auto,
}

/// Makes call ids.
pub type NewCallId = Box<dyn FnMut() -> String + Send>;

const THINK: &str = "<think>";
const THINK_END: &str = "</think>";
const TOOL_CALL: &str = "<tool_call>";
const TOOL_CALL_END: &str = "</tool_call>";
const MARKERS: [&str; 3] = [TOOL_CALL, "[TOOL_CALLS]", "<|python_tag|>"];

/// Turns an answer's text into deltas as it arrives.
pub struct ToolParser {
    output: ToolOutput,
    new_id: NewCallId,
    state: State,
    /// Text not decided about yet.
    pending: String,
    /// Whether spaces and line breaks at the beginning of `pending` are dropped, as after a thinking block.
    drop_space: bool,
    calls: u32,
    deltas: Vec<Delta>,
}

enum State {
    /// Nothing but white space so far.
    Start,
    /// Inside a thinking block.
    Thinking,
    /// Before the first character of the answer proper.
    Answer,
    /// Text that may contain calls.
    Text,
    /// Text that is passed on as it is.
    Plain,
    /// `pending` begins with a marker of this length in bytes, and then a call.
    Marked { marker: usize, value: ValueEnd },
    /// A call was read; the marker that ends it may follow.
    Called,
    /// `pending` is all of an answer that may be nothing but calls in bare JSON.
    Bare { calls: Vec<Call>, value: ValueEnd },
    /// The answer is a call.
    Forced(ForcedCall),
}

/// Whether a step decided something.
enum Step {
    Again,
    NeedMore,
}

impl ToolParser {
    /// `new_id` makes the ids of calls; [`call_ids`] is the usual one.
    pub fn new(output: ToolOutput, new_id: NewCallId) -> Self {
        ToolParser {
            output,
            new_id,
            state: match output {
                ToolOutput::Raw => State::Plain,
                _ => State::Start,
            },
            pending: String::new(),
            drop_space: false,
            calls: 0,
            deltas: Vec::new(),
        }
    }

    /// Says whether the prompt ended inside a thinking block, so that the answer begins there: see [`opens_thinking`].
    #[must_use]
    pub fn thinking_already(mut self, thinking: bool) -> Self {
        if thinking && self.output != ToolOutput::Raw {
            self.state = State::Thinking;
            self.drop_space = true;
        }
        self
    }

    /// Adds text.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        self.pending.push_str(text);
        while let Step::Again = self.step() {}
        std::mem::take(&mut self.deltas)
    }

    /// What was held back, and whether the answer has tool calls.
    pub fn finish(mut self) -> (Vec<Delta>, bool) {
        while let Step::Again = self.step() {}
        loop {
            match std::mem::replace(&mut self.state, State::Plain) {
                // A call whose end never came is text, and further calls may be hidden in it.
                State::Marked { marker, .. } => {
                    self.pass(marker);
                    self.state = State::Text;
                    while let Step::Again = self.step() {}
                }
                State::Bare { calls, value } if !calls.is_empty() && value.is_before() => {
                    self.pending.clear();
                    for call in calls {
                        self.call(call);
                    }
                    break;
                }
                State::Bare { .. } => {
                    self.state = State::Text;
                    while let Step::Again = self.step() {}
                }
                State::Thinking => {
                    let end = self.pending.trim_end().len();
                    let thought = self.pending[..end].to_owned();
                    self.pending.clear();
                    self.think(thought);
                    break;
                }
                State::Text if self.calls > 0 && self.pending.trim().is_empty() => break,
                State::Called => break,
                State::Forced(forced) => {
                    if !forced.has_started() {
                        self.pass(self.pending.len());
                    }
                    break;
                }
                State::Start | State::Answer | State::Text | State::Plain => {
                    self.pass(self.pending.len());
                    break;
                }
            }
        }
        (self.deltas, self.calls > 0)
    }

    fn step(&mut self) -> Step {
        if self.drop_space {
            let space = self.pending.len() - self.pending.trim_start().len();
            self.pending.drain(..space);
            self.drop_space = self.pending.is_empty();
        }
        match &mut self.state {
            State::Start => self.step_start(),
            State::Thinking => self.step_thinking(),
            State::Answer => self.step_answer(),
            State::Text => self.step_text(),
            State::Plain => {
                self.pass(self.pending.len());
                Step::NeedMore
            }
            State::Marked { .. } => self.step_marked(),
            State::Called => self.step_called(),
            State::Bare { .. } => self.step_bare(),
            State::Forced(_) => self.step_forced(),
        }
    }

    fn step_start(&mut self) -> Step {
        let text = self.pending.trim_start();
        if let Some(thought) = text.strip_prefix(THINK) {
            self.pending = thought.to_owned();
            self.drop_space = true;
            self.state = State::Thinking;
        } else if THINK.starts_with(text) {
            return Step::NeedMore;
        } else {
            self.state = State::Answer;
        }
        Step::Again
    }

    fn step_thinking(&mut self) -> Step {
        if let Some(at) = self.pending.find(THINK_END) {
            let thought = self.pending[..at].trim_end().to_owned();
            self.pending.drain(..at + THINK_END.len());
            self.think(thought);
            self.drop_space = true;
            self.state = State::Answer;
            return Step::Again;
        }
        let keep = held_back(&self.pending, &[THINK_END]);
        let thought: String = self.pending.drain(..keep).collect();
        self.think(thought);
        Step::NeedMore
    }

    fn step_answer(&mut self) -> Step {
        self.state = match (self.output, self.pending.trim_start().chars().next()) {
            (_, None) => return Step::NeedMore,
            (ToolOutput::None | ToolOutput::Raw, _) => State::Plain,
            (ToolOutput::Forced, _) => State::Forced(ForcedCall::default()),
            (ToolOutput::Auto, Some('{' | '[')) => State::Bare {
                calls: Vec::new(),
                value: ValueEnd::after(0),
            },
            (ToolOutput::Auto, _) => State::Text,
        };
        Step::Again
    }

    fn step_text(&mut self) -> Step {
        let found = MARKERS
            .iter()
            .filter_map(|marker| Some((self.pending.find(marker)?, marker.len())))
            .min();
        let Some((at, marker)) = found else {
            let keep = held_back(&self.pending, &MARKERS);
            self.pass(keep);
            return Step::NeedMore;
        };
        // White space before a call belongs to the call's notation, if it is one: it stays with the marker.
        let text = self.pending[..at].trim_end().len();
        self.pass(text);
        let marker = at - text + marker;
        self.state = State::Marked {
            marker,
            value: ValueEnd::after(marker),
        };
        Step::Again
    }

    fn step_marked(&mut self) -> Step {
        let State::Marked { marker, value } = &mut self.state else {
            return Step::NeedMore;
        };
        let marker = *marker;
        let calls = match value.find(&self.pending) {
            Value::Incomplete => return Step::NeedMore,
            Value::None => None,
            Value::Ends(range) => {
                Call::parse_all(&self.pending[range.clone()]).map(|calls| (calls, range.end))
            }
        };
        match calls {
            Some((calls, end)) => {
                self.pending.drain(..end);
                for call in calls {
                    self.call(call);
                }
                self.state = State::Called;
            }
            None => {
                self.pass(marker);
                self.state = State::Text;
            }
        }
        Step::Again
    }

    fn step_called(&mut self) -> Step {
        let text = self.pending.trim_start();
        if let Some(rest) = text.strip_prefix(TOOL_CALL_END) {
            self.pending = rest.to_owned();
        } else if TOOL_CALL_END.starts_with(text) {
            return Step::NeedMore;
        } else if let Some(rest) = text.strip_prefix(';') {
            // Llama separates calls behind one marker by semicolons.
            match rest.trim_start().chars().next() {
                None => return Step::NeedMore,
                Some('{') => {
                    self.state = State::Marked {
                        marker: 0,
                        value: ValueEnd::after(0),
                    };
                    return Step::Again;
                }
                Some(_) => {}
            }
        }
        self.drop_space = true;
        self.state = State::Text;
        Step::Again
    }

    fn step_bare(&mut self) -> Step {
        let State::Bare { calls, value } = &mut self.state else {
            return Step::NeedMore;
        };
        match value.find(&self.pending) {
            Value::Incomplete if !calls.is_empty() || value.may_be_call(&self.pending) => {
                return Step::NeedMore;
            }
            Value::Ends(range) => {
                if let Some(more) = Call::parse_all(&self.pending[range.clone()]) {
                    calls.extend(more);
                    *value = ValueEnd::after(range.end);
                    return Step::Again;
                }
            }
            Value::Incomplete | Value::None => {}
        }
        // Something else: text, in which marked calls may still come.
        self.state = State::Text;
        Step::Again
    }

    fn step_forced(&mut self) -> Step {
        let State::Forced(forced) = &mut self.state else {
            return Step::NeedMore;
        };
        let index = self.calls.saturating_sub(u32::from(forced.has_started()));
        match forced.read(&mut self.pending) {
            Ok(news) => {
                if let Some(name) = news.name {
                    self.calls += 1;
                    self.deltas.push(Delta::ToolCallStart {
                        index,
                        id: (self.new_id)(),
                        name,
                    });
                }
                if !news.arguments.is_empty() {
                    self.deltas.push(Delta::ToolCallArguments {
                        index,
                        fragment: news.arguments,
                    });
                }
                Step::NeedMore
            }
            Err(forced::NotACall) => {
                self.state = State::Plain;
                Step::Again
            }
        }
    }

    fn think(&mut self, text: String) {
        if !text.is_empty() {
            self.deltas.push(Delta::Reasoning { text });
        }
    }

    /// Passes on the first bytes of `pending` as text.
    fn pass(&mut self, bytes: usize) {
        if bytes > 0 {
            let text = self.pending.drain(..bytes).collect();
            self.deltas.push(Delta::Text {
                text,
                logprobs: Vec::new(),
            });
        }
    }

    fn call(&mut self, call: Call) {
        let index = self.calls;
        self.calls += 1;
        self.deltas.push(Delta::ToolCallStart {
            index,
            id: (self.new_id)(),
            name: call.name,
        });
        self.deltas.push(Delta::ToolCallArguments {
            index,
            fragment: call.arguments,
        });
    }
}

/// How much of `text` can be passed on: all but white space at its end and the beginning of a word after that.
fn held_back(text: &str, words: &[&str]) -> usize {
    let partial = words.iter().filter_map(|word| {
        (1..word.len())
            .rev()
            .find(|length| text.ends_with(&word[..*length]))
    });
    let end = text.len() - partial.max().unwrap_or(0);
    text[..end].trim_end().len()
}

/// Ids of the form `call_` and 24 letters and digits, a different series for each seed.
pub fn call_ids(seed: u64) -> NewCallId {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = SplitMix64::new(seed);
    Box::new(move || {
        let characters = (0..24).map(|_| char::from(ALPHABET[(random.next_u64() % 62) as usize]));
        std::iter::once("call_".to_owned())
            .chain(characters.map(String::from))
            .collect()
    })
}

/// Whether a prompt (its last segment is enough) ends inside a thinking block that its template opened.
pub fn opens_thinking(prompt_end: &str) -> bool {
    prompt_end.trim_end().ends_with(THINK)
}

//! What the emulated model says.

use std::collections::VecDeque;
use std::sync::Mutex;

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Function name.
    pub name: String,
    /// Arguments as JSON text.
    pub arguments: String,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Text, sent in pieces of one word.
    pub text: String,
    /// Thinking text before it.
    pub reasoning: String,
    /// Text in which the model refuses, after the text. OpenAI has a place of its own for it; elsewhere a refusal is
    /// said like anything else.
    pub refusal: String,
    /// Calls after it.
    pub tool_calls: Vec<ToolCall>,
    /// Whether a token limit ended it.
    pub cut: bool,
    /// Whether a filter ended it.
    pub filtered: bool,
}

impl Answer {
    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Answer {
            text: text.into(),
            ..Answer::default()
        }
    }

    /// A refusal and nothing else.
    pub fn refusal(refusal: impl Into<String>) -> Self {
        Answer {
            refusal: refusal.into(),
            ..Answer::default()
        }
    }

    /// One call.
    pub fn call(name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Answer {
            tool_calls: vec![ToolCall {
                name: name.into(),
                arguments: arguments.into(),
            }],
            ..Answer::default()
        }
    }

    /// The text in pieces that join to it: a word with the space before it.
    pub fn pieces(&self) -> Vec<String> {
        let mut pieces: Vec<String> = Vec::new();
        for character in self.text.chars() {
            match pieces.last_mut() {
                Some(last) if character != ' ' => last.push(character),
                _ => pieces.push(character.to_string()),
            }
        }
        pieces
    }
}

/// Answers to come. When none is scripted, the model says how many tokens it was asked, so that answers differ by
/// request and yet are the same for the same request; a forced tool is called with `{}`.
#[derive(Debug, Default)]
pub struct Script {
    next: Mutex<VecDeque<Answer>>,
}

impl Script {
    /// The answer to the next chat that has none scripted yet.
    pub fn next(&self, answer: Answer) {
        self.next.lock().unwrap().push_back(answer);
    }

    /// The answer to a chat of `input_tokens` that must call `forced` (if a tool is forced), a refusal being text.
    pub fn take(&self, input_tokens: u64, forced: Option<&str>) -> Answer {
        let mut answer = self.take_with_refusal(input_tokens, forced);
        answer.text.push_str(&answer.refusal);
        answer.refusal.clear();
        answer
    }

    /// The same for a provider that tells a refusal apart.
    pub fn take_with_refusal(&self, input_tokens: u64, forced: Option<&str>) -> Answer {
        if let Some(answer) = self.next.lock().unwrap().pop_front() {
            return answer;
        }
        match forced {
            Some(name) => Answer::call(name, "{}"),
            None => Answer::text(format!("You sent me {input_tokens} tokens.")),
        }
    }
}

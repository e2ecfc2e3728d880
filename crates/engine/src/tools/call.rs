//! Tool calls as JSON values: where a value ends, and whether it is a call.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A call as the model wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    /// The exact JSON text.
    pub(super) arguments: String,
}

/// The keys models use. Unknown ones (`type`, `id`) are ignored.
#[derive(Deserialize)]
struct Written<'a> {
    name: Option<String>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    function: Option<&'a RawValue>,
}

impl Call {
    /// The call, or the calls in the array, that this JSON text is.
    pub(super) fn parse_all(text: &str) -> Option<Vec<Call>> {
        if text.starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let calls: Option<Vec<Call>> = items
                .into_iter()
                .map(|item| Call::parse(item.get()))
                .collect();
            return calls.filter(|calls| !calls.is_empty());
        }
        Some(vec![Call::parse(text)?])
    }

    fn parse(text: &str) -> Option<Call> {
        let written: Written = serde_json::from_str(text).ok()?;
        if let (None, Some(function)) = (&written.name, written.function) {
            // OpenAI's own form, with the call one level down. One level only: deeper nesting means nothing.
            let inner: Written = serde_json::from_str(function.get()).ok()?;
            return Self::from_parts(inner.name?, inner.arguments.or(inner.parameters)?);
        }
        Self::from_parts(written.name?, written.arguments.or(written.parameters)?)
    }

    fn from_parts(name: String, arguments: &RawValue) -> Option<Call> {
        let text = arguments.get();
        if name.is_empty() {
            return None;
        }
        if text.starts_with('"') {
            // Some models write the arguments as JSON text inside a string.
            let arguments: String = serde_json::from_str(text).ok()?;
            let object: &RawValue = serde_json::from_str(&arguments).ok()?;
            return object.get().starts_with('{').then(|| Call {
                name,
                arguments: object.get().to_owned(),
            });
        }
        text.starts_with('{').then(|| Call {
            name,
            arguments: text.to_owned(),
        })
    }
}

/// What is known of a JSON object or array in growing text.
pub(super) enum Value {
    /// It lies here.
    Ends(Range<usize>),
    /// It has not begun or not ended yet.
    Incomplete,
    /// Something else stands in its place.
    None,
}

/// Finds the end of a JSON object or array in text that only grows, reading each byte once.
pub(super) struct ValueEnd {
    at: usize,
    start: Option<usize>,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl ValueEnd {
    /// Looks from this byte on.
    pub(super) fn after(at: usize) -> Self {
        ValueEnd {
            at,
            start: None,
            depth: 0,
            in_string: false,
            escaped: false,
        }
    }

    /// Whether only white space was read so far.
    pub(super) fn is_before(&self) -> bool {
        self.start.is_none()
    }

    /// Reads what is new in `text`.
    pub(super) fn find(&mut self, text: &str) -> Value {
        for byte in text.as_bytes().iter().skip(self.at) {
            let at = self.at;
            self.at += 1;
            let Some(start) = self.start else {
                match byte {
                    b'{' | b'[' => {
                        self.start = Some(at);
                        self.depth = 1;
                    }
                    // Llama separates calls by semicolons.
                    b' ' | b'\n' | b'\r' | b'\t' | b';' => {}
                    _ => {
                        // Read again next time: the answer stays the same.
                        self.at = at;
                        return Value::None;
                    }
                }
                continue;
            };
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Value::Ends(start..self.at);
                    }
                }
                _ => {}
            }
        }
        Value::Incomplete
    }

    /// Whether the value that has begun could still be a call, judged by its first key, so that ordinary JSON answers
    /// are not held back.
    pub(super) fn may_be_call(&self, text: &str) -> bool {
        let Some(start) = self.start else { return true };
        let object = text[start..].trim_start_matches(['[', ' ', '\n', '\r', '\t']);
        let Some(key) = object.strip_prefix('{') else {
            return object.is_empty();
        };
        let key = key.trim_start();
        [
            "\"name\"",
            "\"type\"",
            "\"id\"",
            "\"function\"",
            "\"arguments\"",
            "\"parameters\"",
        ]
        .iter()
        .any(|known| key.starts_with(known) || known.starts_with(key))
    }
}

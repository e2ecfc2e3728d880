//! What an answer says was used, read beside the bytes on their way to the client.
//!
//! Answers can be of any size (vectors, images), so nothing is kept of them but the value of the top level's field
//! `usage`, up to a bound.

use serde_json::{Map, Value};

use crate::dialect::fields::whole;
use crate::usage::BilledUsage;

/// The longest `usage` that is read, bytes.
const USAGE_BYTES_MAX: usize = 16 * 1024;

const USAGE: &[u8] = b"usage";
const DATA: &[u8] = b"data:";

/// Reads the usage of one answer, whose bytes may be cut anywhere.
#[derive(Debug)]
pub struct UsageWatch {
    form: Form,
    field: FieldWatch,
    usage: Option<BilledUsage>,
}

#[derive(Debug)]
enum Form {
    /// One object.
    Json,
    /// Server-sent events with an object each.
    Events(Line),
    /// Sound, pictures, plain text.
    Opaque,
}

/// Where in a line of an event stream the next byte stands.
#[derive(Debug, Clone, Copy)]
enum Line {
    /// After so many bytes of `data:`.
    Start(usize),
    /// In an event's object.
    Data,
    /// In anything else.
    Other,
}

impl UsageWatch {
    /// For an answer of this media type.
    pub fn new(content_type: &str) -> Self {
        let media_type = content_type.split(';').next().unwrap_or_default();
        let media_type = media_type.trim().to_ascii_lowercase();
        UsageWatch {
            form: match media_type.as_str() {
                "text/event-stream" => Form::Events(Line::Start(0)),
                "application/json" => Form::Json,
                other if other.ends_with("+json") => Form::Json,
                _ => Form::Opaque,
            },
            field: FieldWatch::default(),
            usage: None,
        }
    }

    /// More of the answer.
    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.form {
            Form::Opaque => {}
            Form::Json => {
                for byte in bytes {
                    self.field.push(*byte);
                }
                self.take();
            }
            Form::Events(line) => {
                let mut line = *line;
                for byte in bytes {
                    line = match (line, *byte) {
                        (line, b'\n' | b'\r') => {
                            if let Line::Data = line {
                                self.take();
                            }
                            Line::Start(0)
                        }
                        (Line::Start(seen), byte) if DATA[seen] == byte => {
                            if seen + 1 == DATA.len() {
                                self.field = FieldWatch::default();
                                Line::Data
                            } else {
                                Line::Start(seen + 1)
                            }
                        }
                        (Line::Data, byte) => {
                            self.field.push(byte);
                            Line::Data
                        }
                        (Line::Start(_) | Line::Other, _) => Line::Other,
                    };
                }
                self.form = Form::Events(line);
            }
        }
    }

    /// What has been reported so far. Of repeated reports the larger number of each field counts.
    pub fn usage(&self) -> Option<BilledUsage> {
        self.usage
    }

    /// Whether nothing can follow that changes it.
    pub fn is_over(&self) -> bool {
        matches!(self.form, Form::Json) && self.field.is_over
    }

    fn take(&mut self) {
        let Some(text) = self.field.found.take() else {
            return;
        };
        let report = serde_json::from_slice(&text).ok().and_then(billed);
        self.usage = match (self.usage, report) {
            (Some(known), Some(report)) => Some(known.max(report)),
            (known, report) => report.or(known),
        };
    }
}

/// The counts by either of their two sets of names; `None`: there are none (speech may be charged by the second).
fn billed(usage: Map<String, Value>) -> Option<BilledUsage> {
    let count = |holder: &Map<String, Value>, names: [&str; 2]| {
        let counts = names.into_iter().filter_map(|name| {
            let count = whole(holder.get(name)?.as_number()?)?;
            // Counts beyond 32 bits are nonsense, and sums of those within can't overflow.
            u32::try_from(count).ok().map(u64::from)
        });
        counts.max()
    };
    let input = count(&usage, ["prompt_tokens", "input_tokens"]);
    let output = count(&usage, ["completion_tokens", "output_tokens"]);
    if input.is_none() && output.is_none() {
        return None;
    }
    let details = ["prompt_tokens_details", "input_tokens_details"]
        .into_iter()
        .find_map(|name| usage.get(name)?.as_object());
    let cached = details.and_then(|details| count(details, ["cached_tokens"; 2]));
    Some(BilledUsage {
        input_tokens: input.unwrap_or(0),
        cache_read_tokens: cached.unwrap_or(0),
        output_tokens: output.unwrap_or(0),
        ..BilledUsage::default()
    })
}

/// Finds the field `usage` of an object's top level without reading the rest.
#[derive(Debug, Default)]
struct FieldWatch {
    depth: u64,
    in_string: bool,
    is_escaped: bool,
    /// The next string at the top level is a name.
    awaits_name: bool,
    /// How many bytes of the present name are those of `usage`; `None`: it is another name.
    matched: Option<usize>,
    /// The value of `usage` while it comes.
    value: Option<Vec<u8>>,
    found: Option<Vec<u8>>,
    is_over: bool,
}

impl FieldWatch {
    fn push(&mut self, byte: u8) {
        if self.in_string {
            self.keep(byte);
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => {
                    self.is_escaped = true;
                    self.matched = None;
                }
                b'"' => self.in_string = false,
                byte => {
                    self.matched = self
                        .matched
                        .filter(|at| USAGE.get(*at) == Some(&byte))
                        .map(|at| at + 1);
                }
            }
            return;
        }
        let is_top = self.depth == 1;
        match byte {
            b'"' => {
                self.in_string = true;
                if is_top && std::mem::take(&mut self.awaits_name) {
                    self.matched = Some(0);
                }
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.awaits_name = self.depth == 1 && byte == b'{';
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.is_over = self.depth == 0;
            }
            b',' if is_top => self.awaits_name = true,
            _ => {}
        }
        if is_top && matches!(byte, b',' | b'}' | b']') {
            self.found = self.value.take().or(self.found.take());
        }
        self.keep(byte);
        if is_top && byte == b':' && self.matched.take() == Some(USAGE.len()) {
            self.value = Some(Vec::new());
        }
    }

    /// A value that is too long is none.
    fn keep(&mut self, byte: u8) {
        if let Some(value) = &mut self.value {
            value.push(byte);
            if value.len() > USAGE_BYTES_MAX {
                self.value = None;
            }
        }
    }
}

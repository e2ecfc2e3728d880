//! A forced call, read while it is written: `{"name": "...", "arguments": {...}}`.

/// The text is not what a forced call looks like; nothing of it was used.
pub(super) struct NotACall;

/// What newly read text says.
#[derive(Default)]
pub(super) struct News {
    /// The function's name, once.
    pub(super) name: Option<String>,
    /// More of the arguments' JSON text.
    pub(super) arguments: String,
}

/// The state of reading one call. The name comes whole, the arguments as they are written.
#[derive(Default)]
pub(super) struct ForcedCall {
    started: bool,
    depth: u32,
    in_string: bool,
    escaped: bool,
    ended: bool,
}

impl ForcedCall {
    /// Whether the name has been given out.
    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    /// Reads `pending` and takes from it what was used.
    pub(super) fn read(&mut self, pending: &mut String) -> Result<News, NotACall> {
        let mut news = News::default();
        if !self.started {
            let Some((name, rest)) = opening(pending)? else {
                return Ok(news);
            };
            let used = pending.len() - rest.len();
            pending.drain(..used);
            self.started = true;
            news.name = Some(name);
        }
        let used = self.arguments(pending);
        news.arguments = pending.drain(..used).collect();
        if self.ended {
            // The closing brace of the call, and nothing else that could matter.
            pending.clear();
        }
        Ok(news)
    }

    /// How many bytes at the beginning of `text` are arguments.
    fn arguments(&mut self, text: &str) -> usize {
        for (index, byte) in text.bytes().enumerate() {
            if self.ended {
                return index;
            }
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.ended = self.depth == 0;
                }
                _ => {}
            }
        }
        text.len()
    }
}

/// Reads up to the arguments' opening brace: the name and what comes after, or `None` while more is needed.
fn opening(text: &str) -> Result<Option<(String, &str)>, NotACall> {
    let mut rest = text;
    for expected in ["{", "\"name\"", ":"] {
        match after(rest, expected)? {
            Some(after) => rest = after,
            None => return Ok(None),
        }
    }
    let mut names = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    let name = match names.next() {
        Some(Ok(name)) => name,
        Some(Err(error)) if !error.is_eof() => return Err(NotACall),
        None | Some(Err(_)) => return Ok(None),
    };
    rest = &rest[names.byte_offset()..];
    for expected in [",", "\"arguments\"", ":"] {
        match after(rest, expected)? {
            Some(after) => rest = after,
            None => return Ok(None),
        }
    }
    let arguments = rest.trim_start();
    match arguments.chars().next() {
        Some('{') => Ok(Some((name, arguments))),
        None => Ok(None),
        Some(_) => Err(NotACall),
    }
}

/// What follows `expected` and white space before it; `None` when the text ends too early to tell.
fn after<'a>(text: &'a str, expected: &str) -> Result<Option<&'a str>, NotACall> {
    let text = text.trim_start();
    match text.strip_prefix(expected) {
        Some(rest) => Ok(Some(rest)),
        None if expected.starts_with(text) => Ok(None),
        None => Err(NotACall),
    }
}

//! Bytes of tokens to text: whole UTF-8 characters only, up to the first stop string.
//!
//! What comes out does not depend on where the bytes were cut into tokens.

#[cfg(test)]
mod tests;

/// Turns the bytes of one choice's tokens into text that may be sent.
#[derive(Debug, Clone)]
pub struct TextStream {
    stops: Vec<StopMatcher>,
    /// The beginning of a character whose last bytes have not come yet.
    incomplete: Vec<u8>,
    /// Text that could still turn out to be the beginning of a stop string.
    held: String,
    stopped: bool,
    met: Option<String>,
}

/// What one push gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pushed {
    /// New text; often empty.
    pub text: String,
    /// Whether a stop string was met. Nothing comes after it.
    pub stopped: bool,
}

impl TextStream {
    /// A stream that ends before the first of `stop`. Empty stop strings are ignored.
    pub fn new(stop: Vec<String>) -> Self {
        TextStream {
            stops: stop
                .into_iter()
                .filter(|stop| !stop.is_empty())
                .map(StopMatcher::new)
                .collect(),
            incomplete: Vec::new(),
            held: String::new(),
            stopped: false,
            met: None,
        }
    }

    /// The stop string that ended the text.
    pub fn met(&self) -> Option<&str> {
        self.met.as_deref()
    }

    /// Adds the bytes of a token.
    pub fn push(&mut self, bytes: &[u8]) -> Pushed {
        if self.stopped {
            return Pushed {
                text: String::new(),
                stopped: true,
            };
        }
        self.incomplete.extend_from_slice(bytes);
        let text = self.take_whole_characters();
        self.scan(&text)
    }

    /// The text still held back. A character that was never completed becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        let mut text = String::new();
        if !self.incomplete.is_empty() {
            self.incomplete.clear();
            text = self.scan("\u{FFFD}").text;
        }
        if !self.stopped {
            text.push_str(&self.held);
            self.held.clear();
            self.stopped = true;
        }
        text
    }

    /// Decodes as far as it is certain. Replaces each maximal invalid part by one U+FFFD, as `from_utf8_lossy` does.
    fn take_whole_characters(&mut self) -> String {
        let mut text = String::with_capacity(self.incomplete.len());
        let mut rest = self.incomplete.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(invalid) = error.error_len() else {
                        rest = after;
                        break;
                    };
                    text.push('\u{FFFD}');
                    rest = &after[invalid..];
                }
            }
        }
        self.incomplete = rest.to_vec();
        text
    }

    /// Looks for stop strings in what is held and `text`. The stop string that ends first wins, and of several that end
    /// at the same byte the longest: the only rule that needs no knowledge of later text.
    fn scan(&mut self, text: &str) -> Pushed {
        let held = self.held.len();
        self.held.push_str(text);
        for (index, byte) in text.bytes().enumerate() {
            let mut met = 0;
            for stop in &mut self.stops {
                met = met.max(stop.advance(byte));
            }
            if met > 0 {
                let mut text = std::mem::take(&mut self.held);
                let end = held + index + 1;
                self.met = text.get(end - met..end).map(str::to_owned);
                text.truncate(end - met);
                self.stopped = true;
                return Pushed {
                    text,
                    stopped: true,
                };
            }
        }
        let keep = self
            .stops
            .iter()
            .map(|stop| stop.matched)
            .max()
            .unwrap_or(0);
        let keep = self.held.split_off(self.held.len() - keep);
        Pushed {
            text: std::mem::replace(&mut self.held, keep),
            stopped: false,
        }
    }
}

/// Knuth-Morris-Pratt, so that a long self-similar stop string costs no more per token than a short one.
#[derive(Debug, Clone)]
struct StopMatcher {
    stop: Vec<u8>,
    /// For each matched length minus one: the longest proper prefix that is also a suffix of it.
    borders: Vec<usize>,
    /// How much of the stop string the text read so far ends with.
    matched: usize,
}

impl StopMatcher {
    fn new(stop: String) -> Self {
        let stop = stop.into_bytes();
        let mut borders = vec![0; stop.len()];
        let mut length = 0;
        for index in 1..stop.len() {
            while length > 0 && stop[index] != stop[length] {
                length = borders[length - 1];
            }
            if stop[index] == stop[length] {
                length += 1;
            }
            borders[index] = length;
        }
        StopMatcher {
            stop,
            borders,
            matched: 0,
        }
    }

    /// Reads a byte; the stop string's length in bytes when it completes it, else 0.
    fn advance(&mut self, byte: u8) -> usize {
        while self.matched > 0 && self.stop[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        if self.stop[self.matched] == byte {
            self.matched += 1;
        }
        if self.matched < self.stop.len() {
            return 0;
        }
        // The stream ends here; the matcher is left in a state that is safe to advance all the same.
        self.matched = self.borders[self.matched - 1];
        self.stop.len()
    }
}

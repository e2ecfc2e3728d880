//! Server-sent events, bytes in and bytes out.
//!
//! The decoder follows the WHATWG event stream format, but for `retry` fields, which mean nothing without an
//! EventSource to reconnect.

#[cfg(test)]
mod tests;

use bytes::Bytes;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// The event's name, where it has one.
    pub event: Option<String>,
    /// The event's own id, where it has one.
    pub id: Option<String>,
    /// The data; lines joined by `\n`.
    pub data: String,
}

impl Event {
    /// An event without a name.
    pub fn data(data: impl Into<String>) -> Self {
        Event {
            event: None,
            id: None,
            data: data.into(),
        }
    }
}

/// An event or line grew beyond the decoder's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {event_bytes_max} bytes")]
pub struct EventTooLarge {
    /// The limit, bytes.
    pub event_bytes_max: usize,
}

/// Reads events from bytes that arrive in pieces cut anywhere.
#[derive(Debug)]
pub struct Decoder {
    event_bytes_max: usize,
    line: Vec<u8>,
    /// The last byte was `\r`: a `\n` that follows belongs to the same line end.
    after_carriage_return: bool,
    /// No line has ended yet: a byte order mark may stand before the first.
    at_start: bool,
    pending: Pending,
}

#[derive(Debug, Default)]
struct Pending {
    event: Option<String>,
    id: Option<String>,
    data: Option<String>,
}

impl Decoder {
    /// A decoder that refuses events of more than `event_bytes_max` bytes.
    pub fn new(event_bytes_max: usize) -> Self {
        Decoder {
            event_bytes_max,
            line: Vec::new(),
            after_carriage_return: false,
            at_start: true,
            pending: Pending::default(),
        }
    }

    /// The events that `bytes` complete.
    ///
    /// # Errors
    /// An event is too large. The decoder is of no further use then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, EventTooLarge> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_carriage_return) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.line.extend_from_slice(rest);
                break;
            };
            self.line.extend_from_slice(&rest[..end]);
            self.after_carriage_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            self.check_size()?;
            events.extend(self.end_line());
        }
        self.check_size()?;
        Ok(events)
    }

    /// The event that the end of the bytes left without its blank line. The format says to drop it, but some servers
    /// end so after the last one.
    pub fn finish(&mut self) -> Option<Event> {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.pending.take()
    }

    fn check_size(&self) -> Result<(), EventTooLarge> {
        if self.line.len() + self.pending.bytes() > self.event_bytes_max {
            return Err(EventTooLarge {
                event_bytes_max: self.event_bytes_max,
            });
        }
        Ok(())
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let mut text = String::from_utf8_lossy(&line);
        if std::mem::take(&mut self.at_start)
            && let Some(rest) = text.strip_prefix('\u{feff}')
        {
            text = rest.to_owned().into();
        }
        if text.is_empty() {
            return self.pending.take();
        }
        let (field, value) = match text.split_once(':') {
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (text.as_ref(), ""),
        };
        self.pending.set(field, value);
        None
    }
}

impl Pending {
    fn set(&mut self, field: &str, value: &str) {
        match field {
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "event" => self.event = Some(value.to_owned()),
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // The empty field name is a comment; unknown names are ignored.
            _ => {}
        }
    }

    /// An event without a data line is none.
    fn take(&mut self) -> Option<Event> {
        let Pending { event, id, data } = std::mem::take(self);
        Some(Event {
            event: event.filter(|name| !name.is_empty()),
            id,
            data: data?,
        })
    }

    fn bytes(&self) -> usize {
        [&self.event, &self.id, &self.data]
            .into_iter()
            .flatten()
            .map(String::len)
            .sum()
    }
}

/// Writes events.
#[derive(Debug, Clone, Copy)]
pub struct Encoder;

impl Encoder {
    /// The event's bytes. Line breaks in a name or id are left out, because they would end the field.
    pub fn encode(event: &Event) -> Bytes {
        let mut out = String::with_capacity(event.data.len() + 16);
        for (field, value) in [("event", &event.event), ("id", &event.id)] {
            if let Some(value) = value {
                out.push_str(field);
                out.push_str(": ");
                out.extend(
                    value
                        .chars()
                        .filter(|symbol| !matches!(symbol, '\n' | '\r')),
                );
                out.push('\n');
            }
        }
        for line in event
            .data
            .replace("\r\n", "\n")
            .replace('\r', "\n")
            .split('\n')
        {
            out.push_str("data: ");
            out.push_str(line);
            out.push('\n');
        }
        out.push('\n');
        out.into()
    }

    /// An event without a name whose data is one line, such as JSON text.
    pub fn data(line: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(line.len() + 8);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.extend_from_slice(b"\n\n");
        out.into()
    }

    /// A line that readers ignore: it keeps an idle connection open.
    pub fn comment(text: &str) -> Bytes {
        let mut out = String::from(": ");
        out.extend(text.chars().filter(|symbol| !matches!(symbol, '\n' | '\r')));
        out.push_str("\n\n");
        out.into()
    }
}

//! An answer before faults have been applied to it.

use bytes::Bytes;
use serde_json::Value;

use crate::bill::Charge;

/// What an emulator sends back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Beside `content-type`, which has its own field.
    pub headers: Vec<(String, String)>,
    /// The type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Body,
    /// What the provider charges for it; put on the bill when the reply is sent.
    pub charges: Vec<Charge>,
    /// The frame with which an ordered error ends this stream, where the family's only one
    /// ([`crate::Family::failure_in_stream`]) doesn't fit: a family with several surfaces has several.
    pub failure_frame: Option<Bytes>,
}

/// A whole body or frames, each sent by itself.
#[derive(Debug, Clone)]
pub enum Body {
    /// At once.
    Whole(Bytes),
    /// One by one. Faults count, delay, cut and spoil these.
    Frames(Vec<Bytes>),
}

impl Reply {
    /// A JSON answer.
    pub fn json(status: u16, value: &Value) -> Self {
        Reply {
            status,
            headers: Vec::new(),
            content_type: "application/json",
            body: Body::Whole(value.to_string().into()),
            charges: Vec::new(),
            failure_frame: None,
        }
    }

    /// Server-sent events (or frames of another kind, with `content_type` changed afterwards).
    pub fn frames(frames: Vec<Bytes>) -> Self {
        Reply {
            status: 200,
            headers: Vec::new(),
            content_type: "text/event-stream",
            body: Body::Frames(frames),
            charges: Vec::new(),
            failure_frame: None,
        }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With its own way to report an error inside the stream.
    #[must_use]
    pub fn failing_with(mut self, frame: Bytes) -> Self {
        self.failure_frame = Some(frame);
        self
    }

    /// With a charge.
    #[must_use]
    pub fn charge(mut self, charge: Charge) -> Self {
        self.charges.push(charge);
        self
    }
}

/// `data: ...` and an empty line.
pub fn sse(data: &Value) -> Bytes {
    format!("data: {data}\n\n").into()
}

/// `event: ...`, `data: ...` and an empty line.
pub fn sse_event(event: &str, data: &Value) -> Bytes {
    format!("event: {event}\ndata: {data}\n\n").into()
}

//! Answers, whole and as streams.

use bytes::Bytes;

use super::events::failure;
use super::object::{ResponseHead, response_object};
use super::stream::Stream;
use crate::chat::{ChatEvent, ChatHead, ChatResponse};
use crate::dialect::AnswerWriter;
use crate::error::ApiError;
use crate::usage::Usage;

/// Writes one answer as a response object, or as the events of one.
#[derive(Debug)]
pub struct Writer {
    head: ResponseHead,
    stream: Option<Stream>,
}

impl Writer {
    /// A writer for the response of this head.
    pub fn new(head: ResponseHead) -> Self {
        Writer { head, stream: None }
    }
}

impl AnswerWriter for Writer {
    fn whole(&mut self, response: &ChatResponse) -> Bytes {
        response_object(&self.head, response).to_string().into()
    }

    fn begin(&mut self, head: &ChatHead, _usage: &Usage) -> Bytes {
        let (stream, bytes) = Stream::begin(&self.head, head);
        self.stream = Some(stream);
        bytes
    }

    fn event(&mut self, event: &ChatEvent) -> Bytes {
        match &mut self.stream {
            Some(stream) => stream.event(event),
            None => Bytes::new(),
        }
    }

    /// Says again that the answer is under way. Some readers take a comment for an event without data, and fail.
    fn keep_alive(&mut self) -> Bytes {
        match &mut self.stream {
            Some(stream) => stream.in_progress(),
            None => Bytes::new(),
        }
    }

    fn error(&mut self, error: &ApiError) -> Bytes {
        match self.stream.take() {
            Some(stream) => stream.failed(error),
            None => failure(error),
        }
    }

    /// Nothing: the last event is the end.
    fn end(&mut self) -> Bytes {
        self.stream = None;
        Bytes::new()
    }
}

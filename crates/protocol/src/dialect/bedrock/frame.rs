//! AWS's binary framing of events, bytes in and events out.

use aws_smithy_eventstream::frame::read_message_from;
use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;

use crate::upstream::Failure;

/// The largest frame an upstream may send, bytes.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The smallest frame there is: lengths and checksums.
const FRAME_BYTES_MIN: usize = 16;

/// What a frame carries.
pub(super) enum Frame {
    Event { name: String, body: Value },
    Exception { name: String, body: Value },
}

/// Reads frames from bytes that arrive in pieces cut anywhere.
#[derive(Default)]
pub(super) struct FrameDecoder {
    buffer: BytesMut,
}

impl FrameDecoder {
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame. After an error the decoder is of no further use.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Failure> {
        let Some(mut prelude) = self.buffer.get(..4) else {
            return Ok(None);
        };
        let length = prelude.get_u32() as usize;
        if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&length) {
            return Err(Failure::malformed());
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        read(self.buffer.split_to(length).freeze()).map(Some)
    }
}

fn read(frame: Bytes) -> Result<Frame, Failure> {
    let message = read_message_from(frame).map_err(|_| Failure::malformed())?;
    let header = |name: &str| {
        message
            .headers()
            .iter()
            .find(|header| header.name().as_str() == name)
            .and_then(|header| header.value().as_string().ok())
            .map(|value| value.as_str().to_owned())
    };
    let body = || serde_json::from_slice(message.payload()).map_err(|_| Failure::malformed());
    match header(":message-type").as_deref() {
        Some("event") => Ok(Frame::Event {
            name: header(":event-type").unwrap_or_default(),
            body: body()?,
        }),
        Some("exception") => Ok(Frame::Exception {
            name: header(":exception-type").unwrap_or_default(),
            body: body().unwrap_or_default(),
        }),
        // An error that the service's model does not know has its text in a header.
        Some("error") => Ok(Frame::Exception {
            name: header(":error-code").unwrap_or_default(),
            body: serde_json::json!({"message": header(":error-message")}),
        }),
        _ => Err(Failure::malformed()),
    }
}

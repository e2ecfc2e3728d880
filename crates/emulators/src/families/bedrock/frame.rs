//! The binary framing of AWS event streams: total length, length of the headers, checksum of these eight bytes, headers,
//! payload, checksum of everything before. Numbers are big-endian.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

/// The type of a body made of these.
pub(super) const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

/// The number of the string type among header values.
const STRING: u8 = 7;

/// An event.
pub(super) fn event(kind: &str, payload: &Value) -> Bytes {
    frame(
        &[
            (":event-type", kind),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ],
        payload,
    )
}

/// An exception that ends a stream.
pub(super) fn exception(kind: &str, message: &str) -> Bytes {
    frame(
        &[
            (":exception-type", kind),
            (":content-type", "application/json"),
            (":message-type", "exception"),
        ],
        &serde_json::json!({"message": message}),
    )
}

fn frame(headers: &[(&str, &str)], payload: &Value) -> Bytes {
    let mut head = BytesMut::new();
    for (name, value) in headers {
        head.put_u8(u8::try_from(name.len()).unwrap());
        head.put_slice(name.as_bytes());
        head.put_u8(STRING);
        head.put_u16(u16::try_from(value.len()).unwrap());
        head.put_slice(value.as_bytes());
    }
    let payload = payload.to_string();
    let total = 12 + head.len() + payload.len() + 4;
    let mut frame = BytesMut::with_capacity(total);
    frame.put_u32(u32::try_from(total).unwrap());
    frame.put_u32(u32::try_from(head.len()).unwrap());
    frame.put_u32(crc32fast::hash(&frame));
    frame.put_slice(&head);
    frame.put_slice(payload.as_bytes());
    frame.put_u32(crc32fast::hash(&frame));
    frame.freeze()
}

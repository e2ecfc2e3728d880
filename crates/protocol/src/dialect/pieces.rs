//! Bodies in pieces and paths: what all dialects towards upstreams write alike.

use bytes::Bytes;
use serde::Serialize;

/// `value` as JSON text.
pub(crate) fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("wire structs have string keys only and write to memory")
        .into()
}

/// Elements of a JSON array: separated by commas, without the brackets.
pub(crate) fn elements<T: Serialize>(values: &[T]) -> Bytes {
    let array = to_json(&values);
    array.slice(1..array.len() - 1)
}

/// A JSON object whose large arrays are stored elements that are sent without being copied.
#[derive(Debug)]
pub(crate) struct Body {
    pieces: Vec<Bytes>,
}

impl Body {
    /// An object without fields.
    pub(crate) fn new() -> Self {
        Body {
            pieces: vec![Bytes::from_static(b"{")],
        }
    }

    /// Adds the text `open` (a key and the beginning of an array), all parts' elements and the text `close`. Adds
    /// nothing if there are no elements.
    #[must_use]
    pub(crate) fn array(
        mut self,
        open: &'static str,
        parts: &[&Bytes],
        close: &'static str,
    ) -> Self {
        let mut is_first = true;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            if is_first {
                self.comma();
                self.pieces.push(Bytes::from_static(open.as_bytes()));
            } else {
                self.pieces.push(Bytes::from_static(b","));
            }
            is_first = false;
            self.pieces.push(Bytes::clone(part));
        }
        if !is_first {
            self.pieces.push(Bytes::from_static(close.as_bytes()));
        }
        self
    }

    /// Adds the fields of `rest`, a struct, and ends the object.
    pub(crate) fn rest(mut self, rest: &impl Serialize) -> Vec<Bytes> {
        let rest = to_json(rest);
        if rest.len() > 2 {
            self.comma();
        }
        self.pieces.push(rest.slice(1..));
        self.pieces
    }

    fn comma(&mut self) {
        if self.pieces.len() > 1 {
            self.pieces.push(Bytes::from_static(b","));
        }
    }
}

/// `text` as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

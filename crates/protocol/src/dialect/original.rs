//! Requests of clients that go on as they came, to upstreams of the same dialect: only what the gateway itself decides is
//! changed, and every other byte stays.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use crate::error::ApiError;

/// A JSON object's fields, each value as the bytes it came in.
pub(super) struct RawObject<'a> {
    fields: Vec<(String, RawField<'a>)>,
}

enum RawField<'a> {
    Kept(&'a RawValue),
    Set(Bytes),
}

impl RawField<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            RawField::Kept(value) => value.get().as_bytes(),
            RawField::Set(bytes) => bytes,
        }
    }
}

impl<'a> RawObject<'a> {
    /// Reads an object. Of repeated names the last one counts, as for every decoder of ours.
    ///
    /// # Errors
    /// It is no JSON object.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, ApiError> {
        let Fields(fields) = serde_json::from_slice(body).map_err(|_| ApiError::internal())?;
        let mut object = RawObject {
            fields: Vec::with_capacity(fields.len()),
        };
        for (name, value) in fields {
            object.put(&name, RawField::Kept(value));
        }
        Ok(object)
    }

    /// The bytes of a field's value; `None`: there is no such field, or it is null.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.fields.iter().find(|(known, _)| known == name)?;
        Some(value.bytes()).filter(|bytes| *bytes != b"null")
    }

    /// Sets a field to bytes that are a JSON value; a new one comes last.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Bytes>) {
        self.put(name, RawField::Set(value.into()));
    }

    /// Sets a field to a string.
    pub(super) fn set_text(&mut self, name: &str, text: &str) {
        self.set(name, text_bytes(text));
    }

    /// Takes a field out.
    pub(super) fn remove(&mut self, name: &str) {
        self.fields.retain(|(known, _)| known != name);
    }

    /// The object again.
    pub(super) fn write(&self) -> Bytes {
        let size: usize = self
            .fields
            .iter()
            .map(|(name, value)| name.len() + value.bytes().len() + 6)
            .sum();
        let mut out = BytesMut::with_capacity(size + 2);
        out.put_u8(b'{');
        for (number, (name, value)) in self.fields.iter().enumerate() {
            if number > 0 {
                out.put_u8(b',');
            }
            out.extend_from_slice(&text_bytes(name));
            out.put_u8(b':');
            out.extend_from_slice(value.bytes());
        }
        out.put_u8(b'}');
        out.freeze()
    }

    fn put(&mut self, name: &str, value: RawField<'a>) {
        match self.fields.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.fields.push((name.to_owned(), value)),
        }
    }
}

/// A JSON string.
pub(super) fn text_bytes(text: &str) -> Bytes {
    serde_json::Value::from(text).to_string().into()
}

/// `first` before the elements of a JSON array of which `array` are the bytes.
pub(super) fn with_first(array: &[u8], first: &[u8]) -> Bytes {
    let rest = array
        .trim_ascii()
        .strip_prefix(b"[")
        .unwrap_or_default()
        .trim_ascii_start();
    let mut out = BytesMut::with_capacity(array.len() + first.len() + 2);
    out.put_u8(b'[');
    out.extend_from_slice(first);
    if !rest.starts_with(b"]") {
        out.put_u8(b',');
    }
    out.extend_from_slice(rest);
    out.freeze()
}

/// An object's fields in order, repeated names included.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Fields<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Fields<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, &RawValue>()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{RawObject, with_first};

    #[test]
    fn what_is_not_set_keeps_its_bytes() {
        let body =
            br#"{ "model":"a", "n" : 1.50e0, "x":{"b": [1 , 2],"a":"\u00e9"}, "model": "b" }"#;
        let mut object = RawObject::read(body).unwrap();
        object.set_text("model", "c\"d");
        object.set("stream", "true");
        assert_eq!(
            object.write(),
            r#"{"model":"c\"d","n":1.50e0,"x":{"b": [1 , 2],"a":"\u00e9"},"stream":true}"#
        );
        object.remove("x");
        assert_eq!(object.get("n").unwrap(), b"1.50e0");
        assert!(object.get("x").is_none());
    }

    #[test]
    fn an_element_goes_before_the_others() {
        assert_eq!(with_first(b"[ ]", b"1"), "[1]");
        assert_eq!(with_first(b" [2, 3]", b"1"), "[1,2, 3]");
    }

    #[test]
    fn only_objects_are_read() {
        for body in ["[1]", "1", "", "{\"a\"}"] {
            assert!(RawObject::read(body.as_bytes()).is_err(), "{body}");
        }
    }
}

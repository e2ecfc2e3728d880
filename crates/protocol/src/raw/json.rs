//! Where a JSON object names the model.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{ApiError, ErrorKind};

const MODEL: &str = "model";

/// The model, and the place of every field that names it: where there are several the last one counts here, and an
/// upstream that takes the first one must not get another model for it.
pub(super) fn model(body: &[u8]) -> Result<(String, Vec<Range<usize>>), ApiError> {
    let Models(values) = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() {
            // serde's wording would quote what is there instead.
            malformed("The request body must be a JSON object.")
        } else {
            malformed(format!("The request body is not valid JSON: {error}."))
        }
    })?;
    let value = values.last().map(|value| value.get()).unwrap_or("null");
    let name = match serde_json::from_str(value) {
        Ok(Value::String(name)) if !name.is_empty() => name,
        Ok(Value::String(_) | Value::Null) => return Err(ApiError::missing(MODEL)),
        _ => return Err(ApiError::invalid(MODEL, "must be a string")),
    };
    let begin = body.as_ptr().addr();
    let places = values
        .iter()
        .map(|value| {
            let start = value.get().as_ptr().addr() - begin;
            start..start + value.get().len()
        })
        .collect();
    Ok((name, places))
}

/// The values of an object's fields `model`, in their own bytes.
struct Models<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Models<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ModelsVisitor;

        impl<'de> Visitor<'de> for ModelsVisitor {
            type Value = Models<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Models<'de>, A::Error> {
                let mut values = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == MODEL {
                        values.push(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Models(values))
            }
        }

        deserializer.deserialize_map(ModelsVisitor)
    }
}

fn malformed(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::InvalidJson, message)
}

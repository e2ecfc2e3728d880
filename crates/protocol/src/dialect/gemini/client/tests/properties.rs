use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::schema::json_schema;
use super::super::{blob, decode_count, decode_create, decode_patch, decode_request, time};
use super::NOW;
use crate::dialect::gemini::schema;

/// Words that mean something here, so that chance finds them.
fn word() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "type",
        "STRING",
        "INTEGER",
        "OBJECT",
        "ARRAY",
        "nullable",
        "enum",
        "format",
        "properties",
        "propertyOrdering",
        "items",
        "anyOf",
        "any_of",
        "minItems",
        "$ref",
        "ref",
        "defs",
        "example",
        "contents",
        "parts",
        "role",
        "model",
        "user",
        "text",
        "thought",
        "functionCall",
        "functionResponse",
        "name",
        "response",
        "inlineData",
        "mimeType",
        "data",
        "tools",
        "functionDeclarations",
        "systemInstruction",
        "generationConfig",
        "ttl",
        "expireTime",
    ];
    prop_oneof![
        3 => proptest::sample::select(KNOWN).prop_map(str::to_owned),
        1 => ".{0,8}",
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((word(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A schema as Google's clients write it.
fn google_schema() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(json!({"type": "STRING"})),
        Just(json!({"type": "STRING", "enum": ["a", "b"]})),
        Just(json!({"type": "NUMBER", "nullable": true})),
        Just(json!({"type": "BOOLEAN", "description": "d"})),
    ];
    scalar.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|items| json!({"type": "ARRAY", "items": items, "minItems": "1"})),
            proptest::collection::btree_map("[a-z]{1,4}", inner, 1..4).prop_map(|properties| {
                let names: Vec<&String> = properties.keys().rev().collect();
                json!({"type": "OBJECT", "properties": properties, "required": names, "propertyOrdering": names})
            }),
        ]
    })
}

/// In small letters and without what only told an order or a size's type.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut out = Map::new();
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("type", Value::String(kind)) => {
                        out.insert(key.clone(), kind.to_lowercase().into());
                    }
                    ("minItems", _) => {
                        out.insert(key.clone(), 1.into());
                    }
                    ("propertyOrdering", _) => {}
                    _ => {
                        out.insert(key.clone(), normal(value));
                    }
                }
            }
            out.into()
        }
        Value::Array(values) => values.iter().map(normal).collect(),
        other => other.clone(),
    }
}

#[test]
fn schemas_become_json_schema() {
    for (google, expected) in [
        (json!({"type": "STRING"}), json!({"type": "string"})),
        (json!({"type": "TYPE_UNSPECIFIED"}), json!({})),
        (
            json!({"type": "STRING", "nullable": true, "enum": ["a"], "format": "enum"}),
            json!({"type": ["string", "null"], "enum": ["a", null]}),
        ),
        (
            json!({"type": "INTEGER", "format": "int64", "enum": ["1", "2"], "minimum": 1}),
            json!({"type": "integer", "enum": [1, 2], "minimum": 1}),
        ),
        (
            json!({"type": "STRING", "format": "date-time", "maxLength": "9"}),
            json!({"type": "string", "format": "date-time", "maxLength": 9}),
        ),
        (
            json!({"any_of": [{"type": "STRING"}, {"type": "NULL"}], "nullable": false}),
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ),
        (
            json!({"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}], "nullable": true}),
            json!({"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]}),
        ),
        (
            json!({"ref": "#/defs/T", "nullable": true}),
            json!({"anyOf": [{"$ref": "#/$defs/T"}, {"type": "null"}]}),
        ),
        (
            json!({"defs": {"T": {"type": "STRING"}}, "type": "ARRAY", "items": {"ref": "#/defs/T"}}),
            json!({"$defs": {"T": {"type": "string"}}, "type": "array", "items": {"$ref": "#/$defs/T"}}),
        ),
        // A property may have any name.
        (
            json!({"type": "OBJECT", "properties": {"any_of": {"type": "STRING"}, "type": {"type": "STRING"}}}),
            json!({"type": "object", "properties": {"any_of": {"type": "string"}, "type": {"type": "string"}}}),
        ),
        (
            json!({"type": "STRING", "example": "x", "default": null, "title": null}),
            json!({"type": "string", "examples": ["x"], "default": null}),
        ),
        // JSON Schema already.
        (
            json!({"type": ["string", "null"], "const": null, "$comment": "c", "oneOf": [{"x_y": 1}]}),
            json!({"type": ["string", "null"], "const": null, "$comment": "c", "oneOf": [{"x_y": 1}]}),
        ),
    ] {
        assert_eq!(json_schema(google.clone()), expected, "{google}");
    }
    let ordered = json_schema(json!({
        "properties": {"a": {}, "b": {}, "c": {}},
        "propertyOrdering": ["c", "nowhere", 7, "a"],
    }));
    assert_eq!(
        ordered.to_string(),
        r#"{"properties":{"c":{},"a":{},"b":{}}}"#
    );
}

#[test]
fn durations_are_read_by_the_letter() {
    for (text, seconds) in [
        ("1s", 1),
        ("300s", 300),
        ("0300s", 300),
        ("3.5s", 4),
        ("3.0s", 3),
        ("3.000000000s", 3),
        ("3.000000001s", 4),
        ("0.000000001s", 1),
    ] {
        assert_eq!(time::whole_seconds(text), Some(seconds), "{text}");
    }
    for text in [
        "",
        "s",
        "1",
        "1m",
        "-1s",
        "+1s",
        "1.s",
        ".5s",
        "0s",
        "0.0s",
        "1.0000000001s",
        "1,5s",
        "1e3s",
        " 1s",
        "1s ",
        "١s",
        "18446744073709551616s",
        "18446744073709551615.5s",
    ] {
        assert_eq!(time::whole_seconds(text), None, "{text}");
    }
}

#[test]
fn times_are_written_with_what_they_have() {
    for (millis, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (NOW, "2027-01-15T08:00:00Z"),
        (NOW + 20, "2027-01-15T08:00:00.020Z"),
        (951_782_399_999, "2000-02-28T23:59:59.999Z"),
        (951_868_799_500, "2000-02-29T23:59:59.500Z"),
        (-1, "1970-01-01T00:00:00Z"),
        (i64::MAX, "9999-12-30T22:00:00.999Z"),
    ] {
        assert_eq!(time::written(millis), text);
    }
}

#[test]
fn either_base64_becomes_the_standard_one() {
    for (text, standard) in [
        ("", Some("")),
        ("aGk=", Some("aGk=")),
        ("aGk", Some("aGk=")),
        ("-_-_", Some("+/+/")),
        ("-_8", Some("+/8=")),
        ("QQ", Some("QQ==")),
        ("QQ=", Some("QQ==")),
        ("Q", None),
        ("QQ===", None),
        ("Q=Q=", None),
        ("aG k", None),
        ("é", None),
    ] {
        assert_eq!(blob::standard_base64(text).as_deref(), standard, "{text}");
    }
}

proptest! {
    #[test]
    fn a_schema_of_any_shape_is_converted_once_and_for_all(schema in any_json()) {
        let once = json_schema(schema);
        // It is JSON Schema then; only what Google names otherwise could still change, and must not.
        if once.get("nullable").is_none() {
            let again = json_schema(once.clone());
            prop_assert_eq!(again, once);
        }
    }

    #[test]
    fn a_schema_comes_back_to_google_as_it_was(google in google_schema()) {
        let there = json_schema(google.clone());
        let back = schema::sanitised(&there, "x").unwrap();
        prop_assert_eq!(back.map(|back| normal(&back)), Some(normal(&google)));
        // Objects keep the order that was asked for.
        if let Some(order) = google.get("propertyOrdering") {
            let found: Vec<&String> = there["properties"].as_object().unwrap().keys().collect();
            prop_assert_eq!(&json!(found), order);
        }
    }

    #[test]
    fn bodies_of_any_shape_are_read_or_refused(body in any_json()) {
        let bytes = Bytes::from(body.to_string());
        let _ = decode_request(&bytes, "m", false);
        let _ = decode_count(&bytes, "m");
        let _ = decode_create(&bytes, NOW);
        let _ = decode_patch(&bytes, None, NOW);
        let contents = json!({"contents": body, "systemInstruction": body, "tools": body});
        let _ = decode_request(&Bytes::from(contents.to_string()), "m", false);
        let part = json!({"contents": [{"role": "model", "parts": [body]}, {"parts": [body]}]});
        let _ = decode_request(&Bytes::from(part.to_string()), "m", false);
    }

    #[test]
    fn a_duration_is_rounded_up(seconds in 0_u64..1 << 40, nanos in 0_u32..1_000_000_000) {
        let text = format!("{seconds}.{nanos:09}s");
        let expected = seconds + u64::from(nanos > 0);
        prop_assert_eq!(time::whole_seconds(&text), (expected > 0).then_some(expected));
    }

    #[test]
    fn any_text_is_a_duration_or_none(text in ".{0,24}") {
        if let Some(seconds) = time::whole_seconds(&text) {
            prop_assert!(seconds > 0);
        }
        let _ = time::seconds_until(&text, NOW);
    }

    #[test]
    fn a_time_written_is_the_time_read(
        millis in 0_i64..253_402_200_000_000,
        offset in -18 * 60..18 * 60_i64,
        left in 0_i64..100_000_000_000,
    ) {
        let written = time::written(millis);
        let read: jiff::Timestamp = written.parse().unwrap();
        prop_assert_eq!(read.as_millisecond(), millis);
        prop_assert_eq!(written.len(), if millis % 1_000 == 0 { 20 } else { 24 });
        // The same instant elsewhere.
        let local = time::written((millis + offset * 60_000).max(0));
        if millis + offset * 60_000 >= 0 {
            let sign = if offset < 0 { '-' } else { '+' };
            let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
            let text = local.replace('Z', &format!("{sign}{hours:02}:{minutes:02}"));
            let now = millis - left;
            let expected = u64::try_from(left).unwrap().div_ceil(1_000);
            prop_assert_eq!(time::seconds_until(&text, now), Some(expected));
            prop_assert_eq!(time::seconds_until(&text, millis + left), Some(0));
        }
    }

    #[test]
    fn base64_means_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let standard = data_encoding::BASE64.encode(&bytes);
        for encoding in [
            &data_encoding::BASE64,
            &data_encoding::BASE64_NOPAD,
            &data_encoding::BASE64URL,
            &data_encoding::BASE64URL_NOPAD,
        ] {
            let text = encoding.encode(&bytes);
            let found = blob::standard_base64(&text);
            prop_assert_eq!(found.as_deref(), Some(standard.as_str()));
        }
    }
}

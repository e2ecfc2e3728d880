#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use proptest::prelude::*;

use super::{RawBody, UsageWatch};
use crate::error::{ApiError, ErrorKind};
use crate::usage::BilledUsage;

const FORM: &str = "multipart/form-data; boundary=bOrDer";

fn json(body: &'static str) -> Result<RawBody, ApiError> {
    RawBody::read("application/json", Bytes::from_static(body.as_bytes()))
}

fn form(body: &str) -> Result<RawBody, ApiError> {
    RawBody::read(FORM, Bytes::copy_from_slice(body.as_bytes()))
}

fn written(body: &RawBody, model: &str) -> Vec<u8> {
    body.for_model(model).concat()
}

#[test]
fn of_json_only_the_models_name_is_changed() {
    let body =
        json("{ \"n\" : 1.50e0 ,\r\n \"model\" :\t\"a\" , \"x\":{\"model\": \"a\"}, \"n\": 2 } \n");
    let body = body.unwrap();
    assert_eq!(
        (body.model(), body.content_type()),
        ("a", "application/json")
    );
    assert_eq!(
        written(&body, "b\"\u{e9}"),
        "{ \"n\" : 1.50e0 ,\r\n \"model\" :\t\"b\\\"\u{e9}\" , \"x\":{\"model\": \"a\"}, \"n\": 2 } \n".as_bytes()
    );
}

#[test]
fn a_second_name_for_the_model_is_changed_too() {
    let body = json(r#"{"model": null, "mod\u0065l": "\u0061"}"#).unwrap();
    assert_eq!(body.model(), "a");
    assert_eq!(written(&body, "b"), br#"{"model": "b", "mod\u0065l": "b"}"#);
}

#[test]
fn json_without_a_model_is_refused() {
    for body in [
        "{}",
        r#"{"model":null}"#,
        r#"{"model":""}"#,
        r#"{"x":{"model":"a"}}"#,
    ] {
        assert_eq!(
            json(body).unwrap_err(),
            ApiError::missing("model"),
            "{body}"
        );
    }
    for body in [r#"{"model":1}"#, r#"{"model":["a"]}"#] {
        assert_eq!(
            json(body).unwrap_err().param.as_deref(),
            Some("model"),
            "{body}"
        );
    }
    for body in [
        "",
        "[1]",
        "\"secret\"",
        "{\"model\":\"a\"",
        "{\"model\":\"a\"} x",
        "{'model':1}",
    ] {
        let error = json(body).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidJson, "{body}");
        assert!(!error.message.contains("secret"));
    }
}

/// A part of a form.
fn part(head: &str, content: &str) -> String {
    format!("--bOrDer\r\n{head}\r\n\r\n{content}\r\n")
}

fn field(name: &str, content: &str) -> String {
    part(
        &format!("Content-Disposition: form-data; name=\"{name}\""),
        content,
    )
}

#[test]
fn of_a_form_only_the_models_name_is_changed() {
    let file = part(
        "Content-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/mpeg",
        "ID3\r\n--bOrDe \r\n\r\nmodel\0\n --bOrDer",
    );
    let after = "--bOrDer--\r\nmodel";
    for (name, head) in [
        (
            "whisper-1",
            "Content-Disposition: form-data; name=\"model\"",
        ),
        (
            "whisper-1",
            "content-disposition:form-data;name=model\r\nContent-Type: text/plain; charset=utf-8",
        ),
        (
            "a b",
            "X: y\r\nContent-Disposition: form-data; x; name = \"model\"; y",
        ),
    ] {
        for form_of in [
            |file: &str, model: &str| format!("{file}{model}"),
            |file: &str, model: &str| format!("before\r\n{model}{file}"),
            |file: &str, model: &str| format!("{model}{file}"),
        ] {
            let text = |name: &str| format!("{}{after}", form_of(&file, &part(head, name)));
            let body = form(&text(name)).unwrap();
            assert_eq!((body.model(), body.content_type()), (name, FORM));
            assert_eq!(
                written(&body, "other/model"),
                text("other/model").as_bytes()
            );
        }
    }
}

#[test]
fn a_boundary_may_be_quoted() {
    let text = field("model", "a").replace("bOrDer", "b; r") + "--b; r--";
    let content_type = "Multipart/Form-Data; charset=utf-8; boundary=\"b; r\"";
    let body = RawBody::read(content_type, text.into()).unwrap();
    assert_eq!((body.model(), body.content_type()), ("a", content_type));
}

#[test]
fn a_form_without_one_model_is_refused() {
    let end = "--bOrDer--\r\n";
    let missing = [
        format!("{}{end}", field("models", "a")),
        format!("{}{end}", field("model", "")),
        format!("{}{end}", part("Content-Type: text/plain", "model")),
        end.to_owned(),
    ];
    for body in missing {
        assert_eq!(
            form(&body).unwrap_err(),
            ApiError::missing("model"),
            "{body}"
        );
    }
    let twice = format!("{}{}{end}", field("model", "a"), field("model", "b"));
    assert_eq!(form(&twice).unwrap_err().param.as_deref(), Some("model"));
}

#[test]
fn what_readers_could_take_for_another_form_is_refused() {
    let end = "--bOrDer--\r\n";
    let model = field("model", "a");
    let disposition = |rest: &str| {
        let hidden = part(&format!("Content-Disposition: form-data; {rest}"), "b");
        format!("{model}{hidden}{end}")
    };
    let bodies = [
        String::new(),
        "bOrDer".to_owned(),
        // No end.
        model.clone(),
        // No empty line after the head.
        format!("{model}--bOrDer\r\nContent-Disposition: form-data; name=\"x\"\r\n{end}"),
        // Borders in the wrong places.
        format!("{model}--bOrDer\r\n--bOrDer\r\n\r\nb\r\n{end}"),
        format!("{model}--bOrDer\r\nX: y\r\n--bOrDer\r\n\r\nb\r\n{end}"),
        format!("{model}--bOrDer\r\nX: y\r\n\r\n{end}"),
        format!("\n{model}{end}"),
        format!("{}{end}", field("model", "a\n--bOrDer\n\nb")),
        format!("{model}{}{end}", field("file", "\r--bOrDer\r\r")),
        // Not quite a border.
        format!("{model}--bOrDerX\r\n\r\nb\r\n{end}"),
        disposition("name*=utf-8''model"),
        disposition("\r\n name=\"model\""),
        disposition("x=y\nContent-Disposition: form-data; name=\"model\""),
        disposition("name=\"\\model\""),
        disposition("name=\"x\"; filename=\"a\\\"; name=\"model\""),
        format!("{model}{}{end}", part(&"x".repeat(10_000), "b")),
    ];
    for body in bodies {
        let error = form(&body).unwrap_err();
        assert_eq!(
            (error.kind, error.param),
            (ErrorKind::InvalidParameter, None),
            "{body}"
        );
    }
    for content_type in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; x=y",
        "multipart/form-data; boundary=bOrDer; boundary=x",
        "multipart/form-data; boundary=\"bOr\\Der\"",
    ] {
        assert!(RawBody::read(content_type, format!("{model}{end}").into()).is_err());
    }
}

proptest! {
    #[test]
    fn no_form_is_too_strange(body in "(--b|\r\n|--|;|=|\"|model|name|Content-Disposition:|[a-z]){0,40}") {
        if let Ok(body) = RawBody::read("multipart/form-data; boundary=b", body.into()) {
            let model = body.model().to_owned();
            prop_assert_eq!(written(&body, &model), body.bytes().to_vec());
        }
    }
}

fn read(content_type: &str, body: &str, chunk: usize) -> Option<BilledUsage> {
    let mut watch = UsageWatch::new(content_type);
    for bytes in body.as_bytes().chunks(chunk) {
        watch.push(bytes);
    }
    watch.usage()
}

fn counts(input: u64, cached: u64, output: u64) -> Option<BilledUsage> {
    Some(BilledUsage {
        input_tokens: input,
        cache_read_tokens: cached,
        output_tokens: output,
        ..BilledUsage::default()
    })
}

#[test]
fn the_usage_of_an_object_is_read_however_it_is_cut() {
    let cases = [
        (
            r#"{"object":"list","data":[{"usage":{"prompt_tokens":9}}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            counts(8, 0, 0),
        ),
        (
            r#" { "usage" : {"input_tokens":5,"output_tokens":7,"input_tokens_details":{"cached_tokens":2}} , "a":"usage" }"#,
            counts(5, 2, 7),
        ),
        (
            r#"{"a":"\"usage\":{","b\\":"{[\\","usage":{"completion_tokens":3,"x":"},\""}}"#,
            counts(0, 0, 3),
        ),
        (r#"{"usage":{"type":"duration","seconds":3}}"#, None),
        (r#"{"usage":null,"text":"x"}"#, None),
        (
            r#"{"usages":{"input_tokens":5},"usag":{"input_tokens":5},"us\u0061ge":{"input_tokens":5}}"#,
            None,
        ),
        (r#"[{"usage":{"input_tokens":5}}]"#, None),
        (r#"{"usage":{"input_tokens":5}"#, None),
        (
            r#"{"usage":{"input_tokens":-5,"output_tokens":99999999999}}"#,
            None,
        ),
    ];
    for (body, expected) in cases {
        for chunk in 1..=body.len() {
            assert_eq!(
                read("application/json; charset=utf-8", body, chunk),
                expected,
                "{body}"
            );
        }
    }
}

#[test]
fn the_usage_of_a_stream_is_the_largest_of_its_reports() {
    let body = concat!(
        ": data:{\"usage\":{\"input_tokens\":50}}\r\n\r\n",
        "event: usage\ndata: {\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}\n\n",
        "data:{\"choices\":[],\"usage\":null}\n\n",
        "data: {\"usage\":{\"input_tokens\":4,\"output_tokens\":9}}\n\n",
        "data: [DONE]\n\n",
        "data: {\"usage\":{\"input_tokens\":60}",
    );
    for chunk in 1..=body.len() {
        assert_eq!(read("text/event-stream", body, chunk), counts(5, 0, 9));
    }
}

#[test]
fn sound_and_what_is_too_long_is_not_read() {
    let body = r#"{"usage":{"input_tokens":5}}"#;
    for content_type in ["audio/mpeg", "text/plain", ""] {
        assert_eq!(read(content_type, body, 7), None);
    }
    let long = format!(
        r#"{{"usage":{{"x":"{}","input_tokens":5}}}}"#,
        "x".repeat(20_000)
    );
    assert_eq!(read("application/json", &long, 1_000), None);
}

#[test]
fn an_object_is_over_with_its_last_brace() {
    let mut watch = UsageWatch::new("application/json");
    watch.push(br#"{"usage":{"input_tokens":5}"#);
    assert!(!watch.is_over());
    watch.push(b"}");
    assert!(watch.is_over());
    assert_eq!(watch.usage(), counts(5, 0, 0));
}

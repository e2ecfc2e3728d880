use serde_json::{Map, Value, json};

use super::super::{
    ModelInfo, ResourceForm, decode_create, decode_patch, encode_cached_content,
    encode_cached_page, encode_model, encode_models,
};
use super::{NOW, check, check_all};
use crate::context::{
    CachePolicy, Context, ContextPage, CreateContext, CreateSurface, Profile, ProfileKind,
};
use crate::error::ErrorKind;

fn context(display_name: Option<&str>) -> Context {
    let create = CreateContext {
        model: "gemini-2.5-flash".to_owned(),
        messages: Vec::new(),
        mode: None,
        ttl_seconds: Some(300),
        truncation: None,
        tools: Vec::new(),
        tool_choice: None,
        display_name: display_name.map(str::to_owned),
        metadata: Map::new(),
        policy: CachePolicy::default(),
    };
    Context::new(
        &create,
        CreateSurface::OpenAi,
        &Profile::of(ProfileKind::Gemini, 8_192),
        "default",
        "flash",
        "ctx-20270115080000-abcdefghijklmnop".parse().unwrap(),
        4_375,
        NOW + 20,
    )
    .unwrap()
}

fn vertex() -> ResourceForm {
    ResourceForm::Vertex {
        project: "p".to_owned(),
        location: "europe-west4".to_owned(),
    }
}

fn written(name: &str, body: &[u8]) {
    let body: Value = serde_json::from_slice(body).unwrap();
    check(name, &format!("{body:#}\n"));
}

#[test]
fn creates_are_understood() {
    check_all(
        "create_",
        17,
        |body| decode_create(body, NOW),
        |create, _| format!("{create:#?}\n"),
    );
}

#[test]
fn contexts_are_told_without_what_they_hold() {
    let named = context(Some("Handbook"));
    let plain = ResourceForm::GeminiApi;
    written(
        "written_cached.json",
        &encode_cached_content(&named, &plain),
    );
    written(
        "written_cached_vertex.json",
        &encode_cached_content(&named, &vertex()),
    );
    let mut extended = context(None);
    let profile = Profile::of(ProfileKind::Gemini, 8_192);
    extended.set_ttl(60, &profile, NOW + 90_000).unwrap();
    written(
        "written_cached_extended.json",
        &encode_cached_content(&extended, &plain),
    );
    let page = ContextPage {
        contexts: vec![extended, named],
        next_cursor: Some("c2".to_owned()),
    };
    written("written_page.json", &encode_cached_page(&page, &plain));
}

#[test]
fn a_list_of_nothing_is_an_empty_object() {
    let page = ContextPage {
        contexts: Vec::new(),
        next_cursor: None,
    };
    assert_eq!(encode_cached_page(&page, &vertex()), "{}");
}

#[test]
fn models_are_told() {
    let model = |id: &str| ModelInfo {
        id: id.to_owned(),
        input_token_limit: 1_048_576,
        output_token_limit: 65_536,
    };
    written("written_model.json", &encode_model(&model("gemini")));
    written(
        "written_models.json",
        &encode_models(&[model("gemini"), model("org/other")]),
    );
}

#[test]
fn patches_set_the_ttl_and_nothing_else() {
    let patch =
        |body: Value, mask: Option<&str>| decode_patch(body.to_string().as_bytes(), mask, NOW);
    for (body, mask, seconds) in [
        (json!({"ttl": "600s"}), None, 600),
        (json!({"ttl": "600s"}), Some(""), 600),
        (json!({"ttl": "0.000000001s"}), Some("ttl"), 1),
        (json!({"expireTime": "2027-01-15T08:10:00Z"}), None, 600),
        (
            json!({"expire_time": "2027-01-15T09:10:00.5+01:00"}),
            Some("expire_time"),
            601,
        ),
        // What the mask does not name does not count.
        (
            json!({"ttl": "60s", "expireTime": "2000-01-01T00:00:00Z"}),
            Some("ttl"),
            60,
        ),
        (
            json!({"ttl": "60s", "expireTime": null, "name": "cachedContents/x"}),
            Some("ttl, expireTime"),
            60,
        ),
    ] {
        assert_eq!(patch(body.clone(), mask), Ok(seconds), "{body} {mask:?}");
    }
    for (body, mask, kind, param) in [
        (json!({}), None, ErrorKind::MissingParameter, "ttl"),
        (
            json!({"ttl": "60s"}),
            Some("expireTime"),
            ErrorKind::MissingParameter,
            "ttl",
        ),
        (
            json!({"ttl": "60s"}),
            Some("ttl,displayName"),
            ErrorKind::InvalidParameter,
            "updateMask",
        ),
        (
            json!({"ttl": "60s", "expireTime": "2030-01-01T00:00:00Z"}),
            None,
            ErrorKind::InvalidParameter,
            "expireTime",
        ),
        (
            json!({"expireTime": "2027-01-15T08:00:00Z"}),
            None,
            ErrorKind::InvalidParameter,
            "expireTime",
        ),
        (
            json!({"ttl": "soon"}),
            None,
            ErrorKind::InvalidParameter,
            "ttl",
        ),
    ] {
        let error = patch(body.clone(), mask).unwrap_err();
        assert_eq!(error.kind, kind, "{body} {mask:?}");
        assert_eq!(error.param.as_deref(), Some(param), "{body} {mask:?}");
    }
    assert_eq!(
        decode_patch(b"ttl", None, NOW).unwrap_err().kind,
        ErrorKind::InvalidJson
    );
}

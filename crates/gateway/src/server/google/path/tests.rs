#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::http::Method;
use holdfast_protocol::ErrorKind;
use holdfast_protocol::dialect::gemini::client::ResourceForm;

use super::{Call, Target};

const ID: &str = "ctx-20261122193000-aaaaaaaaaaaaaaaaaaaaaaaaaa";

fn target(method: Method, path: &str) -> Target {
    Call::of(&method, path)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .target
}

#[test]
fn models_are_named_in_all_forms() {
    for path in [
        "/v1beta/models/m:generateContent",
        "/v1/models/m:generateContent",
        "/v1/v1/models/m:generateContent",
        "/v1/v1beta/models/m:generateContent",
        "/v1beta1/publishers/google/models/m:generateContent",
        "/v1beta1/projects/p/locations/l/publishers/google/models/m:generateContent",
        "/v1beta/models/m%3AgenerateContent",
    ] {
        let wanted = Target::Generate {
            model: "m".to_owned(),
            streams: false,
        };
        assert_eq!(target(Method::POST, path), wanted, "{path}");
    }
    assert_eq!(
        target(
            Method::POST,
            "/v1beta/models/org/name:7b:streamGenerateContent"
        ),
        Target::Generate {
            model: "org/name:7b".to_owned(),
            streams: true
        }
    );
    assert_eq!(
        target(Method::POST, "/v1beta/models/m:countTokens"),
        Target::Count {
            model: "m".to_owned()
        }
    );
    assert_eq!(target(Method::GET, "/v1beta/models"), Target::Models);
    assert_eq!(
        target(Method::GET, "/v1beta/models/name:7b"),
        Target::Model {
            name: "name:7b".to_owned()
        }
    );
}

#[test]
fn contexts_are_named_in_all_forms() {
    let id = || ID.parse().unwrap();
    for parent in [
        "/v1beta",
        "/v1",
        "/v1/v1beta1",
        "/v1beta1/projects/p/locations/l",
    ] {
        let all = format!("{parent}/cachedContents");
        let one = format!("{all}/{ID}");
        assert_eq!(target(Method::POST, &all), Target::CreateCached);
        assert_eq!(target(Method::GET, &all), Target::ListCached);
        assert_eq!(target(Method::GET, &one), Target::GetCached { id: id() });
        assert_eq!(
            target(Method::PATCH, &one),
            Target::PatchCached { id: id() }
        );
        assert_eq!(
            target(Method::DELETE, &one),
            Target::DeleteCached { id: id() }
        );
    }
    let vertex = Call::of(
        &Method::GET,
        "/v1beta1/projects/p/locations/l/cachedContents",
    )
    .unwrap();
    assert_eq!(
        vertex.form,
        ResourceForm::Vertex {
            project: "p".to_owned(),
            location: "l".to_owned()
        }
    );
}

#[test]
fn everything_else_is_not_there() {
    for (method, path, kind) in [
        (Method::GET, "/v1beta", ErrorKind::NotFound),
        (Method::POST, "/v1beta/models/m", ErrorKind::NotFound),
        (
            Method::POST,
            "/v1beta/models/m:embedContent",
            ErrorKind::NotFound,
        ),
        (
            Method::GET,
            "/v1beta/models/m:generateContent",
            ErrorKind::MethodNotAllowed,
        ),
        (Method::POST, "/v1beta/models", ErrorKind::MethodNotAllowed),
        (
            Method::PUT,
            "/v1beta/cachedContents",
            ErrorKind::MethodNotAllowed,
        ),
        (
            Method::GET,
            "/v1beta/cachedContents/x",
            ErrorKind::ContextNotFound,
        ),
        (Method::GET, "/v1beta/files/x", ErrorKind::NotFound),
        (Method::GET, "/v1beta/projects/p", ErrorKind::NotFound),
        (Method::GET, "/v1beta/models/%ff", ErrorKind::NotFound),
    ] {
        let error = Call::of(&method, path).unwrap_err();
        assert_eq!(error.kind, kind, "{method} {path}");
    }
}

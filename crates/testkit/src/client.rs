//! A client that speaks plain HTTP and keeps what it saw.

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// A client with one key, or none.
#[derive(Debug, Clone)]
pub struct TestClient {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// As received.
    pub headers: HeaderMap,
    /// As received.
    pub body: Bytes,
}

impl TestClient {
    /// A client of the server at this base URL.
    pub fn new(base: &str, key: Option<String>) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        TestClient {
            http,
            base: base.to_owned(),
            key,
        }
    }

    /// The secret it sends.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }

    /// The same at another gateway.
    pub fn at(&self, gateway: &crate::TestGateway) -> TestClient {
        TestClient {
            base: gateway.url.clone(),
            ..self.clone()
        }
    }

    /// The same with another key.
    pub fn with_key(&self, key: &str) -> TestClient {
        TestClient {
            key: Some(key.to_owned()),
            ..self.clone()
        }
    }

    /// The same without a key.
    pub fn without_key(&self) -> TestClient {
        TestClient {
            key: None,
            ..self.clone()
        }
    }

    /// A request to be completed by the test.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::GET, path)).await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        Reply::of(self.request(Method::POST, path).json(body)).await
    }

    /// POST of whatever text.
    pub async fn post_text(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> Reply {
        Reply::of(
            self.request(Method::POST, path)
                .header("content-type", content_type)
                .body(body),
        )
        .await
    }

    /// PATCH of JSON.
    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        Reply::of(self.request(Method::PATCH, path).json(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::DELETE, path)).await
    }
}

impl Reply {
    /// Sends a request and reads the answer.
    pub async fn of(request: RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap(),
        }
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!(
                "{error} in a body of status {}: {}",
                self.status,
                self.text()
            )
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    /// The JSON body of a 200; anything else fails the test.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The `error` object of an answer with this status; anything else fails the test.
    #[track_caller]
    pub fn error(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let error = self.json()["error"].take();
        for field in ["message", "type", "code"] {
            assert!(error[field].is_string(), "`{field}` of {error}");
        }
        error
    }

    /// A header as text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The text of the first choice of a chat completion.
    #[track_caller]
    pub fn answer(&self) -> String {
        let body = self.ok();
        body["choices"][0]["message"]["content"]
            .as_str()
            .unwrap_or_else(|| panic!("no text in {body}"))
            .to_owned()
    }

    /// The chunks of a stream, which must be well-formed and end with `[DONE]`.
    #[track_caller]
    pub fn chunks(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        let text = self.text();
        let mut events: Vec<&str> = text.split("\n\n").collect();
        assert_eq!(
            events.pop(),
            Some(""),
            "the last event ends with a blank line"
        );
        assert_eq!(events.pop(), Some("data: [DONE]"));
        let json =
            |event: &str| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        events
            .into_iter()
            .filter(|event| !event.starts_with(':'))
            .map(json)
            .collect()
    }
}

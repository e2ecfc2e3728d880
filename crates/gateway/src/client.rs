//! A small client of our own HTTP API, for the command line.

use std::time::Duration;

use holdfast_protocol::sse;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use crate::keys::Secret;

/// Where the server is when nothing says otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Connecting takes longer than this only when nobody answers.
const CONNECT_SECONDS: u64 = 5;

/// Everything but prefill and generation is answered within this.
const SHORT_SECONDS: u64 = 30;

/// No event of an answer is larger than this, bytes.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is none.
    #[error("`{0}` is not a URL of a server: write for example {DEFAULT_URL}")]
    Url(String),
    /// Nobody listens.
    #[error("no server answers at {url}: {cause}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        cause: String,
    },
    /// The server was there and then was not, or took too long.
    #[error("the connection to {url} broke: {cause}")]
    Broken {
        /// Where.
        url: String,
        /// Why.
        cause: String,
    },
    /// The server refuses.
    #[error("{message}")]
    Refused {
        /// HTTP status; 0 for an error inside a stream.
        status: u16,
        /// The server's message.
        message: String,
        /// The server's code.
        code: String,
        /// For the log.
        request_id: Option<String>,
    },
    /// An answer that is not what the API promises.
    #[error("{url} answered with something this program does not understand: {problem}")]
    Unexpected {
        /// Where.
        url: String,
        /// What.
        problem: String,
    },
}

/// A connection to one server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<Secret>,
}

/// How long an answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Looking something up.
    Short,
    /// Computing something.
    Unlimited,
}

impl Client {
    /// A client of the server at `base`, a URL without a path.
    ///
    /// # Errors
    /// `Url`.
    pub fn new(base: &str, key: Option<Secret>) -> Result<Self, ClientError> {
        let bad = || ClientError::Url(base.to_owned());
        let url = Url::parse(base).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad());
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(CONNECT_SECONDS))
            .build()
            .map_err(|_| bad())?;
        Ok(Client {
            http,
            base: url,
            key,
        })
    }

    /// Where the server is, as it was given.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Whether requests carry a key.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Sends a request and reads the JSON answer. `path` is in segments, which are escaped.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        patience: Patience,
    ) -> Result<Value, ClientError> {
        let mut request = self.request(method, path, query, body);
        if patience == Patience::Short {
            request = request.timeout(Duration::from_secs(SHORT_SECONDS));
        }
        let response = self.send(request).await?;
        let bytes = response
            .bytes()
            .await
            .map_err(|error| self.broken(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| self.unexpected(error.to_string()))
    }

    /// Sends a chat request that asks for a stream.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stream(&self, path: &[&str], body: &Value) -> Result<ChatStream, ClientError> {
        let response = self
            .send(self.request(Method::POST, path, &[], Some(body)))
            .await?;
        Ok(ChatStream {
            client: self.clone(),
            response,
            decoder: sse::Decoder::new(EVENT_BYTES_MAX),
            ready: Vec::new().into_iter(),
        })
    }

    /// Whether a server of ours answers there.
    pub async fn is_alive(&self) -> Result<(), ClientError> {
        let request = self
            .request(Method::GET, &["healthz"], &[], None)
            .timeout(Duration::from_secs(CONNECT_SECONDS));
        self.send(request).await.map(drop)
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {}", key.expose()));
        }
        if let Some(body) = body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        request
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| {
            if error.is_connect() {
                ClientError::Unreachable {
                    url: self.url().to_owned(),
                    cause: cause(&error),
                }
            } else {
                self.broken(&error)
            }
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let request_id = request_id(response.headers());
        let bytes = response.bytes().await.unwrap_or_default();
        Err(refused(status, &bytes, request_id))
    }

    fn broken(&self, error: &reqwest::Error) -> ClientError {
        let cause = if error.is_timeout() {
            "the server took too long".into()
        } else {
            cause(error)
        };
        ClientError::Broken {
            url: self.url().to_owned(),
            cause,
        }
    }

    fn unexpected(&self, problem: impl Into<String>) -> ClientError {
        ClientError::Unexpected {
            url: self.url().to_owned(),
            problem: problem.into(),
        }
    }
}

/// Chunks of an answer as they come. Dropping it cancels the answer.
#[derive(Debug)]
pub struct ChatStream {
    client: Client,
    response: Response,
    decoder: sse::Decoder,
    ready: std::vec::IntoIter<sse::Event>,
}

impl ChatStream {
    /// The next chunk; `None` after the last.
    ///
    /// # Errors
    /// See [`ClientError`]; also when the stream ends without its end mark.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            if let Some(event) = self.ready.next() {
                if event.data == "[DONE]" {
                    return Ok(None);
                }
                let value: Value = serde_json::from_str(&event.data).map_err(|error| {
                    self.client
                        .unexpected(format!("an event is not JSON: {error}"))
                })?;
                if value.get("error").is_some() {
                    return Err(refused(StatusCode::OK, event.data.as_bytes(), None));
                }
                return Ok(Some(value));
            }
            let bytes = self
                .response
                .chunk()
                .await
                .map_err(|error| self.client.broken(&error))?;
            let Some(bytes) = bytes else {
                return Err(self.client.unexpected("the answer stopped before its end"));
            };
            self.ready = self
                .decoder
                .push(&bytes)
                .map_err(|_| self.client.unexpected("an event is too large"))?
                .into_iter();
        }
    }
}

/// Reads the server's error envelope; anything else in the body is not repeated, as it is not ours.
fn refused(status: StatusCode, body: &[u8], request_id: Option<String>) -> ClientError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |field: &str| {
        body.pointer(&format!("/error/{field}"))
            .and_then(Value::as_str)
    };
    ClientError::Refused {
        status: if status.is_success() {
            0
        } else {
            status.as_u16()
        },
        message: text("message")
            .map_or_else(|| format!("the server answered {status}"), str::to_owned),
        code: text("code").unwrap_or_default().to_owned(),
        request_id,
    }
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("x-request-id")?.to_str().ok()?.to_owned())
}

/// The innermost cause: the outer ones repeat the URL.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;

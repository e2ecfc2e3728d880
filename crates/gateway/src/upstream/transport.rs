//! HTTP to one upstream: connections are kept, everything has a time and a size.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use holdfast_protocol::upstream::{Failure, FailureKind, HttpCall, Method};
use http_body::{Body, Frame, SizeHint};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::auth::Authorizer;
use super::options::{Timeouts, UpstreamOptions};
use crate::app::Clock;
use crate::telemetry;

/// Largest whole answer (an error, a created handle), bytes.
const WHOLE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Idle connections kept, per upstream.
const IDLE_CONNECTIONS_MAX: usize = 256;

/// Sends calls to one server of an upstream.
#[derive(Clone)]
pub(crate) struct Transport {
    client: reqwest::Client,
    base_url: String,
    query: String,
    headers: HeaderMap,
    authorizer: Arc<Authorizer>,
    timeouts: Timeouts,
}

/// An answer whose head has come.
pub(crate) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    response: reqwest::Response,
    idle: Duration,
}

impl Transport {
    pub(super) fn new(options: &UpstreamOptions, clock: &Clock) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .connect_timeout(options.timeouts.connect)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .tcp_nodelay(true)
            // A redirect would carry the key to somewhere else.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("no HTTP client: {error}"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &options.headers {
            let name = HeaderName::try_from(name.as_str())
                .map_err(|_| format!("`{name}` is not a header"))?;
            let mut value = HeaderValue::try_from(value.as_str())
                .map_err(|_| format!("the value of header `{name}` can't be sent"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Transport {
            authorizer: Arc::new(Authorizer::new(options, client.clone(), clock)?),
            client,
            base_url: options.base_url.trim_end_matches('/').to_owned(),
            query: options.query.clone(),
            headers,
            timeouts: options.timeouts,
        })
    }

    /// The same for another server.
    #[must_use]
    pub(super) fn at(&self, url: &str) -> Self {
        Transport {
            base_url: url.trim_end_matches('/').to_owned(),
            ..self.clone()
        }
    }

    /// Whether the server answers a request for `url`, which is its own, with success within `wait`.
    pub(super) async fn is_well(&self, url: &str, wait: Duration) -> bool {
        let Ok(url) = reqwest::Url::parse(url) else {
            return false;
        };
        let asked = async {
            let (method, mut headers) = (reqwest::Method::GET, self.headers.clone());
            self.authorizer
                .authorize(&method, &url, &mut headers, &[])
                .await?;
            let request = self.client.request(method, url).headers(headers);
            request.send().await.map_err(|error| connection(&error))
        };
        let answered = tokio::time::timeout(wait, asked).await;
        answered.is_ok_and(|reply| reply.is_ok_and(|reply| reply.status().is_success()))
    }

    /// Sends a call and waits for the head of the answer.
    pub(super) async fn send(&self, call: HttpCall) -> Result<Reply, Failure> {
        let wait = self.timeouts.first_byte;
        tokio::time::timeout(wait, self.send_unbounded(call))
            .await
            .unwrap_or_else(|_| Err(timeout("the head of the answer")))
    }

    async fn send_unbounded(&self, call: HttpCall) -> Result<Reply, Failure> {
        let mut url = format!("{}{}", self.base_url, call.path);
        if !self.query.is_empty() {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&self.query);
        }
        let method = match call.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let url = reqwest::Url::parse(&url)
            .map_err(|_| Failure::new(FailureKind::InvalidRequest, "the URL is malformed"))?;
        let mut headers = self.headers.clone();
        for (name, value) in &call.headers {
            if let Ok(value) = HeaderValue::try_from(value.as_str()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        if !call.body.is_empty() {
            headers
                .entry(CONTENT_TYPE)
                .or_insert(HeaderValue::from_static("application/json"));
        }
        self.authorizer
            .authorize(&method, &url, &mut headers, &call.body)
            .await?;
        if let Some(trace) = telemetry::traceparent()
            && let Ok(value) = HeaderValue::try_from(trace)
        {
            // After the signature, which need not cover it.
            headers.insert(telemetry::TRACEPARENT, value);
        }
        let mut request = self.client.request(method, url).headers(headers);
        if !call.body.is_empty() {
            request = request.body(reqwest::Body::wrap(Pieces::new(call.body)));
        }
        let response = request.send().await.map_err(|error| connection(&error))?;
        Ok(Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            response,
            idle: self.timeouts.idle,
        })
    }
}

impl Reply {
    /// More of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        tokio::time::timeout(self.idle, self.first_chunk())
            .await
            .unwrap_or_else(|_| Err(timeout("more of the answer")))
    }

    /// Like [`Reply::chunk`], for whoever bounds the wait: a model may think for long before its first word.
    pub(super) async fn first_chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let chunk = self.response.chunk().await;
        chunk.map_err(|error| connection(&error))
    }

    /// The whole body.
    pub(super) async fn whole(mut self) -> Result<Bytes, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > WHOLE_BYTES_MAX {
                return Err(Failure::malformed());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }
}

fn timeout(what: &str) -> Failure {
    Failure::new(
        FailureKind::Timeout,
        &format!("{what} did not come in time"),
    )
}

/// reqwest's own text holds the URL, which may hold a key; so only the kind is kept.
fn connection(error: &reqwest::Error) -> Failure {
    let text = if error.is_connect() {
        "the upstream can't be reached"
    } else if error.is_timeout() {
        return timeout("the connection");
    } else {
        "the connection broke"
    };
    Failure::new(FailureKind::Connection, text)
}

/// A body of several pieces with a known length, so that a large prefix is neither copied nor sent in chunks.
struct Pieces {
    pieces: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl Pieces {
    fn new(pieces: Vec<Bytes>) -> Self {
        Pieces {
            left: pieces.iter().map(|piece| piece.len() as u64).sum(),
            pieces: pieces.into_iter(),
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let piece = this.pieces.find(|piece| !piece.is_empty());
        Poll::Ready(piece.map(|piece| {
            this.left -= piece.len() as u64;
            Ok(Frame::data(piece))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

//! The way to the collector.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig as _};
use tokio::runtime::Handle;

use super::TelemetryOptions;

/// How long one export may take.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(10);

/// What the providers of traces and metrics write to.
pub(super) struct Exporters {
    pub(super) spans: SpanExporter,
    pub(super) metrics: MetricExporter,
}

impl Exporters {
    pub(super) fn new(options: &TelemetryOptions) -> Result<Self, String> {
        let client: Arc<dyn HttpClient> = Arc::new(Client::new()?);
        let endpoint = options.endpoint.trim_end_matches('/');
        let headers = options
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.expose().to_owned()));
        let headers: std::collections::HashMap<String, String> = headers.collect();
        let failed = |error: opentelemetry_otlp::ExporterBuildError| error.to_string();
        Ok(Exporters {
            spans: SpanExporter::builder()
                .with_http()
                .with_shared_http_client(Arc::clone(&client))
                .with_headers(headers.clone())
                .with_endpoint(format!("{endpoint}/v1/traces"))
                .with_timeout(EXPORT_TIME_MAX)
                .build()
                .map_err(failed)?,
            metrics: MetricExporter::builder()
                .with_http()
                .with_shared_http_client(client)
                .with_headers(headers)
                .with_endpoint(format!("{endpoint}/v1/metrics"))
                .with_timeout(EXPORT_TIME_MAX)
                .build()
                .map_err(failed)?,
        })
    }
}

/// The providers export on threads of their own, where there is no runtime; the requests are sent on ours.
struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    fn new() -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .timeout(EXPORT_TIME_MAX)
            // A redirect would carry the headers to somewhere else.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("no HTTP client: {error}"))?;
        Ok(Client {
            http,
            runtime: Handle::try_current().map_err(|error| error.to_string())?,
        })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let http = self.http.clone();
        // All of it: even the timer of a request wants a runtime around it.
        let sent = self.runtime.spawn(async move {
            let request = http.request(head.method, head.uri.to_string());
            let response = request.headers(head.headers).body(body).send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, response.bytes().await?))
        });
        let (status, headers, body) = match sent.await? {
            Ok(answered) => answered,
            Err(error) => {
                // Without the URL, which may hold a token.
                let error = error.without_url();
                tracing::warn!(%error, "the collector of telemetry can't be reached");
                return Err(error.into());
            }
        };
        if !status.is_success() {
            tracing::warn!(
                status = status.as_u16(),
                "the collector of telemetry refuses what it is sent"
            );
        }
        let mut response = Response::builder().status(status).body(body)?;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

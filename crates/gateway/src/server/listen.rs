//! Sockets: accept, serve HTTP/1.1 and HTTP/2, stop gracefully.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::router;
use crate::app::App;
use crate::service::Service;
use crate::tls::Certificates;

/// A client has so long to send a request's head, counted from the connection or from the request before.
const HEAD_TIME_MAX: Duration = Duration::from_secs(75);

/// A client has so long for its part of a TLS handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// After a failed accept (out of file descriptors) the next try waits, so that the log does not overflow.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// hyper refuses smaller buffers.
const HEADER_BYTES_MIN: usize = 8 * 1024;

/// Most streams at once on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 256;

/// Serves, with TLS if there are `certificates`, until `shutdown` is cancelled, then stops accepting and lets requests finish for at most `drain`. What still
/// runs after that is cut off.
///
/// # Errors
/// The listener has no address.
pub async fn serve(
    service: Arc<Service>,
    listener: TcpListener,
    certificates: Option<Certificates>,
    shutdown: CancellationToken,
    drain: Duration,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening");
    let front = Front::new(service);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            // Finished connections are collected as they end.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // Each event of a stream is a small packet that must not wait for the one before to be confirmed.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection is gone already");
            continue;
        }
        let front = front.clone();
        let watcher = graceful.watcher();
        let acceptor = certificates.as_ref().map(Certificates::acceptor);
        let stopping = shutdown.clone();
        connections.spawn(async move {
            tokio::select! {
                biased;
                speaks = speaks_in_time(&stream) => if !speaks { return },
                // A spare connection that some client keeps has no request to wait for.
                () = stopping.cancelled() => return,
            }
            let Some(acceptor) = acceptor else {
                return front.serve_connection(stream, watcher).await;
            };
            match tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => front.serve_connection(stream, watcher).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        });
    }
    drop(listener);
    tracing::info!("no more connections are accepted; running requests may finish");
    if tokio::time::timeout(drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "cutting off what has not finished in time"
        );
    }
    connections.shutdown().await;
    Ok(())
}

/// Gives each request to the application as it is when the request begins.
#[derive(Clone)]
struct Front {
    service: Arc<Service>,
    routed: Arc<ArcSwap<Routed>>,
}

/// An application and its routes.
struct Routed {
    app: Arc<App>,
    router: Router,
}

impl Routed {
    fn new(app: Arc<App>) -> Arc<Self> {
        Arc::new(Routed {
            router: router(Arc::clone(&app)),
            app,
        })
    }
}

impl Front {
    fn new(service: Arc<Service>) -> Self {
        Front {
            routed: Arc::new(ArcSwap::new(Routed::new(service.app()))),
            service,
        }
    }

    /// The routes of the present application. They are made again at the first request after a reload.
    fn router(&self) -> Router {
        let app = self.service.app();
        let routed = self.routed.load();
        if Arc::ptr_eq(&routed.app, &app) {
            return routed.router.clone();
        }
        let routed = Routed::new(app);
        self.routed.store(Arc::clone(&routed));
        routed.router.clone()
    }

    async fn serve_connection(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        watcher: Watcher,
    ) {
        let limits = &self.service.app().limits;
        let (header_bytes_max, fields_max) = (limits.header_bytes_max, limits.header_fields_max);
        let connection = builder(header_bytes_max, fields_max)
            .serve_connection(TokioIo::new(stream), self)
            .into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended with an error");
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = TowerToHyperServiceFuture<Router, Request<Incoming>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Arc::clone(&self.service));
        TowerToHyperService::new(self.router()).call(request)
    }
}

/// What has somewhat more than the limits is still read, so that it can be refused in words that its client knows.
fn builder(header_bytes_max: usize, fields_max: usize) -> Builder<TokioExecutor> {
    let header_bytes = header_bytes_max.max(HEADER_BYTES_MIN).saturating_mul(2);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_headers(fields_max.saturating_mul(2))
        .max_buf_size(header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .keep_alive_interval(HEAD_TIME_MAX);
    builder
}

/// Whether the first byte comes in time. hyper's own limit starts only when it knows the protocol's version.
async fn speaks_in_time(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(
        tokio::time::timeout(HEAD_TIME_MAX, stream.peek(&mut first)).await,
        Ok(Ok(1))
    )
}

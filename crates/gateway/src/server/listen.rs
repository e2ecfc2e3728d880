//! Sockets: accept, serve HTTP/1.1 and HTTP/2, stop gracefully.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::router;
use crate::app::App;

/// A client has so long to send a request's head, counted from the connection or from the request before.
const HEAD_TIME_MAX: Duration = Duration::from_secs(75);

/// After a failed accept (out of file descriptors) the next try waits, so that the log does not overflow.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// hyper refuses smaller buffers.
const HEADER_BYTES_MIN: usize = 8 * 1024;

/// Most streams at once on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 256;

/// Serves until `shutdown` is cancelled, then stops accepting and lets requests finish for at most `drain`. What still
/// runs after that is cut off.
///
/// # Errors
/// The listener has no address.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    shutdown: CancellationToken,
    drain: Duration,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening");
    let builder = builder(app.limits.header_bytes_max);
    let service = TowerToHyperService::new(router(app));
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
        let builder = builder.clone();
        let service = service.clone();
        let watcher = graceful.watcher();
        connections.spawn(async move {
            if !speaks_in_time(&stream).await {
                return;
            }
            let connection = builder
                .serve_connection(TokioIo::new(stream), service)
                .into_owned();
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(error = %error, "a connection ended with an error");
            }
        });
    }
    drop(listener);
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

fn builder(header_bytes_max: usize) -> Builder<TokioExecutor> {
    let header_bytes = header_bytes_max.max(HEADER_BYTES_MIN);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
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

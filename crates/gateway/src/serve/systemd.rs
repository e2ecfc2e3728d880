//! What a service manager hands over and wants to know: systemd's socket activation and readiness, without its library.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::ServeError;

/// The socket that a service manager has opened for this process (`LISTEN_FDS`), if it has. It goes on listening while
/// the process is replaced, so that no connection is refused meanwhile.
///
/// # Errors
/// What was handed over is no listening TCP socket.
pub(super) fn inherited_listener() -> Result<Option<TcpListener>, ServeError> {
    let failed = |error: std::io::Error| {
        ServeError::new(format!(
            "the socket that the service manager has handed over can't be used: {error}"
        ))
        .help("the unit's socket has to be one of `ListenStream=` with an address and port")
    };
    let mut handed = listenfd::ListenFd::from_env();
    let Some(listener) = handed.take_tcp_listener(0).map_err(failed)? else {
        return Ok(None);
    };
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(Some(listener))
}

/// Tells the service manager how things stand (`NOTIFY_SOCKET`), if it has asked: `READY=1`, `STOPPING=1`.
pub(super) fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let path = path.as_encoded_bytes();
    let sent = UnixDatagram::unbound().and_then(|socket| {
        let address = match path.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
        };
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager can't be told how things stand");
    }
}

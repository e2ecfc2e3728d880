//! A wire that tests can damage: a proxy between whoever connects and a server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// Between two pieces of a slow answer.
const SLOW_PAUSE: Duration = Duration::from_millis(10);

/// What the wire does to connections, those that are open and those that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Bytes pass in both directions.
    Pass,
    /// Open connections end at once, and so do new ones.
    Cut,
    /// Connections are taken and stay open, but no byte passes. One that has met this never passes a byte again: it ends
    /// with the fault.
    Stall,
    /// So many bytes of answers pass in a second, on each connection. Requests pass at once.
    Slow(u64),
    /// Each piece of an answer passes so much later.
    Late(Duration),
    /// So many bytes of answers pass on each connection, and then it ends.
    Half(u64),
}

/// A proxy on a loopback port. Ends with all its connections when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where to connect to.
    pub address: SocketAddr,
    wire: watch::Sender<Wire>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// In front of the server at `HOST:PORT`, with a whole wire.
    pub async fn start(server: &str) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("some port is free");
        let address = listener.local_addr().expect("a listener knows its address");
        let wire = watch::Sender::new(Wire::Pass);
        let serving = tokio::spawn(accept(listener, server.to_owned(), wire.subscribe()));
        Proxy {
            address,
            wire,
            serving,
        }
    }

    /// From now on the wire is like this.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(listener: TcpListener, server: String, wire: watch::Receiver<Wire>) {
    // They end with this set, and so with the proxy.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                connections.spawn(connection(client, server.clone(), wire.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(client: TcpStream, server: String, mut wire: watch::Receiver<Wire>) {
    let now = *wire.borrow_and_update();
    match now {
        Wire::Cut => return,
        Wire::Stall => return swallow(&mut wire).await,
        Wire::Pass | Wire::Slow(_) | Wire::Late(_) | Wire::Half(_) => {}
    }
    let Ok(server) = TcpStream::connect(&server).await else {
        return;
    };
    // Small pieces would wait for each other otherwise.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Not only when the next byte comes, which may be never.
    let mut cut = wire.clone();
    // The server's end is the connection's; the client's end is passed on, and an answer may still come.
    tokio::select! {
        () = answers(from_server, to_client, wire.clone()) => {}
        () = requests(from_client, to_server, wire) => {}
        _ = cut.wait_for(|wire| *wire == Wire::Cut) => {}
    }
}

/// Reads nothing until the fault is over.
async fn swallow(wire: &mut watch::Receiver<Wire>) {
    // An error is the proxy's end.
    let _ = wire.changed().await;
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut wire: watch::Receiver<Wire>,
) {
    let mut bytes = vec![0; PIECE_BYTES];
    loop {
        if *wire.borrow_and_update() == Wire::Stall {
            return swallow(&mut wire).await;
        }
        tokio::select! {
            biased;
            changed = wire.changed() => if changed.is_err() { return },
            read = from.read(&mut bytes) => match read {
                Ok(0) => {
                    let _ = to.shutdown().await;
                    std::future::pending::<()>().await;
                }
                Ok(length) => if to.write_all(&bytes[..length]).await.is_err() { return },
                Err(_) => return,
            },
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut wire: watch::Receiver<Wire>) {
    let mut bytes = vec![0; PIECE_BYTES];
    let mut passed = 0;
    loop {
        let now = *wire.borrow_and_update();
        let length_max = match now {
            Wire::Stall => return swallow(&mut wire).await,
            Wire::Pass | Wire::Late(_) | Wire::Cut => PIECE_BYTES,
            Wire::Slow(bytes_per_second) => {
                tokio::time::sleep(SLOW_PAUSE).await;
                piece(bytes_per_second * SLOW_PAUSE.as_millis() as u64 / 1000)
            }
            Wire::Half(bytes) if passed >= bytes => return,
            Wire::Half(bytes) => piece(bytes - passed),
        };
        tokio::select! {
            biased;
            changed = wire.changed() => match changed {
                Ok(()) => passed = 0,
                Err(_) => return,
            },
            read = from.read(&mut bytes[..length_max]) => match read {
                Ok(length @ 1..) => {
                    if let Wire::Late(pause) = now {
                        tokio::time::sleep(pause).await;
                    }
                    passed += length as u64;
                    if to.write_all(&bytes[..length]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

fn piece(bytes: u64) -> usize {
    usize::try_from(bytes).map_or(PIECE_BYTES, |bytes| bytes.clamp(1, PIECE_BYTES))
}

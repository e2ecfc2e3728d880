//! A wire that can be cut, held and slowed down: a proxy in front of a server.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// They arrive.
    Fair,
    /// Each piece arrives so late.
    Slow(Duration),
    /// Nothing arrives any more, and nobody is told.
    Stalled,
    /// Connections are closed, and new ones at once.
    Cut,
}

/// A proxy to one server.
pub struct Wire {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
}

impl Wire {
    /// To a server there, in fair weather.
    pub async fn to(server: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, seen) = watch::channel(Weather::Fair);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let weather = seen.clone();
                tokio::spawn(pass(client, server, weather));
            }
        });
        Wire {
            address,
            weather,
            task,
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather, for open connections too.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = one_way(from_client, to_server, weather.clone());
    let back = one_way(from_server, to_client, weather.clone());
    tokio::select! {
        _ = there => {}
        _ = back => {}
        _ = weather.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) -> Option<()> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let length = from
            .read(&mut piece)
            .await
            .ok()
            .filter(|length| *length > 0)?;
        let now = *weather
            .wait_for(|weather| *weather != Weather::Stalled)
            .await
            .ok()?;
        if let Weather::Slow(pause) = now {
            tokio::time::sleep(pause).await;
        }
        to.write_all(&piece[..length]).await.ok()?;
    }
}

//! The Redis or Valkey that several servers share beside the database. What is in it may be lost at any time, and nobody
//! waits for it: while it is away or slow, everything goes on without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rand::RngExt;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, Script, ScriptInvocation,
};
use tokio::time::error::Elapsed;

use crate::events::Events;
use crate::keys::Secret;

/// How long anybody waits for an answer. Beyond this it counts as away.
const ANSWER_WAIT: Duration = Duration::from_millis(250);

/// How long connecting may take.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// Between two signs of life, and between two attempts to find it again.
pub(crate) const BEAT_EVERY: Duration = Duration::from_millis(500);

/// A server that has given no sign of life for so long does not count as a replica, milliseconds.
const REPLICA_MS: u64 = 5_000;

/// Where it is and what its keys are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedOptions {
    /// `redis://` or `rediss://`; may have a password in it.
    pub url: Secret,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// Whether messages of contexts in use may be in it, as plain text.
    pub contexts: bool,
}

impl SharedOptions {
    /// With the usual prefix.
    pub fn new(url: impl Into<String>) -> Self {
        SharedOptions {
            url: Secret::new(url),
            prefix: "holdfast".to_owned(),
            contexts: true,
        }
    }

    /// What is wrong with the URL, if anything is. The text does not repeat it.
    pub fn problem(&self) -> Option<&'static str> {
        match Client::open(self.url.expose()) {
            Ok(_) => None,
            Err(_) => Some("is not the URL of a Redis"),
        }
    }

    /// Whether it answers now, for those who look after a server.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn probe(&self) -> Result<(), String> {
        let client = Client::open(self.url.expose()).map_err(|error| cause(&error))?;
        let asked = async {
            let mut connection = connect(&client).await?;
            redis::cmd("PING")
                .query_async::<String>(&mut connection)
                .await
        };
        match tokio::time::timeout(CONNECT_WAIT * 2, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(cause(&error)),
            Err(_) => Err("it does not answer".to_owned()),
        }
    }
}

/// It is away, or what was asked failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Away;

/// The connection to it, while there is one.
pub(crate) struct Shared {
    client: Client,
    prefix: String,
    /// Names this process among the replicas.
    replica: String,
    connection: ArcSwapOption<MultiplexedConnection>,
    replicas: AtomicU64,
    beat: Script,
    events: Arc<Events>,
}

impl Shared {
    /// Not connected yet; see [`Shared::beat`].
    ///
    /// # Errors
    /// The URL is none.
    pub(crate) fn new(options: &SharedOptions, events: Arc<Events>) -> Result<Self, String> {
        let client = Client::open(options.url.expose())
            .map_err(|error| format!("`shared.url`: {}", cause(&error)))?;
        let replica: u128 = rand::rng().random();
        Ok(Shared {
            client,
            prefix: options.prefix.clone(),
            replica: format!("{replica:032x}"),
            connection: ArcSwapOption::empty(),
            replicas: AtomicU64::new(1),
            beat: Script::new(include_str!("shared/beat.lua")),
            events,
        })
    }

    /// A key's name.
    pub(crate) fn key(&self, kind: &str, name: &str) -> String {
        format!("{}:{kind}:{name}", self.prefix)
    }

    /// Servers that gave signs of life when it was last there, this one included.
    pub(crate) fn replicas(&self) -> u64 {
        self.replicas.load(Ordering::Relaxed).max(1)
    }

    /// Whether it is there as far as anybody knows.
    pub(crate) fn is_up(&self) -> bool {
        self.connection.load().is_some()
    }

    /// Runs a script, unless it is away; if the answer does not come in time, it is from now on.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Away> {
        let Some(connection) = self.connection.load_full() else {
            return Err(Away);
        };
        let mut own = MultiplexedConnection::clone(&connection);
        let answer = tokio::time::timeout(ANSWER_WAIT, script.invoke_async(&mut own)).await;
        self.checked(&connection, answer)
    }

    /// The same for a command.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Away> {
        let Some(connection) = self.connection.load_full() else {
            return Err(Away);
        };
        let mut own = MultiplexedConnection::clone(&connection);
        let answer = tokio::time::timeout(ANSWER_WAIT, command.query_async(&mut own)).await;
        self.checked(&connection, answer)
    }

    /// What has been answered; without an answer, nobody uses this connection any more.
    fn checked<T>(
        &self,
        connection: &Arc<MultiplexedConnection>,
        answer: Result<Result<T, RedisError>, Elapsed>,
    ) -> Result<T, Away> {
        let why = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => cause(&error),
            Err(_) => "it does not answer in time".to_owned(),
        };
        // Somebody else may have noticed, and there may be a new one already.
        let current = self
            .connection
            .compare_and_swap(&Some(Arc::clone(connection)), None);
        let current = Option::as_ref(&current);
        if current.is_some_and(|current| Arc::ptr_eq(current, connection)) {
            tracing::warn!(why, "what servers share is away; this one goes on alone");
            self.events.shared_is_up(false);
        }
        Err(Away)
    }

    /// Gives a sign of life and counts the replicas. Connects where there is no connection.
    pub(crate) async fn beat(&self) {
        let mut script = self.beat.prepare_invoke();
        script.key(self.key("replicas", "alive"));
        script.arg(&self.replica).arg(REPLICA_MS);
        if self.is_up() {
            if let Ok(replicas) = self.run::<u64>(&script).await {
                self.count(replicas);
            }
            return;
        }
        // It is back when it takes what is written, and in time.
        let found = async {
            let mut connection = connect(&self.client).await?;
            let beat = script.invoke_async::<u64>(&mut connection);
            let beat = tokio::time::timeout(ANSWER_WAIT, beat).await;
            match beat {
                Ok(replicas) => Ok(Some((connection, replicas?))),
                Err(_) => Ok(None),
            }
        };
        match tokio::time::timeout(CONNECT_WAIT * 2, found).await {
            Ok(Ok(Some((connection, replicas)))) => {
                self.count(replicas);
                self.connection.store(Some(Arc::new(connection)));
                self.events.shared_is_up(true);
                tracing::info!(replicas, "what servers share is there");
            }
            Ok(Ok(None)) | Err(_) => tracing::debug!("what servers share does not answer in time"),
            Ok(Err(error)) => {
                let error: RedisError = error;
                tracing::debug!(why = cause(&error), "what servers share is away");
            }
        }
    }

    /// Tells the others that this server ends.
    pub(crate) async fn leave(&self) {
        let mut script = self.beat.prepare_invoke();
        script.key(self.key("replicas", "alive"));
        script.arg(&self.replica).arg(0);
        // If they are not told, they see it after some seconds.
        let _ = self.run::<u64>(&script).await;
    }

    fn count(&self, replicas: u64) {
        self.replicas.store(replicas.max(1), Ordering::Relaxed);
        self.events.shared_replicas(replicas);
    }
}

async fn connect(client: &Client) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WAIT))
        .set_response_timeout(Some(CONNECT_WAIT));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// What went wrong, without the server's own words, which may repeat what it was sent: only the one that they begin with.
fn cause(error: &RedisError) -> String {
    let is_word = |code: &&str| code.bytes().all(|byte| byte.is_ascii_uppercase());
    match error.code().filter(is_word) {
        Some(code) => format!("{} ({code})", error.category()),
        None => error.category().to_owned(),
    }
}

//! Whether there is a server.
//!
//! The pool tries to connect until the caller's time is up. While a server is away that would hold up every request for
//! all of that time, also those that can be answered without the database. So the first to wait for longer than usual
//! has somebody look; if there is no server, all others are told at once, until the one who looks has found it again.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::sync::watch;

use super::failure::{Failure, failure};
use crate::StoreError;

/// How long a connection may have been idle to be used without a look at whether it still lives.
pub(super) const IDLE_TRUSTED: Duration = Duration::from_secs(1);

/// Longer than it takes to open a connection; beyond it all are in use, or there is no server.
const PATIENCE: Duration = Duration::from_millis(250);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// What is known of the server.
pub(super) struct Reach {
    connect: PgConnectOptions,
    connection_wait: Duration,
    /// Why it can't be used, while it can't.
    away: watch::Sender<Option<String>>,
    is_looking: AtomicBool,
}

impl Reach {
    pub(super) fn new(connect: PgConnectOptions, connection_wait: Duration) -> Self {
        Reach {
            connect,
            connection_wait,
            away: watch::Sender::new(None),
            is_looking: AtomicBool::new(false),
        }
    }

    /// What `acquire` gives, unless it turns out meanwhile that there is no server.
    pub(super) async fn unless_away<T>(
        self: &Arc<Self>,
        acquire: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let mut away = self.away.subscribe();
        let known = away.borrow().clone();
        if let Some(reason) = known {
            return Err(StoreError::Unavailable(reason).into());
        }
        let mut acquire = pin!(acquire);
        loop {
            let known = tokio::select! {
                biased;
                acquired = &mut acquire => return Ok(acquired),
                known = away.wait_for(Option::is_some) => known,
                () = tokio::time::sleep(PATIENCE) => {
                    self.look();
                    continue;
                }
            };
            // The sender is part of `self`, so there is a reason.
            let reason = known.ok().and_then(|reason| reason.clone());
            return Err(StoreError::Unavailable(reason.unwrap_or_default()).into());
        }
    }

    /// Has somebody look, unless somebody is at it.
    fn look(self: &Arc<Self>) {
        if self.is_looking.swap(true, Ordering::Relaxed) {
            return;
        }
        let reach = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(is_away) = look_once(&reach).await {
                tokio::time::sleep(PAUSE).await;
                if !is_away {
                    break;
                }
            }
            if let Some(reach) = reach.upgrade() {
                reach.is_looking.store(false, Ordering::Relaxed);
            }
        });
    }

    async fn problem(&self) -> Option<String> {
        let opened =
            tokio::time::timeout(self.connection_wait, Box::pin(self.connect.connect())).await;
        match opened {
            Ok(Ok(connection)) => {
                let _ = connection.close().await;
                None
            }
            // It is there, and has enough to do.
            Ok(Err(error)) if is_full(&error) => None,
            Ok(Err(error)) => Some(match failure(error) {
                StoreError::Unavailable(reason) => reason,
                other => other.to_string(),
            }),
            Err(_) => Some("the database does not answer".to_owned()),
        }
    }
}

/// Whether to look again; nothing when the store has gone.
async fn look_once(reach: &Weak<Reach>) -> Option<bool> {
    let reach = reach.upgrade()?;
    let problem = reach.problem().await;
    let is_away = problem.is_some();
    let before = reach.away.send_replace(problem);
    match (before.is_some(), is_away) {
        (false, true) => tracing::warn!(
            reason = reach.away.borrow().as_deref(),
            "the database is away"
        ),
        (true, false) => tracing::info!("the database is back"),
        _ => {}
    }
    Some(is_away)
}

/// `too_many_connections`.
fn is_full(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some("53300")
}

//! Who does what to projects, keys, configuration and storage. An act is noted before it is done, so that none is done
//! without being noted; what then fails gets an entry that says so.

use holdfast_protocol::{ApiError, UnixMillis};
use holdfast_store::{AuditEntry, AuditStore, StoreError};
use serde_json::{Value, json};

/// Who acts, and at which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    name: String,
    request: Option<String>,
}

impl Actor {
    /// A key, in a request.
    pub(crate) fn key(id: &str, request: Option<&str>) -> Self {
        Actor {
            name: id.to_owned(),
            request: request.map(str::to_owned),
        }
    }

    /// Somebody on this machine, by the command line and in the store itself.
    pub(crate) fn local() -> Self {
        Actor::word("local")
    }

    /// The start of a server.
    pub(crate) fn start() -> Self {
        Actor::word("start")
    }

    /// The configuration.
    pub(crate) fn config() -> Self {
        Actor::word("config")
    }

    /// Somebody on this machine who sent a signal.
    pub fn signal() -> Self {
        Actor::word("signal")
    }

    fn word(name: &str) -> Self {
        Actor {
            name: name.to_owned(),
            request: None,
        }
    }
}

/// Notes what an actor does.
pub(crate) struct Audit<'a> {
    pub(crate) log: &'a dyn AuditStore,
    pub(crate) actor: Actor,
    pub(crate) now: UnixMillis,
}

/// What is to be noted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Act<'a> {
    /// Such as `key.create`.
    pub(crate) name: &'a str,
    /// The id of a key or the name of a project.
    pub(crate) target: &'a str,
    /// Whose it is.
    pub(crate) project: Option<&'a str>,
}

/// An act that has been noted, and may be done.
#[must_use]
pub(crate) struct Noted {
    entry: AuditEntry,
    sequence: u64,
}

impl Audit<'_> {
    /// Notes what is about to be done. `details`: what changes; never a secret.
    ///
    /// # Errors
    /// It can't be noted, and so must not be done.
    pub(crate) async fn note(&self, act: Act<'_>, details: Value) -> Result<Noted, StoreError> {
        let entry = AuditEntry {
            at: self.now,
            actor: self.actor.name.clone(),
            act: act.name.to_owned(),
            target: act.target.to_owned(),
            project: act.project.map(str::to_owned),
            request: self.actor.request.clone(),
            details: details.to_string(),
        };
        let record = self.log.append_audit(&entry).await.inspect_err(|error| {
            tracing::error!(%error, act = act.name, "the audit log can't be written; nothing was done");
        })?;
        Ok(Noted {
            entry,
            sequence: record.sequence,
        })
    }

    /// Notes that it was not done after all, or may not have been.
    pub(crate) async fn failed(&self, noted: Noted) {
        let entry = AuditEntry {
            act: format!("{}.failed", noted.entry.act),
            details: json!({"entry": noted.sequence}).to_string(),
            ..noted.entry
        };
        if let Err(error) = self.log.append_audit(&entry).await {
            tracing::error!(%error, entry = noted.sequence, "the audit log does not say that an act has failed");
        }
    }

    /// Notes what is about to be done, does it, and notes if it fails. The error says which of the two failed.
    pub(crate) async fn around<T, E>(
        &self,
        act: Act<'_>,
        details: Value,
        done: impl Future<Output = Result<T, E>>,
    ) -> Result<Result<T, E>, StoreError> {
        let noted = self.note(act, details).await?;
        let done = done.await;
        if done.is_err() {
            self.failed(noted).await;
        }
        Ok(done)
    }
}

/// What a client is told whose act could not be noted.
pub(crate) fn not_noted(_error: StoreError) -> ApiError {
    ApiError::unavailable(
        "The audit log can't be written, and so nothing was changed. Try again in a moment.",
    )
}

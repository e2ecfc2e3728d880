//! `holdfast storage`: in the store itself, beside a server or without one.

use std::time::{Duration, Instant};

use clap::Subcommand;
use holdfast_store::{ResealPosition, StoreError};
use serde_json::json;

use crate::audit::{Act, Actor, Audit};
use crate::config::StorageConfig;
use crate::serve::{DataDir, OpenStore, data_keys, now};

use super::{Failure, Session};

/// Few enough that nobody waits for them.
const ROWS_AT_A_TIME: u32 = 32;

/// Between two steps, so that a server's writes get in between.
const PAUSE: Duration = Duration::from_millis(5);

/// Between two lines about how far it is.
const SHOWN_EVERY: Duration = Duration::from_secs(2);

/// How often the log of SQLite is tried to be emptied while a server reads.
const EMPTYING_TRIES: u32 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum StorageCommand {
    /// Seal everything that is stored with the present data key: what was stored before there was one, or under
    /// another one. Servers may go on meanwhile; it can be stopped and started again
    Seal {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(session: &Session, command: StorageCommand) -> Result<(), Failure> {
    let StorageCommand::Seal { json } = command;
    let sealed = seal(session)
        .await
        .map_err(|failure| failure.doing("seal what is stored"))?;
    let with = sealed.with.as_deref();
    if json {
        session.output.json(&json!({
            "key": with,
            "rows": sealed.rows,
            "sealed": sealed.changed,
        }));
        return Ok(());
    }
    let how = match with {
        Some(id) => format!("sealed with the data key {id}"),
        None => "stored without a data key".to_owned(),
    };
    session.output.line(&format!(
        "{} of {} rows were changed; all are {how} now",
        sealed.changed, sealed.rows
    ));
    Ok(())
}

struct Sealed {
    /// The key's id.
    with: Option<String>,
    rows: u64,
    changed: u64,
}

async fn seal(session: &Session) -> Result<Sealed, Failure> {
    let config = session.config()?;
    if config.encryption.key.is_none() && config.encryption.previous.is_empty() {
        return Err(Failure::new("there is no data key").help(
            "name one as `key` in [storage.encryption] and start the servers with it first",
        ));
    }
    let data_dir = DataDir::new(&config.server.data_dir);
    let is_own = config.storage == StorageConfig::Sqlite;
    if is_own && !data_dir.database().is_file() {
        return Err(Failure::new(format!(
            "there is no database in {}",
            data_dir.path().display()
        ))
        .help("name the server's folder with --data-dir, or its configuration with --config"));
    }
    // Held where no server has it: none must start half-way with another key.
    let lock = match is_own && !data_dir.is_locked() {
        true => Some(data_dir.lock()?),
        false => None,
    };
    let keys = data_keys(&config).await?;
    let store = OpenStore::open_beside(&config.storage, &keys, &data_dir).await?;
    let sealed = async {
        let used = store.data_keys().await.map_err(failed)?;
        if keys.current().is_some_and(|id| !used.contains(&id)) && lock.is_none() {
            return Err(Failure::new(
                "no server has been started with this data key yet, and none could read what it seals",
            )
            .help("restart the servers with the new `key` and the old one in `previous_keys`, then do this again"));
        }
        let opened = store.store();
        let audit = Audit {
            log: &*opened,
            actor: Actor::local(),
            now: now(),
        };
        let act = Act {
            name: "storage.seal",
            target: "",
            project: None,
        };
        let details = json!({"key": keys.current().map(|id| id.to_string())});
        let sealing = async {
            store.use_data_key().await.map_err(failed)?;
            let done = all(session, &store).await?;
            store.forget_other_data_keys().await.map_err(failed)?;
            Ok::<_, Failure>(done)
        };
        let (rows, changed) = audit
            .around(act, details, sealing)
            .await
            .map_err(failed)??;
        Ok(Sealed {
            with: keys.current().map(|id| id.to_string()),
            rows,
            changed,
        })
    };
    let sealed = sealed.await;
    store.close().await;
    sealed
}

/// Goes through all rows; answers how many there are and how many were changed.
async fn all(session: &Session, store: &OpenStore) -> Result<(u64, u64), Failure> {
    let mut shown = Instant::now();
    let (mut rows, mut changed) = (0, 0);
    let mut position = Some(ResealPosition::default());
    while let Some(at) = position {
        let step = store.reseal(at, ROWS_AT_A_TIME).await.map_err(failed)?;
        rows += step.looked_at;
        changed += step.sealed;
        position = step.next;
        if shown.elapsed() >= SHOWN_EVERY {
            shown = Instant::now();
            session
                .output
                .aside(&format!("{rows} rows so far, {changed} of them changed"));
        }
        if step.sealed > 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    for _ in 0..EMPTYING_TRIES {
        if store.empty_log().await.map_err(failed)? {
            return Ok((rows, changed));
        }
        tokio::time::sleep(PAUSE).await;
    }
    session.output.note(
        "the database's log was in use all the time, and may have some of it unsealed until a server stops",
    );
    Ok((rows, changed))
}

fn failed(error: StoreError) -> Failure {
    Failure::new(error.to_string())
        .help("what is done stays done: the same command goes on from there")
}

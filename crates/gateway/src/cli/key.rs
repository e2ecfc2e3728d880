//! `holdfast key`: over HTTP while a server runs, else in the store itself.

use clap::{Subcommand, ValueEnum};
use holdfast_store::{KeyRecord, KeyScope, StoreError};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Patience;
use crate::config::StorageConfig;
use crate::keys;
use crate::serve::{DEFAULT_PROJECT, DataDir, DataDirLock, OpenStore, data_keys, now};

use super::output::plain;
use super::{Failure, Session, connection};

/// As the HTTP API has it.
const LABEL_CHARACTERS_MAX: usize = 100;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key and show it, once
    Create {
        /// What to call it in lists
        #[arg(long, default_value = "")]
        label: String,
        /// Project it belongs to; made if it is new
        #[arg(long, default_value = DEFAULT_PROJECT)]
        project: String,
        /// What it may do; can be given more than once
        #[arg(long = "scope", value_enum, default_values = ["inference"])]
        scopes: Vec<Scope>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List keys; the keys themselves are not kept and can't be shown
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a key useless at once
    Revoke {
        /// Id from `key list`
        id: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Scope {
    /// Everything, keys included
    Admin,
    /// Chat and contexts of its project
    Inference,
}

impl Scope {
    fn word(self) -> &'static str {
        KeyScope::from(self).as_str()
    }
}

impl From<Scope> for KeyScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Admin => KeyScope::Admin,
            Scope::Inference => KeyScope::Inference,
        }
    }
}

pub(super) async fn run(session: &Session, command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Create {
            label,
            project,
            scopes,
            json,
        } => {
            check_project(&project)?;
            if label.chars().count() > LABEL_CHARACTERS_MAX {
                return Err(Failure::usage(format!(
                    "the label may have at most {LABEL_CHARACTERS_MAX} characters"
                )));
            }
            let created = create(session, &label, &project, &scopes)
                .await
                .map_err(|failure| failure.doing("create a key"))?;
            if json {
                session.output.json(&created);
                return Ok(());
            }
            session.output.note(&format!(
                "{} of project {project}; shown only now:",
                text(&created, "id")
            ));
            session.output.line(&text(&created, "key"));
        }
        KeyCommand::List { json } => {
            let keys = list(session)
                .await
                .map_err(|failure| failure.doing("list the keys"))?;
            if json {
                session.output.json(&Value::Array(keys));
                return Ok(());
            }
            let rows = keys.iter().map(row).collect();
            session.output.table(
                &[
                    "ID", "PROJECT", "LABEL", "BEGINS", "SCOPES", "CREATED", "STATE",
                ],
                rows,
                "no keys",
            );
        }
        KeyCommand::Revoke { id } => {
            revoke(session, &id)
                .await
                .map_err(|failure| failure.doing(&format!("revoke `{}`", plain(&id))))?;
            session.output.note(&format!("revoked {}", plain(&id)));
        }
    }
    Ok(())
}

async fn create(
    session: &Session,
    label: &str,
    project: &str,
    scopes: &[Scope],
) -> Result<Value, Failure> {
    if let Some(offline) = Offline::open(session).await? {
        let scopes: Vec<KeyScope> = scopes.iter().copied().map(KeyScope::from).collect();
        let (secret, record) = keys::new_key(project, label, &scopes, now());
        let store = offline.store.store();
        let made = async {
            store.ensure_project(project, now()).await?;
            store.insert_key(&record).await
        };
        let made = made.await;
        offline.store.close().await;
        made.map_err(store_failure)?;
        let mut shown = key_json(&record);
        shown["key"] = secret.expose().into();
        return Ok(shown);
    }
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.word()).collect();
    let body = json!({"project": project, "label": label, "scopes": scopes});
    let client = connection::client(session)?;
    Ok(client
        .call(
            Method::POST,
            &["admin", "v1", "keys"],
            &[],
            Some(&body),
            Patience::Short,
        )
        .await?)
}

async fn list(session: &Session) -> Result<Vec<Value>, Failure> {
    if let Some(offline) = Offline::open(session).await? {
        let keys = offline.store.store().list_keys(None).await;
        offline.store.close().await;
        let keys = keys.map_err(store_failure)?;
        return Ok(keys.iter().map(key_json).collect());
    }
    let answer = connection::client(session)?
        .call(
            Method::GET,
            &["admin", "v1", "keys"],
            &[],
            None,
            Patience::Short,
        )
        .await?;
    Ok(answer["data"].as_array().cloned().unwrap_or_default())
}

async fn revoke(session: &Session, id: &str) -> Result<(), Failure> {
    if let Some(offline) = Offline::open(session).await? {
        let revoked = offline.store.store().revoke_key(id, now()).await;
        offline.store.close().await;
        return revoked.map(drop).map_err(store_failure);
    }
    connection::client(session)?
        .call(
            Method::DELETE,
            &["admin", "v1", "keys", id],
            &[],
            None,
            Patience::Short,
        )
        .await?;
    Ok(())
}

/// The store, opened by this process because no server of this machine has it.
struct Offline {
    store: OpenStore,
    /// What keeps servers from opening it meanwhile, where it is nobody else's.
    _lock: Option<DataDirLock>,
}

impl Offline {
    /// `None` when a server is to be asked: one was named, or one owns the data directory.
    async fn open(session: &Session) -> Result<Option<Self>, Failure> {
        if session.url.is_some() || session.environment.get("HOLDFAST_URL").is_some() {
            return Ok(None);
        }
        let config = session.config()?;
        let data_dir = DataDir::new(&config.server.data_dir);
        if data_dir.is_locked() {
            return Ok(None);
        }
        let is_own = config.storage == StorageConfig::Sqlite;
        if is_own && !data_dir.database().is_file() {
            return Err(Failure::new(format!(
                "there is no server and no database in {}",
                data_dir.path().display()
            ))
            .help("start a server with `holdfast serve`, or name its folder with --data-dir or its address with --url"));
        }
        let lock = match is_own {
            true => Some(data_dir.lock()?),
            false => None,
        };
        Ok(Some(Offline {
            store: OpenStore::open_beside(&config.storage, &data_keys(&config).await?, &data_dir)
                .await?,
            _lock: lock,
        }))
    }
}

fn store_failure(error: StoreError) -> Failure {
    match error {
        StoreError::NotFound => {
            Failure::new("there is no such key").help("`holdfast key list` shows the ids")
        }
        other => Failure::new(other.to_string()).help("`holdfast doctor` checks the database"),
    }
}

fn check_project(name: &str) -> Result<(), Failure> {
    let sound = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if sound {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "`{}` is no project name: use 1 to 63 lower-case letters, digits and `-`",
        plain(name)
    )))
}

/// The same fields as the HTTP API shows.
fn key_json(record: &KeyRecord) -> Value {
    json!({
        "id": record.id,
        "object": "key",
        "project": record.project,
        "label": record.label,
        "hint": record.hint,
        "scopes": record.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
        "created": record.created_at / 1000,
        "revoked_at": record.revoked_at.map(|at| at / 1000),
    })
}

fn row(key: &Value) -> Vec<String> {
    let scopes: Vec<&str> = key["scopes"]
        .as_array()
        .map(|scopes| scopes.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let created = key["created"]
        .as_i64()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map(|time| time.to_string())
        .unwrap_or_default();
    let state = if key["revoked_at"].is_null() {
        "active"
    } else {
        "revoked"
    };
    vec![
        text(key, "id"),
        text(key, "project"),
        text(key, "label"),
        text(key, "hint"),
        scopes.join(" "),
        created,
        state.into(),
    ]
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

//! Where projects and keys are managed: at a server, or in the store itself while no server has it.

use std::sync::Arc;

use holdfast_protocol::ApiError;
use holdfast_store::{AuditFilter, AuditOrder};
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;

use crate::admin::{Admin, PAGE_MAX};
use crate::app::Store;
use crate::audit::{Actor, Audit};
use crate::client::{Client, Patience};
use crate::config::StorageConfig;
use crate::serve::{DataDir, DataDirLock, OpenStore, data_keys, now};

use super::{Failure, Session, connection};

pub(super) enum Administration {
    Server(Client),
    Store {
        open: OpenStore,
        store: Arc<dyn Store>,
        /// What keeps servers from opening it meanwhile, where it is nobody else's.
        _lock: Option<DataDirLock>,
    },
}

impl Administration {
    /// A server is asked when one was named, or when one owns the data directory.
    pub(super) async fn open(session: &Session) -> Result<Self, Failure> {
        let server = || connection::client(session).map(Administration::Server);
        if session.url.is_some() || session.environment.get("HOLDFAST_URL").is_some() {
            return server();
        }
        let config = session.config()?;
        let data_dir = DataDir::new(&config.server.data_dir);
        if data_dir.is_locked() {
            return server();
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
        let keys = data_keys(&config).await?;
        let open = OpenStore::open_beside(&config.storage, &keys, &data_dir).await?;
        Ok(Administration::Store {
            store: open.store(),
            open,
            _lock: lock,
        })
    }

    pub(super) async fn close(self) {
        if let Administration::Store { open, .. } = self {
            open.close().await;
        }
    }

    pub(super) async fn create_key(&self, body: &Value) -> Result<Value, Failure> {
        match self {
            Administration::Server(client) => {
                call(client, Method::POST, &["keys"], &[], Some(body)).await
            }
            Administration::Store { store, .. } => answer(admin(store).create_key(body).await),
        }
    }

    pub(super) async fn key(&self, id: &str) -> Result<Value, Failure> {
        match self {
            Administration::Server(client) => {
                call(client, Method::GET, &["keys", id], &[], None).await
            }
            Administration::Store { store, .. } => answer(admin(store).key(id).await),
        }
    }

    pub(super) async fn update_key(&self, id: &str, body: &Value) -> Result<Value, Failure> {
        match self {
            Administration::Server(client) => {
                call(client, Method::PATCH, &["keys", id], &[], Some(body)).await
            }
            Administration::Store { store, .. } => answer(admin(store).update_key(id, body).await),
        }
    }

    pub(super) async fn rotate_key(&self, id: &str, body: &Value) -> Result<Value, Failure> {
        match self {
            Administration::Server(client) => {
                call(
                    client,
                    Method::POST,
                    &["keys", id, "rotate"],
                    &[],
                    Some(body),
                )
                .await
            }
            Administration::Store { store, .. } => answer(admin(store).rotate_key(id, body).await),
        }
    }

    pub(super) async fn revoke_key(&self, id: &str) -> Result<Value, Failure> {
        match self {
            Administration::Server(client) => {
                call(client, Method::DELETE, &["keys", id], &[], None).await
            }
            Administration::Store { store, .. } => answer(admin(store).revoke_key(id).await),
        }
    }

    /// All keys, of one project or of all.
    pub(super) async fn keys(&self, project: Option<&str>) -> Result<Vec<Value>, Failure> {
        let mut keys = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = match self {
                Administration::Server(client) => {
                    let mut query = Vec::new();
                    query.extend(project.map(|project| ("project", project)));
                    query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
                    call(client, Method::GET, &["keys"], &query, None).await?
                }
                Administration::Store { store, .. } => {
                    let admin = admin(store);
                    let listed = admin.list_keys(project, cursor.as_deref(), PAGE_MAX);
                    answer(listed.await)?
                }
            };
            cursor = take_page(page, &mut keys);
            if cursor.is_none() {
                return Ok(keys);
            }
        }
    }

    /// A page of the audit log, after an entry.
    pub(super) async fn audit(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Value, Failure> {
        match self {
            Administration::Server(client) => {
                let limit = limit.to_string();
                let order = match order {
                    AuditOrder::Newest => "newest",
                    AuditOrder::Oldest => "oldest",
                };
                let mut query = vec![("order", order), ("limit", limit.as_str())];
                query.extend(filter.act.as_deref().map(|act| ("act", act)));
                query.extend(filter.actor.as_deref().map(|actor| ("actor", actor)));
                query.extend(cursor.map(|cursor| ("cursor", cursor)));
                call(client, Method::GET, &["audit"], &query, None).await
            }
            Administration::Store { store, .. } => {
                answer(admin(store).list_audit(filter, order, cursor, limit).await)
            }
        }
    }

    pub(super) async fn create_project(&self, body: &Value) -> Result<Value, Failure> {
        match self {
            Administration::Server(client) => {
                call(client, Method::POST, &["projects"], &[], Some(body)).await
            }
            Administration::Store { store, .. } => answer(admin(store).create_project(body).await),
        }
    }

    pub(super) async fn project(&self, name: &str) -> Result<Value, Failure> {
        match self {
            Administration::Server(client) => {
                call(client, Method::GET, &["projects", name], &[], None).await
            }
            Administration::Store { store, .. } => answer(admin(store).project(name).await),
        }
    }

    pub(super) async fn update_project(&self, name: &str, body: &Value) -> Result<Value, Failure> {
        match self {
            Administration::Server(client) => {
                call(client, Method::PATCH, &["projects", name], &[], Some(body)).await
            }
            Administration::Store { store, .. } => {
                answer(admin(store).update_project(name, body).await)
            }
        }
    }

    pub(super) async fn projects(&self) -> Result<Vec<Value>, Failure> {
        let mut projects = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = match self {
                Administration::Server(client) => {
                    let cursor = cursor.as_deref().map(|cursor| ("cursor", cursor));
                    let query: Vec<_> = cursor.into_iter().collect();
                    call(client, Method::GET, &["projects"], &query, None).await?
                }
                Administration::Store { store, .. } => {
                    let admin = admin(store);
                    let listed = admin.list_projects(cursor.as_deref(), PAGE_MAX);
                    answer(listed.await)?
                }
            };
            cursor = take_page(page, &mut projects);
            if cursor.is_none() {
                return Ok(projects);
            }
        }
    }
}

fn admin(store: &Arc<dyn Store>) -> Admin<'_> {
    let now = now();
    Admin {
        store: &**store,
        now,
        audit: Audit {
            log: &**store,
            actor: Actor::local(),
            now,
        },
    }
}

async fn call(
    client: &Client,
    method: Method,
    path: &[&str],
    query: &[(&str, &str)],
    body: Option<&Value>,
) -> Result<Value, Failure> {
    let path = [&["admin", "v1"], path].concat();
    let answer = client.call(method, &path, query, body, Patience::Short);
    Ok(answer.await?)
}

fn answer<T: Serialize>(done: Result<T, ApiError>) -> Result<Value, Failure> {
    let done = done.map_err(|error| Failure::new(error.message))?;
    serde_json::to_value(done).map_err(|error| Failure::new(error.to_string()))
}

/// Moves a page's entries into `all`; returns where the next page begins.
fn take_page(mut page: Value, all: &mut Vec<Value>) -> Option<String> {
    if let Some(entries) = page["data"].as_array_mut() {
        all.append(entries);
    }
    page["next_cursor"].as_str().map(str::to_owned)
}

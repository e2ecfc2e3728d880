//! `holdfast key`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::serve::DEFAULT_PROJECT;

use super::administration::Administration;
use super::limits::{self, BudgetArguments, ContextLimitArguments, LimitArguments};
use super::output::plain;
use super::{Failure, Session, seconds};

/// The scopes as they are written.
const SCOPES: [&str; 5] = [
    "inference",
    "contexts:read",
    "contexts:write",
    "usage:read",
    "admin",
];

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key and show it, once
    Create {
        /// Project it belongs to; made if it is new
        #[arg(long, default_value = DEFAULT_PROJECT)]
        project: String,
        #[command(flatten)]
        settings: KeyArguments,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List keys; the keys themselves are not kept and can't be shown
    List {
        /// Only this project's
        #[arg(long)]
        project: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a key's settings
    Show {
        /// Id from `key list`
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change a key's settings; those that are not named stay
    Set {
        /// Id from `key list`
        id: String,
        #[command(flatten)]
        settings: KeyArguments,
    },
    /// Give a key a new secret and show it, once
    Rotate {
        /// Id from `key list`
        id: String,
        /// How long the secret so far may still be used: seconds, or a number with a unit such as 30m, 2h or 7d
        #[arg(long, value_name = "TIME", value_parser = seconds::parse)]
        overlap: Option<u64>,
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

#[derive(Debug, Args)]
pub(super) struct KeyArguments {
    /// What to call it in lists
    #[arg(long)]
    label: Option<String>,
    /// What it may do; can be given more than once [default of a new key: inference]
    #[arg(long = "scope", value_name = "SCOPE", value_parser = SCOPES)]
    scopes: Vec<String>,
    /// When it ends by itself: seconds from now, or a number with a unit such as 12h or 30d
    #[arg(long, value_name = "TIME", value_parser = seconds::parse)]
    expires_in: Option<u64>,
    /// A model that it may use, or the beginning of names followed by `*`; can be given more than once
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    #[command(flatten)]
    limits: LimitArguments,
    #[command(flatten)]
    context_limits: ContextLimitArguments,
    #[command(flatten)]
    budgets: BudgetArguments,
}

impl KeyArguments {
    fn body(&self) -> Result<Map<String, Value>, Failure> {
        let mut body = Map::new();
        if let Some(label) = &self.label {
            body.insert("label".to_owned(), label.as_str().into());
        }
        if !self.scopes.is_empty() {
            body.insert("scopes".to_owned(), json!(self.scopes));
        }
        if let Some(expires_in) = self.expires_in {
            body.insert("expires_in".to_owned(), expires_in.into());
        }
        if !self.models.is_empty() {
            body.insert("models".to_owned(), json!(self.models));
        }
        self.limits.add_to(&mut body);
        self.context_limits.add_to(&mut body);
        self.budgets.add_to(&mut body)?;
        Ok(body)
    }
}

pub(super) async fn run(session: &Session, command: KeyCommand) -> Result<(), Failure> {
    let admin = Administration::open(session).await?;
    let done = run_with(&admin, session, command).await;
    admin.close().await;
    done
}

async fn run_with(
    admin: &Administration,
    session: &Session,
    command: KeyCommand,
) -> Result<(), Failure> {
    match command {
        KeyCommand::Create {
            project,
            settings,
            json,
        } => {
            let mut body = settings.body()?;
            body.insert("project".to_owned(), project.into());
            let created = admin.create_key(&Value::Object(body)).await;
            let created = created.map_err(|failure| failure.doing("create a key"))?;
            show_secret(session, &created, json);
        }
        KeyCommand::List { project, json } => {
            let keys = admin.keys(project.as_deref()).await;
            let keys = keys.map_err(|failure| failure.doing("list the keys"))?;
            match json {
                true => session.output.json(&Value::Array(keys)),
                false => show_keys(session, &keys),
            }
        }
        KeyCommand::Show { id, json } => {
            let key = admin.key(&id).await;
            let key = key.map_err(|failure| failure.doing(&format!("show `{}`", plain(&id))))?;
            match json {
                true => session.output.json(&key),
                false => show_keys(session, &[key]),
            }
        }
        KeyCommand::Set { id, settings } => {
            let changed = admin
                .update_key(&id, &Value::Object(settings.body()?))
                .await;
            changed.map_err(|failure| failure.doing(&format!("change `{}`", plain(&id))))?;
            session.output.note(&format!("changed {}", plain(&id)));
        }
        KeyCommand::Rotate { id, overlap, json } => {
            let body = json!({"overlap_seconds": overlap.unwrap_or(0)});
            let rotated = admin.rotate_key(&id, &body).await;
            let rotated =
                rotated.map_err(|failure| failure.doing(&format!("rotate `{}`", plain(&id))))?;
            show_secret(session, &rotated, json);
        }
        KeyCommand::Revoke { id } => {
            let revoked = admin.revoke_key(&id).await;
            revoked.map_err(|failure| failure.doing(&format!("revoke `{}`", plain(&id))))?;
            session.output.note(&format!("revoked {}", plain(&id)));
        }
    }
    Ok(())
}

fn show_secret(session: &Session, key: &Value, json: bool) {
    if json {
        session.output.json(key);
        return;
    }
    session.output.note(&format!(
        "{} of project {}; shown only now:",
        text(key, "id"),
        text(key, "project")
    ));
    session.output.line(&text(key, "key"));
}

fn show_keys(session: &Session, keys: &[Value]) {
    session.output.table(
        &[
            "ID",
            "PROJECT",
            "LABEL",
            "BEGINS",
            "SCOPES",
            "MODELS",
            "LIMITS",
            "BUDGETS",
            "CREATED",
            "LAST USED",
            "STATE",
        ],
        keys.iter().map(row).collect(),
        "no keys",
    );
}

fn row(key: &Value) -> Vec<String> {
    let state = match (key["revoked_at"].is_null(), key["expires_at"].as_i64()) {
        (false, _) => "revoked".to_owned(),
        (true, Some(expires_at)) => match seconds::until(expires_at).as_str() {
            "expired" => "expired".to_owned(),
            left => format!("ends in {left}"),
        },
        (true, None) => "active".to_owned(),
    };
    vec![
        text(key, "id"),
        text(key, "project"),
        text(key, "label"),
        text(key, "hint"),
        words(&key["scopes"]),
        words(&key["models"]),
        limits::shown(key),
        limits::shown_budgets(key),
        time(&key["created"]),
        time(&key["last_used_at"]),
        state,
    ]
}

fn time(value: &Value) -> String {
    value
        .as_i64()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map(|time| time.to_string())
        .unwrap_or_default()
}

/// The entries of a list, on one line.
pub(super) fn words(list: &Value) -> String {
    let words = list.as_array().into_iter().flatten();
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    words.join(" ")
}

/// A field's text.
pub(super) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

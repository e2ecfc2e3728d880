//! `holdfast context`.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Patience};

use super::output::plain;
use super::{Failure, Session, connection, seconds};

/// Contexts asked for at once.
const PAGE: &str = "100";

#[derive(Debug, Subcommand)]
pub(super) enum ContextCommand {
    /// Store a text, so that chats can use it by its id
    Create(CreateArguments),
    /// Say what a context would cost, and from how many turns an hour it pays
    Estimate(EstimateArguments),
    /// List contexts, newest first
    List {
        /// Show at most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one context
    Show {
        /// Its id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a context a new time to live, from now
    Extend {
        /// Its id
        id: String,
        /// Seconds, or for example 30m, 2h, 7d
        #[arg(long, value_name = "TIME", value_parser = seconds::parse)]
        ttl: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete contexts
    Delete {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Make a copy that goes its own way and shares what has been computed
    Fork {
        /// Id of the context to copy
        id: String,
        /// Keep turns up to this one; 0 keeps only what was stored at first [default: all]
        #[arg(long, value_name = "N")]
        at_turn: Option<u32>,
        /// Seconds, or for example 30m, 2h, 7d [default: the parent's]
        #[arg(long, value_name = "TIME", value_parser = seconds::parse)]
        ttl: Option<u64>,
        /// Whether the copy remembers turns [default: session]
        #[arg(long, value_enum)]
        mode: Option<Mode>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArguments {
    /// Text to store; `-` reads standard input
    #[arg(long, value_name = "FILE", required_unless_present = "message")]
    file: Option<PathBuf>,
    /// Who says the text
    #[arg(long, value_enum, default_value = "system")]
    role: Role,
    /// A user message after the text; can be given more than once
    #[arg(long, value_name = "TEXT")]
    message: Vec<String>,
    /// Model the context is for [default: the server's default]
    #[arg(long)]
    model: Option<String>,
    /// Seconds, or for example 30m, 2h, 7d [default: by model]
    #[arg(long, value_name = "TIME", value_parser = seconds::parse)]
    ttl: Option<u64>,
    /// Whether turns are remembered [default: by model]
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// What to call it in lists
    #[arg(long)]
    name: Option<String>,
    /// When an upstream's copy is made [default: eager]
    #[arg(long, value_parser = ["eager", "lazy", "prewarm"])]
    warm: Option<String>,
    /// Whether an upstream's copy is refreshed while nobody uses the context [default: off]
    #[arg(long, value_parser = ["off", "auto", "always"])]
    keep_warm: Option<String>,
    /// Whether a context that is too small to be cached is refused or sent whole [default: as configured]
    #[arg(long, value_parser = ["error", "replay"])]
    on_too_small: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct EstimateArguments {
    /// Text that the context would hold; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Model the context would be for [default: the server's default]
    #[arg(long)]
    model: Option<String>,
    /// Seconds, or for example 30m, 2h, 7d [default: by model]
    #[arg(long, value_name = "TIME", value_parser = seconds::parse)]
    ttl: Option<u64>,
    /// New tokens of a turn
    #[arg(long, value_name = "N", default_value_t = 100)]
    question_tokens: u64,
    /// Tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 300)]
    answer_tokens: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Role {
    /// Instructions and material
    System,
    /// The person
    User,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Mode {
    /// Each finished turn is added
    Session,
    /// Never changes; any number of chats at the same time
    CommonPrefix,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Mode::Session => "session",
            Mode::CommonPrefix => "common_prefix",
        }
    }
}

pub(super) async fn run(session: &Session, command: ContextCommand) -> Result<(), Failure> {
    let doing = match &command {
        ContextCommand::Create(_) => "create the context".to_owned(),
        ContextCommand::Estimate(_) => "estimate the context".to_owned(),
        ContextCommand::List { .. } => "list the contexts".to_owned(),
        ContextCommand::Show { id, .. } => format!("show {}", plain(id)),
        ContextCommand::Extend { id, .. } => format!("extend {}", plain(id)),
        ContextCommand::Delete { .. } => "delete the contexts".to_owned(),
        ContextCommand::Fork { id, .. } => format!("fork {}", plain(id)),
    };
    attempt(session, command)
        .await
        .map_err(|failure| failure.doing(&doing))
}

async fn attempt(session: &Session, command: ContextCommand) -> Result<(), Failure> {
    let client = connection::client(session)?;
    match command {
        ContextCommand::Create(arguments) => {
            let json = arguments.json;
            let created = create(session, &client, arguments).await?;
            if json {
                session.output.json(&created);
            } else {
                session.output.aside(&summary(&created));
                session.output.line(text(&created, "id"));
            }
        }
        ContextCommand::Estimate(arguments) => estimate(session, &client, arguments).await?,
        ContextCommand::List { limit, json } => list(session, &client, limit, json).await?,
        ContextCommand::Show { id, json } => {
            let context = get(&client, &id).await?;
            show(session, &context, json);
        }
        ContextCommand::Extend { id, ttl, json } => {
            let body = json!({ "ttl": ttl });
            let context = client
                .call(
                    Method::PATCH,
                    &["v1", "context", &id],
                    &[],
                    Some(&body),
                    Patience::Short,
                )
                .await?;
            if json {
                session.output.json(&context);
            } else {
                session
                    .output
                    .note(&format!("{id} lives for {} from now", seconds::show(ttl)));
            }
        }
        ContextCommand::Delete { ids } => {
            for id in ids {
                client
                    .call(
                        Method::DELETE,
                        &["v1", "context", &id],
                        &[],
                        None,
                        Patience::Short,
                    )
                    .await?;
                session.output.note(&format!("deleted {id}"));
            }
        }
        ContextCommand::Fork {
            id,
            at_turn,
            ttl,
            mode,
            json,
        } => {
            let mut body = json!({});
            set(&mut body, "at_turn", at_turn);
            set(&mut body, "ttl", ttl);
            set(&mut body, "mode", mode.map(Mode::word));
            let path = ["v1", "context", &id, "fork"];
            let forked = {
                let _spinner = session.output.spinner("forking the context");
                client
                    .call(Method::POST, &path, &[], Some(&body), Patience::Unlimited)
                    .await?
            };
            if json {
                session.output.json(&forked);
            } else {
                session.output.aside(&summary(&forked));
                session.output.line(text(&forked, "id"));
            }
        }
    }
    Ok(())
}

async fn create(
    session: &Session,
    client: &Client,
    arguments: CreateArguments,
) -> Result<Value, Failure> {
    let mut messages = Vec::new();
    if let Some(file) = &arguments.file {
        let role = match arguments.role {
            Role::System => "system",
            Role::User => "user",
        };
        messages.push(json!({"role": role, "content": read(file)?}));
    }
    for message in &arguments.message {
        messages.push(json!({"role": "user", "content": message}));
    }
    let model = match arguments.model {
        Some(model) => model,
        None => default_model(client).await?,
    };
    let mut body = json!({"model": model, "messages": messages});
    set(&mut body, "ttl", arguments.ttl);
    set(&mut body, "mode", arguments.mode.map(Mode::word));
    set(&mut body, "display_name", arguments.name);
    set(&mut body, "warm", arguments.warm);
    set(&mut body, "keep_warm", arguments.keep_warm);
    set(&mut body, "on_too_small", arguments.on_too_small);
    let _spinner = session.output.spinner("reading the text into the model");
    create_from(client, &body).await
}

/// Creates a context from a whole request body.
pub(super) async fn create_from(client: &Client, body: &Value) -> Result<Value, Failure> {
    Ok(client
        .call(
            Method::POST,
            &["v1", "context", "create"],
            &[],
            Some(body),
            Patience::Unlimited,
        )
        .await?)
}

async fn estimate(
    session: &Session,
    client: &Client,
    arguments: EstimateArguments,
) -> Result<(), Failure> {
    let model = match arguments.model {
        Some(model) => model,
        None => default_model(client).await?,
    };
    let mut body = json!({
        "model": model,
        "messages": [{"role": "system", "content": read(&arguments.file)?}],
        "question_tokens": arguments.question_tokens,
        "answer_tokens": arguments.answer_tokens,
    });
    set(&mut body, "ttl", arguments.ttl);
    let path = ["v1", "context", "estimate"];
    let estimate = client
        .call(Method::POST, &path, &[], Some(&body), Patience::Short)
        .await?;
    if arguments.json {
        session.output.json(&estimate);
        return Ok(());
    }
    let rows = estimate["upstreams"]
        .as_array()
        .map(|upstreams| upstreams.iter().map(estimate_row).collect())
        .unwrap_or_default();
    session.output.table(
        &[
            "UPSTREAM",
            "CACHING",
            "TOKENS",
            "CREATE",
            "AN HOUR",
            "A TURN",
            "WITHOUT",
            "PAYS FROM",
        ],
        rows,
        "no upstream could serve it",
    );
    Ok(())
}

fn estimate_row(upstream: &Value) -> Vec<String> {
    let currency = text(upstream, "currency");
    let money = |field: &str| match upstream[field].as_str() {
        Some(amount) => format!("{amount} {currency}"),
        None => "-".to_owned(),
    };
    let is_cacheable = upstream["cacheable"].as_bool().unwrap_or(false);
    let pays_from = match upstream["pays_from_turns_per_hour"].as_str() {
        _ if !is_cacheable => plain(text(upstream, "reason")),
        Some("0") => "the first turn".to_owned(),
        Some(turns) => format!("{turns} turns an hour"),
        None if currency.is_empty() => "-".to_owned(),
        None => "never".to_owned(),
    };
    let about = match text(upstream, "source") {
        "engine" => "",
        _ => "about ",
    };
    vec![
        upstream["upstream"]
            .as_str()
            .unwrap_or("embedded engine")
            .to_owned(),
        text(upstream, "caching").to_owned(),
        format!("{about}{}", upstream["tokens"]),
        money("create"),
        money("hold_per_hour"),
        money("turn_with"),
        money("turn_without"),
        pays_from,
    ]
}

/// One context by its id.
pub(super) async fn get(client: &Client, id: &str) -> Result<Value, Failure> {
    let found = client
        .call(
            Method::GET,
            &["v1", "context", id],
            &[],
            None,
            Patience::Short,
        )
        .await;
    found.map_err(|error| {
        let is_missing = matches!(
            &error,
            crate::client::ClientError::Refused { status: 404, .. }
        );
        let failure = Failure::from(error);
        if is_missing {
            failure.help("`holdfast context list` shows what there is")
        } else {
            failure
        }
    })
}

/// The model called `default`, else the first.
pub(super) async fn default_model(client: &Client) -> Result<String, Failure> {
    let models = client
        .call(Method::GET, &["v1", "models"], &[], None, Patience::Short)
        .await?;
    let ids: Vec<&str> = models["data"]
        .as_array()
        .map(|models| models.iter().map(|model| text(model, "id")).collect())
        .unwrap_or_default();
    let chosen = ids
        .iter()
        .find(|id| **id == crate::models::DEFAULT_ALIAS)
        .or_else(|| ids.first());
    chosen
        .map(|id| (*id).to_owned())
        .ok_or_else(|| Failure::new("the server has no models"))
}

async fn list(session: &Session, client: &Client, limit: usize, json: bool) -> Result<(), Failure> {
    let mut contexts: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    while contexts.len() < limit {
        let mut query = vec![("limit", PAGE)];
        if let Some(cursor) = &cursor {
            query.push(("cursor", cursor));
        }
        let mut page = client
            .call(
                Method::GET,
                &["v1", "context"],
                &query,
                None,
                Patience::Short,
            )
            .await?;
        if let Value::Array(found) = page["data"].take() {
            contexts.extend(found);
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    let is_cut = cursor.is_some() || contexts.len() > limit;
    contexts.truncate(limit);
    if json {
        session.output.json(&Value::Array(contexts));
        return Ok(());
    }
    let rows = contexts.iter().map(row).collect();
    session.output.table(
        &[
            "ID",
            "MODEL",
            "MODE",
            "TOKENS",
            "TURNS",
            "EXPIRES IN",
            "NAME",
        ],
        rows,
        "no contexts: `holdfast context create --file FILE` makes one",
    );
    if is_cut {
        session
            .output
            .aside("there are more; show them with --limit");
    }
    Ok(())
}

fn row(context: &Value) -> Vec<String> {
    vec![
        text(context, "id").into(),
        text(context, "model").into(),
        text(context, "mode").into(),
        context["prefix_tokens"].to_string(),
        context["turns"].to_string(),
        seconds::until(context["expires_at"].as_i64().unwrap_or(0)),
        text(context, "display_name").into(),
    ]
}

fn show(session: &Session, context: &Value, json: bool) {
    if json {
        session.output.json(context);
        return;
    }
    let expires = seconds::until(context["expires_at"].as_i64().unwrap_or(0));
    let ttl = seconds::show(context["ttl"].as_u64().unwrap_or(0));
    let mut lines = vec![
        ("id", text(context, "id").to_owned()),
        ("model", text(context, "model").to_owned()),
        ("mode", text(context, "mode").to_owned()),
        ("expires in", format!("{expires} (time to live {ttl})")),
        (
            "tokens",
            format!(
                "{} ({} of them stored at first)",
                context["prefix_tokens"], context["initial_tokens"]
            ),
        ),
        ("turns", context["turns"].to_string()),
    ];
    if let Some(name) = context["display_name"].as_str() {
        lines.push(("name", name.to_owned()));
    }
    if let Some(parent) = context.pointer("/forked_from/id").and_then(Value::as_str) {
        lines.push((
            "forked from",
            format!("{parent} at turn {}", context["forked_from"]["at_turn"]),
        ));
    }
    lines.extend(account_lines(&context["account"]));
    for (name, value) in lines {
        session
            .output
            .line(&format!("{name:<12} {}", plain(&value)));
    }
}

/// What a context on upstreams has used and cost; nothing for others.
fn account_lines(account: &Value) -> Vec<(&'static str, String)> {
    if !account.is_object() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    if let Some(upstream) = account["upstream"].as_str() {
        lines.push(("upstream", upstream.to_owned()));
    }
    lines.push((
        "chats",
        format!(
            "{} ({} hits, {} rebuilt, {} misses, {} degraded)",
            account["requests"],
            account["hits"],
            account["rebuilds"],
            account["misses"],
            account["degraded"]
        ),
    ));
    lines.push((
        "used",
        format!(
            "{} tokens in ({} from cache, {} written), {} out, {} pings",
            account["input_tokens"],
            account["cached_tokens"],
            account["cache_write_tokens"],
            account["output_tokens"],
            account["pings"]
        ),
    ));
    if let Some(currency) = account["currency"].as_str() {
        let amount = |field: &str| format!("{} {currency}", text(account, field));
        lines.push((
            "cost",
            format!(
                "{} (pings {}), storage {}",
                amount("cost"),
                amount("ping_cost"),
                amount("storage_cost")
            ),
        ));
        lines.push(("saved", amount("saved")));
    }
    lines
}

/// What came of a create or a fork, in a line.
pub(super) fn summary(created: &Value) -> String {
    let usage = &created["usage"];
    let tokens = usage["prompt_tokens"].as_u64().unwrap_or(0);
    let present = usage["cache_read_input_tokens"].as_u64().unwrap_or(0);
    let shared = if present > 0 {
        format!(" ({present} were there already)")
    } else {
        String::new()
    };
    format!(
        "{} of {tokens} tokens{shared} on {}, lives for {}",
        text(created, "mode"),
        plain(text(created, "model")),
        seconds::show(created["ttl"].as_u64().unwrap_or(0))
    )
}

/// A file's text, or standard input's for `-`.
fn read(path: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        if std::io::stdin().is_terminal() {
            return Err(Failure::usage(
                "`--file -` reads standard input, and nothing is piped into it",
            ));
        }
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::new(format!("standard input can't be read: {error}")))?;
    } else {
        bytes = std::fs::read(path)
            .map_err(|error| Failure::new(format!("{} can't be read: {error}", path.display())))?;
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::new(format!("{} is not text in UTF-8", path.display()))
            .help("convert it to plain text first")
    })?;
    if text.trim().is_empty() {
        return Err(Failure::new(format!("{} is empty", path.display())));
    }
    Ok(text)
}

fn set(body: &mut Value, field: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body[field] = value.into();
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

//! `holdfast audit`.

use clap::{Args, Subcommand};
use holdfast_store::{
    AuditBreak, AuditEntry, AuditFilter, AuditHash, AuditOrder, AuditRecord, AuditVerifier,
};
use serde_json::{Value, json};

use crate::admin::PAGE_MAX;

use super::administration::Administration;
use super::key::text;
use super::{Failure, Session};

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Show what was done, the newest first
    List {
        #[command(flatten)]
        which: WhichArguments,
        /// Most entries
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Follow the chain of hashes from its beginning and say whether it holds; print the newest hash, to be kept where
    /// whoever can write to the database can't
    Verify {
        /// A newest hash from before, which must be part of the chain
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print all entries, the oldest first, one JSON object a line
    Export {
        #[command(flatten)]
        which: WhichArguments,
    },
}

#[derive(Debug, Args)]
pub(super) struct WhichArguments {
    /// Only this act, or those that begin so, such as `key.*`
    #[arg(long)]
    act: Option<String>,
    /// Only what this key did, or `local`, `signal`, `config` or `start`
    #[arg(long)]
    actor: Option<String>,
}

impl From<WhichArguments> for AuditFilter {
    fn from(which: WhichArguments) -> Self {
        AuditFilter {
            act: which.act,
            actor: which.actor,
        }
    }
}

pub(super) async fn run(session: &Session, command: AuditCommand) -> Result<(), Failure> {
    let admin = Administration::open(session).await?;
    let done = match command {
        AuditCommand::List { which, limit, json } => {
            list(&admin, session, &which.into(), limit, json).await
        }
        AuditCommand::Verify { head, json } => verify(&admin, session, head.as_deref(), json).await,
        AuditCommand::Export { which } => export(&admin, session, &which.into()).await,
    };
    admin.close().await;
    done.map_err(|failure| failure.doing("read the audit log"))
}

async fn list(
    admin: &Administration,
    session: &Session,
    filter: &AuditFilter,
    limit: u32,
    json: bool,
) -> Result<(), Failure> {
    let (mut entries, mut cursor) = (Vec::new(), None);
    while entries.len() < limit as usize {
        let left = limit.saturating_sub(u32::try_from(entries.len()).unwrap_or(limit));
        let order = AuditOrder::Newest;
        let page = admin.audit(filter, order, cursor.as_deref(), left.min(PAGE_MAX));
        cursor = take_page(page.await?, &mut entries);
        if cursor.is_none() {
            break;
        }
    }
    if json {
        session.output.json(&Value::Array(entries));
        return Ok(());
    }
    session.output.table(
        &["NUMBER", "WHEN", "WHO", "WHAT", "TO", "PROJECT"],
        entries.iter().map(row).collect(),
        "nothing",
    );
    Ok(())
}

fn row(entry: &Value) -> Vec<String> {
    vec![
        entry["sequence"].to_string(),
        when(entry["at_ms"].as_i64().unwrap_or_default()),
        text(entry, "actor"),
        text(entry, "act"),
        text(entry, "target"),
        text(entry, "project"),
    ]
}

fn when(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms / 1000 * 1000)
        .map_or_else(|_| "?".to_owned(), |at| at.to_string())
}

async fn export(
    admin: &Administration,
    session: &Session,
    filter: &AuditFilter,
) -> Result<(), Failure> {
    let mut cursor = None;
    loop {
        let mut entries = Vec::new();
        let page = admin.audit(filter, AuditOrder::Oldest, cursor.as_deref(), PAGE_MAX);
        cursor = take_page(page.await?, &mut entries);
        for entry in &entries {
            session.output.line(&entry.to_string());
        }
        if cursor.is_none() {
            return Ok(());
        }
    }
}

async fn verify(
    admin: &Administration,
    session: &Session,
    head: Option<&str>,
    json: bool,
) -> Result<(), Failure> {
    let pinned = head
        .map(|head| {
            AuditHash::parse(head)
                .ok_or_else(|| Failure::usage("`--head` is not a hash: 64 hexadecimal digits"))
        })
        .transpose()?;
    let mut verifier = AuditVerifier::default();
    let mut is_pinned_there = pinned == Some(AuditHash::START);
    let (mut cursor, mut broken) = (None, None);
    'pages: loop {
        let mut entries = Vec::new();
        let filter = AuditFilter::default();
        let page = admin.audit(&filter, AuditOrder::Oldest, cursor.as_deref(), PAGE_MAX);
        cursor = take_page(page.await?, &mut entries);
        for entry in &entries {
            if let Err(error) = check(&mut verifier, entry) {
                broken = Some(error);
                break 'pages;
            }
            is_pinned_there |= verifier.head().map(|(_, hash)| hash) == pinned;
        }
        if cursor.is_none() {
            break;
        }
    }
    let (entries, newest) = verifier.head().unwrap_or((0, AuditHash::START));
    let problem = broken.map(|error| error.to_string()).or_else(|| {
        let is_missing = pinned.is_some() && !is_pinned_there;
        is_missing.then(|| "the entry with the hash of `--head` is missing".to_owned())
    });
    if json {
        session.output.json(&json!({
            "ok": problem.is_none(),
            "problem": problem,
            "entries": entries,
            "head": newest.to_string(),
        }));
    }
    if let Some(problem) = problem {
        return Err(
            Failure::new(format!("the audit log has been tampered with: {problem}"))
                .help("compare it with a backup or an export of it"),
        );
    }
    if !json {
        session
            .output
            .line(&format!("{entries} entries, nothing changed or missing"));
        session.output.line(&format!("head {newest}"));
    }
    Ok(())
}

fn check(verifier: &mut AuditVerifier, entry: &Value) -> Result<(), AuditBreak> {
    let next = verifier.head().map_or(1, |(sequence, _)| sequence + 1);
    let record = record(entry).ok_or(AuditBreak::Changed(next))?;
    verifier.check(&record)
}

/// What the entry of the API says; `None` when it is none.
fn record(entry: &Value) -> Option<AuditRecord> {
    let optional = |name: &str| entry[name].as_str().map(str::to_owned);
    Some(AuditRecord {
        sequence: entry["sequence"].as_u64()?,
        entry: AuditEntry {
            at: entry["at_ms"].as_i64()?,
            actor: optional("actor")?,
            act: optional("act")?,
            target: optional("target")?,
            project: optional("project"),
            request: optional("request_id"),
            details: entry["details"].to_string(),
        },
        previous: AuditHash::parse(entry["previous_hash"].as_str()?)?,
        hash: AuditHash::parse(entry["hash"].as_str()?)?,
    })
}

/// Moves a page's entries into `all`; returns where the next page begins.
fn take_page(mut page: Value, all: &mut Vec<Value>) -> Option<String> {
    if let Some(entries) = page["data"].as_array_mut() {
        all.append(entries);
    }
    page["next_cursor"].as_str().map(str::to_owned)
}

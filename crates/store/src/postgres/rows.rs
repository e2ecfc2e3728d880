//! Rows to values and back.

use holdfast_protocol::chat::Message;
use holdfast_protocol::context::{Context, ContextContent, ContextId, StoredMessage, Turn};
use holdfast_seal::Keyring;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};

use super::failure::failure;
use crate::columns::{
    expiry_of, expiry_word, integer, json, mode_of, profile_of, scopes_of, wrong_value,
};
use crate::rows::Columns;
use crate::sealed::{self, Words, opened};
use crate::{KeyRecord, LivingContext, PreviousSecret, ProjectRecord, StoreError};

/// The columns that [`context`] reads, for `concat!`.
macro_rules! context_columns {
    () => {
        "id, project, mode, profile, ttl_seconds, expiry, created_at, expires_at, initial_tokens, \
         prefix_tokens, turn_count, dropped_messages, version, forked_from, forked_at_turn, model, \
         requested_model, truncation, tool_choice, display_name, metadata, tools, policy, implicit, sealed, made_by"
    };
}
pub(super) use context_columns;

/// Statement and values that store `context`'s row; it answers with the row's `sequence`.
pub(super) fn insert_context(
    keys: &Keyring,
    context: &Context,
) -> Result<sqlx::query::Query<'static, sqlx::Postgres, PgArguments>, StoreError> {
    let (forked_from, forked_at_turn) = context.forked_from.clone().unzip();
    let truncation = context.truncation.as_ref();
    let (project, id) = (&context.project, context.id.as_str());
    let words = Words::of(context);
    let sealed = words.seal(keys, project, id)?;
    let words = match sealed {
        Some(_) => Words::default(),
        None => words,
    };
    let tool_choice = words.tool_choice.as_ref();
    Ok(sqlx::query(concat!(
        "INSERT INTO contexts (",
        context_columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, \
         $22, $23, $24, $25, $26) RETURNING sequence"
    ))
    .bind(context.id.to_string())
    .bind(context.project.clone())
    .bind(context.mode.as_str())
    .bind(context.profile.as_str())
    .bind(i64::from(context.ttl_seconds))
    .bind(expiry_word(context.expiry))
    .bind(context.created_at)
    .bind(context.expires_at)
    .bind(integer("initial_tokens", context.initial_tokens)?)
    .bind(integer("prefix_tokens", context.prefix_tokens)?)
    .bind(i64::from(context.turn_count))
    .bind(i64::from(context.dropped_messages))
    .bind(integer("version", context.version)?)
    .bind(forked_from.map(String::from))
    .bind(forked_at_turn.map(i64::from))
    .bind(context.model.clone().into_bytes())
    .bind(context.requested_model.clone().into_bytes())
    .bind(truncation.map(|value| to_json("truncation", value)).transpose()?)
    .bind(tool_choice.map(|value| to_json("tool_choice", value)).transpose()?)
    .bind(words.display_name.map(String::into_bytes))
    .bind(to_json("metadata", &words.metadata)?)
    .bind(to_json("tools", &words.tools)?)
    .bind(to_json("policy", &context.policy)?)
    .bind(sealed::seal_digest(keys, project, id, context.implicit.as_deref()))
    .bind(sealed)
    .bind(context.made_by.clone()))
}

pub(super) fn context(keys: &Keyring, row: &PgRow) -> Result<Context, StoreError> {
    let forked_from = row
        .try_get::<Option<&str>, _>("forked_from")
        .map_err(failure)?
        .map(|id| id.parse().map_err(|_| wrong_value("forked_from")))
        .transpose()?;
    let forked_at_turn: Option<i64> = row.try_get("forked_at_turn").map_err(failure)?;
    let forked_at_turn = forked_at_turn
        .map(|turn| u32::try_from(turn).map_err(|_| wrong_value("forked_at_turn")))
        .transpose()?;
    let (id, project) = (context_id(row)?, row.word("project")?);
    let sealed: Option<Vec<u8>> = row.try_get("sealed").map_err(failure)?;
    let words = match sealed {
        Some(sealed) => Words::open(keys, &project, id.as_str(), sealed)?,
        None => words(row)?,
    };
    let implicit = row.optional_word("implicit")?;
    Ok(Context {
        model: text(row, "model")?,
        requested_model: text(row, "requested_model")?,
        mode: word(row, "mode", mode_of)?,
        profile: word(row, "profile", profile_of)?,
        ttl_seconds: small(row, "ttl_seconds")?,
        expiry: word(row, "expiry", expiry_of)?,
        created_at: row.try_get("created_at").map_err(failure)?,
        expires_at: row.try_get("expires_at").map_err(failure)?,
        truncation: optional_json(row, "truncation")?,
        tools: words.tools,
        tool_choice: words.tool_choice,
        display_name: words.display_name,
        metadata: words.metadata,
        policy: from_json(row, "policy")?,
        initial_tokens: count(row, "initial_tokens")?,
        prefix_tokens: count(row, "prefix_tokens")?,
        turn_count: small(row, "turn_count")?,
        dropped_messages: small(row, "dropped_messages")?,
        version: count(row, "version")?,
        forked_from: forked_from.zip(forked_at_turn),
        implicit: sealed::open_digest(keys, &project, &id, implicit)?,
        made_by: row.optional_word("made_by")?,
        id,
        project,
    })
}

/// Of a row that is not sealed.
pub(super) fn words(row: &PgRow) -> Result<Words, StoreError> {
    Ok(Words {
        display_name: row
            .try_get::<Option<Vec<u8>>, _>("display_name")
            .map_err(failure)?
            .map(|bytes| String::from_utf8(bytes).map_err(|_| wrong_value("display_name")))
            .transpose()?,
        metadata: from_json(row, "metadata")?,
        tools: from_json(row, "tools")?,
        tool_choice: optional_json(row, "tool_choice")?,
    })
}

/// Leaves out rows that can't be read: one damaged row must stop neither the sweep nor the start of the gateway.
pub(super) fn readable(keys: &Keyring, rows: &[PgRow]) -> Vec<Context> {
    rows.iter()
        .filter_map(|row| {
            context(keys, row)
                .inspect_err(|error| {
                    let id = context_id(row).ok();
                    tracing::warn!(
                        context_id = id.as_ref().map(tracing::field::display),
                        %error,
                        "a stored context was skipped"
                    );
                })
                .ok()
        })
        .collect()
}

pub(super) fn living_context(keys: &Keyring, row: &PgRow) -> Result<LivingContext, StoreError> {
    let (id, project) = (context_id(row)?, row.word("project")?);
    let implicit = row.optional_word("implicit")?;
    Ok(LivingContext {
        model: text(row, "model")?,
        prefix_tokens: count(row, "prefix_tokens")?,
        implicit: sealed::open_digest(keys, &project, &id, implicit)?,
        made_by: row.optional_word("made_by")?,
        id,
        project,
    })
}

pub(super) fn context_id(row: &PgRow) -> Result<ContextId, StoreError> {
    word(row, "id", |id| id.parse().ok())
}

pub(super) fn initial_json(
    keys: &Keyring,
    context: &Context,
    initial: &[Message],
) -> Result<Vec<u8>, StoreError> {
    let place = sealed::initial(&context.project, context.id.as_str());
    Ok(keys.seal(&place, to_json("initial", initial)?))
}

pub(super) fn turn_json(
    keys: &Keyring,
    (project, id, number): (&str, &ContextId, u32),
    messages: &[StoredMessage],
) -> Result<Vec<u8>, StoreError> {
    let place = sealed::turn(project, id.as_str(), number);
    Ok(keys.seal(&place, to_json("messages", messages)?))
}

/// From rows of number, messages and time of commit, in order; number 0 stands for the initial messages.
pub(super) fn content(
    keys: &Keyring,
    project: &str,
    id: &ContextId,
    rows: &[PgRow],
) -> Result<ContextContent, StoreError> {
    let (first, turns) = rows.split_first().ok_or(StoreError::NotFound)?;
    if small(first, "number")? != 0 {
        return Err(StoreError::Corrupt(
            "the initial messages are missing".to_owned(),
        ));
    }
    let turns = turns
        .iter()
        .map(|row| {
            let number = small(row, "number")?;
            let place = sealed::turn(project, id.as_str(), number);
            let messages = opened(keys.open(&place, row.bytes("messages")?))?;
            Ok(Turn {
                number,
                messages: json("messages", serde_json::from_slice(&messages))?,
                committed_at: row.try_get("committed_at").map_err(failure)?,
            })
        })
        .collect::<Result<_, StoreError>>()?;
    let place = sealed::initial(project, id.as_str());
    let initial = opened(keys.open(&place, first.bytes("messages")?))?;
    Ok(ContextContent {
        initial: json("initial", serde_json::from_slice(&initial))?,
        turns,
    })
}

pub(super) fn project(row: &PgRow) -> Result<ProjectRecord, StoreError> {
    Ok(ProjectRecord {
        name: row.try_get("name").map_err(failure)?,
        created_at: row.try_get("created_at").map_err(failure)?,
        version: count(row, "version")?,
        settings: from_json(row, "settings")?,
    })
}

pub(super) fn key(row: &PgRow) -> Result<KeyRecord, StoreError> {
    let hash: &[u8] = row.try_get("hash").map_err(failure)?;
    let previous_hash: Option<&[u8]> = row.try_get("previous_hash").map_err(failure)?;
    let previous_expires_at: Option<i64> = row.try_get("previous_expires_at").map_err(failure)?;
    let previous = previous_hash
        .zip(previous_expires_at)
        .map(|(hash, expires_at)| -> Result<PreviousSecret, StoreError> {
            let hash = hash.try_into().map_err(|_| wrong_value("previous_hash"))?;
            Ok(PreviousSecret { hash, expires_at })
        })
        .transpose()?;
    Ok(KeyRecord {
        id: row.try_get("id").map_err(failure)?,
        project: row.try_get("project").map_err(failure)?,
        hash: hash.try_into().map_err(|_| wrong_value("hash"))?,
        hint: text(row, "hint")?,
        label: text(row, "label")?,
        scopes: word(row, "scopes", scopes_of)?,
        created_at: row.try_get("created_at").map_err(failure)?,
        revoked_at: row.try_get("revoked_at").map_err(failure)?,
        expires_at: row.try_get("expires_at").map_err(failure)?,
        last_used_at: row.try_get("last_used_at").map_err(failure)?,
        previous,
        models: from_json(row, "models")?,
        limits: from_json(row, "limits")?,
        budgets: from_json(row, "budgets")?,
        version: count(row, "version")?,
    })
}

pub(super) fn count(row: &PgRow, column: &str) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column).map_err(failure)?;
    u64::try_from(value).map_err(|_| wrong_value(column))
}

/// PostgreSQL has no unsigned integers, so that 32 bits are kept in 64.
pub(super) fn small(row: &PgRow, column: &str) -> Result<u32, StoreError> {
    let value: i64 = row.try_get(column).map_err(failure)?;
    u32::try_from(value).map_err(|_| wrong_value(column))
}

/// A text that is kept as bytes, because it may have U+0000 in it.
pub(super) fn text(row: &PgRow, column: &str) -> Result<String, StoreError> {
    let bytes: Vec<u8> = row.try_get(column).map_err(failure)?;
    String::from_utf8(bytes).map_err(|_| wrong_value(column))
}

pub(super) fn to_json<T: Serialize + ?Sized>(
    column: &str,
    value: &T,
) -> Result<Vec<u8>, StoreError> {
    json(column, serde_json::to_vec(value))
}

fn from_json<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, StoreError> {
    let bytes: &[u8] = row.try_get(column).map_err(failure)?;
    json(column, serde_json::from_slice(bytes))
}

fn optional_json<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<Option<T>, StoreError> {
    let bytes: Option<&[u8]> = row.try_get(column).map_err(failure)?;
    bytes
        .map(|bytes| json(column, serde_json::from_slice(bytes)))
        .transpose()
}

fn word<T>(
    row: &PgRow,
    column: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, StoreError> {
    let word: &str = row.try_get(column).map_err(failure)?;
    parse(word).ok_or_else(|| wrong_value(column))
}

impl Columns for PgRow {
    fn word(&self, column: &str) -> Result<String, StoreError> {
        self.try_get(column).map_err(failure)
    }

    fn optional_word(&self, column: &str) -> Result<Option<String>, StoreError> {
        self.try_get(column).map_err(failure)
    }

    fn text(&self, column: &str) -> Result<String, StoreError> {
        text(self, column)
    }

    fn bytes(&self, column: &str) -> Result<Vec<u8>, StoreError> {
        self.try_get(column).map_err(failure)
    }

    fn number(&self, column: &str) -> Result<i64, StoreError> {
        self.try_get(column).map_err(failure)
    }

    fn optional_number(&self, column: &str) -> Result<Option<i64>, StoreError> {
        self.try_get(column).map_err(failure)
    }

    fn flag(&self, column: &str) -> Result<bool, StoreError> {
        self.try_get(column).map_err(failure)
    }
}

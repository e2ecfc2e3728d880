//! Rows to values and back.

use holdfast_protocol::chat::Message;
use holdfast_protocol::context::{Context, ContextContent, ContextId, StoredMessage, Turn};
use holdfast_seal::{Keyring, Place};
use sqlx::Row;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

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
) -> Result<sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments>, StoreError> {
    let (forked_from, forked_at_turn) = context.forked_from.clone().unzip();
    let truncation = context
        .truncation
        .map(|truncation| json("truncation", serde_json::to_string(&truncation)))
        .transpose()?;
    let (project, id) = (&context.project, context.id.as_str());
    let words = Words::of(context);
    let sealed = words.seal(keys, project, id)?;
    let words = match sealed {
        Some(_) => Words::default(),
        None => words,
    };
    let tool_choice = words
        .tool_choice
        .as_ref()
        .map(|tool_choice| json("tool_choice", serde_json::to_string(tool_choice)))
        .transpose()?;
    Ok(sqlx::query(concat!(
        "INSERT INTO contexts (",
        context_columns!(),
        ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING sequence"
    ))
    .bind(context.id.to_string())
    .bind(context.project.clone())
    .bind(context.mode.as_str())
    .bind(context.profile.as_str())
    .bind(context.ttl_seconds)
    .bind(expiry_word(context.expiry))
    .bind(context.created_at)
    .bind(context.expires_at)
    .bind(integer("initial_tokens", context.initial_tokens)?)
    .bind(integer("prefix_tokens", context.prefix_tokens)?)
    .bind(context.turn_count)
    .bind(context.dropped_messages)
    .bind(integer("version", context.version)?)
    .bind(forked_from.map(String::from))
    .bind(forked_at_turn)
    .bind(context.model.clone())
    .bind(context.requested_model.clone())
    .bind(truncation)
    .bind(tool_choice)
    .bind(words.display_name)
    .bind(json("metadata", serde_json::to_string(&words.metadata))?)
    .bind(json("tools", serde_json::to_string(&words.tools))?)
    .bind(json("policy", serde_json::to_string(&context.policy))?)
    .bind(sealed::seal_digest(keys, project, id, context.implicit.as_deref()))
    .bind(sealed)
    .bind(context.made_by.clone()))
}

pub(super) fn context(keys: &Keyring, row: &SqliteRow) -> Result<Context, StoreError> {
    let forked_from = text(row, "forked_from")?
        .map(|id| id.parse().map_err(|_| wrong_value("forked_from")))
        .transpose()?;
    let forked_at_turn: Option<u32> = row.try_get("forked_at_turn").map_err(failure)?;
    let (id, project) = (context_id(row)?, row.word("project")?);
    let sealed: Option<Vec<u8>> = row.try_get("sealed").map_err(failure)?;
    let words = match sealed {
        Some(sealed) => Words::open(keys, &project, id.as_str(), sealed)?,
        None => words(row)?,
    };
    let implicit = row.optional_word("implicit")?;
    Ok(Context {
        model: row.try_get("model").map_err(failure)?,
        requested_model: row.try_get("requested_model").map_err(failure)?,
        mode: word(row, "mode", mode_of)?,
        profile: word(row, "profile", profile_of)?,
        ttl_seconds: row.try_get("ttl_seconds").map_err(failure)?,
        expiry: word(row, "expiry", expiry_of)?,
        created_at: row.try_get("created_at").map_err(failure)?,
        expires_at: row.try_get("expires_at").map_err(failure)?,
        truncation: text(row, "truncation")?
            .map(|text| json("truncation", serde_json::from_str(text)))
            .transpose()?,
        tools: words.tools,
        tool_choice: words.tool_choice,
        display_name: words.display_name,
        metadata: words.metadata,
        policy: json("policy", serde_json::from_str(required(row, "policy")?))?,
        initial_tokens: count(row, "initial_tokens")?,
        prefix_tokens: count(row, "prefix_tokens")?,
        turn_count: row.try_get("turn_count").map_err(failure)?,
        dropped_messages: row.try_get("dropped_messages").map_err(failure)?,
        version: count(row, "version")?,
        forked_from: forked_from.zip(forked_at_turn),
        implicit: sealed::open_digest(keys, &project, &id, implicit)?,
        made_by: row.optional_word("made_by")?,
        id,
        project,
    })
}

/// Of a row that is not sealed.
pub(super) fn words(row: &SqliteRow) -> Result<Words, StoreError> {
    Ok(Words {
        display_name: row.try_get("display_name").map_err(failure)?,
        metadata: json("metadata", serde_json::from_str(required(row, "metadata")?))?,
        tools: json("tools", serde_json::from_str(required(row, "tools")?))?,
        tool_choice: text(row, "tool_choice")?
            .map(|text| json("tool_choice", serde_json::from_str(text)))
            .transpose()?,
    })
}

pub(super) fn living_context(keys: &Keyring, row: &SqliteRow) -> Result<LivingContext, StoreError> {
    let (id, project) = (context_id(row)?, row.word("project")?);
    let implicit = row.optional_word("implicit")?;
    Ok(LivingContext {
        model: row.try_get("model").map_err(failure)?,
        prefix_tokens: count(row, "prefix_tokens")?,
        implicit: sealed::open_digest(keys, &project, &id, implicit)?,
        made_by: row.optional_word("made_by")?,
        id,
        project,
    })
}

pub(super) fn context_id(row: &SqliteRow) -> Result<ContextId, StoreError> {
    required(row, "id")?.parse().map_err(|_| wrong_value("id"))
}

/// Words as the two columns have them of which one says nothing: as text, or sealed.
pub(super) type TextOrSealed = (String, Option<Vec<u8>>);

pub(super) fn initial_text(
    keys: &Keyring,
    context: &Context,
    initial: &[Message],
) -> Result<TextOrSealed, StoreError> {
    let text = json("initial", serde_json::to_string(initial))?;
    let place = sealed::initial(&context.project, context.id.as_str());
    Ok(text_or_sealed(keys, &place, text))
}

pub(super) fn turn_text(
    keys: &Keyring,
    (project, id, number): (&str, &ContextId, u32),
    messages: &[StoredMessage],
) -> Result<TextOrSealed, StoreError> {
    let text = json("messages", serde_json::to_string(messages))?;
    let place = sealed::turn(project, id.as_str(), number);
    Ok(text_or_sealed(keys, &place, text))
}

pub(super) fn text_or_sealed(keys: &Keyring, place: &Place<'_>, text: String) -> TextOrSealed {
    match keys.current() {
        Some(_) => (String::new(), Some(keys.seal(place, text.into_bytes()))),
        None => (text, None),
    }
}

/// From rows of number, messages and time of commit, in order; number 0 stands for the initial messages.
pub(super) fn content(
    keys: &Keyring,
    project: &str,
    id: &ContextId,
    rows: &[SqliteRow],
) -> Result<ContextContent, StoreError> {
    let (first, turns) = rows.split_first().ok_or(StoreError::NotFound)?;
    if first.try_get::<u32, _>("number").map_err(failure)? != 0 {
        return Err(StoreError::Corrupt(
            "the initial messages are missing".to_owned(),
        ));
    }
    let turns = turns
        .iter()
        .map(|row| {
            let number = row.try_get("number").map_err(failure)?;
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

pub(super) fn project(row: &SqliteRow) -> Result<ProjectRecord, StoreError> {
    Ok(ProjectRecord {
        name: row.try_get("name").map_err(failure)?,
        created_at: row.try_get("created_at").map_err(failure)?,
        version: count(row, "version")?,
        settings: json("settings", serde_json::from_str(required(row, "settings")?))?,
    })
}

pub(super) fn key(row: &SqliteRow) -> Result<KeyRecord, StoreError> {
    let hash: Vec<u8> = row.try_get("hash").map_err(failure)?;
    let previous_hash: Option<Vec<u8>> = row.try_get("previous_hash").map_err(failure)?;
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
        hint: row.try_get("hint").map_err(failure)?,
        label: row.try_get("label").map_err(failure)?,
        scopes: word(row, "scopes", scopes_of)?,
        created_at: row.try_get("created_at").map_err(failure)?,
        revoked_at: row.try_get("revoked_at").map_err(failure)?,
        expires_at: row.try_get("expires_at").map_err(failure)?,
        last_used_at: row.try_get("last_used_at").map_err(failure)?,
        previous,
        models: json("models", serde_json::from_str(required(row, "models")?))?,
        limits: json("limits", serde_json::from_str(required(row, "limits")?))?,
        budgets: json("budgets", serde_json::from_str(required(row, "budgets")?))?,
        version: count(row, "version")?,
    })
}

pub(super) fn count(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column).map_err(failure)?;
    u64::try_from(value).map_err(|_| wrong_value(column))
}

fn text<'row>(row: &'row SqliteRow, column: &str) -> Result<Option<&'row str>, StoreError> {
    row.try_get(column).map_err(failure)
}

fn required<'row>(row: &'row SqliteRow, column: &str) -> Result<&'row str, StoreError> {
    row.try_get(column).map_err(failure)
}

fn word<T>(row: &SqliteRow, column: &str, parse: fn(&str) -> Option<T>) -> Result<T, StoreError> {
    parse(required(row, column)?).ok_or_else(|| wrong_value(column))
}

impl Columns for SqliteRow {
    fn word(&self, column: &str) -> Result<String, StoreError> {
        self.try_get(column).map_err(failure)
    }

    fn optional_word(&self, column: &str) -> Result<Option<String>, StoreError> {
        self.try_get(column).map_err(failure)
    }

    fn text(&self, column: &str) -> Result<String, StoreError> {
        self.word(column)
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

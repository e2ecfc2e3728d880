//! What of a row is sealed, said once for both databases.
//!
//! Sealed is what clients said: messages, tools, names and metadata that they gave, stored answers. So is the digest
//! by which an implicit context is found, because short texts can be tried on it. Clear stays what rows are found,
//! counted and ended by: ids, projects, models, times, numbers.

use data_encoding::BASE64URL_NOPAD;
use holdfast_protocol::chat::{Tool, ToolChoice};
use holdfast_protocol::context::{Context, ContextId};
use holdfast_seal::{Keyring, OVERHEAD_BYTES, OpenError, Place};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::StoreError;
use crate::columns::{json, wrong_value};
use crate::responses::{ConversationRecord, ResponseRecord};

/// A digest that is sealed begins so; one that is not has no colon in it.
const SEALED_WORD: &str = "sealed:";

/// What a client gave a context besides its messages. Sealed as one value.
#[derive(Serialize, Deserialize, Default)]
pub(crate) struct Words {
    pub(crate) display_name: Option<String>,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) tool_choice: Option<ToolChoice>,
}

impl Words {
    /// Those of a context that is not sealed.
    pub(crate) fn of(context: &Context) -> Self {
        Words {
            display_name: context.display_name.clone(),
            metadata: context.metadata.clone(),
            tools: context.tools.clone(),
            tool_choice: context.tool_choice.clone(),
        }
    }

    /// Where a key seals: what to store instead of the columns.
    pub(crate) fn seal(
        &self,
        keys: &Keyring,
        project: &str,
        id: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if keys.current().is_none() {
            return Ok(None);
        }
        let plain = json("sealed", serde_json::to_vec(self))?;
        Ok(Some(keys.seal(&words(project, id), plain)))
    }

    pub(crate) fn open(
        keys: &Keyring,
        project: &str,
        id: &str,
        sealed: Vec<u8>,
    ) -> Result<Self, StoreError> {
        let plain = opened(keys.open(&words(project, id), sealed))?;
        json("sealed", serde_json::from_slice(&plain))
    }
}

fn words<'a>(project: &'a str, id: &'a str) -> Place<'a> {
    place("contexts.words", project, id)
}

pub(crate) fn initial<'a>(project: &'a str, id: &'a str) -> Place<'a> {
    place("contents.initial", project, id)
}

pub(crate) fn turn<'a>(project: &'a str, id: &'a str, number: u32) -> Place<'a> {
    Place {
        number: number.into(),
        ..place("turns.messages", project, id)
    }
}

/// A value of a response or a conversation: `kind` is its table and column.
pub(crate) fn place<'a>(kind: &'static str, project: &'a str, id: &'a str) -> Place<'a> {
    Place {
        kind,
        project,
        id,
        number: 0,
    }
}

/// The digest of an implicit context, as it is stored.
pub(crate) fn seal_digest(
    keys: &Keyring,
    project: &str,
    id: &str,
    digest: Option<&str>,
) -> Option<String> {
    let digest = digest?;
    if keys.current().is_none() {
        return Some(digest.to_owned());
    }
    let place = place("contexts.implicit", project, id);
    let sealed = keys.seal(&place, digest.as_bytes().to_vec());
    Some(SEALED_WORD.to_owned() + &BASE64URL_NOPAD.encode(&sealed))
}

pub(crate) fn open_digest(
    keys: &Keyring,
    project: &str,
    id: &ContextId,
    stored: Option<String>,
) -> Result<Option<String>, StoreError> {
    let Some(stored) = stored else {
        return Ok(None);
    };
    let Some(sealed) = digest_bytes(&stored)? else {
        return Ok(Some(stored));
    };
    let place = place("contexts.implicit", project, id.as_str());
    let plain = opened(keys.open(&place, sealed))?;
    let digest = String::from_utf8(plain).map_err(|_| wrong_value("implicit"))?;
    Ok(Some(digest))
}

/// The bytes of a stored digest that is sealed.
pub(crate) fn digest_bytes(stored: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(text) = stored.strip_prefix(SEALED_WORD) else {
        return Ok(None);
    };
    let sealed = BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|_| wrong_value("implicit"))?;
    Ok(Some(sealed))
}

/// The parts of a response as they are stored.
pub(crate) struct StoredResponse {
    pub(crate) messages: Vec<u8>,
    pub(crate) input: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl StoredResponse {
    pub(crate) fn of(keys: &Keyring, record: &ResponseRecord) -> Self {
        let seal = |kind, plain: &Vec<u8>| {
            keys.seal(&place(kind, &record.project, &record.id), plain.clone())
        };
        StoredResponse {
            messages: seal(RESPONSE_MESSAGES, &record.messages),
            input: seal(RESPONSE_INPUT, &record.input),
            body: seal(RESPONSE_BODY, &record.body),
        }
    }
}

/// The parts of a conversation as they are stored.
pub(crate) struct StoredConversation {
    pub(crate) metadata: Vec<u8>,
    pub(crate) messages: Vec<u8>,
    pub(crate) items: Vec<u8>,
}

impl StoredConversation {
    pub(crate) fn of(keys: &Keyring, record: &ConversationRecord) -> Self {
        let seal = |kind, plain: &Vec<u8>| {
            keys.seal(&place(kind, &record.project, &record.id), plain.clone())
        };
        StoredConversation {
            metadata: seal(CONVERSATION_METADATA, &record.metadata),
            messages: seal(CONVERSATION_MESSAGES, &record.messages),
            items: seal(CONVERSATION_ITEMS, &record.items),
        }
    }
}

pub(crate) const RESPONSE_MESSAGES: &str = "responses.messages";
pub(crate) const RESPONSE_INPUT: &str = "responses.input";
pub(crate) const RESPONSE_BODY: &str = "responses.body";
pub(crate) const CONVERSATION_METADATA: &str = "conversations.metadata";
pub(crate) const CONVERSATION_MESSAGES: &str = "conversations.messages";
pub(crate) const CONVERSATION_ITEMS: &str = "conversations.items";

/// How long a chain of at most `limit` values may be as they are stored, if they may have `bytes_max` when they are opened.
pub(crate) fn stored_bytes_max(bytes_max: u64, limit: u32) -> i64 {
    let overhead = OVERHEAD_BYTES as u64 * (u64::from(limit) + 1);
    i64::try_from(bytes_max.saturating_add(overhead)).unwrap_or(i64::MAX)
}

// Statements have it as a number.
const _: () = assert!(OVERHEAD_BYTES == 50);

/// What can't be opened can't be read back.
pub(crate) fn opened(result: Result<Vec<u8>, OpenError>) -> Result<Vec<u8>, StoreError> {
    result.map_err(|error| StoreError::Corrupt(error.to_string()))
}

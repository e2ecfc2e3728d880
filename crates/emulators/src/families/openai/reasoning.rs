//! Reasoning that comes back: sealed in its own item, or by the id of an item that is stored.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::check::{bad_type, invalid, missing, unknown};
use super::responses::not_found;
use super::{Caller, Checked, OpenAi, effort};

/// What every seal begins with.
const SEAL_PREFIX: &str = "gAAAAA";
/// Bytes of the parts of a seal: whose it is, which one, and the proof.
const PART_BYTES: usize = 8;

const FIELDS: &[&str] = &[
    "id",
    "type",
    "summary",
    "content",
    "encrypted_content",
    "status",
];

/// The sealed form of an item's reasoning, which only the organization can send back that got it.
pub(super) fn seal(account: &str, item_id: &str) -> String {
    let mut bytes = [
        digest("account", account.as_bytes()),
        digest("item", item_id.as_bytes()),
    ]
    .concat();
    bytes.extend(digest("seal", &bytes));
    format!("{SEAL_PREFIX}{}", data_encoding::BASE64.encode(&bytes))
}

/// Why a seal is not accepted.
fn refusal_of(seal: &str, account: &str) -> Option<&'static str> {
    let bytes = seal
        .strip_prefix(SEAL_PREFIX)
        .and_then(|text| data_encoding::BASE64.decode(text.as_bytes()).ok())
        .filter(|bytes| bytes.len() == 3 * PART_BYTES);
    let is_ours = |bytes: &Vec<u8>| {
        let (content, proof) = bytes.split_at(2 * PART_BYTES);
        digest("seal", content) == proof
    };
    match bytes.filter(is_ours) {
        None => Some("Encrypted content could not be decrypted or parsed."),
        Some(bytes) if !bytes.starts_with(&digest("account", account.as_bytes())) => {
            Some("Encrypted content organization_id did not match the target organization.")
        }
        Some(_) => None,
    }
}

fn digest(purpose: &str, content: &[u8]) -> [u8; PART_BYTES] {
    let mut hasher = Sha256::new_with_prefix(format!("reasoning {purpose}\n"));
    hasher.update(content);
    let mut part = [0; PART_BYTES];
    part.copy_from_slice(&hasher.finalize()[..PART_BYTES]);
    part
}

impl OpenAi {
    /// Checks the reasoning among a request's own items.
    pub(super) fn check_reasoning(&self, caller: &Caller<'_>, items: &[Value]) -> Checked<()> {
        for (index, item) in items.iter().enumerate() {
            if item["type"] != "reasoning" {
                continue;
            }
            if !effort::can_reason(caller.body) {
                let message = "Reasoning input items can only be provided to a reasoning or computer use model. Remove \
                               reasoning items from your input and try again.";
                return Err(invalid(message, Some("input"), None));
            }
            self.check_item(caller, item, &format!("input[{index}]"))?;
            let next = items.get(index + 1).unwrap_or(&Value::Null);
            let is_followed = match next["type"].as_str() {
                Some("reasoning" | "function_call") => true,
                Some("message") | None => next["role"] == "assistant",
                Some(_) => false,
            };
            if !is_followed {
                let message = format!(
                    "Item '{}' of type 'reasoning' was provided without its required following item.",
                    item["id"].as_str().unwrap_or_default()
                );
                return Err(invalid(&message, Some("input"), None));
            }
        }
        Ok(())
    }

    fn check_item(&self, caller: &Caller<'_>, item: &Value, at: &str) -> Checked<()> {
        if let Some((name, _)) = item
            .as_object()
            .into_iter()
            .flatten()
            .find(|(name, _)| !FIELDS.contains(&name.as_str()))
        {
            return Err(unknown(&format!("{at}.{name}")));
        }
        let Some(summary) = item["summary"].as_array() else {
            return Err(missing(&format!("{at}.summary")));
        };
        if summary
            .iter()
            .any(|part| part["type"] != "summary_text" || !part["text"].is_string())
        {
            return Err(bad_type(
                &format!("{at}.summary"),
                "an array of summary texts",
            ));
        }
        match &item["encrypted_content"] {
            Value::Null => self.check_stored(caller, item, at),
            Value::String(seal) => match refusal_of(seal, &caller.account) {
                None => Ok(()),
                Some(reason) => {
                    let message = format!(
                        "The encrypted content {} could not be verified. Reason: {reason}",
                        abridged(seal)
                    );
                    Err(invalid(&message, None, Some("invalid_encrypted_content")))
                }
            },
            _ => Err(bad_type(&format!("{at}.encrypted_content"), "a string")),
        }
    }

    /// An item without a seal is one that the service has kept.
    fn check_stored(&self, caller: &Caller<'_>, item: &Value, at: &str) -> Checked<()> {
        let Some(id) = item["id"].as_str() else {
            return Err(missing(&format!("{at}.id")));
        };
        if caller.body["store"] == false {
            return Err(not_found(&format!(
                "Item with id '{id}' not found. Items are not persisted when `store` is set to false. Try again with \
                 `store` set to true, or remove this item from your input."
            )));
        }
        if self.has_item(&caller.account, id, caller.desk.now_ms) {
            return Ok(());
        }
        Err(not_found(&format!("Item with id '{id}' not found.")))
    }
}

/// The first four and the last four characters, as the service shows a seal.
fn abridged(seal: &str) -> String {
    let letters: Vec<char> = seal.chars().collect();
    match letters.len() {
        0..=8 => seal.to_owned(),
        count => {
            let (first, last) = (&letters[..4], &letters[count - 4..]);
            format!("{}...{}", String::from_iter(first), String::from_iter(last))
        }
    }
}

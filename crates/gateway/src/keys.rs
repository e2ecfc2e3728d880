//! API keys: how they are made and hashed. Where they are kept is the store's business, who may use them the server's.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use holdfast_protocol::UnixMillis;
use holdfast_store::{KeyRecord, KeyScope, LimitSettings, PreviousSecret};
use rand::RngExt;
use rand::distr::Alphanumeric;
use sha2::{Digest, Sha256};

/// Every key made here begins so, which lets secret scanners and people recognise one.
pub const KEY_PREFIX: &str = "hf-";

/// Fewest characters of a key that somebody chose.
pub const CHOSEN_KEY_CHARACTERS_MIN: usize = 16;

/// 43 letters and digits carry 256 bits.
const RANDOM_CHARACTERS: usize = 43;

/// A credential. Prints as stars; [`Secret::expose`] is the only way to the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a credential.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for sending, hashing or showing it once.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// Makes a random key and the record to store for it.
pub fn new_key(
    project: &str,
    label: &str,
    scopes: &[KeyScope],
    now: UnixMillis,
) -> (Secret, KeyRecord) {
    let (secret, hint) = new_secret();
    let record = record(&secret, hint, project, label, scopes, now);
    (secret, record)
}

/// The same key with a new secret; the one so far is good until `previous_expires_at`, and the one before no longer.
pub fn rotated(record: KeyRecord, previous_expires_at: UnixMillis) -> (Secret, KeyRecord) {
    let (secret, hint) = new_secret();
    let previous = PreviousSecret {
        hash: record.hash,
        expires_at: previous_expires_at,
    };
    let record = KeyRecord {
        hash: hash(&secret.0),
        hint,
        previous: Some(previous),
        ..record
    };
    (secret, record)
}

/// The record of a key that somebody chose, such as `HOLDFAST_BOOTSTRAP_KEY`; [`check_chosen`] comes first.
pub fn record_for(
    secret: &Secret,
    project: &str,
    label: &str,
    scopes: &[KeyScope],
    now: UnixMillis,
) -> KeyRecord {
    // A chosen key may be guessable from its beginning, so that less of it is shown than of a random one.
    let hint = secret.0.chars().take(4).collect();
    record(secret, hint, project, label, scopes, now)
}

/// Whether a key that somebody chose can serve as one.
///
/// # Errors
/// A clause that says what is wrong with it: too short, or with characters that a header can't carry.
pub fn check_chosen(secret: &Secret) -> Result<(), String> {
    if secret.0.len() < CHOSEN_KEY_CHARACTERS_MIN {
        return Err(format!(
            "a key needs at least {CHOSEN_KEY_CHARACTERS_MIN} characters"
        ));
    }
    if !secret.0.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a key may only have printable ASCII characters and no spaces".into());
    }
    Ok(())
}

/// SHA-256 of the whole key, the form in which it is stored and looked up.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn record(
    secret: &Secret,
    hint: String,
    project: &str,
    label: &str,
    scopes: &[KeyScope],
    now: UnixMillis,
) -> KeyRecord {
    let mut scopes = scopes.to_vec();
    scopes.sort();
    scopes.dedup();
    KeyRecord {
        id: new_key_id(),
        project: project.to_owned(),
        hash: hash(&secret.0),
        hint,
        label: label.to_owned(),
        scopes,
        created_at: now,
        revoked_at: None,
        expires_at: None,
        last_used_at: None,
        previous: None,
        models: Vec::new(),
        limits: LimitSettings::default(),
        version: 0,
    }
}

/// A random secret, and as much of it as is shown later.
fn new_secret() -> (Secret, String) {
    let random: String = rand::rng()
        .sample_iter(Alphanumeric)
        .take(RANDOM_CHARACTERS)
        .map(char::from)
        .collect();
    let secret = Secret(format!("{KEY_PREFIX}{random}"));
    let hint = secret.0.chars().take(KEY_PREFIX.len() + 5).collect();
    (secret, hint)
}

fn new_key_id() -> String {
    let random: [u8; 10] = rand::rng().random();
    format!("key-{}", BASE32_NOPAD.encode(&random).to_ascii_lowercase())
}

#[cfg(test)]
mod tests;

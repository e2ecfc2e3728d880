//! What the databases have in common: values as words and JSON, and what to say when a column can't be read. No text
//! from a row gets into an error.

use holdfast_protocol::context::{ContextMode, Expiry, ProfileKind};

use crate::{KeyScope, StoreError};

/// The text of a JSON error is left out, because it can quote what it could not read.
pub(crate) fn json<T>(column: &str, result: serde_json::Result<T>) -> Result<T, StoreError> {
    result.map_err(|error| {
        StoreError::Corrupt(format!(
            "column `{column}` is not the expected JSON ({:?} error at character {})",
            error.classify(),
            error.column()
        ))
    })
}

pub(crate) fn wrong_value(column: &str) -> StoreError {
    StoreError::Corrupt(format!("column `{column}` has an unknown value"))
}

/// The databases' integers are signed.
pub(crate) fn integer(column: &str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| wrong_value(column))
}

pub(crate) fn mode_of(word: &str) -> Option<ContextMode> {
    [ContextMode::CommonPrefix, ContextMode::Session]
        .into_iter()
        .find(|mode| mode.as_str() == word)
}

pub(crate) fn profile_of(word: &str) -> Option<ProfileKind> {
    [ProfileKind::Gemini, ProfileKind::Ark, ProfileKind::Native]
        .into_iter()
        .find(|profile| profile.as_str() == word)
}

pub(crate) fn expiry_word(expiry: Expiry) -> &'static str {
    match expiry {
        Expiry::Fixed => "fixed",
        Expiry::Sliding => "sliding",
    }
}

pub(crate) fn expiry_of(word: &str) -> Option<Expiry> {
    [Expiry::Fixed, Expiry::Sliding]
        .into_iter()
        .find(|expiry| expiry_word(*expiry) == word)
}

pub(crate) fn scope_words(scopes: &[KeyScope]) -> String {
    let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    words.join(" ")
}

/// A key whose scopes are not all known must not get by with the rest of them.
pub(crate) fn scopes_of(words: &str) -> Option<Vec<KeyScope>> {
    let scopes: Option<Vec<KeyScope>> = words.split_whitespace().map(KeyScope::parse).collect();
    scopes.filter(|scopes| !scopes.is_empty())
}

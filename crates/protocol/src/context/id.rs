//! How a context id is made and read.

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use jiff::Timestamp;

use super::ContextId;
use crate::UnixMillis;
use crate::error::ApiError;

/// Longer texts are refused unread; the longest real resource name is far below.
const TEXT_BYTES_MAX: usize = 512;

/// Digits of `yyyymmddHHMMSS`.
const STAMP_LENGTH: usize = 14;

/// 16 bytes make 26 characters; longer is accepted so that a later version may use more randomness.
const RANDOM_LENGTH: std::ops::RangeInclusive<usize> = 16..=64;

const BASE32: &str = "abcdefghijklmnopqrstuvwxyz234567";

impl ContextId {
    /// A new id from the creation time and 16 random bytes.
    pub fn new(now: UnixMillis, random: [u8; 16]) -> Self {
        let now = now.clamp(0, Timestamp::MAX.as_millisecond());
        let created = Timestamp::from_millisecond(now).unwrap_or(Timestamp::UNIX_EPOCH);
        ContextId(format!(
            "ctx-{}-{}",
            created.strftime("%Y%m%d%H%M%S"),
            base32().encode(&random)
        ))
    }

    /// The bare id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContextId {
    /// A malformed id is answered exactly like an unknown one.
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        bare_id(text)
            .filter(|id| is_well_formed(id))
            .map(|id| ContextId(id.to_owned()))
            .ok_or_else(ApiError::context_not_found)
    }
}

impl TryFrom<String> for ContextId {
    type Error = ApiError;

    fn try_from(text: String) -> Result<Self, ApiError> {
        text.parse()
    }
}

impl From<ContextId> for String {
    fn from(id: ContextId) -> String {
        id.0
    }
}

fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str(BASE32);
    specification
        .encoding()
        .expect("32 distinct ASCII symbols without padding are a valid base32 alphabet")
}

/// The last segment of the two resource-name forms, or the text itself.
fn bare_id(text: &str) -> Option<&str> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let segments: Vec<&str> = text.split('/').collect();
    match segments[..] {
        [id] | ["cachedContents", id] => Some(id),
        [
            "projects",
            project,
            "locations",
            location,
            "cachedContents",
            id,
        ] if !project.is_empty() && !location.is_empty() => Some(id),
        _ => None,
    }
}

/// Reserved words of the routes (`create`, `chat`) fail here by their shape.
fn is_well_formed(id: &str) -> bool {
    let Some((stamp, random)) = id
        .strip_prefix("ctx-")
        .and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    stamp.len() == STAMP_LENGTH
        && stamp.bytes().all(|byte| byte.is_ascii_digit())
        && RANDOM_LENGTH.contains(&random.len())
        && random.chars().all(|symbol| BASE32.contains(symbol))
}

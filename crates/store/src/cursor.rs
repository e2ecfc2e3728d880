//! Where a page of contexts ended, as the opaque text that clients send back.
//!
//! A cursor is no secret and grants nothing: it names a position in the list of the project that asks. Its check value
//! binds it to that project and finds what was cut or mistyped, so that a wrong cursor is an error and not a wrong
//! page.

use data_encoding::BASE32_DNSSEC;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::context::ContextId;

use crate::StoreError;

/// Longer texts are refused unread; a real cursor has about 100 characters.
const TEXT_BYTES_MAX: usize = 256;

const CHECK_BYTES: usize = 8;
const TIME_BYTES: usize = 8;

/// The last context of a page: the next page begins after it in the order newest first, then largest id first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) created_at: UnixMillis,
    pub(crate) id: ContextId,
}

impl Cursor {
    pub(crate) fn encode(&self, project: &str) -> String {
        let mut bytes = check_value(project, self.created_at, self.id.as_str()).to_vec();
        bytes.extend(self.created_at.to_be_bytes());
        bytes.extend(self.id.as_str().bytes());
        BASE32_DNSSEC.encode(&bytes)
    }

    /// `NotFound` for anything but the result of [`Cursor::encode`] with the same project.
    pub(crate) fn decode(project: &str, text: &str) -> Result<Self, StoreError> {
        Self::checked(project, text).ok_or(StoreError::NotFound)
    }

    fn checked(project: &str, text: &str) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let bytes = BASE32_DNSSEC.decode(text.as_bytes()).ok()?;
        let (_, rest) = bytes.split_first_chunk::<CHECK_BYTES>()?;
        let (created_at, id) = rest.split_first_chunk::<TIME_BYTES>()?;
        let cursor = Cursor {
            created_at: UnixMillis::from_be_bytes(*created_at),
            id: std::str::from_utf8(id).ok()?.parse().ok()?,
        };
        // One comparison covers the check value, other spellings of the id than the bare one, and capital letters.
        (cursor.encode(project) == text).then_some(cursor)
    }
}

/// 64-bit FNV-1a, which is stable across builds. Each field is followed by a byte that occurs in none of them.
fn check_value(project: &str, created_at: UnixMillis, id: &str) -> [u8; CHECK_BYTES] {
    let created_at = created_at.to_string();
    [project, &created_at, id]
        .iter()
        .flat_map(|field| field.bytes().chain([0xff]))
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
        .to_be_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn cursor() -> Cursor {
        Cursor {
            created_at: 1_700_000_000_123,
            id: ContextId::new(1_700_000_000_123, [7; 16]),
        }
    }

    #[test]
    fn a_cursor_reads_back_only_for_its_project() {
        let text = cursor().encode("alpha");
        assert_eq!(Cursor::decode("alpha", &text).unwrap(), cursor());
        assert!(Cursor::decode("beta", &text).is_err());
    }

    #[test]
    fn every_change_of_one_character_is_found() {
        let text = cursor().encode("alpha");
        for position in 0..text.len() {
            for symbol in ('a'..='z').chain('0'..='9').chain('A'..='Z') {
                let mut changed = text.clone();
                changed.replace_range(position..=position, &symbol.to_string());
                assert_eq!(Cursor::decode("alpha", &changed).is_ok(), changed == text);
            }
            assert!(Cursor::decode("alpha", &text[..position]).is_err());
        }
    }
}

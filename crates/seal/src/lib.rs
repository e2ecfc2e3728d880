//! Seals what clients have said before it reaches a disk, with XChaCha20-Poly1305 and a data key of the operator's.
//!
//! [`Keyring`] seals values of the database, each bound to its place, so that none can be moved to another row or
//! project. [`StateKey`] seals files of saved KV state, in pieces. A data key itself never seals anything: for each
//! purpose another key is derived from it. Nonces are random and 24 bytes long, so that a key may seal any number of
//! values.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use zeroize::{Zeroize, Zeroizing};

mod files;
mod keyring;

pub use files::StateKey;
pub use keyring::{Keyring, MARK, OVERHEAD_BYTES, Place, sealed_with};

/// Length of a data key, bytes.
pub const KEY_BYTES: usize = 32;

const KEY_ID_BYTES: usize = 8;

/// A secret of the operator's from which the keys that seal are derived. It is never shown, and wiped when dropped.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; KEY_BYTES]>);

/// Tells data keys apart, and tells nothing of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; KEY_ID_BYTES]);

/// What is wrong with the text of a data key. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a data key is 32 random bytes, as base64 or hexadecimal; `openssl rand -base64 32` makes one"
)]
pub struct KeyError;

/// Why something sealed can't be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key is not among those that are known here.
    #[error("it is sealed with the data key {0}, which is not configured")]
    MissingKey(KeyId),
    /// It was changed, cut off, or sealed for another place.
    #[error("it is sealed, and has been damaged or moved")]
    Damaged,
    /// A newer version of this program has sealed it.
    #[error("it is sealed in a way that this version does not know")]
    UnknownVersion,
}

impl DataKey {
    /// The key itself.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        DataKey(Zeroizing::new(bytes))
    }

    /// Reads a key that is written as base64 (either alphabet, padded or not) or hexadecimal. White space around it
    /// does not count.
    ///
    /// # Errors
    /// It is neither, or not 32 bytes.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim().as_bytes();
        let encodings = [
            &HEXLOWER_PERMISSIVE,
            &BASE64,
            &BASE64_NOPAD,
            &BASE64URL,
            &BASE64URL_NOPAD,
        ];
        for encoding in encodings {
            let Ok(mut bytes) = encoding.decode(text) else {
                continue;
            };
            let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice());
            bytes.zeroize();
            if let Ok(key) = key {
                return Ok(DataKey::new(key));
            }
        }
        Err(KeyError)
    }

    /// What this key is called.
    pub fn id(&self) -> KeyId {
        let derived = self.derive("holdfast 2026 data key: id");
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&derived[..KEY_ID_BYTES]);
        KeyId(id)
    }

    fn derive(&self, purpose: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(blake3::derive_key(purpose, &*self.0))
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({})", self.id())
    }
}

impl KeyId {
    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As it was stored; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(KeyId)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;

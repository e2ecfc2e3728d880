//! Values of the database, sealed one by one.
//!
//! A sealed value is: mark (1 byte), version (1), id of the key (8), nonce (24), ciphertext, tag (16). The mark is a
//! byte that no UTF-8 text has in it, and all that is stored unsealed is UTF-8 (JSON, names); so both can stand in one
//! column, and rows from before there was a key stay readable. What the value is bound to: the bytes before the
//! nonce, and its [`Place`].

use std::fmt;
use std::sync::Arc;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use rand::RngExt;

use crate::{DataKey, KEY_ID_BYTES, KeyId, OpenError, StateKey};

/// What every sealed value begins with, and nothing else does.
pub const MARK: u8 = 0xff;

const VERSION: u8 = 1;

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Mark, version and key id.
const HEAD_BYTES: usize = 2 + KEY_ID_BYTES;

/// How much longer a value is sealed than it was.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + NONCE_BYTES + TAG_BYTES;

/// Where a value belongs. It opens nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Table and column.
    pub kind: &'static str,
    /// The tenant.
    pub project: &'a str,
    /// The row's public id.
    pub id: &'a str,
    /// Which of several values of that row; 0 where there is one.
    pub number: u64,
}

impl Place<'_> {
    /// No two places have the same bytes: each part is preceded by its length.
    fn bound(&self, head: &[u8]) -> Vec<u8> {
        let mut bound = head.to_vec();
        for part in [self.kind, self.project, self.id] {
            bound.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bound.extend_from_slice(part.as_bytes());
        }
        bound.extend_from_slice(&self.number.to_le_bytes());
        bound
    }
}

struct Opener {
    id: KeyId,
    cipher: XChaCha20Poly1305,
}

/// The key that seals, if there is one, and all keys that open. Cheap to clone.
#[derive(Clone, Default)]
pub struct Keyring {
    current: Option<(KeyId, DataKey)>,
    openers: Arc<Vec<Opener>>,
}

impl Keyring {
    /// No keys: everything is stored as it is, and nothing that is sealed can be opened.
    pub fn none() -> Self {
        Keyring::default()
    }

    /// `current` seals and opens, `previous` only open.
    pub fn new(current: Option<DataKey>, previous: &[DataKey]) -> Self {
        let openers = current.iter().chain(previous).map(|key| Opener {
            id: key.id(),
            cipher: XChaCha20Poly1305::new(
                &(*key.derive("holdfast 2026 data key: values of the database")).into(),
            ),
        });
        Keyring {
            openers: Arc::new(openers.collect()),
            current: current.map(|key| (key.id(), key)),
        }
    }

    /// The key that seals.
    pub fn current(&self) -> Option<KeyId> {
        self.current.as_ref().map(|(id, _)| *id)
    }

    /// Whether what this key has sealed can be opened.
    pub fn opens(&self, id: KeyId) -> bool {
        self.opener(id).is_some()
    }

    /// What seals files of KV state: derived from the key that seals, so that another one makes earlier files useless.
    pub fn state_key(&self) -> Option<StateKey> {
        self.current.as_ref().map(|(_, key)| StateKey::of(key))
    }

    /// Seals a value for its place; returns it as it is where no key seals.
    pub fn seal(&self, place: &Place<'_>, plain: Vec<u8>) -> Vec<u8> {
        let Some(opener) = self.current().and_then(|id| self.opener(id)) else {
            return plain;
        };
        let nonce: [u8; NONCE_BYTES] = rand::rng().random();
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
        sealed.extend_from_slice(&[MARK, VERSION]);
        sealed.extend_from_slice(opener.id.as_bytes());
        let bound = place.bound(&sealed);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&plain);
        let tag = opener
            .cipher
            .encrypt_inout_detached(
                &XNonce::from(nonce),
                &bound,
                (&mut sealed[HEAD_BYTES + NONCE_BYTES..]).into(),
            )
            .expect("the cipher takes 256 GiB, and no value is as long");
        sealed.extend_from_slice(&tag);
        sealed
    }

    /// Opens a value that was sealed for this place; returns one that was never sealed as it is.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, place: &Place<'_>, stored: Vec<u8>) -> Result<Vec<u8>, OpenError> {
        if stored.first() != Some(&MARK) {
            return Ok(stored);
        }
        let id = key_id(&stored)?;
        let opener = self.opener(id).ok_or(OpenError::MissingKey(id))?;
        let bound = place.bound(&stored[..HEAD_BYTES]);
        let mut plain = stored;
        let tag = split_tag(&mut plain)?;
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&plain[HEAD_BYTES..HEAD_BYTES + NONCE_BYTES]);
        plain.drain(..HEAD_BYTES + NONCE_BYTES);
        opener
            .cipher
            .decrypt_inout_detached(
                &XNonce::from(nonce),
                &bound,
                plain.as_mut_slice().into(),
                &tag,
            )
            .map_err(|_| OpenError::Damaged)?;
        Ok(plain)
    }

    /// Whether a value is stored as it would be now. An empty one says nothing, and is not sealed again.
    pub fn is_current(&self, stored: &[u8]) -> bool {
        stored.is_empty() || sealed_with(stored) == self.current()
    }

    fn opener(&self, id: KeyId) -> Option<&Opener> {
        self.openers.iter().find(|opener| opener.id == id)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<KeyId> = self.openers.iter().map(|opener| opener.id).collect();
        f.debug_struct("Keyring")
            .field("current", &self.current())
            .field("opens", &ids)
            .finish()
    }
}

/// The key that a stored value is sealed with, as far as it says so; `None` for one that is not sealed.
pub fn sealed_with(stored: &[u8]) -> Option<KeyId> {
    if stored.first() != Some(&MARK) {
        return None;
    }
    KeyId::from_bytes(stored.get(2..HEAD_BYTES)?)
}

fn key_id(stored: &[u8]) -> Result<KeyId, OpenError> {
    match stored.get(1) {
        Some(&VERSION) => {}
        Some(_) => return Err(OpenError::UnknownVersion),
        None => return Err(OpenError::Damaged),
    }
    if stored.len() < OVERHEAD_BYTES {
        return Err(OpenError::Damaged);
    }
    KeyId::from_bytes(&stored[2..HEAD_BYTES]).ok_or(OpenError::Damaged)
}

fn split_tag(sealed: &mut Vec<u8>) -> Result<Tag, OpenError> {
    let at = sealed.len() - TAG_BYTES;
    let tag = <[u8; TAG_BYTES]>::try_from(&sealed[at..]).map_err(|_| OpenError::Damaged)?;
    sealed.truncate(at);
    Ok(tag.into())
}

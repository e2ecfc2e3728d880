//! Files of saved KV state: what was said can be read out of it, so that it is sealed like the words themselves.
//!
//! A file is sealed in pieces (the STREAM construction): each piece has a nonce of the file's random beginning, the
//! piece's number, and whether it is the last. So only one piece is held beside the state, and a file that was cut
//! off, or whose pieces were put in another order, does not open.

use std::fmt;
use std::io::{self, Read, Write};

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use rand::RngExt;
use zeroize::Zeroizing;

use crate::{DataKey, KEY_BYTES};

const PIECE_BYTES: usize = 1 << 20;
const TAG_BYTES: usize = 16;
const NONCE_BEGINNING_BYTES: usize = 19;

/// Seals and opens files of KV state.
#[derive(Clone)]
pub struct StateKey {
    key: Zeroizing<[u8; KEY_BYTES]>,
    names: Zeroizing<[u8; KEY_BYTES]>,
}

impl StateKey {
    pub(crate) fn of(key: &DataKey) -> Self {
        StateKey {
            key: key.derive("holdfast 2026 data key: files of KV state"),
            names: key.derive("holdfast 2026 data key: names of KV state"),
        }
    }

    /// A text that goes with this key and `text`, and with nothing else. What is hashed together with it can't be
    /// guessed by whoever has not got the key.
    pub fn name(&self, text: &str) -> String {
        blake3::keyed_hash(&self.names, text.as_bytes())
            .to_hex()
            .to_string()
    }

    /// How long `state_bytes` of state are when they are sealed.
    pub fn sealed_bytes(state_bytes: u64) -> u64 {
        let pieces = state_bytes.div_ceil(PIECE_BYTES as u64).max(1);
        NONCE_BEGINNING_BYTES as u64 + state_bytes + pieces * TAG_BYTES as u64
    }

    /// Writes a state, which opens only under the same `name`.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn seal(&self, name: &[u8], state: &[u8], to: &mut impl Write) -> io::Result<()> {
        let cipher = XChaCha20Poly1305::new(&(*self.key).into());
        let beginning: [u8; NONCE_BEGINNING_BYTES] = rand::rng().random();
        to.write_all(&beginning)?;
        let mut buffer = Vec::with_capacity(PIECE_BYTES.min(state.len()));
        let mut rest = state;
        for number in 0_u32.. {
            let (piece, after) = rest.split_at(rest.len().min(PIECE_BYTES));
            let is_last = after.is_empty();
            buffer.clear();
            buffer.extend_from_slice(piece);
            let tag = cipher
                .encrypt_inout_detached(
                    &nonce(&beginning, number, is_last),
                    name,
                    buffer.as_mut_slice().into(),
                )
                .map_err(|_| io::ErrorKind::InvalidInput)?;
            to.write_all(&buffer)?;
            to.write_all(&tag)?;
            if is_last {
                return Ok(());
            }
            rest = after;
        }
        Err(io::ErrorKind::FileTooLarge.into())
    }

    /// Reads a state that was sealed under this `name`. `sealed_bytes`: how many there are.
    ///
    /// # Errors
    /// Those of `from`; `InvalidData` when it was changed, cut off, or sealed under another name or key.
    pub fn open(
        &self,
        name: &[u8],
        from: &mut impl Read,
        sealed_bytes: u64,
    ) -> io::Result<Vec<u8>> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let cipher = XChaCha20Poly1305::new(&(*self.key).into());
        let mut beginning = [0; NONCE_BEGINNING_BYTES];
        from.read_exact(&mut beginning)?;
        let mut left = usize::try_from(sealed_bytes)
            .ok()
            .and_then(|bytes| bytes.checked_sub(NONCE_BEGINNING_BYTES))
            .ok_or_else(invalid)?;
        let mut state = Vec::with_capacity(left);
        for number in 0_u32.. {
            let piece = left.min(PIECE_BYTES + TAG_BYTES);
            let length = piece.checked_sub(TAG_BYTES).ok_or_else(invalid)?;
            left -= piece;
            let at = state.len();
            state.resize(at + length, 0);
            from.read_exact(&mut state[at..])?;
            let mut tag = [0; TAG_BYTES];
            from.read_exact(&mut tag)?;
            cipher
                .decrypt_inout_detached(
                    &nonce(&beginning, number, left == 0),
                    name,
                    (&mut state[at..]).into(),
                    &Tag::from(tag),
                )
                .map_err(|_| invalid())?;
            if left == 0 {
                return Ok(state);
            }
        }
        Err(invalid())
    }
}

fn nonce(beginning: &[u8; NONCE_BEGINNING_BYTES], number: u32, is_last: bool) -> XNonce {
    let mut nonce = [0; 24];
    nonce[..NONCE_BEGINNING_BYTES].copy_from_slice(beginning);
    nonce[NONCE_BEGINNING_BYTES..23].copy_from_slice(&number.to_be_bytes());
    nonce[23] = u8::from(is_last);
    nonce.into()
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateKey(****)")
    }
}

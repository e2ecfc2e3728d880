//! What caches are keyed by: blocks of a prompt in the order the provider reads them, and the cumulative hash of each
//! beginning.

use sha2::{Digest, Sha256};

/// The stub tokenizer: one token for four bytes begun, at least one.
pub fn tokens(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4).max(1)
}

/// A part of a prompt that a provider treats as one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What makes it the same block: the bytes the provider would see, its role included.
    pub content: String,
    /// Its size.
    pub tokens: u64,
}

impl Block {
    /// A block sized by its content.
    pub fn new(content: impl Into<String>) -> Self {
        let content = content.into();
        Block {
            tokens: tokens(&content),
            content,
        }
    }

    /// A block sized by the text a model would read of it, where that is less than what identifies it.
    pub fn sized(content: impl Into<String>, text: &str) -> Self {
        Block {
            content: content.into(),
            tokens: tokens(text),
        }
    }
}

/// The hash of each beginning of `blocks`, the first one holding block 0. `salt` separates accounts, models and regions.
pub fn chain(salt: &str, blocks: &[Block]) -> Vec<[u8; 32]> {
    let mut hash: [u8; 32] = Sha256::digest(salt.as_bytes()).into();
    blocks
        .iter()
        .map(|block| {
            let mut hasher = Sha256::new();
            hasher.update(hash);
            hasher.update((block.content.len() as u64).to_le_bytes());
            hasher.update(block.content.as_bytes());
            hash = hasher.finalize().into();
            hash
        })
        .collect()
}

/// The first 24 hexadecimal digits of a hash, for ids.
pub fn hash_hex(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes())[..12])
}

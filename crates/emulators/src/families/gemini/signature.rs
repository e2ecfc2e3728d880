//! Thought signatures: opaque bytes that a client must send back as they came.

use sha2::{Digest, Sha256};

/// What a client may send in place of a signature it never got, for calls that another model made.
const PLACEHOLDERS: &[&str] = &[
    "context_engineering_is_the_way_to_go",
    "skip_thought_signature_validator",
];

/// A new one, in base64.
pub(super) fn issue(id: u64) -> String {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&id.to_be_bytes());
    let checksum = checksum(&bytes[..8]);
    bytes[8..].copy_from_slice(&checksum);
    data_encoding::BASE64.encode(&bytes)
}

/// Whether the decoded bytes are a signature of ours, or a documented placeholder.
pub(super) fn is_valid(bytes: &[u8]) -> bool {
    let is_placeholder = PLACEHOLDERS
        .iter()
        .any(|text| super::proto::decode_base64(text).is_some_and(|known| known == bytes));
    is_placeholder || (bytes.len() == 24 && checksum(&bytes[..8]) == bytes[8..])
}

fn checksum(id: &[u8]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update(b"thought signature");
    hasher.update(id);
    hasher.finalize()[..16].try_into().unwrap()
}

//! What a prefix is: a chain of segments, each named by a hash over all that comes before it.
//!
//! The namespace (a project) is part of the hash, so two projects with the same text have different prefixes and can
//! neither share nor time each other's state, unless config puts them in one namespace.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::Token;

/// Names a prefix (and the segment it ends with) for ever: BLAKE3 over namespace, model, KV layout and tokens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PrefixKey([u8; 32]);

/// A run of tokens that is always computed in batches of its own.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    /// Of the prefix that ends with this segment.
    pub(crate) key: PrefixKey,
    /// Never empty.
    pub(crate) tokens: Arc<[Token]>,
    /// Position of the first token.
    pub(crate) start: u32,
}

/// A chain of segments. Cheap to clone and to extend: segments are shared.
#[derive(Debug, Clone)]
pub struct Prefix {
    root: PrefixKey,
    segments: Vec<Segment>,
}

impl PrefixKey {
    pub(crate) fn root(namespace: &str, model_fingerprint: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("holdfast engine prefix, version 1");
        for part in [namespace, model_fingerprint] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        PrefixKey(*hasher.finalize().as_bytes())
    }

    fn child(&self, tokens: &[Token]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        PrefixKey(*hasher.finalize().as_bytes())
    }

    pub(crate) fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text)
            .ok()
            .map(|hash| PrefixKey(*hash.as_bytes()))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PrefixKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex()[..16])
    }
}

impl Segment {
    /// Where its tokens stand in a sequence.
    pub(crate) fn positions(&self) -> Range<u32> {
        self.start..self.start + self.tokens.len() as u32
    }
}

impl Prefix {
    pub(crate) fn new(root: PrefixKey) -> Self {
        Prefix {
            root,
            segments: Vec::new(),
        }
    }

    /// The same prefix with one more segment; an empty one changes nothing.
    pub(crate) fn push(&mut self, tokens: Vec<Token>) {
        if tokens.is_empty() {
            return;
        }
        let parent = self
            .segments
            .last()
            .map_or(self.root, |segment| segment.key);
        self.segments.push(Segment {
            key: parent.child(&tokens),
            start: self.end(),
            tokens: tokens.into(),
        });
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(crate) fn tip(&self) -> Option<PrefixKey> {
        self.segments.last().map(|segment| segment.key)
    }

    fn end(&self) -> u32 {
        self.segments
            .last()
            .map_or(0, |segment| segment.positions().end)
    }

    /// Its length.
    pub fn tokens(&self) -> u64 {
        u64::from(self.end())
    }

    /// Tokens of each segment, in order.
    pub fn segment_tokens(&self) -> Vec<u32> {
        self.segments
            .iter()
            .map(|segment| segment.tokens.len() as u32)
            .collect()
    }

    /// Number of segments.
    pub fn len_segments(&self) -> usize {
        self.segments.len()
    }
}

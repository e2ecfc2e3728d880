//! Words that separate tenants in upstream caches: keyed hashes, so that nobody can make up another tenant's.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use holdfast_protocol::Context;
use sha2::Sha256;

/// Derives them from a secret of this installation.
pub(crate) struct Tenants {
    secret: [u8; 32],
}

impl Tenants {
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Tenants { secret }
    }

    /// Of a project, for fields that salt a cache: 43 characters.
    pub(crate) fn salt(&self, project: &str) -> String {
        BASE64URL_NOPAD.encode(&self.hash(&["salt", project]))
    }

    /// Of a context, for fields that route its requests to one cache: 35 characters, below the 64 that OpenAI allows
    /// for `prompt_cache_key`. Equal content of different projects never shares it. What was forked from another context
    /// begins like that one, and so has the same: under one of its own it would not be found to.
    pub(crate) fn key(&self, project: &str, context: &Context) -> String {
        let root = match &context.forked_from {
            Some((parent, _)) => parent,
            None => &context.id,
        };
        let hash = self.hash(&["key", project, root.as_str()]);
        format!("hf-{}", HEXLOWER.encode(&hash[..16]))
    }

    /// Of a project, for a request without a context.
    pub(crate) fn project_key(&self, project: &str) -> String {
        let hash = self.hash(&["project", project]);
        format!("hf-{}", HEXLOWER.encode(&hash[..16]))
    }

    /// Of a project, from which it follows which worker of a fleet has what: 32 bytes.
    pub(crate) fn fleet_key(&self, project: &str) -> [u8; 32] {
        self.hash(&["fleet", project])
    }

    /// The line that stands before a context's first text where a provider has no field for this.
    pub(crate) fn line(&self, project: &str) -> String {
        let hash = self.hash(&["line", project]);
        format!("[workspace {}]", HEXLOWER.encode(&hash[..8]))
    }

    fn hash(&self, words: &[&str]) -> [u8; 32] {
        // A key of any length makes an HMAC.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) else {
            return self.secret;
        };
        for word in words {
            mac.update(&(word.len() as u64).to_le_bytes());
            mac.update(word.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

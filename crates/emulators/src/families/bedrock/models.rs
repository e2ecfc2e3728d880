//! What differs between models (facts 2.12).

/// How a model caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caching {
    /// At cache points.
    Claude {
        /// Shortest prefix, tokens.
        tokens_min: u64,
        /// Whether a cache point may ask for an hour.
        has_long_ttl: bool,
    },
    /// At cache points, or by itself when a prompt of text has none.
    Nova,
    /// Not at all.
    None,
}

/// Shortest prefix that Nova caches, tokens.
pub(super) const NOVA_TOKENS_MIN: u64 = 1_000;

/// By what follows `anthropic.claude-`: the longest beginning decides.
const CLAUDE: &[(&str, u64, bool)] = &[
    ("", 1024, false),
    ("fable-5", 512, true),
    ("opus-5", 512, true),
    ("sonnet-5", 1024, true),
    ("sonnet-5-5", 512, true),
    ("haiku-5", 512, true),
    ("opus-4-8", 1024, true),
    ("opus-4-7", 4096, true),
    ("opus-4-6", 4096, true),
    ("opus-4-5", 4096, true),
    ("sonnet-4-6", 1024, true),
    ("sonnet-4-5", 1024, true),
    ("haiku-4-5", 4096, true),
];

/// The caching of a model, an inference profile, or the ARN of one; `None` for what can be none of these.
pub(super) fn caching(id: &str) -> Option<Caching> {
    let name = id.rsplit('/').next().unwrap_or(id);
    if !name.contains('.') {
        return None;
    }
    if let Some((_, claude)) = name.split_once("anthropic.claude-") {
        let (_, tokens_min, has_long_ttl) = CLAUDE
            .iter()
            .filter(|(start, _, _)| claude.starts_with(start))
            .max_by_key(|(start, _, _)| start.len())
            .unwrap();
        return Some(Caching::Claude {
            tokens_min: *tokens_min,
            has_long_ttl: *has_long_ttl,
        });
    }
    Some(if name.contains("amazon.nova") {
        Caching::Nova
    } else {
        Caching::None
    })
}

//! What differs between models (facts 2.3 and section 7).

/// A model as the emulator knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    /// What its name begins with.
    pub(super) name: &'static str,
    /// Shortest prefix that is cached, tokens.
    pub(super) cache_tokens_min: u64,
    /// Longest prompt, tokens.
    pub(super) window_tokens: u64,
    /// Whether thinking of finished turns stays in the prompt. Where it doesn't, a new user turn changes the messages.
    pub(super) keeps_thinking: bool,
}

const fn model(
    name: &'static str,
    cache_tokens_min: u64,
    window_tokens: u64,
    keeps_thinking: bool,
) -> Model {
    Model {
        name,
        cache_tokens_min,
        window_tokens,
        keeps_thinking,
    }
}

/// The longest name that a model's name begins with decides. Where sources contradict each other (opus-4-7, sonnet-4-6;
/// facts section 8) this is the greater of what they say, which is the stricter.
pub(super) const ALL: &[Model] = &[
    model("claude-fable-5-1", 512, 1_000_000, true),
    model("claude-fable-5", 512, 1_000_000, true),
    model("claude-mythos-5-1", 512, 1_000_000, true),
    model("claude-mythos-5", 512, 1_000_000, true),
    model("claude-opus-5-5", 512, 1_000_000, true),
    model("claude-opus-5", 512, 1_000_000, true),
    model("claude-sonnet-5-5", 512, 1_000_000, true),
    model("claude-sonnet-5", 1024, 1_000_000, true),
    model("claude-haiku-5-5", 512, 1_000_000, true),
    model("claude-opus-4-8", 1024, 1_000_000, true),
    model("claude-opus-4-7", 4096, 1_000_000, true),
    model("claude-opus-4-6", 4096, 1_000_000, true),
    model("claude-opus-4-5", 4096, 200_000, true),
    model("claude-sonnet-4-6", 2048, 1_000_000, true),
    model("claude-sonnet-4-5", 1024, 200_000, false),
    model("claude-opus-4-1", 1024, 200_000, false),
    model("claude-haiku-4-5", 4096, 200_000, false),
    model("claude-3-5-haiku", 2048, 200_000, false),
];

/// The model of that name; one that the table doesn't hold, but whose name is of the vendor's kind, gets defaults.
pub(super) fn by_name(name: &str) -> Option<Model> {
    ALL.iter()
        .filter(|model| name.starts_with(model.name))
        .max_by_key(|model| model.name.len())
        .copied()
        .or_else(|| {
            name.starts_with("claude-")
                .then(|| model("claude-", 1024, 200_000, true))
        })
}

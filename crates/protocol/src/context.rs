//! Contexts: what a client creates once and names by `context_id` from then on.
//!
//! Rules that decide doubtful cases (default mode, TTL range, expiry kind) come from the model's [`Profile`];
//! they are applied once, in [`Context::new`], and for copies in [`Context::fork`].

mod id;
mod rules;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::UnixMillis;
use crate::chat::{Message, Tool, ToolChoice};

/// The id of a context: `ctx-<yyyymmddHHMMSS>-<random base32>`.
///
/// Parsed from the bare id, `cachedContents/<id>` and `projects/<any>/locations/<any>/cachedContents/<id>`.
/// Unguessable (at least 128 random bits) and still checked against the owner on every use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContextId(String);

/// Whether turns are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextMode {
    /// Immutable; any number of chats in parallel.
    CommonPrefix,
    /// Each finished turn is appended; one request at a time.
    Session,
}

/// When the clock of a context starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// Only at create and when the TTL is set.
    Fixed,
    /// Also at admission and at completion of each chat.
    Sliding,
}

/// Which family's rules a model's contexts follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileKind {
    /// Google's `cachedContents`.
    Gemini,
    /// Volcengine Ark's context API.
    Ark,
    /// Holdfast's own; every model whose config says nothing.
    #[default]
    Native,
}

/// A model's context rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The family.
    pub kind: ProfileKind,
    /// Seconds when the request gives no ttl.
    pub ttl_default_seconds: u32,
    /// Smallest accepted ttl, seconds.
    pub ttl_min_seconds: u32,
    /// Largest accepted ttl, seconds.
    pub ttl_max_seconds: u32,
    /// Smallest accepted prefix, tokens. 0: none.
    pub min_context_tokens: u32,
    /// The model's window, tokens; bounds the truncation windows.
    pub window_tokens: u32,
}

/// When an upstream's copy of a context is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warm {
    /// With the context where copies are made by a call of their own (handles); else by the first chat.
    #[default]
    Eager,
    /// By the first chat.
    Lazy,
    /// With the context, also where that takes a request of its own (breakpoints, automatic caches).
    Prewarm,
}

/// Whether copies are refreshed while nobody uses the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepWarm {
    /// Never.
    #[default]
    Off,
    /// While it pays, given how often the context is used.
    Auto,
    /// As long as the context lives.
    Always,
}

/// What happens with a prefix that the upstream can't cache because it is too small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTooSmall {
    /// Creating the context fails.
    Error,
    /// The context is made; every chat sends it whole and its receipt says so.
    Replay,
}

/// How a context's copies at upstreams are kept. Without meaning on the embedded engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct CachePolicy {
    /// When they are made.
    #[serde(default)]
    pub warm: Warm,
    /// Whether they are refreshed.
    #[serde(default)]
    pub keep_warm: KeepWarm,
    /// `None`: as the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_too_small: Option<OnTooSmall>,
}

/// Which paths a create came in by; with an absent `mode` Ark's native paths mean `session` (DESIGN section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateSurface {
    /// `/v1/context/create`.
    OpenAi,
    /// `/api/v3/context/create`.
    Ark,
    /// `cachedContents`: whatever the model, the context follows Google's rules.
    Google,
}

/// A decoded, syntactically valid create request.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateContext {
    /// Model name as the client wrote it (a `models/` prefix removed).
    pub model: String,
    /// What to hold; never empty.
    pub messages: Vec<Message>,
    /// `None` when absent, null or `""`.
    pub mode: Option<ContextMode>,
    /// Seconds; `None` when absent or null. Only known to be a positive whole number.
    pub ttl_seconds: Option<u64>,
    /// As sent.
    pub truncation: Option<TruncationRequest>,
    /// Functions held with the prefix.
    pub tools: Vec<Tool>,
    /// Default for chats with this context.
    pub tool_choice: Option<ToolChoice>,
    /// Shown by get and list only.
    pub display_name: Option<String>,
    /// Shown by get and list only.
    pub metadata: Map<String, Value>,
    /// How copies at upstreams are kept.
    pub policy: CachePolicy,
}

/// `truncation_strategy` as a client sent it, before the rules of mode and model are applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TruncationRequest {
    /// `last_history_tokens` or `rolling_tokens`; `None` picks the default.
    pub kind: Option<TruncationKind>,
    /// Tokens.
    pub last_history_tokens: Option<u32>,
    /// Whether a full window is trimmed (`true`) or ends the answer with `length` (`false`).
    pub rolling_tokens: Option<bool>,
    /// Tokens.
    pub max_window_tokens: Option<u32>,
    /// Tokens.
    pub rolling_window_tokens: Option<u32>,
}

/// A decoded fork request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForkContext {
    /// Keep turns up to this one; 0 keeps only the initial messages. `None`: all turns.
    pub at_turn: Option<u32>,
    /// Seconds; `None`: the parent's.
    pub ttl_seconds: Option<u64>,
    /// `None`: session, whatever the parent is.
    pub mode: Option<ContextMode>,
}

/// The two families of truncation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruncationKind {
    /// Keep at most so many tokens of history.
    LastHistoryTokens,
    /// Drop a block of the oldest history when the window is full.
    RollingTokens,
}

/// How a session is kept within bounds. The initial messages are never dropped; messages are dropped whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Truncation {
    /// The newest history up to this many tokens is remembered.
    LastHistoryTokens {
        /// 1..=32767.
        last_history_tokens: u32,
    },
    /// When initial messages plus history reach `max_window_tokens`, at least `rolling_window_tokens` of the oldest
    /// history go.
    RollingTokens {
        /// `false`: nothing is dropped and the answer ends with `length` when the window is full.
        rolling_tokens: bool,
        /// `None`: the model's window less its largest answer.
        max_window_tokens: Option<u32>,
        /// `None`: 4096, or a quarter of `max_window_tokens` (or of the model's window) where that is less.
        rolling_window_tokens: Option<u32>,
    },
}

/// A stored context without its messages. Immutable but for `expires_at`, `ttl_seconds` and, in session mode, what
/// [`Context::version`] counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// What clients name it by.
    pub id: ContextId,
    /// The tenant that owns it.
    pub project: String,
    /// The configured model it belongs to (aliases resolved).
    pub model: String,
    /// The model string of the create request, echoed verbatim.
    pub requested_model: String,
    /// Effective mode.
    pub mode: ContextMode,
    /// Effective rules' family, fixed at create.
    pub profile: ProfileKind,
    /// Seconds in force.
    pub ttl_seconds: u32,
    /// Fixed or sliding.
    pub expiry: Expiry,
    /// Creation time.
    pub created_at: UnixMillis,
    /// Gone for clients from this instant on.
    pub expires_at: UnixMillis,
    /// Session mode only.
    pub truncation: Option<Truncation>,
    /// Functions held with the prefix.
    pub tools: Vec<Tool>,
    /// Default for chats with this context.
    pub tool_choice: Option<ToolChoice>,
    /// Shown by get and list.
    pub display_name: Option<String>,
    /// Shown by get and list.
    pub metadata: Map<String, Value>,
    /// How copies at upstreams are kept.
    pub policy: CachePolicy,
    /// Tokens of the initial messages, by the model's tokenizer.
    pub initial_tokens: u64,
    /// Tokens of what a chat continues from now: initial messages and remembered history.
    pub prefix_tokens: u64,
    /// Finished turns, dropped ones included. Turn numbers start at 1.
    pub turn_count: u32,
    /// History messages dropped by truncation, counted from the first turn's first message.
    pub dropped_messages: u32,
    /// Starts at 1, grows by one with every committed turn. Guards commits.
    pub version: u64,
    /// The context this one was forked from, and after which of its turns.
    pub forked_from: Option<(ContextId, u32)>,
    /// Of a context that nobody created by name, but a marker in a request or the gateway itself: the digest of what it
    /// holds, by which the next request finds it. Such contexts can be used by id but are not listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implicit: Option<String>,
    /// Public id of the key that made it, whose limits it counts for; none of implicit contexts, and of those that were
    /// made without a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<String>,
}

/// A remembered message and its size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// The message.
    pub message: Message,
    /// Tokens of the message rendered by the model's template.
    pub tokens: u32,
}

/// One request's messages and the answer, committed together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// 1-based.
    pub number: u32,
    /// The request's messages, then the assistant's answer.
    pub messages: Vec<StoredMessage>,
    /// When it was committed.
    pub committed_at: UnixMillis,
}

/// Everything a context holds. Turns keep what truncation has dropped, so that a fork from an early turn is whole.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ContextContent {
    /// From create; never trimmed.
    pub initial: Vec<Message>,
    /// In order of number.
    pub turns: Vec<Turn>,
}

impl ContextContent {
    /// The history a chat sees: messages of all turns but the first `dropped_messages`.
    pub fn remembered(&self, dropped_messages: u32) -> impl Iterator<Item = &StoredMessage> {
        self.turns
            .iter()
            .flat_map(|turn| turn.messages.iter())
            .skip(dropped_messages as usize)
    }

    /// A copy that ends with turn `count`: what a context forked there holds.
    pub fn first_turns(&self, count: u32) -> ContextContent {
        ContextContent {
            initial: self.initial.clone(),
            turns: self
                .turns
                .iter()
                .filter(|turn| turn.number <= count)
                .cloned()
                .collect(),
        }
    }
}

/// A page of contexts, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct ContextPage {
    /// At most the asked number.
    pub contexts: Vec<Context>,
    /// Opaque; `None` on the last page.
    pub next_cursor: Option<String>,
}

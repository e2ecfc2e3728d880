//! Providers as data: what dialect they speak, how they authenticate, how they cache. One short file per provider in
//! `provider/`; what may be wrong tomorrow can be overridden in the configuration.

mod anthropic;
mod ark;
mod azure;
mod bedrock;
mod byteplus;
mod deepseek;
mod families;
mod fireworks;
mod gemini;
mod groq;
mod kimi;
mod llama_server;
mod minimax;
mod mistral;
mod ollama;
mod openai;
mod openai_compatible;
mod openrouter;
mod qwen;
mod reasoning;
mod sglang;
#[cfg(test)]
mod tests;
mod together;
mod vertex;
mod vllm;
mod xai;
mod zhipu;

use serde::{Deserialize, Serialize};

pub use reasoning::ReasoningControl;

/// The wire formats upstreams speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamDialectName {
    /// OpenAI Chat Completions and all that imitate it.
    OpenaiChat,
    /// OpenAI Responses.
    OpenaiResponses,
    /// Ark's Responses with explicit prefix caching.
    ArkResponses,
    /// Ark's retired Context API.
    ArkContext,
    /// Anthropic Messages.
    Anthropic,
    /// Gemini `generateContent` with `cachedContents`, on the Gemini API and on Vertex AI.
    Gemini,
    /// Amazon Bedrock Converse.
    BedrockConverse,
}

/// How requests prove who sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthScheme {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// The key alone in this header (lower case).
    Header(&'static str),
    /// A Google service account (OAuth token from a signed JWT), or `x-goog-api-key` where a plain key is configured.
    Google,
    /// AWS Signature Version 4 for this service, or a Bedrock bearer key where one is configured.
    Aws(&'static str),
    /// None needed; a bearer key is sent where one is configured.
    Optional,
}

/// How an upstream caches prefixes (DESIGN section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caching {
    /// A named copy, made by a call of its own; a turn sends its name and the new messages.
    Handle,
    /// The whole prefix with markers, at which the provider writes and reads entries.
    Breakpoint,
    /// The whole prefix; the provider recognises it by itself.
    Automatic,
    /// The whole prefix, no promise.
    Replay,
}

/// An endpoint of OpenAI's API beside chat. Requests to it are passed through to upstreams that have it, under the same
/// path below the base URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "named as their paths")]
pub enum RawPath {
    Embeddings,
    Completions,
    ImageGenerations,
    ImageEdits,
    AudioSpeech,
    AudioTranscriptions,
    AudioTranslations,
}

impl RawPath {
    /// Every one.
    pub const ALL: &'static [RawPath] = &[
        RawPath::Embeddings,
        RawPath::Completions,
        RawPath::ImageGenerations,
        RawPath::ImageEdits,
        RawPath::AudioSpeech,
        RawPath::AudioTranscriptions,
        RawPath::AudioTranslations,
    ];

    /// What follows the base URL.
    pub fn path(self) -> &'static str {
        match self {
            RawPath::Embeddings => "/embeddings",
            RawPath::Completions => "/completions",
            RawPath::ImageGenerations => "/images/generations",
            RawPath::ImageEdits => "/images/edits",
            RawPath::AudioSpeech => "/audio/speech",
            RawPath::AudioTranscriptions => "/audio/transcriptions",
            RawPath::AudioTranslations => "/audio/translations",
        }
    }

    /// Its word in the configuration and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            RawPath::Embeddings => "embeddings",
            RawPath::Completions => "completions",
            RawPath::ImageGenerations => "image_generations",
            RawPath::ImageEdits => "image_edits",
            RawPath::AudioSpeech => "audio_speech",
            RawPath::AudioTranscriptions => "audio_transcriptions",
            RawPath::AudioTranslations => "audio_translations",
        }
    }
}

/// How a marker is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Marker {
    /// `"cache_control":{"type":"ephemeral"}` on a block, with `ttl` where there is more than one tier.
    CacheControl,
    /// `"prompt_cache_breakpoint":{"mode":"explicit"}` on a block (OpenAI).
    PromptCacheBreakpoint,
    /// A block `{"cachePoint":{"type":"default"}}` of its own after the content (Bedrock).
    CachePoint,
}

/// Where a value goes in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestField {
    /// A top-level field of the body.
    Body(&'static str),
    /// A header (lower case).
    Header(&'static str),
}

/// The cheapest request that writes or refreshes a prefix without an answer anybody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prewarm {
    /// There is none.
    None,
    /// OpenAI Responses' `prompt_cache_options.prewarm`.
    Flag,
    /// Anthropic's `max_tokens: 0`.
    MaxTokensZero,
    /// An answer of one token.
    OneToken,
}

/// The field that asks for a lifetime for the request as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TierField {
    /// There is none (or it stands in the markers).
    None,
    /// Kimi's `prompt_cache_options: {mode: "implicit", ttl}`.
    PromptCacheOptions,
    /// OpenAI's older `prompt_cache_retention`: `in_memory` up to an hour, else `24h`.
    PromptCacheRetention,
}

/// How a provider caches one model's prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRules {
    /// The kind.
    pub caching: Caching,
    /// For [`Caching::Breakpoint`].
    pub marker: Option<Marker>,
    /// Most markers in a request.
    pub markers_max: u8,
    /// Lifetimes there are to choose from, seconds, ascending; empty: none can be chosen.
    pub tiers_seconds: Vec<u32>,
    /// Whether use renews a copy's life.
    pub is_sliding: bool,
    /// Longest life of a handle, seconds; 0: no bound.
    pub handle_seconds_max: u32,
    /// Smallest prefix that is cached, tokens; 0: none known.
    pub min_tokens: u32,
    /// How to make or refresh a copy.
    pub prewarm: Prewarm,
    /// Whether that is done with the context although it takes a request of its own: a cache that keeps what requests end
    /// with would otherwise miss the second question, too.
    pub is_eager: bool,
    /// Where the key that routes a context's requests to its cache goes.
    pub key: Option<RequestField>,
    /// Where a tenant's salt goes.
    pub salt: Option<RequestField>,
    /// Where a lifetime for the whole request goes.
    pub tier_field: TierField,
    /// Whether a marker's lifetime can be written at all (Bedrock Nova: no).
    pub has_ttl: bool,
    /// Whether a request may name the answer before it, so that the provider says why its cache missed.
    pub diagnostics: bool,
}

/// What else differs between providers of one dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quirks {
    /// `max_completion_tokens` instead of `max_tokens`.
    pub max_completion_tokens: bool,
    /// Whether the role `developer` is known; otherwise it is sent as `system`.
    pub developer_role: bool,
    /// Whether fields that the gateway does not know are passed on.
    pub passes_unknown_fields: bool,
    /// Whether `stream_options.include_usage` is understood.
    pub stream_options: bool,
    /// Whether reasoning tokens are reported outside the output tokens (xAI).
    pub reasoning_outside_output: bool,
    /// Whether `response_format: json_schema` is understood.
    pub json_schema: bool,
    /// Whether images can be sent.
    pub images: bool,
    /// Whether image URLs must be sent inline (`data:`), because the provider fetches nothing.
    pub inline_images_only: bool,
    /// Whether an upstream without a cached-token counter says nothing about cached tokens (vLLM without its flag,
    /// Ollama): absence then means unknown, not zero.
    pub cached_tokens_optional: bool,
    /// Whether the reasoning of earlier answers is sent back (`reasoning_content`); otherwise it is left out, because
    /// the provider refuses the field.
    pub reasoning_history: bool,
    /// How the model is asked to reason more or less.
    pub reasoning: ReasoningControl,
    /// Whether the model gives sealed reasoning when it is asked for (Responses' `reasoning.encrypted_content`).
    pub reasoning_seals: bool,
    /// Whether `top_k` is understood where the dialect itself has no such field (OpenAI Chat), or goes in the model's own
    /// fields (Bedrock).
    pub top_k: bool,
    /// Whether documents can be sent in OpenAI's way (`file`).
    pub documents: bool,
    /// Whether sound can be sent in OpenAI's way (`input_audio`).
    pub sound: bool,
    /// Headers that every request carries.
    pub headers: Vec<(&'static str, &'static str)>,
    /// Vertex AI: the resource that models and caches belong to, `projects/P/locations/L`. The provider's file has it with
    /// `{project}` and `{region}`, which are filled in as in the base URL. `None`: the Gemini API.
    pub vertex_parent: Option<String>,
    /// Longest answer to ask for where the API demands a number and the client gave none, tokens.
    pub max_tokens_default: u32,
}

impl Default for Quirks {
    fn default() -> Self {
        Quirks {
            max_completion_tokens: false,
            developer_role: false,
            passes_unknown_fields: false,
            stream_options: true,
            reasoning_outside_output: false,
            json_schema: true,
            images: true,
            inline_images_only: false,
            cached_tokens_optional: false,
            reasoning_history: true,
            reasoning: ReasoningControl::None,
            reasoning_seals: false,
            top_k: false,
            documents: false,
            sound: false,
            headers: Vec::new(),
            vertex_parent: None,
            max_tokens_default: 4_096,
        }
    }
}

impl CacheRules {
    /// The whole prefix every time and no promise.
    pub fn replay() -> Self {
        CacheRules {
            caching: Caching::Replay,
            marker: None,
            markers_max: 0,
            tiers_seconds: Vec::new(),
            is_sliding: true,
            handle_seconds_max: 0,
            min_tokens: 0,
            prewarm: Prewarm::None,
            is_eager: false,
            key: None,
            salt: None,
            tier_field: TierField::None,
            has_ttl: false,
            diagnostics: false,
        }
    }

    /// The smallest lifetime that lasts `ttl_seconds` or half of that, else the largest; `None` where none can be
    /// chosen. One that lasts half as long has to be written again at most once, which never costs more than the next
    /// longer one: that is written at twice the surcharge (facts section 2.1).
    pub fn tier_for(&self, ttl_seconds: u32) -> Option<u32> {
        self.tiers_seconds
            .iter()
            .copied()
            .find(|tier| tier.saturating_mul(2) >= ttl_seconds)
            .or_else(|| self.tiers_seconds.last().copied())
    }
}

/// What a provider wants for one model, overrides of the configuration applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRules {
    /// Caching.
    pub cache: CacheRules,
    /// Everything else.
    pub quirks: Quirks,
}

/// One upstream service.
#[derive(Debug, Clone, Copy)]
pub struct Provider {
    /// What the configuration calls it.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// The dialect used when the configuration names none.
    pub dialect: UpstreamDialectName,
    /// Others that it speaks.
    pub other_dialects: &'static [UpstreamDialectName],
    /// Where its API begins, without a slash at the end; `{region}`, `{project}` and `{resource}` stand for settings of
    /// the upstream. `None`: the configuration must say.
    pub base_url: Option<&'static str>,
    /// How it authenticates.
    pub auth: AuthScheme,
    /// Which endpoints beside chat it has. One too many costs a request that is answered 404, one too few has to be
    /// configured.
    pub raw: &'static [RawPath],
    /// For servers that people run themselves, and may run several of: how one says that it is well.
    pub worker_health: Option<WorkerHealth>,
    /// What it wants for a model (the upstream's name of it) in one of its dialects.
    pub rules: fn(UpstreamDialectName, &str) -> ModelRules,
}

/// Where a worker of a fleet says whether it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerHealth {
    /// At this path of its host.
    Root(&'static str),
    /// By its list of models, below its base URL.
    Models,
}

impl Provider {
    /// Whether the provider speaks this dialect.
    pub fn speaks(&self, dialect: UpstreamDialectName) -> bool {
        self.dialect == dialect || self.other_dialects.contains(&dialect)
    }
}

/// All providers, in the order of the documentation.
pub const ALL: &[Provider] = &[
    openai::PROVIDER,
    azure::PROVIDER,
    anthropic::PROVIDER,
    gemini::PROVIDER,
    vertex::PROVIDER,
    ark::PROVIDER,
    byteplus::PROVIDER,
    qwen::PROVIDER,
    kimi::PROVIDER,
    deepseek::PROVIDER,
    zhipu::PROVIDER,
    minimax::PROVIDER,
    xai::PROVIDER,
    mistral::PROVIDER,
    groq::PROVIDER,
    fireworks::PROVIDER,
    together::PROVIDER,
    openrouter::PROVIDER,
    bedrock::PROVIDER,
    vllm::PROVIDER,
    sglang::PROVIDER,
    llama_server::PROVIDER,
    ollama::PROVIDER,
    openai_compatible::PROVIDER,
];

/// The provider of this name.
pub fn by_name(name: &str) -> Option<&'static Provider> {
    ALL.iter().find(|provider| provider.name == name)
}

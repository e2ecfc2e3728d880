//! One module per provider family, and the list of them for the command line.

use bytes::Bytes;

use crate::{Desk, Family, RawRequest, Reply};

pub mod anthropic;
pub mod ark;
pub mod bedrock;
pub mod chat_wire;
pub mod compatible;
pub mod gemini;
pub mod openai;

/// A family as the command line knows it.
pub struct Entry {
    /// What to type.
    pub name: &'static str,
    /// One line for the list.
    pub summary: &'static str,
    /// The name Holdfast has for this provider.
    pub provider: &'static str,
    /// What follows the host in the base URL.
    pub base_path: &'static str,
    /// Makes one.
    pub make: fn() -> Box<dyn Family>,
}

const fn entry(
    name: &'static str,
    summary: &'static str,
    provider: &'static str,
    base_path: &'static str,
    make: fn() -> Box<dyn Family>,
) -> Entry {
    Entry {
        name,
        summary,
        provider,
        base_path,
        make,
    }
}

/// Every family, one line each.
#[rustfmt::skip]
pub const ALL: &[Entry] = &[
    entry("anthropic", "Anthropic Messages", "anthropic", "", || Box::new(anthropic::Anthropic::new())),
    entry("minimax-anthropic", "MiniMax, its Anthropic route", "minimax", "/anthropic", || Box::new(anthropic::Anthropic::minimax())),
    entry("kimi-anthropic", "Kimi, its Anthropic route", "kimi", "/anthropic", || Box::new(anthropic::Anthropic::kimi())),
    entry("qwen-anthropic", "Qwen, its Anthropic route", "qwen", "/apps/anthropic", || Box::new(anthropic::Anthropic::qwen())),
    entry("bedrock", "Amazon Bedrock: Converse and ConverseStream", "bedrock", "", || Box::new(bedrock::Bedrock::new())),
    entry("gemini", "Google Gemini API: cachedContents", "gemini", "/v1beta", || Box::new(gemini::Gemini::new())),
    entry("vertex", "Google Vertex AI (bearer token: test-token)", "vertex", "/v1/projects/test-project/locations/us-central1", || Box::new(gemini::Gemini::vertex("test-token"))),
    entry("ark", "Volcengine Ark: Responses, Chat, Context API", "ark", "/api/v3", || Box::new(ark::Ark::new())),
    entry("byteplus", "BytePlus ModelArk, the same rules", "byteplus", "/api/v3", || Box::new(ark::Ark::byteplus())),
    entry("openai", "OpenAI: Chat Completions, Responses, and what is beside chat", "openai", "/v1", || Box::new(openai::OpenAi::new())),
    entry("azure", "Azure OpenAI, Standard", "azure", "/openai/v1", || Box::new(openai::OpenAi::azure())),
    entry("azure-ptu", "Azure OpenAI, provisioned (no breakpoints)", "azure", "/openai/v1", || Box::new(openai::OpenAi::azure_ptu())),
    entry("qwen", "Alibaba DashScope: explicit, implicit and session caches", "qwen", "/compatible-mode/v1", || Box::new(compatible::Compatible::qwen())),
    entry("kimi", "Moonshot Kimi: paid writes at two tiers", "kimi", "/v1", || Box::new(compatible::Compatible::kimi())),
    entry("deepseek", "DeepSeek: persisted prefix units", "deepseek", "", || Box::new(compatible::Compatible::deepseek())),
    entry("zhipu", "Zhipu GLM: asynchronous implicit cache", "zhipu", "/api/paas/v4", || Box::new(compatible::Compatible::zhipu())),
    entry("minimax", "MiniMax, its OpenAI route: passive cache", "minimax", "/v1", || Box::new(compatible::Compatible::minimax())),
    entry("xai", "xAI: entries per server, routed by a header", "xai", "/v1", || Box::new(compatible::Compatible::xai())),
    entry("mistral", "Mistral: entries found by prompt_cache_key", "mistral", "/v1", || Box::new(compatible::Compatible::mistral())),
    entry("groq", "Groq: gpt-oss models only", "groq", "/openai/v1", || Box::new(compatible::Compatible::groq())),
    entry("fireworks", "Fireworks: entries per replica", "fireworks", "/inference/v1", || Box::new(compatible::Compatible::fireworks())),
    entry("together", "Together", "together", "/v1", || Box::new(compatible::Compatible::together())),
    entry("openrouter", "OpenRouter: several providers, sticky routing", "openrouter", "/api/v1", || Box::new(compatible::Compatible::openrouter())),
    entry("openai-compatible", "The bare wire without any cache", "openai-compatible", "/v1", || Box::new(compatible::Compatible::openai_compatible())),
    entry("vllm", "vLLM: blocks of 16 tokens", "vllm", "/v1", || Box::new(compatible::Compatible::vllm())),
    entry("sglang", "SGLang: a radix tree of tokens", "sglang", "/v1", || Box::new(compatible::Compatible::sglang())),
    entry("llama-server", "llama.cpp's server: slots", "llama-server", "/v1", || Box::new(compatible::Compatible::llama_server())),
    entry("ollama", "Ollama, its OpenAI route", "ollama", "/v1", || Box::new(compatible::Compatible::ollama())),
];

/// The entry of that name.
pub fn entry_by_name(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}

/// A new family of that name.
pub fn by_name(name: &str) -> Option<Box<dyn Family>> {
    entry_by_name(name).map(|entry| (entry.make)())
}

impl Family for Box<dyn Family> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn answer(&self, request: &RawRequest, desk: &Desk<'_>) -> Reply {
        (**self).answer(request, desk)
    }

    fn failure(&self, status: u16) -> Reply {
        (**self).failure(status)
    }

    fn failure_in_stream(&self) -> Bytes {
        (**self).failure_in_stream()
    }

    fn evict_all(&self) {
        (**self).evict_all();
    }
}

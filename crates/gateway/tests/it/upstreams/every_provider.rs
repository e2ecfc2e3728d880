//! One client script, unchanged, against every provider and the embedded engine.
//!
//! An emulated model says how many tokens it was asked, so that an answer that agrees with the client's usage proves that
//! the whole prompt arrived and that the provider's way of counting was understood.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast::app::{Credentials, UpstreamOptions};
use holdfast::keys::Secret;
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::families::bedrock::{ACCESS_KEY_ID, Bedrock, SECRET_ACCESS_KEY};
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::families::gemini::{Gemini, service_account_json};
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Answer, Emulator, Family};
use holdfast_protocol::provider::{self, UpstreamDialectName};
use holdfast_testkit::{Reply, TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use super::{document, handle_names, outcome, receipt, until, usage_of};
use crate::say;

/// Size of the document, tokens: above every provider's minimum.
const DOCUMENT_TOKENS: usize = 7_000;

/// What receipts say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The copy is made with the context, so that the first chat hits. `drops`: it can be dropped.
    Handle { drops: bool },
    /// The first chat writes.
    Cached,
    /// No chat hits, for this reason.
    Degraded(&'static str),
    /// The embedded engine.
    Embedded,
}

/// One provider as the script meets it.
struct Case {
    name: &'static str,
    provider: &'static str,
    family: fn() -> Box<dyn Family>,
    base_path: &'static str,
    model: &'static str,
    dialect: Option<UpstreamDialectName>,
    change: fn(&mut UpstreamOptions, &Emulator),
    kind: Kind,
    /// How long it takes until a written entry can be read.
    delay: Duration,
    takes_tools: bool,
}

impl Case {
    fn new(
        name: &'static str,
        provider: &'static str,
        family: fn() -> Box<dyn Family>,
        base_path: &'static str,
        model: &'static str,
        kind: Kind,
    ) -> Self {
        Case {
            name,
            provider,
            family,
            base_path,
            model,
            dialect: None,
            change: |_, _| {},
            kind,
            delay: Duration::ZERO,
            takes_tools: true,
        }
    }

    fn dialect(mut self, dialect: UpstreamDialectName) -> Self {
        self.dialect = Some(dialect);
        self
    }

    fn change(mut self, change: fn(&mut UpstreamOptions, &Emulator)) -> Self {
        self.change = change;
        self
    }

    fn delay(mut self, seconds: u64) -> Self {
        self.delay = Duration::from_secs(seconds);
        self
    }

    fn without_tools(mut self) -> Self {
        self.takes_tools = false;
        self
    }
}

const CACHED: Kind = Kind::Cached;
const HANDLE: Kind = Kind::Handle { drops: true };

fn service_account(options: &mut UpstreamOptions, emulator: &Emulator) {
    let account = service_account_json(&format!("{}/token", emulator.url));
    options.credentials = Credentials::GoogleServiceAccount(Secret::new(account.to_string()));
    options.region = "us-central1".to_owned();
    options.project = "test-project".to_owned();
}

fn signed(options: &mut UpstreamOptions, _: &Emulator) {
    options.credentials = Credentials::Aws {
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret_access_key: Secret::new(SECRET_ACCESS_KEY),
        session_token: None,
    };
    options.region = "us-east-1".to_owned();
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    use UpstreamDialectName::{ArkContext, OpenaiChat, OpenaiResponses};
    let new = Case::new;
    vec![
        new("openai", "openai", || Box::new(OpenAi::new()), "/v1", "gpt-5.6", CACHED),
        new("openai, an older model", "openai", || Box::new(OpenAi::new()), "/v1", "gpt-4.1", CACHED),
        new("openai responses", "openai", || Box::new(OpenAi::new()), "/v1", "gpt-5.6", CACHED).dialect(OpenaiResponses),
        new("openai responses, an older model", "openai", || Box::new(OpenAi::new()), "/v1", "gpt-5", CACHED).dialect(OpenaiResponses),
        new("azure", "azure", || Box::new(OpenAi::azure()), "/openai/v1", "gpt-5.6", CACHED),
        new("azure, an older model", "azure", || Box::new(OpenAi::azure()), "/openai/v1", "gpt-4.1", CACHED),
        new("azure responses", "azure", || Box::new(OpenAi::azure()), "/openai/v1", "gpt-5.6", CACHED).dialect(OpenaiResponses),
        new("anthropic", "anthropic", || Box::new(Anthropic::new()), "", "claude-sonnet-5-5", CACHED),
        new("anthropic, a strict one", "anthropic", || Box::new(Anthropic::new().ignoring_1h_without_beta().refusing_prefill()), "", "claude-haiku-4-5", CACHED),
        new("gemini", "gemini", || Box::new(Gemini::new()), "/v1beta", "gemini-3.8-flash", HANDLE),
        new("vertex", "vertex", || Box::new(Gemini::vertex("another-token")), "/v1/projects/test-project/locations/us-central1", "gemini-2.5-pro", HANDLE).change(service_account),
        new("ark", "ark", || Box::new(Ark::new()), "/api/v3", "doubao-seed-2-1-pro-260915", HANDLE),
        new("ark, gone is 400", "ark", || Box::new(Ark::new().gone_is_400()), "/api/v3", "doubao-seed-2-1-pro-260915", HANDLE),
        new("ark context", "ark", || Box::new(Ark::new()), "/api/v3", "ep-20261122", Kind::Handle { drops: false }).dialect(ArkContext).without_tools(),
        new("ark chat", "ark", || Box::new(Ark::new()), "/api/v3", "doubao-seed-2-1-pro-260915", CACHED).dialect(OpenaiChat),
        new("byteplus", "byteplus", || Box::new(Ark::new()), "/api/v3", "doubao-seed-2-1-lite-260915", HANDLE),
        new("qwen", "qwen", || Box::new(Compatible::qwen()), "/compatible-mode/v1", "qwen3.8-max", CACHED),
        new("qwen4", "qwen", || Box::new(Compatible::qwen()), "/compatible-mode/v1", "qwen4-max", CACHED),
        new("kimi", "kimi", || Box::new(Compatible::kimi()), "/v1", "kimi-k3", CACHED),
        new("kimi, an older model", "kimi", || Box::new(Compatible::kimi()), "/v1", "kimi-k2.6", CACHED),
        new("deepseek", "deepseek", || Box::new(Compatible::deepseek_with(Duration::ZERO)), "", "deepseek-v4-pro", CACHED),
        new("deepseek, slow to build", "deepseek", || Box::new(Compatible::deepseek()), "", "deepseek-v4-pro", CACHED).delay(6),
        new("zhipu", "zhipu", || Box::new(Compatible::zhipu()), "/api/paas/v4", "glm-5.3", CACHED).delay(11),
        new("minimax", "minimax", || Box::new(Anthropic::minimax()), "/anthropic", "MiniMax-M2.5", CACHED),
        new("minimax chat", "minimax", || Box::new(Compatible::minimax()), "/v1", "MiniMax-M3", CACHED).dialect(OpenaiChat),
        new("xai", "xai", || Box::new(Compatible::xai()), "/v1", "grok-4.7", CACHED),
        new("mistral", "mistral", || Box::new(Compatible::mistral()), "/v1", "mistral-large-4", CACHED),
        new("groq", "groq", || Box::new(Compatible::groq()), "/openai/v1", "openai/gpt-oss-120b", CACHED),
        new("groq, another family", "groq", || Box::new(Compatible::groq()), "/openai/v1", "llama-3.3-70b-versatile", Kind::Degraded("no_cache")),
        new("fireworks", "fireworks", || Box::new(Compatible::fireworks()), "/inference/v1", "accounts/fireworks/models/kimi-k3", CACHED),
        new("fireworks, dedicated", "fireworks", || Box::new(Compatible::fireworks_dedicated()), "/inference/v1", "accounts/fireworks/models/kimi-k3", CACHED),
        new("together", "together", || Box::new(Compatible::together()), "/v1", "deepseek-ai/DeepSeek-V4-Pro-0813", CACHED),
        new("together, counter at the top", "together", || Box::new(Compatible::together_top_level()), "/v1", "deepseek-ai/DeepSeek-V4-Pro-0813", CACHED),
        new("openrouter claude", "openrouter", || Box::new(Compatible::openrouter()), "/api/v1", "anthropic/claude-sonnet-5-5", CACHED),
        new("openrouter gpt", "openrouter", || Box::new(Compatible::openrouter()), "/api/v1", "openai/gpt-5.6", CACHED),
        new("openrouter deepseek", "openrouter", || Box::new(Compatible::openrouter()), "/api/v1", "deepseek/deepseek-v4-pro", CACHED),
        new("bedrock, signed", "bedrock", || Box::new(Bedrock::new()), "", "us.anthropic.claude-opus-5-5-20260901-v1:0", CACHED).change(signed),
        new("bedrock, bearer", "bedrock", || Box::new(Bedrock::new()), "", "anthropic.claude-haiku-4-5-20251001-v1:0", CACHED),
        new("bedrock nova", "bedrock", || Box::new(Bedrock::new()), "", "amazon.nova-2-lite-v1:0", CACHED).change(signed),
        new("vllm", "vllm", || Box::new(Compatible::vllm()), "/v1", "model", CACHED),
        new("sglang", "sglang", || Box::new(Compatible::sglang()), "/v1", "model", CACHED),
        new("llama-server", "llama-server", || Box::new(Compatible::llama_server()), "/v1", "model", CACHED),
        new("ollama", "ollama", || Box::new(Compatible::ollama()), "/v1", "model", Kind::Degraded("not_reported")),
        new("openai-compatible", "openai-compatible", || Box::new(Compatible::openai_compatible()), "/v1", "model", Kind::Degraded("no_cache")),
    ]
}

/// A client that writes down everything it is told.
struct Script<'a> {
    case: &'a str,
    kind: Kind,
    client: TestClient,
    model: &'a str,
    emulator: Option<&'a Emulator>,
    delay: Duration,
    document_tokens: usize,
    told: std::cell::RefCell<String>,
}

impl Script<'_> {
    fn note(&self, reply: Reply) -> Reply {
        let mut told = self.told.borrow_mut();
        told.push_str(&format!("{:?}\n{}\n", reply.headers, reply.text()));
        reply
    }

    async fn post(&self, path: &str, body: &Value) -> Reply {
        let reply = self.note(self.client.post(path, body).await);
        assert_eq!(reply.status, 200, "{}: {path}: {}", self.case, reply.text());
        if let Some(emulator) = self.emulator {
            emulator.clock().advance(self.delay);
        }
        reply
    }

    async fn create(&self, seed: &str, fields: Value) -> String {
        let text = document(self.document_tokens, seed);
        let mut body = json!({"model": self.model, "messages": [say("system", &text)]});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let created = self.post("/v1/context/create", &body).await.json();
        assert_eq!(created["ttl"], 3600, "{}", self.case);
        created["id"].as_str().unwrap().to_owned()
    }

    async fn chat(&self, id: &str, messages: &[Value], fields: Value) -> Reply {
        let mut body = json!({"context_id": id, "messages": messages, "temperature": 0});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        self.post("/v1/chat/completions", &body).await
    }

    async fn ask(&self, id: &str, text: &str) -> Reply {
        let reply = self.chat(id, &[say("user", text)], json!({})).await;
        self.check_answer(&reply.answer(), &reply.json()["usage"]);
        reply
    }

    /// The emulated model says how many tokens it was asked; the usage must say the same.
    fn check_answer(&self, answer: &str, usage: &Value) {
        if self.emulator.is_some() {
            let expected = format!("You sent me {} tokens.", usage["prompt_tokens"]);
            assert_eq!(answer, expected, "{}: {usage}", self.case);
        } else {
            assert!(!answer.is_empty());
        }
        let count = |name: &str| usage[name].as_u64().unwrap();
        assert!(count("completion_tokens") > 0);
        assert_eq!(
            count("total_tokens"),
            count("prompt_tokens") + count("completion_tokens")
        );
    }

    /// The receipt of a context's first use, or of a later one.
    #[track_caller]
    fn check_receipt(&self, reply: &Reply, is_first: bool) {
        let expected = match (self.kind, is_first) {
            (Kind::Degraded(reason), _) => ("degraded", reason),
            (Kind::Cached, true) => ("miss", "first_use"),
            _ => ("hit", ""),
        };
        let (status, reason) = outcome(reply);
        let body = reply.json();
        assert_eq!(
            (status.as_str(), reason.as_str()),
            expected,
            "{}: {body}",
            self.case
        );
        let receipt = &body["context_cache"];
        let cached = receipt["cached_tokens"].as_u64().unwrap();
        let in_usage = body["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap();
        let prompt = body["usage"]["prompt_tokens"].as_u64().unwrap();
        if status == "hit" {
            // The document without what providers round off at the end of it.
            let least = (self.document_tokens * 4 / 5) as u64;
            assert!(
                cached >= least && cached <= prompt,
                "{}: {cached} of {prompt} tokens cached",
                self.case
            );
            assert_eq!(cached, in_usage, "{}", self.case);
        } else {
            assert_eq!(cached, in_usage, "{}: {body}", self.case);
            // The first words of a chat template are the same in all prompts.
            assert!(cached < 100, "{}: {body}", self.case);
        }
    }

    async fn run(&self, takes_tools: bool) -> Vec<String> {
        let id = self.create("prefix", json!({})).await;
        self.check_receipt(&self.ask(&id, "What is on line 1?").await, true);
        self.check_receipt(&self.ask(&id, "And which animal is quick?").await, false);
        let again = self.ask(&id, "And which animal is quick?").await;
        self.check_receipt(&again, false);
        self.check_streams(&id, &again.json()).await;

        let mut ids = vec![id];
        ids.push(self.check_session().await);
        if takes_tools {
            ids.push(self.check_tools().await);
        }

        let path = format!("/v1/context/{}", ids[0]);
        let extended = self.note(self.client.patch(&path, &json!({"ttl": 14_400})).await);
        assert_eq!(extended.ok()["ttl"], 14_400, "{}", self.case);
        for id in &ids {
            let path = format!("/v1/context/{id}");
            self.note(self.client.get(&path).await).ok();
            self.note(self.client.delete(&path).await).ok();
            let body = json!({"context_id": id, "messages": [say("user", "Are you there?")]});
            let gone = self.client.post("/v1/chat/completions", &body).await;
            self.note(gone).error(404);
        }
        ids
    }

    /// A stream says the same as a whole answer, and tells the usage only to those who ask.
    async fn check_streams(&self, id: &str, whole: &Value) {
        let question = [say("user", "And which animal is quick?")];
        let asked = json!({"stream": true, "stream_options": {"include_usage": true}});
        let chunks = self.chat(id, &question, asked).await.chunks();
        let usage = usage_of(&chunks);
        assert_eq!(usage, whole["usage"], "{}", self.case);
        self.check_answer(&text_of(&chunks), &usage);
        let receipts = [receipt(&chunks), whole["context_cache"].clone()];
        for field in [
            "status",
            "reason",
            "cached_tokens",
            "written_tokens",
            "source",
        ] {
            assert_eq!(
                receipts[0][field], receipts[1][field],
                "{}: {field}",
                self.case
            );
        }

        let unasked = self.chat(id, &question, json!({"stream": true})).await;
        let chunks = unasked.chunks();
        assert!(
            chunks.iter().all(|chunk| chunk["usage"].is_null()),
            "{}",
            self.case
        );
        assert!(
            chunks.iter().all(|chunk| chunk["choices"][0].is_object()),
            "{}",
            self.case
        );
        assert_eq!(receipt(&chunks)["status"], whole["context_cache"]["status"]);
    }

    async fn check_session(&self) -> String {
        let id = self.create("session", json!({"mode": "session"})).await;
        let mut prompt_tokens = 0;
        for (turn, question) in ["I am Ada. Who are you?", "Who am I?", "And you?"]
            .into_iter()
            .enumerate()
        {
            let reply = self.ask(&id, question).await;
            // The embedded engine computes what a turn has added in the background; until then it reads the rest only.
            if self.kind != Kind::Embedded {
                self.check_receipt(&reply, turn == 0);
            }
            let now = reply.json()["usage"]["prompt_tokens"].as_u64().unwrap();
            // Earlier questions and answers are in it.
            assert!(now > prompt_tokens + 4, "{}: turn {turn}", self.case);
            prompt_tokens = now;
        }
        id
    }

    async fn check_tools(&self) -> String {
        let tool = json!({"type": "function", "function": {
            "name": "get_weather",
            "description": "Tells the weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }});
        let id = self.create("tools", json!({"tools": [tool]})).await;
        let question = say("user", "What is the weather in Paris?");
        let Some(emulator) = self.emulator else {
            self.ask(&id, "What is the weather in Paris?").await;
            return id;
        };
        emulator
            .script()
            .next(Answer::call("get_weather", r#"{"city":"Paris"}"#));
        let reply = self
            .chat(&id, std::slice::from_ref(&question), json!({}))
            .await;
        let choice = &reply.json()["choices"][0];
        assert_eq!(
            choice["finish_reason"], "tool_calls",
            "{}: {choice}",
            self.case
        );
        let call = &choice["message"]["tool_calls"][0];
        assert_eq!(call["function"]["name"], "get_weather", "{}", self.case);
        let arguments: Value =
            serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(arguments, json!({"city": "Paris"}), "{}", self.case);

        let messages = [
            question,
            choice["message"].clone(),
            json!({"role": "tool", "tool_call_id": call["id"], "content": "It rains."}),
        ];
        let reply = self.chat(&id, &messages, json!({})).await;
        self.check_answer(&reply.answer(), &reply.json()["usage"]);
        self.check_receipt(&reply, false);
        id
    }
}

fn text_of(chunks: &[Value]) -> String {
    chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect()
}

async fn run_against(case: &Case) {
    let emulator = Emulator::start((case.family)()).await;
    let mut options = upstream(
        case.provider,
        &format!("{}{}", emulator.url, case.base_path),
        "secret-key-1",
    );
    if let Some(dialect) = case.dialect {
        options.dialect = dialect;
    }
    (case.change)(&mut options, &emulator);
    let name = options.name.clone();
    let gateway = TestGateway::builder()
        .upstream(options)
        .route("model", &[(&name, case.model)])
        .start()
        .await;
    gateway.clock.follow_system();
    let script = Script {
        case: case.name,
        kind: case.kind,
        client: gateway.client(),
        model: "model",
        emulator: Some(&emulator),
        delay: case.delay,
        document_tokens: DOCUMENT_TOKENS,
        told: Default::default(),
    };
    script.run(case.takes_tools).await;

    // Nothing that the provider calls its copies reaches a client.
    let names = handle_names(&emulator);
    let told = script.told.borrow().clone();
    for name in &names {
        assert!(
            !told.contains(name.as_str()),
            "{}: {name} was told",
            case.name
        );
    }
    assert!(!told.contains("secret-key-1"), "{}", case.name);
    if let Kind::Handle { drops } = case.kind {
        assert!(names.len() >= 2, "{}: {names:?}", case.name);
        if drops {
            until(&emulator, case.name, |requests| {
                names.iter().all(|name| {
                    let end = name.rsplit('/').next().unwrap();
                    requests
                        .iter()
                        .any(|request| request.method == "DELETE" && request.path.ends_with(end))
                })
            })
            .await;
        }
        if ["gemini", "vertex"].contains(&case.provider) {
            until(&emulator, case.name, |requests| {
                requests.iter().any(|request| request.method == "PATCH")
            })
            .await;
        }
    }
    gateway.stop().await;
}

macro_rules! providers {
    ($($test:ident: $provider:literal,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                let cases = cases();
                for case in cases.iter().filter(|case| case.provider == $provider) {
                    run_against(case).await;
                }
            }
        )*

        /// A provider that is added must be tried, too.
        #[test]
        fn no_provider_is_left_out() {
            let all: BTreeSet<&str> = provider::ALL.iter().map(|provider| provider.name).collect();
            let tried: BTreeSet<&str> = [$($provider),*].into();
            assert_eq!(tried, all);
            let cases = cases();
            let with_case: BTreeSet<&str> = cases.iter().map(|case| case.provider).collect();
            assert_eq!(with_case, all);
        }
    };
}

providers! {
    the_script_runs_on_openai: "openai",
    the_script_runs_on_azure: "azure",
    the_script_runs_on_anthropic: "anthropic",
    the_script_runs_on_gemini: "gemini",
    the_script_runs_on_vertex: "vertex",
    the_script_runs_on_ark: "ark",
    the_script_runs_on_byteplus: "byteplus",
    the_script_runs_on_qwen: "qwen",
    the_script_runs_on_kimi: "kimi",
    the_script_runs_on_deepseek: "deepseek",
    the_script_runs_on_zhipu: "zhipu",
    the_script_runs_on_minimax: "minimax",
    the_script_runs_on_xai: "xai",
    the_script_runs_on_mistral: "mistral",
    the_script_runs_on_groq: "groq",
    the_script_runs_on_fireworks: "fireworks",
    the_script_runs_on_together: "together",
    the_script_runs_on_openrouter: "openrouter",
    the_script_runs_on_bedrock: "bedrock",
    the_script_runs_on_vllm: "vllm",
    the_script_runs_on_sglang: "sglang",
    the_script_runs_on_llama_server: "llama-server",
    the_script_runs_on_ollama: "ollama",
    the_script_runs_on_openai_compatible: "openai-compatible",
}

#[tokio::test]
async fn the_script_runs_on_the_embedded_engine() {
    let gateway = TestGateway::start().await;
    let script = Script {
        case: "embedded",
        kind: Kind::Embedded,
        client: gateway.client(),
        model: "tiny",
        emulator: None,
        delay: Duration::ZERO,
        document_tokens: 200,
        told: Default::default(),
    };
    script.run(true).await;
    gateway.stop().await;
}

//! What requests say beside text reaches an upstream of every family, from clients of every dialect.

use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::families::bedrock::Bedrock;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Answer, Emulator, Family};
use holdfast_protocol::provider::UpstreamDialectName;
use holdfast_testkit::{TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use super::words;
use crate::say;

const PDF: &str = "JVBERi0xLjcKJSVFT0Y=";

/// An upstream: provider, family, base path, model, dialect.
type Upstream = (
    &'static str,
    fn() -> Box<dyn Family>,
    &'static str,
    &'static str,
    UpstreamDialectName,
);

fn upstreams() -> Vec<Upstream> {
    use UpstreamDialectName::{
        Anthropic as AnthropicMessages, ArkResponses, BedrockConverse, Gemini as GeminiApi,
        OpenaiChat, OpenaiResponses,
    };
    vec![
        (
            "openai",
            || Box::new(OpenAi::new()),
            "/v1",
            "gpt-5.6",
            OpenaiChat,
        ),
        (
            "openai",
            || Box::new(OpenAi::new()),
            "/v1",
            "gpt-5.6",
            OpenaiResponses,
        ),
        (
            "anthropic",
            || Box::new(Anthropic::new()),
            "",
            "claude-sonnet-4-6",
            AnthropicMessages,
        ),
        (
            "anthropic",
            || Box::new(Anthropic::new()),
            "",
            "claude-sonnet-4-5",
            AnthropicMessages,
        ),
        (
            "gemini",
            || Box::new(Gemini::new()),
            "/v1beta",
            "gemini-2.5-flash",
            GeminiApi,
        ),
        (
            "gemini",
            || Box::new(Gemini::new()),
            "/v1beta",
            "gemini-3-flash",
            GeminiApi,
        ),
        (
            "bedrock",
            || Box::new(Bedrock::new()),
            "",
            "us.anthropic.claude-sonnet-4-6",
            BedrockConverse,
        ),
        (
            "ark",
            || Box::new(Ark::new()),
            "/api/v3",
            "doubao-seed-2-1-pro-260915",
            ArkResponses,
        ),
    ]
}

async fn start(of: &Upstream, key: &str) -> (Emulator, TestGateway) {
    let emulator = Emulator::start((of.1)()).await;
    let gateway = gateway(of, &emulator, key).start().await;
    gateway.clock.follow_system();
    (emulator, gateway)
}

fn gateway(of: &Upstream, emulator: &Emulator, key: &str) -> holdfast_testkit::TestGatewayBuilder {
    let (provider, _, base_path, model, dialect) = *of;
    let mut options = upstream(provider, &format!("{}{base_path}", emulator.url), key);
    options.dialect = dialect;
    TestGateway::builder()
        .upstream(options)
        .route("m", &[(provider, model)])
}

/// Path and body, by dialect, of a question about a document that is to be thought about.
fn questions() -> [(&'static str, &'static str, Value); 4] {
    let url = format!("data:application/pdf;base64,{PDF}");
    [
        (
            "OpenAI Chat",
            "/v1/chat/completions",
            json!({"model": "m", "reasoning_effort": "low", "messages": [{"role": "user", "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "file", "file": {"filename": "a (1).pdf", "file_data": url}},
            ]}]}),
        ),
        (
            "Responses",
            "/v1/responses",
            json!({"model": "m", "reasoning": {"effort": "low"}, "input": [{"role": "user", "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_file", "filename": "a (1).pdf", "file_data": url},
            ]}]}),
        ),
        (
            "Anthropic",
            "/v1/messages",
            json!({
                "model": "m", "max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 1024},
                "messages": [{"role": "user", "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "document", "title": "a (1)", "source":
                        {"type": "base64", "media_type": "application/pdf", "data": PDF}},
                ]}],
            }),
        ),
        (
            "Gemini",
            "/v1beta/models/m:generateContent",
            json!({
                "generationConfig": {"thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": true}},
                "contents": [{"role": "user", "parts": [
                    {"text": "What is it?"},
                    {"inlineData": {"mimeType": "application/pdf", "data": PDF}},
                ]}],
            }),
        ),
    ]
}

/// What asks for reasoning in a request of an upstream's dialect.
fn level(body: &Value) -> Vec<&Value> {
    [
        "/reasoning_effort",
        "/reasoning/effort",
        "/thinking/type",
        "/generationConfig/thinkingConfig/thinkingBudget",
        "/generationConfig/thinkingConfig/thinkingLevel",
        "/additionalModelRequestFields/thinking/type",
    ]
    .into_iter()
    .filter_map(|pointer| body.pointer(pointer))
    .collect()
}

#[tokio::test]
async fn documents_and_levels_of_reasoning_reach_every_family() {
    for of in upstreams() {
        let (emulator, gateway) = start(&of, "key-1").await;
        let client = gateway.client();
        for (name, path, body) in questions() {
            let at = format!("{name} on {} {} {:?}", of.0, of.3, of.4);
            emulator.script().next(Answer {
                reasoning: "It looks like a file.".to_owned(),
                ..Answer::text("A file.")
            });
            emulator.clear_requests();
            let reply = client.post(path, &body).await;
            assert_eq!(reply.status, 200, "{at}: {}", reply.text());
            assert!(reply.text().contains("A file."), "{at}: {}", reply.text());
            let sent = emulator.requests().last().unwrap().json().unwrap();
            assert!(sent.to_string().contains(PDF), "{at}: {sent}");
            assert_eq!(level(&sent).len(), 1, "{at}: {sent}");
        }
        gateway.stop().await;
    }
}

/// A session's request: a question, or a result of the tool.
async fn turn(client: &TestClient, id: &str, message: Value) -> Value {
    let body = json!({"context_id": id, "messages": [message], "reasoning_effort": "high"});
    client.post("/v1/chat/completions", &body).await.ok()
}

async fn session(client: &TestClient) -> String {
    let body = json!({
        "model": "m", "mode": "session", "messages": [say("system", &words(3000))],
        "tools": [{"type": "function", "function": {"name": "now"}}],
    });
    let context = client.post("/v1/context/create", &body).await.ok();
    context["id"].as_str().unwrap().to_owned()
}

fn thinks(answer: Answer) -> Answer {
    Answer {
        reasoning: "Let me see what time it is.".to_owned(),
        ..answer
    }
}

/// Where a dialect keeps the seal of earlier reasoning.
fn seals(sent: &Value, dialect: UpstreamDialectName) -> usize {
    let field = match dialect {
        UpstreamDialectName::OpenaiResponses => "\"encrypted_content\":",
        UpstreamDialectName::Gemini => "\"thoughtSignature\":",
        _ => "\"signature\":",
    };
    sent.to_string().matches(field).count()
}

#[tokio::test]
async fn sealed_reasoning_goes_back_to_whoever_sealed_it() {
    let sealing = [
        UpstreamDialectName::OpenaiResponses,
        UpstreamDialectName::Anthropic,
        UpstreamDialectName::BedrockConverse,
        UpstreamDialectName::Gemini,
    ];
    for of in upstreams() {
        if !sealing.contains(&of.4) || of.3 == "gemini-2.5-flash" {
            continue;
        }
        let at = format!("{} {} {:?}", of.0, of.3, of.4);
        let (emulator, gateway) = start(&of, "key-1").await;
        let client = gateway.client();
        let id = session(&client).await;
        emulator.script().next(thinks(Answer::text("Ask me.")));
        turn(&client, &id, say("user", "Hello?")).await;
        emulator.script().next(thinks(Answer::call("now", "{}")));
        let called = turn(&client, &id, say("user", "What time is it?")).await;
        let call = &called["choices"][0]["message"]["tool_calls"][0]["id"];
        emulator.script().next(thinks(Answer::text("Noon.")));
        // Claudes with a budget refuse a result whose call has no sealed thinking before it.
        let result = json!({"role": "tool", "tool_call_id": call, "content": "12:00"});
        let told = turn(&client, &id, result).await;
        assert_eq!(told["choices"][0]["message"]["content"], "Noon.", "{at}");
        assert_eq!(told["context_cache"]["status"], "hit", "{at}: {told}");
        let sent = emulator.requests().last().unwrap().json().unwrap();
        assert_eq!(seals(&sent, of.4), 2, "{at}: {sent}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_account_that_cannot_read_a_seal_is_asked_without_it() {
    let of = (
        "openai",
        (|| Box::new(OpenAi::new())) as fn() -> Box<dyn Family>,
        "/v1",
        "gpt-5.6",
        UpstreamDialectName::OpenaiResponses,
    );
    let folder = tempfile::tempdir().unwrap();
    let emulator = Emulator::start((of.1)()).await;
    let first = gateway(&of, &emulator, "key-1")
        .data_dir(folder.path())
        .start()
        .await;
    first.clock.follow_system();
    let clock = first.clock.clone();
    let id = session(&first.client()).await;
    emulator.script().next(thinks(Answer::text("Ask me.")));
    turn(&first.client(), &id, say("user", "Hello?")).await;
    first.stop().await;

    let second = gateway(&of, &emulator, "key-2")
        .clock(&clock)
        .data_dir(folder.path())
        .start()
        .await;
    emulator.clear_requests();
    emulator.script().next(Answer::text("Noon."));
    let told = turn(&second.client(), &id, say("user", "What time is it?")).await;
    assert_eq!(told["choices"][0]["message"]["content"], "Noon.");
    let seals: Vec<usize> = emulator
        .requests()
        .iter()
        .map(|request| seals(&request.json().unwrap(), of.4))
        .collect();
    assert_eq!(seals, [1, 0], "refused once, then without");
    // It is remembered that they are refused.
    emulator.clear_requests();
    turn(&second.client(), &id, say("user", "And now?")).await;
    assert_eq!(emulator.requests().len(), 1);
    second.stop().await;
}

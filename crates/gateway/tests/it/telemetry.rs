//! Traces and metrics at a collector, the access log, and the names of metrics in documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use axum::http::HeaderMap;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::{Emulator, Fault};
use holdfast_testkit::{TestClient, TestGateway, fleet, upstream};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Process, config};
use crate::{ask, create, say};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// What a collector of OpenTelemetry has been sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Export>>>);

struct Export {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Collector {
    /// Starts one; returns its URL, too.
    async fn start() -> (Collector, String) {
        let collector = Collector::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let take = async |State(collector): State<Collector>,
                          OriginalUri(uri): OriginalUri,
                          headers: HeaderMap,
                          body: Bytes| {
            collector.0.lock().unwrap().push(Export {
                path: uri.path().to_owned(),
                headers,
                body,
            });
        };
        let router = Router::new().fallback(take).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (collector, url)
    }

    fn spans(&self) -> Vec<Span> {
        let exports = self.0.lock().unwrap();
        let traces = exports.iter().filter(|export| export.path == "/v1/traces");
        traces
            .map(|export| ExportTraceServiceRequest::decode(export.body.clone()).unwrap())
            .flat_map(|request| request.resource_spans)
            .flat_map(|spans| spans.scope_spans)
            .flat_map(|spans| spans.spans)
            .collect()
    }

    /// Names and units.
    fn metrics(&self) -> BTreeMap<String, String> {
        let exports = self.0.lock().unwrap();
        let metrics = exports.iter().filter(|export| export.path == "/v1/metrics");
        metrics
            .map(|export| ExportMetricsServiceRequest::decode(export.body.clone()).unwrap())
            .flat_map(|request| request.resource_metrics)
            .flat_map(|metrics| metrics.scope_metrics)
            .flat_map(|metrics| metrics.metrics)
            .map(|metric| (metric.name, metric.unit))
            .collect()
    }
}

fn attributes(span: &Span) -> BTreeMap<String, Value> {
    let value = |value: Any| match value {
        Any::StringValue(text) => json!(text),
        Any::IntValue(number) => json!(number),
        other => panic!("{other:?}"),
    };
    span.attributes
        .iter()
        .map(|pair| {
            let any = pair.value.clone().unwrap().value.unwrap();
            (pair.key.clone(), value(any))
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "key-one").unwrap();
    std::fs::write(folder.path().join("token"), "collector-token").unwrap();
    folder
}

async fn traced(more: &str) -> (Collector, Emulator, Process) {
    let (collector, url) = Collector::start().await;
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text = config(&emulator.url, "key", &["m"]);
    let text = format!(
        "{text}\n[telemetry]\nendpoint = \"{url}\"\nheaders = {{ x-token = \"file:token\" }}\n{more}"
    );
    let process = Process::start_in(folder(), &text, |_| {}).await;
    (collector, emulator, process)
}

fn chat(client: &TestClient, stream: bool, traceparent: Option<String>) -> reqwest::RequestBuilder {
    let body = json!({"model": "m", "messages": [say("user", "secret words")], "stream": stream});
    let request = client
        .request(reqwest::Method::POST, "/v1/chat/completions")
        .json(&body);
    match traceparent {
        Some(value) => request.header("traceparent", value),
        None => request,
    }
}

#[tokio::test]
async fn a_chat_is_a_span_in_its_callers_trace_with_numbers_and_no_text() {
    let (collector, emulator, process) = traced("").await;
    let client = process.client();
    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    let sent = chat(&client, true, Some(traceparent)).send().await.unwrap();
    assert!(sent.status().is_success());
    sent.text().await.unwrap();
    client.get("/healthz").await.ok();
    process.signal("TERM").await;
    assert_eq!(process.ended().await, 0);

    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:?}");
    let find = |kind: SpanKind| spans.iter().find(|span| span.kind == kind as i32).unwrap();
    let (request, operation) = (find(SpanKind::Server), find(SpanKind::Client));
    assert_eq!(request.name, "POST /v1/chat/completions");
    assert_eq!(operation.name, "chat m");
    for span in [request, operation] {
        assert_eq!(hex(&span.trace_id), TRACE);
    }
    assert_eq!(hex(&request.parent_span_id), CALLER);
    assert_eq!(operation.parent_span_id, request.span_id);
    assert_eq!(attributes(request)["http.response.status_code"], 200);
    assert_eq!(attributes(request)["http.route"], "/v1/chat/completions");
    let told = attributes(operation);
    assert_eq!(told["gen_ai.operation.name"], "chat");
    assert_eq!(told["gen_ai.provider.name"], "vllm");
    assert_eq!(told["gen_ai.request.model"], "m");
    assert_eq!(told["gen_ai.response.model"], "m");
    assert_eq!(told["holdfast.upstream"], "u");
    assert!(told["gen_ai.usage.input_tokens"].as_i64().unwrap() > 0);
    assert!(told["gen_ai.usage.output_tokens"].as_i64().unwrap() > 0);
    assert_eq!(told["gen_ai.usage.cache_read.input_tokens"], 0);

    // The upstream is told of the same trace, and of our span in it.
    let seen = emulator.requests();
    let seen = seen[0].header("traceparent").unwrap().to_owned();
    assert_eq!(seen, format!("00-{TRACE}-{}-01", hex(&request.span_id)));

    let metrics = collector.metrics();
    for (name, unit) in [
        ("http.server.request.duration", "s"),
        ("gen_ai.client.operation.duration", "s"),
        ("gen_ai.client.operation.time_to_first_chunk", "s"),
        ("gen_ai.client.token.usage", "{token}"),
    ] {
        assert_eq!(metrics.get(name).map(String::as_str), Some(unit), "{name}");
    }
    for export in collector.0.lock().unwrap().iter() {
        assert_eq!(export.headers["x-token"], "collector-token");
        let text = String::from_utf8_lossy(&export.body);
        for private in ["secret words", "key-one", crate::process::KEY] {
            assert!(!text.contains(private), "{private} in {}", export.path);
        }
    }
}

#[tokio::test]
async fn a_share_of_traces_is_kept_and_a_callers_decision_wins() {
    let (collector, _emulator, process) = traced("sample_ratio = 0\n").await;
    let client = process.client();
    for flags in [None, Some("00"), Some("01")] {
        let traceparent = flags.map(|flags| format!("00-{TRACE}-{CALLER}-{flags}"));
        let sent = chat(&client, false, traceparent).send().await.unwrap();
        assert!(sent.status().is_success());
    }
    process.signal("TERM").await;
    process.ended().await;
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "only the one that asked for it: {spans:?}");
}

#[tokio::test]
async fn a_failed_chat_is_a_span_with_its_error() {
    let (collector, emulator, process) = traced("").await;
    emulator.faults().next(Fault::Status(500, None));
    let sent = chat(&process.client(), false, None).send().await.unwrap();
    assert_eq!(sent.status(), 502);
    process.signal("TERM").await;
    process.ended().await;
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:?}");
    for span in &spans {
        assert_eq!(attributes(span)["error.type"], "502", "{span:?}");
    }
}

#[tokio::test]
async fn a_collector_that_is_away_keeps_nobody_waiting() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text = config(&emulator.url, "key", &["m"]);
    let text = format!("{text}\n[telemetry]\nendpoint = \"http://127.0.0.1:9\"\n");
    let process = Process::start_in(folder(), &text, |_| {}).await;
    let sent = chat(&process.client(), false, None).send().await.unwrap();
    assert!(sent.status().is_success());
    process.signal("TERM").await;
    assert_eq!(process.ended().await, 0);
}

#[tokio::test]
async fn each_request_is_one_line_of_json_in_the_log_without_its_text() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text = config(&emulator.url, "key", &["m"]);
    let text = format!("{text}\n[log]\nformat = \"json\"\n");
    let process = Process::start_in(folder(), &text, |_| {}).await;
    let client = process.client();
    let request = chat(&client, true, None).header("x-request-id", "req-of-the-test");
    request.send().await.unwrap().text().await.unwrap();
    process.logs("req-of-the-test").await;
    let log = process.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .filter(|line: &Value| line["fields"]["request.id"] == "req-of-the-test")
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    let fields = &lines[0]["fields"];
    assert_eq!(fields["project"], "default");
    assert!(fields["key.id"].as_str().is_some_and(|id| !id.is_empty()));
    assert_eq!(fields["model"], "m");
    assert_eq!(fields["http.status"], 200);
    for number in [
        "duration_ms",
        "first_token_ms",
        "tokens.input",
        "tokens.output",
    ] {
        assert!(fields[number].is_u64(), "{number} in {fields}");
    }
    for private in ["secret words", "key-one", crate::process::KEY] {
        assert!(!log.contains(private), "{private}");
    }
}

/// The metrics of a gateway that has done a little of everything.
async fn metrics() -> String {
    let [first, second] = [
        Emulator::start(Compatible::vllm()).await,
        Emulator::start(Compatible::vllm()).await,
    ];
    let options = |name: &str, emulator: &Emulator| {
        let mut options = upstream("deepseek", &format!("{}/v1", emulator.url), "key-1");
        name.clone_into(&mut options.name);
        options.retry.retries_max = 1;
        options
    };
    let worker = format!("{}/v1", second.url);
    let gateway = TestGateway::builder()
        .upstream(options("first", &first))
        .upstream(options("second", &second))
        .upstream(fleet("vllm", [worker.as_str()], "key-1"))
        .route("fleet", &[("vllm", "model")])
        .route(
            "m",
            &[
                ("first", "deepseek-v4-flash"),
                ("second", "deepseek-v4-flash"),
            ],
        )
        .start()
        .await;
    gateway.clock.follow_system();
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    ask(&client, &id, "hi").await.ok();
    for _ in 0..2 {
        first.faults().next(Fault::Status(500, None));
    }
    for model in ["m", "fleet"] {
        let body = json!({"model": model, "messages": [say("user", "hi")]});
        client.post("/v1/chat/completions", &body).await.ok();
    }
    client
        .post("/admin/v1/config/reload", &json!({}))
        .await
        .error(400);
    client.get("/metrics").await.text()
}

/// The families of the metrics, by the names that samples have.
fn families(metrics: &str) -> BTreeSet<String> {
    let types = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| match line.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, "info") => format!("{name}_info"),
            (name, _) => name.to_owned(),
        })
        .collect()
}

fn file(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(name)).unwrap()
}

/// Words that are names of metrics.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.split(|character| !is_part(character))
        .filter(|word| word.starts_with("holdfast_"))
        .map(str::to_owned)
        .collect()
}

/// Metrics that a gateway on upstreams and a toy engine does not show.
const RARE: [&str; 8] = [
    "holdfast_admission_refused_total",
    "holdfast_budget_refusals_total",
    "holdfast_budget_warnings_total",
    "holdfast_limit_refusals_total",
    "holdfast_shared_contexts_total",
    "holdfast_upstream_handles_made_total",
    "holdfast_upstream_pings_total",
    "holdfast_upstream_worker_requests_moved_total",
];

#[tokio::test]
async fn the_documents_table_and_the_dashboard_name_the_metrics_that_there_are() {
    let metrics = metrics().await;
    let families = families(&metrics);
    let operations = file("docs/operations.md");
    let rows = operations
        .lines()
        .filter_map(|line| line.strip_prefix("| `holdfast_"));
    let documented: BTreeSet<String> = rows
        .map(|row| format!("holdfast_{}", row.split('`').next().unwrap()))
        .collect();
    let mut expected = documented.clone();
    for rare in RARE {
        assert!(expected.remove(rare), "{rare} is not documented");
    }
    assert_eq!(families, expected, "{metrics}");

    let dashboard: Value = serde_json::from_str(&file("examples/grafana/holdfast.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries: String = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| format!("{}\n", target["expr"].as_str().unwrap()))
        .collect();
    let queried = names(&queries);
    assert!(queried.len() > 10, "{queried:?}");
    for name in queried {
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| {
                name.strip_suffix(end)
                    .filter(|name| documented.contains(*name))
            })
            .unwrap_or(&name);
        assert!(documented.contains(family), "the dashboard asks for {name}");
    }
}

#[tokio::test]
async fn money_retries_and_fallbacks_are_counted() {
    let metrics = metrics().await;
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let target = |upstream: &str| format!("upstream=\"{upstream}\",model=\"deepseek-v4-flash\"");
    let (first, second) = (target("first"), target("second"));
    assert_eq!(
        value(&format!("holdfast_upstream_retries_total{{{first}}}")),
        1.0
    );
    assert_eq!(
        value(&format!("holdfast_upstream_fallbacks_total{{{second}}}")),
        1.0
    );
    assert!(value(&format!("holdfast_upstream_cost_total{{{second},")) > 0.0);
    assert_eq!(
        value("holdfast_chat_first_token_seconds_count{model=\"m\"}"),
        1.0
    );
    assert_eq!(
        value("holdfast_chat_duration_seconds_count{model=\"m\"}"),
        1.0
    );
    let ok = "holdfast_requests_total{surface=\"openai\",outcome=\"ok\"}";
    assert_eq!(value(ok), 4.0);
    let failed = "holdfast_requests_total{surface=\"admin\",outcome=\"client_error\"}";
    assert_eq!(value(failed), 1.0);
}

//! What the gateway adds to a chat with an upstream: with a small request, with a large context sent whole by the client,
//! and with the same context used by id. Beside it the upstream alone, and nginx in front of it.

mod tables;
mod work;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use clap::Parser;
use futures_util::future::try_join_all;
use holdfast_benches::Result;
use holdfast_benches::machine::{file_system, introduce, resident_bytes};
use holdfast_benches::nginx::{self, Nginx};
use holdfast_benches::options::Common;
use holdfast_benches::prose::{QUESTIONS, text_of_size};
use holdfast_benches::report::{Table, mebibytes, note, rate, say};
use holdfast_benches::server::{Gateway, binary};
use holdfast_benches::upstream::{Recorded, Upstream, WORDS};
use serde_json::{Value, json};
use tables::{print_differences, print_streamed, print_whole};
use work::print_work;

/// What the gateway adds to chats with upstreams, with contexts by id and without, beside nginx
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// The gateway [default: beside this program]
    #[arg(long, env = "HOLDFAST_BIN", hide_env_values = true)]
    binary: Option<PathBuf>,
    /// nginx [default: the one on the PATH; without one its rows are left out]
    #[arg(long, env = "BENCH_NGINX", hide_env_values = true)]
    nginx: Option<PathBuf>,
}

/// Bytes of a request that is called small.
const SMALL_BYTES: usize = 1024;

/// A token of English text has about four bytes.
const BYTES_PER_TOKEN: usize = 4;

/// Clients of the second part.
const CLIENTS: usize = 64;

/// More than this a request by a handle must not have; the new message is a kilobyte.
const HANDLE_BYTES_MAX: usize = 2048;

/// What is called at the upstream and at the gateway alike.
const PATH: &str = "/v1/chat/completions";

/// How long a thinking upstream takes; real ones take longer.
const THINKING: Duration = Duration::from_millis(5);

/// Requests of each kind before anything is measured: connections, copies and what is rendered once are there then.
const WARM_UP: usize = 5;

/// The ways of caching: all of the prefix is sent, it is sent with markers, it is not sent.
const REPLAYED: Route = Route {
    model: "replayed",
    provider: "openai-compatible",
};
const MARKED: Route = Route {
    model: "marked",
    provider: "anthropic",
};
const HELD: Route = Route {
    model: "held",
    provider: "gemini",
};
const ROUTES: [Route; 3] = [REPLAYED, MARKED, HELD];

/// A model of the gateway on an upstream of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Route {
    model: &'static str,
    provider: &'static str,
}

/// What is asked. The new message is always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Small,
    /// The client sends the context and the message.
    Replay,
    ById,
}

/// What lies between the client and the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Nginx,
    Gateway(Route),
}

/// A request over one way, and what it took.
struct Case {
    request: Request,
    way: Way,
    url: String,
    key: &'static str,
    plain: Bytes,
    stream: Bytes,
    /// Of one request, at the upstream.
    upstream_bytes: u64,
    times: Times,
}

/// Milliseconds.
#[derive(Default)]
struct Times {
    whole: Vec<f64>,
    first_byte: Vec<f64>,
    streamed: Vec<f64>,
}

impl Request {
    fn title(self) -> &'static str {
        match self {
            Request::Small => "1 KB",
            Request::Replay => "context sent by the client",
            Request::ById => "context by id",
        }
    }
}

impl Way {
    fn title(self) -> String {
        match self {
            Way::Direct => "direct".to_owned(),
            Way::Nginx => "nginx".to_owned(),
            Way::Gateway(route) => format!("gateway, `{}`", route.provider),
        }
    }
}

impl Case {
    fn name(&self) -> String {
        format!("{}, {}", self.request.title(), self.way.title())
    }

    /// The request that sends the upstream about the same bytes with nothing between.
    fn floor(&self) -> (Request, Way) {
        match (self.request, self.way) {
            (Request::Small, _) | (Request::ById, Way::Gateway(HELD)) => {
                (Request::Small, Way::Direct)
            }
            _ => (Request::Replay, Way::Direct),
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let tokens = arguments.common.size(100_000, 8_000);
    let nginx_binary = nginx::binary(arguments.nginx.as_deref());
    introduce(
        "Upstreams",
        &[
            format!(
                "context: {} bytes of text, about {tokens} tokens",
                tokens * BYTES_PER_TOKEN
            ),
            format!(
                "an upstream on this machine that answers at once with {} words, an event each",
                WORDS.len()
            ),
            match &nginx_binary {
                Some(binary) => nginx::version(binary).await?,
                None => "NO NGINX FOUND, its rows are missing: install Debian's package `nginx`, or name one with `--nginx`"
                    .to_owned(),
            },
        ],
    );

    let upstream = Upstream::start()?;
    let scratch = arguments.common.scratch()?;
    say(&format!(
        "- store: SQLite on {}, synced at each commit",
        file_system(scratch.path())
    ));
    let nginx = match &nginx_binary {
        Some(binary) => Some(Nginx::start(binary, upstream.address(), scratch.path()).await?),
        None => None,
    };
    let gateway = Gateway::start_configured(
        &binary(arguments.binary.as_deref())?,
        &configuration(&upstream),
        scratch.path(),
    )
    .await?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .pool_max_idle_per_host(CLIENTS)
        .build()?;

    let text = text_of_size(tokens * BYTES_PER_TOKEN, str::len);
    let ids = create(&gateway, &upstream, &text).await?;
    check_by_id(&client, &gateway, &upstream, &text, &ids).await?;
    let mut cases = cases(&upstream, nginx.as_ref(), &gateway, &text, &ids);
    for case in &mut cases {
        warm_up(&client, &upstream, case).await?;
    }

    let requests = arguments.common.size(1_000, 5);
    measure(&client, &mut cases, requests).await?;
    say("");
    say("One client, whole answers:");
    print_whole(&cases)?;
    say("One client, streams:");
    print_streamed(&cases)?;
    say("One client, differences of neighbouring requests, medians:");
    print_differences(&cases)?;
    let rounds = arguments.common.size(20, 2);
    print_work(&client, &gateway, &upstream, &cases, rounds).await?;

    let requests = arguments.common.size(200, 5);
    upstream.set_delay(THINKING);
    measure(&client, &mut cases, requests).await?;
    upstream.set_delay(Duration::ZERO);
    say(&format!(
        "The same where the upstream takes {} ms before it answers:",
        THINKING.as_millis()
    ));
    print_differences(&cases)?;
    print_memory(&gateway)?;

    let time = arguments
        .common
        .size(Duration::from_secs(4), Duration::from_millis(200));
    print_load(&client, &cases, time).await?;
    print_memory(&gateway)
}

/// One upstream for each way of caching, all of them the same server.
fn configuration(upstream: &Upstream) -> String {
    let address = upstream.address();
    // The models' names decide which rules of caching apply.
    format!(
        r#"
[[upstreams]]
name = "replayed"
provider = "openai-compatible"
base_url = "http://{address}/v1"

[[upstreams]]
name = "marked"
provider = "anthropic"
base_url = "http://{address}"
api_key = "env:HOLDFAST_BOOTSTRAP_KEY"

[[upstreams]]
name = "held"
provider = "gemini"
base_url = "http://{address}/v1beta"
api_key = "env:HOLDFAST_BOOTSTRAP_KEY"

[[models]]
name = "replayed"
route = ["replayed"]
window_tokens = 1000000

[[models]]
name = "marked"
route = [{{ upstream = "marked", model = "claude-sonnet-5-5" }}]
window_tokens = 1000000

[[models]]
name = "held"
route = [{{ upstream = "held", model = "gemini-3.8-flash" }}]
window_tokens = 1000000
"#
    )
}

/// A user message that makes a request of about a kilobyte. `number` makes it one of its kind.
fn small_message(number: usize) -> String {
    let question = QUESTIONS[number % QUESTIONS.len()];
    // The rest of the body has about a hundred bytes.
    let notes = text_of_size(SMALL_BYTES - question.len() - 110, str::len);
    format!("{notes}\n{number}. {question}")
}

/// Bodies of a plain and of a streamed request. `stream` comes last: the upstream looks for it there.
fn bodies(mut body: Value) -> (Bytes, Bytes) {
    let plain = Bytes::from(body.to_string());
    body["stream"] = json!(true);
    (plain, Bytes::from(body.to_string()))
}

/// Makes a context on each route. Only the upstream with handles is told, once and all of it.
async fn create(gateway: &Gateway, upstream: &Upstream, text: &str) -> Result<Vec<String>> {
    note("upstreams: creating the contexts");
    upstream.record();
    let mut ids = Vec::new();
    for route in ROUTES {
        ids.push(gateway.create_context_of(route.model, text).await?.0);
    }
    match upstream.take_recorded().as_slice() {
        [copy]
            if copy.path.ends_with("/cachedContents")
                && position(&copy.body, &in_json(text)?).is_some() =>
        {
            Ok(ids)
        }
        recorded => Err(format!(
            "the contexts were to be told once to the upstream with handles, but there were {} requests",
            recorded.len()
        )
        .into()),
    }
}

/// What the upstream gets of a context by id: the whole prefix as the same bytes each time, or only its handle.
async fn check_by_id(
    client: &reqwest::Client,
    gateway: &Gateway,
    upstream: &Upstream,
    text: &str,
    ids: &[String],
) -> Result<()> {
    let context = in_json(text)?;
    let url = format!("{}{PATH}", gateway.url());
    for (route, id) in ROUTES.into_iter().zip(ids) {
        upstream.record();
        for number in 0..QUESTIONS.len() {
            let (plain, stream) = bodies(by_id(route, id, number));
            let body = if number % 2 == 0 { plain } else { stream };
            let response = send(client, &url, gateway.key(), body).await?;
            response.bytes().await?;
        }
        let recorded = upstream.take_recorded();
        let is_marked = |body: &[u8]| position(body, b"\"cache_control\"").is_some();
        let is_right = |request: &Recorded| {
            let body = request.body.as_slice();
            if route == HELD {
                return body.len() <= HANDLE_BYTES_MAX
                    && position(body, b"\"cachedContent\"").is_some();
            }
            // The same bytes from the first one of the body to the last one of the context.
            let end = position(body, &context).map(|at| at + context.len());
            end.is_some_and(|end| recorded[0].body.get(..end) == Some(&body[..end]))
                && is_marked(body) == (route == MARKED)
        };
        if recorded.len() != QUESTIONS.len() || !recorded.iter().all(is_right) {
            return Err(format!(
                "the upstream of `{}` did not get the context as it should",
                route.model
            )
            .into());
        }
    }
    Ok(())
}

fn by_id(route: Route, id: &str, number: usize) -> Value {
    json!({
        "model": route.model,
        "context_id": id,
        "messages": [{"role": "user", "content": small_message(number)}],
    })
}

/// All requests over all ways.
fn cases(
    upstream: &Upstream,
    nginx: Option<&Nginx>,
    gateway: &Gateway,
    text: &str,
    ids: &[String],
) -> Vec<Case> {
    let question = json!({"role": "user", "content": small_message(0)});
    let small = |route: Route| json!({"model": route.model, "messages": [question]});
    let replay = json!({
        "model": REPLAYED.model,
        "messages": [{"role": "system", "content": text}, question],
    });
    let mut requests = vec![
        (Request::Small, Way::Direct, small(REPLAYED)),
        (Request::Small, Way::Nginx, small(REPLAYED)),
    ];
    requests.extend(ROUTES.map(|route| (Request::Small, Way::Gateway(route), small(route))));
    requests.extend(
        [Way::Direct, Way::Nginx, Way::Gateway(REPLAYED)]
            .map(|way| (Request::Replay, way, replay.clone())),
    );
    requests.extend(
        ROUTES
            .into_iter()
            .zip(ids)
            .map(|(route, id)| (Request::ById, Way::Gateway(route), by_id(route, id, 0))),
    );
    requests
        .into_iter()
        .filter_map(|(request, way, body)| {
            let (base, key) = match way {
                Way::Direct => (format!("http://{}", upstream.address()), ""),
                Way::Nginx => (nginx?.url().to_owned(), ""),
                Way::Gateway(_) => (gateway.url().to_owned(), gateway.key()),
            };
            let (plain, stream) = bodies(body);
            Some(Case {
                request,
                way,
                url: format!("{base}{PATH}"),
                key,
                plain,
                stream,
                upstream_bytes: 0,
                times: Times::default(),
            })
        })
        .collect()
}

/// Connects, checks the answers' text and counts what the upstream gets of each request.
async fn warm_up(client: &reqwest::Client, upstream: &Upstream, case: &mut Case) -> Result<()> {
    for _ in 0..WARM_UP {
        whole(client, case).await?;
        let (_, _, body) = streamed(client, case).await?;
        if streamed_text(&body)? != WORDS.concat() {
            return Err(format!("{}: the stream is not the upstream's", case.name()).into());
        }
    }
    upstream.take_counts();
    whole(client, case).await?;
    let (requests, bytes) = upstream.take_counts();
    if requests != 1 {
        return Err(format!("{}: {requests} requests for one", case.name()).into());
    }
    case.upstream_bytes = bytes;
    Ok(())
}

/// Times each request anew, one client, one request at a time.
async fn measure(client: &reqwest::Client, cases: &mut [Case], requests: usize) -> Result<()> {
    note(&format!(
        "upstreams: {requests} requests of each kind, one at a time"
    ));
    for case in &mut *cases {
        case.times = Times::default();
    }
    // In turn, so that what else the machine does meets all alike.
    for _ in 0..requests {
        for case in &mut *cases {
            let took = whole(client, case).await?;
            case.times.whole.push(milliseconds(took));
            let (first_byte, took, _) = streamed(client, case).await?;
            case.times.first_byte.push(milliseconds(first_byte));
            case.times.streamed.push(milliseconds(took));
        }
    }
    Ok(())
}

async fn send(
    client: &reqwest::Client,
    url: &str,
    key: &str,
    body: Bytes,
) -> Result<reqwest::Response> {
    let response = client
        .post(url)
        .bearer_auth(key)
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await?;
    let status = response.status();
    if status.is_success() {
        Ok(response)
    } else {
        Err(format!("{url} answered {status}: {}", response.text().await?).into())
    }
}

/// Time of a whole answer.
async fn whole(client: &reqwest::Client, case: &Case) -> Result<Duration> {
    let began = Instant::now();
    let response = send(client, &case.url, case.key, case.plain.clone()).await?;
    let body = response.bytes().await?;
    let took = began.elapsed();
    let answer: Value = serde_json::from_slice(&body)?;
    if answer["choices"][0]["message"]["content"] != json!(WORDS.concat()) {
        return Err(format!("{}: the answer is not the upstream's", case.name()).into());
    }
    Ok(took)
}

/// The words of a stream.
fn streamed_text(body: &[u8]) -> Result<String> {
    let mut text = String::new();
    for line in std::str::from_utf8(body)?.lines() {
        let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else {
            continue;
        };
        let chunk: Value = serde_json::from_str(data)?;
        text.push_str(
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default(),
        );
    }
    Ok(text)
}

/// Time to the first byte of a streamed answer and to its last, and the answer.
async fn streamed(client: &reqwest::Client, case: &Case) -> Result<(Duration, Duration, Vec<u8>)> {
    let began = Instant::now();
    let mut response = send(client, &case.url, case.key, case.stream.clone()).await?;
    let mut body = Vec::with_capacity(8192);
    let mut first_byte = None;
    while let Some(chunk) = response.chunk().await? {
        first_byte.get_or_insert_with(|| began.elapsed());
        body.extend_from_slice(&chunk);
    }
    let took = began.elapsed();
    let is_complete = body.ends_with(b"data: [DONE]\n\n");
    match first_byte {
        Some(first_byte) if is_complete => Ok((first_byte, took, body)),
        _ => Err(format!("{}: the stream is incomplete", case.name()).into()),
    }
}

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Whole,
    Stream,
}

/// Answers per second of all clients together, each asking again as soon as it has its answer.
async fn load(client: &reqwest::Client, case: &Case, time: Duration, shape: Shape) -> Result<f64> {
    let began = Instant::now();
    let clients = (0..CLIENTS).map(|_| async {
        let mut answers = 0_u64;
        while began.elapsed() < time {
            match shape {
                Shape::Whole => {
                    whole(client, case).await?;
                }
                Shape::Stream => {
                    streamed(client, case).await?;
                }
            }
            answers += 1;
        }
        Ok::<u64, holdfast_benches::Error>(answers)
    });
    let answers: u64 = try_join_all(clients).await?.into_iter().sum();
    Ok(answers as f64 / began.elapsed().as_secs_f64())
}

/// The case of this request over this way.
fn find(cases: &[Case], (request, way): (Request, Way)) -> Result<&Case> {
    let case = cases
        .iter()
        .find(|case| (case.request, case.way) == (request, way));
    case.ok_or_else(|| format!("nothing was measured of {}", request.title()).into())
}

async fn print_load(client: &reqwest::Client, cases: &[Case], time: Duration) -> Result<()> {
    note(&format!("upstreams: {CLIENTS} clients at once"));
    say("");
    say(&format!("{CLIENTS} clients at once:"));
    let mut table = Table::new(&[
        "request",
        "way",
        "whole answers per second",
        "streams per second",
    ]);
    for case in cases {
        table.row(vec![
            case.request.title().to_owned(),
            case.way.title(),
            rate(load(client, case, time, Shape::Whole).await?),
            rate(load(client, case, time, Shape::Stream).await?),
        ]);
    }
    table.print();
    Ok(())
}

fn print_memory(gateway: &Gateway) -> Result<()> {
    let process = gateway.process().ok_or("the gateway has ended")?;
    say(&format!(
        "Memory of the gateway: {}.",
        mebibytes(resident_bytes(Some(process))?)
    ));
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn shown(milliseconds: f64) -> String {
    format!("{milliseconds:.2} ms")
}

/// As it stands within a JSON string.
fn in_json(text: &str) -> Result<Vec<u8>> {
    let quoted = serde_json::to_vec(text)?;
    Ok(quoted[1..quoted.len() - 1].to_vec())
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

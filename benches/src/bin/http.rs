//! What the gateway adds to the engine's own time, whether that grows with the context, and whether streams stay whole.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use holdfast_benches::Result;
use holdfast_benches::engine::{document, start};
use holdfast_benches::machine::{introduce, resident_bytes};
use holdfast_benches::options::{Common, ModelOptions};
use holdfast_benches::prose::QUESTIONS;
use holdfast_benches::report::{Table, mebibytes, note, say, time};
use holdfast_benches::server::{Gateway, binary};
use holdfast_benches::statistics::{mean, median, percentile, standard_error};
use holdfast_engine::EngineOptions;
use serde_json::{Value, json};

/// What the gateway adds to the engine's time, HTTP to HTTP, and whether streams arrive whole
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    model: ModelOptions,
    /// The gateway [default: beside this program]
    #[arg(long, env = "HOLDFAST_BIN", hide_env_values = true)]
    binary: Option<PathBuf>,
}

/// A short context, in tokens.
const TINY: usize = 64;

/// How a stream went.
struct Stream {
    chunks: usize,
    whole: bool,
    longest_pause: Duration,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    introduce(
        "The gateway on top of the engine",
        &[format!(
            "model: {}, {} threads",
            arguments.model.name(),
            arguments.model.threads()
        )],
    );
    let large = arguments.common.size(7500, 512);
    let requests = arguments.common.size(200, 5);
    let streams = arguments.common.size(32, 4);
    let [tiny_text, large_text] = texts(&arguments, [TINY, large]).await?;

    let scratch = arguments.common.scratch()?;
    let gateway = Gateway::start(
        &binary(arguments.binary.as_deref())?,
        &arguments.model.model,
        arguments.model.threads(),
        scratch.path(),
    )
    .await?;
    note("gateway: creating the contexts");
    let (large_id, large_tokens) = gateway.create_context(&large_text).await?;
    let (tiny_id, tiny_tokens) = gateway.create_context(&tiny_text).await?;

    note(&format!("gateway: {requests} requests to each context"));
    let (mut tiny, mut long, mut shown) = (Vec::new(), Vec::new(), Vec::new());
    for id in [&tiny_id, &large_id] {
        gateway.ask(id, QUESTIONS[0]).await?;
    }
    // In turn, so that what else the machine does meets both alike.
    for index in 0..requests {
        let question = QUESTIONS[index % QUESTIONS.len()];
        tiny.push(overhead(&gateway, &tiny_id, question).await?);
        long.push(overhead(&gateway, &large_id, question).await?);
        shown.push(gateway.show_context(&large_id).await?.as_secs_f64() * 1e3);
    }
    print_overhead(&[
        (format!("chat, context of {tiny_tokens} tokens"), &tiny),
        (format!("chat, context of {large_tokens} tokens"), &long),
        ("`GET /v1/context/{id}` (no engine)".to_owned(), &shown),
    ]);
    let difference: Vec<f64> = long
        .iter()
        .zip(&tiny)
        .map(|(long, tiny)| long - tiny)
        .collect();
    say(&format!(
        "Added by the larger context: {:.2} ms ± {:.2} (mean of {requests} pairs and its standard error).",
        mean(&difference),
        standard_error(&difference),
    ));

    note(&format!("gateway: {streams} streams"));
    let began = Instant::now();
    let running = (0..streams).map(|number| stream(&gateway, &tiny_id, number));
    let finished = futures_util::future::join_all(running)
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    print_streams(&finished, began.elapsed());
    if let Some(process) = gateway.process() {
        say(&format!(
            "Memory of the server: {}.",
            mebibytes(resident_bytes(Some(process))?)
        ));
    }
    if finished.iter().all(|stream| stream.whole) {
        Ok(())
    } else {
        Err("a stream lost or reordered chunks".into())
    }
}

/// System messages of these sizes; only the model knows how long a text is.
async fn texts<const N: usize>(arguments: &Arguments, sizes: [usize; N]) -> Result<[String; N]> {
    let engine = start(EngineOptions::new(arguments.model.model.clone())).await?;
    let mut texts = [const { String::new() }; N];
    for (text, size) in texts.iter_mut().zip(sizes) {
        *text = document(&engine, size)?.messages[0].joined_text();
    }
    engine.stop().await;
    Ok(texts)
}

/// Milliseconds of a request for one token that the engine did not spend on it.
async fn overhead(gateway: &Gateway, context: &str, question: &str) -> Result<f64> {
    let answer = gateway.ask(context, question).await?;
    Ok(answer.took.as_secs_f64() * 1e3 - answer.first_token_ms)
}

fn print_overhead(rows: &[(String, &[f64])]) {
    let milliseconds = |value: f64| format!("{value:.2} ms");
    let mut table = Table::new(&["request", "median", "99th percentile", "mean"]);
    for (name, values) in rows {
        table.row(vec![
            name.clone(),
            milliseconds(median(values)),
            milliseconds(percentile(values, 99.0)),
            milliseconds(mean(values)),
        ]);
    }
    table.print();
}

/// Streams an answer whose text is known beforehand, because its schema allows no other. It is different for each
/// stream, so that a chunk lost, repeated, out of order or sent to somebody else shows.
async fn stream(gateway: &Gateway, context: &str, number: usize) -> Result<Stream> {
    let count: Vec<String> = (1..=12).map(|index| format!("{number}-{index}")).collect();
    let expected = count.join(" ");
    let body = json!({
        "messages": [{"role": "user", "content": "Count."}],
        "temperature": 0,
        "max_tokens": 400,
        "stream_options": {"include_usage": true},
        "response_format": {"type": "json_schema", "json_schema": {"name": "count", "schema": {
            "type": "object",
            "properties": {"count": {"type": "string", "enum": [expected]}},
            "required": ["count"],
            "additionalProperties": false,
        }}},
    });
    let mut events = gateway.stream(context, body).await?;
    let mut text = String::new();
    let mut chunks = 0;
    let mut finished = false;
    let mut counted = false;
    let mut ended = false;
    let mut last: Option<Instant> = None;
    let mut longest_pause = Duration::ZERO;
    while let Some(data) = events.next().await? {
        if data == "[DONE]" {
            ended = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(&data)?;
        chunks += 1;
        if let Some(before) = last.replace(Instant::now()) {
            longest_pause = longest_pause.max(before.elapsed());
        }
        let choice = &chunk["choices"][0];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        finished |= choice["finish_reason"] == json!("stop");
        counted |= chunk["usage"]["completion_tokens"].is_u64();
    }
    let answer: Option<Value> = serde_json::from_str(&text).ok();
    let exact = answer.is_some_and(|answer| answer["count"] == json!(expected));
    Ok(Stream {
        chunks,
        whole: exact && finished && counted && ended,
        longest_pause,
    })
}

fn print_streams(streams: &[Stream], took: Duration) {
    let pauses: Vec<f64> = streams
        .iter()
        .map(|stream| stream.longest_pause.as_secs_f64())
        .collect();
    let broken = streams.iter().filter(|stream| !stream.whole).count();
    let chunks: usize = streams.iter().map(|stream| stream.chunks).sum();
    let mut table = Table::new(&[
        "streams at once",
        "chunks",
        "streams with lost or reordered chunks",
        "longest pause, median",
        "longest pause of all",
        "all done after",
    ]);
    table.row(vec![
        streams.len().to_string(),
        chunks.to_string(),
        broken.to_string(),
        time(Duration::from_secs_f64(median(&pauses))),
        time(Duration::from_secs_f64(percentile(&pauses, 100.0))),
        time(took),
    ]);
    table.print();
}

//! What creating and opening a context costs in the store, and whether that grows with the number of contexts.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use holdfast_benches::Result;
use holdfast_benches::machine::{file_system, introduce};
use holdfast_benches::options::Common;
use holdfast_benches::prose::sentences;
use holdfast_benches::report::{Table, mebibytes, note, time};
use holdfast_benches::statistics::{median, percentile};
use holdfast_protocol::UnixMillis;
use holdfast_protocol::chat::{Message, Role};
use holdfast_protocol::context::{
    Context, ContextContent, ContextId, ContextMode, Expiry, ProfileKind,
};
use holdfast_store::{ContextStore, SqliteStore};
use rand::seq::IndexedRandom;
use serde_json::Map;

/// Latency of creating and opening contexts in the SQLite store
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Size of each context's text, bytes
    #[arg(long, default_value_t = 4096)]
    text_bytes: usize,
}

const PROJECT: &str = "benchmark";

/// 2026-01-01; the benchmark's clock stands still, so that nothing expires.
const NOW: UnixMillis = 1_767_225_600_000;

const LIFETIME: UnixMillis = 86_400_000;

/// Contexts of one transaction while the store is filled.
const BATCH: usize = 500;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scratch = arguments.common.scratch()?;
    introduce(
        "Contexts in the store",
        &[
            format!(
                "SQLite on {}, synced at each commit",
                file_system(scratch.path())
            ),
            format!("text of a context: {} bytes", arguments.text_bytes),
        ],
    );
    let mut table = Table::new(&[
        "contexts",
        "create, median",
        "create, p99",
        "open, median",
        "open, p99",
        "open with text, median",
        "open with text, p99",
        "start of the store",
        "size on disk",
    ]);
    for &rows in arguments.common.size(&[1_000, 100_000], &[100, 1_000]) {
        note(&format!("store: {rows} contexts"));
        let file = scratch.path().join(format!("{rows}.db"));
        table.row(measure(&arguments, &file, rows).await?);
    }
    table.print();
    Ok(())
}

async fn measure(arguments: &Arguments, file: &Path, rows: usize) -> Result<Vec<String>> {
    let content = content(arguments.text_bytes);
    let store = SqliteStore::open(file).await?;
    let ids = fill(&store, &content, rows).await?;
    store.close().await;

    let began = Instant::now();
    let store = SqliteStore::open(file).await?;
    let started = began.elapsed();

    let repeats = arguments.common.size(500, 20);
    let (mut creates, mut opens, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..repeats {
        let context = context(NOW);
        let began = Instant::now();
        store.insert(&context, &content).await?;
        creates.push(began.elapsed());

        let id = ids.choose(&mut rand::rng()).ok_or("the store is empty")?;
        let began = Instant::now();
        store.get(PROJECT, id, NOW).await?;
        opens.push(began.elapsed());
        store.content(PROJECT, id).await?;
        reads.push(began.elapsed());
    }
    store.close().await;
    let mut row = vec![rows.to_string()];
    for times in [&creates, &opens, &reads] {
        let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
        row.push(time(Duration::from_secs_f64(median(&seconds))));
        row.push(time(Duration::from_secs_f64(percentile(&seconds, 99.0))));
    }
    row.push(time(started));
    row.push(mebibytes(std::fs::metadata(file)?.len()));
    Ok(row)
}

async fn fill(
    store: &SqliteStore,
    content: &ContextContent,
    rows: usize,
) -> Result<Vec<ContextId>> {
    let mut ids = Vec::with_capacity(rows);
    while ids.len() < rows {
        let batch: Vec<(Context, ContextContent)> = (ids.len()..rows.min(ids.len() + BATCH))
            // A millisecond apart, as real ones are.
            .map(|index| (context(NOW + index as UnixMillis), content.clone()))
            .collect();
        store.insert_many(&batch).await?;
        ids.extend(batch.into_iter().map(|(context, _)| context.id));
    }
    Ok(ids)
}

fn content(bytes: usize) -> ContextContent {
    let mut text = sentences(bytes / 40 + 1).concat();
    text.truncate(bytes);
    ContextContent {
        initial: vec![Message::text(Role::System, text)],
        turns: Vec::new(),
    }
}

fn context(created_at: UnixMillis) -> Context {
    Context {
        id: ContextId::new(created_at, rand::random()),
        project: PROJECT.to_owned(),
        model: "benchmark".to_owned(),
        requested_model: "benchmark".to_owned(),
        mode: ContextMode::CommonPrefix,
        profile: ProfileKind::Native,
        ttl_seconds: 86_400,
        expiry: Expiry::Sliding,
        created_at,
        expires_at: created_at + LIFETIME,
        truncation: None,
        tools: Vec::new(),
        tool_choice: None,
        display_name: None,
        metadata: Map::new(),
        policy: Default::default(),
        initial_tokens: 1_000,
        prefix_tokens: 1_000,
        turn_count: 0,
        dropped_messages: 0,
        version: 1,
        forked_from: None,
        implicit: None,
        made_by: None,
    }
}

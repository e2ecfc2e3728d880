//! Several clients on one shared context: how fast their answers come together, and what memory that takes; then
//! llama.cpp's own server with a copy of the prompt in each slot.

use std::time::{Duration, Instant};

use clap::Parser;
use holdfast_benches::Result;
use holdfast_benches::engine::{Document, PROJECT, ask, document, question, start, tokens};
use holdfast_benches::machine::{introduce, resident_bytes};
use holdfast_benches::options::{Common, ModelOptions, PeerOptions};
use holdfast_benches::peer::{FlashAttention, Peer, PeerSetup};
use holdfast_benches::report::{Table, mebibytes, note, rate, ratio, say, time};
use holdfast_benches::statistics::{common_rate, median_duration};
use holdfast_engine::{Engine, EngineOptions, Token};
use holdfast_protocol::usage::CacheTier;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Aggregate decode rate of several clients on one context, against llama.cpp's own server
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    peer: PeerOptions,
}

/// What some clients at once saw.
struct Crowd {
    first_tokens: Vec<Duration>,
    /// Tokens of all answers over the time from the first request to the last answer's end.
    aggregate: f64,
    /// The same while all of them were being answered.
    steady: Option<f64>,
}

/// Most cells and memory in use at a time.
#[derive(Debug, Clone, Copy, Default)]
struct Peak {
    kv_tokens: u32,
    resident_bytes: u64,
}

/// How often cells and memory are looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    introduce(
        "Clients on one context",
        &[format!(
            "model: {}, {} threads",
            arguments.model.name(),
            arguments.model.threads()
        )],
    );
    let size = arguments.common.size(2048, 128);
    let counts: &[usize] = arguments.common.size(&[1, 4, 8, 16], &[1, 4, 8]);
    let peer_counts: &[usize] = arguments.common.size(&[1, 4, 8], &[8]);

    let engine = start(EngineOptions {
        threads: Some(arguments.model.threads()),
        ..EngineOptions::new(arguments.model.model.clone())
    })
    .await?;
    let document = document(&engine, size)?;
    engine
        .hold(PROJECT, "document", document.prefix.clone())
        .await?;

    let mut table = Table::new(&[
        "clients",
        "together, tok/s",
        "while all run, tok/s",
        "first token, median",
        "first token, last client",
        "KV cells",
        "memory of the process",
    ]);
    let mut at_eight = 0.0;
    for &count in counts {
        note(&format!("engine: {count} clients"));
        let (crowd, peak) = measure(&engine, &document, count, answer_tokens(&arguments)).await?;
        if count == 8 {
            at_eight = crowd.aggregate;
        }
        let mut row = crowd_cells(&format!("{count}"), &crowd);
        row.push(peak.kv_tokens.to_string());
        row.push(mebibytes(peak.resident_bytes));
        table.row(row);
    }
    let context_tokens = document.prefix.tokens();
    let prompts = (0..8)
        .map(|index| {
            let mut pieces = document.segments.clone();
            pieces.extend(question(&engine, &document, index)?);
            Ok(tokens(&engine, &pieces))
        })
        .collect::<Result<Vec<_>>>()?;
    engine.stop().await;
    say("");
    say(&format!(
        "Holdfast, one context of {context_tokens} tokens:"
    ));
    table.print();
    if arguments.peer.no_peer {
        return Ok(());
    }

    let mut table = Table::new(&[
        "clients, flash attention",
        "together, tok/s",
        "while all run, tok/s",
        "first token, median",
        "first token, last client",
        "KV cells",
        "memory of the process",
        "filling 8 slots",
    ]);
    let mut best = 0.0_f64;
    for flash_attention in [FlashAttention::Default, FlashAttention::Off] {
        let peer = Peer::start(PeerSetup {
            python: &arguments.peer.python,
            model: &arguments.model.model,
            threads: arguments.model.threads(),
            slots: 8,
            slot_tokens: u32::try_from(size)? + 256,
            flash_attention,
        })
        .await?;
        note(&format!(
            "llama.cpp's server: flash attention {}",
            flash_attention.as_str()
        ));
        let began = Instant::now();
        for (slot, prompt) in (0_u32..).zip(&prompts) {
            peer.complete(slot, &prompt[..document.prefix.tokens() as usize], 1)
                .await?;
        }
        let filling = began.elapsed();
        for &count in peer_counts {
            let crowd = measure_peer(
                &peer,
                &prompts[..count],
                context_tokens,
                answer_tokens(&arguments),
            )
            .await?;
            if count == 8 {
                best = best.max(crowd.aggregate);
            }
            let mut row = crowd_cells(&format!("{count}, {}", flash_attention.as_str()), &crowd);
            row.push((context_tokens * 8).to_string());
            row.push(mebibytes(resident_bytes(peer.process())?));
            row.push(time(filling));
            table.row(row);
        }
    }
    say("llama.cpp's own server, 8 slots with a copy of the context each:");
    table.print();
    say(&format!(
        "8 clients together, holdfast / the better of the two: {}",
        ratio(at_eight, best)
    ));
    Ok(())
}

fn answer_tokens(arguments: &Arguments) -> u32 {
    arguments.common.size(64, 16)
}

async fn measure(
    engine: &Engine,
    document: &Document,
    count: usize,
    answer_tokens: u32,
) -> Result<(Crowd, Peak)> {
    let suffixes = (0..count)
        .map(|index| question(engine, document, index))
        .collect::<Result<Vec<_>>>()?;
    let (done, watching) = watch::channel(());
    let sampler = tokio::spawn(sample(engine.clone(), watching));
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for suffix in suffixes {
        let (engine, prefix) = (engine.clone(), document.prefix.clone());
        clients.spawn(async move { ask(&engine, Some(&prefix), suffix, answer_tokens).await });
    }
    let mut answers = Vec::new();
    let mut first_tokens = Vec::new();
    while let Some(answer) = clients.join_next().await {
        let answer = answer??.expect_tier(CacheTier::Kv)?;
        first_tokens.push(answer.first_token());
        answers.push(answer.arrivals);
    }
    drop(done);
    Ok((crowd(began, first_tokens, &answers), sampler.await??))
}

/// Looks at cells and memory until the sender is dropped.
async fn sample(engine: Engine, mut until: watch::Receiver<()>) -> Result<Peak> {
    let mut peak = Peak::default();
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    loop {
        tokio::select! {
            _ = until.changed() => return Ok(peak),
            _ = ticks.tick() => {
                peak.kv_tokens = peak.kv_tokens.max(engine.status().kv_tokens_used);
                peak.resident_bytes = peak.resident_bytes.max(resident_bytes(None)?);
            }
        }
    }
}

async fn measure_peer(
    peer: &Peer,
    prompts: &[Vec<Token>],
    context_tokens: u64,
    answer_tokens: u32,
) -> Result<Crowd> {
    let began = Instant::now();
    // All on this task: the futures only wait for the peer.
    let requests = (0_u32..)
        .zip(prompts)
        .map(|(slot, prompt)| peer.complete(slot, prompt, answer_tokens));
    let mut answers = Vec::new();
    let mut first_tokens = Vec::new();
    for answer in futures_util::future::join_all(requests).await {
        let answer = answer?;
        if answer.cached_tokens < context_tokens {
            return Err("a slot of the peer did not hold its copy of the context".into());
        }
        first_tokens.push(answer.first_token());
        answers.push(answer.arrivals);
    }
    Ok(crowd(began, first_tokens, &answers))
}

fn crowd(began: Instant, first_tokens: Vec<Duration>, answers: &[Vec<Instant>]) -> Crowd {
    let tokens: usize = answers.iter().map(Vec::len).sum();
    let ended = answers.iter().flatten().max().copied().unwrap_or(began);
    Crowd {
        first_tokens,
        aggregate: tokens as f64 / (ended - began).as_secs_f64(),
        steady: common_rate(answers),
    }
}

fn crowd_cells(name: &str, crowd: &Crowd) -> Vec<String> {
    let last = crowd.first_tokens.iter().max().copied().unwrap_or_default();
    vec![
        name.to_owned(),
        rate(crowd.aggregate),
        crowd.steady.map_or_else(|| "never".to_owned(), rate),
        time(median_duration(&crowd.first_tokens)),
        time(last),
    ]
}

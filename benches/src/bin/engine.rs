//! Time to first token with and without a context, by where the context's state is, and decode speed at that depth;
//! then the same on llama.cpp's own server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::Parser;
use holdfast_benches::engine::{Timed, ask, document, question, start, tokens};
use holdfast_benches::machine::{file_system, introduce};
use holdfast_benches::options::{Common, ModelOptions, PeerOptions};
use holdfast_benches::peer::{FlashAttention, Peer, PeerSetup};
use holdfast_benches::report::{Table, note, rate, ratio, say, time, times_faster};
use holdfast_benches::statistics::{decode_rate, median, median_duration};
use holdfast_benches::{Result, engine::PROJECT};
use holdfast_engine::{Engine, EngineOptions};
use holdfast_protocol::usage::CacheTier;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Time to first token by where a context's state is, against a cold prompt and against llama.cpp's own server
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    peer: PeerOptions,
    /// What the benchmark starts itself: answers once from the state in this folder
    #[arg(long, hide = true, requires = "tokens")]
    after_restart: Option<PathBuf>,
    /// Size of that context
    #[arg(long, hide = true)]
    tokens: Option<usize>,
}

/// What was measured at one prompt size.
struct Depth {
    prefix_tokens: u64,
    prompt_tokens: u64,
    cold: Duration,
    create: Duration,
    kv: Duration,
    ram: Duration,
    disk: Duration,
    restart: Restart,
    decode: f64,
}

/// The first answer of a new process.
#[derive(Clone, Copy)]
struct Restart {
    first_token: Duration,
    whole: Duration,
}

/// What was measured of the peer.
struct PeerFigures {
    flash_attention: FlashAttention,
    version: String,
    prefill: f64,
    decode: f64,
    in_slot: Duration,
    restore: Duration,
    after_restore: Duration,
    computed_again: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let (Some(folder), Some(tokens)) = (&arguments.after_restart, arguments.tokens) {
        return after_restart(&arguments, folder, tokens).await;
    }
    let scratch = arguments.common.scratch()?;
    introduce(
        "Time to first token",
        &[
            format!(
                "model: {}, {} threads",
                arguments.model.name(),
                arguments.model.threads()
            ),
            format!("disk tier on {}", file_system(scratch.path())),
        ],
    );
    let sizes: &[usize] = arguments.common.size(&[512, 2048, 4096, 7500], &[256]);
    let mut depths = Vec::new();
    for &size in sizes {
        note(&format!("engine: {size} tokens"));
        depths.push(measure(&arguments, &scratch.path().join(size.to_string()), size).await?);
    }
    print_depths(&depths);
    if arguments.peer.no_peer {
        return Ok(());
    }
    let size = arguments.common.size(4096, 256);
    let ours = depths
        .iter()
        .find(|depth| depth.prefix_tokens.abs_diff(size as u64) < 16)
        .ok_or("the size of the comparison was not measured")?;
    let mut peers = Vec::new();
    for flash_attention in [FlashAttention::Default, FlashAttention::Off] {
        note(&format!(
            "llama.cpp's server: flash attention {}",
            flash_attention.as_str()
        ));
        peers.push(measure_peer(&arguments, flash_attention, size).await?);
    }
    print_comparison(ours, &peers);
    Ok(())
}

fn engine_options(arguments: &Arguments, state: Option<&Path>) -> EngineOptions {
    EngineOptions {
        threads: Some(arguments.model.threads()),
        state_dir: state.map(Path::to_owned),
        ..EngineOptions::new(arguments.model.model.clone())
    }
}

async fn measure(arguments: &Arguments, state: &Path, size: usize) -> Result<Depth> {
    let repeats = arguments.common.size(5, 2);
    let engine = start(engine_options(arguments, Some(state))).await?;
    let document = document(&engine, size)?;
    let prefix = Some(&document.prefix);
    let asked = |index: usize| question(&engine, &document, index);

    let mut cold = Vec::new();
    let mut prompt_tokens = 0;
    for index in 0..if size <= 512 { 2 } else { 1 } {
        let mut prompt = document.segments.clone();
        prompt.extend(asked(index)?);
        let timed = ask(&engine, None, prompt, 1).await?;
        prompt_tokens = timed.prompt_tokens;
        cold.push(timed.first_token());
    }

    let began = Instant::now();
    engine
        .hold(PROJECT, "document", document.prefix.clone())
        .await?;
    let create = began.elapsed();

    let mut tiers = Vec::new();
    for tier in [CacheTier::Kv, CacheTier::Ram, CacheTier::Disk] {
        let mut times = Vec::new();
        for index in 0..repeats {
            if tier != CacheTier::Kv {
                engine.demote_all(tier == CacheTier::Disk).await;
            }
            let timed = ask(&engine, prefix, asked(index)?, 1).await?;
            times.push(timed.expect_tier(tier)?.first_token());
        }
        tiers.push(median_duration(&times));
    }

    let mut rates = Vec::new();
    for index in 0..arguments.common.size(3, 1) {
        let answer_tokens = arguments.common.size(64, 16);
        let timed = ask(&engine, prefix, asked(index)?, answer_tokens).await?;
        rates.push(decode_rate(&timed.arrivals));
    }
    engine.stop().await;
    drop(engine);

    let mut restarts = Vec::new();
    for _ in 0..repeats {
        restarts.push(restart(arguments, state, size).await?);
    }
    let median_of = |value: fn(&Restart) -> Duration| {
        median_duration(&restarts.iter().map(value).collect::<Vec<_>>())
    };
    Ok(Depth {
        prefix_tokens: document.prefix.tokens(),
        prompt_tokens,
        cold: median_duration(&cold),
        create,
        kv: tiers[0],
        ram: tiers[1],
        disk: tiers[2],
        restart: Restart {
            first_token: median_of(|restart| restart.first_token),
            whole: median_of(|restart| restart.whole),
        },
        decode: median(&rates),
    })
}

/// Starts this program anew and waits for the line it prints when it has its first token.
async fn restart(arguments: &Arguments, state: &Path, size: usize) -> Result<Restart> {
    let began = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .arg(&arguments.model.model)
        .args(["--threads", &arguments.model.threads().to_string()])
        .arg("--after-restart")
        .arg(state)
        .args(["--tokens", &size.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().ok_or("the new process has no output")?;
    let line = BufReader::new(output).lines().next_line().await?;
    let whole = began.elapsed();
    child.wait().await?;
    let nanoseconds: u64 = line.ok_or("the new process gave no answer")?.parse()?;
    Ok(Restart {
        first_token: Duration::from_nanos(nanoseconds),
        whole,
    })
}

/// The new process: prints the nanoseconds from its question to the first token.
async fn after_restart(arguments: &Arguments, state: &Path, size: usize) -> Result<()> {
    let engine = start(engine_options(arguments, Some(state))).await?;
    let document = document(&engine, size)?;
    let suffix = question(&engine, &document, 0)?;
    let timed: Timed = ask(&engine, Some(&document.prefix), suffix, 1)
        .await?
        .expect_tier(CacheTier::Disk)?;
    say(&timed.first_token().as_nanos().to_string());
    engine.stop().await;
    Ok(())
}

async fn measure_peer(
    arguments: &Arguments,
    flash_attention: FlashAttention,
    size: usize,
) -> Result<PeerFigures> {
    let repeats = arguments.common.size(5, 2);
    // Only to have the very same tokens; it rests while the peer is measured.
    let engine: Engine = start(engine_options(arguments, None)).await?;
    let document = document(&engine, size)?;
    let prompt = |index: usize| {
        let mut pieces = document.segments.clone();
        pieces.extend(question(&engine, &document, index)?);
        Ok::<_, holdfast_benches::Error>(tokens(&engine, &pieces))
    };
    let prompts = (0..4).map(prompt).collect::<Result<Vec<_>>>()?;
    engine.stop().await;

    let peer = Peer::start(PeerSetup {
        python: &arguments.peer.python,
        model: &arguments.model.model,
        threads: arguments.model.threads(),
        slots: 2,
        slot_tokens: u32::try_from(size)? + 256,
        flash_attention,
    })
    .await?;
    let cold = peer.complete(0, &prompts[0], 1).await?;
    if cold.cached_tokens > 0 {
        return Err("the peer's first prompt was not cold".into());
    }
    peer.save(0).await?;
    let mut in_slot = Vec::new();
    for index in 1..=repeats {
        let prompt = &prompts[index % prompts.len()];
        in_slot.push(peer.complete(0, prompt, 1).await?.first_token());
    }
    let mut rates = Vec::new();
    for index in 0..arguments.common.size(3, 1) {
        let timed = peer
            .complete(
                0,
                &prompts[index % prompts.len()],
                arguments.common.size(64, 16),
            )
            .await?;
        rates.push(decode_rate(&timed.arrivals));
    }
    let (mut restores, mut firsts) = (Vec::new(), Vec::new());
    let mut computed_again = false;
    for _ in 0..repeats {
        peer.erase(1).await?;
        let began = Instant::now();
        peer.restore(1).await?;
        restores.push(began.elapsed());
        let timed = peer.complete(1, &prompts[1], 1).await?;
        firsts.push(timed.first_token());
        computed_again |= timed.cached_tokens < document.prefix.tokens();
    }
    Ok(PeerFigures {
        flash_attention,
        version: peer.version.clone(),
        prefill: cold.prefill_rate,
        decode: median(&rates),
        in_slot: median_duration(&in_slot),
        restore: median_duration(&restores),
        after_restore: median_duration(&firsts),
        computed_again,
    })
}

fn print_depths(depths: &[Depth]) {
    let mut table = Table::new(&[
        "context, tokens",
        "cold",
        "from KV",
        "from RAM",
        "from disk",
        "disk, new process",
        "start of process to first token",
        "create",
        "prefill, tok/s",
        "decode, tok/s",
    ]);
    for depth in depths {
        let warm = |duration: Duration| {
            format!(
                "{} ({})",
                time(duration),
                times_faster(depth.cold, duration)
            )
        };
        table.row(vec![
            depth.prefix_tokens.to_string(),
            time(depth.cold),
            warm(depth.kv),
            warm(depth.ram),
            warm(depth.disk),
            warm(depth.restart.first_token),
            time(depth.restart.whole),
            time(depth.create),
            rate(depth.prompt_tokens as f64 / depth.cold.as_secs_f64()),
            rate(depth.decode),
        ]);
    }
    table.print();
}

fn print_comparison(ours: &Depth, peers: &[PeerFigures]) {
    let prefill = ours.prompt_tokens as f64 / ours.cold.as_secs_f64();
    let mut table = Table::new(&[
        &format!("context of {} tokens", ours.prefix_tokens),
        "prefill, tok/s",
        "decode, tok/s",
        "first token, state in place",
        "restore from file",
        "first token after it",
        "both",
    ]);
    table.row(vec![
        "holdfast".into(),
        rate(prefill),
        rate(ours.decode),
        time(ours.kv),
        String::new(),
        String::new(),
        time(ours.disk),
    ]);
    for peer in peers {
        table.row(vec![
            format!(
                "llama.cpp's server, flash attention {}",
                peer.flash_attention.as_str()
            ),
            rate(peer.prefill),
            rate(peer.decode),
            time(peer.in_slot),
            time(peer.restore),
            time(peer.after_restore),
            time(peer.restore + peer.after_restore),
        ]);
    }
    for peer in peers {
        let share =
            |ours: Duration, theirs: Duration| ratio(ours.as_secs_f64(), theirs.as_secs_f64());
        table.row(vec![
            format!(
                "holdfast / flash attention {}",
                peer.flash_attention.as_str()
            ),
            ratio(prefill, peer.prefill),
            ratio(ours.decode, peer.decode),
            share(ours.kv, peer.in_slot),
            String::new(),
            format!("{} (ours from KV)", share(ours.kv, peer.after_restore)),
            share(ours.disk, peer.restore + peer.after_restore),
        ]);
    }
    table.print();
    if let Some(peer) = peers.first() {
        say(&format!("llama.cpp's server: xllamacpp {}", peer.version));
    }
    if peers.iter().any(|peer| peer.computed_again) {
        say("llama.cpp's server computed part of the context again after a restore.");
    }
}

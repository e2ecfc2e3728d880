//! What converting the default model's weights does to it: the mean negative log likelihood of a fixed English text
//! under the file as shipped and under its conversions.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::Parser;
use holdfast_benches::Result;
use holdfast_benches::machine::introduce;
use holdfast_benches::options::{Common, ModelOptions};
use holdfast_benches::report::{Table, mebibytes, note, say};
use holdfast_benches::statistics::{mean, standard_error};
use holdfast_engine::llama::{Quantization, requantize};
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// Likelihood of a text under a model file as shipped and under its conversions. MODEL is the file as shipped
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    model: ModelOptions,
    /// English text [default: docs/handbook.md]
    #[arg(long)]
    text: Option<PathBuf>,
    /// What the benchmark starts itself: prints the likelihoods under this one file
    #[arg(long, hide = true)]
    measure: bool,
}

/// What a model makes of the text, token by token from the second on.
#[derive(Serialize, Deserialize)]
struct Likelihood {
    /// Negative logarithm of the probability of each token.
    losses: Vec<f64>,
    /// The likeliest token at each place.
    likeliest: Vec<i32>,
}

/// Tokens computed at once.
const BATCH: usize = 256;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let text = arguments
        .text
        .clone()
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/handbook.md"));
    if arguments.measure {
        let likelihood = measure(&arguments, &std::fs::read(&text)?)?;
        say(&serde_json::to_string(&likelihood)?);
        return Ok(());
    }
    introduce(
        "What converting the weights costs",
        &[format!("model as shipped: {}", arguments.model.name())],
    );
    let scratch = arguments.common.scratch()?;
    let kinds = [
        Quantization::Keep,
        Quantization::F16,
        Quantization::Q8_0,
        Quantization::Q4_0,
    ];
    let mut table = Table::new(&[
        "weights",
        "file",
        "loss per token",
        "difference to the shipped file",
        "perplexity",
        "same likeliest token",
    ]);
    let mut shipped: Option<Likelihood> = None;
    let mut tokens = 0;
    for kind in kinds {
        note(&format!("quantization: {}", kind.as_str()));
        let file = scratch.path().join(format!("{}.gguf", kind.as_str()));
        requantize(&arguments.model.model, &file, kind)?;
        let likelihood = measure_apart(&arguments, &file, &text).await?;
        tokens = likelihood.losses.len();
        let reference = shipped.as_ref().unwrap_or(&likelihood);
        let differences: Vec<f64> = likelihood
            .losses
            .iter()
            .zip(&reference.losses)
            .map(|(loss, shipped)| loss - shipped)
            .collect();
        let same = likelihood
            .likeliest
            .iter()
            .zip(&reference.likeliest)
            .filter(|(token, shipped)| token == shipped)
            .count();
        let loss = mean(&likelihood.losses);
        table.row(vec![
            kind.as_str().to_owned(),
            mebibytes(std::fs::metadata(&file)?.len()),
            format!("{loss:.4}"),
            format!(
                "{:+.4} ± {:.4}",
                mean(&differences),
                standard_error(&differences)
            ),
            format!("{:.2}", loss.exp()),
            format!("{:.1} %", 100.0 * same as f64 / tokens as f64),
        ]);
        std::fs::remove_file(&file)?;
        shipped.get_or_insert(likelihood);
    }
    table.print();
    say(&format!(
        "{tokens} tokens, each predicted from all before it; ± is the standard error of the mean difference."
    ));
    Ok(())
}

/// In a process of its own: llama.cpp is set up once per process, and converting has done that here already.
async fn measure_apart(arguments: &Arguments, model: &Path, text: &Path) -> Result<Likelihood> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(model).arg("--measure").arg("--text").arg(text);
    command.args(["--threads", &arguments.model.threads().to_string()]);
    if arguments.common.quick {
        command.arg("--quick");
    }
    let output = command.output().await?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn measure(arguments: &Arguments, text: &[u8]) -> Result<Likelihood> {
    let mut backend = LlamaBackend::init()?;
    backend.void_logs();
    let model = LlamaModel::load_from_file(
        &backend,
        &arguments.model.model,
        &LlamaModelParams::default(),
    )?;
    let mut tokens = model.vocab().tokenize(text, true, true);
    tokens.truncate(arguments.common.size(model.n_ctx_train() as usize, 256));
    let threads = i32::try_from(arguments.model.threads())?;
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(u32::try_from(tokens.len())?))
        .with_n_batch(BATCH as u32)
        .with_n_ubatch(BATCH as u32)
        .with_n_threads(threads)
        .with_n_threads_batch(threads)
        .with_flash_attention_policy(0);
    let mut window = model.new_context(&backend, params)?;
    let mut likelihood = Likelihood {
        losses: Vec::new(),
        likeliest: Vec::new(),
    };
    let mut batch = LlamaBatch::new(BATCH, 1);
    for (number, chunk) in tokens.chunks(BATCH).enumerate() {
        let begin = number * BATCH;
        batch.clear();
        for (index, token) in chunk.iter().enumerate() {
            batch.add(*token, i32::try_from(begin + index)?, &[0], true)?;
        }
        window.decode(&mut batch)?;
        for (index, next) in tokens[begin + 1..].iter().take(chunk.len()).enumerate() {
            let logits = window.get_logits_ith(i32::try_from(index)?);
            let (loss, likeliest) = loss_of(logits, usize::try_from(next.0)?);
            likelihood.losses.push(loss);
            likelihood.likeliest.push(likeliest);
        }
    }
    Ok(likelihood)
}

/// The negative log probability of a token, and the token that has the highest.
fn loss_of(logits: &[f32], token: usize) -> (f64, i32) {
    let (likeliest, highest) = logits
        .iter()
        .enumerate()
        .max_by(|one, other| one.1.total_cmp(other.1))
        .map_or((0, 0.0), |(index, value)| (index, f64::from(*value)));
    let sum: f64 = logits
        .iter()
        .map(|logit| (f64::from(*logit) - highest).exp())
        .sum();
    let loss = highest + sum.ln() - f64::from(logits[token]);
    (loss, i32::try_from(likeliest).unwrap_or(i32::MAX))
}

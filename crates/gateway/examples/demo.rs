//! `make demo`: the whole promise on this machine, with a real model and a real long text.
//!
//! Starts the server, asks a question about the operator's handbook the expensive way, holds the handbook as a context,
//! asks three questions by its id, restarts the server and asks once more. Fails if any answer from the context was
//! not served from it or was not faster.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose purpose is to show something in a terminal"
)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const HANDBOOK: &str = include_str!("../../../docs/handbook.md");
const MODEL: &str = "default";
const KEY: &str = "demo-key-of-this-run-only";
const QUESTIONS: [&str; 3] = [
    "What does the word rebuilt in a receipt mean?",
    "Which port does the server listen on?",
    "What happens when two requests use the same session at once?",
];
const QUESTION_AFTER_RESTART: &str = "How long does a context live by default?";

type Outcome<T> = Result<T, Box<dyn Error>>;

/// One line of the table.
struct Row {
    what: String,
    prompt_tokens: u64,
    cached_tokens: u64,
    first_token: Duration,
    cache: String,
    answer: String,
}

struct Server {
    process: Child,
    url: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome<()> {
    let data = tempfile::tempdir()?;
    let http = reqwest::Client::new();

    println!("Starting the server (the first start fetches the model) ...");
    let server = Server::start(data.path()).await?;
    println!("It answers at {}.\n", server.url);

    println!("1. One question about docs/handbook.md, the whole text in the request:");
    let cold = server
        .ask(
            &http,
            "without a context",
            None,
            QUESTIONS[0],
            "reading the whole handbook",
        )
        .await?;

    println!("\n2. The same text, held once:");
    let began = Instant::now();
    let spinner = spinner("POST /v1/context/create");
    let created = server
        .post(
            &http,
            "/v1/context/create",
            &json!({
                "model": MODEL,
                "messages": [{"role": "system", "content": HANDBOOK}],
                "ttl": 3600,
            }),
        )
        .await;
    spinner.finish_and_clear();
    let created = created?;
    let id = created["id"]
        .as_str()
        .ok_or("the create answer has no id")?
        .to_owned();
    println!(
        "   {id}: {} tokens held in {:.1} s",
        created["usage"]["cache_creation_input_tokens"],
        began.elapsed().as_secs_f64()
    );

    println!("\n3. Three questions by its id:");
    let mut rows = vec![cold];
    for question in QUESTIONS {
        rows.push(
            server
                .ask(&http, "with the context", Some(&id), question, "asking")
                .await?,
        );
    }

    println!("\n4. The server is stopped and started again:");
    server.stop().await?;
    let server = Server::start(data.path()).await?;
    rows.push(
        server
            .ask(
                &http,
                "after a restart",
                Some(&id),
                QUESTION_AFTER_RESTART,
                "asking",
            )
            .await?,
    );
    server.stop().await?;

    println!("\n{}", table(&rows));
    judge(&rows)
}

fn table(rows: &[Row]) -> Table {
    let cold = rows[0].first_token.as_secs_f64();
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "",
        "prompt tokens",
        "cached tokens",
        "first token",
        "times faster",
        "tokens saved",
        "x-context-cache",
    ]);
    for row in rows {
        let first_token = row.first_token.as_secs_f64();
        table.add_row([
            row.what.clone(),
            row.prompt_tokens.to_string(),
            row.cached_tokens.to_string(),
            format!("{first_token:.3} s"),
            format!("{:.1}", cold / first_token),
            format!(
                "{:.1} %",
                100.0 * row.cached_tokens as f64 / row.prompt_tokens.max(1) as f64
            ),
            row.cache.clone(),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn judge(rows: &[Row]) -> Outcome<()> {
    let cold = &rows[0];
    for row in &rows[1..] {
        if row.cached_tokens == 0 {
            return Err(format!("an answer {} reports no cached tokens", row.what).into());
        }
        if row.first_token >= cold.first_token {
            return Err(format!("an answer {} was not faster than without one", row.what).into());
        }
    }
    println!("Every answer with the context was served from it and was faster.");
    Ok(())
}

impl Server {
    async fn start(data: &Path) -> Outcome<Server> {
        let mut process = Command::new(server_program()?)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .env("HOLDFAST_BOOTSTRAP_KEY", KEY)
            .env("HOLDFAST_LOG", "warn")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process.stdout.take().ok_or("the server has no output")?;
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some(start) = line.find("http://") {
                let url = line[start..]
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                // The rest is read so that the server never waits for us.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Server { process, url });
            }
        }
        Err("the server ended before it listened".into())
    }

    async fn stop(mut self) -> Outcome<()> {
        let id = self.process.id().ok_or("the server has ended by itself")?;
        // The signal a service manager sends; std can only kill outright.
        Command::new("sh")
            .args(["-c", &format!("kill -TERM {id}")])
            .status()
            .await?;
        let status = self.process.wait().await?;
        if !status.success() {
            return Err(format!("the server ended with {status}").into());
        }
        Ok(())
    }

    async fn post(&self, http: &reqwest::Client, path: &str, body: &Value) -> Outcome<Value> {
        let response = http
            .post(format!("{}{path}", self.url))
            .bearer_auth(KEY)
            .json(body)
            .send()
            .await?;
        let status = response.status();
        let answer: Value = response.json().await?;
        if !status.is_success() {
            return Err(format!(
                "POST {path} answered {status}: {}",
                answer["error"]["message"]
            )
            .into());
        }
        Ok(answer)
    }

    /// Asks a streamed question; without a context the handbook goes along.
    async fn ask(
        &self,
        http: &reqwest::Client,
        what: &str,
        context: Option<&str>,
        question: &str,
        waiting: &str,
    ) -> Outcome<Row> {
        let user = json!({"role": "user", "content": question});
        let mut body = json!({
            "model": MODEL,
            "max_tokens": 48,
            "temperature": 0,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        match context {
            Some(id) => {
                body["context_id"] = json!(id);
                body["messages"] = json!([user]);
            }
            None => body["messages"] = json!([{"role": "system", "content": HANDBOOK}, user]),
        }
        println!("   Q: {question}");
        let spinner = spinner(waiting);
        let began = Instant::now();
        let response = http
            .post(format!("{}/v1/chat/completions", self.url))
            .bearer_auth(KEY)
            .json(&body)
            .send()
            .await?;
        if !response.status().is_success() {
            return Err(format!(
                "the chat answered {}: {}",
                response.status(),
                response.text().await?
            )
            .into());
        }
        let cache = response
            .headers()
            .get("x-context-cache")
            .and_then(|value| value.to_str().ok())
            .unwrap_or("-")
            .to_owned();
        let mut row = Row {
            what: what.to_owned(),
            prompt_tokens: 0,
            cached_tokens: 0,
            first_token: Duration::ZERO,
            cache,
            answer: String::new(),
        };
        let mut buffer = Vec::new();
        let mut body = response.bytes_stream();
        while let Some(bytes) = body.next().await {
            buffer.extend_from_slice(&bytes?);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let Some(data) = std::str::from_utf8(&line)?
                    .trim_end()
                    .strip_prefix("data: ")
                else {
                    continue;
                };
                if data != "[DONE]" {
                    row.take(&serde_json::from_str(data)?, began);
                }
            }
        }
        spinner.finish_and_clear();
        println!(
            "   A: {}  [{:.3} s to the first token]",
            row.answer.trim().replace('\n', " "),
            row.first_token.as_secs_f64()
        );
        Ok(row)
    }
}

impl Row {
    fn take(&mut self, chunk: &Value, began: Instant) {
        if let Some(text) = chunk["choices"][0]["delta"]["content"]
            .as_str()
            .filter(|text| !text.is_empty())
        {
            if self.answer.is_empty() {
                self.first_token = began.elapsed();
            }
            self.answer.push_str(text);
        }
        if let Some(usage) = chunk["usage"].as_object() {
            self.prompt_tokens = usage["prompt_tokens"].as_u64().unwrap_or(0);
            self.cached_tokens = usage["prompt_tokens_details"]["cached_tokens"]
                .as_u64()
                .unwrap_or(0);
        }
    }
}

fn server_program() -> Outcome<PathBuf> {
    if let Some(program) = std::env::var_os("HOLDFAST_BIN") {
        return Ok(program.into());
    }
    let here = std::env::current_exe()?;
    let release = here
        .parent()
        .and_then(Path::parent)
        .ok_or("this program stands in no folder")?;
    Ok(release.join("holdfast"))
}

fn spinner(text: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("   {spinner} {msg} ... {elapsed}");
    let spinner = ProgressBar::new_spinner().with_message(text.to_owned());
    if let Ok(style) = style {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

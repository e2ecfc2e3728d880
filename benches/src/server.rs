//! The gateway as a process of its own, on a free port with a data directory that goes afterwards.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::Result;
use crate::sse::Events;

/// What the benchmark's clients call the model.
pub const MODEL: &str = "benchmark";

/// For a server that only this machine can reach and whose data goes when it ends.
const KEY: &str = "key-of-a-benchmark-server";

/// A running gateway. It ends when this is dropped.
#[derive(Debug)]
pub struct Gateway {
    process: Child,
    url: String,
    client: reqwest::Client,
    // Kept so that the server can go on writing.
    _output: Lines<BufReader<ChildStdout>>,
}

/// A chat's answer and how long it took.
#[derive(Debug, Clone)]
pub struct Answer {
    /// From the first byte sent to the last one read.
    pub took: Duration,
    /// Of the receipt: from the request's admission by the engine to the first token, milliseconds.
    pub first_token_ms: f64,
    /// The whole answer.
    pub body: Value,
}

impl Gateway {
    /// Starts `binary` on a model file and waits until it listens.
    ///
    /// # Errors
    /// It ends before that.
    pub async fn start(
        binary: &Path,
        model: &Path,
        threads: u32,
        folder: &Path,
    ) -> Result<Gateway> {
        let model = std::path::absolute(model)?;
        let model = model.to_str().ok_or("the model's path is not UTF-8")?;
        // A JSON string is a TOML string too.
        let model = serde_json::to_string(model)?;
        let config = format!(
            "[[engines]]\nname = \"default\"\nmodel = {model}\nthreads = {threads}\n\n[[models]]\nname = \"{MODEL}\"\n"
        );
        Self::start_configured(binary, &config, folder).await
    }

    /// Starts `binary` with this configuration and waits until it listens. Its folder is `folder`.
    ///
    /// # Errors
    /// It ends before that.
    pub async fn start_configured(binary: &Path, text: &str, folder: &Path) -> Result<Gateway> {
        let config = folder.join("holdfast.toml");
        tokio::fs::write(&config, text).await?;
        let mut process = Command::new(binary)
            .arg("serve")
            .args(["--listen", "127.0.0.1:0"])
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .env("HOLDFAST_BOOTSTRAP_KEY", KEY)
            .env("HOLDFAST_MODELS_DIR", folder.join("models"))
            .env("HOLDFAST_LOG", "warn")
            // What it talks to is on this machine.
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{} can't be started: {error}", binary.display()))?;
        let output = process.stdout.take().ok_or("the server has no output")?;
        let mut output = BufReader::new(output).lines();
        while let Some(line) = output.next_line().await? {
            if let Some(url) = line.trim().strip_prefix("listening on ") {
                return Ok(Gateway {
                    url: url.to_owned(),
                    process,
                    client: reqwest::Client::builder().no_proxy().build()?,
                    _output: output,
                });
            }
        }
        Err("the server ended before it listened; what it says is above".into())
    }

    /// Where it listens, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What requests prove their sender with.
    pub fn key(&self) -> &'static str {
        KEY
    }

    /// Its process.
    pub fn process(&self) -> Option<u32> {
        self.process.id()
    }

    /// Stores a system message as a context; its id and the tokens it has.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn create_context(&self, text: &str) -> Result<(String, u64)> {
        self.create_context_of(MODEL, text).await
    }

    /// The same for a model of any name.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn create_context_of(&self, model: &str, text: &str) -> Result<(String, u64)> {
        let body = json!({
            "model": model,
            "mode": "common_prefix",
            "messages": [{"role": "system", "content": text}],
        });
        let created = read(self.post("/v1/context/create", &body).await?).await?;
        let id = created["id"].as_str().ok_or("the context has no id")?;
        let tokens = created["usage"]["prompt_tokens"].as_u64().unwrap_or(0);
        Ok((id.to_owned(), tokens))
    }

    /// Time of a request that is answered without the engine.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn show_context(&self, id: &str) -> Result<Duration> {
        let began = Instant::now();
        let request = self.client.get(format!("{}/v1/context/{id}", self.url));
        read(request.bearer_auth(KEY).send().await?).await?;
        Ok(began.elapsed())
    }

    /// A chat with a context that asks for one token.
    ///
    /// # Errors
    /// The server refuses, or the context was not found in its cache.
    pub async fn ask(&self, context: &str, question: &str) -> Result<Answer> {
        let body = json!({
            "model": MODEL,
            "context_id": context,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 1,
            "temperature": 0,
        });
        let began = Instant::now();
        let body = read(self.post("/v1/chat/completions", &body).await?).await?;
        let took = began.elapsed();
        let receipt = &body["context_cache"];
        if receipt["status"] != json!("hit") {
            return Err(format!("the context was to be a cache hit, but: {receipt}").into());
        }
        Ok(Answer {
            took,
            first_token_ms: receipt["first_token_ms"]
                .as_f64()
                .ok_or("the receipt has no first_token_ms")?,
            body,
        })
    }

    /// A streamed chat with a context.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn stream(&self, context: &str, mut body: Value) -> Result<Events> {
        body["model"] = json!(MODEL);
        body["context_id"] = json!(context);
        body["stream"] = json!(true);
        let response = self.post("/v1/chat/completions", &body).await?;
        if !response.status().is_success() {
            read(response).await?;
            return Err("the server refused to stream".into());
        }
        Ok(Events::new(response))
    }

    async fn post(&self, path: &str, body: &Value) -> Result<reqwest::Response> {
        let request = self.client.post(format!("{}{path}", self.url));
        Ok(request.bearer_auth(KEY).json(body).send().await?)
    }
}

/// `HOLDFAST_BIN`, or the binary beside this one.
///
/// # Errors
/// This program's own path is unknown.
pub fn binary(named: Option<&Path>) -> Result<PathBuf> {
    match named {
        Some(path) => Ok(path.to_owned()),
        None => Ok(std::env::current_exe()?.with_file_name("holdfast")),
    }
}

async fn read(response: reqwest::Response) -> Result<Value> {
    let status = response.status();
    let text = response.text().await?;
    if status.is_success() {
        Ok(serde_json::from_str(&text)?)
    } else {
        Err(format!("the server answered {status}: {text}").into())
    }
}

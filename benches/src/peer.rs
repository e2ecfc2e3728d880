//! llama.cpp's own server, started by `llama_server.py` and measured over HTTP on this machine.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use holdfast_engine::Token;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::Result;
use crate::sse::Events;

/// How the server is started.
#[derive(Debug, Clone, Copy)]
pub struct PeerSetup<'a> {
    /// Python with the package installed.
    pub python: &'a Path,
    /// The model file.
    pub model: &'a Path,
    /// CPU threads.
    pub threads: u32,
    /// Prompts it holds at once, each in cells of its own.
    pub slots: u32,
    /// Tokens of one slot.
    pub slot_tokens: u32,
    /// Whether attention is left to the server's choice (it chooses the fused kernel) or that kernel is off.
    pub flash_attention: FlashAttention,
}

/// The server's `--flash-attn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashAttention {
    /// As the server decides.
    Default,
    /// Never.
    Off,
}

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Peer {
    process: Child,
    /// Of the Python package.
    pub version: String,
    url: String,
    client: reqwest::Client,
    _slot_folder: TempDir,
}

/// A request's timing, seen by the client.
#[derive(Debug, Clone)]
pub struct Completion {
    /// When it was sent.
    pub began: Instant,
    /// When each token came.
    pub arrivals: Vec<Instant>,
    /// Prompt tokens that it found in its slot.
    pub cached_tokens: u64,
    /// Prompt tokens computed per second, by the server's own clock.
    pub prefill_rate: f64,
}

#[derive(Deserialize)]
struct Announcement {
    url: String,
    version: String,
}

impl FlashAttention {
    /// As tables and `llama_server.py` call it.
    pub fn as_str(self) -> &'static str {
        match self {
            FlashAttention::Default => "default",
            FlashAttention::Off => "off",
        }
    }
}

impl Completion {
    /// Time to first token.
    pub fn first_token(&self) -> Duration {
        self.arrivals
            .first()
            .map_or(Duration::ZERO, |first| *first - self.began)
    }
}

impl Peer {
    /// Starts it and waits until it has loaded the model.
    ///
    /// # Errors
    /// Python or the package is missing, or the server can't load the model.
    pub async fn start(setup: PeerSetup<'_>) -> Result<Peer> {
        let slot_folder = tempfile::tempdir()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("llama_server.py");
        let mut process = Command::new(setup.python)
            .arg(script)
            .arg("--model")
            .arg(setup.model)
            .args([
                "--window-tokens",
                &(setup.slots * setup.slot_tokens).to_string(),
            ])
            .args(["--slots", &setup.slots.to_string()])
            .args(["--threads", &setup.threads.to_string()])
            .args(["--flash-attention", setup.flash_attention.as_str()])
            .arg("--slot-folder")
            .arg(slot_folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                format!("Python can't be started (--python, or --no-peer): {error}")
            })?;
        let output = process.stdout.take().ok_or("the peer has no output")?;
        let line = BufReader::new(output).lines().next_line().await?.ok_or(
            "llama.cpp's server did not start: install benches/requirements.txt, or leave it out with --no-peer",
        )?;
        let announcement: Announcement = serde_json::from_str(&line)?;
        Ok(Peer {
            process,
            version: announcement.version,
            url: announcement.url,
            // The server closes idle connections after some seconds, so a kept one may break under a request.
            client: reqwest::Client::builder()
                .no_proxy()
                .pool_max_idle_per_host(0)
                .build()?,
            _slot_folder: slot_folder,
        })
    }

    /// Its process.
    pub fn process(&self) -> Option<u32> {
        self.process.id()
    }

    /// Continues a prompt in a slot, as a stream, with the length asked for.
    ///
    /// # Errors
    /// The server refuses or ends.
    pub async fn complete(
        &self,
        slot: u32,
        prompt: &[Token],
        answer_tokens: u32,
    ) -> Result<Completion> {
        let body = json!({
            "prompt": prompt,
            "id_slot": slot,
            "n_predict": answer_tokens,
            "temperature": 0,
            "cache_prompt": true,
            "ignore_eos": true,
            "stream": true,
        });
        let began = Instant::now();
        let response = self
            .client
            .post(format!("{}/completion", self.url))
            .json(&body)
            .send()
            .await?
            .error_for_status()?;
        let mut events = Events::new(response);
        let mut arrivals = Vec::new();
        let mut last = Value::Null;
        while let Some(data) = events.next().await? {
            let event: Value = serde_json::from_str(&data)?;
            if event["stop"] == json!(true) {
                last = event;
            } else {
                arrivals.push(Instant::now());
            }
        }
        let timings = &last["timings"];
        Ok(Completion {
            began,
            arrivals,
            cached_tokens: timings["cache_n"].as_u64().unwrap_or(0),
            prefill_rate: timings["prompt_per_second"]
                .as_f64()
                .ok_or("the peer's answer has no timings")?,
        })
    }

    /// Writes what a slot holds to a file.
    ///
    /// # Errors
    /// As `complete`.
    pub async fn save(&self, slot: u32) -> Result<()> {
        self.slot_action(slot, "save").await
    }

    /// Reads what was saved last into a slot.
    ///
    /// # Errors
    /// As `complete`.
    pub async fn restore(&self, slot: u32) -> Result<()> {
        self.slot_action(slot, "restore").await
    }

    /// Empties a slot.
    ///
    /// # Errors
    /// As `complete`.
    pub async fn erase(&self, slot: u32) -> Result<()> {
        self.slot_action(slot, "erase").await
    }

    async fn slot_action(&self, slot: u32, action: &str) -> Result<()> {
        self.client
            .post(format!("{}/slots/{slot}?action={action}", self.url))
            .json(&json!({"filename": "slot.bin"}))
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }
}

//! The real program, killed with -9 in the middle of its work.

use std::collections::HashSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast_emulators::Emulator;
use holdfast_emulators::families::openai::OpenAi;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use crate::say;

const KEY: &str = "hf-ledger-crash-test-key-0000";
const ROUNDS: usize = 3;
const CLIENTS: usize = 8;
/// Answers of a round before the kill.
const ANSWERS: usize = 60;

/// Starts the program on a data directory; gives its URL once it listens.
async fn serve(folder: &Path, config: &Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.join("data"))
        .arg("--config")
        .arg(config)
        .env("HOLDFAST_BOOTSTRAP_KEY", KEY)
        .env("EMULATED_KEY", "key-1")
        .env("HOLDFAST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some(url) = line.strip_prefix("listening on ") {
            return (child, url.to_owned());
        }
    }
    panic!("the program ended before it listened");
}

/// Asks until the program is dead; gives the ids of requests whose answers came whole.
async fn client(
    url: String,
    number: usize,
    answered: Arc<AtomicUsize>,
    told: Arc<Notify>,
) -> Vec<String> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut ids = Vec::new();
    for turn in 0.. {
        let body = json!({
            "model": "model",
            "messages": [say("user", &format!("Question {turn} of {number}"))],
            "stream": (turn + number).is_multiple_of(2),
        });
        let request = http.post(format!("{url}/v1/chat/completions"));
        let Ok(response) = request.bearer_auth(KEY).json(&body).send().await else {
            break;
        };
        assert_eq!(response.status(), 200);
        let id = response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        // Without its end it may have a row or not.
        if response.bytes().await.is_err() {
            break;
        }
        ids.push(id);
        if answered.fetch_add(1, Ordering::SeqCst) + 1 == ANSWERS {
            told.notify_one();
        }
    }
    ids
}

async fn rows(url: &str) -> Vec<Value> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("{url}/v1/usage/requests?limit=100&cursor={cursor}");
        let page = http.get(path).bearer_auth(KEY).send().await.unwrap();
        let page: Value = serde_json::from_slice(&page.bytes().await.unwrap()).unwrap();
        rows.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return rows,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_no_row_of_an_answer_that_was_given_and_doubles_none() {
    let emulator = Emulator::start(OpenAi::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("holdfast.toml");
    let text = format!(
        "[[upstreams]]\nname = \"openai\"\nprovider = \"openai\"\nbase_url = \"{}/v1\"\napi_key = \"env:EMULATED_KEY\"\n\
         [[models]]\nname = \"model\"\nroute = [{{ upstream = \"openai\", model = \"gpt-4.1\" }}]\n",
        emulator.url
    );
    std::fs::write(&config, text).unwrap();
    let mut finished: Vec<String> = Vec::new();
    for _ in 0..ROUNDS {
        let (mut child, url) = serve(folder.path(), &config).await;
        let (answered, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (answered, told) = (Arc::clone(&answered), Arc::clone(&told));
                tokio::spawn(client(url.clone(), number, answered, told))
            })
            .collect();
        told.notified().await;
        child.kill().await.unwrap();
        for client in clients {
            finished.extend(client.await.unwrap());
        }
    }
    let (mut child, url) = serve(folder.path(), &config).await;
    let rows = rows(&url).await;
    let ids: Vec<&str> = (rows.iter())
        .map(|row| row["request_id"].as_str().unwrap())
        .collect();
    let distinct: HashSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), distinct.len(), "no row is there twice");
    let lost: Vec<&String> = (finished.iter())
        .filter(|id| !distinct.contains(id.as_str()))
        .collect();
    assert_eq!(lost, Vec::<&String>::new(), "of {} answers", finished.len());
    assert!(finished.len() >= ROUNDS * ANSWERS);
    for row in rows.iter().filter(|row| row["outcome"] == "completed") {
        assert_eq!(row["usage_source"], "provider", "{row}");
    }
    child.kill().await.unwrap();
}

//! The disk of SQLite, of the ledger's spool and of the log is full, or takes nothing at all.
//!
//! A limit on the size of the process's files stands for the disk, because it needs no rights and can be set and taken
//! back while the process runs: the system refuses writes, whoever makes them.

use holdfast_emulators::Emulator;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_testkit::{Reply, TestClient};
use serde_json::{Value, json};

use super::{adds_up, eventually, is_settled, request_id};
use crate::process::Process;
use crate::say;

/// A write beyond the limit is an error to the process, and not the signal that would end it.
const LIMITABLE: &str = "trap '' XFSZ";

/// Less than any change of the database needs, and enough for some rows in the spool.
const ROOM: u64 = 8 * 1024;

/// Chats whose rows find no room in the spool.
const TOO_MANY: usize = 40;

/// A process with its data on a disk of its own, with the model `m` on an emulator.
struct Scene {
    _emulator: Emulator,
    process: Process,
    config: String,
    /// Of a project with a budget.
    client: TestClient,
    /// Whose row counts.
    requests: Vec<String>,
}

impl Scene {
    async fn new() -> Scene {
        let emulator = Emulator::start(OpenAi::new()).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "key-1").unwrap();
        let config = format!(
            "[[upstreams]]\nname = \"openai\"\nprovider = \"openai\"\nbase_url = \"{}/v1\"\napi_key = \"file:key\"\n\
             [[models]]\nname = \"m\"\nroute = [{{ upstream = \"openai\", model = \"gpt-4.1\" }}]\n",
            emulator.url
        );
        let process = Process::start_by_shell(folder, &config, LIMITABLE).await;
        let admin = process.client();
        let project = json!({"name": "team", "budgets": [{"period": "total", "limit": 1000}]});
        admin.post("/admin/v1/projects", &project).await.ok();
        let key = json!({"project": "team", "scopes": ["inference", "usage:read"]});
        let made = admin.post("/admin/v1/keys", &key).await.ok();
        let client = admin.with_key(made["key"].as_str().unwrap());
        Scene {
            _emulator: emulator,
            process,
            config,
            client,
            requests: Vec::new(),
        }
    }

    async fn create(&mut self) -> Reply {
        let text = "The quick brown fox jumps over the lazy dog. ".repeat(20);
        let body =
            json!({"model": "m", "messages": [say("system", &text)], "on_too_small": "replay"});
        let reply = self.client.post("/v1/context/create", &body).await;
        self.requests.push(request_id(&reply));
        reply
    }

    async fn ask(&mut self, context: &str, stream: bool) {
        let body = json!({"context_id": context, "messages": [say("user", "hi")], "max_tokens": 50, "stream": stream});
        let reply = self.client.post("/v1/chat/completions", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        if stream {
            reply.chunks();
        }
        self.requests.push(request_id(&reply));
    }

    /// Waits until `/readyz` has this status and says this of the ledger.
    async fn until(&self, status: u16, ledger: &str) {
        eventually(ledger, async || {
            let reply = self.client.get("/readyz").await;
            reply.status == status && reply.json()["ledger"] == ledger
        })
        .await;
    }

    /// There is room again: everything works without a restart, and everything is there, after a kill, too.
    async fn recovers(mut self, open: &str) {
        self.process.limit_files(None).await;
        self.until(200, "ok").await;
        let new = id_of(&self.create().await);
        self.ask(&new, false).await;
        self.ask(open, true).await;
        let rows = adds_up(&self.client, &self.requests).await;
        eventually("nothing is reserved", async || {
            is_settled(&self.client, &rows).await
        })
        .await;
        let key = self.client.key().to_owned();
        let folder = self.process.killed().await;
        let process = Process::start_by_shell(folder, &self.config, LIMITABLE).await;
        let client = process.client().with_key(&key);
        assert_eq!(adds_up(&client, &self.requests).await.len(), rows.len());
        for id in [new.as_str(), open] {
            client.get(&format!("/v1/context/{id}")).await.ok();
        }
    }
}

fn id_of(reply: &Reply) -> String {
    reply.ok()["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_takes_no_new_contexts_and_open_ones_go_on() {
    let mut scene = Scene::new().await;
    let open = id_of(&scene.create().await);
    scene.ask(&open, false).await;
    scene.process.limit_files(Some(ROOM)).await;
    let refused = scene.create().await.error(503);
    assert!(
        refused["message"].as_str().unwrap().contains("store"),
        "{refused}"
    );
    scene.ask(&open, true).await;
    scene.until(200, "behind").await;
    for number in 0..TOO_MANY {
        scene.ask(&open, number % 2 == 0).await;
    }
    // Now the spool is full as well, and rows wait in memory.
    scene.until(503, "full").await;
    let metrics = scene.client.get("/metrics").await.text();
    assert!(metrics.contains("\nholdfast_ledger_rows_lost_total 0\n"));
    assert!(metrics.contains("\nholdfast_panics_total 0\n"), "{metrics}");
    scene.recovers(&open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_nothing_is_still_read_from() {
    let mut scene = Scene::new().await;
    let open = id_of(&scene.create().await);
    let other = id_of(&scene.create().await);
    scene.ask(&open, false).await;
    scene.process.limit_files(Some(0)).await;
    scene.ask(&open, true).await;
    scene.create().await.error(503);
    scene.until(503, "full").await;
    let listed = scene.client.get("/v1/context").await.ok();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    scene.ask(&other, false).await;
    let path = format!("/v1/context/{other}");
    scene.client.delete(&path).await.error(503);
    scene.client.get(&path).await.ok();
    scene.recovers(&open).await;
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let config = "[[models]]\nname = \"m\"\nroute = [\"u\"]\nwindow_tokens = 1000\n[[upstreams]]\nname = \"u\"\n\
                  provider = \"vllm\"\nbase_url = \"http://127.0.0.1:9/v1\"\nretries_max = 0\n";
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start_by_shell(folder, config, "exec 2>/dev/full").await;
    let client = process.client();
    let body: Value = json!({"model": "m", "messages": [say("user", "hi")]});
    for _ in 0..3 {
        client.post("/v1/chat/completions", &body).await.error(502);
    }
    let metrics = client.get("/metrics").await.text();
    assert!(metrics.contains("\nholdfast_panics_total 0\n"), "{metrics}");
    process.signal("TERM").await;
    assert_eq!(process.ended().await, 0);
}

//! The wire to PostgreSQL is cut, silent, slow, or gives half an answer, while clients ask.

use holdfast_emulators::Emulator;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_testkit::{PostgresServer, Proxy, TestClient, Wire};
use serde_json::{Value, json};

use super::{PATIENCE, adds_up, eventually, is_settled, request_id, row_of};
use crate::process::Process;
use crate::say;

/// Bytes a second with which no statement ends in time.
const TOO_SLOW: u64 = 20;

/// Chats while the wire is damaged.
const CHATS: usize = 10;

/// A server of its own process over a database behind a wire, with the model `m` on an emulator.
struct Scene {
    _emulator: Emulator,
    proxy: Proxy,
    process: Process,
    /// Of a project with a budget.
    client: TestClient,
    /// Whose row counts.
    requests: Vec<String>,
}

impl Scene {
    async fn new() -> Scene {
        let emulator = Emulator::start(OpenAi::new()).await;
        let url = PostgresServer::shared().database().await;
        let (head, rest) = url.rsplit_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let proxy = Proxy::start(server).await;
        let folder = tempfile::tempdir().unwrap();
        let url = format!("{head}@{}/{database}", proxy.address);
        std::fs::write(folder.path().join("database"), url).unwrap();
        std::fs::write(folder.path().join("key"), "key-1").unwrap();
        let config = format!(
            "[storage]\nurl = \"file:database\"\nconnections_max = 4\nconnection_wait_ms = 500\nstatement_ms_max = 500\n\
             [[upstreams]]\nname = \"openai\"\nprovider = \"openai\"\nbase_url = \"{}/v1\"\napi_key = \"file:key\"\n\
             [[models]]\nname = \"m\"\nroute = [{{ upstream = \"openai\", model = \"gpt-4.1\" }}]\n",
            emulator.url
        );
        let process = Process::start_in(folder, &config, |_| {}).await;
        let admin = process.client();
        let project = json!({"name": "team", "budgets": [{"period": "total", "limit": 1000}]});
        admin.post("/admin/v1/projects", &project).await.ok();
        let key = json!({"project": "team", "scopes": ["inference", "usage:read"]});
        let made = admin.post("/admin/v1/keys", &key).await.ok();
        let client = admin.with_key(made["key"].as_str().unwrap());
        Scene {
            _emulator: emulator,
            proxy,
            process,
            client,
            requests: Vec::new(),
        }
    }

    /// The id of a new context, or the status with which it was refused.
    async fn create(&mut self) -> Result<String, u16> {
        let text = "The quick brown fox jumps over the lazy dog. ".repeat(20);
        let body =
            json!({"model": "m", "messages": [say("system", &text)], "on_too_small": "replay"});
        let reply = self.client.post("/v1/context/create", &body).await;
        self.requests.push(request_id(&reply));
        match reply.status {
            200 => Ok(reply.json()["id"].as_str().unwrap().to_owned()),
            status => Err(status),
        }
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

    /// What `/readyz` says of itself, the store and the ledger.
    async fn ready(&self) -> (u16, Value, Value) {
        let reply = self.client.get("/readyz").await;
        let body = reply.json();
        (reply.status, body["store"].clone(), body["ledger"].clone())
    }
}

async fn check(wire: Wire) {
    let mut scene = Scene::new().await;
    let open = scene.create().await.unwrap();
    scene.ask(&open, false).await;

    scene.proxy.set(wire);
    // What is open is answered from memory, and rows wait on disk.
    for number in 0..CHATS {
        scene.ask(&open, number % 2 == 0).await;
    }
    let refused = tokio::time::timeout(PATIENCE, scene.create()).await;
    assert_eq!(refused, Ok(Err(503)), "{wire:?}: nobody waits for ever");
    eventually("the ledger is behind", async || {
        let (status, store, ledger) = scene.ready().await;
        assert_ne!(ledger, "full", "{wire:?}");
        status == 503 && store != "ok" && ledger == "behind"
    })
    .await;

    scene.proxy.set(Wire::Pass);
    eventually("the store is back", async || {
        scene.ready().await == (200, json!("ok"), json!("ok"))
    })
    .await;
    let new = scene.create().await.unwrap();
    scene.ask(&new, true).await;
    scene.ask(&open, false).await;

    let rows = adds_up(&scene.client, &scene.requests).await;
    let (refused, answered): (Vec<_>, Vec<_>) = (rows.iter())
        .map(|row| row["outcome"].as_str().unwrap())
        .partition(|outcome| *outcome != "completed");
    assert_eq!((refused.len(), answered.len()), (1, CHATS + 5), "{wire:?}");
    let first = row_of(&rows, &scene.requests[0]);
    assert_eq!(
        (&first["kind"], &first["context_id"]),
        (&json!("create"), &json!(open))
    );
    eventually("nothing is reserved", async || {
        is_settled(&scene.client, &rows).await
    })
    .await;
    scene.process.signal("TERM").await;
    assert_eq!(scene.process.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_contexts_go_on_when_the_wire_to_postgresql_is_cut() {
    check(Wire::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_contexts_go_on_when_postgresql_says_nothing() {
    check(Wire::Stall).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_contexts_go_on_when_postgresql_is_too_slow() {
    check(Wire::Slow(TOO_SLOW)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_contexts_go_on_when_postgresql_gives_half_an_answer() {
    check(Wire::Half(10)).await;
}

//! One of three replicas is killed with -9 under load, again and again: nothing that a client was told is lost, nothing is
//! there by half, and nothing is counted twice or kept back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Emulator, Fault};
use holdfast_protocol::chat::Role;
use holdfast_protocol::{ContextId, Message};
use holdfast_store::{
    BudgetStore, ContextStore, LedgerFilter, LedgerStore, PostgresOptions, PostgresStore, Span,
    Spender,
};
use holdfast_testkit::{PostgresServer, RedisServer, TestClient};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::process::Process;
use crate::say;

const REPLICAS: usize = 3;
const CLIENTS: usize = 6;

/// How often a replica is killed; `CHAOS_KILLS` asks for more.
fn kills() -> usize {
    std::env::var("CHAOS_KILLS").map_or(20, |count| count.parse().expect("CHAOS_KILLS is a count"))
}

/// Answers between two kills.
const ANSWERS: usize = 12;

/// Beyond anything that a machine at work needs: a killed server's session is free again after a quarter of a minute.
const PATIENCE: Duration = Duration::from_secs(120);

const PROJECT: &str = "load";

/// Where the replicas are at the moment; a killed one comes back at another port.
type Urls = Arc<RwLock<Vec<String>>>;

/// What a client was told, and what it could not know.
#[derive(Default)]
struct Told {
    /// By session: the questions whose answers came whole, in order.
    committed: HashMap<String, Vec<String>>,
    /// All questions that were sent.
    asked: HashSet<String>,
    /// Contexts whose creation was answered.
    created: HashSet<String>,
    /// Ids of answers that came whole.
    answers: HashSet<String>,
}

fn configuration(emulator: &Emulator, redis: &RedisServer) -> String {
    format!(
        "[storage]\nurl = \"file:database\"\n[contexts]\nsalt = \"file:salt\"\nsession_wait_ms = 500\n\
         [shared]\nurl = \"{}\"\n[limits.per_project]\nrequests_per_minute = 1000000\nconcurrent_requests = 1000\n\
         [[upstreams]]\nname = \"openai\"\nprovider = \"openai\"\nbase_url = \"{}/v1\"\napi_key = \"file:key\"\n\
         [[models]]\nname = \"m\"\nroute = [{{ upstream = \"openai\", model = \"gpt-4.1\" }}]\n",
        redis.url(),
        emulator.url,
    )
}

async fn start(folder: tempfile::TempDir, text: &str) -> Process {
    Process::start_in(folder, text, |_| {}).await
}

/// Talks on a session of its own at whichever replica, and makes contexts in between.
async fn client(
    urls: Urls,
    key: String,
    number: usize,
    stopping: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
) -> Told {
    let mut told = Told::default();
    let at = async |turn: usize| {
        let urls = urls.read().await;
        TestClient::new(&urls[(turn + number) % REPLICAS], Some(key.clone()))
    };
    let send = async |client: &TestClient, path: &str, body: &Value| {
        let request = client.request(reqwest::Method::POST, path).json(body);
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let body = response.bytes().await.ok()?;
        Some((
            status,
            serde_json::from_slice::<Value>(&body).unwrap_or_default(),
        ))
    };
    let create = json!({"model": "m", "messages": [say("system", "Be brief.")], "mode": "session", "ttl": 3600,
                        "on_too_small": "replay"});
    let create_one =
        async |client: &TestClient| match send(client, "/v1/context/create", &create).await {
            Some((200, made)) => Some(made),
            Some((status, body)) => {
                assert!(status >= 500, "{status} {body}");
                None
            }
            None => None,
        };
    let mut session = None;
    for turn in 0.. {
        if stopping.load(Ordering::Relaxed) {
            break;
        }
        let client = at(turn).await;
        let Some(id) = session.clone() else {
            if let Some(made) = create_one(&client).await {
                let id = made["id"].as_str().unwrap().to_owned();
                told.created.insert(id.clone());
                told.committed.insert(id.clone(), Vec::new());
                session = Some(id);
            }
            continue;
        };
        if turn % 7 == 3 {
            if let Some(made) = create_one(&client).await {
                told.created.insert(made["id"].as_str().unwrap().to_owned());
            }
            continue;
        }
        let question = format!("question {turn} of {number}");
        told.asked.insert(question.clone());
        let chat =
            json!({"context_id": id, "messages": [say("user", &question)], "max_tokens": 50});
        match send(&client, "/v1/chat/completions", &chat).await {
            Some((200, answer)) => {
                told.answers
                    .insert(answer["id"].as_str().unwrap().to_owned());
                told.committed.get_mut(&id).unwrap().push(question);
                answered.fetch_add(1, Ordering::SeqCst);
            }
            // The server that held it was killed; it is free again by and by. Another session goes on meanwhile.
            Some((403, _)) => session = None,
            Some((status, body)) => assert!(status >= 500, "{status} {body}"),
            None => {}
        }
    }
    told
}

fn text_of(message: &Message) -> String {
    use holdfast_protocol::chat::ContentPart;
    let texts = message.content.iter().filter_map(|part| match part {
        ContentPart::Text { text } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_one_of_three_replicas_loses_and_repeats_nothing() {
    let emulator = Emulator::start(OpenAi::new()).await;
    emulator
        .faults()
        .always(Fault::SlowDrip(Duration::from_millis(5)));
    let database = PostgresServer::shared().database().await;
    let redis = RedisServer::start();
    let text = configuration(&emulator, &redis);
    let folder = || {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("database", database.as_str()),
            ("key", "key-1"),
            ("salt", "the salt of all replicas"),
        ];
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    };
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(start(folder(), &text).await);
    }
    let admin = replicas[0].client();
    let project = json!({"name": PROJECT, "budgets": [{"period": "total", "limit": "1000"}]});
    admin.post("/admin/v1/projects", &project).await.ok();
    let made = admin
        .post("/admin/v1/keys", &json!({"project": PROJECT}))
        .await
        .ok();
    let key = made["key"].as_str().unwrap().to_owned();

    let urls: Urls = Arc::new(RwLock::new(
        replicas.iter().map(|it| it.url.clone()).collect(),
    ));
    let stopping = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (urls, key) = (Arc::clone(&urls), key.clone());
            tokio::spawn(client(
                urls,
                key,
                number,
                Arc::clone(&stopping),
                Arc::clone(&answered),
            ))
        })
        .collect();
    let kills = kills();
    for kill in 0..kills {
        let goal = answered.load(Ordering::SeqCst) + ANSWERS;
        let reached = async {
            while answered.load(Ordering::SeqCst) < goal {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .expect("traffic goes on");
        let victim = replicas.remove(0);
        let place = kill % REPLICAS;
        assert_eq!(urls.read().await[place], victim.url);
        let folder = victim.killed().await;
        let back = start(folder, &text).await;
        urls.write().await[place] = back.url.clone();
        replicas.push(back);
    }
    stopping.store(true, Ordering::Relaxed);
    let mut told = Told::default();
    for client in clients {
        let one = client.await.unwrap();
        told.committed.extend(one.committed);
        told.asked.extend(one.asked);
        told.created.extend(one.created);
        told.answers.extend(one.answers);
    }
    for replica in replicas {
        replica.signal("TERM").await;
        assert_eq!(replica.ended().await, 0);
    }

    let store = PostgresStore::open(&PostgresOptions::new(database))
        .await
        .unwrap();
    let now = holdfast::app::system_clock()();
    let mut turns = 0;
    for id in &told.created {
        let id: ContextId = id.parse().unwrap();
        let context = store
            .get(PROJECT, &id, now)
            .await
            .expect("an answered context is there");
        let content = store.content(PROJECT, &id).await.unwrap();
        assert_eq!(context.turn_count as usize, content.turns.len());
        let mut questions = Vec::new();
        for (number, turn) in (1..).zip(&content.turns) {
            assert_eq!(turn.number, number, "no gap");
            let roles: Vec<Role> = turn.messages.iter().map(|it| it.message.role).collect();
            assert_eq!(
                roles,
                [Role::User, Role::Assistant],
                "a turn is there whole"
            );
            assert!(!text_of(&turn.messages[1].message).is_empty());
            questions.push(text_of(&turn.messages[0].message));
        }
        turns += questions.len();
        assert!(
            questions.iter().all(|it| told.asked.contains(it)),
            "only what was asked"
        );
        let different: HashSet<&String> = questions.iter().collect();
        assert_eq!(different.len(), questions.len(), "each once");
        // What was answered is there, in its order; what was not may be.
        let mut rest = questions.iter();
        for question in told.committed.get(&id.to_string()).into_iter().flatten() {
            assert!(
                rest.any(|it| it == question),
                "`{question}` was answered: {questions:?}"
            );
        }
    }

    let mine = LedgerFilter {
        project: Some(PROJECT.to_owned()),
        ..LedgerFilter::default()
    };
    let mut rows = Vec::new();
    let mut cursor = None;
    loop {
        let page = store.rows(&mine, cursor.as_deref(), 1000).await.unwrap();
        rows.extend(page.rows);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let answers: Vec<&String> = rows
        .iter()
        .filter(|row| row.outcome == "completed")
        .filter_map(|row| row.answer.as_ref())
        .collect();
    let different: HashSet<&String> = answers.iter().copied().collect();
    assert_eq!(different.len(), answers.len(), "no row twice");
    for answer in &told.answers {
        assert!(different.contains(answer), "an answer has its row");
    }
    let requests: HashSet<&String> = rows.iter().map(|row| &row.request).collect();
    assert_eq!(requests.len(), rows.len());

    let span = Span {
        spender: Spender::Project(PROJECT.to_owned()),
        from_day: None,
    };
    let tallies = store.tallies(&[span], 0).await.unwrap().remove(0);
    let cost: i128 = rows.iter().map(|row| i128::from(row.cost)).sum();
    assert!(cost > 0);
    assert_eq!(
        (tallies[0].spent, tallies[0].reserved),
        (cost, 0),
        "each row is spent once, and nothing is held back"
    );
    assert!(
        told.answers.len() >= kills * ANSWERS && turns >= told.answers.len(),
        "{kills} kills: {} answers, {turns} turns in {} contexts, {} rows",
        told.answers.len(),
        told.created.len(),
        rows.len()
    );
}

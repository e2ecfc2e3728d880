//! A new process in the place of an old one: nothing is refused, and streams finish.

use std::time::Duration;

use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::{Emulator, Fault};
use holdfast_testkit::TestClient;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::Command;

use crate::process::{KEY, Process, config};
use crate::say;

/// Opens a listening socket as a service manager does, and becomes the program that its arguments name.
const SERVICE_MANAGER: &str = "
import os, socket, sys
listener = socket.socket()
listener.bind(('127.0.0.1', 0))
listener.listen(64)
if listener.fileno() != 3:
    os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ['LISTEN_FDS'] = '1'
os.environ['LISTEN_PID'] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
";

/// How long what must come may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "key-one").unwrap();
    folder
}

fn request(client: &TestClient, stream: bool) -> reqwest::RequestBuilder {
    let body = json!({"model": "m", "messages": [say("user", "hi")], "stream": stream});
    client
        .request(reqwest::Method::POST, "/v1/chat/completions")
        .json(&body)
}

#[tokio::test]
async fn a_second_process_takes_over_while_the_firsts_streams_finish() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text = config(&emulator.url, "key", &["m"]);
    let text = format!("{text}\n[server]\nreuse_port = true\n");
    let first = Process::start_in(folder(), &text, |_| {}).await;
    let address = first.url.strip_prefix("http://").unwrap().to_owned();
    emulator
        .faults()
        .next(Fault::SlowDrip(Duration::from_millis(150)));
    let mut running = request(&first.client(), true).send().await.unwrap();
    running.chunk().await.unwrap().unwrap();

    let second = Process::start_in(folder(), &text, |command| {
        command.env("HOLDFAST_LISTEN", &address);
    })
    .await;
    assert_eq!(second.url, first.url);
    first.signal("TERM").await;
    first.logs("no more connections are accepted").await;
    for _ in 0..20 {
        // Each on a connection of its own.
        let client = TestClient::new(&second.url, Some(KEY.to_owned()));
        let answer = request(&client, false).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let rest = running.text().await.unwrap();
    assert!(rest.trim_end().ends_with("data: [DONE]"), "{rest}");
    assert_eq!(first.ended().await, 0);
}

#[tokio::test]
async fn a_port_is_shared_only_if_both_say_so() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text = config(&emulator.url, "key", &["m"]);
    let first = Process::start_in(folder(), &text, |_| {}).await;
    let address = first.url.strip_prefix("http://").unwrap();
    let arguments = ["serve", "--listen", address];
    let text = format!("{text}\n[server]\nreuse_port = true\n");
    let output = Process::run_alone(&folder(), &text, &arguments).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[tokio::test]
async fn a_stream_is_cut_off_when_the_drain_time_is_over() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text = config(&emulator.url, "key", &["m"]);
    let text = format!("{text}\n[server]\ndrain_seconds = 1\n");
    let process = Process::start_in(folder(), &text, |_| {}).await;
    emulator.faults().next(Fault::StallAfter(2));
    let mut running = request(&process.client(), true).send().await.unwrap();
    running.chunk().await.unwrap().unwrap();
    process.signal("TERM").await;
    assert_eq!(process.ended().await, 0);
    let rest = running.text().await;
    assert!(rest.is_err(), "{rest:?}");
}

#[tokio::test]
async fn a_service_managers_socket_is_used_and_it_is_told_when_all_is_ready() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text = config(&emulator.url, "key", &["m"]);
    let folder = folder();
    let path = folder.path().join("notify");
    let told = UnixDatagram::bind(&path).unwrap();
    let process = Process::start_in(folder, &text, |command| {
        let program = command.as_std();
        let mut managed = Command::new("python3");
        managed
            .args(["-c", SERVICE_MANAGER])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(program.get_current_dir().unwrap())
            .env_clear()
            .env("NOTIFY_SOCKET", &path)
            .kill_on_drop(true);
        for (name, value) in program.get_envs() {
            managed.env(name, value.unwrap());
        }
        *command = managed;
    })
    .await;
    let next = async || {
        let mut message = [0; 64];
        let received = tokio::time::timeout(PATIENCE, told.recv(&mut message)).await;
        let length = received.unwrap().unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    assert_eq!(next().await, "READY=1");
    let answer = request(&process.client(), false).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    process.signal("TERM").await;
    assert_eq!(next().await, "STOPPING=1");
    assert_eq!(process.ended().await, 0);
}

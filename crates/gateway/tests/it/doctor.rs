//! `holdfast doctor` and `holdfast health`, as the processes that they are.

use std::collections::BTreeMap;

use holdfast_emulators::Emulator;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_testkit::RedisServer;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, config};

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "key-one").unwrap();
    folder
}

/// The verdict and the detail of each check.
async fn examine(folder: &TempDir, config: &str) -> (bool, BTreeMap<String, (String, String)>) {
    let output = Process::run_alone(folder, config, &["doctor", "--json"]).await;
    let checks: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let told = checks.iter().map(|check| {
        let told = (word(&check["verdict"]), word(&check["detail"]));
        (word(&check["check"]), told)
    });
    (output.status.success(), told.collect())
}

#[tokio::test]
async fn what_a_server_needs_is_looked_at() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let folder = folder();
    let (is_sound, checks) = examine(&folder, &config(&emulator.url, "key", &["m"])).await;
    assert!(is_sound, "{checks:?}");
    let (verdict, detail) = &checks["upstream"];
    assert_eq!(verdict, "ok");
    assert!(detail.contains("answers"), "{detail}");
    assert_eq!(checks["clock"].0, "ok");
    assert!(checks["disk"].1.contains("free"), "{checks:?}");
    let asked = emulator.requests();
    assert!(asked.iter().all(|request| request.method == "GET"));
    assert_eq!(asked[0].path, "/v1/models");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_told() {
    let folder = folder();
    let (is_sound, checks) = examine(&folder, &config("http://127.0.0.1:9", "key", &["m"])).await;
    assert!(!is_sound);
    let (verdict, detail) = &checks["upstream"];
    assert_eq!(verdict, "fail");
    assert!(detail.contains("can't be reached"), "{detail}");
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_a_warning_and_no_failure() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let folder = folder();
    let mut redis = RedisServer::start();
    let text = config(&emulator.url, "key", &["m"]);
    let text = format!("{text}\n[shared]\nurl = \"{}\"\n", redis.url());
    let (is_sound, checks) = examine(&folder, &text).await;
    assert!(is_sound, "{checks:?}");
    assert_eq!(checks["shared"].0, "ok");
    redis.stop();
    let (is_sound, checks) = examine(&folder, &text).await;
    assert!(is_sound, "{checks:?}");
    assert_eq!(checks["shared"].0, "warn", "{checks:?}");
}

#[tokio::test]
async fn health_is_told_by_the_exit_code() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text = config(&emulator.url, "key", &["m"]);
    let process = Process::start_in(folder(), &text, |_| {}).await;
    let output = process.run(&["health"]).await;
    assert!(output.status.success(), "{output:?}");
    let nowhere = ["health", "--url", "http://127.0.0.1:9"];
    let output = Process::run_alone(&folder(), &text, &nowhere).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[tokio::test]
async fn each_worker_of_a_fleet_is_asked_and_one_without_its_health_path_is_told() {
    let (well, unwell) = (
        Emulator::start(Compatible::vllm()).await,
        Emulator::start(Compatible::openai_compatible()).await,
    );
    let text = format!(
        "[[upstreams]]\nname = \"u\"\nprovider = \"vllm\"\napi_key = \"file:key\"\n\
         workers = [\n{{ name = \"well\", url = \"{}/v1\" }},\n{{ name = \"unwell\", url = \"{}/v1\" }},\n\
         {{ name = \"gone\", url = \"http://127.0.0.1:9/v1\" }},\n]\n\
         [[models]]\nname = \"m\"\nroute = [\"u\"]\nwindow_tokens = 100000\n",
        well.url, unwell.url
    );
    let output = Process::run_alone(&folder(), &text, &["doctor", "--json"]).await;
    let checks: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let told = |worker: &str| {
        let worker = format!("worker {worker}:");
        let mut checks = checks.iter();
        let check = checks.find(|check| check["detail"].as_str().unwrap().contains(&worker));
        let check = check.unwrap_or_else(|| panic!("{worker} {output:?}"));
        (
            check["verdict"].as_str().unwrap().to_owned(),
            check["detail"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(told("well").0, "ok");
    let (verdict, detail) = told("unwell");
    assert_eq!(verdict, "fail");
    assert!(detail.contains("/health that it is well"), "{detail}");
    let (verdict, detail) = told("gone");
    assert_eq!(verdict, "fail");
    assert!(detail.contains("can't be reached"), "{detail}");
    assert!(!output.status.success());
}

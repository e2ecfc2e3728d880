//! What the operator does with workers: draining by configuration and by call, reloads.

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::process::Process;

#[tokio::test]
async fn a_drained_worker_finishes_what_it_has_and_gets_nothing_new() {
    let scene = Scene::new(|_| {}).await;
    let context = hold(&scene.client, "m", &document(200, "d"), json!({})).await;
    let own = scene.ask(&context).await;
    let path = format!("{UPSTREAMS}/vllm/workers/w{own}");
    let faults = scene.workers[own].as_ref().unwrap().faults();
    faults.next(Fault::SlowDrip(Duration::from_millis(100)));
    let running = tokio::spawn({
        let (client, context) = (scene.client.clone(), context.clone());
        async move { ask(&client, &context, "Take your time.").await }
    });
    let name = format!("w{own}");
    until_worker(&scene.client, "vllm", &name, |worker| {
        worker["in_flight"] == 1
    })
    .await;

    let drained = scene
        .client
        .post(&format!("{path}/drain"), &json!({}))
        .await
        .ok();
    assert_eq!(drained["state"], "draining");
    assert_ne!(scene.ask(&context).await, own);
    running.await.unwrap().ok();
    let metrics = metric(&scene.client, "holdfast_upstream_worker_draining").await;
    assert_eq!(metrics, 1.0);

    let back = scene
        .client
        .post(&format!("{path}/undrain"), &json!({}))
        .await
        .ok();
    assert_eq!(back["state"], "healthy");
    assert_eq!(scene.ask(&context).await, own);
    let again = ask(&scene.client, &context, "Warm?").await;
    assert_eq!(outcome(&again).0, "hit", "it has kept its cache");
}

#[tokio::test]
async fn a_fleet_that_drains_altogether_says_so() {
    let scene = Scene::new(|options| {
        for worker in &mut options.pool.as_mut().unwrap().workers {
            worker.draining = true;
        }
    })
    .await;
    let body = json!({"model": "m", "messages": [say("user", "Hello?")]});
    let refused = scene
        .client
        .post("/v1/chat/completions", &body)
        .await
        .error(503);
    let message = refused["message"].as_str().unwrap().to_owned();
    assert!(message.contains("drained"), "{message}");
    // A call wins over the configuration.
    let path = format!("{UPSTREAMS}/vllm/workers/w1/undrain");
    scene.client.post(&path, &json!({})).await.ok();
    scene.client.post("/v1/chat/completions", &body).await.ok();
    assert_eq!(scene.counts(), [0, 1, 0]);
}

#[tokio::test]
async fn workers_that_are_not_there_are_not_found_and_only_the_operator_looks() {
    let scene = Scene::new(|_| {}).await;
    for path in ["vllm/workers/w9", "none/workers/w0"] {
        let path = format!("{UPSTREAMS}/{path}/drain");
        let error = scene.client.post(&path, &json!({})).await.error(404);
        assert!(error["message"].is_string(), "{error}");
    }
    let stranger = scene
        .gateway
        .client_of("other", &[KeyScope::Inference])
        .await;
    stranger.get(UPSTREAMS).await.error(403);
    let list = scene.client.get(UPSTREAMS).await.ok();
    let first = &list["data"][0]["workers"][0];
    assert_eq!(first["url"], urls(&scene.workers)[0]);
    assert_eq!(first["weight"], 1.0);
    assert!(!list.to_string().contains("key-1"), "{list}");
}

/// A configuration with the model `m` on these workers.
fn config(workers: &[Option<Emulator>]) -> String {
    let mut text = "[[upstreams]]\nname = \"u\"\nprovider = \"vllm\"\n".to_owned();
    text.push_str("pool = { health_interval_ms = 50 }\n");
    for (number, url) in urls(workers).iter().enumerate() {
        text.push_str(&format!(
            "[[upstreams.workers]]\nname = \"w{number}\"\nurl = \"{url}\"\n"
        ));
    }
    text + "[[models]]\nname = \"m\"\nroute = [\"u\"]\nwindow_tokens = 100000\n"
}

#[tokio::test]
async fn a_reload_adds_a_worker_and_keeps_what_is_known_of_the_others() {
    let workers = vllms(3).await;
    let folder: TempDir = tempfile::tempdir().unwrap();
    let process = Process::start_in(folder, &config(&workers[..2]), |_| {}).await;
    let client = process.client();
    for worker in workers.iter().flatten() {
        worker.faults().next(Fault::StallAfter(1));
    }
    let running = tokio::spawn({
        let client = client.clone();
        let body = json!({"model": "m", "messages": [say("user", "Stay.")]});
        async move { client.post("/v1/chat/completions", &body).await }
    });
    let busy = async {
        loop {
            for name in ["w0", "w1"] {
                if worker(&client, "u", name).await["in_flight"] == 1 {
                    return name;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let busy = tokio::time::timeout(PATIENCE, busy).await.unwrap();
    let drain = format!("{UPSTREAMS}/u/workers/{busy}/drain");
    client.post(&drain, &json!({})).await.ok();

    process.write_config(&config(&workers));
    let path = "/admin/v1/config/reload";
    let reloaded = client.post(path, &json!({})).await.ok();
    assert_eq!(reloaded["needs_restart"], json!([]));
    let kept = worker(&client, "u", busy).await;
    assert_eq!(kept["in_flight"], 1, "{kept}");
    assert_eq!(kept["state"], "draining", "{kept}");
    until_worker(&client, "u", "w2", |worker| worker["state"] == "healthy").await;
    running.abort();
    until_worker(&client, "u", busy, |worker| worker["in_flight"] == 0).await;

    process.write_config(&config(&workers[..1]));
    client.post(path, &json!({})).await.ok();
    let list = client.get(UPSTREAMS).await.ok();
    assert_eq!(list["data"][0]["workers"].as_array().unwrap().len(), 1);
}

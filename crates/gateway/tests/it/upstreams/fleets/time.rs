//! What lasts: over restarts, over pings, and while a worker is left alone.

use super::*;

/// A little less than what an entry's lifetime counts for, where the provider names none.
const BEFORE_ITS_END: Duration = Duration::from_secs(280);

#[tokio::test]
async fn a_restart_changes_nothing() {
    let workers = vllms(4).await;
    let folder = tempfile::tempdir().unwrap();
    let start = async || {
        let urls = urls(&workers);
        let gateway = TestGateway::builder()
            .data_dir(folder.path())
            .upstream(fleet("vllm", urls.iter().map(String::as_str), "key-1"))
            .route("m", &[("vllm", "model")])
            .start()
            .await;
        gateway.clock.follow_system();
        gateway
    };
    let counts = || -> Vec<usize> {
        let workers = workers.iter().flatten();
        workers
            .map(|worker| chats(worker, "/chat/completions"))
            .collect()
    };
    let before = start().await;
    let mut homes = Vec::new();
    for number in 0..6 {
        let text = document(100, &format!("number {number}"));
        let fields = json!({"mode": "session"});
        let context = hold(&before.client(), "m", &text, fields).await;
        let asked = counts();
        ask(&before.client(), &context, "And?").await.ok();
        let now = counts();
        homes.push((context, (0..4).find(|at| now[*at] > asked[*at]).unwrap()));
    }
    before.stop().await;
    let after = start().await;
    for (context, home) in homes {
        let asked = counts();
        let reply = ask(&after.client(), &context, "And now?").await;
        assert_eq!(outcome(&reply).0, "hit", "read from the database");
        assert_eq!(counts()[home], asked[home] + 1);
    }
}

#[tokio::test]
async fn a_context_is_prepared_and_kept_warm_where_it_belongs() {
    let scene = Scene::new(|_| {}).await;
    let fields = json!({"warm": "prewarm", "keep_warm": "always", "ttl": 3600});
    let context = hold(&scene.client, "m", &document(200, "d"), fields).await;
    let prepared = scene.counts();
    assert_eq!(prepared.iter().sum::<usize>(), 1);
    let own = prepared.iter().position(|count| *count == 1).unwrap();
    let first = ask(&scene.client, &context, "Warm already?").await;
    assert_eq!(outcome(&first).0, "hit");
    assert_eq!(scene.counts()[own], 2);

    scene.gateway.clock.advance(BEFORE_ITS_END);
    scene.gateway.app.tend_upstreams().await;
    assert_eq!(scene.counts()[own], 3, "a ping");
    assert_eq!(
        scene.counts().iter().sum::<usize>(),
        3,
        "and none elsewhere"
    );

    let path = format!("{UPSTREAMS}/vllm/workers/w{own}/drain");
    scene.client.post(&path, &json!({})).await.ok();
    scene.gateway.clock.advance(BEFORE_ITS_END);
    scene.gateway.app.tend_upstreams().await;
    assert_eq!(
        scene.counts().iter().sum::<usize>(),
        3,
        "it gets nothing new"
    );
}

#[tokio::test]
async fn a_worker_whose_requests_fail_is_left_alone_whatever_it_says_of_itself() {
    let scene = Scene::new(|options| {
        options.retry.breaker_failures = 2;
        options.retry.breaker_open = Duration::from_secs(3600);
    })
    .await;
    let context = hold(&scene.client, "m", &document(200, "d"), json!({})).await;
    let own = scene.ask(&context).await;
    let faults = scene.workers[own].as_ref().unwrap().faults();
    faults.always(Fault::Status(500, None));
    for _ in 0..2 {
        ask(&scene.client, &context, "And?").await.ok();
    }
    let name = format!("w{own}");
    assert_eq!(
        worker(&scene.client, "vllm", &name).await["state"],
        "unhealthy"
    );
    let asked = scene.counts()[own];
    ask(&scene.client, &context, "And?").await.ok();
    assert_eq!(scene.counts()[own], asked);
}

#[tokio::test]
async fn a_worker_that_batches_well_keeps_a_context_that_is_asked_twice_at_once() {
    let scene = Scene::new(|options| {
        options.pool.as_mut().unwrap().load_min = 8;
    })
    .await;
    let context = hold(&scene.client, "m", &document(200, "d"), json!({})).await;
    let own = scene.ask(&context).await;
    let slow = Fault::SlowStart(Duration::from_millis(300));
    scene.workers[own].as_ref().unwrap().faults().always(slow);
    let asked = (0..8).map(|_| ask(&scene.client, &context, "All at once"));
    for reply in join_all(asked).await {
        assert_eq!(outcome(&reply).0, "hit");
    }
    assert_eq!(scene.counts()[own], 9);
}

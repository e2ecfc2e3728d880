#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use holdfast_protocol::context::OnTooSmall;
use holdfast_protocol::provider;
use holdfast_protocol::upstream::{Failure, FailureKind};

use super::worker::{Turn, WorkerState};
use super::*;
use crate::app::{
    Credentials, Isolation, PoolOptions, RetryPolicy, Timeouts, WorkerOptions, system_clock,
};

fn options(workers: &[(&str, f64)]) -> UpstreamOptions {
    let provider = provider::by_name("vllm").unwrap();
    let workers = workers.iter().map(|(name, weight)| WorkerOptions {
        name: (*name).to_owned(),
        weight: *weight,
        ..WorkerOptions::at(&format!("http://{name}.invalid:8000/v1"))
    });
    UpstreamOptions {
        name: "u".to_owned(),
        provider,
        dialect: provider.dialect,
        base_url: String::new(),
        pool: Some(PoolOptions::new(workers.collect())),
        query: String::new(),
        region: String::new(),
        project: String::new(),
        credentials: Credentials::None,
        headers: Vec::new(),
        timeouts: Timeouts::default(),
        retry: RetryPolicy {
            breaker_failures: 1,
            ..RetryPolicy::default()
        },
        isolation: Isolation::Project,
        cache: Default::default(),
        raw: None,
        concurrency_max: 8,
        on_too_small: OnTooSmall::Error,
    }
}

fn pool(options: &UpstreamOptions, before: Option<(&UpstreamOptions, &Pool)>) -> Arc<Pool> {
    Pool::new(options, &system_clock(), before).unwrap()
}

fn key(number: u8) -> Key {
    Key::Prefix([number; 32])
}

fn fail(pool: &Pool, index: usize) {
    let failure = Failure::new(FailureKind::Connection, "");
    pool.members[index].worker.breaker.failed(&failure);
}

#[tokio::test]
async fn those_that_fail_or_drain_get_nothing_and_the_rest_share_it() {
    let pool = pool(&options(&[("a", 1.0), ("b", 1.0), ("c", 1.0)]), None);
    fail(&pool, 0);
    pool.members[1].drain(true);
    for number in 0..20 {
        let (seat, _) = pool.seat(&key(number), &[]).unwrap();
        assert_eq!(seat.worker.name, "c");
    }
    assert_eq!(
        pool.members[2].worker.in_flight(),
        0,
        "seats are given back"
    );
    assert!(matches!(pool.seat(&key(0), &[2]), Err(Unseated::Closed(_))));
    pool.members[0].drain(true);
    pool.members[2].drain(true);
    assert!(matches!(pool.seat(&key(0), &[]), Err(Unseated::Draining)));
    assert!(!pool.is_down(), "by the operator's wish it is not down");
}

#[tokio::test(start_paused = true)]
async fn one_request_at_a_time_tries_a_worker_again_and_the_others_go_on() {
    let options = options(&[("a", 1.0), ("b", 1.0)]);
    let pool = pool(&options, None);
    let own = (0..).find(|number| {
        let (seat, _) = pool.seat(&key(*number), &[]).unwrap();
        seat.index == 0
    });
    let own = key(own.unwrap());
    fail(&pool, 0);
    assert_eq!(pool.seat(&own, &[]).unwrap().0.index, 1);
    tokio::time::advance(options.retry.breaker_open).await;
    assert_eq!(pool.seat(&own, &[]).unwrap().0.index, 0, "this one tries");
    assert_eq!(pool.seat(&own, &[]).unwrap().0.index, 1);
}

#[tokio::test]
async fn a_reload_keeps_workers_and_what_is_known_of_them() {
    let before_options = options(&[("a", 1.0), ("b", 1.0)]);
    let before = pool(&before_options, None);
    before.members[0].drain(true);
    let running = before.seat(&Key::Any, &[]).unwrap();
    assert_eq!(running.0.worker.name, "b");

    let more_options = options(&[("c", 1.0), ("b", 4.0), ("a", 1.0)]);
    let more = pool(&more_options, Some((&before_options, &before)));
    let member = |name: &str| more.member(name).unwrap();
    assert!(Arc::ptr_eq(&member("b").worker, &before.members[1].worker));
    assert_eq!(member("b").worker.in_flight(), 1);
    assert!(member("a").is_draining());
    assert!(!member("c").is_draining());

    // Other settings make another worker, with the same count and orders.
    let mut other_options = options(&[("a", 1.0), ("b", 1.0)]);
    other_options.concurrency_max = 9;
    let other = pool(&other_options, Some((&more_options, &more)));
    let member = |name: &str| other.member(name).unwrap();
    assert!(!Arc::ptr_eq(&member("b").worker, &before.members[1].worker));
    assert_eq!(member("b").worker.in_flight(), 1);
    assert!(member("a").is_draining());
    drop(running);
    assert_eq!(member("b").worker.in_flight(), 0);
}

#[tokio::test]
async fn the_upstream_goes_down_with_its_last_worker_and_is_told_once() {
    let before_options = options(&[("a", 1.0), ("b", 1.0)]);
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let watch = |pool: &Arc<Pool>| {
        let told = Arc::clone(&told);
        pool.watch(Box::new(move |change| {
            told.lock().unwrap().push(match change {
                Change::Pool { is_down } => format!("pool {is_down}"),
                Change::Worker { name, is_down } => format!("{name} {is_down}"),
            });
        }));
    };
    let before = pool(&before_options, None);
    watch(&before);
    fail(&before, 0);
    fail(&before, 1);
    // The watch goes over to whoever takes its workers.
    let after_options = options(&[("a", 1.0), ("b", 2.0)]);
    let after = pool(&after_options, Some((&before_options, &before)));
    watch(&after);
    drop(before);
    assert!(after.is_down());
    after.members[1].worker.breaker.succeeded();
    let told = told.lock().unwrap();
    assert_eq!(
        *told,
        ["a true", "b true", "pool true", "b false", "pool false"]
    );
}

#[test]
fn only_so_many_checks_in_a_row_change_anything() {
    let state = WorkerState::default();
    let health = HealthOptions {
        healthy_after: 2,
        unhealthy_after: 3,
        ..HealthOptions::default()
    };
    let checked = |is_well| state.checked(is_well, &health);
    for is_well in [false, false, true, false, false] {
        assert_eq!(checked(is_well), None);
    }
    assert_eq!(checked(false), Some(Turn::Down));
    for is_well in [true, false, true] {
        assert_eq!(checked(is_well), None);
    }
    assert!(state.is_down());
    assert_eq!(checked(true), Some(Turn::Up));
}

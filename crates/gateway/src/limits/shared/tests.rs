#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Instant;

use holdfast_store::LimitSettings;
use holdfast_testkit::RedisServer;
use proptest::prelude::*;

use super::*;
use crate::events::Events;
use crate::shared::SharedOptions;

async fn limiter(redis: &RedisServer, running_ms: u64) -> SharedLimiter {
    let events = Arc::new(Events::new(None, None));
    let shared = Shared::new(&SharedOptions::new(redis.url()), events).unwrap();
    let mut limiter = SharedLimiter::new(Arc::new(shared));
    limiter.running_ms = running_ms;
    limiter.connect().await;
    assert!(limiter.shared.is_up());
    limiter
}

fn bound(requests: Option<u64>, tokens: Option<u64>, running: Option<u64>) -> Bound {
    Bound {
        subject: Subject::Project("p".to_owned()),
        limits: LimitSettings {
            requests_per_minute: requests,
            tokens_per_minute: tokens,
            concurrent_requests: running,
            ..LimitSettings::default()
        },
    }
}

const BEGINS: Change = Change {
    requests: 1,
    tokens: 0,
    running: 1,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_had_running_is_given_back() {
    let redis = RedisServer::start();
    let wanted = [(bound(None, None, Some(1)), BEGINS)];
    let killed = limiter(&redis, 2_000).await;
    let taken = killed.take(Tag(1), &wanted, 0).await.unwrap();
    assert_eq!(taken.place, Place::Shared);
    drop(killed);
    let other = limiter(&redis, 2_000).await;
    let refused = other.take(Tag(2), &wanted, 0).await.map(drop).unwrap_err();
    assert_eq!(refused.refusal.what, What::Running);
    let given_back = async {
        while other.take(Tag(2), &wanted, 0).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), given_back).await;
    waited.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_lasts_is_said_to_run_again_and_again() {
    let redis = RedisServer::start();
    let limiter = limiter(&redis, 60_000).await;
    let wanted = [(bound(None, None, Some(5)), BEGINS)];
    limiter.take(Tag(1), &wanted, 0).await.unwrap();
    limiter.take(Tag(2), &wanted, 0).await.unwrap();
    let ends = |tag: Tag| {
        let answer = redis.ask(&format!("ZSCORE holdfast:running:project:p {}", name(tag)));
        answer
            .lines()
            .nth(1)
            .and_then(|end| end.parse::<i64>().ok())
    };
    let before = ends(Tag(1)).unwrap();
    let ended = Change {
        running: -1,
        ..Change::default()
    };
    limiter.adjust(Place::Shared, Tag(2), &[(wanted[0].0.clone(), ended)], 0);
    let later = async {
        while ends(Tag(1)).unwrap() <= before {
            tokio::time::sleep(Duration::from_millis(2)).await;
            limiter.renew().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), later)
        .await
        .unwrap();
    // What has ended is not brought back.
    let limiter = Arc::new(limiter);
    let stopping = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&limiter).run(stopping.clone()));
    let gone = async {
        while ends(Tag(2)).is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .unwrap();
    limiter.renew().await;
    assert_eq!(ends(Tag(2)), None);
    stopping.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_client_leaves_while_it_is_counted_does_not_run() {
    let redis = RedisServer::start();
    let limiter = Arc::new(limiter(&redis, 60_000).await);
    let stopping = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&limiter).run(stopping.clone()));
    let wanted = [(bound(None, None, Some(1)), BEGINS)];
    for tag in 0..50 {
        // As far as the question, and no further.
        let take = limiter.take(Tag(tag), &wanted, 0);
        let patience = Duration::from_micros(u64::try_from(tag).unwrap() * 10);
        let Ok(Ok(_)) = tokio::time::timeout(patience, take).await else {
            continue;
        };
        let ended = Change {
            running: -1,
            ..Change::default()
        };
        limiter.adjust(Place::Shared, Tag(tag), &[(wanted[0].0.clone(), ended)], 0);
    }
    let free = async {
        while limiter.take(Tag(100), &wanted, 0).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), free)
        .await
        .unwrap();
    stopping.cancel();
    running.await.unwrap();
}

/// What happens to a subject: begin with so many tokens, end the oldest, or use so much more or less than reserved.
#[derive(Debug, Clone)]
enum Step {
    Begin(i64),
    End,
    Use(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_i64..14).prop_map(Step::Begin),
        2 => Just(Step::End),
        1 => (-6_i64..6).prop_map(Step::Use),
    ]
}

#[test]
fn redis_decides_as_this_process_does() {
    let redis = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let shared = runtime.block_on(limiter(&redis, 60_000));
    let case = std::cell::Cell::new(0_u32);
    let steps = proptest::collection::vec(step(), 1..40);
    proptest!(ProptestConfig::with_cases(60), |(steps in steps)| {
        case.set(case.get() + 1);
        let began = Instant::now();
        let local = LocalLimiter::default();
        let mut bound = bound(Some(6), Some(12), Some(3));
        bound.subject = Subject::Key(format!("case-{}", case.get()));
        let (mut running, mut next) = (Vec::new(), 0_u128);
        for step in &steps {
            runtime.block_on(async {
                match step {
                    Step::Begin(tokens) => {
                        next += 1;
                        let change = Change { tokens: *tokens, ..BEGINS };
                        let wanted = [(bound.clone(), change)];
                        let there = shared.take_shared(Tag(next), &wanted).await.unwrap();
                        let here = local.take_share(&wanted, 1, 0);
                        // Redis has a clock of its own; until one whole request or token has run off, it is no matter.
                        if began.elapsed() < Duration::from_secs(4) {
                            let verdict = |result: &Result<Quotas, Refused>| {
                                result.as_ref().map(|_| ()).map_err(|refused| {
                                    let refusal = &refused.refusal;
                                    (refusal.what, refusal.limit, refusal.retry_after.is_none())
                                })
                            };
                            assert_eq!(verdict(&there), verdict(&here));
                        }
                        if there.is_ok() {
                            running.push(Tag(next));
                        }
                    }
                    Step::End if running.is_empty() => {}
                    Step::End => {
                        let ended = Change { running: -1, ..Change::default() };
                        let changes = [(bound.clone(), ended)];
                        shared.ask("adjust", running.remove(0), &changes).await.unwrap();
                        local.adjust(Place::Here, Tag(0), &changes, 0);
                    }
                    Step::Use(tokens) => {
                        let change = Change { tokens: *tokens, ..Change::default() };
                        let changes = [(bound.clone(), change)];
                        shared.ask("adjust", Tag(0), &changes).await.unwrap();
                        local.adjust(Place::Here, Tag(0), &changes, 0);
                    }
                }
            });
        }
    });
}

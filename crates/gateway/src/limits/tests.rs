#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use holdfast_protocol::{ApiError, ErrorKind};
use proptest::prelude::*;

use super::*;

const TAG: Tag = Tag(7);

fn bound(name: &str, requests: Option<u64>, tokens: Option<u64>, running: Option<u64>) -> Bound {
    Bound {
        subject: Subject::Key(name.to_owned()),
        limits: LimitSettings {
            requests_per_minute: requests,
            tokens_per_minute: tokens,
            concurrent_requests: running,
            ..LimitSettings::default()
        },
    }
}

const REQUEST: Change = Change {
    requests: 1,
    tokens: 0,
    running: 1,
};

const END: Change = Change {
    requests: 0,
    tokens: 0,
    running: -1,
};

fn tokens(tokens: i64) -> Change {
    Change {
        tokens,
        ..Change::default()
    }
}

/// What is left of a limit for requests.
async fn requests_left(limiter: &LocalLimiter, bound: &Bound, now: i64) -> Quota {
    let nothing = [(bound.clone(), Change::default())];
    let taken = limiter.take(TAG, &nothing, now).await.unwrap();
    taken.quotas.requests.unwrap()
}

#[tokio::test]
async fn what_was_used_runs_off_evenly() {
    let limiter = LocalLimiter::default();
    let key = bound("k", Some(3), None, None);
    let take = async |now| limiter.take(TAG, &[(key.clone(), REQUEST)], now).await;
    for _ in 0..3 {
        take(1000).await.unwrap();
    }
    let refused = take(1000).await.unwrap_err();
    assert_eq!(refused.refusal.retry_after, Some(Duration::from_secs(20)));
    assert_eq!(refused.quotas.requests.unwrap().remaining, 0);
    let left = requests_left(&limiter, &key, 1000).await;
    assert_eq!((left.limit, left.remaining), (3, 0));
    assert_eq!(left.reset, Duration::from_secs(60));

    take(20_999).await.unwrap_err();
    take(21_000).await.unwrap();
    take(21_000).await.unwrap_err();
    // A clock that is set back gives nothing.
    take(5).await.unwrap_err();
    let refused = take(21_001).await.unwrap_err();
    let wait = Duration::from_millis(19_999);
    assert_eq!(refused.refusal.retry_after, Some(wait));
}

#[tokio::test]
async fn all_of_it_is_counted_or_nothing() {
    let limiter = LocalLimiter::default();
    let wide = bound("wide", Some(100), None, None);
    let both = [
        (wide.clone(), REQUEST),
        (bound("narrow", Some(1), None, None), REQUEST),
    ];
    limiter.take(TAG, &both, 0).await.unwrap();
    limiter.take(TAG, &both, 0).await.unwrap_err();
    assert_eq!(requests_left(&limiter, &wide, 0).await.remaining, 99);
}

#[tokio::test]
async fn more_than_the_limit_fits_never_and_a_debt_runs_off() {
    let limiter = LocalLimiter::default();
    let key = bound("k", None, Some(600), None);
    let take = async |amount, now| {
        limiter
            .take(TAG, &[(key.clone(), tokens(amount))], now)
            .await
    };
    let give = |amount, now| {
        limiter.adjust(Place::Here, TAG, &[(key.clone(), tokens(amount))], now);
    };
    let never = take(601, 0).await.unwrap_err();
    assert_eq!(never.refusal.retry_after, None);
    let told = ApiError::from(never);
    assert_eq!(told.kind, ErrorKind::RateLimited);
    assert_eq!((told.should_retry, told.retry_after), (Some(false), None));

    take(600, 0).await.unwrap();
    // The answer was longer than what was reserved: ten a second run off.
    give(100, 0);
    let refused = take(50, 0).await.unwrap_err();
    assert_eq!(refused.refusal.retry_after, Some(Duration::from_secs(15)));
    take(50, 15_000).await.unwrap();
    // It was shorter: the rest is there at once.
    give(-600, 15_000);
    take(600, 15_000).await.unwrap();
}

#[tokio::test]
async fn a_share_of_a_limit_is_a_part_of_it_and_lets_what_fits_the_whole_in_at_last() {
    let limiter = LocalLimiter::default();
    let key = bound("k", Some(4), Some(100), Some(2));
    let take = |change, now| limiter.take_share(&[(key.clone(), change)], 2, now);
    take(REQUEST, 0).unwrap();
    assert_eq!(take(REQUEST, 0).unwrap_err().refusal.what, What::Running);
    limiter.adjust(Place::Here, TAG, &[(key.clone(), END)], 0);
    take(REQUEST, 0).unwrap();
    limiter.adjust(Place::Here, TAG, &[(key.clone(), END)], 0);
    assert_eq!(take(REQUEST, 0).unwrap_err().refusal.what, What::Requests);

    take(tokens(10), 0).unwrap();
    let refusal = take(tokens(80), 0).unwrap_err().refusal;
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(12)));
    take(tokens(80), 12_000).unwrap();
    assert_eq!(
        take(tokens(101), 12_000).unwrap_err().refusal.retry_after,
        None
    );
}

#[tokio::test]
async fn idle_subjects_are_forgotten() {
    let limiter = LocalLimiter::default();
    for number in 0..100_000_i64 {
        let key = bound(&number.to_string(), Some(5), None, None);
        let now = number * 100;
        let wanted = [(key.clone(), REQUEST)];
        limiter.take(TAG, &wanted, now).await.unwrap();
        limiter.adjust(Place::Here, TAG, &[(key, END)], now);
    }
    assert!(limiter.subjects() < 4096, "{}", limiter.subjects());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_at_once_get_exactly_what_there_is() {
    let limiter = Arc::new(LocalLimiter::default());
    let key = bound("k", Some(1000), Some(10_000), Some(40));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (limiter, key) = (Arc::clone(&limiter), key.clone());
            tokio::spawn(async move {
                let change = Change {
                    requests: 1,
                    tokens: 250,
                    running: 1,
                };
                limiter.take(TAG, &[(key, change)], 0).await.is_ok()
            })
        })
        .collect();
    let mut let_in = 0;
    for task in tasks {
        let_in += u64::from(task.await.unwrap());
    }
    assert_eq!(let_in, 40);
    assert_eq!(requests_left(&limiter, &key, 0).await.remaining, 960);
}

/// The limits of the configuration, over a clock that stands still.
fn rates(options: Options) -> RateLimits {
    RateLimits::new(Arc::new(LocalLimiter::default()), options, Arc::new(|| 0))
}

fn per_key(requests: u64) -> Options {
    Options {
        per_key: bound("", Some(requests), None, Some(2)).limits,
        ..Options::default()
    }
}

fn principal() -> Principal {
    Principal {
        project: "p".to_owned(),
        key_id: "k".to_owned(),
        scopes: Vec::new(),
        terms: Arc::default(),
    }
}

#[tokio::test]
async fn a_reload_changes_the_limits_and_keeps_what_was_counted() {
    let before = rates(per_key(3));
    let (first, _) = before.admit(&principal()).await.unwrap();
    let (_, quotas) = before.admit(&principal()).await.unwrap();
    assert_eq!(quotas.requests.unwrap().remaining, 1);

    let after = before.reloaded(per_key(5));
    let (_second, quotas) = after.admit(&principal()).await.unwrap();
    assert_eq!(quotas.requests.unwrap().remaining, 2);
    // What began before still runs.
    let refused = after.admit(&principal()).await.map(drop).unwrap_err();
    assert_eq!(refused.refusal.what, What::Running);
    drop(first);
    after.admit(&principal()).await.unwrap();
}

#[tokio::test]
async fn what_is_reserved_without_a_bound_by_the_client_always_fits_an_unused_limit() {
    let mut options = Options::default();
    options.per_project.tokens_per_minute = Some(1000);
    options.per_model = HashMap::from([("m".to_owned(), bound("", None, Some(900), None).limits)]);
    let rates = rates(options);
    let (counted, _) = rates.admit(&principal()).await.unwrap();
    let demand = |is_output_given| Demand {
        input: 100,
        output: 50_000,
        is_output_given,
    };
    let refused = rates.reserve(&counted, "m", demand(true)).await;
    assert_eq!(refused.map(drop).unwrap_err().refusal.retry_after, None);
    let (reservation, quotas) = rates.reserve(&counted, "m", demand(false)).await.unwrap();
    let left = |quotas: Quotas| {
        (
            quotas.tokens.unwrap().limit,
            quotas.tokens.unwrap().remaining,
        )
    };
    assert_eq!(left(quotas), (900, 0));
    // Twelve were used, of the model's and of the project's.
    reservation.settle(12);
    for (model, expected) in [("m", (900, 888)), ("other", (1000, 988))] {
        let (counted, _) = rates.admit(&principal()).await.unwrap();
        let demand = Demand::of_input(0);
        let (_, quotas) = rates.reserve(&counted, model, demand).await.unwrap();
        assert_eq!(left(quotas), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes when: within any minute no more than the limit and one burst of it gets in, and never more at the
    /// same time than may.
    #[test]
    fn no_minute_has_more_than_the_limit_and_a_burst(
        limit in 1_u64..50,
        running_max in 1_i64..5,
        steps in proptest::collection::vec((0_i64..5000, any::<bool>(), 1_i64..8), 1..400),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let limiter = LocalLimiter::default();
            let concurrent = u64::try_from(running_max).unwrap();
            let key = bound("k", Some(limit), Some(limit * 3), Some(concurrent));
            let (mut now, mut running) = (1_000_000_i64, 0);
            let mut let_in: Vec<(i64, i64)> = Vec::new();
            for (pause, ends, amount) in steps {
                now += pause;
                if ends && running > 0 {
                    running -= 1;
                    limiter.adjust(Place::Here, TAG, &[(key.clone(), END)], now);
                }
                let change = Change { tokens: amount, ..REQUEST };
                match limiter.take(TAG, &[(key.clone(), change)], now).await {
                    Ok(_) => {
                        running += 1;
                        let_in.push((now, amount));
                    }
                    // Who is told to come back later gets in then, if nobody else comes before.
                    Err(refused) if refused.refusal.what != What::Running => {
                        if let Some(wait) = refused.refusal.retry_after
                            && running < running_max
                        {
                            now += i64::try_from(wait.as_millis()).unwrap();
                            let again = limiter.take(TAG, &[(key.clone(), change)], now).await;
                            // The other of the two limits may still be in the way.
                            if again.is_ok() {
                                running += 1;
                                let_in.push((now, amount));
                            }
                        }
                    }
                    Err(_) => assert_eq!(running, running_max),
                }
                assert!(running <= running_max);
            }
            for (index, (begin, _)) in let_in.iter().enumerate() {
                let minute = || let_in[index..].iter().take_while(|(at, _)| at - begin < 60_000);
                assert!(minute().count() as u64 <= 2 * limit);
                let tokens: i64 = minute().map(|(_, amount)| amount).sum();
                assert!(tokens as u64 <= 6 * limit);
            }
            for _ in 0..running {
                limiter.adjust(Place::Here, TAG, &[(key.clone(), END)], now);
            }
            // All that ran has ended and all that was used has run off.
            now += 60_000;
            for _ in 0..running_max.min(i64::try_from(limit).unwrap()) {
                limiter.take(TAG, &[(key.clone(), REQUEST)], now).await.unwrap();
            }
        });
    }
}

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn admission(running_max: usize, waiting_max: usize) -> Arc<Admission> {
    Admission::new(AdmissionLimits {
        running_max,
        waiting_max,
        wait: Duration::from_secs(10),
    })
}

/// Sends a request into the line, and waits until it stands there.
async fn stands(
    admission: &Arc<Admission>,
    project: &'static str,
) -> tokio::task::JoinHandle<Result<Admitted, Shed>> {
    let (_, before) = admission.counts();
    let task = tokio::spawn({
        let admission = Arc::clone(admission);
        async move { admission.admit(project).await }
    });
    while admission.counts().1 == before && !task.is_finished() {
        tokio::task::yield_now().await;
    }
    task
}

#[tokio::test]
async fn as_many_run_as_may_and_as_many_wait() {
    let admission = admission(2, 1);
    let first = admission.admit("a").await.unwrap();
    let _second = admission.admit("a").await.unwrap();
    let third = stands(&admission, "a").await;
    assert_eq!(admission.counts(), (2, 1));
    assert_eq!(admission.admit("a").await.err(), Some(Shed::Full));
    drop(first);
    let third = third.await.unwrap().unwrap();
    assert_eq!(admission.counts(), (2, 0));
    drop(third);
    assert_eq!(admission.counts(), (1, 0));
}

#[tokio::test]
async fn the_project_that_takes_most_makes_room() {
    let admission = admission(2, 2);
    let running = [
        admission.admit("greedy").await.unwrap(),
        admission.admit("greedy").await.unwrap(),
    ];
    let older = stands(&admission, "greedy").await;
    let newer = stands(&admission, "greedy").await;
    let modest = tokio::spawn({
        let admission = Arc::clone(&admission);
        async move { admission.admit("modest").await }
    });
    assert_eq!(newer.await.unwrap().err(), Some(Shed::Displaced));
    // Nobody makes room for one that takes as much itself.
    assert_eq!(admission.admit("greedy").await.err(), Some(Shed::Full));
    drop(running);
    assert!(older.await.unwrap().is_ok());
    assert!(modest.await.unwrap().is_ok());
    assert_eq!(admission.counts(), (0, 0));
}

#[tokio::test]
async fn the_project_that_runs_least_is_next() {
    let admission = admission(2, 8);
    let a = admission.admit("a").await.unwrap();
    let b = admission.admit("b").await.unwrap();
    let first = stands(&admission, "a").await;
    let second = stands(&admission, "c").await;
    drop(b);
    let c = second.await.unwrap().unwrap();
    assert!(!first.is_finished(), "`a` runs already, `c` did not");
    drop(c);
    first.await.unwrap().unwrap();
    drop(a);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_is_allowed() {
    let admission = admission(1, 1);
    let _running = admission.admit("a").await.unwrap();
    assert_eq!(admission.admit("a").await.err(), Some(Shed::TooLong));
    assert_eq!(admission.counts(), (1, 0));
}

#[tokio::test]
async fn one_who_leaves_the_line_takes_no_place() {
    let admission = admission(1, 1);
    let running = admission.admit("a").await.unwrap();
    let gone = stands(&admission, "a").await;
    gone.abort();
    assert!(gone.await.is_err());
    let waits = stands(&admission, "a").await;
    assert_eq!(admission.counts(), (1, 1));
    drop(running);
    drop(waits.await.unwrap().unwrap());
    assert_eq!(admission.counts(), (0, 0));
}

#[tokio::test]
async fn a_raised_bound_lets_those_in_who_wait() {
    let admission = admission(1, 1);
    let _running = admission.admit("a").await.unwrap();
    let waits = stands(&admission, "a").await;
    admission.set_limits(AdmissionLimits {
        running_max: 2,
        waiting_max: 1,
        wait: Duration::from_secs(10),
    });
    let _second = waits.await.unwrap().unwrap();
    assert_eq!(admission.counts(), (2, 0));
}

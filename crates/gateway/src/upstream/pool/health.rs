//! Asks workers whether they are well, so that one that has died gets no requests, and one that is back gets them again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rand::RngExt;
use tokio_util::sync::CancellationToken;

use super::worker::Turn;
use super::{Change, HealthOptions, Pool, Worker};

/// The share of an interval by which checks are spread, so that those of many gateways and workers do not come together.
const JITTER: f64 = 0.1;

/// Checks the workers of these pools until `ended` is cancelled.
pub(crate) async fn check_until(pools: Vec<Arc<Pool>>, ended: CancellationToken) {
    let checks = pools.iter().flat_map(|pool| {
        let health = pool.health.as_ref();
        let workers = health.into_iter().flat_map(|health| {
            let members = pool.members.iter();
            members.map(move |member| check_worker(pool, &member.worker, health))
        });
        workers.collect::<Vec<_>>()
    });
    tokio::select! {
        () = ended.cancelled() => {}
        _ = join_all(checks) => {}
    }
}

async fn check_worker(pool: &Pool, worker: &Worker, health: &HealthOptions) {
    tokio::time::sleep(begin_after(health.interval)).await;
    loop {
        let is_well = worker
            .transport
            .is_well(&health_url(&worker.url, health), health.timeout)
            .await;
        if let Some(turn) = worker.state.checked(is_well, health) {
            if turn == Turn::Up {
                // Whatever its requests came to before: it has been away since.
                worker.breaker.succeeded();
            }
            pool.tell(Change::Worker {
                name: &worker.name,
                is_down: turn == Turn::Down,
            });
        }
        pool.reconsider();
        tokio::time::sleep(spread(health.interval)).await;
    }
}

/// The first checks are not all at once either.
fn begin_after(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.0..JITTER))
}

fn spread(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(1.0 - JITTER..=1.0 + JITTER))
}

/// Where the worker at `url` is asked.
pub(in crate::upstream) fn health_url(url: &str, health: &HealthOptions) -> String {
    let root = health.path.as_ref().and_then(|path| {
        let mut root = reqwest::Url::parse(url).ok()?;
        let (path, query) = path
            .split_once('?')
            .map_or((path.as_str(), None), |(path, query)| (path, Some(query)));
        root.set_path(path);
        root.set_query(query);
        Some(root.to_string())
    });
    root.unwrap_or_else(|| format!("{}/models", url.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_at_the_host_and_the_list_of_models_below_the_base_url() {
        let mut health = HealthOptions {
            path: Some("/health".to_owned()),
            ..HealthOptions::default()
        };
        let url = "http://127.0.0.1:8000/v1";
        assert_eq!(health_url(url, &health), "http://127.0.0.1:8000/health");
        health.path = Some("/health?deep=1".to_owned());
        assert_eq!(
            health_url(url, &health),
            "http://127.0.0.1:8000/health?deep=1"
        );
        health.path = None;
        assert_eq!(health_url(url, &health), "http://127.0.0.1:8000/v1/models");
    }
}

//! Upstreams of several servers: where these are, how they are checked, how evenly they are used.

use std::ops::RangeInclusive;

use holdfast_protocol::provider::{Provider, WorkerHealth};

use super::super::file::{Located, PoolTable, UpstreamTable, WorkerTable};
use super::super::problems::Problems;
use super::upstreams::{check_url, milliseconds};
use super::values::{Names, number};
use crate::app::{HealthOptions, PoolOptions, WorkerOptions};

/// Each is checked, and each has series in the metrics.
const WORKERS_MAX: usize = 1024;

const PATH_BYTES_MAX: usize = 256;

/// Weights further apart than this give the lightest nothing.
const WEIGHTS: RangeInclusive<f64> = 0.001..=1000.0;

const LOAD_FACTORS: RangeInclusive<f64> = 1.0..=100.0;

/// `None` for an upstream with one address.
pub(super) fn pool(
    table: &UpstreamTable,
    provider: &Provider,
    problems: &mut Problems,
) -> Option<PoolOptions> {
    let Some(tables) = &table.workers else {
        if let Some(pool) = &table.pool {
            problems.add_with_help(
                Some(pool.span()),
                "`pool` is about workers, and there are none",
                "list the servers as `[[upstreams.workers]]` in place of `base_url`, or leave it out",
            );
        }
        return None;
    };
    let Some(own_health) = provider.worker_health else {
        problems.add_with_help(
            Some(tables.span()),
            format!("{} is no server of your own: it has no `workers`", provider.title),
            "vllm, sglang, llama-server, ollama and openai-compatible have; several accounts of one provider are several upstreams",
        );
        return None;
    };
    if let Some(url) = &table.base_url {
        problems.add_with_help(
            Some(url.span()),
            "there are both `base_url` and `workers`",
            "list this one as a worker, too, or leave one of them out",
        );
    }
    for (key, value) in [("project", &table.project), ("resource", &table.resource)] {
        if let Some(value) = value {
            problems.add_with_help(
                Some(value.span()),
                format!("`{key}` has no meaning here: it is not part of a worker's URL"),
                "leave it out",
            );
        }
    }
    let default = PoolTable::default();
    let pool = table.pool.as_ref().map_or(&default, Located::get);
    Some(PoolOptions {
        workers: workers(tables, problems),
        load_factor: number(
            &pool.load_factor,
            "load_factor",
            LOAD_FACTORS,
            1.25,
            problems,
        ),
        load_min: number(&pool.load_min, "load_min", 1..=100_000, 1, problems),
        health: health(pool, own_health, problems),
    })
}

fn workers(tables: &Located<Vec<WorkerTable>>, problems: &mut Problems) -> Vec<WorkerOptions> {
    let written = tables.get();
    if written.is_empty() {
        problems.add_with_help(
            Some(tables.span()),
            "`workers` is empty",
            "add for example `{ url = \"http://10.0.0.1:8000/v1\" }`",
        );
    }
    if written.len() > WORKERS_MAX {
        problems.add(
            Some(tables.span()),
            format!("there are more than {WORKERS_MAX} workers"),
        );
    }
    let mut names = Names::default();
    written
        .iter()
        .filter_map(|table| worker(table, &mut names, problems))
        .collect()
}

/// `None` where its URL is missing or wrong, which has been reported.
fn worker(
    table: &WorkerTable,
    names: &mut Names,
    problems: &mut Problems,
) -> Option<WorkerOptions> {
    let url = table.url.as_ref()?;
    if let Err((message, help)) = check_url(url.get()) {
        problems.add_with_help(Some(url.span()), format!("`url`: {message}"), help);
        return None;
    }
    let like_its_address = WorkerOptions::at(url.get());
    let name = match &table.name {
        Some(name) => names.take(Some(name), "worker", problems),
        None => {
            let name = &like_its_address.name;
            if !names.free(name, Some(url.span())) {
                problems.add_with_help(
                    Some(url.span()),
                    format!("the worker name `{name}` is taken already"),
                    "give it a `name` of its own, if it is another server",
                );
            }
            name.clone()
        }
    };
    Some(WorkerOptions {
        name,
        weight: number(&table.weight, "weight", WEIGHTS, 1.0, problems),
        draining: table.draining.as_ref().is_some_and(|word| *word.get()),
        ..like_its_address
    })
}

fn health(table: &PoolTable, own: WorkerHealth, problems: &mut Problems) -> HealthOptions {
    let default = HealthOptions::default();
    let path = match (&table.health_path, own) {
        (Some(path), _) => Some(health_path(path, problems)),
        (None, WorkerHealth::Root(path)) => Some(path.to_owned()),
        (None, WorkerHealth::Models) => None,
    };
    HealthOptions {
        path,
        interval: milliseconds(
            &table.health_interval_ms,
            "health_interval_ms",
            3_600_000,
            default.interval,
            problems,
        ),
        timeout: milliseconds(
            &table.health_timeout_ms,
            "health_timeout_ms",
            600_000,
            default.timeout,
            problems,
        ),
        healthy_after: number(
            &table.healthy_after,
            "healthy_after",
            1..=100,
            default.healthy_after,
            problems,
        ),
        unhealthy_after: number(
            &table.unhealthy_after,
            "unhealthy_after",
            1..=100,
            default.unhealthy_after,
            problems,
        ),
    }
}

fn health_path(path: &Located<String>, problems: &mut Problems) -> String {
    let text = path.get();
    let is_sound = text.starts_with('/')
        && text.len() <= PATH_BYTES_MAX
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_sound {
        problems.add_with_help(
            Some(path.span()),
            "`health_path` is no path",
            "write it from the host on, such as `/healthz`",
        );
    }
    text.clone()
}

//! Metrics of the workers of fleets. Their labels are bounded by the configuration.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Events, clamp};
use crate::upstream::{Target, Upstreams, Worker};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabels {
    upstream: String,
    worker: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerResultLabels {
    upstream: String,
    worker: String,
    result: &'static str,
}

#[derive(Default)]
pub(super) struct Fleet {
    up: Family<WorkerLabels, Gauge>,
    draining: Family<WorkerLabels, Gauge>,
    in_flight: Family<WorkerLabels, Gauge>,
    requests: Family<WorkerResultLabels, Counter>,
    moved: Family<WorkerLabels, Counter>,
}

impl Fleet {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let fleet = Fleet::default();
        registry.register(
            "upstream_worker_up",
            "1 while a fleet's worker gets requests, 0 while it is left alone because it keeps failing",
            fleet.up.clone(),
        );
        registry.register(
            "upstream_worker_draining",
            "1 while a fleet's worker gets nothing new by the operator's wish",
            fleet.draining.clone(),
        );
        registry.register(
            "upstream_worker_requests_in_flight",
            "Requests under way at a fleet's worker",
            fleet.in_flight.clone(),
        );
        registry.register(
            "upstream_worker_requests",
            "Attempts at a fleet's worker",
            fleet.requests.clone(),
        );
        registry.register(
            "upstream_worker_requests_moved",
            "Requests that went to this worker because the one that their prefix belongs to had its bounded share",
            fleet.moved.clone(),
        );
        fleet
    }

    /// What is known only when somebody asks.
    pub(super) fn update(&self, upstreams: &Upstreams) {
        // Those that have left the configuration would else stay as they were.
        self.up.clear();
        self.draining.clear();
        self.in_flight.clear();
        for upstream in upstreams.iter().filter(|upstream| upstream.pool.is_fleet) {
            for member in &upstream.pool.members {
                let labels = labels(&upstream.options.name, &member.worker);
                self.up
                    .get_or_create(&labels)
                    .set(i64::from(!member.worker.is_down()));
                self.draining
                    .get_or_create(&labels)
                    .set(i64::from(member.is_draining()));
                self.in_flight
                    .get_or_create(&labels)
                    .set(clamp(member.worker.in_flight()));
            }
        }
    }
}

impl Events {
    /// A worker of a fleet has been asked, and has answered or not.
    pub(crate) fn worker_asked(&self, target: &Target, worker: &Worker, is_answered: bool) {
        if !target.upstream.pool.is_fleet {
            return;
        }
        let labels = WorkerResultLabels {
            upstream: target.name().to_owned(),
            worker: worker.name.clone(),
            result: if is_answered { "ok" } else { "failed" },
        };
        self.fleet.requests.get_or_create(&labels).inc();
    }

    /// A request goes to this worker because the one that it belongs to has its share.
    pub(crate) fn worker_passed_over(&self, target: &Target, worker: &Worker) {
        self.fleet
            .moved
            .get_or_create(&labels(target.name(), worker))
            .inc();
    }
}

fn labels(upstream: &str, worker: &Worker) -> WorkerLabels {
    WorkerLabels {
        upstream: upstream.to_owned(),
        worker: worker.name.clone(),
    }
}

//! Numbers of the embedded engines, read where they are asked for.

use std::sync::atomic::Ordering;

use holdfast_engine::EngineStatus;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{ModelLabels, clamp};
use crate::app::ModelSource;
use crate::routing::Models;

/// Takes one number out of an engine's status.
type ReadStatus = fn(&EngineStatus) -> u64;

#[derive(Default)]
pub(super) struct EngineMetrics {
    gauges: Vec<(Family<ModelLabels, Gauge>, ReadStatus)>,
    counters: Vec<(Family<ModelLabels, Counter>, ReadStatus)>,
}

impl EngineMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let mut metrics = EngineMetrics::default();
        metrics.gauge(
            registry,
            "engine_queued_requests",
            "Requests that wait",
            |status| status.queued.into(),
        );
        metrics.gauge(
            registry,
            "engine_running_requests",
            "Requests in the batch",
            |status| status.running.into(),
        );
        metrics.gauge(
            registry,
            "engine_kv_used_tokens",
            "Cells of the KV cache in use",
            |status| status.kv_tokens_used.into(),
        );
        metrics.gauge(
            registry,
            "engine_kv_size_tokens",
            "Cells of the KV cache",
            |status| status.kv_tokens_max.into(),
        );
        metrics.gauge(
            registry,
            "engine_pinned_prefixes",
            "Prefixes pinned by contexts",
            |status| status.pinned,
        );
        metrics.gauge(
            registry,
            "engine_state_ram_bytes",
            "Prefix state kept in memory",
            |status| status.ram_bytes,
        );
        metrics.gauge(
            registry,
            "engine_state_disk_bytes",
            "Prefix state kept on disk",
            |status| status.disk_bytes,
        );
        metrics.counter(
            registry,
            "engine_prefill_tokens",
            "Prompt tokens computed",
            |status| status.prefill_tokens_total,
        );
        metrics.counter(
            registry,
            "engine_decode_tokens",
            "Tokens generated",
            |status| status.decode_tokens_total,
        );
        metrics.counter(
            registry,
            "engine_restored_tokens",
            "Tokens restored from memory or disk",
            |status| status.restored_tokens_total,
        );
        metrics.counter(
            registry,
            "engine_cached_tokens",
            "Prompt tokens not computed again",
            |status| status.cached_tokens_total,
        );
        metrics.counter(
            registry,
            "engine_prefix_rebuilds",
            "Lost prefixes computed again",
            |status| status.rebuilds_total,
        );
        metrics.counter(
            registry,
            "engine_queue_full",
            "Requests refused by a full queue",
            |status| status.queue_full_total,
        );
        metrics
    }

    fn gauge(&mut self, registry: &mut Registry, name: &str, help: &str, read: ReadStatus) {
        let family = Family::default();
        registry.register(name, help, family.clone());
        self.gauges.push((family, read));
    }

    fn counter(&mut self, registry: &mut Registry, name: &str, help: &str, read: ReadStatus) {
        let family = Family::default();
        registry.register(name, help, family.clone());
        self.counters.push((family, read));
    }

    pub(super) fn update(&self, models: &Models) {
        for model in models.iter() {
            let ModelSource::Engine(engine) = &model.entry.source else {
                continue;
            };
            let status = engine.status();
            let labels = ModelLabels {
                model: model.entry.name.clone(),
            };
            for (family, read) in &self.gauges {
                family.get_or_create(&labels).set(clamp(read(&status)));
            }
            for (family, read) in &self.counters {
                family
                    .get_or_create(&labels)
                    .inner()
                    .store(read(&status), Ordering::Relaxed);
            }
        }
    }
}

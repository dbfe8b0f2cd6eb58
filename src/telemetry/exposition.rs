//! The Prometheus recorder and its text, without a listener of its own.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::telemetry::metrics::{self, Metrics};

/// Metrics, and what scrapes read of them. Clones share both.
#[derive(Clone)]
pub struct Exposition {
    handle: PrometheusHandle,
    metrics: Metrics,
}

/// How often histograms must be drained, or they grow.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(5);

impl Exposition {
    /// A recorder of the vocabulary.
    ///
    /// # Errors
    /// If the vocabulary's buckets are refused.
    pub fn new() -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new();
        for name in metrics::HISTOGRAMS {
            let matcher = Matcher::Full(name.to_owned());
            builder = builder.set_buckets_for_metric(matcher, metrics::LAG_BUCKETS)?;
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let metrics = Metrics::new(Arc::new(recorder));
        metrics
            .gauge(metrics::BUILD, &[("version", env!("CARGO_PKG_VERSION"))])
            .set(1.0);
        Ok(Self { handle, metrics })
    }

    /// The handles.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Drains histograms; call it every [`UPKEEP_EVERY`].
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

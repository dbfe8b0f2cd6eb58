//! What the health page and the metrics show of a budget.

use std::collections::BTreeMap;

use ::metrics::Gauge;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::model::name::ConnectionId;
use crate::telemetry::metrics::{self, Metrics};

use super::{Budget, Priority};

/// A budget as people read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BudgetPicture {
    /// Calls that are left of the day, for all who call the org; null until it told.
    pub left: Option<u64>,
    /// Of so many.
    pub limit: Option<u64>,
    /// So many of them are kept back for repair.
    pub reserve: Option<u64>,
    /// Calls made here since midnight UTC.
    pub spent: u32,
    /// When the calls end at the pace of the last hour; null if there will be new ones before.
    pub lasts_until: Option<DateTime<Utc>>,
    /// Work that waits until the day's window moves.
    pub held: Vec<&'static str>,
    /// The CRM asked to stay away until then.
    pub closed_until: Option<DateTime<Utc>>,
    /// Calls that wait for their turn.
    pub waiting: BTreeMap<&'static str, usize>,
    /// Calls that run.
    pub running: u32,
    /// What the CRM says is left of its short window, for one of its servers.
    pub burst_left: Option<u64>,
    /// Events that were delivered.
    pub deliveries: DeliveriesPicture,
}

/// Deliveries as people read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DeliveriesPicture {
    /// To this daemon in the last 24 hours, since its start at most.
    pub ours: u64,
    /// What is left of the org's allocation, for all its subscribers; null if it does not tell.
    pub left: Option<u64>,
    /// Of so many.
    pub limit: Option<u64>,
}

/// The gauges of a budget.
pub(super) struct Gauges {
    left: Gauge,
    lasts: Gauge,
    deliveries_left: Gauge,
    waiting: [(Priority, Gauge); 4],
}

/// The longest that calls are said to last: new ones come within a day.
const LONGEST: f64 = 86_400.0;

impl Gauges {
    pub fn new(connection: &ConnectionId, metrics: &Metrics) -> Self {
        let connection = connection.as_str();
        let labels = [("connection", connection)];
        let waiting = Priority::ALL.map(|priority| {
            let labels = [("connection", connection), ("queue", priority.label())];
            (priority, metrics.gauge(metrics::CRM_CALLS_WAITING, &labels))
        });
        Self {
            left: metrics.gauge(metrics::CRM_CALLS_LEFT, &labels),
            lasts: metrics.gauge(metrics::CRM_CALLS_LAST, &labels),
            deliveries_left: metrics.gauge(metrics::DELIVERIES_LEFT, &labels),
            waiting,
        }
    }
}

impl Budget {
    /// What it is now; the gauges show it, too.
    #[must_use]
    pub fn show(&self) -> BudgetPicture {
        let now = self.clock.now();
        let state = self.lock();
        let usage = state.day.usage(now);
        let mut waiting: BTreeMap<&'static str, usize> = BTreeMap::new();
        for (priority, _) in &state.waiting {
            *waiting.entry(priority.label()).or_default() += 1;
        }
        let held = Priority::ALL
            .into_iter()
            .filter(|priority| state.day.check(*priority, now).is_err());
        let deliveries = &state.deliveries;
        let picture = BudgetPicture {
            left: usage.map(|usage| usage.left),
            limit: usage.map(|usage| usage.limit),
            reserve: usage.map(|usage| state.day.reserve(usage.limit)),
            spent: state.day.spent(now),
            lasts_until: state.day.ends_at(now),
            held: held.map(Priority::label).collect(),
            closed_until: state
                .closed
                .as_ref()
                .map(|closed| closed.until)
                .filter(|until| *until > now),
            waiting,
            running: state.running,
            burst_left: state.burst,
            deliveries: DeliveriesPicture {
                ours: deliveries.ours(now),
                left: deliveries.told.map(|told| told.left),
                limit: deliveries.told.map(|told| told.limit),
            },
        };
        drop(state);
        self.set(&picture, now);
        picture
    }

    fn set(&self, picture: &BudgetPicture, now: DateTime<Utc>) {
        if let Some(left) = picture.left {
            self.gauges.left.set(left as f64);
        }
        let lasts = picture.lasts_until.map_or(LONGEST, |until| {
            (until - now).as_seconds_f64().clamp(0.0, LONGEST)
        });
        self.gauges.lasts.set(lasts);
        if let Some(left) = picture.deliveries.left {
            self.gauges.deliveries_left.set(left as f64);
        }
        for (priority, gauge) in &self.gauges.waiting {
            let waiting = picture.waiting.get(priority.label()).copied();
            gauge.set(waiting.unwrap_or_default() as f64);
        }
    }
}

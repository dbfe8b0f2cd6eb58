//! Whole reads by the Bulk API 2.0: which objects are read so, and the way back to REST.

pub(super) mod csv;
mod job;
mod pages;
mod read;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::TimeDelta;

use crate::fault::{Fault, FaultKind};
use crate::model::name::ObjectName;
use crate::runtime::clock::Clock;
use crate::telemetry::metrics::{self, Metrics};

use super::describe::Describer;
use super::plan::Plan;
use super::read::query_path;
use super::rest::{Refused, Rest};
use super::row::QueryAnswer;
use super::soql;
use read::BulkRead;

pub use read::{MOST, Place};

/// The longest query (SOQL and SOSL Reference, "SOQL SELECT Syntax").
const LONGEST: usize = 100_000;

/// Reads objects of one connection by jobs.
pub struct Bulk {
    rest: Arc<Rest>,
    describer: Arc<Describer>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    lag: TimeDelta,
    /// Objects that the Bulk API does not take.
    refused: Mutex<HashSet<ObjectName>>,
}

impl Bulk {
    /// Jobs through `rest`; what is read is taken to be `lag` older than the CRM's clock.
    pub fn new(
        rest: Arc<Rest>,
        describer: Arc<Describer>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        lag: TimeDelta,
    ) -> Self {
        Self {
            rest,
            describer,
            clock,
            metrics,
            lag,
            refused: Mutex::default(),
        }
    }

    /// Begins a job for everything that `plan` reads, if it is large enough for one and the Bulk API takes it; else
    /// gives the plan back, for REST.
    ///
    /// # Errors
    /// As for any call; `Throttled` once the day's jobs are spent.
    pub async fn begin(self: &Arc<Self>, plan: Plan) -> Result<Result<BulkRead, Plan>, Fault> {
        let query = soql::unordered(plan.object(), &fields(&plan));
        if query.chars().count() > LONGEST || !self.suits(&plan).await? {
            return Ok(Err(plan));
        }
        match job::create(&self.rest, &query).await {
            Ok((job, began)) => {
                tracing::info!(
                    object = plan.object(),
                    job = job.id,
                    "reading by a bulk query"
                );
                let place = Place::new(job.id, &self.rest.settings().api_version, began - self.lag);
                Ok(Ok(BulkRead::new(Arc::clone(self), plan, place)))
            }
            Err(refused) if is_unsupported(&refused) => {
                self.refuse(&plan, &refused.fault.to_string());
                Ok(Err(plan))
            }
            Err(refused) => Err(self.fault(&plan, refused)),
        }
    }

    /// Goes on with a job where an earlier read of it stopped.
    ///
    /// # Errors
    /// `PositionLost` if the job is gone or gave nothing: the read begins anew.
    pub async fn resume(self: &Arc<Self>, plan: Plan, place: Place) -> Result<BulkRead, Fault> {
        let lost = |why: &str| {
            let what = format!("the bulk job of {} {why}", plan.object());
            Fault::new(FaultKind::PositionLost, what)
        };
        if place.version != self.rest.settings().api_version {
            return Err(lost("is of another API version"));
        }
        let job = match job::poll(&self.rest, &place.job).await {
            Ok(job) => job,
            Err(refused) if refused.status == 404 => return Err(lost("is gone")),
            Err(refused) => return Err(self.fault(&plan, refused)),
        };
        match job.state {
            job::JobState::Failed => return Err(lost("failed")),
            job::JobState::Aborted => return Err(lost("was aborted")),
            _ => {}
        }
        tracing::info!(
            object = plan.object(),
            job = place.job,
            rows = place.rows,
            "going on with a bulk query where it stopped"
        );
        Ok(BulkRead::on(Arc::clone(self), plan, place, &job))
    }

    /// Whether an object has rows enough for a job.
    async fn suits(&self, plan: &Plan) -> Result<bool, Fault> {
        let Some(least) = self.rest.settings().bulk_from else {
            return Ok(false);
        };
        if self.refused().contains(&plan.description.schema.name) {
            return Ok(false);
        }
        if least <= 1 {
            return Ok(true);
        }
        match count(&self.rest, plan.object()).await {
            Ok(records) => Ok(records >= least),
            // What can't be counted in time is large.
            Err(refused) if refused.is("QUERY_TIMEOUT") => Ok(true),
            // The read itself says better what is wrong.
            Err(refused) if refused.status == 400 => Ok(false),
            Err(refused) => Err(self.fault(plan, refused)),
        }
    }

    /// Keeps an object on REST from here on, and says so.
    fn refuse(&self, plan: &Plan, why: &str) {
        let object = &plan.description.schema.name;
        tracing::info!(%object, why, "the Bulk API does not take the object: it is read over REST from now on");
        let connection = self.rest.settings().connection.as_str();
        let labels = [("connection", connection), ("object", object.as_str())];
        self.metrics
            .counter(metrics::BULK_REFUSED, &labels)
            .increment(1);
        self.refused().insert(object.clone());
    }

    /// Names what was read; a field that is gone makes the description stale.
    fn fault(&self, plan: &Plan, refused: Refused) -> Fault {
        if refused.is("INVALID_FIELD") || refused.is("INVALID_TYPE") {
            self.describer.forget(&plan.description.schema.name);
        }
        refused
            .fault
            .context(format_args!("reading {} by a bulk query", plan.object()))
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, HashSet<ObjectName>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many records an object has, by one call.
///
/// # Errors
/// [`Refused`], with `QUERY_TIMEOUT` for what can't be counted in time.
pub async fn count(rest: &Rest, object: &str) -> Result<u64, Refused> {
    let text = format!("SELECT COUNT() FROM {}", soql::identifier(object)?);
    let answer = rest.get(&query_path(&text)).await?;
    let counted: QueryAnswer<'_> = serde_json::from_slice(answer.body()).map_err(|error| {
        let what = format!("the count of {object} can't be read");
        Fault::new(FaultKind::Protocol, what).source(error)
    })?;
    Ok(counted.total_size)
}

/// Every field of a plan: a job's query stands in a body, whose length no URL limits.
fn fields(plan: &Plan) -> Vec<&str> {
    let mut fields = plan.key_fields();
    fields.extend(plan.own());
    fields.extend(plan.paths());
    fields
}

/// Whether a refusal is about the Bulk API, not about the query (Bulk API 2.0 and Bulk API Developer Guide, "Query").
fn is_unsupported(refused: &Refused) -> bool {
    refused.status == 400
        && (refused.is("INVALIDENTITY")
            || refused.is("FEATURENOTENABLED")
            || says_unsupported(&refused.fault.to_string()))
}

/// Whether a text says that the Bulk API does not take a query.
fn says_unsupported(text: &str) -> bool {
    [
        "not supported by the Bulk API",
        "not supported in Bulk Query",
        "does not support query",
    ]
    .iter()
    .any(|words| text.contains(words))
}

//! Records that fit several rows, and what a person decides of them.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::control::reviews::{RecordOf, Verdict};
use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::target::port::review::{Binding, Review, Which};

use super::Sources;
use super::jobs;
use super::reply::Failure;

const MAX_LIMIT: usize = 1000;
const MAX_DESTINATION: usize = 200;

/// Which ones.
#[derive(Deserialize)]
pub(super) struct Asked {
    connection: Option<ConnectionId>,
    job: Option<JobId>,
    #[serde(default)]
    limit: usize,
}

/// `GET /api/v1/reviews`.
pub(super) async fn list(
    State(sources): State<Sources>,
    Query(asked): Query<Asked>,
) -> Result<Json<Vec<Value>>, Failure> {
    let which = Which {
        connection: asked.connection,
        job: asked.job,
        limit: asked.limit.min(MAX_LIMIT),
        ..Which::default()
    };
    let reviews = sources.control.reviews(&which).await?;
    Ok(Json(reviews.iter().map(Review::to_json).collect()))
}

/// `GET /api/v1/bindings`.
pub(super) async fn bindings(State(sources): State<Sources>) -> Result<Json<Vec<Value>>, Failure> {
    let bindings = sources.control.bindings().await?;
    Ok(Json(bindings.iter().map(Binding::to_json).collect()))
}

/// What somebody decides. JSON is asked for, so that no page of another site can send one unasked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    decision: Word,
    /// The row, for `bind`.
    gsid: Option<Uuid>,
    /// Label or table; the one that waits, if none is named.
    destination: Option<String>,
    by: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Bind,
    Create,
    Ignore,
    Unbind,
}

impl Said {
    fn verdict(&self) -> Result<Verdict, Fault> {
        let wrong = |what: &str| Err(Fault::new(FaultKind::Config, what));
        match (self.decision, self.gsid) {
            (Word::Bind, Some(gsid)) => Ok(Verdict::Bind(gsid)),
            (Word::Bind, None) => wrong("`bind` takes the `gsid` of a row"),
            (_, Some(_)) => wrong("only `bind` takes a `gsid`"),
            (Word::Create, None) => Ok(Verdict::Create),
            (Word::Ignore, None) => Ok(Verdict::Ignore),
            (Word::Unbind, None) => Ok(Verdict::Unbind),
        }
    }
}

/// What a decision did.
#[derive(Serialize)]
pub(super) struct Done {
    binding: Value,
    /// What held before.
    before: Option<&'static str>,
    /// The change that waited is run now; otherwise the record is published again.
    waited: bool,
}

/// `POST /api/v1/reviews/{connection}/{object}/{record}`.
pub(super) async fn decide(
    State(sources): State<Sources>,
    Path((connection, object, record)): Path<(ConnectionId, ObjectName, String)>,
    Json(said): Json<Said>,
) -> Result<Json<Done>, Failure> {
    let verdict = said.verdict()?;
    let destination = jobs::checked("destination", said.destination, MAX_DESTINATION)?;
    let by = jobs::checked("by", said.by, jobs::MAX_BY)?;
    let of = RecordOf {
        connection,
        object,
        record: RecordId::stored(record),
    };
    let decided = sources
        .control
        .decide(&of, destination.as_deref(), verdict, by)
        .await?;
    Ok(Json(Done {
        binding: decided.binding.to_json(),
        before: decided.before.map(|before| before.label()),
        waited: decided.waited,
    }))
}

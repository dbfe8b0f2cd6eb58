//! The calls on a query job, and what the org says of it.
//!
//! Source: Bulk API 2.0 and Bulk API Developer Guide, "Query".

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultKind};
use crate::http::answer::Answer;
use crate::http::encode::percent;
use crate::http::incoming::Incoming;

use super::super::rest::{Refused, Rest};

/// A job as the org tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its id.
    pub id: String,
    /// How far it is.
    pub state: JobState,
    /// Rows of its results, once it is complete.
    #[serde(default)]
    pub number_records_processed: u64,
    /// Why it failed.
    #[serde(default)]
    pub error_message: Option<String>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum JobState {
    /// It waits.
    UploadComplete,
    /// The org works on it.
    InProgress,
    /// Its results can be read.
    JobComplete,
    /// The org gave it up.
    Failed,
    /// Somebody ended it.
    Aborted,
}

/// Creates a job; the time is the CRM's clock when it began.
///
/// # Errors
/// [`Refused`].
pub async fn create(rest: &Rest, query: &str) -> Result<(Job, DateTime<Utc>), Refused> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Ask<'a> {
        operation: &'a str,
        query: &'a str,
        content_type: &'a str,
        column_delimiter: &'a str,
        line_ending: &'a str,
    }
    let ask = Ask {
        operation: "query",
        query,
        content_type: "CSV",
        column_delimiter: "COMMA",
        line_ending: "LF",
    };
    let json = serde_json::to_string(&ask)
        .map_err(|error| Fault::new(FaultKind::Protocol, "a job can't be written").source(error))?;
    let answer = rest.post("/jobs/query", &json).await?;
    let job = parse(&answer)?;
    if !is_id(&job.id) {
        let what = format!("answer to {} names no job", answer.what());
        return Err(Fault::new(FaultKind::Protocol, what).into());
    }
    Ok((job, answer.began()?))
}

/// Asks how far a job is.
///
/// # Errors
/// [`Refused`], with 404 for a job that is gone.
pub async fn poll(rest: &Rest, id: &str) -> Result<Job, Refused> {
    let answer = rest.get(&format!("/jobs/query/{id}")).await?;
    Ok(parse(&answer)?)
}

/// Opens a page of a job's results: at most `most` rows from `locator` on.
///
/// # Errors
/// [`Refused`], with 404 for a job that is gone.
pub async fn results(
    rest: &Rest,
    id: &str,
    locator: Option<&str>,
    most: u32,
) -> Result<Incoming, Refused> {
    let mut path = format!("/jobs/query/{id}/results?maxRecords={most}");
    if let Some(locator) = locator {
        path.push_str("&locator=");
        path.push_str(&percent(locator));
    }
    rest.csv(&path).await
}

/// Opens a page of a job's results that the org named by this locator, which is escaped as it has to be.
///
/// # Errors
/// [`Refused`], with 404 for a job that is gone.
pub async fn page(rest: &Rest, id: &str, locator: Option<&str>) -> Result<Incoming, Refused> {
    let more = locator.map_or_else(String::new, |locator| format!("?locator={locator}"));
    rest.csv(&format!("/jobs/query/{id}/results{more}")).await
}

/// Deletes a job that is over, and its results.
///
/// # Errors
/// [`Refused`].
pub async fn delete(rest: &Rest, id: &str) -> Result<(), Refused> {
    rest.delete(&format!("/jobs/query/{id}")).await.map(|_| ())
}

/// Where the next page begins; the word `null` says that there is none.
pub fn next_locator(answer: &Answer) -> Option<String> {
    answer
        .header("Sforce-Locator")
        .filter(|locator| !locator.is_empty() && *locator != "null")
        .map(str::to_owned)
}

/// Whether a text is a job's id, so that it can stand in a path.
pub fn is_id(text: &str) -> bool {
    matches!(text.len(), 15 | 18) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn parse(answer: &Answer) -> Result<Job, Fault> {
    serde_json::from_slice(answer.body()).map_err(|error| {
        let what = format!("answer to {} is no job", answer.what());
        Fault::new(FaultKind::Protocol, what).source(error)
    })
}

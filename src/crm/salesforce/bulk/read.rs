//! One job's rows, page by page, from any place of its results.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::crm::port::Pages;
use crate::fault::{Fault, FaultKind};
use crate::http::incoming::Incoming;
use crate::model::event::{Page, Row};

use super::super::plan::Plan;
use super::super::rest::Refused;
use super::csv::CsvPage;
use super::job::{self, Job, JobState};
use super::pages::{self, Left, SideBySide};
use super::{Bulk, says_unsupported};

/// Rows that one call for results asks for.
pub const MOST: u32 = 50_000;
/// Bytes of results after which rows are given, however few.
const HEAVY: usize = 8 * 1024 * 1024;
/// The first wait for a job, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Where a read by a job stands: enough to go on in another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The job.
    pub job: String,
    /// The API version it was created in, and must be read in.
    pub version: String,
    /// What its rows are true of.
    as_of: DateTime<Utc>,
    /// The page of results; `None` is the first.
    locator: Option<String>,
    /// Rows that a page has at most.
    most: u32,
    /// Rows of the page that were given.
    skip: u64,
    /// Rows given, of all pages.
    pub rows: u64,
    /// What is left of pages that are read side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<Left>,
}

impl Place {
    /// The beginning of a job's results.
    pub fn new(job: String, version: &str, as_of: DateTime<Utc>) -> Self {
        Self {
            job,
            version: version.to_owned(),
            as_of,
            locator: None,
            most: MOST,
            skip: 0,
            rows: 0,
            left: None,
        }
    }

    /// `None` for a text that is none.
    pub fn parse(text: &str) -> Option<Self> {
        let place: Self = serde_json::from_str(text).ok()?;
        (job::is_id(&place.job) && place.most > 0).then_some(place)
    }

    fn text(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

/// A page of results on its way.
struct OpenPage {
    incoming: Incoming,
    csv: CsvPage,
    /// Rows to pass over: they were given before.
    skip: u64,
    /// Rows that it has, if the org said so.
    count: Option<u64>,
    next: Option<String>,
}

enum Step {
    /// The job is told before anything is waited for, so that a crash goes on with it.
    Begin,
    /// The job is looked at, and waited for so long if it is not over.
    Wait(Duration),
    /// The job is over: the way to read its results is to be chosen.
    Complete,
    /// Pages of its results come side by side.
    SideBySide(Box<SideBySide>),
    /// A page of its results is to be opened.
    Open,
    /// A page is coming.
    Take(Box<OpenPage>),
    /// All is given: the job is deleted when the caller has the last page in safe hands and asks on.
    Given,
    Over,
}

/// A read by a job. What came stands in it, so a dropped wait loses nothing.
pub struct BulkRead {
    bulk: Arc<Bulk>,
    plan: Plan,
    place: Place,
    step: Step,
    total: u64,
    rows: Vec<Row>,
}

#[async_trait]
impl Pages for BulkRead {
    async fn next(&mut self) -> Result<Option<Page>, Fault> {
        loop {
            match self.step {
                Step::Begin => {
                    self.step = Step::Wait(WAITS.0);
                    return Ok(Some(self.give(None)));
                }
                Step::Wait(pause) => self.wait(pause).await?,
                Step::Complete => self.choose().await?,
                Step::SideBySide(_) => {
                    if let Some(page) = self.take_any().await? {
                        return Ok(Some(page));
                    }
                }
                Step::Open => self.open().await?,
                Step::Take(_) => {
                    if let Some(page) = self.take().await? {
                        return Ok(Some(page));
                    }
                }
                Step::Given => {
                    self.delete().await;
                    self.step = Step::Over;
                }
                Step::Over => return Ok(None),
            }
        }
    }
}

impl BulkRead {
    /// Reads a new job.
    pub const fn new(bulk: Arc<Bulk>, plan: Plan, place: Place) -> Self {
        Self {
            bulk,
            plan,
            place,
            step: Step::Begin,
            total: 0,
            rows: Vec::new(),
        }
    }

    /// Reads on from `place` in a job that is as told.
    pub fn on(bulk: Arc<Bulk>, plan: Plan, place: Place, job: &Job) -> Self {
        let mut read = Self::new(bulk, plan, place);
        read.step = if job.state == JobState::JobComplete {
            Step::Complete
        } else {
            Step::Wait(WAITS.0)
        };
        read.total = job.number_records_processed;
        read
    }

    /// Looks how far the job is, and waits if it is not over.
    async fn wait(&mut self, pause: Duration) -> Result<(), Fault> {
        let job = match job::poll(&self.bulk.rest, &self.place.job).await {
            Ok(job) => job,
            Err(refused) if refused.status == 404 => return Err(self.broken("is gone")),
            Err(refused) => return Err(self.bulk.fault(&self.plan, refused)),
        };
        match job.state {
            JobState::UploadComplete | JobState::InProgress => {
                self.bulk.clock.sleep(pause).await;
                self.step = Step::Wait((pause * 2).min(WAITS.1));
                Ok(())
            }
            JobState::JobComplete => {
                self.total = job.number_records_processed;
                self.step = Step::Complete;
                Ok(())
            }
            JobState::Failed => {
                let why = job.error_message.unwrap_or_default();
                let why: String = why.chars().take(500).collect();
                if says_unsupported(&why) {
                    self.bulk.refuse(&self.plan, &why);
                }
                Err(self.broken(&format!("failed: {why}")))
            }
            JobState::Aborted => Err(self
                .broken("was aborted in the org")
                .remedy("Setup → Bulk Data Load Jobs shows by whom; the read begins again")),
        }
    }

    /// Many rows come side by side where the org names pages, others page after page; what was begun goes on as it was.
    async fn choose(&mut self) -> Result<(), Fault> {
        let (rest, place) = (&self.bulk.rest, &self.place);
        let settings = rest.settings();
        let is_new = place.locator.is_none() && place.rows == 0;
        let is_large = self.total > settings.bulk_parallel_from;
        let left = match &place.left {
            Some(left) => Some(left.clone()),
            None if is_new && is_large && pages::are_named(&settings.api_version) => {
                match pages::list(rest, &place.job, None).await {
                    Ok(left) => Some(left).filter(|left| !left.is_empty()),
                    // Page after page always works; if the job is at fault, that says so better.
                    Err(refused) if matches!(refused.status, 400 | 404 | 405) => {
                        tracing::info!(
                            object = self.plan.object(), error = %refused.fault,
                            "the org names no pages: a bulk job's results are read one page after the other"
                        );
                        None
                    }
                    Err(refused) => return Err(self.bulk.fault(&self.plan, refused)),
                }
            }
            None => None,
        };
        self.step = left.map_or(Step::Open, |left| {
            Step::SideBySide(Box::new(SideBySide::from(left)))
        });
        Ok(())
    }

    /// Takes what comes of any page until there are rows enough to give, or all pages end.
    async fn take_any(&mut self) -> Result<Option<Page>, Fault> {
        let Step::SideBySide(pages) = &mut self.step else {
            return Ok(None);
        };
        let most = self.bulk.rest.settings().page_size as usize;
        let mut bytes = 0;
        while self.rows.len() < most && bytes < HEAVY {
            if let Err(refused) = pages.fill(&self.bulk.rest, &self.place.job).await {
                return Err(self.no_results(refused).await);
            }
            match pages.piece(&self.plan.columns, &mut self.rows).await? {
                Some(length) => bytes += length,
                None => {
                    self.check_total(self.rows.len()).await?;
                    self.step = Step::Given;
                    return Ok(Some(self.give(Some(0))));
                }
            }
        }
        self.place.left = Some(pages.left());
        Ok((!self.rows.is_empty()).then(|| self.give(Some(0))))
    }

    async fn open(&mut self) -> Result<(), Fault> {
        let place = &self.place;
        let locator = place.locator.as_deref();
        let incoming = match job::results(&self.bulk.rest, &place.job, locator, place.most).await {
            Ok(incoming) => incoming,
            Err(refused) => return Err(self.no_results(refused).await),
        };
        let head = incoming.head();
        let count = head.header("Sforce-NumberOfRecords");
        self.step = Step::Take(Box::new(OpenPage {
            skip: place.skip,
            count: count.and_then(|count| count.parse().ok()),
            next: job::next_locator(head),
            incoming,
            csv: CsvPage::new(),
        }));
        Ok(())
    }

    /// Takes what comes until there are rows enough to give, or the page ends.
    async fn take(&mut self) -> Result<Option<Page>, Fault> {
        let Step::Take(open) = &mut self.step else {
            return Ok(None);
        };
        let most = self.bulk.rest.settings().page_size as usize;
        let mut bytes = 0;
        while self.rows.len() < most && bytes < HEAVY {
            let Some(piece) = open.incoming.piece().await? else {
                return self.end().await;
            };
            // A page without rows may hold a line of prose in place of a heading.
            if open.count == Some(0) || piece.is_empty() {
                continue;
            }
            bytes += piece.len();
            open.csv
                .push(&piece, &self.plan.columns, open.skip, &mut self.rows)?;
        }
        let skip = open.csv.rows.max(open.skip);
        Ok((!self.rows.is_empty()).then(|| self.give(Some(skip))))
    }

    /// The page ends: the rest of it is given, and the next one is opened.
    async fn end(&mut self) -> Result<Option<Page>, Fault> {
        let Step::Take(open) = &mut self.step else {
            return Ok(None);
        };
        open.csv
            .push(&[], &self.plan.columns, open.skip, &mut self.rows)?;
        let told = open.csv.rows;
        let next = open.next.take();
        if open.count.unwrap_or(told) != told || told < open.skip {
            return Err(self.broken(&format!("gave a page of other length: {told} rows")));
        }
        if next.is_none() {
            self.check_total(self.rows.len()).await?;
        }
        self.step = if next.is_some() {
            Step::Open
        } else {
            Step::Given
        };
        self.place.locator = next;
        Ok(Some(self.give(Some(0))))
    }

    /// Results that are not given. What the org does not give now it will not give later.
    async fn no_results(&self, refused: Refused) -> Fault {
        if !matches!(refused.status, 400 | 404 | 409) {
            return self.bulk.fault(&self.plan, refused);
        }
        self.delete().await;
        self.broken("has no such results").source(refused.fault)
    }

    /// All pages were told: whether they had all rows, the last `more` in hand.
    async fn check_total(&self, more: usize) -> Result<(), Fault> {
        let rows = self.place.rows + more as u64;
        if rows == self.total {
            return Ok(());
        }
        self.delete().await;
        Err(self.broken(&format!("told {rows} of {} rows", self.total)))
    }

    /// The rows in hand as a page; `skip` are those of the page of results that need no second reading.
    fn give(&mut self, skip: Option<u64>) -> Page {
        let rows = std::mem::take(&mut self.rows);
        self.place.rows += rows.len() as u64;
        if let Some(skip) = skip {
            self.place.skip = skip;
        }
        let is_last = matches!(self.step, Step::Given);
        Page {
            rows,
            as_of: self.place.as_of,
            total: skip.map(|_| self.total),
            resume: (!is_last).then(|| self.place.text()),
        }
    }

    /// Deletes the job; one that stays is deleted by the org after seven days.
    async fn delete(&self) {
        if let Err(refused) = job::delete(&self.bulk.rest, &self.place.job).await {
            tracing::debug!(
                object = self.plan.object(), job = self.place.job, error = %refused.fault,
                "a bulk job is not deleted"
            );
        }
    }

    fn broken(&self, what: &str) -> Fault {
        let object = self.plan.object();
        let what = format!("the bulk job of {object} {what}");
        Fault::new(FaultKind::Unavailable, what)
    }
}

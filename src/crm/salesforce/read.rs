//! Reads: pages in key order, and records by id.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::crm::port::{Pages, Selection};
use crate::fault::{Fault, FaultKind};
use crate::http::answer::Answer;
use crate::http::encode::percent;
use crate::http::raw_row::RawRow;
use crate::model::event::{Found, Page, Row};
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::runtime::clock::Clock;
use crate::telemetry::metrics::Metrics;

use super::bulk::{Bulk, Place};
use super::describe::Describer;
use super::parents::WithParents;
use super::plan::Plan;
use super::rest::{Refused, Rest};
use super::row::QueryAnswer;
use super::soql::{self, Filter, Key};
use super::stamp;

/// Ids that one call can name (REST API Developer Guide, "Get Multiple Records with Fewer Round-Trips").
pub const BY_ID: usize = 2000;

/// Reads objects of one connection.
pub struct Reader {
    rest: Arc<Rest>,
    describer: Arc<Describer>,
    bulk: Arc<Bulk>,
    lag: TimeDelta,
    /// Objects that can be read by id only through queries.
    by_query: Mutex<HashSet<ObjectName>>,
}

/// A page as a query answered it.
struct Answered {
    rows: Vec<Row>,
    total: u64,
    next: Option<String>,
}

/// Rows by id, and the CRM's clock when they began to be read.
struct Part {
    rows: HashMap<RecordId, Row>,
    began: DateTime<Utc>,
}

impl Reader {
    /// Reads through `rest`; what is read is taken to be `lag` older than the CRM's clock.
    pub fn new(
        rest: Arc<Rest>,
        describer: Arc<Describer>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let lag = TimeDelta::from_std(rest.settings().read_lag).unwrap_or_default();
        let bulk = Bulk::new(
            Arc::clone(&rest),
            Arc::clone(&describer),
            clock,
            metrics,
            lag,
        );
        Self {
            rest,
            describer,
            bulk: Arc::new(bulk),
            lag,
            by_query: Mutex::default(),
        }
    }

    /// The CRM's clock when it began an answer, less the lag.
    ///
    /// # Errors
    /// `Protocol` for an answer without a date.
    pub fn as_of(&self, answer: &Answer) -> Result<DateTime<Utc>, Fault> {
        Ok(answer.began()? - self.lag)
    }

    /// Begins a read of everything: by a job where there is much of it, else over pages.
    ///
    /// # Errors
    /// As [`Reader::pages`]; `PositionLost` if the job to go on with is gone.
    pub async fn all(
        self: &Arc<Self>,
        selection: &Selection,
        resume: Option<&str>,
    ) -> Result<Box<dyn Pages>, Fault> {
        let mut plan = Plan::new(&self.describer, selection).await?;
        let parents = std::mem::take(&mut plan.parents);
        let pages: Box<dyn Pages> = match (resume.and_then(Place::parse), resume) {
            (Some(place), _) => Box::new(self.bulk.resume(plan, place).await?),
            (None, Some(_)) => self.planned(plan, Filter::All, resume),
            (None, None) => match self.bulk.begin(plan).await? {
                Ok(read) => Box::new(read),
                Err(plan) => self.planned(plan, Filter::All, None),
            },
        };
        Ok(WithParents::of(self, parents, pages))
    }

    /// Begins a read over pages.
    ///
    /// # Errors
    /// `Missing` for an object or field that is none.
    pub async fn pages(
        self: &Arc<Self>,
        selection: &Selection,
        filter: Filter,
    ) -> Result<Box<dyn Pages>, Fault> {
        let mut plan = Plan::new(&self.describer, selection).await?;
        let parents = std::mem::take(&mut plan.parents);
        let pages = self.planned(plan, filter, None);
        Ok(WithParents::of(self, parents, pages))
    }

    fn planned(
        self: &Arc<Self>,
        plan: Plan,
        filter: Filter,
        resume: Option<&str>,
    ) -> Box<dyn Pages> {
        let stamp = plan
            .description
            .stamp
            .as_ref()
            .map(|s| s.as_str().to_owned());
        let resumed = resume.and_then(|text| Resume::parse(text, stamp.as_deref()));
        if resume.is_some() && resumed.is_none() {
            tracing::warn!(
                object = plan.object(),
                "a read can't go on where it stopped: it begins again"
            );
        }
        let (after, read) = match resumed {
            Some(resumed) => (Some(resumed.after), resumed.rows),
            None => (None, 0),
        };
        Box::new(Read {
            reader: Arc::clone(self),
            plan,
            filter,
            step: Step::Query,
            after,
            as_of: None,
            read,
            expected: 0,
        })
    }

    /// Reads records by id. An id is present only if every part of its row was found.
    ///
    /// # Errors
    /// As for any call.
    pub async fn by_ids(&self, selection: &Selection, ids: &[RecordId]) -> Result<Found, Fault> {
        let plan = Plan::new(&self.describer, selection).await?;
        self.by_plan(&plan, ids).await
    }

    /// Reads records by id as a plan says.
    pub(super) async fn by_plan(&self, plan: &Plan, ids: &[RecordId]) -> Result<Found, Fault> {
        let mut seen = HashSet::new();
        let ids: Vec<RecordId> = ids.iter().filter(|id| seen.insert(*id)).cloned().collect();
        let mut found = Found {
            rows: Vec::with_capacity(ids.len()),
            absent: Vec::new(),
            as_of: DateTime::<Utc>::MAX_UTC,
        };
        for some in ids.chunks(BY_ID) {
            let part = self.whole_rows(plan, some).await?;
            found.as_of = found.as_of.min(part.began - self.lag);
            let mut rows = part.rows;
            for id in some {
                match rows.remove(id) {
                    Some(row) => found.rows.push(row),
                    None => found.absent.push(id.clone()),
                }
            }
        }
        if ids.is_empty() {
            let answer = self.rest.versions().await?;
            found.as_of = self.as_of(&answer)?;
        }
        self.add_parents(&plan.parents, &mut found.rows).await?;
        Ok(found)
    }

    async fn whole_rows(&self, plan: &Plan, ids: &[RecordId]) -> Result<Part, Fault> {
        let (own, paths) = (plan.own(), plan.paths());
        if own.is_empty() && !paths.is_empty() {
            return self.by_queries(plan, &paths, ids).await;
        }
        let mut part = self.own_rows(plan, &own, ids).await?;
        if !paths.is_empty() {
            let more = self.by_queries(plan, &paths, ids).await?;
            join(&mut part.rows, more.rows);
        }
        Ok(part)
    }

    /// The object's own fields by id: one call for 2000 ids, or queries where the object has no such call.
    async fn own_rows(
        &self,
        plan: &Plan,
        fields: &[&str],
        ids: &[RecordId],
    ) -> Result<Part, Fault> {
        let object = &plan.description.schema.name;
        if self.by_query().contains(object) {
            return self.by_queries(plan, fields, ids).await;
        }
        match self.collection(plan, fields, ids).await {
            Ok(part) => Ok(part),
            Err(refused) if may_lack_collections(&refused) => {
                // If the object is at fault, the query says so better.
                let part = self.by_queries(plan, fields, ids).await?;
                tracing::info!(%object, error = %refused.fault, "read by id through queries from now on");
                self.by_query().insert(object.clone());
                Ok(part)
            }
            Err(refused) => Err(self.fault(plan, refused, "by id")),
        }
    }

    async fn collection(
        &self,
        plan: &Plan,
        fields: &[&str],
        ids: &[RecordId],
    ) -> Result<Part, Refused> {
        #[derive(Serialize)]
        struct Ask<'a> {
            ids: &'a [RecordId],
            fields: Vec<&'a str>,
        }
        let mut asked = plan.key_fields();
        asked.extend(fields);
        let ask = Ask { ids, fields: asked };
        let json = serde_json::to_string(&ask).map_err(|error| {
            Fault::new(FaultKind::Protocol, "a list of ids can't be written").source(error)
        })?;
        let path = format!("/composite/sobjects/{}", plan.object());
        let answer = self.rest.post(&path, &json).await?;
        let unreadable = |what: String| Fault::new(FaultKind::Protocol, what);
        let raw: Vec<Option<RawRow<'_>>> =
            serde_json::from_slice(answer.body()).map_err(|error| {
                unreadable(format!("answer to {} can't be read", answer.what())).source(error)
            })?;
        if raw.len() != ids.len() {
            let (got, asked) = (raw.len(), ids.len());
            let what = format!("answer to {} has {got} rows for {asked} ids", answer.what());
            return Err(unreadable(what).into());
        }
        let mut rows = HashMap::with_capacity(ids.len());
        for (id, raw) in ids.iter().zip(raw) {
            let Some(raw) = raw else { continue };
            let row = plan.columns.row(&raw)?;
            if row.record != *id {
                let what = format!("answer to {} has {} for {id}", answer.what(), row.record);
                return Err(unreadable(what).into());
            }
            rows.insert(row.record.clone(), row);
        }
        Ok(Part {
            rows,
            began: answer.began()?,
        })
    }

    /// Any fields by id, through as many queries as their length needs.
    async fn by_queries(
        &self,
        plan: &Plan,
        fields: &[&str],
        ids: &[RecordId],
    ) -> Result<Part, Fault> {
        let mut whole: Option<Part> = None;
        for (asked, room) in plan.by_id(fields) {
            let mut part = Part {
                rows: HashMap::with_capacity(ids.len()),
                began: DateTime::<Utc>::MAX_UTC,
            };
            for few in ids.chunks(room) {
                self.few_by_query(plan, &asked, few, &mut part).await?;
            }
            match &mut whole {
                None => whole = Some(part),
                Some(whole) => {
                    whole.began = whole.began.min(part.began);
                    join(&mut whole.rows, part.rows);
                }
            }
        }
        whole.ok_or_else(|| Fault::new(FaultKind::Protocol, "nothing was asked"))
    }

    async fn few_by_query(
        &self,
        plan: &Plan,
        fields: &[&str],
        ids: &[RecordId],
        part: &mut Part,
    ) -> Result<(), Fault> {
        let filter = Filter::Ids(ids.to_vec());
        let text = soql::query(plan.object(), fields, None, &filter, None);
        let mut path: Option<String> = None;
        loop {
            let read = match &path {
                None => self.rest.get(&query_path(&text)).await,
                Some(path) => self.rest.follow(path).await,
            };
            let answer = read.map_err(|refused| self.fault(plan, refused, "by id"))?;
            part.began = part.began.min(answer.began()?);
            let answered = answered(plan, &answer)?;
            for row in answered.rows {
                part.rows.insert(row.record.clone(), row);
            }
            match answered.next {
                Some(next) => path = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Names what was read; a field that is gone makes the description stale.
    fn fault(&self, plan: &Plan, refused: Refused, how: &str) -> Fault {
        if refused.is("INVALID_FIELD") || refused.is("INVALID_TYPE") {
            self.describer.forget(&plan.description.schema.name);
        }
        refused
            .fault
            .context(format_args!("reading {} {how}", plan.object()))
    }

    fn by_query(&self) -> std::sync::MutexGuard<'_, HashSet<ObjectName>> {
        self.by_query.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a refusal may only mean that an object has no reads of many ids.
fn may_lack_collections(refused: &Refused) -> bool {
    matches!(refused.status, 400 | 404 | 405)
        && !refused.is("INVALID_FIELD")
        && !refused.is("INVALID_SESSION_ID")
}

/// Keeps the rows that both parts have, and gives them the fields of both.
fn join(rows: &mut HashMap<RecordId, Row>, mut more: HashMap<RecordId, Row>) {
    rows.retain(|id, row| match more.remove(id) {
        Some(other) => {
            row.fields.extend(other.fields);
            true
        }
        None => false,
    });
}

pub(super) fn query_path(text: &str) -> String {
    format!("/query?q={}", percent(text))
}

fn answered(plan: &Plan, answer: &Answer) -> Result<Answered, Fault> {
    let unreadable = |what: &str| {
        Fault::new(
            FaultKind::Protocol,
            format!("answer to a query of {} {what}", plan.object()),
        )
    };
    let read: QueryAnswer<'_> = serde_json::from_slice(answer.body())
        .map_err(|error| unreadable("can't be read").source(error))?;
    if !read.done && read.next_records_url.is_none() {
        return Err(unreadable("is not the last and names no next"));
    }
    let rows = read
        .records
        .iter()
        .map(|raw| plan.columns.row(raw))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Answered {
        rows,
        total: read.total_size,
        next: read.next_records_url.filter(|_| !read.done),
    })
}

/// Where a read over pages goes on.
enum Step {
    /// With a query after the key.
    Query,
    /// With the CRM's own cursor.
    Follow(String),
    /// Nowhere.
    Done,
}

/// A read over pages. It changes nothing of itself before a page is whole, so a dropped wait loses nothing.
struct Read {
    reader: Arc<Reader>,
    plan: Plan,
    filter: Filter,
    step: Step,
    after: Option<Key>,
    as_of: Option<DateTime<Utc>>,
    /// Rows given, those before a resume included.
    read: u64,
    /// Rows that the whole read has, as far as is known.
    expected: u64,
}

/// Where a read stopped.
#[derive(Serialize, Deserialize)]
struct Resume {
    by: Option<String>,
    after: Key,
    rows: u64,
}

impl Resume {
    /// `None` if it is not of a read in this order.
    fn parse(text: &str, stamp: Option<&str>) -> Option<Self> {
        let resume: Self = serde_json::from_str(text).ok()?;
        let sound = RecordId::salesforce(resume.after.id.as_str()).is_ok()
            && resume
                .after
                .stamp
                .as_deref()
                .is_none_or(|text| stamp::normal_instant(text).as_deref() == Some(text));
        (sound && resume.by.as_deref() == stamp).then_some(resume)
    }
}

#[async_trait]
impl Pages for Read {
    async fn next(&mut self) -> Result<Option<Page>, Fault> {
        loop {
            let Some(page) = self.page().await? else {
                return Ok(None);
            };
            // An empty page before the last tells nothing.
            if !page.rows.is_empty() || matches!(self.step, Step::Done) {
                return Ok(Some(page));
            }
        }
    }
}

impl Read {
    async fn page(&mut self) -> Result<Option<Page>, Fault> {
        let asked = match &self.step {
            Step::Done => return Ok(None),
            Step::Query => None,
            Step::Follow(path) => Some(self.reader.rest.follow(path).await),
        };
        let (answer, fresh) = match asked {
            Some(Err(refused)) if refused.is("INVALID_QUERY_LOCATOR") => {
                tracing::debug!(
                    object = self.plan.object(),
                    "cursor is stale: going on by key"
                );
                (self.query().await, true)
            }
            Some(answer) => (answer, false),
            None => (self.query().await, true),
        };
        let answer =
            answer.map_err(|refused| self.reader.fault(&self.plan, refused, "page by page"))?;
        let as_of = match self.as_of {
            Some(as_of) => as_of,
            None => self.reader.as_of(&answer)?,
        };
        let mut answered = answered(&self.plan, &answer)?;
        drop(answer);
        let after = self.key_of(answered.rows.last());
        let told = answered.rows.len() as u64;
        self.complete(&mut answered.rows).await?;

        // From here on nothing waits: the page is whole.
        let given = answered.rows.len() as u64;
        if fresh {
            self.expected = self.read + answered.total;
        }
        self.expected = self.expected.saturating_sub(told - given);
        self.read += given;
        self.as_of = Some(as_of);
        self.after = after.or_else(|| self.after.take());
        self.step = answered.next.map_or(Step::Done, Step::Follow);
        Ok(Some(Page {
            rows: answered.rows,
            as_of,
            total: Some(self.expected),
            resume: self.resume(),
        }))
    }

    async fn query(&self) -> Result<Answer, Refused> {
        let split = self.plan.split();
        let text = soql::query(
            self.plan.object(),
            &split.head,
            self.plan.description.stamp.as_ref(),
            &self.filter,
            self.after.as_ref(),
        );
        self.reader.rest.get(&query_path(&text)).await
    }

    /// Adds the fields that the query could not bear. A row that is gone since is left out: it was deleted
    /// after this read's `as_of`, which the stream tells.
    async fn complete(&self, rows: &mut Vec<Row>) -> Result<(), Fault> {
        let split = self.plan.split();
        if rows.is_empty() || (split.own.is_empty() && split.paths.is_empty()) {
            return Ok(());
        }
        let ids: Vec<RecordId> = rows.iter().map(|row| row.record.clone()).collect();
        for ids in ids.chunks(BY_ID) {
            let mut parts = Vec::new();
            if !split.own.is_empty() {
                parts.push(self.reader.own_rows(&self.plan, &split.own, ids).await?);
            }
            if !split.paths.is_empty() {
                parts.push(
                    self.reader
                        .by_queries(&self.plan, &split.paths, ids)
                        .await?,
                );
            }
            let asked: HashSet<&RecordId> = ids.iter().collect();
            for mut part in parts {
                rows.retain_mut(|row| {
                    if !asked.contains(&row.record) {
                        return true;
                    }
                    match part.rows.remove(&row.record) {
                        Some(other) => {
                            row.fields.extend(other.fields);
                            true
                        }
                        None => false,
                    }
                });
            }
        }
        Ok(())
    }

    fn key_of(&self, row: Option<&Row>) -> Option<Key> {
        row.map(|row| Key {
            stamp: self
                .plan
                .description
                .stamp
                .as_ref()
                .and(row.modified_at)
                .map(stamp::render),
            id: row.record.clone(),
        })
    }

    /// Only whole reads can be resumed; a window is short.
    fn resume(&self) -> Option<String> {
        if matches!(self.step, Step::Done) || self.filter != Filter::All {
            return None;
        }
        let resume = Resume {
            by: self
                .plan
                .description
                .stamp
                .as_ref()
                .map(|stamp| stamp.as_str().to_owned()),
            after: self.after.clone()?,
            rows: self.read,
        };
        serde_json::to_string(&resume).ok()
    }
}

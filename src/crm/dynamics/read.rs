//! Reads: whole tables, windows, and records by id. A whole read begins a table's changes where nothing follows them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::crm::port::{Pages, Selection};
use crate::fault::{Fault, FaultKind};
use crate::http::answer::Answer;
use crate::http::encode::percent;
use crate::model::event::{Found, Page, Row};
use crate::model::name::FieldName;
use crate::model::record_id::RecordId;
use crate::model::value::{Fields, Value};

use super::canary::Canaries;
use super::describe::{Describer, MODIFIED};
use super::links::Links;
use super::place::{Link, Modified, Way};
use super::plan::{Parent, Plan};
use super::rest::{Refused, Rest};
use super::row::PageAnswer;

/// The longest address of a read by id. The service bears 32,768 characters, gateways on the way less.
const MAX_ADDRESS: usize = 16_000;

/// Reads tables of one connection.
pub struct Reader {
    rest: Arc<Rest>,
    describer: Arc<Describer>,
    links: Arc<Links>,
}

/// What a read over pages reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every row.
    All,
    /// The first rows, which begin nothing.
    Some,
    /// Rows last changed in `[from, to)`.
    Window(DateTime<Utc>, DateTime<Utc>),
}

/// How a whole read is read, kept while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Manner {
    /// The last page gives a delta link.
    Tracked,
    /// The table is followed by the time of changes afterwards.
    Begins,
    /// The table is followed already.
    Plain,
}

impl Reader {
    /// Reads through `rest`.
    pub const fn new(rest: Arc<Rest>, describer: Arc<Describer>, links: Arc<Links>) -> Self {
        Self {
            rest,
            describer,
            links,
        }
    }

    /// Begins a read over pages.
    ///
    /// # Errors
    /// `Missing` for a table or column that is none; `PositionLost` if `resume` can't be gone on from.
    pub async fn pages(
        self: &Arc<Self>,
        selection: &Selection,
        scope: Scope,
        resume: Option<&str>,
    ) -> Result<Box<dyn Pages>, Fault> {
        let plan = Plan::new(&self.describer, selection).await?;
        let follows = self.links.follows(&selection.object, &plan.fields);
        let manner = match scope {
            Scope::All if !follows && plan.description.tracked => Manner::Tracked,
            Scope::All if !follows => Manner::Begins,
            _ => Manner::Plain,
        };
        let address = match scope {
            Scope::All | Scope::Some => plan.path(),
            Scope::Window(from, to) => {
                format!("{}&{}", plan.path(), window(&plan, from, Some(to))?)
            }
        };
        let mut read = Read {
            reader: Arc::clone(self),
            plan,
            manner,
            resumes: scope == Scope::All,
            step: Step::Address(address),
            began: None,
            as_of: None,
            canaries: Canaries::default(),
            fetched: None,
        };
        if let Some(resume) = resume {
            read.resume(resume).await?;
        }
        Ok(Box::new(read))
    }

    /// Reads records by id; whose row is not told is absent.
    ///
    /// # Errors
    /// As for any call.
    pub async fn by_ids(&self, selection: &Selection, ids: &[RecordId]) -> Result<Found, Fault> {
        let plan = Plan::new(&self.describer, selection).await?;
        self.by_plan(&plan, ids).await
    }

    async fn by_plan(&self, plan: &Plan, ids: &[RecordId]) -> Result<Found, Fault> {
        let mut seen = HashSet::new();
        let ids: Vec<RecordId> = ids.iter().filter(|id| seen.insert(*id)).cloned().collect();
        let mut found = Found {
            rows: Vec::with_capacity(ids.len()),
            absent: Vec::new(),
            as_of: DateTime::<Utc>::MAX_UTC,
        };
        let path = plan.path();
        // A quoted GUID and its comma, encoded.
        let room = MAX_ADDRESS.saturating_sub(path.len() + 300) / 45;
        let size = self.rest.settings().ids_a_call.min(room).max(1);
        for some in ids.chunks(size) {
            let address = format!("{path}&{}", names(plan, some));
            let mut rows = self.named(plan, address, &mut found.as_of).await?;
            for id in some {
                match rows.remove(id) {
                    Some(row) => found.rows.push(row),
                    None => found.absent.push(id.clone()),
                }
            }
        }
        if ids.is_empty() {
            found.as_of = self.rest.clock().await?;
        }
        self.add_parents(plan, &mut found.rows).await?;
        Ok(found)
    }

    /// Adds the columns of the rows' parents. They are true of later than the rows are, which is as good: a parent's
    /// column is true of a time of its own.
    fn add_parents<'a>(
        &'a self,
        plan: &'a Plan,
        rows: &'a mut [Row],
    ) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 'a>> {
        Box::pin(async move {
            for parent in &plan.parents {
                let ids: BTreeSet<RecordId> = rows
                    .iter()
                    .filter_map(|row| parent_id(row, &parent.reference))
                    .collect();
                let ids: Vec<RecordId> = ids.into_iter().collect();
                let found = if ids.is_empty() {
                    Vec::new()
                } else {
                    self.by_plan(&parent.plan, &ids).await?.rows
                };
                let found: HashMap<RecordId, Fields> = found
                    .into_iter()
                    .map(|row| (row.record, row.fields))
                    .collect();
                for row in &mut *rows {
                    add_parent(row, parent, &found);
                }
            }
            Ok(())
        })
    }

    async fn named(
        &self,
        plan: &Plan,
        address: String,
        as_of: &mut DateTime<Utc>,
    ) -> Result<HashMap<RecordId, Row>, Fault> {
        let prefer = self.prefer(false);
        let mut rows = HashMap::new();
        let mut link: Option<String> = None;
        loop {
            let read = match &link {
                None => self.rest.get(&address, Some(&prefer)).await,
                Some(link) => self.rest.follow(link, Some(&prefer)).await,
            };
            let answer = read.map_err(|refused| self.fault(plan, refused, "by id"))?;
            *as_of = self.rest.as_of(&answer)?.min(*as_of);
            let page = PageAnswer::parse(plan, answer.body())?;
            for row in page.rows(plan, self.links.incarnation())? {
                rows.insert(row.record.clone(), row);
            }
            match page.next {
                Some(next) => link = Some(next),
                None => return Ok(rows),
            }
        }
    }

    /// Page size and annotations; a polymorphic look-up can't be told apart without its table's name.
    pub(super) fn prefer(&self, track: bool) -> String {
        prefer(self.rest.settings().page_size, track)
    }

    /// Names what was read; a column that is gone makes the description stale.
    fn fault(&self, plan: &Plan, refused: Refused, how: &str) -> Fault {
        if refused.fault.kind() == FaultKind::Missing {
            self.describer.forget(&plan.description.schema.name);
        }
        refused
            .fault
            .context(format_args!("reading {} {how}", plan.table()))
    }
}

fn parent_id(row: &Row, reference: &FieldName) -> Option<RecordId> {
    let id = row.fields.get(reference)?.as_text()?;
    RecordId::guid(id).ok()
}

/// A row's columns of one parent: empty where there is none, or none that is to be seen; not told where the reference
/// is not.
fn add_parent(row: &mut Row, parent: &Parent, found: &HashMap<RecordId, Fields>) {
    if !row.fields.contains_key(&parent.reference) {
        return;
    }
    let known = parent_id(row, &parent.reference).and_then(|id| found.get(&id));
    for (field, own) in &parent.fields {
        let value = match known {
            Some(fields) => fields.get(own).cloned(),
            None => Some(Value::Null),
        };
        row.fields.extend(value.map(|value| (field.clone(), value)));
    }
}

/// The preferences of a read; a follow-up call repeats them, as a link does not hold them.
pub(super) fn prefer(page_size: u32, track: bool) -> String {
    let tracked = if track { "odata.track-changes," } else { "" };
    format!(
        "{tracked}odata.maxpagesize={page_size},odata.include-annotations=\"Microsoft.Dynamics.CRM.lookuplogicalname\""
    )
}

/// Rows by the time of their last change.
///
/// # Errors
/// `Missing` for a table that does not say when its rows changed.
pub(super) fn window(
    plan: &Plan,
    from: DateTime<Utc>,
    to: Option<DateTime<Utc>>,
) -> Result<String, Fault> {
    if !plan.description.has(MODIFIED) {
        let what = format!(
            "table `{}` does not say when its rows changed",
            plan.table()
        );
        return Err(Fault::new(FaultKind::Missing, what)
            .remedy("turn on \"Track changes\" in the table's properties, or leave it out"));
    }
    let at = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut filter = format!("{MODIFIED} ge {}", at(from));
    if let Some(to) = to {
        filter.push_str(&format!(" and {MODIFIED} lt {}", at(to)));
    }
    Ok(format!(
        "$filter={}&$orderby={MODIFIED},{}",
        percent(&filter),
        plan.description.key
    ))
}

/// Rows by key (Web API reference, "In query function").
fn names(plan: &Plan, ids: &[RecordId]) -> String {
    let list: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    let filter = format!(
        "Microsoft.Dynamics.CRM.In(PropertyName='{}',PropertyValues=[{}])",
        plan.description.key,
        list.join(",")
    );
    format!("$filter={}", percent(&filter))
}

/// Where a read over pages goes on.
enum Step {
    /// With the first page.
    Address(String),
    /// With the CRM's own link.
    Link(String),
    /// The last page was given: what the caller asks next makes it durable.
    Last(Option<String>),
    /// Nowhere.
    Done,
}

/// A read over pages. It changes nothing of itself before a page is whole, so a dropped wait loses nothing.
struct Read {
    reader: Arc<Reader>,
    plan: Plan,
    manner: Manner,
    resumes: bool,
    step: Step,
    /// When the whole read was begun, on the CRM's clock.
    began: Option<DateTime<Utc>>,
    as_of: Option<DateTime<Utc>>,
    canaries: Canaries,
    /// The page that proved that a resumed read can go on.
    fetched: Option<Answer>,
}

/// Where a read stopped.
#[derive(Serialize, Deserialize)]
struct Resume {
    link: String,
    fields: String,
    manner: Manner,
    began: DateTime<Utc>,
    #[serde(default)]
    canaries: Canaries,
}

#[async_trait]
impl Pages for Read {
    async fn next(&mut self) -> Result<Option<Page>, Fault> {
        let answer = match self.fetched.take() {
            Some(answer) => answer,
            None => match &self.step {
                Step::Done => return Ok(None),
                Step::Last(_) => {
                    self.follow();
                    return Ok(None);
                }
                Step::Address(_) | Step::Link(_) => {
                    let asked = self.ask().await;
                    match asked {
                        Err(refused)
                            if self.manner == Manner::Tracked && refused.is_not_tracked() =>
                        {
                            // Said to be tracked when it was described.
                            self.manner = Manner::Begins;
                            self.ask().await
                        }
                        asked => asked,
                    }
                    .map_err(|refused| self.reader.fault(&self.plan, refused, "page by page"))?
                }
            },
        };
        self.page(&answer).await.map(Some)
    }
}

impl Read {
    async fn ask(&self) -> Result<Answer, Refused> {
        let prefer = self.reader.prefer(self.manner == Manner::Tracked);
        match &self.step {
            Step::Address(path) => self.reader.rest.get(path, Some(&prefer)).await,
            Step::Link(link) => self.reader.rest.follow(link, Some(&prefer)).await,
            Step::Last(_) | Step::Done => {
                Err(Fault::new(FaultKind::Protocol, "the read is over").into())
            }
        }
    }

    async fn page(&mut self, answer: &Answer) -> Result<Page, Fault> {
        let began = answer.began()?;
        let as_of = match self.as_of {
            Some(as_of) => as_of,
            None => self.reader.rest.as_of(answer)?,
        };
        let page = PageAnswer::parse(&self.plan, answer.body())?;
        let mut rows = page.rows(&self.plan, self.reader.links.incarnation())?;
        let (next, delta) = (page.next, page.delta);
        self.reader.add_parents(&self.plan, &mut rows).await?;
        // From here on nothing can fail: the page is whole.
        let began = *self.began.get_or_insert(began);
        self.as_of = Some(as_of);
        for row in &rows {
            self.canaries.told(row);
        }
        let resume = next.as_ref().filter(|_| self.resumes).and_then(|link| {
            serde_json::to_string(&Resume {
                link: link.clone(),
                fields: self.plan.fields.clone(),
                manner: self.manner,
                began,
                canaries: self.canaries.clone(),
            })
            .ok()
        });
        self.step = match next {
            Some(next) => Step::Link(next),
            None => Step::Last(delta),
        };
        Ok(Page {
            rows,
            as_of,
            total: None,
            resume,
        })
    }

    /// All pages were taken: the table's changes are followed from the read's own beginning.
    fn follow(&mut self) {
        let Step::Last(delta) = std::mem::replace(&mut self.step, Step::Done) else {
            return;
        };
        let (true, Some(began)) = (self.manner != Manner::Plain, self.began) else {
            return;
        };
        let way = match delta.filter(|_| self.manner == Manner::Tracked) {
            Some(delta) => Way::Delta(delta),
            None => {
                tracing::warn!(
                    connection = %self.reader.rest.settings().connection, object = self.plan.table(),
                    "table tells no changes: it is asked for what was modified, and compared as a whole to find deletes; \
                     turn on \"Track changes\" in its properties"
                );
                Way::Modified(Modified {
                    from: began,
                    compared: began,
                })
            }
        };
        let link = Link {
            fields: self.plan.fields.clone(),
            way,
            sent: began,
            canaries: std::mem::take(&mut self.canaries),
        };
        let table = self.plan.description.schema.name.clone();
        self.reader.links.begin(table, link);
    }

    /// Goes on where an earlier read stopped, if the CRM still takes its link and it ends as this one must.
    async fn resume(&mut self, text: &str) -> Result<(), Fault> {
        let lost = |why: &str| {
            let what = format!("a read of {} {why}", self.plan.table());
            Fault::new(FaultKind::PositionLost, what)
        };
        let resume: Resume =
            serde_json::from_str(text).map_err(|_| lost("can't be gone on with"))?;
        if resume.fields != self.plan.fields {
            return Err(lost("was of other columns"));
        }
        if self.manner != Manner::Plain && resume.manner != self.manner {
            return Err(lost("would not begin the table's changes"));
        }
        self.manner = resume.manner;
        self.began = Some(resume.began);
        self.canaries = resume.canaries;
        self.step = Step::Link(resume.link);
        match self.ask().await {
            Ok(answer) => {
                self.fetched = Some(answer);
                Ok(())
            }
            Err(refused) if refused.is_expired() || matches!(refused.status, 400 | 404) => {
                Err(lost("can't be gone on with").source(refused.fault))
            }
            Err(refused) => Err(self.reader.fault(&self.plan, refused, "page by page")),
        }
    }
}

/// How far back a question by time reaches: a row's time is set at the statement, and a transaction lasts two minutes
/// at most.
pub(super) const REACH: TimeDelta = TimeDelta::minutes(3);

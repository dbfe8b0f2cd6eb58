//! Reads a job's file.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::TimeDelta;

use crate::config::document::{Node, Report};
use crate::config::job::destination::{
    self, POLICIES_OF_EMPTY, POLICIES_OF_EXIT, POLICIES_OF_MOVE,
};
use crate::config::job::{Brakes, JobConfig, Routine, trial};
use crate::config::nearest::nearest;
use crate::config::notify::Wish;
use crate::config::objects::Objects;
use crate::config::oob::{self, CrmKind};
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};
use crate::config::schedule::Schedule;
use crate::config::store::StoreConfig;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::policy::{OnEmptyIdentifier, OnExit, OnLostField, OnMove, Refresh};

/// What a job's names are looked up in.
pub(in crate::config) struct Context<'a> {
    /// Stored objects.
    pub(in crate::config) objects: &'a Objects,
    /// `[store]`.
    pub(in crate::config) store: &'a StoreConfig,
    /// The names of `[notify]`, absent where that can't be read.
    pub(in crate::config) names: Option<&'a BTreeSet<String>>,
    /// The ids of the connection's jobs.
    pub(in crate::config) jobs: &'a BTreeSet<&'a str>,
    /// The connection's kind; `None` where its file does not say.
    pub(in crate::config) kind: Option<CrmKind>,
    /// Its records say what currency their amounts are in.
    pub(in crate::config) multi_currency: bool,
    /// Where mistakes go.
    pub(in crate::config) report: &'a Report,
}

/// Whose records a job moves.
pub(super) struct Origin<'a> {
    /// The connection's id.
    pub(super) connection: &'a str,
    /// The CRM object; empty where the job names none.
    pub(super) source: &'a str,
}

pub(super) const NOT_OOB: &str = "changes an out-of-the-box job, which this is not";
const DAY: Duration = Duration::from_hours(24);
const DIGEST: Duration = Duration::from_hours(1);

/// Reads `[job.<connection>.<id>]`. `None` if what is left has no source or no destination to go on with.
pub(in crate::config) fn read(
    connection: &str,
    id: &str,
    node: &Node,
    context: &Context<'_>,
) -> Option<(JobConfig, Routine)> {
    let report = context.report;
    let mut reader = Reader::open(node, report)?;
    let source = source(&mut reader, id, context.kind);
    let name = reader.text("name");
    let enabled = reader.boolean("enabled");
    let realtime = reader.boolean("realtime");
    let full_sync = Schedule::read(&mut reader, "full_sync");
    let filter = reader.text("where");
    let on_delete = reader.word("on_delete", &POLICIES_OF_EXIT);
    let on_filter_exit = reader.word("on_filter_exit", &POLICIES_OF_EXIT);
    let on_empty_identifier = reader.word("on_empty_identifier", &POLICIES_OF_EMPTY);
    let policies = [
        ("continue", OnLostField::Continue),
        ("pause", OnLostField::Pause),
    ];
    let on_lost_field = reader.word("on_lost_field", &policies);
    let refreshes = [
        ("full_sync", Refresh::FullSync),
        ("on_change", Refresh::OnChange),
    ];
    let refresh = reader.word("refresh", &refreshes);
    let on_move = reader.word("on_move", &POLICIES_OF_MOVE);
    let parked_ttl = reader.duration("parked_ttl", Duration::from_secs(1), DAY * 3650);
    reader.refuse("replace", NOT_OOB, "remove it: the file is the whole job");
    reader.refuse("and_where", NOT_OOB, "write the whole filter in `where`");
    let realtime_fields = reader.texts("realtime_fields");
    idle(&mut reader, id, context);
    let notify = Wish::take(&mut reader, context.names);
    let digest = reader.duration("digest", Duration::from_secs(1), DAY * 365);
    let brakes = brakes(&mut reader);
    let origin = Origin {
        connection,
        source: source.as_ref().map_or("", |source| source.value.as_str()),
    };
    let destinations = destination::read_all(&mut reader, &origin, context);
    let tests = trial::read_all(&mut reader);
    reader.close();
    let job = JobConfig {
        connection: ConnectionId::new(connection),
        id: JobId::new(id),
        spot: node.spot.clone(),
        name: name.map_or_else(|| id.to_owned(), |name| name.value),
        source: source?,
        enabled: enabled.unwrap_or(true),
        realtime: realtime.unwrap_or(true),
        realtime_fields,
        filter,
        on_delete: on_delete.unwrap_or(OnExit::Keep),
        on_filter_exit: on_filter_exit.unwrap_or(OnExit::Keep),
        on_empty_identifier: on_empty_identifier.unwrap_or(OnEmptyIdentifier::Reject),
        on_move: on_move.unwrap_or(OnMove::Update),
        parked_ttl: TimeDelta::from_std(parked_ttl.unwrap_or(DAY * 30)).unwrap_or(TimeDelta::MAX),
        destinations,
    };
    let routine = Routine {
        full_sync: full_sync.map_or_else(Schedule::nightly, |schedule| schedule.value),
        on_lost_field: on_lost_field.unwrap_or_default(),
        refresh: refresh.unwrap_or_default(),
        brakes,
        notify,
        digest: digest.unwrap_or(DIGEST),
        tests,
    };
    Some((job, routine))
}

fn source(reader: &mut Reader<'_>, id: &str, kind: Option<CrmKind>) -> Option<Located<ObjectName>> {
    let remedy = "write the CRM object's API name: source = \"Account\"";
    // A file that means to change a job of the catalogue, and the connection did not ask for it.
    let is_of_catalogue = kind.is_some_and(|kind| oob::has_job(kind, id));
    let text = if is_of_catalogue {
        let ask = format!(
            "{remedy}; or let the connection ask for `{id}`: oob = {{ catalog = 1, jobs = [\"{id}\"] }}"
        );
        reader.required_text("source", &ask)?
    } else {
        reader.required_text("source", remedy)?
    };
    let good = text.value.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.value.len() <= 128
        && text
            .value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !good {
        let problem = Problem::new(&text.spot, "no API name of an object", remedy);
        reader.report.add(problem.value(shown(&text.value)));
        return None;
    }
    Some(text.map(ObjectName::new))
}

/// Keys that are checked, so that a config written for a later version is right, and do nothing yet.
fn idle(reader: &mut Reader<'_>, id: &str, context: &Context<'_>) {
    depends_on(reader, id, context);
    Schedule::read(reader, "schedule");
    reader.note_idle(
        "schedule",
        "changes are applied as they come, and a full sync as `full_sync` says",
    );
    reader.word("sync", &[("incremental", ()), ("full", ())]);
    reader.duration("freshness", Duration::from_secs(1), DAY * 365);
    reader.note_idle("freshness", "this version raises no alerts itself");
}

fn brakes(reader: &mut Reader<'_>) -> Brakes {
    let report = reader.report;
    let node = reader.take("brakes");
    let Some(mut inner) = node.and_then(|node| Reader::open(node, report)) else {
        return Brakes::default();
    };
    let defaults = Brakes::default();
    let min_rows = inner.integer("min_rows", 0..=i64::MAX);
    let mut percent = |key| {
        let number = inner.integer(key, 0..=100);
        number.and_then(|number| u8::try_from(number).ok())
    };
    let brakes = Brakes {
        min_rows: min_rows.map_or(defaults.min_rows, i64::cast_unsigned),
        max_delete_percent: percent("max_delete_percent").unwrap_or(defaults.max_delete_percent),
        max_null_percent: percent("max_null_percent").unwrap_or(defaults.max_null_percent),
        max_rejected_percent: percent("max_rejected_percent")
            .unwrap_or(defaults.max_rejected_percent),
    };
    inner.close();
    brakes
}

fn depends_on(reader: &mut Reader<'_>, id: &str, context: &Context<'_>) {
    for other in reader.texts("depends_on").unwrap_or_default() {
        let (what, remedy) = if other.value == id {
            ("depends on itself", "remove it".to_owned())
        } else if !context.jobs.contains(other.value.as_str()) {
            let near = nearest(&other.value, context.jobs.iter().copied());
            let remedy = near.map_or_else(
                || "write the id of a job of this connection".to_owned(),
                |near| format!("did you mean {near:?}?"),
            );
            ("no job of this connection", remedy)
        } else {
            continue;
        };
        let problem = Problem::new(&other.spot, what, remedy);
        context.report.add(problem.value(shown(&other.value)));
    }
    reader.note_idle(
        "depends_on",
        "a missing parent parks its children until it comes",
    );
}

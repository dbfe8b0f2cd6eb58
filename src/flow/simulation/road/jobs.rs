//! The jobs of these worlds: people with managers, companies with parents, deals that refer to both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;

use crate::config::job::{
    DeriveEntry, DeriveSource, DestinationConfig, JobConfig, MapEntry, MapSource,
};
use crate::config::problem::{Located, Spot};
use crate::flow::simulation::org::ACCOUNT_ID;
use crate::flow::simulation::org::PARENT_ID;
use crate::flow::simulation::rng::Rng;
use crate::flow::simulation::world::{account, contact};
use crate::mapping::compile::Mapping;
use crate::model::name::{FieldName, ObjectName};
use crate::model::policy::{OnEmptyIdentifier, OnExit, OnMove, OnMultiple, OnNone};
use crate::model::stored::{StoredField, StoredObject, StoredType};
use crate::model::value::{Fields, Value};

/// A stage that keeps a record out of its job.
pub const LOST: &str = "lost";
/// A stage that `values` does not know: the mapping refuses the record.
pub const ODD: &str = "odd";
/// A name that the target refuses without saying whose it is.
pub const POISON: &str = "poison";
/// Stages and what they are in the store.
pub const STAGES: [(&str, &str); 2] = [("open", "Open"), ("won", "Won")];

/// Every destination, and the compiled jobs.
pub struct Jobs {
    pub all: Vec<Job>,
    pub objects: Vec<StoredObject>,
}

/// A job as the oracle knows it, besides its mapping.
pub struct Job {
    pub id: &'static str,
    pub object: ObjectName,
    /// `Stage != 'lost'`.
    pub filtered: bool,
    pub destinations: Vec<Destination>,
    pub mapping: Arc<Mapping>,
}

/// A destination as the oracle knows it.
#[derive(Debug, Clone)]
pub struct Destination {
    label: &'static str,
    pub table: &'static str,
    /// `City != null`.
    pub needs_city: bool,
    /// Columns and the fields that fill them; `Id` is the identifier.
    pub columns: Vec<(&'static str, &'static str)>,
    pub references: Vec<Reference>,
    /// Refers to the row of the same record there.
    pub sibling: Option<(&'static str, &'static str)>,
    pub on_delete: OnExit,
    pub on_filter_exit: OnExit,
}

/// A derived column.
#[derive(Debug, Clone)]
pub struct Reference {
    pub column: &'static str,
    pub field: &'static str,
    pub table: &'static str,
    pub on_none: OnNone,
}

pub fn deal() -> ObjectName {
    ObjectName::new("Opportunity")
}

impl Job {
    /// Whether a living record has a row in that destination.
    pub fn takes(&self, fields: &Fields, destination: &Destination) -> bool {
        let is = |field: &str, text: &str| text_of(fields, field) == Some(text);
        let passes = !self.filtered || !is("Stage", LOST);
        passes && (!destination.needs_city || text_of(fields, "City").is_some())
    }

    /// Whether a living record belongs into the dead letters.
    pub fn refuses(&self, fields: &Fields) -> bool {
        let taken = |to: &&Destination| self.takes(fields, to);
        let mut filled = self
            .destinations
            .iter()
            .filter(taken)
            .flat_map(|to| &to.columns);
        filled.any(|(_, field)| match *field {
            "Stage" => text_of(fields, "Stage") == Some(ODD),
            "Name" => text_of(fields, "Name") == Some(POISON),
            _ => false,
        })
    }
}

pub fn text_of<'a>(fields: &'a Fields, field: &str) -> Option<&'a str> {
    fields.get(&FieldName::new(field)).and_then(Value::as_text)
}

impl Jobs {
    /// Jobs whose policies a seed draws.
    pub fn draw(rng: &mut Rng, parked_ttl: TimeDelta) -> Self {
        let mut refer = |column, field, table| Reference {
            column,
            field,
            table,
            on_none: if rng.one_in(2) {
                OnNone::Null
            } else {
                OnNone::Reject
            },
        };
        let parent = refer("parent", PARENT_ID, "company");
        let manager = refer("manager", PARENT_ID, "person");
        let employer = refer("company", ACCOUNT_ID, "company");
        let customer = refer("company", ACCOUNT_ID, "company");
        let buyer = refer("person", PARENT_ID, "person");
        let mut to = |label, table, columns: &[(&'static str, &'static str)], references| {
            let mut exit = || match rng.below(4) {
                0 => OnExit::Keep,
                1 => OnExit::Mark,
                _ => OnExit::Delete,
            };
            Destination {
                label,
                table,
                needs_city: false,
                columns: columns.to_vec(),
                references,
                sibling: None,
                on_delete: exit(),
                on_filter_exit: exit(),
            }
        };
        let named = [("external_id", "Id"), ("name", "Name")];
        let staged = [
            ("external_id", "Id"),
            ("name", "Name"),
            ("city", "City"),
            ("stage", "Stage"),
        ];
        let placed = [("external_id", "Id"), ("city", "City")];
        let company = to("Company", "company", &staged, vec![parent]);
        let person = to("Person", "person", &named, vec![manager]);
        let employed = Destination {
            needs_city: true,
            sibling: Some(("person", "person")),
            ..to("Company Person", "company_person", &placed, vec![employer])
        };
        let deals = to("Deal", "deal", &named, vec![customer, buyer]);
        let objects = vec![
            stored(&company, &[]),
            stored(&person, &[]),
            stored(&employed, &["person"]),
            stored(&deals, &[]),
        ];
        let jobs = [
            ("companies", account(), true, vec![company]),
            ("people", contact(), true, vec![person, employed]),
            ("deals", deal(), false, vec![deals]),
        ];
        let all = jobs.map(|(id, object, filtered, destinations)| {
            let config = config(id, &object, filtered, &destinations, parked_ttl);
            Job {
                id,
                object,
                filtered,
                destinations,
                mapping: Arc::new(compiled(&config, &objects)),
            }
        });
        Self {
            all: all.into(),
            objects,
        }
    }

    /// What ingest has to select.
    pub fn selected(&self) -> BTreeMap<ObjectName, BTreeSet<FieldName>> {
        let fields = |job: &Job| {
            let fields = job.mapping.plan().fields.iter();
            fields
                .filter(|field| field.as_str() != "Id")
                .cloned()
                .collect()
        };
        let all = self.all.iter();
        all.map(|job| (job.object.clone(), fields(job))).collect()
    }
}

fn compiled(config: &JobConfig, objects: &[StoredObject]) -> Mapping {
    let by_label = objects
        .iter()
        .map(|object| (object.label.clone(), object.clone()));
    Mapping::compile(config, &by_label.collect()).unwrap_or_else(|problems| {
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{}", told.join("\n"))
    })
}

fn at<T>(value: impl Into<T>) -> Located<T> {
    Located {
        value: value.into(),
        spot: Spot {
            file: Arc::from("jobs/acme/made.toml"),
            line: 1,
            key: String::new(),
        },
    }
}

fn stored(of: &Destination, more: &[&str]) -> StoredObject {
    let field = |column: &str, ty, references: Option<&str>| StoredField {
        column: column.to_owned(),
        label: column.to_owned(),
        ty,
        references: references.map(str::to_owned),
    };
    let direct = of.columns.iter();
    let direct = direct.map(|(column, _)| field(column, StoredType::String, None));
    let derived = of.references.iter();
    let derived = derived.map(|of| field(of.column, StoredType::Gsid, Some(of.table)));
    let more = more.iter();
    let more = more.map(|column| field(column, StoredType::Gsid, None));
    StoredObject {
        table: of.table.to_owned(),
        label: of.label.to_owned(),
        fields: direct.chain(derived).chain(more).collect(),
    }
}

fn config(
    id: &str,
    source: &ObjectName,
    filtered: bool,
    destinations: &[Destination],
    parked_ttl: TimeDelta,
) -> JobConfig {
    JobConfig {
        connection: "acme".into(),
        id: id.into(),
        spot: at::<String>("").spot,
        name: id.to_owned(),
        source: at(source.as_str()),
        enabled: true,
        realtime: true,
        realtime_fields: None,
        filter: filtered.then(|| at("Stage != 'lost'")),
        on_delete: OnExit::Keep,
        on_filter_exit: OnExit::Keep,
        on_empty_identifier: OnEmptyIdentifier::Reject,
        on_move: OnMove::Update,
        parked_ttl,
        destinations: destinations.iter().map(destination).collect(),
    }
}

fn destination(of: &Destination) -> DestinationConfig {
    let map = of.columns.iter().map(|(column, field)| MapEntry {
        column: at(*column),
        source: MapSource::Path(at(*field)),
        values: (*field == "Stage").then(|| {
            let pairs = STAGES.iter();
            pairs
                .map(|(from, to)| ((*from).to_owned(), Value::from(*to)))
                .collect()
        }),
        default: None,
        insert_only: false,
        keep_on_null: false,
    });
    let references = of.references.iter().map(|of| DeriveEntry {
        column: at(of.column),
        by: DeriveSource::Match {
            from: at(label_of(of.table)),
            pairs: vec![(at("@id"), at(of.field))],
        },
        on_multiple: OnMultiple::Error,
        on_none: of.on_none,
    });
    let sibling = of.sibling.iter().map(|(column, table)| DeriveEntry {
        column: at(*column),
        by: DeriveSource::Sibling(at(label_of(table))),
        on_multiple: OnMultiple::Error,
        on_none: OnNone::Reject,
    });
    DestinationConfig {
        object: at(of.label),
        filter: of.needs_city.then(|| at("City != null")),
        identifiers: vec![at("external_id")],
        map: map.collect(),
        derive: references.chain(sibling).collect(),
        on_delete: Some(of.on_delete),
        on_filter_exit: Some(of.on_filter_exit),
        on_empty_identifier: None,
        on_move: None,
    }
}

fn label_of(table: &str) -> &'static str {
    match table {
        "company" => "Company",
        "person" => "Person",
        _ => "Deal",
    }
}

//! Stored objects, plans and rows for the suite, built by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::mapping::plan::{
    Cell, DeriveBy, DerivePlan, DestinationPlan, IdentifierPlan, JobPlan, Life, MappedRow,
    MatchKey, PlanColumn, Reference,
};
use crate::model::policy::{OnEmptyIdentifier, OnExit, OnMove, OnMultiple, OnNone};
use crate::model::record_id::RecordId;
use crate::model::stored::{StoredField, StoredObject, StoredType};
use crate::model::version::Version;

/// A table with its columns; a `gsid` column points to the table after its type.
pub fn object(table: &str, fields: &[(&str, StoredType)]) -> StoredObject {
    StoredObject {
        table: table.to_owned(),
        label: table.to_uppercase(),
        fields: fields
            .iter()
            .map(|(column, ty)| StoredField {
                column: (*column).to_owned(),
                label: column.to_uppercase(),
                ty: *ty,
                references: None,
            })
            .collect(),
    }
}

/// The tables that the suite's cases share.
pub fn objects() -> Vec<StoredObject> {
    use StoredType::{Email, Gsid, Number, String};
    vec![
        object(
            "company",
            &[
                ("name", String),
                ("external_id", String),
                ("employees", Number),
                ("parent", Gsid),
            ],
        ),
        object(
            "person",
            &[
                ("name", String),
                ("email", Email),
                ("notes", String),
                ("company", Gsid),
                ("manager", Gsid),
            ],
        ),
        object(
            "company person",
            &[("person", Gsid), ("company", Gsid), ("role", String)],
        ),
    ]
}

/// A plan without derived columns, identifiers and exits.
pub fn plan(table: &str, columns: &[(&str, StoredType)]) -> DestinationPlan {
    DestinationPlan {
        table: table.to_owned(),
        label: table.to_uppercase(),
        columns: columns
            .iter()
            .map(|(name, ty)| PlanColumn {
                name: (*name).to_owned(),
                ty: *ty,
                insert_only: false,
                keep_on_null: false,
            })
            .collect(),
        derives: Vec::new(),
        identifiers: Vec::new(),
        on_empty_identifier: OnEmptyIdentifier::Insert,
        on_delete: OnExit::Delete,
        on_filter_exit: OnExit::Delete,
        on_move: OnMove::Update,
        owners: BTreeMap::new(),
        scheduled: BTreeSet::new(),
        keys: BTreeSet::new(),
        is_looked_up: true,
    }
}

/// Companies by external id.
pub fn company() -> DestinationPlan {
    use StoredType::{Number, String};
    let columns = [
        ("name", String),
        ("external_id", String),
        ("employees", Number),
    ];
    plan("company", &columns).identified(&["external_id"])
}

/// Persons by e-mail.
pub fn person() -> DestinationPlan {
    use StoredType::{Email, String};
    let columns = [("name", String), ("email", Email), ("notes", String)];
    plan("person", &columns).identified(&["email"])
}

/// A derived column that is null until its row comes, and takes any of several.
pub fn by_id(column: &str, table: &str) -> DerivePlan {
    by(column, table, vec![MatchKey::RecordId])
}

/// A derived column by other match keys.
pub fn by(column: &str, table: &str, keys: Vec<MatchKey>) -> DerivePlan {
    DerivePlan {
        column: column.to_owned(),
        table: table.to_owned(),
        by: DeriveBy::Match(keys),
        on_multiple: OnMultiple::Any,
        on_none: OnNone::Null,
    }
}

/// A derived column of the record's own row in an earlier destination.
pub fn sibling(column: &str, table: &str) -> DerivePlan {
    DerivePlan {
        by: DeriveBy::Sibling(table.to_owned()),
        ..by_id(column, table)
    }
}

/// A match on a column.
pub fn on(name: &str, ty: StoredType) -> MatchKey {
    MatchKey::Column {
        name: name.to_owned(),
        ty,
        case_blind: ty == StoredType::Email,
    }
}

impl DestinationPlan {
    pub fn identified(mut self, columns: &[&str]) -> Self {
        self.identifiers = columns
            .iter()
            .map(|column| IdentifierPlan {
                column: (*column).to_owned(),
                case_blind: *column == "email",
            })
            .collect();
        self
    }

    pub fn derive(mut self, derive: DerivePlan) -> Self {
        self.derives.push(derive);
        self
    }

    pub fn exits(mut self, on_delete: OnExit, on_filter_exit: OnExit) -> Self {
        self.on_delete = on_delete;
        self.on_filter_exit = on_filter_exit;
        self
    }

    /// Columns that are another connection's where it holds the row.
    pub fn owned(mut self, columns: &[&str], connection: &str) -> Self {
        for column in columns {
            let owners = self.owners.entry((*column).to_owned()).or_default();
            owners.insert(connection.into());
        }
        self
    }

    /// Columns that a row which is there gets by full syncs alone.
    pub fn scheduled(mut self, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned());
        self.scheduled = columns.collect();
        self
    }

    /// Columns by which others find its rows.
    pub fn keyed(mut self, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned());
        self.keys = columns.collect();
        self
    }

    pub fn moving(mut self, on_move: OnMove) -> Self {
        self.on_move = on_move;
        self
    }

    pub fn column(&mut self, name: &str) -> &mut PlanColumn {
        let found = self.columns.iter_mut().find(|column| column.name == name);
        found.expect("a column of the plan")
    }
}

impl DerivePlan {
    pub fn on_none(mut self, on_none: OnNone) -> Self {
        self.on_none = on_none;
        self
    }

    pub fn on_multiple(mut self, on_multiple: OnMultiple) -> Self {
        self.on_multiple = on_multiple;
        self
    }
}

/// A job of some destinations, as `prepare` takes it.
pub fn job(connection: &str, name: &str, destinations: &[&Arc<DestinationPlan>]) -> JobPlan {
    JobPlan {
        connection: connection.into(),
        job: name.into(),
        source: "Object".into(),
        fields: Vec::new(),
        destinations: destinations.iter().map(|plan| Arc::clone(plan)).collect(),
    }
}

/// A row on its way to a destination.
#[derive(Debug, Clone)]
pub struct Row {
    pub plan: Arc<DestinationPlan>,
    pub row: MappedRow,
}

/// A present record whose fields are all empty.
pub fn row(plan: &Arc<DestinationPlan>, record: &str, version: u64) -> Row {
    Row {
        plan: Arc::clone(plan),
        row: MappedRow {
            record: RecordId::stored(record),
            version: Version::new(1, version),
            place: (0, version),
            synced: None,
            committed_at: None,
            life: Life::Present,
            cells: vec![Some(Cell::Null); plan.columns.len()],
            references: vec![Some(Reference::Empty); plan.derives.len()],
        },
    }
}

pub fn deleted(plan: &Arc<DestinationPlan>, record: &str, version: u64) -> Row {
    row(plan, record, version).life(Life::Deleted)
}

pub fn filtered(plan: &Arc<DestinationPlan>, record: &str, version: u64) -> Row {
    row(plan, record, version).life(Life::Filtered)
}

impl Row {
    pub fn life(mut self, life: Life) -> Self {
        self.row.life = life;
        self
    }

    pub fn cell(mut self, column: &str, cell: impl Into<Option<Cell>>) -> Self {
        let index = self
            .plan
            .columns
            .iter()
            .position(|plan| plan.name == column);
        self.row.cells[index.expect("a column of the plan")] = cell.into();
        self
    }

    pub fn text(self, column: &str, value: &str) -> Self {
        self.cell(column, text(value))
    }

    pub fn number(self, column: &str, digits: &str) -> Self {
        self.cell(column, Cell::Number(digits.into()))
    }

    pub fn reference(mut self, column: &str, reference: impl Into<Option<Reference>>) -> Self {
        let index = self
            .plan
            .derives
            .iter()
            .position(|derive| derive.column == column);
        self.row.references[index.expect("a derived column")] = reference.into();
        self
    }

    /// A reference by texts.
    pub fn to(self, column: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|value| text(value)).collect();
        self.reference(column, Reference::Values(values))
    }

    pub fn sibling(self, column: &str) -> Self {
        self.reference(column, Reference::Sibling)
    }

    pub fn committed_at(mut self, at: DateTime<Utc>) -> Self {
        self.row.committed_at = Some(at);
        self
    }

    /// The newest version that a full sync told.
    pub fn synced(mut self, version: u64) -> Self {
        self.row.synced = Some(Version::new(1, version));
        self
    }

    pub fn at(mut self, partition: u32, offset: u64) -> Self {
        self.row.place = (partition, offset);
        self
    }
}

pub fn text(value: &str) -> Cell {
    Cell::Text(value.into())
}

//! Compiles a job, and finds every mistake in it on the way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::config::job::{
    DeriveEntry, DeriveSource, DestinationConfig, JobConfig, MapEntry, MapSource,
};
use crate::config::problem::{Located, Problem};
use crate::mapping::cast::{cast, type_name};
use crate::mapping::plan::{
    Cell, DeriveBy, DerivePlan, DestinationPlan, IdentifierPlan, JobPlan, MatchKey, PlanColumn,
};
use crate::mapping::{filter, path};
use crate::model::change::selected::Selection;
use crate::model::name::FieldName;
use crate::model::stored::{StoredField, StoredObject, StoredType};
use crate::model::value::Value;

use super::nearest::nearest;
use super::realtime;
use super::{Bound, ColumnRule, DeriveRule, KeyType, Mapping, Rules, Source};

/// Pairs of one look-up, as Gainsight's derived mappings have it.
const MAX_PAIRS: usize = 6;

pub(super) fn compile(
    job: &JobConfig,
    objects: &BTreeMap<String, StoredObject>,
) -> Result<Mapping, Vec<Problem>> {
    let mut compiler = Compiler {
        objects,
        fields: Vec::new(),
        problems: Vec::new(),
    };
    let filter = job.filter.as_ref().and_then(|text| compiler.filter(text));
    if job.destinations.is_empty() {
        compiler.problems.push(Problem::new(
            &job.spot,
            "the job has no destination",
            "add a table `[to.<object>]` with its mappings",
        ));
    }
    let at = 0..job.destinations.len();
    let compiled = at.filter_map(|at| compiler.destination(job, at));
    let mut compiled: Vec<_> = compiled.collect();
    if compiled.len() == job.destinations.len() {
        let unknown = realtime::schedule(job, &compiler.fields, &mut compiled);
        compiler.problems.extend(unknown);
    }
    let (destinations, rules): (Vec<_>, _) = compiled.into_iter().unzip();
    if !compiler.problems.is_empty() {
        return Err(compiler.problems);
    }
    let plan = JobPlan {
        connection: job.connection.clone(),
        job: job.id.clone(),
        source: job.source.value.clone(),
        fields: compiler.fields,
        destinations: destinations.into_iter().map(Arc::new).collect(),
    };
    Ok(Mapping {
        selection: Selection::new(&plan.fields),
        plan,
        filter,
        rules,
    })
}

struct Compiler<'a> {
    objects: &'a BTreeMap<String, StoredObject>,
    /// What the job reads; rules name fields by their place here.
    fields: Vec<FieldName>,
    problems: Vec<Problem>,
}

/// What fills a column, for a second one that wants to.
type Filled<'a> = HashMap<&'a str, &'static str>;

impl<'a> Compiler<'a> {
    fn problem(
        &mut self,
        at: &Located<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems
            .push(Problem::new(&at.spot, what, remedy).value(format!("`{}`", at.value)));
    }

    fn slot(&mut self, field: FieldName) -> usize {
        let known = self.fields.iter().position(|known| *known == field);
        known.unwrap_or_else(|| {
            self.fields.push(field);
            self.fields.len() - 1
        })
    }

    fn filter(&mut self, text: &Located<String>) -> Option<Bound> {
        match filter::parse(&text.value) {
            Ok(filter) => {
                let slots = filter.fields().iter().map(|field| self.slot(field.clone()));
                Some(Bound {
                    slots: slots.collect(),
                    filter,
                })
            }
            Err(error) => {
                let what = format!("at character {}: {}", error.position, error.what);
                self.problem(text, what, error.remedy);
                None
            }
        }
    }

    fn path(&mut self, text: &Located<String>) -> Option<usize> {
        match path::parse(&text.value) {
            Ok(field) => Some(self.slot(field)),
            Err(invalid) => {
                self.problem(text, invalid.what, invalid.remedy);
                None
            }
        }
    }

    fn object(&mut self, label: &Located<String>) -> Option<&'a StoredObject> {
        let found = self
            .objects
            .values()
            .find(|object| object.label == label.value);
        if found.is_none() {
            let labels = self.objects.values().map(|object| object.label.as_str());
            let remedy = nearest(&label.value, labels).map_or_else(
                || {
                    "use the label of a stored object, or declare one in `objects/<name>.toml`"
                        .to_owned()
                },
                |near| format!("did you mean `{near}`?"),
            );
            self.problem(label, "there is no stored object of that label", remedy);
        }
        found
    }

    /// A column of an object, if the object is known.
    fn column(
        &mut self,
        object: Option<&'a StoredObject>,
        name: &Located<String>,
    ) -> Option<&'a StoredField> {
        if is_reserved(&name.value) {
            self.problem(
                name,
                "the column is written by the store itself",
                "map to another column; `gsid`, `created_date`, `modified_date` and `crm_state…` are kept for every row",
            );
            return None;
        }
        let object = object?;
        let found = object.field(&name.value);
        if found.is_none() {
            let columns = object.fields.iter().map(|field| field.column.as_str());
            let remedy = nearest(&name.value, columns).map_or_else(
                || {
                    format!(
                        "declare it in `objects/{}.toml`, or correct its name",
                        object.table
                    )
                },
                |near| {
                    format!(
                        "did you mean `{near}`? A new column is declared in `objects/{}.toml`",
                        object.table
                    )
                },
            );
            self.problem(name, format!("{} has no such column", object.label), remedy);
        }
        found
    }

    fn destination(&mut self, job: &'a JobConfig, at: usize) -> Option<(DestinationPlan, Rules)> {
        let config = &job.destinations[at];
        let object = self.object(&config.object);
        let earlier = &job.destinations[..at];
        if earlier
            .iter()
            .any(|other| other.object.value == config.object.value)
        {
            self.problem(
                &config.object,
                "two destinations write the same object",
                "put the mappings of both into one destination, or into two jobs",
            );
        }
        let filter = config.filter.as_ref().and_then(|text| self.filter(text));
        let mut filled = Filled::new();
        let mapped = self.columns(config, object, &mut filled);
        let derived = self.derives(config, object, job, at, &mut filled);
        let identifiers = self.identifiers(config, object, &filled);
        let object = object?;
        let (columns, mut column_rules): (Vec<_>, Vec<_>) = mapped.into_iter().unzip();
        let (derives, derive_rules) = derived.into_iter().unzip();
        for (column, rule) in columns.iter().zip(&mut column_rules) {
            rule.identifier = identifiers.iter().any(|one| one.column == column.name);
        }
        let plan = DestinationPlan {
            table: object.table.clone(),
            label: object.label.clone(),
            columns,
            derives,
            identifiers,
            on_empty_identifier: config
                .on_empty_identifier
                .unwrap_or(job.on_empty_identifier),
            on_delete: config.on_delete.unwrap_or(job.on_delete),
            on_filter_exit: config.on_filter_exit.unwrap_or(job.on_filter_exit),
            on_move: config.on_move.unwrap_or(job.on_move),
            owners: BTreeMap::new(),
            scheduled: BTreeSet::new(),
            keys: BTreeSet::new(),
            is_looked_up: true,
        };
        let rules = Rules {
            filter,
            columns: column_rules,
            derives: derive_rules,
        };
        Some((plan, rules))
    }

    fn fill(&mut self, column: &'a Located<String>, by: &'static str, filled: &mut Filled<'a>) {
        if let Some(other) = filled.insert(&column.value, by) {
            let what = if other == by {
                format!("the column is {by} twice")
            } else {
                format!("the column is {other} and {by}")
            };
            self.problem(column, what, "fill a column in one way");
        }
    }

    fn columns(
        &mut self,
        config: &'a DestinationConfig,
        object: Option<&'a StoredObject>,
        filled: &mut Filled<'a>,
    ) -> Vec<(PlanColumn, ColumnRule)> {
        let mut columns = Vec::with_capacity(config.map.len());
        for entry in &config.map {
            self.fill(&entry.column, "mapped", filled);
            let field = self.column(object, &entry.column);
            let source = self.source(entry, field);
            // Without the column its values can't be judged; the mistake is told already.
            let Some(field) = field else { continue };
            let values = self.values(entry, field);
            let default = entry
                .default
                .as_ref()
                .and_then(|value| self.constant(value, field));
            if let Some(from) = source {
                let column = PlanColumn {
                    name: field.column.clone(),
                    ty: field.ty,
                    insert_only: entry.insert_only,
                    keep_on_null: entry.keep_on_null,
                };
                let rule = ColumnRule {
                    from,
                    values,
                    default: default.unwrap_or(Cell::Null),
                    identifier: false,
                };
                columns.push((column, rule));
            }
        }
        columns
    }

    fn source(&mut self, entry: &MapEntry, field: Option<&StoredField>) -> Option<Source> {
        match &entry.source {
            MapSource::Path(text) => self.path(text).map(Source::Field),
            MapSource::Constant(value) => {
                if entry.values.is_some() || entry.default.is_some() {
                    self.problem(
                        &entry.column,
                        "a constant takes neither `values` nor `default`",
                        "write the constant that the column shall have",
                    );
                }
                self.constant(value, field?).map(Source::Constant)
            }
        }
    }

    fn constant(&mut self, value: &Located<Value>, field: &StoredField) -> Option<Cell> {
        match cast(&value.value, field.ty) {
            Ok(cell) => Some(cell),
            Err(error) => {
                let what = format!("the value is not {}", error.wanted);
                let remedy = format!(
                    "column `{}` is of type {}",
                    field.column,
                    type_name(field.ty)
                );
                let problem =
                    Problem::new(&value.spot, what, remedy).value(format!("`{}`", error.value));
                self.problems.push(problem);
                None
            }
        }
    }

    fn values(&mut self, entry: &MapEntry, field: &StoredField) -> Option<HashMap<Box<str>, Cell>> {
        let mut cells = HashMap::new();
        for (from, to) in entry.values.as_ref()? {
            let located = Located {
                value: to.clone(),
                spot: entry.column.spot.clone(),
            };
            if let Some(cell) = self.constant(&located, field) {
                cells.insert(from.as_str().into(), cell);
            }
        }
        Some(cells)
    }

    fn derives(
        &mut self,
        config: &'a DestinationConfig,
        object: Option<&'a StoredObject>,
        job: &'a JobConfig,
        at: usize,
        filled: &mut Filled<'a>,
    ) -> Vec<(DerivePlan, DeriveRule)> {
        let mut derives = Vec::with_capacity(config.derive.len());
        for entry in &config.derive {
            self.fill(&entry.column, "derived", filled);
            let field = self.column(object, &entry.column);
            if let Some(field) = field.filter(|field| field.ty != StoredType::Gsid) {
                self.problem(
                    &entry.column,
                    format!(
                        "a look-up yields a GSID, and the column is of type {}",
                        type_name(field.ty)
                    ),
                    "derive a column of type gsid, or map this one",
                );
            }
            let found = match &entry.by {
                DeriveSource::Match { from, pairs } => self.matched(entry, from, pairs),
                DeriveSource::Sibling(label) => self.sibling(label, job, at),
            };
            let (Some(field), Some((table, by, rule))) = (field, found) else {
                continue;
            };
            if let Some(points_to) = field
                .references
                .as_ref()
                .filter(|points_to| **points_to != table)
            {
                self.problem(
                    &entry.column,
                    format!("the column points to `{points_to}`, and the look-up finds rows of `{table}`"),
                    format!("look up `{points_to}`, or derive another column"),
                );
            }
            let plan = DerivePlan {
                column: field.column.clone(),
                table,
                by,
                on_multiple: entry.on_multiple,
                on_none: entry.on_none,
            };
            derives.push((plan, rule));
        }
        derives
    }

    fn matched(
        &mut self,
        entry: &DeriveEntry,
        from: &Located<String>,
        pairs: &'a [(Located<String>, Located<String>)],
    ) -> Option<(String, DeriveBy, DeriveRule)> {
        let object = self.object(from);
        if pairs.is_empty() || pairs.len() > MAX_PAIRS {
            self.problem(
                &entry.column,
                format!(
                    "a look-up has one to {MAX_PAIRS} pairs, not {}",
                    pairs.len()
                ),
                "match by fewer columns, the most telling ones",
            );
        }
        let (mut keys, mut rules) = (Vec::new(), Vec::new());
        for (column, source) in pairs {
            let key = if column.value == "@id" {
                Some((MatchKey::RecordId, KeyType::RecordId))
            } else {
                self.column(object, column).map(match_key)
            };
            let slot = self.path(source);
            if let (Some((key, ty)), Some(slot)) = (key, slot) {
                keys.push(key);
                rules.push((slot, ty));
            }
        }
        Some((
            object?.table.clone(),
            DeriveBy::Match(keys),
            DeriveRule::Match(rules),
        ))
    }

    fn sibling(
        &mut self,
        label: &Located<String>,
        job: &JobConfig,
        at: usize,
    ) -> Option<(String, DeriveBy, DeriveRule)> {
        let place = job
            .destinations
            .iter()
            .position(|destination| destination.object.value == label.value);
        match place {
            Some(place) if place < at => {}
            Some(_) => {
                self.problem(
                    label,
                    "a sibling must be a destination that comes before this one",
                    "put the destination that is looked up first",
                );
                return None;
            }
            None => {
                self.problem(
                    label,
                    "the job has no such destination",
                    "name an earlier destination of this job, or look the row up with `from` and `match`",
                );
                return None;
            }
        }
        // An unknown object was told where it stands as a destination.
        let object = self
            .objects
            .values()
            .find(|object| object.label == label.value)?;
        let table = object.table.clone();
        Some((table.clone(), DeriveBy::Sibling(table), DeriveRule::Sibling))
    }

    fn identifiers(
        &mut self,
        config: &DestinationConfig,
        object: Option<&'a StoredObject>,
        filled: &Filled<'a>,
    ) -> Vec<IdentifierPlan> {
        if config.identifiers.is_empty() {
            self.problem(
                &config.object,
                "the destination has no identifier",
                "name the columns by which a stored row is recognised: identifiers = [\"…\"]",
            );
        }
        let mut identifiers: Vec<IdentifierPlan> = Vec::with_capacity(config.identifiers.len());
        for name in &config.identifiers {
            if identifiers.iter().any(|known| known.column == name.value) {
                self.problem(
                    name,
                    "the identifier is named twice",
                    "remove one of the two",
                );
                continue;
            }
            let field = self.column(object, name);
            let is_known = field.is_some() || (object.is_none() && !is_reserved(&name.value));
            if is_known && !filled.contains_key(name.value.as_str()) {
                self.problem(
                    name,
                    "the identifier is neither mapped nor derived",
                    "add it to `map` or `derive`, or name another column",
                );
            }
            identifiers.extend(field.map(|field| IdentifierPlan {
                column: field.column.clone(),
                case_blind: is_case_blind(field),
            }));
        }
        identifiers
    }
}

fn match_key(field: &StoredField) -> (MatchKey, KeyType) {
    let key = MatchKey::Column {
        name: field.column.clone(),
        ty: field.ty,
        case_blind: is_case_blind(field),
    };
    (key, KeyType::Column(field.ty))
}

/// E-mail addresses and user names are.
fn is_case_blind(field: &StoredField) -> bool {
    field.ty == StoredType::Email || matches!(field.column.as_str(), "username" | "user_name")
}

fn is_reserved(column: &str) -> bool {
    matches!(column, "gsid" | "created_date" | "modified_date") || column.starts_with("crm_state")
}

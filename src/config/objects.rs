//! Stored objects: those compiled in, and the operator's patches and own ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::document::{Node, Report, Table, parse};
use crate::config::nearest::nearest;
use crate::config::placeholder::INSTANCE;
use crate::config::problem::{BUILT_IN, Located, Problem, Spot};
use crate::config::reader::{Reader, shown};
use crate::model::stored::{StoredField, StoredObject, StoredType};

/// Table and text of each standard object.
const STANDARD: [(&str, &str); 14] = [
    ("user", include_str!("../../config/objects/user.toml")),
    ("company", include_str!("../../config/objects/company.toml")),
    ("person", include_str!("../../config/objects/person.toml")),
    (
        "company_person",
        include_str!("../../config/objects/company_person.toml"),
    ),
    ("case", include_str!("../../config/objects/case.toml")),
    (
        "currency_coefficient",
        include_str!("../../config/objects/currency_coefficient.toml"),
    ),
    (
        "opportunity",
        include_str!("../../config/objects/opportunity.toml"),
    ),
    (
        "company_team",
        include_str!("../../config/objects/company_team.toml"),
    ),
    (
        "user_avatar",
        include_str!("../../config/objects/user_avatar.toml"),
    ),
    (
        "opportunity_stage",
        include_str!("../../config/objects/opportunity_stage.toml"),
    ),
    (
        "opportunity_line_item",
        include_str!("../../config/objects/opportunity_line_item.toml"),
    ),
    ("product", include_str!("../../config/objects/product.toml")),
    (
        "price_book",
        include_str!("../../config/objects/price_book.toml"),
    ),
    (
        "price_book_entry",
        include_str!("../../config/objects/price_book_entry.toml"),
    ),
];

/// Columns that every table has and no job writes.
pub(super) const RESERVED: [&str; 5] = [
    "gsid",
    "created_date",
    "modified_date",
    "crm_state",
    "crm_state_at",
];

/// Names longer than this are cut by PostgreSQL.
const LONGEST: usize = 63;
/// SQLite takes 2,000 columns, PostgreSQL 1,600.
const MOST_COLUMNS: usize = 1000;

const TYPES: [(&str, StoredType); 13] = [
    ("string", StoredType::String),
    ("number", StoredType::Number),
    ("currency", StoredType::Currency),
    ("percentage", StoredType::Percentage),
    ("boolean", StoredType::Boolean),
    ("date", StoredType::Date),
    ("datetime", StoredType::DateTime),
    ("picklist", StoredType::Picklist),
    ("multi_select", StoredType::MultiSelect),
    ("gsid", StoredType::Gsid),
    ("email", StoredType::Email),
    ("url", StoredType::Url),
    ("rich_text", StoredType::RichText),
];

/// All stored objects by label.
pub(super) struct Objects {
    /// By label.
    pub(super) by_label: BTreeMap<String, StoredObject>,
    /// No object file was unreadable: what is not here is nowhere.
    pub(super) complete: bool,
}

impl Objects {
    /// The standard objects with what `[object.<table>]` adds.
    /// A column with `{instance}` in its name is one for each of `instances`.
    pub(super) fn parse(tree: &Node, instances: &BTreeSet<String>, report: &Report) -> Self {
        let mut loader = Loader {
            tables: BTreeMap::new(),
            instances,
            references: Vec::new(),
            complete: true,
            report,
        };
        for (table, text) in STANDARD {
            let node = parse(&format!("objects/{table}.toml{BUILT_IN}"), text, report);
            loader.object(table, &node);
        }
        let section = Reader::open_section(tree, "object", report);
        for (table, node) in section.entries() {
            if check_name(table, "table", &node.spot, report) {
                loader.object(table, node);
            }
        }
        loader.finish()
    }

    /// The object of a label; reports one that is not there.
    pub(super) fn find(&self, label: &Located<String>, report: &Report) -> Option<&StoredObject> {
        let found = self.by_label.get(&label.value);
        if found.is_none() && self.complete {
            let labels = || self.by_label.keys().map(String::as_str);
            let by_table = labels().find(|name| self.by_label[*name].table == label.value);
            let remedy = by_table
                .or_else(|| nearest(&label.value, labels()))
                .map_or_else(
                    || {
                        "declare it in objects/<table>.toml; objects are named by their label"
                            .to_owned()
                    },
                    |near| format!("did you mean {near:?}?"),
                );
            let problem = Problem::new(&label.spot, "no stored object", remedy);
            report.add(problem.value(shown(&label.value)));
        }
        found
    }

    /// The column of an object; reports one that is not there or that jobs may not name.
    pub(super) fn column<'o>(
        &self,
        object: &'o StoredObject,
        column: &Located<String>,
        report: &Report,
    ) -> Option<&'o StoredField> {
        let found = object.field(&column.value);
        if found.is_some() || !self.complete {
            return found;
        }
        let name = column.value.as_str();
        let (what, remedy) = if RESERVED.contains(&name) {
            let what = format!("`{name}` is written by the daemon alone");
            (what, "name another column".to_owned())
        } else if name.contains('{') {
            let what = format!("`{name}` has a placeholder that is none");
            (what, "write {instance} or {connection}".to_owned())
        } else {
            let near = nearest(
                name,
                object.fields.iter().map(|field| field.column.as_str()),
            );
            let declare = format!(
                "declare it in objects/{}.toml: [fields.{name}] type = \"…\"",
                object.table
            );
            let remedy = near.map_or_else(
                || declare.clone(),
                |near| format!("did you mean `{near}`? otherwise {declare}"),
            );
            (format!("{} has no column `{name}`", object.label), remedy)
        };
        report.wrong(&column.spot, what, remedy);
        None
    }
}

struct Loader<'r> {
    instances: &'r BTreeSet<String>,
    tables: BTreeMap<String, (StoredObject, Spot)>,
    /// Table, column and label, resolved once all objects are known.
    references: Vec<(String, String, Located<String>)>,
    complete: bool,
    report: &'r Report,
}

impl Loader<'_> {
    fn object(&mut self, table: &str, node: &Node) {
        let report = self.report;
        let Some(mut reader) = Reader::open(node, report) else {
            self.complete = false;
            return;
        };
        let known = self.tables.remove(table);
        let standard = known.is_some();
        let label = reader.text("label");
        let (mut object, spot) = known.unwrap_or_else(|| {
            if label.is_none() {
                reader.missing("label", "write the name that jobs use: label = \"Asset\"");
            }
            let label = label.as_ref().map_or(table, |label| &label.value);
            let object = StoredObject {
                table: table.to_owned(),
                label: label.to_owned(),
                fields: Vec::new(),
            };
            (object, reader.spot_of("label"))
        });
        if let Some(label) = label.filter(|label| standard && label.value != object.label) {
            let remedy = format!("write {:?}, or remove the key", object.label);
            let problem = Problem::new(&label.spot, "another label for a standard object", remedy);
            report.add(problem.value(shown(&label.value)));
        }
        let fields = reader.take("fields");
        reader.close();
        if let Some(Table(entries)) = fields.and_then(|node| {
            Reader::open(node, report)?;
            node.table()
        }) {
            for (column, node) in entries {
                if !column.contains(INSTANCE) {
                    self.field(&mut object, column, node);
                    continue;
                }
                for instance in self.instances {
                    let mut node = node.clone();
                    node.replace(INSTANCE, instance);
                    self.field(&mut object, &column.replace(INSTANCE, instance), &node);
                }
            }
        }
        if object.fields.is_empty() {
            report.wrong(
                &node.spot,
                "an object without columns",
                "add [fields.<column>]",
            );
        }
        if object.fields.len() > MOST_COLUMNS {
            let what = format!("an object of more than {MOST_COLUMNS} columns");
            report.wrong(&node.spot, what, "split it");
        }
        self.tables.insert(table.to_owned(), (object, spot));
    }

    fn field(&mut self, object: &mut StoredObject, column: &str, node: &Node) {
        let report = self.report;
        let good = check_name(column, "column", &node.spot, report);
        if RESERVED.contains(&column) {
            let what = "every table has this column already";
            report.wrong(&node.spot, what, "remove it");
            return;
        }
        let Some(reader) = Reader::open(node, report) else {
            return;
        };
        let fields = &object.fields;
        let known = fields.iter().position(|field| field.column == column);
        let declared = Declared::read(reader, known.is_some());
        let label = declared.label.as_ref().map(|label| label.value.clone());
        let label = label
            .unwrap_or_else(|| known.map_or_else(|| title(column), |at| fields[at].label.clone()));
        let others = fields.iter().filter(|field| field.column != column);
        if let Some(other) = others.clone().find(|field| field.label == label) {
            let spot = declared
                .label
                .as_ref()
                .map_or(&node.spot, |label| &label.spot);
            let what = format!("{label:?} is the label of `{}` as well", other.column);
            report.wrong(spot, what, "choose another label");
        }
        if !good {
            return;
        }
        if let Some(field) = known.and_then(|at| object.fields.get_mut(at)) {
            declared.keeps_type(field, report);
            field.label = label;
        } else if let Some(ty) = declared.ty {
            if let Some(pointed) = declared.reference(ty, report) {
                self.references
                    .push((object.table.clone(), column.to_owned(), pointed));
            }
            object.fields.push(StoredField {
                column: column.to_owned(),
                label,
                ty,
                references: None,
            });
        }
    }

    fn finish(mut self) -> Objects {
        self.check_labels();
        for (table, column, label) in std::mem::take(&mut self.references) {
            let pointed = self.tables.values().map(|(object, _)| object);
            let found = pointed.clone().find(|object| object.label == label.value);
            let found = found.map(|object| object.table.clone());
            if found.is_none() && self.complete {
                let near = nearest(&label.value, pointed.map(|object| object.label.as_str()));
                let remedy = near.map_or_else(
                    || "write the label of an object".to_owned(),
                    |near| format!("did you mean {near:?}?"),
                );
                let problem = Problem::new(&label.spot, "no stored object", remedy);
                self.report.add(problem.value(shown(&label.value)));
            }
            let fields = self
                .tables
                .get_mut(&table)
                .map(|(object, _)| &mut object.fields);
            let field =
                fields.and_then(|fields| fields.iter_mut().find(|field| field.column == column));
            if let Some(field) = field {
                field.references = found;
            }
        }
        let objects = self.tables.into_values().map(|(object, _)| object);
        Objects {
            by_label: objects
                .map(|object| (object.label.clone(), object))
                .collect(),
            complete: self.complete,
        }
    }

    fn check_labels(&self) {
        let mut seen: BTreeMap<&str, (&str, &Spot)> = BTreeMap::new();
        for (object, spot) in self.tables.values() {
            if let Some((other, known)) = seen.insert(&object.label, (&object.table, spot)) {
                // The operator's is the one that can be changed.
                let is_own = !spot.file.ends_with(BUILT_IN);
                let (spot, table) = if is_own {
                    (spot, other)
                } else {
                    (known, &*object.table)
                };
                let what = format!("{:?} is the label of `{table}` as well", object.label);
                self.report.wrong(spot, what, "choose another label");
            }
        }
    }
}

/// A `[fields.<column>]` as it is written.
struct Declared {
    ty: Option<StoredType>,
    type_spot: Spot,
    label: Option<Located<String>>,
    references: Option<Located<String>>,
    references_spot: Spot,
}

impl Declared {
    fn read(mut reader: Reader<'_>, is_patch: bool) -> Self {
        if reader.take("type").is_none() && !is_patch {
            reader.missing("type", "write type = \"string\", \"number\", …");
        }
        let declared = Self {
            type_spot: reader.spot_of("type"),
            ty: reader.word("type", &TYPES),
            label: reader.text("label"),
            references: reader.text("references"),
            references_spot: reader.spot_of("references"),
        };
        reader.close();
        declared
    }

    /// What other jobs and tables rely on stays as it is.
    fn keeps_type(&self, field: &StoredField, report: &Report) {
        let changes = self.ty.is_some_and(|ty| ty != field.ty);
        if changes || self.references.is_some() {
            report.wrong(
                &self.type_spot,
                "changes the type of a standard column",
                "declare a column of another name",
            );
        }
    }

    /// The label that a gsid column points to.
    fn reference(self, ty: StoredType, report: &Report) -> Option<Located<String>> {
        let (what, remedy) = match (ty == StoredType::Gsid, self.references) {
            (true, Some(label)) => return Some(label),
            (false, None) => return None,
            (true, None) => (
                "a gsid column that points nowhere",
                "write references = \"<label of an object>\"",
            ),
            (false, Some(_)) => (
                "only a gsid column points to an object",
                "remove it, or write type = \"gsid\"",
            ),
        };
        report.wrong(&self.references_spot, what, remedy);
        None
    }
}

/// Names of tables and columns, which databases fold and cut.
fn check_name(name: &str, what: &str, spot: &Spot, report: &Report) -> bool {
    let letters = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    let taken = name.starts_with("tributary_") || name.starts_with("sqlite_");
    let good = letters && starts && name.len() <= LONGEST && !taken;
    if !good {
        let problem = Problem::new(
            spot,
            format!("no name of a {what}"),
            "use a-z, 0-9 and _, a letter first, 63 at most, not beginning with tributary_ or sqlite_",
        );
        report.add(problem.value(shown(name)));
    }
    good
}

/// `serial_number` → `Serial Number`.
fn title(column: &str) -> String {
    let words = column.split('_').map(|word| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| {
            first.to_uppercase().chain(letters).collect()
        })
    });
    words.collect::<Vec<String>>().join(" ")
}

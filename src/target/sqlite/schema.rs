//! Tables as objects declare them, and indexes as jobs need them; nothing is ever dropped.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, Transaction, params};

use super::cell::Class;
use super::lookup::{Lookup, Part};
use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::JobPlan;
use crate::model::stored::{StoredObject, StoredType};
use crate::sqlite::error::JobError;

/// Columns of every table besides its key `gsid`.
const OWN: [(&str, StoredType, bool); 4] = [
    ("created_date", StoredType::DateTime, true),
    ("modified_date", StoredType::DateTime, true),
    ("crm_state", StoredType::String, false),
    ("crm_state_at", StoredType::DateTime, false),
];

/// Makes what is missing of an object's table.
pub(super) fn ensure(transaction: &Transaction<'_>, object: &StoredObject) -> Result<(), JobError> {
    check_names(object)?;
    let known = columns(transaction, &object.table)?;
    if known.is_empty() {
        create(transaction, object)?;
    } else {
        grow(transaction, object, &known)?;
    }
    let mut remember = transaction.prepare_cached(
        "INSERT INTO tributary_column VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET type = excluded.type",
    )?;
    for (column, ty) in declared(object) {
        remember.execute(params![object.table, column, type_name(ty)])?;
    }
    Ok(())
}

/// The columns after `gsid` with their types.
fn declared(object: &StoredObject) -> impl Iterator<Item = (&str, StoredType)> {
    let own = OWN.iter().map(|(name, ty, _)| (*name, *ty));
    own.chain(
        object
            .fields
            .iter()
            .map(|field| (field.column.as_str(), field.ty)),
    )
}

fn check_names(object: &StoredObject) -> Result<(), Fault> {
    let table = &object.table;
    let lower = table.to_ascii_lowercase();
    let taken = ["tributary_", "sqlite_"]
        .iter()
        .any(|prefix| lower.starts_with(prefix));
    if taken || table.is_empty() {
        return Err(Fault::new(
            FaultKind::Config,
            format!("object `{}` can't have the table `{table}`", object.label),
        )
        .remedy("rename its file: names that begin with tributary_ or sqlite_ are taken"));
    }
    let mut names = BTreeSet::from(["gsid".to_owned()]);
    for (column, _) in declared(object) {
        // SQLite does not tell columns apart by case.
        if !names.insert(column.to_ascii_lowercase()) {
            return Err(Fault::new(
                FaultKind::Config,
                format!("table `{table}` has column `{column}` twice"),
            )
            .remedy("rename the field: every table has gsid, created_date, modified_date, crm_state, crm_state_at"));
        }
    }
    Ok(())
}

fn create(transaction: &Transaction<'_>, object: &StoredObject) -> Result<(), JobError> {
    let mut sql = format!(
        "CREATE TABLE {} (\n  \"gsid\" TEXT PRIMARY KEY NOT NULL",
        quote(&object.table)
    );
    for (name, ty, filled) in OWN {
        let filled = if filled { " NOT NULL" } else { "" };
        sql.push_str(&format!(
            ",\n  {} {}{filled}",
            quote(name),
            Class::of(ty).declared()
        ));
    }
    for field in &object.fields {
        let declared = Class::of(field.ty).declared();
        sql.push_str(&format!(",\n  {} {declared}", quote(&field.column)));
    }
    sql.push_str("\n) STRICT");
    Ok(transaction.execute_batch(&sql)?)
}

fn grow(
    transaction: &Transaction<'_>,
    object: &StoredObject,
    known: &BTreeMap<String, Column>,
) -> Result<(), JobError> {
    let table = &object.table;
    let strict: bool = transaction
        .query_row(
            "SELECT strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE",
            [table],
            |row| row.get(0),
        )
        .optional()?
        .unwrap_or_default();
    if !strict || !known.get("gsid").is_some_and(|column| column.key) {
        return Err(Fault::new(
            FaultKind::Config,
            format!("table `{table}` was made by another program: it is not STRICT, or its key is not `gsid`"),
        )
        .remedy("rename that table, or give the target another file")
        .into());
    }
    for (column, ty) in declared(object) {
        let class = Class::of(ty);
        let Some(held) = known.get(&column.to_ascii_lowercase()) else {
            transaction.execute_batch(&format!(
                "ALTER TABLE {} ADD COLUMN {} {}",
                quote(table),
                quote(column),
                class.declared()
            ))?;
            continue;
        };
        let same = match held.ty {
            Some(held) => Class::of(held) == class,
            None => held.declared == class.declared(),
        };
        if !same {
            let held = held.ty.map_or(&*held.declared, |held| type_name(held));
            return Err(Fault::new(
                FaultKind::Config,
                format!(
                    "column `{column}` of table `{table}` is {held}, not {}",
                    type_name(ty)
                ),
            )
            .remedy("give the field its old type, or another name")
            .into());
        }
    }
    Ok(())
}

/// A column that is there.
#[derive(Debug)]
pub(super) struct Column {
    /// Its name as it was declared.
    pub name: String,
    /// Its type; `None` if another program made it.
    pub ty: Option<StoredType>,
    position: usize,
    declared: String,
    key: bool,
}

/// The columns of a table by name in lower case; none if there is no table.
pub(super) fn columns(
    transaction: &Transaction<'_>,
    table: &str,
) -> Result<BTreeMap<String, Column>, JobError> {
    let mut statement = transaction.prepare_cached(
        "SELECT i.name, i.type, i.pk, c.type, i.cid FROM pragma_table_info(?1) i
         LEFT JOIN tributary_column c ON c.\"table\" = ?1 AND c.\"column\" = i.name COLLATE NOCASE",
    )?;
    let mut rows = statement.query([table])?;
    let mut columns = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let ty: Option<String> = row.get(3)?;
        let gsid = name
            .eq_ignore_ascii_case("gsid")
            .then_some(StoredType::Gsid);
        let column = Column {
            declared: row.get(1)?,
            key: row.get::<_, i64>(2)? == 1,
            ty: ty.as_deref().and_then(parse_type).or(gsid),
            position: row.get::<_, i64>(4)?.unsigned_abs() as usize,
            name: name.clone(),
        };
        columns.insert(name.to_ascii_lowercase(), column);
    }
    Ok(columns)
}

/// The columns of a table in its order.
///
/// # Errors
/// `Missing` if there is no such table, or it is none of the store's.
pub(super) fn ordered_columns(
    transaction: &Transaction<'_>,
    table: &str,
) -> Result<Vec<Column>, JobError> {
    check_table(transaction, table)?;
    let mut columns: Vec<_> = columns(transaction, table)?.into_values().collect();
    columns.sort_by_key(|column| column.position);
    Ok(columns)
}

/// Refuses a table that [`ensure`] did not make.
///
/// # Errors
/// `Missing`.
pub(super) fn check_table(transaction: &Transaction<'_>, table: &str) -> Result<(), JobError> {
    let known: bool = transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM tributary_column WHERE \"table\" = ?1)")?
        .query_row([table], |row| row.get(0))?;
    if known {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::Missing,
        format!("the store has no table `{table}`"),
    )
    .remedy("declare the object, and let the target make its table")
    .into())
}

/// A look-up into a column that is not there.
pub(super) fn missing_column(table: &str, column: &str) -> Fault {
    Fault::new(
        FaultKind::Missing,
        format!("table `{table}` has no column `{column}`"),
    )
    .remedy("declare the field, and let the target bring its table up to date")
}

/// Makes the indexes of a job's identifiers and look-ups.
pub(super) fn prepare(transaction: &Transaction<'_>, plan: &JobPlan) -> Result<(), JobError> {
    for destination in &plan.destinations {
        index(
            transaction,
            &Lookup::of_identifiers(
                &destination.table,
                &destination.identifiers,
                &destination.columns,
            ),
        )?;
        for derive in &destination.derives {
            index(transaction, &Lookup::of_derive(derive))?;
        }
    }
    Ok(())
}

fn index(transaction: &Transaction<'_>, lookup: &Lookup) -> Result<(), JobError> {
    let (mut name, mut expressions) = (format!("tributary_match {}", lookup.table), Vec::new());
    check_table(transaction, &lookup.table)?;
    let known = columns(transaction, &lookup.table)?;
    for part in &lookup.parts {
        let Some(column) = part.column_name() else {
            continue;
        };
        if !known.contains_key(&column.to_ascii_lowercase()) {
            return Err(missing_column(&lookup.table, column).into());
        }
        let fold = match part {
            Part::Lower(_) => "lower ",
            Part::Trimmed(_) => "trim ",
            _ => "",
        };
        name.push_str(&format!(", {fold}{column}"));
        expressions.extend(part.expression(""));
    }
    if expressions.is_empty() {
        return Ok(());
    }
    Ok(transaction.execute_batch(&format!(
        "CREATE INDEX IF NOT EXISTS {} ON {} ({})",
        quote(&name),
        quote(&lookup.table),
        expressions.join(", ")
    ))?)
}

/// A name as SQL takes it, whatever it is.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const TYPES: [(StoredType, &str); 13] = [
    (StoredType::String, "string"),
    (StoredType::Number, "number"),
    (StoredType::Currency, "currency"),
    (StoredType::Percentage, "percentage"),
    (StoredType::Boolean, "boolean"),
    (StoredType::Date, "date"),
    (StoredType::DateTime, "datetime"),
    (StoredType::Picklist, "picklist"),
    (StoredType::MultiSelect, "multi_select"),
    (StoredType::Gsid, "gsid"),
    (StoredType::Email, "email"),
    (StoredType::Url, "url"),
    (StoredType::RichText, "rich_text"),
];

/// A type as object files spell it.
pub(super) fn type_name(ty: StoredType) -> &'static str {
    TYPES
        .iter()
        .find(|(known, _)| *known == ty)
        .map_or("", |(_, name)| name)
}

fn parse_type(name: &str) -> Option<StoredType> {
    TYPES
        .iter()
        .find(|(_, known)| *known == name)
        .map(|(ty, _)| *ty)
}

//! Tables as objects declare them, and indexes as jobs need them; nothing is ever dropped.

use std::collections::BTreeSet;
use std::time::Duration;

use super::lookup::{Lookup, Part, digest, quote};
use super::value::Class;
use super::{Schemas, ledger};
use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::JobPlan;
use crate::model::stored::{StoredObject, StoredType};
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;

/// Columns of every table besides its key `gsid`.
const OWN: [(&str, StoredType, bool); 4] = [
    ("created_date", StoredType::DateTime, true),
    ("modified_date", StoredType::DateTime, true),
    ("crm_state", StoredType::String, false),
    ("crm_state_at", StoredType::DateTime, false),
];

/// PostgreSQL cuts longer names without a word (PostgreSQL documentation, "Identifiers and Key Words").
const MAX_NAME: usize = 63;

/// One of those who change tables at a time, of all daemons on a database.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('tributary schema', 0))";
const TRY_LOCK: &str = "SELECT pg_try_advisory_lock(hashtextextended('tributary index', 0))";
const UNLOCK: &str = "SELECT pg_advisory_unlock(hashtextextended('tributary index', 0))";

/// How often a daemon looks whether another one has made its indexes. It doesn't wait in a statement: a waiting
/// statement's snapshot is what `CREATE INDEX CONCURRENTLY` waits for.
const LOOK: Duration = Duration::from_millis(50);

/// Makes the ledger, and what is missing of the objects' tables, all or nothing.
pub(super) async fn ensure(
    session: &mut Session,
    schemas: &Schemas,
    objects: &[StoredObject],
) -> Result<(), OrderError> {
    session
        .run("BEGIN; SET LOCAL statement_timeout = 0")
        .await?;
    session.run(LOCK).await?;
    ledger::migrate(session, schemas).await?;
    for object in objects {
        check_names(object)?;
        let known = columns(session, schemas, &object.table).await?;
        let sql = if known.is_empty() {
            Some(create_sql(schemas, object))
        } else {
            grow_sql(schemas, object, &known)?
        };
        if let Some(sql) = sql {
            session.run(&sql).await?;
        }
    }
    session.run("COMMIT").await
}

/// The columns after `gsid` with their types.
fn declared(object: &StoredObject) -> impl Iterator<Item = (&str, StoredType)> {
    let own = OWN.iter().map(|(name, ty, _)| (*name, *ty));
    let fields = object.fields.iter();
    own.chain(fields.map(|field| (field.column.as_str(), field.ty)))
}

fn check_names(object: &StoredObject) -> Result<(), Fault> {
    let table = &object.table;
    let bad = |name: &str| name.is_empty() || name.len() > MAX_NAME || name.contains('\0');
    if bad(table) {
        let what = format!("object `{}` can't have the table `{table}`", object.label);
        return Err(Fault::new(FaultKind::Config, what)
            .remedy("rename its file: PostgreSQL takes names of 1 to 63 bytes"));
    }
    let mut names = BTreeSet::from(["gsid".to_owned()]);
    for (column, _) in declared(object) {
        if bad(column) {
            let what = format!("table `{table}` can't have the column `{column}`");
            return Err(Fault::new(FaultKind::Config, what)
                .remedy("rename the field: PostgreSQL takes names of 1 to 63 bytes"));
        }
        // As in the other targets, which don't tell columns apart by case.
        if !names.insert(column.to_ascii_lowercase()) {
            let what = format!("table `{table}` has column `{column}` twice");
            return Err(Fault::new(FaultKind::Config, what).remedy(
                "rename the field: every table has gsid, created_date, modified_date, crm_state, crm_state_at",
            ));
        }
    }
    Ok(())
}

fn create_sql(schemas: &Schemas, object: &StoredObject) -> String {
    let mut sql = format!(
        "CREATE TABLE {} (\n  \"gsid\" uuid PRIMARY KEY",
        schemas.table(&object.table)
    );
    let filled = OWN.iter().filter(|(_, _, filled)| *filled).count();
    for (place, (name, ty)) in declared(object).enumerate() {
        let filled = if place < filled { " NOT NULL" } else { "" };
        let ty = Class::of(ty).declared();
        sql.push_str(&format!(",\n  {} {ty}{filled}", quote(name)));
    }
    sql.push_str("\n)");
    sql
}

/// What a table lacks.
fn grow_sql(
    schemas: &Schemas,
    object: &StoredObject,
    known: &[Column],
) -> Result<Option<String>, Fault> {
    let table = &object.table;
    if !known
        .iter()
        .any(|column| column.key && column.name == "gsid")
    {
        let what = format!("table `{table}` was made by another program: its key is not `gsid`");
        return Err(Fault::new(FaultKind::Config, what)
            .remedy("rename that table, or give the target another schema"));
    }
    let mut added = Vec::new();
    for (name, ty) in declared(object) {
        let class = Class::of(ty);
        match known.iter().find(|column| column.name == name) {
            None => added.push(format!("ADD COLUMN {} {}", quote(name), class.declared())),
            Some(held) if held.declared == class.declared() => {}
            Some(held) => {
                let what = format!(
                    "column `{name}` of table `{table}` is {}, not {}",
                    held.declared,
                    class.declared()
                );
                return Err(Fault::new(FaultKind::Config, what)
                    .remedy("give the field its old type, or another name"));
            }
        }
    }
    let table = schemas.table(table);
    let sql = || format!("ALTER TABLE {table} {}", added.join(", "));
    Ok((!added.is_empty()).then(sql))
}

/// A column that is there.
#[derive(Debug)]
pub(super) struct Column {
    pub name: String,
    /// As `format_type()` spells its type.
    declared: String,
    /// It is the table's whole primary key.
    key: bool,
}

impl Column {
    /// `None` if another program made it.
    pub(super) fn class(&self) -> Option<Class> {
        Class::parse(&self.declared)
    }
}

/// The columns of a table in its order; none if there is no table.
pub(super) async fn columns(
    session: &mut Session,
    schemas: &Schemas,
    table: &str,
) -> Result<Vec<Column>, OrderError> {
    let rows = session
        .query(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
                EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary
                    AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1::text AND c.relname = $2::text AND c.relkind IN ('r', 'p')
                AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            &[&schemas.store, &table],
        )
        .await?;
    let mut columns = Vec::with_capacity(rows.len());
    for row in rows {
        columns.push(Column {
            name: row.try_get(0)?,
            declared: row.try_get(1)?,
            key: row.try_get(2)?,
        });
    }
    Ok(columns)
}

/// The columns of a table of the store.
///
/// # Errors
/// `Missing` if there is no such table.
pub(super) async fn known_columns(
    session: &mut Session,
    schemas: &Schemas,
    table: &str,
) -> Result<Vec<Column>, OrderError> {
    let columns = if table.contains('\0') {
        Vec::new()
    } else {
        columns(session, schemas, table).await?
    };
    if columns.is_empty() {
        let what = format!("the store has no table `{table}`");
        return Err(Fault::new(FaultKind::Missing, what)
            .remedy("declare the object, and let the target make its table")
            .into());
    }
    Ok(columns)
}

/// A look-up into a column that is not there.
pub(super) fn missing_column(table: &str, column: &str) -> Fault {
    let what = format!("table `{table}` has no column `{column}`");
    Fault::new(FaultKind::Missing, what)
        .remedy("declare the field, and let the target bring its table up to date")
}

/// Makes the indexes of a job's identifiers and look-ups; while others write, where there are rows.
pub(super) async fn prepare(
    session: &mut Session,
    schemas: &Schemas,
    plan: &JobPlan,
) -> Result<(), OrderError> {
    let mut wanted = Vec::new();
    for destination in &plan.destinations {
        wanted.push(Lookup::of_identifiers(
            &destination.table,
            &destination.identifiers,
            &destination.columns,
        ));
        wanted.extend(destination.derives.iter().map(Lookup::of_derive));
    }
    let mut missing = Vec::new();
    for lookup in &wanted {
        if let Some(index) = Index::of(session, schemas, lookup).await?
            && !index.is_there(session, schemas).await?
        {
            missing.push(index);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    while !session
        .client()
        .query_one(TRY_LOCK, &[])
        .await?
        .try_get::<_, bool>(0)?
    {
        tokio::time::sleep(LOOK).await;
    }
    session.run("SET statement_timeout = 0").await?;
    let mut made = Ok(());
    for index in &missing {
        made = index.make(session, schemas).await;
        if made.is_err() {
            break;
        }
    }
    // A connection that broke holds no lock.
    session.run(UNLOCK).await?;
    session
        .run(&format!(
            "SET statement_timeout = {}",
            schemas.statement_timeout.as_millis()
        ))
        .await?;
    made
}

/// An index on the expressions that a look-up compares.
struct Index {
    name: String,
    table: String,
    expressions: String,
}

impl Index {
    /// `None` for a look-up that needs none of its own.
    async fn of(
        session: &mut Session,
        schemas: &Schemas,
        lookup: &Lookup,
    ) -> Result<Option<Self>, OrderError> {
        let known = known_columns(session, schemas, &lookup.table).await?;
        let mut names = lookup.parts.iter().filter_map(Part::column_name);
        if let Some(column) = names.find(|name| known.iter().all(|column| column.name != **name)) {
            return Err(missing_column(&lookup.table, column).into());
        }
        let expressions: Vec<_> = lookup
            .parts
            .iter()
            .filter_map(|part| part.expression(""))
            .collect();
        if expressions.is_empty() {
            return Ok(None);
        }
        let expressions = expressions.join(", ");
        let name = digest(&format!("{}\n{expressions}", lookup.table));
        Ok(Some(Self {
            name: format!("tributary_match_{}", name.simple()),
            table: lookup.table.clone(),
            expressions,
        }))
    }

    /// Whether it is there and can be used; what a broken build left is dropped.
    async fn is_there(&self, session: &mut Session, schemas: &Schemas) -> Result<bool, OrderError> {
        Ok(self.state(session, schemas).await? == Some(true))
    }

    async fn state(
        &self,
        session: &mut Session,
        schemas: &Schemas,
    ) -> Result<Option<bool>, OrderError> {
        let rows = session
            .query(
                "SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1::text AND c.relname = $2::text",
                &[&schemas.store, &self.name],
            )
            .await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
    }

    async fn make(&self, session: &mut Session, schemas: &Schemas) -> Result<(), OrderError> {
        let table = schemas.table(&self.table);
        match self.state(session, schemas).await? {
            Some(true) => return Ok(()),
            // An index that was not built to its end is kept up by every write, and used by none.
            Some(false) => {
                let name = schemas.table(&self.name);
                session
                    .run(&format!("DROP INDEX CONCURRENTLY IF EXISTS {name}"))
                    .await?;
            }
            None => {}
        }
        let any = format!("SELECT EXISTS (SELECT 1 FROM {table})");
        let rows: bool = session.client().query_one(&any, &[]).await?.try_get(0)?;
        let how = if rows { "CONCURRENTLY " } else { "" };
        session
            .run(&format!(
                "CREATE INDEX {how}IF NOT EXISTS {} ON {table} ({})",
                quote(&self.name),
                self.expressions
            ))
            .await
    }
}

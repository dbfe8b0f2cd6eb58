//! Answers a pass's needs, many at a time; claims and locks on the way.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Schemas;
use super::facts::{Facts, Image, Known, Needs};
use super::layout::Layout;
use super::ledger::{Entry, Mark, parse_version};
use super::lookup::{Key, Lookup, NAMED, digest, spelled};
use super::recall::Learned;
use super::review;
use super::value::{Array, Value, decode, selected};
use crate::model::record_id::RecordId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::port::{Batch, DestinationBatch};

/// Asks for one destination of a batch.
pub(super) struct Inquiry<'g, 'a> {
    pub schemas: &'g Schemas,
    pub batch: &'a Batch,
    pub part: &'a DestinationBatch,
    pub layout: &'g Layout<'a>,
    /// Claims taken, to be given back at the end.
    pub claims: BTreeSet<Uuid>,
}

/// Keys of one look-up.
struct Question<'k> {
    sql: String,
    limit: i64,
    keys: Vec<&'k Key<'static>>,
    arrays: Vec<Array<'k>>,
}

impl<'g, 'a> Inquiry<'g, 'a> {
    /// What the crosswalk says of the batch's records, and what they wait for.
    pub(super) async fn begin(
        &self,
        session: &mut Session,
        references_wait: bool,
        is_decided: bool,
    ) -> Result<Facts<'a>, OrderError> {
        let rows = self.part.rows.iter();
        let rows = rows.filter(|row| !row.record.as_str().contains('\0'));
        let records: HashMap<&str, &RecordId> =
            rows.map(|row| (row.record.as_str(), &row.record)).collect();
        let mut names: Vec<&str> = records.keys().copied().collect();
        names.sort_unstable();
        let reader = &self.batch.reader;
        let (connection, table) = (reader.connection.as_str(), self.layout.plan.table.as_str());
        let mut facts = Facts {
            elsewhere: self.layout.derives.iter().map(|_| HashMap::new()).collect(),
            by_shape: self.layout.shapes.iter().map(|_| HashMap::new()).collect(),
            ..Facts::default()
        };
        let sql = format!(
            "SELECT x.*, t.\"gsid\" IS NOT NULL FROM unnest($4::text[]) k(record)
             CROSS JOIN LATERAL (
                SELECT record, gsid, version, gone, crm_state, crm_state_at, ctid::text, xmin::text::int8 FROM {}
                WHERE connection = $1 AND destination = $2 AND record = k.record AND object = $3 OFFSET 0) x
             LEFT JOIN LATERAL (SELECT \"gsid\" FROM {} WHERE \"gsid\" = x.gsid OFFSET 0) t ON true",
            self.schemas.ledger("crosswalk"),
            self.schemas.table(table)
        );
        let found = session
            .query(
                &sql,
                &[&connection, &table, &self.batch.object.as_str(), &names],
            )
            .await?;
        for row in found {
            let Some(record) = records.get(row.try_get::<_, &str>(0)?) else {
                continue;
            };
            let entry = Entry {
                gsid: row.try_get(1)?,
                version: parse_version(row.try_get(2)?)?,
                gone: row.try_get(3)?,
                mark: Mark::read(row.try_get(4)?, row.try_get(5)?)?,
            };
            let known = Known {
                entry,
                place: row.try_get(6)?,
                written_by: row.try_get(7)?,
                is_there: row.try_get(8)?,
            };
            facts.entries.insert(record, known);
        }
        if references_wait {
            let sql = format!(
                "SELECT record, \"column\" FROM {} WHERE connection = $1 AND job = $2 AND destination = $3
                 AND record = ANY($4)",
                self.schemas.ledger("parked_reference")
            );
            let params: [&(dyn ToSql + Sync); 4] =
                [&connection, &reader.job.as_str(), &table, &names];
            for row in session.query(&sql, &params).await? {
                if let Some(record) = records.get(row.try_get::<_, &str>(0)?) {
                    let columns: &mut BTreeSet<String> = facts.waiting.entry(record).or_default();
                    columns.insert(row.try_get(1)?);
                }
            }
        }
        if is_decided {
            facts.bonds = review::bonds(session, self.schemas, self.batch, table, &records).await?;
        }
        Ok(facts)
    }

    /// Answers needs. Rows are locked only when nothing else is asked for: all at once and in one order, so that
    /// two batches that share rows don't wait in a circle.
    pub(super) async fn answer(
        &mut self,
        session: &mut Session,
        needs: &Needs<'static>,
        facts: &mut Facts<'a>,
        learned: &mut Learned<'_>,
    ) -> Result<(), OrderError> {
        if needs.are_of_rows_only() {
            self.images(session, needs, facts).await?;
            if !needs.standings.is_empty() {
                self.standings(session, needs, facts).await?;
            }
            if !needs.connections.is_empty() {
                self.connections(session, needs, facts).await?;
            }
            return Ok(());
        }
        if let Some(keys) = needs.by_shape.get(&0) {
            // Only then look: whoever else wants to insert these has ended, or waits for us.
            self.claim(session, keys).await?;
        }
        self.look_up(session, needs, facts, learned).await?;
        if !needs.by_record.is_empty() {
            self.by_record(session, needs, facts).await?;
        }
        Ok(())
    }

    /// J4: takes the claims on what these keys may insert, in one order, so that nobody waits in a circle.
    async fn claim(
        &mut self,
        session: &mut Session,
        keys: &HashSet<Key<'static>>,
    ) -> Result<(), OrderError> {
        let shape = self.layout.identifiers.shape()?;
        let mut new = BTreeSet::new();
        for key in keys {
            let table = &self.layout.plan.table;
            let digest = digest(&format!("{table}\n{shape}\n{}", spelled(key)?));
            if self.claims.insert(digest) {
                new.insert(digest);
            }
        }
        let new: Vec<Uuid> = new.into_iter().collect();
        let sql = format!(
            "INSERT INTO {} (digest) SELECT d FROM unnest($1::uuid[]) d ON CONFLICT DO NOTHING",
            self.schemas.ledger("claim")
        );
        let taken = session.execute(&sql, &[&new]).await?;
        // Claims are deleted before their transaction ends, so nobody sees one: a crash of the server apart, after
        // which the table is empty.
        if taken < new.len() as u64 {
            return Err(OrderError::Overtaken("a claim"));
        }
        Ok(())
    }

    async fn look_up(
        &self,
        session: &mut Session,
        needs: &Needs<'static>,
        facts: &mut Facts<'a>,
        learned: &mut Learned<'_>,
    ) -> Result<(), OrderError> {
        // Rows of this batch may turn out not to have a key any more: as many more are asked for.
        let own = NAMED + 1 + self.part.rows.len();
        let shapes = needs.by_shape.iter().map(|(place, keys)| {
            let lookup = &self.layout.shapes[*place].lookup;
            self.question(lookup, own, keys)
        });
        let elsewhere = needs.elsewhere.iter().map(|(place, keys)| {
            let lookup = &self.layout.derives[*place].lookup;
            self.question(lookup, NAMED + 1, keys)
        });
        let questions: Vec<Question<'_>> = shapes.chain(elsewhere).collect();
        let answers = ask(session, &questions).await?;
        let places = needs.by_shape.keys().map(|place| (true, *place));
        let places = places.chain(needs.elsewhere.keys().map(|place| (false, *place)));
        for ((own, place), (question, mut found)) in places.zip(questions.iter().zip(answers)) {
            let answered = if own {
                &mut facts.by_shape[place]
            } else {
                &mut facts.elsewhere[place]
            };
            for (n, key) in question.keys.iter().enumerate() {
                let gsids = found.remove(&n).unwrap_or_default();
                if !own {
                    learned.note(&self.layout.derives[place].lookup, key, &gsids);
                }
                answered.insert((*key).clone(), gsids);
            }
        }
        // No stored value has the character that PostgreSQL does not keep.
        for (place, keys) in &needs.by_shape {
            let odd = keys.iter().filter(|key| is_odd(key));
            facts.by_shape[*place].extend(odd.map(|key| (key.clone(), Vec::new())));
        }
        for (place, keys) in &needs.elsewhere {
            let odd = keys.iter().filter(|key| is_odd(key));
            facts.elsewhere[*place].extend(odd.map(|key| (key.clone(), Vec::new())));
        }
        Ok(())
    }

    fn question<'k>(
        &self,
        lookup: &Lookup,
        limit: usize,
        keys: &'k HashSet<Key<'static>>,
    ) -> Question<'k> {
        let keys: Vec<&'k Key<'static>> = keys.iter().filter(|key| !is_odd(key)).collect();
        Question {
            sql: lookup.sql(self.schemas),
            limit: limit as i64,
            arrays: lookup.arrays(&keys),
            keys,
        }
    }

    /// The rows of the own table that records hold, whatever their object: those of the batch's own are its own
    /// matter.
    async fn by_record(
        &self,
        session: &mut Session,
        needs: &Needs<'static>,
        facts: &mut Facts<'a>,
    ) -> Result<(), OrderError> {
        let records = needs.by_record.iter();
        let records: Vec<&str> = records
            .filter(|record| !record.contains('\0'))
            .map(String::as_str)
            .collect();
        let sql = format!(
            "SELECT x.* FROM unnest($3::text[]) k(record) CROSS JOIN LATERAL (
                SELECT record, object, gsid FROM {} WHERE connection = $1 AND destination = $2 AND record = k.record
                    AND NOT gone OFFSET 0) x",
            self.schemas.ledger("crosswalk")
        );
        let connection = self.batch.reader.connection.as_str();
        let rows = session
            .query(&sql, &[&connection, &self.layout.plan.table, &records])
            .await?;
        for record in &needs.by_record {
            facts.by_record.insert(record.clone(), Vec::new());
        }
        let own: HashSet<&str> = self
            .part
            .rows
            .iter()
            .map(|row| row.record.as_str())
            .collect();
        for row in rows {
            let (record, object): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
            if object == self.batch.object.as_str() && own.contains(record) {
                continue;
            }
            if let Some(gsids) = facts.by_record.get_mut(record) {
                gsids.push(row.try_get(2)?);
            }
        }
        Ok(())
    }

    /// Locks rows in the order of their GSIDs, those that the batch is going to write with them, and reads them as
    /// they are then.
    async fn images(
        &self,
        session: &mut Session,
        needs: &Needs<'static>,
        facts: &mut Facts<'a>,
    ) -> Result<(), OrderError> {
        let gsids: Vec<Uuid> = needs.images.iter().copied().collect();
        if gsids.is_empty() {
            return Ok(());
        }
        let table = self.schemas.table(&self.layout.plan.table);
        let known = facts.entries.values().filter_map(|known| known.entry.gsid);
        let locked: BTreeSet<Uuid> = known.chain(gsids.iter().copied()).collect();
        let locked: Vec<Uuid> = locked.into_iter().collect();
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE \"gsid\" = ANY($1) ORDER BY \"gsid\" FOR UPDATE) t"
        );
        session.query(&sql, &[&locked]).await?;
        let columns = self.layout.columns.iter().map(|column| {
            let name = format!("t.{}", super::lookup::quote(column.name));
            selected(&name, Some(column.class)) + ", "
        });
        let sql = format!(
            "SELECT {}t.\"gsid\", t.\"crm_state\", t.\"crm_state_at\" FROM {table} t WHERE t.\"gsid\" = ANY($1)",
            columns.collect::<String>(),
        );
        let rows = session.query(&sql, &[&gsids]).await?;
        facts
            .images
            .extend(gsids.into_iter().map(|gsid| (gsid, None)));
        let count = self.layout.columns.len();
        for row in rows {
            let mut cells = Vec::with_capacity(count);
            for (place, column) in self.layout.columns.iter().enumerate() {
                cells.push(decode(&row, place, Some(column.class))?);
            }
            let (state, at) = (
                row.try_get::<_, Option<&str>>(count + 1)?,
                row.try_get::<_, Option<DateTime<Utc>>>(count + 2)?,
            );
            let image = Image {
                cells,
                is_marked: state.is_some() || at.is_some(),
            };
            facts.images.insert(row.try_get(count)?, Some(image));
        }
        Ok(())
    }

    /// What those who hold rows say of them, besides the batch's own records.
    async fn standings(
        &self,
        session: &mut Session,
        needs: &Needs<'static>,
        facts: &mut Facts<'a>,
    ) -> Result<(), OrderError> {
        let sql = format!(
            "SELECT g, m.crm_state, m.crm_state_at FROM unnest($4::uuid[]) g CROSS JOIN LATERAL (
                SELECT crm_state, crm_state_at FROM {} x WHERE x.gsid = g AND x.destination = $2 AND NOT x.gone
                    AND NOT (x.connection = $1 AND x.object = $3 AND x.record = ANY($5))
                ORDER BY crm_state_at IS NULL DESC, crm_state_at DESC, crm_state DESC LIMIT 1) m",
            self.schemas.ledger("crosswalk")
        );
        let gsids: Vec<Uuid> = needs.standings.iter().copied().collect();
        let rows = self.part.rows.iter().map(|row| row.record.as_str());
        let records: Vec<&str> = rows.filter(|record| !record.contains('\0')).collect();
        let found = session
            .query(
                &sql,
                &[
                    &self.batch.reader.connection.as_str(),
                    &self.layout.plan.table,
                    &self.batch.object.as_str(),
                    &gsids,
                    &records,
                ],
            )
            .await?;
        facts
            .standings
            .extend(gsids.into_iter().map(|gsid| (gsid, None)));
        for row in found {
            let mark = Mark::read(row.try_get(1)?, row.try_get(2)?)?;
            facts.standings.insert(row.try_get(0)?, Some(mark));
        }
        Ok(())
    }
}

impl Inquiry<'_, '_> {
    /// Which other connections' records hold rows.
    async fn connections(
        &self,
        session: &mut Session,
        needs: &Needs<'static>,
        facts: &mut Facts<'_>,
    ) -> Result<(), OrderError> {
        let sql = format!(
            "SELECT DISTINCT gsid, connection FROM {} WHERE gsid = ANY($3) AND destination = $2 AND NOT gone
             AND connection <> $1",
            self.schemas.ledger("crosswalk")
        );
        let gsids: Vec<Uuid> = needs.connections.iter().copied().collect();
        let (connection, table) = (
            self.batch.reader.connection.as_str(),
            self.layout.plan.table.as_str(),
        );
        for gsid in &gsids {
            facts.connections.insert(*gsid, BTreeSet::new());
        }
        for row in session.query(&sql, &[&connection, &table, &gsids]).await? {
            let held = facts.connections.entry(row.try_get(0)?).or_default();
            held.insert(row.try_get(1)?);
        }
        Ok(())
    }
}

/// A key that PostgreSQL can't be asked for.
pub(super) fn is_odd(key: &Key<'_>) -> bool {
    key.iter()
        .any(|value| matches!(value, Value::Text(text) if text.contains('\0')))
}

/// Asks all questions at once; GSIDs by the key's place.
async fn ask(
    session: &mut Session,
    questions: &[Question<'_>],
) -> Result<Vec<HashMap<usize, Vec<Uuid>>>, OrderError> {
    let mut statements = Vec::with_capacity(questions.len());
    for question in questions {
        statements.push(session.statement(&question.sql).await?);
    }
    let client = session.client();
    let asked = statements
        .iter()
        .zip(questions)
        .map(|(statement, question)| async move {
            let mut params: Vec<&(dyn ToSql + Sync)> = vec![&question.limit];
            params.extend(question.arrays.iter().map(Array::param));
            let mut found: HashMap<usize, Vec<Uuid>> = HashMap::new();
            if question.keys.is_empty() {
                return Ok(found);
            }
            for row in client.query(statement, &params).await? {
                let place = usize::try_from(row.try_get::<_, i32>(0)?).unwrap_or_default();
                let gsids = found.entry(place.wrapping_sub(1)).or_default();
                gsids.push(row.try_get(1)?);
            }
            Ok::<_, OrderError>(found)
        });
    try_join_all(asked).await
}

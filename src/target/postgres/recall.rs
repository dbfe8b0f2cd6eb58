//! J7: what look-ups by record id found, kept for later batches of a connection for as long as it is true.
//!
//! A hit stays true until a record lets go of its row. Whoever has one do so raises the count `lost` of its feed (an
//! object whose records hold rows of a table) in the same transaction. Every batch reads these counts before it looks
//! anything up; where one has moved, what is kept of the table is forgotten. So a batch sees rows as they were at its
//! beginning or later, as by look-ups of its own. Misses are not kept: a row may come at any time.
//!
//! A record id may be that of two records of different objects. Then both may be found, which no count tells: nothing
//! is kept of a table that several objects of a CRM connection feed. Nothing is kept either from one connection to the
//! next: behind it may be a server that was restored.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::Row;
use uuid::Uuid;

use super::Schemas;
use super::lookup::{Key, Lookup, Part};
use crate::model::name::{ConnectionId, ObjectName};
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::port::Batch;

/// Rows that all writers of a target keep: about 100 bytes each.
pub(super) const MOST: usize = 400_000;

/// Rows of a table by record id.
pub(super) type Rows = HashMap<Box<str>, Uuid>;

/// What a writer's connection keeps.
#[derive(Debug, Default)]
pub(super) struct Recall {
    session: u64,
    most: usize,
    tables: HashMap<(ConnectionId, Box<str>), Kept>,
}

/// What is kept of a table, true while its feed is at this count.
#[derive(Debug)]
struct Kept {
    feed: (ObjectName, i64),
    rows: Rows,
}

/// The objects that feed a CRM connection's tables, each with its count.
#[derive(Debug, Default)]
pub(super) struct Feeds(HashMap<Box<str>, Vec<(ObjectName, i64)>>);

impl Feeds {
    /// The feeds of the connection `$1`.
    pub(super) fn sql(schemas: &Schemas) -> String {
        let feed = schemas.ledger("feed");
        format!("SELECT destination, object, lost FROM {feed} WHERE connection = $1")
    }

    pub(super) fn read(rows: &[Row]) -> Result<Self, OrderError> {
        let mut feeds: HashMap<Box<str>, Vec<(ObjectName, i64)>> = HashMap::new();
        for row in rows {
            let table = feeds.entry(row.try_get::<_, &str>(0)?.into()).or_default();
            table.push((
                ObjectName::from(row.try_get::<_, &str>(1)?),
                row.try_get(2)?,
            ));
        }
        Ok(Self(feeds))
    }

    fn knows(&self, table: &str, object: &ObjectName) -> bool {
        let feeds = self.0.get(table).into_iter().flatten();
        feeds.into_iter().any(|(known, _)| known == object)
    }
}

/// What a batch found, and what it changes for those who keep something.
#[derive(Debug, Default)]
pub(super) struct Learned<'a> {
    found: BTreeMap<String, Vec<(Box<str>, Uuid)>>,
    /// Tables of which a record let go of its row.
    pub lost: BTreeSet<&'a str>,
    /// Tables that the batch's object had not fed before.
    new: BTreeSet<&'a str>,
}

impl<'a> Learned<'a> {
    pub(super) fn of(batch: &'a Batch, feeds: &Feeds) -> Self {
        let tables = batch
            .destinations
            .iter()
            .map(|part| part.plan.table.as_str());
        Self {
            new: tables
                .filter(|table| !feeds.knows(table, &batch.object))
                .collect(),
            ..Self::default()
        }
    }

    /// Whether what is kept of a table holds in the middle of the batch.
    pub(super) fn leaves(&self, table: &str) -> bool {
        !self.lost.contains(table) && !self.new.contains(table)
    }

    /// Takes note of what a look-up found, if it is of a kind that may be kept.
    pub(super) fn note(&mut self, lookup: &Lookup, key: &Key<'_>, gsids: &[Uuid]) {
        let ([Part::Id], [_, record], [gsid]) = (&lookup.parts[..], &key[..], gsids) else {
            return;
        };
        let found = self.found.entry(lookup.table.clone()).or_default();
        found.push((record.spelled().into(), *gsid));
    }

    /// Tells all who keep something of what the batch took away, as the last thing before its commit: other
    /// batches wait for whoever holds a count.
    pub(super) async fn write(
        &self,
        session: &mut Session,
        schemas: &Schemas,
        batch: &Batch,
    ) -> Result<(), OrderError> {
        let (feed, connection) = (schemas.ledger("feed"), batch.reader.connection.as_str());
        let object = batch.object.as_str();
        if !self.new.is_empty() {
            let new: Vec<&str> = self.new.iter().copied().collect();
            let sql = format!(
                "INSERT INTO {feed} (connection, destination, object) SELECT $1, d, $3 FROM unnest($2::text[]) d
                 ON CONFLICT DO NOTHING"
            );
            session.execute(&sql, &[&connection, &new, &object]).await?;
        }
        if !self.lost.is_empty() {
            let lost: Vec<&str> = self.lost.iter().copied().collect();
            let sql = format!(
                "UPDATE {feed} SET lost = lost + 1 WHERE connection = $1 AND destination = ANY($2) AND object = $3"
            );
            session
                .execute(&sql, &[&connection, &lost, &object])
                .await?;
        }
        Ok(())
    }
}

impl Recall {
    /// One of so many that keep [`MOST`] rows together.
    pub(super) fn of(writers: usize) -> Self {
        Self {
            most: MOST / writers.max(1),
            ..Self::default()
        }
    }

    /// Forgets what the feeds, read within the batch, say may not be true any more.
    pub(super) fn check(&mut self, session: &Session, connection: &ConnectionId, feeds: &Feeds) {
        if self.session != session.number() {
            self.session = session.number();
            self.tables.clear();
        }
        self.tables.retain(|(of, table), kept| {
            of != connection
                || feeds
                    .0
                    .get(table)
                    .is_some_and(|feed| *feed == [kept.feed.clone()])
        });
    }

    /// The rows of a table that need not be looked up by record id.
    pub(super) fn rows(&self, connection: &ConnectionId, table: &str) -> Option<&Rows> {
        let kept = self.tables.get(&(connection.clone(), table.into()));
        kept.map(|kept| &kept.rows)
    }

    /// Keeps what a batch found, after its commit.
    pub(super) fn keep(
        &mut self,
        connection: &ConnectionId,
        feeds: &Feeds,
        learned: &mut Learned<'_>,
    ) {
        for (table, found) in std::mem::take(&mut learned.found) {
            let Some([feed]) = feeds.0.get(table.as_str()).map(Vec::as_slice) else {
                continue;
            };
            if !learned.leaves(&table) {
                continue;
            }
            let held: usize = self.tables.values().map(|kept| kept.rows.len()).sum();
            if held + found.len() > self.most {
                self.tables.clear();
            }
            let key = (connection.clone(), table.into_boxed_str());
            let kept = self.tables.entry(key).or_insert_with(|| Kept {
                feed: feed.clone(),
                rows: Rows::new(),
            });
            kept.rows.extend(found);
        }
    }
}

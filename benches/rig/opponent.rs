//! What the daemon is measured against: the same tables written by the bare technique, from buffers made before.
//!
//! * `ledgered`: what a batch has to leave behind (offset, crosswalk, rows), by three set-based statements in one
//!   pipelined transaction. It reads nothing, decides nothing and answers nothing.
//! * `bare`: the rows alone, by the same upsert.
//! * `copy`: the rows alone, by a plain binary COPY into the table.

use bytes::{BufMut, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::SinkExt;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Statement};
use tributary::mapping::compile::{Mapped, Mapping};
use tributary::mapping::plan::{Cell, MappedRow};
use tributary::model::change::Change;
use uuid::Uuid;

use super::load::{self, COLUMNS, LOOKUPS, Parents};
use super::server::Server;

/// How an opponent writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Ledgered,
    Bare,
    Copy,
}

/// A connection that writes buffers.
pub struct Opponent {
    client: Client,
    way: Way,
    offset: Statement,
    crosswalk: Statement,
    rows: Statement,
    copy: Statement,
    next: i64,
    partition: i32,
}

/// A batch, encoded.
pub struct Buffers {
    changes: u64,
    records: Encoded,
    versions: Encoded,
    gsids: Encoded,
    columns: Vec<Encoded>,
    copy: Bytes,
}

/// An array as it goes over the wire.
#[derive(Debug)]
struct Encoded(Bytes);

impl ToSql for Encoded {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn names() -> Vec<String> {
    let columns = (0..COLUMNS).map(|place| format!("column_{place}"));
    columns
        .chain((0..LOOKUPS).map(|parent| format!("parent_{parent}")))
        .collect()
}

/// The column's type, the one in which it travels, and that as an array.
fn types(place: usize) -> (Type, &'static str, Type) {
    match place {
        0..=9 => (Type::TEXT, "text", Type::TEXT_ARRAY),
        10 => (Type::DATE, "date", Type::DATE_ARRAY),
        11..=13 => (Type::TIMESTAMPTZ, "timestamptz", Type::TIMESTAMPTZ_ARRAY),
        14..=17 => (Type::NUMERIC, "text", Type::TEXT_ARRAY),
        18..COLUMNS => (Type::BOOL, "boolean", Type::BOOL_ARRAY),
        _ => (Type::UUID, "uuid", Type::UUID_ARRAY),
    }
}

impl Opponent {
    /// On the tables of a target that has prepared the same job under `name`.
    pub async fn new(server: &Server, name: &str, way: Way, partition: i32) -> Self {
        let client = server.client().await;
        client
            .batch_execute(
                "SET jit = off; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;
                 SET enable_hashjoin = off; SET enable_mergejoin = off",
            )
            .await
            .unwrap();
        let offset = format!(
            "INSERT INTO {name}_ledger.\"offset\" AS o VALUES ('acme', 'opponent', 'live', 'one', $1, $2, 1)
             ON CONFLICT (connection, job, reader, generation, partition) DO UPDATE SET next = excluded.next"
        );
        let crosswalk = format!(
            "INSERT INTO {name}_ledger.crosswalk AS x (connection, destination, record, object, gsid, version, gone)
             SELECT 'acme', 'asset', s.r, 'Asset', s.g, s.v, false FROM unnest($1::text[], $2::uuid[], $3::text[]) s(r, g, v)
             ON CONFLICT (connection, destination, record, object) DO UPDATE SET version = excluded.version
                WHERE x.version <= excluded.version"
        );
        let table = format!("{name}_store.asset");
        let columns = names();
        let arrays: Vec<_> = (0..columns.len())
            .map(|place| format!("${}::{}[]", place + 3, types(place).1))
            .collect();
        let values: Vec<_> = (0..columns.len())
            .map(|place| {
                if types(place).0 == Type::NUMERIC {
                    format!("s.c{place}::numeric")
                } else {
                    format!("s.c{place}")
                }
            })
            .collect();
        let aliases: Vec<_> = (0..columns.len())
            .map(|place| format!("c{place}"))
            .collect();
        let set: Vec<_> = columns
            .iter()
            .map(|name| format!("{name} = excluded.{name}"))
            .collect();
        let differs: Vec<_> = columns
            .iter()
            .map(|name| format!("t.{name} IS DISTINCT FROM excluded.{name}"))
            .collect();
        let rows = format!(
            "INSERT INTO {table} AS t (gsid, created_date, modified_date, {})
             SELECT s.g, $1, $1, {} FROM unnest($2::uuid[], {}) s(g, {})
             ON CONFLICT (gsid) DO UPDATE SET modified_date = excluded.modified_date, {} WHERE {}",
            columns.join(", "),
            values.join(", "),
            arrays.join(", "),
            aliases.join(", "),
            set.join(", "),
            differs.join(" OR ")
        );
        let copy = format!(
            "COPY {table} (gsid, created_date, modified_date, {}) FROM STDIN (FORMAT binary)",
            columns.join(", ")
        );
        Self {
            offset: client.prepare(&offset).await.unwrap(),
            crosswalk: client.prepare(&crosswalk).await.unwrap(),
            rows: client.prepare(&rows).await.unwrap(),
            copy: client.prepare(&copy).await.unwrap(),
            client,
            way,
            next: 0,
            partition,
        }
    }

    /// Writes a batch in one transaction.
    pub async fn write(&mut self, batch: &Buffers) -> u64 {
        self.next += batch.changes as i64;
        let now = Utc::now();
        let place: [&(dyn ToSql + Sync); 2] = [&self.partition, &self.next];
        let entries: [&(dyn ToSql + Sync); 3] = [&batch.records, &batch.gsids, &batch.versions];
        let mut rows: Vec<&(dyn ToSql + Sync)> = vec![&now, &batch.gsids];
        rows.extend(
            batch
                .columns
                .iter()
                .map(|column| column as &(dyn ToSql + Sync)),
        );
        let client = &self.client;
        match self.way {
            Way::Ledgered => {
                tokio::try_join!(
                    client.batch_execute("BEGIN"),
                    client.execute(&self.offset, &place),
                    client.execute(&self.crosswalk, &entries),
                    client.execute(&self.rows, &rows),
                    client.batch_execute("COMMIT"),
                )
                .unwrap();
            }
            Way::Bare => {
                client.execute(&self.rows, &rows).await.unwrap();
            }
            Way::Copy => {
                let sink = client.copy_in::<_, Bytes>(&self.copy).await.unwrap();
                let mut sink = std::pin::pin!(sink);
                sink.send(batch.copy.clone()).await.unwrap();
                sink.close().await.unwrap();
            }
        }
        batch.changes
    }
}

/// Maps changes as the daemon does and encodes what is to be written.
pub fn encode(
    mapping: &Mapping,
    changes: &[(usize, usize, u64)],
    parents: Parents,
    copy: bool,
) -> Buffers {
    let at = DateTime::from_timestamp(1_767_607_872, 0).unwrap_or_default();
    let rows: Vec<(Uuid, MappedRow)> = changes
        .iter()
        .map(|(number, state, version)| {
            let change: Change = load::change(*number, *state, *version, parents, at);
            let Mapped::Rows(rows) = mapping.map(&change, (0, 0), at) else {
                panic!("a change was not mapped");
            };
            // Ordered, as UUIDv7 are.
            (
                load::parent_gsid(1 << 16, *number),
                rows.into_iter().next().unwrap(),
            )
        })
        .collect();
    let cells = |place: usize| {
        rows.iter().map(move |(_, row)| {
            row.cells
                .get(place)
                .cloned()
                .flatten()
                .unwrap_or(Cell::Null)
        })
    };
    let columns = (0..COLUMNS + LOOKUPS)
        .map(|place| column(place, cells(place)))
        .collect();
    let texts = |text: &dyn Fn(&MappedRow) -> String| {
        array(
            &rows.iter().map(|(_, row)| text(row)).collect::<Vec<_>>(),
            &Type::TEXT_ARRAY,
        )
    };
    Buffers {
        changes: rows.len() as u64,
        records: texts(&|row| row.record.to_string()),
        versions: texts(&|row| row.version.to_string()),
        gsids: array(
            &rows.iter().map(|(gsid, _)| *gsid).collect::<Vec<_>>(),
            &Type::UUID_ARRAY,
        ),
        columns,
        copy: if copy {
            copied(&rows, at)
        } else {
            Bytes::new()
        },
    }
}

fn array(values: &(dyn ToSql + Sync), ty: &Type) -> Encoded {
    let mut out = BytesMut::new();
    values.to_sql_checked(ty, &mut out).unwrap();
    Encoded(out.freeze())
}

fn column(place: usize, cells: impl Iterator<Item = Cell>) -> Encoded {
    let ty = types(place).2;
    match ty {
        Type::TEXT_ARRAY => {
            let texts = cells.map(|cell| match cell {
                Cell::Text(text) | Cell::Number(text) => Some(text.into_string()),
                _ => None,
            });
            array(&texts.collect::<Vec<_>>(), &ty)
        }
        Type::DATE_ARRAY => {
            let days = cells.map(|cell| {
                if let Cell::Date(day) = cell {
                    Some(day)
                } else {
                    None
                }
            });
            array(&days.collect::<Vec<_>>(), &ty)
        }
        Type::TIMESTAMPTZ_ARRAY => {
            let times = cells.map(|cell| {
                if let Cell::DateTime(at) = cell {
                    Some(at)
                } else {
                    None
                }
            });
            array(&times.collect::<Vec<_>>(), &ty)
        }
        Type::BOOL_ARRAY => {
            let flags = cells.map(|cell| {
                if let Cell::Boolean(flag) = cell {
                    Some(flag)
                } else {
                    None
                }
            });
            array(&flags.collect::<Vec<_>>(), &ty)
        }
        _ => {
            let gsids = cells.map(|cell| {
                if let Cell::Gsid(gsid) = cell {
                    Some(gsid)
                } else {
                    None
                }
            });
            array(&gsids.collect::<Vec<_>>(), &ty)
        }
    }
}

/// Rows in the binary format of COPY (PostgreSQL documentation, "COPY").
fn copied(rows: &[(Uuid, MappedRow)], at: DateTime<Utc>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(b"PGCOPY\n\xff\r\n\0");
    out.put_i64(0);
    for (gsid, row) in rows {
        out.put_i16((COLUMNS + LOOKUPS + 3) as i16);
        field(&mut out, gsid, &Type::UUID);
        field(&mut out, &at, &Type::TIMESTAMPTZ);
        field(&mut out, &at, &Type::TIMESTAMPTZ);
        for place in 0..COLUMNS + LOOKUPS {
            let ty = types(place).0;
            match row.cells.get(place).and_then(Option::as_ref) {
                Some(Cell::Text(text)) => field(&mut out, &&**text, &ty),
                Some(Cell::Number(digits)) => field(&mut out, &Encoded(numeric(digits)), &ty),
                Some(Cell::Date(day)) => field(&mut out, day, &ty),
                Some(Cell::DateTime(at)) => field(&mut out, at, &ty),
                Some(Cell::Boolean(flag)) => field(&mut out, flag, &ty),
                Some(Cell::Gsid(gsid)) => field(&mut out, gsid, &ty),
                Some(Cell::Null) | None => out.put_i32(-1),
            }
        }
    }
    out.put_i16(-1);
    out.freeze()
}

fn field(out: &mut BytesMut, value: &(dyn ToSql + Sync), ty: &Type) {
    let at = out.len();
    out.put_i32(0);
    value.to_sql_checked(ty, out).unwrap();
    let length = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// A positive plain number as `numeric_send` has it: groups of four digits.
fn numeric(digits: &str) -> Bytes {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = format!("{whole:0>width$}", width = whole.len().div_ceil(4) * 4);
    let padded = format!(
        "{fraction:0<width$}",
        width = fraction.len().div_ceil(4) * 4
    );
    let groups = format!("{whole}{padded}");
    let mut out = BytesMut::new();
    out.put_i16((groups.len() / 4) as i16);
    out.put_i16((whole.len() / 4) as i16 - 1);
    out.put_i16(0);
    out.put_i16(fraction.len() as i16);
    for group in groups.as_bytes().chunks(4) {
        out.put_i16(std::str::from_utf8(group).unwrap().parse().unwrap());
    }
    out.freeze()
}

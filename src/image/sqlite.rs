//! The SQLite engine of the image store: `images.db`, beside the log.

mod children;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use async_trait::async_trait;
use chrono::DateTime;
use rusqlite::{OptionalExtension, params};

use crate::fault::{Fault, FaultKind};
use crate::image::beside::ImagesBeside;
use crate::image::merge::Image;
use crate::image::port::{Held, ImageBatch, ImageStore, Mark};
use crate::model::name::{ConnectionId, FieldName, ObjectKey};
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::sqlite::database::Database;
use crate::sqlite::error::JobError;
use crate::sqlite::lock::FileLock;
use crate::sqlite::readers::Readers;
use crate::sqlite::writer::Writer;

/// Its schema, step by step; steps are only ever added. Instants are microseconds since 1970, UTC.
const STEPS: &[&str] = &[
    "
CREATE TABLE image (
    connection TEXT NOT NULL, object TEXT NOT NULL, record TEXT NOT NULL, image TEXT NOT NULL,
    PRIMARY KEY (connection, object, record)
) STRICT, WITHOUT ROWID;
CREATE TABLE held (
    connection TEXT NOT NULL, object TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (connection, object, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE generation (
    connection TEXT NOT NULL, object TEXT NOT NULL, generation TEXT NOT NULL,
    PRIMARY KEY (connection, object)
) STRICT, WITHOUT ROWID;
CREATE TABLE position (connection TEXT NOT NULL PRIMARY KEY, position TEXT NOT NULL) STRICT, WITHOUT ROWID;
",
    "
DROP TABLE position;
CREATE TABLE mark (
    connection TEXT NOT NULL PRIMARY KEY, position TEXT NOT NULL, committed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
",
];
const READERS: usize = 2;

/// Images in a SQLite file.
#[derive(Debug)]
pub struct SqliteImages {
    writer: Writer,
    readers: Readers,
}

impl SqliteImages {
    /// Opens `images.db` in `dir`, alone.
    ///
    /// # Errors
    /// `Config` while another process holds it, `Storage` or `Corrupt` if the file can't be used.
    pub async fn open(dir: &Path) -> Result<Self, Fault> {
        let lock = FileLock::take(&dir.join("images.lock"))?;
        let database = Database::new(dir.join("images.db"), STEPS);
        Ok(Self {
            writer: Writer::open(database.clone(), Some(lock)).await?,
            readers: Readers::new(database, READERS),
        })
    }

    /// Opens the file for reading beside a running daemon.
    #[must_use]
    pub fn read_only(dir: &Path) -> ReadOnlyImages {
        ReadOnlyImages(Readers::new(Database::new(dir.join("images.db"), STEPS), 1))
    }
}

/// Images of a file that another process may be writing.
#[derive(Debug)]
pub struct ReadOnlyImages(Readers);

impl ReadOnlyImages {
    /// The image of one record.
    ///
    /// # Errors
    /// As [`ImageStore::get`].
    pub async fn image(
        &self,
        object: &ObjectKey,
        record: &RecordId,
    ) -> Result<Option<Image>, Fault> {
        let found = get(&self.0, object, vec![record.clone()]).await?;
        Ok(found.into_values().next())
    }
}

#[async_trait]
impl ImagesBeside for ReadOnlyImages {
    async fn images(
        &self,
        object: &ObjectKey,
        records: Vec<RecordId>,
    ) -> Result<HashMap<RecordId, Image>, Fault> {
        get(&self.0, object, records).await
    }

    async fn page(
        &self,
        object: &ObjectKey,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Image)>, Fault> {
        scan(&self.0, object, after, limit).await
    }
}

async fn get(
    readers: &Readers,
    object: &ObjectKey,
    records: Vec<RecordId>,
) -> Result<HashMap<RecordId, Image>, Fault> {
    let object = object.clone();
    readers
        .read(move |transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT image FROM image WHERE connection = ?1 AND object = ?2 AND record = ?3",
            )?;
            let mut found = HashMap::with_capacity(records.len());
            for record in records {
                let image: Option<String> = statement
                    .query_row(
                        params![
                            object.connection.as_str(),
                            object.object.as_str(),
                            record.as_str()
                        ],
                        |row| row.get(0),
                    )
                    .optional()?;
                if let Some(image) = image {
                    let image = parse(&record, &image)?;
                    found.insert(record, image);
                }
            }
            Ok(found)
        })
        .await
}

async fn scan(
    readers: &Readers,
    object: &ObjectKey,
    after: Option<RecordId>,
    limit: usize,
) -> Result<Vec<(RecordId, Image)>, Fault> {
    let object = object.clone();
    readers
            .read(move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "SELECT record, image FROM image
                     WHERE connection = ?1 AND object = ?2 AND record > ?3 ORDER BY record LIMIT ?4",
                )?;
                let after = after.as_ref().map_or("", RecordId::as_str);
                let rows = statement.query_map(
                    params![
                        object.connection.as_str(),
                        object.object.as_str(),
                        after,
                        i64::try_from(limit).unwrap_or(i64::MAX)
                    ],
                    |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
                )?;
                let mut images = Vec::new();
                for row in rows {
                    let (record, json) = row?;
                    let record = RecordId::stored(record);
                    let image = parse(&record, &json)?;
                    images.push((record, image));
                }
                Ok(images)
            })
            .await
}

fn parse(record: &RecordId, json: &str) -> Result<Image, JobError> {
    serde_json::from_str(json).map_err(|error| {
        JobError::Fault(
            Fault::new(
                FaultKind::Corrupt,
                format!("reading the stored image of {record}"),
            )
            .source(error)
            .remedy("stop the daemon and delete images.db: images are rebuilt from the topics"),
        )
    })
}

fn unwritable(error: serde_json::Error) -> JobError {
    JobError::Fault(Fault::new(FaultKind::Corrupt, "encoding image").source(error))
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[async_trait]
impl ImageStore for SqliteImages {
    async fn get(
        &self,
        object: &ObjectKey,
        records: Vec<RecordId>,
    ) -> Result<HashMap<RecordId, Image>, Fault> {
        get(&self.readers, object, records).await
    }

    async fn put(&self, batch: ImageBatch) -> Result<(), Fault> {
        self.writer
            .grouped(move |transaction| {
                let mut put = transaction.prepare_cached(
                    "INSERT INTO image VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET image = excluded.image",
                )?;
                for (object, images) in batch.images {
                    for (record, image) in images {
                        let json = serde_json::to_string(&image).map_err(unwritable)?;
                        put.execute(params![
                            object.connection.as_str(),
                            object.object.as_str(),
                            record.as_str(),
                            json
                        ])?;
                    }
                }
                let mut hold = transaction.prepare_cached(
                    "INSERT INTO held VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET next = excluded.next",
                )?;
                for (object, partition, offset) in batch.offsets {
                    hold.execute(params![
                        object.connection.as_str(),
                        object.object.as_str(),
                        partition,
                        number(offset)
                    ])?;
                }
                if let Some((connection, mark)) = batch.mark {
                    transaction.execute(
                        "INSERT INTO mark VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE
                         SET position = excluded.position, committed_at = excluded.committed_at",
                        params![
                            connection.as_str(),
                            mark.position.as_str(),
                            mark.committed_at.timestamp_micros()
                        ],
                    )?;
                }
                Ok(())
            })
            .await
    }

    async fn held(&self, object: &ObjectKey) -> Result<Held, Fault> {
        let object = object.clone();
        self.readers
            .read(move |transaction| {
                let key = params![object.connection.as_str(), object.object.as_str()];
                let generation = transaction
                    .query_row(
                        "SELECT generation FROM generation WHERE connection = ?1 AND object = ?2",
                        key,
                        |row| row.get(0),
                    )
                    .optional()?;
                let mut statement = transaction.prepare_cached(
                    "SELECT partition, next FROM held WHERE connection = ?1 AND object = ?2",
                )?;
                let offsets = statement
                    .query_map(key, |row| {
                        Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
                    })?
                    .collect::<Result<BTreeMap<u32, u64>, _>>()?;
                Ok(Held {
                    generation,
                    offsets,
                })
            })
            .await
    }

    async fn mark(&self, connection: &ConnectionId) -> Result<Option<Mark>, Fault> {
        let connection = connection.clone();
        self.readers
            .read(move |transaction| {
                let stored: Option<(String, i64)> = transaction
                    .query_row(
                        "SELECT position, committed_at FROM mark WHERE connection = ?1",
                        [connection.as_str()],
                        |row| Ok((row.get(0)?, row.get(1)?)),
                    )
                    .optional()?;
                // An instant out of range can't have been written here; without a mark, more is merged twice.
                Ok(stored.and_then(|(position, micros)| {
                    Some(Mark {
                        position: Position::new(position),
                        committed_at: DateTime::from_timestamp_micros(micros)?,
                    })
                }))
            })
            .await
    }

    async fn clear(&self, object: &ObjectKey, generation: &str) -> Result<(), Fault> {
        let (object, generation) = (object.clone(), generation.to_owned());
        self.writer
            .grouped(move |transaction| {
                let key = params![object.connection.as_str(), object.object.as_str()];
                for table in ["image", "held", "generation"] {
                    let sql = format!("DELETE FROM {table} WHERE connection = ?1 AND object = ?2");
                    transaction.execute(&sql, key)?;
                }
                transaction.execute(
                    "INSERT INTO generation VALUES (?1, ?2, ?3)",
                    params![
                        object.connection.as_str(),
                        object.object.as_str(),
                        generation
                    ],
                )?;
                Ok(())
            })
            .await
    }

    async fn scan(
        &self,
        object: &ObjectKey,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Image)>, Fault> {
        scan(&self.readers, object, after, limit).await
    }

    async fn refer(&self, object: &ObjectKey, references: &[FieldName]) -> Result<(), Fault> {
        let (object, references) = (object.clone(), references.to_vec());
        self.writer
            .grouped(move |transaction| children::refer(transaction, &object, &references))
            .await
    }

    async fn children(
        &self,
        object: &ObjectKey,
        reference: &FieldName,
        parent: &RecordId,
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, Image)>, Fault> {
        let (object, reference, parent) = (object.clone(), reference.clone(), parent.clone());
        self.readers
            .read(move |transaction| {
                let after = after.as_ref();
                children::page(transaction, &object, &reference, &parent, after, limit)
            })
            .await
    }

    async fn close(&self) -> Result<(), Fault> {
        self.readers.close();
        self.writer.close().await
    }
}

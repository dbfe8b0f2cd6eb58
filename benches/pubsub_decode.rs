//! A Pub/Sub event's way from its Avro datum to the log: how many a second, and what the decoder takes of it.
//!
//! `cargo bench --bench pubsub_decode`. Updates whose fields all changed, of 2 kB (60 fields of text among 90) and 11 kB
//! (250 among 300), all distinct, records in turn; schema and descriptions are known, as after the first event.
//!
//! * `tree`: `apache_avro` to its tree of values, on one thread. It stops there: bitmaps and fields come on top.
//! * `decode`: our decoder, to events ready to merge, on one thread.
//! * `to the log`: decode, merge into the record's image (kept in memory), encode the whole image as a change, append to
//!   the embedded log on the temporary directory's disk, batches of 500, each synchronised. One task decodes and merges
//!   while the log's own thread writes, so it is a figure for two cores.
//!
//! Arms take turns; figures are medians of five rounds. Not in it: gRPC and TLS, the image store, a broker.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::json;
use tokio::task::JoinHandle;
use tributary::crm::salesforce::merge::SalesforceTable;
use tributary::crm::salesforce::pubsub::decoder::Decoder;
use tributary::fault::Fault;
use tributary::image::merge::{Image, MergeTable};
use tributary::log::embedded::{EmbeddedLog, Settings};
use tributary::log::port::{Entry, Log, Place, Policy, TopicSpec};
use tributary::model::change::{Change, Op, Origin, WIRE_VERSION};
use tributary::model::event::{Event, Row};
use tributary::model::name::{ConnectionId, FieldName};
use tributary::model::position::Position;
use tributary::model::record_id::RecordId;
use tributary::model::value::Value;
use tributary::model::version::Version;
use tributary::runtime::clock::SystemClock;

const ROUNDS: usize = 5;
const BATCH: usize = 500;
const RECORDS: usize = 1000;
const SCHEMA: &str = "bench";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for (filled, all, length, events, goal) in [
        (60, 90, 25, 20_000, 20_000.0),
        (250, 300, 41, 4_000, 3_000.0),
    ] {
        let shape = Shape::new(filled, all, length, events);
        let mut figures: [Vec<f64>; 3] = Default::default();
        for _ in 0..ROUNDS {
            figures[0].push(shape.tree());
            figures[1].push(shape.decode());
            figures[2].push(runtime.block_on(shape.to_the_log()));
        }
        let [tree, decode, log] = figures.map(|mut rounds| {
            rounds.sort_by(f64::total_cmp);
            rounds[ROUNDS / 2]
        });
        println!(
            "{:>6} bytes: tree {tree:>7.0}/s   decode {decode:>7.0}/s ({:.1} times)   to the log {log:>6.0}/s (goal {goal})",
            shape.data[0].len(),
            decode / tree,
        );
    }
    if cfg!(debug_assertions) {
        println!("a debug build: the figures mean nothing");
    }
}

struct Shape {
    schema: Schema,
    decoder: Decoder,
    data: Vec<Vec<u8>>,
    carried: BTreeSet<FieldName>,
}

impl Shape {
    fn new(filled: usize, all: usize, length: usize, events: usize) -> Self {
        let json = schema(all);
        let parsed = Schema::parse_str(&json).unwrap();
        let fields: Vec<_> = (1..=all)
            .map(|number| json!({"name": name(number), "label": "", "type": "string"}))
            .collect();
        let describe = json!({"name": "Account", "label": "Account", "fields": fields}).to_string();
        let data = (0..events)
            .map(|number| datum(&parsed, number, filled, all, length))
            .collect();
        Self {
            decoder: Decoder::of(&[describe.as_bytes()], &[(SCHEMA, &json)]).unwrap(),
            schema: parsed,
            data,
            carried: (1..=all)
                .map(|number| FieldName::new(name(number)))
                .collect(),
        }
    }

    fn tree(&self) -> f64 {
        let reader = GenericDatumReader::builder(&self.schema).build().unwrap();
        self.rate(|datum| {
            black_box(reader.read_value(&mut &datum[..]).unwrap());
        })
    }

    fn decode(&self) -> f64 {
        let position = Position::new("pubsub:AAAAAAAAAAEAAA");
        self.rate(|datum| {
            let decoded = self
                .decoder
                .decode(Some((SCHEMA, datum)), &position, Utc::now());
            assert_eq!(black_box(decoded).events.len(), 1);
        })
    }

    fn rate(&self, mut work: impl FnMut(&[u8])) -> f64 {
        let began = Instant::now();
        self.data.iter().for_each(|datum| work(black_box(datum)));
        per_second(self.data.len(), began.elapsed())
    }

    async fn to_the_log(&self) -> f64 {
        let folder = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(folder.path(), Arc::new(SystemClock), Settings::default())
            .await
            .unwrap();
        let topic: Arc<str> = "tributary.acme.Account".into();
        log.ensure(&TopicSpec {
            name: topic.to_string(),
            partitions: 8,
            policy: Policy::Compact {
                min_lag: Duration::from_hours(168),
                delete_retention: Duration::from_hours(720),
            },
        })
        .await
        .unwrap();
        let mut images: BTreeMap<RecordId, Image> = (0..RECORDS)
            .map(|number| (record(number), self.known(number)))
            .collect();
        let began = Instant::now();
        let mut counter = 0;
        let log = Arc::new(log);
        let mut pending: Option<JoinHandle<Result<Vec<Place>, Fault>>> = None;
        for batch in self.data.chunks(BATCH) {
            let mut entries = Vec::with_capacity(batch.len());
            for datum in batch {
                counter += 1;
                let position = Position::new(format!("pubsub:{counter:014}"));
                let decoded = self
                    .decoder
                    .decode(Some((SCHEMA, datum)), &position, Utc::now());
                for event in decoded.events {
                    entries.push(self.merged(&mut images, event, &topic, counter));
                }
            }
            // The batch before is written while this one was made.
            if let Some(before) = pending.take() {
                before.await.unwrap().unwrap();
            }
            let log = Arc::clone(&log);
            pending = Some(tokio::spawn(async move { log.append(entries).await }));
        }
        if let Some(last) = pending {
            last.await.unwrap().unwrap();
        }
        let rate = per_second(self.data.len(), began.elapsed());
        log.close().await.unwrap();
        rate
    }

    fn known(&self, number: usize) -> Image {
        let row = Row {
            version: None,
            record: record(number),
            fields: self
                .carried
                .iter()
                .map(|name| (name.clone(), Value::Null))
                .collect(),
            modified_at: None,
        };
        let step = SalesforceTable.row(None, &row, DateTime::UNIX_EPOCH, None);
        step.image.unwrap()
    }

    fn merged(
        &self,
        images: &mut BTreeMap<RecordId, Image>,
        event: Event,
        topic: &Arc<str>,
        counter: u64,
    ) -> Entry {
        let id = event.records[0].clone();
        let before = images.remove(&id);
        let step = SalesforceTable.event(before, &event, &self.carried);
        let mut image = step.image.unwrap();
        image.version = Version::new(1_767_607_872, counter);
        let change = Change {
            v: WIRE_VERSION,
            connection: ConnectionId::new("acme"),
            object: event.object.clone(),
            id: id.clone(),
            op: Op::Update,
            version: image.version,
            committed_at: Some(event.committed_at),
            origin: Origin::Stream,
            position: Some(event.position),
            transaction: Some(event.transaction),
            changed: step.changed,
            fields: image.fields.clone(),
            row: None,
            synced: None,
        };
        images.insert(id.clone(), image);
        Entry {
            topic: Arc::clone(topic),
            key: Bytes::from(id.as_str().to_owned()),
            value: Some(change.encode().unwrap().into()),
            headers: change.headers(),
        }
    }
}

fn per_second(count: usize, time: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let count = count as f64;
    count / time.as_secs_f64()
}

fn name(number: usize) -> String {
    format!("Field_{number}__c")
}

fn record(number: usize) -> RecordId {
    RecordId::salesforce(&format!("001A{number:011}")).unwrap()
}

fn schema(all: usize) -> String {
    let texts = json!({"type": "array", "items": "string"});
    let symbols = ["CREATE", "UPDATE", "DELETE", "UNDELETE"];
    let header = json!({"type": "record", "name": "ChangeEventHeader", "fields": [
        {"name": "entityName", "type": "string"}, {"name": "recordIds", "type": texts},
        {"name": "changeType", "type": {"type": "enum", "name": "ChangeType", "symbols": symbols}},
        {"name": "changeOrigin", "type": "string"}, {"name": "transactionKey", "type": "string"},
        {"name": "sequenceNumber", "type": "int"}, {"name": "commitTimestamp", "type": "long"},
        {"name": "commitNumber", "type": "long"}, {"name": "commitUser", "type": "string"},
        {"name": "nulledFields", "type": texts}, {"name": "diffFields", "type": texts},
        {"name": "changedFields", "type": texts},
    ]});
    let mut fields = vec![json!({"name": "ChangeEventHeader", "type": header})];
    fields.extend(
        (1..=all).map(
            |number| json!({"name": name(number), "type": ["null", "string"], "default": null}),
        ),
    );
    json!({"type": "record", "name": "AccountChangeEvent", "namespace": "com.sforce.eventbus", "fields": fields})
        .to_string()
}

fn datum(schema: &Schema, number: usize, filled: usize, all: usize, length: usize) -> Vec<u8> {
    let text = |text: &str| Avro::String(text.to_owned());
    let bits: String = (1..=filled)
        .fold(vec![0_u8; filled / 8 + 1], |mut bytes, bit| {
            bytes[bit / 8] |= 1 << (bit % 8);
            bytes
        })
        .iter()
        .rev()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let header = Avro::Record(
        [
            ("entityName", text("Account")),
            (
                "recordIds",
                Avro::Array(vec![text(record(number % RECORDS).as_str())]),
            ),
            ("changeType", Avro::Enum(1, "UPDATE".to_owned())),
            (
                "changeOrigin",
                text("com/salesforce/api/rest/66.0;client=other"),
            ),
            (
                "transactionKey",
                text(&format!("000a0000-0000-0000-0000-{number:012}")),
            ),
            ("sequenceNumber", Avro::Int(1)),
            ("commitTimestamp", Avro::Long(1_767_607_872_000)),
            ("commitNumber", Avro::Long(7_000_000_000_000_000_001)),
            ("commitUser", text("005A0000006Vm9uIAC")),
            ("nulledFields", Avro::Array(Vec::new())),
            ("diffFields", Avro::Array(Vec::new())),
            (
                "changedFields",
                Avro::Array(vec![text(&format!("0x{bits}"))]),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
    );
    let mut fields = vec![("ChangeEventHeader".to_owned(), header)];
    fields.extend((1..=all).map(|field| {
        let value = if field <= filled {
            let value = format!("{number}-{field}-{}", "x".repeat(length));
            Avro::Union(1, Box::new(Avro::String(value)))
        } else {
            Avro::Union(0, Box::new(Avro::Null))
        };
        (name(field), value)
    }));
    let writer = GenericDatumWriter::builder(schema).build().unwrap();
    writer.write_value_to_vec(Avro::Record(fields)).unwrap()
}

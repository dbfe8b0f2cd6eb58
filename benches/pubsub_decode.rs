//! A Pub/Sub event's way from its Avro datum to the log: how many a second, and what the decoder takes of it.
//!
//! `cargo bench --bench pubsub_decode`. Updates whose fields all changed, of 2 kB (60 fields of text among 90) and 11 kB
//! (250 among 300), all distinct, records in turn; schema and descriptions are known, as after the first event.
//!
//! * `tree`: `apache_avro` to its tree of values, on one thread. It stops there: bitmaps and fields come on top.
//! * `decode`: our decoder, to events ready to merge, on one thread.
//! * `to the log`: decoded by a task as the listener's, answers of 100 events, and sent through the daemon's own ingest:
//!   merged into the records' images, encoded as changes with whole images, appended to the embedded log on the temporary
//!   directory's disk, each append synchronised; positions stored. Images and state are kept in memory. As in the
//!   daemon, the listener decodes and the log's thread writes while ingest merges: a figure for two cores.
//!
//! Arms take turns; figures are medians of five rounds. Not in it: gRPC and TLS, the image store's file, a broker.
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use chrono::{DateTime, Utc};
use rig::org::{Schedule, ScriptedOrg};
use serde_json::json;
use tokio::sync::mpsc;
use tributary::crm::port::Heard;
use tributary::crm::salesforce::merge::SalesforceTable;
use tributary::crm::salesforce::pubsub::decoder::Decoder;
use tributary::flow::ingest::{Beginning, End, Ingest, Input, Lease, QUEUE, Redelivery};
use tributary::flow::road::{ObjectRoad, Objects, PARTITIONS, Road};
use tributary::image::memory::MemoryImages;
use tributary::image::merge::{Image, MergeTable};
use tributary::image::port::{ImageBatch, ImageStore};
use tributary::log::embedded::{EmbeddedLog, Settings};
use tributary::log::port::{Log, Policy, TopicSpec};
use tributary::model::event::Row;
use tributary::model::name::{ConnectionId, FieldName};
use tributary::model::position::Position;
use tributary::model::record_id::RecordId;
use tributary::model::schema::{FieldKind, FieldSchema, ObjectSchema};
use tributary::model::value::Value;
use tributary::runtime::clock::SystemClock;
use tributary::runtime::shutdown::StopSignal;
use tributary::state::memory::MemoryState;
use tributary::state::port::StoredPosition;
use tributary::telemetry::metrics::Metrics;

const ROUNDS: usize = 5;
/// What one request for events may ask for (Pub/Sub API, "Event Allocations").
const ANSWER: usize = 100;
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
        let shape = Arc::new(Shape::new(filled, all, length, events));
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

    /// The events on their way through a connection's ingest into the log.
    async fn to_the_log(self: &Arc<Self>) -> f64 {
        let folder = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(folder.path(), Arc::new(SystemClock), Settings::default())
            .await
            .unwrap();
        let log = Arc::new(log);
        let (road, objects) = self.road(Arc::clone(&log)).await;
        let state = Arc::clone(&road.state);
        let now = Utc::now();
        let lease = road.settings.lease;
        let term = state
            .acquire(&road.connection, "bench", now, lease)
            .await
            .unwrap()
            .unwrap();
        let beginning = Beginning {
            term,
            lease: Arc::new(Lease::new(End::after(now, lease))),
            stored: StoredPosition {
                position: None,
                confirmed_at: DateTime::UNIX_EPOCH,
            },
            covered: BTreeMap::new(),
            deaths_known: BTreeMap::new(),
            redelivery: Redelivery::none(),
            moved: Vec::new(),
            ends: BTreeMap::new(),
            owed: Arc::default(),
        };
        let ingest = Ingest::new(road, objects, beginning);
        let (inlet, inputs) = mpsc::channel(QUEUE);
        let began = Instant::now();
        let shape = Arc::clone(self);
        let listening = tokio::spawn(async move {
            for heard in shape.answers() {
                inlet.send(Input::Heard(heard)).await.unwrap();
            }
        });
        ingest.run(inputs, StopSignal::new()).await.unwrap();
        let rate = per_second(self.data.len(), began.elapsed());
        listening.await.unwrap();
        let ends = log.bounds("tributary.acme.Account").await.unwrap();
        let written: u64 = ends.values().map(|bounds| bounds.end).sum();
        assert_eq!(written, self.data.len() as u64, "every event is one change");
        log.close().await.unwrap();
        rate
    }

    /// What the stream answers: as many events as one request for events may ask for.
    fn answers(&self) -> impl Iterator<Item = Heard> {
        let mut counter = 0_u64;
        self.data.chunks(ANSWER).map(move |data| {
            let mut events = Vec::with_capacity(data.len());
            for datum in data {
                counter += 1;
                let position = Position::new(format!("pubsub:{counter:014}"));
                let event = Some((SCHEMA, &datum[..]));
                let decoded = self.decoder.decode(event, &position, Utc::now());
                events.extend(decoded.events);
            }
            Heard {
                position: events.last().map(|event| event.position.clone()),
                events,
                confirmed_at: None,
                lost: Vec::new(),
            }
        })
    }

    /// A connection that knows its records.
    async fn road(&self, log: Arc<EmbeddedLog>) -> (Road, Arc<Objects>) {
        let connection = ConnectionId::new("acme");
        let field = |name: &FieldName| {
            let schema = FieldSchema {
                label: String::new(),
                kind: FieldKind::Text,
                references: Vec::new(),
                relationship: None,
                calculated: false,
                compound: None,
                edition: None,
            };
            (name.clone(), schema)
        };
        let schema = ObjectSchema {
            name: "Account".into(),
            label: "Account".to_owned(),
            fields: self.carried.iter().map(field).collect(),
        };
        let object = ObjectRoad::new(&connection, "tributary", &self.carried, &schema, &[]);
        let object = object.unwrap();
        log.ensure(&TopicSpec {
            name: object.topic.to_string(),
            partitions: PARTITIONS,
            policy: Policy::Compact {
                min_lag: Duration::from_hours(168),
                delete_retention: Duration::from_hours(720),
            },
        })
        .await
        .unwrap();
        let images = MemoryImages::default();
        let known = (0..RECORDS).map(|number| (record(number), self.known(number)));
        images
            .put(ImageBatch {
                images: vec![(object.key.clone(), known.collect())],
                ..ImageBatch::default()
            })
            .await
            .unwrap();
        let silent = Schedule {
            records: 0,
            changes: 0,
            every: Duration::ZERO,
        };
        let road = Road {
            connection,
            crm: Arc::new(ScriptedOrg::new(silent)),
            log,
            images: Arc::new(images),
            state: Arc::new(MemoryState::default()),
            clock: Arc::new(SystemClock),
            metrics: Metrics::none(),
            board: Arc::default(),
            hinted: Arc::default(),
            settings: Arc::default(),
        };
        let objects = BTreeMap::from([(object.key.object.clone(), object)]);
        (road, Arc::new(objects))
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

//! Decoding and mapping a change, against what parsing its JSON to a tree costs alone.
//!
//! `cargo bench --bench hot_path`. One change of the sales example with its whole image; both arms on one thread, in
//! turn, so that a machine that slows down slows both; the figure is the median ratio of the pairs. Below 1.3 (the tree
//! as the unit) somebody built one.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::DateTime;
use tributary::config::Config;
use tributary::mapping::compile::{Mapped, Mapping};
use tributary::model::change::{Change, Op, Origin, WIRE_VERSION};
use tributary::model::event::Transaction;
use tributary::model::name::{ConnectionId, FieldName, ObjectName};
use tributary::model::position::Position;
use tributary::model::record_id::RecordId;
use tributary::model::value::Value;
use tributary::model::version::Version;

const CHANGES: u32 = 50_000;
const PAIRS: usize = 7;

fn main() {
    let mapping = mapping();
    let bytes = change().encode().unwrap();
    let mut ratios: Vec<f64> = (0..PAIRS)
        .map(|_| {
            let tree = time(|| {
                black_box(serde_json::from_slice::<serde_json::Value>(black_box(&bytes)).unwrap());
            });
            let mapped = time(|| {
                let change = mapping.read(black_box(&bytes)).unwrap();
                let mapped = mapping.map_selected(&change, (0, 0), DateTime::UNIX_EPOCH);
                assert!(matches!(black_box(mapped), Mapped::Rows(_)));
            });
            println!(
                "tree {:>7.0} ns   decode and map {:>7.0} ns   ratio {:.2}",
                nanos(tree),
                nanos(mapped),
                tree.as_secs_f64() / mapped.as_secs_f64()
            );
            tree.as_secs_f64() / mapped.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "{} bytes a change; median ratio {:.2}",
        bytes.len(),
        ratios[PAIRS / 2]
    );
    if cfg!(debug_assertions) {
        println!("a debug build: the figures mean nothing");
    }
}

fn time(mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    (0..CHANGES).for_each(|_| work());
    began.elapsed()
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(CHANGES)
}

fn mapping() -> Mapping {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/crm-sales");
    let config = Config::load(&example, &BTreeMap::new()).unwrap();
    let job = config
        .jobs
        .iter()
        .find(|job| job.id.as_str() == "opportunity_sync")
        .unwrap();
    Mapping::compile(job, &config.objects).unwrap()
}

fn change() -> Change {
    let text = |text: &str| Value::from(text);
    let fields = [
        ("Id", text("006A0000006Vm9uIAC")),
        ("Name", text("Cancity - GTX Plus Basic")),
        ("StageName", text("Closed Won")),
        ("Amount", Value::number("1054.50").unwrap()),
        ("CloseDate", text("2017-03-01")),
        ("Type", text("New Business")),
        ("AccountId", text("001A0000006Vm9uIAC")),
        ("OwnerId", text("005A0000006Vm9uIAC")),
    ];
    Change {
        v: WIRE_VERSION,
        connection: ConnectionId::new("acme"),
        object: ObjectName::new("Opportunity"),
        id: RecordId::stored("006A0000006Vm9uIAC"),
        op: Op::Update,
        version: Version::new(1_767_607_872, 42),
        committed_at: DateTime::from_timestamp(1_767_607_872, 0),
        origin: Origin::Stream,
        position: Some(Position::new("cometd:4711")),
        transaction: Some(Transaction {
            key: "000a0000-0000-0000-0000-000000000000".to_owned(),
            sequence: 1,
            user: Some("005A0000006Vm9uIAC".to_owned()),
            client: None,
        }),
        changed: vec![FieldName::new("Amount"), FieldName::new("StageName")],
        fields: fields
            .into_iter()
            .map(|(name, value)| (FieldName::new(name), value))
            .collect(),
        row: None,
        synced: None,
    }
}

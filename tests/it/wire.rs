//! The wire format of a change, fixed by a golden file per operation and origin.

use chrono::{TimeZone, Utc};
use tributary::model::change::{Change, InvalidChange, Op, Origin, RowPlace, WIRE_VERSION};
use tributary::model::event::Transaction;
use tributary::model::name::{ConnectionId, FieldName, ObjectName};
use tributary::model::position::Position;
use tributary::model::record_id::RecordId;
use tributary::model::value::{Fields, Value};
use tributary::model::version::Version;

/// What ingest can be told of: events by the stream, rows and their absence by reads.
const TOLD: [(Op, Origin); 10] = [
    (Op::Create, Origin::Stream),
    (Op::Update, Origin::Stream),
    (Op::Delete, Origin::Stream),
    (Op::Undelete, Origin::Stream),
    (Op::Snapshot, Origin::Snapshot),
    (Op::Snapshot, Origin::Hydrate),
    (Op::Snapshot, Origin::Reconcile),
    (Op::Delete, Origin::Snapshot),
    (Op::Delete, Origin::Hydrate),
    (Op::Delete, Origin::Reconcile),
];

fn change(op: Op, origin: Origin) -> Change {
    let streamed = origin == Origin::Stream;
    Change {
        v: WIRE_VERSION,
        connection: ConnectionId::new("acme"),
        object: ObjectName::new("Account"),
        id: RecordId::salesforce("001A0000006Vm9u").unwrap(),
        op,
        version: Version::new(1_767_607_872, 42),
        committed_at: Some(Utc.timestamp_opt(1_767_607_872, 0).unwrap()),
        origin,
        position: streamed.then(|| Position::new("cometd:/data/ChangeEvents:4711")),
        transaction: streamed.then(|| Transaction {
            key: "000a1b2c-0000-0000-0000-00000000cafe".to_owned(),
            sequence: 1,
            user: Some("005A0000001aBcDIAU".to_owned()),
            client: None,
        }),
        changed: if op == Op::Delete {
            Vec::new()
        } else {
            vec![FieldName::new("BillingCity")]
        },
        fields: Fields::from([
            ("Name".into(), Value::from("Łódź \u{1f3ed} \"quoted\"\n")),
            ("BillingCity".into(), Value::Null),
            ("IsActive__c".into(), Value::Bool(true)),
            (
                "AnnualRevenue".into(),
                Value::number("12345678901234567.890").unwrap(),
            ),
        ]),
        row: None,
        synced: None,
    }
}

/// Dataverse numbers rows and names no transactions of change tracking.
fn of_dynamics(op: Op, origin: Origin) -> Change {
    let streamed = origin == Origin::Stream;
    let at = |seconds: i64| Utc.timestamp_opt(1_767_607_872 + seconds, 0).single();
    Change {
        connection: ConnectionId::new("contoso"),
        object: ObjectName::new("account"),
        id: RecordId::stored("8a6f1b1e-0000-4000-8000-00000000002a"),
        position: streamed.then(|| Position::new("dataverse:{\"t\":{}}")),
        changed: vec![FieldName::new("industrycode@label")],
        fields: Fields::from([
            ("name".into(), Value::from("Łódź \u{1f3ed} \"quoted\"\n")),
            ("industrycode@label".into(), Value::Null),
            ("revenue".into(), Value::number("97177.00").unwrap()),
        ]),
        row: Some(RowPlace {
            incarnation: 0,
            number: 5775,
            told: streamed.then(|| at(3)).flatten(),
            as_of: (!streamed).then(|| at(-7)).flatten(),
        }),
        ..change(op, origin)
    }
}

#[test]
fn every_operation_and_origin_has_its_golden_file() {
    for (crm, (op, origin)) in TOLD
        .map(|told| ("salesforce", told))
        .into_iter()
        .chain(TOLD.map(|told| ("dynamics", told)))
    {
        let change = match crm {
            "dynamics" => of_dynamics(op, origin),
            _ => change(op, origin),
        };
        let bytes = change.encode().unwrap();
        let name = format!("{crm}-{}-{}", op.label(), origin.label());
        insta::assert_snapshot!(name.clone(), String::from_utf8(bytes.clone()).unwrap());
        assert_eq!(
            Change::decode(&bytes).unwrap(),
            change,
            "{name} is read back as it was"
        );
    }
}

#[test]
fn headers_are_cloud_events() {
    let headers = change(Op::Update, Origin::Stream).headers();
    let lines: Vec<String> = headers
        .into_iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8(value).unwrap()))
        .collect();
    insta::assert_snapshot!("headers", lines.join("\n"));
}

#[test]
fn other_versions_and_other_bytes_are_refused() {
    let mut later = change(Op::Update, Origin::Stream);
    later.v = 2;
    let refused = Change::decode(&later.encode().unwrap()).unwrap_err();
    assert!(
        matches!(refused, InvalidChange::Version { found: 2 }),
        "{refused}"
    );
    for bytes in [&b""[..], b"null", b"{}", b"{\"v\":1}", b"\xff\xfe", b"[1,2"] {
        assert!(Change::decode(bytes).is_err());
    }
}

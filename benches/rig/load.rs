//! The load: changes of 1 KB with 20 mapped columns, and if asked for three look-ups by record id.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tributary::config::Config;
use tributary::flow::road::entry_of;
use tributary::log::port::Entry;
use tributary::mapping::compile::Mapping;
use tributary::model::change::{Change, Op, Origin, WIRE_VERSION};
use tributary::model::event::Transaction;
use tributary::model::name::{ConnectionId, FieldName, ObjectName};
use tributary::model::position::Position;
use tributary::model::record_id::RecordId;
use tributary::model::stored::StoredObject;
use tributary::model::value::{Fields, Value};
use tributary::model::version::Version;

/// Mapped columns: 10 texts (the first identifies), a day, 3 instants, 4 numbers, 2 booleans.
pub const COLUMNS: usize = 20;
/// Columns that hold another row's GSID.
pub const LOOKUPS: usize = 3;
/// Parents per look-up.
pub const PARENTS: usize = 20_000;

/// How the GSID columns are filled. No field holds a GSID, so without look-ups they stay empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parents {
    /// There are none.
    None,
    /// By record id.
    LookedUp,
}

const TYPES: [&str; COLUMNS] = [
    "string",
    "string",
    "picklist",
    "string",
    "string",
    "picklist",
    "string",
    "string",
    "email",
    "string",
    "date",
    "datetime",
    "datetime",
    "datetime",
    "currency",
    "number",
    "number",
    "percentage",
    "boolean",
    "boolean",
];

/// Objects and the job `asset_sync`, compiled.
pub struct Plan {
    pub mapping: Arc<Mapping>,
    pub objects: Vec<StoredObject>,
}

/// Reads the config, as the daemon does.
pub fn plan(parents: Parents) -> Plan {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tributary.toml");
    std::fs::write(&file, config(parents)).unwrap();
    let config = Config::load(&file, &BTreeMap::new()).unwrap();
    let job = config
        .jobs
        .iter()
        .find(|job| job.id.as_str() == "asset_sync");
    let mapping = Mapping::compile(job.unwrap(), &config.objects).unwrap();
    let ours =
        |object: &&StoredObject| object.table == "asset" || object.table.starts_with("parent_");
    let objects = config.objects.values().filter(ours);
    Plan {
        mapping: Arc::new(mapping),
        objects: objects.cloned().collect(),
    }
}

fn config(parents: Parents) -> String {
    let mut text = String::from(
        "[target]\nurl = \"sqlite:store.db\"\n\
         [connection.acme]\nkind = \"salesforce\"\norg = \"https://acme.my.salesforce.com\"\n\
         auth = { flow = \"client_credentials\", client_id = \"bench\", client_secret = { env = \"SECRET\" } }\n",
    );
    for parent in 0..LOOKUPS {
        writeln!(
            text,
            "[object.parent_{parent}]\nlabel = \"Parent {parent}\""
        )
        .unwrap();
        writeln!(
            text,
            "[object.parent_{parent}.fields]\nname = {{ type = \"string\" }}"
        )
        .unwrap();
    }
    text.push_str("[object.asset]\nlabel = \"Asset\"\n[object.asset.fields]\n");
    for (place, ty) in TYPES.iter().enumerate() {
        writeln!(text, "column_{place} = {{ type = \"{ty}\" }}").unwrap();
    }
    for parent in 0..LOOKUPS {
        writeln!(
            text,
            "parent_{parent} = {{ type = \"gsid\", references = \"Parent {parent}\" }}"
        )
        .unwrap();
    }
    text.push_str("[job.acme.asset_sync]\nsource = \"Asset\"\non_delete = \"delete\"\n");
    text.push_str("[job.acme.asset_sync.to.Asset]\nidentifiers = [\"column_0\"]\n");
    text.push_str("[job.acme.asset_sync.to.Asset.map]\n");
    for place in 0..COLUMNS {
        writeln!(text, "column_{place} = \"Field_{place}__c\"").unwrap();
    }
    if parents == Parents::LookedUp {
        text.push_str("[job.acme.asset_sync.to.Asset.derive]\n");
        for parent in 0..LOOKUPS {
            writeln!(
                text,
                "parent_{parent} = {{ from = \"Parent {parent}\", match = {{ \"@id\" = \"Parent_{parent}__c\" }} }}"
            )
            .unwrap();
        }
    }
    text
}

/// A record's id; the checksum is not looked at on the road.
pub fn record(number: usize) -> RecordId {
    RecordId::stored(format!("001{number:015}"))
}

/// The GSID of a parent.
pub fn parent_gsid(parent: usize, number: usize) -> uuid::Uuid {
    uuid::Uuid::from_u128(
        0x0199_0000_0000_7000_8000_0000_0000_0000 | (parent as u128) << 40 | number as u128,
    )
}

/// A number without a pattern.
pub fn mix(number: usize) -> usize {
    let mut z = (number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from(z ^ (z >> 31)).unwrap_or_default()
}

/// The whole image of a record at a state; another state changes all but the identifier.
pub fn fields(number: usize, state: usize, parents: Parents) -> Fields {
    let seed = mix(number.wrapping_mul(31).wrapping_add(state));
    let at =
        DateTime::from_timestamp(1_700_000_000 + (seed % 50_000_000) as i64, 0).unwrap_or_default();
    let mut fields = Fields::new();
    for place in 0..COLUMNS {
        let digits = seed.rotate_left(place as u32 * 3) % 100_000_000;
        let value = match place {
            0 => Value::text(record(number).as_str()),
            8 => Value::text(format!("person.{digits}@example.com")),
            1..=9 => Value::text(format!("A text {digits} of column {place}, state {state}")),
            10 => Value::text(at.format("%Y-%m-%d").to_string()),
            11..=13 => Value::text(at.format("%Y-%m-%dT%H:%M:%S.000+0000").to_string()),
            14..=17 => Value::number(&format!("{digits}.{place}")).unwrap(),
            _ => Value::from((seed >> place).is_multiple_of(2)),
        };
        fields.insert(FieldName::new(format!("Field_{place}__c")), value);
    }
    for parent in 0..LOOKUPS {
        let number = mix(seed + parent) % PARENTS;
        let value = match parents {
            Parents::None => break,
            Parents::LookedUp => Value::text(parent_id(parent, number)),
        };
        fields.insert(FieldName::new(format!("Parent_{parent}__c")), value);
    }
    fields
}

/// The CRM's id of a parent.
pub fn parent_id(parent: usize, number: usize) -> String {
    format!("{parent:08}-0000-7000-8000-{number:012}")
}

/// One change of `Asset`.
pub fn change(
    number: usize,
    state: usize,
    version: u64,
    parents: Parents,
    at: DateTime<Utc>,
) -> Change {
    Change {
        v: WIRE_VERSION,
        connection: ConnectionId::new("acme"),
        object: ObjectName::new("Asset"),
        id: record(number),
        op: if version == 1 { Op::Create } else { Op::Update },
        version: Version::new(1_767_607_872, version),
        committed_at: Some(at),
        origin: Origin::Stream,
        position: Some(Position::new("cometd:4711")),
        transaction: Some(Transaction {
            key: "000a0000-0000-0000-0000-000000000000".to_owned(),
            sequence: 1,
            user: Some("005A0000006Vm9uIAC".to_owned()),
            client: None,
        }),
        changed: vec![FieldName::new("Field_1__c"), FieldName::new("Field_14__c")],
        fields: fields(number, state, parents),
        row: None,
        synced: None,
    }
}

/// One change as the topic has it.
pub fn entry(
    topic: &Arc<str>,
    number: usize,
    state: usize,
    version: u64,
    parents: Parents,
) -> Entry {
    let at = DateTime::from_timestamp(1_767_607_872, 0).unwrap_or_default();
    let mut entry = entry_of(topic, &change(number, state, version, parents, at)).unwrap();
    // No reader of the topic within the daemon looks at them.
    entry.headers.clear();
    entry
}

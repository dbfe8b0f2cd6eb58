//! A change as a reader of some of its fields needs it: its head, and their values in slots, borrowed from its bytes.
//!
//! A job reads a dozen of a hundred fields and nothing of the rest. So no map is built, no name is copied, and a text
//! is copied only if it has an escape.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{InvalidChange, Op, Origin, WIRE_VERSION};
use crate::model::name::FieldName;
use crate::model::record_id::RecordId;
use crate::model::value::Scalar;
use crate::model::version::Version;

/// Which fields are read, and into which slots.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// By name, as the fields of a change come.
    names: Vec<(FieldName, usize)>,
}

impl Selection {
    /// A slot per field, in this order.
    #[must_use]
    pub fn new(fields: &[FieldName]) -> Self {
        let mut names: Vec<_> = fields.iter().cloned().zip(0..).collect();
        names.sort_unstable();
        Self { names }
    }

    /// The slot of a name; `at` is where it is likely to be found, and is moved past it.
    fn slot(&self, name: &str, at: &mut usize) -> Option<usize> {
        let place = match self.names.get(*at) {
            Some((likely, _)) if likely.as_str() == name => *at,
            _ => self
                .names
                .binary_search_by(|(known, _)| known.as_str().cmp(name))
                .ok()?,
        };
        *at = place + 1;
        Some(self.names[place].1)
    }
}

/// A change's head and the selected values; see [`super::Change`].
#[derive(Debug, Clone, PartialEq)]
pub struct Selected<'a> {
    /// The record.
    pub id: RecordId,
    /// What happened last.
    pub op: Op,
    /// Its place in the record's order.
    pub version: Version,
    /// The best known time at the source.
    pub committed_at: Option<DateTime<Utc>>,
    /// What told ingest.
    pub origin: Origin,
    /// Its newest version up to here that a full sync told.
    pub synced: Option<Version>,
    values: Vec<Option<Borrowed<'a>>>,
}

/// A value; a text with escapes is unescaped.
#[derive(Debug, Clone, PartialEq)]
enum Borrowed<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
}

impl<'a> Selected<'a> {
    /// Reads a topic value.
    ///
    /// # Errors
    /// [`InvalidChange`]; the bytes then belong into the dead letters.
    pub fn decode(bytes: &'a [u8], selection: &Selection) -> Result<Self, InvalidChange> {
        // Once for all; serde_json would look at each text again.
        let text = std::str::from_utf8(bytes).map_err(serde_json::Error::custom)?;
        let mut json = serde_json::Deserializer::from_str(text);
        let (selected, v) = json.deserialize_map(Head(selection))?;
        json.end()?;
        if v != WIRE_VERSION {
            return Err(InvalidChange::Version { found: v });
        }
        Ok(selected)
    }

    /// Whether the record lives after this change.
    #[must_use]
    pub const fn is_alive(&self) -> bool {
        !matches!(self.op, Op::Delete)
    }

    /// The value in each slot; `None`: the image lacks the field.
    pub fn values(&self) -> impl Iterator<Item = Option<Scalar<'_>>> {
        self.values.iter().map(|value| {
            Some(match value.as_ref()? {
                Borrowed::Null => Scalar::Null,
                Borrowed::Bool(value) => Scalar::Bool(*value),
                Borrowed::Number(digits) => Scalar::Number(digits),
                Borrowed::Text(text) => Scalar::Text(text),
            })
        })
    }
}

/// Reads one JSON scalar.
fn scalar(raw: &RawValue) -> Result<Borrowed<'_>, serde_json::Error> {
    let json = raw.get();
    Ok(match json.as_bytes() {
        [b'n', ..] => Borrowed::Null,
        [b't', ..] => Borrowed::Bool(true),
        [b'f', ..] => Borrowed::Bool(false),
        [b'"', inner @ .., b'"'] => {
            if inner.contains(&b'\\') {
                Borrowed::Text(Cow::Owned(serde_json::from_str(json)?))
            } else {
                Borrowed::Text(Cow::Borrowed(&json[1..json.len() - 1]))
            }
        }
        [b'-' | b'0'..=b'9', ..] => Borrowed::Number(json),
        _ => {
            let what = "a field holds one value, not an object or a list";
            return Err(serde_json::Error::custom(what));
        }
    })
}

/// The whole change.
struct Head<'s>(&'s Selection);

/// The members that a head has.
#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    V,
    Id,
    Op,
    Version,
    CommittedAt,
    Origin,
    Fields,
    Synced,
    #[serde(other)]
    Other,
}

impl<'de> Visitor<'de> for Head<'_> {
    type Value = (Selected<'de>, u32);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a change")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut v, mut id, mut op, mut version) = (None, None, None, None);
        let (mut committed_at, mut origin, mut values, mut synced) = (None, None, None, None);
        while let Some(member) = map.next_key()? {
            match member {
                Member::V => put(&mut v, map.next_value()?, "v")?,
                Member::Id => put(&mut id, map.next_value()?, "id")?,
                Member::Op => put(&mut op, map.next_value()?, "op")?,
                Member::Version => put(&mut version, map.next_value()?, "version")?,
                Member::CommittedAt => {
                    put(&mut committed_at, map.next_value()?, "committed_at")?;
                }
                Member::Origin => put(&mut origin, map.next_value()?, "origin")?,
                Member::Synced => put(&mut synced, map.next_value()?, "synced")?,
                Member::Fields => put(&mut values, map.next_value_seed(Slots(self.0))?, "fields")?,
                Member::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let selected = Selected {
            id: there(id, "id")?,
            op: there(op, "op")?,
            version: there(version, "version")?,
            committed_at: there(committed_at, "committed_at")?,
            origin: there(origin, "origin")?,
            synced: synced.flatten(),
            values: there(values, "fields")?,
        };
        Ok((selected, there(v, "v")?))
    }
}

fn put<T, E: serde::de::Error>(
    held: &mut Option<T>,
    value: T,
    name: &'static str,
) -> Result<(), E> {
    match held.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(name)),
    }
}

fn there<T, E: serde::de::Error>(held: Option<T>, name: &'static str) -> Result<T, E> {
    held.ok_or_else(|| E::missing_field(name))
}

/// The fields, into their slots.
struct Slots<'s>(&'s Selection);

impl<'de> DeserializeSeed<'de> for Slots<'_> {
    type Value = Vec<Option<Borrowed<'de>>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Slots<'_> {
    type Value = Vec<Option<Borrowed<'de>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![None; self.0.names.len()];
        let mut at = 0;
        while let Some(slot) = map.next_key_seed(Name(self.0, &mut at))? {
            let raw: &RawValue = map.next_value()?;
            if let Some(slot) = slot {
                values[slot] = Some(scalar(raw).map_err(A::Error::custom)?);
            }
        }
        Ok(values)
    }
}

/// A field's name: its slot, if it is selected.
struct Name<'s, 'p>(&'s Selection, &'p mut usize);

impl<'de> DeserializeSeed<'de> for Name<'_, '_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_, '_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.slot(name, self.1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

    use super::*;
    use crate::model::change::Change;
    use crate::model::name::{ConnectionId, ObjectName};
    use crate::model::value::{Fields, Value};

    fn names(texts: &[&str]) -> Vec<FieldName> {
        texts.iter().map(FieldName::new).collect()
    }

    fn change(fields: Fields) -> Change {
        Change {
            v: WIRE_VERSION,
            connection: ConnectionId::new("acme"),
            object: ObjectName::new("Account"),
            id: RecordId::stored("001A0000006Vm9uIAC"),
            op: Op::Update,
            version: Version::new(1_767_607_872, 42),
            committed_at: DateTime::from_timestamp(1_767_607_872, 0),
            origin: Origin::Stream,
            position: None,
            transaction: None,
            changed: names(&["Name"]),
            fields,
            row: None,
            synced: None,
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[0-9]{1,30}\\.[0-9]{1,30}".prop_filter_map("a number", |text| Value::number(&text)),
            ".*".prop_map(|text| Value::text(text.as_str())),
            "[\"\\\\/\n\t\u{0}-\u{1f}a]*".prop_map(|text| Value::text(text.as_str())),
        ]
    }

    proptest! {
        /// What a whole change says of the selected fields is what the selection says.
        #[test]
        fn says_what_the_whole_change_says(
            values in proptest::collection::vec((any::<char>(), value()), 0..12),
            wanted in proptest::collection::btree_set("[a-c]|.", 0..8),
            synced in proptest::option::of((1_u64..9, 1_u64..9).prop_map(|(term, counter)| Version::new(term, counter))),
        ) {
            let fields = values.into_iter().map(|(name, value)| (FieldName::new(name.to_string()), value));
            let change = Change { synced, ..change(fields.collect()) };
            let bytes = change.encode().unwrap();
            let mut wanted: Vec<FieldName> = wanted.iter().map(FieldName::new).collect();
            wanted.extend(change.fields.keys().take(3).cloned());
            wanted.sort_unstable();
            wanted.dedup();
            wanted.reverse();
            let selected = Selected::decode(&bytes, &Selection::new(&wanted)).unwrap();
            prop_assert_eq!(&selected.id, &change.id);
            prop_assert_eq!((selected.op, selected.version, selected.origin), (change.op, change.version, change.origin));
            prop_assert_eq!((selected.committed_at, selected.synced), (change.committed_at, change.synced));
            let expected: Vec<_> = wanted.iter().map(|name| change.fields.get(name).map(Scalar::from)).collect();
            prop_assert_eq!(selected.values().collect::<Vec<_>>(), expected);
        }
    }

    /// Of broken bytes both readers say that they are broken.
    #[test]
    fn refuses_what_is_no_change() {
        let whole = String::from_utf8(change(Fields::new()).encode().unwrap()).unwrap();
        let selection = Selection::new(&names(&["Name"]));
        let with = |from: &str, to: &str| {
            let text = whole.replace(from, to);
            assert_ne!(text, whole, "{from}");
            text
        };
        let broken = [
            String::new(),
            "{}".to_owned(),
            "[]".to_owned(),
            format!("{whole} x"),
            whole[..whole.len() - 1].to_owned(),
            with("\"fields\":{}", "\"fields\":{\"Name\":[]}"),
            with("\"fields\":{}", "\"fields\":{\"Name\":{\"a\":1}}"),
            with("\"fields\":{}", "\"fields\":{\"Name\":\"\\x\"}"),
            with("\"fields\":{}", "\"fields\":null"),
            with("\"op\":\"update\"", "\"op\":\"upsert\""),
            with("\"op\":\"update\",", ""),
            with("\"op\":\"update\"", "\"op\":\"update\",\"op\":\"update\""),
            with("\"origin\":\"stream\",", ""),
            with("\"committed_at\":\"2026-01-05T10:11:12Z\",", ""),
            with("2026-01-05T10:11:12Z", "yesterday"),
            with("\"version\":\"17", "\"version\":\"x7"),
            with("\"v\":1,", ""),
        ];
        for text in broken {
            let found = Selected::decode(text.as_bytes(), &selection);
            assert!(
                matches!(found, Err(InvalidChange::Json(_))),
                "{text}: {found:?}"
            );
            assert!(Change::decode(text.as_bytes()).is_err(), "{text}");
        }
        let later = with("\"v\":1", "\"v\":2");
        let found = Selected::decode(later.as_bytes(), &selection);
        assert!(matches!(found, Err(InvalidChange::Version { found: 2 })));
        assert!(Selected::decode(b"\xff\xfe", &selection).is_err());
    }
}

//! Stored objects, jobs and changes that the tests of this module share.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{TimeDelta, TimeZone, Utc};

use crate::config::job::{
    DeriveEntry, DeriveSource, DestinationConfig, JobConfig, MapEntry, MapSource,
};
use crate::config::problem::{Located, Spot};
use crate::model::change::{Change, Op, Origin, WIRE_VERSION};
use crate::model::name::FieldName;
use crate::model::policy::{OnEmptyIdentifier, OnExit, OnMove, OnMultiple, OnNone};
use crate::model::record_id::RecordId;
use crate::model::stored::{StoredField, StoredObject, StoredType};
use crate::model::value::Value;
use crate::model::version::Version;

pub(super) const CONTACT_ID: &str = "003000000000001AAA";
pub(super) const ACCOUNT_ID: &str = "001000000000001AAA";

/// A value at a place in a made-up file.
pub(super) fn at<T>(value: impl Into<T>, key: &str) -> Located<T> {
    Located {
        value: value.into(),
        spot: Spot {
            file: Arc::from("jobs/acme/job.toml"),
            line: 1,
            key: key.to_owned(),
        },
    }
}

pub(super) fn object(
    table: &str,
    label: &str,
    fields: &[(&str, StoredType, Option<&str>)],
) -> (String, StoredObject) {
    let fields = fields
        .iter()
        .map(|(column, ty, references)| StoredField {
            column: (*column).to_owned(),
            label: (*column).to_owned(),
            ty: *ty,
            references: references.map(str::to_owned),
        })
        .collect();
    let object = StoredObject {
        table: table.to_owned(),
        label: label.to_owned(),
        fields,
    };
    (table.to_owned(), object)
}

pub(super) fn objects() -> BTreeMap<String, StoredObject> {
    use StoredType::{Boolean, Date, Email, Gsid, Number, String as Text};
    BTreeMap::from([
        object(
            "user",
            "User",
            &[("username", Text, None), ("manager", Gsid, Some("user"))],
        ),
        object(
            "company",
            "Company",
            &[
                ("name", Text, None),
                ("industry", Text, None),
                ("employees", Number, None),
                ("csm", Gsid, Some("user")),
            ],
        ),
        object(
            "person",
            "Person",
            &[
                ("email", Email, None),
                ("first_name", Text, None),
                ("born", Date, None),
            ],
        ),
        object(
            "company_person",
            "Company Person",
            &[
                ("external_contact_id", Text, None),
                ("level", Number, None),
                ("opted_in", Boolean, None),
                ("origin", Text, None),
                ("company_name", Text, None),
                ("person_id", Gsid, Some("person")),
                ("company_id", Gsid, Some("company")),
                ("manager", Gsid, None),
            ],
        ),
    ])
}

pub(super) fn job(destinations: Vec<DestinationConfig>) -> JobConfig {
    JobConfig {
        connection: "acme".into(),
        id: "job".into(),
        spot: at::<String>("", "").spot,
        name: "job".to_owned(),
        source: at("Contact", "source"),
        enabled: true,
        realtime: true,
        realtime_fields: None,
        filter: None,
        on_delete: OnExit::Keep,
        on_filter_exit: OnExit::Mark,
        on_empty_identifier: OnEmptyIdentifier::Reject,
        on_move: OnMove::Update,
        parked_ttl: TimeDelta::days(30),
        destinations,
    }
}

pub(super) fn destination(
    label: &str,
    identifiers: &[&str],
    map: Vec<MapEntry>,
) -> DestinationConfig {
    DestinationConfig {
        object: at(label, &format!("to.{label}")),
        filter: None,
        identifiers: identifiers
            .iter()
            .map(|column| at(*column, "identifiers"))
            .collect(),
        map,
        derive: Vec::new(),
        on_delete: None,
        on_filter_exit: None,
        on_empty_identifier: None,
        on_move: None,
    }
}

pub(super) fn map(column: &str, path: &str) -> MapEntry {
    let key = format!("map.{column}");
    MapEntry {
        column: at(column, &key),
        source: MapSource::Path(at(path, &key)),
        values: None,
        default: None,
        insert_only: false,
        keep_on_null: false,
    }
}

pub(super) fn constant(column: &str, value: Value) -> MapEntry {
    MapEntry {
        source: MapSource::Constant(at(value, &format!("map.{column}"))),
        ..map(column, "x")
    }
}

pub(super) fn derive(
    column: &str,
    from: &str,
    pairs: &[(&str, &str)],
    on_none: OnNone,
) -> DeriveEntry {
    let key = format!("derive.{column}");
    let pairs = pairs
        .iter()
        .map(|(column, path)| (at(*column, &key), at(*path, &key)));
    DeriveEntry {
        column: at(column, &key),
        by: DeriveSource::Match {
            from: at(from, &key),
            pairs: pairs.collect(),
        },
        on_multiple: OnMultiple::Error,
        on_none,
    }
}

pub(super) fn sibling(column: &str, label: &str) -> DeriveEntry {
    let key = format!("derive.{column}");
    DeriveEntry {
        column: at(column, &key),
        by: DeriveSource::Sibling(at(label, &key)),
        on_multiple: OnMultiple::Error,
        on_none: OnNone::Null,
    }
}

/// One contact, two destinations.
pub(super) fn contact_job() -> JobConfig {
    let values = [("Gold", 1_i64), ("2", 20)];
    let level = MapEntry {
        values: Some(
            values
                .into_iter()
                .map(|(from, to)| (from.to_owned(), Value::from(to)))
                .collect(),
        ),
        default: Some(at(Value::from(99), "map.level")),
        ..map("level", "Level__c")
    };
    let opposite = [("true", false), ("false", true)];
    let opted_in = MapEntry {
        values: Some(
            opposite
                .into_iter()
                .map(|(from, to)| (from.to_owned(), Value::Bool(to)))
                .collect(),
        ),
        ..map("opted_in", "DoNotCall")
    };
    let origin = MapEntry {
        insert_only: true,
        ..constant("origin", Value::from("salesforce"))
    };
    let company_name = MapEntry {
        keep_on_null: true,
        ..map("company_name", "Account.Name")
    };
    let person = destination(
        "Person",
        &["email"],
        vec![map("email", "Email"), map("first_name", "FirstName")],
    );
    let mut company_person = destination(
        "Company Person",
        &["person_id", "company_id"],
        vec![
            map("external_contact_id", "Id"),
            level,
            opted_in,
            origin,
            company_name,
        ],
    );
    company_person.derive = vec![
        sibling("person_id", "Person"),
        derive(
            "company_id",
            "Company",
            &[("@id", "AccountId")],
            OnNone::Reject,
        ),
        derive(
            "manager",
            "Company Person",
            &[("external_contact_id", "ReportsToId")],
            OnNone::Null,
        ),
    ];
    company_person.on_delete = Some(OnExit::Delete);
    company_person.on_empty_identifier = Some(OnEmptyIdentifier::Insert);
    job(vec![person, company_person])
}

pub(super) fn change(op: Op, fields: &[(&str, Value)]) -> Change {
    Change {
        v: WIRE_VERSION,
        connection: "acme".into(),
        object: "Contact".into(),
        id: RecordId::stored(CONTACT_ID),
        op,
        version: Version::new(7, 42),
        committed_at: Utc.with_ymd_and_hms(2026, 1, 14, 9, 0, 0).single(),
        origin: Origin::Stream,
        position: None,
        transaction: None,
        changed: Vec::new(),
        fields: fields
            .iter()
            .map(|(name, value)| (FieldName::new(name), value.clone()))
            .collect(),
        row: None,
        synced: None,
    }
}

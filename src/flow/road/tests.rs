//! Which formulas wait for full syncs, by what jobs say and what the CRM describes.

use super::*;
use crate::model::policy::OnLostField;

fn schema() -> ObjectSchema {
    let field = |calculated, compound: Option<&str>| FieldSchema {
        label: String::new(),
        kind: FieldKind::Text,
        references: Vec::new(),
        relationship: None,
        calculated,
        compound: compound.map(Into::into),
        edition: None,
    };
    let id = FieldSchema {
        kind: FieldKind::Id,
        ..field(false, None)
    };
    let fields = [
        ("Id", id),
        ("Email", field(false, None)),
        // Put together from the next, and described as derived.
        ("Name", field(true, None)),
        ("LastName", field(false, Some("Name"))),
        ("Score__c", field(true, None)),
        ("Rank__c", field(true, None)),
    ];
    ObjectSchema {
        name: "Contact".into(),
        label: String::new(),
        fields: fields.map(|(name, field)| (name.into(), field)).into(),
    }
}

fn reading(fields: &[&str], refresh: Refresh) -> Reading {
    Reading {
        has_scheduled: false,
        job: "job".into(),
        fields: fields.iter().copied().map(FieldName::new).collect(),
        needed: BTreeSet::new(),
        on_lost_field: OnLostField::Continue,
        refresh,
    }
}

/// The formulas that wait, and whether any change is read, under these jobs.
fn of(readings: &[Reading]) -> (Vec<String>, bool) {
    let fields = readings.iter().flat_map(|reading| reading.fields.clone());
    let connection = ConnectionId::new("acme");
    let road = ObjectRoad::new(&connection, "t", &fields.collect(), &schema(), readings).unwrap();
    let late = road.late.iter().map(ToString::to_string).collect();
    (late, road.reads_more())
}

#[test]
fn formulas_wait_unless_a_job_that_reads_them_asks_for_them() {
    use Refresh::{FullSync, OnChange};
    let plain = reading(&["Id", "Email", "Score__c", "Rank__c"], FullSync);
    assert_eq!(
        of(std::slice::from_ref(&plain)),
        (vec!["Rank__c".to_owned(), "Score__c".to_owned()], false)
    );
    // Of two jobs on an object, one that asks is enough, for the fields that it reads.
    let asking = reading(&["Id", "Score__c"], OnChange);
    assert_eq!(
        of(&[plain.clone(), asking]),
        (vec!["Rank__c".to_owned()], true)
    );
    let other = reading(&["Id", "Email"], OnChange);
    let (late, reads_more) = of(&[plain, other]);
    assert_eq!((late.len(), reads_more), (2, false));
    // A person's name moves with its parts, which events tell.
    assert_eq!(of(&[reading(&["Id", "Name"], FullSync)]), (vec![], true));
}

#[test]
fn a_formula_that_was_read_is_not_lacking_though_it_is_empty() {
    let readings = [reading(&["Id", "Score__c"], Refresh::FullSync)];
    let connection = ConnectionId::new("acme");
    let fields = &readings[0].fields;
    let road = ObjectRoad::new(&connection, "t", fields, &schema(), &readings).unwrap();
    assert!(road.lacks_a_formula(&Fields::new()));
    let empty = Fields::from([("Score__c".into(), crate::model::value::Value::Null)]);
    assert!(!road.lacks_a_formula(&empty));
}

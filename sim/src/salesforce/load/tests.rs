//! Loading: what is inferred, and what is refused with its place.

use std::fs;
use std::path::Path;

use super::super::schema::{CompoundKind, FieldType};
use super::*;

fn load(files: &[(&str, &str)]) -> Result<Vec<Loaded>, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    load_dir(dir.path()).map(|(loaded, _)| loaded)
}

fn load_dir(dir: &Path) -> Result<(Vec<Loaded>, User), LoadError> {
    let unknown = User {
        id: ids::nth("005", 999),
        username: "nobody".into(),
        view_all_data: true,
    };
    directory(dir, "2024-01-01T00:00:00Z".parse().unwrap(), unknown)
}

#[test]
fn types_are_those_of_the_values() {
    let text = "Ext,Num,Big,Deci,Zip,Yes,Day,At,Code,Long,Rel__c,Amt__c,Empty,IsOdd,OtherId\n\
                a,1,3000000000,1.5,01234,true,2024-02-29,2024-02-29T10:00:00Z,12a,\"x\ny\",a00SIM000000001,5,,,x\n\
                b,-2,1,2,00001,FALSE,2024-03-01,2024-02-29T10:00:00.000+0000,13,z,a00SIM000000002,6,,,y\n";
    let text = text.replace("a00SIM000000001", &ids::nth("a00", 1));
    let text = text.replace("a00SIM000000002", &ids::nth("a00", 2));
    let loaded = load(&[("Thing.csv", &text)]).unwrap();
    let object = &loaded[0].object;
    let expected = [
        ("Ext", FieldType::String),
        ("Num", FieldType::Int),
        ("Big", FieldType::Double),
        ("Deci", FieldType::Double),
        ("Zip", FieldType::String),
        ("Yes", FieldType::Boolean),
        ("Day", FieldType::Date),
        ("At", FieldType::DateTime),
        ("Code", FieldType::String),
        ("Long", FieldType::Textarea),
        ("Rel__c", FieldType::Reference),
        ("Amt__c", FieldType::Double),
        ("Empty", FieldType::String),
        ("IsOdd", FieldType::Boolean),
        ("OtherId", FieldType::String),
    ];
    for (name, kind) in expected {
        assert_eq!(object.field(name).unwrap().1.kind, kind, "{name}");
    }
    assert_eq!(object.key_prefix, "a00");
    let first = &loaded[0].rows[0];
    assert_eq!(
        first.get(object.place("Id").unwrap()).as_text(),
        Some(&*ids::nth("a00", 1))
    );
    assert_eq!(
        first.get(object.place("IsOdd").unwrap()),
        &Value::Bool(false)
    );
    assert!(first.get(object.place("Empty").unwrap()).is_null());
}

#[test]
fn references_find_their_objects_by_prefix() {
    let account = format!("Id,Name\n{},A\n", ids::nth("001", 1));
    let custom = format!("Id\n{}\n", ids::nth("a07", 1));
    let child = format!(
        "AccountId,WhatId,Other__c,ParentId\n{},{},{},\n{},{},,\n",
        ids::nth("001", 1),
        ids::nth("001", 1),
        ids::nth("a07", 1),
        ids::nth("001", 1),
        ids::nth("003", 1),
    );
    let loaded = load(&[
        ("Account.csv", &account),
        ("Zeta__c.csv", &custom),
        ("Task.csv", &child),
    ])
    .unwrap();
    let task = &loaded
        .iter()
        .find(|loaded| loaded.object.name == "Task")
        .unwrap()
        .object;
    let targets = |name: &str| task.field(name).unwrap().1.reference_to.clone();
    assert_eq!(targets("AccountId"), ["Account"]);
    assert_eq!(targets("WhatId"), ["Account", "Contact"]);
    assert_eq!(targets("Other__c"), ["Zeta__c"]);
    assert_eq!(task.key_prefix, "00T");
    assert_eq!(task.relationship("Other__r").unwrap().1.name, "Other__c");
}

#[test]
fn compounds_follow_the_names() {
    let loaded = load(&[
        ("Account.csv", "Name,BillingCountry\nA,B\n"),
        ("Lead.csv", "LastName,City,Website\nA,B,c\n"),
        (
            "Site__c.csv",
            "Spot__Latitude__s,Spot__Longitude__s,Home__Street__s,Home__City__s,City\n1,2,a,b,c\n",
        ),
    ])
    .unwrap();
    let names = |n: usize| {
        let compounds = loaded[n].object.compounds.iter();
        compounds
            .map(|compound| (compound.name.clone(), compound.kind))
            .collect::<Vec<_>>()
    };
    let named = |name: &str, kind| (name.to_owned(), kind);
    assert_eq!(names(0), [named("BillingAddress", CompoundKind::Address)]);
    assert_eq!(
        names(1),
        [
            named("Address", CompoundKind::Address),
            named("Name", CompoundKind::Name)
        ]
    );
    assert_eq!(
        names(2),
        [
            named("Home__c", CompoundKind::Address),
            named("Spot__c", CompoundKind::Location)
        ]
    );
    let lead = &loaded[1];
    let name = lead.object.place("Name").unwrap();
    assert_eq!(lead.rows[0].get(name).as_text(), Some("A"));
}

#[test]
fn stamps_of_the_file_stay() {
    let loaded = load(&[(
        "Account.csv",
        "Name,CreatedDate,SystemModstamp,IsDeleted\nA,2020-01-01T00:00:00.000+0000,2021-01-01T00:00:00Z,true\nB,,,\n",
    )])
    .unwrap();
    let object = &loaded[0].object;
    let get = |row: usize, name: &str| loaded[0].rows[row].get(object.place(name).unwrap()).rest();
    assert_eq!(get(0, "CreatedDate"), "2020-01-01T00:00:00.000+0000");
    assert_eq!(get(0, "LastModifiedDate"), "2020-01-01T00:00:00.000+0000");
    assert_eq!(get(0, "SystemModstamp"), "2021-01-01T00:00:00.000+0000");
    assert_eq!(get(0, "IsDeleted"), true);
    assert_eq!(get(1, "SystemModstamp"), "2024-01-01T00:00:00.000+0000");
}

#[test]
fn an_object_may_lack_stamps() {
    let note = r#"{"without": ["SystemModstamp", "LastModifiedDate", "LastModifiedById"]}"#;
    let loaded = load(&[("Rate__c.csv", "Name\nA\n"), ("Rate__c.json", note)]).unwrap();
    let object = &loaded[0].object;
    assert!(object.field("SystemModstamp").is_none());
    assert!(object.field("LastModifiedDate").is_none());
    assert!(object.field("CreatedDate").is_some());
    // The org's own logs go by it.
    let stamp = loaded[0].rows[0].get(object.system.stamp);
    assert!(!stamp.is_null());
    let unknown = load(&[
        ("Rate__c.csv", "Name\nA\n"),
        ("Rate__c.json", r#"{"without": ["Name"]}"#),
    ]);
    assert!(matches!(unknown, Err(LoadError::Sidecar { .. })));
}

#[test]
fn mistakes_are_named_with_their_place() {
    let one = ids::nth("001", 1);
    let other = ids::nth("003", 1);
    let cases = [
        (
            format!("Id,Name\n{one},a\n{one},b\n"),
            "line 3, column Id: `001SIM000000001YBA` is the id of an earlier row too",
        ),
        (
            format!("Id,Name\n{one},a\n{other},b\n"),
            "has another key prefix than the object's",
        ),
        (
            "Id,Name\nnope,a\n".to_owned(),
            "line 2, column Id: `nope` is not of the column's type",
        ),
        (
            "Name,Name\na,b\n".to_owned(),
            "column `Name` is there twice",
        ),
        (
            "Name, Size\na,b\n".to_owned(),
            "column ` Size` is no API name",
        ),
        ("Name,Size\na\n".to_owned(), "as CSV"),
    ];
    for (text, message) in cases {
        let Err(error) = load(&[("Account.csv", &text)]) else {
            panic!("loaded {text}")
        };
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.to_string().contains("Account.csv"), "{error}");
    }
    let note = r#"{"fields": {"Size": {"type": "date"}}}"#;
    let Err(error) = load(&[("Account.csv", "Size\n5\n"), ("Account.json", note)]) else {
        panic!("loaded a number as a date")
    };
    assert!(
        error.to_string().contains("is not of the column's type"),
        "{error}"
    );
    let unknown = load(&[
        ("Account.csv", "Size\n5\n"),
        ("Account.json", r#"{"colour": 1}"#),
    ]);
    assert!(matches!(unknown, Err(LoadError::Sidecar { .. })));
}

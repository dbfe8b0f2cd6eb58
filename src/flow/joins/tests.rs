//! Paths are resolved by the schemas alone, and what joining takes is selected.

use crate::model::name::ConnectionId;
use crate::model::schema::FieldSchema;

use super::*;

fn field(kind: FieldKind, references: &[&str], relationship: Option<&str>) -> FieldSchema {
    FieldSchema {
        label: String::new(),
        kind,
        references: references.iter().map(ObjectName::new).collect(),
        relationship: relationship.map(str::to_owned),
        calculated: false,
        compound: None,
        edition: None,
    }
}

fn schema(name: &str, fields: Vec<(&str, FieldSchema)>) -> (ObjectName, ObjectSchema) {
    let mut all: BTreeMap<FieldName, FieldSchema> = fields
        .into_iter()
        .map(|(name, field)| (FieldName::new(name), field))
        .collect();
    all.insert("Id".into(), field(FieldKind::Id, &[], None));
    let schema = ObjectSchema {
        name: name.into(),
        label: String::new(),
        fields: all,
    };
    (name.into(), schema)
}

fn text() -> FieldSchema {
    field(FieldKind::Text, &[], None)
}

/// Contacts of accounts of users, as Salesforce describes them.
fn schemas() -> Schemas {
    let reference = |to: &[&str], name| field(FieldKind::Reference, to, Some(name));
    let owner = || reference(&["Group", "User"], "Owner");
    let score = FieldSchema {
        calculated: true,
        ..text()
    };
    Schemas::from([
        schema("User", vec![("Email", text())]),
        schema(
            "Account",
            vec![("Name", text()), ("Score__c", score), ("OwnerId", owner())],
        ),
        schema(
            "Contact",
            vec![
                ("LastName", text()),
                ("AccountId", reference(&["Account"], "Account")),
                ("OwnerId", owner()),
            ],
        ),
    ])
}

fn selected(objects: &[(&str, &[&str])]) -> Selected {
    let fields = |names: &&[&str]| names.iter().map(FieldName::new).collect();
    objects
        .iter()
        .map(|(object, names)| ((*object).into(), fields(names)))
        .collect()
}

fn tied(selected: &Selected, schemas: &Schemas) -> Objects {
    let wanted = widen(selected, schemas);
    let mut objects: Objects = wanted
        .iter()
        .map(|(name, fields)| {
            let connection = ConnectionId::new("acme");
            let road = ObjectRoad::new(&connection, "t", fields, &schemas[name], &[]).unwrap();
            (name.clone(), road)
        })
        .collect();
    tie(&mut objects, schemas);
    objects
}

fn names(fields: &BTreeSet<FieldName>) -> Vec<&str> {
    fields.iter().map(FieldName::as_str).collect()
}

#[test]
fn what_joining_takes_is_selected_along_the_path() {
    let chosen = selected(&[
        ("Contact", &["Account.Owner.email", "account.Name"]),
        ("Account", &["Id"]),
        ("User", &["Id"]),
    ]);
    let twice = selected(&[
        ("Contact", &["Account.Owner.email"]),
        ("Account", &["Owner.Email"]),
    ]);
    let objects = tied(&twice, &schemas());
    assert!(!objects["Account"].selects(&"Owner.email".into()));
    assert_eq!(objects["Contact"].joins[0].of, "Owner.Email".into());
    let wanted = widen(&chosen, &schemas());
    assert_eq!(
        names(&wanted["Contact"]),
        ["Account.Owner.email", "AccountId", "account.Name"]
    );
    assert_eq!(
        names(&wanted["Account"]),
        ["Id", "Name", "Owner.email", "OwnerId"]
    );
    assert_eq!(names(&wanted["User"]), ["Email", "Id"]);
    // Nobody reads accounts: the reference is all.
    let alone = selected(&[("Contact", &["Account.Name"])]);
    let wanted = widen(&alone, &schemas());
    assert_eq!(names(&wanted["Contact"]), ["Account.Name", "AccountId"]);
    assert_eq!(wanted.len(), 1);
    // A formula of the parent is no reason to read the parent at each of its events.
    let formula = selected(&[("Contact", &["Account.Score__c"]), ("Account", &["Id"])]);
    let wanted = widen(&formula, &schemas());
    assert_eq!(names(&wanted["Account"]), ["Id"]);
}

#[test]
fn children_are_tied_to_the_parents_that_have_the_field() {
    let chosen = selected(&[
        ("Contact", &["Account.Name", "Owner.Email", "Gone.Name"]),
        ("Account", &["Id"]),
        ("User", &["Id"]),
    ]);
    let objects = tied(&chosen, &schemas());
    let joins = &objects["Contact"].joins;
    let shown: Vec<_> = joins
        .iter()
        .map(|join| {
            (
                join.field.as_str(),
                join.reference.as_str(),
                join.of.as_str(),
                &*join.parents,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("Account.Name", "AccountId", "Name", &["Account".into()][..]),
            // No job reads groups.
            ("Owner.Email", "OwnerId", "Email", &["User".into()][..]),
        ]
    );
    // What begins with no reference is read as before: any event may have moved it.
    assert!(objects["Contact"].reads_more());
    assert!(!objects["Account"].reads_more());
    let follower = Follower {
        child: "Contact".into(),
        reference: "AccountId".into(),
        fields: vec![("Account.Name".into(), "Name".into())],
    };
    assert_eq!(objects["Account"].followers, [follower]);
    let order: Vec<&str> = parents_first(&objects)
        .into_iter()
        .map(|road| road.key.object.as_str())
        .collect();
    assert_eq!(order, ["Account", "User", "Contact"]);
}

#[test]
fn references_that_have_no_name_are_reached_by_themselves() {
    let to = |tables: &[&str]| field(FieldKind::Reference, tables, None);
    let schemas = Schemas::from([
        schema("account", vec![("name", text())]),
        schema(
            "contact",
            vec![
                ("parentcustomerid", to(&["account", "contact"])),
                ("parentcustomerid:account", to(&["account"])),
                ("parentcustomerid:contact", to(&["contact"])),
                ("fullname", text()),
            ],
        ),
    ]);
    let chosen = selected(&[
        (
            "contact",
            &[
                "parentcustomerid:account.name",
                "parentcustomerid:contact.fullname",
            ],
        ),
        ("account", &["Id"]),
    ]);
    let objects = tied(&chosen, &schemas);
    let contact = &objects["contact"];
    assert!(contact.selects(&"parentcustomerid:account".into()));
    assert_eq!(contact.joins[0].parents, ["account".into()]);
    assert_eq!(contact.joins[1].parents, ["contact".into()]);
    assert!(!contact.reads_more());
    // A table may refer to itself: it is its own follower, and comes once.
    assert_eq!(contact.followers.len(), 1);
    assert_eq!(parents_first(&objects).len(), 2);
}

#[test]
fn a_parent_moves_when_a_followed_field_does_or_it_dies() {
    let follower = Follower {
        child: "Contact".into(),
        reference: "AccountId".into(),
        fields: vec![("Account.Name".into(), "Name".into())],
    };
    let live = |name: Option<&str>, city: &str| {
        let mut image = Image::partial();
        image.life = Life::Live;
        image.set(&"City".into(), &Value::from(city));
        if let Some(name) = name {
            image.set(&"Name".into(), &Value::from(name));
        }
        image
    };
    let mut dead = live(Some("a"), "x");
    dead.life = Life::Dead;
    let (a, b) = (live(Some("a"), "x"), live(Some("b"), "x"));
    for (before, after, moves) in [
        (None, &a, true),
        (Some(&a), &b, true),
        (Some(&a), &live(Some("a"), "y"), false),
        (Some(&live(None, "x")), &a, true),
        (Some(&a), &live(None, "x"), false),
        (Some(&a), &dead, true),
        (Some(&dead), &dead, false),
        (Some(&dead), &a, true),
        (None, &Image::partial(), false),
    ] {
        assert_eq!(follower.moves(before, after), moves, "{before:?} {after:?}");
    }
}

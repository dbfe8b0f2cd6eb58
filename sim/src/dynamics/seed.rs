//! The rows that every organization has: itself, its currency, its users, the messages that steps are registered on.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::cell::Cell;
use super::guid::Guid;
use super::options::SimOptions;
use super::org::Profile;
use super::store::{Row, Store};

/// Messages of the event pipeline.
const MESSAGES: &[&str] = &[
    "Create",
    "Update",
    "Delete",
    "Retrieve",
    "RetrieveMultiple",
    "CreateMultiple",
    "UpdateMultiple",
    "UpsertMultiple",
];

/// Adds what the data left out, and tells who is who.
pub(crate) fn fill(store: &mut Store, options: &SimOptions, at: DateTime<Utc>) -> Profile {
    let seed = options.seed;
    let unit = first(store, "businessunit", |_, _| true).unwrap_or_else(|| {
        let id = Guid::named(seed, "businessunit");
        add(
            store,
            "businessunit",
            id,
            at,
            &[
                ("name", Cell::text("simulated")),
                ("isdisabled", Cell::Bool(false)),
            ],
        );
        id
    });
    let currency = first(store, "transactioncurrency", |_, _| true).unwrap_or_else(|| {
        let id = Guid::named(seed, "transactioncurrency");
        let cells = [
            ("currencyname", Cell::text("US Dollar")),
            ("isocurrencycode", Cell::text("USD")),
            ("currencysymbol", Cell::text("$")),
            ("currencyprecision", Cell::Int(2)),
            ("statecode", Cell::Int(0)),
            ("statuscode", Cell::Int(1)),
        ];
        add(store, "transactioncurrency", id, at, &cells);
        id
    });
    let organization = first(store, "organization", |_, _| true).unwrap_or_else(|| {
        let id = Guid::named(seed, "organization");
        let cells = [
            ("name", Cell::text("simulated")),
            ("expirechangetrackingindays", Cell::Int(7)),
            ("languagecode", Cell::Int(1033)),
            (
                "basecurrencyid",
                Cell::Ref(Arc::from("transactioncurrency"), currency),
            ),
        ];
        add(store, "organization", id, at, &cells);
        id
    });
    let user = users(store, options, at, unit);
    for message in MESSAGES {
        let id = Guid::named(seed, &format!("sdkmessage {message}"));
        add(
            store,
            "sdkmessage",
            id,
            at,
            &[
                ("name", Cell::text(message)),
                ("isprivate", Cell::Bool(false)),
            ],
        );
    }
    let tables: Vec<_> = store.tables().map(|rows| rows.table.name.clone()).collect();
    for table in tables {
        filters(store, &table, seed, at);
    }
    Profile {
        organization,
        business_unit: unit,
        currency,
        user,
        name: "simulated".to_owned(),
        seed,
    }
}

/// The filters of a table's messages, if it has none yet; their ids.
pub(crate) fn filters(store: &mut Store, table: &str, seed: u64, at: DateTime<Utc>) -> Vec<Guid> {
    let Some(definition) = store.table(table).map(|rows| Arc::clone(&rows.table)) else {
        return Vec::new();
    };
    let mut added = Vec::new();
    for message in MESSAGES {
        if message.ends_with("Multiple") && *message != "RetrieveMultiple" && !definition.bulk {
            continue;
        }
        let id = Guid::named(seed, &format!("sdkmessagefilter {table} {message}"));
        if store
            .table("sdkmessagefilter")
            .is_none_or(|rows| rows.row(id).is_some())
        {
            continue;
        }
        let of = Guid::named(seed, &format!("sdkmessage {message}"));
        let cells = [
            ("primaryobjecttypecode", Cell::text(table)),
            ("secondaryobjecttypecode", Cell::text("none")),
            ("iscustomprocessingstepallowed", Cell::Bool(true)),
            ("sdkmessageid", Cell::Ref(Arc::from("sdkmessage"), of)),
        ];
        add(store, "sdkmessagefilter", id, at, &cells);
        added.push(id);
    }
    added
}

/// The person who signs in, and the application's user.
fn users(store: &mut Store, options: &SimOptions, at: DateTime<Utc>, unit: Guid) -> Guid {
    let place = |store: &Store, name: &str| {
        store
            .table("systemuser")
            .and_then(|rows| rows.table.place(name))
    };
    let (mode, application, disabled) = (
        place(store, "accessmode"),
        place(store, "applicationid"),
        place(store, "isdisabled"),
    );
    let cell =
        |row: &Row, place: Option<usize>| place.map_or(Cell::Null, |place| row.cell(place).clone());
    let person = first(store, "systemuser", |_, row| {
        let may = matches!(cell(row, mode), Cell::Null | Cell::Int(0..=1));
        may && cell(row, application).is_null() && cell(row, disabled) != Cell::Bool(true)
    });
    let unit = ("businessunitid", Cell::Ref(Arc::from("businessunit"), unit));
    let user = person.unwrap_or_else(|| {
        let id = Guid::named(options.seed, "systemuser person");
        let cells = [
            ("fullname", Cell::text("Ada Admin")),
            ("firstname", Cell::text("Ada")),
            ("lastname", Cell::text("Admin")),
            ("domainname", Cell::text("ada@simulated.example")),
            ("internalemailaddress", Cell::text("ada@simulated.example")),
            ("isdisabled", Cell::Bool(false)),
            ("accessmode", Cell::Int(0)),
            ("ownerid", Cell::Id(id)),
            (
                "azureactivedirectoryobjectid",
                Cell::Id(Guid::named(options.seed, "oid person")),
            ),
            ("azurestate", Cell::Int(0)),
            unit.clone(),
        ];
        add(store, "systemuser", id, at, &cells);
        id
    });
    let Ok(client) = options.client_id.parse::<Guid>() else {
        return user;
    };
    let known = first(store, "systemuser", |_, row| {
        cell(row, application).id() == Some(client)
    });
    if known.is_none() && !options.no_application_user {
        let id = Guid::named(options.seed, "systemuser application");
        let cells = [
            ("fullname", Cell::text("# simulated-client")),
            ("firstname", Cell::text("#")),
            ("lastname", Cell::text("simulated-client")),
            (
                "domainname",
                Cell::text("simulated-client@simulated.example"),
            ),
            ("isdisabled", Cell::Bool(false)),
            ("accessmode", Cell::Int(4)),
            ("applicationid", Cell::Id(client)),
            ("ownerid", Cell::Id(id)),
            unit,
        ];
        add(store, "systemuser", id, at, &cells);
    }
    user
}

fn first(store: &Store, table: &str, wanted: impl Fn(Guid, &Row) -> bool) -> Option<Guid> {
    let mut rows = store.table(table)?.rows();
    rows.find(|(id, row)| wanted(*id, row)).map(|(id, _)| id)
}

fn add(store: &mut Store, table: &str, id: Guid, at: DateTime<Utc>, set: &[(&str, Cell)]) {
    let Some(definition) = store.table(table).map(|rows| Arc::clone(&rows.table)) else {
        return;
    };
    let mut cells = vec![Cell::Null; definition.columns.len()];
    cells[definition.id_place()] = Cell::Id(id);
    let stamps = [
        ("createdon", Cell::Time(at)),
        ("modifiedon", Cell::Time(at)),
    ];
    for (name, cell) in stamps.iter().chain(set) {
        if let Some(place) = definition.place(name) {
            cells[place] = cell.clone();
        }
    }
    // A table that is there takes the row; there is nothing to undo.
    drop(store.put(table, id, Some(cells), at));
}

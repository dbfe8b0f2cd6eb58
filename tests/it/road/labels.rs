//! Labels, types and look-ups by table in stored rows: at the first sync, by events, and when a picklist is relabelled.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value as Json, json};
use tributary_sim::salesforce::SimOptions;

use super::daemon::Daemon;
use super::data::id;
use super::world::{LOOK, PATIENCE, World, main_section};

const ACTIVITY: &str = r#"
label = "Activity"
[fields.external_id]
type = "string"
[fields.status]
type = "picklist"
[fields.about]
type = "string"
[fields.contact]
type = "string"
[fields.contact_email]
type = "email"
[fields.industry]
type = "picklist"
[fields.owner_email]
type = "email"
"#;
const TASKS: &str = r#"
source = "Task"
where = "OwnerId:User != null"
on_filter_exit = "delete"
[to.Activity]
identifiers = ["external_id"]
[to.Activity.map]
external_id = "Id"
status = "Status@label"
about = "WhatId@type"
contact = "WhoId:Contact"
contact_email = "WhoId:Contact.Email"
industry = "WhatId:Account.Industry@label"
owner_email = "OwnerId:User.Email"
"#;
const ACCOUNTS: &str = r#"
source = "Account"
[to.Company]
identifiers = ["salesforce_account_id"]
[to.Company.map]
salesforce_account_id = "Id"
name = "Name"
industry = "Industry@label"
"#;
const CONTACTS: &str = r#"
source = "Contact"
[to.Person]
identifiers = ["external_id"]
[to.Person.map]
external_id = "Id"
last_name = "LastName"
email = "Email"
"#;

/// What values are called: in the org, and so in the store.
type Labels = Vec<(&'static str, &'static str)>;

struct Named {
    status: Labels,
    industry: Labels,
}

/// A world of tasks that point to what there is, and to leads, which the org does not show.
async fn world() -> (World, Named) {
    let accounts: String = (1..5)
        .map(|number| {
            format!(
                "{},Company {number},{}\n",
                id("001", number),
                ["Energy", "Retail"][number % 2]
            )
        })
        .collect();
    let contacts: String = (1..5)
        .map(|number| {
            format!(
                "{},Last {number},c{number}@a.example,{}\n",
                id("003", number),
                id("001", number)
            )
        })
        .collect();
    let tasks: String = (1..30)
        .map(|number| {
            let who = [id("003", 1 + number % 4), id("00Q", 1), String::new()][number % 3].clone();
            let what = [id("001", 1 + number % 4), id("006", 1)][number % 2].clone();
            let owner = [id("005", 1), id("005", 2), id("00G", 1)][number % 3].clone();
            let status = ["Open", "Done", ""][number % 3];
            format!("{},{status},{who},{what},{owner}\n", id("00T", number))
        })
        .collect();
    let files = [
        (
            "User.csv",
            format!(
                "Id,Name,Email\n{},Uma,uma@a.example\n{},Bo,bo@a.example\n",
                id("005", 1),
                id("005", 2)
            ),
        ),
        ("Group.csv", format!("Id,Name\n{},Queue\n", id("00G", 1))),
        ("Account.csv", format!("Id,Name,Industry\n{accounts}")),
        (
            "Contact.csv",
            format!("Id,LastName,Email,AccountId\n{contacts}"),
        ),
        (
            "Opportunity.csv",
            format!("Id,Name\n{},Deal\n", id("006", 1)),
        ),
        (
            "Task.csv",
            format!("Id,Status,WhoId,WhatId,OwnerId\n{tasks}"),
        ),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text));
    let world = World::bare(files.into(), SimOptions::default()).await;
    world.put("tributary.toml", &main_section(&world.prefix, &world.store));
    let connection = world.connection(&world.org.url, "transport = \"cometd\"\n");
    world.put("connections/acme.toml", &connection);
    world.put("objects/activity.toml", ACTIVITY);
    world.put("jobs/acme/tasks.toml", TASKS);
    world.put("jobs/acme/accounts.toml", ACCOUNTS);
    world.put("jobs/acme/contacts.toml", CONTACTS);
    let named = Named {
        status: vec![("Open", "To do"), ("Done", "Did")],
        industry: vec![("Energy", "Energie")],
    };
    named.tell(&world).await;
    (world, named)
}

impl Named {
    async fn tell(&self, world: &World) {
        for (field, labels) in [
            ("Task/Status", &self.status),
            ("Account/Industry", &self.industry),
        ] {
            let choices: Vec<Json> = labels
                .iter()
                .map(|(value, label)| json!({"value": value, "label": label}))
                .collect();
            world
                .control(&format!("fields/{field}"), json!({ "choices": choices }))
                .await;
        }
    }
}

fn called(labels: &Labels, value: &Json) -> Json {
    let text = value.as_str();
    let label = labels.iter().find(|(value, _)| Some(*value) == text);
    label.map_or_else(|| value.clone(), |(_, label)| json!(label))
}

impl World {
    /// Where rows do not show what the org says.
    async fn unlike_tasks(&self, named: &Named) -> Vec<String> {
        let (accounts, users, contacts) = (
            self.truth("Account").await,
            self.truth("User").await,
            self.truth("Contact").await,
        );
        let of = |all: &BTreeMap<String, Json>, id: &Json, field: &str| {
            let found = id.as_str().and_then(|id| all.get(id));
            found.map_or(Json::Null, |found| found[field].clone())
        };
        let mut found = Vec::new();
        let rows = self.rows("activity", "external_id").await;
        for (id, task) in self.truth("Task").await {
            let (who, what, owner) = (&task["WhoId"], &task["WhatId"], &task["OwnerId"]);
            let is = |id: &Json, prefix: &str| id.as_str().is_some_and(|id| id.starts_with(prefix));
            let about = [("001", "Account"), ("006", "Opportunity")];
            let about = about.iter().find(|(prefix, _)| is(what, prefix));
            let expected = [
                ("status", called(&named.status, &task["Status"])),
                (
                    "about",
                    about.map_or(Json::Null, |(_, object)| json!(object)),
                ),
                (
                    "contact",
                    if is(who, "003") {
                        who.clone()
                    } else {
                        Json::Null
                    },
                ),
                ("contact_email", of(&contacts, who, "Email")),
                (
                    "industry",
                    called(&named.industry, &of(&accounts, what, "Industry")),
                ),
                ("owner_email", of(&users, owner, "Email")),
            ];
            match rows.get(&id) {
                None if is(owner, "00G") => {}
                Some(row)
                    if is(owner, "005")
                        && expected
                            .iter()
                            .all(|(column, value)| row[*column] == *value) => {}
                row => found.push(format!("{task} is {row:?}, not {expected:?}")),
            }
        }
        let companies = self.rows("company", "salesforce_account_id").await;
        for (id, account) in &accounts {
            let expected = called(&named.industry, &account["Industry"]);
            if companies
                .get(id)
                .is_none_or(|row| row["industry"] != expected)
            {
                found.push(format!(
                    "{account} is {:?}, not {expected}",
                    companies.get(id)
                ));
            }
        }
        found
    }

    async fn shows_tasks(&self, daemon: &Daemon, named: &Named) {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.unlike_tasks(named).await;
            let Some(first) = found.first() else { return };
            assert!(
                Instant::now() < until,
                "{} differ, first {first}\n{}",
                found.len(),
                daemon.tail()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn change_of(&self, object: &str, id: &str, fields: Json) {
        let op = json!({"op": "update", "object": object, "id": id, "fields": fields});
        self.commit(&[vec![op]]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_show_labels_types_and_what_an_id_points_to() {
    let (world, mut named) = world().await;
    let daemon = world.daemon().await;
    daemon
        .wait_for("the first sync", |health| {
            let objects = &health["connections"]["acme"]["objects"];
            ["Account", "Contact", "Task"]
                .iter()
                .all(|object| !objects[object]["synced_at"].is_null())
        })
        .await;
    world.shows_tasks(&daemon, &named).await;
    // The task moves: to another contact, to a lead, to nobody; to another kind of record; out of the filter and back.
    for fields in [
        json!({"WhoId": id("003", 2), "Status": "Done"}),
        json!({"WhoId": id("00Q", 7), "WhatId": id("006", 1)}),
        json!({"WhoId": null, "WhatId": id("001", 2), "Status": "unheard of"}),
        json!({"OwnerId": id("00G", 1)}),
        json!({"OwnerId": id("005", 2), "WhoId": id("003", 3)}),
    ] {
        world.change_of("Task", &id("00T", 3), fields).await;
        world.shows_tasks(&daemon, &named).await;
    }
    let fields = json!({"Status": "Open", "WhoId": id("003", 4), "WhatId": id("001", 4), "OwnerId": id("005", 1)});
    let create = json!({"op": "create", "object": "Task", "fields": fields});
    world.commit(&[vec![create]]).await;
    world.shows_tasks(&daemon, &named).await;
    let explained = world.command(&["explain", "acme", "Task", &id("00T", 3), "--json"]);
    let contact = json!(id("003", 3));
    assert_eq!(
        explained["image"]["f"]["WhoId:Contact"], contact,
        "{explained:#}"
    );
    // Its parents change.
    world
        .change_of("Contact", &id("003", 4), json!({"Email": "new@a.example"}))
        .await;
    world
        .change_of("Account", &id("001", 4), json!({"Industry": "Retail"}))
        .await;
    world.shows_tasks(&daemon, &named).await;
    // Relabelled: a description that is asked for finds it, and the records are read again.
    named.status = vec![("Open", "Offen"), ("Done", "Erledigt")];
    named.industry = vec![("Energy", "Strom"), ("Retail", "Handel")];
    named.tell(&world).await;
    world.command(&[
        "metadata",
        "refresh",
        "acme",
        "--no-wait",
        "--json",
        "--url",
        daemon.url(),
    ]);
    world.shows_tasks(&daemon, &named).await;
    // Events after it are told by the new labels, and what was relabelled is read once.
    world
        .change_of("Task", &id("00T", 3), json!({"Status": "Open"}))
        .await;
    world.shows_tasks(&daemon, &named).await;
    world.holes_close(&daemon).await;
    let holes = world.command(&["holes", "--all", "--json"]);
    let causes: Vec<&str> = holes
        .as_array()
        .unwrap()
        .iter()
        .map(|hole| hole["cause"].as_str().unwrap())
        .collect();
    assert_eq!(
        causes
            .iter()
            .filter(|cause| **cause == "relabelled")
            .count(),
        2,
        "{holes:#}"
    );
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

//! What Salesforce does to several records at once: a lead is converted, records are merged, an account is a person.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value as Json, json};
use tributary_sim::salesforce::SimOptions;

use super::daemon::Daemon;
use super::data::id;
use super::world::{LOOK, PATIENCE, World, main_section};

/// A CRM object, its stored one, its columns with their fields, and whether it has an account.
type Table = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    bool,
);

const TABLES: [Table; 4] = [
    (
        "Account",
        "firm",
        &[("name", "Name"), ("person", "IsPersonAccount")],
        false,
    ),
    ("Contact", "human", &[("name", "LastName")], true),
    ("Opportunity", "deal", &[("name", "Name")], true),
    (
        "Lead",
        "prospect",
        &[("name", "LastName"), ("converted", "IsConverted")],
        false,
    ),
];

async fn org(transport: impl Fn(&World) -> String) -> (World, Daemon) {
    let firms = [1, 2, 3].map(|number| format!("{},Firm {number},,,false\n", id("001", number)));
    let humans =
        [1, 2].map(|number| format!("{},Human {number},{}\n", id("003", number), id("001", 2)));
    let deals = format!("{},Deal,Won,{}\n", id("006", 1), id("001", 2));
    let leads = format!("{},Lead,Company,Open,false\n", id("00Q", 1));
    let csv = |head: &str, rows: String| format!("{head}\n{rows}");
    let optional = json!({ "fields": { "FirstName": { "nillable": true }, "LastName": { "nillable": true } } });
    let files = [
        (
            "Account.csv",
            csv("Id,Name,FirstName,LastName,IsPersonAccount", firms.concat()),
        ),
        ("Account.json", optional.to_string()),
        ("Contact.csv", csv("Id,LastName,AccountId", humans.concat())),
        ("Opportunity.csv", csv("Id,Name,StageName,AccountId", deals)),
        (
            "Lead.csv",
            csv("Id,LastName,Company,Status,IsConverted", leads),
        ),
    ];
    let files = files.map(|(name, text)| (name.to_owned(), text));
    let options = SimOptions {
        keepalive_seconds: Some(1),
        ..SimOptions::default()
    };
    let world = World::bare(files.to_vec(), options).await;
    world.put("tributary.toml", &main_section(&world.prefix, &world.store));
    let connection = world.connection(&world.org.url, &transport(&world));
    world.put("connections/acme.toml", &connection);
    for table in TABLES {
        configure(&world, table);
    }
    let daemon = world.daemon().await;
    daemon
        .wait_for("the first syncs", |health| {
            let objects = health["connections"]["acme"]["objects"].as_object();
            objects.is_some_and(|all| {
                all.len() == 4 && all.values().all(|of| !of["synced_at"].is_null())
            })
        })
        .await;
    (world, daemon)
}

fn configure(world: &World, (source, table, columns, is_child): Table) {
    let label = format!("{}{}", table[..1].to_uppercase(), &table[1..]);
    let mut object = format!("label = \"{label}\"\n[fields]\ncrm_id = {{ type = \"string\" }}\n");
    let mut job = format!(
        "source = \"{source}\"\non_delete = \"delete\"\n[to.{label}]\nidentifiers = [\"crm_id\"]\n[to.{label}.map]\ncrm_id = \"Id\"\n"
    );
    for (column, field) in columns {
        let kind = if field.starts_with("Is") {
            "boolean"
        } else {
            "string"
        };
        object += &format!("{column} = {{ type = \"{kind}\" }}\n");
        job += &format!("{column} = \"{field}\"\n");
    }
    if is_child {
        object += "firm = { type = \"gsid\", references = \"Firm\" }\n";
        let found = "{ from = \"Firm\", match = { \"@id\" = \"AccountId\" }, on_none = \"null\" }";
        job += &format!("[to.{label}.derive]\nfirm = {found}\n");
    }
    world.put(&format!("objects/{table}.toml"), &object);
    world.put(&format!("jobs/acme/{table}_sync.toml"), &job);
}

/// Each object's rows, or records, by id: the columns, and the account.
async fn sides(world: &World) -> [BTreeMap<String, Json>; 2] {
    let mut sides = [BTreeMap::new(), BTreeMap::new()];
    let firms = world.rows("firm", "crm_id").await;
    let account = |gsid: &Json| {
        firms
            .iter()
            .find(|(_, row)| row["gsid"] == *gsid)
            .map(|(id, _)| id.clone())
    };
    for (source, table, columns, is_child) in TABLES {
        for (id, record) in world.truth(source).await {
            let mut shown: Vec<Json> = columns
                .iter()
                .map(|(_, field)| record[*field].clone())
                .collect();
            shown.extend(is_child.then(|| record["AccountId"].clone()));
            sides[0].insert(format!("{table} {id}"), json!(shown));
        }
        for (id, row) in world.rows(table, "crm_id").await {
            // A file keeps a truth as a number.
            let value = |(column, field): &(&str, &str)| match row[*column].as_i64() {
                Some(number) if field.starts_with("Is") => json!(number == 1),
                _ => row[*column].clone(),
            };
            let mut shown: Vec<Json> = columns.iter().map(value).collect();
            shown.extend(is_child.then(|| json!(account(&row["firm"]))));
            sides[1].insert(format!("{table} {id}"), json!(shown));
        }
    }
    sides
}

/// Does it in one transaction, and waits until the store holds what the org does.
async fn does(world: &World, daemon: &Daemon, what: &str, operations: Vec<Json>) -> Vec<String> {
    let told = world.commit(&[operations]).await;
    let results = told["transactions"][0]["results"].as_array().unwrap();
    let ids = results
        .iter()
        .map(|result| result["id"].as_str().unwrap_or_else(|| panic!("{result}")));
    let ids = ids.map(str::to_owned).collect();
    let until = Instant::now() + PATIENCE;
    loop {
        let [there, here] = sides(world).await;
        if there == here {
            return ids;
        }
        assert!(
            Instant::now() < until,
            "{what}: {there:#?} {here:#?}\n{}",
            daemon.tail()
        );
        tokio::time::sleep(LOOK).await;
    }
}

async fn lives(world: World, daemon: Daemon) {
    let create =
        |object: &str, fields: Json| json!({ "op": "create", "object": object, "fields": fields });
    let update = |object: &str, id: &str, fields: Json| json!({ "op": "update", "object": object, "id": id, "fields": fields });
    let [winner, loser] = [1, 2].map(|number| id("001", number));

    // Four objects under one key: three are made, and the lead says so.
    let converted = vec![
        create("Account", json!({ "Name": "Company" })),
        create("Contact", json!({ "LastName": "Lead", "AccountId": loser })),
        create(
            "Opportunity",
            json!({ "Name": "Company-", "StageName": "New", "AccountId": loser }),
        ),
        update(
            "Lead",
            &id("00Q", 1),
            json!({ "Status": "Closed - Converted", "IsConverted": true }),
        ),
    ];
    let made = does(&world, &daemon, "a lead is converted", converted).await;

    // What referred to the loser refers to the winner before the loser goes.
    let children = [id("003", 1), id("003", 2), made[1].clone()];
    let mut merged = vec![update("Account", &winner, json!({ "Name": "Merged" }))];
    merged.extend(
        children
            .iter()
            .map(|child| update("Contact", child, json!({ "AccountId": winner }))),
    );
    let deals = [id("006", 1), made[2].clone()];
    merged.extend(
        deals
            .iter()
            .map(|deal| update("Opportunity", deal, json!({ "AccountId": winner }))),
    );
    merged.push(json!({ "op": "delete", "object": "Account", "id": loser }));
    does(&world, &daemon, "records are merged", merged).await;
    assert!(!world.rows("firm", "crm_id").await.contains_key(&loser));

    // A person is an account and a contact, and each change is one of both.
    let person = vec![
        create(
            "Account",
            json!({ "FirstName": "Ann", "LastName": "Lee", "IsPersonAccount": true }),
        ),
        create("Contact", json!({ "LastName": "Lee", "AccountId": winner })),
    ];
    let person = does(&world, &daemon, "a person account is made", person).await;
    let renamed = vec![
        update("Account", &person[0], json!({ "LastName": "Low" })),
        update(
            "Contact",
            &person[1],
            json!({ "LastName": "Low", "AccountId": person[0] }),
        ),
    ];
    does(&world, &daemon, "a person account is renamed", renamed).await;
    let firms = world.rows("firm", "crm_id").await;
    assert_eq!(firms[&person[0]]["name"], "Ann Low");
    assert_eq!(world.command(&["holes", "--all", "--json"]), json!([]));
    assert!(daemon.stop().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn conversions_merges_and_persons_over_pubsub() {
    let (world, daemon) =
        org(|world| format!("pubsub_address = \"{}\"\n", world.org.pubsub_url)).await;
    lives(world, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conversions_merges_and_persons_over_cometd() {
    let (world, daemon) = org(|_| "transport = \"cometd\"\n".to_owned()).await;
    lives(world, daemon).await;
}

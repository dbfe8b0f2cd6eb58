//! A Salesforce org and a Dataverse environment feed the same companies and persons in one daemon: who is one and the same
//! is one row, whoever told of it first, and a row goes when the last of them goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use reqwest::Method;
use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::tables;
use super::dataverse::{Dataverse, Members, SECRET, Write, member};
use super::store::Texts;
use super::world::{LOOK, PATIENCE, World};
use crate::sim;

/// Companies of one org alone, of both, of the other alone.
const SHARE: usize = 15;
const RACES: usize = 20;

const SALESFORCE_COMPANY: &str = r#"
source = "Account"
on_delete = "delete"
[to.Company]
identifiers = ["website"]
[to.Company.map]
website = "Website"
salesforce_account_id = "Id"
industry = "Industry"
"#;
const DYNAMICS_COMPANY: &str = r#"
source = "account"
on_delete = "delete"
[to.Company]
identifiers = ["website"]
[to.Company.map]
website = "websiteurl"
dynamics_account_id = "accountid"
employees = "numberofemployees"
"#;
const SALESFORCE_PERSON: &str = r#"
source = "Contact"
on_delete = "delete"
[to.Person]
identifiers = ["email"]
[to.Person.map]
email = "Email"
last_name = "LastName"
"#;
const DYNAMICS_PERSON: &str = r#"
source = "contact"
on_delete = "delete"
[to.Person]
identifiers = ["email"]
[to.Person.map]
email = "emailaddress1"
phone = "telephone1"
"#;

struct Both {
    salesforce: World,
    dataverse: Dataverse,
}

fn site(number: usize) -> String {
    format!("https://company{number}.example")
}

fn mail(number: usize) -> String {
    format!("Person{number}@Company.example")
}

fn guid(table: usize, number: usize) -> String {
    format!("{table:08x}-0000-4000-8000-{number:012x}")
}

fn member_of(fields: &[(&str, Json)]) -> Members {
    let pairs = fields.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), member(value.clone())))
        .collect()
}

impl Both {
    async fn begin() -> Self {
        let mut accounts = "Id,Name,Website,Industry\n".to_owned();
        let mut contacts = "Id,LastName,Email\n".to_owned();
        for number in 0..2 * SHARE {
            accounts += &format!(",Company {number},{},Energy\n", site(number));
            contacts += &format!(",Person {number},{}\n", mail(number));
        }
        let users = tables(2, 1, 1).swap_remove(0);
        let data = [users, ("Account", accounts), ("Contact", contacts)];
        let salesforce = World::of(&data).await;
        let folder = salesforce.home.path().join("environment");
        std::fs::create_dir_all(&folder).unwrap();
        let mut accounts = "accountid,name,websiteurl,numberofemployees\n".to_owned();
        let mut contacts = "contactid,lastname,emailaddress1,telephone1\n".to_owned();
        for number in SHARE..3 * SHARE {
            // The same address in other letters is the same person.
            let mail = mail(number).to_lowercase();
            accounts += &format!(
                "{},Same {number},{},{number}\n",
                guid(1, number),
                site(number)
            );
            contacts += &format!("{},Same {number},{mail},+49 {number}\n", guid(2, number));
        }
        std::fs::write(folder.join("account.csv"), accounts).unwrap();
        std::fs::write(folder.join("contact.csv"), contacts).unwrap();
        let dataverse = Dataverse::of(&folder).await;
        let both = Self {
            salesforce,
            dataverse,
        };
        both.configure();
        both
    }

    fn configure(&self) {
        let config = self.salesforce.config();
        for job in ["user_sync", "opportunity_sync"] {
            std::fs::remove_file(config.join(format!("jobs/acme/{job}.toml"))).unwrap();
        }
        let connection = self.dataverse.connection("poll_interval = \"50ms\"\n");
        for (name, text) in [
            ("jobs/acme/company_sync.toml", SALESFORCE_COMPANY),
            ("jobs/acme/person_sync.toml", SALESFORCE_PERSON),
            ("jobs/contoso/company_sync.toml", DYNAMICS_COMPANY),
            ("jobs/contoso/person_sync.toml", DYNAMICS_PERSON),
            ("connections/contoso.toml", connection.as_str()),
            ("secret", SECRET),
        ] {
            let path = config.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    async fn born_there(&mut self, number: usize) {
        let account = [
            ("accountid", json!(guid(1, number))),
            ("websiteurl", json!(site(number))),
            ("numberofemployees", json!(number)),
        ];
        let contact = [
            ("contactid", json!(guid(2, number))),
            ("emailaddress1", json!(mail(number))),
            ("telephone1", json!("+41")),
        ];
        let write = |path: &str, fields: &[(&str, Json)]| Write {
            method: Method::POST,
            path: path.to_owned(),
            body: Some(member_of(fields)),
        };
        let writes = [write("accounts", &account), write("contacts", &contact)];
        self.dataverse.batch(&writes).await;
    }

    async fn change_there(&mut self, set: &str, id: &str, fields: &[(&str, Json)]) {
        let write = Write {
            method: Method::PATCH,
            path: format!("{set}({id})"),
            body: Some(member_of(fields)),
        };
        self.dataverse.write(&write).await;
    }

    async fn delete_there(&mut self, number: usize) {
        for (table, set) in [(1, "accounts"), (2, "contacts")] {
            let write = Write {
                method: Method::DELETE,
                path: format!("{set}({})", guid(table, number)),
                body: None,
            };
            self.dataverse.write(&write).await;
        }
    }

    /// Live records of Salesforce by the text that says who they are, in small letters.
    async fn here(&self, object: &str, key: &str) -> BTreeMap<String, Json> {
        let truth = self.salesforce.truth(object).await;
        let records = truth.into_values();
        records
            .map(|record| (record[key].as_str().unwrap().to_lowercase(), record))
            .collect()
    }

    async fn there(&mut self, set: &str, key: &str) -> BTreeMap<String, BTreeMap<String, Json>> {
        let rows = self.dataverse.rows(set).await.into_iter();
        let rows = rows.map(|row| {
            let pairs = row.into_iter();
            let value = |json: &str| serde_json::from_str(json).unwrap();
            let row = pairs.map(|(name, raw)| (name, value(raw.get())));
            row.collect::<BTreeMap<String, Json>>()
        });
        rows.map(|row| (row[key].as_str().unwrap().to_lowercase(), row))
            .collect()
    }

    /// Where the store is not the union of both.
    async fn differences(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        let here = self.here("Account", "Website").await;
        let there = self.there("accounts", "websiteurl").await;
        let rows = self.salesforce.store.texts("company").await;
        let rows = by(&mut found, &rows, "website");
        let keys: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        same_keys(&mut found, &keys, &rows);
        for (key, row) in &rows {
            if let Some(record) = here.get(key) {
                agree(&mut found, key, row, "salesforce_account_id", &record["Id"]);
                agree(&mut found, key, row, "industry", &record["Industry"]);
            }
            if let Some(record) = there.get(key) {
                agree(
                    &mut found,
                    key,
                    row,
                    "dynamics_account_id",
                    &record["accountid"],
                );
                agree(
                    &mut found,
                    key,
                    row,
                    "employees",
                    &record["numberofemployees"],
                );
            }
        }
        let here = self.here("Contact", "Email").await;
        let there = self.there("contacts", "emailaddress1").await;
        let rows = self.salesforce.store.texts("person").await;
        let rows = by(&mut found, &rows, "email");
        let keys: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        same_keys(&mut found, &keys, &rows);
        for (key, row) in &rows {
            if let Some(record) = here.get(key) {
                agree(&mut found, key, row, "last_name", &record["LastName"]);
            }
            if let Some(record) = there.get(key) {
                agree(&mut found, key, row, "phone", &record["telephone1"]);
            }
        }
        found
    }

    async fn settled(&mut self, daemon: &Daemon) {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.differences().await;
            if found.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "{found:#?}\n{}", daemon.tail());
            tokio::time::sleep(LOOK * 4).await;
        }
    }
}

fn by(found: &mut Vec<String>, rows: &[Texts], key: &str) -> BTreeMap<String, Texts> {
    let mut known = BTreeMap::new();
    for row in rows {
        let is = row[key].clone().unwrap_or_default().to_lowercase();
        if known.insert(is.clone(), row.clone()).is_some() {
            found.push(format!("{is} is stored twice"));
        }
    }
    known
}

fn same_keys(found: &mut Vec<String>, wanted: &BTreeSet<&String>, rows: &BTreeMap<String, Texts>) {
    let stored: BTreeSet<&String> = rows.keys().collect();
    for key in wanted.symmetric_difference(&stored) {
        let is = if stored.contains(*key) { "" } else { "not " };
        found.push(format!("{key} is {is}stored"));
    }
}

fn agree(found: &mut Vec<String>, key: &str, row: &Texts, column: &str, wanted: &Json) {
    let wanted = match wanted {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    if row[column] != wanted {
        found.push(format!(
            "{key}: {column} is {:?}, not {wanted:?}",
            row[column]
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_crms_feed_one_row_and_the_last_one_takes_it_along() {
    let mut both = Both::begin().await;
    let daemon = both.salesforce.daemon().await;
    both.settled(&daemon).await;
    assert_eq!(
        both.salesforce.store.texts("company").await.len(),
        3 * SHARE
    );

    // Each side changes what it tells, of the same rows at the same time; the other's columns stay.
    let accounts = both.here("Account", "Website").await;
    for number in SHARE..2 * SHARE {
        let id = &accounts[&site(number)]["Id"];
        let change = json!({"op": "update", "object": "Account", "id": id, "fields": {"Industry": format!("Industry {number}")}});
        both.salesforce.commit(&[vec![change]]).await;
        let employees = [("numberofemployees", json!(number + 1000))];
        both.change_there("accounts", &guid(1, number), &employees)
            .await;
        both.change_there("contacts", &guid(2, number), &[("telephone1", json!(null))])
            .await;
    }
    both.settled(&daemon).await;

    // The same company and person are born in both at once: two streams race for one row.
    for number in 100..100 + RACES {
        let born = vec![
            json!({"op": "create", "object": "Account", "fields": {"Name": "New", "Website": site(number), "Industry": "Media"}}),
            json!({"op": "create", "object": "Contact", "fields": {"LastName": "New", "Email": mail(number)}}),
        ];
        let (http, org) = (
            both.salesforce.http.clone(),
            both.salesforce.org.url.clone(),
        );
        let body = json!({"transactions": [{"ops": born}]});
        let here = async move { sim::order(&http, &org, "transactions", &body).await };
        tokio::join!(here, both.born_there(number));
    }
    daemon.kill();
    let daemon = both.salesforce.daemon().await;
    both.settled(&daemon).await;
    assert_eq!(
        both.salesforce.store.texts("company").await.len(),
        3 * SHARE + RACES
    );

    // One side deletes: the row stays for the other.
    let accounts = both.here("Account", "Website").await;
    let contacts = both.here("Contact", "Email").await;
    let gone: Vec<Json> = (100..110)
        .flat_map(|number| {
            let account = &accounts[&site(number)]["Id"];
            let contact = &contacts[&mail(number).to_lowercase()]["Id"];
            [("Account", account), ("Contact", contact)]
        })
        .map(|(object, id)| json!({"op": "delete", "object": object, "id": id}))
        .collect();
    both.salesforce.commit(&[gone]).await;
    for number in 110..115 {
        both.delete_there(number).await;
    }
    // The last one takes it along.
    for number in 100..105 {
        both.delete_there(number).await;
    }
    both.settled(&daemon).await;
    assert_eq!(
        both.salesforce.store.texts("person").await.len(),
        3 * SHARE + RACES - 5
    );
    let letters = daemon.get("/api/v1/health").await.1;
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
    let health: Json = serde_json::from_str(&letters).unwrap();
    for jobs in health["jobs"].as_object().unwrap().values() {
        for job in jobs.as_object().unwrap().values() {
            assert!(job["fault"].is_null(), "{job}");
        }
    }
}

//! The config: every file under `config/` loads, every rule refuses with its text, nothing panics, no secret shows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tributary::config::Config;
use tributary::config::auth::Auth;
use tributary::config::job::{DeriveSource, Expected, MapSource};
use tributary::config::kafka::KafkaProperty;
use tributary::config::log::LogEngine;
use tributary::config::problem::Problems;
use tributary::config::secret::SecretRef;
use tributary::config::stream::{Channel, Transport};
use tributary::config::target::TargetConfig;
use tributary::fault::{Fault, FaultKind};
use tributary::log::kafka::settings::KafkaSettings;
use tributary::model::policy::{OnExit, OnMultiple, OnNone};
use tributary::model::stored::StoredType;
use tributary::model::value::Value;

mod broken;
mod dynamics;
mod mutations;
mod silence;

/// Files in a folder of their own.
pub struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn load(&self, name: &str, environment: &[(&str, &str)]) -> Result<Config, Problems> {
        let environment: BTreeMap<String, String> = environment
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        Config::load(&self.folder.path().join(name), &environment)
    }
}

/// One file with all tables.
pub const SINGLE: &str = r#"
[connection.acme]
kind = "salesforce"
org = "https://acme.my.salesforce.com"
auth = { flow = "client_credentials", client_id = "3MVG9", client_secret = { env = "ACME_SECRET" } }

[job.acme.user_sync]
source = "User"
[job.acme.user_sync.to.User]
identifiers = ["username"]
map = { username = "Username", email = "Email" }

[job.acme.company_sync]
source = "Account"
[job.acme.company_sync.to.Company]
identifiers = ["salesforce_account_id"]
map = { salesforce_account_id = "Id", name = "Name" }
derive.csm = { from = "User", match = { "@id" = "OwnerId" } }
"#;

fn load_single(text: &str, environment: &[(&str, &str)]) -> Result<Config, Problems> {
    Fixture::new(&[("all.toml", text)]).load("all.toml", environment)
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/crm-sales")
}

#[test]
fn every_example_loads_without_a_note() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let mut count = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let config = Config::load(&path, &BTreeMap::new());
        let config = config.unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()));
        assert!(config.notes.is_empty(), "{:?}", config.notes);
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn the_manuals_examples_load() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let manual = fs::read_to_string(manual).unwrap();
    let blocks: Vec<&str> = manual
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    let [connection, job, object] = blocks[..] else {
        panic!("{} examples", blocks.len())
    };
    let fixture = Fixture::new(&[
        ("tributary.toml", ""),
        ("connections/acme.toml", connection),
        ("jobs/acme/company_sync.toml", job),
        ("objects/asset.toml", object),
        ("objects/company.toml", "fields.origin.type = \"string\"\n"),
    ]);
    let config = fixture
        .load("", &[])
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.jobs[0].destinations[0].map.len(), 4);
    assert_eq!(config.objects["Asset"].fields.len(), 2);
}

#[test]
fn the_example_for_production_says_where_log_and_rows_are() {
    let path = example().with_file_name("production");
    let config = Config::load(&path, &BTreeMap::new()).unwrap();
    let LogEngine::Kafka(kafka) = &config.log.engine else {
        panic!("{:?}", config.log.engine)
    };
    assert_eq!(kafka.replication, Some(3));
    let TargetConfig::Postgres(target) = &config.target else {
        panic!("{:?}", config.target)
    };
    let file = |name: &str| Some(SecretRef::File(PathBuf::from("/run/secrets").join(name)));
    assert_eq!(target.server.password, file("store_password"));
    assert_eq!(target.server.ssl_mode, Some("verify-full"));
    assert_eq!(target.writers, Some(4));
    assert_eq!(target.schema, "store");
    assert_eq!(target.ledger_schema, "tributary");
    assert_eq!(config.admin.token, file("tributary_token"));
    assert_eq!(tributary::app::compile(&config).unwrap().len(), 1);
}

#[test]
fn the_example_says_what_it_says() {
    let config = Config::load(&example(), &BTreeMap::new()).unwrap();
    assert_eq!(config.root, example());
    assert_eq!(config.daemon.data_dir, example().join("data"));
    let acme = config.connections["acme"].salesforce().unwrap();
    assert_eq!(acme.login_url(), "http://127.0.0.1:8077");
    assert_eq!(acme.transport, Transport::Cometd);
    assert_eq!(acme.channel, Channel::Standard);
    let Auth::ClientCredentials {
        client_id,
        client_secret,
        ..
    } = &acme.auth
    else {
        panic!("another flow");
    };
    assert_eq!(client_id, "demo");
    assert_eq!(*client_secret, SecretRef::Env("ACME_SECRET".to_owned()));

    let ids: Vec<_> = config.jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(ids, ["company_sync", "opportunity_sync", "user_sync"]);
    let opportunity = &config.jobs[1];
    assert_eq!(
        opportunity.spot.to_string(),
        "jobs/acme/opportunity_sync.toml:1"
    );
    assert_eq!(opportunity.on_delete, OnExit::Delete);
    let destination = &opportunity.destinations[0];
    let columns: Vec<_> = destination
        .map
        .iter()
        .map(|entry| entry.column.value.as_str())
        .collect();
    assert_eq!(
        columns,
        [
            "external_id",
            "name",
            "stage",
            "amount",
            "close_date",
            "type"
        ]
    );
    let amount = &destination.map[3].column;
    assert_eq!(amount.spot.key, "to.Opportunity.map.amount");
    let lines = fs::read_to_string(example().join("jobs/acme/opportunity_sync.toml")).unwrap();
    assert!(
        lines
            .lines()
            .nth(amount.spot.line - 1)
            .unwrap()
            .starts_with("amount ")
    );
    let DeriveSource::Match { from, pairs } = &destination.derive[0].by else {
        panic!("company_id is matched")
    };
    assert_eq!(from.value, "Company");
    assert_eq!(
        (pairs[0].0.value.as_str(), pairs[0].1.value.as_str()),
        ("@id", "AccountId")
    );
    assert_eq!(destination.derive[0].on_multiple, OnMultiple::Error);
    assert_eq!(destination.derive[0].on_none, OnNone::Null);

    let company = &config.objects["Company"];
    assert_eq!(company.fields.last().unwrap().column, "year_started");
    let routine = &config.routines[&(acme.id.clone(), config.jobs[0].id.clone())];
    assert_eq!(routine.tests.len(), 1);
    assert_eq!(
        routine.tests[0].expect[0].1[0]["employees"],
        Expected::Value(Value::from(12))
    );
}

#[test]
fn the_example_maps_every_business_column() {
    let config = Config::load(&example(), &BTreeMap::new()).unwrap();
    let fields: BTreeMap<&str, &str> = BTreeMap::from([
        (
            "user_sync",
            "Id FirstName LastName Email Username Title TimeZoneSidKey LocaleSidKey Division ManagerId UserType IsActive",
        ),
        (
            "company_sync",
            "Id Name Industry NumberOfEmployees AnnualRevenue YearStarted BillingCountry ParentId",
        ),
        (
            "opportunity_sync",
            "Id Name StageName Amount CloseDate AccountId OwnerId Type",
        ),
    ]);
    for job in &config.jobs {
        let destination = &job.destinations[0];
        let mut read: Vec<&str> = Vec::new();
        for entry in &destination.map {
            if let MapSource::Path(path) = &entry.source {
                read.push(&path.value);
            }
        }
        for entry in &destination.derive {
            if let DeriveSource::Match { pairs, .. } = &entry.by {
                read.extend(pairs.iter().map(|(_, path)| path.value.as_str()));
            }
        }
        for field in fields[job.id.as_str()].split(' ') {
            assert!(read.contains(&field), "{}: {field}", job.id);
        }
    }
}

#[test]
fn standard_objects_are_whole() {
    let config = load_single(SINGLE, &[]).unwrap();
    let tables: BTreeMap<&str, &str> = config
        .objects
        .values()
        .map(|object| (object.label.as_str(), object.table.as_str()))
        .collect();
    insta::assert_json_snapshot!("standard-objects", tables);
    for object in config.objects.values() {
        for field in &object.fields {
            let is_reference = field.ty == StoredType::Gsid;
            assert_eq!(
                field.references.is_some(),
                is_reference,
                "{}.{}",
                object.table,
                field.column
            );
            // Columns are the labels in snake case.
            let snake = field.label.to_lowercase().replace(' ', "_");
            assert_eq!(field.column, snake);
        }
    }
    let manager = config.objects["Company Person"].field("manager").unwrap();
    assert_eq!(manager.references.as_deref(), Some("company_person"));
}

#[test]
fn the_stream_is_chosen() {
    let plain = load_single(SINGLE, &[]).unwrap();
    assert_eq!(
        plain.connections["acme"].salesforce().unwrap().transport,
        Transport::PubSub
    );
    for (key, transport, channel, address) in [
        (
            "transport = \"cometd\"",
            Transport::Cometd,
            Channel::Standard,
            None,
        ),
        (
            "channel = \"objects\"",
            Transport::PubSub,
            Channel::PerObject,
            None,
        ),
        (
            "channel = \"/data/Sales__chn\"\npubsub_address = \"api.deu.pubsub.salesforce.com:443\"",
            Transport::PubSub,
            Channel::Custom("/data/Sales__chn".to_owned()),
            Some("api.deu.pubsub.salesforce.com:443"),
        ),
    ] {
        let text = SINGLE.replace(
            "kind = \"salesforce\"",
            &format!("kind = \"salesforce\"\n{key}"),
        );
        let config = load_single(&text, &[]).unwrap();
        let acme = &config.connections["acme"].salesforce().unwrap();
        assert_eq!(
            (acme.transport, &acme.channel),
            (transport, &channel),
            "{key}"
        );
        assert_eq!(acme.pubsub_address.as_deref(), address, "{key}");
    }
}

#[test]
fn one_file_and_a_directory_say_the_same() {
    let single = load_single(SINGLE, &[]).unwrap();
    let fixture = Fixture::new(&[
        ("tributary.toml", ""),
        (
            "connections/acme.toml",
            "kind = \"salesforce\"\norg = \"https://acme.my.salesforce.com\"\n\
             [auth]\nflow = \"client_credentials\"\nclient_id = \"3MVG9\"\nclient_secret.env = \"ACME_SECRET\"\n",
        ),
        (
            "jobs/acme/user_sync.toml",
            "source = \"User\"\n[to.User]\nidentifiers = [\"username\"]\nmap.username = \"Username\"\nmap.email = \"Email\"\n",
        ),
        ("jobs/acme/notes.md", "beside"),
        ("jobs/acme/.hidden.toml", "no toml"),
    ]);
    let directory = fixture.load("", &[]).unwrap();
    let acme = directory.connections["acme"].salesforce().unwrap();
    let same = single.connections["acme"].salesforce().unwrap();
    assert_eq!(acme.auth, same.auth);
    assert_eq!(directory.admin, single.admin);
    assert_eq!(directory.jobs.len(), 1);
    let user = |config: &Config| {
        let job = config
            .jobs
            .iter()
            .find(|job| job.id.as_str() == "user_sync")
            .unwrap();
        let map = &job.destinations[0].map;
        map.iter()
            .map(|entry| entry.column.value.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(user(&directory), user(&single));
}

#[test]
fn every_form_of_a_mapping() {
    let text = format!(
        "{SINGLE}{}",
        r#"
[object.asset]
label = "Asset"
[object.asset.fields]
serial = { type = "string" }
company_id = { type = "gsid", references = "Company" }

[job.acme.contact_sync]
name = "Contact Sync"
source = "Contact"
enabled = false
realtime = false
full_sync = "weekly sun 02:00"
where = "Email != null"
on_delete = "delete"
on_filter_exit = "mark"
on_empty_identifier = "insert"
parked_ttl = "15m"
[job.acme.contact_sync.to.Person]
identifiers = "@person_key"
map = { email = "Email" }
[job.acme.contact_sync.to."Company Person"]
identifiers = ["person_id", "company_id"]
where = "AccountId != null"
on_delete = "keep"
[job.acme.contact_sync.to."Company Person".map]
role     = { from = "Role__c", default = "none" }
opted_in = { from = "DoNotEmail", values = { true = false, false = true } }
origin   = { value = "salesforce", when = "insert" }
title    = { from = "Title", on_null = "keep" }
[job.acme.contact_sync.to."Company Person".derive]
person_id  = { sibling = "Person" }
company_id = { from = "Company", match = { "@id" = "AccountId", name = "Account.Name" }, on_multiple = "any", on_none = "reject" }
manager    = { from = "Company Person", match = { "@id" = "ReportsToId" }, on_none = "default", default = "0190a5b2-0000-7000-8000-000000000001" }
"#
    );
    let config = load_single(&text, &[]).unwrap();
    let job = config
        .jobs
        .iter()
        .find(|job| job.id.as_str() == "contact_sync")
        .unwrap();
    insta::assert_debug_snapshot!("every-form", job);
    let asset = &config.objects["Asset"];
    assert_eq!(asset.table, "asset");
    assert_eq!(asset.field("serial").unwrap().label, "Serial");
    assert_eq!(
        asset.field("company_id").unwrap().references.as_deref(),
        Some("company")
    );
}

#[test]
fn a_kafka_cluster_with_any_property() {
    let text = format!(
        "{SINGLE}{}",
        r#"
[log]
url = "kafka://one.example:9093, two.example,[::1]:9094"
replication = 3
[log.kafka]
security.protocol = "sasl_ssl"
sasl.mechanism = "SCRAM-SHA-512"
"sasl.username" = "tributary"
sasl.password = { file = "secrets/kafka" }
ssl.key.password = { env = "KAFKA_KEY" }
linger.ms = 5
"socket.keepalive.enable" = true
acks = "all"
"#
    );
    let config = load_single(&text, &[]).unwrap();
    let LogEngine::Kafka(kafka) = &config.log.engine else {
        panic!("{:?}", config.log);
    };
    assert_eq!(
        kafka.brokers,
        "one.example:9093,two.example:9092,[::1]:9094"
    );
    assert_eq!(kafka.replication, Some(3));
    let text = |text: &str| KafkaProperty::Text(text.to_owned());
    let found = |name: &str| kafka.properties[name].clone();
    assert_eq!(kafka.properties.len(), 8);
    assert_eq!(found("security.protocol"), text("sasl_ssl"));
    assert_eq!(found("sasl.mechanism"), text("SCRAM-SHA-512"));
    assert_eq!(found("sasl.username"), text("tributary"));
    assert_eq!(found("linger.ms"), text("5"));
    assert_eq!(found("socket.keepalive.enable"), text("true"));
    assert!(
        matches!(found("sasl.password"), KafkaProperty::Secret(SecretRef::File(path)) if path.ends_with("secrets/kafka"))
    );
    let key = SecretRef::Env("KAFKA_KEY".to_owned());
    assert_eq!(found("ssl.key.password"), KafkaProperty::Secret(key));
    assert!(!format!("{kafka:?}").contains("SCRAM"));
    // A secret is read when the log is opened, and its absence names the property.
    let told = KafkaSettings::from_config(kafka).unwrap_err();
    assert_eq!(told.kind(), FaultKind::Credentials);
    assert!(told.report().contains("`sasl.password`"), "{told}");
}

#[test]
fn overrides_stand_above_files() {
    let config = load_single(
        SINGLE,
        &[
            ("TRIBUTARY__ADMIN__LISTEN", "[::1]:9090"),
            ("TRIBUTARY__LOG__FORGET_AFTER", "30d"),
            (
                "TRIBUTARY__STORE__PERSON_KEY",
                "[\"email\", \"external_id\"]",
            ),
            ("TRIBUTARY__CONNECTION__ACME__ORG", "http://127.0.0.1:1"),
            ("TRIBUTARY__CONNECTION__ACME__PLAIN_TEXT", "true"),
            (
                "TRIBUTARY__CONNECTION__ACME__AUTH__SECRET_EXPIRES",
                "2027-01-31",
            ),
            (
                "TRIBUTARY__CONNECTION__ACME__AUTH__CLIENT_SECRET",
                "{ file = \"s\" }",
            ),
            ("TRIBUTARY__JOB__ACME__USER_SYNC__ENABLED", "false"),
            ("TRIBUTARY_URL", "no override"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(config.admin.listen.to_string(), "[::1]:9090");
    assert_eq!(config.log.forget_after.as_secs(), 30 * 86_400);
    assert_eq!(config.store.person_key.len(), 2);
    let acme = config.connections["acme"].salesforce().unwrap();
    assert_eq!(acme.login_url(), "http://127.0.0.1:1");
    let Auth::ClientCredentials {
        client_secret,
        secret_expires,
        ..
    } = &acme.auth
    else {
        panic!("another flow");
    };
    assert_eq!(*client_secret, SecretRef::File(config.root.join("s")));
    assert_eq!(secret_expires.unwrap().to_string(), "2027-01-31");
    let user = config
        .jobs
        .iter()
        .find(|job| job.id.as_str() == "user_sync")
        .unwrap();
    assert!(!user.enabled);
    assert_eq!(user.source.value.as_str(), "User");
}

#[test]
fn problems_become_a_fault() {
    let problems = load_single("[admin]\nlisten = 1\n", &[]).unwrap_err();
    assert_eq!(problems.as_slice().len(), 1);
    let fault = Fault::from(problems);
    assert_eq!(fault.kind(), FaultKind::Config);
    assert!(
        fault.report().contains("all.toml:2: `admin.listen` = 1"),
        "{}",
        fault.report()
    );
}

#[test]
fn secrets_show_nowhere() {
    // Wherever one might be written by mistake, and keys that are misspelt.
    for place in [
        "[admin]\ntoken = \"hunter2\"",
        "[admin]\ntokn = \"hunter2\"",
        "[admin]\ntoken = { evn = \"hunter2\" }",
        "[admin]\ntoken = { env = \"hunter2 \" }",
        "[admin]\ntoken = [\"hunter2\"]",
        "[admin]\ntoken = \"hunter2",
        "[admin]\npublic_url = \"https://me:hunter2@a.example\"",
        "[target]\nurl = \"postgres://me:hunter2@host/db\"",
        "[log]\nurl = \"kafka://me:hunter2@host\"",
        "[log]\nkafka = { \"sasl.password\" = \"hunter2\" }",
        "[log]\nurl = \"kafka://b\"\nkafka = { \"sasl.password\" = \"hunter2\" }",
        "[log]\nurl = \"kafka://b\"\nkafka = { \"sasl.password\" = { evn = \"hunter2\" } }",
        "[log]\nurl = \"kafka://b\"\nkafka = { \"ssl.key.pem\" = [\"hunter2\"] }",
        "[mail]\nsmtp = \"smtps://me:hunter2@host\"",
        "[mail]\npassword = \"hunter2\"",
        "[notify]\npager = { webhook = \"hunter2\" }",
        "[notify]\npager = \"hunter2\"",
        "[connection.x]\nkind = \"salesforce\"\norg = \"https://u:hunter2@acme.my.salesforce.com\"",
        "[connection.x]\nauth = \"hunter2\"",
        "[connection.x]\nauth = { client_secret = \"hunter2\" }",
        "[connection.x]\nauth = { client_secrt = \"hunter2\" }",
        "[connection.x]\nauth = { flow = \"client_credentials\", password = \"hunter2\" }",
        "[connection.x]\nclient_secret = \"hunter2\"",
    ] {
        let problems = load_single(place, &[]).unwrap_err();
        let shown = format!("{problems}{problems:?}{:?}", Fault::from(problems.clone()));
        assert!(!shown.contains("hunter2"), "{place}: {shown}");
    }
    let override_of_one = (
        "TRIBUTARY__CONNECTION__ACME__AUTH__CLIENT_SECRET",
        "hunter2",
    );
    for wrong in [
        override_of_one,
        ("TRIBUTARY__ADMIN__TOKN", "hunter2"),
        ("TRIBUTARY__ADMIN", "hunter2"),
    ] {
        let problems = load_single(SINGLE, &[wrong]).unwrap_err();
        assert!(
            !format!("{problems}{problems:?}").contains("hunter2"),
            "{problems}"
        );
    }
    let fixture = Fixture::new(&[
        (
            "all.toml",
            &SINGLE.replace("env = \"ACME_SECRET\"", "file = \"secret\""),
        ),
        ("secret", "hunter2\n"),
    ]);
    let config = fixture.load("all.toml", &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let acme = config.connections["acme"].salesforce().unwrap();
    let Auth::ClientCredentials { client_secret, .. } = &acme.auth else {
        panic!("another flow");
    };
    let secret = client_secret.read().unwrap();
    assert_eq!(secret.expose(), "hunter2");
    assert_eq!(format!("{secret:?}{secret}"), "******");
}

//! Whole reads by the Bulk API 2.0 against the simulated org: equal to REST's, resumed at any place, no row lost.

mod side_by_side;

use std::sync::Arc;
use std::time::Duration;

use crate::sim;
use serde_json::{Value as Json, json};
use tributary::crm::port::{Crm, Selection};
use tributary::crm::salesforce::Salesforce;
use tributary::crm::salesforce::settings::{SalesforceSettings, Transport};
use tributary::fault::{Fault, FaultKind};
use tributary::model::event::{Page, Row};
use tributary::model::name::FieldName;
use tributary::runtime::clock::SystemClock;
use tributary::secret::Secret;
use tributary::telemetry::metrics::Metrics;
use tributary_sim::salesforce::{Running, SimOptions, start};

/// Rows that a page of a job's results has at most.
const PAGE: usize = 1000;
const FIELDS: [&str; 12] = [
    "Id",
    "Name",
    "AnnualRevenue",
    "NumberOfEmployees",
    "Active__c",
    "Launch__c",
    "Wake__c",
    "Tags__c",
    "Notes__c",
    "BillingCity",
    "CreatedDate",
    "Owner.Email",
];

struct World {
    org: Running,
    http: reqwest::Client,
    _data: tempfile::TempDir,
}

impl World {
    async fn new(accounts: usize) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record([
            "Id",
            "Name",
            "AnnualRevenue",
            "NumberOfEmployees",
            "Active__c",
            "Launch__c",
            "Wake__c",
            "Tags__c",
            "Notes__c",
            "BillingCity",
            "OwnerId",
        ])
        .unwrap();
        for number in 0..accounts {
            let note = match number % 7 {
                0 => String::new(),
                1 => "she said \"no\",\nthen\r\n\"\"yes\"\"".to_owned(),
                2 => "🦀 Grüße, 東京\t\\n '\u{1f469}\u{200d}\u{1f680}'".to_owned(),
                3 if number < 50 => "long, \"quoted\"\n".repeat(7_000),
                3 => "\"".to_owned(),
                4 => "null".to_owned(),
                5 => "  spaces  ".to_owned(),
                _ => "1.50".to_owned(),
            };
            let some = |text: &str| {
                if number % 3 == 0 {
                    String::new()
                } else {
                    text.to_owned()
                }
            };
            csv.write_record([
                format!("001A{number:011}"),
                format!("Acme {number}, \"{}\"", number % 10),
                some(&format!("{number}.25")),
                some(&format!("-{number}")),
                (number % 2 == 0).to_string(),
                some("2024-02-29"),
                some("09:00:00.000Z"),
                some("a;b c"),
                note,
                some("Zürich"),
                some("005A00000000001"),
            ])
            .unwrap();
        }
        std::fs::write(data.path().join("Account.csv"), csv.into_inner().unwrap()).unwrap();
        let kinds = json!({"fields": {
            "Tags__c": {"type": "multipicklist"}, "Wake__c": {"type": "time"}, "Active__c": {"type": "boolean"},
            "Notes__c": {"type": "textarea", "length": 131_072}, "Launch__c": {"type": "date"},
        }});
        std::fs::write(data.path().join("Account.json"), kinds.to_string()).unwrap();
        let users = "Id,Name,Email\n005A00000000001,Uma,uma@a.example\n";
        std::fs::write(data.path().join("User.csv"), users).unwrap();
        let org = start(SimOptions {
            data: Some(data.path().to_owned()),
            bulk_page_size: PAGE,
            ..SimOptions::default()
        })
        .await
        .unwrap();
        Self {
            org,
            http: reqwest::Client::new(),
            _data: data,
        }
    }

    /// A connector of its own, as another process would have one; `None` reads over REST alone.
    fn crm(&self, bulk_from: Option<u64>) -> Salesforce {
        self.crm_that(|settings| settings.bulk_from = bulk_from)
    }

    fn crm_that(&self, change: impl FnOnce(&mut SalesforceSettings)) -> Salesforce {
        let secret = Arc::new(|| Ok::<_, Fault>(Secret::new("simulated-secret")));
        let mut settings =
            SalesforceSettings::new("acme".into(), &self.org.url, "simulated-client", secret);
        settings.transport = Transport::Cometd;
        settings.plain_text = true;
        settings.read_lag = Duration::ZERO;
        settings.page_size = 200;
        change(&mut settings);
        Salesforce::new(settings, Metrics::none(), Arc::new(SystemClock)).unwrap()
    }

    async fn control(&self, path: &str, body: Json) {
        sim::order(&self.http, &self.org.url, path, &body).await;
    }

    async fn fault(&self, script: Json) {
        self.control("faults", script).await;
    }

    /// Calls of a kind since the start: `POST jobs/query`.
    async fn calls(&self, kind: &str) -> u64 {
        let counts = sim::told(&self.http, &self.org.url, "counts").await;
        counts["calls"][kind].as_u64().unwrap_or_default()
    }
}

fn selection(object: &str, fields: &[&str]) -> Selection {
    Selection {
        object: object.into(),
        fields: fields.iter().map(FieldName::new).collect(),
    }
}

fn accounts() -> Selection {
    selection("Account", &FIELDS)
}

async fn read(crm: &Salesforce, resume: Option<&str>) -> Result<Vec<Page>, Fault> {
    let mut pages = crm.read_all(&accounts(), resume).await?;
    let mut found = Vec::new();
    while let Some(page) = pages.next().await? {
        found.push(page);
    }
    Ok(found)
}

/// The rows by id; every one once.
fn rows(pages: &[Page]) -> Vec<Row> {
    let mut rows: Vec<Row> = pages.iter().flat_map(|page| page.rows.clone()).collect();
    rows.sort_by(|a, b| a.record.cmp(&b.record));
    let all = rows.len();
    rows.dedup_by(|a, b| a.record == b.record);
    assert_eq!(rows.len(), all, "a row came twice");
    rows
}

fn same(found: &[Row], expected: &[Row]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
}

/// A token as its place: the rows of the page that were given.
fn skip(token: &str) -> u64 {
    let place: Json = serde_json::from_str(token).unwrap();
    place["skip"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_rows_are_those_of_rest() {
    let world = World::new(2_500).await;
    let expected = rows(&read(&world.crm(None), None).await.unwrap());
    assert_eq!(expected.len(), 2_500);
    assert_eq!(world.calls("POST jobs/query").await, 0);
    for when in ["asked", "always", "never"] {
        world
            .fault(json!({"do": {"kind": "bulk_gzip", "when": when}}))
            .await;
        let pages = read(&world.crm(Some(1)), None).await.unwrap();
        same(&rows(&pages), &expected);
        assert!(pages[0].rows.is_empty() && pages[0].resume.is_some());
        assert!(pages.iter().all(|page| page.as_of == pages[0].as_of));
        let last = pages.last().unwrap();
        assert_eq!((last.total, &last.resume), (Some(2_500), &None));
    }
    assert_eq!(world.calls("POST jobs/query").await, 3);
    assert_eq!(
        world.calls("DELETE jobs/query/{job}").await,
        3,
        "a job that is read is deleted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_goes_on_at_every_place() {
    let world = World::new(2_500).await;
    let expected = rows(&read(&world.crm(None), None).await.unwrap());
    let crm = world.crm(Some(1));
    // The tokens of a job that is not read to its end: the end deletes it.
    let mut pages = crm.read_all(&accounts(), None).await.unwrap();
    let (mut before, mut tokens) = (Vec::<Page>::new(), Vec::new());
    loop {
        let page = pages.next().await.unwrap().unwrap();
        let resume = page.resume.clone();
        before.push(page);
        match resume {
            Some(resume) => tokens.push((before.clone(), resume)),
            None => break,
        }
    }
    drop(pages);
    assert!(
        tokens.iter().any(|(_, token)| skip(token) > 0),
        "no place lies within a page of results"
    );
    assert!(tokens.len() > 4);
    for (mut before, token) in tokens {
        let mut pages = world
            .crm(Some(1))
            .read_all(&accounts(), Some(&token))
            .await
            .unwrap();
        loop {
            let page = pages.next().await.unwrap().unwrap();
            let is_last = page.resume.is_none();
            before.push(page);
            if is_last {
                break;
            }
        }
        assert!(before.iter().all(|page| page.as_of == before[0].as_of));
        same(&rows(&before), &expected);
    }
    assert_eq!(
        world.calls("POST jobs/query").await,
        1,
        "one job served all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn small_and_unsupported_objects_are_read_over_rest() {
    let world = World::new(30).await;
    assert_eq!(
        rows(&read(&world.crm(Some(31)), None).await.unwrap()).len(),
        30
    );
    assert_eq!(world.calls("POST jobs/query").await, 0);
    assert_eq!(
        rows(&read(&world.crm(Some(30)), None).await.unwrap()).len(),
        30
    );
    assert_eq!(world.calls("POST jobs/query").await, 1);

    let crm = world.crm(Some(1));
    world
        .fault(json!({"do": {"kind": "bulk_refuse", "object": "Account"}}))
        .await;
    for _ in 0..2 {
        assert_eq!(rows(&read(&crm, None).await.unwrap()).len(), 30);
    }
    assert_eq!(world.calls("POST jobs/query").await, 2, "it is asked once");
    let url = format!("{}/_sim/faults", world.org.url);
    let cleared = world.http.delete(url).send().await.unwrap();
    assert!(cleared.status().is_success());

    // A job that fails for the same reason.
    let crm = world.crm(Some(1));
    let message = "Entity 'Account' is not supported by the Bulk API.";
    world
        .fault(json!({"do": {"kind": "bulk_fail", "message": message}}))
        .await;
    assert_eq!(
        read(&crm, None).await.unwrap_err().kind(),
        FaultKind::Unavailable
    );
    assert_eq!(rows(&read(&crm, None).await.unwrap()).len(), 30);
    assert_eq!(world.calls("POST jobs/query").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rows_have_a_heading_or_no_body() {
    let world = World::new(0).await;
    for script in [
        json!({"do": {"kind": "bulk_gzip", "when": "asked"}}),
        json!({"do": {"kind": "bulk_empty_body"}}),
    ] {
        world.fault(script).await;
        let pages = read(&world.crm(Some(1)), None).await.unwrap();
        assert!(rows(&pages).is_empty());
        assert_eq!(pages.last().unwrap().total, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_job_is_waited_for_and_its_rows_are_of_its_beginning() {
    let world = World::new(30).await;
    world
        .fault(json!({"do": {"kind": "bulk_delay", "seconds": 3}}))
        .await;
    let crm = world.crm(Some(1));
    let mut pages = crm.read_all(&accounts(), None).await.unwrap();
    let first = pages.next().await.unwrap().unwrap();
    let rename = json!({"transactions": [{"ops": [
        {"op": "update", "object": "Account", "id": "001A00000000001", "fields": {"Name": "Later"}}
    ]}]});
    world.control("transactions", rename).await;
    let second = pages.next().await.unwrap().unwrap();
    assert_eq!(second.rows.len(), 30);
    assert_eq!(first.as_of, second.as_of);
    assert!(second.as_of <= crm.clock().await.unwrap() - chrono::TimeDelta::seconds(2));
    assert!(
        second
            .rows
            .iter()
            .all(|row| row.fields["Name"].as_text() != Some("Later"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_gives_nothing_begins_anew_and_says_so() {
    let world = World::new(30).await;
    let crm = world.crm(Some(1));
    let begin = || async {
        let mut pages = crm.read_all(&accounts(), None).await.unwrap();
        let first = pages.next().await.unwrap().unwrap();
        (pages, first.resume.unwrap())
    };

    let (mut pages, token) = begin().await;
    world.fault(json!({"do": {"kind": "bulk_forget"}})).await;
    assert_eq!(
        pages.next().await.unwrap_err().kind(),
        FaultKind::Unavailable
    );
    let fault = read(&crm, Some(&token)).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::PositionLost, "{}", fault.report());

    let message = "Query is too complicated";
    world
        .fault(json!({"do": {"kind": "bulk_fail", "message": message}}))
        .await;
    let (mut pages, token) = begin().await;
    let fault = pages.next().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Unavailable);
    assert!(fault.report().contains(message), "{}", fault.report());
    let fault = read(&crm, Some(&token)).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::PositionLost);

    // The org no longer takes a place in the results: the job is given up, not asked for ever.
    let (mut pages, token) = begin().await;
    world
        .fault(json!({
            "on": {"surface": "bulk", "method": "GET"}, "after": 1,
            "do": {"kind": "status", "status": 400, "code": "INVALIDLOCATOR", "message": "The locator is not valid"}
        }))
        .await;
    assert_eq!(
        pages.next().await.unwrap_err().kind(),
        FaultKind::Unavailable
    );
    let fault = read(&crm, Some(&token)).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::PositionLost);
    assert_eq!(rows(&read(&crm, None).await.unwrap()).len(), 30);

    // The day's jobs are spent: REST would spend the day's calls.
    world
        .fault(json!({
            "on": {"surface": "bulk", "method": "POST"},
            "do": {"kind": "status", "status": 400, "code": "LIMIT_EXCEEDED", "message": "Max bulk v2 query jobs"}
        }))
        .await;
    let fault = read(&crm, None).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Throttled);
    assert!(fault.wait_hint().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_on_the_way_lose_no_row() {
    let world = World::new(2_500).await;
    let expected = rows(&read(&world.crm(None), None).await.unwrap());
    // The second and third call for results: one look at the job comes before.
    for (after, script) in [
        (2, json!({"kind": "status", "status": 503})),
        (
            2,
            json!({"kind": "status", "status": 429, "retry_after": 7}),
        ),
        (2, json!({"kind": "cut"})),
        (3, json!({"kind": "lost_reply"})),
        (0, json!({"kind": "status", "status": 500})),
    ] {
        let mut pages = world
            .crm(Some(1))
            .read_all(&accounts(), None)
            .await
            .unwrap();
        let on = json!({"surface": "bulk", "method": "GET"});
        world
            .fault(json!({"on": on, "after": after, "do": script}))
            .await;
        let mut found = Vec::new();
        let fault = loop {
            match pages.next().await {
                Ok(page) => found.push(page.expect("the fault came")),
                Err(fault) => break fault,
            }
        };
        assert!(
            matches!(fault.kind(), FaultKind::Unavailable | FaultKind::Throttled),
            "{}",
            fault.report()
        );
        let token = found.last().unwrap().resume.clone().unwrap();
        found.extend(read(&world.crm(Some(1)), Some(&token)).await.unwrap());
        same(&rows(&found), &expected);
    }
    // A dead token is renewed in the middle.
    let mut pages = world
        .crm(Some(1))
        .read_all(&accounts(), None)
        .await
        .unwrap();
    let on = json!({"surface": "bulk", "method": "GET"});
    let end = json!({"kind": "expire_tokens", "when": "before"});
    world.fault(json!({"on": on, "after": 2, "do": end})).await;
    let mut found = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        found.push(page);
    }
    same(&rows(&found), &expected);
}

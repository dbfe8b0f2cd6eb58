//! Filters against an org's own engine: what `where` takes here, the org takes when it is asked in SOQL; both as the
//! filter is written and as it is pushed down.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use serde_json::Value as Json;
use tributary::crm::port::{Crm, Selection};
use tributary::crm::salesforce::Salesforce;
use tributary::crm::salesforce::settings::SalesforceSettings;
use tributary::fault::Fault;
use tributary::mapping::filter::parse;
use tributary::mapping::filter::push::{Column, Language};
use tributary::model::event::Row;
use tributary::model::name::FieldName;
use tributary::model::schema::FieldKind;
use tributary::runtime::clock::SystemClock;
use tributary::secret::Secret;
use tributary::telemetry::metrics::Metrics;
use tributary_sim::salesforce::{Running, SimOptions, start};

const FIELDS: [&str; 8] = [
    "Name",
    "Industry",
    "AnnualRevenue",
    "NumberOfEmployees",
    "Good__c",
    "Renewal__c",
    "Seen__c",
    "Owner.Email",
];

/// Tests that an org takes as they stand here.
const TESTS: [&str; 30] = [
    "Name = 'Acme 1'",
    "Name != 'ACME 2'",
    "Name LIKE 'acme 1%'",
    "Name LIKE '%e_3%'",
    "Name LIKE '%\\_%'",
    "Name IN ('Acme 1', 'acme 10', 'x')",
    "Name NOT IN ('Acme 1', 'acme 10')",
    "Industry = null",
    "Industry != null",
    "Industry = 'energy'",
    "Industry != 'Energy'",
    "Industry IN ('Energy', null)",
    "Industry LIKE 'o\\'%'",
    "AnnualRevenue > 10.50",
    "AnnualRevenue <= 10.5",
    "AnnualRevenue = null",
    "AnnualRevenue != 0",
    "NumberOfEmployees >= 7",
    "NumberOfEmployees IN (1, 3, 5)",
    "NumberOfEmployees NOT IN (1, 3, 5)",
    "Good__c = true",
    "Good__c != true",
    "Renewal__c = 2026-01-15",
    "Renewal__c > 2026-01-15",
    "Renewal__c <= 2026-02-01",
    "Renewal__c != null",
    "Seen__c >= 2026-01-15T10:00:00Z",
    "Seen__c < 2026-01-15T12:00:00+01:00",
    "Owner.Email = 'UMA@a.example'",
    "Owner.Email != 'uma@a.example'",
];

/// Those that only what is pushed down says in an org's words.
const OWN_TESTS: [&str; 6] = [
    "Seen__c = 2026-01-15",
    "Seen__c != TODAY",
    "Renewal__c = THIS_MONTH",
    "Renewal__c < LAST_N_DAYS:3",
    "Seen__c > YESTERDAY",
    "Renewal__c = LAST_QUARTER",
];

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 15, 10, 0, 0).unwrap()
}

async fn org() -> (Running, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let mut csv =
        "Id,Name,Industry,AnnualRevenue,NumberOfEmployees,Good__c,Renewal__c,Seen__c,OwnerId\n"
            .to_owned();
    let pick = |list: &[&str], at: usize| list[at % list.len()].to_owned();
    for number in 0..60_usize {
        csv.push_str(&format!(
            "001A{number:011},{} {number},{},{},{},{},{},{},005A0000000000{}\n",
            pick(&["Acme", "ACME", "Ac_me", "Other"], number),
            pick(&["Energy", "", "energy", "O'Neill", "Banking"], number),
            pick(&["10.50", "", "0", "10.49", "1000000", "-3"], number / 2),
            pick(&["1", "7", "", "3", "100"], number / 3),
            pick(&["true", "false", "false"], number),
            pick(
                &[
                    "2026-01-15",
                    "",
                    "2026-01-14",
                    "2026-02-01",
                    "2025-11-30",
                    "2025-10-01"
                ],
                number / 2
            ),
            pick(
                &[
                    "2026-01-15T10:00:00Z",
                    "2026-01-14T23:59:59Z",
                    "",
                    "2026-01-15T00:00:00Z",
                    "2026-01-15T23:59:59Z",
                    "2026-01-16T00:00:00Z"
                ],
                number / 5
            ),
            number % 2 + 1,
        ));
    }
    std::fs::write(data.path().join("Account.csv"), csv).unwrap();
    let users =
        "Id,Name,Email\n005A00000000001,Uma,uma@a.example\n005A00000000002,Ulf,ulf@a.example\n";
    std::fs::write(data.path().join("User.csv"), users).unwrap();
    let options = SimOptions {
        data: Some(data.path().to_owned()),
        ..SimOptions::default()
    };
    (start(options).await.unwrap(), data)
}

async fn images(org: &Running) -> Vec<Row> {
    let secret = Arc::new(|| Ok::<_, Fault>(Secret::new("simulated-secret")));
    let mut settings = SalesforceSettings::new("acme".into(), &org.url, "simulated-client", secret);
    settings.plain_text = true;
    settings.read_lag = Duration::ZERO;
    let crm = Salesforce::new(settings, Metrics::none(), Arc::new(SystemClock)).unwrap();
    let selection = Selection {
        object: "Account".into(),
        fields: FIELDS.iter().map(FieldName::new).collect(),
    };
    let mut pages = crm.read_all(&selection, None).await.unwrap();
    let mut rows = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        rows.extend(page.rows);
    }
    rows
}

struct Asker {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Asker {
    async fn new(org: &Running) -> Self {
        let http = reqwest::Client::new();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", "simulated-client"),
            ("client_secret", "simulated-secret"),
        ];
        let url = format!("{}/services/oauth2/token", org.url);
        let body: Vec<String> = form
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let answer = http
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.join("&"))
            .send()
            .await
            .unwrap();
        let answer: Json = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        Self {
            http,
            url: org.url.clone(),
            token: answer["access_token"].as_str().unwrap().to_owned(),
        }
    }

    async fn ids(&self, condition: &str) -> BTreeSet<String> {
        let query = format!("SELECT Id FROM Account WHERE {condition}");
        let encoded: String = query
            .bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect();
        let url = format!("{}/services/data/v66.0/query?q={encoded}", self.url);
        let answer = self
            .http
            .get(url)
            .bearer_auth(&self.token)
            .send()
            .await
            .unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{condition}: {text}");
        let answer: Json = serde_json::from_str(&text).unwrap();
        let records = answer["records"].as_array().unwrap();
        records
            .iter()
            .map(|record| record["Id"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn column(name: &FieldName) -> Option<Column> {
    let kind = match name.as_str() {
        "AnnualRevenue" => FieldKind::Decimal,
        "NumberOfEmployees" => FieldKind::Integer,
        "Good__c" => FieldKind::Boolean,
        "Renewal__c" => FieldKind::Date,
        "Seen__c" => FieldKind::DateTime,
        _ => FieldKind::Text,
    };
    Some(Column {
        name: name.as_str().to_owned(),
        kind,
    })
}

fn passing(filter: &str, rows: &[Row]) -> BTreeSet<String> {
    let parsed = parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    let passes = rows
        .iter()
        .filter(|row| parsed.matches(&row.fields, now()).unwrap());
    passes.map(|row| row.record.as_str().to_owned()).collect()
}

/// A reproducible row of choices.
struct Choices(u64);

impl Choices {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % count
    }

    fn filter(&mut self, tests: &[&str], depth: usize) -> String {
        let count = self.below(2) + 2;
        match self.below(if depth == 0 { 1 } else { 4 }) {
            0 => tests[self.below(tests.len())].to_owned(),
            1 => format!("(NOT {})", self.filter(tests, depth - 1)),
            kind => {
                let terms: Vec<String> =
                    (0..count).map(|_| self.filter(tests, depth - 1)).collect();
                format!("({})", terms.join(if kind == 2 { " AND " } else { " OR " }))
            }
        }
    }
}

#[tokio::test]
async fn an_org_and_this_agree() {
    let (org, _data) = org().await;
    let rows = images(&org).await;
    assert_eq!(rows.len(), 60);
    let asker = Asker::new(&org).await;
    let all: Vec<&str> = TESTS.into_iter().chain(OWN_TESTS).collect();
    let mut choices = Choices(42);
    let mut filters: Vec<(String, bool)> = TESTS
        .iter()
        .map(|test| ((*test).to_owned(), true))
        .collect();
    filters.extend(OWN_TESTS.iter().map(|test| ((*test).to_owned(), false)));
    filters.extend((0..150).map(|_| (choices.filter(&TESTS, 3), true)));
    filters.extend((0..150).map(|_| (choices.filter(&all, 3), false)));
    let mut telling = 0;
    for (filter, as_written) in filters {
        let expected = passing(&filter, &rows);
        telling += usize::from(!expected.is_empty() && expected.len() < rows.len());
        if as_written {
            assert_eq!(asker.ids(&filter).await, expected, "{filter}");
        }
        let parsed = parse(&filter).unwrap();
        let pushed = parsed.push_down(Language::Soql, now(), &column).unwrap();
        assert_eq!(asker.ids(&pushed).await, expected, "{filter} asks {pushed}");
    }
    assert!(telling > 200, "only {telling} filters tell records apart");
}

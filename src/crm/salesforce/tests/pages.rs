//! Reads over pages: no row lost, none endlessly repeated, whatever happens to the cursor.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{TimeDelta, TimeZone};
use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};
use serde_json::{Value as Json, json};

use crate::http::tests::server::{Reply, Seen};
use crate::model::event::Page;

use super::org::{Org, below};
use super::*;

/// A table that answers the queries of a read over pages, by key order and with cursors.
#[derive(Default)]
struct Table {
    /// Id and stamp in seconds.
    rows: Vec<(RecordId, Option<i64>)>,
    page: usize,
    /// Fields of every row beside id and stamp.
    fields: Vec<String>,
    /// Where each cursor stands: rows left.
    cursors: Vec<Vec<(RecordId, Option<i64>)>>,
    /// Every cursor of a number up to this is stale.
    stale: usize,
    /// Rows that are gone for reads by id.
    gone: Vec<RecordId>,
    queries: Vec<String>,
}

fn stamp_text(seconds: i64) -> String {
    let at = Utc.timestamp_opt(1_700_000_000 + seconds, 0).unwrap();
    at.format("%Y-%m-%dT%H:%M:%S.000+0000").to_string()
}

impl Table {
    fn row(&self, (id, stamp): &(RecordId, Option<i64>), text: &str) -> Json {
        let mut row = json!({
            "attributes": {"type": "Account"}, "Id": id, "SystemModstamp": stamp.map(stamp_text)
        });
        for field in &self.fields {
            // Only what was asked.
            if text.contains(&format!("{field},")) || text.contains(&format!("{field} ")) {
                row[field] = json!(format!("{field} of {id}"));
            }
        }
        row
    }

    fn query(&mut self, text: &str) -> Reply {
        self.queries.push(text.to_owned());
        assert!(text.ends_with(" ORDER BY SystemModstamp, Id"), "{text}");
        let mut rows = self.rows.clone();
        rows.sort_by_key(|(id, stamp)| (*stamp, id.clone()));
        if let Some(after) = after(text) {
            rows.retain(|(id, stamp)| (*stamp, id) > (after.0, &after.1));
        }
        let total = rows.len();
        self.answer(rows, total, text)
    }

    fn answer(
        &mut self,
        mut rows: Vec<(RecordId, Option<i64>)>,
        total: usize,
        text: &str,
    ) -> Reply {
        let rest = rows.split_off(rows.len().min(self.page));
        let records: Vec<_> = rows.iter().map(|row| self.row(row, text)).collect();
        if rest.is_empty() {
            return Reply::json(&json!({"totalSize": total, "done": true, "records": records}));
        }
        self.cursors.push(rest);
        let next = format!("/services/data/v66.0/query/01g-{}", self.cursors.len());
        Reply::json(
            &json!({"totalSize": total, "done": false, "nextRecordsUrl": next, "records": records}),
        )
    }

    fn follow(&mut self, number: usize) -> Reply {
        if number <= self.stale {
            return Reply::error(400, "INVALID_QUERY_LOCATOR", "invalid query locator");
        }
        let rows = self.cursors[number - 1].clone();
        let text = self.queries.last().unwrap().clone();
        self.answer(rows, self.rows.len(), &text)
    }

    fn collection(&self, ask: &Json) -> Reply {
        let asked = format!(
            "{},",
            ask["fields"]
                .to_string()
                .replace(['"', '[', ']'], " ")
                .replace(" ,", ",")
        );
        let rows: Vec<Json> = ask["ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| {
                let row = self.rows.iter().find(|row| row.0.as_str() == id);
                match row.filter(|row| !self.gone.contains(&row.0)) {
                    Some(row) => self.row(row, &asked),
                    None => Json::Null,
                }
            })
            .collect();
        Reply::json(&json!(rows))
    }
}

/// The key that a condition starts after.
fn after(text: &str) -> Option<(Option<i64>, RecordId)> {
    let (_, rest) = text.split_once("Id > '")?;
    let id = RecordId::salesforce(rest.split('\'').next().unwrap()).unwrap();
    let stamp = text.split_once("(SystemModstamp > ").map(|(_, rest)| {
        let text = rest.split(' ').next().unwrap();
        DateTime::parse_from_rfc3339(text).unwrap().timestamp() - 1_700_000_000
    });
    if stamp.is_none() {
        assert!(
            text.contains("SystemModstamp != null OR (SystemModstamp = null"),
            "{text}"
        );
    }
    Some((stamp, id))
}

struct Fixture {
    org: Org,
    table: Arc<Mutex<Table>>,
}

impl Fixture {
    async fn new(rows: Vec<(RecordId, Option<i64>)>, fields: Vec<String>) -> Self {
        let table = Arc::new(Mutex::new(Table {
            rows,
            page: 3,
            fields: fields.clone(),
            ..Table::default()
        }));
        let shared = Arc::clone(&table);
        let org = Org::start(move |seen: Seen| {
            let (table, fields) = (Arc::clone(&shared), fields.clone());
            async move {
                let mut table = table.lock().unwrap();
                match below(&seen) {
                    "/query" => table.query(&seen.query["q"]),
                    "/composite/sobjects/Account" => table.collection(&seen.json()),
                    path if path.starts_with("/query/01g-") => {
                        table.follow(path.trim_start_matches("/query/01g-").parse().unwrap())
                    }
                    _ => {
                        let mut all = vec![("Id", "id"), ("SystemModstamp", "datetime")];
                        all.extend(fields.iter().map(|field| (field.as_str(), "string")));
                        super::org::describe("Account", &all)
                    }
                }
            }
        })
        .await;
        Self { org, table }
    }

    fn selection(&self) -> Selection {
        let fields = self.table.lock().unwrap().fields.clone();
        let names: Vec<&str> = fields.iter().map(String::as_str).collect();
        selection("Account", &names)
    }
}

fn same_second(count: usize) -> Vec<(RecordId, Option<i64>)> {
    (0..count).map(|number| (id(number), Some(0))).collect()
}

async fn all(crm: &Salesforce, selection: &Selection, resume: Option<&str>) -> Vec<Page> {
    let mut pages = crm.read_all(selection, resume).await.unwrap();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        found.push(page);
    }
    assert!(pages.next().await.unwrap().is_none());
    found
}

fn ids(pages: &[Page]) -> Vec<RecordId> {
    pages
        .iter()
        .flat_map(|page| page.rows.iter().map(|row| row.record.clone()))
        .collect()
}

#[tokio::test]
async fn rows_of_one_second_come_once_each() {
    let fixture = Fixture::new(same_second(10), vec!["Name".into()]).await;
    let pages = all(&fixture.org.connector(), &fixture.selection(), None).await;
    assert_eq!(ids(&pages), (0..10).map(id).collect::<Vec<_>>());
    assert_eq!(pages.len(), 4);
    assert!(pages.iter().all(|page| page.total == Some(10)));
    assert!(pages.iter().all(|page| page.as_of == pages[0].as_of));
    assert!(pages[..3].iter().all(|page| page.resume.is_some()));
    assert_eq!(pages[3].resume, None);
    let row = &pages[0].rows[0];
    assert_eq!(
        row.fields["Name"].as_text(),
        Some(format!("Name of {}", id(0)).as_str())
    );
    assert!(!row.fields.contains_key("SystemModstamp"), "not selected");
    assert_eq!(
        row.modified_at,
        Utc.timestamp_opt(1_700_000_000, 0).single()
    );
}

#[tokio::test]
async fn a_page_is_as_of_the_querys_beginning() {
    let fixture = Fixture::new(same_second(10), vec!["Name".into()]).await;
    let crm = fixture
        .org
        .with(|settings| settings.read_lag = Duration::from_secs(7));
    let before = Utc::now();
    let pages = all(&crm, &fixture.selection(), None).await;
    let lag = TimeDelta::seconds(7);
    assert!(pages[0].as_of <= Utc::now() - lag);
    // A date is cut to whole seconds.
    assert!(pages[0].as_of > before - lag - TimeDelta::seconds(3));
}

#[tokio::test]
async fn an_empty_object_is_one_empty_page() {
    let fixture = Fixture::new(Vec::new(), vec!["Name".into()]).await;
    let pages = all(&fixture.org.connector(), &fixture.selection(), None).await;
    assert_eq!(pages.len(), 1);
    assert_eq!(pages[0].total, Some(0));
    assert_eq!(pages[0].resume, None);
}

#[tokio::test]
async fn a_stale_cursor_goes_on_by_key() {
    let fixture = Fixture::new(same_second(10), vec!["Name".into()]).await;
    let crm = fixture.org.connector();
    let mut pages = crm.read_all(&fixture.selection(), None).await.unwrap();
    let mut found = Vec::new();
    found.push(pages.next().await.unwrap().unwrap());
    found.push(pages.next().await.unwrap().unwrap());
    fixture.table.lock().unwrap().stale = 2;
    while let Some(page) = pages.next().await.unwrap() {
        found.push(page);
    }
    assert_eq!(ids(&found), (0..10).map(id).collect::<Vec<_>>());
    assert!(
        found
            .iter()
            .all(|page| page.total == Some(10) && page.as_of == found[0].as_of)
    );
    assert_eq!(fixture.table.lock().unwrap().queries.len(), 2);
}

#[tokio::test]
async fn a_page_that_failed_is_read_again() {
    let fixture = Fixture::new(same_second(7), vec!["Name".into()]).await;
    let crm = fixture.org.connector();
    let mut pages = crm.read_all(&fixture.selection(), None).await.unwrap();
    let first = pages.next().await.unwrap().unwrap();
    fixture.org.inner.end_sessions();
    let broken = Reply::new(503, "<html>");
    fixture.org.inner.refusals.lock().unwrap().push(broken);
    assert_eq!(
        pages.next().await.unwrap_err().kind(),
        FaultKind::Unavailable
    );
    let mut found = vec![first];
    while let Some(page) = pages.next().await.unwrap() {
        found.push(page);
    }
    assert_eq!(ids(&found), (0..7).map(id).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_text_that_is_no_resume_begins_again() {
    let fixture = Fixture::new(same_second(4), vec!["Name".into()]).await;
    let crm = fixture.org.connector();
    for odd in [
        "",
        "{}",
        r#"{"by":"CreatedDate","after":{"stamp":null,"id":"001A0000006Vm9uIAC"},"rows":1}"#,
        r#"{"by":"SystemModstamp","after":{"stamp":"x OR Id != null","id":"001A0000006Vm9uIAC"},"rows":1}"#,
        r#"{"by":"SystemModstamp","after":{"stamp":null,"id":"x' OR Id != '"},"rows":1}"#,
    ] {
        assert_eq!(
            ids(&all(&crm, &fixture.selection(), Some(odd)).await).len(),
            4,
            "{odd}"
        );
    }
}

#[tokio::test]
async fn long_selections_are_split_and_joined() {
    let fields: Vec<String> = (0..600)
        .map(|n| format!("Field_With_A_Long_Name_{n:04}__c"))
        .collect();
    let fixture = Fixture::new(same_second(7), fields).await;
    fixture.table.lock().unwrap().gone = vec![id(1)];
    let pages = all(&fixture.org.connector(), &fixture.selection(), None).await;
    let expected: Vec<_> = [0, 2, 3, 4, 5, 6].into_iter().map(id).collect();
    assert_eq!(
        ids(&pages),
        expected,
        "a row that is gone between the parts is left out"
    );
    for row in pages.iter().flat_map(|page| &page.rows) {
        assert_eq!(row.fields.len(), 600);
        for (name, value) in &row.fields {
            assert_eq!(
                value.as_text(),
                Some(format!("{name} of {}", row.record).as_str())
            );
        }
    }
    assert_eq!(pages.last().unwrap().total, Some(6));
    for seen in fixture.org.server.seen() {
        let text = seen.query.get("q").cloned().unwrap_or_default();
        assert!(text.len() < 12_000, "{} characters", text.len());
    }
}

#[tokio::test]
async fn a_window_has_its_bounds() {
    let fixture = Fixture::new(same_second(4), vec!["Name".into()]).await;
    let crm = fixture.org.connector();
    let from = Utc.timestamp_opt(1_700_000_000, 0).unwrap();
    let selection = fixture.selection();
    let mut pages = crm
        .read_window(&selection, from, from + TimeDelta::minutes(1))
        .await
        .unwrap();
    let page = pages.next().await.unwrap().unwrap();
    assert_eq!(page.resume, None);
    let queries = fixture.table.lock().unwrap().queries.clone();
    assert_eq!(
        queries[0],
        "SELECT Id,SystemModstamp,Name FROM Account WHERE SystemModstamp >= 2023-11-14T22:13:20.000Z AND \
         SystemModstamp < 2023-11-14T22:14:20.000Z ORDER BY SystemModstamp, Id"
    );
}

#[tokio::test]
async fn a_last_page_without_an_end_is_no_answer() {
    let org = Org::start(|seen: Seen| async move {
        match below(&seen) {
            "/query" => Reply::json(&json!({"totalSize": 5, "done": false, "records": []})),
            _ => super::org::account(),
        }
    })
    .await;
    let crm = org.connector();
    let mut pages = crm
        .read_all(&selection("Account", &["Name"]), None)
        .await
        .unwrap();
    assert_eq!(pages.next().await.unwrap_err().kind(), FaultKind::Protocol);
}

#[tokio::test]
async fn a_cursor_that_leads_elsewhere_is_not_followed() {
    for elsewhere in [
        "https://evil.example/query/1",
        "//evil.example/1",
        "query/1",
    ] {
        let org = Org::start(move |seen: Seen| async move {
            match below(&seen) {
                "/query" => Reply::json(&json!({
                    "totalSize": 5, "done": false, "nextRecordsUrl": elsewhere,
                    "records": [{"Id": id(1), "SystemModstamp": null}]
                })),
                _ => super::org::account(),
            }
        })
        .await;
        let crm = org.connector();
        let mut pages = crm
            .read_all(&selection("Account", &["Name"]), None)
            .await
            .unwrap();
        pages.next().await.unwrap();
        assert_eq!(pages.next().await.unwrap_err().kind(), FaultKind::Protocol);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the stamps, wherever the read stops and goes on in a new process: each row once, in key order.
    #[test]
    fn a_read_that_is_resumed_loses_and_repeats_nothing(
        stamps in proptest::collection::vec(proptest::option::of(0_i64..3), 0..20),
        stops in proptest::collection::vec(1_usize..4, 0..4),
    ) {
        let rows: Vec<_> = stamps.iter().enumerate().map(|(n, stamp)| (id(n), *stamp)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (found, total) = runtime.block_on(async {
            let fixture = Fixture::new(rows.clone(), vec!["Name".into()]).await;
            let selection = fixture.selection();
            let mut found = Vec::new();
            let mut resume: Option<String> = None;
            for stop in stops {
                let crm = fixture.org.connector();
                let mut pages = crm.read_all(&selection, resume.as_deref()).await.unwrap();
                for _ in 0..stop {
                    let page = pages.next().await.unwrap().unwrap();
                    resume.clone_from(&page.resume);
                    found.push(page);
                    if resume.is_none() {
                        return (ids(&found), found.last().unwrap().total);
                    }
                }
            }
            found.extend(all(&fixture.org.connector(), &selection, resume.as_deref()).await);
            (ids(&found), found.last().unwrap().total)
        });
        let mut expected = rows;
        expected.sort_by_key(|(id, stamp)| (*stamp, id.clone()));
        prop_assert_eq!(total, Some(expected.len() as u64));
        prop_assert_eq!(found, expected.into_iter().map(|(id, _)| id).collect::<Vec<_>>());
    }
}

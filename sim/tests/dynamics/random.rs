//! Random writes: a full read and all changes behind it give the organization's rows, whatever the page size.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::TestOrg;

#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Update(usize, u8),
    Delete(usize),
    /// An upsert under an id that may have been deleted.
    Upsert(usize, u8),
    Bulk(Vec<u8>),
    /// The reader asks for its next page.
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => any::<u8>().prop_map(Step::Create),
        3 => (any::<usize>(), any::<u8>()).prop_map(|(row, value)| Step::Update(row, value)),
        2 => any::<usize>().prop_map(Step::Delete),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(row, value)| Step::Upsert(row, value)),
        1 => proptest::collection::vec(any::<u8>(), 1..4).prop_map(Step::Bulk),
        4 => Just(Step::Read),
    ];
    proptest::collection::vec(step, 1..40)
}

/// A reader that follows links one page at a time.
struct Reader {
    next: String,
    prefer: String,
    rows: BTreeMap<String, Value>,
    /// Links to changes that it came by.
    deltas: usize,
}

impl Reader {
    async fn page(&mut self, org: &TestOrg) {
        let page = org.prefer(&self.next, &self.prefer).await.expect(200);
        for row in page.rows() {
            match row["reason"].as_str() {
                Some(_) => drop(self.rows.remove(row["id"].as_str().unwrap())),
                None => drop(self.rows.insert(
                    row["accountid"].as_str().unwrap().to_owned(),
                    row["name"].clone(),
                )),
            }
        }
        if let Some(link) = page.link("deltaLink") {
            self.deltas += 1;
            link.clone_into(&mut self.next);
        } else {
            page.link("nextLink").unwrap().clone_into(&mut self.next);
        }
    }
}

async fn play(org: &TestOrg, steps: &[Step], size: usize) {
    let mut reader = Reader {
        next: "accounts?$select=name".to_owned(),
        prefer: format!("odata.track-changes,odata.maxpagesize={size}"),
        rows: BTreeMap::new(),
        deltas: 0,
    };
    let mut ids: Vec<String> = org
        .get("accounts?$select=accountid")
        .await
        .rows()
        .iter()
        .map(|row| row["accountid"].as_str().unwrap().to_owned())
        .collect();
    for step in steps {
        match step {
            Step::Create(value) => ids.push(
                org.create("accounts", json!({"name": value.to_string()}))
                    .await,
            ),
            Step::Update(row, value) => {
                let answer = org
                    .patch(
                        &format!("accounts({})", ids[row % ids.len()]),
                        json!({"name": value.to_string()}),
                    )
                    .await;
                assert!(matches!(answer.status.as_u16(), 204 | 404));
            }
            Step::Delete(row) => {
                let answer = org
                    .delete(&format!("accounts({})", ids[row % ids.len()]))
                    .await;
                assert!(matches!(answer.status.as_u16(), 204 | 404));
            }
            Step::Upsert(row, value) => {
                let request = org.request(
                    Method::PATCH,
                    &format!("accounts({})", ids[row % ids.len()]),
                );
                org.send(request.json(&json!({"name": value.to_string()})))
                    .await
                    .expect(204);
            }
            Step::Bulk(values) => {
                let targets: Vec<_> = values.iter().map(|value| json!({"@odata.type": "Microsoft.Dynamics.CRM.account", "name": value.to_string()})).collect();
                let answer = org
                    .post(
                        "accounts/Microsoft.Dynamics.CRM.CreateMultiple",
                        json!({"Targets": targets}),
                    )
                    .await
                    .expect(200);
                ids.extend(
                    answer.body["Ids"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|id| id.as_str().unwrap().to_owned()),
                );
            }
            Step::Read => reader.page(org).await,
        }
    }
    // What is under way began before the last writes: one whole delta more holds them.
    let wanted = reader.deltas + 2;
    while reader.deltas < wanted {
        reader.page(org).await;
    }
    let truth: BTreeMap<_, _> = org
        .get("accounts?$select=name")
        .await
        .rows()
        .iter()
        .map(|row| {
            (
                row["accountid"].as_str().unwrap().to_owned(),
                row["name"].clone(),
            )
        })
        .collect();
    assert_eq!(reader.rows, truth);
}

#[test]
fn a_full_read_and_its_changes_give_the_rows() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let org = runtime.block_on(TestOrg::start());
    let config = Config {
        cases: 60,
        failure_persistence: None,
        ..Config::default()
    };
    // The cases share the organization: a case begins with the rows that the last one left.
    runtime.block_on(org.control(
        "limits",
        json!({"requests": 10_000_000, "execution_ms": 1_000_000_000}),
    ));
    TestRunner::new(config)
        .run(&(steps(), 1_usize..5), |(steps, size)| {
            runtime.block_on(play(&org, &steps, size));
            Ok(())
        })
        .unwrap();
}

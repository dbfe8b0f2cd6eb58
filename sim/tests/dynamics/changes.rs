//! Change tracking: the first read, deltas, tombstones, refusals, expiry.

use serde_json::{Value, json};

use crate::harness::{Answer, EXAMPLE, OTHER, THIRD, TestOrg};

const TRACK: &str = "odata.track-changes";

/// Follows the pages of a read; the rows, the last link, and how many pages there were.
pub async fn follow(org: &TestOrg, path: &str, prefer: &str) -> (Vec<Value>, String, usize) {
    let (mut rows, mut pages, mut next) = (Vec::new(), 0, path.to_owned());
    loop {
        let page = org.prefer(&next, prefer).await.expect(200);
        pages += 1;
        rows.extend(page.rows().iter().cloned());
        match (page.link("nextLink"), page.link("deltaLink")) {
            (Some(link), None) => next = link.to_owned(),
            (None, Some(link)) => return (rows, link.to_owned(), pages),
            other => panic!("a page has one of the links, not {other:?}"),
        }
    }
}

async fn begin(org: &TestOrg) -> String {
    follow(org, "accounts?$select=name", TRACK).await.1
}

fn tombstones(rows: &[Value]) -> Vec<&str> {
    rows.iter()
        .filter(|row| row["reason"] == "deleted")
        .map(|row| row["id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_full_read_ends_with_a_link_to_the_changes() {
    let org = TestOrg::start().await;
    let (rows, link, pages) = follow(
        &org,
        "accounts?$select=name",
        "odata.track-changes,odata.maxpagesize=2",
    )
    .await;
    assert_eq!((rows.len(), pages), (3, 2));
    assert!(
        link.starts_with(&format!(
            "{}/api/data/v9.2/accounts?$select=name&$deltatoken=",
            org.running.url
        )),
        "{link}"
    );
    let token = link.split("$deltatoken=").nth(1).unwrap();
    assert!(
        token.contains("%21")
            && token.contains("%2f")
            && token.contains("%3a")
            && token.contains("%20"),
        "{token}"
    );
    let (rows, next, _) = follow(&org, &link, "").await;
    assert!(rows.is_empty(), "nothing changed");
    follow(&org, &next, TRACK).await;
}

#[tokio::test]
async fn changed_rows_come_whole_and_deleted_ones_as_tombstones_behind_them() {
    let org = TestOrg::start().await;
    let link = begin(&org).await;
    org.delete(&format!("accounts({THIRD})")).await.expect(204);
    org.patch(&format!("accounts({EXAMPLE})"), json!({"telephone1": "1"}))
        .await
        .expect(204);
    let new = org.create("accounts", json!({"name": "New"})).await;
    let answer = org.prefer(&link, "odata.maxpagesize=10").await.expect(200);
    assert!(
        answer.body["@odata.context"]
            .as_str()
            .unwrap()
            .ends_with("$metadata#accounts(name)/$delta")
    );
    let rows = answer.rows();
    assert_eq!(rows.len(), 3);
    assert_eq!(
        (&rows[0]["accountid"], &rows[0]["name"]),
        (&json!(EXAMPLE), &json!("Example Ltd")),
        "all selected columns, changed or not"
    );
    assert_eq!(rows[1]["accountid"], new);
    let context = format!(
        "{}/api/data/v9.2/$metadata#accounts/$deletedEntity",
        org.running.url
    );
    assert_eq!(
        rows[2],
        json!({"@odata.context": context, "id": THIRD, "reason": "deleted"})
    );
    let again = org.get(&link).await.expect(200);
    assert_eq!(again.rows().len(), 3, "a token can be used again");
}

#[tokio::test]
async fn a_row_made_and_deleted_between_polls_leaves_a_lone_tombstone() {
    let org = TestOrg::start().await;
    let link = begin(&org).await;
    let id = org.create("accounts", json!({"name": "Brief"})).await;
    org.delete(&format!("accounts({id})")).await.expect(204);
    let (rows, _, _) = follow(&org, &link, "").await;
    assert_eq!((rows.len(), tombstones(&rows)), (1, vec![id.as_str()]));
}

#[tokio::test]
async fn a_row_that_was_brought_back_is_no_tombstone() {
    let org = TestOrg::start().await;
    let link = begin(&org).await;
    let path = format!("accounts({OTHER})");
    org.delete(&path).await.expect(204);
    org.send(
        org.request(reqwest::Method::PATCH, &path)
            .json(&json!({"name": "Back"})),
    )
    .await
    .expect(204);
    let (rows, _, _) = follow(&org, &link, "").await;
    assert_eq!((rows.len(), &rows[0]["name"]), (1, &json!("Back")));
}

#[tokio::test]
async fn what_changes_while_pages_are_read_comes_with_the_next_changes() {
    let org = TestOrg::start().await;
    let first = org
        .prefer(
            "accounts?$select=name",
            "odata.track-changes,odata.maxpagesize=1",
        )
        .await
        .expect(200);
    org.patch(&format!("accounts({EXAMPLE})"), json!({"name": "Changed"}))
        .await
        .expect(204);
    org.delete(&format!("accounts({THIRD})")).await.expect(204);
    let next = first.link("nextLink").unwrap();
    let (_, link, _) = follow(&org, next, "odata.track-changes,odata.maxpagesize=1").await;
    let (rows, _, _) = follow(&org, &link, "odata.maxpagesize=1").await;
    assert!(rows.iter().any(|row| row["name"] == "Changed"), "{rows:?}");
    assert_eq!(tombstones(&rows), [THIRD]);
}

#[tokio::test]
async fn deltas_have_pages_too_and_the_link_only_on_the_last() {
    let org = TestOrg::start().await;
    let link = begin(&org).await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(
            org.create("accounts", json!({"name": format!("n{n}")}))
                .await,
        );
    }
    org.delete(&format!("accounts({})", made[1]))
        .await
        .expect(204);
    org.delete(&format!("accounts({})", made[3]))
        .await
        .expect(204);
    let (rows, _, pages) = follow(&org, &link, "odata.maxpagesize=2").await;
    assert_eq!((rows.len(), pages), (5, 3));
    assert_eq!(tombstones(&rows), [made[1].as_str(), made[3].as_str()]);
}

#[tokio::test]
async fn options_that_tracking_does_not_know_are_refused() {
    let org = TestOrg::start().await;
    for (option, name) in [
        ("$filter=statecode eq 0", "$filter"),
        ("$orderby=name", "$orderby"),
        ("$expand=primarycontactid", "$expand"),
        ("$top=1", "$top"),
    ] {
        let answer = org
            .prefer(&format!("accounts?{option}"), TRACK)
            .await
            .expect(400);
        assert_eq!(
            answer.message(),
            format!(
                "The \"{name}\" query parameter isn't supported when Change Tracking is enabled."
            )
        );
    }
    let link = begin(&org).await;
    org.get(&format!("{link}&$filter=statecode eq 0"))
        .await
        .expect(400);
    org.get("accounts?$deltatoken=nonsense")
        .await
        .refused(400, "0x80060888");
}

#[tokio::test]
async fn pending_changes_can_be_counted() {
    let org = TestOrg::start().await;
    let link = begin(&org).await;
    let token = link.split("$deltatoken=").nth(1).unwrap();
    org.create("accounts", json!({"name": "New"})).await;
    org.delete(&format!("accounts({THIRD})")).await.expect(204);
    let answer = org
        .get(&format!("accounts/$count?$deltatoken={token}"))
        .await
        .expect(200);
    assert_eq!(answer.text.trim_start_matches('\u{feff}'), "2");
}

#[track_caller]
fn expired(answer: Answer, status: u16) {
    let answer = answer.refused(status, "0x80044352");
    assert_eq!(
        answer.message(),
        "Version stamp associated with the client has expired. Please perform a full sync."
    );
}

#[tokio::test]
async fn tokens_expire_by_time_as_the_organization_says() {
    let org = TestOrg::start().await;
    let id = org.running.org.profile.organization.to_string();
    let days = org
        .get("organizations?$select=expirechangetrackingindays")
        .await
        .rows()[0]["expirechangetrackingindays"]
        .clone();
    assert_eq!(days, 7);
    let mut org = org;
    let link = begin(&org).await;
    org.control("time", json!({"advance_seconds": 7 * 86_400 - 60}))
        .await;
    org.sign_in().await;
    org.get(&link).await.expect(200);
    org.control("time", json!({"advance_seconds": 60})).await;
    expired(org.get(&link).await, 400);
    org.control("switches", json!({"expired_status": 410}))
        .await;
    expired(org.get(&link).await, 410);
    org.patch(
        &format!("organizations({id})"),
        json!({"expirechangetrackingindays": 30}),
    )
    .await
    .expect(204);
    org.get(&link).await.expect(200);
}

#[tokio::test]
async fn tokens_expire_when_the_definition_changes() {
    let org = TestOrg::start().await;
    let link = begin(&org).await;
    let (_, contacts, _) = follow(&org, "contacts", TRACK).await;
    org.control(
        "tables",
        json!({"table": "account", "definition": {"columns": {"new_color": "String(20)"}}}),
    )
    .await;
    expired(org.get(&link).await, 400);
    org.get(&contacts).await.expect(200);
    let fresh = follow(&org, "accounts?$select=new_color", TRACK).await;
    assert_eq!(fresh.0.len(), 3);
}

#[tokio::test]
async fn a_table_must_be_tracked() {
    let org = TestOrg::start().await;
    let answer = org
        .prefer("new_planset", TRACK)
        .await
        .refused(400, "0x80072491");
    assert_eq!(
        answer.message(),
        "Entity new_plan isn't enabled for change tracking."
    );
    org.control(
        "tables",
        json!({"table": "new_plan", "definition": {"tracked": true}}),
    )
    .await;
    follow(&org, "new_planset", TRACK).await;
    let url = format!("{}/_sim/tables", org.running.url);
    let off = json!({"table": "new_plan", "definition": {"tracked": false}});
    org.send(org.client.post(url).json(&off)).await.expect(400);
}

#[tokio::test]
async fn reading_changes_needs_the_privilege() {
    let org = TestOrg::start().await;
    org.control("privileges", json!({"deny": [["Read", "account"]]}))
        .await;
    org.prefer("accounts", TRACK)
        .await
        .refused(403, "0x80040220");
}

#[tokio::test]
async fn a_restore_moves_row_versions_back() {
    let org = TestOrg::start().await;
    org.control("snapshots", json!({"save": "before"})).await;
    let version = async || {
        org.get(&format!("accounts({EXAMPLE})")).await.body["versionnumber"]
            .as_i64()
            .unwrap()
    };
    let before = version().await;
    org.patch(&format!("accounts({EXAMPLE})"), json!({"name": "Later"}))
        .await
        .expect(204);
    let link = begin(&org).await;
    org.control("snapshots", json!({"restore": "before"})).await;
    assert_eq!(version().await, before);
    org.patch(&format!("accounts({OTHER})"), json!({"name": "After"}))
        .await
        .expect(204);
    let (rows, _, _) = follow(&org, &link, "").await;
    assert!(
        rows.is_empty(),
        "a token from the lost future sees nothing, and says nothing"
    );
}

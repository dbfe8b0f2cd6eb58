//! Reads: pages and where they go on, windows, records by id.

use std::sync::Mutex;

use crate::http::tests::server::{Reply, Seen};
use crate::model::value::Value;

use super::org::{Org, page, refused, row};
use super::*;

/// Two pages of two rows, the second with a delta link if changes are to be tracked.
fn two_pages(seen: &Seen) -> Reply {
    match seen.query.get("$skiptoken").map(String::as_str) {
        None => page(
            seen,
            &[row(1, 11, "a"), row(2, 12, "b")],
            Some("$skiptoken=2"),
            None,
        ),
        Some("2") => {
            let tracks = seen.header("prefer").contains("odata.track-changes");
            page(
                seen,
                &[row(3, 13, "c")],
                None,
                tracks.then_some("$deltatoken=7"),
            )
        }
        Some(_) => refused(400, "0x80060888", "the cookie is stale"),
    }
}

async fn org() -> Org {
    Org::start(|seen| async move { two_pages(&seen) }).await
}

async fn drained(pages: &mut Box<dyn Pages>) -> (Vec<RecordId>, Vec<Option<String>>) {
    let (mut ids, mut resumes) = (Vec::new(), Vec::new());
    while let Some(page) = pages.next().await.unwrap() {
        ids.extend(page.rows.into_iter().map(|row| row.record));
        resumes.push(page.resume);
    }
    (ids, resumes)
}

#[tokio::test]
async fn pages_are_followed_to_the_end_with_the_same_preferences() {
    let org = org().await;
    let crm = org.connector();
    let selection = selection("account", &["name", "ownerid"]);
    let mut pages = crm.read_all(&selection, None).await.unwrap();
    let (ids, resumes) = drained(&mut pages).await;
    assert_eq!(ids, [id(1), id(2), id(3)]);
    assert!(resumes[0].is_some() && resumes[1].is_none());
    let calls = org.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].header("prefer"), calls[1].header("prefer"));
    assert_eq!(
        calls[0].query["$select"],
        "accountid,modifiedon,versionnumber,name,_ownerid_value"
    );
    assert!(pages.next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_read_goes_on_where_it_stopped() {
    let org = org().await;
    let selection = selection("account", &["name"]);
    let mut pages = org.connector().read_all(&selection, None).await.unwrap();
    let first = pages.next().await.unwrap().unwrap();
    let resume = first.resume.unwrap();
    // Another life.
    let crm = org.connector();
    let mut pages = crm.read_all(&selection, Some(&resume)).await.unwrap();
    let (ids, _) = drained(&mut pages).await;
    assert_eq!(ids, [id(3)]);
    assert_eq!(org.calls().len(), 2, "no page is read twice");
    assert!(
        crm.links
            .follows(&"account".into(), &fingerprint(&selection))
    );
}

#[tokio::test]
async fn a_read_that_cant_go_on_says_so() {
    let org = org().await;
    let name = selection("account", &["name"]);
    let mut pages = org.connector().read_all(&name, None).await.unwrap();
    let resume = pages.next().await.unwrap().unwrap().resume.unwrap();
    let crm = org.connector();
    let other = selection("account", &["revenue"]);
    let stale = resume.replace("$skiptoken=2", "$skiptoken=9");
    let plain = resume.replace("tracked", "plain");
    for (selection, resume) in [(&other, &resume), (&name, &stale), (&name, &plain)] {
        let fault = crm.read_all(selection, Some(resume)).await.err().unwrap();
        assert_eq!(fault.kind(), FaultKind::PositionLost, "{}", fault.report());
    }
    let fault = crm.read_all(&name, Some("?")).await.err().unwrap();
    assert_eq!(fault.kind(), FaultKind::PositionLost);
}

#[tokio::test]
async fn a_whole_read_begins_a_tables_changes_once_all_pages_were_taken() {
    let org = org().await;
    let crm = org.connector();
    let selection = selection("account", &["name"]);
    let mut pages = crm.read_all(&selection, None).await.unwrap();
    while pages.next().await.unwrap().is_some() {
        // The last page may not be durable yet.
        assert!(crm.links.get(&"account".into()).is_none());
    }
    let link = crm.links.get(&"account".into()).unwrap();
    assert_eq!(link.fields, fingerprint(&selection));
    // The next one reads without tracking, and leaves the place alone.
    let mut pages = crm.read_all(&selection, None).await.unwrap();
    drained(&mut pages).await;
    let plain = org.calls().pop().unwrap();
    assert!(!plain.header("prefer").contains("track-changes"));
    assert_eq!(crm.links.get(&"account".into()), Some(link));
}

#[tokio::test]
async fn a_token_is_sent_to_no_other_host() {
    let org = Org::start(|_| async {
        let json = serde_json::json!({
            "value": [row(1, 1, "a")], "@odata.nextLink": "https://evil.example/api/data/v9.2/accounts?x"
        });
        Reply::json(&json)
    })
    .await;
    let crm = org.connector();
    let mut pages = crm
        .read_all(&selection("account", &["name"]), None)
        .await
        .unwrap();
    pages.next().await.unwrap().unwrap();
    let fault = pages.next().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Protocol);
    assert!(
        fault.report().contains("evil.example"),
        "{}",
        fault.report()
    );
}

#[tokio::test]
async fn a_window_is_a_filter_in_order() {
    let org = org().await;
    let crm = org.connector();
    let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let (from, to) = (at("2026-01-05T10:00:00Z"), at("2026-01-05T11:00:00Z"));
    let selection = selection("account", &["name"]);
    let mut pages = crm.read_window(&selection, from, to).await.unwrap();
    let page = pages.next().await.unwrap().unwrap();
    assert_eq!(page.resume, None);
    let call = org.calls().pop().unwrap();
    assert_eq!(
        call.query["$filter"],
        "modifiedon ge 2026-01-05T10:00:00Z and modifiedon lt 2026-01-05T11:00:00Z"
    );
    assert_eq!(call.query["$orderby"], "modifiedon,accountid");
    assert!(!call.header("prefer").contains("track-changes"));
    drained(&mut pages).await;
    assert!(
        crm.links.get(&"account".into()).is_none(),
        "a window begins nothing"
    );
}

#[tokio::test]
async fn records_are_read_by_id_in_few_calls_and_the_others_are_absent() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    let org = Org::start(move |seen| {
        let log = Arc::clone(&log);
        async move {
            let filter = seen.query["$filter"].clone();
            let there: Vec<_> = (0..500)
                .filter(|number| number % 2 == 0 && filter.contains(&guid(*number)))
                .map(|number| row(number, 1, "x"))
                .collect();
            log.lock().unwrap().push(filter);
            page(&seen, &there, None, None)
        }
    })
    .await;
    let crm = org.connector();
    let selection = selection("account", &["name"]);
    let ids: Vec<RecordId> = (0..450).map(id).chain([id(3)]).collect();
    let found = crm.read_ids(&selection, &ids).await.unwrap();
    assert_eq!((found.rows.len(), found.absent.len()), (225, 225));
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 3);
    let start = format!(
        "Microsoft.Dynamics.CRM.In(PropertyName='accountid',PropertyValues=[\"{}\"",
        guid(0)
    );
    assert!(asked[0].starts_with(&start), "{}", asked[0]);
    assert!(found.as_of <= Utc::now() - TimeDelta::seconds(5));
    let none = crm.read_ids(&selection, &[]).await.unwrap();
    assert!(none.rows.is_empty() && none.absent.is_empty());
}

#[tokio::test]
async fn money_keeps_its_digits_and_look_ups_are_ids() {
    let org = Org::start(|seen| async move {
        let body = format!(
            r#"{{"value":[{{"@odata.etag":"W/\"5\"","accountid":"{}","revenue":1234567890123456.7890,
            "_ownerid_value":"55555555-0000-4000-8000-00000000000A",
            "_ownerid_value@Microsoft.Dynamics.CRM.lookuplogicalname":"team"}}]}}"#,
            guid(1)
        );
        assert!(seen.header("prefer").contains("lookuplogicalname"));
        Reply::new(200, body)
    })
    .await;
    let selection = selection("account", &["ownerid", "revenue"]);
    let found = org
        .connector()
        .read_ids(&selection, &[id(1)])
        .await
        .unwrap();
    let fields = &found.rows[0].fields;
    assert_eq!(
        serde_json::to_string(&fields["revenue"]).unwrap(),
        "1234567890123456.7890"
    );
    assert_eq!(
        fields["ownerid"],
        Value::from("55555555-0000-4000-8000-00000000000a")
    );
}

#[tokio::test]
async fn nobody_can_be_asked_for_the_deleted() {
    let org = org().await;
    let now = Utc::now();
    let fault = org
        .connector()
        .deleted(&"account".into(), now, now)
        .await
        .unwrap_err();
    assert_eq!(fault.kind(), FaultKind::PositionLost);
}

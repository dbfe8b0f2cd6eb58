//! Pages of a job's results read side by side: equal to REST's, resumed at any place, and read in turn where none are named.

use serde_json::json;
use tributary::fault::FaultKind;

use super::*;

/// Enough for two lists of pages.
const ACCOUNTS: usize = 7_300;
const PAGES: u64 = 8;

impl World {
    fn side_by_side(&self) -> Salesforce {
        self.crm_that(|settings| {
            settings.bulk_from = Some(1);
            settings.bulk_parallel_from = 1;
        })
    }

    /// Calls for results, and for their pages.
    async fn results(&self) -> (u64, u64) {
        let results = self.calls("GET jobs/query/{job}/results").await;
        (
            results,
            self.calls("GET jobs/query/{job}/resultPages").await,
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_side_by_side_have_the_rows_of_rest() {
    let world = World::new(ACCOUNTS).await;
    let expected = rows(&read(&world.crm(None), None).await.unwrap());
    let pages = read(&world.side_by_side(), None).await.unwrap();
    same(&rows(&pages), &expected);
    assert!(pages.iter().all(|page| page.as_of == pages[0].as_of));
    let last = pages.last().unwrap();
    assert_eq!((last.total, &last.resume), (Some(7_300), &None));
    assert_eq!(world.results().await, (PAGES, 2));
    assert_eq!(world.calls("DELETE jobs/query/{job}").await, 1);
    // Fewer rows than are worth it come page after page.
    let pages = read(&world.crm(Some(1)), None).await.unwrap();
    same(&rows(&pages), &expected);
    assert_eq!(world.results().await, (2 * PAGES, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_page_holds_up_no_other() {
    let world = World::new(ACCOUNTS).await;
    let crm = world.side_by_side();
    let mut pages = crm.read_all(&accounts(), None).await.unwrap();
    // A look at the job and a list of pages come before; the first page of results trickles in.
    let on = json!({"surface": "bulk", "method": "GET"});
    let slow = json!({"kind": "slow_body", "chunk": 400_000, "seconds": 1});
    world.fault(json!({"on": on, "after": 2, "do": slow})).await;
    let mut order = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        order.extend(page.rows.into_iter().map(|row| row.record));
    }
    assert_eq!(order.len(), ACCOUNTS);
    let mut sorted = order.clone();
    sorted.sort();
    assert!(
        order.last() < sorted.last(),
        "rows of later pages came before"
    );
    sorted.dedup();
    assert_eq!(sorted.len(), ACCOUNTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_side_by_side_goes_on_at_every_place() {
    let world = World::new(ACCOUNTS).await;
    let expected = rows(&read(&world.crm(None), None).await.unwrap());
    let crm = world.side_by_side();
    let mut pages = crm.read_all(&accounts(), None).await.unwrap();
    let mut places = Vec::new();
    let mut before = Vec::<Page>::new();
    while let Some(resume) = {
        let page = pages.next().await.unwrap().unwrap();
        let resume = page.resume.clone();
        before.push(page);
        resume
    } {
        places.push((before.clone(), resume));
    }
    drop(pages);
    let within = places.iter().filter(|(_, token)| {
        let place: Json = serde_json::from_str(token).unwrap();
        let parts = place["left"]["parts"].as_array();
        parts.is_some_and(|parts| parts.iter().any(|part| part["skip"] != 0))
    });
    assert!(within.count() > 4, "no place lies within a page");
    let every = places.len() / 9 + 1;
    for (mut found, token) in places.into_iter().step_by(every) {
        let crm = world.side_by_side();
        let mut pages = crm.read_all(&accounts(), Some(&token)).await.unwrap();
        loop {
            let page = pages.next().await.unwrap().unwrap();
            let is_last = page.resume.is_none();
            found.push(page);
            if is_last {
                break;
            }
        }
        same(&rows(&found), &expected);
    }
    assert_eq!(
        world.calls("POST jobs/query").await,
        1,
        "one job served all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_org_that_names_no_pages_is_read_page_after_page() {
    let world = World::new(2_500).await;
    let old = world.crm_that(|settings| {
        settings.bulk_from = Some(1);
        settings.bulk_parallel_from = 1;
        settings.api_version = "57.0".to_owned();
    });
    assert_eq!(rows(&read(&old, None).await.unwrap()).len(), 2_500);
    assert_eq!(world.results().await, (3, 0), "it is not asked");
    // Refused by one that should.
    let on = json!({"surface": "bulk", "method": "GET"});
    let refused = json!({"kind": "status", "status": 404, "code": "NOT_FOUND", "message": "no"});
    world
        .fault(json!({"on": on, "after": 1, "do": refused}))
        .await;
    let found = read(&world.side_by_side(), None).await.unwrap();
    assert_eq!(rows(&found).len(), 2_500);
    assert_eq!(world.results().await, (6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_among_pages_lose_no_row() {
    let world = World::new(ACCOUNTS).await;
    let expected = rows(&read(&world.crm(None), None).await.unwrap());
    for (after, script) in [
        (1, json!({"kind": "status", "status": 503})),
        (3, json!({"kind": "status", "status": 503})),
        (3, json!({"kind": "cut"})),
        (7, json!({"kind": "cut"})),
        (8, json!({"kind": "lost_reply"})),
    ] {
        let crm = world.side_by_side();
        let mut pages = crm.read_all(&accounts(), None).await.unwrap();
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
        assert_eq!(fault.kind(), FaultKind::Unavailable, "{}", fault.report());
        let token = found.last().unwrap().resume.clone().unwrap();
        found.extend(read(&world.side_by_side(), Some(&token)).await.unwrap());
        same(&rows(&found), &expected);
    }
}

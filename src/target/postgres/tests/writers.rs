//! Several writers at once: nothing twice, nothing lost, and what breaks in the middle is whole or not there.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{Store, fresh, open};
use crate::fault::{Fate, Fault, FaultKind};
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::policy::{OnExit, OnNone};
use crate::postgres::trial::obstacle::{Obstacle, wait_until};
use crate::postgres::trial::server::server;
use crate::target::port::{Applied, Batch, Outcome, RowsPage, Target};
use crate::target::suite::Bench;
use crate::target::suite::plans::{Row, by_id, company, deleted, person, row, text};
use crate::target::suite::world::{Writer, begin};

pub fn spawn(target: Arc<dyn Target>, batch: Batch) -> JoinHandle<Result<Applied, Fault>> {
    tokio::spawn(async move { target.apply(batch).await })
}

/// A second owner of the same database, as another daemon is.
async fn second(store: &Store) -> Store {
    Store {
        settings: store.settings.clone(),
        target: Arc::new(open(store.settings.clone()).await),
    }
}

fn mail(plan: &Arc<DestinationPlan>, record: &str, version: u64, mail: &str) -> Row {
    row(plan, record, version).text("email", mail)
}

/// J4, with both transactions open at once: the second waits for the first one's claim, and then finds its row.
#[tokio::test]
async fn two_transactions_never_insert_one_row_twice() {
    let mut store = Store::new().await;
    let mut first = begin(&mut store).await;
    let other = second(&store).await;
    let mut late = Writer::open(other.target(), "acme", "other").await;
    let plan = Arc::new(person());
    // The first has claimed, looked and inserted, and can't go on: its second record's entry is taken.
    first.one(mail(&plan, "held", 1, "held@x.example")).await;
    let obstacle = Obstacle::new(&format!(
        "SELECT 1 FROM {} WHERE record = 'held' FOR UPDATE",
        store.ledger("crosswalk")
    ))
    .await;
    let batch = first.batch([
        mail(&plan, "a", 1, "same@x.example"),
        mail(&plan, "held", 2, "held2@x.example"),
    ]);
    let one = spawn(store.target(), batch);
    let first_pid = obstacle.waited_for(1).await[0];
    let two = spawn(
        other.target(),
        late.batch([mail(&plan, "b", 1, " SAME@x.example")]),
    );
    let look = server().client().await;
    wait_until(async || {
        let waits = look
            .query_one(
                "SELECT count(*) FROM pg_stat_activity WHERE pg_blocking_pids(pid) @> ARRAY[$1::int]",
                &[&first_pid],
            )
            .await
            .unwrap();
        (waits.get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    obstacle.end("COMMIT").await;
    let (one, two) = (one.await.unwrap().unwrap(), two.await.unwrap().unwrap());
    assert_eq!(one.outcomes[0], [Outcome::Inserted, Outcome::Updated]);
    assert_eq!(two.outcomes[0], [Outcome::Associated]);
    assert_eq!(first.all("person").await.len(), 2);
    late.owned.next += 1;
    let claims = look
        .query(&format!("SELECT 1 FROM {}", store.ledger("claim")), &[])
        .await
        .unwrap();
    assert!(claims.is_empty(), "claims are given back");
}

/// J7: what one daemon keeps of look-ups is not believed once another has taken the row away, and is kept before.
#[tokio::test]
async fn another_daemon_takes_away_what_a_look_up_found() {
    let mut store = Store::new().await;
    let mut writer = begin(&mut store).await;
    let other = second(&store).await;
    let mut taker = Writer::open(other.target(), "acme", "companies").await;
    let companies = Arc::new(company());
    let persons = Arc::new(person().derive(by_id("company", "company")));
    taker.one(row(&companies, "c", 1)).await;
    writer
        .one(row(&persons, "p", 1).to("company", &["c"]))
        .await;
    // Behind the ledger's back: who looks up anew would miss it.
    let look = server().client().await;
    let entry = format!("UPDATE {} SET gone =", store.ledger("crosswalk"));
    let hide = format!("{entry} true WHERE destination = 'company'");
    look.execute(&hide, &[]).await.unwrap();
    writer
        .one(row(&persons, "q", 1).to("company", &["c"]))
        .await;
    assert_ne!(writer.cell_of("person", "q", "company").await, Cell::Null);
    let show = format!("{entry} false WHERE destination = 'company'");
    look.execute(&show, &[]).await.unwrap();
    taker.one(deleted(&companies, "c", 2)).await;
    writer
        .one(row(&persons, "r", 1).to("company", &["c"]))
        .await;
    assert_eq!(writer.cell_of("person", "r", "company").await, Cell::Null);
    assert_eq!(writer.parked().await, 1);
}

/// A new connection may lead to a server that was restored: nothing is believed that the one before has found.
#[tokio::test]
async fn a_new_connection_believes_nothing() {
    let mut store = Store::new().await;
    let mut writer = begin(&mut store).await;
    let companies = Arc::new(company());
    let persons = Arc::new(person().derive(by_id("company", "company")));
    writer.one(row(&companies, "c", 1)).await;
    for record in ["p", "q"] {
        writer
            .one(row(&persons, record, 1).to("company", &["c"]))
            .await;
    }
    let look = server().client().await;
    let hide = format!(
        "UPDATE {} SET gone = true WHERE destination = 'company'",
        store.ledger("crosswalk")
    );
    look.execute(&hide, &[]).await.unwrap();
    // The writers are those that wrote to this ledger last.
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
         AND query LIKE '%\"{}\"%'",
        store.settings.ledger
    );
    look.query(&end, &[]).await.unwrap();
    let closed = "SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE ";
    let closed = format!("{closed}'%\"{}\"%'", store.settings.ledger);
    wait_until(async || {
        look.query(&closed, &[])
            .await
            .unwrap()
            .is_empty()
            .then_some(())
    })
    .await;
    writer
        .one(row(&persons, "r", 1).to("company", &["c"]))
        .await;
    assert_eq!(writer.cell_of("person", "r", "company").await, Cell::Null);
}

/// Many writers on many rows that they share, with rows that come and go: no fault, no row twice, none without a
/// record, and every record holds one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_that_share_rows_get_through() {
    const WRITERS: u64 = 6;
    const KEYS: u64 = 12;
    let mut store = Store::new().await;
    let first = begin(&mut store).await;
    let other = second(&store).await;
    let plan = Arc::new(person().exits(OnExit::Delete, OnExit::Mark));
    store
        .target
        .prepare(&crate::target::suite::plans::job("acme", "sync", &[&plan]))
        .await
        .unwrap();
    let mut tasks = Vec::new();
    for partition in 0..WRITERS {
        let mut writer = first.clone();
        writer.partition = u32::try_from(partition).unwrap();
        let bench: &dyn Bench = if partition % 2 == 0 { &store } else { &other };
        let mut writer = writer.again(bench).await;
        let plan = Arc::clone(&plan);
        tasks.push(tokio::spawn(async move {
            // Records that were deleted don't come back: theirs would be their old rows.
            let mut lives = [0; KEYS as usize];
            for version in 1..=30 {
                let mut rows = Vec::new();
                for n in 0..KEYS {
                    // Each in another order.
                    let key = (n * 5 + partition + version) % KEYS;
                    let life = &mut lives[key as usize];
                    let record = format!("{partition}-{key}-{life}");
                    if (key + version + partition).is_multiple_of(3) && version < 30 {
                        rows.push(deleted(&plan, &record, version));
                        *life += 1;
                    } else {
                        let row = mail(&plan, &record, version, &format!("{key}@x.example"));
                        rows.push(row.text("name", &format!("{partition} {version}")));
                    }
                }
                writer.send(rows).await;
            }
            lives
        }));
    }
    let mut lives = Vec::new();
    for task in tasks {
        lives.push(task.await.unwrap());
    }
    let rows = first.all("person").await;
    let mut held = std::collections::BTreeSet::new();
    for (partition, lives) in lives.iter().enumerate() {
        for (key, life) in lives.iter().enumerate() {
            let record = format!("{partition}-{key}-{life}");
            let row = first.row_of("person", &record).await;
            let row = row.unwrap_or_else(|| panic!("{record} has no row"));
            assert_eq!(row.cell("email"), text(&format!("{key}@x.example")));
            held.insert(row.gsid);
        }
    }
    assert_eq!(held.len(), rows.len(), "a row without a record");
    let mut mails: Vec<_> = rows
        .iter()
        .map(|row| format!("{:?}", row.cell("email")))
        .collect();
    mails.sort();
    mails.dedup();
    assert_eq!(mails.len(), rows.len(), "a row twice");
}

/// The last two who hold a row leave it at the same time.
#[tokio::test]
async fn a_row_goes_when_its_last_two_records_leave_at_once() {
    let mut store = Store::new().await;
    let mut first = begin(&mut store).await;
    let mut late = Writer::open(store.target(), "acme", "other").await;
    let plan = Arc::new(person());
    first.one(mail(&plan, "a", 1, "x@x.example")).await;
    late.one(mail(&plan, "b", 1, "x@x.example")).await;
    let obstacle = Obstacle::new(&format!(
        "SELECT 1 FROM {} FOR UPDATE",
        store.table("person")
    ))
    .await;
    let one = spawn(store.target(), first.batch([deleted(&plan, "a", 2)]));
    let other = second(&store).await;
    let two = spawn(other.target(), late.batch([deleted(&plan, "b", 2)]));
    obstacle.waited_for(2).await;
    obstacle.end("COMMIT").await;
    for done in [one, two] {
        assert_eq!(done.await.unwrap().unwrap().outcomes[0], [Outcome::Deleted]);
    }
    assert!(first.all("person").await.is_empty());
}

/// A record comes to a row while the last one that holds it leaves.
#[tokio::test]
async fn who_comes_to_a_row_that_goes_has_a_row() {
    let mut store = Store::new().await;
    let mut first = begin(&mut store).await;
    let late = Writer::open(store.target(), "acme", "other").await;
    let plan = Arc::new(person());
    first.one(mail(&plan, "a", 1, "x@x.example")).await;
    let obstacle = Obstacle::new(&format!(
        "SELECT 1 FROM {} FOR UPDATE",
        store.table("person")
    ))
    .await;
    let one = spawn(store.target(), first.batch([deleted(&plan, "a", 2)]));
    obstacle.waited_for(1).await;
    let other = second(&store).await;
    let two = spawn(
        other.target(),
        late.batch([mail(&plan, "b", 1, "x@x.example")]),
    );
    obstacle.waited_for(2).await;
    obstacle.end("COMMIT").await;
    assert_eq!(one.await.unwrap().unwrap().outcomes[0], [Outcome::Deleted]);
    assert_eq!(two.await.unwrap().unwrap().outcomes[0], [Outcome::Inserted]);
    let rows = first.all("person").await;
    assert_eq!(rows.len(), 1);
    assert_eq!(first.gsid_of("person", "b").await, rows[0].gsid);
}

/// A replay and the live reader write one record at once: the higher version stays, also where the replay's equals
/// the one that it read.
#[tokio::test]
async fn a_replay_does_not_write_over_what_is_newer() {
    let mut store = Store::new().await;
    let mut live = begin(&mut store).await;
    let plan = Arc::new(company());
    live.one(row(&plan, "a", 5).text("name", "five")).await;
    let mut replay = live.clone();
    replay.reader.reader = "replay-1".to_owned();
    let other = second(&store).await;
    let replay = replay.again(&other).await;
    let obstacle = Obstacle::new(&format!(
        "SELECT 1 FROM {} FOR UPDATE",
        store.ledger("crosswalk")
    ))
    .await;
    // Both have read version 5, and want to write.
    let new = spawn(
        store.target(),
        live.batch([row(&plan, "a", 6).text("name", "six")]),
    );
    obstacle.waited_for(1).await;
    let old = spawn(
        other.target(),
        replay.batch([row(&plan, "a", 5).text("name", "other five")]),
    );
    obstacle.waited_for(2).await;
    obstacle.end("COMMIT").await;
    assert_eq!(new.await.unwrap().unwrap().outcomes[0], [Outcome::Updated]);
    let held = crate::model::version::Version::new(1, 6);
    assert_eq!(
        old.await.unwrap().unwrap().outcomes[0],
        [Outcome::Stale(held)]
    );
    assert_eq!(live.cell_of("company", "a", "name").await, text("six"));
}

/// J5: the parent is not committed when the child looks, and the child not when the parent is: whoever commits
/// last, the release after it finds both.
#[tokio::test]
async fn parent_and_child_in_two_transactions_find_each_other() {
    for child_last in [false, true] {
        let mut store = Store::new().await;
        let mut parents = begin(&mut store).await;
        let mut children = Writer::open(store.target(), "acme", "children").await;
        let companies = Arc::new(company());
        let persons = Arc::new(person().derive(by_id("company", "company")));
        parents.one(row(&companies, "held", 1)).await;
        children.one(row(&persons, "held", 1)).await;
        let other = second(&store).await;
        let (last, slow) = if child_last {
            ("person", 1)
        } else {
            ("company", 0)
        };
        let obstacle = Obstacle::new(&format!(
            "SELECT 1 FROM {} WHERE record = 'held' AND destination = '{last}' FOR UPDATE",
            store.ledger("crosswalk")
        ))
        .await;
        let parent = parents.batch([
            row(&companies, "c", 1),
            row(&companies, "held", 2).text("name", "x"),
        ]);
        let child = children.batch([
            row(&persons, "p", 1).to("company", &["c"]),
            row(&persons, "held", 2).text("name", "x"),
        ]);
        let batches = [(store.target(), parent), (other.target(), child)];
        let [first, second] = batches;
        let (stuck, free) = if slow == 0 {
            (first, second)
        } else {
            (second, first)
        };
        // The stuck one has looked before it writes its entries.
        let stuck = spawn(stuck.0, stuck.1);
        obstacle.waited_for(1).await;
        spawn(free.0, free.1).await.unwrap().unwrap();
        // Released in between: nothing to be found yet.
        assert_eq!(parents.release().await.filled, 0, "{child_last}");
        obstacle.end("COMMIT").await;
        stuck.await.unwrap().unwrap();
        assert_eq!(parents.release().await.filled, 1, "{child_last}");
        let company = parents.gsid_of("company", "c").await;
        assert_eq!(
            children.cell_of("person", "p", "company").await,
            Cell::Gsid(company)
        );
        assert_eq!(children.parked().await, 0);
    }
}

#[tokio::test]
async fn a_zombie_on_another_connection_is_fenced() {
    let mut store = Store::new().await;
    let mut zombie = begin(&mut store).await;
    let plan = Arc::new(company());
    zombie.one(row(&plan, "a", 1).text("name", "one")).await;
    let other = second(&store).await;
    let mut owner = zombie.again(&other).await;
    let late = zombie.batch([row(&plan, "a", 9).text("name", "zombie")]);
    // The owner's transaction is open when the zombie comes: it waits, and is too late.
    let obstacle = Obstacle::new(&format!(
        "SELECT 1 FROM {} FOR UPDATE",
        store.ledger("crosswalk")
    ))
    .await;
    let owns = spawn(
        other.target(),
        owner.batch([row(&plan, "a", 2).text("name", "owner")]),
    );
    obstacle.waited_for(1).await;
    let zombies = spawn(store.target(), late);
    obstacle.end("COMMIT").await;
    owns.await.unwrap().unwrap();
    let fenced = zombies.await.unwrap().unwrap_err();
    assert_eq!(fenced.kind(), FaultKind::Fenced);
    owner = owner.again(&other).await;
    assert_eq!(owner.cell_of("company", "a", "name").await, text("owner"));
}

/// The connection breaks in the middle: the fault passes, nothing is left, and the same batch goes through.
#[tokio::test]
async fn a_broken_connection_leaves_nothing_and_is_made_anew() {
    let mut store = Store::new().await;
    let mut writer = begin(&mut store).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 1).text("name", "one")).await;
    let obstacle = Obstacle::new(&format!(
        "SELECT 1 FROM {} FOR UPDATE",
        store.ledger("crosswalk")
    ))
    .await;
    let batch = writer.batch([
        row(&plan, "b", 1).text("name", "new"),
        row(&plan, "a", 2).text("name", "two"),
    ]);
    let broken = spawn(store.target(), batch.clone());
    let pid = obstacle.waited_for(1).await[0];
    obstacle
        .client
        .execute("SELECT pg_terminate_backend($1)", &[&pid])
        .await
        .unwrap();
    let fault = broken.await.unwrap().unwrap_err();
    assert_eq!(fault.fate(), Fate::Retry, "{fault:?}");
    obstacle.end("COMMIT").await;
    assert_eq!(writer.all("company").await.len(), 1);
    assert!(writer.traced("b").await.is_empty());
    let applied = writer.apply(batch).await.unwrap();
    assert_eq!(applied.outcomes[0], [Outcome::Inserted, Outcome::Updated]);
    assert_eq!(writer.again(&store).await.owned.next, 2);
}

/// A statement that takes too long ends the batch, not the connection.
#[tokio::test]
async fn a_statement_that_takes_too_long_passes() {
    let mut settings = fresh();
    settings.server.statement_timeout = Duration::from_millis(300);
    let mut store = Store::with(settings).await;
    let mut writer = begin(&mut store).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 1).text("name", "one")).await;
    let obstacle = Obstacle::new(&format!(
        "SELECT 1 FROM {} FOR UPDATE",
        store.ledger("crosswalk")
    ))
    .await;
    let batch = writer.batch([row(&plan, "a", 2).text("name", "two")]);
    let fault = writer.apply(batch.clone()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Unavailable, "{fault:?}");
    assert!(fault.report().contains("57014"), "{fault:?}");
    obstacle.end("COMMIT").await;
    let applied = writer.apply(batch).await.unwrap();
    assert_eq!(applied.outcomes[0], [Outcome::Updated]);
}

/// Nobody waits for the answer: the transaction ends whole, and the connection goes on.
#[tokio::test]
async fn a_dropped_batch_ends_whole() {
    let mut store = Store::new().await;
    let mut writer = begin(&mut store).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 1).text("name", "one")).await;
    let obstacle = Obstacle::new(&format!(
        "SELECT 1 FROM {} FOR UPDATE",
        store.ledger("crosswalk")
    ))
    .await;
    let batch = writer.batch([
        row(&plan, "b", 1).text("name", "new"),
        row(&plan, "a", 2).text("name", "two"),
    ]);
    let dropped = spawn(store.target(), batch);
    obstacle.waited_for(1).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    obstacle.end("COMMIT").await;
    // Queued behind it.
    let mut writer = writer.again(&store).await;
    assert_eq!(writer.owned.next, 2);
    assert_eq!(writer.cell_of("company", "a", "name").await, text("two"));
    assert_eq!(writer.one(row(&plan, "b", 2)).await, Outcome::Updated);
    let page = RowsPage::default();
    assert_eq!(store.target.rows("company", page).await.unwrap().len(), 2);
}

/// What waits survives its owner's death between commit and wake.
#[tokio::test]
async fn a_new_owner_looks_at_all_that_waits() {
    let mut store = Store::new().await;
    let mut writer = begin(&mut store).await;
    let companies = Arc::new(company());
    let persons = Arc::new(person().derive(by_id("company", "company").on_none(OnNone::Null)));
    writer
        .one(row(&persons, "p", 1).to("company", &["c"]))
        .await;
    assert_eq!(writer.release().await.filled, 0);
    writer.one(row(&companies, "c", 1)).await;
    let sql = format!("UPDATE {} SET ready = 0", store.ledger("parked_reference"));
    server().client().await.execute(&sql, &[]).await.unwrap();
    assert_eq!(writer.release().await.filled, 0);
    let writer = writer.again(&store).await;
    assert_eq!(writer.release().await.filled, 1);
}

//! What is PostgreSQL's own: how tables are made and grow, what their columns keep, which values are refused.

use std::sync::Arc;

use super::{Store, fresh, open};
use crate::fault::{Fate, FaultKind};
use crate::mapping::plan::{Cell, MatchKey, Reference};
use crate::model::stored::{StoredObject, StoredType};
use crate::postgres::trial::server::server;
use crate::target::port::{Outcome, RowsPage, Target};
use crate::target::suite::Bench;
use crate::target::suite::plans::{
    by, by_id, company, deleted, job, object, on, person, plan, row, text,
};
use crate::target::suite::world::{self, begin};

fn with(table: &str, fields: &[(&str, StoredType)]) -> Vec<StoredObject> {
    vec![object(table, fields)]
}

async fn execute(sql: &str) {
    server().client().await.batch_execute(sql).await.unwrap();
}

async fn query(sql: &str) -> Vec<String> {
    let rows = server().client().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn another_type_is_refused_and_a_kindred_one_taken() {
    let store = Store::new().await;
    let thing = with("thing", &[("c", StoredType::Date)]);
    store.target.ensure(&thing).await.unwrap();
    for ty in [
        StoredType::String,
        StoredType::Number,
        StoredType::DateTime,
        StoredType::Gsid,
    ] {
        let objects = [
            object("fresh", &[("x", ty)]),
            object("thing", &[("new", ty), ("c", ty)]),
        ];
        let refused = store.target.ensure(&objects).await.unwrap_err();
        assert_eq!(refused.kind(), FaultKind::Config, "{ty:?}");
        for named in ["`c`", "`thing`", "date"] {
            assert!(refused.report().contains(named), "{}", refused.report());
        }
    }
    // All or nothing.
    let page = RowsPage::default();
    let fresh = store.target.rows("fresh", page).await.unwrap_err();
    assert_eq!(fresh.kind(), FaultKind::Missing);
    for ty in [StoredType::String, StoredType::Picklist, StoredType::Email] {
        let kindred = with("thing", &[("t", ty)]);
        store.target.ensure(&kindred).await.unwrap();
    }
    // A type that looks alike and keeps less.
    execute(&format!(
        "ALTER TABLE {} ADD COLUMN n numeric(10, 2), ADD COLUMN v varchar(5)",
        store.table("thing")
    ))
    .await;
    for (column, ty) in [("n", StoredType::Number), ("v", StoredType::String)] {
        let refused = store.target.ensure(&with("thing", &[(column, ty)])).await;
        assert_eq!(refused.unwrap_err().kind(), FaultKind::Config, "{column}");
    }
}

#[tokio::test]
async fn tables_of_others_and_odd_names_are_refused() {
    let store = Store::new().await;
    execute(&format!(
        "CREATE TABLE {} (gsid uuid, n numeric)",
        store.table("theirs")
    ))
    .await;
    let long = "x".repeat(64);
    for (table, column) in [
        ("theirs", "n"),
        ("", "n"),
        ("thing", ""),
        ("thing", "gsid"),
        ("thing", "CRM_state"),
        (long.as_str(), "n"),
        ("thing", long.as_str()),
        ("a\0b", "n"),
    ] {
        let objects = with(table, &[(column, StoredType::Number)]);
        let refused = store.target.ensure(&objects).await.unwrap_err();
        assert_eq!(
            refused.kind(),
            FaultKind::Config,
            "{table}.{column}: {refused:?}"
        );
    }
}

/// Two daemons start at once on an empty database.
#[tokio::test]
async fn two_may_make_tables_and_indexes_at_once() {
    let settings = fresh();
    let fields = [("name", StoredType::String), ("email", StoredType::Email)];
    let plan = Arc::new(plan("thing", &fields).identified(&["email"]));
    let start = || {
        let (settings, plan) = (settings.clone(), Arc::clone(&plan));
        async move {
            let target = open(settings).await;
            for _ in 0..5 {
                target.ensure(&with("thing", &fields)).await.unwrap();
                target
                    .prepare(&job("acme", "sync", &[&plan]))
                    .await
                    .unwrap();
            }
        }
    };
    tokio::join!(start(), start(), start(), start());
}

/// An index that broke off while it was built is made anew, and so is one while there are rows.
#[tokio::test]
async fn indexes_are_made_beside_rows_and_used() {
    let mut store = Store::new().await;
    let mut writer = begin(&mut store).await;
    let keyed = person()
        .identified(&["email", "company"])
        .derive(by_id("company", "company"));
    let keyed = Arc::new(keyed.derive(by(
        "manager",
        "person",
        vec![on("name", StoredType::String)],
    )));
    writer
        .one(row(&keyed, "a", 1).text("email", "a@x.example"))
        .await;
    let plan = job("acme", "sync", &[&keyed]);
    store.target.prepare(&plan).await.unwrap();
    let valid = format!(
        "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE i.indisvalid AND i.indrelid = '{}'::regclass AND c.relname LIKE 'tributary_match%'",
        store.table("person")
    );
    let made = query(&valid).await;
    assert_eq!(made.len(), 2);
    execute(&format!(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{}'::regclass",
        store.table(&made[0])
    ))
    .await;
    assert_eq!(query(&valid).await.len(), 1);
    store.target.prepare(&plan).await.unwrap();
    assert_eq!(query(&valid).await.len(), 2);
    // The statement that the target runs takes the index, on any server settings.
    let lookup = crate::target::postgres::lookup::Lookup::of_identifiers(
        "person",
        &keyed.identifiers,
        &keyed.columns,
    );
    let sql = lookup.sql(&store.target.schemas);
    let client = server().client().await;
    client
        .batch_execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    client
        .batch_execute(&format!("PREPARE q AS {sql}"))
        .await
        .unwrap();
    let explained = client
        .query(
            "EXPLAIN EXECUTE q(6, ARRAY['a'], ARRAY[gen_random_uuid()])",
            &[],
        )
        .await
        .unwrap();
    let lines: Vec<String> = explained.iter().map(|row| row.get(0)).collect();
    let plan = lines.join("\n");
    assert!(made.iter().any(|index| plan.contains(index)), "{plan}");
}

/// Names that are keywords, quotes or numbers; the same statements on each.
#[tokio::test]
async fn names_are_quoted() {
    let store = Store::new().await;
    for name in [
        "user",
        "case",
        "order",
        "1st",
        "7",
        "a\"b",
        "a'b",
        "a`b]",
        "Größe; drop",
        "x.y",
        "{l}",
    ] {
        let fields = [
            (name, StoredType::String),
            ("parent", StoredType::Gsid),
            ("email", StoredType::Email),
        ];
        store.target.ensure(&with(name, &fields)).await.unwrap();
        let keys = vec![MatchKey::RecordId, on(name, StoredType::String)];
        let columns = [(name, StoredType::String), ("email", StoredType::Email)];
        let plan = plan(name, &columns)
            .identified(&["email", name])
            .derive(by("parent", name, keys));
        let plan = Arc::new(plan);
        store
            .target
            .prepare(&job("acme", name, &[&plan]))
            .await
            .unwrap();
        let mut writer = world::Writer::open(store.target(), "acme", name).await;
        let of = |record: &str, version| {
            let row = row(&plan, record, version).text(name, "x");
            row.text("email", "e@x.example")
                .to("parent", &["late", "x"])
        };
        assert_eq!(writer.one(of("a", 1)).await, Outcome::Inserted, "{name}");
        assert_eq!(writer.one(of("b", 1)).await, Outcome::Associated, "{name}");
        let late = row(&plan, "late", 1).text(name, "x");
        let late = late.text("email", "late@x.example");
        assert_eq!(writer.one(late).await, Outcome::Inserted, "{name}");
        assert_eq!(writer.release().await.filled, 2, "{name}");
        assert_eq!(writer.one(of("a", 2)).await, Outcome::Unchanged, "{name}");
        let left = writer.one(deleted(&plan, "a", 3)).await;
        assert_eq!(left, Outcome::Deleted, "{name}");
        let page = RowsPage {
            filter: vec![(name.to_owned(), "x".to_owned())],
            ..RowsPage::default()
        };
        assert_eq!(
            store.target.rows(name, page).await.unwrap().len(),
            2,
            "{name}"
        );
    }
}

/// Numbers that are equal are one key, and come back with the digits that were given.
#[tokio::test]
async fn numbers_match_by_value_and_keep_their_digits() {
    let store = Store::new().await;
    let fields = [("n", StoredType::Number), ("parent", StoredType::Gsid)];
    store.target.ensure(&with("thing", &fields)).await.unwrap();
    let keyed = Arc::new(plan("thing", &[("n", StoredType::Number)]).identified(&["n"]));
    let by_number = by("parent", "thing", vec![on("n", StoredType::Number)]);
    let child = Arc::new(plan("thing", &[]).derive(by_number));
    let mut writer = world::Writer::open(store.target(), "acme", "sync").await;
    let numbers = [
        ("10", "10.0"),
        ("-0.50", "-0.5"),
        ("12345678901234567890.5", "12345678901234567890.50"),
        ("0.30000000000000004", "0.300000000000000040"),
    ];
    for (n, (one, other)) in numbers.into_iter().enumerate() {
        // The child comes first and waits under the number's other spelling.
        let wanted = Reference::Values(vec![Cell::Number(other.into())]);
        writer
            .one(row(&child, &format!("c{n}"), 1).reference("parent", wanted))
            .await;
        assert_eq!(writer.release().await.filled, 0);
        let parent = row(&keyed, &format!("a{n}"), 1).number("n", one);
        assert_eq!(writer.one(parent).await, Outcome::Inserted, "{one}");
        assert_eq!(writer.release().await.filled, 1, "{one}");
        let same = row(&keyed, &format!("b{n}"), 1).number("n", other);
        assert_eq!(writer.one(same).await, Outcome::Associated, "{other}");
        let kept = writer.cell_of("thing", &format!("a{n}"), "n").await;
        assert_eq!(kept, Cell::Number(one.into()));
    }
}

/// What PostgreSQL can't keep is told of the row itself, with column and reason; the batch's others go through.
#[tokio::test]
async fn values_that_fit_no_column_are_rejected_one_by_one() {
    let store = Store::new().await;
    let fields = [
        ("s", StoredType::String),
        ("n", StoredType::Number),
        ("d", StoredType::Date),
        ("t", StoredType::DateTime),
    ];
    store.target.ensure(&with("thing", &fields)).await.unwrap();
    let plan = Arc::new(plan("thing", &fields));
    let mut writer = world::Writer::open(store.target(), "acme", "sync").await;
    let far = chrono::NaiveDate::MIN;
    let bad = [
        ("s", text("a\0b")),
        ("n", Cell::Number("9".repeat(131_073).into())),
        ("n", Cell::Number("1e5".into())),
        ("n", Cell::Number("NaN".into())),
        ("d", Cell::Date(far)),
        (
            "t",
            Cell::DateTime(chrono::DateTime::<chrono::Utc>::MIN_UTC),
        ),
    ];
    for (column, cell) in bad {
        let rows = [
            row(&plan, "good", 1),
            row(&plan, "bad", 1).cell(column, cell.clone()),
        ];
        let refused = writer.refused(rows).await;
        assert_eq!(refused.len(), 1, "{cell:?}");
        assert!(refused[0].contains(&format!("`{column}`")), "{refused:?}");
        assert!(refused[0].len() < 500, "{refused:?}");
    }
    let refused = writer.refused([row(&plan, "re\0cord", 1)]).await;
    assert!(refused[0].contains("U+0000"), "{refused:?}");
    // At the edge of what fits.
    for (column, cell) in [
        ("n", Cell::Number("9".repeat(131_072).into())),
        (
            "n",
            Cell::Number(format!("0.{}", "1".repeat(16_383)).into()),
        ),
        (
            "d",
            Cell::Date(chrono::NaiveDate::from_ymd_opt(-4712, 1, 1).unwrap()),
        ),
        (
            "t",
            Cell::DateTime("9999-12-31T23:59:59.999999Z".parse().unwrap()),
        ),
    ] {
        let edge = row(&plan, "edge", 2).cell(column, cell.clone());
        writer.one(edge).await;
        assert_eq!(writer.cell_of("thing", "edge", column).await, cell);
    }
}

/// What the server refuses is a fault of the record, so that the batch is bisected; then it goes on.
#[tokio::test]
async fn what_the_server_refuses_is_a_fault_of_the_record() {
    let mut store = Store::new().await;
    let mut writer = begin(&mut store).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 1).text("name", "one")).await;
    execute(&format!(
        "ALTER TABLE {} ADD CHECK (\"name\" <> 'bad'); CREATE UNIQUE INDEX ON {} (\"employees\")",
        store.table("company"),
        store.table("company")
    ))
    .await;
    writer
        .one(row(&plan, "e", 1).number("employees", "5"))
        .await;
    store
        .target
        .prepare(&job("acme", "sync", &[&plan]))
        .await
        .unwrap();
    // More than an index takes, and nothing that could be pressed together.
    let long: String = (0..400_000_u64)
        .map(|n| char::from(b'!' + (n.wrapping_mul(2_654_435_761) >> 7 & 63) as u8))
        .collect();
    for bad in [
        row(&plan, "b", 1).text("name", "bad"),
        row(&plan, "b", 1).number("employees", "5.0"),
        row(&plan, "b", 1).text("external_id", &long),
    ] {
        let batch = writer.batch([row(&plan, "good", 1), bad]);
        let fault = writer.apply(batch).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Record, "{fault:?}");
        assert_eq!(fault.fate(), Fate::DeadLetter);
        assert!(writer.traced("good").await.is_empty());
    }
    assert_eq!(writer.one(row(&plan, "good", 1)).await, Outcome::Inserted);
}

/// Looking for what no row can have finds nothing, and waits for nothing in particular.
#[tokio::test]
async fn keys_that_no_row_can_have_find_none() {
    let mut store = Store::new().await;
    let mut writer = begin(&mut store).await;
    let keys = vec![on("external_id", StoredType::String)];
    let plan = Arc::new(
        person()
            .derive(by("company", "company", keys))
            .derive(by_id("manager", "person")),
    );
    let odd = row(&plan, "p", 1)
        .to("company", &["a\0b"])
        .to("manager", &["c\0d"]);
    assert_eq!(writer.one(odd).await, Outcome::Inserted);
    assert_eq!(writer.parked().await, 2);
    assert_eq!(writer.release().await.filled, 0);
    let (connection, job) = (&writer.reader.connection, &writer.reader.job);
    let later = chrono::DateTime::<chrono::Utc>::MAX_UTC;
    let expired = store.target.expired(connection, job, &[0], later, 10);
    assert_eq!(expired.await.unwrap().len(), 2);
}

/// Where the columns are more than a number has bits.
#[tokio::test]
async fn a_wide_table_is_written_column_by_column() {
    let store = Store::new().await;
    let names: Vec<String> = (0..150).map(|n| format!("c{n}")).collect();
    let fields: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), StoredType::String))
        .collect();
    store.target.ensure(&with("wide", &fields)).await.unwrap();
    let plan = Arc::new(plan("wide", &fields));
    let mut writer = world::Writer::open(store.target(), "acme", "sync").await;
    let mut full = row(&plan, "a", 1);
    for name in &names {
        full = full.text(name, "old");
    }
    writer.one(full).await;
    for n in [0, 61, 62, 63, 124, 149] {
        let mut one = row(&plan, "a", 2 + n);
        for name in &names {
            one = one.cell(name, None);
        }
        let outcome = writer.one(one.text(&names[n as usize], "new")).await;
        assert_eq!(outcome, Outcome::Updated, "{n}");
    }
    let stored = writer.row_of("wide", "a").await.unwrap();
    for (n, name) in names.iter().enumerate() {
        let due = if [0, 61, 62, 63, 124, 149].contains(&n) {
            "new"
        } else {
            "old"
        };
        assert_eq!(stored.cell(name), text(due), "{name}");
    }
}

/// A later build wrote the ledger.
#[tokio::test]
async fn a_later_ledger_is_refused() {
    let store = Store::new().await;
    execute(&format!(
        "INSERT INTO {} (number) VALUES (99)",
        store.ledger("step")
    ))
    .await;
    let refused = store.target.ensure(&[]).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Config, "{refused:?}");
}

/// Plans are made when tables are all but empty, and kept. The rows that are read per row written stay the same as
/// the tables grow, though nobody tells the planner.
#[tokio::test]
async fn statements_stay_quick_when_tables_grow() {
    let mut settings = fresh();
    settings.writers = 1;
    let mut store = Store::with(settings).await;
    let mut writer = begin(&mut store).await;
    let companies = Arc::new(company());
    let persons = Arc::new(person().derive(by_id("company", "company")).derive(by(
        "manager",
        "person",
        vec![on("name", StoredType::String)],
    )));
    store
        .target
        .prepare(&job("acme", "sync", &[&companies, &persons]))
        .await
        .unwrap();
    for table in [
        store.table("company"),
        store.table("person"),
        store.ledger("crosswalk"),
        store.ledger("parked_reference"),
    ] {
        execute(&format!(
            "ALTER TABLE {table} SET (autovacuum_enabled = false)"
        ))
        .await;
    }
    const BATCHES: usize = 30;
    const SIZE: usize = 100;
    let rows = |range: std::ops::Range<usize>, version: u64| {
        let mut rows = Vec::new();
        for n in range {
            let name = format!("{version} {n}");
            let company =
                row(&companies, &format!("c{n}"), version).text("external_id", &n.to_string());
            rows.push(company.text("name", &name));
            // Half of the parents come later.
            let parent = format!("c{}", if n % 2 == 0 { n } else { n + SIZE });
            let person = row(&persons, &format!("p{n}"), version).text("email", &n.to_string());
            rows.push(person.text("name", &name).to("company", &[&parent]));
        }
        rows
    };
    // The planner sees one row of each.
    writer.send(rows(0..1, 1)).await;
    let analyze = format!(
        "ANALYZE {}, {}, {}",
        store.table("company"),
        store.table("person"),
        store.ledger("crosswalk")
    );
    execute(&analyze).await;
    writer.send(rows(0..1, 2)).await;
    writer.release().await;
    for version in 3..6 {
        for batch in 0..BATCHES {
            let from = batch * SIZE;
            writer.send(rows(from..from + SIZE, version)).await;
            writer.release().await;
        }
    }
    // A session that ends hands its counts over.
    store.target.close().await.unwrap();
    let written = (2 * SIZE * 3 * BATCHES) as i64;
    let read = format!(
        "SELECT relname || '.' || indexrelname || ' ' || idx_tup_read FROM pg_stat_user_indexes
         WHERE schemaname IN ('{}', '{}') AND idx_tup_read > 0 ORDER BY idx_tup_read DESC",
        store.settings.store, store.settings.ledger
    );
    let counts = query(&read).await;
    let count = |line: &String| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap();
    let total: i64 = counts.iter().map(count).sum();
    assert!(total >= written, "nothing was counted: {total}");
    // Entries of dead rows are read again as long as some other test's transaction may see them. A wrong plan reads
    // hundreds for a row.
    assert!(
        total < 20 * written,
        "{total} index entries read for {written} rows: {counts:#?}"
    );
}

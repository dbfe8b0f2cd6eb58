//! What is SQLite's own: how tables are made and grow, what their columns keep, how they are searched.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::hooks::{AuthContext, Authorization};

use super::File;
use crate::fault::FaultKind;
use crate::mapping::plan::{Cell, MatchKey};
use crate::model::stored::{StoredObject, StoredType};
use crate::runtime::clock::SystemClock;
use crate::sqlite::database::Database;
use crate::sqlite::writer::Writer;
use crate::target::port::{Outcome, RowsPage, Target};
use crate::target::sqlite::lookup::Lookup;
use crate::target::sqlite::{SqliteTarget, ledger};
use crate::target::suite::Bench;
use crate::target::suite::plans::{
    by, by_id, company, deleted, job, object, on, person, plan, row, text,
};
use crate::target::suite::world::{self, begin};

fn with(table: &str, fields: &[(&str, StoredType)]) -> Vec<StoredObject> {
    vec![object(table, fields)]
}

#[tokio::test]
async fn a_table_grows_and_drops_nothing() {
    let mut file = File::new().await;
    let first = with("thing", &[("name", StoredType::String)]);
    file.target.ensure(&first).await.unwrap();
    let mut writer = world::Writer::open(file.target(), "acme", "sync").await;
    let old = Arc::new(plan("thing", &[("name", StoredType::String)]));
    writer.one(row(&old, "a", 1).text("name", "one")).await;
    let wider = with(
        "thing",
        &[("size", StoredType::Number), ("email", StoredType::Email)],
    );
    file.target.ensure(&wider).await.unwrap();
    let columns = file
        .query("SELECT name FROM pragma_table_info('thing')")
        .await;
    let due = [
        "gsid",
        "created_date",
        "modified_date",
        "crm_state",
        "crm_state_at",
        "name",
        "size",
        "email",
    ];
    assert_eq!(columns, due);
    let new = plan(
        "thing",
        &[("size", StoredType::Number), ("email", StoredType::Email)],
    );
    let new = Arc::new(new.identified(&["email"]));
    file.target
        .prepare(&job("acme", "sync", &[&new]))
        .await
        .unwrap();
    writer.one(row(&new, "a", 2).number("size", "7")).await;
    file.reopen().await;
    file.target.ensure(&first).await.unwrap();
    let row = writer
        .again(&file)
        .await
        .row_of("thing", "a")
        .await
        .unwrap();
    assert_eq!(
        (row.cell("name"), row.cell("size")),
        (text("one"), Cell::Number("7".into()))
    );
}

#[tokio::test]
async fn another_type_is_refused_and_a_kindred_one_taken() {
    let file = File::new().await;
    file.target
        .ensure(&with("thing", &[("c", StoredType::Date)]))
        .await
        .unwrap();
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
        let refused = file.target.ensure(&objects).await.unwrap_err();
        assert_eq!(refused.kind(), FaultKind::Config, "{ty:?}");
        for named in ["`c`", "`thing`", "date"] {
            assert!(refused.report().contains(named), "{}", refused.report());
        }
    }
    // All or nothing.
    let tables = file
        .query("SELECT name FROM sqlite_master WHERE name = 'fresh'")
        .await;
    assert!(tables.is_empty());
    let columns = file
        .query("SELECT name FROM pragma_table_info('thing') WHERE name = 'new'")
        .await;
    assert!(columns.is_empty());
    for ty in [StoredType::String, StoredType::Picklist, StoredType::Email] {
        file.target
            .ensure(&with("thing", &[("t", ty)]))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn tables_of_others_and_taken_names_are_refused() {
    let file = File::new().await;
    file.execute("CREATE TABLE theirs (gsid TEXT PRIMARY KEY, n ANY)")
        .await;
    for (table, column) in [
        ("theirs", "n"),
        ("tributary_offset", "n"),
        ("Tributary_x", "n"),
        ("sqlite_x", "n"),
        ("", "n"),
        ("thing", "gsid"),
        ("thing", "CRM_state"),
    ] {
        let objects = with(table, &[(column, StoredType::Number)]);
        let refused = file.target.ensure(&objects).await.unwrap_err();
        assert_eq!(
            refused.kind(),
            FaultKind::Config,
            "{table}.{column}: {refused:?}"
        );
    }
    // And nobody reads the ledger as if it were a table of the store.
    let refused = file
        .target
        .rows("tributary_offset", RowsPage::default())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Missing);
}

/// Names that are keywords, quotes or numbers; the same statements on each.
#[tokio::test]
async fn names_are_quoted() {
    let file = File::new().await;
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
        "group by",
    ] {
        let fields = [
            (name, StoredType::String),
            ("parent", StoredType::Gsid),
            ("email", StoredType::Email),
        ];
        file.target.ensure(&with(name, &fields)).await.unwrap();
        let found = by(
            "parent",
            name,
            vec![MatchKey::RecordId, on(name, StoredType::String)],
        );
        let plan = plan(
            name,
            &[(name, StoredType::String), ("email", StoredType::Email)],
        )
        .identified(&["email", name])
        .derive(found);
        let plan = Arc::new(plan);
        file.target
            .prepare(&job("acme", name, &[&plan]))
            .await
            .unwrap();
        let mut writer = world::Writer::open(file.target(), "acme", name).await;
        let of = |record: &str, version| {
            let row = row(&plan, record, version)
                .text(name, "x")
                .text("email", "e@x.example");
            row.to("parent", &["late", "x"])
        };
        assert_eq!(writer.one(of("a", 1)).await, Outcome::Inserted, "{name}");
        assert_eq!(writer.one(of("b", 1)).await, Outcome::Associated, "{name}");
        let late = row(&plan, "late", 1)
            .text(name, "x")
            .text("email", "late@x.example");
        assert_eq!(writer.one(late).await, Outcome::Inserted, "{name}");
        assert_eq!(writer.release().await.filled, 2, "{name}");
        assert_eq!(writer.one(of("a", 2)).await, Outcome::Unchanged, "{name}");
        assert_eq!(
            writer.one(deleted(&plan, "a", 3)).await,
            Outcome::Deleted,
            "{name}"
        );
        let page = RowsPage {
            filter: vec![(name.to_owned(), "x".to_owned())],
            ..RowsPage::default()
        };
        assert_eq!(
            file.target.rows(name, page).await.unwrap().len(),
            2,
            "{name}"
        );
    }
}

#[tokio::test]
async fn what_is_stored_is_what_was_bound() {
    let file = File::new().await;
    let fields = [
        ("n", StoredType::Number),
        ("s", StoredType::String),
        ("b", StoredType::Boolean),
        ("d", StoredType::Date),
        ("t", StoredType::DateTime),
    ];
    file.target.ensure(&with("thing", &fields)).await.unwrap();
    let plan = Arc::new(plan("thing", &fields));
    let mut writer = world::Writer::open(file.target(), "acme", "sync").await;
    let at = |text: &str| Cell::DateTime(text.parse().unwrap());
    let mut version = 0;
    for (column, cell, class, shown) in [
        (
            "n",
            Cell::Number("123456789012345678".into()),
            "integer",
            "123456789012345678",
        ),
        (
            "n",
            Cell::Number("12345678901234567890123.45".into()),
            "text",
            "12345678901234567890123.45",
        ),
        ("n", Cell::Number("0.1".into()), "real", "0.1"),
        ("n", Cell::Number("007".into()), "integer", "7"),
        ("s", text("007"), "text", "007"),
        ("s", text("1e5"), "text", "1e5"),
        (
            "s",
            text("123456789012345678"),
            "text",
            "123456789012345678",
        ),
        (
            "s",
            text(" x\u{0}y\u{1f600} "),
            "text",
            " x\u{0}y\u{1f600} ",
        ),
        ("b", Cell::Boolean(true), "integer", "1"),
        (
            "d",
            Cell::Date("2026-01-31".parse().unwrap()),
            "text",
            "2026-01-31",
        ),
        (
            "t",
            at("2026-01-31T10:11:12Z"),
            "text",
            "2026-01-31T10:11:12.000Z",
        ),
        (
            "t",
            at("2026-01-31T10:11:12.000345Z"),
            "text",
            "2026-01-31T10:11:12.000345Z",
        ),
    ] {
        version += 1;
        writer
            .one(row(&plan, "a", version).cell(column, cell.clone()))
            .await;
        let sql = format!("SELECT typeof({column}) || ' ' || cast({column} AS TEXT) FROM thing");
        assert_eq!(file.query(&sql).await, [format!("{class} {shown}")]);
        let back = writer.cell_of("thing", "a", column).await;
        let due = match cell {
            Cell::Number(_) => Cell::Number(shown.into()),
            other => other,
        };
        assert_eq!(back, due);
        // `rows --filter` finds it by what it shows.
        let json = back.to_json();
        let spelled = json
            .as_str()
            .map_or_else(|| json.to_string(), str::to_owned);
        let filter = vec![(column.to_owned(), spelled)];
        let page = RowsPage {
            filter,
            ..RowsPage::default()
        };
        assert_eq!(
            file.target.rows("thing", page).await.unwrap().len(),
            1,
            "{back:?}"
        );
    }
    for (column, other) in [
        ("n", "x"),
        ("b", "yes"),
        ("t", "today"),
        ("gsid", "1"),
        ("s", ""),
    ] {
        let filter = vec![(column.to_owned(), other.to_owned())];
        let page = RowsPage {
            filter,
            ..RowsPage::default()
        };
        assert!(
            file.target.rows("thing", page).await.unwrap().is_empty(),
            "{column}"
        );
    }
}

#[tokio::test]
async fn numbers_match_by_value() {
    let file = File::new().await;
    let fields = [("n", StoredType::Number), ("parent", StoredType::Gsid)];
    file.target.ensure(&with("thing", &fields)).await.unwrap();
    let keyed = plan("thing", &[("n", StoredType::Number)]).identified(&["n"]);
    let keyed = Arc::new(keyed);
    let child = plan("thing", &[]).derive(by("parent", "thing", vec![on("n", StoredType::Number)]));
    let child = Arc::new(child);
    let mut writer = world::Writer::open(file.target(), "acme", "sync").await;
    let numbers = [
        ("10", "10.0"),
        ("-0.50", "-0.5"),
        ("12345678901234567890.5", "12345678901234567890.50"),
        ("0.30000000000000004", "0.300000000000000040"),
    ];
    for (n, (one, other)) in numbers.into_iter().enumerate() {
        // The child comes first and waits under the number's other spelling.
        let waits = row(&child, &format!("c{n}"), 1);
        let waits = waits.reference(
            "parent",
            crate::mapping::plan::Reference::Values(vec![Cell::Number(other.into())]),
        );
        writer.one(waits).await;
        assert_eq!(writer.release().await.filled, 0);
        let parent = row(&keyed, &format!("a{n}"), 1).number("n", one);
        assert_eq!(writer.one(parent).await, Outcome::Inserted, "{one}");
        assert_eq!(writer.release().await.filled, 1, "{one}");
        let same = row(&keyed, &format!("b{n}"), 1).number("n", other);
        assert_eq!(writer.one(same).await, Outcome::Associated, "{other}");
    }
}

#[tokio::test]
async fn matches_use_their_indexes() {
    let mut file = File::new().await;
    begin(&mut file).await;
    let plan = person()
        .identified(&["email", "company"])
        .derive(by_id("company", "company"))
        .derive(by(
            "manager",
            "person",
            vec![on("name", StoredType::String)],
        ));
    let plan = Arc::new(plan);
    for _ in 0..2 {
        file.target
            .prepare(&job("acme", "sync", &[&plan]))
            .await
            .unwrap();
    }
    let mut lookups: Vec<_> = plan.derives.iter().map(Lookup::of_derive).collect();
    lookups.push(Lookup::of_identifiers(
        "person",
        &plan.identifiers,
        &plan.columns,
    ));
    for (lookup, due) in lookups.iter().zip([
        "x USING PRIMARY KEY (connection=? AND destination=? AND record=?)",
        "t USING INDEX tributary_match person, trim name (<expr>=?)",
        "t USING INDEX tributary_match person, lower email, company (<expr>=? AND company=?)",
    ]) {
        let sql = format!("EXPLAIN QUERY PLAN {}", lookup.sql());
        let steps = file.target.writer.alone(move |transaction| {
            let mut statement = transaction.prepare(&sql)?;
            let rows = statement
                .raw_query()
                .mapped(|row| row.get::<_, String>(3))
                .collect::<Result<Vec<_>, _>>();
            Ok(rows?)
        });
        let steps = steps.await.unwrap();
        assert!(steps[0].contains(due), "{steps:?}");
    }
}

/// A store that counts what SQLite asks when it compiles statements.
async fn counting(counted: Arc<AtomicUsize>) -> File {
    let file = File::new().await;
    file.target.close().await.unwrap();
    let database = Database::new(file.path(), ledger::STEPS);
    let mut connection = database.open_writer().unwrap();
    let count = move |_: AuthContext<'_>| {
        counted.fetch_add(1, Ordering::Relaxed);
        Authorization::Allow
    };
    connection.authorizer(Some(count)).unwrap();
    let target = SqliteTarget {
        writer: Writer::start(file.path(), connection, None).unwrap(),
        store: SqliteTarget::read_only(&file.path()),
        clock: Arc::new(SystemClock),
        gsids: Arc::default(),
    };
    File {
        target: Arc::new(target),
        ..file
    }
}

/// The statements of a batch are those of its plans: SQLite compiles as many for 3 rows as for 300.
#[tokio::test]
async fn statements_do_not_grow_with_the_batch() {
    let mut counts = BTreeSet::new();
    for size in [3_u64, 300] {
        let counted = Arc::new(AtomicUsize::new(0));
        let mut file = counting(Arc::clone(&counted)).await;
        let mut writer = begin(&mut file).await;
        let persons = person()
            .derive(by_id("company", "company"))
            .derive(by_id("manager", "person"));
        let (companies, persons) = (Arc::new(company()), Arc::new(persons));
        for version in 1..4 {
            let mut rows = Vec::new();
            for n in 0..size {
                let record = n.to_string();
                let company =
                    row(&companies, &record, version).text("name", &format!("{version} {record}"));
                rows.push(if n % 3 == 0 {
                    company.cell("employees", None)
                } else {
                    company.cell("name", None)
                });
                let person = row(&persons, &record, version).text("email", &record);
                let person = person.to("company", &[&(n + version).to_string()]);
                rows.push(person.to("manager", &[&(n * 2).to_string()]));
            }
            writer.send(rows).await;
            writer.release().await;
        }
        counts.insert(counted.load(Ordering::Relaxed));
        assert!(counted.load(Ordering::Relaxed) > 10);
    }
    assert_eq!(counts.len(), 1, "{counts:?}");
}

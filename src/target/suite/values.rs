//! The suite on values: each type there and back, null and empty apart, what a policy leaves alone.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate};
use uuid::Uuid;

use super::Bench;
use super::plans::{by, company, object, on, plan, row, text};
use super::world::begin;
use crate::mapping::plan::Cell;
use crate::model::stored::StoredType;
use crate::model::value::Number;
use crate::target::port::Outcome::{Associated, Inserted, Unchanged, Updated};
use crate::target::port::RowsPage;

fn number(digits: &str) -> Cell {
    Cell::Number(digits.into())
}

fn date(text: &str) -> Cell {
    Cell::Date(text.parse::<NaiveDate>().unwrap())
}

fn instant(text: &str) -> Cell {
    Cell::DateTime(DateTime::parse_from_rfc3339(text).unwrap().to_utc())
}

/// Values of each type that have been lost or changed somewhere before.
fn samples() -> Vec<(StoredType, Vec<Cell>)> {
    use StoredType as T;
    let texts = || {
        let long = "x".repeat(100_000);
        [
            "007",
            "7",
            "",
            " ",
            " a ",
            "1e3",
            "true",
            "null",
            "2026-01-05",
            "Ünïcödé 🜁",
            "a\nb'\"\\%_",
            &long,
        ]
        .map(text)
        .to_vec()
    };
    let numbers = || {
        [
            "0",
            "-1",
            "0.10",
            "100.00",
            "123456789012345678",
            "-999999999999999999",
            "9007199254740993",
            "12345678901234567890.123456789012345678",
            "0.1",
            "0.3",
            "0.000000000000000001",
            "1000000000000000000000000000000",
        ]
        .map(number)
        .to_vec()
    };
    vec![
        (T::String, texts()),
        (T::Picklist, texts()),
        (T::MultiSelect, vec![text("a;b"), text("a"), text("")]),
        (T::Email, vec![text("Ann@X.example"), text("")]),
        (T::Url, vec![text("https://x.example/?a=1&b=%20")]),
        (T::RichText, vec![text("<p>&amp; é</p>")]),
        (T::Number, numbers()),
        (T::Currency, numbers()),
        (T::Percentage, numbers()),
        (T::Boolean, vec![Cell::Boolean(true), Cell::Boolean(false)]),
        (
            T::Date,
            ["2026-01-05", "0001-01-01", "1900-02-28", "9999-12-31"]
                .map(date)
                .to_vec(),
        ),
        (
            T::DateTime,
            [
                "2026-01-05T10:11:12Z",
                "2026-01-05T10:11:12.345Z",
                "2026-01-05T10:11:12.345678Z",
                "1969-12-31T23:59:59.999Z",
                "1700-01-01T00:00:00Z",
                "9999-12-31T23:59:59Z",
            ]
            .map(instant)
            .to_vec(),
        ),
        (
            T::Gsid,
            vec![Cell::Gsid(Uuid::from_u128(1)), Cell::Gsid(Uuid::max())],
        ),
    ]
}

pub async fn every_type_comes_back_as_it_went(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    // Columns named like words of SQL are columns.
    let names = [
        "order", "group", "select", "a b", "Über", "table", "from", "where", "null", "index",
        "key", "values", "default",
    ];
    let samples = samples();
    let columns: Vec<_> = names
        .into_iter()
        .zip(samples.iter().map(|(ty, _)| *ty))
        .collect();
    assert_eq!(columns.len(), samples.len());
    writer
        .target
        .ensure(&[object("user", &columns)])
        .await
        .unwrap();
    let plan = Arc::new(plan("user", &columns));
    let most = samples
        .iter()
        .map(|(_, values)| values.len())
        .max()
        .unwrap();
    let mut due = Vec::new();
    for n in 0..most {
        let record = n.to_string();
        let mut row = row(&plan, &record, 1);
        for ((column, _), (_, values)) in columns.iter().zip(&samples) {
            let value = values[n % values.len()].clone();
            row = row.cell(column, value.clone());
            due.push((record.clone(), *column, value));
        }
        assert_eq!(writer.one(row.clone()).await, Inserted);
        row.row.version = crate::model::version::Version::new(1, 2);
        assert_eq!(writer.one(row).await, Unchanged, "{n}");
    }
    bench.reopen().await;
    let writer = writer.again(bench).await;
    for (record, column, value) in due {
        let stored = writer.cell_of("user", &record, column).await;
        assert!(
            is_equal(&stored, &value),
            "{column}: {stored:?}, not {value:?}"
        );
    }
}

/// Equal, a number by its value.
fn is_equal(stored: &Cell, due: &Cell) -> bool {
    match (stored, due) {
        (Cell::Number(stored), Cell::Number(due)) => {
            let (stored, due) = (Number::parse(stored), Number::parse(due));
            stored.is_some() && stored == due
        }
        (stored, due) => stored == due,
    }
}

/// Another spelling of a number is no change, and is found by what looks for it.
pub async fn numbers_are_equal_by_value(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company().identified(&["employees"]));
    let sized = |record: &str, digits: &str| row(&plan, record, 1).number("employees", digits);
    assert_eq!(writer.one(sized("a", "1054")).await, Inserted);
    assert_eq!(writer.one(sized("a", "1054.0")).await, Unchanged);
    assert_eq!(writer.one(sized("b", "1054.00")).await, Associated);
    assert_eq!(writer.one(sized("c", "9007199254740993")).await, Inserted);
    assert_eq!(writer.one(sized("d", "9007199254740992")).await, Inserted);
    assert_eq!(writer.one(sized("e", "0.1")).await, Inserted);
    assert_eq!(writer.one(sized("f", "0.10")).await, Associated);
    assert_eq!(
        writer.one(sized("g", "0.1000000000000000055")).await,
        Inserted
    );
    for (digits, rows) in [
        ("1054.0", 1),
        ("9007199254740993", 1),
        ("0.100", 1),
        ("105", 0),
    ] {
        let page = RowsPage {
            filter: vec![("employees".to_owned(), digits.to_owned())],
            ..RowsPage::default()
        };
        let found = writer.target.rows("company", page).await.unwrap();
        assert_eq!(found.len(), rows, "{digits}");
    }
}

pub async fn empty_and_null_are_two_things(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let named = |version: u64, name: Cell| row(&plan, "a", version).cell("name", name);
    assert_eq!(writer.one(named(1, Cell::Null)).await, Inserted);
    assert_eq!(writer.cell_of("company", "a", "name").await, Cell::Null);
    assert_eq!(writer.one(named(2, text(""))).await, Updated);
    assert_eq!(writer.cell_of("company", "a", "name").await, text(""));
    assert_eq!(writer.one(named(3, text(""))).await, Unchanged);
    assert_eq!(writer.one(named(4, text("x"))).await, Updated);
    assert_eq!(writer.one(named(5, Cell::Null)).await, Updated);
    assert_eq!(writer.cell_of("company", "a", "name").await, Cell::Null);
    assert_eq!(writer.one(named(6, Cell::Null)).await, Unchanged);
}

pub async fn an_absent_cell_leaves_its_column(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let full = |record: &str, version: u64, name: Option<Cell>| {
        let row = row(&plan, record, version).number("employees", &version.to_string());
        row.text("external_id", record).cell("name", name)
    };
    // Rows of one batch may lack different fields.
    writer
        .send(["a", "b"].map(|record| full(record, 1, Some(text("one")))))
        .await;
    let outcomes = writer
        .send([
            full("a", 2, None),
            full("b", 2, Some(Cell::Null)),
            full("c", 2, None),
        ])
        .await;
    assert_eq!(outcomes, [Updated, Updated, Inserted]);
    assert_eq!(writer.cell_of("company", "a", "name").await, text("one"));
    assert_eq!(writer.cell_of("company", "b", "name").await, Cell::Null);
    assert_eq!(writer.cell_of("company", "c", "name").await, Cell::Null);
    for record in ["a", "b", "c"] {
        assert_eq!(
            writer.cell_of("company", record, "employees").await,
            number("2")
        );
    }
    let nothing = row(&plan, "a", 3)
        .cell("name", None)
        .cell("employees", None);
    assert_eq!(
        writer.one(nothing.cell("external_id", None)).await,
        Unchanged
    );
}

pub async fn insert_only_columns_are_written_once(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let mut once = company();
    once.column("name").insert_only = true;
    let plan = Arc::new(once);
    let named = |record: &str, version: u64, name: &str| {
        row(&plan, record, version)
            .text("external_id", "k")
            .text("name", name)
    };
    assert_eq!(writer.one(named("a", 1, "first")).await, Inserted);
    assert_eq!(writer.one(named("a", 2, "second")).await, Unchanged);
    // To join a row is no insert.
    assert_eq!(writer.one(named("b", 1, "third")).await, Associated);
    assert_eq!(writer.cell_of("company", "a", "name").await, text("first"));
    // A row that comes back is one.
    for record in ["a", "b"] {
        writer.one(super::plans::deleted(&plan, record, 3)).await;
    }
    assert_eq!(writer.one(named("a", 4, "again")).await, Inserted);
    assert_eq!(writer.cell_of("company", "a", "name").await, text("again"));
    // In one batch: the first inserts, the second joins.
    let other = |record: &str, name: &str| {
        row(&plan, record, 1)
            .text("external_id", "other")
            .text("name", name)
    };
    writer.send([other("c", "c"), other("d", "d")]).await;
    assert_eq!(writer.cell_of("company", "d", "name").await, text("c"));
}

pub async fn a_null_does_not_overwrite_where_values_are_kept(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let mut kept = company();
    kept.column("name").keep_on_null = true;
    let plan = Arc::new(kept);
    let named = |version: u64, name: Cell| {
        row(&plan, "a", version)
            .text("external_id", "a")
            .cell("name", name)
    };
    assert_eq!(writer.one(named(1, Cell::Null)).await, Inserted);
    assert_eq!(writer.cell_of("company", "a", "name").await, Cell::Null);
    assert_eq!(writer.one(named(2, text("one"))).await, Updated);
    assert_eq!(writer.one(named(3, Cell::Null)).await, Unchanged);
    assert_eq!(writer.cell_of("company", "a", "name").await, text("one"));
    assert_eq!(
        writer.one(named(4, text(""))).await,
        Updated,
        "an empty text is a value"
    );
    assert_eq!(writer.one(named(5, text("two"))).await, Updated);
    assert_eq!(writer.cell_of("company", "a", "name").await, text("two"));
}

/// Two rows that write one row, each with columns that the other one lacks.
pub async fn writers_of_one_row_keep_to_their_cells(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let first = row(&plan, "a", 1)
        .text("external_id", "k")
        .text("name", "one");
    let second = row(&plan, "b", 1)
        .text("external_id", "k")
        .number("employees", "2");
    let rows = [first.cell("employees", None), second.cell("name", None)];
    assert_eq!(writer.send(rows).await, [Inserted, Associated]);
    assert_eq!(writer.cell_of("company", "a", "name").await, text("one"));
    assert_eq!(
        writer.cell_of("company", "a", "employees").await,
        number("2")
    );
}

pub async fn a_value_of_another_type_is_refused(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let wrong = [
        row(&plan, "a", 1).cell("employees", text("many")),
        row(&plan, "a", 1).cell("employees", Cell::Boolean(true)),
        row(&plan, "a", 1).cell("name", number("1")),
    ];
    for row in wrong {
        let reasons = writer.refused([row.clone()]).await;
        assert_eq!(reasons.len(), 1, "{row:?}");
        let named = ["name", "employees"]
            .iter()
            .any(|column| reasons[0].contains(column));
        assert!(named, "{reasons:?}");
    }
    assert!(writer.all("company").await.is_empty());
}

/// Look-ups and filters compare texts as texts, whatever they look like.
pub async fn texts_that_look_like_numbers_are_texts(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let companies = Arc::new(company());
    for key in ["7", "007", "7.0"] {
        writer
            .one(row(&companies, key, 1).text("external_id", key))
            .await;
    }
    let keys = vec![on("external_id", StoredType::String)];
    let persons = Arc::new(super::plans::person().derive(by("company", "company", keys)));
    for key in ["7", "007", "7.0"] {
        writer
            .one(row(&persons, key, 1).to("company", &[key]))
            .await;
        let company = writer.gsid_of("company", key).await;
        let found = writer.cell_of("person", key, "company").await;
        assert_eq!(found, Cell::Gsid(company), "{key}");
        let page = RowsPage {
            filter: vec![("external_id".to_owned(), key.to_owned())],
            ..RowsPage::default()
        };
        let rows = writer.target.rows("company", page).await.unwrap();
        assert_eq!(rows.len(), 1, "{key}");
        assert_eq!(rows[0].gsid, company);
    }
}

//! SOQL by example, and against a naive filter over random rows and conditions.

use std::cmp::Ordering;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use proptest::prelude::*;

use super::super::ids;
use super::super::load::Loaded;
use super::super::schema::{Field, FieldType, Object};
use super::super::store::{Record, Store};
use super::super::value::Value;
use super::{SoqlError, run};

/// A row in plain types.
#[derive(Debug, Clone)]
struct Row {
    id: String,
    text: Option<String>,
    number: Option<i32>,
    flag: bool,
    date: Option<NaiveDate>,
    stamp: DateTime<Utc>,
    deleted: bool,
    parent: Option<usize>,
}

fn epoch() -> DateTime<Utc> {
    "2024-05-15T10:00:00Z".parse().unwrap()
}

fn object() -> Object {
    let mut parent = Field::new("ParentId", FieldType::Reference);
    parent.reference_to = vec!["Thing".to_owned()];
    let fields = vec![
        Field::new("Name", FieldType::String),
        Field::new("Size", FieldType::Double),
        Field::new("Flag", FieldType::Boolean),
        Field::new("Day", FieldType::Date),
        Field::new("Notes", FieldType::Textarea),
        parent,
    ];
    Object::new("Thing", "a01", fields, Vec::new())
}

fn store(rows: &[Row]) -> Store {
    let object = object();
    let set = |record: &mut Record, name: &str, value: Option<Value>| {
        record.set(object.place(name).unwrap(), value.unwrap_or(Value::Null));
    };
    let records = rows
        .iter()
        .map(|row| {
            let mut record = Record::new(vec![Value::Null; object.fields.len()]);
            set(&mut record, "Id", Some(Value::id(&row.id)));
            set(&mut record, "Name", row.text.as_deref().map(Value::text));
            set(
                &mut record,
                "Size",
                row.number.map(|number| Value::Double(number.into())),
            );
            set(&mut record, "Flag", Some(Value::Bool(row.flag)));
            set(&mut record, "Day", row.date.map(Value::Date));
            set(
                &mut record,
                "SystemModstamp",
                Some(Value::DateTime(row.stamp)),
            );
            set(&mut record, "IsDeleted", Some(Value::Bool(row.deleted)));
            let parent = row
                .parent
                .map(|parent| Value::id(&rows[parent % rows.len()].id));
            set(&mut record, "ParentId", parent);
            Arc::new(record)
        })
        .collect();
    let mut store = Store::default();
    store.add(Loaded {
        object,
        rows: records,
    });
    store
}

fn row(n: u64) -> Row {
    Row {
        id: ids::nth("a01", n),
        text: None,
        number: None,
        flag: false,
        date: None,
        stamp: epoch(),
        deleted: false,
        parent: None,
    }
}

/// The ids that a query finds, as serial numbers.
fn found(store: &Store, soql: &str, all: bool) -> Result<Vec<String>, SoqlError> {
    let results = run(store, soql, all, epoch())?;
    let rows = results.page(0, usize::MAX, "66.0");
    Ok(rows
        .iter()
        .map(|row| row["Id"].as_str().unwrap_or_default().to_owned())
        .collect())
}

fn code(soql: &str) -> &'static str {
    match run(&store(&[row(1)]), soql, false, epoch()) {
        Ok(_) => "",
        Err(error) => error.code,
    }
}

#[test]
fn parentheses_without_end_are_refused() {
    let nested = |depth: usize| {
        let (open, close) = ("(".repeat(depth), ")".repeat(depth));
        code(&format!("SELECT Id FROM Thing WHERE {open}Size = 1{close}"))
    };
    assert_eq!(nested(200), "");
    assert_eq!(nested(40_000), "MALFORMED_QUERY");
}

#[test]
fn what_an_org_refuses_is_refused() {
    let malformed = [
        "SELECT Id",
        "SELECT FROM Thing",
        "SELECT Id, FROM Thing",
        "SELECT Id FROM Thing WHERE",
        "SELECT Id FROM Thing WHERE Name",
        "SELECT Id FROM Thing WHERE Name = ",
        "SELECT Id FROM Thing WHERE Name = 'open",
        "SELECT Id FROM Thing WHERE Name = \"x\"",
        "SELECT Id FROM Thing WHERE Name = bare",
        r"SELECT Id FROM Thing WHERE Name = 'a\z'",
        "SELECT Id FROM Thing WHERE Id = a01SIM000000001",
        "SELECT Id FROM Thing WHERE Name = 'a' AND Size = 1 OR Flag = true",
        "SELECT Id FROM Thing WHERE Name = 'a' AND NOT Size = 1",
        "SELECT Id FROM Thing WHERE NOT Name = 'a' AND Size = 1",
        "SELECT Id FROM Thing WHERE (Name = 'a'",
        "SELECT Id FROM Thing WHERE Name IN ()",
        "SELECT Id FROM Thing WHERE Name IN 'a'",
        "SELECT Id FROM Thing WHERE Size > null",
        "SELECT Id FROM Thing WHERE SystemModstamp > 2024-01-01T00:00:00",
        "SELECT Id FROM Thing WHERE SystemModstamp > 2024-01-01T00:00:00 00:00",
        "SELECT Id FROM Thing WHERE Day > -2024-1-01",
        r"SELECT Id FROM Thing WHERE Name = '\u+041'",
        "SELECT Id FROM Thing WHERE Day = LAST_N_DAYS",
        "SELECT Id FROM Thing WHERE Day = TODAY:3",
        "SELECT Id FROM Thing ORDER Name",
        "SELECT Id FROM Thing ORDER BY Notes",
        "SELECT Id FROM Thing LIMIT x",
        "SELECT Id FROM Thing LIMIT -1",
        "SELECT Id FROM Thing OFFSET 1 LIMIT 1",
        "SELECT Id FROM Thing LIMIT 1;",
        "SELECT * FROM Thing",
        "SELECT COUNT() FROM Thing ORDER BY Id",
        "SELECT Name FROM Thing GROUP BY Id",
        "SELECT COUNT() FROM Thing GROUP BY Id",
        "SELECT Name, COUNT(Id) FROM Thing",
        "SELECT SUM(Name) FROM Thing",
        "SELECT COUNT(Id) FROM Thing ORDER BY Name",
        "SELECT Id FROM Thing WHERE Id = 'x' -- comment",
        "UPDATE Thing SET Name = 'a'",
    ];
    for soql in malformed {
        assert_eq!(code(soql), "MALFORMED_QUERY", "{soql}");
    }
    let typed = [
        ("SELECT Nope FROM Thing", "INVALID_FIELD"),
        ("SELECT Id FROM Nope", "INVALID_TYPE"),
        ("SELECT Nope.Id FROM Thing", "INVALID_FIELD"),
        ("SELECT Id FROM Thing WHERE Nope = 1", "INVALID_FIELD"),
        ("SELECT Id FROM Thing ORDER BY Nope", "INVALID_FIELD"),
        ("SELECT Id FROM Thing WHERE Name = 1", "INVALID_FIELD"),
        ("SELECT Id FROM Thing WHERE Size = '1'", "INVALID_FIELD"),
        ("SELECT Id FROM Thing WHERE Flag = 'true'", "INVALID_FIELD"),
        (
            "SELECT Id FROM Thing WHERE Day = '2024-01-01'",
            "INVALID_FIELD",
        ),
        (
            "SELECT Id FROM Thing WHERE Day = 2024-01-01T00:00:00Z",
            "INVALID_FIELD",
        ),
        (
            "SELECT Id FROM Thing WHERE SystemModstamp = 2024-01-01",
            "INVALID_FIELD",
        ),
        ("SELECT Id FROM Thing WHERE Name = TODAY", "INVALID_FIELD"),
        ("SELECT Id FROM Thing WHERE Notes = 'a'", "INVALID_FIELD"),
        (
            "SELECT Id FROM Thing WHERE Flag > true",
            "INVALID_QUERY_FILTER_OPERATOR",
        ),
        (
            "SELECT Id FROM Thing WHERE Size LIKE 'a%'",
            "INVALID_QUERY_FILTER_OPERATOR",
        ),
        (
            "SELECT Id FROM Thing WHERE Id LIKE 'a%'",
            "INVALID_QUERY_FILTER_OPERATOR",
        ),
        (
            "SELECT Id FROM Thing WHERE Id = 'a01SIM000000001AAB'",
            "INVALID_QUERY_FILTER_OPERATOR",
        ),
        (
            "SELECT Id FROM Thing OFFSET 2001",
            "NUMBER_OUTSIDE_VALID_RANGE",
        ),
    ];
    for (soql, expected) in typed {
        assert_eq!(code(soql), expected, "{soql}");
    }
    let long = format!(
        "SELECT Id FROM Thing WHERE Name = '{}'",
        "x".repeat(100_000)
    );
    assert_eq!(code(&long), "MALFORMED_QUERY");
    let deep = format!("SELECT {}Id FROM Thing", "Parent.".repeat(6));
    assert_eq!(code(&deep), "MALFORMED_QUERY");
}

#[test]
fn what_an_org_takes_is_taken() {
    let good = [
        "select id from thing",
        "SELECT Id FROM Thing t WHERE t.Name = 'a' AND t.Parent.Name != 'b'",
        "SELECT Thing.Id FROM Thing",
        "SELECT Id FROM Thing WHERE (Name = 'a' AND Size = 1) OR (NOT Flag = true)",
        "SELECT Id FROM Thing WHERE ((Name = 'a'))",
        "SELECT Id FROM Thing WHERE NOT (Name = 'a' OR Size <= -1.5e3)",
        "SELECT Id FROM Thing WHERE SystemModstamp >= 2024-01-01T00:00:00.000+0000 AND SystemModstamp < 2024-01-01T01:00:00+01:00",
        "SELECT Id FROM Thing WHERE Id IN ('a01SIM000000001','a01SIM000000002') LIMIT 0",
        "SELECT Id, Notes FROM Thing\nORDER BY Name DESC NULLS LAST, Size ASC NULLS FIRST LIMIT 5 OFFSET 2000",
        "SELECT COUNT() FROM Thing WHERE Day = LAST_N_DAYS:3 LIMIT 10",
    ];
    for soql in good {
        assert_eq!(code(soql), "", "{soql}");
    }
}

#[test]
fn texts_are_read_with_their_escapes() {
    let texts = [
        "it's",
        r"back\slash",
        "100%",
        "1000",
        "two\nlines",
        "a_b",
        "axb",
        "é",
    ];
    let rows: Vec<_> = (1_u64..)
        .zip(texts)
        .map(|(n, text)| Row {
            text: Some(text.to_owned()),
            ..row(n)
        })
        .collect();
    let store = store(&rows);
    let cases = [
        (r"Name = 'it\'s'", vec![1]),
        (r"Name = 'back\\slash'", vec![2]),
        (r"Name LIKE 'back\\%'", vec![2]),
        (r"Name LIKE '100\%'", vec![3]),
        (r"Name LIKE '100%'", vec![3, 4]),
        (r"Name = 'two\nlines'", vec![5]),
        (r"Name LIKE 'a_b'", vec![6, 7]),
        (r"Name LIKE 'a\_b'", vec![6]),
        (r"Name = 'a_b'", vec![6]),
        (r"Name = '\u00e9'", vec![8]),
        (r"Name IN ('IT\'S', 'É')", vec![1, 8]),
    ];
    for (condition, expected) in cases {
        let soql = format!("SELECT Id FROM Thing WHERE {condition} ORDER BY Id");
        let expected: Vec<_> = expected.into_iter().map(|n| ids::nth("a01", n)).collect();
        assert_eq!(
            found(&store, &soql, false).unwrap(),
            expected,
            "{condition}"
        );
    }
}

#[test]
fn ids_differ_by_case() {
    let (lower, upper) = (
        ids::with_checksum("a01SIM00000000a"),
        ids::with_checksum("a01SIM00000000A"),
    );
    let rows = [&lower, &upper].map(|id| Row {
        id: id.clone(),
        ..row(0)
    });
    let store = store(&rows);
    let one = format!("SELECT Id FROM Thing WHERE Id = '{}'", &upper[..15]);
    assert_eq!(
        found(&store, &one, false).unwrap(),
        std::slice::from_ref(&upper)
    );
    let after = format!("SELECT Id FROM Thing WHERE Id > '{upper}' ORDER BY Id");
    assert_eq!(found(&store, &after, false).unwrap(), [lower]);
}

/// A condition, its text, and its meaning.
#[derive(Debug, Clone)]
enum Naive {
    And(Vec<Naive>),
    Or(Vec<Naive>),
    Not(Box<Naive>),
    Text(&'static str, Option<String>),
    Number(&'static str, Option<i32>),
    Numbers(bool, Vec<i32>),
    Flag(bool),
    Day(&'static str, i64),
    Stamp(&'static str, i64),
    Id(&'static str, u64),
    ParentText(String),
}

impl Naive {
    fn soql(&self) -> String {
        let join = |all: &[Self], word: &str| {
            let all: Vec<_> = all.iter().map(|one| format!("({})", one.soql())).collect();
            all.join(word)
        };
        match self {
            Self::And(all) => join(all, " AND "),
            Self::Or(any) => join(any, " OR "),
            Self::Not(one) => format!("NOT ({})", one.soql()),
            Self::Text(operator, None) => format!("Name {operator} null"),
            Self::Text(operator, Some(text)) => format!("Name {operator} '{text}'"),
            Self::Number(operator, None) => format!("Size {operator} null"),
            Self::Number(operator, Some(number)) => format!("Size {operator} {number}"),
            Self::Numbers(negated, numbers) => {
                let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
                let word = if *negated { "NOT IN" } else { "IN" };
                format!("Size {word} ({})", numbers.join(", "))
            }
            Self::Flag(flag) => format!("Flag = {flag}"),
            Self::Day(operator, days) => format!("Day {operator} {}", day(*days)),
            Self::Stamp(operator, seconds) => {
                let time = stamp(*seconds).format("%Y-%m-%dT%H:%M:%SZ");
                format!("SystemModstamp {operator} {time}")
            }
            Self::Id(operator, n) => format!("Id {operator} '{}'", ids::nth("a01", *n)),
            Self::ParentText(text) => format!("Parent.Name = '{text}'"),
        }
    }

    fn holds(&self, row: &Row, rows: &[Row]) -> bool {
        match self {
            Self::And(all) => all.iter().all(|one| one.holds(row, rows)),
            Self::Or(any) => any.iter().any(|one| one.holds(row, rows)),
            Self::Not(one) => !one.holds(row, rows),
            Self::Text(operator, text) => {
                let lower = |text: &Option<String>| text.as_ref().map(|text| text.to_lowercase());
                compare(operator, lower(&row.text), lower(text))
            }
            Self::Number(operator, number) => compare(operator, row.number, *number),
            Self::Numbers(negated, numbers) => {
                row.number.is_some_and(|number| numbers.contains(&number)) != *negated
            }
            Self::Flag(flag) => row.flag == *flag,
            Self::Day(operator, days) => compare(operator, row.date, Some(day(*days))),
            Self::Stamp(operator, seconds) => {
                compare(operator, Some(row.stamp), Some(stamp(*seconds)))
            }
            Self::Id(operator, n) => {
                compare(operator, Some(row.id.clone()), Some(ids::nth("a01", *n)))
            }
            Self::ParentText(text) => row.parent.is_some_and(|parent| {
                let parent = &rows[parent % rows.len()];
                !parent.deleted
                    && parent
                        .text
                        .as_ref()
                        .is_some_and(|name| name.eq_ignore_ascii_case(text))
            }),
        }
    }
}

fn compare<T: Ord>(operator: &str, value: Option<T>, with: Option<T>) -> bool {
    match (operator, value, with) {
        ("=", value, with) => value == with,
        ("!=", value, with) => value != with,
        (operator, Some(value), Some(with)) => match operator {
            "<" => value < with,
            "<=" => value <= with,
            ">" => value > with,
            _ => value >= with,
        },
        _ => false,
    }
}

fn day(days: i64) -> NaiveDate {
    (epoch() + TimeDelta::days(days)).date_naive()
}

fn stamp(seconds: i64) -> DateTime<Utc> {
    epoch() + TimeDelta::seconds(seconds)
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        proptest::option::of("[abAB]{0,2}"),
        proptest::option::of(-3..3_i32),
        any::<bool>(),
        proptest::option::of(-2..3_i64),
        0..4_i64,
        proptest::bool::weighted(0.2),
        proptest::option::of(any::<usize>()),
    );
    proptest::collection::vec(row, 1..40).prop_map(|rows| {
        (1_u64..)
            .zip(rows)
            .map(
                |(n, (text, number, flag, date, seconds, deleted, parent))| Row {
                    id: ids::nth("a01", n),
                    text: text.filter(|text| !text.is_empty()),
                    number,
                    flag,
                    date: date.map(day),
                    stamp: stamp(seconds),
                    deleted,
                    parent,
                },
            )
            .collect()
    })
}

fn condition() -> impl Strategy<Value = Naive> {
    let operator = || prop::sample::select(vec!["=", "!=", "<", "<=", ">", ">="]);
    let equality = || prop::sample::select(vec!["=", "!="]);
    let text = || "[abAB]{1,2}";
    // Bounds on the index are where a plan could go wrong: they come often.
    let bound = prop_oneof![
        2 => (operator(), 0..4_i64).prop_map(|(operator, seconds)| Naive::Stamp(operator, seconds)),
        1 => (operator(), 0..40_u64).prop_map(|(operator, n)| Naive::Id(operator, n)),
    ];
    let other = prop_oneof![
        (operator(), text()).prop_map(|(operator, text)| Naive::Text(operator, Some(text))),
        equality().prop_map(|operator| Naive::Text(operator, None)),
        (operator(), -3..3_i32)
            .prop_map(|(operator, number)| Naive::Number(operator, Some(number))),
        equality().prop_map(|operator| Naive::Number(operator, None)),
        (any::<bool>(), proptest::collection::vec(-3..3_i32, 1..4))
            .prop_map(|(negated, numbers)| Naive::Numbers(negated, numbers)),
        any::<bool>().prop_map(Naive::Flag),
        (operator(), -2..3_i64).prop_map(|(operator, days)| Naive::Day(operator, days)),
        text().prop_map(Naive::ParentText),
    ];
    let leaf = prop_oneof![2 => bound, 1 => other];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Naive::And),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Naive::Or),
            inner.prop_map(|one| Naive::Not(Box::new(one))),
        ]
    })
}

/// What keyset reads ask: after a stamp, or at it and after an id.
fn keyset() -> impl Strategy<Value = Naive> {
    let lower = || prop::sample::select(vec!["=", ">", ">="]);
    (lower(), 0..4_i64, lower(), 0..4_i64, lower(), 0..40_u64).prop_map(
        |(after, seconds, at, same, above, n)| {
            Naive::Or(vec![
                Naive::Stamp(after, seconds),
                Naive::And(vec![Naive::Stamp(at, same), Naive::Id(above, n)]),
            ])
        },
    )
}

/// The order of an ORDER BY, nulls first.
fn order(by: &str, a: &Row, b: &Row) -> Ordering {
    let lower = |row: &Row| row.text.as_ref().map(|text| text.to_lowercase());
    match by {
        "" | "Id" => a.id.cmp(&b.id),
        "Name" => lower(a).cmp(&lower(b)).then(a.id.cmp(&b.id)),
        "Size DESC, Id" => {
            let nulls = b.number.is_none().cmp(&a.number.is_none());
            nulls.then(b.number.cmp(&a.number)).then(a.id.cmp(&b.id))
        }
        "Day NULLS LAST, Id DESC" => {
            let nulls = a.date.is_none().cmp(&b.date.is_none());
            nulls.then(a.date.cmp(&b.date)).then(b.id.cmp(&a.id))
        }
        _ => a.stamp.cmp(&b.stamp).then(a.id.cmp(&b.id)),
    }
}

proptest! {
    #[test]
    fn a_query_finds_what_a_naive_filter_finds(
        rows in rows(),
        condition in proptest::option::of(prop_oneof![2 => condition(), 1 => keyset()]),
        all in any::<bool>(),
        by in prop::sample::select(vec![
            "Id", "Name", "Size DESC, Id", "Day NULLS LAST, Id DESC", "SystemModstamp, Id", "SystemModstamp",
        ]),
        limit in proptest::option::of(0..20_usize),
        offset in 0..5_usize,
    ) {
        let mut expected: Vec<_> = rows
            .iter()
            .filter(|row| all || !row.deleted)
            .filter(|row| condition.as_ref().is_none_or(|condition| condition.holds(row, &rows)))
            .collect();
        expected.sort_by(|a, b| order(by, a, b));
        let expected: Vec<_> = expected
            .into_iter()
            .skip(offset)
            .take(limit.unwrap_or(usize::MAX))
            .map(|row| row.id.clone())
            .collect();
        let filter = condition.as_ref().map_or_else(String::new, |condition| format!(" WHERE {}", condition.soql()));
        let limit = limit.map_or_else(String::new, |limit| format!(" LIMIT {limit}"));
        let store = store(&rows);
        let soql = format!("SELECT Id FROM Thing{filter} ORDER BY {by}{limit} OFFSET {offset}");
        prop_assert_eq!(&found(&store, &soql, all).unwrap(), &expected, "{}", soql);
        let count = format!("SELECT COUNT() FROM Thing{filter}{limit} OFFSET {offset}");
        prop_assert_eq!(run(&store, &count, all, epoch()).unwrap().len(), expected.len(), "{}", count);
    }

    #[test]
    fn no_text_breaks_the_parser(soql in "(SELECT|Id|FROM|Thing|WHERE|Name|=|'|\\\\|\\(|\\)|,|LIMIT|5|-|:|é| |\n){0,20}") {
        let store = store(&[row(1)]);
        drop(run(&store, &soql, false, epoch()));
    }
}

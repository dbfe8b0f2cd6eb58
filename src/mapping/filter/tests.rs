//! Filters: what is read, what is refused and where, and what holds; against a naive evaluator too.

use chrono::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::model::value::Value;

/// A Thursday.
fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 15, 10, 0, 0).unwrap()
}

fn image(fields: &[(&str, Value)]) -> Fields {
    fields
        .iter()
        .map(|(name, value)| (FieldName::new(name), value.clone()))
        .collect()
}

fn holds(filter: &str, value: &Value) -> bool {
    let parsed = parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    parsed
        .matches(&image(&[("F", value.clone())]), now())
        .unwrap()
}

fn number(digits: &str) -> Value {
    Value::number(digits).unwrap()
}

#[test]
fn texts_are_compared_without_case() {
    let value = Value::from("Énergie");
    for (filter, expected) in [
        ("F = 'énergie'", true),
        ("F != 'ÉNERGIE'", false),
        ("F = 'Energie'", false),
        ("F <> 'x'", true),
        ("F > 'a'", true),
        ("F < 'ÉO'", true),
        ("F >= 'énergie' and F <= 'ÉNERGIE'", true),
        ("F IN ('a', 'éNERGIE')", true),
        ("F NOT IN ('a', 'énergie')", false),
        ("F not in ('a')", true),
    ] {
        assert_eq!(holds(filter, &value), expected, "{filter}");
    }
}

#[test]
fn null_is_equal_to_null_alone() {
    for value in [Value::Null, Value::from("")] {
        for (filter, expected) in [
            ("F = null", true),
            ("F != NULL", false),
            ("F = 'x'", false),
            ("F != 'x'", true),
            ("F != 5", true),
            ("F < 5", false),
            ("F >= 5", false),
            ("F > TODAY", false),
            ("F = TODAY", false),
            ("F = false", false),
            ("F LIKE '%'", false),
            ("NOT F LIKE '%'", true),
            ("F IN ('x', null)", true),
            ("F IN ('x')", false),
            ("F NOT IN ('x')", true),
            ("F NOT IN ('x', null)", false),
            ("F INCLUDES ('x')", false),
            ("F EXCLUDES ('x')", true),
            ("NOT F > 5", true),
        ] {
            assert_eq!(holds(filter, &value), expected, "{filter} of {value:?}");
        }
    }
    assert!(holds("F != null", &Value::from("x")) && !holds("F = null", &Value::from(0)));
}

#[test]
fn numbers_are_compared_by_value_and_digit() {
    for (filter, value, expected) in [
        ("F = 1000", number("1.0e3"), true),
        (
            "F > 12345678901234567890.1",
            number("12345678901234567890.2"),
            true,
        ),
        ("F = 0.1", number("0.10000000000000001"), false),
        ("F >= -5", number("-5.00"), true),
        ("F < -5", number("-5.01"), true),
        ("F = +5", Value::from(" 5.0 "), true),
        ("F = .5", number("0.5"), true),
        ("F = '5'", number("5.0"), true),
        ("F > '10'", number("9"), false),
        ("F = 5", Value::from("five"), false),
        ("F != 5", Value::from("five"), true),
        ("F < 5", Value::from("five"), false),
        ("F = 1", Value::Bool(true), false),
        ("F IN (1, 2.50)", number("2.5"), true),
    ] {
        assert_eq!(holds(filter, &value), expected, "{filter} of {value:?}");
    }
}

#[test]
fn truth_values_are_read_from_what_crms_send() {
    for (filter, value, expected) in [
        ("F = true", Value::Bool(true), true),
        ("F = TRUE", Value::from("true"), true),
        ("F != true", Value::Bool(false), true),
        ("F = false", Value::from(0), true),
        ("F = true", Value::from("x"), false),
        ("F = 'true'", Value::Bool(true), true),
    ] {
        assert_eq!(holds(filter, &value), expected, "{filter} of {value:?}");
    }
}

#[test]
fn likes_and_their_escapes() {
    for (pattern, text, expected) in [
        ("appl_%", "Apple", true),
        ("appl_%", "Appleton", true),
        ("appl_%", "Appl", false),
        ("%", "", false),
        ("%b%c", "abbcabc", true),
        ("%b%c", "abbcab", false),
        ("a%a%a", "aa", false),
        ("100\\%", "100%", true),
        ("100\\%", "1000", false),
        ("a\\_b", "a_b", true),
        ("a\\_b", "axb", false),
        ("a\\\\%", "a\\b", true),
        ("it\\'s", "IT'S", true),
        ("_", "ü", true),
        ("Ü%", "über", true),
        ("", "x", false),
    ] {
        let filter = format!("F LIKE '{pattern}'");
        assert_eq!(
            holds(&filter, &Value::from(text)),
            expected,
            "{filter} of {text}"
        );
    }
    // Backtracking is bounded.
    let filter = format!("F LIKE '{}x'", "%a".repeat(30));
    assert!(!holds(&filter, &Value::from(&*"a".repeat(20_000))));
}

#[test]
fn multi_picklists() {
    for (filter, value, expected) in [
        ("F INCLUDES ('A;B', 'C')", "B;A;X", true),
        ("F INCLUDES ('A;B', 'C')", "c", true),
        ("F INCLUDES ('A;B', 'C')", "A;X", false),
        ("F EXCLUDES ('A;B')", "A;X", true),
        ("F EXCLUDES ('A')", "A; X", false),
        ("F = 'A;B'", "A;B", true),
    ] {
        assert_eq!(
            holds(filter, &Value::from(value)),
            expected,
            "{filter} of {value}"
        );
    }
}

#[test]
fn ids_have_two_spellings() {
    let id = Value::from("001A0000006Vm9uIAC");
    assert!(holds("F = '001A0000006Vm9u'", &id));
    assert!(holds("F IN ('x', '001A0000006Vm9u')", &id));
    assert!(holds("F = '001A0000006Vm9uIAC'", &id));
    assert!(!holds("F = '001a0000006Vm9u'", &id), "another record");
}

#[test]
fn dates_are_ranges_of_days() {
    let evening = Value::from("2026-01-15T23:30:00.000+0000");
    for (filter, value, expected) in [
        ("F = 2026-01-15", &evening, true),
        ("F > 2026-01-15", &evening, false),
        ("F <= 2026-01-15", &evening, true),
        ("F > 2026-01-15T23:00:00Z", &evening, true),
        ("F = 2026-01-16T00:30:00+01:00", &evening, true),
        ("F = 2026-01-15", &Value::from("2026-01-15"), true),
        (
            "F >= 2026-01-15T00:00:00Z",
            &Value::from("2026-01-15"),
            true,
        ),
        ("F = 2026-01-15", &Value::from(1_768_519_800_000_i64), true),
        ("F = 2026-01-15", &Value::from("no date"), false),
        ("F != 2026-01-15", &Value::from("no date"), true),
    ] {
        assert_eq!(holds(filter, value), expected, "{filter} of {value:?}");
    }
}

/// First and last day of each literal on Thursday, 15 January 2026.
#[test]
fn date_literals() {
    for (literal, first, last) in [
        ("YESTERDAY", "2026-01-14", "2026-01-14"),
        ("today", "2026-01-15", "2026-01-15"),
        ("TOMORROW", "2026-01-16", "2026-01-16"),
        ("LAST_WEEK", "2026-01-04", "2026-01-10"),
        ("THIS_WEEK", "2026-01-11", "2026-01-17"),
        ("NEXT_WEEK", "2026-01-18", "2026-01-24"),
        ("LAST_MONTH", "2025-12-01", "2025-12-31"),
        ("THIS_MONTH", "2026-01-01", "2026-01-31"),
        ("NEXT_MONTH", "2026-02-01", "2026-02-28"),
        ("LAST_90_DAYS", "2025-10-17", "2026-01-15"),
        ("NEXT_90_DAYS", "2026-01-16", "2026-04-15"),
        ("LAST_QUARTER", "2025-10-01", "2025-12-31"),
        ("THIS_QUARTER", "2026-01-01", "2026-03-31"),
        ("NEXT_QUARTER", "2026-04-01", "2026-06-30"),
        ("LAST_YEAR", "2025-01-01", "2025-12-31"),
        ("THIS_YEAR", "2026-01-01", "2026-12-31"),
        ("NEXT_YEAR", "2027-01-01", "2027-12-31"),
        ("LAST_N_DAYS:1", "2026-01-14", "2026-01-15"),
        ("NEXT_N_DAYS:1", "2026-01-16", "2026-01-16"),
        ("N_DAYS_AGO:3", "2026-01-12", "2026-01-12"),
        ("LAST_N_WEEKS:2", "2025-12-28", "2026-01-10"),
        ("NEXT_N_WEEKS:2", "2026-01-18", "2026-01-31"),
        ("N_WEEKS_AGO:1", "2026-01-04", "2026-01-10"),
        ("LAST_N_MONTHS:2", "2025-11-01", "2025-12-31"),
        ("NEXT_N_MONTHS:2", "2026-02-01", "2026-03-31"),
        ("N_MONTHS_AGO:1", "2025-12-01", "2025-12-31"),
        ("LAST_N_QUARTERS:2", "2025-07-01", "2025-12-31"),
        ("NEXT_N_QUARTERS:1", "2026-04-01", "2026-06-30"),
        ("N_QUARTERS_AGO:4", "2025-01-01", "2025-03-31"),
        ("LAST_N_YEARS:2", "2024-01-01", "2025-12-31"),
        ("NEXT_N_YEARS:1", "2027-01-01", "2027-12-31"),
        ("N_YEARS_AGO:1", "2025-01-01", "2025-12-31"),
    ] {
        let day = |text: &str| text.parse::<chrono::NaiveDate>().unwrap();
        let before = Value::from(&*day(first).pred_opt().unwrap().to_string());
        let after = Value::from(&*format!("{}T00:00:00Z", day(last).succ_opt().unwrap()));
        let end = Value::from(&*format!("{last}T23:59:59.999Z"));
        for (value, equal, less, greater) in [
            (&before, false, true, false),
            (&Value::from(first), true, false, false),
            (&end, true, false, false),
            (&after, false, false, true),
        ] {
            let is = |operator: &str| holds(&format!("F {operator} {literal}"), value);
            assert_eq!(is("="), equal, "{literal} = {value:?}");
            assert_eq!(is("!="), !equal, "{literal} != {value:?}");
            assert_eq!(is("<"), less, "{literal} < {value:?}");
            assert_eq!(is("<="), less || equal, "{literal} <= {value:?}");
            assert_eq!(is(">"), greater, "{literal} > {value:?}");
            assert_eq!(is(">="), greater || equal, "{literal} >= {value:?}");
        }
    }
    // The ends of the calendar are not passed.
    assert!(holds("F > LAST_N_YEARS:9999", &Value::from("2026-01-15")));
    assert!(holds("F < NEXT_N_WEEKS:9999", &Value::from("2026-01-15")));
}

#[test]
fn fields_are_named_once_with_their_parents() {
    let filter = parse("Owner.Email = 'a' AND (Name != null OR Owner.Email = null)").unwrap();
    assert_eq!(
        filter.fields(),
        [FieldName::new("Owner.Email"), FieldName::new("Name")]
    );
    let partial = image(&[("Name", Value::Null)]);
    assert_eq!(
        filter.matches(&partial, now()),
        Err(vec![FieldName::new("Owner.Email")])
    );
    assert_eq!(
        filter.matches(&Fields::new(), now()),
        Err(vec![FieldName::new("Owner.Email"), FieldName::new("Name")])
    );
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (filter, position, what) in [
        ("", 1, "empty"),
        ("  ", 3, "empty"),
        ("Name", 5, "operator is missing"),
        ("Name =", 7, "value is missing"),
        ("Name = Acme", 8, "`Acme` is no value"),
        ("Name = \"x\"", 8, "`\"` has no meaning"),
        ("Name == 'x'", 7, "value is missing"),
        ("Name = 'x", 8, "does not end"),
        ("Name = 'a\\x'", 10, "`\\x` is no escape"),
        ("Name = 'a\\", 10, "within an escape"),
        ("'x' = Name", 1, "field is missing"),
        ("Name = 'x' AND", 15, "field is missing"),
        ("AND Name = 'x'", 1, "`AND` stands where a field"),
        ("A = 1 AND B = 2 OR C = 3", 17, "`OR` follows `AND`"),
        ("A = 1 OR B = 2 AND C = 3", 16, "`AND` follows `OR`"),
        ("NOT A = 1 AND B = 2", 11, "two ways"),
        ("A = 1 AND NOT B = 1 AND C = 2", 21, "two ways"),
        ("(A = 1", 7, "`)` is missing"),
        ("A = 1)", 6, "closes nothing"),
        ("A = 1 B = 2", 7, "has ended"),
        ("A IN 'x'", 6, "list is missing"),
        ("A IN ()", 7, "value is missing"),
        ("A IN ('x' 'y')", 11, "`,` or `)`"),
        ("A IN (SELECT Id FROM B)", 7, "queries"),
        ("A NOT LIKE 'x'", 7, "`IN` only"),
        ("A LIKE 5", 8, "needs a text"),
        ("A INCLUDES (5)", 13, "need"),
        ("A < null", 5, "neither less nor greater"),
        ("A >= true", 6, "neither less nor greater"),
        ("A = 1.2.3", 5, "not a number"),
        ("A = 2026-02-30", 5, "not a date"),
        ("A = 2026-01-01T10:00:00", 5, "not a date"),
        ("A = 1e999", 5, "more than 400 digits"),
        ("A = THIS_FISCAL_YEAR", 5, "fiscal"),
        ("A = LAST_N_DAYS", 5, "needs a number"),
        ("A = LAST_N_DAYS:x", 5, "needs a number"),
        ("A = LAST_N_DAYS:-1", 5, "whole one"),
        ("A = LAST_N_DAYS:1.5", 5, "whole one"),
        ("A = LAST_N_DAYS:10000", 5, "whole one"),
        ("A = TODAY:1", 5, "takes no number"),
        ("A = :bound", 5, "variables"),
        ("CALENDAR_YEAR(A) = 2026", 14, "functions"),
        ("parent: = 'x'", 7, "an operator is missing"),
        ("A@label = 'x'", 2, "`@` has no meaning"),
        ("A & B", 3, "`&` has no meaning"),
        ("A! = 1", 2, "`!` has no meaning"),
        ("Ä = 1", 1, "`Ä` has no meaning"),
        ("A..B = 1", 1, "missing before or after a point"),
        ("Ü = ", 1, "no meaning"),
    ] {
        let error = parse(filter).unwrap_err();
        assert!(error.what.contains(what), "{filter}: {error}");
        assert_eq!(error.position, position, "{filter}: {error}");
        assert!(!error.remedy.is_empty());
    }
}

#[test]
fn depth_is_bounded() {
    let nest = |depth: usize| format!("{}A = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nest(50)).is_ok());
    assert!(parse(&nest(51)).unwrap_err().what.contains("50 deep"));
    assert!(parse(&nest(100_000)).is_err());
    assert!(parse(&format!("{} A = 1", "NOT ".repeat(100_000))).is_err());
}

/// A condition as the property test makes it.
#[derive(Debug, Clone)]
enum Made {
    Test(&'static str, &'static str, Right),
    In(&'static str, bool, Vec<Right>),
    Like(&'static str, String),
    Not(Box<Made>),
    Join(&'static str, Vec<Made>),
}

#[derive(Debug, Clone, PartialEq)]
enum Right {
    Null,
    Number(i32),
    Text(String),
}

fn right() -> impl Strategy<Value = Right> {
    prop_oneof![
        1 => Just(Right::Null),
        2 => (-3..4).prop_map(Right::Number),
        3 => "[abAB']{0,2}".prop_map(Right::Text),
    ]
}

fn made() -> impl Strategy<Value = Made> {
    let field = || prop::sample::select(vec!["F", "G", "P.H"]);
    let equal = || prop::sample::select(vec!["=", "!=", "<>"]);
    let ordered = || prop::sample::select(vec!["<", "<=", ">", ">="]);
    let leaf = prop_oneof![
        (field(), equal(), right()).prop_map(|(f, o, r)| Made::Test(f, o, r)),
        (field(), ordered(), right())
            .prop_filter("null has no order", |(_, _, right)| *right != Right::Null)
            .prop_map(|(f, o, r)| Made::Test(f, o, r)),
        (field(), any::<bool>(), prop::collection::vec(right(), 1..4))
            .prop_map(|(f, n, r)| Made::In(f, n, r)),
        (field(), "[abA%_]{0,4}").prop_map(|(f, p)| Made::Like(f, p)),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Made::Not(Box::new(inner))),
            (
                prop::sample::select(vec!["AND", "or"]),
                prop::collection::vec(inner, 2..4)
            )
                .prop_map(|(word, nodes)| Made::Join(word, nodes)),
        ]
    })
}

impl Right {
    fn write(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("'{}'", text.replace('\'', "\\'")),
        }
    }

    /// As the reference says it, with machine numbers and whole strings.
    fn order(&self, value: &Value) -> Option<std::cmp::Ordering> {
        let as_number = |text: &str| text.trim().parse::<i32>().ok();
        match (self, value) {
            (Self::Number(right), Value::Number(left)) => {
                Some(as_number(left.as_str())?.cmp(right))
            }
            (Self::Number(right), Value::Text(left)) => Some(as_number(left)?.cmp(right)),
            (Self::Text(right), Value::Number(left)) => {
                Some(as_number(left.as_str())?.cmp(&as_number(right)?))
            }
            (Self::Text(right), Value::Text(left)) => {
                Some(left.to_lowercase().cmp(&right.to_lowercase()))
            }
            _ => None,
        }
    }

    fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Null, value) => value.is_null() || *value == Value::from(""),
            (_, Value::Null) => false,
            (right, value) => {
                *value != Value::from("") && right.order(value) == Some(std::cmp::Ordering::Equal)
            }
        }
    }
}

fn naive_like(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('%', rest)) => (0..=text.len()).any(|skip| naive_like(rest, &text[skip..])),
        Some(('_', rest)) => !text.is_empty() && naive_like(rest, &text[1..]),
        Some((wanted, rest)) => text.first() == Some(wanted) && naive_like(rest, &text[1..]),
    }
}

impl Made {
    fn write(&self) -> String {
        match self {
            Self::Test(field, operator, right) => format!("{field}{operator}{}", right.write()),
            Self::In(field, negated, rights) => {
                let list: Vec<_> = rights.iter().map(Right::write).collect();
                format!(
                    "{field} {}in ( {} )",
                    if *negated { "NOT " } else { "" },
                    list.join(",")
                )
            }
            Self::Like(field, pattern) => format!("{field} LIKE '{pattern}'"),
            Self::Not(inner) => format!("NOT({})", inner.write()),
            Self::Join(word, nodes) => {
                let written: Vec<_> = nodes
                    .iter()
                    .map(|node| format!("({})", node.write()))
                    .collect();
                written.join(&format!(" {word} "))
            }
        }
    }

    fn holds(&self, image: &Fields) -> bool {
        match self {
            Self::Test(field, "=", right) => right.equals(&image[*field]),
            Self::Test(field, "!=" | "<>", right) => !right.equals(&image[*field]),
            Self::Test(field, operator, right) => {
                let value = &image[*field];
                if value.is_null() || *value == Value::from("") {
                    return false;
                }
                right.order(value).is_some_and(|order| match *operator {
                    "<" => order.is_lt(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    _ => order.is_ge(),
                })
            }
            Self::In(field, negated, rights) => {
                rights.iter().any(|right| right.equals(&image[*field])) != *negated
            }
            Self::Like(field, pattern) => image[*field].as_text().is_some_and(|text| {
                let chars = |text: &str| text.to_lowercase().chars().collect::<Vec<_>>();
                !text.is_empty() && naive_like(&chars(pattern), &chars(text))
            }),
            Self::Not(inner) => !inner.holds(image),
            Self::Join("AND", nodes) => nodes.iter().all(|node| node.holds(image)),
            Self::Join(_, nodes) => nodes.iter().any(|node| node.holds(image)),
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(Value::Null),
        2 => (-3_i64..4).prop_map(Value::from),
        3 => "[abAB']{0,3}|[0-3]".prop_map(|text| Value::from(&*text)),
    ]
}

proptest! {
    #[test]
    fn filters_hold_as_a_naive_reading_says(made in made(), f in value(), g in value(), h in value()) {
        let image = image(&[("F", f), ("G", g), ("P.H", h)]);
        let written = made.write();
        let filter = parse(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
        prop_assert_eq!(filter.matches(&image, now()), Ok(made.holds(&image)), "{}", written);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}|[A-C .,:'()<>=!0-9-]{0,40}|(NOT |\\(|A|=|'x'|AND |LIKE |IN |TODAY|:|1|\\)){0,12}") {
        if let Ok(filter) = parse(&text) {
            let image = filter.fields().iter().map(|field| (field.clone(), Value::from("x"))).collect();
            prop_assert!(filter.matches(&image, now()).is_ok());
        }
    }
}

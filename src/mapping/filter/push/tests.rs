//! What is asked of each CRM, text by text; what can't be asked; that what is asked means the same.

use chrono::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::mapping::filter::parse;
use crate::model::value::{Fields, Value};

/// A Thursday.
fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 15, 10, 0, 0).unwrap()
}

fn kind(name: &str) -> Option<FieldKind> {
    Some(match name {
        "Name" | "Owner.Email" => FieldKind::Text,
        "Pick" => FieldKind::Picklist,
        "Many" => FieldKind::MultiPicklist,
        "Flag" => FieldKind::Boolean,
        "Size" => FieldKind::Decimal,
        "Day" => FieldKind::Date,
        "At" => FieldKind::DateTime,
        "Ref" | "parent:account" => FieldKind::Reference,
        _ => return None,
    })
}

fn asked(filter: &str, language: Language) -> Option<String> {
    let column = |name: &FieldName| {
        let kind = kind(name.as_str())?;
        let name = match (name.as_str(), language) {
            ("parent:account", Language::Soql) => return None,
            ("parent:account", Language::OData) => "parent_account/accountid".to_owned(),
            (name, Language::OData) => name.replace('.', "/"),
            (name, Language::Soql) => name.to_owned(),
        };
        Some(Column { name, kind })
    };
    let parsed = parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    parsed.push_down(language, now(), &column)
}

#[test]
fn conditions_of_both_languages() {
    for (filter, soql, odata) in [
        (
            "Name = 'O\\'Neill'",
            "Name = 'O\\'Neill'",
            "Name eq 'O''Neill'",
        ),
        (
            "Name != 'x'",
            "(Name != 'x' OR Name = null)",
            "(Name ne 'x' or Name eq null)",
        ),
        ("NOT Name != 'x'", "Name = 'x'", "Name eq 'x'"),
        ("Name = null", "Name = null", "Name eq null"),
        ("NOT Name = null", "Name != null", "Name ne null"),
        (
            "Owner.Email = 'a@b'",
            "Owner.Email = 'a@b'",
            "Owner/Email eq 'a@b'",
        ),
        ("Size >= 1.50", "Size >= 1.50", "Size ge 1.50"),
        (
            "NOT Size > 5",
            "(Size <= 5 OR Size = null)",
            "(Size le 5 or Size eq null)",
        ),
        (
            "Flag = true AND Size < 2",
            "(Flag = true AND Size < 2)",
            "(Flag eq true and Size lt 2)",
        ),
        (
            "NOT (Flag = true AND Size < 2)",
            "((Flag != true OR Flag = null) OR (Size >= 2 OR Size = null))",
            "((Flag ne true or Flag eq null) or (Size ge 2 or Size eq null))",
        ),
        (
            "Name IN ('a', 'b', null)",
            "(Name = 'a' OR Name = 'b' OR Name = null)",
            "(Name eq 'a' or Name eq 'b' or Name eq null)",
        ),
        (
            "Name NOT IN ('a', 'b')",
            "((Name != 'a' OR Name = null) AND (Name != 'b' OR Name = null))",
            "((Name ne 'a' or Name eq null) and (Name ne 'b' or Name eq null))",
        ),
        ("Name LIKE 'a%'", "Name LIKE 'a%'", "startswith(Name,'a')"),
        ("Name LIKE '%a\\%_'", "Name LIKE '%a\\%_'", "–"),
        (
            "Name LIKE '%a\\'%'",
            "Name LIKE '%a\\'%'",
            "contains(Name,'a''')",
        ),
        (
            "NOT Name LIKE '%a'",
            "((NOT Name LIKE '%a') OR Name = null)",
            "(not (endswith(Name,'a')) or Name eq null)",
        ),
        (
            "Day = 2026-01-31",
            "(Day >= 2026-01-31 AND Day < 2026-02-01)",
            "(Day ge 2026-01-31 and Day lt 2026-02-01)",
        ),
        ("Day <= TODAY", "Day < 2026-01-16", "Day lt 2026-01-16"),
        (
            "At = LAST_N_DAYS:2",
            "(At >= 2026-01-13T00:00:00.000Z AND At < 2026-01-16T00:00:00.000Z)",
            "(At ge 2026-01-13T00:00:00Z and At lt 2026-01-16T00:00:00Z)",
        ),
        (
            "At > 2026-01-31T10:00:00+01:00",
            "At > 2026-01-31T09:00:00.000Z",
            "At gt 2026-01-31T09:00:00Z",
        ),
        (
            "Many INCLUDES ('a;b', 'c')",
            "Many INCLUDES ('a;b', 'c')",
            "–",
        ),
        (
            "Many EXCLUDES ('a')",
            "(Many EXCLUDES ('a') OR Many = null)",
            "–",
        ),
        ("Pick = 'A'", "Pick = 'A'", "–"),
        ("Pick = 3", "–", "Pick eq 3"),
        ("Ref = '001A0000006Vm9u'", "Ref = '001A0000006Vm9u'", "–"),
        (
            "Ref = '0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b'",
            "–",
            "Ref eq 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
        ),
        (
            "parent:account != null",
            "–",
            "parent_account/accountid ne null",
        ),
        // More than is asked for, never less.
        ("Unknown = 1 AND Size = 2", "Size = 2", "Size eq 2"),
        ("Unknown = 1 OR Size = 2", "–", "–"),
        (
            "NOT (Unknown = 1 OR Size = 2)",
            "(Size != 2 OR Size = null)",
            "(Size ne 2 or Size eq null)",
        ),
        ("NOT (Unknown = 1 AND Size = 2)", "–", "–"),
        ("Name > 'm'", "–", "–"),
        ("Name = 5", "–", "–"),
        ("Size = '5'", "–", "–"),
        ("Day > 2026-01-31T10:00:00Z", "–", "–"),
        ("Name = '001A0000006Vm9u'", "–", "–"),
        ("Size = TODAY", "–", "–"),
    ] {
        let told = |language| asked(filter, language).unwrap_or_else(|| "–".to_owned());
        assert_eq!(told(Language::Soql), soql, "{filter}");
        assert_eq!(told(Language::OData), odata, "{filter}");
    }
}

fn value(field: &str) -> BoxedStrategy<Value> {
    let texts =
        |texts: &'static [&'static str]| prop::sample::select(texts).prop_map(Value::from).boxed();
    let some = match field {
        "Name" | "Pick" => texts(&["a", "B", "ab", "a%b", "", "x'y", "a_b"]),
        "Many" => texts(&["a", "b;a", "a;b;c", ""]),
        "Flag" => any::<bool>().prop_map(Value::from).boxed(),
        "Size" => texts(&["-1", "0", "1.5", "2", "10"])
            .prop_map(|text| Value::number(&text.to_string()).unwrap_or(Value::Null))
            .boxed(),
        "Day" => texts(&["2026-01-14", "2026-01-15", "2026-01-16", "2025-12-31"]),
        _ => texts(&[
            "2026-01-14T23:59:59Z",
            "2026-01-15T00:00:00Z",
            "2026-01-15T23:59:59Z",
            "2026-01-16T00:00:00Z",
        ]),
    };
    prop_oneof![1 => Just(Value::Null), 4 => some].boxed()
}

const FIELDS: [&str; 7] = ["Name", "Pick", "Many", "Flag", "Size", "Day", "At"];

fn image() -> impl Strategy<Value = Fields> {
    FIELDS.map(value).prop_map(|values| {
        let named = FIELDS.into_iter().zip(values);
        named
            .map(|(name, value)| (FieldName::new(name), value))
            .collect()
    })
}

fn test() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "Name = 'a'",
        "Name != 'AB'",
        "Name = null",
        "Name != null",
        "Name LIKE 'a%'",
        "Name LIKE '%\\_b'",
        "Name LIKE '_'",
        "Name IN ('a', 'b')",
        "Name NOT IN ('x\\'y', 'b')",
        "Name NOT IN ('a', null)",
        "Pick = 'B'",
        "Many INCLUDES ('a;b', 'c')",
        "Many EXCLUDES ('a')",
        "Many = null",
        "Flag = true",
        "Flag != false",
        "Size < 1.5",
        "Size >= 1.50",
        "Size != 2",
        "Size IN (0, 10)",
        "Day = TODAY",
        "Day > YESTERDAY",
        "Day <= 2026-01-15",
        "Day != THIS_YEAR",
        "At = TODAY",
        "At < TODAY",
        "At >= 2026-01-15T23:59:59Z",
        "At != 2026-01-15",
        "Day = null",
        "Name > 'a'",
        "Size = 'x'",
    ])
    .prop_map(str::to_owned)
}

fn filter() -> impl Strategy<Value = String> {
    test().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|terms| format!("({})", terms.join(" AND "))),
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|terms| format!("({})", terms.join(" OR "))),
            inner.prop_map(|term| format!("(NOT {term})")),
        ]
    })
}

/// The condition without what this language's own reader takes otherwise.
fn reread(soql: &str) -> crate::mapping::filter::Filter {
    parse(soql).unwrap_or_else(|error| panic!("{soql}: {error}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Never less than the filter takes; and the same where nothing was left out.
    #[test]
    fn what_is_asked_for_holds_what_passes(filter in filter(), image in image()) {
        let passes = parse(&filter).unwrap().matches(&image, now()).unwrap();
        if let Some(soql) = asked(&filter, Language::Soql) {
            let answered = reread(&soql).matches(&image, now()).unwrap();
            prop_assert!(answered || !passes, "{filter} asks {soql}");
            let is_whole = !filter.contains("Name >") && !filter.contains("'x'");
            prop_assert!(!is_whole || answered == passes, "{filter} asks {soql}");
        }
    }
}

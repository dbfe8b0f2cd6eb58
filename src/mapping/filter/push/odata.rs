//! Conditions as OData's `$filter` (Dataverse Web API, "Filter rows using OData"; texts are compared without case there).

use chrono::SecondsFormat;

use crate::model::schema::FieldKind;

use super::{Comparison, Literal, Pattern, Term, joined};

pub(super) fn render(term: &Term) -> Option<String> {
    match term {
        Term::All(terms) => joined(terms, " and ", render),
        Term::Any(terms) => joined(terms, " or ", render),
        Term::Compare(column, comparison, literal) => {
            let literal = match literal {
                // Ids are no texts.
                Literal::Text(id)
                    if matches!(column.kind, FieldKind::Id | FieldKind::Reference) =>
                {
                    id.to_string()
                }
                Literal::Text(text) => quoted(text),
                Literal::Number(digits) => digits.to_string(),
                Literal::Bool(value) => value.to_string(),
                Literal::Day(day) => day.format("%Y-%m-%d").to_string(),
                Literal::Instant(at) => at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            };
            Some(format!("{} {} {literal}", column.name, word(*comparison)))
        }
        Term::Null(column, true) => Some(format!("{} eq null", column.name)),
        Term::Null(column, false) => Some(format!("{} ne null", column.name)),
        Term::Like(column, pattern, negated) => {
            let (open, text, ends_open) = pattern.within()?;
            let (name, text) = (&column.name, quoted(&text));
            let test = match (open, ends_open) {
                (true, true) => format!("contains({name},{text})"),
                (true, false) => format!("endswith({name},{text})"),
                (false, true) => format!("startswith({name},{text})"),
                (false, false) => format!("{name} eq {text}"),
            };
            Some(if *negated {
                format!("not ({test})")
            } else {
                test
            })
        }
        Term::Includes(..) => None,
    }
}

/// Whether a pattern is a beginning, an end, a part or the whole of a text.
pub(super) fn can_say(pattern: &Pattern) -> bool {
    pattern.within().is_some()
}

const fn word(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "eq",
        Comparison::NotEqual => "ne",
        Comparison::Less => "lt",
        Comparison::LessOrEqual => "le",
        Comparison::Greater => "gt",
        Comparison::GreaterOrEqual => "ge",
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

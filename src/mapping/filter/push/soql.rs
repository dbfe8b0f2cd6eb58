//! Conditions in SOQL (SOQL and SOSL Reference, "Comparison Operators", "Quoted String Escape Sequences").

use chrono::SecondsFormat;

use super::{Comparison, Literal, Term, joined};

pub(super) fn render(term: &Term) -> Option<String> {
    match term {
        Term::All(terms) => joined(terms, " AND ", render),
        Term::Any(terms) => joined(terms, " OR ", render),
        Term::Compare(column, comparison, literal) => {
            let literal = match literal {
                Literal::Text(text) => quoted(text),
                Literal::Number(digits) => digits.to_string(),
                Literal::Bool(value) => value.to_string(),
                Literal::Day(day) => day.format("%Y-%m-%d").to_string(),
                Literal::Instant(at) => at.to_rfc3339_opts(SecondsFormat::Millis, true),
            };
            Some(format!("{} {} {literal}", column.name, sign(*comparison)))
        }
        Term::Null(column, true) => Some(format!("{} = null", column.name)),
        Term::Null(column, false) => Some(format!("{} != null", column.name)),
        Term::Like(column, pattern, negated) => {
            let wildcards = |c: char| format!("\\{c}");
            let inner: String = pattern.written("%", "_", |c| match c {
                '%' | '_' => wildcards(c),
                c => escaped(c),
            });
            let test = format!("{} LIKE '{inner}'", column.name);
            Some(if *negated {
                format!("(NOT {test})")
            } else {
                test
            })
        }
        Term::Includes(column, sets, negated) => {
            let sets = sets.iter().map(|set| quoted(&set.join(";")));
            let word = if *negated { "EXCLUDES" } else { "INCLUDES" };
            let sets = sets.collect::<Vec<_>>().join(", ");
            Some(format!("{} {word} ({sets})", column.name))
        }
    }
}

const fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "=",
        Comparison::NotEqual => "!=",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}

fn quoted(text: &str) -> String {
    let inner: String = text.chars().map(escaped).collect();
    format!("'{inner}'")
}

fn escaped(c: char) -> String {
    match c {
        '\\' => "\\\\".to_owned(),
        '\'' => "\\'".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        c => c.to_string(),
    }
}

//! A condition on one value. Null equals null only; `!=` and `NOT IN` hold for it, every other comparison fails.

use std::cmp::Ordering;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::super::value::Value;
use super::parser::Operator;

/// What a value must be.
#[derive(Debug, Clone)]
pub(crate) enum Predicate {
    IsNull(bool),
    Compare(Operator, Value),
    /// A span of time, its end outside.
    Span(Operator, Value, Value),
    OneOf {
        values: Vec<Value>,
        null: bool,
        negated: bool,
    },
    Like(Pattern),
}

impl Predicate {
    pub fn holds(&self, value: &Value) -> bool {
        match self {
            Self::IsNull(expected) => value.is_null() == *expected,
            Self::Compare(operator, with) => match value.compare(with) {
                None => *operator == Operator::NotEqual,
                Some(order) => fits(*operator, order),
            },
            Self::Span(operator, from, to) => match (value.compare(from), value.compare(to)) {
                (Some(from), Some(to)) => {
                    let before = from == Ordering::Less;
                    let after = to != Ordering::Less;
                    match operator {
                        Operator::NotEqual => before || after,
                        Operator::Less => before,
                        Operator::LessOrEqual => !after,
                        Operator::Greater => after,
                        Operator::GreaterOrEqual => !before,
                        _ => !before && !after,
                    }
                }
                _ => *operator == Operator::NotEqual,
            },
            Self::OneOf {
                values,
                null,
                negated,
            } => {
                let found = if value.is_null() {
                    *null
                } else {
                    values
                        .binary_search_by(|with| with.compare(value).unwrap_or(Ordering::Less))
                        .is_ok()
                };
                found != *negated
            }
            Self::Like(pattern) => value.as_text().is_some_and(|text| pattern.matches(text)),
        }
    }

    /// `values`, sorted, so that a long list is searched and not walked.
    pub fn one_of(mut values: Vec<Value>, null: bool, negated: bool) -> Self {
        values.sort_by(|a, b| a.compare(b).unwrap_or(Ordering::Equal));
        Self::OneOf {
            values,
            null,
            negated,
        }
    }

    /// The earliest time that can pass.
    pub fn earliest(&self) -> Option<DateTime<Utc>> {
        match self {
            // Stamps have whole seconds.
            Self::Compare(Operator::Greater, value) => {
                Some(value.as_datetime()? + TimeDelta::seconds(1))
            }
            Self::Compare(operator, value) | Self::Span(operator, value, _)
                if is_lower_bound(*operator) =>
            {
                value.as_datetime()
            }
            _ => None,
        }
    }

    /// The lowest id that can pass.
    pub fn lowest_id(&self) -> Option<Arc<str>> {
        match self {
            Self::Compare(operator, Value::Id(id)) if is_lower_bound(*operator) => {
                Some(Arc::clone(id))
            }
            _ => None,
        }
    }
}

fn is_lower_bound(operator: Operator) -> bool {
    matches!(
        operator,
        Operator::Equal | Operator::Greater | Operator::GreaterOrEqual
    )
}

fn fits(operator: Operator, order: Ordering) -> bool {
    match operator {
        Operator::NotEqual => order != Ordering::Equal,
        Operator::Less => order == Ordering::Less,
        Operator::LessOrEqual => order != Ordering::Greater,
        Operator::Greater => order == Ordering::Greater,
        Operator::GreaterOrEqual => order != Ordering::Less,
        _ => order == Ordering::Equal,
    }
}

/// A LIKE pattern, without regard to case.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Char(char),
    /// `_`
    One,
    /// `%`
    Any,
}

impl Pattern {
    /// Reads `%`, `_` and their escapes.
    pub fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => pieces.push(Piece::Any),
                '_' => pieces.push(Piece::One),
                '\\' => pieces.extend(chars.next().unwrap_or('\\').to_lowercase().map(Piece::Char)),
                c => pieces.extend(c.to_lowercase().map(Piece::Char)),
            }
        }
        Self(pieces)
    }

    /// Walks text and pattern side by side; on a mismatch the last `%` takes one character more.
    fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
        let (mut t, mut p) = (0, 0);
        let mut retry = None;
        while t < text.len() {
            match self.0.get(p) {
                Some(Piece::Any) => {
                    retry = Some((p + 1, t));
                    p += 1;
                }
                Some(Piece::One) => (t, p) = (t + 1, p + 1),
                Some(Piece::Char(c)) if text[t] == *c => (t, p) = (t + 1, p + 1),
                _ => match retry {
                    Some((after, taken)) => {
                        retry = Some((after, taken + 1));
                        (t, p) = (taken + 1, after);
                    }
                    None => return false,
                },
            }
        }
        self.0[p..].iter().all(|piece| *piece == Piece::Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts_without_case() {
        let cases = [
            ("acme%", "ACME Corp", true),
            ("%corp", "Acme Corp", true),
            ("%c%c%", "Acme Corp", true),
            ("a_me", "Acme", true),
            ("a_me", "Acmme", false),
            ("", "", true),
            ("", "a", false),
            ("%", "", true),
            (r"100\%", "100%", true),
            (r"100\%", "1000", false),
            (r"a\_b", "axb", false),
            (r"a\\b", r"a\b", true),
            ("%ab%ab", "abxabab", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                Pattern::new(pattern).matches(text),
                expected,
                "{pattern} {text}"
            );
        }
    }
}

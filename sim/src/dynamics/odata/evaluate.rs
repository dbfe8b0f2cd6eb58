//! Evaluates bound conditions over rows, and puts rows in order.

use std::cmp::Ordering;

use super::super::cell::{Cell, folded};
use super::super::guid::Guid;
use super::super::store::{Row, Store};
use super::bind::{Bound, Reach, Side};
use super::functions::Moment;
use super::parser::{Compare, Matching};

/// Whether a condition holds for a row.
pub(crate) fn holds(store: &Store, moment: &Moment, row: (Guid, &Row), bound: &Bound) -> bool {
    match bound {
        Bound::And(a, b) => holds(store, moment, row, a) && holds(store, moment, row, b),
        Bound::Or(a, b) => holds(store, moment, row, a) || holds(store, moment, row, b),
        Bound::Not(a) => !holds(store, moment, row, a),
        Bound::Compare(compare, left, right) => compared(
            *compare,
            &value(store, row.1, left),
            &value(store, row.1, right),
        ),
        Bound::Match(matching, left, right) => {
            match (value(store, row.1, left), value(store, row.1, right)) {
                (Cell::Text(text), Cell::Text(pattern)) => matched(*matching, &text, &pattern),
                _ => false,
            }
        }
        Bound::Function(reach, function) => function.holds(&reached(store, row.1, reach), moment),
        Bound::Truth(reach) => reached(store, row.1, reach) == Cell::Bool(true),
        Bound::Lambda {
            table,
            place,
            any,
            body,
        } => {
            let Some(rows) = store.table(table) else {
                return false;
            };
            let mut children = rows
                .rows()
                .filter(|(_, child)| child.cell(*place).id() == Some(row.0));
            let one = |child: (Guid, &std::sync::Arc<Row>)| {
                body.as_ref()
                    .is_none_or(|body| holds(store, moment, (child.0, child.1), body))
            };
            if *any {
                children.any(one)
            } else {
                children.all(one)
            }
        }
    }
}

/// The value of a column, of the row or of one it refers to.
pub(crate) fn reached(store: &Store, row: &Row, reach: &Reach) -> Cell {
    let Some((first, rest)) = reach.via.split_first() else {
        return row.cell(reach.place).clone();
    };
    let Cell::Ref(table, id) = row.cell(*first) else {
        return Cell::Null;
    };
    let Some(next) = store.table(table).and_then(|rows| rows.row(*id)) else {
        return Cell::Null;
    };
    let rest = Reach {
        via: rest.to_vec(),
        place: reach.place,
        kind: reach.kind,
    };
    reached(store, next, &rest)
}

fn value(store: &Store, row: &Row, side: &Side) -> Cell {
    match side {
        Side::Column(reach) => reached(store, row, reach),
        Side::Literal(cell) => cell.clone(),
    }
}

/// Null equals null only, and is neither above nor below anything.
pub(crate) fn compared(compare: Compare, left: &Cell, right: &Cell) -> bool {
    if left.is_null() || right.is_null() {
        let same = left.is_null() && right.is_null();
        return match compare {
            Compare::Eq => same,
            Compare::Ne => !same,
            _ => false,
        };
    }
    let Some(order) = left.compare(right) else {
        return compare == Compare::Ne;
    };
    match compare {
        Compare::Eq => order.is_eq(),
        Compare::Ne => order.is_ne(),
        Compare::Gt => order.is_gt(),
        Compare::Ge => order.is_ge(),
        Compare::Lt => order.is_lt(),
        Compare::Le => order.is_le(),
    }
}

fn matched(matching: Matching, text: &str, pattern: &str) -> bool {
    let pattern = folded(pattern);
    let pattern = match matching {
        Matching::Contains => format!("%{pattern}%"),
        Matching::StartsWith => format!("{pattern}%"),
        Matching::EndsWith => format!("%{pattern}"),
    };
    let text: Vec<char> = folded(text).chars().collect();
    let pattern: Vec<char> = pattern.chars().collect();
    like(&text, &pattern)
}

/// SQL's LIKE: `%` any run, `_` any letter, `[a-c]` one of these, `[^…]` none of these.
fn like(text: &[char], pattern: &[char]) -> bool {
    // What comes after the last `%` seen, and where the text stood then.
    let (mut retry, mut at, mut p) = (None, 0, 0);
    loop {
        let step = match pattern.get(p) {
            Some('%') => {
                retry = Some((at, p + 1));
                p += 1;
                continue;
            }
            None if at == text.len() => return true,
            None => None,
            Some(_) => text.get(at).and_then(|letter| one(*letter, &pattern[p..])),
        };
        match (step, retry) {
            (Some(used), _) => {
                at += 1;
                p += used;
            }
            (None, Some((from, after))) if from < text.len() => {
                retry = Some((from + 1, after));
                at = from + 1;
                p = after;
            }
            _ => return false,
        }
    }
}

/// How much of the pattern takes this letter.
fn one(letter: char, pattern: &[char]) -> Option<usize> {
    match pattern.first()? {
        '_' => Some(1),
        '[' => {
            let Some(end) = pattern.iter().position(|c| *c == ']') else {
                return (letter == '[').then_some(1);
            };
            let (inverse, set) = match pattern.get(1) {
                Some('^') => (true, &pattern[2..end]),
                _ => (false, &pattern[1..end]),
            };
            let ranged = set
                .windows(3)
                .any(|w| w[1] == '-' && (w[0]..=w[2]).contains(&letter));
            ((ranged || set.contains(&letter)) != inverse).then_some(end + 1)
        }
        other => (*other == letter).then_some(1),
    }
}

/// Compares the sort values of two rows.
pub(crate) fn ordered(a: &[Cell], b: &[Cell], descending: &[bool]) -> Ordering {
    for ((a, b), descending) in a.iter().zip(b).zip(descending) {
        let order = a.compare(b).unwrap_or(Ordering::Equal);
        let order = if *descending { order.reverse() } else { order };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_those_of_sql() {
        let yes = [
            ("Example Ltd", "ample"),
            ("abcd", "b_d"),
            ("x100%", "100[%]"),
            ("b1", "[a-c]1"),
        ];
        for (text, pattern) in yes {
            assert!(
                matched(Matching::Contains, text, pattern),
                "{text} {pattern}"
            );
        }
        assert!(!matched(Matching::Contains, "d1", "[a-c]1"));
        assert!(matched(Matching::StartsWith, "EXAMPLE", "exa%le"));
        assert!(
            matched(Matching::EndsWith, "aXbXc", "x%c") && !matched(Matching::EndsWith, "ab", "a")
        );
    }

    #[test]
    fn null_is_neither_above_nor_below() {
        let (null, one) = (Cell::Null, Cell::Int(1));
        assert!(compared(Compare::Eq, &null, &null) && compared(Compare::Ne, &null, &one));
        assert!(!compared(Compare::Lt, &null, &one) && !compared(Compare::Ge, &one, &null));
    }
}

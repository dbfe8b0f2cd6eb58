//! A TOML text as a tree whose nodes know their file, line and key; the one place that knows the parser.

use std::cell::RefCell;

use chrono::NaiveDate;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::Datetime;

use crate::config::problem::{Problem, Spot};

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The key's place.
    pub(super) spot: Spot,
    /// What stands there.
    pub(super) shape: Shape,
    /// The first byte in the file that belongs to this key or to one below it: the order of tables.
    first: usize,
}

/// What stands at a key.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a point, in its own digits.
    Float(String),
    /// True or false.
    Boolean(bool),
    /// A day.
    Date(NaiveDate),
    /// An instant, or a time of day, as written.
    Time(String),
    /// A list.
    List(Vec<Node>),
    /// A table, in the file's order.
    Table(Table),
    /// A text from the environment: a number or a truth value as well, if that is what is asked for.
    Given(String),
    /// Already reported.
    Unreadable,
}

/// Keys and values in the file's order.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(pub(super) Vec<(String, Node)>);

/// Where mistakes and notes are gathered.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    notes: RefCell<Vec<Problem>>,
}

impl Report {
    /// Adds a mistake.
    pub(super) fn add(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Adds a mistake without showing what stands there.
    pub(super) fn wrong(&self, spot: &Spot, what: impl Into<String>, remedy: impl Into<String>) {
        self.add(Problem::new(spot, what, remedy));
    }

    /// Adds what an operator should know and is no mistake.
    pub(super) fn note(&self, spot: &Spot, what: impl Into<String>, remedy: impl Into<String>) {
        self.notes
            .borrow_mut()
            .push(Problem::new(spot, what, remedy));
    }

    /// Mistakes and notes.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.problems.into_inner(), self.notes.into_inner())
    }
}

impl Node {
    /// A node that no file holds.
    pub(super) const fn new(spot: Spot, shape: Shape) -> Self {
        Self {
            spot,
            shape,
            first: 0,
        }
    }

    /// An empty table.
    pub(super) fn empty(spot: Spot) -> Self {
        Self::new(spot, Shape::Table(Table::default()))
    }

    /// The table, if it is one.
    pub(super) const fn table(&self) -> Option<&Table> {
        match &self.shape {
            Shape::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The table, to change it.
    pub(super) const fn table_mut(&mut self) -> Option<&mut Table> {
        match &mut self.shape {
            Shape::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The node below, key by key.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter()
            .try_fold(self, |node, key| node.table()?.get(key))
    }
}

impl Table {
    /// The value of `key`, to change it.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let found = self.0.iter_mut().find(|(name, _)| name == key);
        found.map(|(_, node)| node)
    }

    /// Takes `key` out.
    pub(super) fn remove(&mut self, key: &str) -> Option<Node> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node)
    }
}

/// Parses a file. With mistakes of syntax, which go to `report`, the node is [`Shape::Unreadable`]: guesses
/// about a broken file only bury the mistakes that matter.
pub(super) fn parse(file: &str, text: &str, report: &Report) -> Node {
    let mut place = Place {
        spot: Spot::whole(file),
        lines: std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect(),
        report,
    };
    place.spot.line = 1;
    let (root, errors) = DeTable::parse_recoverable(text);
    let broken = !errors.is_empty();
    for error in errors {
        let at = error.span().map_or(text.len(), |span| span.start);
        let spot = Spot {
            line: place.line(at),
            ..place.spot.clone()
        };
        report.wrong(
            &spot,
            format!("no TOML: {}", one_line(error.message())),
            "correct the line; texts need quotes, and a key or a table stands once",
        );
    }
    let spot = place.spot.clone();
    if broken {
        return Node::new(spot, Shape::Unreadable);
    }
    Node::new(
        spot.clone(),
        Shape::Table(place.entries(&spot, root.get_ref())),
    )
}

/// Parses one value, as an override may hold it; `None` if it is none.
pub(super) fn parse_value(spot: &Spot, text: &str, report: &Report) -> Option<Node> {
    let value = DeValue::parse(text).ok()?;
    let place = Place {
        spot: spot.clone(),
        lines: vec![0],
        report,
    };
    Some(place.node(spot.clone(), 0, &value))
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Place<'r> {
    spot: Spot,
    /// The first byte of each line.
    lines: Vec<usize>,
    report: &'r Report,
}

impl Place<'_> {
    fn line(&self, at: usize) -> usize {
        if self.spot.line == 0 {
            return 0;
        }
        self.lines.partition_point(|start| *start <= at)
    }

    fn entries(&self, parent: &Spot, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| {
                let at = key.span().start;
                let spot = parent.below(key.get_ref(), self.line(at));
                (key.get_ref().to_string(), self.node(spot, at, value))
            })
            .collect();
        entries.sort_by_key(|(_, node)| node.first);
        Table(entries)
    }

    fn node(&self, spot: Spot, at: usize, value: &Spanned<DeValue<'_>>) -> Node {
        let shape = match value.get_ref() {
            DeValue::String(text) => Shape::Text(text.to_string()),
            DeValue::Boolean(value) => Shape::Boolean(*value),
            DeValue::Float(float) => Shape::Float(float.as_str().to_owned()),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map_or_else(
                    |_| {
                        self.report.wrong(
                            &spot,
                            "a whole number past 64 bits",
                            "write it as a text, in quotes",
                        );
                        Shape::Unreadable
                    },
                    Shape::Integer,
                ),
            DeValue::Datetime(datetime) => time(datetime),
            DeValue::Array(values) => Shape::List(
                values
                    .iter()
                    .map(|value| {
                        let at = value.span().start;
                        let place = Spot {
                            line: self.line(at),
                            ..spot.clone()
                        };
                        self.node(place, at, value)
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Shape::Table(self.entries(&spot, table)),
        };
        let first = match &shape {
            Shape::Table(Table(entries)) => {
                entries.first().map_or(at, |(_, node)| node.first.min(at))
            }
            _ => at,
        };
        Node { spot, shape, first }
    }
}

fn time(datetime: &Datetime) -> Shape {
    let day = match datetime {
        Datetime {
            date: Some(date),
            time: None,
            offset: None,
        } => NaiveDate::from_ymd_opt(date.year.into(), date.month.into(), date.day.into()),
        _ => None,
    };
    day.map_or_else(|| Shape::Time(datetime.to_string()), Shape::Date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Node, Vec<Problem>) {
        let report = Report::default();
        let node = parse("x.toml", text, &report);
        (node, report.into_parts().0)
    }

    #[test]
    fn tables_come_in_the_files_order_with_their_lines() {
        let (root, problems) =
            parsed("[to.Zebra.map]\na = 1\n[to.Ant]\nb = 2\n[to.\"A b\".map]\nc = 3\n");
        assert!(problems.is_empty());
        let to = root.table().unwrap().get("to").unwrap().table().unwrap();
        let names: Vec<_> = to.0.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Zebra", "Ant", "A b"]);
        let map = to.get("A b").unwrap().table().unwrap().get("map").unwrap();
        let c = map.table().unwrap().get("c").unwrap();
        assert_eq!(c.spot.to_string(), "x.toml:6: `to.\"A b\".map.c`");
    }

    #[test]
    fn a_table_stands_where_its_first_key_does() {
        let (root, _) = parsed("[to.B.map]\na = 1\n[to.A]\nb = 2\n[to.B]\nc = 3\n");
        let to = root.table().unwrap().get("to").unwrap().table().unwrap();
        let names: Vec<_> = to.0.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["B", "A"]);
    }

    #[test]
    fn digits_and_radix_are_kept() {
        let (root, _) = parsed("a = 0x1F\nb = 1_000\nc = 1_0.50\nd = 1979-05-27\n");
        let table = root.table().unwrap();
        assert!(matches!(table.get("a").unwrap().shape, Shape::Integer(31)));
        assert!(matches!(
            table.get("b").unwrap().shape,
            Shape::Integer(1000)
        ));
        assert!(matches!(&table.get("c").unwrap().shape, Shape::Float(text) if text == "10.50"));
        assert!(matches!(table.get("d").unwrap().shape, Shape::Date(_)));
    }

    #[test]
    fn every_mistake_of_syntax_has_its_line() {
        let (root, problems) = parsed("a = \nb = 1\nb = 2\nc = yes\n");
        assert!(matches!(root.shape, Shape::Unreadable));
        let lines: Vec<_> = problems.iter().map(|problem| problem.spot.line).collect();
        assert_eq!(lines, [1, 3, 4], "{problems:?}");
    }
}

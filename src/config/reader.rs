//! Typed reading of a table: wrong types, unknown and missing keys become problems, and reading goes on.

use std::time::Duration;

use crate::config::document::{Node, Report, Shape, Table};
use crate::config::nearest::nearest;
use crate::config::problem::{BUILT_IN, Located, Problem, Spot};
use crate::model::value::Value;

/// Longer texts are cut where they are shown.
const SHOWN: usize = 80;

/// A table being read: knows the keys that were asked for, so that [`Reader::close`] finds the others.
pub(super) struct Reader<'a> {
    /// The table's place.
    pub(super) spot: &'a Spot,
    /// Where mistakes go.
    pub(super) report: &'a Report,
    table: Option<&'a Table>,
    known: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    /// Opens a table; of anything else only the type is told, because it might be a secret.
    pub(super) fn open(node: &'a Node, report: &'a Report) -> Option<Self> {
        match &node.shape {
            Shape::Table(table) => Some(Self {
                spot: &node.spot,
                report,
                table: Some(table),
                known: Vec::new(),
            }),
            Shape::Unreadable => None,
            other => {
                report.wrong(
                    &node.spot,
                    format!("{} where a table is expected", other.kind()),
                    "write a table: { key = value, … } or a [section]",
                );
                None
            }
        }
    }

    /// Opens a section that may be left out.
    pub(super) fn open_section(root: &'a Node, key: &str, report: &'a Report) -> Self {
        let empty = Self {
            spot: &root.spot,
            report,
            table: None,
            known: Vec::new(),
        };
        root.table()
            .and_then(|table| table.get(key))
            .and_then(|node| Self::open(node, report))
            .unwrap_or(empty)
    }

    /// The node of `key`, whatever it is.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.table.and_then(|table| table.get(key))
    }

    /// The spot that `key` has or would have.
    pub(super) fn spot_of(&self, key: &str) -> Spot {
        self.table.and_then(|table| table.get(key)).map_or_else(
            || self.spot.below(key, self.spot.line),
            |node| node.spot.clone(),
        )
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Located<String>> {
        let report = self.report;
        self.take(key).and_then(|node| node.text(report))
    }

    /// A text that has to be there.
    pub(super) fn required_text(
        &mut self,
        key: &'static str,
        remedy: &str,
    ) -> Option<Located<String>> {
        if self.take(key).is_none() {
            self.missing(key, remedy);
        }
        self.text(key)
    }

    /// Reports that `key` is not there.
    pub(super) fn missing(&self, key: &str, remedy: &str) {
        self.report.wrong(&self.spot_of(key), "is missing", remedy);
    }

    /// True or false.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let report = self.report;
        self.take(key).and_then(|node| node.boolean(report))
    }

    /// A whole number within `range`.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let node = self.take(key)?;
        let number = match &node.shape {
            Shape::Integer(number) => Some(*number),
            Shape::Given(text) => text.parse().ok(),
            Shape::Unreadable => return None,
            _ => None,
        };
        let remedy = format!(
            "write a whole number from {} to {}",
            range.start(),
            range.end()
        );
        let Some(number) = number else {
            node.mistyped("a whole number", &remedy, self.report);
            return None;
        };
        if !range.contains(&number) {
            node.wrong("out of range", remedy, self.report);
            return None;
        }
        Some(number)
    }

    /// A duration (`30d`, `15m`, `5s`, `200ms`) within bounds.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let text = self.text(key)?;
        let Some(duration) = parse_duration(&text.value) else {
            self.report.add(
                Problem::new(
                    &text.spot,
                    "no duration",
                    "write a whole number and ms, s, m, h or d: \"30d\", \"15m\", \"5s\"",
                )
                .value(shown(&text.value)),
            );
            return None;
        };
        if duration < least || duration > most {
            let remedy = format!(
                "choose from {} to {}",
                show_duration(least),
                show_duration(most)
            );
            self.report
                .add(Problem::new(&text.spot, "out of range", remedy).value(shown(&text.value)));
            return None;
        }
        Some(duration)
    }

    /// One of a closed list of words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let list = list_of(words.iter().map(|(word, _)| *word));
            let guess = nearest(&text.value, words.iter().map(|(word, _)| *word))
                .map_or_else(String::new, |word| format!("did you mean {word:?}? "));
            self.report.add(
                Problem::new(
                    &text.spot,
                    "not one of its values",
                    format!("{guess}write {list}"),
                )
                .value(shown(&text.value)),
            );
        }
        found.map(|(_, value)| *value)
    }

    /// A list of texts, none empty.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<Located<String>>> {
        let report = self.report;
        self.take(key).and_then(|node| node.texts(report))
    }

    /// A key of the format that this version can't honour: refused, never ignored.
    pub(super) fn refuse(&mut self, key: &'static str, why: &str, remedy: &str) {
        if let Some(node) = self.take(key) {
            self.report.wrong(&node.spot, why, remedy);
        }
    }

    /// A key of the format that is checked and has no effect yet: noted.
    pub(super) fn note_idle(&mut self, key: &'static str, why: &str) {
        let report = self.report;
        if let Some(node) = self.take(key) {
            node.note_idle(why, report);
        }
    }

    /// Every entry, for tables whose keys are the operator's.
    pub(super) fn entries(&self) -> &'a [(String, Node)] {
        self.table.map_or(&[], |Table(entries)| entries)
    }

    /// Reports the keys that nobody asked for. Their values are not shown: a misspelt key may hold a secret.
    pub(super) fn close(self) {
        for (key, node) in self.entries() {
            if self.known.contains(&key.as_str()) {
                continue;
            }
            let remedy = nearest(key, self.known.iter().copied()).map_or_else(
                || {
                    let mut known = self.known.clone();
                    known.sort_unstable();
                    known.dedup();
                    format!("remove it; known here: {}", known.join(", "))
                },
                |near| format!("did you mean `{near}`?"),
            );
            self.report.wrong(&node.spot, "unknown key", remedy);
        }
    }
}

impl Node {
    /// A text that is not empty.
    pub(super) fn text(&self, report: &Report) -> Option<Located<String>> {
        match &self.shape {
            Shape::Text(text) | Shape::Given(text) => {
                if text.trim().is_empty() {
                    report.wrong(&self.spot, "is empty", "write a value, or remove the key");
                    return None;
                }
                Some(Located::new(text.clone(), self.spot.clone()))
            }
            Shape::Unreadable => None,
            _ => {
                self.mistyped("a text", "write it in quotes", report);
                None
            }
        }
    }

    /// True or false.
    pub(super) fn boolean(&self, report: &Report) -> Option<bool> {
        match &self.shape {
            Shape::Boolean(value) => Some(*value),
            Shape::Given(text) if text == "true" => Some(true),
            Shape::Given(text) if text == "false" => Some(false),
            Shape::Unreadable => None,
            _ => {
                self.mistyped(
                    "true or false",
                    "write true or false, without quotes",
                    report,
                );
                None
            }
        }
    }

    /// A list of texts, none empty.
    pub(super) fn texts(&self, report: &Report) -> Option<Vec<Located<String>>> {
        match &self.shape {
            Shape::List(nodes) => Some(nodes.iter().filter_map(|node| node.text(report)).collect()),
            Shape::Unreadable => None,
            _ => {
                self.mistyped("a list of texts", "write [\"…\", \"…\"]", report);
                None
            }
        }
    }

    /// A text, number, truth value or date as a field's value.
    pub(super) fn scalar(&self, report: &Report) -> Option<Located<Value>> {
        let value = match &self.shape {
            Shape::Text(text) | Shape::Given(text) => Value::text(text.as_str()),
            Shape::Integer(number) => Value::from(*number),
            Shape::Boolean(value) => Value::from(*value),
            Shape::Date(date) => Value::text(date.to_string()),
            Shape::Time(text) => Value::text(text.as_str()),
            Shape::Float(digits) => {
                let Some(number) = Value::number(digits.trim_start_matches('+')) else {
                    self.wrong("no number that a row can hold", "write digits", report);
                    return None;
                };
                number
            }
            Shape::Unreadable => return None,
            Shape::List(_) | Shape::Table(_) => {
                self.mistyped(
                    "one value",
                    "write a text, number, truth value or date",
                    report,
                );
                return None;
            }
        };
        Some(Located::new(value, self.spot.clone()))
    }

    /// Notes a setting that is checked and has no effect yet.
    pub(super) fn note_idle(&self, why: &str, report: &Report) {
        // What nobody wrote nobody can remove.
        if self.spot.file.ends_with(BUILT_IN) {
            return;
        }
        report.note(
            &self.spot,
            format!("is checked and has no effect yet: {why}"),
            "leave it for a later version, or remove it",
        );
    }

    /// Reports a wrong type.
    pub(super) fn mistyped(&self, expected: &str, remedy: &str, report: &Report) {
        let what = format!("{} where {expected} is expected", self.shape.kind());
        self.wrong(what, remedy, report);
    }

    /// Reports a mistake with what stands here. Not for places where a secret may stand.
    pub(super) fn wrong(
        &self,
        what: impl Into<String>,
        remedy: impl Into<String>,
        report: &Report,
    ) {
        let problem = Problem::new(&self.spot, what, remedy);
        let value = match &self.shape {
            Shape::Text(text) | Shape::Given(text) => Some(shown(text)),
            Shape::Integer(number) => Some(number.to_string()),
            Shape::Boolean(value) => Some(value.to_string()),
            Shape::Date(date) => Some(date.to_string()),
            Shape::Float(text) | Shape::Time(text) => Some(text.clone()),
            Shape::List(_) | Shape::Table(_) | Shape::Unreadable => None,
        };
        report.add(match value {
            Some(value) => problem.value(value),
            None => problem,
        });
    }
}

impl Shape {
    /// The type's name in messages.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Given(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Boolean(_) => "a truth value",
            Self::Date(_) => "a date",
            Self::Time(_) => "a time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Unreadable => "something unreadable",
        }
    }
}

/// A text as problems show it: quoted, on one line, cut, and without what stands before `@` in a URL.
pub(super) fn shown(text: &str) -> String {
    let open = match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://***{}", &text[..scheme], &text[at..])
        }
        _ => text.to_owned(),
    };
    if open.chars().count() <= SHOWN {
        return format!("{open:?}");
    }
    let cut: String = open.chars().take(SHOWN).collect();
    format!("{cut:?}…")
}

/// `"a", "b" or "c"`.
pub(super) fn list_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(unit_at);
    let count: u64 = digits.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(count)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    count.checked_mul(seconds).map(Duration::from_secs)
}

fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("5s", 5), ("15m", 900), ("1h", 3600), ("30d", 2_592_000)] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_secs(seconds));
            assert_eq!(show_duration(duration), text);
        }
        assert_eq!(parse_duration("200ms"), Some(Duration::from_millis(200)));
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "5 s",
            "5S",
            "1w",
            "1.5h",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn shows_no_password_and_one_line() {
        assert_eq!(
            shown("postgres://me:pw@host/db"),
            "\"postgres://***@host/db\""
        );
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        assert_eq!(shown(&"é".repeat(200)).chars().count(), 80 + 3);
    }
}

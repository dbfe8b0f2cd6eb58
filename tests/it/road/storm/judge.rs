//! Whether a table holds just what it should, digit by digit.

use std::collections::BTreeMap;

use chrono::DateTime;

use crate::road::store::Texts;

/// How a column's texts are compared.
#[derive(Clone, Copy)]
pub enum Form {
    Text,
    /// By value, however many digits.
    Number,
    Truth,
    Instant,
}

/// What each record's row must hold, columns in the table's order.
pub type Wanted = BTreeMap<String, Vec<Option<String>>>;

/// A table of the store.
pub struct Table<'a> {
    pub name: &'a str,
    /// The column that holds the CRM's id.
    pub key: &'a str,
    pub columns: &'a [(&'a str, Form)],
}

impl Table<'_> {
    /// Where rows and what is wanted differ.
    pub fn differences(&self, wanted: &Wanted, rows: &[Texts]) -> Vec<String> {
        let mut found = Vec::new();
        let mut stored: BTreeMap<&str, &Texts> = BTreeMap::new();
        for row in rows {
            let id = row[self.key].as_deref().unwrap_or_default();
            if stored.insert(id, row).is_some() {
                found.push(format!("{} {id} is stored twice", self.name));
            }
        }
        for (id, cells) in wanted {
            match stored.remove(id.as_str()) {
                None => found.push(format!("{} {id} is not stored", self.name)),
                Some(row) => found.extend(self.unlike(id, cells, row)),
            }
        }
        let left = stored.keys();
        found.extend(left.map(|id| format!("{} {id} is stored and not in the org", self.name)));
        found
    }

    fn unlike(&self, id: &str, cells: &[Option<String>], row: &Texts) -> Vec<String> {
        assert_eq!(cells.len(), self.columns.len());
        let columns = self.columns.iter().zip(cells);
        columns
            .filter_map(|((column, form), cell)| {
                let wanted = plain(*form, cell.as_deref());
                let stored = plain(*form, row[*column].as_deref());
                let shown = |text: &Option<String>| {
                    let text = text.as_deref().unwrap_or("null");
                    text.chars().take(120).collect::<String>()
                };
                (wanted != stored).then(|| {
                    format!(
                        "{} {id}: {column} is {} and not {}",
                        self.name,
                        shown(&stored),
                        shown(&wanted)
                    )
                })
            })
            .collect()
    }
}

/// A text in the one spelling that its form has; empty text is null, as both CRMs have it.
fn plain(form: Form, text: Option<&str>) -> Option<String> {
    let text = text.filter(|text| !text.is_empty())?;
    Some(match form {
        Form::Text => text.to_owned(),
        Form::Number => decimal(text),
        Form::Truth => match text {
            "1" => "true".to_owned(),
            "0" => "false".to_owned(),
            other => other.to_owned(),
        },
        Form::Instant => {
            let at = DateTime::parse_from_rfc3339(text)
                .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"));
            at.unwrap_or_else(|error| panic!("{text}: {error}"))
                .to_utc()
                .to_rfc3339()
        }
    })
}

/// A number without exponent and needless zeros.
fn decimal(text: &str) -> String {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.parse().unwrap();
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}");
    let mut point = i64::try_from(whole.len()).unwrap() + exponent;
    while point <= 0 {
        digits.insert(0, '0');
        point += 1;
    }
    let point = usize::try_from(point).unwrap();
    while digits.len() < point {
        digits.push('0');
    }
    let (whole, fraction) = digits.split_at(point);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    match fraction.trim_end_matches('0') {
        "" if whole == "0" => "0".to_owned(),
        "" => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{fraction}"),
    }
}

#[test]
fn numbers_are_equal_by_value_and_by_no_less() {
    for (one, other) in [
        ("1.50E3", "1500"),
        ("-0.10", "-0.1"),
        ("1e-3", "0.001"),
        ("-0", "0"),
        ("007.0", "7"),
        ("12345678901234567890.10", "12345678901234567890.1"),
    ] {
        assert_eq!(decimal(one), decimal(other), "{one} {other}");
    }
    assert_ne!(
        decimal("922337203685477.5807"),
        decimal("922337203685477.5808")
    );
}

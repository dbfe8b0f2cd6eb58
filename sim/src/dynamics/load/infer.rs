//! Infers a column's type from its values.

use std::collections::{BTreeSet, HashMap};

use chrono::NaiveDate;

use super::super::cell::time;
use super::super::decimal::Decimal;
use super::super::guid::Guid;

/// What the values of a column could be.
pub(super) struct Guess {
    filled: bool,
    boolean: bool,
    integer: bool,
    decimal: bool,
    date: bool,
    datetime: bool,
    id: bool,
    digits: usize,
    longest: usize,
    lines: bool,
    /// Some of the ids, to find out whose they are.
    ids: BTreeSet<Guid>,
    /// The tables that ids name themselves.
    named: BTreeSet<String>,
}

/// Ids looked at.
const SAMPLE: usize = 1000;

impl Guess {
    pub fn new() -> Self {
        Self {
            filled: false,
            boolean: true,
            integer: true,
            decimal: true,
            date: true,
            datetime: true,
            id: true,
            digits: 0,
            longest: 0,
            lines: false,
            ids: BTreeSet::new(),
            named: BTreeSet::new(),
        }
    }

    /// Takes one cell into account.
    pub fn see(&mut self, cell: &str) {
        if cell.is_empty() {
            return;
        }
        self.filled = true;
        self.boolean &= cell.eq_ignore_ascii_case("true") || cell.eq_ignore_ascii_case("false");
        // A number with a zero before it is a text, such as a postal code.
        let bare = cell.strip_prefix('-').unwrap_or(cell);
        let padded = bare.len() > 1 && bare.starts_with('0') && !bare.starts_with("0.");
        self.integer &= !padded && cell.parse::<i32>().is_ok();
        self.decimal &= !padded && Decimal::parse(cell).is_some();
        if self.decimal {
            let digits = cell.split_once('.').map_or(0, |(_, part)| part.len());
            self.digits = self.digits.max(digits);
        }
        self.date &= cell.len() == 10 && cell.parse::<NaiveDate>().is_ok();
        self.datetime &= cell.len() > 10 && time(cell).is_some();
        let (table, id) = cell
            .split_once(':')
            .map_or((None, cell), |(table, id)| (Some(table), id));
        match id.parse() {
            Ok(id) if self.id => {
                if self.ids.len() < SAMPLE {
                    self.ids.insert(id);
                }
                self.named.extend(table.map(str::to_owned));
            }
            _ => self.id = false,
        }
        self.longest = self.longest.max(cell.encode_utf16().count());
        self.lines |= cell.contains('\n');
    }

    /// The type, as a definition writes it.
    pub fn kind(&self, owners: &HashMap<Guid, String>) -> String {
        if !self.filled {
            return "String(100)".to_owned();
        }
        if self.id {
            let mut tables: BTreeSet<String> = self
                .ids
                .iter()
                .filter_map(|id| owners.get(id).cloned())
                .collect();
            tables.extend(self.named.iter().cloned());
            return match tables.is_empty() {
                true => "Uniqueidentifier".to_owned(),
                false => format!(
                    "Lookup({})",
                    tables.into_iter().collect::<Vec<_>>().join(",")
                ),
            };
        }
        match () {
            () if self.boolean => "Boolean".to_owned(),
            () if self.integer => "Integer".to_owned(),
            () if self.decimal => format!("Decimal({})", self.digits.clamp(2, 10)),
            () if self.date => "DateOnly".to_owned(),
            () if self.datetime => "DateTime".to_owned(),
            () if self.lines || self.longest > 4000 => "Memo".to_owned(),
            () => {
                let sizes = [100, 250, 1000, 4000];
                let size = sizes.into_iter().find(|size| self.longest <= *size);
                format!("String({})", size.unwrap_or(4000))
            }
        }
    }
}

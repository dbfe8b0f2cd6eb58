//! The tables of the environment and random writes to them, each of which the environment takes.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use crate::dice::Dice;
use crate::road::dataverse::{Members, Write, member, number};
use crate::road::storm::values::{day, digits, instant, long_text, text};

/// Beyond so many rows of a table, few are born.
const CROWD: usize = 900;
/// The most rows of one call.
const MOST: usize = 60;
const ACCOUNT: usize = 0;
const CONTACT: usize = 1;

/// What a column takes.
enum Kind {
    Text(usize),
    /// Of any length; some have 20 kB.
    Long,
    /// Digits before and after the point.
    Number(usize, usize),
    Integer,
    Float,
    Truth,
    Day,
    Instant,
    Email,
    Choice(&'static [i32]),
    Choices(&'static [i32]),
    /// A look-up of accounts, by its navigation property.
    Account(&'static str),
    /// A look-up of accounts and contacts, likewise without the table's name.
    Customer(&'static str),
    /// `statecode`, with a status that fits.
    State,
}

type Columns = &'static [(&'static str, Kind)];

const ACCOUNTS: Columns = &[
    ("name", Kind::Text(160)),
    ("industrycode", Kind::Choice(&[1, 11, 16, 33])),
    ("numberofemployees", Kind::Integer),
    ("revenue", Kind::Number(15, 2)),
    ("websiteurl", Kind::Text(200)),
    ("description", Kind::Text(2000)),
    ("parentaccountid", Kind::Account("parentaccountid")),
];
const CONTACTS: Columns = &[
    ("firstname", Kind::Text(50)),
    ("lastname", Kind::Text(50)),
    ("emailaddress1", Kind::Email),
    ("birthdate", Kind::Day),
    ("creditlimit", Kind::Number(12, 2)),
    ("donotemail", Kind::Truth),
    ("parentcustomerid", Kind::Customer("parentcustomerid")),
];
const PLANS: Columns = &[
    ("new_title", Kind::Text(200)),
    ("new_tier", Kind::Choice(&[1, 2, 3])),
    ("new_price", Kind::Number(15, 4)),
    ("new_ratio", Kind::Number(12, 10)),
    ("new_score", Kind::Float),
    ("new_serial", Kind::Number(18, 0)),
    ("new_active", Kind::Truth),
    ("new_starts", Kind::Day),
    ("new_opened", Kind::Instant),
    ("new_tags", Kind::Choices(&[1, 2, 3])),
    ("new_notes", Kind::Long),
    ("statecode", Kind::State),
    ("new_accountid", Kind::Account("new_Account")),
    ("new_customerid", Kind::Customer("new_customerid")),
];

/// The definition of a table that no code knows.
pub fn plan_definition() -> String {
    json!({
        "set": "new_planset", "name": "new_title",
        "columns": {
            "new_title": "String(200)", "new_tier": "Picklist(1=Gold,2=Silver (new),3=Bronze; the last)",
            "new_price": "Money(4)", "new_ratio": "Decimal(10)", "new_score": "Double", "new_serial": "BigInt",
            "new_active": "Boolean", "new_starts": "DateOnly", "new_opened": "DateTime",
            "new_tags": "MultiSelectPicklist(1=Red,2=Light green,3=Blau)", "new_notes": "Memo(1000000)",
            "new_accountid": {"type": "Lookup(account)", "navigation": "new_Account", "back": "new_account_plans"},
            "new_customerid": {"type": "Customer", "back": "new_plan_customer_{target}s"},
        }
    })
    .to_string()
}

/// A table and which of its rows live.
pub struct Table {
    pub name: &'static str,
    pub set: &'static str,
    place: usize,
    columns: Columns,
    live: Vec<usize>,
    dead: Vec<usize>,
    next: usize,
}

/// One call.
pub enum Call {
    Single(Write),
    Batch(Vec<Write>),
    Multiple {
        action: &'static str,
        table: usize,
        rows: Vec<Members>,
    },
}

/// Every table that is written to.
pub struct Tables(pub [Table; 3]);

fn id_of(table: usize, number: usize) -> String {
    format!("{table:08x}-0000-4000-8000-{number:012x}")
}

impl Table {
    const fn new(place: usize, name: &'static str, set: &'static str, columns: Columns) -> Self {
        Self {
            name,
            set,
            place,
            columns,
            live: Vec::new(),
            dead: Vec::new(),
            next: 0,
        }
    }

    /// `<table>.csv`: rows that have their ids alone.
    fn born_with(&mut self, rows: usize) -> String {
        let mut csv = format!("{}id\n", self.name);
        for number in 0..rows {
            csv.push_str(&format!("{}\n", id_of(self.place, number)));
            self.live.push(number);
        }
        self.next = rows;
        csv
    }

    fn id(&self, number: usize) -> String {
        id_of(self.place, number)
    }

    /// The row in its set.
    fn path(&self, number: usize) -> String {
        format!("{}({})", self.set, self.id(number))
    }

    /// A row that is not there: a new one, or one that was.
    fn born(&mut self, dice: &mut Dice) -> usize {
        let number = if self.dead.is_empty() || !dice.one_in(3) {
            self.next += 1;
            self.next - 1
        } else {
            let place = dice.below(self.dead.len());
            self.dead.swap_remove(place)
        };
        self.live.push(number);
        number
    }

    fn gone(&mut self, dice: &mut Dice) -> usize {
        let place = dice.below(self.live.len());
        let number = self.live.swap_remove(place);
        self.dead.push(number);
        number
    }

    fn is_crowded(&self) -> bool {
        self.live.len() > CROWD
    }
}

impl Tables {
    /// With the files that an environment begins with: names and texts.
    pub fn with_data(rows: usize) -> (Self, Vec<(String, String)>) {
        let mut tables = [
            Table::new(ACCOUNT, "account", "accounts", ACCOUNTS),
            Table::new(CONTACT, "contact", "contacts", CONTACTS),
            Table::new(2, "new_plan", "new_planset", PLANS),
        ];
        let mut files = vec![("new_plan.json".to_owned(), plan_definition())];
        for table in &mut tables {
            files.push((format!("{}.csv", table.name), table.born_with(rows)));
        }
        (Self(tables), files)
    }

    /// A random call, and how many writes it is.
    pub fn call(&mut self, dice: &mut Dice) -> (Call, usize) {
        let table = dice.below(self.0.len());
        let most = 1 + dice.below(MOST);
        match dice.roll(7) {
            0 => (Call::Single(self.write(dice, table)), 1),
            1..=3 => {
                let writes = (0..most).map(|_| {
                    let table = dice.below(self.0.len());
                    self.write(dice, table)
                });
                (Call::Batch(writes.collect()), most)
            }
            4 if !self.0[table].is_crowded() => {
                let rows = (0..most).map(|_| {
                    let number = self.0[table].born(dice);
                    self.row(dice, table, number)
                });
                let rows = rows.collect();
                (multiple("CreateMultiple", table, rows), most)
            }
            5 => {
                let rows = (0..most).map(|_| {
                    let fresh = !self.0[table].is_crowded() && dice.one_in(3);
                    let number = if fresh {
                        self.0[table].born(dice)
                    } else {
                        *dice.pick(&self.0[table].live)
                    };
                    self.row(dice, table, number)
                });
                let rows = rows.collect();
                (multiple("UpsertMultiple", table, rows), most)
            }
            _ => {
                let numbers = (0..most).map(|_| *dice.pick(&self.0[table].live));
                let numbers: BTreeSet<usize> = numbers.collect();
                let rows = numbers
                    .into_iter()
                    .map(|number| self.row(dice, table, number));
                let rows: Vec<Members> = rows.collect();
                let count = rows.len();
                (multiple("UpdateMultiple", table, rows), count)
            }
        }
    }

    /// One row's write: it is born, changed, put by its id, or deleted.
    fn write(&mut self, dice: &mut Dice, table: usize) -> Write {
        let crowded = self.0[table].is_crowded();
        let sparse = self.0[table].live.len() < 20;
        match dice.roll(10) {
            0 | 1 if !crowded || sparse => {
                let number = self.0[table].born(dice);
                Write {
                    method: Method::POST,
                    path: self.0[table].set.to_owned(),
                    body: Some(self.row(dice, table, number)),
                }
            }
            2 | 3 if !sparse => {
                let number = self.0[table].gone(dice);
                Write {
                    method: Method::DELETE,
                    path: self.0[table].path(number),
                    body: None,
                }
            }
            4 if !crowded => {
                let number = self.0[table].born(dice);
                self.patch(dice, table, number)
            }
            _ => {
                let number = *dice.pick(&self.0[table].live);
                self.patch(dice, table, number)
            }
        }
    }

    fn patch(&self, dice: &mut Dice, table: usize, number: usize) -> Write {
        Write {
            method: Method::PATCH,
            path: self.0[table].path(number),
            body: Some(self.fields(dice, table, number)),
        }
    }

    /// Fields and the row's own id.
    fn row(&self, dice: &mut Dice, table: usize, number: usize) -> Members {
        let mut fields = self.fields(dice, table, number);
        let of = &self.0[table];
        fields.insert(format!("{}id", of.name), member(of.id(number)));
        fields
    }

    fn fields(&self, dice: &mut Dice, table: usize, number: usize) -> Members {
        let mut fields = Members::new();
        for (column, kind) in self.0[table].columns {
            if dice.one_in(2) {
                self.field(dice, (table, number), column, kind, &mut fields);
            }
        }
        if fields.is_empty() {
            let (column, kind) = &self.0[table].columns[0];
            self.field(dice, (table, number), column, kind, &mut fields);
        }
        fields
    }

    fn field(
        &self,
        dice: &mut Dice,
        of: (usize, usize),
        column: &str,
        kind: &Kind,
        fields: &mut Members,
    ) {
        let empty = dice.one_in(6);
        let value = match kind {
            Kind::Account(navigation) => {
                return self.bind(dice, of, ACCOUNT, navigation, empty, fields);
            }
            Kind::Customer(stem) => {
                let target = if dice.one_in(3) { CONTACT } else { ACCOUNT };
                let navigation = format!("{stem}_{}", self.0[target].name);
                return self.bind(dice, of, target, &navigation, empty, fields);
            }
            Kind::State => {
                let inactive = dice.one_in(2);
                let status = if inactive { 2 } else { 1 };
                fields.insert("statuscode".to_owned(), member(status));
                member(i32::from(inactive))
            }
            _ if empty => member(json!(null)),
            Kind::Text(longest) => member(text(dice, *longest)),
            Kind::Long if dice.one_in(40) => member(long_text(dice, 20_000)),
            Kind::Long => member(text(dice, 300)),
            Kind::Number(whole, fraction) => number(digits(dice, *whole, *fraction)),
            Kind::Integer => number(digits(dice, 9, 0)),
            Kind::Float => number(digits(dice, 7, 6)),
            Kind::Truth => member(dice.one_in(2)),
            Kind::Day => member(day(dice)),
            Kind::Instant => member(instant(dice)),
            Kind::Email => member(format!("user{}@example.com", dice.roll(500))),
            Kind::Choice(of) => member(*dice.pick(of)),
            Kind::Choices(of) => {
                let some: Vec<String> = of
                    .iter()
                    .filter(|_| dice.one_in(2))
                    .map(i32::to_string)
                    .collect();
                member(some.join(","))
            }
        };
        fields.insert(column.to_owned(), value);
    }

    fn bind(
        &self,
        dice: &mut Dice,
        of: (usize, usize),
        target: usize,
        navigation: &str,
        empty: bool,
        fields: &mut Members,
    ) {
        let to = *dice.pick(&self.0[target].live);
        // No row is its own parent, nor bound to before it is born.
        if empty || to == of.1 || self.0[target].live.last() == Some(&to) {
            fields.insert(navigation.to_owned(), member(json!(null)));
        } else {
            let path = format!("/{}", self.0[target].path(to));
            fields.insert(format!("{navigation}@odata.bind"), member(path));
        }
    }
}

fn multiple(action: &'static str, table: usize, rows: Vec<Members>) -> Call {
    Call::Multiple {
        action,
        table,
        rows,
    }
}

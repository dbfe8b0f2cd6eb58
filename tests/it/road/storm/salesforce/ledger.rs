//! Six objects, random transactions on them, and what each record holds by the test's own account.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::dice::Dice;
use crate::road::dataverse::Members;
use crate::road::storm::judge::{Form, Wanted};
use crate::road::storm::values::{day, digits, instant, long_text, text};

/// Beyond so many records of an object, few are born.
const CROWD: usize = 300;
/// Fewer are not deleted.
const FEW: usize = 20;
/// When the records of the beginning were written.
const STAMP: &str = "2017-12-31T23:59:59.000+0000";
/// The org's longest text.
const LONGEST: usize = 100_000;

/// What a field takes, and what it is in the store.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Text(usize),
    /// Never empty.
    Name,
    /// Now and then of [`LONGEST`] bytes.
    Long,
    Email,
    /// Digits before and after the point, fifteen together if any are after it: the org keeps a float.
    Number(usize, usize),
    Whole,
    /// A latitude or longitude, up to so many degrees; both or none.
    Degrees(u64),
    Truth,
    Day,
    Instant,
    Time,
    Picks,
}

pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
}

pub struct Object {
    pub name: &'static str,
    /// The store's table; its label in capitals.
    pub table: &'static str,
    pub fields: &'static [Field],
    /// It refers to an account, with which it is deleted.
    pub is_child: bool,
}

const fn of(name: &'static str, kind: Kind) -> Field {
    Field { name, kind }
}

pub const ACCOUNT: usize = 0;
pub const OBJECTS: &[Object] = &[
    Object {
        name: "Account",
        table: "firm",
        is_child: false,
        fields: &[
            of("Name", Kind::Name),
            of("Industry", Kind::Text(40)),
            of("AnnualRevenue", Kind::Number(13, 2)),
            of("NumberOfEmployees", Kind::Whole),
            of("BillingStreet", Kind::Text(200)),
            of("BillingCity", Kind::Text(40)),
            of("BillingCountry", Kind::Text(80)),
            of("Description", Kind::Text(3000)),
        ],
    },
    Object {
        name: "Contact",
        table: "human",
        is_child: true,
        fields: &[
            of("FirstName", Kind::Text(40)),
            of("LastName", Kind::Name),
            of("Email", Kind::Email),
            of("Birthdate", Kind::Day),
            of("MailingStreet", Kind::Text(200)),
            of("MailingCity", Kind::Text(40)),
        ],
    },
    Object {
        name: "Opportunity",
        table: "deal",
        is_child: true,
        fields: &[
            of("Name", Kind::Name),
            of("StageName", Kind::Text(40)),
            of("Amount", Kind::Number(13, 2)),
            of("CloseDate", Kind::Day),
            of("Probability", Kind::Number(2, 1)),
        ],
    },
    Object {
        name: "Survey__c",
        table: "survey",
        is_child: false,
        fields: &[
            of("Score__c", Kind::Number(3, 4)),
            of("Serial__c", Kind::Number(18, 0)),
            of("Reference__c", Kind::Text(255)),
            of("Done__c", Kind::Truth),
            of("On__c", Kind::Day),
            of("At__c", Kind::Instant),
            of("Wake__c", Kind::Time),
            of("Topics__c", Kind::Picks),
        ],
    },
    Object {
        name: "Place__c",
        table: "place",
        is_child: false,
        fields: &[
            of("Title__c", Kind::Text(100)),
            of("Spot__Latitude__s", Kind::Degrees(90)),
            of("Spot__Longitude__s", Kind::Degrees(180)),
            of("Tags__c", Kind::Picks),
        ],
    },
    Object {
        name: "Letter__c",
        table: "letter",
        is_child: false,
        fields: &[
            of("Subject__c", Kind::Text(255)),
            of("Body__c", Kind::Long),
            of("Sent__c", Kind::Instant),
        ],
    },
];

impl Kind {
    /// The type in the org, where its name does not tell it.
    fn described(self, name: &str) -> Option<Json> {
        Some(match self {
            Self::Text(longest) if longest > 255 => json!({"type": "textarea", "length": longest}),
            Self::Long => json!({"type": "textarea", "length": 131_072}),
            Self::Number(_, scale) if name.ends_with("__c") => {
                json!({"type": "double", "precision": 18, "scale": scale})
            }
            Self::Truth => json!({"type": "boolean"}),
            Self::Day => json!({"type": "date"}),
            Self::Instant => json!({"type": "datetime"}),
            Self::Time => json!({"type": "time"}),
            Self::Picks => json!({"type": "multipicklist"}),
            Self::Whole => json!({"type": "int"}),
            _ => return None,
        })
    }

    const fn stored(self) -> &'static str {
        match self {
            Self::Text(_) | Self::Name | Self::Time => "string",
            Self::Long => "rich_text",
            Self::Email => "email",
            Self::Number(..) | Self::Whole | Self::Degrees(_) => "number",
            Self::Truth => "boolean",
            Self::Day => "date",
            Self::Instant => "datetime",
            Self::Picks => "multi_select",
        }
    }

    const fn form(self) -> Form {
        match self {
            Self::Number(..) | Self::Whole | Self::Degrees(_) => Form::Number,
            Self::Truth => Form::Truth,
            Self::Instant => Form::Instant,
            _ => Form::Text,
        }
    }

    fn value(self, dice: &mut Dice) -> Json {
        let never_empty = matches!(self, Self::Name | Self::Truth | Self::Degrees(_));
        if !never_empty && dice.one_in(6) {
            return Json::Null;
        }
        let number = |digits: String| serde_json::from_str(&digits).unwrap();
        match self {
            Self::Text(longest) => text(dice, longest).into(),
            Self::Name => text(dice, 80).into(),
            Self::Long if dice.one_in(60) => long_text(dice, LONGEST).into(),
            Self::Long => text(dice, 2000).into(),
            Self::Email => format!("User{}@example.com", dice.roll(900)).into(),
            Self::Number(whole, fraction) => number(digits(dice, whole, fraction)),
            Self::Whole => number(digits(dice, 9, 0)),
            Self::Degrees(most) => {
                let whole = dice.roll(2 * most - 1).cast_signed() - most.cast_signed() + 1;
                number(format!("{whole}.{}", 1 + dice.roll(999_999)))
            }
            Self::Truth => dice.one_in(2).into(),
            Self::Day => day(dice).into(),
            Self::Instant => instant(dice).into(),
            Self::Time => format!("{:02}:{:02}:00.000Z", dice.roll(24), dice.roll(60)).into(),
            Self::Picks => {
                let picks = ["Red", "Light green", "Größe 🦀", "4th"];
                let some: Vec<&str> = picks.into_iter().filter(|_| dice.one_in(2)).collect();
                some.join(";").into()
            }
        }
    }
}

/// What the org holds after it took a value, or told it.
fn kept(json: &str) -> Option<String> {
    match json {
        "null" => None,
        "true" | "false" => Some(json.to_owned()),
        text if text.starts_with('"') => Some(serde_json::from_str(text).unwrap()),
        // `serde_json` reads the last digit of some floats otherwise.
        number => Some(number.parse::<f64>().unwrap().to_string()),
    }
}

impl Object {
    pub fn key(&self) -> String {
        format!("{}_id", self.table)
    }

    fn label(&self) -> String {
        let (first, rest) = self.table.split_at(1);
        format!("{}{rest}", first.to_uppercase())
    }

    /// A column's name: the field's in small letters, without its ending.
    fn column(field: &str) -> String {
        let bare = field.trim_end_matches("__c").trim_end_matches("__s");
        bare.replace("__", "_").to_lowercase()
    }

    /// Columns and how they compare, the parent's last.
    pub fn columns(&self) -> Vec<(String, Form)> {
        let fields = self.fields.iter();
        let columns = fields.map(|field| (Self::column(field.name), field.kind.form()));
        let parent = self.is_child.then(|| ("firm".to_owned(), Form::Text));
        columns.chain(parent).collect()
    }

    /// `<Object>.csv`, with so many records, and `<Object>.json`.
    pub fn files(&self, records: usize) -> [String; 2] {
        let names: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
        let parent = if self.is_child { ",AccountId" } else { "" };
        let mut csv = format!(
            "Id,{}{parent},CreatedDate,LastModifiedDate,SystemModstamp\n",
            names.join(",")
        );
        for number in 0..records {
            let cell = |field: &Field| match field.kind {
                Kind::Name => format!("First {number}"),
                _ => String::new(),
            };
            let cells: Vec<String> = self.fields.iter().map(cell).collect();
            let parent = if self.is_child { "," } else { "" };
            csv.push_str(&format!(
                ",{}{parent},{STAMP},{STAMP},{STAMP}\n",
                cells.join(",")
            ));
        }
        let mut fields: Map<String, Json> = self
            .fields
            .iter()
            .filter_map(|field| Some((field.name.to_owned(), field.kind.described(field.name)?)))
            .collect();
        if self.is_child {
            let parent =
                json!({"type": "reference", "referenceTo": ["Account"], "cascadeDelete": true});
            fields.insert("AccountId".to_owned(), parent);
        }
        [csv, json!({ "fields": fields }).to_string()]
    }

    /// `objects/<table>.toml` and the job.
    pub fn config(&self) -> [(String, String); 2] {
        let (table, label, key) = (self.table, self.label(), self.key());
        let mut object =
            format!("label = \"{label}\"\n[fields]\n{key} = {{ type = \"string\" }}\n");
        let mut job = format!(
            "source = \"{}\"\non_delete = \"delete\"\nbrakes = {{ max_delete_percent = 100, max_null_percent = 100 }}\n[to.{label}]\nidentifiers = [\"{key}\"]\n[to.{label}.map]\n{key} = \"Id\"\n",
            self.name
        );
        for field in self.fields {
            let column = Self::column(field.name);
            object += &format!("{column} = {{ type = \"{}\" }}\n", field.kind.stored());
            job += &format!("{column} = \"{}\"\n", field.name);
        }
        if self.is_child {
            object += "firm = { type = \"gsid\", references = \"Firm\" }\n";
            job += &format!(
                "[to.{label}.derive]\nfirm = {{ from = \"Firm\", match = {{ \"@id\" = \"AccountId\" }}, on_none = \"null\" }}\n"
            );
        }
        [
            (format!("objects/{table}.toml"), object),
            (format!("jobs/acme/{table}_sync.toml"), job),
        ]
    }
}

/// Records of an object by id, as the org tells them.
pub type Records = BTreeMap<String, Members>;
/// A record's fields as the org keeps them, its parent's id last.
type Record = Vec<Option<String>>;

/// What the org must hold, by the test's own account.
#[derive(Default)]
pub struct Ledger {
    live: Vec<BTreeMap<String, Record>>,
    /// Records that were deleted by themselves, and may come back.
    bin: Vec<BTreeMap<String, Record>>,
}

/// An operation, and what a create is in the ledger once its id is known.
type Planned = (Json, Option<(usize, Record)>);

impl Ledger {
    /// Of an org whose objects hold these records.
    pub fn of(found: Vec<Records>) -> Self {
        let mut ledger = Self::default();
        for (object, records) in OBJECTS.iter().zip(found) {
            let record = |record: &Members| {
                let names = object.fields.iter().map(|field| field.name);
                let parent = object.is_child.then_some("AccountId");
                let told = names.chain(parent).map(|name| kept(record[name].get()));
                told.collect::<Record>()
            };
            let records = records
                .iter()
                .map(|(id, found)| (id.clone(), record(found)));
            ledger.live.push(records.collect());
            ledger.bin.push(BTreeMap::new());
        }
        ledger
    }

    /// A random transaction. What it creates is taken up by [`Ledger::born`].
    pub fn transaction(&mut self, dice: &mut Dice) -> Vec<Planned> {
        let operations = 1 + if dice.one_in(3) { dice.below(3) } else { 0 };
        (0..operations).map(|_| self.operation(dice)).collect()
    }

    fn operation(&mut self, dice: &mut Dice) -> Planned {
        let object = dice.below(OBJECTS.len());
        let name = OBJECTS[object].name;
        let count = self.live[object].len();
        let (crowded, few) = (count > CROWD, count < FEW);
        match dice.roll(10) {
            0 | 1 if !crowded || few => {
                let mut record = blank(object);
                let fields = self.fields(dice, object, &mut record, true);
                let op = json!({"op": "create", "object": name, "fields": fields});
                (op, Some((object, record)))
            }
            2 if !few && (object != ACCOUNT || dice.one_in(4)) => {
                let id = self.any(dice, object);
                self.delete(object, &id);
                (json!({"op": "delete", "object": name, "id": id}), None)
            }
            3 if object != ACCOUNT && !self.bin[object].is_empty() => {
                let place = dice.below(self.bin[object].len());
                let id = self.bin[object].keys().nth(place).unwrap().clone();
                let record = self.bin[object].remove(&id).unwrap();
                self.live[object].insert(id.clone(), record);
                (json!({"op": "undelete", "object": name, "id": id}), None)
            }
            _ => {
                let id = self.any(dice, object);
                let mut record = self.live[object][&id].clone();
                let fields = self.fields(dice, object, &mut record, false);
                self.live[object].insert(id.clone(), record);
                let op = json!({"op": "update", "object": name, "id": id, "fields": fields});
                (op, None)
            }
        }
    }

    /// A created record got its id. Its parent may have died in a later operation of the same call.
    pub fn born(&mut self, object: usize, id: String, record: Record) {
        let parent = OBJECTS[object].is_child.then(|| record.last().unwrap());
        let orphan = parent
            .and_then(Option::as_ref)
            .is_some_and(|parent| !self.live[ACCOUNT].contains_key(parent));
        if !orphan {
            self.live[object].insert(id, record);
        }
    }

    fn any(&self, dice: &mut Dice, object: usize) -> String {
        let place = dice.below(self.live[object].len());
        self.live[object].keys().nth(place).unwrap().clone()
    }

    fn delete(&mut self, object: usize, id: &str) {
        let record = self.live[object].remove(id).unwrap();
        if object != ACCOUNT {
            self.bin[object].insert(id.to_owned(), record);
            return;
        }
        for (place, child) in OBJECTS.iter().enumerate() {
            if child.is_child {
                let is_left = |record: &Record| record.last().unwrap().as_deref() != Some(id);
                self.live[place].retain(|_, record| is_left(record));
                // A child that comes back has nobody to refer to.
                self.bin[place].retain(|_, record| is_left(record));
            }
        }
    }

    /// Some fields' new values, written into the record; all that may not be empty if it is new.
    fn fields(
        &self,
        dice: &mut Dice,
        object: usize,
        record: &mut Record,
        is_new: bool,
    ) -> Map<String, Json> {
        let of = &OBJECTS[object];
        let located = dice.one_in(2);
        let nowhere = dice.one_in(5);
        let mut fields = Map::new();
        for (place, field) in of.fields.iter().enumerate() {
            let degrees = matches!(field.kind, Kind::Degrees(_));
            let chosen = match field.kind {
                Kind::Degrees(_) => located,
                Kind::Name if is_new => true,
                _ => dice.one_in(2),
            };
            if !chosen {
                continue;
            }
            let value = if degrees && nowhere {
                Json::Null
            } else {
                field.kind.value(dice)
            };
            record[place] = kept(&value.to_string());
            fields.insert(field.name.to_owned(), value);
        }
        if of.is_child && dice.one_in(3) {
            let parent = (!dice.one_in(5)).then(|| self.any(dice, ACCOUNT));
            fields.insert("AccountId".to_owned(), json!(parent));
            *record.last_mut().unwrap() = parent;
        }
        if fields.is_empty() {
            let field = &of.fields[0];
            let value = field.kind.value(dice);
            record[0] = kept(&value.to_string());
            fields.insert(field.name.to_owned(), value);
        }
        fields
    }

    /// What rows an object's table must have; `gsid` tells an account's.
    pub fn wanted(&self, object: usize, gsid: &dyn Fn(&str) -> String) -> Wanted {
        let records = self.live[object].iter();
        let row = |(id, record): (&String, &Record)| {
            let mut cells = record.clone();
            if OBJECTS[object].is_child {
                let parent = cells.last_mut().unwrap();
                *parent = parent.as_deref().map(gsid);
            }
            (id.clone(), cells)
        };
        records.map(row).collect()
    }

    /// Whether the org holds the same.
    pub fn agrees(&self, object: usize, found: Records) -> Result<(), String> {
        let mut whole: Vec<Records> = OBJECTS.iter().map(|_| Records::new()).collect();
        whole[object] = found;
        let found = Self::of(whole);
        for (id, record) in &self.live[object] {
            if found.live[object].get(id).map(|found| plain(object, found))
                != Some(plain(object, record))
            {
                return Err(format!(
                    "{id}: {:?} and not {record:?}",
                    found.live[object].get(id)
                ));
            }
        }
        let (ours, theirs) = (self.live[object].len(), found.live[object].len());
        (ours == theirs)
            .then_some(())
            .ok_or_else(|| format!("{theirs} records and not {ours}"))
    }
}

/// Empty texts are null, and instants have one spelling.
fn plain(object: usize, record: &Record) -> Record {
    let fields = OBJECTS[object].fields;
    let cell = |(place, cell): (usize, &Option<String>)| {
        let cell = cell.clone().filter(|cell| !cell.is_empty())?;
        let is_instant = fields.get(place).is_some_and(|f| f.kind == Kind::Instant);
        Some(if is_instant {
            cell[..19].to_owned()
        } else {
            cell
        })
    };
    record.iter().enumerate().map(cell).collect()
}

fn blank(object: usize) -> Record {
    let of = &OBJECTS[object];
    let empty = |field: &Field| (field.kind == Kind::Truth).then(|| "false".to_owned());
    let mut record: Record = of.fields.iter().map(empty).collect();
    if of.is_child {
        record.push(None);
    }
    record
}

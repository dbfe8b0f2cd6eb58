//! A table's definition as JSON: the standard tables are written in it, and the files beside a CSV.
//!
//! ```json
//! {"set": "new_plans", "name": "new_title", "ownership": "UserOwned", "tracked": true,
//!  "columns": {"new_title": "String(100) required",
//!              "new_tier": "Picklist(1=Gold,2=Silver)",
//!              "new_price": "Money(2)",
//!              "new_account": {"type": "Lookup(account)", "navigation": "new_Account", "back": "new_account_plans"}},
//!  "keys": {"new_code_key": ["new_code"]}}
//! ```
//!
//! Types: the names of [`Kind`](super::super::schema::Kind), with a length, a precision, choices or targets in parentheses;
//! then any of `required`, `readonly`, `createonly`, `writeonly`, `secured`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as NameError, StrDeserializer};

use super::super::schema::{Choice, Column, Key, Kind, OnDelete, Ownership, Table, Target};

/// Why a definition can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    #[error("reading the definition of {table}")]
    Json {
        table: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("column {table}.{column}: `{spec}` is no type: {problem}")]
    Type {
        table: String,
        column: String,
        spec: String,
        problem: &'static str,
    },
    #[error("key {table}.{key} names the column {column}, which is not there")]
    Key {
        table: String,
        key: String,
        column: String,
    },
}

/// What a definition says; all of it is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Definition {
    pub set: Option<String>,
    /// The primary key's column, if it is not `<table>id`.
    pub id: Option<String>,
    /// The primary name's column.
    pub name: Option<String>,
    pub label: Option<String>,
    pub ownership: Option<Ownership>,
    pub tracked: Option<bool>,
    pub can_be_tracked: Option<bool>,
    pub optimistic: Option<bool>,
    pub bulk: Option<bool>,
    /// Whether it has `statecode` and `statuscode`; true if absent.
    pub state: Option<bool>,
    #[serde(default)]
    pub columns: BTreeMap<String, Spec>,
    #[serde(default)]
    pub keys: BTreeMap<String, Vec<String>>,
}

/// A column: a type alone, or with more said.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Spec {
    Type(String),
    Full(FullSpec),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FullSpec {
    #[serde(rename = "type")]
    kind: String,
    label: Option<String>,
    schema_name: Option<String>,
    navigation: Option<String>,
    back: Option<String>,
    choices: Option<Vec<Choice>>,
    on_delete: Option<OnDelete>,
}

impl Definition {
    pub fn read(table: &str, json: &str) -> Result<Self, DefinitionError> {
        serde_json::from_str(json).map_err(|source| DefinitionError::Json {
            table: table.to_owned(),
            source,
        })
    }

    /// Writes what is said over a table, new or standard.
    pub fn apply(&self, table: &mut Table) -> Result<(), DefinitionError> {
        fn set<T: Clone>(to: &mut T, from: Option<&T>) {
            if let Some(from) = from {
                to.clone_from(from);
            }
        }
        set(&mut table.set, self.set.as_ref());
        set(&mut table.primary_id, self.id.as_ref());
        set(&mut table.primary_name, self.name.as_ref());
        set(&mut table.label, self.label.as_ref());
        set(&mut table.ownership, self.ownership.as_ref());
        set(&mut table.tracked, self.tracked.as_ref());
        set(&mut table.can_be_tracked, self.can_be_tracked.as_ref());
        set(&mut table.optimistic, self.optimistic.as_ref());
        set(&mut table.bulk, self.bulk.as_ref());
        for (name, spec) in &self.columns {
            let column = column(&table.name, name, spec)?;
            match table.columns.iter_mut().find(|known| known.name == *name) {
                Some(known) => *known = column,
                None => table.columns.push(column),
            }
        }
        for (name, columns) in &self.keys {
            if let Some(column) = columns
                .iter()
                .find(|c| !table.columns.iter().any(|k| k.name == **c))
            {
                return Err(DefinitionError::Key {
                    table: table.name.clone(),
                    key: name.clone(),
                    column: column.clone(),
                });
            }
            table.keys.push(Key {
                name: name.clone(),
                columns: columns.clone(),
                active: true,
            });
        }
        Ok(())
    }
}

/// A column by its type's text alone.
pub(crate) fn plain(table: &str, name: &str, kind: &str) -> Result<Column, DefinitionError> {
    column(table, name, &Spec::Type(kind.to_owned()))
}

fn column(table: &str, name: &str, spec: &Spec) -> Result<Column, DefinitionError> {
    let text = match spec {
        Spec::Type(text) => text,
        Spec::Full(full) => &full.kind,
    };
    let refused = |problem| DefinitionError::Type {
        table: table.to_owned(),
        column: name.to_owned(),
        spec: text.clone(),
        problem,
    };
    let (kind, arguments, flags) = parts(text).ok_or_else(|| refused("a parenthesis is open"))?;
    let named: StrDeserializer<'_, NameError> = kind.into_deserializer();
    let kind = Kind::deserialize(named).map_err(|_| refused("no such kind"))?;
    let mut column = Column {
        name: name.to_owned(),
        schema_name: name.to_owned(),
        label: name.to_owned(),
        kind,
        choices: Vec::new(),
        targets: Vec::new(),
        max_length: if kind == Kind::Memo { 1_048_576 } else { 100 },
        precision: if kind == Kind::Money { 4 } else { 2 },
        required: false,
        readable: true,
        creatable: true,
        updatable: true,
        secured: false,
        on_delete: OnDelete::RemoveLink,
    };
    argue(&mut column, arguments).map_err(refused)?;
    for flag in flags {
        match flag {
            "required" => column.required = true,
            "readonly" => (column.creatable, column.updatable) = (false, false),
            "createonly" => column.updatable = false,
            "writeonly" => column.readable = false,
            "secured" => column.secured = true,
            _ => return Err(refused("no such flag")),
        }
    }
    if let Spec::Full(full) = spec {
        column.on_delete = full.on_delete.unwrap_or_default();
        if let Some(label) = &full.label {
            column.label.clone_from(label);
        }
        if let Some(schema_name) = &full.schema_name {
            column.schema_name.clone_from(schema_name);
        }
        if let Some(choices) = &full.choices {
            column.choices.clone_from(choices);
        }
    }
    navigate(table, &mut column, spec);
    Ok(column)
}

/// Names the navigation properties of a lookup, to its targets and back.
fn navigate(table: &str, column: &mut Column, spec: &Spec) {
    let (navigation, back) = match spec {
        Spec::Full(full) => (full.navigation.as_deref(), full.back.as_deref()),
        Spec::Type(_) => (None, None),
    };
    let parted = column.targets.len() > 1 && column.kind != Kind::Owner;
    for target in &mut column.targets {
        let base = navigation.unwrap_or(&column.name);
        target.navigation = match parted {
            true => format!("{base}_{}", target.table),
            false => base.to_owned(),
        };
        target.back = match back {
            Some(back) => back.replace("{target}", &target.table),
            None => format!("{table}_{}_{}", column.name, target.table),
        };
    }
}

fn parts(text: &str) -> Option<(&str, &str, Vec<&str>)> {
    let (head, flags) = match text.split_once('(') {
        Some((_, rest)) => {
            // A label may hold parentheses of its own.
            let end = rest.rfind(')')?;
            (&text[..text.len() - rest.len() + end + 1], &rest[end + 1..])
        }
        None => text.split_once(' ').unwrap_or((text, "")),
    };
    let (kind, arguments) = head.split_once('(').unwrap_or((head, ""));
    Some((
        kind.trim(),
        arguments.strip_suffix(')').unwrap_or(arguments),
        flags.split_whitespace().collect(),
    ))
}

fn argue(column: &mut Column, arguments: &str) -> Result<(), &'static str> {
    let number = || {
        arguments
            .parse::<u32>()
            .map_err(|_| "a number belongs in the parentheses")
    };
    match column.kind {
        Kind::String | Kind::Memo | Kind::EntityName if !arguments.is_empty() => {
            column.max_length = number()?;
        }
        Kind::Decimal | Kind::Money if !arguments.is_empty() => column.precision = number()?,
        kind if kind.has_options() => {
            for part in arguments.split(',').filter(|part| !part.is_empty()) {
                let (value, label) = part.split_once('=').ok_or("a choice is `value=label`")?;
                // A status names its state before a slash: `0/1=In Progress`.
                let (state, value) = match value.split_once('/') {
                    Some((state, value)) => (Some(state), value),
                    None => (None, value),
                };
                let whole = |text: &str| {
                    text.trim()
                        .parse::<i32>()
                        .map_err(|_| "a choice's value is a whole number")
                };
                column.choices.push(Choice {
                    value: whole(value)?,
                    label: label.trim().to_owned(),
                    state: state.map(whole).transpose()?,
                });
            }
        }
        Kind::Customer if arguments.is_empty() => column.targets = targets("account,contact"),
        Kind::Owner if arguments.is_empty() => column.targets = targets("systemuser,team"),
        Kind::Lookup if arguments.is_empty() => return Err("a lookup names its targets"),
        kind if kind.is_lookup() => column.targets = targets(arguments),
        _ if !arguments.is_empty() => return Err("this kind takes nothing in parentheses"),
        _ => {}
    }
    Ok(())
}

fn targets(names: &str) -> Vec<Target> {
    let target = |name: &str| Target {
        table: name.trim().to_owned(),
        navigation: String::new(),
        back: String::new(),
    };
    names.split(',').map(target).collect()
}

//! A transaction over the store: what a write does besides what it was told, and what it leaves for the event pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use chrono::{DateTime, Utc};

use super::cell::Cell;
use super::error::ApiError;
use super::guid::Guid;
use super::schema::{Kind, OnDelete, Ownership, Table};
use super::store::{Row, Store, Undo};
use crate::salesforce::random::Random;

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    Create,
    Update,
    Delete,
}

impl Message {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "Create",
            Self::Update => "Update",
            Self::Delete => "Delete",
        }
    }
}

/// A write, for the event pipeline.
#[derive(Debug, Clone)]
pub struct Change {
    pub message: Message,
    pub table: Arc<Table>,
    pub id: Guid,
    pub before: Option<Arc<Row>>,
    pub after: Option<Arc<Row>>,
    /// The columns in the request and those that the platform added, by place.
    pub input: Vec<usize>,
    /// Above 1 if other logic made it.
    pub depth: u32,
}

/// What a transaction needs of the org.
#[derive(Debug, Clone, Copy)]
pub struct Author {
    pub user: Guid,
    pub business_unit: Guid,
    pub currency: Guid,
    pub now: DateTime<Utc>,
}

/// An open transaction; dropped without `keep`, it leaves nothing.
#[derive(Debug)]
pub struct Tx<'a> {
    pub store: &'a mut Store,
    pub author: Author,
    /// What `$n` stands for in a change set.
    pub content_ids: BTreeMap<String, String>,
    random: &'a mut Random,
    undo: Vec<Undo>,
    changes: Vec<Change>,
    version: i64,
    depth: u32,
}

impl<'a> Tx<'a> {
    pub(crate) fn begin(store: &'a mut Store, author: Author, random: &'a mut Random) -> Self {
        Self {
            version: store.version,
            store,
            author,
            content_ids: BTreeMap::new(),
            random,
            undo: Vec::new(),
            changes: Vec::new(),
            depth: 1,
        }
    }

    /// Ends the transaction with its work in the store.
    pub(crate) fn keep(mut self) -> (Vec<Change>, Vec<Undo>) {
        (
            std::mem::take(&mut self.changes),
            std::mem::take(&mut self.undo),
        )
    }

    fn table(&self, name: &str) -> Result<Arc<Table>, ApiError> {
        let rows = self.store.table(name);
        rows.map(|rows| Arc::clone(&rows.table))
            .ok_or_else(|| ApiError::no_segment(name))
    }

    fn row(&self, table: &str, id: Guid) -> Result<Arc<Row>, ApiError> {
        let row = self.store.table(table).and_then(|rows| rows.row(id));
        row.cloned().ok_or_else(|| ApiError::no_row(table, id))
    }

    /// Adds a row; the id is drawn unless it is given.
    pub fn create(
        &mut self,
        name: &str,
        id: Option<Guid>,
        set: Vec<(usize, Cell)>,
    ) -> Result<Guid, ApiError> {
        let table = self.table(name)?;
        let id_place = table.id_place();
        let given = set
            .iter()
            .find(|(place, _)| *place == id_place)
            .and_then(|(_, cell)| cell.id());
        let id = id.or(given).unwrap_or_else(|| Guid::draw(self.random));
        if self
            .store
            .table(name)
            .is_some_and(|rows| rows.row(id).is_some())
        {
            return Err(ApiError::duplicate_id());
        }
        let mut draft = Draft::new(&table, vec![Cell::Null; table.columns.len()]);
        draft.cells[id_place] = Cell::Id(id);
        for (place, cell) in set {
            if table.columns[place].creatable {
                draft.set(place, cell);
            }
        }
        self.fill_in(&mut draft, id);
        draft.derive()?;
        if let Some(missing) = draft.missing() {
            return Err(ApiError::argument(format!(
                "Required field '{missing}' is missing"
            )));
        }
        self.write(Message::Create, id, None, draft)?;
        Ok(id)
    }

    /// Changes columns of a row.
    pub fn update(
        &mut self,
        name: &str,
        id: Guid,
        set: Vec<(usize, Cell)>,
    ) -> Result<(), ApiError> {
        let table = self.table(name)?;
        let before = self.row(name, id)?;
        let mut cells = before.cells.clone();
        cells.resize(table.columns.len(), Cell::Null);
        let mut draft = Draft::new(&table, cells);
        for (place, cell) in set {
            if place != table.id_place() && table.columns[place].updatable {
                draft.set(place, cell);
            }
        }
        draft.stamp("modifiedon", Cell::Time(self.author.now));
        draft.stamp("modifiedby", self.author_cell());
        self.owned(&mut draft);
        draft.derive()?;
        self.write(Message::Update, id, Some(before), draft)
    }

    /// Deletes a row, and does to those that refer to it what their columns say.
    pub fn delete(&mut self, name: &str, id: Guid) -> Result<(), ApiError> {
        let table = self.table(name)?;
        let before = self.row(name, id)?;
        let found = self.referring(name, id);
        if let Some((child, _, _)) = found
            .iter()
            .find(|(_, _, what)| *what == OnDelete::Restrict)
        {
            return Err(ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "0x80040227",
                format!(
                    "The object you tried to delete is associated with another object ({}) and cannot be deleted.",
                    child.0
                ),
            ));
        }
        self.put(name, id, None)?;
        self.changes.push(Change {
            message: Message::Delete,
            table,
            id,
            before: Some(before),
            after: None,
            input: Vec::new(),
            depth: self.depth,
        });
        self.depth += 1;
        for ((child, child_id), places, what) in found {
            if self.row(&child, child_id).is_err() {
                continue;
            }
            match what {
                OnDelete::Cascade => self.delete(&child, child_id)?,
                OnDelete::RemoveLink | OnDelete::Restrict => {
                    self.unlink(&child, child_id, places)?;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn unlink(&mut self, name: &str, id: Guid, places: Vec<usize>) -> Result<(), ApiError> {
        let table = self.table(name)?;
        let before = self.row(name, id)?;
        let mut draft = Draft::new(&table, before.cells.clone());
        for place in places {
            draft.set(place, Cell::Null);
        }
        draft.stamp("modifiedon", Cell::Time(self.author.now));
        draft.stamp("modifiedby", self.author_cell());
        self.write(Message::Update, id, Some(before), draft)
    }

    /// The rows that refer to one, with the referring columns and what its deletion does to them.
    #[allow(clippy::type_complexity, reason = "a row, its columns, an effect")]
    fn referring(&self, name: &str, id: Guid) -> Vec<((String, Guid), Vec<usize>, OnDelete)> {
        let mut found = Vec::new();
        for rows in self.store.tables() {
            let places: Vec<usize> = (0..rows.table.columns.len())
                .filter(|place| {
                    let column = &rows.table.columns[*place];
                    // Who wrote a row stays written, even when that user is gone.
                    let stamp = !column.updatable || column.kind == Kind::Owner;
                    !stamp && column.targets.iter().any(|target| target.table == name)
                })
                .collect();
            if places.is_empty() {
                continue;
            }
            for (child, row) in rows.rows() {
                let refers = |place: &usize| matches!(row.cell(*place), Cell::Ref(t, r) if **t == *name && *r == id);
                let hits: Vec<usize> = places
                    .iter()
                    .copied()
                    .filter(|place| refers(place))
                    .collect();
                if let Some(first) = hits.first() {
                    let what = rows.table.columns[*first].on_delete;
                    found.push(((rows.table.name.clone(), child), hits, what));
                }
            }
        }
        found
    }

    fn author_cell(&self) -> Cell {
        Cell::Ref(Arc::from("systemuser"), self.author.user)
    }

    /// What a new row has besides what was said.
    fn fill_in(&mut self, draft: &mut Draft<'_>, id: Guid) {
        let now = Cell::Time(self.author.now);
        let backdated = draft.get("overriddencreatedon").clone();
        if backdated.is_null() {
            draft.stamp("createdon", now.clone());
        } else {
            draft.stamp("createdon", backdated);
            draft.stamp("overriddencreatedon", now.clone());
        }
        draft.stamp("modifiedon", now);
        draft.stamp("createdby", self.author_cell());
        draft.stamp("modifiedby", self.author_cell());
        for place in 0..draft.table.columns.len() {
            let column = &draft.table.columns[place];
            if column.kind == Kind::Boolean && draft.cells[place].is_null() {
                draft.set(place, Cell::Bool(false));
            }
        }
        if draft.table.ownership == Ownership::UserOwned && draft.get("ownerid").is_null() {
            draft.stamp("ownerid", self.author_cell());
        }
        if draft.table.name == "systemuser" || draft.table.name == "team" {
            draft.stamp("ownerid", Cell::Id(id));
        }
        let unit = Cell::Ref(Arc::from("businessunit"), self.author.business_unit);
        draft.default("businessunitid", &unit);
        draft.default(
            "transactioncurrencyid",
            &Cell::Ref(Arc::from("transactioncurrency"), self.author.currency),
        );
        if draft.table.name == "incident" {
            let serial = self.random.text(b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789", 6);
            let number = self.random.between(1000, 99_999);
            draft.default(
                "ticketnumber",
                &Cell::text(&format!("CAS-{number:05}-{serial}")),
            );
        }
        self.owned(draft);
    }

    /// Who owns a row, told apart by the owner's table.
    fn owned(&self, draft: &mut Draft<'_>) {
        if draft.table.ownership != Ownership::UserOwned {
            return;
        }
        let owner = draft.get("ownerid").clone();
        let Cell::Ref(table, id) = &owner else {
            return;
        };
        let team = &**table == "team";
        draft.stamp("owninguser", if team { Cell::Null } else { owner.clone() });
        draft.stamp("owningteam", if team { owner.clone() } else { Cell::Null });
        let unit = self.store.table(table).and_then(|rows| {
            let place = rows.table.place("businessunitid")?;
            Some(rows.row(*id)?.cell(place).clone())
        });
        let unit = unit.filter(|unit| !unit.is_null());
        draft.stamp(
            "owningbusinessunit",
            unit.unwrap_or(Cell::Ref(
                Arc::from("businessunit"),
                self.author.business_unit,
            )),
        );
    }

    fn write(
        &mut self,
        message: Message,
        id: Guid,
        before: Option<Arc<Row>>,
        draft: Draft<'_>,
    ) -> Result<(), ApiError> {
        let table = self.table(&draft.table.name)?;
        if let Some(rows) = self.store.table(&table.name)
            && let Some(key) = rows.clash(id, &draft.cells)
        {
            return Err(ApiError::duplicate_key(&key.name));
        }
        let Draft {
            cells, mut input, ..
        } = draft;
        input.sort_unstable();
        input.dedup();
        self.put(&table.name, id, Some(cells))?;
        let after = self.row(&table.name, id)?;
        self.changes.push(Change {
            message,
            table,
            id,
            before,
            after: Some(after),
            input,
            depth: self.depth,
        });
        Ok(())
    }

    fn put(&mut self, table: &str, id: Guid, cells: Option<Vec<Cell>>) -> Result<(), ApiError> {
        let undo = self.store.put(table, id, cells, self.author.now);
        self.undo
            .push(undo.ok_or_else(|| ApiError::no_segment(table))?);
        Ok(())
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        if self.undo.is_empty() {
            return;
        }
        for old in self.undo.drain(..).rev() {
            self.store.restore(old);
        }
        self.store.version = self.version;
    }
}

/// A row being written.
struct Draft<'t> {
    table: &'t Table,
    cells: Vec<Cell>,
    /// The places that were set.
    input: Vec<usize>,
}

impl<'t> Draft<'t> {
    fn new(table: &'t Table, mut cells: Vec<Cell>) -> Self {
        cells.resize(table.columns.len(), Cell::Null);
        Self {
            table,
            cells,
            input: Vec::new(),
        }
    }

    fn set(&mut self, place: usize, cell: Cell) {
        self.cells[place] = cell;
        self.input.push(place);
    }

    fn get(&self, name: &str) -> &Cell {
        self.table
            .place(name)
            .map_or(&Cell::Null, |place| &self.cells[place])
    }

    /// Sets a column that the table may have.
    fn stamp(&mut self, name: &str, cell: Cell) {
        if let Some(place) = self.table.place(name) {
            self.set(place, cell);
        }
    }

    fn default(&mut self, name: &str, cell: &Cell) {
        if self.get(name).is_null() {
            self.stamp(name, cell.clone());
        }
    }

    fn was_set(&self, name: &str) -> bool {
        self.table
            .place(name)
            .is_some_and(|place| self.input.contains(&place))
    }

    /// The required column that is empty.
    fn missing(&self) -> Option<&str> {
        let mut all = self.table.columns.iter().zip(&self.cells);
        // A person's and a firm's names are required by forms, not by the platform.
        let strict = self.table.ownership == Ownership::OrganizationOwned;
        all.find(|(column, cell)| {
            column.required && cell.is_null() && (strict || column.kind == Kind::Customer)
        })
        .map(|(column, _)| column.name.as_str())
    }

    /// Columns that follow from others: full names, and status from state.
    fn derive(&mut self) -> Result<(), ApiError> {
        if self.table.place("fullname").is_some() && self.table.place("firstname").is_some() {
            let part = |name| match self.get(name) {
                Cell::Text(text) if !text.is_empty() => Some(text.to_string()),
                _ => None,
            };
            let names: Vec<_> = [part("firstname"), part("lastname")]
                .into_iter()
                .flatten()
                .collect();
            if self.was_set("firstname")
                || self.was_set("lastname")
                || self.get("fullname").is_null()
            {
                let full = if names.is_empty() {
                    Cell::Null
                } else {
                    Cell::text(&names.join(" "))
                };
                self.stamp("fullname", full);
            }
        }
        self.status()
    }

    fn status(&mut self) -> Result<(), ApiError> {
        let (Some(state_place), Some(status_place)) = (
            self.table.place("statecode"),
            self.table.place("statuscode"),
        ) else {
            return Ok(());
        };
        let statuses = &self.table.columns[status_place].choices;
        if self.cells[state_place].is_null() {
            let first = self.table.columns[state_place]
                .choices
                .first()
                .map_or(0, |choice| choice.value);
            let told = match &self.cells[status_place] {
                Cell::Int(value) => statuses
                    .iter()
                    .find(|c| i64::from(c.value) == *value)
                    .and_then(|c| c.state),
                _ => None,
            };
            self.set(state_place, Cell::Int(i64::from(told.unwrap_or(first))));
        }
        let Cell::Int(state) = self.cells[state_place] else {
            return Ok(());
        };
        let fits = |value: i64| {
            statuses.iter().any(|c| {
                i64::from(c.value) == value && c.state.is_none_or(|s| i64::from(s) == state)
            })
        };
        match self.cells[status_place] {
            Cell::Int(value) if fits(value) => Ok(()),
            Cell::Int(value) if self.was_set("statuscode") => {
                let message = format!(
                    "{value} is not a valid status code for state code {state} on {}.",
                    self.table.name
                );
                Err(ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "0x80048408",
                    message,
                ))
            }
            _ => {
                let default = statuses
                    .iter()
                    .find(|c| c.state.is_none_or(|s| i64::from(s) == state));
                if let Some(choice) = default {
                    let value = i64::from(choice.value);
                    self.set(status_place, Cell::Int(value));
                }
                Ok(())
            }
        }
    }
}

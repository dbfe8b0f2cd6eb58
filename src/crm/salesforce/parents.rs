//! Parents that no query follows: read by id, for the rows of a page or of some ids.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use crate::crm::port::Pages;
use crate::fault::Fault;
use crate::model::event::{Page, Row};
use crate::model::record_id::RecordId;
use crate::model::value::{Fields, Value};

use super::plan::Parent;
use super::read::Reader;

impl Reader {
    /// Adds the fields of the rows' parents. They are true of later than the rows are, which is as good: a parent's field
    /// is true of a time of its own. A dropped wait loses nothing: what was added is added again.
    pub(super) fn add_parents<'a>(
        &'a self,
        parents: &'a [Parent],
        rows: &'a mut [Row],
    ) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 'a>> {
        Box::pin(async move {
            for parent in parents {
                let ids: BTreeSet<RecordId> =
                    rows.iter().filter_map(|row| id_of(row, parent)).collect();
                let ids: Vec<RecordId> = ids.into_iter().collect();
                let found = if ids.is_empty() {
                    Vec::new()
                } else {
                    self.by_plan(&parent.plan, &ids).await?.rows
                };
                let found: HashMap<RecordId, Fields> = found
                    .into_iter()
                    .map(|row| (row.record, row.fields))
                    .collect();
                for row in &mut *rows {
                    add(row, parent, &found);
                }
            }
            for parent in parents.iter().filter(|parent| !parent.is_selected) {
                for row in &mut *rows {
                    row.fields.remove(&parent.reference);
                }
            }
            Ok(())
        })
    }
}

fn id_of(row: &Row, parent: &Parent) -> Option<RecordId> {
    let id = row.fields.get(&parent.reference)?.as_text()?;
    RecordId::salesforce(id).ok()
}

/// A row's fields of one parent: empty where there is none, or none that the user sees; not told where the reference is
/// not.
fn add(row: &mut Row, parent: &Parent, found: &HashMap<RecordId, Fields>) {
    if !row.fields.contains_key(&parent.reference) {
        return;
    }
    let known = id_of(row, parent).and_then(|id| found.get(&id));
    for (field, own) in &parent.fields {
        let value = match known {
            Some(fields) => fields.get(own).cloned(),
            None => Some(Value::Null),
        };
        row.fields.extend(value.map(|value| (field.clone(), value)));
    }
}

/// A read over pages whose rows have fields of such parents.
pub(super) struct WithParents {
    reader: Arc<Reader>,
    parents: Vec<Parent>,
    pages: Box<dyn Pages>,
    /// A page that came, and lacks them.
    held: Option<Page>,
}

impl WithParents {
    /// Adds the fields of `parents` to the rows of `pages`, if there are any.
    pub(super) fn of(
        reader: &Arc<Reader>,
        parents: Vec<Parent>,
        pages: Box<dyn Pages>,
    ) -> Box<dyn Pages> {
        if parents.is_empty() {
            return pages;
        }
        Box::new(Self {
            reader: Arc::clone(reader),
            parents,
            pages,
            held: None,
        })
    }
}

#[async_trait]
impl Pages for WithParents {
    async fn next(&mut self) -> Result<Option<Page>, Fault> {
        if self.held.is_none() {
            self.held = self.pages.next().await?;
        }
        if let Some(page) = &mut self.held {
            self.reader
                .add_parents(&self.parents, &mut page.rows)
                .await?;
        }
        Ok(self.held.take())
    }
}

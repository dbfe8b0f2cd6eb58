//! How a selection is read: which fields a query bears, which follow by id, and what kind each is.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::crm::port::Selection;
use crate::fault::{Fault, FaultKind};
use crate::http::encode::percent_len;
use crate::model::name::{FieldName, ObjectName};
use crate::model::schema::FieldKind;

use super::describe::{Describer, Description};
use super::path::{Led, led};
use super::row::Columns;
use super::soql;
use super::take::{Take, Taken};

/// Encoded bytes that a query has beside its fields: words, object, window, key.
const BESIDE: usize = 900;

/// A selection, ready to be read.
#[derive(Debug)]
pub struct Plan {
    /// The object's description.
    pub description: Arc<Description>,
    /// What is taken out of rows.
    pub columns: Columns,
    /// The object's own fields, without the id and the stamp.
    own: Vec<FieldName>,
    /// Parents' fields.
    paths: Vec<FieldName>,
    /// Parents that no query follows.
    pub parents: Vec<Parent>,
}

/// A parent that is read by its id, besides the rows that name it.
#[derive(Debug)]
pub struct Parent {
    /// The row's field that has the parent's id, `WhoId:Contact`.
    pub reference: FieldName,
    /// Whether that field is selected too.
    pub is_selected: bool,
    /// The row's fields, each with the parent's own.
    pub fields: Vec<(FieldName, FieldName)>,
    /// How the parent is read.
    pub plan: Plan,
}

/// Fields of parents that are read by id, and whose they are, by the field that has the id.
type ById = BTreeMap<FieldName, (ObjectName, Vec<(FieldName, FieldName)>)>;

/// Fields of a query over pages, and those that are read by id for each page.
#[derive(Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// With the query; the id and the stamp first.
    pub head: Vec<&'a str>,
    /// The object's own fields that the query does not bear.
    pub own: Vec<&'a str>,
    /// Parents' fields that the query does not bear.
    pub paths: Vec<&'a str>,
}

impl Plan {
    /// Looks up the kinds of a selection's fields; parents are described too.
    ///
    /// # Errors
    /// `Missing` for a name that is none, or the fault of a describe.
    pub async fn new(describer: &Describer, selection: &Selection) -> Result<Self, Fault> {
        let object = &selection.object;
        let mut names = selection.fields.iter().map(FieldName::as_str);
        let description = if names.any(|name| name.ends_with("@label")) {
            describer.young(object).await?
        } else {
            describer.get(object).await?
        };
        let mut plan = Self {
            columns: Columns::new(description.stamp.clone()),
            description,
            own: Vec::new(),
            paths: Vec::new(),
            parents: Vec::new(),
        };
        let mut parents = ById::new();
        for field in &selection.fields {
            plan.add(describer, field, &mut parents).await?;
        }
        for (reference, (object, fields)) in parents {
            let is_selected = selection.fields.contains(&reference);
            if !is_selected {
                plan.add(describer, &reference, &mut ById::new()).await?;
            }
            let parent = Parent::new(describer, object, reference, is_selected, fields);
            plan.parents.push(parent.await?);
        }
        Ok(plan)
    }

    /// Adds a selected field to what is read.
    async fn add(
        &mut self,
        describer: &Describer,
        field: &FieldName,
        parents: &mut ById,
    ) -> Result<(), Fault> {
        let (query, kind, take) = match led(describer, &self.description, field.as_str()).await? {
            Led::To { query, kind, take } => (query, kind, take),
            Led::ById {
                reference,
                object,
                rest,
            } => {
                let (_, fields) = parents
                    .entry(reference)
                    .or_insert_with(|| (object, Vec::new()));
                fields.push((field.clone(), rest));
                return Ok(());
            }
            Led::Nowhere {
                misfit: Some((what, remedy)),
                ..
            } => return Err(Fault::new(FaultKind::Missing, what).remedy(remedy)),
            // The query says best what is not there.
            Led::Nowhere { .. } => (field.clone(), FieldKind::Text, Take::Value),
        };
        soql::identifier(query.as_str())?;
        if !kind.is_selectable() {
            return Ok(());
        }
        let taken = Taken {
            field: field.clone(),
            take,
        };
        let is_key = query.as_str() == "Id" || Some(&query) == self.description.stamp.as_ref();
        // What is read already for another field is asked for once.
        if query.as_str().contains('.') {
            if self.columns.nested(query.clone(), kind, taken) {
                self.paths.push(query);
            }
        } else if self.columns.own(query.clone(), kind, taken) && !is_key {
            self.own.push(query);
        }
        Ok(())
    }

    /// The object's name in queries.
    #[must_use]
    pub fn object(&self) -> &str {
        self.description.schema.name.as_str()
    }

    /// The fields that every part of a read has: the id, and the stamp where there is one.
    #[must_use]
    pub fn key_fields(&self) -> Vec<&str> {
        let mut fields = vec!["Id"];
        fields.extend(self.description.stamp.as_ref().map(FieldName::as_str));
        fields
    }

    /// The object's own fields without the key's.
    #[must_use]
    pub fn own(&self) -> Vec<&str> {
        self.own.iter().map(FieldName::as_str).collect()
    }

    /// Parents' fields.
    #[must_use]
    pub fn paths(&self) -> Vec<&str> {
        self.paths.iter().map(FieldName::as_str).collect()
    }

    /// The queries that fields take by id: what each selects, and how many ids it bears.
    #[must_use]
    pub fn by_id<'a>(&'a self, fields: &[&'a str]) -> Vec<(Vec<&'a str>, usize)> {
        let mut queries = Vec::new();
        let mut left = fields;
        loop {
            let fit = soql::fitting(left, soql::MAX_QUERY / 2).min(left.len());
            let (some, rest) = left.split_at(fit);
            left = rest;
            let mut asked = self.key_fields();
            asked.extend(some);
            let length: usize = asked.iter().map(|field| percent_len(field) + 1).sum();
            let room = soql::MAX_QUERY.saturating_sub(length + 200) / soql::ID_LENGTH;
            queries.push((asked, room.max(1)));
            if left.is_empty() {
                return queries;
            }
        }
    }

    /// Splits the fields so that a query over pages has a length that a URL bears. Parents' fields come first:
    /// only queries can read them.
    #[must_use]
    pub fn split(&self) -> Split<'_> {
        let mut head = self.key_fields();
        let mut paths = self.paths();
        let mut own = self.own();
        let keys: usize = head.iter().map(|field| percent_len(field) + 1).sum();
        let taken = BESIDE + keys;
        let fit = soql::fitting(&paths, taken).min(paths.len());
        let rest = paths.split_off(fit);
        let taken = taken
            + paths
                .iter()
                .map(|path| percent_len(path) + 1)
                .sum::<usize>();
        head.extend(paths);
        let fit = if taken < soql::MAX_QUERY {
            soql::fitting(&own, taken).min(own.len())
        } else {
            0
        };
        let own_rest = own.split_off(fit);
        head.extend(own);
        Split {
            head,
            own: own_rest,
            paths: rest,
        }
    }
}

impl Parent {
    /// Looks up a parent's fields; a path may go on from there.
    fn new(
        describer: &Describer,
        object: ObjectName,
        reference: FieldName,
        is_selected: bool,
        fields: Vec<(FieldName, FieldName)>,
    ) -> Pin<Box<dyn Future<Output = Result<Self, Fault>> + Send + '_>> {
        Box::pin(async move {
            let own: Vec<FieldName> = fields.iter().map(|(_, own)| own.clone()).collect();
            let selection = Selection {
                object,
                fields: own,
            };
            let plan = Plan::new(describer, &selection).await;
            let plan =
                plan.map_err(|fault| fault.context(format_args!("following `{reference}`")))?;
            Ok(Self {
                reference,
                is_selected,
                fields,
                plan,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::describe::tests::described;
    use super::*;

    fn plan(own: usize, paths: usize) -> Plan {
        Plan {
            description: Arc::new(described(
                "Account",
                &[("Id", "id", None), ("SystemModstamp", "datetime", None)],
            )),
            columns: Columns::default(),
            own: (0..own)
                .map(|n| FieldName::new(format!("A_Rather_Long_Field_{n:04}__c")))
                .collect(),
            paths: (0..paths)
                .map(|n| FieldName::new(format!("Owner.Long_Field_{n:04}__c")))
                .collect(),
            parents: Vec::new(),
        }
    }

    #[test]
    fn a_short_selection_is_one_query() {
        let plan = plan(20, 2);
        let split = plan.split();
        assert_eq!(
            split.head[..4],
            [
                "Id",
                "SystemModstamp",
                "Owner.Long_Field_0000__c",
                "Owner.Long_Field_0001__c"
            ]
        );
        assert_eq!(split.head.len(), 24);
        assert!(split.own.is_empty() && split.paths.is_empty());
    }

    #[test]
    fn a_long_selection_is_split_and_complete() {
        for (own, paths) in [(800, 0), (800, 50), (10, 900), (0, 900)] {
            let plan = plan(own, paths);
            let split = plan.split();
            let query = soql::query("Account", &split.head, None, &soql::Filter::All, None);
            assert!(percent_len(&query) <= soql::MAX_QUERY);
            assert_eq!(
                split.head.len() + split.own.len() + split.paths.len(),
                own + paths + 2
            );
            assert!(!split.own.is_empty() || !split.paths.is_empty());
        }
    }
}

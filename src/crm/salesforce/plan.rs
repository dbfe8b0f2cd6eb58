//! How a selection is read: which fields a query bears, which follow by id, and what kind each is.

use std::sync::Arc;

use crate::crm::port::Selection;
use crate::fault::{Fault, FaultKind};
use crate::http::encode::percent_len;
use crate::model::name::{FieldName, ObjectName};
use crate::model::schema::FieldKind;

use super::describe::{Describer, Description};
use super::row::Columns;
use super::soql;

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
}

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
        let description = describer.get(&selection.object).await?;
        let mut columns = Columns::new(description.stamp.clone());
        let (mut own, mut paths) = (Vec::new(), Vec::new());
        for field in &selection.fields {
            soql::identifier(field.as_str())?;
            if field.as_str().contains('.') {
                let kind = match led(describer, &description, field.as_str()).await? {
                    Led::To(kind) => kind,
                    // The query says best what is not there.
                    Led::Nowhere { .. } => FieldKind::Text,
                };
                columns.nested(field.clone(), kind);
                paths.push(field.clone());
                continue;
            }
            let kind = description
                .schema
                .fields
                .get(field)
                .map_or(FieldKind::Text, |schema| schema.kind);
            if !kind.is_selectable() {
                continue;
            }
            columns.own(field.clone(), kind);
            if field.as_str() != "Id" && Some(field) != description.stamp.as_ref() {
                own.push(field.clone());
            }
        }
        Ok(Self {
            description,
            columns,
            own,
            paths,
        })
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

/// Where a path of relationships leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Led {
    /// To a field of this kind.
    To(FieldKind),
    /// Nowhere: no object on the way has this part; what it has instead.
    Nowhere {
        /// The part.
        part: String,
        /// Names of what there is in its place.
        known: Vec<String>,
    },
}

/// Where a parent's field is found: from relationship to relationship, the first parent that has it decides.
///
/// # Errors
/// The fault of a describe.
pub async fn led(
    describer: &Describer,
    child: &Arc<Description>,
    path: &str,
) -> Result<Led, Fault> {
    let mut here = vec![Arc::clone(child)];
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let fields = here.iter().flat_map(|of| &of.schema.fields);
        if parts.peek().is_none() {
            let found = fields
                .clone()
                .find(|(name, _)| name.as_str().eq_ignore_ascii_case(part));
            return Ok(match found {
                Some((_, field)) => Led::To(field.kind),
                None => nowhere(part, fields.map(|(name, _)| name.as_str())),
            });
        }
        let relationships = fields.filter_map(|(_, field)| {
            let name = field.relationship.as_deref()?;
            Some((name, &field.references))
        });
        let parents: Vec<ObjectName> = relationships
            .clone()
            .filter(|(name, _)| name.eq_ignore_ascii_case(part))
            .flat_map(|(_, parents)| parents.iter().cloned())
            .collect();
        if parents.is_empty() {
            return Ok(nowhere(part, relationships.map(|(name, _)| name)));
        }
        here.clear();
        for parent in parents {
            match describer.get(&parent).await {
                Ok(description) => here.push(description),
                // One of several parents may be hidden; if it is the one that counts, the query says so.
                Err(fault) if fault.kind() == FaultKind::Missing => {}
                Err(fault) => return Err(fault),
            }
        }
    }
    Ok(nowhere("", []))
}

fn nowhere<'a>(part: &str, known: impl IntoIterator<Item = &'a str>) -> Led {
    Led::Nowhere {
        part: part.to_owned(),
        known: known.into_iter().map(str::to_owned).collect(),
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

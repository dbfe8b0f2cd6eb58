//! Where a path of relationships leads: to a field that a query reads, or to a parent that is read by its id.
//!
//! A query follows `Owner.Email`, and of a reference to several objects has the fields that these share (SOQL and SOSL
//! Reference, "Understanding Polymorphic Keys and Relationships"). What `OwnerId:User.Department` asks of one of them, a
//! query has only by TYPEOF, which the Bulk API refuses: that parent is read by its id.

use std::sync::Arc;

use crate::fault::{Fault, FaultKind};
use crate::model::name::{FieldName, ObjectName};
use crate::model::schema::FieldKind;

use super::describe::{Describer, Description};
use super::take::{self, Take, split};

/// Where a path leads.
#[derive(Debug)]
pub enum Led {
    /// To a field that a query reads.
    To {
        /// What the query calls it.
        query: FieldName,
        /// The kind of its value.
        kind: FieldKind,
        /// What is taken of the value.
        take: Take,
    },
    /// To a parent that is read by its id.
    ById {
        /// The beginning of the path, which is the id.
        reference: FieldName,
        /// Whose record the parent is.
        object: ObjectName,
        /// The rest of the path, from the parent on.
        rest: FieldName,
    },
    /// Nowhere: no object on the way has this part.
    Nowhere {
        /// The part.
        part: String,
        /// Names of what there is in its place.
        known: Vec<String>,
        /// What is wrong with a part whose field is there, and what to write.
        misfit: Option<(String, String)>,
    },
}

/// A reference to be followed to one object.
enum Step {
    /// By the relationship of this name.
    Named(String),
    /// By the id: it may be another object's, or has no relationship.
    ById,
}

/// Follows a path from relationship to relationship; the first parent that has a part decides.
///
/// # Errors
/// The fault of a describe.
pub async fn led(
    describer: &Describer,
    child: &Arc<Description>,
    path: &str,
) -> Result<Led, Fault> {
    let is_young = path.ends_with("@label");
    let parts: Vec<&str> = path.split('.').collect();
    let mut here = vec![Arc::clone(child)];
    let mut query: Vec<String> = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        if number + 1 == parts.len() {
            return last(describer, &here, query, part).await;
        }
        let parents = if part.contains(':') {
            let Some((step, object)) = step(&here, part) else {
                let known = here.iter().flat_map(|of| by_table(of));
                return Ok(nowhere(&here, part, known));
            };
            match step {
                Step::Named(name) => query.push(name),
                Step::ById => {
                    return Ok(Led::ById {
                        reference: FieldName::new(parts[..=number].join(".")),
                        object,
                        rest: FieldName::new(parts[number + 1..].join(".")),
                    });
                }
            }
            vec![object]
        } else {
            let parents = named(&here, part);
            if parents.is_empty() {
                let fields = here.iter().flat_map(|of| of.schema.fields.values());
                let known = fields.filter_map(|field| field.relationship.as_deref());
                return Ok(nowhere(&here, part, known));
            }
            query.push((*part).to_owned());
            parents
        };
        here = described(describer, parents, is_young).await?;
    }
    Ok(nowhere(&here, "", []))
}

/// The end of a path.
async fn last(
    describer: &Describer,
    here: &[Arc<Description>],
    mut query: Vec<String>,
    part: &str,
) -> Result<Led, Fault> {
    for description in here {
        if let Some(found) = take::find(describer, description, part).await? {
            // The part is as it was written: answers are read in any spelling.
            let base = if split(part).1.is_empty() {
                part
            } else {
                found.base.as_str()
            };
            query.push(base.to_owned());
            return Ok(Led::To {
                query: FieldName::new(query.join(".")),
                kind: found.kind,
                take: found.take,
            });
        }
    }
    let fields = here.iter().flat_map(|of| of.schema.fields.keys());
    Ok(nowhere(here, part, fields.map(FieldName::as_str)))
}

/// The parents that a relationship leads to.
fn named(here: &[Arc<Description>], part: &str) -> Vec<ObjectName> {
    let fields = here.iter().flat_map(|of| of.schema.fields.values());
    let of = fields.filter(|field| {
        let name = field.relationship.as_deref();
        name.is_some_and(|name| name.eq_ignore_ascii_case(part))
    });
    of.flat_map(|field| field.references.iter().cloned())
        .collect()
}

/// How `lookup:Object` is followed.
fn step(here: &[Arc<Description>], part: &str) -> Option<(Step, ObjectName)> {
    here.iter().find_map(|description| {
        let mut fields = description.schema.fields.iter();
        let (name, field) = fields.find(|(name, _)| name.as_str().eq_ignore_ascii_case(part))?;
        let object = field.references.first()?.clone();
        let own = description.schema.fields.get(split(name.as_str()).0)?;
        let step = match (own.references.as_slice(), &own.relationship) {
            ([_], Some(name)) => Step::Named(name.clone()),
            _ => Step::ById,
        };
        Some((step, object))
    })
}

fn by_table(description: &Description) -> impl Iterator<Item = &str> {
    let names = description.schema.fields.keys().map(FieldName::as_str);
    names.filter(|name| name.contains(':'))
}

async fn described(
    describer: &Describer,
    parents: Vec<ObjectName>,
    is_young: bool,
) -> Result<Vec<Arc<Description>>, Fault> {
    let mut found = Vec::with_capacity(parents.len());
    for parent in parents {
        let described = if is_young {
            describer.young(&parent).await
        } else {
            describer.get(&parent).await
        };
        match described {
            Ok(description) => found.push(description),
            // One of several parents may be hidden; if it is the one that counts, the query says so.
            Err(fault) if fault.kind() == FaultKind::Missing => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(found)
}

fn nowhere<'a>(
    here: &[Arc<Description>],
    part: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Led {
    Led::Nowhere {
        part: part.to_owned(),
        known: known.into_iter().map(str::to_owned).collect(),
        misfit: here.iter().find_map(|of| take::misfit(of, part)),
    }
}

//! Parents' fields among what is selected: by which reference they are reached, whose image has them, and which
//! children follow a parent.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::image::merge::{Image, Life};
use crate::model::name::{FieldName, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::schema::{FieldKind, ObjectSchema};
use crate::model::value::Value;

use super::connection::Selected;
use super::road::{ObjectRoad, Objects};

/// Schemas by object.
pub type Schemas = BTreeMap<ObjectName, ObjectSchema>;

/// A selected field of a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The whole path, as a job writes it: `Account.Name`, `parentcustomerid:account.name`.
    pub field: FieldName,
    /// The child's own field that has the parent's id: `AccountId`, `parentcustomerid:account`.
    pub reference: FieldName,
    /// What is left of the path: the parent's own field.
    pub of: FieldName,
    /// The objects of this connection that the reference may point to and whose images have the field.
    pub parents: Vec<ObjectName>,
}

/// Children of an object that have fields of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    /// The children's object.
    pub child: ObjectName,
    /// The child's field that has the parent's id.
    pub reference: FieldName,
    /// The child's fields, each with the parent's own.
    pub fields: Vec<(FieldName, FieldName)>,
}

/// A path's first step, looked up.
struct Resolved<'a> {
    reference: &'a FieldName,
    candidates: &'a [ObjectName],
    of: &'a str,
}

/// The reference that a path begins with; `None` for an own field, and for a path that begins with none.
fn resolve<'a>(path: &'a str, schema: &'a ObjectSchema) -> Option<Resolved<'a>> {
    let (step, of) = path.split_once('.')?;
    let named = |name: &Option<String>| {
        let name = name.as_deref();
        name.is_some_and(|name| name.eq_ignore_ascii_case(step))
    };
    let by_relationship = || {
        let mut fields = schema.fields.iter();
        fields.find(|(_, field)| named(&field.relationship))
    };
    // A CRM that does not name its relationships reaches parents by the reference itself.
    let by_name = || {
        let found = schema.fields.get_key_value(step);
        found
            .filter(|(_, field)| field.kind == FieldKind::Reference && field.relationship.is_none())
    };
    let (reference, field) = by_relationship().or_else(by_name)?;
    Some(Resolved {
        reference,
        candidates: &field.references,
        of,
    })
}

/// The parent's own field that events tell, or a path from there on; in the schema's spelling.
fn own_field(of: &str, schema: &ObjectSchema) -> Option<FieldName> {
    if of.contains('.') {
        return resolve(of, schema).map(|_| FieldName::new(of));
    }
    let mut fields = schema.fields.iter();
    let (name, field) = fields.find(|(name, _)| name.as_str().eq_ignore_ascii_case(of))?;
    ObjectRoad::is_carried(name, field).then(|| name.clone())
}

/// The field as it is selected: a CRM may take two spellings of a path for one field selected twice.
fn spelled<'a>(
    mut fields: impl Iterator<Item = &'a FieldName>,
    field: &FieldName,
) -> Option<&'a FieldName> {
    fields.find(|known| known.as_str().eq_ignore_ascii_case(field.as_str()))
}

/// Adds what joining takes: the references that children reach their parents by, and the parents' fields where another
/// job reads the parent's object. What events of the parent do not tell is left to the reads of the child.
#[must_use]
pub fn widen(selected: &Selected, schemas: &Schemas) -> Selected {
    let mut wanted = selected.clone();
    loop {
        let mut more: Vec<(ObjectName, FieldName)> = Vec::new();
        for (object, fields) in &wanted {
            let Some(schema) = schemas.get(object) else {
                continue;
            };
            for found in fields
                .iter()
                .filter_map(|field| resolve(field.as_str(), schema))
            {
                more.push((object.clone(), found.reference.clone()));
                for parent in found.candidates {
                    let schema = schemas.get(parent);
                    let of = schema.and_then(|schema| own_field(found.of, schema));
                    more.extend(of.map(|of| (parent.clone(), of)));
                }
            }
        }
        let mut grew = false;
        for (object, field) in more {
            if let Some(fields) = wanted.get_mut(&object)
                && spelled(fields.iter(), &field).is_none()
            {
                grew |= fields.insert(field);
            }
        }
        if !grew {
            return wanted;
        }
    }
}

/// Ties children to parents: every road gets its joins and its followers.
pub fn tie(objects: &mut Objects, schemas: &Schemas) {
    let mut joins: BTreeMap<ObjectName, Vec<Join>> = BTreeMap::new();
    for (name, road) in objects.iter() {
        let Some(schema) = schemas.get(name) else {
            continue;
        };
        let found = road.selection.fields.iter().filter_map(|field| {
            let found = resolve(field.as_str(), schema)?;
            let mut of = FieldName::new(found.of);
            let mut parents = Vec::new();
            for parent in found.candidates {
                let Some((road, schema)) = objects.get(parent).zip(schemas.get(parent)) else {
                    continue;
                };
                let own = own_field(found.of, schema);
                let own = own.and_then(|own| spelled(road.selection.fields.iter(), &own));
                if let Some(own) = own {
                    of = own.clone();
                    parents.push(parent.clone());
                }
            }
            Some(Join {
                field: field.clone(),
                reference: found.reference.clone(),
                of,
                parents,
            })
        });
        joins.insert(name.clone(), found.collect());
    }
    for (child, joins) in joins {
        for join in &joins {
            for parent in &join.parents {
                if let Some(road) = objects.get_mut(parent) {
                    follow(&mut road.followers, &child, join);
                }
            }
        }
        if let Some(road) = objects.get_mut(&child) {
            road.joins = joins;
        }
    }
}

fn follow(followers: &mut Vec<Follower>, child: &ObjectName, join: &Join) {
    let pair = (join.field.clone(), join.of.clone());
    let same =
        |follower: &&mut Follower| follower.child == *child && follower.reference == join.reference;
    match followers.iter_mut().find(same) {
        Some(follower) => follower.fields.push(pair),
        None => followers.push(Follower {
            child: child.clone(),
            reference: join.reference.clone(),
            fields: vec![pair],
        }),
    }
}

/// The objects, parents before their children where they do not refer to each other: whose parent is there is joined
/// without a read.
#[must_use]
pub fn parents_first(objects: &Objects) -> Vec<&ObjectRoad> {
    fn visit<'a>(
        name: &ObjectName,
        objects: &'a Objects,
        seen: &mut BTreeSet<ObjectName>,
        order: &mut Vec<&'a ObjectRoad>,
    ) {
        let Some(road) = objects.get(name).filter(|_| seen.insert(name.clone())) else {
            return;
        };
        for parent in road.joins.iter().flat_map(|join| &join.parents) {
            visit(parent, objects, seen, order);
        }
        order.push(road);
    }
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for name in objects.keys() {
        visit(name, objects, &mut seen, &mut order);
    }
    order
}

impl Join {
    /// The field as the parent's image has it.
    #[must_use]
    pub fn of_parent(
        &self,
        id: &Value,
        images: &BTreeMap<ObjectName, HashMap<RecordId, Image>>,
    ) -> Option<Value> {
        let id = RecordId::stored(id.as_text()?);
        self.parents.iter().find_map(|parent| {
            let image = images.get(parent)?.get(&id)?;
            let is_live = image.life == Life::Live;
            is_live.then(|| image.fields.get(&self.of).cloned())?
        })
    }
}

impl Follower {
    /// Whether one of these fields of the parent is followed.
    #[must_use]
    pub fn follows(&self, changed: &[FieldName]) -> bool {
        self.fields.iter().any(|(_, of)| changed.contains(of))
    }

    /// Whether children have to look at their parent again.
    #[must_use]
    pub fn moves(&self, before: Option<&Image>, after: &Image) -> bool {
        let was_live = before.filter(|image| image.life == Life::Live);
        match after.life {
            Life::Live => self.fields.iter().any(|(_, of)| {
                let now = after.fields.get(of);
                now.is_some() && was_live.and_then(|before| before.fields.get(of)) != now
            }),
            Life::Dead => was_live.is_some(),
            Life::Partial => false,
        }
    }
}

#[cfg(test)]
mod tests;

//! Parents' fields: joined into a child's image from the parent's, and told to the children when the parent changes.
//!
//! Events never carry them. Where the parent's image has the field, that is its value, whatever a read says: the
//! parent's own change corrects both. Else what a read told stays as long as the reference does. A reference that an
//! event changed to a parent whose image does not help leaves the field unknown, and owes a read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::fault::Fault;
use crate::flow::joins::{Follower, Join};
use crate::flow::road::{ObjectRoad, Objects};
use crate::image::merge::{Image, Life, Step, Verdict};
use crate::model::change::{Op, Origin};
use crate::model::event::Row;
use crate::model::name::{FieldName, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::value::Value;
use crate::state::port::{HoleCause, HoleScope, NewHole, Owed, Progress};

use super::gathered::Gathered;
use super::step::Told;
use super::{Ingest, Input};

/// Children that are looked at at once.
const PAGE: usize = 1000;

type Images = BTreeMap<ObjectName, HashMap<RecordId, Image>>;

/// The parents that the inputs' records may be joined from and that are not in `images` yet.
pub(super) fn parents_of(
    objects: &Objects,
    inputs: &[Input],
    images: &Images,
) -> BTreeMap<ObjectName, HashSet<RecordId>> {
    let mut wanted: BTreeMap<ObjectName, HashSet<RecordId>> = BTreeMap::new();
    if objects.values().all(|road| road.joins.is_empty()) {
        return wanted;
    }
    let mut want = |join: &Join, id: Option<&Value>| {
        let Some(id) = id.and_then(Value::as_text).map(RecordId::stored) else {
            return;
        };
        for parent in &join.parents {
            if !images
                .get(parent)
                .is_some_and(|held| held.contains_key(&id))
            {
                wanted.entry(parent.clone()).or_default().insert(id.clone());
            }
        }
    };
    for (object, held) in images {
        for join in joins_of(objects, object) {
            for image in held.values() {
                want(join, image.fields.get(&join.reference));
            }
        }
    }
    for input in inputs {
        match input {
            Input::Heard(heard) => {
                for event in &heard.events {
                    for join in joins_of(objects, &event.object) {
                        want(join, event.fields.get(&join.reference));
                    }
                }
            }
            Input::Read(read) => {
                for join in joins_of(objects, &read.object) {
                    for row in &read.rows {
                        want(join, row.fields.get(&join.reference));
                    }
                }
            }
            Input::Republish { .. } | Input::Moved(_) => {}
        }
    }
    wanted
}

fn joins_of<'a>(objects: &'a Objects, object: &ObjectName) -> &'a [Join] {
    objects.get(object).map_or(&[], |road| &road.joins)
}

/// Joins what a step leaves of a record; whether a parent's field is not known after it.
pub(super) fn join(
    road: &ObjectRoad,
    before: Option<&Image>,
    step: &mut Step,
    row: Option<(&Row, DateTime<Utc>)>,
    images: &Images,
) -> bool {
    let before = before.filter(|image| image.life == Life::Live);
    if step.image.is_none() && step.verdict == Verdict::Drop && row.is_some() {
        // A row that tells nothing new may still meet a parent that changed.
        step.image = before.cloned();
        let unknown = join_image(road, before, step, row, images);
        if step.changed.is_empty() {
            step.image = None;
        } else {
            step.verdict = Verdict::Publish(Op::Snapshot);
        }
        return unknown;
    }
    let unknown = join_image(road, before, step, row, images);
    let nothing = before.is_some() && step.changed.is_empty();
    match step.verdict {
        // The row differed in a parent's field alone, which is known better.
        Verdict::Publish(Op::Snapshot) if nothing && row.is_some() => {
            step.verdict = Verdict::Keep;
        }
        Verdict::Keep if before.is_some() && !step.changed.is_empty() => {
            step.verdict = Verdict::Publish(Op::Snapshot);
        }
        _ => {}
    }
    unknown
}

fn join_image(
    road: &ObjectRoad,
    before: Option<&Image>,
    step: &mut Step,
    row: Option<(&Row, DateTime<Utc>)>,
    images: &Images,
) -> bool {
    let Some(image) = &mut step.image else {
        return false;
    };
    if image.life != Life::Live {
        return false;
    }
    let mut unknown = false;
    for join in &road.joins {
        match value_of(join, before, image, row, images) {
            Some(value) => {
                image.set(&join.field, &value);
            }
            None => {
                image.fields.remove(&join.field);
                unknown = true;
            }
        }
        let old = before.and_then(|before| before.fields.get(&join.field));
        step.changed.retain(|field| *field != join.field);
        if image.fields.get(&join.field) != old {
            step.changed.push(join.field.clone());
        }
    }
    unknown
}

/// A parent's field after a merge.
fn value_of(
    join: &Join,
    before: Option<&Image>,
    image: &Image,
    row: Option<(&Row, DateTime<Utc>)>,
    images: &Images,
) -> Option<Value> {
    let reference = image.fields.get(&join.reference);
    if reference.is_some_and(Value::is_null) {
        return Some(Value::Null);
    }
    let of_parent = reference.and_then(|id| join.of_parent(id, images));
    if of_parent.is_some() {
        return of_parent;
    }
    // What was known of the same parent.
    let kept = before
        .filter(|before| before.fields.get(&join.reference) == reference)
        .and_then(|before| before.fields.get(&join.field));
    // What the row tells of it; an answer that is older than the newest one only fills.
    let told = row.and_then(|(row, as_of)| {
        let same = row.fields.get(&join.reference) == reference;
        let is_newer = before
            .and_then(|before| before.base)
            .is_none_or(|base| as_of >= base);
        let told = row.fields.get(&join.field).filter(|_| same)?;
        (is_newer || kept.is_none()).then_some(told)
    });
    told.or(kept).cloned()
}

impl Ingest {
    /// Tells the children of every parent that moved in this step, and their children in turn: a path ends, so this
    /// does.
    pub(super) async fn tell_children(&mut self, gathered: &mut Gathered) -> Result<(), Fault> {
        if gathered.moved.is_empty() {
            return Ok(());
        }
        let objects = Arc::clone(&self.objects);
        let near = near_children(&objects, &gathered.images);
        let mut telling = Telling::default();
        while let Some((object, id)) = gathered.moved.pop_first() {
            let (Some(road), Some(image)) = (objects.get(&object), gathered.image(&object, &id))
            else {
                continue;
            };
            let parent = Parent { id, image };
            for follower in &road.followers {
                if let Some(child) = objects.get(&follower.child) {
                    let near = near.get(&(&follower.child, &follower.reference, parent.id.clone()));
                    let of = (child, follower, &parent);
                    self.tell_near(of, near, gathered, &mut telling);
                    self.tell_stored(of, gathered, &mut telling).await?;
                }
            }
        }
        self.write_down(telling).await
    }

    /// The children among this step's records.
    fn tell_near(
        &mut self,
        of: Of<'_>,
        near: Option<&BTreeSet<RecordId>>,
        gathered: &mut Gathered,
        telling: &mut Telling,
    ) {
        for record in near.into_iter().flatten() {
            if let Some(image) = gathered.image(&of.0.key.object, record) {
                self.tell_child(of, record, image, gathered, telling);
            }
        }
    }

    /// The children that the store knows.
    async fn tell_stored(
        &mut self,
        of: Of<'_>,
        gathered: &mut Gathered,
        telling: &mut Telling,
    ) -> Result<(), Fault> {
        let (child, follower, parent) = of;
        let name = &child.key.object;
        let mut after = None;
        while !telling.full.contains(name) {
            let (images, reference) = (&self.road.images, &follower.reference);
            let page = images.children(&child.key, reference, &parent.id, after.take(), PAGE);
            let page = page.await?;
            let Some((last, _)) = page.last() else {
                break;
            };
            after = Some(last.clone());
            for (record, stored) in page {
                let image = gathered.image(name, &record).unwrap_or(stored);
                self.tell_child(of, &record, image, gathered, telling);
            }
        }
        Ok(())
    }

    fn tell_child(
        &mut self,
        (child, follower, parent): Of<'_>,
        record: &RecordId,
        mut image: Image,
        gathered: &mut Gathered,
        telling: &mut Telling,
    ) {
        let id = image.fields.get(&follower.reference);
        if image.life != Life::Live || id.and_then(Value::as_text) != Some(parent.id.as_str()) {
            return;
        }
        let (of, room) = (&parent.image, self.road.settings.children_a_step);
        if of.life == Life::Dead {
            // What is left of the reference, or of the child, a read tells.
            if telling.takes(room, &follower.child, of.dead) {
                telling.owe.push(Owed {
                    object: follower.child.clone(),
                    record: record.clone(),
                    stamp: of.dead.unwrap_or(self.confirmed_at),
                });
            }
            return;
        }
        let mut changed = Vec::new();
        for (field, own) in &follower.fields {
            if let Some(value) = of.fields.get(own)
                && image.set(field, value)
            {
                changed.push(field.clone());
            }
        }
        if changed.is_empty() || !telling.takes(room, &follower.child, of.base) {
            return;
        }
        if child.followers.iter().any(|next| next.follows(&changed)) {
            let name = child.key.object.clone();
            gathered.moved.insert((name, record.clone()));
        }
        let told = Told {
            origin: Origin::Reconcile,
            committed_at: image.base,
            event: None,
            row: None,
        };
        let step = Step {
            image: Some(image),
            verdict: Verdict::Publish(Op::Snapshot),
            owe: None,
            changed,
        };
        self.put_step(child, record, step, &told, gathered);
    }

    /// Reads and holes that are owed to children are durable before the parent's change is: a crash between the two
    /// would forget them, and the parent would not move again.
    async fn write_down(&mut self, telling: Telling) -> Result<(), Fault> {
        if telling.owe.is_empty() && telling.full.is_empty() {
            return Ok(());
        }
        let to = telling.to.max(Some(self.confirmed_at));
        let open = telling.full.into_iter().map(|object| NewHole {
            object,
            cause: HoleCause::ParentChanged,
            scope: HoleScope::Object {
                to: to.unwrap_or(self.confirmed_at),
            },
            opened_at: self.road.clock.now(),
        });
        let progress = Progress {
            owe: telling.owe,
            open: open.collect(),
            ..Progress::default()
        };
        let state = &self.road.state;
        state
            .commit(&self.road.connection, self.term, progress)
            .await?;
        self.owed.notify_one();
        Ok(())
    }
}

/// A parent that moved.
struct Parent {
    id: RecordId,
    image: Image,
}

/// Whose children, by which field, and of whom.
type Of<'a> = (&'a ObjectRoad, &'a Follower, &'a Parent);

/// What a step tells children, up to a limit; beyond it, a child's object is read instead.
#[derive(Default)]
struct Telling {
    count: usize,
    owe: Vec<Owed>,
    full: BTreeSet<ObjectName>,
    /// As of later than which the reads must be.
    to: Option<DateTime<Utc>>,
}

impl Telling {
    fn takes(&mut self, room: usize, child: &ObjectName, at: Option<DateTime<Utc>>) -> bool {
        self.count += 1;
        if self.count <= room {
            return true;
        }
        self.full.insert(child.clone());
        self.to = self.to.max(at);
        false
    }
}

/// A step's records by object, reference and the parent that they refer to now: the store knows the one before.
type Near<'a> = HashMap<(&'a ObjectName, &'a FieldName, RecordId), BTreeSet<RecordId>>;

fn near_children<'a>(objects: &'a Objects, images: &Images) -> Near<'a> {
    let mut near = Near::new();
    for (object, road) in objects {
        let references: BTreeSet<&FieldName> =
            road.joins.iter().map(|join| &join.reference).collect();
        for (record, image) in images.get(object).into_iter().flatten() {
            for reference in &references {
                if let Some(id) = image.fields.get(*reference).and_then(Value::as_text) {
                    let of = (object, *reference, RecordId::stored(id));
                    near.entry(of).or_default().insert(record.clone());
                }
            }
        }
    }
    near
}

#[cfg(test)]
mod tests;

//! How a life begins, in the order that loses nothing: what was missed is written down before anything is
//! forgotten that tells of it, and before the stream goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::crm::port::{Listener, Selection, Start};
use crate::fault::{Fault, FaultKind};
use crate::flow::board::Life;
use crate::flow::catch_up::{Owner, catch_up, inspect};
use crate::flow::ingest::{Beginning, Ends, Lease, Redelivery};
use crate::flow::joins::{Schemas, tie, widen};
use crate::flow::road::{ObjectRoad, Objects, Road, lacking};
use crate::model::name::{FieldName, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::state::port::{
    Fence, HoleCause, HoleScope, NewHole, ObjectState, Progress, StoredPosition,
};

use super::{Selected, lost, spent};

/// All that a life needs.
pub(super) struct Begun {
    pub org: String,
    pub objects: Arc<Objects>,
    pub listener: Box<dyn Listener>,
    pub beginning: Beginning,
}

/// Objects with what is stored of them.
type States = BTreeMap<ObjectName, ObjectState>;

/// How a stream begins.
#[derive(Clone, Copy)]
struct Opened {
    /// CRM time since which this stream tells everything.
    since: DateTime<Utc>,
    /// It goes on where the stored one ended.
    goes_on: bool,
    /// Set when something may be missing between the stored one and this.
    broken: Option<HoleCause>,
}

/// Reads everything back, opens the stream, and writes down what was missed.
pub(super) async fn begin(
    road: &Road,
    selected: &Selected,
    term: u64,
    lease: Arc<Lease>,
) -> Result<Begun, Fault> {
    let identity = road.crm.identify().await?;
    let org = identity.org_id;
    road.board.connection(&road.connection, |entry| {
        entry.org = Some(org.clone());
    });
    let (objects, lost) = describe(road, selected).await?;
    let objects = Arc::new(objects);
    let mut states = prepare(road, &objects, lost, term).await?;
    let stored = road.state.position(&road.connection).await?;
    let ReadBack {
        mut redelivery,
        ends,
        anew,
        moved,
    } = read_back(road, &objects, &mut states, term, stored.as_ref()).await?;

    let (listener, opened) = open_stream(road, &objects, stored.as_ref()).await?;
    if !opened.goes_on {
        redelivery = Redelivery::none();
    }
    let stored = write_down(road, &objects, term, opened, stored, &states).await?;
    let covered = cover(road, term, opened, &mut states).await?;
    let deaths_known = anew.into_iter().map(|name| (name, opened.since)).collect();
    Ok(Begun {
        org,
        objects,
        listener,
        beginning: Beginning {
            term,
            lease,
            stored,
            covered,
            deaths_known,
            redelivery,
            moved,
            ends,
            owed: Arc::new(Notify::new()),
        },
    })
}

/// Fields that are gone, by object.
type Lost = BTreeMap<ObjectName, Vec<FieldName>>;

/// The objects with the fields that there are, and the fields that are no longer.
async fn describe(road: &Road, selected: &Selected) -> Result<(Objects, Lost), Fault> {
    let known: States = road
        .state
        .objects(&road.connection)
        .await?
        .into_iter()
        .collect();
    let (mut schemas, mut there, mut lost) = (Schemas::new(), Selected::new(), Lost::new());
    for (name, fields) in selected {
        let mut schema = road.crm.describe(name).await?;
        if !lacking(fields, &schema).is_empty() {
            // What is known may be older than the field.
            schema = road.crm.describe_anew(name).await?;
        }
        let gone = lost::known_once(lacking(fields, &schema), known.get(name));
        there.insert(name.clone(), fields.difference(&gone).cloned().collect());
        schemas.insert(name.clone(), schema);
        lost.insert(name.clone(), gone.into_iter().collect());
    }
    let (connection, prefix) = (&road.connection, &road.settings.prefix);
    let mut objects = Objects::new();
    let wanted = widen(&there, &schemas);
    for (name, schema) in &schemas {
        if let Some(fields) = wanted.get(name) {
            let readings = road.settings.readings_of(name);
            let object = ObjectRoad::new(connection, prefix, fields, schema, readings)?;
            objects.insert(name.clone(), object);
        }
    }
    tie(&mut objects, &schemas);
    for object in objects.values() {
        let joins = object.joins.iter().filter(|join| !join.parents.is_empty());
        let references: BTreeSet<FieldName> = joins.map(|join| join.reference.clone()).collect();
        let references: Vec<FieldName> = references.into_iter().collect();
        road.images.refer(&object.key, &references).await?;
    }
    Ok((objects, lost))
}

/// Brings the stored state of objects in line with what is selected now.
///
/// An object that no job selects is not listened to: its stream is broken from here on. A field that no job
/// selects grows old in the images: added again, it is a new one. Both are stored before the position moves.
async fn prepare(
    road: &Road,
    objects: &Objects,
    mut lost: Lost,
    term: u64,
) -> Result<States, Fault> {
    let mut states = States::new();
    for (name, mut state) in road.state.objects(&road.connection).await? {
        let before = state.clone();
        match objects.get(&name) {
            None => state.covered = None,
            Some(object) => {
                state.fields.retain(|field| object.selects(field));
                state.lost = lost.remove(&name).unwrap_or_default();
                lost::tell(road, &name, &state.lost, &before.lost).await?;
            }
        }
        if state != before {
            put(road, term, &name, &state).await?;
        }
        states.insert(name, state);
    }
    states.retain(|name, _| objects.contains_key(name));
    for name in objects.keys() {
        let state = states.entry(name.clone()).or_default();
        let synced = state.synced_at;
        road.board.object(&road.connection, name, |entry| {
            entry.synced_at = synced;
            entry.state = if synced.is_some() {
                Life::Streaming
            } else {
                Life::Starting
            };
        });
        let grown = objects.get(name).is_some_and(|object| {
            let mut fields = object.selection.fields.iter();
            synced.is_some() && fields.any(|field| !state.fields.contains(field))
        });
        if grown {
            // One more of an object costs nothing: all its holes are mended by one read.
            let to = road.end_of_now().await?;
            let hole = object_hole(road, name, HoleCause::NewField, to);
            open_holes(road, term, vec![hole]).await?;
        }
    }
    for (name, object) in objects {
        if let Some(state) = states.get_mut(name) {
            relabel(road, term, object, state).await?;
        }
    }
    Ok(states)
}

/// Has the records of an object read whose labels may have been taken by others than there are now.
async fn relabel(
    road: &Road,
    term: u64,
    object: &ObjectRoad,
    state: &mut ObjectState,
) -> Result<(), Fault> {
    if state.editions == object.editions {
        return Ok(());
    }
    let name = &object.key.object;
    let is_known = state.synced_at.is_some() || state.snapshot.is_some();
    let has_moved = |(field, edition): (&FieldName, &String)| {
        let known = state.editions.get(field);
        known.is_some_and(|known| known != edition)
    };
    if is_known && object.editions.iter().any(has_moved) {
        // Durable before the new labels count as those of the records.
        let to = road.end_of_now().await?;
        let hole = object_hole(road, name, HoleCause::Relabelled, to);
        open_holes(road, term, vec![hole]).await?;
        tracing::info!(
            connection = %road.connection, object = %name, "picklists were relabelled: records are read again"
        );
    }
    state.editions.clone_from(&object.editions);
    put(road, term, name, state).await
}

fn object_hole(road: &Road, object: &ObjectName, cause: HoleCause, to: DateTime<Utc>) -> NewHole {
    NewHole {
        object: object.clone(),
        cause,
        scope: HoleScope::Object { to },
        opened_at: road.clock.now(),
    }
}

async fn open_holes(road: &Road, term: u64, open: Vec<NewHole>) -> Result<(), Fault> {
    let progress = Progress {
        open,
        ..Progress::default()
    };
    road.state.commit(&road.connection, term, progress).await
}

async fn put(
    road: &Road,
    term: u64,
    object: &ObjectName,
    state: &ObjectState,
) -> Result<(), Fault> {
    road.state
        .put_object(&road.connection, term, object, state.clone())
        .await
}

/// What reading the topics back found.
struct ReadBack {
    redelivery: Redelivery,
    ends: Ends,
    /// Objects of whose topics something was read.
    anew: BTreeSet<ObjectName>,
    /// Parents among what was read.
    moved: Vec<(ObjectName, RecordId)>,
}

/// Brings images up to the ends of the topics, and notes what the stream may repeat.
async fn read_back(
    road: &Road,
    objects: &Objects,
    states: &mut States,
    term: u64,
    stored: Option<&StoredPosition>,
) -> Result<ReadBack, Fault> {
    let position = stored.and_then(|stored| stored.position.as_ref());
    let mut redelivery = match (position, stored) {
        (Some(_), Some(stored)) => Redelivery::after(stored.confirmed_at),
        _ => Redelivery::none(),
    };
    let mut ends = Ends::new();
    let (mut anew, mut moved) = (BTreeSet::new(), Vec::new());
    for (name, object) in objects {
        let inspected = inspect(road, object).await?;
        let state = states.entry(name.clone()).or_default();
        let has_lost = inspected.has_lost(state);
        if has_lost {
            // Durable before the images are cleared, which would forget that they were of another topic.
            let to = road.end_of_now().await?;
            let hole = object_hole(road, name, HoleCause::TopicRecreated, to);
            open_holes(road, term, vec![hole]).await?;
        }
        if has_lost || state.topic_since.is_none() {
            // What was cut is published again at offsets that jobs may count as done.
            state.topic_since = Some(term);
        }
        state.topic = Some(inspected.generation.clone());
        put(road, term, name, state).await?;
        let owner = Owner {
            term,
            fence: state.fence.as_ref(),
            since: state.topic_since,
        };
        let caught_up = catch_up(road, object, &inspected, owner, &mut redelivery).await?;
        if caught_up.read > 0 {
            tracing::info!(object = %object.key, records = caught_up.read, "topic read back");
            anew.insert(name.clone());
        }
        let of = |record| (name.clone(), record);
        moved.extend(caught_up.moved.into_iter().map(of));
        let found = inspected.bounds.into_iter();
        let found: BTreeMap<u32, u64> =
            found.map(|(number, bounds)| (number, bounds.end)).collect();
        for (partition, end) in &found {
            ends.insert((name.clone(), *partition), *end);
        }
        state.fence = Some(Fence { term, ends: found });
        put(road, term, name, state).await?;
    }
    mark_imaged(road, position, &mut redelivery).await?;
    Ok(ReadBack {
        redelivery,
        ends,
        anew,
        moved,
    })
}

/// Images are stored before the position; after a crash between the two they are ahead.
async fn mark_imaged(
    road: &Road,
    position: Option<&Position>,
    redelivery: &mut Redelivery,
) -> Result<(), Fault> {
    let imaged = road.images.mark(&road.connection).await?;
    if let (Some(mark), Some(position)) = (imaged, position)
        && mark.position != *position
    {
        redelivery.imaged_up_to(mark);
    }
    Ok(())
}

async fn open_stream(
    road: &Road,
    objects: &Objects,
    stored: Option<&StoredPosition>,
) -> Result<(Box<dyn Listener>, Opened), Fault> {
    let selections = objects.values().map(|object| object.selection.clone());
    let selections: Vec<Selection> = selections.collect();
    let (start, mut broken) = match stored {
        None => (Start::Now, None),
        Some(StoredPosition {
            position: Some(position),
            ..
        }) => (Start::After(position.clone()), None),
        // The stream began anew and ended before it told a position: whatever the CRM still holds comes
        // again, older events are dropped by the tables, and the window is read besides.
        Some(StoredPosition { position: None, .. }) => {
            (Start::Earliest, Some(HoleCause::NoPosition))
        }
    };
    let listener = match road.crm.listen(&selections, start.clone()).await {
        Err(fault) if fault.kind() == FaultKind::PositionLost => {
            tracing::warn!(
                connection = %road.connection, error = %fault,
                "stored position is no longer valid: opening a hole and listening from the earliest event"
            );
            broken = Some(HoleCause::ExpiredPosition);
            road.crm.listen(&selections, Start::Earliest).await?
        }
        opened => spent::outlive(road, selections, start, opened)?,
    };
    // What is committed from `since` on is told: the stream was open before the clock was looked at.
    let opened = Opened {
        since: road.end_of_now().await?,
        goes_on: stored.is_some() && broken.is_none(),
        broken,
    };
    Ok((listener, opened))
}

/// Stores the holes that the stream's beginning leaves, with the place it begins at, before its first event.
async fn write_down(
    road: &Road,
    objects: &Objects,
    term: u64,
    opened: Opened,
    stored: Option<StoredPosition>,
    states: &States,
) -> Result<StoredPosition, Fault> {
    let from = stored
        .as_ref()
        .map_or(opened.since, |stored| stored.confirmed_at);
    let mut open = stopped_objects(road, objects, opened, stored.as_ref(), states).await?;
    for (name, state) in states {
        // An object that was never synced is read whole anyway.
        let is_known = state.synced_at.is_some() || state.snapshot.is_some();
        if is_known && state.covered.is_none() {
            let hole = object_hole(road, name, HoleCause::NotCaptured, opened.since);
            open.push(hole);
            // Their children went on by reads alone, which the parents' images may contradict without moving.
            let followers = objects
                .get(name)
                .map_or(&[][..], |object| &object.followers);
            let children = followers.iter().map(|follower| &follower.child);
            let known = children.filter(|child| {
                let state = states.get(*child);
                state.is_some_and(|state| state.synced_at.is_some() && state.covered.is_some())
            });
            open.extend(
                known.map(|child| object_hole(road, child, HoleCause::ParentChanged, opened.since)),
            );
        } else if is_known && let Some(cause) = opened.broken {
            open.push(NewHole {
                object: name.clone(),
                cause,
                scope: HoleScope::Window {
                    from,
                    to: opened.since,
                },
                opened_at: road.clock.now(),
            });
        }
    }
    // A stream that goes on has not told what lies between its stored place and now: only its events and
    // keep-alives confirm that. One that begins anew leaves no place to go back to, and a hole for all before.
    let next = match stored {
        Some(stored) if opened.goes_on => stored,
        stored => StoredPosition {
            position: None,
            confirmed_at: stored
                .map_or(opened.since, |stored| stored.confirmed_at.max(opened.since)),
        },
    };
    let progress = Progress {
        position: (!opened.goes_on).then(|| next.clone()),
        open,
        ..Progress::default()
    };
    if progress != Progress::default() {
        road.state.commit(&road.connection, term, progress).await?;
    }
    Ok(next)
}

/// Holes over objects that were synced and whose own place the stored position does not hold. One that is open
/// already stands for it: whoever mends it begins the object's stream anew.
async fn stopped_objects(
    road: &Road,
    objects: &Objects,
    opened: Opened,
    stored: Option<&StoredPosition>,
    states: &States,
) -> Result<Vec<NewHole>, Fault> {
    let position = stored.and_then(|stored| stored.position.as_ref());
    let (Some(position), true) = (position, opened.goes_on) else {
        return Ok(Vec::new());
    };
    let held = road.state.holes(Some(&road.connection), false).await?;
    let is_held = |name: &ObjectName| {
        held.iter()
            .any(|hole| hole.object == *name && matches!(hole.scope, HoleScope::Object { .. }))
    };
    let mut found = Vec::new();
    for (name, object) in objects {
        let is_synced = states
            .get(name)
            .is_some_and(|state| state.synced_at.is_some() && state.covered.is_some());
        if is_synced && !road.crm.goes_on(position, &object.selection) && !is_held(name) {
            found.push(object_hole(
                road,
                name,
                HoleCause::ExpiredPosition,
                opened.since,
            ));
        }
    }
    Ok(found)
}

/// Since when each object's stream is unbroken; stored, so that a restart need not forget it.
async fn cover(
    road: &Road,
    term: u64,
    opened: Opened,
    states: &mut States,
) -> Result<BTreeMap<ObjectName, DateTime<Utc>>, Fault> {
    let mut covered = BTreeMap::new();
    for (name, state) in states {
        let since = match state.covered {
            Some(since) if opened.goes_on => since,
            _ => opened.since,
        };
        if state.covered != Some(since) {
            state.covered = Some(since);
            put(road, term, name, state).await?;
        }
        covered.insert(name.clone(), since);
    }
    Ok(covered)
}

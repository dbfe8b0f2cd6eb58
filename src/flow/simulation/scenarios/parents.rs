//! A parent's field in its children: joined without a read where the parent is known, read where it is not, and never
//! left behind when the parent changes.

use super::*;
use crate::flow::road::entry_of;
use crate::log::port::Log;
use crate::model::change::Origin;
use crate::model::name::ObjectName;
use crate::model::version::Version;

fn child(number: usize) -> Key {
    (contact(), RecordId::stored(format!("c{number:03}")))
}

fn of(parent: Option<usize>) -> Fields {
    let id = parent.map_or(Value::Null, |number| Value::from(key(number).1.as_str()));
    Fields::from([(FieldName::new("AccountId"), id)])
}

impl World {
    /// Accounts, and as many contacts of the first of them.
    async fn family(accounts: usize, contacts: usize) -> Self {
        let mut world = world();
        let joined = fields(&["Name", "Account.Name", "Account.Parent.Name"]);
        world.selected.insert(contact(), joined);
        world.create(accounts);
        for number in 0..contacts {
            world.tells(&child(number), Deed::Create(of(Some(0))));
        }
        world.sleep(1).await;
        world.start("one");
        world.agrees_without_position().await;
        world.update(0, "streamed");
        world.agrees().await;
        world
    }

    fn tells(&self, key: &Key, deed: Deed) {
        let deeds = [(key.clone(), deed)];
        let told = self.org.at_once(Telling::Events, &deeds, 0);
        self.say(|| told.unwrap());
    }

    /// What the last change of a contact says of its account's name.
    async fn name(&self, number: usize) -> Option<Value> {
        let changes = self.changes(&contact()).await;
        let last = changes.iter().rfind(|change| change.id == child(number).1);
        last.unwrap()
            .fields
            .get(&FieldName::new("Account.Name"))
            .cloned()
    }

    async fn causes(&self) -> Vec<HoleCause> {
        let ledger = self.ledger().await.into_iter();
        ledger.map(|hole| hole.cause).collect()
    }

    /// How often a contact was published.
    async fn count(&self, object: &ObjectName) -> usize {
        self.changes(object).await.len()
    }
}

#[tokio::test(start_paused = true)]
async fn a_parents_change_reaches_its_children_without_a_read() {
    let world = World::family(3, 3).await;
    let before = world.reads();
    world.update(0, "renamed");
    // The parent's own parent is two steps away.
    let parent = Value::from(key(1).1.as_str());
    let parent = Fields::from([(FieldName::new("ParentId"), parent)]);
    world.does(0, Deed::Update(parent));
    world.update(1, "grown");
    world.sleep(30).await;
    world.agrees().await;
    assert_eq!(world.name(2).await, Some(Value::from("renamed")));
    assert_eq!(world.reads(), before);
    // What nobody joins, and what is as it was, tells nobody.
    let told = world.count(&contact()).await;
    let city = Fields::from([(FieldName::new("City"), Value::from("Ulm"))]);
    world.does(0, Deed::Update(city));
    world.update(0, "renamed");
    world.agrees().await;
    assert_eq!(world.count(&contact()).await, told);
    assert!(world.causes().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_child_that_comes_or_moves_is_joined_from_the_image_of_its_parent() {
    let world = World::family(3, 1).await;
    let before = world.reads();
    world.update(1, "second");
    world.tells(&child(0), Deed::Update(of(Some(1))));
    world.tells(&child(1), Deed::Create(of(Some(1))));
    world.tells(&child(2), Deed::Create(of(None)));
    world.agrees().await;
    assert_eq!(world.name(0).await, Some(Value::from("second")));
    assert_eq!(world.name(1).await, Some(Value::from("second")));
    assert_eq!(world.name(2).await, Some(Value::Null));
    assert_eq!(world.reads(), before);
    // An event that leaves the reference alone keeps what was joined.
    world.tells(&child(0), Deed::Update(told("Ann")));
    world.agrees().await;
    assert_eq!(world.name(0).await, Some(Value::from("second")));
    assert_eq!(world.reads(), before);
}

/// The parent is not captured: the field is left out, never kept from the parent before, until a read tells it.
#[tokio::test(start_paused = true)]
async fn a_child_of_an_unknown_parent_is_read() {
    let mut world = World::family(2, 1).await;
    world.update(1, "second");
    world.agrees().await;
    world.stop().await;
    world.selected.remove(&account());
    world.start("one");
    world.agrees().await;
    world.chaos.refuses_reads.store(true, Ordering::SeqCst);
    world.tells(&child(0), Deed::Update(of(Some(1))));
    world.sleep(5).await;
    assert_eq!(world.name(0).await, None);
    world.chaos.refuses_reads.store(false, Ordering::SeqCst);
    world.agrees().await;
    assert_eq!(world.name(0).await, Some(Value::from("second")));
    // An event that leaves the reference alone owes nothing.
    let before = world.reads();
    world.tells(&child(0), Deed::Update(told("Ann")));
    world.agrees().await;
    assert_eq!(world.reads(), before);
    // What the parent did unheard is found when it is heard again, though its image be the same.
    world.tells(&key(1), Deed::Update(told("meanwhile")));
    world.ask_for_full_sync().await.unwrap();
    world.agrees().await;
    assert_eq!(world.name(0).await, Some(Value::from("meanwhile")));
    world.tells(&key(1), Deed::Update(told("second")));
    world.stop().await;
    let names = fields(&["Name", "City"]);
    world.selected.insert(account(), names);
    world.start("one");
    world.agrees().await;
    assert_eq!(world.name(0).await, Some(Value::from("second")));
}

#[tokio::test(start_paused = true)]
async fn the_children_of_a_dead_parent_are_read_and_come_back_with_it() {
    let world = World::family(2, 2).await;
    world.does(0, Deed::Delete);
    world.agrees().await;
    assert_eq!(world.name(1).await, Some(Value::Null));
    let before = world.reads();
    world.does(0, Deed::Undelete);
    world.sleep(30).await;
    world.agrees().await;
    assert_eq!(world.name(1).await, Some(Value::from("streamed")));
    assert_eq!(world.reads(), before);
}

#[tokio::test(start_paused = true)]
async fn too_many_children_are_a_hole_that_closes() {
    let mut world = World::family(2, 7).await;
    world.stop().await;
    world.children_a_step = 3;
    world.start("one");
    world.update(1, "wakes the stream");
    world.agrees().await;
    world.chaos.refuses_reads.store(true, Ordering::SeqCst);
    let before = world.count(&contact()).await;
    world.update(0, "renamed");
    world.sleep(5).await;
    assert_eq!(world.count(&contact()).await, before + 3);
    assert_eq!(world.causes().await, [HoleCause::ParentChanged]);
    world.chaos.refuses_reads.store(false, Ordering::SeqCst);
    world.agrees().await;
    assert_eq!(world.count(&contact()).await, before + 7);
}

/// A crash came between a parent's change and those of its children: the topic has the one alone, and its event comes
/// again as one that is known.
#[tokio::test(start_paused = true)]
async fn children_are_told_after_a_crash_that_told_their_parent_alone() {
    let mut world = World::family(2, 3).await;
    world.crash().await;
    world.update(0, "half");
    let event = world.org.lock().stream.last().unwrap().event.clone();
    let changes = world.published().await;
    let last = changes.iter().rfind(|change| change.id == key(0).1);
    let mut change = last.unwrap().clone();
    change.version = Version::new(change.version.term(), 1_000_000);
    change.origin = Origin::Stream;
    change.committed_at = Some(event.committed_at);
    change.position = Some(event.position);
    change.transaction = Some(event.transaction);
    change.fields.extend(told("half"));
    let topic = world.topic(&account()).into();
    let entry = entry_of(&topic, &change).unwrap();
    world.log.append(vec![entry]).await.unwrap();
    let before = world.count(&account()).await;
    world.start("one");
    world.agrees().await;
    assert_eq!(world.name(2).await, Some(Value::from("half")));
    assert_eq!(world.count(&account()).await, before);
}

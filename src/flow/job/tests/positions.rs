//! Positions that the topic no longer has: cut, made again, or removed from the beginning.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::*;
use crate::log::memory::MemoryLog;
use crate::log::port::{Bounds, Place, TopicSpec};

#[tokio::test(start_paused = true)]
async fn a_cut_topic_is_read_again_though_it_grew_past_the_old_end() {
    let stage = stage().await;
    let all = ids(2, 6);
    let publish = |range: std::ops::Range<usize>, counter| {
        let changes: Vec<_> = all[range]
            .iter()
            .map(|id| change(id, counter, "x"))
            .collect();
        let stage = &stage;
        async move { stage.publish(&changes).await }
    };
    publish(0..4, 1).await;
    let running = start(&stage);
    stage.settled().await;
    running.end().await;
    // While the job is away: two offsets are lost, and others come in their place.
    stage.log.cut(TOPIC, 2, 2).unwrap();
    publish(4..5, 1).await;
    let running = start(&stage);
    stage
        .target
        .until("the ledger back and on", |inner| {
            inner.names.contains_key(&all[4])
        })
        .await;
    stage.settled().await;
    running.end().await;
    {
        let inner = stage.target.lock();
        assert_eq!(
            moves(&inner.commits, 2),
            [(0, 4), (4, 0), (0, 3)],
            "the ledger goes back first"
        );
    }
    assert!(stage.letters().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_topic_cut_under_the_reader_is_read_again() {
    let stage = stage().await;
    let all = ids(2, 6);
    let changes: Vec<_> = all.iter().map(|id| change(id, 1, "x")).collect();
    stage.publish(&changes[..4]).await;
    let running = start(&stage);
    stage.settled().await;
    stage.log.cut(TOPIC, 2, 1).unwrap();
    stage
        .target
        .until("the ledger back", |inner| {
            inner
                .commits
                .iter()
                .any(|commit| commit.next < commit.expect)
        })
        .await;
    stage.publish(&changes[4..]).await;
    stage.settled().await;
    running.end().await;
    let inner = stage.target.lock();
    let moved = moves(&inner.commits, 2);
    assert_eq!((moved[0], moved[1]), ((0, 4), (4, 0)));
    assert!(all[4..].iter().all(|id| inner.names.contains_key(id)));
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_again_has_an_offset_row_of_its_own() {
    let stage = stage().await;
    let all = ids(2, 6);
    let changes: Vec<_> = all.iter().map(|id| change(id, 1, "x")).collect();
    stage.publish(&changes[..4]).await;
    let running = start(&stage);
    stage.settled().await;
    stage.log.make_again(TOPIC).unwrap();
    stage.publish(&changes[4..]).await;
    stage
        .target
        .until("what came after", |inner| inner.names.contains_key(&all[5]))
        .await;
    running.end().await;
    let inner = stage.target.lock();
    let generations: Set<_> = inner
        .offsets
        .keys()
        .map(|(reader, _)| &reader.generation)
        .collect();
    assert_eq!(generations.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_again_is_noticed_though_it_grew_past_the_old_offsets() {
    let stage = stage().await;
    let all = ids(2, 10);
    let changes: Vec<_> = all.iter().map(|id| change(id, 1, "x")).collect();
    stage.publish(&changes[..4]).await;
    let running = start(&stage);
    stage.settled().await;
    // The reader has no turn between the two.
    stage.log.make_again(TOPIC).unwrap();
    stage.publish(&changes[4..]).await;
    stage
        .target
        .until("all of the new topic", |inner| {
            all.iter().all(|id| inner.names.contains_key(id))
        })
        .await;
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_topic_is_left_until_ingest_begins() {
    let stage = stage_before_ingest().await;
    let all = ids(2, 4);
    let changes: Vec<_> = all.iter().map(|id| change(id, 1, "x")).collect();
    let running = start(&stage);
    tokio::time::sleep(RELEASE_EVERY).await;
    assert!(stage.target.lock().offsets.is_empty());
    begin(&stage.state).await;
    stage.publish(&changes).await;
    stage.settled().await;
    // As long again as it takes to look at the topic anew.
    tokio::time::sleep(RELEASE_EVERY * 2).await;
    running.end().await;
    assert_eq!(moves(&stage.target.lock().commits, 2), [(0, 4)]);
}

#[tokio::test(start_paused = true)]
async fn what_lies_in_a_topic_is_applied_though_no_ingest_begins() {
    let stage = stage_before_ingest().await;
    stage.publish(&[change(&ids(2, 1)[0], 1, "x")]).await;
    let running = start(&stage);
    stage.settled().await;
    running.end().await;
    assert_eq!(moves(&stage.target.lock().commits, 2), [(0, 1)]);
}

/// A log whose partitions begin at 5.
struct Beheaded(Arc<MemoryLog>);

struct BeheadedReader(Box<dyn Reader>);

#[async_trait]
impl Log for Beheaded {
    async fn ensure(&self, topic: &TopicSpec) -> Result<String, Fault> {
        self.0.ensure(topic).await
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        self.0.append(entries).await
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        let mut bounds = self.0.bounds(topic).await?;
        bounds
            .values_mut()
            .for_each(|ends| *ends = Bounds { start: 5, end: 9 });
        Ok(bounds)
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        self.0.at_time(topic, at).await
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        Ok(Box::new(BeheadedReader(self.0.reader(topic, from).await?)))
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        self.0.topics().await
    }

    async fn close(&self) -> Result<(), Fault> {
        self.0.close().await
    }
}

#[async_trait]
impl Reader for BeheadedReader {
    async fn next(
        &mut self,
        records: usize,
        bytes: usize,
        wait: Duration,
    ) -> Result<Delivery, Fault> {
        self.0.next(records, bytes, wait).await
    }

    async fn start(&mut self, partition: u32, offset: u64) -> Result<(), Fault> {
        Err(Fault::new(
            FaultKind::PositionLost,
            format!("offset {offset} of partition {partition} is gone"),
        ))
    }

    async fn release(&mut self, partition: u32) -> Result<(), Fault> {
        self.0.release(partition).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_unread_holds_the_job_in_sight() {
    let mut stage = stage().await;
    stage.road.log = Arc::new(Beheaded(Arc::clone(&stage.log)));
    let running = start(&stage);
    stage
        .target
        .until("several looks", |inner| {
            inner.offsets.values().any(|(_, epoch)| *epoch >= 4)
        })
        .await;
    let picture = stage.picture();
    assert_eq!(picture.state, Life::Failed);
    let fault = picture.fault.unwrap();
    assert_eq!(fault.kind, "position_lost");
    assert!(fault.text.contains("delete the topic"), "{}", fault.text);
    assert!(
        stage.target.lock().commits.is_empty(),
        "the ledger is left as it is"
    );
    running.end().await;
}

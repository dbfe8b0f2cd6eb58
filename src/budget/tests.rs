//! Grants: who goes first, what is kept back, how long everybody stays away. Time is paused or stands still.

use std::future::Future;

use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::runtime::clock::{ManualClock, VirtualClock};

use super::*;

fn begin() -> DateTime<Utc> {
    "2026-01-05T10:00:00Z".parse().unwrap()
}

fn number(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn budget(limits: Limits, clock: Arc<dyn Clock>) -> Arc<Budget> {
    Budget::new(&"acme".into(), limits, clock, &Metrics::none())
}

fn still(limits: Limits) -> (Arc<Budget>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(begin()));
    (budget(limits, Arc::clone(&clock) as _), clock)
}

fn one_at_once() -> Limits {
    Limits {
        at_once: number(1),
        ..Limits::default()
    }
}

/// A wait for a grant of this priority, which may be dropped.
fn asks(budget: &Arc<Budget>, priority: Priority) -> impl Future<Output = Grant> + use<> {
    let budget = Arc::clone(budget);
    Box::pin(priority.scope(async move { budget.grant().await.unwrap() }))
}

fn granted(budget: &Arc<Budget>, priority: Priority) -> Option<Grant> {
    asks(budget, priority).now_or_never()
}

fn refusal() -> Fault {
    Fault::new(FaultKind::Throttled, "REQUEST_LIMIT_EXCEEDED: too many")
}

fn usage(left: u64) -> Option<Usage> {
    Some(Usage { left, limit: 1000 })
}

/// Tells each grant as it is given, and ends it at the next.
fn told(
    budget: &Arc<Budget>,
    priorities: &[Priority],
) -> (
    mpsc::UnboundedReceiver<Priority>,
    Vec<tokio::task::JoinHandle<()>>,
) {
    let (tell, told) = mpsc::unbounded_channel();
    let tasks = priorities.iter().map(|priority| {
        let (wait, tell, priority) = (asks(budget, *priority), tell.clone(), *priority);
        tokio::spawn(async move {
            let grant = wait.await;
            tell.send(priority).unwrap();
            drop(grant);
        })
    });
    let tasks = tasks.collect();
    (told, tasks)
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_by_priority_then_by_who_came_first() {
    use Priority::{FullSync, Incremental, Repair, Verify};
    let budget = budget(one_at_once(), Arc::new(VirtualClock::new(begin())));
    let running = asks(&budget, Verify).await;
    let order = [Verify, FullSync, Repair, Incremental, FullSync, Repair];
    let (mut told, tasks) = told(&budget, &order);
    tokio::task::yield_now().await;
    assert_eq!(budget.show().waiting["full_sync"], 2);
    drop(running);
    let mut served = Vec::new();
    for _ in order {
        served.push(told.recv().await.unwrap());
    }
    assert_eq!(
        served,
        [Repair, Repair, Incremental, FullSync, FullSync, Verify]
    );
    for task in tasks {
        task.await.unwrap();
    }
    assert!(budget.show().waiting.is_empty());
}

#[tokio::test]
async fn equals_are_served_in_the_order_of_their_coming() {
    let (budget, _) = still(one_at_once());
    let running = granted(&budget, Priority::FullSync).unwrap();
    let mut first = asks(&budget, Priority::FullSync);
    let mut second = asks(&budget, Priority::FullSync);
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    drop(running);
    assert!((&mut second).now_or_never().is_none(), "not its turn");
    let running = (&mut first).now_or_never().unwrap();
    drop(running);
    assert!((&mut second).now_or_never().is_some());
}

#[tokio::test]
async fn long_calls_of_low_priority_leave_a_place_for_repair() {
    let limits = Limits {
        at_once: number(3),
        ..Limits::default()
    };
    let (budget, _) = still(limits);
    let one = granted(&budget, Priority::FullSync).unwrap();
    let _two = granted(&budget, Priority::Incremental).unwrap();
    assert!(granted(&budget, Priority::FullSync).is_none());
    let _three = granted(&budget, Priority::Repair).unwrap();
    assert!(granted(&budget, Priority::Repair).is_none(), "three run");
    drop(one);
    assert!(granted(&budget, Priority::FullSync).is_none());
    assert!(granted(&budget, Priority::Repair).is_some());
}

#[tokio::test]
async fn a_wait_that_is_dropped_spends_nothing_and_holds_up_nobody() {
    let (budget, _) = still(one_at_once());
    let running = granted(&budget, Priority::Repair).unwrap();
    let mut first = asks(&budget, Priority::Repair);
    let mut second = asks(&budget, Priority::FullSync);
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    drop(running);
    drop(second.now_or_never().unwrap());
    assert_eq!(budget.spent().0, 2);
    let picture = budget.show();
    assert_eq!((picture.running, picture.waiting.len()), (0, 0));
}

#[tokio::test]
async fn what_is_kept_back_is_for_repair_until_the_org_tells_of_more() {
    let (budget, _) = still(Limits::default());
    budget.answered(usage(101));
    drop(granted(&budget, Priority::FullSync).unwrap());
    budget.answered(usage(100));
    for low in [Priority::Incremental, Priority::FullSync, Priority::Verify] {
        assert!(granted(&budget, low).is_none(), "{low:?}");
    }
    drop(granted(&budget, Priority::Repair).unwrap());
    let picture = budget.show();
    assert_eq!(picture.held, ["incremental", "full_sync", "verify"]);
    assert_eq!((picture.left, picture.reserve), (Some(100), Some(100)));
    let mut waits = asks(&budget, Priority::FullSync);
    assert!((&mut waits).now_or_never().is_none());
    budget.answered(usage(150));
    assert!(waits.now_or_never().is_some());
    assert!(budget.show().held.is_empty());
}

#[tokio::test]
async fn a_low_priority_that_waits_for_the_day_stands_before_no_repair() {
    let (budget, _) = still(Limits::default());
    budget.answered(usage(50));
    let mut low = asks(&budget, Priority::FullSync);
    assert!((&mut low).now_or_never().is_none());
    for _ in 0..20 {
        drop(granted(&budget, Priority::Repair).unwrap());
    }
    assert!((&mut low).now_or_never().is_none());
}

#[tokio::test]
async fn a_window_that_nobody_tells_of_is_looked_at_again() {
    let (budget, clock) = still(Limits::default());
    budget.answered(usage(0));
    let mut low = asks(&budget, Priority::Verify);
    assert!((&mut low).now_or_never().is_none());
    clock.advance(Duration::from_mins(14));
    assert!((&mut low).now_or_never().is_none());
    clock.advance(Duration::from_mins(1));
    assert!(low.now_or_never().is_some());
}

#[tokio::test]
async fn a_day_that_is_counted_here_ends_at_midnight_for_everybody() {
    let limits = Limits {
        daily: Some(1000),
        ..Limits::default()
    };
    let (budget, clock) = still(limits);
    for _ in 0..900 {
        drop(granted(&budget, Priority::FullSync).unwrap());
    }
    assert!(granted(&budget, Priority::FullSync).is_none());
    for _ in 0..60 {
        drop(granted(&budget, Priority::Repair).unwrap());
    }
    // The pace is spent before the day is.
    clock.advance(Duration::from_mins(10));
    for _ in 0..40 {
        drop(granted(&budget, Priority::Repair).unwrap());
    }
    let mut waits = asks(&budget, Priority::Repair);
    assert!((&mut waits).now_or_never().is_none());
    assert_eq!(budget.show().held.len(), 4);
    clock.advance(Duration::from_hours(14));
    assert!(waits.now_or_never().is_some());
    assert_eq!(budget.spent(), (1, Some(1000)));
}

#[tokio::test(start_paused = true)]
async fn the_pace_holds_under_paused_time() {
    let limits = Limits {
        per_second: number(2),
        ..Limits::default()
    };
    let budget = budget(limits, Arc::new(VirtualClock::new(begin())));
    let began = tokio::time::Instant::now();
    for _ in 0..120 {
        drop(asks(&budget, Priority::Repair).await);
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "a minute's worth at once");
    for _ in 0..20 {
        drop(asks(&budget, Priority::Repair).await);
    }
    let took = began.elapsed().as_secs_f64();
    assert!((9.5..10.5).contains(&took), "{took}");
}

#[tokio::test]
async fn everybody_stays_away_and_then_one_goes_first() {
    let (budget, clock) = still(Limits::default());
    budget.close(Duration::from_secs(37), &refusal());
    budget.close(Duration::from_secs(5), &refusal());
    assert!(granted(&budget, Priority::Repair).is_none());
    let until = begin() + TimeDelta::seconds(37);
    assert_eq!(budget.show().closed_until, Some(until));
    let mut waits = asks(&budget, Priority::Repair);
    assert!((&mut waits).now_or_never().is_none());
    clock.advance(Duration::from_secs(37));
    let first = waits.now_or_never().unwrap();
    assert!(
        granted(&budget, Priority::Repair).is_none(),
        "one goes first"
    );
    // It is asked to stay away once more.
    budget.answered(None);
    budget.close(Duration::from_secs(10), &refusal());
    drop(first);
    assert!(granted(&budget, Priority::Repair).is_none());
    clock.advance(Duration::from_secs(10));
    let first = granted(&budget, Priority::Repair).unwrap();
    budget.answered(None);
    assert!(granted(&budget, Priority::FullSync).is_some(), "it is open");
    drop(first);
    assert_eq!(budget.show().closed_until, None);
}

#[tokio::test]
async fn work_is_told_that_it_has_to_wait() {
    let (budget, _) = still(Limits::default());
    let mut held = Box::pin(budget.held(Priority::FullSync));
    assert!((&mut held).now_or_never().is_none());
    budget.answered(usage(900));
    assert!((&mut held).now_or_never().is_none());
    budget.answered(usage(99));
    assert!(held.now_or_never().is_some());
    assert!(budget.held(Priority::Repair).now_or_never().is_none());
}

#[tokio::test]
async fn the_picture_says_how_long_the_calls_last_and_what_was_delivered() {
    let (budget, clock) = still(Limits::default());
    assert_eq!(budget.show().lasts_until, None);
    for minute in 0..=30 {
        budget.answered(usage(900 - 10 * minute));
        clock.advance(Duration::from_mins(1));
    }
    // 300 of 900 went in the 31 minutes since.
    let until = budget.show().lasts_until.unwrap();
    assert_eq!(until, begin() + TimeDelta::minutes(31 + 62));
    budget.delivered(7);
    budget.delivered(5);
    let told = Usage {
        left: 9_000,
        limit: 10_000,
    };
    budget.deliveries(told);
    budget.burst_left(5_990);
    let picture = budget.show();
    let deliveries = DeliveriesPicture {
        ours: 12,
        left: Some(9_000),
        limit: Some(10_000),
    };
    assert_eq!(picture.deliveries, deliveries);
    assert_eq!(picture.burst_left, Some(5_990));
}

#[tokio::test]
async fn whoever_has_no_patience_is_told_instead_of_waiting() {
    let limits = Limits {
        patience: Some(Duration::from_secs(30)),
        ..Limits::default()
    };
    let (budget, clock) = still(limits);
    budget.close(Duration::from_mins(15), &refusal());
    let refused = budget.grant().now_or_never().unwrap().err().unwrap();
    assert_eq!(refused.kind(), FaultKind::Throttled);
    assert_eq!(refused.wait_hint(), Some(Duration::from_mins(15)));
    for due in ["acme", "900 s", "too many"] {
        assert!(refused.report().contains(due), "{}", refused.report());
    }
    // What a service asks for between two calls is waited for.
    clock.advance(Duration::from_mins(15) - Duration::from_secs(30));
    assert!(budget.grant().now_or_never().is_none());
    clock.advance(Duration::from_secs(30));
    drop(granted(&budget, Priority::Incremental).unwrap());
    // The day's last calls are for repair.
    budget.answered(usage(50));
    let refused = budget.grant().now_or_never().unwrap().err().unwrap();
    assert!(refused.report().contains("reserve"), "{}", refused.report());
    assert!(granted(&budget, Priority::Repair).is_some());
}

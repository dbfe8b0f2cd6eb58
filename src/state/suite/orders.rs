//! What the port of orders promises.

use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::state::orders::{
    Asked, Order, Orders, Reading, Replay, ReplayStage, Seen, Since, Standing, Wish,
};
use crate::state::runs::Taken;

use super::at;

fn pause(reason: &str) -> Order {
    Order {
        paused: true,
        reason: Some(reason.to_owned()),
        by: Some("anna".to_owned()),
        since: Some(at(3)),
        braked: Some(Seen {
            generation: "g".to_owned(),
            ends: [(3, 9)].into(),
            run: "20270115-stream".to_owned(),
            is_sync: true,
            took: Taken {
                gone: 7,
                emptied: 8,
                rejected: 9,
            },
        }),
        accepted: None,
        replay: Some(Replay {
            stage: ReplayStage::Reading(Reading {
                generation: "g".to_owned(),
                attempt: "a".to_owned(),
                spans: [(0, (1, 4)), (7, (0, 9))].into(),
                done: [7].into(),
            }),
            ..Replay::new(Since::Offset(1), Some("anna".to_owned()), at(2))
        }),
    }
}

fn names() -> (ConnectionId, JobId) {
    (ConnectionId::new("acme"), JobId::new("accounts"))
}

/// An order is replaced by who saw the newest one; every engine on the store reads it at once.
pub(super) async fn conforms(one: &dyn Orders, other: &dyn Orders) {
    let (acme, accounts) = names();
    assert_eq!(
        one.standing(&acme, &accounts).await.unwrap(),
        Standing::default()
    );
    assert!(one.all_standing().await.unwrap().is_empty());
    let first = pause("first \"quoted\"\nline");
    let give = async |to: &dyn Orders, after, order: &Order| {
        to.give(&acme, &accounts, after, order.clone())
            .await
            .unwrap()
    };
    assert!(!give(one, 3, &first).await, "there is no revision 3");
    assert!(one.all_standing().await.unwrap().is_empty());
    assert!(give(one, 0, &first).await);
    // Made again as its reply was lost.
    assert!(give(one, 0, &first).await);
    assert!(!give(other, 0, &pause("late")).await);
    let standing = Standing {
        revision: 1,
        order: first,
    };
    assert_eq!(other.standing(&acme, &accounts).await.unwrap(), standing);

    let (mine, theirs) = (pause("mine"), pause("theirs"));
    let (won, lost) = tokio::join!(give(one, 1, &mine), give(other, 1, &theirs));
    assert!(won ^ lost, "two replaced one");
    let stored = other.standing(&acme, &accounts).await.unwrap();
    assert_eq!(stored.revision, 2);
    assert_eq!(stored.order, if won { mine } else { theirs });
    assert!(give(other, 2, &Order::default()).await);

    // A job's order is nobody else's.
    let (other_job, other_org) = (JobId::new("a-job"), ConnectionId::new("beta"));
    for (connection, job) in [(&acme, &other_job), (&other_org, &accounts)] {
        let standing = one.standing(connection, job).await.unwrap();
        assert_eq!(standing, Standing::default());
        assert!(one.give(connection, job, 0, pause("own")).await.unwrap());
    }
    assert_eq!(one.standing(&acme, &accounts).await.unwrap().revision, 3);
    syncs(one, other).await;
    has_kept(other).await;
}

fn wish(by: &str) -> Wish {
    Wish {
        limit: None,
        by: Some(by.to_owned()),
        at: Some(at(8)),
    }
}

fn asked(object: &str, number: u64, by: &str) -> (ObjectName, Asked) {
    let wish = wish(by);
    (ObjectName::new(object), Asked { number, wish })
}

/// A sync that was asked for stays until it was done; one that was asked for meanwhile outlives that.
async fn syncs(one: &dyn Orders, other: &dyn Orders) {
    let (acme, _) = names();
    let (account, contact) = (ObjectName::new("Account"), ObjectName::new("Contact"));
    assert!(one.asked_syncs(&acme).await.unwrap().is_empty());
    one.sync_done(&acme, &account, 3).await.unwrap();
    one.ask_sync(&acme, &contact, wish("c")).await.unwrap();
    one.ask_sync(&acme, &account, wish("a")).await.unwrap();
    let both = [asked("Account", 1, "a"), asked("Contact", 1, "c")];
    assert_eq!(other.asked_syncs(&acme).await.unwrap(), both);
    let beta = ConnectionId::new("beta");
    assert!(one.asked_syncs(&beta).await.unwrap().is_empty());

    other
        .ask_sync(&acme, &account, wish("again"))
        .await
        .unwrap();
    for _ in 0..2 {
        one.sync_done(&acme, &account, 1).await.unwrap();
        let left = [asked("Account", 2, "again"), asked("Contact", 1, "c")];
        assert_eq!(one.asked_syncs(&acme).await.unwrap(), left);
    }
    one.sync_done(&acme, &account, 2).await.unwrap();
    one.sync_done(&acme, &account, 1).await.unwrap();
    assert_eq!(
        other.asked_syncs(&acme).await.unwrap(),
        [asked("Contact", 1, "c")]
    );
    // What is done late undoes nothing that was asked for since.
    one.ask_sync(&acme, &account, wish("new")).await.unwrap();
    one.sync_done(&acme, &account, 2).await.unwrap();
    one.sync_done(&acme, &contact, 1).await.unwrap();
}

/// What [`conforms`] leaves is there when the store is opened again.
pub(super) async fn has_kept(orders: &dyn Orders) {
    let all = orders.all_standing().await.unwrap();
    let (acme, _) = names();
    assert_eq!(
        orders.asked_syncs(&acme).await.unwrap(),
        [asked("Account", 3, "new")]
    );
    let seen: Vec<_> = all
        .iter()
        .map(|(connection, job, standing)| {
            let paused = standing.order.paused;
            (connection.as_str(), job.as_str(), standing.revision, paused)
        })
        .collect();
    let left = [
        ("acme", "a-job", 1, true),
        ("acme", "accounts", 3, false),
        ("beta", "accounts", 1, true),
    ];
    assert_eq!(seen, left);
    assert_eq!(all[0].2.order, pause("own"));
}

//! An environment that was restored while nobody looked: no question for changes tells of it, and no full sync is near.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_while_the_daemon_is_down_is_noticed_by_the_newest_rows() {
    let world = World::of(10).await;
    let daemon = world.daemon().await;
    world.settled(&daemon).await;
    world.control("snapshots", json!({"save": "backup"})).await;
    for number in 0..5 {
        world.put(number, "after the backup").await;
    }
    world.put(50, "born after the backup").await;
    world.delete(7).await;
    world.settled(&daemon).await;
    daemon.stop().await.unwrap();
    world.control("time", json!({"advance_seconds": 60})).await;
    let restore = json!({"restore": "backup"});
    world.control("snapshots", restore).await;
    // It goes on, past the numbers that it had before: to the stored place nothing looks wrong.
    for round in 0..40 {
        world.put(8, &format!("round {round}")).await;
    }
    let daemon = world.daemon().await;
    world.settled(&daemon).await;
    assert_eq!(world.store_names()[&guid(7)], "Example 7");
    assert_eq!(world.store_names()[&guid(0)], "Example 0");
    world.put(7, "on it goes").await;
    world.settled(&daemon).await;
    daemon.stop().await.unwrap();
    let causes = world.causes();
    let restored = |cause: &String| cause.contains("org_restored");
    assert!(causes.iter().any(restored), "{causes:?}");
}

//! Something in the way, and the wait until others stand before it.

use std::time::Duration;

use tokio_postgres::Client;

use super::server::server;

/// A transaction of the test's own that holds something that others want.
pub struct Obstacle {
    pub client: Client,
    pid: i32,
}

impl Obstacle {
    pub async fn new(sql: &str) -> Self {
        let client = server().client().await;
        let pid = client
            .query_one("SELECT pg_backend_pid()", &[])
            .await
            .unwrap()
            .get(0);
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(sql).await.unwrap();
        Self { client, pid }
    }

    /// Returns once `count` others wait for it, directly or in line; their process ids.
    pub async fn waited_for(&self, count: usize) -> Vec<i32> {
        let look = server().client().await;
        wait_until(async || {
            let waiting = look
                .query(
                    "WITH RECURSIVE blocked AS MATERIALIZED (
                        SELECT pid, unnest(pg_blocking_pids(pid)) AS by FROM pg_stat_activity
                        WHERE application_name = 'tributary'
                     ), waiting AS (
                        SELECT pid FROM blocked WHERE by = $1
                        UNION SELECT b.pid FROM blocked b JOIN waiting w ON b.by = w.pid
                     ) SELECT pid FROM waiting",
                    &[&self.pid],
                )
                .await
                .unwrap();
            let pids: Vec<i32> = waiting.iter().map(|row| row.get(0)).collect();
            (pids.len() >= count).then_some(pids)
        })
        .await
    }

    pub async fn end(self, how: &str) {
        self.client.batch_execute(how).await.unwrap();
    }
}

/// Asks until there is an answer.
pub async fn wait_until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing came");
}

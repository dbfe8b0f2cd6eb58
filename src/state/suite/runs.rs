//! What the port of runs promises.

use crate::model::name::{ConnectionId, JobId};
use crate::state::runs::{Run, RunCause, RunHead, RunPart, RunState, Runs, RunsWanted, Taken};

use super::at;

fn names() -> (ConnectionId, JobId) {
    (ConnectionId::new("acme"), JobId::new("accounts"))
}

fn part(counts: &[(&str, u64)], next: &[(u32, u64)], second: i64) -> RunPart {
    RunPart {
        counts: counts
            .iter()
            .map(|(outcome, count)| ((*outcome).to_owned(), *count))
            .collect(),
        next: next.iter().copied().collect(),
        at: Some(at(second)),
        ..RunPart::default()
    }
}

fn wanted(connection: &str, job: Option<&str>, limit: usize) -> RunsWanted {
    RunsWanted {
        connection: Some(connection.into()),
        job: job.map(JobId::new),
        limit,
    }
}

fn ids(runs: &[Run]) -> Vec<(&str, &str)> {
    runs.iter()
        .map(|run| (run.job.as_str(), run.head.id.as_str()))
        .collect()
}

/// Parts of several writers add up, a part noted again counts once, an end that is known is not forgotten.
pub(super) async fn conforms(one: &dyn Runs, other: &dyn Runs) {
    let (acme, accounts) = names();
    let all = wanted("acme", None, 10);
    assert!(one.runs(all.clone()).await.unwrap().is_empty());
    let from = [(0, 5), (1, 0), (2, 4)].into();
    let begun = RunHead::sync(RunCause::Asked, Some("anna \"a\"".to_owned()), from, at(10));
    let note = async |to: &dyn Runs, head: &RunHead, writer: &str, part: RunPart| {
        to.note_run(&acme, &accounts, head.clone(), writer, part)
            .await
            .unwrap();
    };
    let first = RunPart {
        records: 5,
        emptied: 4,
        accepted: Taken {
            gone: 1,
            emptied: 3,
            rejected: 2,
        },
        ..part(&[("inserted", 2), ("rejected", 1)], &[(0, 7)], 12)
    };
    for _ in 0..2 {
        note(one, &begun, "a", first.clone()).await;
    }
    let run = &other.runs(all.clone()).await.unwrap()[0];
    assert_eq!((&run.head, &run.done), (&begun, &first));
    assert_eq!(run.state(at(12)), RunState::Running);
    assert_eq!(run.ended(at(12)), None);

    let ended = RunHead {
        ended: Some(at(13)),
        rows: 9,
        ends: Some([(0, 8), (1, 3), (2, 4)].into()),
        ..begun.clone()
    };
    let second = part(&[("inserted", 3)], &[(1, 3)], 14);
    note(other, &ended, "b", second).await;
    // A writer that has not heard of the end takes nothing back.
    note(one, &begun, "a", part(&[("inserted", 3)], &[(0, 7)], 12)).await;
    let run = &one.runs(all.clone()).await.unwrap()[0];
    assert_eq!(run.head, ended);
    let both = part(&[("inserted", 6)], &[(0, 7), (1, 3)], 14);
    assert_eq!(run.done, both);
    assert_eq!(
        run.state(at(14)),
        RunState::Running,
        "partition 0 is not done"
    );
    note(one, &begun, "a", part(&[("inserted", 4)], &[(0, 8)], 16)).await;
    let run = &other.runs(all.clone()).await.unwrap()[0];
    assert_eq!(
        run.state(at(16)),
        RunState::Success,
        "partition 2 has nothing of it"
    );
    assert_eq!(run.ended(at(16)), Some(at(16)));
    kept(one, other).await;
}

/// The newest are kept, of each job by itself.
async fn kept(one: &dyn Runs, other: &dyn Runs) {
    let (acme, accounts) = names();
    let (others, beta) = (JobId::new("a-job"), ConnectionId::new("beta"));
    for (connection, job, day) in [
        (&acme, &accounts, 1),
        (&acme, &accounts, 2),
        (&acme, &others, 1),
        (&beta, &accounts, 1),
    ] {
        let head = RunHead::stream(at(day * 86_400));
        let rejected = part(&[("rejected", 1)], &[], day * 86_400);
        let noted = one.note_run(connection, job, head, "a", rejected);
        noted.await.unwrap();
    }
    let sync = RunHead::sync(RunCause::First, None, [].into(), at(10)).id;
    let (day, next) = (
        RunHead::stream(at(86_400)).id,
        RunHead::stream(at(2 * 86_400)).id,
    );
    let told = other.runs(wanted("acme", None, 10)).await.unwrap();
    let mut seen = ids(&told);
    seen[1..3].sort_unstable();
    let both = [("a-job", day.as_str()), ("accounts", day.as_str())];
    assert_eq!(
        seen,
        [("accounts", &*next), both[0], both[1], ("accounts", &*sync)]
    );
    let told = other
        .runs(wanted("acme", Some("accounts"), 2))
        .await
        .unwrap();
    assert_eq!(ids(&told), [("accounts", &*next), ("accounts", &*day)]);
    let state = |run: &Run, day: i64| run.state(at(day * 86_400 + 5));
    assert_eq!(state(&told[0], 2), RunState::Running);
    assert_eq!(state(&told[1], 2), RunState::PartialSuccess);
    for _ in 0..2 {
        one.forget_runs(&acme, &accounts, 2).await.unwrap();
    }
    let told = other
        .runs(wanted("acme", Some("accounts"), 10))
        .await
        .unwrap();
    assert_eq!(ids(&told), [("accounts", &*next), ("accounts", &*day)]);
    one.forget_runs(&acme, &accounts, 1).await.unwrap();
    has_kept(other).await;
}

/// What [`conforms`] leaves is there when the store is opened again.
pub(super) async fn has_kept(runs: &dyn Runs) {
    let all = RunsWanted {
        limit: 10,
        ..RunsWanted::default()
    };
    let told = runs.runs(all).await.unwrap();
    let mut seen: Vec<_> = told
        .iter()
        .map(|run| (run.connection.as_str(), run.job.as_str(), run.head.began))
        .collect();
    seen.sort_unstable();
    let (day, next) = (at(86_400), at(2 * 86_400));
    assert_eq!(
        seen,
        [
            ("acme", "a-job", day),
            ("acme", "accounts", next),
            ("beta", "accounts", day)
        ]
    );
    assert!(told.iter().all(|run| run.done.counts["rejected"] == 1));
}

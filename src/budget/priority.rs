//! What a call is for, and who goes first.

use std::future::Future;

/// What a call is for; earlier ones go first.
///
/// It is known where work begins and needed where a call is made, with a port and a connector between them: it goes with
/// the task ([`Priority::scope`]), as a trace's span does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Records that are owed, holes, and what a stream needs to begin.
    Repair,
    /// What changed since the last question. Work that says nothing of itself is this.
    Incremental,
    /// Whole reads that a schedule or an operator asked for, the first one too.
    FullSync,
    /// Proofs that source and store agree.
    Verify,
}

tokio::task_local! {
    static WORK: Priority;
}

impl Priority {
    /// All, first to last.
    pub const ALL: [Self; 4] = [
        Self::Repair,
        Self::Incremental,
        Self::FullSync,
        Self::Verify,
    ];

    /// Does `work` whose calls are for this.
    pub async fn scope<W: Future>(self, work: W) -> W::Output {
        WORK.scope(self, work).await
    }

    /// What the calls of the running work are for.
    #[must_use]
    pub fn current() -> Self {
        WORK.try_with(|priority| *priority)
            .unwrap_or(Self::Incremental)
    }

    /// Its name on pages and in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Repair => "repair",
            Self::Incremental => "incremental",
            Self::FullSync => "full_sync",
            Self::Verify => "verify",
        }
    }

    /// Whether it may spend what is kept back of a day's calls.
    #[must_use]
    pub const fn may_use_reserve(self) -> bool {
        matches!(self, Self::Repair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_within_work_says_for_itself_what_it_is_for() {
        assert_eq!(Priority::current(), Priority::Incremental);
        let told = Priority::FullSync
            .scope(async {
                let inner = Priority::Repair.scope(async { Priority::current() }).await;
                (inner, Priority::current())
            })
            .await;
        assert_eq!(told, (Priority::Repair, Priority::FullSync));
        assert!(Priority::ALL.is_sorted());
    }
}

//! Random histories come to what they do in memory, outcome by outcome, also in one batch.

use std::sync::Arc;

use proptest::prelude::*;

use super::Store;
use crate::target::suite::Bench;
use crate::target::suite::history::{
    Memory, apply, changes, cut, cut_by_kind, lasting, picture, plans, policies, run, settle,
    steady, step, whole,
};

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// With all policies, stale versions, rejections.
    #[test]
    fn it_does_what_the_memory_target_does(
        policies in policies(),
        steps in prop::collection::vec(step(), 1..40),
        sizes in prop::collection::vec(1..9_usize, 1..6),
        releases in prop::collection::vec(any::<bool>(), 1..5),
    ) {
        block_on(async {
            let plans = plans(&policies);
            let batches = cut(&steps, &sizes);
            let mut memory = Memory(Arc::default());
            let (due, model) = run(&mut memory, &plans, &batches, &releases).await;
            let mut store = Store::new().await;
            let (told, writer) = run(&mut store, &plans, &batches, &releases).await;
            prop_assert_eq!(&told, &due);
            prop_assert_eq!(picture(&writer).await, picture(&model).await);
            prop_assert_eq!(writer.parked().await, model.parked().await);
            Ok(())
        })?;
    }

    /// J2: what comes again changes nothing, from wherever it is read again, also after a restart.
    #[test]
    fn repetitions_change_nothing(
        policies in lasting(),
        steps in prop::collection::vec(step().prop_map(steady).prop_map(whole), 1..30),
        sizes in prop::collection::vec(1..9_usize, 1..6),
        again in prop::collection::vec(any::<prop::sample::Index>(), 1..3),
    ) {
        block_on(async {
            let plans = plans(&policies);
            let batches = cut_by_kind(&steps, &sizes);
            let changes = changes(&plans, &batches);
            let mut store = Store::new().await;
            let (_, writer) = run(&mut store, &plans, &batches, &[true]).await;
            let due = (picture(&writer).await, writer.parked().await);
            for from in again {
                store.reopen().await;
                let mut writer = writer.again(&store).await;
                for batch in &batches[from.index(batches.len())..] {
                    let rows = batch.iter().flat_map(|(version, step)| step.rows(&plans, *version));
                    apply(&mut writer, rows.collect()).await;
                }
                settle(&mut writer, &changes).await;
                prop_assert_eq!(&(picture(&writer).await, writer.parked().await), &due);
            }
            Ok(())
        })?;
    }
}

//! Random histories come to what they do in memory, whatever the batches (J2), the repetitions, the order (J5).

use std::sync::Arc;

use proptest::prelude::*;

use super::File;
use crate::target::suite::Bench;
use crate::target::suite::history::{
    Memory, apply, changes, cut, cut_by_kind, last_words, lasting, picture, plans, policies, run,
    settle, steady, step, whole,
};

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Outcome by outcome the same as the target in memory, with all policies, stale versions, rejections.
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
            let mut file = File::new().await;
            let (told, writer) = run(&mut file, &plans, &batches, &releases).await;
            prop_assert_eq!(&told, &due);
            prop_assert_eq!(picture(&writer).await, picture(&model).await);
            prop_assert_eq!(writer.parked().await, model.parked().await);
            Ok(())
        })?;
    }

    /// J2: the same rows, whatever the batches.
    #[test]
    fn batches_do_not_matter(
        policies in lasting(),
        steps in prop::collection::vec(step().prop_map(steady), 1..40),
        sizes in prop::collection::vec(1..9_usize, 1..6),
    ) {
        block_on(async {
            let plans = plans(&policies);
            let mut pictures = Vec::new();
            for sizes in [&[1][..], &sizes, &[100]] {
                let mut file = File::new().await;
                let batches = cut_by_kind(&steps, sizes);
                let (_, writer) = run(&mut file, &plans, &batches, &[true]).await;
                pictures.push(picture(&writer).await);
            }
            prop_assert_eq!(&pictures[0], &pictures[1]);
            prop_assert_eq!(&pictures[0], &pictures[2]);
            Ok(())
        })?;
    }

    /// J2: what comes again changes nothing, from wherever it is read again, also after a restart.
    #[test]
    fn repetitions_change_nothing(
        policies in lasting(),
        steps in prop::collection::vec(step().prop_map(steady).prop_map(whole), 1..40),
        sizes in prop::collection::vec(1..9_usize, 1..6),
        again in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        block_on(async {
            let plans = plans(&policies);
            let batches = cut_by_kind(&steps, &sizes);
            let changes = changes(&plans, &batches);
            let mut file = File::new().await;
            let (_, writer) = run(&mut file, &plans, &batches, &[true]).await;
            let due = (picture(&writer).await, writer.parked().await);
            for from in again {
                file.reopen().await;
                let mut writer = writer.again(&file).await;
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

    /// J5: children and parents come to the same in any order.
    #[test]
    fn the_order_of_children_and_parents_does_not_matter(
        policies in lasting(),
        (steps, shuffled) in last_words().prop_flat_map(|steps| (Just(steps.clone()), Just(steps).prop_shuffle())),
        sizes in prop::collection::vec(1..5_usize, 1..4),
        releases in prop::collection::vec(any::<bool>(), 1..5),
    ) {
        block_on(async {
            let plans = plans(&policies);
            let mut pictures = Vec::new();
            for (steps, sizes) in [(&steps, &[100][..]), (&shuffled, &sizes)] {
                let mut file = File::new().await;
                let batches = cut(steps, sizes);
                let (_, mut writer) = run(&mut file, &plans, &batches, &releases).await;
                settle(&mut writer, &changes(&plans, &batches)).await;
                let mut picture = picture(&writer).await;
                for told in picture.values_mut() {
                    // The version is the place in the history.
                    *told = told.split_off(22);
                }
                pictures.push((picture, writer.parked().await));
            }
            prop_assert_eq!(&pictures[0], &pictures[1]);
            Ok(())
        })?;
    }
}

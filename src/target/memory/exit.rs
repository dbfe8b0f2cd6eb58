//! How a record leaves its row in the memory target: kept, marked, deleted.

use uuid::Uuid;

use super::apply::{Item, Run};
use super::ledger::{Entry, Standing};
use super::tables::{STATE, STATE_AT};
use crate::mapping::plan::Cell;
use crate::model::policy::OnExit;
use crate::target::port::Outcome;

pub(super) const DELETED: &str = "deleted";
pub(super) const FILTERED: &str = "filtered";

/// Applies a delete or a filter exit.
pub(super) fn leave(
    run: &mut Run,
    item: &Item,
    entry: Option<Entry>,
    policy: OnExit,
    state: &'static str,
) -> Outcome {
    let version = item.row.version;
    let (gsid, standing) = match entry {
        Some(Entry {
            gsid: Some(gsid),
            standing,
            ..
        }) if standing != Standing::Gone => (gsid, standing),
        Some(gone) => {
            run.tx
                .put_entry(item.own.clone(), Entry { version, ..gone });
            return Outcome::Ignored;
        }
        None => {
            let gone = Entry {
                gsid: None,
                version,
                standing: Standing::Gone,
            };
            run.tx.put_entry(item.own.clone(), gone);
            return Outcome::Ignored;
        }
    };
    match policy {
        OnExit::Keep | OnExit::Mark => run.carry_references(item),
        OnExit::Delete => run.clear_references(item),
    }
    match policy {
        OnExit::Keep => {
            run.associate(item, gsid, standing);
            Outcome::Ignored
        }
        OnExit::Mark => {
            let at = match (item.row.committed_at, standing) {
                (Some(at), _) => at,
                (None, Standing::Marked(at, held)) if held == state => at,
                (None, _) => run.batch.now,
            };
            run.associate(item, gsid, Standing::Marked(at, state));
            show_standing(run, item, gsid);
            Outcome::Marked
        }
        OnExit::Delete => {
            run.associate(item, gsid, Standing::Gone);
            show_standing(run, item, gsid);
            if item.layout.plan.is_looked_up {
                run.tx.leave(item.own.connection.clone(), gsid);
            }
            Outcome::Deleted
        }
    }
}

/// Leaves a row for another one.
pub(super) fn let_go(run: &mut Run, item: &Item, left: Uuid, policy: OnExit) {
    match policy {
        OnExit::Keep => {}
        OnExit::Delete => show_standing(run, item, left),
        OnExit::Mark => {
            let table = &item.own.table;
            if run.tx.store.ledger.standing_of(table, left) == Standing::Gone {
                let at = item.row.committed_at.unwrap_or(run.batch.now);
                show(run, item, left, Standing::Marked(at, DELETED));
            } else {
                show_standing(run, item, left);
            }
        }
    }
}

/// Makes a row say what those who hold it are; without any it goes.
fn show_standing(run: &mut Run, item: &Item, gsid: Uuid) {
    let standing = run.tx.store.ledger.standing_of(&item.own.table, gsid);
    show(run, item, gsid, standing);
}

fn show(run: &mut Run, item: &Item, gsid: Uuid, standing: Standing) {
    let table = &item.own.table;
    let held = run.tx.store.tables.get(table);
    let Some(mut cells) = held.and_then(|held| held.get(gsid)).cloned() else {
        return;
    };
    (cells[STATE], cells[STATE_AT]) = match standing {
        Standing::Gone => return run.tx.put_row(table, gsid, None),
        Standing::Present => (Cell::Null, Cell::Null),
        Standing::Marked(at, state) => (Cell::Text(state.into()), Cell::DateTime(at)),
    };
    run.tx.write(table, gsid, cells, run.batch.now);
}

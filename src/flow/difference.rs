//! The difference between two stores, record by record: what a job wrote into one, and what into the other.
//!
//! Rows are compared by the records that hold them. GSIDs differ from store to store, so a looked-up row is
//! compared by its holders; `created_date`, `modified_date` and `crm_state_at` tell of the writing and are left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use crate::fault::Fault;
use crate::mapping::plan::{Cell, DestinationPlan};
use crate::model::name::ObjectKey;
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::target::beside::{HeldRow, Holder, StoreBeside};
use crate::target::port::StoredRow;

/// Records compared at a time.
const PAGE: usize = 500;

/// What was found of one destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Records that both stores know at one version, and compare equal.
    pub equal: u64,
    /// Records that both know at one version, and that differ.
    pub different: u64,
    /// Records with a row in the first store alone.
    pub only_first: u64,
    /// Records with a row in the second store alone.
    pub only_second: u64,
    /// Records that one store knows at another version, or that came after the second store's end.
    pub moved_on: u64,
    /// In how many records each column differs.
    pub columns: BTreeMap<String, u64>,
}

impl Compared {
    /// Whether both stores agree on everything that they know alike.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        self.different == 0 && self.only_first == 0 && self.only_second == 0
    }
}

/// One record that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The record.
    pub record: RecordId,
    /// How.
    pub how: How,
}

/// How a record differs.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// It has a row in the first store alone.
    OnlyFirst,
    /// It has a row in the second store alone.
    OnlySecond,
    /// Columns have other values.
    Columns(Vec<ColumnDifference>),
}

/// A column's two values, as JSON; a looked-up row as the records that hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDifference {
    /// The column.
    pub column: String,
    /// In the first store.
    pub first: serde_json::Value,
    /// In the second store.
    pub second: serde_json::Value,
}

/// Which records count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those that the second store knows.
    KnownToSecond,
}

/// Compares what the records of an object are to one destination in two stores; `tell` gets what differs, in the
/// order of record ids. Memory is that of two pages.
///
/// # Errors
/// A fault of one of the stores.
pub async fn compare(
    (first, second): (&dyn StoreBeside, &dyn StoreBeside),
    key: &ObjectKey,
    plan: &DestinationPlan,
    scope: Scope,
    mut tell: impl FnMut(Difference),
) -> Result<Compared, Fault> {
    let mut compared = Compared::default();
    let newest = second.newest(key).await?;
    let mut left = Side::new(first, key, &plan.table);
    let mut right = Side::new(second, key, &plan.table);
    loop {
        let pairs = next_pairs(&mut left, &mut right, scope).await?;
        if pairs.is_empty() {
            return Ok(compared);
        }
        let names = (
            names_of(
                first,
                plan,
                pairs.iter().filter_map(|(held, _)| held.as_ref()),
            )
            .await?,
            names_of(
                second,
                plan,
                pairs.iter().filter_map(|(_, held)| held.as_ref()),
            )
            .await?,
        );
        for pair in pairs {
            if let Some(difference) = judge(plan, pair, &names, newest, &mut compared) {
                tell(difference);
            }
        }
    }
}

/// Two entries of one record, or one of them.
type Pair = (Option<HeldRow>, Option<HeldRow>);

/// A store's entries, page by page.
struct Side<'a> {
    store: &'a dyn StoreBeside,
    key: &'a ObjectKey,
    table: &'a str,
    page: VecDeque<HeldRow>,
    last: Option<RecordId>,
    is_over: bool,
}

impl<'a> Side<'a> {
    const fn new(store: &'a dyn StoreBeside, key: &'a ObjectKey, table: &'a str) -> Self {
        Self {
            store,
            key,
            table,
            page: VecDeque::new(),
            last: None,
            is_over: false,
        }
    }

    async fn fill(&mut self) -> Result<(), Fault> {
        if !self.page.is_empty() || self.is_over {
            return Ok(());
        }
        let page = self
            .store
            .held(self.key, self.table, self.last.as_ref(), PAGE)
            .await?;
        self.is_over = page.len() < PAGE;
        self.last = page
            .last()
            .map(|held| held.record.clone())
            .or(self.last.take());
        self.page = page.into();
        Ok(())
    }
}

/// Up to a page of pairs, in the order of record ids; none at the end of both sides.
async fn next_pairs(
    left: &mut Side<'_>,
    right: &mut Side<'_>,
    scope: Scope,
) -> Result<Vec<Pair>, Fault> {
    let mut pairs = Vec::with_capacity(PAGE);
    while pairs.len() < PAGE {
        left.fill().await?;
        right.fill().await?;
        let order = match (left.page.front(), right.page.front()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(left), Some(right)) => left.record.as_str().cmp(right.record.as_str()),
        };
        let pair = (
            order.is_le().then(|| left.page.pop_front()).flatten(),
            order.is_ge().then(|| right.page.pop_front()).flatten(),
        );
        if scope == Scope::All || pair.1.is_some() {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

/// Who holds the rows that looked-up columns name, by table and GSID.
type Names = BTreeMap<(String, Uuid), Vec<Holder>>;

async fn names_of(
    store: &dyn StoreBeside,
    plan: &DestinationPlan,
    held: impl Iterator<Item = &HeldRow>,
) -> Result<Names, Fault> {
    let mut wanted: BTreeMap<&str, BTreeSet<Uuid>> = BTreeMap::new();
    for row in held.filter_map(|held| held.row.as_ref()) {
        for derive in &plan.derives {
            if let Some(Cell::Gsid(gsid)) = cell(row, &derive.column) {
                wanted.entry(&derive.table).or_default().insert(*gsid);
            }
        }
    }
    let mut names = Names::new();
    for (table, gsids) in wanted {
        let gsids: Vec<Uuid> = gsids.into_iter().collect();
        for (gsid, holders) in store.holders(table, &gsids).await? {
            names.insert((table.to_owned(), gsid), holders);
        }
    }
    Ok(names)
}

fn cell<'a>(row: &'a StoredRow, column: &str) -> Option<&'a Cell> {
    let mut columns = row.columns.iter();
    columns
        .find(|(name, _)| name == column)
        .map(|(_, cell)| cell)
}

fn judge(
    plan: &DestinationPlan,
    pair: Pair,
    names: &(Names, Names),
    newest: Option<Version>,
    compared: &mut Compared,
) -> Option<Difference> {
    let (first, second) = &pair;
    let record = first.as_ref().or(second.as_ref())?.record.clone();
    let has_moved_on = match (first, second) {
        (Some(first), Some(second)) => first.version != second.version,
        // The second store ends before this record began.
        (Some(first), None) => Some(first.version) > newest,
        (None, _) => false,
    };
    if has_moved_on {
        compared.moved_on += 1;
        return None;
    }
    let rows = (
        first.as_ref().and_then(|held| held.row.as_ref()),
        second.as_ref().and_then(|held| held.row.as_ref()),
    );
    let how = match rows {
        (None, None) => {
            compared.equal += 1;
            return None;
        }
        (Some(_), None) => {
            compared.only_first += 1;
            How::OnlyFirst
        }
        (None, Some(_)) => {
            compared.only_second += 1;
            How::OnlySecond
        }
        (Some(first), Some(second)) => {
            let columns = columns_of(plan)
                .filter_map(|(column, table)| {
                    let first = shown(first, column, table, &names.0);
                    let second = shown(second, column, table, &names.1);
                    (first != second).then(|| ColumnDifference {
                        column: column.to_owned(),
                        first,
                        second,
                    })
                })
                .collect::<Vec<_>>();
            if columns.is_empty() {
                compared.equal += 1;
                return None;
            }
            compared.different += 1;
            for column in &columns {
                *compared.columns.entry(column.column.clone()).or_default() += 1;
            }
            How::Columns(columns)
        }
    };
    Some(Difference { record, how })
}

/// What the job writes, and `crm_state`; looked-up columns with their table.
fn columns_of(plan: &DestinationPlan) -> impl Iterator<Item = (&str, Option<&str>)> {
    let direct = plan.columns.iter().map(|column| (&*column.name, None));
    let derived = plan
        .derives
        .iter()
        .map(|derive| (&*derive.column, Some(&*derive.table)));
    direct.chain(derived).chain([("crm_state", None)])
}

fn shown(row: &StoredRow, column: &str, table: Option<&str>, names: &Names) -> serde_json::Value {
    match (cell(row, column), table) {
        (None, _) => serde_json::Value::Null,
        (Some(Cell::Gsid(gsid)), Some(table)) => {
            match names.get(&(table.to_owned(), *gsid)) {
                // A row that nobody holds has no name but its own.
                None => gsid.to_string().into(),
                Some(holders) => holders
                    .iter()
                    .map(|holder| {
                        format!("{}/{}/{}", holder.connection, holder.object, holder.record)
                    })
                    .collect::<Vec<_>>()
                    .join(" ")
                    .into(),
            }
        }
        (Some(cell), _) => cell.to_json(),
    }
}

//! Rows of a table by filter, order and page, with what they are expanded by.

use std::sync::Arc;

use super::super::cell::Cell;
use super::super::error::ApiError;
use super::super::guid::Guid;
use super::super::node::Node;
use super::super::odata::bind::{self, Bound, Reach};
use super::super::odata::evaluate;
use super::super::odata::functions::Moment;
use super::super::odata::options::{Expansion, Options};
use super::super::odata::parser;
use super::super::org::Org;
use super::super::schema::{Column, Table};
use super::super::store::{Row, Rows, Store};
use super::page::{Cookie, LARGEST, Prefer, digest};
use super::rows::{Selection, members, selection};
use super::{Caller, ROOT};

/// What a request asks of a table, bound to its columns.
pub(crate) struct Plan {
    pub selection: Selection,
    pub filter: Option<Bound>,
    order: Vec<(Reach, Column, bool)>,
    expand: Vec<Branch>,
}

/// A navigation property to follow.
struct Branch {
    navigation: String,
    /// The table and what is shown of it, for each target.
    to: Vec<(Arc<Table>, Plan)>,
    way: Way,
    options: Options,
}

enum Way {
    /// The row that this lookup names.
    Single(usize),
    /// The rows whose lookup names this one.
    Many(usize),
}

/// What stays the same for all rows of an answer.
pub(crate) struct Scene<'s> {
    pub org: &'s Org,
    pub store: &'s Store,
    pub prefer: &'s Prefer,
    pub moment: Moment,
}

impl<'s> Scene<'s> {
    pub fn new(org: &'s Org, store: &'s Store, caller: Caller, prefer: &'s Prefer) -> Self {
        let moment = Moment {
            now: org.clock.now(),
            user: caller.user,
            business_unit: org.profile.business_unit,
        };
        Self {
            org,
            store,
            prefer,
            moment,
        }
    }
}

impl Plan {
    /// Binds options to a table; `nested` within a collection that is expanded itself.
    pub fn bind(
        store: &Store,
        table: &Table,
        options: &Options,
        nested: bool,
    ) -> Result<Self, ApiError> {
        let filter = match &options.filter {
            Some(text) => Some(bind::bind(store, table, parser::parse(text)?)?),
            None => None,
        };
        let mut order = Vec::new();
        for (name, descending) in &options.order {
            let path: Vec<String> = name.split('/').map(str::to_owned).collect();
            let (reach, column) = bind::reach(store, table, &path)?;
            order.push((reach, column, *descending));
        }
        let expand = options
            .expand
            .iter()
            .map(|expansion| Branch::bind(store, table, expansion, nested));
        Ok(Self {
            selection: selection(table, options.select.as_ref())?,
            filter,
            order,
            expand: expand.collect::<Result<_, _>>()?,
        })
    }

    /// A row with its expansions.
    pub fn show(&self, scene: &Scene<'_>, table: &Table, id: Guid, row: &Row) -> Node {
        let mut members = members(scene.store, table, row, &self.selection, scene.prefer);
        for branch in &self.expand {
            branch.show(scene, table, id, row, &mut members);
        }
        Node::Object(members)
    }

    fn fits(&self, scene: &Scene<'_>, id: Guid, row: &Row) -> bool {
        let holds = |bound| evaluate::holds(scene.store, &scene.moment, (id, row), bound);
        self.filter.as_ref().is_none_or(holds)
    }

    fn key(&self, store: &Store, id: Guid, row: &Row) -> Vec<Cell> {
        let mut key: Vec<_> = self
            .order
            .iter()
            .map(|(reach, _, _)| evaluate::reached(store, row, reach))
            .collect();
        key.push(Cell::Id(id));
        key
    }

    fn descending(&self) -> Vec<bool> {
        self.order
            .iter()
            .map(|(_, _, descending)| *descending)
            .chain([false])
            .collect()
    }

    /// The rows that fit, in order, from behind a key on; at most `limit`, if nothing is ordered.
    fn rows<'r>(
        &self,
        scene: &Scene<'_>,
        rows: &'r Rows,
        after: Option<&[Cell]>,
        limit: usize,
    ) -> Vec<(Guid, &'r Arc<Row>)> {
        let fits = |(id, row): &(Guid, &Arc<Row>)| self.fits(scene, *id, row);
        if self.order.is_empty() {
            let from = after.and_then(|key| key.last()).and_then(Cell::id);
            return rows.rows_after(from).filter(fits).take(limit).collect();
        }
        let descending = self.descending();
        let mut keyed: Vec<_> = rows
            .rows()
            .filter(fits)
            .map(|(id, row)| (self.key(scene.store, id, row), id, row))
            .collect();
        keyed.sort_by(|a, b| evaluate::ordered(&a.0, &b.0, &descending));
        let behind = |key: &[Cell]| {
            after.is_none_or(|after| evaluate::ordered(key, after, &descending).is_gt())
        };
        keyed
            .into_iter()
            .filter(|(key, _, _)| behind(key))
            .map(|(_, id, row)| (id, row))
            .take(limit)
            .collect()
    }

    /// Where a page ended, as a cookie holds it.
    fn mark(&self, scene: &Scene<'_>, table: &Table, id: Guid, row: &Row) -> Vec<(String, String)> {
        let cells = self.key(scene.store, id, row);
        let names = (0..self.order.len())
            .map(|place| format!("sort{place}"))
            .chain([table.primary_id.clone()]);
        let text = |cell: &Cell| match cell {
            Cell::Null => String::new(),
            Cell::Text(text) => format!("={text}"),
            other => format!("={}", other.json().text().trim_matches('"')),
        };
        names.zip(cells.iter().map(text)).collect()
    }

    /// The key behind which a page begins.
    fn after(&self, table: &Table, cookie: &Cookie) -> Result<Vec<Cell>, ApiError> {
        let wrong = || ApiError::odata("Malformed XML in the Paging Cookie");
        let mut key = Vec::new();
        for (place, (_, column, _)) in self.order.iter().enumerate() {
            let text = cookie.value(&format!("sort{place}")).ok_or_else(wrong)?;
            key.push(match text.strip_prefix('=') {
                None => Cell::Null,
                Some(text) => Cell::parse(column, text).map_err(|_| wrong())?,
            });
        }
        let id = cookie
            .value(&table.primary_id)
            .and_then(|text| text.strip_prefix('=')?.parse().ok());
        key.push(Cell::Id(id.ok_or_else(wrong)?));
        Ok(key)
    }
}

impl Branch {
    fn bind(
        store: &Store,
        table: &Table,
        expansion: &Expansion,
        nested: bool,
    ) -> Result<Self, ApiError> {
        let (name, options) = (&expansion.navigation, &expansion.options);
        let missing = || ApiError::no_property(name, &table.type_name());
        if let Some((place, targets)) = table.navigation(name) {
            if options.filter.is_some() || !options.order.is_empty() || options.top.is_some() {
                return Err(ApiError::odata(format!(
                    "Only $select and $expand can be given for the single-valued navigation property '{name}'."
                )));
            }
            // An owner's property leads to a `principal`, which has no columns but its id.
            let mut named = options.select.iter().flatten();
            let foreign = named.find(|column| *column != "ownerid");
            let foreign = foreign.or(options.expand.first().map(|next| &next.navigation));
            if let Some(foreign) = foreign.filter(|_| targets.len() > 1) {
                return Err(ApiError::no_property(
                    foreign,
                    "Microsoft.Dynamics.CRM.principal",
                ));
            }
            let mut to = Vec::new();
            for target in targets {
                let rows = store.table(&target.table).ok_or_else(missing)?;
                to.push((
                    Arc::clone(&rows.table),
                    Plan::bind(store, &rows.table, options, nested)?,
                ));
            }
            return Ok(Self {
                navigation: name.clone(),
                to,
                way: Way::Single(place),
                options: options.clone(),
            });
        }
        let (child, place) = bind::collection(store, table, name).ok_or_else(missing)?;
        if nested && (!options.order.is_empty() || options.top.is_some()) {
            return Err(ApiError::odata(
                "$orderby and $top are not supported in nested expansions of collections.",
            ));
        }
        let plan = Plan::bind(store, &child, options, true)?;
        Ok(Self {
            navigation: name.clone(),
            to: vec![(child, plan)],
            way: Way::Many(place),
            options: options.clone(),
        })
    }

    fn show(
        &self,
        scene: &Scene<'_>,
        table: &Table,
        id: Guid,
        row: &Row,
        members: &mut Vec<(String, Node)>,
    ) {
        match self.way {
            Way::Single(place) => {
                let found = match row.cell(place) {
                    Cell::Ref(target, id) => self
                        .to
                        .iter()
                        .find(|(table, _)| table.name == **target)
                        .and_then(|(table, plan)| {
                            let row = scene.store.table(&table.name)?.row(*id)?;
                            Some(plan.show(scene, table, *id, row))
                        }),
                    _ => None,
                };
                members.push((
                    self.navigation.clone(),
                    found.unwrap_or(Node::Value(serde_json::Value::Null)),
                ));
            }
            Way::Many(place) => {
                let Some((child, plan)) = self.to.first() else {
                    return;
                };
                let Some(rows) = scene.store.table(&child.name) else {
                    return;
                };
                let most = self
                    .options
                    .top
                    .unwrap_or(LARGEST)
                    .min(scene.prefer.page.unwrap_or(LARGEST));
                let mine = plan
                    .rows(scene, rows, None, usize::MAX)
                    .into_iter()
                    .filter(|(_, row)| row.cell(place).id() == Some(id));
                let mine: Vec<_> = mine.take(most + 1).collect();
                let shown = mine
                    .iter()
                    .take(most)
                    .map(|(id, row)| plan.show(scene, child, *id, row))
                    .collect();
                members.push((self.navigation.clone(), Node::Array(shown)));
                if let (Some((last, row)), None) = (
                    mine.get(most).and(mine.get(most.wrapping_sub(1))),
                    self.options.top,
                ) {
                    let cookie = Cookie {
                        number: 2,
                        tracking: false,
                        last: plan.mark(scene, child, *last, row),
                        digest: digest(&self.options),
                    };
                    let path = format!("{}({id})/{}", table.set, self.navigation);
                    let link = next_link(scene.org, &path, &self.options, &cookie);
                    members.push((
                        format!("{}@odata.nextLink", self.navigation),
                        Node::from(link),
                    ));
                }
            }
        }
    }
}

/// The count of the rows that fit, and whether it stopped at the limit.
pub(crate) fn counted(
    scene: &Scene<'_>,
    rows: &Rows,
    plan: &Plan,
    only: Option<(usize, Guid)>,
) -> (usize, bool) {
    let mine = |row: &Row| only.is_none_or(|(place, id)| row.cell(place).id() == Some(id));
    let mut fitting = rows
        .rows()
        .filter(|(id, row)| mine(row) && plan.fits(scene, *id, row));
    let count = fitting.by_ref().take(LARGEST).count();
    (count, count == LARGEST && fitting.next().is_some())
}

/// A page of rows: the body of an answer.
pub(crate) fn page(
    scene: &Scene<'_>,
    rows: &Rows,
    options: &Options,
    path: &str,
    only: Option<(usize, Guid)>,
) -> Result<Node, ApiError> {
    let table = &rows.table;
    let plan = Plan::bind(scene.store, table, options, false)?;
    let cookie = options
        .skip_token
        .as_deref()
        .map(|text| Cookie::read(text, options))
        .transpose()?;
    let after = cookie
        .as_ref()
        .map(|cookie| plan.after(table, cookie))
        .transpose()?;
    // With a page size, $top means nothing.
    let top = options.top.filter(|_| scene.prefer.page.is_none());
    let size = top.or(scene.prefer.page).unwrap_or(LARGEST).min(LARGEST);
    let found: Vec<_> = match only {
        None => plan.rows(scene, rows, after.as_deref(), size + 1),
        Some((place, id)) => {
            let all = plan
                .rows(scene, rows, after.as_deref(), usize::MAX)
                .into_iter();
            all.filter(|(_, row)| row.cell(place).id() == Some(id))
                .take(size + 1)
                .collect()
        }
    };
    let shown: Vec<_> = found
        .iter()
        .take(size)
        .map(|(id, row)| plan.show(scene, table, *id, row))
        .collect();
    let mut body = vec![(
        "@odata.context".to_owned(),
        Node::from(context(scene.org, table, &plan.selection, "")),
    )];
    if options.count {
        let (count, limited) = counted(scene, rows, &plan, only);
        body.push(("@odata.count".to_owned(), Node::from(count)));
        let (total, exceeded) = (
            "Microsoft.Dynamics.CRM.totalrecordcount",
            "Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded",
        );
        if scene.prefer.annotated(total) {
            body.push((format!("@{total}"), Node::from(count)));
        }
        if scene.prefer.annotated(exceeded) {
            body.push((format!("@{exceeded}"), Node::from(limited)));
        }
    }
    versioned(scene, &mut body);
    body.push(("value".to_owned(), Node::Array(shown)));
    if found.len() > size
        && top.is_none()
        && let Some((id, row)) = size.checked_sub(1).and_then(|last| found.get(last))
    {
        let cookie = Cookie {
            number: cookie.map_or(1, |cookie| cookie.number) + 1,
            tracking: false,
            last: plan.mark(scene, table, *id, row),
            digest: digest(options),
        };
        body.push((
            "@odata.nextLink".to_owned(),
            Node::from(next_link(scene.org, path, options, &cookie)),
        ));
    }
    Ok(Node::Object(body))
}

/// The annotation that changes with every definition.
pub(crate) fn versioned(scene: &Scene<'_>, body: &mut Vec<(String, Node)>) {
    let name = "Microsoft.Dynamics.CRM.globalmetadataversion";
    if scene.prefer.annotated(name) {
        body.push((
            format!("@{name}"),
            Node::from(scene.store.metadata.to_string()),
        ));
    }
}

/// `@odata.context` of rows.
pub(crate) fn context(org: &Org, table: &Table, selection: &Selection, ending: &str) -> String {
    let columns = match selection.names.is_empty() {
        true => String::new(),
        false => format!("({})", selection.names.join(",")),
    };
    format!(
        "{}{ROOT}$metadata#{}{columns}{ending}",
        org.url(),
        table.set
    )
}

/// An absolute link to the next page.
pub(crate) fn next_link(org: &Org, path: &str, options: &Options, cookie: &Cookie) -> String {
    let token = super::super::odata::percent::encode(&cookie.text());
    let mut link = options.link();
    if let Some(delta) = &options.delta_token {
        let pair = format!(
            "$deltatoken={}",
            super::super::odata::percent::encode(delta)
        );
        link = if link.is_empty() {
            pair
        } else {
            format!("{link}&{pair}")
        };
    }
    let before = if link.is_empty() {
        String::new()
    } else {
        format!("{link}&")
    };
    format!("{}{ROOT}{path}?{before}$skiptoken={token}", org.url())
}

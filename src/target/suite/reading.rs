//! The suite on tables and what is read back: ensure, prepare, rows, trace, parked.

use std::sync::Arc;

use super::Bench;
use super::plans::{
    by, by_id, company, deleted, job, object, objects, on, person, plan, row, text,
};
use super::world::{Writer, begin, every, start};
use crate::fault::FaultKind;
use crate::mapping::plan::Cell;
use crate::model::record_id::RecordId;
use crate::model::stored::StoredType;
use crate::model::version::Version;
use crate::target::port::{RowsPage, StoredRow, Target};

pub async fn ensure_adds_and_drops_nothing(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    writer.one(row(&plan, "a", 1).text("name", "Acme")).await;
    let wider = object(
        "company",
        &[
            ("name", StoredType::String),
            ("industry", StoredType::Picklist),
        ],
    );
    let new = object("case", &[("number", StoredType::String)]);
    let target = bench.target();
    target.ensure(&[wider.clone(), new.clone()]).await.unwrap();
    target.ensure(&[wider, new]).await.unwrap();
    let rows = writer.all("company").await;
    assert_eq!(rows[0].cell("name"), text("Acme"));
    assert_eq!(
        rows[0].cell("employees"),
        Cell::Null,
        "a column left out stays"
    );
    assert_eq!(rows[0].cell("industry"), Cell::Null);
    assert!(writer.all("case").await.is_empty());
    // New columns are written, also of rows that were there before.
    let industry = [
        ("name", StoredType::String),
        ("industry", StoredType::Picklist),
    ];
    let wide = Arc::new(super::plans::plan("company", &industry));
    writer
        .one(
            row(&wide, "a", 2)
                .text("name", "Acme")
                .text("industry", "Energy"),
        )
        .await;
    bench.reopen().await;
    let rows = every(&*bench.target(), "company").await;
    assert_eq!(rows[0].cell("industry"), text("Energy"));
}

pub async fn a_column_of_another_type_is_refused(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    writer
        .one(row(&plan, "a", 1).number("employees", "7"))
        .await;
    bench.reopen().await;
    let target = bench.target();
    for ty in [
        StoredType::String,
        StoredType::Boolean,
        StoredType::Date,
        StoredType::Gsid,
    ] {
        let changed = object("company", &[("employees", ty)]);
        let refused = target.ensure(&[changed]).await.unwrap_err();
        assert_eq!(refused.kind(), FaultKind::Config, "{ty:?}");
        let told = refused.report();
        assert!(
            told.contains("employees") && told.contains("company"),
            "{told}"
        );
    }
    let rows = every(&*target, "company").await;
    assert_eq!(rows[0].cell("employees"), Cell::Number("7".into()));
}

pub async fn prepare_may_be_called_again(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let keys = vec![
        on("external_id", StoredType::String),
        on("name", StoredType::String),
    ];
    let persons = person()
        .derive(by("company", "company", keys))
        .derive(by_id("manager", "person"));
    let (companies, persons) = (Arc::new(company()), Arc::new(persons));
    let plan = job("acme", "sync", &[&companies, &persons]);
    let target = bench.target();
    target.prepare(&plan).await.unwrap();
    writer
        .one(
            row(&companies, "c", 1)
                .text("external_id", "k")
                .text("name", "Acme"),
        )
        .await;
    target.prepare(&plan).await.unwrap();
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    bench.target().prepare(&plan).await.unwrap();
    writer
        .one(row(&persons, "p", 1).to("company", &["k", "Acme"]))
        .await;
    let company = writer.gsid_of("company", "c").await;
    assert_eq!(
        writer.cell_of("person", "p", "company").await,
        Cell::Gsid(company)
    );
    let nowhere = Arc::new(super::plans::plan("nowhere", &[]));
    let missing = job("acme", "sync", &[&nowhere]);
    let refused = bench.target().prepare(&missing).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Missing);
}

async fn page(target: &dyn Target, limit: usize, offset: usize) -> Vec<StoredRow> {
    let page = RowsPage {
        limit,
        offset,
        filter: Vec::new(),
    };
    target.rows("company", page).await.unwrap()
}

fn names(rows: &[StoredRow]) -> Vec<String> {
    let name = |row: &StoredRow| match row.cell("name") {
        Cell::Text(text) => text.to_string(),
        other => panic!("{other:?}"),
    };
    rows.iter().map(name).collect()
}

pub async fn rows_come_newest_first_in_pages(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(company());
    let named = |n: u64, version: u64| {
        let row = row(&plan, &n.to_string(), version).text("external_id", &n.to_string());
        row.text("name", &n.to_string())
            .number("employees", &version.to_string())
    };
    writer.send((0..103).map(|n| named(n, 1))).await;
    writer.one(named(5, 2)).await;
    writer.one(named(3, 2)).await;
    let target = bench.target();
    assert_eq!(names(&page(&*target, 3, 0).await)[..2], ["3", "5"]);
    assert_eq!(page(&*target, 0, 0).await.len(), 100, "0 means 100");
    let mut all = Vec::new();
    for offset in [0, 40, 80] {
        all.extend(page(&*target, 40, offset).await);
    }
    assert_eq!(all.len(), 103);
    let order = |row: &StoredRow| match row.cell("modified_date") {
        Cell::DateTime(at) => (at, row.gsid),
        other => panic!("{other:?}"),
    };
    assert!(all.is_sorted_by(|a, b| order(a) > order(b)));
    assert!(page(&*target, 40, 103).await.is_empty());
}

pub async fn rows_are_filtered_by_columns(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let columns = [
        ("name", StoredType::String),
        ("amount", StoredType::Currency),
        ("active", StoredType::Boolean),
        ("day", StoredType::Date),
        ("at", StoredType::DateTime),
        ("owner", StoredType::Gsid),
    ];
    writer
        .target
        .ensure(&[object("case", &columns)])
        .await
        .unwrap();
    let cases = Arc::new(plan("case", &columns));
    let gsid = uuid::Uuid::from_u128(77);
    let day = start().date_naive();
    writer
        .send([
            row(&cases, "a", 1)
                .text("name", "it's")
                .number("amount", "12345678901234567890.10")
                .cell("active", Cell::Boolean(true))
                .cell("day", Cell::Date(day))
                .cell("at", Cell::DateTime(start()))
                .cell("owner", Cell::Gsid(gsid)),
            row(&cases, "b", 1)
                .text("name", "b")
                .cell("active", Cell::Boolean(false)),
            row(&cases, "c", 1).text("name", ""),
        ])
        .await;
    let own = writer.gsid_of("case", "a").await;
    let target = bench.target();
    let find = async |filter: &[(&str, &str)]| {
        let page = RowsPage {
            filter: filter
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..RowsPage::default()
        };
        target.rows("case", page).await
    };
    for (column, value) in [
        ("name", "it's"),
        ("amount", "12345678901234567890.10"),
        ("active", "true"),
        ("day", "2026-01-05"),
        ("at", "2026-01-05T10:11:12Z"),
        ("owner", "00000000-0000-0000-0000-00000000004d"),
        ("gsid", &own.to_string()),
    ] {
        let rows = find(&[(column, value)]).await.unwrap();
        assert_eq!(rows.len(), 1, "{column}");
        assert_eq!(rows[0].gsid, own, "{column}");
    }
    assert_eq!(
        find(&[("active", "false"), ("name", "b")])
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        find(&[("active", "true"), ("name", "b")])
            .await
            .unwrap()
            .len(),
        0
    );
    assert_eq!(
        find(&[("name", "")]).await.unwrap().len(),
        1,
        "an empty text is one"
    );
    assert_eq!(
        find(&[("owner", "")]).await.unwrap().len(),
        0,
        "a null equals none"
    );
    let refused = find(&[("nowhere", "x")]).await.unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Missing);
    assert!(refused.report().contains("nowhere"), "{refused}");
    let refused = target
        .rows("missing", RowsPage::default())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), FaultKind::Missing);
    assert!(refused.report().contains("missing"), "{refused}");
}

pub async fn a_row_shows_every_column(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    writer.one(row(&Arc::new(company()), "a", 1)).await;
    let rows = writer.all("company").await;
    let own = [
        "gsid",
        "created_date",
        "modified_date",
        "crm_state",
        "crm_state_at",
    ];
    let objects = objects();
    let fields = objects[0].fields.iter().map(|field| field.column.as_str());
    let mut due: Vec<_> = own.into_iter().chain(fields).collect();
    let mut shown: Vec<_> = rows[0]
        .columns
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    due.sort_unstable();
    shown.sort_unstable();
    assert_eq!(shown, due);
    assert_eq!(rows[0].cell("gsid"), Cell::Gsid(rows[0].gsid));
    assert_eq!(rows[0].gsid.get_version_num(), 7, "GSIDs are UUIDv7");
}

pub async fn a_record_is_traced_through_its_tables(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let companies = Arc::new(company());
    let persons = Arc::new(
        person()
            .derive(by_id("manager", "person"))
            .derive(by_id("company", "company")),
    );
    writer
        .send([
            row(&persons, "a", 3)
                .to("manager", &["x"])
                .to("company", &["y"]),
            row(&companies, "a", 3),
        ])
        .await;
    writer.one(deleted(&companies, "a", 4)).await;
    bench.reopen().await;
    let writer = writer.again(bench).await;
    let mut traced = writer.traced("a").await;
    assert_eq!(traced.len(), 2);
    assert_eq!(
        (traced[0].table.as_str(), traced[1].table.as_str()),
        ("company", "person")
    );
    assert_eq!(
        (traced[0].version, &traced[0].row),
        (Version::new(1, 4), &None)
    );
    assert!(traced[0].parked.is_empty());
    traced[1].parked.sort_unstable();
    assert_eq!(traced[1].parked, ["company", "manager"]);
    assert_eq!(traced[1].version, Version::new(1, 3));
    assert_eq!(traced[1].row.as_ref(), writer.all("person").await.first());
    // Of this object and connection only.
    let record = RecordId::stored("a");
    let target = bench.target();
    let elsewhere = target.trace(&"acme".into(), &"Other".into(), &record).await;
    assert!(elsewhere.unwrap().is_empty());
    let elsewhere = target.trace(&"other".into(), &writer.object, &record).await;
    assert!(elsewhere.unwrap().is_empty());
}

pub async fn what_is_parked_is_counted_per_job(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let persons = person()
        .derive(by_id("manager", "person"))
        .derive(by_id("company", "company"));
    let persons = Arc::new(persons);
    assert_eq!(writer.target.parked().await.unwrap(), []);
    writer
        .one(
            row(&persons, "a", 1)
                .to("manager", &["x"])
                .to("company", &["y"]),
        )
        .await;
    let mut other = Writer::open(bench.target(), "acme", "other").await;
    other.one(row(&persons, "b", 1).to("manager", &["x"])).await;
    let mut elsewhere = Writer::open(bench.target(), "contoso", "sync").await;
    elsewhere.one(row(&persons, "c", 1)).await;
    let mut parked = writer.target.parked().await.unwrap();
    parked.sort();
    let due = [
        ("acme".into(), "other".into(), 1),
        ("acme".into(), "sync".into(), 2),
    ];
    assert_eq!(parked, due);
}

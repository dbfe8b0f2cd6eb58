//! Which columns a job moves in real time, and which full syncs write.

use super::bench::{at, object};
use super::*;

/// The scheduled columns of each destination.
fn scheduled(job: &JobConfig) -> Vec<Vec<String>> {
    let mapping = Mapping::compile(job, &objects()).unwrap();
    let destinations = mapping.plan().destinations.iter();
    destinations
        .map(|plan| plan.scheduled.iter().cloned().collect())
        .collect()
}

fn contact(fields: Option<&[&str]>) -> JobConfig {
    let fields = fields.map(|fields| fields.iter().map(|field| at(*field, "realtime_fields")));
    JobConfig {
        realtime_fields: fields.map(Iterator::collect),
        ..contact_job()
    }
}

#[test]
fn what_is_not_listed_is_left_to_full_syncs() {
    let nothing: [&[&str]; 2] = [&[], &[]];
    assert_eq!(scheduled(&contact(None)), nothing);
    // An identifier, a constant and the row of a sibling move all the same; so does the look-up that identifies.
    let rest = [
        "company_name",
        "external_contact_id",
        "level",
        "manager",
        "opted_in",
    ];
    assert_eq!(
        scheduled(&contact(Some(&[]))),
        [
            vec!["first_name".to_owned()],
            rest.map(str::to_owned).to_vec()
        ]
    );
    let some = contact(Some(&[
        "DoNotCall",
        "FirstName",
        "ReportsToId",
        "Account.Name",
    ]));
    let rest = ["external_contact_id", "level"].map(str::to_owned);
    assert_eq!(scheduled(&some), [Vec::new(), rest.to_vec()]);
    // A job that is not real-time has none.
    let never = JobConfig {
        realtime: false,
        ..contact(None)
    };
    assert_eq!(scheduled(&never), scheduled(&contact(Some(&[]))));
}

/// An amount without its currency would be another amount.
#[test]
fn a_currency_goes_with_its_amounts() {
    let fields = [
        ("key", StoredType::String, None),
        ("amount", StoredType::Currency, None),
        ("other", StoredType::String, None),
        ("currency_iso_code", StoredType::String, None),
    ];
    let objects = BTreeMap::from([object("deal", "Deal", &fields)]);
    let columns = vec![
        map("key", "Id"),
        map("amount", "Amount"),
        map("other", "Other"),
        map("currency_iso_code", "CurrencyIsoCode"),
    ];
    let deals = job(vec![destination("Deal", &["key"], columns)]);
    for (listed, expected) in [
        ("Amount", &["other"][..]),
        ("Other", &["amount", "currency_iso_code"]),
        ("CurrencyIsoCode", &["amount", "other"]),
    ] {
        let job = JobConfig {
            realtime_fields: Some(vec![at(listed, "realtime_fields")]),
            ..deals.clone()
        };
        let mapping = Mapping::compile(&job, &objects).unwrap();
        let scheduled: Vec<_> = mapping.plan().destinations[0].scheduled.iter().collect();
        assert_eq!(scheduled, expected, "{listed}");
    }
}

#[test]
fn a_row_says_what_a_full_sync_told() {
    let mapping = Mapping::compile(&contact(Some(&[])), &objects()).unwrap();
    let synced = |origin: Origin, synced: Option<Version>| {
        let change = Change {
            origin,
            synced,
            ..change(Op::Update, &whole_contact())
        };
        let Mapped::Rows(rows) = mapping.map(&change, (0, 0), now()) else {
            panic!("no rows");
        };
        (rows[0].synced, change.version)
    };
    let (found, own) = synced(Origin::Snapshot, None);
    assert_eq!(found, Some(own), "of a topic before there were such fields");
    let earlier = Some(Version::new(1, 1));
    for origin in [Origin::Stream, Origin::Hydrate, Origin::Reconcile] {
        assert_eq!(synced(origin, None).0, None);
        assert_eq!(synced(origin, earlier).0, earlier);
    }
}

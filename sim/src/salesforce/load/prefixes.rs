//! Key prefixes: the three characters at the beginning of an object's ids.

use std::collections::BTreeSet;

use super::super::ids;
use super::super::random::BASE62;
use super::{Prefixes, Source};

/// The standard objects' prefixes (Salesforce help, "Standard Field Record ID Prefix Decoder").
const STANDARD: &[(&str, &str)] = &[
    ("Account", "001"),
    ("Note", "002"),
    ("Contact", "003"),
    ("User", "005"),
    ("Opportunity", "006"),
    ("OpportunityHistory", "008"),
    ("UserRole", "00E"),
    ("Group", "00G"),
    ("OpportunityContactRole", "00K"),
    ("Attachment", "00P"),
    ("Lead", "00Q"),
    ("Task", "00T"),
    ("Event", "00U"),
    ("CaseComment", "00a"),
    ("Profile", "00e"),
    ("OpportunityLineItem", "00k"),
    ("OpportunityTeamMember", "00q"),
    ("CampaignMember", "00v"),
    ("RecordType", "012"),
    ("CurrencyType", "01L"),
    ("AccountTeamMember", "01M"),
    ("Pricebook2", "01s"),
    ("Product2", "01t"),
    ("PricebookEntry", "01u"),
    ("AccountContactRole", "02Z"),
    ("Asset", "02i"),
    ("EmailMessage", "02s"),
    ("ContentDocument", "069"),
    ("AccountContactRelation", "07k"),
    ("Quote", "0Q0"),
    ("Case", "500"),
    ("Solution", "501"),
    ("Campaign", "701"),
    ("Contract", "800"),
    ("Order", "801"),
    ("OrderItem", "802"),
];

/// The object of a standard prefix.
pub(super) fn standard_object(prefix: &str) -> Option<&'static str> {
    STANDARD
        .iter()
        .find(|(_, standard)| *standard == prefix)
        .map(|(object, _)| *object)
}

/// Every source's prefix: that of its ids, the one its description names, the standard one, or a free `aXX`.
pub(super) fn assign(sources: &[Source]) -> Prefixes {
    let mut prefixes = Prefixes::new();
    let mut without = Vec::new();
    for source in sources {
        let own = source
            .columns
            .iter()
            .find(|column| column.name == "Id")
            .and_then(|column| column.prefixes.first().cloned())
            .or_else(|| source.sidecar.key_prefix.clone())
            .or_else(|| {
                STANDARD
                    .iter()
                    .find(|(object, _)| *object == source.name)
                    .map(|(_, prefix)| (*prefix).to_owned())
            });
        match own {
            Some(prefix) => {
                prefixes
                    .entry(prefix)
                    .or_insert_with(|| source.name.clone());
            }
            None => without.push(source.name.clone()),
        }
    }
    let taken: BTreeSet<_> = prefixes.keys().cloned().collect();
    let free = (0_u64..)
        .map(|serial| {
            let id = ids::nth("", serial);
            format!("a{}", &id[10..12])
        })
        .take(BASE62.len() * BASE62.len())
        .filter(|prefix| !taken.contains(prefix));
    prefixes.extend(free.zip(without));
    prefixes
}

//! Compound fields: which column a part of one is (CDC Developer Guide, "Change Event Fields", compound fields).

use crate::model::name::FieldName;

use super::describe::Description;

/// The column that holds `part` of `compound`, if the object has one that the user may read.
///
/// `BillingAddress.Street` is `BillingStreet`, `Address.City` is `City`, `Name.LastName` is `LastName`,
/// `Geo__c.Latitude` is `Geo__Latitude__s`. Where the rule finds no column, what the description says of
/// parts decides.
#[must_use]
pub fn column<'a>(
    description: &'a Description,
    compound: &str,
    part: &str,
) -> Option<&'a FieldName> {
    let fields = &description.schema.fields;
    let mut by_rule = names(compound, part).filter_map(|name| {
        let (name, field) = fields.get_key_value(name.as_str())?;
        let own = field
            .compound
            .as_ref()
            .is_none_or(|whole| whole.as_str() == compound);
        own.then_some(name)
    });
    if let Some(found) = by_rule.next() {
        return Some(found);
    }
    let mut told = description
        .parts
        .get(compound)?
        .iter()
        .filter(|name| ends_with_part(name.as_str(), part));
    let only = told.next()?;
    // Two that fit are a guess.
    told.next().is_none().then_some(only)
}

/// The columns of `compound`.
#[must_use]
pub fn columns<'a>(description: &'a Description, compound: &str) -> &'a [FieldName] {
    description
        .parts
        .get(compound)
        .map_or(&[], |parts| parts.as_slice())
}

fn names(compound: &str, part: &str) -> impl Iterator<Item = String> {
    let address = compound
        .strip_suffix("Address")
        .map(|prefix| format!("{prefix}{part}"));
    let custom = compound
        .strip_suffix("__c")
        .map(|prefix| format!("{prefix}__{part}__s"));
    let plain = (compound == "Name").then(|| part.to_owned());
    [address, custom, plain].into_iter().flatten()
}

fn ends_with_part(name: &str, part: &str) -> bool {
    let bare = name
        .strip_suffix("__s")
        .or_else(|| name.strip_suffix("__c"))
        .or_else(|| name.strip_suffix("__pc"))
        .unwrap_or(name);
    let Some(start) = bare.len().checked_sub(part.len()) else {
        return false;
    };
    bare.get(start..)
        .is_some_and(|end| end.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};
    use proptest::sample::select;

    use super::super::describe::tests::described;
    use super::*;

    const PARTS: [&str; 10] = [
        "Street",
        "City",
        "State",
        "PostalCode",
        "Country",
        "StateCode",
        "CountryCode",
        "Latitude",
        "Longitude",
        "GeocodeAccuracy",
    ];

    /// An object with one address whose parts carry `prefix`.
    fn with_address(prefix: &str) -> Description {
        let whole = format!("{prefix}Address");
        let names: Vec<String> = PARTS.iter().map(|part| format!("{prefix}{part}")).collect();
        let mut fields = vec![(whole.as_str(), "address", None)];
        for name in &names {
            fields.push((name, "string", Some(whole.as_str())));
        }
        described("X", &fields)
    }

    proptest! {
        #[test]
        fn every_part_of_an_address_has_its_column(
            prefix in "(Billing|Shipping|Mailing|Other|PersonMailing|)", part in select(PARTS.to_vec()),
        ) {
            let found = with_address(&prefix);
            let column = column(&found, &format!("{prefix}Address"), part).map(FieldName::as_str);
            let expected = format!("{prefix}{part}");
            prop_assert_eq!(column, Some(expected.as_str()));
        }
    }

    #[test]
    fn names_and_places() {
        let found = described(
            "Contact",
            &[
                ("Name", "string", Some("Name")),
                ("FirstName", "string", Some("Name")),
                ("Geo__c", "location", None),
                ("Geo__Latitude__s", "double", Some("Geo__c")),
                ("Home__c", "address", None),
                ("Home__Street__s", "string", Some("Home__c")),
            ],
        );
        let column = |whole, part| column(&found, whole, part).map(FieldName::as_str);
        assert_eq!(column("Name", "FirstName"), Some("FirstName"));
        assert_eq!(column("Geo__c", "Latitude"), Some("Geo__Latitude__s"));
        assert_eq!(column("Home__c", "Street"), Some("Home__Street__s"));
        assert_eq!(column("Geo__c", "Longitude"), None);
        assert_eq!(column("BillingAddress", "Xyz"), None);
    }

    #[test]
    fn the_description_decides_in_doubt() {
        let found = described(
            "Odd__c",
            &[
                ("Site", "address", None),
                ("SiteTown_City", "string", Some("Site")),
                ("SiteStateCode", "string", Some("Site")),
                ("SiteZipCode", "string", Some("Site")),
                // Named as if it were a part of `BillingAddress`, but it is one of another.
                ("BillingCity", "string", Some("Site2")),
            ],
        );
        let column = |whole, part| column(&found, whole, part).map(FieldName::as_str);
        assert_eq!(column("Site", "City"), Some("SiteTown_City"));
        assert_eq!(column("Site", "Code"), None, "two fit");
        assert_eq!(column("BillingAddress", "City"), None);
    }
}

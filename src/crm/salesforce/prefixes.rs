//! Key prefixes: the three characters at the beginning of an id say which object's record it is (SOAP API Developer
//! Guide, "ID Field Type"; REST API Developer Guide, "Describe Global", `keyPrefix`).

use std::collections::HashMap;

use serde::Deserialize;

use crate::model::name::ObjectName;

/// Objects by key prefix.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Prefixes(HashMap<String, Vec<ObjectName>>);

#[derive(Deserialize)]
struct Global {
    sobjects: Vec<WireObject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireObject {
    name: String,
    key_prefix: Option<String>,
}

impl Prefixes {
    /// Reads the list of all objects.
    ///
    /// # Errors
    /// A JSON error.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let told: Global = serde_json::from_slice(json)?;
        let mut found = Self::default();
        for object in told.sobjects {
            // Some objects have no records of their own, and so no prefix.
            if let Some(prefix) = object.key_prefix.filter(|prefix| !prefix.is_empty()) {
                let objects = found.0.entry(prefix).or_default();
                objects.push(ObjectName::new(object.name));
            }
        }
        Ok(found)
    }

    /// The object whose record `id` is; of several with one prefix, the one among `targets`. `None` where that does not
    /// decide, and for a prefix of no object that the user sees.
    #[must_use]
    pub fn object(&self, id: &str, targets: &[ObjectName]) -> Option<&ObjectName> {
        let objects = self.0.get(id.get(..3)?)?;
        if let [only] = objects.as_slice() {
            return Some(only);
        }
        let mut among = objects.iter().filter(|object| targets.contains(object));
        let first = among.next()?;
        among.next().is_none().then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_whose_it_is() {
        let json = r#"{"encoding": "UTF-8", "sobjects": [
            {"name": "Account", "keyPrefix": "001"}, {"name": "User", "keyPrefix": "005"},
            {"name": "AccountHistory", "keyPrefix": null}, {"name": "Name"}, {"name": "Odd", "keyPrefix": ""},
            {"name": "One__c", "keyPrefix": "a00"}, {"name": "Two__c", "keyPrefix": "a00"}]}"#;
        let prefixes = Prefixes::parse(json.as_bytes()).unwrap();
        let targets = ["One__c", "User"].map(ObjectName::new);
        let object = |id: &str, targets: &[ObjectName]| {
            let object = prefixes.object(id, targets);
            object.map(|object| object.as_str().to_owned())
        };
        assert_eq!(
            object("005A0000006Vm9uIAC", &targets).as_deref(),
            Some("User")
        );
        assert_eq!(
            object("001A0000006Vm9uIAC", &targets).as_deref(),
            Some("Account")
        );
        assert_eq!(
            object("a00A0000006Vm9uIAC", &targets).as_deref(),
            Some("One__c")
        );
        for (id, targets) in [
            ("a00A0000006Vm9uIAC", &[][..]),
            ("00GA0000006Vm9uIAC", &targets),
            ("ä", &targets),
            ("", &targets),
        ] {
            assert_eq!(object(id, targets), None, "{id}");
        }
    }
}

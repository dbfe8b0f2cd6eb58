//! Source paths: a field, or a field of a parent (`Owner.Email`).

use crate::model::name::FieldName;

/// Relationships that a path may cross (SOQL and SOSL Reference, "Relationship Query Limitations").
const MAX_RELATIONSHIPS: usize = 5;

/// A text that is no source path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPath {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// Reads a source path.
///
/// # Errors
/// [`InvalidPath`]; also for forms of the config language that this release does not evaluate.
pub fn parse(text: &str) -> Result<FieldName, InvalidPath> {
    let refuse = |what: &str, remedy: &str| {
        Err(InvalidPath {
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        })
    };
    if text.is_empty() {
        return refuse(
            "the source path is empty",
            "name a field of the source object",
        );
    }
    if let Some((_, suffix)) = text.split_once('@') {
        return match suffix {
            "label" | "type" => refuse(
                &format!("`@{suffix}` is not supported yet"),
                "map the field itself, with `values` where its values need other names",
            ),
            _ => refuse(
                "`@` begins no suffix that is known",
                "name a field (`Industry`) or a field of a parent (`Owner.Email`)",
            ),
        };
    }
    if text.contains(':') {
        return refuse(
            "a look-up by table (`lookup:table`) is not supported yet",
            "map the id field itself; it holds the id whatever table it points to",
        );
    }
    let parts: Vec<&str> = text.split('.').collect();
    if let Some(bad) = parts.iter().find(|part| !is_name(part)) {
        let what = if bad.is_empty() {
            "a name is missing before or after a point".to_owned()
        } else {
            format!("`{bad}` is not a field's API name")
        };
        return refuse(
            &what,
            "use API names: letters, digits and `_`, beginning with a letter",
        );
    }
    if parts.len() > MAX_RELATIONSHIPS + 1 {
        return refuse(
            "the path crosses more than 5 relationships",
            "map a formula field of the source object instead",
        );
    }
    Ok(FieldName::new(text))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_fields_and_parents_fields() {
        for text in [
            "Id",
            "Custom__c",
            "Owner.Email",
            "A__r.B__r.C.D.E.F__c",
            "_x",
        ] {
            assert_eq!(parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        for (text, what) in [
            ("", "is empty"),
            ("Owner.", "is missing"),
            (".Email", "is missing"),
            ("A..B", "is missing"),
            ("Name ", "`Name ` is not"),
            ("1st", "`1st` is not"),
            ("Größe", "`Größe` is not"),
            ("A.B.C.D.E.F.G", "more than 5"),
            ("Industry@label", "`@label` is not supported yet"),
            ("OwnerId@type", "`@type` is not supported yet"),
            ("Industry@x", "no suffix"),
            ("parentcustomerid:account", "not supported yet"),
            ("parentcustomerid:account.name@label", "not supported yet"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.what.contains(what), "{text}: {}", refused.what);
            assert!(!refused.remedy.is_empty());
        }
    }
}

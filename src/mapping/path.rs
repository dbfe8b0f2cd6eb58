//! Source paths: a field, a field of a parent (`Owner.Email`, `parentcustomerid:account.name`), an id by the table it
//! points to (`parentcustomerid:account`), a label (`industrycode@label`) or a type (`ownerid@type`).
//!
//! A path is the name under which a connector answers: it reads `lookup:table` as the id where the look-up points to
//! that table, else null; `@label` as what the CRM's metadata calls the value, `@type` as the table a look-up points to.

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
/// [`InvalidPath`].
pub fn parse(text: &str) -> Result<FieldName, InvalidPath> {
    let refuse = |what: String, remedy: &str| {
        Err(InvalidPath {
            what,
            remedy: remedy.to_owned(),
        })
    };
    if text.is_empty() {
        let what = "the source path is empty".to_owned();
        return refuse(what, "name a field of the source object");
    }
    let path = match text.split_once('@') {
        None => text,
        Some((path, "label" | "type")) => path,
        Some((_, suffix)) => {
            let what = format!("`@{suffix}` is no suffix");
            return refuse(what, "write `@label` or `@type`, or the field alone");
        }
    };
    let steps: Vec<&str> = path.split('.').collect();
    for step in &steps {
        let (field, table) = match step.split_once(':') {
            Some((field, table)) => (field, Some(table)),
            None => (*step, None),
        };
        for name in [Some(field), table].into_iter().flatten() {
            if is_name(name) {
                continue;
            }
            let what = if name.is_empty() {
                "a name is missing before or after a point or colon".to_owned()
            } else {
                format!("`{name}` is not an API name")
            };
            let remedy = "use API names: letters, digits and `_`, beginning with a letter";
            return refuse(what, remedy);
        }
    }
    if steps.len() > MAX_RELATIONSHIPS + 1 {
        let what = format!("the path crosses more than {MAX_RELATIONSHIPS} relationships");
        return refuse(what, "map a formula field of the source object instead");
    }
    let ends_by_table = steps.last().is_some_and(|step| step.contains(':'));
    if ends_by_table && path.len() != text.len() {
        let what = "a look-up by table has neither a label nor a type of its own".to_owned();
        return refuse(
            what,
            "name a field of the table, or leave the table or the suffix out",
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
    fn every_form_of_a_path() {
        for path in [
            "Name",
            "Owner.Email",
            "Account.Owner.Manager.Name",
            "My_Object__r.My_Field__c",
            "parentcustomerid:account",
            "parentcustomerid:account.name",
            "parentcustomerid:account.primarycontactid.emailaddress1",
            "parentcustomerid:account.ownerid:systemuser.domainname",
            "industrycode@label",
            "parentcustomerid:account.industrycode@label",
            "ownerid@type",
            "_a.b",
        ] {
            assert_eq!(
                parse(path).map(|name| name.as_str().to_owned()),
                Ok(path.to_owned())
            );
        }
    }

    #[test]
    fn nothing_else() {
        for path in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "1a",
            "a@",
            "a@lable",
            "@label",
            "a@label@type",
            "a:",
            ":a",
            "a:b:c",
            "a:1",
            "a:b@label",
            "a.b.c.d.e.f.g",
            "a-b",
            "ä",
        ] {
            assert!(parse(path).is_err(), "{path}");
        }
    }
}

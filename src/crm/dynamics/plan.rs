//! How a selection is read: which columns an address names, and what is taken out of rows.

use std::sync::Arc;

use aws_lc_rs::digest;

use crate::crm::port::Selection;
use crate::fault::{Fault, FaultKind};
use crate::model::name::FieldName;
use crate::model::schema::FieldKind;

use super::describe::{Describer, Description, ID, MODIFIED, VERSION, logical_name};
use super::labels::Labels;

/// A selection, ready to be read.
#[derive(Debug)]
pub struct Plan {
    /// The table's description.
    pub description: Arc<Description>,
    /// What is taken out of rows.
    pub columns: Vec<Column>,
    /// Tells this selection from others.
    pub fields: String,
    /// Labels of its choices, if it selects any.
    pub labels: Option<Arc<Labels>>,
}

/// A selected field and where a row tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The field.
    pub field: FieldName,
    /// The property of a row: `_x_value` for a look-up `x` (Power Apps developer guide, "Select columns").
    pub property: String,
    /// The kind of value.
    pub kind: FieldKind,
    /// What of it is taken.
    pub take: Take,
}

/// What is taken of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// Its value.
    Value,
    /// `x@type`: the table that a look-up points to; the only one that it can, if that is so.
    Type(Option<String>),
    /// `x:table`: the id if the look-up points to that table, else null.
    Of {
        /// The table.
        table: String,
        /// Whether a look-up of this column can't point to another.
        alone: bool,
    },
    /// `x@label`: the label of a choice.
    Label(String),
}

impl Plan {
    /// Looks up a selection's columns.
    ///
    /// # Errors
    /// `Missing` for a name that is none, or the fault of a describe.
    pub async fn new(describer: &Describer, selection: &Selection) -> Result<Self, Fault> {
        let description = describer.get(&selection.object).await?;
        let mut plan = Self::of(description, selection)?;
        let choices: Vec<String> = plan
            .columns
            .iter()
            .filter_map(|column| match &column.take {
                Take::Label(choice) => Some(choice.clone()),
                _ => None,
            })
            .collect();
        if !choices.is_empty() {
            plan.labels = Some(describer.labels(&plan.description, choices).await?);
        }
        Ok(plan)
    }

    fn of(description: Arc<Description>, selection: &Selection) -> Result<Self, Fault> {
        let fields = selection.fields.iter().filter(|field| field.as_str() != ID);
        let columns: Result<Vec<Column>, Fault> =
            fields.map(|field| column(&description, field)).collect();
        Ok(Self {
            columns: columns?,
            description,
            fields: fingerprint(selection),
            labels: None,
        })
    }

    /// The table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        self.description.schema.name.as_str()
    }

    /// The path of the table's rows with `$select`; the key is always told.
    #[must_use]
    pub fn path(&self) -> String {
        let mut names: Vec<&str> = vec![&self.description.key];
        for own in [MODIFIED, VERSION] {
            if self.description.has(own) {
                names.push(own);
            }
        }
        for column in &self.columns {
            if !names.contains(&column.property.as_str()) {
                names.push(&column.property);
            }
        }
        format!("/{}?$select={}", self.description.set, names.join(","))
    }
}

/// Where a row tells a field, and what of it.
///
/// # Errors
/// `Missing` for a field that the table has not, or that is another table's.
pub fn column(description: &Description, field: &FieldName) -> Result<Column, Fault> {
    let (table, text) = (&description.schema.name, field.as_str());
    if text.contains('.') {
        return Err(Fault::new(
            FaultKind::Missing,
            format!("`{field}` of {table} is another table's column"),
        )
        .remedy(
            "tracked tables tell their own columns only: map the look-up, and derive the rest from it",
        ));
    }
    let missing = || {
        let what = format!("table `{table}` has no column `{field}`");
        Fault::new(FaultKind::Missing, what)
            .remedy("check the column's logical name (lower case), and what it may end in: `@type`, `@label`, `:table`")
    };
    if !description.has(text) {
        return Err(missing());
    }
    let end = text.find(['@', ':']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let schema = description
        .schema
        .fields
        .get(logical_name(name)?)
        .ok_or_else(missing)?;
    let mut targets = schema.references.iter();
    let only = targets.next().filter(|_| targets.next().is_none());
    let take = match rest {
        "" => Take::Value,
        "@type" => Take::Type(only.map(|table| table.as_str().to_owned())),
        "@label" => Take::Label(name.to_owned()),
        of => Take::Of {
            table: of.trim_start_matches(':').to_owned(),
            alone: only.is_some(),
        },
    };
    // Ids have one spelling, whatever kind of column they are in.
    let kind = if description.guids.contains(name) {
        FieldKind::Id
    } else {
        schema.kind
    };
    Ok(Column {
        field: field.clone(),
        property: property(name, schema.kind),
        kind,
        take,
    })
}

/// Where a row tells a column.
fn property(name: &str, kind: FieldKind) -> String {
    if kind == FieldKind::Reference {
        format!("_{name}_value")
    } else {
        name.to_owned()
    }
}

/// A short text that differs where selections differ, whatever their order.
#[must_use]
pub fn fingerprint(selection: &Selection) -> String {
    let mut names: Vec<&str> = selection
        .fields
        .iter()
        .map(FieldName::as_str)
        .filter(|name| *name != ID)
        .collect();
    names.sort_unstable();
    names.dedup();
    let hash = digest::digest(&digest::SHA256, names.join(",").as_bytes());
    hash.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::describe::tests::described;
    use super::*;

    pub fn planned(columns: &[(&str, &str)], fields: &[&str]) -> Result<Plan, Fault> {
        let selection = selected(fields);
        Plan::of(Arc::new(described("contact", columns)), &selection)
    }

    fn selected(fields: &[&str]) -> Selection {
        Selection {
            object: "contact".into(),
            fields: fields.iter().map(FieldName::new).collect(),
        }
    }

    #[test]
    fn look_ups_are_read_as_values() {
        let plan = planned(
            &[
                ("contactid", "Uniqueidentifier"),
                ("fullname", "String"),
                ("parentcustomerid", "Customer"),
                ("modifiedon", "DateTime"),
                ("versionnumber", "BigInt"),
            ],
            &[
                "Id",
                "contactid",
                "fullname",
                "modifiedon",
                "parentcustomerid",
            ],
        )
        .unwrap();
        assert_eq!(
            plan.path(),
            "/contacts?$select=contactid,modifiedon,versionnumber,fullname,_parentcustomerid_value"
        );
    }

    #[test]
    fn what_is_no_column_is_named() {
        let columns = [("contactid", "Uniqueidentifier"), ("fullname", "String")];
        for field in [
            "fulname",
            "Fullname",
            "parentcustomerid.name",
            "fullname@type",
            "fullname@label",
            "contactid:account",
        ] {
            let fault = planned(&columns, &[field]).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Missing, "{field}");
            assert!(fault.report().contains(field), "{}", fault.report());
        }
    }

    #[test]
    fn fingerprints_tell_selections_apart() {
        let one = fingerprint(&selected(&["Id", "a", "b"]));
        assert_eq!(one, fingerprint(&selected(&["b", "a"])));
        assert_ne!(one, fingerprint(&selected(&["a"])));
        assert_ne!(one, fingerprint(&selected(&["a", "c"])));
        assert_eq!(one.len(), 16);
    }
}

//! How a selection is read: which columns an address names, what is taken out of rows, and which parents are read
//! beside them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use aws_lc_rs::digest;

use crate::crm::port::Selection;
use crate::fault::{Fault, FaultKind};
use crate::model::name::{FieldName, ObjectName};
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
    /// Parents whose columns are selected. They are read by id: `$expand` is refused where changes are tracked, and
    /// reaches no column of an owner, whose property leads to a `principal` (Power Apps developer guide, "Use change
    /// tracking"; Web API reference, "principal EntityType").
    pub parents: Vec<Parent>,
}

/// A parent's columns.
#[derive(Debug)]
pub struct Parent {
    /// The row's field that has the parent's id: a look-up of one table, or `x:table`.
    pub reference: FieldName,
    /// The row's fields, each with the parent's own.
    pub fields: Vec<(FieldName, FieldName)>,
    /// How the parent is read.
    pub plan: Plan,
}

/// Parents' columns by the field that has the parent's id: the whole path, and what is left of it.
type Paths = BTreeMap<FieldName, Vec<(FieldName, FieldName)>>;

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
        for (reference, fields) in paths(selection) {
            let table = table_of(&plan.description, &reference, &fields)?;
            plan.parents
                .push(Parent::new(describer, table, reference, fields).await?);
        }
        Ok(plan)
    }

    fn of(description: Arc<Description>, selection: &Selection) -> Result<Self, Fault> {
        let own = selection.fields.iter();
        let mut fields: Vec<&FieldName> = own
            .filter(|field| field.as_str() != ID && !field.as_str().contains('.'))
            .collect();
        let paths = paths(selection);
        for (reference, fields_of) in &paths {
            table_of(&description, reference, fields_of)?;
            if !fields.contains(&reference) {
                fields.push(reference);
            }
        }
        let columns: Result<Vec<Column>, Fault> = fields
            .into_iter()
            .map(|field| column(&description, field))
            .collect();
        Ok(Self {
            columns: columns?,
            description,
            fields: fingerprint(selection),
            labels: None,
            parents: Vec::new(),
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

impl Parent {
    /// Looks up a parent's columns; a path may go on from there.
    fn new<'a>(
        describer: &'a Describer,
        table: ObjectName,
        reference: FieldName,
        fields: Vec<(FieldName, FieldName)>,
    ) -> Pin<Box<dyn Future<Output = Result<Self, Fault>> + Send + 'a>> {
        Box::pin(async move {
            let selection = Selection {
                object: table,
                fields: fields.iter().map(|(_, own)| own.clone()).collect(),
            };
            let plan = Plan::new(describer, &selection).await;
            let plan =
                plan.map_err(|fault| fault.context(format_args!("following `{reference}`")))?;
            Ok(Self {
                reference,
                fields,
                plan,
            })
        })
    }
}

/// The selected columns of parents.
fn paths(selection: &Selection) -> Paths {
    let mut paths = Paths::new();
    for field in &selection.fields {
        if let Some((reference, own)) = field.as_str().split_once('.') {
            paths
                .entry(FieldName::new(reference))
                .or_default()
                .push((field.clone(), FieldName::new(own)));
        }
    }
    paths
}

/// The one table that a reference leads to.
fn table_of(
    description: &Description,
    reference: &FieldName,
    fields: &[(FieldName, FieldName)],
) -> Result<ObjectName, Fault> {
    let table = &description.schema.name;
    let path = fields.first().map_or(reference, |(path, _)| path);
    let schema = description.schema.fields.get(reference);
    let Some(schema) = schema.filter(|schema| schema.kind == FieldKind::Reference) else {
        let what = format!("table `{table}` has no look-up `{reference}`, which `{path}` follows");
        return Err(Fault::new(FaultKind::Missing, what).remedy(
            "write a parent's column as `lookup:table.column`, with the look-up's and the table's logical names",
        ));
    };
    match schema.references.as_slice() {
        [only] => Ok(only.clone()),
        several => {
            let names: Vec<&str> = several.iter().map(ObjectName::as_str).collect();
            let what = format!(
                "`{path}` follows `{reference}` of {table}, which may point to {}",
                names.join(" or ")
            );
            let first = names.first().unwrap_or(&"table");
            Err(Fault::new(FaultKind::Missing, what)
                .remedy(format!("name the table: `{reference}:{first}.column`")))
        }
    }
}

/// Where a row tells a field, and what of it.
///
/// # Errors
/// `Missing` for a field that the table has not, or that is another table's.
pub fn column(description: &Description, field: &FieldName) -> Result<Column, Fault> {
    let (table, text) = (&description.schema.name, field.as_str());
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
    fn parents_columns_are_found_by_their_look_up() {
        let columns = [
            ("contactid", "Uniqueidentifier"),
            ("parentcustomerid", "Customer"),
        ];
        let fields = [
            "parentcustomerid:account.name",
            "parentcustomerid:account.ownerid:systemuser.domainname",
            "parentcustomerid:contact.fullname",
        ];
        let plan = planned(&columns, &fields).unwrap();
        let taken: Vec<&str> = plan.columns.iter().map(|c| c.field.as_str()).collect();
        assert_eq!(
            taken,
            ["parentcustomerid:account", "parentcustomerid:contact"]
        );
        assert_eq!(
            plan.path(),
            "/contacts?$select=contactid,_parentcustomerid_value"
        );
        let paths = paths(&selected(&fields));
        let own: Vec<&str> = paths["parentcustomerid:account"]
            .iter()
            .map(|(_, own)| own.as_str())
            .collect();
        assert_eq!(own, ["name", "ownerid:systemuser.domainname"]);
        let fault = planned(&columns, &["parentcustomerid.name"]).unwrap_err();
        let told = fault.report();
        assert!(told.contains("account or contact"), "{told}");
        assert!(told.contains("`parentcustomerid:account.column`"), "{told}");
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

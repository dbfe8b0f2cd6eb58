//! `EntityDefinitions`: tables, their columns with casts, and their keys, as rows of their own.

use std::cmp::Ordering;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::cell::Cell;
use super::super::error::ApiError;
use super::super::guid::Guid;
use super::super::node::Node;
use super::super::odata::evaluate::compared;
use super::super::odata::options::{Expansion, Options};
use super::super::odata::parser::{Expr, Operand, parse};
use super::super::schema::{Column, Kind, Ownership, Table};
use super::address::{Address, Segment};
use super::query::Scene;
use super::{Call, ROOT, Reply};

/// Properties whose values are members of an enum: literals must be qualified.
const ENUMS: &[&str] = &["AttributeType", "OwnershipType", "EntityKeyIndexStatus"];

/// The verbs of a table's privileges.
pub(crate) const VERBS: [&str; 4] = ["Create", "Read", "Write", "Delete"];

/// Answers a GET under `EntityDefinitions`.
pub(crate) fn definitions(
    scene: &Scene<'_>,
    call: &Call,
    address: &Address,
) -> Result<Reply, ApiError> {
    let options = Options::read(&call.query)?;
    if !options.order.is_empty()
        || options.count
        || options.top.is_some() && address.segments.len() > 1
    {
        return Err(ApiError::odata(
            "The query options $orderby and $count are not supported for metadata.",
        ));
    }
    let mut segments = address.segments.iter();
    let head = segments.next();
    let rest: Vec<_> = segments.collect();
    let Some(Segment {
        arguments: Some(arguments),
        ..
    }) = head
    else {
        let all = scene
            .store
            .tables()
            .map(|rows| entity(&rows.table, &options));
        let all = listed(
            all.collect::<Result<Vec<_>, _>>()?,
            &options,
            "EntityMetadata",
        )?;
        return Ok(body(scene, "EntityDefinitions", all));
    };
    let table = named(scene, arguments)?;
    match rest.as_slice() {
        [] => {
            let (full, expanded) = entity(&table, &options)?;
            Ok(one(
                scene,
                "EntityDefinitions/$entity",
                shown(full, expanded, &options, "EntityMetadata")?,
            ))
        }
        [part, tail @ ..] => parts(scene, &table, part, tail, &options),
    }
}

fn named(
    scene: &Scene<'_>,
    arguments: &[(Option<String>, String)],
) -> Result<std::sync::Arc<Table>, ApiError> {
    let value = arguments.first().map_or("", |(_, value)| value.as_str());
    let name = value.trim_matches('\'');
    let mut tables = scene.store.tables();
    let found = tables
        .find(|rows| rows.table.name == name || metadata_id(&rows.table.name).to_string() == name);
    found
        .map(|rows| std::sync::Arc::clone(&rows.table))
        .ok_or_else(|| {
            let message = format!("Could not find an entity with specified entity name: {name}");
            ApiError::new(StatusCode::NOT_FOUND, "0x80060888", message)
        })
}

fn parts(
    scene: &Scene<'_>,
    table: &Table,
    part: &Segment,
    tail: &[&Segment],
    options: &Options,
) -> Result<Reply, ApiError> {
    let context = format!("EntityDefinitions('{}')/{}", table.name, part.name);
    let cast = tail.first().map(|segment| segment.name.as_str());
    match part.name.as_str() {
        "Attributes" => {
            let cast = cast.map(cast_type).transpose()?;
            let fits =
                |column: &&Column| cast.is_none_or(|cast| column.kind.metadata_type() == cast);
            let type_name = cast.unwrap_or("AttributeMetadata");
            let columns = table.columns.iter().filter(fits);
            match &part.arguments {
                None => {
                    let all = columns.map(|column| attribute(table, column, cast, options));
                    let all = listed(all.collect::<Result<Vec<_>, _>>()?, options, type_name)?;
                    Ok(body(scene, &context, all))
                }
                Some(arguments) => {
                    let name = arguments
                        .first()
                        .map_or("", |(_, value)| value.trim_matches('\''));
                    let mut columns = columns.filter(|column| column.name == name);
                    let column = columns.next().ok_or_else(|| {
                        let message =
                            format!("Could not find an attribute with specified name: {name}");
                        ApiError::new(StatusCode::NOT_FOUND, "0x80060888", message)
                    })?;
                    let (full, expanded) = attribute(table, column, cast, options)?;
                    Ok(one(
                        scene,
                        &context,
                        shown(full, expanded, options, type_name)?,
                    ))
                }
            }
        }
        "Keys" => {
            let all = keys(table)
                .into_iter()
                .map(|key| (key, Map::new()))
                .collect();
            let all = listed(all, options, "EntityKeyMetadata")?;
            Ok(body(scene, &context, all))
        }
        "ManyToOneRelationships" => {
            let all = relationships(table)
                .into_iter()
                .map(|one| (one, Map::new()))
                .collect();
            let all = listed(all, options, "OneToManyRelationshipMetadata")?;
            Ok(body(scene, &context, all))
        }
        other => Err(ApiError::no_segment(other)),
    }
}

/// A cast to one kind of column; there is none to all columns with choices.
fn cast_type(segment: &str) -> Result<&'static str, ApiError> {
    let kinds = [
        Kind::String,
        Kind::Memo,
        Kind::Integer,
        Kind::BigInt,
        Kind::Double,
        Kind::Decimal,
        Kind::Money,
        Kind::Boolean,
        Kind::Picklist,
        Kind::State,
        Kind::Status,
        Kind::MultiSelectPicklist,
        Kind::DateTime,
        Kind::Lookup,
        Kind::Uniqueidentifier,
        Kind::EntityName,
    ];
    let name = segment
        .strip_prefix("Microsoft.Dynamics.CRM.")
        .unwrap_or_default();
    let found = kinds
        .iter()
        .map(|kind| kind.metadata_type())
        .find(|known| *known == name);
    found.ok_or_else(|| {
        ApiError::odata(format!(
            "The type '{segment}' can't be cast to from AttributeMetadata."
        ))
    })
}

fn body(scene: &Scene<'_>, context: &str, rows: Vec<Value>) -> Reply {
    let context = format!("{}{ROOT}$metadata#{context}", scene.org.url());
    let mut members = vec![("@odata.context".to_owned(), Node::from(context))];
    super::query::versioned(scene, &mut members);
    members.push(("value".to_owned(), Node::Value(Value::Array(rows))));
    Reply::json(Node::Object(members))
}

fn one(scene: &Scene<'_>, context: &str, row: Value) -> Reply {
    let context = format!("{}{ROOT}$metadata#{context}", scene.org.url());
    let mut members = vec![("@odata.context".to_owned(), Node::from(context))];
    if let Value::Object(map) = row {
        members.extend(
            map.into_iter()
                .map(|(key, value)| (key, Node::Value(value))),
        );
    }
    Reply::json(Node::Object(members))
}

/// A definition's own properties, and what was expanded beside them.
type Definition = (Map<String, Value>, Map<String, Value>);

/// Filters and selects.
fn listed(
    rows: Vec<Definition>,
    options: &Options,
    type_name: &str,
) -> Result<Vec<Value>, ApiError> {
    let filter = options.filter.as_deref().map(parse).transpose()?;
    let mut found = Vec::new();
    for (full, expanded) in rows {
        if let Some(filter) = &filter
            && !condition(filter, &full, type_name)?
        {
            continue;
        }
        found.push(shown(full, expanded, options, type_name)?);
    }
    found.truncate(options.top.unwrap_or(usize::MAX));
    Ok(found)
}

fn shown(
    full: Map<String, Value>,
    expanded: Map<String, Value>,
    options: &Options,
    type_name: &str,
) -> Result<Value, ApiError> {
    let mut kept = match &options.select {
        None => full,
        Some(select) => {
            for name in select {
                if !full.contains_key(name) {
                    return Err(ApiError::no_property(
                        name,
                        &format!("Microsoft.Dynamics.CRM.{type_name}"),
                    ));
                }
            }
            let named = |name: &String| {
                select.contains(name) || name == "MetadataId" || name == "@odata.type"
            };
            full.into_iter().filter(|(name, _)| named(name)).collect()
        }
    };
    kept.extend(expanded);
    Ok(Value::Object(kept))
}

fn metadata_id(name: &str) -> Guid {
    Guid::named(0, &format!("metadata {name}"))
}

fn label(text: &str) -> Value {
    let label = json!({"Label": text, "LanguageCode": 1033, "IsManaged": true});
    json!({"LocalizedLabels": [label], "UserLocalizedLabel": label})
}

fn managed(value: bool) -> Value {
    json!({"Value": value, "CanBeChanged": true, "ManagedPropertyLogicalName": "canbechanged"})
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn entity(table: &Table, options: &Options) -> Result<Definition, ApiError> {
    let full = map(json!({
        "MetadataId": metadata_id(&table.name),
        "LogicalName": table.name,
        "LogicalCollectionName": table.set,
        "EntitySetName": table.set,
        "SchemaName": table.schema_name,
        "PrimaryIdAttribute": table.primary_id,
        "PrimaryNameAttribute": if table.primary_name.is_empty() { Value::Null } else { json!(table.primary_name) },
        "ChangeTrackingEnabled": table.tracked,
        "CanChangeTrackingBeEnabled": managed(table.can_be_tracked),
        "IsOptimisticConcurrencyEnabled": table.optimistic,
        "OwnershipType": table.ownership.name(),
        "IsActivity": table.primary_id == "activityid",
        "IsCustomEntity": table.name.contains('_'),
        "DisplayName": label(&table.label),
        "Privileges": privileges(table),
    }));
    let mut expanded = Map::new();
    for expansion in &options.expand {
        let rows: Vec<Value> = match expansion.navigation.as_str() {
            "Attributes" => {
                let all = table
                    .columns
                    .iter()
                    .map(|column| attribute(table, column, None, &expansion.options));
                inner(
                    all.collect::<Result<Vec<_>, _>>()?,
                    expansion,
                    "AttributeMetadata",
                )?
            }
            "Keys" => inner(
                keys(table)
                    .into_iter()
                    .map(|key| (key, Map::new()))
                    .collect(),
                expansion,
                "EntityKeyMetadata",
            )?,
            "ManyToOneRelationships" => {
                let all = relationships(table)
                    .into_iter()
                    .map(|one| (one, Map::new()))
                    .collect();
                inner(all, expansion, "OneToManyRelationshipMetadata")?
            }
            other => {
                return Err(ApiError::no_property(
                    other,
                    "Microsoft.Dynamics.CRM.EntityMetadata",
                ));
            }
        };
        expanded.insert(expansion.navigation.clone(), Value::Array(rows));
    }
    Ok((full, expanded))
}

/// What may be done with a table's rows: every verb for any part of the organization, or one for all of it.
fn privileges(table: &Table) -> Vec<Value> {
    let only_global = !matches!(table.ownership, Ownership::UserOwned);
    let verbs = VERBS.iter();
    verbs
        .map(|verb| {
            json!({
                "CanBeBasic": !only_global,
                "CanBeDeep": !only_global,
                "CanBeGlobal": true,
                "CanBeLocal": !only_global,
                "CanBeEntityReference": false,
                "CanBeParentEntityReference": false,
                "Name": table.privilege(verb),
                "PrivilegeId": privilege_id(table, verb),
                "PrivilegeType": verb,
            })
        })
        .collect()
}

/// The id of a privilege; tables that share one by name share it by id.
pub(crate) fn privilege_id(table: &Table, verb: &str) -> Guid {
    metadata_id(&format!("privilege {}", table.privilege(verb)))
}

fn inner(
    rows: Vec<Definition>,
    expansion: &Expansion,
    type_name: &str,
) -> Result<Vec<Value>, ApiError> {
    listed(rows, &expansion.options, type_name)
}

/// A column; what belongs to its kind only comes with the cast.
fn attribute(
    table: &Table,
    column: &Column,
    cast: Option<&str>,
    options: &Options,
) -> Result<Definition, ApiError> {
    let (kind, name) = column.kind.attribute_type();
    let mut full = map(json!({
        "@odata.type": format!("#Microsoft.Dynamics.CRM.{}", column.kind.metadata_type()),
        "MetadataId": metadata_id(&format!("{}.{}", table.name, column.name)),
        "LogicalName": column.name,
        "SchemaName": column.schema_name,
        "EntityLogicalName": table.name,
        "AttributeType": kind,
        "AttributeTypeName": {"Value": name},
        "RequiredLevel": {"Value": if column.required { "ApplicationRequired" } else { "None" }, "CanBeChanged": true, "ManagedPropertyLogicalName": "canmodifyrequirementlevelsettings"},
        "IsPrimaryId": column.name == table.primary_id,
        "IsPrimaryName": column.name == table.primary_name,
        "IsValidForRead": column.readable,
        "IsValidForCreate": column.creatable,
        "IsValidForUpdate": column.updatable,
        "IsSecured": column.secured,
        "IsCustomAttribute": column.name.contains('_') && !column.name.starts_with("address"),
        "DisplayName": label(&column.label),
    }));
    let mut expanded = Map::new();
    if cast.is_some() {
        // A cast collection is of one type: rows don't name it.
        full.remove("@odata.type");
        match column.kind {
            Kind::String | Kind::Memo => {
                drop(full.insert("MaxLength".to_owned(), json!(column.max_length)))
            }
            Kind::Decimal | Kind::Money | Kind::Double => {
                drop(full.insert("Precision".to_owned(), json!(column.precision)))
            }
            Kind::DateTime => {
                drop(full.insert("DateTimeBehavior".to_owned(), json!({"Value": "UserLocal"})))
            }
            Kind::DateOnly => {
                drop(full.insert("DateTimeBehavior".to_owned(), json!({"Value": "DateOnly"})))
            }
            kind if kind.is_lookup() => {
                let targets: Vec<_> = column
                    .targets
                    .iter()
                    .map(|target| target.table.clone())
                    .collect();
                drop(full.insert("Targets".to_owned(), json!(targets)));
            }
            _ => {}
        }
    }
    for expansion in &options.expand {
        let with_options =
            cast.is_some() && (column.kind.has_options() || column.kind == Kind::Boolean);
        let value = match expansion.navigation.as_str() {
            "OptionSet" if with_options => option_set(table, column),
            "GlobalOptionSet" if with_options => Value::Null,
            other => {
                let type_name = cast.unwrap_or("AttributeMetadata");
                return Err(ApiError::no_property(
                    other,
                    &format!("Microsoft.Dynamics.CRM.{type_name}"),
                ));
            }
        };
        expanded.insert(expansion.navigation.clone(), value);
    }
    Ok((full, expanded))
}

fn option_set(table: &Table, column: &Column) -> Value {
    let option = |value: i32, text: &str| json!({"Value": value, "Label": label(text), "Description": label(""), "Color": null, "IsManaged": true});
    let id = metadata_id(&format!("{}.{} options", table.name, column.name));
    let name = format!("{}_{}", table.name, column.name);
    if column.kind == Kind::Boolean {
        return json!({
            "MetadataId": id, "Name": name, "IsGlobal": false, "OptionSetType": "Boolean",
            "TrueOption": option(1, "Yes"), "FalseOption": option(0, "No"),
        });
    }
    let options: Vec<_> = column
        .choices
        .iter()
        .map(|choice| {
            let mut option = option(choice.value, &choice.label);
            match column.kind {
                Kind::Status => {
                    option["@odata.type"] = "#Microsoft.Dynamics.CRM.StatusOptionMetadata".into();
                    option["State"] = json!(choice.state);
                }
                Kind::State => {
                    option["@odata.type"] = "#Microsoft.Dynamics.CRM.StateOptionMetadata".into();
                    option["InvariantName"] = json!(choice.label);
                }
                _ => {}
            }
            option
        })
        .collect();
    let kind = column
        .kind
        .attribute_type()
        .0
        .replace("Virtual", "Picklist");
    json!({"MetadataId": id, "Name": name, "IsGlobal": false, "OptionSetType": kind, "Options": options})
}

fn keys(table: &Table) -> Vec<Map<String, Value>> {
    let key = |key: &super::super::schema::Key| {
        map(json!({
            "MetadataId": metadata_id(&format!("{} key {}", table.name, key.name)),
            "LogicalName": key.name.to_lowercase(),
            "SchemaName": key.name,
            "EntityLogicalName": table.name,
            "KeyAttributes": key.columns,
            "EntityKeyIndexStatus": if key.active { "Active" } else { "Pending" },
            "DisplayName": label(&key.name),
        }))
    };
    table.keys.iter().map(key).collect()
}

fn relationships(table: &Table) -> Vec<Map<String, Value>> {
    let lookups = table
        .columns
        .iter()
        .flat_map(|column| column.targets.iter().map(move |target| (column, target)));
    lookups
        .map(|(column, target)| {
            map(json!({
                "MetadataId": metadata_id(&format!("{} {} {}", table.name, column.name, target.table)),
                "SchemaName": target.back,
                "ReferencingEntity": table.name,
                "ReferencingAttribute": column.name,
                "ReferencingEntityNavigationPropertyName": target.navigation,
                "ReferencedEntity": target.table,
                "ReferencedEntityNavigationPropertyName": target.back,
            }))
        })
        .collect()
}

/// Whether a condition holds for a definition.
fn condition(filter: &Expr, full: &Map<String, Value>, type_name: &str) -> Result<bool, ApiError> {
    Ok(match filter {
        Expr::And(a, b) => condition(a, full, type_name)? & condition(b, full, type_name)?,
        Expr::Or(a, b) => condition(a, full, type_name)? | condition(b, full, type_name)?,
        Expr::Not(a) => !condition(a, full, type_name)?,
        Expr::Compare(compare, left, right) => {
            let enumerated = |side: &Operand| matches!(side, Operand::Path(path) if path.len() == 1 && ENUMS.contains(&path[0].as_str()));
            let texts = |side: &Operand| matches!(side, Operand::Literal(Cell::Text(_)));
            if enumerated(left) && texts(right) || enumerated(right) && texts(left) {
                return Err(ApiError::odata(
                    "A binary operator with incompatible types was detected: the literal of an enum is qualified, as in Microsoft.Dynamics.CRM.AttributeTypeCode'Picklist'.",
                ));
            }
            compared(
                *compare,
                &value(left, full, type_name)?,
                &value(right, full, type_name)?,
            )
        }
        Expr::Truth(side) => {
            value(side, full, type_name)?.compare(&Cell::Bool(true)) == Some(Ordering::Equal)
        }
        _ => return Err(ApiError::odata("Metadata queries take comparisons only.")),
    })
}

fn value(side: &Operand, full: &Map<String, Value>, type_name: &str) -> Result<Cell, ApiError> {
    let path = match side {
        Operand::Literal(cell) => return Ok(cell.clone()),
        Operand::Member(member) => return Ok(Cell::text(member)),
        Operand::Path(path) => path,
    };
    let missing = || {
        ApiError::no_property(
            &path.join("/"),
            &format!("Microsoft.Dynamics.CRM.{type_name}"),
        )
    };
    let (first, rest) = path.split_first().ok_or_else(missing)?;
    let mut found = full.get(first).ok_or_else(missing)?;
    for part in rest {
        found = found.get(part).ok_or_else(missing)?;
    }
    Ok(match found {
        Value::Bool(value) => Cell::Bool(*value),
        Value::Number(number) => Cell::Int(number.as_i64().unwrap_or_default()),
        Value::String(text) => text.parse().map_or_else(|_| Cell::text(text), Cell::Id),
        _ => Cell::Null,
    })
}

//! What a connection's jobs select of its objects, together.

use std::sync::Arc;

use crate::flow::connection::Selected;
use crate::mapping::compile::Mapping;
use crate::model::name::FieldName;

/// The union of the fields that jobs read, per object.
pub(super) fn selected<'a>(mappings: impl Iterator<Item = &'a Arc<Mapping>>) -> Selected {
    let mut selected = Selected::new();
    for mapping in mappings {
        let plan = mapping.plan();
        let fields = selected.entry(plan.source.clone()).or_default();
        fields.insert(FieldName::new("Id"));
        fields.extend(plan.fields.iter().cloned());
    }
    selected
}

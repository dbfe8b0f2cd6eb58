//! A writer's schema, compiled to what decoding an event needs: nodes by number, names of parts spelled out.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{NamespaceRef, RecordSchema};

/// The first field of every change event.
const HEADER: &str = "ChangeEventHeader";
/// Nodes of one schema: a real one has some hundreds.
const MOST_NODES: usize = 100_000;

/// The schema of one kind of event.
#[derive(Debug)]
pub struct EventSchema {
    /// The event's name: `AccountChangeEvent`.
    pub name: String,
    /// Its fields; the first is the header.
    pub fields: Vec<Field>,
    nodes: Vec<Node>,
}

/// A field of an event.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// How it is written.
    pub node: usize,
    /// The parts of a compound field, under the names that changes of them have (`BillingAddress.Street`).
    pub parts: Vec<String>,
}

/// How a value is written (Apache Avro Specification, "Binary Encoding").
#[derive(Debug)]
pub enum Node {
    /// Nothing.
    Null,
    /// A byte.
    Boolean,
    /// A zigzag number: milliseconds where it is a time.
    Whole,
    /// The same in days.
    Days,
    /// Four bytes.
    Float,
    /// Eight bytes.
    Double,
    /// Length and UTF-8.
    Text,
    /// Which of the symbols.
    Symbol(Vec<String>),
    /// Blocks of items.
    List(usize),
    /// Which branch, and its value.
    Union(Vec<usize>),
    /// Field after field.
    Record(Vec<(String, usize)>),
    /// What no change event has.
    Other,
}

/// A schema that is none of a change event.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It is no Avro schema.
    #[error("it is no Avro schema")]
    Avro(#[source] Box<apache_avro::Error>),
    /// It is no record.
    #[error("it is no record with `{HEADER}` as its first field")]
    NoEvent,
    /// It names what it does not define.
    #[error("it does not define `{0}`")]
    Undefined(String),
    /// It is too large.
    #[error("it has more than {MOST_NODES} nodes")]
    TooLarge,
}

impl EventSchema {
    /// Compiles a schema's JSON.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn parse(json: &str) -> Result<Self, Unusable> {
        let schema = Schema::parse_str(json).map_err(|error| Unusable::Avro(Box::new(error)))?;
        let Schema::Record(record) = &schema else {
            return Err(Unusable::NoEvent);
        };
        let mut compiler = Compiler::default();
        let root = compiler.compile(&schema, None)?;
        let nodes = compiler.nodes;
        let Some(Node::Record(fields)) = nodes.get(root) else {
            return Err(Unusable::NoEvent);
        };
        let fields: Vec<Field> = fields
            .iter()
            .map(|(name, node)| Field {
                name: name.clone(),
                node: *node,
                parts: parts(&nodes, *node)
                    .iter()
                    .map(|(part, _)| format!("{name}.{part}"))
                    .collect(),
            })
            .collect();
        let is_event = fields.first().is_some_and(|field| {
            field.name == HEADER && matches!(nodes.get(field.node), Some(Node::Record(_)))
        });
        if !is_event {
            return Err(Unusable::NoEvent);
        }
        Ok(Self {
            name: record.name.name().to_owned(),
            fields,
            nodes,
        })
    }

    /// How `node` is written.
    #[must_use]
    pub fn node(&self, node: usize) -> &Node {
        // Numbers come from the same schema.
        self.nodes.get(node).unwrap_or(&Node::Other)
    }
}

/// The parts of the record among a field's branches: two of them, or three where a text may stand instead.
fn parts(nodes: &[Node], node: usize) -> &[(String, usize)] {
    match nodes.get(node) {
        Some(Node::Record(fields)) => fields,
        Some(Node::Union(branches)) => branches
            .iter()
            .find_map(|branch| match nodes.get(*branch) {
                Some(Node::Record(fields)) => Some(fields.as_slice()),
                _ => None,
            })
            .unwrap_or_default(),
        _ => &[],
    }
}

#[derive(Default)]
struct Compiler {
    nodes: Vec<Node>,
    /// Nodes by full name: an address is defined once and named ever after.
    named: HashMap<String, usize>,
}

impl Compiler {
    fn compile(&mut self, schema: &Schema, space: NamespaceRef<'_>) -> Result<usize, Unusable> {
        if let Schema::Ref { name } = schema {
            let name = name.fullname(space);
            return match self.named.get(&name) {
                Some(node) => Ok(*node),
                None => Err(Unusable::Undefined(name)),
            };
        }
        let at = self.nodes.len();
        if at >= MOST_NODES {
            return Err(Unusable::TooLarge);
        }
        self.nodes.push(Node::Other);
        let node = match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int
            | Schema::Long
            | Schema::TimeMillis
            | Schema::TimestampMillis
            | Schema::LocalTimestampMillis => Node::Whole,
            Schema::Date => Node::Days,
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::String => Node::Text,
            Schema::Enum(symbols) => {
                self.named.insert(symbols.name.fullname(space), at);
                Node::Symbol(symbols.symbols.clone())
            }
            Schema::Array(list) => Node::List(self.compile(&list.items, space)?),
            Schema::Union(union) => {
                let branches = union.variants().iter();
                let branches = branches.map(|branch| self.compile(branch, space));
                Node::Union(branches.collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => self.record(record, at, space)?,
            _ => Node::Other,
        };
        if let Some(own) = self.nodes.get_mut(at) {
            *own = node;
        }
        Ok(at)
    }

    fn record(
        &mut self,
        record: &RecordSchema,
        at: usize,
        space: NamespaceRef<'_>,
    ) -> Result<Node, Unusable> {
        self.named.insert(record.name.fullname(space), at);
        let space = record.name.namespace().or(space);
        let mut fields = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            fields.push((field.name.clone(), self.compile(&field.schema, space)?));
        }
        Ok(Node::Record(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_event_is_refused() {
        for json in [
            "",
            "{}",
            "\"string\"",
            r#"{"type":"record","name":"A","fields":[]}"#,
            r#"{"type":"record","name":"A","fields":[{"name":"ChangeEventHeader","type":"string"}]}"#,
            r#"{"type":"record","name":"A","fields":[{"name":"Name","type":"string"}]}"#,
        ] {
            assert!(EventSchema::parse(json).is_err(), "{json}");
        }
    }
}

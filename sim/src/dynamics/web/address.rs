//! What a URL names: segments, each with the keys in its parentheses.

use super::super::cell::Cell;
use super::super::error::ApiError;
use super::super::guid::Guid;
use super::super::odata::options::split;
use super::super::odata::percent;
use super::super::schema::Table;
use super::super::store::Rows;

/// A URL's path, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub segments: Vec<Segment>,
}

/// `accounts(…)`: a name, and what is in the parentheses.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub name: String,
    /// Absent without parentheses.
    pub arguments: Option<Vec<(Option<String>, String)>>,
}

impl Address {
    /// Reads a path as it came, escapes and all.
    pub fn read(path: &str) -> Result<Self, ApiError> {
        let mut segments = Vec::new();
        for part in split(&percent::decode(&path.replace('+', "%2B")), '/')? {
            if part.is_empty() {
                continue;
            }
            segments.push(Segment::read(part)?);
        }
        Ok(Self { segments })
    }

    /// The resource, without its keys, for counting.
    pub fn resource(&self) -> String {
        let names: Vec<_> = self
            .segments
            .iter()
            .map(|segment| segment.name.as_str())
            .collect();
        names.join("/")
    }
}

impl Segment {
    fn read(part: &str) -> Result<Self, ApiError> {
        let Some((name, rest)) = part.split_once('(') else {
            return Ok(Self {
                name: part.to_owned(),
                arguments: None,
            });
        };
        let inner = rest
            .strip_suffix(')')
            .ok_or_else(|| ApiError::no_segment(part))?;
        let mut arguments = Vec::new();
        for argument in split(inner, ',')?
            .into_iter()
            .filter(|argument| !argument.trim().is_empty())
        {
            let named = argument
                .split_once('=')
                .filter(|(name, _)| !name.contains('\''));
            arguments.push(match named {
                Some((name, value)) => (Some(name.trim().to_owned()), value.trim().to_owned()),
                None => (None, argument.trim().to_owned()),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            arguments: Some(arguments),
        })
    }
}

/// How a row is named.
#[derive(Debug, Clone)]
pub(crate) enum RowKey {
    Id(Guid),
    /// The columns of an alternate key and their values.
    Alternate(String, Vec<(usize, Cell)>),
}

/// Signs that no key's value may hold in a URL.
const UNADDRESSABLE: &[char] = &['/', '<', '>', '*', '%', '&', ':', '\\', '?', '+'];

/// The row that the parentheses name.
pub(crate) fn row_key(
    table: &Table,
    arguments: &[(Option<String>, String)],
) -> Result<RowKey, ApiError> {
    let bad = || {
        ApiError::odata(format!(
            "The key value from the request URI is not valid for {}.",
            table.type_name()
        ))
    };
    if let [(name, value)] = arguments
        && name.as_ref().is_none_or(|name| *name == table.primary_id)
    {
        return value.parse().map(RowKey::Id).map_err(|_| bad());
    }
    let mut cells = Vec::new();
    let mut names = Vec::new();
    for (name, value) in arguments {
        let name = name.as_deref().ok_or_else(bad)?;
        let place = table
            .property(name)
            .or_else(|| table.place(name))
            .ok_or_else(bad)?;
        let column = &table.columns[place];
        let text = match value
            .strip_prefix('\'')
            .and_then(|value| value.strip_suffix('\''))
        {
            Some(text) => text.replace("''", "'"),
            None => value.clone(),
        };
        if value.starts_with('\'') && text.contains(UNADDRESSABLE) {
            return Err(bad());
        }
        cells.push((place, Cell::parse(column, &text).map_err(|_| bad())?));
        names.push(column.name.as_str());
    }
    let key = table.key(&names).ok_or_else(|| {
        ApiError::odata("The specified key properties aren't defined, or the index of the key isn't active, for this entity.")
    })?;
    Ok(RowKey::Alternate(key.name.clone(), cells))
}

/// The id of a row that is there.
pub(crate) fn find(rows: &Rows, key: &RowKey) -> Result<Guid, ApiError> {
    match key {
        RowKey::Id(id) => rows
            .row(*id)
            .map(|_| *id)
            .ok_or_else(|| ApiError::no_row(&rows.table.name, *id)),
        RowKey::Alternate(name, cells) => {
            let key = rows.table.keys.iter().find(|key| key.name == *name);
            let found = key.and_then(|key| rows.keyed(key, cells));
            found.ok_or_else(|| ApiError::no_keyed_row(&rows.table.name))
        }
    }
}

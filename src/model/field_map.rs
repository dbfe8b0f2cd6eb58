//! A map from field names, as small and as cheap to lend as records need it: sorted, shared until somebody writes.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Index;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::name::FieldName;

/// Values by field, in the order of the names.
///
/// A clone shares the entries; the first write to one of two that share copies them. An image is lent to a change, to
/// a step and to a store this way, and is copied once where it is changed. Lists are short and mostly written in their
/// order, which is an append.
#[derive(Clone, PartialEq, Eq)]
pub struct FieldMap<V>(Arc<Vec<(FieldName, V)>>);

impl<V> FieldMap<V> {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Vec::new()))
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, field: &(impl Borrow<str> + ?Sized)) -> Option<&V> {
        let at = self.place(field.borrow()).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// As [`FieldMap::get`], looking at `near` first, which stands behind what was found afterwards: whoever asks in
    /// the order of the names finds most of them at once.
    #[must_use]
    pub fn get_near(&self, field: &FieldName, near: &mut usize) -> Option<&V> {
        let at = place_near(&self.0, field, *near).ok()?;
        *near = at + 1;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Whether a field is there.
    #[must_use]
    pub fn contains_key(&self, field: &(impl Borrow<str> + ?Sized)) -> bool {
        self.place(field.borrow()).is_ok()
    }

    /// The fields with their values, in order.
    pub fn iter(&self) -> Iter<'_, V> {
        Iter(self.0.iter())
    }

    /// The fields, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &FieldName> + ExactSizeIterator {
        self.0.iter().map(|(field, _)| field)
    }

    /// The values, in the order of their fields.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + ExactSizeIterator {
        self.0.iter().map(|(_, value)| value)
    }

    /// Where a field is, or where it belongs. Lists are written in their order, as a rule: the end is tried first.
    fn place(&self, field: &str) -> Result<usize, usize> {
        place(&self.0, field)
    }
}

fn place<V>(entries: &[(FieldName, V)], field: &str) -> Result<usize, usize> {
    match entries.last() {
        Some((last, _)) if last.as_str() < field => Err(entries.len()),
        _ => entries.binary_search_by(|(own, _)| own.as_str().cmp(field)),
    }
}

fn place_near<V>(
    entries: &[(FieldName, V)],
    field: &FieldName,
    near: usize,
) -> Result<usize, usize> {
    match entries.get(near) {
        Some((own, _)) if own == field => Ok(near),
        _ => place(entries, field.as_str()),
    }
}

impl<V: Clone> FieldMap<V> {
    /// The value of a field, to be changed.
    pub fn get_mut(&mut self, field: &(impl Borrow<str> + ?Sized)) -> Option<&mut V> {
        let at = self.place(field.borrow()).ok()?;
        Arc::make_mut(&mut self.0)
            .get_mut(at)
            .map(|(_, value)| value)
    }

    /// Sets a field; its former value.
    pub fn insert(&mut self, field: FieldName, value: V) -> Option<V> {
        let place = self.place(field.as_str());
        let entries = Arc::make_mut(&mut self.0);
        match place {
            Ok(at) => entries
                .get_mut(at)
                .map(|(_, held)| std::mem::replace(held, value)),
            Err(at) => {
                entries.insert(at, (field, value));
                None
            }
        }
    }

    /// Sets fields, fastest in the order of their names.
    pub fn merge<'a>(&mut self, told: impl IntoIterator<Item = (&'a FieldName, V)>) {
        let entries = Arc::make_mut(&mut self.0);
        let mut near = 0;
        for (field, value) in told {
            let at = match place_near(entries, field, near) {
                Ok(at) => {
                    if let Some((_, held)) = entries.get_mut(at) {
                        *held = value;
                    }
                    at
                }
                Err(at) => {
                    entries.insert(at, (field.clone(), value));
                    at
                }
            };
            near = at + 1;
        }
    }

    /// Takes a field out.
    pub fn remove(&mut self, field: &(impl Borrow<str> + ?Sized)) -> Option<V> {
        let at = self.place(field.borrow()).ok()?;
        let (_, value) = Arc::make_mut(&mut self.0).remove(at);
        Some(value)
    }

    /// Leaves only what `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&FieldName, &V) -> bool) {
        if self.0.iter().any(|(field, value)| !keep(field, value)) {
            Arc::make_mut(&mut self.0).retain(|(field, value)| keep(field, value));
        }
    }

    /// The fields alone, in order.
    pub fn into_keys(self) -> impl Iterator<Item = FieldName> {
        self.into_iter().map(|(field, _)| field)
    }

    /// Leaves nothing.
    pub fn clear(&mut self) {
        *self = Self::new();
    }
}

impl<V> Default for FieldMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: fmt::Debug> fmt::Debug for FieldMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<V, N: Borrow<str> + ?Sized> Index<&N> for FieldMap<V> {
    type Output = V;

    #[expect(
        clippy::panic,
        reason = "whoever indexes a map says that the key is there"
    )]
    fn index(&self, field: &N) -> &V {
        match self.get(field) {
            Some(value) => value,
            None => panic!("there is no field {:?}", field.borrow()),
        }
    }
}

impl<V: Clone> FromIterator<(FieldName, V)> for FieldMap<V> {
    fn from_iter<I: IntoIterator<Item = (FieldName, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl<V: Clone, const N: usize> From<[(FieldName, V); N]> for FieldMap<V> {
    fn from(entries: [(FieldName, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<V: Clone> Extend<(FieldName, V)> for FieldMap<V> {
    fn extend<I: IntoIterator<Item = (FieldName, V)>>(&mut self, entries: I) {
        let entries = entries.into_iter();
        Arc::make_mut(&mut self.0).reserve(entries.size_hint().0);
        for (field, value) in entries {
            self.insert(field, value);
        }
    }
}

impl<V: Clone> IntoIterator for FieldMap<V> {
    type Item = (FieldName, V);
    type IntoIter = std::vec::IntoIter<(FieldName, V)>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}

impl<'a, V> IntoIterator for &'a FieldMap<V> {
    type Item = (&'a FieldName, &'a V);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Fields with their values, in order.
#[derive(Clone)]
pub struct Iter<'a, V>(std::slice::Iter<'a, (FieldName, V)>);

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (&'a FieldName, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(field, value)| (field, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<V> ExactSizeIterator for Iter<'_, V> {}

impl<V: Serialize> Serialize for FieldMap<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de, V: Deserialize<'de> + Clone> Deserialize<'de> for FieldMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

struct Entries<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de> + Clone> Visitor<'de> for Entries<V> {
    type Value = FieldMap<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = FieldMap::new();
        while let Some((field, value)) = map.next_entry()? {
            fields.insert(field, value);
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn name(number: u8) -> FieldName {
        FieldName::new(format!("F{number}"))
    }

    proptest! {
        /// Whatever is done to it, it holds what a tree holds, in the same order, and reads back.
        #[test]
        fn it_is_a_map(deeds in prop::collection::vec((0..5_u8, 0..20_u8, any::<u8>()), 0..80)) {
            let (mut map, mut tree) = (FieldMap::new(), BTreeMap::new());
            for (deed, field, value) in deeds {
                let lent = map.clone();
                let before = tree.clone();
                match deed {
                    0 | 1 => prop_assert_eq!(
                        map.insert(name(field), value),
                        tree.insert(name(field), value)
                    ),
                    2 => prop_assert_eq!(map.remove(&name(field)), tree.remove(&name(field))),
                    3 => {
                        let told = [name(field), name(field / 2), name(value % 20)];
                        map.merge(told.iter().map(|field| (field, value)));
                        tree.extend(told.map(|field| (field, value)));
                    }
                    _ => {
                        map.retain(|_, held| held % 2 == value % 2);
                        tree.retain(|_, held| *held % 2 == value % 2);
                    }
                }
                prop_assert!(map.iter().eq(tree.iter()));
                prop_assert!(lent.iter().eq(before.iter()), "a write is seen by whom it was lent to");
                let mut near = usize::from(value % 20);
                for field in [name(field), name(value % 20)] {
                    prop_assert_eq!(map.get(&field), tree.get(&field));
                    prop_assert_eq!(map.get_near(&field, &mut near), tree.get(&field));
                }
            }
            let json = serde_json::to_string(&map).unwrap();
            prop_assert_eq!(&json, &serde_json::to_string(&tree).unwrap());
            prop_assert_eq!(serde_json::from_str::<FieldMap<u8>>(&json).unwrap(), map);
        }
    }

    #[test]
    fn the_last_of_two_values_counts() {
        let map: FieldMap<u8> = serde_json::from_str(r#"{"B":1,"A":2,"B":3}"#).unwrap();
        assert_eq!(map, FieldMap::from([("A".into(), 2), ("B".into(), 3)]));
        assert!(serde_json::from_str::<FieldMap<u8>>("[]").is_err());
    }
}

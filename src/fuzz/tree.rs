//! Documents that are well formed and mean something else: parts of some in the places of parts of others.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Rng;

/// Documents to take parts from.
pub(crate) struct Forest {
    documents: Vec<Value>,
    /// What stands under a key.
    values: BTreeMap<String, Vec<Value>>,
    /// The entries of objects under a key, or under a name that stands under a key (`services/*`).
    entries: BTreeMap<String, Vec<(String, Value)>>,
    scalars: Vec<Value>,
}

/// The last two keys on the way to a value.
#[derive(Clone, Copy)]
struct At<'a> {
    parent: &'a str,
    key: &'a str,
}

const ROOT: At<'_> = At { parent: "", key: "" };

impl At<'_> {
    fn names(self) -> [String; 2] {
        [self.key.to_owned(), format!("{}/*", self.parent)]
    }
}

impl Forest {
    /// Takes these documents apart. `words` become strings, or numbers and the like where they are that.
    pub(crate) fn new(documents: Vec<Value>, words: &[&str]) -> Self {
        let scalars = words.iter().map(|word| serde_json::from_str(word).unwrap_or_else(|_| Value::from(*word)));
        let mut forest = Self {
            documents: Vec::new(),
            values: BTreeMap::new(),
            entries: BTreeMap::new(),
            scalars: scalars.collect(),
        };
        for document in &documents {
            forest.take_apart(document, ROOT);
        }
        forest.documents = documents;
        forest
    }

    fn take_apart(&mut self, value: &Value, at: At<'_>) {
        self.values.entry(at.key.to_owned()).or_default().push(value.clone());
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    for name in at.names() {
                        self.entries.entry(name).or_default().push((key.clone(), member.clone()));
                    }
                    self.take_apart(member, At { parent: at.key, key });
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.take_apart(item, At { parent: at.key, key: "[]" });
                }
            }
            _ => {}
        }
    }

    /// One document.
    pub(crate) fn document(&self, rng: &mut Rng) -> Value {
        let mut document = rng.pick(&self.documents).clone();
        let changes = if rng.one_in(4) { 12 } else { 4 };
        for _ in 0..rng.below(changes) {
            self.change(rng, &mut document);
        }
        document
    }

    /// Changes something somewhere in a document.
    pub(crate) fn change(&self, rng: &mut Rng, document: &mut Value) {
        let at = rng.below(count(document));
        self.change_at(rng, document, ROOT, &mut { at });
    }

    /// Goes to the value that is `left` values behind this one.
    fn change_at(&self, rng: &mut Rng, value: &mut Value, at: At<'_>, left: &mut usize) -> bool {
        if *left == 0 {
            self.change_this(rng, value, at);
            return true;
        }
        *left -= 1;
        match value {
            Value::Object(members) => {
                members.iter_mut().any(|(key, member)| self.change_at(rng, member, At { parent: at.key, key }, left))
            }
            Value::Array(items) => {
                items.iter_mut().any(|item| self.change_at(rng, item, At { parent: at.key, key: "[]" }, left))
            }
            _ => false,
        }
    }

    fn change_this(&self, rng: &mut Rng, value: &mut Value, at: At<'_>) {
        match (rng.below(8), value) {
            (0..4, Value::Object(members)) => self.change_members(rng, members, at),
            (0..2, Value::Array(items)) if !items.is_empty() => {
                let index = rng.below(items.len());
                if rng.one_in(2) {
                    items.remove(index);
                } else {
                    let more = items[index].clone();
                    items.resize(items.len() + if rng.one_in(16) { 100 } else { 1 }, more);
                }
            }
            (2..4, Value::Array(items)) => items.push(self.any(rng, at.key)),
            (0..2, Value::String(text)) => {
                let place = text.char_indices().map(|(at, _)| at).nth(rng.below(text.chars().count() + 1));
                let word = rng.pick(&self.scalars).as_str().unwrap_or("x").to_owned();
                text.insert_str(place.unwrap_or(text.len()), &word);
            }
            (2, Value::String(text)) => {
                text.pop();
            }
            (0..2, value @ Value::Number(_)) => {
                let numbers = [-1, 0, 1, 2, 65535, 65536, i64::from(i32::MAX), i64::MAX, i64::MIN];
                *value = Value::from(*rng.pick(&numbers));
            }
            (4..7, value) => *value = self.any(rng, at.key),
            (_, value) => *value = rng.pick(&self.scalars).clone(),
        }
    }

    fn change_members(&self, rng: &mut Rng, members: &mut Map<String, Value>, at: At<'_>) {
        let key = members.keys().nth(rng.below(members.len())).cloned();
        match (rng.below(6), key) {
            (0, Some(key)) => drop(members.shift_remove(&key)),
            (1, Some(key)) => {
                let value = members[&key].clone();
                let name = rng.pick(&self.scalars).as_str().unwrap_or(&key).to_owned();
                members.insert(name, value);
            }
            _ => {
                let [own, named] = at.names();
                let like = if rng.one_in(2) { [&own, &named] } else { [&named, &own] };
                if let Some(entries) = like.into_iter().find_map(|name| self.entries.get(name)) {
                    let (key, value) = rng.pick(entries).clone();
                    members.insert(key, value);
                }
            }
        }
    }

    /// Something that stands under this key somewhere, or under any.
    fn any(&self, rng: &mut Rng, key: &str) -> Value {
        if let Some(values) = self.values.get(key).filter(|_| !rng.one_in(6)) {
            return rng.pick(values).clone();
        }
        if rng.one_in(2) {
            return rng.pick(&self.scalars).clone();
        }
        let keys: Vec<&String> = self.values.keys().collect();
        let key = *rng.pick(&keys);
        rng.pick(&self.values[key]).clone()
    }
}

/// How many values there are, this one included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(members) => members.values().map(count).sum(),
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

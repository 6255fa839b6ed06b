//! The tree that YAML text becomes: every node knows its place, scalars keep their text and style.
//!
//! Subtrees that an alias or a merge key reaches are shared, not copied; [`Size`] counts them each time they are reached.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::Location;
use super::scalar::{self, Resolved};

/// A place in one of the files that make up a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Index into the [`Sources`].
    pub(super) file: u16,
    /// Line and column.
    pub(super) location: Location,
}

/// One of the files that make up a project.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// What errors call it.
    pub(super) name: String,
    /// What its relative paths are relative to: absolute and clean.
    pub(super) directory: String,
    /// What its `${…}` sees.
    pub(super) variables: Arc<BTreeMap<String, String>>,
}

/// The files that make up a project.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources(Vec<Source>);

impl Sources {
    /// How many files one project may have.
    pub(super) const MAX: usize = 1000;

    /// Adds a file and gives its index; none when there are too many.
    pub(super) fn add(&mut self, source: Source) -> Option<u16> {
        if self.0.len() >= Self::MAX {
            return None;
        }
        self.0.push(source);
        u16::try_from(self.0.len() - 1).ok()
    }

    /// The file that a place is in.
    pub(super) fn at(&self, place: Place) -> &Source {
        &self.0[usize::from(place.file)]
    }
}

/// How a scalar was written, as far as its meaning depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Unquoted: may be a number, a boolean or null.
    Plain,
    /// Quoted, a block scalar or tagged `!!str`: always a string.
    Quoted,
    /// The result of interpolation: a string that is cast to the type of its field.
    Interpolated,
}

/// A scalar.
#[derive(Clone)]
pub(super) struct Scalar {
    pub(super) text: Box<str>,
    pub(super) style: Style,
}

impl Scalar {
    /// What it means.
    pub(super) fn resolve(&self) -> Resolved<'_> {
        if self.style == Style::Plain { scalar::resolve(&self.text) } else { Resolved::Text(&self.text) }
    }

    /// Its text where a string is expected but numbers and booleans are allowed too; none for null.
    pub(super) fn as_text(&self) -> Option<Cow<'_, str>> {
        self.resolve().into_text()
    }
}

/// What a subtree costs whoever walks it, shared parts counted each time they are reached.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    /// Nodes.
    pub(super) nodes: u32,
    /// Bytes of scalar text and keys.
    pub(super) bytes: u32,
    /// Levels.
    pub(super) height: u16,
    /// Whether a `$` is in it: the rest needs no interpolation.
    pub(super) has_dollar: bool,
    /// Whether a [`MergeTag`] is in it.
    pub(super) has_tag: bool,
}

impl Size {
    /// Grows by a child.
    pub(super) fn add(&mut self, child: Self) {
        self.nodes = self.nodes.saturating_add(child.nodes);
        self.bytes = self.bytes.saturating_add(child.bytes);
        self.height = self.height.max(child.height.saturating_add(1));
        self.has_dollar |= child.has_dollar;
        self.has_tag |= child.has_tag;
    }
}

/// How a node meets one that another file has at its place (Compose Specification, "Merge").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MergeTag {
    /// `!reset`: both go.
    Reset,
    /// `!override`: the other one goes.
    Override,
}

/// A node of the tree.
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
    pub(super) size: Size,
    pub(super) tag: Option<MergeTag>,
}

/// What a node holds.
pub(super) enum Value {
    Scalar(Scalar),
    Sequence(Vec<Arc<Node>>),
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: Arc<str>,
    pub(super) place: Place,
    pub(super) value: Arc<Node>,
}

impl Node {
    /// A scalar.
    pub(super) fn scalar(place: Place, text: &str, style: Style) -> Self {
        let size = Size {
            nodes: 1,
            bytes: u32::try_from(text.len()).unwrap_or(u32::MAX),
            height: 1,
            has_dollar: text.contains('$'),
            has_tag: false,
        };
        Self { place, value: Value::Scalar(Scalar { text: text.into(), style }), size, tag: None }
    }

    /// A sequence.
    pub(super) fn sequence(place: Place, items: Vec<Arc<Self>>) -> Self {
        let mut size = Size { nodes: 1, height: 1, ..Size::default() };
        for item in &items {
            size.add(item.size);
        }
        Self { place, value: Value::Sequence(items), size, tag: None }
    }

    /// A mapping.
    pub(super) fn mapping(place: Place, entries: Vec<Entry>) -> Self {
        let mut size = Size { nodes: 1, height: 1, ..Size::default() };
        for entry in &entries {
            size.add(entry.value.size);
            size.bytes = size.bytes.saturating_add(u32::try_from(entry.key.len()).unwrap_or(u32::MAX));
        }
        Self { place, value: Value::Mapping(entries), size, tag: None }
    }

    /// The same node with another tag.
    pub(super) fn tagged(mut self, tag: Option<MergeTag>) -> Self {
        self.size.has_tag |= tag.is_some();
        Self { tag, ..self }
    }

    /// Whether both say the same, wherever they stand.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Scalar(a), Value::Scalar(b)) => a.resolve() == b.resolve(),
            (Value::Sequence(a), Value::Sequence(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.says_the_same(b))
            }
            (Value::Mapping(a), Value::Mapping(b)) => {
                let matches =
                    |entry: &Entry| other.get(&entry.key).is_some_and(|b| entry.value.says_the_same(&b.value));
                a.len() == b.len() && a.iter().all(matches)
            }
            _ => false,
        }
    }

    /// The entries of a mapping; none for anything else.
    pub(super) fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entry of a mapping under this key.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| &*entry.key == key)
    }

    /// What it is, for an error.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(scalar) => scalar.resolve().kind(),
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// The items of a sequence; none for anything else.
    pub(super) fn items(&self) -> Option<&[Arc<Self>]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a scalar that is a string; none for anything else.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => match scalar.resolve() {
                Resolved::Text(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it is null: nothing, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.resolve() == Resolved::Null)
    }
}

impl Entry {
    /// Where a reader should look: at the value when it is written on its own, else at the key.
    pub(super) fn spot(&self) -> Place {
        match &self.value.value {
            Value::Scalar(scalar) if !scalar.text.is_empty() => self.value.place,
            _ => self.place,
        }
    }
}

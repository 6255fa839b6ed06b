//! Where a field path such as `services.web.ports[1]` stands in the file, for rooms that refuse a resolved model.

use std::fmt;
use std::sync::Arc;

use super::error::Location;
use super::node::{Entry, Node, Place, Sources, Value};

/// The places of a loaded project's fields.
#[derive(Clone)]
pub struct Locations {
    root: Arc<Node>,
    sources: Sources,
}

impl Locations {
    pub(super) fn new(root: Arc<Node>, sources: Sources) -> Self {
        Self { root, sources }
    }

    /// The file and the location of a field, else of its nearest parent that is in a file. None when not even the first
    /// step is.
    ///
    /// Names may hold dots; the longest one that fits is taken. In a list, `[n]` is the item at that index, and a name
    /// is the item that begins with it (`environment.KEY` where the file has `- KEY=value`).
    pub fn locate(&self, field: &str) -> Option<(&str, Location)> {
        let (mut node, mut found, mut rest) = (&self.root, None, field);
        while !rest.is_empty() {
            let Some((child, place, after)) = step(node, rest) else { break };
            (node, found, rest) = (child, Some(place), after);
        }
        found.map(|place| (self.sources.at(place).name.as_str(), place.location))
    }
}

impl fmt::Debug for Locations {
    /// Without the tree, which holds the document's values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locations(…)")
    }
}

fn step<'a, 'f>(node: &'a Arc<Node>, field: &'f str) -> Option<(&'a Arc<Node>, Place, &'f str)> {
    let field = field.strip_prefix('.').unwrap_or(field);
    match &node.value {
        Value::Scalar(_) => None,
        Value::Mapping(entries) => {
            let fits = |entry: &&Entry| after_name(field, &entry.key).is_some();
            let entry = entries.iter().filter(fits).max_by_key(|entry| entry.key.len())?;
            Some((&entry.value, entry.spot(), after_name(field, &entry.key)?))
        }
        Value::Sequence(items) => {
            if let Some(inner) = field.strip_prefix('[') {
                let (index, after) = inner.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                return Some((item, item.place, after));
            }
            let named =
                |item: &&Arc<Node>| matches!(&item.value, Value::Scalar(scalar) if item_name(&scalar.text) == field);
            let item = items.iter().find(named)?;
            Some((item, item.place, ""))
        }
    }
}

/// What follows a name at the start of a path.
fn after_name<'f>(field: &'f str, name: &str) -> Option<&'f str> {
    let after = field.strip_prefix(name)?;
    (!name.is_empty() && (after.is_empty() || after.starts_with(['.', '[']))).then_some(after)
}

/// The name in `NAME=value`, `host:address` or plain `name`.
fn item_name(text: &str) -> &str {
    text.split(['=', ':']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::yaml;

    #[test]
    fn fields_are_found_or_their_parents() {
        let text = "\
services:
  my.web:
    image: x
    ports:
      - 80:80
      - '81:81'
    environment: [A=1, B=2]
    labels:
      com.docker.x: y
    privileged:
";
        let root = yaml::parse(text.as_bytes(), 0, "compose.yaml").expect("YAML").remove(0);
        let mut sources = Sources::default();
        let (name, directory) = ("compose.yaml".to_owned(), "/".to_owned());
        sources.add(crate::compose::node::Source { name, directory, variables: Arc::default() });
        let locations = Locations::new(root, sources);
        for (field, place) in [
            ("services.my.web.image", Some((3, 12))),
            ("services.my.web.ports[1]", Some((6, 9))),
            ("services.my.web.ports[7]", Some((4, 5))),
            ("services.my.web.environment.B", Some((7, 24))),
            ("services.my.web.environment.C", Some((7, 5))),
            ("services.my.web.labels.com.docker.x", Some((9, 21))),
            ("services.my.web.privileged", Some((10, 5))),
            ("services.my.web.missing.more[3]", Some((2, 3))),
            ("services.other", Some((1, 1))),
            ("networks.x", None),
            ("", None),
        ] {
            let found = locations.locate(field).map(|(_, location)| (location.line, location.column));
            assert_eq!(found, place, "{field}");
        }
    }
}

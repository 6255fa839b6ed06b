//! Two trees that speak about the same thing become one (Compose Specification, "Merge"): several files of one project,
//! and a service with the one it extends.
//!
//! Mappings merge key by key, lists append, scalars replace; what differs from that stands in [`rule`]. Doubles in lists
//! are the readers' business: they know what makes two ports or two mounts the same. Every node keeps its own place.

use std::sync::Arc;

use super::node::{Entry, MergeTag, Node, Place, Style, Value};
use super::scalar::Resolved;

/// Entries and items that the merges of one project may copy: a few bytes of `extends` can ask for a lot of it.
const MAX_COPIED: usize = 2_000_000;

/// Why two trees cannot be merged.
pub(super) struct Fault {
    /// Where the later one stands.
    pub(super) place: Place,
    /// The path of both, such as `services.web.ports`.
    pub(super) field: String,
    pub(super) reason: String,
}

/// How two nodes at one path become one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Mappings by key, lists appended, scalars replaced.
    ByKind,
    /// The later one counts alone.
    Replace,
    /// `{a: b}` or `[a=b]`: by key.
    Pairs,
    /// A string or a list: appended.
    List,
    /// A string or a list: what is not there yet is appended.
    Set,
    /// Names, or a mapping from names to details: by name.
    Names,
    /// A mapping from hosts to addresses, or a list of `host:address`: every address counts.
    Hosts,
    /// A context, or a mapping that may have one.
    Build,
    /// By key when both name the same driver, else the later one counts alone.
    Logging,
    /// Address pools: by subnet.
    Pools,
}

fn rule(path: &[Arc<str>]) -> Rule {
    let path: Vec<&str> = path.iter().map(|step| &**step).collect();
    match path[..] {
        [extension] if extension.starts_with("x-") => Rule::Replace,
        // A variable or label without a value says something too: it takes the other one's place.
        ["services", _, "annotations" | "environment" | "labels" | "sysctls", _]
        | ["services", _, "build", "additional_contexts" | "args" | "labels", _]
        | ["services", _, "deploy", "labels", _]
        | ["networks" | "volumes" | "configs" | "secrets", _, "labels", _] => Rule::Replace,
        ["services", _, "command" | "entrypoint" | "provider"]
        | ["services", _, "healthcheck", "test"]
        | ["services", _, "ulimits", _] => Rule::Replace,
        ["services", _, "annotations" | "environment" | "labels" | "sysctls"]
        | ["services", _, "build", "additional_contexts" | "args" | "labels"]
        | ["services", _, "deploy", "labels"]
        | ["networks" | "volumes" | "configs" | "secrets", _, "labels"] => Rule::Pairs,
        ["services", _, "dns" | "dns_opt" | "dns_search" | "label_file" | "tmpfs"] => Rule::List,
        [
            "services",
            _,
            "device_cgroup_rules" | "env_file" | "external_links" | "group_add" | "security_opt" | "volumes_from",
        ]
        | ["services", _, "build", "platforms" | "tags"] => Rule::Set,
        ["services", _, "depends_on" | "models" | "networks"] => Rule::Names,
        ["services", _, "extra_hosts"] | ["services", _, "build", "extra_hosts"] => Rule::Hosts,
        ["services", _, "build"] => Rule::Build,
        ["services", _, "logging"] => Rule::Logging,
        ["networks", _, "ipam", "config"] => Rule::Pools,
        _ => Rule::ByKind,
    }
}

/// Merges trees and counts what it costs.
pub(super) struct Merger {
    path: Vec<Arc<str>>,
    left: usize,
}

type Result<T> = std::result::Result<T, Fault>;

impl Merger {
    pub(super) fn new() -> Self {
        Self { path: Vec::new(), left: MAX_COPIED }
    }

    /// A whole document over another one.
    pub(super) fn documents(&mut self, base: &Arc<Node>, over: &Arc<Node>) -> Result<Arc<Node>> {
        self.path.clear();
        self.merge(base, over)
    }

    /// A service over the one it extends.
    pub(super) fn services(&mut self, name: &Arc<str>, base: &Arc<Node>, over: &Arc<Node>) -> Result<Arc<Node>> {
        self.path = vec!["services".into(), Arc::clone(name)];
        self.merge(base, over)
    }

    fn fault(&self, place: Place, reason: impl Into<String>) -> Fault {
        Fault { place, field: self.path.join("."), reason: reason.into() }
    }

    fn mismatch(&self, base: &Node, over: &Node) -> Fault {
        self.fault(over.place, format!("cannot replace {}: it must be one too", base.kind()))
    }

    fn copy(&mut self, count: usize, place: Place) -> Result<()> {
        self.left =
            self.left.checked_sub(count).ok_or_else(|| self.fault(place, "merging makes the project too large"))?;
        Ok(())
    }

    /// Recursion is bounded by the depth that the YAML reader admits.
    fn merge(&mut self, base: &Arc<Node>, over: &Arc<Node>) -> Result<Arc<Node>> {
        // A reset stays as a mark until the last file has been merged: it also resets what an earlier file has.
        if over.tag.is_some() || base.tag == Some(MergeTag::Reset) {
            return Ok(Arc::clone(over));
        }
        let rule = rule(&self.path);
        if rule == Rule::Replace {
            return Ok(Arc::clone(over));
        }
        if over.is_null() {
            return Ok(Arc::clone(base));
        }
        if base.is_null() {
            return Ok(Arc::clone(over));
        }
        match rule {
            Rule::Pairs if !same_kind(base, over) => self.mappings(&pairs(base), &pairs(over)),
            Rule::Names if !same_kind(base, over) || over.items().is_some() => {
                let condition = self.path.last().is_some_and(|step| &**step == "depends_on");
                self.mappings(&names(base, condition), &names(over, condition))
            }
            Rule::Hosts => self.union(&hosts(base), &hosts(over)),
            Rule::List => self.sequences(&list(base), &list(over)),
            Rule::Set => self.union(&list(base), &list(over)),
            Rule::Build => self.mappings(&context(base), &context(over)),
            Rule::Pools => self.pools(base, over),
            Rule::Logging if differs(base, over, "driver") => Ok(Arc::clone(over)),
            _ => match (&base.value, &over.value) {
                (Value::Mapping(_), Value::Mapping(_)) => self.mappings(base, over),
                (Value::Sequence(_), Value::Sequence(_)) => self.sequences(base, over),
                (Value::Scalar(_), Value::Scalar(_)) => Ok(Arc::clone(over)),
                // A reader that takes both forms says what it thinks of them; here one of them must be wrong.
                (Value::Scalar(_), _) => Ok(Arc::clone(over)),
                // What an extension means is its author's own business.
                _ if self.path.iter().any(|step| step.starts_with("x-")) => Ok(Arc::clone(over)),
                _ => Err(self.mismatch(base, over)),
            },
        }
    }

    fn mappings(&mut self, base: &Arc<Node>, over: &Arc<Node>) -> Result<Arc<Node>> {
        let (Some(ours), Some(theirs)) = (base.entries(), over.entries()) else {
            return Err(self.mismatch(base, over));
        };
        self.copy(ours.len() + theirs.len(), over.place)?;
        let mut merged: Vec<Entry> = ours.to_vec();
        // Large mappings are looked up by hash; most are small.
        let mut known: std::collections::HashMap<Arc<str>, usize> = std::collections::HashMap::new();
        if ours.len() > 16 {
            known = ours.iter().enumerate().map(|(at, entry)| (Arc::clone(&entry.key), at)).collect();
        }
        for entry in theirs {
            let at = if ours.len() > 16 {
                known.get(&entry.key).copied()
            } else {
                ours.iter().position(|other| other.key == entry.key)
            };
            let Some(at) = at else {
                merged.push(entry.clone());
                continue;
            };
            self.path.push(Arc::clone(&entry.key));
            let value = self.merge(&ours[at].value, &entry.value)?;
            self.path.pop();
            let place = if Arc::ptr_eq(&value, &ours[at].value) { ours[at].place } else { entry.place };
            merged[at] = Entry { key: Arc::clone(&entry.key), place, value };
        }
        Ok(Arc::new(Node::mapping(over.place, merged)))
    }

    /// A list, and what another has that it has not.
    fn union(&mut self, base: &Arc<Node>, over: &Arc<Node>) -> Result<Arc<Node>> {
        self.sequences(base, &without(over, base))
    }

    fn sequences(&mut self, base: &Arc<Node>, over: &Arc<Node>) -> Result<Arc<Node>> {
        let (Some(ours), Some(theirs)) = (base.items(), over.items()) else {
            return Err(self.mismatch(base, over));
        };
        self.copy(ours.len() + theirs.len(), over.place)?;
        Ok(Arc::new(Node::sequence(over.place, ours.iter().chain(theirs).cloned().collect())))
    }

    fn pools(&mut self, base: &Arc<Node>, over: &Arc<Node>) -> Result<Arc<Node>> {
        let (Some(ours), Some(theirs)) = (base.items(), over.items()) else { return self.sequences(base, over) };
        self.copy(ours.len() + theirs.len(), over.place)?;
        let mut merged = ours.to_vec();
        for pool in theirs {
            let same = |other: &Arc<Node>| !differs(other, pool, "subnet");
            match merged.iter().position(same) {
                Some(at) => merged[at] = self.mappings(&Arc::clone(&merged[at]), pool)?,
                None => merged.push(Arc::clone(pool)),
            }
        }
        Ok(Arc::new(Node::sequence(over.place, merged)))
    }
}

/// Takes the merge tags out of a finished tree: what is to be reset goes.
pub(super) fn without_tags(node: &Arc<Node>) -> Arc<Node> {
    if !node.size.has_tag {
        return Arc::clone(node);
    }
    let is_kept = |node: &Node| node.tag != Some(MergeTag::Reset);
    Arc::new(match &node.value {
        Value::Scalar(scalar) => Node::scalar(node.place, &scalar.text, scalar.style),
        Value::Sequence(items) => {
            Node::sequence(node.place, items.iter().filter(|item| is_kept(item)).map(without_tags).collect())
        }
        Value::Mapping(entries) => {
            let kept = entries.iter().filter(|entry| is_kept(&entry.value));
            let clean = kept.map(|entry| Entry { value: without_tags(&entry.value), ..entry.clone() });
            Node::mapping(node.place, clean.collect())
        }
    })
}

fn same_kind(a: &Node, b: &Node) -> bool {
    std::mem::discriminant(&a.value) == std::mem::discriminant(&b.value) && !matches!(a.value, Value::Sequence(_))
}

/// Whether both have the attribute, and not the same one.
fn differs(base: &Node, over: &Node, attribute: &str) -> bool {
    match (base.get(attribute), over.get(attribute)) {
        (Some(a), Some(b)) => !a.value.says_the_same(&b.value),
        _ => false,
    }
}

fn scalar(place: Place, text: &str) -> Arc<Node> {
    Arc::new(Node::scalar(place, text, Style::Quoted))
}

/// `[a=b, c]` as `{a: b, c: null}`, the later of two counting; anything else as it is.
fn pairs(node: &Arc<Node>) -> Arc<Node> {
    let Some(items) = node.items() else { return Arc::clone(node) };
    let mut entries: Vec<Entry> = Vec::with_capacity(items.len());
    let mut known: std::collections::HashMap<Arc<str>, usize> = std::collections::HashMap::new();
    for item in items {
        // What is no string is left for the reader to refuse.
        let Some(text) = item.text() else { return Arc::clone(node) };
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, scalar(item.place, value)),
            None => (text, Arc::new(Node::scalar(item.place, "", Style::Plain))),
        };
        let entry = Entry { key: key.into(), place: item.place, value };
        if let Some(&at) = known.get(&entry.key) {
            entries[at] = entry;
        } else {
            known.insert(Arc::clone(&entry.key), entries.len());
            entries.push(entry);
        }
    }
    Arc::new(Node::mapping(node.place, entries))
}

/// `[a, b]` as `{a: …, b: …}` with nothing, or with the condition that a bare name stands for.
fn names(node: &Arc<Node>, condition: bool) -> Arc<Node> {
    let Some(items) = node.items() else { return Arc::clone(node) };
    let mut entries: Vec<Entry> = Vec::with_capacity(items.len());
    let mut seen = std::collections::HashSet::new();
    for item in items {
        let Some(text) = item.text() else { return Arc::clone(node) };
        let value = if condition {
            let entry = |key: &str, value| Entry { key: key.into(), place: item.place, value };
            let required = Arc::new(Node::scalar(item.place, "true", Style::Plain));
            let started = entry("condition", scalar(item.place, "service_started"));
            Arc::new(Node::mapping(item.place, vec![started, entry("required", required)]))
        } else {
            Arc::new(Node::scalar(item.place, "", Style::Plain))
        };
        if seen.insert(text) {
            entries.push(Entry { key: text.into(), place: item.place, value });
        }
    }
    Arc::new(Node::mapping(node.place, entries))
}

/// `{host: address, host: [address, …]}` as `[host=address, …]`.
fn hosts(node: &Arc<Node>) -> Arc<Node> {
    let Some(entries) = node.entries() else { return Arc::clone(node) };
    let mut items = Vec::with_capacity(entries.len());
    for entry in entries {
        let addresses = entry.value.items().unwrap_or(std::slice::from_ref(&entry.value));
        for address in addresses {
            let Some(text) = address.text() else { return Arc::clone(node) };
            items.push(scalar(entry.spot(), &format!("{}={text}", entry.key)));
        }
    }
    Arc::new(Node::sequence(node.place, items))
}

/// A list without the strings that another one has.
fn without(node: &Arc<Node>, other: &Node) -> Arc<Node> {
    let (Some(items), Some(others)) = (node.items(), other.items()) else { return Arc::clone(node) };
    let text = |item: &Arc<Node>| match &item.value {
        Value::Scalar(scalar) => scalar.as_text().map(std::borrow::Cow::into_owned),
        _ => None,
    };
    let known: std::collections::HashSet<String> = others.iter().filter_map(text).collect();
    let is_new = |item: &&Arc<Node>| text(item).is_none_or(|text| !known.contains(&text));
    Arc::new(Node::sequence(node.place, items.iter().filter(is_new).cloned().collect()))
}

/// `x` as `[x]`.
fn list(node: &Arc<Node>) -> Arc<Node> {
    match &node.value {
        Value::Scalar(scalar) if matches!(scalar.resolve(), Resolved::Text(_)) => {
            Arc::new(Node::sequence(node.place, vec![Arc::clone(node)]))
        }
        _ => Arc::clone(node),
    }
}

/// `context` as `{context: …}`.
fn context(node: &Arc<Node>) -> Arc<Node> {
    match &node.value {
        Value::Scalar(_) => {
            let context = Entry { key: "context".into(), place: node.place, value: Arc::clone(node) };
            Arc::new(Node::mapping(node.place, vec![context]))
        }
        _ => Arc::clone(node),
    }
}

#[cfg(test)]
mod tests;

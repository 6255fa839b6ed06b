//! `extends` (Compose Specification, "extends"): a service takes what another one says, of the same file or of another
//! file of the project, and adds its own.

use std::collections::HashMap;
use std::sync::Arc;

use super::assemble::{Assembly, located};
use super::error::ComposeError;
use super::node::{Entry, Node, Source, Value};
use super::suggest;

/// Services that extend each other in a row.
const MAX_CHAIN: usize = 64;

type Result<T> = std::result::Result<T, ComposeError>;

/// Resolves every `extends` of a file.
pub(super) fn resolve(assembly: &mut Assembly<'_>, root: &Arc<Node>) -> Result<Arc<Node>> {
    let Some(services) = root.get("services") else { return Ok(Arc::clone(root)) };
    let Some(entries) = services.value.entries() else { return Ok(Arc::clone(root)) };
    if entries.iter().all(|entry| entry.value.get("extends").is_none()) {
        return Ok(Arc::clone(root));
    }
    let mut resolver = Resolver { assembly, files: HashMap::new(), done: HashMap::new() };
    let mut whole = Vec::with_capacity(entries.len());
    for entry in entries {
        let value = resolver.service(&services.value, entry, &mut Vec::new())?;
        whole.push(Entry { value, ..entry.clone() });
    }
    let services = Entry {
        value: Arc::new(Node::mapping(services.value.place, whole).tagged(services.value.tag)),
        ..services.clone()
    };
    let sections = root.entries().unwrap_or_default().iter();
    let sections = sections.map(|entry| if *entry.key == *services.key { services.clone() } else { entry.clone() });
    Ok(Arc::new(Node::mapping(root.place, sections.collect())))
}

/// A service of a file, by the file's index.
type Key = (u16, Arc<str>);

struct Resolver<'a, 'i> {
    assembly: &'a mut Assembly<'i>,
    /// The `services` of other files, by absolute path.
    files: HashMap<String, Arc<Node>>,
    /// Services without `extends` any more.
    done: HashMap<Key, Arc<Node>>,
}

/// What `extends` says.
struct Base {
    service: Arc<str>,
    file: Option<(super::node::Place, String)>,
}

impl Resolver<'_, '_> {
    /// A service with everything that it extends. `chain` are the services that led here.
    fn service(&mut self, services: &Arc<Node>, entry: &Entry, chain: &mut Vec<Key>) -> Result<Arc<Node>> {
        let field = format!("services.{}.extends", entry.key);
        let Some(extends) = entry.value.get("extends") else {
            return Ok(without_extends(&entry.value));
        };
        let place = extends.spot();
        let key: Key = (services.place.file, Arc::clone(&entry.key));
        if let Some(done) = self.done.get(&key) {
            return Ok(Arc::clone(done));
        }
        if let Some(at) = chain.iter().position(|other| *other == key) {
            let names: Vec<&str> = chain[at..].iter().chain([&key]).map(|(_, name)| &**name).collect();
            let reason = format!("services extend each other: {}", names.join(" -> "));
            return Err(self.assembly.error(place, &field, reason));
        }
        if chain.len() >= MAX_CHAIN {
            let reason = format!("more than {MAX_CHAIN} services extend each other in a row");
            return Err(self.assembly.error(place, &field, reason));
        }
        let base = self.base(&field, extends)?;
        let others = match &base.file {
            None => Arc::clone(services),
            Some((at, path)) => self.file(*at, &format!("{field}.file"), path)?,
        };
        let Some(found) = others.get(&base.service).cloned() else {
            let hint = suggest::hint(&base.service, others.entries().unwrap_or_default().iter().map(|e| &*e.key));
            // Not the name: it may be a variable's value.
            let reason = format!("names a service that does not exist there{hint}");
            return Err(self.assembly.error(place, &field, reason));
        };
        chain.push(key.clone());
        let found = self.service(&others, &found, chain)?;
        chain.pop();
        let own = without_extends(&entry.value);
        let merged = self.assembly.merger.services(&entry.key, &found, &own);
        let merged = merged.map_err(|fault| located(&self.assembly.sources, fault))?;
        self.done.insert(key, Arc::clone(&merged));
        Ok(merged)
    }

    fn base(&self, field: &str, extends: &Entry) -> Result<Base> {
        let refuse = |entry: &Entry, what: &str| self.assembly.error(entry.spot(), field, what);
        if let Some(name) = extends.value.text().filter(|name| !name.is_empty()) {
            return Ok(Base { service: name.into(), file: None });
        }
        let Some(attributes) = extends.value.entries() else {
            return Err(refuse(extends, "must be the name of a service, or a mapping with `service` and `file`"));
        };
        let (mut service, mut file) = (None, None);
        for attribute in attributes.iter().filter(|attribute| !attribute.key.starts_with("x-")) {
            let text = attribute.value.text().filter(|text| !text.is_empty());
            match &*attribute.key {
                "service" => service = Some(text.ok_or_else(|| refuse(attribute, "`service` must be a string"))?),
                "file" if attribute.value.is_null() => {}
                "file" => {
                    let path = text.ok_or_else(|| refuse(attribute, "`file` must be a string"))?;
                    file = Some((attribute.value.place, path.to_owned()));
                }
                key => return Err(self.assembly.unknown(attribute.place, field, key, &["service", "file"])),
            }
        }
        let service = service.ok_or_else(|| refuse(extends, "has no `service`"))?;
        Ok(Base { service: service.into(), file })
    }

    /// The services of another file.
    fn file(&mut self, at: super::node::Place, field: &str, path: &str) -> Result<Arc<Node>> {
        let (absolute, bytes) = self.assembly.read(at, field, path)?;
        if let Some(services) = self.files.get(&absolute) {
            return Ok(Arc::clone(services));
        }
        let source = Source {
            name: self.assembly.name_of(&absolute),
            directory: super::paths::parent(&absolute).to_owned(),
            variables: Arc::clone(&self.assembly.sources.at(at).variables),
        };
        let mut documents = self.assembly.parse(&bytes, source)?.into_iter();
        let mut root = documents.next().unwrap_or_else(|| Arc::new(Node::mapping(at, Vec::new())));
        for over in documents {
            root = self.assembly.merge(&root, &over)?;
        }
        let Some(services) = root.get("services").filter(|entry| matches!(entry.value.value, Value::Mapping(_))) else {
            return Err(self.assembly.error(at, field, "the file has no services"));
        };
        self.files.insert(absolute, Arc::clone(&services.value));
        Ok(Arc::clone(&services.value))
    }
}

fn without_extends(service: &Arc<Node>) -> Arc<Node> {
    match service.entries() {
        Some(entries) if entries.iter().any(|entry| &*entry.key == "extends") => {
            let own = entries.iter().filter(|entry| &*entry.key != "extends").cloned();
            Arc::new(Node::mapping(service.place, own.collect()).tagged(service.tag))
        }
        _ => Arc::clone(service),
    }
}

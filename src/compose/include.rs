//! `include` (Compose Specification, "include"): other files of the project, each with its own directory and variables,
//! whose services, networks, volumes, configs and secrets become this file's.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::Document;
use super::assemble::Assembly;
use super::error::ComposeError;
use super::node::{Entry, Node, Place, Value};

/// Files that include each other in a row.
const MAX_DEPTH: usize = 16;
/// What an included file gives.
const SECTIONS: &[&str] = &["services", "networks", "volumes", "configs", "secrets", "models"];

type Result<T> = std::result::Result<T, ComposeError>;

/// One entry of `include`.
struct Entrance {
    paths: Vec<(Place, String)>,
    directory: Option<String>,
    env_files: Option<Vec<(Place, String)>>,
}

/// Brings in what the file includes. `including` are the absolute paths of the files that led here.
pub(super) fn resolve(assembly: &mut Assembly<'_>, root: &Arc<Node>, including: &[String]) -> Result<Arc<Node>> {
    let Some(section) = root.get("include").cloned() else { return Ok(Arc::clone(root)) };
    let mut sections: Vec<Entry> =
        root.entries().unwrap_or_default().iter().filter(|entry| &*entry.key != "include").cloned().collect();
    let items = match &section.value.value {
        _ if section.value.is_null() => &[][..],
        Value::Sequence(items) => items.as_slice(),
        _ => return Err(assembly.error(section.spot(), "include", "must be a list of files")),
    };
    for (index, item) in items.iter().enumerate() {
        let field = format!("include[{index}]");
        let entrance = entrance(assembly, item, &field)?;
        let included = load(assembly, item.place, &field, &entrance, including)?;
        import(assembly, item.place, &field, &mut sections, &included)?;
    }
    Ok(Arc::new(Node::mapping(root.place, sections)))
}

fn entrance(assembly: &Assembly<'_>, item: &Node, field: &str) -> Result<Entrance> {
    if let Some(path) = item.text().filter(|path| !path.is_empty()) {
        return Ok(Entrance { paths: vec![(item.place, path.to_owned())], directory: None, env_files: None });
    }
    let Some(attributes) = item.entries() else {
        return Err(assembly.error(item.place, field, "must be a file, or a mapping with `path`"));
    };
    let mut entrance = Entrance { paths: Vec::new(), directory: None, env_files: None };
    for attribute in attributes {
        let inner = format!("{field}.{}", attribute.key);
        match &*attribute.key {
            "path" => entrance.paths = paths(assembly, attribute, &inner)?,
            "env_file" => entrance.env_files = Some(paths(assembly, attribute, &inner)?),
            "project_directory" => {
                let text = attribute.value.text().filter(|text| !text.is_empty());
                let text = text.ok_or_else(|| assembly.error(attribute.spot(), &inner, "must be a directory"))?;
                let base = &assembly.sources.at(attribute.value.place).directory;
                entrance.directory = Some(super::paths::resolve(base, text));
            }
            key => {
                let known = ["path", "project_directory", "env_file"];
                return Err(assembly.unknown(attribute.place, field, key, &known));
            }
        }
    }
    if entrance.paths.is_empty() {
        return Err(assembly.error(item.place, field, "has no `path`"));
    }
    Ok(entrance)
}

/// A string or a list of strings.
fn paths(assembly: &Assembly<'_>, attribute: &Entry, field: &str) -> Result<Vec<(Place, String)>> {
    let items = attribute.value.items().unwrap_or(std::slice::from_ref(&attribute.value));
    let path = |item: &Arc<Node>| match item.text() {
        Some(text) if !text.is_empty() => Ok((item.place, text.to_owned())),
        _ => Err(assembly.error(item.place, field, "must be a path or a list of paths")),
    };
    items.iter().map(path).collect()
}

/// Loads what one entry names, in its own directory and with its own variables.
fn load(
    assembly: &mut Assembly<'_>,
    at: Place,
    field: &str,
    entrance: &Entrance,
    including: &[String],
) -> Result<Arc<Node>> {
    let mut files = Vec::new();
    for (place, path) in &entrance.paths {
        let absolute = super::paths::resolve(&assembly.sources.at(*place).directory, path);
        if including.contains(&absolute) || assembly.is_main_file(&absolute) {
            let names: Vec<String> = including.iter().chain([&absolute]).map(|path| assembly.name_of(path)).collect();
            let reason = format!("files include each other: {}", names.join(" -> "));
            return Err(assembly.error(*place, field, reason));
        }
        files.push(assembly.read(*place, field, path)?);
    }
    if including.len() >= MAX_DEPTH {
        return Err(assembly.error(at, field, format!("more than {MAX_DEPTH} files include each other in a row")));
    }
    let directory = entrance.directory.clone().or_else(|| {
        let (first, _) = files.first()?;
        Some(super::paths::parent(first).to_owned())
    });
    let directory = directory.unwrap_or_else(|| assembly.input.directory.to_owned());
    let variables = Arc::new(variables(assembly, at, field, entrance, &directory)?);
    let names: Vec<String> = files.iter().map(|(absolute, _)| assembly.name_of(absolute)).collect();
    let documents: Vec<Document<'_>> =
        names.iter().zip(&files).map(|(name, (_, bytes))| Document { name, bytes }).collect();
    let chain: Vec<String> = including.iter().cloned().chain(files.iter().map(|(path, _)| path.clone())).collect();
    assembly.documents(&documents, &directory, &variables, &chain)
}

/// The variables of whoever includes, and below them those of the env files: the named ones, else `.env` in the directory.
fn variables(
    assembly: &Assembly<'_>,
    at: Place,
    field: &str,
    entrance: &Entrance,
    directory: &str,
) -> Result<BTreeMap<String, String>> {
    let mut variables = (*assembly.sources.at(at).variables).clone();
    let mut own = BTreeMap::new();
    match &entrance.env_files {
        None => {
            let path = format!("{}/.env", directory.trim_end_matches('/'));
            // The project's own one is there already.
            if directory != assembly.input.directory
                && let Some(bytes) = assembly.input.files.read(&path)
            {
                own = assembly.env(&path, &bytes, &variables)?;
            }
        }
        Some(files) => {
            for (place, path) in files.iter().filter(|(_, path)| path != "/dev/null") {
                let (absolute, bytes) = assembly.read(*place, &format!("{field}.env_file"), path)?;
                own.extend(assembly.env(&absolute, &bytes, &variables)?);
            }
        }
    }
    for (name, value) in own {
        variables.entry(name).or_insert(value);
    }
    Ok(variables)
}

/// Adds what was included. A name that is there already must mean the same.
fn import(assembly: &Assembly<'_>, at: Place, field: &str, sections: &mut Vec<Entry>, included: &Node) -> Result<()> {
    for section in included.entries().unwrap_or_default() {
        if !SECTIONS.contains(&&*section.key) {
            continue;
        }
        let Some(theirs) = section.value.entries() else { continue };
        let Some(ours) = sections.iter_mut().find(|own| own.key == section.key) else {
            sections.push(section.clone());
            continue;
        };
        let Some(own) = ours.value.entries() else {
            if ours.value.is_null() {
                ours.value = Arc::clone(&section.value);
            }
            continue;
        };
        let mut merged = own.to_vec();
        let present: HashSet<&str> = own.iter().map(|entry| &*entry.key).collect();
        for entry in theirs {
            if !present.contains(&*entry.key) {
                merged.push(entry.clone());
            } else if !own.iter().any(|other| other.key == entry.key && is_same(assembly, &other.value, &entry.value)) {
                let reason = format!("`{}.{}` is in this file too, and says something else", section.key, entry.key);
                return Err(assembly.error(at, field, reason));
            }
        }
        ours.value = Arc::new(Node::mapping(ours.value.place, merged).tagged(ours.value.tag));
    }
    Ok(())
}

/// The same words mean the same when they are relative to the same directory.
fn is_same(assembly: &Assembly<'_>, a: &Node, b: &Node) -> bool {
    let directory = |node: &Node| &assembly.sources.at(node.place).directory;
    directory(a) == directory(b) && a.says_the_same(b)
}

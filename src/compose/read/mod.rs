//! Tree -> model, attribute by attribute. An attribute that no reader knows is refused, never passed over.

mod depends;
mod deploy;
mod environment;
mod files;
mod foreign;
mod health;
mod hooks;
mod networks;
mod ports;
mod resources;
mod service;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use super::error::ComposeError;
use super::field::{Declared, Field};
use super::model::Project;
use super::node::{Node, Sources};
use super::suggest;
use crate::domain::ServiceName;

const KNOWN: &[&str] =
    &["version", "name", "include", "services", "networks", "volumes", "configs", "secrets", "models"];

/// Services of one project, disabled ones too. An alias makes a service of a few bytes of text.
const MAX_SERVICES: usize = 10_000;

/// The names a document declares. Also tells which services are enabled; a malformed one counts as such, so that its
/// reader gets to refuse it.
pub(super) fn declared<'a>(root: &'a Node, profiles: &BTreeSet<String>) -> Declared<'a> {
    let keys = |section: &str| -> BTreeSet<&'a str> {
        let entries = root.get(section).and_then(|entry| entry.value.entries()).unwrap_or_default();
        entries.iter().map(|entry| &*entry.key).collect()
    };
    let services = root.get("services").and_then(|entry| entry.value.entries()).unwrap_or_default();
    Declared {
        services: services.iter().map(|entry| (&*entry.key, is_enabled(&entry.value, profiles))).collect(),
        networks: keys("networks"),
        volumes: keys("volumes"),
        configs: keys("configs"),
        secrets: keys("secrets"),
    }
}

/// A service without profiles is always enabled, one with profiles when any of them is active.
fn is_enabled(service: &Node, active: &BTreeSet<String>) -> bool {
    let Some(entry) = service.get("profiles") else { return true };
    let super::node::Value::Sequence(items) = &entry.value.value else { return true };
    items.is_empty()
        || active.contains("*")
        || items.iter().any(|item| match &item.value {
            super::node::Value::Scalar(scalar) => active.contains(&*scalar.text),
            _ => false,
        })
}

/// Refuses top-level keys of one file that nobody knows: what a file gives to another one is found by its section.
pub(super) fn check_sections(root: &Node, sources: &Sources) -> Result<(), ComposeError> {
    let error = |place: super::node::Place, field: &str, reason: String| ComposeError {
        file: sources.at(place).name.clone(),
        field: field.to_owned(),
        location: Some(place.location),
        reason,
    };
    let Some(entries) = root.entries() else {
        return Err(error(root.place, "", "a Compose file is a mapping with `services`".to_owned()));
    };
    match entries.iter().find(|entry| !entry.key.starts_with("x-") && !KNOWN.contains(&&*entry.key)) {
        None => Ok(()),
        Some(entry) => {
            let hint = suggest::hint(&entry.key, KNOWN.iter().copied());
            let reason = format!("is not an attribute of the Compose Specification here{hint}");
            Err(error(entry.place, &entry.key, reason))
        }
    }
}

/// Reads the whole project.
pub(super) fn project(root: &Field<'_>) -> Result<Project, ComposeError> {
    let input = root.cx.input;
    let mut project = Project {
        name: input.project.clone(),
        directory: input.directory.to_owned(),
        services: BTreeMap::new(),
        disabled_services: BTreeSet::new(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        configs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        foreign: BTreeMap::new(),
        extensions: BTreeMap::new(),
    };
    for section in root.entries()? {
        match section.key() {
            key if key.starts_with("x-") => {
                project.extensions.insert(key.to_owned(), foreign::anything(&section));
            }
            "version" => {
                section.text()?;
                section.warn("is obsolete and ignored; leave it out");
            }
            "name" => {
                if section.text()? != input.project.as_str() && input.names_the_project {
                    let reason = format!("must be `{}` or left out: the host names the project", input.project);
                    return Err(section.error(reason));
                }
            }
            "services" => {
                if section.entries()?.count() > MAX_SERVICES {
                    return Err(section.error(format!("has more than {MAX_SERVICES} services")));
                }
                for entry in section.entries()? {
                    let name = entry.parsed_key(ServiceName::parse)?;
                    match service::read(&entry, &name)? {
                        Some(service) => {
                            project.services.insert(name, Box::new(service));
                        }
                        None => {
                            project.disabled_services.insert(name);
                        }
                    }
                }
            }
            "networks" => project.networks = networks::top_level(&section)?,
            "volumes" => project.volumes = volumes::top_level(&section)?,
            "configs" => project.configs = files::top_level(&section, files::Kind::Config)?,
            "secrets" => project.secrets = files::top_level(&section, files::Kind::Secret)?,
            key => match foreign::shape_of(foreign::PROJECT, key) {
                Some(shape) => {
                    project.foreign.insert(key.to_owned(), foreign::read(&section, shape)?);
                }
                None => return Err(section.unknown(KNOWN)),
            },
        }
    }
    if project.services.is_empty() && project.disabled_services.is_empty() {
        return Err(root.error("a Compose file has at least one service under `services`"));
    }
    Ok(project)
}

/// A real name in the engine: the `name` of the file, for external objects else the key, for others `{project}_{key}`.
fn real_name(
    object: &Field<'_>,
    explicit: Option<&Field<'_>>,
    external: bool,
) -> Result<crate::domain::ObjectName, ComposeError> {
    let parse = crate::domain::ObjectName::parse;
    match explicit.filter(|name| name.text() != Ok("")) {
        Some(name) => name.parsed(parse),
        None if external => object.parsed_key(parse),
        None => parse(&format!("{}_{}", object.cx.input.project, object.key()))
            .map_err(|error| object.error(error.to_string())),
    }
}

/// `external: true`, or the old `external: {name: …}`; other attributes besides `name` contradict it.
fn external(object: &Field<'_>) -> Result<(bool, Option<String>), ComposeError> {
    let (external, name) = is_external(object)?;
    if external {
        for other in object.attributes()? {
            if !matches!(other.key(), "external" | "name") {
                return Err(other.error("contradicts `external`: an external object is used as it is"));
            }
        }
    }
    Ok((external, name))
}

/// The same, whatever stands beside it.
fn is_external(object: &Field<'_>) -> Result<(bool, Option<String>), ComposeError> {
    let Some(field) = object.get("external") else { return Ok((false, None)) };
    if !field.is_mapping() {
        return Ok((field.boolean()?, None));
    }
    let mut name = None;
    for attribute in field.attributes()? {
        match attribute.key() {
            "name" => name = Some(attribute.some_text()?.to_owned()),
            _ => return Err(attribute.unknown(&["name"])),
        }
    }
    field.warn("with a name inside is obsolete: write `external: true` and `name` beside it");
    if let (Some(inner), Some(outer)) = (&name, object.get("name"))
        && outer.text() != Ok(inner)
    {
        return Err(outer.error("says something else than `external.name`: leave that one out"));
    }
    Ok((true, name))
}

/// The service attributes that "did you mean" offers.
#[cfg(test)]
pub(super) fn known_attributes() -> impl Iterator<Item = &'static str> {
    service::KNOWN.iter().copied().filter(|&attribute| attribute != "image")
}

#[cfg(test)]
mod tests {
    use super::service;

    /// The page for users has a line for each attribute, so nothing is accepted that it does not explain.
    #[test]
    fn the_support_page_names_every_attribute() {
        let page = include_str!("../../../docs/compose-support.md");
        let missing: Vec<&str> =
            service::KNOWN.iter().copied().filter(|attribute| !page.contains(&format!("`{attribute}`"))).collect();
        assert!(missing.is_empty(), "not in docs/compose-support.md: {missing:?}");
    }
}

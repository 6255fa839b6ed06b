//! `depends_on` and `links` of a service, and references to another service in general.

use std::collections::BTreeMap;

use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::{Condition, Dependency, Link, Service};
use crate::compose::suggest;
use crate::domain::ServiceName;

/// A service that another one names. It must exist, and be enabled if the one that names it is.
pub(super) fn reference(field: &Field<'_>, name: &str) -> Result<ServiceName, ComposeError> {
    let declared = &field.cx.declared.services;
    if !declared.contains_key(name) {
        let hint = suggest::hint(name, declared.keys().copied());
        return Err(field.error(format!("names a service that does not exist{hint}")));
    }
    ServiceName::parse(name).map_err(|error| field.error(error.to_string()))
}

/// `depends_on`: names, or a mapping with conditions.
pub(super) fn depends_on(
    field: &Field<'_>,
    enabled: bool,
    dependencies: &mut Dependencies,
) -> Result<(), ComposeError> {
    if field.is_sequence() {
        field.distinct()?;
        for item in field.items()? {
            let started = Dependency { condition: Condition::ServiceStarted, restart: false, required: true };
            depend(&item, item.text()?, started, enabled, dependencies)?;
        }
        return Ok(());
    }
    if !field.is_mapping() {
        return Err(field.expected("a list or a mapping"));
    }
    for entry in field.entries()? {
        let mut dependency = Dependency { condition: Condition::ServiceStarted, restart: false, required: true };
        let mut has_condition = false;
        for attribute in entry.attributes()? {
            match attribute.key() {
                "condition" => {
                    has_condition = true;
                    dependency.condition = match attribute.text()? {
                        "service_started" => Condition::ServiceStarted,
                        "service_healthy" => Condition::ServiceHealthy,
                        "service_completed_successfully" => Condition::ServiceCompletedSuccessfully,
                        _ => {
                            let reason = "must be service_started, service_healthy or service_completed_successfully";
                            return Err(attribute.error(reason));
                        }
                    };
                }
                "restart" => dependency.restart = attribute.boolean()?,
                "required" => dependency.required = attribute.plain_boolean()?,
                _ => return Err(attribute.unknown(&["condition", "restart", "required"])),
            }
        }
        if !has_condition {
            return Err(entry.error("has no `condition`"));
        }
        depend(&entry, entry.key(), dependency, enabled, dependencies)?;
    }
    Ok(())
}

/// What a service waits for.
#[derive(Default)]
pub(super) struct Dependencies {
    /// Services that are there.
    present: BTreeMap<ServiceName, Dependency>,
    /// Services that are not there, and not required.
    absent: BTreeMap<ServiceName, Dependency>,
}

impl Dependencies {
    pub(super) fn store(self, service: &mut Service) {
        service.depends_on = self.present;
        service.absent_dependencies = self.absent;
    }
}

/// Adds a dependency.
fn depend(
    field: &Field<'_>,
    name: &str,
    dependency: Dependency,
    enabled: bool,
    dependencies: &mut Dependencies,
) -> Result<(), ComposeError> {
    match field.cx.declared.services.get(name) {
        Some(true) => {
            dependencies.present.insert(reference(field, name)?, dependency);
        }
        _ if !enabled => {}
        Some(false) if !dependency.required => {
            field.warn(format!("service `{name}` is disabled, and it is not required"));
            let name = ServiceName::parse(name).map_err(|error| field.error(error.to_string()))?;
            dependencies.absent.insert(name, dependency);
        }
        Some(false) => {
            let reason =
                format!("service `{name}` is disabled: activate its profile, or depend with `required: false`");
            return Err(field.error(reason));
        }
        None => {
            reference(field, name)?;
        }
    }
    Ok(())
}

/// Something else that makes a service wait for another one: what `depends_on` says itself counts more.
pub(super) fn imply(
    field: &Field<'_>,
    name: &str,
    restart: bool,
    enabled: bool,
    dependencies: &mut Dependencies,
) -> Result<(), ComposeError> {
    if dependencies.present.contains_key(name) {
        return Ok(());
    }
    let implied = Dependency { condition: Condition::ServiceStarted, restart, required: true };
    depend(field, name, implied, enabled, dependencies)
}

/// `links`: `service` or `service:alias`.
pub(super) fn links(field: &Field<'_>) -> Result<Vec<Link>, ComposeError> {
    let mut links = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for item in field.items()? {
        let text = item.some_text()?;
        let (name, alias) = text.split_once(':').map_or((text, None), |(name, alias)| (name, Some(alias)));
        if alias.is_some_and(str::is_empty) {
            return Err(item.error("must be SERVICE or SERVICE:ALIAS"));
        }
        let link = Link { service: reference(&item, name)?, alias: alias.map(str::to_owned) };
        if seen.insert(text) {
            links.push(link);
        }
    }
    Ok(links)
}

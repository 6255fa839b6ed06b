//! `depends_on` and `links` of a service, and references to another service in general.

use std::collections::BTreeMap;

use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::{Condition, Dependency};
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
    dependencies: &mut BTreeMap<ServiceName, Dependency>,
) -> Result<(), ComposeError> {
    if field.is_sequence() {
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
                "required" => dependency.required = attribute.boolean()?,
                _ => return Err(attribute.unknown(&["condition", "restart", "required"], &[])),
            }
        }
        if !has_condition {
            return Err(entry.error("has no `condition`"));
        }
        depend(&entry, entry.key(), dependency, enabled, dependencies)?;
    }
    Ok(())
}

/// Adds a dependency, or leaves out one that is not required and not there.
fn depend(
    field: &Field<'_>,
    name: &str,
    dependency: Dependency,
    enabled: bool,
    dependencies: &mut BTreeMap<ServiceName, Dependency>,
) -> Result<(), ComposeError> {
    match field.cx.declared.services.get(name) {
        Some(true) => {
            dependencies.insert(reference(field, name)?, dependency);
        }
        _ if !enabled => {}
        _ if !dependency.required => field.warn(format!("service `{name}` is not there, and it is not required")),
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

/// `links` within the project: every service is already reachable by its name, so what remains is the start order.
pub(super) fn links(
    field: &Field<'_>,
    enabled: bool,
    dependencies: &mut BTreeMap<ServiceName, Dependency>,
) -> Result<(), ComposeError> {
    for item in field.items()? {
        let text = item.text()?;
        let (name, alias) = text.split_once(':').unwrap_or((text, text));
        if alias != name {
            let reason = "a link with an alias is not supported by this agent yet: give the service a network alias";
            return Err(item.error(reason));
        }
        if !dependencies.contains_key(name) {
            let linked = Dependency { condition: Condition::ServiceStarted, restart: true, required: true };
            depend(&item, name, linked, enabled, dependencies)?;
        }
    }
    Ok(())
}

//! `healthcheck` of a service (Compose Specification, "healthcheck").

use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::Healthcheck;

const KNOWN: &[&str] = &["test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"];

/// The attribute `healthcheck`.
pub(super) fn healthcheck(field: &Field<'_>) -> Result<Healthcheck, ComposeError> {
    let mut check = Healthcheck::default();
    for attribute in field.attributes()? {
        match attribute.key() {
            "test" => check.test = test(&attribute)?,
            "interval" => check.interval = Some(attribute.duration()?),
            "timeout" => check.timeout = Some(attribute.duration()?),
            "retries" => check.retries = Some(attribute.count()?),
            "start_period" => check.start_period = Some(attribute.duration()?),
            "start_interval" => check.start_interval = Some(attribute.duration()?),
            "disable" => check.disable = attribute.boolean()?,
            _ => return Err(attribute.unknown(KNOWN)),
        }
    }
    Ok(check)
}

/// A string is a shell command; a list says itself what it is; an empty list leaves the image's test.
fn test(field: &Field<'_>) -> Result<Option<Vec<String>>, ComposeError> {
    if !field.is_sequence() {
        return Ok(Some(vec!["CMD-SHELL".to_owned(), field.text()?.to_owned()]));
    }
    let mut words = Vec::new();
    for item in field.items()? {
        words.push(item.text()?.to_owned());
    }
    match words.first().map(String::as_str) {
        None => Ok(None),
        Some("NONE" | "CMD" | "CMD-SHELL") => Ok(Some(words)),
        Some(_) => Err(field.error("as a list must begin with CMD, CMD-SHELL or NONE")),
    }
}

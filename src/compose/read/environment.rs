//! `environment` and `env_file` of a service (Compose Specification, "environment").

use std::collections::BTreeMap;

use crate::compose::env_file;
use crate::compose::error::ComposeError;
use crate::compose::field::Field;

/// Bytes that a variable costs besides its text.
const VARIABLE_COST: usize = 64;

/// A name without a value takes the request's variable of that name; without one it unsets what the image has.
pub(super) fn environment(field: &Field<'_>) -> Result<BTreeMap<String, Option<String>>, ComposeError> {
    let mut environment = field.optional_pairs()?;
    for (name, value) in &mut environment {
        if value.is_none() {
            *value = field.cx.variable(name);
        }
    }
    Ok(environment)
}

/// `env_file`: a path, or a list of paths and `{path, required, format}`; later files win.
pub(super) fn env_files(field: &Field<'_>) -> Result<BTreeMap<String, Option<String>>, ComposeError> {
    let mut variables = BTreeMap::new();
    if field.is_sequence() {
        for item in field.items()? {
            env_file(&item, &mut variables)?;
        }
    } else {
        env_file(field, &mut variables)?;
    }
    Ok(variables)
}

fn env_file(item: &Field<'_>, variables: &mut BTreeMap<String, Option<String>>) -> Result<(), ComposeError> {
    let (mut path, mut required, mut raw) = (None, true, false);
    if item.is_mapping() {
        for attribute in item.attributes()? {
            match attribute.key() {
                "path" => path = Some(attribute.some_text()?),
                "required" => required = attribute.boolean()?,
                "format" => {
                    raw = match attribute.text()? {
                        "" => false,
                        "raw" => true,
                        _ => return Err(attribute.error("must be raw or left out")),
                    };
                }
                _ => return Err(attribute.unknown(&["path", "required", "format"], &[])),
            }
        }
    } else {
        path = Some(item.some_text()?);
    }
    let path = path.ok_or_else(|| item.error("has no `path`"))?;
    let absolute = item.cx.path(path);
    let Some(bytes) = item.cx.input.files.read(&absolute) else {
        return if required { Err(item.error("there is no such file among the project's files")) } else { Ok(()) };
    };
    item.spend_content(bytes.len())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| item.error("the file is not UTF-8 text"))?;
    let read = if raw { env_file::parse_raw } else { env_file::parse };
    let outer = |name: &str| item.cx.variable(name).or_else(|| variables.get(name).cloned().flatten());
    let added = read(path, text, &outer)?;
    let weight = |(name, value): (&String, &String)| VARIABLE_COST + name.len() + value.len();
    item.spend_content(added.iter().map(weight).sum())?;
    variables.extend(added.into_iter().map(|(name, value)| (name, Some(value))));
    Ok(())
}

//! `environment` and `env_file` of a service (Compose Specification, "environment").

use std::collections::{BTreeMap, HashMap};

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
            *value = field.variable(name);
        }
    }
    Ok(environment)
}

/// `env_file`: a path, or a list of paths and `{path, required, format}`; later files win.
pub(super) fn env_files(field: &Field<'_>) -> Result<BTreeMap<String, Option<String>>, ComposeError> {
    let mut variables = BTreeMap::new();
    if field.is_sequence() {
        // Of a file that is named twice the later entry counts, in the earlier one's place.
        let mut files: Vec<Field<'_>> = Vec::new();
        let mut by_path: HashMap<String, usize> = HashMap::new();
        for item in field.items()? {
            let path = item.get("path").unwrap_or(item);
            let path = path.text().unwrap_or_default();
            if let Some(&at) = by_path.get(path) {
                files[at] = item;
            } else {
                by_path.insert(path.to_owned(), files.len());
                files.push(item);
            }
        }
        for item in &files {
            env_file(item, &mut variables)?;
        }
    } else {
        // One file is a path; only an item of a list may be a mapping.
        field.some_text()?;
        env_file(field, &mut variables)?;
    }
    Ok(variables)
}

/// `label_file`: a path or a list of paths, read like env files; later files win. Also gives the files that are not there:
/// as with the file of a config, that is for the policy to refuse.
pub(super) fn label_files(field: &Field<'_>) -> Result<(BTreeMap<String, String>, Vec<String>), ComposeError> {
    let mut labels = BTreeMap::new();
    let mut missing = Vec::new();
    let mut read = |item: &Field<'_>| {
        let path = item.some_text()?;
        if !file(item, path, false, false, &mut labels)? {
            item.warn("there is no such file among the project's files");
            missing.push(item.absolute(path));
        }
        Ok::<_, ComposeError>(())
    };
    if field.is_sequence() {
        for item in field.items()? {
            read(&item)?;
        }
    } else {
        read(field)?;
    }
    Ok((labels.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect(), missing))
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
                _ => return Err(attribute.unknown(&["path", "required", "format"])),
            }
        }
    } else {
        path = Some(item.some_text()?);
    }
    let path = path.ok_or_else(|| item.error("has no `path`"))?;
    file(item, path, required, raw, variables).map(drop)
}

/// Reads one file over what others have given; false when it is not there and need not be.
fn file(
    item: &Field<'_>,
    path: &str,
    required: bool,
    raw: bool,
    variables: &mut BTreeMap<String, Option<String>>,
) -> Result<bool, ComposeError> {
    let absolute = item.absolute(path);
    let Some(bytes) = item.cx.input.files.read(&absolute) else {
        return if required { Err(item.error("there is no such file among the project's files")) } else { Ok(false) };
    };
    item.spend_content(bytes.len())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| item.error("the file is not UTF-8 text"))?;
    let read = if raw { env_file::parse_raw } else { env_file::parse };
    let outer = |name: &str| item.variable(name).or_else(|| variables.get(name).cloned().flatten());
    let added = read(path, text, &outer)?;
    let weight = |(name, value): (&String, &String)| VARIABLE_COST + name.len() + value.len();
    item.spend_content(added.iter().map(weight).sum())?;
    variables.extend(added.into_iter().map(|(name, value)| (name, Some(value))));
    Ok(true)
}

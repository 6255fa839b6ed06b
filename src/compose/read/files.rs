//! `configs` and `secrets` of a service and of the project (Compose Specification, "configs" and "secrets").

use std::collections::{BTreeMap, HashMap};

use super::external;
use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::{FileObject, FileReference, FileSource};
use crate::compose::{paths, suggest};
use crate::domain::ObjectKey;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Config,
    Secret,
}

impl Kind {
    fn section(self) -> &'static str {
        match self {
            Self::Config => "configs",
            Self::Secret => "secrets",
        }
    }

    /// The directory in the container where a relative target goes.
    fn home(self) -> &'static str {
        match self {
            Self::Config => "",
            Self::Secret => "/run/secrets",
        }
    }
}

/// The attribute of a service. Of two files on one path the later one counts, in the earlier one's place.
pub(super) fn references(field: &Field<'_>, kind: Kind, enabled: bool) -> Result<Vec<FileReference>, ComposeError> {
    let mut references: Vec<FileReference> = Vec::new();
    let mut by_target: HashMap<String, usize> = HashMap::new();
    for item in field.items()? {
        let reference = reference(&item, kind, enabled)?;
        if let Some(&at) = by_target.get(&reference.target) {
            references[at] = reference;
        } else {
            by_target.insert(reference.target.clone(), references.len());
            references.push(reference);
        }
    }
    Ok(references)
}

fn reference(item: &Field<'_>, kind: Kind, enabled: bool) -> Result<FileReference, ComposeError> {
    if !item.is_mapping() {
        let source = source_key(item, kind, enabled)?;
        let target = format!("{}/{source}", kind.home());
        return Ok(FileReference { source, target, written_target: None, uid: None, gid: None, mode: None });
    }
    let (mut source, mut target, mut uid, mut gid, mut mode) = (None, None, None, None, None);
    for attribute in item.attributes()? {
        match attribute.key() {
            "source" => source = Some(source_key(&attribute, kind, enabled)?),
            "target" => target = Some(attribute.some_text()?.to_owned()),
            "uid" => uid = Some(owner(&attribute)?),
            "gid" => gid = Some(owner(&attribute)?),
            "mode" => mode = Some(attribute.mode()?),
            _ => return Err(attribute.unknown(&["source", "target", "uid", "gid", "mode"])),
        }
    }
    let source = source.ok_or_else(|| item.error(format!("has no `source`, a key of `{}`", kind.section())))?;
    let written_target = target;
    let target = match &written_target {
        Some(target) if target.starts_with('/') => paths::clean(target),
        Some(target) => paths::clean(&format!("{}/{target}", kind.home())),
        None => format!("{}/{source}", kind.home()),
    };
    Ok(FileReference { source, target, written_target, uid, gid, mode })
}

fn owner(field: &Field<'_>) -> Result<u32, ComposeError> {
    field.text()?.parse().map_err(|_| field.error("must be a numeric id"))
}

fn source_key(field: &Field<'_>, kind: Kind, enabled: bool) -> Result<ObjectKey, ComposeError> {
    let key = field.text()?;
    let declared = match kind {
        Kind::Config => &field.cx.declared.configs,
        Kind::Secret => &field.cx.declared.secrets,
    };
    if enabled && !declared.contains(key) {
        let hint = suggest::hint(key, declared.iter().copied());
        return Err(field.error(format!("is not under the top-level `{}`{hint}", kind.section())));
    }
    ObjectKey::parse(key).map_err(|error| field.error(error.to_string()))
}

/// The top-level section.
pub(super) fn top_level(section: &Field<'_>, kind: Kind) -> Result<BTreeMap<ObjectKey, FileObject>, ComposeError> {
    let mut objects = BTreeMap::new();
    for entry in section.entries()? {
        objects.insert(entry.parsed_key(ObjectKey::parse)?, object(&entry, kind)?);
    }
    Ok(objects)
}

fn object(entry: &Field<'_>, kind: Kind) -> Result<FileObject, ComposeError> {
    let known: &[&str] = match kind {
        Kind::Config => &["name", "file", "content", "environment", "external", "labels", "template_driver"],
        Kind::Secret => {
            &["name", "file", "environment", "external", "labels", "driver", "driver_opts", "template_driver"]
        }
    };
    let (external, mut name) = external(entry)?;
    let mut sources = Vec::new();
    if external {
        sources.push(FileSource::External);
    }
    let mut object = FileObject::of(String::new(), FileSource::External);
    for attribute in entry.attributes()? {
        if matches!(attribute.key(), "labels" | "driver" | "driver_opts" | "template_driver") {
            attribute.ignored();
        }
        match attribute.key() {
            "name" => name = Some(attribute.some_text()?.to_owned()),
            "external" => {}
            "labels" => object.labels = attribute.pairs()?,
            "template_driver" => object.template_driver = Some(attribute.text()?.to_owned()),
            "driver" if kind == Kind::Secret => object.driver = Some(attribute.text()?.to_owned()),
            "driver_opts" if kind == Kind::Secret => object.driver_opts = attribute.options()?,
            "file" => {
                let path = attribute.absolute(attribute.some_text()?);
                let bytes = entry.cx.input.files.read(&path).map(std::borrow::Cow::into_owned);
                attribute.spend_content(bytes.as_ref().map_or(0, Vec::len))?;
                sources.push(FileSource::File { path, bytes });
            }
            "content" if kind == Kind::Config => {
                let text = attribute.text()?;
                attribute.spend_content(text.len())?;
                sources.push(FileSource::Content(text.to_owned()));
            }
            "environment" => {
                let name = attribute.some_text()?.to_owned();
                let value = attribute.variable(&name);
                attribute.spend_content(value.as_ref().map_or(0, String::len))?;
                if value.is_none() {
                    attribute.warn("the variable is not set");
                }
                sources.push(FileSource::Environment { name, value });
            }
            _ => return Err(attribute.unknown(known)),
        }
    }
    let mut sources = sources.into_iter();
    let (Some(source), None) = (sources.next(), sources.next()) else {
        let content = if kind == Kind::Config { "`content`, " } else { "" };
        return Err(entry.error(format!("needs exactly one source: `file`, {content}`environment` or `external`")));
    };
    object.name = name.unwrap_or_else(|| match &source {
        FileSource::External => entry.key().to_owned(),
        _ => format!("{}_{}", entry.cx.input.project, entry.key()),
    });
    object.source = source;
    Ok(object)
}

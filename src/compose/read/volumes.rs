//! `volumes` of a service and of the project (Compose Specification, "volumes"): short and long syntax.

use std::collections::{BTreeMap, HashMap};

use super::{external, real_name};
use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::{Mount, MountSource, Volume};
use crate::compose::{paths, suggest};
use crate::domain::ObjectKey;

/// The attribute `volumes` of a service. Of two mounts on one path the later one counts, in the earlier one's place.
pub(super) fn mounts(field: &Field<'_>, enabled: bool) -> Result<Vec<Mount>, ComposeError> {
    let mut mounts: Vec<Mount> = Vec::new();
    let mut by_target: HashMap<String, usize> = HashMap::new();
    for item in field.items()? {
        let mount = if item.is_mapping() { long(&item, enabled)? } else { short(&item, enabled)? };
        if let Some(&at) = by_target.get(&mount.target) {
            mounts[at] = mount;
        } else {
            by_target.insert(mount.target.clone(), mounts.len());
            mounts.push(mount);
        }
    }
    Ok(mounts)
}

/// `target`, `source:target` or `source:target:options`.
fn short(item: &Field<'_>, enabled: bool) -> Result<Mount, ComposeError> {
    let text = item.text()?;
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(item.error("has an empty part: write [source:]target[:options]"));
    }
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(item.error("has too many colons: write [source:]target[:options], or the long syntax")),
    };
    let target = container_path(item, target)?;
    let mut read_only = None;
    let (mut nocopy, mut propagation, mut selinux) = (false, None, None);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = Some(true),
            "rw" => read_only = Some(false),
            "nocopy" => nocopy = true,
            "z" | "Z" => selinux = Some(option.to_owned()),
            "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" => {
                propagation = Some(option.to_owned());
            }
            // Docker Desktop's hints, without effect on Linux.
            "cached" | "delegated" | "consistent" => {}
            _ => item.warn("has an option that means nothing and is ignored; options are ro, rw, nocopy, z, Z"),
        }
    }
    let source = match source {
        None => MountSource::Anonymous { nocopy },
        Some(path) if path.starts_with(['.', '/', '~']) => {
            MountSource::Bind { source: item.cx.path(path), create_host_path: true, propagation, selinux }
        }
        Some(key) => MountSource::Volume { key: volume_key(item, key, enabled)?, nocopy, subpath: None },
    };
    Ok(Mount { source, target, read_only })
}

fn container_path(field: &Field<'_>, path: &str) -> Result<String, ComposeError> {
    if path.starts_with('/') {
        Ok(paths::clean(path))
    } else {
        Err(field.error("the path in the container must be absolute"))
    }
}

fn volume_key(field: &Field<'_>, key: &str, enabled: bool) -> Result<ObjectKey, ComposeError> {
    let declared = &field.cx.declared.volumes;
    if enabled && !declared.contains(key) {
        let hint = suggest::hint(key, declared.iter().copied());
        let reason = format!("names a volume that is not under the top-level `volumes`{hint}");
        return Err(field.error(reason));
    }
    ObjectKey::parse(key).map_err(|error| field.error(error.to_string()))
}

/// What the members of a long-syntax mount say, before its type is known.
#[derive(Default)]
struct Long {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    nocopy: bool,
    subpath: Option<String>,
    create_host_path: bool,
    propagation: Option<String>,
    selinux: Option<String>,
    size: Option<u64>,
    mode: Option<u32>,
}

const LONG: &[&str] = &["type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs"];

fn long(item: &Field<'_>, enabled: bool) -> Result<Mount, ComposeError> {
    let mut mount = Long::default();
    for attribute in item.attributes()? {
        match attribute.key() {
            "type" => mount.kind = Some(attribute.text()?.to_owned()),
            "source" => mount.source = Some(attribute.text()?.to_owned()),
            "target" => mount.target = Some(container_path(&attribute, attribute.some_text()?)?),
            "read_only" => mount.read_only = Some(attribute.boolean()?),
            "consistency" => {
                attribute.text()?;
            }
            "bind" => bind_options(&attribute, &mut mount)?,
            "volume" => volume_options(&attribute, &mut mount)?,
            "tmpfs" => tmpfs_options(&attribute, &mut mount)?,
            _ => return Err(attribute.unknown(LONG, &["image"])),
        }
    }
    let kind = mount.kind.ok_or_else(|| item.error("has no `type`: volume, bind or tmpfs"))?;
    let source = mount.source.filter(|source| !source.is_empty());
    let source = match kind.as_str() {
        "volume" => match source {
            Some(key) => MountSource::Volume {
                key: volume_key(item, &key, enabled)?,
                nocopy: mount.nocopy,
                subpath: mount.subpath,
            },
            None => MountSource::Anonymous { nocopy: mount.nocopy },
        },
        "bind" => MountSource::Bind {
            source: item.cx.path(&source.ok_or_else(|| item.error("a bind needs a `source`, a path"))?),
            create_host_path: mount.create_host_path,
            propagation: mount.propagation,
            selinux: mount.selinux,
        },
        "tmpfs" if source.is_some() => return Err(item.error("a tmpfs has no `source`")),
        "tmpfs" => MountSource::Tmpfs { size: mount.size, mode: mount.mode },
        "image" | "npipe" | "cluster" => {
            return Err(item.error(format!("a mount of type {kind} is not supported by this agent yet")));
        }
        _ => return Err(item.error("the type of a mount is volume, bind or tmpfs")),
    };
    let target = mount.target.ok_or_else(|| item.error("has no `target`, the path in the container"))?;
    Ok(Mount { source, target, read_only: mount.read_only })
}

fn bind_options(field: &Field<'_>, mount: &mut Long) -> Result<(), ComposeError> {
    for attribute in field.attributes()? {
        match attribute.key() {
            "create_host_path" => mount.create_host_path = attribute.boolean()?,
            "propagation" => {
                let text = attribute.text()?;
                if !matches!(text, "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate") {
                    return Err(attribute.error("must be private, rprivate, slave, rslave, shared or rshared"));
                }
                mount.propagation = Some(text.to_owned());
            }
            "selinux" => {
                let text = attribute.text()?;
                if !matches!(text, "z" | "Z") {
                    return Err(attribute.error("must be z or Z"));
                }
                mount.selinux = Some(text.to_owned());
            }
            _ => return Err(attribute.unknown(&["create_host_path", "propagation", "selinux"], &["recursive"])),
        }
    }
    Ok(())
}

fn volume_options(field: &Field<'_>, mount: &mut Long) -> Result<(), ComposeError> {
    for attribute in field.attributes()? {
        match attribute.key() {
            "nocopy" => mount.nocopy = attribute.boolean()?,
            "subpath" => mount.subpath = Some(attribute.some_text()?.to_owned()),
            _ => return Err(attribute.unknown(&["nocopy", "subpath"], &["labels"])),
        }
    }
    Ok(())
}

fn tmpfs_options(field: &Field<'_>, mount: &mut Long) -> Result<(), ComposeError> {
    for attribute in field.attributes()? {
        match attribute.key() {
            "size" => {
                let size = u64::try_from(attribute.bytes()?);
                mount.size = Some(size.map_err(|_| attribute.error("must not be negative"))?);
            }
            "mode" => mount.mode = Some(attribute.mode()?),
            _ => return Err(attribute.unknown(&["size", "mode"], &[])),
        }
    }
    Ok(())
}

/// The attribute `tmpfs`: a path, or `path:options`, or a list of them.
pub(super) fn tmpfs(field: &Field<'_>) -> Result<BTreeMap<String, String>, ComposeError> {
    let mut all = BTreeMap::new();
    for text in field.text_or_texts()? {
        let (path, options) = text.split_once(':').unwrap_or((&text, ""));
        all.insert(container_path(field, path)?, options.to_owned());
    }
    Ok(all)
}

/// The top-level `volumes`.
pub(super) fn top_level(section: &Field<'_>) -> Result<BTreeMap<ObjectKey, Volume>, ComposeError> {
    let mut volumes = BTreeMap::new();
    for entry in section.entries()? {
        let key = entry.parsed_key(ObjectKey::parse)?;
        let volume = if entry.is_null() { volume(&entry, false)? } else { volume(&entry, true)? };
        volumes.insert(key, volume);
    }
    Ok(volumes)
}

fn volume(entry: &Field<'_>, has_attributes: bool) -> Result<Volume, ComposeError> {
    let (external, external_name) = external(entry)?;
    let name = match external_name {
        Some(name) => crate::domain::ObjectName::parse(&name).map_err(|error| entry.error(error.to_string()))?,
        None => real_name(entry, entry.get("name").as_ref(), external)?,
    };
    let mut volume = Volume { name, external, driver: None, driver_opts: BTreeMap::new(), labels: BTreeMap::new() };
    if has_attributes {
        for attribute in entry.attributes()? {
            match attribute.key() {
                "name" | "external" => {}
                "driver" => volume.driver = Some(attribute.some_text()?.to_owned()),
                "driver_opts" => volume.driver_opts = attribute.options()?,
                "labels" => volume.labels = attribute.pairs()?,
                _ => return Err(attribute.unknown(&["name", "external", "driver", "driver_opts", "labels"], &[])),
            }
        }
    }
    Ok(volume)
}

//! `volumes` of a service and of the project (Compose Specification, "volumes"): short and long syntax.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::foreign::{self, Shape};
use super::{depends, external, real_name};
use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::{Mount, MountSource, TmpfsMount, Volume, VolumesFrom, VolumesFromSource};
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
        None => MountSource::Anonymous { nocopy, labels: BTreeMap::new() },
        Some(path) if path.starts_with(['.', '/', '~']) => MountSource::Bind {
            source: item.absolute(path),
            create_host_path: true,
            propagation,
            selinux,
            recursive: None,
        },
        // docker compose takes the options of a bind here, too, and prints them as such.
        Some(key) => MountSource::Volume {
            key: volume_key(item, key, enabled)?,
            nocopy,
            subpath: None,
            labels: BTreeMap::new(),
            propagation,
            selinux,
        },
    };
    // To docker compose so short a text is no specification yet, and it prints no options for it.
    let has_options = text.len() > 2;
    Ok(Mount { source, target, read_only, consistency: None, has_options })
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
    /// As written, and as a path.
    source: Option<(String, String)>,
    target: Option<String>,
    read_only: Option<bool>,
    consistency: Option<String>,
    /// The options that are there.
    options: Vec<&'static str>,
    nocopy: bool,
    subpath: Option<String>,
    labels: BTreeMap<String, String>,
    create_host_path: bool,
    propagation: Option<String>,
    selinux: Option<String>,
    recursive: Option<String>,
    size: Option<u64>,
    mode: Option<u32>,
    foreign: Option<serde_json::Value>,
}

const LONG: &[&str] =
    &["type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs", "image", "cluster"];
const TYPES: &str = "volume, bind, tmpfs, image, npipe or cluster";

fn long(item: &Field<'_>, enabled: bool) -> Result<Mount, ComposeError> {
    let mut mount = Long::default();
    for attribute in item.attributes()? {
        let a = &attribute;
        match a.key() {
            "type" => mount.kind = Some(a.text()?.to_owned()),
            "source" => {
                let text = a.text()?;
                mount.source = Some((text.to_owned(), a.absolute(text))).filter(|(text, _)| !text.is_empty());
            }
            "target" => mount.target = Some(container_path(a, a.some_text()?)?),
            "read_only" => mount.read_only = Some(a.boolean()?),
            "consistency" => mount.consistency = Some(a.text()?.to_owned()),
            "bind" => bind_options(a, &mut mount)?,
            "volume" => volume_options(a, &mut mount)?,
            "tmpfs" => tmpfs_options(a, &mut mount)?,
            "image" => image_options(a, &mut mount)?,
            "cluster" => {
                mount.options.push("cluster");
                mount.foreign = Some(foreign::read(a, &Shape::Fields(&[]))?);
            }
            _ => return Err(a.unknown(LONG)),
        }
    }
    let kind = mount.kind.clone().ok_or_else(|| item.error(format!("has no `type`: {TYPES}")))?;
    let has_options = mount.options.contains(&kind.as_str());
    let (read_only, consistency) = (mount.read_only, mount.consistency.clone());
    let target = mount.target.clone();
    let source = mount.into_source(item, &kind, enabled)?;
    let target = target.ok_or_else(|| item.error("has no `target`, the path in the container"))?;
    Ok(Mount { source, target, read_only, consistency, has_options })
}

impl Long {
    fn into_source(self, item: &Field<'_>, kind: &str, enabled: bool) -> Result<MountSource, ComposeError> {
        Ok(match (kind, self.source) {
            ("volume", Some((key, _))) => MountSource::Volume {
                key: volume_key(item, &key, enabled)?,
                nocopy: self.nocopy,
                subpath: self.subpath,
                labels: self.labels,
                propagation: self.propagation,
                selinux: self.selinux,
            },
            ("volume", None) => MountSource::Anonymous { nocopy: self.nocopy, labels: self.labels },
            ("bind", Some((_, path))) => MountSource::Bind {
                source: path,
                create_host_path: self.create_host_path,
                propagation: self.propagation,
                selinux: self.selinux,
                recursive: self.recursive,
            },
            ("bind", None) => return Err(item.error("a bind needs a `source`, a path")),
            ("tmpfs", Some(_)) => return Err(item.error("a tmpfs has no `source`")),
            ("tmpfs", None) => MountSource::Tmpfs { size: self.size, mode: self.mode },
            ("image", Some((source, _))) => MountSource::Image { source, subpath: self.subpath },
            ("image", None) => return Err(item.error("a mount of an image needs a `source`, the image")),
            ("npipe" | "cluster", source) => MountSource::Foreign {
                kind: kind.to_owned(),
                source: source.map(|(text, _)| text),
                options: self.foreign,
            },
            _ => return Err(item.error(format!("the type of a mount is {TYPES}"))),
        })
    }
}

/// One of a few words.
fn word(field: &Field<'_>, words: &[&str]) -> Result<Option<String>, ComposeError> {
    let text = field.text()?;
    if words.contains(&text) {
        Ok(Some(text.to_owned()))
    } else {
        Err(field.error(format!("must be {}", words.join(", "))))
    }
}

fn bind_options(field: &Field<'_>, mount: &mut Long) -> Result<(), ComposeError> {
    const PROPAGATION: &[&str] = &["private", "rprivate", "slave", "rslave", "shared", "rshared"];
    mount.options.push("bind");
    for attribute in field.attributes()? {
        match attribute.key() {
            "create_host_path" => mount.create_host_path = attribute.boolean()?,
            "propagation" => mount.propagation = word(&attribute, PROPAGATION)?,
            "selinux" => mount.selinux = word(&attribute, &["z", "Z"])?,
            "recursive" => mount.recursive = word(&attribute, &["enabled", "disabled", "writable", "readonly"])?,
            _ => return Err(attribute.unknown(&["create_host_path", "propagation", "recursive", "selinux"])),
        }
    }
    Ok(())
}

fn volume_options(field: &Field<'_>, mount: &mut Long) -> Result<(), ComposeError> {
    mount.options.push("volume");
    for attribute in field.attributes()? {
        match attribute.key() {
            "nocopy" => mount.nocopy = attribute.boolean()?,
            "subpath" => mount.subpath = Some(attribute.some_text()?.to_owned()),
            "labels" => mount.labels = attribute.pairs()?,
            _ => return Err(attribute.unknown(&["labels", "nocopy", "subpath"])),
        }
    }
    Ok(())
}

fn image_options(field: &Field<'_>, mount: &mut Long) -> Result<(), ComposeError> {
    mount.options.push("image");
    for attribute in field.attributes()? {
        match attribute.key() {
            "subpath" => mount.subpath = Some(attribute.some_text()?.to_owned()),
            _ => return Err(attribute.unknown(&["subpath"])),
        }
    }
    Ok(())
}

fn tmpfs_options(field: &Field<'_>, mount: &mut Long) -> Result<(), ComposeError> {
    mount.options.push("tmpfs");
    for attribute in field.attributes()? {
        match attribute.key() {
            "size" => {
                let size = u64::try_from(attribute.bytes()?);
                mount.size = Some(size.map_err(|_| attribute.error("must not be negative"))?);
            }
            "mode" => mount.mode = Some(attribute.mode()?),
            _ => return Err(attribute.unknown(&["size", "mode"])),
        }
    }
    Ok(())
}

/// The attribute `tmpfs`: a path, or `path:options`, or a list of them. Of two on one path the later one counts, in the
/// earlier one's place.
pub(super) fn tmpfs(field: &Field<'_>) -> Result<Vec<TmpfsMount>, ComposeError> {
    let mut all: Vec<TmpfsMount> = Vec::new();
    let mut by_path: HashMap<String, usize> = HashMap::new();
    for text in field.text_or_texts()? {
        let (path, options) = text.split_once(':').unwrap_or((&text, ""));
        let mount = TmpfsMount { path: path.to_owned(), options: options.to_owned() };
        container_path(field, path)?;
        if let Some(&at) = by_path.get(path) {
            all[at] = mount;
        } else {
            by_path.insert(path.to_owned(), all.len());
            all.push(mount);
        }
    }
    Ok(all)
}

/// The attribute `volumes_from`: `service[:mode]` or `container:name[:mode]`.
pub(super) fn volumes_from(field: &Field<'_>) -> Result<Vec<VolumesFrom>, ComposeError> {
    let mut all: Vec<VolumesFrom> = Vec::new();
    let mut seen = BTreeSet::new();
    for item in field.items()? {
        let parts: Vec<&str> = item.some_text()?.split(':').collect();
        let (source, mode) = match parts[..] {
            ["container", name] => (VolumesFromSource::Container(name.to_owned()), None),
            ["container", name, mode] => (VolumesFromSource::Container(name.to_owned()), Some(mode)),
            [name] => (VolumesFromSource::Service(depends::reference(&item, name)?), None),
            [name, mode] => (VolumesFromSource::Service(depends::reference(&item, name)?), Some(mode)),
            _ => return Err(item.error("must be SERVICE[:MODE] or container:NAME[:MODE]")),
        };
        if mode.is_some_and(|mode| !matches!(mode, "ro" | "rw")) {
            return Err(item.error("the mode must be ro or rw"));
        }
        let from = VolumesFrom { source, mode: mode.map(str::to_owned) };
        if seen.insert(item.some_text()?) {
            all.push(from);
        }
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
                "driver" => volume.driver = attribute.optional_text()?,
                "driver_opts" => volume.driver_opts = attribute.options()?,
                "labels" => volume.labels = attribute.pairs()?,
                _ => return Err(attribute.unknown(&["name", "external", "driver", "driver_opts", "labels"])),
            }
        }
    }
    Ok(volume)
}

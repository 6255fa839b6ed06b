//! `HostConfig.Mounts` and `HostConfig.VolumesFrom`.
//!
//! All mounts are `Mounts`, never `Binds`: for a bind the engine would make a missing source as a root-owned directory.

use std::collections::BTreeMap;

use bollard::models::{
    Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum, MountImageOptions, MountTmpfsOptions,
    MountType, MountVolumeOptions,
};

use super::{Surroundings, container_of, some_map};
use crate::backend::docker::gates::{API_1_42, API_1_44, ApiVersion};
use crate::backend::{BackendError, Deployment};
use crate::compose::{FileObject, FileReference, Mount, MountSource, Service, VolumesFromSource};
use crate::domain::{ObjectKey, ServiceName};

/// The service's volumes, configs and secrets, and what its container inherits.
pub(super) fn mounts(
    deployment: &Deployment,
    name: &ServiceName,
    service: &Service,
    around: &Surroundings<'_>,
) -> Result<Vec<EngineMount>, BackendError> {
    let project = deployment.project.project();
    let mut mounts = Vec::new();
    for (index, mount) in service.mounts.iter().enumerate() {
        mounts.push(engine_mount(deployment, mount, around.api, &format!("services.{name}.volumes[{index}]"))?);
    }
    let files = [("configs", &service.configs, &project.configs), ("secrets", &service.secrets, &project.secrets)];
    for (field, references, objects) in files {
        for (index, reference) in references.iter().enumerate() {
            mounts.push(file_mount(deployment, reference, objects, &format!("services.{name}.{field}[{index}]"))?);
        }
    }
    for (volume, path) in around.inherited {
        match mounts.iter_mut().find(|mount| mount.target.as_deref() == Some(path)) {
            // The file's own anonymous volume: it is the one that the container before had.
            Some(mount) if mount.typ == Some(MountType::VOLUME) && mount.source.is_none() => {
                mount.source = Some(volume.clone());
            }
            Some(_) => {}
            // The image's.
            None => mounts.push(EngineMount {
                typ: Some(MountType::VOLUME),
                source: Some(volume.clone()),
                target: Some(path.clone()),
                ..Default::default()
            }),
        }
    }
    Ok(mounts)
}

fn engine_mount(
    deployment: &Deployment,
    mount: &Mount,
    api: ApiVersion,
    field: &str,
) -> Result<EngineMount, BackendError> {
    let unsupported = |reason: &str| BackendError::Unsupported { field: field.to_owned(), reason: reason.to_owned() };
    let mut result = EngineMount {
        target: Some(mount.target.clone()),
        read_only: mount.read_only,
        consistency: mount.consistency.clone(),
        ..Default::default()
    };
    match &mount.source {
        // Options of a bind, which the short syntax may have here, mean nothing for a volume.
        MountSource::Volume { key, nocopy, subpath, labels, propagation: _, selinux: _ } => {
            let volume = deployment.project.project().volumes.get(key);
            let volume = volume.ok_or_else(|| unsupported("the volume is not declared"))?;
            result.typ = Some(MountType::VOLUME);
            result.source = Some(volume.name.as_str().to_owned());
            result.volume_options = volume_options(*nocopy, subpath.as_ref(), labels);
        }
        MountSource::Anonymous { nocopy, labels } => {
            result.typ = Some(MountType::VOLUME);
            result.volume_options = volume_options(*nocopy, None, labels);
        }
        // `Mounts` have no SELinux label: a host that enforces one has to have it on the source.
        MountSource::Bind { source, create_host_path, propagation, selinux: _, recursive } => {
            result.typ = Some(MountType::BIND);
            result.source = Some(source.clone());
            let propagation = match propagation.as_deref() {
                None | Some("") => None,
                Some("private") => Some(MountBindOptionsPropagationEnum::PRIVATE),
                Some("rprivate") => Some(MountBindOptionsPropagationEnum::RPRIVATE),
                Some("shared") => Some(MountBindOptionsPropagationEnum::SHARED),
                Some("rshared") => Some(MountBindOptionsPropagationEnum::RSHARED),
                Some("slave") => Some(MountBindOptionsPropagationEnum::SLAVE),
                Some("rslave") => Some(MountBindOptionsPropagationEnum::RSLAVE),
                Some(_) => return Err(unsupported("not a bind propagation")),
            };
            let recursive = recursive.as_deref();
            // What lies in the project directory is made by the agent, or is not there for a reason.
            let is_hosts = deployment.project.project().relative(source).is_none();
            let creates = *create_host_path && is_hosts && !deployment.project.is_confined() && api >= API_1_42;
            let options = MountBindOptions {
                propagation,
                non_recursive: (recursive == Some("disabled")).then_some(true),
                create_mountpoint: creates.then_some(true),
                // Before this version a read-only bind is never read-only below other mount points.
                read_only_non_recursive: (recursive == Some("writable") && api >= API_1_44).then_some(true),
                read_only_force_recursive: (recursive == Some("readonly")).then_some(true),
            };
            result.bind_options = (options != MountBindOptions::default()).then_some(options);
        }
        MountSource::Tmpfs { size, mode } => {
            result.typ = Some(MountType::TMPFS);
            if size.is_some() || mode.is_some() {
                result.tmpfs_options = Some(MountTmpfsOptions {
                    size_bytes: size.and_then(|size| i64::try_from(size).ok()),
                    mode: mode.map(i64::from),
                    ..Default::default()
                });
            }
        }
        MountSource::Image { source, subpath } => {
            result.typ = Some(MountType::IMAGE);
            result.source = Some(source.clone());
            result.image_options = subpath.as_ref().map(|subpath| MountImageOptions { subpath: Some(subpath.clone()) });
        }
        MountSource::Foreign { .. } => return Err(unsupported("the engine has no mounts of this type")),
    }
    Ok(result)
}

fn volume_options(
    nocopy: bool,
    subpath: Option<&String>,
    labels: &BTreeMap<String, String>,
) -> Option<MountVolumeOptions> {
    let options = MountVolumeOptions {
        no_copy: nocopy.then_some(true),
        subpath: subpath.cloned(),
        labels: some_map(labels),
        ..Default::default()
    };
    (options != MountVolumeOptions::default()).then_some(options)
}

/// A config or secret: a file that the agent wrote with its owner and mode, mounted read-only.
fn file_mount(
    deployment: &Deployment,
    reference: &FileReference,
    objects: &BTreeMap<ObjectKey, FileObject>,
    field: &str,
) -> Result<EngineMount, BackendError> {
    let file = deployment.mount_file(reference, objects).ok_or_else(|| BackendError::Unsupported {
        field: field.to_owned(),
        reason: "it has no content in the request".to_owned(),
    })?;
    Ok(EngineMount {
        typ: Some(MountType::BIND),
        source: Some(format!("{}/.agent/mounts/{}", deployment.project.project().directory, file.name)),
        target: Some(reference.target.clone()),
        read_only: Some(true),
        ..Default::default()
    })
}

/// `container[:mode]`. docker compose sends the first container of a service and forgets the mode; the mode is kept here.
pub(super) fn volumes_from(
    name: &ServiceName,
    service: &Service,
    around: &Surroundings<'_>,
) -> Result<Vec<String>, BackendError> {
    let entries = service.volumes_from.iter().enumerate().map(|(index, from)| {
        let container = match &from.source {
            VolumesFromSource::Container(container) => container.as_str(),
            VolumesFromSource::Service(other) => {
                container_of(other, around, &format!("services.{name}.volumes_from[{index}]"))?.as_str()
            }
        };
        Ok(from.mode.as_ref().map_or_else(|| container.to_owned(), |mode| format!("{container}:{mode}")))
    });
    entries.collect()
}

//! What is mounted: named volumes as shares of Azure Files, files of the request, configs and secrets as secret volumes, all
//! else that is writable as empty directories.
//!
//! A secret volume is a whole directory: files that belong into one directory are one volume, and what the image has in that
//! directory is hidden.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{BackendError, Ground, Share, tags, unsupported};
use crate::backend::Deployment;
use crate::backend::aci::models::{AzureFile, Empty, Secret, Volume, VolumeMount};
use crate::backend::aci::names;
use crate::compose::{FileObject, FileReference, Mount, MountSource, Service};
use crate::domain::{ObjectKey, ServiceName};

/// Most volumes of a group.
const MAX_VOLUMES: usize = 20;

/// GiB of a volume that says nothing.
const DEFAULT_QUOTA: u32 = 5;
/// GiB of the largest share.
const MAX_QUOTA: u32 = 102_400;
/// How a volume says how large it is to be: its label, or `driver_opts.size`.
const SIZE_LABEL: &str = "q8.size";

/// Where nobody looks for anything else: no need to say that the directory's own content is hidden.
const OWN_DIRECTORY: &str = "/run/secrets";

/// Directories that no container can do without.
const SYSTEM: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/ssl",
    "/etc/ssl/certs",
    "/home",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/run",
];

/// Host files that say which time it is.
const HOST_FILES: &[&str] = &["/etc/localtime", "/etc/timezone"];

/// Files of one directory by name, as a secret volume has them.
type Files = BTreeMap<String, Secret>;

/// The volumes of the group, as the services need them.
pub(super) struct Volumes<'a> {
    wanted: &'a Deployment,
    ground: Ground<'a>,
    list: Vec<Volume>,
    shares: Vec<Share>,
    /// What has to be refused if there are too many.
    last_field: String,
}

/// One mount of a container, and the field that asks for it.
struct Mounted {
    field: String,
    is_secret: bool,
    mount: VolumeMount,
}

impl<'a> Volumes<'a> {
    pub(super) fn new(wanted: &'a Deployment, ground: &Ground<'a>) -> Self {
        Self { wanted, ground: *ground, list: Vec::new(), shares: Vec::new(), last_field: String::new() }
    }

    /// The mounts of one service; adds the volumes they need.
    pub(super) fn mounts(
        &mut self,
        name: &ServiceName,
        service: &Service,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<VolumeMount>, BackendError> {
        let mut mounted: Vec<Mounted> = Vec::new();
        // By directory; each file with the field that asks for it.
        let mut files: BTreeMap<String, (Files, String)> = BTreeMap::new();
        for (at, mount) in service.mounts.iter().enumerate() {
            let field = format!("services.{name}.volumes[{at}]");
            match &mount.source {
                MountSource::Bind { source, .. } => self.bind(&field, mount, source, &mut files, warnings)?,
                _ => mounted.push(self.writable(name, service, &field, mount, warnings)?),
            }
        }
        for (at, tmpfs) in service.tmpfs.iter().enumerate() {
            let field = format!("services.{name}.tmpfs[{at}]");
            if !tmpfs.options.is_empty() {
                warnings.push(format!("{field}: an empty directory has no options"));
            }
            mounted.push(self.empty(name, &field, &tmpfs.path));
        }
        let project = self.wanted.project.project();
        for (kind, references, objects) in
            [("configs", &service.configs, &project.configs), ("secrets", &service.secrets, &project.secrets)]
        {
            for (at, reference) in references.iter().enumerate() {
                let field = format!("services.{name}.{kind}[{at}]");
                reference_file(&field, reference, objects, &mut files, warnings)?;
            }
        }
        for (directory, (files, field)) in files {
            if SYSTEM.contains(&directory.as_str()) {
                return Err(unsupported(
                    field,
                    format!("a file comes with a volume in place of its whole directory, which cannot be {directory}"),
                ));
            }
            if directory != OWN_DIRECTORY {
                warnings.push(format!("{field}: what the image has in {directory} is hidden"));
            }
            let volume = self.secret(name, &directory, files);
            mounted.push(Mounted {
                field,
                is_secret: true,
                mount: VolumeMount { name: volume, mount_path: directory, read_only: Some(true) },
            });
        }
        judge_paths(&mounted)?;
        if let Some(last) = mounted.last() {
            self.last_field.clone_from(&last.field);
        }
        if self.list.len() > MAX_VOLUMES {
            return Err(unsupported(&self.last_field, format!("a group has at most {MAX_VOLUMES} volumes")));
        }
        Ok(mounted.into_iter().map(|mounted| mounted.mount).collect())
    }

    /// The volumes and the shares behind them.
    pub(super) fn finish(self, warnings: &mut Vec<String>) -> (Vec<Volume>, Vec<Share>) {
        for share in &self.shares {
            warnings.push(format!(
                "volumes.{}: a share of Azure Files; it begins empty, and its files have no owners and modes of their own",
                share.volume
            ));
        }
        (self.list, self.shares)
    }

    /// A volume, or an empty directory.
    fn writable(
        &mut self,
        name: &ServiceName,
        service: &Service,
        field: &str,
        mount: &Mount,
        warnings: &mut Vec<String>,
    ) -> Result<Mounted, BackendError> {
        let mut mounted = match &mount.source {
            MountSource::Volume { key, subpath, .. } => {
                if subpath.is_some() {
                    return Err(unsupported(field, "a share is mounted as a whole"));
                }
                if service.user.as_deref().is_some_and(|user| !user.is_empty() && !user.starts_with('0')) {
                    warnings.push(format!("{field}: shares are made for containers that run as root"));
                }
                let volume = self.share(field, key)?;
                Mounted {
                    field: field.to_owned(),
                    is_secret: false,
                    mount: VolumeMount { name: volume, mount_path: mount.target.clone(), read_only: None },
                }
            }
            MountSource::Anonymous { .. } => {
                warnings.push(format!("{field}: an empty directory, whose content goes when the group stops"));
                self.empty(name, field, &mount.target)
            }
            MountSource::Tmpfs { size, mode } => {
                if size.is_some() || mode.is_some() {
                    warnings.push(format!("{field}: an empty directory has no size and no mode"));
                }
                self.empty(name, field, &mount.target)
            }
            MountSource::Image { .. } | MountSource::Foreign { .. } | MountSource::Bind { .. } => {
                return Err(unsupported(field, "a group mounts volumes, tmpfs and files of the request"));
            }
        };
        mounted.mount.read_only = mount.read_only.filter(|&read_only| read_only);
        Ok(mounted)
    }

    /// An empty directory of one container.
    fn empty(&mut self, name: &ServiceName, field: &str, path: &str) -> Mounted {
        let volume = names::volume(&format!("{name}{path}"));
        self.list.push(Volume { name: volume.clone(), empty_dir: Some(Empty {}), ..Volume::default() });
        Mounted {
            field: field.to_owned(),
            is_secret: false,
            mount: VolumeMount { name: volume, mount_path: path.to_owned(), read_only: None },
        }
    }

    /// The volume of a named volume, which several services may mount.
    fn share(&mut self, field: &str, key: &ObjectKey) -> Result<String, BackendError> {
        let volume = names::volume(key.as_str());
        if self.shares.iter().any(|share| share.volume == *key) {
            return Ok(volume);
        }
        let Some(account) = self.ground.storage_account else {
            return Err(unsupported(
                field,
                format!("location {} has no storage account, which named volumes need", self.ground.location),
            ));
        };
        let wanted = self.wanted;
        let defined = wanted.project.project().volumes.get(key);
        let real_name = defined.map_or_else(|| key.to_string(), |volume| volume.name.to_string());
        let share = names::share(wanted.tenant.id.as_str(), &real_name);
        self.list.push(Volume {
            name: volume.clone(),
            azure_file: Some(AzureFile {
                share_name: share.clone(),
                storage_account_name: account.to_owned(),
                ..AzureFile::default()
            }),
            ..Volume::default()
        });
        self.shares.push(Share {
            volume: key.clone(),
            name: share,
            quota_gib: quota(key, defined)?,
            metadata: tags::of_share(wanted, key.as_str(), &real_name),
        });
        Ok(volume)
    }

    /// The secret volume with these files. Containers that need the same files have the same volume.
    fn secret(&mut self, name: &ServiceName, directory: &str, files: Files) -> String {
        let same = self.list.iter().find(|volume| volume.secret.as_ref() == Some(&files));
        if let Some(volume) = same {
            return volume.name.clone();
        }
        let volume = names::volume(&format!("{name}{directory}"));
        self.list.push(Volume { name: volume.clone(), secret: Some(files), ..Volume::default() });
        volume
    }

    /// A file or directory of the request. Anything else of the host is out of reach.
    fn bind(
        &self,
        field: &str,
        mount: &Mount,
        source: &str,
        files: &mut BTreeMap<String, (Files, String)>,
        warnings: &mut Vec<String>,
    ) -> Result<(), BackendError> {
        if HOST_FILES.contains(&source) {
            warnings.push(format!("{field}: left out; the time zone of a group is UTC"));
            return Ok(());
        }
        let Some(inside) = self.wanted.project.project().relative(source) else {
            return Err(unsupported(field, "a group does not reach the host's files"));
        };
        if inside == "data" || inside.starts_with("data/") {
            return Err(unsupported(field, "a group does not reach the host's directories; use a named volume"));
        }
        if mount.read_only != Some(true) {
            warnings.push(format!("{field}: files of the request are read-only in a group"));
        }
        let mut found: Vec<(String, String, &crate::domain::FileContent)> = Vec::new();
        for (path, file) in &self.wanted.files {
            let path = path.as_str();
            if path == inside {
                let (directory, base) = split(&mount.target);
                found.push((directory.to_owned(), base.to_owned(), file));
            } else if let Some(rest) = below(path, inside) {
                if rest.contains('/') {
                    return Err(unsupported(
                        field,
                        format!("a directory of files becomes one volume without directories, and {rest} is in one"),
                    ));
                }
                found.push((mount.target.clone(), rest.to_owned(), file));
            }
        }
        if found.is_empty() {
            return Err(unsupported(
                field,
                "there is no such file in the request; use a named volume for what is written",
            ));
        }
        for (directory, base, file) in found {
            if file.mode & 0o111 != 0 {
                warnings.push(format!("{field}: {base} cannot be executable in a group"));
            }
            put(field, directory, base, &file.bytes, files)?;
        }
        Ok(())
    }
}

/// A config or secret, at its target.
fn reference_file(
    field: &str,
    reference: &FileReference,
    objects: &BTreeMap<ObjectKey, FileObject>,
    files: &mut BTreeMap<String, (Files, String)>,
    warnings: &mut Vec<String>,
) -> Result<(), BackendError> {
    let Some(bytes) = objects.get(&reference.source).and_then(|object| object.source.bytes()) else {
        return Err(unsupported(field, "it has no content in the request"));
    };
    if reference.uid.is_some() || reference.gid.is_some() || reference.mode.is_some() {
        warnings.push(format!("{field}: files in a group have no owner and no mode of their own"));
    }
    let (directory, base) = split(&reference.target);
    put(field, directory.to_owned(), base.to_owned(), bytes, files)
}

/// Puts one file into its directory.
fn put(
    field: &str,
    directory: String,
    base: String,
    bytes: &[u8],
    files: &mut BTreeMap<String, (Files, String)>,
) -> Result<(), BackendError> {
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if base.is_empty() || base == "." || base == ".." || base.len() > 253 || !base.bytes().all(word) {
        return Err(unsupported(field, "files in a group have names of letters, digits and . _ -"));
    }
    let (there, _) = files.entry(directory).or_insert_with(|| (Files::new(), field.to_owned()));
    if there.insert(base, STANDARD.encode(bytes).into()).is_some() {
        return Err(unsupported(field, "another file has the same path in the container"));
    }
    Ok(())
}

/// No two mounts in one place, none inside a secret volume, and no secret volume inside another mount.
fn judge_paths(mounted: &[Mounted]) -> Result<(), BackendError> {
    for (at, one) in mounted.iter().enumerate() {
        let path = one.mount.mount_path.as_str();
        if path.contains(':') {
            return Err(unsupported(&one.field, "a path in a container has no colon"));
        }
        for other in &mounted[..at] {
            let theirs = other.mount.mount_path.as_str();
            let nested = below(path, theirs).is_some() || below(theirs, path).is_some();
            if path == theirs || (nested && (one.is_secret || other.is_secret)) {
                return Err(unsupported(&one.field, format!("{path} and {theirs} are mounted into each other")));
            }
        }
    }
    Ok(())
}

/// How large a volume is to be: what it says, rounded up to GiB.
fn quota(key: &ObjectKey, volume: Option<&crate::compose::Volume>) -> Result<u32, BackendError> {
    let said = volume.and_then(|volume| {
        let label = volume.labels.get(SIZE_LABEL).map(|size| (format!("labels.{SIZE_LABEL}"), size));
        label.or_else(|| volume.driver_opts.get("size").map(|size| ("driver_opts.size".to_owned(), size)))
    });
    let Some((attribute, size)) = said else { return Ok(DEFAULT_QUOTA) };
    let gib = size.parse::<bytesize::ByteSize>().ok().map(|size| size.0.div_ceil(bytesize::GIB));
    gib.and_then(|gib| u32::try_from(gib).ok())
        .filter(|gib| (1..=MAX_QUOTA).contains(gib))
        .ok_or_else(|| unsupported(format!("volumes.{key}.{attribute}"), "a share has 1 to 102400 GiB, such as 20GiB"))
}

/// Directory and last part of an absolute path.
fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", base)) => ("/", base),
        Some((directory, base)) => (directory, base),
        None => ("/", path),
    }
}

/// The rest of a path that is below a directory.
fn below<'p>(path: &'p str, directory: &str) -> Option<&'p str> {
    if directory == "/" {
        return path.strip_prefix('/').filter(|rest| !rest.is_empty());
    }
    if directory.is_empty() {
        return Some(path);
    }
    path.strip_prefix(directory)?.strip_prefix('/')
}

//! One generation of one tenant, ready for a backend: the allowed project, the content it mounts, its hashes.

use std::collections::{BTreeMap, BTreeSet};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;

use crate::compose::{FileReference, MountSource, Service};
use crate::domain::{
    Adopted, AgentId, DesiredState, FileContent, Generation, ObjectKey, ProjectName, ProjectPath, ServiceName,
    Subdomain, TenantId,
};
use crate::policy::AllowedProject;

/// Whose objects these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRef {
    /// The agent.
    pub agent: AgentId,
    /// The tenant's name.
    pub subdomain: Subdomain,
    /// The tenant's identity.
    pub id: TenantId,
    /// The location it is in, where the backend has such.
    pub region: Option<String>,
    /// What is its own besides, because it was taken over.
    pub adopted: Adopted,
}

impl TenantRef {
    /// The tenant's Compose project.
    pub fn project(&self) -> ProjectName {
        ProjectName::of(&self.subdomain)
    }
}

/// Keys every hash that leaves the host (labels, tags): without it a reader of labels could guess secrets.
#[derive(Clone)]
pub struct HostKey([u8; 32]);

impl HostKey {
    /// From 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// HMAC-SHA-256 over length-prefixed parts, in hexadecimal.
    pub fn hash(&self, parts: &[&[u8]]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostKey(…)")
    }
}

/// A file that the agent itself mounts into a container: a config or secret with its owner and mode.
#[derive(Clone, PartialEq, Eq)]
pub struct MountFile {
    /// The file's name in `.agent/mounts/`: a keyed hash of all that follows.
    pub name: String,
    /// Content.
    pub bytes: Vec<u8>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl std::fmt::Debug for MountFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MountFile({}, {} bytes)", self.name, self.bytes.len())
    }
}

/// A directory below `data/` that a service binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirectory {
    /// Relative to the project directory, starting with `data`.
    pub path: String,
    /// Owner: the service's numeric `user`, else root.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a backend is asked to run.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Whose it is.
    pub tenant: TenantRef,
    /// Which accepted specification.
    pub generation: Generation,
    /// Whether its services are to run.
    pub desired: DesiredState,
    /// The project.
    pub project: AllowedProject,
    /// The request's files.
    pub files: BTreeMap<ProjectPath, FileContent>,
    /// Image ids to use instead of resolving references (after a rollback).
    pub pinned_images: BTreeMap<ServiceName, String>,
    /// The images, `repository@digest`, that this tenant has been allowed by their registry or was accepted with.
    pub authorised_images: BTreeSet<String>,
    /// For hashes.
    pub key: HostKey,
}

/// Modes of a mounted config or secret that says nothing about it (Compose Specification: world-readable).
const DEFAULT_MOUNT_MODE: u32 = 0o444;

impl Deployment {
    /// A service of the project.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.project.project().services.get(name).map(AsRef::as_ref)
    }

    /// The content of a file of the request, by its path relative to the project directory (`./x` is `x`) or an absolute
    /// path below it.
    pub fn request_file(&self, path: &str) -> Option<&[u8]> {
        let inside = self.project.project().relative(path).unwrap_or(path);
        let inside = inside.strip_prefix("./").unwrap_or(inside);
        self.files.get(&ProjectPath::parse(inside).ok()?).map(|file| file.bytes.as_slice())
    }

    /// The file behind a config or secret reference; none when the project has no content for it.
    pub fn mount_file(
        &self,
        reference: &FileReference,
        objects: &BTreeMap<ObjectKey, crate::compose::FileObject>,
    ) -> Option<MountFile> {
        let bytes = objects.get(&reference.source)?.source.bytes()?.to_vec();
        let (uid, gid) = (reference.uid.unwrap_or(0), reference.gid.unwrap_or(0));
        let mode = reference.mode.unwrap_or(DEFAULT_MOUNT_MODE);
        let owner = format!("{uid}:{gid}:{mode:o}");
        let mut name = self.key.hash(&[b"mount", &bytes, owner.as_bytes()]);
        name.truncate(32);
        Some(MountFile { name, bytes, uid, gid, mode })
    }

    /// Every file that has to be in `.agent/mounts/` before a container of this deployment is made.
    pub fn mount_files(&self) -> Vec<MountFile> {
        let project = self.project.project();
        let mut files: Vec<MountFile> = project
            .services
            .values()
            .flat_map(|service| {
                let configs = service.configs.iter().map(|reference| (reference, &project.configs));
                let secrets = service.secrets.iter().map(|reference| (reference, &project.secrets));
                configs.chain(secrets).filter_map(|(reference, objects)| self.mount_file(reference, objects))
            })
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files.dedup();
        files
    }

    /// Every directory below `data/` that a service binds.
    pub fn data_directories(&self) -> Vec<DataDirectory> {
        let project = self.project.project();
        let mut directories = Vec::new();
        for service in project.services.values() {
            let (uid, gid) = numeric_user(service.user.as_deref());
            for mount in &service.mounts {
                if let MountSource::Bind { source, .. } = &mount.source
                    && let Some(path) = project.relative(source)
                    && (path == "data" || path.starts_with("data/"))
                {
                    directories.push(DataDirectory { path: path.to_owned(), uid, gid });
                }
            }
        }
        directories
    }

    /// The keyed hash of everything about a service that its containers are made from, the content of configs, secrets
    /// and bound request files included. What only steers the apply (replicas, dependencies, pull policy, hooks) is left
    /// out, so changing it recreates nothing.
    pub fn service_hash(&self, service: &Service) -> String {
        #[derive(Serialize)]
        struct Hashed<'a> {
            service: serde_json::Value,
            contents: Vec<(&'a str, String)>,
        }
        let project = self.project.project();
        let mut value = serde_json::to_value(service).expect("the model serialises");
        if let Some(map) = value.as_object_mut() {
            for steering in STEERING {
                map.remove(*steering);
            }
            // Where a limit was written does not matter.
            map.insert("resources".to_owned(), serde_json::to_value(service.limits()).expect("the model serialises"));
            map.insert("restart".to_owned(), serde_json::to_value(service.restart_policy()).expect("it serialises"));
            let devices: Vec<_> = service.device_requests().collect();
            map.insert("gpus".to_owned(), serde_json::to_value(devices).expect("the model serialises"));
            map.retain(|attribute, value| says_something(attribute, value));
        }
        let mut contents: Vec<(&str, String)> = Vec::new();
        for (references, objects) in [(&service.configs, &project.configs), (&service.secrets, &project.secrets)] {
            for reference in references {
                let file = self.mount_file(reference, objects).map_or_else(String::new, |file| file.name);
                contents.push((&reference.target, file));
            }
        }
        for mount in &service.mounts {
            if let MountSource::Bind { source, .. } = &mount.source
                && let Some(bound) = project.relative(source)
            {
                for (path, file) in &self.files {
                    let path = path.as_str();
                    let below = bound.is_empty()
                        || path.strip_prefix(bound).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                    if below {
                        let mode = format!("{:o}", file.mode);
                        contents.push((path, self.key.hash(&[b"file", mode.as_bytes(), &file.bytes])));
                    }
                }
            }
        }
        for path in service.security_opt.iter().filter_map(|option| seccomp_file(option)) {
            if let Some(bytes) = self.request_file(path) {
                contents.push((path, self.key.hash(&[b"seccomp", bytes])));
            }
        }
        let text = serde_json::to_vec(&Hashed { service: value, contents }).expect("JSON of strings serialises");
        self.key.hash(&[b"service", &text])
    }

    /// The keyed hash of a network's or volume's definition.
    pub fn object_hash(&self, definition: &impl Serialize) -> String {
        let text = serde_json::to_vec(definition).expect("the model serialises");
        self.key.hash(&[b"object", &text])
    }
}

/// The profile that an option of `security_opt` names by its path: `seccomp=path` or `seccomp:path`.
pub(crate) fn seccomp_file(option: &str) -> Option<&str> {
    let path = option.strip_prefix("seccomp=").or_else(|| option.strip_prefix("seccomp:"))?;
    (!matches!(path, "unconfined" | "builtin")).then_some(path)
}

/// What only steers an apply, or is there to be printed.
const STEERING: &[&str] = &[
    "absent_dependencies",
    "attach",
    "build",
    "depends_on",
    "deploy",
    "foreign",
    "image_is_implied",
    "pre_stop",
    "profiles",
    "pull_policy",
    "scale",
];

/// Whether an attribute has to be hashed. One that says nothing has not: so an agent that knows more attributes finds the
/// containers of an older one unchanged. An empty command says that the image's is not wanted.
fn says_something(attribute: &str, value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty() || matches!(attribute, "command" | "entrypoint"),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    }
}

/// `user: "1000:1000"` as numbers; a name that only the image knows counts as root.
fn numeric_user(user: Option<&str>) -> (u32, u32) {
    let Some(user) = user else { return (0, 0) };
    let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
    match uid.parse() {
        Ok(uid) => (uid, gid.parse().unwrap_or(uid)),
        Err(_) => (0, 0),
    }
}

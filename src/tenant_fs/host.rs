//! The tenants root as a whole: opening it, its lock, the agent's identity and key.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::Stat;
use rustix::io::Errno;

use super::FsError;
use super::dir::{Dir, Mounts};
use super::late::LATE_DIR;
use super::spares::{Spares, is_full};
use super::workshop::{Workshop, random_hex};
use crate::domain::{AgentId, OperationKind};

pub(super) const HOST_DIR: &str = ".agent";
pub(super) const ARCHIVE_DIR: &str = ".archive";
const OPERATIONS: &str = "operations";
const LOCK_FILE: &str = "lock";
const AGENT_ID_FILE: &str = "agent-id";
const HOST_KEY_FILE: &str = "host-key";
const HOST_KEY_LENGTH: usize = 32;

/// What a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It helps to make room on a full disk, or puts right what keeps that from beginning: it gets a spare if there is
    /// no other space.
    MakesRoom,
    /// Anything else fails there.
    Other,
}

impl From<OperationKind> for Purpose {
    fn from(kind: OperationKind) -> Self {
        if kind.makes_room() { Self::MakesRoom } else { Self::Other }
    }
}

/// Everything of the root that is not a tenant.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) path: PathBuf,
    pub(super) root: Dir,
    /// The host directory: everything that is the agent's own and no tenant's.
    pub(super) own: Dir,
    pub(super) archives: Dir,
    pub(super) operations: Dir,
    pub(super) late: Dir,
    pub(super) workshop: Workshop,
    pub(super) spares: Spares,
    pub(super) agent_id: AgentId,
    pub(super) key: [u8; HOST_KEY_LENGTH],
    /// Held until the process ends.
    _lock: OwnedFd,
}

impl Host {
    pub(super) fn open(path: &Path) -> Result<Self, FsError> {
        let path = clean(path)?;
        let opening = FsError::io("opening the tenants root");
        let root = open_or_create_root(&path)?;
        check_ours(&root.stat().map_err(&opening)?)?;
        let own = own_dir(&root, HOST_DIR)?;
        let lock = own.lock(LOCK_FILE).map_err(|error| match error {
            Errno::WOULDBLOCK => FsError::Locked,
            other => FsError::io("locking the tenants root")(other),
        })?;
        let archives = own_dir(&root, ARCHIVE_DIR)?;
        let late = own.dir_or_create(LATE_DIR, 0o700).map_err(&opening)?;
        let workshop = Workshop::open(&own).map_err(FsError::io("clearing what an earlier run left"))?;
        let operations = own.dir_or_create(OPERATIONS, 0o700).map_err(FsError::io("opening the operations"))?;
        let agent_id = agent_id(&own, &workshop)?;
        let key = host_key(&own, &workshop)?;
        let spares = Spares::open(&own, &workshop).map_err(FsError::io("opening the spare files"))?;
        Ok(Self { path, root, own, archives, operations, late, workshop, spares, agent_id, key, _lock: lock })
    }
}

/// The engine is given this path, and resolves it itself: it has to be absolute and plain.
fn clean(path: &Path) -> Result<PathBuf, FsError> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let below_the_top = path.components().nth(1).is_some();
    if path.is_absolute() && plain && below_the_top && path.to_str().is_some() {
        Ok(path.components().collect())
    } else {
        Err(FsError::Root { reason: "it must be an absolute path without . and .., in UTF-8, and not / itself" })
    }
}

fn open_or_create_root(path: &Path) -> Result<Dir, FsError> {
    use std::os::unix::fs::DirBuilderExt as _;
    match Dir::open_root(path) {
        Err(Errno::NOENT) => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
                FsError::io("making the tenants root")(Errno::from_io_error(&error).unwrap_or(Errno::IO))
            })?;
            Dir::open_root(path)
        }
        other => other,
    }
    .map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR => FsError::Root { reason: "it is a link or a file; a directory is wanted" },
        other => FsError::io("opening the tenants root")(other),
    })
}

/// A directory right below the root that is the agent's own; made 0700.
fn own_dir(root: &Dir, name: &str) -> Result<Dir, FsError> {
    let dir = root.dir_or_create(name, 0o700).map_err(|error| match error {
        Errno::NOSYS => FsError::Root { reason: "this kernel has no openat2; Linux 5.6 or newer is needed" },
        Errno::LOOP | Errno::NOTDIR => {
            FsError::Root { reason: ".agent or .archive in it is a link or a file; a directory is wanted" }
        }
        Errno::XDEV => FsError::Root { reason: ".agent and .archive must be on its own file system" },
        other => FsError::io("opening the agent's own directory")(other),
    })?;
    check_ours(&dir.stat().map_err(FsError::io("opening the agent's own directory"))?)?;
    Ok(dir)
}

/// Whoever else can write here can make the agent, which is root on this host, read what he likes.
fn check_ours(stat: &Stat) -> Result<(), FsError> {
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(FsError::Root {
            reason: "it belongs to another user; it must belong to the one that the agent runs as",
        });
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(FsError::Root { reason: "its group or others can write to it; mode 0700 is wanted" });
    }
    Ok(())
}

fn agent_id(host: &Dir, workshop: &Workshop) -> Result<AgentId, FsError> {
    let failed = FsError::io("reading the agent's id");
    if let Some((bytes, _)) = host.read(AGENT_ID_FILE).map_err(&failed)? {
        // Never replaced: under a new id every object of this host would be somebody else's.
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim_end();
        return AgentId::parse(text)
            .map_err(|_| FsError::Root { reason: "its agent-id is damaged; restore it from the label dev.q8.agent" });
    }
    let text = random_hex(16).map_err(&failed)?;
    workshop
        .write(host, AGENT_ID_FILE, format!("{text}\n").as_bytes(), 0o600, None)
        .and_then(|()| host.sync())
        .map_err(FsError::io("writing the agent's id"))?;
    Ok(AgentId::parse(&text).expect("32 hexadecimal digits are an agent id"))
}

fn host_key(host: &Dir, workshop: &Workshop) -> Result<[u8; HOST_KEY_LENGTH], FsError> {
    let failed = FsError::io("reading the host key");
    if let Some((bytes, _)) = host.read(HOST_KEY_FILE).map_err(&failed)? {
        return bytes.try_into().map_err(|_| FsError::Root {
            reason: "its host-key is damaged; remove it and every container is recreated once",
        });
    }
    let mut key = [0; HOST_KEY_LENGTH];
    getrandom::fill(&mut key).map_err(|_| failed(Errno::IO))?;
    workshop
        .write(host, HOST_KEY_FILE, &key, 0o600, None)
        .and_then(|()| host.sync())
        .map_err(FsError::io("writing the host key"))?;
    Ok(key)
}

impl Host {
    /// Opens a tenant's directory; none when there is none.
    pub(super) fn tenant_dir(&self, tenant: &crate::domain::Subdomain) -> Result<Option<Dir>, FsError> {
        super::dir::absent_is_none(self.root.dir(tenant.as_str(), Mounts::Stay))
            .map_err(FsError::io("opening the tenant's directory"))
    }

    /// Writes a file of the host directory durably, 0600.
    pub(super) fn write_own(&self, name: &str, bytes: &[u8]) -> rustix::io::Result<()> {
        self.write(&self.own, name, bytes, Purpose::Other)
    }

    /// Writes one of the agent's files durably, 0600.
    pub(super) fn write(&self, into: &Dir, name: &str, bytes: &[u8], purpose: Purpose) -> rustix::io::Result<()> {
        match self.workshop.write(into, name, bytes, 0o600, None) {
            Err(error) if purpose == Purpose::MakesRoom && is_full(error) => {
                self.spares.write(&self.workshop, into, name, bytes, 0o600)
            }
            written => written,
        }
        .and_then(|()| into.sync())
    }
}

//! The tenants root: the only room that touches the disk.
//!
//! ```text
//! /opt/tenants/                 0700
//!   .agent/                     0700  agent-id, host-key, lock, cordon, pulled; late/, spares/, staging/ and trash/ of this room
//!     operations/{id}.json            what was done in the last day
//!   .archive/{sub}-{time}/      0700  config files of torn-down tenants
//!   {sub}/                      0700  the Compose project directory
//!     compose.yaml .env(0600) and the request's files
//!     data/                           the only place a container may bind read-write
//!     .agent/                   0700  never nameable by a tenant
//!       record.json                   the commit point
//!       operation.json                the open operation, if any
//!       generations/{g}.json          accepted or staged specifications
//!       mounts/{name}                 single files mounted read-only into containers
//! ```
//!
//! Every path is walked from a directory descriptor with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`; every file
//! is written to a new inode, synced and renamed. Calls block: run them off the async workers. They may be repeated
//! after any failure. Two calls for one tenant must not overlap (the orchestrator's lock); calls for different
//! tenants may.

mod archive;
mod cordon;
mod data;
mod dir;
mod error;
mod host;
mod late;
mod operations;
mod project_files;
mod pulled;
mod record;
mod sealed;
mod size;
mod spares;
mod tenant;
#[cfg(test)]
mod tests;
mod workshop;

pub use cordon::Cordon;
pub use error::FsError;
pub use late::Late;
pub use operations::Durability;
pub use record::{Journal, LastError, RECORD_VERSION, Record, StoredGeneration};
pub use size::DirectorySize;
pub use tenant::Listed;

use std::path::{Path, PathBuf};

use crate::domain::{AgentId, Subdomain};

/// The tenants root, held open and locked for this process.
#[derive(Debug)]
pub struct TenantFs {
    host: host::Host,
}

impl TenantFs {
    /// Opens the tenants root, making what is missing (0700), takes its lock and clears what a crash has left half done.
    ///
    /// # Errors
    /// [`FsError::Locked`] while another agent has the lock; [`FsError::Root`] when the root is not an absolute path, a
    /// link, writable by others, another user's, or when its agent id or host key is damaged.
    pub fn open(root: &Path) -> Result<Self, FsError> {
        Ok(Self { host: host::Host::open(root)? })
    }

    /// The identity of the agent on this root, made at first start.
    pub fn agent_id(&self) -> &AgentId {
        &self.host.agent_id
    }

    /// 32 random bytes made at first start.
    pub fn host_key(&self) -> [u8; 32] {
        self.host.key
    }

    /// The tenants root.
    pub fn root(&self) -> &Path {
        &self.host.path
    }

    /// The tenant's directory as the engine must see it: absolute, without a trailing slash.
    pub fn project_directory(&self, tenant: &Subdomain) -> PathBuf {
        self.host.path.join(tenant.as_str())
    }
}

//! `data/`: the one place that a tenant's containers can write, and so the one whose content is hostile.

use rustix::io::Errno;

use super::dir::{Dir, Mounts, Owner, is_in_the_way};
use super::{FsError, TenantFs};
use crate::crash;
use crate::domain::Subdomain;

pub(super) const DATA_DIR: &str = "data";

impl TenantFs {
    /// Makes a directory below `data/`, and those above it, 0755 with this owner. One that exists is left as it is.
    ///
    /// # Errors
    /// [`FsError::BadName`] unless `path` is relative, plain and starts with `data`; [`FsError::InTheWay`] when
    /// a link or a file is on the way.
    pub fn ensure_data_directory(&self, tenant: &Subdomain, path: &str, uid: u32, gid: u32) -> Result<(), FsError> {
        let _step = crash::step("data");
        let making = FsError::io("making a data directory");
        let parts: Vec<&str> = path.split('/').collect();
        if parts[0] != DATA_DIR || parts.iter().any(|part| matches!(*part, "" | "." | "..") || part.contains('\0')) {
            return Err(FsError::BadName {
                what: "a data directory",
                rule: "a relative path without . and .. that starts with data",
            });
        }
        let mut dir = self.project_dir(tenant)?;
        for at in 0..parts.len() {
            let in_the_way = |error| {
                if is_in_the_way(error) { FsError::InTheWay { path: parts[..=at].join("/") } } else { making(error) }
            };
            dir = match dir.dir(parts[at], Mounts::Cross) {
                Err(Errno::NOENT) => {
                    self.make_data_dir(&dir, parts[at], Owner { uid, gid }).map_err(&making)?;
                    dir.dir(parts[at], Mounts::Cross).map_err(in_the_way)?
                }
                other => other.map_err(in_the_way)?,
            };
        }
        Ok(())
    }

    fn make_data_dir(&self, parent: &Dir, name: &str, owner: Owner) -> rustix::io::Result<()> {
        self.host.workshop.make_dir(parent, name, 0o755, Some(owner))?;
        parent.sync()
    }

    /// Whether `data/` holds anything.
    pub fn has_data(&self, tenant: &Subdomain) -> Result<bool, FsError> {
        let looking = FsError::io("looking for data");
        let Some(project) = self.host.tenant_dir(tenant)? else { return Ok(false) };
        match project.dir(DATA_DIR, Mounts::Cross) {
            Err(Errno::NOENT) => Ok(false),
            Err(other) => Err(looking(other)),
            Ok(data) => data.names().map_err(&looking)?.next().transpose().map_err(&looking).map(|name| name.is_some()),
        }
    }
}

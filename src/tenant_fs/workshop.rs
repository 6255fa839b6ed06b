//! Where things are made before they are put in place, and taken apart after they are gone.
//!
//! Both places are in the host directory, where no container can look: what is seen under its final name is always
//! whole, has its final mode and owner, and disappears at once. What a crash leaves here means nothing and is cleared
//! at the next start.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::{Errno, Result};

use super::dir::{Dir, Mounts, Owner};
use super::sealed::hex;
use super::spares::is_full;

const STAGING: &str = "staging";
const TRASH: &str = "trash";

/// The staging place and the trash of one tenants root.
#[derive(Debug)]
pub(super) struct Workshop {
    staging: Dir,
    trash: Dir,
    /// Random, so that no name of this run meets a leftover of an earlier one.
    run: String,
    next: AtomicU64,
}

impl Workshop {
    /// Opens both places in the host directory and clears what an earlier run left. The caller holds the root's lock.
    pub(super) fn open(host: &Dir) -> Result<Self> {
        let staging = host.dir_or_create(STAGING, 0o700)?;
        let trash = host.dir_or_create(TRASH, 0o700)?;
        let run = random_hex(8)?;
        let workshop = Self { staging, trash, run, next: AtomicU64::new(0) };
        for name in workshop.staging.names()?.collect::<Result<Vec<_>>>()? {
            // On a file system that has become read-only the tenants can at least be looked at.
            if let Err(error) = workshop.discard(&workshop.staging, name.as_c_str()) {
                tracing::warn!(%error, "what an earlier run left half made could not be removed; trying again at the next start");
            }
        }
        for name in workshop.trash.names()?.collect::<Result<Vec<_>>>()? {
            // One tree that cannot be deleted (a mount below it) must not keep the agent from its other tenants.
            if let Err(error) = workshop.empty(&name) {
                tracing::warn!(%error, "a deleted tenant's files could not all be removed; trying again at the next start");
            }
        }
        Ok(workshop)
    }

    /// Writes a file as a new inode under its final name, replacing a file or link of that name (not what the link leads
    /// to). Content is synced; the caller syncs `into`, once for all files that it puts there.
    pub(super) fn write(&self, into: &Dir, name: &str, bytes: &[u8], mode: u32, owner: Option<Owner>) -> Result<()> {
        self.put(into, name, |temporary| self.staging.create_file(temporary, bytes, mode, owner))
    }

    /// As [`Self::write`], but the content is left to the kernel: after a power loss it may be missing or damaged.
    pub(super) fn write_unsynced(&self, into: &Dir, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.put(into, name, |temporary| self.staging.create_file_unsynced(temporary, bytes, mode, None).map(drop))
    }

    /// As [`Self::write`], but into the inode of a file that is there already, whose place it leaves: that needs no
    /// space beyond the file's own.
    pub(super) fn rewrite(&self, from: &Dir, old: &str, into: &Dir, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.put(into, name, |temporary| {
            from.rename(old, &self.staging, temporary)?;
            self.staging.overwrite_file(temporary, bytes, mode)
        })
    }

    fn put(&self, into: &Dir, name: &str, make: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        let temporary = self.fresh_name();
        let written = make(&temporary).and_then(|()| self.staging.rename(&temporary, into, name));
        if written.is_err() {
            // A failed write is often a full disk: give the space back now, not at the next start.
            self.staging.remove_file(&temporary).ok();
        }
        written
    }

    /// Makes a directory under its final name, or leaves the one that is there.
    pub(super) fn make_dir(&self, into: &Dir, name: &str, mode: u32, owner: Option<Owner>) -> Result<()> {
        let temporary = self.fresh_name();
        self.staging.create_dir(&temporary, mode, owner)?;
        let placed = self.staging.rename_if_free(&temporary, into, name);
        if placed.is_err() {
            self.staging.remove_dir(&temporary).ok();
        }
        match placed {
            Err(Errno::EXIST) => Ok(()),
            // `data/` on a file system of its own, or one without RENAME_NOREPLACE: made in place, so that a crash
            // within microseconds can leave it with the agent's owner and mode 0700.
            Err(Errno::XDEV | Errno::INVAL) => match into.create_dir(name, mode, owner) {
                Err(Errno::EXIST) => Ok(()),
                other => other.map(drop),
            },
            other => other,
        }
    }

    /// An empty directory in the staging place, and its name, for a tree that is put in place as a whole.
    pub(super) fn stage_dir(&self, mode: u32) -> Result<(String, Dir)> {
        let name = self.fresh_name();
        let dir = self.staging.create_dir(&name, mode, None)?;
        Ok((name, dir))
    }

    /// Puts a staged directory in place; EEXIST or ENOTEMPTY when the name is taken by a directory with something in it.
    pub(super) fn place_dir(&self, staged: &str, into: &Dir, name: &str) -> Result<()> {
        self.staging.rename(staged, into, name)
    }

    /// Deletes a staged tree that is not needed after all.
    pub(super) fn drop_staged(&self, staged: &str) -> Result<()> {
        self.discard(&self.staging, staged)
    }

    /// Deletes an entry with all below it, following no link and entering no other file system. It is out of `from`,
    /// durably, before any of its content is touched. A missing entry is fine.
    pub(super) fn discard(&self, from: &Dir, name: impl rustix::path::Arg + Copy) -> Result<()> {
        if !from.has_dir(name)? {
            from.remove_file(name)?;
            return from.sync();
        }
        let holder_name = self.fresh_name();
        let moved = match self.trash.create_dir(&holder_name, 0o700, None) {
            Ok(holder) => from.rename(name, &holder, "0").inspect_err(|_| {
                self.trash.remove_dir(&holder_name).ok();
            }),
            // On a full disk it is its own holder: deleting must not need space.
            Err(error) if is_full(error) => from.rename(name, &self.trash, holder_name.as_str()),
            Err(other) => Err(other),
        };
        match moved {
            Ok(()) => from.sync()?,
            Err(Errno::NOENT) => return Ok(()),
            Err(other) => return Err(other),
        }
        self.empty(std::ffi::CString::new(holder_name).expect("digits and a dash have no NUL").as_c_str())
    }

    /// Deletes one entry of the trash.
    ///
    /// Directories inside are first moved up to the holder, so the depth of a hostile tree costs neither stack nor
    /// descriptors, and its breadth no memory.
    fn empty(&self, holder_name: &std::ffi::CStr) -> Result<()> {
        let holder = self.trash.dir(holder_name, Mounts::Stay)?;
        loop {
            let mut seen = false;
            for name in holder.names()? {
                let name = name?;
                seen = true;
                if !remove_unless_dir(&holder, &name)? {
                    self.flatten(&holder, &name)?;
                }
            }
            if !seen {
                break;
            }
        }
        self.trash.remove_dir(holder_name)
    }

    /// Empties a directory of the holder into the holder and removes it, unless the listing missed something; then the
    /// next pass finds it.
    fn flatten(&self, holder: &Dir, name: &std::ffi::CStr) -> Result<()> {
        let inner = holder.dir(name, Mounts::Stay)?;
        for child in inner.names()? {
            let child = child?;
            if !remove_unless_dir(&inner, &child)? {
                inner.rename(child.as_c_str(), holder, self.fresh_name())?;
            }
        }
        match holder.remove_dir(name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    fn fresh_name(&self) -> String {
        format!("{}-{}", self.run, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// So many random bytes, in hexadecimal.
pub(super) fn random_hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(|_| Errno::IO)?;
    Ok(hex(&random))
}

/// Removes a file, link, fifo or the like; false when the entry is a directory.
fn remove_unless_dir(dir: &Dir, name: &std::ffi::CStr) -> Result<bool> {
    match dir.remove_file(name) {
        Ok(_) => Ok(true),
        // Linux says EISDIR; POSIX has EPERM, which is also what an immutable file says.
        Err(Errno::ISDIR) => Ok(false),
        Err(Errno::PERM) if dir.has_dir(name)? => Ok(false),
        Err(other) => Err(other),
    }
}

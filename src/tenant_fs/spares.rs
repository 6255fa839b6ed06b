//! Files and directories that are kept for making room: a stop or a teardown that finds the disk full writes into them.
//!
//! Both write little (a journal, a record), but without it they could not begin, and a full disk would be one that nobody
//! can empty. The space is never given back to everybody, because whatever has filled the disk would take it at once: a
//! spare's blocks are overwritten where they are, and its inode moves to the name that is wanted. A file system that
//! writes elsewhere what is overwritten (btrfs, ZFS) may have no room for that either.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::{Errno, Result};

use super::dir::Dir;
use super::workshop::Workshop;

const SPARES: &str = "spares";
/// The one file that was kept, and deleted when it was needed, by earlier versions.
const EARLIER: &str = "reserve";
/// A stop or a teardown takes two or three.
const FILES: usize = 48;
/// Bytes; a journal has less than one thousand, a record a few.
const SIZE: usize = 16 << 10;
/// For archives, one each.
const DIRECTORIES: usize = 16;

/// Whether an error says that no space is left, for this user at least.
pub(super) fn is_full(error: Errno) -> bool {
    matches!(error, Errno::NOSPC | Errno::DQUOT)
}

/// What is kept, in a directory of its own.
#[derive(Debug)]
pub(super) struct Spares {
    dir: Dir,
    /// Which are there, by name.
    there: Mutex<BTreeSet<String>>,
    /// Held while missing ones are made.
    refilling: Mutex<()>,
}

impl Spares {
    /// Makes what is missing. A disk that has no room for it is no reason not to start.
    pub(super) fn open(own: &Dir, workshop: &Workshop) -> Result<Self> {
        if let Err(error) = own.remove_file(EARLIER) {
            tracing::warn!(%error, "the space that an earlier version has kept could not be freed");
        }
        let dir = own.dir_or_create(SPARES, 0o700)?;
        let there = directories().filter(|name| dir.has_dir(name.as_str()).unwrap_or_default()).collect();
        let spares = Self { dir, there: Mutex::new(there), refilling: Mutex::default() };
        for name in files() {
            let stat = spares.dir.stat_of(name.as_str()).ok().flatten();
            if stat.is_some_and(|stat| u64::try_from(stat.st_size) == Ok(SIZE as u64)) {
                spares.there().insert(name);
            }
        }
        spares.refill(workshop);
        Ok(spares)
    }

    /// Writes a file as [`Workshop::write`] does, but into a spare. ENOSPC when there is none, or it is too small.
    pub(super) fn write(&self, workshop: &Workshop, into: &Dir, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        if bytes.len() > SIZE {
            return Err(Errno::NOSPC);
        }
        let spare = self.take(files()).ok_or(Errno::NOSPC)?;
        tracing::warn!("the disk is full: a spare file is used");
        workshop.rewrite(&self.dir, &spare, into, name, bytes, mode)
    }

    /// Puts an empty directory in place, 0700; EEXIST when the name is taken, ENOSPC when there is none.
    pub(super) fn place_dir(&self, into: &Dir, name: &str) -> Result<()> {
        let spare = self.take(directories()).ok_or(Errno::NOSPC)?;
        let placed = self.dir.rename_if_free(spare.as_str(), into, name);
        if placed.is_err() {
            self.there().insert(spare);
        }
        placed
    }

    /// Makes the missing ones once there is room. Tried after what may have made some; a failure is for the next time.
    pub(super) fn refill(&self, workshop: &Workshop) {
        let Ok(_one_at_a_time) = self.refilling.try_lock() else { return };
        let missing = |names: &[String]| {
            let there = self.there();
            names.iter().filter(|name| !there.contains(*name)).cloned().collect::<Vec<_>>()
        };
        let (files, directories) = (missing(&files().collect::<Vec<_>>()), missing(&directories().collect::<Vec<_>>()));
        if files.is_empty() && directories.is_empty() {
            return;
        }
        let mut made = Ok(());
        for name in directories {
            made = made.and_then(|()| self.make(name, |name| workshop.make_dir(&self.dir, name, 0o700, None)));
        }
        // Written, not merely allocated: some file systems promise space that they do not have, and what is allocated but
        // not written needs more when it is. Nothing is synced: what a loss of power takes is made again at the start.
        for name in files {
            made = made
                .and_then(|()| self.make(name, |name| workshop.write_unsynced(&self.dir, name, &vec![0; SIZE], 0o600)));
        }
        if let Err(error) = made {
            tracing::warn!(%error, "there is no room for the spare files that teardowns need on a full disk");
        }
    }

    fn make(&self, name: String, make: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        make(&name)?;
        self.there().insert(name);
        Ok(())
    }

    fn take(&self, mut names: impl Iterator<Item = String>) -> Option<String> {
        let mut there = self.there();
        names.find(|name| there.remove(name))
    }

    fn there(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn files() -> impl Iterator<Item = String> {
    (0..FILES).map(|number| number.to_string())
}

fn directories() -> impl Iterator<Item = String> {
    (0..DIRECTORIES).map(|number| format!("directory-{number}"))
}

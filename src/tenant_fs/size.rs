//! How much disk a tenant takes: a bounded walk through its directory, of which `data/` is hostile.
//!
//! No link is followed and no file system entered but the one that `data/` is on. The walk holds two descriptors for each
//! level, counts no more than so many entries, and rests now and then, so that it is slow rather than in anybody's way.

use std::collections::HashSet;
use std::time::Duration;

use rustix::fs::{FileType, Stat};
use rustix::io::{Errno, Result};

use super::data::DATA_DIR;
use super::dir::{Dir, Mounts};
use super::{FsError, TenantFs};
use crate::domain::Subdomain;

/// Entries that one walk looks at; what is beyond is not counted, and the result says so.
const MOST_ENTRIES: u64 = 200_000;
/// Levels that it goes down.
const DEEPEST: usize = 64;
/// It rests so long after so many entries.
const REST: Duration = Duration::from_millis(2);
const REST_AFTER: u64 = 500;

/// What a tenant's directory takes on the disk, in bytes of whole blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectorySize {
    /// All of it, `data/` included.
    pub total: u64,
    /// `data/`.
    pub data: u64,
    /// Whether everything was counted.
    pub complete: bool,
}

struct Walk<'a> {
    entries: u64,
    most: u64,
    complete: bool,
    /// Files with several names, each of which is counted once.
    linked: HashSet<(u64, u64)>,
    goes_on: &'a dyn Fn() -> bool,
}

impl TenantFs {
    /// Measures a tenant's directory; none when there is no such tenant. Ends early when `goes_on` says no.
    pub fn size(
        &self,
        tenant: &Subdomain,
        goes_on: &dyn Fn() -> bool,
    ) -> std::result::Result<Option<DirectorySize>, FsError> {
        self.size_within(tenant, MOST_ENTRIES, goes_on)
    }

    pub(super) fn size_within(
        &self,
        tenant: &Subdomain,
        most: u64,
        goes_on: &dyn Fn() -> bool,
    ) -> std::result::Result<Option<DirectorySize>, FsError> {
        let measuring = FsError::io("measuring the tenant's directory");
        let Some(project) = self.host.tenant_dir(tenant)? else { return Ok(None) };
        let mut walk = Walk { entries: 0, most, complete: true, linked: HashSet::new(), goes_on };
        let own = walk.directory(&project, Some(DATA_DIR)).map_err(&measuring)?;
        let data = match project.dir(DATA_DIR, Mounts::Cross) {
            Ok(data) => walk.directory(&data, None).map_err(&measuring)?,
            // None yet, or a link or a file in its place, which takes no more than a block.
            Err(_) => 0,
        };
        Ok(Some(DirectorySize { total: own.saturating_add(data), data, complete: walk.complete }))
    }
}

impl Walk<'_> {
    /// A directory and all below it, one level after the other. What goes away meanwhile is not counted.
    fn directory(&mut self, root: &Dir, without: Option<&str>) -> Result<u64> {
        let mut sum = blocks(&root.stat()?);
        let mut levels = vec![(root.again()?, root.names()?)];
        loop {
            let at_top = levels.len() == 1;
            let Some((dir, names)) = levels.last_mut() else { return Ok(sum) };
            let Some(name) = names.next() else {
                levels.pop();
                continue;
            };
            let Ok(name) = name else {
                self.complete = false;
                levels.pop();
                continue;
            };
            if at_top && without.is_some_and(|other| other.as_bytes() == name.as_bytes()) {
                continue;
            }
            if !self.may_go_on() {
                return Ok(sum);
            }
            let Ok(Some(stat)) = dir.stat_of(name.as_c_str()) else { continue };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_directory || self.is_first_name(&stat) {
                sum = sum.saturating_add(blocks(&stat));
            }
            if !is_directory {
                continue;
            }
            let below = dir.dir(name.as_c_str(), Mounts::Stay).and_then(|below| {
                let names = below.names()?;
                Ok((below, names))
            });
            match below {
                Ok(_) if levels.len() >= DEEPEST => self.complete = false,
                Ok(level) => levels.push(level),
                Err(Errno::NOENT) => {}
                // Another file system, or what was a directory a moment ago.
                Err(_) => self.complete = false,
            }
        }
    }

    fn may_go_on(&mut self) -> bool {
        self.entries += 1;
        if self.entries > self.most {
            self.complete = false;
        } else if self.entries.is_multiple_of(REST_AFTER) {
            if (self.goes_on)() {
                std::thread::sleep(REST);
            } else {
                self.complete = false;
                return false;
            }
        }
        self.entries <= self.most
    }

    fn is_first_name(&mut self, stat: &Stat) -> bool {
        stat.st_nlink < 2 || self.linked.insert((stat.st_dev, stat.st_ino))
    }
}

/// Bytes on the disk (`stat(2)`: blocks of 512 bytes).
fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

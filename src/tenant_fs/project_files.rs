//! The project files: what a generation wants to see in the project directory, and nothing of other generations.
//!
//! A file that is as wanted keeps its inode, because running containers have it bound; any other is replaced by a new
//! inode, so that whoever else holds the old one (a hard link, an open file) sees no change.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

use super::dir::{Dir, Mounts, is_in_the_way};
use super::tenant::Home;
use super::{FsError, TenantFs};
use crate::crash;
use crate::domain::{Generation, Subdomain, TenantSpec};

const COMPOSE_FILE: &str = "compose.yaml";
const ENV_FILE: &str = ".env";

/// A file as it is to be.
struct Wanted<'a> {
    bytes: &'a [u8],
    mode: u32,
}

impl TenantFs {
    /// Makes the project files those of `wanted`, removing the ones that only other stored generations have, and directories
    /// that this leaves empty. None: removes all of them. Of a file's mode the nine permission bits count.
    pub fn put_in_place(&self, tenant: &Subdomain, wanted: Option<Generation>) -> Result<(), FsError> {
        let _step = crash::step("put_in_place");
        let home = self.home(tenant)?;
        let stored = wanted.map(|generation| self.generation(tenant, generation)).transpose()?;
        let files = stored.as_ref().map(|stored| files_of(&stored.spec)).unwrap_or_default();
        let stale = self.stale_paths(tenant, &home, wanted, &files)?;
        let placing = FsError::io("putting the tenant's files in place");

        let mut touched = BTreeSet::new();
        for path in &stale {
            if remove(&home.project, path).map_err(&placing)? {
                touched.insert(parent_of(path));
            }
        }
        for (path, file) in &files {
            self.place(&home.project, path, file, &mut touched).map_err(&placing)?;
        }
        // Only now: a directory that is wanted again must not lose its inode, it may be bound.
        for path in &stale {
            prune(&home.project, parent_of(path), &mut touched).map_err(&placing)?;
        }
        for directory in touched {
            match subdirectory(&home.project, directory) {
                Ok(dir) => dir.sync().map_err(&placing)?,
                // Pruned, or a file by now; the directory above is in the set then.
                Err(error) if error == Errno::NOENT || is_in_the_way(error) => {}
                Err(other) => return Err(placing(other)),
            }
        }
        Ok(())
    }

    /// Paths that another stored generation may have put in place and `wanted` does not have.
    fn stale_paths(
        &self,
        tenant: &Subdomain,
        home: &Home,
        wanted: Option<Generation>,
        files: &BTreeMap<&str, Wanted<'_>>,
    ) -> Result<BTreeSet<String>, FsError> {
        let mut paths = BTreeSet::from([COMPOSE_FILE.to_owned(), ENV_FILE.to_owned()]);
        for generation in home.stored_generations()? {
            if Some(generation) == wanted {
                continue;
            }
            match self.generation(tenant, generation) {
                Ok(stored) => paths.extend(stored.spec.files.keys().map(ToString::to_string)),
                // Its files stay until the tenant is torn down; that must not keep a good generation from running.
                Err(error @ FsError::Corrupt { .. }) => {
                    tracing::warn!(%tenant, %error, "cannot clean up after a generation");
                }
                Err(other) => return Err(other),
            }
        }
        paths.retain(|path| !files.contains_key(path.as_str()));
        Ok(paths)
    }

    fn place<'p>(
        &self,
        project: &Dir,
        path: &'p str,
        file: &Wanted<'_>,
        touched: &mut BTreeSet<&'p str>,
    ) -> rustix::io::Result<()> {
        let parent = self.make_parents(project, path, touched)?;
        let name = &path[path.rfind('/').map_or(0, |at| at + 1)..];
        // Also for a file that is there already: a run that died may have renamed it and not synced.
        touched.insert(parent_of(path));
        if is_as_wanted(&parent, name, file)? {
            return Ok(());
        }
        if parent.has_dir(name)? {
            self.host.workshop.discard(&parent, name)?;
        }
        self.host.workshop.write(&parent, name, file.bytes, file.mode, None)
    }

    /// The directory that `path` is in, with all above it. What is no directory and in the way goes: outside `data/`
    /// only the agent puts things there, so it is a file of another generation.
    fn make_parents<'p>(
        &self,
        project: &Dir,
        path: &'p str,
        touched: &mut BTreeSet<&'p str>,
    ) -> rustix::io::Result<Dir> {
        let mut dir = project.again()?;
        let mut start = 0;
        while let Some(length) = path[start..].find('/') {
            let name = &path[start..start + length];
            let opened = match dir.dir(name, Mounts::Stay) {
                Err(error) if error == Errno::NOENT || is_in_the_way(error) => {
                    if error != Errno::NOENT {
                        self.host.workshop.discard(&dir, name)?;
                    }
                    // Readable for everybody: a container's user has to get in when the directory is bound.
                    self.host.workshop.make_dir(&dir, name, 0o755, None)?;
                    touched.insert(parent_of(&path[..start + length]));
                    dir.dir(name, Mounts::Stay)?
                }
                other => other?,
            };
            dir = opened;
            start += length + 1;
        }
        Ok(dir)
    }
}

/// Everything that a specification puts into the project directory.
fn files_of(spec: &TenantSpec) -> BTreeMap<&str, Wanted<'_>> {
    let own = [
        (COMPOSE_FILE, Wanted { bytes: spec.compose.as_bytes(), mode: 0o644 }),
        (ENV_FILE, Wanted { bytes: spec.env.as_bytes(), mode: 0o600 }),
    ];
    let files =
        spec.files.iter().map(|(path, file)| (path.as_str(), Wanted { bytes: &file.bytes, mode: file.mode & 0o777 }));
    own.into_iter().chain(files).collect()
}

/// Refuses files of which one would have to be a directory for another. All other rules are in `ProjectPath`.
pub(super) fn check_paths(spec: &TenantSpec) -> Result<(), FsError> {
    for path in spec.files.keys() {
        let text = path.as_str();
        for (at, _) in text.match_indices('/') {
            if spec.files.keys().any(|other| other.as_str() == &text[..at]) {
                return Err(FsError::FileAndDirectory { path: text[..at].to_owned() });
            }
        }
    }
    Ok(())
}

fn is_as_wanted(parent: &Dir, name: &str, file: &Wanted<'_>) -> rustix::io::Result<bool> {
    let (bytes, stat) = match parent.read(name) {
        Ok(Some(found)) => found,
        Ok(None) | Err(Errno::LOOP | Errno::INVAL | Errno::ISDIR | Errno::FBIG | Errno::NXIO | Errno::XDEV) => {
            return Ok(false);
        }
        Err(other) => return Err(other),
    };
    let ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_gid == rustix::process::getegid().as_raw();
    // A second link could change the file later, from wherever it is.
    Ok(ours && stat.st_nlink == 1 && stat.st_mode & 0o7777 == file.mode && bytes == file.bytes)
}

/// Removes a file of an old generation; false when there is none (any more).
fn remove(project: &Dir, path: &str) -> rustix::io::Result<bool> {
    let parent = match subdirectory(project, parent_of(path)) {
        Ok(parent) => parent,
        Err(error) if error == Errno::NOENT || is_in_the_way(error) => return Ok(false),
        Err(other) => return Err(other),
    };
    match parent.remove_file(&path[path.rfind('/').map_or(0, |at| at + 1)..]) {
        // A directory by now: another generation's files are in it.
        Err(Errno::ISDIR) => Ok(false),
        other => other,
    }
}

/// Removes `directory` and those above it, as long as they are empty.
fn prune<'p>(project: &Dir, mut directory: &'p str, touched: &mut BTreeSet<&'p str>) -> rustix::io::Result<()> {
    while !directory.is_empty() {
        let parent = match subdirectory(project, parent_of(directory)) {
            Ok(parent) => parent,
            Err(error) if error == Errno::NOENT || is_in_the_way(error) => {
                directory = parent_of(directory);
                continue;
            }
            Err(other) => return Err(other),
        };
        match parent.remove_dir(&directory[directory.rfind('/').map_or(0, |at| at + 1)..]) {
            Ok(()) => {
                touched.insert(parent_of(directory));
            }
            Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => break,
            Err(other) => return Err(other),
        }
        directory = parent_of(directory);
    }
    Ok(())
}

/// `""` is the project directory itself.
fn subdirectory(project: &Dir, path: &str) -> rustix::io::Result<Dir> {
    if path.is_empty() { project.again() } else { project.dir(path, Mounts::Stay) }
}

fn parent_of(path: &str) -> &str {
    path.rfind('/').map_or("", |at| &path[..at])
}

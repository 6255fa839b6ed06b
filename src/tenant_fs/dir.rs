//! A directory held open, and what the agent does inside it.
//!
//! Paths are resolved by the kernel from the descriptor, below it and through no link of any kind
//! (`openat2`, Linux 5.6). There is no fallback for older kernels: checking first and opening later is a race
//! that a tenant's container can win.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Uid};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

use crate::crash;

/// More than any file that the agent itself writes (a stored generation of a maximal request has some 12 MiB).
const READ_LIMIT: u64 = 64 << 20;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Whether a walk may enter another file system. Only `data/`, which an operator may have on a disk of its own, may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounts {
    /// A mount point on the way is an error (EXDEV).
    Stay,
    /// Mount points are entered.
    Cross,
}

/// Numeric owner of a new inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// An open directory.
#[derive(Debug)]
pub(super) struct Dir(OwnedFd);

impl Dir {
    /// Opens the tenants root itself; its last component must not be a link.
    pub(super) fn open_root(path: &std::path::Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::open(path, flags, Mode::empty()).map(Self)
    }

    /// Opens a directory below this one; ELOOP or ENOTDIR when a link or a file is on the way.
    pub(super) fn dir(&self, path: impl Arg, mounts: Mounts) -> Result<Self> {
        let resolve = if mounts == Mounts::Stay { BENEATH | ResolveFlags::NO_XDEV } else { BENEATH };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::openat2(&self.0, path, flags, Mode::empty(), resolve).map(Self)
    }

    /// Another handle to the same directory.
    pub(super) fn again(&self) -> Result<Self> {
        rustix::io::fcntl_dupfd_cloexec(&self.0, 0).map(Self)
    }

    /// The directory's own metadata.
    pub(super) fn stat(&self) -> Result<Stat> {
        fs::fstat(&self.0)
    }

    /// Metadata of an entry, of the link itself if it is one; none when there is no such entry.
    pub(super) fn stat_of(&self, name: impl Arg) -> Result<Option<Stat>> {
        absent_is_none(fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// Whether an entry is a directory; a link to one is not.
    pub(super) fn has_dir(&self, name: impl Arg) -> Result<bool> {
        Ok(self.stat_of(name)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory))
    }

    /// The names in it, without `.` and `..`.
    pub(super) fn names(&self) -> Result<impl Iterator<Item = Result<CString>> + use<>> {
        let entries = fs::Dir::read_from(&self.0)?;
        Ok(entries
            .map(|entry| Ok(entry?.file_name().to_owned()))
            .filter(|name| !matches!(name.as_ref().map(CString::as_bytes), Ok(b"." | b".."))))
    }

    /// A regular file with its metadata; none when there is none. Anything else of that name is EINVAL: a fifo does not
    /// block and a link is not followed.
    pub(super) fn read(&self, name: impl Arg) -> Result<Option<(Vec<u8>, Stat)>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = BENEATH | ResolveFlags::NO_XDEV;
        let Some(fd) = absent_is_none(fs::openat2(&self.0, name, flags, Mode::empty(), resolve))? else {
            return Ok(None);
        };
        let stat = fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let mut bytes = Vec::new();
        File::from(fd).take(READ_LIMIT + 1).read_to_end(&mut bytes).map_err(|error| errno(&error))?;
        if bytes.len() as u64 > READ_LIMIT { Err(Errno::FBIG) } else { Ok(Some((bytes, stat))) }
    }

    /// Makes a file that must not exist yet, with exactly this mode and owner, its content on the disk.
    pub(super) fn create_file(&self, name: &str, bytes: &[u8], mode: u32, owner: Option<Owner>) -> Result<()> {
        fs::fsync(&self.create_file_unsynced(name, bytes, mode, owner)?)?;
        crash::point("file synced");
        Ok(())
    }

    /// As [`Self::create_file`], without its content being on the disk.
    pub(super) fn create_file_unsynced(
        &self,
        name: &str,
        bytes: &[u8],
        mode: u32,
        owner: Option<Owner>,
    ) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?);
        crash::point("file made");
        file.write_all(bytes).map_err(|error| errno(&error))?;
        crash::point("file written");
        set_owner_and_mode(&file, mode, owner)?;
        Ok(file)
    }

    /// Gives a file that is there other content, in the blocks that it has, and exactly this mode, on the disk.
    pub(super) fn overwrite_file(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&self.0, name, flags, Mode::empty())?);
        file.write_all(bytes).map_err(|error| errno(&error))?;
        fs::ftruncate(&file, bytes.len() as u64)?;
        crash::point("file overwritten");
        set_owner_and_mode(&file, mode, None)?;
        fs::fsync(&file)?;
        crash::point("file synced");
        Ok(())
    }

    /// Makes a directory that must not exist yet, with exactly this mode and owner, whatever the umask.
    pub(super) fn create_dir(&self, name: &str, mode: u32, owner: Option<Owner>) -> Result<Self> {
        fs::mkdirat(&self.0, name, Mode::RWXU)?;
        crash::point("directory made");
        let dir = self.dir(name, Mounts::Stay)?;
        // In `data/` a container may have swapped it since; it could only give away a directory it owns already.
        set_owner_and_mode(&dir.0, mode, owner)?;
        crash::point("directory owned");
        Ok(dir)
    }

    /// The directory of this name, made with this mode when it is missing.
    pub(super) fn dir_or_create(&self, name: &str, mode: u32) -> Result<Self> {
        match self.dir(name, Mounts::Stay) {
            Err(Errno::NOENT) => {
                let dir = self.create_dir(name, mode, None)?;
                self.sync()?;
                Ok(dir)
            }
            other => other,
        }
    }

    /// Moves an entry, replacing what a file may replace. Neither directory is synced.
    pub(super) fn rename(&self, name: impl Arg, into: &Self, new_name: impl Arg) -> Result<()> {
        fs::renameat(&self.0, name, &into.0, new_name)?;
        crash::point("moved");
        Ok(())
    }

    /// Moves an entry; EEXIST when the new name is taken, by whatever.
    pub(super) fn rename_if_free(&self, name: impl Arg, into: &Self, new_name: impl Arg) -> Result<()> {
        fs::renameat_with(&self.0, name, &into.0, new_name, RenameFlags::NOREPLACE)?;
        crash::point("moved");
        Ok(())
    }

    /// Removes an entry that is not a directory (a link, not what it leads to); whether there was one.
    pub(super) fn remove_file(&self, name: impl Arg) -> Result<bool> {
        let removed = absent_is_none(fs::unlinkat(&self.0, name, AtFlags::empty()))?.is_some();
        if removed {
            crash::point("file removed");
        }
        Ok(removed)
    }

    /// Removes an empty directory.
    pub(super) fn remove_dir(&self, name: impl Arg) -> Result<()> {
        fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?;
        crash::point("directory removed");
        Ok(())
    }

    /// Puts the directory's entries, not the files' content, on the disk.
    pub(super) fn sync(&self) -> Result<()> {
        fs::fsync(&self.0)?;
        crash::point("directory synced");
        Ok(())
    }

    /// Opens `name` for locking, making it if needed. The lock lasts as long as the descriptor; EWOULDBLOCK when
    /// somebody else has it.
    pub(super) fn lock(&self, name: &str) -> Result<OwnedFd> {
        // For reading only: a file that stays open for writing would keep the file system from being remounted read-only.
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?;
        fs::flock(&fd, fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(fd)
    }
}

/// ENOENT as none.
pub(super) fn absent_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Whether an error of reading a file of the agent says that it is none: a link, fifo or directory, or of absurd size.
pub(super) fn is_no_file(error: Errno) -> bool {
    matches!(error, Errno::LOOP | Errno::INVAL | Errno::ISDIR | Errno::FBIG)
}

/// Whether an error says that a link or a file is where a directory was expected.
pub(super) fn is_in_the_way(error: Errno) -> bool {
    matches!(error, Errno::LOOP | Errno::NOTDIR)
}

fn set_owner_and_mode(fd: &impl AsFd, mode: u32, owner: Option<Owner>) -> Result<()> {
    // Owner first: changing it clears bits of the mode.
    if let Some(Owner { uid, gid }) = owner {
        fs::fchown(fd.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    fs::fchmod(fd.as_fd(), Mode::from_raw_mode(mode & 0o777))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

//! What can go wrong on the disk.

use rustix::io::Errno;

use crate::domain::{ErrorCode, Generation, Subdomain};

/// A failure of the tenants root. The messages may be shown to a client: they name tenants and their own relative
/// paths, never a path of the host. The `source` of [`FsError::Io`] is for the log.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The tenants root cannot be used at all; only [`super::TenantFs::open`] says so.
    #[error("the tenants root cannot be used: {reason}")]
    Root {
        /// What is wrong with it and what is wanted.
        reason: &'static str,
    },
    /// Two agents on one root would undo each other's work.
    #[error("another agent runs on this tenants root; each root belongs to one agent at a time")]
    Locked,
    /// ENOSPC or EDQUOT.
    #[error("no space is left on the host")]
    NoSpace,
    /// EMFILE or ENFILE: the agent, or the host, has as many files open as it may. That passes.
    #[error("too many files are open; try again")]
    TooManyOpen,
    /// EROFS.
    #[error("the tenants root is read-only")]
    ReadOnly,
    /// There is no directory of this tenant.
    #[error("no tenant {0}")]
    NoSuchTenant(Subdomain),
    /// A directory of the tenant's name is there with somebody's files in it.
    #[error("the directory of tenant {0} is there already and is not the agent's")]
    Occupied(Subdomain),
    /// The tenant has a directory without a record in it.
    #[error("the directory of tenant {0} has no record")]
    NoRecord(Subdomain),
    /// The generation was never stored, or has been removed as superseded.
    #[error("tenant {tenant} has no stored generation {generation}")]
    NoSuchGeneration {
        /// The tenant.
        tenant: Subdomain,
        /// The generation asked for.
        generation: Generation,
    },
    /// A stored file fails its checksum or does not read as what it should be.
    #[error("the {what} of tenant {tenant} is damaged")]
    Corrupt {
        /// The tenant.
        tenant: Subdomain,
        /// `record`, `journal` or `stored generation`.
        what: &'static str,
    },
    /// A newer agent wrote the record.
    #[error("the record of tenant {tenant} has format {found}; this agent knows formats up to {known}")]
    TooNew {
        /// The tenant.
        tenant: Subdomain,
        /// The record's format.
        found: u32,
        /// The newest format that this agent reads.
        known: u32,
    },
    /// Something that is no directory is in the way of one.
    #[error("{path}: a link or a file is in the way; only directories may be there")]
    InTheWay {
        /// Relative to the project directory.
        path: String,
    },
    /// The request's files need one name both for a file and for a directory.
    #[error("{path}: the request has a file of this name and files below it")]
    FileAndDirectory {
        /// Relative to the project directory.
        path: String,
    },
    /// A name that does not belong where it was asked for.
    #[error("not a name for {what}: {rule}")]
    BadName {
        /// What it was to name.
        what: &'static str,
        /// What is allowed.
        rule: &'static str,
    },
    /// Anything else the operating system says.
    #[error("{what} failed")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed, for the log.
        #[source]
        source: std::io::Error,
    },
}

impl FsError {
    /// The stable code of this failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            // Either way nothing can be stored until somebody sees to the disk.
            Self::NoSpace | Self::ReadOnly => ErrorCode::NoSpace,
            Self::TooManyOpen => ErrorCode::RateLimited,
            Self::NoSuchTenant(_) => ErrorCode::NotFound,
            Self::Occupied(_) => ErrorCode::NameTaken,
            Self::FileAndDirectory { .. } => ErrorCode::InvalidFilePath,
            // A container of the tenant put it there: nothing is wrong with the agent.
            Self::InTheWay { .. } => ErrorCode::PolicyDenied,
            Self::NoRecord(_) | Self::NoSuchGeneration { .. } | Self::Corrupt { .. } | Self::TooNew { .. } => {
                ErrorCode::TenantDamaged
            }
            Self::Root { .. } | Self::Locked | Self::BadName { .. } | Self::Io { .. } => ErrorCode::Internal,
        }
    }

    /// Whether what is stored of a tenant is broken or missing: trying again does not help, writing it anew does.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::NoRecord(_) | Self::NoSuchGeneration { .. } | Self::Corrupt { .. })
    }

    /// Gives an error of the operating system its meaning; `what` says what was being done.
    pub(super) fn io(what: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| match errno {
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace,
            Errno::MFILE | Errno::NFILE => Self::TooManyOpen,
            Errno::ROFS => Self::ReadOnly,
            other => Self::Io { what, source: other.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_get_their_meaning() {
        let meaning = |errno| FsError::io("writing the record")(errno);
        assert!(matches!(meaning(Errno::NOSPC), FsError::NoSpace));
        assert!(matches!(meaning(Errno::DQUOT), FsError::NoSpace));
        assert!(matches!(meaning(Errno::ROFS), FsError::ReadOnly));
        assert_eq!(meaning(Errno::MFILE).code(), ErrorCode::RateLimited);
        assert_eq!(meaning(Errno::IO).to_string(), "writing the record failed");
        assert_eq!(meaning(Errno::NOSPC).code(), ErrorCode::NoSpace);
        assert_eq!(meaning(Errno::ROFS).code(), ErrorCode::NoSpace);
    }
}

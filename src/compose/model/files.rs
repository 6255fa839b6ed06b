//! Configs and secrets.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::ObjectKey;

/// A config or secret as a service uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct FileReference {
    /// Key under the top-level `configs` or `secrets`.
    pub source: ObjectKey,
    /// Absolute path in the container.
    pub target: String,
    /// `target` as the file has it.
    pub written_target: Option<String>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Permission bits; `0o444` when none are given.
    pub mode: Option<u32>,
}

/// A top-level config or secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct FileObject {
    /// Its name: `{project}_{key}` unless the file gives one.
    pub name: String,
    /// Where its content comes from.
    pub source: FileSource,
    /// A swarm's business, as are the next three; printed, never used.
    pub labels: BTreeMap<String, String>,
    pub driver: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub template_driver: Option<String>,
}

impl FileObject {
    /// A config or secret that says nothing but where its content comes from.
    pub fn of(name: String, source: FileSource) -> Self {
        Self {
            name,
            source,
            labels: BTreeMap::new(),
            driver: None,
            driver_opts: BTreeMap::new(),
            template_driver: None,
        }
    }
}

/// The one source of a config or secret.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSource {
    /// A file: its absolute path, and its bytes when it is a file of the request.
    File {
        /// Absolute and clean.
        path: String,
        /// None when the loader was not given this file.
        bytes: Option<Vec<u8>>,
    },
    /// Text in the Compose file itself.
    Content(String),
    /// A variable of the request's env file; the value is none when it is not set.
    Environment {
        /// The variable.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// An object that exists elsewhere.
    External,
}

impl std::fmt::Debug for FileSource {
    /// Without the content, which is a secret as often as not.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "File({path:?})"),
            Self::Content(_) => f.write_str("Content(…)"),
            Self::Environment { name, .. } => write!(f, "Environment({name:?})"),
            Self::External => f.write_str("External"),
        }
    }
}

impl FileSource {
    /// The content, when the loader had it.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::File { bytes, .. } => bytes.as_deref(),
            Self::Content(text) => Some(text.as_bytes()),
            Self::Environment { value, .. } => value.as_deref().map(str::as_bytes),
            Self::External => None,
        }
    }
}

//! The resolved project: what a Compose file means once everything in it has been read, interpolated and checked.
//!
//! Names follow the Compose Specification. Short forms are gone (a port is always a [`PortMapping`]), relative paths
//! are absolute, variables are values. Everything is ordered, so two loads of one text are equal byte for byte. Where
//! docker compose prints a thing as it was written, the model keeps that beside what it means.

mod deploy;
mod files;
mod mounts;
mod networks;
mod process;
mod service;

pub use deploy::*;
pub use files::*;
pub use mounts::*;
pub use networks::*;
pub use process::*;
pub use service::*;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::domain::{ObjectKey, ProjectName, ServiceName};

/// A whole Compose project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Project {
    /// The project's name.
    pub name: ProjectName,
    /// The project directory, absolute and clean; every relative path of the file has been joined to it.
    pub directory: String,
    /// Enabled services (profiles that are not active are gone). Boxed: each is some kilobytes, and a map moves what it holds.
    pub services: BTreeMap<ServiceName, Box<Service>>,
    /// Services that exist in the file but whose profile is not active.
    pub disabled_services: BTreeSet<ServiceName>,
    /// Networks that an enabled service uses, the implicit `default` among them.
    pub networks: BTreeMap<ObjectKey, Network>,
    /// Volumes that an enabled service uses.
    pub volumes: BTreeMap<ObjectKey, Volume>,
    /// Configs that an enabled service uses.
    pub configs: BTreeMap<ObjectKey, FileObject>,
    /// Secrets that an enabled service uses.
    pub secrets: BTreeMap<ObjectKey, FileObject>,
    /// Top-level attributes that no backend runs (`models`), as docker compose prints them.
    pub foreign: BTreeMap<String, Value>,
    /// Top-level `x-…` attributes.
    pub extensions: BTreeMap<String, Value>,
}

impl Project {
    /// The services that wait for this one's completion make it a one-shot: its exit with code 0 is its success.
    pub fn is_awaited_by_completion(&self, service: &ServiceName) -> bool {
        self.services.values().any(|other| {
            other
                .depends_on
                .get(service)
                .is_some_and(|dependency| dependency.condition == Condition::ServiceCompletedSuccessfully)
        })
    }

    /// The path relative to the project directory, `""` for the directory itself; none for paths outside it.
    pub fn relative<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.directory.as_str())?;
        if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
    }
}

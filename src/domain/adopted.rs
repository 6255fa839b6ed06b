//! What a tenant has taken over from others.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::names::{ContainerId, ObjectName};

/// Objects that are a tenant's although nothing on them says so: a backend cannot mark what exists already.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopted {
    /// Networks by id, each with the hash of the definition that it was taken over for.
    pub networks: BTreeMap<String, String>,
    /// Volumes by name, likewise.
    pub volumes: BTreeMap<ObjectName, String>,
    /// Containers that the generation which took them over has replaced, and that go.
    pub containers: BTreeSet<ContainerId>,
}

impl Adopted {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether networks and volumes are the same; containers are only on their way out.
    pub fn is_same_data(&self, other: &Self) -> bool {
        (&self.networks, &self.volumes) == (&other.networks, &other.volumes)
    }

    /// Takes more over. What was taken over before keeps its definition.
    pub fn extend(&mut self, more: Self) {
        for (id, spec) in more.networks {
            self.networks.entry(id).or_insert(spec);
        }
        for (name, spec) in more.volumes {
            self.volumes.entry(name).or_insert(spec);
        }
        self.containers.extend(more.containers);
    }
}

//! A container in the words that tools for people show.

use std::collections::BTreeMap;

use super::ObservedContainer;
use crate::domain::Endpoint;

/// One container, with what a list of containers shows and a status does not.
#[derive(Debug, Clone)]
pub struct Listed {
    /// How it is.
    pub container: ObservedContainer,
    /// What it runs.
    pub command: String,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// Names of volumes and paths within the project; none of the host's own.
    pub mounts: Vec<String>,
    /// How many volumes of this host it has.
    pub local_volumes: usize,
    /// Names of its networks.
    pub networks: Vec<String>,
    /// How it is, in words such as `Up 2 minutes (healthy)`.
    pub status: String,
    /// The labels that the agent has given it, without paths.
    pub labels: BTreeMap<String, String>,
    /// Its ports, also those that are not published: they have no host and the host port 0.
    pub ports: Vec<Endpoint>,
}

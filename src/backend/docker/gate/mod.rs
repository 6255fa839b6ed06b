//! The last gate: an independent look at every finished request, just before it is sent.
//!
//! ```text
//! mod        Checked: what the engine's client takes; only this room makes one
//! container  the create request of a container
//! mounts     what it mounts
//! objects    networks, volumes, connections, commands
//! labels     whose it says it is
//! compare    what the engine made of it, before it is started
//! ```
//!
//! It knows the rules of a tenant (`policy::Profile`, `policy::Grants`), which are data, and shares no code with the policy:
//! a mistake there, in the conversion or in the model does not become a container. Everything is an allow list, written by
//! taking the engine's structures apart by name (no `..`): a member that a newer API brings does not compile here until
//! somebody has said what it may be. What it refuses is a fault of the agent and no word of the client's, so it is an
//! internal error, and the tenant is put back as it was.
//!
//! Calls that are closed by their types do not come here: `rename` takes a parsed name, `set_restart_policy` a restart
//! policy and nothing else, pulls a parsed reference.

mod compare;
mod container;
mod labels;
mod mounts;
mod objects;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointSettings, ExecConfig, NetworkCreateRequest, NetworkInspect,
    Volume, VolumeCreateRequest,
};

use super::networks::Subnet;
use crate::backend::{BackendError, Deployment, TenantRef};
use crate::domain::{ContainerId, ContainerName, Generation, ServiceName};
use crate::policy::{Grants, Profile};

/// A request that passed. Only the functions of this room make one.
#[derive(Debug, Clone)]
pub(super) struct Checked<T>(T);

impl<T> Checked<T> {
    pub(super) fn get(&self) -> &T {
        &self.0
    }

    pub(super) fn into_inner(self) -> T {
        self.0
    }
}

/// What holds for all tenants of this host.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    /// Where ports may be published and which of the host's; none: nowhere without a grant.
    pub(super) publish: Option<(IpAddr, (u16, u16))>,
    /// Where networks get their subnets from.
    pub(super) pool: Subnet,
}

/// A container that is to be made.
#[derive(Debug, Clone)]
pub(super) struct Creation {
    pub(super) name: ContainerName,
    pub(super) platform: Option<String>,
    /// The id of the image that was looked at. The body names it by its tag, and a tag may move.
    pub(super) image_id: String,
    pub(super) body: ContainerCreateBody,
    /// `Config.MacAddress`, where old engines look for it.
    pub(super) mac_address: Option<String>,
}

/// A container that is to join a network.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) network: String,
    pub(super) container: ContainerId,
    pub(super) endpoint: EndpointSettings,
}

/// What a container's request may name besides its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// Its service.
    pub(super) service: &'a ServiceName,
    /// Its number within the service.
    pub(super) number: u32,
    /// The tenant's containers that it may share something with.
    pub(super) containers: &'a BTreeMap<ServiceName, ContainerId>,
    /// The anonymous volumes of the container that it replaces.
    pub(super) inherited: &'a BTreeMap<String, String>,
}

impl Known<'_> {
    fn has(&self, id: &str) -> bool {
        self.containers.values().any(|container| container.as_str() == id)
    }
}

/// What one tenant's requests may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance<'a> {
    ground: &'a Ground,
    tenant: &'a TenantRef,
    generation: Generation,
    profile: Profile,
    grants: &'a Grants,
    project: &'a str,
    directory: &'a str,
}

/// What was refused and which rule it broke. No values: they may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    field: String,
    rule: &'static str,
}

type Verdict = Result<(), Refusal>;

fn demand(holds: bool, field: impl Into<String>, rule: &'static str) -> Verdict {
    if holds { Ok(()) } else { Err(Refusal { field: field.into(), rule }) }
}

impl Refusal {
    /// For the operator's log, and for the client.
    fn into_backend(self, object: &str) -> BackendError {
        let Self { field, rule } = self;
        tracing::error!(object, field, rule, "the last gate refused a request: nothing of it was sent");
        BackendError::GateRefused { object: object.to_owned(), field, rule }
    }

    /// The same, of something that the engine has made already.
    fn of_made(self, object: &str) -> BackendError {
        let Self { field, rule } = self;
        tracing::error!(object, field, rule, "the engine made something else than it was asked for");
        BackendError::GateRefused { object: object.to_owned(), field, rule }
    }
}

impl<'a> Allowance<'a> {
    pub(super) fn of(deployment: &'a Deployment, ground: &'a Ground) -> Self {
        let project = deployment.project.project();
        Self {
            ground,
            tenant: &deployment.tenant,
            generation: deployment.generation,
            profile: deployment.project.profile(),
            grants: deployment.project.grants(),
            project: project.name.as_str(),
            directory: project.directory.as_str(),
        }
    }

    /// Whether the tenant is a stranger. For others there is nothing to compare.
    pub(super) fn confines(&self) -> bool {
        self.profile.confines()
    }

    /// Whether a network or volume of this name is the project's. No project's name has an underscore, so none is the
    /// beginning of another's.
    fn is_own_object(&self, name: &str) -> bool {
        name.strip_prefix(self.project).is_some_and(|rest| rest.len() > 1 && rest.starts_with('_'))
    }

    /// Whether a container of this name is the project's. Another project's name may begin the same way, so this is only
    /// for names whose meaning ends at a network of the project.
    fn is_own_container(&self, name: &str) -> bool {
        name.strip_prefix(self.project).is_some_and(|rest| rest.len() > 1 && rest.starts_with('-'))
    }

    /// Whether a container may be on this network. The engine's own networks are never among them, whatever is granted:
    /// `NetworkMode` has other meanings for their names.
    fn may_join(&self, network: &str) -> bool {
        let granted = self.grants.external_networks.iter().any(|name| name.as_str() == network);
        let special = matches!(network, "host" | "bridge" | "default" | "none" | "nat" | "ingress");
        self.is_own_object(network) || (granted && !special && !network.contains(':'))
    }

    pub(super) fn container(&self, creation: Creation, known: &Known<'_>) -> Result<Checked<Creation>, BackendError> {
        match self.judge_container(&creation, known) {
            Ok(()) => Ok(Checked(creation)),
            Err(refusal) => Err(refusal.into_backend(&format!("container {}", creation.name))),
        }
    }

    pub(super) fn network(&self, request: NetworkCreateRequest) -> Result<Checked<NetworkCreateRequest>, BackendError> {
        match self.judge_network(&request) {
            Ok(()) => Ok(Checked(request)),
            Err(refusal) => Err(refusal.into_backend("a network")),
        }
    }

    pub(super) fn volume(&self, request: VolumeCreateRequest) -> Result<Checked<VolumeCreateRequest>, BackendError> {
        match self.judge_volume(&request) {
            Ok(()) => Ok(Checked(request)),
            Err(refusal) => Err(refusal.into_backend("a volume")),
        }
    }

    pub(super) fn connection(&self, connection: Connection) -> Result<Checked<Connection>, BackendError> {
        match self.judge_connection(&connection) {
            Ok(()) => Ok(Checked(connection)),
            Err(refusal) => Err(refusal.into_backend("a connection to a network")),
        }
    }

    /// Whether what the engine made is what it was asked for, as far as it confines. `later` are the networks that it was
    /// connected to afterwards. An operator's own stacks are not looked at: nobody relies on their being confined.
    pub(super) fn container_is_as_sent(
        &self,
        sent: &Checked<Creation>,
        later: &BTreeSet<String>,
        known: &Known<'_>,
        found: &ContainerInspectResponse,
    ) -> Result<(), BackendError> {
        if !self.confines() {
            return Ok(());
        }
        if let Some(label) = self.label_of_image(sent.get(), found) {
            return Err(BackendError::Unsupported {
                field: format!("services.{}.image", known.service),
                reason: format!("the image has the label {label}, which other software of the host may act on"),
            });
        }
        let as_sent = self.compare_container(sent.get(), later, known, found);
        as_sent.map_err(|refusal| refusal.of_made(&format!("container {}", sent.get().name)))
    }

    /// The same for a network.
    pub(super) fn network_is_as_sent(
        &self,
        sent: &Checked<NetworkCreateRequest>,
        found: &NetworkInspect,
    ) -> Result<(), BackendError> {
        let as_sent = if self.confines() { compare::network(sent.get(), found) } else { Ok(()) };
        as_sent.map_err(|refusal| refusal.of_made("a network"))
    }

    /// The same for a volume. The engine answers with what exists under the name, whatever that is.
    pub(super) fn volume_is_as_sent(&self, found: &Volume) -> Result<(), BackendError> {
        let as_sent = if self.confines() { compare::volume(found) } else { Ok(()) };
        as_sent.map_err(|refusal| refusal.of_made("a volume"))
    }
}

/// A command of a hook.
pub(super) fn command(profile: Profile, config: ExecConfig) -> Result<Checked<ExecConfig>, BackendError> {
    match objects::judge_command(profile, &config) {
        Ok(()) => Ok(Checked(config)),
        Err(refusal) => Err(refusal.into_backend("a hook")),
    }
}

/// Whether `path` is `directory` or something below it.
fn is_at_or_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a user is a number other than 0: a name may stand for any number in the image.
fn is_numbered_user(user: &str) -> bool {
    let uid = user.split(':').next().unwrap_or_default();
    uid.bytes().all(|c| c.is_ascii_digit()) && uid.parse::<u32>().is_ok_and(|uid| uid != 0)
}

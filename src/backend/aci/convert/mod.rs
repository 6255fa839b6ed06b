//! From an accepted deployment to one container group, or to the field that a group cannot do. Pure: nothing is asked.
//!
//! ```text
//! refuse     every attribute that a group has no place for, by name: refused, or a warning when nothing breaks without it
//! order      which services are init containers; one restart policy for all
//! process    command, environment, security context
//! resources  requests and limits
//! ports      ports, the address, its DNS label
//! probes     healthcheck -> liveness and readiness probe
//! mounts     volumes, shares, configs, secrets, request files
//! tags       whose it is
//! change     what it takes to get from one group to the next
//! ```
//!
//! What would be lost without a word is refused or has a warning. What a confining policy has filled in for the sake of a
//! shared host (limits of processes and files, log rotation, the publish address) needs neither: a group shares nothing with
//! another tenant, it has a virtual machine of its own.

mod change;
mod mounts;
mod order;
mod ports;
mod probes;
mod process;
mod refuse;
mod resources;
pub(super) mod tags;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(super) use change::{Change, change};

use super::models::{
    Container, ContainerGroup, ContainerProperties, GroupProperties, Identity, InitContainer, InitContainerProperties,
    OsType, RegistryCredential, Secret, UserAssignedIdentity,
};
use super::names;
use crate::backend::{BackendError, Deployment};
use crate::compose::Service;
use crate::config::AciRegistryIdentity;
use crate::domain::{ImageRef, ObjectKey, RegistryAuth, ServiceName};
use secrecy::ExposeSecret as _;

/// What a group depends on besides the deployment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    /// Where it is to be, such as `eastus`.
    pub(super) location: &'a str,
    /// The account that its shares are in; without one, no named volume can be had.
    pub(super) storage_account: Option<&'a str>,
    /// The label to ask for in place of the tenant's own, because somebody has that.
    pub(super) dns_label: Option<&'a str>,
    /// Chosen by exact host.
    pub(super) credentials: &'a [RegistryAuth],
    /// For registries that nothing is known for otherwise.
    pub(super) identities: &'a [AciRegistryIdentity],
}

/// One share of Azure Files. It must exist before the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// The key under `volumes`.
    pub(super) volume: ObjectKey,
    /// Its name in the account.
    pub(super) name: String,
    pub(super) quota_gib: u32,
    /// Whose it is.
    pub(super) metadata: BTreeMap<String, String>,
}

/// A deployment as Azure is to have it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Converted {
    /// The group's name.
    pub(super) name: String,
    /// The body of the PUT, without the keys of the storage account.
    pub(super) group: ContainerGroup,
    pub(super) shares: Vec<Share>,
    /// The container of each service in the group.
    pub(super) containers: BTreeMap<ServiceName, String>,
    /// The init container of each one-shot service.
    pub(super) init: BTreeMap<ServiceName, String>,
    /// Sentences for a person, each naming the field it is about.
    pub(super) warnings: Vec<String>,
    /// Keyed, of all that is sent but tags, keys and registry credentials: those are not kept, so that a group that is
    /// converted again later could not be compared with itself.
    pub(super) hash: String,
}

impl Converted {
    /// Puts the account's key where shares are mounted; done right before the PUT, because every PUT needs it.
    pub(super) fn with_storage_key(&self, key: &Secret) -> ContainerGroup {
        let mut group = self.group.clone();
        for share in group.properties.volumes.iter_mut().filter_map(|volume| volume.azure_file.as_mut()) {
            share.storage_account_key = Some(key.clone());
        }
        group
    }
}

/// Most containers of a group, init containers counted.
const MAX_CONTAINERS: usize = 60;

/// The services that have a container, by name.
type Services<'a> = BTreeMap<&'a ServiceName, &'a Service>;

/// Converts a deployment.
///
/// # Errors
/// [`BackendError::Unsupported`] with the first field that a group cannot do.
pub(super) fn convert(wanted: &Deployment, ground: &Ground<'_>) -> Result<Converted, BackendError> {
    let project = wanted.project.project();
    let mut warnings = Vec::new();
    refuse::project(project, &mut warnings)?;
    let mut services = Services::new();
    for (name, service) in &project.services {
        refuse::service(wanted, name, service, &mut warnings)?;
        if service.replicas() > 0 {
            services.insert(name, service);
        }
    }
    let order = order::order(project, &services, &mut warnings)?;
    if services.len() > MAX_CONTAINERS {
        return Err(unsupported("services", format!("a group has at most {MAX_CONTAINERS} containers")));
    }
    let restart_policy = order::restart_policy(&services, &order, &mut warnings)?;
    let published = ports::published(wanted, &services, ground, &mut warnings)?;
    let mut resources = resources::divide(wanted, &services, &order, &mut warnings)?;
    let mut volumes = mounts::Volumes::new(wanted, ground);

    let (mut init, mut init_names) = (Vec::new(), BTreeMap::new());
    for name in &order.init {
        let service = services[name];
        let container = names::container(name.as_str());
        init.push(InitContainer {
            name: container.clone(),
            properties: InitContainerProperties {
                image: Some(image(wanted, name, service)),
                command: process::command(name, service)?,
                environment_variables: process::environment(name, service, &mut warnings)?,
                volume_mounts: volumes.mounts(name, service, &mut warnings)?,
                security_context: process::security_context(wanted, name, service)?,
                instance_view: None,
            },
        });
        init_names.insert((*name).clone(), container);
    }
    let (mut containers, mut container_names) = (Vec::new(), BTreeMap::new());
    for name in &order.containers {
        let service = services[name];
        let probes = probes::probes(name, service, &mut warnings)?;
        let container = names::container(name.as_str());
        containers.push(Container {
            name: container.clone(),
            properties: ContainerProperties {
                image: Some(image(wanted, name, service)),
                command: process::command(name, service)?,
                environment_variables: process::environment(name, service, &mut warnings)?,
                ports: published.ports.get(*name).cloned().unwrap_or_default(),
                resources: resources.remove(*name),
                volume_mounts: volumes.mounts(name, service, &mut warnings)?,
                liveness_probe: probes.liveness,
                readiness_probe: probes.readiness,
                security_context: process::security_context(wanted, name, service)?,
                config_map: None,
                instance_view: None,
            },
        });
        container_names.insert((*name).clone(), container);
    }
    if services.len() > 1 {
        warnings.push(
            "services: the containers of a group share one network; they reach each other on localhost, and names of \
             services do not resolve"
                .to_owned(),
        );
    }
    let (volumes, shares) = volumes.finish(&mut warnings);
    let mut group = ContainerGroup {
        location: Some(ground.location.to_owned()),
        properties: GroupProperties {
            os_type: Some(OsType::Linux),
            restart_policy: Some(restart_policy),
            init_containers: init,
            containers,
            ip_address: published.address,
            volumes,
            ..GroupProperties::default()
        },
        ..ContainerGroup::default()
    };
    let hash = hash(wanted, &group);
    group.properties.image_registry_credentials = credentials(services.values().copied(), ground);
    group.identity = identity(&group.properties.image_registry_credentials);
    group.tags = tags::of(wanted, &hash, container_names.iter().chain(&init_names))?;
    Ok(Converted {
        name: names::group(project.name.as_str()),
        group,
        shares,
        containers: container_names,
        init: init_names,
        warnings,
        hash,
    })
}

fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> BackendError {
    BackendError::Unsupported { field: field.into(), reason: reason.into() }
}

/// The image that a rollback has pinned, else the reference in the file. A bare id means nothing to a registry.
fn image(wanted: &Deployment, name: &ServiceName, service: &Service) -> String {
    let pinned = wanted.pinned_images.get(name).filter(|pinned| ImageRef::parse(pinned).is_ok());
    pinned.cloned().unwrap_or_else(|| service.image.as_str().to_owned())
}

/// The credentials for the registries of these services' images, a registry once: user and password, else an identity.
fn credentials<'a>(services: impl Iterator<Item = &'a Service>, ground: &Ground<'_>) -> Vec<RegistryCredential> {
    let mut chosen: BTreeMap<String, RegistryCredential> = BTreeMap::new();
    for service in services {
        let registry = service.image.registry().to_ascii_lowercase();
        let auth = ground.credentials.iter().find(|auth| auth.registry == registry);
        let identity = ground.identities.iter().find(|known| known.registry == registry);
        let by = match (auth, identity) {
            (Some(auth), _) => RegistryCredential {
                username: Some(auth.username.clone()),
                password: Some(auth.password.expose_secret().into()),
                ..RegistryCredential::default()
            },
            (None, Some(known)) => {
                RegistryCredential { identity: Some(known.identity.clone()), ..RegistryCredential::default() }
            }
            (None, None) => continue,
        };
        // The one name of the Hub that Azure knows.
        let server = if registry == "docker.io" { "index.docker.io".to_owned() } else { registry };
        chosen.insert(server.clone(), RegistryCredential { server, ..by });
    }
    chosen.into_values().collect()
}

/// The identities that a group gets its images by; it must have each of them itself.
fn identity(credentials: &[RegistryCredential]) -> Option<Identity> {
    let used = credentials.iter().filter_map(|credential| credential.identity.clone());
    let used: BTreeMap<String, UserAssignedIdentity> = used.map(|id| (id, UserAssignedIdentity::default())).collect();
    (!used.is_empty()).then(|| Identity {
        kind: Some("UserAssigned".to_owned()),
        user_assigned_identities: used,
        ..Identity::default()
    })
}

/// See [`Converted::hash`]. The group has neither tags nor credentials yet.
fn hash(wanted: &Deployment, group: &ContainerGroup) -> String {
    let text = serde_json::to_vec(group).expect("the models serialise");
    wanted.key.hash(&[b"group", &text])
}

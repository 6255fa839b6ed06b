//! By what a group gets at its images: credentials of the request or of the host, or an identity of the settings.

use super::Core;
use super::convert::Converted;
use super::models::{ContainerGroup, RegistryCredential};
use crate::backend::{BackendError, Deployment, Run};
use crate::domain::RegistryAuth;

impl Core {
    /// What an operation brings, and where it has nothing for a registry, what the group was last sent with.
    pub(super) fn credentials_for(&self, wanted: &Deployment, run: &Run) -> Vec<RegistryAuth> {
        let mut all: Vec<RegistryAuth> = run.credentials.to_vec();
        if let Some(last) = self.credentials.get(&wanted.tenant.subdomain) {
            all.extend(
                last.iter().filter(|one| run.credentials.iter().all(|given| given.registry != one.registry)).cloned(),
            );
        }
        all
    }
}

/// Credentials that the group has been sent with before, for a registry that an image is in, are needed again: Azure keeps
/// none for the next request.
pub(super) fn still_allowed(
    wanted: &Deployment,
    live: Option<&ContainerGroup>,
    converted: &Converted,
) -> Result<(), BackendError> {
    let given = |credential: &&RegistryCredential| {
        let sent = &converted.group.properties.image_registry_credentials;
        sent.iter().any(|sent| sent.server.eq_ignore_ascii_case(&credential.server))
    };
    let before = live.map(|live| live.properties.image_registry_credentials.iter());
    for missing in before.into_iter().flatten().filter(|credential| !given(credential)) {
        let services = &wanted.project.project().services;
        let uses = services.iter().find(|(_, service)| is_server_of(&missing.server, service.image.registry()));
        if let Some((service, _)) = uses {
            return Err(BackendError::RegistryAuthRequired { service: service.clone() });
        }
    }
    Ok(())
}

pub(super) fn is_server_of(server: &str, registry: &str) -> bool {
    server.eq_ignore_ascii_case(registry) || (registry == "docker.io" && server == "index.docker.io")
}

//! Tags that say whose a group is. Ownership is read from these, never from a name.

use std::collections::BTreeMap;

use super::unsupported;
use crate::backend::{BackendError, Deployment};
use crate::domain::ServiceName;

/// The id of the agent that has made it.
pub(in crate::backend::aci) const AGENT: &str = "q8-agent-id";
/// The subdomain.
pub(in crate::backend::aci) const TENANT: &str = "q8-tenant";
/// The tenant's identity.
pub(in crate::backend::aci) const ID: &str = "q8-id";
/// The generation that the group was last brought to.
pub(in crate::backend::aci) const GENERATION: &str = "q8-generation";
/// The keyed hash of what was sent.
pub(in crate::backend::aci) const HASH: &str = "q8-hash";
/// By this tag one call finds all that agents have made in a subscription.
pub(in crate::backend::aci) const MANAGED_BY: &str = "managed-by";
/// The value of [`MANAGED_BY`].
pub(in crate::backend::aci) const MANAGER: &str = "q8-agent";

/// Most tags of a resource.
const MOST: usize = 50;
/// How many tags every group has.
const OWN: usize = 6;

/// The tag with the real name of the service behind a container whose name had to be changed.
pub(in crate::backend::aci) fn service(container: &str) -> String {
    format!("q8-service-{container}")
}

/// A group's tags. No value is longer than the 256 characters that one may have: ids and service names have at most 128.
pub(super) fn of<'a>(
    wanted: &Deployment,
    hash: &str,
    containers: impl Iterator<Item = (&'a ServiceName, &'a String)>,
) -> Result<BTreeMap<String, String>, BackendError> {
    let tenant = &wanted.tenant;
    let own: [(&str, String); OWN] = [
        (AGENT, tenant.agent.as_str().to_owned()),
        (TENANT, tenant.subdomain.as_str().to_owned()),
        (ID, tenant.id.as_str().to_owned()),
        (GENERATION, wanted.generation.to_string()),
        (HASH, hash.to_owned()),
        (MANAGED_BY, MANAGER.to_owned()),
    ];
    let mut tags: BTreeMap<String, String> = own.map(|(tag, value)| (tag.to_owned(), value)).into();
    let changed = containers.filter(|(name, container)| name.as_str() != container.as_str());
    tags.extend(changed.map(|(name, container)| (service(container), name.as_str().to_owned())));
    if tags.len() > MOST {
        return Err(unsupported(
            "services",
            format!("at most {} services may have names that are not of a-z, 0-9 and single hyphens", MOST - OWN),
        ));
    }
    Ok(tags)
}

/// The metadata of a share: the same as a group's tags, under names that metadata may have.
pub(super) fn of_share(wanted: &Deployment, volume: &str, name: &str) -> BTreeMap<String, String> {
    let tenant = &wanted.tenant;
    let metadata = [
        (AGENT, tenant.agent.as_str()),
        (TENANT, tenant.subdomain.as_str()),
        (ID, tenant.id.as_str()),
        (VOLUME, volume),
        (NAME, name),
        (MANAGED_BY, MANAGER),
    ];
    metadata.map(|(name, value)| (metadata_name(name), value.to_owned())).into()
}

/// In the metadata of a share: the volume's key in the file.
pub(in crate::backend::aci) const VOLUME: &str = "q8-volume";

/// In the metadata of a share: the volume's name in the project, such as `q8-acme_store`.
pub(in crate::backend::aci) const NAME: &str = "q8-name";

/// A tag's name as the name of a metadata value, which is an identifier: without hyphens.
pub(in crate::backend::aci) fn metadata_name(tag: &str) -> String {
    tag.replace('-', "_")
}

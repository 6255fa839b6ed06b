//! What it takes to get from one group to the next.
//!
//! Azure refuses an update of operating system, resources, restart policy or network profile (`InvalidContainerGroupUpdate`):
//! the group has to be deleted and made anew. Its shares survive that.

use super::Converted;
use crate::backend::aci::models::{Container, ContainerGroup, IpAddress};

/// The smallest way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backend::aci) enum Change {
    /// Nothing is sent.
    None,
    /// A PATCH: nothing restarts.
    TagsOnly,
    /// A PUT: every container is restarted where it is.
    InPlace,
    /// DELETE and PUT.
    Replace {
        /// For a person.
        because: String,
    },
}

/// What has changed from `before` to `after`, both converted from what was accepted: a group as it is read has none of its
/// secrets. Registry credentials and the quotas of shares are no change of the group: the first are sent with every PUT, the
/// second are set on the shares.
pub(in crate::backend::aci) fn change(before: &Converted, after: &Converted) -> Change {
    if before.hash == after.hash && before.name == after.name {
        return if before.group.tags == after.group.tags { Change::None } else { Change::TagsOnly };
    }
    match replaced(before, after) {
        Some(because) => Change::Replace { because },
        None => Change::InPlace,
    }
}

/// Why a group has to be made anew, if it has to.
fn replaced(before: &Converted, after: &Converted) -> Option<String> {
    let (old, new) = (&before.group, &after.group);
    let (was, is) = (&old.properties, &new.properties);
    let differ: [(bool, &str); 7] = [
        (before.name != after.name, "the name of the group changes"),
        (old.location != new.location, "the location changes"),
        (old.zones != new.zones, "the zone changes"),
        (was.os_type != is.os_type, "the operating system changes"),
        (was.restart_policy != is.restart_policy, "the restart policy changes"),
        (was.sku != is.sku || was.priority != is.priority, "the kind of group changes"),
        (was.subnet_ids != is.subnet_ids, "the subnet changes"),
    ];
    if let Some((_, because)) = differ.into_iter().find(|(differs, _)| *differs) {
        return Some(because.to_owned());
    }
    containers(old, new).or_else(|| address(was.ip_address.as_ref(), is.ip_address.as_ref()))
}

fn find<'g>(group: &'g ContainerGroup, name: &str) -> Option<&'g Container> {
    group.properties.containers.iter().find(|container| container.name == name)
}

fn containers(old: &ContainerGroup, new: &ContainerGroup) -> Option<String> {
    for container in &new.properties.containers {
        let name = &container.name;
        let Some(there) = find(old, name) else { return Some(format!("container {name} is added")) };
        if there.properties.resources != container.properties.resources {
            return Some(format!("the resources of container {name} change"));
        }
    }
    let gone = old.properties.containers.iter().find(|container| find(new, &container.name).is_none());
    gone.map(|container| format!("container {} is removed", container.name))
}

/// Ports may change in place; kind and name of the address are fixed when it is made.
fn address(old: Option<&IpAddress>, new: Option<&IpAddress>) -> Option<String> {
    let because = match (old, new) {
        (None, None) => return None,
        (None, Some(_)) => "the group gets an address",
        (Some(_), None) => "the group has no address any more",
        (Some(old), Some(new)) if old.kind != new.kind => "the kind of address changes",
        (Some(old), Some(new))
            if old.dns_name_label != new.dns_name_label
                || old.auto_generated_domain_name_label_scope != new.auto_generated_domain_name_label_scope =>
        {
            "the DNS label changes"
        }
        _ => return None,
    };
    Some(because.to_owned())
}

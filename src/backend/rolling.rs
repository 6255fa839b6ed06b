//! How a service's containers are replaced: `deploy.update_config`, as far as the service allows it. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::converge;
use crate::compose::{FailureAction, NetworkMode, Project, Service, UpdateOrder};
use crate::domain::{ObjectKey, ServiceName};

/// The way of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rolling {
    /// A new container starts beside the old one, which stops when the new one is well.
    pub(super) start_first: bool,
    /// How many are replaced at the same time.
    pub(super) parallelism: usize,
    /// The rest between two groups.
    pub(super) delay: Duration,
    /// How long a new container must stay well.
    pub(super) monitor: Duration,
}

/// The way of a service that has an `update_config`, and what its author should know. Without one all containers are
/// replaced at once, old ones first. `networks_anew` are those that are made anew, for which all on them must stop.
pub(super) fn of(
    project: &Project,
    name: &ServiceName,
    service: &Service,
    networks_anew: &BTreeSet<&ObjectKey>,
    warnings: &mut Vec<String>,
) -> Option<Rolling> {
    let config = service.deploy.as_ref()?.update_config.as_ref()?;
    let field = format!("services.{name}.deploy.update_config");
    if matches!(config.failure_action, Some(FailureAction::Continue | FailureAction::Pause)) {
        warnings.push(format!(
            "{field}.failure_action: taken as rollback: an update succeeds as a whole, or what ran before runs again"
        ));
    }
    let parallelism = match config.parallelism.unwrap_or(1) {
        0 => usize::MAX,
        some => usize::try_from(some).unwrap_or(usize::MAX),
    };
    let mut start_first = config.order == Some(UpdateOrder::StartFirst);
    if start_first && let Some((attribute, reason)) = obstacle(project, name, service, parallelism, networks_anew) {
        warnings.push(format!("{field}.order: stop-first is used, because of services.{name}.{attribute}: {reason}"));
        start_first = false;
    }
    Some(Rolling {
        start_first,
        parallelism,
        delay: config.delay.unwrap_or_default(),
        monitor: config.monitor.unwrap_or_default(),
    })
}

/// What of a service cannot be there twice, and why.
fn obstacle(
    project: &Project,
    name: &ServiceName,
    service: &Service,
    parallelism: usize,
    networks_anew: &BTreeSet<&ObjectKey>,
) -> Option<(String, String)> {
    let found = |attribute: String, reason: &str| Some((attribute, reason.to_owned()));
    if service.container_name.is_some() {
        return found("container_name".to_owned(), "two containers cannot have one name");
    }
    for (at, port) in service.ports.iter().enumerate() {
        let Some((first, last)) = port.host_ports() else { continue };
        if first == last {
            return found(format!("ports[{at}]"), "two containers cannot have one host port");
        }
        let replicas = usize::try_from(service.replicas()).unwrap_or(usize::MAX);
        let needed = replicas.saturating_add(parallelism.min(replicas));
        if usize::from(last - first) + 1 < needed {
            return found(format!("ports[{at}]"), "its range has no port for a second container");
        }
    }
    if service.mac_address.is_some() {
        return found("mac_address".to_owned(), "two containers cannot have one address");
    }
    for (key, membership) in &service.networks {
        let fixed = [
            ("ipv4_address", membership.ipv4_address.is_some()),
            ("ipv6_address", membership.ipv6_address.is_some()),
            ("mac_address", membership.mac_address.is_some()),
            ("link_local_ips", !membership.link_local_ips.is_empty()),
        ];
        if let Some((attribute, _)) = fixed.iter().find(|(_, is_fixed)| *is_fixed) {
            return found(format!("networks.{key}.{attribute}"), "two containers cannot have one address");
        }
        if networks_anew.contains(key) {
            return found(format!("networks.{key}"), "the network is made anew, and nothing may run on it meanwhile");
        }
    }
    if matches!(&service.network_mode, Some(mode) if *mode != NetworkMode::None) {
        return found("network_mode".to_owned(), "two containers would meet in one network namespace");
    }
    if let Some(parent) = converge::parents(service).first() {
        return Some(("depends_on".to_owned(), format!("it shares a namespace or volumes with {parent}")));
    }
    let joiner = project.services.iter().find(|(_, other)| converge::parents(other).contains(&name));
    joiner.map(|(joiner, _)| ("depends_on".to_owned(), format!("{joiner} shares a namespace or volumes with it")))
}

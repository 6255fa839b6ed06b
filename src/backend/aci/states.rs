//! A group as Azure describes it, in the words of `domain`.
//!
//! ```text
//! currentState                          container
//! Running                               running
//! Waiting, never ran                    created
//! Waiting, ran before                   restarting
//! Terminated, the group goes on         exited      (the restart policy may start it again)
//! none                                  created; exited when the group is stopped or has ended
//! ```
//!
//! Of probes Azure tells failures only, as events. A container that runs, has a probe and has no recent failure counts as
//! healthy.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::convert::tags;
use super::models::{
    ContainerGroup, ContainerInstanceView, ContainerPort, ContainerState, Event, GroupState, IpAddress, Probe,
    Provisioning, RunWord, Transport,
};
use crate::backend::ObservedContainer;
use crate::domain::{ContainerId, ContainerName, ContainerStatus, Endpoint, Health, ServiceName, Subdomain, TenantId};

/// The longest output of a probe that is told on, in bytes.
const HEALTH_OUTPUT: usize = 4096;

/// How an operation on a group ends; all other words say that it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provisioned {
    /// It goes on.
    Not,
    /// It is as it was asked for.
    Done,
    /// It is not, and Azure goes on trying (and billing) until it is stopped or deleted.
    Failed,
}

/// What `provisioningState` says about the last operation. A group without one is read as an old answer: done.
pub(super) fn provisioned(group: &ContainerGroup) -> Provisioned {
    match &group.properties.provisioning_state {
        None | Some(Provisioning::Succeeded | Provisioning::Stopped) => Provisioned::Done,
        Some(Provisioning::Failed | Provisioning::Canceled) => Provisioned::Failed,
        Some(_) => Provisioned::Not,
    }
}

/// The group's own state, from the instance view; none in a list.
pub(super) fn group_state(group: &ContainerGroup) -> Option<&GroupState> {
    group.properties.instance_view.as_ref()?.state.as_ref()
}

/// One event and the container it is about; none when it is about the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told<'a> {
    pub(super) container: Option<&'a str>,
    pub(super) event: &'a Event,
}

/// Every event of the group and its containers, the oldest first.
pub(super) fn events(group: &ContainerGroup) -> Vec<Told<'_>> {
    let properties = &group.properties;
    let of_group = properties.instance_view.iter().flat_map(|view| &view.events);
    let containers = properties.containers.iter().map(|c| (c.name.as_str(), c.properties.instance_view.as_ref()));
    let init = properties.init_containers.iter().map(|c| (c.name.as_str(), c.properties.instance_view.as_ref()));
    let of_containers = init.chain(containers).flat_map(|(name, view)| {
        view.into_iter().flat_map(move |view| view.events.iter().map(move |event| (name, event)))
    });
    let mut told: Vec<Told<'_>> = of_group
        .map(|event| Told { container: None, event })
        .chain(of_containers.map(|(name, event)| Told { container: Some(name), event }))
        .collect();
    told.sort_by_key(|told| time(told.event.last_timestamp.as_deref().or(told.event.first_timestamp.as_deref())));
    told
}

/// The events after which waiting longer is of no use: a share that cannot be mounted, an image that cannot be had.
const FATAL: &[&str] = &["FailedMount", "InaccessibleImage"];

/// The latest event that no waiting helps against, of those at or after `since`: an earlier one belongs to an earlier
/// attempt.
pub(super) fn fatal(group: &ContainerGroup, since: Option<Timestamp>) -> Option<Told<'_>> {
    events(group).into_iter().rev().find(|told| {
        FATAL.iter().any(|name| told.event.name.eq_ignore_ascii_case(name))
            && since.is_none_or(|since| is_since(told.event, since))
    })
}

/// Whether an event is no older than this; many of its times are of whole seconds.
fn is_since(event: &Event, since: Timestamp) -> bool {
    let at = time(event.last_timestamp.as_deref());
    at.is_none_or(|at| at >= since || (at.subsec_nanosecond() == 0 && at.as_second() >= since.as_second()))
}

/// The latest warning of those at or after `since`.
pub(super) fn last_warning(group: &ContainerGroup, since: Timestamp) -> Option<Told<'_>> {
    events(group).into_iter().rev().find(|told| {
        let is_warning = told.event.kind.as_deref().is_none_or(|kind| !kind.eq_ignore_ascii_case("normal"));
        is_warning && is_since(told.event, since)
    })
}

/// Whose group it is: the subdomain and the identity in its tags.
pub(super) fn owner(group: &ContainerGroup) -> Option<(Subdomain, TenantId)> {
    let tenant = Subdomain::parse(group.tags.get(tags::TENANT)?).ok()?;
    Some((tenant, TenantId::parse(group.tags.get(tags::ID)?).ok()?))
}

/// The group's containers, init containers among them; none when the tags do not say whose they are.
pub(super) fn containers(group: &ContainerGroup, now: Timestamp) -> Vec<ObservedContainer> {
    let Some((tenant, owner)) = owner(group) else { return Vec::new() };
    let observed = |seen: Seen<'_>| {
        let service = service(group, seen.name)?;
        let endpoints = endpoints(&service, seen.ports, group.properties.ip_address.as_ref());
        let status = status(group, &seen, now)?;
        Some(ObservedContainer {
            tenant: tenant.clone(),
            owner: owner.clone(),
            service,
            number: 1,
            // What does not run cannot be reached.
            endpoints: if status.state == "running" { endpoints } else { Vec::new() },
            status,
        })
    };
    let properties = &group.properties;
    let init = properties.init_containers.iter().map(|container| Seen {
        name: &container.name,
        image: container.properties.image.as_deref(),
        view: container.properties.instance_view.as_ref(),
        ports: &[],
        probe: None,
    });
    let others = properties.containers.iter().map(|container| Seen {
        name: &container.name,
        image: container.properties.image.as_deref(),
        view: container.properties.instance_view.as_ref(),
        ports: &container.properties.ports,
        probe: container.properties.liveness_probe.as_ref().or(container.properties.readiness_probe.as_ref()),
    });
    let mut containers: Vec<ObservedContainer> = init.chain(others).filter_map(observed).collect();
    containers.sort_by(|a, b| a.service.cmp(&b.service));
    containers
}

/// What an answer says about one container.
struct Seen<'a> {
    name: &'a str,
    image: Option<&'a str>,
    view: Option<&'a ContainerInstanceView>,
    ports: &'a [ContainerPort],
    probe: Option<&'a Probe>,
}

/// The service behind a container: what a tag says, where the name had to be changed.
pub(super) fn service(group: &ContainerGroup, container: &str) -> Option<ServiceName> {
    let real = group.tags.get(&tags::service(container)).map_or(container, String::as_str);
    ServiceName::parse(real).ok()
}

/// An id as the rest of the house knows them: the resource's own and the container's name, hashed.
pub(super) fn container_id(group: &ContainerGroup, container: &str) -> Option<ContainerId> {
    // Resource ids make no difference between capitals.
    let id = group.id.as_deref().or(group.name.as_deref())?.to_ascii_lowercase();
    let digest = Sha256::digest(format!("{id}/containers/{container}").as_bytes());
    let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    ContainerId::parse(&text).ok()
}

fn status(group: &ContainerGroup, seen: &Seen<'_>, now: Timestamp) -> Option<ContainerStatus> {
    let current = seen.view.and_then(|view| view.current_state.as_ref());
    let previous = seen.view.and_then(|view| view.previous_state.as_ref());
    let restarts = seen.view.and_then(|view| view.restart_count).and_then(|count| u64::try_from(count).ok());
    let state = run_state(group, current, previous, restarts.unwrap_or(0));
    let ended = match state {
        "exited" => current.filter(|state| state.exit_code.is_some()).or(previous),
        "restarting" => previous,
        _ => None,
    };
    let (health, health_output) = if state == "running" { health(seen, current, now) } else { (Health::None, None) };
    Some(ContainerStatus {
        name: ContainerName::parse(seen.name).ok()?,
        id: container_id(group, seen.name)?,
        state: state.to_owned(),
        health,
        exit_code: ended.and_then(|state| state.exit_code),
        started_at: current.filter(|_| state != "created").or(previous).and_then(|s| time(s.start_time.as_deref())),
        restart_count: restarts.unwrap_or(0),
        image: seen.image.unwrap_or_default().to_owned(),
        oom_killed: ended.is_some_and(out_of_memory),
        health_output,
        last_exits: Vec::new(),
        crash_loop: false,
    })
}

fn run_state(
    group: &ContainerGroup,
    current: Option<&ContainerState>,
    previous: Option<&ContainerState>,
    restarts: u64,
) -> &'static str {
    let group_ended =
        matches!(group_state(group), Some(GroupState::Stopped | GroupState::Succeeded | GroupState::Failed))
            || group.properties.provisioning_state == Some(Provisioning::Stopped);
    match current.and_then(|state| state.state.as_ref()) {
        // A group that is just stopped may still show the last state of its containers.
        Some(RunWord::Running) if group_state(group) == Some(&GroupState::Stopped) => "exited",
        Some(RunWord::Running) => "running",
        Some(RunWord::Terminated) => "exited",
        Some(RunWord::Waiting) if group_ended && (restarts > 0 || previous.is_some()) => "exited",
        Some(RunWord::Waiting) if restarts > 0 || previous.is_some() => "restarting",
        Some(RunWord::Waiting | RunWord::Other(_)) => "created",
        None if group_ended => "exited",
        None => "created",
    }
}

/// The health of a running container, and what its probe said when it is not well.
fn health(seen: &Seen<'_>, current: Option<&ContainerState>, now: Timestamp) -> (Health, Option<String>) {
    let Some(probe) = seen.probe else { return (Health::None, None) };
    let Some((at, event)) = seen.view.zip(current).and_then(|(view, current)| last_failure(view, current)) else {
        return (Health::Healthy, None);
    };
    let period = probe.period_seconds.unwrap_or(10);
    let timeout = probe.timeout_seconds.unwrap_or(1);
    let window = u64::try_from(period.saturating_mul(2).saturating_add(timeout)).unwrap_or(0);
    // After two checks without a failure it is well again.
    if now.duration_since(at).unsigned_abs() > Duration::from_secs(window) {
        return (Health::Healthy, None);
    }
    let failed = event.count.unwrap_or(1) >= probe.failure_threshold.unwrap_or(3);
    (if failed { Health::Unhealthy } else { Health::Starting }, Some(output(event)))
}

/// The last failure of a probe in a run, or after it.
fn last_failure<'a>(view: &'a ContainerInstanceView, run: &ContainerState) -> Option<(Timestamp, &'a Event)> {
    let started = time(run.start_time.as_deref());
    let failures = view.events.iter().filter(|event| event.name == "Unhealthy").filter_map(|event| {
        let at = time(event.last_timestamp.as_deref())?;
        started.is_none_or(|started| at >= started).then_some((at, event))
    });
    failures.max_by_key(|(at, _)| *at)
}

fn output(event: &Event) -> String {
    let mut output = event.message.clone();
    output.truncate(output.floor_char_boundary(HEALTH_OUTPUT));
    output
}

/// What the probe of a container said when it was its failure that ended the last run: Azure kills what is not alive.
pub(super) fn ended_by_probe(group: &ContainerGroup, container: &str) -> Option<String> {
    // SIGKILL and SIGTERM, as codes.
    const KILLED: [i64; 2] = [137, 143];
    let properties = &group.properties.containers.iter().find(|one| one.name == container)?.properties;
    properties.liveness_probe.as_ref()?;
    let view = properties.instance_view.as_ref()?;
    let runs = [view.current_state.as_ref(), view.previous_state.as_ref()];
    let ended = runs.into_iter().flatten().find(|run| run.exit_code.is_some())?;
    if !ended.exit_code.is_some_and(|code| KILLED.contains(&code)) || out_of_memory(ended) {
        return None;
    }
    last_failure(view, ended).map(|(_, event)| output(event))
}

fn out_of_memory(state: &ContainerState) -> bool {
    state.detail_status.as_deref().is_some_and(|detail| detail.to_ascii_lowercase().contains("oomkilled"))
}

/// Where a container's ports are reached: the name as Azure gives it, else the address; nowhere while there is neither.
fn endpoints(service: &ServiceName, ports: &[ContainerPort], address: Option<&IpAddress>) -> Vec<Endpoint> {
    let Some(address) = address else { return Vec::new() };
    let present = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (name, ip) = (present(&address.fqdn), present(&address.ip));
    let Some(host) = name.clone().or_else(|| ip.clone()) else { return Vec::new() };
    let behind = ip.filter(|_| name.is_some());
    let is_udp = |protocol: &Option<Transport>| *protocol == Some(Transport::Udp);
    let published = ports.iter().filter(|port| {
        address.ports.iter().any(|open| open.port == port.port && is_udp(&open.protocol) == is_udp(&port.protocol))
    });
    let endpoint = |port: &ContainerPort| Endpoint {
        service: service.clone(),
        port: port.port,
        protocol: if is_udp(&port.protocol) { "udp" } else { "tcp" }.to_owned(),
        host: host.clone(),
        host_port: port.port,
        address: behind.clone(),
    };
    published.map(endpoint).collect()
}

/// A time of the API; none for what is none.
pub(super) fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok().filter(|time: &Timestamp| time.as_second() > 0)
}

#[cfg(test)]
mod tests;

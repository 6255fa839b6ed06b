//! Fills in what the author of an accepted project left open, so that every container is confined whatever the engine's own
//! defaults are.

use std::collections::BTreeSet;

use super::limits::{Defaults, nano_cpus, positive};
use super::privileges::capability_name;
use super::restricted::is_all;
use super::verdict::Verdict;
use super::{Ground, TenantRules, binds};
use crate::compose::{Logging, NamespaceMode, Project, Service, Ulimit};
use crate::domain::{ObjectKey, ServiceName};

/// Capabilities of Docker's default set that nobody keeps without a grant: forged packets and device files.
const DROPPED: &[&str] = &["MKNOD", "NET_RAW"];

pub(super) fn confine(rules: &TenantRules, project: &mut Project, ground: &Ground<'_>, verdict: &mut Verdict) {
    make_read_only(rules, project, ground, verdict);
    let prefix = project.name.as_str().to_owned();
    let foreign: BTreeSet<ObjectKey> =
        project.networks.iter().filter(|(_, network)| network.external).map(|(key, _)| key.clone()).collect();
    for (name, service) in &mut project.services {
        take_no_names_of_others(&prefix, &foreign, name, service, verdict);
        name_becomes_alias(&prefix, &foreign, name, service, verdict);
        for port in &mut service.ports {
            port.host_ip.get_or_insert(ground.publish_host);
            port.published = port.host_ports().or(Some(ground.publish_ports));
        }
        drop_privileges(service);
        limit(service, &rules.defaults);
        log_to_bounded_files(service, &rules.defaults);
    }
}

fn make_read_only(rules: &TenantRules, project: &mut Project, ground: &Ground<'_>, verdict: &mut Verdict) {
    let mut read_only = Vec::new();
    for (name, service) in &project.services {
        for (at, mount) in service.mounts.iter().enumerate() {
            if binds::becomes_read_only(&rules.grants, project, ground, mount) {
                read_only.push((name.clone(), at));
                verdict.warnings.push(format!(
                    "services.{name}.volumes[{at}]: mounted read-only, as everything outside data/; write :ro to say so"
                ));
            }
        }
    }
    for (name, at) in read_only {
        if let Some(mount) = project.services.get_mut(&name).and_then(|service| service.mounts.get_mut(at)) {
            mount.read_only = Some(true);
        }
    }
}

/// On a network that is not the tenant's own, every name could be somebody else's whom a proxy or another tenant means. The
/// service has one there that nobody else can have; the agent gives it.
fn take_no_names_of_others(
    project: &str,
    foreign: &BTreeSet<ObjectKey>,
    name: &ServiceName,
    service: &mut Service,
    verdict: &mut Verdict,
) {
    let own = format!("{name}.{project}");
    let mut joins = false;
    for (key, membership) in service.networks.iter_mut().filter(|(key, _)| foreign.contains(*key)) {
        joins = true;
        if membership.aliases.iter().any(|alias| *alias != own) {
            verdict.warnings.push(format!(
                "services.{name}.networks.{key}.aliases: not used on a network of others; its name there is {own}"
            ));
        }
        membership.aliases.clear();
    }
    // Newer engines answer for host names as for aliases.
    if joins && service.hostname.take().is_some() {
        verdict.warnings.push(format!("services.{name}.hostname: not used beside a network of others"));
    }
}

/// A container's name is the host's, and another tenant could want it: the container keeps its project's name, and the
/// tenant's own containers find it under the wanted one.
fn name_becomes_alias(
    project: &str,
    foreign: &BTreeSet<ObjectKey>,
    name: &ServiceName,
    service: &mut Service,
    verdict: &mut Verdict,
) {
    let Some(wanted) = service.container_name.take() else { return };
    let own = format!("{project}-{name}-1");
    if wanted == own {
        service.container_name = Some(wanted);
        return;
    }
    let mut used = false;
    for (_, membership) in service.networks.iter_mut().filter(|(key, _)| !foreign.contains(*key)) {
        used = true;
        if !membership.aliases.contains(&wanted) {
            membership.aliases.push(wanted.clone());
        }
    }
    let becomes = if used { "is an alias on the tenant's networks" } else { "is not used" };
    verdict.warnings.push(format!("services.{name}.container_name: {becomes}; the container's own name is {own}"));
}

fn drop_privileges(service: &mut Service) {
    let says = |capabilities: &[String], wanted: &str| {
        capabilities.iter().any(|capability| is_all(capability) || capability_name(capability) == wanted)
    };
    for dropped in DROPPED {
        if !says(&service.cap_drop, dropped) && !says(&service.cap_add, dropped) {
            service.cap_drop.push((*dropped).to_owned());
        }
    }
    if !service.security_opt.iter().any(|option| option.starts_with("no-new-privileges")) {
        service.security_opt.push("no-new-privileges:true".to_owned());
    }
    // Engines on control groups v1 share the host's without a word.
    service.cgroup.get_or_insert(NamespaceMode::Private);
}

fn limit(service: &mut Service, defaults: &Defaults) {
    let limits = service.limits();
    let signed = |amount: u64| i64::try_from(amount).ok();
    let resources = &mut service.resources;
    if positive(limits.memory).is_none() {
        resources.memory = signed(defaults.memory);
    }
    if positive(limits.pids).is_none() {
        resources.pids = signed(defaults.pids);
    }
    if positive(limits.shm_size).is_none() {
        let memory = positive(limits.memory).unwrap_or(defaults.memory);
        resources.shm_size = signed(defaults.shm_size.min(memory));
    }
    if let Some(deploy) = &mut service.deploy {
        // What `deploy` says goes before the service's own, and it may say 0.
        if let Some(own) = &mut deploy.resources.limits {
            own.memory = own.memory.filter(|&memory| memory > 0);
            own.pids = own.pids.filter(|&pids| pids > 0);
            own.nano_cpus = own.nano_cpus.filter(|&cpus| cpus > 0);
        }
    }
    if nano_cpus(service).is_none() {
        // The engine takes either of the two forms, and a period only with a quota.
        match positive(limits.cpu_period) {
            None => service.resources.nano_cpus = signed(defaults.nano_cpus),
            Some(period) => {
                let quota = u128::from(period) * u128::from(defaults.nano_cpus) / u128::from(crate::domain::NANO_CPUS);
                service.resources.cpu_quota = i64::try_from(quota).ok();
            }
        }
    }
    if !service.ulimits.contains_key("nofile") {
        let most = signed(defaults.nofile).unwrap_or(i64::MAX);
        service.ulimits.insert("nofile".to_owned(), Ulimit { soft: most, hard: most, is_single: true });
    }
}

/// Whatever the engine's own default is: files on the host, of a bounded size, and no line is dropped.
fn log_to_bounded_files(service: &mut Service, defaults: &Defaults) {
    let logging =
        service.logging.get_or_insert_with(|| Logging { driver: None, options: std::collections::BTreeMap::new() });
    logging.driver.get_or_insert_with(|| "json-file".to_owned());
    for (option, value) in [("max-size", defaults.log_size.to_string()), ("max-file", defaults.log_files.to_string())] {
        logging.options.entry(option.to_owned()).or_insert(value);
    }
}

//! What a group has no place for. Every part of the model is taken apart by name (no `..`), so that an attribute that the model
//! gains does not compile here until somebody has said what becomes of it.
//!
//! An attribute without which a service would not do what its author means is refused; one that is convenience or order has a
//! warning.

use super::{BackendError, unsupported};
use crate::backend::Deployment;
use crate::compose::{
    Deploy, Ipam, NamespaceMode, Network, NetworkMode, Project, PullPolicy, Resources, Service, ServiceNetwork, Volume,
};
use crate::domain::ServiceName;

/// Bytes of `/dev/shm` that a container has.
const SHM_SIZE: i64 = 64 << 20;

/// Judges what stands beside the services.
pub(super) fn project(project: &Project, warnings: &mut Vec<String>) -> Result<(), BackendError> {
    let Project {
        name: _,
        directory: _,
        services: _,
        disabled_services: _,
        networks,
        volumes,
        // Judged where they are mounted.
        configs: _,
        secrets: _,
        foreign,
        extensions: _,
    } = project;
    if let Some(attribute) = foreign.keys().next() {
        return Err(unsupported(attribute, "a group runs containers only"));
    }
    let mut custom = Vec::new();
    for (key, network) in networks {
        let field = format!("networks.{key}");
        let Network {
            name: _,
            external,
            driver,
            driver_opts,
            internal,
            attachable: _,
            enable_ipv4: _,
            enable_ipv6,
            labels: _,
            ipam,
        } = network;
        let no = [
            (*external, "external", "a group joins no network of others"),
            (driver.as_ref().is_some_and(|driver| driver != "bridge"), "driver", "a group has one network of its own"),
            (!driver_opts.is_empty(), "driver_opts", "a group has one network of its own"),
            (*enable_ipv6 == Some(true), "enable_ipv6", "a group has IPv4 addresses only"),
            (ipam.as_ref().is_some_and(|ipam| *ipam != Ipam::default()), "ipam", "Azure gives out the addresses"),
        ];
        refuse_first(&field, &no)?;
        if *internal {
            warnings.push(format!("{field}.internal: a group has a way out"));
        }
        if key.as_str() != "default" {
            custom.push(key.as_str());
        }
    }
    if !custom.is_empty() {
        warnings.push(format!("networks: all containers of a group share one network ({})", custom.join(", ")));
    }
    for (key, volume) in volumes {
        let field = format!("volumes.{key}");
        let Volume { name: _, external, driver, driver_opts, labels: _ } = volume;
        let foreign = driver.as_ref().is_some_and(|driver| driver != "local");
        let no = [
            (*external, "external", "a group mounts shares that were made for it"),
            (foreign, "driver", "a named volume is a share of Azure Files"),
        ];
        refuse_first(&field, &no)?;
        if let Some(option) = driver_opts.keys().find(|option| *option != "size") {
            return Err(unsupported(format!("{field}.driver_opts.{option}"), "a share has a size only"));
        }
    }
    Ok(())
}

/// Judges one service.
pub(super) fn service(
    wanted: &Deployment,
    name: &ServiceName,
    service: &Service,
    warnings: &mut Vec<String>,
) -> Result<(), BackendError> {
    let field = format!("services.{name}");
    let confined = wanted.project.is_confined();
    // `_` marks what other files of this folder read, what means something while a file is loaded only, or what docker
    // compose itself does not use.
    let Service {
        image: _,
        image_is_implied: _,
        build,
        foreign,
        profiles: _,
        attach: _,
        pull_policy,
        platform,
        container_name,
        scale,
        deploy,
        command: _,
        entrypoint: _,
        environment: _,
        labels,
        missing_label_files: _,
        annotations,
        user: _,
        group_add,
        working_dir,
        hostname,
        domainname: _,
        init,
        tty,
        stdin_open,
        read_only,
        stop_signal,
        stop_grace_period,
        restart: _,
        post_start,
        pre_stop,
        depends_on: _,
        absent_dependencies: _,
        healthcheck: _,
        ports: _,
        expose: _,
        network_mode,
        networks,
        mac_address,
        dns,
        dns_search,
        dns_opt,
        extra_hosts,
        links,
        external_links,
        mounts: _,
        tmpfs: _,
        volumes_from,
        configs: _,
        secrets: _,
        storage_opt,
        resources,
        blkio_config,
        ulimits,
        sysctls,
        logging,
        privileged,
        cap_add: _,
        cap_drop: _,
        security_opt: _,
        devices,
        device_cgroup_rules,
        gpus,
        cgroup_parent,
        runtime,
        isolation,
        pid,
        ipc,
        uts,
        userns_mode,
        cgroup,
        oom_score_adj,
        oom_kill_disable,
    } = service;

    if let Some(attribute) = foreign.keys().next() {
        return Err(unsupported(format!("{field}.{attribute}"), "a group runs containers of images only"));
    }
    if service.replicas() > 1 {
        let attribute = if scale.is_some() { "scale" } else { "deploy.replicas" };
        return Err(unsupported(format!("{field}.{attribute}"), "a group has one container for each service"));
    }
    let linux = |platform: &String| matches!(platform.as_str(), "" | "linux" | "linux/amd64" | "linux/x86_64");
    let has_hooks = |hooks: &[crate::compose::Hook]| !hooks.is_empty();
    // A confining policy has filled in one for the number of open files.
    let ulimit = ulimits.keys().find(|name| !confined || *name != "nofile");
    let no = [
        (build.is_some(), "build", "nothing is built: give an image of a registry"),
        (
            matches!(pull_policy, Some(PullPolicy::Never | PullPolicy::Build)),
            "pull_policy",
            "Azure pulls every image from its registry",
        ),
        (!platform.as_ref().is_none_or(linux), "platform", "containers run on linux/amd64"),
        (!group_add.is_empty(), "group_add", "a container has no further groups"),
        (
            working_dir.is_some(),
            "working_dir",
            "a container begins in its image's directory; change it in the entrypoint",
        ),
        (hostname.is_some(), "hostname", "Azure gives the host name"),
        (*read_only, "read_only", "a container's own file system can be written"),
        (has_hooks(post_start), "post_start", "a group has no hooks"),
        (has_hooks(pre_stop), "pre_stop", "a group has no hooks"),
        (mac_address.is_some(), "mac_address", "Azure gives the addresses"),
        (!dns.is_empty(), "dns", "a group outside a virtual network has Azure's name servers"),
        (!dns_search.is_empty(), "dns_search", "a group outside a virtual network has Azure's name servers"),
        (!dns_opt.is_empty(), "dns_opt", "a group outside a virtual network has Azure's name servers"),
        (!extra_hosts.is_empty(), "extra_hosts", "names cannot be added in a group"),
        (!links.is_empty(), "links", "names of services do not resolve in a group; they are reached on localhost"),
        (!external_links.is_empty(), "external_links", "a group has no way to containers of others"),
        (!storage_opt.is_empty(), "storage_opt", "a container's own file system has no options"),
        (!sysctls.is_empty(), "sysctls", "kernel settings are Azure's"),
        (*privileged, "privileged", "a container has no more than the usual privileges"),
        (!devices.is_empty(), "devices", "a group has no devices"),
        (!device_cgroup_rules.is_empty(), "device_cgroup_rules", "a group has no devices"),
        (!gpus.is_empty(), "gpus", "groups with GPUs are not supported"),
        (cgroup_parent.is_some(), "cgroup_parent", "Azure limits the containers"),
        (runtime.is_some(), "runtime", "Azure chooses the runtime"),
        (
            isolation.as_ref().is_some_and(|kind| !matches!(kind.as_str(), "" | "default")),
            "isolation",
            "Azure isolates",
        ),
        (*oom_kill_disable, "oom_kill_disable", "a container that has no memory left is ended"),
    ];
    refuse_first(&field, &no)?;
    if let Some(limit) = ulimit {
        return Err(unsupported(format!("{field}.ulimits.{limit}"), "limits of processes are Azure's"));
    }
    if !volumes_from.is_empty() {
        return Err(unsupported(format!("{field}.volumes_from[0]"), "name the volumes in each service"));
    }
    namespaces(&field, [("pid", pid), ("ipc", ipc), ("uts", uts), ("userns_mode", userns_mode), ("cgroup", cgroup)])?;
    network(&field, network_mode.as_ref())?;
    for (key, membership) in networks {
        self::membership(&format!("{field}.networks.{key}"), membership, warnings)?;
    }
    if let Some(deploy) = deploy {
        self::deploy(&field, deploy, warnings)?;
    }
    self::resources(&field, confined, resources, &service.limits(), warnings)?;

    let lost = [
        (container_name.is_some(), "container_name", "a container is named after its service"),
        (!labels.is_empty(), "labels", "containers of a group have no labels"),
        (!annotations.is_empty(), "annotations", "containers of a group have no annotations"),
        (*init == Some(true), "init", "no init process is added"),
        (*tty || *stdin_open, "tty", "a container has neither a terminal nor an input"),
        (stop_signal.is_some(), "stop_signal", "Azure chooses the signal"),
        (stop_grace_period.is_some(), "stop_grace_period", "Azure chooses how long a container may take to end"),
        (blkio_config.is_some(), "blkio_config", "a container has no limits of its disk"),
        (oom_score_adj.is_some(), "oom_score_adj", "a container has no preference when memory runs out"),
        // A confining policy has filled it in.
        (logging.is_some() && !confined, "logging", "Azure keeps the last lines of each container's output"),
    ];
    for (is_lost, attribute, instead) in lost {
        if is_lost {
            warnings.push(format!("{field}.{attribute}: has no effect; {instead}"));
        }
    }
    Ok(())
}

/// Refuses the first that is there.
fn refuse_first(field: &str, no: &[(bool, &str, &str)]) -> Result<(), BackendError> {
    match no.iter().find(|(is_there, _, _)| *is_there) {
        Some((_, attribute, reason)) => Err(unsupported(format!("{field}.{attribute}"), *reason)),
        None => Ok(()),
    }
}

fn namespaces(field: &str, modes: [(&str, &Option<NamespaceMode>); 5]) -> Result<(), BackendError> {
    for (attribute, mode) in modes {
        match mode {
            None | Some(NamespaceMode::Private | NamespaceMode::Shareable) => {}
            Some(_) => {
                return Err(unsupported(
                    format!("{field}.{attribute}"),
                    "a container has namespaces of its own, but for the network",
                ));
            }
        }
    }
    Ok(())
}

fn network(field: &str, mode: Option<&NetworkMode>) -> Result<(), BackendError> {
    match mode {
        // All containers of a group share their network, which is what `service:` asks for.
        None | Some(NetworkMode::Service(_)) => Ok(()),
        Some(NetworkMode::Named(name)) if name == "default" => Ok(()),
        Some(_) => Err(unsupported(format!("{field}.network_mode"), "the containers of a group share one network")),
    }
}

fn membership(field: &str, membership: &ServiceNetwork, warnings: &mut Vec<String>) -> Result<(), BackendError> {
    let ServiceNetwork {
        aliases,
        ipv4_address,
        ipv6_address,
        link_local_ips,
        mac_address,
        driver_opts,
        priority: _,
        gw_priority: _,
        interface_name,
        is_mapping: _,
    } = membership;
    let no = [
        (ipv4_address.is_some(), "ipv4_address", "Azure gives the addresses"),
        (ipv6_address.is_some(), "ipv6_address", "Azure gives the addresses"),
        (!link_local_ips.is_empty(), "link_local_ips", "Azure gives the addresses"),
        (mac_address.is_some(), "mac_address", "Azure gives the addresses"),
        (!driver_opts.is_empty(), "driver_opts", "a group has one network of its own"),
        (interface_name.is_some(), "interface_name", "a group has one network of its own"),
    ];
    refuse_first(field, &no)?;
    if !aliases.is_empty() {
        warnings.push(format!("{field}.aliases: names of services do not resolve in a group"));
    }
    Ok(())
}

fn deploy(field: &str, deploy: &Deploy, warnings: &mut Vec<String>) -> Result<(), BackendError> {
    let Deploy {
        mode,
        replicas: _,
        // A swarm's business.
        labels: _,
        update_config,
        rollback_config: _,
        resources,
        restart_policy: _,
        placement: _,
        endpoint_mode: _,
    } = deploy;
    let is_job = mode.as_deref().is_some_and(|mode| !matches!(mode, "" | "replicated" | "global"));
    let no = [
        (is_job, "deploy.mode", "a group runs its containers together; a job is a service that others await"),
        (
            !resources.reservations.devices.is_empty(),
            "deploy.resources.reservations.devices",
            "groups with GPUs are not supported",
        ),
    ];
    refuse_first(field, &no)?;
    if update_config.is_some() {
        warnings.push(format!("{field}.deploy.update_config: has no effect; a group changes as a whole"));
    }
    Ok(())
}

/// `own` is what the service itself says, `limits` what holds.
fn resources(
    field: &str,
    confined: bool,
    own: &Resources,
    limits: &Resources,
    warnings: &mut Vec<String>,
) -> Result<(), BackendError> {
    let Resources {
        nano_cpus: _,
        cpu_shares,
        cpu_quota: _,
        cpu_period: _,
        cpu_rt_period,
        cpu_rt_runtime,
        cpu_count,
        cpu_percent,
        cpuset,
        memory: _,
        memory_reservation: _,
        memory_swap,
        memory_swappiness,
        pids: _,
        shm_size,
    } = own;
    let no = [
        (shm_size.is_some_and(|size| size > SHM_SIZE), "shm_size", "a container has 64 MiB of /dev/shm; use a tmpfs"),
        (cpu_rt_period.is_some() || cpu_rt_runtime.is_some(), "cpu_rt_runtime", "there is no real-time scheduling"),
        (cpu_count.is_some() || cpu_percent.is_some(), "cpu_count", "for Windows only"),
    ];
    refuse_first(field, &no)?;
    let lost = [
        (cpu_shares.is_some(), "cpu_shares"),
        (cpuset.is_some(), "cpuset"),
        (memory_swap.is_some(), "memswap_limit"),
        (memory_swappiness.is_some(), "mem_swappiness"),
        // A confining policy has filled it in, against those who share a host.
        (limits.pids.is_some_and(|pids| pids > 0) && !confined, "pids_limit"),
    ];
    for (_, attribute) in lost.into_iter().filter(|(is_lost, _)| *is_lost) {
        warnings.push(format!("{field}.{attribute}: has no effect; a container has CPUs and memory alone"));
    }
    Ok(())
}

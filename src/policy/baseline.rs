//! The rules for stacks that strangers wrote. Sources: Pod Security Standards (baseline), CIS Docker Benchmark 5.x, and
//! escapes that were tried on a real engine.

use super::verdict::Verdict;
use super::{Ground, binds, labels, network, objects, privileges};
use crate::compose::{
    BlkioConfig, Deploy, Hook, MountSource, Project, PullPolicy, Resources, Service, VolumesFromSource,
};
use crate::domain::ServiceName;

pub(super) fn judge(project: &Project, ground: &Ground<'_>, verdict: &mut Verdict) {
    let Project {
        name: _,
        directory: _,
        services,
        disabled_services: _,
        networks: _,
        volumes: _,
        configs: _,
        secrets: _,
        foreign,
        extensions: _,
    } = project;
    for attribute in foreign.keys() {
        verdict.refuse(attribute, "foreign", NOT_HERE);
    }
    for (name, service) in services {
        judge_service(project, ground, name, service, verdict);
    }
    binds::judge_nesting(project, verdict);
    objects::judge_baseline(project, verdict);
    objects::judge_contents(project, ground, verdict);
}

/// Fills in what the author left open. The project has been accepted.
pub(super) fn confine(project: &mut Project, ground: &Ground<'_>, verdict: &mut Verdict) {
    let mut read_only = Vec::new();
    for (name, service) in &project.services {
        for (at, mount) in service.mounts.iter().enumerate() {
            if binds::becomes_read_only(project, ground, mount) {
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
    for port in project.services.values_mut().flat_map(|service| &mut service.ports) {
        port.host_ip.get_or_insert(ground.publish_host);
        port.published = port.host_ports().or(Some(ground.publish_ports));
    }
}

const BUILD: &str = "an image from a registry: nothing is built on this host";
const NOT_HERE: &str = "none: a host of tenants does not run it";

fn judge_service(project: &Project, ground: &Ground<'_>, name: &ServiceName, service: &Service, verdict: &mut Verdict) {
    // `_` marks what may be anything: it stays inside the container, or the loader has checked its form.
    let Service {
        image: _,
        image_is_implied: _,
        build,
        foreign,
        profiles: _,
        attach: _,
        pull_policy,
        platform: _,
        container_name,
        scale: _,
        deploy,
        command: _,
        entrypoint: _,
        environment: _,
        labels,
        missing_label_files: _,
        annotations,
        user: _,
        group_add,
        working_dir: _,
        hostname: _,
        domainname: _,
        init: _,
        tty: _,
        stdin_open: _,
        read_only: _,
        stop_signal: _,
        stop_grace_period: _,
        restart: _,
        post_start,
        pre_stop,
        depends_on: _,
        absent_dependencies: _,
        healthcheck: _,
        ports,
        expose: _,
        network_mode,
        networks,
        mac_address,
        dns: _,
        dns_search: _,
        dns_opt: _,
        extra_hosts,
        links: _,
        external_links,
        mounts,
        tmpfs: _,
        volumes_from,
        configs: _,
        secrets: _,
        storage_opt,
        resources,
        blkio_config,
        ulimits: _,
        sysctls,
        logging,
        privileged,
        cap_add,
        cap_drop: _,
        security_opt,
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
    // Limits themselves are quota, not reach: any value confines at most as much as none.
    let Resources {
        nano_cpus: _,
        cpu_shares: _,
        cpu_quota: _,
        cpu_period: _,
        cpu_rt_period,
        cpu_rt_runtime,
        cpu_count: _,
        cpu_percent: _,
        cpuset: _,
        memory: _,
        memory_reservation: _,
        memory_swap: _,
        memory_swappiness: _,
        pids: _,
        shm_size: _,
    } = resources;
    let field = format!("services.{name}");
    let at = |attribute: &str| format!("{field}.{attribute}");

    verdict.refuse_if(build.is_some(), at("build"), "build", BUILD);
    verdict.refuse_if(*pull_policy == Some(PullPolicy::Build), at("pull_policy"), "build", BUILD);
    for attribute in foreign.keys() {
        verdict.refuse(at(attribute), "foreign", NOT_HERE);
    }
    for (attribute, hooks) in [("post_start", post_start), ("pre_stop", pre_stop)] {
        for (index, hook) in hooks.iter().enumerate() {
            let Hook { command: _, user: _, privileged, working_dir: _, environment: _ } = hook;
            verdict.refuse_if(*privileged, at(&format!("{attribute}[{index}].privileged")), "privileged", "false");
        }
    }
    let own_name = container_name.as_ref().is_some_and(|wanted| *wanted != format!("{}-{name}-1", project.name));
    verdict.refuse_if(
        own_name,
        at("container_name"),
        "container-name",
        "no name: the agent names it {project}-{service}-{n}",
    );
    labels::judge(&field, labels, labels::RESERVED, verdict);
    for annotation in annotations.keys() {
        verdict.refuse(
            at(&format!("annotations.{annotation}")),
            "annotations",
            "none: they reach the container runtime",
        );
    }
    refuse_all(group_add, &at("group_add"), "group-add", "none: a group may own something on the host", verdict);

    verdict.refuse_if(*privileged, at("privileged"), "privileged", "false");
    privileges::judge_capabilities(&field, cap_add, verdict);
    privileges::judge_security_options(&field, security_opt, verdict);
    refuse_all(devices, &at("devices"), "device", "none", verdict);
    refuse_all(device_cgroup_rules, &at("device_cgroup_rules"), "device", "none", verdict);
    verdict.refuse_if(!gpus.is_empty(), at("gpus"), "device", "none");
    if let Some(deploy) = deploy {
        // What is not a device is limits and order, or matters to a swarm only.
        let Deploy {
            mode: _,
            replicas: _,
            labels: _,
            update_config: _,
            rollback_config: _,
            resources,
            restart_policy: _,
            placement: _,
            endpoint_mode: _,
        } = deploy;
        let devices = at("deploy.resources.reservations.devices");
        verdict.refuse_if(!resources.reservations.devices.is_empty(), devices, "device", "none");
    }
    if let Some(blkio) = blkio_config {
        let BlkioConfig {
            weight: _,
            weight_device,
            device_read_bps,
            device_write_bps,
            device_read_iops,
            device_write_iops,
        } = blkio;
        let rates = [device_read_bps, device_write_bps, device_read_iops, device_write_iops];
        let names_devices = !weight_device.is_empty() || rates.iter().any(|rates| !rates.is_empty());
        verdict.refuse_if(names_devices, at("blkio_config"), "device", "weight alone: devices are the host's");
    }
    let realtime = cpu_rt_period.is_some() || cpu_rt_runtime.is_some();
    verdict.refuse_if(realtime, at("cpu_rt_runtime"), "realtime", "none: real-time tasks can starve the host");
    verdict.refuse_if(!storage_opt.is_empty(), at("storage_opt"), "storage-opt", "none");
    verdict.refuse_if(isolation.is_some(), at("isolation"), "isolation", "none");
    refuse_all(external_links, &at("external_links"), "external-links", "none: use networks", verdict);
    for (index, from) in volumes_from.iter().enumerate() {
        let foreign = matches!(from.source, VolumesFromSource::Container(_));
        verdict.refuse_if(foreign, at(&format!("volumes_from[{index}]")), "volumes-from", "a service of this project");
    }
    verdict.refuse_if(cgroup_parent.is_some(), at("cgroup_parent"), "cgroup-parent", "none: it would leave its limits");
    verdict.refuse_if(runtime.is_some(), at("runtime"), "runtime", "none: the host's default runtime is used");
    let namespaces = [("pid", pid), ("ipc", ipc), ("uts", uts), ("userns_mode", userns_mode), ("cgroup", cgroup)];
    for (attribute, mode) in namespaces {
        privileges::judge_namespace(project, at(attribute), mode.as_ref(), verdict);
    }
    verdict.refuse_if(oom_score_adj.is_some_and(|score| score < 0), at("oom_score_adj"), "oom-score", "0 to 1000");
    verdict.refuse_if(*oom_kill_disable, at("oom_kill_disable"), "oom-kill-disable", "false");
    privileges::judge_sysctls(&field, sysctls, verdict);
    privileges::judge_logging(&field, logging.as_ref(), verdict);

    network::judge_mode(project, &field, network_mode.as_ref(), verdict);
    network::judge_memberships(&field, networks, verdict);
    network::judge_ports(ground, &field, ports, verdict);
    network::judge_extra_hosts(&field, extra_hosts, verdict);
    verdict.refuse_if(mac_address.is_some(), at("mac_address"), "mac-address", "none: the engine gives it");
    for (index, mount) in mounts.iter().enumerate() {
        let field = at(&format!("volumes[{index}]"));
        match &mount.source {
            MountSource::Bind { .. } => binds::judge_baseline(project, ground, &field, mount, verdict),
            MountSource::Volume { key: _, nocopy: _, subpath: _, labels, propagation: _, selinux: _ }
            | MountSource::Anonymous { nocopy: _, labels } => {
                labels::judge(&field, labels, labels::RESERVED, verdict);
            }
            MountSource::Tmpfs { size: _, mode: _ } => {}
            MountSource::Image { source: _, subpath: _ } | MountSource::Foreign { .. } => {
                verdict.refuse(field, "mount-type", "volume, bind or tmpfs");
            }
        }
    }
}

/// Refuses every entry of a list that must be empty.
fn refuse_all(entries: &[String], field: &str, rule: &'static str, allowed: &str, verdict: &mut Verdict) {
    for index in 0..entries.len() {
        verdict.refuse(format!("{field}[{index}]"), rule, allowed);
    }
}

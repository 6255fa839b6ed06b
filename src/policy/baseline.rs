//! The rules for stacks that strangers wrote. Sources: Pod Security Standards (baseline), CIS Docker Benchmark 5.x, and
//! escapes that were tried on a real engine.

use super::verdict::Verdict;
use super::{Ground, TenantRules, binds, images, inside, labels, network, objects, privileges, usage};
use crate::compose::{BlkioConfig, Deploy, Hook, MountSource, Project, PullPolicy, Service, VolumesFromSource};
use crate::domain::{ServiceName, is_native};

pub(super) fn judge(rules: &TenantRules, project: &Project, ground: &Ground<'_>, verdict: &mut Verdict) {
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
        judge_service(rules, project, ground, name, service, verdict);
    }
    binds::judge_nesting(project, verdict);
    objects::judge_baseline(&rules.grants, project, verdict);
    objects::judge_contents(project, ground, verdict);
    usage::judge_references(project, verdict);
}

const BUILD: &str = "an image from a registry: nothing is built on this host";
const NOT_HERE: &str = "none: a host of tenants does not run it";

fn judge_service(
    rules: &TenantRules,
    project: &Project,
    ground: &Ground<'_>,
    name: &ServiceName,
    service: &Service,
    verdict: &mut Verdict,
) {
    let grants = &rules.grants;
    // `_` marks what may be anything: it stays inside the container, or the loader has checked its form.
    let Service {
        image,
        image_is_implied: _,
        build,
        foreign,
        profiles: _,
        attach: _,
        pull_policy,
        platform,
        // Becomes an alias.
        container_name: _,
        scale: _,
        deploy,
        command: _,
        entrypoint: _,
        environment,
        labels,
        missing_label_files: _,
        annotations,
        user: _,
        group_add,
        // Judged with the mounts' targets.
        working_dir: _,
        hostname,
        domainname,
        init: _,
        tty: _,
        stdin_open: _,
        read_only: _,
        stop_signal,
        stop_grace_period,
        restart: _,
        post_start,
        pre_stop,
        depends_on: _,
        absent_dependencies: _,
        healthcheck,
        ports,
        expose,
        network_mode,
        networks,
        mac_address,
        dns,
        dns_search,
        dns_opt,
        extra_hosts,
        links: _,
        external_links,
        mounts,
        tmpfs,
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
    let field = format!("services.{name}");
    let at = |attribute: &str| format!("{field}.{attribute}");

    verdict.refuse_if(build.is_some(), at("build"), "build", BUILD);
    verdict.refuse_if(*pull_policy == Some(PullPolicy::Build), at("pull_policy"), "build", BUILD);
    // Foreign programs run in an emulator, if there is one: the host's, with rights that it got for that.
    verdict.refuse_if(
        platform.as_ref().is_some_and(|platform| !is_native(platform, ground.platform)),
        at("platform"),
        "platform",
        ground.platform,
    );
    for attribute in foreign.keys() {
        verdict.refuse(at(attribute), "foreign", NOT_HERE);
    }
    for (attribute, hooks) in [("post_start", post_start), ("pre_stop", pre_stop)] {
        for (index, hook) in hooks.iter().enumerate() {
            let Hook { command: _, user: _, privileged, working_dir: _, environment: _ } = hook;
            verdict.refuse_if(*privileged, at(&format!("{attribute}[{index}].privileged")), "privileged", "false");
        }
    }
    labels::judge_reserved(&field, labels, grants, verdict);
    for annotation in annotations.keys() {
        verdict.refuse(
            at(&format!("annotations.{annotation}")),
            "annotations",
            "none: they reach the container runtime",
        );
    }
    refuse_all(group_add, &at("group_add"), "group-add", "none: a group may own something on the host", verdict);

    verdict.refuse_if(*privileged, at("privileged"), "privileged", "false");
    privileges::judge_capabilities(&field, cap_add, grants, verdict);
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
            weight,
            weight_device,
            device_read_bps,
            device_write_bps,
            device_read_iops,
            device_write_iops,
        } = blkio;
        let rates = [device_read_bps, device_write_bps, device_read_iops, device_write_iops];
        let names_devices = !weight_device.is_empty() || rates.iter().any(|rates| !rates.is_empty());
        verdict.refuse_if(
            weight.is_some_and(|weight| weight > 500),
            at("blkio_config.weight"),
            "blkio-weight",
            "at most 500, which is everybody's weight",
        );
        verdict.refuse_if(names_devices, at("blkio_config"), "device", "weight alone: devices are the host's");
    }
    usage::judge_resources(&field, service, resources, &rules.defaults, verdict);
    inside::judge(&field, service, verdict);
    usage::judge_exposed(&field, expose, verdict);
    usage::judge_labels(&field, labels, verdict);
    usage::judge_ulimits(&field, ulimits, verdict);
    usage::judge_tmpfs(&field, tmpfs, verdict);
    usage::judge_environment(&field, environment, verdict);
    usage::judge_healthcheck(&field, healthcheck.as_ref(), verdict);
    usage::judge_stop(&field, stop_signal.as_deref(), *stop_grace_period, verdict);
    images::judge(&field, image, rules.registries.as_ref(), verdict);
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
    privileges::judge_sysctls(&field, sysctls, grants, verdict);
    privileges::judge_logging(&field, logging.as_ref(), &rules.defaults, verdict);

    network::judge_mode(project, &field, network_mode.as_ref(), verdict);
    network::judge_memberships(&field, networks, verdict);
    network::judge_ports(ground, grants, &field, ports, verdict);
    network::judge_extra_hosts(&field, extra_hosts, verdict);
    network::judge_dns(&field, dns, verdict);
    network::judge_resolver(&field, dns_search, dns_opt, verdict);
    for (attribute, host) in [("hostname", hostname), ("domainname", domainname)] {
        network::judge_hostname(at(attribute), host.as_deref(), verdict);
    }
    verdict.refuse_if(mac_address.is_some(), at("mac_address"), "mac-address", "none: the engine gives it");
    for (index, mount) in mounts.iter().enumerate() {
        let field = at(&format!("volumes[{index}]"));
        match &mount.source {
            MountSource::Bind { .. } => binds::judge_baseline(grants, project, ground, &field, mount, verdict),
            MountSource::Volume { key: _, nocopy: _, subpath, labels, propagation: _, selinux: _ } => {
                let leaves = |path: &String| path.starts_with('/') || path.split('/').any(|part| part == "..");
                verdict.refuse_if(
                    subpath.as_ref().is_some_and(leaves),
                    field.as_str(),
                    "volume-subpath",
                    "a path inside the volume, without ..",
                );
                labels::judge_reserved(&field, labels, grants, verdict);
            }
            MountSource::Anonymous { nocopy: _, labels } => {
                labels::judge_reserved(&field, labels, grants, verdict);
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

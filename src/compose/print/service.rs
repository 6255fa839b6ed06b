//! One service, attribute by attribute: an attribute that the model gains does not compile here until it is printed.

use serde_json::{Value, json};

use super::{Members, bytes, duration, hosts, keyed, nano, texts, ulimits};
use crate::compose::model::{
    BlkioConfig, Deploy, DeviceRequest, FileReference, Healthcheck, Hook, Mount, MountSource, NamespaceMode,
    NetworkMode, PortMapping, PullPolicy, Resources, RestartPolicy, Service, ServiceNetwork, UpdateConfig,
    VolumesFromSource,
};

pub(super) fn print(service: &Service) -> Value {
    let Service {
        image,
        image_is_implied,
        build,
        foreign,
        profiles,
        attach,
        pull_policy,
        platform,
        container_name,
        scale,
        deploy,
        command,
        entrypoint,
        environment,
        labels,
        missing_label_files,
        annotations,
        user,
        group_add,
        working_dir,
        hostname,
        domainname,
        init,
        tty,
        stdin_open,
        read_only,
        stop_signal,
        stop_grace_period,
        restart,
        post_start,
        pre_stop,
        depends_on,
        absent_dependencies,
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
        links,
        external_links,
        mounts,
        tmpfs,
        volumes_from,
        configs,
        secrets,
        storage_opt,
        resources,
        blkio_config,
        ulimits: limits,
        sysctls,
        logging,
        privileged,
        cap_add,
        cap_drop,
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
    let mut m = Members::new();
    if !image_is_implied {
        m.set("image", image.as_str());
    }
    m.set_given("build", build.clone());
    for (key, value) in foreign {
        m.set(key, value.clone());
    }
    m.set_some("profiles", profiles.clone());
    m.set_given("attach", *attach);
    m.set_given("pull_policy", pull_policy.as_ref().map(self::pull_policy));
    m.set_given("platform", platform.clone());
    m.set_given("container_name", container_name.clone());
    m.set_given("scale", *scale);
    m.set_given("deploy", deploy.as_ref().map(|deploy| self::deploy(deploy, *scale)));
    m.set("command", command.clone());
    m.set("entrypoint", entrypoint.clone());
    m.set_some("environment", keyed(environment, |value| value.clone().into()));
    m.set_some("labels", texts(labels));
    m.set_some("label_file", missing_label_files.clone());
    m.set_some("annotations", texts(annotations));
    m.set_given("user", user.clone());
    m.set_some("group_add", group_add.clone());
    m.set_given("working_dir", working_dir.clone());
    m.set_given("hostname", hostname.clone());
    m.set_given("domainname", domainname.clone());
    m.set_given("init", *init);
    m.set_some("tty", *tty);
    m.set_some("stdin_open", *stdin_open);
    m.set_some("read_only", *read_only);
    m.set_given("stop_signal", stop_signal.clone());
    m.set_given("stop_grace_period", stop_grace_period.map(duration));
    m.set_given("restart", restart.map(self::restart));
    m.set_some("post_start", post_start.iter().map(hook).collect::<Vec<_>>());
    m.set_some("pre_stop", pre_stop.iter().map(hook).collect::<Vec<_>>());
    let dependencies = depends_on.iter().chain(absent_dependencies).map(|(name, dependency)| {
        let mut members = Members::new();
        members.set("condition", dependency.condition.as_str());
        members.set_some("restart", dependency.restart);
        members.set("required", dependency.required);
        (name.to_string(), members.into())
    });
    m.set_some("depends_on", Value::Object(dependencies.collect()));
    m.set_given("healthcheck", healthcheck.as_ref().map(self::healthcheck));
    m.set_some("ports", ports.iter().map(port).collect::<Vec<_>>());
    m.set_some("expose", expose.iter().map(|exposed| exposed.text.clone()).collect::<Vec<_>>());
    m.set_given("network_mode", network_mode.as_ref().map(self::network_mode));
    m.set_some("networks", keyed(networks, membership));
    m.set_given("mac_address", mac_address.clone());
    m.set_some("dns", dns.clone());
    m.set_some("dns_search", dns_search.clone());
    m.set_some("dns_opt", dns_opt.clone());
    m.set_some("extra_hosts", hosts(extra_hosts));
    let links = links.iter().map(|link| match &link.alias {
        None => link.service.to_string(),
        Some(alias) => format!("{}:{alias}", link.service),
    });
    m.set_some("links", links.collect::<Vec<_>>());
    m.set_some("external_links", external_links.clone());
    m.set_some("volumes", mounts.iter().map(mount).collect::<Vec<_>>());
    let tmpfs = tmpfs.iter().map(|mount| match mount.options.as_str() {
        "" => mount.path.clone(),
        options => format!("{}:{options}", mount.path),
    });
    m.set_some("tmpfs", tmpfs.collect::<Vec<_>>());
    let from = volumes_from.iter().map(|from| {
        let source = match &from.source {
            VolumesFromSource::Service(name) => name.to_string(),
            VolumesFromSource::Container(name) => format!("container:{name}"),
        };
        from.mode.as_ref().map_or(source.clone(), |mode| format!("{source}:{mode}"))
    });
    m.set_some("volumes_from", from.collect::<Vec<_>>());
    m.set_some("configs", configs.iter().map(|config| file(config, false)).collect::<Vec<_>>());
    m.set_some("secrets", secrets.iter().map(|secret| file(secret, true)).collect::<Vec<_>>());
    m.set_some("storage_opt", texts(storage_opt));
    set_resources(&mut m, resources);
    m.set_given("blkio_config", blkio_config.as_ref().map(blkio));
    m.set_some("ulimits", ulimits(limits));
    m.set_some("sysctls", texts(sysctls));
    if let Some(logging) = logging {
        let mut members = Members::new();
        members.set_given("driver", logging.driver.clone());
        members.set_some("options", texts(&logging.options));
        m.set("logging", members);
    }
    m.set_some("privileged", *privileged);
    m.set_some("cap_add", cap_add.clone());
    m.set_some("cap_drop", cap_drop.clone());
    m.set_some("security_opt", security_opt.clone());
    m.set_some("devices", devices.iter().map(|text| device(text)).collect::<Vec<_>>());
    m.set_some("device_cgroup_rules", device_cgroup_rules.clone());
    m.set_some("gpus", gpus.iter().map(device_request).collect::<Vec<_>>());
    m.set_given("cgroup_parent", cgroup_parent.clone());
    m.set_given("runtime", runtime.clone());
    m.set_given("isolation", isolation.clone());
    for (key, mode) in [("pid", pid), ("ipc", ipc), ("uts", uts), ("userns_mode", userns_mode), ("cgroup", cgroup)] {
        m.set_given(key, mode.as_ref().map(namespace));
    }
    m.set_some("oom_score_adj", *oom_score_adj);
    m.set_some("oom_kill_disable", *oom_kill_disable);
    m.into()
}

fn set_resources(m: &mut Members, resources: &Resources) {
    let Resources {
        nano_cpus,
        cpu_shares,
        cpu_quota,
        cpu_period,
        cpu_rt_period,
        cpu_rt_runtime,
        cpu_count,
        cpu_percent,
        cpuset,
        memory,
        memory_reservation,
        memory_swap,
        memory_swappiness,
        pids,
        shm_size,
    } = resources;
    m.set_given("cpus", nano(*nano_cpus));
    m.set_some("cpu_shares", *cpu_shares);
    m.set_some("cpu_quota", *cpu_quota);
    m.set_some("cpu_period", *cpu_period);
    m.set_some("cpu_rt_period", *cpu_rt_period);
    m.set_some("cpu_rt_runtime", *cpu_rt_runtime);
    m.set_some("cpu_count", *cpu_count);
    m.set_given("cpu_percent", nano(cpu_percent.map(|hundredths| hundredths * 10_000_000)));
    m.set_given("cpuset", cpuset.clone());
    m.set_given("mem_limit", bytes(*memory));
    m.set_given("mem_reservation", bytes(*memory_reservation));
    m.set_given("memswap_limit", bytes(*memory_swap));
    m.set_given("mem_swappiness", bytes(memory_swappiness.filter(|&value| value != 0)));
    m.set_some("pids_limit", *pids);
    m.set_given("shm_size", bytes(*shm_size));
}

fn pull_policy(policy: &PullPolicy) -> &str {
    match policy {
        PullPolicy::Always => "always",
        PullPolicy::Never => "never",
        PullPolicy::Missing => "missing",
        PullPolicy::Build => "build",
        PullPolicy::Refresh { word, .. } => word,
    }
}

fn restart(policy: RestartPolicy) -> String {
    match policy {
        RestartPolicy::No => "no".to_owned(),
        RestartPolicy::Always => "always".to_owned(),
        RestartPolicy::UnlessStopped => "unless-stopped".to_owned(),
        RestartPolicy::OnFailure(None) => "on-failure".to_owned(),
        RestartPolicy::OnFailure(Some(attempts)) => format!("on-failure:{attempts}"),
    }
}

fn deploy(deploy: &Deploy, scale: Option<u32>) -> Value {
    let mut m = Members::new();
    m.set_given("mode", deploy.mode.clone());
    m.set_given("replicas", deploy.replicas.or(scale));
    m.set_some("labels", texts(&deploy.labels));
    m.set_given("update_config", deploy.update_config.as_ref().map(update_config));
    m.set_given("rollback_config", deploy.rollback_config.as_ref().map(update_config));
    let mut resources = Members::new();
    if let Some(limits) = &deploy.resources.limits {
        let mut members = Members::new();
        members.set_given("cpus", nano(limits.nano_cpus));
        members.set_given("memory", bytes(limits.memory));
        members.set_given("pids", limits.pids);
        resources.set("limits", members);
    }
    let reserved = &deploy.resources.reservations;
    if reserved.is_given {
        let mut members = Members::new();
        members.set_given("cpus", nano(reserved.nano_cpus));
        members.set_given("memory", bytes(reserved.memory));
        members.set_some("devices", reserved.devices.iter().map(device_request).collect::<Vec<_>>());
        members.set_some("generic_resources", reserved.generic_resources.clone());
        resources.set("reservations", members);
    }
    m.set("resources", resources);
    if let Some(policy) = &deploy.restart_policy {
        let mut members = Members::new();
        members.set_given("condition", policy.condition.clone());
        members.set_given("delay", policy.delay.map(duration));
        members.set_given("max_attempts", policy.max_attempts);
        members.set_given("window", policy.window.map(duration));
        m.set("restart_policy", members);
    }
    m.set("placement", keyed(&deploy.placement, Clone::clone));
    m.set_given("endpoint_mode", deploy.endpoint_mode.clone());
    m.into()
}

fn update_config(config: &UpdateConfig) -> Value {
    let mut m = Members::new();
    m.set_given("parallelism", config.parallelism);
    m.set_given("delay", config.delay.filter(|delay| !delay.is_zero()).map(duration));
    m.set_given("failure_action", config.failure_action.map(|action| json!(action)));
    m.set_given("monitor", config.monitor.filter(|monitor| !monitor.is_zero()).map(duration));
    m.set_given("max_failure_ratio", config.max_failure_ratio.clone());
    m.set_given("order", config.order.map(|order| json!(order)));
    m.into()
}

fn device_request(request: &DeviceRequest) -> Value {
    let mut m = Members::new();
    m.set_some("capabilities", request.capabilities.clone());
    m.set_given("driver", request.driver.clone());
    m.set_given("count", request.count);
    m.set_some("device_ids", request.device_ids.clone());
    m.set_some("options", texts(&request.options));
    m.into()
}

fn healthcheck(check: &Healthcheck) -> Value {
    let mut m = Members::new();
    m.set_given("test", check.test.clone());
    m.set_given("timeout", check.timeout.map(duration));
    m.set_given("interval", check.interval.map(duration));
    m.set_given("retries", check.retries);
    m.set_given("start_period", check.start_period.map(duration));
    m.set_given("start_interval", check.start_interval.map(duration));
    m.set_some("disable", check.disable);
    m.into()
}

fn hook(hook: &Hook) -> Value {
    let mut m = Members::new();
    m.set("command", hook.command.clone());
    m.set_given("user", hook.user.clone());
    m.set_some("privileged", hook.privileged);
    m.set_given("working_dir", hook.working_dir.clone());
    m.set_some("environment", keyed(&hook.environment, |value| value.clone().into()));
    m.into()
}

fn port(port: &PortMapping) -> Value {
    let published =
        port.published.map(|(low, high)| if low == high { low.to_string() } else { format!("{low}-{high}") });
    let mut m = Members::new();
    m.set_given("name", port.name.clone());
    m.set("mode", port.mode.as_deref().unwrap_or("ingress"));
    m.set_given("host_ip", port.host_ip.map(|address| address.to_string()));
    m.set("target", port.target);
    m.set_given("published", published);
    m.set("protocol", port.protocol.as_str());
    m.set_given("app_protocol", port.app_protocol.clone());
    m.into()
}

fn network_mode(mode: &NetworkMode) -> String {
    match mode {
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Bridge => "bridge".to_owned(),
        NetworkMode::Service(name) => format!("service:{name}"),
        NetworkMode::Container(name) => format!("container:{name}"),
        NetworkMode::Named(name) => name.clone(),
    }
}

fn namespace(mode: &NamespaceMode) -> String {
    match mode {
        NamespaceMode::Host => "host".to_owned(),
        NamespaceMode::Private => "private".to_owned(),
        NamespaceMode::Shareable => "shareable".to_owned(),
        NamespaceMode::None => "none".to_owned(),
        NamespaceMode::Service(name) => format!("service:{name}"),
        NamespaceMode::Container(name) => format!("container:{name}"),
    }
}

fn membership(network: &ServiceNetwork) -> Value {
    if !network.is_mapping {
        return Value::Null;
    }
    let mut m = Members::new();
    m.set_some("aliases", network.aliases.clone());
    m.set_given("ipv4_address", network.ipv4_address.clone());
    m.set_given("ipv6_address", network.ipv6_address.clone());
    m.set_some("link_local_ips", network.link_local_ips.clone());
    m.set_given("mac_address", network.mac_address.clone());
    m.set_some("driver_opts", texts(&network.driver_opts));
    m.set_some("priority", network.priority);
    m.set_some("gw_priority", network.gw_priority);
    m.set_given("interface_name", network.interface_name.clone());
    m.into()
}

fn mount(mount: &Mount) -> Value {
    let mut m = Members::new();
    let mut options = Members::new();
    let (kind, source) = match &mount.source {
        MountSource::Volume { key, nocopy, subpath, labels, propagation, selinux } => {
            let mut bind = Members::new();
            bind.set_given("propagation", propagation.clone());
            bind.set_given("selinux", selinux.clone());
            m.set_some("bind", bind);
            options.set_some("nocopy", *nocopy);
            options.set_given("subpath", subpath.clone());
            options.set_some("labels", texts(labels));
            ("volume", Some(key.to_string()))
        }
        MountSource::Anonymous { nocopy, labels } => {
            options.set_some("nocopy", *nocopy);
            options.set_some("labels", texts(labels));
            ("volume", None)
        }
        MountSource::Bind { source, create_host_path, propagation, selinux, recursive } => {
            options.set_given("selinux", selinux.clone());
            options.set_given("propagation", propagation.clone());
            options.set_some("create_host_path", *create_host_path);
            options.set_given("recursive", recursive.clone());
            ("bind", Some(source.clone()))
        }
        MountSource::Tmpfs { size, mode } => {
            options.set_given("size", size.filter(|&size| size > 0).map(|size| size.to_string()));
            options.set_given("mode", *mode);
            ("tmpfs", None)
        }
        MountSource::Image { source, subpath } => {
            options.set_given("subpath", subpath.clone());
            ("image", Some(source.clone()))
        }
        MountSource::Foreign { kind, source, options: _ } => (kind.as_str(), source.clone()),
    };
    m.set("type", kind);
    m.set_given("source", source);
    m.set("target", mount.target.as_str());
    m.set_some("read_only", mount.read_only.unwrap_or(false));
    m.set_given("consistency", mount.consistency.clone());
    if mount.has_options {
        m.set(kind, options);
    }
    m.into()
}

/// A config or secret; a secret's place is printed even when the file leaves it to the default.
fn file(reference: &FileReference, is_secret: bool) -> Value {
    let target = match &reference.written_target {
        None if is_secret => Some(reference.target.clone()),
        written => written.clone(),
    };
    let mut m = Members::new();
    m.set("source", reference.source.as_str());
    m.set_given("target", target);
    m.set_given("uid", reference.uid.map(|uid| uid.to_string()));
    m.set_given("gid", reference.gid.map(|gid| gid.to_string()));
    m.set_given("mode", reference.mode);
    m.into()
}

fn device(text: &str) -> Value {
    let mut parts = text.splitn(3, ':');
    let mut next = || parts.next().unwrap_or_default();
    json!({ "source": next(), "target": next(), "permissions": next() })
}

/// With the capital letters that docker compose prints here.
fn blkio(config: &BlkioConfig) -> Value {
    let rates = |devices: &[(String, i64)]| -> Vec<Value> {
        devices.iter().map(|(path, rate)| json!({ "Path": path, "Rate": rate.to_string() })).collect()
    };
    let weights = config.weight_device.iter().map(|(path, weight)| json!({ "Path": path, "Weight": weight }));
    let mut m = Members::new();
    m.set_given("weight", config.weight);
    m.set_some("weight_device", weights.collect::<Vec<_>>());
    m.set_some("device_read_bps", rates(&config.device_read_bps));
    m.set_some("device_write_bps", rates(&config.device_write_bps));
    m.set_some("device_read_iops", rates(&config.device_read_iops));
    m.set_some("device_write_iops", rates(&config.device_write_iops));
    m.into()
}

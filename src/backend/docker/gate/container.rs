//! The create request of a container: `Config`, `HostConfig` and `NetworkingConfig`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum,
    HostConfigLogConfig, NetworkingConfig, PortBinding, ResourcesUlimits,
};

use super::mounts::is_tmpfs_option;
use super::{Allowance, Creation, Known, Verdict, demand, is_numbered_user};
use crate::policy::Profile;

/// Capabilities that a container may have without a grant: Docker's own without forged packets (`NET_RAW`) and device files
/// (`MKNOD`).
const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The only one under `restricted` (Pod Security Standards).
const RESTRICTED_CAPABILITY: &str = "NET_BIND_SERVICE";

/// What has to be taken away.
const DROPPED: &[&str] = &["MKNOD", "NET_RAW"];

/// Kernel parameters that are a container's own (Pod Security Standards, "Sysctls").
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Limits of processes that count within the container (setrlimit(2)).
const ULIMITS: &[&str] =
    &["core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nofile", "nproc", "rss", "sigpending", "stack"];
const OPEN_FILES: i64 = 1 << 20;

const LOG_OPTIONS: &[&str] = &[
    "compress",
    "env",
    "env-regex",
    "labels",
    "labels-regex",
    "max-buffer-size",
    "max-file",
    "max-size",
    "mode",
    "tag",
];
/// Bytes of a container's log on the host.
const LOG_BYTES: u64 = 256 << 20;
/// Bytes of a log in the engine's memory.
const LOG_BUFFER: u64 = 4 << 20;

/// What a log's tag may take from its container (Docker documentation, "Customize log driver output").
const TAG_FIELDS: &[&str] = &[".DaemonName", ".FullID", ".ID", ".ImageFullID", ".ImageID", ".ImageName", ".Name"];
/// Bytes of a tag or a pattern: the engine reads them as programs.
const LOG_TEXT: usize = 256;

/// Everybody's weight (Engine API `CpuShares`).
const CPU_SHARES: i64 = 1024;
/// The shortest time between two healthchecks.
const CHECK_INTERVAL: i64 = 500_000_000;
/// Bytes of a request.
const REQUEST: usize = 2 << 20;
/// Seconds that a container may take to stop.
const STOP_TIMEOUT: i64 = 300;

/// Addresses at which clouds give the machine's credentials away, besides the link-local one: Azure, Alibaba, Oracle; AWS, Google.
const METADATA: &[IpAddr] = &[
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

#[allow(clippy::ref_option, reason = "the engine's structures are taken apart by reference")]
pub(super) fn is_empty<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

pub(super) fn is_off(flag: Option<bool>) -> bool {
    flag != Some(true)
}

#[allow(clippy::ref_option, reason = "the engine's structures are taken apart by reference")]
fn is_blank(text: &Option<String>) -> bool {
    text.as_ref().is_none_or(String::is_empty)
}

fn is_positive(amount: Option<i64>) -> bool {
    amount.is_some_and(|amount| amount > 0)
}

fn is_zero(amount: Option<i64>) -> bool {
    amount.is_none_or(|amount| amount == 0)
}

/// A capability as the kernel calls it, without `CAP_`.
fn bare(capability: &str) -> String {
    let upper = capability.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

/// `10m`, `1g`, `512`: bytes, as the log drivers read them.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Whether a container may be told of this address: not the host's own, and none where a cloud gives credentials away.
fn is_public(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !link_local && !METADATA.contains(&address)
}

/// Each check is a process. Of what the image says the engine has taken what the request left open.
pub(super) fn judge_healthcheck(check: Option<&HealthConfig>) -> Verdict {
    let Some(check) = check else { return Ok(()) };
    let HealthConfig { test, interval, timeout: _, retries: _, start_period: _, start_interval } = check;
    if test.as_ref().is_some_and(|test| test.first().is_some_and(|word| word == "NONE")) {
        return Ok(());
    }
    let seldom = |time: &Option<i64>| is_zero(*time) || time.is_some_and(|time| time >= CHECK_INTERVAL);
    demand(seldom(interval), "Healthcheck.Interval", "at least 500 ms")?;
    demand(seldom(start_interval), "Healthcheck.StartInterval", "at least 500 ms")
}

impl Allowance<'_> {
    pub(super) fn judge_container(&self, creation: &Creation, known: &Known<'_>) -> Verdict {
        let Creation { name, platform: _, image_id: _, body, mac_address } = creation;
        let size = serde_json::to_vec(body).map_or(usize::MAX, |text| text.len());
        demand(size <= REQUEST, "body", "at most 2 MiB")?;
        self.judge_container_labels(body.labels.as_ref(), known)?;
        let host = body.host_config.as_ref();
        if !self.confines() {
            // Binds make a missing source as a directory, and are not looked at below.
            demand(host.is_none_or(|host| is_empty(&host.binds)), "HostConfig.Binds", "none: mounts are `Mounts`")?;
            let mounts = host.and_then(|host| host.mounts.as_deref());
            return self.judge_mounts(mounts.unwrap_or_default(), known);
        }
        demand(self.is_own_container(name.as_str()), "name", "the project's own name")?;
        demand(mac_address.is_none(), "MacAddress", "none")?;
        self.judge_config(body)?;
        let Some(host) = host else { return demand(false, "HostConfig", "limits and privileges") };
        self.judge_host_config(host, known)?;
        let endpoints = body.networking_config.iter().filter_map(|config| config.endpoints_config.as_ref());
        let own = endpoints.flat_map(HashMap::keys).all(|network| self.is_own_object(network));
        // Newer engines answer for it on every network.
        demand(own || is_blank(&body.hostname), "Hostname", "none beside a network of others")?;
        self.judge_networking(host, body.networking_config.as_ref())
    }

    fn judge_config(&self, body: &ContainerCreateBody) -> Verdict {
        let ContainerCreateBody {
            hostname: _,
            domainname: _,
            user,
            attach_stdin,
            attach_stdout: _,
            attach_stderr: _,
            exposed_ports: _,
            tty: _,
            open_stdin: _,
            stdin_once,
            // What runs stays inside.
            env: _,
            cmd: _,
            healthcheck,
            args_escaped,
            image,
            volumes,
            working_dir: _,
            entrypoint: _,
            network_disabled: _,
            on_build,
            // Judged with what they say.
            labels: _,
            // Any but those that end nothing is the policy's to judge: a stop ends by force.
            stop_signal: _,
            stop_timeout,
            shell,
            host_config: _,
            networking_config: _,
        } = body;
        demand(is_off(*attach_stdin), "AttachStdin", "false")?;
        demand(is_off(*stdin_once), "StdinOnce", "false")?;
        demand(is_off(*args_escaped), "ArgsEscaped", "false")?;
        demand(!is_blank(image), "Image", "an image")?;
        demand(is_empty(volumes), "Volumes", "none: mounts are `Mounts`")?;
        demand(is_empty(on_build), "OnBuild", "none")?;
        demand(is_empty(shell), "Shell", "none")?;
        let short = stop_timeout.is_none_or(|seconds| (0..=STOP_TIMEOUT).contains(&seconds));
        demand(short, "StopTimeout", "at most 5 minutes")?;
        judge_healthcheck(healthcheck.as_ref())?;
        let numbered = self.profile != Profile::Restricted || user.as_deref().is_some_and(is_numbered_user);
        demand(numbered, "User", "a number other than 0")
    }

    /// The rules hold for what is sent and for what the engine says it made of it: nothing, 0 and empty are the same.
    pub(super) fn judge_host_config(&self, host: &HostConfig, known: &Known<'_>) -> Verdict {
        let HostConfig {
            cpu_shares,
            memory: _,
            cgroup_parent,
            blkio_weight: _,
            blkio_weight_device,
            blkio_device_read_bps,
            blkio_device_write_bps,
            blkio_device_read_iops,
            blkio_device_write_iops,
            cpu_period: _,
            cpu_quota: _,
            cpu_realtime_period,
            cpu_realtime_runtime,
            cpuset_cpus: _,
            cpuset_mems,
            devices,
            device_cgroup_rules,
            device_requests,
            memory_reservation: _,
            memory_swap: _,
            memory_swappiness,
            nano_cpus: _,
            oom_kill_disable,
            init: _,
            pids_limit: _,
            ulimits: _,
            // Windows only.
            cpu_count: _,
            cpu_percent: _,
            io_maximum_iops,
            io_maximum_bandwidth,
            binds,
            container_id_file,
            log_config: _,
            // Judged with the networks.
            network_mode: _,
            port_bindings,
            // The engine's own brake on loops is part of every policy.
            restart_policy: _,
            auto_remove,
            volume_driver,
            volumes_from,
            mounts,
            console_size,
            annotations,
            cap_add,
            cap_drop,
            cgroupns_mode: _,
            dns,
            dns_options: _,
            dns_search: _,
            extra_hosts,
            group_add,
            ipc_mode,
            cgroup,
            links,
            oom_score_adj,
            pid_mode,
            privileged,
            publish_all_ports,
            readonly_rootfs,
            security_opt,
            storage_opt,
            tmpfs,
            uts_mode,
            userns_mode,
            shm_size: _,
            sysctls,
            runtime,
            isolation,
            masked_paths,
            readonly_paths,
        } = host;
        let at = |field: &str| format!("HostConfig.{field}");
        let nothing = |holds: bool, field: &str| demand(holds, at(field), "none");

        demand(is_off(*privileged), at("Privileged"), "false")?;
        self.judge_capabilities(cap_add.as_deref(), cap_drop.as_deref())?;
        let weakens = |option: &&String| {
            !matches!(option.as_str(), "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true")
        };
        demand(!security_opt.iter().flatten().any(|o| weakens(&o)), at("SecurityOpt"), "no-new-privileges alone")?;
        demand(masked_paths.is_none(), at("MaskedPaths"), "the engine's own")?;
        demand(readonly_paths.is_none(), at("ReadonlyPaths"), "the engine's own")?;
        demand(
            self.profile != Profile::Restricted || *readonly_rootfs == Some(true),
            at("ReadonlyRootfs"),
            "true under restricted",
        )?;

        for (mode, field) in
            [(pid_mode, "PidMode"), (ipc_mode, "IpcMode"), (uts_mode, "UTSMode"), (userns_mode, "UsernsMode")]
        {
            let mode = mode.as_deref().unwrap_or_default();
            let own = match mode.strip_prefix("container:") {
                Some(id) => known.has(id),
                None => matches!(mode, "" | "private") || (field == "IpcMode" && matches!(mode, "shareable" | "none")),
            };
            demand(own, at(field), "its own, or that of a container of this tenant")?;
        }
        nothing(is_blank(cgroup), "Cgroup")?;
        nothing(is_blank(cgroup_parent), "CgroupParent")?;
        nothing(is_blank(runtime), "Runtime")?;
        let plain = matches!(isolation, None | Some(HostConfigIsolationEnum::EMPTY));
        nothing(plain, "Isolation")?;
        nothing(is_empty(group_add), "GroupAdd")?;
        nothing(annotations.as_ref().is_none_or(HashMap::is_empty), "Annotations")?;

        nothing(is_empty(devices), "Devices")?;
        nothing(is_empty(device_cgroup_rules), "DeviceCgroupRules")?;
        nothing(is_empty(device_requests), "DeviceRequests")?;
        nothing(is_empty(blkio_weight_device), "BlkioWeightDevice")?;
        nothing(is_empty(blkio_device_read_bps), "BlkioDeviceReadBps")?;
        nothing(is_empty(blkio_device_write_bps), "BlkioDeviceWriteBps")?;
        nothing(is_empty(blkio_device_read_iops), "BlkioDeviceReadIOps")?;
        nothing(is_empty(blkio_device_write_iops), "BlkioDeviceWriteIOps")?;
        nothing(is_zero(*io_maximum_iops), "IOMaximumIOps")?;
        nothing(is_zero(*io_maximum_bandwidth), "IOMaximumBandwidth")?;
        nothing(is_zero(*cpu_realtime_period), "CpuRealtimePeriod")?;
        nothing(is_zero(*cpu_realtime_runtime), "CpuRealtimeRuntime")?;
        nothing(is_blank(cpuset_mems), "CpusetMems")?;
        nothing(memory_swappiness.is_none_or(|swappiness| swappiness <= 0), "MemorySwappiness")?;
        demand(cpu_shares.is_none_or(|shares| shares <= CPU_SHARES), at("CpuShares"), "at most everybody's weight")?;
        demand(is_off(*oom_kill_disable), at("OomKillDisable"), "false")?;
        demand(oom_score_adj.is_none_or(|score| score >= 0), at("OomScoreAdj"), "0 or more")?;
        nothing(storage_opt.as_ref().is_none_or(HashMap::is_empty), "StorageOpt")?;

        nothing(is_empty(binds), "Binds")?;
        nothing(is_blank(container_id_file), "ContainerIDFile")?;
        nothing(is_blank(volume_driver), "VolumeDriver")?;
        for from in volumes_from.iter().flatten() {
            let (id, mode) = from.split_once(':').map_or((from.as_str(), None), |(id, mode)| (id, Some(mode)));
            let own = known.has(id) && matches!(mode, None | Some("ro" | "rw"));
            demand(own, at("VolumesFrom"), "containers of this tenant")?;
        }
        self.judge_mounts(mounts.as_deref().unwrap_or_default(), known)?;
        for (path, options) in tmpfs.iter().flatten() {
            let plain = path.starts_with('/') && options.split(',').all(is_tmpfs_option);
            demand(plain, at("Tmpfs"), "a path in the container, and options of a tmpfs")?;
        }

        demand(is_off(*auto_remove), at("AutoRemove"), "false")?;
        demand(is_off(*publish_all_ports), at("PublishAllPorts"), "false")?;
        nothing(console_size.iter().flatten().all(|size| *size == 0), "ConsoleSize")?;
        nothing(is_empty(links), "Links")?;
        for bindings in port_bindings.iter().flat_map(HashMap::values) {
            let bindings = bindings.as_deref().unwrap_or_default();
            demand(!bindings.is_empty(), at("PortBindings"), "an address and a port of the host")?;
            for binding in bindings {
                self.judge_port(binding)?;
            }
        }
        for entry in extra_hosts.iter().flatten() {
            let address =
                entry.split_once(':').map(|(_, address)| address.trim_start_matches('[').trim_end_matches(']'));
            let public = address.and_then(|text| text.parse().ok()).is_some_and(is_public);
            demand(public, at("ExtraHosts"), "addresses that are neither the host's nor link-local")?;
        }
        for server in dns.iter().flatten() {
            let public = server.parse::<IpAddr>().is_ok_and(|address| {
                let canonical = address.to_canonical();
                is_public(address)
                    && !canonical.is_loopback()
                    && !canonical.is_unspecified()
                    && !canonical.is_multicast()
            });
            demand(public, at("Dns"), "addresses that are neither the host's nor link-local")?;
        }
        for sysctl in sysctls.iter().flat_map(HashMap::keys) {
            let own = SYSCTLS.contains(&sysctl.as_str()) || self.grants.sysctls.contains(sysctl);
            demand(own, at("Sysctls"), "the container's own kernel parameters")?;
        }
        judge_defaults(host)
    }

    fn judge_capabilities(&self, added: Option<&[String]>, dropped: Option<&[String]>) -> Verdict {
        let added: Vec<String> = added.unwrap_or_default().iter().map(|capability| bare(capability)).collect();
        let dropped: Vec<String> = dropped.unwrap_or_default().iter().map(|capability| bare(capability)).collect();
        let restricted = self.profile == Profile::Restricted;
        let usual = |capability: &str| {
            if restricted { capability == RESTRICTED_CAPABILITY } else { CAPABILITIES.contains(&capability) }
        };
        let allowed = |capability: &String| {
            usual(capability) || (!restricted && self.grants.capabilities.contains(capability.as_str()))
        };
        demand(added.iter().all(allowed), "HostConfig.CapAdd", "what this tenant may have")?;
        let all = dropped.iter().any(|capability| capability == "ALL");
        demand(all || !restricted, "HostConfig.CapDrop", "ALL under restricted")?;
        for capability in DROPPED {
            let gone = all || dropped.iter().any(|other| other == capability);
            let granted = added.iter().any(|other| other == capability);
            demand(gone || granted, "HostConfig.CapDrop", "NET_RAW and MKNOD")?;
        }
        Ok(())
    }

    fn judge_port(&self, binding: &PortBinding) -> Verdict {
        let PortBinding { host_ip, host_port } = binding;
        let (publish, range) = self.ground.publish.map_or((None, None), |(host, range)| (Some(host), Some(range)));
        // Without an address the engine publishes on all that the host has.
        let address: Option<IpAddr> = host_ip.as_deref().and_then(|text| text.parse().ok());
        let here = address.is_some_and(|address| {
            address.is_loopback() || Some(address) == publish || self.grants.publish_hosts.contains(&address)
        });
        demand(here, "HostConfig.PortBindings.HostIp", "an address on which this tenant may publish")?;
        let text = host_port.as_deref().unwrap_or_default();
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
        let fits = ports.is_some_and(|(first, last)| {
            let ranges = range.iter().chain(&self.grants.ports);
            first > 0 && first <= last && ranges.into_iter().any(|(low, high)| *low <= first && last <= *high)
        });
        demand(fits, "HostConfig.PortBindings.HostPort", "a port that this tenant may publish")
    }

    fn judge_networking(&self, host: &HostConfig, networking: Option<&NetworkingConfig>) -> Verdict {
        let field = "HostConfig.NetworkMode";
        let mode = host.network_mode.as_deref().unwrap_or_default();
        let endpoints = networking.and_then(|networking| {
            let NetworkingConfig { endpoints_config } = networking;
            endpoints_config.as_ref()
        });
        if mode == "none" || mode.starts_with("container:") {
            return demand(
                endpoints.is_none_or(HashMap::is_empty),
                "NetworkingConfig",
                "nothing beside this network mode",
            );
        }
        demand(self.may_join(mode), field, "none, a container of this tenant, or a network of this project")?;
        for (network, endpoint) in endpoints.into_iter().flatten() {
            demand(self.may_join(network), "NetworkingConfig.EndpointsConfig", "networks of this project")?;
            self.judge_endpoint("NetworkingConfig.EndpointsConfig", network, endpoint)?;
        }
        Ok(())
    }
}

/// What a container has whether its author asked for it or not, because the engine's own defaults are none, or the host's.
pub(super) fn judge_defaults(host: &HostConfig) -> Verdict {
    let at = |field: &str| format!("HostConfig.{field}");
    let bound = |holds: bool, field: &str| demand(holds, at(field), "a limit");
    demand(!is_empty(&host.security_opt), at("SecurityOpt"), "no-new-privileges")?;
    demand(host.cgroupns_mode == Some(HostConfigCgroupnsModeEnum::PRIVATE), at("CgroupnsMode"), "private")?;

    bound(is_positive(host.memory), "Memory")?;
    let memory = host.memory.unwrap_or_default();
    let swap = host.memory_swap.unwrap_or_default();
    bound((0..=memory.saturating_mul(2)).contains(&swap), "MemorySwap")?;
    bound(is_positive(host.nano_cpus) || is_positive(host.cpu_quota), "NanoCpus")?;
    bound(is_positive(host.pids_limit), "PidsLimit")?;
    bound(is_positive(host.shm_size) && host.shm_size.is_some_and(|size| size <= memory), "ShmSize")?;
    let ulimits = host.ulimits.as_deref().unwrap_or_default();
    let has = |wanted: &str| ulimits.iter().any(|ulimit| ulimit.name.as_deref() == Some(wanted));
    bound(has("nofile"), "Ulimits")?;
    for ulimit in ulimits {
        let ResourcesUlimits { name, soft, hard } = ulimit;
        let name = name.as_deref().unwrap_or_default();
        let few =
            |count: &Option<i64>| name != "nofile" || count.is_some_and(|count| (0..=OPEN_FILES).contains(&count));
        demand(ULIMITS.contains(&name) && few(soft) && few(hard), at("Ulimits"), "limits of the container's own")?;
    }

    let Some(HostConfigLogConfig { typ, config }) = &host.log_config else {
        return demand(false, at("LogConfig"), "json-file or local, of a bounded size");
    };
    demand(matches!(typ.as_deref(), Some("json-file" | "local")), at("LogConfig.Type"), "json-file or local")?;
    let none = HashMap::new();
    let options = config.as_ref().unwrap_or(&none);
    let known = options.keys().all(|option| LOG_OPTIONS.contains(&option.as_str()));
    demand(known, at("LogConfig.Config"), "options of these drivers")?;
    let size = options.get("max-size").and_then(|text| bytes(text)).filter(|&size| size > 0);
    let files = options.get("max-file").and_then(|text| text.parse::<u64>().ok()).filter(|&files| files > 0);
    let total = size.zip(files).map(|(size, files)| size.saturating_mul(files));
    demand(
        total.is_some_and(|total| total <= LOG_BYTES),
        at("LogConfig.Config.max-size"),
        "with max-file, at most 256 MiB",
    )?;
    let mode = options.get("mode").map(String::as_str);
    demand(
        matches!(mode, None | Some("blocking" | "non-blocking")),
        at("LogConfig.Config.mode"),
        "blocking or non-blocking",
    )?;
    for option in ["tag", "env-regex", "labels-regex"] {
        let short = options.get(option).is_none_or(|text| text.len() <= LOG_TEXT);
        demand(short, at(&format!("LogConfig.Config.{option}")), "at most 256 bytes")?;
    }
    // Go's templates can loop, and ask for as much memory as they like.
    let plain = options.get("tag").is_none_or(|tag| {
        let mut pieces = tag.split("{{");
        let first = pieces.next().unwrap_or_default();
        !first.contains("}}")
            && pieces.all(|piece| {
                piece
                    .split_once("}}")
                    .is_some_and(|(field, text)| TAG_FIELDS.contains(&field.trim_matches(' ')) && !text.contains("}}"))
            })
    });
    demand(plain, at("LogConfig.Config.tag"), "text and names such as {{.Name}}")?;
    let buffer = options.get("max-buffer-size").map_or(Some(0), |text| bytes(text));
    demand(buffer.is_some_and(|size| size <= LOG_BUFFER), at("LogConfig.Config.max-buffer-size"), "at most 4 MiB")
}

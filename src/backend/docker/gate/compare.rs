//! What the engine made of a request, as `inspect` tells it. An engine may have defaults of its own, and an old one leaves
//! out without a word what it does not know; so what it has made passes the same rules again, and beyond them whatever
//! confines is what was asked for.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{
    ContainerInspectResponse, HostConfig, Mount, MountPoint, MountType, NetworkCreateRequest, NetworkInspect,
    PortBinding, ResourcesUlimits, Volume,
};

use super::container::{is_off, judge_healthcheck};
use super::{Allowance, Creation, Known, Verdict, demand, is_at_or_below};

const AS_SENT: &str = "what was asked for";
/// Of what the kernel tells and takes in `/proc` and `/sys`, what no container of any engine may see or write.
const MASKED: &str = "/proc/kcore";
const READ_ONLY: &str = "/proc/sys";

impl Allowance<'_> {
    /// A label that the container has from its image and that others act on.
    pub(super) fn label_of_image(&self, sent: &Creation, found: &ContainerInspectResponse) -> Option<String> {
        let labels = found.config.as_ref()?.labels.as_ref()?;
        let from_image = |label: &&String| sent.body.labels.as_ref().is_none_or(|sent| !sent.contains_key(*label));
        labels.keys().filter(from_image).find(|label| self.is_acted_on(label)).cloned()
    }

    pub(super) fn compare_container(
        &self,
        sent: &Creation,
        later: &BTreeSet<String>,
        known: &Known<'_>,
        found: &ContainerInspectResponse,
    ) -> Verdict {
        let named = found.name.as_deref().map(|name| name.trim_start_matches('/'));
        demand(named == Some(sent.name.as_str()), "Name", AS_SENT)?;
        demand(found.image.as_ref() == Some(&sent.image_id), "Image", "the image that was looked at")?;
        let Some(config) = &found.config else { return demand(false, "Config", AS_SENT) };
        let labels = sent.body.labels.iter().flatten();
        let kept =
            |(label, value): (&String, &String)| config.labels.as_ref().and_then(|l| l.get(label)) == Some(value);
        demand(labels.into_iter().all(kept), "Labels", AS_SENT)?;
        let user = |user: &Option<String>| user.clone().unwrap_or_default();
        judge_healthcheck(config.healthcheck.as_ref())?;
        // A process that starts there may hold descriptors of the runtime's (CVE-2024-21626).
        let directory = config.working_dir.as_deref().unwrap_or_default();
        demand(!is_at_or_below(directory, "/proc"), "WorkingDir", "a directory outside /proc")?;
        demand(sent.body.user.is_none() || user(&sent.body.user) == user(&config.user), "User", AS_SENT)?;

        let (Some(asked), Some(host)) = (&sent.body.host_config, &found.host_config) else {
            return demand(false, "HostConfig", AS_SENT);
        };
        self.judge_host_config(&without_defaults(host, asked)?, known)?;
        compare_host_configs(asked, host)?;
        self.compare_mount_points(asked.mounts.as_deref().unwrap_or_default(), known, found.mounts.as_deref())?;

        let mode = asked.network_mode.clone().unwrap_or_default();
        let endpoints =
            sent.body.networking_config.iter().filter_map(|networking| networking.endpoints_config.as_ref());
        let joined: BTreeSet<&String> = endpoints.flat_map(HashMap::keys).chain(later).chain([&mode]).collect();
        let networks = found.network_settings.iter().filter_map(|settings| settings.networks.as_ref());
        demand(networks.flat_map(HashMap::keys).all(|network| joined.contains(network)), "Networks", AS_SENT)
    }

    /// What is mounted, with what came from images and other containers.
    fn compare_mount_points(&self, asked: &[Mount], known: &Known<'_>, found: Option<&[MountPoint]>) -> Verdict {
        for point in found.unwrap_or_default() {
            let MountPoint { typ, name, source, destination, driver, mode: _, rw, propagation: _ } = point;
            let wanted = asked.iter().find(|mount| mount.target == *destination);
            let writable = rw.unwrap_or(true);
            let closed = wanted.is_none_or(|mount| !(writable && mount.read_only == Some(true)));
            demand(closed, "Mounts.RW", AS_SENT)?;
            match typ.as_deref() {
                Some("bind") => {
                    let source = source.as_deref().unwrap_or_default();
                    let same = wanted.is_none_or(|mount| {
                        mount.typ == Some(MountType::BIND) && mount.source.as_deref() == Some(source)
                    });
                    demand(same && self.may_bind(source, !writable), "Mounts.Source", AS_SENT)?;
                }
                Some("volume") => {
                    let name = name.as_deref().unwrap_or_default();
                    let anonymous = name.len() == 64 && name.bytes().all(|c| c.is_ascii_hexdigit());
                    let own = anonymous || self.is_own_object(name) || known.inherited.contains_key(name);
                    let same = wanted.is_none_or(|mount| {
                        mount.typ == Some(MountType::VOLUME)
                            && mount.source.as_deref().is_none_or(|source| source == name)
                    });
                    demand(own && same, "Mounts.Name", AS_SENT)?;
                    demand(
                        driver.as_deref().is_none_or(|driver| matches!(driver, "" | "local")),
                        "Mounts.Driver",
                        AS_SENT,
                    )?;
                }
                Some("tmpfs") => {}
                _ => demand(false, "Mounts.Type", AS_SENT)?,
            }
        }
        Ok(())
    }
}

/// What the engine was given, seen in what it says: what it fills in by itself is looked at here and taken out.
fn without_defaults(found: &HostConfig, asked: &HostConfig) -> Result<HostConfig, super::Refusal> {
    let holds = |paths: &Option<Vec<String>>, path: &str| paths.iter().flatten().any(|found| found == path);
    demand(holds(&found.masked_paths, MASKED), "HostConfig.MaskedPaths", "the engine's own")?;
    demand(holds(&found.readonly_paths, READ_ONLY), "HostConfig.ReadonlyPaths", "the engine's own")?;
    let mut rest = found.clone();
    (rest.masked_paths, rest.readonly_paths) = (None, None);
    // The host's default runtime is the operator's choice.
    rest.runtime.clone_from(&asked.runtime);
    // An engine on a host with SELinux adds the label of the container whose namespaces this one shares.
    let is_label = |option: &String| option.starts_with("label=") && !option.contains("disable");
    rest.security_opt.iter_mut().for_each(|options| options.retain(|option| !is_label(option)));
    // Engines write 2 times the memory for 0, and -1 where the kernel counts no swap.
    if asked.memory_swap.is_none_or(|swap| swap == 0) {
        rest.memory_swap = None;
    }
    // The daemon's own ulimits come on top.
    let names: Vec<&String> = asked.ulimits.iter().flatten().filter_map(|ulimit| ulimit.name.as_ref()).collect();
    let is_asked = |ulimit: &ResourcesUlimits| ulimit.name.as_ref().is_some_and(|name| names.contains(&name));
    rest.ulimits.iter_mut().for_each(|ulimits| ulimits.retain(is_asked));
    Ok(rest)
}

fn set(list: Option<&Vec<String>>) -> BTreeSet<&String> {
    list.into_iter().flatten().collect()
}

fn capabilities(list: Option<&Vec<String>>) -> BTreeSet<String> {
    let bare = |name: &String| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    list.into_iter().flatten().map(bare).collect()
}

fn compare_host_configs(asked: &HostConfig, found: &HostConfig) -> Verdict {
    let same = |holds: bool, field: &str| demand(holds, format!("HostConfig.{field}"), AS_SENT);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    same(is_off(found.privileged), "Privileged")?;
    same(capabilities(asked.cap_add.as_ref()) == capabilities(found.cap_add.as_ref()), "CapAdd")?;
    same(capabilities(asked.cap_drop.as_ref()) == capabilities(found.cap_drop.as_ref()), "CapDrop")?;
    same(set(asked.security_opt.as_ref()).is_subset(&set(found.security_opt.as_ref())), "SecurityOpt")?;
    same(text(&asked.network_mode) == text(&found.network_mode), "NetworkMode")?;
    same(text(&asked.pid_mode) == text(&found.pid_mode), "PidMode")?;
    same(text(&asked.uts_mode) == text(&found.uts_mode), "UTSMode")?;
    same(text(&asked.userns_mode) == text(&found.userns_mode), "UsernsMode")?;
    // Without a word, the daemon's default holds, which is one of the container's own.
    same(asked.ipc_mode.is_none() || text(&asked.ipc_mode) == text(&found.ipc_mode), "IpcMode")?;
    same(asked.cgroupns_mode == found.cgroupns_mode, "CgroupnsMode")?;
    same(is_off(asked.readonly_rootfs) || found.readonly_rootfs == Some(true), "ReadonlyRootfs")?;

    for (asked, found, field) in [
        (asked.memory, found.memory, "Memory"),
        (asked.memory_reservation, found.memory_reservation, "MemoryReservation"),
        (asked.memory_swap, found.memory_swap, "MemorySwap"),
        (asked.nano_cpus, found.nano_cpus, "NanoCpus"),
        (asked.cpu_quota, found.cpu_quota, "CpuQuota"),
        (asked.cpu_period, found.cpu_period, "CpuPeriod"),
        (asked.pids_limit, found.pids_limit, "PidsLimit"),
        (asked.shm_size, found.shm_size, "ShmSize"),
        (asked.oom_score_adj, found.oom_score_adj, "OomScoreAdj"),
    ] {
        same(asked.is_none_or(|asked| asked == 0 || found == Some(asked)), field)?;
    }
    let has = |wanted: &ResourcesUlimits| found.ulimits.iter().flatten().any(|ulimit| ulimit == wanted);
    same(asked.ulimits.iter().flatten().all(has), "Ulimits")?;
    same(asked.log_config == found.log_config, "LogConfig")?;
    let kept = |(name, value): (&String, &String)| found.sysctls.as_ref().and_then(|all| all.get(name)) == Some(value);
    same(asked.sysctls.iter().flatten().all(kept), "Sysctls")?;

    same(set(asked.volumes_from.as_ref()) == set(found.volumes_from.as_ref()), "VolumesFrom")?;
    let mounts = |host: &HostConfig| -> BTreeSet<(Option<String>, Option<String>, bool)> {
        let mounts = host.mounts.iter().flatten();
        mounts
            .map(|mount| {
                (mount.target.clone(), mount.source.clone().filter(|s| !s.is_empty()), mount.read_only == Some(true))
            })
            .collect()
    };
    same(mounts(asked) == mounts(found), "Mounts")?;
    let ports = |host: &HostConfig| -> BTreeSet<(String, String, String)> {
        let all = host.port_bindings.iter().flatten();
        let each = all.flat_map(|(port, bindings)| {
            bindings
                .iter()
                .flatten()
                .map(|PortBinding { host_ip, host_port }| (port.clone(), text(host_ip), text(host_port)))
        });
        each.collect()
    };
    same(ports(asked) == ports(found), "PortBindings")
}

pub(super) fn network(sent: &NetworkCreateRequest, found: &NetworkInspect) -> Verdict {
    demand(found.name.as_deref() == Some(sent.name.as_str()), "Name", AS_SENT)?;
    demand(found.driver.as_deref() == Some("bridge"), "Driver", "bridge")?;
    demand(found.scope.as_deref().is_none_or(|scope| scope == "local"), "Scope", "local")?;
    demand(is_off(found.ingress) && is_off(found.config_only), "Ingress", "false")?;
    demand(sent.internal == found.internal || is_off(sent.internal), "Internal", AS_SENT)?;
    let kept = |(label, value): (&String, &String)| found.labels.as_ref().and_then(|all| all.get(label)) == Some(value);
    demand(sent.labels.iter().flatten().all(kept), "Labels", AS_SENT)?;
    let subnets = |ipam: &Option<bollard::models::Ipam>| -> Vec<String> {
        let config = ipam.as_ref().and_then(|ipam| ipam.config.as_ref());
        let subnets = config.into_iter().flatten().filter_map(|config| config.subnet.clone());
        // A network with IPv6 has a second one, which the engine chooses.
        subnets.filter(|subnet| !subnet.contains(':')).collect()
    };
    let same = sent.enable_ipv4 == Some(false) || subnets(&sent.ipam) == subnets(&found.ipam);
    demand(same, "IPAM.Config", AS_SENT)
}

pub(super) fn volume(found: &Volume) -> Verdict {
    demand(found.driver == "local", "Driver", "local")?;
    demand(found.options.is_empty(), "Options", "none: they mount any path of the host")
}

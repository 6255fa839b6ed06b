//! One service: the attributes, each read by a line here or by the file that knows its syntax.

use std::collections::{BTreeMap, BTreeSet};

use super::depends::{depends_on, links, reference};
use super::files::Kind;
use super::{deploy, environment, files, health, networks, ports, volumes};
use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::{
    Logging, NamespaceMode, NetworkMode, PullPolicy, Resources, RestartPolicy, Service, Ulimit,
};
use crate::compose::words;
use crate::domain::{ContainerName, ImageRef, ServiceName};

/// Attributes that are read; only for "did you mean".
pub(super) const KNOWN: &[&str] = &[
    "annotations",
    "attach",
    "build",
    "cap_add",
    "cap_drop",
    "cgroup",
    "cgroup_parent",
    "command",
    "configs",
    "container_name",
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "cpus",
    "cpuset",
    "depends_on",
    "deploy",
    "device_cgroup_rules",
    "devices",
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "entrypoint",
    "env_file",
    "environment",
    "expose",
    "extra_hosts",
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "ipc",
    "labels",
    "links",
    "logging",
    "mac_address",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "network_mode",
    "networks",
    "oom_kill_disable",
    "oom_score_adj",
    "pid",
    "pids_limit",
    "platform",
    "ports",
    "privileged",
    "profiles",
    "pull_policy",
    "read_only",
    "restart",
    "runtime",
    "scale",
    "secrets",
    "security_opt",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "user",
    "userns_mode",
    "uts",
    "volumes",
    "working_dir",
];

/// Attributes of the Compose Specification without a reader.
const LATER: &[&str] = &[
    "blkio_config",
    "cpu_count",
    "cpu_percent",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "credential_spec",
    "develop",
    "extends",
    "external_links",
    "gpus",
    "isolation",
    "label_file",
    "models",
    "post_start",
    "pre_start",
    "pre_stop",
    "provider",
    "pull_refresh_after",
    "storage_opt",
    "use_api_socket",
    "volume_driver",
    "volumes_from",
];

/// Reads a service; none when its profiles are not active. What it refers to is only checked when it is enabled.
pub(super) fn read(field: &Field<'_>, name: &ServiceName) -> Result<Option<Service>, ComposeError> {
    if !field.is_mapping() {
        return Err(field.expected("a mapping"));
    }
    let enabled = field.cx.declared.services.get(name.as_str()).copied().unwrap_or(true);
    let Some(image) = image(field, name, enabled)? else { return Ok(None) };
    let mut service = blank(image);
    let mut own_environment = BTreeMap::new();
    let mut scale = None;
    let mut deployed = deploy::Deploy::default();
    for attribute in field.attributes()? {
        let a = &attribute;
        let s = &mut service;
        match a.key() {
            "image" => {}
            "profiles" => {
                a.texts()?;
            }
            "attach" => a.ignored(),
            "build" => {
                if !a.is_mapping() {
                    a.text()?;
                }
                s.build = true;
            }
            "pull_policy" => s.pull_policy = pull_policy(a)?,
            "platform" => s.platform = Some(a.some_text()?.to_owned()),
            "container_name" => s.container_name = Some(a.parsed(ContainerName::parse)?.to_string()),
            "scale" => scale = Some(a.count()?),
            "deploy" => deployed = deploy::read(a)?,

            "command" => s.command = command(a)?,
            "entrypoint" => s.entrypoint = command(a)?,
            "environment" => own_environment = environment::environment(a)?,
            "env_file" => s.environment = environment::env_files(a)?,
            "labels" => s.labels = a.pairs()?,
            "annotations" => s.annotations = a.pairs()?,
            "user" => s.user = Some(a.some_text()?.to_owned()),
            "group_add" => s.group_add = group_add(a)?,
            "working_dir" => s.working_dir = Some(a.some_text()?.to_owned()),
            "hostname" => s.hostname = Some(a.some_text()?.to_owned()),
            "domainname" => s.domainname = Some(a.some_text()?.to_owned()),
            "init" => s.init = Some(a.boolean()?),
            "tty" => s.tty = a.boolean()?,
            "stdin_open" => s.stdin_open = a.boolean()?,
            "read_only" => s.read_only = a.boolean()?,
            "stop_signal" => s.stop_signal = Some(a.some_text()?.to_owned()),
            "stop_grace_period" => s.stop_grace_period = Some(a.duration()?),
            "restart" => s.restart = restart(a)?,

            "depends_on" => depends_on(a, enabled, &mut s.depends_on)?,
            "links" => links(a, enabled, &mut s.depends_on)?,
            "healthcheck" => s.healthcheck = Some(health::healthcheck(a)?),

            "ports" => s.ports = ports::ports(a)?,
            "expose" => s.expose = ports::expose(a)?,
            "network_mode" => s.network_mode = Some(networks::mode(a)?),
            "networks" => s.networks = networks::of_service(a, enabled)?,
            "mac_address" => s.mac_address = Some(a.some_text()?.to_owned()),
            "dns" => s.dns = a.text_or_texts()?,
            "dns_search" => s.dns_search = a.text_or_texts()?,
            "dns_opt" => s.dns_opt = a.texts()?,
            "extra_hosts" => s.extra_hosts = extra_hosts(a)?,

            "volumes" => s.mounts = volumes::mounts(a, enabled)?,
            "tmpfs" => s.tmpfs = volumes::tmpfs(a)?,
            "configs" => s.configs = files::references(a, Kind::Config, enabled)?,
            "secrets" => s.secrets = files::references(a, Kind::Secret, enabled)?,

            "cpus" => s.resources.nano_cpus = deploy::nano_cpus(a)?,
            "cpu_shares" => s.resources.cpu_shares = Some(a.integer()?),
            "cpu_quota" => s.resources.cpu_quota = Some(cpu_time(a)?),
            "cpu_period" => s.resources.cpu_period = Some(cpu_time(a)?),
            "cpuset" => s.resources.cpuset = Some(a.some_text()?.to_owned()),
            "mem_limit" => s.resources.memory = deploy::amount(a)?,
            "mem_reservation" => s.resources.memory_reservation = deploy::amount(a)?,
            "memswap_limit" => s.resources.memory_swap = deploy::amount(a)?,
            "mem_swappiness" => s.resources.memory_swappiness = Some(a.bytes()?),
            "pids_limit" => s.resources.pids = deploy::pids(a)?,
            "shm_size" => s.resources.shm_size = deploy::amount(a)?,
            "ulimits" => s.ulimits = ulimits(a)?,
            "sysctls" => s.sysctls = a.pairs()?,
            "logging" => s.logging = Some(logging(a)?),

            "privileged" => s.privileged = a.boolean()?,
            "cap_add" => s.cap_add = a.texts()?,
            "cap_drop" => s.cap_drop = a.texts()?,
            "security_opt" => s.security_opt = a.texts()?,
            "devices" => s.devices = devices(a)?,
            "device_cgroup_rules" => s.device_cgroup_rules = a.texts()?,
            "cgroup_parent" => s.cgroup_parent = Some(a.some_text()?.to_owned()),
            "runtime" => s.runtime = Some(a.some_text()?.to_owned()),
            "pid" if a.is_null() => {}
            "pid" => s.pid = namespace(a, &["host"])?,
            "ipc" => s.ipc = namespace(a, &["host", "private", "shareable", "none"])?,
            "uts" => s.uts = namespace(a, &["host"])?,
            "userns_mode" => s.userns_mode = namespace(a, &["host", "private"])?,
            "cgroup" => s.cgroup = namespace(a, &["host", "private"])?,
            "oom_score_adj" => s.oom_score_adj = Some(oom_score(a)?),
            "oom_kill_disable" => s.oom_kill_disable = a.boolean()?,
            _ => return Err(a.unknown(KNOWN, LATER)),
        }
    }
    service.environment.extend(own_environment);
    service.replicas = deployed.join(field, &mut service.resources, scale)?;
    if let Some(restart) = deployed.restart {
        service.restart = restart;
    }
    Ok(enabled.then_some(service))
}

/// The image; with `build` alone the one that docker compose would tag. None for a disabled service without any.
fn image(field: &Field<'_>, name: &ServiceName, enabled: bool) -> Result<Option<ImageRef>, ComposeError> {
    if let Some(image) = field.get("image") {
        return image.parsed(ImageRef::parse).map(Some);
    }
    if field.get("build").is_some() {
        let built = format!("{}-{name}", field.cx.input.project).to_ascii_lowercase();
        return ImageRef::parse(&built).map(Some).map_err(|_| field.error("its name makes no image name: add `image`"));
    }
    // Before "no image", because an unknown attribute may be the misspelt one.
    for attribute in field.attributes()? {
        if !KNOWN.contains(&attribute.key()) {
            return Err(attribute.unknown(KNOWN, LATER));
        }
    }
    if enabled { Err(field.error("has neither `image` nor `build`")) } else { Ok(None) }
}

fn blank(image: ImageRef) -> Service {
    Service {
        image,
        build: false,
        pull_policy: PullPolicy::Missing,
        platform: None,
        container_name: None,
        replicas: 1,
        command: None,
        entrypoint: None,
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        user: None,
        group_add: Vec::new(),
        working_dir: None,
        hostname: None,
        domainname: None,
        init: None,
        tty: false,
        stdin_open: false,
        read_only: false,
        stop_signal: None,
        stop_grace_period: None,
        restart: RestartPolicy::No,
        depends_on: BTreeMap::new(),
        healthcheck: None,
        ports: Vec::new(),
        expose: Vec::new(),
        network_mode: None,
        networks: BTreeMap::new(),
        mac_address: None,
        dns: Vec::new(),
        dns_search: Vec::new(),
        dns_opt: Vec::new(),
        extra_hosts: BTreeMap::new(),
        mounts: Vec::new(),
        tmpfs: BTreeMap::new(),
        configs: Vec::new(),
        secrets: Vec::new(),
        resources: Resources::default(),
        ulimits: BTreeMap::new(),
        sysctls: BTreeMap::new(),
        logging: None,
        privileged: false,
        cap_add: Vec::new(),
        cap_drop: Vec::new(),
        security_opt: Vec::new(),
        devices: Vec::new(),
        device_cgroup_rules: Vec::new(),
        cgroup_parent: None,
        runtime: None,
        pid: None,
        ipc: None,
        uts: None,
        userns_mode: None,
        cgroup: None,
        oom_score_adj: None,
        oom_kill_disable: false,
    }
}

fn pull_policy(field: &Field<'_>) -> Result<PullPolicy, ComposeError> {
    match field.text()? {
        "always" => Ok(PullPolicy::Always),
        "never" => Ok(PullPolicy::Never),
        "missing" | "if_not_present" => Ok(PullPolicy::Missing),
        "build" => Ok(PullPolicy::Build),
        other if matches!(other, "daily" | "weekly" | "refresh") || other.starts_with("every_") => {
            Err(field.error("is not supported by this agent yet: use always, missing or never"))
        }
        _ => Err(field.error("must be always, never, missing or if_not_present")),
    }
}

/// `command` and `entrypoint`: null is the image's own, an empty one clears it.
fn command(field: &Field<'_>) -> Result<Option<Vec<String>>, ComposeError> {
    if field.is_null() {
        return Ok(None);
    }
    if !field.is_sequence() {
        return words::split(field.text()?).map(Some).map_err(|error| field.error(error.to_string()));
    }
    field.items()?.map(|item| item.text().map(str::to_owned)).collect::<Result<_, _>>().map(Some)
}

fn group_add(field: &Field<'_>) -> Result<Vec<String>, ComposeError> {
    let mut groups: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    for item in field.items()? {
        let group = item.text_or_number()?.into_owned();
        if seen.insert(group.clone()) {
            groups.push(group);
        }
    }
    Ok(groups)
}

fn restart(field: &Field<'_>) -> Result<RestartPolicy, ComposeError> {
    let text = field.text()?;
    let (name, attempts) = text.split_once(':').map_or((text, None), |(name, attempts)| (name, Some(attempts)));
    match (name, attempts) {
        ("" | "no", None) => Ok(RestartPolicy::No),
        ("always", None) => Ok(RestartPolicy::Always),
        ("unless-stopped", None) => Ok(RestartPolicy::UnlessStopped),
        ("on-failure", None) => Ok(RestartPolicy::OnFailure(None)),
        ("on-failure", Some(attempts)) => match attempts.parse::<u32>() {
            Ok(attempts) => Ok(RestartPolicy::OnFailure(Some(attempts).filter(|&attempts| attempts > 0))),
            Err(_) => Err(field.error("the number after on-failure: must be a whole number")),
        },
        _ => Err(field.error("must be \"no\", always, on-failure, on-failure:N or unless-stopped")),
    }
}

/// `{host: address or addresses}`, or a list of `host:address` and `host=address`.
fn extra_hosts(field: &Field<'_>) -> Result<BTreeMap<String, Vec<String>>, ComposeError> {
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |at: &Field<'_>, host: &str, address: &str| {
        let address = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
        if host.is_empty() || (address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err()) {
            return Err(at.error("must be HOST:ADDRESS with an IP address or host-gateway"));
        }
        hosts.entry(host.to_owned()).or_default().push(address.to_owned());
        Ok(())
    };
    if field.is_sequence() {
        for item in field.items()? {
            let text = item.text()?;
            let (host, address) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
            add(&item, host, address)?;
        }
    } else if field.is_mapping() {
        for entry in field.entries()? {
            for address in entry.text_or_texts()? {
                add(&entry, entry.key(), &address)?;
            }
        }
    } else {
        return Err(field.expected("a list or a mapping"));
    }
    Ok(hosts)
}

/// Microseconds, as a number or a duration.
fn cpu_time(field: &Field<'_>) -> Result<i64, ComposeError> {
    match field.integer() {
        Ok(micros) => Ok(micros),
        Err(_) => match field.duration() {
            Ok(duration) => i64::try_from(duration.as_micros()).map_err(|_| field.error("is too large")),
            Err(_) => Err(field.error("must be a number of microseconds")),
        },
    }
}

/// `{name: limit}` or `{name: {soft, hard}}`.
fn ulimits(field: &Field<'_>) -> Result<BTreeMap<String, Ulimit>, ComposeError> {
    let mut ulimits = BTreeMap::new();
    for entry in field.entries()? {
        if entry.key().is_empty() || !entry.key().bytes().all(|c| c.is_ascii_lowercase()) {
            return Err(entry.error("the name of a limit has only letters a-z, such as nofile"));
        }
        let ulimit = if entry.is_mapping() {
            let (mut soft, mut hard) = (None, None);
            for attribute in entry.attributes()? {
                match attribute.key() {
                    "soft" => soft = Some(attribute.integer()?),
                    "hard" => hard = Some(attribute.integer()?),
                    _ => return Err(attribute.unknown(&["soft", "hard"], &[])),
                }
            }
            match (soft, hard) {
                (Some(soft), Some(hard)) => Ulimit { soft, hard },
                _ => return Err(entry.error("needs both `soft` and `hard`")),
            }
        } else {
            let limit = entry.integer()?;
            Ulimit { soft: limit, hard: limit }
        };
        ulimits.insert(entry.key().to_owned(), ulimit);
    }
    Ok(ulimits)
}

fn logging(field: &Field<'_>) -> Result<Logging, ComposeError> {
    let mut logging = Logging { driver: None, options: BTreeMap::new() };
    for attribute in field.attributes()? {
        match attribute.key() {
            "driver" => logging.driver = Some(attribute.some_text()?.to_owned()),
            "options" => logging.options = attribute.options()?,
            _ => return Err(attribute.unknown(&["driver", "options"], &[])),
        }
    }
    Ok(logging)
}

/// `source[:target[:permissions]]`, or the same as a mapping.
fn devices(field: &Field<'_>) -> Result<Vec<String>, ComposeError> {
    let mut devices: Vec<String> = Vec::new();
    for item in field.items()? {
        if !item.is_mapping() {
            devices.push(item.some_text()?.to_owned());
            continue;
        }
        let (mut source, mut target, mut permissions) = (None, None, "rwm".to_owned());
        for attribute in item.attributes()? {
            match attribute.key() {
                "source" => source = Some(attribute.some_text()?.to_owned()),
                "target" => target = Some(attribute.some_text()?.to_owned()),
                "permissions" => attribute.some_text()?.clone_into(&mut permissions),
                _ => return Err(attribute.unknown(&["source", "target", "permissions"], &[])),
            }
        }
        let source = source.ok_or_else(|| item.error("has no `source`"))?;
        devices.push(format!("{source}:{}:{permissions}", target.as_deref().unwrap_or(&source)));
    }
    Ok(devices)
}

/// One of the words, `service:NAME` or `container:NAME`; empty is the default.
fn namespace(field: &Field<'_>, words: &[&str]) -> Result<Option<NamespaceMode>, ComposeError> {
    let text = field.text()?;
    Ok(Some(match text.split_once(':') {
        Some(("service", name)) => NamespaceMode::Service(reference(field, name)?),
        Some(("container", name)) if !name.is_empty() => NamespaceMode::Container(name.to_owned()),
        _ if text.is_empty() => return Ok(None),
        _ if !words.contains(&text) => {
            let words = words.join(", ");
            return Err(field.error(format!("must be {words}, service:NAME or container:NAME")));
        }
        _ => match text {
            "host" => NamespaceMode::Host,
            "private" => NamespaceMode::Private,
            "shareable" => NamespaceMode::Shareable,
            _ => NamespaceMode::None,
        },
    }))
}

fn oom_score(field: &Field<'_>) -> Result<i64, ComposeError> {
    let score = field.integer()?;
    if (-1000..=1000).contains(&score) { Ok(score) } else { Err(field.error("must be from -1000 to 1000")) }
}

impl Service {
    /// The services whose namespaces it shares.
    pub(in crate::compose) fn namespace_parents(&self) -> impl Iterator<Item = &ServiceName> {
        let network = match &self.network_mode {
            Some(NetworkMode::Service(name)) => Some(name),
            _ => None,
        };
        let others = [&self.pid, &self.ipc, &self.uts, &self.userns_mode, &self.cgroup];
        network.into_iter().chain(others.into_iter().filter_map(|mode| match mode {
            Some(NamespaceMode::Service(name)) => Some(name),
            _ => None,
        }))
    }
}

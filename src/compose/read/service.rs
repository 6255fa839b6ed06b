//! One service: the attributes, each read by a line here or by the file that knows its syntax.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::depends::{Dependencies, depends_on, imply, links, reference};
use super::files::Kind;
use super::{deploy, environment, files, foreign, health, hooks, networks, ports, resources, volumes};
use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::{Logging, NamespaceMode, PullPolicy, RestartPolicy, Service, VolumesFromSource};
use crate::compose::{units, words};
use crate::domain::{ContainerName, ImageRef, ServiceName};

/// Attributes of a service; only for "did you mean".
pub(super) const KNOWN: &[&str] = &[
    "annotations",
    "attach",
    "blkio_config",
    "build",
    "cap_add",
    "cap_drop",
    "cgroup",
    "cgroup_parent",
    "command",
    "configs",
    "container_name",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpu_shares",
    "cpus",
    "cpuset",
    "credential_spec",
    "depends_on",
    "deploy",
    "develop",
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
    "extends",
    "external_links",
    "extra_hosts",
    "gpus",
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "ipc",
    "isolation",
    "label_file",
    "labels",
    "links",
    "logging",
    "mac_address",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "models",
    "network_mode",
    "networks",
    "oom_kill_disable",
    "oom_score_adj",
    "pid",
    "pids_limit",
    "platform",
    "ports",
    "post_start",
    "pre_stop",
    "privileged",
    "profiles",
    "provider",
    "pull_policy",
    "pull_refresh_after",
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
    "storage_opt",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "use_api_socket",
    "user",
    "userns_mode",
    "uts",
    "volumes",
    "volumes_from",
    "working_dir",
];

/// Reads a service; none when its profiles are not active. What it refers to is only checked when it is enabled.
pub(super) fn read(field: &Field<'_>, name: &ServiceName) -> Result<Option<Service>, ComposeError> {
    if !field.is_mapping() {
        return Err(field.expected("a mapping"));
    }
    let enabled = field.cx.declared.services.get(name.as_str()).copied().unwrap_or(true);
    let Some(image) = image(field, name, enabled)? else { return Ok(None) };
    let mut service = Service::of(image);
    let mut own_environment = BTreeMap::new();
    let mut own_labels = BTreeMap::new();
    let mut dependencies = Dependencies::default();
    let mut refresh_after = None;
    for attribute in field.attributes()? {
        let a = &attribute;
        let s = &mut service;
        match a.key() {
            "image" => {}
            "profiles" => s.profiles = a.texts()?,
            "attach" => {
                s.attach = Some(a.boolean()?);
                a.ignored();
            }
            "build" => s.build = Some(foreign::build(a)?),
            "pull_policy" => s.pull_policy = Some(pull_policy(a)?),
            "pull_refresh_after" => refresh_after = Some(a.duration()?),
            "platform" => s.platform = a.optional_text()?,
            "container_name" => s.container_name = Some(a.parsed(ContainerName::parse)?.to_string()),
            "scale" => s.scale = Some(a.count()?),
            "deploy" => s.deploy = deploy::read(a)?,

            "command" => s.command = command(a)?,
            "entrypoint" => s.entrypoint = command(a)?,
            "environment" => own_environment = environment::environment(a)?,
            "env_file" => s.environment = environment::env_files(a)?,
            "labels" => own_labels = a.pairs()?,
            "label_file" => (s.labels, s.missing_label_files) = environment::label_files(a)?,
            "annotations" => s.annotations = a.pairs()?,
            "user" => s.user = a.optional_text()?,
            "group_add" => s.group_add = group_add(a)?,
            "working_dir" => s.working_dir = a.optional_text()?,
            "hostname" => s.hostname = a.optional_text()?,
            "domainname" => s.domainname = a.optional_text()?,
            "init" => s.init = Some(a.boolean()?),
            "tty" => s.tty = a.boolean()?,
            "stdin_open" => s.stdin_open = a.boolean()?,
            "read_only" => s.read_only = a.boolean()?,
            "stop_signal" => s.stop_signal = a.optional_text()?,
            "stop_grace_period" => s.stop_grace_period = Some(a.duration()?),
            "restart" if a.text() == Ok("") => {}
            "restart" => s.restart = Some(restart(a)?),
            "post_start" => s.post_start = hooks::hooks(a)?,
            "pre_stop" => s.pre_stop = hooks::hooks(a)?,

            "depends_on" => depends_on(a, enabled, &mut dependencies)?,
            "healthcheck" => s.healthcheck = Some(health::healthcheck(a)?),

            "ports" => s.ports = ports::ports(a)?,
            "expose" => s.expose = ports::expose(a)?,
            "network_mode" if a.text() == Ok("") => {}
            "network_mode" => s.network_mode = Some(networks::mode(a)?),
            "networks" => s.networks = networks::of_service(a, enabled)?,
            "mac_address" => s.mac_address = a.optional_text()?,
            "dns" => s.dns = a.text_or_texts()?,
            "dns_search" => s.dns_search = a.text_or_texts()?,
            "dns_opt" => s.dns_opt = a.texts()?,
            "extra_hosts" => s.extra_hosts = extra_hosts(a)?,
            "links" => s.links = links(a)?,
            "external_links" => s.external_links = a.texts()?,

            "volumes" => s.mounts = volumes::mounts(a, enabled)?,
            "volumes_from" => s.volumes_from = volumes::volumes_from(a)?,
            "tmpfs" => s.tmpfs = volumes::tmpfs(a)?,
            "configs" => s.configs = files::references(a, Kind::Config, enabled)?,
            "secrets" => s.secrets = files::references(a, Kind::Secret, enabled)?,
            "storage_opt" => s.storage_opt = a.options()?,

            "cpus" => s.resources.nano_cpus = resources::nano_cpus(a)?,
            "cpu_shares" => s.resources.cpu_shares = Some(a.integer()?),
            "cpu_quota" => s.resources.cpu_quota = Some(resources::cpu_time(a)?),
            "cpu_period" => s.resources.cpu_period = Some(resources::cpu_time(a)?),
            "cpu_rt_period" => s.resources.cpu_rt_period = Some(resources::cpu_time(a)?),
            "cpu_rt_runtime" => s.resources.cpu_rt_runtime = Some(resources::cpu_time(a)?),
            "cpu_count" => s.resources.cpu_count = Some(a.count()?.into()),
            "cpu_percent" => s.resources.cpu_percent = Some(hundredths(a)?),
            "cpuset" => s.resources.cpuset = a.optional_text()?,
            "mem_limit" => s.resources.memory = resources::amount(a)?,
            "mem_reservation" => s.resources.memory_reservation = resources::amount(a)?,
            "memswap_limit" => s.resources.memory_swap = resources::amount(a)?,
            "mem_swappiness" => s.resources.memory_swappiness = Some(a.bytes()?),
            "pids_limit" => s.resources.pids = resources::pids(a)?,
            "shm_size" => s.resources.shm_size = resources::amount(a)?,
            "blkio_config" => s.blkio_config = Some(resources::blkio(a)?),
            "ulimits" => s.ulimits = resources::ulimits(a)?,
            "sysctls" => s.sysctls = a.pairs()?,
            "logging" => s.logging = Some(logging(a)?),

            "privileged" => s.privileged = a.boolean()?,
            "cap_add" => s.cap_add = a.texts()?,
            "cap_drop" => s.cap_drop = a.texts()?,
            "security_opt" => s.security_opt = a.distinct_texts()?,
            "devices" => s.devices = resources::devices(a)?,
            "device_cgroup_rules" => s.device_cgroup_rules = a.texts()?,
            "gpus" => s.gpus = resources::gpus(a)?,
            "cgroup_parent" => s.cgroup_parent = a.optional_text()?,
            "runtime" => s.runtime = a.optional_text()?,
            "isolation" => s.isolation = a.optional_text()?,
            "pid" if a.is_null() => {}
            "pid" => s.pid = namespace(a, &["host"])?,
            "ipc" => s.ipc = namespace(a, &["host", "private", "shareable", "none"])?,
            "uts" => s.uts = namespace(a, &["host"])?,
            "userns_mode" => s.userns_mode = namespace(a, &["host", "private"])?,
            "cgroup" => s.cgroup = namespace(a, &["host", "private"])?,
            "oom_score_adj" => s.oom_score_adj = Some(oom_score(a)?),
            "oom_kill_disable" => s.oom_kill_disable = a.boolean()?,
            key => match foreign::shape_of(foreign::SERVICE, key) {
                Some(shape) => {
                    s.foreign.insert(key.to_owned(), foreign::of_service(a, shape)?);
                }
                None => return Err(a.unknown(KNOWN)),
            },
        }
    }
    service.image_is_implied = field.get("image").is_none();
    service.environment.extend(own_environment);
    service.labels.extend(own_labels);
    if let (Some(PullPolicy::Refresh { after, .. }), Some(refresh_after)) = (&mut service.pull_policy, refresh_after) {
        *after = refresh_after;
    }
    if let Some(deploy) = service.deploy.as_ref().filter(|_| enabled) {
        deploy::agrees(field, deploy, &service.resources, service.scale)?;
    }
    for link in &service.links {
        imply(&part(field, "links"), link.service.as_str(), true, enabled, &mut dependencies)?;
    }
    for (attribute, name) in service.namespace_parents() {
        imply(&part(field, attribute), name.as_str(), true, enabled, &mut dependencies)?;
    }
    for from in &service.volumes_from {
        if let VolumesFromSource::Service(name) = &from.source {
            imply(&part(field, "volumes_from"), name.as_str(), false, enabled, &mut dependencies)?;
        }
    }
    dependencies.store(&mut service);
    Ok(enabled.then_some(service))
}

/// The attribute, which is there.
fn part<'f>(field: &'f Field<'f>, name: &str) -> Field<'f> {
    field.get(name).unwrap_or(*field)
}

/// The image; with `build` alone the one that docker compose would tag. None for a disabled service without any.
fn image(field: &Field<'_>, name: &ServiceName, enabled: bool) -> Result<Option<ImageRef>, ComposeError> {
    if let Some(image) = field.get("image") {
        return image.parsed(ImageRef::parse).map(Some);
    }
    let implied = || {
        let built = format!("{}-{name}", field.cx.input.project).to_ascii_lowercase();
        ImageRef::parse(&built).map(Some).map_err(|_| field.error("its name makes no image name: add `image`"))
    };
    if field.get("build").is_some() {
        return implied();
    }
    if field.get("provider").is_some() {
        return implied();
    }
    // Before "no image", because an unknown attribute may be the misspelt one.
    for attribute in field.attributes()? {
        if !KNOWN.contains(&attribute.key()) {
            return Err(attribute.unknown(KNOWN));
        }
    }
    if enabled { Err(field.error("has neither `image` nor `build`")) } else { Ok(None) }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn pull_policy(field: &Field<'_>) -> Result<PullPolicy, ComposeError> {
    match field.text()? {
        "always" => Ok(PullPolicy::Always),
        "never" => Ok(PullPolicy::Never),
        "missing" | "if_not_present" => Ok(PullPolicy::Missing),
        "build" => Ok(PullPolicy::Build),
        word => {
            let every = word.strip_prefix("every_").map(units::duration);
            let after = match word {
                "daily" => Some(DAY),
                "weekly" => Some(7 * DAY),
                // How long is for `pull_refresh_after` to say; without it every apply refreshes.
                "refresh" => Some(Duration::ZERO),
                _ => every.flatten(),
            };
            let rule = "must be always, never, missing, if_not_present, build, daily, weekly or every_ with a duration";
            after.map(|after| PullPolicy::Refresh { word: word.to_owned(), after }).ok_or_else(|| field.error(rule))
        }
    }
}

/// `command` and `entrypoint`: null is the image's own, an empty one clears it.
pub(super) fn command(field: &Field<'_>) -> Result<Option<Vec<String>>, ComposeError> {
    if field.is_null() {
        return Ok(None);
    }
    if !field.is_sequence() {
        return words::split(field.text()?).map(Some).map_err(|error| field.error(error.to_string()));
    }
    field.items()?.map(|item| item.text().map(str::to_owned)).collect::<Result<_, _>>().map(Some)
}

fn group_add(field: &Field<'_>) -> Result<Vec<String>, ComposeError> {
    field.distinct()?;
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
        ("no", None) => Ok(RestartPolicy::No),
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
pub(super) fn extra_hosts(field: &Field<'_>) -> Result<BTreeMap<String, Vec<String>>, ComposeError> {
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut add = |at: &Field<'_>, host: &str, address: &str| {
        let address = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
        if host.is_empty() || (address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err()) {
            return Err(at.error("must be HOST:ADDRESS with an IP address or host-gateway"));
        }
        if seen.insert((host.to_owned(), address.to_owned())) {
            hosts.entry(host.to_owned()).or_default().push(address.to_owned());
        }
        Ok(())
    };
    if field.is_sequence() {
        field.distinct()?;
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

/// A percentage in hundredths.
#[allow(clippy::cast_possible_truncation, reason = "the range is checked")]
fn hundredths(field: &Field<'_>) -> Result<i64, ComposeError> {
    let percent = field.number()?;
    if (0.0..=100.0).contains(&percent) {
        Ok((percent * 100.0).round() as i64)
    } else {
        Err(field.error("must be a percentage from 0 to 100"))
    }
}

fn logging(field: &Field<'_>) -> Result<Logging, ComposeError> {
    let mut logging = Logging { driver: None, options: BTreeMap::new() };
    for attribute in field.attributes()? {
        match attribute.key() {
            "driver" => logging.driver = attribute.optional_text()?,
            "options" => logging.options = log_options(&attribute)?,
            _ => return Err(attribute.unknown(&["driver", "options"])),
        }
    }
    Ok(logging)
}

/// Options of a logging driver: strings and numbers, nothing is an empty one.
fn log_options(field: &Field<'_>) -> Result<BTreeMap<String, String>, ComposeError> {
    let option = |entry: Field<'_>| {
        let value = if entry.is_null() { String::new() } else { entry.text_or_number()?.into_owned() };
        Ok((entry.key().to_owned(), value))
    };
    field.entries()?.map(option).collect()
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

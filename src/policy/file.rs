//! An operator's policy file (TOML).
//!
//! ```toml
//! profile = "baseline"                      # where it starts from: baseline, restricted or trusted
//! registries = ["ghcr.io", "10.0.0.9:5000"] # only these; without it: all but loopback, IP and single-label hosts
//! host_credentials = false                  # whether tenants pull with DOCKER_REGISTRY_*; without it: all do
//!
//! [grants]                                  # beyond the profile
//! capabilities = ["SYS_PTRACE"]
//! binds = ["/srv/media", "/srv/inbox:rw"]
//! ports = ["443", "8000-8099"]
//! publish_hosts = ["0.0.0.0"]
//! external_networks = ["proxy"]
//! labels = ["traefik."]
//! sysctls = ["net.core.somaxconn"]
//!
//! [limits]                                  # the sums of one tenant; "none" lifts one
//! services = 20
//! cpus = 4.0
//! memory = "8GiB"
//!
//! [defaults]                                # of a container whose service says nothing
//! memory = "256MiB"
//!
//! [host]                                    # what the tenants may not have
//! reserve_memory = "1GiB"
//!
//! [tenants.acme]                            # for one tenant; profile, registries, host_credentials, grants and limits
//! profile = "trusted"
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytesize::ByteSize;
use serde::Deserialize;

use super::limits::Defaults;
use super::rules::{BindGrant, Grants, HostShare, OfTenant, Profile, Rules};
use crate::domain::{Limits, NANO_CPUS, ObjectName, RegistryAuth, Subdomain};

/// Why a policy file is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// It is not TOML, has an unknown key, or a value of another type.
    #[error("{}", .0.to_string().trim_end())]
    Toml(#[from] toml::de::Error),
    /// A value that is not allowed.
    #[error("{key}: must be {allowed}")]
    Value {
        /// The key, such as `grants.binds[0]`.
        key: String,
        /// What may be there.
        allowed: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "baseline")]
    profile: Profile,
    registries: Option<Vec<String>>,
    host_credentials: Option<bool>,
    #[serde(default)]
    grants: GrantsText,
    #[serde(default)]
    limits: LimitsText,
    #[serde(default)]
    defaults: DefaultsText,
    #[serde(default)]
    host: HostText,
    #[serde(default)]
    tenants: BTreeMap<String, TenantText>,
}

fn baseline() -> Profile {
    Profile::Baseline
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantText {
    profile: Option<Profile>,
    registries: Option<Vec<String>>,
    host_credentials: Option<bool>,
    #[serde(default)]
    grants: GrantsText,
    #[serde(default)]
    limits: LimitsText,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct GrantsText {
    capabilities: Vec<String>,
    binds: Vec<String>,
    ports: Vec<String>,
    publish_hosts: Vec<String>,
    external_networks: Vec<String>,
    labels: Vec<String>,
    sysctls: Vec<String>,
}

/// A count, CPUs, a size or `none`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number or a text such as \"512MiB\"")]
enum Amount {
    Count(u64),
    Fraction(f64),
    Text(String),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct LimitsText {
    services: Option<Amount>,
    containers: Option<Amount>,
    networks: Option<Amount>,
    volumes: Option<Amount>,
    ports: Option<Amount>,
    cpus: Option<Amount>,
    memory: Option<Amount>,
    pids: Option<Amount>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct DefaultsText {
    cpus: Option<Amount>,
    memory: Option<Amount>,
    pids: Option<Amount>,
    nofile: Option<Amount>,
    shm_size: Option<Amount>,
    log_size: Option<Amount>,
    log_files: Option<Amount>,
    reserved_memory: Option<Amount>,
    reserved_cpus: Option<Amount>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct HostText {
    reserve_memory: Option<Amount>,
    reserve_cpus: Option<Amount>,
    memory_overcommit: Option<f64>,
    cpu_overcommit: Option<f64>,
}

/// Reads a file.
pub(super) fn parse(text: &str) -> Result<Rules, PolicyFileError> {
    let file: File = toml::from_str(text)?;
    let tenants = file.tenants.iter().map(|(name, own)| {
        let key = format!("tenants.{name}");
        let tenant = Subdomain::parse(name).map_err(|_| wrong(&key, "named as a tenant's subdomain"))?;
        let own = OfTenant {
            profile: own.profile,
            registries: registries(&key, own.registries.as_deref())?,
            host_credentials: own.host_credentials,
            grants: grants(&format!("{key}.grants"), &own.grants)?,
            limits: limits(&format!("{key}.limits"), &own.limits)?,
        };
        Ok((tenant, own))
    });
    Ok(Rules {
        profile: file.profile,
        registries: registries("", file.registries.as_deref())?,
        host_credentials: file.host_credentials.unwrap_or(true),
        grants: grants("grants", &file.grants)?,
        limits: limits("limits", &file.limits)?,
        defaults: defaults(&file.defaults)?,
        host: host(&file.host)?,
        tenants: tenants.collect::<Result<_, PolicyFileError>>()?,
    })
}

fn wrong(key: &str, allowed: &'static str) -> PolicyFileError {
    PolicyFileError::Value { key: key.to_owned(), allowed }
}

/// Every item of a list, each through `read`; the key of one that is wrong says which.
fn items<T, C: FromIterator<T>>(
    key: &str,
    texts: &[String],
    allowed: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<C, PolicyFileError> {
    let read = |(at, text): (usize, &String)| read(text).ok_or_else(|| wrong(&format!("{key}[{at}]"), allowed));
    texts.iter().enumerate().map(read).collect()
}

fn registries(key: &str, texts: Option<&[String]>) -> Result<Option<BTreeSet<String>>, PolicyFileError> {
    let key = if key.is_empty() { "registries".to_owned() } else { format!("{key}.registries") };
    let allowed = "registry hosts as in image references, such as ghcr.io or 127.0.0.1:5000 (docker.io for the Hub)";
    texts.map(|texts| items(&key, texts, allowed, |text| RegistryAuth::parse_host(text).ok())).transpose()
}

fn grants(key: &str, text: &GrantsText) -> Result<Grants, PolicyFileError> {
    let at = |member: &str| format!("{key}.{member}");
    let binds: Vec<BindGrant> = items(
        &at("binds"),
        &text.binds,
        "an absolute, clean path of the host other than /, with :rw when containers may write there",
        bind,
    )?;
    // Who can write a directory can put a link into it, and the engine would follow it out of what is granted.
    for (index, grant) in binds.iter().enumerate() {
        let below = |other: &BindGrant| {
            other.read_write && grant.path.strip_prefix(&other.path).is_some_and(|rest| rest.starts_with('/'))
        };
        if binds.iter().any(below) {
            return Err(wrong(&format!("{key}.binds[{index}]"), "no path below one that is granted with :rw"));
        }
    }
    Ok(Grants {
        capabilities: items(
            &at("capabilities"),
            &text.capabilities,
            "a capability such as SYS_PTRACE, or ALL",
            |text| {
                let name = super::privileges::capability_name(text);
                let good = !name.is_empty()
                    && !name.starts_with("CAP_")
                    && name.bytes().all(|c| c.is_ascii_uppercase() || c == b'_' || c.is_ascii_digit());
                good.then_some(name)
            },
        )?,
        binds,
        ports: items(&at("ports"), &text.ports, "a port or a range of ports such as 8000-8099", ports)?,
        publish_hosts: items(&at("publish_hosts"), &text.publish_hosts, "an IP address", |text| {
            text.parse::<IpAddr>().ok()
        })?,
        external_networks: items(&at("external_networks"), &text.external_networks, "a network's name", |text| {
            ObjectName::parse(text).ok().filter(|name| !matches!(name.as_str(), "host" | "bridge" | "none" | "default"))
        })?,
        labels: items(
            &at("labels"),
            &text.labels,
            "a label or the beginning of labels, none of com.docker.compose. and dev.q8.",
            |text| super::labels::may_be_granted(text).then(|| text.to_owned()),
        )?,
        sysctls: items(&at("sysctls"), &text.sysctls, "the name of a kernel parameter", |text| {
            let good =
                !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'));
            good.then(|| text.to_owned())
        })?,
    })
}

fn bind(text: &str) -> Option<BindGrant> {
    let (path, read_write) = match text.strip_suffix(":rw") {
        Some(path) => (path, true),
        None => (text.strip_suffix(":ro").unwrap_or(text), false),
    };
    let clean = path.strip_prefix('/')?.split('/').all(|part| !matches!(part, "" | "." | ".."));
    clean.then(|| BindGrant { path: path.to_owned(), read_write })
}

fn ports(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (low.trim().parse::<u16>().ok()?, high.trim().parse::<u16>().ok()?);
    (low > 0 && low <= high).then_some((low, high))
}

/// Reads the members of one table.
struct Amounts<'a>(&'a str);

impl Amounts<'_> {
    fn wrong<T>(&self, member: &str, allowed: &'static str) -> Result<T, PolicyFileError> {
        Err(wrong(&format!("{}.{member}", self.0), allowed))
    }

    fn count(&self, member: &str, amount: Option<&Amount>) -> Result<Option<u64>, PolicyFileError> {
        match amount {
            None => Ok(None),
            Some(Amount::Count(count)) => Ok(Some(*count)),
            Some(Amount::Text(text)) if text == "none" => Ok(Some(u64::MAX)),
            Some(_) => self.wrong(member, "a whole number, or \"none\""),
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    fn cpus(&self, member: &str, amount: Option<&Amount>) -> Result<Option<u64>, PolicyFileError> {
        let cpus = match amount {
            None => return Ok(None),
            Some(Amount::Text(text)) if text == "none" => return Ok(Some(u64::MAX)),
            Some(Amount::Count(count)) if *count <= 1_000_000 => return Ok(Some(count * NANO_CPUS)),
            Some(Amount::Fraction(cpus)) => *cpus,
            Some(_) => return self.wrong(member, "a number of CPUs such as 1.5, or \"none\""),
        };
        if (0.0..=1e6).contains(&cpus) {
            Ok(Some((cpus * 1e9).round() as u64))
        } else {
            self.wrong(member, "a number of CPUs such as 1.5, or \"none\"")
        }
    }

    fn bytes(&self, member: &str, amount: Option<&Amount>) -> Result<Option<u64>, PolicyFileError> {
        match amount {
            None => Ok(None),
            Some(Amount::Count(bytes)) => Ok(Some(*bytes)),
            Some(Amount::Text(text)) if text == "none" => Ok(Some(u64::MAX)),
            Some(Amount::Text(text)) if text.parse::<ByteSize>().is_ok() => {
                Ok(text.parse::<ByteSize>().ok().map(|size| size.as_u64()))
            }
            Some(_) => self.wrong(member, "a size such as \"512MiB\", a number of bytes, or \"none\""),
        }
    }

    /// What a default or a reservation must be: there is no container without it.
    fn given(&self, member: &str, amount: Option<u64>, default: u64) -> Result<u64, PolicyFileError> {
        match amount {
            None => Ok(default),
            Some(0 | u64::MAX) => self.wrong(member, "more than 0, and not \"none\""),
            Some(amount) if i64::try_from(amount).is_err() => self.wrong(member, "less than 8 EiB"),
            Some(amount) => Ok(amount),
        }
    }
}

fn limits(key: &str, text: &LimitsText) -> Result<Limits, PolicyFileError> {
    let amounts = Amounts(key);
    let count = |member: &str, amount: &Option<Amount>| amounts.count(member, amount.as_ref());
    Ok(Limits {
        services: count("services", &text.services)?,
        containers: count("containers", &text.containers)?,
        networks: count("networks", &text.networks)?,
        volumes: count("volumes", &text.volumes)?,
        ports: count("ports", &text.ports)?,
        nano_cpus: amounts.cpus("cpus", text.cpus.as_ref())?,
        memory: amounts.bytes("memory", text.memory.as_ref())?,
        pids: count("pids", &text.pids)?,
    })
}

fn defaults(text: &DefaultsText) -> Result<Defaults, PolicyFileError> {
    let amounts = Amounts("defaults");
    let base = Defaults::default();
    let count = |member: &str, amount: &Option<Amount>, default: u64| {
        amounts.given(member, amounts.count(member, amount.as_ref())?, default)
    };
    let bytes = |member: &str, amount: &Option<Amount>, default: u64| {
        amounts.given(member, amounts.bytes(member, amount.as_ref())?, default)
    };
    let cpus = |member: &str, amount: &Option<Amount>, default: u64| {
        amounts.given(member, amounts.cpus(member, amount.as_ref())?, default)
    };
    Ok(Defaults {
        nano_cpus: cpus("cpus", &text.cpus, base.nano_cpus)?,
        memory: bytes("memory", &text.memory, base.memory)?,
        pids: count("pids", &text.pids, base.pids)?,
        nofile: count("nofile", &text.nofile, base.nofile)?,
        shm_size: bytes("shm_size", &text.shm_size, base.shm_size)?,
        log_size: bytes("log_size", &text.log_size, base.log_size)?,
        log_files: count("log_files", &text.log_files, base.log_files)?,
        reserved_memory: bytes("reserved_memory", &text.reserved_memory, base.reserved_memory)?,
        reserved_nano_cpus: cpus("reserved_cpus", &text.reserved_cpus, base.reserved_nano_cpus)?,
    })
}

fn host(text: &HostText) -> Result<HostShare, PolicyFileError> {
    let amounts = Amounts("host");
    let base = HostShare::default();
    let factor = |member: &str, factor: Option<f64>, default: f64| match factor {
        None => Ok(default),
        Some(factor) if (0.1..=1000.0).contains(&factor) => Ok(factor),
        Some(_) => amounts.wrong(member, "a factor from 0.1 to 1000"),
    };
    Ok(HostShare {
        reserve_memory: amounts.bytes("reserve_memory", text.reserve_memory.as_ref())?.unwrap_or(base.reserve_memory),
        reserve_nano_cpus: amounts.cpus("reserve_cpus", text.reserve_cpus.as_ref())?.unwrap_or(base.reserve_nano_cpus),
        memory_overcommit: factor("memory_overcommit", text.memory_overcommit, base.memory_overcommit)?,
        cpu_overcommit: factor("cpu_overcommit", text.cpu_overcommit, base.cpu_overcommit)?,
    })
}

//! Settings: environment variables in, a checked [`Config`] out, or one error that names the variable and says what is
//! allowed. Values are never repeated in errors: some are secrets, and all end up in somebody's log.

mod aci;
mod settings;
mod tokens;
mod values;

pub use aci::{AciCredentials, AciRegion, AciRegistryIdentity, AciSettings};
pub use settings::{SETTINGS, Setting};
pub use tokens::{MIN_TOKEN_LENGTH, TokenDigest, TokenSources, Tokens};
pub use values::SubnetPool;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use self::aci::AzureVariables;
use crate::domain::{BackendName, RegistryAuth};
use crate::policy::{Profile, Rules};
use crate::telemetry::{LogFilter, LogFormat};

const PREFIX: &str = "Q8_AGENT_";
const DOCKER_PREFIX: &str = "DOCKER_";
const SECOND: Duration = Duration::from_secs(1);

/// Why the agent does not start with these settings.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ConfigError {
    #[error("{name} is not UTF-8")]
    NotUnicode { name: String },
    #[error("{name} is not a setting of this agent{}", .nearest.map_or_else(|| "; see q8-agent --help".to_owned(), |near| format!("; did you mean {near}?")))]
    Unknown { name: String, nearest: Option<&'static str> },
    #[error("{name} must be {allowed}")]
    Invalid { name: &'static str, allowed: &'static str },
    #[error("{name}={value} is not built into this agent; {allowed}")]
    NotBuilt { name: &'static str, value: &'static str, allowed: &'static str },
    #[error("{name} and {file_name} are both set: set one of them")]
    Both { name: &'static str, file_name: &'static str },
    #[error("Q8_AGENT_POLICY: {0}")]
    Policy(crate::policy::PolicyFileError),
    #[error("{name}: the file cannot be read ({kind})")]
    Unreadable { name: &'static str, kind: std::io::ErrorKind },
    #[error(
        "Q8_AGENT_ADMIN_TOKEN is not set (nor Q8_AGENT_ADMIN_TOKEN_FILE): set a random token of 32 characters or more; \
         `openssl rand -hex 32` makes one"
    )]
    NoAdminToken,
    #[error("{name} {problem}; `openssl rand -hex 32` makes a good token")]
    Token { name: String, problem: &'static str },
    #[error("the settings could not be read: {0}")]
    Read(#[from] envy::Error),
}

/// Everything that is decided before the agent starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The bearer tokens at start.
    pub tokens: Tokens,
    /// Where to read them again.
    pub token_sources: TokenSources,
    /// The directory of the tenants: absolute, clean, the same path on the host.
    pub tenants_root: PathBuf,
    /// Where tenants run that name no placement.
    pub backend: BackendName,
    /// The Docker Engine's Unix socket.
    pub docker_socket: PathBuf,
    /// What stacks may do.
    pub policy: Rules,
    /// Most tenants on this host.
    pub max_tenants: usize,
    /// Where the tenants' networks get their subnets.
    pub subnet_pool: SubnetPool,
    /// The address on which tenants' ports are published.
    pub publish_host: IpAddr,
    /// The host ports they may publish, both ends included.
    pub publish_ports: (u16, u16),
    /// The longest time for one operation.
    pub operation_timeout: Duration,
    /// How long a second operation on a tenant waits for the first.
    pub busy_wait: Duration,
    /// The largest request body in bytes.
    pub max_body: usize,
    /// The most connections at a time: in all, and of one address.
    pub max_connections: (usize, usize),
    /// How long the files of torn-down tenants are kept.
    pub archive_retention: Duration,
    /// After how long in a crash loop a service is stopped; never when none.
    pub crash_loop_limit: Option<Duration>,
    /// Credentials of the host's own registry.
    pub registry: Option<RegistryAuth>,
    /// Azure Container Instances; none when tenants cannot be placed there.
    pub aci: Option<AciSettings>,
    /// Which events are logged.
    pub log_filter: LogFilter,
    /// In which form.
    pub log_format: LogFormat,
}

/// The variables that start with `Q8_AGENT_`. All are text here, because envy's own errors for numbers repeat the value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentVariables {
    host: Option<String>,
    port: Option<String>,
    admin_token: Option<String>,
    admin_token_file: Option<String>,
    read_token: Option<String>,
    read_token_file: Option<String>,
    tenants_root: Option<String>,
    backend: Option<String>,
    policy: Option<String>,
    max_tenants: Option<String>,
    subnet_pool: Option<String>,
    publish_host: Option<String>,
    publish_ports: Option<String>,
    operation_timeout: Option<String>,
    busy_wait: Option<String>,
    max_body: Option<String>,
    max_connections: Option<String>,
    max_connections_per_peer: Option<String>,
    archive_retention: Option<String>,
    crash_loop_limit: Option<String>,
    log: Option<String>,
    log_format: Option<String>,
    aci_regions: Option<String>,
    aci_api_version: Option<String>,
    aci_prices: Option<String>,
    aci_registry_identities: Option<String>,
    arm_endpoint: Option<String>,
    imds_endpoint: Option<String>,
}

/// The variables whose names the Docker world has given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names, reason = "envy takes the variables' names from here")]
struct DockerVariables {
    docker_host: Option<String>,
    docker_registry: Option<String>,
    docker_registry_username: Option<String>,
    docker_registry_password: Option<String>,
    docker_registry_password_file: Option<String>,
}

impl Config {
    /// Reads and checks all settings; variables that are not ours are not looked at. A variable that is set to nothing
    /// counts as not set, which is what an empty line in an env file means.
    pub fn from_env(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, ConfigError> {
        let Variables { agent, docker, azure } = read_variables(variables)?;
        let listen = listen(agent.host, agent.port)?;
        let token_sources =
            TokenSources::new(agent.admin_token, agent.admin_token_file, agent.read_token, agent.read_token_file)?;
        let tokens = token_sources.load()?;
        let backend = backend(agent.backend.as_deref())?;
        let own = aci::OwnVariables {
            regions: agent.aci_regions,
            api_version: agent.aci_api_version,
            arm_endpoint: agent.arm_endpoint,
            imds_endpoint: agent.imds_endpoint,
            prices: agent.aci_prices,
            registry_identities: agent.aci_registry_identities,
        };
        let aci = aci::read(own, azure)?;
        if backend == BackendName::Aci && aci.is_none() {
            let allowed = "set when Q8_AGENT_BACKEND is aci: a list of location:resource_group:storage_account";
            return Err(ConfigError::Invalid { name: "Q8_AGENT_ACI_REGIONS", allowed });
        }
        let (publish_host, publish_ports) = publishing(agent.publish_host, agent.publish_ports)?;
        if (publish_ports.0..=publish_ports.1).contains(&listen.port()) {
            return Err(ConfigError::Invalid {
                name: "Q8_AGENT_PUBLISH_PORTS",
                allowed: "a range without the agent's own port (Q8_AGENT_PORT)",
            });
        }
        let log_filter = checked(
            "Q8_AGENT_LOG",
            agent.log,
            LogFilter::default(),
            "a log filter such as info, warn or q8_agent=debug",
            LogFilter::parse,
        )?;
        let log_format =
            checked("Q8_AGENT_LOG_FORMAT", agent.log_format, LogFormat::Json, "json or text", |text| match text {
                "json" => Some(LogFormat::Json),
                "text" => Some(LogFormat::Text),
                _ => None,
            })?;
        Ok(Self {
            listen,
            tokens,
            token_sources,
            tenants_root: checked(
                "Q8_AGENT_TENANTS_ROOT",
                agent.tenants_root,
                PathBuf::from("/opt/tenants"),
                "an absolute path such as /opt/tenants, without .. and without a slash at its end",
                values::absolute_directory,
            )?,
            backend,
            docker_socket: docker_socket(backend, docker.docker_host)?,
            policy: policy(agent.policy.as_deref())?.with_most_open_files(most_open_files()),
            max_tenants: checked("Q8_AGENT_MAX_TENANTS", agent.max_tenants, 200, "a number from 1 to 10000", |text| {
                values::digits(text).filter(|count| (1..=10_000).contains(count))
            })?,
            subnet_pool: checked(
                "Q8_AGENT_SUBNET_POOL",
                agent.subnet_pool,
                SubnetPool { address: std::net::Ipv4Addr::new(10, 213, 0, 0), prefix: 16 },
                "a private IPv4 range (in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10) from /8 to /24, \
                 such as 10.213.0.0/16",
                values::subnet_pool,
            )?,
            publish_host,
            publish_ports,
            operation_timeout: checked(
                "Q8_AGENT_OPERATION_TIMEOUT",
                agent.operation_timeout,
                600 * SECOND,
                "a time from 1s to 24h, such as 10m",
                |text| values::duration(text, SECOND, 86_400 * SECOND),
            )?,
            busy_wait: checked(
                "Q8_AGENT_BUSY_WAIT",
                agent.busy_wait,
                5 * SECOND,
                "a time from 0s to 60s, such as 5s",
                |text| values::duration(text, Duration::ZERO, 60 * SECOND),
            )?,
            max_body: checked(
                "Q8_AGENT_MAX_BODY",
                agent.max_body,
                8 << 20,
                "a size from 64KiB to 256MiB, such as 8MiB",
                |text| values::size(text, 64 << 10, 256 << 20),
            )?,
            max_connections: max_connections(agent.max_connections, agent.max_connections_per_peer)?,
            archive_retention: checked(
                "Q8_AGENT_ARCHIVE_RETENTION",
                agent.archive_retention,
                7 * 86_400 * SECOND,
                "a time from 0s to 3650d, such as 7d",
                |text| values::duration(text, Duration::ZERO, 3650 * 86_400 * SECOND),
            )?,
            crash_loop_limit: checked(
                "Q8_AGENT_CRASH_LOOP_LIMIT",
                agent.crash_loop_limit,
                None,
                "a time from 1s to 7d, such as 30m",
                |text| values::duration(text, SECOND, 7 * 86_400 * SECOND).map(Some),
            )?,
            registry: registry(
                docker.docker_registry,
                docker.docker_registry_username,
                docker.docker_registry_password,
                docker.docker_registry_password_file.as_deref(),
            )?,
            aci,
            log_filter,
            log_format,
        })
    }
}

/// Where the agent listens, for commands that need nothing else (and so no token).
pub fn listen_address(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<SocketAddr, ConfigError> {
    let wanted = |name: &OsString| name == "Q8_AGENT_HOST" || name == "Q8_AGENT_PORT";
    let Variables { agent, .. } = read_variables(variables.filter(|(name, _)| wanted(name)))?;
    listen(agent.host, agent.port)
}

/// Where tenants' ports are published, likewise: the address and the range of ports.
pub fn publish_range(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(IpAddr, (u16, u16)), ConfigError> {
    let wanted = |name: &OsString| name == "Q8_AGENT_PUBLISH_HOST" || name == "Q8_AGENT_PUBLISH_PORTS";
    let Variables { agent, .. } = read_variables(variables.filter(|(name, _)| wanted(name)))?;
    publishing(agent.publish_host, agent.publish_ports)
}

fn publishing(host: Option<String>, ports: Option<String>) -> Result<(IpAddr, (u16, u16)), ConfigError> {
    let localhost = IpAddr::from([127, 0, 0, 1]);
    let host = checked("Q8_AGENT_PUBLISH_HOST", host, localhost, "an IP address such as 127.0.0.1", values::ip)?;
    let allowed = "a range of ports such as 20000-29999";
    let ports = checked("Q8_AGENT_PUBLISH_PORTS", ports, (20000, 29999), allowed, values::port_range)?;
    Ok((host, ports))
}

/// All that is looked at, by who has given the names.
struct Variables {
    agent: AgentVariables,
    docker: DockerVariables,
    azure: AzureVariables,
}

/// Keeps what is ours before envy sees it, because envy panics on any variable that is not UTF-8.
fn read_variables(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Variables, ConfigError> {
    let (mut agent, mut docker, mut azure) = (Vec::new(), Vec::new(), Vec::new());
    for (name, value) in variables {
        let shown = name.to_string_lossy();
        let known = SETTINGS.iter().any(|setting| name == setting.name);
        if !known {
            // Compared in upper case, so that a name in the wrong case is found, not passed over.
            if shown.to_ascii_uppercase().starts_with(PREFIX) {
                let name = shown.escape_debug().take(80).collect();
                return Err(ConfigError::Unknown { name, nearest: settings::nearest(&shown) });
            }
            continue;
        }
        let name = shown.into_owned();
        let Ok(value) = value.into_string() else { return Err(ConfigError::NotUnicode { name }) };
        if value.is_empty() {
            continue;
        }
        let of_the_same = if name.starts_with(PREFIX) {
            &mut agent
        } else if name.starts_with(DOCKER_PREFIX) {
            &mut docker
        } else {
            &mut azure
        };
        of_the_same.push((name, value));
    }
    Ok(Variables {
        agent: envy::prefixed(PREFIX).from_iter(agent)?,
        docker: envy::from_iter(docker)?,
        azure: envy::from_iter(azure)?,
    })
}

/// The setting's value, or its default when it is not set.
fn checked<T>(
    name: &'static str,
    value: Option<String>,
    default: T,
    allowed: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, ConfigError> {
    match value {
        None => Ok(default),
        Some(text) => parse(&text).ok_or(ConfigError::Invalid { name, allowed }),
    }
}

fn listen(host: Option<String>, port: Option<String>) -> Result<SocketAddr, ConfigError> {
    let localhost = IpAddr::from([127, 0, 0, 1]);
    let host = checked("Q8_AGENT_HOST", host, localhost, "an IP address such as 127.0.0.1 or 0.0.0.0", values::ip)?;
    let port = checked("Q8_AGENT_PORT", port, 8080, "a port from 1 to 65535", values::port)?;
    Ok(SocketAddr::new(host, port))
}

/// One peer may have them all unless it is told otherwise: often all connections come from one main server.
fn max_connections(all: Option<String>, per_peer: Option<String>) -> Result<(usize, usize), ConfigError> {
    let all = checked("Q8_AGENT_MAX_CONNECTIONS", all, 1024, "a number from 16 to 65536", |text| {
        values::digits(text).filter(|count| (16..=65_536).contains(count))
    })?;
    let allowed = "a number from 1 to Q8_AGENT_MAX_CONNECTIONS";
    let per_peer = checked("Q8_AGENT_MAX_CONNECTIONS_PER_PEER", per_peer, all, allowed, |text| {
        values::digits(text).filter(|count| (1..=all).contains(count))
    })?;
    Ok((all, per_peer))
}

fn backend(text: Option<&str>) -> Result<BackendName, ConfigError> {
    const NAME: &str = "Q8_AGENT_BACKEND";
    match text {
        None | Some("docker") => Ok(BackendName::Docker),
        Some("memory") => Ok(BackendName::Memory),
        Some("aci") if cfg!(feature = "aci") => Ok(BackendName::Aci),
        Some("aci") => Err(ConfigError::NotBuilt { name: NAME, value: "aci", allowed: "docker and memory are" }),
        Some(_) => Err(ConfigError::Invalid { name: NAME, allowed: "docker, memory or aci" }),
    }
}

/// A profile by its name, or the file at a path.
pub fn policy(text: Option<&str>) -> Result<Rules, ConfigError> {
    const NAME: &str = "Q8_AGENT_POLICY";
    const ALLOWED: &str = "baseline, restricted, trusted, or the path of a policy file";
    let Some(text) = text else { return Ok(Profile::Baseline.into()) };
    if let Some(profile) = Profile::parse(text) {
        return Ok(profile.into());
    }
    if !text.contains(['/', '.']) {
        return Err(ConfigError::Invalid { name: NAME, allowed: ALLOWED });
    }
    let file =
        std::fs::read_to_string(text).map_err(|error| ConfigError::Unreadable { name: NAME, kind: error.kind() })?;
    Rules::parse(&file).map_err(ConfigError::Policy)
}

/// The hard limit of open files (setrlimit(2)) that this process was started with. The engine of this host has the same,
/// unless somebody has configured one of them.
fn most_open_files() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

fn docker_socket(backend: BackendName, host: Option<String>) -> Result<PathBuf, ConfigError> {
    // A laptop with a remote engine in its environment can still run the memory backend, which never looks at it.
    let host = host.filter(|_| backend == BackendName::Docker);
    checked(
        "DOCKER_HOST",
        host,
        PathBuf::from("/var/run/docker.sock"),
        "the path of a Unix socket, such as unix:///var/run/docker.sock (tcp:// and ssh:// are not supported)",
        values::unix_socket,
    )
}

/// A secret that is in a variable or in a file that another one names.
fn secret(
    name: &'static str,
    file_name: &'static str,
    value: Option<String>,
    file: Option<&str>,
) -> Result<Option<SecretString>, ConfigError> {
    match (value, file) {
        (Some(_), Some(_)) => Err(ConfigError::Both { name, file_name }),
        (Some(value), None) => Ok(Some(SecretString::from(value))),
        (None, Some(path)) => {
            let text = tokens::read_secret_file(file_name, Path::new(path))?;
            let secret = SecretString::from(text.trim_end_matches(['\r', '\n']));
            if secret.expose_secret().is_empty() {
                return Err(ConfigError::Invalid { name: file_name, allowed: "a file with the secret in it" });
            }
            Ok(Some(secret))
        }
        (None, None) => Ok(None),
    }
}

fn registry(
    host: Option<String>,
    username: Option<String>,
    password: Option<String>,
    password_file: Option<&str>,
) -> Result<Option<RegistryAuth>, ConfigError> {
    let password = secret("DOCKER_REGISTRY_PASSWORD", "DOCKER_REGISTRY_PASSWORD_FILE", password, password_file)?;
    match (host, username, password) {
        (None, None, None) => Ok(None),
        (Some(host), Some(username), Some(password)) => match RegistryAuth::parse_host(&host) {
            Ok(registry) => Ok(Some(RegistryAuth { registry, username, password })),
            Err(_) => Err(ConfigError::Invalid {
                name: "DOCKER_REGISTRY",
                allowed: "a registry's host as in image references, such as ghcr.io or registry.example:5000 (docker.io \
                          for the Hub)",
            }),
        },
        _ => Err(ConfigError::Invalid {
            name: "DOCKER_REGISTRY",
            allowed: "set together with DOCKER_REGISTRY_USERNAME and DOCKER_REGISTRY_PASSWORD (or its _FILE), or none of \
                      them",
        }),
    }
}

#[cfg(test)]
mod tests;

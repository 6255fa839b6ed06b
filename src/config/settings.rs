//! The table of settings: what may be set, what holds when it is not, what it is for.
//!
//! `--help` prints it and an unknown name is compared with it, so a setting cannot exist without its line here.

/// One environment variable that the agent reads.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The whole name.
    pub name: &'static str,
    /// What holds when it is not set, in words; empty when there is nothing.
    pub default: &'static str,
    /// What it is for and what is allowed.
    pub help: &'static str,
}

const fn setting(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, default, help }
}

/// Every setting, in the order of `--help`.
pub const SETTINGS: &[Setting] = &[
    setting("Q8_AGENT_HOST", "127.0.0.1", "IP address to listen on"),
    setting("Q8_AGENT_PORT", "8080", "port to listen on"),
    setting("Q8_AGENT_ADMIN_TOKEN", "", "bearer token for everything; required, 32 characters or more"),
    setting("Q8_AGENT_ADMIN_TOKEN_FILE", "", "file with it, one token a line; read again on SIGHUP"),
    setting("Q8_AGENT_READ_TOKEN", "", "bearer token for GET only"),
    setting("Q8_AGENT_READ_TOKEN_FILE", "", "file with it, one token a line; read again on SIGHUP"),
    setting("Q8_AGENT_TENANTS_ROOT", "/opt/tenants", "directory of the tenants, absolute, the same path on the host"),
    setting(
        "Q8_AGENT_BACKEND",
        "docker",
        "where tenants run that name no placement: docker, memory (a pretend engine) or aci",
    ),
    setting(
        "Q8_AGENT_POLICY",
        "baseline",
        "what stacks may do: baseline, restricted, trusted, or the path of a policy file (TOML)",
    ),
    setting("Q8_AGENT_MAX_TENANTS", "200", "most tenants on this host, 1 to 10000"),
    setting("Q8_AGENT_SUBNET_POOL", "10.213.0.0/16", "private IPv4 range for the tenants' networks, /8 to /24"),
    setting("Q8_AGENT_PUBLISH_HOST", "127.0.0.1", "IP address on which tenants' ports are published"),
    setting(
        "Q8_AGENT_PUBLISH_PORTS",
        "20000-29999",
        "range for published ports: fixed ones must lie in it, others get one of it",
    ),
    setting("Q8_AGENT_OPERATION_TIMEOUT", "10m", "longest time for one operation, 1s to 24h"),
    setting("Q8_AGENT_BUSY_WAIT", "5s", "how long a second operation on a tenant waits, 0s to 60s"),
    setting("Q8_AGENT_MAX_BODY", "8MiB", "largest request body, 64KiB to 256MiB"),
    setting("Q8_AGENT_MAX_CONNECTIONS", "1024", "most connections at a time, 16 to 65536"),
    setting("Q8_AGENT_MAX_CONNECTIONS_PER_PEER", "", "the same for one address (an IPv6 /64); as many as in all"),
    setting("Q8_AGENT_CRASH_LOOP_LIMIT", "", "how long a crash loop may last until its service is stopped, 1s to 7d"),
    setting("Q8_AGENT_ARCHIVE_RETENTION", "7d", "how long the files of torn-down tenants are kept"),
    setting("Q8_AGENT_LOG", "info", "log filter, such as info or q8_agent=debug"),
    setting("Q8_AGENT_LOG_FORMAT", "json", "log format: json or text"),
    setting("DOCKER_HOST", "unix:///var/run/docker.sock", "the Docker Engine's socket, unix:// only"),
    setting("DOCKER_REGISTRY", "", "host of the registry that the next three are for"),
    setting("DOCKER_REGISTRY_USERNAME", "", "user name there"),
    setting("DOCKER_REGISTRY_PASSWORD", "", "password or token there"),
    setting("DOCKER_REGISTRY_PASSWORD_FILE", "", "file with it"),
    setting(
        "Q8_AGENT_ACI_REGIONS",
        "",
        "Azure Container Instances: location:resource_group:storage_account,... (the first is the default); all that \
         follows counts only with it",
    ),
    setting("AZURE_SUBSCRIPTION_ID", "", "the subscription; required with regions"),
    setting("AZURE_TENANT_ID", "", "the directory of the application, by id or domain"),
    setting("AZURE_CLIENT_ID", "", "the application, or which managed identity"),
    setting("AZURE_CLIENT_SECRET", "", "the application's secret"),
    setting("AZURE_CLIENT_SECRET_FILE", "", "file with it"),
    setting("AZURE_FEDERATED_TOKEN_FILE", "", "file with a token that the application trusts, in place of a secret"),
    setting("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com", "where tokens are asked for"),
    setting("IDENTITY_ENDPOINT", "", "where the platform gives its identity; set by the platform"),
    setting("IDENTITY_HEADER", "", "what it wants to see; set by the platform"),
    setting("Q8_AGENT_ARM_ENDPOINT", "https://management.azure.com", "Azure Resource Manager, https or loopback"),
    setting("Q8_AGENT_IMDS_ENDPOINT", "http://169.254.169.254", "where a virtual machine is given its identity"),
    setting("Q8_AGENT_ACI_API_VERSION", "2025-09-01", "api-version of container groups"),
    setting("Q8_AGENT_ACI_PRICES", "", "file with prices for cost estimates (TOML), absolute"),
    setting(
        "Q8_AGENT_ACI_REGISTRY_IDENTITIES",
        "",
        "registry=identity,…: user-assigned identities that groups pull by",
    ),
];

/// The setting whose name is nearest to a misspelt one, if any is near.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    SETTINGS
        .iter()
        .map(|setting| (edit_distance(&name.to_ascii_uppercase(), setting.name), setting.name))
        .min()
        .filter(|&(distance, _)| distance <= 3)
        .map(|(_, name)| name)
}

/// Levenshtein distance, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_finds_its_neighbour() {
        for (wrong, right) in [
            ("Q8_AGENT_PROT", Some("Q8_AGENT_PORT")),
            ("Q8_AGENT_Port", Some("Q8_AGENT_PORT")),
            ("Q8_AGENT_TOKEN", None),
            ("Q8_AGENT_ADMINTOKEN", Some("Q8_AGENT_ADMIN_TOKEN")),
            ("Q8_AGENT_LOG_LEVEL", None),
            ("Q8_AGENT_MAX_TENANT", Some("Q8_AGENT_MAX_TENANTS")),
        ] {
            assert_eq!(nearest(wrong), right, "{wrong}");
        }
    }
}

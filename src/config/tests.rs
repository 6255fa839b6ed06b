//! Settings as tables: what is read, what is refused and how the refusal reads.

use std::os::unix::ffi::OsStringExt as _;

use super::*;

const TOKEN: &str = "0f8b1c7a9d2e4f60718293a4b5c6d7e8";

fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_env(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

fn read_with_token(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    read(&[&[("Q8_AGENT_ADMIN_TOKEN", TOKEN)], variables].concat())
}

#[test]
fn defaults_are_those_of_the_table() {
    let config = read_with_token(&[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.tenants_root, Path::new("/opt/tenants"));
    assert_eq!(config.docker_socket, Path::new("/var/run/docker.sock"));
    assert_eq!(
        (config.backend, config.policy.clone()),
        (BackendName::Docker, Rules::from(Profile::Baseline).with_most_open_files(most_open_files()))
    );
    assert!(config.registry.is_none());
    // Setting every default by hand changes nothing, so `--help` tells the truth.
    let by_hand: Vec<_> = SETTINGS
        .iter()
        .filter(|setting| !setting.default.is_empty())
        .map(|setting| (setting.name, setting.default))
        .collect();
    assert_eq!(format!("{:?}", read_with_token(&by_hand).unwrap()), format!("{config:?}"));
}

#[test]
fn the_table_and_the_variables_are_the_same() {
    let giver = |name: &str| [PREFIX, DOCKER_PREFIX].into_iter().find(|prefix| name.starts_with(prefix));
    let in_table = |prefix: Option<&str>| {
        let mut names: Vec<_> = SETTINGS
            .iter()
            .filter(|setting| giver(setting.name) == prefix)
            .map(|setting| setting.name.trim_start_matches(PREFIX).to_lowercase())
            .collect();
        names.sort();
        names
    };
    // serde lists the fields it knows when it meets one that it does not.
    let fields = |error: envy::Error| {
        let text = error.to_string();
        let (_, list) = text.split_once("expected one of ").unwrap();
        let mut names: Vec<_> = list.split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
        names.sort();
        names
    };
    let odd = || [("no_such_field".to_owned(), String::new())].into_iter();
    assert_eq!(fields(envy::from_iter::<_, AgentVariables>(odd()).err().unwrap()), in_table(Some(PREFIX)));
    assert_eq!(fields(envy::from_iter::<_, DockerVariables>(odd()).err().unwrap()), in_table(Some(DOCKER_PREFIX)));
    assert_eq!(fields(envy::from_iter::<_, AzureVariables>(odd()).err().unwrap()), in_table(None));
}

#[test]
fn values_are_read() {
    let config = read_with_token(&[
        ("Q8_AGENT_HOST", "[::1]"),
        ("Q8_AGENT_PORT", "9000"),
        ("Q8_AGENT_BACKEND", "memory"),
        ("Q8_AGENT_POLICY", "trusted"),
        ("Q8_AGENT_SUBNET_POOL", "172.20.0.0/16"),
        ("Q8_AGENT_PUBLISH_PORTS", "30000-30010"),
        ("Q8_AGENT_OPERATION_TIMEOUT", "90s"),
        ("Q8_AGENT_BUSY_WAIT", "250ms"),
        ("Q8_AGENT_MAX_BODY", "1MiB"),
        ("Q8_AGENT_MAX_CONNECTIONS", "64"),
        ("Q8_AGENT_LOG", "warn,q8_agent=debug"),
        ("Q8_AGENT_LOG_FORMAT", "text"),
        ("DOCKER_HOST", "tcp://not-looked-at"),
        ("DOCKER_REGISTRY", "registry.example:5000"),
        ("DOCKER_REGISTRY_USERNAME", "robot"),
        ("DOCKER_REGISTRY_PASSWORD", "registry-canary"),
        ("Q8_AGENT_MAX_TENANTS", ""),
        ("HOME", "/root"),
    ])
    .unwrap();
    assert_eq!(config.listen.to_string(), "[::1]:9000");
    assert_eq!(config.subnet_pool.to_string(), "172.20.0.0/16");
    assert_eq!(config.busy_wait, Duration::from_millis(250));
    assert_eq!(config.max_body, 1 << 20);
    assert_eq!(config.max_connections, (64, 64));
    assert_eq!(config.max_tenants, 200);
    assert_eq!(config.registry.as_ref().unwrap().registry, "registry.example:5000");
    let shown = format!("{config:?}");
    assert!(!shown.contains(TOKEN) && !shown.contains("registry-canary"), "{shown}");
}

#[test]
fn refusals_name_the_variable_and_what_is_allowed_and_never_the_value() {
    for (name, value, says) in [
        ("Q8_AGENT_PORT", "eighty", "a port from 1 to 65535"),
        ("Q8_AGENT_PORT", "0", "a port"),
        ("Q8_AGENT_PORT", "65536", "a port"),
        ("Q8_AGENT_HOST", "localhost", "an IP address"),
        ("Q8_AGENT_TENANTS_ROOT", "srv/tenants", "an absolute path"),
        ("Q8_AGENT_TENANTS_ROOT", "/", "an absolute path"),
        ("Q8_AGENT_BACKEND", "kubernetes", "docker, memory or aci"),
        ("Q8_AGENT_POLICY", "/no/such/policy.toml", "cannot be read"),
        ("Q8_AGENT_POLICY", "anything", "baseline, restricted, trusted, or the path"),
        ("Q8_AGENT_MAX_TENANTS", "0", "1 to 10000"),
        ("Q8_AGENT_SUBNET_POOL", "8.8.8.0/24", "private IPv4 range"),
        ("Q8_AGENT_PUBLISH_HOST", "eth0", "an IP address"),
        ("Q8_AGENT_PUBLISH_PORTS", "29999-20000", "a range of ports"),
        ("Q8_AGENT_PUBLISH_PORTS", "8000-9000", "without the agent's own port"),
        ("Q8_AGENT_OPERATION_TIMEOUT", "0s", "from 1s to 24h"),
        ("Q8_AGENT_OPERATION_TIMEOUT", "600", "from 1s to 24h"),
        ("Q8_AGENT_BUSY_WAIT", "5min 1s", "from 0s to 60s"),
        ("Q8_AGENT_MAX_BODY", "1GiB", "64KiB to 256MiB"),
        ("Q8_AGENT_MAX_CONNECTIONS", "0", "16 to 65536"),
        ("Q8_AGENT_MAX_CONNECTIONS_PER_PEER", "1025", "1 to Q8_AGENT_MAX_CONNECTIONS"),
        ("Q8_AGENT_ARCHIVE_RETENTION", "forever", "such as 7d"),
        ("Q8_AGENT_CRASH_LOOP_LIMIT", "0s", "from 1s to 7d"),
        ("Q8_AGENT_LOG", "q8_agent=loud", "a log filter"),
        ("Q8_AGENT_LOG_FORMAT", "xml", "json or text"),
        ("DOCKER_HOST", "tcp://10.0.0.1:2375", "the path of a Unix socket"),
        ("DOCKER_REGISTRY", "ghcr.io", "set together with"),
        ("Q8_AGENT_READ_TOKEN", "changeme", "is a placeholder"),
        ("Q8_AGENT_READ_TOKEN_FILE", "/no/such/file", "cannot be read"),
    ] {
        let text = read_with_token(&[(name, value)]).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(says), "{name}={value}: {text}");
        assert!(value.len() < 8 || text.contains("not built") || !text.contains(value), "{text}");
    }
}

#[test]
fn registry_hosts_are_as_in_image_references() {
    for (host, wanted) in [
        ("ghcr.io", Some("ghcr.io")),
        ("localhost:5000", Some("localhost:5000")),
        ("docker.io", Some("docker.io")),
        ("index.docker.io", Some("docker.io")),
        ("registry-1.docker.io", Some("docker.io")),
        ("https://index.docker.io/v1/", Some("docker.io")),
        ("https://index.docker.io/v1", Some("docker.io")),
        ("GHCR.io:443", Some("ghcr.io:443")),
        ("localhost", Some("localhost")),
        ("https://ghcr.io", None),
        ("https://index.docker.io/v2/", None),
        ("ghcr.io/acme", None),
        ("ghcr", None),
        ("", None),
    ] {
        let parsed = RegistryAuth::parse_host(host).ok();
        assert_eq!(parsed.as_deref(), wanted, "{host}");
    }
}

#[test]
fn a_missing_or_weak_admin_token_stops_the_start() {
    for (variables, says) in [
        (&[][..], "openssl rand -hex 32"),
        (&[("Q8_AGENT_ADMIN_TOKEN", "")], "is not set"),
        (&[("Q8_AGENT_ADMIN_TOKEN", "short")], "32 characters"),
        (&[("Q8_AGENT_ADMIN_TOKEN", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")], "repeats itself"),
        (&[("Q8_AGENT_ADMIN_TOKEN", TOKEN), ("Q8_AGENT_ADMIN_TOKEN_FILE", "/x")], "both set"),
        (&[("Q8_AGENT_ADMIN_TOKEN", TOKEN), ("Q8_AGENT_READ_TOKEN", TOKEN)], "Q8_AGENT_READ_TOKEN"),
    ] {
        let text = read(variables).unwrap_err().to_string();
        assert!(text.contains(says) && !text.contains(TOKEN), "{text}");
    }
}

#[test]
fn unknown_names_stop_the_start() {
    for (name, says) in [
        ("Q8_AGENT_PROT", "did you mean Q8_AGENT_PORT?"),
        ("q8_agent_port", "did you mean Q8_AGENT_PORT?"),
        ("Q8_AGENT_SOMETHING_ELSE_ALTOGETHER", "see q8-agent --help"),
    ] {
        let text = read_with_token(&[(name, "1")]).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(says), "{text}");
    }
}

#[test]
fn a_value_that_is_not_utf8_is_an_error_and_foreign_ones_are_not_looked_at() {
    let broken = || OsString::from_vec(vec![0xff, 0xfe]);
    let token = (OsString::from("Q8_AGENT_ADMIN_TOKEN"), OsString::from(TOKEN));
    let foreign = [(OsString::from("LS_COLORS"), broken()), (broken(), broken()), token.clone()];
    assert!(Config::from_env(foreign.into_iter()).is_ok());
    let ours = [token, (OsString::from("Q8_AGENT_PORT"), broken())];
    assert_eq!(Config::from_env(ours.into_iter()).unwrap_err().to_string(), "Q8_AGENT_PORT is not UTF-8");
}

#[test]
fn the_healthcheck_needs_no_token() {
    let variables = [("Q8_AGENT_PORT", "9001"), ("Q8_AGENT_BACKEND", "nonsense")];
    let address = listen_address(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
    assert_eq!(address.unwrap().to_string(), "127.0.0.1:9001");
}

const REGIONS: (&str, &str) = ("Q8_AGENT_ACI_REGIONS", "eastus:tenants:tenantseastus,westeurope:tenants-we");
const SUBSCRIPTION: (&str, &str) = ("AZURE_SUBSCRIPTION_ID", "00000000-0000-0000-0000-000000000001");

#[test]
fn azure_is_read_only_with_regions() {
    let of_somebody_else =
        [("AZURE_TENANT_ID", "not/looked/at"), ("AZURE_CLIENT_SECRET", "x"), ("AZURE_CLIENT_SECRET_FILE", "x")];
    assert!(read_with_token(&of_somebody_else).unwrap().aci.is_none());
    let aci = read_with_token(&[REGIONS, SUBSCRIPTION]).unwrap().aci.unwrap();
    let locations: Vec<_> = aci.regions.iter().map(|region| region.location.as_str()).collect();
    assert_eq!(locations, ["eastus", "westeurope"]);
    assert_eq!((aci.api_version.as_str(), aci.arm_endpoint.as_str()), ("2025-09-01", "https://management.azure.com"));
    assert!(aci.prices.is_none());
    assert!(
        matches!(aci.credentials, AciCredentials::ManagedIdentity { imds, client: None } if imds == "http://169.254.169.254")
    );
}

#[test]
fn the_first_kind_of_credentials_that_is_set_counts() {
    const AUTHORISED: (&str, &str, &str) = ("https://login.microsoftonline.com", "contoso.example", "app-1");
    let application = [("AZURE_TENANT_ID", "contoso.example"), ("AZURE_CLIENT_ID", "app-1")];
    let secret = ("AZURE_CLIENT_SECRET", "azure-canary");
    let federated = ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token");
    let platform = [("IDENTITY_ENDPOINT", "http://127.0.0.1:41741/msi/token/"), ("IDENTITY_HEADER", "header-canary")];
    let kind = |more: &[(&str, &str)]| {
        let config = read_with_token(&[&[REGIONS, SUBSCRIPTION], more].concat()).unwrap();
        let shown = format!("{config:?}");
        assert!(!shown.contains("canary"), "{shown}");
        match config.aci.unwrap().credentials {
            AciCredentials::ClientSecret { authority, tenant, client, .. } => {
                assert_eq!((authority.as_str(), tenant.as_str(), client.as_str()), AUTHORISED);
                "secret"
            }
            AciCredentials::FederatedToken { authority, tenant, client, file } => {
                assert_eq!((authority.as_str(), tenant.as_str(), client.as_str()), AUTHORISED);
                assert_eq!(file, Path::new("/var/run/token"));
                "federated"
            }
            AciCredentials::AppService { endpoint, client, .. } => {
                assert_eq!(
                    (endpoint.as_str(), client.as_deref()),
                    ("http://127.0.0.1:41741/msi/token/", Some("app-1"))
                );
                "platform"
            }
            AciCredentials::ManagedIdentity { client, .. } => {
                assert_eq!(client.as_deref(), Some("app-1"));
                "machine"
            }
        }
    };
    let [tenant, client] = application;
    assert_eq!(kind(&[tenant, client, secret, federated, platform[0], platform[1]]), "secret");
    assert_eq!(kind(&[tenant, client, federated, platform[0], platform[1]]), "federated");
    assert_eq!(kind(&[client, platform[0], platform[1]]), "platform");
    assert_eq!(kind(&[client]), "machine");
}

#[test]
fn half_set_azure_names_the_variable_and_never_the_value() {
    let own = [REGIONS, SUBSCRIPTION];
    let (tenant, client) = (("AZURE_TENANT_ID", "contoso.example"), ("AZURE_CLIENT_ID", "app-1"));
    let secret = ("AZURE_CLIENT_SECRET", "canary");
    for (variables, name, says) in [
        (&[REGIONS][..], "AZURE_SUBSCRIPTION_ID", "set when Q8_AGENT_ACI_REGIONS is"),
        (&[REGIONS, ("AZURE_SUBSCRIPTION_ID", "canary/..")], "AZURE_SUBSCRIPTION_ID", "the id of the subscription"),
        (&[("Q8_AGENT_ACI_REGIONS", "Canary Land")], "Q8_AGENT_ACI_REGIONS", "location:resource_group:storage_account"),
        #[cfg(feature = "aci")]
        (&[("Q8_AGENT_BACKEND", "aci")], "Q8_AGENT_ACI_REGIONS", "set when Q8_AGENT_BACKEND is aci"),
        (&[own[0], own[1], secret], "AZURE_TENANT_ID", "set together with AZURE_CLIENT_SECRET"),
        (&[own[0], own[1], secret, tenant], "AZURE_CLIENT_ID", "set together with AZURE_CLIENT_SECRET"),
        (&[own[0], own[1], tenant, client], "AZURE_TENANT_ID", "a managed identity needs none"),
        (&[own[0], own[1], secret, ("AZURE_CLIENT_SECRET_FILE", "/canary")], "AZURE_CLIENT_SECRET_FILE", "both set"),
        (&[own[0], own[1], ("AZURE_CLIENT_SECRET_FILE", "/no/such/canary")], "AZURE_CLIENT_SECRET_FILE", "be read"),
        (
            &[own[0], own[1], tenant, client, ("AZURE_FEDERATED_TOKEN_FILE", "canary")],
            "AZURE_FEDERATED_TOKEN_FILE",
            "absolute path",
        ),
        (&[own[0], own[1], ("IDENTITY_ENDPOINT", "http://localhost/canary")], "IDENTITY_HEADER", "set together"),
        (&[own[0], own[1], ("IDENTITY_HEADER", "canary")], "IDENTITY_ENDPOINT", "set together"),
        (
            &[own[0], own[1], ("Q8_AGENT_ARM_ENDPOINT", "http://canary.example")],
            "Q8_AGENT_ARM_ENDPOINT",
            "for a loopback address only",
        ),
        (&[own[0], own[1], ("AZURE_AUTHORITY_HOST", "http://10.0.0.1")], "AZURE_AUTHORITY_HOST", "loopback"),
        (&[own[0], own[1], ("Q8_AGENT_IMDS_ENDPOINT", "http://10.0.0.1")], "Q8_AGENT_IMDS_ENDPOINT", "link-local"),
        (&[own[0], own[1], ("Q8_AGENT_ACI_API_VERSION", "canary")], "Q8_AGENT_ACI_API_VERSION", "such as 2025-09-01"),
        (&[own[0], own[1], ("Q8_AGENT_ACI_PRICES", "canary.toml")], "Q8_AGENT_ACI_PRICES", "absolute path"),
        (
            &[own[0], own[1], ("Q8_AGENT_ACI_REGISTRY_IDENTITIES", "canary")],
            "Q8_AGENT_ACI_REGISTRY_IDENTITIES",
            "a list of registry=identity",
        ),
    ] {
        let text = read_with_token(variables).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(says), "{text}");
        assert!(!text.to_lowercase().contains("canary"), "{text}");
    }
}

#[cfg(feature = "aci")]
#[test]
fn azure_may_be_the_default() {
    let config = read_with_token(&[REGIONS, SUBSCRIPTION, ("Q8_AGENT_BACKEND", "aci"), ("DOCKER_HOST", "tcp://x")]);
    assert_eq!(config.unwrap().backend, BackendName::Aci);
}

#[cfg(not(feature = "aci"))]
#[test]
fn what_is_not_built_in_cannot_be_the_default() {
    let text = read_with_token(&[REGIONS, SUBSCRIPTION, ("Q8_AGENT_BACKEND", "aci")]).unwrap_err().to_string();
    assert!(text.contains("Q8_AGENT_BACKEND=aci is not built into this agent"), "{text}");
}

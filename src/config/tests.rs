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
    let in_table = |prefixed: bool| {
        let mut names: Vec<_> = SETTINGS
            .iter()
            .filter(|setting| setting.name.starts_with(PREFIX) == prefixed)
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
    assert_eq!(fields(envy::from_iter::<_, AgentVariables>(odd()).err().unwrap()), in_table(true));
    assert_eq!(fields(envy::from_iter::<_, DockerVariables>(odd()).err().unwrap()), in_table(false));
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
        ("Q8_AGENT_BACKEND", "kubernetes", "docker or memory"),
        ("Q8_AGENT_BACKEND", "aci", "is not built into this agent"),
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

//! Fuzz target: policy files.

use std::time::Duration;

use super::*;
use crate::domain::Subdomain;
use crate::fuzz::{self, Material, Outcome};

const FILES: &[&str] = &[
    r#"
profile = "baseline"
registries = ["docker.io", "127.0.0.1:5000", "ghcr.io"]
host_credentials = false
[grants]
capabilities = ["cap_sys_ptrace", "NET_RAW"]
binds = ["/srv/media", "/srv/inbox:rw", "/opt/tenants"]
ports = ["443", "8000-8099"]
publish_hosts = ["0.0.0.0", "::1"]
external_networks = ["proxy"]
labels = ["traefik."]
sysctls = ["net.core.somaxconn"]
[tenants.other]
profile = "trusted"
registries = ["ghcr.io"]
[tenants.other.grants]
capabilities = ["ALL"]
"#,
    r#"
[limits]
services = 20
containers = "none"
cpus = 4.0
memory = "8GiB"
pids = 100
[defaults]
cpus = 1
memory = "256MiB"
nofile = 1024
log_size = "10MB"
[host]
reserve_memory = "1GiB"
reserve_cpus = 0.5
memory_overcommit = 1.5
cpu_overcommit = 4
[tenants.acme.limits]
cpus = 0
"#,
];

const WORDS: &[&str] = &[
    "[grants]\n",
    "[limits]\n",
    "[[tenants]]\n",
    "[tenants.a]\n",
    "[tenants.\"../x\"]\n",
    "=",
    "\"none\"",
    "\"restricted\"",
    "inf",
    "-inf",
    "nan",
    "1e300",
    "-1",
    "0x7fffffffffffffff",
    "9223372036854775807",
    "1_000",
    "true",
    "2026-11-21",
    "'''",
    "\"\"\"",
    "\\u0000",
    "[",
    "]",
    "{",
    "}",
    "\"/\"",
    "\"/srv/../etc\"",
    "\"/a:rw\"",
    "\"/a/b\"",
    ":rw",
    ":ro",
    "\"0-1\"",
    "\"65535\"",
    "\"9-8\"",
    "\"com.docker.\"",
    "\"dev.\"",
    "\"host\"",
    "\"1.5ZB\"",
    "\"-1GiB\"",
    "\"99999999999GiB\"",
    "\"https://x/\"",
];

#[test]
fn fuzz_policy_files() {
    let material = Material::of_texts(FILES, WORDS, 16 << 10);
    fuzz::run(
        "policy",
        |rng| material.text(rng),
        |text| {
            let rules = fuzz::within(Duration::from_secs(1), || Rules::parse(text));
            match &rules {
                Err(error) => assert!(!error.to_string().is_empty()),
                Ok(rules) => {
                    let tenants = rules.tenants.keys().map(|tenant| rules.of(tenant));
                    for of_one in tenants.chain([rules.of_any(), rules.of(&Subdomain::parse("nobody").unwrap())]) {
                        is_sound(&of_one);
                    }
                    let host = rules.host();
                    assert!(host.memory(0) == 0 && host.nano_cpus(0) == 0);
                    assert!(host.memory_overcommit.is_finite() && host.cpu_overcommit.is_finite());
                }
            }
            Outcome::from(&rules)
        },
    );
}

/// What other rooms rely on, whatever the file says.
fn is_sound(rules: &TenantRules) {
    let TenantRules { profile: _, registries, host_credentials: _, grants, limits: _, defaults: _ } = rules;
    for host in registries.iter().flatten() {
        assert!(!host.is_empty() && *host == host.to_ascii_lowercase() && !host.contains('/'), "{host}");
    }
    for name in &grants.capabilities {
        assert!(
            !name.starts_with("CAP_") && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'),
            "{name}"
        );
    }
    for bind in &grants.binds {
        let parts: Vec<&str> = bind.path.split('/').collect();
        assert!(
            parts.len() > 1 && parts[0].is_empty() && parts[1..].iter().all(|part| !["", ".", ".."].contains(part)),
            "{bind:?}"
        );
    }
    assert!(grants.ports.iter().all(|(low, high)| 0 < *low && low <= high));
    for prefix in &grants.labels {
        let lower = prefix.to_lowercase();
        let own =
            ["com.docker.compose.", "dev.q8."].iter().any(|own| own.starts_with(&lower) || lower.starts_with(own));
        assert!(!own, "{prefix}");
    }
    assert!(
        grants.external_networks.iter().all(|name| !["host", "bridge", "none", "default"].contains(&name.as_str()))
    );
}

//! Fuzz target: projects made of everything that the tables have and of parts of the corpus. What the policy admits
//! passes the gate, whatever it is.

use super::*;
use crate::fuzz::{self, Forest, Outcome, Rng};

/// Values that are harmless in one place and hostile in another.
const VALUES: &[&str] = &[
    "host",
    "none",
    "bridge",
    "default",
    "private",
    "shareable",
    "service:b",
    "service:nobody",
    "container:victim",
    "container:q8-acme-b-1",
    "victim_default",
    "q8-victim_default",
    "unconfined",
    "0",
    "0:0",
    "root",
    "1000",
    "1000:0",
    "4294967296",
    "/",
    "/etc",
    "/var/run/docker.sock",
    "./.agent",
    "./data",
    "./data/../..",
    "./data/./x",
    "./conf/site.conf",
    "./page.html",
    "../victim",
    "v",
    "v:/v:ro,nocopy",
    "./data:/d:rshared",
    "/proc",
    "/sys/fs/cgroup",
    "/dev",
    "/srv/shared/x",
    "/srv/spool",
    "SYS_ADMIN",
    "CAP_NET_RAW",
    "cap_net_bind_service",
    "ALL",
    "all",
    "no-new-privileges",
    "no-new-privileges:false",
    "seccomp:unconfined",
    "seccomp=x.json",
    "apparmor=x",
    "label=disable",
    "127.0.0.1:20001:80",
    "0.0.0.0:20001:80",
    "20000-20009:80-89",
    "30000:1",
    "[::1]:20001:80",
    "80/sctp",
    "10.9.8.7:20000:1",
    "2001:db8::1",
    "169.254.169.254",
    "host-gateway",
    "h:host-gateway",
    "h=10.1.2.3",
    "100000g",
    "-1",
    "0.000001",
    "1e18",
    "9223372036854775807",
    "1ms",
    "100000h",
    "true",
    "false",
    "dev.q8.tenant",
    "Com.Docker.Compose.Project",
    "traefik.enable",
    "caddy",
    "net.ipv4.ip_forward",
    "kernel.shmmax",
    "net.core.somaxconn",
    "linux/arm64",
    "02:00:00:00:00:01",
    "json-file",
    "syslog",
    "external",
    "a\nb",
    "a=b",
    "${X}",
    "$$",
    "ä",
    "",
    "size=1g,exec",
    "always",
    "stable",
];

/// The attributes of one table, as documents with one service each.
fn table(lines: &[&str]) -> impl Iterator<Item = Value> {
    lines.iter().map(|line| serde_yaml::from_str(&project(line, "")).unwrap_or_else(|error| panic!("{line}: {error}")))
}

fn forest() -> Forest {
    let tables = table(HARMLESS).chain(table(HOSTILE)).chain(table(GRANTED));
    let tops = TOPS.iter().map(|top| serde_yaml::from_str::<Value>(&project("tty: false", top)).unwrap());
    let corpus = ["policy", "valid", "stacks"].into_iter().flat_map(|directory| fuzz::corpus(directory, "yaml"));
    let corpus = corpus.filter_map(|text| serde_yaml::from_slice::<Value>(&text).ok());
    Forest::new(tables.chain(tops).chain(corpus).collect(), VALUES)
}

/// A project, whose it is and what the engine speaks.
#[derive(Debug)]
struct Input {
    profile: Profile,
    is_granted: bool,
    api: (u32, u32),
    document: Value,
}

fn input(rng: &mut Rng, forest: &Forest) -> Input {
    let profile = *rng.pick(&[Profile::Baseline, Profile::Baseline, Profile::Restricted, Profile::Trusted]);
    let mut lines: Vec<&str> = (0..rng.below(10)).map(|_| *rng.pick(HARMLESS)).collect();
    if rng.one_in(2) {
        let table = if rng.one_in(2) { GRANTED } else { HOSTILE };
        lines.push(*rng.pick(table));
    }
    if profile == Profile::Restricted {
        lines.push("user: '1000'");
    }
    lines.push("post_start: [{command: [a], user: '7'}]");
    if lines.iter().any(|line| line.starts_with("network_mode")) {
        lines.retain(|line| !line.starts_with("networks") && !line.starts_with("links"));
    }
    let top = if rng.one_in(3) { rng.pick(TOPS) } else { TOPS[0] };
    let text = project(&one_each(&lines), &format!("{top}\nconfigs: {{k: {{content: c}}}}"));
    let mut document: Value = if rng.one_in(5) { forest.document(rng) } else { serde_yaml::from_str(&text).unwrap() };
    for _ in 0..rng.below(4) {
        forest.change(rng, &mut document);
    }
    let api = *rng.pick(&[(1, 41), (1, 44), (1, 51)]);
    Input { profile, is_granted: rng.one_in(2), api, document }
}

/// The world of a deployment whose services all have a container already, ports chosen where the file leaves them open.
fn world(deployment: Deployment, a: ServiceName) -> World {
    let ids = deployment.project.project().services.keys().enumerate();
    let containers = ids.map(|(at, name)| (name.clone(), ContainerId::parse(&format!("{at:064x}")).unwrap())).collect();
    World { containers, a, ..World::new(deployment) }
}

#[test]
fn fuzz_what_the_policy_admits_passes() {
    let forest = forest();
    fuzz::run(
        "gate",
        |rng| input(rng, &forest),
        |Input { profile, is_granted, api, document }| {
            let grants = if *is_granted { grants() } else { Grants::default() };
            let rules = TenantRules { grants, ..TenantRules::from(*profile) };
            let text = document.to_string();
            let judged = sample::judged(&rules, &text, FILES);
            if let Ok(deployment) = &judged {
                for name in deployment.project.project().services.keys() {
                    let world = world(deployment.clone(), name.clone());
                    // The policy leaves to the backend what it cannot do for an operator's own stack.
                    if let (Profile::Trusted, Err(error)) = (profile, world.try_request(*api)) {
                        assert!(matches!(error, BackendError::Unsupported { .. }), "{name}: {error}");
                        return Outcome::Refused;
                    }
                    let passed = all_requests_pass(&world, *api);
                    assert!(passed.is_ok(), "{name}: {passed:?}");
                }
            }
            Outcome::from(&judged)
        },
    );
}

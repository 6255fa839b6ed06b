//! A pool of subnets that overlaps what the host routes to stops the start, and the agent says what would do.
#![allow(clippy::disallowed_methods, reason = "the agent gets a network namespace of its own to be misled in")]

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::agent::BINARY;

/// What an agent with this pool says in a network namespace that has these routes besides its loopback interface, and
/// whether it ended by itself.
fn start(routes: &[&str], pool: &str) -> (String, bool) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut script = String::from("busybox ip link set lo up || exit 9\n");
    for route in routes {
        script.push_str(&format!("busybox ip route add {route} || exit 9\n"));
    }
    script.push_str("exec \"$0\" serve 2>&1");
    let mut agent = Command::new("unshare")
        .args(["--net", "sh", "-c", &script, BINARY])
        .env("Q8_AGENT_ADMIN_TOKEN", format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()))
        .env("Q8_AGENT_TENANTS_ROOT", root.path().join("tenants"))
        .env("Q8_AGENT_SUBNET_POOL", pool)
        // The engine need not be there when the agent starts.
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare starts");
    let end = Instant::now() + Duration::from_secs(30);
    let log = root.path().join("tenants/.agent");
    // An agent that starts takes the tenants root into use.
    while agent.try_wait().expect("it can be waited for").is_none() && !log.exists() {
        assert!(Instant::now() < end, "it neither starts nor ends");
        std::thread::sleep(Duration::from_millis(20));
    }
    // And one that must not start ends right after that.
    let soon = Instant::now() + Duration::from_secs(3);
    let mut ended = None;
    while ended.is_none() && Instant::now() < soon {
        std::thread::sleep(Duration::from_millis(20));
        ended = agent.try_wait().expect("it can be waited for");
    }
    drop(agent.kill());
    let mut said = String::new();
    drop(agent.stdout.take().expect("it was piped").read_to_string(&mut said));
    drop(agent.wait());
    assert_ne!(ended.and_then(|status| status.code()), Some(9), "the namespace could not be made: {said}");
    (said, ended.is_some())
}

#[test]
fn a_pool_that_overlaps_a_route_stops_the_start() {
    for (routes, pool, expected) in [
        (
            &["blackhole 10.213.64.0/18"][..],
            "10.213.0.0/16",
            "10.213.0.0/16 overlaps 10.213.64.0/18, to which this host has a route; 10.214.0.0/16 is free",
        ),
        (
            &["unreachable 10.0.0.0/8"],
            "10.213.0.0/16",
            "10.213.0.0/16 overlaps 10.0.0.0/8, to which this host has a route; 172.31.0.0/16 is free",
        ),
    ] {
        let (said, ended) = start(routes, pool);
        assert!(ended && said.contains(expected) && said.contains("Q8_AGENT_SUBNET_POOL"), "{routes:?}: {said}");
    }
    for (routes, pool) in [(&[][..], "10.213.0.0/16"), (&["blackhole 10.213.64.0/18"], "10.214.0.0/16")] {
        let (said, ended) = start(routes, pool);
        assert!(!ended && said.contains("serving"), "{routes:?}: {said}");
    }
}

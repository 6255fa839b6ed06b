//! What the benchmarks on an engine share: the agent without its HTTP side, requests for it, medians.
#![allow(dead_code, reason = "every benchmark uses another part of this")]

#[path = "../../tests/support/mod.rs"]
pub(crate) mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use q8_agent::config::Config;
use q8_agent::domain::{Subdomain, TenantId};
use q8_agent::orchestrator::{Orchestrator, ProvisionRequest};
use support::engine::Engine;
use support::images::BUSYBOX;

/// Runs a benchmark on a task: handlers of the agent run on tasks, and polling on the main thread is slower.
pub(crate) fn run(benchmark: impl Future<Output = ()> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::spawn(benchmark).await.expect("the benchmark runs to its end") });
}

/// `Q8_BENCH_ROUNDS`, or 7.
pub(crate) fn rounds() -> usize {
    std::env::var("Q8_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(7)
}

/// The median in milliseconds.
pub(crate) fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// The agent without its HTTP side, on a tenants root of its own.
pub(crate) async fn agent(engine: &Engine, root: &Path) -> Orchestrator {
    let settings: [(&str, OsString); 4] = [
        ("Q8_AGENT_ADMIN_TOKEN", OsString::from(uuid::Uuid::new_v4().to_string())),
        ("Q8_AGENT_TENANTS_ROOT", root.as_os_str().to_owned()),
        ("DOCKER_HOST", OsString::from(engine.host())),
        ("Q8_AGENT_SUBNET_POOL", OsString::from("10.214.0.0/16")),
    ];
    let settings = settings.into_iter().map(|(name, value)| (OsString::from(name), value));
    let config = Config::from_env(settings).expect("the settings are valid");
    Orchestrator::open(&config, std::sync::Arc::default()).await.expect("the agent starts")
}

/// Services that do nothing, with a volume each and one network, and end at once when they are stopped.
pub(crate) fn idle_services(size: usize) -> String {
    let services: String = (0..size)
        .map(|n| {
            format!(
                "  s{n}:\n    image: {BUSYBOX}\n    command: [sleep, infinity]\n    stop_signal: SIGKILL\n    \
                 restart: always\n    volumes: ['v{n}:/data']\n"
            )
        })
        .collect();
    let volumes: String = (0..size).map(|n| format!("  v{n}:\n")).collect();
    format!("services:\n{services}volumes:\n{volumes}")
}

/// A request to provision a tenant with this Compose text.
pub(crate) fn request(tenant: &Subdomain, compose: &str) -> ProvisionRequest {
    ProvisionRequest {
        id: TenantId::parse(tenant.as_str()).expect("an id"),
        subdomain: tenant.clone(),
        compose: compose.to_owned(),
        env: String::new(),
        files: BTreeMap::new(),
        profiles: BTreeSet::new(),
        placement: None,
        fallback: false,
        registry_auth: Vec::new(),
        limits: q8_agent::domain::Limits::default(),
        adopt: false,
        expect_plan: None,
    }
}

/// A tenant that no other benchmark uses.
pub(crate) fn tenant() -> Subdomain {
    Subdomain::parse(&support::unique("bench")).expect("a subdomain")
}

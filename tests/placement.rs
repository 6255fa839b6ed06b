//! Tenants on two backends: one on this host, one elsewhere with several regions. Both are pretend engines, so that what is
//! shown is the agent's part: who is placed where, and that nothing that befalls one backend concerns the other.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use q8_agent::backend::memory::{Fault, MemoryBackend};
use q8_agent::backend::{Backend, HostKey, OwnedKind};
use q8_agent::config::Config;
use q8_agent::domain::{BackendName, ErrorCode, Generation, Placement, Subdomain, TenantId, TenantState};
use q8_agent::orchestrator::{Error, LeftOverKind, Orchestrator, ProvisionRequest, Provisioned, PruneRequest};
use q8_agent::tenant_fs::{FsError, TenantFs};
use serde_json::Value;

const REGIONS: [&str; 3] = ["eastus", "westeurope", "northeurope"];

/// A tenants root, the two places, and the agent on them.
struct Host {
    root: tempfile::TempDir,
    here: Arc<MemoryBackend>,
    there: Arc<MemoryBackend>,
    agent: Orchestrator,
}

impl Host {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let fs = TenantFs::open(root.path()).expect("the root is usable");
        let backend = || MemoryBackend::new(fs.agent_id().clone(), HostKey::new(fs.host_key()));
        let (here, there) = (Arc::new(backend()), Arc::new(backend().pretending(BackendName::Aci, &REGIONS)));
        let agent = Self::agent(root.path(), fs, settings, here.clone(), vec![there.clone()]).await;
        Self { root, here, there, agent }
    }

    async fn agent(
        root: &Path,
        fs: TenantFs,
        settings: &[(&str, &str)],
        default: Arc<dyn Backend>,
        others: Vec<Arc<dyn Backend>>,
    ) -> Orchestrator {
        let agent = Orchestrator::with_backends(&config(root, settings), fs, default, others, Arc::default());
        agent.take_stock().await.expect("it takes stock");
        agent
    }

    /// The agent ends, and another one begins that has these backends besides.
    async fn again(self, others: Vec<Arc<dyn Backend>>) -> Self {
        let Self { root, here, there, agent } = self;
        agent.shutdown(Duration::from_secs(30)).await;
        drop(agent);
        // The last task of the agent before lets go of the root when it has heard of its end.
        let fs = until("the root is free", async || match TenantFs::open(root.path()) {
            Err(FsError::Locked) => None,
            opened => Some(opened.expect("the root is usable")),
        })
        .await;
        let agent = Self::agent(root.path(), fs, &[], here.clone(), others).await;
        Self { root, here, there, agent }
    }

    /// The lines of the list, by tenant.
    async fn list(&self) -> BTreeMap<String, Value> {
        let text = self.agent.list().await.expect("a list").body;
        let list: Value = serde_json::from_slice(&text).expect("JSON");
        let lines = list["tenants"].as_array().expect("an array").iter();
        lines.map(|line| (line["subdomain"].as_str().expect("a name").to_owned(), line.clone())).collect()
    }

    /// The tenant's region, as soon as the tenant is up.
    async fn region_when_up(&self, tenant: &Subdomain) -> Option<String> {
        until("it is up", async || {
            let status = self.agent.status(tenant).await.ok()?;
            (status.state == TenantState::Running).then_some(status.region)
        })
        .await
    }

    /// The regions in which something of the tenant is.
    async fn regions_of(&self, tenant: &Subdomain) -> BTreeSet<String> {
        let owned = self.there.owned(&BTreeSet::new()).await.expect("it answers");
        let own = owned.into_iter().filter(|object| object.tenant.as_ref() == Some(tenant));
        own.filter_map(|object| object.region).collect()
    }

    async fn recovered(&self) {
        until("nothing is degraded", async || self.agent.readiness().await.degraded.is_empty().then_some(())).await;
    }
}

/// Repeats until there is a value; 60 seconds at most.
async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn config(root: &Path, settings: &[(&str, &str)]) -> Config {
    let own = [
        ("Q8_AGENT_ADMIN_TOKEN", "9f2c1d7e5b8a4c3f6e0d9b8a7c6f5e4d"),
        ("Q8_AGENT_BACKEND", "memory"),
        ("Q8_AGENT_TENANTS_ROOT", root.to_str().expect("a plain path")),
    ];
    let all = own.iter().chain(settings).map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let unique: BTreeMap<OsString, OsString> = all.collect();
    Config::from_env(unique.into_iter()).expect("the settings are valid")
}

fn named(name: &str) -> Subdomain {
    Subdomain::parse(name).expect("a subdomain")
}

const STACK: &str = "services:
  db:
    image: q8test/busybox:1
    command: [sleep, infinity]
    volumes: ['store:/data']
  web:
    image: q8test/busybox:1
    command: [sleep, infinity]
volumes: {store: }
";

fn request(name: &str, placement: Option<(BackendName, Option<&str>)>) -> ProvisionRequest {
    let placement = placement.map(|(backend, region)| Placement { backend, region: region.map(str::to_owned) });
    ProvisionRequest {
        id: TenantId::parse(name).expect("an id"),
        subdomain: named(name),
        compose: STACK.to_owned(),
        env: String::new(),
        files: BTreeMap::new(),
        profiles: BTreeSet::new(),
        placement,
        fallback: false,
        registry_auth: Vec::new(),
        limits: q8_agent::domain::Limits::default(),
        adopt: false,
        expect_plan: None,
    }
}

fn there(name: &str, region: Option<&str>) -> ProvisionRequest {
    request(name, Some((BackendName::Aci, region)))
}

fn falling_back(name: &str, region: Option<&str>) -> ProvisionRequest {
    ProvisionRequest { fallback: true, ..there(name, region) }
}

fn refusal(result: Result<Provisioned, Error>) -> (ErrorCode, Option<String>) {
    let error = result.expect_err("it must be refused");
    (error.code(), error.field())
}

#[tokio::test]
async fn a_tenant_is_where_its_request_says_for_its_life() {
    let host = Host::new().await;
    let here = host.agent.provision(request("here", None)).await.expect("it comes up");
    assert_eq!((here.backend, here.region), (BackendName::Memory, None));
    let first = host.agent.provision(there("first", None)).await.expect("it comes up");
    assert_eq!((first.backend, first.region.as_deref()), (BackendName::Aci, Some("eastus")), "the first region");
    let west = host.agent.provision(there("west", Some("westeurope"))).await.expect("it comes up");
    assert_eq!(west.region.as_deref(), Some("westeurope"));
    assert_eq!(host.here.engine().containers().len(), 2);
    assert_eq!(host.there.engine().containers().len(), 4);
    assert_eq!(host.regions_of(&named("west")).await, BTreeSet::from(["westeurope".to_owned()]));

    for again in [there("west", Some("westeurope")), there("west", None), request("west", None)] {
        let again = host.agent.provision(again).await.expect("it is there");
        assert!(!again.changed);
    }
    for other in [
        there("west", Some("eastus")),
        request("west", Some((BackendName::Memory, None))),
        there("here", None),
        request("here", Some((BackendName::Memory, Some("eastus")))),
    ] {
        assert_eq!(refusal(host.agent.provision(other).await).0, ErrorCode::PlacementChange);
    }

    let status = host.agent.status(&named("west")).await.expect("a status");
    assert_eq!((status.backend, status.region.as_deref()), (BackendName::Aci, Some("westeurope")));
    assert_eq!(status.state, TenantState::Running);
    let lines = until("the list knows all of them", async || {
        let lines = host.list().await;
        lines.values().all(|line| line.get("stale").is_none()).then_some(lines)
    })
    .await;
    assert_eq!((&lines["west"]["backend"], &lines["west"]["region"]), (&"aci".into(), &"westeurope".into()));
    assert_eq!((&lines["here"]["backend"], lines["here"].get("region")), (&"memory".into(), None));
    assert!(lines.values().all(|line| line["state"] == "running"), "{lines:?}");

    let info = host.agent.info().await;
    let told: Vec<_> = info.backends.iter().map(|seen| (seen.name, seen.regions.len(), seen.tenants)).collect();
    assert_eq!(told, [(BackendName::Memory, 0, 1), (BackendName::Aci, 3, 2)]);

    host.agent.stop(&named("west"), None).await.expect("it stops");
    host.agent.start(&named("west"), None).await.expect("it starts");
    host.agent.restart(&named("west"), None).await.expect("it restarts");
    assert_eq!(host.agent.images(&named("west")).await.expect("its images").len(), 2);
    let gone = host.agent.teardown(&named("west"), true).await.expect("it goes");
    assert!(gone.changed && host.regions_of(&named("west")).await.is_empty());
    host.agent.provision(request("west", None)).await.expect("a purged name is free, and may be anywhere");
    assert_eq!(host.here.engine().containers().len(), 4);
}

#[tokio::test]
async fn what_cannot_be_placed_is_refused_with_its_field() {
    let host = Host::new().await;
    let unsupported = |field: &str| (ErrorCode::UnsupportedOnBackend, Some(field.to_owned()));
    let nowhere = host.agent.provision(there("a", Some("mars"))).await.expect_err("there is no such region");
    assert!(nowhere.to_string().contains("eastus, westeurope, northeurope"), "{nowhere}");
    assert_eq!((nowhere.code(), nowhere.field()), unsupported("placement.region"));
    let regional = request("a", Some((BackendName::Memory, Some("eastus"))));
    assert_eq!(refusal(host.agent.provision(regional).await), unsupported("placement.region"));
    let falling = ProvisionRequest { fallback: true, ..request("a", None) };
    assert_eq!(refusal(host.agent.provision(falling).await), unsupported("placement.fallback"));
    let elsewhere = request("a", Some((BackendName::Docker, None)));
    assert_eq!(
        refusal(host.agent.provision(elsewhere).await),
        (ErrorCode::BackendNotConfigured, Some("placement.backend".to_owned()))
    );
    assert!(host.list().await.is_empty());
}

#[tokio::test]
async fn a_full_region_is_passed_over_if_the_request_allows() {
    let host = Host::new().await;
    let acme = named("acme");
    // The second container finds no room, so there is something to undo.
    host.there.engine().fail_after(1, Fault::NoCapacity);
    let error = host.agent.provision(there("acme", Some("westeurope"))).await.expect_err("it may be there only");
    assert_eq!((error.code(), error.field().as_deref()), (ErrorCode::HostFull, Some("placement.region")));
    assert_eq!(error.details().expect("details")["region"], "westeurope");
    assert!(matches!(host.agent.status(&acme).await, Err(Error::NoSuchTenant(_))));
    assert!(host.regions_of(&acme).await.is_empty());

    for _ in 0..2 {
        host.there.engine().fail_after(1, Fault::NoCapacity);
    }
    let placed = host.agent.provision(falling_back("acme", Some("westeurope"))).await.expect("the third has room");
    assert_eq!((placed.region.as_deref(), placed.generation), (Some("eastus"), Generation(1)));
    for full in ["westeurope", "northeurope"] {
        assert!(placed.warnings.iter().any(|warning| warning.contains(full)), "{:?}", placed.warnings);
    }
    assert_eq!(host.regions_of(&acme).await, BTreeSet::from(["eastus".to_owned()]));
    assert_eq!(host.agent.status(&acme).await.expect("a status").region.as_deref(), Some("eastus"));
    let again = host.agent.provision(falling_back("acme", Some("westeurope"))).await.expect("the same request");
    assert!(!again.changed);
    let other = host.agent.provision(there("acme", Some("westeurope"))).await;
    assert_eq!(refusal(other).0, ErrorCode::PlacementChange);

    for _ in 0..3 {
        host.there.engine().fail_after(1, Fault::NoCapacity);
    }
    let full = host.agent.provision(falling_back("other", None)).await.expect_err("all of them are full");
    assert_eq!(full.code(), ErrorCode::HostFull);
    assert_eq!(full.details().expect("details")["region"], "eastus, westeurope, northeurope");
    assert!(host.regions_of(&named("other")).await.is_empty());

    // What is expected to be done in one region is not done in another.
    let planned = host.agent.plan(falling_back("other", None)).await.expect("a plan");
    host.there.engine().fail_next(Fault::NoCapacity);
    let expecting = ProvisionRequest { expect_plan: Some(planned.plan_hash), ..falling_back("other", None) };
    assert_eq!(refusal(host.agent.provision(expecting).await).0, ErrorCode::HostFull);
    host.agent.provision(falling_back("other", None)).await.expect("there is room again");
}

/// Whatever call's answer is lost on the way from a full region to the next: the tenant is in one region at most, and a
/// repeat brings it up.
#[tokio::test]
async fn a_lost_answer_on_the_way_leaves_one_region() {
    let attempts = (0..40).map(async |step| {
        let host = Host::new().await;
        host.there.engine().fail_after(1, Fault::NoCapacity);
        host.there.engine().fail_after(step, Fault::AnswerLost);
        let placed = host.agent.provision(falling_back("acme", None)).await;
        let met = host.there.engine().forget_faults() == 0;
        host.recovered().await;
        let regions = host.regions_of(&named("acme")).await;
        match (&placed, host.agent.status(&named("acme")).await) {
            (_, Ok(status)) => {
                assert_eq!(regions, BTreeSet::from([status.region.expect("a region")]), "step {step}: {placed:?}");
            }
            (Err(_), Err(Error::NoSuchTenant(_))) => assert!(regions.is_empty(), "step {step}: {regions:?}"),
            other => panic!("step {step}: {other:?}"),
        }
        let again = host.agent.provision(falling_back("acme", None)).await.expect("a repeat converges");
        assert_eq!(host.regions_of(&named("acme")).await, BTreeSet::from([again.region.expect("a region")]));
        met
    });
    let met = futures::future::join_all(attempts).await;
    assert!(met.iter().filter(|met| **met).count() >= 6, "both faults were met: {met:?}");
    assert_eq!(met.last(), Some(&false), "there are no more steps to lose an answer at: {met:?}");
}

#[tokio::test]
async fn one_backend_that_is_away_does_not_concern_the_other() {
    let host = Host::new().await;
    host.agent.provision(request("here", None)).await.expect("it comes up");
    host.agent.provision(there("there", None)).await.expect("it comes up");
    host.there.engine().set_available(false);
    let readiness = until("it is seen", async || {
        let readiness = host.agent.readiness().await;
        (!readiness.degraded.is_empty()).then_some(readiness)
    })
    .await;
    assert!(readiness.ready);
    assert_eq!(readiness.degraded, ["backend:aci"]);
    let lines = until("the list says so", async || {
        let lines = host.list().await;
        (lines["there"]["stale"] == true).then_some(lines)
    })
    .await;
    assert_eq!((&lines["there"]["state"], &lines["there"]["region"]), (&"running".into(), &"eastus".into()));
    assert!(lines["here"].get("stale").is_none() && lines["here"]["state"] == "running");
    let asked = host.agent.status(&named("there")).await;
    assert_eq!(asked.map(|status| status.state).expect_err("nobody knows").code(), ErrorCode::BackendUnavailable);
    assert_eq!(host.agent.status(&named("here")).await.expect("a status").state, TenantState::Running);
    host.agent.provision(request("new", None)).await.expect("it comes up");
    let refused = host.agent.provision(there("other", None)).await;
    assert_eq!(refusal(refused).0, ErrorCode::BackendUnavailable);
    let pruned = host.agent.prune(dry_run()).await.expect("the rest can be told");
    assert_eq!(pruned.unseen, [BackendName::Aci]);

    host.there.engine().set_available(true);
    host.recovered().await;
    assert_eq!(host.agent.status(&named("there")).await.expect("a status").state, TenantState::Running);

    host.here.engine().set_available(false);
    let readiness = host.agent.readiness().await;
    assert!(!readiness.ready && readiness.degraded.contains(&"backend".to_owned()), "{readiness:?}");
    assert_eq!(host.agent.status(&named("there")).await.expect("a status").state, TenantState::Running);
    host.agent.provision(there("other", None)).await.expect("it comes up");
}

#[tokio::test]
async fn tenants_are_where_they_were_when_the_agent_comes_back() {
    let host = Host::new().await;
    host.agent.provision(request("here", None)).await.expect("it comes up");
    host.agent.provision(there("there", Some("northeurope"))).await.expect("it comes up");
    let others: Vec<Arc<dyn Backend>> = vec![host.there.clone()];
    let host = host.again(others).await;
    assert_eq!(host.region_when_up(&named("there")).await.as_deref(), Some("northeurope"));
    assert_eq!(host.regions_of(&named("there")).await, BTreeSet::from(["northeurope".to_owned()]));

    // Whoever takes the settings away keeps what is there, and is told.
    let host = host.again(Vec::new()).await;
    let readiness = until("it is ready", async || {
        let readiness = host.agent.readiness().await;
        (readiness.ready && readiness.degraded.len() == 1).then_some(readiness)
    })
    .await;
    assert_eq!(readiness.degraded, ["backend:aci"]);
    let lines = host.list().await;
    assert_eq!((&lines["there"]["stale"], &lines["there"]["backend"]), (&true.into(), &"aci".into()));
    assert_eq!(lines["there"]["state"], "degraded", "nobody has seen it");
    let code = |error: Error| error.code();
    assert_eq!(host.agent.status(&named("there")).await.map(drop).map_err(code), Err(ErrorCode::BackendNotConfigured));
    let stopped = host.agent.stop(&named("there"), None).await;
    assert_eq!(stopped.map(drop).map_err(code), Err(ErrorCode::BackendNotConfigured));
    let torn_down = host.agent.teardown(&named("there"), true).await;
    assert_eq!(torn_down.map(drop).map_err(code), Err(ErrorCode::BackendNotConfigured), "and it is not begun");
    assert_eq!(host.there.engine().containers().len(), 2);
    let others: Vec<Arc<dyn Backend>> = vec![host.there.clone()];
    let host = host.again(others).await;
    assert_eq!(host.region_when_up(&named("there")).await.as_deref(), Some("northeurope"));
}

#[tokio::test]
async fn what_is_elsewhere_takes_nothing_of_this_host() {
    let host = Host::with(&[("Q8_AGENT_MAX_TENANTS", "1")]).await;
    let before = host.agent.system_stats().await.stats.memory.committed_bytes;
    host.agent.provision(there("there", None)).await.expect("it comes up");
    let stats = host.agent.system_stats().await;
    assert_eq!((stats.stats.tenants.running, stats.stats.tenants.free), (0, 1));
    assert_eq!(stats.stats.memory.committed_bytes, before);
    host.agent.provision(request("here", None)).await.expect("its slot is free");
    assert_eq!(refusal(host.agent.provision(there("more", None)).await).0, ErrorCode::HostFull);
    assert_eq!(refusal(host.agent.provision(request("more", None)).await).0, ErrorCode::HostFull);
}

#[tokio::test]
async fn the_range_of_host_ports_is_a_rule_of_this_host() {
    let host = Host::new().await;
    let publishing = |request: ProvisionRequest| ProvisionRequest {
        compose: STACK.replace("  web:\n", "  web:\n    ports: ['80:80']\n"),
        ..request
    };
    assert_eq!(refusal(host.agent.provision(publishing(request("a", None))).await).0, ErrorCode::PolicyDenied);
    host.agent.provision(publishing(there("a", None))).await.expect("it has an address of its own");
    let privileged =
        ProvisionRequest { compose: STACK.replace("  web:\n", "  web:\n    privileged: true\n"), ..there("b", None) };
    assert_eq!(refusal(host.agent.provision(privileged).await).0, ErrorCode::PolicyDenied, "the policy is the same");
}

fn dry_run() -> PruneRequest {
    PruneRequest { dry_run: true, kinds: BTreeSet::new(), volumes: BTreeSet::new() }
}

#[tokio::test]
async fn what_is_left_over_elsewhere_is_told_and_does_not_go_at_once() {
    let host = Host::new().await;
    host.agent.provision(there("lost", Some("westeurope"))).await.expect("it comes up");
    host.agent.provision(there("kept", None)).await.expect("it comes up");
    let others: Vec<Arc<dyn Backend>> = vec![host.there.clone()];
    let record = host.root.path().join("lost");
    let host = {
        // Somebody deletes the directory of a tenant while the agent is down.
        let host = host.again(Vec::new()).await;
        std::fs::remove_dir_all(record).expect("it is there");
        host.again(others).await
    };
    host.recovered().await;
    let told = host.agent.prune(dry_run()).await.expect("it is told");
    assert!(told.objects.iter().all(|left| {
        left.subdomain == Some(named("lost"))
            && left.backend == Some(BackendName::Aci)
            && left.region.as_deref() == Some("westeurope")
    }));
    let containers = |kind: LeftOverKind| told.objects.iter().filter(|left| left.kind == kind).count();
    assert_eq!((containers(LeftOverKind::Container), containers(LeftOverKind::Volume)), (2, 1));
    let pruned = host.agent.prune(PruneRequest { dry_run: false, ..dry_run() }).await.expect("it is asked for");
    assert_eq!(pruned.removed, 0, "{:?}", pruned.objects);
    let owned = host.there.owned(&BTreeSet::new()).await.expect("it answers");
    assert_eq!(owned.iter().filter(|object| object.kind == OwnedKind::Container).count(), 4);
}

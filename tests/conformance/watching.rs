//! Whoever watches a backend knows what its containers do.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use q8_agent::backend::{Backend, Ended, Sighting, Sightings};
use q8_agent::domain::Health;
use tokio::time::Instant;

use super::{HEALTHY, SLEEPS, Tenant, World, service, stack};

/// What a watch has told so far of one tenant.
struct Picture<'a> {
    sightings: Sightings,
    tenant: &'a str,
    /// Name (`service-number`), state and health by id.
    containers: BTreeMap<String, (String, String, Health)>,
    ended: Vec<Ended>,
    in_step: Option<Instant>,
}

impl<'a> Picture<'a> {
    /// Begins to watch. The first that is told is the whole.
    async fn of(backend: &dyn Backend, tenant: &'a str) -> Self {
        let sightings = backend.watch().await.expect("it can be watched");
        let (containers, ended) = (BTreeMap::new(), Vec::new());
        let mut picture = Self { sightings, tenant, containers, ended, in_step: None };
        assert!(matches!(picture.take().await, Sighting::All { .. }), "first of all comes the whole picture");
        picture
    }

    async fn take(&mut self) -> Sighting {
        let next = tokio::time::timeout(Duration::from_secs(30), self.sightings.next()).await;
        let sighting = next.expect("something is told in time").expect("the watch goes on");
        match &sighting {
            Sighting::All { containers, .. } => {
                for container in containers {
                    self.saw(container);
                }
            }
            Sighting::Changed { container, .. } => self.saw(container),
            Sighting::Gone { container, .. } => {
                self.containers.remove(container.as_str());
            }
            Sighting::Ended(ended) if ended.tenant.as_str() == self.tenant => self.ended.push(ended.clone()),
            Sighting::InStep { as_of, .. } => self.in_step = Some(*as_of),
            Sighting::Ended(_) | Sighting::OutOfMemory { .. } => {}
        }
        sighting
    }

    fn saw(&mut self, container: &q8_agent::backend::ObservedContainer) {
        if container.tenant.as_str() == self.tenant {
            let name = format!("{}-{}", container.service, container.number);
            let status = &container.status;
            self.containers.insert(status.id.to_string(), (name, status.state.clone(), status.health));
        }
    }

    /// Watches until it is so; fails when that takes too long.
    async fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !is_so(self) {
            assert!(Instant::now() < end, "it is not told that {what}: {:?}", self.containers);
            self.take().await;
        }
    }

    fn states(&self) -> Vec<(&str, &str)> {
        let mut all: Vec<(&str, &str)> =
            self.containers.values().map(|(name, state, _)| (name.as_str(), state.as_str())).collect();
        all.sort_unstable();
        all
    }
}

pub(crate) async fn a_watch_tells_the_whole_and_then_every_change(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "watched");
    let subdomain = tenant.owner.subdomain.to_string();
    let mut early = Picture::of(backend, &subdomain).await;
    assert_eq!(early.states(), []);
    tenant.up(&stack(&[("web", &[SLEEPS]), ("db", &[SLEEPS, HEALTHY])], "")).await.expect("it comes up");
    early.until("both run", |seen| seen.states() == [("db-1", "running"), ("web-1", "running")]).await;
    early
        .until("db is healthy", |seen| {
            seen.containers.values().any(|(name, _, health)| name == "db-1" && *health == Health::Healthy)
        })
        .await;

    let mut late = Picture::of(backend, &subdomain).await;
    assert_eq!(late.containers, early.containers, "who comes later sees the same");
    let (before, begun) = (tenant.containers().await, Instant::now());
    backend.stop(tenant.deployed(), None, &Tenant::run()).await.expect("it stops");
    for picture in [&mut early, &mut late] {
        picture.until("both have ended", |seen| seen.states() == [("db-1", "exited"), ("web-1", "exited")]).await;
        picture.until("all is as it was told", |seen| seen.in_step.is_some_and(|as_of| as_of > begun)).await;
        let told = picture.ended.iter().filter(|ended| before.values().any(|one| one.status.id == ended.container));
        let told: Vec<(&str, i64, bool)> =
            told.map(|ended| (ended.service.as_str(), ended.code, ended.requested)).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        // Azure chooses the signal.
        let code = if world.grouped { 0 } else { 137 };
        assert!(told.iter().all(|(_, own, requested)| (*own, *requested) == (code, true)), "{told:?}");
    }
    backend.start(tenant.deployed(), None, &Tenant::run()).await.expect("it starts");
    late.until("both run again", |seen| seen.states() == [("db-1", "running"), ("web-1", "running")]).await;
    tenant.purge().await;
    late.until("both are gone", |seen| seen.containers.is_empty()).await;
}

/// `bad` lives until `other` is stopped, and from then on ends with 3 as often as it is started: nothing but the test decides
/// when.
pub(crate) fn ends_with_another() -> String {
    let mount = "volumes: ['store:/data']";
    let dies = r#"entrypoint: ["sh", "-c", "while [ ! -e /data/end ]; do sleep 0.1; done; exit 3"]"#;
    let ends = r#"pre_stop: [{command: ["sh", "-c", "touch /data/end"]}]"#;
    stack(&[("bad", &[dies, mount, "restart: always"]), ("other", &[SLEEPS, mount, ends])], "volumes: {store: {}}\n")
}

pub(crate) async fn a_watch_tells_every_end(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "dies");
    tenant.up(&ends_with_another()).await.expect("it comes up");
    let subdomain = tenant.owner.subdomain.to_string();
    let mut picture = Picture::of(backend, &subdomain).await;
    backend.stop(tenant.deployed(), Some(&service("other")), &Tenant::run()).await.expect("it stops");
    let of_bad = |seen: &Picture<'_>| -> Vec<Ended> {
        seen.ended.iter().filter(|ended| ended.service.as_str() == "bad").cloned().collect()
    };
    picture.until("it ends again and again", |seen| of_bad(seen).len() >= 3).await;
    let ended = of_bad(&picture);
    assert!(ended.iter().all(|ended| (ended.code, ended.requested) == (3, false)), "{ended:?}");
    assert!(ended.is_sorted_by_key(|ended| ended.at), "{ended:?}");
    tenant.purge().await;
}

pub(crate) async fn what_is_set_aside_is_not_told(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "aside");
    let version = |number: u32| stack(&[("web", &[SLEEPS, &format!("environment: {{V: '{number}'}}")])], "");
    tenant.up(&version(1)).await.expect("it comes up");
    let subdomain = tenant.owner.subdomain.to_string();
    let mut picture = Picture::of(backend, &subdomain).await;
    let first = tenant.containers().await["web-1"].status.id.to_string();
    assert!(picture.containers.contains_key(&first));
    tenant.up(&version(2)).await.expect("it is updated");
    let second = tenant.containers().await["web-1"].status.id.to_string();
    picture
        .until("the new one alone is there", |seen| {
            seen.containers.keys().eq([&second]) && seen.states() == [("web-1", "running")]
        })
        .await;
    tenant.purge().await;
}

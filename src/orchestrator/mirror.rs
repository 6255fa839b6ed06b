//! What is known of every tenant without asking anybody: its record, its containers as they were last seen, and as of when.
//!
//! It is kept true by what a backend's watch tells (`follow`) and by the agent's own operations, which show their tenant
//! what they did before they answer. Both may overtake each other, so everything seen carries the time at which it was
//! asked for, and what is older never replaces what is newer.
//!
//! A status is written once after each change and kept as bytes; only its age is put in for each answer.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::deaths::Deaths;
use super::feed::Happening;
use super::operations::Current;
use super::standing::Link;
use super::strays::Strays;
use super::summary::{self, Shape};
use super::{TenantLine, TenantStatus};
use crate::backend::{Ended, ObservedContainer};
use crate::domain::{
    BackendName, ContainerId, DesiredState, Generation, Health, Operation, ProjectName, ServiceName, ServiceState,
    ServiceStatus, Subdomain, TenantId, TenantState,
};
use crate::tenant_fs::Record;

/// Containers that have gone are remembered for so long: no call of a backend that only reads takes longer.
const GONE: Duration = Duration::from_secs(30);

/// So many ends of containers are held that have not been seen yet.
const EARLY: usize = 32;

/// Why a tenant is not as it should be of which there is no record.
const LOST: &str = "its record on this host is lost; provision it again under its id, or tear it down";

/// What is told of a tenant with an operation that could not be finished or undone so far.
const OPEN: &str = "an interrupted operation is still open; it is tried again, and the agent's log says why it fails";

/// Why a tenant is not as it should be whose record is damaged.
const DAMAGED: &str = "its record cannot be read";

/// All tenants.
pub(super) struct Mirror {
    pub(super) tenants: DashMap<Subdomain, Entry>,
    /// Those of which only a backend still knows.
    pub(super) strays: Strays,
    /// Those whose records are there and cannot be read.
    pub(super) damaged: DashMap<Subdomain, Damaged>,
    pub(super) links: BTreeMap<BackendName, Link>,
}

/// What is known of a tenant whose record cannot be read.
#[derive(Debug, Clone)]
pub(super) struct Damaged {
    /// Where it was last seen; the default backend until then.
    pub(super) backend: BackendName,
    /// By what its containers say.
    pub(super) id: Option<TenantId>,
}

impl Damaged {
    /// Its line in the list, where it must not look as if it were gone.
    pub(super) fn line(self, tenant: &Subdomain, operation: Option<Operation>) -> Option<Bytes> {
        let line = TenantLine {
            subdomain: tenant.clone(),
            id: self.id,
            project: ProjectName::of(tenant),
            backend: self.backend,
            region: None,
            desired: DesiredState::Running,
            state: TenantState::Failed,
            generation: Generation::NONE,
            services_ready: 0,
            services: 0,
            operation,
            last_error: None,
            reasons: vec![DAMAGED.to_owned()],
            stale: false,
        };
        serde_json::to_vec(&line).ok().map(Bytes::from)
    }
}

/// One tenant.
pub(super) struct Entry {
    /// Without what its status does not need.
    pub(super) record: Record,
    /// Of the record's generation; none until somebody has read it. Of a tenant that is not up on record: of what is being
    /// brought up.
    pub(super) shape: Option<Arc<Shape>>,
    /// The last attempt to read that has failed.
    pub(super) unreadable: bool,
    containers: BTreeMap<ContainerId, Held>,
    gone: Vec<(ContainerId, Instant)>,
    /// Ends of containers that have not been seen yet.
    early: Vec<(Ended, Instant)>,
    /// When all of its containers were last asked for together.
    looked: Option<Instant>,
    /// What is held may be wrong, whatever the link says.
    pub(super) doubted: bool,
    /// An interrupted operation could not be finished or undone so far.
    pub(super) has_open: bool,
    written: Option<Arc<Written>>,
    /// What the feed was last told.
    told: Option<Told>,
    /// Its record is lost: what is in its place here is what its backend says.
    pub(super) is_stray: bool,
}

struct Held {
    container: ObservedContainer,
    as_of: Instant,
    deaths: Deaths,
}

struct Told {
    state: TenantState,
    services: BTreeMap<ServiceName, (ServiceState, Health)>,
    addresses: Addresses,
}

/// Names and addresses of each port, by service, port and protocol.
type Addresses = BTreeMap<(ServiceName, u16, String), BTreeSet<String>>;

/// A tenant as it is told.
pub(super) struct View {
    pub(super) state: TenantState,
    pub(super) services: Vec<ServiceStatus>,
    reasons: Vec<String>,
}

/// A tenant's status and its line in the list, as JSON.
pub(super) struct Written {
    /// The status up to its age, and from there on.
    pub(super) head: Bytes,
    pub(super) tail: Bytes,
    /// Of all but the age.
    pub(super) tag: [u8; 16],
    pub(super) line: Bytes,
}

/// The first bytes of a hash, to tell one answer from another.
pub(super) fn tag<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let mut tag = [0; 16];
    tag.copy_from_slice(&hash.finalize()[..16]);
    tag
}

impl Mirror {
    /// Of these backends, with how long each is known for.
    pub(super) fn new(backends: impl IntoIterator<Item = (BackendName, Duration)>) -> Self {
        Self {
            tenants: DashMap::new(),
            strays: Strays::default(),
            damaged: DashMap::new(),
            links: backends.into_iter().map(|(name, fresh_for)| (name, Link::new(fresh_for))).collect(),
        }
    }

    /// Whether what was known of a tenant at a moment counts as known now.
    pub(super) fn is_fresh(&self, entry: &Entry, as_of: Instant) -> bool {
        self.links.get(&entry.record.backend).is_some_and(|link| as_of.elapsed() <= link.fresh_for)
    }

    /// As of when what is held of a tenant is true; none when that is not known.
    pub(super) fn as_of(&self, entry: &Entry) -> Option<Instant> {
        if entry.doubted {
            return None;
        }
        let standing = self.links.get(&entry.record.backend)?.standing.borrow();
        standing.as_of(&entry.record.subdomain, entry.looked)
    }
}

impl Entry {
    pub(super) fn new(record: &Record) -> Self {
        Self {
            record: slim(record),
            shape: None,
            unreadable: false,
            containers: BTreeMap::new(),
            gone: Vec::new(),
            early: Vec::new(),
            looked: None,
            doubted: false,
            has_open: false,
            written: None,
            told: None,
            is_stray: false,
        }
    }

    /// Whether it has services: it is up on record, or on its way there for the first time.
    pub(super) fn is_live(&self) -> bool {
        self.record.is_live() || self.shape.is_some()
    }

    /// Takes over a record; says what has become of the tenant.
    pub(super) fn set_record(&mut self, record: &Record) -> Option<Happening> {
        let before = std::mem::replace(&mut self.record, slim(record));
        self.written = None;
        if before.generation != record.generation {
            self.shape = None;
        }
        if !record.is_live() {
            self.containers.clear();
            self.shape = None;
        }
        match (before.is_live(), record.is_live()) {
            (false, true) => Some(Happening::Created { generation: record.generation }),
            (true, false) => Some(Happening::Kept {}),
            _ => None,
        }
    }

    /// All of its containers, as they were when they were asked for.
    pub(super) fn saw_all(&mut self, containers: Vec<ObservedContainer>, as_of: Instant) {
        self.written = None;
        self.doubted = false;
        self.looked = self.looked.max(Some(as_of));
        self.gone.retain(|(_, at)| at.elapsed() < GONE);
        let mut before = std::mem::take(&mut self.containers);
        for container in containers {
            let id = container.status.id.clone();
            let known = before.remove(&id);
            if self.gone.iter().any(|(gone, at)| *gone == id && *at > as_of) {
                continue;
            }
            let held = match known {
                Some(newer) if newer.as_of > as_of => newer,
                known => Held::new(container, as_of, self.deaths_so_far(known, &id)),
            };
            self.containers.insert(id, held);
        }
        // What was seen later than this was asked for is there, even if this does not know it.
        self.containers.extend(before.into_iter().filter(|(_, held)| held.as_of > as_of));
    }

    /// One of its containers.
    pub(super) fn saw(&mut self, container: ObservedContainer, as_of: Instant) {
        let id = container.status.id.clone();
        let known = self.containers.remove(&id);
        match known {
            Some(newer) if newer.as_of > as_of => drop(self.containers.insert(id, newer)),
            // All of them were asked for later, and this one was not among them.
            None if self.looked.is_some_and(|looked| looked > as_of) => {}
            known => {
                self.written = None;
                let deaths = self.deaths_so_far(known, &id);
                self.containers.insert(id, Held::new(container, as_of, deaths));
            }
        }
    }

    pub(super) fn lost(&mut self, id: &ContainerId, as_of: Instant) {
        if self.containers.get(id).is_none_or(|held| held.as_of <= as_of) {
            self.written = None;
            self.containers.remove(id);
            self.gone.retain(|(_, at)| at.elapsed() < GONE);
            self.gone.push((id.clone(), as_of));
        }
    }

    pub(super) fn ended(&mut self, ended: &Ended, at: Instant) {
        if let Some(held) = self.containers.get_mut(&ended.container) {
            held.deaths.add(ended, at);
            self.written = None;
            return;
        }
        // It was faster than the first look at it, which is still to come.
        self.early.retain(|(_, at)| at.elapsed() < GONE);
        if self.early.len() == EARLY {
            self.early.remove(0);
        }
        self.early.push((ended.clone(), at));
    }

    /// How a container has ended so far, also before it was seen for the first time.
    fn deaths_so_far(&mut self, known: Option<Held>, id: &ContainerId) -> Deaths {
        if let Some(known) = known {
            return known.deaths;
        }
        let mut deaths = Deaths::default();
        self.early.retain(|(ended, at)| {
            let is_its = ended.container == *id;
            if is_its {
                deaths.add(ended, *at);
            }
            !is_its
        });
        deaths
    }

    /// Services of it with a container that has been in a crash loop for so long that they are to be stopped now.
    pub(super) fn loop_too_long(&mut self, limit: Duration) -> BTreeSet<ServiceName> {
        let (now, id) = (Instant::now(), &self.record.id);
        let own = self.containers.values_mut().filter(|held| held.container.owner == *id);
        own.filter_map(|held| held.deaths.loops_too_long(now, limit).then(|| held.container.service.clone())).collect()
    }

    /// A service of it is about to be stopped for that; false if nothing of it is in a loop any more.
    pub(super) fn stop_of_loop_begins(&mut self, service: &ServiceName) -> bool {
        let now = Instant::now();
        // Each of them, not only the first.
        self.deaths_of(service).filter_map(|deaths| deaths.stop_begins(now).then_some(())).count() > 0
    }

    /// It has been stopped, or could not be.
    pub(super) fn stop_of_loop_ends(&mut self, service: &ServiceName, done: bool) {
        self.deaths_of(service).for_each(|deaths| deaths.stop_ends(done));
    }

    /// It cannot be stopped: that is tried no more in this loop.
    pub(super) fn give_loop_up(&mut self, service: &ServiceName) {
        self.deaths_of(service).for_each(Deaths::give_up);
    }

    fn deaths_of(&mut self, service: &ServiceName) -> impl Iterator<Item = &mut Deaths> {
        self.written = None;
        self.containers.values_mut().filter(|held| held.container.service == *service).map(|held| &mut held.deaths)
    }

    /// The name of a container of it.
    pub(super) fn container(&self, id: &ContainerId) -> Option<&ObservedContainer> {
        self.containers.get(id).map(|held| &held.container)
    }

    /// Whether nobody can tell what it is to be: its specification could not be read.
    pub(super) fn is_unreadable(&self) -> bool {
        self.unreadable && self.shape.is_none() && self.record.is_live()
    }

    /// Whether a container of it may come out of a crash loop by the passing of time alone.
    pub(super) fn has_loops(&self) -> bool {
        let told = self.told.as_ref();
        told.is_some_and(|told| told.services.values().any(|(state, _)| *state == ServiceState::Restarting))
    }

    /// Its own containers. Those of another identity that had the name before are not.
    fn observed(&self) -> Vec<ObservedContainer> {
        let now = Instant::now();
        let own = self.containers.values().filter(|held| held.container.owner == self.record.id);
        own.map(|held| {
            let mut container = held.container.clone();
            container.status.last_exits = held.deaths.exits();
            let runs = matches!(container.status.state.as_str(), "running" | "restarting");
            container.status.crash_loop = runs && held.deaths.is_loop(now) || held.deaths.was_stopped();
            container
        })
        .collect()
    }

    /// None while its specification has not been read. A panic about this tenant is not to take the list from the others.
    pub(super) fn view(&self, is_brought_up: bool) -> Option<View> {
        let viewed = std::panic::catch_unwind(AssertUnwindSafe(|| self.view_of(is_brought_up)));
        viewed.unwrap_or_else(|_| {
            let reasons = vec!["its state cannot be told: a bug, which the agent's log has".to_owned()];
            Some(View { state: TenantState::Degraded, services: Vec::new(), reasons })
        })
    }

    fn view_of(&self, is_brought_up: bool) -> Option<View> {
        let services = match (self.is_live(), &self.shape) {
            (false, _) => Vec::new(),
            (true, None) => return None,
            (true, Some(shape)) => summary::services(shape, self.record.desired, self.observed(), is_brought_up),
        };
        let of_services = services
            .iter()
            .filter_map(|service| Some(format!("service {}: {}", service.name, service.reason.as_deref()?)));
        let (state, lost) = if self.is_stray {
            (TenantState::Degraded, Some(LOST.to_owned()))
        } else {
            (state(&self.record, is_brought_up, &services), None)
        };
        let open = self.has_open.then(|| OPEN.to_owned());
        let reasons = lost.into_iter().chain(open).chain(of_services).collect();
        Some(View { state, services, reasons })
    }

    /// Tells the feed what is otherwise than it was told. The first time there is nothing to compare with.
    pub(super) fn tell(&mut self, is_brought_up: bool, mut publish: impl FnMut(&Happening)) {
        self.written = None;
        if self.told.is_none() && self.looked.is_none() && self.is_live() {
            // After a start of the agent: what is not known yet is no state that it could have come from.
            return;
        }
        let Some(mut view) = self.view(is_brought_up) else { return };
        if !self.record.is_live() {
            // Whoever follows has not been told of the tenant yet.
            view.services.clear();
            view.reasons.clear();
        }
        let now = Instant::now();
        for held in self.containers.values_mut() {
            if held.deaths.has_begun_to_loop(now) {
                publish(&Happening::RestartLoop {
                    service: held.container.service.clone(),
                    container: held.container.status.name.clone(),
                    last_exits: held.deaths.exits(),
                });
            }
        }
        let services = view.services.iter().map(|service| (service.name.clone(), (service.state, service.health)));
        let services: BTreeMap<ServiceName, (ServiceState, Health)> = services.collect();
        let mut addresses = self.addresses();
        if let Some(told) = &mut self.told {
            // What does not run has none, and has the old ones, or others, when it runs again.
            for (port, before) in std::mem::take(&mut told.addresses) {
                let Some(now) = addresses.get(&port) else {
                    addresses.insert(port, before);
                    continue;
                };
                // One more is no change: an address may be known later than its name.
                if !before.is_subset(now) {
                    let ((service, port, protocol), to) = (port, now.iter().cloned().collect());
                    publish(&Happening::Address { service, port, protocol, from: before.into_iter().collect(), to });
                }
            }
        }
        if !self.record.is_live() {
            addresses.clear();
        }
        if let Some(told) = &self.told {
            for service in &view.services {
                let before = told.services.get(&service.name);
                let (name, from) = (&service.name, before.map(|(state, _)| *state));
                if from != Some(service.state) {
                    let (service, reason) = (name.clone(), service.reason.clone());
                    publish(&Happening::Service { service, from, to: services[name].0, reason });
                }
                let from = before.map(|(_, health)| *health);
                if from.unwrap_or(Health::None) != service.health {
                    publish(&Happening::Health { service: name.clone(), from, to: service.health });
                }
            }
            if told.state != view.state {
                publish(&Happening::State {
                    from: told.state,
                    to: view.state,
                    generation: self.record.generation,
                    reasons: view.reasons,
                });
            }
        }
        self.told = Some(Told { state: view.state, services, addresses });
    }

    /// Where its ports are reached now.
    fn addresses(&self) -> Addresses {
        let mut all = Addresses::new();
        let own = self.containers.values().filter(|held| held.container.owner == self.record.id);
        // A port that is not published has no host port.
        for endpoint in own.flat_map(|held| &held.container.endpoints).filter(|endpoint| endpoint.host_port != 0) {
            let port = (endpoint.service.clone(), endpoint.port, endpoint.protocol.clone());
            let known = [Some(&endpoint.host), endpoint.address.as_ref()].into_iter().flatten();
            all.entry(port).or_default().extend(known.filter(|known| !known.is_empty()).cloned());
        }
        all
    }

    /// The feed has been told that the tenant is there; everything of it is news from now on.
    pub(super) fn is_new(&mut self) {
        let (services, addresses) = (BTreeMap::new(), Addresses::new());
        self.told.get_or_insert(Told { state: TenantState::Pending, services, addresses });
    }

    pub(super) fn status(&self, current: Option<Current>, age_ms: u64) -> TenantStatus {
        let view = self.view(current.as_ref().is_some_and(|current| current.brings_up));
        // In a list it must not look as if the tenant were gone.
        let View { state, services, reasons } = view.unwrap_or_else(|| View {
            state: TenantState::Failed,
            services: Vec::new(),
            reasons: vec!["its specification cannot be read".to_owned()],
        });
        let record = &self.record;
        let own = self.containers.values().filter(|held| held.container.owner == record.id && self.is_live());
        let mut endpoints: Vec<_> = own.flat_map(|held| held.container.endpoints.iter().cloned()).collect();
        endpoints.sort_by(|a, b| {
            (&a.service, a.port, a.host_port, &a.host).cmp(&(&b.service, b.port, b.host_port, &b.host))
        });
        TenantStatus {
            subdomain: record.subdomain.clone(),
            id: record.id.clone(),
            project: ProjectName::of(&record.subdomain),
            backend: record.backend,
            region: record.region.clone(),
            desired: record.desired,
            state,
            generation: record.generation,
            age_ms,
            operation: current.map(|current| current.operation),
            last_error: record.last_error.clone(),
            reasons,
            warnings: self.shape.as_ref().map(|shape| shape.warnings.clone()).unwrap_or_default(),
            endpoints,
            services,
        }
    }

    /// Its line in the list while its backend does not answer: what was last known, which may be nothing.
    pub(super) fn stale_line(&self, current: Option<Current>) -> Option<Bytes> {
        let mut line = TenantLine { stale: true, ..line(self.status(current, 0)) };
        if self.looked.is_none() && line.state == TenantState::Failed {
            // Nothing says that it has.
            line.state = TenantState::Degraded;
        }
        serde_json::to_vec(&line).ok().map(Bytes::from)
    }

    /// The answer as it was last written, unless something has changed since.
    pub(super) fn last_written(&self) -> Option<Arc<Written>> {
        self.written.clone().filter(|_| self.shape.is_some())
    }

    /// The answer without its age. While an operation runs it is written anew each time: its step goes on by itself.
    pub(super) fn written(&mut self, current: Option<Current>) -> Option<Arc<Written>> {
        if current.is_some() {
            return self.write(current).map(Arc::new);
        }
        if self.written.is_none() {
            self.written = self.write(None).map(Arc::new);
        }
        self.written.clone()
    }

    fn write(&self, current: Option<Current>) -> Option<Written> {
        const AGE: &[u8] = b"\"age_ms\":";
        let status = self.status(current, 0);
        let text = Bytes::from(serde_json::to_vec(&status).ok()?);
        // A quote within a value is escaped, so the first of these is the field.
        let at = text.windows(AGE.len()).position(|window| window == AGE)? + AGE.len();
        let (head, tail) = (text.slice(..at), text.slice(at + 1..));
        let line = serde_json::to_vec(&line(status)).ok()?;
        Some(Written { tag: tag([&head[..], &tail[..]]), head, tail, line: line.into() })
    }
}

impl Held {
    fn new(container: ObservedContainer, as_of: Instant, mut deaths: Deaths) -> Self {
        if matches!(container.status.state.as_str(), "running" | "restarting" | "paused") {
            deaths.runs();
        } else {
            deaths.rest();
        }
        Self { container, as_of, deaths }
    }
}

/// A record without the lists that only operations use.
fn slim(record: &Record) -> Record {
    Record { authorised_images: Vec::new(), fingerprint: String::new(), ..record.clone() }
}

fn line(status: TenantStatus) -> TenantLine {
    TenantLine {
        services_ready: status.services.iter().filter(|service| summary::is_ready(service)).count(),
        services: status.services.len(),
        subdomain: status.subdomain,
        id: Some(status.id),
        project: status.project,
        backend: status.backend,
        region: status.region,
        desired: status.desired,
        state: status.state,
        generation: status.generation,
        operation: status.operation,
        last_error: status.last_error,
        reasons: status.reasons,
        stale: false,
    }
}

fn state(record: &Record, is_brought_up: bool, services: &[ServiceStatus]) -> TenantState {
    if is_brought_up {
        return TenantState::Provisioning;
    }
    if record.kept {
        return TenantState::Kept;
    }
    if record.generation == Generation::NONE {
        return TenantState::Pending;
    }
    // A stopped tenant is as it should be, whatever its services would say of themselves.
    if record.desired == DesiredState::Stopped {
        return TenantState::Stopped;
    }
    summary::tenant_state(record.desired, services)
}

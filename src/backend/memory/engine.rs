//! The pretend engine: objects, the changes that can be made to them, and the handle by which tests disturb it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::container::{BoundPort, Container, Files, Signal};
use super::images::Images;
use super::supervisor;
use crate::backend::converge::RunState;
use crate::backend::{BackendError, Ended, HostKey, LogStreamKind, TenantRef};
use crate::compose::PortMapping;
use crate::domain::{ContainerId, Generation, Health, ServiceName};

/// A disturbance that tests can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The registry does not know an image.
    ImageNotFound,
    /// The registry refuses access.
    RegistryDenied,
    /// The registry does not answer.
    RegistryUnavailable,
    /// The engine refuses to make a container.
    Create,
    /// The location has no room for a container.
    NoCapacity,
    /// The engine refuses to start a container.
    Start,
    /// The engine changes something, but the answer that says so is lost.
    AnswerLost,
    /// The backend panics in the middle of a change.
    ChangePanics,
    /// The backend panics while it tells what it sees.
    WatchPanics,
}

/// A network of the pretend engine.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub(super) id: String,
    pub(super) name: String,
    /// None: it belongs to nobody this agent knows.
    pub(super) owner: Option<TenantRef>,
    pub(super) generation: Generation,
    pub(super) spec: String,
    /// An unfinished apply has replaced it.
    pub(super) aside: bool,
}

/// A volume of the pretend engine.
#[derive(Debug, Clone)]
pub(super) struct Volume {
    pub(super) owner: Option<TenantRef>,
    pub(super) generation: Generation,
    pub(super) spec: String,
    pub(super) files: Files,
}

pub(super) struct State {
    pub(super) available: bool,
    /// What is to go wrong, and how many matching changes still go well before.
    faults: Vec<(usize, Fault)>,
    pub(super) images: Images,
    pub(super) containers: BTreeMap<ContainerId, Container>,
    /// Names of containers that belong to nobody this agent knows.
    pub(super) foreign_containers: BTreeSet<String>,
    pub(super) networks: Vec<Network>,
    pub(super) volumes: BTreeMap<String, Volume>,
    /// Writable directories of the host, by path.
    pub(super) directories: BTreeMap<String, Files>,
    pub(super) line_sequence: u64,
    last_time: jiff::Timestamp,
}

/// The first port that is given to a container that asks for any.
const FIRST_FREE_PORT: u16 = 20_000;

impl State {
    /// Takes the first fault of these whose time has come.
    pub(super) fn take_fault(&mut self, kinds: &[Fault]) -> Option<Fault> {
        let at = self.faults.iter().position(|(_, fault)| kinds.contains(fault))?;
        if self.faults[at].0 > 0 {
            self.faults[at].0 -= 1;
            return None;
        }
        Some(self.faults.remove(at).1)
    }

    /// The tenant's containers, replaced ones included.
    pub(super) fn of<'a>(&'a self, tenant: &'a TenantRef) -> impl Iterator<Item = &'a Container> {
        self.containers.values().filter(move |container| &container.owner == tenant)
    }

    /// The tenant's containers without those that an unfinished apply has set aside.
    pub(super) fn current<'a>(&'a self, tenant: &'a TenantRef) -> impl Iterator<Item = &'a Container> {
        self.of(tenant).filter(|container| !container.is_aside())
    }

    /// Publishes the container's ports, or says which one cannot be.
    fn bind(
        &self,
        id: &ContainerId,
        service: &ServiceName,
        ports: &[PortMapping],
    ) -> Result<Vec<BoundPort>, BackendError> {
        let mut bound: Vec<BoundPort> = Vec::new();
        for (at, mapping) in ports.iter().enumerate() {
            let host = mapping.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            let is_free = |port: u16| {
                let others = self.containers.values().filter(|other| &other.id != id).flat_map(|other| &other.bound);
                !others.chain(&bound).any(|taken| {
                    taken.port == port
                        && taken.protocol == mapping.protocol
                        && (taken.host == host || taken.host.is_unspecified() || host.is_unspecified())
                })
            };
            let (first, last) = mapping.host_ports().unwrap_or((FIRST_FREE_PORT, u16::MAX));
            let Some(port) = (first..=last).find(|port| is_free(*port)) else {
                return Err(BackendError::PortTaken { service: service.clone(), at: Some(at), port: first });
            };
            bound.push(BoundPort { host, port, target: mapping.target, protocol: mapping.protocol });
        }
        Ok(bound)
    }
}

/// State and the two bells that ring when it changes.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Rings when a container's state or health changes or an object comes or goes.
    changed: watch::Sender<u64>,
    /// Rings when a line is written, and with every change.
    written: watch::Sender<u64>,
    /// The ends of runs, for those who watch.
    ended: broadcast::Sender<Ended>,
    start: (jiff::Timestamp, Instant),
}

impl Shared {
    fn new(key: HostKey) -> Self {
        Self {
            state: Mutex::new(State {
                available: true,
                faults: Vec::new(),
                images: Images::new(key),
                containers: BTreeMap::new(),
                foreign_containers: BTreeSet::new(),
                networks: Vec::new(),
                volumes: BTreeMap::new(),
                directories: BTreeMap::new(),
                line_sequence: 0,
                last_time: jiff::Timestamp::UNIX_EPOCH,
            }),
            changed: watch::Sender::new(0),
            written: watch::Sender::new(0),
            ended: broadcast::Sender::new(1024),
            start: (jiff::Timestamp::now(), Instant::now()),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless the engine does not answer.
    pub(super) fn reachable(&self) -> Result<MutexGuard<'_, State>, BackendError> {
        let state = self.lock();
        if state.available { Ok(state) } else { Err(BackendError::Unavailable) }
    }

    /// The time on the runtime's clock, which a test may have paused.
    pub(super) fn now(&self) -> jiff::Timestamp {
        let (time, instant) = self.start;
        time + instant.elapsed()
    }

    pub(super) fn subscribe_changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn subscribe_written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    pub(super) fn subscribe_ended(&self) -> broadcast::Receiver<Ended> {
        self.ended.subscribe()
    }

    /// A run of a container has ended.
    pub(super) fn tell_end(&self, ended: Ended) {
        // Nobody need be watching.
        let _ = self.ended.send(ended);
    }

    pub(super) fn ring(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        self.written.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Makes one change. An injected fault of `kind` refuses it; a lost answer lets it happen and says that the engine is
    /// away. A change that finds its work already done is to succeed.
    pub(super) fn change<T>(
        &self,
        kind: Option<Fault>,
        work: impl FnOnce(&mut State) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let mut state = self.reachable()?;
        if let Some(kind) = kind
            && state.take_fault(&[kind]).is_some()
        {
            let what = if kind == Fault::Create { "make" } else { "start" };
            return Err(BackendError::Refused { message: format!("it would not {what} a container") });
        }
        let result = work(&mut state)?;
        let lost = state.take_fault(&[Fault::AnswerLost]).is_some();
        let panics = state.take_fault(&[Fault::ChangePanics]).is_some();
        drop(state);
        self.ring();
        assert!(!panics, "a test asked for this");
        if lost { Err(BackendError::Unavailable) } else { Ok(result) }
    }

    /// Starts a container that is not running.
    pub(super) fn start(self: &Arc<Self>, id: &ContainerId) -> Result<(), BackendError> {
        self.change(Some(Fault::Start), |state| self.start_in(state, id))
    }

    fn start_in(self: &Arc<Self>, state: &mut State, id: &ContainerId) -> Result<(), BackendError> {
        let Some(container) = state.containers.get(id) else { return Err(gone()) };
        if container.state.is_active() {
            return Ok(());
        }
        let bound = state.bind(id, &container.service, &container.ports)?;
        let time = self.stamp(state);
        let Some(container) = state.containers.get_mut(id) else { return Err(gone()) };
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        container.bound = bound;
        container.stopped = false;
        container.restarts = 0;
        container.run += 1;
        container.begin(time);
        container.signals = Some(sender);
        let run = supervisor::supervise(Arc::downgrade(self), id.clone(), container.run, receiver);
        container.task = Some(tokio::spawn(run).abort_handle());
        Ok(())
    }

    /// A time later than every one given before.
    pub(super) fn stamp(&self, state: &mut State) -> jiff::Timestamp {
        state.last_time = self.now().max(state.last_time + Duration::from_nanos(1));
        state.last_time
    }

    /// Stops a container, so that nothing but a request starts it again. Its stop signal first, SIGKILL after its grace
    /// period or at `deadline`.
    pub(super) async fn stop(&self, id: &ContainerId, deadline: Option<Instant>) -> Result<(), BackendError> {
        let mut changed = self.subscribe_changed();
        let grace = {
            let mut state = self.reachable()?;
            let Some(container) = state.containers.get_mut(id) else { return Ok(()) };
            if !container.state.is_active() {
                return Ok(());
            }
            container.stopped = true;
            container.send(Signal::Stop);
            container.grace
        };
        let mut until = Instant::now() + grace;
        if let Some(deadline) = deadline {
            until = until.min(deadline);
        }
        let mut killed = false;
        while self.lock().containers.get(id).is_some_and(|container| container.state.is_active()) {
            if killed {
                // The sender lives as long as `self`.
                let _ = changed.changed().await;
            } else if tokio::time::timeout_at(until, changed.changed()).await.is_err() {
                killed = true;
                if let Some(container) = self.lock().containers.get(id) {
                    container.send(Signal::Kill);
                }
            }
        }
        self.change(None, |_| Ok(()))
    }

    /// Removes a container, running or not.
    pub(super) fn remove_container(&self, id: &ContainerId) -> Result<(), BackendError> {
        self.change(None, |state| {
            state.containers.remove(id);
            Ok(())
        })
    }

    /// Writes a line as the container.
    pub(super) fn print(&self, id: &ContainerId, stream: LogStreamKind, line: &str) {
        let mut state = self.lock();
        let time = self.stamp(&mut state);
        let mut sequence = state.line_sequence;
        if let Some(container) = state.containers.get_mut(id) {
            container.logs.push(&mut sequence, time, stream, line);
        }
        state.line_sequence = sequence;
        drop(state);
        self.written.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn gone() -> BackendError {
    BackendError::Refused { message: String::from("the container does not exist any more") }
}

impl Container {
    /// Its program begins, for the first time or again.
    pub(super) fn begin(&mut self, time: jiff::Timestamp) {
        self.state = RunState::Running;
        self.started_at = Some(time);
        self.health = if self.check.is_some() { Health::Starting } else { Health::None };
        self.health_output = None;
    }

    pub(super) fn send(&self, signal: Signal) {
        if let Some(signals) = &self.signals {
            // Nobody listens any more when the program has just ended by itself.
            let _ = signals.send(signal);
        }
    }
}

/// What a test may know about a pretend container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSnapshot {
    /// Its id.
    pub id: ContainerId,
    /// The name it has now.
    pub name: String,
    /// The engine's word for its state.
    pub state: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// An unfinished apply has replaced it.
    pub set_aside: bool,
}

/// The pretend engine, to look at and to disturb. Cheap to clone.
#[derive(Clone)]
pub struct MemoryEngine {
    pub(super) shared: Arc<Shared>,
}

impl MemoryEngine {
    pub(super) fn new(key: HostKey) -> Self {
        Self { shared: Arc::new(Shared::new(key)) }
    }

    /// Makes the next thing of this kind go wrong.
    pub fn fail_next(&self, fault: Fault) {
        self.fail_after(0, fault);
    }

    /// Lets so many things of this kind go well and makes the next one go wrong.
    pub fn fail_after(&self, good: usize, fault: Fault) {
        self.shared.lock().faults.push((good, fault));
    }

    /// Whether anything is still to go wrong.
    pub fn has_faults(&self) -> bool {
        !self.shared.lock().faults.is_empty()
    }

    /// Forgets all faults that have not happened yet; tells how many there were.
    pub fn forget_faults(&self) -> usize {
        std::mem::take(&mut self.shared.lock().faults).len()
    }

    /// `false`: nothing answers any more, while the containers go on; `true`: it answers again.
    pub fn set_available(&self, available: bool) {
        self.shared.lock().available = available;
        self.shared.ring();
    }

    /// Puts an image into the registry, even one whose name says it is missing.
    pub fn add_image(&self, reference: &str) {
        self.shared.lock().images.add(reference);
    }

    /// Takes an image away, here and in the registry.
    pub fn remove_image(&self, reference: &str) {
        self.shared.lock().images.remove(reference);
    }

    /// Lets the tag stand for another image from the next pull on.
    pub fn move_tag(&self, reference: &str) {
        self.shared.lock().images.move_tag(reference);
    }

    /// Every container, replaced ones included, by name.
    pub fn containers(&self) -> Vec<ContainerSnapshot> {
        let state = self.shared.lock();
        let mut all: Vec<ContainerSnapshot> = state
            .containers
            .values()
            .map(|container| ContainerSnapshot {
                id: container.id.clone(),
                name: container.name.clone(),
                state: container.observed().status.state,
                labels: container.labels.clone(),
                set_aside: container.is_aside(),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Names of all networks, ordered.
    pub fn networks(&self) -> Vec<String> {
        let mut names: Vec<String> = self.shared.lock().networks.iter().map(|network| network.name.clone()).collect();
        names.sort();
        names
    }

    /// Names of all volumes, ordered.
    pub fn volumes(&self) -> Vec<String> {
        self.shared.lock().volumes.keys().cloned().collect()
    }

    /// Adds a container of this name that no tenant owns.
    pub fn add_foreign_container(&self, name: &str) {
        self.shared.lock().foreign_containers.insert(name.to_owned());
    }

    /// Adds a network that no tenant owns.
    pub fn add_foreign_network(&self, name: &str) {
        self.shared.lock().networks.push(Network {
            id: uuid::Uuid::new_v4().simple().to_string(),
            name: name.to_owned(),
            owner: None,
            generation: Generation::NONE,
            spec: String::new(),
            aside: false,
        });
    }

    /// Adds a volume that no tenant owns.
    pub fn add_foreign_volume(&self, name: &str) {
        let volume = Volume { owner: None, generation: Generation::NONE, spec: String::new(), files: Files::new() };
        self.shared.lock().volumes.insert(name.to_owned(), volume);
    }

    /// Ends the container's program as a crash would (SIGKILL, exit code 137): its restart policy applies.
    pub fn kill(&self, id: &ContainerId) {
        if let Some(container) = self.shared.lock().containers.get(id) {
            container.send(Signal::Kill);
        }
    }

    /// Removes a container as somebody with a console might.
    pub fn remove_container(&self, id: &ContainerId) {
        self.shared.lock().containers.remove(id);
        self.shared.ring();
    }

    /// Restarts the engine: every program ends (137), then those start again whose restart policy says so and that
    /// nobody has stopped. To be called within a runtime, as starting is.
    pub fn restart_engine(&self) {
        let mut state = self.shared.lock();
        let mut back = Vec::new();
        for container in state.containers.values_mut() {
            if container.state.is_active() {
                if let Some(task) = container.task.take() {
                    task.abort();
                }
                container.end(137);
                if container.restarts_after(137) {
                    back.push(container.id.clone());
                }
            }
        }
        for id in &back {
            // A port cannot have been taken meanwhile: the state has been locked all the time.
            let _ = self.shared.start_in(&mut state, id);
        }
        drop(state);
        self.shared.ring();
    }
}

impl Container {
    /// Its program has ended for good.
    pub(super) fn end(&mut self, code: i64) {
        self.state = RunState::Exited(code);
        self.last_exit = Some(code);
        self.health = Health::None;
        self.bound.clear();
        self.signals = None;
    }
}

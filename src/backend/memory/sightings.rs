//! Watching the pretend engine: what is there now is compared with what was told before.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::container::Container;
use super::engine::{Fault, Shared};
use crate::backend::{BackendError, Ended, ObservedContainer, Sighting, Sightings};
use crate::domain::{AgentId, ContainerId};

/// How often it says that nothing has changed.
const BEAT: Duration = Duration::from_secs(1);
/// Changes within this time are told together.
const SETTLE: Duration = Duration::from_millis(5);

/// Begins with all there is.
pub(super) fn watch(shared: &Arc<Shared>, agent: &AgentId) -> Result<Sightings, BackendError> {
    let (changed, ended) = (shared.subscribe_changed(), shared.subscribe_ended());
    let as_of = Instant::now();
    let known = look(shared, agent)?;
    let containers = known.values().cloned().collect();
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watching = Watching {
        shared: Arc::downgrade(shared),
        agent: agent.clone(),
        changed,
        ended,
        beat,
        known,
        ready: VecDeque::from([Sighting::All { containers, as_of }]),
    };
    Ok(stream::unfold(watching, |mut watching| async move { Some((watching.next().await?, watching)) }).boxed())
}

fn look(shared: &Shared, agent: &AgentId) -> Result<BTreeMap<ContainerId, ObservedContainer>, BackendError> {
    let state = shared.reachable()?;
    let ours = state.containers.values().filter(|container| container.owner.agent == *agent && !container.is_aside());
    Ok(ours.map(Container::observed).map(|container| (container.status.id.clone(), container)).collect())
}

struct Watching {
    /// Weak: who watches does not keep the engine alive.
    shared: Weak<Shared>,
    agent: AgentId,
    changed: watch::Receiver<u64>,
    ended: broadcast::Receiver<Ended>,
    beat: tokio::time::Interval,
    known: BTreeMap<ContainerId, ObservedContainer>,
    ready: VecDeque<Sighting>,
}

impl Watching {
    async fn next(&mut self) -> Option<Sighting> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            tokio::select! {
                // A run that has ended is told before what came of it.
                biased;
                ended = self.ended.recv() => self.ready.push_back(Sighting::Ended(ended.ok()?)),
                changed = self.changed.changed() => {
                    changed.ok()?;
                    tokio::time::sleep(SETTLE).await;
                    self.changed.mark_unchanged();
                    while let Ok(ended) = self.ended.try_recv() {
                        self.ready.push_back(Sighting::Ended(ended));
                    }
                    self.compare()?;
                }
                _ = self.beat.tick() => {
                    self.compare()?;
                    self.ready.push_back(Sighting::InStep { as_of: Instant::now(), behind: HashMap::new() });
                }
            }
        }
    }

    fn compare(&mut self) -> Option<()> {
        let shared = self.shared.upgrade()?;
        let as_of = Instant::now();
        let now = look(&shared, &self.agent).ok()?;
        let panics = shared.lock().take_fault(&[Fault::WatchPanics]).is_some();
        assert!(!panics, "a test asked for this");
        for (id, container) in &now {
            if self.known.get(id) != Some(container) {
                self.ready.push_back(Sighting::Changed { container: Box::new(container.clone()), as_of });
            }
        }
        for (id, container) in &self.known {
            if !now.contains_key(id) {
                let tenant = container.tenant.clone();
                self.ready.push_back(Sighting::Gone { tenant, container: id.clone(), as_of });
            }
        }
        self.known = now;
        Some(())
    }
}

//! Azure has no events to subscribe to. Groups are listed now and then, each is asked for when it is due, and what differs
//! from what was told is told.
//!
//! A list is one call for a region, a look one for a group, and both come out of the reads that the subscription may do in
//! an hour: 12,000. So a group that stays as it is is looked at once a minute, one that is changing every few seconds, and one
//! that the agent itself has changed at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until};

use super::models::{ContainerGroup, Provisioning};
use super::{AT_ONCE, Core, observed, states};
use crate::backend::{BackendError, Ended, ObservedContainer, Sighting, Sightings};
use crate::domain::{ContainerId, Subdomain};

/// What was told so long ago still counts as known.
pub(super) const FRESH: Duration = Duration::from_secs(90);
/// Between two lists.
const LIST: Duration = Duration::from_secs(15);
/// Between two looks at a group that changes, and at one that does not.
const CHANGING: Duration = Duration::from_secs(3);
const SETTLED: Duration = Duration::from_secs(60);
/// How long a list and its looks may take.
const ROUND: Duration = Duration::from_secs(60);

/// Begins with all there is.
pub(super) async fn watch(core: Arc<Core>) -> Result<Sightings, BackendError> {
    let stirred = core.stirred.subscribe();
    let as_of = Instant::now();
    let groups = core.groups_in_detail(as_of + ROUND).await?;
    let mut known = HashMap::new();
    let mut containers = Vec::new();
    for group in groups {
        let seen = observed(&group);
        containers.extend(seen.iter().cloned());
        if let Some((key, one)) = Known::of(&group, seen, as_of) {
            known.insert(key, one);
        }
    }
    let ready = VecDeque::from([Sighting::All { containers, as_of }]);
    let watching = Watching { core, known, ready, next_list: as_of + LIST, stirred };
    Ok(stream::unfold(watching, |mut watching| async move { Some((watching.next().await?, watching)) }).boxed())
}

/// A group as it was last seen.
struct Known {
    tenant: Subdomain,
    tags: std::collections::BTreeMap<String, String>,
    containers: Vec<ObservedContainer>,
    changing: bool,
    looked: Instant,
}

/// Region and name.
type Key = (String, String);

impl Known {
    fn of(group: &ContainerGroup, containers: Vec<ObservedContainer>, looked: Instant) -> Option<(Key, Self)> {
        let (tenant, _) = states::owner(group)?;
        let key = (group.location.clone()?, group.name.clone()?);
        let settled = matches!(
            group.properties.provisioning_state,
            None | Some(
                Provisioning::Succeeded | Provisioning::Failed | Provisioning::Stopped | Provisioning::Canceled
            )
        );
        let waits = containers.iter().any(|one| matches!(one.status.state.as_str(), "created" | "restarting"));
        Some((key, Self { tenant, tags: group.tags.clone(), containers, changing: !settled || waits, looked }))
    }

    fn due(&self) -> Instant {
        self.looked + if self.changing { CHANGING } else { SETTLED }
    }
}

struct Watching {
    core: Arc<Core>,
    known: HashMap<Key, Known>,
    ready: VecDeque<Sighting>,
    next_list: Instant,
    stirred: broadcast::Receiver<String>,
}

impl Watching {
    /// The next sighting; none when something may have been missed.
    async fn next(&mut self) -> Option<Sighting> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            let due = self.known.values().map(Known::due).min();
            tokio::select! {
                () = sleep_until(due.map_or(self.next_list, |due| due.min(self.next_list))) => {}
                stirred = self.stirred.recv() => self.stir(stirred.ok().as_deref()),
            }
            let now = Instant::now();
            let listed = self.next_list <= now;
            if listed {
                self.list(now).await?;
            }
            self.look(now).await?;
            if listed {
                self.ready.push_back(Sighting::InStep { as_of: now, behind: HashMap::new() });
            }
        }
    }

    /// A group was worked on; none: more of them than could be told, or nobody is left to do so.
    fn stir(&mut self, group: Option<&str>) {
        let now = Instant::now();
        let mut known = self.known.iter_mut().filter(|(key, _)| group.is_none_or(|group| key.1 == group)).peekable();
        if known.peek().is_none() {
            self.next_list = now;
            return;
        }
        for (_, known) in known {
            known.looked = now.checked_sub(SETTLED).unwrap_or(now);
        }
    }

    /// Which groups there are. One that is new, or has other tags, is due.
    async fn list(&mut self, now: Instant) -> Option<()> {
        self.next_list = now + LIST;
        let core = Arc::clone(&self.core);
        let listed = core.groups(now + ROUND).await.ok()?;
        let mut there: HashMap<Key, &ContainerGroup> = HashMap::new();
        for (_, group) in &listed {
            if let (Some(location), Some(name)) = (group.location.clone(), group.name.clone()) {
                there.insert((location, name), group);
            }
        }
        let gone: Vec<Key> = self.known.keys().filter(|key| !there.contains_key(*key)).cloned().collect();
        for key in gone {
            self.forget(&key, now);
        }
        for (key, group) in there {
            match self.known.get_mut(&key) {
                Some(known) if known.tags == group.tags => {}
                Some(known) => known.changing = true,
                None => {
                    if let Some((key, mut known)) = Known::of(group, Vec::new(), now) {
                        known.looked = now.checked_sub(SETTLED).unwrap_or(now);
                        self.known.insert(key, known);
                    }
                }
            }
        }
        Some(())
    }

    /// Looks at the groups that are due.
    async fn look(&mut self, now: Instant) -> Option<()> {
        let due: Vec<Key> =
            self.known.iter().filter(|(_, known)| known.due() <= now).map(|(key, _)| key.clone()).collect();
        let core = Arc::clone(&self.core);
        let looks = due.into_iter().map(|key| {
            let core = Arc::clone(&core);
            async move {
                let site = core
                    .sites()
                    .find(|site| super::names::location(&site.region.location) == super::names::location(&key.0));
                let as_of = Instant::now();
                let found = match site {
                    Some(site) => site.group(&key.1, now + ROUND).await.map_err(|error| site.fault(error, "watching")),
                    None => Ok(None),
                };
                (key, as_of, found)
            }
            .boxed()
        });
        let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some((key, as_of, found)) = looks.next().await {
            match found.ok()? {
                Some(group) if self.core.is_ours(&group) => self.saw(key, &group, as_of),
                _ => self.forget(&key, as_of),
            }
        }
        Some(())
    }

    fn saw(&mut self, key: Key, group: &ContainerGroup, as_of: Instant) {
        let now = observed(group);
        let before: HashMap<ContainerId, ObservedContainer> = self.known.get(&key).map_or_else(HashMap::new, |known| {
            known.containers.iter().map(|one| (one.status.id.clone(), one.clone())).collect()
        });
        let requested = super::plan::is_stopped(group);
        for container in &now {
            let was = before.get(&container.status.id);
            if was == Some(container) {
                continue;
            }
            if let Some(ended) = was.and_then(|was| ended(was, container, requested)) {
                self.ready.push_back(Sighting::Ended(ended));
            }
            if container.status.oom_killed && was.is_none_or(|was| !was.status.oom_killed) {
                self.ready.push_back(Sighting::OutOfMemory {
                    tenant: container.tenant.clone(),
                    service: container.service.clone(),
                    container: container.status.id.clone(),
                });
            }
            self.ready.push_back(Sighting::Changed { container: Box::new(container.clone()), as_of });
        }
        for (id, was) in before {
            if !now.iter().any(|container| container.status.id == id) {
                self.ready.push_back(Sighting::Gone { tenant: was.tenant, container: id, as_of });
            }
        }
        match Known::of(group, now, as_of) {
            Some((_, known)) => drop(self.known.insert(key, known)),
            None => drop(self.known.remove(&key)),
        }
    }

    fn forget(&mut self, key: &Key, as_of: Instant) {
        let Some(known) = self.known.remove(key) else { return };
        for container in known.containers {
            self.ready.push_back(Sighting::Gone {
                tenant: known.tenant.clone(),
                container: container.status.id,
                as_of,
            });
        }
    }
}

/// The end of a run that lies between two looks. Of several only the last can be told.
fn ended(was: &ObservedContainer, is: &ObservedContainer, requested: bool) -> Option<Ended> {
    let ran = was.status.state == "running";
    let again = is.status.restart_count > was.status.restart_count;
    let over = ran && matches!(is.status.state.as_str(), "exited" | "restarting");
    (again || over).then(|| Ended {
        tenant: is.tenant.clone(),
        service: is.service.clone(),
        container: is.status.id.clone(),
        code: is.status.exit_code.unwrap_or(-1),
        at: jiff::Timestamp::now(),
        requested,
    })
}

//! What an apply has to do and when it is done: pure comparisons of a deployment with what an engine of separate
//! containers reports. Nothing here touches an engine.
//!
//! ```text
//!  wanted slot (service, number)     what is there                        step
//!  ------------------------------    ---------------------------------    --------
//!  yes                               nothing                              Create
//!  yes                               another definition, image, network   Recreate
//!  yes                               not running, and it should be        Start
//!  yes                               what it depends on is replaced       Restart (depends_on.restart)
//!  yes                               as wanted                            Keep
//!  no                                something                            Remove
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{self, Circumstances};
use super::rolling;
use super::{Action, BackendError, Deployment, Plan, PlannedObject, ResolvedImages, Step};
use crate::compose::{NetworkMode, Project, RestartPolicy, Service, VolumesFromSource};
use crate::domain::{ContainerId, ContainerName, DesiredState, Health, ObjectKey, ServiceName};

/// What an engine holds that matters to one tenant's plan. Containers and networks that an unfinished apply has set
/// aside are not part of it.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// The tenant's containers.
    pub(crate) containers: Vec<KnownContainer>,
    /// Those whose place another one has already: they go.
    pub(crate) surplus: Vec<KnownContainer>,
    /// The tenant's networks.
    pub(crate) networks: Vec<KnownNetwork>,
    /// The tenant's volumes.
    pub(crate) volumes: Vec<KnownVolume>,
    /// Names of containers that are not the tenant's.
    pub(crate) foreign_containers: BTreeSet<String>,
    /// Names of networks that are not the tenant's.
    pub(crate) foreign_networks: BTreeSet<String>,
    /// Names of volumes that are not the tenant's.
    pub(crate) foreign_volumes: BTreeSet<String>,
}

/// One of the tenant's containers.
#[derive(Debug, Clone)]
pub(crate) struct KnownContainer {
    pub(crate) id: ContainerId,
    pub(crate) name: ContainerName,
    pub(crate) service: ServiceName,
    pub(crate) number: u32,
    /// The hash of the definition it was made from ([`Deployment::service_hash`]).
    pub(crate) spec: String,
    /// The id of the image it was made from.
    pub(crate) image: String,
    pub(crate) state: RunState,
    /// It was stopped on request, so its exit code says nothing about success.
    pub(crate) stopped: bool,
    /// Ids of the networks it is attached to.
    pub(crate) networks: BTreeSet<String>,
}

/// One of the tenant's networks.
#[derive(Debug, Clone)]
pub(crate) struct KnownNetwork {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The hash of the definition it was made from ([`Deployment::object_hash`]).
    pub(crate) spec: String,
}

/// One of the tenant's volumes.
#[derive(Debug, Clone)]
pub(crate) struct KnownVolume {
    pub(crate) name: String,
    /// The hash of the definition it was made from ([`Deployment::object_hash`]).
    pub(crate) spec: String,
}

/// A container's state, with the exit code where there is one. `Exited` is final: what the engine is going to restart
/// is `Restarting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunState {
    Created,
    Running,
    Restarting,
    Exited(i64),
}

impl RunState {
    /// Whether the engine keeps it going.
    pub(crate) fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Restarting)
    }
}

/// Whether the service's exit with code 0 is a success: somebody waits for its completion, or nothing would start it
/// again after such an exit (`restart: no` and `on-failure`).
pub(crate) fn is_one_shot(project: &Project, name: &ServiceName) -> bool {
    let policy = project.services.get(name).map(|service| service.restart_policy());
    matches!(policy, Some(RestartPolicy::No | RestartPolicy::OnFailure(_))) || project.is_awaited_by_completion(name)
}

/// Whether a container has done what a one-shot is for.
pub(crate) fn is_completed(project: &Project, service: &ServiceName, state: RunState, stopped: bool) -> bool {
    state == RunState::Exited(0) && !stopped && is_one_shot(project, service)
}

/// The services of `only` and all that they depend on; all services when none.
pub(crate) fn with_dependencies(project: &Project, only: Option<&BTreeSet<ServiceName>>) -> BTreeSet<ServiceName> {
    let Some(only) = only else { return project.services.keys().cloned().collect() };
    let mut found = BTreeSet::new();
    let mut open: Vec<&ServiceName> = only.iter().collect();
    while let Some(name) = open.pop() {
        let Some(service) = project.services.get(name) else { continue };
        if found.insert(name.clone()) {
            open.extend(service.depends_on.keys());
        }
    }
    found
}

/// Compares what is wanted with what is there. With `only`, other services are left as they are, except that what the
/// named ones depend on is made and started.
pub(crate) fn plan(
    wanted: &Deployment,
    images: &ResolvedImages,
    only: Option<&BTreeSet<ServiceName>>,
    observed: &Observed,
) -> Result<Plan, BackendError> {
    let mut planner =
        Planner { wanted, project: wanted.project.project(), images, only, observed, plan: Plan::default() };
    planner.networks()?;
    planner.volumes()?;
    planner.containers()?;
    planner.plan.undo.running =
        observed.containers.iter().filter(|known| known.state.is_active()).map(|known| known.id.clone()).collect();
    planner.plan.undo.volumes = observed.volumes.iter().map(|known| known.name.clone()).collect();
    let around = planner.circumstances();
    planner.plan.tasks = graph::tasks(&planner.plan.steps, planner.project, &around)?;
    Ok(planner.plan)
}

struct Planner<'a> {
    wanted: &'a Deployment,
    project: &'a Project,
    images: &'a ResolvedImages,
    only: Option<&'a BTreeSet<ServiceName>>,
    observed: &'a Observed,
    plan: Plan,
}

impl Planner<'_> {
    fn step(&mut self, object: PlannedObject, action: Action, reason: impl Into<String>) {
        self.plan.steps.push(Step { object, action, reason: reason.into() });
    }

    fn networks(&mut self) -> Result<(), BackendError> {
        let (project, observed) = (self.project, self.observed);
        for (key, network) in &project.networks {
            if network.external {
                continue;
            }
            let name = network.name.as_str();
            let object = PlannedObject::Network { key: Some(key.clone()), name: name.to_owned() };
            let hash = self.wanted.object_hash(network);
            match observed.networks.iter().find(|known| known.name == name) {
                Some(known) if known.spec == hash => self.step(object, Action::Keep, "as wanted"),
                Some(_) if self.only.is_some() => {
                    self.step(object, Action::Keep, "its definition changed, but only some services are touched");
                }
                Some(_) => self.step(object, Action::Recreate, "its definition changed"),
                None if observed.foreign_networks.contains(name) => {
                    return Err(BackendError::NameTaken { kind: "network", name: name.to_owned() });
                }
                None => self.step(object, Action::Create, "does not exist"),
            }
        }
        let used: BTreeSet<&str> = project.networks.values().map(|network| network.name.as_str()).collect();
        for known in &observed.networks {
            if !used.contains(known.name.as_str()) && self.only.is_none() {
                let object = PlannedObject::Network { key: None, name: known.name.clone() };
                self.step(object, Action::Remove, "no longer in the file");
            }
        }
        Ok(())
    }

    fn volumes(&mut self) -> Result<(), BackendError> {
        let (project, observed) = (self.project, self.observed);
        for (key, volume) in &project.volumes {
            if volume.external {
                continue;
            }
            let name = volume.name.as_str();
            let object = PlannedObject::Volume { key: key.clone(), name: name.to_owned() };
            match observed.volumes.iter().find(|known| known.name == name) {
                Some(known) => {
                    if known.spec != self.wanted.object_hash(volume) {
                        self.plan.warnings.push(format!(
                            "volumes.{key}: the definition changed; the volume keeps the old one, because making it \
                             anew would lose its data"
                        ));
                    }
                    self.step(object, Action::Keep, "as it is");
                }
                None if observed.foreign_volumes.contains(name) => {
                    return Err(BackendError::NameTaken { kind: "volume", name: name.to_owned() });
                }
                None => self.step(object, Action::Create, "does not exist"),
            }
        }
        Ok(())
    }

    fn containers(&mut self) -> Result<(), BackendError> {
        let (project, observed, only) = (self.project, self.observed, self.only);
        let reachable = with_dependencies(project, only);
        let named = |service: &ServiceName| only.is_none_or(|only| only.contains(service));
        let mut changed = self.changed_services();
        changed.retain(|service, _| named(service));
        for (name, service) in &project.services {
            let hash = self.wanted.service_hash(service);
            for number in 1..=service.replicas() {
                let existing = observed.containers.iter().find(|c| &c.service == name && c.number == number);
                let (action, reason) = match existing {
                    None if !reachable.contains(name) => continue,
                    None => (Action::Create, String::from("does not exist")),
                    Some(known) if named(name) => self.compare(name, &hash, known, changed.get(name)),
                    Some(known) if reachable.contains(name) => self.awake(name, known),
                    Some(_) => (Action::Keep, String::from("not among the services to touch")),
                };
                let keeps_name = !matches!(action, Action::Create | Action::Recreate);
                let container = match existing {
                    Some(known) if keeps_name => known.name.clone(),
                    _ => self.container_name(name, service, number)?,
                };
                let object = PlannedObject::Container {
                    service: name.clone(),
                    number,
                    name: container,
                    existing: existing.map(|known| known.id.clone()),
                };
                self.step(object, action, reason);
            }
        }
        self.restart_dependents();
        for known in &observed.containers {
            let reason = match project.services.get(&known.service) {
                Some(service) if known.number <= service.replicas() => continue,
                Some(service) => format!("more than {} replicas", service.replicas()),
                None => String::from("its service is no longer in the file"),
            };
            if named(&known.service) {
                self.remove(known, reason);
            }
        }
        for known in &observed.surplus {
            self.remove(known, String::from("another container has its place"));
        }
        Ok(())
    }

    fn remove(&mut self, known: &KnownContainer, reason: String) {
        let object = PlannedObject::Container {
            service: known.service.clone(),
            number: known.number,
            name: known.name.clone(),
            existing: Some(known.id.clone()),
        };
        self.step(object, Action::Remove, reason);
    }

    /// What decides about the order of the steps; adds what the author should know about it.
    fn circumstances(&mut self) -> Circumstances {
        let anew: Vec<(&ObjectKey, &str)> = self
            .plan
            .steps
            .iter()
            .filter(|step| step.action == Action::Recreate)
            .filter_map(|step| match &step.object {
                PlannedObject::Network { key: Some(key), name } => Some((key, name.as_str())),
                _ => None,
            })
            .collect();
        let keys: BTreeSet<&ObjectKey> = anew.iter().map(|(key, _)| *key).collect();
        let ids: BTreeSet<&str> = self
            .observed
            .networks
            .iter()
            .filter(|known| anew.iter().any(|(_, name)| *name == known.name))
            .map(|known| known.id.as_str())
            .collect();
        let on_old = |known: &&KnownContainer| known.networks.iter().any(|id| ids.contains(id.as_str()));
        let all = self.observed.containers.iter().chain(&self.observed.surplus);
        let on_old_networks = all.filter(on_old).map(|known| known.id.clone()).collect();
        let (mut rolling, mut warnings) = (BTreeMap::new(), Vec::new());
        for (name, service) in &self.project.services {
            if let Some(way) = rolling::of(self.project, name, service, &keys, &mut warnings) {
                rolling.insert(name.clone(), way);
            }
        }
        self.plan.warnings.extend(warnings);
        Circumstances { rolling, on_old_networks, asleep: self.wanted.desired == DesiredState::Stopped }
    }

    /// Services whose containers must be made anew for a reason outside their own definition: a network they are in,
    /// or a service to whose container they are tied.
    fn changed_services(&self) -> BTreeMap<ServiceName, String> {
        let anew: BTreeSet<&str> = self
            .plan
            .steps
            .iter()
            .filter(|step| step.action == Action::Recreate)
            .filter_map(|step| match &step.object {
                PlannedObject::Network { name, .. } => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let mut changed = BTreeMap::new();
        for (name, service) in &self.project.services {
            let network = service.networks.keys().find(|key| {
                self.project.networks.get(*key).is_some_and(|network| anew.contains(network.name.as_str()))
            });
            if let Some(key) = network {
                changed.insert(name.clone(), format!("its network {key} is made anew"));
            }
        }
        loop {
            let follower = self.project.services.iter().find_map(|(name, service)| {
                let parent = parents(service).into_iter().find(|parent| self.is_replaced(parent, &changed))?;
                (!changed.contains_key(name)).then(|| (name.clone(), parent.clone()))
            });
            let Some((name, parent)) = follower else { return changed };
            changed.insert(name, format!("it is tied to a container of {parent}, which is made anew"));
        }
    }

    fn is_replaced(&self, name: &ServiceName, changed: &BTreeMap<ServiceName, String>) -> bool {
        let Some(service) = self.project.services.get(name) else { return false };
        let hash = self.wanted.service_hash(service);
        (1..=service.replicas()).any(|number| {
            let known = self.observed.containers.iter().find(|c| &c.service == name && c.number == number);
            known.is_none_or(|known| self.compare(name, &hash, known, changed.get(name)).0 == Action::Recreate)
        })
    }

    /// What becomes of a container that is there and may be touched.
    fn compare(
        &self,
        name: &ServiceName,
        hash: &str,
        known: &KnownContainer,
        why: Option<&String>,
    ) -> (Action, String) {
        if known.spec != hash {
            return (Action::Recreate, String::from("its definition changed"));
        }
        if self.images.get(name).is_some_and(|image| image.id != known.image) {
            return (Action::Recreate, String::from("its image changed"));
        }
        if let Some(why) = why {
            return (Action::Recreate, why.clone());
        }
        if let Some(key) = self.missing_network(name, known) {
            return (Action::Recreate, format!("it is not attached to network {key}"));
        }
        self.awake(name, known)
    }

    /// A network of the service that exists but that the container is not in.
    fn missing_network(&self, name: &ServiceName, known: &KnownContainer) -> Option<&ObjectKey> {
        let project = self.project;
        project.services.get(name)?.networks.keys().find(|key| {
            let Some(network) = project.networks.get(*key).filter(|network| !network.external) else { return false };
            let existing = self.observed.networks.iter().find(|there| there.name == network.name.as_str());
            existing.is_none_or(|there| !known.networks.contains(&there.id))
        })
    }

    /// Whether a container that stays has to be started.
    fn awake(&self, name: &ServiceName, known: &KnownContainer) -> (Action, String) {
        let keep = (Action::Keep, String::from("as wanted"));
        if self.wanted.desired == DesiredState::Stopped || is_completed(self.project, name, known.state, known.stopped)
        {
            return keep;
        }
        match known.state {
            RunState::Running | RunState::Restarting => keep,
            RunState::Created => (Action::Start, String::from("was never started")),
            RunState::Exited(_) if known.stopped => (Action::Start, String::from("was stopped")),
            RunState::Exited(code) => (Action::Start, format!("exited with code {code}")),
        }
    }

    /// `depends_on.*.restart`: what stays but depends on something that is made anew is started again.
    fn restart_dependents(&mut self) {
        if self.wanted.desired == DesiredState::Stopped {
            return;
        }
        let mut anew = BTreeSet::new();
        for step in &self.plan.steps {
            if let (PlannedObject::Container { service, .. }, Action::Recreate) = (&step.object, step.action) {
                anew.insert(service.clone());
            }
        }
        let (project, only) = (self.project, self.only);
        for step in &mut self.plan.steps {
            let PlannedObject::Container { service: name, .. } = &step.object else { continue };
            let Some(service) = project.services.get(name).filter(|_| only.is_none_or(|only| only.contains(name)))
            else {
                continue;
            };
            let cause = service.depends_on.iter().find(|(name, how)| how.restart && anew.contains(*name));
            if let (Action::Keep, Some((cause, _))) = (step.action, cause) {
                step.action = Action::Restart;
                step.reason = format!("it depends on {cause}, which is made anew");
            }
        }
    }

    /// `{project}-{service}-{n}` unless the file gives a name. Two tenants can arrive at one name (`a` with `b-c`,
    /// `a-b` with `c`): whoever comes second gets a suffix.
    fn container_name(
        &self,
        name: &ServiceName,
        service: &Service,
        number: u32,
    ) -> Result<ContainerName, BackendError> {
        let project = &self.project.name;
        let refused =
            |text: &str| BackendError::Refused { message: format!("{text} is too long for a container name") };
        let text = match &service.container_name {
            Some(text) if self.observed.foreign_containers.contains(text) => {
                return Err(BackendError::NameTaken { kind: "container", name: text.clone() });
            }
            Some(text) => text.clone(),
            None => format!("{project}-{name}-{number}"),
        };
        if self.observed.foreign_containers.contains(&text) {
            let mut suffix = self.wanted.key.hash(&[b"name", project.as_str().as_bytes(), text.as_bytes()]);
            suffix.truncate(8);
            let text = format!("{text}-{suffix}");
            return ContainerName::parse(&text).map_err(|_| refused(&text));
        }
        ContainerName::parse(&text).map_err(|_| refused(&text))
    }
}

/// The services to whose very containers this one's are tied: whose namespaces or volumes it has, and those it links to on
/// the default bridge, where a link is to a container and not to a name. Its own are made after theirs, and again with them.
pub(crate) fn parents(service: &Service) -> Vec<&ServiceName> {
    let volumes = service.volumes_from.iter().filter_map(|from| match &from.source {
        VolumesFromSource::Service(parent) => Some(parent),
        VolumesFromSource::Container(_) => None,
    });
    let on_bridge = service.network_mode == Some(NetworkMode::Bridge);
    let linked = service.links.iter().filter(|_| on_bridge).map(|link| &link.service);
    service.namespace_parents().map(|(_, parent)| parent).chain(volumes).chain(linked).collect()
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// It runs.
    Started,
    /// Its healthcheck succeeds.
    Healthy,
    /// It has exited with code 0.
    Completed,
}

impl Goal {
    /// What makes a service's own part of an apply a success (design: "Success of an apply").
    pub(crate) fn of(project: &Project, name: &ServiceName, has_healthcheck: bool) -> Self {
        if project.is_awaited_by_completion(name) {
            Self::Completed
        } else if has_healthcheck {
            Self::Healthy
        } else {
            Self::Started
        }
    }
}

/// How a container stands towards a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is reached.
    Met,
    /// It may still be reached.
    Wait,
    /// The container is unhealthy.
    Unhealthy,
    /// The container has exited for good with this code.
    Exited(i64),
    /// It was to become healthy, but nothing checks that.
    NoHealthcheck,
}

/// Judges one container that was started before.
pub(crate) fn judge(goal: Goal, one_shot: bool, state: RunState, health: Health) -> Verdict {
    match (goal, state) {
        (_, RunState::Exited(0)) if one_shot => Verdict::Met,
        (_, RunState::Exited(code)) => Verdict::Exited(code),
        (_, RunState::Created | RunState::Restarting) | (Goal::Completed, RunState::Running) => Verdict::Wait,
        (Goal::Started, RunState::Running) => Verdict::Met,
        (Goal::Healthy, RunState::Running) => match health {
            Health::Healthy => Verdict::Met,
            Health::Starting => Verdict::Wait,
            Health::Unhealthy => Verdict::Unhealthy,
            Health::None => Verdict::NoHealthcheck,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        use {Goal as G, Health as H, RunState as S, Verdict as V};
        for (goal, one_shot, state, health, verdict) in [
            (G::Started, false, S::Created, H::None, V::Wait),
            (G::Started, false, S::Running, H::None, V::Met),
            (G::Started, false, S::Running, H::Unhealthy, V::Met),
            (G::Started, false, S::Restarting, H::None, V::Wait),
            (G::Started, false, S::Exited(0), H::None, V::Exited(0)),
            (G::Started, true, S::Exited(0), H::None, V::Met),
            (G::Started, true, S::Exited(1), H::None, V::Exited(1)),
            (G::Healthy, false, S::Running, H::Starting, V::Wait),
            (G::Healthy, false, S::Running, H::Healthy, V::Met),
            (G::Healthy, false, S::Running, H::Unhealthy, V::Unhealthy),
            (G::Healthy, false, S::Running, H::None, V::NoHealthcheck),
            (G::Healthy, false, S::Restarting, H::None, V::Wait),
            (G::Healthy, false, S::Exited(0), H::None, V::Exited(0)),
            (G::Completed, true, S::Running, H::None, V::Wait),
            (G::Completed, true, S::Exited(0), H::None, V::Met),
            (G::Completed, true, S::Exited(2), H::None, V::Exited(2)),
        ] {
            assert_eq!(judge(goal, one_shot, state, health), verdict, "{goal:?} {one_shot} {state:?} {health:?}");
        }
    }
}

//! What the tasks of a plan do on the pretend engine; starts and restarts services.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::container::{Container, Files};
use super::engine::{Fault, Network, Volume};
use super::{MemoryBackend, hooks};
use crate::backend::converge::{self, RunState, Verdict};
use crate::backend::execute::{Goal, Hands, execute};
use crate::backend::plan::Slot;
use crate::backend::{
    Action, BackendError, Deployment, Plan, PlannedObject, PreStop, ResolvedImages, Run, Step, TenantRef,
};
use crate::compose::Project;
use crate::domain::{ContainerId, ContainerName, ServiceName};

/// How long the last started container is watched before an apply believes that it runs: what cannot even begin ends
/// within this.
const FIRST_BREATH: Duration = Duration::from_millis(20);

impl MemoryBackend {
    pub(super) async fn apply_plan(
        &self,
        wanted: &Deployment,
        images: &ResolvedImages,
        plan: &Plan,
        run: &Run,
    ) -> Result<(), BackendError> {
        self.find_external(wanted.project.project())?;
        execute(plan, &Stack { backend: self, wanted, images, run }, run).await
    }

    fn find_external(&self, project: &Project) -> Result<(), BackendError> {
        let state = self.engine.shared.reachable()?;
        let missing = |kind: &str, name: &str| BackendError::Refused {
            message: format!("external {kind} {name} does not exist"),
        };
        for network in project.networks.values().filter(|network| network.external) {
            let name = network.name.as_str();
            if !state.networks.iter().any(|there| there.name == name) {
                return Err(missing("network", name));
            }
        }
        for volume in project.volumes.values().filter(|volume| volume.external) {
            if !state.volumes.contains_key(volume.name.as_str()) {
                return Err(missing("volume", volume.name.as_str()));
            }
        }
        Ok(())
    }

    fn make_network(&self, wanted: &Deployment, name: &str, spec: &str) -> Result<(), BackendError> {
        self.engine.shared.change(None, |state| {
            if let Some(there) = state.networks.iter_mut().find(|there| there.name == name && !there.aside) {
                if there.owner.as_ref() != Some(&wanted.tenant) {
                    return Err(BackendError::NameTaken { kind: "network", name: name.to_owned() });
                }
                if there.spec == spec {
                    return Ok(());
                }
                there.aside = true;
            }
            state.networks.push(Network {
                id: uuid::Uuid::new_v4().simple().to_string(),
                name: name.to_owned(),
                owner: Some(wanted.tenant.clone()),
                generation: wanted.generation,
                spec: spec.to_owned(),
                aside: false,
            });
            Ok(())
        })
    }

    fn make_volume(&self, wanted: &Deployment, name: &str, spec: &str) -> Result<(), BackendError> {
        self.engine.shared.change(None, |state| match state.volumes.get(name) {
            Some(there) if there.owner.as_ref() == Some(&wanted.tenant) => Ok(()),
            Some(_) => Err(BackendError::NameTaken { kind: "volume", name: name.to_owned() }),
            None => {
                let volume = Volume {
                    owner: Some(wanted.tenant.clone()),
                    generation: wanted.generation,
                    spec: spec.to_owned(),
                    files: Files::new(),
                };
                state.volumes.insert(name.to_owned(), volume);
                Ok(())
            }
        })
    }

    fn set_aside(&self, id: &ContainerId) -> Result<(), BackendError> {
        self.engine.shared.change(None, |state| {
            if let Some(container) = state.containers.get_mut(id) {
                container.set_aside();
            }
            Ok(())
        })
    }

    fn make_container(
        &self,
        wanted: &Deployment,
        images: &ResolvedImages,
        name: &ServiceName,
        number: u32,
        container: &ContainerName,
    ) -> Result<(), BackendError> {
        let Some(service) = wanted.service(name) else {
            return Err(BackendError::NoSuchService { service: name.clone() });
        };
        let Some(image) = images.get(name) else {
            let image = service.image.to_string();
            return Err(BackendError::ImageNotFound { service: name.clone(), image, hint: "" });
        };
        if self.engine.shared.reachable()?.take_fault(&[Fault::NoCapacity]).is_some() {
            let region = wanted.tenant.region.clone().unwrap_or_default();
            return Err(BackendError::NoCapacity { region, message: "there is none left".to_owned() });
        }
        self.engine.shared.change(Some(Fault::Create), |state| {
            let names = wanted.project.project();
            let networks: BTreeSet<String> = service
                .networks
                .keys()
                .filter_map(|key| names.networks.get(key))
                .filter_map(|network| {
                    state.networks.iter().find(|there| there.name == network.name.as_str() && !there.aside)
                })
                .map(|network| network.id.clone())
                .collect();
            let new = Container::new(wanted, name, service, number, container, image, networks);
            if let Some(there) = state.containers.values().find(|there| there.name == container.as_str()) {
                // The container may have been made by a step whose answer was lost.
                return if there.owner == new.owner && there.spec == new.spec && there.generation == new.generation {
                    Ok(())
                } else {
                    Err(BackendError::NameTaken { kind: "container", name: container.to_string() })
                };
            }
            if state.foreign_containers.contains(container.as_str()) {
                return Err(BackendError::NameTaken { kind: "container", name: container.to_string() });
            }
            state.containers.insert(new.id.clone(), new);
            Ok(())
        })
    }

    pub(super) async fn start_services(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        let services = named_or_all(deployment.project.project(), service)?;
        self.start_these(deployment, &services, run).await
    }

    pub(super) async fn restart_services(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        let project = deployment.project.project();
        let stopped = self.stop_services(deployment, service, run).await?;
        // What had stopped by itself is started too; what somebody stopped on purpose only when it is named.
        let services: BTreeSet<ServiceName> = {
            let state = self.engine.shared.reachable()?;
            let asleep = |name: &ServiceName| {
                let mut there = state.current(&deployment.tenant).filter(|container| &container.service == name);
                there.all(|container| container.stopped && !stopped.contains(&container.id))
            };
            let all = named_or_all(project, service)?;
            all.into_iter().filter(|name| service.is_some() || !asleep(name)).collect()
        };
        self.start_these(deployment, &services, run).await
    }

    /// Starts those containers of these services that neither run nor have completed.
    async fn start_these(
        &self,
        deployment: &Deployment,
        services: &BTreeSet<ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        let project = deployment.project.project();
        let mut steps = Vec::new();
        {
            let state = self.engine.shared.reachable()?;
            for name in services {
                let before = steps.len();
                for container in state.current(&deployment.tenant).filter(|container| &container.service == name) {
                    let completed = converge::is_completed(project, name, container.state, container.stopped);
                    let (action, reason) = if container.state.is_active() || completed {
                        (Action::Keep, "as wanted")
                    } else {
                        (Action::Start, "does not run")
                    };
                    let object = PlannedObject::Container {
                        service: name.clone(),
                        number: container.number,
                        name: container.final_name.clone(),
                        existing: Some(container.id.clone()),
                    };
                    steps.push(Step { object, action, reason: reason.to_owned() });
                }
                if steps.len() == before && project.services.get(name).is_some_and(|service| service.replicas() > 0) {
                    let what = String::from("has no container; provision the tenant again to make it");
                    return Err(BackendError::ServiceExited { service: name.clone(), what, details: Box::default() });
                }
            }
        }
        let plan = Plan::of_steps(steps, project)?;
        let images = ResolvedImages::new();
        execute(&plan, &Stack { backend: self, wanted: deployment, images: &images, run }, run).await
    }
}

/// The named service, or all of them.
pub(super) fn named_or_all(
    project: &Project,
    service: Option<&ServiceName>,
) -> Result<BTreeSet<ServiceName>, BackendError> {
    match service {
        None => Ok(project.services.keys().cloned().collect()),
        Some(name) if project.services.contains_key(name) => Ok(BTreeSet::from([name.clone()])),
        Some(name) => Err(BackendError::NoSuchService { service: name.clone() }),
    }
}

/// One tenant's stack while a plan is carried out.
struct Stack<'a> {
    backend: &'a MemoryBackend,
    wanted: &'a Deployment,
    images: &'a ResolvedImages,
    run: &'a Run,
}

impl Stack<'_> {
    fn tenant(&self) -> &TenantRef {
        &self.wanted.tenant
    }

    fn project(&self) -> &Project {
        self.wanted.project.project()
    }

    /// Looks at the container that is in a slot now.
    fn look<T>(&self, slot: Slot<'_>, look: impl FnOnce(&Container) -> T) -> Result<Option<T>, BackendError> {
        let state = self.backend.engine.shared.reachable()?;
        let mut current = state.current(self.tenant());
        Ok(current.find(|there| there.service == *slot.service && there.number == slot.number).map(look))
    }

    fn id_of(&self, slot: Slot<'_>) -> Result<Option<ContainerId>, BackendError> {
        self.look(slot, |container| container.id.clone())
    }

    /// How a container stands towards a goal. In the end, what keeps restarting runs now and then, so it counts as exited.
    fn judge(&self, slot: Slot<'_>, goal: converge::Goal, last: bool) -> Result<Verdict, BackendError> {
        let one_shot = converge::is_one_shot(self.project(), slot.service);
        let judged = self.look(slot, |container| {
            let service = slot.service.clone();
            let details = || Box::new(container.failure());
            match converge::judge(goal, one_shot, container.state, container.health) {
                Verdict::Wait if last && container.state == RunState::Restarting => {
                    let code = container.last_exit.unwrap_or_default();
                    let what = format!("keeps restarting; its last exit code is {code}");
                    Err(BackendError::ServiceExited { service, what, details: details() })
                }
                Verdict::Unhealthy => Err(BackendError::ServiceUnhealthy { service, details: details() }),
                Verdict::Exited(code) => {
                    let what = format!("exited with code {code}");
                    Err(BackendError::ServiceExited { service, what, details: details() })
                }
                Verdict::NoHealthcheck => Err(BackendError::Unsupported {
                    field: format!("services.{service}.healthcheck"),
                    reason: String::from("another service waits for its health, but nothing checks it"),
                }),
                other => Ok(other),
            }
        })?;
        judged.unwrap_or_else(|| {
            Err(BackendError::ServiceExited {
                service: slot.service.clone(),
                what: String::from("lost its container to somebody else"),
                details: Box::default(),
            })
        })
    }

    fn own_goal(&self, slot: Slot<'_>) -> Result<converge::Goal, BackendError> {
        let checked = self.look(slot, |container| container.check.is_some())?;
        Ok(converge::Goal::of(self.project(), slot.service, checked == Some(true)))
    }
}

#[async_trait]
impl Hands for Stack<'_> {
    async fn make_object(&self, object: &PlannedObject, _: Action) -> Result<(), BackendError> {
        self.run.progress.report(format!("making {object}"));
        let project = self.project();
        match object {
            PlannedObject::Network { key: Some(key), name } => match project.networks.get(key) {
                Some(network) => self.backend.make_network(self.wanted, name, &self.wanted.object_hash(network)),
                None => Ok(()),
            },
            PlannedObject::Volume { key, name } => match project.volumes.get(key) {
                Some(volume) => self.backend.make_volume(self.wanted, name, &self.wanted.object_hash(volume)),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    async fn make_container(&self, slot: Slot<'_>) -> Result<(), BackendError> {
        self.run.progress.report("making containers");
        if let Some(existing) = slot.existing {
            self.backend.set_aside(existing)?;
        }
        self.backend.make_container(self.wanted, self.images, slot.service, slot.number, slot.name)
    }

    async fn stop(&self, slot: Slot<'_>) -> Result<(), BackendError> {
        let Some(id) = slot.existing else { return Ok(()) };
        self.run.progress.report(format!("stopping {}", slot.service));
        let before = match slot.action {
            Action::Remove | Action::Recreate => self.run.pre_stop.get(slot.service).cloned().unwrap_or_default(),
            _ => PreStop::of(self.wanted.service(slot.service)),
        };
        hooks::pre_stop(&self.backend.engine.shared, id, &before, Some(self.run.deadline)).await;
        self.backend.engine.shared.stop(id, Some(self.run.deadline)).await?;
        if slot.action == Action::Remove { self.backend.set_aside(id) } else { Ok(()) }
    }

    async fn start(&self, slot: Slot<'_>) -> Result<(), BackendError> {
        self.run.progress.report(format!("starting {}", slot.service));
        match self.id_of(slot)? {
            Some(id) => self.backend.engine.shared.start(&id),
            None => Ok(()),
        }
    }

    async fn post_start(&self, slot: Slot<'_>) -> Result<(), BackendError> {
        let (Some(id), Some(service)) = (self.id_of(slot)?, self.wanted.service(slot.service)) else { return Ok(()) };
        let shared = &self.backend.engine.shared;
        hooks::post_start(shared, slot.service, &id, &service.post_start, self.run.deadline).await
    }

    async fn reach(&self, slot: Slot<'_>, goal: Goal) -> Result<(), BackendError> {
        let goal = match goal {
            Goal::Started => converge::Goal::Started,
            Goal::Healthy => converge::Goal::Healthy,
            Goal::Completed => converge::Goal::Completed,
            Goal::Ready => self.own_goal(slot)?,
        };
        let mut changed = self.backend.engine.shared.subscribe_changed();
        while self.judge(slot, goal, false)? != Verdict::Met {
            if let Some(seen) = self.look(slot, Container::observed)? {
                self.run.progress.waiting(&seen);
            }
            if timeout_at(self.run.deadline, changed.changed()).await.is_err() {
                let what = match goal {
                    converge::Goal::Started => "to start",
                    converge::Goal::Healthy => "to become healthy",
                    converge::Goal::Completed => "to complete",
                };
                let details = self.look(slot, |container| Box::new(container.failure()))?;
                let step = format!("waiting for service {} {what}", slot.service);
                return Err(BackendError::DeadlineExceeded { step, details });
            }
        }
        Ok(())
    }

    async fn fall(&self, slot: Slot<'_>) -> BackendError {
        let mut changed = self.backend.engine.shared.subscribe_changed();
        loop {
            // Its end is waited for: what has not been met (a healthcheck that goes on) may be met again.
            if let Err(error) = self.own_goal(slot).and_then(|goal| self.judge(slot, goal, true)) {
                return error;
            }
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn last_look(&self, started: &[Slot<'_>]) -> Result<(), BackendError> {
        tokio::time::sleep_until(self.run.deadline.min(Instant::now() + FIRST_BREATH)).await;
        for slot in started {
            if self.judge(*slot, self.own_goal(*slot)?, true)? == Verdict::Wait {
                self.reach(*slot, Goal::Ready).await?;
            }
        }
        Ok(())
    }
}

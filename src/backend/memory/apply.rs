//! Carries plans out, starts and restarts services, and waits for them.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::{Instant, timeout_at};

use super::MemoryBackend;
use super::container::{Container, Files};
use super::engine::{Fault, Network, Volume};
use crate::backend::converge::{self, Goal, RunState, Verdict};
use crate::backend::{Action, BackendError, Deployment, Plan, PlannedObject, ResolvedImages, Run, TenantRef};
use crate::compose::{Condition, Project, Service, start_order};
use crate::domain::{ContainerId, ContainerName, DesiredState, ServiceName};

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
        run.progress.report("making networks, volumes and containers");
        self.make_objects(wanted, plan)?;
        self.make_containers(wanted, images, plan)?;
        self.stop_removed(plan, run).await?;
        let project = wanted.project.project();
        if wanted.desired == DesiredState::Stopped {
            for service in project.services.keys() {
                self.stop_replaced(&wanted.tenant, service, run).await?;
            }
            return Ok(());
        }
        let again = plan.steps.iter().filter(|step| step.action == Action::Start);
        let again = again.filter_map(|step| match &step.object {
            PlannedObject::Container { existing, .. } => existing.clone(),
            _ => None,
        });
        let bring_up = BringUp {
            backend: self,
            tenant: &wanted.tenant,
            project,
            services: converge::with_dependencies(project, run.only.as_ref()),
            again: again.collect(),
            alone: false,
            begun: Mutex::default(),
            run,
        };
        bring_up.all().await
    }

    fn make_objects(&self, wanted: &Deployment, plan: &Plan) -> Result<(), BackendError> {
        let project = wanted.project.project();
        self.find_external(project)?;
        for step in &plan.steps {
            match &step.object {
                PlannedObject::Network { key: Some(key), name }
                    if matches!(step.action, Action::Create | Action::Recreate) =>
                {
                    let Some(network) = project.networks.get(key) else { continue };
                    self.make_network(wanted, name, &wanted.object_hash(network))?;
                }
                PlannedObject::Volume { key, name } if step.action == Action::Create => {
                    let Some(volume) = project.volumes.get(key) else { continue };
                    self.make_volume(wanted, name, &wanted.object_hash(volume))?;
                }
                _ => {}
            }
        }
        Ok(())
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

    fn make_containers(&self, wanted: &Deployment, images: &ResolvedImages, plan: &Plan) -> Result<(), BackendError> {
        for step in &plan.steps {
            let PlannedObject::Container { service, number, name, existing } = &step.object else { continue };
            if !matches!(step.action, Action::Create | Action::Recreate) {
                continue;
            }
            if let Some(existing) = existing {
                self.set_aside(existing)?;
            }
            self.make_container(wanted, images, service, *number, name)?;
        }
        Ok(())
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

    /// Stops what the plan removes and sets it aside. What ran beside it may need its ports, so it goes first.
    async fn stop_removed(&self, plan: &Plan, run: &Run) -> Result<(), BackendError> {
        for step in plan.steps.iter().filter(|step| step.action == Action::Remove) {
            if let PlannedObject::Container { service, existing: Some(id), .. } = &step.object {
                run.progress.report(format!("stopping service {service}"));
                self.engine.shared.stop(id, Some(run.deadline)).await?;
                self.set_aside(id)?;
            }
        }
        Ok(())
    }

    /// Stops the containers of a service that new ones replace.
    async fn stop_replaced(&self, tenant: &TenantRef, service: &ServiceName, run: &Run) -> Result<(), BackendError> {
        let replaced: Vec<ContainerId> = {
            let state = self.engine.shared.reachable()?;
            let replaced = state.of(tenant).filter(|c| c.is_aside() && &c.service == service && c.state.is_active());
            replaced.map(|container| container.id.clone()).collect()
        };
        for id in replaced {
            self.engine.shared.stop(&id, Some(run.deadline)).await?;
        }
        Ok(())
    }

    pub(super) async fn start_services(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        let project = deployment.project.project();
        let services = named_or_all(project, service)?;
        let bring_up = BringUp {
            backend: self,
            tenant: &deployment.tenant,
            project,
            services,
            again: BTreeSet::new(),
            alone: service.is_some(),
            begun: Mutex::default(),
            run,
        };
        bring_up.all().await
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
        let bring_up = BringUp {
            backend: self,
            tenant: &deployment.tenant,
            project,
            services,
            again: BTreeSet::new(),
            alone: service.is_some(),
            begun: Mutex::default(),
            run,
        };
        bring_up.all().await
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

/// Starts services side by side, each after what it depends on, and waits until all are as they should be.
struct BringUp<'a> {
    backend: &'a MemoryBackend,
    tenant: &'a TenantRef,
    project: &'a Project,
    services: BTreeSet<ServiceName>,
    /// Containers to start even though they run: they are stopped first.
    again: BTreeSet<ContainerId>,
    /// Dependencies are not waited for: one service was named.
    alone: bool,
    /// Services whose containers this run has started or found running: only these can be judged.
    begun: Mutex<BTreeSet<ServiceName>>,
    run: &'a Run,
}

impl BringUp<'_> {
    async fn all(&self) -> Result<(), BackendError> {
        let order = start_order(self.project);
        let services = order.iter().filter(|name| self.services.contains(*name));
        let started = try_join_all(services.clone().map(|name| self.service(name))).await?;
        if started.contains(&true) {
            tokio::time::sleep_until(self.run.deadline.min(Instant::now() + FIRST_BREATH)).await;
        }
        for name in services {
            // What keeps restarting runs now and then, so it counts as exited.
            if self.judge(name, self.goal(name), true)? == Verdict::Wait {
                self.wait(name, self.goal(name), "to be up").await?;
            }
        }
        Ok(())
    }

    /// Starts one service when its time has come, and waits for it; tells whether anything had to be started.
    async fn service(&self, name: &ServiceName) -> Result<bool, BackendError> {
        let Some(service) = self.project.services.get(name) else { return Ok(false) };
        for (dependency, how) in &service.depends_on {
            if self.alone || !self.project.services.contains_key(dependency) {
                continue;
            }
            let (goal, what) = match how.condition {
                Condition::ServiceStarted => (Goal::Started, "to start"),
                Condition::ServiceHealthy => (Goal::Healthy, "to become healthy"),
                Condition::ServiceCompletedSuccessfully => (Goal::Completed, "to complete"),
            };
            match self.wait(dependency, goal, what).await {
                Err(error) if how.required || matches!(error, BackendError::Unavailable) => return Err(error),
                _ => {}
            }
        }
        self.run.progress.report(format!("starting service {name}"));
        self.backend.stop_replaced(self.tenant, name, self.run).await?;
        let shared = &self.backend.engine.shared;
        let sleeping: Vec<(ContainerId, bool)> = {
            let state = shared.reachable()?;
            let mine = state.current(self.tenant).filter(|container| &container.service == name);
            let sleeping = mine.filter(|container| {
                let done = converge::is_completed(self.project, name, container.state, container.stopped);
                self.again.contains(&container.id) || (!container.state.is_active() && !done)
            });
            sleeping.map(|container| (container.id.clone(), container.state.is_active())).collect()
        };
        for (id, active) in &sleeping {
            if *active {
                shared.stop(id, Some(self.run.deadline)).await?;
            }
            shared.start(id)?;
        }
        self.begun().insert(name.clone());
        shared.ring();
        let goal = self.goal(name);
        let what = match goal {
            Goal::Started => "to start",
            Goal::Healthy => "to become healthy",
            Goal::Completed => "to complete",
        };
        self.wait(name, goal, what).await?;
        Ok(!sleeping.is_empty())
    }

    fn begun(&self) -> MutexGuard<'_, BTreeSet<ServiceName>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn goal(&self, name: &ServiceName) -> Goal {
        let state = self.backend.engine.shared.lock();
        let checked =
            state.current(self.tenant).any(|container| &container.service == name && container.check.is_some());
        Goal::of(self.project, name, checked)
    }

    /// Waits until the service has reached the goal, cannot reach it, or the deadline has passed.
    async fn wait(&self, name: &ServiceName, goal: Goal, what: &str) -> Result<(), BackendError> {
        let mut changed = self.backend.engine.shared.subscribe_changed();
        loop {
            let pending = self.services.contains(name) && !self.begun().contains(name);
            if !pending && self.judge(name, goal, false)? == Verdict::Met {
                return Ok(());
            }
            if timeout_at(self.run.deadline, changed.changed()).await.is_err() {
                let state = self.backend.engine.shared.lock();
                let mine = state.current(self.tenant).find(|container| &container.service == name);
                let details = mine.map(|container| Box::new(container.failure()));
                return Err(BackendError::DeadlineExceeded {
                    step: format!("waiting for service {name} {what}"),
                    details,
                });
            }
        }
    }

    /// Judges all containers of a service at once; a failure of any is the service's.
    fn judge(&self, name: &ServiceName, goal: Goal, last: bool) -> Result<Verdict, BackendError> {
        let state = self.backend.engine.shared.reachable()?;
        let one_shot = converge::is_one_shot(self.project, name);
        let (mut met, mut count) = (true, 0);
        for container in state.current(self.tenant).filter(|container| &container.service == name) {
            count += 1;
            let service = name.clone();
            match converge::judge(goal, one_shot, container.state, container.health) {
                Verdict::Met => {}
                Verdict::Wait if last && container.state == RunState::Restarting => {
                    let code = container.last_exit.unwrap_or_default();
                    let what = format!("keeps restarting; its last exit code is {code}");
                    return Err(BackendError::ServiceExited { service, what, details: Box::new(container.failure()) });
                }
                Verdict::Wait => met = false,
                Verdict::Unhealthy => {
                    return Err(BackendError::ServiceUnhealthy { service, details: Box::new(container.failure()) });
                }
                Verdict::Exited(code) => {
                    let what = format!("exited with code {code}");
                    return Err(BackendError::ServiceExited { service, what, details: Box::new(container.failure()) });
                }
                Verdict::NoHealthcheck => {
                    return Err(BackendError::Unsupported {
                        field: format!("services.{name}.healthcheck"),
                        reason: String::from("another service waits for its health, but nothing checks it"),
                    });
                }
            }
        }
        let wanted = self.project.services.get(name).map_or(0, Service::replicas);
        if count == 0 && wanted > 0 {
            let what = String::from("has no container; provision the tenant again to make it");
            return Err(BackendError::ServiceExited { service: name.clone(), what, details: Box::default() });
        }
        Ok(if met { Verdict::Met } else { Verdict::Wait })
    }
}

//! What the tasks of a plan do on the engine, for one apply, start or restart of one tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use futures::future::try_join_all;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::engine::Engine;
use super::leases::Claims;
use super::networks::SubnetPool;
use super::observe::{self, Container, Observed, State};
use super::watch::{self, Probation, Started, Watch};
use super::{apply, convert, hooks, labels, leases, renaming, start, stop};
use crate::backend::converge::is_one_shot;
use crate::backend::execute::{Goal, Hands, execute};
use crate::backend::plan::Slot;
use crate::backend::{Action, BackendError, Deployment, Plan, PlannedObject, PreStop, ResolvedImages, Run, Step};
use crate::compose::{RestartPolicy, Service};
use crate::domain::{ContainerId, ContainerName, Health, ServiceName};

/// One tenant's stack while a plan is carried out.
pub(super) struct Stack<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) pool: &'a SubnetPool,
    /// The host ports of what is made.
    pub(super) ports: &'a Claims,
    pub(super) wanted: &'a Deployment,
    pub(super) images: &'a ResolvedImages,
    pub(super) plan: &'a Plan,
    pub(super) run: &'a Run,
    /// What was there before it changed anything of that. A stack that is made from nothing never asks.
    observed: OnceCell<Observed>,
    made: Mutex<BTreeMap<(ServiceName, u32), Made>>,
    /// Containers that were told to stop, so that their hooks run once.
    told: Mutex<BTreeSet<ContainerId>>,
    /// The containers that were started.
    started: Mutex<BTreeMap<ContainerId, Started>>,
    /// How many are being started.
    starting: AtomicU32,
    events: OnceLock<Watch>,
    /// What the last look saw, if all was well then.
    seen: OnceLock<Sight>,
}

/// A container that an apply has made.
pub(super) struct Made {
    pub(super) id: ContainerId,
    /// Whether it has a healthcheck, or nobody has looked.
    pub(super) is_checked: bool,
}

/// A tenant as it was at a time.
pub(super) struct Sight {
    pub(super) as_of: Instant,
    pub(super) observed: Observed,
}

impl<'a> Stack<'a> {
    pub(super) fn new(
        (engine, pool, ports): (&'a Arc<Engine>, &'a SubnetPool, &'a Claims),
        (wanted, images, plan): (&'a Deployment, &'a ResolvedImages, &'a Plan),
        observed: Option<Observed>,
        run: &'a Run,
    ) -> Self {
        Self {
            engine,
            pool,
            ports,
            wanted,
            images,
            plan,
            run,
            observed: OnceCell::new_with(observed),
            made: Mutex::default(),
            told: Mutex::default(),
            started: Mutex::default(),
            starting: AtomicU32::new(0),
            events: OnceLock::new(),
            seen: OnceLock::new(),
        }
    }

    /// Gives what the last look saw, if there was one and all was well.
    pub(super) async fn carry_out(mut self) -> Result<Option<Sight>, BackendError> {
        execute(self.plan, &self, self.run).await?;
        Ok(self.seen.take())
    }

    pub(super) async fn observed(&self) -> Result<&Observed, BackendError> {
        let observing = self.observed.get_or_try_init(|| observe::tenant(self.engine, &self.wanted.tenant));
        observing.await.map_err(|error| error.into_backend("listing the tenant"))
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<(ServiceName, u32), Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container that is in a slot now: the new one, once it is made.
    fn id_of(&self, slot: Slot<'_>) -> Option<ContainerId> {
        let made = self.made().get(&(slot.service.clone(), slot.number)).map(|made| made.id.clone());
        made.or_else(|| slot.existing.cloned())
    }

    /// The first container of each service, for those that join its namespaces.
    pub(super) fn first_containers(&self) -> BTreeMap<ServiceName, ContainerId> {
        let slots = self.plan.steps.iter().filter_map(Step::slot);
        let first = slots.filter(|slot| slot.number == 1 && slot.action != Action::Remove);
        first.filter_map(|slot| Some((slot.service.clone(), self.id_of(slot)?))).collect()
    }

    /// The names of each service's containers, for links to them.
    pub(super) fn names(&self) -> BTreeMap<ServiceName, Vec<ContainerName>> {
        let mut names: BTreeMap<ServiceName, Vec<ContainerName>> = BTreeMap::new();
        let slots = self.plan.steps.iter().filter_map(Step::slot).filter(|slot| slot.action != Action::Remove);
        for slot in slots {
            names.entry(slot.service.clone()).or_default().push(slot.name.clone());
        }
        names
    }

    /// The container that a slot had when it all began.
    pub(super) async fn existing(&self, slot: Slot<'_>) -> Result<Option<&Container>, BackendError> {
        let Some(id) = slot.existing else { return Ok(None) };
        Ok(self.observed().await?.containers.iter().find(|container| container.id == *id))
    }

    fn events(&self) -> &Watch {
        self.events.get_or_init(|| Watch::start(self.engine, &self.wanted.tenant))
    }

    /// What a goal means for the container of a slot.
    fn goal(&self, slot: Slot<'_>, id: &ContainerId, goal: Goal) -> watch::Goal {
        let project = self.wanted.project.project();
        let may_end = is_one_shot(project, slot.service);
        match goal {
            Goal::Started => watch::Goal::Started { may_end },
            Goal::Healthy => watch::Goal::Healthy,
            Goal::Completed => watch::Goal::Completed,
            Goal::Ready if project.is_awaited_by_completion(slot.service) => watch::Goal::Completed,
            Goal::Ready => {
                let started = self.started.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied();
                // What replaces another container is looked at before that one is touched.
                let is_new = slot.action == Action::Create;
                let is_checked = !is_new || !self.made().values().any(|made| made.id == *id && !made.is_checked);
                watch::Goal::Ready { may_end, probation: Probation::of(started), is_checked }
            }
        }
    }

    /// Looks at containers that were waited for; says why one is not well any more.
    async fn look_at(&self, slots: impl Iterator<Item = Slot<'_>>) -> Result<(), BackendError> {
        let looks = slots.filter_map(|slot| Some((slot, self.id_of(slot)?))).map(|(slot, id)| async move {
            let goal = self.goal(slot, &id, Goal::Ready).again();
            self.events().reach(self.engine, slot.service, &id, goal, self.run).await
        });
        try_join_all(looks).await.map(drop)
    }

    /// The hooks of a container that stops: one that goes or is replaced has those that it was committed with.
    fn pre_stop(&self, slot: Slot<'_>) -> PreStop {
        match slot.action {
            Action::Remove | Action::Recreate => self.run.pre_stop.get(slot.service).cloned().unwrap_or_default(),
            _ => PreStop::of(self.wanted.service(slot.service)),
        }
    }
}

#[async_trait]
impl Hands for Stack<'_> {
    async fn make_object(&self, object: &PlannedObject, action: Action) -> Result<(), BackendError> {
        self.run.progress.report(format!("making {object}"));
        apply::make_object(self, object, action).await
    }

    async fn make_container(&self, slot: Slot<'_>) -> Result<(), BackendError> {
        self.run.progress.report("making containers");
        let made = Box::pin(apply::make_container(self, slot)).await?;
        self.made().insert((slot.service.clone(), slot.number), made);
        Ok(())
    }

    async fn stop(&self, slot: Slot<'_>) -> Result<(), BackendError> {
        let Some(container) = self.existing(slot).await? else { return Ok(()) };
        let runs = matches!(container.state, State::Running | State::Restarting | State::Paused);
        let goes = matches!(slot.action, Action::Recreate | Action::Remove);
        if goes {
            // The name says what becomes of it, so that an undo after a crash knows too.
            let name = if runs { container.stopping_name() } else { container.aside_name() };
            let renamed = renaming::rename(self.engine, &container.id, &name, renaming::Then::Stopped).await;
            renamed.map_err(|error| error.into_backend("renaming a container"))?;
        }
        if !runs {
            return Ok(());
        }
        self.run.progress.report(format!("stopping {}", slot.service));
        let first = self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(container.id.clone());
        if first && container.state == State::Running {
            let before = self.pre_stop(slot);
            let profile = self.wanted.project.profile();
            hooks::pre_stop(self.engine, profile, slot.service, (&container.id, &before), stop::patience(self.run))
                .await;
        }
        let stopped = self.engine.stop_within(&container.id, stop::patience(self.run)).await;
        stopped.map_err(|error| error.into_backend("stopping a container"))
    }

    async fn start(&self, slot: Slot<'_>) -> Result<(), BackendError> {
        let Some(id) = self.id_of(slot) else { return Ok(()) };
        // Subscribed before, so that nothing that it does is missed.
        self.events();
        self.run.progress.report(format!("starting {}", slot.service));
        let policy = self.wanted.service(slot.service).map_or(RestartPolicy::No, Service::restart_policy);
        if slot.action == Action::Start {
            if self.existing(slot).await?.is_some_and(|container| container.state == State::Paused) {
                let unpaused = self.engine.unpause(&id).await;
                return unpaused.map_err(|error| error.into_backend("unpausing a container"));
            }
            // A durable stop took it away.
            if policy != RestartPolicy::No {
                let restored = self.engine.set_restart_policy(&id, convert::restart_policy(policy)).await;
                restored.map_err(|error| error.into_backend("setting a restart policy"))?;
            }
        }
        let mut begun = Instant::now();
        let beside = self.starting.fetch_add(1, Ordering::Relaxed) + 1;
        let mut answer = self.engine.start(&id).await;
        let at_once = self.starting.fetch_sub(1, Ordering::Relaxed).max(beside);
        let slots = self.plan.steps.iter().filter_map(Step::slot);
        let replaced: Vec<Slot<'_>> = slots
            .filter(|other| other.action == Action::Recreate)
            .filter(|other| (other.service, other.number) != (slot.service, slot.number))
            .collect();
        if answer.as_ref().is_err_and(start::is_port_in_use) && !replaced.is_empty() {
            // A port that moves from one service to another: its holder is about to be stopped anyway.
            try_join_all(replaced.into_iter().map(|other| self.stop(other))).await?;
            begun = Instant::now();
            answer = self.engine.start(&id).await;
        }
        let Err(error) = answer else {
            let started = Started { at: Instant::now(), took: begun.elapsed(), at_once };
            self.started.lock().unwrap_or_else(PoisonError::into_inner).insert(id, started);
            return Ok(());
        };
        let mut failure = start::failure(error, slot.service);
        if let (BackendError::PortTaken { port, at, .. }, Some(service)) =
            (&mut failure, self.wanted.service(slot.service))
        {
            self.ports.refused(*port);
            let label =
                self.engine.inspect(&id).await.ok().and_then(|found| found.config?.labels?.remove(labels::PORTS));
            *at = leases::place_of(*port, &service.ports, &label.unwrap_or_default());
        }
        Err(failure)
    }

    async fn post_start(&self, slot: Slot<'_>) -> Result<(), BackendError> {
        let (Some(id), Some(service)) = (self.id_of(slot), self.wanted.service(slot.service)) else { return Ok(()) };
        let profile = self.wanted.project.profile();
        hooks::post_start(self.engine, profile, slot.service, (&id, &service.post_start), self.run.deadline).await
    }

    async fn reach(&self, slot: Slot<'_>, goal: Goal) -> Result<(), BackendError> {
        let Some(id) = self.id_of(slot) else { return Ok(()) };
        let goal = self.goal(slot, &id, goal);
        self.events().reach(self.engine, slot.service, &id, goal, self.run).await
    }

    async fn fall(&self, slot: Slot<'_>) -> BackendError {
        let Some(id) = self.id_of(slot) else { return std::future::pending().await };
        let goal = self.goal(slot, &id, Goal::Ready);
        self.events().fall(self.engine, slot.service, &id, goal, self.run).await
    }

    async fn last_look(&self, started: &[Slot<'_>]) -> Result<(), BackendError> {
        let as_of = Instant::now();
        let observed = match observe::tenant(self.engine, &self.wanted.tenant).await {
            Ok(observed) => observed,
            Err(error) => {
                // Each of them has patience with an engine that is away for a moment.
                tracing::debug!(%error, "the last look sees nothing");
                return self.look_at(started.iter().copied()).await;
            }
        };
        let is_well = |slot: &Slot<'_>| {
            let id = self.id_of(*slot);
            let container = observed.containers.iter().find(|container| Some(&container.id) == id.as_ref());
            container.is_some_and(|container| match container.state {
                State::Running => container.standing.as_ref().is_some_and(|standing| {
                    let status = &standing.status;
                    status.restart_count == 0 && matches!(status.health, Health::None | Health::Healthy)
                }),
                State::Exited(0) => is_one_shot(self.wanted.project.project(), slot.service),
                _ => false,
            })
        };
        let others: Vec<Slot<'_>> = started.iter().copied().filter(|slot| !is_well(slot)).collect();
        if others.is_empty() {
            self.seen.set(Sight { as_of, observed }).ok();
        }
        self.look_at(others.into_iter()).await
    }
}

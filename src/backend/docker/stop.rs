//! Stopping containers, dependents first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bollard::models::ContainerSummaryStateEnum;
use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::engine::{Engine, EngineError};
use super::observe::{Container, State};
use super::{convert, hooks, labels};
use crate::backend::{BackendError, Deployment, PreStop, Run};
use crate::compose::RestartPolicy;
use crate::domain::{ContainerId, ServiceName};
use crate::policy::Profile;

/// The time kept back for ending containers by force, unless the operation is so short that it is a quarter of it.
const FORCE: Duration = Duration::from_secs(30);

/// Stops so that not even a restart of the engine brings the containers back: their restart policy goes first.
/// (`always` means to the engine: also after a stop, as soon as it restarts itself.)
pub(super) async fn durably(
    engine: &Engine,
    deployment: &Deployment,
    containers: &[Container],
    run: &Run,
) -> Result<(), BackendError> {
    let policies = containers.iter().filter(|container| {
        deployment.service(&container.service).is_none_or(|service| service.restart_policy() != RestartPolicy::No)
    });
    try_join_all(policies.map(|container| forbid_restarts(engine, &container.id)))
        .await
        .map_err(|error| error.into_backend("setting a restart policy"))?;
    in_order(engine, Some(deployment), containers, |_| {}, run).await?;
    until_listed(engine, deployment, containers).await.map_err(|error| error.into_backend("listing containers"))
}

/// Takes a container's restart policy away. The engine refuses that in the moment in which the container ends, which is where
/// one that ends again and again is often found.
async fn forbid_restarts(engine: &Engine, id: &ContainerId) -> Result<(), EngineError> {
    let no = convert::restart_policy(RestartPolicy::No);
    let mut attempts = 20;
    loop {
        match engine.set_restart_policy(id, no.clone()).await {
            Err(EngineError::Refused { message, .. }) if attempts > 0 && message.contains("stopped container") => {
                attempts -= 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            done => return done,
        }
    }
}

/// Waits until the engine's list knows of the stop too: Engine 26.1 answers a little before it does, and the list of all
/// tenants has nothing else to go by.
async fn until_listed(engine: &Engine, deployment: &Deployment, stopped: &[Container]) -> Result<(), EngineError> {
    let filter = labels::filter(&deployment.tenant);
    // Whatever runs after this time has been started anew by somebody else.
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        let listed = engine.containers(&filter).await?;
        let late = listed.iter().any(|summary| {
            summary.state == Some(ContainerSummaryStateEnum::RUNNING)
                && stopped.iter().any(|container| summary.id.as_deref() == Some(container.id.as_str()))
        });
        if !late || Instant::now() >= end {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How long a container may take to end by itself: what is left to the operation, less the time that ending it by force
/// and what comes afterwards need.
pub(super) fn patience(run: &Run) -> Duration {
    let left = run.deadline.saturating_duration_since(Instant::now());
    left.saturating_sub(FORCE.min(left / 4))
}

/// Stops each service once all that depend on it have stopped, and has `tell` told of it; all at once when the order is not
/// known.
pub(super) async fn in_order(
    engine: &Engine,
    deployment: Option<&Deployment>,
    containers: &[Container],
    tell: impl Fn(&ServiceName) + Sync,
    run: &Run,
) -> Result<(), BackendError> {
    let services: BTreeSet<&ServiceName> = containers.iter().map(|container| &container.service).collect();
    let stopped: BTreeMap<&ServiceName, watch::Sender<bool>> =
        services.iter().map(|name| (*name, watch::Sender::new(false))).collect();
    // Without a deployment there are no hooks.
    let profile = deployment.map_or(Profile::Baseline, |deployment| deployment.project.profile());
    let stop_service = async |name: &ServiceName| {
        if let Some(deployment) = deployment {
            for (other, service) in &deployment.project.project().services {
                if let (true, Some(done)) = (service.depends_on.contains_key(name), stopped.get(other)) {
                    // A sender lives as long as this function: waiting cannot fail.
                    drop(done.subscribe().wait_for(|done| *done).await);
                }
            }
        }
        let running = containers.iter().filter(|container| {
            container.service == *name && matches!(container.state, State::Running | State::Restarting | State::Paused)
        });
        let before = PreStop::of(deployment.and_then(|deployment| deployment.service(name)));
        let before = &before;
        try_join_all(running.map(|container| async move {
            if container.state == State::Running {
                hooks::pre_stop(engine, profile, name, (&container.id, before), patience(run)).await;
            }
            engine.stop_within(&container.id, patience(run)).await
        }))
        .await
        .map_err(|error| error.into_backend("stopping a container"))?;
        if let Some(done) = stopped.get(name) {
            done.send_replace(true);
        }
        tell(name);
        Ok::<(), BackendError>(())
    };
    let all = try_join_all(services.iter().map(|name| stop_service(name)));
    match timeout_at(run.deadline, all).await {
        Ok(result) => result.map(drop),
        Err(_) => Err(BackendError::DeadlineExceeded { step: "stopping containers".to_owned(), details: None }),
    }
}

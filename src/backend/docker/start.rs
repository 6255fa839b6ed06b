//! Starting containers in dependency order, and judging whether the stack came up.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::convert;
use super::engine::{Engine, EngineError};
use super::stop::patience;
use super::watch::{Goal, Watch};
use crate::backend::{BackendError, Deployment, FailureDetails, Run};
use crate::compose::{Condition, RestartPolicy};
use crate::domain::{ContainerId, ContainerName, ServiceName};

/// One container that is part of the stack.
pub(super) struct Starting {
    pub(super) service: ServiceName,
    pub(super) id: ContainerId,
    /// False for one that runs (or has completed) and only matters to its dependents.
    pub(super) needs_start: bool,
    pub(super) paused: bool,
    /// Stops just before: the container that this one replaces, or itself for a restart.
    pub(super) stop_first: Option<StopFirst>,
    /// Ending with code 0 is success.
    pub(super) may_end: bool,
    pub(super) restart: RestartPolicy,
    /// A durable stop took its restart policy away.
    pub(super) restore_policy: bool,
}

/// A container that stops before another one starts.
pub(super) struct StopFirst {
    pub(super) id: ContainerId,
    /// The name that says so, given to it first, so that an undo after a crash knows too.
    pub(super) name: Option<ContainerName>,
}

/// Starts what needs it, each service as soon as what it depends on has reached the condition, and waits until every
/// started container is as it should be (design, "Success of an apply").
pub(super) async fn all(
    engine: &Arc<Engine>,
    wanted: &Deployment,
    containers: Vec<Starting>,
    run: &Run,
) -> Result<(), BackendError> {
    if containers.iter().all(|container| !container.needs_start) {
        return Ok(());
    }
    let events = Watch::start(engine, &wanted.tenant);
    let mut services: BTreeMap<ServiceName, Vec<Starting>> = BTreeMap::new();
    for container in containers {
        services.entry(container.service.clone()).or_default().push(container);
    }
    let launched: BTreeMap<ServiceName, watch::Sender<bool>> =
        services.keys().map(|name| (name.clone(), watch::Sender::new(false))).collect();
    let stack = Stack { engine, wanted, services: &services, launched: &launched, events: &events, run };
    try_join_all(services.keys().map(|name| stack.bring_up(name))).await?;
    // By now the last service is up: whatever has ended since it was started counts as failed.
    try_join_all(services.keys().map(|name| stack.ready(name))).await.map(drop)
}

struct Stack<'a> {
    engine: &'a Arc<Engine>,
    wanted: &'a Deployment,
    services: &'a BTreeMap<ServiceName, Vec<Starting>>,
    launched: &'a BTreeMap<ServiceName, watch::Sender<bool>>,
    events: &'a Watch,
    run: &'a Run,
}

impl Stack<'_> {
    async fn bring_up(&self, name: &ServiceName) -> Result<(), BackendError> {
        let containers = &self.services[name];
        let needs_start = containers.iter().any(|container| container.needs_start);
        let dependencies = self.dependencies(name).await;
        // One that runs already is in nobody's way, but what depends on it still comes after what it depends on.
        if needs_start {
            dependencies?;
            self.run.progress.report(format!("starting {name}"));
            let starts = containers.iter().filter(|container| container.needs_start);
            try_join_all(starts.map(|container| self.start_one(container))).await?;
        }
        if let Some(launched) = self.launched.get(name) {
            launched.send_replace(true);
        }
        self.ready(name).await
    }

    async fn dependencies(&self, name: &ServiceName) -> Result<(), BackendError> {
        let Some(service) = self.wanted.service(name) else { return Ok(()) };
        try_join_all(service.depends_on.iter().map(|(other, dependency)| async move {
            let reached = self.dependency(other, dependency.condition).await;
            match reached {
                Err(error) if !dependency.required && !matches!(error, BackendError::Unavailable) => {
                    tracing::info!(service = %name, dependency = %other, %error, "optional dependency is not there");
                    Ok(())
                }
                other => other,
            }
        }))
        .await
        .map(drop)
    }

    async fn dependency(&self, other: &ServiceName, condition: Condition) -> Result<(), BackendError> {
        let (Some(launched), Some(containers)) = (self.launched.get(other), self.services.get(other)) else {
            return Ok(());
        };
        let mut launched = launched.subscribe();
        // A sender lives as long as the stack comes up, so only the deadline can end this wait early.
        let started = timeout_at(self.run.deadline, launched.wait_for(|launched| *launched)).await.is_ok();
        if !started {
            let step = format!("waiting for service {other} to start");
            return Err(BackendError::DeadlineExceeded { step, details: None });
        }
        try_join_all(containers.iter().map(|container| {
            let goal = match condition {
                Condition::ServiceStarted => Goal::Started { may_end: container.may_end },
                Condition::ServiceHealthy => Goal::Healthy,
                Condition::ServiceCompletedSuccessfully => Goal::Completed,
            };
            self.events.reach(self.engine, other, &container.id, goal, self.run.deadline)
        }))
        .await
        .map(drop)
    }

    async fn ready(&self, name: &ServiceName) -> Result<(), BackendError> {
        let awaited = self.wanted.project.project().is_awaited_by_completion(name);
        let started = self.services[name].iter().filter(|container| container.needs_start);
        try_join_all(started.map(|container| {
            let goal = if awaited { Goal::Completed } else { Goal::Ready { may_end: container.may_end } };
            self.events.reach(self.engine, name, &container.id, goal, self.run.deadline)
        }))
        .await
        .map(drop)
    }

    async fn start_one(&self, container: &Starting) -> Result<(), BackendError> {
        if let Some(old) = &container.stop_first {
            self.stop_one(old).await?;
        }
        if container.paused {
            let unpaused = self.engine.unpause(&container.id).await;
            return unpaused.map_err(|error| error.into_backend("unpausing a container"));
        }
        if container.restore_policy && container.restart != RestartPolicy::No {
            let policy = convert::restart_policy(container.restart);
            let restored = self.engine.set_restart_policy(&container.id, policy).await;
            restored.map_err(|error| error.into_backend("setting a restart policy"))?;
        }
        let mut started = self.engine.start(&container.id).await;
        let others = self.services.values().flatten().filter(|other| other.id != container.id);
        // One that only restarts has the ports that it had, and may run again already.
        let replaced = others.filter_map(|other| other.stop_first.as_ref().filter(|old| old.id != other.id));
        let replaced: Vec<_> = replaced.collect();
        if started.as_ref().is_err_and(is_port_in_use) && !replaced.is_empty() {
            // A port that moves from one service to another: its holder is about to be stopped anyway.
            try_join_all(replaced.into_iter().map(|old| self.stop_one(old))).await?;
            started = self.engine.start(&container.id).await;
        }
        started.map_err(|error| start_failure(error, &container.service))
    }

    async fn stop_one(&self, old: &StopFirst) -> Result<(), BackendError> {
        if let Some(name) = &old.name {
            let renamed = self.engine.rename(&old.id, name).await;
            renamed.map_err(|error| error.into_backend("renaming a container"))?;
        }
        let stopped = self.engine.stop_within(&old.id, patience(self.run)).await;
        stopped.map_err(|error| error.into_backend("stopping a container"))
    }
}

fn is_port_in_use(error: &EngineError) -> bool {
    match error {
        EngineError::NotFound(text) | EngineError::Conflict(text) | EngineError::Refused { message: text, .. } => {
            says_port_in_use(text)
        }
        EngineError::Timeout | EngineError::Unreachable(_) => false,
    }
}

fn says_port_in_use(message: &str) -> bool {
    message.contains("port is already allocated") || message.contains("address already in use")
}

/// Why a container could not be started, read from the engine's message because its status does not tell.
fn start_failure(error: EngineError, service: &ServiceName) -> BackendError {
    let text = match &error {
        EngineError::NotFound(message) | EngineError::Conflict(message) => message.clone(),
        EngineError::Refused { message, .. } => message.clone(),
        EngineError::Timeout | EngineError::Unreachable(_) => return error.into_backend("starting a container"),
    };
    tracing::warn!(%service, error = %text, "a container could not be started");
    let port = says_port_in_use(&text);
    if let (true, Some(port)) = (port, published_port(&text)) {
        return BackendError::PortTaken { service: service.clone(), port };
    }
    if text.contains("no space left on device") {
        return BackendError::NoSpace;
    }
    let what = if text.contains("executable file not found") || text.contains("no such file or directory") {
        "could not be started: its command was not found in the image"
    } else if text.contains("permission denied") {
        "could not be started: its command may not be executed"
    } else if port {
        "could not be started: one of its ports is in use"
    } else {
        "could not be started"
    };
    BackendError::ServiceExited {
        service: service.clone(),
        what: what.to_owned(),
        details: Box::new(FailureDetails::default()),
    }
}

/// The port in `Bind for 127.0.0.1:8080 failed: port is already allocated` and `listen tcp 127.0.0.1:8080: bind: …`.
fn published_port(message: &str) -> Option<u16> {
    let start = message.find("Bind for ").or_else(|| message.find("listen "))?;
    message[start..].split([' ', ',']).find_map(|word| word.trim_end_matches(':').rsplit_once(':')?.1.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_messages() {
        for (message, port) in [
            ("Bind for 127.0.0.1:8080 failed: port is already allocated", Some(8080)),
            ("Bind for :::80 failed: port is already allocated", Some(80)),
            (
                "driver failed programming external connectivity on endpoint x: Error starting userland proxy: listen tcp4 0.0.0.0:5000: bind: address already in use",
                Some(5000),
            ),
            ("something else", None),
        ] {
            assert_eq!(published_port(message), port, "{message}");
        }
    }
}

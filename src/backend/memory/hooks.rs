//! Hooks on the pretend engine: scripts that the pretend shell runs in a container.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::engine::Shared;
use super::shell::{Program, Shell, Unknown};
use super::supervisor::{Inside, Paper};
use crate::backend::BackendError;
use crate::backend::converge::RunState;
use crate::backend::hooks::{self, HookEnd, PreStop};
use crate::compose::Hook;
use crate::domain::{ContainerId, ServiceName};

/// Runs `post_start`, one after the other.
pub(super) async fn post_start(
    shared: &Arc<Shared>,
    service: &ServiceName,
    id: &ContainerId,
    post_start: &[Hook],
    deadline: Instant,
) -> Result<(), BackendError> {
    for (index, hook) in post_start.iter().enumerate() {
        match run(shared, id, hook, deadline).await? {
            Ended::With(end) => hooks::judge(service, index, end)?,
            Ended::NotInTime(output) => return Err(hooks::too_late(service, index, output)),
            Ended::NothingRuns => {
                let failure = shared.reachable()?.containers.get(id).map(super::container::Container::failure);
                return Err(hooks::ended_before(service, index, failure.unwrap_or_default()));
            }
        }
    }
    Ok(())
}

/// Runs `pre_stop`, until the deadline at most. Whatever becomes of it, the container may be stopped afterwards.
pub(super) async fn pre_stop(shared: &Arc<Shared>, id: &ContainerId, before: &PreStop, deadline: Option<Instant>) {
    let limit = Instant::now() + before.limit.min(LONGEST);
    let limit = deadline.map_or(limit, |deadline| limit.min(deadline));
    for (index, hook) in before.hooks.iter().enumerate() {
        match run(shared, id, hook, limit).await {
            Ok(Ended::With(HookEnd { code: 0, .. }) | Ended::NothingRuns) => {}
            Ok(Ended::With(HookEnd { code, .. })) => {
                tracing::warn!(container = %id, index, code, "a pre_stop hook failed");
            }
            Ok(Ended::NotInTime(_)) => {
                tracing::warn!(container = %id, index, "a pre_stop hook took too long");
                return;
            }
            Err(error) => tracing::warn!(container = %id, index, %error, "a pre_stop hook could not run"),
        }
    }
}

/// No hook of a container that is removed without a deadline takes longer.
const LONGEST: Duration = Duration::from_hours(1);

enum Ended {
    With(HookEnd),
    NotInTime(Vec<String>),
    /// The container does not run.
    NothingRuns,
}

async fn run(shared: &Arc<Shared>, id: &ContainerId, hook: &Hook, deadline: Instant) -> Result<Ended, BackendError> {
    let mut environment = {
        let state = shared.reachable()?;
        match state.containers.get(id) {
            Some(container) if container.state == RunState::Running => container.environment.clone(),
            _ => return Ok(Ended::NothingRuns),
        }
    };
    for (name, value) in &hook.environment {
        match value {
            Some(value) => environment.insert(name.clone(), value.clone()),
            None => environment.remove(name),
        };
    }
    let inside = Inside::new(Arc::downgrade(shared), id.clone(), hook.working_dir.clone());
    let paper = Paper::new(&inside);
    let program = Program::of_words(&hook.command, Unknown::Succeeds);
    let code = timeout_at(deadline, Shell::new(&paper, environment).run(&program)).await;
    let output = paper.lines();
    Ok(match code {
        Ok(code) => Ended::With(HookEnd { code, output }),
        Err(_) => Ended::NotInTime(output),
    })
}

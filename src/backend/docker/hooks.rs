//! Hooks on the engine: commands executed in a running container.

use std::time::Duration;

use bollard::models::ExecConfig;
use futures::StreamExt as _;
use tokio::time::{Instant, sleep, timeout_at};

use super::details;
use super::engine::{Engine, EngineError};
use super::gate::{self, Checked};
use crate::backend::BackendError;
use crate::backend::hooks::{self, HookEnd, PreStop};
use crate::compose::Hook;
use crate::domain::{ContainerId, ServiceName};
use crate::policy::Profile;

/// How often a command whose output has ended is asked for its exit code.
const POLL: Duration = Duration::from_millis(20);
/// What is kept of a command's output while it runs.
const KEPT_LINES: usize = 40;

/// Runs `post_start`, one after the other.
pub(super) async fn post_start(
    engine: &Engine,
    profile: Profile,
    service: &ServiceName,
    (id, post_start): (&ContainerId, &[Hook]),
    deadline: Instant,
) -> Result<(), BackendError> {
    for (index, hook) in post_start.iter().enumerate() {
        let mut output = Vec::new();
        let command = gate::command(profile, command(hook))?;
        match timeout_at(deadline, run(engine, id, command, &mut output)).await {
            Ok(Ok(code)) => hooks::judge(service, index, HookEnd { code, output: details::tail(&output) })?,
            Ok(Err(EngineError::Conflict(message))) => {
                tracing::info!(%service, %message, "a hook could not run");
                let container =
                    engine.inspect(id).await.map_err(|error| error.into_backend("inspecting a container"))?;
                return Err(hooks::ended_before(service, index, details::of(engine, id, &container).await));
            }
            Ok(Err(error)) => return Err(error.into_backend("running a hook")),
            Err(_) => return Err(hooks::too_late(service, index, details::tail(&output))),
        }
    }
    Ok(())
}

/// Runs `pre_stop`, for at most so long. Whatever becomes of it, the container may be stopped afterwards.
pub(super) async fn pre_stop(
    engine: &Engine,
    profile: Profile,
    service: &ServiceName,
    (id, before): (&ContainerId, &PreStop),
    limit: Duration,
) {
    if before.hooks.is_empty() {
        return;
    }
    let deadline = Instant::now() + before.limit.min(limit);
    for (index, hook) in before.hooks.iter().enumerate() {
        let mut output = Vec::new();
        // What was refused is in the log already.
        let Ok(command) = gate::command(profile, command(hook)) else { continue };
        match timeout_at(deadline, run(engine, id, command, &mut output)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(code)) => tracing::warn!(%service, index, code, "a pre_stop hook failed"),
            Ok(Err(error)) => tracing::warn!(%service, index, %error, "a pre_stop hook could not run"),
            Err(_) => {
                tracing::warn!(%service, index, "a pre_stop hook took too long");
                return;
            }
        }
    }
}

/// The request for a hook.
pub(super) fn command(hook: &Hook) -> ExecConfig {
    let environment = hook.environment.iter();
    let environment: Vec<String> = environment
        .map(|(name, value)| value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")))
        .collect();
    ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(hook.command.clone()),
        env: Some(environment),
        user: hook.user.clone(),
        privileged: Some(hook.privileged),
        working_dir: hook.working_dir.clone(),
        ..Default::default()
    }
}

/// Runs one command to its end and gives its exit code.
async fn run(
    engine: &Engine,
    id: &ContainerId,
    config: Checked<ExecConfig>,
    output: &mut Vec<String>,
) -> Result<i64, EngineError> {
    let exec = engine.create_exec(id, config).await?;
    let mut printed = std::pin::pin!(engine.start_exec(&exec).await?);
    while let Some(piece) = printed.next().await {
        let bytes = piece?.into_bytes();
        output.extend(String::from_utf8_lossy(&bytes).lines().map(str::to_owned));
        output.drain(..output.len().saturating_sub(KEPT_LINES));
    }
    loop {
        if let Some(code) = engine.exec_exit_code(&exec).await? {
            return Ok(code);
        }
        sleep(POLL).await;
    }
}

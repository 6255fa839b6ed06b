//! Renaming a container, whatever it is doing.

use std::time::Duration;

use super::engine::{Engine, EngineError};
use crate::domain::{ContainerId, ContainerName};

/// How often it is tried while a container ends again and again, and the pause between two attempts.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(50);
/// What ends again and again anyway gets so long to end by itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long after an end the engine may still be about to start it again: its pauses are a minute at most.
const LOOP: Duration = Duration::from_secs(120);

/// What becomes of a container that had to be stopped for its renaming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It runs on.
    Started,
    /// It was to be stopped anyway.
    Stopped,
}

/// Gives a container another name. The engine cannot do that while one waits to be started again, up to a minute ("sandbox not
/// found"). So such a one is stopped, which ends the wait, and started under its new name: that is what it has waited for. To
/// rename it while it runs would not do, because it may end at once.
pub(super) async fn rename(
    engine: &Engine,
    id: &ContainerId,
    name: &ContainerName,
    then: Then,
) -> Result<(), EngineError> {
    let mut renamed = engine.rename(id, name).await;
    let may_wait = match &renamed {
        Err(EngineError::NotFound(_)) => true,
        Err(error @ EngineError::Refused { .. }) => !error.is_no_space(),
        _ => false,
    };
    if !may_wait || !is_in_a_loop(engine, id).await {
        return renamed;
    }
    for _ in 0..ATTEMPTS {
        engine.stop_within(id, PATIENCE).await?;
        renamed = engine.rename(id, name).await;
        if renamed.is_ok() {
            break;
        }
        // It was about to be started when it was stopped.
        tokio::time::sleep(PAUSE).await;
    }
    if then == Then::Stopped && renamed.is_ok() {
        return Ok(());
    }
    match engine.start(id).await {
        Err(error @ (EngineError::Timeout | EngineError::Unreachable(_))) => renamed.and(Err(error)),
        Err(error) => {
            tracing::info!(container = %name, %error, "what ends again and again could not be started under its name");
            renamed
        }
        Ok(()) => renamed,
    }
}

/// Whether the engine has just started it again after it had ended, or is about to. At this moment it may be either.
async fn is_in_a_loop(engine: &Engine, id: &ContainerId) -> bool {
    let Ok(container) = engine.inspect(id).await else { return false };
    let Some(state) = container.state.filter(|state| state.running == Some(true)) else { return false };
    let again = container.restart_count.is_some_and(|count| count > 0);
    let ended = state.finished_at.and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let lately = ended.is_some_and(|ended| ended + LOOP > jiff::Timestamp::now());
    state.restarting == Some(true) || again && lately
}

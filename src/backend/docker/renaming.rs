//! Renaming a container, whatever it is doing.

use std::time::Duration;

use super::engine::{Engine, EngineError};
use crate::domain::{ContainerId, ContainerName};

/// How often it is tried while a container ends again and again, and the pause between two attempts.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(50);
/// What ends again and again anyway gets so long to end by itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// Gives a container another name. The engine cannot do that while one waits to be started again, up to a minute ("sandbox not
/// found"). So such a one is stopped, which ends the wait, and started under its new name: that is what it has waited for. To
/// rename it while it runs would not do, because it may end at once.
pub(super) async fn rename(engine: &Engine, id: &ContainerId, name: &ContainerName) -> Result<(), EngineError> {
    let mut renamed = engine.rename(id, name).await;
    let may_wait = matches!(renamed, Err(EngineError::NotFound(_) | EngineError::Refused { .. }));
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
    // What cannot be started has ended, which it would anyway.
    engine.start(id).await.ok();
    renamed
}

/// Whether the engine has started it again after it had ended, or is about to. At this moment it may be either.
async fn is_in_a_loop(engine: &Engine, id: &ContainerId) -> bool {
    let Ok(container) = engine.inspect(id).await else { return false };
    let waits = container.state.is_some_and(|state| state.restarting == Some(true));
    waits || container.restart_count.is_some_and(|count| count > 0)
}

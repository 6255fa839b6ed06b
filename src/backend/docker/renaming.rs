//! Renaming a container, whatever it is doing.

use std::time::Duration;

use super::engine::{Engine, EngineError};
use crate::domain::{ContainerId, ContainerName};

/// How often it is tried while a container ends again and again.
const ATTEMPTS: usize = 5;
/// What ends again and again anyway gets so long to end by itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// Gives a container another name. The engine cannot do that while one waits to be started again, up to a minute ("sandbox not
/// found"): it is started at once then, which is what it waits for.
pub(super) async fn rename(engine: &Engine, id: &ContainerId, name: &ContainerName) -> Result<(), EngineError> {
    let mut attempt = 1;
    loop {
        match engine.rename(id, name).await {
            Err(_) if attempt < ATTEMPTS && is_restarting(engine, id).await => {
                attempt += 1;
                // A start alone does not end the wait. What cannot be started has ended, which will do for a rename.
                engine.stop_within(id, PATIENCE).await?;
                engine.start(id).await.ok();
            }
            done => return done,
        }
    }
}

/// Whether it has ended and the engine is about to start it again.
async fn is_restarting(engine: &Engine, id: &ContainerId) -> bool {
    let state = engine.inspect(id).await.ok().and_then(|container| container.state);
    state.is_some_and(|state| state.restarting == Some(true))
}

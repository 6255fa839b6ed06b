//! Stops that somebody began and nobody waits for any more.
//!
//! The engine goes on with a stop when its caller is gone: because another service failed meanwhile, the deadline passed
//! or the agent was killed. Until its grace period is over such a container looks like any other that runs. Whoever wants
//! it to run must let it end first and start it then.
//!
//! A container that is replaced tells by its name (`Container::stopping_name`). For one that stops in place there are only
//! this process' own memory and the engine's, which is short: it keeps its last 256 events.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::try_join_all;

use super::engine::{Engine, EngineError};
use super::observe::{Container, State};
use crate::domain::ContainerId;

/// The engine's grace period for containers that say nothing.
const DEFAULT_GRACE_S: i64 = 10;
/// How much longer than its grace period the end of a container may take on a busy host.
const SLACK_S: i64 = 10;
/// How long a container that was told to stop may take until it is killed, to be started again.
pub(super) const LAST_STOP: Duration = Duration::from_mins(1);
/// The longest time back that signals are looked for.
const LOOK_BACK: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// Waits until those of the containers that are being stopped have ended; gives these.
pub(super) async fn await_stops(
    engine: &Engine,
    containers: impl Iterator<Item = &Container>,
) -> Result<BTreeSet<ContainerId>, EngineError> {
    let up: Vec<&ContainerId> = containers
        .filter(|container| matches!(container.state, State::Running | State::Restarting | State::Paused))
        .map(|container| &container.id)
        .collect();
    if up.is_empty() {
        return Ok(BTreeSet::new());
    }
    let now = jiff::Timestamp::now();
    // Only these tell of a stop that an earlier run of the agent began.
    let signals = engine.signalled(&up, now - LOOK_BACK).await?;
    let signals = &signals;
    let ended = try_join_all(up.into_iter().map(|id| async move {
        let last = signals.iter().filter(|(other, _)| other == id).map(|(_, time)| *time).max();
        let stopping = engine.is_stopping(id)
            || match last {
                Some(time) => is_within_grace(engine, id, time, now).await?,
                None => false,
            };
        if stopping {
            tracing::info!(container = %id, "it is being stopped; waiting for its end");
            // A second stop returns when the container has ended, whoever ended it.
            engine.stop_within(id, LAST_STOP).await?;
        }
        Ok::<_, EngineError>(stopping.then(|| id.clone()))
    }))
    .await?;
    Ok(ended.into_iter().flatten().collect())
}

/// Whether a signal of that time may have been the beginning of a stop that is not over. An older one was something else,
/// such as a wish to read the configuration again.
async fn is_within_grace(
    engine: &Engine,
    id: &ContainerId,
    signalled: jiff::Timestamp,
    now: jiff::Timestamp,
) -> Result<bool, EngineError> {
    let details = match engine.inspect(id).await {
        Ok(details) => details,
        Err(EngineError::NotFound(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    let started = details.state.and_then(|state| state.started_at?.parse::<jiff::Timestamp>().ok());
    let grace = details.config.and_then(|config| config.stop_timeout).unwrap_or(DEFAULT_GRACE_S);
    let since_start = started.is_none_or(|started| started <= signalled);
    Ok(since_start && now.as_second() - signalled.as_second() <= grace.saturating_add(SLACK_S))
}

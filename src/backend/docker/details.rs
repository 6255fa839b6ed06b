//! What a failed container leaves behind, read before undoing removes it.

use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerState};

use super::engine::Engine;
use super::logs;
use crate::backend::FailureDetails;
use crate::domain::ContainerId;

const LOG_LINES: u32 = 20;
const LOG_BYTES: usize = 4096;
const HEALTH_BYTES: usize = 1024;

/// Exit code, last health output and last log lines; what cannot be read in two seconds is left out.
pub(super) async fn of(engine: &Engine, id: &ContainerId, container: &ContainerInspectResponse) -> FailureDetails {
    let state = container.state.as_ref();
    let ended = state.is_some_and(|state| !state.running.unwrap_or(false) || state.restarting.unwrap_or(false));
    let health_output = state.and_then(|state| health_output(state, HEALTH_BYTES));
    let tty = container.config.as_ref().and_then(|config| config.tty).unwrap_or(false);
    let logs = tokio::time::timeout(Duration::from_secs(2), last_lines(engine, id, tty)).await.unwrap_or_default();
    FailureDetails { exit_code: state.filter(|_| ended).and_then(|state| state.exit_code), health_output, logs }
}

/// What the last healthcheck said, at most so many bytes of it.
pub(super) fn health_output(state: &ContainerState, bytes: usize) -> Option<String> {
    let check = state.health.as_ref()?.log.as_ref()?.last()?;
    Some(clip(check.output.as_deref()?.trim(), bytes)).filter(|output| !output.is_empty())
}

async fn last_lines(engine: &Engine, id: &ContainerId, tty: bool) -> Vec<String> {
    let window = logs::Window::last(LOG_LINES);
    let Ok(mut reading) = logs::Reading::open(engine, id, tty, &window).await else { return Vec::new() };
    let mut lines = Vec::new();
    while let Some(Ok(batch)) = reading.next().await {
        lines.extend(batch.into_iter().map(|piece| String::from_utf8_lossy(&piece.line).into_owned()));
    }
    tail(&lines)
}

/// The last lines that fit into a failure's details.
pub(super) fn tail(lines: &[String]) -> Vec<String> {
    let mut room = LOG_BYTES;
    let mut kept: Vec<String> = Vec::new();
    for line in lines.iter().rev().take(LOG_LINES as usize) {
        if room == 0 {
            break;
        }
        let line = clip(line, room);
        room -= line.len();
        kept.push(line);
    }
    kept.reverse();
    kept
}

/// At most so many bytes, cut between characters.
fn clip(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

//! The task behind every running pretend container: its program, its signals, its healthcheck, its restarts.
//!
//! ```text
//!  Created ──start──▶ Running ──program ends──▶ Exited
//!                      ▲   │                      ▲
//!                      │   └─restart policy─▶ Restarting
//!                      └────────back-off──────────┘ stop
//! ```

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::container::{Check, Container, Files, Signal, Store};
use super::engine::{Shared, State};
use super::shell::{Flow, Program, Shell, World};
use crate::backend::converge::RunState;
use crate::backend::{Ended, LogStreamKind};
use crate::domain::{ContainerId, Health};

/// Back-off of restarts: doubles from the first to the last, and begins anew after a run of [`LONG_RUN`] (Docker
/// Engine's numbers).
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LAST_BACK_OFF: Duration = Duration::from_mins(1);
const LONG_RUN: Duration = Duration::from_secs(10);

/// The longest file a script can write.
const MAX_FILE: usize = 64 * 1024;

/// Exit code of a program that SIGKILL ended.
const KILLED: i64 = 137;

/// Runs the container until it has exited for good.
pub(super) async fn supervise(shared: Weak<Shared>, id: ContainerId, run: u64, mut signals: UnboundedReceiver<Signal>) {
    let myself = Myself { shared: &shared, id: &id, run };
    let mut back_off = FIRST_BACK_OFF;
    loop {
        let began = Instant::now();
        let Some(job) = Job::of(&shared, &id) else { return };
        let world = Inside::new(shared.clone(), id.clone(), None);
        let shell = Shell::new(&world, job.environment.clone());
        let code = tokio::select! {
            biased;
            code = obey(&mut signals, &shell, &job.stop_signal) => code,
            code = shell.run(&job.program) => code,
            never = check_health(&world, &job) => match never {},
        };
        if began.elapsed() >= LONG_RUN {
            back_off = FIRST_BACK_OFF;
        }
        let Some(at) = shared.upgrade().map(|engine| engine.stamp(&mut engine.lock())) else { return };
        let again = myself.change(|container| {
            let again = container.restarts_after(code);
            let ended = Ended {
                tenant: container.owner.subdomain.clone(),
                service: container.service.clone(),
                container: container.id.clone(),
                code,
                at,
                requested: container.stopped,
            };
            if let Some(engine) = shared.upgrade() {
                engine.tell_end(ended);
            }
            if again {
                container.state = RunState::Restarting;
                container.last_exit = Some(code);
                container.health = Health::None;
            } else {
                container.end(code);
            }
            again
        });
        if again != Some(true) {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(back_off) => {}
            _ = signals.recv() => {
                myself.change(|container| container.end(code));
                return;
            }
        }
        back_off = (back_off * 2).min(LAST_BACK_OFF);
        let Some(engine) = shared.upgrade() else { return };
        let time = engine.stamp(&mut engine.lock());
        drop(engine);
        myself.change(|container| {
            container.restarts += 1;
            container.begin(time);
        });
    }
}

/// What one run of the container needs.
struct Job {
    program: Program,
    environment: std::collections::BTreeMap<String, String>,
    stop_signal: String,
    check: Option<Check>,
}

impl Job {
    fn of(shared: &Weak<Shared>, id: &ContainerId) -> Option<Self> {
        let shared = shared.upgrade()?;
        let state = shared.lock();
        let container = state.containers.get(id)?;
        Some(Self {
            program: container.program.clone(),
            environment: container.environment.clone(),
            stop_signal: container.stop_signal.clone(),
            check: container.check.clone(),
        })
    }
}

/// The run of a container that a task speaks for.
struct Myself<'a> {
    shared: &'a Weak<Shared>,
    id: &'a ContainerId,
    run: u64,
}

impl Myself<'_> {
    fn change<T>(&self, work: impl FnOnce(&mut Container) -> T) -> Option<T> {
        let shared = self.shared.upgrade()?;
        let mut state = shared.lock();
        let container = state.containers.get_mut(self.id).filter(|container| container.run == self.run);
        let result = container.map(work);
        drop(state);
        shared.ring();
        result
    }
}

/// Waits for signals and gives the exit code of the one that ends the program.
async fn obey(signals: &mut UnboundedReceiver<Signal>, shell: &Shell<'_, Inside>, stop_signal: &str) -> i64 {
    let (name, number) = signal_number(stop_signal);
    while let Some(signal) = signals.recv().await {
        if signal == Signal::Kill || number == 9 {
            return KILLED;
        }
        match shell.signal(name).await {
            None => return 128 + number,
            Some(Flow::Exit(code)) => return code,
            Some(Flow::Status(_)) => {}
        }
    }
    // Without a sender nobody can stop it any more; the task is aborted when its container goes.
    std::future::pending().await
}

/// Name without `SIG` and number, for the signals that people stop containers with; anything else counts as SIGTERM.
fn signal_number(text: &str) -> (&'static str, i64) {
    match text.strip_prefix("SIG").unwrap_or(text) {
        "HUP" | "1" => ("HUP", 1),
        "INT" | "2" => ("INT", 2),
        "QUIT" | "3" => ("QUIT", 3),
        "KILL" | "9" => ("KILL", 9),
        "USR1" | "10" => ("USR1", 10),
        "USR2" | "12" => ("USR2", 12),
        _ => ("TERM", 15),
    }
}

async fn check_health(inside: &Inside, job: &Job) -> Infallible {
    let Some(check) = &job.check else { return std::future::pending().await };
    let began = Instant::now();
    let (mut failures, mut was_healthy) = (0, false);
    loop {
        let starting = began.elapsed() < check.start_period;
        tokio::time::sleep(if starting { check.start_interval } else { check.interval }).await;
        let starting = began.elapsed() < check.start_period && !was_healthy;
        let paper = Paper::new(inside);
        let shell = Shell::new(&paper, job.environment.clone());
        let result = tokio::time::timeout(check.timeout, shell.run(&check.program)).await;
        let mut output = paper.text();
        if result.is_err() {
            output = format!("the check took longer than {:?}", check.timeout);
        }
        let health = if result == Ok(0) {
            failures = 0;
            was_healthy = true;
            Some(Health::Healthy)
        } else {
            failures += u32::from(!starting);
            (failures >= check.retries).then_some(Health::Unhealthy)
        };
        let Some(shared) = inside.shared.upgrade() else { return std::future::pending().await };
        let mut state = shared.lock();
        let Some(container) = state.containers.get_mut(&inside.id) else { continue };
        container.health_output = Some(output);
        let changed = health.is_some_and(|health| std::mem::replace(&mut container.health, health) != health);
        drop(state);
        if changed {
            shared.ring();
        }
    }
}

/// The container as its own program sees it.
pub(super) struct Inside {
    shared: Weak<Shared>,
    id: ContainerId,
    /// Where relative paths begin, if not in the container's own directory.
    directory: Option<String>,
}

impl Inside {
    pub(super) fn new(shared: Weak<Shared>, id: ContainerId, directory: Option<String>) -> Self {
        Self { shared, id, directory }
    }

    /// The files around a path, and the path's name among them.
    fn files<T>(&self, path: &str, work: impl FnOnce(&mut Files, String) -> T) -> Option<T> {
        let shared = self.shared.upgrade()?;
        let mut state = shared.lock();
        let State { containers, volumes, directories, .. } = &mut *state;
        let container = containers.get_mut(&self.id)?;
        let below = self.directory.as_ref().filter(|_| !path.starts_with('/'));
        let path = below.map_or_else(|| path.to_owned(), |below| format!("{}/{path}", below.trim_end_matches('/')));
        let (store, name) = container.locate(&path);
        let files = match store {
            None => &mut container.files,
            Some(Store::Volume(volume)) => &mut volumes.get_mut(volume)?.files,
            Some(Store::Host(directory)) => directories.entry(directory.clone()).or_default(),
        };
        Some(work(files, name))
    }
}

impl World for Inside {
    fn print(&self, stream: LogStreamKind, line: &str) {
        if let Some(shared) = self.shared.upgrade() {
            Arc::as_ref(&shared).print(&self.id, stream, line);
        }
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.files(path, |files, name| files.get(&name).cloned())?
    }

    fn is_directory(&self, path: &str) -> bool {
        let below = |files: &mut Files, name: String| {
            let prefix = format!("{}/", name.trim_end_matches('/'));
            name.is_empty() || files.keys().any(|path| path.starts_with(&prefix))
        };
        path == "/" || self.files(path.trim_end_matches('/'), below).unwrap_or(false)
    }

    fn write(&self, path: &str, bytes: &[u8], append: bool) {
        self.files(path, |files, name| {
            let file = files.entry(name).or_default();
            if !append {
                file.clear();
            }
            let room = MAX_FILE.saturating_sub(file.len());
            file.extend_from_slice(&bytes[..bytes.len().min(room)]);
        });
    }

    fn delete(&self, path: &str) {
        self.files(path, |files, name| files.remove(&name));
    }
}

/// The container as its healthcheck or a hook sees it: the same files, but what is printed is its own output (4 KiB of
/// it).
pub(super) struct Paper<'a> {
    inside: &'a Inside,
    lines: Mutex<String>,
}

impl<'a> Paper<'a> {
    pub(super) fn new(inside: &'a Inside) -> Self {
        Self { inside, lines: Mutex::new(String::new()) }
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }
}

impl World for Paper<'_> {
    fn print(&self, _: LogStreamKind, line: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() + line.len() < 4096 {
            lines.push_str(line);
            lines.push('\n');
        }
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.inside.read(path)
    }

    fn is_directory(&self, path: &str) -> bool {
        self.inside.is_directory(path)
    }

    fn write(&self, path: &str, bytes: &[u8], append: bool) {
        self.inside.write(path, bytes, append);
    }

    fn delete(&self, path: &str) {
        self.inside.delete(path);
    }
}

//! `q8-agent serve`: settings, log, orchestrator, listener; then signals until the end.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::fail;
use crate::api::{self, ApiSettings, Limits, LiveTokens};
use crate::config::{Config, ConfigError, TokenSources};
use crate::orchestrator::{Orchestrator, StartError};
use crate::telemetry::{self, Metrics};

/// How long operations may go on after a stop was asked for; with closing everything it is less than 30 seconds.
const STOP_TIME: Duration = Duration::from_secs(25);

/// Descriptors that are for no connection: the tenants root, the engine's events, and those who are told that there is no
/// place for them.
const OWN_FILES: u64 = 128;
/// A connection may need one for itself and one to the engine.
const FILES_PER_CONNECTION: u64 = 2;

/// Why `serve` did not start.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the log cannot be set up: {0}")]
    Log(#[from] tracing_subscriber::util::TryInitError),
    #[error("the runtime cannot be started: {0}")]
    Runtime(std::io::Error),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: std::net::SocketAddr, error: std::io::Error },
}

/// Runs the agent. 0 after a graceful stop, 1 when it could not start or was stopped twice.
pub(super) fn run() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => fail("cannot start", error),
    }
}

/// How many threads wait for the disk at a time. By default there are 512, and a start with many tenants used them: each
/// keeps memory for some time.
const DISK_THREADS: usize = 16;

fn start() -> Result<ExitCode, ServeError> {
    harden();
    let config = Config::from_env(std::env::vars_os())?;
    telemetry::init(&config.log_filter, config.log_format)?;
    let metrics = Arc::<Metrics>::default();
    telemetry::log_panics(Arc::clone(&metrics));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().max_blocking_threads(DISK_THREADS).build().map_err(ServeError::Runtime)?;
    let code = runtime.block_on(serve(config, metrics));
    // What still runs has had its time, or has been told twice to end.
    runtime.shutdown_background();
    code
}

/// What the process never needs: files that others can read, memory in a core dump (it holds tokens and tenants'
/// secrets). And what it does need: a descriptor for each connection and each one to the engine.
fn harden() {
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Not allowed in some sandboxes; the agent works without.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
}

/// As many connections as there are descriptors for. Without any left the agent could not even say that it is full, and an
/// operation would fail half-way.
fn within_files(connections: usize, files: Option<u64>) -> usize {
    let room = files.map_or(u64::MAX, |files| files.saturating_sub(OWN_FILES) / FILES_PER_CONNECTION);
    let room = usize::try_from(room).unwrap_or(usize::MAX).max(1);
    if room < connections {
        tracing::warn!(room, connections, "fewer connections than allowed: the limit of open files (ulimit -n) is low");
    }
    connections.min(room)
}

async fn serve(config: Config, metrics: Arc<Metrics>) -> Result<ExitCode, ServeError> {
    let mut stops = StopSignals::new().map_err(ServeError::Signals)?;
    let mut hang_ups = signal(SignalKind::hangup()).map_err(ServeError::Signals)?;
    // Signals count from here on: opening may take a while, and stopping meanwhile is what the operator wants.
    let orchestrator = tokio::select! {
        opened = Orchestrator::open(&config, metrics) => opened?,
        () = stops.next() => return Ok(ExitCode::SUCCESS),
    };
    let address = config.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| ServeError::Listen { address, error })?;
    let tokens = LiveTokens::new(config.tokens);
    let (connections, connections_per_peer) = config.max_connections;
    let connections = within_files(connections, getrlimit(Resource::Nofile).current);
    let limits = Limits {
        max_body: config.max_body,
        connections,
        connections_per_peer,
        stop_time: STOP_TIME,
        ..Limits::default()
    };
    let settings = ApiSettings { tokens: tokens.clone(), limits };
    let stop = CancellationToken::new();
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), backend = %config.backend, "serving");

    let served = async {
        let operations = async {
            stop.cancelled().await;
            orchestrator.shutdown(STOP_TIME).await;
        };
        tokio::join!(api::serve(listener, settings, orchestrator.clone(), stop.clone()), operations);
    };
    tokio::pin!(served);
    loop {
        tokio::select! {
            () = &mut served => {
                tracing::info!("stopped");
                return Ok(ExitCode::SUCCESS);
            }
            _ = hang_ups.recv() => reload(&config.token_sources, &tokens),
            () = stops.next() => {
                if stop.is_cancelled() {
                    tracing::warn!("asked to stop a second time: ending at once");
                    return Ok(ExitCode::FAILURE);
                }
                tracing::info!("stopping");
                stop.cancel();
            }
        }
    }
}

/// On any mistake in the files the tokens that were good stay good.
fn reload(sources: &TokenSources, tokens: &LiveTokens) {
    match sources.load() {
        Ok(read) => {
            tokens.replace(read);
            tracing::info!("the token files have been read again");
        }
        Err(error) => tracing::error!(%error, "the tokens stay as they are"),
    }
}

/// The two signals that ask for an end.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::within_files;

    #[test]
    fn connections_leave_descriptors_for_the_work() {
        assert_eq!(within_files(1024, None), 1024);
        assert_eq!(within_files(1024, Some(1 << 20)), 1024);
        assert_eq!(within_files(1024, Some(1024)), 448);
        assert_eq!(within_files(16, Some(1024)), 16);
        assert_eq!(within_files(16, Some(10)), 1, "an agent that takes nobody is of no use");
    }
}

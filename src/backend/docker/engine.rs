//! The engine's calls as this room uses them: names already validated, failures already classified, every short call
//! under a deadline of its own so that an engine that hangs cannot hang the agent.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bollard::auth::DockerCredentials;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerInspectResponse, ContainerStatsResponse, ContainerSummary, ContainerUpdateBody, EventMessage, ExecConfig,
    ImageInspect, ImageSummary, Network, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
    NetworkInspect, RestartPolicy, SystemInfo, SystemVersion, Volume, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    ListImagesOptions, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, RemoveVolumeOptions, RenameContainerOptionsBuilder, StartContainerOptions,
    StatsOptionsBuilder, StopContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, Either, Empty, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::gate::{Checked, Connection, Creation, Ground};
use super::gates::ApiVersion;
use crate::backend::BackendError;
use crate::crash;
use crate::domain::{ContainerId, ContainerName, ImageRef, ObjectName};
use crate::telemetry::Metrics;

/// Deadline of a call that only reads.
const READ: Duration = Duration::from_secs(20);
/// Deadline of a question to a registry.
const REGISTRY: Duration = Duration::from_secs(60);
/// Deadline of a call that changes something and does not wait for a process to end.
const WRITE: Duration = Duration::from_secs(120);
/// Deadline of a call for which the engine walks through its disks.
const WALK: Duration = Duration::from_secs(900);
/// The longest answer, in bytes, that is taken where bollard does not read it.
const LONGEST_BODY: usize = 16 << 20;
/// Deadline of the liveness probe: health must answer within 5 seconds.
const PING: Duration = Duration::from_secs(4);
/// What bollard itself waits for response headers: longer than any stop grace period that an operation allows.
const CLIENT_TIMEOUT_S: u64 = 3600;

/// What happens to a container and shows in its state, name or existence. The engine compares a filter with the beginning
/// of an event's name as soon as `health_status` is in it, which has the health behind a colon.
const CHANGES: [&str; 11] =
    ["create", "start", "die", "oom", "kill", "health_status", "pause", "unpause", "rename", "update", "destroy"];

/// A failed engine call, classified as far as its status and transport tell.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("not found: {0}")]
    NotFound(String),
    #[error("conflict: {0}")]
    Conflict(String),
    #[error("refused with {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("no answer in time")]
    Timeout,
    #[error("not reachable: {0}")]
    Unreachable(String),
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                let message = without_quotes(&message);
                match status_code {
                    404 => Self::NotFound(message),
                    409 => Self::Conflict(message),
                    304 => Self::Refused { status: 304, message: "not modified".to_owned() },
                    status => Self::Refused { status, message },
                }
            }
            Error::DockerStreamError { error } => Self::Refused { status: 500, message: without_quotes(&error) },
            Error::RequestTimeoutError => Self::Timeout,
            other => Self::Unreachable(other.to_string()),
        }
    }
}

/// The engine quotes what it was given, such as the command that it could not find. That may be a tenant's variable, and
/// these messages are logged.
fn without_quotes(message: &str) -> String {
    let mut kept = String::with_capacity(message.len());
    let mut rest = message.chars();
    let mut quoted = false;
    while let Some(character) = rest.next() {
        match character {
            '"' => {
                kept.push_str(if quoted { "…\"" } else { "\"" });
                quoted = !quoted;
            }
            // Go writes a quote inside quotes so.
            '\\' if quoted => drop(rest.next()),
            _ if quoted => {}
            other => kept.push(other),
        }
    }
    kept
}

/// A request modifier that sends `body` with one member more: one that old engines want, and that bollard's models, which
/// are those of a newer API, do not have.
fn with_member<T: serde::Serialize>(
    name: &str,
    value: Value,
    body: &T,
) -> impl Fn(BollardRequest) -> BollardRequest + use<T> {
    let mut body = serde_json::to_value(body).expect("the engine's models serialise");
    body[name] = value;
    let text = body.to_string();
    move |request| request.map(|_| Either::Left(Full::new(text.clone().into())))
}

impl EngineError {
    /// The reason as metrics name it; none for what is no failure.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Refused { status: 304, .. } => None,
            Self::NotFound(_) => Some("not_found"),
            Self::Conflict(_) => Some("conflict"),
            Self::Refused { .. } => Some("refused"),
            Self::Timeout => Some("timeout"),
            Self::Unreachable(_) => Some("unreachable"),
        }
    }

    /// Whether a disk of the engine is full.
    pub(super) fn is_no_space(&self) -> bool {
        matches!(self, Self::Refused { message, .. } if message.contains("no space left on device"))
    }

    /// For the client: what happened, without the engine's own words, which may hold host paths. Those are logged here.
    pub(super) fn into_backend(self, doing: &str) -> BackendError {
        tracing::warn!(error = %self, doing, "engine call failed");
        match self {
            Self::Timeout | Self::Unreachable(_) => BackendError::Unavailable,
            error if error.is_no_space() => BackendError::NoSpace,
            _ => BackendError::Refused { message: format!("the engine refused {doing}") },
        }
    }
}

/// A command in a container, as the engine names it.
pub(super) struct ExecId(String);

impl ExecId {
    /// 64 hexadecimal digits: it becomes a part of request paths, which bollard does not escape.
    fn parse(text: String) -> Result<Self> {
        if text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit()) {
            Ok(Self(text))
        } else {
            Err(EngineError::Unreachable("the engine gave no command id".to_owned()))
        }
    }
}

/// What an engine is. It is asked once: an engine that is upgraded ends the agent's connections, but the new one still
/// speaks the old API, and the host stays what it is.
#[derive(Debug)]
struct Nature {
    api: ApiVersion,
    /// `os/arch`, if the engine tells.
    platform: Option<String>,
}

/// One Docker Engine behind a Unix socket.
pub(super) struct Engine {
    socket: PathBuf,
    ground: Ground,
    client: OnceLock<Docker>,
    nature: OnceLock<Nature>,
    /// Stops that were begun and whose end nobody has seen.
    stopping: Mutex<BTreeSet<ContainerId>>,
    metrics: Arc<Metrics>,
}

type Result<T> = std::result::Result<T, EngineError>;

/// One `GET` on a connection of its own, for answers that bollard cannot read. The path is a word of the source.
async fn get(socket: &Path, path: &'static str) -> Result<Bytes> {
    let failed = |error: &dyn std::fmt::Display| EngineError::Unreachable(error.to_string());
    let stream = UnixStream::connect(socket).await.map_err(|error| failed(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = hyper::Request::get(path).header(hyper::header::HOST, "localhost").body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.map_err(|error| failed(&error))?).await.map_err(|error| failed(&error))?;
    if !answer.status().is_success() {
        return Err(EngineError::Refused { status: answer.status().as_u16(), message: path.to_owned() });
    }
    let body = Limited::new(answer.into_body(), LONGEST_BODY).collect().await.map_err(|error| failed(&error))?;
    Ok(body.to_bytes())
}

/// A repeat of something that is done already is done.
fn done_if_unchanged(result: Result<()>) -> Result<()> {
    match result {
        Err(EngineError::Refused { status: 304, .. }) => Ok(()),
        other => other,
    }
}

/// What is gone already need not be removed.
fn done_if_gone(result: Result<()>) -> Result<()> {
    match result {
        Err(EngineError::NotFound(_)) => Ok(()),
        // "removal of container … is already in progress"
        Err(EngineError::Conflict(message)) if message.contains("already in progress") => Ok(()),
        other => other,
    }
}

impl Engine {
    pub(super) fn at(socket: PathBuf, ground: Ground) -> Self {
        let (client, nature, stopping) = (OnceLock::new(), OnceLock::new(), Mutex::default());
        Self { socket, ground, client, nature, stopping, metrics: Arc::default() }
    }

    /// Counts its calls there.
    #[must_use]
    pub(super) fn counting(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Where its calls are counted.
    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// A call under a deadline, counted under its name.
    async fn within<T>(
        &self,
        name: &'static str,
        limit: Duration,
        call: impl Future<Output = std::result::Result<T, Error>>,
    ) -> Result<T> {
        let begun = Instant::now();
        let result = match tokio::time::timeout(limit, call).await {
            Ok(result) => result.map_err(EngineError::from),
            Err(_) => Err(EngineError::Timeout),
        };
        self.count(name, begun, &result);
        result
    }

    /// A call that changes something on the engine, counted under the name of its crash points.
    async fn changing<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = std::result::Result<T, Error>>,
    ) -> Result<T> {
        crash::around(name, self.within(name, WRITE, call)).await
    }

    /// Counts a call that is not made through [`Self::within`].
    fn count<T>(&self, name: &'static str, begun: Instant, result: &Result<T>) {
        let failure = result.as_ref().err().and_then(EngineError::reason);
        self.metrics.engine_call(name, failure, begun.elapsed());
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the last gate goes by on this host.
    pub(super) fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The client; it can only be made once the socket exists, which may be later than the agent's start.
    pub(super) fn client(&self) -> Result<&Docker> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let path = self.socket.to_string_lossy();
        let begun = Instant::now();
        let made = Docker::connect_with_unix(&path, CLIENT_TIMEOUT_S, API_DEFAULT_VERSION).map_err(EngineError::from);
        if made.is_err() {
            self.count("connect", begun, &made);
        }
        let client = made?;
        Ok(self.client.get_or_init(|| client))
    }

    pub(super) async fn ping(&self) -> Result<()> {
        self.within("ping", PING, self.client()?.ping()).await.map(drop)
    }

    pub(super) async fn version(&self) -> Result<SystemVersion> {
        self.within("version", PING, self.client()?.version()).await
    }

    /// The newest API that the engine speaks.
    pub(super) async fn api_version(&self) -> Result<ApiVersion> {
        self.nature().await.map(|nature| nature.api)
    }

    /// The platform that the host runs natively, such as `linux/amd64`; none if the engine does not tell.
    pub(super) async fn platform(&self) -> Result<Option<&str>> {
        self.nature().await.map(|nature| nature.platform.as_deref())
    }

    async fn nature(&self) -> Result<&Nature> {
        if let Some(nature) = self.nature.get() {
            return Ok(nature);
        }
        let version = self.version().await?;
        let text = version.api_version.unwrap_or_default();
        let (major, minor) = text.split_once('.').unwrap_or_default();
        let api = (major.parse().unwrap_or(1), minor.parse().unwrap_or(0));
        let told = version.os.zip(version.arch).filter(|(os, arch)| !os.is_empty() && !arch.is_empty());
        let platform = told.map(|(os, arch)| format!("{os}/{arch}"));
        Ok(self.nature.get_or_init(|| Nature { api, platform }))
    }

    pub(super) async fn info(&self) -> Result<SystemInfo> {
        self.within("info", READ, self.client()?.info()).await
    }

    // --- containers ---

    pub(super) async fn containers(&self, filters: &HashMap<String, Vec<String>>) -> Result<Vec<ContainerSummary>> {
        let options = ListContainersOptionsBuilder::new().all(true).filters(filters).build();
        self.within("containers", READ, self.client()?.list_containers(Some(options))).await
    }

    pub(super) async fn inspect(&self, id: &ContainerId) -> Result<ContainerInspectResponse> {
        self.within("inspect", READ, self.client()?.inspect_container(id.as_str(), None::<InspectContainerOptions>))
            .await
    }

    pub(super) async fn inspect_named(&self, name: &ContainerName) -> Result<ContainerInspectResponse> {
        self.within(
            "inspect_named",
            READ,
            self.client()?.inspect_container(name.as_str(), None::<InspectContainerOptions>),
        )
        .await
    }

    pub(super) async fn create(&self, creation: Checked<Creation>) -> Result<ContainerId> {
        let Creation { name, platform, image_id: _, body, mac_address } = creation.into_inner();
        let mut options = CreateContainerOptionsBuilder::new().name(name.as_str());
        if let Some(platform) = &platform {
            options = options.platform(platform);
        }
        let mut client = self.client()?.clone();
        if let Some(address) = mac_address {
            client = client.with_request_modifier(with_member("MacAddress", Value::String(address), &body));
        }
        let created = self.changing("create", Box::pin(client.create_container(Some(options.build()), body))).await?;
        ContainerId::parse(&created.id)
            .map_err(|_| EngineError::Unreachable("the engine gave no container id".to_owned()))
    }

    pub(super) async fn start(&self, id: &ContainerId) -> Result<()> {
        done_if_unchanged(
            self.changing("start", self.client()?.start_container(id.as_str(), None::<StartContainerOptions>)).await,
        )
    }

    pub(super) async fn unpause(&self, id: &ContainerId) -> Result<()> {
        self.changing("unpause", self.client()?.unpause_container(id.as_str())).await
    }

    /// Asks the main process to end and waits as long as the container's own stop timeout says, or `seconds`. The engine
    /// goes on with it when the caller does not wait for the end (see `pending`).
    pub(super) async fn stop(&self, id: &ContainerId, seconds: Option<i32>) -> Result<()> {
        let mut options = StopContainerOptionsBuilder::new();
        if let Some(seconds) = seconds {
            options = options.t(seconds);
        }
        let call = self.client()?.stop_container(id.as_str(), Some(options.build()));
        self.stopping().insert(id.clone());
        let begun = Instant::now();
        let stopped = crash::around("stop", call).await.map_err(EngineError::from);
        self.count("stop", begun, &stopped);
        let stopped = done_if_gone(done_if_unchanged(stopped));
        if !matches!(stopped, Err(EngineError::Timeout | EngineError::Unreachable(_))) {
            self.stopping().remove(id);
        }
        stopped
    }

    /// Whether a stop of this container was begun whose end nobody has seen.
    pub(super) fn is_stopping(&self, id: &ContainerId) -> bool {
        self.stopping().contains(id)
    }

    fn stopping(&self) -> std::sync::MutexGuard<'_, BTreeSet<ContainerId>> {
        self.stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the main process to end and, if it has not done so within this time, kills it: a stop timeout is the tenant's to
    /// choose, and no tenant can choose not to be stopped.
    pub(super) async fn stop_within(&self, id: &ContainerId, limit: Duration) -> Result<()> {
        match tokio::time::timeout(limit, self.stop(id, None)).await {
            Ok(stopped) => stopped,
            Err(_) => match tokio::time::timeout(WRITE, self.stop(id, Some(0))).await {
                Ok(stopped) => stopped,
                Err(_) => Err(EngineError::Timeout),
            },
        }
    }

    pub(super) async fn set_restart_policy(&self, id: &ContainerId, policy: RestartPolicy) -> Result<()> {
        let body = ContainerUpdateBody { restart_policy: Some(policy), ..Default::default() };
        self.changing("set_restart_policy", self.client()?.update_container(id.as_str(), body)).await
    }

    pub(super) async fn rename(&self, id: &ContainerId, to: &ContainerName) -> Result<()> {
        let options = RenameContainerOptionsBuilder::new().name(to.as_str()).build();
        match self.changing("rename", self.client()?.rename_container(id.as_str(), options)).await {
            // "Renaming a container with the same name as its current name"
            Err(EngineError::Refused { status: 400, message }) if message.contains("as its current name") => Ok(()),
            other => other,
        }
    }

    /// Removes a container, running or not, with the anonymous volumes that were made with it and that nobody else uses:
    /// they go in the same call, whatever becomes of its answer. Named volumes stay, and so do anonymous ones that it has
    /// inherited, which the engine takes for named.
    pub(super) async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        done_if_gone(
            self.changing("remove_container", self.client()?.remove_container(id.as_str(), Some(options))).await,
        )?;
        self.stopping().remove(id);
        Ok(())
    }

    // --- commands in containers ---

    pub(super) async fn create_exec(&self, id: &ContainerId, config: Checked<ExecConfig>) -> Result<ExecId> {
        let created =
            self.changing("create_exec", self.client()?.create_exec(id.as_str(), config.into_inner())).await?;
        ExecId::parse(created.id)
    }

    /// Runs the command; the stream ends with it. The command goes on when nobody reads.
    pub(super) async fn start_exec(
        &self,
        exec: &ExecId,
    ) -> Result<impl Stream<Item = std::result::Result<LogOutput, Error>> + use<>> {
        let options = StartExecOptions { detach: false, tty: false, output_capacity: None };
        match self.changing("start_exec", self.client()?.start_exec(&exec.0, Some(options))).await? {
            StartExecResults::Attached { output, .. } => Ok(output),
            StartExecResults::Detached => Err(EngineError::Unreachable("the engine gave no output".to_owned())),
        }
    }

    /// The command's exit code; none while it runs.
    pub(super) async fn exec_exit_code(&self, exec: &ExecId) -> Result<Option<i64>> {
        let found = self.within("exec_exit_code", READ, self.client()?.inspect_exec(&exec.0)).await?;
        Ok(found.exit_code.filter(|_| found.running != Some(true)))
    }

    // --- networks ---

    pub(super) async fn networks(&self, filters: Option<&HashMap<String, Vec<String>>>) -> Result<Vec<Network>> {
        let mut options = ListNetworksOptionsBuilder::new();
        if let Some(filters) = filters {
            options = options.filters(filters);
        }
        self.within("networks", READ, self.client()?.list_networks(Some(options.build()))).await
    }

    pub(super) async fn inspect_network(&self, name: &ObjectName) -> Result<NetworkInspect> {
        self.inspect_network_by(name.as_str()).await
    }

    /// By name or id.
    pub(super) async fn inspect_network_by(&self, key: &str) -> Result<NetworkInspect> {
        let options = None::<bollard::query_parameters::InspectNetworkOptions>;
        self.within("inspect_network", READ, self.client()?.inspect_network(key, options)).await
    }

    pub(super) async fn create_network(&self, body: Checked<NetworkCreateRequest>) -> Result<String> {
        let body = body.into_inner();
        // Before API 1.44 the engine makes two networks of one name unless it is told not to.
        let client = self.client()?.clone();
        let client = client.with_request_modifier(with_member("CheckDuplicate", Value::Bool(true), &body));
        self.changing("create_network", client.create_network(body)).await.map(|created| created.id)
    }

    pub(super) async fn remove_network(&self, id: &str) -> Result<()> {
        done_if_gone(self.changing("remove_network", self.client()?.remove_network(id)).await)
    }

    pub(super) async fn connect(&self, connection: Checked<Connection>) -> Result<()> {
        let Connection { network, container, endpoint } = connection.into_inner();
        let body = NetworkConnectRequest { container: container.into(), endpoint_config: Some(endpoint) };
        self.changing("connect", self.client()?.connect_network(&network, body)).await
    }

    pub(super) async fn disconnect(&self, network: &str, id: &ContainerId) -> Result<()> {
        self.release(network, id.as_str()).await
    }

    /// Takes a container, or the endpoint that one of this name has left behind, off a network.
    pub(super) async fn release(&self, network: &str, container: &str) -> Result<()> {
        let body = NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
        match done_if_gone(self.changing("disconnect", self.client()?.disconnect_network(network, body)).await) {
            // "container … is not connected to the network …": with 500, 403 or 404, depending on the version and on
            // whether the container runs.
            Err(EngineError::Refused { message, .. }) if message.contains("is not connected to") => Ok(()),
            other => other,
        }
    }

    // --- volumes ---

    pub(super) async fn volumes(&self, filters: &HashMap<String, Vec<String>>) -> Result<Vec<Volume>> {
        let options = ListVolumesOptionsBuilder::new().filters(filters).build();
        let listed = self.within("volumes", READ, self.client()?.list_volumes(Some(options))).await?;
        Ok(listed.volumes.unwrap_or_default())
    }

    pub(super) async fn inspect_volume(&self, name: &ObjectName) -> Result<Volume> {
        self.within("inspect_volume", READ, self.client()?.inspect_volume(name.as_str())).await
    }

    pub(super) async fn create_volume(&self, body: Checked<VolumeCreateRequest>) -> Result<Volume> {
        self.changing("create_volume", self.client()?.create_volume(body.into_inner())).await
    }

    pub(super) async fn remove_volume(&self, name: &ObjectName) -> Result<()> {
        done_if_gone(
            self.changing("remove_volume", self.client()?.remove_volume(name.as_str(), None::<RemoveVolumeOptions>))
                .await,
        )
    }

    // --- usage ---

    /// What a container uses now. With `one-shot` the engine takes one sample instead of two a second apart (API 1.41).
    pub(super) async fn stats(&self, id: &ContainerId) -> Result<ContainerStatsResponse> {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let stats = std::pin::pin!(self.client()?.stats(id.as_str(), Some(options)));
        let first = self.within("stats", READ, stats.into_future().map(|(first, _)| first.transpose())).await?;
        first.ok_or_else(|| EngineError::Unreachable("the engine gave no stats".to_owned()))
    }

    /// The images that it holds.
    pub(super) async fn images(&self) -> Result<Vec<ImageSummary>> {
        self.within("images", READ, self.client()?.list_images(None::<ListImagesOptions>)).await
    }

    /// The sizes of its volumes, which it has to walk for: minutes, on a full disk. The body is what the engine says:
    /// bollard knows only the newest of its two forms.
    pub(super) async fn volume_usage(&self) -> Result<Bytes> {
        let begun = Instant::now();
        let call = tokio::time::timeout(WALK, get(&self.socket, "/system/df?type=volume"));
        let result = call.await.unwrap_or(Err(EngineError::Timeout));
        self.count("volume_usage", begun, &result);
        result
    }

    // --- images and events ---

    pub(super) async fn inspect_image(&self, image: &ImageRef) -> Result<ImageInspect> {
        self.within("inspect_image", READ, self.client()?.inspect_image(image.qualified().as_str())).await
    }

    /// Asks an image's registry for it, with these credentials (`GET /distribution/{name}/json`).
    pub(super) async fn ask_registry(&self, reference: &str, credentials: Option<DockerCredentials>) -> Result<()> {
        self.within("ask_registry", REGISTRY, self.client()?.inspect_registry_image(reference, credentials))
            .await
            .map(drop)
    }

    /// An image by its id, `sha256:` and 64 hexadecimal digits; anything else is not found.
    pub(super) async fn inspect_image_id(&self, id: &str) -> Result<ImageInspect> {
        let digits = id.strip_prefix("sha256:").unwrap_or_default();
        if digits.len() != 64 || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(EngineError::NotFound("image id".to_owned()));
        }
        self.within("inspect_image_id", READ, self.client()?.inspect_image(id)).await
    }

    /// Removes an image by its id, unless a container uses it or it has several names.
    pub(super) async fn remove_image(&self, id: &str) -> Result<()> {
        let options = RemoveImageOptionsBuilder::new().force(false).noprune(false).build();
        done_if_gone(
            self.changing("remove_image", self.client()?.remove_image(id, Some(options), None)).await.map(drop),
        )
    }

    /// Container events that match the filter, from `since` (Unix seconds) on.
    pub(super) fn events(
        &self,
        mut filters: HashMap<String, Vec<String>>,
        since: i64,
    ) -> Result<impl Stream<Item = std::result::Result<EventMessage, Error>> + use<>> {
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let options = EventsOptionsBuilder::new().since(&since.to_string()).filters(&filters).build();
        Ok(self.client()?.events(Some(options)))
    }

    /// Events that tell of a change of a container, from `since` on: without the checks of their health, of which there are
    /// many, but with what comes of them.
    pub(super) fn changes(
        &self,
        mut filters: HashMap<String, Vec<String>>,
        since: jiff::Timestamp,
    ) -> Result<impl Stream<Item = std::result::Result<EventMessage, Error>> + use<>> {
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        filters.insert("event".to_owned(), CHANGES.iter().map(|&event| event.to_owned()).collect());
        let since = format!("{}.{:09}", since.as_second(), since.subsec_nanosecond().max(0));
        let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
        Ok(self.client()?.events(Some(options)))
    }

    /// When these containers were sent signals, as far as the engine remembers: it keeps its last 256 events.
    pub(super) async fn signalled(
        &self,
        ids: &[&ContainerId],
        since: jiff::Timestamp,
    ) -> Result<Vec<(ContainerId, jiff::Timestamp)>> {
        let names = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let filters = HashMap::from([("event".to_owned(), vec!["kill".to_owned()]), ("container".to_owned(), names)]);
        let now = jiff::Timestamp::now();
        // With an end that is now, the answer ends with what has happened so far.
        let until = format!("{}.{:09}", now.as_second(), now.subsec_nanosecond().max(0));
        let since = since.as_second().to_string();
        let options = EventsOptionsBuilder::new().since(&since).until(&until).filters(&filters).build();
        let events: Vec<EventMessage> =
            self.within("signalled", READ, self.client()?.events(Some(options)).try_collect()).await?;
        let of = |event: EventMessage| {
            let time = jiff::Timestamp::from_nanosecond(event.time_nano?.into()).ok()?;
            Some((ContainerId::parse(&event.actor?.id?).ok()?, time))
        };
        Ok(events.into_iter().filter_map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::without_quotes;

    #[test]
    fn what_the_engine_quotes_is_not_kept() {
        for (message, kept) in [
            (
                r#"exec: "s3cret": executable file not found in $PATH"#,
                r#"exec: "…": executable file not found in $PATH"#,
            ),
            (r#"mounting "/a" to "/b": not a directory: cut "off"#, r#"mounting "…" to "…": not a directory: cut ""#),
            (r#"exec: "s3\"cret\\": not found, "x": y"#, r#"exec: "…": not found, "…": y"#),
            ("nothing quoted", "nothing quoted"),
        ] {
            assert_eq!(without_quotes(message), kept);
        }
    }
}

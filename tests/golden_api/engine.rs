//! A recording engine: it answers the calls that bringing a stack up makes, as an engine would on which everything works,
//! and remembers every call that would have changed something.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;

/// The id of every image.
pub(crate) const IMAGE: &str = "sha256:abababababababababababababababababababababababababababababababab";

/// The id of what a tag stands for after it was moved.
pub(crate) const MOVED: &str = "sha256:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";

/// One call that changes something.
#[derive(Debug, Clone)]
pub(crate) struct Mutation {
    pub(crate) method: String,
    /// Without the API version.
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) body: Value,
}

struct State {
    api: String,
    mutations: Vec<Mutation>,
    /// Name -> what it was made from; foreign ones have no labels.
    networks: BTreeMap<String, Value>,
    volumes: BTreeMap<String, Value>,
    /// In the order of creation: the id is the number, from 1.
    containers: Vec<Container>,
    twist: Option<Twist>,
    /// Whether every tag has been moved since it was looked at.
    moved: bool,
    /// What every image says besides, or instead.
    image: Value,
    /// The same, once something has been pulled.
    in_registry: Value,
}

/// A change to the `HostConfig` of a request.
pub(crate) type Twist = fn(&mut Value);

struct Container {
    name: String,
    body: Value,
    runs: bool,
    image: &'static str,
    /// What the engine makes else of a `HostConfig`.
    twist: Option<Twist>,
}

/// The engine behind its socket. It lives as long as the runtime.
pub(crate) struct Recorder {
    pub(crate) socket: PathBuf,
    state: Arc<Mutex<State>>,
    _directory: tempfile::TempDir,
}

/// The id of the container that was made as the n-th, as the golden files number them.
pub(crate) fn id(number: usize) -> String {
    format!("{number:064}")
}

impl Recorder {
    /// Starts an engine of this API version, on which these networks of somebody else exist.
    pub(crate) fn start(api: &str, foreign_networks: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let state = Arc::new(Mutex::new(State {
            api: api.to_owned(),
            mutations: Vec::new(),
            networks: foreign_networks
                .iter()
                .map(|&name| (name.to_owned(), json!({"Name": name, "Id": name})))
                .collect(),
            volumes: BTreeMap::new(),
            containers: Vec::new(),
            twist: None,
            moved: false,
            image: Value::Null,
            in_registry: Value::Null,
        }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { socket, state, _directory: directory }
    }

    /// From now on it makes something else of every `HostConfig`.
    pub(crate) fn twist(&self, twist: Twist) {
        self.state.lock().expect("no panics here").twist = Some(twist);
    }

    /// From now on a tag stands for another image to whoever makes a container, as if it had just been moved.
    pub(crate) fn move_tags(&self) {
        self.state.lock().expect("no panics here").moved = true;
    }

    /// What every image says besides, or instead; and what it says once it is pulled.
    pub(crate) fn images(&self, here: Value, in_registry: Value) {
        let mut state = self.state.lock().expect("no panics here");
        (state.image, state.in_registry) = (here, in_registry);
    }

    /// What was to be changed so far.
    pub(crate) fn mutations(&self) -> Vec<Mutation> {
        self.state.lock().expect("no panics here").mutations.clone()
    }
}

/// Puts the members of one object into another.
fn merge(into: &mut Value, from: &Value) {
    for (name, value) in from.as_object().into_iter().flatten() {
        into[name] = value.clone();
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

fn with(status: StatusCode, body: &Value) -> Answer {
    let text = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let mut answer = Response::new(Full::new(text).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert("content-type", "application/json".parse().expect("a header value"));
    answer
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = head.uri.path();
    let path = match path.strip_prefix("/v1.") {
        Some(rest) => rest.find('/').map_or("", |at| &rest[at..]),
        None => path,
    };
    let query: BTreeMap<String, String> =
        form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    if path == "/events" {
        // Nothing ever happens, and the stream does not end.
        let events = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
        return Ok(Response::new(BoxBody::new(StreamBody::new(events))));
    }
    let mut state = state.lock().expect("no panics here");
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    if matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(state.read(path, &query));
    }
    let mutation = Mutation { method: head.method.to_string(), path: path.to_owned(), query, body };
    let (status, answer) = state.change(&mutation);
    state.mutations.push(mutation);
    Ok(with(status, &answer))
}

impl State {
    fn read(&self, path: &str, query: &BTreeMap<String, String>) -> Answer {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let found = match parts.as_slice() {
            ["_ping"] => json!("OK"),
            ["version"] => json!({"Version": "0", "ApiVersion": self.api, "Os": "linux", "Arch": "amd64"}),
            ["info"] => json!({}),
            ["containers", "json"] => self.containers.iter().enumerate().map(|(at, c)| c.summary(at + 1)).collect(),
            ["containers", id, "json"] => match self.containers.get(id.parse::<usize>().unwrap_or(0).wrapping_sub(1)) {
                Some(container) => container.details(id),
                None => Value::Null,
            },
            // Filtered by labels, which a foreign network has none of.
            ["networks"] => {
                let all = self.networks.values().filter(|n| !query.contains_key("filters") || n["Labels"].is_object());
                all.cloned().collect()
            }
            ["networks", name] => self.networks.get(*name).cloned().unwrap_or_default(),
            ["volumes"] => json!({"Volumes": self.volumes.values().collect::<Vec<_>>()}),
            ["images", .., "json"] => {
                let mut image = json!({"Id": IMAGE, "Os": "linux", "Architecture": "amd64", "Config": {}});
                merge(&mut image, &self.image);
                image
            }
            _ => Value::Null,
        };
        match found {
            Value::Null => with(StatusCode::NOT_FOUND, &json!({"message": format!("no {path} here")})),
            found => with(StatusCode::OK, &found),
        }
    }

    fn change(&mut self, call: &Mutation) -> (StatusCode, Value) {
        let parts: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
        match parts.as_slice() {
            ["images", "create"] => {
                self.image = self.in_registry.clone();
                (StatusCode::OK, json!({"status": format!("Digest: sha256:{}", "d".repeat(64))}))
            }
            ["networks", "create"] => {
                let name = call.body["Name"].as_str().unwrap_or_default();
                let mut network = call.body.clone();
                network["Id"] = json!(name);
                if network["Driver"].is_null() {
                    network["Driver"] = json!("bridge");
                }
                self.networks.insert(name.to_owned(), network);
                (StatusCode::CREATED, json!({"Id": name, "Warning": ""}))
            }
            ["volumes", "create"] => {
                let name = call.body["Name"].as_str().unwrap_or_default();
                let volume = json!({
                    "Name": name, "Driver": "local", "Mountpoint": "/m", "Scope": "local", "Options": {},
                    "Labels": call.body["Labels"],
                });
                self.volumes.insert(name.to_owned(), volume.clone());
                (StatusCode::CREATED, volume)
            }
            ["containers", "create"] => {
                let name = call.query.get("name").cloned().unwrap_or_default();
                let image = if self.moved && call.body["Image"] != IMAGE { MOVED } else { IMAGE };
                let body = call.body.clone();
                self.containers.push(Container { name, body, runs: false, image, twist: self.twist });
                (StatusCode::CREATED, json!({"Id": id(self.containers.len()), "Warnings": []}))
            }
            ["containers", id, "start"] => {
                let at = id.parse::<usize>().unwrap_or(0).wrapping_sub(1);
                match self.containers.get_mut(at) {
                    Some(container) => {
                        container.runs = true;
                        (StatusCode::NO_CONTENT, Value::Null)
                    }
                    None => (StatusCode::NOT_FOUND, json!({"message": "no such container"})),
                }
            }
            ["networks", _, "connect"] => (StatusCode::OK, Value::Null),
            ["containers", id] if call.method == "DELETE" => {
                // Its number stays taken: ids follow the order of creation.
                if let Some(container) = self.containers.get_mut(id.parse::<usize>().unwrap_or(0).wrapping_sub(1)) {
                    container.runs = false;
                }
                (StatusCode::NO_CONTENT, Value::Null)
            }
            _ => (StatusCode::NOT_IMPLEMENTED, json!({"message": "nobody expects this"})),
        }
    }
}

impl Container {
    fn state(&self) -> &'static str {
        if self.runs { "running" } else { "created" }
    }

    fn summary(&self, number: usize) -> Value {
        json!({
            "Id": id(number), "Names": [format!("/{}", self.name)], "Image": self.body["Image"], "ImageID": self.image,
            "Labels": self.body["Labels"], "State": self.state(), "Mounts": [], "NetworkSettings": {"Networks": {}},
        })
    }

    /// As it was asked for, with what an engine fills in.
    fn host_config(&self) -> Value {
        let mut host = self.body["HostConfig"].clone();
        if host.is_object() {
            host["MaskedPaths"] = json!(["/proc/kcore"]);
            host["ReadonlyPaths"] = json!(["/proc/sys"]);
            if let Some(twist) = self.twist {
                twist(&mut host);
            }
        }
        host
    }

    fn details(&self, id: &str) -> Value {
        json!({
            "Id": id, "Name": format!("/{}", self.name), "Image": self.image, "Config": self.body, "Mounts": [],
            "HostConfig": self.host_config(),
            "RestartCount": 0,
            "State": {"Status": self.state(), "Running": self.runs, "ExitCode": 0, "StartedAt": "2020-01-01T00:00:00Z"},
        })
    }
}

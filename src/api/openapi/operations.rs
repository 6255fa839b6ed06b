//! Every route as the document tells of it. The match is exhaustive: a route that is not described does not compile.

use serde_json::{Value, json};

use super::bodies::{CordonBody, ProvisionBody, PruneBody, UpdateBody};
use super::generate::{Schemas, Shape};
use crate::api::error::ErrorBody;
use crate::api::handlers::Probe;
use crate::api::logs::JsonLine;
use crate::api::router::Route;
use crate::domain::{ErrorCode, Subdomain};
use crate::orchestrator::{
    Cordoned, Done, ImageList, Provisioned, Pruned, SystemInfo, TenantList, TenantStatus, TornDown,
};

/// One operation of the document.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: Vec<Parameter>,
    pub(super) body: Option<Body>,
    pub(super) answers: Vec<Answer>,
    /// Codes besides those that every operation has.
    pub(super) codes: Vec<ErrorCode>,
}

/// A query parameter.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) schema: Value,
}

/// A request's body.
pub(super) struct Body {
    pub(super) schema: Value,
    pub(super) required: bool,
    pub(super) example: Value,
}

/// An answer that is no error.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) about: &'static str,
    pub(super) shapes: Vec<Shape>,
}

/// One route of each kind, in the order of the document.
pub(super) fn routes() -> Vec<Route> {
    let acme = || Subdomain::parse("acme").expect("valid");
    vec![
        Route::Provision,
        Route::Update,
        Route::Rollback(acme()),
        Route::Restart(acme()),
        Route::Stop(acme()),
        Route::Start(acme()),
        Route::Teardown(acme()),
        Route::Tenants,
        Route::Status(acme()),
        Route::Logs(acme()),
        Route::Images(acme()),
        Route::Info,
        Route::Cordon,
        Route::Uncordon,
        Route::Prune,
        Route::Health,
        Route::Live,
        Route::Ready,
        Route::OpenApi,
    ]
}

/// What a change of a tenant can end with, whatever it is.
const CHANGES: &[ErrorCode] = &[
    ErrorCode::TenantBusy,
    ErrorCode::DeadlineExceeded,
    ErrorCode::BackendUnavailable,
    ErrorCode::BackendError,
    ErrorCode::NoSpace,
    ErrorCode::ShuttingDown,
];

/// And what one can that makes or starts containers.
const STARTS: &[ErrorCode] = &[
    ErrorCode::ServiceUnhealthy,
    ErrorCode::ServiceExited,
    ErrorCode::PortTaken,
    ErrorCode::PolicyDenied,
    ErrorCode::UnsupportedOnBackend,
];

/// And what a new generation can.
const BRINGS: &[ErrorCode] = &[
    ErrorCode::ComposeInvalid,
    ErrorCode::InvalidFilePath,
    ErrorCode::QuotaExceeded,
    ErrorCode::HostFull,
    ErrorCode::NameTaken,
    ErrorCode::ImageNotFound,
    ErrorCode::RegistryDenied,
    ErrorCode::RegistryUnavailable,
];

fn codes(groups: &[&[ErrorCode]]) -> Vec<ErrorCode> {
    groups.concat()
}

fn parameter(name: &'static str, about: &'static str, schema: Value) -> Parameter {
    Parameter { name, about, schema }
}

fn service() -> Vec<Parameter> {
    vec![parameter("service", "One service; the whole tenant when absent.", json!({"type": "string"}))]
}

fn post(id: &'static str, summary: &'static str, answers: Vec<Answer>) -> Operation {
    Operation { method: "post", id, summary, query: Vec::new(), body: None, answers, codes: Vec::new() }
}

fn get(id: &'static str, summary: &'static str, answers: Vec<Answer>) -> Operation {
    Operation { method: "get", ..post(id, summary, answers) }
}

fn ok(about: &'static str, shape: Shape) -> Vec<Answer> {
    vec![Answer { status: 200, about, shapes: vec![shape] }]
}

/// What the document says about a route.
pub(super) fn describe(route: &Route, schemas: &mut Schemas) -> Operation {
    let services = json!([{
        "name": "web", "state": "healthy", "health": "healthy", "replicas": 1,
        "containers": [{
            "name": "q8-acme-web-1", "id": "4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01", "state": "running",
            "health": "healthy", "exit_code": null, "started_at": "2026-11-21T08:00:01Z", "restart_count": 0,
            "image": "docker.io/library/nginx:1.27"
        }]
    }]);
    let provisioned = |status: &str, generation: u64| {
        json!({
            "status": status, "id": "tenant-1", "subdomain": "acme", "project": "q8-acme", "generation": generation,
            "changed": true, "warnings": [], "services": services
        })
    };
    let done = |status: &str| json!({"status": status, "subdomain": "acme"});
    let compose = "services:\n  web:\n    image: nginx:1.27\n    ports: ['80']\n    volumes: ['./site:/usr/share/nginx/html:ro']\n";
    match route {
        Route::Provision => Operation {
            body: Some(Body {
                schema: schemas.of::<ProvisionBody>(),
                required: true,
                example: json!({
                    "id": "tenant-1", "subdomain": "acme", "compose_content": compose, "env_content": "TITLE=Hello\n",
                    "files": {"site/index.html": "<h1>Hello</h1>", "conf/key": {"base64": "AAEC", "mode": "0600"}},
                    "profiles": ["metrics"], "placement": {"backend": "docker"},
                    "limits": {"memory": 536_870_912, "cpus": 1.5},
                    "registry_auth": [{"registry": "registry.example.com", "username": "acme", "password": "…"}],
                    "adopt": false
                }),
            }),
            codes: codes(&[
                CHANGES, STARTS, BRINGS,
                &[ErrorCode::InvalidSubdomain, ErrorCode::IdMismatch, ErrorCode::HostCordoned, ErrorCode::PlacementChange, ErrorCode::BackendNotConfigured],
            ]),
            ..post(
                "provision",
                "Brings a tenant to a specification, making it if there is none. Repeating it changes nothing.",
                vec![
                    Answer {
                        status: 201,
                        about: "The tenant is new, and runs.",
                        shapes: vec![schemas.json::<Provisioned>(provisioned("provisioned", 1))],
                    },
                    Answer {
                        status: 200,
                        about: "The tenant was there, and is as wanted.",
                        shapes: vec![schemas.json::<Provisioned>(provisioned("provisioned", 2))],
                    },
                ],
            )
        },
        Route::Update => Operation {
            body: Some(Body {
                schema: schemas.of::<UpdateBody>(),
                required: true,
                example: json!({
                    "subdomain": "acme", "files": {"site/index.html": "<h1>Hi</h1>", "conf/key": null}, "pull": false
                }),
            }),
            codes: codes(&[CHANGES, STARTS, BRINGS, &[ErrorCode::InvalidSubdomain, ErrorCode::NotFound]]),
            ..post(
                "update",
                "Changes parts of a tenant's specification; what is absent stays.",
                ok("The tenant is as wanted.", schemas.json::<Provisioned>(provisioned("updated", 3))),
            )
        },
        Route::Rollback(_) => Operation {
            query: vec![parameter(
                "from",
                "The generation that the tenant is at; another one is 409, so that a repeat is harmless.",
                json!({"type": "integer", "minimum": 1}),
            )],
            codes: codes(&[CHANGES, STARTS, BRINGS, &[ErrorCode::GenerationMismatch]]),
            ..post(
                "rollback",
                "Makes a new generation with the content and the images of the previous one.",
                ok("The tenant is as it was.", schemas.json::<Provisioned>(provisioned("rolled_back", 4))),
            )
        },
        Route::Restart(_) => Operation {
            query: service(),
            codes: codes(&[CHANGES, STARTS]),
            ..post("restart", "Stops and starts what runs.", ok("It runs.", schemas.json::<Done>(done("restarted"))))
        },
        Route::Stop(_) => Operation {
            query: service(),
            codes: codes(&[CHANGES]),
            ..post(
                "stop",
                "Stops durably: not even a restart of the engine starts it again.",
                ok("It is stopped.", schemas.json::<Done>(done("stopped"))),
            )
        },
        Route::Start(_) => Operation {
            query: service(),
            codes: codes(&[CHANGES, STARTS]),
            ..post("start", "Starts what is stopped.", ok("It runs.", schemas.json::<Done>(done("started"))))
        },
        Route::Teardown(_) => Operation {
            query: vec![parameter(
                "purge",
                "Delete volumes, data, record and archives as well.",
                json!({"type": "boolean", "default": false}),
            )],
            codes: codes(&[CHANGES]),
            ..post(
                "teardown",
                "Removes a tenant's containers and networks. Volumes and data are kept for the same id, unless purged.",
                ok(
                    "Nothing of it runs.",
                    schemas.json::<TornDown>(json!({
                        "status": "torn_down", "subdomain": "acme", "changed": true,
                        "kept": {"volumes": ["q8-acme_data"], "data": true, "archive": "acme-20261121T103000Z"}
                    })),
                ),
            )
        },
        Route::Tenants => Operation {
            codes: vec![ErrorCode::BackendUnavailable],
            ..get(
                "listTenants",
                "All tenants of this host, one line each.",
                ok(
                    "The tenants, by name.",
                    schemas.json::<TenantList>(json!({"tenants": [{
                        "subdomain": "acme", "id": "tenant-1", "project": "q8-acme", "backend": "docker",
                        "desired": "running", "state": "running", "generation": 1, "services_ready": 1, "services": 1
                    }]})),
                ),
            )
        },
        Route::Status(_) => Operation {
            codes: vec![ErrorCode::BackendUnavailable],
            ..get(
                "status",
                "One tenant in detail.",
                ok(
                    "How it is.",
                    schemas.json::<TenantStatus>(json!({
                        "subdomain": "acme", "id": "tenant-1", "project": "q8-acme", "backend": "docker",
                        "desired": "running", "state": "running", "generation": 1, "age_ms": 0, "warnings": [],
                        "endpoints": [{
                            "service": "web", "port": 80, "protocol": "tcp", "host": "127.0.0.1", "host_port": 20000
                        }],
                        "services": services
                    })),
                ),
            )
        },
        Route::Logs(_) => Operation {
            query: vec![
                parameter("service", "Only this service; may be repeated.", json!({"type": "array", "items": {"type": "string"}})),
                parameter("tail", "The last lines of each container: a number, or all.", json!({"type": "string", "default": "100"})),
                parameter("follow", "Go on with what is written from now on.", json!({"type": "boolean", "default": false})),
                parameter("since", "A time (RFC 3339) or how long ago, such as 10m.", json!({"type": "string"})),
                parameter("until", "A time (RFC 3339) or how long ago.", json!({"type": "string"})),
                parameter("timestamps", "Text only: begin each line with its time.", json!({"type": "boolean", "default": false})),
            ],
            codes: vec![ErrorCode::BackendUnavailable, ErrorCode::BackendError],
            ..get(
                "logs",
                "The lines that a tenant's containers have written, merged by time.",
                vec![Answer {
                    status: 200,
                    about: "The lines. A failure on the way is told as the last one.",
                    shapes: vec![
                        Shape::text("text/plain", "web-1 | listening on port 80\n"),
                        Shape::lines(
                            "application/x-ndjson",
                            vec![schemas.of::<JsonLine<'_>>(), schemas.of::<ErrorBody<'_>>()],
                            "{\"time\":\"2026-11-21T08:00:01Z\",\"service\":\"web\",\"container\":\"q8-acme-web-1\",\
                             \"stream\":\"stdout\",\"line\":\"listening on port 80\"}\n",
                        ),
                    ],
                }],
            )
        },
        Route::Images(_) => Operation {
            codes: vec![ErrorCode::BackendUnavailable, ErrorCode::BackendError],
            ..get(
                "images",
                "The images that a tenant's containers were made from.",
                ok(
                    "One line for each container.",
                    schemas.json::<ImageList>(json!({"subdomain": "acme", "images": [{
                        "service": "web", "container": "q8-acme-web-1", "image": "docker.io/library/nginx:1.27",
                        "id": "sha256:4c01", "digest": "sha256:9f2c", "tag": "1.27", "size": 187_000_000,
                        "created": "2026-11-01T00:00:00Z"
                    }]})),
                ),
            )
        },
        Route::Info => Operation {
            codes: vec![ErrorCode::BackendUnavailable],
            ..get(
                "info",
                "The agent and the machine that it runs on.",
                ok(
                    "What it is.",
                    schemas.json::<SystemInfo>(json!({
                        "version": "0.1.0", "agent": "9f2c1d7e5b8a4c3f6e0d9b8a7c6f5e4d", "backend": "docker", "policy": "baseline",
                        "capabilities": {
                            "single_service": true, "split_streams": true, "partial_update": true, "survives_agent": true
                        },
                        "host": {
                            "engine": "docker", "version": "26.1.5", "api_version": "1.45", "os": "linux", "arch": "x86_64",
                            "cpus": 8, "memory": 33_554_432_000_u64
                        },
                        "verified": {
                            "api_on_loopback": true, "ports_on_loopback": true, "subnet_pool_is_free": true,
                            "engine": {
                                "seccomp": true, "mandatory_access_control": true, "user_namespaces": false,
                                "rootless": false, "live_restore": true
                            },
                            "metadata_closed": null, "host_closed": null
                        },
                        "tenants": 12, "max_tenants": 200, "uptime_s": 86400
                    })),
                ),
            )
        },
        Route::Cordon => Operation {
            body: Some(Body {
                schema: schemas.of::<CordonBody>(),
                required: false,
                example: json!({"reason": "new disk"}),
            }),
            codes: vec![ErrorCode::NoSpace],
            ..post(
                "cordon",
                "Takes no new tenant on this host, across restarts.",
                ok(
                    "It takes none.",
                    schemas.json::<Cordoned>(json!({
                        "status": "cordoned", "changed": true, "since": "2026-11-21T10:30:00Z", "reason": "new disk"
                    })),
                ),
            )
        },
        Route::Uncordon => post(
            "uncordon",
            "Takes new tenants again.",
            ok("It does.", schemas.json::<Cordoned>(json!({"status": "uncordoned", "changed": true}))),
        ),
        Route::Prune => Operation {
            body: Some(Body {
                schema: schemas.of::<PruneBody>(),
                required: false,
                example: json!({"dry_run": false, "kinds": ["image", "volume"], "volumes": ["q8-acme_old"]}),
            }),
            codes: vec![ErrorCode::BackendUnavailable, ErrorCode::BackendError, ErrorCode::DeadlineExceeded, ErrorCode::NoSpace],
            ..post(
                "prune",
                "Removes what is left over of what this agent has made; without dry_run: false it only tells.",
                ok(
                    "What is, or was, left over.",
                    schemas.json::<Pruned>(json!({
                        "dry_run": false, "removed": 1, "freed_bytes": 187_000_000,
                        "objects": [
                            {"kind": "volume", "name": "q8-acme_data", "subdomain": "acme", "removed": false,
                             "note": "goes only if `volumes` names it"},
                            {"kind": "image", "name": "nginx:1.26", "bytes": 187_000_000, "removed": true}
                        ]
                    })),
                ),
            )
        },
        Route::Health => probe("health", "Whether the agent can do its work.", "healthy", "unhealthy", schemas),
        Route::Ready => probe("ready", "Whether the agent can do its work.", "ready", "not_ready", schemas),
        Route::Live => get(
            "live",
            "Whether the agent's process answers.",
            ok("It does.", schemas.json::<Probe>(json!({"status": "alive", "degraded": []}))),
        ),
        Route::OpenApi => get("openapi", "This document.", ok("OpenAPI 3.1.", Shape::any_json())),
    }
}

fn probe(id: &'static str, summary: &'static str, yes: &str, no: &str, schemas: &mut Schemas) -> Operation {
    let mut answers = ok("It can.", schemas.json::<Probe>(json!({"status": yes, "degraded": []})));
    answers.push(Answer {
        status: 503,
        about: "It cannot, for now.",
        shapes: vec![schemas.json::<Probe>(json!({"status": no, "degraded": ["backend"]}))],
    });
    get(id, summary, answers)
}

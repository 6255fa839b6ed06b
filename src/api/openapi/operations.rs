//! Every route as the document tells of it. The match is exhaustive: a route that is not described does not compile.

use serde_json::{Map, Value, json};

use super::bodies::{CordonBody, ProvisionBody, PruneBody, UpdateBody};
use super::generate::{Schemas, Shape};
use crate::api::handlers::Probe;
use crate::api::handlers::operations::{ListView, View};
use crate::api::logs::{JsonError, JsonGap, JsonLine};
use crate::api::router::{self, Route};
use crate::backend::Told;
use crate::domain::{ErrorCode, OperationId, Subdomain};
use crate::orchestrator::{
    Cordoned, Done, FeedData, ImageList, Planned, Provisioned, Pruned, SystemInfo, SystemStats, TenantList,
    TenantStats, TenantStatus, TornDown,
};

/// The events of an operation, and of the feed, besides those of the streams themselves.
const PROGRESS: [&str; 5] = ["message", "step", "pull", "waiting", "container"];
const FEED: [&str; 10] = [
    "tenant_created",
    "tenant_kept",
    "tenant_purged",
    "tenant_state",
    "service_state",
    "service_health",
    "address_changed",
    "out_of_memory",
    "restart_loop",
    "operation_ended",
];

/// Each of these types of events has such data; others have their own.
fn events<const N: usize>(names: &[&str], data: &Value, others: [(&str, Value); N]) -> Map<String, Value> {
    let such = names.iter().map(|name| {
        let this = json!({"allOf": [data, {"properties": {"event": {"const": name}}}]});
        ((*name).to_owned(), this)
    });
    such.chain(others.map(|(name, data)| (name.to_owned(), data))).collect()
}

/// The data of an event about events that a client does not get.
fn missed(more: Value) -> Value {
    let mut properties = more;
    properties["missed"] = json!({
        "type": ["integer", "null"], "minimum": 0, "description": "How many, at most; null if nobody knows.",
    });
    json!({"type": "object", "required": ["missed"], "properties": properties})
}

/// One operation of the document.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: Vec<Parameter>,
    pub(super) headers: Vec<Parameter>,
    pub(super) body: Option<Body>,
    pub(super) answers: Vec<Answer>,
    /// Codes besides those that every operation has.
    pub(super) codes: Vec<ErrorCode>,
}

/// A parameter in the query, or a header.
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

/// The operation of the examples.
pub(super) const ID: &str = "01a217a6-8dd5-77d7-9e69-c09e82148a7f";

/// One route of each kind, in the order of the document.
pub(super) fn routes() -> Vec<Route> {
    router::every(&Subdomain::parse("acme").expect("valid"), OperationId::parse(ID).expect("valid"))
}

/// What any change can end with.
const OPERATES: &[ErrorCode] = &[
    ErrorCode::TenantBusy,
    ErrorCode::DeadlineExceeded,
    ErrorCode::NoSpace,
    ErrorCode::ShuttingDown,
    ErrorCode::IdempotencyMismatch,
    ErrorCode::Cancelled,
];

/// And what one can that needs a backend.
const CHANGES: &[ErrorCode] = &[ErrorCode::BackendUnavailable, ErrorCode::BackendError];

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
    ErrorCode::TenantDamaged,
    ErrorCode::ImageNotFound,
    ErrorCode::RegistryAuthRequired,
    ErrorCode::RegistryDenied,
    ErrorCode::RegistryUnavailable,
];

/// And what a new tenant can.
const PLACES: &[ErrorCode] = &[
    ErrorCode::InvalidSubdomain,
    ErrorCode::IdMismatch,
    ErrorCode::HostCordoned,
    ErrorCode::PlacementChange,
    ErrorCode::BackendNotConfigured,
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

/// An operation as the examples have it.
fn operation_example(state: &str) -> Value {
    let mut example = json!({
        "id": ID, "subdomain": "acme", "kind": "stop", "step": "stopping containers",
        "started_at": "2026-11-21T08:00:00Z", "deadline_at": "2026-11-21T08:10:00Z", "state": state,
        "progress": {"steps": 2, "steps_done": 1, "images": 0, "bytes": 0, "bytes_done": 0}, "request_id": "r-1"
    });
    if state == "succeeded" {
        example["ended_at"] = json!("2026-11-21T08:00:02Z");
        example["result"] = json!({"status": 200, "body": {"status": "stopped", "subdomain": "acme"}});
    }
    example
}

/// A change of a tenant or of the host: it can be accepted instead of awaited, and recognised when it is sent again.
fn mutation(id: &'static str, summary: &'static str, mut answers: Vec<Answer>, schemas: &mut Schemas) -> Operation {
    let mut accepted = operation_example("running");
    (accepted["kind"], accepted["step"]) = (json!(id), json!("starting"));
    if let (true, Some(members)) = (["cordon", "uncordon", "prune"].contains(&id), accepted.as_object_mut()) {
        // The host has no subdomain.
        members.shift_remove("subdomain");
    }
    answers.push(Answer {
        status: 202,
        about: "Accepted, with Prefer: respond-async. Location says where to ask how it goes.",
        shapes: vec![schemas.json::<View<'_>>(accepted)],
    });
    let headers = vec![
        parameter(
            "Prefer",
            "respond-async: answer 202 as soon as the operation is accepted.",
            json!({"type": "string"}),
        ),
        parameter(
            "Idempotency-Key",
            "1 to 255 visible ASCII characters. For 24 hours the same key with the same request gets the same answer.",
            json!({"type": "string", "minLength": 1, "maxLength": 255}),
        ),
    ];
    Operation { headers, codes: codes(&[OPERATES]), ..post(id, summary, answers) }
}

fn post(id: &'static str, summary: &'static str, answers: Vec<Answer>) -> Operation {
    Operation {
        method: "post",
        id,
        summary,
        query: Vec::new(),
        headers: Vec::new(),
        body: None,
        answers,
        codes: Vec::new(),
    }
}

fn get(id: &'static str, summary: &'static str, answers: Vec<Answer>) -> Operation {
    Operation { method: "get", ..post(id, summary, answers) }
}

fn ok(about: &'static str, shape: Shape) -> Vec<Answer> {
    vec![Answer { status: 200, about, shapes: vec![shape] }]
}

/// An answer that the client may have already.
fn known(about: &'static str, shapes: Vec<Shape>) -> Vec<Answer> {
    vec![
        Answer { status: 200, about, shapes },
        Answer { status: 304, about: "Nothing but its age has changed since the ETag was given.", shapes: Vec::new() },
    ]
}

fn if_none_match() -> Vec<Parameter> {
    vec![parameter("If-None-Match", "The ETag of an earlier answer.", json!({"type": "string"}))]
}

fn last_event_id() -> Vec<Parameter> {
    vec![parameter("Last-Event-ID", "The id of the last event that was seen.", json!({"type": "string"}))]
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
            "status": status, "id": "tenant-1", "subdomain": "acme", "project": "q8-acme", "backend": "docker",
            "generation": generation, "changed": true, "warnings": [], "services": services
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
                OPERATES, CHANGES, STARTS, BRINGS,
                PLACES,
                &[ErrorCode::PlanChanged],
            ]),
            ..mutation(
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
                schemas,
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
            codes: codes(&[OPERATES, CHANGES, STARTS, BRINGS, &[ErrorCode::InvalidSubdomain, ErrorCode::NotFound, ErrorCode::PlanChanged, ErrorCode::BackendNotConfigured]]),
            ..mutation(
                "update",
                "Changes parts of a tenant's specification; what is absent stays.",
                ok("The tenant is as wanted.", schemas.json::<Provisioned>(provisioned("updated", 3))),
                schemas,
            )
        },
        Route::Rollback(_) => Operation {
            query: vec![parameter(
                "from",
                "The generation that the tenant is at; another one is 409, so that a repeat is harmless.",
                json!({"type": "integer", "minimum": 1}),
            )],
            codes: codes(&[OPERATES, CHANGES, STARTS, BRINGS, &[ErrorCode::GenerationMismatch]]),
            ..mutation(
                "rollback",
                "Makes a new generation with the content and the images of the previous one.",
                ok("The tenant is as it was.", schemas.json::<Provisioned>(provisioned("rolled_back", 4))),
                schemas,
            )
        },
        Route::Restart(_) => Operation {
            query: service(),
            // What was made under other rules is made anew first.
            codes: codes(&[OPERATES, CHANGES, STARTS, BRINGS]),
            ..mutation("restart", "Stops and starts what runs.", ok("It runs.", schemas.json::<Done>(done("restarted"))),
                schemas,
            )
        },
        Route::Stop(_) => Operation {
            query: service(),
            codes: codes(&[OPERATES, CHANGES, &[ErrorCode::UnsupportedOnBackend]]),
            ..mutation(
                "stop",
                "Stops durably: not even a restart of the engine starts it again.",
                ok("It is stopped.", schemas.json::<Done>(done("stopped"))),
                schemas,
            )
        },
        Route::Start(_) => Operation {
            query: service(),
            codes: codes(&[OPERATES, CHANGES, STARTS, BRINGS]),
            ..mutation("start", "Starts what is stopped.", ok("It runs.", schemas.json::<Done>(done("started"))),
                schemas,
            )
        },
        Route::Teardown(_) => Operation {
            query: vec![parameter(
                "purge",
                "Delete volumes, data, record and archives as well.",
                json!({"type": "boolean", "default": false}),
            )],
            codes: codes(&[OPERATES, CHANGES]),
            ..mutation(
                "teardown",
                "Removes a tenant's containers and networks. Volumes and data are kept for the same id, unless purged.",
                ok(
                    "Nothing of it runs.",
                    schemas.json::<TornDown>(json!({
                        "status": "torn_down", "subdomain": "acme", "changed": true,
                        "kept": {"volumes": ["q8-acme_data"], "data": true, "archive": "acme-20261121T103000Z"}
                    })),
                ),
                schemas,
            )
        },
        Route::Tenants => Operation {
            headers: if_none_match(),
            codes: vec![ErrorCode::BackendUnavailable],
            ..get(
                "listTenants",
                "All tenants of this host, one line each.",
                known(
                    "The tenants, by name.",
                    vec![schemas.json::<TenantList>(json!({"age_ms": 350, "tenants": [{
                        "subdomain": "acme", "id": "tenant-1", "project": "q8-acme", "backend": "docker",
                        "desired": "running", "state": "running", "generation": 1, "services_ready": 1, "services": 1
                    }]}))],
                ),
            )
        },
        Route::Events => Operation {
            query: vec![
                parameter("cursor", "Go on behind the event of this id; Last-Event-ID counts before it.", json!({"type": "string"})),
                parameter("subdomain", "Of this tenant only.", json!({"type": "string"})),
            ],
            headers: last_event_id(),
            ..get(
                "events",
                "What happens to all tenants, in order. Without a good cursor the first event is resync: read the list.",
                ok(
                    "Server-sent events; each id is a cursor, also one that comes alone.",
                    Shape::events(
                        events(&FEED, &schemas.of::<FeedData<'_>>(), [("resync", json!({
                            "type": "object", "required": ["time", "event", "reason"],
                            "properties": {
                                "time": {"type": "string", "format": "date-time"}, "event": {"const": "resync"},
                                "reason": {"enum": ["too_old", "unknown_cursor"]},
                            },
                        }))]),
                        "id: 0f8b1c7a9d2e-17\nevent: tenant_state\ndata: {\"time\":\"2026-11-21T08:00:01Z\",\"subdomain\":\"acme\",\
                         \"event\":\"tenant_state\",\"from\":\"running\",\"to\":\"degraded\",\"generation\":1,\"reasons\":[\"service web: exited with code 1\"]}\n\n",
                    ),
                ),
            )
        },
        Route::Status(_) => Operation {
            query: vec![
                parameter("fresh", "Ask the backend now.", json!({"type": "boolean", "default": false})),
                parameter(
                    "format",
                    "compose: the lines of docker compose ps --format json.",
                    json!({"type": "string", "enum": ["json", "compose"], "default": "json"}),
                ),
                parameter("all", "With format=compose: also what does not run.", json!({"type": "boolean", "default": false})),
            ],
            headers: if_none_match(),
            codes: vec![ErrorCode::BackendUnavailable, ErrorCode::BackendError],
            ..get(
                "status",
                "One tenant in detail, from memory. With If-None-Match, one that has not changed is 304.",
                known(
                    "How it is.",
                    vec![schemas.json::<TenantStatus>(json!({
                        "subdomain": "acme", "id": "tenant-1", "project": "q8-acme", "backend": "docker",
                        "desired": "running", "state": "running", "generation": 1, "age_ms": 0, "warnings": [],
                        "endpoints": [{
                            "service": "web", "port": 80, "protocol": "tcp", "host": "127.0.0.1", "host_port": 20000
                        }],
                        "services": services
                    })), Shape::lines("application/x-ndjson", vec![json!({"type": "object"})], "{\"Service\":\"web\",\"State\":\"running\"}\n")],
                ),
            )
        },
        Route::Logs(_) => Operation {
            query: vec![
                parameter("service", "Only this service; may be repeated.", json!({"type": "array", "items": {"type": "string"}})),
                parameter("tail", "The last lines of each container: a number, or all.", json!({"type": "string", "default": "100"})),
                parameter("follow", "Go on with what is written from now on.", json!({"type": "boolean", "default": false})),
                parameter("since", "A time (RFC 3339 or seconds since 1970) or how long ago, such as 10m.", json!({"type": "string"})),
                parameter("until", "A time, or how long ago.", json!({"type": "string"})),
                parameter("cursor", "Go on after the line that came with it; without tail and since.", json!({"type": "string"})),
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
                            vec![schemas.of::<JsonLine<'_>>(), schemas.of::<JsonGap<'_>>(), schemas.of::<JsonError<'_>>()],
                            "{\"time\":\"2026-11-21T08:00:01Z\",\"service\":\"web\",\"container\":\"q8-acme-web-1\",\
                             \"stream\":\"stdout\",\"line\":\"listening on port 80\",\"cursor\":\"ARi9yGNu\"}\n",
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
                        "backends": [{
                            "name": "docker", "regions": [], "tenants": 12,
                            "capabilities": {
                                "single_service": true, "split_streams": true, "partial_update": true, "survives_agent": true
                            }
                        }],
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
        Route::TenantStats(_) => Operation {
            codes: vec![ErrorCode::BackendUnavailable, ErrorCode::BackendError],
            ..get(
                "tenantStats",
                "What a tenant uses: each container and all together. What cannot be seen is null.",
                ok(
                    "What it uses now.",
                    schemas.json::<TenantStats>({
                        let numbers = json!({
                            "cpu_used_cores": 0.25, "cpu_seconds": 12.5, "cpu_throttled_seconds": 0.0,
                            "memory_bytes": 48_000_000, "memory_limit_bytes": 268_435_456, "pids": 3,
                            "network_received_bytes": 1000, "network_sent_bytes": 2000,
                            "block_read_bytes": 4096, "block_written_bytes": null
                        });
                        let mut container = json!({
                            "service": "web", "number": 1, "name": "q8-acme-web-1", "running": true,
                            "id": "4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01"
                        });
                        for (name, value) in numbers.as_object().into_iter().flatten() {
                            container[name] = value.clone();
                        }
                        json!({
                            "subdomain": "acme", "id": "tenant-1", "generation": 1, "total": numbers,
                            "containers": [container],
                            "disk": {
                                "directory": {"total_bytes": 20480, "data_bytes": 8192, "complete": true, "age_s": 12},
                                "volumes": {
                                    "total_bytes": 1024, "each": [{"name": "q8-acme_data", "bytes": 1024}], "age_s": 60
                                }
                            }
                        })
                    }),
                ),
            )
        },
        Route::Plan => Operation {
            body: Some(Body {
                schema: schemas.of::<ProvisionBody>(),
                required: true,
                example: json!({"id": "tenant-1", "subdomain": "acme", "compose_content": compose}),
            }),
            codes: codes(&[
                BRINGS,
                PLACES,
                &[
                    ErrorCode::PolicyDenied,
                    ErrorCode::UnsupportedOnBackend,
                    ErrorCode::PortTaken,
                    ErrorCode::BackendUnavailable,
                    ErrorCode::BackendError,
                    ErrorCode::DeadlineExceeded,
                    ErrorCode::ShuttingDown,
                ],
            ]),
            ..post(
                "plan",
                "What a provision would do, found out without doing any of it.",
                ok(
                    "What would be done, and a hash of it for expect_plan.",
                    schemas.json::<Planned>(json!({
                        "subdomain": "acme", "project": "q8-acme", "generation": 1, "changed": true, "created": true,
                        "steps": [{"object": "container web-1", "action": "create", "reason": "is not there"}],
                        "pulls": [{"image": "nginx:1.27", "services": ["web"], "reason": "is not on this host"}],
                        "ports": [{"service": "web", "port": 80, "protocol": "tcp", "host_ports": null}],
                        "fit": {
                            "needs": {
                                "services": 1, "containers": 1, "networks": 1, "volumes": 0, "ports": 1,
                                "memory": 268_435_456, "pids": 512, "nano_cpus": 1_000_000_000,
                                "reserved_memory": 33_554_432, "reserved_nano_cpus": 0
                            },
                            "host": {
                                "tenants": 12, "max_tenants": 200, "memory_taken": 1_073_741_824,
                                "memory": 33_017_561_088_u64, "nano_cpus_taken": 0, "nano_cpus": 64_000_000_000_u64
                            }
                        },
                        "warnings": [], "plan_hash": "9f2c1d7e5b8a4c3f6e0d9b8a7c6f5e4d9f2c1d7e5b8a4c3f6e0d9b8a7c6f5e4d"
                    })),
                ),
            )
        },
        Route::Operations => Operation {
            query: vec![
                parameter("subdomain", "Only those of this tenant.", json!({"type": "string"})),
                parameter("limit", "How many.", json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100})),
            ],
            ..get(
                "listOperations",
                "Operations of the last 24 hours, the newest first.",
                ok(
                    "The operations, without their results.",
                    schemas.json::<ListView<'_>>(json!({"operations": [operation_example("running")]})),
                ),
            )
        },
        Route::Operation(_) => get(
            "operation",
            "One operation, running or ended, with the answer that it gave.",
            ok("How it stands.", schemas.json::<View<'_>>(operation_example("succeeded"))),
        ),
        Route::OperationEvents(_) => {
            let mut answers = vec![Answer {
                status: 200,
                about: "Events of type message, step, pull, waiting, container; gap when some are no longer held; end with the operation.",
                shapes: vec![Shape::events(
                    events(&PROGRESS, &schemas.of::<Told>(), [
                        ("gap", missed(json!({}))),
                        ("error", missed(json!({"error": {"type": "string"}, "code": schemas.of::<ErrorCode>()}))),
                        ("end", schemas.of::<View<'_>>()),
                    ]),
                    "id: 1\nevent: message\ndata: {\"at\":\"2026-11-21T08:00:00Z\",\"event\":\"message\",\"text\":\"planning\"}\n\n",
                )],
            }];
            answers.push(Answer {
                status: 204,
                about: "The last event has been seen: there is nothing to connect for any more.",
                shapes: Vec::new(),
            });
            Operation {
                headers: last_event_id(),
                ..get("operationEvents", "The progress of an operation as server-sent events.", answers)
            }
        }
        Route::CancelOperation(_) => Operation {
            codes: vec![ErrorCode::NotCancellable],
            ..post(
                "cancelOperation",
                "Asks for the end of an operation before its commit; it is undone.",
                vec![Answer {
                    status: 202,
                    about: "It is going to end as cancelled, unless its commit was faster.",
                    shapes: vec![schemas.json::<View<'_>>(operation_example("running"))],
                }],
            )
        },
        Route::SystemStats => get(
            "systemStats",
            "What there is, what is used and what is promised of this host, and whether it takes another tenant.",
            ok(
                "The numbers. What cannot be seen is null.",
                schemas.json::<SystemStats>({
                    let disk = json!({
                        "total_bytes": 100_000_000_000_u64, "used_bytes": 40_000_000_000_u64,
                        "free_bytes": 55_000_000_000_u64, "total_inodes": 6_000_000, "free_inodes": 5_500_000
                    });
                    let some = json!({"avg10": 0.5, "avg60": 0.25, "avg300": 0.0});
                    json!({
                        "version": "0.1.0", "uptime_s": 86400, "schedulable": false, "reasons": ["cordoned"],
                        "cpu": {
                            "total_cores": 8, "used_cores": 1.5, "committed_cores": 4.0, "committable_cores": 64.0
                        },
                        "memory": {
                            "total_bytes": 33_554_432_000_u64, "used_bytes": 9_000_000_000_u64,
                            "available_bytes": 24_554_432_000_u64, "swap_used_bytes": 0,
                            "committed_bytes": 6_442_450_944_u64, "committable_bytes": 33_017_561_088_u64
                        },
                        "disks": {"tenants_root": disk, "engine_root": null},
                        "load": {"avg1": 1.5, "avg5": 1.25, "avg15": 1.0},
                        "pressure": {
                            "cpu": {"some": some, "full": null}, "memory": {"some": some, "full": some}, "io": null
                        },
                        "tenants": {
                            "running": 12, "stopped": 1, "kept": 2, "unreadable": 0, "max": 200, "free": 187
                        },
                        "ports": {"total": 10000, "free": 9980}, "subnets": {"free": 1010},
                        "images": {"count": 9, "bytes": 2_000_000_000_u64},
                        "engine": {
                            "kind": "docker", "state": "up", "version": "26.1.5", "api_version": "1.45", "age_ms": 4000
                        },
                        "age_ms": 300
                    })
                }),
            ),
        ),
        Route::Metrics => get(
            "metrics",
            "Metrics for Prometheus (text format 0.0.4); docs/metrics.md has them all.",
            ok("The text.", Shape::text("text/plain", "q8_agent_engine_up 1.0\n")),
        ),
        Route::Cordon => Operation {
            body: Some(Body {
                schema: schemas.of::<CordonBody>(),
                required: false,
                example: json!({"reason": "new disk"}),
            }),
            ..mutation(
                "cordon",
                "Takes no new tenant on this host, across restarts.",
                ok(
                    "It takes none.",
                    schemas.json::<Cordoned>(json!({
                        "status": "cordoned", "changed": true, "since": "2026-11-21T10:30:00Z", "reason": "new disk"
                    })),
                ),
                schemas,
            )
        },
        Route::Uncordon => mutation(
            "uncordon",
            "Takes new tenants again.",
            ok("It does.", schemas.json::<Cordoned>(json!({"status": "uncordoned", "changed": true}))),
            schemas,
        ),
        Route::Prune => Operation {
            body: Some(Body {
                schema: schemas.of::<PruneBody>(),
                required: false,
                example: json!({"dry_run": false, "kinds": ["image", "volume"], "volumes": ["q8-acme_old"]}),
            }),
            codes: codes(&[OPERATES, CHANGES]),
            ..mutation(
                "prune",
                "Removes what is left over of what this agent has made; without dry_run: false it only tells, at once and anew.",
                ok(
                    "What is, or was, left over.",
                    schemas.json::<Pruned>(json!({
                        "dry_run": false, "removed": 1, "freed_bytes": 187_000_000,
                        "objects": [
                            {"kind": "volume", "name": "q8-acme_data", "backend": "docker", "subdomain": "acme", "removed": false,
                             "note": "goes only if `volumes` names it"},
                            {"kind": "image", "name": "nginx:1.26", "backend": "docker", "bytes": 187_000_000, "removed": true}
                        ]
                    })),
                ),
                schemas,
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

//! Makes the document, and holds it against what it describes.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::operations::{Answer, ID, Operation, describe, routes};
use crate::api::error::{ErrorBody, status_of};
use crate::api::router::{self, Route};
use crate::api::{auth, query, requests};
use crate::domain::ErrorCode;

/// Set, the test writes the document in place of comparing it.
const UPDATE: &str = "Q8_UPDATE_OPENAPI";
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/openapi/openapi.json");

/// The schemas of all types that have been asked for.
pub(super) struct Schemas(SchemaGenerator);

/// One form of a body: its media type, schema and example.
pub(super) struct Shape {
    media: &'static str,
    schema: Value,
    example: Option<Value>,
    /// What one line of the body is.
    lines: Vec<Value>,
    /// What the data of each type of server-sent event is.
    events: Map<String, Value>,
}

impl Shape {
    fn new(media: &'static str) -> Self {
        Self { media, schema: Value::Null, example: None, lines: Vec::new(), events: Map::new() }
    }

    /// A text.
    pub(super) fn text(media: &'static str, example: &str) -> Self {
        Self { schema: json!({"type": "string"}), example: Some(json!(example)), ..Self::new(media) }
    }

    /// A text of lines that are JSON of one of these schemas.
    pub(super) fn lines(media: &'static str, lines: Vec<Value>, example: &str) -> Self {
        Self { lines, ..Self::text(media, example) }
    }

    /// Server-sent events: their types, with the schema of what each has as its data.
    pub(super) fn events(events: Map<String, Value>, example: &str) -> Self {
        Self { events, ..Self::text("text/event-stream", example) }
    }

    /// Any JSON object.
    pub(super) fn any_json() -> Self {
        Self { schema: json!({"type": "object"}), ..Self::new("application/json") }
    }
}

impl Schemas {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
            settings.meta_schema = None;
            settings.definitions_path = "/components/schemas".into();
        });
        Self(settings.into_generator())
    }

    /// A reference to a type's schema.
    pub(super) fn of<T: JsonSchema>(&mut self) -> Value {
        self.0.subschema_for::<T>().into()
    }

    /// A JSON body of this type.
    pub(super) fn json<T: JsonSchema>(&mut self, example: Value) -> Shape {
        Shape { schema: self.of::<T>(), example: Some(example), ..Shape::new("application/json") }
    }
}

fn document() -> Value {
    let mut schemas = Schemas::new();
    let mut paths: Map<String, Value> = Map::new();
    let mut errors: BTreeMap<String, Value> = BTreeMap::new();
    for route in routes() {
        let operation = describe(&route, &mut schemas);
        let method = operation.method;
        let object = operation_object(&route, operation, &mut schemas, &mut errors);
        paths.entry(route.template()).or_insert_with(|| json!({}))[method] = object;
    }
    let error = schemas.of::<ErrorBody<'_>>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "q8-agent",
            "version": env!("CARGO_PKG_VERSION"),
            "description": env!("CARGO_PKG_DESCRIPTION"),
            "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8080"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "headers": HEADERS.iter().map(|(name, about)| {
                ((*name).to_owned(), json!({"description": about, "schema": {"type": "string"}}))
            }).collect::<Map<_, _>>(),
            "responses": {"Error": {
                "description": "What went wrong. The text may change, the code does not.",
                "headers": headers(["X-Request-Id"]),
                "content": {"application/json": {"schema": error, "example": {
                    "error": "there is no tenant acme", "code": "NOT_FOUND",
                    "request_id": "01a217a6-8dd5-77d7-9e69-c09e82148a7f", "retryable": false,
                }}},
            }},
            "examples": errors,
            "schemas": schemas.0.take_definitions(true),
        },
    })
}

/// An error with this code.
fn example_of(code: ErrorCode, word: &str) -> Value {
    let text = word.to_lowercase().replace('_', " ");
    json!({"value": {"error": text, "code": code, "request_id": ID, "retryable": code.is_retryable()}})
}

/// The headers of answers, besides those that every HTTP answer has, and what they say.
const HEADERS: &[(&str, &str)] = &[
    ("X-Request-Id", "Names the request in the agent's log; a client may choose it."),
    ("X-Operation-Id", "The operation that the answer is about, if one was begun."),
    ("Idempotency-Replayed", "`true`: the answer of an earlier request with the same Idempotency-Key."),
    ("Location", "Where the operation is to be asked for."),
    ("Preference-Applied", "`respond-async`: the answer did not wait for the operation's end."),
    ("ETag", "A weak tag of what is said, its age excepted; for If-None-Match."),
    ("Retry-After", "Seconds after which the request may succeed."),
    ("WWW-Authenticate", "`Bearer`."),
    ("X-Accel-Buffering", "`no`: a proxy is not to hold the stream back."),
];

fn headers(names: impl IntoIterator<Item = &'static str>) -> Value {
    let reference = |name| json!({"$ref": format!("#/components/headers/{name}")});
    names.into_iter().map(|name| (name.to_owned(), reference(name))).collect::<Map<_, _>>().into()
}

/// What an answer of this status can have. `parameters` are the request's headers, which say what kind of operation it is.
fn headers_of(parameters: &[&str], status: u16) -> Value {
    let mut names = vec!["X-Request-Id"];
    if parameters.contains(&"Idempotency-Key") {
        names.extend(["X-Operation-Id", "Idempotency-Replayed"]);
    }
    match status {
        202 => names.extend(["Location", "Preference-Applied"]),
        200 | 304 if parameters.contains(&"If-None-Match") => names.push("ETag"),
        401 => names.push("WWW-Authenticate"),
        409 | 429 | 503 => names.push("Retry-After"),
        _ => {}
    }
    headers(names)
}

fn operation_object(
    route: &Route,
    operation: Operation,
    schemas: &mut Schemas,
    errors: &mut BTreeMap<String, Value>,
) -> Value {
    let mut parameters: Vec<Value> = Vec::new();
    if route.template().contains("{subdomain}") {
        parameters.push(json!({
            "name": "subdomain", "in": "path", "required": true, "schema": schemas.of::<crate::domain::Subdomain>(),
            "example": "acme",
        }));
    }
    if route.template().contains("{id}") {
        parameters.push(json!({
            "name": "id", "in": "path", "required": true, "schema": schemas.of::<crate::domain::OperationId>(),
            "example": ID,
        }));
    }
    let asked: Vec<&str> = operation.headers.iter().map(|header| header.name).collect();
    for (place, group) in [("query", operation.query), ("header", operation.headers)] {
        parameters.extend(group.into_iter().map(|parameter| {
            json!({
                "name": parameter.name, "in": place, "description": parameter.about, "schema": parameter.schema
            })
        }));
    }
    let mut responses: BTreeMap<String, Value> = BTreeMap::new();
    for Answer { status, about, shapes } in operation.answers {
        let is_log = status == 200 && route.template().ends_with("/logs/{subdomain}");
        let is_stream = is_log || shapes.iter().any(|shape| !shape.events.is_empty());
        let content: Map<String, Value> = shapes
            .into_iter()
            .map(|shape| {
                let mut body = json!({"schema": shape.schema});
                if let Some(example) = shape.example {
                    body["example"] = example;
                }
                if !shape.lines.is_empty() {
                    // OpenAPI 3.1 has no word for a body of lines.
                    body["x-lines"] = json!({"anyOf": shape.lines});
                }
                if !shape.events.is_empty() {
                    // Nor for the data of events.
                    body["x-events"] = json!(shape.events);
                }
                (shape.media.to_owned(), body)
            })
            .collect();
        let mut headers = headers_of(&asked, status);
        if is_stream {
            headers["X-Accel-Buffering"] = json!({"$ref": "#/components/headers/X-Accel-Buffering"});
        }
        responses.insert(status.to_string(), json!({"description": about, "headers": headers, "content": content}));
    }
    let mut by_status: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    for code in codes_of(route, operation.method, operation.body.is_some(), &operation.codes) {
        let word = json!(code).as_str().expect("a word").to_owned();
        errors.entry(word.clone()).or_insert_with(|| example_of(code, &word));
        by_status.entry(status_of(code).as_u16()).or_default().insert(word);
    }
    for (status, codes) in by_status {
        let told: Vec<&str> = codes.iter().map(String::as_str).collect();
        let examples: Map<String, Value> =
            codes.iter().map(|code| (code.clone(), json!({"$ref": format!("#/components/examples/{code}")}))).collect();
        let error = json!({
            "description": told.join(", "), "headers": headers_of(&asked, status),
            "content": {"application/json": {
                "schema": {"allOf": [schemas.of::<ErrorBody<'_>>(), {"properties": {"code": {"enum": codes}}}]},
                "examples": examples,
            }},
        });
        responses.entry(status.to_string()).or_insert(error);
    }
    let mut object = json!({"operationId": operation.id, "summary": operation.summary});
    if !parameters.is_empty() {
        object["parameters"] = json!(parameters);
    }
    if let Some(body) = operation.body {
        object["requestBody"] = json!({
            "required": body.required,
            "content": {"application/json": {"schema": body.schema, "example": body.example}},
        });
    }
    object["responses"] = json!(responses);
    if auth::is_open(route.template()) {
        object["security"] = json!([]);
    }
    object
}

/// What an operation can refuse with: what every one of its kind can, and its own.
fn codes_of(route: &Route, method: &str, has_body: bool, own: &[ErrorCode]) -> Vec<ErrorCode> {
    let mut codes = vec![ErrorCode::InvalidRequest, ErrorCode::RateLimited, ErrorCode::Internal];
    if !auth::is_open(route.template()) {
        codes.push(ErrorCode::Unauthorized);
        if method == "post" {
            codes.push(ErrorCode::Forbidden);
        }
    }
    if has_body {
        codes.push(ErrorCode::PayloadTooLarge);
    }
    if route.template().contains("{subdomain}") {
        codes.extend([
            ErrorCode::InvalidSubdomain,
            ErrorCode::NotFound,
            ErrorCode::TenantDamaged,
            // It was placed on one that the settings do not have any more.
            ErrorCode::BackendNotConfigured,
        ]);
    }
    if route.template().contains("{id}") {
        codes.push(ErrorCode::NotFound);
    }
    codes.extend(own);
    codes
}

/// One line for each operation and schema: the agent carries the text, and the spaces of a pretty one are more than half of it.
fn lines(value: &Value, depth: usize) -> String {
    match value {
        Value::Object(members) if depth > 0 => {
            let members: Vec<String> =
                members.iter().map(|(name, member)| format!("{}:{}", json!(name), lines(member, depth - 1))).collect();
            format!("{{\n{}\n}}", members.join(",\n"))
        }
        whole => whole.to_string(),
    }
}

/// The members of an object's schema.
fn members(document: &Value, name: &str) -> BTreeSet<String> {
    let schema = &document["components"]["schemas"][name]["properties"];
    schema.as_object().unwrap_or_else(|| panic!("{name} is an object")).keys().cloned().collect()
}

/// What a refusal says there is: `…; there are a, b, c`.
fn told(message: &str) -> BTreeSet<String> {
    let (_, list) = message.split_once("there are ").unwrap_or_else(|| panic!("{message}"));
    let list = list.split(['(', ';', ':']).next().unwrap_or_default();
    list.split(',').map(|word| word.split_whitespace().next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_document_is_what_the_types_say() {
    let text = lines(&document(), 3) + "\n";
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(FILE, &text).expect("it can be written");
    }
    assert!(std::fs::read_to_string(FILE).expect("it is there") == text, "openapi.json is out of date: `make openapi`");
}

#[test]
fn every_path_of_the_document_leads_somewhere_and_back() {
    let document = document();
    let paths = document["paths"].as_object().expect("paths");
    let mut ids = BTreeSet::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().expect("operations") {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            let filled = path.replace("{subdomain}", "acme").replace("{id}", ID);
            let route = router::find(&method, &filled).unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
            assert_eq!(route.template(), path);
            assert!(ids.insert(operation["operationId"].to_string()), "{path}: an id of its own");
        }
    }
    assert_eq!(ids.len(), routes().len());
}

#[test]
fn every_code_of_the_contract_is_in_it() {
    let document = document();
    let schema = &document["components"]["schemas"]["ErrorCode"];
    let listed: BTreeSet<&str> = schema["enum"].as_array().expect("words").iter().filter_map(Value::as_str).collect();
    let mut used = BTreeSet::from(["METHOD_NOT_ALLOWED".to_owned()]);
    for operations in document["paths"].as_object().expect("paths").values() {
        for operation in operations.as_object().expect("operations").values() {
            for response in operation["responses"].as_object().expect("responses").values() {
                let codes =
                    &response["content"]["application/json"]["schema"]["allOf"][1]["properties"]["code"]["enum"];
                used.extend(codes.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
            }
        }
    }
    assert_eq!(listed, used.iter().map(String::as_str).collect());
}

#[test]
fn the_bodies_have_the_members_that_are_read() {
    let document = document();
    let unknown = |message: Result<String, String>| told(&message.expect_err("x is no member"));
    let read = |body: &str| requests::provision(body.as_bytes()).map(|_| String::new()).map_err(|error| error.message);
    let body = r#"{"id": "a", "subdomain": "a", "compose_content": "", "x": 1}"#;
    assert_eq!(unknown(read(body)), members(&document, "ProvisionBody"));
    let read = |body: &str| requests::update(body.as_bytes()).map(|_| String::new()).map_err(|error| error.message);
    assert_eq!(unknown(read(r#"{"subdomain": "a", "x": 1}"#)), members(&document, "UpdateBody"));
    for (inner, name) in [
        (r#""placement": {"backend": "docker", "x": 1}"#, "Placement"),
        (r#""limits": {"x": 1}"#, "Limits"),
        (
            r#""registry_auth": [{"registry": "a.example", "username": "a", "password": "a", "x": 1}]"#,
            "RegistryCredentials",
        ),
        (r#""files": {"a": {"text": "a", "x": 1}}"#, "FileObject"),
    ] {
        let body = format!(r#"{{"id": "a", "subdomain": "a", "compose_content": "", {inner}}}"#);
        let message = requests::provision(body.as_bytes()).expect_err("x is no member").message;
        assert_eq!(told(&message), members(&document, name), "{message}");
    }
    let message = requests::cordon(br#"{"x": 1}"#).expect_err("x is no member").message;
    assert_eq!(told(&message), members(&document, "CordonBody"));
    let message = requests::prune(br#"{"x": 1}"#).expect_err("x is no member").message;
    assert_eq!(told(&message), members(&document, "PruneBody"));
}

#[test]
fn the_queries_have_the_parameters_that_are_read() {
    let document = document();
    let refused = |result: Result<(), crate::api::error::ApiError>| match result.expect_err("x is none").message {
        message if message.contains("no query parameters") => BTreeSet::new(),
        message => told(&message),
    };
    let x = Some("x=1");
    for route in routes() {
        let operations = &document["paths"][route.template()];
        let operation = operations.get("get").or(operations.get("post")).expect("one of the two");
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let described: BTreeSet<String> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().expect("a name").to_owned())
            .collect();
        let read = match &route {
            Route::Rollback(_) => refused(query::from(x).map(drop)),
            Route::Restart(_) | Route::Stop(_) | Route::Start(_) => refused(query::service(x).map(drop)),
            Route::Teardown(_) => refused(query::purge(x).map(drop)),
            Route::Operations => refused(query::operations(x).map(drop)),
            Route::Logs(tenant) => refused(query::logs(x, jiff::Timestamp::now(), tenant).map(drop)),
            Route::Status(_) => refused(query::status(x).map(drop)),
            Route::Events => refused(query::events(x).map(drop)),
            _ => refused(query::none(x)),
        };
        assert_eq!(described, read, "{}", route.template());
    }
}

#[test]
fn the_examples_are_what_their_schemas_say() {
    let document = document();
    let mut checked = 0;
    let mut check = |place: &str, media: &Value| {
        let Some(example) = media.get("example").filter(|_| media["schema"] != json!({"type": "string"})) else {
            return;
        };
        let mut schema = media["schema"].clone();
        schema["components"] = document["components"].clone();
        let validator = jsonschema::draft202012::new(&schema).expect("the schema is one");
        let errors: Vec<String> =
            validator.iter_errors(example).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{place}: {errors:?}");
        checked += 1;
    };
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for operation in operations.as_object().expect("operations").values() {
            check(path, &operation["requestBody"]["content"]["application/json"]);
            for response in operation["responses"].as_object().expect("responses").values() {
                check(path, &response["content"]["application/json"]);
            }
        }
    }
    let mut error = document["components"]["schemas"]["ErrorBody"].clone();
    error["components"] = document["components"].clone();
    for (code, example) in document["components"]["examples"].as_object().expect("examples") {
        check(code, &json!({"schema": error, "example": example["value"]}));
    }
    assert!(checked > 60, "{checked}");
    for (body, read) in [("/v1/tenants/provision", true), ("/v1/tenants/update", false)] {
        let example = &document["paths"][body]["post"]["requestBody"]["content"]["application/json"]["example"];
        let text = example.to_string();
        let read = if read {
            requests::provision(text.as_bytes()).map(drop)
        } else {
            requests::update(text.as_bytes()).map(drop)
        };
        read.unwrap_or_else(|error| panic!("{body}: {error:?}"));
    }
}

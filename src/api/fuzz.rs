//! Fuzz targets: paths, queries, JSON bodies.

use hyper::Method;
use serde_json::{Value, json};

use super::error::ApiError;
use super::router::Route;
use super::{query, requests, router};
use crate::domain::{ErrorCode, Subdomain};
use crate::fuzz::{self, Bytes, Forest, Material, Outcome, Rng, lossy};

/// Every path there is, `*` for a name, and its method.
const PATHS: &[(&str, &str)] = &[
    ("GET", "/health"),
    ("GET", "/live"),
    ("GET", "/ready"),
    ("GET", "/openapi.json"),
    ("POST", "/v1/tenants/provision"),
    ("POST", "/v1/tenants/update"),
    ("POST", "/v1/tenants/rollback/*"),
    ("POST", "/v1/tenants/restart/*"),
    ("POST", "/v1/tenants/stop/*"),
    ("POST", "/v1/tenants/start/*"),
    ("POST", "/v1/tenants/teardown/*"),
    ("GET", "/v1/tenants"),
    ("GET", "/v1/tenants/status/*"),
    ("GET", "/v1/tenants/logs/*"),
    ("GET", "/v1/tenants/images/*"),
    ("GET", "/v1/system/info"),
    ("POST", "/v1/system/cordon"),
    ("POST", "/v1/system/uncordon"),
    ("POST", "/v1/system/prune"),
];

#[test]
fn fuzz_paths_of_requests() {
    let names: Vec<String> = PATHS.iter().map(|(_, path)| path.replace('*', "acme")).collect();
    let seeds: Vec<&str> = names.iter().map(String::as_str).collect();
    let words = [
        "/",
        "//",
        "/.",
        "/..",
        "%2f",
        "%61",
        ";a",
        "?x=1",
        "#x",
        "\\",
        "V1",
        "v1",
        "tenants",
        "status",
        "acme",
        "a-b",
        "docker",
        "*",
        "{subdomain}",
    ];
    let material = Material::of_texts(&seeds, &words, 400);
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get", "POSTS", "TRACE", "CONNECT"];
    let make = |rng: &mut Rng| (*rng.pick(&methods), material.text(rng));
    fuzz::run("router", make, |(method, path)| {
        // A template, and what stands in the place of the name.
        let of = PATHS.iter().find_map(|(verb, template)| match template.strip_suffix('*') {
            Some(start) => path.strip_prefix(start).filter(|name| !name.contains('/')).map(|name| (verb, Some(name))),
            None => (path == template).then_some((verb, None)),
        });
        let asked = if *method == "HEAD" { "GET" } else { method };
        let wanted = match of {
            None => Err(ErrorCode::NotFound),
            Some((verb, _)) if *verb != asked => Err(ErrorCode::MethodNotAllowed),
            Some((_, Some(name))) if Subdomain::parse(name).is_err() => Err(ErrorCode::InvalidSubdomain),
            Some((_, name)) => Ok(name),
        };
        let found = router::find(&Method::from_bytes(method.as_bytes()).unwrap(), path);
        match (&found, wanted) {
            (Ok(route), Ok(name)) => {
                assert_eq!(route.template().replace("{subdomain}", name.unwrap_or_default()), *path);
                assert_eq!(name_in(route), name);
            }
            (Err(error), Err(code)) => {
                assert_eq!(error.code, code);
                assert!(error.message.len() < 300 && error.message.is_ascii(), "{}", error.message);
            }
            (found, wanted) => panic!("{found:?} in place of {wanted:?}"),
        }
        Outcome::from(&found)
    });
}

fn name_in(route: &Route) -> Option<&str> {
    match route {
        Route::Rollback(name)
        | Route::Restart(name)
        | Route::Stop(name)
        | Route::Start(name)
        | Route::Teardown(name)
        | Route::Status(name)
        | Route::Logs(name)
        | Route::Images(name) => Some(name.as_str()),
        Route::Health
        | Route::Live
        | Route::Ready
        | Route::Provision
        | Route::Update
        | Route::Tenants
        | Route::Info
        | Route::Cordon
        | Route::Uncordon
        | Route::Prune
        | Route::OpenApi => None,
    }
}

/// A refusal of a query or a body.
fn is_orderly(error: &ApiError) {
    let codes = [
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidSubdomain,
        ErrorCode::InvalidFilePath,
        ErrorCode::PayloadTooLarge,
        ErrorCode::UnsupportedOnBackend,
    ];
    assert!(codes.contains(&error.code), "{error:?}");
    let field = error.field.as_deref().unwrap_or_default();
    assert!(error.message.len() < 1000 && field.len() < 4000, "{error:?}");
    assert!(!error.message.contains(char::is_control) && !field.contains(char::is_control), "{error:?}");
}

#[test]
fn fuzz_queries() {
    let seeds = [
        "service=web&service=d%62&tail=all&follow=true&timestamps=1&since=10m&until=2026-11-21T13:00:00%2B01:00",
        "from=7",
        "purge=true",
        "service=a",
        "",
    ];
    let words = [
        "&",
        "=",
        "%",
        "%2B",
        "%00",
        "%c3%28",
        "+",
        "tail=",
        "since=",
        "until=9999-12-31T23:59:59Z",
        "since=-009999-01-01T00:00:00Z",
        "1h30m",
        "5000000000y",
        "99999999999999999999",
        "follow",
        "service=a/../b",
        "TRUE",
        "1.5e3s",
        "[Europe/Berlin]",
        "2026-02-30T00:00:00Z",
        "24:00:60",
    ];
    let material = Material::of_texts(&seeds, &words, 4096);
    let now: jiff::Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    fuzz::run(
        "queries",
        |rng| material.text(rng),
        |raw| {
            let query = Some(raw.as_str());
            let logs = query::logs(query, now);
            if let Ok((logs, _)) = &logs {
                assert!(logs.since.zip(logs.until).is_none_or(|(since, until)| since <= until));
                assert!(logs.services.len() <= 200);
            }
            assert_eq!(query::none(query).is_ok(), raw.chars().all(|c| c == '&'), "{raw:?}");
            assert!(
                query::from(query).is_ok_and(|from| from.is_none_or(|from| from.0 > 0)) || query::from(query).is_err()
            );
            let results = [
                logs.map(drop),
                query::none(query),
                query::service(query).map(drop),
                query::from(query).map(drop),
                query::purge(query).map(drop),
            ];
            for error in results.iter().filter_map(|result| result.as_ref().err()) {
                is_orderly(error);
                assert_eq!(error.code, ErrorCode::InvalidRequest);
            }
            if results.iter().any(Result::is_ok) { Outcome::Accepted } else { Outcome::Refused }
        },
    );
}

/// What no answer and no log may have.
const CANARY: &str = "c4n4ry-v4lu3";

fn bodies() -> Vec<Value> {
    vec![
        json!({ "id": "t-1", "subdomain": "acme", "compose_content": "services: {}" }),
        json!({
            "id": "t-1", "subdomain": "acme", "compose_content": "services: {}", "env_content": "A=1",
            "files": {
                "html/index.html": "hello",
                "bin/run": { "base64": "AAEC", "mode": "0755" },
                "note": { "text": "x", "mode": "600" },
            },
            "profiles": ["debug", "*"],
            "placement": { "backend": "aci", "region": "westeurope", "fallback": false },
            "limits": { "services": 3, "containers": 4, "networks": 1, "volumes": 2, "ports": 0, "cpus": 0.5, "memory": 1_048_576, "pids": 9 },
            "registry_auth": [{ "registry": "index.docker.io", "username": "robot", "password": "pw" }],
            "adopt": true,
        }),
        json!({ "subdomain": "acme", "files": { "a": "new", "A": null, "old/x": null }, "services": ["web", "db"], "pull": false }),
        json!({ "subdomain": "acme", "compose_content": "services: {}", "env_content": "", "profiles": [], "limits": { "cpus": 1e-9 } }),
    ]
}

const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "true",
    "false",
    "-0",
    "1e400",
    "0.1",
    "1E+2",
    "01",
    "\\u0000",
    "\\ud800",
    "\\udc00\\ud800",
    "\\n",
    "\"a\":",
    "\"files\":",
    "\"subdomain\"",
    "compose.yaml",
    "../x",
    "a/b",
    ".env",
    "0777",
    "1777",
    "AAEC=",
    "docker",
    "memory",
    "ghcr.io",
    "https://index.docker.io/v1/",
    "acme",
    "host",
    "*",
    "[]",
    "{}",
    "9007199254740993",
    "18446744073709551615",
    "{\"text\":\"x\"}",
    "{\"base64\":\"!\"}",
    "[null]",
    "[[[[]]]]",
];

/// Bodies as a client sends them: sometimes with a secret in the place of a text.
fn with_canaries(rng: &mut Rng, value: &mut Value) {
    match value {
        Value::String(text) if rng.one_in(2) => {
            *text = format!("{CANARY}{}", rng.pick(&["", "/x", " ", ".", "=", "\u{0}"]));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| with_canaries(rng, item)),
        Value::Object(members) => members.values_mut().for_each(|member| with_canaries(rng, member)),
        _ => {}
    }
}

fn shown(error: &ApiError) -> String {
    format!("{error:?}")
}

#[test]
fn fuzz_json_bodies() {
    let seeds = bodies()
        .iter()
        .flat_map(|body| [body.to_string(), serde_json::to_string_pretty(body).unwrap()])
        .collect::<Vec<_>>();
    let material = Material::new(seeds.into_iter().map(String::into_bytes).collect(), WORDS, 16 << 10);
    let forest = Forest::new(bodies(), WORDS);
    let make = |rng: &mut Rng| {
        if rng.one_in(2) {
            return Bytes(material.bytes(rng));
        }
        let mut document = forest.document(rng);
        if rng.one_in(2) {
            with_canaries(rng, &mut document);
        }
        Bytes(document.to_string().into_bytes())
    };
    fuzz::run("bodies", make, |Bytes(body)| {
        let (provision, update) = (requests::provision(body), requests::update(body));
        for error in [provision.as_ref().err(), update.as_ref().err()].into_iter().flatten() {
            is_orderly(error);
            let text = lossy(body);
            let told = error.location.is_some() || text.trim_ascii().is_empty() || std::str::from_utf8(body).is_err();
            assert!(told, "{error:?} has no place");
            assert!(error.location.is_none_or(|place| fuzz::is_inside(&text, place)), "{error:?}");
            assert!(!shown(error).contains(CANARY) || is_a_key(body), "{error:?}");
        }
        if let Ok(request) = &provision {
            // The names of files and of what is public may be shown.
            let plain = serde_json::from_slice::<Value>(body).unwrap();
            assert_eq!(plain["compose_content"].as_str(), Some(request.compose.as_str()));
            assert_eq!(plain["subdomain"].as_str(), Some(request.subdomain.as_str()));
        }
        if provision.is_ok() || update.is_ok() { Outcome::Accepted } else { Outcome::Refused }
    });
}

/// Whether the canary has become a key, which may be shown.
fn is_a_key(body: &[u8]) -> bool {
    fn has(value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().any(has),
            Value::Object(members) => members.iter().any(|(key, member)| key.contains(CANARY) || has(member)),
            _ => false,
        }
    }
    serde_json::from_slice(body).is_ok_and(|value| has(&value))
}

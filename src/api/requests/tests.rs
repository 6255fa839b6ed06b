//! Bodies as tables: what is read, and which field a refusal names.

use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;

fn provision_with(changes: &serde_json::Value) -> Result<ProvisionRequest, ApiError> {
    let mut body = json!({ "id": "t-1", "subdomain": "acme", "compose_content": "services: {}" });
    for (key, value) in changes.as_object().unwrap() {
        body[key] = value.clone();
    }
    provision(body.to_string().as_bytes())
}

#[test]
fn a_full_provision_is_read() {
    let request = provision_with(&json!({
        "env_content": "A=1",
        "files": {
            "html/index.html": "hello",
            "bin/run": { "base64": "AAEC", "mode": "0755" },
            "note": { "text": "x", "mode": "600" },
        },
        "profiles": ["debug", "*"],
        "placement": { "backend": "aci", "region": "westeurope", "fallback": true },
        "registry_auth": [{ "registry": "index.docker.io", "username": "robot", "password": "pw" }],
        "adopt": true,
    }))
    .unwrap();
    let file = |path: &str| request.files[&ProjectPath::parse(path).unwrap()].clone();
    assert_eq!((file("html/index.html").bytes, file("html/index.html").mode), (b"hello".to_vec(), 0o644));
    assert_eq!((file("bin/run").bytes, file("bin/run").mode), (vec![0, 1, 2], 0o755));
    assert_eq!(file("note").mode, 0o600);
    assert_eq!(request.env, "A=1");
    assert_eq!(request.profiles.len(), 2);
    assert_eq!(request.placement, Some(Placement { backend: BackendName::Aci, region: Some("westeurope".into()) }));
    assert!(request.fallback);
    assert_eq!(request.registry_auth[0].registry, "docker.io");
    assert_eq!(request.registry_auth[0].password.expose_secret(), "pw");
    assert!(request.adopt);
}

#[test]
fn what_is_absent_or_null_has_its_default() {
    for body in [json!({}), json!({ "env_content": null, "files": null, "placement": null, "adopt": null })] {
        let request = provision_with(&body).unwrap();
        assert!(request.files.is_empty() && request.env.is_empty() && !request.adopt && request.placement.is_none());
        assert!(!request.fallback);
    }
    let request = update(br#"{"subdomain":"acme"}"#).unwrap();
    assert!(request.pull && request.compose.is_none() && request.env.is_none() && request.profiles.is_none());
}

#[test]
fn an_update_writes_and_deletes_files() {
    let body = json!({
        "subdomain": "acme",
        "files": { "a": "new", "A": null, "old/x": null },
        "services": ["web", "db"],
        "pull": false,
        "env_content": "",
    });
    let request = update(body.to_string().as_bytes()).unwrap();
    let file = |path: &str| request.files[&ProjectPath::parse(path).unwrap()].is_some();
    assert!(file("a") && !file("A") && !file("old/x"));
    assert_eq!(request.services.len(), 2);
    assert_eq!(request.env.as_deref(), Some(""));
    assert!(!request.pull);
}

#[test]
fn refusals_name_the_field_and_never_the_value() {
    use ErrorCode::{
        InvalidFilePath as Path, InvalidRequest as Request, InvalidSubdomain as Sub, PayloadTooLarge as Large,
    };
    let many: serde_json::Map<_, _> = (0..2001).map(|n| (format!("f{n}"), json!(""))).collect();
    let profiles: Vec<_> = (0..201).map(|n| format!("p{n}")).collect();
    for (changes, code, field) in [
        (json!({ "id": null }), Request, "id"),
        (json!({ "id": 7 }), Request, "id"),
        (json!({ "id": "canary/../x" }), Request, "id"),
        (json!({ "subdomain": "Canary" }), Sub, "subdomain"),
        (json!({ "subdomain": ["canary"] }), Request, "subdomain"),
        (json!({ "compose_content": { "canary": 1 } }), Request, "compose_content"),
        (json!({ "compose_content": "x".repeat((1 << 20) + 1) }), Large, "compose_content"),
        (json!({ "env_content": "x".repeat((1 << 20) + 1) }), Large, "env_content"),
        (json!({ "env_content": ["canary"] }), Request, "env_content"),
        (json!({ "files": "canary" }), Request, "files"),
        (json!({ "files": many }), Request, "files"),
        (json!({ "files": { "a": null } }), Request, r#"files["a"]"#),
        (json!({ "files": { "a": 5 } }), Request, r#"files["a"]"#),
        (json!({ "files": { "a": {} } }), Request, r#"files["a"]"#),
        (json!({ "files": { "a": { "text": "canary", "base64": "" } } }), Request, r#"files["a"]"#),
        (json!({ "files": { "a": { "base64": "canary!" } } }), Request, r#"files["a"].base64"#),
        (json!({ "files": { "a": { "text": "", "mode": 644 } } }), Request, r#"files["a"].mode"#),
        (json!({ "files": { "a": { "text": "", "mode": "4755" } } }), Request, r#"files["a"].mode"#),
        (json!({ "files": { "a": { "text": "", "mode": "0o644" } } }), Request, r#"files["a"].mode"#),
        (json!({ "files": { "a": { "text": "", "mode": "+644" } } }), Request, r#"files["a"].mode"#),
        (json!({ "files": { "a": { "text": "", "owner": "canary" } } }), Request, r#"files["a"].owner"#),
        (json!({ "files": { "../x": "canary" } }), Path, r#"files["../x"]"#),
        (json!({ "files": { "a\n\"b": "canary" } }), Path, r#"files["a\n\"b"]"#),
        (json!({ "files": { ".env": "canary" } }), Path, r#"files[".env"]"#),
        (json!({ "files": { "a/B": "", "A/b": "" } }), Path, r#"files["a/B"]"#),
        (json!({ "files": { "a": "", "a/b": "" } }), Path, r#"files["a/b"]"#),
        (json!({ "profiles": "canary" }), Request, "profiles"),
        (json!({ "profiles": ["ok", "canary x"] }), Request, "profiles[1]"),
        (json!({ "profiles": profiles }), Request, "profiles"),
        (json!({ "placement": {} }), Request, "placement.backend"),
        (json!({ "placement": { "backend": "canary" } }), Request, "placement.backend"),
        (json!({ "placement": { "backend": "aci", "region": "West Canary" } }), Request, "placement.region"),
        (json!({ "placement": { "backend": "aci", "fallback": "canary" } }), Request, "placement.fallback"),
        (json!({ "placement": { "backend": "aci", "zone": "canary" } }), Request, "placement.zone"),
        (json!({ "registry_auth": [{ "registry": "https://canary.io" }] }), Request, "registry_auth[0].registry"),
        (
            json!({ "registry_auth": [{ "registry": "ghcr.io", "username": "u" }] }),
            Request,
            "registry_auth[0].password",
        ),
        (json!({ "adopt": "yes" }), Request, "adopt"),
        (json!({ "env": "canary" }), Request, "env"),
        (json!({ "expect_plan": "canary" }), Request, "expect_plan"),
    ] {
        let error = provision_with(&changes).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (code, Some(field)), "{}", error.message);
        assert!(!error.message.contains("canary") && !error.message.contains("Canary"), "{}", error.message);
        assert!(error.location.is_some(), "{field}");
    }
}

#[test]
fn an_update_without_a_subdomain_or_with_foreign_fields_is_refused() {
    for (body, field) in [
        (json!({}), "subdomain"),
        (json!({ "subdomain": "acme", "id": "t-1" }), "id"),
        (json!({ "subdomain": "acme", "adopt": true }), "adopt"),
        (json!({ "subdomain": "acme", "services": ["a b"] }), "services[0]"),
        (json!({ "subdomain": "acme", "files": { "a": "", "A": "" } }), "files[\"a\"]"),
    ] {
        assert_eq!(update(body.to_string().as_bytes()).unwrap_err().field.as_deref(), Some(field));
    }
}

//! Holds every answer of an agent against the description of the API: a status, a member or a code that is not described fails
//! the test that met it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use hyper::Method;
use jsonschema::Validator;
use serde_json::{Value, json};

use super::http::Answer;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document: Value =
        serde_json::from_str(include_str!("../../src/api/openapi/openapi.json")).expect("the document is JSON");
    // Clients must take members that they do not know; here nothing may be said that is not described.
    close(&mut document["components"]["schemas"]);
    document
});

/// Headers that say nothing of the API.
const USUAL: &[&str] = &[
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "transfer-encoding",
    "x-accel-buffering",
    "x-content-type-options",
];

/// Objects with described members have no others. Where members are described beside a choice of others, the whole is closed
/// and not each choice; what is put together of several schemas stays open.
fn close(schema: &mut Value) {
    fn walk(schema: &mut Value, is_choice: bool) {
        match schema {
            Value::Object(members) => {
                let describes = members.contains_key("properties");
                let chooses = describes && CHOICES.iter().any(|word| members.contains_key(*word));
                if describes && !is_choice && !members.contains_key("allOf") {
                    let word = if chooses { "unevaluatedProperties" } else { "additionalProperties" };
                    members.entry(word).or_insert(Value::Bool(false));
                }
                for (name, member) in members {
                    match member.as_array_mut().filter(|_| chooses && CHOICES.contains(&name.as_str())) {
                        Some(choices) => choices.iter_mut().for_each(|choice| walk(choice, true)),
                        None => walk(member, false),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, false)),
            _ => {}
        }
    }
    walk(schema, false);
}

const CHOICES: [&str; 2] = ["oneOf", "anyOf"];

/// The path of the document that a request's path is one of, with what is described for it.
fn described(path: &str) -> Option<&'static Value> {
    let asked: Vec<&str> = path.split('/').collect();
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let fits = |template: &&String| {
        let parts: Vec<&str> = template.split('/').collect();
        parts.len() == asked.len()
            && parts.iter().zip(&asked).all(|(part, given)| part.starts_with('{') || part == given)
    };
    paths.keys().find(fits).map(|template| &paths[template])
}

fn validator(schema: &Value) -> Arc<Validator> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = known.entry(schema.to_string());
    Arc::clone(entry.or_insert_with(|| {
        let mut whole = schema.clone();
        whole["components"] = DOCUMENT["components"].clone();
        Arc::new(jsonschema::draft202012::new(&whole).expect("a schema of the document"))
    }))
}

/// Fails unless the answer is one that the document describes for this request.
pub(crate) fn check(method: &Method, path: &str, answer: &Answer) {
    let path = path.split('?').next().unwrap_or_default();
    let method = if method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
    // What is no path, or has no such method, is refused, and no operation does that.
    let Some(operation) = described(path).and_then(|operations| operations.get(&method)) else {
        assert!(!answer.status.is_success(), "{method} {path}: the document does not know it: {}", answer.text());
        return;
    };
    let status = answer.status.as_u16();
    let Some(response) = operation["responses"].get(status.to_string()) else {
        panic!("{method} {path}: the document does not know status {status}: {}", answer.text());
    };
    for name in answer.headers.keys().filter(|name| !USUAL.contains(&name.as_str())) {
        let known =
            response["headers"].as_object().expect("headers").keys().any(|told| name == told.to_lowercase().as_str());
        assert!(known, "{method} {path}: status {status} has no header {name} in the document");
    }
    if answer.bytes.is_empty() && response.get("content").is_none_or(|content| content == &json!({})) {
        return;
    }
    let media = answer.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    let content = &response["content"];
    let Some(body) = content.get(media) else {
        panic!("{method} {path}: status {status} has no {media} in the document: {}", answer.text());
    };
    if media == "application/json" {
        // To HEAD nothing is said.
        if !answer.bytes.is_empty() {
            complain(&format!("{method} {path} {status}"), &body["schema"], &answer.json());
        }
    } else if let Some(lines) = body.get("x-lines") {
        for line in answer.text().lines().filter(|line| line.starts_with('{')) {
            let said: Value = serde_json::from_str(line).expect("a line of JSON");
            complain(&format!("a line of {method} {path}"), lines, &said);
        }
    }
}

/// Fails unless the document describes such an event of this path's stream.
pub(crate) fn check_event(path: &str, name: &str, data: &Value) {
    let path = path.split('?').next().unwrap_or_default();
    let stream =
        described(path).map(|operations| &operations["get"]["responses"]["200"]["content"]["text/event-stream"]);
    let Some(schema) = stream.and_then(|stream| stream["x-events"].get(name)) else {
        panic!("{path}: the document does not know the event {name}: {data}");
    };
    complain(&format!("the event {name} of {path}"), schema, data);
}

fn complain(what: &str, schema: &Value, said: &Value) {
    let validator = validator(schema);
    let errors: Vec<String> = validator
        .iter_errors(said)
        .map(|error| format!("{} {}: {error}", error.instance_path(), error.schema_path()))
        .collect();
    assert!(errors.is_empty(), "{what} is not as the document has it: {errors:#?}\n{}", json!(said));
}

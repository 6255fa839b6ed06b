//! The double of Azure Resource Manager held against the contract, by a client that knows nothing but HTTP: each rule at least once.
#![cfg(feature = "aci")]

#[path = "../arm_double/mod.rs"]
mod arm_double;
#[allow(dead_code, reason = "only a part of the client is used here")]
#[path = "../support/http.rs"]
mod http;

mod bodies;
mod calls;
mod faults;
mod groups;
mod operations;
mod sockets;
mod storage;
mod tokens;

use std::net::SocketAddr;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use arm_double::{ArmDouble, CLIENT, Delays, SECRET, SUBSCRIPTION, TENANT};
use http::{Answer, Failure};

/// A double whose time stands still as good as: everything takes minutes, and tests skip them.
struct Scene {
    double: ArmDouble,
    token: String,
}

/// Everything takes minutes.
const SLOW: Delays = Delays {
    pending: 600_000,
    pull: 600_000,
    start: 600_000,
    init: 600_000,
    run: 600_000,
    back_off: 600_000,
    sick: 1_200_000,
    stop: 600_000,
    delete: 600_000,
    give_up: 6_000_000,
    ip: 0,
    index: 0,
    share: 600_000,
    account: 600_000,
};

/// One step of [`SLOW`], and a bit.
const STEP: Duration = Duration::from_secs(601);

/// An hour: whatever goes on is over.
const LONG: Duration = Duration::from_secs(3600);

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("the double tells its addresses")
}

/// Headers that every call to Azure Resource Manager has.
fn usual(token: &str) -> Vec<(&'static str, String)> {
    vec![
        ("authorization", format!("Bearer {token}")),
        ("content-type", "application/json".to_owned()),
        ("user-agent", "test".to_owned()),
        ("x-ms-client-request-id", uuid::Uuid::new_v4().to_string()),
    ]
}

async fn raw(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&'static str, String)],
    body: &str,
) -> Result<Answer, Failure> {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let response = http::send(at, method, path, &headers, body.to_owned()).await?;
    http::complete(response).await
}

/// The path with the api-version that its provider wants, unless it has one.
fn versioned(path: &str) -> String {
    let lower = path.split('?').next().unwrap_or_default().to_lowercase();
    let version = if lower.contains("microsoft.containerinstance") {
        "2025-09-01"
    } else if lower.contains("microsoft.storage") {
        "2023-05-01"
    } else {
        "2021-04-01"
    };
    match path {
        path if path.contains("api-version=") => path.to_owned(),
        path if path.contains('?') => format!("{path}&api-version={version}"),
        path => format!("{path}?api-version={version}"),
    }
}

async fn token(double: &ArmDouble) -> String {
    let form = format!(
        "grant_type=client_credentials&client_id={CLIENT}&client_secret={SECRET}&scope=https%3A%2F%2Fmanagement.azure.com%2F.default"
    );
    let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
    let answer =
        raw(address(double.authority()), "POST", &format!("/{TENANT}/oauth2/v2.0/token"), &headers, &form).await;
    let body = answer.expect("the authority answers").expect(200);
    body["access_token"].as_str().expect("a token").to_owned()
}

impl Scene {
    async fn new() -> Self {
        let double = ArmDouble::start().await;
        // A token that outlives all the time that tests skip.
        double.set(|settings| (settings.delays, settings.token_seconds) = (SLOW, 1_000_000_000));
        let token = token(&double).await;
        Self { double, token }
    }

    async fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let mut headers = usual(&self.token);
        if body.is_none() && ["POST", "PUT", "PATCH"].contains(&method) {
            headers.push(("content-length", "0".to_owned()));
        }
        let text = body.map(ToString::to_string).unwrap_or_default();
        raw(address(self.double.endpoint()), method, &versioned(path), &headers, &text).await
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_call(method, path, body).await.expect("the double answers")
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, Some(body)).await
    }

    async fn post(&self, path: &str) -> Answer {
        self.call("POST", path, None).await
    }

    /// A group that runs.
    async fn up(&self, name: &str, body: &Value) {
        self.put(&group(name), body).await.expect(201);
        self.double.advance(LONG);
        let state = &self.get(&group(name)).await.expect(200)["properties"]["provisioningState"];
        assert_eq!(*state, "Succeeded");
    }

    /// GET of a link from an answer.
    async fn follow(&self, link: &str) -> Answer {
        let path = link.strip_prefix(self.double.endpoint()).expect("links lead to the double");
        self.get(path).await
    }
}

/// `error.code` of an answer with this status.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) -> String {
    let body = answer.expect(status);
    assert_eq!(body["error"]["code"], code, "{body}");
    body["error"]["message"].as_str().expect("a message").to_owned()
}

#[track_caller]
fn header(answer: &Answer, name: &str) -> String {
    let value = answer.headers.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", answer.headers));
    value.to_str().expect("text").to_owned()
}

fn group(name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-east/providers/Microsoft.ContainerInstance/containerGroups/{name}"
    )
}

fn share(name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-east/providers/Microsoft.Storage/storageAccounts/steast/fileServices/default/shares/{name}"
    )
}

/// A container as small as it may be.
fn container(name: &str, image: &str) -> Value {
    json!({"name": name, "properties": {"image": image, "resources": {"requests": {"cpu": 1, "memoryInGB": 1.5}}}})
}

/// A group of these containers.
fn body(containers: &[Value]) -> Value {
    json!({"location": "eastus", "tags": {"managed-by": "test"}, "properties": {
        "osType": "Linux", "restartPolicy": "OnFailure", "containers": containers,
    }})
}

/// A group with one container.
fn one(image: &str) -> Value {
    body(&[container("web", image)])
}

//! What the agent adds to Azure's own time: from a provision to a tenant that runs, beside a client that makes the same calls
//! on the same double and looks every 10 milliseconds. Interleaved in one run; prints medians and their ratio, and what the
//! double itself takes. The budget is a ratio of 1.05.
//!
//! `cargo bench --bench aci`; needs no engine. `Q8_BENCH_ROUNDS` sets the number of rounds (7 unless told).
#![allow(clippy::print_stdout, reason = "a table on standard output is what a benchmark is for")]

#[path = "../tests/arm_double/mod.rs"]
mod arm_double;
mod common;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::Method;
use q8_agent::config::Config;
use q8_agent::orchestrator::Orchestrator;
use serde_json::{Value, json};

use arm_double::{ArmDouble, CLIENT, Form, SECRET, SUBSCRIPTION, TENANT};
use common::median;
use common::support::http;

/// How long a group takes, in milliseconds: to be begun, to have its image, to start.
const DELAYS: [u64; 3] = [500, 3000, 500];
/// Between two looks of the other client.
const LOOK: Duration = Duration::from_millis(10);
const STACK: &str =
    "services: {web: {image: example/web, ports: ['80:80'], volumes: ['data:/data']}}\nvolumes: {data: {}}";

fn main() {
    common::run(run());
}

async fn run() {
    let rounds = common::rounds();
    let double = ArmDouble::start().await;
    double.set(|settings| {
        let delays = &mut settings.delays;
        [delays.pending, delays.pull, delays.start] = DELAYS;
        // Many are made in a short time here.
        settings.writes = Vec::new();
    });
    let root = tempfile::tempdir().expect("a directory");
    let agent = agent(&double, &root.path().join("tenants")).await;
    let token = token(&double).await;
    println!("provision to running, medians of {rounds} interleaved rounds, milliseconds");
    println!("the double takes {}", DELAYS.iter().sum::<u64>());
    println!("{:>32} {:>9} {:>9} {:>6}", "operations told by", "client", "q8-agent", "ratio");
    for (what, form, retry_after) in [
        ("Azure-AsyncOperation", Form::AsyncOperation, None),
        ("Location, Retry-After: 2", Form::Location, Some(2)),
        ("nothing but the group", Form::Neither, None),
    ] {
        double.set(|settings| (settings.form, settings.retry_after) = (form, retry_after));
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            for turn in 0..2 {
                if (round + turn) % 2 == 0 {
                    plain.push(plain_round(&double, &token).await);
                } else {
                    ours.push(agent_round(&agent).await);
                }
            }
        }
        let (plain, ours) = (median(plain), median(ours));
        println!("{what:>32} {plain:>9.1} {ours:>9.1} {:>6.3}", ours / plain);
    }
    double.assert_clean();
}

async fn agent(double: &ArmDouble, root: &Path) -> Orchestrator {
    let settings: [(&str, OsString); 10] = [
        ("Q8_AGENT_ADMIN_TOKEN", OsString::from(uuid::Uuid::new_v4().to_string())),
        ("Q8_AGENT_TENANTS_ROOT", root.as_os_str().to_owned()),
        ("Q8_AGENT_BACKEND", OsString::from("aci")),
        ("Q8_AGENT_ACI_REGIONS", OsString::from("eastus:rg-east:steast,westeurope:rg-west:stwest")),
        ("AZURE_SUBSCRIPTION_ID", OsString::from(SUBSCRIPTION)),
        ("AZURE_TENANT_ID", OsString::from(TENANT)),
        ("AZURE_CLIENT_ID", OsString::from(CLIENT)),
        ("AZURE_CLIENT_SECRET", OsString::from(SECRET)),
        ("AZURE_AUTHORITY_HOST", OsString::from(double.authority())),
        ("Q8_AGENT_ARM_ENDPOINT", OsString::from(double.endpoint())),
    ];
    let settings = settings.into_iter().map(|(name, value)| (OsString::from(name), value));
    let config = Config::from_env(settings).expect("the settings are valid");
    Orchestrator::open(&config, std::sync::Arc::default()).await.expect("the agent starts")
}

async fn agent_round(agent: &Orchestrator) -> Duration {
    let tenant = common::tenant();
    let start = Instant::now();
    agent.provision(common::request(&tenant, STACK)).await.expect("it comes up");
    let took = start.elapsed();
    agent.teardown(&tenant, true).await.expect("it goes");
    took
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("the double tells its addresses")
}

async fn token(double: &ArmDouble) -> String {
    let form = format!(
        "grant_type=client_credentials&client_id={CLIENT}&client_secret={SECRET}&scope=https%3A%2F%2Fmanagement.azure.com%2F.default"
    );
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let path = format!("/{TENANT}/oauth2/v2.0/token");
    let response = http::send(address(double.authority()), Method::POST, &path, &headers, form).await;
    let answer = http::complete(response.expect("an answer")).await.expect("a whole one").expect(200);
    answer["access_token"].as_str().expect("a token").to_owned()
}

async fn call(double: &ArmDouble, token: &str, method: Method, path: &str, body: &Value) -> Value {
    let (authorization, id) = (format!("Bearer {token}"), uuid::Uuid::new_v4().to_string());
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let mut headers = vec![
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("user-agent", "bench"),
        ("x-ms-client-request-id", id.as_str()),
    ];
    if body.is_null() && method == Method::POST {
        headers.push(("content-length", "0"));
    }
    let version = if path.contains("Microsoft.Storage") { "2023-05-01" } else { "2025-09-01" };
    let path = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-east/providers/{path}?api-version={version}");
    let response = http::send(address(double.endpoint()), method, &path, &headers, text).await.expect("an answer");
    let answer = http::complete(response).await.expect("a whole one");
    assert!(answer.status.is_success(), "{path}: {}", answer.text());
    if answer.bytes.is_empty() { Value::Null } else { answer.json() }
}

/// The share, its key, the group, and looks until it runs.
async fn plain_round(double: &ArmDouble, token: &str) -> Duration {
    let name = common::support::unique("plain");
    let account = "Microsoft.Storage/storageAccounts/steast";
    let share = format!("{account}/fileServices/default/shares/{name}");
    let group = format!("Microsoft.ContainerInstance/containerGroups/{name}");
    let start = Instant::now();
    call(double, token, Method::PUT, &share, &json!({"properties": {"shareQuota": 5}})).await;
    let keys = call(double, token, Method::POST, &format!("{account}/listKeys"), &Value::Null).await;
    let port = json!([{"port": 80, "protocol": "TCP"}]);
    let body = json!({"location": "eastus", "properties": {
        "osType": "Linux", "restartPolicy": "Never",
        "containers": [{"name": "web", "properties": {
            "image": "example/web", "ports": port, "resources": {"requests": {"cpu": 1.0, "memoryInGB": 1.5}},
            "volumeMounts": [{"name": "store", "mountPath": "/data"}],
        }}],
        "ipAddress": {"type": "Public", "ports": port, "dnsNameLabel": name},
        "volumes": [{"name": "store", "azureFile": {
            "shareName": name, "storageAccountName": "steast", "storageAccountKey": keys["keys"][0]["value"],
        }}],
    }});
    call(double, token, Method::PUT, &group, &body).await;
    loop {
        let seen = call(double, token, Method::GET, &group, &Value::Null).await;
        if seen["properties"]["instanceView"]["state"] == "Running" {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    let took = start.elapsed();
    call(double, token, Method::DELETE, &group, &Value::Null).await;
    // It is gone when nothing is there any more, and only then is its share free.
    double.advance(Duration::from_secs(5));
    call(double, token, Method::DELETE, &share, &Value::Null).await;
    took
}

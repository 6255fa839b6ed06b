//! The templates that users copy run as they are, pass the default policy, and answer on their published ports.

mod support;

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use support::agent::{Agent, Options};
use support::engine::Engine;
use support::http::{self, Answer};
use support::templates::request;
use support::{eventually, unique};

const WEB: (&str, &str) = ("WEB_IMAGE", "q8demo/web:1");
const DATABASE: [(&str, &str); 4] =
    [WEB, ("DB_IMAGE", "q8demo/db:1"), ("DB_PASSWORD", "s3cretOfTheDatabase"), ("ADMIN_PASSWORD", "s3cretOfTheAdmin")];

/// The shared engine with the templates' images, which are made once: made again they are other images under the same tags,
/// and an update would have to follow them.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<&Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::shared().with_demo_images())
}

/// Where the status says that a service's port is published.
fn endpoint(status: &Value, service: &str) -> SocketAddr {
    let endpoints = status["endpoints"].as_array().expect("a list of endpoints");
    let found = endpoints.iter().find(|endpoint| endpoint["service"] == service);
    let found = found.unwrap_or_else(|| panic!("{service} is not among {endpoints:?}"));
    let address = format!("{}:{}", found["host"].as_str().expect("a host"), found["host_port"]);
    address.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
}

async fn page(address: SocketAddr) -> Answer {
    eventually("the page answers", Duration::from_secs(10), async || {
        http::complete(http::send(address, Method::GET, "/", &[], "").await.ok()?).await.ok()
    })
    .await
}

fn containers(status: &Value) -> Vec<(String, String)> {
    let services = status["services"].as_array().expect("a list of services");
    let mut found = Vec::new();
    for service in services {
        for container in service["containers"].as_array().expect("a list of containers") {
            found.push((service["name"].to_string(), container["id"].to_string()));
        }
    }
    found
}

async fn status(agent: &Agent<'_>, subdomain: &str) -> Value {
    agent.get(&format!("/v1/tenants/status/{subdomain}")).await.expect(200)
}

#[tokio::test]
async fn a_static_site_serves_its_files_and_their_updates() {
    let engine = engine();
    let agent = Options::docker(engine).start().await;
    let name = unique("site");
    agent.post("/v1/tenants/provision", &request("static-site", &name, "tenant-1", &[WEB])).await.expect(201);
    let before = status(&agent, &name).await;
    assert_eq!(before["state"], "running", "{before}");
    let answer = page(endpoint(&before, "web")).await;
    assert!(answer.text().contains("It works"), "{}", answer.text());

    let update = json!({"subdomain": name, "files": {"site/index.html": "a new page\n"}, "pull": false});
    agent.post("/v1/tenants/update", &update).await.expect(200);
    let answer = page(endpoint(&status(&agent, &name).await, "web")).await;
    assert_eq!(answer.text(), "a new page\n");

    agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null).await.expect(200);
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_web_service_reaches_its_database_and_an_update_touches_one_service() {
    let engine = engine();
    let agent = Options::docker(engine).start().await;
    let name = unique("shop");
    let body = request("web-database", &name, "tenant-2", &DATABASE);
    let made = agent.post("/v1/tenants/provision", &body).await.expect(201);
    assert_eq!(made["warnings"], json!([]), "a template gives no reason for warnings");
    let before = status(&agent, &name).await;
    assert_eq!(before["state"], "running", "{before}");
    for (service, state) in [("db", "healthy"), ("migrate", "exited"), ("web", "healthy")] {
        let services = before["services"].as_array().expect("a list of services");
        let found = services.iter().find(|found| found["name"] == service).expect("the service is there");
        assert_eq!(found["state"], state, "{found}");
    }
    assert_eq!(page(endpoint(&before, "web")).await.text(), "The database answers: schema 1, visit 1\n");
    let logs = agent.get(&format!("/v1/tenants/logs/{name}?tail=100")).await;
    assert!(logs.text().contains("migrate-1") && logs.text().contains("schema is at version 1"), "{}", logs.text());

    let settings = "LISTEN_ADDR=0.0.0.0:8080\nPOLLING_FREQUENCY=15\n";
    let update = json!({"subdomain": name, "files": {"miniflux.conf": settings}, "pull": false});
    agent.post("/v1/tenants/update", &update).await.expect(200);
    let after = status(&agent, &name).await;
    let (before, after_containers) = (containers(&before), containers(&after));
    for (old, new) in before.iter().zip(&after_containers) {
        assert_eq!(old == new, old.0 != "\"web\"", "only web is made anew: {old:?} {new:?}");
    }
    assert_eq!(page(endpoint(&after, "web")).await.text(), "The database answers: schema 1, visit 2\n");

    agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null).await.expect(200);
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
}

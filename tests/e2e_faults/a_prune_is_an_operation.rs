//! A prune that is followed, cancelled between two objects, or whose agent dies: what has gone is gone, what has not stays,
//! and a repeat under the same key does the rest once.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::VolumeCreateRequest;
use hyper::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::scene::terminate;
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::fault_proxy::{Fault, FaultProxy, Rule};
use crate::support::{eventually, unique};

const LIMIT: Duration = Duration::from_secs(30);

/// An agent behind a proxy, and volumes of a tenant that nobody knows.
struct Place {
    proxy: FaultProxy,
    agent: Agent<'static>,
    engine: &'static Engine,
    volumes: Vec<String>,
}

impl Place {
    async fn with_volumes(count: usize) -> Self {
        let engine = Engine::shared();
        let proxy = FaultProxy::before(engine.socket());
        let agent =
            Options::docker(engine).env("DOCKER_HOST", proxy.host()).env("Q8_AGENT_BUSY_WAIT", "100ms").start().await;
        let tenant = unique("lost");
        let mut volumes = Vec::new();
        for number in 1..=count {
            let labels: HashMap<String, String> =
                [("dev.q8.agent", agent.identity()), ("dev.q8.tenant", &tenant), ("dev.q8.id", "lost")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into();
            let name = format!("q8-{tenant}_{number}");
            let request = VolumeCreateRequest {
                name: Some(name.clone()),
                labels: Some(labels),
                ..VolumeCreateRequest::default()
            };
            engine.docker().create_volume(request).await.expect("a volume");
            volumes.push(name);
        }
        Self { proxy, agent, engine, volumes }
    }

    fn disturb(&self, number: u32, fault: Fault) {
        self.proxy.disturb(Rule { call: "DELETE /volumes/*".to_owned(), number: Some(number), fault });
    }

    async fn ask(&self, key: &str, more: &[(&str, &str)]) -> crate::support::http::Answer {
        let headers = [&[("idempotency-key", key)], more].concat();
        let body = json!({"dry_run": false, "volumes": self.volumes});
        self.agent.request(Method::POST, "/v1/system/prune", &headers, body.to_string()).await
    }

    async fn accept(&self, key: &str) -> String {
        let accepted = self.ask(key, &[("prefer", "respond-async")]).await.expect(202);
        assert_eq!((&accepted["kind"], accepted.get("subdomain")), (&json!("prune"), None), "{accepted}");
        accepted["id"].as_str().expect("an id").to_owned()
    }

    async fn operation(&self, id: &str) -> Value {
        self.agent.get(&format!("/v1/operations/{id}")).await.expect(200)
    }

    async fn ended(&self, id: &str) -> Value {
        eventually("the prune ends", LIMIT, async || {
            let operation = self.operation(id).await;
            (operation["state"] != "running").then_some(operation)
        })
        .await
    }

    /// Waits until it is at this volume.
    async fn at(&self, id: &str, volume: usize) {
        let step = format!("removing volume {}", self.volumes[volume]);
        let at = async || (self.operation(id).await["step"] == step.as_str()).then_some(());
        eventually("it is at the volume", LIMIT, at).await;
    }

    /// Lets the call go on that is held, once it has come so far.
    async fn let_go(&self) {
        eventually("the call is held", LIMIT, async || (self.proxy.hits() > 0).then_some(())).await;
        self.proxy.calm();
    }

    async fn left(&self) -> Vec<String> {
        let mut left = self.engine.labelled(&self.agent.label()).await;
        left.sort();
        left
    }

    fn removed(answer: &Value) -> Vec<&str> {
        let objects = answer["objects"].as_array().expect("a list").iter();
        objects.filter(|object| object["removed"] == true).filter_map(|object| object["name"].as_str()).collect()
    }
}

#[tokio::test]
async fn it_is_followed_and_repeated() {
    let place = Place::with_volumes(2).await;
    let id = place.accept("k-1").await;
    let end = place.ended(&id).await;
    assert_eq!((&end["state"], &end["result"]["status"]), (&json!("succeeded"), &json!(200)), "{end}");
    assert_eq!(Place::removed(&end["result"]["body"]), place.volumes, "{end}");
    assert_eq!((&end["progress"]["steps"], &end["progress"]["steps_done"]), (&json!(2), &json!(2)), "{end}");
    let again = place.ask("k-1", &[]).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.expect(200), end["result"]["body"]);
    let listed = place.agent.get("/v1/operations").await.expect(200);
    assert_eq!(listed["operations"][0]["id"], id.as_str(), "{listed}");
    // Without `dry_run: false` it is no operation, whatever the headers say.
    let headers = [("idempotency-key", "k-2"), ("prefer", "respond-async")];
    let dry = place.agent.request(Method::POST, "/v1/system/prune", &headers, "").await;
    assert!(!dry.headers.contains_key("x-operation-id"));
    assert_eq!(dry.expect(200)["dry_run"], true);
}

#[tokio::test]
async fn it_is_cancelled_between_two_objects() {
    let place = Place::with_volumes(3).await;
    place.disturb(1, Fault::Hold);
    let id = place.accept("k").await;
    place.at(&id, 0).await;
    place.agent.post(&format!("/v1/operations/{id}/cancel"), &Value::Null).await.expect(202);
    place.let_go().await;
    let end = place.ended(&id).await;
    assert_eq!((&end["state"], &end["outcome"]), (&json!("cancelled"), &json!("unknown")), "{end}");
    assert_eq!(Place::removed(&end["error"]["details"]["pruned"]), place.volumes[..1], "{end}");
    assert_eq!(place.left().await, place.volumes[1..]);
    // The same request again is for the rest.
    assert_eq!(Place::removed(&place.ask("k", &[]).await.expect(200)), place.volumes[1..]);
    assert_eq!(place.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn its_agent_dies() {
    let mut place = Place::with_volumes(2).await;
    place.disturb(2, Fault::HangAfter);
    let id = place.accept("k").await;
    place.at(&id, 1).await;
    eventually("the engine has done it", LIMIT, async || place.left().await.is_empty().then_some(())).await;
    place.agent.kill();
    place.proxy.calm();
    place.agent.start_again().await;
    let end = place.ended(&id).await;
    assert_eq!((&end["state"], &end["outcome"]), (&json!("interrupted"), &json!("unknown")), "{end}");
    // Done, but nobody was told: there is nothing left to do, and this time it is told.
    let again = place.ask("k", &[]).await;
    assert_eq!(Place::removed(&again.expect(200)), Vec::<&str>::new());
    assert_ne!(again.headers["x-operation-id"], id.as_str());
}

#[tokio::test]
async fn another_one_is_told_of_it_and_the_agents_end_cuts_it_short() {
    let mut place = Place::with_volumes(3).await;
    place.disturb(1, Fault::Hold);
    let id = place.accept("k-1").await;
    place.at(&id, 0).await;
    // It waits for nothing, and says what is there.
    let dry = place.agent.post("/v1/system/prune", &Value::Null).await.expect(200);
    assert_eq!(dry["objects"].as_array().map(Vec::len), Some(3), "{dry}");
    let busy = place.ask("k-2", &[("prefer", "respond-async")]).await.refused(409, "TENANT_BUSY");
    assert_eq!(busy["details"]["operation"]["id"], id.as_str(), "{busy}");
    terminate(place.agent.pid());
    eventually("it stops", LIMIT, async || TcpStream::connect(place.agent.address()).await.err()).await;
    place.let_go().await;
    assert!(place.agent.wait_exit(LIMIT).await.success());
    place.agent.start_again().await;
    let end = place.operation(&id).await;
    assert_eq!((&end["state"], &end["error"]["code"]), (&json!("failed"), &json!("SHUTTING_DOWN")), "{end}");
    assert_eq!(Place::removed(&end["error"]["details"]["pruned"]), place.volumes[..1], "{end}");
    assert_eq!(Place::removed(&place.ask("k-1", &[]).await.expect(200)), place.volumes[1..]);
}

#[tokio::test]
async fn without_an_engine_it_is_refused_and_nothing_is_kept_of_it() {
    let place = Place::with_volumes(1).await;
    place.proxy.disturb(Rule { call: "DELETE /volumes/*".to_owned(), number: None, fault: Fault::ResetBefore });
    let refused = place.ask("k", &[]).await;
    refused.refused(503, "BACKEND_UNAVAILABLE");
    assert_eq!(place.left().await, place.volumes);
    place.proxy.calm();
    assert_eq!(Place::removed(&place.ask("k", &[]).await.expect(200)), place.volumes);
}

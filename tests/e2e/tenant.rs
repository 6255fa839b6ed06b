//! One tenant as its Main Server sees it: requests in the words of the contract, answers as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bollard::query_parameters::InspectContainerOptions;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::engine::Engine;
use crate::support::http::{self, Answer};
use crate::support::{eventually, unique};

/// How long something may take that takes a moment on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Its first check comes long after any deadline: a service that ends does so before it could count as up.
pub(crate) const UNDECIDED: &str = "healthcheck: {test: [CMD, \"true\"], interval: 1h}";

/// A tenant of an agent. It is not made until it is provisioned; what is left of it goes with the agent.
pub(crate) struct Tenant<'a> {
    agent: &'a Agent<'a>,
    pub(crate) name: String,
    pub(crate) id: String,
}

/// Which container it is, and since when it runs: what must not change when a service is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) started_at: String,
}

impl<'a> Tenant<'a> {
    /// A tenant with a name of its own.
    pub(crate) fn new(agent: &'a Agent<'a>, prefix: &str) -> Self {
        Self { agent, name: unique(prefix), id: unique("id") }
    }

    /// A tenant that exists already.
    pub(crate) fn again(agent: &'a Agent<'a>, name: &str, id: &str) -> Self {
        Self { agent, name: name.to_owned(), id: id.to_owned() }
    }

    /// A provision body; `more` has further fields of it.
    pub(crate) fn body(&self, compose: &str, more: &Value) -> Value {
        let mut body = json!({"id": self.id, "subdomain": self.name, "compose_content": compose});
        merge(&mut body, more);
        body
    }

    /// Provisions it, which must make it.
    pub(crate) async fn provision(&self, compose: &str, more: Value) -> Value {
        self.agent.post("/v1/tenants/provision", &self.body(compose, &more)).await.expect(201)
    }

    /// `update` with these fields. Images are not pulled, because no registry has them.
    pub(crate) async fn update(&self, fields: Value) -> Answer {
        let mut body = json!({"subdomain": self.name, "pull": false});
        merge(&mut body, &fields);
        self.agent.post("/v1/tenants/update", &body).await
    }

    /// `POST /v1/tenants/{verb}/{subdomain}{query}`.
    pub(crate) async fn act(&self, verb: &str, query: &str) -> Answer {
        self.agent.post(&format!("/v1/tenants/{verb}/{}{query}", self.name), &Value::Null).await
    }

    /// Removes it with all it has.
    pub(crate) async fn purge(&self) {
        self.act("teardown", "?purge=true").await.expect(200);
    }

    /// Its status.
    pub(crate) async fn status(&self) -> Value {
        self.agent.get(&format!("/v1/tenants/status/{}", self.name)).await.expect(200)
    }

    /// Its status, once it is in this state. An engine that does not answer for a moment may still come to it.
    pub(crate) async fn becomes(&self, state: &str) -> Value {
        eventually(&format!("{} is {state}", self.name), PATIENCE, async || {
            let status = self.agent.get(&format!("/v1/tenants/status/{}", self.name)).await.unless_away()?;
            (status["state"] == state).then_some(status)
        })
        .await
    }

    /// Its containers by name, without the project: `web-1`.
    pub(crate) async fn containers(&self) -> BTreeMap<String, Identity> {
        containers_in(&self.status().await, &self.name)
    }

    /// The id of a container.
    pub(crate) async fn container(&self, name: &str) -> String {
        let all = self.containers().await;
        all.get(name).unwrap_or_else(|| panic!("{name} is not among {all:?}")).id.clone()
    }

    /// All that one service has said so far, without the prefixes.
    pub(crate) async fn said(&self, service: &str) -> Vec<String> {
        let answer = self.log_of(service).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        without_prefixes(&answer)
    }

    /// What one service has said, once the last line is there.
    pub(crate) async fn says(&self, service: &str, last: &str) -> Vec<String> {
        eventually(&format!("{service} says {last}"), PATIENCE, async || {
            let answer = self.log_of(service).await;
            assert!([200, 503].contains(&answer.status.as_u16()), "{}", answer.text());
            let said = without_prefixes(&answer);
            said.iter().any(|line| line == last).then_some(said)
        })
        .await
    }

    async fn log_of(&self, service: &str) -> Answer {
        self.agent.get(&format!("/v1/tenants/logs/{}?service={service}&tail=all", self.name)).await
    }

    /// Where a service's port is published.
    pub(crate) async fn endpoint(&self, service: &str) -> SocketAddr {
        let status = self.status().await;
        let endpoints = status["endpoints"].as_array().expect("a list of endpoints");
        let found = endpoints.iter().find(|endpoint| endpoint["service"] == service);
        let found = found.unwrap_or_else(|| panic!("{service} is not among {endpoints:?}"));
        let address = format!("{}:{}", found["host"].as_str().expect("a host"), found["host_port"]);
        address.parse().unwrap_or_else(|error| panic!("{address}: {error}"))
    }
}

fn without_prefixes(log: &Answer) -> Vec<String> {
    log.text().lines().filter_map(|line| Some(line.split_once(" | ")?.1.to_owned())).collect()
}

fn merge(body: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key.as_str()] = value.clone();
    }
}

/// The containers of a status by name, without the project.
pub(crate) fn containers_in(status: &Value, tenant: &str) -> BTreeMap<String, Identity> {
    let project = format!("q8-{tenant}-");
    let services = status["services"].as_array().expect("a list of services");
    let lists = services.iter().map(|service| service["containers"].as_array().expect("a list of containers"));
    lists
        .flatten()
        .map(|container| {
            let text = |field: &str| container[field].as_str().unwrap_or_default().to_owned();
            let name = text("name");
            let short = name.strip_prefix(&project).unwrap_or_else(|| panic!("{name} is not of {project}"));
            (short.to_owned(), Identity { id: text("id"), started_at: text("started_at") })
        })
        .collect()
}

/// A member of a status' `services`.
pub(crate) fn service<'s>(status: &'s Value, name: &str) -> &'s Value {
    let services = status["services"].as_array().expect("a list of services");
    services.iter().find(|found| found["name"] == name).unwrap_or_else(|| panic!("no {name} in {status}"))
}

/// The names of a JSON object's fields.
pub(crate) fn fields(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("not an object: {value}")).keys().map(String::as_str).collect()
}

/// What the engine says about a container.
pub(crate) async fn inspect(engine: &Engine, container: &str) -> Value {
    let found = engine.docker().inspect_container(container, None::<InspectContainerOptions>).await;
    let found = found.unwrap_or_else(|error| panic!("{container} cannot be inspected: {error}"));
    serde_json::to_value(found).expect("the engine's answer is JSON")
}

/// The answer of an HTTP server at a published port, once it gives one.
pub(crate) async fn page(address: SocketAddr, path: &str) -> Answer {
    eventually("the page answers", PATIENCE, async || {
        http::complete(http::send(address, Method::GET, path, &[], "").await.ok()?).await.ok()
    })
    .await
}

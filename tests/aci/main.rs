//! The agent and Azure Container Instances: over HTTP, on a double of Azure Resource Manager that refuses whatever the
//! contract does not allow.
#![allow(clippy::disallowed_methods, reason = "tests start agents and look at files")]

#[path = "../arm_double/mod.rs"]
mod arm_double;
#[path = "../support/mod.rs"]
mod support;

mod crashes;
mod disturbed;
mod follow;
mod life;
mod lost;
mod regions;

use std::time::Duration;

use serde_json::{Value, json};

use arm_double::{ArmDouble, CLIENT, SECRET, SUBSCRIPTION, TENANT};
use support::agent::{Agent, Options};
use support::http::Answer;
use support::{eventually, unique};

/// How long something may take that takes a moment on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Two regions, as the double has them.
const REGIONS: &str = "eastus:rg-east:steast,westeurope:rg-west:stwest";

/// An agent whose own tenants are pretended and whose others are on this double.
fn options(double: &ArmDouble) -> Options<'static> {
    Options::memory()
        .env("Q8_AGENT_ACI_REGIONS", REGIONS)
        .env("AZURE_SUBSCRIPTION_ID", SUBSCRIPTION)
        .env("AZURE_TENANT_ID", TENANT)
        .env("AZURE_CLIENT_ID", CLIENT)
        .env("AZURE_CLIENT_SECRET", SECRET)
        .env("AZURE_AUTHORITY_HOST", double.authority())
        .env("Q8_AGENT_ARM_ENDPOINT", double.endpoint())
}

/// One tenant in Azure.
struct Tenant<'a> {
    agent: &'a Agent<'static>,
    name: String,
}

impl<'a> Tenant<'a> {
    fn new(agent: &'a Agent<'static>, prefix: &str) -> Self {
        Self { agent, name: unique(prefix) }
    }

    fn body(&self, compose: &str, rest: &Value) -> Value {
        let mut body = json!({
            "id": format!("id-{}", self.name), "subdomain": self.name, "compose_content": compose,
            "placement": {"backend": "aci"},
        });
        for (name, value) in rest.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body
    }

    async fn provision(&self, compose: &str, rest: &Value) -> Answer {
        self.agent.post("/v1/tenants/provision", &self.body(compose, rest)).await
    }

    async fn update(&self, compose: &str) -> Answer {
        let body = json!({"subdomain": self.name, "compose_content": compose});
        self.agent.post("/v1/tenants/update", &body).await
    }

    async fn act(&self, action: &str, query: &str) -> Answer {
        self.agent.post(&format!("/v1/tenants/{action}/{}{query}", self.name), &json!({})).await
    }

    async fn status(&self) -> Value {
        self.agent.get(&format!("/v1/tenants/status/{}?fresh=1", self.name)).await.expect(200)
    }

    async fn becomes(&self, state: &str) -> Value {
        eventually(&format!("{} is {state}", self.name), PATIENCE, async || {
            let status = self.status().await;
            (status["state"] == state).then_some(status)
        })
        .await
    }

    async fn logs(&self, query: &str) -> String {
        let path = format!("/v1/tenants/logs/{}{query}", self.name);
        let answer = self.agent.get(&path).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
        answer.text()
    }

    fn group(&self) -> String {
        format!("q8-{}", self.name)
    }
}

/// Begins an operation that nobody waits for.
async fn begin(agent: &Agent<'_>, path: &str, body: &Value) {
    let headers = [("content-type", "application/json"), ("prefer", "respond-async")];
    agent.request(hyper::Method::POST, path, &headers, body.to_string()).await.expect(202);
}

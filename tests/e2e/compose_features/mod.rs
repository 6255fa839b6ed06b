//! Attributes of the Compose Specification, seen where they matter: inside the container, from the next container, from
//! the host, or in what the engine says.

mod files;
mod limits;
mod network;
mod order;
mod process;
mod several_files;
mod sharing;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::tenant::{Tenant, inspect};

/// The last line of a report.
const END: &str = "end of report";

/// An agent on the shared engine.
async fn agent() -> Agent<'static> {
    Options::docker(Engine::shared().with_busybox().await).start().await
}

/// A command that runs a script, says [`END`] and then waits to be killed. In the script, `$` is written `$$`.
pub(crate) fn reports(script: &str) -> String {
    let script = format!("{script}\necho {END}\nexec sleep 3600");
    // JSON is YAML.
    Value::from(vec!["sh", "-c", script.as_str()]).to_string()
}

/// What a service's script has said.
pub(crate) async fn report(tenant: &Tenant<'_>, service: &str) -> Vec<String> {
    let mut lines = tenant.says(service, END).await;
    lines.truncate(lines.iter().position(|line| line == END).expect("it has just been seen"));
    lines
}

/// What the engine says about every container, by name without the project.
pub(crate) async fn inspected(tenant: &Tenant<'_>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (name, container) in tenant.containers().await {
        all.insert(name, inspect(Engine::shared(), &container.id).await);
    }
    all
}

/// Ends the tenant and checks that nothing is left of the agent's objects.
async fn nothing_is_left(agent: &Agent<'_>, tenants: &[&Tenant<'_>]) {
    for tenant in tenants {
        tenant.purge().await;
    }
    assert_eq!(Engine::shared().left(&agent.label()).await, Vec::<String>::new());
}

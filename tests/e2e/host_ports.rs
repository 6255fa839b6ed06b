//! Host ports: which one a service gets, that it keeps it, and that nobody gets another one's.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};

use futures::future::join_all;
use serde_json::json;

use crate::compose_features::inspected;
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::tenant::{PATIENCE, Tenant, page};

/// Serves its own name.
fn server(more: &str) -> String {
    format!(
        r#"{{image: "q8test/busybox:1", stop_signal: SIGKILL, {more},
    command: [sh, -c, "mkdir -p /tmp/www; hostname >/tmp/www/name; exec httpd -f -p 80 -h /tmp/www"]}}"#
    )
}

fn web(more: &str) -> String {
    format!("services: {{web: {}}}", server(more))
}

/// Where the port 80 of `web` is published.
async fn port_80(tenant: &Tenant<'_>) -> SocketAddr {
    let status = tenant.status().await;
    let mut endpoints = status["endpoints"].as_array().expect("a list").iter();
    let found = endpoints.find(|endpoint| endpoint["port"] == 80).unwrap_or_else(|| panic!("{status}"));
    let address = format!("{}:{}", found["host"].as_str().expect("a host"), found["host_port"]);
    address.parse().expect("an address")
}

async fn agent() -> Agent<'static> {
    Options::docker(Engine::shared().with_busybox().await).start().await
}

#[tokio::test]
async fn a_port_without_a_number_stays_the_same() {
    let mut agent = agent().await;
    let (name, id, address);
    {
        let tenant = Tenant::new(&agent, "lease");
        tenant.provision(&web("hostname: one, ports: ['80', '81/udp']"), json!({})).await;
        address = port_80(&tenant).await;
        assert_eq!(page(address, "/name").await.text().trim(), "one");
        let all = inspected(&tenant).await;
        let bound = &all["web-1"]["HostConfig"]["PortBindings"];
        let port = address.port().to_string();
        assert_eq!(bound["80/tcp"], json!([{"HostIp": "127.0.0.1", "HostPort": port}]), "one port, not a range");
        let label = all["web-1"]["Config"]["Labels"]["dev.q8.ports"].as_str().expect("a label");
        assert!(label.starts_with(&format!("127.0.0.1:{port}->80/tcp,127.0.0.1:")), "{label}");

        for verb in ["stop", "start", "restart"] {
            tenant.act(verb, "").await.expect(200);
        }
        assert_eq!(port_80(&tenant).await, address);
        let before = tenant.container("web-1").await;
        let more = web("hostname: two, ports: ['80', '81/udp', '82']");
        tenant.update(json!({"compose_content": more})).await.expect(200);
        assert_ne!(tenant.container("web-1").await, before);
        assert_eq!(page(address, "/name").await.text().trim(), "two");
        // An update that fails leaves it, too.
        let fails =
            json!({"compose_content": "services: {web: {image: 'q8test/busybox:1', ports: ['80'], command: [/none]}}"});
        assert_eq!(tenant.update(fails).await.status, 502);
        assert_eq!(page(address, "/name").await.text().trim(), "two");
        (name, id) = (tenant.name.clone(), tenant.id.clone());
    }
    agent.kill();
    agent.start_again().await;
    let tenant = Tenant::again(&agent, &name, &id);
    tenant.update(json!({"compose_content": web("hostname: three, ports: ['80']")})).await.expect(200);
    assert_eq!(page(address, "/name").await.text().trim(), "three");
    // And for a tenant that goes and comes again, as long as it is free.
    tenant.purge().await;
    tenant.provision(&web("hostname: four, ports: ['80']"), json!({})).await;
    assert_eq!(page(address, "/name").await.text().trim(), "four");
    tenant.purge().await;
}

/// Both run for a while.
#[tokio::test]
async fn a_port_without_a_number_moves_when_the_new_container_starts_first() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "beside");
    let text = |name: &str| {
        web(&format!("hostname: {name}, ports: ['80'], deploy: {{update_config: {{order: start-first}}}}"))
    };
    tenant.provision(&text("one"), json!({})).await;
    let before = port_80(&tenant).await;
    tenant.update(json!({"compose_content": text("two")})).await.expect(200);
    let after = port_80(&tenant).await;
    assert_ne!(after, before);
    assert_eq!(page(after, "/name").await.text().trim(), "two");
    tenant.purge().await;
}

/// A range in the file is this narrow on purpose: every port of it is needed.
#[tokio::test]
async fn many_at_once_never_get_the_same_port() {
    let agent = agent().await;
    let engine = Engine::shared();
    // Of the range that the agent itself gives ports from, a part that nobody else uses.
    let low = (20_000..30_000)
        .step_by(16)
        .find(|low| (*low..low + 16).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()));
    let low = low.expect("sixteen free ports in a row");
    let range = format!("{low}-{}", low + 15);
    let text = web(&format!("hostname: one, scale: 2, ports: ['{range}:80']"));
    let tenants: Vec<Tenant<'_>> = (0..8).map(|n| Tenant::new(&agent, &format!("many{n}"))).collect();
    join_all(tenants.iter().map(|tenant| tenant.provision(&text, json!({})))).await;
    let mut ports = BTreeSet::new();
    for tenant in &tenants {
        for endpoint in tenant.status().await["endpoints"].as_array().expect("a list") {
            ports.insert(endpoint["host_port"].as_u64().expect("a number"));
        }
    }
    assert_eq!(ports.len(), 16, "{ports:?}");
    let last = Tenant::new(&agent, "last");
    let body = last.body(&text, &json!({}));
    let full = agent.post("/v1/tenants/provision", &body).await;
    let full = (full.status.as_u16(), full.json());
    assert_eq!((full.0, &full.1["code"]), (409, &json!("HOST_FULL")), "{full:?}");
    assert_eq!(full.1["field"], "services.web.ports[0]", "{full:?}");
    join_all(tenants.iter().map(Tenant::purge)).await;
    agent.post("/v1/tenants/provision", &body).await.expect(201);
    last.purge().await;
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
}

/// Refuses a provision for its port, which somebody else has, and has done nothing.
async fn refused(agent: &Agent<'_>, tenant: &Tenant<'_>, text: &str, field: &str, others: &[&str]) {
    refused_with((409, "PORT_TAKEN"), agent, tenant, text, field, others).await;
}

async fn refused_with(
    word: (u16, &str),
    agent: &Agent<'_>,
    tenant: &Tenant<'_>,
    text: &str,
    field: &str,
    others: &[&str],
) {
    let answer = agent.post("/v1/tenants/provision", &tenant.body(text, &json!({}))).await;
    let (status, told) = (answer.status.as_u16(), answer.json());
    assert_eq!((status, &told["code"], &told["field"]), (word.0, &json!(word.1), &json!(field)), "{told}");
    for other in others {
        assert!(!told.to_string().contains(other), "{other}: {told}");
    }
    let left = Engine::shared().labelled(&format!("dev.q8.tenant={}", tenant.name)).await;
    assert_eq!(left, Vec::<String>::new());
    let status = agent.get(&format!("/v1/tenants/status/{}", tenant.name)).await;
    assert_eq!(status.status, 404, "refused before anything was touched");
}

#[tokio::test]
async fn a_taken_port_is_refused_before_anything_is_touched() {
    let agent = agent().await;
    let (one, two) = (Tenant::new(&agent, "first"), Tenant::new(&agent, "second"));
    one.provision(&web("hostname: one, ports: ['80']"), json!({})).await;
    let address: SocketAddr = port_80(&one).await;
    let text = web(&format!("hostname: two, ports: ['81', '{}:80']", address.port()));
    let secrets = [one.name.as_str(), one.id.as_str()];
    refused(&agent, &two, &text, "services.web.ports[1]", &secrets).await;
    // It is the first one's even while that is stopped: it will want it again.
    one.act("stop", "").await.expect(200);
    refused(&agent, &two, &text, "services.web.ports[1]", &secrets).await;
    one.act("start", "").await.expect(200);
    assert_eq!(page(address, "/name").await.text().trim(), "one");
    one.purge().await;
    two.provision(&text, json!({})).await;
    assert_eq!(page(address, "/name").await.text().trim(), "two");
    two.purge().await;

    // Somebody on the host has it.
    let port = crate::support::publishable_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    refused(&agent, &two, &web(&format!("ports: ['{port}:80']")), "services.web.ports[0]", &[]).await;
    drop(listener);
    // Another service of the same file wants it, or another replica: no host can have that.
    let word = (422, "UNSUPPORTED_ON_BACKEND");
    let twice = format!("services: {{a: {0}, b: {0}}}", server(&format!("ports: ['{port}:80']")));
    refused_with(word, &agent, &two, &twice, "services.b.ports[0]", &[]).await;
    let scaled = web(&format!("scale: 2, ports: ['{port}:80']"));
    refused_with(word, &agent, &two, &scaled, "services.web.ports[0]", &[]).await;
}

/// The check before is not all: the engine may find out later.
#[tokio::test]
async fn a_port_that_is_taken_while_a_tenant_is_stopped() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "late");
    tenant.provision(&web("hostname: one, ports: ['81', '80']"), json!({})).await;
    let port = port_80(&tenant).await.port();
    tenant.act("stop", "").await.expect(200);
    let listener =
        crate::support::eventually("the port is free", PATIENCE, async || TcpListener::bind(("127.0.0.1", port)).ok())
            .await;
    let answer = tenant.act("start", "").await;
    let (status, told) = (answer.status.as_u16(), answer.json());
    assert_eq!((status, &told["code"]), (409, &json!("PORT_TAKEN")), "{told}");
    assert_eq!(told["field"], "services.web.ports[1]", "{told}");
    assert!(told["error"].as_str().is_some_and(|text| text.contains(&port.to_string())), "{told}");
    drop(listener);
    tenant.act("start", "").await.expect(200);
    assert_eq!(port_80(&tenant).await.port(), port);
    tenant.purge().await;
}

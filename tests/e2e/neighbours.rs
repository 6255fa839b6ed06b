//! Tenants beside each other on one host: their networks, their ports, and the agent that they live under.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use futures::stream::{self, StreamExt as _};
use serde_json::json;

use crate::compose_features::{report, reports};
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::unique;
use crate::tenant::{Tenant, page};

/// Tenants at the same time, each with a network. The engine by itself has room for about thirty.
const TENANTS: usize = 60;
/// Requests at a time.
const AT_ONCE: usize = 6;

#[tokio::test]
async fn sixty_tenants_with_a_network_each() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let tenants: Vec<Tenant<'_>> = (0..TENANTS).map(|n| Tenant::new(&agent, &format!("crowd{n}"))).collect();
    let text = r#"services: {web: {image: "q8test/busybox:1", stop_signal: SIGKILL, ports: ["80"], command: [sleep, "3600"]}}"#;
    stream::iter(&tenants)
        .for_each_concurrent(AT_ONCE, async |tenant| drop(tenant.provision(text, json!({})).await))
        .await;

    let list = agent.get("/v1/tenants").await.expect(200);
    let lines = list["tenants"].as_array().expect("a list");
    assert_eq!(lines.len(), TENANTS);
    assert!(lines.iter().all(|line| line["state"] == "running"), "{list}");
    let subnets = subnets(engine, &agent).await;
    assert_eq!(subnets.len(), TENANTS, "{subnets:?}");
    for (address, prefix) in &subnets {
        assert_eq!((*prefix, address.to_bits() % 64), (26, 0), "{address}");
    }
    let ports = engine.docker().list_containers(Some(labelled_containers(&agent))).await.expect("containers");
    let ports: BTreeSet<u16> =
        ports.into_iter().filter_map(|found| found.ports).flatten().filter_map(|port| port.public_port).collect();
    assert_eq!(ports.len(), TENANTS, "{ports:?}");

    stream::iter(&tenants).for_each_concurrent(AT_ONCE, Tenant::purge).await;
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
}

fn labelled_containers(agent: &Agent<'_>) -> bollard::query_parameters::ListContainersOptions {
    let filters = std::collections::HashMap::from([("label".to_owned(), vec![agent.label()])]);
    bollard::query_parameters::ListContainersOptionsBuilder::new().filters(&filters).build()
}

/// The subnets of the agent's networks; equal ones count once.
async fn subnets(engine: &Engine, agent: &Agent<'_>) -> BTreeSet<(Ipv4Addr, u8)> {
    let filters = std::collections::HashMap::from([("label".to_owned(), vec![agent.label()])]);
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let listed = engine.docker().list_networks(Some(options)).await.expect("networks");
    let configs = listed.into_iter().filter_map(|network| network.ipam?.config).flatten();
    let parse = |text: String| {
        let (address, prefix) = text.split_once('/')?;
        Some((address.parse().ok()?, prefix.parse().ok()?))
    };
    configs.filter_map(|config| parse(config.subnet?)).collect()
}

/// An address of this host that is no loopback address: the end of a bridge that the test makes.
struct HostAddress<'e> {
    engine: &'e Engine,
    network: String,
    address: Ipv4Addr,
}

impl<'e> HostAddress<'e> {
    async fn new(engine: &'e Engine) -> Self {
        let network = unique("q8test-host");
        // 10.192.0.0/16 is neither of the agents' pools here nor of the engines'.
        for third in 0..=255 {
            let config = IpamConfig { subnet: Some(format!("10.192.{third}.0/29")), ..IpamConfig::default() };
            let ipam = Ipam { config: Some(vec![config]), ..Ipam::default() };
            let request =
                NetworkCreateRequest { name: network.clone(), ipam: Some(ipam), ..NetworkCreateRequest::default() };
            if engine.docker().create_network(request).await.is_ok() {
                return Self { engine, network, address: Ipv4Addr::new(10, 192, third, 1) };
            }
        }
        panic!("no subnet for a bridge");
    }

    async fn remove(self) {
        self.engine.docker().remove_network(&self.network).await.expect("the bridge goes");
    }
}

#[tokio::test]
async fn only_a_port_on_an_address_of_the_host_leads_to_another_tenant() {
    let engine = Engine::shared().with_busybox().await;
    let host = HostAddress::new(engine).await;
    let agent = Options::docker(engine).env("Q8_AGENT_PUBLISH_HOST", host.address.to_string()).start().await;
    let (one, two) = (Tenant::new(&agent, "open"), Tenant::new(&agent, "asks"));
    let serves = |ports: &str| {
        format!(
            r#"{{image: "q8test/busybox:1", stop_signal: SIGKILL, ports: [{ports}],
    command: [sh, -c, "mkdir -p /tmp/www; echo hello >/tmp/www/name; exec httpd -f -p 80 -h /tmp/www"]}}"#
        )
    };
    let text = format!("services: {{web: {}, inner: {}}}", serves("'80'"), serves("'127.0.0.1::80'"));
    one.provision(&text, json!({})).await;
    let (public, local) = (one.endpoint("web").await, one.endpoint("inner").await);
    assert_eq!((public.ip(), local.ip().is_loopback()), (IpAddr::V4(host.address), true));
    for endpoint in [public, local] {
        assert_eq!(page(endpoint, "/name").await.text().trim(), "hello", "from the host itself");
    }
    let own = crate::compose_features::inspected(&one).await;
    let own = &own["web-1"]["NetworkSettings"]["Networks"][format!("q8-{}_default", one.name)];
    let own = own["IPAddress"].as_str().expect("an address").to_owned();
    let asks = [
        public.to_string(),
        format!("{}:{}", host.address, local.port()),
        format!("{own}:80"),
        "web:80".to_owned(),
        format!("q8-{}-web-1:80", one.name),
    ];
    // While the engine makes a network it takes its isolation out for a moment, so that a packet, and on a busy host a whole
    // answer, may come through (scripts/firewall.sh closes that gap). What leads to the tenant answers every time.
    let script = format!(
        "for at in {}; do for time in 1 2 3; do \
         answer=$$(timeout 10 /bin/wget -qO- http://$$at/name 2>/dev/null || echo none); \
         [ $$answer = hello ] || break; sleep 0.5; done; echo $$answer; done",
        asks.join(" ")
    );
    let asker = format!(
        r#"services: {{asker: {{image: "q8test/busybox:1", stop_signal: SIGKILL, command: {}}}}}"#,
        reports(&script)
    );
    two.provision(&asker, json!({})).await;
    assert_eq!(report(&two, "asker").await, ["hello", "none", "none", "none", "none"], "{asks:?}");
    one.purge().await;
    two.purge().await;
    host.remove().await;
}

/// Answers whoever connects with one line, so that a container can show that it reaches this host.
fn greeter() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            drop(stream.write_all(b"hello\n"));
        }
    });
    port
}

#[tokio::test]
async fn the_api_does_not_listen_to_tenants() {
    let engine = Engine::shared().with_busybox().await;
    let options = Options::docker(engine).env("Q8_AGENT_HOST", "0.0.0.0").env("Q8_AGENT_LOG", "debug");
    let mut agent = options.env("Q8_AGENT_POLICY", "trusted").start().await;
    let (api, greeter) = (agent.address().port(), greeter());
    // The first has a subnet of the pool, the other one that its author has chosen.
    let ask = format!(
        "gateway=$$(ip route | sed -n 's/^default via \\([0-9.]*\\) .*/\\1/p')\n\
         echo greeter $$(nc -w 5 $$gateway {greeter} </dev/null)\n\
         echo api $$(printf 'GET /live HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $$gateway {api} 2>&1)"
    );
    let asker = |networks: &str| {
        format!(
            "services: {{asker: {{image: 'q8test/busybox:1', stop_signal: SIGKILL, command: {}}}}}\n{networks}",
            reports(&ask)
        )
    };
    let third = std::process::id() % 256;
    let chosen = format!("networks: {{default: {{ipam: {{config: [{{subnet: 10.191.{third}.0/28}}]}}}}}}\n");
    let (name, id);
    {
        let (pooled, other) = (Tenant::new(&agent, "pooled"), Tenant::new(&agent, "chosen"));
        pooled.provision(&asker(""), json!({})).await;
        other.provision(&asker(&chosen), json!({})).await;
        for tenant in [&pooled, &other] {
            assert_eq!(report(tenant, "asker").await, ["greeter hello", "api"], "{}", tenant.name);
        }
        // Everybody else is answered, on whatever address.
        agent.get("/v1/system/info").await.expect(200);
        (name, id) = (other.name.clone(), other.id.clone());
    }
    let turned_away = agent.log().matches("a connection from a tenant's network was closed").count();
    assert!(turned_away >= 2, "{}", agent.log());

    // What was chosen is known again after a restart, although nothing has been made since.
    agent.terminate(Duration::from_secs(30)).await;
    agent.start_again().await;
    let other = Tenant::again(&agent, &name, &id);
    other.act("restart", "").await.expect(200);
    let again = crate::support::eventually("it has asked again", crate::tenant::PATIENCE, async || {
        let said = other.said("asker").await;
        (said.iter().filter(|line| line.starts_with("api")).count() == 2).then_some(said)
    })
    .await;
    assert_eq!(again.iter().filter(|line| *line == "api").count(), 2, "{again:?}");
    let info = agent.get("/v1/system/info").await.expect(200);
    assert_eq!(info["verified"]["api_on_loopback"], json!(false), "{info}");
}

//! Who reaches whom: aliases, networks, published ports, extra hosts, and never another tenant.
#![allow(clippy::disallowed_methods, reason = "the test puts a rule of the firewall in place")]

use std::net::Ipv4Addr;
use std::process::Command;

use serde_json::json;

use super::{agent, inspected, nothing_is_left, report, reports};
use crate::support::agent::subnet_pool;
use crate::support::{http, publishable_port};
use crate::tenant::{Tenant, page};

/// Serves its own name.
fn server(more: &str) -> String {
    format!(
        r#"{{image: "q8test/busybox:1", stop_signal: SIGKILL, {more},
    command: [sh, -c, "mkdir -p /tmp/www; hostname >/tmp/www/name; exec httpd -f -p 80 -h /tmp/www"],
    healthcheck: {{test: [CMD, /bin/wget, -qO-, "http://127.0.0.1/name"], interval: 500ms, timeout: 10s, retries: 100}}}}"#
    )
}

/// Asks for a server by these names, and says who answers. A name that does not exist is an answer too.
fn asks(names: &[&str]) -> String {
    let names = names.join(" ");
    reports(&format!(
        "for name in {names}; do echo $$name $$(timeout 10 /bin/wget -qO- http://$$name/name 2>/dev/null || echo none); done"
    ))
}

#[tokio::test]
async fn names_work_within_a_network_and_nowhere_else() {
    let agent = agent().await;
    let (one, two) = (Tenant::new(&agent, "net-one"), Tenant::new(&agent, "net-two"));
    let other_names = format!("secret q8-{}-secret-1", two.name);
    let compose = format!(
        r"
services:
  back: {back}
  front: {front}
  lone: {lone}
  asker:
    image: q8test/busybox:1
    stop_signal: SIGKILL
    networks: [inner]
    depends_on: {{back: {{condition: service_healthy}}, front: {{condition: service_healthy}}}}
    command: {asker}
networks:
  inner: {{internal: true}}
  outer: {{labels: {{org.example.kind: a test}}}}
",
        back = server("hostname: the-back, networks: {inner: {aliases: [db, database.local]}}"),
        front = server("hostname: the-front, networks: [inner, outer]"),
        lone = server("hostname: the-lone, networks: [outer]"),
        asker =
            asks(&["back", "db", "database.local", "front", "lone", &format!("q8-{}-back-1", one.name), &other_names]),
    );
    let secret = server("hostname: the-secret, networks: {default: {aliases: [secret, back]}}");
    two.provision(&format!("services: {{secret: {secret}}}"), json!({})).await;
    one.provision(&compose, json!({})).await;
    assert_eq!(
        report(&one, "asker").await,
        [
            "back the-back",
            "db the-back",
            "database.local the-back",
            "front the-front",
            "lone none",
            &format!("q8-{}-back-1 the-back", one.name),
            "secret none",
            &format!("q8-{}-secret-1 none", two.name),
        ]
    );
    nothing_is_left(&agent, &[&one, &two]).await;
}

/// The firewall's rule between tenants, as `scripts/firewall.sh` has it, for this process' tenants. Other tests make networks
/// all the time, and the engine takes its own rule out for a moment each time.
struct Wall(Vec<String>);

impl Wall {
    fn build() -> Self {
        let pool = subnet_pool();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/firewall.sh");
        let mut show = Command::new("bash");
        show.args([script, "show"]).env("Q8_AGENT_SUBNET_POOL", &pool);
        let shown = String::from_utf8(show.output().expect("bash starts").stdout).expect("UTF-8");
        let line = shown.lines().find(|line| line.contains(&format!("-d {pool} "))).expect("a rule between tenants");
        let rule = line.split_once("-A Q8-FORWARD ").expect("in the chain of forwarded packets").1;
        let wall = Self(rule.split(' ').map(str::to_owned).collect());
        wall.iptables("-I");
        wall
    }

    fn iptables(&self, action: &str) {
        let mut command = Command::new("iptables");
        command
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .args(["-w", "-t", "mangle", action, "FORWARD"])
            .args(&self.0);
        assert!(command.status().expect("iptables starts").success(), "{command:?}");
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        self.iptables("-D");
    }
}

/// Names are no wall: not even the address of another tenant's container leads to it.
#[tokio::test]
async fn addresses_of_other_tenants_lead_nowhere() {
    let agent = agent().await;
    let _wall = Wall::build();
    let (one, two) = (Tenant::new(&agent, "wall-one"), Tenant::new(&agent, "wall-two"));
    two.provision(&format!("services: {{secret: {}}}", server("hostname: the-secret")), json!({})).await;
    let networks = &inspected(&two).await["secret-1"]["NetworkSettings"]["Networks"];
    let network = &networks[format!("q8-{}_default", two.name)];
    let address: Ipv4Addr =
        network["IPAddress"].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{networks}"));
    let compose = format!(
        r"
services:
  own: {own}
  asker:
    image: q8test/busybox:1
    stop_signal: SIGKILL
    depends_on: {{own: {{condition: service_healthy}}}}
    command: {asker}
",
        own = server("hostname: the-own"),
        asker = asks(&["own", &address.to_string()]),
    );
    one.provision(&compose, json!({})).await;
    assert_eq!(report(&one, "asker").await, ["own the-own".to_owned(), format!("{address} none")]);
    nothing_is_left(&agent, &[&one, &two]).await;
}

#[tokio::test]
async fn published_ports_answer_where_the_status_says() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "ports");
    let (fixed, beside) = (publishable_port(), publishable_port());
    let any = server(r#"hostname: any, ports: ["80"]"#);
    let chosen = server(&format!(r#"hostname: chosen, ports: ["127.0.0.1:{fixed}:80"]"#));
    // It takes its time to stop, so that its port is still held when the others are ready.
    let chosen = chosen.replace("SIGKILL", "SIGUSR1, stop_grace_period: 2s");
    let long = server(&format!(r#"hostname: long, ports: [{{target: 80, published: "{beside}", protocol: tcp}}]"#));
    let none = server(r#"hostname: none, expose: ["80"]"#);
    let compose = format!("services:\n  any: {any}\n  chosen: {chosen}\n  long: {long}\n  none: {none}\n");
    tenant.provision(&compose, json!({})).await;
    for name in ["any", "chosen", "long"] {
        let address = tenant.endpoint(name).await;
        assert!(address.ip().is_loopback(), "{address}");
        assert_eq!(page(address, "/name").await.text().trim(), name);
    }
    assert_eq!(tenant.endpoint("chosen").await.port(), fixed);
    assert_eq!(tenant.endpoint("long").await.port(), beside);
    assert!((20000..=29999).contains(&tenant.endpoint("any").await.port()), "from the host's own range");
    let status = tenant.status().await;
    assert_eq!(status["endpoints"].as_array().map(Vec::len), Some(3), "exposed is not published: {status}");
    for endpoint in status["endpoints"].as_array().expect("a list") {
        assert_eq!((&endpoint["port"], &endpoint["protocol"]), (&json!(80), &json!("tcp")));
    }

    // A port may move from one service to another in one update.
    let moved = compose
        .replace(&format!("127.0.0.1:{fixed}:80"), "80")
        .replace("ports: [\"80\"]", &format!("ports: [\"{fixed}:80\"]"));
    let moved =
        moved.replacen(&format!("hostname: chosen, ports: [\"{fixed}:80\"]"), "hostname: chosen, ports: [\"80\"]", 1);
    tenant.update(json!({"compose_content": moved})).await.expect(200);
    let address = tenant.endpoint("any").await;
    assert_eq!(address.port(), fixed);
    assert_eq!(page(address, "/name").await.text().trim(), "any");
    assert_ne!(tenant.endpoint("chosen").await.port(), fixed);

    tenant.act("stop", "").await.expect(200);
    let refused = http::send(address, hyper::Method::GET, "/name", &[], "").await;
    assert!(refused.is_err(), "nobody listens any more");
    nothing_is_left(&agent, &[&tenant]).await;
}

#[tokio::test]
async fn hosts_dns_and_no_network_at_all() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "hosts");
    let compose = format!(
        r#"
x-common: &common {{image: "q8test/busybox:1", stop_signal: SIGKILL}}
services:
  listed: {{<<: *common, extra_hosts: ["db.example=10.1.2.3", "six.example:fd00::1"], command: {hosts}}}
  mapped: {{<<: *common, extra_hosts: {{db.example: 10.1.2.4}}, command: {hosts}}}
  resolves:
    <<: *common
    dns: 10.9.9.9
    dns_search: [inside.example]
    dns_opt: ["timeout:1"]
    network_mode: none
    command: {interfaces}
  shares: {{<<: *common, network_mode: "service:listed", command: {hosts}}}
"#,
        hosts = reports("grep example /etc/hosts"),
        interfaces = reports("ls /sys/class/net"),
    );
    tenant.provision(&compose, json!({})).await;
    assert_eq!(report(&tenant, "listed").await, ["10.1.2.3\tdb.example", "fd00::1\tsix.example"]);
    assert_eq!(report(&tenant, "mapped").await, ["10.1.2.4\tdb.example"]);
    assert_eq!(report(&tenant, "shares").await, ["10.1.2.3\tdb.example", "fd00::1\tsix.example"]);
    assert_eq!(report(&tenant, "resolves").await, ["lo"]);
    let all = inspected(&tenant).await;
    let dns = &all["resolves-1"]["HostConfig"];
    assert_eq!(
        (&dns["Dns"], &dns["DnsSearch"], &dns["DnsOptions"]),
        (&json!(["10.9.9.9"]), &json!(["inside.example"]), &json!(["timeout:1"]))
    );
    let parent = tenant.container("listed-1").await;
    assert_eq!(all["shares-1"]["HostConfig"]["NetworkMode"], format!("container:{parent}"));

    // Who shares another one's network is made anew with it.
    let before = tenant.containers().await;
    let changed = compose.replace("10.1.2.3", "10.1.2.5");
    tenant.update(json!({"compose_content": changed})).await.expect(200);
    let after = tenant.containers().await;
    for (name, old) in &before {
        let follows = ["listed-1", "shares-1"].contains(&name.as_str());
        assert_eq!(after[name] == *old, !follows, "{name}");
    }
    assert_eq!(report(&tenant, "shares").await[0], "10.1.2.5\tdb.example");
    nothing_is_left(&agent, &[&tenant]).await;
}

//! What only a real engine can show: users and networks.

#[allow(dead_code, unused_imports, unused_macros, reason = "only the world and the tenant are used here")]
mod conformance;
mod support;

use std::time::Duration;

use conformance::watching::ends_with_another;
use conformance::{SLEEPS, Tenant, World, eventually, service, stack};
use futures::StreamExt as _;
use q8_agent::backend::docker::{DockerBackend, Subnet};
use q8_agent::backend::{Backend as _, Ended, LogEvent, LogQuery, Sighting, Sightings, Tail};
use support::engine::Engine;

async fn backend() -> (DockerBackend, World) {
    let engine = Engine::shared().with_busybox().await;
    let world = World::new("/opt/tenants");
    let pool = Subnet::new([10, 213, 0, 0].into(), 16);
    (DockerBackend::new(world.agent.clone(), engine.socket().to_owned(), pool), world)
}

#[tokio::test]
async fn hooks_run_as_the_user_that_they_name() {
    let (backend, world) = backend().await;
    let mut tenant = Tenant::new(&backend, &world, "user");
    let hook =
        |attributes: &str, script: &str| format!(r#"post_start: [{{command: ["sh", "-c", "{script}"]{attributes}}}]"#);
    for (attributes, script) in [
        (", user: '1000'", "test $$(id -u) = 1000"),
        ("", "test $$(id -u) = 65534"),
        (", user: root", "test $$(id -u) = 0"),
        (", working_dir: /tmp", "test $$(pwd) = /tmp"),
        (", environment: {A: b}", "test $$A$$C = bd"),
    ] {
        let text = stack(&[("web", &[SLEEPS, "user: nobody", "environment: {C: d}", &hook(attributes, script)])], "");
        tenant.up(&text).await.unwrap_or_else(|error| panic!("{script}: {error:?}"));
    }
    tenant.purge().await;
}

/// When the client was answered and when not.
#[derive(Default)]
struct Asked {
    answered: Vec<jiff::Timestamp>,
    failed: usize,
}

impl Asked {
    async fn by(tenant: &Tenant<'_>) -> Self {
        let services = vec![service("client")];
        let query = LogQuery { services, tail: Tail::All, follow: false, since: None, until: None, cursor: None };
        let mut lines = tenant.backend.logs(&tenant.owner, &query).await.expect("logs");
        let mut asked = Self::default();
        let mut all = Vec::new();
        while let Some(events) = lines.next().await {
            all.extend(events.expect("lines"));
        }
        for event in all {
            let LogEvent::Line(line) = event else { continue };
            match &*line.line {
                b"ok" => asked.answered.push(line.time.expect("the engine gives times")),
                _ => asked.failed += 1,
            }
        }
        asked
    }

    /// Whether it has noticed that nobody served: it was not answered, or for as long waited for one answer.
    fn missed_anything(&self) -> bool {
        let mut waits = self.answered.windows(2).map(|pair| pair[1].duration_since(pair[0]));
        self.failed > 0 || waits.any(|wait| wait.unsigned_abs() >= GAP)
    }
}

/// Waits until the client has been answered to what it has asked from now on.
async fn answered_again(tenant: &Tenant<'_>) {
    let before = Asked::by(tenant).await.answered.len();
    eventually("the client is answered again", async || Asked::by(tenant).await.answered.len() > before + 1).await;
}

/// How long a server takes to begin: with nothing beside it, that long nobody is answered.
const GAP: Duration = Duration::from_secs(3);

/// A client asks all the time by the service's name, and as clients do tries each address that the name stands for.
#[tokio::test]
async fn no_request_fails_during_a_start_first_update() {
    let (backend, world) = backend().await;
    let mut tenant = Tenant::new(&backend, &world, "nodowntime");
    let serves =
        r#"command: ["sh", "-c", "mkdir -p /www; sleep 3; echo hello >/www/index.html; exec httpd -f -p 80 -h /www"]"#;
    let check = r#"healthcheck: {test: ["CMD", "/bin/wget", "-qO-", "http://127.0.0.1/"], interval: 100ms, timeout: 5s, retries: 100}"#;
    let asks = "
        while :; do
          answer=failed
          for address in $$(nslookup web 127.0.0.11 2>/dev/null | grep '^Address' | grep -v 127.0.0.11 | grep -o '[0-9.]*$$'); do
            [ \"$$(/bin/wget -T 10 -qO- http://$$address/ 2>/dev/null)\" = hello ] && answer=ok && break
          done
          echo $$answer
          sleep 0.05
        done";
    let asks = format!("command: [sh, -c, {}]", serde_json::to_string(asks).expect("text"));
    let text = |value: u32, order: &str| {
        let label = format!("labels: {{value: '{value}'}}");
        let deploy = format!("deploy: {{replicas: 2, update_config: {{order: {order}, parallelism: 1}}}}");
        stack(
            &[
                ("web", &[serves, check, &label, &deploy]),
                ("client", &[&asks, "depends_on: {web: {condition: service_healthy}}"]),
            ],
            "",
        )
    };
    tenant.up(&text(1, "start-first")).await.expect("it comes up");
    eventually("the client is answered", async || Asked::by(&tenant).await.answered.len() > 5).await;
    let client = tenant.identities().await["client-1"].clone();
    for value in [2, 3] {
        tenant.up(&text(value, "start-first")).await.expect("it is updated");
        answered_again(&tenant).await;
        let asked = Asked::by(&tenant).await;
        assert_eq!(asked.failed, 0, "after {} answers", asked.answered.len());
    }
    assert_eq!(tenant.identities().await["client-1"], client, "it ran all the time");
    // The test can fail: with one container and stop-first there is a gap.
    tenant.up(&text(4, "stop-first").replace("replicas: 2", "replicas: 1")).await.expect("it is updated");
    answered_again(&tenant).await;
    assert!(Asked::by(&tenant).await.missed_anything());
    tenant.purge().await;
}

/// The engine holds its last events: what ended while nobody watched is told by the next watch, and nothing twice.
#[tokio::test]
async fn a_watch_that_begins_anew_tells_what_has_ended_meanwhile() {
    let (backend, world) = backend().await;
    let mut tenant = Tenant::new(&backend, &world, "gap");
    tenant.up(&ends_with_another()).await.expect("it comes up");
    let mut first = backend.watch().await.expect("it can be watched");
    backend.stop(tenant.deployed(), Some(&service("other")), &Tenant::run()).await.expect("it stops");
    let seen = next_end(&mut first, &tenant).await;
    drop(first);
    let restarts = async || tenant.containers().await["bad-1"].status.restart_count;
    let known = restarts().await;
    // The last of them may have been on its way to the first watch.
    eventually("it has ended again and again", async || restarts().await >= known + 2).await;
    let begun = jiff::Timestamp::now();
    let mut second = backend.watch().await.expect("it can be watched");
    let missed = next_end(&mut second, &tenant).await;
    assert!(seen.at < missed.at && missed.at < begun, "{seen:?}, {missed:?}, {begun}");
    assert_eq!((missed.code, missed.requested), (3, false), "{missed:?}");
    tenant.purge().await;
}

async fn next_end(sightings: &mut Sightings, tenant: &Tenant<'_>) -> Ended {
    let next = async {
        loop {
            match sightings.next().await.expect("the watch goes on") {
                Sighting::Ended(ended) if ended.tenant == tenant.owner.subdomain && ended.service.as_str() == "bad" => {
                    return ended;
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), next).await.expect("it ends soon")
}

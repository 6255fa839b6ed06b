//! A tenant's whole life, from its first provision to its purge, beside a container that is none of the agent's business.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use bollard::models::{ContainerCreateBody, HostConfig, VolumeCreateRequest};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions};
use serde_json::{Value, json};

use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::http::Lines;
use crate::support::images::{BUSYBOX, BUSYBOX_2};
use crate::support::unique;
use crate::tenant::{Identity, PATIENCE, Tenant, UNDECIDED, containers_in, fields, inspect, page, service};

const STACK: &str = r#"
x-common: &common {image: "q8test/busybox:1", stop_signal: SIGKILL}
services:
  db:
    <<: *common
    restart: unless-stopped
    command: [sh, -c, "echo db starts >>/data/starts; cat /data/starts; exec sleep 3600"]
    volumes: ["kept:/data"]
    healthcheck: {test: [CMD, test, -e, /data/starts], interval: 500ms, retries: 50}
  web:
    <<: *common
    depends_on: {db: {condition: service_healthy}}
    command: [sh, -c, "cat /site/index.html; echo visit >>/state/visits; cat /state/visits; exec httpd -f -vv -p 80 -h /site"]
    ports: ["80"]
    volumes: ["./site:/site:ro", "./data/web:/state"]
  side:
    <<: *common
    command: [sleep, "3600"]
volumes: {kept: {}}
"#;

/// The same with a web service that ends at once.
fn broken() -> String {
    let end = format!("echo cannot go on >&2; exit 3\"]\n    {UNDECIDED}");
    STACK.replace("exec httpd -f -vv -p 80 -h /site\"]", &end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_lives_is_changed_and_goes() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let tenant = Tenant::new(&agent, "life");
    let foreign = Foreign::beside(engine, &tenant).await;
    let first = json!({"files": {"site/index.html": "the first page\n"}});

    // Provision, status, logs, images.
    let made = tenant.provision(STACK, first.clone()).await;
    assert_eq!(
        (&made["status"], &made["changed"], &made["generation"]),
        (&json!("provisioned"), &json!(true), &json!(1))
    );
    assert_eq!(made["warnings"], json!([]));
    let status = tenant.status().await;
    assert_eq!((&status["state"], &status["desired"]), (&json!("running"), &json!("running")), "{status}");
    for (name, state) in [("db", "healthy"), ("side", "running"), ("web", "running")] {
        assert_eq!(service(&status, name)["state"], state, "{status}");
    }
    assert_eq!(tenant.says("web", "visit").await, ["the first page", "visit"]);
    let address = tenant.endpoint("web").await;
    assert_eq!(page(address, "/index.html").await.text(), "the first page\n");
    a_follower_sees_a_line_within_a_second(&agent, &tenant).await;
    the_images_are_told(&agent, &tenant).await;

    // The same again is nothing.
    let first_containers = tenant.containers().await;
    let again = agent.post("/v1/tenants/provision", &tenant.body(STACK, &first)).await.expect(200);
    assert_eq!((&again["changed"], &again["generation"]), (&json!(false), &json!(1)), "{again}");
    assert_eq!(tenant.containers().await, first_containers);

    // One file: one service.
    let updated = tenant.update(json!({"files": {"site/index.html": "the second page\n"}})).await.expect(200);
    assert_eq!((&updated["status"], &updated["changed"]), (&json!("updated"), &json!(true)), "{updated}");
    assert_eq!(updated["generation"], 2);
    let second_containers = tenant.containers().await;
    only_changed(&first_containers, &second_containers, "web-1");
    assert_eq!(page(tenant.endpoint("web").await, "/index.html").await.text(), "the second page\n");
    assert_eq!(tenant.said("web").await[..3], ["the second page", "visit", "visit"]);

    an_update_that_fails_changes_nothing(&tenant, &second_containers).await;

    // Back to the first generation's content, once.
    let second_containers = tenant.containers().await;
    let back = tenant.act("rollback", "?from=2").await.expect(200);
    assert_eq!((&back["status"], &back["generation"]), (&json!("rolled_back"), &json!(3)), "{back}");
    let third_containers = tenant.containers().await;
    only_changed(&second_containers, &third_containers, "web-1");
    assert_eq!(page(tenant.endpoint("web").await, "/index.html").await.text(), "the first page\n");
    let refused = tenant.act("rollback", "?from=2").await.refused(409, "GENERATION_MISMATCH");
    assert_eq!(refused["details"]["generation"], 3, "{refused}");
    assert_eq!(tenant.containers().await, third_containers);

    restart_stop_and_start(&tenant, &third_containers).await;

    // Teardown keeps what is data; only the same id gets it back.
    let volume = format!("q8-{}_kept", tenant.name);
    let gone = tenant.act("teardown", "").await.expect(200);
    assert_eq!((&gone["status"], &gone["changed"]), (&json!("torn_down"), &json!(true)), "{gone}");
    assert_eq!((&gone["kept"]["volumes"], &gone["kept"]["data"]), (&json!([volume]), &json!(true)), "{gone}");
    let archive = gone["kept"]["archive"].as_str().expect("the archive's name").to_owned();
    assert_eq!(engine.left(&agent.label()).await, std::slice::from_ref(&volume));
    assert_eq!(tenant.status().await["state"], "kept");
    let heir = Tenant::again(&agent, &tenant.name, "somebody-else");
    let body = heir.body(STACK, &first);
    agent.post("/v1/tenants/provision", &body).await.refused(409, "ID_MISMATCH");
    assert_eq!(engine.left(&agent.label()).await, [volume]);

    tenant.provision(STACK, first).await;
    let starts = tenant.says("db", "db starts").await;
    assert!(starts.len() > 2, "what earlier containers wrote into the volume is still there: {starts:?}");
    let visits = tenant.says("web", "visit").await;
    assert!(visits.iter().filter(|line| *line == "visit").count() > 2, "data/ is still there: {visits:?}");

    // A purge leaves nothing but what is not ours.
    let root = agent.root();
    assert!(root.join(&tenant.name).is_dir() && root.join(".archive").join(&archive).is_dir());
    let purged = tenant.act("teardown", "?purge=true").await.expect(200);
    assert_eq!(purged["kept"], json!({"volumes": [], "data": false, "archive": null}), "{purged}");
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
    assert_eq!(names_in(&root), [".agent", ".archive"]);
    assert_eq!(names_in(&root.join(".archive")), Vec::<String>::new());
    agent.get(&format!("/v1/tenants/status/{}", tenant.name)).await.refused(404, "NOT_FOUND");
    let nothing = tenant.act("teardown", "?purge=true").await.expect(200);
    assert_eq!(nothing["changed"], false, "{nothing}");
    foreign.is_untouched().await;
}

/// The server logs each request, so a request is a line whose time the test knows.
async fn a_follower_sees_a_line_within_a_second(agent: &Agent<'_>, tenant: &Tenant<'_>) {
    let path = format!("/v1/tenants/logs/{}?service=web&follow=true&tail=0", tenant.name);
    let mut lines = agent.stream(&path, &[]).await;
    let address = tenant.endpoint("web").await;
    // A machine that is busy for a moment is no broken promise; one that is always late is.
    let mut fastest = Duration::MAX;
    for attempt in 0..5 {
        let asked = format!("/line-{attempt}");
        let before = Instant::now();
        page(address, &asked).await;
        line_with(&mut lines, &asked).await;
        fastest = fastest.min(before.elapsed());
        if fastest < Duration::from_secs(1) {
            return;
        }
    }
    panic!("a follower waits {fastest:?} for a line");
}

async fn line_with(lines: &mut Lines, wanted: &str) {
    loop {
        let line = lines.next(PATIENCE).await.expect("the stream goes on");
        assert!(line.starts_with("web-1 | "), "{line}");
        if line.contains(wanted) {
            return;
        }
    }
}

async fn the_images_are_told(agent: &Agent<'_>, tenant: &Tenant<'_>) {
    let answer = agent.get(&format!("/v1/tenants/images/{}", tenant.name)).await.expect(200);
    assert_eq!(answer["subdomain"], tenant.name);
    let images = answer["images"].as_array().expect("a list of images");
    let told: Vec<(&str, &str)> = images
        .iter()
        .map(|image| (image["service"].as_str().unwrap_or_default(), image["image"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(told, [("db", BUSYBOX), ("side", BUSYBOX), ("web", BUSYBOX)]);
    for image in images {
        let wanted = ["service", "container", "image", "id", "digest", "tag", "size", "created"];
        assert_eq!(fields(image), wanted.into(), "{image}");
        assert!(image["id"].as_str().is_some_and(|id| id.starts_with("sha256:")), "{image}");
        assert!(image["size"].as_u64().is_some_and(|size| size > 100_000), "{image}");
    }
}

async fn an_update_that_fails_changes_nothing(tenant: &Tenant<'_>, before: &BTreeMap<String, Identity>) {
    // `side` changes as well: it is part of the same undo.
    let compose = broken()
        .replace("command: [sleep, \"3600\"]", &format!("image: \"{BUSYBOX_2}\"\n    command: [sleep, \"3600\"]"));
    assert_ne!(compose, broken());
    let failed = tenant.update(json!({"compose_content": compose})).await.refused(502, "SERVICE_EXITED");
    assert_eq!(failed["field"], "services.web", "{failed}");
    assert_eq!(failed["details"]["exit_code"], 3, "{failed}");
    assert!(failed["details"]["logs"].to_string().contains("cannot go on"), "{failed}");

    let status = tenant.status().await;
    assert_eq!((&status["state"], &status["generation"]), (&json!("running"), &json!(2)), "{status}");
    assert_eq!(status["last_error"]["code"], "SERVICE_EXITED", "{status}");
    let after = containers_in(&status, &tenant.name);
    assert_eq!(after["db-1"], before["db-1"], "what the update did not touch runs on");
    let ids = |all: &BTreeMap<String, Identity>| all.values().map(|one| one.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(before), "the same containers");
    assert_eq!(page(tenant.endpoint("web").await, "/index.html").await.text(), "the second page\n");
}

async fn restart_stop_and_start(tenant: &Tenant<'_>, before: &BTreeMap<String, Identity>) {
    let done = tenant.act("restart", "").await.expect(200);
    assert_eq!(done, json!({"status": "restarted", "subdomain": tenant.name}));
    let restarted = tenant.containers().await;
    started_later(before, &restarted, &["db-1", "side-1", "web-1"]);
    let done = tenant.act("restart", "?service=side").await.expect(200);
    assert_eq!(done["status"], "restarted");
    let one_restarted = tenant.containers().await;
    started_later(&restarted, &one_restarted, &["side-1"]);

    let done = tenant.act("stop", "").await.expect(200);
    assert_eq!(done, json!({"status": "stopped", "subdomain": tenant.name}));
    let status = tenant.status().await;
    assert_eq!((&status["state"], &status["desired"]), (&json!("stopped"), &json!("stopped")), "{status}");
    for name in ["db", "side", "web"] {
        let found = service(&status, name);
        assert_eq!(
            (&found["state"], &found["containers"][0]["state"]),
            (&json!("stopped"), &json!("exited")),
            "{found}"
        );
    }
    assert_eq!(status["endpoints"], json!([]), "{status}");

    let done = tenant.act("start", "").await.expect(200);
    assert_eq!(done, json!({"status": "started", "subdomain": tenant.name}));
    assert_eq!(tenant.status().await["state"], "running");
    started_later(&one_restarted, &tenant.containers().await, &["db-1", "side-1", "web-1"]);
}

/// One container is another one now; the others have not even been restarted.
fn only_changed(before: &BTreeMap<String, Identity>, after: &BTreeMap<String, Identity>, changed: &str) {
    assert!(before.keys().eq(after.keys()), "{before:?} {after:?}");
    for (name, old) in before {
        if name == changed {
            assert_ne!(after[name].id, old.id, "{name} is made anew");
        } else {
            assert_eq!(after[name], *old, "{name} is left alone");
        }
    }
}

/// The same containers; exactly these have been started since.
fn started_later(before: &BTreeMap<String, Identity>, after: &BTreeMap<String, Identity>, later: &[&str]) {
    assert!(before.keys().eq(after.keys()), "{before:?} {after:?}");
    for (name, old) in before {
        assert_eq!(after[name].id, old.id, "{name} is the same container");
        // Times in UTC of one form: their order as text is their order in time.
        assert_eq!(
            after[name].started_at > old.started_at,
            later.contains(&name.as_str()),
            "{name}: {old:?} {after:?}"
        );
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("the directory is there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A container and a volume of somebody else, with names that begin like the tenant's. They go with this value.
struct Foreign {
    engine: &'static Engine,
    label: String,
    container: String,
    before: Value,
}

impl Foreign {
    async fn beside(engine: &'static Engine, tenant: &Tenant<'_>) -> Self {
        let docker = engine.docker();
        let label = unique("q8test.foreign");
        let labels = HashMap::from([(label.clone(), String::new())]);
        let volume = format!("q8-{}_other", tenant.name);
        let request =
            VolumeCreateRequest { name: Some(volume.clone()), labels: Some(labels.clone()), ..Default::default() };
        docker.create_volume(request).await.expect("a volume is created");
        let body = ContainerCreateBody {
            image: Some(BUSYBOX.to_owned()),
            cmd: Some(vec!["sleep".to_owned(), "3600".to_owned()]),
            labels: Some(labels),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                binds: Some(vec![format!("{volume}:/data")]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let name = format!("q8-{}-web-2", tenant.name);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let container = docker.create_container(Some(options), body).await.expect("a container is created").id;
        docker.start_container(&container, None::<StartContainerOptions>).await.expect("it starts");
        let before = inspect(engine, &container).await;
        Self { engine, label, container, before }
    }

    async fn is_untouched(&self) {
        let after = inspect(self.engine, &self.container).await;
        for part in ["Name", "State", "Mounts", "RestartCount"] {
            assert_eq!(after[part], self.before[part], "{part}");
        }
        assert_eq!(self.engine.labelled(&self.label).await.len(), 2, "its volume is there too");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let (engine, label) = (self.engine, self.label.as_str());
        // The test's own runtime may be the one that is being dropped.
        std::thread::scope(|scope| {
            let tidy = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                drop(runtime.map(|runtime| runtime.block_on(engine.remove_labelled(label))));
            });
            drop(tidy.join());
        });
    }
}

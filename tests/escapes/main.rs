//! Ways out of a container that work with `docker compose` on a real engine, and what becomes of them here.
//!
//! Under `baseline` each is refused by its field and changes nothing on disk or engine, or is accepted and does not lead
//! out. A control under `trusted`, where it does no harm to the machine, shows that the way exists on this engine.

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "another test binary uses the rest")]
#[path = "../e2e_faults/scene.rs"]
mod scene;

mod own_only;
mod stricter;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::InspectContainerOptions;
use serde_json::json;

use scene::{PROVISION, SLEEPS, Tree, UPDATE, assert_same, containers, objects, purge, request, stack, status, tree};
use support::agent::{Agent, Options};
use support::engine::Engine;
use support::{eventually, unique};

/// Longer than an agent takes to end.
const LONG_STOP: Duration = Duration::from_secs(30);

const SECRET: &str = "a-canary-of-the-host";

/// An agent whose tenants are strangers.
async fn confining(engine: &Engine) -> Agent<'_> {
    Options::docker(engine).start().await
}

async fn trusting(engine: &Engine) -> Agent<'_> {
    Options::docker(engine).env("Q8_AGENT_POLICY", "trusted").start().await
}

/// A file of the host that nobody but root may read.
fn canary(agent: &Agent<'_>) -> PathBuf {
    let directory = agent.home().join("host");
    std::fs::create_dir_all(&directory).expect("a directory");
    let file = directory.join("canary");
    std::fs::write(&file, SECRET).expect("a canary");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    file
}

/// Everything about it that a container could change.
fn state_of(file: &Path) -> (String, u64, u32, u32) {
    let metadata = std::fs::metadata(file).expect("the canary is there");
    (std::fs::read_to_string(file).expect("it is a text"), metadata.ino(), metadata.mode(), metadata.uid())
}

async fn said(agent: &Agent<'_>, name: &str, service: &str) -> String {
    agent.get(&format!("/v1/tenants/logs/{name}?service={service}&tail=all")).await.text()
}

async fn inspect(engine: &Engine, agent: &Agent<'_>, name: &str, container: &str) -> ContainerInspectResponse {
    let all = containers(&status(agent, name).await);
    let id = &all.get(container).unwrap_or_else(|| panic!("{container} is not among {all:?}")).id;
    engine.docker().inspect_container(id, None::<InspectContainerOptions>).await.expect("an inspection")
}

async fn picture(engine: &Engine, agent: &Agent<'_>) -> (Tree, BTreeMap<String, String>) {
    (tree(&agent.root()), objects(engine, &agent.label()).await)
}

/// Attributes of a service, what comes after the services, and the field that is refused.
struct Way {
    proof: &'static str,
    attribute: String,
    rest: String,
    field: &'static str,
}

fn ways(victim: &str, host: &Path) -> Vec<Way> {
    let host = host.display();
    let in_service = |proof, attribute: String, field| Way { proof, attribute, rest: String::new(), field };
    let volume = |proof, definition: String, field| Way {
        proof,
        attribute: "volumes: ['v:/v']".to_owned(),
        rest: format!("volumes: {{v: {definition}}}\n"),
        field,
    };
    let network = |proof, definition: String, field| Way {
        proof,
        attribute: "networks: [n]".to_owned(),
        rest: format!("networks: {{n: {definition}}}\n"),
        field,
    };
    let secret = |proof, kind: &str, definition: String, field| Way {
        proof,
        attribute: format!("{kind}: [s]"),
        rest: format!("{kind}: {{s: {definition}}}\n"),
        field,
    };
    vec![
        volume("f01", format!("{{driver_opts: {{type: none, o: bind, device: '{host}'}}}}"), "volumes.v.driver_opts"),
        volume(
            "f01b",
            format!("{{driver_opts: {{type: overlay, o: 'lowerdir={host}:/etc', device: overlay}}}}"),
            "volumes.v.driver_opts",
        ),
        in_service("e02", format!("network_mode: 'container:q8-{victim}-db-1'"), "services.a.network_mode"),
        in_service("e03", format!("pid: 'container:q8-{victim}-db-1'"), "services.a.pid"),
        in_service("e06", format!("volumes_from: ['container:q8-{victim}-db-1']"), "services.a.volumes_from[0]"),
        volume("f07", format!("{{external: true, name: q8-{victim}_data}}"), "volumes.v.external"),
        volume("f07b", format!("{{name: q8-{victim}_data}}"), "volumes.v.name"),
        network("e08", format!("{{external: true, name: q8-{victim}_default}}"), "networks.n.external"),
        network("e08", format!("{{name: q8-{victim}_default}}"), "networks.n.name"),
        secret("e09", "secrets", format!("{{file: '{host}/canary'}}"), "secrets.s.file"),
        secret("e10", "configs", format!("{{file: '{host}/canary'}}"), "configs.s.file"),
        secret("e10", "configs", "{file: ../../host/canary}".to_owned(), "configs.s.file"),
        secret("f28", "secrets", "{environment: Q8_AGENT_ADMIN_TOKEN}".to_owned(), "secrets.s.environment"),
        in_service("e12", "security_opt: ['systempaths=unconfined']".to_owned(), "services.a.security_opt[0]"),
        in_service(
            "e17",
            "logging: {driver: syslog, options: {syslog-address: 'tcp://127.0.0.1:15514'}}".to_owned(),
            "services.a.logging.driver",
        ),
        // Two gigabytes of the engine's own memory: it runs tags as templates.
        in_service(
            "tag",
            "logging: {options: {tag: '{{pad \"x\" 2000000000 0}}'}}".to_owned(),
            "services.a.logging.options.tag",
        ),
        in_service("e19", "labels: {traefik.enable: 'true'}".to_owned(), "services.a.labels.traefik.enable"),
        in_service("e19", format!("labels: {{dev.q8.tenant: {victim}}}"), "services.a.labels.dev.q8.tenant"),
        in_service("e21", "shm_size: 20g".to_owned(), "services.a.shm_size"),
        in_service("e25", "volumes: ['./../../:/h:ro']".to_owned(), "services.a.volumes[0]"),
        in_service("e25", format!("volumes: ['{host}:/h:ro']"), "services.a.volumes[0]"),
        network("f30", "{ipam: {config: [{subnet: 198.51.100.0/24}]}}".to_owned(), "networks.n.ipam"),
        in_service("f32", "cgroup_parent: /x".to_owned(), "services.a.cgroup_parent"),
        in_service(
            "f33",
            "healthcheck: {test: [CMD, 'true'], interval: 1ms}".to_owned(),
            "services.a.healthcheck.interval",
        ),
        in_service("g04", "stop_grace_period: 100000h".to_owned(), "services.a.stop_grace_period"),
        in_service("f35", "network_mode: host".to_owned(), "services.a.network_mode"),
        in_service("f36", "pid: host".to_owned(), "services.a.pid"),
        in_service("e26", format!("ipc: 'container:q8-{victim}-db-1'"), "services.a.ipc"),
        in_service("g10", "sysctls: {kernel.core_pattern: '|/x'}".to_owned(), "services.a.sysctls.kernel.core_pattern"),
        in_service("g02", "volumes: ['./:/app']".to_owned(), "services.a.volumes[0]"),
        in_service("g02", "volumes: ['./compose.yaml:/c:ro']".to_owned(), "services.a.volumes[0]"),
        in_service("g07", format!("volumes: ['{host}/not-there:/h']"), "services.a.volumes[0]"),
        in_service("g07", "volumes: ['./not-there:/h']".to_owned(), "services.a.volumes[0]"),
        network("g08", "{name: host}".to_owned(), "networks.n.name"),
        network("g08", "{name: bridge, external: true}".to_owned(), "networks.n.external"),
        in_service("f13", "device_cgroup_rules: ['b *:* rwm']".to_owned(), "services.a.device_cgroup_rules[0]"),
        in_service("e11c", format!("env_file: '{host}/canary'"), "services.a.env_file"),
        in_service("e11c", "env_file: ../../host/canary".to_owned(), "services.a.env_file"),
        Way { proof: "e15", attribute: "init: true".to_owned(), rest: format!("name: q8-{victim}\n"), field: "name" },
        in_service("e23", "ports: ['20000-20199:80-279']".to_owned(), "limits.ports"),
        in_service("f13", "privileged: true".to_owned(), "services.a.privileged"),
        in_service("f13", "oom_score_adj: -1000".to_owned(), "services.a.oom_score_adj"),
    ]
}

#[tokio::test]
async fn every_way_out_is_refused_and_changes_nothing() {
    let engine = Engine::shared().with_busybox().await;
    let agent = confining(engine).await;
    let file = canary(&agent);
    let host = file.parent().expect("its directory").to_owned();
    let victim = unique("victim");
    let text = stack(&[("db", &[SLEEPS, &["volumes: ['data:/data']"]])], "volumes: {data: {}}\n");
    agent.post(PROVISION, &request(&victim, &text)).await.expect(201);
    let of_victim = containers(&status(&agent, &victim).await);
    let before = (picture(engine, &agent).await, state_of(&file));
    let mut wrong = Vec::new();
    for way in ways(&victim, &host) {
        let name = unique("hostile");
        let text = stack(&[("a", &[SLEEPS, &[&way.attribute]])], &way.rest);
        let answer = agent.post(PROVISION, &request(&name, &text)).await;
        let told = answer.json();
        let named = told["field"] == way.field
            || told["details"]["refusals"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["field"] == way.field));
        let code = match way.proof {
            // Not in the request, or not the tenant's: the loader knows already.
            "e11c" | "e15" => "COMPOSE_INVALID",
            "e23" => "QUOTA_EXCEEDED",
            _ => "POLICY_DENIED",
        };
        if answer.status != 422 || told["code"] != code || !named {
            wrong.push(format!("{} ({} {}): {told}", way.proof, way.attribute, way.rest));
        }
        assert!(!answer.text().contains(SECRET), "{}: the canary is told", way.proof);
        let after = picture(engine, &agent).await;
        assert_same(&before.0.0, &after.0, &format!("{}: the disk", way.proof));
        assert_same(&before.0.1, &after.1, &format!("{}: the engine", way.proof));
        assert_eq!(before.1, state_of(&file), "{}", way.proof);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!host.join("not-there").exists(), "a bind made its source on the host");
    assert_eq!(containers(&status(&agent, &victim).await), of_victim);
    purge(&agent, engine, &victim).await;
}

/// What the proofs found, for whoever trusts a stack: these ways exist on this engine.
#[tokio::test]
async fn control_the_ways_exist_where_stacks_are_trusted() {
    let engine = Engine::shared().with_busybox().await;
    let agent = trusting(engine).await;
    let host = canary(&agent).parent().expect("its directory").display().to_string();
    let victim = unique("victim");
    let holds = r#"command: ["sh", "-c", "echo of-the-victim >/data/f; exec sleep 3600"]"#;
    let text = stack(
        &[(
            "db",
            &[&[holds, "stop_signal: SIGKILL", "environment: {DB_PASSWORD: of-the-victim}", "volumes: ['data:/data']"]],
        )],
        "volumes: {data: {}}\n",
    );
    agent.post(PROVISION, &request(&victim, &text)).await.expect(201);
    let reads = |what: &str| format!("command: ['sh', '-c', '{what}; echo; exec sleep 3600']");
    let bind = format!("volumes: {{v: {{driver_opts: {{type: none, o: bind, device: '{host}'}}}}}}\n");
    for (proof, lines, rest, found) in [
        ("f01", vec![reads("cat /v/canary"), "volumes: ['v:/v']".to_owned()], bind, SECRET),
        ("e25", vec![reads("cat /h/canary"), format!("volumes: ['{host}:/h:ro']")], String::new(), SECRET),
        (
            "e03",
            vec![reads("cat /proc/1/environ"), format!("pid: 'container:q8-{victim}-db-1'")],
            String::new(),
            "DB_PASSWORD=of-the-victim",
        ),
        (
            "e06",
            vec![reads("cat /data/f"), format!("volumes_from: ['container:q8-{victim}-db-1']")],
            String::new(),
            "of-the-victim",
        ),
        (
            "f07",
            vec![reads("cat /v/f"), "volumes: ['v:/v']".to_owned()],
            format!("volumes: {{v: {{external: true, name: q8-{victim}_data}}}}\n"),
            "of-the-victim",
        ),
        (
            "e08",
            vec![reads("nslookup db 127.0.0.11"), "networks: [n]".to_owned()],
            format!("networks: {{n: {{external: true, name: q8-{victim}_default}}}}\n"),
            "db",
        ),
    ] {
        let name = unique("control");
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        lines.push("stop_signal: SIGKILL");
        agent.post(PROVISION, &request(&name, &stack(&[("a", &[&lines])], &rest))).await.expect(201);
        eventually(&format!("{proof}: {found}"), Duration::from_secs(20), async || {
            said(&agent, &name, "a").await.contains(found).then_some(())
        })
        .await;
        // `purge` would find the victim's objects as well.
        agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &json!(null)).await.expect(200);
    }
    purge(&agent, engine, &victim).await;
}

/// e04, f27: only the request's own variables are seen, and the agent's token never.
#[tokio::test]
async fn the_agents_own_variables_are_not_the_tenants() {
    let engine = Engine::shared().with_busybox().await;
    let agent = confining(engine).await;
    let name = unique("token");
    let prints =
        r#"command: ["sh", "-c", "env; echo \"[$$A][${Q8_AGENT_ADMIN_TOKEN:-none}]\"; echo end; exec sleep 3600"]"#;
    let more = "environment: [Q8_AGENT_ADMIN_TOKEN, 'A=${Q8_AGENT_ADMIN_TOKEN:-none}']";
    let text = stack(&[("a", &[&[prints, more, "stop_signal: SIGKILL"]])], "");
    agent.post(PROVISION, &request(&name, &text)).await.expect(201);
    let all = eventually("the container has printed", Duration::from_secs(20), async || {
        Some(said(&agent, &name, "a").await).filter(|text| text.contains("end"))
    })
    .await;
    assert!(all.contains("[none][none]"), "{all}");
    assert!(!all.contains(agent.token()), "the token is in a container");
    purge(&agent, engine, &name).await;
}

/// g08, e21: a network's key is no mode of the engine's, and a container that asks for nothing is confined. e16, e24: neither
/// variables of docker compose nor a container's name make it another's.
#[tokio::test]
async fn what_is_accepted_is_confined() {
    let engine = Engine::shared().with_busybox().await;
    let agent = confining(engine).await;
    let name = unique("plain");
    let attributes = &["networks: [host, bridge]", "container_name: q8-somebody-a-1"];
    let text = stack(&[("a", &[SLEEPS, attributes])], "networks: {host: {}, bridge: {}}\n");
    let mut body = request(&name, &text);
    body["env_content"] = json!("COMPOSE_PROJECT_NAME=q8-somebody\nCOMPOSE_FILE=/etc/passwd\n");
    let made = agent.post(PROVISION, &body).await.expect(201);
    assert!(made["warnings"].to_string().contains("services.a.container_name"), "{made}");
    let found = inspect(engine, &agent, &name, "a-1").await;
    assert_eq!(found.name.as_deref(), Some(format!("/q8-{name}-a-1").as_str()));
    let networks = found.network_settings.and_then(|settings| settings.networks).expect("networks");
    let mut networks: Vec<String> = networks.into_keys().collect();
    networks.sort();
    assert_eq!(networks, [format!("q8-{name}_bridge"), format!("q8-{name}_host")]);
    let host = json!(found.host_config);
    assert!(host["NetworkMode"].as_str().is_some_and(|mode| mode.starts_with(&format!("q8-{name}_"))), "{host}");
    assert_eq!((&host["Privileged"], &host["CgroupnsMode"]), (&json!(false), &json!("private")));
    assert_eq!(host["SecurityOpt"], json!(["no-new-privileges:true"]));
    let dropped = host["CapDrop"].to_string();
    assert!(dropped.contains("NET_RAW") && dropped.contains("MKNOD"), "{dropped}");
    for limit in ["Memory", "NanoCpus", "PidsLimit", "ShmSize"] {
        assert!(host[limit].as_i64().is_some_and(|limit| limit > 0), "{limit}: {host}");
    }
    assert_eq!(host["LogConfig"]["Type"], "json-file");
    assert!(host["LogConfig"]["Config"]["max-size"].is_string(), "{host}");
    purge(&agent, engine, &name).await;
}

/// e05: what a container plants in `data/` is no source of a later bind.
#[tokio::test]
async fn a_link_in_data_is_not_followed() {
    let engine = Engine::shared().with_busybox().await;
    let agent = confining(engine).await;
    let file = canary(&agent);
    let before = state_of(&file);
    let host = file.parent().expect("its directory").display().to_string();
    let name = unique("link");
    let plants = format!("command: ['sh', '-c', 'ln -s {host} /d/link; echo end; exec sleep 3600']");
    let first = stack(&[("a", &[&[&plants, "stop_signal: SIGKILL", "volumes: ['./data:/d']"]])], "");
    agent.post(PROVISION, &request(&name, &first)).await.expect(201);
    eventually("the link is planted", Duration::from_secs(20), async || {
        std::fs::symlink_metadata(agent.root().join(&name).join("data/link")).ok().map(drop)
    })
    .await;
    let reads = r#"command: ["sh", "-c", "cat /x/canary; echo end; exec sleep 3600"]"#;
    let reader: &[&str] = &[reads, "stop_signal: SIGKILL", "volumes: ['./data/link:/x']"];
    // Beside the writer, and in its place.
    for text in [
        stack(&[("a", &[&[&plants, "stop_signal: SIGKILL", "volumes: ['./data:/d']"]]), ("b", &[reader])], ""),
        stack(&[("b", &[reader])], ""),
    ] {
        let answer = agent.post(UPDATE, &json!({"subdomain": name, "compose_content": text, "pull": false})).await;
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(!answer.text().contains(SECRET) && !said(&agent, &name, "a").await.contains(SECRET));
        assert_eq!(state_of(&file), before);
    }
    // Long after, when nothing of the tenant binds anything.
    let update = |text: String| json!({"subdomain": name, "compose_content": text, "pull": false});
    agent.post(UPDATE, &update(stack(&[("b", &[SLEEPS])], ""))).await.expect(200);
    let answer = agent.post(UPDATE, &update(stack(&[("b", &[reader])], ""))).await;
    assert!(!(200..300).contains(&answer.status.as_u16()), "{}", answer.text());
    assert!(!said(&agent, &name, "b").await.contains(SECRET));
    assert_eq!(status(&agent, &name).await["state"], "running");
    purge(&agent, engine, &name).await;
    assert_eq!(state_of(&file), before, "the teardown went through the link");
}

/// e20: a container that puts a link in a file's place all the time, while the agent writes 200 times.
#[tokio::test]
async fn a_link_that_flips_during_updates_moves_no_host_file() {
    let engine = Engine::shared().with_busybox().await;
    let agent = confining(engine).await;
    let file = canary(&agent);
    let before = state_of(&file);
    let host = file.display().to_string();
    let name = unique("flip");
    let flips = format!(
        "command: ['sh', '-c', 'while true; do ln -sfn {host} /d/app; rm -rf /d/app; mkdir /d/app; rm -rf /d/app; done']"
    );
    let text = stack(&[("a", &[&[&flips, "stop_signal: SIGKILL", "volumes: ['./data:/d']"]])], "");
    let mut body = request(&name, &text);
    body["files"] = json!({"conf/app": "0"});
    agent.post(PROVISION, &body).await.expect(201);
    for round in 1..=200 {
        let files = json!({"conf/app": round.to_string()});
        agent.post(UPDATE, &json!({"subdomain": name, "files": files, "pull": false})).await.expect(200);
        assert_eq!(state_of(&file), before, "round {round}");
    }
    let written = std::fs::read_to_string(agent.root().join(&name).join("conf/app")).expect("the file of the request");
    assert_eq!(written, "200");
    purge(&agent, engine, &name).await;
    assert_eq!(state_of(&file), before, "the teardown went through the link");
}

/// A volume that was made with options while stacks were trusted, or by somebody else, is mounted by no stranger's container:
/// neither kept under stricter rules nor taken over.
#[tokio::test]
async fn a_volume_with_options_is_not_kept_for_strangers() {
    let engine = Engine::shared().with_busybox().await;
    let agent = confining(engine).await;
    let host = canary(&agent).parent().expect("its directory").display().to_string();
    let name = unique("kept");
    let volume = bollard::models::VolumeCreateRequest {
        name: Some(format!("q8-{name}_v")),
        driver_opts: Some(
            [("type", "none"), ("o", "bind"), ("device", &host)].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ),
        labels: Some(
            [("com.docker.compose.project", format!("q8-{name}")), ("com.docker.compose.volume", "v".to_owned())]
                .map(|(k, v)| (k.to_owned(), v))
                .into(),
        ),
        ..Default::default()
    };
    engine.docker().create_volume(volume).await.expect("a volume");
    let reads = r#"command: ["sh", "-c", "cat /v/canary; exec sleep 3600"]"#;
    let text = stack(&[("a", &[&[reads, "stop_signal: SIGKILL", "volumes: ['v:/v']"]])], "volumes: {v: {}}\n");
    let mut body = request(&name, &text);
    body["adopt"] = json!(true);
    let refused = agent.post(PROVISION, &body).await.refused(422, "UNSUPPORTED_ON_BACKEND");
    assert_eq!(refused["field"], "volumes.v", "{refused}");
    assert!(!agent.root().join(&name).exists());
    let options = None::<bollard::query_parameters::RemoveVolumeOptions>;
    engine.docker().remove_volume(&format!("q8-{name}_v"), options).await.expect("it is nobody's");
}

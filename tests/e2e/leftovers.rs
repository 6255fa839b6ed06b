//! Prune and cordon: what is left over goes, only what is the agent's, and only when it is told to.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{InspectContainerOptions, RemoveImageOptions};
use hyper::Method;
use serde_json::{Value, json};

use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::images::BUSYBOX;
use crate::support::registry::Registry;
use crate::support::unique;
use crate::tenant::Tenant;

const PRUNE: &str = "/v1/system/prune";

/// What a prune told of: kind, name, whether it is gone.
fn told(answer: &Value) -> Vec<(String, String, bool)> {
    let line = |object: &Value| {
        let text = |member: &str| object[member].as_str().expect("text").to_owned();
        (text("kind"), text("name"), object["removed"].as_bool().expect("a boolean"))
    };
    answer["objects"].as_array().expect("a list").iter().map(line).collect()
}

async fn prune(agent: &Agent<'_>, body: Value) -> Value {
    agent.post(PRUNE, &body).await.expect(200)
}

/// Brings a tenant to this file, whether or not it is there.
async fn bring(agent: &Agent<'_>, tenant: &Tenant<'_>, compose: &str) {
    let answer = agent.post("/v1/tenants/provision", &tenant.body(compose, &json!({}))).await;
    assert!(answer.status.is_success(), "{}", answer.text());
}

/// What a tenant would leave whose directory is lost: a container, a network and a volume with the agent's labels.
async fn orphans(engine: &Engine, agent: &Agent<'_>, tenant: &str) -> [String; 3] {
    let project = format!("q8-{tenant}");
    let labels: HashMap<String, String> = [
        ("dev.q8.agent", agent.identity()),
        ("dev.q8.tenant", tenant),
        ("dev.q8.id", "lost"),
        ("dev.q8.generation", "1"),
        ("com.docker.compose.project", project.as_str()),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let docker = engine.docker();
    let [container, network, volume] = ["web-1", "net", "data"].map(|what| format!("q8-{tenant}-{what}"));
    let request =
        NetworkCreateRequest { name: network.clone(), labels: Some(labels.clone()), ..NetworkCreateRequest::default() };
    docker.create_network(request).await.expect("a network");
    let request = VolumeCreateRequest {
        name: Some(volume.clone()),
        labels: Some(labels.clone()),
        ..VolumeCreateRequest::default()
    };
    docker.create_volume(request).await.expect("a volume");
    let named = bollard::query_parameters::CreateContainerOptionsBuilder::new().name(&container).build();
    let request = ContainerCreateBody {
        image: Some(BUSYBOX.to_owned()),
        cmd: Some(vec!["true".to_owned()]),
        labels: Some(labels),
        ..ContainerCreateBody::default()
    };
    docker.create_container(Some(named), request).await.expect("a container");
    [container, network, volume]
}

#[tokio::test]
async fn of_tenants_that_nobody_knows() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let other = Options::docker(engine).start().await;
    let tenant = Tenant::new(&agent, "prune");
    let body = |volume: &str| {
        format!(
            "services:\n  web:\n    image: {BUSYBOX}\n    command: sleep 3600\n    stop_signal: SIGKILL\n    \
             volumes: ['{volume}:/data']\nvolumes: {{{volume}: }}\n"
        )
    };
    bring(&agent, &tenant, &body("first")).await;
    let (lost, foreign) = (unique("lost"), unique("theirs"));
    let [container, network, volume] = orphans(engine, &agent, &lost).await;
    let theirs = orphans(engine, &other, &foreign).await;
    std::fs::create_dir(agent.root().join(format!(".archive/{lost}-20260101T000000Z"))).expect("an archive");

    // A dry run, which no body is as well, says what there is and leaves it there. Another agent's is not seen.
    let sorted = async || {
        let mut all = engine.labelled(&agent.label()).await;
        all.sort();
        all
    };
    let before = sorted().await;
    let all = vec![
        ("container".to_owned(), container.clone(), false),
        ("network".to_owned(), network.clone(), false),
        ("volume".to_owned(), volume.clone(), false),
        ("archive".to_owned(), format!("{lost}-20260101T000000Z"), false),
    ];
    for body in [Value::Null, json!({}), json!({"dry_run": true, "volumes": [volume]})] {
        let answer = prune(&agent, body).await;
        assert_eq!((told(&answer), &answer["dry_run"]), (all.clone(), &json!(true)), "{answer}");
    }
    assert_eq!(sorted().await, before);
    for (bad, field) in [
        (json!({"dry_run": "no"}), "dry_run"),
        (json!({"kinds": ["containers"]}), "kinds[0]"),
        (json!({"volumes": ["../x"]}), "volumes[0]"),
        (json!({"force": true}), "force"),
    ] {
        assert_eq!(agent.post(PRUNE, &bad).await.refused(400, "INVALID_REQUEST")["field"], field);
    }

    // Only kinds that are asked for, and data only by its name.
    let answer = prune(&agent, json!({"dry_run": false, "kinds": ["network"]})).await;
    assert_eq!(told(&answer), [("network".to_owned(), network, true)], "{answer}");
    let answer = prune(&agent, json!({"dry_run": false})).await;
    let gone: Vec<bool> = told(&answer).into_iter().map(|(_, _, removed)| removed).collect();
    assert_eq!((gone, &answer["removed"]), (vec![true, false, true], &json!(2)), "{answer}");
    assert!(answer["objects"][1]["note"].as_str().expect("a note").contains("volumes"), "{answer}");
    let answer = prune(&agent, json!({"dry_run": false, "volumes": [volume]})).await;
    assert_eq!(told(&answer), [("volume".to_owned(), volume, true)], "{answer}");
    assert_eq!(told(&prune(&agent, Value::Null).await), []);

    // A volume stays as long as either generation has it; what a teardown keeps, it keeps.
    bring(&agent, &tenant, &body("second")).await;
    assert_eq!(told(&prune(&agent, Value::Null).await), []);
    bring(&agent, &tenant, &body("third")).await;
    let first = format!("q8-{}_first", tenant.name);
    let line = |removed| vec![("volume".to_owned(), first.clone(), removed)];
    assert_eq!(told(&prune(&agent, Value::Null).await), line(false));
    agent.post(&format!("/v1/tenants/teardown/{}", tenant.name), &Value::Null).await.expect(200);
    assert_eq!(told(&prune(&agent, json!({"dry_run": false, "volumes": [first]})).await), []);
    bring(&agent, &tenant, &body("third")).await;
    bring(&agent, &tenant, &body("fourth")).await;
    let answer = prune(&agent, json!({"dry_run": false, "volumes": [first]})).await;
    assert!(told(&answer).contains(&line(true)[0]), "{answer}");

    // A tenant whose record is damaged is known: nothing of it is left over.
    let record = agent.root().join(&tenant.name).join(".agent/record.json");
    let sound = std::fs::read(&record).expect("a record");
    std::fs::write(&record, b"{").expect("damage");
    assert_eq!(told(&prune(&agent, json!({"dry_run": false})).await), []);
    std::fs::write(&record, sound).expect("mended");

    let docker = engine.docker();
    docker
        .inspect_container(&theirs[0], None::<InspectContainerOptions>)
        .await
        .expect("another agent's container is there");
    docker.inspect_volume(&theirs[2]).await.expect("another agent's volume is there");
    engine.remove_labelled(&other.label()).await;
    tenant.purge().await;
}

#[tokio::test]
async fn of_images_that_the_agent_has_pulled() {
    let registry = Registry::public().await;
    let engine = Engine::shared();
    for (tag, version) in [("web:1", "one"), ("web:2", "two"), ("web:3", "three"), ("mine:1", "four")] {
        registry.publish(tag, version).await;
    }
    let policy = format!("registries = ['docker.io', '{}']", registry.address());
    let agent = Options::docker(engine).policy(&policy).start().await;
    // This one is the operator's, who has pulled it before.
    let mine = registry.image("mine:1");
    let options = bollard::query_parameters::CreateImageOptionsBuilder::new().from_image(&mine).build();
    let pulling = engine.docker().create_image(Some(options), None, None);
    futures::TryStreamExt::try_collect::<Vec<_>>(pulling).await.expect("the registry has it");
    let tenant = Tenant::new(&agent, "pruned");
    let stack = |image: &str| {
        format!("services:\n  web:\n    image: {image}\n    command: sleep 3600\n    stop_signal: SIGKILL\n")
    };
    let images = async || told(&prune(&agent, json!({"kinds": ["image"]})).await);
    bring(&agent, &tenant, &stack(&mine)).await;
    for tag in ["web:1", "web:2"] {
        bring(&agent, &tenant, &stack(&registry.image(tag))).await;
    }
    assert_eq!(images().await, [], "both generations run what is here");
    bring(&agent, &tenant, &stack(&registry.image("web:3"))).await;
    assert_eq!(images().await, [("image".to_owned(), registry.image("web:1"), false)]);
    let answer = prune(&agent, json!({"dry_run": false})).await;
    assert_eq!(told(&answer), [("image".to_owned(), registry.image("web:1"), true)], "{answer}");
    assert!(answer["freed_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{answer}");
    assert_eq!(images().await, []);
    // It can still go back, and what was removed can be had again.
    agent.post(&format!("/v1/tenants/rollback/{}", tenant.name), &Value::Null).await.expect(200);
    bring(&agent, &tenant, &stack(&registry.image("web:1"))).await;
    tenant.purge().await;
    let answer = prune(&agent, json!({"dry_run": false})).await;
    let mut gone: Vec<String> = told(&answer).into_iter().map(|(_, name, _)| name).collect();
    gone.sort();
    assert_eq!(gone, ["web:1", "web:2", "web:3"].map(|tag| registry.image(tag)), "{answer}");
    engine.docker().inspect_image(&mine).await.expect("the operator's image is there");

    // One that the agent has pulled and the operator has removed is the operator's when he brings it back.
    let image = registry.image("web:1");
    bring(&agent, &tenant, &stack(&image)).await;
    tenant.purge().await;
    let docker = engine.docker();
    docker.remove_image(&image, None::<RemoveImageOptions>, None).await.expect("nobody uses it");
    prune(&agent, json!({"dry_run": false})).await;
    let options = bollard::query_parameters::CreateImageOptionsBuilder::new().from_image(&image).build();
    let pulling = docker.create_image(Some(options), None, None);
    futures::TryStreamExt::try_collect::<Vec<_>>(pulling).await.expect("the registry has it");
    assert_eq!(images().await, []);
    docker.remove_image(&image, None::<RemoveImageOptions>, None).await.expect("it is there");

    let removed = engine.docker().remove_image(&mine, None::<RemoveImageOptions>, None).await;
    removed.expect("nobody uses it");
}

/// What the other agent's rollbacks need is in no container: nobody but its operator can say what of that is left over.
#[tokio::test]
async fn but_no_image_of_what_another_agent_runs() {
    let registry = Registry::public().await;
    let engine = Engine::shared();
    for (tag, version) in [("web:1", "one"), ("web:2", "two"), ("web:3", "three"), ("db:1", "four")] {
        registry.publish(tag, &unique(version)).await;
    }
    let policy = format!("registries = ['docker.io', '{}']", registry.address());
    let agent = Options::docker(engine).policy(&policy).start().await;
    let other = Options::docker(engine).policy(&policy).start().await;
    let (tenant, theirs) = (Tenant::new(&agent, "ours"), Tenant::new(&other, "theirs"));
    let stack = |tag: &str| {
        let image = registry.image(tag);
        format!("services:\n  web:\n    image: {image}\n    command: sleep 3600\n    stop_signal: SIGKILL\n")
    };
    let images = async || told(&prune(&agent, json!({"kinds": ["image"]})).await);
    let line = |tag: &str, removed| ("image".to_owned(), registry.image(tag), removed);
    for tag in ["db:1", "web:1", "web:2", "web:3"] {
        bring(&agent, &tenant, &stack(tag)).await;
    }
    assert_eq!(images().await, [line("db:1", false), line("web:1", false)]);
    // They run another tag of that repository, or have stopped what ran.
    bring(&other, &theirs, &stack("web:3")).await;
    assert_eq!(images().await, [line("db:1", false)]);
    theirs.act("stop", "").await.expect(200);
    let answer = prune(&agent, json!({"dry_run": false})).await;
    assert_eq!(told(&answer), [line("db:1", true)], "{answer}");
    assert_eq!(told(&prune(&other, json!({"dry_run": false})).await), [], "it has pulled nothing");
    engine.docker().inspect_image(&registry.image("web:1")).await.expect("it is still there");
    // Without them it is the agent's alone.
    theirs.purge().await;
    let answer = prune(&agent, json!({"dry_run": false})).await;
    assert_eq!(told(&answer), [line("web:1", true)], "{answer}");
    tenant.purge().await;
}

#[tokio::test]
async fn a_cordoned_host_takes_no_new_tenant() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).start().await;
    let (name, other) = (unique("here"), unique("new"));
    let body = |name: &str, value: &str| {
        let compose = format!(
            "services:\n  web:\n    image: {BUSYBOX}\n    command: sleep 3600\n    stop_signal: SIGKILL\n    \
             environment: {{A: '{value}'}}\n"
        );
        json!({"id": name, "subdomain": name, "compose_content": compose})
    };
    agent.post("/v1/tenants/provision", &body(&name, "1")).await.expect(201);
    for (bad, field) in
        [(json!({"reason": ""}), "reason"), (json!({"reason": "a\nb"}), "reason"), (json!({"x": 1}), "x")]
    {
        assert_eq!(agent.post("/v1/system/cordon", &bad).await.refused(400, "INVALID_REQUEST")["field"], field);
    }
    let told = agent.post("/v1/system/cordon", &json!({"reason": "new disk"})).await.expect(200);
    assert_eq!((&told["status"], &told["changed"]), (&json!("cordoned"), &json!(true)), "{told}");
    let again = agent.post("/v1/system/cordon", &json!({"reason": "new disk"})).await.expect(200);
    assert_eq!((&again["since"], &again["changed"]), (&told["since"], &json!(false)), "{again}");
    // Under a key it is remembered, and its repeat is no second one.
    let cordon = async |body: &Value, more: &[(&str, &str)]| {
        let headers = [&[("idempotency-key", "cordon-1")], more].concat();
        agent.request(Method::POST, "/v1/system/cordon", &headers, body.to_string()).await
    };
    let reason = json!({"reason": "new disk"});
    let first = cordon(&reason, &[]).await;
    let replayed = cordon(&reason, &[]).await;
    assert_eq!(replayed.headers["idempotency-replayed"], "true");
    assert_eq!(replayed.expect(200), first.expect(200));
    cordon(&json!({"reason": "another"}), &[]).await.refused(422, "IDEMPOTENCY_MISMATCH");
    let accepted = cordon(&reason, &[("prefer", "respond-async")]).await.expect(202);
    let operation = agent.get(&format!("/v1/operations/{}", accepted["id"].as_str().expect("an id"))).await.expect(200);
    assert_eq!((&operation["kind"], &operation["state"]), (&json!("cordon"), &json!("succeeded")), "{operation}");

    // It outlives the agent.
    agent.kill();
    agent.start_again().await;
    let refused = agent.post("/v1/tenants/provision", &body(&other, "1")).await.refused(409, "HOST_CORDONED");
    assert_eq!(refused["details"]["reason"], "new disk", "{refused}");
    assert!(!agent.root().join(&other).exists());
    // Who is here stays, and is looked after.
    agent.post("/v1/tenants/provision", &body(&name, "2")).await.expect(200);
    agent.post(&format!("/v1/tenants/stop/{name}"), &Value::Null).await.expect(200);
    agent.post(&format!("/v1/tenants/start/{name}"), &Value::Null).await.expect(200);
    // One that comes back is new again.
    agent.post(&format!("/v1/tenants/teardown/{name}"), &Value::Null).await.expect(200);
    agent.post("/v1/tenants/provision", &body(&name, "2")).await.refused(409, "HOST_CORDONED");

    for changed in [true, false] {
        let told = agent.post("/v1/system/uncordon", &Value::Null).await.expect(200);
        assert_eq!(told, json!({"status": "uncordoned", "changed": changed}));
    }
    agent.post("/v1/tenants/provision", &body(&name, "2")).await.expect(201);
    agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null).await.expect(200);
}

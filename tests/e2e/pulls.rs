//! Images from a real registry: when it is asked, what a moved tag changes, whose credentials it gets, and what happens
//! when it refuses, does not know, or is not there.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::http::Answer;
use crate::support::registry::{PASSWORD, Registry, USER, refusing};
use crate::support::sse::{self, Event};
use crate::support::traces::{forms, tree};
use crate::support::{eventually, unique};
use crate::tenant::{PATIENCE, Tenant, inspect};

/// A stack of services, each with its image and further attributes; each says its image's version and then waits.
fn stack(services: &[(&str, &str, &str)]) -> String {
    let service = |(name, image, more): &(&str, &str, &str)| {
        format!(
            "  {name}:\n    image: {image}\n    command: [sh, -c, 'cat /version; exec sleep 3600']\n    \
             stop_signal: SIGKILL\n    {more}\n"
        )
    };
    format!("services:\n{}", services.iter().map(service).collect::<String>())
}

/// An agent whose policy lets images come from this registry, which is on the host's own address, and from the Hub.
fn pulling_from(registry: &str) -> Options<'static> {
    Options::docker(Engine::shared()).policy(&format!("registries = ['docker.io', '{registry}']"))
}

/// What the running container of a service was made from.
async fn version(tenant: &Tenant<'_>, service: &str) -> String {
    let said = eventually("the service says its version", PATIENCE, async || {
        Some(tenant.said(service).await).filter(|said| !said.is_empty())
    });
    said.await.concat()
}

/// The line of a tenant's list of images.
async fn listed(agent: &Agent<'_>, tenant: &Tenant<'_>) -> Value {
    let mut list = agent.get(&format!("/v1/tenants/images/{}", tenant.name)).await.expect(200);
    list["images"][0].take()
}

async fn provision(agent: &Agent<'_>, tenant: &Tenant<'_>, compose: &str, more: Value) -> Answer {
    agent.post("/v1/tenants/provision", &tenant.body(compose, &more)).await
}

fn credentials(registry: &str, password: &str) -> Value {
    json!({"registry_auth": [{"registry": registry, "username": USER, "password": password}]})
}

/// After a refused first provision there is nothing, neither on the engine nor on the disk.
async fn is_nowhere(agent: &Agent<'_>, tenant: &Tenant<'_>) {
    agent.get(&format!("/v1/tenants/status/{}", tenant.name)).await.refused(404, "NOT_FOUND");
    assert_eq!(Engine::shared().left(&format!("dev.q8.tenant={}", tenant.name)).await, Vec::<String>::new());
    assert!(!agent.root().join(&tenant.name).exists());
}

#[tokio::test]
async fn an_image_is_pulled_once_by_its_tag() {
    let registry = Registry::public().await;
    registry.publish("web:1", "one").await;
    let agent = pulling_from(&registry.address()).start().await;
    let tenant = Tenant::new(&agent, "pull");
    let image = registry.image("web:1");
    let compose = stack(&[("a", &image, ""), ("b", &image, "")]);
    tenant.provision(&compose, json!({})).await;
    assert_eq!((version(&tenant, "a").await, version(&tenant, "b").await), ("one".to_owned(), "one".to_owned()));
    assert_eq!(registry.pulls("web:1"), 1, "one pull for two services");
    let line = listed(&agent, &tenant).await;
    assert_eq!((&line["image"], &line["tag"]), (&json!(image), &json!("1")), "{line}");
    let digest = line["digest"].as_str().expect("a pulled image has its registry's digest").to_owned();

    // What is here is used: a provision brings about what is written, and a tag that has moved is not written there.
    registry.publish("web:1", "two").await;
    let again = provision(&agent, &tenant, &compose, json!({})).await.expect(200);
    assert_eq!(again["changed"], false, "{again}");
    assert_eq!(registry.pulls("web:1"), 1);

    // By its digest it is the first image, wherever the tag points, and the registry has it.
    tenant.purge().await;
    registry.forget("web:1").await;
    let pinned = format!("{}@{digest}", registry.image("web"));
    tenant.provision(&stack(&[("a", &pinned, "")]), json!({})).await;
    assert_eq!(version(&tenant, "a").await, "one");
    tenant.purge().await;
}

#[tokio::test]
async fn pull_policies() {
    let registry = Registry::public().await;
    registry.publish("web:1", "one").await;
    let agent = pulling_from(&registry.address()).start().await;
    let tenant = Tenant::new(&agent, "policy");
    let with = |policy: &str| stack(&[("web", &registry.image("web:1"), &format!("pull_policy: {policy}"))]);

    // never: what is not here is not found, though the registry has it.
    let refused = provision(&agent, &tenant, &with("never"), json!({})).await.refused(502, "IMAGE_NOT_FOUND");
    assert!(refused["error"].as_str().expect("text").contains("never"), "{refused}");
    assert_eq!(registry.pulls("web:1"), 0);
    is_nowhere(&agent, &tenant).await;

    // missing: pulled because it is not here, and not again.
    tenant.provision(&with("missing"), json!({})).await;
    registry.publish("web:1", "two").await;
    let same = provision(&agent, &tenant, &with("missing"), json!({})).await.expect(200);
    assert_eq!((&same["changed"], registry.pulls("web:1")), (&json!(false), 1), "{same}");

    // never, now that it is here; an update that pulls does not pull this one.
    let first = tenant.containers().await;
    provision(&agent, &tenant, &with("never"), json!({})).await.expect(200);
    tenant.update(json!({"pull": true})).await.expect(200);
    assert_eq!((tenant.containers().await, registry.pulls("web:1")), (first, 1));

    // always: the registry is asked each time, and what it has runs.
    let moved = provision(&agent, &tenant, &with("always"), json!({})).await.expect(200);
    assert_eq!((&moved["changed"], version(&tenant, "web").await), (&json!(true), "two".to_owned()), "{moved}");
    assert_eq!(registry.pulls("web:1"), 2);
    let same = provision(&agent, &tenant, &with("always"), json!({})).await.expect(200);
    assert_eq!((&same["changed"], registry.pulls("web:1")), (&json!(false), 3), "{same}");
    tenant.purge().await;
}

#[tokio::test]
async fn an_update_follows_a_moved_tag_and_changes_that_service_only() {
    let registry = Registry::public().await;
    registry.publish("web:1", "one").await;
    registry.publish("db:1", "db").await;
    let agent = pulling_from(&registry.address()).start().await;
    let tenant = Tenant::new(&agent, "moved");
    let compose = stack(&[("db", &registry.image("db:1"), ""), ("web", &registry.image("web:1"), "depends_on: [db]")]);
    tenant.provision(&compose, json!({})).await;
    let first = tenant.containers().await;

    let nothing = tenant.update(json!({"pull": true})).await.expect(200);
    assert_eq!((&nothing["changed"], tenant.containers().await), (&json!(false), first.clone()), "{nothing}");
    registry.publish("web:1", "two").await;
    registry.publish("db:1", "db of tomorrow").await;
    let unasked = tenant.update(json!({"pull": false})).await.expect(200);
    assert_eq!((&unasked["changed"], tenant.containers().await), (&json!(false), first.clone()), "{unasked}");

    let moved = tenant.update(json!({"pull": true, "services": ["web"]})).await.expect(200);
    assert_eq!((&moved["changed"], &moved["generation"]), (&json!(true), &json!(2)), "{moved}");
    let second = tenant.containers().await;
    assert_eq!(second["db-1"], first["db-1"], "the database's tag has moved too, but nobody asked for that");
    assert_ne!(second["web-1"].id, first["web-1"].id);
    assert_eq!((version(&tenant, "web").await, version(&tenant, "db").await), ("two".to_owned(), "db".to_owned()));

    // The way back needs no registry: the image that ran is still here, and the tag does not matter.
    let asked = registry.pulls("web:1");
    tenant.act("rollback", "?from=2").await.expect(200);
    assert_eq!((version(&tenant, "web").await, registry.pulls("web:1")), ("one".to_owned(), asked));
    let all = tenant.update(json!({"pull": true})).await.expect(200);
    assert_eq!(all["changed"], true, "{all}");
    let now = (version(&tenant, "web").await, version(&tenant, "db").await);
    assert_eq!(now, ("two".to_owned(), "db of tomorrow".to_owned()));
    tenant.purge().await;
}

#[tokio::test]
async fn a_private_image_needs_the_right_credentials_and_they_leave_no_trace() {
    let registry = Registry::private().await;
    registry.publish("web:1", "one").await;
    let engine = Engine::shared().with_busybox().await;
    let agent = pulling_from(&registry.address()).env("Q8_AGENT_LOG", "trace").start().await;
    let tenant = Tenant::new(&agent, "private");
    let (address, image) = (registry.address(), registry.image("web:1"));
    let compose = stack(&[("web", &image, "")]);
    let mut answers = Vec::new();

    let first = stack(&[("web", "q8test/busybox:2", "")]);
    tenant.provision(&first, json!({})).await;
    let before = (tenant.containers().await, tree(&agent.root().join(&tenant.name)));
    for given in [json!({}), credentials(&address, "wrong-word-of-nobody"), credentials("registry.example", PASSWORD)] {
        let answer = provision(&agent, &tenant, &compose, given).await;
        let refused = answer.refused(502, "REGISTRY_DENIED");
        assert_eq!(refused["retryable"], false, "{refused}");
        let after = (tenant.containers().await, tree(&agent.root().join(&tenant.name)));
        assert_eq!(after, before, "a refused request changes nothing");
        answers.push(answer);
    }

    let answer = provision(&agent, &tenant, &compose, credentials(&address, PASSWORD)).await;
    assert_eq!(answer.expect(200)["changed"], true);
    answers.push(answer);
    assert_eq!(version(&tenant, "web").await, "one");
    registry.publish("web:1", "two").await;
    let mut update = credentials(&address, PASSWORD);
    update["pull"] = json!(true);
    answers.push(tenant.update(update).await);
    assert_eq!(version(&tenant, "web").await, "two");
    // Without them, what was accepted still runs and is used.
    let answer = tenant.update(json!({"pull": true})).await;
    assert_eq!(answer.expect(200)["changed"], false);
    answers.push(answer);

    let container = inspect(engine, &tenant.container("web-1").await).await.to_string();
    let (disk, log) = (tree(&agent.root()), agent.log());
    for form in [PASSWORD, "wrong-word-of-nobody"].into_iter().flat_map(forms) {
        assert!(!log.contains(&form), "{form} is in the log");
        assert!(!container.contains(&form), "{form} is in the container: {container}");
        let found: Vec<_> = disk.iter().filter(|(_, (_, content))| content.contains(&form)).collect();
        assert!(found.is_empty(), "{form} is on the disk: {found:?}");
        assert!(answers.iter().all(|answer| !answer.text().contains(&form)), "{form} is in an answer");
    }
    tenant.purge().await;
}

#[tokio::test]
async fn the_hosts_own_credentials_open_its_registry() {
    let registry = Registry::private().await;
    registry.publish("web:1", "one").await;
    let agent = pulling_from(&registry.address())
        .env("DOCKER_REGISTRY", registry.address())
        .env("DOCKER_REGISTRY_USERNAME", USER)
        .env("DOCKER_REGISTRY_PASSWORD", PASSWORD)
        .start()
        .await;
    let tenant = Tenant::new(&agent, "host");
    let compose = stack(&[("web", &registry.image("web:1"), "")]);
    // Those of the request win, even if they are wrong.
    let wrong = credentials(&registry.address(), "wrong-word-of-nobody");
    provision(&agent, &tenant, &compose, wrong).await.refused(502, "REGISTRY_DENIED");
    tenant.provision(&compose, json!({})).await;
    assert_eq!(version(&tenant, "web").await, "one");
    tenant.purge().await;
}

#[tokio::test]
async fn credentials_go_to_their_own_registry_only() {
    let (address, heard) = refusing().await;
    let (host, port) = address.split_once(':').expect("a port");
    let agent = pulling_from(&address)
        .env("DOCKER_REGISTRY", "registry.example")
        .env("DOCKER_REGISTRY_USERNAME", USER)
        .env("DOCKER_REGISTRY_PASSWORD", PASSWORD)
        .start()
        .await;
    let tenant = Tenant::new(&agent, "exact");
    let compose = stack(&[("web", &format!("{address}/web:1"), "")]);
    let all = || heard.lock().expect("no panic").to_ascii_lowercase();
    // Other hosts, other ports of this one, its other name, and one whose name begins the same.
    for other in
        ["registry.example", "docker.io", host, "127.0.0.1:1", &format!("localhost:{port}"), &format!("{host}0:{port}")]
    {
        let answer = provision(&agent, &tenant, &compose, credentials(other, PASSWORD)).await;
        answer.refused(502, "REGISTRY_DENIED");
        assert!(all().contains("/v2/"), "the registry was asked");
        assert!(!all().contains("authorization: basic"), "what is for {other} went to {address}: {}", all());
    }
    provision(&agent, &tenant, &compose, credentials(&address, PASSWORD)).await.refused(502, "REGISTRY_DENIED");
    assert!(all().contains("authorization: basic"), "its own are sent");
    is_nowhere(&agent, &tenant).await;
}

#[tokio::test]
async fn what_the_registry_does_not_have_is_not_found() {
    let registry = Registry::public().await;
    registry.publish("web:1", "one").await;
    let agent = pulling_from(&registry.address()).start().await;
    let tenant = Tenant::new(&agent, "unknown");
    for name in ["web:2", "none:1", &format!("web@sha256:{}", "0".repeat(64))] {
        let compose = stack(&[("web", &registry.image(name), "")]);
        let refused = provision(&agent, &tenant, &compose, json!({})).await.refused(502, "IMAGE_NOT_FOUND");
        assert_eq!(refused["retryable"], false, "{refused}");
        is_nowhere(&agent, &tenant).await;
    }
    // Nor does a tenant change whose new image is not there.
    tenant.provision(&stack(&[("web", &registry.image("web:1"), "")]), json!({})).await;
    let before = tenant.containers().await;
    let missing = stack(&[("web", &registry.image("web:2"), "")]);
    tenant.update(json!({"compose_content": missing})).await.refused(502, "IMAGE_NOT_FOUND");
    assert_eq!(tenant.containers().await, before);
    tenant.purge().await;
}

#[tokio::test]
async fn a_registry_that_is_away_stops_nobody() {
    let mut registry = Registry::public().await;
    registry.publish("web:1", "one").await;
    let mut agent = pulling_from(&registry.address()).start().await;
    let (name, id) = {
        let tenant = Tenant::new(&agent, "away");
        tenant.provision(&stack(&[("web", &registry.image("web:1"), "")]), json!({})).await;
        (tenant.name.clone(), tenant.id.clone())
    };
    registry.publish("web:1", "two").await;
    let tenant = Tenant::again(&agent, &name, &id);
    let before = tenant.containers().await;

    registry.away();
    let refused = tenant.update(json!({"pull": true})).await.refused(502, "REGISTRY_UNAVAILABLE");
    assert_eq!(refused["retryable"], true, "{refused}");
    assert_eq!(tenant.containers().await, before);
    // What needs no registry works.
    tenant.act("restart", "").await.expect(200);
    let restarted = tenant.containers().await;
    assert_eq!(restarted["web-1"].id, before["web-1"].id);

    // One that takes the call and says nothing costs the operation its deadline, and the tenant nothing.
    registry.back().await;
    registry.freeze();
    agent.set_env("Q8_AGENT_OPERATION_TIMEOUT", "3s");
    agent.terminate(Duration::from_secs(20)).await;
    agent.start_again().await;
    let tenant = Tenant::again(&agent, &name, &id);
    // Whoever asks again meanwhile is told of it, and whoever was told that its time is over finds it.
    let body = json!({"subdomain": name, "pull": true}).to_string();
    let update = |more: &'static [(&'static str, &'static str)]| {
        let headers = [&[("idempotency-key", "frozen")], more].concat();
        let (agent, body) = (&agent, &body);
        async move { agent.request(Method::POST, "/v1/tenants/update", &headers, body.clone()).await }
    };
    let again = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        update(&[("prefer", "respond-async")]).await
    };
    let (first, again) = tokio::join!(update(&[]), again);
    first.refused(504, "DEADLINE_EXCEEDED");
    let running = again.expect(202);
    assert_eq!(
        (&running["state"], &running["id"]),
        (&json!("running"), &json!(first.headers["x-operation-id"].to_str().ok()))
    );
    let found = agent.get(&format!("/v1/operations/{}", running["id"].as_str().expect("an id"))).await.expect(200);
    assert_eq!((&found["state"], &found["error"]["code"]), (&json!("failed"), &json!("DEADLINE_EXCEEDED")), "{found}");
    assert_eq!(tenant.containers().await, restarted);

    registry.thaw();
    // On a busy host three seconds are too short for a whole update.
    agent.set_env("Q8_AGENT_OPERATION_TIMEOUT", "2m");
    agent.terminate(Duration::from_secs(20)).await;
    agent.start_again().await;
    let tenant = Tenant::again(&agent, &name, &id);
    // It came to nothing, so nothing stands under its key.
    let done = agent.request(Method::POST, "/v1/tenants/update", &[("idempotency-key", "frozen")], body).await;
    done.expect(200);
    assert!(!done.headers.contains_key("idempotency-replayed"));
    assert_eq!(version(&tenant, "web").await, "two");
    tenant.purge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tenants_share_one_pull() {
    let registry = Registry::private().await;
    registry.publish("web:1", "one").await;
    let agent = pulling_from(&registry.address()).start().await;
    let compose = stack(&[("web", &registry.image("web:1"), "")]);
    let tenants: Vec<Tenant<'_>> = (0..4).map(|_| Tenant::new(&agent, "share")).collect();
    let auth = credentials(&registry.address(), PASSWORD);
    // While the registry says nothing, all of them come to want the image.
    registry.freeze();
    let asking =
        futures::future::join_all(tenants.iter().map(|tenant| provision(&agent, tenant, &compose, auth.clone())));
    let thawing = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        registry.thaw();
    };
    for answer in tokio::join!(asking, thawing).0 {
        answer.expect(201);
    }
    assert_eq!(registry.pulls("web:1"), 1);
    for tenant in &tenants {
        assert_eq!(version(tenant, "web").await, "one");
        tenant.purge().await;
    }
}

#[tokio::test]
async fn knowing_a_private_images_name_is_not_enough() {
    let mut registry = Registry::private().await;
    registry.publish("web:1", "one").await;
    let agent = pulling_from(&registry.address()).start().await;
    let compose = stack(&[("web", &registry.image("web:1"), "")]);
    let (owner, other) = (Tenant::new(&agent, "owner"), Tenant::new(&agent, "other"));
    let right = credentials(&registry.address(), PASSWORD);
    provision(&agent, &owner, &compose, right.clone()).await.expect(201);
    assert_eq!(registry.pulls("web:1"), 1);

    // It is on the host now. By its tag and by its digest it is still the owner's.
    let digest = listed(&agent, &owner).await["digest"].as_str().expect("a digest").to_owned();
    let pinned = stack(&[("web", &format!("{}@{digest}", registry.image("web")), "")]);
    let never = stack(&[("web", &registry.image("web:1"), "pull_policy: never")]);
    for text in [&compose, &pinned, &never] {
        for given in [json!({}), credentials(&registry.address(), "wrong-word-of-nobody")] {
            provision(&agent, &other, text, given).await.refused(502, "REGISTRY_DENIED");
            is_nowhere(&agent, &other).await;
        }
    }
    // Who may have it gets what is there, and has it from then on.
    provision(&agent, &other, &compose, right).await.expect(201);
    assert_eq!(registry.pulls("web:1"), 1, "asked about, not pulled");
    assert_eq!(version(&other, "web").await, "one");
    registry.away();
    for tenant in [&owner, &other] {
        let same = provision(&agent, tenant, &compose, json!({})).await.expect(200);
        assert_eq!(same["changed"], false, "{same}");
        let more = compose.replace("stop_signal", "labels: {a: b}\n    stop_signal");
        provision(&agent, tenant, &more, json!({})).await.expect(200);
    }
    // A registry that cannot be asked has not said yes.
    let third = Tenant::new(&agent, "third");
    provision(&agent, &third, &compose, json!({})).await.refused(502, "REGISTRY_UNAVAILABLE");
    owner.purge().await;
    other.purge().await;
}

#[tokio::test]
async fn the_hosts_own_address_is_no_registry_without_a_grant() {
    let registry = Registry::public().await;
    registry.publish("web:1", "one").await;
    let agent = Options::docker(Engine::shared()).start().await;
    let tenant = Tenant::new(&agent, "loopback");
    let compose = stack(&[("web", &registry.image("web:1"), "")]);
    let refused = provision(&agent, &tenant, &compose, json!({})).await.refused(422, "POLICY_DENIED");
    assert_eq!(refused["field"], "services.web.image", "{refused}");
    assert_eq!(registry.pulls("web:1"), 0, "nobody has asked it");
    is_nowhere(&agent, &tenant).await;
}

#[tokio::test]
async fn a_pull_is_followed_in_layers_and_bytes() {
    let registry = Registry::public().await;
    // What no other image of the engine has: its layer has to be downloaded.
    registry.publish("web:1", &unique("told")).await;
    let agent = pulling_from(&registry.address()).start().await;
    let tenant = Tenant::new(&agent, "told");
    let image = registry.image("web:1");
    let body = tenant.body(&stack(&[("web", &image, "")]), &json!({})).to_string();
    // So that it is followed before it can be over.
    registry.freeze();
    let headers = [("content-type", "application/json"), ("prefer", "respond-async")];
    let accepted = agent.request(Method::POST, "/v1/tenants/provision", &headers, body).await.expect(202);
    assert_eq!(accepted["progress"]["images"], 0, "{accepted}");
    let path = format!("/v1/operations/{}", accepted["id"].as_str().expect("an id"));
    let mut lines = agent.stream(&format!("{path}/events"), &[]).await;
    let first = sse::next(&mut lines, PATIENCE).await.expect("it goes on");
    assert_ne!(first.name, "end", "{first:?}");
    registry.thaw();
    let mut pulled = Vec::new();
    let end = loop {
        let Event { name, data, .. } = sse::next(&mut lines, PATIENCE).await.expect("it goes on to its end");
        match name.as_str() {
            "pull" => pulled.push(data),
            "end" => break data,
            _ => {}
        }
    };
    assert!(pulled.iter().all(|told| told["image"] == image.as_str()), "{pulled:?}");
    let number = |told: &Value, part: &str| told[part].as_u64().expect("a number");
    for told in &pulled {
        assert!(number(told, "layers_done") <= number(told, "layers"), "{told}");
        assert!(number(told, "bytes_done") <= number(told, "bytes"), "{told}");
    }
    let last = pulled.last().expect("the pull was told");
    assert_eq!((&last["layers"], &last["layers_done"]), (&json!(1), &json!(1)), "{last}");
    let bytes = number(last, "bytes");
    assert!(bytes > 100_000 && number(last, "bytes_done") == bytes, "{last}");
    assert_eq!(end["state"], "succeeded", "{end}");
    let record = agent.get(&path).await.expect(200);
    let progress = &record["progress"];
    assert_eq!((&progress["images"], &progress["bytes"]), (&json!(1), &json!(bytes)), "{record}");
    assert_eq!(progress["bytes_done"], json!(bytes), "{record}");
    tenant.purge().await;
}

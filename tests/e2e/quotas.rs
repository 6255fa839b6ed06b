//! How much one tenant may have, and how much all of them together: refused with the numbers, before anything is touched.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::images::busybox_root;
use crate::tenant::Tenant;

/// Services of busybox, each with more attributes.
fn stack(services: &[(&str, &str)]) -> String {
    let service = |(name, more): &(&str, &str)| {
        format!("  {name}: {{image: 'q8test/busybox:1', command: [sleep, '3600'], stop_signal: SIGKILL, {more}}}\n")
    };
    format!("services:\n{}", services.iter().map(service).collect::<String>())
}

async fn provision(agent: &Agent<'_>, tenant: &Tenant<'_>, compose: &str, more: Value) -> (u16, Value) {
    let answer = agent.post("/v1/tenants/provision", &tenant.body(compose, &more)).await;
    (answer.status.as_u16(), answer.json())
}

async fn is_nowhere(agent: &Agent<'_>, tenant: &Tenant<'_>) {
    agent.get(&format!("/v1/tenants/status/{}", tenant.name)).await.refused(404, "NOT_FOUND");
    assert_eq!(Engine::shared().left(&format!("dev.q8.tenant={}", tenant.name)).await, Vec::<String>::new());
    assert!(!agent.root().join(&tenant.name).exists());
}

#[tokio::test]
async fn one_tenants_sums() {
    let engine = Engine::shared().with_busybox().await;
    let policy = "[limits]\nservices = 3\ncontainers = 4\nmemory = '256MiB'\ncpus = 0.5\npids = 100\n\
                  [defaults]\nmemory = '32MiB'\ncpus = 0.1\npids = 20\n";
    let agent = Options::docker(engine).policy(policy).start().await;
    let tenant = Tenant::new(&agent, "sums");
    for (services, more, limits) in [
        (vec![("a", ""), ("b", ""), ("c", ""), ("d", "")], json!({}), vec![("services", 4, 3)]),
        (vec![("a", "scale: 5")], json!({}), vec![("containers", 5, 4)]),
        (vec![("a", "mem_limit: 300m")], json!({}), vec![("memory", 300 << 20, 256 << 20)]),
        (vec![("a", "cpus: 0.4"), ("b", "cpu_quota: 20000")], json!({}), vec![("cpus", 600_000_000, 500_000_000)]),
        (
            vec![("a", "pids_limit: 101"), ("b", "mem_limit: 1g")],
            json!({}),
            vec![("memory", (1 << 30) + (32 << 20), 256 << 20), ("pids", 121, 100)],
        ),
        // The request may ask for less than the host allows, and not for more.
        (vec![("a", ""), ("b", "")], json!({"limits": {"services": 1, "pids": 1000}}), vec![("services", 2, 1)]),
        (vec![("a", "pids_limit: 101")], json!({"limits": {"pids": 1000}}), vec![("pids", 101, 100)]),
        (vec![("a", "")], json!({"limits": {"cpus": 0.05}}), vec![("cpus", 100_000_000, 50_000_000)]),
    ] {
        let (status, told) = provision(&agent, &tenant, &stack(&services), more).await;
        assert_eq!((status, &told["code"]), (422, &json!("QUOTA_EXCEEDED")), "{services:?}: {told}");
        let expected: Vec<Value> = limits
            .iter()
            .map(|(limit, asked, allowed): &(&str, u64, u64)| json!({"limit": limit, "asked": asked, "allowed": allowed}))
            .collect();
        assert_eq!(told["details"]["limits"], json!(expected), "{told}");
        assert_eq!(told["field"], format!("limits.{}", limits[0].0), "{told}");
        is_nowhere(&agent, &tenant).await;
    }
    // What was asked for holds for updates too.
    let one = stack(&[("a", "")]);
    tenant.provision(&one, json!({"limits": {"services": 1}})).await;
    let two = stack(&[("a", ""), ("b", "")]);
    tenant.update(json!({"compose_content": two})).await.refused(422, "QUOTA_EXCEEDED");
    tenant.update(json!({"compose_content": two, "limits": {"services": 2}})).await.expect(200);
    for wrong in [json!({"services": -1}), json!({"cpus": "many"}), json!({"disk": 1}), json!([])] {
        let refused = tenant.update(json!({"limits": wrong})).await.refused(400, "INVALID_REQUEST");
        assert!(refused["field"].as_str().is_some_and(|field| field.starts_with("limits")), "{refused}");
    }
    tenant.purge().await;
}

#[tokio::test]
async fn volumes_of_an_image_count() {
    let engine = Engine::shared().with_busybox().await;
    engine.import("q8test/volumes:1", busybox_root(&[]), &["VOLUME /a", "VOLUME /b"]).await;
    let many: Vec<String> = (0..65).map(|at| format!("VOLUME /v{at}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    engine.import("q8test/volumes:65", busybox_root(&[]), &many).await;
    let agent = Options::docker(engine).policy("[limits]\nvolumes = 3\n").start().await;
    let tenant = Tenant::new(&agent, "volumes");
    let of = |tag: &str, more: &str| stack(&[("a", more)]).replace("busybox:1", &format!("volumes:{tag}"));

    let (status, told) = provision(&agent, &tenant, &of("1", "scale: 2"), json!({})).await;
    assert_eq!((status, &told["code"]), (422, &json!("QUOTA_EXCEEDED")), "{told}");
    assert_eq!(told["details"]["limits"], json!([{"limit": "volumes", "asked": 4, "allowed": 3}]), "{told}");
    is_nowhere(&agent, &tenant).await;
    let (status, told) = provision(&agent, &tenant, &of("65", ""), json!({})).await;
    assert_eq!((status, &told["field"]), (422, &json!("services.a.image")), "{told}");
    is_nowhere(&agent, &tenant).await;

    // What is mounted over is no volume of its own.
    let covered = of("1", "scale: 2, tmpfs: [/a]");
    tenant.provision(&covered, json!({})).await;
    tenant.purge().await;
}

#[tokio::test]
async fn all_tenants_together() {
    let engine = Engine::shared().with_busybox().await;
    let host = engine.docker().info().await.expect("the engine tells").mem_total.expect("its memory");
    // 200 MiB are left for tenants.
    let policy = format!("[host]\nreserve_memory = {}\n", host - (200 << 20));
    let agent = Options::docker(engine).policy(&policy).start().await;
    let small = stack(&[("a", "mem_limit: 64m")]);
    let tenants: Vec<Tenant<'_>> = (0..5).map(|_| Tenant::new(&agent, "room")).collect();
    let answers = join_all(tenants.iter().map(|tenant| provision(&agent, tenant, &small, json!({})))).await;
    let (made, refused): (Vec<_>, Vec<_>) = tenants.iter().zip(&answers).partition(|(_, (status, _))| *status == 201);
    assert_eq!((made.len(), refused.len()), (3, 2), "{answers:?}");
    for (tenant, (status, told)) in &refused {
        assert_eq!((*status, &told["code"]), (409, &json!("HOST_FULL")), "{told}");
        let details = &told["details"];
        assert_eq!((&details["what"], &details["asked"]), (&json!("memory"), &json!(64 << 20)), "{told}");
        assert_eq!(details["capacity"], json!(200 << 20), "{told}");
        is_nowhere(&agent, tenant).await;
    }
    // Who is there may become smaller, stay as it is and be torn down, but not grow beyond what is left.
    let (first, _) = made[0];
    let grown = stack(&[("a", "mem_limit: 128m")]);
    first.update(json!({"compose_content": grown})).await.refused(409, "HOST_FULL");
    first.update(json!({"compose_content": small.replace("64m", "32m")})).await.expect(200);
    made[1].0.purge().await;
    // A small reservation is no way around it: the limit is what may be used.
    let reserving = stack(&[("a", "mem_limit: 512m, mem_reservation: 8m")]);
    let (status, told) = provision(&agent, refused[0].0, &reserving, json!({})).await;
    assert_eq!((status, &told["code"]), (409, &json!("HOST_FULL")), "{told}");
    let (status, told) = provision(&agent, refused[0].0, &small, json!({})).await;
    assert_eq!(status, 201, "{told}");
    let (status, told) = provision(&agent, refused[1].0, &stack(&[("a", "mem_limit: 1000g")]), json!({})).await;
    assert_eq!((status, &told["code"]), (409, &json!("HOST_FULL")), "{told}");
    let (status, told) =
        provision(&agent, refused[1].0, &stack(&[("a", "cpus: 1000, mem_limit: 6m")]), json!({})).await;
    assert_eq!((status, &told["code"], &told["details"]["what"]), (409, &json!("HOST_FULL"), &json!("cpus")), "{told}");
    for tenant in [first, made[2].0, refused[0].0] {
        tenant.purge().await;
    }
}

#[tokio::test]
async fn no_more_tenants_than_there_are_slots() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).env("Q8_AGENT_MAX_TENANTS", "3").start().await;
    let tenants: Vec<Tenant<'_>> = (0..7).map(|_| Tenant::new(&agent, "slot")).collect();
    let text = stack(&[("a", "")]);
    let answers = join_all(tenants.iter().map(|tenant| provision(&agent, tenant, &text, json!({})))).await;
    let made: Vec<_> = tenants.iter().zip(&answers).filter(|(_, (status, _))| *status == 201).map(|(t, _)| t).collect();
    assert_eq!(made.len(), 3, "{answers:?}");
    for (_, told) in answers.iter().filter(|(status, _)| *status != 201) {
        assert_eq!(told["code"], "HOST_FULL", "{told}");
        assert_eq!(told["details"], json!({"what": "tenants", "asked": 1, "taken": 3, "capacity": 3}), "{told}");
    }
    // One that is torn down and keeps its data has left its slot.
    made[0].act("teardown", "").await.expect(200);
    let late = Tenant::new(&agent, "late");
    late.provision(&text, json!({})).await;
    let (status, told) = provision(&agent, made[0], &text, json!({})).await;
    assert_eq!((status, &told["code"]), (409, &json!("HOST_FULL")), "{told}");
    late.purge().await;
    for tenant in made {
        tenant.purge().await;
    }
}

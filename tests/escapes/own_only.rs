//! e03, e06: processes and volumes of other services are shared within a tenant. By no name, id or key are they another's.

use std::time::Duration;

use crate::scene::{PROVISION, containers, purge, request, stack, status};
use crate::support::engine::Engine;
use crate::support::{eventually, unique};
use crate::{confining, said};

#[tokio::test]
async fn what_services_share_is_their_own_tenants() {
    let engine = Engine::shared().with_busybox().await;
    let agent = confining(engine).await;
    let (victim, other) = (unique("victim"), unique("other"));
    // Both write their own name where it can be found in memory and in a volume, under the same keys.
    let db = |name: &str| {
        [
            "command: ['sh', '-c', 'echo $$DB_PASSWORD >/data/f; exec sleep 3600']".to_owned(),
            "stop_signal: SIGKILL".to_owned(),
            format!("environment: {{DB_PASSWORD: secret-of-{name}}}"),
            "volumes: ['data:/data']".to_owned(),
        ]
    };
    let lines = |all: &[String]| all.iter().map(String::as_str).collect::<Vec<_>>().join("\n    ");
    let volumes = "volumes: {data: {}}\n";
    let text = stack(&[("db", &[&[&lines(&db(&victim))]])], volumes);
    agent.post(PROVISION, &request(&victim, &text)).await.expect(201);
    let id = containers(&status(&agent, &victim).await)["db-1"].id.clone();
    let secret = format!("secret-of-{victim}");

    // Another's container is refused under each of its names, and so is a service that only the other has.
    let short = &id[..12];
    for foreign in [id.as_str(), short, &format!("q8-{victim}-db-1"), &format!("/q8-{victim}-db-1"), "db"] {
        let kinds = if foreign == "db" { ["service:db", "db"] } else { ["container:", "container:"] };
        let name_of = |kind: &str| if foreign == "db" { kind.to_owned() } else { format!("{kind}{foreign}") };
        for attribute in [
            format!("pid: '{}'", name_of(kinds[0])),
            format!("ipc: '{}'", name_of(kinds[0])),
            format!("network_mode: '{}'", name_of(kinds[0])),
            format!("volumes_from: ['{}']", name_of(kinds[1])),
            format!("volumes_from: ['{}:ro']", name_of(kinds[1])),
        ] {
            let text = stack(&[("a", &[&[&attribute]])], "");
            let answer = agent.post(PROVISION, &request(&other, &text)).await;
            let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
            assert_eq!(answer.status, 422, "{attribute}: {}", answer.text());
            assert!(["POLICY_DENIED", "COMPOSE_INVALID"].contains(&code.as_str()), "{attribute}: {}", answer.text());
        }
    }

    // The same words where the tenant has such a service: they mean its own.
    let looks = "command: ['sh', '-c', 'cat /proc/[0-9]*/environ | tr \"\\\\0\" \"\\\\n\" | grep ^DB_; cat /proc/[0-9]*/root/data/f; \
                 cat /data/f; echo end; exec sleep 3600']";
    let reader = [
        looks.to_owned(),
        "stop_signal: SIGKILL".to_owned(),
        "pid: service:db".to_owned(),
        "volumes_from: [db]".to_owned(),
        // Only so that it looks after the other has written.
        "depends_on: {db: {condition: service_healthy}}".to_owned(),
    ];
    let mut own = db(&other).to_vec();
    own.push("healthcheck: {test: ['CMD', 'test', '-s', '/data/f'], interval: 500ms}".to_owned());
    let text = stack(&[("db", &[&[&lines(&own)]]), ("a", &[&[&lines(&reader)]])], volumes);
    agent.post(PROVISION, &request(&other, &text)).await.expect(201);
    let seen = eventually("it has looked", Duration::from_secs(30), async || {
        Some(said(&agent, &other, "a").await).filter(|text| text.contains("end"))
    })
    .await;
    assert!(seen.contains(&format!("DB_PASSWORD=secret-of-{other}")), "it sees its own tenant's processes: {seen}");
    let own_data = seen.lines().filter(|line| line.ends_with(&format!("| secret-of-{other}"))).count();
    assert!(own_data >= 1, "and its own tenant's volume: {seen}");
    assert!(!seen.contains(&secret), "and nothing of the other's: {seen}");
    // The last purge finds that nothing of either is left.
    agent.post(&format!("/v1/tenants/teardown/{other}?purge=true"), &serde_json::Value::Null).await.expect(200);
    purge(&agent, engine, &victim).await;
}

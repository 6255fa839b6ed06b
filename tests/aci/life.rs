//! A tenant in Azure from its first provision to its purge.

use serde_json::json;

use super::arm_double::{ArmDouble, PRIVATE_REGISTRY, REGISTRY_PASSWORD, REGISTRY_USER};
use super::{Tenant, options};

const STACK: &str = r#"
services:
  migrate:
    image: example/tool
    entrypoint: [sh, -c]
    command: ["echo migrated; exit 0"]
    restart: "no"
  web:
    image: example/chatty
    environment: {COLOUR: blue, PASSWORD: "${PASSWORD}"}
    ports: ["8080:8080"]
    volumes: ["data:/data"]
    secrets: [key]
    depends_on: {migrate: {condition: service_completed_successfully}}
volumes: {data: {}}
secrets: {key: {file: ./key.txt}}
"#;

fn rest() -> serde_json::Value {
    json!({"env_content": "PASSWORD=canary-of-the-password-0417\n", "files": {"key.txt": "canary-of-the-key-0418"}})
}

#[tokio::test]
async fn a_tenant_lives_is_changed_and_goes() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "cloud");

    let made = tenant.provision(STACK, &rest()).await.expect(201);
    assert_eq!(made["status"], "provisioned", "{made}");
    let warnings = made["warnings"].to_string();
    assert!(warnings.contains("localhost"), "{warnings}");
    let status = tenant.becomes("running").await;
    assert_eq!((&status["backend"], &status["region"]), (&json!("aci"), &json!("eastus")), "{status}");
    let endpoint = &status["endpoints"][0];
    assert_eq!((&endpoint["port"], &endpoint["host_port"]), (&json!(8080), &json!(8080)), "{status}");
    assert!(endpoint["host"].as_str().is_some_and(|host| host.ends_with(".azurecontainer.io")), "{status}");

    // What was sent: secrets as such, the share and its key, the tags.
    let group = double.sent("rg-east", &tenant.group()).expect("it was sent");
    let environment = &group["properties"]["containers"][0]["properties"]["environmentVariables"];
    assert!(environment.as_array().expect("a list").iter().all(|one| one.get("value").is_none()), "{environment}");
    assert_eq!(double.shares().len(), 1);
    assert_eq!(group["tags"]["q8-tenant"], json!(tenant.name));

    // The same again is nothing.
    double.take_requests();
    let again = tenant.provision(STACK, &rest()).await.expect(200);
    assert_eq!(again["changed"], false, "{again}");
    assert!(double.take_requests().iter().all(|heard| heard.method == "GET"), "nothing is written");

    // A change of the environment restarts in place, one of the memory replaces; the share survives both.
    let changed = STACK.replace("blue", "green");
    let done = tenant.update(&changed).await.expect(200);
    assert_eq!(done["changed"], true, "{done}");
    assert_eq!(double.count("DELETE", "*containerGroups*"), 0);
    let larger =
        changed.replace("image: example/chatty", "image: example/chatty\n    mem_limit: 2g\n    mem_reservation: 2g");
    let done = tenant.update(&larger).await.expect(200);
    assert!(done["warnings"].to_string().contains("made anew"), "{done}");
    assert_eq!(double.count("DELETE", "*containerGroups*"), 1);
    assert_eq!(double.shares().len(), 1);
    assert_eq!(tenant.becomes("running").await["generation"], 3);

    // Back to what was there before.
    tenant.act("rollback", "").await.expect(200);
    assert_eq!(tenant.becomes("running").await["generation"], 4);

    assert!(tenant.logs("?service=web").await.contains("it is up"));
    let images = agent.get(&format!("/v1/tenants/images/{}", tenant.name)).await.expect(200);
    assert!(images.to_string().contains("example/chatty"), "{images}");

    tenant.act("stop", "").await.expect(200);
    assert_eq!(tenant.becomes("stopped").await["desired"], "stopped");
    tenant.act("start", "").await.expect(200);
    tenant.becomes("running").await;
    tenant.act("restart", "").await.expect(200);
    tenant.becomes("running").await;
    tenant.act("restart", "?service=web").await.refused(422, "UNSUPPORTED_ON_BACKEND");

    let list = agent.get("/v1/tenants").await.expect(200);
    assert_eq!(list["tenants"][0]["backend"], "aci", "{list}");

    let gone = tenant.act("teardown", "").await.expect(200);
    assert_eq!(gone["kept"]["volumes"].as_array().map(Vec::len), Some(1), "{gone}");
    assert_eq!((double.groups().len(), double.shares().len()), (0, 1));
    tenant.act("teardown", "?purge=true").await.expect(200);
    assert_eq!(double.shares().len(), 0);
    double.assert_clean();
}

#[tokio::test]
async fn what_a_group_cannot_do_is_refused_before_any_call() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "refused");
    double.take_requests();
    for (compose, field) in [
        ("services: {a: {image: x, command: [a]}}", "services.a.command"),
        ("services: {a: {image: x, ports: ['81:80']}}", "services.a.ports[0]"),
        ("services: {a: {image: x, restart: always}, b: {image: x, restart: 'no'}}", "services.b.restart"),
        ("services: {a: {image: x, network_mode: 'none'}}", "services.a.network_mode"),
    ] {
        let told = tenant.provision(compose, &json!({})).await.refused(422, "UNSUPPORTED_ON_BACKEND");
        assert_eq!(told["field"], field, "{told}");
    }
    assert!(double.take_requests().iter().all(|heard| !heard.path.contains(&tenant.group())), "nothing was asked");
    assert_eq!(double.groups().len(), 0);
}

#[tokio::test]
async fn private_images_need_credentials_each_time() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "private");
    let compose = format!("services: {{web: {{image: '{PRIVATE_REGISTRY}/shop/web'}}}}");
    let told = tenant.provision(&compose, &json!({})).await;
    assert!(matches!(told.status.as_u16(), 404 | 422 | 502), "{}", told.text());
    assert_eq!(double.groups().len(), 0, "nothing is left");
    let auth = json!([{"registry": PRIVATE_REGISTRY, "username": REGISTRY_USER, "password": REGISTRY_PASSWORD}]);
    tenant.provision(&compose, &json!({"registry_auth": auth})).await.expect(201);
    tenant.becomes("running").await;
    double.assert_clean();
}

#[tokio::test]
async fn a_container_that_crashes_is_undone() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "crash");
    let told =
        tenant.provision("services: {web: {image: example/crash}}", &json!({})).await.refused(502, "SERVICE_EXITED");
    assert_eq!((&told["field"], &told["details"]["exit_code"]), (&json!("services.web"), &json!(1)), "{told}");
    assert!(told["details"]["logs"].to_string().contains("it crashes"), "{told}");
    assert_eq!(double.groups().len(), 0, "nothing is left");

    tenant.provision("services: {web: {image: example/chatty}}", &json!({})).await.expect(201);
    tenant.update("services: {web: {image: example/crash}}").await.refused(502, "SERVICE_EXITED");
    let status = tenant.becomes("running").await;
    assert_eq!(
        (&status["generation"], &status["last_error"]["code"]),
        (&json!(1), &json!("SERVICE_EXITED")),
        "{status}"
    );
    let sent = double.sent("rg-east", &tenant.group()).expect("it is there").to_string();
    assert!(sent.contains("example/chatty"), "{sent}");
    double.assert_clean();
}

//! A tenant whose first provision fails has never been there: no container, network, volume, file or directory is left,
//! and the same name can be provisioned at once.

use serde_json::json;

use crate::scene::{
    HEALTHY, PROVISION, SERVES, SLEEPS, UNDECIDED, assert_same, containers, purge, reaches, request, stack, tree,
    until_state,
};
use crate::support::agent::Options;
use crate::support::engine::Engine;
use crate::support::traces::without_notes;
use crate::support::unique;

const REST: &str = "networks: {default: {}, back: {}}\nvolumes: {store: {}}\nsecrets: {key: {file: ./key}}\n";
const USES: &[&str] = &["networks: [default, back]", "volumes: ['store:/store', './data/db:/db']", "secrets: [key]"];

#[tokio::test]
async fn and_a_retry_converges() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let name = unique("first");
    let empty = tree(&agent.root());
    let sick = r#"healthcheck: {test: ["CMD", "false"], interval: 500ms, timeout: 5s, retries: 1}"#;
    let sick: &[&str] = &[SLEEPS[0], SLEEPS[1], sick];
    for (what, db, word) in [
        ("a service exits", &[r#"command: ["sh", "-c", "exit 3"]"#, UNDECIDED][..], "SERVICE_EXITED"),
        ("a service is not healthy", sick, "SERVICE_UNHEALTHY"),
        ("a command is missing", &["command: [no-such-tool]"], "SERVICE_EXITED"),
    ] {
        let compose = stack(&[("web", &[SERVES, USES]), ("db", &[db, USES, &["depends_on: [web]"]])], REST);
        let mut body = request(&name, &compose);
        body["files"] = json!({"key": "a key", "conf/file": "a file"});
        let told = agent.post(PROVISION, &body).await.refused(502, word);
        assert_eq!(told["field"], "services.db", "{what}: {told}");
        assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new(), "{what}: nothing is left on the engine");
        assert_same(&empty, &without_notes(tree(&agent.root())), what);
        agent.get(&format!("/v1/tenants/status/{name}")).await.refused(404, "NOT_FOUND");
        assert_eq!(agent.get("/v1/tenants").await.expect(200)["tenants"], json!([]));
    }
    // Another id, because nobody has had the name yet.
    let compose = stack(&[("web", &[SERVES, USES]), ("db", &[SLEEPS, USES, &[HEALTHY, "depends_on: [web]"]])], REST);
    let mut body = request(&name, &compose);
    body["id"] = json!("somebody-else");
    body["files"] = json!({"key": "a key"});
    let done = agent.post(PROVISION, &body).await.expect(201);
    assert_eq!(done["generation"], 1, "{done}");
    let status = until_state(&agent, &name, "running").await;
    reaches(engine, &containers(&status)["db-1"], "web").await;
    purge(&agent, engine, &name).await;
    assert_same(&empty, &without_notes(tree(&agent.root())), "after the purge");
}

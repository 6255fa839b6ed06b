//! What a container sees of files: configs, secrets, binds, volumes, tmpfs, a read-only root.

use std::os::unix::fs::MetadataExt as _;

use bollard::query_parameters::InspectContainerOptions;
use serde_json::json;

use super::{agent, inspected, nothing_is_left, report, reports};
use crate::support::engine::Engine;
use crate::tenant::Tenant;

#[tokio::test]
async fn configs_and_secrets_have_their_owner_and_mode() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "configs");
    let script = "for file in /plain /etc/app.conf /etc/inline /run/secrets/password /run/secrets/key /etc/token; do \
                  echo $$(stat -c '%a %u %g' $$file) $$(cat $$file); echo no 2>/dev/null >>$$file && echo written; done";
    let compose = format!(
        r#"
services:
  app:
    image: q8test/busybox:1
    stop_signal: SIGKILL
    configs:
      - plain
      - {{source: app, target: /etc/app.conf, uid: "1000", gid: "65534", mode: 0440}}
      - {{source: inline, target: /etc/inline, mode: 0755}}
    secrets:
      - password
      - {{source: key, target: key, uid: "1000", gid: "1000", mode: 0400}}
      - {{source: token, target: /etc/token}}
    command: {}
configs:
  plain: {{file: ./conf/plain.txt}}
  app: {{file: conf/app.conf}}
  inline: {{content: "level=${{LEVEL}}"}}
secrets:
  password: {{file: ./password.txt}}
  key: {{file: key.pem}}
  token: {{environment: TOKEN}}
"#,
        reports(script),
    );
    let files = json!({
        "conf/plain.txt": "plain text", "conf/app.conf": "port=80",
        "password.txt": {"text": "hunter2", "mode": "0600"}, "key.pem": {"base64": "a2V5", "mode": "0600"},
    });
    let made = tenant.provision(&compose, json!({"files": files, "env_content": "LEVEL=3\nTOKEN=t0ken\n"})).await;
    assert_eq!(made["warnings"], json!([]), "{made}");
    assert_eq!(
        report(&tenant, "app").await,
        [
            "444 0 0 plain text",
            "440 1000 65534 port=80",
            "755 0 0 level=3",
            "444 0 0 hunter2",
            "400 1000 1000 key",
            "444 0 0 t0ken"
        ],
    );

    // New content is a new container; the old one would go on seeing the old file.
    let before = tenant.container("app-1").await;
    tenant.update(json!({"files": {"key.pem": {"text": "new key", "mode": "0600"}}})).await.expect(200);
    assert_ne!(tenant.container("app-1").await, before);
    assert_eq!(report(&tenant, "app").await[4], "400 1000 1000 new key");
    nothing_is_left(&agent, &[&tenant]).await;
}

#[tokio::test]
async fn binds_see_the_requests_files_and_write_below_data_only() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "binds");
    let script = "cat /site/a /site/sub/b /one; echo no 2>/dev/null >/site/a || echo site is read-only; \
                  echo no 2>/dev/null >/one || echo one is read-only; stat -c '%a %u %g' /state /deep; \
                  echo written >/state/file && cat /state/file";
    let compose = format!(
        r#"
services:
  app:
    image: q8test/busybox:1
    stop_signal: SIGKILL
    user: "1000:65534"
    volumes:
      - ./site:/site:ro
      - ./one:/one
      - ./data/state:/state
      - {{type: bind, source: ./data/a/b, target: /deep}}
    command: {}
"#,
        reports(script),
    );
    let files = json!({"site/a": "a\n", "site/sub/b": "b\n", "one": {"text": "one\n", "mode": "0444"}});
    let made = tenant.provision(&compose, json!({"files": files})).await;
    let warnings = made["warnings"].as_array().expect("a list of warnings");
    assert_eq!(warnings.len(), 1, "{made}");
    assert!(warnings[0].as_str().is_some_and(|text| text.starts_with("services.app.volumes[1]: mounted read-only")));
    assert_eq!(
        report(&tenant, "app").await,
        ["a", "b", "one", "site is read-only", "one is read-only", "755 1000 65534", "755 1000 65534", "written"],
    );
    let written = agent.root().join(&tenant.name).join("data/state/file");
    assert_eq!(std::fs::read_to_string(&written).expect("the container's file"), "written\n");
    assert_eq!(std::fs::metadata(&written).expect("it is there").uid(), 1000);

    for (bind, rule) in [
        ("./site:/site:rw", "bind-writable"),
        ("./nothing:/site:ro", "bind-source-missing"),
        ("./.env:/site:ro", "bind-own-files"),
        (".:/site:ro", "bind-project-directory"),
        ("./.agent:/site:ro", "bind-agent"),
        ("/etc/passwd:/site:ro", "bind-outside"),
    ] {
        let compose = compose.replace("./site:/site:ro", bind);
        let refused = tenant.update(json!({"compose_content": compose})).await.refused(422, "POLICY_DENIED");
        assert_eq!(refused["field"], "services.app.volumes[0]", "{bind}: {refused}");
        assert_eq!(refused["details"]["refusals"][0]["rule"], rule, "{bind}: {refused}");
    }
    nothing_is_left(&agent, &[&tenant]).await;
}

#[tokio::test]
async fn named_and_anonymous_volumes_survive_what_replaces_their_container() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "volumes");
    let script = "for at in /named /anonymous; do echo $$ROUND >>$$at/rounds; echo $$at $$(cat $$at/rounds); done; \
                  echo no 2>/dev/null >/shown/x || echo shown is read-only; cat /shown/rounds";
    let compose = format!(
        r#"
services:
  app:
    image: q8test/busybox:1
    stop_signal: SIGKILL
    environment: {{ROUND: "1"}}
    volumes: ["named:/named", /anonymous, {{type: volume, source: named, target: /shown, read_only: true}}]
    command: {}
volumes:
  named: {{labels: {{org.example.kind: a test}}}}
"#,
        reports(script),
    );
    tenant.provision(&compose, json!({})).await;
    assert_eq!(report(&tenant, "app").await, ["/named 1", "/anonymous 1", "shown is read-only", "1"]);
    let volume = Engine::shared().docker().inspect_volume(&format!("q8-{}_named", tenant.name)).await;
    assert_eq!(volume.expect("the named volume").labels["org.example.kind"], "a test");
    let anonymous = anonymous_volumes(&tenant).await;
    assert_eq!(anonymous.len(), 1);

    let before = tenant.container("app-1").await;
    tenant.update(json!({"compose_content": compose.replace("ROUND: \"1\"", "ROUND: \"2\"")})).await.expect(200);
    assert_ne!(tenant.container("app-1").await, before);
    assert_eq!(report(&tenant, "app").await, ["/named 1 2", "/anonymous 1 2", "shown is read-only", "1", "2"]);
    assert_eq!(anonymous_volumes(&tenant).await, anonymous);

    nothing_is_left(&agent, &[&tenant]).await;
    // Nobody labels an anonymous volume, so it has to be asked for by name.
    for name in &anonymous {
        assert!(Engine::shared().docker().inspect_volume(name).await.is_err(), "{name} is left");
    }
}

async fn anonymous_volumes(tenant: &Tenant<'_>) -> Vec<String> {
    let id = tenant.container("app-1").await;
    let found = Engine::shared().docker().inspect_container(&id, None::<InspectContainerOptions>).await;
    let mounts = found.expect("the container is there").mounts.unwrap_or_default();
    let volumes = mounts.into_iter().filter(|mount| mount.destination.as_deref() == Some("/anonymous"));
    volumes.filter_map(|mount| mount.name).collect()
}

#[tokio::test]
async fn a_read_only_root_with_tmpfs() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "tmpfs");
    let script = "echo no 2>/dev/null >/etc/x || echo the root is read-only; echo yes >/scratch/x && cat /scratch/x; \
                  grep -E ' /(scratch|sized|long) ' /proc/mounts | cut -d' ' -f2-3; stat -c %a /long; \
                  df -k /sized /long | grep -c ' 1024 '";
    let compose = format!(
        r#"
services:
  app:
    image: q8test/busybox:1
    stop_signal: SIGKILL
    read_only: true
    tmpfs: [/scratch, "/sized:size=1m"]
    volumes: [{{type: tmpfs, target: /long, tmpfs: {{size: 1mb, mode: 0700}}}}]
    command: {}
"#,
        reports(script),
    );
    tenant.provision(&compose, json!({})).await;
    let mut said = report(&tenant, "app").await;
    said[2..5].sort();
    assert_eq!(said, ["the root is read-only", "yes", "/long tmpfs", "/scratch tmpfs", "/sized tmpfs", "700", "2"],);
    assert_eq!(inspected(&tenant).await["app-1"]["HostConfig"]["ReadonlyRootfs"], true);
    nothing_is_left(&agent, &[&tenant]).await;
}

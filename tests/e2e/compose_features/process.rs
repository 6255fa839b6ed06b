//! The process: environment, command, user, directory, init, signals, replicas, profiles.

use serde_json::json;

use super::{agent, inspected, nothing_is_left, report, reports};
use crate::support::http::Answer;
use crate::tenant::{Tenant, service};

#[tokio::test]
async fn environment_comes_from_three_places_and_from_nowhere_else() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "env");
    let compose = format!(
        r#"
services:
  one:
    image: q8test/busybox:1
    stop_signal: SIGKILL
    env_file: [one.env, {{path: absent.env, required: false}}]
    environment:
      OWN: own
      BOTH: from environment
      ASKED: "${{ASKED}} and ${{UNSET:-a default}} and ${{EMPTY-}}."
      PASSED:
      NUMBER: 5
      DOLLAR: "$$HOME"
    command: {}
  two:
    image: "q8test/busybox:${{TAG}}"
    stop_signal: SIGKILL
    environment: ["LIST=of pairs", PASSED, NOT_SET]
    command: {}
"#,
        reports("env | sort"),
        reports("env | sort; cat /version"),
    );
    let made = tenant
        .provision(
            &compose,
            json!({
                "env_content": "ASKED='it is'\nEMPTY=\nPASSED=through # a comment\nTAG=2\nSECRET=stays out\n",
                "files": {"one.env": "FILE=from file\nBOTH=from file\nQUOTED=\"a\\nb\"\n"},
            }),
        )
        .await;
    assert_eq!(made["warnings"], json!([]), "{made}");
    let own =
        |line: &&String| !["HOME=", "HOSTNAME=", "PATH=", "PWD=", "SHLVL="].iter().any(|name| line.starts_with(name));
    let one = report(&tenant, "one").await;
    let one: Vec<&String> = one.iter().filter(own).collect();
    assert_eq!(
        one,
        [
            "ASKED=it is and a default and .",
            "BOTH=from environment",
            "DOLLAR=$HOME",
            "FILE=from file",
            "NUMBER=5",
            "OWN=own",
            "PASSED=through",
            "QUOTED=a",
            "b",
        ]
    );
    let two = report(&tenant, "two").await;
    let two: Vec<&String> = two.iter().filter(own).collect();
    assert_eq!(two, ["LIST=of pairs", "PASSED=through", "2"], "neither the agent's environment nor what is not named");

    // Another value is another container; the same one is not.
    let before = tenant.containers().await;
    tenant.update(json!({"env_content": "ASKED=now\nPASSED=through\nTAG=2\n"})).await.expect(200);
    let after = tenant.containers().await;
    assert_ne!(after["one-1"].id, before["one-1"].id);
    assert_eq!(after["two-1"], before["two-1"]);
    nothing_is_left(&agent, &[&tenant]).await;
}

#[tokio::test]
async fn commands_run_as_they_are_written() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "command");
    let compose = r#"
x-common: &common {image: "q8test/busybox:1"}
services:
  list: {<<: *common, command: [echo, "two words", "$$HOME"]}
  text: {<<: *common, command: "echo 'two words' and \"more\" end"}
  entry: {<<: *common, entrypoint: [echo, from], command: [entrypoint, "and command"]}
  entrytext: {<<: *common, entrypoint: "echo only 'the entrypoint'"}
  cleared: {<<: *common, entrypoint: [], command: [echo, cleared]}
  shell: {<<: *common, command: [sh, -c, "echo $$1 $${#}", zero, first, second]}
"#;
    tenant.provision(compose, json!({})).await;
    for (service, said) in [
        ("list", "two words $HOME"),
        ("text", "two words and more end"),
        ("entry", "from entrypoint and command"),
        ("entrytext", "only the entrypoint"),
        ("cleared", "cleared"),
        ("shell", "first 2"),
    ] {
        assert_eq!(tenant.says(service, said).await, [said], "{service}");
    }
    // Nobody would run the pipe: there is no shell.
    let piped = compose.replace("\"echo 'two words' and \\\"more\\\" end\"", "\"echo a | wc -l\"");
    assert_ne!(piped, compose);
    let refused: Answer = tenant.update(json!({"compose_content": piped})).await;
    assert_eq!(refused.refused(422, "COMPOSE_INVALID")["field"], "services.text.command");
    nothing_is_left(&agent, &[&tenant]).await;
}

#[tokio::test]
async fn user_directory_hostname_init_and_signals() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "process");
    let compose = format!(
        r#"
services:
  dressed:
    image: q8test/busybox:1
    user: "1000:65534"
    working_dir: /tmp
    hostname: a-name
    domainname: inside.example
    init: true
    stop_signal: SIGUSR1
    stop_grace_period: 1500ms
    labels: {{org.example.purpose: a test, org.example.count: 5}}
    command: {}
  plain:
    image: q8test/busybox:1
    stop_grace_period: 1m
    labels: [org.example.flag, org.example.pair=a=b]
    stdin_open: true
    tty: true
    command: [sh, -c, "trap 'echo asked politely; exit 0' TERM; echo ready; while :; do sleep .1; done"]
"#,
        reports(
            "id -u; id -g; pwd; hostname; tr '\\0' ' ' </proc/1/cmdline | head -n 1 | cut -d' ' -f1; echo x >file && stat -c '%u %g' file"
        ),
    );
    tenant.provision(&compose, json!({})).await;
    let said = report(&tenant, "dressed").await;
    assert_eq!(said[..4], ["1000", "65534", "/tmp", "a-name"], "{said:?}");
    assert!(said[4].contains("init"), "process 1 is an init: {said:?}");
    assert_eq!(said.last().map(String::as_str), Some("1000 65534"), "{said:?}");

    let all = inspected(&tenant).await;
    let dressed = &all["dressed-1"]["Config"];
    assert_eq!(
        (&dressed["StopSignal"], &dressed["StopTimeout"]),
        (&json!("SIGUSR1"), &json!(2)),
        "1.5 s is not cut short"
    );
    assert_eq!(dressed["Domainname"], "inside.example");
    assert_eq!(dressed["Labels"]["org.example.purpose"], "a test");
    assert_eq!(dressed["Labels"]["org.example.count"], "5");
    let plain = &all["plain-1"]["Config"];
    assert_eq!(
        (&plain["Labels"]["org.example.flag"], &plain["Labels"]["org.example.pair"]),
        (&json!(""), &json!("a=b"))
    );
    assert_eq!((&plain["Tty"], &plain["OpenStdin"], &plain["StopTimeout"]), (&json!(true), &json!(true), &json!(60)));

    // The container gets its signal and the time to act on it.
    tenant.says("plain", "ready").await;
    tenant.act("stop", "?service=plain").await.expect(200);
    tenant.says("plain", "asked politely").await;
    assert_eq!(service(&tenant.status().await, "plain")["containers"][0]["exit_code"], 0);
    nothing_is_left(&agent, &[&tenant]).await;
}

#[tokio::test]
async fn replicas_come_and_go_and_profiles_choose_services() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "scale");
    let compose = r#"
x-common: &common {image: "q8test/busybox:1", command: [sleep, "3600"], stop_signal: SIGKILL}
services:
  many: {<<: *common, deploy: {replicas: 3}}
  two: {<<: *common, scale: 2}
  none: {<<: *common, scale: 0}
  debug: {<<: *common, profiles: [debug]}
  other: {<<: *common, profiles: [other, third]}
"#;
    tenant.provision(compose, json!({"profiles": ["debug"]})).await;
    let status = tenant.status().await;
    assert_eq!((&status["state"], &service(&status, "many")["replicas"]), (&json!("running"), &json!(3)), "{status}");
    let before = tenant.containers().await;
    let names = |all: &std::collections::BTreeMap<String, _>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), ["debug-1", "many-1", "many-2", "many-3", "two-1", "two-2"]);

    let scaled = compose.replace("replicas: 3", "replicas: 1").replace("scale: 2", "scale: 3");
    tenant.update(json!({"compose_content": scaled, "profiles": ["third"]})).await.expect(200);
    let after = tenant.containers().await;
    assert_eq!(names(&after), ["many-1", "other-1", "two-1", "two-2", "two-3"]);
    for name in ["many-1", "two-1", "two-2"] {
        assert_eq!(after[name], before[name], "{name} is left alone");
    }
    nothing_is_left(&agent, &[&tenant]).await;
}

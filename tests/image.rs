//! The image of the Dockerfile: the stage that takes a prebuilt binary is built on the engine, runs there as the README says,
//! becomes healthy, and runs a tenant.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use bollard::body_full;
use bollard::models::{ContainerCreateBody, HealthStatusEnum, HostConfig};
use bollard::query_parameters::{
    BuildImageOptionsBuilder, CreateContainerOptions, InspectContainerOptions, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptions, StartContainerOptions,
};
use futures::StreamExt as _;
use hyper::Method;
use serde_json::{Value, json};
use support::agent::BINARY;
use support::engine::Engine;
use support::images::{BUSYBOX, add};
use support::{eventually, http, unique};

/// A context with the Dockerfile and the binary under test, and nothing else.
fn context() -> Vec<u8> {
    let binary = std::fs::read(BINARY).expect("the binary is there");
    assert!(
        !binary.windows(9).any(|window| window == b"/ld-linux"),
        "{BINARY} is not static and cannot run on scratch: RUSTFLAGS in the environment replaces .cargo/config.toml"
    );
    let mut context = tar::Builder::new(Vec::new());
    add(&mut context, tar::EntryType::Regular, "Dockerfile", include_bytes!("../Dockerfile"), 0o644);
    add(&mut context, tar::EntryType::Regular, "q8-agent", &binary, 0o755);
    context.into_inner().expect("a tar in memory")
}

#[tokio::test]
async fn the_image_runs_healthy_and_runs_a_tenant() {
    let engine = Engine::shared().with_busybox().await;
    let docker = engine.docker();
    let image = format!("{}:1", unique("q8test/agent"));
    let options = BuildImageOptionsBuilder::new().t(&image).target("prebuilt").rm(true).build();
    let context = context();
    let mut progress = std::pin::pin!(docker.build_image(options, None, Some(body_full(context.into()))));
    while let Some(line) = progress.next().await {
        line.unwrap_or_else(|error| panic!("the engine does not build the image: {error}"));
    }

    let home = tempfile::Builder::new().prefix("q8-image-").tempdir().expect("a temporary directory");
    let root: PathBuf = home.path().join("tenants");
    std::fs::create_dir(&root).expect("a tenants root");
    let root = root.to_str().expect("the path is text");
    let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let token_file = home.path().join("token");
    std::fs::write(&token_file, format!("{token}\n")).expect("the token's file");
    let port =
        std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a port").port();

    let strings = |values: &[&str]| Some(values.iter().map(ToString::to_string).collect::<Vec<String>>());
    let body = ContainerCreateBody {
        image: Some(image.clone()),
        env: Some(vec![
            format!("Q8_AGENT_PORT={port}"),
            format!("Q8_AGENT_TENANTS_ROOT={root}"),
            format!("Q8_AGENT_SUBNET_POOL=10.{}.0.0/16", 193 + std::process::id() % 16),
            String::from("Q8_AGENT_ADMIN_TOKEN_FILE=/run/secrets/token"),
        ]),
        host_config: Some(HostConfig {
            network_mode: Some(String::from("host")),
            binds: Some(vec![
                format!("{}:/var/run/docker.sock", engine.socket().display()),
                format!("{root}:{root}"),
                format!("{}:/run/secrets/token:ro", token_file.display()),
            ]),
            readonly_rootfs: Some(true),
            cap_drop: strings(&["ALL"]),
            cap_add: strings(&["CHOWN", "DAC_OVERRIDE", "FOWNER"]),
            security_opt: strings(&["no-new-privileges"]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let id = docker.create_container(None::<CreateContainerOptions>, body).await.expect("a container is created").id;
    docker.start_container(&id, None::<StartContainerOptions>).await.expect("it starts");

    // The healthcheck's first run comes after its interval of 10 seconds.
    let health = eventually("the container has a verdict", Duration::from_secs(60), async || {
        let state = docker.inspect_container(&id, None::<InspectContainerOptions>).await.ok()?.state?;
        if state.running == Some(false) {
            return Some(format!("exited with {:?}", state.exit_code));
        }
        match state.health?.status? {
            HealthStatusEnum::HEALTHY => Some(String::from("healthy")),
            HealthStatusEnum::UNHEALTHY => Some(String::from("unhealthy")),
            _ => None,
        }
    })
    .await;
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
    let log: Vec<_> = docker.logs(&id, Some(options)).collect().await;
    let log: String = log.into_iter().flatten().map(|line| line.to_string()).collect();
    assert_eq!(health, "healthy", "{log}");

    let call = async |method: Method, path: &str, body: Value| {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = http::send(([127, 0, 0, 1], port).into(), method, path, &headers, body).await;
        http::complete(response.expect("the agent answers")).await.expect("a whole answer")
    };
    // A file of the request is bound into the container: that works only if the root has the same path on both sides.
    let name = unique("boxed");
    let compose = format!(
        "services:\n  web:\n    image: {BUSYBOX}\n    command: [sh, -c, 'cat /greeting; exec sleep 1000']\n    init: true\n    \
         volumes: ['./greeting:/greeting:ro']\n"
    );
    let request = json!({"id": "t1", "subdomain": name, "compose_content": compose, "files": {"greeting": "hello from outside\n"}});
    call(Method::POST, "/v1/tenants/provision", request).await.expect(201);
    eventually("the tenant reads the request's file", Duration::from_secs(10), async || {
        let logs = call(Method::GET, &format!("/v1/tenants/logs/{name}"), Value::Null).await;
        logs.text().contains("hello from outside").then_some(())
    })
    .await;
    call(Method::POST, &format!("/v1/tenants/teardown/{name}?purge=true"), Value::Null).await.expect(200);

    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    docker.remove_container(&id, Some(options)).await.expect("the agent's container is removed");
    docker.remove_image(&image, None::<RemoveImageOptions>, None).await.expect("the image is removed");
}

//! The harness keeps its own promises: an engine answers, images run, data survives a restart, nothing is left.

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptions, StartContainerOptions,
};
use futures::StreamExt as _;
use support::engine::Engine;
use support::images::{BUSYBOX, BUSYBOX_2};
use support::{eventually, unique};

/// Runs a command to its end; gives exit code and output.
async fn run(docker: &Docker, image: &str, command: &[&str], volume: Option<&str>) -> (i64, String) {
    let body = ContainerCreateBody {
        image: Some(String::from(image)),
        cmd: Some(command.iter().map(ToString::to_string).collect()),
        host_config: Some(HostConfig {
            network_mode: Some(String::from("none")),
            binds: volume.map(|name| vec![format!("{name}:/data")]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let id = docker.create_container(None::<CreateContainerOptions>, body).await.expect("a container is created").id;
    docker.start_container(&id, None::<StartContainerOptions>).await.expect("it starts");
    let code = eventually("the container exits", Duration::from_secs(20), async || {
        let state = docker.inspect_container(&id, None::<InspectContainerOptions>).await.ok()?.state?;
        (state.running == Some(false)).then_some(state.exit_code?)
    })
    .await;
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
    let lines: Vec<_> = docker.logs(&id, Some(options)).collect().await;
    let text = lines.into_iter().map(|line| line.expect("a log line").to_string()).collect();
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    docker.remove_container(&id, Some(options)).await.expect("it is removed");
    (code, text)
}

#[tokio::test]
async fn images_run_on_the_shared_engine() {
    let docker = Engine::shared().with_busybox().await.docker();
    assert_eq!(docker.ping().await.expect("the engine answers"), "OK");

    let tools = "sh sleep httpd nc wget cat echo true false test touch ls id stat";
    for (image, command, expected) in [
        (BUSYBOX, "true", (0, "")),
        (BUSYBOX, "exit 3", (3, "")),
        (BUSYBOX, &format!("for tool in {tools}; do [ -x /bin/$tool ] || echo no $tool; done"), (0, "")),
        (BUSYBOX, "id -u; stat -c '%a %u' /tmp /data; [ -e /version ] && echo version", (1, "0\n1777 0\n755 0\n")),
        (BUSYBOX_2, "cat /version", (0, "2\n")),
        (
            BUSYBOX,
            "echo page >/data/p; httpd -p 80 -h /data; /bin/wget -qO- http://127.0.0.1/p; /bin/wget -qO- http://127.0.0.1/none 2>/dev/null",
            (8, "page\n"),
        ),
    ] {
        let (code, text) = run(&docker, image, &["sh", "-c", command], None).await;
        assert_eq!((code, text.as_str()), expected, "{command}");
    }
}

#[tokio::test]
async fn an_own_engine_keeps_its_data_and_leaves_nothing() {
    let engine = Engine::own();
    let directory = engine.directory().expect("it is private").to_owned();
    let docker = engine.with_busybox().await.docker();
    let volume = unique("data");
    let create = VolumeCreateRequest { name: Some(volume.clone()), ..VolumeCreateRequest::default() };
    docker.create_volume(create).await.expect("a volume is created");
    let (code, _) = run(&docker, BUSYBOX, &["sh", "-c", "echo kept >/data/file"], Some(&volume)).await;
    assert_eq!(code, 0);

    engine.restart();
    let (_, text) = run(&engine.docker(), BUSYBOX, &["cat", "/data/file"], Some(&volume)).await;
    assert_eq!(text, "kept\n", "a restart keeps volumes");

    engine.kill();
    assert!(engine.docker().ping().await.is_err(), "a killed engine does not answer");
    engine.start();
    let (_, text) = run(&engine.docker(), BUSYBOX, &["cat", "/data/file"], Some(&volume)).await;
    assert_eq!(text, "kept\n", "a crash keeps volumes");

    engine.freeze();
    let frozen = tokio::time::timeout(Duration::from_millis(300), engine.docker().ping().into_future()).await;
    assert!(frozen.is_err(), "a frozen engine takes the call and does not answer");
    engine.thaw();
    assert_eq!(engine.docker().ping().await.expect("a thawed engine answers"), "OK");

    drop(engine);
    assert!(!directory.exists(), "{} is left", directory.display());
    assert_eq!(processes_of(&directory), Vec::<String>::new());
}

#[tokio::test]
async fn labelled_objects_are_found_and_removed() {
    let engine = Engine::shared().with_busybox().await;
    let docker = engine.docker();
    let (key, name) = (unique("q8test.label"), unique("labelled"));
    let labels = HashMap::from([(key.clone(), String::from("yes"))]);
    let create =
        VolumeCreateRequest { name: Some(name.clone()), labels: Some(labels), ..VolumeCreateRequest::default() };
    docker.create_volume(create).await.expect("a volume is created");
    let label = format!("{key}=yes");
    assert_eq!(engine.labelled(&label).await, std::slice::from_ref(&name));
    engine.remove_labelled(&label).await;
    assert_eq!(engine.labelled(&label).await, Vec::<String>::new());
    assert!(docker.remove_volume(&name, None::<RemoveVolumeOptions>).await.is_err(), "it is gone");
}

/// Command lines that name the directory.
fn processes_of(directory: &Path) -> Vec<String> {
    let wanted = directory.to_str().expect("the path is text");
    let processes = std::fs::read_dir("/proc").expect("/proc");
    let lines = processes.flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(wanted)).collect()
}

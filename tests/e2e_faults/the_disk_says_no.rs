//! A tenants root that is read-only or full: the right code, no half state, and no restart needed when it is mended.
#![allow(clippy::disallowed_methods, reason = "only the agent never starts a process; this mounts file systems")]

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::scene::{
    LONG, PROVISION, SLEEPS, UPDATE, assert_same, containers, objects, project_files_in, purge, request, stack, status,
    tree, until_state,
};
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::{eventually, unique};

/// A file system of its own, in memory. Unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    /// The engine lives in another mount namespace and does not see this: its tenants must not bind anything.
    fn new(size: &str) -> Self {
        let place = tempfile::tempdir().expect("a temporary directory").keep();
        let disk = Self(place);
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"]);
        disk
    }

    fn mount(&self, arguments: &[&str]) {
        let output = Command::new("mount").args(arguments).arg(&self.0).output().expect("mount is part of every Linux");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mount {arguments:?} (these tests need root): {said}");
    }

    fn read_only(&self, yes: bool) {
        self.mount(&["-o", if yes { "remount,ro" } else { "remount,rw" }]);
    }

    fn root(&self) -> PathBuf {
        self.0.join("tenants")
    }

    /// Takes all space but so many bytes.
    fn fill(&self, but: u64) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.0.join("ballast")).expect("a file");
        let page = [0; 4096];
        while file.write_all(&page).is_ok() {}
        let length = file.metadata().expect("it is open").len();
        file.set_len(length.saturating_sub(but)).expect("a shorter file");
    }

    /// Takes all space, and all that comes free, until what this gives is dropped.
    fn keep_full(&self) -> Writer {
        use std::io::Write as _;
        self.fill(0);
        let path = self.0.join("ballast");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut file = std::fs::File::options().append(true).open(path).expect("it was made");
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                if file.write_all(&[0; 4096]).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        Writer { stop: Some(stop), thread: Some(thread) }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("it was filled");
    }
}

/// Something that writes as long as there is room.
struct Writer {
    stop: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.take();
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a killed agent may not be gone altogether.
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
        drop(std::fs::remove_dir(&self.0));
    }
}

fn tenant(name: &str, value: &str, size: usize) -> Value {
    let environment = format!("environment: {{VALUE: '{value}'}}");
    let mut body = request(name, &stack(&[("web", &[SLEEPS, &[&environment]]), ("db", &[SLEEPS])], ""));
    body["files"] = json!({"big": value.repeat(size), "conf/small": value});
    body
}

fn as_update(body: &Value) -> Value {
    let mut update = body.clone();
    update.as_object_mut().expect("an object").remove("id");
    update
}

async fn until_mended(agent: &Agent<'_>) {
    eventually("nothing is degraded", LONG, async || {
        (agent.get("/ready").await.unless_away()?["degraded"] == json!([])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn because_it_is_read_only() {
    let engine = Engine::shared().with_busybox().await;
    let disk = Disk::new("64m");
    let agent = Options::docker(engine).env("Q8_AGENT_TENANTS_ROOT", disk.root()).start().await;
    let (name, other) = (unique("ro"), unique("ro"));
    let body = tenant(&name, "1", 10);
    agent.post(PROVISION, &body).await.expect(201);
    let before = containers(&status(&agent, &name).await);
    let picture = (tree(&disk.root()), objects(engine, &agent.label()).await);

    disk.read_only(true);
    for (path, body) in [
        (PROVISION.to_owned(), tenant(&other, "1", 10)),
        (UPDATE.to_owned(), as_update(&tenant(&name, "2", 10))),
        (format!("/v1/tenants/stop/{name}"), Value::Null),
        (format!("/v1/tenants/teardown/{name}"), Value::Null),
    ] {
        let told = agent.post(&path, &body).await.refused(507, "NO_SPACE");
        assert_eq!(told["error"], "the tenants root is read-only", "{path}: {told}");
        assert_same(&picture.0, &tree(&disk.root()), &format!("{path}: the disk"));
        assert_same(&picture.1, &objects(engine, &agent.label()).await, &format!("{path}: the engine"));
    }
    eventually("the next tenant is placed elsewhere", LONG, async || {
        let stats = agent.get("/v1/system/stats").await.expect(200);
        let reasons = stats["reasons"].as_array().expect("a list");
        (stats["schedulable"] == false && reasons.contains(&json!("read_only"))).then_some(())
    })
    .await;
    // What only reads works, and so does what changes nothing.
    assert_eq!(status(&agent, &name).await["state"], "running");
    assert_eq!(agent.post(PROVISION, &body).await.expect(200)["changed"], false);

    disk.read_only(false);
    until_mended(&agent).await;
    assert_eq!(containers(&until_state(&agent, &name, "running").await), before);
    agent.get(&format!("/v1/tenants/status/{other}")).await.refused(404, "NOT_FOUND");
    agent.post(UPDATE, &as_update(&tenant(&name, "2", 10))).await.expect(200);
    agent.post(PROVISION, &tenant(&other, "1", 10)).await.expect(201);
    agent.post(&format!("/v1/tenants/teardown/{other}?purge=true"), &Value::Null).await.expect(200);
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn because_it_is_full() {
    let engine = Engine::shared().with_busybox().await;
    let disk = Disk::new("8m");
    let agent = Options::docker(engine).env("Q8_AGENT_TENANTS_ROOT", disk.root()).start().await;
    let (name, other) = (unique("full"), unique("full"));
    let body = tenant(&name, "1", 1000);
    agent.post(PROVISION, &body).await.expect(201);
    let before = containers(&status(&agent, &name).await);
    let picture = (project_files_in(&disk.root(), &name), objects(engine, &agent.label()).await);

    // At first there is room for nothing, then for a directory, for the record, for the specification but not its files…
    for room in [0, 8, 16, 32, 64, 300].map(|kilobytes| kilobytes * 1024) {
        disk.fill(room);
        let big = 200_000;
        for (path, body) in [(PROVISION, tenant(&other, "1", big)), (UPDATE, as_update(&tenant(&name, "2", big)))] {
            let what = format!("{path} with {room} bytes left");
            let answer = agent.post(path, &body).await;
            assert_eq!(answer.status, 507, "{what}: {}", answer.text());
            answer.refused(507, "NO_SPACE");
            let now = objects(engine, &agent.label()).await;
            assert_same(&picture.1, &now, &format!("{what}: the engine"));
        }
        assert_eq!(containers(&status(&agent, &name).await), before, "{room} bytes left");
        disk.empty();
        until_mended(&agent).await;
        assert_same(&picture.0, &project_files_in(&disk.root(), &name), "the files");
        assert!(!disk.root().join(&other).exists());
        let staging = tree(&disk.root().join(".agent/staging"));
        assert!(staging.is_empty(), "{:?}", staging.keys());
    }
    // Without any room it can be stopped, and torn down, which makes more: the spare files are for that, and nobody who
    // takes all space that comes free gets any of theirs.
    let spares = || std::fs::read_dir(disk.root().join(".agent/spares")).expect("a directory").count();
    let all = spares();
    let writer = disk.keep_full();
    agent.post(&format!("/v1/tenants/stop/{name}"), &Value::Null).await.expect(200);
    assert_eq!(until_state(&agent, &name, "stopped").await["desired"], "stopped");
    assert!(spares() < all);
    drop(writer);
    disk.empty();
    agent.post(&format!("/v1/tenants/start/{name}"), &Value::Null).await.expect(200);
    assert_eq!(spares(), all, "they are there again");
    let writer = disk.keep_full();
    agent.post(&format!("/v1/tenants/teardown/{name}"), &Value::Null).await.expect(200);
    agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null).await.expect(200);
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
    drop(writer);
    disk.empty();
    agent.post(PROVISION, &body).await.expect(201);
    agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null).await.expect(200);
}

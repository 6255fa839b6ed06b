//! As many files are open as may be: whoever comes is told so, work that has begun is done or undone, and it all goes on by
//! itself when there is room again.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::auditor::{audit, variant};
use crate::scene::{LONG, PROVISION, UPDATE, containers, purge, status};
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::{eventually, unique};

/// A connection that stays: nobody can make a new one while the agent cannot accept any.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    token: String,
}

impl Line {
    /// None when the agent has no place for it, and has said so.
    async fn open(agent: &Agent<'_>) -> Option<Self> {
        let connection = TcpStream::connect(agent.address()).await.expect("the system takes connections");
        let (sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.expect("it begins");
        tokio::spawn(driver);
        let mut line = Self { sender, token: agent.token().to_owned() };
        let (status, told) = line.ask("GET", "/live", &Value::Null).await;
        if status == 200 {
            return Some(line);
        }
        assert_eq!((status, &told["code"]), (429, &json!("RATE_LIMITED")), "{told}");
        None
    }

    async fn ask(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(path).header("host", "agent");
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let request = request.header("content-type", "application/json").body(Full::new(Bytes::from(text)));
        let asked = async {
            self.sender.ready().await.expect("the connection stands");
            let answer = self.sender.send_request(request.expect("a request")).await.expect("an answer");
            let status = answer.status().as_u16();
            (status, answer.into_body().collect().await.expect("a whole answer").to_bytes())
        };
        let (status, bytes) = tokio::time::timeout(LONG, asked).await.unwrap_or_else(|_| panic!("{path} hangs"));
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{path}: {error}: {bytes:?}")))
    }
}

#[tokio::test]
async fn because_of_many_connections() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).files(256).start().await;
    let name = unique("files");
    agent.post(PROVISION, &variant(&name, 0)).await.expect(201);
    // Whoever comes is served or told that there is no place; those that do nothing are closed for the others.
    let mut lines = Vec::new();
    for _ in 0..300 {
        lines.extend(Line::open(&agent).await);
    }
    // There is a descriptor for each file and each call of the engine that the work takes.
    let line = lines.last_mut().expect("some were taken");
    let (code, told) = line.ask("POST", PROVISION, &variant(&name, 1)).await;
    assert_eq!(code, 200, "{told}");
    let path = format!("/v1/tenants/status/{name}");
    let asking = (0..40).map(|_| agent.get(&path));
    for answer in futures::future::join_all(asking).await {
        assert_eq!(answer.expect(200)["state"], "running");
    }
    drop(lines);
    assert!(!agent.log().contains("Too many open files"), "{}", agent.log());
    audit(engine, &agent, &name, "when they are gone").await;
    purge(&agent, engine, &name).await;
}

/// At each number of descriptors the update fails at another place.
#[tokio::test]
async fn in_the_middle_of_an_update() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let name = unique("files");
    agent.post(PROVISION, &variant(&name, 0)).await.expect(201);
    let before = containers(&status(&agent, &name).await);
    let pid = Pid::from_raw(i32::try_from(agent.pid()).expect("a process id"));
    let all = getrlimit(Resource::Nofile).maximum;
    let limit = |current| {
        prlimit(pid, Resource::Nofile, Rlimit { current, maximum: all }).expect("limits below the hard one may be set")
    };
    let mut update = variant(&name, 1);
    update.as_object_mut().expect("an object").remove("id");
    update["files"]["file-0"] = Value::Null;
    update["pull"] = json!(false);
    let mut failed = 0;
    for room in 0..12 {
        let (mut line, mut beside) =
            (Line::open(&agent).await.expect("a place"), Line::open(&agent).await.expect("a place"));
        // What was asked before is over, and its connection to the engine as well.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let open = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("the agent runs");
        let open: BTreeSet<u64> = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        // The limit is one of numbers, and there are free ones between those that are taken.
        let most = (0..).filter(|number| !open.contains(number)).nth(room).expect("numbers do not end");
        limit(Some(most));
        let story = format!("with room for {room} files");
        let (code, told) = line.ask("POST", UPDATE, &update).await;
        let (lives, _) = beside.ask("GET", "/live", &Value::Null).await;
        limit(all);
        assert_eq!(lives, 200, "{story}: it lives");
        eventually(&format!("{story}: nothing is degraded"), LONG, async || {
            let answer = agent.get("/ready").await;
            (answer.status == 200 && answer.json()["degraded"] == json!([])).then_some(())
        })
        .await;
        if code == 200 {
            break;
        }
        failed += 1;
        let expected = [(429, json!("RATE_LIMITED")), (503, json!("BACKEND_UNAVAILABLE"))];
        assert!(expected.contains(&(code, told["code"].clone())), "{story}: {code} {told}");
        assert_eq!(told["retryable"], true, "{story}: {told}");
        audit(engine, &agent, &name, &story).await;
        let now = status(&agent, &name).await;
        assert_eq!(now["generation"], 1, "{story}: {now}");
        for (key, container) in containers(&now) {
            assert_eq!(container.id, before[&key].id, "{story}: {key} is the same container");
        }
    }
    assert!(failed > 2, "it failed at {failed} places only");
    assert_eq!(agent.post(UPDATE, &update).await.expect(200)["generation"], 2);
    audit(engine, &agent, &name, "at the end").await;
    purge(&agent, engine, &name).await;
}

//! The server over real sockets, with endpoints that misbehave on request. What the real endpoints answer is tested
//! where there is an orchestrator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::StatusCode;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::auth::tests::{ADMIN, READ, tokens};
use super::body::BodyBudget;
use super::error::ApiError;
use super::front::{Call, Endpoints, Front};
use super::respond::{self, Answer};
use super::router::Route;
use super::{Limits, LiveTokens, server};

mod raw;

/// Each route misbehaves in its own way.
struct Scripted {
    limits: Limits,
    bodies: BodyBudget,
    abandoned: Arc<AtomicUsize>,
    begun: Arc<Notify>,
    go_on: Arc<Notify>,
}

struct Abandoned(Arc<AtomicUsize>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Endpoints for Scripted {
    fn at_once(&self, route: &Route, call: &Call) -> Option<Answer> {
        match route {
            Route::SystemStats => Some(respond::json(StatusCode::OK, &json!({ "at": "once" }))),
            Route::Events => panic!("canary {}", call.request_id.as_str()),
            _ => None,
        }
    }

    async fn call(&self, route: Route, call: Call) -> Result<Answer, ApiError> {
        match route {
            Route::Provision => {
                let body = self.bodies.read(&call.headers, call.body, &self.limits).await?;
                Ok(respond::json(StatusCode::CREATED, &json!({ "bytes": body.bytes.len() })))
            }
            Route::Tenants => panic!("canary {}", call.request_id.as_str()),
            Route::Info => {
                sleep(Duration::from_millis(800)).await;
                Ok(respond::json(StatusCode::OK, &json!({ "slow": true })))
            }
            Route::Status(_) => {
                let _abandoned = Abandoned(Arc::clone(&self.abandoned));
                self.begun.notify_one();
                std::future::pending().await
            }
            Route::Images(_) => {
                self.begun.notify_one();
                self.go_on.notified().await;
                Ok(respond::json(StatusCode::OK, &json!({ "held": true })))
            }
            Route::Logs(_) => {
                let block = || Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 8 * 1024]))));
                let body = StreamBody::new(stream::repeat_with(block).filter_map(std::future::ready));
                Ok(respond::with_type(StatusCode::OK, "text/plain", body.boxed_unsync()))
            }
            _ => Ok(respond::json(StatusCode::OK, &json!({ "status": "alive" }))),
        }
    }
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
    abandoned: Arc<AtomicUsize>,
    /// A request that does not end by itself has begun.
    begun: Arc<Notify>,
    /// Lets a request for images be answered.
    go_on: Arc<Notify>,
}

/// The usual limits, in a hurry.
fn quick() -> Limits {
    Limits {
        max_body: 64 * 1024,
        head_time: Duration::from_millis(500),
        body_time: Duration::from_millis(400),
        idle_time: Duration::from_millis(1500),
        half_close_time: Duration::from_millis(500),
        stall_time: Duration::from_millis(400),
        stop_time: Duration::from_secs(2),
        ..Limits::default()
    }
}

async fn run(limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, abandoned) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let endpoints = Scripted {
        limits: limits.clone(),
        bodies: BodyBudget::new(&limits),
        abandoned: Arc::clone(&abandoned),
        begun: Arc::clone(&begun),
        go_on: Arc::clone(&go_on),
    };
    let front = Arc::new(Front::new(LiveTokens::new(tokens(ADMIN)), endpoints));
    let task = tokio::spawn(server::run(listener, front, Arc::new(limits), stop.clone()));
    Running { address, stop, task, abandoned, begun, go_on }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a new connection and reads all that comes until the server closes.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        read_to_end(&mut stream).await
    }

    async fn is_well(&self) -> bool {
        self.exchange("GET /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.starts_with("HTTP/1.1 200")
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A reset after the answer counts as an end.
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await.expect("the server closes in time");
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads one answer whose body is JSON with a Content-Length.
async fn read_answer(stream: &mut TcpStream) -> (String, Value) {
    let mut all = Vec::new();
    loop {
        let mut byte = [0];
        timeout(Duration::from_secs(5), stream.read_exact(&mut byte)).await.expect("an answer").unwrap();
        all.push(byte[0]);
        if all.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(all).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

fn request(method: &str, path: &str, token: &str, rest: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n{rest}\r\n")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[tokio::test]
async fn each_refusal_has_its_status_headers_and_body() {
    let server = run(quick()).await;
    let wrong = "x".repeat(32);
    for (method, path, token, wanted, code, header) in [
        ("GET", "/v1/system/info", wrong.as_str(), 401, "UNAUTHORIZED", "www-authenticate: Bearer\r\n"),
        ("GET", "/no/such/path", &wrong, 401, "UNAUTHORIZED", "www-authenticate: Bearer\r\n"),
        ("POST", "/live", &wrong, 401, "UNAUTHORIZED", "www-authenticate: Bearer\r\n"),
        ("POST", "/v1/tenants/provision", READ, 403, "FORBIDDEN", ""),
        ("GET", "/no/such/path", ADMIN, 404, "NOT_FOUND", ""),
        ("GET", "/v1/tenants/status/a%2Fb", ADMIN, 400, "INVALID_SUBDOMAIN", ""),
        ("DELETE", "/v1/tenants/provision", ADMIN, 405, "METHOD_NOT_ALLOWED", "allow: POST\r\n"),
        ("POST", "/live", ADMIN, 405, "METHOD_NOT_ALLOWED", "allow: GET, HEAD\r\n"),
    ] {
        let mut stream = server.connect().await;
        let sent = request(method, path, token, "x-request-id: abc-1\r\n");
        stream.write_all(sent.as_bytes()).await.unwrap();
        let (head, body) = read_answer(&mut stream).await;
        assert_eq!(status(&head), wanted.to_string(), "{method} {path}");
        assert_eq!((&body["code"], &body["request_id"]), (&json!(code), &json!("abc-1")));
        for line in
            [header, "x-request-id: abc-1\r\n", "cache-control: no-store\r\n", "content-type: application/json\r\n"]
        {
            assert!(head.contains(line), "{line:?} in {head}");
        }
    }
}

#[tokio::test]
async fn a_connection_serves_several_requests_and_survives_a_panic() {
    let server = run(quick()).await;
    let mut stream = server.connect().await;
    for (path, wanted) in [
        ("/live", "200"),
        ("/v1/tenants", "500"),
        ("/no", "404"),
        ("/v1/events", "500"),
        ("/v1/system/stats", "200"),
        ("/v1/system/info", "200"),
    ] {
        stream.write_all(request("GET", path, ADMIN, "").as_bytes()).await.unwrap();
        let (head, body) = read_answer(&mut stream).await;
        assert_eq!(status(&head), wanted, "{path}");
        assert!(!body.to_string().contains("canary"), "{body}");
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = run(quick()).await;
    for (path, length) in [("/live", 18), ("/v1/system/stats", 13)] {
        let answer = server.exchange(request("HEAD", path, ADMIN, "connection: close\r\n")).await;
        assert_eq!(status(&answer), "200");
        let whole = answer.contains(&format!("content-length: {length}\r\n")) && answer.ends_with("\r\n\r\n");
        assert!(whole, "{answer}");
    }
}

#[tokio::test]
async fn without_a_token_no_body_is_read() {
    let server = run(quick()).await;
    // The body is announced and never sent: an answer can only come from somebody who does not wait for it.
    let head = "POST /v1/tenants/provision HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n";
    let begun = Instant::now();
    let answer = server.exchange(head).await;
    assert_eq!(status(&answer), "401");
    assert!(!answer.contains("100 Continue"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn bodies_are_limited_by_size_and_time() {
    let server = run(quick()).await;
    let post = |rest: &str| request("POST", "/v1/tenants/provision", ADMIN, rest);
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for (sent, wanted) in [
        (post("content-length: 3\r\nconnection: close\r\n") + "{ }", "201"),
        (post("connection: close\r\ntransfer-encoding: chunked\r\n") + &chunk + "0\r\n\r\n", "201"),
        (post("connection: close\r\n"), "201"),
        (post("content-length: 65537\r\n"), "413"),
        (post("content-length: 99999999999999999999999\r\n"), "400"),
        (post("transfer-encoding: chunked\r\n") + &chunk.repeat(20), "413"),
        (post("content-length: 10\r\n") + "{", "400"),
        (post("transfer-encoding: chunked\r\n") + "zz\r\n", "400"),
        (post("content-length: 2\r\ncontent-type: text/yaml\r\n") + "{}", "400"),
        (post("content-length: 2\r\ncontent-encoding: gzip\r\n") + "{}", "400"),
        (post("content-length: 2\r\ncontent-length: 3\r\n") + "{}", "400"),
    ] {
        let answer = server.exchange(&sent).await;
        assert_eq!(status(&answer), wanted, "{}: {answer}", &sent[..sent.len().min(200)]);
    }
    assert!(server.is_well().await);
}

#[tokio::test]
async fn a_client_that_is_still_sending_can_read_why_it_was_refused() {
    let server = run(quick()).await;
    let mut stream = server.connect().await;
    let head = request("POST", "/v1/tenants/provision", ADMIN, "content-length: 3000000\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // Does not look at the answer before it has sent everything, as simple clients do.
    for _ in 0..300 {
        stream.write_all(&[b'x'; 10_000]).await.unwrap();
    }
    assert_eq!(status(&read_to_end(&mut stream).await), "413");
}

#[tokio::test]
async fn garbage_and_oversized_heads_do_no_harm() {
    let server = run(quick()).await;
    let many = "x-a: b\r\n".repeat(70);
    let long = format!("x-a: {}\r\n", "b".repeat(40_000));
    for (bytes, wanted) in [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), "400"),
        (b"\0\0\0\0\r\n\r\n".to_vec(), "400"),
        (b"GET /live HTTP/9.9\r\n\r\n".to_vec(), "400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "400"),
        (request("GET", "/live", ADMIN, &many).into_bytes(), "431"),
        (request("GET", "/live", ADMIN, &long).into_bytes(), "431"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)).into_bytes(), "414"),
        (b"OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec(), "401"),
        (b"CONNECT example.org:443 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec(), "401"),
    ] {
        let answer = server.exchange(&bytes).await;
        let shown = bytes[..bytes.len().min(60)].escape_ascii().to_string();
        assert_eq!(status(&answer), wanted, "{shown}: {answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{shown}: {error}: {answer}"));
        assert!(body["code"].is_string() && body["request_id"].is_string(), "{answer}");
    }
    assert!(server.is_well().await);
}

#[tokio::test]
async fn slow_heads_idle_connections_and_silent_ones_are_closed() {
    let server = run(quick()).await;
    let closed_after = async |mut stream: TcpStream| {
        let begun = Instant::now();
        let rest = read_to_end(&mut stream).await;
        assert_eq!(rest, "");
        begun.elapsed()
    };
    let (head, idle) = (quick().head_time, quick().idle_time);

    let silent = closed_after(server.connect().await).await;
    assert!(silent + Duration::from_millis(50) >= head && silent < head * 3, "{silent:?}");

    let mut slow = server.connect().await;
    slow.write_all(b"GET /live HTTP/1.1\r\n").await.unwrap();
    let dripping = tokio::spawn(async move {
        let (mut reader, mut writer) = slow.into_split();
        let begun = Instant::now();
        let drip = async {
            while writer.write_all(b"x: y\r\n").await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let mut all = Vec::new();
        tokio::select! { () = drip => {}, _ = reader.read_to_end(&mut all) => {} }
        begun.elapsed()
    });
    let slow = dripping.await.unwrap();
    assert!(slow < head * 4, "a head that never ends was read for {slow:?}");

    let mut kept = server.connect().await;
    kept.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_answer(&mut kept).await;
    // Longer than a head may take, shorter than a connection may be idle.
    sleep(head + Duration::from_millis(100)).await;
    kept.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_answer(&mut kept).await;
    let idled = closed_after(kept).await;
    assert!(idled + Duration::from_millis(50) >= idle && idled < idle * 3, "{idled:?}");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_dropped() {
    let server = run(quick()).await;
    let mut stream = server.connect().await;
    stream.write_all(request("GET", "/v1/tenants/logs/acme", ADMIN, "").as_bytes()).await.unwrap();
    sleep(Duration::from_millis(1500)).await;
    // What the kernel holds can still be read; then the connection is over although the log is endless.
    let rest = read_to_end(&mut stream).await;
    assert!(rest.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed() {
    let server = run(quick()).await;
    let mut stream = server.connect().await;
    stream.write_all(request("GET", "/v1/tenants/status/acme", ADMIN, "").as_bytes()).await.unwrap();
    server.begun.notified().await;
    assert_eq!(server.abandoned.load(Ordering::SeqCst), 0);
    drop(stream);
    timeout(Duration::from_secs(20), async {
        while server.abandoned.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the request ends with its client");
}

const LIVE: &[u8] = b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn an_idle_connection_makes_room_for_a_new_one() {
    let server = run(Limits { connections: 2, ..quick() }).await;
    let mut first = server.connect().await;
    first.write_all(LIVE).await.unwrap();
    read_answer(&mut first).await;
    let mut second = server.connect().await;
    second.write_all(LIVE).await.unwrap();
    read_answer(&mut second).await;
    let mut third = server.connect().await;
    third.write_all(LIVE).await.unwrap();
    assert_eq!(status(&read_answer(&mut third).await.0), "200");
    assert_eq!(read_to_end(&mut first).await, "", "it had been idle for longest");
    second.write_all(LIVE).await.unwrap();
    assert_eq!(status(&read_answer(&mut second).await.0), "200");
}

#[tokio::test]
async fn connections_that_are_being_served_keep_their_place_and_others_are_told_to_wait() {
    let server = run(Limits { connections: 1, ..quick() }).await;
    let mut first = server.connect().await;
    first.write_all(request("GET", "/v1/tenants/images/acme", ADMIN, "").as_bytes()).await.unwrap();
    server.begun.notified().await;
    let mut second = server.connect().await;
    second.write_all(LIVE).await.unwrap();
    let (head, body) = read_answer(&mut second).await;
    assert_eq!((status(&head), &body["code"]), ("429", &json!("RATE_LIMITED")));
    assert!(head.contains("retry-after: ") && head.contains("connection: close"), "{head}");
    assert_eq!(read_to_end(&mut second).await, "");
    server.go_on.notify_one();
    assert_eq!(status(&read_answer(&mut first).await.0), "200");
    assert!(server.is_well().await);
}

/// Slow clients of one peer, ten times as many as there are places, keep nobody waiting.
#[tokio::test]
async fn slow_clients_cost_nothing() {
    let limits = Limits { connections: 60, head_time: Duration::from_secs(30), ..quick() };
    let server = run(limits).await;
    let (mut slow, mut waits) = (Vec::new(), Vec::new());
    for n in 0..600 {
        let mut stream = server.connect().await;
        // Some say nothing, some stop in the middle of a head.
        if n % 3 > 0 {
            let part = request("GET", "/live", ADMIN, "")[..n % 50].to_owned();
            stream.write_all(part.as_bytes()).await.unwrap();
        }
        slow.push(stream);
        if n % 20 == 0 {
            let begun = Instant::now();
            assert!(server.is_well().await, "{n}");
            waits.push(begun.elapsed());
        }
    }
    // Most of the time; a busy machine may halt once.
    waits.sort();
    assert!(waits[waits.len() / 2] < Duration::from_millis(100), "{waits:?}");
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_gets_its_answer() {
    let server = run(Limits { half_close_time: Duration::from_secs(2), ..quick() }).await;
    let body = "{ }";
    let length = format!("content-length: {}\r\n", body.len());
    for (sent, answers) in [
        (request("GET", "/v1/system/info", ADMIN, ""), &["200"][..]),
        (request("GET", "/v1/system/info", ADMIN, "").repeat(2), &["200", "200"]),
        (request("POST", "/v1/tenants/provision", ADMIN, &length) + body, &["201"]),
        (request("POST", "/v1/tenants/provision", ADMIN, &length) + "{", &["400"]),
        ("GET /live HTT".to_owned(), &["400"]),
        (request("GET", "/live", ADMIN, "") + "GET ", &["200", "400"]),
        (request("GET", "/live", ADMIN, "") + "\r\n", &["200"]),
    ] {
        let mut stream = server.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let all = read_to_end(&mut stream).await;
        let seen: Vec<&str> = all.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(seen, answers, "{sent:?}: {all}");
    }
}

#[tokio::test]
async fn failed_logins_are_limited_and_good_ones_are_not() {
    let server = run(quick()).await;
    let wrong = request("GET", "/v1/system/info", &"x".repeat(32), "");
    let mut told = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..230 {
        let answer = server.exchange(&wrong).await;
        *told.entry(status(&answer).to_owned()).or_default() += 1;
    }
    // The window slides: a slow machine may have a failure or two more.
    assert!((200..=202).contains(&told["401"]) && told.len() == 2 && told["429"] >= 28, "{told:?}");
    let refused = server.exchange(&wrong).await;
    assert!(refused.contains("RATE_LIMITED") && !refused.contains("www-authenticate"), "{refused}");
    let wait = refused.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!((1..=61).contains(&wait.parse::<u32>().unwrap()), "{refused}");
    let mut waits = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let good = server.exchange(request("DELETE", "/live", ADMIN, "connection: close\r\n")).await;
        assert_eq!(status(&good), "405");
        let read = server.exchange(request("POST", "/v1/tenants/provision", READ, "connection: close\r\n")).await;
        assert_eq!(status(&read), "403");
        assert!(server.is_well().await);
        waits.push(begun.elapsed());
    }
    assert!(waits.iter().min() < Some(&Duration::from_millis(500)), "{waits:?}");
}

#[tokio::test]
async fn a_stop_closes_idle_connections_and_answers_running_requests() {
    let server = run(Limits { stop_time: Duration::from_secs(60), ..quick() }).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_answer(&mut idle).await;
    let mut fresh = server.connect().await;
    let mut running = server.connect().await;
    running.write_all(request("GET", "/v1/tenants/images/acme", ADMIN, "").as_bytes()).await.unwrap();
    server.begun.notified().await;
    server.stop.cancel();
    assert_eq!(read_to_end(&mut idle).await, "", "it does not wait for the other one");
    server.go_on.notify_one();
    assert_eq!(status(&read_to_end(&mut running).await), "200");
    assert_eq!(read_to_end(&mut fresh).await, "");
    timeout(Duration::from_secs(5), server.task).await.expect("the server ends").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_at_a_stop() {
    let server = run(quick()).await;
    let mut stream = server.connect().await;
    stream.write_all(request("GET", "/v1/tenants/status/acme", ADMIN, "").as_bytes()).await.unwrap();
    server.begun.notified().await;
    let begun = Instant::now();
    server.stop.cancel();
    timeout(Duration::from_secs(5), server.task).await.expect("the server ends").unwrap();
    assert!(begun.elapsed() >= quick().stop_time);
    assert_eq!(server.abandoned.load(Ordering::SeqCst), 1);
}

/// A place for log lines.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_access_log_has_the_template_and_nothing_a_client_wrote() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // With one subscriber in the process, whatever thread first comes by an event decides with its own whether anybody ever
    // hears of it, and another test's thread has none. With two, all are asked.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let guard = tracing::subscriber::set_default(subscriber);
    let server = run(quick()).await;
    for (method, path) in [
        ("GET", "/v1/system/info?canary=canary"),
        ("GET", "/v1/system/stats?canary"),
        ("GET", "/canary"),
        ("CANARY", "/live"),
        ("POST", "/v1/tenants/stop/canary-tenant"),
    ] {
        server
            .exchange(request(method, path, ADMIN, "x-canary: canary\r\nconnection: close\r\nx-request-id: r-7\r\n"))
            .await;
    }
    drop(guard);
    let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    let entries: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|entry: &Value| entry["target"] == "q8_agent::access")
        .collect();
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (entry["method"].clone(), entry["route"].clone(), entry["status"].clone()))
        .collect();
    assert_eq!(
        seen,
        [
            (json!("GET"), json!("/v1/system/info"), json!(200)),
            (json!("GET"), json!("/v1/system/stats"), json!(200)),
            (json!("GET"), json!("-"), json!(404)),
            (json!("other"), json!("-"), json!(405)),
            (json!("POST"), json!("/v1/tenants/stop/{subdomain}"), json!(200)),
        ]
    );
    assert_eq!(entries[2]["code"], json!("NOT_FOUND"));
    for entry in &entries {
        let line = entry.to_string();
        assert!(!line.to_lowercase().contains("canary") && !line.contains(ADMIN), "{line}");
        assert_eq!(
            (&entry["request_id"], &entry["peer"], &entry["complete"]),
            (&json!("r-7"), &json!("127.0.0.1"), &json!(true))
        );
        assert!(entry["bytes"].as_u64() > Some(0) && entry["duration_ms"].is_u64());
    }
}

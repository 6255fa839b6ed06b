//! Status and system stats over HTTP, beside a bare hyper server with the same token check, the same access line and an answer
//! of the same size: 64 connections that ask again as soon as they are answered, in turns in one run.
//!
//! The agent has 200 tenants on the in-memory backend. Budgets: status 0.85 of the bare server's rate and 1.25 of its p99,
//! system stats 0.5 of its rate.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints its figures and starts what it compares with"
)]

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};

use common::support::agent::{Agent, Options};

const TENANTS: usize = 200;
const CONNECTIONS: usize = 64;
/// How long each is asked in each round.
const TURN: Duration = Duration::from_millis(1500);
/// The bare server's token.
const TOKEN: &str = "0f8b1c7a9d2e4f60718293a4b5c6d7e8";

/// What one turn has shown.
struct Turn {
    rate: f64,
    p99: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, answer] = arguments.as_slice()
        && word == "--bare"
    {
        return bare(PathBuf::from(answer));
    }
    common::run(compare());
}

async fn compare() {
    let agent = Options::memory().env("Q8_AGENT_LOG", "info").env("Q8_AGENT_MAX_TENANTS", "1000").start().await;
    for number in 0..TENANTS {
        let body = json!({
            "id": format!("id-{number}"), "subdomain": format!("t{number}"),
            "compose_content": "services:\n  web: {image: web, mem_limit: 16m}\n  db: {image: db, mem_limit: 16m}\n",
        });
        agent.post("/v1/tenants/provision", &body).await.expect(201);
    }
    let answer = agent.get("/v1/tenants/status/t7").await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("answer");
    std::fs::write(&file, &answer.bytes).expect("it can be written");
    let (mut child, address) = start_bare(&file, &directory.path().join("log"));

    let [mut floor, mut status, mut numbers] = [const { Vec::new() }; 3];
    for _ in 0..common::rounds() {
        floor.push(ask(address, "/v1/tenants/status/t7", TOKEN).await);
        status.push(of_agent(&agent, "/v1/tenants/status/t7").await);
        numbers.push(of_agent(&agent, "/v1/system/stats").await);
    }
    child.kill().expect("it runs");
    child.wait().expect("it was killed");

    let (rate, p99) = (median(&floor, |turn| turn.rate), median(&floor, |turn| turn.p99.as_secs_f64() * 1e3));
    println!(
        "{CONNECTIONS} connections, {TENANTS} tenants, {} bytes an answer; medians of interleaved turns",
        answer.bytes.len()
    );
    println!("{:>20} {:>10} {:>8} {:>10} {:>8}", "", "1/s", "ratio", "p99 ms", "ratio");
    for (what, turns) in [("bare hyper", &floor), ("status", &status), ("system stats", &numbers)] {
        let (own_rate, own_p99) = (median(turns, |turn| turn.rate), median(turns, |turn| turn.p99.as_secs_f64() * 1e3));
        println!("{what:>20} {own_rate:>10.0} {:>8.2} {own_p99:>10.2} {:>8.2}", own_rate / rate, own_p99 / p99);
    }
}

fn median(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
    let mut all: Vec<f64> = turns.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

async fn of_agent(agent: &Agent<'_>, path: &str) -> Turn {
    ask(agent.address(), path, agent.token()).await
}

/// Asks with all connections for one turn.
async fn ask(address: SocketAddr, path: &str, token: &str) -> Turn {
    let end = Instant::now() + TURN;
    let begun = Instant::now();
    let askers = (0..CONNECTIONS).map(|_| tokio::spawn(ask_again(address, path.to_owned(), token.to_owned(), end)));
    let mut times: Vec<Duration> = Vec::new();
    for asker in futures::future::join_all(askers).await {
        times.extend(asker.expect("every request is answered"));
    }
    let took = begun.elapsed().as_secs_f64();
    times.sort();
    #[allow(clippy::cast_precision_loss, reason = "some hundred thousands")]
    let rate = times.len() as f64 / took;
    Turn { rate, p99: times[times.len() * 99 / 100] }
}

async fn ask_again(address: SocketAddr, path: String, token: String, end: Instant) -> Vec<Duration> {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a TCP option");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
    tokio::spawn(connection);
    let mut times = Vec::new();
    while Instant::now() < end {
        let request = Request::get(&path)
            .header(HOST, "localhost")
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let begun = Instant::now();
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body().collect().await.expect("a whole answer");
        times.push(begun.elapsed());
    }
    times
}

/// This program again, as the bare server.
fn start_bare(answer: &std::path::Path, log: &std::path::Path) -> (Child, SocketAddr) {
    use std::io::BufRead as _;
    let log = std::fs::File::create(log).expect("a log");
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .arg("--bare")
        .arg(answer)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("this program starts");
    let mut line = String::new();
    let out = child.stdout.take().expect("it is piped");
    std::io::BufReader::new(out).read_line(&mut line).expect("its address");
    (child, line.trim().parse().expect("an address"))
}

fn bare(answer: PathBuf) {
    q8_agent::telemetry::init(&q8_agent::telemetry::LogFilter::default(), q8_agent::telemetry::LogFormat::Json)
        .expect("the log");
    let answer = Bytes::from(std::fs::read(answer).expect("the answer"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        println!("{}", listener.local_addr().expect("an address"));
        let token: [u8; 32] = Sha256::digest(TOKEN).into();
        loop {
            let (stream, peer) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a TCP option");
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request| {
                let answer = answer.clone();
                async move { Ok::<_, Infallible>(respond(&request, peer, token, answer)) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
}

fn respond(request: &Request<Incoming>, peer: SocketAddr, token: [u8; 32], answer: Bytes) -> Response<Full<Bytes>> {
    let begun = Instant::now();
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let hash: [u8; 32] = Sha256::digest(given.unwrap_or_default()).into();
    let (status, body) = if bool::from(hash.ct_eq(&token)) {
        (StatusCode::OK, answer)
    } else {
        (StatusCode::UNAUTHORIZED, Bytes::new())
    };
    let request_id = uuid::Uuid::now_v7().to_string();
    tracing::info!(
        target: "q8_agent::access",
        method = request.method().as_str(),
        route = "/v1/tenants/status/{subdomain}",
        status = status.as_u16(),
        duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        request_id,
        peer = %peer.ip(),
        bytes = body.len(),
        complete = true,
        "request"
    );
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    headers.insert("x-request-id", hyper::header::HeaderValue::from_str(&request_id).expect("a UUID"));
    response
}

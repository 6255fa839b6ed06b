//! Byte streams, most of them hostile, each with the exact answers it gets. The endpoints note who reaches them: nobody
//! without a good token, and no request that hides in another one.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::api::requests;

/// Counts calls. Provisioning reads and parses its body as the real one does.
struct Counting {
    limits: Limits,
    bodies: BodyBudget,
    calls: Arc<AtomicUsize>,
}

impl Endpoints for Counting {
    async fn call(&self, route: Route, call: Call) -> Result<Answer, ApiError> {
        if !matches!(route, Route::Health | Route::Live | Route::Ready) {
            self.calls.fetch_add(1, Ordering::SeqCst);
        }
        if route == Route::Provision {
            let body = self.bodies.read(&call.headers, call.body, &self.limits).await?;
            requests::provision(&body.bytes)?;
            return Ok(respond::json(StatusCode::CREATED, &json!({})));
        }
        Ok(respond::json(StatusCode::OK, &json!({ "route": route.template() })))
    }
}

struct Server {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    _stop: tokio_util::sync::DropGuard,
}

async fn serve() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { body_time: Duration::from_millis(300), head_time: Duration::from_millis(300), ..quick() };
    let calls = Arc::new(AtomicUsize::new(0));
    let endpoints = Counting { bodies: BodyBudget::new(&limits), limits: limits.clone(), calls: Arc::clone(&calls) };
    let front = Arc::new(Front::new(LiveTokens::new(tokens(ADMIN)), endpoints));
    let stop = CancellationToken::new();
    tokio::spawn(server::run(listener, front, Arc::new(limits), stop.clone()));
    Server { address, calls, _stop: stop.drop_guard() }
}

/// What a client sends, and what comes of it.
struct Case {
    sent: Vec<u8>,
    /// The statuses of all answers, in order.
    answers: Vec<u16>,
    /// How many requests reach an endpoint that needs a token.
    calls: usize,
    /// The connection can be used after it; otherwise it is closed.
    open: bool,
}

/// `{A}` and `{R}` in the text are the headers with the admin and the read token, `{S}` a whole request that must not be
/// taken for one where it stands in a body.
fn bytes(text: &str) -> Vec<u8> {
    let (admin, read) = (format!("authorization: Bearer {ADMIN}\r\n"), format!("authorization: Bearer {READ}\r\n"));
    text.replace("{S}", "GET /v1/system/info HTTP/1.1\r\nhost: a\r\n{A}\r\n")
        .replace("{A}", &admin)
        .replace("{R}", &read)
        .replace("{T}", ADMIN)
        .into_bytes()
}

/// Refused for its form or for its token: one answer, the end, and nobody has seen it.
fn refused(status: u16, text: &str) -> Case {
    Case { sent: bytes(text), answers: vec![status], calls: 0, open: false }
}

/// Reaches an endpoint and is refused there, because of how its body is framed.
fn broken_off(status: u16, text: &str) -> Case {
    Case { calls: 1, ..refused(status, text) }
}

/// Answered, and the connection goes on.
fn answered(answers: &[u16], calls: usize, text: &str) -> Case {
    Case { sent: bytes(text), answers: answers.to_vec(), calls, open: true }
}

/// The same for a client that wants the connection closed.
fn last(answers: &[u16], calls: usize, text: &str) -> Case {
    Case { open: false, ..answered(answers, calls, text) }
}

const GOOD: &str = r#"{"id":"t-1","subdomain":"acme","compose_content":"services: {}"}"#;

/// A provision with these headers and body, and the token.
fn post(headers: &str, body: &str) -> String {
    format!("POST /v1/tenants/provision HTTP/1.1\r\nhost: a\r\n{{A}}{headers}\r\n{body}")
}

/// A provision with this JSON.
fn json(body: &[u8]) -> Vec<u8> {
    let mut sent = bytes(&post(&format!("content-length: {}\r\n", body.len()), ""));
    sent.extend_from_slice(body);
    sent
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n")
}

/// One answer after the other, 100 Continue too. None: the connection is closed.
async fn next(stream: &mut TcpStream) -> Option<u16> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let read = timeout(Duration::from_secs(5), stream.read(&mut byte)).await.expect("an answer or an end in time");
        // A reset after the answer counts as an end.
        if !matches!(read, Ok(1)) {
            assert!(head.is_empty(), "half a head: {}", head.escape_ascii());
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("an answer's head is text");
    let status = status(&head).parse().unwrap_or_else(|_| panic!("no status: {head}"));
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    stream.read_exact(&mut body).await.expect("the whole body");
    if status >= 400 {
        let body: Value = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {head}"));
        assert!(body["code"].is_string() && body["error"].is_string() && body["request_id"].is_string(), "{body}");
        assert!(!body.to_string().contains(ADMIN) && !body.to_string().contains(READ), "{body}");
    }
    Some(status)
}

impl Server {
    async fn check(&self, case: &Case) {
        let shown = case.sent[..case.sent.len().min(300)].escape_ascii().to_string();
        self.calls.store(0, Ordering::SeqCst);
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A refused client may find the connection closed before it has sent everything.
        let _ = stream.write_all(&case.sent).await;
        let mut answers = Vec::new();
        while answers.len() < case.answers.len() {
            match next(&mut stream).await {
                Some(status) => answers.push(status),
                None => break,
            }
        }
        assert_eq!(answers, case.answers, "{shown}");
        if case.open {
            // Whatever was left over of the message would stand before this.
            let probe = "GET /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            stream.write_all(probe.as_bytes()).await.unwrap();
            assert_eq!(next(&mut stream).await, Some(200), "{shown}: the connection goes on");
        }
        assert_eq!(next(&mut stream).await, None, "{shown}: one answer for each request");
        assert_eq!(self.calls.load(Ordering::SeqCst), case.calls, "{shown}: who reaches an endpoint");
    }

    async fn check_all(&self, cases: Vec<Case>, least: usize) {
        assert!(cases.len() >= least, "{} cases", cases.len());
        for case in &cases {
            self.check(case).await;
        }
    }
}

/// Messages that two readers could split in two ways.
#[tokio::test]
async fn smuggled_requests() {
    let chunked = |body: &str| post("transfer-encoding: chunked\r\n", body);
    let mut cases = vec![
        refused(400, &post("content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n{S}")),
        refused(400, &post("transfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n{S}")),
        refused(400, &post("content-length: 0\r\ncontent-length: 300\r\n", "{S}")),
        refused(400, &post("content-length: 300\r\ncontent-length: 0\r\n", "{S}")),
        refused(400, &post("content-length: 2\r\nContent-Length: 2\r\n", "{}")),
        refused(400, &post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n{S}")),
        refused(400, &post("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n{S}")),
        refused(400, &post("transfer-encoding : chunked\r\n", "0\r\n\r\n{S}")),
        refused(400, &post("transfer-encoding\t: chunked\r\n", "0\r\n\r\n{S}")),
        refused(400, &post("transfer-encoding:\r\n chunked\r\n", "0\r\n\r\n{S}")),
        refused(400, &post("transfer-encoding\0: chunked\r\n", "0\r\n\r\n{S}")),
        refused(400, &post("transfer-encoding: \u{b}chunked\r\n", "0\r\n\r\n{S}")),
        refused(400, &post("content-length: 0\r\n content-length: 300\r\n", "{S}")),
        refused(
            400,
            "POST /v1/tenants/provision HTTP/1.0\r\nhost: a\r\n{A}transfer-encoding: chunked\r\n\r\n0\r\n\r\n{S}",
        ),
        refused(400, "POST /v1/tenants/provision HTTP/1.1\nhost: a\n{A}\n"),
        refused(400, "POST /v1/tenants/provision HTTP/1.1\r\nhost: a\n{A}\r\n"),
        refused(400, "POST /v1/tenants/provision HTTP/1.1\r\nhost: a\r\n{A}\n{S}"),
        refused(400, &post("x: y\rcontent-length: 300\r\n", "{S}")),
        refused(400, &post("x: y\ncontent-length: 300\r\n", "{S}")),
        refused(400, &post("x: y\r\rcontent-length: 300\r\n", "{S}")),
        // In the body of a request that is let in, so the endpoint finds out.
        broken_off(400, &chunked("5\r\nabcdeX\r\n0\r\n\r\n{S}")),
        broken_off(400, &chunked("5\r\nabcde0\r\n\r\n{S}")),
        broken_off(400, &chunked("5\nabcde\n0\n\n{S}")),
        broken_off(400, &chunked("5\r\nabcde\n0\r\n\r\n{S}")),
        broken_off(400, &chunked("5 \r\nabcde\r\n0\r\n\r\n{S}")),
        broken_off(400, &chunked(" 5\r\nabcde\r\n0\r\n\r\n{S}")),
        broken_off(400, &chunked("0x5\r\nabcde\r\n0\r\n\r\n{S}")),
        broken_off(400, &chunked("-5\r\nabcde\r\n0\r\n\r\n{S}")),
        broken_off(400, &chunked("+5\r\nabcde\r\n0\r\n\r\n{S}")),
        broken_off(400, &chunked("\r\n{S}")),
        broken_off(400, &chunked(";x\r\n{S}")),
        broken_off(400, &chunked("10000000000000005\r\nabcde\r\n0\r\n\r\n{S}")),
        broken_off(400, &chunked("ffffffffffffffff\r\nabcde\r\n0\r\n\r\n{S}")),
        broken_off(400, &chunked("5;x=\"\n\"\r\nabcde\r\n0\r\n\r\n{S}")),
        broken_off(400, &chunked("5;x\ry\r\nabcde\r\n0\r\n\r\n{S}")),
        broken_off(400, &chunked("5;\0\r\nabcde\r\n0\r\n\r\n{S}")),
        broken_off(400, &chunked(&format!("5;{}\r\nabcde\r\n0\r\n\r\n{{S}}", "x".repeat(5000)))),
        broken_off(400, &chunked(&format!("2\r\n{{}}\r\n0\r\n{}\r\n{{S}}", "x: y\r\n".repeat(3000)))),
        broken_off(400, &chunked("2\r\n{}\r\n0\r\n x: y\r\n\r\n{S}")),
        broken_off(400, &chunked("2\r\n{}\r\n0\r\nx\r\n\r\n{S}")),
        broken_off(400, &chunked("2\r\n{}\r\n0\r\n\n{S}")),
        // A body that ends too late, and one that never does.
        broken_off(400, &post("content-length: 3\r\n", "{}")),
        broken_off(400, &chunked("2\r\n{}\r\n")),
        // What stands in a body stays a body.
        answered(&[400], 1, &{
            let body = String::from_utf8(bytes("{S}")).unwrap();
            post(&format!("content-length: {}\r\n", body.len()), &body)
        }),
        // Trailers are no headers: the first cannot log in, the second is not longer than it says.
        refused(
            401,
            "POST /v1/tenants/provision HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{A}\r\n",
        ),
        answered(&[201], 1, &chunked(&format!("{:x}\r\n{GOOD}\r\n0\r\ncontent-length: 300\r\n\r\n", GOOD.len()))),
    ];
    for length in
        ["", "+2", "-2", "2,2", "2, 2", "2 2", "0x2", "2;", "2.0", "2e0", "\u{ff12}", "two", "99999999999999999999999"]
    {
        cases.push(refused(400, &post(&format!("content-length: {length}\r\n"), "{}{S}")));
    }
    for coding in [
        "",
        "identity",
        "xchunked",
        "chunkedx",
        "chunked,",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "chun ked",
        "chunked\u{e4}",
    ] {
        cases.push(refused(400, &post(&format!("transfer-encoding: {coding}\r\n"), "0\r\n\r\n{S}")));
    }
    serve().await.check_all(cases, 65).await;
}

/// Nobody gets in without the one Authorization header with a good token.
#[tokio::test]
async fn logins() {
    let mut cases = Vec::new();
    for headers in [
        "",
        "authorization:\r\n",
        "authorization: \r\n",
        "authorization: {T}\r\n",
        "authorization: Bearer\r\n",
        "authorization: Bearer \r\n",
        "authorization: Bearer{T}\r\n",
        "authorization: Bearer\t{T}\r\n",
        "authorization: Bearer \t{T}\r\n",
        "authorization: Bearer {T} {T}\r\n",
        "authorization: Bearer {T}, Bearer {T}\r\n",
        "authorization: Bearer {T},\r\n",
        "authorization: Bearer {T}x\r\n",
        &format!("authorization: Bearer {}\r\n", ADMIN.to_uppercase()),
        &format!("authorization: Bearer {}\r\n", &ADMIN[1..]),
        &format!("authorization: Bearer {{T}}{}\r\n", "x".repeat(20_000)),
        "authorization: Bearer x{T}\r\n",
        "authorization: Bearer \"{T}\"\r\n",
        "authorization: Bearer token={T}\r\n",
        "authorization: Bearer {T}\u{e4}\r\n",
        "authorization: Bearer %30f8b1c7a9d2e4f60718293a4b5c6d7e8\r\n",
        "authorization: Basic {T}\r\n",
        "authorization: Basic OnsgVH0=\r\n",
        "authorization: Bearer, {T}\r\n",
        "authorization: Bearer Bearer {T}\r\n",
        "authorization: Digest token=\"{T}\"\r\n",
        "{A}{A}",
        "{A}{R}",
        "authorization: Bearer wrong\r\n{A}",
        "{A}authorization:\r\n",
        "proxy-authorization: Bearer {T}\r\n",
        "x-authorization: Bearer {T}\r\n",
        "cookie: authorization=Bearer {T}; token={T}\r\n",
        "x-forwarded-for: 127.0.0.1\r\nx-original-url: /health\r\n",
        "x-http-method-override: GET\r\nx-rewrite-url: /live\r\n",
    ] {
        for path in ["/v1/system/info", "/v1/nothing"] {
            cases.push(refused(401, &get(path, headers)));
        }
    }
    for headers in [
        "authorization:\r\n Bearer {T}\r\n",
        "authorization : Bearer {T}\r\n",
        " authorization: Bearer {T}\r\n",
        "authorization: Bearer {T}\0\r\n",
        "authorization: Bearer {T}\u{7f}\r\n",
        "authorization: Bearer {T}\u{1b}\r\n",
        "authorization Bearer {T}\r\n",
        "x\0: y\r\n{A}",
        "x(y): z\r\n{A}",
        "x y: z\r\n{A}",
        "\u{e4}: z\r\n{A}",
        ": z\r\n{A}",
        "nonsense\r\n{A}",
    ] {
        cases.push(refused(400, &get("/v1/system/info", headers)));
    }
    for (method, path) in [
        ("GET", "/v1/system/info?token={T}"),
        ("GET", "/v1/system/info?authorization=Bearer%20{T}"),
        ("GET", "/v1/system/info?/health"),
        ("GET", "http://a/v1/system/info"),
        ("GET", "http://{T}@a/v1/system/info"),
        ("GET", "/health/../v1/system/info"),
        ("GET", "/health/..;/v1/system/info"),
        ("GET", "/health/"),
        ("GET", "//health"),
        ("GET", "/./health"),
        ("GET", "/Health"),
        ("GET", "/health;x"),
        ("GET", "/health%20"),
        ("GET", "/%68ealth"),
        ("GET", "/health%2f"),
        ("GET", "/health%00"),
        ("GET", "/health%3f"),
        ("GET", "/metrics"),
        ("GET", "*"),
        ("OPTIONS", "*"),
        ("OPTIONS", "/health"),
        ("CONNECT", "127.0.0.1:22"),
        ("TRACE", "/live"),
        ("POST", "/live"),
        ("get", "/live"),
        ("BREW", "/live"),
    ] {
        cases.push(refused(401, &format!("{method} {path} HTTP/1.1\r\nhost: a\r\n\r\n")));
    }
    // Without a token no byte of a body is waited for.
    cases.push(refused(401, "POST /v1/tenants/provision HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n"));
    cases.push(refused(401, "POST /v1/tenants/provision HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"));
    cases.push(refused(403, &post("content-length: 0\r\n", "").replace("{A}", "{R}")));
    cases.push(refused(403, "DELETE /v1/tenants HTTP/1.1\r\nhost: a\r\n{R}\r\n"));
    // Two servers, because one tells a peer with 200 failures to wait.
    let later = cases.split_off(cases.len() / 2);
    serve().await.check_all(cases, 50).await;
    serve().await.check_all(later, 50).await;
}

#[tokio::test]
async fn targets_methods_and_versions() {
    let long = |n| format!("/{}", "a".repeat(n));
    let mut cases = Vec::new();
    for path in [
        "//v1/tenants",
        "/v1//tenants",
        "/v1/tenants/",
        "/v1/../v1/tenants",
        "/v1/./tenants",
        "/v1/%2e%2e/v1/tenants",
        "/v1%2Ftenants",
        "/v1/tenants%00",
        "/v1/tenants%",
        "/v1/tenants;x=1",
        "/V1/tenants",
        "/v1/Tenants",
        "/v1/%74enants",
        "/v1/tenants.json",
        "/v1\\tenants",
        "*",
        "http://a",
        "http://a//v1/tenants",
        &long(8000),
    ] {
        cases.push(answered(&[404], 0, &get(path, "{A}")));
    }
    for tenant in ["..", ".", "", "ACME", "a%63me", "acme%2f..", "acme%00", "a_b", "acme%0d%0ax:y", &"a".repeat(64)] {
        cases.push(answered(&[400], 0, &get(&format!("/v1/tenants/status/{tenant}"), "{A}")));
    }
    for path in [
        "",
        "/live#",
        "/live#x",
        "/v1/tenants#/live",
        "/live\u{e4}",
        "/live\tx",
        "/live x",
        "/live\0",
        "/live\u{7f}",
        "/live<x>",
        "live",
        "a:80",
        "ftp://a/live",
        "http://",
        "http:///live",
        "://a/live",
        "http://a b/live",
        "\\live",
    ] {
        cases.push(refused(400, &get(path, "")));
    }
    cases.push(refused(414, &get(&long(10_000), "{A}")));
    cases.push(refused(414, &get(&long(70_000), "{A}")));
    cases.push(refused(414, &"A".repeat(70_000)));
    for (status, method) in
        [(405, "TRACE"), (405, "OPTIONS"), (405, "PUT"), (405, "get"), (405, "BREW"), (405, "PRI"), (405, "M-SEARCH")]
    {
        cases.push(answered(&[status], 0, &format!("{method} /v1/tenants HTTP/1.1\r\nhost: a\r\n{{A}}\r\n")));
    }
    cases.push(answered(&[404], 0, "CONNECT a:80 HTTP/1.1\r\nhost: a\r\n{A}\r\n"));
    for first in [
        "GET /live",
        "GET /live HTTP/0.9",
        "GET /live HTTP/1.2",
        "GET /live HTTP/2.0",
        "GET /live HTTP/3",
        "GET /live HTTP/1.1 ",
        "GET /live HTTP/1.",
        "GET /live HTTP/11",
        "GET /live http/1.1",
        "GET /live HTTP/01.1",
        "GET /live HTTPS/1.1",
        "GET /live  HTTP/1.1",
        "GET  /live HTTP/1.1",
        "GET\t/live\tHTTP/1.1",
        " GET /live HTTP/1.1",
        "G\0T /live HTTP/1.1",
        "G(T /live HTTP/1.1",
        "G\u{e4}T /live HTTP/1.1",
        "GET",
        "\r\n",
        "PRI * HTTP/2.0",
        "SSH-2.0-OpenSSH_9.9",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}",
        "\0\0\0\0",
    ] {
        cases.push(refused(400, &format!("{first}\r\nhost: a\r\n\r\n")));
    }
    // A handshake of TLS, and one of HTTP/2, are known for what they are before they are complete.
    cases.push(refused(400, "\u{16}\u{3}\u{1}"));
    cases.push(refused(400, "PRI * HTTP/2.0\r\n"));
    for headers in [
        "",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nHost: b\r\n",
        "host: a/b\r\n",
        "host: a b\r\n",
        "host: u@a\r\n",
        "host: a?\r\n",
    ] {
        cases.push(refused(400, &format!("GET /live HTTP/1.1\r\n{headers}\r\n")));
    }
    cases.push(refused(400, "GET /live HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n"));
    cases.push(refused(431, &get("/live", &"x: y\r\n".repeat(64))));
    cases.push(refused(431, &get("/live", &format!("x: {}\r\n", "y".repeat(64 << 10)))));
    cases.push(refused(431, &get("/live", &format!("{}: y\r\n", "x".repeat(64 << 10)))));
    cases.push(refused(417, &get("/live", "expect: 200-ok\r\n")));
    cases.push(refused(417, &post("expect: 100-continue, x\r\ncontent-length: 2\r\n", "{}")));
    serve().await.check_all(cases, 90).await;
}

#[tokio::test]
async fn bodies() {
    let max = quick().max_body;
    let padded = |size: usize| format!("{GOOD}{}", " ".repeat(size - GOOD.len()));
    let in_chunks = |size: usize| {
        let text = padded(size);
        let chunks: Vec<String> = text
            .as_bytes()
            .chunks(5000)
            .map(|c| format!("{:x}\r\n{}\r\n", c.len(), String::from_utf8_lossy(c)))
            .collect();
        post("transfer-encoding: chunked\r\n", &(chunks.concat() + "0\r\n\r\n"))
    };
    let good = |headers: &str| post(&format!("content-length: {}\r\n{headers}", GOOD.len()), GOOD);
    let mut cases = vec![
        answered(&[201], 1, &post(&format!("content-length: {max}\r\n"), &padded(max))),
        answered(&[201], 1, &in_chunks(max)),
        broken_off(413, &post(&format!("content-length: {}\r\n", max + 1), &padded(max + 1))),
        // Before a byte of it has been sent.
        broken_off(413, &post(&format!("content-length: {}\r\n", max + 1), "")),
        broken_off(413, &post(&format!("content-length: {}\r\nexpect: 100-continue\r\n", max + 1), "")),
        broken_off(413, &post("content-length: 9223372036854775807\r\n", "")),
        broken_off(413, &in_chunks(max + 1)),
        broken_off(400, &good("content-type: text/plain\r\n")),
        broken_off(400, &good("content-type: application/x-www-form-urlencoded\r\n")),
        broken_off(400, &good("content-type: multipart/form-data; boundary=x\r\n")),
        broken_off(400, &good("content-type: application/json; charset=utf-16\r\n")),
        broken_off(400, &good("content-type: application/json, text/plain\r\n")),
        broken_off(400, &good("content-type: application/json\r\ncontent-type: application/json\r\n")),
        broken_off(400, &good("content-type:\r\n")),
        broken_off(400, &good("content-encoding: gzip\r\n")),
    ];
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let with = |extra: &str| GOOD.replacen('{', &format!("{{{extra},"), 1).into_bytes();
    let documents: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\"x\"".to_vec(),
        b"{".to_vec(),
        b"{}".to_vec(),
        format!("{GOOD}{GOOD}").into_bytes(),
        format!("{GOOD} x").into_bytes(),
        format!("\u{feff}{GOOD}").into_bytes(),
        format!("// x\n{GOOD}").into_bytes(),
        GOOD.replace('"', "'").into_bytes(),
        GOOD.replace('}', ",}").into_bytes(),
        GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        GOOD.replace("t-1", "t\0").into_bytes(),
        GOOD.replace("t-1", "t\n").into_bytes(),
        [GOOD.as_bytes(), b"\xff"].concat(),
        b"{\"id\":\"\xc0\xaf\"}".to_vec(),
        b"{\"id\":\"\xed\xa0\x80\"}".to_vec(),
        GOOD.replace("t-1", "\\ud800").into_bytes(),
        GOOD.replace("t-1", "\\u00").into_bytes(),
        GOOD.replace("\"t-1\"", "NaN").into_bytes(),
        GOOD.replace("\"t-1\"", "Infinity").into_bytes(),
        GOOD.replace("\"t-1\"", "1e999999").into_bytes(),
        GOOD.replace("\"t-1\"", &"9".repeat(10_000)).into_bytes(),
        GOOD.replace("\"t-1\"", "01").into_bytes(),
        GOOD.replace("\"t-1\"", "true").into_bytes(),
        GOOD.replace("\"t-1\"", &deep(20_000)).into_bytes(),
        deep(30_000).into_bytes(),
        "{\"a\":".repeat(10_000).into_bytes(),
        with("\"id\":\"t-1\""),
        with("\"i\\u0064\":\"t-1\""),
        with("\"compose_contents\":\"\""),
        with("\"__proto__\":{}"),
        with("\"files\":{\"a\":\"\",\"a\":\"\"}"),
        with("\"files\":{\"../a\":\"\"}"),
        with(&format!("\"profiles\":[{}0]", "0,".repeat(20_000))),
    ];
    for document in documents {
        cases.push(Case { sent: json(&document), answers: vec![400], calls: 1, open: true });
    }
    serve().await.check_all(cases, 50).await;

    // The hint for a misspelt field.
    let server = serve().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&json(&with("\"compose_contents\":\"\""))).await.unwrap();
    let (_, body) = read_answer(&mut stream).await;
    assert_eq!(body["field"], "compose_contents");
    assert!(body["error"].as_str().is_some_and(|text| text.contains("did you mean `compose_content`?")), "{body}");
}

/// What a correct client may send. Refusing it would be as wrong as letting the rest in.
#[tokio::test]
async fn what_has_to_be_taken() {
    let length = format!("content-length: {}\r\n", GOOD.len());
    let chunked = |body: &str| post("transfer-encoding: chunked\r\n", body);
    let (half, rest) = GOOD.split_at(20);
    let in_two = format!("{:x}\r\n{half}\r\n{:X};x=\"y\" ;z\r\n{rest}\r\n0\r\n\r\n", half.len(), rest.len());
    let info = "/v1/system/info";
    let many: String = (0..61).map(|n| format!("x-{n}: y\r\n")).collect();
    let cases = vec![
        answered(&[200], 1, &get(info, "{A}")),
        answered(&[200], 1, &get(info, "{R}")),
        answered(&[200], 1, &get(info, "Authorization: bearer {T}\r\n")),
        answered(&[200], 1, &get(info, "AUTHORIZATION: BEARER {T}\r\n")),
        answered(&[200], 1, &get(info, "authorization:Bearer {T}\r\n")),
        answered(&[200], 1, &get(info, "authorization: \t Bearer   {T} \t \r\n")),
        answered(&[200], 1, &get(&format!("{info}?"), "{A}")),
        answered(&[200], 1, &get("http://agent.example:8080/v1/system/info", "{A}")),
        answered(&[200], 1, &get("HTTP://other/v1/system/info", "{A}")),
        answered(&[200], 1, &format!("\r\n{}", get(info, "{A}"))),
        answered(&[200], 1, &get(info, &format!("{{A}}{many}"))),
        answered(&[200], 1, &get(info, &format!("{{A}}x-large: {}\r\n", "y".repeat(16 << 10)))),
        answered(&[200], 1, &get(info, "{A}x-text: \u{e4}\u{f6}\u{fc}\r\nx-empty:\r\nx-tab: a\tb\r\n")),
        answered(&[200], 1, &get(info, "{A}x-request-id: a b\"c\r\n")),
        answered(&[200], 1, &get(info, "{A}user-agent: x\r\naccept: */*\r\naccept: text/html\r\ncookie: a=b\r\n")),
        answered(&[200], 1, &get(info, "{A}connection: keep-alive, x-a\r\nkeep-alive: timeout=5\r\n")),
        answered(&[200], 1, &get(info, "{A}te: trailers\r\nvia: 1.1 proxy\r\nforwarded: for=1.2.3.4\r\n")),
        answered(
            &[200],
            1,
            &get(info, "{A}upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAM\r\n"),
        ),
        answered(&[200], 1, &get(info, "{A}upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: x\r\n")),
        answered(&[200], 1, &get(info, "{A}content-length: 0\r\n")),
        answered(&[200], 1, &get(info, "{A}content-length: 3\r\n\r\nabc").replace("abc\r\n", "abc")),
        answered(&[200], 1, &get(info, "{A}expect: 100-continue\r\n")),
        answered(&[200], 1, "GET /v1/system/info HTTP/1.1\r\nhost:\r\n{A}\r\n"),
        answered(&[200], 1, "GET /v1/system/info HTTP/1.1\r\nHOST: [::1]:8080\r\n{A}\r\n"),
        answered(&[200], 1, "GET /v1/system/info HTTP/1.0\r\n{A}connection: keep-alive\r\n\r\n"),
        last(&[200], 1, "GET /v1/system/info HTTP/1.0\r\n{A}\r\n"),
        last(&[200], 1, &get(info, "{A}connection: close\r\n")),
        last(&[200], 1, &get(info, "{A}connection: x, Close\r\n")),
        answered(&[200], 0, &get("/live", "")),
        answered(&[200], 0, &get("/ready", "authorization: Bearer nonsense\r\n")),
        answered(&[200], 0, &get("http://a/health", "")),
        answered(&[200], 0, "GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"),
        answered(&[201], 1, &post(&length, GOOD)),
        answered(&[201], 1, &post(&length.replace(": ", ": 000"), GOOD)),
        answered(&[201], 1, &post(&length.replace("content-length: ", "CONTENT-LENGTH:\t"), GOOD)),
        answered(&[201], 1, &post(&format!("{length}content-type: application/json\r\n"), GOOD)),
        answered(&[201], 1, &post(&format!("{length}content-type: Application/JSON; Charset=\"UTF-8\"\r\n"), GOOD)),
        answered(&[100, 201], 1, &post(&format!("{length}expect: 100-continue\r\n"), GOOD)),
        answered(&[100, 201], 1, &post(&format!("{length}Expect: 100-Continue\r\n"), GOOD)),
        answered(&[201], 1, &chunked(&in_two)),
        answered(&[201], 1, &chunked(&in_two).replace(": chunked", ":\tCHUNKED ")),
        answered(
            &[201],
            1,
            &chunked(&in_two).replace("0\r\n\r\n", "000\r\nx-sum: 1\r\nauthorization: Bearer x\r\n\r\n"),
        ),
        answered(&[201], 1, &post(&format!("{length}transfer_encoding: chunked\r\n"), GOOD)),
        last(&[201], 1, &post(&length, GOOD).replace("HTTP/1.1", "HTTP/1.0")),
        // A line end too many after a body.
        answered(&[201], 1, &post(&length, &format!("{GOOD}\r\n"))),
        // One after the other without waiting: each with its own token, answered in order.
        answered(&[200; 40], 40, &get(info, "{A}").repeat(40)),
        answered(
            &[200, 404, 201, 201, 200],
            4,
            &[get(info, "{A}"), get("/no", "{A}"), post(&length, GOOD), chunked(&in_two), get(info, "{R}")].concat(),
        ),
        last(&[200, 401], 1, &(get(info, "{A}") + &get(info, "") + &get(info, "{A}"))),
        last(&[200, 400], 1, &(get(info, "{A}") + "GET /live HTTP/1.1\r\n\r\n" + &get(info, "{A}"))),
        last(&[401], 0, &(get(info, "") + &get(info, "{A}"))),
        last(&[200], 1, &(get(info, "{A}connection: close\r\n") + &get(info, "{A}"))),
        last(&[201, 400], 1, &(post(&length, GOOD) + "\0" + &get(info, "{A}"))),
    ];
    serve().await.check_all(cases, 50).await;
}

/// Byte by byte, with a pause after each line, the same is the same.
#[tokio::test]
async fn requests_in_small_pieces() {
    let server = serve().await;
    let length = format!("content-length: {}\r\n", GOOD.len());
    let chunked = format!("{:x}\r\n{GOOD}\r\n0\r\n\r\n", GOOD.len());
    for (sent, status) in [
        (get("/v1/system/info", "{A}"), 200),
        (post(&length, GOOD), 201),
        (post("transfer-encoding: chunked\r\n", &chunked), 201),
        (post("transfer-encoding: chunked\r\n", "2\r\n{}\n"), 400),
        (post("content-length: 2\r\ntransfer-encoding: chunked\r\n", ""), 400),
        (get("/v1/system/info", ""), 401),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in bytes(&sent) {
            // Refused early: the rest finds nobody.
            let _ = stream.write_all(&[byte]).await;
            if byte == b'\n' {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(next(&mut stream).await, Some(status), "{sent}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever comes without a token, nobody sees it, and the server lives on.
    #[test]
    fn noise_reaches_nobody(
        noise in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..400),
            "(GET|POST|HEAD|get) (/|/v1/tenants|//live|\\*) HTTP/1\\.[01]\r\n(host: a\r\n)?([a-zA-Z-]{1,20}: [ -~]{0,30}\r\n){0,4}\r\n[ -~]{0,40}"
                .prop_map(String::into_bytes),
        ]
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let server = serve().await;
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let _ = stream.write_all(&noise).await;
            let _ = stream.shutdown().await;
            let mut all = Vec::new();
            let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await.expect("an end");
            assert_eq!(server.calls.load(Ordering::SeqCst), 0, "{}", noise.escape_ascii());
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(LIVE).await.unwrap();
            assert_eq!(next(&mut stream).await, Some(200));
        });
    }
}

//! The same over real sockets: what is on the wire, and answers that break off, never end, or lead elsewhere.

use std::time::Duration;

use futures::future::join_all;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::task::AbortOnDropHandle;

use super::super::Arm;
use super::{GROUP, secret, settings, within};
use crate::config::AciCredentials;

/// A server that answers each connection with the next of these and closes it; the requests as they came.
struct Server {
    address: String,
    requests: mpsc::UnboundedReceiver<String>,
    _task: AbortOnDropHandle<()>,
}

async fn server(answers: Vec<Vec<u8>>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            sender.send(request(&mut socket).await).unwrap();
            // A client that has had enough closes first.
            drop(socket.write_all(&answer).await);
            drop(socket.shutdown().await);
        }
        std::future::pending::<()>().await;
    });
    Server { address, requests, _task: AbortOnDropHandle::new(task) }
}

/// Reads one request with its body.
async fn request(socket: &mut TcpStream) -> String {
    let mut text = String::new();
    loop {
        let mut buffer = [0; 4096];
        let count = socket.read(&mut buffer).await.unwrap();
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) || count == 0 {
                return text;
            }
        }
    }
}

fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes()
}

fn token() -> Vec<u8> {
    answer(200, "", r#"{"access_token":"t0","expires_in":3600}"#)
}

/// A client of this server, which gives the tokens too.
fn client(server: &Server) -> Arm {
    let AciCredentials::ClientSecret { tenant, client, secret, .. } = secret() else { unreachable!() };
    let authority = server.address.clone();
    let credentials = AciCredentials::ClientSecret { authority, tenant, client, secret };
    Arm::new(&settings(&server.address, credentials), None)
}

#[tokio::test]
async fn requests_on_the_wire() {
    let empty = || answer(200, "", "{}");
    let mut server = server(vec![token(), empty(), empty(), answer(204, "", ""), answer(204, "", "")]).await;
    let arm = client(&server);
    arm.get::<Value>(GROUP, &[], within(20)).await.unwrap();
    arm.put::<_, Value>(GROUP, &json!({"a": "ü"}), within(20)).await.unwrap();
    arm.post::<(), Value>(&format!("{GROUP}/stop"), None, within(20)).await.unwrap();
    arm.delete(GROUP, within(20)).await.unwrap();
    let asked = server.requests.recv().await.unwrap();
    assert!(asked.starts_with("POST /dir/oauth2/v2.0/token HTTP/1.1\r\n"), "{asked}");
    assert!(!asked.to_ascii_lowercase().contains("authorization:"), "{asked}");
    for (method, action, length) in
        [("GET", "", None), ("PUT", "", Some("10")), ("POST", "/stop", Some("0")), ("DELETE", "", None)]
    {
        let text = server.requests.recv().await.unwrap();
        assert!(text.starts_with(&format!("{method} {GROUP}{action}?api-version=2025-09-01 HTTP/1.1\r\n")), "{text}");
        let header = |name: &str| {
            text.lines().find_map(|line| {
                let (found, value) = line.split_once(": ")?;
                found.eq_ignore_ascii_case(name).then_some(value)
            })
        };
        assert_eq!(header("host"), server.address.strip_prefix("http://"));
        assert_eq!(header("authorization"), Some("Bearer t0"));
        assert_eq!(header("accept"), Some("application/json"));
        assert_eq!(header("user-agent"), Some(concat!("q8-agent/", env!("CARGO_PKG_VERSION"))));
        assert_eq!(header("content-length"), length, "{method}");
        assert_eq!(header("content-type"), Some("application/json"));
        assert!(uuid::Uuid::parse_str(header("x-ms-client-request-id").unwrap()).is_ok());
    }
}

#[tokio::test]
async fn answers_that_break_off_are_asked_for_again() {
    let broken = [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"name\":",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"nam",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"name\":",
        "HTTP/1.1 200",
        "",
        "SSH-2.0-OpenSSH\r\n",
    ];
    let asked = broken.map(|broken| async move {
        let answers = vec![token(), broken.as_bytes().to_vec(), answer(200, "", r#"{"name":"web"}"#)];
        let mut server = server(answers).await;
        let found: Value = client(&server).get(GROUP, &[], within(60)).await.unwrap().unwrap();
        assert_eq!(found["name"], "web", "{broken}");
        let mut count = 0;
        while server.requests.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, 3, "{broken}");
    });
    join_all(asked).await;
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = server(vec![token(), answer(307, "location: http://127.0.0.1:1/elsewhere\r\n", "")]).await;
    let error = client(&server).get::<Value>(GROUP, &[], within(20)).await.unwrap_err();
    assert_eq!(error.reason(), "refused");
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_it() {
    let mut endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\"".to_vec();
    endless.resize(17 << 20, b'x');
    let server = server(vec![token(), endless]).await;
    let error = client(&server).get::<Value>(GROUP, &[], within(60)).await.unwrap_err();
    assert_eq!(error.reason(), "unreadable", "{error}");
}

#[tokio::test]
async fn nobody_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let imds = AciCredentials::ManagedIdentity { imds: address.clone(), client: None };
    let error = Arm::new(&settings(&address, imds), None).token_works(within(1)).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn web_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let text = request(&mut socket).await;
        assert!(text.starts_with("GET /attach?x=y HTTP/1.1\r\n"), "{text}");
        assert!(text.to_ascii_lowercase().contains("\r\nauthorization: password\r\n"), "no token: {text}");
        let key = text
            .lines()
            .find_map(|line| line.to_ascii_lowercase().starts_with("sec-websocket-key: ").then(|| line[19..].trim()));
        let accepted = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.unwrap().as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accepted}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut frames = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
        assert_eq!(frames.next().await.unwrap().unwrap(), Message::text("password"));
        frames.send(Message::text("a line")).await.unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        request(&mut socket).await;
        socket.write_all(&answer(403, "", "")).await.unwrap();
    });
    let arm = Arm::new(&settings("http://127.0.0.1:1", secret()), None);
    let socket = arm.web_socket(&format!("ws://{address}/attach?x=y"), "password", within(20)).await.unwrap();
    let mut frames = WebSocketStream::from_raw_socket(socket, Role::Client, None).await;
    frames.send(Message::text("password")).await.unwrap();
    let got = tokio::time::timeout(Duration::from_secs(20), frames.next()).await.unwrap();
    assert_eq!(got.unwrap().unwrap(), Message::text("a line"));
    let error = arm.web_socket(&format!("ws://{address}/attach"), "password", within(20)).await.unwrap_err();
    assert!(error.to_string().contains("403"), "{error}");
    for bad in ["ftp://127.0.0.1/x", "127.0.0.1", "", "ws://"] {
        assert!(arm.web_socket(bad, "password", within(5)).await.is_err(), "{bad}");
    }
    serving.await.unwrap();
}

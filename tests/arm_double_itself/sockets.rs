//! Attach and exec over real web sockets.

use futures::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::*;

async fn open(answer: &Value) -> WebSocketStream<TcpStream> {
    let link = answer["webSocketUri"].as_str().expect("a link").to_owned();
    let at = link.trim_start_matches("ws://").split('/').next().expect("a host").to_owned();
    let connection = TcpStream::connect(at).await.expect("the double listens");
    tokio_tungstenite::client_async(link, connection).await.expect("a web socket").0
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Vec<u8>> {
    match socket.next().await? {
        Ok(message) if message.is_text() || message.is_binary() => Some(message.into_data().to_vec()),
        _ => None,
    }
}

async fn attached(scene: &Scene) -> (WebSocketStream<TcpStream>, String) {
    let answer = scene.post(&format!("{}/containers/web/attach", group("a"))).await.expect(200);
    (open(&answer).await, answer["password"].as_str().expect("a password").to_owned())
}

#[tokio::test]
async fn attach_gives_what_is_written_from_then_on() {
    let scene = Scene::new().await;
    scene.up("a", &one("nginx:1")).await;
    scene.double.write_log("rg-east", "a", "web", "before");
    scene.double.advance(Duration::from_millis(1));
    let (mut socket, password) = attached(&scene).await;
    socket.send(Message::text(password)).await.expect("it is taken");
    scene.double.write_log("rg-east", "a", "web", "one");
    assert_eq!(next(&mut socket).await.as_deref(), Some(&b"one\n"[..]));
    scene.double.set(|settings| settings.binary_sockets = true);
    scene.double.write_log("rg-east", "a", "web", "two");
    assert_eq!(next(&mut socket).await.as_deref(), Some(&b"two\n"[..]));
    scene.post(&format!("{}/stop", group("a"))).await.expect(204);
    scene.double.advance(STEP);
    assert_eq!(next(&mut socket).await, None);
    refused(&scene.post(&format!("{}/containers/web/attach", group("a"))).await, 409, "ContainerNotRunning");
    scene.double.assert_clean();
}

#[tokio::test]
async fn a_socket_without_its_password_is_closed() {
    let scene = Scene::new().await;
    scene.up("a", &one("nginx:1")).await;
    let (mut socket, _) = attached(&scene).await;
    socket.send(Message::text("guessed")).await.expect("it is taken");
    assert_eq!(next(&mut socket).await, None);
    assert_eq!(scene.double.take_violations().len(), 1);
    let (mut socket, password) = attached(&scene).await;
    socket.send(Message::text(password)).await.expect("it is taken");
    scene.double.cut_sockets();
    assert_eq!(next(&mut socket).await, None);
}

#[tokio::test]
async fn exec_is_a_terminal() {
    let scene = Scene::new().await;
    scene.up("a", &one("nginx:1")).await;
    let path = format!("{}/containers/web/exec", group("a"));
    let wanted = json!({"command": "/bin/sh", "terminalSize": {"rows": 24, "cols": 80}});
    let answer = scene.call("POST", &path, Some(&wanted)).await.expect(200);
    let mut socket = open(&answer).await;
    socket.send(Message::text(answer["password"].as_str().expect("a password"))).await.expect("it is taken");
    assert_eq!(next(&mut socket).await.as_deref(), Some(&b"# "[..]));
    socket.send(Message::text("ls")).await.expect("it is taken");
    assert_eq!(next(&mut socket).await.as_deref(), Some(&b"ls\r\n# "[..]));
    assert_eq!(scene.double.typed(), ["ls"]);
    scene.double.assert_clean();
    scene.call("POST", &path, Some(&json!({"command": "ls -l"}))).await.expect(200);
    refused(&scene.call("POST", &path, Some(&json!({"command": ["ls"]}))).await, 400, "InvalidRequestContent");
    assert_eq!(scene.double.take_violations().len(), 2);
}

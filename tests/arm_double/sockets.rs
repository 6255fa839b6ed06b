//! The web sockets of `attach` and `exec`: the password is the first text message.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Inner;
use super::clock::Millis;
use super::world::Key;

/// What a socket leads to.
#[derive(Clone)]
pub(super) struct Socket {
    pub(super) group: Key,
    pub(super) container: String,
    pub(super) password: String,
    pub(super) exec: bool,
    pub(super) opened: Millis,
    pub(super) cuts: u32,
}

/// How often a socket looks for new lines.
const LOOK: Duration = Duration::from_millis(5);

pub(super) async fn serve(listener: TcpListener, inner: Arc<Inner>) {
    let mut sockets = tokio::task::JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        let inner = Arc::clone(&inner);
        sockets.spawn(async move {
            // A client that goes away ends its socket; that is no failure of the double.
            drop(socket(connection, &inner).await);
        });
        while sockets.try_join_next().is_some() {}
    }
}

async fn socket(connection: TcpStream, inner: &Inner) -> Result<(), Error> {
    let mut path = String::new();
    // The size of the refusal is the library's.
    #[allow(clippy::result_large_err, reason = "the signature is the library's")]
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        request.uri().path().clone_into(&mut path);
        Ok(response)
    };
    let mut stream = tokio_tungstenite::accept_hdr_async(connection, look).await?;
    let id = path.rsplit_once("caas-").map(|(_, id)| id.to_owned()).unwrap_or_default();
    let Some(socket) = inner.state().sockets.remove(&id) else {
        inner.state().violation(format!("{path}: no socket is open there"));
        return close(&mut stream, CloseCode::Policy, "unknown").await;
    };
    let first = stream.next().await;
    let right = matches!(&first, Some(Ok(Message::Text(text))) if text.as_str() == socket.password);
    if !right {
        inner.state().violation("the first message on a socket was not its password");
        return close(&mut stream, CloseCode::Policy, "wrong password").await;
    }
    if socket.exec { exec(stream, inner).await } else { attach(stream, inner, &socket).await }
}

async fn close(stream: &mut WebSocketStream<TcpStream>, code: CloseCode, reason: &'static str) -> Result<(), Error> {
    stream.close(Some(CloseFrame { code, reason: reason.into() })).await
}

/// Sends what the container writes from the moment on that the socket was asked for.
async fn attach(mut stream: WebSocketStream<TcpStream>, inner: &Inner, socket: &Socket) -> Result<(), Error> {
    let mut sent = 0;
    loop {
        let (lines, over, cut, binary) = {
            let now = inner.clock.now();
            let state = inner.state();
            let group = state.groups.get(&socket.group).filter(|group| !group.gone(now));
            let lines = group.and_then(|group| group.lines(&socket.container, now)).unwrap_or_default();
            let lines: Vec<String> =
                lines.into_iter().filter(|(at, _)| *at >= socket.opened).map(|(_, line)| line).collect();
            let over = group.is_none_or(|group| group.silent(&socket.container, now));
            (lines, over, state.cuts != socket.cuts, state.settings.binary_sockets)
        };
        if cut {
            return Ok(());
        }
        for line in lines.iter().skip(sent) {
            let line = format!("{line}\n");
            let message = if binary { Message::binary(line.into_bytes()) } else { Message::text(line) };
            stream.send(message).await?;
        }
        sent = sent.max(lines.len());
        if over {
            return close(&mut stream, CloseCode::Normal, "").await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            message = stream.next() => match message {
                Some(Ok(_)) => {}
                _ => return Ok(()),
            },
        }
    }
}

/// A terminal that repeats what is typed.
async fn exec(mut stream: WebSocketStream<TcpStream>, inner: &Inner) -> Result<(), Error> {
    stream.send(Message::text("# ")).await?;
    while let Some(message) = stream.next().await {
        let typed = match message? {
            Message::Text(text) => text.as_str().to_owned(),
            Message::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Message::Close(_) => return Ok(()),
            _ => continue,
        };
        inner.state().typed.push(typed.clone());
        stream.send(Message::text(format!("{typed}\r\n# "))).await?;
    }
    Ok(())
}

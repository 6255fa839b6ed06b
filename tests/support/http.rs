//! A small HTTP/1.1 client: one connection per request, JSON in and out, or a stream of lines.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    /// The body as JSON; null if there is none.
    pub(crate) fn json(&self) -> Value {
        if self.bytes.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The JSON body of an answer that must have this status; shows the body if it has another.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self.json()
    }

    /// The JSON body of an answer that must have status 200, for whoever asks again: none if it is 503, which passes.
    #[track_caller]
    pub(crate) fn unless_away(&self) -> Option<Value> {
        (self.status != StatusCode::SERVICE_UNAVAILABLE).then(|| self.expect(200))
    }

    /// The JSON body of a refusal that must have this status and code.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(body["code"], code, "{body}");
        assert!(
            body["error"].is_string() && body["request_id"].is_string() && body["retryable"].is_boolean(),
            "{body}"
        );
        body
    }
}

/// Sends one request and gives the answer once its head is there.
pub(crate) async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Response<Incoming>, Failure> {
    let connection = TcpStream::connect(address).await.map_err(Failure::Connect)?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    tokio::spawn(driver);
    let mut request = Request::builder().method(method).uri(path).header("host", address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("tests write correct requests");
    Ok(sender.send_request(request).await?)
}

/// Reads an answer to its end.
pub(crate) async fn complete(response: Response<Incoming>) -> Result<Answer, Failure> {
    let (head, body) = response.into_parts();
    Ok(Answer { status: head.status, headers: head.headers, bytes: body.collect().await?.to_bytes() })
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("nobody listens: {0}")]
    Connect(std::io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
}

/// An answer that goes on, read line by line.
pub(crate) struct Lines {
    /// What was asked for.
    pub(crate) path: String,
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// The answer to a GET of this path.
    pub(crate) fn new(path: &str, response: Response<Incoming>) -> Self {
        Self { path: path.to_owned(), body: response.into_body(), buffer: Vec::new() }
    }

    /// The next line without its end; none when the stream has ended. Fails the test when `limit` is over.
    pub(crate) async fn next(&mut self, limit: Duration) -> Option<String> {
        let line = tokio::time::timeout(limit, self.read()).await;
        line.unwrap_or_else(|_| panic!("no line within {limit:?}; so far: {:?}", String::from_utf8_lossy(&self.buffer)))
    }

    async fn read(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
                Some(Err(_)) | None if self.buffer.is_empty() => return None,
                Some(Err(_)) | None => {
                    return Some(String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned());
                }
            }
        }
    }
}

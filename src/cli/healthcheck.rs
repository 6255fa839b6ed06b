//! `q8-agent healthcheck`: one `GET /ready` over plain TCP, for container images that have no shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fail;
use crate::config::{self, ConfigError};

const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the agent did not answer in HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be written: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the agent did not answer within 5 seconds")]
    Late,
    #[error("the agent answered {0}")]
    Status(StatusCode),
}

/// Exit code 0 when the agent of the settings is ready.
pub(super) fn run() -> ExitCode {
    let probed = config::listen_address(std::env::vars_os()).map_err(ProbeError::from).and_then(|address| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { timeout(DEADLINE, probe(address)).await.unwrap_or(Err(ProbeError::Late)) })
    });
    match probed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("not ready", error),
    }
}

async fn probe(listening: SocketAddr) -> Result<(), ProbeError> {
    let address = reachable(listening);
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get("/ready").header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    driver.abort();
    if answer.status() == StatusCode::OK { Ok(()) } else { Err(ProbeError::Status(answer.status())) }
}

/// The agent may listen on all addresses; one can only be asked at one.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn only_200_is_ready() {
        for (answer, ready) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", true),
            ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", false),
            ("nonsense\r\n\r\n", false),
            ("", false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listener.local_addr().unwrap().port());
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let read = stream.read(&mut head).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                String::from_utf8_lossy(&head[..read]).into_owned()
            });
            assert_eq!(probe(address).await.is_ok(), ready, "{answer:?}");
            assert!(server.await.unwrap().starts_with("GET /ready HTTP/1.1\r\nhost: 127.0.0.1:"));
        }
    }
}

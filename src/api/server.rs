//! The listener: caps, deadlines, and a stop that lets running requests end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Limits;
use super::front::{Endpoints, Front};
use super::peers::{Door, Peer, Place};
use super::socket::Socket;
use super::wire::{Exchange, Gate, MAX_HEAD, MAX_HEADERS};

/// Connections that are being told that there is no place for them; more are closed without a word.
const MAX_REFUSALS: usize = 64;
/// How long such a client has to take the answer.
const REFUSAL_TIME: Duration = Duration::from_millis(500);
/// What it is told.
const FULL: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: 105\r\n\
    cache-control: no-store\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"error\":\"too many connections are being served\",\"code\":\"RATE_LIMITED\",\"request_id\":\"-\",\"retryable\":true}";

/// Serves until `stop`, then refuses connections, closes idle ones and waits for the others, at most as long as
/// `limits.stop_time`; what still runs then is cut off.
pub(super) async fn run<E: Endpoints>(
    listener: TcpListener,
    front: Arc<Front<E>>,
    limits: Arc<Limits>,
    stop: CancellationToken,
) {
    let door = Door::new(limits.connections, limits.connections_per_peer);
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    let mut turned_away = 0_u64;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((_closed, peer)) if front.turns_away(peer.ip()) => {
                turned_away += 1;
                tracing::debug!(peer = %peer.ip(), turned_away, "a connection from a tenant's network was closed");
            }
            Ok((stream, peer)) => {
                let exchange = Exchange::new();
                let Some(place) = door.admit(Peer::of(peer.ip()), &exchange) else {
                    front.metrics().connection_refused();
                    if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                        connections.spawn(refuse(stream, permit));
                    }
                    continue;
                };
                let (front, limits) = (Arc::clone(&front), Arc::clone(&limits));
                let (stop, cut_off) = (stop.clone(), cut_off.clone());
                let open = front.metrics().connection();
                connections.spawn(async move {
                    let _open = open;
                    connection(stream, peer, exchange, place, front, limits, (stop, cut_off)).await;
                });
            }
            Err(error) => {
                // Out of descriptors, most likely. Trying again at once would spin.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if timeout(limits.stop_time, connections.wait()).await.is_err() {
        cut_off.cancel();
        connections.wait().await;
    }
}

/// Says that there is no place, and waits a moment so that the client can read it: closing at once, with something of
/// the client's unread, would take the answer back.
async fn refuse(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    tracing::debug!("a connection was refused: all places are taken");
    let told = async {
        stream.write_all(FULL).await?;
        stream.shutdown().await?;
        let mut waste = [0; 1024];
        while stream.read(&mut waste).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // Whether it was taken makes no difference.
    let _ = timeout(REFUSAL_TIME, told).await;
}

/// Why a connection ends before its client ends it.
enum End {
    /// The server stops: what is being answered is answered to its end.
    Stop,
    /// The time for stopping is over.
    CutOff,
    /// Its place is wanted for another one.
    Leave,
}

async fn connection<E: Endpoints>(
    stream: TcpStream,
    peer: SocketAddr,
    exchange: Arc<Exchange>,
    place: Place,
    front: Arc<Front<E>>,
    limits: Arc<Limits>,
    (stop, cut_off): (CancellationToken, CancellationToken),
) {
    keep_alive(&stream);
    let socket = Socket::new(stream, Arc::clone(&exchange), &limits);
    let gate = Gate::new(socket, Arc::clone(&exchange), limits.half_close_time);
    let talking = Arc::clone(&exchange);
    let service = service_fn(move |request| {
        talking.begin();
        front.serve(request, talking.take_refusal(), peer.ip(), Arc::clone(&talking)).map(Ok::<_, Infallible>)
    });
    let connection = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        // The buffer alone is no limit: it may grow beyond its maximum by what one read brings.
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(gate), service);
    tokio::pin!(connection);
    // Looked at when they happen, and not at every step of a request: a token is one lock for all connections.
    let mut ends: FuturesUnordered<BoxFuture<'_, End>> = FuturesUnordered::new();
    ends.push(stop.cancelled().map(|()| End::Stop).boxed());
    ends.push(cut_off.cancelled().map(|()| End::CutOff).boxed());
    ends.push(place.leave.cancelled().map(|()| End::Leave).boxed());
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            Some(end) = ends.next() => match end {
                End::CutOff => {
                    tracing::warn!(peer = %peer.ip(), "a request was cut off at the end");
                    return;
                }
                End::Leave if !exchange.is_busy() => {
                    tracing::debug!(peer = %peer.ip(), "an idle connection was closed to make room for another one");
                    return;
                }
                // If it was to leave, a request has come just now.
                End::Stop | End::Leave => connection.as_mut().graceful_shutdown(),
            },
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Finds out about clients that vanished without a word, which otherwise keep a quiet log stream open for ever.
fn keep_alive(stream: &TcpStream) {
    use rustix::net::sockopt;
    let set = || -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, Duration::from_mins(1))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
        sockopt::set_tcp_keepcnt(stream, 4)?;
        Ok(())
    };
    if let Err(error) = set() {
        // The connection works without.
        tracing::debug!(%error, "a connection's options could not be set");
    }
}

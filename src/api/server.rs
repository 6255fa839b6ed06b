//! The listener: caps, deadlines, and a stop that lets running requests end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Limits;
use super::front::{Endpoints, Front};
use super::socket::Socket;

/// More headers than any client of this API sends.
const MAX_HEADERS: usize = 64;
/// The largest head of a request in bytes; hyper answers 431 to more.
const MAX_HEAD: usize = 32 * 1024;

/// Serves until `stop`, then refuses connections, closes idle ones and waits for the others, at most as long as
/// `limits.stop_time`; what still runs then is cut off.
pub(super) async fn run<E: Endpoints>(
    listener: TcpListener,
    front: Arc<Front<E>>,
    limits: Arc<Limits>,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    let mut turned_away = 0_u64;
    loop {
        // Beyond the cap, clients wait in the kernel's queue instead of here.
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&room).acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((_closed, peer)) if front.endpoints.turns_away(peer.ip()) => {
                turned_away += 1;
                tracing::debug!(peer = %peer.ip(), turned_away, "a connection from a tenant's network was closed");
            }
            Ok((stream, peer)) => {
                let (front, limits) = (Arc::clone(&front), Arc::clone(&limits));
                let (stop, cut_off) = (stop.clone(), cut_off.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    tokio::select! {
                        () = connection(stream, peer, front, limits, stop) => {}
                        () = cut_off.cancelled() => tracing::warn!(peer = %peer.ip(), "a request was cut off at the end"),
                    }
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

async fn connection<E: Endpoints>(
    stream: TcpStream,
    peer: SocketAddr,
    front: Arc<Front<E>>,
    limits: Arc<Limits>,
    stop: CancellationToken,
) {
    keep_alive(&stream);
    let busy = Arc::new(AtomicBool::new(false));
    let socket = Socket::new(stream, Arc::clone(&busy), limits.head_time, limits.stall_time);
    let service = service_fn(move |request| {
        busy.store(true, Ordering::Release);
        let (front, busy) = (Arc::clone(&front), Arc::clone(&busy));
        async move { Ok::<_, Infallible>(front.serve(request, peer.ip(), busy).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_time)
        .max_headers(MAX_HEADERS)
        // The buffer alone is no limit: it may grow beyond its maximum by what one read brings.
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
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

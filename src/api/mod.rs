//! HTTP/1.1 on hyper: bytes in, the orchestrator's requests out, and back.
//!
//! ```text
//! server   listener, connection caps, deadlines, graceful stop       peers  socket  deadlines of one connection
//! wire     what of the client's bytes hyper may see
//! front    request id -> token -> route -> endpoint -> log entry     auth  router  access_log
//! handlers one function a route                                      body  json  requests  query
//! error    THE table from codes to statuses                          respond  logs
//! openapi  the description of all this for machines
//! ```

mod access_log;
mod auth;
mod body;
mod error;
mod front;
#[cfg(test)]
mod fuzz;
mod handlers;
mod json;
mod logs;
mod openapi;
mod peers;
mod query;
mod requests;
mod respond;
mod router;
mod server;
mod socket;
mod wire;

pub use auth::LiveTokens;
pub(crate) use openapi::DOCUMENT as OPENAPI;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::orchestrator::Orchestrator;

/// What bounds one server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest request body in bytes.
    pub max_body: usize,
    /// Connections at a time. Beyond it the longest idle one is closed; are all being served, a new one gets 429.
    pub connections: usize,
    /// The same for the connections of one address (of an IPv6 /64).
    pub connections_per_peer: usize,
    /// Log streams at a time; more are refused, so that they cannot take all connections.
    pub log_streams: usize,
    /// Log streams of one tenant at a time.
    pub log_streams_per_tenant: usize,
    /// From the first byte of a request's head to its last, and from the connection's start to the first head.
    pub head_time: Duration,
    /// From the head of a request to the last byte of its body.
    pub body_time: Duration,
    /// Between two requests of a connection.
    pub idle_time: Duration,
    /// How long a client that has closed its side is still answered.
    pub half_close_time: Duration,
    /// A client that takes nothing for so long is dropped.
    pub stall_time: Duration,
    /// For answers that only read.
    pub read_time: Duration,
    /// For requests that are running when the server stops.
    pub stop_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: 8 << 20,
            connections: 1024,
            connections_per_peer: 1024,
            log_streams: 256,
            log_streams_per_tenant: 128,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            idle_time: Duration::from_mins(1),
            half_close_time: Duration::from_secs(3),
            stall_time: Duration::from_secs(10),
            read_time: Duration::from_secs(20),
            stop_time: Duration::from_secs(25),
        }
    }
}

/// What the server needs besides the orchestrator.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// The accepted tokens; keep a clone to exchange them.
    pub tokens: LiveTokens,
    /// The bounds.
    pub limits: Limits,
}

/// Serves the API until `stop` and then ends within [`Limits::stop_time`] and a moment: no new connection, idle ones
/// closed, log streams ended, running requests answered.
pub async fn serve(listener: TcpListener, settings: ApiSettings, orchestrator: Orchestrator, stop: CancellationToken) {
    let limits = Arc::new(settings.limits);
    let endpoints = handlers::Handlers::new(orchestrator, Arc::clone(&limits), stop.clone());
    let front = Arc::new(front::Front::new(settings.tokens, endpoints));
    server::run(listener, front, limits, stop).await;
}

#[cfg(test)]
mod tests;

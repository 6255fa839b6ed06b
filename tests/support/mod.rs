//! What the integration tests share: a Docker Engine, images to run on it, and the real agent as a process.
//!
//! Tests start processes (`dockerd`, the agent); only the agent itself never does.
#![allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "every test binary uses another part of this; and it is tests that start the engine and the agent"
)]

pub(crate) mod agent;
pub(crate) mod engine;
pub(crate) mod fault_proxy;
pub(crate) mod http;
pub(crate) mod images;
pub(crate) mod openapi;
pub(crate) mod registry;
pub(crate) mod sse;
pub(crate) mod stacks;
pub(crate) mod templates;
pub(crate) mod traces;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A name that no other test uses: `{prefix}-{process}-{count}`. Short enough for a subdomain if the prefix is.
pub(crate) fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A port that a stack may fix, free a moment ago, and given to no other test of this process. It lies where the agents of
/// tests, which begin at a place of their own, seldom look for one.
pub(crate) fn publishable_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port =
            29_000 + u16::try_from((std::process::id().wrapping_mul(61).wrapping_add(step)) % 1000).expect("small");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from 29000 to 29999");
}

/// Repeats `check` until it gives a value; fails with `what` when `limit` is over.
pub(crate) async fn eventually<T>(what: &str, limit: Duration, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

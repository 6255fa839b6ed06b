//! One request out, one answer in, and neither without bounds: the longest answer, the longest wait.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout};

/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection is kept that nobody uses. Azure's load balancers end it after four minutes.
const IDLE: Duration = Duration::from_secs(60);
/// The longest answer that is taken, in bytes.
const LONGEST_BODY: usize = 16 << 20;
/// The most certificates that are read from a file.
const MOST_ROOTS: usize = 1000;
/// Who asks.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("q8-agent/", env!("CARGO_PKG_VERSION")));

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// When it had come.
    pub(super) at: Instant,
}

/// Why no answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("no answer in time")]
    TimedOut,
    /// Nothing was sent.
    #[error("{0}")]
    Unconnected(String),
    #[error("{0}")]
    Network(String),
    #[error("the answer is longer than {} MiB", LONGEST_BODY >> 20)]
    TooLong,
}

/// What a test answers in place of a network.
#[cfg(test)]
pub(super) type Pretended =
    Arc<dyn Fn(Request<Full<Bytes>>) -> futures::future::BoxFuture<'static, Result<Reply, Broken>> + Send + Sync>;

/// The connections to everything that the backend speaks to. Cheap to clone.
#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    #[cfg(test)]
    pretended: Option<Pretended>,
}

impl Http {
    /// With Mozilla's roots, and those in the file that `SSL_CERT_FILE` names, for a proxy or a private cloud.
    pub(super) fn new() -> Self {
        Self::trusting(std::env::var_os("SSL_CERT_FILE").as_deref().map(Path::new))
    }

    /// With Mozilla's roots, and those in this file.
    pub(super) fn trusting(extra: Option<&Path>) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_nodelay(true);
        http.set_keepalive(Some(IDLE));
        let tls = tls(roots(extra));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(super::pace::AT_ONCE)
            .build(connector.wrap_connector(http));
        Self {
            client,
            #[cfg(test)]
            pretended: None,
        }
    }

    /// Answers itself, for tests in which time is pretended too: a real socket's answers come at no time.
    #[cfg(test)]
    pub(super) fn pretending(pretended: Pretended) -> Self {
        Self { pretended: Some(pretended), ..Self::new() }
    }

    /// Sends a request and reads the whole answer. Redirects are not followed: a token is for one origin.
    pub(super) async fn exchange(&self, mut request: Request<Full<Bytes>>, limit: Duration) -> Result<Reply, Broken> {
        request.headers_mut().insert(USER_AGENT, AGENT);
        #[cfg(test)]
        if let Some(pretended) = &self.pretended {
            return timeout(limit, pretended(request)).await.unwrap_or(Err(Broken::TimedOut));
        }
        let exchange = async {
            let (head, body) = self.open(request).await?.into_parts();
            let body = Limited::new(body, LONGEST_BODY).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() { Broken::TooLong } else { Broken::Network(chain(&*error)) }
            })?;
            Ok(Reply { status: head.status, headers: head.headers, body: body.to_bytes(), at: Instant::now() })
        };
        timeout(limit, exchange).await.unwrap_or(Err(Broken::TimedOut))
    }

    /// Sends a request and gives the head of the answer, with the body or the connection still to be read.
    pub(super) async fn open(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Broken> {
        self.client.request(request).await.map_err(|error| {
            let is_connected = !error.is_connect();
            let why = chain(&error);
            if is_connected { Broken::Network(why) } else { Broken::Unconnected(why) }
        })
    }
}

/// An error with all its causes: hyper's own words are only "client error".
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut all = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        all.push_str(&format!(": {error}"));
        cause = error.source();
    }
    super::error::clean(&all, 300)
}

fn tls(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn roots(extra: Option<&Path>) -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let Some(path) = extra else { return roots };
    match std::fs::read(path) {
        Ok(text) => {
            let found = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).take(MOST_ROOTS);
            let (taken, left) = roots.add_parsable_certificates(found);
            tracing::info!(taken, left, "certificates of SSL_CERT_FILE");
        }
        Err(error) => tracing::warn!(kind = %error.kind(), "SSL_CERT_FILE cannot be read; going on without it"),
    }
    roots
}

//! The client against an Azure of its own: most of it is pretended below the HTTP client, so that time can be pretended too;
//! `network` has real sockets.

mod errors;
mod limits;
mod network;
mod operations;
mod retries;
mod secure;
mod tokens;
mod urls;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Arm;
use super::transport::{Broken, Http, Reply};
use crate::config::{AciCredentials, AciRegion, AciSettings};

pub(super) const GROUP: &str =
    "/subscriptions/s/resourceGroups/Rg-1/providers/Microsoft.ContainerInstance/containerGroups/web";

/// A request that came.
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    pub(super) at: Instant,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn is_for_token(&self) -> bool {
        self.url.path().contains("/oauth2/") || self.url.path().contains("/msi/")
    }
}

/// An answer to one.
pub(super) struct Says {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    after: Duration,
    broken: Option<Broken>,
}

pub(super) fn says(status: u16, body: &Value) -> Says {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Says { status, headers: Vec::new(), body, after: Duration::ZERO, broken: None }
}

pub(super) fn refuses(status: u16, code: &str) -> Says {
    says(status, &json!({"error": {"code": code, "message": format!("about {code}")}}))
}

pub(super) fn breaks(broken: Broken) -> Says {
    Says { broken: Some(broken), ..says(0, &Value::Null) }
}

impl Says {
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn late(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    pub(super) fn text(self, body: &str) -> Self {
        Self { body: body.to_owned(), ..self }
    }
}

/// A pretended Azure.
#[derive(Default)]
pub(super) struct Azure {
    pub(super) calls: Mutex<Vec<Seen>>,
    pub(super) tokens: Mutex<Vec<Seen>>,
}

impl Azure {
    /// When the calls came, in seconds since the first.
    pub(super) fn times(&self) -> Vec<f64> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|call| (call.at - calls[0].at).as_secs_f64()).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    pub(super) fn token_count(&self) -> usize {
        self.tokens.lock().unwrap().len()
    }
}

/// What the calls and what those for tokens are answered; each is told which one it is, from 0.
type Answers = Box<dyn Fn(&Seen, usize) -> Says + Send + Sync>;

pub(super) fn http(azure: &Arc<Azure>, calls: Answers, tokens: Answers) -> Http {
    let azure = Arc::clone(azure);
    let (calls, tokens) = (Arc::new(calls), Arc::new(tokens));
    Http::pretending(Arc::new(move |request: Request<Full<Bytes>>| {
        let (azure, calls, tokens) = (Arc::clone(&azure), Arc::clone(&calls), Arc::clone(&tokens));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            let (method, url, headers) = (head.method, head.uri, head.headers);
            let seen = Seen { method, url, headers, body, at: Instant::now() };
            let is_for_token = seen.is_for_token();
            let answers = if is_for_token { tokens } else { calls };
            let answer = {
                let list = if is_for_token { &azure.tokens } else { &azure.calls };
                let mut list = list.lock().unwrap();
                let answer = answers(&seen, list.len());
                list.push(seen);
                answer
            };
            if !answer.after.is_zero() {
                sleep(answer.after).await;
            }
            if let Some(broken) = answer.broken {
                return Err(broken);
            }
            let mut headers = HeaderMap::new();
            for (name, value) in answer.headers {
                headers.insert(name, value.parse().unwrap());
            }
            let (status, body) = (StatusCode::from_u16(answer.status).unwrap(), answer.body.into());
            Ok(Reply { status, headers, body, at: Instant::now() })
        }
        .boxed()
    }))
}

pub(super) fn token(number: usize) -> Says {
    says(200, &json!({"access_token": format!("t{number}"), "expires_in": 3600, "token_type": "Bearer"}))
}

pub(super) fn settings(endpoint: &str, credentials: AciCredentials) -> AciSettings {
    let region = |location: &str, group: &str| AciRegion {
        location: location.to_owned(),
        resource_group: group.to_owned(),
        storage_account: None,
    };
    AciSettings {
        subscription: "s".to_owned(),
        regions: vec![region("eastus", "rg-1"), region("westeurope", "rg-2")],
        api_version: "2025-09-01".to_owned(),
        arm_endpoint: endpoint.to_owned(),
        credentials,
        prices: None,
        registry_identities: Vec::new(),
    }
}

pub(super) fn secret() -> AciCredentials {
    AciCredentials::ClientSecret {
        authority: "http://127.0.0.1:2".to_owned(),
        tenant: "dir".to_owned(),
        client: "app".to_owned(),
        secret: SecretString::from("s3cr&t +1"),
    }
}

/// A client of an Azure that answers its calls so, and gives tokens without end.
pub(super) fn azure(calls: impl Fn(&Seen, usize) -> Says + Send + Sync + 'static) -> (Arm, Arc<Azure>) {
    let azure = Arc::<Azure>::default();
    let http = http(&azure, Box::new(calls), Box::new(|_, number| token(number)));
    (Arm::over(http, &settings("http://127.0.0.1:1", secret()), None), azure)
}

/// That much time from now.
pub(super) fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

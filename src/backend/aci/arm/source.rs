//! The four places that give tokens: an app's secret, a federated token of a workload, the instance metadata service of a
//! virtual machine, and that of App Service and Container Apps.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use form_urlencoded::Serializer;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::error::{ArmError, clean};
use super::retry::{Failed, retry_after};
use super::transport::Http;
use crate::config::AciCredentials;

/// The longest time for one question.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(15);
/// The longest federated token, in bytes.
const LONGEST_ASSERTION: u64 = 64 << 10;
/// How long a token is taken to be good that does not say it.
const UNSAID: Duration = Duration::from_secs(600);

/// A token, and how long it is good.
pub(super) struct Granted {
    pub(super) token: HeaderValue,
    pub(super) good_for: Duration,
}

/// Who is asked, and what for.
#[derive(Debug)]
pub(super) struct Source {
    credentials: AciCredentials,
    /// The service that the token is for, without a slash at its end.
    audience: String,
}

impl Source {
    pub(super) fn new(credentials: AciCredentials, audience: String) -> Self {
        Self { credentials, audience }
    }

    /// Asks once.
    pub(super) async fn ask(&self, http: &Http) -> Result<Granted, Failed> {
        let request = self.request().await?;
        let reply = http.exchange(request, LONGEST_ATTEMPT).await;
        let reply = reply.map_err(|error| unavailable(format!("no token: {error}")))?;
        if reply.status.is_success() {
            return granted(&reply.body);
        }
        let after = retry_after(&reply.headers);
        let error = refusal(reply.status, &reply.body);
        if self.is_passing(reply.status) {
            return Err(Failed { error: ArmError::Unavailable { message: format!("no token: {error}") }, after });
        }
        Err(ArmError::Unauthorised { message: error }.into())
    }

    async fn request(&self) -> Result<Request<Full<Bytes>>, ArmError> {
        match &self.credentials {
            AciCredentials::ClientSecret { authority, tenant, client, secret } => {
                let proof = [("client_secret", secret.expose_secret())];
                self.post(authority, tenant, client, &proof)
            }
            AciCredentials::FederatedToken { authority, tenant, client, file } => {
                let assertion = assertion(file).await?;
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                let proof = [("client_assertion_type", kind), ("client_assertion", &assertion)];
                self.post(authority, tenant, client, &proof)
            }
            AciCredentials::ManagedIdentity { imds, client } => {
                let url = format!("{}/metadata/identity/oauth2/token", imds.trim_end_matches('/'));
                let mut request = self.get(&url, "2018-02-01", client.as_deref())?;
                request.headers_mut().insert("metadata", HeaderValue::from_static("true"));
                Ok(request)
            }
            AciCredentials::AppService { endpoint, header, client } => {
                let mut request = self.get(endpoint, "2019-08-01", client.as_deref())?;
                let mut header = HeaderValue::try_from(header.expose_secret())
                    .map_err(|_| unauthorised("the identity header is no header"))?;
                header.set_sensitive(true);
                request.headers_mut().insert("x-identity-header", header);
                Ok(request)
            }
        }
    }

    fn post(
        &self,
        authority: &str,
        tenant: &str,
        client: &str,
        proof: &[(&str, &str)],
    ) -> Result<Request<Full<Bytes>>, ArmError> {
        let form = Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", client)
            .append_pair("scope", &format!("{}/.default", self.audience))
            .extend_pairs(proof)
            .finish();
        let mut request = request(&format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/')))?;
        *request.method_mut() = Method::POST;
        *request.body_mut() = Full::new(Bytes::from(form));
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(request)
    }

    fn get(&self, url: &str, version: &str, client: Option<&str>) -> Result<Request<Full<Bytes>>, ArmError> {
        let mut query = Serializer::new(String::new());
        query.append_pair("api-version", version).append_pair("resource", &format!("{}/", self.audience));
        if let Some(client) = client {
            query.append_pair("client_id", client);
        }
        let mark = if url.contains('?') { '&' } else { '?' };
        request(&format!("{url}{mark}{}", query.finish()))
    }

    /// Whether this status means that the same question may be answered a little later. The metadata service is not there
    /// yet (404) or being updated (410) at times.
    fn is_passing(&self, status: StatusCode) -> bool {
        let is_local = matches!(self.credentials, AciCredentials::ManagedIdentity { .. });
        match status.as_u16() {
            408 | 429 | 500..=599 => true,
            404 | 410 => is_local,
            _ => false,
        }
    }
}

fn request(url: &str) -> Result<Request<Full<Bytes>>, ArmError> {
    let url: Uri = url.parse().map_err(|_| unauthorised("the place that gives tokens has no valid URL"))?;
    let mut request = Request::new(Full::default());
    *request.uri_mut() = url;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    Ok(request)
}

/// The token of the workload: read each time, because whoever gives it out changes it often.
async fn assertion(file: &Path) -> Result<String, ArmError> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(LONGEST_ASSERTION).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text.trim().to_owned())
    });
    match read.await {
        Ok(Ok(text)) if !text.is_empty() => Ok(text),
        Ok(Err(error)) => Err(unauthorised(&format!("the federated token cannot be read ({})", error.kind()))),
        Ok(Ok(_)) | Err(_) => Err(unauthorised("the file of the federated token is empty")),
    }
}

/// Reads a token. Numbers come as numbers from the authority and as text from the metadata services.
fn granted(body: &[u8]) -> Result<Granted, Failed> {
    // The parser's own words may repeat the body.
    let value: Value =
        serde_json::from_slice(body).map_err(|_| unavailable("no token: the answer is not JSON".to_owned()))?;
    let number = |name: &str| match value.get(name)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let ends = |at: u64| at.saturating_sub(u64::try_from(Timestamp::now().as_second()).unwrap_or_default());
    let seconds = number("expires_in").or_else(|| number("expires_on").map(ends));
    let token = value.get("access_token").and_then(Value::as_str).unwrap_or_default();
    let header = HeaderValue::try_from(format!("Bearer {token}"));
    match header {
        Ok(mut header) if !token.is_empty() => {
            header.set_sensitive(true);
            // A number that no clock has would end the arithmetic.
            let good_for = seconds.map_or(UNSAID, |seconds| Duration::from_secs(seconds.min(30 * 86_400)));
            Ok(Granted { token: header, good_for })
        }
        _ => Err(unauthorised("the answer holds no token").into()),
    }
}

/// Why there is no token, by code only: the authority's description holds ids, and is long.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let error = value.get("error");
    let code = error.and_then(Value::as_str).or_else(|| error.and_then(|error| error.get("code")?.as_str()));
    let numbers = value.get("error_codes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let numbers = numbers.iter().filter_map(Value::as_u64).take(3).map(|number| format!(" AADSTS{number}"));
    match code.map(|code| clean(code, 100)).filter(|code| !code.is_empty()) {
        Some(code) => format!("{code}{}", numbers.collect::<String>()),
        None => format!("status {}", status.as_u16()),
    }
}

fn unauthorised(message: &str) -> ArmError {
    ArmError::Unauthorised { message: message.to_owned() }
}

fn unavailable(message: String) -> Failed {
    ArmError::Unavailable { message }.into()
}

//! What is asked, and of whom: URLs below the one endpoint, and nothing that leads away from it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use form_urlencoded::byte_serialize;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Method, Request, Uri};
use uuid::Uuid;

use super::error::{ArmError, Refusal};
use super::pace::Lane;

/// The longest time for one attempt.
pub(super) const LONGEST_ATTEMPT: Duration = Duration::from_secs(60);
/// The version of the storage provider's API, whose shares this backend manages.
const STORAGE_VERSION: &str = "2023-05-01";
/// That of everything without a provider: resource groups, and the list of all resources.
const RESOURCES_VERSION: &str = "2021-04-01";
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The public cloud, whose tokens an endpoint on this machine takes too.
const PUBLIC: &str = "https://management.azure.com";

/// Where Azure Resource Manager is.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    scheme: Scheme,
    authority: Authority,
    /// Before every path; mostly nothing.
    prefix: String,
    /// The version of the container instances' API.
    version: String,
    /// The regions of the resource groups, whose names are in lower case.
    regions: BTreeMap<String, String>,
}

/// One call, the same at each attempt.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Uri,
    pub(super) body: Option<Bytes>,
    pub(super) lane: Lane,
    /// Its name in metrics.
    pub(super) name: &'static str,
}

impl Call {
    /// Reads a URL that an answer has named and [`Endpoint::own`] has let through: the state of an operation, or a page.
    pub(super) fn follow(url: Uri, name: &'static str) -> Self {
        Self { method: Method::GET, url, body: None, lane: Lane::Read, name }
    }

    /// The request of one attempt. Each has an id of its own.
    pub(super) fn request(&self, token: HeaderValue) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone().unwrap_or_default()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.url.clone();
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, token);
        headers.insert(ACCEPT, JSON);
        let id = Uuid::new_v4().to_string();
        headers.insert("x-ms-client-request-id", HeaderValue::try_from(id).expect("an id is hexadecimal"));
        // On calls without a body too, as Azure's own clients send it.
        headers.insert(CONTENT_TYPE, JSON);
        if self.body.is_none() && self.method == Method::POST {
            // Azure's front doors want it, and hyper leaves it out when there is no body.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        request
    }

    /// What is asked, for the log: no query, which may be long.
    pub(super) fn what(&self) -> String {
        format!("{} {}", self.method, self.url.path())
    }
}

impl Endpoint {
    /// `url` was checked with the settings; one that is no URL leads nowhere.
    pub(super) fn new(url: &str, version: &str, regions: BTreeMap<String, String>) -> Self {
        let parts = url.parse::<Uri>().unwrap_or_default().into_parts();
        let nowhere = || Authority::from_static("invalid.invalid");
        Self {
            scheme: parts.scheme.unwrap_or(Scheme::HTTPS),
            authority: parts.authority.unwrap_or_else(nowhere),
            prefix: parts.path_and_query.map_or_else(String::new, |path| path.path().trim_end_matches('/').to_owned()),
            version: version.to_owned(),
            regions,
        }
    }

    /// What tokens are asked for: the endpoint itself in a cloud of its own, the public cloud for one on this machine.
    pub(super) fn audience(&self) -> String {
        if is_loopback(self.authority.host()) {
            PUBLIC.to_owned()
        } else {
            format!("https://{}", self.authority.as_str().to_ascii_lowercase())
        }
    }

    /// A call of a path below the endpoint.
    pub(super) fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Result<Call, ArmError> {
        if !path.starts_with('/') || path.split('/').any(|part| part == "." || part == "..") {
            return Err(refused(format!("{path} is no path of a resource")));
        }
        let mut target = format!("{}{}?api-version={}", self.prefix, escape_path(path), self.version_of(path));
        for (name, value) in query {
            // A plus is a blank in forms only.
            let value: String = byte_serialize(value.as_bytes()).collect::<String>().replace('+', "%20");
            target.push_str(&format!("&{name}={value}"));
        }
        let url = self.below(&target).ok_or_else(|| refused(format!("{path} is no path of a resource")))?;
        let (lane, name) = (self.lane(&method, path), name(&method));
        Ok(Call { method, url, body, lane, name })
    }

    /// The URL that an answer names, if it leads to this endpoint: a token is sent there, and nothing else may be reached
    /// through the agent. All names of this machine are one.
    pub(super) fn own(&self, url: &str) -> Option<Uri> {
        let url = url.trim();
        if url.starts_with('/') && !url.starts_with("//") {
            return self.below(url);
        }
        let found: Uri = url.parse().ok()?;
        let (scheme, authority) = (found.scheme()?, found.authority()?);
        let port = |scheme: &Scheme, authority: &Authority| {
            authority.port_u16().unwrap_or(if *scheme == Scheme::HTTPS { 443 } else { 80 })
        };
        let is_same_host = authority.host().eq_ignore_ascii_case(self.authority.host())
            || is_loopback(authority.host()) && is_loopback(self.authority.host());
        let is_own = *scheme == self.scheme
            && is_same_host
            && port(scheme, authority) == port(&self.scheme, &self.authority)
            && !authority.as_str().contains('@');
        if is_own { self.below(found.path_and_query()?.as_str()) } else { None }
    }

    fn below(&self, target: &str) -> Option<Uri> {
        let target = PathAndQuery::try_from(target).ok()?;
        Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(target).build().ok()
    }

    fn version_of(&self, path: &str) -> &str {
        let path = path.to_ascii_lowercase();
        if path.contains("/providers/microsoft.containerinstance/") {
            &self.version
        } else if path.contains("/providers/microsoft.storage/") {
            STORAGE_VERSION
        } else {
            RESOURCES_VERSION
        }
    }

    fn lane(&self, method: &Method, path: &str) -> Lane {
        if matches!(*method, Method::GET | Method::HEAD) {
            return Lane::Read;
        }
        let path = path.to_ascii_lowercase();
        let parts: Vec<&str> = path.split('/').collect();
        let &["", "subscriptions", _, "resourcegroups", group, "providers", provider, "containergroups", _] =
            &parts[..]
        else {
            return Lane::Write;
        };
        // A group that the settings do not have shares one pace with all such groups.
        let region = self.regions.get(group).cloned().unwrap_or_default();
        match *method {
            _ if provider != "microsoft.containerinstance" => Lane::Write,
            Method::PUT => Lane::Create(region),
            Method::DELETE => Lane::Delete(region),
            _ => Lane::Write,
        }
    }
}

fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "arm_get",
        Method::PUT => "arm_put",
        Method::PATCH => "arm_patch",
        Method::DELETE => "arm_delete",
        _ => "arm_post",
    }
}

fn refused(message: String) -> ArmError {
    ArmError::Refused(Box::new(Refusal { status: 400, message, ..Refusal::default() }))
}

/// Everything but what a path may hold as it is (RFC 3986, 3.3) is escaped, so that a name cannot become a query.
fn escape_path(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~()$".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Whether a host is this machine itself.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_address = address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    is_address || host.eq_ignore_ascii_case("localhost")
}

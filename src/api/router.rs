//! From method and path to a route: one `match`.
//!
//! The path is taken as it was sent. Nothing is decoded, folded or normalised, so `//`, a trailing slash or `%2f` lead
//! nowhere, and a subdomain that needs decoding is not a subdomain.

use hyper::Method;

use super::error::ApiError;
use crate::domain::{ErrorCode, Subdomain};

/// Everything the agent can be asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    Live,
    Ready,
    Provision,
    Update,
    Rollback(Subdomain),
    Restart(Subdomain),
    Stop(Subdomain),
    Start(Subdomain),
    Teardown(Subdomain),
    Tenants,
    Status(Subdomain),
    Logs(Subdomain),
    Images(Subdomain),
    Info,
    Cordon,
    Uncordon,
    Prune,
    OpenApi,
}

impl Route {
    /// The route as the log and the documentation write it.
    pub(super) fn template(&self) -> &'static str {
        match self {
            Self::Health => "/health",
            Self::Live => "/live",
            Self::Ready => "/ready",
            Self::Provision => "/v1/tenants/provision",
            Self::Update => "/v1/tenants/update",
            Self::Rollback(_) => "/v1/tenants/rollback/{subdomain}",
            Self::Restart(_) => "/v1/tenants/restart/{subdomain}",
            Self::Stop(_) => "/v1/tenants/stop/{subdomain}",
            Self::Start(_) => "/v1/tenants/start/{subdomain}",
            Self::Teardown(_) => "/v1/tenants/teardown/{subdomain}",
            Self::Tenants => "/v1/tenants",
            Self::Status(_) => "/v1/tenants/status/{subdomain}",
            Self::Logs(_) => "/v1/tenants/logs/{subdomain}",
            Self::Images(_) => "/v1/tenants/images/{subdomain}",
            Self::Info => "/v1/system/info",
            Self::Cordon => "/v1/system/cordon",
            Self::Uncordon => "/v1/system/uncordon",
            Self::Prune => "/v1/system/prune",
            Self::OpenApi => "/openapi.json",
        }
    }
}

/// HEAD asks what GET asks; hyper leaves the body out.
#[derive(Clone, Copy)]
enum Verb {
    Get,
    Post,
    Other,
}

/// The longest path there is has as many segments.
const MOST_SEGMENTS: usize = 4;

/// Finds the route, or says 404, 405 or 400 `INVALID_SUBDOMAIN`.
pub(super) fn find(method: &Method, path: &str) -> Result<Route, ApiError> {
    let verb = match *method {
        Method::GET | Method::HEAD => Verb::Get,
        Method::POST => Verb::Post,
        _ => Verb::Other,
    };
    let rest = path.strip_prefix('/').unwrap_or_default();
    let segments: Vec<&str> = rest.split('/').take(MOST_SEGMENTS + 1).collect();
    match (verb, segments.as_slice()) {
        (Verb::Get, ["health"]) => Ok(Route::Health),
        (Verb::Get, ["live"]) => Ok(Route::Live),
        (Verb::Get, ["ready"]) => Ok(Route::Ready),
        (Verb::Get, ["openapi.json"]) => Ok(Route::OpenApi),
        (Verb::Post, ["v1", "tenants", "provision"]) => Ok(Route::Provision),
        (Verb::Post, ["v1", "tenants", "update"]) => Ok(Route::Update),
        (Verb::Post, ["v1", "tenants", "rollback", tenant]) => named(tenant, Route::Rollback),
        (Verb::Post, ["v1", "tenants", "restart", tenant]) => named(tenant, Route::Restart),
        (Verb::Post, ["v1", "tenants", "stop", tenant]) => named(tenant, Route::Stop),
        (Verb::Post, ["v1", "tenants", "start", tenant]) => named(tenant, Route::Start),
        (Verb::Post, ["v1", "tenants", "teardown", tenant]) => named(tenant, Route::Teardown),
        (Verb::Get, ["v1", "tenants"]) => Ok(Route::Tenants),
        (Verb::Get, ["v1", "tenants", "status", tenant]) => named(tenant, Route::Status),
        (Verb::Get, ["v1", "tenants", "logs", tenant]) => named(tenant, Route::Logs),
        (Verb::Get, ["v1", "tenants", "images", tenant]) => named(tenant, Route::Images),
        (Verb::Get, ["v1", "system", "info"]) => Ok(Route::Info),
        (Verb::Post, ["v1", "system", "cordon"]) => Ok(Route::Cordon),
        (Verb::Post, ["v1", "system", "uncordon"]) => Ok(Route::Uncordon),
        (Verb::Post, ["v1", "system", "prune"]) => Ok(Route::Prune),
        (
            _,
            ["health" | "live" | "ready" | "openapi.json"]
            | ["v1", "tenants"]
            | ["v1", "tenants", "status" | "logs" | "images", _]
            | ["v1", "system", "info"],
        ) => Err(ApiError::method_not_allowed("GET, HEAD")),
        (
            _,
            ["v1", "tenants", "provision" | "update"]
            | ["v1", "tenants", "rollback" | "restart" | "stop" | "start" | "teardown", _]
            | ["v1", "system", "cordon" | "uncordon" | "prune"],
        ) => Err(ApiError::method_not_allowed("POST")),
        _ => Err(ApiError::new(ErrorCode::NotFound, "there is no such path")),
    }
}

fn named(tenant: &str, route: fn(Subdomain) -> Route) -> Result<Route, ApiError> {
    Ok(route(Subdomain::parse(tenant)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_template_and_by_no_other_method() {
        let acme = || Subdomain::parse("acme").unwrap();
        for (method, route) in [
            ("GET", Route::Health),
            ("GET", Route::Live),
            ("GET", Route::Ready),
            ("POST", Route::Provision),
            ("POST", Route::Update),
            ("POST", Route::Rollback(acme())),
            ("POST", Route::Restart(acme())),
            ("POST", Route::Stop(acme())),
            ("POST", Route::Start(acme())),
            ("POST", Route::Teardown(acme())),
            ("GET", Route::Tenants),
            ("GET", Route::Status(acme())),
            ("GET", Route::Logs(acme())),
            ("GET", Route::Images(acme())),
            ("GET", Route::Info),
            ("POST", Route::Cordon),
            ("POST", Route::Uncordon),
            ("POST", Route::Prune),
            ("GET", Route::OpenApi),
        ] {
            let path = route.template().replace("{subdomain}", "acme");
            for asked in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
                let found = find(&Method::from_bytes(asked.as_bytes()).unwrap(), &path);
                if asked == method || (asked == "HEAD" && method == "GET") {
                    assert_eq!(found.ok(), Some(route.clone()), "{asked} {path}");
                } else {
                    assert_eq!(found.unwrap_err().code, ErrorCode::MethodNotAllowed, "{asked} {path}");
                }
            }
        }
    }

    proptest::proptest! {
        /// The path of the route that is found is the path that was sent; every other path is 404, or has a bad name in it.
        #[test]
        fn nothing_but_a_route_is_a_route(
            path in proptest::prop_oneof![
                "\\PC{0,40}",
                "(/|//|/v1|/V1|/tenants|/system|/info|/status|/logs|/stop|/provision|/health|/live|/acme|/a-b|%2f|\\.\\.|;x|#|\\\\){0,6}",
            ],
            post in proptest::bool::ANY,
        ) {
            let method = if post { Method::POST } else { Method::GET };
            let last = path.rsplit('/').next().unwrap_or_default();
            match find(&method, &path) {
                Ok(route) => proptest::prop_assert_eq!(route.template().replace("{subdomain}", last), path),
                Err(error) => match error.code {
                    ErrorCode::NotFound => {}
                    ErrorCode::InvalidSubdomain => proptest::prop_assert!(Subdomain::parse(last).is_err()),
                    ErrorCode::MethodNotAllowed => {
                        let other = if post { Method::GET } else { Method::POST };
                        let code = find(&other, &path).err().map(|error| error.code);
                        proptest::prop_assert!(matches!(code, None | Some(ErrorCode::InvalidSubdomain)), "{:?}", code);
                    }
                    code => proptest::prop_assert!(false, "{:?}", code),
                },
            }
        }
    }

    #[test]
    fn paths_are_taken_as_they_are() {
        use ErrorCode::{InvalidSubdomain, NotFound};
        for (path, code) in [
            ("", NotFound),
            ("*", NotFound),
            ("/", NotFound),
            ("//health", NotFound),
            ("/health/", NotFound),
            ("/Health", NotFound),
            ("/v1", NotFound),
            ("/v1/tenants/", NotFound),
            ("/v1//tenants", NotFound),
            ("/v2/tenants", NotFound),
            ("/v1/tenants/status", NotFound),
            ("/v1/tenants/status/acme/", NotFound),
            ("/v1/tenants/status/acme/x/y/z", NotFound),
            ("/v1/tenants/nothing/acme", NotFound),
            ("/v1/%74enants", NotFound),
            ("/v1/tenants/../tenants", NotFound),
            ("/v1/tenants/status/", InvalidSubdomain),
            ("/v1/tenants/status/ACME", InvalidSubdomain),
            ("/v1/tenants/status/a%63me", InvalidSubdomain),
            ("/v1/tenants/status/acme%2f", InvalidSubdomain),
            ("/v1/tenants/status/..", InvalidSubdomain),
            ("/v1/tenants/status/docker", InvalidSubdomain),
        ] {
            let error = find(&Method::GET, path).unwrap_err();
            assert_eq!(error.code, code, "{path}");
            assert!(!error.message.contains("acme"), "{}", error.message);
        }
    }
}

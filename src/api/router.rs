//! From method and path to a route: one `match`.
//!
//! The path is taken as it was sent. Nothing is decoded, folded or normalised, so `//`, a trailing slash or `%2f` lead
//! nowhere, and a subdomain that needs decoding is not a subdomain.

use hyper::Method;

use super::error::ApiError;
use crate::domain::{ErrorCode, OperationId, Subdomain};

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
    TenantStats(Subdomain),
    Plan,
    Operations,
    Operation(OperationId),
    OperationEvents(OperationId),
    CancelOperation(OperationId),
    Info,
    SystemStats,
    Metrics,
    Events,
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
            Self::TenantStats(_) => "/v1/tenants/stats/{subdomain}",
            Self::Plan => "/v1/tenants/plan",
            Self::Operations => "/v1/operations",
            Self::Operation(_) => "/v1/operations/{id}",
            Self::OperationEvents(_) => "/v1/operations/{id}/events",
            Self::CancelOperation(_) => "/v1/operations/{id}/cancel",
            Self::Info => "/v1/system/info",
            Self::SystemStats => "/v1/system/stats",
            Self::Metrics => "/metrics",
            Self::Events => "/v1/events",
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
        (Verb::Get, ["v1", "tenants", "stats", tenant]) => named(tenant, Route::TenantStats),
        (Verb::Post, ["v1", "tenants", "plan"]) => Ok(Route::Plan),
        (Verb::Get, ["v1", "operations"]) => Ok(Route::Operations),
        (_, ["v1", "operations", id, rest @ ..]) => operation(verb, id, rest),
        (Verb::Get, ["v1", "system", "info"]) => Ok(Route::Info),
        (Verb::Get, ["v1", "system", "stats"]) => Ok(Route::SystemStats),
        (Verb::Get, ["metrics"]) => Ok(Route::Metrics),
        (Verb::Get, ["v1", "events"]) => Ok(Route::Events),
        (Verb::Post, ["v1", "system", "cordon"]) => Ok(Route::Cordon),
        (Verb::Post, ["v1", "system", "uncordon"]) => Ok(Route::Uncordon),
        (Verb::Post, ["v1", "system", "prune"]) => Ok(Route::Prune),
        (
            _,
            ["health" | "live" | "ready" | "metrics" | "openapi.json"]
            | ["v1", "tenants" | "operations" | "events"]
            | ["v1", "tenants", "status" | "logs" | "images" | "stats", _]
            | ["v1", "system", "info" | "stats"],
        ) => Err(ApiError::method_not_allowed("GET, HEAD")),
        (
            _,
            ["v1", "tenants", "provision" | "update" | "plan"]
            | ["v1", "tenants", "rollback" | "restart" | "stop" | "start" | "teardown", _]
            | ["v1", "system", "cordon" | "uncordon" | "prune"],
        ) => Err(ApiError::method_not_allowed("POST")),
        _ => Err(no_such_path()),
    }
}

/// A path below an operation's. What is no id names no operation.
fn operation(verb: Verb, id: &str, rest: &[&str]) -> Result<Route, ApiError> {
    let id = OperationId::parse(id).map_err(|_| no_such_path())?;
    match (verb, rest) {
        (Verb::Get, []) => Ok(Route::Operation(id)),
        (Verb::Get, ["events"]) => Ok(Route::OperationEvents(id)),
        (Verb::Post, ["cancel"]) => Ok(Route::CancelOperation(id)),
        (_, [] | ["events"]) => Err(ApiError::method_not_allowed("GET, HEAD")),
        (_, ["cancel"]) => Err(ApiError::method_not_allowed("POST")),
        _ => Err(no_such_path()),
    }
}

fn no_such_path() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there is no such path")
}

fn named(tenant: &str, route: fn(Subdomain) -> Route) -> Result<Route, ApiError> {
    Ok(route(Subdomain::parse(tenant)?))
}

/// One of each kind, in the order in which they are documented. One that is missing here does not compile.
#[cfg(test)]
pub(super) fn every(tenant: &Subdomain, id: OperationId) -> Vec<Route> {
    macro_rules! all {
        ($($route:ident $(($of:expr))?),* $(,)?) => {{
            let _complete = |route: &Route| match route { $(Route::$route { .. } => {}),* };
            vec![$(Route::$route $(($of))?),*]
        }};
    }
    let tenant = || tenant.clone();
    all![
        Provision,
        Update,
        Rollback(tenant()),
        Restart(tenant()),
        Stop(tenant()),
        Start(tenant()),
        Teardown(tenant()),
        Tenants,
        Status(tenant()),
        Logs(tenant()),
        Images(tenant()),
        TenantStats(tenant()),
        Plan,
        Operations,
        Operation(id),
        OperationEvents(id),
        CancelOperation(id),
        Info,
        SystemStats,
        Cordon,
        Uncordon,
        Prune,
        Events,
        Health,
        Live,
        Ready,
        OpenApi,
        Metrics,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_template_and_by_no_other_method() {
        let id = OperationId::new();
        for route in every(&Subdomain::parse("acme").unwrap(), id) {
            let method = match route {
                Route::Health | Route::Live | Route::Ready | Route::Metrics | Route::OpenApi => "GET",
                Route::Tenants | Route::Status(_) | Route::Logs(_) | Route::Images(_) | Route::TenantStats(_) => "GET",
                Route::Operations | Route::Operation(_) | Route::OperationEvents(_) => "GET",
                Route::Info | Route::SystemStats | Route::Events => "GET",
                Route::Provision | Route::Update | Route::Rollback(_) | Route::Plan => "POST",
                Route::Restart(_) | Route::Stop(_) | Route::Start(_) | Route::Teardown(_) => "POST",
                Route::CancelOperation(_) | Route::Cordon | Route::Uncordon | Route::Prune => "POST",
            };
            let path = route.template().replace("{subdomain}", "acme").replace("{id}", &id.to_string());
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
                "(/|//|/v1|/V1|/tenants|/system|/info|/stats|/metrics|/events|/status|/logs|/stop|/provision|/health|/live|/acme|/a-b|%2f|\\.\\.|;x|#|\\\\){0,6}",
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
            ("/v1/operations/", NotFound),
            ("/v1/operations/acme", NotFound),
            ("/v1/operations/0190A1B2-0000-7000-8000-000000000000", NotFound),
            ("/v1/operations/0190a1b2-0000-7000-8000-000000000000/nothing", NotFound),
            ("/v1/operations/0190a1b2-0000-7000-8000-000000000000/events/", NotFound),
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

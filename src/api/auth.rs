//! Who may do what: bearer tokens, compared in constant time.

use std::sync::{Arc, PoisonError, RwLock};

use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::{Method, Request};
use subtle::{Choice, ConstantTimeEq as _};

use super::error::ApiError;
use crate::config::{TokenDigest, Tokens};
use crate::domain::ErrorCode;

/// The tokens that are accepted right now; they can be exchanged while requests are running.
#[derive(Debug, Clone)]
pub struct LiveTokens(Arc<RwLock<Tokens>>);

impl LiveTokens {
    /// Starts with these.
    pub fn new(tokens: Tokens) -> Self {
        Self(Arc::new(RwLock::new(tokens)))
    }

    /// From the next request on, these and no others are accepted.
    pub fn replace(&self, tokens: Tokens) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    fn scope(&self, presented: &[u8]) -> Option<Scope> {
        scope(&self.0.read().unwrap_or_else(PoisonError::into_inner), presented)
    }
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Admin,
    Read,
}

/// Whether the request is a probe, the only thing that needs no token. The path is compared as it was sent.
pub(super) fn is_probe<B>(request: &Request<B>) -> bool {
    is_read(request.method()) && is_open(request.uri().path())
}

/// Whether a path wants no token.
pub(super) fn is_open(path: &str) -> bool {
    matches!(path, "/health" | "/live" | "/ready")
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Lets the request through, or gives 401 (no good token) or 403 (a token that may only read).
pub(super) fn check(tokens: &LiveTokens, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    match bearer(headers).and_then(|token| tokens.scope(token)) {
        Some(Scope::Admin) => Ok(()),
        Some(Scope::Read) if is_read(method) => Ok(()),
        Some(Scope::Read) => Err(ApiError::new(ErrorCode::Forbidden, "this token may only read (GET)").hanging_up()),
        None => Err(ApiError::unauthorized()),
    }
}

/// The token of the one Authorization header. Two of them are ambiguous: a proxy may have looked at the other one.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let value = value.as_bytes();
    let (scheme, rest) = value.split_at_checked("Bearer".len())?;
    let spaces = rest.iter().take_while(|&&c| c == b' ').count();
    let token = &rest[spaces..];
    // RFC 9110 11.1 and 11.4: the scheme's name is case-insensitive and ends with spaces, which a tab is not.
    let proper = spaces > 0 && !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    (proper && scheme.eq_ignore_ascii_case(b"Bearer")).then_some(token)
}

/// Compares with every token, so that the time says neither which one matched nor whether an early byte did.
fn scope(tokens: &Tokens, presented: &[u8]) -> Option<Scope> {
    let presented = TokenDigest::of(presented);
    let any = |accepted: &[TokenDigest]| {
        accepted
            .iter()
            .map(|token| token.as_bytes().ct_eq(presented.as_bytes()))
            .fold(Choice::from(0), |found, equal| found | equal)
    };
    let (admin, read) = (any(tokens.admin()), any(tokens.read()));
    if admin.into() {
        Some(Scope::Admin)
    } else if read.into() {
        Some(Scope::Read)
    } else {
        None
    }
}

#[cfg(test)]
pub(super) mod tests {
    use hyper::header::HeaderValue;
    use proptest::strategy::Strategy as _;

    use super::*;
    use crate::config::Config;

    pub(in crate::api) const ADMIN: &str = "0f8b1c7a9d2e4f60718293a4b5c6d7e8";
    pub(in crate::api) const READ: &str = "f9e8d7c6b5a4039281706f5e4d3c2b1a";
    const OLD: &str = "8e7d6c5b4a39281706f5e4d2c3b1a0f9";

    pub(in crate::api) fn tokens(admin: &str) -> Tokens {
        let variables = [("Q8_AGENT_ADMIN_TOKEN", admin), ("Q8_AGENT_READ_TOKEN", READ)];
        Config::from_env(variables.into_iter().map(|(name, value)| (name.into(), value.into()))).unwrap().tokens
    }

    fn verdict(tokens: &LiveTokens, method: &Method, values: &[&str]) -> u16 {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        match check(tokens, method, &headers) {
            Ok(()) => 200,
            Err(error) => error.answer(&super::super::access_log::RequestId::parse("r").unwrap()).status().as_u16(),
        }
    }

    #[test]
    fn who_is_let_in() {
        let live = LiveTokens::new(tokens(ADMIN));
        let good = format!("Bearer {ADMIN}");
        let read = format!("bearer {READ}");
        for (method, values, wanted) in [
            (Method::POST, &[good.as_str()][..], 200),
            (Method::POST, &[&good.replace("Bearer", "bEARER")], 200),
            (Method::POST, &[&good.replace(' ', "   ")], 200),
            (Method::GET, &[&read], 200),
            (Method::HEAD, &[&read], 200),
            (Method::POST, &[&read], 403),
            (Method::DELETE, &[&read], 403),
            (Method::GET, &[], 401),
            (Method::GET, &[&good, &good], 401),
            (Method::GET, &[ADMIN], 401),
            (Method::GET, &["Bearer"], 401),
            (Method::GET, &["Bearer "], 401),
            (Method::GET, &[&format!("Bearer{ADMIN}")], 401),
            (Method::GET, &[&format!("Basic {ADMIN}")], 401),
            (Method::GET, &[&format!("Bearer {ADMIN}x")], 401),
            (Method::GET, &[&format!("Bearer {}", &ADMIN[..31])], 401),
            (Method::GET, &[&format!("Bearer {}", ADMIN.to_uppercase())], 401),
            (Method::GET, &[&format!("Bearer {ADMIN} {ADMIN}")], 401),
            (Method::GET, &["Bearer ä"], 401),
            (Method::GET, &[&format!("Bearer\t{ADMIN}")], 401),
            (Method::GET, &[&format!("Bearer \t{ADMIN}")], 401),
            (Method::GET, &[&format!("Bearer {ADMIN}, Bearer {ADMIN}")], 401),
            (Method::GET, &[&format!("Bearer \"{ADMIN}\"")], 401),
            (Method::GET, &[&format!("Bearer token={ADMIN}")], 401),
            (Method::GET, &[&format!("Bearer, {ADMIN}")], 401),
        ] {
            assert_eq!(verdict(&live, &method, values), wanted, "{method} {values:?}");
        }
    }

    proptest::proptest! {
        /// No header but the scheme, spaces and a good token lets anybody in.
        #[test]
        fn nothing_but_a_token_is_a_token(value in proptest::prop_oneof![
            "[ -~]{0,60}".boxed(),
            proptest::string::string_regex(&format!("(Bearer|bearer|Basic)?[ \t,]{{0,2}}({ADMIN}|{READ}|{OLD}|x)?[ ,x=]{{0,1}}"))
                .unwrap()
                .boxed(),
        ]) {
            let live = LiveTokens::new(tokens(ADMIN));
            let (scheme, token) = value.split_once(' ').unwrap_or_default();
            let token = token.trim_start_matches(' ');
            let good = scheme.eq_ignore_ascii_case("bearer") && (token == ADMIN || token == READ);
            proptest::prop_assert_eq!(verdict(&live, &Method::GET, &[&value]) == 200, good, "{:?}", value);
        }
    }

    #[test]
    fn tokens_can_be_exchanged_while_the_agent_runs() {
        let live = LiveTokens::new(tokens(OLD));
        let held_elsewhere = live.clone();
        assert_eq!(verdict(&held_elsewhere, &Method::POST, &[&format!("Bearer {OLD}")]), 200);
        live.replace(tokens(ADMIN));
        assert_eq!(verdict(&held_elsewhere, &Method::POST, &[&format!("Bearer {OLD}")]), 401);
        assert_eq!(verdict(&held_elsewhere, &Method::POST, &[&format!("Bearer {ADMIN}")]), 200);
    }

    #[test]
    fn only_exact_probes_need_no_token() {
        for (method, uri, wanted) in [
            ("GET", "/health", true),
            ("HEAD", "/ready", true),
            ("GET", "/live?x=1", true),
            ("GET", "http://agent.example/live", true),
            ("POST", "/health", false),
            ("GET", "/health/", false),
            ("GET", "//health", false),
            ("GET", "/Health", false),
            ("GET", "/%68ealth", false),
            ("GET", "/v1/tenants/../../health", false),
            ("GET", "/metrics", false),
        ] {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            assert_eq!(is_probe(&request), wanted, "{method} {uri}");
        }
    }
}

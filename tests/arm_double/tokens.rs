//! Who may call: the token endpoint of Microsoft Entra, the metadata service of a virtual machine, and the one of App Service.

use std::collections::BTreeMap;

use serde_json::json;

use super::answer::Answer;
use super::call::Call;
use super::clock::{Clock, Millis};
use super::world::State;

/// The tenant of Entra, the application and what it proves itself with.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    pub(super) tenant: String,
    pub(super) client: String,
    pub(super) secret: String,
    pub(super) assertion: String,
    pub(super) header: String,
    /// Until when each token is good.
    pub(super) good: BTreeMap<String, Millis>,
    /// How many were asked for.
    pub(super) asked: u32,
}

/// What tokens may be for.
const RESOURCE: &str = "https://management.azure.com";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

impl State {
    fn new_token(&mut self, now: Millis) -> String {
        let token = format!("eyJ0eXAiOiJKV1QifQ.{}.{}", uuid::Uuid::new_v4().simple(), self.number());
        self.tokens.good.insert(token.clone(), now + self.settings.token_seconds * 1000);
        token
    }

    fn is_for_arm(&self, resource: &str) -> bool {
        let resource = resource.trim_end_matches('/');
        resource == RESOURCE || resource == self.endpoint
    }

    /// POST /{tenant}/oauth2/v2.0/token
    pub(super) fn authority(&mut self, call: &Call, now: Millis) -> Answer {
        self.tokens.asked += 1;
        let refuse = |status, error: &str, code: u32, text: &str| {
            Answer::json(
                status,
                json!({
                    "error": error, "error_description": format!("AADSTS{code}: {text}"), "error_codes": [code],
                    "correlation_id": "00000000-0000-0000-0000-000000000001",
                }),
            )
        };
        let segments: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
        let [tenant, "oauth2", "v2.0", "token"] = segments.as_slice() else {
            self.violation(format!("{} {}: no such place at the authority", call.method, call.path));
            return Answer::html(404);
        };
        if call.method != "POST" {
            return refuse(405, "invalid_request", 900_561, "The endpoint only accepts POST requests.");
        }
        if *tenant != self.tokens.tenant {
            return refuse(400, "invalid_request", 90002, "Tenant not found.");
        }
        if !call.header("content-type").starts_with("application/x-www-form-urlencoded") {
            self.violation("a token was asked for with a body that is no form");
            return refuse(
                400,
                "invalid_request",
                900_144,
                "The request body must contain the following parameter: 'grant_type'.",
            );
        }
        let form: BTreeMap<String, String> = form_urlencoded::parse(&call.bytes).into_owned().collect();
        let of = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if of("grant_type") != "client_credentials" {
            return refuse(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.");
        }
        if of("client_id") != self.tokens.client {
            return refuse(400, "unauthorized_client", 700_016, "Application was not found in the directory.");
        }
        if !of("scope").strip_suffix("/.default").is_some_and(|resource| self.is_for_arm(resource)) {
            return refuse(
                400,
                "invalid_scope",
                70011,
                "The provided value for the input parameter 'scope' is not valid.",
            );
        }
        let known = match (form.get("client_secret"), form.get("client_assertion")) {
            (Some(secret), None) => *secret == self.tokens.secret,
            (None, Some(assertion)) => {
                *assertion == self.tokens.assertion && of("client_assertion_type") == ASSERTION_TYPE
            }
            _ => {
                self.violation("a token was asked for with neither or both of secret and assertion");
                false
            }
        };
        if !known {
            return refuse(401, "invalid_client", 7_000_215, "Invalid client secret provided.");
        }
        let token = self.new_token(now);
        let seconds = self.settings.token_seconds;
        Answer::json(
            200,
            json!({
                "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token,
            }),
        )
    }

    /// GET /metadata/identity/oauth2/token and GET /msi/token
    pub(super) fn metadata(&mut self, call: &Call, now: Millis, clock: &Clock) -> Answer {
        self.tokens.asked += 1;
        let refuse =
            |status, text: &str| Answer::json(status, json!({"error": "invalid_request", "error_description": text}));
        let virtual_machine = match call.path.as_str() {
            "/metadata/identity/oauth2/token" => true,
            "/msi/token" => false,
            _ => {
                self.violation(format!("{} {}: no such place at the metadata service", call.method, call.path));
                return Answer::html(404);
            }
        };
        if call.method != "GET" {
            return refuse(405, "Method not allowed");
        }
        if virtual_machine {
            if call.header("metadata") != "true" {
                return refuse(400, "Required metadata header not specified");
            }
            if !call.header("x-forwarded-for").is_empty() {
                return refuse(400, "A forwarded request");
            }
        } else if call.header("x-identity-header") != self.tokens.header {
            return refuse(401, "The identity header is missing or wrong");
        }
        let versions: &[&str] =
            if virtual_machine { &["2018-02-01", "2019-08-01", "2021-02-01"] } else { &["2019-08-01"] };
        if !versions.contains(&call.parameter("api-version").unwrap_or_default()) {
            return refuse(400, "Invalid api-version");
        }
        if !call.parameter("resource").is_some_and(|resource| self.is_for_arm(resource)) {
            return refuse(400, "invalid_resource");
        }
        if call.parameter("client_id").is_some_and(|client| client != self.tokens.client) {
            return refuse(400, "Identity not found");
        }
        let token = self.new_token(now);
        let seconds = self.settings.token_seconds;
        let mut body = json!({
            "access_token": token,
            "client_id": self.tokens.client,
            "expires_on": clock.epoch_seconds(now + seconds * 1000).to_string(),
            "resource": call.parameter("resource"),
            "token_type": "Bearer",
        });
        if virtual_machine {
            body["expires_in"] = json!(seconds.to_string());
            body["ext_expires_in"] = json!(seconds.to_string());
            body["not_before"] = json!(clock.epoch_seconds(now).to_string());
        }
        Answer::json(200, body)
    }

    /// The refusal of a call whose token is missing, unknown or old.
    pub(super) fn unauthorised(&self, call: &Call, now: Millis) -> Option<Answer> {
        let token = call.header("authorization").strip_prefix("Bearer ");
        let (code, message) = match token.map(|token| self.tokens.good.get(token)) {
            Some(Some(until)) if now < *until => return None,
            Some(Some(_)) => {
                ("ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than current UTC time.")
            }
            Some(None) => ("InvalidAuthenticationToken", "The access token is invalid."),
            None => ("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."),
        };
        Some(self.challenge(code, message))
    }

    pub(super) fn challenge(&self, code: &str, message: &str) -> Answer {
        let value = format!(
            "Bearer authorization_uri=\"{}/{}\", error=\"invalid_token\", error_description=\"{message}\"",
            self.authority, self.tokens.tenant
        );
        Answer::error(401, code, message).header("www-authenticate", value)
    }
}

//! The front door of Azure Resource Manager: what every call must have, and where it goes.

use serde_json::Value;

use super::answer::Answer;
use super::call::Call;
use super::clock::{Clock, Millis};
use super::schema::{Kind, Member, Wrong, check};
use super::world::State;

/// A call that passed the front door.
pub(super) struct Entered<'a> {
    pub(super) call: &'a Call,
    pub(super) subscription: String,
    pub(super) version: String,
    /// Null if there is none.
    pub(super) body: Value,
    pub(super) now: Millis,
    pub(super) clock: &'a Clock,
}

const PARAMETERS: &[&str] =
    &["api-version", "tail", "timestamps", "$filter", "$top", "$expand", "$skiptoken", "$maxpagesize", "monitor"];

impl State {
    /// Answers a call to Azure Resource Manager.
    pub(super) fn arm(&mut self, call: &Call, now: Millis, clock: &Clock) -> Answer {
        self.sweep(now);
        self.manners(call);
        if ["POST", "PUT", "PATCH"].contains(&call.method.as_str())
            && call.header("content-length").is_empty()
            && call.header("transfer-encoding").is_empty()
        {
            self.violation(format!("{} {}: no Content-Length", call.method, call.path));
            return Answer::html(411);
        }
        if let Some(refusal) = self.unauthorised(call, now) {
            return refusal;
        }
        let place = call.path.to_lowercase();
        let version = match self.version(call, &place) {
            Ok(version) => version,
            Err(refusal) => return refusal,
        };
        let body = match self.body(call) {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        let lower: Vec<&str> = place.trim_matches('/').split('/').collect();
        let names: Vec<&str> = call.path.trim_matches('/').split('/').collect();
        let (["subscriptions", subscription, rest @ ..], true) = (lower.as_slice(), lower.len() == names.len()) else {
            return self.nowhere(call);
        };
        if !self.subscriptions.contains_key(*subscription) {
            return Answer::error(
                404,
                "SubscriptionNotFound",
                format!("The subscription '{subscription}' could not be found."),
            );
        }
        let entered = Entered { call, subscription: (*subscription).to_owned(), version, body, now, clock };
        self.route(&entered, rest, names.get(2..).unwrap_or_default())
    }

    fn route(&mut self, entered: &Entered<'_>, lower: &[&str], names: &[&str]) -> Answer {
        let method = entered.call.method.as_str();
        match (method, lower) {
            ("GET", []) => self.subscription(entered),
            ("GET", ["resourcegroups"]) => self.resource_groups(entered),
            ("GET", ["resources"]) => self.resources(entered, None),
            ("GET" | "PUT" | "PATCH" | "HEAD" | "DELETE", ["resourcegroups", _]) => {
                self.resource_group(entered, names[1])
            }
            ("GET", ["providers", "microsoft.containerinstance" | "microsoft.storage"]) => {
                Self::provider(entered, names[1])
            }
            ("POST", ["providers", "microsoft.containerinstance" | "microsoft.storage", "register"]) => {
                Self::provider(entered, names[1])
            }
            ("GET", ["providers", "microsoft.containerinstance", "containergroups"]) => self.list_groups(entered, None),
            ("GET", ["providers", "microsoft.containerinstance", "locations", location, what]) => {
                self.location(entered, location, what)
            }
            ("GET", ["providers", "microsoft.containerinstance", "locations", _, "operations", _]) => {
                self.poll_status(names[5], entered.now, entered.clock)
            }
            ("GET", ["providers", "microsoft.containerinstance", "locations", _, "operationresults", _]) => {
                self.poll_result(names[5], &entered.call.target, entered.now, entered.clock)
            }
            ("GET", ["providers", "microsoft.storage", "locations", _, "asyncoperations", _]) => {
                self.poll_account(entered, names[5])
            }
            ("GET", ["providers", "microsoft.storage", "storageaccounts"]) => self.list_accounts(entered, None),
            (_, ["resourcegroups", _, rest @ ..]) => match self.known_resource_group(&entered.subscription, names[1]) {
                Ok(group) => self.route_in(entered, &group, rest, &names[2..]),
                Err(refusal) => refusal,
            },
            _ => self.nowhere(entered.call),
        }
    }

    /// Calls inside a resource group that exists.
    fn route_in(&mut self, entered: &Entered<'_>, group: &str, lower: &[&str], names: &[&str]) -> Answer {
        let method = entered.call.method.as_str();
        match (method, lower) {
            ("GET", ["resources"]) => self.resources(entered, Some(group)),
            ("GET", ["providers", "microsoft.containerinstance", "containergroups"]) => {
                self.list_groups(entered, Some(group))
            }
            (_, ["providers", "microsoft.containerinstance", "containergroups", _, rest @ ..]) => {
                self.group_call(entered, group, names[3], rest, &names[4..])
            }
            ("GET", ["providers", "microsoft.storage", "storageaccounts"]) => self.list_accounts(entered, Some(group)),
            (_, ["providers", "microsoft.storage", "storageaccounts", _, rest @ ..]) => {
                self.account_call(entered, group, names[3], rest, &names[4..])
            }
            _ => self.nowhere(entered.call),
        }
    }

    /// A call to nothing that there is.
    pub(super) fn nowhere(&mut self, call: &Call) -> Answer {
        self.violation(format!("{} {}: there is no such call", call.method, call.path));
        Answer::error(404, "InvalidResourceType", "The resource type could not be found.")
    }

    /// What is no reason to refuse a call, but wrong.
    fn manners(&mut self, call: &Call) {
        let place = format!("{} {}", call.method, call.path);
        if call.header("user-agent").is_empty() {
            self.violation(format!("{place}: no User-Agent"));
        }
        if uuid::Uuid::parse_str(call.header("x-ms-client-request-id")).is_err() {
            self.violation(format!("{place}: x-ms-client-request-id is no GUID"));
        }
        let kind = call.header("content-type").split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            self.violation(format!("{place}: Content-Type is '{kind}'"));
        }
        let mut names: Vec<&str> = call.query.iter().map(|(name, _)| name.as_str()).collect();
        for name in &names {
            if !PARAMETERS.contains(&name.to_lowercase().as_str()) {
                self.violations.push(format!("{place}: unknown parameter {name}"));
            }
        }
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        if names.len() != count {
            self.violation(format!("{place}: a parameter is there twice: {}", call.target));
        }
        if call.path.contains("//") || call.path.ends_with('/') {
            self.violation(format!("{place}: an empty part of the path"));
        }
    }

    fn version(&mut self, call: &Call, place: &str) -> Result<String, Answer> {
        let known: &[&str] = if place.contains("/microsoft.containerinstance") {
            &["2023-05-01", "2025-09-01", "2026-07-01"]
        } else if place.contains("/microsoft.storage") {
            &["2023-01-01", "2023-05-01", "2026-04-01"]
        } else {
            &["2021-04-01", "2022-09-01"]
        };
        match call.parameter("api-version") {
            Some(version) if known.contains(&version) => Ok(version.to_owned()),
            Some(version) => {
                self.violation(format!("{} {}: unknown api-version {version}", call.method, call.path));
                Err(Answer::error(
                    400,
                    "InvalidApiVersionParameter",
                    format!(
                        "The api-version '{version}' is invalid. The supported versions are '{}'.",
                        known.join(",")
                    ),
                ))
            }
            None => {
                self.violation(format!("{} {}: no api-version", call.method, call.path));
                Err(Answer::error(
                    400,
                    "MissingApiVersionParameter",
                    "The api-version query parameter (?api-version=) is required for all requests.",
                ))
            }
        }
    }

    fn body(&mut self, call: &Call) -> Result<Value, Answer> {
        let place = format!("{} {}", call.method, call.path);
        if call.bytes.is_empty() {
            if matches!(call.method.as_str(), "PUT" | "PATCH") {
                self.violation(format!("{place}: no body"));
                return Err(Answer::error(400, "MissingContent", "The request content was missing."));
            }
            return Ok(Value::Null);
        }
        if matches!(call.method.as_str(), "GET" | "HEAD" | "DELETE") {
            self.violation(format!("{place}: a body"));
        }
        let kind = call.header("content-type").split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            self.violation(format!("{place}: Content-Type is '{kind}'"));
            return Err(Answer::error(
                415,
                "UnsupportedMediaType",
                format!("The content media type '{kind}' is not supported. Only 'application/json' is supported."),
            ));
        }
        serde_json::from_slice(&call.bytes).map_err(|error| {
            self.violation(format!("{place}: the body is no JSON: {error}"));
            Answer::error(
                400,
                "InvalidRequestContent",
                format!("The request content was invalid and could not be deserialized: '{error}'."),
            )
        })
    }

    /// Holds a body against its members. Whatever is wrong with it is a violation, too.
    pub(super) fn hold(&mut self, entered: &Entered<'_>, members: &'static [Member]) -> Result<(), Answer> {
        let wrong = check(&entered.body, members, &entered.version);
        for Wrong { path, what } in &wrong {
            self.violation(format!("{} {}: {path}: {what}", entered.call.method, entered.call.path));
        }
        match wrong.into_iter().find(|wrong| wrong.what != Kind::IS_READ_ONLY) {
            Some(Wrong { path, what }) => Err(Answer::error(
                400,
                "InvalidRequestContent",
                format!(
                    "The request content was invalid and could not be deserialized: '{what}. Path '{path}', line 1, position 1.'."
                ),
            )),
            None => Ok(()),
        }
    }

    /// One page of a list, with an absolute link to the next one.
    pub(super) fn page(&mut self, entered: &Entered<'_>, items: Vec<Value>) -> Answer {
        let call = entered.call;
        let from: usize = match call.parameter("$skiptoken").map(str::parse) {
            None => 0,
            Some(Ok(from)) => from,
            Some(Err(_)) => return Answer::error(400, "InvalidSkipToken", "The skip token is invalid."),
        };
        let count = items.len();
        let size = self.settings.page.max(1);
        let page: Vec<Value> = items.into_iter().skip(from).take(size).collect();
        let mut body = serde_json::json!({ "value": page });
        if from + size < count {
            let mut query = form_urlencoded::Serializer::new(String::new());
            for (name, value) in call.query.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("$skiptoken")) {
                query.append_pair(name, value);
            }
            query.append_pair("$skiptoken", &(from + size).to_string());
            let base = self.settings.next_links.as_ref().unwrap_or(&self.endpoint);
            body["nextLink"] = Value::from(format!("{base}{}?{}", call.path, query.finish()));
        }
        Answer::json(200, body)
    }
}

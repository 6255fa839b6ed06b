//! What the double says: a status, headers, a body; and the errors of Azure Resource Manager by their codes.

use serde_json::{Value, json};

/// An answer before it is written to a connection.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Body,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    None,
    Json(Value),
    Html(String),
}

impl Answer {
    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::None }
    }

    pub(super) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Body::Json(body) }
    }

    pub(super) fn html(status: u16) -> Self {
        let page = format!(
            "<!DOCTYPE html><html><head><title>{status}</title></head><body><h2>Our services aren't available right now</h2></body></html>"
        );
        Self { status, headers: Vec::new(), body: Body::Html(page) }
    }

    pub(super) fn error(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self::json(status, json!({"error": {"code": code, "message": message.into()}}))
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a `Retry-After` of so many seconds, if there is to be one.
    pub(super) fn retry_after(self, seconds: Option<u64>) -> Self {
        match seconds {
            Some(seconds) => self.header("retry-after", seconds.to_string()),
            None => self,
        }
    }

    /// The seconds of its `Retry-After`.
    pub(super) fn wait(&self) -> Option<u64> {
        self.headers.iter().find(|(name, _)| *name == "retry-after").and_then(|(_, value)| value.parse().ok())
    }

    /// Its `error.code`.
    pub(super) fn code(&self) -> Option<&str> {
        match &self.body {
            Body::Json(body) => body["error"]["code"].as_str(),
            _ => None,
        }
    }
}

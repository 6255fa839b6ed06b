//! A call as it came in.

use std::collections::BTreeMap;

use bytes::Bytes;

/// One call: its head taken apart, and its whole body.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) path: String,
    /// Path and query as they came.
    pub(super) target: String,
    pub(super) query: Vec<(String, String)>,
    /// By name in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) bytes: Bytes,
}

impl Call {
    pub(super) fn new(head: &hyper::http::request::Parts, bytes: Bytes) -> Self {
        let query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            query,
            headers: head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
            bytes,
        }
    }

    /// A header; empty if there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

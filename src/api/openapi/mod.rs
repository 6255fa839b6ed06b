//! The description of the API for machines, OpenAPI 3.1.
//!
//! `openapi.json` is made from the types of the answers, the routing table and the table of error codes, by a test
//! (`make openapi`), so that the agent itself carries the text only. The same tests hold it against all three, and the
//! end-to-end tests hold every answer against it.

#[cfg(test)]
mod bodies;
#[cfg(test)]
mod generate;
#[cfg(test)]
mod operations;

/// The document, as JSON.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

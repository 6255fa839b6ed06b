//! Labels that mean something to the agent, to Docker or to software that commonly runs next to it.

use std::collections::BTreeMap;

use super::verdict::Verdict;

/// What makes an object ours: with these a tenant could claim another's containers, or hide its own from the agent.
pub(super) const OWNERSHIP: &[&str] = &["com.docker.compose.", "dev.q8."];

/// Ownership, and what makes proxies, schedulers and panels on the host act (facts on reserved labels, policy table).
pub(super) const RESERVED: &[&str] = &[
    "com.docker.",
    "io.docker.",
    "org.opencontainers.",
    "dev.q8.",
    "traefik.",
    "caddy",
    "coolify.",
    "ofelia.",
    "com.centurylinklabs.",
];

/// Refuses every label that begins with one of the prefixes, however it is capitalised: not all readers of labels
/// distinguish capitals.
pub(super) fn judge(field: &str, labels: &BTreeMap<String, String>, prefixes: &[&str], verdict: &mut Verdict) {
    for label in labels.keys() {
        let lower = label.to_ascii_lowercase();
        if prefixes.iter().any(|prefix| lower.starts_with(prefix)) {
            let allowed = format!("labels that do not begin with {}", prefixes.join(", "));
            verdict.refuse(format!("{field}.labels.{label}"), "reserved-label", allowed);
        }
    }
}

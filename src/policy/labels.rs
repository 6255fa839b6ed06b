//! Labels that mean something to the agent, to Docker or to software that commonly runs next to it.

use std::collections::BTreeMap;

use super::Grants;
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

/// Refuses what is reserved and not granted.
pub(super) fn judge_reserved(field: &str, labels: &BTreeMap<String, String>, grants: &Grants, verdict: &mut Verdict) {
    let granted = |label: &String| grants.labels.iter().any(|prefix| label.starts_with(prefix.as_str()));
    let rest = labels.iter().filter(|(label, _)| !granted(label) || begins_with(label, OWNERSHIP));
    judge(field, &rest.map(|(label, value)| (label.clone(), value.clone())).collect(), RESERVED, verdict);
}

/// Whether an operator may grant labels that begin so: ownership stays the agent's.
pub(super) fn may_be_granted(prefix: &str) -> bool {
    let lower = prefix.to_ascii_lowercase();
    !lower.is_empty() && OWNERSHIP.iter().all(|own| !lower.starts_with(own) && !own.starts_with(&lower))
}

fn begins_with(label: &str, prefixes: &[&str]) -> bool {
    let lower = label.to_ascii_lowercase();
    prefixes.iter().any(|prefix| lower.starts_with(prefix))
}

/// Refuses every label that begins with one of the prefixes, however it is capitalised: not all readers of labels
/// distinguish capitals.
pub(super) fn judge(field: &str, labels: &BTreeMap<String, String>, prefixes: &[&str], verdict: &mut Verdict) {
    for label in labels.keys() {
        if begins_with(label, prefixes) {
            let allowed = format!("labels that do not begin with {}", prefixes.join(", "));
            verdict.refuse(format!("{field}.labels.{label}"), "reserved-label", allowed);
        }
    }
}

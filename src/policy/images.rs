//! Where images may come from.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::verdict::Verdict;
use crate::domain::ImageRef;

/// The engine asks registries from the host's own network, so a reference is a way to make it call anybody.
pub(super) fn judge(field: &str, image: &ImageRef, registries: Option<&BTreeSet<String>>, verdict: &mut Verdict) {
    let registry = image.registry().to_ascii_lowercase();
    let field = format!("{field}.image");
    match registries {
        Some(registries) => verdict.refuse_if(
            !registries.contains(&registry),
            field,
            "registry",
            &format!("images from {}", registries.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
        ),
        None => verdict.refuse_if(
            !is_public(&registry),
            field,
            "registry",
            "a registry with a domain name; loopback, IP addresses and single-label hosts only when the policy names them",
        ),
    }
}

/// Whether a registry's host is a domain name of two labels or more that is not the host's own.
fn is_public(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let last = host.rsplit('.').next().unwrap_or_default();
    // `127.1` and `0x7f.1` are addresses too: in a domain name the last label is never a number (RFC 3696, 2).
    let number = last.bytes().all(|c| c.is_ascii_digit()) || last.starts_with("0x");
    host.contains('.')
        && !number
        && host.parse::<IpAddr>().is_err()
        && !PRIVATE.contains(&last)
        && !host.ends_with(".home.arpa")
}

/// Top-level names that are never a public registry's: reserved (RFC 6761, RFC 6762, RFC 8375), kept out of the root by ICANN
/// ("name collision", `internal` since 2024), or common on private networks.
const PRIVATE: &[&str] =
    &["corp", "home", "internal", "intranet", "invalid", "lan", "local", "localdomain", "localhost", "private"];

#[cfg(test)]
mod tests {
    use super::is_public;

    #[test]
    fn hosts() {
        for good in ["docker.io", "ghcr.io", "registry.example:5000", "docker.n8n.io", "a.b.c"] {
            assert!(is_public(good), "{good}");
        }
        for bad in [
            "localhost",
            "localhost:5000",
            "x.localhost",
            "registry:5000",
            "127.0.0.1:5000",
            "127.1:5000",
            "0x7f.1",
            "0x7f.0x1",
            "10.0.0.9",
            "169.254.169.254",
            "metadata.google.internal",
            "host.docker.internal:5000",
            "printer.local",
            "nas.lan",
            "git.corp:5000",
            "registry.home.arpa",
            "x.intranet",
        ] {
            assert!(!is_public(bad), "{bad}");
        }
    }
}

//! The names that Azure allows. What is not allowed there becomes a part of itself and eight digits of its hash, so that two
//! names never become one; tags and metadata keep the real one.

use sha2::{Digest as _, Sha256};

/// What a kind of name may be; all are of a-z, 0-9 and `-`, and end with a letter or digit.
#[derive(Debug, Clone, Copy)]
struct Rule {
    least: usize,
    most: usize,
    /// It begins with a letter, not with a digit.
    letter_first: bool,
    /// Two hyphens may follow each other.
    doubled: bool,
}

/// Container groups and containers (naming rules of `Microsoft.ContainerInstance`).
const GROUP: Rule = Rule { least: 1, most: 63, letter_first: false, doubled: false };
/// Volumes of a group.
const VOLUME: Rule = Rule { least: 5, most: 63, letter_first: false, doubled: false };
/// Shares of Azure Files.
const SHARE: Rule = Rule { least: 3, most: 63, letter_first: false, doubled: false };
/// DNS labels: `InvalidDnsNameLabel` says so.
const LABEL: Rule = Rule { least: 5, most: 63, letter_first: true, doubled: true };

/// A dash and eight hexadecimal digits.
const SUFFIX: usize = 9;

impl Rule {
    fn allows(self, name: &str) -> bool {
        let word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = name.as_bytes();
        (self.least..=self.most).contains(&bytes.len())
            && bytes.iter().all(|&c| word(c) || c == b'-')
            && bytes.first().is_some_and(|&c| if self.letter_first { c.is_ascii_lowercase() } else { word(c) })
            && bytes.last().is_some_and(|&c| word(c))
            && (self.doubled || !name.contains("--"))
    }

    /// The name itself if it may be, else what stands for it.
    fn fit(self, name: &str) -> String {
        if self.allows(name) { name.to_owned() } else { self.shorten(name, name) }
    }

    /// What is left of `name` under this rule, and eight digits of the hash of `real`.
    fn shorten(self, name: &str, real: &str) -> String {
        let mut kept = String::new();
        for c in name.chars().map(|c| c.to_ascii_lowercase()) {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                kept.push(c);
            } else if !kept.is_empty() && !kept.ends_with('-') {
                kept.push('-');
            }
        }
        if self.letter_first && !kept.starts_with(|c: char| c.is_ascii_lowercase()) {
            kept.insert_str(0, "q8-");
        }
        kept.truncate(self.most - SUFFIX);
        let kept = kept.trim_end_matches('-');
        format!("{}-{}", if kept.is_empty() { "q8" } else { kept }, short_hash(real))
    }
}

/// Eight hexadecimal digits of SHA-256. Names are no secrets, so it has no key: whoever has lost all records finds the same.
fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// The group of a project.
pub(super) fn group(project: &str) -> String {
    GROUP.fit(project)
}

/// The container of a service, unique within the group.
pub(super) fn container(service: &str) -> String {
    GROUP.fit(service)
}

/// A volume of the group.
pub(super) fn volume(name: &str) -> String {
    VOLUME.fit(name)
}

/// The share behind a named volume. The tenant's identity is in the hash: who gets a freed subdomain gets another share.
pub(super) fn share(tenant: &str, volume: &str) -> String {
    SHARE.shorten(volume, &format!("{tenant}/{volume}"))
}

/// Whether a share may have been named by [`share`]: of others no agent needs to know more.
pub(super) fn is_share(name: &str) -> bool {
    let digits = name.rsplit_once('-').map_or("", |(_, digits)| digits);
    digits.len() + 1 == SUFFIX && digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// The DNS label of a subdomain.
pub(super) fn dns_label(subdomain: &str) -> String {
    LABEL.fit(subdomain)
}

/// Another label in place of one that somebody has; the same for the same `real` name.
pub(super) fn other_dns_label(label: &str, real: &str) -> String {
    LABEL.shorten(label, real)
}

/// Whether a text may be a DNS label as it is.
pub(super) fn is_dns_label(text: &str) -> bool {
    LABEL.allows(text)
}

/// A location as it is compared: `West US` is `westus`.
pub(super) fn location(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_allowed_stays() {
        assert_eq!(group("q8-acme"), "q8-acme");
        assert_eq!(container("web"), "web");
        assert_eq!(container("0"), "0");
        assert_eq!(volume("store"), "store");
        assert_eq!(dns_label("acme1"), "acme1");
        assert_eq!(dns_label("a--b-c"), "a--b-c");
    }

    #[test]
    fn what_is_not_becomes_a_part_and_a_hash() {
        for (name, becomes) in [
            (group("q8-a--b"), "q8-a-b-"),
            (group(&format!("q8-{}", "a".repeat(63))), &format!("q8-{}-", "a".repeat(51))),
            (container("My_App.web"), "my-app-web-"),
            (container("_x_"), "x-"),
            (container("..."), "q8-"),
            (volume("db"), "db-"),
            (dns_label("acme"), "acme-"),
            (dns_label("1shop"), "q8-1shop-"),
        ] {
            let hash = name.strip_prefix(becomes).unwrap_or_else(|| panic!("{name} does not begin with {becomes}"));
            assert_eq!(hash.len(), 8, "{name}");
            assert!(hash.bytes().all(|c| c.is_ascii_hexdigit()), "{name}");
        }
        // The hash is of the name as it was.
        assert_eq!(volume("db"), format!("db-{}", short_hash("db")));
        assert_ne!(container("a_b"), container("a.b"));
    }

    #[test]
    fn a_share_belongs_to_one_identity() {
        assert_eq!(share("1", "q8-acme_store"), share("1", "q8-acme_store"));
        assert_ne!(share("1", "q8-acme_store"), share("2", "q8-acme_store"));
        assert!(share("1", "q8-acme_store").starts_with("q8-acme-store-"));
        assert!(is_share(&share("1", "q8-acme_store")) && !is_share("backup") && !is_share("a-0123456z"));
    }

    #[test]
    fn locations_are_compared_without_spaces_and_capitals() {
        assert_eq!(location("West US 2"), "westus2");
        assert_eq!(location("eastus"), "eastus");
    }

    proptest! {
        #[test]
        fn every_name_is_allowed(text in "\\PC{0,140}") {
            prop_assert!(GROUP.allows(&group(&text)));
            prop_assert!(GROUP.allows(&container(&text)));
            prop_assert!(VOLUME.allows(&volume(&text)));
            prop_assert!(SHARE.allows(&share("1", &text)));
            prop_assert!(LABEL.allows(&dns_label(&text)));
            prop_assert!(LABEL.allows(&other_dns_label(&text, &text)));
        }
    }
}

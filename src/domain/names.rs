//! Validated names. Each is made only by `parse` and can be trusted afterwards.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a name was refused: the kind of name, the rule it broke. Never holds the rejected text, which may be hostile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}: {rule}")]
pub struct InvalidName {
    /// What the name was meant to be, e.g. `subdomain`.
    pub kind: &'static str,
    /// What is allowed.
    pub rule: &'static str,
}

/// Subdomains that a tenant cannot have: they name parts of the platform, of Docker or of an operating system.
const RESERVED_SUBDOMAINS: &[&str] = &[
    "agent",
    "archive",
    "bridge",
    "con",
    "default",
    "docker",
    "host",
    "localhost",
    "none",
    "nul",
    "aux",
    "prn",
    "q8",
    "traefik",
];

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Accepts the text as it is, or says what is allowed. Nothing is trimmed, decoded or lower-cased.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { kind: $kind, rule: $rule })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

name_type!(
    /// A tenant's subdomain: a DNS label, and the name of its directory and Compose project.
    Subdomain,
    "subdomain",
    "1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit, and not a reserved word",
    |text| {
        let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = text.as_bytes();
        (1..=63).contains(&bytes.len())
            && edge(bytes[0])
            && edge(bytes[bytes.len() - 1])
            && bytes.iter().all(|&c| edge(c) || c == b'-')
            && !RESERVED_SUBDOMAINS.contains(&text)
    }
);

name_type!(
    /// A tenant's identity, given by the Main Server. A freed subdomain is not a freed identity.
    TenantId,
    "tenant id",
    "1 to 128 of letters, digits and . _ : -, starting with a letter or digit",
    |text| {
        (1..=128).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b':' | b'-'))
    }
);

name_type!(
    /// A Compose project name (Compose Specification, "Name top-level element").
    ProjectName,
    "project name",
    "a-z, 0-9, - and _, starting with a letter or digit",
    |text| {
        let first = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        (1..=128).contains(&text.len())
            && first(text.as_bytes()[0])
            && text.bytes().all(|c| first(c) || matches!(c, b'_' | b'-'))
    }
);

impl ProjectName {
    /// The project of a tenant: `q8-{subdomain}`.
    pub fn of(subdomain: &Subdomain) -> Self {
        Self(format!("q8-{subdomain}"))
    }
}

fn compose_key(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

name_type!(
    /// A key under `services` (Compose Specification: `[a-zA-Z0-9._-]+`).
    ServiceName,
    "service name",
    "1 to 128 of letters, digits and . _ -",
    compose_key
);

name_type!(
    /// A key under `networks`, `volumes`, `configs` or `secrets`.
    ObjectKey,
    "object key",
    "1 to 128 of letters, digits and . _ -",
    compose_key
);

fn engine_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

name_type!(
    /// The real name of a network or volume in the engine (Engine API: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`).
    ObjectName,
    "network or volume name",
    "letters, digits and . _ -, starting with a letter or digit",
    engine_name
);

name_type!(
    /// A container's name in the engine (Engine API: `/?[a-zA-Z0-9][a-zA-Z0-9_.-]+`, here without the slash).
    ContainerName,
    "container name",
    "letters, digits and . _ -, starting with a letter or digit",
    engine_name
);

name_type!(
    /// A container's id as the engine gives it: 12 to 64 hexadecimal digits.
    ContainerId,
    "container id",
    "12 to 64 hexadecimal digits",
    |text| (12..=64).contains(&text.len()) && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
);

impl ContainerId {
    /// The first twelve digits, as people and docker compose use them.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

name_type!(
    /// The random identity of one agent, kept in the tenants root: whose objects these are.
    AgentId,
    "agent id",
    "16 to 64 hexadecimal digits",
    |text| (16..=64).contains(&text.len()) && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdomains() {
        for good in ["a", "0", "acme", "a-b", "x1-2y", &"a".repeat(63)] {
            assert!(Subdomain::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "a b",
            "a/b",
            "..",
            "../x",
            "a\n",
            "a\0",
            "ä",
            "a%2e",
            "docker",
            "host",
            &"a".repeat(64),
        ] {
            assert!(Subdomain::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn engine_names_never_hold_path_syntax() {
        for bad in ["", ".", "..", "a/b", "a?b", "a#b", "a%b", "-a", "_a", "a b", "a\r\n"] {
            assert!(ObjectName::parse(bad).is_err(), "{bad:?}");
            assert!(ContainerName::parse(bad).is_err(), "{bad:?}");
            assert!(ContainerId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_text() {
        let refusal = Subdomain::parse("<script>").expect_err("must be refused");
        assert!(!refusal.to_string().contains("script"));
    }
}

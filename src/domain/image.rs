//! Image references: `[registry/]repository[:tag][@digest]`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::names::InvalidName;

/// An image reference in the grammar of the distribution project, kept as written and split into its parts.
///
/// The written form reaches request paths of the Docker Engine API, so nothing that means something in a URL
/// (`?`, `#`, `%`, an empty or dotted path segment) can be in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    text: String,
    /// Where the name ends and `:tag` or `@digest` begins.
    name_end: usize,
}

const RULE: &str = "[registry[:port]/]repository[:tag][@sha256:digest], the repository in lower case";

/// The registry of references that name none.
const HUB: &str = "docker.io";

/// Whether a host is the Hub under one of its names.
fn is_hub(host: &str) -> bool {
    [HUB, "index.docker.io", "registry-1.docker.io"].iter().any(|name| host.eq_ignore_ascii_case(name))
}

fn invalid() -> InvalidName {
    InvalidName { kind: "image reference", rule: RULE }
}

impl ImageRef {
    /// Accepts a reference as people write it in a Compose file. A bare image id (`sha256:...`) is not one.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > 512 {
            return Err(invalid());
        }
        let (before_digest, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let last_slash = before_digest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match before_digest[last_slash..].find(':') {
            Some(colon) => (&before_digest[..last_slash + colon], Some(&before_digest[last_slash + colon + 1..])),
            None => (before_digest, None),
        };
        let (registry, repository) = split_registry(name);
        // distribution/reference `reference.go`: NameTotalLengthMax, of the name with nothing left out.
        let left_out = if registry.is_some() { "" } else { "docker.io/library/" };
        let good = left_out.len() + name.len() <= 255
            && registry.is_none_or(is_registry)
            && repository.split('/').all(is_path_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest)
            // The engine would take these for an id or the beginning of one.
            && !(tag.is_none() && digest.is_none() && is_hex64(name))
            && !matches!(name, "sha256" | "sha384" | "sha512");
        if good { Ok(Self { text: text.to_owned(), name_end: name.len() }) } else { Err(invalid()) }
    }

    /// The reference as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Registry and repository without tag and digest, as written.
    pub fn name(&self) -> &str {
        &self.text[..self.name_end]
    }

    /// The registry host (with its port) that serves this image; `docker.io` when none is written.
    pub fn registry(&self) -> &str {
        match split_registry(self.name()).0 {
            None => HUB,
            Some(host) if is_hub(host) => HUB,
            Some(host) => host,
        }
    }

    /// The repository within its registry, as written.
    pub fn repository(&self) -> &str {
        split_registry(self.name()).1
    }

    /// The tag: what is written, else `latest`; none when the reference is by digest alone.
    pub fn tag(&self) -> Option<&str> {
        let rest = &self.text[self.name_end..];
        let tag = rest.split_once('@').map_or(rest, |(tag, _)| tag);
        match tag.strip_prefix(':') {
            Some(tag) => Some(tag),
            None if self.digest().is_some() => None,
            None => Some("latest"),
        }
    }

    /// The digest, `sha256:...`, when the reference is pinned.
    pub fn digest(&self) -> Option<&str> {
        self.text[self.name_end..].split_once('@').map(|(_, digest)| digest)
    }

    /// The reference as the engine takes it for a name and nothing else. A bare word that begins an image's id stands for
    /// that image, whoever's it is; so a word that could is given the tag that it means.
    #[must_use]
    pub fn qualified(&self) -> Self {
        if self.text.len() > self.name_end || self.text.bytes().any(|c| !c.is_ascii_hexdigit()) {
            return self.clone();
        }
        Self { text: format!("{}:latest", self.text), name_end: self.name_end }
    }

    /// Repository and digest as no two ways of writing them differ: the registry in lower case and never left out, the Hub's
    /// official images with their `library/`.
    pub fn identity(&self, digest: &str) -> String {
        let (registry, repository) = (self.registry().to_ascii_lowercase(), self.repository());
        let official = registry == HUB && !repository.contains('/');
        format!("{registry}/{}{repository}@{digest}", if official { "library/" } else { "" })
    }

    /// The same repository at another digest.
    pub fn at_digest(&self, digest: &str) -> Result<Self, InvalidName> {
        Self::parse(&format!("{}@{digest}", self.name()))
    }
}

fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((host, rest)) if host.contains('.') || host.contains(':') || host == "localhost" => (Some(host), rest),
        _ => (None, name),
    }
}

fn is_registry(host: &str) -> bool {
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host, None),
    };
    // One way to write each port: hosts of registries are compared as text.
    port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port))
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        })
}

/// Lower-case words joined by `.`, `_`, `__` or dashes, and by no two of them at once.
fn is_path_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut joints = component.split(is_word).filter(|joint| !joint.is_empty());
    component.starts_with(is_word)
        && component.ends_with(is_word)
        && joints.all(|joint| matches!(joint, "." | "_" | "__") || joint.bytes().all(|c| c == b'-'))
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(is_hex64)
}

fn is_hex64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

impl TryFrom<String> for ImageRef {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> String {
        image.text
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, registry, name, tag) in [
            ("nginx", "docker.io", "nginx", Some("latest")),
            ("library/nginx:1.27-alpine", "docker.io", "library/nginx", Some("1.27-alpine")),
            ("localhost:5000/a/b:x", "localhost:5000", "localhost:5000/a/b", Some("x")),
            ("ghcr.io/Acme".to_lowercase().as_str(), "ghcr.io", "ghcr.io/acme", Some("latest")),
            ("index.docker.io/library/redis", "docker.io", "index.docker.io/library/redis", Some("latest")),
            ("registry-1.docker.io/x/y:1", "docker.io", "registry-1.docker.io/x/y", Some("1")),
            (&format!("r.example/x@{digest}"), "r.example", "r.example/x", None),
            (&format!("x:1@{digest}"), "docker.io", "x", Some("1")),
            ("a--b/c__d.e_f", "docker.io", "a--b/c__d.e_f", Some("latest")),
        ] {
            let image = ImageRef::parse(text).expect(text);
            assert_eq!((image.registry(), image.name(), image.tag()), (registry, name, tag), "{text}");
        }
    }

    #[test]
    fn a_qualified_reference_is_no_beginning_of_an_id() {
        let digest = format!("x@sha256:{}", "a".repeat(64));
        for (text, qualified) in [
            ("c57a1", "c57a1:latest"),
            ("cafe", "cafe:latest"),
            ("x", "x"),
            ("localhost:5000/x", "localhost:5000/x"),
            ("x:1", "x:1"),
            (digest.as_str(), digest.as_str()),
        ] {
            let image = ImageRef::parse(text).expect(text).qualified();
            assert_eq!(image.as_str(), qualified);
            assert_eq!(Ok(image), ImageRef::parse(qualified));
        }
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "Nginx",
            "a b",
            "a?b",
            "a#b",
            "a%2f",
            "../x",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:-x",
            "a@sha256:1",
            "-a",
            "a:b:c",
            "a._b",
            "a-.b",
            &"a".repeat(238),
            &format!("r.example/{}", "a".repeat(246)),
            "a___b",
            "a..b",
            "a\n",
            "host:port/x",
            "localhost:0005000/a/b:x",
            "host:0/x",
            "host:65536/x",
            "host:+80/x",
            "sha256:",
            "sha256:5d0be4",
            &format!("sha256:{}", "f".repeat(64)),
            &"f".repeat(64),
        ] {
            assert!(ImageRef::parse(bad).is_err(), "{bad:?}");
        }
    }
}

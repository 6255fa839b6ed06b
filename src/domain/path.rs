//! Paths of a request's files inside the project directory.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::names::InvalidName;

/// A relative path below the project directory, such as `nginx/default.conf`.
///
/// At most 8 components of 1 to 100 of letters, digits and `. _ -`; none is `.` or `..`, none ends with a dot, and no
/// directory begins with a dot. The first component is never `.agent`, `.env`, `data` or a Compose file name: those
/// belong to the agent and to the tenant's containers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectPath(String);

const RULE: &str = "a relative path of at most 8 components of letters, digits and . _ -; not . or .., no hidden \
                    directory, not .env, .agent, data/ or a Compose file name at the top";

impl ProjectPath {
    /// Accepts the path as it is, or says what is allowed.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let components: Vec<&str> = text.split('/').collect();
        let last = components.len() - 1;
        let good = components.len() <= 8
            && components
                .iter()
                .enumerate()
                .all(|(at, part)| is_component(part) && (at == last || !part.starts_with('.')))
            && !is_reserved(components[0], last == 0);
        if good { Ok(Self(text.to_owned())) } else { Err(InvalidName { kind: "file path", rule: RULE }) }
    }

    /// The path as text, with `/` between components.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Two paths that cannot both be files of one project: equal but for upper and lower case (they would be one file on
    /// another disk), or one of them a directory of the other.
    pub fn conflict<'a>(paths: impl IntoIterator<Item = &'a Self>) -> Option<(&'a Self, &'a Self)> {
        let mut folded = BTreeMap::new();
        for path in paths {
            if let Some(other) = folded.insert(path.0.to_ascii_lowercase(), path) {
                return Some((other, path));
            }
        }
        folded.iter().find_map(|(text, path)| {
            let mut directories = text.match_indices('/').map(|(at, _)| &text[..at]);
            directories.find_map(|directory| folded.get(directory)).map(|file| (*file, *path))
        })
    }

    /// The components from the top.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

fn is_component(part: &str) -> bool {
    (1..=100).contains(&part.len())
        && part != "."
        && part != ".."
        && !part.ends_with('.')
        && part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

fn is_reserved(first: &str, is_file: bool) -> bool {
    let lower = first.to_ascii_lowercase();
    let compose_file = is_file && {
        let stem = lower.strip_suffix(".yaml").or_else(|| lower.strip_suffix(".yml"));
        stem.is_some_and(|stem| {
            matches!(stem, "compose" | "docker-compose" | "compose.override" | "docker-compose.override")
        })
    };
    matches!(lower.as_str(), ".agent" | ".env" | "data") || compose_file
}

impl TryFrom<String> for ProjectPath {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}

impl From<ProjectPath> for String {
    fn from(path: ProjectPath) -> String {
        path.0
    }
}

impl fmt::Display for ProjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ProjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted() {
        for good in
            ["a", "nginx/default.conf", ".htpasswd", "conf/.env", "html/index.html", "a/b/c/d/e/f/g/h", "app.env"]
        {
            assert!(ProjectPath::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn conflicts() {
        for (paths, wanted) in [
            (&["a", "b/c", "b/d"][..], false),
            (&["a", "A"], true),
            (&["x/Y", "x/y"], true),
            (&["a", "a/b"], true),
            (&["a/b", "a.b", "A"], true),
            (&["a/b/c", "a/bc"], false),
            (&["a-", "a/b", "a0"], false),
        ] {
            let paths: Vec<_> = paths.iter().map(|path| ProjectPath::parse(path).unwrap()).collect();
            assert_eq!(ProjectPath::conflict(&paths).is_some(), wanted, "{paths:?}");
        }
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            ".",
            "..",
            "../x",
            "a/../b",
            "a/./b",
            ".git/config",
            ".agent",
            ".agent/x",
            ".AGENT/x",
            ".env",
            ".ENV",
            "compose.yaml",
            "Compose.YML",
            "docker-compose.override.yml",
            "data",
            "data/x",
            "a\0b",
            "a\\b",
            "a b",
            "x.",
            "a/b/c/d/e/f/g/h/i",
            "a%2fb",
            "ä",
            &"x".repeat(101),
        ] {
            assert!(ProjectPath::parse(bad).is_err(), "{bad:?}");
        }
    }
}

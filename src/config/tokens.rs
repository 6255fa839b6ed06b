//! Bearer tokens: which are good enough, where they come from, and how they are kept (as digests only).

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::ConfigError;

/// Shortest token that is accepted, in characters.
pub const MIN_TOKEN_LENGTH: usize = 32;
const MAX_TOKEN_LENGTH: usize = 512;
/// Tokens that one file may hold: an old and a new one, with some room.
const MAX_TOKENS: usize = 16;
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// SHA-256 of a token. Digests have one length, so comparing them says nothing about the token's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of a token as a client presents it.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// The digest's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

/// The tokens that are accepted now.
#[derive(Debug, Clone)]
pub struct Tokens {
    admin: Vec<TokenDigest>,
    read: Vec<TokenDigest>,
}

impl Tokens {
    /// Tokens for everything. Never empty.
    pub fn admin(&self) -> &[TokenDigest] {
        &self.admin
    }

    /// Tokens for reading only.
    pub fn read(&self) -> &[TokenDigest] {
        &self.read
    }
}

/// Where the tokens come from, to read them again on SIGHUP.
#[derive(Debug, Clone)]
pub struct TokenSources {
    admin: Source,
    read: Option<Source>,
}

#[derive(Debug, Clone)]
enum Source {
    /// A variable: it cannot change while the process runs.
    Fixed(TokenDigest),
    File {
        variable: &'static str,
        path: PathBuf,
    },
}

const ADMIN: &str = "Q8_AGENT_ADMIN_TOKEN";
const ADMIN_FILE: &str = "Q8_AGENT_ADMIN_TOKEN_FILE";
const READ: &str = "Q8_AGENT_READ_TOKEN";
const READ_FILE: &str = "Q8_AGENT_READ_TOKEN_FILE";

impl TokenSources {
    pub(super) fn new(
        admin: Option<String>,
        admin_file: Option<String>,
        read: Option<String>,
        read_file: Option<String>,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            admin: source(ADMIN, ADMIN_FILE, admin, admin_file)?.ok_or(ConfigError::NoAdminToken)?,
            read: source(READ, READ_FILE, read, read_file)?,
        })
    }

    /// Reads the tokens; those in files as they are now.
    pub fn load(&self) -> Result<Tokens, ConfigError> {
        let admin = self.admin.load()?;
        let read = self.read.as_ref().map_or(Ok(Vec::new()), Source::load)?;
        if read.iter().any(|token| admin.contains(token)) {
            return Err(ConfigError::Token { name: READ.to_owned(), problem: "must not be an admin token too" });
        }
        Ok(Tokens { admin, read })
    }
}

impl Source {
    fn load(&self) -> Result<Vec<TokenDigest>, ConfigError> {
        match self {
            Self::Fixed(digest) => Ok(vec![*digest]),
            Self::File { variable, path } => tokens_of_file(variable, &read_secret_file(variable, path)?),
        }
    }
}

fn source(
    name: &'static str,
    file_name: &'static str,
    value: Option<String>,
    file: Option<String>,
) -> Result<Option<Source>, ConfigError> {
    match (value, file) {
        (Some(_), Some(_)) => Err(ConfigError::Both { name, file_name }),
        (Some(token), None) => match problem_of(&token) {
            Some(problem) => Err(ConfigError::Token { name: name.to_owned(), problem }),
            None => Ok(Some(Source::Fixed(TokenDigest::of(token.as_bytes())))),
        },
        (None, Some(path)) => Ok(Some(Source::File { variable: file_name, path: path.into() })),
        (None, None) => Ok(None),
    }
}

fn tokens_of_file(variable: &'static str, text: &str) -> Result<Vec<TokenDigest>, ConfigError> {
    let mut tokens = Vec::new();
    for (at, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        if let Some(problem) = problem_of(line) {
            return Err(ConfigError::Token { name: format!("{variable}, line {}", at + 1), problem });
        }
        tokens.push(TokenDigest::of(line.as_bytes()));
    }
    match tokens.len() {
        0 => Err(ConfigError::Token { name: variable.to_owned(), problem: "has no token in it" }),
        1..=MAX_TOKENS => Ok(tokens),
        _ => Err(ConfigError::Token { name: variable.to_owned(), problem: "has more than 16 tokens in it" }),
    }
}

/// Reads a small text file that a `…_FILE` variable names.
pub(super) fn read_secret_file(variable: &'static str, path: &Path) -> Result<String, ConfigError> {
    let unreadable = |error: std::io::Error| ConfigError::Unreadable { name: variable, kind: error.kind() };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_SECRET_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_SECRET_FILE {
        return Err(ConfigError::Invalid { name: variable, allowed: "a file of at most 64 KiB" });
    }
    Ok(text)
}

/// Words that stand in examples and templates, never in a token somebody made.
const PLACEHOLDERS: &[&str] = &[
    "changeme",
    "change-me",
    "change_me",
    "change-this",
    "change_this",
    "your-token",
    "your_token",
    "yourtoken",
    "your-secret",
    "your_secret",
    "placeholder",
    "password",
    "passw0rd",
    "example",
    "replace",
    "insert-",
    "insert_",
    "admin-token",
    "admin_token",
    "admintoken",
    "secret-token",
    "secret_token",
    "secrettoken",
    "qwerty",
];

/// What is wrong with a token; none when it is good enough.
fn problem_of(token: &str) -> Option<&'static str> {
    let lower = token.to_ascii_lowercase();
    let bytes = token.as_bytes();
    if !bytes.iter().all(u8::is_ascii_graphic) {
        // Anything else cannot travel in an Authorization header unharmed.
        Some("must consist of printable ASCII characters without spaces")
    } else if PLACEHOLDERS.iter().any(|word| lower.contains(word)) {
        Some("is a placeholder")
    } else if bytes.len() < MIN_TOKEN_LENGTH {
        Some("is too short: 32 characters or more are needed")
    } else if bytes.len() > MAX_TOKEN_LENGTH {
        Some("is too long: 512 characters at most")
    } else if is_repetitive(bytes) {
        Some("repeats itself and can be guessed")
    } else {
        None
    }
}

/// One of few characters, or a short text over and over. A random token of 32 hexadecimal digits is never either.
fn is_repetitive(bytes: &[u8]) -> bool {
    let mut distinct = bytes.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct.len() < 8 || (1..=bytes.len() / 2).any(|period| bytes.iter().zip(&bytes[period..]).all(|(a, b)| a == b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "0f8b1c7a9d2e4f60718293a4b5c6d7e8";
    const OTHER: &str = "f9e8d7c6b5a4039281706f5e4d3c2b1a";

    #[test]
    fn which_tokens_are_good_enough() {
        for good in [GOOD, OTHER, "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFiY2RlZmdo+/=="] {
            assert_eq!(problem_of(good), None, "{good}");
        }
        for (bad, why) in [
            ("", "short"),
            ("changeme", "placeholder"),
            ("your-token", "placeholder"),
            ("password-0123456789-abcdefghijklmnop", "placeholder"),
            ("<output of openssl rand -hex 32>", "printable"),
            ("0f8b1c7a9d2e4f60718293a4b5c6d7e", "short"),
            (&"a".repeat(40), "repeats"),
            (&"0123456789abcdef".repeat(2), "repeats"),
            (&"abcdefghijk".repeat(4), "repeats"),
            (&format!("{GOOD} "), "printable"),
            (&format!("{GOOD}ä"), "printable"),
            (&GOOD.repeat(20), "long"),
        ] {
            assert!(problem_of(bad).is_some_and(|problem| problem.contains(why)), "{bad:?}: {:?}", problem_of(bad));
        }
    }

    #[test]
    fn a_file_holds_several_tokens_and_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, format!("{GOOD}\n\n{OTHER}\n")).unwrap();
        let file = path.to_str().map(str::to_owned);
        let sources = TokenSources::new(None, file, None, None).unwrap();
        assert_eq!(sources.load().unwrap().admin().len(), 2);
        std::fs::write(&path, format!("{OTHER}\r\n")).unwrap();
        assert_eq!(sources.load().unwrap().admin(), [TokenDigest::of(OTHER.as_bytes())]);
        std::fs::write(&path, format!("{GOOD}\nshort\n")).unwrap();
        let error = sources.load().unwrap_err().to_string();
        assert!(error.contains("Q8_AGENT_ADMIN_TOKEN_FILE, line 2"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(sources.load().unwrap_err().to_string().contains("Q8_AGENT_ADMIN_TOKEN_FILE"));
    }

    #[test]
    fn a_read_token_must_not_be_an_admin_token() {
        let sources = TokenSources::new(Some(GOOD.into()), None, Some(GOOD.into()), None).unwrap();
        assert!(sources.load().is_err());
    }
}

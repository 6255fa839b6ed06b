//! What is wrong with a Compose file, and where.

use std::fmt;

/// A place in a text, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A refusal of a Compose or env file. Never repeats a variable's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposeError {
    /// The file it is about: `compose.yaml`, `.env` or a file of the request.
    pub file: String,
    /// The field, such as `services.web.ports[1]`; empty for the document as a whole.
    pub field: String,
    /// Where it stands; none for a file that is missing altogether.
    pub location: Option<Location>,
    /// What is wrong and what is allowed, as a sentence without a full stop.
    pub reason: String,
}

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(location) = self.location {
            write!(f, ":{location}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ComposeError {}

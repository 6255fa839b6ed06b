//! Env files: `NAME=value` lines as docker compose reads them (quotes, escapes, comments, `export`, earlier variables),
//! and the raw form (`format: raw`), which takes every line as it is.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::error::{ComposeError, Location};
use super::interpolate::{self, TemplateError, Variables};

/// Bytes that the values of one file may become.
const MAX_TOTAL: usize = 8 << 20;
/// Variables of one file.
const MAX_VARIABLES: usize = 20_000;

/// Reads a file into variables. `outer` is asked before earlier lines are; a bare `NAME` takes its value from it, or
/// is left out.
pub(super) fn parse(
    file: &str,
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, ComposeError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { file, text, at: 0, left: MAX_TOTAL, outer, variables: BTreeMap::new() };
    while reader.statement()? {}
    Ok(reader.variables)
}

/// Reads a file without quotes, escapes or variables: `#` lines are comments, the rest is `NAME=value` to the end.
pub(super) fn parse_raw(
    file: &str,
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, ComposeError> {
    let mut variables = BTreeMap::new();
    for (at, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.trim_end(), outer(line.trim_end())),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            let line = u32::try_from(at + 1).unwrap_or(u32::MAX);
            return Err(error(file, Location { line, column: 1 }, NAME_RULE.to_owned()));
        }
        if variables.len() >= MAX_VARIABLES {
            let line = u32::try_from(at + 1).unwrap_or(u32::MAX);
            return Err(error(file, Location { line, column: 1 }, too_many()));
        }
        if let Some(value) = value {
            variables.insert(name.to_owned(), value);
        }
    }
    Ok(variables)
}

const NAME_RULE: &str = "a line is NAME=value; a name has letters, digits and _ . - [ ] and no space";

fn too_many() -> String {
    format!("the file has more than {MAX_VARIABLES} variables")
}

fn error(file: &str, location: Location, reason: String) -> ComposeError {
    ComposeError { file: file.to_owned(), field: String::new(), location: Some(location), reason }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    at: usize,
    left: usize,
    outer: &'a dyn Fn(&str) -> Option<String>,
    variables: BTreeMap<String, String>,
}

/// Variables as a value in the file sees them.
struct Scope<'a> {
    outer: &'a dyn Fn(&str) -> Option<String>,
    earlier: &'a BTreeMap<String, String>,
}

impl Variables for Scope<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        match (self.outer)(name) {
            Some(value) => Some(Cow::Owned(value)),
            None => self.earlier.get(name).map(|value| Cow::Borrowed(value.as_str())),
        }
    }

    fn undefined(&mut self, _name: &str) {}
}

/// White space within a line.
fn is_blank(c: char) -> bool {
    c != '\n' && c.is_whitespace()
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fault(&self, at: usize, reason: impl Into<String>) -> ComposeError {
        let before = &self.text[..at];
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        error(self.file, Location { line: number(line), column: number(column) }, reason.into())
    }

    /// Reads one statement; false at the end of the file.
    fn statement(&mut self) -> Result<bool, ComposeError> {
        self.at += self.rest().len() - self.rest().trim_start().len();
        if self.rest().is_empty() {
            return Ok(false);
        }
        if self.rest().starts_with('#') {
            self.skip_line();
            return Ok(true);
        }
        if let Some(after) = self.rest().strip_prefix("export")
            && after.starts_with(is_blank)
        {
            self.at = self.text.len() - after.trim_start_matches(is_blank).len();
        }
        let start = self.at;
        let line = self.rest().split('\n').next().unwrap_or_default();
        let Some(end) = line.find(['=', ':']) else {
            let name = self.name(start, line)?;
            if let Some(value) = (self.outer)(name) {
                self.define(start, name, value)?;
            }
            self.skip_line();
            return Ok(true);
        };
        let name = self.name(start, &line[..end])?;
        self.at = start + end + 1;
        self.at += self.rest().len() - self.rest().trim_start_matches(is_blank).len();
        let value = match self.rest().as_bytes().first() {
            Some(&quote @ (b'"' | b'\'')) => self.quoted(quote)?,
            _ => self.unquoted()?,
        };
        self.define(start, name, value)?;
        Ok(true)
    }

    fn skip_line(&mut self) {
        self.at += self.rest().find('\n').map_or(self.rest().len(), |at| at + 1);
    }

    fn name(&self, at: usize, text: &'a str) -> Result<&'a str, ComposeError> {
        let name = text.trim();
        let good = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
        if name.is_empty() || !name.chars().all(good) { Err(self.fault(at, NAME_RULE)) } else { Ok(name) }
    }

    fn define(&mut self, at: usize, name: &str, value: String) -> Result<(), ComposeError> {
        self.left = self
            .left
            .checked_sub(name.len() + value.len())
            .ok_or_else(|| self.fault(at, format!("the values become larger than {} MiB", MAX_TOTAL >> 20)))?;
        if self.variables.len() >= MAX_VARIABLES {
            return Err(self.fault(at, too_many()));
        }
        self.variables.insert(name.to_owned(), value);
        Ok(())
    }

    /// To the end of the line or to ` #`, variables replaced.
    fn unquoted(&mut self) -> Result<String, ComposeError> {
        let start = self.at;
        let line = self.rest().split('\n').next().unwrap_or_default();
        let value = line.split(" #").next().unwrap_or_default().trim_end();
        self.skip_line();
        self.expand(start, value)
    }

    /// From the opening quote to the closing one, over several lines if need be. `'…'` is literal but for `\'`.
    fn quoted(&mut self, quote: u8) -> Result<String, ComposeError> {
        let start = self.at;
        let mut value = String::new();
        let mut escaped = false;
        for (at, c) in self.text[start + 1..].char_indices() {
            let is_quote = c == char::from(quote);
            if escaped {
                escaped = false;
                if !is_quote {
                    value.push('\\');
                }
                value.push(c);
            } else if c == '\\' {
                escaped = true;
            } else if is_quote {
                self.at = start + 1 + at + 1;
                self.end_of_line()?;
                return if quote == b'"' { self.expand(start, &unescape(&value)) } else { Ok(value) };
            } else {
                value.push(c);
            }
        }
        Err(self.fault(start, "the quote that begins here does not end"))
    }

    /// After a quoted value only a comment may follow.
    fn end_of_line(&mut self) -> Result<(), ComposeError> {
        let line = self.rest().split('\n').next().unwrap_or_default();
        let after = line.trim_start();
        if !after.is_empty() && !after.starts_with('#') {
            return Err(self.fault(self.at, "only a comment may follow the closing quote"));
        }
        self.skip_line();
        Ok(())
    }

    fn expand(&self, at: usize, value: &str) -> Result<String, ComposeError> {
        if !value.contains('$') {
            return Ok(value.to_owned());
        }
        let mut scope = Scope { outer: self.outer, earlier: &self.variables };
        interpolate::template(value, &mut scope).map_err(|error: TemplateError| self.fault(at, error.to_string()))
    }
}

/// The escapes of a double-quoted value: `\n`, `\t`, … and `\0` with up to three octal digits. `\$` is a `$` that begins
/// no variable. Anything else keeps its backslash.
fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else {
            out.push('\\');
            break;
        };
        let mut taken = c.len_utf8();
        match c {
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            '\\' | '"' => out.push(c),
            '$' => out.push_str("$$"),
            '0' => {
                let digits = rest[1..].bytes().take(3).take_while(|digit| matches!(digit, b'0'..=b'7')).count();
                match u8::from_str_radix(&rest[1..=digits], 8) {
                    Ok(byte) if digits == 3 => {
                        out.push(char::from(byte));
                        taken = 1 + digits;
                    }
                    _ => out.push_str("\\0"),
                }
            }
            other => out.extend(['\\', other]),
        }
        rest = &rest[taken..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn read(text: &str) -> Result<BTreeMap<String, String>, ComposeError> {
        parse(".env", text, &|name| (name == "OUTER").then(|| "outer".to_owned()))
    }

    #[test]
    fn a_bare_name_is_taken_from_outside_or_left_out() {
        for text in ["OUTER\nNOWHERE\n", "OUTER", "  export OUTER # no value\n"] {
            let expected: BTreeMap<_, _> = [("OUTER".to_owned(), "outer".to_owned())].into();
            match read(text) {
                Ok(variables) => assert_eq!(variables, expected, "{text:?}"),
                Err(error) => assert!(text.contains('#'), "{error}"),
            }
        }
    }

    #[test]
    fn later_lines_use_earlier_ones_and_the_outside_comes_first() {
        let variables = read("A=1\nOUTER=inner\nB=${A}-${OUTER}-${C:-d}\n").expect("valid");
        assert_eq!(variables["B"], "1-outer-d");
    }

    #[test]
    fn refusals_are_located_and_quote_no_value() {
        for (text, line, column) in [
            ("A=1\nB C=2\n", 2, 1),
            ("A=1\nB='hunter2\n", 2, 3),
            ("A = \"hunter2\" y", 1, 14),
            ("=hunter2", 1, 1),
            ("A=1\n  X=${hunter2!}", 2, 5),
            ("hun ter2", 1, 1),
        ] {
            let error = read(text).expect_err(text);
            assert_eq!(error.location, Some(Location { line, column }), "{text:?}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn doubling_is_bounded() {
        let mut text = String::from("A0=0123456789\n");
        for at in 1..60 {
            let _ = writeln!(text, "A{at}=$A{}$A{}", at - 1, at - 1);
        }
        assert!(read(&text).expect_err("too large").reason.contains("larger than 256 KiB"));
    }

    #[test]
    fn raw_lines_are_taken_as_they_are() {
        let text = "# comment\nA='q' # not a comment\n  B=$X\\n\nOUTER\nGONE\n";
        let variables = parse_raw("x.env", text, &|name| (name == "OUTER").then(|| "o".to_owned())).expect("valid");
        let pairs: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("A", "'q' # not a comment"), ("B", "$X\\n"), ("OUTER", "o")]);
        assert!(parse_raw("x.env", "A B=1", &|_| None).is_err());
    }
}

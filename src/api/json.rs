//! Reads JSON bodies strictly, so that every refusal names its field, line and column and none repeats a value.
//!
//! serde's own messages quote what they did not expect (`invalid type: string "s3cret"`), take the last of two equal
//! keys in maps and know no place once a document has become a `Value`. Here each value stays a slice of the body until
//! somebody asks for it, so its place is known and only its kind is ever told.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::ApiError;
use crate::compose::{Location, hint};
use crate::domain::ErrorCode;

/// The most entries of one object or array. A body of commas must not become a thousand times its size in memory.
const MAX_ENTRIES: usize = 10_000;

/// A value somewhere in the body.
#[derive(Clone)]
pub(super) struct Value<'a> {
    /// The whole body, to find places in.
    body: &'a str,
    text: &'a str,
    path: String,
}

/// A JSON object whose fields are taken one by one; what nobody takes is refused.
pub(super) struct Object<'a> {
    value: Value<'a>,
    fields: Vec<(String, Value<'a>)>,
    known: Vec<&'static str>,
}

/// Checks the syntax of a whole body.
pub(super) fn parse(body: &[u8]) -> Result<Value<'_>, ApiError> {
    let body = std::str::from_utf8(body).map_err(|_| ApiError::invalid("the body is not UTF-8"))?;
    if body.trim_ascii().is_empty() {
        return Err(ApiError::invalid("a JSON object is needed as the body"));
    }
    match serde_json::from_str::<&RawValue>(body) {
        Ok(raw) => Ok(Value { body, text: raw.get(), path: String::new() }),
        Err(error) => Err(syntax_error(body, &error)),
    }
}

/// As [`parse`], for a route whose body may be left out.
pub(super) fn parse_optional(body: &[u8]) -> Result<Option<Value<'_>>, ApiError> {
    if body.is_empty() { Ok(None) } else { parse(body).map(Some) }
}

/// `serde_json` describes broken syntax without quoting the text, but adds the place, which has fields of its own. It
/// counts columns in bytes, and from 0 where a line end is what is wrong.
fn syntax_error(body: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let line = body.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let behind = line.char_indices().filter(|(at, _)| *at >= error.column()).count();
    let column = line.chars().count() - behind + error.column().saturating_sub(line.len());
    let place = Location { line: number(error.line()), column: number(column.max(1)) };
    ApiError::invalid(format!("the body is not JSON: {what}")).at(Some(place))
}

impl<'a> Value<'a> {
    /// A refusal of this value.
    pub(super) fn refuse(&self, code: ErrorCode, message: impl Into<String>) -> ApiError {
        let error = ApiError::new(code, message).at(Some(self.place()));
        if self.path.is_empty() { error } else { error.at_field(&self.path) }
    }

    fn must_be(&self, allowed: &str) -> ApiError {
        self.refuse(ErrorCode::InvalidRequest, format!("must be {allowed}, not {}", self.kind()))
    }

    fn place(&self) -> Location {
        // Every value is a slice of the body.
        let offset = (self.text.as_ptr() as usize).saturating_sub(self.body.as_ptr() as usize);
        let before = self.body.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Location {
            line: count(before.bytes().filter(|&c| c == b'\n').count() + 1),
            column: count(before[line_start..].chars().count() + 1),
        }
    }

    fn kind(&self) -> &'static str {
        match self.text.as_bytes().first() {
            Some(b'"') => "a string",
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            _ => "a number",
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.text == "null"
    }

    pub(super) fn is_string(&self) -> bool {
        self.text.starts_with('"')
    }

    pub(super) fn string(&self) -> Result<String, ApiError> {
        if !self.is_string() {
            return Err(self.must_be("a string"));
        }
        serde_json::from_str(self.text)
            .map_err(|_| self.refuse(ErrorCode::InvalidRequest, "has an escape that stands for no character"))
    }

    pub(super) fn boolean(&self) -> Result<bool, ApiError> {
        match self.text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.must_be("true or false")),
        }
    }

    /// A number that is not infinite.
    pub(super) fn number(&self) -> Result<f64, ApiError> {
        let number = self.text.parse::<f64>().ok().filter(|number| number.is_finite());
        number.filter(|_| self.kind() == "a number").ok_or_else(|| self.must_be("a number"))
    }

    /// A whole number, 0 or more.
    pub(super) fn count(&self) -> Result<u64, ApiError> {
        if self.kind() != "a number" {
            return Err(self.must_be("a whole number"));
        }
        self.text.parse().map_err(|_| self.refuse(ErrorCode::InvalidRequest, "must be a whole number, 0 or more"))
    }

    pub(super) fn array(&self) -> Result<Vec<Value<'a>>, ApiError> {
        if !self.text.starts_with('[') {
            return Err(self.must_be("an array"));
        }
        let items = serde_json::Deserializer::from_str(self.text)
            .deserialize_seq(Items)
            .map_err(|_| self.refuse(ErrorCode::InvalidRequest, format!("has more than {MAX_ENTRIES} entries")))?;
        let item = |(at, raw): (usize, &'a RawValue)| self.child(raw.get(), format!("{}[{at}]", self.path));
        Ok(items.into_iter().enumerate().map(item).collect())
    }

    /// An object whose keys are data, in the order written.
    pub(super) fn map(&self) -> Result<Vec<(String, Value<'a>)>, ApiError> {
        self.entries(|path, key| format!("{path}[{}]", quoted(key)))
    }

    /// An object whose keys are fields.
    pub(super) fn object(self) -> Result<Object<'a>, ApiError> {
        let fields = self.entries(|path, key| {
            let key = if is_plain(key) { key.to_owned() } else { quoted(key) };
            if path.is_empty() { key } else { format!("{path}.{key}") }
        })?;
        Ok(Object { value: self, fields, known: Vec::new() })
    }

    fn entries(&self, path: impl Fn(&str, &str) -> String) -> Result<Vec<(String, Value<'a>)>, ApiError> {
        if !self.text.starts_with('{') {
            return Err(self.must_be("an object"));
        }
        // The syntax has been checked, so only these two can be wrong.
        let refusal = format!("has more than {MAX_ENTRIES} keys, or one that is not valid text");
        let entries = serde_json::Deserializer::from_str(self.text)
            .deserialize_map(Entries)
            .map_err(|_| self.refuse(ErrorCode::InvalidRequest, refusal))?;
        let mut seen = HashSet::with_capacity(entries.len());
        let mut values = Vec::with_capacity(entries.len());
        for (key, raw) in &entries {
            let value = self.child(raw.get(), path(&self.path, key));
            if !seen.insert(key.as_str()) {
                return Err(value.refuse(ErrorCode::InvalidRequest, "is there twice"));
            }
            values.push((key.clone(), value));
        }
        Ok(values)
    }

    fn child(&self, text: &'a str, path: String) -> Self {
        Self { body: self.body, text, path }
    }
}

impl<'a> Object<'a> {
    /// The field's value; none when it is absent or null.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Value<'a>> {
        self.known.push(name);
        let at = self.fields.iter().position(|(key, _)| key == name)?;
        Some(self.fields.swap_remove(at).1).filter(|value| !value.is_null())
    }

    /// The field's value, which has to be there.
    pub(super) fn need(&mut self, name: &'static str) -> Result<Value<'a>, ApiError> {
        self.take(name).ok_or_else(|| {
            let value = &self.value;
            let path = if value.path.is_empty() { name.to_owned() } else { format!("{}.{name}", value.path) };
            value.refuse(ErrorCode::InvalidRequest, "is missing").at_field(path)
        })
    }

    /// Refuses the fields that nobody has taken.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        // The first in the body's order, whatever order they were taken in.
        match self.fields.iter().min_by_key(|(_, value)| value.text.as_ptr() as usize) {
            None => Ok(()),
            Some((name, value)) => {
                let meant = hint(name, self.known.iter().copied());
                let known = self.known.join(", ");
                let message = format!("is not a field here; there are {known}{meant}");
                Err(value.refuse(ErrorCode::InvalidRequest, message))
            }
        }
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key()? {
            if entries.len() == MAX_ENTRIES {
                return Err(M::Error::custom("too many"));
            }
            entries.push((key, map.next_value()?));
        }
        Ok(entries)
    }
}

struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == MAX_ENTRIES {
                return Err(S::Error::custom("too many"));
            }
            items.push(item);
        }
        Ok(items)
    }
}

fn is_plain(key: &str) -> bool {
    (1..=40).contains(&key.len()) && key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// A key in quotes, escaped as JSON, not longer than a person reads.
pub(super) fn quoted(key: &str) -> String {
    const MOST: usize = 120;
    let mut short: String = key.chars().take(MOST).collect();
    if short.len() < key.len() {
        short.push('…');
    }
    let mut text = String::new();
    for c in serde_json::Value::from(short).to_string().chars() {
        // JSON leaves these as they are; to a terminal they may be commands.
        if c.is_control() { text.push_str(&format!("\\u{:04x}", u32::from(c))) } else { text.push(c) }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(error: &ApiError) -> (u32, u32) {
        error.location.map(|place| (place.line, place.column)).unwrap_or_default()
    }

    #[test]
    fn broken_syntax_is_located_and_never_quoted() {
        for (body, at) in [
            (&b""[..], (0, 0)),
            (b"  \n", (0, 0)),
            (b"\xff", (0, 0)),
            (b"{", (1, 1)),
            (b"{\n  \"canary\" 1}", (2, 12)),
            (b"{\"canary\":canary}", (1, 11)),
            (b"{} canary", (1, 4)),
            (b"{\"a\":\"canary\n\"}", (1, 12)),
            (b"{\"a\":01}", (1, 7)),
            ("{\"ä😀\": x}".as_bytes(), (1, 8)),
            ("{\"ä😀".as_bytes(), (1, 4)),
            (b"{\"a\":\n\n", (3, 1)),
        ] {
            let error = parse(body).and_then(|value| value.object().map(|_| ())).unwrap_err();
            assert_eq!(place(&error), at, "{:?}: {}", body.escape_ascii().to_string(), error.message);
            assert!(!error.message.contains("canary"), "{}", error.message);
        }
    }

    #[test]
    fn deep_nesting_neither_overflows_nor_takes_long() {
        let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        let error = parse(deep.as_bytes()).and_then(|value| value.object().map(|_| ())).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest);
    }

    #[test]
    fn a_body_of_commas_is_refused() {
        let array = format!("{{\"a\":[{}0]}}", "0,".repeat(MAX_ENTRIES));
        assert!(parse(array.as_bytes()).unwrap().object().unwrap().need("a").unwrap().array().is_err());
        let fields: Vec<_> = (0..=MAX_ENTRIES).map(|n| format!("\"{n}\":0")).collect();
        assert!(parse(format!("{{{}}}", fields.join(",")).as_bytes()).unwrap().map().is_err());
    }

    #[test]
    fn values_know_their_kind_and_place() {
        let body = "{\"a\": {\"b\": [1,\n \"canary\"]}, \"ä\": true}";
        let mut root = parse(body.as_bytes()).unwrap().object().unwrap();
        let mut a = root.take("a").unwrap().object().unwrap();
        let items = a.need("b").unwrap().array().unwrap();
        let error = items[1].boolean().unwrap_err();
        assert_eq!((error.field.as_deref(), place(&error)), (Some("a.b[1]"), (2, 2)));
        assert_eq!(error.message, "must be true or false, not a string");
        assert_eq!(items[0].string().unwrap_err().message, "must be a string, not a number");
        let error = root.finish().unwrap_err();
        assert_eq!((error.field.as_deref(), place(&error)), (Some("\"ä\""), (2, 19)));
        assert_eq!(error.message, "is not a field here; there are a; did you mean `a`?");
        let mut root = parse(br#"{"composecontent": 1}"#).unwrap().object().unwrap();
        assert!(root.take("compose_content").is_none() && root.take("id").is_none());
        let message = root.finish().unwrap_err().message;
        let wanted = "is not a field here; there are compose_content, id; did you mean `compose_content`?";
        assert_eq!(message, wanted);
    }

    #[test]
    fn keys_are_shown_without_control_characters() {
        assert_eq!(quoted("a\u{9b}2J\u{7f}\n\"ä"), r#""a\u009b2J\u007f\n\"ä""#);
    }

    #[test]
    fn keys_count_once_and_null_counts_as_absent() {
        let error = parse(br#"{"a":1,"a":2}"#).unwrap().object().err().unwrap();
        assert_eq!((error.field.as_deref(), error.message.as_str()), (Some("a"), "is there twice"));
        let mut object = parse(br#"{"a":null}"#).unwrap().object().unwrap();
        assert!(object.take("a").is_none());
        assert!(object.finish().is_ok());
        assert!(parse(br#"{"a":"\ud800"}"#).unwrap().object().unwrap().need("a").unwrap().string().is_err());
    }
}

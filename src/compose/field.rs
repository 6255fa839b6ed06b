//! A reader's view of one node: its value, its path in the document, and errors that name both.
//!
//! Paths are chains on the stack; nothing is allocated until an error or a warning needs the text.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::error::ComposeError;
use super::node::{Node, Place, Scalar, Sources, Value};
use super::scalar::Resolved;
use super::{LoadInput, suggest, units};

/// Bytes of env files and config files that one project may pull into its model.
const MAX_CONTENT: usize = 64 << 20;
/// Sentences for the author; whoever gets so many reads no more.
pub(super) const MAX_WARNINGS: usize = 200;
/// Ports that the ranges of one project may expand to.
const MAX_PORTS: usize = 70_000;

/// The names that a document declares, known before any of it is read.
#[derive(Default)]
pub(super) struct Declared<'a> {
    /// Services, and whether their profiles are active.
    pub(super) services: BTreeMap<&'a str, bool>,
    pub(super) networks: BTreeSet<&'a str>,
    pub(super) volumes: BTreeSet<&'a str>,
    pub(super) configs: BTreeSet<&'a str>,
    pub(super) secrets: BTreeSet<&'a str>,
}

/// What all readers of one load share.
pub(super) struct Context<'a> {
    pub(super) sources: &'a Sources,
    pub(super) input: &'a LoadInput<'a>,
    pub(super) declared: Declared<'a>,
    warnings: RefCell<Vec<String>>,
    content_left: Cell<usize>,
    ports_left: Cell<usize>,
}

impl<'a> Context<'a> {
    pub(super) fn new(sources: &'a Sources, input: &'a LoadInput<'a>, declared: Declared<'a>) -> Self {
        Self {
            sources,
            input,
            declared,
            warnings: RefCell::default(),
            content_left: Cell::new(MAX_CONTENT),
            ports_left: Cell::new(MAX_PORTS),
        }
    }

    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings.into_inner()
    }
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

/// A node and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Field<'p> {
    pub(super) cx: &'p Context<'p>,
    node: &'p Node,
    /// Where an error about the value points.
    spot: Place,
    /// Where an error about the key points.
    key_place: Place,
    parent: Option<&'p Field<'p>>,
    step: Step<'p>,
}

type Result<T> = std::result::Result<T, ComposeError>;

impl<'p> Field<'p> {
    /// The document as a whole.
    pub(super) fn root(cx: &'p Context<'p>, node: &'p Node) -> Self {
        Self { cx, node, spot: node.place, key_place: node.place, parent: None, step: Step::Root }
    }

    /// The last key of the path; empty for items and for the document.
    pub(super) fn key(&self) -> &'p str {
        match self.step {
            Step::Key(key) => key,
            _ => "",
        }
    }

    /// The path, such as `services.web.ports[1]`.
    pub(super) fn path(&self) -> String {
        let mut steps = Vec::new();
        let mut at = Some(self);
        while let Some(field) = at {
            steps.push(field.step);
            at = field.parent;
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Root => {}
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => path.extend([".", key]),
                Step::Index(at) => path.extend(["[", &at.to_string(), "]"]),
            }
        }
        path
    }

    /// A refusal of this field's value.
    pub(super) fn error(&self, reason: impl Into<String>) -> ComposeError {
        self.error_at(self.spot, reason.into())
    }

    fn error_at(&self, place: Place, reason: String) -> ComposeError {
        ComposeError {
            file: self.cx.sources.at(place).name.clone(),
            field: self.path(),
            location: Some(place.location),
            reason,
        }
    }

    /// A sentence for the author about this field.
    pub(super) fn warn(&self, reason: impl Into<String>) {
        let mut warnings = self.cx.warnings.borrow_mut();
        if warnings.len() < MAX_WARNINGS {
            warnings.push(self.error(reason).to_string());
        }
    }

    /// Accepts an attribute that has no effect here, and says so.
    pub(super) fn ignored(&self) {
        self.warn("is ignored");
    }

    /// A refusal of this attribute because no reader knows it. `known` are the attributes that may stand here.
    pub(super) fn unknown(&self, known: &[&str]) -> ComposeError {
        let hint = suggest::hint(self.key(), known.iter().copied());
        self.error_at(self.key_place, format!("is not an attribute of the Compose Specification here{hint}"))
    }

    /// Counts bytes that the model will hold besides the document.
    pub(super) fn spend_content(&self, bytes: usize) -> Result<()> {
        let left = self.cx.content_left.get().checked_sub(bytes);
        self.cx
            .content_left
            .set(left.ok_or_else(|| self.error(format!("the files of the project exceed {} MiB", MAX_CONTENT >> 20)))?);
        Ok(())
    }

    /// Counts ports.
    pub(super) fn spend_ports(&self, ports: usize) -> Result<()> {
        let left = self.cx.ports_left.get().checked_sub(ports);
        self.cx.ports_left.set(left.ok_or_else(|| self.error(format!("the project has more than {MAX_PORTS} ports")))?);
        Ok(())
    }

    /// A variable as the file that this stands in sees it.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.cx.sources.at(self.node.place).variables.get(name).cloned()
    }

    /// A path of the file that this stands in, absolute.
    pub(super) fn absolute(&self, path: &str) -> String {
        super::paths::resolve(&self.cx.sources.at(self.node.place).directory, path)
    }

    pub(super) fn is_null(&self) -> bool {
        self.node.is_null()
    }

    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.node.value, Value::Mapping(_))
    }

    pub(super) fn is_sequence(&self) -> bool {
        matches!(self.node.value, Value::Sequence(_))
    }

    /// The value's scalar, for texts that may be of several types.
    pub(super) fn as_scalar(&self) -> Option<&'p Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// `must be …, not …`
    pub(super) fn expected(&self, what: &str) -> ComposeError {
        self.error(format!("must be {what}, but it is {}", self.node.kind()))
    }

    /// The entries of a mapping with keys of the author's own choice.
    pub(super) fn entries(&self) -> Result<impl Iterator<Item = Field<'_>>> {
        let Value::Mapping(entries) = &self.node.value else { return Err(self.expected("a mapping")) };
        Ok(entries.iter().map(move |entry| Field {
            cx: self.cx,
            node: &entry.value,
            spot: entry.spot(),
            key_place: entry.place,
            parent: Some(self),
            step: Step::Key(&entry.key),
        }))
    }

    /// The attributes of a mapping: its entries without the `x-…` extensions.
    pub(super) fn attributes(&self) -> Result<impl Iterator<Item = Field<'_>>> {
        Ok(self.entries()?.filter(|entry| !entry.key().starts_with("x-")))
    }

    /// One attribute of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<Field<'_>> {
        self.entries().ok()?.find(|entry| entry.key() == key)
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Result<impl Iterator<Item = Field<'_>>> {
        let Value::Sequence(items) = &self.node.value else { return Err(self.expected("a list")) };
        Ok(items.iter().enumerate().map(move |(at, node)| Field {
            cx: self.cx,
            node,
            spot: node.place,
            key_place: node.place,
            parent: Some(self),
            step: Step::Index(at),
        }))
    }

    /// A string; numbers and booleans have to be quoted.
    pub(super) fn text(&self) -> Result<&'p str> {
        match self.as_scalar().map(Scalar::resolve) {
            Some(Resolved::Text(text)) => Ok(text),
            Some(Resolved::Bool(_) | Resolved::Int(_) | Resolved::Float(_) | Resolved::Time(_)) => {
                Err(self.error(format!("must be a string, but it is {}: put it in quotes", self.node.kind())))
            }
            _ => Err(self.expected("a string")),
        }
    }

    /// A string that is not empty.
    pub(super) fn some_text(&self) -> Result<&'p str> {
        let text = self.text()?;
        if text.is_empty() { Err(self.error("must not be empty")) } else { Ok(text) }
    }

    /// A string; an empty one says nothing.
    pub(super) fn optional_text(&self) -> Result<Option<String>> {
        Ok(Some(self.text()?.to_owned()).filter(|text| !text.is_empty()))
    }

    /// A string or a number, as text.
    pub(super) fn text_or_number(&self) -> Result<Cow<'p, str>> {
        match self.as_scalar().map(|scalar| (scalar.resolve(), scalar)) {
            // A date is what YAML makes of some strings; it is given on as docker compose prints it.
            Some((Resolved::Text(_) | Resolved::Int(_) | Resolved::Float(_) | Resolved::Time(_), scalar)) => {
                Ok(scalar.as_text().unwrap_or_default())
            }
            _ => Err(self.expected("a string or a number")),
        }
    }

    /// A string, number or boolean as text; none for null.
    pub(super) fn value(&self) -> Result<Option<Cow<'p, str>>> {
        self.as_scalar().map(Scalar::as_text).ok_or_else(|| self.expected("a string, number, boolean or empty"))
    }

    /// A whole number; as a string too, because that is what a variable gives.
    pub(super) fn integer(&self) -> Result<i64> {
        let number = match self.as_scalar().map(Scalar::resolve) {
            Some(Resolved::Int(number)) => i64::try_from(number).ok(),
            Some(Resolved::Text(text)) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| self.error("must be a whole number"))
    }

    /// A whole number that no string may stand for: the schema has it so, and docker compose casts no variable for it.
    pub(super) fn plain_integer(&self) -> Result<i64> {
        match self.as_scalar().map(Scalar::resolve) {
            Some(Resolved::Int(number)) => i64::try_from(number).ok(),
            _ => None,
        }
        .ok_or_else(|| self.error("must be a whole number, without quotes"))
    }

    /// A whole number from 0.
    pub(super) fn count(&self) -> Result<u32> {
        u32::try_from(self.integer()?).map_err(|_| self.error("must be a whole number from 0 to 4294967295"))
    }

    /// A number, as a string too.
    pub(super) fn number(&self) -> Result<f64> {
        let number = match self.as_scalar().map(|scalar| (scalar.resolve(), scalar)) {
            Some((Resolved::Int(_) | Resolved::Float(_), scalar)) => {
                scalar.as_text().and_then(|text| text.parse::<f64>().ok())
            }
            Some((Resolved::Text(text), _)) => text.parse::<f64>().ok(),
            _ => None,
        };
        number.filter(|number| number.is_finite()).ok_or_else(|| self.error("must be a number"))
    }

    /// A boolean; as a string it may also be one of YAML 1.1's words.
    pub(super) fn boolean(&self) -> Result<bool> {
        let truth = match self.as_scalar().map(Scalar::resolve) {
            Some(Resolved::Bool(truth)) => Some(truth),
            Some(Resolved::Text(text)) => match text.to_ascii_lowercase().as_str() {
                "true" | "y" | "yes" | "on" => Some(true),
                "false" | "n" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        };
        truth.ok_or_else(|| self.error("must be true or false"))
    }

    /// A boolean that no string may stand for: the schema has it so, and docker compose casts no variable for it.
    pub(super) fn plain_boolean(&self) -> Result<bool> {
        match self.as_scalar().map(Scalar::resolve) {
            Some(Resolved::Bool(truth)) => Ok(truth),
            _ => Err(self.error("must be true or false, without quotes")),
        }
    }

    /// A duration.
    pub(super) fn duration(&self) -> Result<Duration> {
        match self.as_scalar().map(Scalar::resolve) {
            Some(Resolved::Text(text)) => units::duration(text),
            _ => None,
        }
        .ok_or_else(|| self.error(format!("must be {}", units::DURATION_RULE)))
    }

    /// A size in bytes.
    pub(super) fn bytes(&self) -> Result<i64> {
        match self.as_scalar().map(Scalar::resolve) {
            Some(Resolved::Int(number)) => i64::try_from(number).ok(),
            Some(Resolved::Text(text)) => units::bytes(text),
            _ => None,
        }
        .ok_or_else(|| self.error(format!("must be {}", units::SIZE_RULE)))
    }

    /// Permission bits: a YAML number (`0440` is octal there), or a string of octal digits.
    pub(super) fn mode(&self) -> Result<u32> {
        let mode = match self.as_scalar().map(Scalar::resolve) {
            Some(Resolved::Int(number)) => u32::try_from(number).ok(),
            Some(Resolved::Text(text)) => {
                u32::from_str_radix(text.trim_start_matches("0o"), 8).ok().filter(|_| !text.starts_with('+'))
            }
            _ => None,
        };
        mode.filter(|&mode| mode <= 0o7777).ok_or_else(|| self.error("must be permission bits such as 0440"))
    }

    /// A list of strings, each once.
    pub(super) fn texts(&self) -> Result<Vec<String>> {
        let mut texts: Vec<String> = Vec::new();
        let mut seen = BTreeSet::new();
        for item in self.items()? {
            let text = item.text()?;
            if seen.insert(text.to_owned()) {
                texts.push(text.to_owned());
            }
        }
        Ok(texts)
    }

    /// A list of strings in which none may stand twice (`uniqueItems` of the schema).
    pub(super) fn distinct_texts(&self) -> Result<Vec<String>> {
        self.distinct()?;
        self.texts()
    }

    /// Refuses a list with the same string twice.
    pub(super) fn distinct(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for item in self.items()? {
            if let Some(scalar) = item.as_scalar()
                && !seen.insert((matches!(scalar.resolve(), Resolved::Text(_)), &*scalar.text))
            {
                return Err(item.error("stands in the list twice"));
            }
        }
        Ok(())
    }

    /// A string or a list of strings.
    pub(super) fn text_or_texts(&self) -> Result<Vec<String>> {
        if self.is_sequence() { self.texts() } else { Ok(vec![self.text()?.to_owned()]) }
    }

    /// `{a: b}` or `[a=b]`, a missing value empty.
    pub(super) fn pairs(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.optional_pairs()?.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
    }

    /// `{a: b}` or `[a=b]`, a missing value none.
    pub(super) fn optional_pairs(&self) -> Result<BTreeMap<String, Option<String>>> {
        let mut pairs = BTreeMap::new();
        if self.is_sequence() {
            for item in self.items()? {
                let text = item.text()?;
                let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
                if key.is_empty() {
                    return Err(item.error("must be NAME=value"));
                }
                pairs.insert(key.to_owned(), value.map(str::to_owned));
            }
        } else {
            let Value::Mapping(_) = &self.node.value else {
                return Err(self.expected("a mapping or a list of NAME=value"));
            };
            for entry in self.entries()? {
                if entry.key().is_empty() {
                    return Err(entry.error("a name must not be empty"));
                }
                pairs.insert(entry.key().to_owned(), entry.value()?.map(Cow::into_owned));
            }
        }
        Ok(pairs)
    }

    /// `{a: b}` with strings and numbers.
    pub(super) fn options(&self) -> Result<BTreeMap<String, String>> {
        self.entries()?.map(|entry| Ok((entry.key().to_owned(), entry.text_or_number()?.into_owned()))).collect()
    }

    /// A name made by its own parser.
    pub(super) fn parsed<T>(
        &self,
        parse: impl FnOnce(&str) -> std::result::Result<T, crate::domain::InvalidName>,
    ) -> Result<T> {
        parse(self.text()?).map_err(|error| self.error(error.to_string()))
    }

    /// The key as a name made by its own parser.
    pub(super) fn parsed_key<T>(
        &self,
        parse: impl FnOnce(&str) -> std::result::Result<T, crate::domain::InvalidName>,
    ) -> Result<T> {
        parse(self.key()).map_err(|error| self.error_at(self.key_place, error.to_string()))
    }
}

//! `$VAR` and `${VAR…}` in values (Compose Specification, "Interpolation"), from the request's variables only.
//!
//! Keys are left alone. What comes out is never interpolated again, and no error repeats a variable's value.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::error::ComposeError;
use super::node::{Entry, Node, Place, Sources, Style, Value};

/// Levels of `${A:-${B:-…}}`.
const MAX_NESTING: usize = 32;
/// Bytes that one value may become.
const MAX_SCALAR: usize = 256 << 10;
/// Bytes that all values of one project may become.
pub(super) const MAX_TOTAL: usize = 16 << 20;

/// Why a template was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    #[error(
        "this `$` begins no valid variable: write $NAME, ${{NAME}}, ${{NAME:-default}}, ${{NAME:?message}} or \
         ${{NAME:+replacement}}, and $$ for a `$` itself"
    )]
    Malformed,
    #[error("required variable {0} is missing a value{1}")]
    Missing(String, Message),
    #[error("variables are nested deeper than {MAX_NESTING} levels")]
    TooDeep,
    #[error("the value becomes larger than {} KiB", MAX_SCALAR >> 10)]
    TooLong,
}

/// The author's words after `:?`, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message(String);

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

/// Where variables come from, and which ones were asked for in vain.
pub(super) trait Variables {
    /// The value of a variable.
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
    /// A variable without a value and without a default was used; it counts as empty.
    fn undefined(&mut self, name: &str);
}

/// Replaces the variables in one text.
pub(super) fn template(text: &str, variables: &mut dyn Variables) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(text.len());
    expand(text, variables, 0, &mut out)?;
    Ok(out)
}

fn expand(text: &str, variables: &mut dyn Variables, depth: usize, out: &mut String) -> Result<(), TemplateError> {
    if depth > MAX_NESTING {
        return Err(TemplateError::TooDeep);
    }
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        push(out, &rest[..at])?;
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            push(out, "$")?;
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = closing_brace(after)?;
            expand_braced(&after[..end], variables, depth, out)?;
            rest = &after[end + 1..];
        } else {
            let name = name_at_start(rest);
            if name.is_empty() {
                push(out, "$")?;
            } else {
                substitute(name, variables, out)?;
                rest = &rest[name.len()..];
            }
        }
    }
    push(out, rest)
}

/// The inside of `${…}`: a name, then nothing or an operator and a word. The first operator wins.
fn expand_braced(
    inside: &str,
    variables: &mut dyn Variables,
    depth: usize,
    out: &mut String,
) -> Result<(), TemplateError> {
    let name = name_at_start(inside);
    let rest = &inside[name.len()..];
    if name.is_empty() {
        return Err(TemplateError::Malformed);
    }
    if rest.is_empty() {
        return substitute(name, variables, out);
    }
    let (empty_counts, rest) = rest.strip_prefix(':').map_or((true, rest), |rest| (false, rest));
    let (operator, word) = match rest.as_bytes().first() {
        Some(&operator @ (b'-' | b'?' | b'+')) if !rest.contains('\n') => (operator, &rest[1..]),
        _ => return Err(TemplateError::Malformed),
    };
    // The word is expanded even when it is not used: a required variable in it is required.
    let mut expanded = String::new();
    if operator != b'?' {
        expand(word, variables, depth + 1, &mut expanded)?;
    }
    let value = variables.get(name).filter(|value| empty_counts || !value.is_empty());
    match (operator, value) {
        (b'-' | b'?', Some(value)) => push(out, &value),
        (b'-', None) | (b'+', Some(_)) => push(out, &expanded),
        (b'+', None) => Ok(()),
        _ => Err(TemplateError::Missing(name.to_owned(), Message(word.to_owned()))),
    }
}

fn substitute(name: &str, variables: &mut dyn Variables, out: &mut String) -> Result<(), TemplateError> {
    if let Some(value) = variables.get(name) {
        return push(out, &value);
    }
    variables.undefined(name);
    Ok(())
}

fn push(out: &mut String, text: &str) -> Result<(), TemplateError> {
    if out.len() + text.len() > MAX_SCALAR {
        return Err(TemplateError::TooLong);
    }
    out.push_str(text);
    Ok(())
}

/// `[A-Za-z_][A-Za-z0-9_]*` at the start.
fn name_at_start(text: &str) -> &str {
    let end = text
        .bytes()
        .enumerate()
        .find(|&(at, byte)| !(byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit())))
        .map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// The offset of the `}` that ends what follows `${`; braces inside pair up.
fn closing_brace(text: &str) -> Result<usize, TemplateError> {
    let mut open = 1_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Ok(at);
        }
    }
    Err(TemplateError::Malformed)
}

/// Replaces the variables in every value of a tree. Gives the same tree back where there is no `$`. `left` are the bytes
/// that values may still become.
pub(super) fn tree(
    root: &Arc<Node>,
    sources: &Sources,
    variables: &mut dyn Variables,
    left: &mut usize,
) -> Result<Arc<Node>, ComposeError> {
    let mut pass = Pass { sources, variables, path: Vec::new(), left };
    pass.node(root, root.place)
}

enum Step {
    Key(Arc<str>),
    Index(usize),
}

struct Pass<'a> {
    sources: &'a Sources,
    variables: &'a mut dyn Variables,
    path: Vec<Step>,
    left: &'a mut usize,
}

impl Pass<'_> {
    /// Recursion is bounded by the depth that the YAML reader admits.
    fn node(&mut self, node: &Arc<Node>, spot: Place) -> Result<Arc<Node>, ComposeError> {
        if !node.size.has_dollar {
            return Ok(Arc::clone(node));
        }
        let fresh = match &node.value {
            Value::Scalar(scalar) => {
                let text =
                    template(&scalar.text, self.variables).map_err(|error| self.error(spot, error.to_string()))?;
                let Some(left) = self.left.checked_sub(text.len()) else {
                    return Err(self.error(spot, format!("the values become larger than {} MiB", MAX_TOTAL >> 20)));
                };
                *self.left = left;
                Node::scalar(node.place, &text, Style::Interpolated)
            }
            Value::Sequence(items) => {
                let mut interpolated = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    self.path.push(Step::Index(at));
                    interpolated.push(self.node(item, item.place)?);
                    self.path.pop();
                }
                Node::sequence(node.place, interpolated)
            }
            Value::Mapping(entries) => {
                let mut interpolated = Vec::with_capacity(entries.len());
                for entry in entries {
                    self.path.push(Step::Key(Arc::clone(&entry.key)));
                    let value = self.node(&entry.value, entry.spot())?;
                    interpolated.push(Entry { key: Arc::clone(&entry.key), place: entry.place, value });
                    self.path.pop();
                }
                Node::mapping(node.place, interpolated)
            }
        };
        Ok(Arc::new(fresh.tagged(node.tag)))
    }

    fn error(&self, place: Place, reason: String) -> ComposeError {
        let mut field = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if field.is_empty() => field.push_str(key),
                Step::Key(key) => field.extend([".", key]),
                Step::Index(at) => field.extend(["[", &at.to_string(), "]"]),
            }
        }
        ComposeError { file: self.sources.at(place).name.clone(), field, location: Some(place.location), reason }
    }
}

/// The request's variables, and the names of those that were missing, each once.
pub(super) struct RequestVariables<'a> {
    values: &'a std::collections::BTreeMap<String, String>,
    missing: BTreeSet<String>,
}

impl<'a> RequestVariables<'a> {
    pub(super) fn new(values: &'a std::collections::BTreeMap<String, String>) -> Self {
        Self { values, missing: BTreeSet::new() }
    }

    /// The variables that were used without a value.
    pub(super) fn into_missing(self) -> BTreeSet<String> {
        self.missing
    }
}

impl Variables for RequestVariables<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.values.get(name).map(|value| Cow::Borrowed(value.as_str()))
    }

    fn undefined(&mut self, name: &str) {
        if !self.missing.contains(name) {
            self.missing.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [("FOO", "first"), ("BAR", ""), ("DOLLAR", "a$b${c}")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn expand_all(text: &str) -> Result<String, TemplateError> {
        let values = variables();
        template(text, &mut RequestVariables::new(&values))
    }

    #[test]
    fn a_value_is_not_interpolated_again() {
        assert_eq!(expand_all("${DOLLAR}").as_deref(), Ok("a$b${c}"));
    }

    #[test]
    fn empty_braces_can_be_a_default() {
        assert_eq!(expand_all("${UNSET:-{}}").as_deref(), Ok("{}"));
    }

    #[test]
    fn nesting_and_growth_are_bounded() {
        let nested = format!("{}{}", "${UNSET:-".repeat(1000), "}".repeat(1000));
        assert_eq!(expand_all(&nested), Err(TemplateError::TooDeep));
        let values = BTreeMap::from([("BIG".to_owned(), "x".repeat(200 << 10))]);
        assert_eq!(template("$BIG$BIG", &mut RequestVariables::new(&values)), Err(TemplateError::TooLong));
    }

    #[test]
    fn a_missing_variable_is_named_once_and_a_present_one_never() {
        let values = variables();
        let mut asked = RequestVariables::new(&values);
        for text in ["$A ${A} $FOO", "${B:-x} ${C+y}", "$A"] {
            template(text, &mut asked).expect("valid");
        }
        assert_eq!(asked.into_missing(), BTreeSet::from(["A".to_owned()]));
    }

    #[test]
    fn an_error_never_repeats_a_value() {
        let values = BTreeMap::from([("SECRET".to_owned(), "hunter2".to_owned())]);
        for text in ["${UNSET:?${SECRET}}", "$SECRET${", "${SECRET!}", "${SECRET:-${UNSET:?}}"] {
            let error = template(text, &mut RequestVariables::new(&values)).expect_err(text);
            assert!(!error.to_string().contains("hunter2"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_expanded_or_refused(text in r"([${}:?+\-A-F_ \n]|\PC){0,200}") {
            if let Ok(out) = expand_all(&text) {
                prop_assert!(out.len() <= MAX_SCALAR);
            }
        }

        #[test]
        fn doubling_every_dollar_gives_the_text_back(text in r"([${}:?A-F]|\PC){0,200}") {
            prop_assert_eq!(expand_all(&text.replace('$', "$$")), Ok(text));
        }
    }
}

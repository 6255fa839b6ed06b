//! Attributes that no backend runs: their form is checked, and they are kept as docker compose prints them.
//!
//! Each is described by a [`Shape`]; whether a host takes them is for the policy and the backends to say.

use serde_json::{Map, Value, json};

use super::resources::{amount, ulimits};
use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::node::Scalar;
use crate::compose::print;
use crate::compose::scalar::Resolved;
use crate::compose::words;

/// What an attribute may be, and how it is printed.
pub(super) enum Shape {
    /// A string.
    Text,
    /// A string or a number, as a string.
    TextOrNumber,
    /// A whole number.
    Int,
    /// A number.
    Number,
    /// A boolean.
    Bool,
    /// A size in bytes, as a string.
    Bytes,
    /// A path of the file, made absolute unless it is an address of its own.
    Path,
    /// A command: a string or a list of words.
    Command,
    /// A string or a list of strings, as a list.
    Texts,
    /// `{a: b}` or `[a=b]`, as a mapping; a name without a value takes the request's variable or goes.
    Pairs,
    /// `{name: path}` or `[name=path]`, as a mapping to absolute paths.
    Paths,
    /// `{host: address}` or `[host=address]`, as a sorted list.
    Hosts,
    /// `ulimits`.
    Ulimits,
    /// A list.
    List(&'static Shape),
    /// A list of names or of mappings: a bare name is a mapping with this one attribute.
    Named(&'static str, &'static Shape),
    /// A mapping with keys of the author's own choice; a list of keys has no values.
    Map(&'static Shape),
    /// Either of the two: the first for scalars.
    Either(&'static Shape, &'static Shape),
    /// A mapping with these attributes.
    Fields(&'static [(&'static str, Shape)]),
}

const FILE: Shape = Shape::Fields(&[
    ("source", Shape::Text),
    ("target", Shape::Text),
    ("uid", Shape::TextOrNumber),
    ("gid", Shape::TextOrNumber),
    ("mode", Shape::Int),
]);

const BUILD: Shape = Shape::Fields(&[
    ("additional_contexts", Shape::Paths),
    ("args", Shape::Pairs),
    ("cache_from", Shape::List(&Shape::Text)),
    ("cache_to", Shape::List(&Shape::Text)),
    ("context", Shape::Path),
    ("dockerfile", Shape::Text),
    ("dockerfile_inline", Shape::Text),
    ("entitlements", Shape::List(&Shape::Text)),
    ("extra_hosts", Shape::Hosts),
    ("isolation", Shape::Text),
    ("labels", Shape::Pairs),
    ("network", Shape::Text),
    ("no_cache", Shape::Bool),
    ("no_cache_filter", Shape::Texts),
    ("platforms", Shape::List(&Shape::Text)),
    ("privileged", Shape::Bool),
    ("provenance", Shape::TextOrNumber),
    ("pull", Shape::Bool),
    ("sbom", Shape::TextOrNumber),
    ("secrets", Shape::Named("source", &FILE)),
    ("shm_size", Shape::Bytes),
    ("ssh", Shape::List(&Shape::Text)),
    ("tags", Shape::List(&Shape::Text)),
    ("target", Shape::Text),
    ("ulimits", Shape::Ulimits),
]);

const EXEC: Shape = Shape::Fields(&[
    ("command", Shape::Command),
    ("environment", Shape::Pairs),
    ("privileged", Shape::Bool),
    ("user", Shape::Text),
    ("working_dir", Shape::Text),
]);

/// Attributes of a service.
pub(super) const SERVICE: &[(&str, Shape)] = &[
    ("credential_spec", Shape::Fields(&[("config", Shape::Text), ("file", Shape::Text), ("registry", Shape::Text)])),
    (
        "develop",
        Shape::Fields(&[(
            "watch",
            Shape::List(&Shape::Fields(&[
                ("action", Shape::Text),
                ("exec", EXEC),
                ("ignore", Shape::Texts),
                ("include", Shape::Texts),
                ("initial_sync", Shape::Bool),
                ("path", Shape::Path),
                ("target", Shape::Text),
            ])),
        )]),
    ),
    ("models", Shape::Map(&Shape::Fields(&[("endpoint_var", Shape::Text), ("model_var", Shape::Text)]))),
    (
        "provider",
        Shape::Fields(&[
            ("type", Shape::Text),
            ("options", Shape::Map(&Shape::Either(&Shape::TextOrNumber, &Shape::List(&Shape::TextOrNumber)))),
        ]),
    ),
    ("use_api_socket", Shape::Bool),
];

/// Attributes of the project.
pub(super) const PROJECT: &[(&str, Shape)] = &[(
    "models",
    Shape::Map(&Shape::Fields(&[
        ("context_size", Shape::Int),
        ("model", Shape::Text),
        ("name", Shape::Text),
        ("runtime_flags", Shape::List(&Shape::Text)),
    ])),
)];

/// `build`: a context, or a mapping.
pub(super) fn build(field: &Field<'_>) -> Result<Value, ComposeError> {
    let mut build =
        if field.is_mapping() { read(field, &BUILD)? } else { json!({ "context": read(field, &Shape::Path)? }) };
    if let Value::Object(members) = &mut build {
        if !members.contains_key("context") {
            members.insert("context".to_owned(), field.absolute(".").into());
        }
        if !members.contains_key("dockerfile") && !members.contains_key("dockerfile_inline") {
            members.insert("dockerfile".to_owned(), "Dockerfile".into());
        }
    }
    Ok(build)
}

/// An attribute of a service that [`SERVICE`] has.
pub(super) fn of_service(field: &Field<'_>, shape: &Shape) -> Result<Value, ComposeError> {
    let mut value = read(field, shape)?;
    if field.key() == "develop" {
        for item in field.get("watch").iter().filter_map(|watch| watch.items().ok()).flatten() {
            check_watch(&item)?;
        }
        for watch in value.get_mut("watch").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(members) = watch.as_object_mut() {
                members.entry("exec").or_insert_with(|| json!({ "command": null }));
            }
        }
    }
    Ok(value)
}

/// What to watch, what then is done, and where files go that are copied.
fn check_watch(item: &Field<'_>) -> Result<(), ComposeError> {
    const ACTIONS: &[&str] = &["rebuild", "restart", "sync", "sync+exec", "sync+restart"];
    let action = item.get("action").ok_or_else(|| item.error("has no `action`"))?;
    if !ACTIONS.contains(&action.text()?) {
        return Err(action.error(format!("must be one of {}", ACTIONS.join(", "))));
    }
    if item.get("path").is_none() {
        return Err(item.error("has no `path`"));
    }
    if action.text()?.starts_with("sync") && item.get("target").is_none() {
        return Err(item.error("has no `target`, the path in the container that files are copied to"));
    }
    Ok(())
}

/// The shape of an attribute.
pub(super) fn shape_of<'s>(shapes: &'s [(&str, Shape)], key: &str) -> Option<&'s Shape> {
    shapes.iter().find(|(name, _)| *name == key).map(|(_, shape)| shape)
}

/// Reads an attribute into the form in which it is printed.
pub(super) fn read(field: &Field<'_>, shape: &Shape) -> Result<Value, ComposeError> {
    Ok(match shape {
        Shape::Text => field.text()?.into(),
        Shape::TextOrNumber => field.value()?.unwrap_or_default().into(),
        Shape::Int => field.integer()?.into(),
        Shape::Number => print::number(field.number()?),
        Shape::Bool => field.boolean()?.into(),
        Shape::Bytes => amount(field)?.map(|bytes| bytes.to_string()).unwrap_or_default().into(),
        Shape::Path => path(field, field.some_text()?).into(),
        Shape::Command => command(field)?,
        Shape::Texts => field.text_or_texts()?.into(),
        Shape::Pairs => {
            let pairs = field.optional_pairs()?.into_iter();
            let known = pairs.filter_map(|(key, value)| {
                let value = value.or_else(|| field.variable(&key))?;
                Some((key, value.into()))
            });
            Value::Object(known.collect())
        }
        Shape::Paths => {
            let pairs = field.pairs()?.into_iter();
            Value::Object(pairs.map(|(key, value)| (key, path(field, &value).into())).collect())
        }
        Shape::Hosts => print::hosts(&super::service::extra_hosts(field)?),
        Shape::Ulimits => print::ulimits(&ulimits(field)?),
        Shape::List(inner) => field.items()?.map(|item| read(&item, inner)).collect::<Result<Vec<_>, _>>()?.into(),
        Shape::Named(attribute, inner) => {
            let item = |item: Field<'_>| {
                if item.is_mapping() { read(&item, inner) } else { Ok(json!({ *attribute: item.text()? })) }
            };
            field.items()?.map(item).collect::<Result<Vec<_>, _>>()?.into()
        }
        Shape::Map(_) if field.is_sequence() => {
            let keys = field.items()?.map(|item| Ok((item.text()?.to_owned(), Value::Null)));
            Value::Object(keys.collect::<Result<Map<_, _>, ComposeError>>()?)
        }
        Shape::Map(inner) => {
            let entry = |entry: Field<'_>| {
                let value = if entry.is_null() { Value::Null } else { read(&entry, inner)? };
                Ok((entry.key().to_owned(), value))
            };
            Value::Object(field.entries()?.map(entry).collect::<Result<Map<_, _>, ComposeError>>()?)
        }
        Shape::Either(scalar, other) => read(field, if field.as_scalar().is_some() { scalar } else { other })?,
        Shape::Fields(shapes) => {
            let mut members = Map::new();
            for attribute in field.attributes()? {
                let Some(shape) = shape_of(shapes, attribute.key()) else {
                    let known: Vec<&str> = shapes.iter().map(|(name, _)| *name).collect();
                    return Err(attribute.unknown(&known));
                };
                let value = read(&attribute, shape)?;
                // What is off or empty is not printed.
                if ![json!(false), json!(""), json!([]), json!({})].contains(&value) {
                    members.insert(attribute.key().to_owned(), value);
                }
            }
            Value::Object(members)
        }
    })
}

/// Any tree, as JSON: extensions mean what their author wants them to mean.
pub(super) fn anything(field: &Field<'_>) -> Value {
    if let Ok(items) = field.items() {
        return items.map(|item| anything(&item)).collect();
    }
    if let Ok(entries) = field.entries() {
        return Value::Object(entries.map(|entry| (entry.key().to_owned(), anything(&entry))).collect());
    }
    match field.as_scalar().map(Scalar::resolve) {
        None | Some(Resolved::Null) => Value::Null,
        Some(Resolved::Bool(truth)) => truth.into(),
        Some(Resolved::Int(number)) => i64::try_from(number)
            .map(Value::from)
            .or_else(|_| u64::try_from(number).map(Value::from))
            .unwrap_or_default(),
        Some(Resolved::Float(number)) => print::number(number),
        Some(Resolved::Time(time)) => time.as_rfc3339().into(),
        Some(Resolved::Text(text)) => text.into(),
    }
}

fn path(field: &Field<'_>, path: &str) -> String {
    let is_address =
        path.contains("://") || ["git@", "github.com/", "service:"].iter().any(|start| path.starts_with(start));
    if is_address { path.to_owned() } else { field.absolute(path) }
}

fn command(field: &Field<'_>) -> Result<Value, ComposeError> {
    if field.is_sequence() {
        return Ok(field.items()?.map(|item| item.text().map(str::to_owned)).collect::<Result<Vec<_>, _>>()?.into());
    }
    let split = words::split(field.text()?).map_err(|error| field.error(error.to_string()))?;
    Ok(split.into())
}

//! From Compose text to a resolved [`Project`]. Pure: bytes and maps in, a model or a located error out.
//!
//! The pipeline, one file a step:
//! 1. `yaml`: budgeted parse into a tree whose every node knows its line and column;
//! 2. `interpolate`: `${…}` from the request's variables only, never the agent's own environment;
//! 3. `read`: tree -> model, attribute by attribute; an attribute nobody has written a reader for is refused;
//! 4. `check`: the rules that span attributes and services;
//! 5. `graph`: start order, cycles.
//!
//! Below them: `node` (the tree), `scalar` (what plain YAML text means), `field` (a reader's view of a node), `units`,
//! `words`, `paths`, `suggest`. `env_file` reads `.env` syntax; `locations` finds a field of the model in the file.

mod check;
mod env_file;
mod error;
mod field;
mod graph;
mod interpolate;
mod locations;
mod model;
mod node;
mod paths;
mod read;
mod scalar;
mod suggest;
mod units;
mod words;
mod yaml;

pub use error::{ComposeError, Location};
pub use locations::Locations;
pub use model::*;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::domain::ProjectName;

/// The files that a Compose document may refer to (`env_file`, `configs.*.file`, …).
pub trait Files {
    /// The bytes of the file at this absolute, clean path; none when there is no such file.
    fn read(&self, path: &str) -> Option<Cow<'_, [u8]>>;
}

/// Everything that decides what a Compose file means.
pub struct LoadInput<'a> {
    /// The Compose file's text.
    pub compose: &'a [u8],
    /// Variables for interpolation, already read from the env file.
    pub variables: &'a BTreeMap<String, String>,
    /// The files it may name.
    pub files: &'a dyn Files,
    /// Active profiles; `*` activates all.
    pub profiles: &'a BTreeSet<String>,
    /// The project's name.
    pub project: &'a ProjectName,
    /// The project directory: absolute, clean, without a trailing slash.
    pub directory: &'a str,
}

/// A project and what its author should know about it.
#[derive(Debug)]
pub struct Loaded {
    /// The resolved project.
    pub project: Project,
    /// Sentences for a person, each naming the field it is about. Never a variable's value.
    pub warnings: Vec<String>,
    /// Where the file says what; other rooms locate their refusals with it.
    pub locations: Locations,
}

/// What errors call the Compose file.
const COMPOSE_FILE: &str = "compose.yaml";
/// What errors call the env file.
const ENV_FILE: &str = ".env";

/// Loads one Compose file. The same input gives the same project.
///
/// # Errors
/// The first thing that is wrong with it, located.
pub fn load(input: &LoadInput<'_>) -> Result<Loaded, ComposeError> {
    let mut sources = node::Sources::default();
    let file = sources.add(COMPOSE_FILE);
    let written = yaml::parse(input.compose, file, COMPOSE_FILE)?;
    let mut values = input.variables.clone();
    // The one variable that Compose itself sets (Compose Specification, "Interpolation").
    values.insert("COMPOSE_PROJECT_NAME".to_owned(), input.project.to_string());
    let mut variables = interpolate::RequestVariables::new(&values);
    let root = interpolate::tree(&written, &sources, &mut variables)?;
    let cx = field::Context::new(&sources, input, &values, read::declared(&root, input.profiles));
    let mut project = read::project(&field::Field::root(&cx, &root))?;
    let warnings = variables.warnings().take(field::MAX_WARNINGS).chain(cx.into_warnings()).collect();
    // The tree as written: it has the same shape and places, and none of the variables' values.
    let locations = Locations::new(written);
    check::complete(&mut project, &locations, COMPOSE_FILE)?;
    Ok(Loaded { project, warnings, locations })
}

/// Reads an env file (`.env` syntax of docker compose) into variables; later lines may use earlier ones.
///
/// # Errors
/// The first line that is not `NAME=value`, located.
pub fn read_env(text: &str) -> Result<BTreeMap<String, String>, ComposeError> {
    env_file::parse(ENV_FILE, text, &|_| None)
}

/// Services in start order: every service after all it depends on. The project's graph has been checked for cycles.
pub fn start_order(project: &Project) -> Vec<crate::domain::ServiceName> {
    graph::start_order(project)
}

#[cfg(test)]
mod tests;

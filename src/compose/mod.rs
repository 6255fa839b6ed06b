//! From Compose text to a resolved [`Project`]. Pure: bytes and maps in, a model or a located error out.
//!
//! The pipeline, one file a step:
//! 1. `yaml`: budgeted parse into a tree whose every node knows its file, line and column;
//! 2. `interpolate`: `${…}` from the request's variables only, never the agent's own environment;
//! 3. `assemble`: `extends`, `include` and several files become one tree, by the rules of `merge`;
//! 4. `read`: tree -> model, attribute by attribute; an attribute nobody has written a reader for is refused;
//! 5. `check`: the rules that span attributes and services;
//! 6. `graph`: start order, cycles.
//!
//! `print` is the way back: the model as `docker compose config --format json` prints it.
//!
//! Below them: `node` (the tree), `scalar` and `time` (what plain YAML text means), `field` (a reader's view of a node), `units`,
//! `words`, `paths`, `suggest`. `env_file` reads `.env` syntax; `locations` finds a field of the model in the files.

mod assemble;
mod check;
mod env_file;
mod error;
mod extends;
mod field;
mod graph;
mod include;
mod interpolate;
mod locations;
mod merge;
mod model;
mod node;
mod paths;
mod print;
mod read;
mod scalar;
mod suggest;
mod time;
mod units;
mod words;
mod yaml;

pub use error::{ComposeError, Location};
pub use locations::Locations;
pub use model::*;
pub use print::print;
pub(crate) use suggest::hint;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::domain::ProjectName;

/// The files that a Compose document may refer to (`include`, `env_file`, `configs.*.file`, …).
pub trait Files {
    /// The bytes of the file at this absolute, clean path; none when there is no such file.
    fn read(&self, path: &str) -> Option<Cow<'_, [u8]>>;
}

/// One Compose file.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// What errors call it.
    pub name: &'a str,
    /// Its text.
    pub bytes: &'a [u8],
}

/// Everything that decides what a Compose file means.
pub struct LoadInput<'a> {
    /// The Compose files, later ones over earlier ones.
    pub documents: &'a [Document<'a>],
    /// Variables for interpolation, already read from the env file.
    pub variables: &'a BTreeMap<String, String>,
    /// The files it may name.
    pub files: &'a dyn Files,
    /// Active profiles; `*` activates all.
    pub profiles: &'a BTreeSet<String>,
    /// The project's name.
    pub project: &'a ProjectName,
    /// Whether a `name` in the file must be that one: the host names its tenants' projects.
    pub names_the_project: bool,
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
    /// The variables that are not set and have no default: each counts as empty, and has a warning.
    pub undefined: Vec<String>,
    /// Where the file says what; other rooms locate their refusals with it.
    pub locations: Locations,
}

/// What errors call the Compose file.
const COMPOSE_FILE: &str = "compose.yaml";

/// Loads a project. The same input gives the same project.
///
/// # Errors
/// The first thing that is wrong with it, located.
pub fn load(input: &LoadInput<'_>) -> Result<Loaded, ComposeError> {
    let mut variables = input.variables.clone();
    // The one variable that Compose itself sets (Compose Specification, "Interpolation").
    variables.insert("COMPOSE_PROJECT_NAME".to_owned(), input.project.to_string());
    let mut assembly = assemble::Assembly::new(input);
    let root = assembly.project(variables)?;
    let assemble::Assembly { sources, missing, .. } = assembly;
    let cx = field::Context::new(&sources, input, read::declared(&root, input.profiles));
    let mut project = read::project(&field::Field::root(&cx, &root))?;
    let undefined: Vec<String> = missing.into_iter().collect();
    let told = undefined.iter().map(|name| format!("variable {name} is not set: it counts as empty"));
    let warnings = told.take(field::MAX_WARNINGS).chain(cx.into_warnings()).collect();
    let locations = Locations::new(root, sources);
    check::complete(&mut project, &locations)?;
    Ok(Loaded { project, warnings, undefined, locations })
}

/// The project's own `name`, the last file's that has one, with its variables replaced. A broken file is [`load`]'s to
/// explain.
pub fn name_of(documents: &[Document<'_>], variables: &BTreeMap<String, String>) -> Option<String> {
    documents.iter().rev().find_map(|document| {
        let trees = yaml::parse(document.bytes, 0, document.name).ok()?;
        let name = trees.iter().rev().find_map(|root| root.get("name")?.value.text())?.to_owned();
        interpolate::template(&name, &mut interpolate::RequestVariables::new(variables)).ok()
    })
}

/// Reads an env file (`.env` syntax of docker compose) into variables; later lines may use earlier ones. `name` is what
/// errors call it.
///
/// # Errors
/// The first line that is not `NAME=value`, located.
pub fn read_env(name: &str, text: &str) -> Result<BTreeMap<String, String>, ComposeError> {
    env_file::parse(name, text, &|_| None)
}

/// Services in start order: every service after all it depends on. The project's graph has been checked for cycles.
pub fn start_order(project: &Project) -> Vec<crate::domain::ServiceName> {
    graph::start_order(project)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

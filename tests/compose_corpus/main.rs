//! Compose documents and vectors with docker compose's own answers (`tests/data/corpus`), put to the loader.
//!
//! Where the loader answers otherwise on purpose, the test names the input, the reason and what it does instead.

#![recursion_limit = "256"]

mod baseline;
mod differential;
mod documents;
mod vectors;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use q8_agent::compose::{ComposeError, Document, Files, LoadInput, Loaded, Project, load, print};
use q8_agent::domain::ProjectName;
use serde_json::Value;

/// The project directory of every load; the corpus writes `${PROJECT_DIR}`.
const DIRECTORY: &str = "/tmp/project";

/// A file or directory of the corpus.
fn corpus(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus").join(path)
}

fn read_text(path: &str) -> String {
    std::fs::read_to_string(corpus(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read_json(path: &str) -> Vec<Value> {
    serde_json::from_str(&read_text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The corpus' own files as the loader asks for them.
struct CorpusFiles(BTreeMap<String, String>);

impl Files for CorpusFiles {
    fn read(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        self.0.get(path).map(|text| Cow::Borrowed(text.as_bytes()))
    }
}

/// One load.
struct Case<'a> {
    text: &'a str,
    /// Files that are merged over it, by their names.
    over: Vec<(String, String)>,
    project: &'a str,
    variables: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
    profiles: BTreeSet<String>,
}

impl<'a> Case<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            over: Vec::new(),
            project: "q8-acme",
            variables: BTreeMap::new(),
            files: BTreeMap::new(),
            profiles: BTreeSet::new(),
        }
    }

    /// With variables from a JSON object of strings.
    fn variables(mut self, object: &Value) -> Self {
        self.variables.extend(strings(object));
        self
    }

    fn load(&self) -> Result<Loaded, ComposeError> {
        let first = Document { name: "compose.yaml", bytes: self.text.as_bytes() };
        let over = self.over.iter().map(|(name, text)| Document { name, bytes: text.as_bytes() });
        load(&LoadInput {
            documents: &[first].into_iter().chain(over).collect::<Vec<_>>(),
            variables: &self.variables,
            files: &CorpusFiles(self.files.clone()),
            profiles: &self.profiles,
            project: &ProjectName::parse(self.project).expect("a project name"),
            names_the_project: true,
            directory: DIRECTORY,
        })
    }
}

/// The project as it is printed, every `$` single again.
fn printed(project: &Project) -> Value {
    single(&print(project))
}

/// Doubled dollars made single, and the corpus' project directory ours.
fn single(value: &Value) -> Value {
    let text = value.to_string().replace("${PROJECT_DIR}", DIRECTORY).replace("$$", "$");
    serde_json::from_str(&text).expect("still JSON")
}

/// The members of a JSON object of strings; nothing for null.
fn strings(object: &Value) -> impl Iterator<Item = (String, String)> {
    object.as_object().into_iter().flatten().map(|(name, value)| {
        (name.clone(), value.as_str().unwrap_or_else(|| panic!("{name} is not a string")).to_owned())
    })
}

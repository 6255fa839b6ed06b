//! The files of a project become one tree: parsed, interpolated, `extends` and `include` resolved, merged.
//!
//! Each node keeps the place it was written at, and its file knows what relative paths are relative to and which
//! variables it sees. So nothing has to be rewritten when a service moves from one file into another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::error::ComposeError;
use super::interpolate::{self, RequestVariables};
use super::merge::{self, Merger};
use super::node::{Node, Place, Source, Sources};
use super::{Document, LoadInput, env_file, extends, include, read, suggest, yaml};

/// Bytes of YAML that one project may consist of, files that are read twice counted twice.
const MAX_TEXT: usize = 8 << 20;

/// Everything that is collected on the way from files to one tree.
pub(super) struct Assembly<'a> {
    pub(super) input: &'a LoadInput<'a>,
    pub(super) sources: Sources,
    pub(super) merger: Merger,
    /// Variables that were used without a value.
    pub(super) missing: BTreeSet<String>,
    text_left: usize,
    values_left: usize,
}

type Result<T> = std::result::Result<T, ComposeError>;

impl<'a> Assembly<'a> {
    pub(super) fn new(input: &'a LoadInput<'a>) -> Self {
        Self {
            input,
            sources: Sources::default(),
            merger: Merger::new(),
            missing: BTreeSet::new(),
            text_left: MAX_TEXT,
            values_left: interpolate::MAX_TOTAL,
        }
    }

    /// The whole project.
    pub(super) fn project(&mut self, variables: BTreeMap<String, String>) -> Result<Arc<Node>> {
        let variables = Arc::new(variables);
        let tree = self.documents(self.input.documents, self.input.directory, &variables, &[])?;
        // What `extends` shares, a reader meets once for each service, as it does what is behind an alias.
        if !yaml::is_affordable(tree.size) {
            return Err(self.error(tree.place, "", yaml::too_large()));
        }
        Ok(merge::without_tags(&tree))
    }

    /// Several files of one directory, later ones over earlier ones. `including` are the files that led here.
    pub(super) fn documents(
        &mut self,
        documents: &[Document<'_>],
        directory: &str,
        variables: &Arc<BTreeMap<String, String>>,
        including: &[String],
    ) -> Result<Arc<Node>> {
        let mut merged: Option<Arc<Node>> = None;
        for document in documents {
            // An override in which everything is commented out changes nothing.
            if merged.is_some() && yaml::is_blank(document.bytes) {
                continue;
            }
            let source = Source {
                name: document.name.to_owned(),
                directory: directory.to_owned(),
                variables: Arc::clone(variables),
            };
            for tree in self.parse(document.bytes, source)? {
                read::check_sections(&tree, &self.sources)?;
                let tree = extends::resolve(self, &tree)?;
                let tree = include::resolve(self, &tree, including)?;
                merged = Some(match merged {
                    None => tree,
                    Some(base) => self.merge(&base, &tree)?,
                });
            }
        }
        merged.ok_or_else(|| ComposeError {
            file: super::COMPOSE_FILE.to_owned(),
            field: String::new(),
            location: None,
            reason: "there is no Compose file".to_owned(),
        })
    }

    pub(super) fn merge(&mut self, base: &Arc<Node>, over: &Arc<Node>) -> Result<Arc<Node>> {
        self.merger.documents(base, over).map_err(|fault| located(&self.sources, fault))
    }

    /// The documents of one file as they stand, their variables replaced.
    pub(super) fn parse(&mut self, bytes: &[u8], source: Source) -> Result<Vec<Arc<Node>>> {
        let (name, variables) = (source.name.clone(), Arc::clone(&source.variables));
        let whole = |reason: String| ComposeError { file: name.clone(), field: String::new(), location: None, reason };
        let Some(file) = self.sources.add(source) else {
            return Err(whole(format!("the project has more than {} files", Sources::MAX)));
        };
        self.text_left = self
            .text_left
            .checked_sub(bytes.len())
            .ok_or_else(|| whole(format!("the project's files exceed {} MiB", MAX_TEXT >> 20)))?;
        let mut asked = RequestVariables::new(&variables);
        let mut trees = Vec::new();
        for written in yaml::parse(bytes, file, &name)? {
            trees.push(interpolate::tree(&written, &self.sources, &mut asked, &mut self.values_left)?);
        }
        self.missing.extend(asked.into_missing());
        Ok(trees)
    }

    /// Reads a file that another one names. `field` is what names it.
    pub(super) fn read(&self, at: Place, field: &str, path: &str) -> Result<(String, Vec<u8>)> {
        if path.contains("://") || path.starts_with("git@") || path.starts_with("github.com/") {
            return Err(self.error(at, field, "must be a file of the project: nothing is fetched from elsewhere"));
        }
        let absolute = super::paths::resolve(&self.sources.at(at).directory, path);
        match self.input.files.read(&absolute) {
            Some(bytes) => Ok((absolute, bytes.into_owned())),
            None => Err(self.error(at, field, "there is no such file among the project's files")),
        }
    }

    /// Whether a path is that of a file which the project begins with.
    pub(super) fn is_main_file(&self, absolute: &str) -> bool {
        self.input.documents.iter().any(|file| super::paths::resolve(self.input.directory, file.name) == absolute)
    }

    /// What errors call a file: its path from the project directory.
    pub(super) fn name_of(&self, absolute: &str) -> String {
        let inside = absolute.strip_prefix(self.input.directory).and_then(|rest| rest.strip_prefix('/'));
        inside.unwrap_or(absolute).to_owned()
    }

    /// The variables of an env file, `outer` winning.
    pub(super) fn env(
        &self,
        absolute: &str,
        bytes: &[u8],
        outer: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>> {
        let name = self.name_of(absolute);
        let text = std::str::from_utf8(bytes).map_err(|_| ComposeError {
            file: name.clone(),
            field: String::new(),
            location: None,
            reason: "the file is not UTF-8 text".to_owned(),
        })?;
        env_file::parse(&name, text, &|name| outer.get(name).cloned())
    }

    pub(super) fn error(&self, at: Place, field: &str, reason: impl Into<String>) -> ComposeError {
        ComposeError {
            file: self.sources.at(at).name.clone(),
            field: field.to_owned(),
            location: Some(at.location),
            reason: reason.into(),
        }
    }

    /// A refusal of a key that none of `known` is.
    pub(super) fn unknown(&self, at: Place, field: &str, key: &str, known: &[&str]) -> ComposeError {
        let hint = suggest::hint(key, known.iter().copied());
        let reason = format!("is not an attribute of the Compose Specification here{hint}");
        self.error(at, &format!("{field}.{key}"), reason)
    }
}

/// A merge's refusal as everybody else's.
pub(super) fn located(sources: &Sources, fault: merge::Fault) -> ComposeError {
    ComposeError {
        file: sources.at(fault.place).name.clone(),
        field: fault.field,
        location: Some(fault.place.location),
        reason: fault.reason,
    }
}

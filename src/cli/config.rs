//! `q8-agent config`: what a Compose file stands for, as the agent understands it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::fail;
use crate::compose::{self, ComposeError, Files, LoadInput, Loaded};
use crate::domain::ProjectName;

#[derive(Debug, Args)]
pub(super) struct ConfigArguments {
    /// The Compose file.
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Variables for interpolation; without it, `.env` next to the Compose file if there is one. The environment of
    /// this process is never used.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// How to print the project.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// The project's name; without it, the file's `name`, else that of its directory.
    #[arg(short, long, value_name = "NAME")]
    project_name: Option<String>,
    /// A profile to activate, or * for all; may repeat.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

/// Why there is no project to print.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("several -f are not supported yet: give one file")]
    SeveralFiles,
    #[error("{}: {error}", .path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{}: not UTF-8", .0.display())]
    NotUnicode(PathBuf),
    #[error("-p {0}")]
    Name(#[from] crate::domain::InvalidName),
    /// `file:line:column: field: reason`, as editors and CI understand it.
    #[error("{0}")]
    Compose(#[from] ComposeError),
    #[error("the project cannot be printed: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the project cannot be printed: {0}")]
    Yaml(#[from] serde_yaml::Error),
}

/// Prints the project, or one line that says where the file is wrong.
pub(super) fn run(arguments: &ConfigArguments) -> ExitCode {
    match project(arguments) {
        Ok((text, warnings)) => {
            for warning in warnings {
                eprintln!("warning: {warning}");
            }
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        // The line is read by tools: no prefix before the file's name.
        Err(error @ (CommandError::Compose(_) | CommandError::Read { .. } | CommandError::NotUnicode(_))) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => fail("config", error),
    }
}

fn project(arguments: &ConfigArguments) -> Result<(String, Vec<String>), CommandError> {
    let [file] = arguments.file.as_slice() else { return Err(CommandError::SeveralFiles) };
    let text = read(file)?;
    let directory = directory_of(file)?;
    let env_file = arguments.env_file.clone().or_else(|| {
        let beside = Path::new(&directory).join(".env");
        beside.is_file().then_some(beside)
    });
    // The engine knows its files by the names that a tenant's have; here they have names of their own.
    let renamed = |mut error: ComposeError| {
        match (error.file.as_str(), &env_file) {
            ("compose.yaml", _) => error.file = file.display().to_string(),
            (".env", Some(path)) => error.file = path.display().to_string(),
            _ => {}
        }
        error
    };
    let variables = match &env_file {
        None => BTreeMap::new(),
        Some(path) => {
            let text = String::from_utf8(read(path)?).map_err(|_| CommandError::NotUnicode(path.clone()))?;
            compose::read_env(&text).map_err(renamed)?
        }
    };
    let name = match &arguments.project_name {
        Some(name) => ProjectName::parse(name)?,
        None => name_in(&text).unwrap_or_else(|| name_of_directory(&directory)),
    };
    let profiles: BTreeSet<String> = arguments.profile.iter().cloned().collect();
    let loaded = compose::load(&LoadInput {
        compose: &text,
        variables: &variables,
        files: &Disk,
        profiles: &profiles,
        project: &name,
        directory: &directory,
    });
    let Loaded { project, warnings, .. } = loaded.map_err(renamed)?;
    let mut value = serde_json::to_value(&project)?;
    leave_out_contents(&mut value);
    let text = match arguments.format {
        Format::Json => serde_json::to_string_pretty(&value)?,
        Format::Yaml => serde_yaml::to_string(&value)?,
    };
    Ok((text, warnings))
}

fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    std::fs::read(path).map_err(|error| CommandError::Read { path: path.to_owned(), error })
}

/// The project directory: absolute and clean, as the loader wants it.
fn directory_of(file: &Path) -> Result<String, CommandError> {
    let absolute = file.canonicalize().map_err(|error| CommandError::Read { path: file.to_owned(), error })?;
    let directory = absolute.parent().unwrap_or(Path::new("/"));
    directory.to_str().map(str::to_owned).ok_or_else(|| CommandError::NotUnicode(file.to_owned()))
}

/// The file's own `name`, when it is there and plain. A broken file is the loader's to explain.
fn name_in(text: &[u8]) -> Option<ProjectName> {
    #[derive(serde::Deserialize)]
    struct Top {
        name: Option<String>,
    }
    let top: Top = serde_yaml::from_slice(text).ok()?;
    ProjectName::parse(&top.name?).ok()
}

/// As docker compose derives it: lower case, without what a project's name cannot have.
fn name_of_directory(directory: &str) -> ProjectName {
    let last = directory.rsplit('/').next().unwrap_or_default().to_lowercase();
    let kept: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect();
    let name = kept.trim_start_matches(['_', '-']);
    ProjectName::parse(&name[..name.len().min(128)])
        .unwrap_or_else(|_| ProjectName::parse("project").expect("a plain word is a project's name"))
}

/// The contents of files are not part of the project's description; their paths are.
fn leave_out_contents(project: &mut Value) {
    for kind in ["configs", "secrets"] {
        let Some(objects) = project.get_mut(kind).and_then(Value::as_object_mut) else { continue };
        for object in objects.values_mut() {
            if let Some(file) = object.pointer_mut("/source/file").and_then(Value::as_object_mut) {
                file.remove("bytes");
            }
        }
    }
}

/// The files of this host, which the person at the terminal may read anyway.
struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        std::fs::read(path).ok().map(Cow::Owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_names() {
        for (directory, name) in
            [("/srv/My Shop", "myshop"), ("/srv/_x-1", "x-1"), ("/srv/Ünï", "n"), ("/", "project"), ("/...", "project")]
        {
            assert_eq!(name_of_directory(directory).as_str(), name, "{directory}");
        }
        for (text, name) in [
            ("name: shop\nservices: {}", Some("shop")),
            ("services: {}", None),
            ("name: ${X}", None),
            ("name: [", None),
            ("name: [x]", None),
        ] {
            assert_eq!(name_in(text.as_bytes()).as_ref().map(ProjectName::as_str), name, "{text}");
        }
    }

    #[test]
    fn contents_are_left_out() {
        let mut project = serde_json::json!({ "secrets": {
            "a": { "name": "p_a", "source": { "file": { "path": "/x", "bytes": [1, 2] } } },
            "b": { "name": "p_b", "source": { "content": "shown" } },
        } });
        leave_out_contents(&mut project);
        assert_eq!(project["secrets"]["a"]["source"], serde_json::json!({ "file": { "path": "/x" } }));
        assert_eq!(project["secrets"]["b"]["source"]["content"], "shown");
    }

    #[test]
    fn several_files_and_missing_ones_are_refused() {
        let arguments = |files: &[&str]| ConfigArguments {
            file: files.iter().map(PathBuf::from).collect(),
            env_file: None,
            format: Format::Json,
            project_name: None,
            profile: Vec::new(),
        };
        let text = |files: &[&str]| project(&arguments(files)).unwrap_err().to_string();
        assert!(text(&["a", "b"]).contains("several -f"));
        assert!(text(&["/no/such/file.yaml"]).starts_with("/no/such/file.yaml: "));
    }
}

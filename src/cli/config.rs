//! `q8-agent config`: what Compose files stand for, as `docker compose config` prints it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{fail, print};
use crate::compose::{self, ComposeError, Document, Files, LoadInput, Loaded};
use crate::config::{self, ConfigError};
use crate::domain::{ProjectName, ProjectPath, Subdomain, own_platform};
use crate::policy::{self, Ground};

#[derive(Debug, Args)]
pub(super) struct ConfigArguments {
    /// The Compose file; may repeat, and later ones are merged over earlier ones.
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Variables for interpolation, may repeat; without it, `.env` next to the first Compose file if there is one. The
    /// environment of this process is never used.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// How to print the project.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// The project's name; without it, the variable `COMPOSE_PROJECT_NAME`, the file's `name`, or that of its directory.
    #[arg(short, long, value_name = "NAME")]
    project_name: Option<String>,
    /// A profile to activate, or * for all; may repeat. Without it, those of the variable `COMPOSE_PROFILES`.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// Judge it as an agent with this policy would, and print it as it would run: baseline, restricted, trusted, or the path
    /// of a policy file. The variables that say where ports are published count.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

/// Why there is no project to print.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("{}: {error}", .path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{}: not UTF-8", .0.display())]
    NotUnicode(PathBuf),
    #[error("the project's name: {0}")]
    Name(#[from] crate::domain::InvalidName),
    /// `file:line:column: field: reason`, as editors and CI understand it.
    #[error("{0}")]
    Compose(#[from] ComposeError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// One line each, in the same form.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
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
            print("config", &text)
        }
        // The line is read by tools: no prefix before the file's name.
        Err(
            error @ (CommandError::Compose(_)
            | CommandError::Read { .. }
            | CommandError::NotUnicode(_)
            | CommandError::Refused(_)),
        ) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => fail("config", error),
    }
}

fn project(arguments: &ConfigArguments) -> Result<(String, Vec<String>), CommandError> {
    let files = arguments.file.iter().map(|path| Ok((path.display().to_string(), read(path)?)));
    let files: Vec<(String, Vec<u8>)> = files.collect::<Result<_, CommandError>>()?;
    let documents: Vec<Document<'_>> = files.iter().map(|(name, bytes)| Document { name, bytes }).collect();
    // `required` of the argument: there is a first one.
    let directory = arguments.file.first().map_or_else(|| Ok("/".to_owned()), |file| directory_of(file))?;
    let variables = variables(arguments, &directory)?;
    let name = match &arguments.project_name {
        Some(name) => ProjectName::parse(name)?,
        None => match variables.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()) {
            Some(name) => ProjectName::parse(name)?,
            None => match compose::name_of(&documents, &variables) {
                Some(name) => ProjectName::parse(&name)?,
                None => name_of_directory(&directory),
            },
        },
    };
    let default = variables.get("COMPOSE_PROFILES").map(String::as_str).unwrap_or_default();
    let default = default.split(',').map(str::trim).filter(|profile| !profile.is_empty()).map(str::to_owned);
    let profiles: BTreeSet<String> =
        if arguments.profile.is_empty() { default.collect() } else { arguments.profile.iter().cloned().collect() };
    // What an agent is asked to judge comes with its files: nothing else is there for it.
    let request = RequestDisk { directory: &directory };
    let loaded = compose::load(&LoadInput {
        documents: &documents,
        variables: &variables,
        files: if arguments.policy.is_some() { &request } else { &Disk },
        profiles: &profiles,
        project: &name,
        // For an agent the tenant is what it is asked for, and a file that says otherwise is refused.
        names_the_project: arguments.policy.is_some() && arguments.project_name.is_some(),
        directory: &directory,
    })?;
    let (project, warnings) = match &arguments.policy {
        None => (loaded.project, loaded.warnings),
        Some(policy) => judged(policy, loaded, &documents)?,
    };
    let value = compose::print(&project);
    let text = match arguments.format {
        Format::Json => serde_json::to_string_pretty(&value)?,
        Format::Yaml => serde_yaml::to_string(&value)?,
    };
    Ok((text, warnings))
}

/// The project as it would run under a policy, or what the policy refuses.
fn judged(
    policy: &str,
    loaded: Loaded,
    documents: &[Document<'_>],
) -> Result<(compose::Project, Vec<String>), CommandError> {
    let rules = config::policy(Some(policy))?;
    // A tenant's project is named after it; any other project is nobody's in the policy.
    let tenant = loaded.project.name.as_str().strip_prefix("q8-").and_then(|name| Subdomain::parse(name).ok());
    let rules = tenant.map_or_else(|| rules.of_any(), |tenant| rules.of(&tenant));
    let (publish_host, publish_ports) = config::publish_range(std::env::vars_os())?;
    let platform = own_platform();
    let files = files_below(Path::new(&loaded.project.directory));
    let ground =
        Ground { files: &files, undefined: &loaded.undefined, publish_host, publish_ports, platform: &platform };
    let demand = policy::demand(&loaded.project, &rules.defaults);
    let locations = loaded.locations;
    let first = documents.first().map_or("compose.yaml", |document| document.name);
    let admitted = policy::admit(&rules, loaded.project, &ground).map_err(|refusals| {
        let lines = refusals.iter().map(|refusal| {
            let (field, rule, allowed) = (&refusal.field, refusal.rule, &refusal.allowed);
            let place = locations.locate(field).map_or_else(
                || first.to_owned(),
                |(file, location)| format!("{file}:{}:{}", location.line, location.column),
            );
            format!("{place}: {field}: refused by policy ({rule}); allowed: {allowed}")
        });
        CommandError::Refused(lines.collect())
    })?;
    let over = rules.limits.exceeded_by(&demand);
    if !over.is_empty() {
        let lines = over.iter().map(|over| {
            let (asked, allowed) = (over.limit.show(over.asked), over.limit.show(over.allowed));
            format!("{first}: limits.{}: {asked} of at most {allowed}", over.limit)
        });
        return Err(CommandError::Refused(lines.collect()));
    }
    let warnings = loaded.warnings.into_iter().chain(admitted.warnings).collect();
    Ok((admitted.project.project().clone(), warnings))
}

/// What could be the request's files: everything below the project directory that could be named in one.
fn files_below(directory: &Path) -> BTreeSet<ProjectPath> {
    fn walk(directory: &Path, below: &str, files: &mut BTreeSet<ProjectPath>) {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries.flatten().take(MAX_FILES) {
            let (Ok(kind), Some(name)) = (entry.file_type(), entry.file_name().to_str().map(str::to_owned)) else {
                continue;
            };
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            let Ok(parsed) = ProjectPath::parse(&path) else { continue };
            if files.len() >= MAX_FILES {
                return;
            }
            if kind.is_dir() {
                walk(&entry.path(), &path, files);
            } else if kind.is_file() {
                files.insert(parsed);
            }
        }
    }
    let mut files = BTreeSet::new();
    walk(directory, "", &mut files);
    files
}

/// As many files as a request may have.
const MAX_FILES: usize = 2000;

/// Later env files win, and may use what earlier ones say.
fn variables(arguments: &ConfigArguments, directory: &str) -> Result<BTreeMap<String, String>, CommandError> {
    let mut files = arguments.env_file.clone();
    if files.is_empty() {
        let beside = Path::new(directory).join(".env");
        files.extend(beside.is_file().then_some(beside));
    }
    let mut variables = BTreeMap::new();
    for path in files {
        let text = String::from_utf8(read(&path)?).map_err(|_| CommandError::NotUnicode(path.clone()))?;
        variables.extend(compose::read_env(&path.display().to_string(), &text)?);
    }
    Ok(variables)
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

/// As docker compose derives it: lower case, without what a project's name cannot have.
fn name_of_directory(directory: &str) -> ProjectName {
    let last = directory.rsplit('/').next().unwrap_or_default().to_lowercase();
    let kept: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect();
    let name = kept.trim_start_matches(['_', '-']);
    ProjectName::parse(&name[..name.len().min(128)])
        .unwrap_or_else(|_| ProjectName::parse("project").expect("a plain word is a project's name"))
}

/// The files of this host, which the person at the terminal may read anyway.
struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        std::fs::read(path).ok().map(Cow::Owned)
    }
}

/// Those of them that could be files of a request: `.env`, and what lies below the project directory.
struct RequestDisk<'a> {
    directory: &'a str,
}

impl Files for RequestDisk<'_> {
    fn read(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        let inside = path.strip_prefix(self.directory)?.strip_prefix('/')?;
        (inside == ".env" || ProjectPath::parse(inside).is_ok()).then(|| Disk.read(path))?
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
    }

    #[test]
    fn a_missing_file_is_named() {
        let arguments = ConfigArguments {
            file: vec![PathBuf::from("/no/such/file.yaml")],
            env_file: Vec::new(),
            format: Format::Json,
            project_name: None,
            profile: Vec::new(),
            policy: None,
        };
        assert!(project(&arguments).unwrap_err().to_string().starts_with("/no/such/file.yaml: "));
    }

    #[test]
    fn a_policy_sees_what_a_request_could_bring() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("compose.yaml");
        let judged = |text: &str, policy: &str| {
            std::fs::write(&file, text).unwrap();
            project(&ConfigArguments {
                file: vec![file.clone()],
                env_file: Vec::new(),
                format: Format::Json,
                project_name: Some("q8-acme".to_owned()),
                profile: Vec::new(),
                policy: Some(policy.to_owned()),
            })
        };
        std::fs::create_dir(directory.path().join("conf")).unwrap();
        std::fs::write(directory.path().join("conf/site"), "x").unwrap();
        let good = "services:\n  a:\n    image: x\n    volumes: ['./conf:/c:ro']\n";
        let (text, warnings) = judged(good, "baseline").unwrap();
        assert!(text.contains("no-new-privileges:true") && warnings.is_empty(), "{text} {warnings:?}");
        assert!(!judged(good, "trusted").unwrap().0.contains("no-new-privileges"));
        let bad = "services:\n  a:\n    image: x\n    privileged: true\n    pid: host\n";
        let told = judged(bad, "baseline").unwrap_err().to_string();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 2, "{told}");
        assert!(lines[0].contains("compose.yaml:4:") && lines[0].contains("services.a.privileged: refused"), "{told}");
        let many = "services:\n  a: {image: x, scale: 61}\n";
        assert!(judged(many, "baseline").unwrap_err().to_string().contains("limits.containers: 61 of at most 60"));
        let outside = "services:\n  a: {image: x, env_file: /etc/hostname}\n";
        assert!(judged(outside, "baseline").unwrap_err().to_string().contains("services.a.env_file"));
        let named = |name: &str| format!("name: {name}\n{good}");
        assert!(judged(&named("q8-acme"), "baseline").is_ok());
        assert!(judged(&named("q8-victim"), "baseline").unwrap_err().to_string().contains("compose.yaml:1:7: name: "));
        assert!(judged(good, "lax").unwrap_err().to_string().contains("Q8_AGENT_POLICY must be baseline"));
    }
}

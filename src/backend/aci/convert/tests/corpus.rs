//! The documents and stacks of the corpus: each converts, or is refused with a field.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::{GROUND, convert, refusal, shown};
use crate::backend::{Deployment, sample};
use crate::compose::{Document, Files, LoadInput, load, read_env};
use crate::domain::{FileContent, ProjectPath};
use crate::policy::Profile;

const DIRECTORY: &str = "/opt/t/acme";

struct Texts(BTreeMap<String, String>);

impl Files for Texts {
    fn read(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        self.0.get(path).map(|text| Cow::Borrowed(text.as_bytes()))
    }
}

fn read(path: &str) -> String {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus");
    std::fs::read_to_string(corpus.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What becomes of a document with these files and variables.
struct Case {
    text: String,
    files: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
    profiles: BTreeSet<String>,
}

impl Case {
    fn deployment(&self) -> Result<Deployment, String> {
        let absolute = self.files.iter().map(|(path, text)| (format!("{DIRECTORY}/{path}"), text.clone()));
        let loaded = load(&LoadInput {
            documents: &[Document { name: "compose.yaml", bytes: self.text.as_bytes() }],
            variables: &self.variables,
            files: &Texts(absolute.collect()),
            profiles: &self.profiles,
            project: &sample::tenant().project(),
            names_the_project: true,
            directory: DIRECTORY,
        });
        let project = loaded.map_err(|error| error.to_string())?.project;
        let files: BTreeMap<ProjectPath, FileContent> = self
            .files
            .iter()
            .filter_map(|(path, text)| {
                let file = FileContent { bytes: text.clone().into_bytes(), mode: 0o644 };
                Some((ProjectPath::parse(path).ok()?, file))
            })
            .collect();
        let names = files.keys().cloned().collect();
        let deployment = sample::of_project(&Profile::Trusted.into(), project, &names)?;
        Ok(Deployment { files, ..deployment })
    }
}

fn strings(object: &Value) -> BTreeMap<String, String> {
    let members = object.as_object().into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

#[test]
fn documents() {
    let index: Vec<Value> = serde_json::from_str(&read("valid/index.json")).unwrap();
    let mut told = String::new();
    for entry in &index {
        let file = entry["file"].as_str().unwrap();
        let arguments: Vec<&str> = entry["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let profiles = arguments.windows(2).filter(|pair| pair[0] == "--profile").map(|pair| pair[1].to_owned());
        let mut variables = strings(&entry["env"]);
        if let Some(env) = entry["files"][".env"].as_str() {
            variables.extend(read_env(".env", env).unwrap());
        }
        let case = Case {
            text: read(&format!("valid/{file}")),
            files: strings(&entry["files"]),
            variables,
            profiles: profiles.collect(),
        };
        told.push_str(&format!("{file}\n"));
        match case.deployment() {
            Err(error) => told.push_str(&format!("    not admitted: {error}\n")),
            Ok(deployment) => match convert(&deployment, &GROUND) {
                Err(error) => {
                    let (field, reason) = refusal(&error);
                    told.push_str(&format!("    {field}: {reason}\n"));
                }
                Ok(converted) => {
                    let containers: Vec<&str> = converted.containers.values().map(String::as_str).collect();
                    told.push_str(&format!("    a group: {}\n", containers.join(", ")));
                    told.extend(converted.warnings.iter().map(|warning| format!("    warning: {warning}\n")));
                }
            },
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn stacks() {
    let variables = strings(&serde_json::from_str(&read("stacks/env.json")).unwrap());
    let files: BTreeMap<String, String> = [
        ("db.env", "MYSQL_DATABASE=nc\nMYSQL_USER=nc\nMYSQL_PASSWORD=ncpw\nREDIS_HOST_PASSWORD=r\n"),
        ("secrets/db_password.txt", "p"),
        ("init-data.sh", "echo\n"),
        ("nginx.conf", "events {}\n"),
        ("volumes/api/kong.yml", "{}\n"),
        ("volumes/db/init.sql", "select 1;\n"),
    ]
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .into();
    // What each becomes as its author wrote it, and after the changes that the refusals ask for.
    for (name, changes) in [
        (
            "02-n8n-postgres",
            &[
                ("  links: [postgres, redis]\n", ""),
                ("127.0.0.1:${N8N_PORT:-5678}:5678", "${N8N_PORT:-5678}:5678"),
                (
                    "    command: worker\n    deploy: {replicas: 2}\n",
                    "    entrypoint: [tini, --, /docker-entrypoint.sh, worker]\n",
                ),
            ][..],
        ),
        ("03-ghost-mysql", &[]),
        ("04-gitea-postgres", &[("222:22", "22:22")]),
        ("05-nextcloud-full", &[]),
        ("10-supabase-like", &[]),
    ] {
        let mut case = Case {
            text: read(&format!("stacks/{name}.yaml")),
            files: files.clone(),
            variables: variables.clone(),
            profiles: BTreeSet::new(),
        };
        let outcome = |case: &Case| match convert(&case.deployment().unwrap(), &GROUND) {
            Ok(converted) => shown(&converted),
            Err(error) => format!("{error}\n"),
        };
        let mut told = outcome(&case);
        for (from, to) in changes {
            assert!(case.text.contains(from), "{name} has no {from}");
            case.text = case.text.replace(from, to);
        }
        if !changes.is_empty() {
            told.push_str(&format!("\nchanged:\n{}", outcome(&case)));
        }
        insta::assert_snapshot!(name, told);
    }
}

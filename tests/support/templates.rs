//! Provision requests for the folders of `compose-templates/`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// The body of a provision request for a template, with these variables as its env file.
pub(crate) fn request(template: &str, subdomain: &str, id: &str, env: &[(&str, &str)]) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose-templates").join(template);
    let compose = std::fs::read_to_string(folder.join("compose.yaml"));
    let compose = compose.unwrap_or_else(|error| panic!("{} has no compose.yaml: {error}", folder.display()));
    let mut files = Map::new();
    collect(&folder, &folder, &mut files);
    let mut env_content = String::new();
    for (name, value) in env {
        writeln!(env_content, "{name}={value}").expect("a text takes text");
    }
    json!({"id": id, "subdomain": subdomain, "compose_content": compose, "env_content": env_content, "files": files})
}

fn collect(folder: &Path, directory: &Path, files: &mut Map<String, Value>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("a template's folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(folder, &path, files);
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).expect("templates have plain names");
        if name == "compose.yaml" || name.starts_with(".env") || name.starts_with("README") {
            continue;
        }
        let content = STANDARD.encode(std::fs::read(&path).expect("a template's file"));
        let relative = path.strip_prefix(folder).expect("it is below the folder");
        files.insert(relative.display().to_string(), json!({"base64": content}));
    }
}

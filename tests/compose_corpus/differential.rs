//! Small documents, each about one rule, with docker compose's own answer (`tests/data/differential.json`): what it refuses is
//! refused with a place, what it accepts means the same.

use q8_agent::compose::read_env;
use serde_json::Value;

use super::{Case, DIRECTORY, printed, single, strings};

#[test]
fn small_documents_mean_what_docker_compose_says() {
    let text = include_str!("../data/differential.json");
    let documents: Vec<Value> = serde_json::from_str(text).expect("JSON");
    let mut wrong = Vec::new();
    for document in &documents {
        let text = document["text"].as_str().expect("a document");
        let mut case = Case::new(text);
        let mut unreadable = None;
        for (path, text) in strings(&document["files"]) {
            if path == ".env" {
                match read_env(".env", &text) {
                    Ok(variables) => case.variables.extend(variables),
                    Err(error) => unreadable = Some(error),
                }
            } else {
                case.files.insert(format!("{DIRECTORY}/{path}"), text);
            }
        }
        case.over = strings(&document["over"]).collect();
        case.profiles = document["profiles"].as_array().into_iter().flatten().map(text_of).collect();
        match (unreadable.map_or_else(|| case.load(), Err), &document["config"]) {
            (Err(error), Value::Null) if error.location.is_some() => {}
            (Err(error), _) => wrong.push(format!("{text}\n  refused: {error}")),
            (Ok(_), Value::Null) => wrong.push(format!("{text}\n  accepted")),
            (Ok(loaded), config) => {
                let (ours, theirs) = (printed(&loaded.project), single(config));
                if ours != theirs {
                    wrong.push(format!("{text}\n  ours {ours}\n  not  {theirs}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), documents.len(), wrong.join("\n"));
    assert!(documents.len() > 200, "only {}", documents.len());
}

fn text_of(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

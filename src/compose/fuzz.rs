//! Fuzz targets: Compose files, interpolation, env files.

use std::time::Duration;

use serde_json::Value;

use super::interpolate::RequestVariables;
use super::*;
use crate::fuzz::{self, Bytes, Forest, Material, Outcome, Rng, lossy};

const DIRECTORY: &str = "/opt/tenants/acme";
/// Bytes of one generated file.
const MOST: usize = 64 << 10;
/// What a file of that size may take, in a build without optimisation.
const LIMIT: Duration = Duration::from_secs(1);

/// A variable's value that no error and no warning may have. It is not interpolated again.
const SECRET: &str = "c4n4ry $A";

/// What is special in YAML, in templates or in attributes.
const WORDS: &[&str] = &[
    "services",
    "networks",
    "volumes",
    "image",
    "build",
    "<<: *a",
    "&a ",
    "*a",
    "!reset ",
    "!override ",
    "!!str ",
    "!!binary ",
    "- ",
    "? ",
    "|\n",
    ">-\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "null",
    "~",
    "true",
    "yes",
    "0o17",
    "0x1f",
    ".inf",
    "1_000",
    "2026-11-21",
    "[",
    "]",
    "{",
    "}",
    "[]",
    "{}",
    "${A}",
    "${A:-${B:-c}}",
    "${C:?no}",
    "$$",
    "$$$",
    "${A:+x}",
    "${S}",
    "$S:80",
    "${U:-$S}",
    "$COMPOSE_PROJECT_NAME",
    "service:a",
    "container:x",
    "host",
    "127.0.0.1:80:80/udp",
    "3000-3005",
    "[::1]:1:1",
    "./x:/y:ro",
    "/var/run/docker.sock:/s",
    "~/x",
    "../..",
    "10gb",
    "1.5h",
    "100y",
    "0.5",
    "include: [i.yaml]",
    "extends: {file: i.yaml, service: b}",
    "extends: b",
    "env_file: .env",
    "profiles: [debug]",
    "depends_on: [a]",
    "name: q8-acme",
    "x-a: 1",
    "default",
    "external: true",
];

/// A Compose file and what is around it.
#[derive(Debug)]
struct Input {
    text: Bytes,
    over: Option<Bytes>,
    files: BTreeMap<String, Bytes>,
    all_profiles: bool,
}

impl Files for BTreeMap<String, Bytes> {
    fn read(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        self.get(path).map(|bytes| Cow::Borrowed(bytes.0.as_slice()))
    }
}

fn variables() -> BTreeMap<String, String> {
    let pairs = [("A", "1"), ("B", ""), ("D", "/etc"), ("P", "abc"), ("PORT", "9090"), ("TAG", "1.2"), ("S", SECRET)];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn load_texts(texts: &[&[u8]], files: &BTreeMap<String, Bytes>, all_profiles: bool) -> Result<Loaded, ComposeError> {
    let documents = texts.iter().zip(["compose.yaml", "over.yaml"]).map(|(bytes, name)| Document { name, bytes });
    load(&LoadInput {
        documents: &documents.collect::<Vec<_>>(),
        variables: &variables(),
        files,
        profiles: &all_profiles.then(|| "*".to_owned()).into_iter().collect(),
        project: &ProjectName::parse("q8-acme").unwrap(),
        names_the_project: true,
        directory: DIRECTORY,
    })
}

fn seeds() -> Vec<Vec<u8>> {
    ["valid", "invalid", "policy", "stacks"].iter().flat_map(|directory| fuzz::corpus(directory, "yaml")).collect()
}

impl Input {
    fn texts(&self) -> Vec<&[u8]> {
        [Some(&self.text), self.over.as_ref()].into_iter().flatten().map(|bytes| bytes.0.as_slice()).collect()
    }

    fn load(&self) -> Result<Loaded, ComposeError> {
        load_texts(&self.texts(), &self.files, self.all_profiles)
    }

    /// What errors call a file, and its text; the directory of a file is the project's.
    fn text_of(&self, name: &str) -> String {
        let bytes = match name {
            "compose.yaml" => &self.text,
            "over.yaml" => self.over.as_ref().expect("an error is about a file that there is"),
            other => &self.files[&paths::resolve(DIRECTORY, other)],
        };
        lossy(&bytes.0)
    }
}

/// A file as text that is almost YAML, or as YAML that is almost a Compose file.
fn file(rng: &mut Rng, material: &Material, forest: &Forest) -> Bytes {
    if rng.one_in(2) {
        return Bytes(material.bytes(rng));
    }
    let document = forest.document(rng);
    let text = if rng.one_in(2) { document.to_string() } else { serde_yaml::to_string(&document).unwrap() };
    let mut bytes = text.into_bytes();
    bytes.truncate(MOST);
    Bytes(bytes)
}

#[test]
fn fuzz_compose_files() {
    let material = Material::new(seeds(), WORDS, MOST);
    let documents = seeds().iter().filter_map(|seed| serde_yaml::from_slice::<Value>(seed).ok()).collect();
    let forest = Forest::new(documents, WORDS);
    let path = |name: &str| paths::resolve(DIRECTORY, name);
    let around = [
        ("i.yaml", "services: {b: {image: y}}\n"),
        (
            "inc/compose.yaml",
            "services:\n  inc:\n    image: ${IMG:-incimg}\n    volumes: ['./d:/d']\nvolumes: {iv: {}}\n",
        ),
        ("inc/.env", "IMG=from-inc-env\n"),
        (".env", "TAG=1.2.3\nPORT=8080\n#c\nPASS='p$w'\n"),
        ("db.env", "MYSQL_DATABASE=nc\n"),
        ("secrets/db_password.txt", "p"),
    ];
    let around: BTreeMap<_, _> =
        around.iter().map(|(name, text)| (path(name), Bytes(text.as_bytes().to_vec()))).collect();
    let make = |rng: &mut Rng| {
        let mut files = around.clone();
        if rng.one_in(4) {
            files.insert(path("i.yaml"), file(rng, &material, &forest));
        }
        Input {
            text: file(rng, &material, &forest),
            over: rng.one_in(4).then(|| file(rng, &material, &forest)),
            files,
            all_profiles: rng.one_in(2),
        }
    };
    fuzz::run("compose", make, |input| {
        let loaded = fuzz::within(LIMIT, || input.load());
        let documents = input.texts();
        let documents: Vec<_> = documents.iter().map(|bytes| Document { name: "compose.yaml", bytes }).collect();
        let _ = name_of(&documents, &variables());
        let told = match &loaded {
            Ok(loaded) => loaded.warnings.join("\n"),
            Err(error) => error.to_string(),
        };
        assert!(!told.contains("c4n4ry"), "{told}");
        match &loaded {
            Ok(loaded) => loads_again(loaded, input),
            Err(error) => {
                assert!(!error.reason.is_empty(), "{error}");
                if let Some(location) = error.location {
                    let text = input.text_of(&error.file);
                    assert!(fuzz::is_inside(&text, location), "{error} is not in {text:?}");
                }
            }
        }
        Outcome::from(&loaded)
    });
}

/// What is printed means the same again; what has been merged and included is in it.
fn loads_again(loaded: &Loaded, input: &Input) {
    let order = start_order(&loaded.project);
    assert_eq!(order.iter().collect::<BTreeSet<_>>(), loaded.project.services.keys().collect());
    let printed = print(&loaded.project);
    // Its services may all be off, but one has to be there.
    if loaded.project.services.is_empty() {
        return;
    }
    let text = printed.to_string();
    let again = load_texts(&[text.as_bytes()], &input.files, input.all_profiles);
    let again = again.unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(single_in_keys(&print(&again.project)), single_in_keys(&printed));
    assert_eq!(again.undefined, Vec::<String>::new());
}

/// The same without doubled dollars in keys: docker compose doubles them there too, and never interpolates a key.
fn single_in_keys(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(single_in_keys).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(key, member)| {
                let mut key = key.clone();
                while key.contains("$$") {
                    key = key.replace("$$", "$");
                }
                (key, single_in_keys(member))
            })
            .collect(),
        other => other.clone(),
    }
}

/// A template and what must become of it, from the rules of the Compose Specification.
#[derive(Debug)]
struct Template {
    text: String,
    /// None when a required variable is missing.
    wanted: Option<String>,
}

const NAMES: &[&str] = &["SET", "EMPTY", "DOLLARS", "UNSET", "_u1"];

fn template_values() -> BTreeMap<String, String> {
    [("SET", "value"), ("EMPTY", ""), ("DOLLARS", "$SET${SET}$$")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

impl Template {
    fn new(rng: &mut Rng, values: &BTreeMap<String, String>, depth: usize) -> Self {
        let mut whole = Self { text: String::new(), wanted: Some(String::new()) };
        for _ in 0..rng.below(4) {
            let part = Self::part(rng, values, depth);
            // A bare name would go on into what follows it.
            let bare = whole.text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            let gap = if bare { " " } else { "" };
            whole.text.extend([gap, &part.text]);
            whole.wanted = whole.wanted.zip(part.wanted).map(|(one, other)| one + gap + &other);
        }
        whole
    }

    fn part(rng: &mut Rng, values: &BTreeMap<String, String>, depth: usize) -> Self {
        let name = *rng.pick(NAMES);
        let value = values.get(name);
        let plain = value.cloned().unwrap_or_default();
        let full = value.filter(|value| !value.is_empty()).cloned();
        match rng.below(if depth < 20 { 9 } else { 4 }) {
            0 => {
                let text = rng.text("ab1_ :/-?+.ä{}\n", 6);
                // Braces in a word pair up.
                let text = if depth > 0 { text.replace(['{', '}', '\n'], ".") } else { text };
                Self { wanted: Some(text.clone()), text }
            }
            1 => Self { text: "$$".to_owned(), wanted: Some("$".to_owned()) },
            2 => Self { text: format!("${name}"), wanted: Some(plain) },
            3 => Self { text: format!("${{{name}}}"), wanted: Some(plain) },
            operator => {
                let word = Self::new(rng, values, depth + 1);
                let (operator, wanted) = match operator {
                    4 => ("-", word.wanted.map(|word| value.cloned().unwrap_or(word))),
                    5 => (":-", word.wanted.map(|word| full.unwrap_or(word))),
                    6 => ("+", word.wanted.map(|word| value.map(|_| word).unwrap_or_default())),
                    7 => (":+", word.wanted.map(|word| full.map(|_| word).unwrap_or_default())),
                    _ if rng.one_in(2) => ("?", value.cloned()),
                    _ => (":?", full),
                };
                Self { text: format!("${{{name}{operator}{}}}", word.text), wanted }
            }
        }
    }
}

#[test]
fn fuzz_interpolation_means_what_the_specification_says() {
    let values = template_values();
    let make = |rng: &mut Rng| Template::new(rng, &values, 0);
    fuzz::run("templates", make, |template| {
        let out = interpolate::template(&template.text, &mut RequestVariables::new(&values));
        assert_eq!(out.as_deref().ok(), template.wanted.as_deref(), "{out:?}");
        Outcome::from(&out)
    });
}

#[test]
fn fuzz_interpolation() {
    let words = [
        "$",
        "$$",
        "${",
        "}",
        "{",
        ":-",
        ":?",
        ":+",
        "-",
        "?",
        "+",
        "SET",
        "EMPTY",
        "PATH",
        "HOME",
        "CARGO_MANIFEST_DIR",
        "\n",
        "_",
    ];
    let material =
        Material::of_texts(&["${SET:-${EMPTY:-$UNSET}}", "a $SET b$$c ${DOLLARS}", "${UNSET:?$SET}"], &words, MOST);
    let values = template_values();
    // Long enough to be nothing that the text has by chance.
    let outside: Vec<(String, String)> = std::env::vars().filter(|(_, value)| value.len() > 7).collect();
    assert!(!outside.is_empty());
    let make = |rng: &mut Rng| {
        let mut text = material.text(rng);
        if rng.one_in(3) {
            text.push_str(&format!("${{{}}}", rng.pick(&outside).0));
        }
        text
    };
    fuzz::run("interpolation", make, |text| {
        let expand = |text: &str| interpolate::template(text, &mut RequestVariables::new(&values));
        let out = fuzz::within(LIMIT, || expand(text));
        if let Ok(out) = &out {
            // Every variable takes a byte at least, and no value has more than twelve.
            assert!(out.len() <= text.len() * 12, "{} of {}", out.len(), text.len());
        }
        let shown = out.clone().unwrap_or_else(|error| error.to_string());
        let leaked = outside.iter().find(|(_, value)| shown.contains(value) && !text.contains(value));
        assert!(leaked.is_none(), "{shown:?} has {leaked:?}");
        assert_eq!(expand(&text.replace('$', "$$")).as_deref(), Ok(text.as_str()));
        Outcome::from(&out)
    });
}

#[test]
fn fuzz_env_files() {
    let words = [
        "export ", "A", "=", "'", "\"", "\\", "\\n", "\\$", "\\0101", "#", " #", "\n", "\r\n", "$A", "${A:-x}",
        "${B:?m}", "A=1\n", "[", ": ", "\u{a0}",
    ];
    let vectors = fuzz::corpus("vectors", "json");
    let vectors = vectors.iter().flat_map(|text| serde_json::from_slice::<Vec<Value>>(text).unwrap());
    let seeds: Vec<Vec<u8>> =
        vectors.filter_map(|vector| Some(vector.get("content")?.as_str()?.as_bytes().to_vec())).collect();
    assert!(seeds.len() > 5);
    let material = Material::new(seeds, &words, MOST);
    let outer = |name: &str| (name == "OUTER").then(|| "outside".to_owned());
    fuzz::run(
        "env",
        |rng| material.text(rng),
        |text| {
            let read = fuzz::within(LIMIT, || env_file::parse(".env", text, &outer));
            let raw = fuzz::within(LIMIT, || env_file::parse_raw(".env", text, &outer));
            assert_eq!(read_env(".env", text), env_file::parse(".env", text, &|_| None));
            for result in [&read, &raw] {
                match result {
                    Ok(variables) => {
                        assert!(variables.keys().all(|name| !name.is_empty() && !name.contains(['=', '\n', ' '])));
                    }
                    Err(error) => {
                        let location = error.location.expect("an env file is there");
                        assert!(fuzz::is_inside(text, location), "{error}");
                    }
                }
            }
            Outcome::from(&read)
        },
    );
}

/// An env file that is written from its meaning.
#[derive(Debug)]
struct Written {
    text: String,
    meaning: BTreeMap<String, String>,
}

#[test]
fn fuzz_env_files_mean_what_was_written() {
    let make = |rng: &mut Rng| {
        let mut written = Written { text: String::new(), meaning: BTreeMap::new() };
        for _ in 0..rng.below(8) {
            let name = format!("{}{}", rng.pick(&["A", "b", "_", "é"]), rng.text("aB0_.-[]", 5));
            let export = if rng.one_in(4) { "export " } else { "" };
            let equals = *rng.pick(&["=", " = ", ": "]);
            let end = *rng.pick(&["\n", "\r\n", " # rest\n", "\n\n#\n  "]);
            let (shown, value) = match rng.below(3) {
                0 => {
                    let value = rng.text("ab=/:?,é0", 8);
                    (value.clone(), value)
                }
                1 => {
                    let value = rng.text("ab \"#=$\n{}", 10);
                    (format!("'{value}'"), value)
                }
                _ => {
                    let value = rng.text("ab '#=$\n\"\\{}", 10);
                    let shown = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
                    (format!("\"{shown}\""), value)
                }
            };
            // A value that begins with `#` is no comment: as for docker compose, one needs a space and something before it.
            let end = if shown.is_empty() { "\n" } else { end };
            written.text.push_str(&format!("{export}{name}{equals}{shown}{end}"));
            written.meaning.insert(name, value);
        }
        written
    };
    fuzz::run("env-meaning", make, |written| {
        let read = read_env(".env", &written.text);
        assert_eq!(read.as_ref(), Ok(&written.meaning));
        Outcome::from(&read)
    });
}

//! Fuzz targets: names, paths, image references. The rules are written down a second time here, as lists of characters.

use std::fmt::{Debug, Display};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::fuzz::{self, Material, Outcome, Rng};

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DIGITS: &str = "0123456789";
const HEX: &str = "0123456789abcdef";

/// A rule for names: what each of its characters may be, and how many there are.
struct Rule {
    first: String,
    middle: String,
    last: String,
    most: usize,
    least: usize,
}

impl Rule {
    /// `ends` may be anywhere, `more` not at the start; at the end only where `may_end` says so.
    fn new(ends: &[&str], more: &str, may_end: bool, (least, most): (usize, usize)) -> Self {
        let first = ends.concat();
        let middle = format!("{first}{more}");
        Self { last: if may_end { middle.clone() } else { first.clone() }, first, middle, most, least }
    }

    fn holds(&self, text: &str) -> bool {
        let characters: Vec<char> = text.chars().collect();
        let (Some(first), Some(last)) = (characters.first(), characters.last()) else { return false };
        self.first.contains(*first)
            && self.last.contains(*last)
            && characters.iter().all(|&c| self.middle.contains(c))
            && (self.least..=self.most).contains(&characters.len())
    }
}

/// A name is accepted when the rule holds, and is the text that was given, in every form.
fn look<T>(text: &str, parsed: Result<T, InvalidName>, holds: bool) -> bool
where
    T: Serialize + DeserializeOwned + Display + Debug + PartialEq + Into<String>,
{
    let json = serde_json::to_string(text).unwrap();
    let read = serde_json::from_str::<T>(&json);
    match parsed {
        Ok(name) => {
            assert!(holds, "{text:?} is accepted as {}", std::any::type_name::<T>());
            assert_eq!((name.to_string().as_str(), serde_json::to_string(&name).unwrap()), (text, json));
            assert_eq!(read.unwrap(), name);
            assert_eq!(Into::<String>::into(name), text);
            true
        }
        Err(refusal) => {
            assert!(!holds, "{text:?}: {refusal}");
            assert!(read.is_err(), "{text:?}");
            // Too short to be there by chance.
            assert!(text.len() < 20 || !refusal.to_string().contains(text), "{refusal}");
            false
        }
    }
}

fn names() -> Material {
    let long = ["a".repeat(63), "a".repeat(64), "f".repeat(128), "0".repeat(255), "x/".repeat(8)];
    let seeds = [
        "acme",
        "a-b",
        "A.b_c-d",
        "q8-acme",
        "0123456789abcdef",
        "docker",
        "html/index.html",
        "compose.yaml",
        "data/x",
        ".env",
        "a/.b",
    ];
    let seeds: Vec<&str> = seeds.into_iter().chain(long.iter().map(String::as_str)).collect();
    let words = [
        "-",
        "_",
        ".",
        ":",
        "/",
        "..",
        "a",
        "Z",
        "9",
        "f",
        "docker",
        "host",
        "traefik",
        ".agent",
        ".ENV",
        "Compose.yml",
        "docker-compose.override.yaml",
        "data",
        "İ",
        "\u{212a}",
        "٣",
        "ﬀ",
        "a\u{308}",
        "%2f",
        "?",
        "@",
    ];
    Material::of_texts(&seeds, &words, 300)
}

fn name_input(rng: &mut Rng, material: &Material) -> String {
    match rng.below(3) {
        0 => rng.text(&format!("{LOWER}{DIGITS}-_."), 66),
        1 => rng.text(&format!("{HEX}{HEX}{HEX}{UPPER}"), 20),
        _ => material.text(rng),
    }
}

#[test]
fn fuzz_names() {
    let material = names();
    let rules = [
        Rule::new(&[LOWER, DIGITS], "-", false, (1, 63)),
        Rule::new(&[LOWER, UPPER, DIGITS], "._:-", true, (1, 128)),
        Rule::new(&[LOWER, DIGITS], "_-", true, (1, 128)),
        Rule::new(&[LOWER, UPPER, DIGITS, "._-"], "", true, (1, 128)),
        Rule::new(&[LOWER, UPPER, DIGITS], "._-", true, (1, 255)),
        Rule::new(&[HEX], "", true, (12, 64)),
        Rule::new(&[HEX], "", true, (16, 64)),
    ];
    let reserved = "agent archive bridge con default docker host localhost none nul aux prn q8 traefik";
    fuzz::run(
        "names",
        |rng| name_input(rng, &material),
        |text| {
            let [subdomain, tenant, project, key, object, container, agent] = &rules;
            let free = reserved.split(' ').all(|word| word != text);
            let accepted = [
                look(text, Subdomain::parse(text), subdomain.holds(text) && free),
                look(text, TenantId::parse(text), tenant.holds(text)),
                look(text, ProjectName::parse(text), project.holds(text)),
                look(text, ServiceName::parse(text), key.holds(text)),
                look(text, ObjectKey::parse(text), key.holds(text)),
                look(text, ObjectName::parse(text), object.holds(text)),
                look(text, ContainerName::parse(text), object.holds(text)),
                look(text, ContainerId::parse(text), container.holds(text)),
                look(text, AgentId::parse(text), agent.holds(text)),
            ];
            if let Ok(subdomain) = Subdomain::parse(text) {
                assert_eq!(ProjectName::parse(&format!("q8-{text}")), Ok(ProjectName::of(&subdomain)));
            }
            if accepted.contains(&true) { Outcome::Accepted } else { Outcome::Refused }
        },
    );
}

/// The words of `ProjectPath`'s description, once more.
fn is_project_path(text: &str) -> bool {
    let parts: Vec<String> = text.split('/').map(str::to_owned).collect();
    let directories = &parts[..parts.len() - 1];
    let plain = Rule::new(&[LOWER, UPPER, DIGITS, "._-"], "", true, (1, 100));
    let top = parts[0].to_ascii_lowercase();
    let compose = ["compose", "docker-compose", "compose.override", "docker-compose.override"];
    let composes: Vec<String> =
        compose.iter().flat_map(|stem| [format!("{stem}.yml"), format!("{stem}.yaml")]).collect();
    parts.len() < 9
        && parts.iter().all(|part| plain.holds(part) && !part.ends_with('.'))
        && !directories.iter().any(|part| part.starts_with('.'))
        && ![".agent", ".env", "data"].contains(&top.as_str())
        && !(parts.len() == 1 && composes.contains(&top))
}

#[test]
fn fuzz_paths() {
    let material = names();
    let make = |rng: &mut Rng| [name_input(rng, &material), name_input(rng, &material)];
    fuzz::run("paths", make, |[one, other]| {
        let mut paths = Vec::new();
        for text in [one, other] {
            look(text, ProjectPath::parse(text), is_project_path(text));
            if let Ok(path) = ProjectPath::parse(text) {
                assert_eq!(path.components().collect::<Vec<_>>().join("/"), *text);
                // It stays below whatever it is joined to.
                let joined = std::path::Path::new("/t/acme").join(text);
                let normal = |part: std::path::Component<'_>| {
                    matches!(part, std::path::Component::Normal(_) | std::path::Component::RootDir)
                };
                assert!(joined.starts_with("/t/acme") && joined.components().all(normal));
                paths.push(path);
            }
        }
        let [one, other] = paths.as_slice() else { return Outcome::Refused };
        let (a, b) = (one.as_str().to_lowercase(), other.as_str().to_lowercase());
        let meet = format!("{a}/").starts_with(&format!("{b}/")) || format!("{b}/").starts_with(&format!("{a}/"));
        assert_eq!(ProjectPath::conflict([one, other]).is_some(), meet);
        Outcome::Accepted
    });
}

/// distribution/reference `regexp.go`: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(text: &str) -> bool {
    let word = |c: char| LOWER.contains(c) || DIGITS.contains(c);
    let between: Vec<&str> = text.split(word).filter(|gap| !gap.is_empty()).collect();
    text.starts_with(word)
        && text.ends_with(word)
        && between.iter().all(|gap| [".", "_", "__"].contains(gap) || gap.chars().all(|c| c == '-'))
}

/// The same file: domain components with dots between them, and a port.
fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "1"));
    let label = Rule::new(&[LOWER, UPPER, DIGITS], "-", false, (1, 512));
    Rule::new(&[DIGITS], "", true, (1, 5)).holds(port) && host.split('.').all(|part| label.holds(part))
}

fn looks_at_image(text: &str) -> Outcome {
    let Ok(image) = ImageRef::parse(text) else {
        assert!(serde_json::from_value::<ImageRef>(text.into()).is_err());
        return Outcome::Refused;
    };
    look(text, Ok(image.clone()), true);
    // A URL's path: nothing that ends it, nothing that is decoded, no step that leads elsewhere.
    assert!(!text.contains(|c: char| "?#%\\ \"<>".contains(c) || c.is_control() || !c.is_ascii()), "{text:?}");
    assert!(text.split('/').all(|part| !part.is_empty() && !part.starts_with('.')), "{text:?}");
    // The parts are the whole.
    let tag = image.tag().filter(|_| image.as_str()[image.name().len()..].starts_with(':'));
    let mut joined = image.name().to_owned();
    joined.extend(tag.iter().flat_map(|tag| [":", *tag]));
    joined.extend(image.digest().iter().flat_map(|digest| ["@", *digest]));
    assert_eq!(joined, text);
    // Each part is what the grammar has.
    let host = image.name().strip_suffix(image.repository()).and_then(|host| host.strip_suffix('/'));
    assert!(image.name().ends_with(image.repository()), "{text:?}");
    if let Some(host) = host {
        assert!(is_host(host) && (host.contains(['.', ':']) || host == "localhost"), "{text:?}");
        let hub =
            ["docker.io", "index.docker.io", "registry-1.docker.io"].contains(&host.to_ascii_lowercase().as_str());
        assert_eq!(image.registry(), if hub { "docker.io" } else { host });
    } else {
        assert_eq!((image.registry(), image.repository()), ("docker.io", image.name()));
    }
    assert!(image.repository().split('/').all(is_component) && image.name().len() < 256, "{text:?}");
    assert!(image.tag().is_some() || image.digest().is_some());
    let tag = Rule::new(&[LOWER, UPPER, DIGITS, "_"], ".-", true, (1, 128));
    assert!(image.tag().is_none_or(|text| tag.holds(text)), "{text:?}");
    let digest = Rule::new(&[HEX], "", true, (64, 64));
    assert!(image.digest().is_none_or(|text| digest.holds(text.strip_prefix("sha256:").unwrap())), "{text:?}");
    // The engine takes neither for the beginning of an id.
    let qualified = image.qualified();
    assert!(qualified.as_str().contains(|c| !HEX.contains(c)), "{qualified}");
    assert_eq!(Ok(&qualified), ImageRef::parse(qualified.as_str()).as_ref());
    assert_eq!((qualified.tag(), qualified.name()), (image.tag(), image.name()));
    let digest = format!("sha256:{}", "0".repeat(64));
    let pinned = image.at_digest(&digest).unwrap();
    assert_eq!((pinned.digest(), pinned.name(), pinned.tag()), (Some(digest.as_str()), image.name(), None));
    assert_eq!(pinned.identity(&digest), image.identity(&digest));
    Outcome::Accepted
}

fn images() -> Material {
    let pinned = format!("ghcr.io/a/b_c@sha256:{}", "0a".repeat(32));
    let seeds = [
        "nginx",
        "library/nginx:1.27-alpine",
        "localhost:5000/a/b:x",
        "index.docker.io/x/y",
        "10.0.0.9/a--b/c__d.e",
        "cafe",
        &pinned,
    ];
    let words = [
        "a",
        "Z",
        "0",
        ".",
        "_",
        "__",
        "___",
        "-",
        "._",
        "-.",
        ":",
        "@",
        "/",
        "sha256:",
        ":latest",
        "localhost/",
        "docker.io/",
        "[::1]:5000/",
        "?",
        "#",
        "%2f",
        "..",
        "@sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ];
    Material::of_texts(&seeds, &words, 600)
}

#[test]
fn fuzz_image_references() {
    let material = images();
    let make = |rng: &mut Rng| if rng.one_in(3) { rng.text("ab0f.-_:/@", 24) } else { material.text(rng) };
    fuzz::run("images", make, |text| looks_at_image(text));
}

/// One image, and ways to write it.
#[derive(Debug)]
struct Written {
    texts: [String; 2],
    other: String,
}

#[test]
fn fuzz_image_identities() {
    let component = |rng: &mut Rng| {
        format!("{}{}{}", rng.pick(&["a", "b", "0"]), rng.pick(&["", ".", "_", "__", "--"]), rng.pick(&["x", "y9"]))
    };
    let cased = |rng: &mut Rng, text: &str| -> String {
        text.chars().map(|c| if rng.one_in(3) { c.to_ascii_uppercase() } else { c }).collect()
    };
    let make = |rng: &mut Rng| {
        let registry = *rng.pick(&["docker.io", "ghcr.io", "r.example:5000", "10.0.0.9"]);
        let parts: Vec<String> = (0..=rng.below(3)).map(|_| component(rng)).collect();
        let repository = parts.join("/");
        let hub = registry == "docker.io";
        let write = |rng: &mut Rng| {
            let host =
                if hub { *rng.pick(&["", "docker.io", "index.docker.io", "registry-1.docker.io"]) } else { registry };
            // A first word with a dot in it would be a host.
            let host = if parts.len() > 1 && parts[0].contains('.') && host.is_empty() { registry } else { host };
            let host = cased(rng, host);
            let official = hub && parts.len() == 1 && rng.one_in(2);
            let slash = if host.is_empty() { "" } else { "/" };
            let tag = *rng.pick(&["", ":latest", ":1"]);
            format!("{host}{slash}{}{repository}{tag}", if official { "library/" } else { "" })
        };
        let texts = [write(rng), write(rng)];
        Written { texts, other: format!("{registry}/{repository}x") }
    };
    fuzz::run("identities", make, |written| {
        let digest = format!("sha256:{}", "0".repeat(64));
        let [one, two] = written.texts.each_ref().map(|text| {
            looks_at_image(text);
            ImageRef::parse(text).unwrap().identity(&digest)
        });
        assert_eq!(one, two);
        assert_ne!(one, ImageRef::parse(&written.other).unwrap().identity(&digest));
        Outcome::Accepted
    });
}

#[test]
fn fuzz_registry_hosts() {
    let material = images();
    fuzz::run(
        "registries",
        |rng| material.text(rng),
        |text| {
            let host = RegistryAuth::parse_host(text);
            if let Ok(host) = &host {
                assert!(is_host(host) && *host == host.to_ascii_lowercase(), "{text:?}");
                let image = ImageRef::parse(&format!("{host}/a")).unwrap();
                assert_eq!((image.registry(), image.repository()), (host.as_str(), "a"));
                assert_eq!(RegistryAuth::parse_host(host).as_ref(), Ok(host));
            }
            Outcome::from(&host)
        },
    );
}

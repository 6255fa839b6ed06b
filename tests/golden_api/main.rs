//! What the agent asks of the engine is what docker compose asks of it (`tests/data/corpus/golden_api`), call by call and
//! field by field, but for the differences that `TOLERATED` gives a reason for.

mod engine;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use q8_agent::backend::docker::{DockerBackend, Subnet};
use q8_agent::backend::{Backend, BackendError, Deployment, HostKey, Run, TenantRef};
use q8_agent::compose::{self, Document, Files, LoadInput, read_env};
use q8_agent::domain::{AgentId, DesiredState, FileContent, Generation, ProjectName, ProjectPath, Subdomain, TenantId};
use q8_agent::policy::{self, Ground, Profile, Refusal};
use serde_json::{Value, json};

use engine::{Mutation, Recorder, Twist};

const DIRECTORY: &str = "/opt/tenants/acme";

/// A difference from docker compose that is wanted.
struct Tolerated {
    /// The golden file's name; empty for all.
    document: &'static str,
    /// The call: `networks/create`, `containers/create`, `archive` and so on.
    call: &'static str,
    /// The field and all below it; empty for the whole call.
    field: &'static str,
    /// Why it is wanted.
    #[allow(dead_code, reason = "it is there for whoever reads the table")]
    reason: &'static str,
}

const fn tolerated(document: &'static str, call: &'static str, field: &'static str, reason: &'static str) -> Tolerated {
    Tolerated { document, call, field, reason }
}

const TOLERATED: &[Tolerated] = &[
    tolerated("", "", "/Labels/dev.q8.*", "whose an object is, is read from the agent's own labels"),
    tolerated("", "", "/Labels/com.docker.compose.version", "the version of the tool that made it"),
    tolerated("", "", "/Labels/com.docker.compose.config-hash", "each tool's own hash; newer ones hash networks too"),
    tolerated("", "networks/create", "/IPAM/Config", "the engine's own pool ends at 30 networks: the agent has one"),
    tolerated(
        "valid-009-ports-long",
        "containers/create",
        "/HostConfig/PortBindings/83/tcp/0/HostPort",
        "a port of a range is chosen once and not by the engine at every start",
    ),
    tolerated("valid-037-include", "containers/create", "/HostConfig/Binds", "Mounts: Binds make a missing source"),
    tolerated("valid-037-include", "containers/create", "/HostConfig/Mounts", "the mount in place of the bind"),
    tolerated("valid-030-configs-secrets", "archive", "", "mounted files have the owner and mode that was asked for"),
    tolerated("valid-030-configs-secrets", "containers/create", "/HostConfig/Mounts", "files of .agent/mounts"),
    tolerated("valid-025-misc-scalars", "containers/create", "/NetworkingConfig", "2.26.1 forgets mac_address at 1.44"),
    tolerated("policy-023-named-volume-other", "containers/create", "/HostConfig/Mounts", "`v:/v` is no Windows drive"),
    tolerated("policy-023-named-volume-other", "volumes/create", "", "the same"),
];

/// The documents of `tests/data/golden_more`.
const MORE: &[&str] = &[
    "depends",
    "deploy",
    "files",
    "gpu",
    "health",
    "names",
    "networks",
    "ports",
    "process",
    "resources",
    "security",
    "volumes",
    "wordpress",
];

/// What differs in them, and is wanted. Each is the start of what follows the document's name.
const MORE_TOLERATED: &[(&str, &str)] = &[
    // Names on the network in place of links, which the engine calls a legacy.
    ("depends", "containers/create q8-acme-e-1 /HostConfig/Links"),
    ("depends", "containers/create q8-acme-g-1 /HostConfig/Links"),
    // A policy without a condition takes nothing away from `restart`, and means nothing alone.
    ("deploy", "containers/create q8-acme-g-1 /HostConfig/RestartPolicy"),
    ("deploy", "containers/create q8-acme-h-1 /HostConfig/RestartPolicy"),
    // Mounted files have the owner and mode that was asked for.
    ("files", "containers/create q8-acme-a-1 /HostConfig/Mounts"),
    // 2.26.1 forgets these.
    ("gpu", "containers/create q8-acme-a-1 /HostConfig/DeviceRequests/1/Options"),
    ("networks", "containers/create q8-acme-a-1 /NetworkingConfig/EndpointsConfig/q8-acme_front/DriverOpts"),
    ("networks", "networks/create q8-acme_front /IPAM/Options"),
    ("volumes", "containers/create q8-acme-c-1 /HostConfig/VolumesFrom/1"),
    // It says the address a second time, the IPv6 one as a gateway.
    ("networks", "containers/create q8-acme-a-1 /NetworkingConfig/EndpointsConfig/q8-acme_front/IPAddress"),
    ("networks", "containers/create q8-acme-a-1 /NetworkingConfig/EndpointsConfig/q8-acme_v6/IPv6Gateway"),
    // What an old engine would drop in silence is refused.
    ("networks", "services.a.networks.v6.mac_address cannot be done here"),
    ("process", "services.a.annotations cannot be done here"),
    // Mounts: Binds make a missing source.
    ("volumes", "containers/create q8-acme-b-1 /HostConfig/Binds"),
    ("volumes", "containers/create q8-acme-b-1 /HostConfig/Mounts"),
];

/// Documents that not even `trusted` admits, with the field that says why.
const REFUSED: &[(&str, &str)] = &[
    // docker compose overwrites the label without a word.
    ("policy-033-label-spoof-project", "services.a.labels.com.docker.compose.project"),
];

/// Documents that fail against something that exists on the host, as they do with docker compose.
const TAKEN: &[(&str, &str)] = &[("policy-025-named-network-other", "q8-other_default")];

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json_of(path: &str) -> Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The platform of the recording engine.
const HOST: &str = "linux/amd64";

/// Everything that a document was brought up with.
struct Case {
    text: String,
    files: BTreeMap<ProjectPath, FileContent>,
    variables: BTreeMap<String, String>,
    profiles: BTreeSet<String>,
    /// What the policy takes the engine's host for.
    host: String,
}

impl Files for Case {
    fn read(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        let inside = path.strip_prefix(DIRECTORY)?.strip_prefix('/')?;
        Some(Cow::Borrowed(&self.files.get(&ProjectPath::parse(inside).ok()?)?.bytes))
    }
}

impl Case {
    fn new(name: &str) -> Self {
        let (folder, stem) = name.split_once('-').expect("folder-stem");
        let file = format!("{stem}.yaml");
        let index = json_of(&format!("{folder}/index.json"));
        let entry =
            index.as_array().expect("a list").iter().find(|e| e["file"] == file.as_str()).expect("in the index");
        let strings = |object: &Value| -> Vec<(String, String)> {
            let members = object.as_object().into_iter().flatten();
            members.map(|(name, value)| (name.clone(), value.as_str().expect("a string").to_owned())).collect()
        };
        let mut case = Self {
            text: read(&format!("{folder}/{file}")),
            files: BTreeMap::new(),
            variables: BTreeMap::new(),
            profiles: BTreeSet::new(),
            host: HOST.to_owned(),
        };
        // What the corpus' author had on disk, and in the environment, without saying so in the index.
        let on_disk = [("s1.txt", "1"), ("short.cfg", "c"), ("x/f", ""), ("y/f", ""), ("inc/d/f", "")];
        let on_disk = on_disk.map(|(path, text)| (path.to_owned(), text.to_owned()));
        case.variables.insert("S2".to_owned(), "2".to_owned());
        for (path, text) in strings(&entry["files"]).into_iter().chain(on_disk) {
            if path == ".env" {
                case.variables.extend(read_env(".env", &text).expect("a valid env file"));
            } else {
                let path = ProjectPath::parse(&path).expect("a path that a request may have");
                case.files.insert(path, FileContent { bytes: text.into_bytes(), mode: 0o644 });
            }
        }
        case.variables.extend(strings(&entry["env"]));
        let arguments = entry["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
        case.profiles = arguments.filter(|word| *word != "--profile").map(str::to_owned).collect();
        case
    }

    /// One of the documents that are not of the corpus (`tests/data/golden_more`).
    fn more(name: &str) -> Self {
        let mut case = Self::of(&read(&format!("../golden_more/{name}.yaml")));
        let files = [
            ("s1.txt", "1"),
            ("short.cfg", "c"),
            ("l.txt", "lt"),
            ("x/f", ""),
            ("y/f", ""),
            ("a.env", "EF=1\nEG=two\n"),
        ];
        for (path, text) in files {
            let path = ProjectPath::parse(path).expect("a path that a request may have");
            case.files.insert(path, FileContent { bytes: text.as_bytes().to_vec(), mode: 0o644 });
        }
        case
    }

    /// A case of a few lines.
    fn of(text: &str) -> Self {
        let files = BTreeMap::new();
        let (variables, profiles) = (BTreeMap::new(), BTreeSet::new());
        Self { text: text.to_owned(), files, variables, profiles, host: HOST.to_owned() }
    }

    fn deployment(&self, project: &str, profile: Profile) -> Result<Deployment, Vec<Refusal>> {
        let loaded = compose::load(&LoadInput {
            documents: &[Document { name: "compose.yaml", bytes: self.text.as_bytes() }],
            variables: &self.variables,
            files: self,
            profiles: &self.profiles,
            project: &ProjectName::parse(project).expect("a project name"),
            names_the_project: true,
            directory: DIRECTORY,
        });
        let ground = Ground {
            files: &self.files.keys().cloned().collect(),
            undefined: &[],
            publish_host: Ipv4Addr::LOCALHOST.into(),
            publish_ports: (20000, 29999),
            platform: &self.host,
        };
        let project = loaded.unwrap_or_else(|error| panic!("{error}")).project;
        Ok(Deployment {
            tenant: TenantRef {
                agent: AgentId::parse(&"a".repeat(32)).expect("an agent id"),
                subdomain: Subdomain::parse("acme").expect("a subdomain"),
                id: TenantId::parse("1").expect("a tenant id"),
                region: None,
                adopted: q8_agent::domain::Adopted::default(),
            },
            generation: Generation(1),
            desired: DesiredState::Running,
            project: policy::admit(&profile.into(), project, &ground)?.project,
            files: self.files.clone(),
            pinned_images: BTreeMap::new(),
            authorised_images: std::collections::BTreeSet::new(),
            key: HostKey::new([1; 32]),
        })
    }
}

/// Brings a deployment up and commits it.
async fn up(recorder: &Recorder, deployment: &Deployment) -> Result<(), BackendError> {
    up_on(backend(recorder, deployment).publishing(Ipv4Addr::LOCALHOST.into(), (20000, 29999)), deployment).await
}

fn backend(recorder: &Recorder, deployment: &Deployment) -> DockerBackend {
    let pool = Subnet::new([10, 213, 0, 0].into(), 16);
    DockerBackend::new(deployment.tenant.agent.clone(), recorder.socket.clone(), pool)
}

async fn up_on(backend: DockerBackend, deployment: &Deployment) -> Result<(), BackendError> {
    let run = Run::until(tokio::time::Instant::now() + Duration::from_secs(30));
    let images = backend.prepare(deployment, &run).await?;
    let plan = backend.plan(deployment, &images, &run).await?;
    backend.apply(deployment, &images, &plan, &run).await?;
    backend.settle(&deployment.tenant, deployment.generation, Some(deployment), None).await
}

/// Fields of one call by their JSON pointers. What is null, 0, empty or false is not there, as in the corpus' rules.
type Fields = BTreeMap<String, Value>;

fn fields(value: &Value, at: &str, into: &mut Fields) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                fields(value, &format!("{at}/{name}"), into);
            }
        }
        Value::Array(items) => {
            let mut items = items.clone();
            if ["/Env", "/Binds", "/Aliases"].iter().any(|list| at.ends_with(list)) {
                items.sort_by_key(Value::to_string);
            }
            // Maps of the Compose file, in any order.
            if ["/Mounts", "/Ulimits"].iter().any(|list| at.ends_with(list)) {
                items.sort_by_key(|item| (item["Target"].to_string(), item["Name"].to_string()));
            }
            for (index, item) in items.iter().enumerate() {
                fields(item, &format!("{at}/{index}"), into);
            }
        }
        Value::Null | Value::Bool(false) => {}
        Value::Number(number) if number.as_f64() == Some(0.0) => {}
        Value::String(text) if text.is_empty() => {}
        // A list in one string, in no order.
        Value::String(text) if at.ends_with("/com.docker.compose.depends_on") => {
            into.insert(at.to_owned(), json!(text.split(',').collect::<BTreeSet<_>>()));
        }
        value => drop(into.insert(at.to_owned(), value.clone())),
    }
}

/// Calls by what they are about, such as `containers/create q8-acme-web-1`, whatever their order.
fn calls(mutations: &[Mutation]) -> BTreeMap<(String, String), Fields> {
    // Ids follow the order of creation, which is free: names stand for them.
    let made = mutations.iter().filter(|call| call.path == "/containers/create");
    let names: Vec<String> = made.map(|call| call.query["name"].clone()).collect();
    let with_names = |text: &str| {
        let numbered = names.iter().enumerate();
        numbered
            .fold(text.replace("${PROJECT_DIR}", DIRECTORY), |text, (at, name)| text.replace(&engine::id(at + 1), name))
    };
    let mut calls: BTreeMap<(String, String), Fields> = BTreeMap::new();
    for call in mutations {
        let path = with_names(&call.path);
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (kind, about) = match parts.as_slice() {
            [kind, "create"] => {
                let name = call.query.get("name").map(String::as_str).or(call.body["Name"].as_str());
                (format!("{kind}/create"), name.expect("a name").to_owned())
            }
            [_, about, what] => ((*what).to_owned(), (*about).to_owned()),
            other => panic!("a call to {other:?}"),
        };
        let body: Value = serde_json::from_str(&with_names(&call.body.to_string())).expect("still JSON");
        // The call itself is a field too: it has to be made.
        let mut all = Fields::from([(String::new(), json!(call.method))]);
        fields(&body, "", &mut all);
        fields(&json!(call.query), "/query", &mut all);
        // Several archives for one container are told apart by their number.
        let mut key = (kind, about);
        while calls.contains_key(&key) {
            key.1.push('\'');
        }
        calls.insert(key, all);
    }
    calls
}

fn golden(run: &Value) -> Vec<Mutation> {
    let mutations = run["mutations"].as_array().expect("a list");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let query = |call: &Value| {
        let members = call["query"].as_object().into_iter().flatten();
        members.map(|(name, value)| (name.clone(), text(value))).collect()
    };
    let read = |call: &Value| Mutation {
        method: text(&call["method"]),
        path: text(&call["path"]),
        query: query(call),
        body: call["body"].clone(),
    };
    mutations.iter().map(read).collect()
}

#[derive(Default)]
struct Score {
    expected: usize,
    matched: usize,
    /// Indices of `TOLERATED`.
    used: BTreeSet<usize>,
    wrong: Vec<String>,
}

impl Score {
    fn tolerates(&mut self, document: &str, call: &str, field: &str) -> bool {
        let about = |entry: &Tolerated| {
            let within = match entry.field.strip_suffix('*') {
                Some(start) => field.starts_with(start),
                None => field.strip_prefix(entry.field).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            };
            [document, ""].contains(&entry.document) && [call, ""].contains(&entry.call) && within
        };
        let found = TOLERATED.iter().position(about);
        self.used.extend(found);
        found.is_some()
    }

    /// Compares what was asked with what docker compose asks.
    fn compare(&mut self, document: &str, api: &str, ours: &[Mutation], theirs: &[Mutation]) {
        let (ours, theirs) = (calls(ours), calls(theirs));
        let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        let none = Fields::new();
        for key in keys {
            let (kind, about) = key;
            let (ours, theirs) = (ours.get(key).unwrap_or(&none), theirs.get(key).unwrap_or(&none));
            for field in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
                let (mine, other) = (ours.get(field), theirs.get(field));
                if mine != other && self.tolerates(document, kind, field) {
                    continue;
                }
                self.expected += 1;
                if mine == other {
                    self.matched += 1;
                } else {
                    self.wrong.push(format!("{document} at {api}: {kind} {about} {field}: {mine:?}, not {other:?}"));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_is_asked_what_docker_compose_asks() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/golden_api");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the golden files")
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    let mut score = Score::default();
    for name in &names {
        let document = json_of(&format!("golden_api/{name}.json"));
        let project = if name == "valid-003-name-toplevel" { "shop" } else { "q8-acme" };
        let deployment = match (
            Case::new(name).deployment(project, Profile::Trusted),
            REFUSED.iter().find(|(other, _)| other == name),
        ) {
            (Ok(deployment), None) => deployment,
            (Err(refusals), Some((_, field))) => {
                assert_eq!(refusals.iter().map(|refusal| refusal.field.as_str()).collect::<Vec<_>>(), [*field]);
                continue;
            }
            (result, _) => panic!("{name}: {:?}", result.err()),
        };
        for api in ["1.41", "1.45"] {
            let run = &document[format!("api{api}")];
            let taken: Vec<&str> =
                TAKEN.iter().filter(|(other, _)| other == name).map(|(_, network)| *network).collect();
            let recorder = Recorder::start(api, &taken);
            let result = up(&recorder, &deployment).await;
            assert_eq!(result.is_err(), run["rc"] != 0, "{name} at {api}: {result:?}");
            if !taken.is_empty() {
                assert!(matches!(result, Err(BackendError::NameTaken { kind: "network", .. })), "{result:?}");
            }
            score.compare(name, api, &recorder.mutations(), &golden(run));
        }
    }
    assert_eq!(names.len(), 27, "{names:?}");
    let Score { expected, matched, used, wrong } = score;
    println!("{matched} of {expected} fields match");
    assert!(wrong.is_empty(), "{matched} of {expected} fields match; these do not:\n{}", wrong.join("\n"));
    assert!(expected > 1000, "only {expected} fields were compared");
    for (at, entry) in TOLERATED.iter().enumerate() {
        assert!(used.contains(&at), "nothing differs any more in {}{}{}", entry.document, entry.call, entry.field);
    }
}

/// Documents with every attribute that reaches an engine, and what docker compose asks for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attribute_is_asked_for_as_docker_compose_does() {
    let mut score = Score::default();
    for name in MORE {
        let golden_file = json_of(&format!("../golden_more/{name}.json"));
        let deployment = Case::more(name).deployment("q8-acme", Profile::Trusted);
        let deployment = deployment.unwrap_or_else(|refusals| panic!("{name}: {refusals:?}"));
        for api in ["1.41", "1.45"] {
            let run = &golden_file[format!("api{api}")];
            assert_eq!(run["rc"], 0, "{name} at {api}");
            let recorder = Recorder::start(api, &[]);
            if let Err(error) = up(&recorder, &deployment).await {
                score.wrong.push(format!("{name} at {api}: {error}"));
                continue;
            }
            score.compare(name, api, &recorder.mutations(), &golden(run));
        }
    }
    let Score { expected, matched, mut wrong, used: _ } = score;
    for (document, start) in MORE_TOLERATED {
        let is_this = |line: &String| {
            ["1.41", "1.45"].iter().any(|api| line.starts_with(&format!("{document} at {api}: {start}")))
        };
        let all = wrong.len();
        wrong.retain(|line| !is_this(line));
        assert!(wrong.len() < all, "nothing differs any more in {document}: {start}");
    }
    assert!(wrong.is_empty(), "{matched} of {expected} fields match; these do not:\n{}", wrong.join("\n"));
    assert!(expected > 3000, "only {expected} fields were compared");
}

/// What the calls were about so far, such as `POST /containers/create`.
fn asked(recorder: &Recorder) -> Vec<String> {
    recorder.mutations().iter().map(|call| format!("{} {}", call.method, call.path)).collect()
}

const ONE_SERVICE: &str = "services: {web: {image: x, ports: ['20001:80']}}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_gate_refuses_never_reaches_the_engine() {
    let deployment = Case::of(ONE_SERVICE).deployment("q8-acme", Profile::Baseline).expect("an admitted project");
    let recorder = Recorder::start("1.45", &[]);
    // Nobody has said where tenants may publish, so the port that the policy let pass is refused behind it.
    let refused = up_on(backend(&recorder, &deployment), &deployment).await.expect_err("a refusal");
    assert!(matches!(refused, BackendError::GateRefused { .. }), "{refused}");
    assert!(refused.to_string().contains("HostConfig.PortBindings"), "{refused}");
    assert!(!refused.to_string().contains("20001"), "a value is told: {refused}");
    assert_eq!(asked(&recorder), ["POST /networks/create"]);

    let control = Recorder::start("1.45", &[]);
    up(&control, &deployment).await.expect("the same where ports are published");
    assert_eq!(
        asked(&control),
        ["POST /networks/create", "POST /containers/create", &format!("POST /containers/{}/start", engine::id(1))]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_engine_makes_else_is_removed_before_it_runs() {
    let deployment = Case::of(ONE_SERVICE).deployment("q8-acme", Profile::Baseline).expect("an admitted project");
    let twists: [(&str, Twist); 5] = [
        ("Privileged", |host| host["Privileged"] = json!(true)),
        ("CgroupnsMode", |host| drop(host.as_object_mut().map(|host| host.remove("CgroupnsMode")))),
        ("PidsLimit", |host| host["PidsLimit"] = json!(null)),
        ("CapDrop", |host| host["CapDrop"] = json!([])),
        ("PortBindings", |host| host["PortBindings"]["80/tcp"][0]["HostIp"] = json!("0.0.0.0")),
    ];
    for (field, twist) in twists {
        let recorder = Recorder::start("1.45", &[]);
        recorder.twist(twist);
        let refused = up(&recorder, &deployment).await.expect_err(field);
        assert!(matches!(refused, BackendError::GateRefused { .. }), "{field}: {refused}");
        assert!(refused.to_string().contains(field), "{field}: {refused}");
        let removed = format!("DELETE /containers/{}", engine::id(1));
        assert_eq!(asked(&recorder), ["POST /networks/create", "POST /containers/create", &removed], "{field}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_moves_between_the_look_and_the_creation_gives_nobody_another_image() {
    let deployment = Case::of(ONE_SERVICE).deployment("q8-acme", Profile::Baseline).expect("an admitted project");
    let recorder = Recorder::start("1.45", &[]);
    recorder.move_tags();
    up(&recorder, &deployment).await.expect("it is made of the image that was looked at");
    let (first, second) = (engine::id(1), engine::id(2));
    let expected = [
        "POST /networks/create",
        "POST /containers/create",
        &format!("DELETE /containers/{first}"),
        "POST /containers/create",
        &format!("POST /containers/{second}/start"),
    ];
    assert_eq!(asked(&recorder), expected);
    let made = recorder.mutations().into_iter().filter(|call| call.path == "/containers/create");
    let images: Vec<Value> = made.map(|call| call.body["Image"].clone()).collect();
    assert_eq!(images, [json!("x"), json!(engine::IMAGE)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenants_platform_is_not_this_ones() {
    let of = |text: &str, profile| Case::of(text).deployment("q8-acme", profile).expect("an admitted project");
    let one = of(ONE_SERVICE, Profile::Baseline);
    let (arm, own) = (json!({"Architecture": "arm64"}), json!({}));

    // Somebody has pulled the same tag for another platform: it is pulled for the host's.
    let recorder = Recorder::start("1.45", &[]);
    recorder.images(arm.clone(), own.clone());
    up(&recorder, &one).await.expect("it is pulled anew");
    let pull = recorder.mutations().swap_remove(0);
    let platform = pull.query.get("platform").map_or("", String::as_str);
    assert_eq!((pull.path.as_str(), platform), ("/images/create", ""), "{pull:?}");

    // Where that brings the same, or may not be done, nothing runs.
    for (text, asked_first) in [(ONE_SERVICE, 1), ("services: {web: {image: x, pull_policy: never}}", 0)] {
        let recorder = Recorder::start("1.45", &[]);
        recorder.images(arm.clone(), arm.clone());
        let refused = up(&recorder, &of(text, Profile::Baseline)).await.expect_err("a refusal");
        assert!(matches!(refused, BackendError::PlatformNotFound { .. }), "{refused}");
        assert!(refused.to_string().contains("linux/amd64"), "{refused}");
        assert_eq!(asked(&recorder).len(), asked_first, "{:?}", asked(&recorder));
    }
    // The operator's own may run whatever is there.
    let recorder = Recorder::start("1.45", &[]);
    recorder.images(arm, own);
    up(&recorder, &of(ONE_SERVICE, Profile::Trusted)).await.expect("as docker compose does it");
    assert!(!asked(&recorder).iter().any(|call| call.contains("images")));

    // A stranger names no platform that needs an emulator, whatever the policy takes the engine's host for.
    for (platform, runs) in
        [("linux/arm64", false), ("linux/386", false), ("linux/amd64", true), ("linux/amd64/v2", true)]
    {
        let text = format!("services: {{web: {{image: x, platform: {platform}}}}}");
        let recorder = Recorder::start("1.45", &[]);
        recorder.images(json!({"Variant": "v2"}), json!({}));
        let case = Case { host: platform.to_owned(), ..Case::of(&text) };
        let deployment = case.deployment("q8-acme", Profile::Baseline).expect("an admitted project");
        let result = up(&recorder, &deployment).await;
        match result {
            Ok(()) => assert!(runs, "{platform}"),
            Err(refused) => {
                assert!(!runs, "{platform}: {refused}");
                assert_eq!(refused.field().as_deref(), Some("services.web.platform"));
                assert_eq!(asked(&recorder), Vec::<String>::new());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_images_own_words_are_judged_before_anything_is_touched() {
    let of = |profile| Case::of(ONE_SERVICE).deployment("q8-acme", profile).expect("an admitted project");
    let deployment = of(Profile::Baseline);
    for config in [
        json!({"WorkingDir": "/proc/self/fd/8"}),
        json!({"Labels": {"dev.q8.other": "x"}}),
        json!({"Labels": {"traefik.enable": "true"}}),
    ] {
        let recorder = Recorder::start("1.45", &[]);
        recorder.images(json!({"Config": config}), json!({}));
        let refused = up(&recorder, &deployment).await.expect_err("a refusal");
        assert_eq!(refused.field().as_deref(), Some("services.web.image"), "{refused}");
        assert_eq!(asked(&recorder), Vec::<String>::new());
        // The operator's own images are the operator's business.
        up(&recorder, &of(Profile::Trusted)).await.expect("it is the operator's own");
    }

    let recorder = Recorder::start("1.45", &[]);
    let check = json!({"Test": ["CMD", "x"], "Interval": 1_000_000, "StartInterval": 1_000_000, "Retries": 3});
    recorder.images(json!({"Config": {"Healthcheck": check, "StopSignal": "SIGSTOP"}}), json!({}));
    up(&recorder, &deployment).await.expect("it is mended");
    let create = recorder.mutations().into_iter().find(|call| call.path == "/containers/create").expect("a container");
    let half_a_second = 500_000_000;
    assert_eq!(create.body["Healthcheck"], json!({"Interval": half_a_second, "StartInterval": half_a_second}));
    assert_eq!(create.body["StopSignal"], "SIGTERM");
}

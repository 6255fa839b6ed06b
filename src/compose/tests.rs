//! Loading as its callers see it: what a text becomes, what is refused and where, what the author is told.

use std::fmt::Write as _;
use std::time::Duration;

use super::*;
use crate::domain::ServiceName;

/// Files by absolute path.
#[derive(Default)]
pub(super) struct MemoryFiles(BTreeMap<String, Vec<u8>>);

impl Files for MemoryFiles {
    fn read(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        self.0.get(path).map(|bytes| Cow::Borrowed(bytes.as_slice()))
    }
}

impl MemoryFiles {
    /// Files by path below the project directory.
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter();
        Self(files.map(|(path, text)| (paths::resolve(DIRECTORY, path), text.as_bytes().to_vec())).collect())
    }
}

const DIRECTORY: &str = "/opt/tenants/acme";

/// Several Compose files, merged; errors call the first one `compose.yaml` and the others by their number.
pub(super) fn load_files(texts: &[&str], files: &MemoryFiles) -> Result<Loaded, ComposeError> {
    let numbered = |at| if at == 0 { "compose.yaml".to_owned() } else { format!("{at}.yaml") };
    let names: Vec<String> = (0..texts.len()).map(numbered).collect();
    let documents = names.iter().zip(texts).map(|(name, text)| Document { name, bytes: text.as_bytes() });
    load(&LoadInput {
        documents: &documents.collect::<Vec<_>>(),
        variables: &BTreeMap::new(),
        files,
        profiles: &BTreeSet::new(),
        project: &ProjectName::parse("q8-acme").expect("a project name"),
        names_the_project: true,
        directory: DIRECTORY,
    })
}

/// A load with everything at hand: `profiles`, variables and files as pairs.
pub(super) fn load_with(
    text: &str,
    variables: &[(&str, &str)],
    files: &[(&str, &str)],
    profiles: &[&str],
) -> Result<Loaded, ComposeError> {
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let files = MemoryFiles::of(files);
    load(&LoadInput {
        documents: &[Document { name: "compose.yaml", bytes: text.as_bytes() }],
        variables: &pairs(variables),
        files: &files,
        profiles: &profiles.iter().map(|profile| (*profile).to_owned()).collect(),
        project: &ProjectName::parse("q8-acme").expect("a project name"),
        names_the_project: true,
        directory: DIRECTORY,
    })
}

pub(super) fn load_text(text: &str) -> Result<Loaded, ComposeError> {
    load_with(text, &[], &[], &[])
}

/// The service `a` of a file whose service `a` has these attributes beside its image.
fn service(attributes: &str) -> Service {
    let text =
        format!("services: {{a: {{image: x, {attributes}}}, b: {{image: y}}}}\nvolumes: {{v: }}\nnetworks: {{n: }}\n");
    let loaded = load_text(&text).unwrap_or_else(|error| panic!("{attributes}: {error}"));
    Service::clone(&loaded.project.services[&ServiceName::parse("a").expect("a name")])
}

/// The refusal of a service `a` with these attributes.
fn refusal(attributes: &str) -> ComposeError {
    let text =
        format!("services: {{a: {{image: x, {attributes}}}, b: {{image: y}}}}\nvolumes: {{v: }}\nnetworks: {{n: }}\n");
    load_text(&text).err().unwrap_or_else(|| panic!("{attributes}: must be refused"))
}

#[test]
fn commands_are_words_and_null_is_the_images_own() {
    for (attribute, words) in [
        ("command: null", None),
        ("command: []", Some(vec![])),
        ("command: ''", Some(vec![])),
        ("command: 'a \"b c\"'", Some(vec!["a", "b c"])),
        ("command: [a, 'b c', '&&']", Some(vec!["a", "b c", "&&"])),
    ] {
        let words: Option<Vec<String>> = words.map(|words| words.into_iter().map(str::to_owned).collect());
        assert_eq!(service(attribute).command, words, "{attribute}");
    }
    assert!(refusal("command: a && b").reason.contains("shell syntax"));
    assert!(refusal("command: [sleep, 5]").reason.contains("quotes"));
}

#[test]
fn environment_joins_files_the_file_itself_and_the_requests_variables() {
    let text = "
services:
  a:
    image: x
    env_file: [one.env, {path: raw.env, format: raw}, {path: gone.env, required: false}]
    environment: ['OWN=${V}', PASSED, UNSET, NUMBER=1]
";
    let files = [("one.env", "A=1\nB=${A}${V}\nOWN=file\nV\n"), ("raw.env", "R='$V'\nA=2\n")];
    let loaded = load_with(text, &[("V", "v"), ("PASSED", "p")], &files, &[]).expect("valid");
    let environment = &loaded.project.services["a"].environment;
    let pairs: Vec<(&str, Option<&str>)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    assert_eq!(
        pairs,
        [
            ("A", Some("2")),
            ("B", Some("1v")),
            ("NUMBER", Some("1")),
            ("OWN", Some("v")),
            ("PASSED", Some("p")),
            ("R", Some("'$V'")),
            ("UNSET", None),
            ("V", Some("v")),
        ]
    );
}

#[test]
fn an_error_in_an_env_file_names_that_file() {
    let error = load_with("services: {a: {image: x, env_file: one.env}}", &[], &[("one.env", "A=1\nB='x\n")], &[]);
    assert_eq!(
        error.expect_err("no closing quote").to_string(),
        "one.env:2:3: the quote that begins here does not end"
    );
}

#[test]
fn paths_are_absolute_and_the_policy_sees_where_they_lead() {
    for (volume, source) in [
        ("./html:/p", "/opt/tenants/acme/html"),
        (".:/p", "/opt/tenants/acme"),
        ("../../../etc:/p", "/etc"),
        ("/var/run/docker.sock:/p", "/var/run/docker.sock"),
        ("~/.ssh:/p", "~/.ssh"),
    ] {
        let mounts = service(&format!("volumes: ['{volume}']")).mounts;
        match &mounts[0].source {
            MountSource::Bind { source: found, .. } => assert_eq!(found, source),
            other => panic!("{volume}: {other:?}"),
        }
    }
}

#[test]
fn a_service_without_networks_is_on_the_default_one_and_unused_ones_go() {
    let text = "services: {a: {image: x}, b: {image: x, networks: [n]}, c: {image: x, network_mode: none}}\n\
                networks: {n: , unused: }\n";
    let project = load_text(text).expect("valid").project;
    let names: Vec<(&str, &str)> =
        project.networks.iter().map(|(key, network)| (key.as_str(), network.name.as_str())).collect();
    assert_eq!(names, [("default", "q8-acme_default"), ("n", "q8-acme_n")]);
    assert!(project.services["a"].networks.contains_key("default"));
    assert!(!project.services["b"].networks.contains_key("default"));
    assert!(project.services["c"].networks.is_empty());
}

#[test]
fn profiles_decide_what_is_there() {
    let text = "services: {web: {image: x}, dbg: {image: x, profiles: [debug], volumes: [nowhere:/x]}, \
                opt: {image: x, depends_on: {dbg: {condition: service_started, required: false}}}}";
    let loaded = load_text(text).expect("a disabled service may refer to what is not there");
    assert_eq!(loaded.project.services.len(), 2);
    assert!(loaded.project.disabled_services.contains("dbg"));
    assert!(loaded.project.services["opt"].depends_on.is_empty());
    assert!(loaded.warnings[0].contains("`dbg` is disabled"), "{:?}", loaded.warnings);
    for profiles in [&["debug"][..], &["*"]] {
        let error = load_with(text, &[], &[], profiles).expect_err("now the volume is missed");
        assert_eq!(error.field, "services.dbg.volumes[0]");
    }
}

#[test]
fn deploy_and_the_services_own_attributes_must_agree() {
    let deployed = service(
        "cpus: 0.5, deploy: {replicas: 3, restart_policy: {condition: on-failure, max_attempts: 2}, \
         resources: {limits: {cpus: '0.50', memory: 50M, pids: 9}, reservations: {memory: 20M}}}",
    );
    assert_eq!(deployed.replicas(), 3);
    assert_eq!(deployed.restart_policy(), RestartPolicy::OnFailure(Some(2)));
    let limits = deployed.limits();
    assert_eq!(limits.nano_cpus, Some(500_000_000));
    assert_eq!(limits.memory, Some(50 << 20));
    assert_eq!(limits.memory_reservation, Some(20 << 20));
    assert_eq!(limits.pids, Some(9));
    for (attributes, field) in [
        ("scale: 2, deploy: {replicas: 3}", "services.a.scale"),
        ("cpus: 1, deploy: {resources: {limits: {cpus: 2}}}", "services.a.cpus"),
        ("deploy: {resources: {limits: {memory: 1g}}}, mem_limit: 2g", "services.a.mem_limit"),
        ("pids_limit: 1, deploy: {resources: {limits: {pids: 2}}}", "services.a.pids_limit"),
    ] {
        assert_eq!(refusal(attributes).field, field, "{attributes}");
    }
}

#[test]
fn shared_namespaces_are_dependencies() {
    let project = load_text("services: {a: {image: x, pid: 'service:b'}, b: {image: x}}").expect("valid").project;
    let dependency = project.services["a"].depends_on["b"];
    assert!(dependency.restart && dependency.required);
}

#[test]
fn what_reaches_the_host_is_loaded_for_the_policy_to_refuse() {
    let loaded = service(
        "privileged: true, cap_add: [ALL], devices: [/dev/kvm, {source: /dev/x, permissions: r}], pid: host, ipc: host, \
         uts: host, userns_mode: host, cgroup: host, runtime: runc, oom_kill_disable: true, oom_score_adj: -500, \
         network_mode: host, security_opt: ['seccomp:unconfined'], cgroup_parent: /x, sysctls: {net.core.somaxconn: 1024}",
    );
    assert!(loaded.privileged && loaded.oom_kill_disable);
    assert_eq!(loaded.devices, ["/dev/kvm:/dev/kvm:rwm", "/dev/x:/dev/x:r"]);
    assert_eq!(loaded.pid, Some(NamespaceMode::Host));
    assert_eq!(loaded.network_mode, Some(NetworkMode::Host));
    assert_eq!(loaded.sysctls["net.core.somaxconn"], "1024");
    assert!(load_text("services: {a: {build: .}}").expect("loads").project.services["a"].build.is_some());
}

#[test]
fn files_of_the_request_become_configs_and_secrets() {
    let text = "
services:
  a:
    image: x
    configs: [c, {source: t, target: /etc/t.conf, uid: '103', mode: 0440}]
    secrets: [s, {source: e, target: other}]
configs:
  c: {file: ./c.conf}
  t: {content: \"k=${V}\\n\"}
secrets:
  s: {file: ../outside}
  e: {environment: TOKEN}
";
    let project = load_with(text, &[("V", "v"), ("TOKEN", "t")], &[("c.conf", "hello")], &[]).expect("valid").project;
    assert_eq!(project.configs["c"].source.bytes(), Some(&b"hello"[..]));
    assert_eq!(project.configs["t"].source.bytes(), Some(&b"k=v\n"[..]));
    assert_eq!(project.secrets["s"].source, FileSource::File { path: "/opt/tenants/outside".to_owned(), bytes: None });
    assert_eq!(project.secrets["e"].source.bytes(), Some(&b"t"[..]));
    let service = &project.services["a"];
    let targets: Vec<&str> =
        service.configs.iter().chain(&service.secrets).map(|reference| reference.target.as_str()).collect();
    assert_eq!(targets, ["/c", "/etc/t.conf", "/run/secrets/s", "/run/secrets/other"]);
    assert_eq!((service.configs[1].uid, service.configs[1].mode), (Some(103), Some(0o440)));
}

#[test]
fn of_two_mounts_on_one_path_the_later_one_counts() {
    let mounts = service("volumes: ['v:/t', '/anon', './x:/t:ro']").mounts;
    assert_eq!(mounts.len(), 2);
    assert!(matches!(&mounts[0].source, MountSource::Bind { .. }));
    assert_eq!(mounts[0].read_only, Some(true));
    assert_eq!(mounts[1].source, MountSource::Anonymous { nocopy: false, labels: BTreeMap::new() });
}

#[test]
fn values_from_variables_are_cast_to_the_fields_type() {
    let text = "services: {a: {image: x, init: '${B}', scale: '${N}', stop_grace_period: '${D}', mem_limit: '${M}', \
                ports: [{target: '${P}'}], ulimits: {nofile: '${P}'}}}";
    let variables = [("B", "yes"), ("N", "2"), ("D", "1m"), ("M", "1g"), ("P", "0080")];
    let project = load_with(text, &variables, &[], &[]).expect("valid").project;
    let service = &project.services["a"];
    assert_eq!((service.init, service.replicas()), (Some(true), 2));
    assert_eq!(service.stop_grace_period, Some(Duration::from_secs(60)));
    assert_eq!((service.resources.memory, service.ports[0].target), (Some(1 << 30), 80));
    assert_eq!(service.ulimits["nofile"], Ulimit { soft: 80, hard: 80, is_single: true });
}

#[test]
fn refusals_name_the_field_and_what_is_allowed() {
    for (attributes, field, reason) in [
        ("imagee: y", "services.a.imagee", "did you mean `image`?"),
        ("volume: [x]", "services.a.volume", "did you mean `volumes`?"),
        ("blkio_config: {wait: 1}", "services.a.blkio_config.wait", "is not an attribute"),
        ("volumes_from: [c]", "services.a.volumes_from[0]", "names a service that does not exist"),
        ("pull_policy: every_x", "services.a.pull_policy", "every_ with a duration"),
        ("provider: {typo: x}", "services.a.provider.typo", "did you mean `type`?"),
        ("post_start: [{user: root}]", "services.a.post_start[0]", "has no `command`"),
        ("hostname: 5", "services.a.hostname", "put it in quotes"),
        ("hostname: ", "services.a.hostname", "must be a string, but it is empty"),
        ("ports: ", "services.a.ports", "must be a list, but it is empty"),
        ("ports: ['80:80', 'a:80']", "services.a.ports[1]", "host port"),
        ("ports: [80.5]", "services.a.ports[0]", "must be a port number"),
        ("ports: ['1-65535:1-65535', '1-65535']", "services.a.ports[1]", "more than 70000 ports"),
        ("ports: [{target: 80, protocol: icmp}]", "services.a.ports[0].protocol", "tcp, udp or sctp"),
        ("ports: [{target: 80, targett: 80}]", "services.a.ports[0].targett", "did you mean `target`?"),
        ("volumes: ['w:/x']", "services.a.volumes[0]", "not under the top-level `volumes`; did you mean `v`?"),
        ("volumes: ['v:x']", "services.a.volumes[0]", "must be absolute"),
        ("volumes: ['a:/b:c:d']", "services.a.volumes[0]", "too many colons"),
        ("volumes: [{type: volume, source: v}]", "services.a.volumes[0]", "no `target`"),
        (
            "volumes: [{type: pipe, source: v, target: /x}]",
            "services.a.volumes[0]",
            "the type of a mount is volume, bind",
        ),
        ("tmpfs: /t, volumes: [/t]", "services.a.tmpfs", "already mounted"),
        ("networks: [m]", "services.a.networks[0]", "did you mean `n`?"),
        ("networks: [n], network_mode: none", "services.a.network_mode", "together with `networks`"),
        ("network_mode: 'service:z'", "services.a.network_mode", "does not exist"),
        ("depends_on: [c]", "services.a.depends_on[0]", "does not exist; did you mean `a`?"),
        ("depends_on: {b: {condition: ready}}", "services.a.depends_on.b.condition", "service_healthy"),
        ("depends_on: {b: {}}", "services.a.depends_on.b", "no `condition`"),
        ("depends_on: [a]", "services.a.depends_on.a", "a -> a"),
        ("restart: sometimes", "services.a.restart", "unless-stopped"),
        ("restart: false", "services.a.restart", "quotes"),
        ("stop_grace_period: 90", "services.a.stop_grace_period", "duration such as"),
        ("mem_limit: lots", "services.a.mem_limit", "size such as"),
        ("mem_limit: 1.5", "services.a.mem_limit", "size such as"),
        ("scale: -1", "services.a.scale", "whole number from 0"),
        ("container_name: c, scale: 2", "services.a.container_name", "more than one replica"),
        ("container_name: 'a/b'", "services.a.container_name", "container name"),
        ("healthcheck: {test: [curl, x]}", "services.a.healthcheck.test", "CMD-SHELL"),
        ("environment: {A: {b: c}}", "services.a.environment.A", "string, number, boolean"),
        ("environment: ['=x']", "services.a.environment[0]", "NAME=value"),
        ("env_file: gone.env", "services.a.env_file", "no such file"),
        ("configs: [nope]", "services.a.configs[0]", "not under the top-level `configs`"),
        ("extra_hosts: ['h:nowhere']", "services.a.extra_hosts[0]", "IP address"),
        (
            "deploy: {resources: {reservations: {devices: [{count: 1}]}}}",
            "services.a.deploy.resources.reservations.devices[0]",
            "has no `capabilities`",
        ),
        ("image: y", "", "already there"),
    ] {
        let error = refusal(attributes);
        assert_eq!(error.field, field, "{attributes}: {error}");
        assert!(error.reason.contains(reason), "{attributes}: {error}");
        let at = error.location.unwrap_or_else(|| panic!("{attributes}: not located: {error}"));
        assert_eq!(at.line, 1, "{attributes}: {error}");
        assert!(at.column > 25, "{attributes}: {error}");
    }
}

#[test]
fn refusals_of_the_document() {
    for (text, field, line, column, reason) in [
        ("- a", "", 1, 1, "is a mapping with `services`"),
        ("volumes: {}", "", 1, 1, "at least one service"),
        ("servces:\n  a: {image: x}", "servces", 1, 1, "did you mean `services`?"),
        ("services: {a: {command: x}}", "services.a", 1, 12, "neither `image` nor `build`"),
        ("services:\n  a:\n", "services.a", 2, 3, "must be a mapping"),
        ("services:\n  'a b': {image: x}", "services.a b", 2, 3, "service name"),
        ("name: shop\nservices: {a: {image: x}}", "name", 1, 7, "must be `q8-acme` or left out"),
        ("include: [x]\nservices: {a: {image: x}}", "include[0]", 1, 11, "there is no such file"),
        (
            "services: {a: {image: x}}\nvolumes:\n  v: {external: true, driver: local}",
            "volumes.v.driver",
            3,
            31,
            "contradicts",
        ),
        ("services: {a: {image: x}}\nsecrets:\n  s: {labels: {a: b}}", "secrets.s", 3, 3, "exactly one source"),
        ("services: {a: {image: x}}\nconfigs:\n  c: {file: a, content: b}", "configs.c", 3, 3, "exactly one source"),
        ("services: {a: {image: x}}\nnetworks:\n  n: {drivr: x}", "networks.n.drivr", 3, 7, "did you mean `driver`?"),
        ("services: {a: {image: x}}\nvolumes:\n  v: {name: a/b}", "volumes.v.name", 3, 13, "volume name"),
        ("services:\n  a: {image: 'x:${T!}'}", "services.a.image", 2, 14, "begins no valid variable"),
        (
            "services:\n  a: {image: 'x:${T:?give a tag}'}",
            "services.a.image",
            2,
            14,
            "variable T is missing a value: give a tag",
        ),
    ] {
        let error = load_text(text).expect_err(text);
        assert_eq!(error.field, field, "{text}: {error}");
        assert!(error.reason.contains(reason), "{text}: {error}");
        assert_eq!(error.location, Some(Location { line, column }), "{text}: {error}");
    }
}

#[test]
fn the_author_is_told_what_has_no_effect() {
    let text = "version: '3'\nservices: {a: {image: 'x${TAG}', attach: false, volumes: ['/a:/b:bogus'], \
                deploy: {placement: {}, resources: {reservations: {cpus: 1}}}}}";
    let warnings = load_text(text).expect("valid").warnings;
    for (warning, part) in warnings.iter().zip([
        "variable TAG is not set: it counts as empty",
        "compose.yaml:1:10: version: is obsolete",
        "services.a.attach: is ignored",
        "services.a.volumes[0]: has an option that means nothing",
        "services.a.deploy.placement: is ignored",
        "services.a.deploy.resources.reservations.cpus: is ignored",
    ]) {
        assert!(warning.contains(part), "{warning} / {part}");
    }
    assert_eq!(warnings.len(), 6, "{warnings:?}");
}

#[test]
fn no_secret_is_in_an_error_a_warning_or_a_debug_text() {
    let values = [("S", "hunter2")];
    for attributes in [
        "image: '${S}!'",
        "image: x, ports: ['${S}']",
        "image: x, mem_limit: '${S}'",
        "image: x, restart: '${S}'",
        "image: x, network_mode: 'service:${S}'",
        "image: x, depends_on: ['${S}']",
        "image: x, extends: '${S}'",
        "image: x, extends: {service: '${S}'}",
        "image: x, extends: {service: a, file: '${S}'}",
        "image: x, volumes: ['${S}:/x']",
        "image: x, tmpfs: ['${S}']",
        "image: x, command: '${S} \"'",
        "image: x, pid: '${S}'",
    ] {
        let text = format!("services: {{a: {{{attributes}}}}}");
        let error = load_with(&text, &values, &[], &[]).expect_err(attributes);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let text = "services: {a: {image: x}}\nsecrets: {s: {environment: S}}\nconfigs: {c: {content: '${S}'}}\n";
    let loaded = load_with(text, &values, &[], &[]).expect("valid");
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn the_model_locates_its_fields() {
    let text = "services:\n  a:\n    image: x\n    ports:\n      - 80:80\n    privileged: true\n";
    let loaded = load_text(text).expect("valid");
    let at = |field| loaded.locations.locate(field).map(|(_, location)| (location.line, location.column));
    assert_eq!(at("services.a.privileged"), Some((6, 17)));
    assert_eq!(at("services.a.ports[0]"), Some((5, 9)));
    assert_eq!(at("services.a.networks.default"), Some((2, 3)));
}

#[test]
fn attributes_that_the_hints_know_are_read() {
    for attribute in read::known_attributes() {
        let error = load_text(&format!("services: {{a: {{image: x, {attribute}: [[]]}}}}"));
        let reason = error.err().map(|error| error.reason).unwrap_or_default();
        assert!(!reason.contains("is not an attribute") && !reason.contains("yet"), "{attribute}: {reason}");
    }
}

#[test]
fn many_services_load_quickly() {
    let mut text = "services:\n".to_owned();
    for at in 0..5000 {
        let _ = writeln!(text, "  service-{at}: {{image: nginx, ports: ['80'], environment: {{A: b}}}}");
    }
    let start = std::time::Instant::now();
    assert_eq!(load_text(&text).expect("valid").project.services.len(), 5000);
    // Release builds take a few milliseconds; this bound only catches something quadratic.
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn content_is_bounded_however_often_it_is_named() {
    let big = format!("A={}\n", "x".repeat(200 << 10));
    let mut text = "services:\n".to_owned();
    for at in 0..1000 {
        let _ = writeln!(text, "  s{at}: {{image: x, env_file: big.env}}");
    }
    let error = load_with(&text, &[], &[("big.env", &big)], &[]).expect_err("too large");
    assert!(error.reason.contains("64 MiB"), "{error}");
}

#[test]
fn the_projects_own_name_is_a_variable() {
    let text =
        "services: {a: {image: x, container_name: '${COMPOSE_PROJECT_NAME}-a', environment: [COMPOSE_PROJECT_NAME]}}";
    let service = &load_text(text).expect("valid").project.services["a"];
    assert_eq!(service.container_name.as_deref(), Some("q8-acme-a"));
    assert_eq!(service.environment["COMPOSE_PROJECT_NAME"].as_deref(), Some("q8-acme"));
}

#[test]
fn hostile_projects_are_refused_or_loaded_in_bounded_time() {
    let many = |item: &dyn Fn(usize) -> String| (0..30_000).map(item).collect::<Vec<_>>().join(",");
    let configs = many(&|at| format!("{{source: c,target: /{at}}}"));
    let groups = many(&|at| format!("{at}"));
    let (paths, volumes) = (many(&|at| format!("/{at}")), many(&|at| format!("/v{at}")));
    let aliases: String = (0..60_000).map(|at| format!("  s{at}: *s\n")).collect();
    let options = "x,".repeat(400_000);
    let pairs = many(&|at| format!("K{at}: v"));
    let extending: String = (0..5_000).map(|at| format!("  s{at}: {{extends: base}}\n")).collect();
    let chain: String = (0..100).map(|at| format!("  s{at}: {{extends: s{}}}\n", at + 1)).collect();
    let hosts = many(&|at| format!("'h:10.{}.{}.{}'", at >> 16, at >> 8 & 255, at & 255));
    let links = many(&|at| format!("'b:l{at}'"));
    let merged = format!("services: {{a: {{image: x, extra_hosts: [{hosts}], links: [{links}]}}, b: {{image: y}}}}\n");
    let documents = "services: {a: {image: x}}\n---\n".repeat(99);
    for (name, text, loads) in [
        ("extends", format!("services:\n  base: {{image: x, environment: {{{pairs}}}}}\n{extending}"), false),
        (
            "extends with a word",
            format!(
                "services:\n  base: {{image: x, environment: {{{pairs}}}}}\n{}",
                extending.replace("base}", "base, environment: {A: b}}")
            ),
            false,
        ),
        ("a chain", format!("services:\n{chain}  s100: {{image: x}}\n"), false),
        ("hosts and links", merged.clone(), true),
        ("two documents", format!("{merged}---\n{merged}"), false),
        ("many documents", format!("{documents}services: {{}}\n"), true),
        (
            "configs",
            format!("services: {{a: {{image: x, configs: [{configs}]}}}}\nconfigs: {{c: {{content: c}}}}"),
            true,
        ),
        ("groups", format!("services: {{a: {{image: x, group_add: [{groups}]}}}}"), true),
        ("mounts", format!("services: {{a: {{image: x, tmpfs: [{paths}], volumes: [{volumes}]}}}}"), true),
        ("services", format!("x-s: &s {{image: x}}\nservices:\n{aliases}"), false),
        ("options", format!("services:\n  a:\n    image: x\n    volumes:\n      - /a:/b:{options}\n"), true),
    ] {
        let start = std::time::Instant::now();
        let loaded = load_text(&text);
        assert_eq!(loaded.is_ok(), loads, "{name}: {:?}", loaded.err());
        assert!(start.elapsed() < Duration::from_secs(20), "{name}: {:?}", start.elapsed());
    }
}

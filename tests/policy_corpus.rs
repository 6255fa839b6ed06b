//! Every document of the hostile corpus is refused by the loader or by the policy, or else shown to be confined.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use q8_agent::compose::{Document, Files, LoadInput, Project, load};
use q8_agent::domain::ProjectName;
use q8_agent::policy::{Ground, Profile, admit};

/// What must become of a document.
enum Outcome {
    /// Refused by the policy with this `field rule`, or by the loader about this field or one above or below it.
    Refused(&'static str),
    /// Accepted without the effect that its author hoped for, or refused by the loader.
    Confined(fn(&Project)),
}
use Outcome::{Confined, Refused};

const EXPECTED: &[(&str, Outcome)] = &[
    ("003-host-root-bind", Refused("services.a.volumes[0] bind-agent")),
    ("004-bind-escape", Refused("services.a.volumes[0] bind-outside")),
    ("005-bind-home", Refused("services.a.volumes[0] bind-outside")),
    ("006-bind-interpolated", Refused("services.a.volumes[0] bind-outside")),
    ("007-local-driver-bind-device", Refused("volumes.v.driver_opts driver-opts")),
    ("008-network-host", Refused("services.a.network_mode network-mode")),
    ("010-pid-host", Refused("services.a.pid host-namespace")),
    ("011-ipc-host", Refused("services.a.ipc host-namespace")),
    ("012-uts-host", Refused("services.a.uts host-namespace")),
    ("013-userns-host", Refused("services.a.userns_mode host-namespace")),
    ("014-cgroup-host", Refused("services.a.cgroup host-namespace")),
    ("016-cap-all", Refused("services.a.cap_add[0] capability")),
    ("018-apparmor-unconfined", Refused("services.a.security_opt[0] security-opt")),
    ("022-external-volume-other", Refused("volumes.v.external external")),
    ("023-named-volume-other", Refused("volumes.v.name foreign-name")),
    ("024-external-network-other", Refused("networks.n.external external")),
    ("025-named-network-other", Refused("networks.default.name foreign-name")),
    ("028-config-file-escape", Refused("configs.c.file file-outside")),
    ("030-secret-host-env", Refused("secrets.s.environment unset-variable")),
    // The agent's own environment is no source of variables.
    ("031-env-passthrough-host", Confined(|project| assert_eq!(token_of(project, "AGENT_TOKEN"), ""))),
    ("032-interpolate-host-env", Confined(|project| assert_eq!(token_of(project, "T"), ""))),
    ("033-label-spoof-project", Refused("services.a.labels.com.docker.compose.project reserved-label")),
    ("036-publish-low-port", Refused("services.a.ports[0] host-port")),
    ("037-build-section", Refused("services.a.build build")),
    ("043-oom-kill-disable", Refused("services.a.oom_kill_disable oom-kill-disable")),
    ("044-oom-score", Refused("services.a.oom_score_adj oom-score")),
    ("050-shared-propagation", Refused("services.a.volumes[0] bind-propagation")),
    ("051-logging-driver-remote", Refused("services.a.logging.driver logging-driver")),
    ("055-ipam-gateway-metadata", Refused("services.a.extra_hosts.metadata extra-hosts")),
    ("056-credential-spec", Refused("services.a.credential_spec foreign")),
];

/// The variable's value, `""` when it is unset.
fn token_of(project: &Project, name: &str) -> String {
    project.services["a"].environment.get(name).cloned().flatten().unwrap_or_default()
}

struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

#[test]
fn nothing_of_the_hostile_corpus_gets_through() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/policy");
    let mut unnamed: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    let mut failures = Vec::new();
    for (name, outcome) in EXPECTED {
        assert!(unnamed.remove(*name), "{name} is not in the corpus");
        let compose = std::fs::read(folder.join(format!("{name}.yaml"))).unwrap();
        if let Err(failure) = judge(name, &compose, outcome) {
            failures.push(format!("{name}: {failure}"));
        }
    }
    assert!(unnamed.is_empty(), "no expectation for {unnamed:?}");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn judge(name: &str, compose: &[u8], outcome: &Outcome) -> Result<(), String> {
    // The index' other variables stand for the agent's own environment, so no request has them.
    let variables = match name {
        "006-bind-interpolated" => BTreeMap::from([(String::from("D"), String::from("/etc"))]),
        _ => BTreeMap::new(),
    };
    let project = ProjectName::parse("q8-acme").expect("a project name");
    let input = LoadInput {
        documents: &[Document { name: "compose.yaml", bytes: compose }],
        variables: &variables,
        files: &NoFiles,
        profiles: &BTreeSet::new(),
        project: &project,
        names_the_project: true,
        directory: "/opt/tenants/acme",
    };
    let loaded = match (load(&input), outcome) {
        (Err(_), Confined(_)) => return Ok(()),
        (Err(error), Refused(expected)) => {
            let field = expected.split(' ').next().unwrap_or_default();
            let about_it =
                !error.field.is_empty() && (field.starts_with(&error.field) || error.field.starts_with(field));
            return if about_it { Ok(()) } else { Err(format!("the loader refused it for another reason: {error}")) };
        }
        (Ok(loaded), _) => loaded,
    };
    let ground = Ground {
        files: &BTreeSet::new(),
        undefined: &[],
        publish_host: "127.0.0.1".parse().expect("an address"),
        publish_ports: (20000, 29999),
        platform: "linux/amd64",
    };
    match (admit(&Profile::Baseline.into(), loaded.project, &ground), outcome) {
        (Ok(admitted), Confined(check)) => {
            check(admitted.project.project());
            Ok(())
        }
        (Err(refusals), Refused(expected)) => {
            let told: Vec<String> = refusals.iter().map(|r| format!("{} {}", r.field, r.rule)).collect();
            if told.iter().any(|told| told == expected) {
                Ok(())
            } else {
                Err(format!("refused as {told:?}, not as {expected}"))
            }
        }
        (Ok(_), _) => Err(String::from("accepted")),
        (Err(refusals), _) => Err(format!("refused: {refusals:?}")),
    }
}

//! Valid documents under the default policy: what breaks no rule is accepted, and every refusal is one of these.

use std::collections::{BTreeMap, BTreeSet};

use q8_agent::domain::ProjectPath;
use q8_agent::policy::{Ground, Profile, admit};

use super::documents::case;
use super::{read_json, read_text};

/// What a host of strangers refuses of the valid documents, and why.
const REFUSED: &[(&str, &[&str])] = &[
    (
        "011-volumes-long.yaml",
        &[
            "services.a.volumes[1] bind-propagation",
            "services.a.volumes[1] bind-source-missing",
            "services.a.volumes[2] bind-source-missing",
        ],
    ),
    ("013-external-name.yaml", &["networks.n.external external", "volumes.v.external external"]),
    ("016-network-mode.yaml", &["services.c.network_mode network-mode"]),
    ("021-resources-legacy.yaml", &["services.a.mem_swappiness swappiness", "services.a.oom_score_adj oom-score"]),
    ("024-security.yaml", &["services.a.group_add[0] group-add", "services.a.group_add[1] group-add"]),
    (
        "025-misc-scalars.yaml",
        &[
            "services.a.mac_address mac-address",
            "services.a.runtime runtime",
            "services.a.userns_mode host-namespace",
            "services.a.uts host-namespace",
        ],
    ),
    ("029-dns-hosts.yaml", &["services.a.extra_hosts.host.docker.internal extra-hosts"]),
    (
        "030-configs-secrets.yaml",
        &["configs.short.file file-outside", "secrets.s1.file file-outside", "secrets.s2.environment unset-variable"],
    ),
    ("037-include.yaml", &["services.inc.volumes[0] bind-source-missing"]),
    ("041-override-file.yaml", &["services.a.cap_add[0] capability", "services.a.cap_add[1] capability"]),
    ("043-build-image.yaml", &["services.a.build build", "services.b.build build"]),
    (
        "045-gpu-reservation.yaml",
        &[
            "services.a.deploy.resources.reservations.devices device",
            "services.b.deploy.resources.reservations.devices device",
        ],
    ),
    ("046-links-volumes-from.yaml", &["services.a.external_links[0] external-links"]),
    ("055-pull-policy.yaml", &["services.d.pull_policy build"]),
    ("062-gpus-new.yaml", &["services.a.gpus device", "services.b.gpus device"]),
    ("063-label-file-new.yaml", &["services.a.annotations.a annotations", "services.a.label_file file-outside"]),
];

#[test]
fn what_breaks_no_rule_is_accepted() {
    let mut expected: BTreeMap<&str, &[&str]> = REFUSED.iter().copied().collect();
    let mut wrong = Vec::new();
    let (mut accepted, mut all) = (0, 0);
    for entry in read_json("valid/index.json") {
        let file = entry["file"].as_str().expect("a file name").to_owned();
        let text = read_text(&format!("valid/{file}"));
        let mut case = case(&text, &entry);
        if file == "003-name-toplevel.yaml" {
            case.project = "shop";
        }
        let loaded = case.load().unwrap_or_else(|error| panic!("{file}: {error}"));
        let prefix = format!("{}/", super::DIRECTORY);
        let files: BTreeSet<ProjectPath> =
            case.files.keys().filter_map(|path| ProjectPath::parse(path.strip_prefix(&prefix)?).ok()).collect();
        let ground = Ground {
            files: &files,
            undefined: &loaded.undefined,
            publish_host: "127.0.0.1".parse().expect("an address"),
            // Documents publish what they like; which ports a host gives is its own affair.
            publish_ports: (1, 65535),
            platform: "linux/amd64",
        };
        let refusals = admit(&Profile::Baseline.into(), loaded.project, &ground).err().unwrap_or_default();
        let told: BTreeSet<String> =
            refusals.iter().map(|refusal| format!("{} {}", refusal.field, refusal.rule)).collect();
        accepted += usize::from(told.is_empty());
        all += 1;
        let known: BTreeSet<String> =
            expected.remove(file.as_str()).unwrap_or_default().iter().map(ToString::to_string).collect();
        if told != known {
            wrong.push(format!("(\"{file}\", &{told:?}),"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(expected.is_empty(), "these are not in the corpus: {expected:?}");
    assert_eq!(accepted, all - REFUSED.len(), "everything else is accepted");
    assert!(accepted >= 17, "only {accepted} documents were accepted");
}

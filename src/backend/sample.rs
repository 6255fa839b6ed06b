//! A deployment for tests: tenant `acme` at generation 2, with a project of a few lines.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::{Deployment, HostKey, TenantRef};
use crate::compose::{self, Document, Files, LoadInput, Project};
use crate::domain::{Adopted, AgentId, DesiredState, Generation, ProjectPath, Subdomain, TenantId};
use crate::policy::{self, Ground, Profile, TenantRules};

struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

/// The deployment of this Compose text. `files` are the request's, by name only.
pub(crate) fn deployment(profile: Profile, text: &str, files: &[&str]) -> Deployment {
    judged(&profile.into(), text, files).unwrap_or_else(|refused| panic!("{refused}\n{text}"))
}

/// The deployment of this Compose text if these rules admit it, or why there is none.
pub(crate) fn judged(rules: &TenantRules, text: &str, files: &[&str]) -> Result<Deployment, String> {
    let loaded = compose::load(&LoadInput {
        documents: &[Document { name: "compose.yaml", bytes: text.as_bytes() }],
        variables: &BTreeMap::new(),
        files: &NoFiles,
        profiles: &BTreeSet::new(),
        project: &tenant().project(),
        names_the_project: true,
        directory: "/opt/t/acme",
    });
    let files = files.iter().map(|path| ProjectPath::parse(path).unwrap()).collect();
    of_project(rules, loaded.map_err(|error| error.to_string())?.project, &files)
}

/// Whose the samples are.
pub(crate) fn tenant() -> TenantRef {
    TenantRef {
        agent: AgentId::parse(&"a".repeat(32)).unwrap(),
        subdomain: Subdomain::parse("acme").unwrap(),
        id: TenantId::parse("1").unwrap(),
        region: None,
        adopted: Adopted::default(),
    }
}

/// The deployment of a project that is loaded already.
pub(crate) fn of_project(
    rules: &TenantRules,
    project: Project,
    files: &BTreeSet<ProjectPath>,
) -> Result<Deployment, String> {
    let ground = Ground {
        files,
        undefined: &[],
        publish_host: Ipv4Addr::LOCALHOST.into(),
        publish_ports: (20000, 29999),
        platform: "linux/amd64",
    };
    let admitted = policy::admit(rules, project, &ground).map_err(|refusals| format!("{refusals:?}"))?;
    Ok(Deployment {
        tenant: tenant(),
        generation: Generation(2),
        desired: DesiredState::Running,
        project: admitted.project,
        files: BTreeMap::new(),
        pinned_images: BTreeMap::new(),
        authorised_images: std::collections::BTreeSet::new(),
        key: HostKey::new([1; 32]),
    })
}

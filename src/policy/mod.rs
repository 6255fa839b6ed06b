//! From a resolved project to one that may run here, or to every reason why not. Pure.
//!
//! `baseline` is an allow list: it takes every part of the model apart by name (no `..`), so an attribute that the model gains
//! does not compile here until somebody has said what it may be. `trusted` looks only at what no stack may have.

mod baseline;
mod binds;
mod labels;
mod network;
mod objects;
mod privileges;
#[cfg(test)]
mod tests;
mod trusted;
mod verdict;

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::compose::Project;
use crate::domain::ProjectPath;
use verdict::Verdict;

/// A project that the policy has accepted. Only [`admit`] makes one; backends take nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedProject {
    project: Project,
    confined: bool,
}

impl AllowedProject {
    /// The project as it is to run.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// Whether it was written by a stranger: what its containers do to each other's files must not reach the host.
    pub fn is_confined(&self) -> bool {
        self.confined
    }
}

/// Which rules hold on this host (`Q8_AGENT_POLICY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// For stacks written by strangers: nothing reaches the host or another tenant. The default.
    Baseline,
    /// For hosts whose stacks are the operator's own: only names, ownership labels and `.agent` are protected.
    Trusted,
}

impl Profile {
    /// The word used in settings and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Trusted => "trusted",
        }
    }
}

/// What a project is judged against, besides the profile.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The request's files.
    pub files: &'a BTreeSet<ProjectPath>,
    /// The address that ports are published on (`Q8_AGENT_PUBLISH_HOST`).
    pub publish_host: IpAddr,
    /// The host ports from which a port without one gets its own, both ends included.
    pub publish_ports: (u16, u16),
}

/// One refused attribute.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// The field, such as `services.web.privileged`.
    pub field: String,
    /// The rule's stable name, such as `privileged`.
    pub rule: &'static str,
    /// What is allowed instead.
    pub allowed: String,
}

/// What a policy says about an accepted project.
#[derive(Debug)]
pub struct Admitted {
    /// The project to run.
    pub project: AllowedProject,
    /// What was changed or is worth knowing, a sentence each.
    pub warnings: Vec<String>,
}

/// Admits a project, or gives all refusals at once.
///
/// Under `baseline` an accepted project may differ from what was asked in two ways: a request file that is bound without
/// a mode becomes read-only, with a warning; a port without a host address gets the publish host.
pub fn admit(profile: Profile, mut project: Project, ground: &Ground<'_>) -> Result<Admitted, Vec<Refusal>> {
    let mut verdict = Verdict::default();
    match profile {
        Profile::Baseline => baseline::judge(&project, ground, &mut verdict),
        Profile::Trusted => trusted::judge(&project, ground, &mut verdict),
    }
    if !verdict.refusals.is_empty() {
        return Err(verdict.refusals);
    }
    let confined = profile == Profile::Baseline;
    if confined {
        baseline::confine(&mut project, ground, &mut verdict);
    }
    Ok(Admitted { project: AllowedProject { project, confined }, warnings: verdict.warnings })
}

//! From a resolved project to one that may run here, or to every reason why not. Pure.
//!
//! `baseline` is an allow list: it takes every part of the model apart by name (no `..`), so an attribute that the model gains
//! does not compile here until somebody has said what it may be. `trusted` looks only at what no stack may have.

mod baseline;
mod binds;
mod confine;
mod file;
#[cfg(test)]
mod fuzz;
mod images;
mod inside;
mod labels;
mod limits;
mod network;
mod objects;
mod privileges;
mod restricted;
mod rules;
#[cfg(test)]
mod tests;
mod trusted;
mod usage;
mod verdict;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::compose::Project;
use crate::domain::ProjectPath;
pub use file::PolicyFileError;
pub use limits::{Defaults, demand, nano_cpus};
pub use rules::{BindGrant, Grants, HostShare, Profile, Rules, TenantRules};
use verdict::Verdict;

/// A project that the policy has accepted. Only [`admit`] makes one; backends take nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedProject {
    project: Project,
    profile: Profile,
    grants: Arc<Grants>,
}

impl AllowedProject {
    /// The project as it is to run.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// Whether it was written by a stranger: what its containers do to each other's files must not reach the host.
    pub fn is_confined(&self) -> bool {
        self.profile.confines()
    }

    /// The profile that accepted it.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// What was allowed to it beyond the profile.
    pub fn grants(&self) -> &Grants {
        &self.grants
    }
}

/// What a project is judged against, besides the profile.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The request's files.
    pub files: &'a BTreeSet<ProjectPath>,
    /// The variables that the file uses and nobody has set.
    pub undefined: &'a [String],
    /// The address that ports are published on (`Q8_AGENT_PUBLISH_HOST`).
    pub publish_host: IpAddr,
    /// The host ports that a fixed one must be among and from which a port without one gets its own, both ends included.
    pub publish_ports: (u16, u16),
    /// What its programs run on without an emulator, such as `linux/amd64`.
    pub platform: &'a str,
}

/// One refused attribute.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
/// Under a confining profile an accepted project differs from what was asked: what the author left open is filled in
/// (limits, logging, dropped capabilities, the publish host), and what is changed against the author's word or habit
/// (a request file becomes read-only, `container_name` becomes an alias) has a warning.
pub fn admit(rules: &TenantRules, project: Project, ground: &Ground<'_>) -> Result<Admitted, Vec<Refusal>> {
    let verdict = judge(rules, &project, ground);
    if !verdict.refusals.is_empty() {
        return Err(verdict.refusals);
    }
    Ok(confined(rules, project, ground, verdict))
}

/// Takes a project that was accepted under earlier rules, which may have been laxer, and confines it as today's do. The
/// second value is what today's rules refuse of it.
pub fn readmit(rules: &TenantRules, project: Project, ground: &Ground<'_>) -> (Admitted, Vec<Refusal>) {
    let mut verdict = judge(rules, &project, ground);
    let refusals = std::mem::take(&mut verdict.refusals);
    (confined(rules, project, ground, verdict), refusals)
}

fn judge(rules: &TenantRules, project: &Project, ground: &Ground<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    match rules.profile {
        Profile::Baseline => baseline::judge(rules, project, ground, &mut verdict),
        Profile::Restricted => {
            baseline::judge(rules, project, ground, &mut verdict);
            restricted::judge(project, ground, &mut verdict);
        }
        Profile::Trusted => trusted::judge(project, ground, &mut verdict),
    }
    verdict
}

fn confined(rules: &TenantRules, mut project: Project, ground: &Ground<'_>, mut verdict: Verdict) -> Admitted {
    match rules.profile {
        Profile::Baseline => confine::confine(rules, &mut project, ground, &mut verdict),
        Profile::Restricted => {
            restricted::confine(&mut project, &mut verdict);
            confine::confine(rules, &mut project, ground, &mut verdict);
        }
        Profile::Trusted => {}
    }
    let project = AllowedProject { project, profile: rules.profile, grants: Arc::new(rules.grants.clone()) };
    Admitted { project, warnings: verdict.warnings }
}

/// A size as Docker reads it in options: `10m`, `1GiB`, `512`; none for anything else.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        _ => return None,
    };
    let plain = digits.bytes().all(|c| c.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| plain)?.checked_mul(1 << (10 * power))
}

//! The rules for stacks of the operator's own: what would break the agent's bookkeeping, and what cannot be done.

use super::verdict::Verdict;
use super::{Ground, binds, labels, objects, usage};
use crate::compose::{MountSource, Project};

/// Attributes without a meaning on a Linux host: docker compose passes over them too.
const WITHOUT_EFFECT: &[&str] = &["credential_spec", "develop"];
const CANNOT: &str = "none: no backend of this agent can run it";

pub(super) fn judge(project: &Project, ground: &Ground<'_>, verdict: &mut Verdict) {
    for attribute in project.foreign.keys() {
        verdict.refuse(attribute, "foreign", CANNOT);
    }
    for (name, service) in &project.services {
        let field = format!("services.{name}");
        for attribute in service.foreign.keys() {
            let field = format!("{field}.{attribute}");
            if WITHOUT_EFFECT.contains(&attribute.as_str()) {
                verdict.warnings.push(format!("{field}: has no effect on this host"));
            } else {
                verdict.refuse(field, "foreign", CANNOT);
            }
        }
        labels::judge(&field, &service.labels, labels::OWNERSHIP, verdict);
        usage::judge_exposed_ports(&field, &service.expose, verdict);
        for (at, mount) in service.mounts.iter().enumerate() {
            let foreign = matches!(mount.source, MountSource::Foreign { .. });
            verdict.refuse_if(foreign, format!("{field}.volumes[{at}]"), "mount-type", CANNOT);
            binds::judge_trusted(project, ground, &format!("{field}.volumes[{at}]"), mount, verdict);
            if let MountSource::Volume { labels, .. } | MountSource::Anonymous { labels, .. } = &mount.source {
                labels::judge(&format!("{field}.volumes[{at}]"), labels, labels::OWNERSHIP, verdict);
            }
        }
    }
    for (key, network) in &project.networks {
        labels::judge(&format!("networks.{key}"), &network.labels, labels::OWNERSHIP, verdict);
    }
    for (key, volume) in &project.volumes {
        labels::judge(&format!("volumes.{key}"), &volume.labels, labels::OWNERSHIP, verdict);
    }
    objects::judge_contents(project, ground, verdict);
}

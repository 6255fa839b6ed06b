//! The rules for stacks of the operator's own: what would break the agent's bookkeeping, and what cannot be done.

use super::verdict::Verdict;
use super::{Ground, baseline, binds, labels, objects};
use crate::compose::Project;

pub(super) fn judge(project: &Project, ground: &Ground<'_>, verdict: &mut Verdict) {
    for (name, service) in &project.services {
        let field = format!("services.{name}");
        baseline::judge_build(&field, service.build, service.pull_policy, verdict);
        labels::judge(&field, &service.labels, labels::OWNERSHIP, verdict);
        for (at, mount) in service.mounts.iter().enumerate() {
            binds::judge_trusted(project, ground, &format!("{field}.volumes[{at}]"), mount, verdict);
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

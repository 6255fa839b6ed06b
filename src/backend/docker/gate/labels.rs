//! Whose an object says it is.

use std::collections::HashMap;

use super::{Allowance, Known, Verdict, demand};
use crate::backend::docker::labels as names;

pub(super) type Labels = HashMap<String, String>;

/// What begins so says whose an object is; the agent alone writes it.
const OWNERSHIP: &[&str] = &["com.docker.compose.", "dev.q8."];

/// What a confined tenant cannot write besides: the engine's own, and what proxies, schedulers and panels act on.
const RESERVED: &[&str] = &[
    "caddy",
    "com.centurylinklabs.",
    "com.docker.",
    "coolify.",
    "io.docker.",
    "ofelia.",
    "org.opencontainers.",
    "traefik.",
];

/// What may not come from an image either. Descriptions, which most images have, do no harm.
const ACTED_ON: &[&str] =
    &["caddy", "com.centurylinklabs.", "com.docker.compose.", "coolify.", "dev.q8.", "ofelia.", "traefik."];

/// The labels of ownership that objects have.
const WRITTEN: &[&str] = &[
    names::AGENT,
    names::TENANT,
    names::ID,
    names::GENERATION,
    names::SPEC,
    names::PROJECT,
    "com.docker.compose.version",
    "com.docker.compose.config-hash",
];

/// Those of containers besides.
const OF_CONTAINERS: &[&str] = &[
    names::SERVICE,
    names::NUMBER,
    names::PORTS,
    "com.docker.compose.depends_on",
    "com.docker.compose.image",
    "com.docker.compose.oneoff",
    "com.docker.compose.project.config_files",
    "com.docker.compose.project.working_dir",
];

fn begins_with(label: &str, prefixes: &[&str]) -> bool {
    // Not all readers of labels distinguish capitals.
    let lower = label.to_ascii_lowercase();
    prefixes.iter().any(|prefix| lower.starts_with(prefix))
}

impl Allowance<'_> {
    fn is_granted(&self, label: &str) -> bool {
        !begins_with(label, OWNERSHIP) && self.grants.labels.iter().any(|prefix| label.starts_with(prefix.as_str()))
    }

    /// Labels that a tenant wrote, on something that bears none of the agent's.
    pub(super) fn judge_own_labels(&self, field: &str, labels: Option<&Labels>) -> Verdict {
        for label in labels.into_iter().flat_map(HashMap::keys) {
            let taken = begins_with(label, OWNERSHIP)
                || (self.confines() && begins_with(label, RESERVED) && !self.is_granted(label));
            demand(!taken, field, "no label that says whose it is, or that others act on")?;
        }
        Ok(())
    }

    /// The agent's labels have the right values, and the rest is the tenant's to write.
    fn judge_labels(&self, labels: Option<&Labels>, further: &[&str]) -> Verdict {
        let nothing = Labels::new();
        let labels = labels.unwrap_or(&nothing);
        let generation = self.generation.to_string();
        let wanted = [
            (names::AGENT, self.tenant.agent.as_str()),
            (names::TENANT, self.tenant.subdomain.as_str()),
            (names::ID, self.tenant.id.as_str()),
            (names::GENERATION, generation.as_str()),
            (names::PROJECT, self.project),
        ];
        for (label, value) in wanted {
            let is_right = labels.get(label).is_some_and(|found| found == value);
            demand(is_right, format!("Labels.{label}"), "the label says whose the object is")?;
        }
        let has_spec = labels.get(names::SPEC).is_some_and(|spec| !spec.is_empty());
        demand(has_spec, format!("Labels.{}", names::SPEC), "the label says what it was made from")?;
        let others =
            labels.iter().filter(|(label, _)| !WRITTEN.contains(&label.as_str()) && !further.contains(&label.as_str()));
        self.judge_own_labels("Labels", Some(&others.map(|(label, value)| (label.clone(), value.clone())).collect()))
    }

    pub(super) fn judge_container_labels(&self, labels: Option<&Labels>, known: &Known<'_>) -> Verdict {
        self.judge_labels(labels, OF_CONTAINERS)?;
        let number = known.number.to_string();
        let wanted = [
            (names::SERVICE, known.service.as_str()),
            (names::NUMBER, number.as_str()),
            ("com.docker.compose.oneoff", "False"),
            ("com.docker.compose.project.working_dir", self.directory),
        ];
        for (label, value) in wanted {
            let is_right = labels.and_then(|labels| labels.get(label)).is_some_and(|found| found == value);
            demand(is_right, format!("Labels.{label}"), "the label says whose the object is")?;
        }
        Ok(())
    }

    pub(super) fn judge_object_labels(&self, labels: Option<&Labels>, kind: &'static str) -> Verdict {
        self.judge_labels(labels, &[kind])
    }

    /// Whether a label that a container has from its image makes others act.
    pub(in crate::backend::docker) fn is_acted_on(&self, label: &str) -> bool {
        begins_with(label, ACTED_ON) && !self.is_granted(label)
    }

    /// Whether every container of the agent's has a label of this name, so that an image's own does not hold.
    pub(in crate::backend::docker) fn is_written(label: &str) -> bool {
        WRITTEN.contains(&label) || OF_CONTAINERS.contains(&label)
    }
}

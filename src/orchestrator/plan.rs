//! What a provision would do, found out without doing any of it.
//!
//! No lock is taken and nothing is written, pulled or reserved, so the answer is one moment's. `plan_hash` is how a client
//! makes sure: a provision that would do anything else than the plan it expects is refused before it touches the tenant.

use serde::Serialize;
use tokio::time::Instant;

use super::bring::Wanted;
use super::load::Loaded;
use super::room::Room;
use super::{Error, Orchestrator, ProvisionRequest};
use crate::backend::{Action, ImagePull, Plan, Run, Step};
use crate::domain::{Demand, Generation, Operation, ProjectName, ServiceName, Subdomain};
use crate::tenant_fs::Record;

/// The answer to `POST /v1/tenants/plan`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct Planned {
    pub subdomain: Subdomain,
    pub project: ProjectName,
    /// The generation that the tenant would be at.
    pub generation: Generation,
    /// Whether anything would be done.
    pub changed: bool,
    /// Whether the tenant would be made.
    pub created: bool,
    /// What becomes of each object, and why.
    pub steps: Vec<PlannedStep>,
    /// What would be pulled, or asked of a registry. A moved tag shows only then.
    pub pulls: Vec<ImagePull>,
    pub ports: Vec<PlannedPort>,
    pub fit: Fit,
    pub warnings: Vec<String>,
    /// For `expect_plan`.
    pub plan_hash: String,
    /// What is being done to the tenant while this is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
}

/// One object of a plan.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct PlannedStep {
    /// `network name`, `volume name` or `container service-number`.
    pub object: String,
    pub action: Action,
    pub reason: String,
}

/// One port that is published.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct PlannedPort {
    pub service: ServiceName,
    pub port: u16,
    pub protocol: String,
    /// The first and the last port of the host from which one is taken; none for any.
    pub host_ports: Option<(u16, u16)>,
}

/// What the tenant needs, and what the host has. It fits, else there is a refusal instead of this.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Fit {
    /// What the tenant needs.
    pub needs: Demand,
    /// What others have, and what all may have; none when the tenant grows in nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Room>,
}

impl Orchestrator {
    /// What a provision would do. Refused as the provision would be.
    pub async fn plan(&self, request: ProvisionRequest) -> Result<Planned, Error> {
        let operation = self.inner.operations.current(&request.subdomain).map(|current| current.operation);
        let run = Run::until(Instant::now() + self.inner.settings.operation_timeout);
        let (record, mut wanted) = self.draft(request, run).await?;
        let loaded = self.load_wanted(&record, &mut wanted).await?;
        let host = self.look_for_room(&record, &loaded).await?;
        let backend = self.backend(record.backend)?;
        let survey = backend.survey(&loaded.deployment, &wanted.run).await?;
        let plan = backend.plan(&loaded.deployment, &survey.images, &wanted.run).await?;
        let same = self.is_same(&record, &wanted, &loaded, &plan);
        let live = record.is_live();
        let mut warnings = loaded.warnings.clone();
        warnings.extend(plan.warnings.iter().cloned());
        Ok(Planned {
            subdomain: record.subdomain.clone(),
            project: ProjectName::of(&record.subdomain),
            generation: if same { record.generation } else { record.generation.next() },
            changed: !same,
            created: !live,
            steps: sorted(&plan),
            pulls: survey.pulls,
            ports: ports(&loaded),
            fit: Fit { needs: loaded.demand, host },
            warnings,
            plan_hash: self.plan_hash(&record, &wanted, &loaded, &plan),
            operation,
        })
    }

    /// A keyed hash of what is wanted, where the tenant stands, what becomes of each object, and how each service's
    /// containers would be made today: by this agent, under the policy of now. Images do not count: one that has to be
    /// pulled is not known yet.
    pub(super) fn plan_hash(&self, record: &Record, wanted: &Wanted, loaded: &Loaded, plan: &Plan) -> String {
        let steps = serde_json::to_vec(&sorted(plan)).expect("names and words serialise");
        let at = record.generation.0.to_be_bytes();
        let (wanted, rules) = (self.fingerprint(&wanted.spec), self.rules(&record.subdomain));
        let deployment = &loaded.deployment;
        let services: Vec<String> =
            deployment.project.project().services.values().map(|service| deployment.service_hash(service)).collect();
        let parts = [&b"plan"[..], wanted.as_bytes(), &at, &[u8::from(record.kept)], &steps, rules.as_bytes()];
        let all: Vec<&[u8]> = parts.into_iter().chain(services.iter().map(String::as_bytes)).collect();
        self.inner.key.hash(&all)
    }

    /// Refuses what is not the plan that the client expects.
    pub(super) fn check_expected(
        &self,
        record: &Record,
        wanted: &Wanted,
        loaded: &Loaded,
        plan: &Plan,
    ) -> Result<(), Error> {
        match &wanted.expect_plan {
            Some(expected) => {
                let plan_hash = self.plan_hash(record, wanted, loaded, plan);
                if *expected == plan_hash { Ok(()) } else { Err(Error::PlanChanged { plan_hash }) }
            }
            None => Ok(()),
        }
    }
}

fn sorted(plan: &Plan) -> Vec<PlannedStep> {
    let told =
        |step: &Step| PlannedStep { object: step.object.to_string(), action: step.action, reason: step.reason.clone() };
    let mut steps: Vec<PlannedStep> = plan.steps.iter().map(told).collect();
    steps.sort_by(|a, b| a.object.cmp(&b.object));
    steps
}

fn ports(loaded: &Loaded) -> Vec<PlannedPort> {
    let services = &loaded.deployment.project.project().services;
    let of_each = services.iter().flat_map(|(name, service)| {
        service.ports.iter().map(|port| PlannedPort {
            service: name.clone(),
            port: port.target,
            protocol: port.protocol.as_str().to_owned(),
            host_ports: port.host_ports(),
        })
    });
    of_each.collect()
}

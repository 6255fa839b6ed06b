//! What an apply would do with a tenant's group and shares.

use futures::future::try_join_all;

use super::convert::{Change, Converted, change, tags};
use super::models::{ContainerGroup, GroupState};
use super::states::{self, Provisioned};
use super::{Core, observed};
use crate::backend::converge::is_one_shot;
use crate::backend::{Action, BackendError, Deployment, ObservedContainer, Plan, PlannedObject, Run, Step, UndoNote};
use crate::domain::{ContainerName, DesiredState, ServiceName};

/// What is to be done with a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// It is as it should be.
    Keep,
    /// It has other tags: another generation of the same.
    Tags,
    /// It is as it should be, but does not run.
    Start,
    /// It runs, but not all of its containers do that should.
    Restart {
        /// For a person.
        because: String,
    },
    /// There is none.
    Create,
    /// Sent again: all of its containers restart.
    Update {
        /// For a person.
        because: String,
    },
    /// Deleted and made anew.
    Replace {
        /// For a person.
        because: String,
    },
}

/// The smallest way from what is there to what is wanted.
pub(super) fn way(live: Option<&ContainerGroup>, wanted: &Converted, deployment: &Deployment) -> Way {
    let Some(live) = live else { return Way::Create };
    let before = Converted {
        name: wanted.name.clone(),
        group: comparable(live, &wanted.group),
        hash: live.tags.get(tags::HASH).cloned().unwrap_or_default(),
        ..wanted.clone()
    };
    let change = change(&before, wanted);
    let runs = deployment.desired == DesiredState::Running;
    match change {
        Change::Replace { because } => Way::Replace { because },
        Change::InPlace => Way::Update { because: "its specification has changed".to_owned() },
        Change::None | Change::TagsOnly if states::provisioned(live) == Provisioned::Failed => {
            Way::Update { because: "it has failed".to_owned() }
        }
        _ if runs && is_stopped(live) => Way::Start,
        _ if runs && has_failed(live) => Way::Update { because: "it has failed".to_owned() },
        _ if runs && let Some(service) = crashed(live, deployment) => {
            Way::Restart { because: format!("{service} has ended, and is to run") }
        }
        Change::TagsOnly => Way::Tags,
        Change::None => Way::Keep,
    }
}

/// What is there, without what Azure fills in where nothing was said.
fn comparable(live: &ContainerGroup, wanted: &ContainerGroup) -> ContainerGroup {
    let mut group = live.clone();
    group.location.clone_from(&wanted.location);
    if wanted.zones.is_empty() {
        group.zones.clear();
    }
    let (is, asked) = (&mut group.properties, &wanted.properties);
    if asked.sku.is_none() {
        is.sku = None;
    }
    if asked.priority.is_none() {
        is.priority = None;
    }
    if let (Some(is), Some(asked)) = (&mut is.ip_address, &asked.ip_address)
        && is.auto_generated_domain_name_label_scope.is_none()
    {
        is.auto_generated_domain_name_label_scope.clone_from(&asked.auto_generated_domain_name_label_scope);
    }
    for container in &mut is.containers {
        let asked = asked.containers.iter().find(|asked| asked.name == container.name);
        let asked = asked.and_then(|asked| asked.properties.resources.as_ref());
        if let (Some(is), Some(asked)) = (&mut container.properties.resources, asked)
            && asked.limits.is_none()
        {
            is.limits = None;
        }
    }
    group
}

pub(super) fn is_stopped(group: &ContainerGroup) -> bool {
    states::group_state(group) == Some(&GroupState::Stopped)
}

fn has_failed(group: &ContainerGroup) -> bool {
    states::group_state(group) == Some(&GroupState::Failed)
}

/// A service whose container has ended for good, though it should run or has not done what it was for.
fn crashed(live: &ContainerGroup, deployment: &Deployment) -> Option<ServiceName> {
    let project = deployment.project.project();
    let is_done = |one: &ObservedContainer| one.status.exit_code == Some(0) && is_one_shot(project, &one.service);
    let mut ended = observed(live).into_iter().filter(|one| one.status.state == "exited");
    ended.find(|one| !is_done(one)).map(|one| one.service)
}

impl Core {
    pub(super) async fn plan(&self, wanted: &Deployment, run: &Run) -> Result<Plan, BackendError> {
        let site = self.site(&wanted.tenant)?;
        let live = self.group(&wanted.tenant, run.deadline).await?;
        let credentials = self.credentials_for(wanted, run);
        let converted = self.convert(wanted, live.as_ref(), &credentials)?;
        super::access::still_allowed(wanted, live.as_ref(), &converted)?;
        let way = way(live.as_ref(), &converted, wanted);
        let mut plan = Plan { warnings: converted.warnings.clone(), ..Plan::default() };
        let looks = converted.shares.iter().map(|share| site.share(&share.name, run.deadline));
        let found = try_join_all(looks).await.map_err(|error| site.fault(error, "reading a share"))?;
        for (share, found) in converted.shares.iter().zip(found) {
            let asked = Some(i64::from(share.quota_gib));
            let (action, reason) = match &found {
                None => (Action::Create, "it does not exist"),
                Some(found) if found.properties.share_quota != asked => {
                    (Action::Recreate, "its quota changes; its data stays")
                }
                Some(_) => (Action::Keep, "it is as it should be"),
            };
            if found.is_some() {
                plan.undo.volumes.push(share.name.clone());
            }
            let object = PlannedObject::Volume { key: share.volume.clone(), name: share.name.clone() };
            plan.steps.push(Step { object, action, reason: reason.to_owned() });
        }
        let (action, reason) = match &way {
            Way::Keep | Way::Tags => (Action::Keep, "it is as it should be".to_owned()),
            Way::Start => (Action::Start, "the group does not run".to_owned()),
            Way::Restart { because } => (Action::Restart, format!("every container of the group restarts: {because}")),
            Way::Create => (Action::Create, "the group does not exist".to_owned()),
            Way::Update { because } => (Action::Recreate, format!("every container of the group restarts: {because}")),
            Way::Replace { because } => (Action::Recreate, format!("the group is deleted and made anew: {because}")),
        };
        if matches!(way, Way::Restart { .. } | Way::Update { .. } | Way::Replace { .. }) {
            plan.warnings.push(reason.clone());
        }
        let standing = live.as_ref().map(observed).unwrap_or_default();
        let step = |service: &ServiceName, name: &str, action, reason: &str| {
            let existing = standing.iter().find(|container| container.service == *service);
            let object = PlannedObject::Container {
                service: service.clone(),
                number: 1,
                name: ContainerName::parse(name).ok()?,
                existing: existing.map(|container| container.status.id.clone()),
            };
            Some(Step { object, action, reason: reason.to_owned() })
        };
        for (service, name) in converted.containers.iter().chain(&converted.init) {
            plan.steps.extend(step(service, name, action, &reason));
        }
        let wants =
            |service: &ServiceName| converted.containers.contains_key(service) || converted.init.contains_key(service);
        for gone in standing.iter().filter(|container| !wants(&container.service)) {
            let reason = "its service is no longer in the file";
            plan.steps.extend(step(&gone.service, gone.status.name.as_str(), Action::Remove, reason));
        }
        let running = standing.iter().filter(|container| container.status.state == "running");
        plan.undo = UndoNote { running: running.map(|container| container.status.id.clone()).collect(), ..plan.undo };
        if let (Some(prices), Way::Create | Way::Update { .. } | Way::Replace { .. }) = (&self.prices, &way)
            && let Some(cost) = prices.per_hour(&site.region.location, &converted.group)
        {
            plan.warnings.push(format!("estimated cost while it runs: {cost:.4} {} per hour", prices.currency));
        }
        plan.standing = standing;
        Ok(plan)
    }
}

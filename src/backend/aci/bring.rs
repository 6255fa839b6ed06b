//! Bringing a group up: shares, then what its change takes, until every container is as it should be.

use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::Instant;

use super::access::still_allowed;
use super::arm::ArmError;
use super::convert::Converted;
use super::looks::Looks;
use super::models::{ContainerGroup, Secret};
use super::plan::{Way, way};
use super::sending::{With, is_of_mount, tell};
use super::site::Site;
use super::states::{self, Provisioned};
use super::{Core, observed};
use crate::backend::converge::is_one_shot;
use crate::backend::{BackendError, Deployment, FailureDetails, ObservedContainer, Run};
use crate::domain::{DesiredState, Health, RegistryAuth};

/// How long the containers of a group are looked at after the first look that finds all of them up: a small part of the time
/// that it took until then, within these.
const PROBATION: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(200));
const PROBATION_PART: f64 = 0.02;
/// What is waited for there.
const COMING_UP: &str = "waiting for the containers of the group";

impl Core {
    pub(super) async fn apply(&self, wanted: &Deployment, run: &Run) -> Result<(), BackendError> {
        let live = self.group(&wanted.tenant, run.deadline).await?;
        let credentials = self.credentials_for(wanted, run);
        let converted = self.convert(wanted, live.as_ref(), &credentials)?;
        still_allowed(wanted, live.as_ref(), &converted)?;
        let bringing = Box::pin(self.bring(wanted, live.as_ref(), converted, &credentials, run));
        tokio::select! {
            brought = bringing => brought,
            () = run.cancel.cancelled() => Err(BackendError::Cancelled),
        }
    }

    pub(super) async fn bring(
        &self,
        wanted: &Deployment,
        live: Option<&ContainerGroup>,
        mut converted: Converted,
        credentials: &[RegistryAuth],
        run: &Run,
    ) -> Result<(), BackendError> {
        let begun = Instant::now();
        let site = self.site(&wanted.tenant)?;
        let way = way(live, &converted, wanted);
        let is_sent = matches!(way, Way::Create | Way::Update { .. } | Way::Replace { .. });
        let key = self.make_shares(site, &converted, is_sent, run).await?;
        let with = With { credentials, key: key.as_ref() };
        // What was asked for before is asked for again after a failure.
        let anew = With { key: None, ..with };
        let has_other_tags = live.is_none_or(|live| live.tags != converted.group.tags);
        let mut seen = None;
        match &way {
            Way::Keep => {}
            Way::Tags => set_tags(site, &converted, run.deadline).await?,
            Way::Start => {
                run.progress.report("starting the group");
                match self.start_group(site, &converted.name, run).await {
                    Ok(_) if has_other_tags => set_tags(site, &converted, run.deadline).await?,
                    Ok(_) => {}
                    // The key that it was sent with is worth nothing any more, or it does not get out of what it does.
                    Err(error) if is_of_mount(&error) || matches!(error, ArmError::Transitioning(_)) => {
                        tracing::info!(tenant = %wanted.tenant.subdomain, %error, "the group is made anew to be started");
                        run.progress.report("deleting the group: it cannot be started");
                        self.delete_group(site, &converted.name, run.deadline).await?;
                        let sent = self.send(site, wanted, converted, anew, run).await?;
                        (converted, seen) = (sent.converted, sent.seen);
                    }
                    Err(error) => return Err(self.not_brought(site, wanted, &converted, error, run.deadline).await),
                }
            }
            Way::Restart { .. } => {
                run.progress.report("restarting the group");
                let group = self.restart_group(site, &wanted.tenant, run.deadline).await?;
                if group.is_some_and(|group| states::provisioned(&group) == Provisioned::Failed) {
                    let sent = self.send(site, wanted, converted, anew, run).await?;
                    (converted, seen) = (sent.converted, sent.seen);
                } else if has_other_tags {
                    set_tags(site, &converted, run.deadline).await?;
                }
            }
            Way::Create | Way::Update { .. } | Way::Replace { .. } => {
                if matches!(way, Way::Replace { .. }) {
                    run.progress.report("deleting the group");
                    self.delete_group(site, &converted.name, run.deadline).await?;
                }
                let sent = self.send(site, wanted, converted, with, run).await?;
                (converted, seen) = (sent.converted, sent.seen);
            }
        }
        if wanted.desired == DesiredState::Stopped {
            return match way {
                Way::Keep | Way::Tags | Way::Start => Ok(()),
                _ => self.stop(&wanted.tenant, run.deadline).await,
            };
        }
        self.until_up(site, wanted, &converted, seen, begun, run).await
    }

    /// Makes the shares; meanwhile asks for the key that the group will be sent with.
    async fn make_shares(
        &self,
        site: Site<'_>,
        converted: &Converted,
        is_sent: bool,
        run: &Run,
    ) -> Result<Option<Secret>, BackendError> {
        if converted.shares.is_empty() {
            return Ok(None);
        }
        let making = try_join_all(converted.shares.iter().map(|share| {
            run.progress.report(format!("making share {}", share.name));
            site.put_share(share, run.deadline)
        }));
        let key = async { if is_sent { site.key(run.deadline).await } else { Ok(None) } };
        let (made, key) = tokio::join!(making, key);
        made.map_err(|error| site.fault(error, "making a share"))?;
        key.map_err(|error| site.fault(error, "asking for the key of the storage account"))
    }

    /// Waits until every container is as it should be. `seen` is the group as it was seen just now, if it was.
    async fn until_up(
        &self,
        site: Site<'_>,
        wanted: &Deployment,
        converted: &Converted,
        mut seen: Option<ContainerGroup>,
        begun: Instant,
        run: &Run,
    ) -> Result<(), BackendError> {
        let looks = Looks::begin(site.arm, run.deadline);
        let (mut told, mut probation) = (0, None::<(Instant, Duration)>);
        loop {
            let group = if let Some(group) = seen.take() {
                group
            } else {
                let found = self.group(&wanted.tenant, run.deadline).await?;
                found.ok_or_else(|| BackendError::Refused { message: "the group has gone".to_owned() })?
            };
            told = tell(&group, told, &run.progress);
            let containers = observed(&group);
            for container in containers.iter().filter(|container| !is_up(wanted, converted, container)) {
                run.progress.waiting(container);
            }
            if let Some(failure) = self.failure(site, wanted, converted, &group, run.deadline).await {
                return Err(failure);
            }
            if states::provisioned(&group) == Provisioned::Failed {
                let last = states::events(&group).last().map(|told| told.event.clone());
                let (name, why) = last.map_or_else(Default::default, |event| (event.name, event.message));
                return Err(site.fault(ArmError::of_event(&name, &why), COMING_UP));
            }
            let is_up = states::provisioned(&group) == Provisioned::Done && all_up(wanted, converted, &containers);
            let pause = match probation {
                Some((since, least)) if is_up => match least.checked_sub(since.elapsed()) {
                    None | Some(Duration::ZERO) => return Ok(()),
                    Some(left) => left,
                },
                None if is_up => {
                    let least = begun.elapsed().mul_f64(PROBATION_PART).clamp(PROBATION.0, PROBATION.1);
                    probation = Some((Instant::now(), least));
                    least
                }
                _ => {
                    probation = None;
                    looks.pause()
                }
            };
            looks.rest_for(pause, COMING_UP).await?;
        }
    }

    /// The container that has failed, if one has.
    pub(super) async fn failure(
        &self,
        site: Site<'_>,
        wanted: &Deployment,
        converted: &Converted,
        group: &ContainerGroup,
        deadline: Instant,
    ) -> Option<BackendError> {
        let project = wanted.project.project();
        for container in observed(group) {
            let status = &container.status;
            let may_end = is_one_shot(project, &container.service) || converted.init.contains_key(&container.service);
            let ended = matches!(status.state.as_str(), "exited" | "restarting");
            let service = container.service.clone();
            if ended && !(may_end && status.exit_code == Some(0)) && is_over(project, &container, may_end) {
                let code = status.exit_code.unwrap_or(-1);
                let logs = last_words(site, &converted.name, status.name.as_str(), deadline).await;
                if let Some(output) = states::ended_by_probe(group, status.name.as_str()) {
                    let details = FailureDetails { exit_code: None, health_output: Some(output), logs };
                    return Some(BackendError::ServiceUnhealthy { service, details: Box::new(details) });
                }
                let details = Box::new(FailureDetails { exit_code: Some(code), health_output: None, logs });
                return Some(BackendError::ServiceExited {
                    service,
                    what: format!("exited with code {code}"),
                    details,
                });
            }
            if status.health == Health::Unhealthy {
                let logs = last_words(site, &converted.name, status.name.as_str(), deadline).await;
                let details = FailureDetails { exit_code: None, health_output: status.health_output.clone(), logs };
                return Some(BackendError::ServiceUnhealthy { service, details: Box::new(details) });
            }
        }
        None
    }
}

/// Says which generation a group is of.
pub(super) async fn set_tags(site: Site<'_>, converted: &Converted, deadline: Instant) -> Result<(), BackendError> {
    let set = site.set_tags(&converted.name, &converted.group, deadline).await;
    set.map_err(|error| site.fault(error, "setting tags"))
}

/// Whether a container that has ended is not going to be started again by the group's own policy.
fn is_over(project: &crate::compose::Project, container: &ObservedContainer, may_end: bool) -> bool {
    use crate::compose::RestartPolicy;
    let policy = project.services.get(&container.service).map(|service| service.restart_policy());
    // A service that must stay up has failed with its first end, as it would elsewhere.
    !may_end || container.status.state == "exited" || policy == Some(RestartPolicy::No)
}

fn all_up(wanted: &Deployment, converted: &Converted, containers: &[ObservedContainer]) -> bool {
    let mut services = converted.containers.keys().chain(converted.init.keys());
    services.all(|service| {
        let container = containers.iter().find(|container| container.service == *service);
        container.is_some_and(|container| is_up(wanted, converted, container))
    })
}

fn is_up(wanted: &Deployment, converted: &Converted, container: &ObservedContainer) -> bool {
    let ObservedContainer { service, status, .. } = container;
    let is_init = converted.init.contains_key(service);
    match status.state.as_str() {
        "running" => !is_init && matches!(status.health, Health::None | Health::Healthy),
        "exited" => (is_init || is_one_shot(wanted.project.project(), service)) && status.exit_code == Some(0),
        _ => false,
    }
}

/// At most 20 of the last lines and at most 4 KiB.
async fn last_words(site: Site<'_>, group: &str, container: &str, deadline: Instant) -> Vec<String> {
    let Ok(Some(text)) = site.log(group, container, Some(20), deadline).await else { return Vec::new() };
    let mut left = 4096_usize;
    let mut words: Vec<String> = Vec::new();
    for line in text.lines().rev() {
        let line = super::logs::without_time(line);
        let Some(rest) = left.checked_sub(line.len()) else { break };
        left = rest;
        words.push(line.to_owned());
    }
    words.reverse();
    words
}

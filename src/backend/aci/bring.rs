//! Bringing a group up, and putting the committed one back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::acts::is_changing;
use super::arm::{Accepted, ArmError};
use super::convert::Converted;
use super::models::{ContainerGroup, RegistryCredential, ShareResource};
use super::plan::{Way, is_stopped, way};
use super::site::{self, Site};
use super::states::{self, Provisioned};
use super::{Core, PUT_BACK, names, observed};
use crate::backend::converge::is_one_shot;
use crate::backend::{BackendError, Deployment, FailureDetails, ObservedContainer, Progress, Run, TenantRef, UndoNote};
use crate::domain::{DesiredState, Health, RegistryAuth, ServiceName};

/// The shortest and the longest wait between two looks at a group that is on its way.
const LOOK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// A look is late by at most this part of the time that has passed.
const LATE: f64 = 0.04;
/// How long the containers of a group are looked at after the first look that finds all of them up.
const PROBATION: Duration = Duration::from_millis(200);

/// Credentials that the group has been sent with before, for a registry that an image is in, are needed again: Azure keeps
/// none for the next request.
pub(super) fn still_allowed(
    wanted: &Deployment,
    live: Option<&ContainerGroup>,
    converted: &Converted,
) -> Result<(), BackendError> {
    let given = |credential: &&RegistryCredential| {
        let sent = &converted.group.properties.image_registry_credentials;
        sent.iter().any(|sent| sent.server.eq_ignore_ascii_case(&credential.server))
    };
    let before = live.map(|live| live.properties.image_registry_credentials.iter());
    for missing in before.into_iter().flatten().filter(|credential| !given(credential)) {
        let services = &wanted.project.project().services;
        let uses = services.iter().find(|(_, service)| is_server_of(&missing.server, service.image.registry()));
        if let Some((service, _)) = uses {
            return Err(BackendError::RegistryAuthRequired { service: service.clone() });
        }
    }
    Ok(())
}

fn is_server_of(server: &str, registry: &str) -> bool {
    server.eq_ignore_ascii_case(registry) || (registry == "docker.io" && server == "index.docker.io")
}

impl Core {
    /// What an operation brings, and where it has nothing for a registry, what the group was last sent with.
    pub(super) fn credentials_for(&self, wanted: &Deployment, run: &Run) -> Vec<RegistryAuth> {
        let mut all: Vec<RegistryAuth> = run.credentials.to_vec();
        if let Some(last) = self.credentials.get(&wanted.tenant.subdomain) {
            all.extend(
                last.iter().filter(|one| run.credentials.iter().all(|given| given.registry != one.registry)).cloned(),
            );
        }
        all
    }

    /// Whether the region has room for one more group of this size, as far as it tells.
    pub(super) async fn has_room(
        &self,
        tenant: &TenantRef,
        converted: &Converted,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let site = self.site(tenant)?;
        let (cpus, memory) = super::prices::requested(&converted.group);
        let region = &site.region.location;
        let full = |message: String| Err(BackendError::NoCapacity { region: region.clone(), message });
        let usages = site.usages(deadline).await.map_err(|error| site.fault(error, "reading the usages"))?;
        for usage in &usages {
            let (Some(current), Some(limit)) = (usage.current_value, usage.limit) else { continue };
            #[allow(clippy::cast_possible_truncation, reason = "some cores")]
            let asked = match usage.name.value.as_str() {
                "ContainerGroups" => 1,
                "StandardCores" => cpus.ceil() as i64,
                _ => continue,
            };
            if current.saturating_add(asked) > limit {
                let what = &usage.name.value;
                return full(format!("{asked} {what} are needed, {current} of {limit} are used"));
            }
        }
        let able = site.capabilities(deadline).await;
        let able = able.map_err(|error| site.fault(error, "reading the capabilities"))?;
        let linux = able.iter().filter(|one| {
            let is_linux = one.os_type.as_deref().is_none_or(|os| os.eq_ignore_ascii_case("linux"));
            is_linux && one.gpu.as_deref().is_none_or(|gpu| gpu.eq_ignore_ascii_case("none"))
        });
        let most = linux.fold(None, |most: Option<(f64, f64)>, one| {
            let (cpu, memory) = (one.capabilities.max_cpu?, one.capabilities.max_memory_in_gb?);
            Some(most.map_or((cpu, memory), |(c, m)| (c.max(cpu), m.max(memory))))
        });
        match most {
            Some((most_cpus, most_memory)) if cpus > most_cpus || memory > most_memory => full(format!(
                "the group needs {cpus} CPUs and {memory} GB, a group may have {most_cpus} and {most_memory} there"
            )),
            _ => Ok(()),
        }
    }

    pub(super) async fn apply(&self, wanted: &Deployment, run: &Run) -> Result<(), BackendError> {
        let live = self.group(&wanted.tenant, run.deadline).await?;
        let credentials = self.credentials_for(wanted, run);
        let converted = self.convert(wanted, live.as_ref(), &credentials)?;
        still_allowed(wanted, live.as_ref(), &converted)?;
        let bringing = self.bring(wanted, live.as_ref(), converted, &credentials, run);
        tokio::select! {
            brought = bringing => brought,
            () = run.cancel.cancelled() => Err(BackendError::Cancelled),
        }
    }

    async fn bring(
        &self,
        wanted: &Deployment,
        live: Option<&ContainerGroup>,
        mut converted: Converted,
        credentials: &[RegistryAuth],
        run: &Run,
    ) -> Result<(), BackendError> {
        let site = self.site(&wanted.tenant)?;
        let way = way(live, &converted, wanted);
        for share in &converted.shares {
            run.progress.report(format!("making share {}", share.name));
            let made = site.put_share(share, run.deadline).await;
            made.map_err(|error| site.fault(error, "making a share"))?;
        }
        match &way {
            Way::Keep => {}
            Way::Tags => {
                set_tags(site, &converted, run.deadline).await?;
            }
            Way::Start => {
                run.progress.report("starting the group");
                match self.start_group(site, &converted.name, run).await {
                    Ok(()) => {
                        set_tags(site, &converted, run.deadline).await?;
                    }
                    // The key that it was sent with is worth nothing any more.
                    Err(error) if is_of_mount(&error) => {
                        self.free(site, &converted.name, run.deadline).await?;
                        converted = self.send(site, wanted, converted, credentials, run).await?;
                    }
                    Err(error) => return Err(self.not_brought(site, wanted, &converted, error, run.deadline).await),
                }
            }
            Way::Restart { .. } => {
                run.progress.report("restarting the group");
                self.restart_group(site, &wanted.tenant, run.deadline).await?;
                let group = self.group(&wanted.tenant, run.deadline).await?;
                if group.is_some_and(|group| states::provisioned(&group) == Provisioned::Failed) {
                    converted = self.send(site, wanted, converted, credentials, run).await?;
                } else {
                    set_tags(site, &converted, run.deadline).await?;
                }
            }
            Way::Create | Way::Update { .. } => {
                converted = self.send(site, wanted, converted, credentials, run).await?;
            }
            Way::Replace { .. } => {
                run.progress.report("deleting the group");
                self.delete_group(site, &converted.name, run.deadline).await?;
                converted = self.send(site, wanted, converted, credentials, run).await?;
            }
        }
        if wanted.desired == DesiredState::Stopped {
            return match way {
                Way::Keep | Way::Tags | Way::Start => Ok(()),
                _ => self.stop(&wanted.tenant, run.deadline).await,
            };
        }
        self.until_up(site, wanted, &converted, run).await
    }

    /// `POST start`, until the group is on its way no more.
    async fn start_group(&self, site: Site<'_>, name: &str, run: &Run) -> Result<(), ArmError> {
        let since = jiff::Timestamp::now();
        let accepted = site.act(name, "start", run.deadline).await?;
        self.follow(site, name, accepted, since, run.deadline, &run.progress).await
    }

    /// Makes way for another PUT: Azure refuses one while a group is on its way, and one that mounts in vain stays there.
    async fn free(&self, site: Site<'_>, name: &str, deadline: Instant) -> Result<(), BackendError> {
        let found = site.group(name, deadline).await.map_err(|error| site.fault(error, "reading a container group"))?;
        match found {
            Some(group) if is_changing(&group) => self.delete_group(site, name, deadline).await,
            _ => Ok(()),
        }
    }

    /// Sends the group and follows what that begins. With another DNS label if somebody has this one; once more if it cannot
    /// be changed in place after all, and once more with the account's key of then if its shares cannot be mounted, because
    /// somebody may have made new keys meanwhile. Gives back what was sent.
    async fn send(
        &self,
        site: Site<'_>,
        wanted: &Deployment,
        mut converted: Converted,
        credentials: &[RegistryAuth],
        run: &Run,
    ) -> Result<Converted, BackendError> {
        self.credentials.insert(wanted.tenant.subdomain.clone(), Arc::new(credentials.to_vec()));
        let (mut relabelled, mut replaced, mut remounted) = (false, false, false);
        loop {
            run.progress.report("sending the group");
            let since = jiff::Timestamp::now();
            let sent = self.send_once(site, &converted, run, since).await;
            match sent {
                Ok(()) => return Ok(converted),
                Err(ArmError::DnsLabelTaken(_)) if !relabelled => {
                    relabelled = true;
                    let other = self.other_label(&wanted.tenant);
                    tracing::info!(tenant = %wanted.tenant.subdomain, label = %other, "the DNS label is taken");
                    converted = self.convert_with(wanted, Some(&other), credentials)?;
                }
                Err(ArmError::InvalidUpdate(_)) if !replaced => {
                    replaced = true;
                    run.progress.report("deleting the group: it cannot be changed in place");
                    self.delete_group(site, &converted.name, run.deadline).await?;
                }
                Err(error) if !remounted && !converted.shares.is_empty() && is_of_mount(&error) => {
                    remounted = true;
                    tracing::info!(tenant = %wanted.tenant.subdomain, %error, "a share cannot be mounted; the key is asked for again");
                    self.free(site, &converted.name, run.deadline).await?;
                }
                Err(error) => return Err(self.not_brought(site, wanted, &converted, error, run.deadline).await),
            }
        }
    }

    async fn send_once(
        &self,
        site: Site<'_>,
        converted: &Converted,
        run: &Run,
        since: jiff::Timestamp,
    ) -> Result<(), ArmError> {
        let group = if converted.shares.is_empty() {
            converted.group.clone()
        } else {
            let key = site.key(run.deadline).await?;
            key.as_ref().map_or_else(|| converted.group.clone(), |key| converted.with_storage_key(key))
        };
        let accepted = site.put_group(&converted.name, &group, run.deadline).await?;
        self.follow(site, &converted.name, accepted, since, run.deadline, &run.progress).await
    }

    /// Waits for what a call has begun. The group's own events are the progress, and some of them end it early.
    async fn follow<T>(
        &self,
        site: Site<'_>,
        name: &str,
        accepted: Accepted<T>,
        since: jiff::Timestamp,
        deadline: Instant,
        progress: &Progress,
    ) -> Result<(), ArmError> {
        let Some(pending) = accepted.pending else { return Ok(()) };
        let mut ignore = |_: &serde_json::Value| Ok(());
        let ended = site.arm.wait(&pending, deadline, &mut ignore);
        tokio::pin!(ended);
        let begun = Instant::now();
        let mut told = 0;
        loop {
            let next = Instant::now() + pause(begun);
            tokio::select! {
                ended = &mut ended => return ended,
                () = sleep_until(next) => {
                    // The operation alone decides; this only tells more, and sooner.
                    let Ok(Some(group)) = site.group(name, deadline).await else { continue };
                    told = tell(&group, told, progress);
                    if let Some(fatal) = states::fatal(&group, Some(since)) {
                        return Err(ArmError::of_event(&fatal.event.name, &fatal.event.message));
                    }
                }
            }
        }
    }

    /// Why a group was not brought up, in the words of the service that it is about.
    async fn not_brought(
        &self,
        site: Site<'_>,
        wanted: &Deployment,
        converted: &Converted,
        error: ArmError,
        deadline: Instant,
    ) -> BackendError {
        let message = error.to_string();
        let services = &wanted.project.project().services;
        let named = services.iter().find(|(_, service)| message.contains(service.image.as_str()));
        match &error {
            ArmError::InaccessibleImage(_) => {
                let Some((service, image)) = named.or_else(|| services.iter().next()) else {
                    return site.fault(error, "pulling images");
                };
                let registry = image.image.registry();
                let sent = &converted.group.properties.image_registry_credentials;
                if sent.iter().any(|sent| is_server_of(&sent.server, registry)) {
                    return BackendError::RegistryDenied { service: service.clone(), image: image.image.to_string() };
                }
                let hint = "; if it is private, send registry_auth for its registry";
                BackendError::ImageNotFound { service: service.clone(), image: image.image.to_string(), hint }
            }
            ArmError::RegistryError(_) => match named.or_else(|| services.iter().next()) {
                Some((service, image)) => {
                    BackendError::RegistryUnavailable { service: service.clone(), image: image.image.to_string() }
                }
                None => site.fault(error, "pulling images"),
            },
            ArmError::OperationFailed(_) => {
                // What failed may be a container that says more.
                let group = self.group(&wanted.tenant, deadline).await.ok().flatten();
                let failed = match &group {
                    Some(group) => self.failure(site, wanted, converted, group, deadline).await,
                    None => None,
                };
                failed.unwrap_or_else(|| site.fault(error, "bringing up the group"))
            }
            _ => site.fault(error, "bringing up the group"),
        }
    }

    /// Waits until every container is as it should be.
    async fn until_up(
        &self,
        site: Site<'_>,
        wanted: &Deployment,
        converted: &Converted,
        run: &Run,
    ) -> Result<(), BackendError> {
        let (begun, mut told, mut up_since) = (Instant::now(), 0, None::<Instant>);
        loop {
            let group = self.group(&wanted.tenant, run.deadline).await?;
            let group = group.ok_or_else(|| BackendError::Refused { message: "the group has gone".to_owned() })?;
            told = tell(&group, told, &run.progress);
            if let Some(failure) = self.failure(site, wanted, converted, &group, run.deadline).await {
                return Err(failure);
            }
            if states::provisioned(&group) == Provisioned::Failed {
                let last = states::events(&group).last().map(|told| told.event.clone());
                let (name, why) = last.map_or_else(Default::default, |event| (event.name, event.message));
                return Err(site.fault(ArmError::of_event(&name, &why), "waiting for the containers of the group"));
            }
            let is_up =
                states::provisioned(&group) == Provisioned::Done && all_up(wanted, converted, &observed(&group));
            match up_since {
                Some(since) if is_up && since.elapsed() >= PROBATION => return Ok(()),
                Some(_) if is_up => {}
                _ => up_since = is_up.then(Instant::now),
            }
            let next = Instant::now() + up_since.map_or_else(|| pause(begun), |_| PROBATION);
            if next > run.deadline {
                let step = "waiting for the containers of the group".to_owned();
                return Err(BackendError::DeadlineExceeded { step, details: None });
            }
            sleep_until(next).await;
        }
    }

    /// The container that has failed, if one has.
    async fn failure(
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

    /// The backend holds the committed generation afterwards: as it was, or sent again.
    pub(super) async fn settle(
        &self,
        tenant: &TenantRef,
        deployment: Option<&Deployment>,
        undo: Option<&UndoNote>,
    ) -> Result<(), BackendError> {
        let deadline = Instant::now() + PUT_BACK;
        let site = self.site(tenant)?;
        let Some(wanted) = deployment else {
            if self.own(tenant, deadline).await?.is_some() {
                self.delete_group(site, &names::group(tenant.project().as_str()), deadline).await?;
            }
            return self.undo_shares(site, tenant, undo, deadline).await;
        };
        let live = self.group(tenant, deadline).await?;
        let run = Run {
            deadline,
            progress: Progress::new(),
            cancel: tokio_util::sync::CancellationToken::new(),
            credentials: Arc::default(),
            pull: false,
            only: None,
            pre_stop: std::collections::BTreeMap::new(),
        };
        let credentials = self.credentials_for(wanted, &run);
        let converted = self.convert(wanted, live.as_ref(), &credentials)?;
        let runs_as_it_should = wanted.desired == DesiredState::Running || live.as_ref().is_some_and(is_stopped);
        match way(live.as_ref(), &converted, wanted) {
            Way::Keep if runs_as_it_should => {}
            Way::Tags if runs_as_it_should => {
                set_tags(site, &converted, deadline).await?;
            }
            // What was stopped by somebody, or has failed by itself, is not what an undo is about.
            Way::Start | Way::Restart { .. } if undo.is_none() => {}
            Way::Keep | Way::Tags => self.stop(tenant, deadline).await?,
            _ => self.bring(wanted, live.as_ref(), converted, &credentials, &run).await?,
        }
        self.undo_shares(site, tenant, undo, deadline).await
    }

    /// Shares that a generation has made which is not committed go again: all but those that were there before it.
    async fn undo_shares(
        &self,
        site: Site<'_>,
        tenant: &TenantRef,
        undo: Option<&UndoNote>,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let Some(undo) = undo else { return Ok(()) };
        let own = self.shares_of(site, tenant, deadline).await?.into_iter().filter_map(|share| share.name);
        let late = own.filter(|name| !undo.volumes.contains(name)).collect();
        self.delete_shares(site, late, deadline).await.map(drop)
    }

    /// A tenant's shares.
    pub(super) async fn shares_of(
        &self,
        site: Site<'_>,
        tenant: &TenantRef,
        deadline: Instant,
    ) -> Result<Vec<ShareResource>, BackendError> {
        let shares = site.shares(deadline).await.map_err(|error| site.fault(error, "listing shares"))?;
        let own = shares.into_iter().filter(|share| {
            site::is_of_agent(share, &self.agent)
                && site::tenant_of(share).is_some_and(|name| name == tenant.subdomain)
                && site::id_of(share).is_some_and(|id| id == tenant.id)
        });
        Ok(own.collect())
    }

    /// Deletes shares, but for those that a group of the region mounts, whosever group it is: these are given back.
    pub(super) async fn delete_shares(
        &self,
        site: Site<'_>,
        names: BTreeSet<String>,
        deadline: Instant,
    ) -> Result<BTreeSet<String>, BackendError> {
        if names.is_empty() {
            return Ok(names);
        }
        let groups = site.groups(deadline).await.map_err(|error| site.fault(error, "listing container groups"))?;
        let volumes = groups.iter().flat_map(|group| &group.properties.volumes);
        let mounted: BTreeSet<&str> =
            volumes.filter_map(|volume| Some(volume.azure_file.as_ref()?.share_name.as_str())).collect();
        let (kept, free): (BTreeSet<_>, BTreeSet<_>) =
            names.into_iter().partition(|name| mounted.contains(name.as_str()));
        for name in free {
            let deleted = site.delete_share(&name, deadline).await;
            deleted.map_err(|error| site.fault(error, "deleting a share"))?;
        }
        Ok(kept)
    }
}

/// Says which generation a group is of.
async fn set_tags(site: Site<'_>, converted: &Converted, deadline: Instant) -> Result<(), BackendError> {
    let set = site.set_tags(&converted.name, &converted.group, deadline).await;
    set.map_err(|error| site.fault(error, "setting tags"))
}

/// Whether a share could not be mounted.
fn is_of_mount(error: &ArmError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.codes().any(|code| code == "FailedMount"))
}

/// The wait before the next look at something that began then.
fn pause(begun: Instant) -> Duration {
    begun.elapsed().mul_f64(LATE).clamp(LOOK.0, LOOK.1)
}

/// Tells the events that are new; gives how many there are.
fn tell(group: &ContainerGroup, told: usize, progress: &Progress) -> usize {
    let events = states::events(group);
    for event in events.iter().skip(told) {
        let (name, message) = (&event.event.name, &event.event.message);
        let about = event.container.map_or_else(String::new, |container| format!("{container}: "));
        let message: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
        progress.report(format!("{about}{name} {message}").trim_end().to_owned());
    }
    events.len()
}

/// Whether a container that has ended is not going to be started again by the group's own policy.
fn is_over(project: &crate::compose::Project, container: &ObservedContainer, may_end: bool) -> bool {
    use crate::compose::RestartPolicy;
    let policy = project.services.get(&container.service).map(crate::compose::Service::restart_policy);
    // A service that must stay up has failed with its first end, as it would elsewhere.
    !may_end || container.status.state == "exited" || policy == Some(RestartPolicy::No)
}

fn all_up(wanted: &Deployment, converted: &Converted, containers: &[ObservedContainer]) -> bool {
    let project = wanted.project.project();
    let is_up = |service: &ServiceName| {
        let Some(container) = containers.iter().find(|container| container.service == *service) else { return false };
        let status = &container.status;
        let may_end = is_one_shot(project, service) || converted.init.contains_key(service);
        match status.state.as_str() {
            "running" => {
                !converted.init.contains_key(service) && matches!(status.health, Health::None | Health::Healthy)
            }
            "exited" => may_end && status.exit_code == Some(0),
            _ => false,
        }
    };
    converted.containers.keys().chain(converted.init.keys()).all(is_up)
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

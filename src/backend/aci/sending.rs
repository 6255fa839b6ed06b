//! Sending a group, and following what that begins to its end.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::Core;
use super::access::is_server_of;
use super::acts::is_changing;
use super::arm::{Accepted, ArmError, Refusal};
use super::convert::Converted;
use super::looks::Looks;
use super::models::{ContainerGroup, Provisioning, Secret};
use super::site::Site;
use super::states;
use crate::backend::{BackendError, Deployment, Progress, Run};
use crate::domain::RegistryAuth;

/// What was sent, and the group as it was seen at the end, if it was.
pub(super) struct Sent {
    pub(super) converted: Converted,
    pub(super) seen: Option<ContainerGroup>,
}

/// What it is sent with beside itself.
#[derive(Clone, Copy)]
pub(super) struct With<'a> {
    pub(super) credentials: &'a [RegistryAuth],
    /// The account's key, if it has been asked for already.
    pub(super) key: Option<&'a Secret>,
}

impl Core {
    /// `POST start`, until the group is on its way no more.
    pub(super) async fn start_group(
        &self,
        site: Site<'_>,
        name: &str,
        run: &Run,
    ) -> Result<Option<ContainerGroup>, ArmError> {
        let since = jiff::Timestamp::now();
        // One that does not get out of another change is made anew, and for that there must be time.
        let half = Instant::now() + run.deadline.saturating_duration_since(Instant::now()) / 2;
        let accepted = match site.act(name, "start", half).await {
            Err(ArmError::Throttled(_) | ArmError::Unavailable { .. } | ArmError::Deadline { .. }) => {
                site.act(name, "start", run.deadline).await?
            }
            accepted => accepted?,
        };
        self.follow(site, name, accepted, since, run).await
    }

    /// Makes way for another PUT: Azure refuses one while a group is on its way, and one that mounts in vain stays there.
    pub(super) async fn free(&self, site: Site<'_>, name: &str, deadline: Instant) -> Result<(), BackendError> {
        let found = site.group(name, deadline).await.map_err(|error| site.fault(error, "reading a container group"))?;
        match found {
            Some(group) if is_changing(&group) => self.delete_group(site, name, deadline).await,
            _ => Ok(()),
        }
    }

    /// Sends the group and follows what that begins. With another DNS label if somebody has this one; once more if it cannot
    /// be changed in place after all, and once more with the account's key of then if its shares cannot be mounted, because
    /// somebody may have made new keys meanwhile.
    pub(super) async fn send(
        &self,
        site: Site<'_>,
        wanted: &Deployment,
        mut converted: Converted,
        mut with: With<'_>,
        run: &Run,
    ) -> Result<Sent, BackendError> {
        self.credentials.insert(wanted.tenant.subdomain.clone(), Arc::new(with.credentials.to_vec()));
        let (mut relabelled, mut replaced, mut remounted) = (false, false, false);
        loop {
            run.progress.report("sending the group");
            let since = jiff::Timestamp::now();
            let sent = self.send_once(site, &converted, with.key.take(), run, since).await;
            match sent {
                Ok(seen) => return Ok(Sent { converted, seen }),
                Err(ArmError::DnsLabelTaken(_)) if !relabelled => {
                    relabelled = true;
                    let other = self.other_label(&wanted.tenant);
                    tracing::info!(tenant = %wanted.tenant.subdomain, label = %other, "the DNS label is taken");
                    converted = self.convert_with(wanted, Some(&other), with.credentials)?;
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
        key: Option<&Secret>,
        run: &Run,
        since: jiff::Timestamp,
    ) -> Result<Option<ContainerGroup>, ArmError> {
        let group = if converted.shares.is_empty() {
            converted.group.clone()
        } else {
            let asked = match key {
                Some(key) => Some(key.clone()),
                None => site.key(run.deadline).await?,
            };
            asked.as_ref().map_or_else(|| converted.group.clone(), |key| converted.with_storage_key(key))
        };
        let accepted = site.put_group(&converted.name, &group, run.deadline).await?;
        self.follow(site, &converted.name, accepted, since, run).await
    }

    /// Waits for what a call has begun. The group's own events are the progress, and some of them end it early. One that was
    /// not there before tells by itself when it is made, which may be sooner than its operation may be asked; that look is
    /// given back.
    async fn follow<T>(
        &self,
        site: Site<'_>,
        name: &str,
        accepted: Accepted<T>,
        since: jiff::Timestamp,
        run: &Run,
    ) -> Result<Option<ContainerGroup>, ArmError> {
        let is_new = !accepted.existed;
        let Some(pending) = accepted.pending else { return Ok(None) };
        let mut ignore = |_: &serde_json::Value| Ok(());
        let ended = site.arm.wait(&pending, run.deadline, &mut ignore);
        tokio::pin!(ended);
        let looks = Looks::begin(site.arm, run.deadline);
        let mut told = 0;
        loop {
            let look = async {
                sleep(looks.pause()).await;
                site.group(name, run.deadline).await
            };
            let looked = tokio::select! {
                ended = &mut ended => {
                    return match ended {
                        Ok(()) => Ok(None),
                        Err(error) => Err(self.by_events(site, name, error, since, run.deadline).await),
                    };
                }
                looked = look => looked,
            };
            // Beside the operation this only tells more, and sooner.
            let Ok(Some(group)) = looked else { continue };
            told = tell(&group, told, &run.progress);
            if let Some(fatal) = states::fatal(&group, Some(since)) {
                return Err(ArmError::of_event(&fatal.event.name, &fatal.event.message));
            }
            if is_new && group.properties.provisioning_state == Some(Provisioning::Succeeded) {
                return Ok(Some(group));
            }
        }
    }

    /// An operation that has failed without saying why: the group's events may.
    async fn by_events(
        &self,
        site: Site<'_>,
        name: &str,
        error: ArmError,
        since: jiff::Timestamp,
        deadline: Instant,
    ) -> ArmError {
        if !error.refusal().is_some_and(Refusal::is_bare) {
            return error;
        }
        let Ok(Some(group)) = site.group(name, deadline).await else { return error };
        match states::last_warning(&group, since) {
            Some(told) => ArmError::of_event(&told.event.name, &told.event.message),
            None => error,
        }
    }

    /// Why a group was not brought up, in the words of the service that it is about.
    pub(super) async fn not_brought(
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
}

/// Whether a share could not be mounted.
pub(super) fn is_of_mount(error: &ArmError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.codes().any(|code| code == "FailedMount"))
}

/// Tells the events that are new; gives how many there are.
pub(super) fn tell(group: &ContainerGroup, told: usize, progress: &Progress) -> usize {
    let events = states::events(group);
    for event in events.iter().skip(told) {
        let (name, message) = (&event.event.name, &event.event.message);
        let about = event.container.map_or_else(String::new, |container| format!("{container}: "));
        let message: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
        progress.report(format!("{about}{name} {message}").trim_end().to_owned());
    }
    events.len()
}

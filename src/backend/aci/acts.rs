//! Stop, start, restart and removal of a group.
//!
//! Azure answers at once and the group goes on changing: a call on a group that is still on its way is refused with
//! `ContainerGroupTransitioning`, which the client waits out. Here what was begun is waited for.

use tokio::time::Instant;

use super::Core;
use super::looks::Looks;
use super::models::{ContainerGroup, GroupState, Provisioning, ShareResource};
use super::names;
use super::plan::is_stopped;
use super::site::{self, Site};
use super::states;
use crate::backend::{BackendError, Deployment, Owned, OwnedKind, Removed, Run, TenantRef};

impl Core {
    pub(super) async fn stop(&self, tenant: &TenantRef, deadline: Instant) -> Result<(), BackendError> {
        let site = self.site(tenant)?;
        let name = names::group(tenant.project().as_str());
        match self.own(tenant, deadline).await? {
            None => return Ok(()),
            Some(group) if is_stopped(&group) => return Ok(()),
            Some(_) => {}
        }
        let stopped = site.act(&name, "stop", deadline).await;
        stopped.map_err(|error| site.fault(error, "stopping the group"))?;
        self.until(tenant, deadline, "waiting for the group to stop", |group| {
            group.is_none_or(|group| has_ended(group) && !is_changing(group))
        })
        .await
        .map(drop)
    }

    pub(super) async fn start(&self, deployment: &Deployment, run: &Run) -> Result<(), BackendError> {
        // One that was removed by hand is made anew; so is what was changed meanwhile.
        let deployment = Deployment { desired: crate::domain::DesiredState::Running, ..deployment.clone() };
        Box::pin(self.apply(&deployment, run)).await
    }

    pub(super) async fn restart(&self, deployment: &Deployment, run: &Run) -> Result<(), BackendError> {
        let site = self.site(&deployment.tenant)?;
        match self.group(&deployment.tenant, run.deadline).await? {
            Some(group) if !is_stopped(&group) => {}
            _ => return Box::pin(self.start(deployment, run)).await,
        }
        self.restart_group(site, &deployment.tenant, run.deadline).await?;
        Box::pin(self.start(deployment, run)).await
    }

    /// `POST restart`, until the group is on its way no more. Gives it back as it is then.
    pub(super) async fn restart_group(
        &self,
        site: Site<'_>,
        tenant: &TenantRef,
        deadline: Instant,
    ) -> Result<Option<ContainerGroup>, BackendError> {
        let name = names::group(tenant.project().as_str());
        let restarted = site.act(&name, "restart", deadline).await;
        let restarted = restarted.map_err(|error| site.fault(error, "restarting the group"))?;
        if let Some(pending) = restarted.pending {
            let ended = site.arm.wait(&pending, deadline, &mut |_| Ok(())).await;
            ended.map_err(|error| site.fault(error, "restarting the group"))?;
        }
        self.until(tenant, deadline, "waiting for the group to restart", |group| {
            group.is_some_and(|group| !is_changing(group))
        })
        .await
    }

    pub(super) async fn remove(
        &self,
        tenant: &TenantRef,
        purge: bool,
        deadline: Instant,
    ) -> Result<Removed, BackendError> {
        let site = self.site(tenant)?;
        let live = self.own(tenant, deadline).await?;
        if live.is_some() {
            self.delete_group(site, &names::group(tenant.project().as_str()), deadline).await?;
        }
        let mut removed = Removed { objects: usize::from(live.is_some()), volumes_kept: Vec::new() };
        let shares = self.shares_of(site, tenant, deadline).await?;
        let names = shares.iter().filter_map(|share| share.name.clone()).collect();
        let kept = if purge { self.delete_shares(site, names, deadline).await? } else { names };
        let stays = |share: &&ShareResource| share.name.as_ref().is_some_and(|name| kept.contains(name));
        removed.volumes_kept.extend(shares.iter().filter(stays).filter_map(site::volume_of));
        self.credentials.remove(&tenant.subdomain);
        Ok(removed)
    }

    /// Deletes a group and waits until it is gone: only then does it cost nothing, and its shares are free.
    pub(super) async fn delete_group(&self, site: Site<'_>, name: &str, deadline: Instant) -> Result<(), BackendError> {
        let deleted = site.delete_group(name, deadline).await;
        let deleted = deleted.map_err(|error| site.fault(error, "deleting the group"))?;
        if let Some(pending) = deleted.pending {
            let ended = site.arm.wait(&pending, deadline, &mut |_| Ok(())).await;
            ended.map_err(|error| site.fault(error, "deleting the group"))?;
        }
        let looks = Looks::begin(site.arm, deadline);
        loop {
            let found = site.group(name, deadline).await;
            if found.map_err(|error| site.fault(error, "waiting for the group to go"))?.is_none() {
                return Ok(());
            }
            looks.rest("waiting for the group to go").await?;
        }
    }

    /// Looks at a tenant's group until it is so. Gives it back as it is then.
    async fn until(
        &self,
        tenant: &TenantRef,
        deadline: Instant,
        doing: &str,
        is_so: impl Fn(Option<&ContainerGroup>) -> bool + Send + Sync,
    ) -> Result<Option<ContainerGroup>, BackendError> {
        let looks = Looks::begin(&self.arm, deadline);
        loop {
            let group = self.group(tenant, deadline).await?;
            if is_so(group.as_ref()) {
                return Ok(group);
            }
            looks.rest(doing).await?;
        }
    }

    /// Removes what is left over; false when a share is mounted.
    pub(super) async fn discard(&self, object: &Owned) -> Result<bool, BackendError> {
        let deadline = Instant::now() + super::PUT_BACK;
        let Some(site) = self.sites().find(|site| Some(&site.region.location) == object.region.as_ref()) else {
            return Ok(false);
        };
        match object.kind {
            OwnedKind::Container => {
                let found = site.group(&object.name, deadline).await;
                let found = found.map_err(|error| site.fault(error, "reading a container group"))?;
                // It may be somebody else's by now.
                let Some(group) = found.filter(|group| self.is_ours(group)) else { return Ok(false) };
                if states::owner(&group).map(|(tenant, _)| tenant) != object.tenant {
                    return Ok(false);
                }
                self.delete_group(site, &object.name, deadline).await?;
                Ok(true)
            }
            OwnedKind::Volume => {
                let Some((_, name)) = object.id.rsplit_once('/') else { return Ok(false) };
                let found = site.share(name, deadline).await;
                let found = found.map_err(|error| site.fault(error, "reading a share"))?;
                let ours = found.is_some_and(|share| site::is_of_agent(&share, &self.agent));
                Ok(ours && self.delete_shares(site, [name.to_owned()].into(), deadline).await?.is_empty())
            }
            OwnedKind::Network | OwnedKind::Image => Ok(false),
        }
    }
}

fn has_ended(group: &ContainerGroup) -> bool {
    matches!(states::group_state(group), Some(GroupState::Stopped | GroupState::Succeeded | GroupState::Failed) | None)
}

/// Whether the last operation on it goes on.
pub(super) fn is_changing(group: &ContainerGroup) -> bool {
    matches!(
        group.properties.provisioning_state,
        Some(Provisioning::Pending | Provisioning::Creating | Provisioning::Updating | Provisioning::Deleting)
    )
}

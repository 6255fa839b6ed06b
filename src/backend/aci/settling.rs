//! Putting the committed generation back, and the shares of what was not committed.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::bring::set_tags;
use super::models::ShareResource;
use super::plan::{Way, is_stopped, way};
use super::site::{self, Site};
use super::{Core, PUT_BACK, names};
use crate::backend::{BackendError, Deployment, Run, TenantRef, UndoNote};
use crate::domain::DesiredState;

impl Core {
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
        let run = Run::until(deadline);
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
            _ => Box::pin(self.bring(wanted, live.as_ref(), converted, &credentials, &run)).await?,
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

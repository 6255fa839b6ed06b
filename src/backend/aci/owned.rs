//! What bears this agent's tags, whether or not anything on its host still tells of it.

use futures::future::{BoxFuture, try_join_all};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::convert::tags;
use super::models::{ContainerGroup, ShareResource};
use super::site::{self, Site};
use super::{AT_ONCE, Core, names, observed, states};
use crate::backend::{Adoption, BackendError, Deployment, Owned, OwnedKind, Stray, TenantRef};
use crate::domain::{ContainerId, Generation, ProjectName, Subdomain};

/// Something that is asked for, and where it is; none when it is not there.
type Look<'a, T> = BoxFuture<'a, Result<Option<(Site<'a>, T)>, BackendError>>;

/// How much is in a share, if that was asked for.
pub(super) fn bytes(share: &ShareResource) -> Option<u64> {
    share.properties.share_usage_bytes.and_then(|bytes| u64::try_from(bytes).ok())
}

/// Whether a tenant takes a group over: see [`Core::adoptable`].
pub(super) fn is_taken_over(group: &ContainerGroup, tenant: &TenantRef) -> bool {
    let ids: Vec<ContainerId> = container_ids(group).collect();
    is_named_after(group, tenant) && !ids.is_empty() && ids.iter().all(|id| tenant.adopted.containers.contains(id))
}

/// Whether an agent has made a group for this tenant.
fn is_named_after(group: &ContainerGroup, tenant: &TenantRef) -> bool {
    let is_an_agents = group.tags.get(tags::MANAGED_BY).is_some_and(|by| by == tags::MANAGER);
    is_an_agents && states::owner(group).is_some_and(|(name, id)| name == tenant.subdomain && id == tenant.id)
}

fn container_ids(group: &ContainerGroup) -> impl Iterator<Item = ContainerId> {
    let properties = &group.properties;
    let names = properties.containers.iter().map(|one| one.name.as_str());
    let init = properties.init_containers.iter().map(|one| one.name.as_str());
    names.chain(init).filter_map(|name| states::container_id(group, name))
}

impl Core {
    /// The tenant's group where another agent has made it: most likely this one, before its disk was lost with its id. With
    /// the next PUT it is this agent's, and its shares are as well. Before that nothing of it is touched.
    pub(super) async fn adoptable(&self, wanted: &Deployment, deadline: Instant) -> Result<Adoption, BackendError> {
        let tenant = &wanted.tenant;
        let mut adoption = Adoption::default();
        let Some(group) = self.named(tenant, deadline).await?.filter(|group| !self.is_ours(group)) else {
            return Ok(adoption);
        };
        if is_named_after(&group, tenant) {
            adoption.adopted.containers.extend(container_ids(&group));
            adoption.warnings.push(format!(
                "adopt: container group {} of another agent is taken over; what it was made from is not known, so that it \
                 cannot be put back",
                names::group(tenant.project().as_str())
            ));
        }
        Ok(adoption)
    }

    /// Groups and shares of this agent, in all regions. Nothing, if one of them cannot be listed.
    pub(super) async fn owned(&self, deadline: Instant) -> Result<Vec<Owned>, BackendError> {
        let mut all = Vec::new();
        for (site, group) in self.groups(deadline).await? {
            let Some((tenant, _)) = states::owner(&group) else { continue };
            let name = group.name.clone().unwrap_or_default();
            let made = group.system_data.as_ref().and_then(|data| states::time(data.created_at.as_deref()));
            all.push(Owned {
                kind: OwnedKind::Container,
                id: site.group_path(&name),
                name,
                tenant: Some(tenant),
                region: Some(site.region.location.clone()),
                bytes: None,
                since: made,
            });
        }
        for (site, share) in self.own_shares(deadline).await? {
            let (Some(own), Some(tenant)) = (&share.name, site::tenant_of(&share)) else { continue };
            all.push(Owned {
                kind: OwnedKind::Volume,
                id: site.share_path(own),
                name: site::volume_of(&share).map_or_else(|| own.clone(), |name| name.as_str().to_owned()),
                tenant: Some(tenant),
                region: Some(site.region.location.clone()),
                bytes: bytes(&share),
                since: states::time(share.properties.last_modified_time.as_deref()),
            });
        }
        Ok(all)
    }

    /// This agent's shares in all regions, each with how full it is.
    pub(super) async fn own_shares(&self, deadline: Instant) -> Result<Vec<(Site<'_>, ShareResource)>, BackendError> {
        let mut own = Vec::new();
        for site in self.sites() {
            let shares = site.shares(deadline).await.map_err(|error| site.fault(error, "listing shares"))?;
            let mine = shares.into_iter().filter(|share| site::is_of_agent(share, &self.agent));
            own.extend(mine.map(|share| (site, share)));
        }
        let sized = own.into_iter().map(|(site, share)| async move {
            let (None, Some(name)) = (share.properties.share_usage_bytes, &share.name) else {
                return Ok(Some((site, share)));
            };
            let found = site.sized_share(name, deadline).await;
            // It may have gone since it was listed.
            Ok(found.map_err(|error| site.fault(error, "reading a share"))?.map(|share| (site, share)))
        });
        let sized: Vec<Look<'_, ShareResource>> = sized.map(futures::FutureExt::boxed).collect();
        let sized: Vec<Option<(Site<'_>, ShareResource)>> = stream::iter(sized).buffered(AT_ONCE).try_collect().await?;
        Ok(sized.into_iter().flatten().collect())
    }

    /// The groups that have a tenant's name, in these regions, whosever they are.
    pub(super) async fn by_name(
        &self,
        tenant: &Subdomain,
        wanted: impl Fn(&Site<'_>) -> bool + Send,
        deadline: Instant,
    ) -> Result<Vec<(Site<'_>, ContainerGroup)>, BackendError> {
        let name = names::group(ProjectName::of(tenant).as_str());
        let sites: Vec<Site<'_>> = self.sites().filter(wanted).collect();
        let looks = sites.into_iter().map(|site| {
            let name = name.clone();
            async move {
                let found = site.group(&name, deadline).await;
                let found = found.map_err(|error| site.fault(error, "reading a container group"))?;
                Ok::<_, BackendError>(found.filter(|group| site.is_at(group)).map(|group| (site, group)))
            }
            .boxed()
        });
        let looks: Vec<Look<'_, ContainerGroup>> = looks.collect();
        Ok(try_join_all(looks).await?.into_iter().flatten().collect())
    }

    /// A tenant of this agent by its tags alone.
    pub(super) async fn find(&self, tenant: &Subdomain, deadline: Instant) -> Result<Option<Stray>, BackendError> {
        let mut named = self.by_name(tenant, |_| true, deadline).await?.into_iter();
        let found = named.find_map(|(site, group)| {
            let (owner, id) = states::owner(&group).filter(|_| self.is_ours(&group))?;
            let generation = group.tags.get(tags::GENERATION).and_then(|tag| tag.parse().ok()).map(Generation);
            (owner == *tenant).then(|| Stray {
                id,
                region: Some(site.region.location.clone()),
                generation,
                containers: observed(&group),
            })
        });
        Ok(found)
    }
}

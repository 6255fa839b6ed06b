//! One region as the agent works in it: a resource group with the groups, a storage account with the shares.

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::arm::{Accepted, Arm, ArmError};
use super::convert::{Share, tags};
use super::models::{
    AccountKeys, Attached, Capability, ContainerGroup, Logs, Secret, ShareProperties, ShareResource, TagsPatch, Usage,
};
use super::{AT_ONCE, names};
use crate::config::AciRegion;
use crate::domain::{AgentId, ObjectName, Subdomain, TenantId};

/// The most lines that Azure gives of a log.
pub(super) const MOST_LINES: u32 = 10_000;

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) arm: &'a Arm,
    pub(super) subscription: &'a str,
    pub(super) region: &'a AciRegion,
}

impl Site<'_> {
    fn resource_group(&self) -> String {
        format!("/subscriptions/{}/resourceGroups/{}", self.subscription, self.region.resource_group)
    }

    fn groups_path(&self) -> String {
        format!("{}/providers/Microsoft.ContainerInstance/containerGroups", self.resource_group())
    }

    /// The path of a container group.
    pub(super) fn group_path(&self, name: &str) -> String {
        format!("{}/{name}", self.groups_path())
    }

    fn account_path(&self) -> Option<String> {
        let account = self.region.storage_account.as_deref()?;
        Some(format!("{}/providers/Microsoft.Storage/storageAccounts/{account}", self.resource_group()))
    }

    /// The path of a share; without an account none is ever asked for.
    pub(super) fn share_path(&self, name: &str) -> String {
        format!("{}/fileServices/default/shares/{name}", self.account_path().unwrap_or_default())
    }

    /// Whether a group is in this region: two may share a resource group.
    pub(super) fn is_at(&self, group: &ContainerGroup) -> bool {
        let at = group.location.as_deref().map(names::location);
        at.is_none_or(|at| at == names::location(&self.region.location))
    }

    /// Whether the resource group can be seen.
    pub(super) async fn is_there(&self, deadline: Instant) -> Result<(), ArmError> {
        self.arm.head(&self.resource_group(), deadline).await
    }

    pub(super) async fn group(&self, name: &str, deadline: Instant) -> Result<Option<ContainerGroup>, ArmError> {
        self.arm.get(&self.group_path(name), &[], deadline).await
    }

    /// Every group of the resource group, whosever it is, without states.
    pub(super) async fn groups(&self, deadline: Instant) -> Result<Vec<ContainerGroup>, ArmError> {
        self.arm.list(&self.groups_path(), &[], deadline).await
    }

    pub(super) async fn put_group(
        &self,
        name: &str,
        group: &ContainerGroup,
        deadline: Instant,
    ) -> Result<Accepted<ContainerGroup>, ArmError> {
        self.arm.put(&self.group_path(name), group, deadline).await
    }

    pub(super) async fn set_tags(&self, name: &str, group: &ContainerGroup, deadline: Instant) -> Result<(), ArmError> {
        let body = TagsPatch { tags: &group.tags };
        let accepted: Accepted<serde::de::IgnoredAny> = self.arm.patch(&self.group_path(name), &body, deadline).await?;
        drop(accepted);
        Ok(())
    }

    pub(super) async fn delete_group(&self, name: &str, deadline: Instant) -> Result<Accepted<()>, ArmError> {
        self.arm.delete(&self.group_path(name), deadline).await
    }

    /// `start`, `stop` or `restart`.
    pub(super) async fn act(
        &self,
        name: &str,
        action: &str,
        deadline: Instant,
    ) -> Result<Accepted<serde::de::IgnoredAny>, ArmError> {
        self.arm.post::<(), _>(&format!("{}/{action}", self.group_path(name)), None, deadline).await
    }

    /// The last lines of a container's log, each with its time; none when there is no log yet.
    pub(super) async fn log(
        &self,
        group: &str,
        container: &str,
        tail: Option<u32>,
        deadline: Instant,
    ) -> Result<Option<String>, ArmError> {
        let path = format!("{}/containers/{container}/logs", self.group_path(group));
        let tail = tail.unwrap_or(MOST_LINES).min(MOST_LINES).to_string();
        let read = self.arm.get::<Logs>(&path, &[("tail", &tail), ("timestamps", "true")], deadline).await;
        match read {
            Ok(logs) => Ok(logs.map(|logs| logs.content)),
            Err(error) if error.code() == "ContainerGroupDeploymentNotReady" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where a container's output can be listened to.
    pub(super) async fn attach(&self, group: &str, container: &str, deadline: Instant) -> Result<Attached, ArmError> {
        let path = format!("{}/containers/{container}/attach", self.group_path(group));
        let answer: Accepted<Attached> = self.arm.post::<(), _>(&path, None, deadline).await?;
        answer.body.ok_or_else(|| ArmError::Unreadable { message: "there is no web socket in it".to_owned() })
    }

    /// Makes a share, or sets its quota.
    pub(super) async fn put_share(&self, share: &Share, deadline: Instant) -> Result<(), ArmError> {
        let body = ShareResource {
            properties: ShareProperties {
                share_quota: Some(i64::from(share.quota_gib)),
                metadata: share.metadata.clone(),
                ..ShareProperties::default()
            },
            ..ShareResource::default()
        };
        let made: Accepted<serde::de::IgnoredAny> =
            self.arm.put(&self.share_path(&share.name), &body, deadline).await?;
        drop(made);
        Ok(())
    }

    pub(super) async fn share(&self, name: &str, deadline: Instant) -> Result<Option<ShareResource>, ArmError> {
        self.arm.get(&self.share_path(name), &[], deadline).await
    }

    /// Every share of the account that may be an agent's, with its metadata; none without an account. Lists need not have
    /// that (Microsoft's own examples do not), so a share whose name is of an agent's making is asked for by itself then,
    /// and with it comes how full it is.
    pub(super) async fn shares(&self, deadline: Instant) -> Result<Vec<ShareResource>, ArmError> {
        let Some(account) = self.account_path() else { return Ok(Vec::new()) };
        let path = format!("{account}/fileServices/default/shares");
        let listed: Vec<ShareResource> = self.arm.list(&path, &[], deadline).await?;
        let looks = listed.into_iter().map(|share| self.with_metadata(share, deadline).boxed());
        let looks: Vec<BoxFuture<'_, Result<Option<ShareResource>, ArmError>>> = looks.collect();
        let found: Vec<Option<ShareResource>> = stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// None when it is not there any more, or cannot be an agent's.
    async fn with_metadata(&self, share: ShareResource, deadline: Instant) -> Result<Option<ShareResource>, ArmError> {
        if !share.properties.metadata.is_empty() {
            return Ok(Some(share));
        }
        match share.name.as_deref().filter(|name| names::is_share(name)) {
            Some(name) => self.sized_share(name, deadline).await,
            None => Ok(None),
        }
    }

    /// A share, and how full it is.
    pub(super) async fn sized_share(&self, name: &str, deadline: Instant) -> Result<Option<ShareResource>, ArmError> {
        self.arm.get(&self.share_path(name), &[("$expand", "stats")], deadline).await
    }

    pub(super) async fn delete_share(&self, name: &str, deadline: Instant) -> Result<(), ArmError> {
        self.arm.delete(&self.share_path(name), deadline).await.map(drop)
    }

    /// The key that mounts are made with.
    pub(super) async fn key(&self, deadline: Instant) -> Result<Option<Secret>, ArmError> {
        let Some(account) = self.account_path() else { return Ok(None) };
        let keys: Accepted<AccountKeys> =
            self.arm.post::<(), _>(&format!("{account}/listKeys"), None, deadline).await?;
        Ok(keys.body.and_then(|keys| keys.keys.into_iter().next()).map(|key| key.value))
    }

    fn location_path(&self, what: &str) -> String {
        let (subscription, location) = (self.subscription, &self.region.location);
        format!("/subscriptions/{subscription}/providers/Microsoft.ContainerInstance/locations/{location}/{what}")
    }

    /// How much of what the subscription has in this region.
    pub(super) async fn usages(&self, deadline: Instant) -> Result<Vec<Usage>, ArmError> {
        self.arm.list(&self.location_path("usages"), &[], deadline).await
    }

    /// How large a group may be here.
    pub(super) async fn capabilities(&self, deadline: Instant) -> Result<Vec<Capability>, ArmError> {
        self.arm.list(&self.location_path("capabilities"), &[], deadline).await
    }
}

fn metadata<'s>(share: &'s ShareResource, tag: &str) -> Option<&'s str> {
    share.properties.metadata.get(&tags::metadata_name(tag)).map(String::as_str)
}

/// Whether this agent has made a share.
pub(super) fn is_of_agent(share: &ShareResource, agent: &AgentId) -> bool {
    metadata(share, tags::AGENT) == Some(agent.as_str())
}

/// Whose it is.
pub(super) fn tenant_of(share: &ShareResource) -> Option<Subdomain> {
    Subdomain::parse(metadata(share, tags::TENANT)?).ok()
}

/// The volume's name in the project: what a share's own name is made from.
pub(super) fn volume_of(share: &ShareResource) -> Option<ObjectName> {
    ObjectName::parse(metadata(share, tags::NAME)?).ok()
}

/// And under which identity.
pub(super) fn id_of(share: &ShareResource) -> Option<TenantId> {
    TenantId::parse(metadata(share, tags::ID)?).ok()
}

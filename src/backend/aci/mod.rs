//! Azure Container Instances: a tenant is one container group.
//!
//! ```text
//! arm       calls to Azure Resource Manager: tokens, retries, long-running operations, write limits
//! models    what it takes and gives: group, shares, keys, operations, errors
//! names     the names that it allows
//! convert   an accepted deployment -> one container group, or the field that cannot be done; what a change of it needs
//! states    a group as it is -> containers in the words of `domain`
//! prices    what a group costs per hour, by the operator's table
//! site      one region: its groups, its shares, the key of its account
//! fault     what went wrong there -> what the rest of the house says about it
//! room      whether a region has room for a group
//! access    by what a group gets at its images
//! plan      what an apply would do
//! bring     doing it: shares, then the group, until it is up
//! sending   one PUT or start, followed to its end; why it failed
//! settling  putting the committed generation back
//! acts      stop, start, restart, removal
//! looks     how often a group on its way is looked at
//! owned     what bears this agent's tags, with or without a record
//! watch     the groups' states by polling, what differs is told
//! logs      the containers' logs by polling
//! attach    a web socket that says when there is something new in them
//! ```
//!
//! The group is the unit of everything: a change restarts or replaces all of its containers, and nothing is set aside. So
//! undoing is sending the committed generation again. What is sent is always made from the accepted specification, because
//! Azure gives no secret back. Whose a group is, is read from its tags, never from its name.

mod access;
mod acts;
mod arm;
mod attach;
mod bring;
mod convert;
mod fault;
mod logs;
mod looks;
#[allow(dead_code, unused_imports, reason = "the models have every member of the API, used or not")]
mod models;
mod names;
mod owned;
mod plan;
mod prices;
mod room;
mod sending;
mod settling;
mod site;
mod states;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dashmap::DashMap;
use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::broadcast;
use tokio::time::Instant;

use self::arm::Arm;
use self::convert::{Converted, Ground, tags};
use self::models::ContainerGroup;
use self::site::Site;
use crate::config::AciSettings;
use crate::domain::{AgentId, BackendName, Generation, ImageInfo, RegistryAuth, ServiceName, Subdomain};
use crate::telemetry::Metrics;

use super::{
    Adoption, Backend, BackendError, Capabilities, ContainerUsage, Deployment, Guards, Holdings, HostInfo, ImagePull,
    Listed, LogQuery, LogStream, ObservedContainer, Owned, Plan, Removed, ResolvedImage, ResolvedImages, Run,
    Sightings, Snapshot, Stray, Survey, TenantRef, UndoNote, Used, VolumeSize,
};

/// A question is answered, or given up, within this time.
const ASK: Duration = Duration::from_secs(30);
/// Putting something back has no deadline of its own; Azure gives up after this time too.
const PUT_BACK: Duration = Duration::from_mins(30);
/// The agent's health is known within this time.
const HEALTH: Duration = Duration::from_millis(4500);
/// How many changes a watch may be behind before it looks at every group.
const STIRRED: usize = 64;
/// How many groups are asked for at a time.
const AT_ONCE: usize = 8;

/// The backend.
pub struct AciBackend {
    core: Arc<Core>,
    locations: Vec<String>,
}

/// What its parts share.
struct Core {
    agent: AgentId,
    arm: Arm,
    settings: AciSettings,
    prices: Option<prices::Prices>,
    /// The registry credentials that a tenant's group was last sent with, by subdomain. They are nowhere else: what is put
    /// back needs them again.
    credentials: DashMap<Subdomain, Arc<Vec<RegistryAuth>>>,
    /// The names of groups that the agent has just changed, for whoever watches.
    stirred: broadcast::Sender<String>,
}

impl AciBackend {
    /// Nothing is asked yet.
    pub fn new(agent: AgentId, settings: &AciSettings, metrics: Arc<Metrics>) -> Self {
        let locations = settings.regions.iter().map(|region| region.location.clone()).collect();
        let prices = settings.prices.as_ref().and_then(|path| {
            let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
            let parsed = read.and_then(|text| prices::Prices::parse(&text).map_err(|error| error.to_string()));
            parsed.inspect_err(|error| tracing::error!(%error, "Q8_AGENT_ACI_PRICES: there will be no estimates")).ok()
        });
        let arm = Arm::new(settings, Some(metrics));
        let (stirred, _) = broadcast::channel(STIRRED);
        let core = Core { agent, arm, settings: settings.clone(), prices, credentials: DashMap::new(), stirred };
        Self { core: Arc::new(core), locations }
    }
}

impl Core {
    /// Where a tenant is.
    fn site(&self, tenant: &TenantRef) -> Result<Site<'_>, BackendError> {
        let regions = &self.settings.regions;
        let region = match &tenant.region {
            Some(location) => regions.iter().find(|region| region.location == *location),
            None => regions.first(),
        };
        let region = region.ok_or_else(|| BackendError::Unsupported {
            field: "placement.region".to_owned(),
            reason: "the region is not among Q8_AGENT_ACI_REGIONS any more".to_owned(),
        })?;
        Ok(Site { arm: &self.arm, subscription: &self.settings.subscription, region })
    }

    fn sites(&self) -> impl Iterator<Item = Site<'_>> {
        let subscription = &self.settings.subscription;
        self.settings.regions.iter().map(move |region| Site { arm: &self.arm, subscription, region })
    }

    /// The group that has the tenant's name, whosever it is.
    async fn named(&self, tenant: &TenantRef, deadline: Instant) -> Result<Option<ContainerGroup>, BackendError> {
        let site = self.site(tenant)?;
        let found = site.group(&names::group(tenant.project().as_str()), deadline).await;
        found.map_err(|error| site.fault(error, "reading a container group"))
    }

    /// The tenant's group as it is; none when there is none. Somebody else's of the same name is a conflict, for whoever is
    /// about to make one.
    async fn group(&self, tenant: &TenantRef, deadline: Instant) -> Result<Option<ContainerGroup>, BackendError> {
        match self.named(tenant, deadline).await? {
            Some(group) if !self.is_of(&group, tenant) && !owned::is_taken_over(&group, tenant) => {
                let name = names::group(tenant.project().as_str());
                Err(BackendError::NameTaken { kind: "container group", name })
            }
            found => Ok(found),
        }
    }

    /// The same for all others: somebody else's is none of the tenant's.
    async fn own(&self, tenant: &TenantRef, deadline: Instant) -> Result<Option<ContainerGroup>, BackendError> {
        Ok(self.named(tenant, deadline).await?.filter(|group| self.is_of(group, tenant)))
    }

    fn is_of(&self, group: &ContainerGroup, tenant: &TenantRef) -> bool {
        let owner = states::owner(group);
        self.is_ours(group) && owner.is_some_and(|(name, id)| name == tenant.subdomain && id == tenant.id)
    }

    fn is_ours(&self, group: &ContainerGroup) -> bool {
        group.tags.get(tags::AGENT).is_some_and(|agent| agent == self.agent.as_str())
    }

    /// A deployment as its group. A DNS label that had to be another one stays that.
    fn convert(
        &self,
        wanted: &Deployment,
        live: Option<&ContainerGroup>,
        credentials: &[RegistryAuth],
    ) -> Result<Converted, BackendError> {
        let label = live.and_then(|group| group.properties.ip_address.as_ref()?.dns_name_label.as_deref());
        let other = self.other_label(&wanted.tenant);
        self.convert_with(wanted, label.filter(|label| *label == other), credentials)
    }

    fn convert_with(
        &self,
        wanted: &Deployment,
        dns_label: Option<&str>,
        credentials: &[RegistryAuth],
    ) -> Result<Converted, BackendError> {
        let site = self.site(&wanted.tenant)?;
        let (location, storage_account) = (&site.region.location, site.region.storage_account.as_deref());
        let identities = &self.settings.registry_identities;
        convert::convert(wanted, &Ground { location, storage_account, dns_label, credentials, identities })
    }

    /// The label to ask for when somebody has the tenant's own.
    fn other_label(&self, tenant: &TenantRef) -> String {
        let own = names::dns_label(tenant.subdomain.as_str());
        names::other_dns_label(&own, &format!("{}/{}/{}", self.agent.as_str(), tenant.subdomain, tenant.id))
    }

    /// Every group of this agent, in all regions, as lists tell it: without states.
    async fn groups(&self, deadline: Instant) -> Result<Vec<(Site<'_>, ContainerGroup)>, BackendError> {
        let mut all = Vec::new();
        for site in self.sites() {
            let listed = site.groups(deadline).await.map_err(|error| site.fault(error, "listing container groups"))?;
            let own = listed.into_iter().filter(|group| self.is_ours(group) && site.is_at(group));
            all.extend(own.map(|group| (site, group)));
        }
        Ok(all)
    }

    /// Every group of this agent, each asked for: a list has no states.
    async fn groups_in_detail(&self, deadline: Instant) -> Result<Vec<ContainerGroup>, BackendError> {
        let listed = self.groups(deadline).await?;
        let looks = listed.into_iter().map(|(site, group)| async move {
            let name = group.name.as_deref().unwrap_or_default();
            site.group(name, deadline).await.map_err(|error| site.fault(error, "reading a container group"))
        });
        let looks: Vec<BoxFuture<'_, Result<Option<ContainerGroup>, BackendError>>> =
            looks.map(futures::FutureExt::boxed).collect();
        let found: Vec<Option<ContainerGroup>> = stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await?;
        // It may have gone since it was listed.
        Ok(found.into_iter().flatten().filter(|group| self.is_ours(group)).collect())
    }
}

/// Tells whoever watches that a group was worked on, whatever comes of that: also when the work is dropped.
struct Stirs<'a>(&'a Core, &'a TenantRef);

impl Drop for Stirs<'_> {
    fn drop(&mut self) {
        // Nobody may be watching.
        self.0.stirred.send(names::group(self.1.project().as_str())).ok();
    }
}

fn soon() -> Instant {
    Instant::now() + ASK
}

fn observed(group: &ContainerGroup) -> Vec<ObservedContainer> {
    states::containers(group, jiff::Timestamp::now())
}

#[async_trait]
impl Backend for AciBackend {
    fn name(&self) -> BackendName {
        BackendName::Aci
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { single_service: false, split_streams: false, partial_update: false, survives_agent: true }
    }

    fn regions(&self) -> &[String] {
        &self.locations
    }

    fn fresh_for(&self) -> Duration {
        watch::FRESH
    }

    async fn prepare(&self, wanted: &Deployment, run: &Run) -> Result<ResolvedImages, BackendError> {
        whole(run)?;
        // Whatever a group cannot do is told before any call.
        let converted = self.core.convert(wanted, None, &run.credentials)?;
        let (tenant, deadline) = (&wanted.tenant, run.deadline);
        let named = self.core.named(tenant, deadline).await?;
        let is_own = |group: &ContainerGroup| self.core.is_of(group, tenant) || owned::is_taken_over(group, tenant);
        if named.as_ref().is_some_and(|group| !is_own(group)) {
            // Whose the name is, the plan says.
            return Ok(images(wanted));
        }
        let is_first = wanted.generation == Generation::NONE.next();
        let nowhere_else =
            async { if is_first { self.core.is_nowhere_else(tenant, named.as_ref(), deadline).await } else { Ok(()) } };
        let room = self.core.has_room(tenant, &converted.group, named.as_ref(), deadline);
        let (nowhere_else, room) = tokio::join!(nowhere_else, room);
        nowhere_else?;
        room?;
        Ok(images(wanted))
    }

    async fn survey(&self, wanted: &Deployment, run: &Run) -> Result<Survey, BackendError> {
        whole(run)?;
        self.core.convert(wanted, None, &run.credentials)?;
        let pulls = wanted.project.project().services.iter().map(|(name, service)| ImagePull {
            image: service.image.to_string(),
            services: vec![name.clone()],
            reason: "pulled by Azure when the group is made",
        });
        Ok(Survey { images: images(wanted), pulls: pulls.collect() })
    }

    async fn adoptable(&self, wanted: &Deployment) -> Result<Adoption, BackendError> {
        self.core.adoptable(wanted, soon()).await
    }

    async fn plan(&self, wanted: &Deployment, _images: &ResolvedImages, run: &Run) -> Result<Plan, BackendError> {
        self.core.plan(wanted, run).await
    }

    async fn apply(
        &self,
        wanted: &Deployment,
        _images: &ResolvedImages,
        _plan: &Plan,
        run: &Run,
    ) -> Result<Option<Snapshot>, BackendError> {
        let _stirs = Stirs(&self.core, &wanted.tenant);
        Box::pin(self.core.apply(wanted, run)).await.map(|()| None)
    }

    async fn settle(
        &self,
        tenant: &TenantRef,
        _committed: Generation,
        deployment: Option<&Deployment>,
        undo: Option<&UndoNote>,
    ) -> Result<(), BackendError> {
        // Else there is nothing to undo, and it is as it was.
        let _stirs = undo.map(|_| Stirs(&self.core, tenant));
        Box::pin(self.core.settle(tenant, deployment, undo)).await
    }

    async fn remove(
        &self,
        tenant: &TenantRef,
        _deployment: Option<&Deployment>,
        purge: bool,
        run: &Run,
    ) -> Result<Removed, BackendError> {
        let _stirs = Stirs(&self.core, tenant);
        self.core.remove(tenant, purge, run.deadline).await
    }

    async fn start(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        all_services(service)?;
        let _stirs = Stirs(&self.core, &deployment.tenant);
        Box::pin(self.core.start(deployment, run)).await
    }

    async fn stop(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        all_services(service)?;
        let _stirs = Stirs(&self.core, &deployment.tenant);
        self.core.stop(&deployment.tenant, run.deadline).await
    }

    async fn restart(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        all_services(service)?;
        let _stirs = Stirs(&self.core, &deployment.tenant);
        Box::pin(self.core.restart(deployment, run)).await
    }

    async fn owned(&self, _pulled: &BTreeSet<String>) -> Result<Vec<Owned>, BackendError> {
        self.core.owned(Instant::now() + PUT_BACK).await
    }

    async fn find(&self, tenant: &Subdomain) -> Result<Option<Stray>, BackendError> {
        self.core.find(tenant, soon()).await
    }

    async fn discard(&self, object: &Owned) -> Result<bool, BackendError> {
        self.core.discard(object).await
    }

    async fn status(&self, tenant: &TenantRef) -> Result<Vec<ObservedContainer>, BackendError> {
        let group = self.core.own(tenant, soon()).await?;
        Ok(group.as_ref().map(observed).unwrap_or_default())
    }

    async fn tenants(&self) -> Result<Vec<ObservedContainer>, BackendError> {
        let groups = self.core.groups_in_detail(soon()).await?;
        let mut all: Vec<ObservedContainer> = groups.iter().flat_map(observed).collect();
        all.sort_by(|a, b| (&a.tenant, &a.service, a.number).cmp(&(&b.tenant, &b.service, b.number)));
        Ok(all)
    }

    async fn listed(&self, tenant: &TenantRef) -> Result<Vec<Listed>, BackendError> {
        let Some(group) = self.core.own(tenant, soon()).await? else { return Ok(Vec::new()) };
        Ok(observed(&group).into_iter().map(|container| listed(&group, container)).collect())
    }

    async fn watch(&self) -> Result<Sightings, BackendError> {
        watch::watch(Arc::clone(&self.core)).await
    }

    async fn images(&self, tenant: &TenantRef) -> Result<Vec<ImageInfo>, BackendError> {
        let Some(group) = self.core.own(tenant, soon()).await? else { return Ok(Vec::new()) };
        Ok(observed(&group).into_iter().map(image_info).collect())
    }

    async fn logs(&self, tenant: &TenantRef, query: &LogQuery) -> Result<LogStream, BackendError> {
        logs::stream(Arc::clone(&self.core), tenant.clone(), query.clone()).await
    }

    async fn usage(&self, tenant: Option<&TenantRef>) -> Result<Vec<ContainerUsage>, BackendError> {
        let containers = match tenant {
            Some(tenant) => self.status(tenant).await?,
            None => self.tenants().await?,
        };
        // Azure tells no numbers here; its own metrics have them.
        let usage = containers.into_iter().map(|container| ContainerUsage {
            tenant: container.tenant,
            service: container.service,
            number: container.number,
            name: container.status.name,
            id: container.status.id,
            running: container.status.state == "running",
            used: Used::default(),
        });
        Ok(usage.collect())
    }

    async fn holdings(&self) -> Result<Holdings, BackendError> {
        Ok(Holdings::default())
    }

    async fn volume_sizes(&self) -> Result<Option<Vec<VolumeSize>>, BackendError> {
        let shares = self.core.own_shares(Instant::now() + PUT_BACK).await?;
        let sizes = shares.iter().filter_map(|(_, share)| {
            let (bytes, name) = (owned::bytes(share)?, site::volume_of(share)?);
            Some(VolumeSize { owner: site::tenant_of(share), name, bytes })
        });
        Ok(Some(sizes.collect()))
    }

    async fn host(&self) -> Result<HostInfo, BackendError> {
        self.health().await?;
        Ok(HostInfo {
            engine: BackendName::Aci.as_str().to_owned(),
            version: self.core.settings.api_version.clone(),
            api_version: self.core.settings.api_version.clone(),
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            cpus: None,
            memory: None,
            data_root: None,
            guards: Guards::default(),
        })
    }

    async fn health(&self) -> Result<(), BackendError> {
        let deadline = Instant::now() + HEALTH;
        let site = self.core.sites().next().ok_or(BackendError::Unavailable)?;
        self.core.arm.token_works(deadline).await.map_err(|error| site.fault(error, "asking for a token"))?;
        site.is_there(deadline).await.map_err(|error| site.fault(error, "looking at the resource group"))
    }
}

/// A group has no parts that could be touched alone.
fn whole(run: &Run) -> Result<(), BackendError> {
    match run.only {
        Some(_) => Err(BackendError::Unsupported {
            field: "services".to_owned(),
            reason: "a container group changes as a whole".to_owned(),
        }),
        None => Ok(()),
    }
}

fn all_services(service: Option<&ServiceName>) -> Result<(), BackendError> {
    match service {
        Some(_) => Err(BackendError::Unsupported {
            field: "service".to_owned(),
            reason: "a container group is stopped, started and restarted as a whole".to_owned(),
        }),
        None => Ok(()),
    }
}

/// What Azure will pull, which nobody can look at from here. A rollback runs the same references.
fn images(wanted: &Deployment) -> ResolvedImages {
    let services = &wanted.project.project().services;
    let resolved = services.iter().map(|(name, service)| {
        let image = wanted.pinned_images.get(name).cloned().unwrap_or_else(|| service.image.to_string());
        let digest = image.split_once('@').map(|(_, digest)| digest.to_owned());
        (name.clone(), ResolvedImage { id: image.clone(), image, digest, ..ResolvedImage::default() })
    });
    resolved.collect()
}

fn image_info(container: ObservedContainer) -> ImageInfo {
    let image = container.status.image;
    let (reference, digest) = match image.split_once('@') {
        Some((reference, digest)) => (reference, Some(digest.to_owned())),
        None => (image.as_str(), None),
    };
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let tag = last.split_once(':').map(|(_, tag)| tag.to_owned());
    ImageInfo {
        service: container.service,
        container: container.status.name,
        id: String::new(),
        digest,
        tag,
        size: 0,
        created: None,
        image,
    }
}

fn listed(group: &ContainerGroup, container: ObservedContainer) -> Listed {
    let name = container.status.name.as_str();
    let own = group.properties.containers.iter().find(|one| one.name == name);
    let mounts = own.map(|one| &one.properties.volume_mounts);
    let mounts: Vec<String> = mounts.into_iter().flatten().map(|mount| mount.name.clone()).collect();
    let created = group.system_data.as_ref().and_then(|data| states::time(data.created_at.as_deref()));
    Listed {
        command: own.map(|one| one.properties.command.join(" ")).unwrap_or_default(),
        created: created.or(container.status.started_at).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        mounts,
        local_volumes: 0,
        networks: Vec::new(),
        status: in_words(&container),
        labels: std::collections::BTreeMap::new(),
        ports: container.endpoints.clone(),
        container,
    }
}

fn in_words(container: &ObservedContainer) -> String {
    let status = &container.status;
    match status.state.as_str() {
        "running" => "Up".to_owned(),
        "exited" => format!("Exited ({})", status.exit_code.unwrap_or_default()),
        "restarting" => format!("Restarting ({})", status.exit_code.unwrap_or_default()),
        _ => "Created".to_owned(),
    }
}

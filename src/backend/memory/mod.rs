//! A complete in-memory backend: a pretend engine whose containers run a tiny pretend shell.
//!
//! It is for building a Main Server on a laptop without Docker and for the tests of what stands on a backend. It keeps
//! the promises of [`Backend`] with the same state machine as a real engine has (`supervisor`), it only pretends the
//! programs (`shell`), the registry (`images`) and the machine. Nothing of it outlives the process.
//!
//! The state stands behind one mutex that is never held across an await; whoever waits listens for the bell that rings
//! after each change and looks again.

mod apply;
mod container;
mod engine;
mod hooks;
mod images;
mod logs;
mod settle;
mod shell;
mod sightings;
mod supervisor;
mod usage;

pub use engine::{ContainerSnapshot, Fault, MemoryEngine};

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::converge::{self, KnownNetwork, KnownVolume, Observed};
use super::{
    Backend, BackendError, Capabilities, ContainerUsage, Deployment, Guards, Holdings, HostInfo, HostKey, ImagePull,
    Listed, LogQuery, LogStream, ObservedContainer, Owned, OwnedKind, Plan, Removed, ResolvedImages, Run, Sightings,
    Snapshot, Survey, TenantRef, UndoNote, VolumeSize,
};
use crate::domain::{AgentId, BackendName, Generation, ImageInfo, ServiceName};

/// The in-memory backend.
pub struct MemoryBackend {
    agent: AgentId,
    engine: MemoryEngine,
    name: BackendName,
    regions: Vec<String>,
}

impl MemoryBackend {
    /// An empty pretend engine. The key makes the image ids of one host its own.
    pub fn new(agent: AgentId, key: HostKey) -> Self {
        Self { agent, engine: MemoryEngine::new(key), name: BackendName::Memory, regions: Vec::new() }
    }

    /// The same under another backend's name and with its locations, to stand in for it beside another one.
    #[must_use]
    pub fn pretending(self, name: BackendName, regions: &[&str]) -> Self {
        let regions = regions.iter().map(|region| (*region).to_owned()).collect();
        Self { name, regions, ..self }
    }

    /// The pretend engine, to look at and to disturb.
    pub fn engine(&self) -> &MemoryEngine {
        &self.engine
    }

    /// Objects of a later generation than the wanted one are there only if the tenant's record was lost; they count as
    /// changed.
    fn observe(&self, tenant: &TenantRef, wanted: Generation) -> Result<Observed, BackendError> {
        let state = self.engine.shared.reachable()?;
        let mut observed = Observed { foreign_containers: state.foreign_containers.clone(), ..Observed::default() };
        for container in state.containers.values() {
            if &container.owner != tenant {
                observed.foreign_containers.insert(container.name.clone());
            } else if !container.is_aside() {
                let mut known = container.known();
                if container.generation > wanted {
                    known.spec.clear();
                }
                observed.containers.push(known);
            }
        }
        for network in state.networks.iter().filter(|network| !network.aside) {
            if network.owner.as_ref() == Some(tenant) {
                let spec = if network.generation > wanted { String::new() } else { network.spec.clone() };
                let (id, name) = (network.id.clone(), network.name.clone());
                observed.networks.push(KnownNetwork { id, name, spec });
            } else {
                observed.foreign_networks.insert(network.name.clone());
            }
        }
        for (name, volume) in &state.volumes {
            if volume.owner.as_ref() == Some(tenant) {
                observed.volumes.push(KnownVolume { name: name.clone(), spec: volume.spec.clone() });
            } else {
                observed.foreign_volumes.insert(name.clone());
            }
        }
        Ok(observed)
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn name(&self) -> BackendName {
        self.name
    }

    fn regions(&self) -> &[String] {
        &self.regions
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { single_service: true, split_streams: true, partial_update: true, survives_agent: false }
    }

    async fn prepare(&self, wanted: &Deployment, run: &Run) -> Result<ResolvedImages, BackendError> {
        let mut state = self.engine.shared.reachable()?;
        let touched = converge::with_dependencies(wanted.project.project(), run.only.as_ref());
        let mut images = ResolvedImages::new();
        for (name, service) in &wanted.project.project().services {
            let image = service.image.to_string();
            run.progress.report(format!("looking for image {image}"));
            match state.take_fault(&[Fault::ImageNotFound, Fault::RegistryDenied, Fault::RegistryUnavailable]) {
                Some(Fault::RegistryDenied) => {
                    return Err(BackendError::RegistryDenied { service: name.clone(), image });
                }
                Some(Fault::RegistryUnavailable) => {
                    return Err(BackendError::RegistryUnavailable { service: name.clone(), image });
                }
                Some(_) => return Err(BackendError::ImageNotFound { service: name.clone(), image, hint: "" }),
                None => {}
            }
            let pinned = wanted.pinned_images.get(name);
            let named = run.only.as_ref().is_none_or(|only| only.contains(name));
            match state.images.resolve(name, service, run.pull && named, pinned) {
                Ok(image) => {
                    images.insert(name.clone(), image);
                }
                Err(_) if !touched.contains(name) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(images)
    }

    async fn survey(&self, wanted: &Deployment, run: &Run) -> Result<Survey, BackendError> {
        let state = self.engine.shared.reachable()?;
        let mut survey = Survey::default();
        for (name, service) in &wanted.project.project().services {
            let named = run.only.as_ref().is_none_or(|only| only.contains(name));
            let image = state.images.look(name, service, wanted.pinned_images.get(name))?;
            if images::refreshes(service, run.pull && named) {
                let (image, services) = (service.image.to_string(), vec![name.clone()]);
                survey.pulls.push(ImagePull { image, services, reason: "to be refreshed" });
            }
            survey.images.insert(name.clone(), image);
        }
        Ok(survey)
    }

    async fn plan(&self, wanted: &Deployment, images: &ResolvedImages, run: &Run) -> Result<Plan, BackendError> {
        let observed = self.observe(&wanted.tenant, wanted.generation)?;
        let mut plan = converge::plan(wanted, images, run.only.as_ref(), &observed)?;
        let state = self.engine.shared.reachable()?;
        let aside = state.of(&wanted.tenant).filter(|container| container.is_aside() && container.state.is_active());
        plan.undo.running.extend(aside.map(|container| container.id.clone()));
        Ok(plan)
    }

    async fn apply(
        &self,
        wanted: &Deployment,
        images: &ResolvedImages,
        plan: &Plan,
        run: &Run,
    ) -> Result<Option<Snapshot>, BackendError> {
        self.apply_plan(wanted, images, plan, run).await.map(|()| None)
    }

    async fn settle(
        &self,
        tenant: &TenantRef,
        committed: Generation,
        deployment: Option<&Deployment>,
        undo: Option<&UndoNote>,
    ) -> Result<(), BackendError> {
        self.settle_at(tenant, committed, deployment, undo).await
    }

    async fn remove(
        &self,
        tenant: &TenantRef,
        deployment: Option<&Deployment>,
        purge: bool,
        run: &Run,
    ) -> Result<Removed, BackendError> {
        self.remove_all(tenant, deployment, purge, run).await
    }

    async fn start(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        self.start_services(deployment, service, run).await
    }

    async fn stop(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        self.stop_services(deployment, service, run).await.map(drop)
    }

    async fn restart(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        self.restart_services(deployment, service, run).await
    }

    async fn owned(&self, _pulled: &BTreeSet<String>) -> Result<Vec<Owned>, BackendError> {
        let state = self.engine.shared.reachable()?;
        let object = |kind, name: &str, id: &str, owner: &TenantRef| Owned {
            kind,
            name: name.to_owned(),
            id: id.to_owned(),
            tenant: Some(owner.subdomain.clone()),
            region: owner.region.clone(),
            bytes: None,
            since: None,
        };
        let containers = state
            .containers
            .values()
            .map(|container| object(OwnedKind::Container, &container.name, container.id.as_str(), &container.owner));
        let networks = state.networks.iter().filter_map(|network| {
            Some(object(OwnedKind::Network, &network.name, &network.id, network.owner.as_ref()?))
        });
        let volumes = state
            .volumes
            .iter()
            .filter_map(|(name, volume)| Some(object(OwnedKind::Volume, name, name, volume.owner.as_ref()?)));
        Ok(containers.chain(networks).chain(volumes).collect())
    }

    async fn discard(&self, object: &Owned) -> Result<bool, BackendError> {
        self.discard_one(object).await
    }

    async fn status(&self, tenant: &TenantRef) -> Result<Vec<ObservedContainer>, BackendError> {
        let state = self.engine.shared.reachable()?;
        let mut all: Vec<ObservedContainer> = state.current(tenant).map(container::Container::observed).collect();
        all.sort_by(|a, b| (&a.service, a.number).cmp(&(&b.service, b.number)));
        Ok(all)
    }

    async fn tenants(&self) -> Result<Vec<ObservedContainer>, BackendError> {
        let state = self.engine.shared.reachable()?;
        let ours = state.containers.values().filter(|container| container.owner.agent == self.agent);
        let mut all: Vec<ObservedContainer> =
            ours.filter(|container| !container.is_aside()).map(container::Container::observed).collect();
        all.sort_by(|a, b| (&a.tenant, &a.service, a.number).cmp(&(&b.tenant, &b.service, b.number)));
        Ok(all)
    }

    async fn listed(&self, tenant: &TenantRef) -> Result<Vec<Listed>, BackendError> {
        let state = self.engine.shared.reachable()?;
        Ok(state.current(tenant).map(container::Container::listed).collect())
    }

    async fn watch(&self) -> Result<Sightings, BackendError> {
        sightings::watch(&self.engine.shared, &self.agent)
    }

    async fn images(&self, tenant: &TenantRef) -> Result<Vec<ImageInfo>, BackendError> {
        let state = self.engine.shared.reachable()?;
        let mut all: Vec<ImageInfo> = state.current(tenant).map(container::Container::image_info).collect();
        all.sort_by(|a, b| (&a.service, &a.container).cmp(&(&b.service, &b.container)));
        Ok(all)
    }

    async fn logs(&self, tenant: &TenantRef, query: &LogQuery) -> Result<LogStream, BackendError> {
        logs::stream(&self.engine.shared, tenant.clone(), query.clone())
    }

    async fn usage(&self, tenant: Option<&TenantRef>) -> Result<Vec<ContainerUsage>, BackendError> {
        let (now, state) = (self.engine.shared.now(), self.engine.shared.reachable()?);
        let ours = state.containers.values().filter(|container| {
            let owner = &container.owner;
            !container.is_aside() && tenant.map_or(owner.agent == self.agent, |tenant| owner == tenant)
        });
        let mut all: Vec<ContainerUsage> = ours.map(|container| usage::of(container, now)).collect();
        all.sort_by(|a, b| (&a.tenant, &a.service, a.number).cmp(&(&b.tenant, &b.service, b.number)));
        Ok(all)
    }

    async fn holdings(&self) -> Result<Holdings, BackendError> {
        Ok(usage::holdings(&*self.engine.shared.reachable()?))
    }

    async fn volume_sizes(&self) -> Result<Option<Vec<VolumeSize>>, BackendError> {
        Ok(Some(usage::volumes(&*self.engine.shared.reachable()?)))
    }

    async fn host(&self) -> Result<HostInfo, BackendError> {
        self.health().await?;
        Ok(HostInfo {
            engine: String::from("memory"),
            version: String::from(env!("CARGO_PKG_VERSION")),
            api_version: String::from("1"),
            os: String::from(std::env::consts::OS),
            arch: String::from(std::env::consts::ARCH),
            cpus: Some(usage::CPUS),
            guards: Guards::default(),
            memory: Some(usage::MEMORY),
            data_root: None,
        })
    }

    async fn health(&self) -> Result<(), BackendError> {
        self.engine.shared.reachable().map(drop)
    }
}

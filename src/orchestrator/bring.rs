//! Provision, update and rollback: three ways to a new generation, one way to bring it up.

use std::sync::Arc;

use tokio::time::Instant;

use super::load::Loaded;
use super::operations::Op;
use super::summary::{self, Shape};
use super::{Error, Orchestrator, ProvisionRequest, Provisioned, UpdateRequest};
use crate::backend::{BackendError, ObservedContainer, Plan, PreStop, ResolvedImages, Run, Snapshot};
use crate::domain::{
    Adopted, Demand, DesiredState, Generation, OperationKind, Placement, ProjectName, ProjectPath, RegistryAuth,
    Subdomain, TenantSpec,
};
use crate::tenant_fs::{Journal, LastError, RECORD_VERSION, Record, StoredGeneration};

/// What a new generation is made from.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) kind: OperationKind,
    pub(super) spec: TenantSpec,
    pub(super) run: Run,
    /// Whether what others made for the project is taken over.
    pub(super) adopt: bool,
    /// The plan that the client expects.
    pub(super) expect_plan: Option<String>,
}

/// A commit that failed.
#[derive(Debug)]
pub(super) struct NotCommitted {
    pub(super) error: Error,
    /// Whether the record may be in place all the same.
    pub(super) may_stand: bool,
}

impl Orchestrator {
    pub(super) async fn do_provision(&self, op: &Op, request: ProvisionRequest) -> Result<Provisioned, Error> {
        // A plan is one for one region.
        let fallback = request.fallback && request.expect_plan.is_none();
        let asked = request.placement.as_ref().and_then(|placement| placement.region.clone());
        let (record, wanted) = self.provision_draft(op, request).await?;
        if record.generation != Generation::NONE {
            return self.bring(op, record, wanted).await;
        }
        let brought = if fallback {
            self.bring_where_there_is_room(op, record.clone(), wanted.clone()).await
        } else {
            self.bring(op, record.clone(), wanted.clone()).await
        };
        match brought {
            // Nothing on this host tells of it, but it is there: whoever did not ask for another region means that one.
            Err(Error::Backend(BackendError::Elsewhere { region })) if fallback || asked.is_none() => {
                self.bring_in(op, record, wanted, region).await
            }
            brought => brought,
        }
    }

    /// Brings a tenant up in this region, whichever was meant.
    async fn bring_in(
        &self,
        op: &Op,
        mut record: Record,
        mut wanted: Wanted,
        region: String,
    ) -> Result<Provisioned, Error> {
        op.report(&format!("it is in region {region} already"));
        record.region = Some(region.clone());
        wanted.spec.placement.region = Some(region);
        self.bring(op, record, wanted).await
    }

    /// What a provision wants, of whom.
    pub(super) async fn provision_draft(&self, op: &Op, request: ProvisionRequest) -> Result<(Record, Wanted), Error> {
        let run = op.run(self.credentials(&request.subdomain, request.registry_auth.clone()));
        self.draft(request, run).await
    }

    /// The same without an operation.
    pub(super) async fn draft(&self, request: ProvisionRequest, run: Run) -> Result<(Record, Wanted), Error> {
        let existing = self.record(&request.subdomain).await?;
        let placement = self.placement(request.placement, request.fallback, existing.as_ref())?;
        let record = match existing {
            Some(record) if record.id != request.id => return Err(Error::IdMismatch),
            Some(record) => record,
            None => new_record(&request.subdomain, &request.id, &placement),
        };
        let spec = TenantSpec {
            id: request.id,
            subdomain: request.subdomain,
            compose: request.compose,
            env: request.env,
            files: request.files,
            profiles: request.profiles,
            placement,
            limits: request.limits,
            pinned_images: std::collections::BTreeMap::new(),
        };
        let kind = OperationKind::Provision;
        Ok((record, Wanted { kind, spec, run, adopt: request.adopt, expect_plan: request.expect_plan }))
    }

    pub(super) async fn do_update(&self, op: &Op, request: UpdateRequest) -> Result<Provisioned, Error> {
        let (record, wanted) = self.update_draft(op, request).await?;
        self.bring(op, record, wanted).await
    }

    /// What an update wants: what is committed, with the request's changes.
    pub(super) async fn update_draft(&self, op: &Op, request: UpdateRequest) -> Result<(Record, Wanted), Error> {
        let record = self.live_record(op.tenant()).await?;
        let (tenant, generation) = (record.subdomain.clone(), record.generation);
        let mut spec = self.disk(move |fs| fs.generation(&tenant, generation)).await?.spec;
        if let Some(compose) = request.compose {
            spec.compose = compose;
        }
        if let Some(env) = request.env {
            spec.env = env;
        }
        if let Some(profiles) = request.profiles {
            spec.profiles = profiles;
        }
        if let Some(limits) = request.limits {
            spec.limits = limits;
        }
        for (path, content) in request.files {
            match content {
                Some(content) => spec.files.insert(path, content),
                None => spec.files.remove(&path),
            };
        }
        // The request was checked for itself; together with the files that stay there may be a new conflict.
        if let Some((other, path)) = ProjectPath::conflict(spec.files.keys()) {
            return Err(Error::FileConflict { path: path.clone(), other: other.clone() });
        }
        // What an earlier rollback pinned holds until somebody asks for newer images.
        if request.pull {
            spec.pinned_images.clear();
        }
        let mut run = op.run(self.credentials(op.tenant(), request.registry_auth));
        run.pull = request.pull;
        run.only = (!request.services.is_empty()).then_some(request.services);
        let expect_plan = request.expect_plan;
        Ok((record, Wanted { kind: OperationKind::Update, spec, run, adopt: false, expect_plan }))
    }

    /// Whether Compose and policy take a draft.
    pub(super) async fn look_over_draft(&self, record: &Record, wanted: Wanted) -> Result<(), Error> {
        let tenant = self.tenant_ref(record);
        self.load(tenant, wanted.spec, record.generation.next(), record.desired).await.map(drop)
    }

    pub(super) async fn do_rollback(&self, op: &Op, from: Option<Generation>) -> Result<Provisioned, Error> {
        let record = self.live_record(op.tenant()).await?;
        if let Some(from) = from.filter(|from| *from != record.generation) {
            return Err(Error::GenerationMismatch { at: record.generation, from });
        }
        let previous = record.previous.ok_or(Error::NoPrevious)?;
        let tenant = record.subdomain.clone();
        let stored = self.disk(move |fs| fs.generation(&tenant, previous)).await?;
        let spec = TenantSpec { pinned_images: stored.images, ..stored.spec };
        let run = op.run(self.credentials(op.tenant(), Vec::new()));
        let wanted = Wanted { kind: OperationKind::Rollback, spec, run, adopt: false, expect_plan: None };
        self.bring(op, record, wanted).await
    }

    /// Before anything of a tenant is started again: its specification must be one that today's policy accepts, and what was
    /// made under other rules is made anew under today's. Gives the record as it is afterwards.
    pub(super) async fn readmitted(&self, op: &Op, record: Record, loaded: &Loaded) -> Result<Record, Error> {
        if !loaded.refused.is_empty() {
            return Err(Error::Policy(loaded.refused.clone()));
        }
        if !loaded.deployment.project.is_confined() || record.rules == self.rules(&record.subdomain) {
            return Ok(record);
        }
        if !self.backend(record.backend)?.is_outdated(&loaded.deployment).await? {
            return Ok(record);
        }
        let (tenant, generation) = (record.subdomain.clone(), record.generation);
        let stored = self.disk(move |fs| fs.generation(&tenant, generation)).await?;
        let spec = TenantSpec { pinned_images: stored.images, ..stored.spec };
        let run = op.run(self.credentials(op.tenant(), Vec::new()));
        let wanted = Wanted { kind: OperationKind::Update, spec, run, adopt: false, expect_plan: None };
        self.bring(op, record, wanted).await?;
        self.live_record(op.tenant()).await
    }

    /// Loads, plans and, unless everything is as wanted already, changes.
    pub(super) async fn bring(&self, op: &Op, record: Record, mut wanted: Wanted) -> Result<Provisioned, Error> {
        let backend = self.backend(record.backend)?;
        let next = record.generation.next();
        let mut loaded = self.timed(op, "load", self.load_wanted(&record, &mut wanted)).await?;
        let claim = self.claim(&record, &loaded).await?;
        self.before_long(op).await?;
        op.report("looking at images");
        let preparing = op.running().unless_cancelled(backend.prepare(&loaded.deployment, &wanted.run));
        let images = self.timed(op, "prepare", preparing).await;
        self.note_pulled(&wanted.run).await;
        let images = images?;
        let volumes = volumes_of_images(&loaded, &images);
        if volumes > 0 {
            // Only now are they known.
            loaded.demand.volumes = loaded.demand.volumes.saturating_add(volumes);
            self.within_limits(&wanted.spec, &loaded.demand)?;
        }
        op.report("planning");
        let planned_at = Instant::now();
        let planning = op.running().unless_cancelled(backend.plan(&loaded.deployment, &images, &wanted.run));
        let plan = self.timed(op, "plan", planning).await?;
        let same = self.is_same(&record, &wanted, &loaded, &plan);
        if !same {
            // What has been done already is not done otherwise: a repeat is answered like any other.
            self.check_expected(&record, &wanted, &loaded, &plan)?;
        }
        let live = record.is_live();
        let mut warnings = loaded.warnings.clone();
        warnings.extend(plan.warnings.iter().cloned());
        if self.mend(op, &record, &wanted, &images).await? {
            warnings.push("the stored specification could not be read and has been written anew".to_owned());
        }
        let (generation, changed, snapshot) = if same {
            let snapshot = Snapshot { as_of: planned_at, containers: plan.standing };
            (record.generation, false, Some(snapshot).filter(|snapshot| !snapshot.containers.is_empty()))
        } else {
            if live && let Ok(before) = self.committed(&record).await {
                wanted.run.pre_stop = PreStop::of_all(&before.deployment);
            }
            (next, true, self.change(op, &record, &wanted, loaded, &images, &plan).await?)
        };
        // From here on the record says it.
        drop(claim);
        let snapshot = match snapshot {
            None => {
                let as_of = Instant::now();
                let looked = backend.status(&self.tenant_ref(&record)).await;
                looked.ok().map(|containers| Snapshot { as_of, containers })
            }
            seen => seen,
        };
        if let Some(Snapshot { as_of, containers }) = &snapshot {
            self.saw(op.tenant(), containers.clone(), *as_of);
            op.has_shown();
        }
        let observed = snapshot.map(|snapshot| snapshot.containers).unwrap_or_default();
        let record = Record { generation, ..record };
        let provisioned = self.provisioned_answer(wanted.kind, &record, observed).await;
        Ok(Provisioned { changed, created: !live, warnings, ..provisioned })
    }

    /// What is wanted, read, admitted, and with what it takes over.
    pub(super) async fn load_wanted(&self, record: &Record, wanted: &mut Wanted) -> Result<Loaded, Error> {
        let progress = wanted.run.progress.clone();
        progress.report("reading the Compose file");
        let mut tenant = self.tenant_ref(record);
        // What an earlier generation replaced is gone: the operation that took it over has ended.
        tenant.adopted.containers.clear();
        let mut loaded = self.load(tenant, wanted.spec.clone(), record.generation.next(), record.desired).await?;
        if wanted.kind == OperationKind::Update && !wanted.spec.pinned_images.is_empty() {
            // A pin is what one reference stood for. It says nothing about another one.
            let before = self.committed(record).await?;
            let (before, now) = (&before.deployment, &loaded.deployment);
            wanted.spec.pinned_images.retain(|name, _| {
                let (before, now) = (before.service(name), now.service(name));
                before.map(|service| &service.image) == now.map(|service| &service.image)
            });
            loaded.deployment.pinned_images.clone_from(&wanted.spec.pinned_images);
        }
        if let Some(only) = &wanted.run.only
            && let Some(unknown) = only.iter().find(|name| loaded.deployment.service(name).is_none())
        {
            return Err(Error::NoSuchService { subdomain: record.subdomain.clone(), service: unknown.clone() });
        }
        if wanted.adopt {
            progress.report("looking for what there is to take over");
            let found = self.backend(record.backend)?.adoptable(&loaded.deployment).await?;
            loaded.deployment.tenant.adopted.extend(found.adopted);
            loaded.warnings.extend(found.warnings);
        }
        loaded.deployment.authorised_images = record.authorised_images.iter().cloned().collect();
        Ok(loaded)
    }

    /// Whether everything is as wanted already.
    pub(super) fn is_same(&self, record: &Record, wanted: &Wanted, loaded: &Loaded, plan: &Plan) -> bool {
        let live = record.is_live();
        // A rollback always makes a generation: that is how a repeat of it is told from another one.
        live && wanted.kind != OperationKind::Rollback
            && plan.is_empty()
            && loaded.deployment.tenant.adopted.is_same_data(&record.adopted)
            && record.fingerprint == self.fingerprint(&wanted.spec)
    }

    /// Stores the committed generation again if it cannot be read any more and the same is asked for: the fingerprint says
    /// that it is the same, so nothing that runs has to change, and an undo has something to go back to. Says whether it did.
    async fn mend(&self, op: &Op, record: &Record, wanted: &Wanted, images: &ResolvedImages) -> Result<bool, Error> {
        let is_repeat = wanted.kind == OperationKind::Provision
            && record.is_live()
            && record.fingerprint == self.fingerprint(&wanted.spec);
        if !is_repeat {
            return Ok(false);
        }
        let (tenant, generation) = (record.subdomain.clone(), record.generation);
        match self.disk(move |fs| fs.generation(&tenant, generation)).await {
            Ok(_) => return Ok(false),
            Err(Error::Fs(error)) if error.is_damage() => {
                tracing::warn!(tenant = %record.subdomain, %error, "the specification is stored again");
            }
            Err(error) => return Err(error),
        }
        self.before_effects(op).await?;
        let tenant = record.subdomain.clone();
        let stored = stored_generation(wanted, images);
        self.disk(move |fs| fs.stage(&tenant, generation, &stored)).await?;
        Ok(true)
    }

    /// The answer for a tenant that stands at its record.
    pub(super) async fn provisioned_answer(
        &self,
        kind: OperationKind,
        record: &Record,
        observed: Vec<ObservedContainer>,
    ) -> Provisioned {
        // Nothing is remembered yet when this is the first that the tenant hears of this process.
        let standing = self.committed(record).await.ok();
        let warnings = standing.as_ref().map_or_else(Vec::new, |loaded| loaded.warnings.clone());
        let services = standing.map_or_else(Vec::new, |loaded| {
            let shape = Shape::of(loaded.deployment.project.project(), &[]);
            summary::services(&shape, record.desired, observed, false)
        });
        Provisioned {
            status: match kind {
                OperationKind::Update => "updated",
                OperationKind::Rollback => "rolled_back",
                _ => "provisioned",
            },
            id: record.id.clone(),
            subdomain: record.subdomain.clone(),
            project: ProjectName::of(&record.subdomain),
            backend: record.backend,
            region: record.region.clone(),
            generation: record.generation,
            changed: true,
            created: record.previous.is_none(),
            warnings,
            services,
        }
    }

    /// The two phases. Before this, nothing of the tenant was touched. Gives how it was at the end, if that was seen.
    async fn change(
        &self,
        op: &Op,
        record: &Record,
        wanted: &Wanted,
        loaded: Loaded,
        images: &ResolvedImages,
        plan: &Plan,
    ) -> Result<Option<Snapshot>, Error> {
        let backend = self.backend(record.backend)?;
        let deployment = &loaded.deployment;
        let target = deployment.generation;
        let stored = stored_generation(wanted, images);
        let journal = Journal {
            operation: op.id(),
            kind: wanted.kind,
            target: Some(target),
            service: None,
            undo: serde_json::to_value(&plan.undo).unwrap_or_default(),
            purge: false,
            started_at: jiff::Timestamp::now(),
        };
        op.report("writing files");
        if record.generation == Generation::NONE {
            let tenant = record.subdomain.clone();
            self.disk(move |fs| fs.may_create(&tenant)).await?;
        }
        self.before_effects(op).await?;
        let first = record.clone();
        let staging = self.disk(move |fs| {
            let tenant = &first.subdomain;
            if first.generation == Generation::NONE {
                fs.create(&first)?;
            }
            fs.begin(tenant, &journal)?;
            fs.stage(tenant, target, &stored)
        });
        let staged = self.timed(op, "stage", staging).await;
        let result = async {
            staged?;
            if record.generation == Generation::NONE {
                // From now on there is such a tenant, whatever becomes of it.
                self.on_record(record);
            }
            self.is_coming(record, &loaded);
            self.timed(op, "place_files", self.place_files(deployment)).await?;
            let settled = self.timed(op, "apply", backend.apply(deployment, images, plan, &wanted.run)).await?;
            op.running().close_to_cancel("it is being committed").map(|()| settled)
        }
        .await;
        let settled = match result {
            Ok(settled) => settled,
            Err(error) => {
                op.running().close_to_cancel("it is being undone already").ok();
                op.report("undoing");
                self.timed(op, "undo", self.undo(record, &error, &plan.undo)).await;
                return Err(error);
            }
        };
        op.report("committing");
        let committed = Record {
            kept: false,
            generation: target,
            previous: Some(record.generation).filter(|previous| *previous != Generation::NONE && !record.kept),
            fingerprint: self.fingerprint(&wanted.spec),
            adopted: deployment.tenant.adopted.clone(),
            demand: loaded.demand,
            // What an update was not about stays as it was made.
            rules: match wanted.run.only {
                Some(_) => record.rules.clone(),
                None => self.rules(&record.subdomain),
            },
            authorised_images: authorised(record, deployment, images),
            updated_at: jiff::Timestamp::now(),
            last_error: None,
            // One that brings a generation first, as a start may, has not done with it what it was to do.
            operation: Some(op.id()).filter(|_| op.running().now().kind == wanted.kind),
            ..record.clone()
        };
        if let Err(failed) = self.timed(op, "commit", self.commit_generation(&committed)).await {
            if failed.may_stand {
                // The operation stays open: the record decides as soon as the disk answers.
                self.recover_later(op.tenant().clone());
            } else {
                self.undo(record, &failed.error, &plan.undo).await;
            }
            return Err(failed.error);
        }
        let loaded = Arc::new(loaded);
        self.remember(op.tenant(), &loaded);
        let ended = if settled.is_some() {
            self.end(&committed, Some(&loaded)).await
        } else {
            op.report("removing what was replaced");
            self.timed(op, "settle", self.settle_and_end(&committed, &loaded)).await
        };
        if let Err(error) = ended {
            // The change is committed and stands; what is left over goes as soon as the backend answers.
            tracing::warn!(tenant = %op.tenant(), %error, "could not settle yet");
            self.recover_later(op.tenant().clone());
            return Ok(None);
        }
        Ok(settled)
    }

    /// Writes the record of a new generation. A failure need not mean that the old one stands: the new one may be in place
    /// and only its sync have failed. Undoing then would be undoing what the record says.
    pub(super) async fn commit_generation(&self, record: &Record) -> Result<(), NotCommitted> {
        let write = async || self.commit(record, OperationKind::Update).await;
        let Err(error) = write().await else { return Ok(()) };
        match self.record(&record.subdomain).await {
            Ok(Some(found)) if found.generation == record.generation && found.kept == record.kept => {
                tracing::warn!(tenant = %record.subdomain, %error, "the record is in place, but may not be on the disk");
                write().await.map_err(|error| NotCommitted { error, may_stand: true })
            }
            Ok(_) => Err(NotCommitted { error, may_stand: false }),
            Err(_) => Err(NotCommitted { error, may_stand: true }),
        }
    }

    /// The project files of a deployment, and what its containers bind besides.
    pub(super) async fn place_files(&self, deployment: &crate::backend::Deployment) -> Result<(), Error> {
        let (tenant, generation) = (deployment.tenant.subdomain.clone(), deployment.generation);
        // What is in a region mounts nothing of this disk.
        let (mounts, directories) = match &deployment.tenant.region {
            None => (deployment.mount_files(), deployment.data_directories()),
            Some(_) => (Vec::new(), Vec::new()),
        };
        self.disk(move |fs| {
            fs.put_in_place(&tenant, Some(generation))?;
            for file in &mounts {
                fs.write_mount(&tenant, &file.name, &file.bytes, file.uid, file.gid, file.mode)?;
            }
            for directory in &directories {
                fs.ensure_data_directory(&tenant, &directory.path, directory.uid, directory.gid)?;
            }
            Ok(())
        })
        .await
    }

    /// Puts the committed generation back after a failure, and notes the failure in the record.
    async fn undo(&self, record: &Record, failure: &Error, undo: &crate::backend::UndoNote) {
        let failed = LastError { code: failure.code(), message: failure.to_string(), at: jiff::Timestamp::now() };
        // Whoever cancels knows; it is no failure of the tenant.
        let cancelled = failed.code == crate::domain::ErrorCode::Cancelled;
        let last_error = if cancelled { record.last_error.clone() } else { Some(failed) };
        let noted = Record { last_error, ..record.clone() };
        if let Err(error) = self.put_back(&noted, Some(undo)).await {
            tracing::error!(tenant = %record.subdomain, %error, "could not undo yet");
            self.recover_later(record.subdomain.clone());
        }
    }

    /// The request's credentials, and the host's for a registry that the request does not name, if the policy lends them.
    pub(super) fn credentials(&self, tenant: &Subdomain, mut asked: Vec<RegistryAuth>) -> Vec<RegistryAuth> {
        let settings = &self.inner.settings;
        if let Some(host) = &settings.registry
            && settings.policy.of(tenant).host_credentials
            && asked.iter().all(|auth| auth.registry != host.registry)
        {
            asked.push(host.clone());
        }
        asked
    }
}

/// What is stored of a generation.
fn stored_generation(wanted: &Wanted, images: &ResolvedImages) -> StoredGeneration {
    let ids = images.iter().map(|(name, image)| (name.clone(), image.id.clone())).collect();
    StoredGeneration { spec: wanted.spec.clone(), images: ids }
}

/// How many images of one tenant are remembered; a forgotten one is asked about again.
const AUTHORISED_IMAGES: usize = 200;

/// The images that a tenant has been accepted with, those of a new generation last.
fn authorised(record: &Record, deployment: &crate::backend::Deployment, images: &ResolvedImages) -> Vec<String> {
    let project = deployment.project.project();
    let now: Vec<String> = images
        .iter()
        .filter_map(|(name, image)| Some(project.services.get(name)?.image.identity(image.digest.as_deref()?)))
        .collect();
    let before = record.authorised_images.iter().filter(|image| !now.contains(image)).cloned();
    let mut all: Vec<String> = before.chain(now.iter().cloned()).collect();
    all.dedup();
    all.split_off(all.len().saturating_sub(AUTHORISED_IMAGES))
}

/// The volumes that the images' own words add to those of the file.
fn volumes_of_images(loaded: &Loaded, images: &ResolvedImages) -> u64 {
    let services = images.iter().filter_map(|(name, image)| Some((loaded.deployment.service(name)?, image.volumes)));
    let each = services.map(|(service, volumes)| volumes.saturating_mul(u64::from(service.replicas())));
    each.fold(0, u64::saturating_add)
}

/// The record of a tenant of which there is none yet.
pub(super) fn new_record(subdomain: &Subdomain, id: &crate::domain::TenantId, placement: &Placement) -> Record {
    let now = jiff::Timestamp::now();
    Record {
        version: RECORD_VERSION,
        id: id.clone(),
        subdomain: subdomain.clone(),
        backend: placement.backend,
        region: placement.region.clone(),
        desired: DesiredState::Running,
        kept: false,
        generation: Generation::NONE,
        previous: None,
        fingerprint: String::new(),
        adopted: Adopted::default(),
        demand: Demand::default(),
        rules: String::new(),
        authorised_images: Vec::new(),
        created_at: now,
        updated_at: now,
        last_error: None,
        operation: None,
    }
}

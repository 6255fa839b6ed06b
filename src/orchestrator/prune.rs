//! Removing what is left over: objects of tenants that nobody knows, volumes that no generation names, images that no
//! generation runs, archives without a tenant.
//!
//! Only what this agent has made is looked at. A tenant is known while its directory is there, readable or not: what
//! damage hides is not left over. Data is never guessed to be useless: a volume goes only when the request names it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::operations::Op;
use super::{Error, LeftOver, LeftOverKind, Orchestrator, PruneRequest, Pruned};
use crate::backend::{Owned, OwnedKind, ResolvedImages};
use crate::domain::{Generation, OperationKind, Subdomain};
use crate::tenant_fs::Record;

/// What must stay.
struct Spared {
    /// Every tenant that has a directory.
    known: BTreeSet<Subdomain>,
    /// Ids of images of both generations; none when they are not known of every tenant.
    images: Option<BTreeSet<String>>,
}

impl Orchestrator {
    /// Lists what is left over and, unless it is a dry run, removes it.
    pub async fn prune(&self, request: PruneRequest) -> Result<Pruned, Error> {
        let this = self.clone();
        // What has begun ends, whether or not the client waits.
        let pruning = async move {
            let _one_at_a_time = this.inner.pruning.lock().await;
            this.prune_now(&request).await
        };
        let limit = self.inner.settings.operation_timeout;
        let running = self.inner.tasks.spawn(async move { tokio::time::timeout(limit, pruning).await });
        match running.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::PruneTooLong),
            Err(error) => {
                tracing::error!(%error, "a prune ended abnormally");
                Err(Error::Internal)
            }
        }
    }

    async fn prune_now(&self, request: &PruneRequest) -> Result<Pruned, Error> {
        let mut pruned = Pruned { dry_run: request.dry_run, objects: Vec::new(), removed: 0, freed_bytes: 0 };
        let pulled = self.disk(crate::tenant_fs::TenantFs::pulled_images).await?;
        let spared = self.spared().await?;
        let backend = self.backend(self.inner.settings.default_backend)?;
        let mut owned = backend.owned(&pulled).await?;
        owned.retain(|object| request.wants(kind(object.kind)));
        owned.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        let mut gone = BTreeSet::new();
        for object in owned {
            if !self.is_left_over(&object, &spared).await {
                continue;
            }
            let mut line = LeftOver {
                kind: kind(object.kind),
                name: object.name.clone(),
                subdomain: object.tenant.clone(),
                bytes: object.bytes,
                removed: false,
                note: None,
            };
            if object.kind == OwnedKind::Volume && !request.volumes.contains(&object.name) {
                line.note = Some("goes only if `volumes` names it");
            } else if !request.dry_run {
                match self.discard(&object).await {
                    Ok(true) => {
                        line.removed = true;
                        gone.insert(object.id);
                    }
                    Ok(false) => line.note = Some("is in use"),
                    Err(Error::Busy(_)) => line.note = Some("an operation is running on this tenant"),
                    Err(error) if error.is_backend_away() => return Err(error),
                    Err(error) => {
                        tracing::warn!(name = %line.name, %error, "what is left over could not be removed");
                        line.note = Some("could not be removed; the agent's log says why");
                    }
                }
            }
            pruned.add(line);
        }
        self.forget_pulled(gone).await?;
        if request.wants(LeftOverKind::Archive) {
            self.prune_archives(request.dry_run, &spared.known, &mut pruned).await?;
        }
        Ok(pruned)
    }

    async fn prune_archives(
        &self,
        dry_run: bool,
        known: &BTreeSet<Subdomain>,
        pruned: &mut Pruned,
    ) -> Result<(), Error> {
        let known = known.clone();
        let archives = self.disk(move |fs| fs.archives_of(|owner| !known.contains(owner))).await?;
        for (name, owner) in archives {
            let mut line = LeftOver {
                kind: LeftOverKind::Archive,
                name,
                subdomain: Some(owner.clone()),
                bytes: None,
                removed: false,
                note: None,
            };
            if !dry_run {
                // All of this tenant's at once; the lines after this one find theirs gone.
                let op = self.operation_on(&owner).await;
                match op {
                    Ok(_op) if self.record(&owner).await?.is_none() => {
                        self.disk(move |fs| fs.remove_archives(&owner)).await?;
                        line.removed = true;
                    }
                    _ => line.note = Some("is in use"),
                }
            }
            pruned.add(line);
        }
        Ok(())
    }

    /// Removes one object under its tenant's lock, if it is left over still.
    async fn discard(&self, object: &Owned) -> Result<bool, Error> {
        let _op = match &object.tenant {
            Some(tenant) => Some(self.operation_on(tenant).await?),
            None => None,
        };
        // With the lock: what was left over may have been taken up meanwhile.
        if !self.is_left_over(object, &self.spared().await?).await {
            return Ok(false);
        }
        let backend = self.backend(self.inner.settings.default_backend)?;
        Ok(backend.discard(object).await?)
    }

    async fn is_left_over(&self, object: &Owned, spared: &Spared) -> bool {
        match (&object.tenant, object.kind) {
            (None, _) => spared.images.as_ref().is_some_and(|images| !images.contains(&object.id)),
            (Some(tenant), _) if !spared.known.contains(tenant) => true,
            (Some(tenant), OwnedKind::Volume) => self.is_without_generation(tenant, &object.name).await,
            (Some(_), _) => false,
        }
    }

    /// Whether neither generation of a live tenant has this volume. What a teardown has kept is kept.
    async fn is_without_generation(&self, tenant: &Subdomain, volume: &str) -> bool {
        let Ok(record) = self.live_record(tenant).await else { return false };
        if record.adopted.volumes.keys().any(|name| name.as_str() == volume) {
            return false;
        }
        for generation in generations(&record) {
            let Ok(loaded) = self.stored(&record, generation).await else { return false };
            let mut volumes = loaded.deployment.project.project().volumes.values();
            if volumes.any(|named| named.name.as_str() == volume) {
                return false;
            }
        }
        true
    }

    /// The tenant's lock, if nobody has it.
    async fn operation_on(&self, tenant: &Subdomain) -> Result<Op, Error> {
        let timeout = self.inner.settings.operation_timeout;
        self.inner.operations.begin(tenant.clone(), OperationKind::Prune, Duration::ZERO, timeout).await
    }

    async fn spared(&self) -> Result<Spared, Error> {
        self.disk(|fs| {
            let mut known = BTreeSet::new();
            let mut images = Some(BTreeSet::new());
            for (tenant, record) in fs.tenants()? {
                // With an operation open there may be a third generation.
                let settled = fs.journal(&tenant).is_ok_and(|journal| journal.is_none());
                let stored = record.ok().filter(|_| settled).and_then(|record| {
                    let stored = generations(&record).map(|generation| fs.generation(&tenant, generation));
                    stored.collect::<Result<Vec<_>, _>>().ok()
                });
                match (stored, &mut images) {
                    (Some(stored), Some(images)) => {
                        images.extend(stored.into_iter().flat_map(|stored| stored.images.into_values()));
                    }
                    _ => images = None,
                }
                known.insert(tenant);
            }
            Ok(Spared { known, images })
        })
        .await
    }

    /// Remembers which images the agent has brought to the host.
    pub(super) async fn note_pulled(&self, images: &ResolvedImages) {
        let new: Vec<String> = images.values().filter(|image| image.pulled).map(|image| image.id.clone()).collect();
        if new.is_empty() {
            return;
        }
        let _one_at_a_time = self.inner.pulled.lock().await;
        let noted = self.disk(move |fs| {
            let mut images = fs.pulled_images()?;
            images.extend(new);
            fs.write_pulled_images(&images)
        });
        if let Err(error) = noted.await {
            // They stay until an operator removes them.
            tracing::warn!(%error, "what was pulled could not be noted");
        }
    }

    /// Takes images off the list that are gone.
    async fn forget_pulled(&self, gone: BTreeSet<String>) -> Result<(), Error> {
        if gone.is_empty() {
            return Ok(());
        }
        let _one_at_a_time = self.inner.pulled.lock().await;
        self.disk(move |fs| {
            let mut images = fs.pulled_images()?;
            images.retain(|id| !gone.contains(id));
            fs.write_pulled_images(&images)
        })
        .await
    }
}

/// The generations of a tenant that may run.
fn generations(record: &Record) -> impl Iterator<Item = Generation> {
    [Some(record.generation), record.previous].into_iter().flatten().filter(|at| *at != Generation::NONE)
}

fn kind(kind: OwnedKind) -> LeftOverKind {
    match kind {
        OwnedKind::Container => LeftOverKind::Container,
        OwnedKind::Network => LeftOverKind::Network,
        OwnedKind::Volume => LeftOverKind::Volume,
        OwnedKind::Image => LeftOverKind::Image,
    }
}

//! Removing what is left over: objects of tenants that nobody knows, volumes that no generation names, images that no
//! generation runs, archives without a tenant.
//!
//! Only what this agent has made is looked at. A tenant is known while its directory is there, readable or not: what
//! damage hides is not left over. Data is never guessed to be useless: a volume goes only when the request names it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::operations::{HostOp, Op};
use super::{Error, LeftOver, LeftOverKind, Orchestrator, PruneRequest, Pruned};
use crate::backend::{Owned, OwnedKind, Run, StepState};
use crate::domain::{BackendName, Generation, OperationKind, Placement, Subdomain};
use crate::tenant_fs::Record;

/// What is not on this host goes only if an earlier prune, or look, found it left over so long ago: a list from far away may
/// be older than a record that was written just now, and the records of this host may be older than what is there.
const SEEN_BEFORE: Duration = Duration::from_secs(60);
/// Where the backend tells when a thing was made or last changed, it is so old at least.
const OLD_ENOUGH: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);
/// And what was seen longer ago than this was seen too long ago to count.
const SEEN_AT_ALL: Duration = Duration::from_hours(24);

/// When what is left over elsewhere was first seen to be so, by backend and id.
#[derive(Default)]
pub(super) struct Seen(Mutex<HashMap<(BackendName, String), Instant>>);

impl Seen {
    /// Notes what is left over on a backend now, and forgets what is not any more.
    fn note(&self, backend: BackendName, ids: &BTreeSet<String>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(on, id), at| *on != backend || (ids.contains(id) && at.elapsed() < SEEN_AT_ALL));
        for id in ids {
            seen.entry((backend, id.clone())).or_insert_with(Instant::now);
        }
    }

    fn is_due(&self, backend: BackendName, id: &str) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&(backend, id.to_owned())).is_some_and(|at| at.elapsed() >= SEEN_BEFORE)
    }
}

/// What must stay.
struct Spared {
    /// Every tenant that has a directory, and where it is; none where its record cannot be read.
    known: BTreeMap<Subdomain, Option<Placement>>,
    /// Ids of images of both generations, or why no image can be said to be left over.
    images: Result<BTreeSet<String>, &'static str>,
}

impl Orchestrator {
    /// Lists what a prune would find left over, whatever the request says about a dry run.
    pub async fn what_is_left_over(&self, request: PruneRequest) -> Result<Pruned, Error> {
        let request = PruneRequest { dry_run: true, ..request };
        let mut pruned = Pruned { dry_run: true, ..Pruned::default() };
        let listing = self.prune_all(&request, None, &mut pruned);
        tokio::time::timeout(self.inner.settings.operation_timeout, listing)
            .await
            .unwrap_or(Err(Error::PruneTooLong))?;
        Ok(pruned)
    }

    /// Removes what is left over. Between any two objects it can be cancelled, and ends with its time and with the agent.
    pub(super) async fn do_prune(&self, op: &HostOp, request: &PruneRequest) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        match self.prune_all(request, Some(op), &mut pruned).await {
            Ok(()) => Ok(pruned),
            Err(why) if pruned.removed == 0 => Err(why),
            Err(why) => Err(Error::PruneCutShort { why: Box::new(why), pruned: Box::new(pruned) }),
        }
    }

    /// Lists what is left over and, in an operation, removes it.
    async fn prune_all(&self, request: &PruneRequest, op: Option<&HostOp>, pruned: &mut Pruned) -> Result<(), Error> {
        if op.is_some() {
            self.forget_gone_images().await;
        }
        let pulled = self.disk(crate::tenant_fs::TenantFs::pulled_images).await?;
        let spared = self.spared().await?;
        if request.wants(LeftOverKind::Image) {
            pruned.images_spared = spared.images.as_ref().err().copied();
        }
        let default = self.inner.settings.default_backend;
        self.prune_on(default, &pulled, &spared, request, op, pruned).await?;
        for name in self.inner.backends.keys().copied().filter(|name| *name != default) {
            let told = self.prune_on(name, &pulled, &spared, request, op, pruned).await;
            if let Some(op) = op {
                self.may_go_on(op)?;
            }
            if let Err(error) = told {
                tracing::warn!(backend = %name, %error, "not all that is left over there can be told");
                pruned.unseen.push(name);
            }
        }
        if request.wants(LeftOverKind::Archive) {
            self.prune_archives(op, &spared, pruned).await?;
        }
        // Whoever asked for its end gets it, even if there was no more to do.
        op.map_or(Ok(()), |op| op.running().close_to_cancel("it has done what it was to do"))
    }

    /// Whether a prune may do one thing more.
    fn may_go_on(&self, op: &HostOp) -> Result<(), Error> {
        op.running().check_cancelled()?;
        if self.inner.stopping.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        if Instant::now() >= op.deadline() { Err(Error::PruneTooLong) } else { Ok(()) }
    }

    async fn prune_on(
        &self,
        name: BackendName,
        pulled: &BTreeSet<String>,
        spared: &Spared,
        request: &PruneRequest,
        op: Option<&HostOp>,
        pruned: &mut Pruned,
    ) -> Result<(), Error> {
        let listing = self.backend(name)?.owned(pulled);
        let owned = match op {
            None => listing.await?,
            Some(op) => {
                op.running().progress.report(format!("looking for what is left over on {name}"));
                let listing = op.running().unless_cancelled(listing);
                tokio::time::timeout_at(op.deadline(), listing).await.unwrap_or(Err(Error::PruneTooLong))?
            }
        };
        let mut left_over = self.left_over_of(name, owned, spared).await;
        left_over.retain(|object| request.wants(kind(object.kind)));
        left_over.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        let Some(op) = op else {
            for object in &left_over {
                pruned.add(line(name, object, stays(object, request)));
            }
            return Ok(());
        };
        self.remove_each(name, left_over, request, op, pruned).await
    }

    /// Removes what may go, one after the other.
    async fn remove_each(
        &self,
        name: BackendName,
        left_over: Vec<Owned>,
        request: &PruneRequest,
        op: &HostOp,
        pruned: &mut Pruned,
    ) -> Result<(), Error> {
        let now = jiff::Timestamp::now();
        let stays = |object: &Owned| {
            let is_due = name.is_on_this_host() || self.inner.left_over.is_due(name, &object.id);
            stays(object, request)
                .or_else(|| is_young(object, now).then_some("goes when it is five minutes old: ask again"))
                .or_else(|| (!is_due).then_some("goes when it has been seen to be left over for a minute: ask again"))
        };
        let lines: Vec<LeftOver> = left_over.iter().map(|object| line(name, object, stays(object))).collect();
        op.running().progress.plan_more(lines.iter().filter(|line| line.note.is_none()).count());
        for (object, mut line) in left_over.iter().zip(lines) {
            if line.note.is_none() {
                self.remove(op, &mut line, self.discard(name, object)).await?;
            }
            pruned.add(line);
        }
        Ok(())
    }

    /// Removes one thing, as `removing` does it, if there is time for it.
    async fn remove(
        &self,
        op: &HostOp,
        line: &mut LeftOver,
        removing: impl Future<Output = Result<bool, Error>>,
    ) -> Result<(), Error> {
        self.may_go_on(op)?;
        self.before_effect_on_host(op.running()).await?;
        let (progress, what) = (&op.running().progress, format!("{} {}", line.kind, line.name));
        progress.report(format!("removing {what}"));
        progress.step(what.clone(), "remove", StepState::Begun);
        let begun = Instant::now();
        // What the backend is doing is waited for, whatever the time: nobody else may take it up meanwhile.
        let removed = removing.await;
        self.inner.metrics.step(OperationKind::Prune, "remove", begun.elapsed());
        line.removed = matches!(removed, Ok(true));
        if line.removed {
            let tenant = line.subdomain.as_ref().map(tracing::field::display);
            tracing::info!(operation = %op.running().id(), kind = %line.kind, name = %line.name, tenant, "left over, and removed");
        }
        progress.step(what, "remove", if line.removed { StepState::Done } else { StepState::Failed });
        line.note = match removed {
            Ok(true) => None,
            Ok(false) => Some("is in use"),
            Err(Error::Busy(_)) => Some("an operation is running on this tenant"),
            Err(error) if error.is_backend_away() => return Err(error),
            Err(error) => {
                tracing::warn!(name = %line.name, %error, "what is left over could not be removed");
                Some("could not be removed; the agent's log says why")
            }
        };
        Ok(())
    }

    /// What of all this is left over.
    async fn left_over_of(&self, name: BackendName, owned: Vec<Owned>, spared: &Spared) -> Vec<Owned> {
        let mut left_over = Vec::new();
        for object in owned {
            if self.is_left_over(name, &object, spared).await {
                left_over.push(object);
            }
        }
        if !name.is_on_this_host() {
            self.inner.left_over.note(name, &left_over.iter().map(|object| object.id.clone()).collect());
        }
        left_over
    }

    /// Tells the operator of what is left over where it costs money. Nothing is removed.
    pub(super) async fn look_for_left_overs(&self) {
        for name in self.inner.backends.keys().copied().filter(|name| !name.is_on_this_host()) {
            let looked = async {
                let owned = self.backend(name)?.owned(&BTreeSet::new()).await?;
                Ok::<_, Error>(self.left_over_of(name, owned, &self.spared().await?).await)
            };
            match tokio::time::timeout(self.inner.settings.operation_timeout, looked).await {
                Ok(Ok(left_over)) if left_over.is_empty() => {}
                Ok(Ok(left_over)) => tracing::warn!(
                    backend = %name,
                    count = left_over.len(),
                    "something is left over that no tenant has; POST /v1/system/prune lists it"
                ),
                Ok(Err(error)) => tracing::warn!(backend = %name, %error, "what is left over there cannot be told"),
                Err(_) => tracing::warn!(backend = %name, "what is left over there is not told in time"),
            }
        }
    }

    async fn prune_archives(&self, op: Option<&HostOp>, spared: &Spared, pruned: &mut Pruned) -> Result<(), Error> {
        let known: BTreeSet<Subdomain> = spared.known.keys().cloned().collect();
        let archives = self.disk(move |fs| fs.archives_of(|owner| !known.contains(owner))).await?;
        if let Some(op) = op {
            op.running().progress.plan_more(archives.len());
        }
        for (name, owner) in archives {
            let mut line = LeftOver {
                kind: LeftOverKind::Archive,
                name,
                backend: None,
                region: None,
                subdomain: Some(owner.clone()),
                bytes: None,
                removed: false,
                note: None,
            };
            if let Some(op) = op {
                // All of this tenant's at once; the lines after this one find theirs gone.
                let removing = async {
                    let _op = self.operation_on(&owner).await?;
                    if self.record(&owner).await?.is_some() {
                        return Ok(false);
                    }
                    self.disk(move |fs| fs.remove_archives(&owner)).await.map(|_| true)
                };
                self.remove(op, &mut line, removing).await?;
            }
            pruned.add(line);
        }
        Ok(())
    }

    /// Removes one object under its tenant's lock, if it is left over still.
    async fn discard(&self, name: BackendName, object: &Owned) -> Result<bool, Error> {
        let _op = match &object.tenant {
            Some(tenant) => Some(self.operation_on(tenant).await?),
            None => None,
        };
        // One that is pulled again meanwhile is noted after it has been taken off the list.
        let _pulled = match object.kind {
            OwnedKind::Image => Some(self.inner.pulled.lock().await),
            _ => None,
        };
        // With the lock: what was left over may have been taken up meanwhile.
        if !self.is_left_over(name, object, &self.spared().await?).await {
            return Ok(false);
        }
        let removed = self.backend(name)?.discard(object).await?;
        if removed && object.kind == OwnedKind::Image {
            self.take_off(BTreeSet::from([object.id.clone()])).await;
        }
        Ok(removed)
    }

    async fn is_left_over(&self, name: BackendName, object: &Owned, spared: &Spared) -> bool {
        let Some(tenant) = &object.tenant else {
            return spared.images.as_ref().is_ok_and(|images| !images.contains(&object.id));
        };
        match spared.known.get(tenant) {
            None => true,
            // It is somewhere else, and a tenant is in one place.
            Some(Some(place)) if place.backend != name => true,
            Some(Some(place)) if object.region.is_some() && place.region != object.region => true,
            Some(_) if object.kind == OwnedKind::Volume => self.is_without_generation(tenant, &object.name).await,
            Some(_) => false,
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
        // An operation may be about to use an image that it has found here, long before its journal says so.
        let is_quiet = !self.inner.operations.ledger.is_bringing_up();
        self.disk(move |fs| {
            let mut known = BTreeMap::new();
            let mut images = if is_quiet { Ok(BTreeSet::new()) } else { Err("an operation runs that may need them") };
            for (tenant, record) in fs.tenants()? {
                // With an operation open there may be a third generation.
                let settled = fs.journal(&tenant).is_ok_and(|journal| journal.is_none());
                let record = record.ok();
                let place =
                    record.as_ref().map(|record| Placement { backend: record.backend, region: record.region.clone() });
                let stored = record.filter(|_| settled).and_then(|record| {
                    let stored = generations(&record).map(|generation| fs.generation(&tenant, generation));
                    stored.collect::<Result<Vec<_>, _>>().ok()
                });
                match (stored, &mut images) {
                    (Some(stored), Ok(images)) => {
                        images.extend(stored.into_iter().flat_map(|stored| stored.images.into_values()));
                    }
                    (None, Ok(_)) => {
                        images = Err("what a tenant needs is not known: it is damaged, or has an operation open");
                    }
                    (_, Err(_)) => {}
                }
                known.insert(tenant, place);
            }
            Ok(Spared { known, images })
        })
        .await
    }

    /// Remembers which images an operation has brought to the host.
    pub(super) async fn note_pulled(&self, run: &Run) {
        let new = run.take_brought();
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

    /// Takes images off the list that are gone: one that somebody else removes, and brings back, is the agent's no more.
    pub(super) async fn forget_gone_images(&self) {
        let _one_at_a_time = self.inner.pulled.lock().await;
        let looked = async {
            let pulled = self.disk(crate::tenant_fs::TenantFs::pulled_images).await?;
            let mut gone = BTreeSet::new();
            for backend in self.inner.backends.values().filter(|backend| backend.name().is_on_this_host()) {
                gone.extend(backend.gone(&pulled).await?);
            }
            Ok::<_, Error>(gone)
        };
        match looked.await {
            Ok(gone) => self.take_off(gone).await,
            Err(error) => tracing::debug!(%error, "which images are gone cannot be told"),
        }
    }

    /// Takes them off the list, whose lock the caller has. What cannot be taken off now is found gone later.
    async fn take_off(&self, gone: BTreeSet<String>) {
        if gone.is_empty() {
            return;
        }
        let taken = self.disk(move |fs| {
            let mut images = fs.pulled_images()?;
            images.retain(|id| !gone.contains(id));
            fs.write_pulled_images(&images)
        });
        if let Err(error) = taken.await {
            tracing::warn!(%error, "which images are gone could not be noted");
        }
    }
}

/// The generations of a tenant that may run.
fn generations(record: &Record) -> impl Iterator<Item = Generation> {
    [Some(record.generation), record.previous].into_iter().flatten().filter(|at| *at != Generation::NONE)
}

/// Why it stays although it is left over, dry run or not.
fn stays(object: &Owned, request: &PruneRequest) -> Option<&'static str> {
    let is_kept = object.kind == OwnedKind::Volume && !request.volumes.contains(&object.name);
    is_kept.then_some("goes only if `volumes` names it")
}

/// What is told of it.
fn line(backend: BackendName, object: &Owned, note: Option<&'static str>) -> LeftOver {
    LeftOver {
        kind: kind(object.kind),
        name: object.name.clone(),
        backend: Some(backend),
        region: object.region.clone(),
        subdomain: object.tenant.clone(),
        bytes: object.bytes,
        removed: false,
        note,
    }
}

/// Whether its backend says that it was made, or changed, just now. A time that is still to come says so too.
fn is_young(object: &Owned, now: jiff::Timestamp) -> bool {
    object.since.is_some_and(|since| now.duration_since(since) < OLD_ENOUGH)
}

fn kind(kind: OwnedKind) -> LeftOverKind {
    match kind {
        OwnedKind::Container => LeftOverKind::Container,
        OwnedKind::Network => LeftOverKind::Network,
        OwnedKind::Volume => LeftOverKind::Volume,
        OwnedKind::Image => LeftOverKind::Image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_young_by_its_backends_clock_stays() {
        let now: jiff::Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        for (since, young) in [
            (None, false),
            (Some("2026-01-01T00:55:00Z"), false),
            (Some("2026-01-01T00:55:01Z"), true),
            (Some("2026-01-01T02:00:00Z"), true),
        ] {
            let since = since.map(|since| since.parse().unwrap());
            let object = Owned {
                kind: OwnedKind::Container,
                name: "x".to_owned(),
                id: "x".to_owned(),
                tenant: None,
                region: None,
                bytes: None,
                since,
            };
            assert_eq!(is_young(&object, now), young, "{since:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_elsewhere_goes_when_it_has_been_seen_before() {
        let (seen, on) = (Seen::default(), BackendName::Aci);
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        seen.note(on, &ids(&["a", "b"]));
        assert!(!seen.is_due(on, "a"), "seen once");
        tokio::time::advance(SEEN_BEFORE / 2).await;
        seen.note(on, &ids(&["a"]));
        tokio::time::advance(SEEN_BEFORE / 2).await;
        seen.note(on, &ids(&["a", "b"]));
        seen.note(BackendName::Memory, &ids(&[]));
        assert!(seen.is_due(on, "a"), "a look at another backend says nothing about it");
        assert!(!seen.is_due(on, "b"), "it was not left over in between");
        tokio::time::advance(SEEN_AT_ALL).await;
        seen.note(on, &ids(&["a"]));
        assert!(!seen.is_due(on, "a"), "that was too long ago");
    }
}

//! Finishing or undoing what was left half done: after a failure, a crash, or a backend that went away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::Entry;
use futures::FutureExt as _;
use tokio::sync::Notify;

use super::contained::contained;
use super::load::Loaded;
use super::operations::Op;
use super::{Error, Kept, Orchestrator, StartError};
use crate::backend::{BackendError, UndoNote};
use crate::domain::{DesiredState, Generation, OperationKind, OperationRecord, Outcome, Subdomain};
use crate::tenant_fs::{FsError, Journal, Late, Record};

/// Pause before a failed recovery is tried again, doubled up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// Pauses before a recovered tenant is looked at again. What the engine was making when its caller went away may appear
/// after the recovery has looked, because nothing ends a call that the engine has taken.
const LOOKS: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(60)];
/// How often archives are looked through for expired ones.
const SWEEP: Duration = Duration::from_secs(3600);
/// How often the spare files that were used on a full disk are made again, as far as there is room.
const REFILL: Duration = Duration::from_secs(60);

/// A recovery that waits for its next attempt.
#[derive(Default)]
pub(super) struct Waiting {
    /// Ends the pause.
    sooner: Notify,
    /// An operation has finished what was open.
    closed: AtomicBool,
    /// Something has failed since the last attempt began.
    again: AtomicBool,
}

impl Waiting {
    /// Whether something is still open.
    pub(super) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }
}

impl Orchestrator {
    /// Reads every record. A tenant with an open operation is locked before this returns and recovered in the
    /// background; the others can be served at once.
    pub async fn take_stock(&self) -> Result<(), StartError> {
        let fs = Arc::clone(&self.inner.fs);
        let read = tokio::task::spawn_blocking(move || {
            let tenants = fs.tenants()?.into_iter().map(|(tenant, record)| (fs.journal(&tenant), tenant, record));
            let tenants: Vec<_> = tenants.collect();
            let late = fs.late().unwrap_or_else(|error| {
                tracing::warn!(%error, "tenants that were recovered before this start are not looked at again");
                Vec::new()
            });
            Ok::<_, FsError>((tenants, late, fs.operations()?))
        });
        let (tenants, late, operations) = read.await.map_err(|_| StartError::Interrupted)??;
        let mut left = self.remember_operations(operations);
        let mut standing: BTreeMap<Subdomain, Result<Record, ()>> = BTreeMap::new();
        for (journal, tenant, record) in tenants {
            // Locked before anything else is done about it.
            let open = journal.as_ref().map_or(true, Option::is_some);
            match &journal {
                Ok(Some(journal)) => self.is_left_behind(&tenant, journal, left.remove(&journal.operation)),
                Ok(None) => {}
                // Which one it was about cannot be read.
                Err(_) => {
                    let is_its = |_: &_, left: &mut OperationRecord| left.operation.subdomain.as_ref() == Some(&tenant);
                    left.extract_if(.., is_its).for_each(|(_, record)| self.reopen(record));
                    self.quarantined(&tenant).await;
                }
            }
            if !left.is_empty() {
                standing.insert(tenant.clone(), record.as_ref().map(Record::clone).map_err(|_| ()));
            }
            match record {
                Err(error) => {
                    tracing::error!(%tenant, %error, "the record cannot be read; this tenant is not served");
                    self.quarantined(&tenant).await;
                    // Without a record the directory may be anybody's.
                    if !matches!(error, FsError::NoRecord(_)) {
                        self.has_damage(&tenant);
                    }
                    self.recover_later(tenant);
                }
                Ok(record) => {
                    self.in_stock(&record);
                    let unfinished = open || record.generation == Generation::NONE;
                    if unfinished || self.lost_with_the_agent(&record) {
                        self.recover_now(tenant).await;
                    }
                }
            }
        }
        let left = left.into_values().map(|operation| {
            let (id, kind) = (operation.operation.id, operation.operation.kind);
            let Some(tenant) = &operation.operation.subdomain else {
                // Each thing that it removes, or writes, is whole or not there: nothing has to be recovered.
                return (operation, None, Outcome::Unknown);
            };
            match standing.get(tenant) {
                Some(Ok(record)) => {
                    let outcome = Self::outcome_by_record(id, kind, Some(record));
                    (operation, Some(record.clone()), outcome)
                }
                // One that cannot be read says nothing, and its operation must end all the same.
                Some(Err(())) => (operation, None, Outcome::Unknown),
                None => (operation, None, Self::outcome_by_record(id, kind, None)),
            }
        });
        self.settle_left_operations(left.collect());
        for late in late {
            self.look_again(Some(late));
        }
        self.inner.inventory_done.store(true, Ordering::Release);
        self.inner.stats.changed();
        for name in self.inner.backends.keys() {
            tokio::spawn(self.inner.stopping.clone().run_until_cancelled_owned(self.clone().watch_over(*name)));
        }
        tokio::spawn(self.inner.stopping.clone().run_until_cancelled_owned(self.clone().warm_up()));
        let (this, stopping) = (self.clone(), self.inner.stopping.clone());
        let sweeping = async move {
            loop {
                this.sweep().await;
                tokio::time::sleep(SWEEP).await;
            }
        };
        tokio::spawn(stopping.clone().run_until_cancelled_owned(sweeping));
        let this = self.clone();
        let refilling = async move {
            loop {
                tokio::time::sleep(REFILL).await;
                // It has logged why not.
                this.disk(|fs| {
                    fs.refill_spares();
                    Ok(())
                })
                .await
                .ok();
                this.write_what_could_not_be_written().await;
            }
        };
        tokio::spawn(stopping.run_until_cancelled_owned(refilling));
        Ok(())
    }

    /// Forgets what has had its time: archives, records of operations, leftovers that are gone.
    async fn sweep(&self) {
        let retention = self.inner.settings.archive_retention;
        match self.disk(move |fs| fs.sweep_archives(retention)).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "expired archives were deleted"),
            Err(error) => tracing::warn!(%error, "archives could not be swept"),
        }
        // What went wrong is in the log; the next sweep tries again.
        contained(self.prune_operations().map(Ok)).await.ok();
        contained(self.look_for_left_overs().map(Ok)).await.ok();
        contained(self.forget_gone_images().map(Ok)).await.ok();
    }

    /// Whether the backend forgot this tenant when the agent ended.
    fn lost_with_the_agent(&self, record: &Record) -> bool {
        !record.kept && self.backend(record.backend).is_ok_and(|backend| !backend.capabilities().survives_agent)
    }

    /// Takes the lock now, recovers in the background.
    async fn recover_now(&self, tenant: Subdomain) {
        let timeout = self.inner.settings.operation_timeout;
        let began = self.inner.operations.begin(tenant.clone(), OperationKind::Recover, Duration::ZERO, timeout).await;
        let Ok(op) = began else { return self.recover_later(tenant) };
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            let before = this.before_recovery(&tenant).await;
            let recovered = this.recover(&op).await;
            this.look_after(&op, recovered.as_ref().err()).await;
            drop(op);
            this.turn(&tenant);
            match recovered {
                Ok(()) => {
                    tracing::info!(%tenant, "recovered");
                    this.look_again(before);
                }
                Err(error) => {
                    tracing::error!(%tenant, %error, "could not be recovered yet");
                    this.recover_later(tenant);
                }
            }
        });
    }

    async fn recover(&self, op: &Op) -> Result<(), Error> {
        let recovered = contained(self.try_to_recover(op)).await;
        self.inner.metrics.recovered(recovered.is_ok());
        self.inner.stats.changed();
        recovered
    }

    async fn try_to_recover(&self, op: &Op) -> Result<(), Error> {
        self.finish_open_operation(op).await?;
        match self.record(op.tenant()).await? {
            Some(record) if record.generation == Generation::NONE => {
                self.works(op);
                self.put_back(&record, None).await
            }
            Some(record) if self.lost_with_the_agent(&record) => {
                self.works(op);
                self.run_again(op, &record).await
            }
            Some(_) => Ok(()),
            None => {
                let tenant = op.tenant().clone();
                self.disk(move |fs| fs.check_record_or_nothing(&tenant)).await
            }
        }
    }

    /// From here on the tenant shows that something is done to it.
    pub(super) fn works(&self, op: &Op) {
        op.running().works();
        self.turn(op.tenant());
    }

    /// Tries again, with growing pauses, until the tenant has been recovered (by this or by a request).
    pub(super) fn recover_later(&self, tenant: Subdomain) {
        let waiting = Arc::new(Waiting::default());
        match self.inner.degraded.entry(tenant.clone()) {
            Entry::Occupied(entry) => {
                let was_closed = entry.get().closed.swap(false, Ordering::AcqRel);
                entry.get().again.store(true, Ordering::Release);
                drop(entry);
                if was_closed {
                    self.turn(&tenant);
                }
                return;
            }
            Entry::Vacant(entry) => drop(entry.insert(Arc::clone(&waiting))),
        }
        self.turn(&tenant);
        let (this, stopping) = (self.clone(), self.inner.stopping.clone());
        tokio::spawn(async move {
            let mut pause = RETRY_FIRST;
            // Only the waiting is cut short: a recovery that has begun ends like any operation.
            while stopping.run_until_cancelled(tokio::time::timeout(pause, waiting.sooner.notified())).await.is_some() {
                // A purge has ended it; what came after that has its own.
                if !this.inner.degraded.get(&tenant).is_some_and(|current| Arc::ptr_eq(&current, &waiting)) {
                    return;
                }
                let timeout = this.inner.settings.operation_timeout;
                let begun =
                    this.inner.operations.begin(tenant.clone(), OperationKind::Recover, Duration::ZERO, timeout).await;
                if let Ok(op) = begun {
                    let before = this.before_recovery(&tenant).await;
                    waiting.again.store(false, Ordering::Release);
                    let recovered = this.recover(&op).await;
                    this.look_after(&op, recovered.as_ref().err()).await;
                    op.step_down();
                    // Before anybody else begins: whoever fails next has to say so anew.
                    let is_over = recovered.is_ok() && this.is_recovered(&tenant, &waiting);
                    drop(op);
                    this.turn(&tenant);
                    match recovered {
                        Ok(()) if !is_over => {}
                        Ok(()) => {
                            tracing::info!(%tenant, "recovered");
                            this.look_again(before);
                            return;
                        }
                        Err(error) => tracing::warn!(%tenant, %error, "still cannot be recovered"),
                    }
                }
                pause = (pause * 2).min(RETRY_MOST);
            }
        });
    }

    /// Takes a tenant off the list of those to recover, unless something has failed meanwhile.
    fn is_recovered(&self, tenant: &Subdomain, waiting: &Arc<Waiting>) -> bool {
        let is_over =
            |_: &_, current: &Arc<Waiting>| Arc::ptr_eq(current, waiting) && !current.again.load(Ordering::Acquire);
        self.inner.degraded.remove_if(tenant, is_over).is_some()
    }

    /// Ends the pause before the next recovery, if there is one: there may be nothing left to recover.
    pub(super) fn recover_sooner(&self, tenant: &Subdomain) {
        if let Some(waiting) = self.inner.degraded.get(tenant) {
            waiting.sooner.notify_one();
        }
    }

    /// A purge leaves nothing to recover.
    pub(super) fn recover_no_more(&self, tenant: &Subdomain) {
        if let Some((_, waiting)) = self.inner.degraded.remove(tenant) {
            waiting.sooner.notify_one();
        }
    }

    /// The tenants with something to recover.
    pub(super) fn to_recover(&self) -> Vec<Subdomain> {
        let open = self.inner.degraded.iter().filter(|waiting| waiting.is_open());
        open.map(|waiting| waiting.key().clone()).collect()
    }

    /// The record, and what the open operation noted for its undo: afterwards there may be neither, so it is noted where
    /// the next agent finds it if this one dies before it has looked again.
    async fn before_recovery(&self, tenant: &Subdomain) -> Option<Late> {
        let name = tenant.clone();
        let read = self.disk(move |fs| Ok((fs.record(&name)?, fs.journal(&name)?))).await;
        let (record, journal) = read.ok()?;
        let record = record.filter(|record| !self.lost_with_the_agent(record))?;
        let before = Late { record, undo: journal.map(|journal| journal.undo).unwrap_or_default() };
        let late = before.clone();
        if let Err(error) = self.disk(move |fs| fs.note_late(&late)).await {
            // Undoing makes room on a full disk; it must not wait for this.
            tracing::warn!(%tenant, %error, "that this tenant is being recovered could not be noted");
        }
        Some(before)
    }

    /// Settles a recovered tenant again after a while (see [`LOOKS`]).
    fn look_again(&self, before: Option<Late>) {
        let Some(Late { record: before, undo }) = before else { return };
        let undo: Option<UndoNote> = serde_json::from_value(undo).ok();
        let (this, stopping) = (self.clone(), self.inner.stopping.clone());
        tokio::spawn(async move {
            let tenant = before.subdomain.clone();
            for pause in LOOKS {
                if stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                let timeout = this.inner.settings.operation_timeout;
                let begun =
                    this.inner.operations.begin(tenant.clone(), OperationKind::Recover, Duration::ZERO, timeout).await;
                let Ok(op) = begun else { continue };
                let settled = contained(this.settle_again(&before, undo.as_ref())).await;
                this.look_after(&op, settled.as_ref().err()).await;
                drop(op);
                this.turn(&tenant);
                if let Err(error) = settled {
                    tracing::warn!(%tenant, %error, "could not look for late objects");
                }
            }
            let looked_at = tenant.clone();
            if let Err(error) = this.disk(move |fs| fs.forget_late(&looked_at)).await {
                tracing::warn!(%tenant, %error, "this tenant will be looked at again at the next start");
            }
        });
    }

    async fn settle_again(&self, before: &Record, undo: Option<&UndoNote>) -> Result<(), Error> {
        let tenant = before.subdomain.clone();
        let (open, current) = self.disk(move |fs| Ok((fs.journal(&tenant)?.is_some(), fs.record(&tenant)?))).await?;
        if open {
            // Not recovered after all; whoever recovers it looks again.
            return Ok(());
        }
        let backend = self.backend(before.backend)?;
        match current {
            Some(record) if record.id == before.id && record.is_where(before) => {
                let loaded = if record.kept { None } else { Some(self.committed(&record).await?) };
                let deployment = loaded.as_ref().map(|loaded| &loaded.deployment);
                backend.settle(&self.tenant_ref(&record), record.generation, deployment, None).await?;
            }
            // Gone, or somebody else's by now, or somewhere else. Volumes go too, but for those that were there before the operation.
            _ => {
                // What was given back then may have been stopped on purpose since.
                let undo = undo.map(|undo| UndoNote { running: Vec::new(), ..undo.clone() });
                backend.settle(&self.tenant_ref(before), Generation::NONE, None, undo.as_ref()).await?;
            }
        }
        Ok(())
    }

    /// If an earlier operation is still open, finishes or undoes it: the record decides.
    pub(super) async fn finish_open_operation(&self, op: &Op) -> Result<(), Error> {
        let tenant = op.tenant().clone();
        let (journal, record) = self
            .disk(move |fs| {
                let journal = fs.journal(&tenant)?;
                let record = if journal.is_some() { fs.record(&tenant)? } else { None };
                Ok((journal, record))
            })
            .await?;
        let Some(journal) = journal else { return Ok(()) };
        let Some(record) = record else {
            // A purge moves the directory away whole, so somebody damaged it: its data is not ours to delete.
            tracing::error!(tenant = %op.tenant(), "an open operation has no record; this tenant is left as it is");
            return Err(Error::Internal);
        };
        tracing::info!(tenant = %op.tenant(), kind = ?journal.kind, "an earlier operation is open");
        op.report("finishing an earlier operation");
        self.works(op);
        let (outcome, kept) = self.finish(op, &record, &journal).await?;
        let after = self.record(op.tenant()).await?;
        self.recovered(journal.operation, Some(journal.kind), outcome, after.as_ref(), kept).await;
        // A recovery takes itself off the list when it is over.
        if op.running().now().kind != OperationKind::Recover
            && let Some(waiting) = self.inner.degraded.get(op.tenant())
        {
            waiting.closed.store(true, Ordering::Release);
        }
        if journal.kind == OperationKind::Teardown {
            // It may have begun over one that could not be finished.
            self.give_up_left_operations(op.tenant(), op.id()).await;
        }
        Ok(())
    }

    /// Finishes or undoes an open operation, and says which.
    async fn finish(&self, op: &Op, record: &Record, journal: &Journal) -> Result<(Outcome, Option<Kept>), Error> {
        let undo: Option<UndoNote> = serde_json::from_value(journal.undo.clone()).ok();
        match journal.kind {
            OperationKind::Provision | OperationKind::Update | OperationKind::Rollback | OperationKind::Recover => {
                let committed = journal.target.is_some_and(|target| record.generation >= target) && !record.kept;
                if committed {
                    // Its sync may have failed, and what it replaced is removed next.
                    self.commit(record, OperationKind::Recover).await?;
                    let loaded = self.committed(record).await?;
                    self.settle_and_end(record, &loaded).await?;
                    Ok((Outcome::Finished, None))
                } else {
                    self.put_back(record, undo.as_ref()).await?;
                    Ok((Outcome::Undone, None))
                }
            }
            // Nothing of these can be half done, so they have no journal.
            OperationKind::Prune | OperationKind::Cordon | OperationKind::Uncordon => {
                self.end_lightly(record).await?;
                Ok((Outcome::Unknown, None))
            }
            OperationKind::Teardown => {
                let kept = self.tear_down(op, journal, record).await?;
                Ok((Outcome::Finished, Some(kept)))
            }
            OperationKind::Stop | OperationKind::Start | OperationKind::Restart => {
                let loaded = self.committed(record).await?;
                let outcome = self.run_as_asked(op, record, journal, &loaded).await?;
                if outcome != Outcome::Finished {
                    self.disown(record, journal.operation).await?;
                }
                self.end(record, Some(&loaded)).await?;
                Ok((outcome, None))
            }
        }
    }

    /// Does a restart, stop or start once more, and says what became of it. For the whole tenant the record says which way
    /// it goes: a stop or start that had not come to its commit is undone.
    async fn run_as_asked(
        &self,
        op: &Op,
        record: &Record,
        journal: &Journal,
        loaded: &Loaded,
    ) -> Result<Outcome, Error> {
        let (backend, run) = (self.backend(record.backend)?, op.run(Vec::new()));
        let (deployment, service) = (&loaded.deployment, journal.service.as_ref());
        let stops = match (journal.kind, service) {
            (kind, Some(_)) => kind == OperationKind::Stop,
            (_, None) => record.desired == DesiredState::Stopped,
        };
        if !stops && !loaded.refused.is_empty() {
            tracing::warn!(tenant = %record.subdomain, "the policy of this host refuses it now: it is not started");
            return Ok(Outcome::Unknown);
        }
        let is_as_asked = stops == (journal.kind == OperationKind::Stop);
        let outcome = if is_as_asked { Outcome::Finished } else { Outcome::Undone };
        let done = match (stops, journal.kind) {
            (true, _) => {
                backend.stop(deployment, service, &run).await?;
                return Ok(outcome);
            }
            // Not merely started: what was told to stop may still be running, but not for long.
            (false, OperationKind::Restart) => backend.restart(deployment, service, &run).await,
            (false, _) => backend.start(deployment, service, &run).await,
        };
        match done {
            Err(BackendError::Unavailable) => Err(BackendError::Unavailable.into()),
            // A service that does not come up must not keep the tenant locked for ever.
            Err(error) => {
                tracing::warn!(tenant = %record.subdomain, %error, "not everything could be started");
                Ok(if is_as_asked { Outcome::Unknown } else { outcome })
            }
            Ok(()) => Ok(outcome),
        }
    }

    /// Undo: the committed generation's files, then its containers. A tenant without one is gone afterwards.
    pub(super) async fn put_back(&self, record: &Record, undo: Option<&UndoNote>) -> Result<(), Error> {
        let backend = self.backend(record.backend)?;
        let tenant = record.subdomain.clone();
        if record.generation == Generation::NONE {
            backend.settle(&self.tenant_ref(record), Generation::NONE, None, undo).await?;
            self.inner.loaded.remove(&tenant);
            self.off_record(&tenant);
            return self.disk(move |fs| fs.purge(&tenant)).await;
        }
        if record.kept {
            backend.settle(&self.tenant_ref(record), record.generation, None, undo).await?;
            self.disk(move |fs| fs.put_in_place(&tenant, None)).await?;
        } else {
            let loaded = self.committed(record).await?;
            self.place_files(&loaded.deployment).await?;
            let deployment = Some(&loaded.deployment);
            backend.settle(&self.tenant_ref(record), record.generation, deployment, undo).await?;
        }
        self.commit(record, OperationKind::Recover).await?;
        let loaded = if record.kept { None } else { Some(self.committed(record).await?) };
        self.end(record, loaded.as_deref()).await
    }

    /// The second phase, and the end of the operation.
    pub(super) async fn settle_and_end(&self, record: &Record, loaded: &Loaded) -> Result<(), Error> {
        let (backend, tenant) = (self.backend(record.backend)?, self.tenant_ref(record));
        backend.settle(&tenant, record.generation, Some(&loaded.deployment), None).await?;
        self.end(record, Some(loaded)).await
    }

    /// The operation is over: its journal goes, and with it what no generation needs any more.
    pub(super) async fn end(&self, record: &Record, loaded: Option<&Loaded>) -> Result<(), Error> {
        let mounts: Vec<String> = loaded
            .map(|loaded| loaded.deployment.mount_files().into_iter().map(|file| file.name).collect())
            .unwrap_or_default();
        let tenant = record.subdomain.clone();
        self.disk(move |fs| fs.end(&tenant, &mounts)).await
    }

    /// A backend that forgets its tenants with the agent gets the committed generation again.
    async fn run_again(&self, op: &Op, record: &Record) -> Result<(), Error> {
        let backend = self.backend(record.backend)?;
        let loaded = self.committed(record).await?;
        let run = op.run(Vec::new());
        let images = backend.prepare(&loaded.deployment, &run).await?;
        let plan = backend.plan(&loaded.deployment, &images, &run).await?;
        backend.apply(&loaded.deployment, &images, &plan, &run).await?;
        Ok(())
    }
}

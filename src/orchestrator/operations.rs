//! One mutation per tenant at a time, and who is at it. What is done to the host waits for no tenant.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ledger::{Claim, Ledger};
use super::{Ask, Error};
use crate::backend::{Progress, Run};
use crate::domain::{
    Operation, OperationId, OperationKind, OperationRecord, OperationState, RegistryAuth, RepeatKey, Subdomain,
};

/// The locks of all tenants that somebody works on, and what is known of operations. A slot goes with its last user.
#[derive(Default)]
pub(super) struct Operations {
    slots: Arc<DashMap<Subdomain, Arc<Slot>>>,
    /// Of the one prune that runs.
    pruning: Arc<Slot>,
    pub(super) ledger: Arc<Ledger>,
    /// Held, shared, from the writing of an ended operation's file until the ledger knows of it; alone by what writes one
    /// again, so that no older one replaces a newer one.
    pub(super) noting: tokio::sync::RwLock<()>,
}

#[derive(Default)]
struct Slot {
    lock: Arc<tokio::sync::Mutex<()>>,
    current: Mutex<Option<Arc<Running>>>,
}

impl Slot {
    /// The lock, or who has it if that does not end soon enough.
    async fn take(&self, busy_wait: Duration) -> Result<OwnedMutexGuard<()>, Option<Box<Operation>>> {
        let waited = tokio::time::timeout(busy_wait, Arc::clone(&self.lock).lock_owned()).await;
        waited.map_err(|_| self.now().map(Box::new))
    }

    fn now(&self) -> Option<Operation> {
        self.running().map(|running| running.now())
    }

    fn running(&self) -> Option<Arc<Running>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, current: Option<Arc<Running>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }
}

/// What is being done to a tenant right now.
pub(super) struct Current {
    pub(super) operation: Operation,
    /// Its containers may be made or started from now on. Before that it may still turn out that there is nothing to do.
    pub(super) brings_up: bool,
}

/// Who asked for an operation, and how.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    pub(super) request_id: Option<String>,
    pub(super) repeat: Option<RepeatKey>,
    /// It is answered for before it has ended, so it must not be forgotten by a crash.
    pub(super) promised: bool,
    /// An earlier operation for the same request, which may turn out to have done it.
    pub(super) before: Option<OperationId>,
}

impl Origin {
    /// Of a request, whose key is claimed with what it stood for before.
    pub(super) fn of(ask: Ask, claim: Option<&Claim>) -> Self {
        let Ask { respond_async: promised, repeat, request_id } = ask;
        Self { request_id, repeat, promised, before: claim.and_then(Claim::before) }
    }
}

/// An operation that has not ended: what its followers share with it.
pub(super) struct Running {
    head: Operation,
    pub(super) origin: Origin,
    pub(super) progress: Progress,
    cancel: CancellationToken,
    /// Why it can be cancelled no more.
    closed: Mutex<Option<&'static str>>,
    /// Whether it may have effects.
    begun: AtomicBool,
    /// Whether something is being done for it, be it to finish what an earlier one left.
    at_work: AtomicBool,
    /// Whether its id may be asked for when it has ended, however it ends.
    known: watch::Sender<bool>,
    /// Its record, once it has ended.
    ended: watch::Sender<Option<Arc<OperationRecord>>>,
}

impl Running {
    fn new(head: Operation, origin: Origin) -> Self {
        Self {
            head,
            origin,
            progress: Progress::new(),
            cancel: CancellationToken::new(),
            closed: Mutex::new(None),
            begun: AtomicBool::new(false),
            at_work: AtomicBool::new(false),
            known: watch::Sender::new(false),
            ended: watch::Sender::new(None),
        }
    }

    /// One that an earlier run of the agent has left, and that is being recovered.
    pub(super) fn left_behind(head: Operation, origin: Origin) -> Self {
        let left = Self { progress: Progress::taken_up(), ..Self::new(head, origin) };
        left.is_to_be_known();
        left.close_to_cancel("it is being recovered after a restart of the agent").ok();
        left.progress.report("waiting to be recovered after a restart of the agent");
        left
    }

    pub(super) fn id(&self) -> OperationId {
        self.head.id
    }

    /// None when it works on the host.
    pub(super) fn tenant(&self) -> Option<&Subdomain> {
        self.head.subdomain.as_ref()
    }

    pub(super) fn now(&self) -> Operation {
        Operation { step: self.progress.current(), ..self.head.clone() }
    }

    /// As it would be written down now.
    pub(super) fn record(&self) -> OperationRecord {
        OperationRecord {
            operation: self.now(),
            state: OperationState::Running,
            ended_at: None,
            outcome: None,
            result: None,
            error: None,
            progress: self.progress.counters(),
            events: self.progress.last(),
            request_id: self.origin.request_id.clone(),
            repeat: self.origin.repeat.clone(),
        }
    }

    /// Whether its record has to be on the disk before it does anything, and before its answer leaves.
    pub(super) fn is_durable(&self) -> bool {
        self.origin.promised || self.origin.repeat.is_some()
    }

    /// Marks that from here on there may be effects.
    pub(super) fn begins(&self) {
        self.begun.store(true, Ordering::Release);
        self.is_to_be_known();
        self.works();
    }

    /// Marks that from here on it takes its time: whoever has seen it finds it again.
    pub(super) fn is_to_be_known(&self) {
        self.known.send_replace(true);
    }

    pub(super) fn is_known(&self) -> bool {
        *self.known.borrow()
    }

    /// Ends when it is known, or before that when it has ended.
    pub(super) async fn until_known(&self) {
        let (mut known, mut ended) = (self.known.subscribe(), self.ended.subscribe());
        tokio::select! {
            _ = known.wait_for(|known| *known) => {}
            _ = ended.wait_for(Option::is_some) => {}
        }
    }

    /// Marks that from here on containers may be made or started, for it or for an earlier one.
    pub(super) fn works(&self) {
        self.at_work.store(true, Ordering::Release);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether somebody has asked for its end.
    pub(super) fn check_cancelled(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Work that touches nothing and may be given up in the middle.
    pub(super) async fn unless_cancelled<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, Error>
    where
        Error: From<E>,
    {
        match self.cancel.run_until_cancelled(work).await {
            Some(done) => Ok(done?),
            None => Err(Error::Cancelled),
        }
    }

    /// Asks for its end, or says why it is too late for that.
    pub(super) fn cancel(&self) -> Result<(), Error> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = *closed {
            return Err(Error::NotCancellable(why));
        }
        self.cancel.cancel();
        Ok(())
    }

    /// From here on it is too late to cancel; it may have been cancelled already.
    pub(super) fn close_to_cancel(&self, why: &'static str) -> Result<(), Error> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.get_or_insert(why);
        self.check_cancelled()
    }

    /// What has begun has been undone, and something else is tried: it can be cancelled again.
    pub(super) fn open_to_cancel(&self) -> Result<(), Error> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        *closed = None;
        self.check_cancelled()
    }

    pub(super) fn tell_end(&self, record: Arc<OperationRecord>) {
        self.ended.send_replace(Some(record));
    }

    pub(super) fn follow_end(&self) -> watch::Receiver<Option<Arc<OperationRecord>>> {
        self.ended.subscribe()
    }
}

/// A running operation on a tenant. Holds the tenant's lock; dropping it ends the operation.
pub(super) struct Op {
    tenant: Subdomain,
    deadline: Instant,
    running: Arc<Running>,
    slot: Arc<Slot>,
    slots: Arc<DashMap<Subdomain, Arc<Slot>>>,
    ledger: Arc<Ledger>,
    lock: Option<OwnedMutexGuard<()>>,
    /// It has shown the mirror what it did.
    looked: AtomicBool,
}

impl Operations {
    /// Takes the tenant's lock, waiting `busy_wait` at most, for work that nobody asked for.
    pub(super) async fn begin(
        &self,
        tenant: Subdomain,
        kind: OperationKind,
        busy_wait: Duration,
        timeout: Duration,
    ) -> Result<Op, Error> {
        let op = self.begin_for(Origin::default(), tenant, kind, busy_wait, timeout).await?;
        op.running.close_to_cancel(match kind {
            OperationKind::Prune => "it is one step of a prune of the host",
            _ => "it puts right what another operation has left",
        })?;
        Ok(op)
    }

    /// Takes the tenant's lock, waiting `busy_wait` at most.
    pub(super) async fn begin_for(
        &self,
        origin: Origin,
        tenant: Subdomain,
        kind: OperationKind,
        busy_wait: Duration,
        timeout: Duration,
    ) -> Result<Op, Error> {
        let slot = Arc::clone(&self.slots.entry(tenant.clone()).or_default());
        let lock = slot.take(busy_wait).await.map_err(Error::Busy)?;
        let running = Arc::new(Running::new(head(Some(tenant.clone()), kind, timeout), origin));
        slot.set(Some(Arc::clone(&running)));
        self.ledger.open(&running);
        let (slots, ledger) = (Arc::clone(&self.slots), Arc::clone(&self.ledger));
        let (deadline, looked) = (Instant::now() + timeout, AtomicBool::new(false));
        Ok(Op { tenant, deadline, running, slot, slots, ledger, lock: Some(lock), looked })
    }

    /// Begins an operation on the host. A prune waits `busy_wait` at most for another one to end.
    pub(super) async fn begin_on_host(
        &self,
        origin: Origin,
        kind: OperationKind,
        busy_wait: Duration,
        timeout: Duration,
    ) -> Result<HostOp, Error> {
        let held = match kind {
            OperationKind::Prune => {
                let lock = self.pruning.take(busy_wait).await.map_err(Error::Pruning)?;
                Some((Arc::clone(&self.pruning), lock))
            }
            _ => None,
        };
        let running = Arc::new(Running::new(head(None, kind, timeout), origin));
        if let Some((slot, _)) = &held {
            slot.set(Some(Arc::clone(&running)));
        }
        self.ledger.open(&running);
        Ok(HostOp { deadline: Instant::now() + timeout, running, ledger: Arc::clone(&self.ledger), held })
    }

    /// What is being done to a tenant right now.
    pub(super) fn current(&self, tenant: &Subdomain) -> Option<Current> {
        let slot = Arc::clone(&*self.slots.get(tenant)?);
        let running = slot.running()?;
        let operation = running.now();
        let brings_up = running.at_work.load(Ordering::Acquire) && operation.kind.brings_up();
        Some(Current { operation, brings_up })
    }
}

impl Op {
    pub(super) fn id(&self) -> OperationId {
        self.running.id()
    }

    pub(super) fn tenant(&self) -> &Subdomain {
        &self.tenant
    }

    pub(super) fn running(&self) -> &Arc<Running> {
        &self.running
    }

    /// The mirror has what is there after this operation; nobody need look again.
    pub(super) fn has_shown(&self) {
        self.looked.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_looked(&self) -> bool {
        self.looked.load(Ordering::Relaxed)
    }

    pub(super) fn report(&self, step: &str) {
        self.running.progress.report(step);
    }

    /// The operation is over for whoever looks at the tenant, before its end is told to those who follow it.
    pub(super) fn step_down(&self) {
        self.slot.set(None);
    }

    /// How the backend is to do its part of this operation.
    pub(super) fn run(&self, credentials: Vec<RegistryAuth>) -> Run {
        Run {
            progress: self.running.progress.clone(),
            cancel: self.running.cancel.clone(),
            credentials: Arc::new(credentials),
            ..Run::until(self.deadline)
        }
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        self.ledger.abandon(&self.running);
        self.step_down();
        self.lock.take();
        // One count is the map's, one is ours; more are waiting for the lock.
        self.slots.remove_if(&self.tenant, |_, slot| Arc::strong_count(slot) <= 2);
    }
}

/// A running operation on the host. Dropping it ends the operation.
pub(super) struct HostOp {
    deadline: Instant,
    running: Arc<Running>,
    ledger: Arc<Ledger>,
    /// Of a prune.
    held: Option<(Arc<Slot>, OwnedMutexGuard<()>)>,
}

impl HostOp {
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn running(&self) -> &Arc<Running> {
        &self.running
    }
}

impl Drop for HostOp {
    fn drop(&mut self) {
        self.ledger.abandon(&self.running);
        if let Some((slot, lock)) = self.held.take() {
            slot.set(None);
            drop(lock);
        }
    }
}

/// An operation that begins now.
fn head(subdomain: Option<Subdomain>, kind: OperationKind, timeout: Duration) -> Operation {
    let started_at = jiff::Timestamp::now();
    let deadline_at = jiff::SignedDuration::try_from(timeout).map_or(started_at, |timeout| started_at + timeout);
    Operation { id: OperationId::new(), subdomain, kind, step: String::new(), started_at, deadline_at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_no_slot_left_behind() {
        let operations = Operations::default();
        let tenant = Subdomain::parse("acme").expect("valid");
        let (wait, timeout) = (Duration::from_millis(20), Duration::from_secs(60));
        let first = operations.begin(tenant.clone(), OperationKind::Provision, wait, timeout).await.expect("free");
        first.report("pulling");
        let second = operations.begin(tenant.clone(), OperationKind::Stop, wait, timeout).await;
        match second.err() {
            Some(Error::Busy(Some(running))) => {
                assert_eq!((running.id, running.step.as_str()), (first.id(), "pulling"));
            }
            other => panic!("expected the running operation, got {other:?}"),
        }
        let other = Subdomain::parse("other").expect("valid");
        let beside = operations.begin(other, OperationKind::Stop, wait, timeout).await.expect("another tenant is free");
        drop((first, beside));
        assert!(operations.current(&tenant).is_none());
        assert!(operations.slots.is_empty(), "a slot outlived its users");
    }

    #[tokio::test]
    async fn a_waiting_operation_gets_its_turn() {
        let operations = Arc::new(Operations::default());
        let tenant = Subdomain::parse("acme").expect("valid");
        let timeout = Duration::from_secs(60);
        let first = operations.begin(tenant.clone(), OperationKind::Stop, timeout, timeout).await.expect("free");
        let waiting = tokio::spawn({
            let (operations, tenant) = (Arc::clone(&operations), tenant.clone());
            async move { operations.begin(tenant, OperationKind::Start, timeout, timeout).await.map(|op| op.id()) }
        });
        tokio::task::yield_now().await;
        let id = first.id();
        drop(first);
        assert_ne!(waiting.await.expect("no panic").expect("its turn"), id);
    }
}

//! One mutation per tenant at a time, and who is at it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::Error;
use crate::backend::{Progress, Run};
use crate::domain::{Operation, OperationId, OperationKind, RegistryAuth, Subdomain};

/// The locks of all tenants that somebody works on. A slot goes with its last user.
#[derive(Default)]
pub(super) struct Operations {
    slots: Arc<DashMap<Subdomain, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    lock: Arc<tokio::sync::Mutex<()>>,
    current: Mutex<Option<Current>>,
}

#[derive(Clone)]
struct Current {
    operation: Operation,
    progress: Progress,
}

impl Current {
    fn now(&self) -> Operation {
        Operation { step: self.progress.current(), ..self.operation.clone() }
    }
}

/// A running operation. Holds the tenant's lock; dropping it ends the operation.
pub(super) struct Op {
    tenant: Subdomain,
    id: OperationId,
    deadline: Instant,
    progress: Progress,
    slot: Arc<Slot>,
    slots: Arc<DashMap<Subdomain, Arc<Slot>>>,
    lock: Option<OwnedMutexGuard<()>>,
    /// It has shown the mirror what it did.
    looked: AtomicBool,
}

impl Operations {
    /// Takes the tenant's lock, waiting `busy_wait` at most.
    pub(super) async fn begin(
        &self,
        tenant: Subdomain,
        kind: OperationKind,
        busy_wait: Duration,
        timeout: Duration,
    ) -> Result<Op, Error> {
        let slot = Arc::clone(&self.slots.entry(tenant.clone()).or_default());
        let waited = tokio::time::timeout(busy_wait, Arc::clone(&slot.lock).lock_owned()).await;
        let Ok(lock) = waited else {
            let running = slot.current.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Current::now);
            return Err(Error::Busy(running.map(Box::new)));
        };
        let now = jiff::Timestamp::now();
        let (id, progress) = (OperationId::new(), Progress::new());
        let operation = Operation {
            id,
            subdomain: tenant.clone(),
            kind,
            step: String::new(),
            started_at: now,
            deadline_at: jiff::SignedDuration::try_from(timeout).map_or(now, |timeout| now + timeout),
        };
        let current = Current { operation, progress: progress.clone() };
        *slot.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(current);
        let slots = Arc::clone(&self.slots);
        Ok(Op {
            tenant,
            id,
            deadline: Instant::now() + timeout,
            progress,
            slot,
            slots,
            lock: Some(lock),
            looked: AtomicBool::new(false),
        })
    }

    /// What is being done to a tenant right now.
    pub(super) fn current(&self, tenant: &Subdomain) -> Option<Operation> {
        let slot = Arc::clone(&*self.slots.get(tenant)?);
        let current = slot.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(Current::now)
    }
}

impl Op {
    pub(super) fn id(&self) -> OperationId {
        self.id
    }

    pub(super) fn tenant(&self) -> &Subdomain {
        &self.tenant
    }

    /// The mirror has what is there after this operation; nobody need look again.
    pub(super) fn has_shown(&self) {
        self.looked.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_looked(&self) -> bool {
        self.looked.load(Ordering::Relaxed)
    }

    pub(super) fn report(&self, step: &str) {
        self.progress.report(step);
    }

    /// How the backend is to do its part of this operation.
    pub(super) fn run(&self, credentials: Vec<RegistryAuth>) -> Run {
        Run {
            deadline: self.deadline,
            progress: self.progress.clone(),
            credentials: Arc::new(credentials),
            pull: false,
            only: None,
            pre_stop: BTreeMap::new(),
        }
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        *self.slot.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.lock.take();
        // One count is the map's, one is ours; more are waiting for the lock.
        self.slots.remove_if(&self.tenant, |_, slot| Arc::strong_count(slot) <= 2);
    }
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

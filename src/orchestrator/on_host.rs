//! Operations on the host: a prune, a cordon and its end.
//!
//! They have no tenant's lock and no journal. What they do consists of pieces that are whole or not there, one object or
//! one file each, so that an earlier run's needs no recovery: a repeat does what is missing.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::contained::contained;
use super::ledger::Claim;
use super::operations::{HostOp, Origin, Running};
use super::submit::{Carried, Ending, told};
use super::{Answered, Ask, Error, HostMutation, Orchestrator};
use crate::domain::{OperationKind, OperationRecord, Outcome};

impl Orchestrator {
    /// All of an operation on the host, from its beginning to its record.
    pub(super) async fn carry_out_on_host(
        self,
        mutation: HostMutation,
        ask: Ask,
        claim: Option<Claim>,
        accept: Option<oneshot::Sender<OperationRecord>>,
    ) -> Carried {
        let refused = |error| Carried::Out { operation: None, answer: Err(error) };
        let origin = Origin::of(ask, claim.as_ref());
        let settings = &self.inner.settings;
        let (busy_wait, limit) = (settings.busy_wait, settings.operation_timeout);
        let begun = self.inner.operations.begin_on_host(origin, mutation.kind(), busy_wait, limit).await;
        let op = match begun {
            Ok(op) => op,
            Err(error) => return refused(error),
        };
        let running = op.running();
        if let Some(claim) = claim {
            claim.bind(running);
        }
        let _counted = self.inner.metrics.operation();
        let started = Instant::now();
        if let Some(accept) = accept {
            if let Err(error) = self.write_down(running).await {
                let told = Err(Box::new(error.failure()));
                self.note_end(running, started, &told, Some(Outcome::Undone), Ending::Refused).await;
                return refused(error);
            }
            // Whoever asked may be gone already.
            accept.send(running.record()).ok();
        }
        let answer = contained(self.perform_on_host(&op, mutation)).await;
        let told = told(&answer);
        let left = if running.has_begun() { Outcome::Unknown } else { Outcome::Undone };
        // One that changed nothing is nothing to remember, unless a repeat is to find it.
        let ending = match &told {
            Ok(_) if !running.has_begun() && !running.is_durable() => Ending::Refused,
            told => Ending::of(running, told),
        };
        self.note_end(running, started, &told, Some(left), ending).await;
        Carried::Out { operation: (ending != Ending::Refused).then(|| running.id()), answer }
    }

    /// Called before each effect. A prune has many, so it is on the disk before the first; a cordon is itself a file.
    pub(super) async fn before_effect_on_host(&self, running: &Running) -> Result<(), Error> {
        if running.has_begun() {
            return Ok(());
        }
        let is_kept = running.is_durable() || running.now().kind == OperationKind::Prune;
        if is_kept && !running.origin.promised {
            self.write_down(running).await?;
        }
        running.begins();
        Ok(())
    }

    async fn perform_on_host(&self, op: &HostOp, mutation: HostMutation) -> Result<Answered, Error> {
        match mutation {
            HostMutation::Prune(request) => self.do_prune(op, &request).await.map(Answered::Pruned),
            HostMutation::Cordon { reason } => self.do_cordon(op, reason).await.map(Answered::Cordoned),
            HostMutation::Uncordon => self.do_uncordon(op).await.map(Answered::Cordoned),
        }
    }
}

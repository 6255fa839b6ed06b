//! Operations on the host: a prune, a cordon and its end.
//!
//! They have no tenant's lock and no journal. What they do consists of pieces that are whole or not there, one object or
//! one file each, so that an earlier run's needs no recovery: a repeat does what is missing.

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

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
        let before = claim.as_ref().and_then(Claim::before);
        let origin = Origin { request_id: ask.request_id, repeat: ask.repeat, promised: ask.respond_async, before };
        let limit = self.inner.settings.operation_timeout;
        let op = self.inner.operations.begin_on_host(origin, mutation.kind(), limit);
        if let Some(claim) = claim {
            claim.bind(op.running());
        }
        let _counted = self.inner.metrics.operation();
        let started = Instant::now();
        if let Some(accept) = accept {
            if let Err(error) = self.write_down(op.running()).await {
                let told = Err(Box::new(error.failure()));
                self.note_end(op.running(), started, &told, Some(Outcome::Undone), Ending::Refused).await;
                return Carried::Out { operation: None, answer: Err(error) };
            }
            // Whoever asked may be gone already.
            accept.send(op.running().record()).ok();
        }
        let answer = self.perform_on_host(&op, mutation).await;
        let told = told(&answer);
        let ending = Ending::of(op.running(), &told);
        let left = if op.running().has_begun() { Outcome::Unknown } else { Outcome::Undone };
        self.note_end(op.running(), started, &told, Some(left), ending).await;
        Carried::Out { operation: (ending == Ending::Ended).then(|| op.running().id()), answer }
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
            HostMutation::Prune(request) => {
                let pruned = timeout(self.inner.settings.operation_timeout, self.do_prune(op, &request)).await;
                pruned.unwrap_or(Err(Error::PruneTooLong)).map(Answered::Pruned)
            }
            HostMutation::Cordon { reason } => self.do_cordon(op, reason).await.map(Answered::Cordoned),
            HostMutation::Uncordon => self.do_uncordon(op).await.map(Answered::Cordoned),
        }
    }
}

//! Operations that an earlier run of the agent has left: each becomes what the recovery made of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;

use super::contained::contained;
use super::ledger::Found;
use super::operations::{Origin, Running};
use super::{Answered, Done, Kept, Orchestrator, TornDown};
use crate::domain::{
    Operation, OperationId, OperationKind, OperationRecord, OperationResult, OperationState, Outcome, Subdomain,
};
use crate::tenant_fs::{Durability, Journal, Record};

impl Orchestrator {
    /// Takes in the operations of earlier runs. Those that had not ended are given back by id.
    pub(super) fn remember_operations(
        &self,
        operations: Vec<(OperationRecord, u64)>,
    ) -> BTreeMap<OperationId, OperationRecord> {
        let is_running = |operation: &(OperationRecord, u64)| operation.0.state == OperationState::Running;
        let (running, ended): (Vec<_>, Vec<_>) = operations.into_iter().partition(is_running);
        self.inner.operations.ledger.load(ended);
        running.into_iter().map(|(record, _)| (record.operation.id, record)).collect()
    }

    /// A tenant's journal is open: its operation counts as running until the tenant has been recovered.
    pub(super) fn is_left_behind(&self, tenant: &Subdomain, journal: &Journal, record: Option<OperationRecord>) {
        let ledger = &self.inner.operations.ledger;
        if ledger.find(journal.operation).is_some() {
            // It has answered for itself, with a failure; more will be known of it.
            return;
        }
        let timeout = jiff::SignedDuration::try_from(self.inner.settings.operation_timeout).unwrap_or_default();
        let head = Operation {
            id: journal.operation,
            subdomain: Some(tenant.clone()),
            kind: journal.kind,
            step: String::new(),
            started_at: journal.started_at,
            deadline_at: journal.started_at.checked_add(timeout).unwrap_or(journal.started_at),
        };
        let (head, origin) = match record {
            None => (head, Origin::default()),
            Some(record) => (record.operation.clone(), origin(record)),
        };
        ledger.reopen(&Arc::new(Running::left_behind(head, origin)));
    }

    /// An operation that an earlier run had not ended counts as running again.
    pub(super) fn reopen(&self, record: OperationRecord) {
        let running = Running::left_behind(record.operation.clone(), origin(record));
        self.inner.operations.ledger.reopen(&Arc::new(running));
    }

    /// Operations whose journals are gone, or had not been begun: what the tenant's record said at the start is what became
    /// of them. None of them is running any more when this returns or soon after.
    pub(super) fn settle_left_operations(&self, left: Vec<(OperationRecord, Option<Record>, Outcome)>) {
        for (record, standing, outcome) in left {
            let (id, tenant) = (record.operation.id, record.operation.subdomain.clone());
            self.reopen(record);
            let this = self.clone();
            self.inner.tasks.spawn(async move {
                let outcome = match (outcome, &tenant) {
                    // Nothing on this host told of it, so nothing says that it is gone but its backend.
                    (Outcome::Finished, Some(tenant)) if standing.is_none() && this.may_be_there(tenant).await => {
                        Outcome::Unknown
                    }
                    _ => outcome,
                };
                this.recovered(id, None, outcome, standing.as_ref(), None).await;
            });
        }
    }

    /// The tenant of these operations is done with whatever they left: nobody can tell any more what became of them.
    pub(super) async fn give_up_left_operations(&self, tenant: &Subdomain, except: OperationId) {
        for left in self.inner.operations.ledger.running_of(tenant, except) {
            self.recovered(left.id(), None, Outcome::Unknown, None, None).await;
        }
    }

    /// The tenant cannot be read, so nobody can recover it for now: its operation has ended, with an outcome that is not
    /// known yet.
    pub(super) async fn quarantined(&self, tenant: &Subdomain) {
        let ledger = &self.inner.operations.ledger;
        for left in ledger.running_of(tenant, OperationId::new()) {
            let mut ended = left.record();
            ended.state = OperationState::Interrupted;
            ended.ended_at = Some(jiff::Timestamp::now());
            let ended = Arc::new(ended);
            self.keep_end(Some(&left), &ended, Durability::Synced).await;
            self.interrupted_operation_ended(&ended);
        }
    }

    /// Notes what became of an operation that did not answer for itself, or that failed and stayed open. `part` is what its
    /// journal said that it was at, if there was one; `record` is the tenant's, afterwards.
    pub(super) async fn recovered(
        &self,
        id: OperationId,
        part: Option<OperationKind>,
        outcome: Outcome,
        record: Option<&Record>,
        mut kept: Option<Kept>,
    ) {
        let ledger = &self.inner.operations.ledger;
        let (left, mut ended) = match ledger.find(id) {
            Some(Found::Running(left)) => {
                let mut ended = left.record();
                ended.state = OperationState::Interrupted;
                ended.ended_at = Some(jiff::Timestamp::now());
                (Some(left), ended)
            }
            Some(Found::Ended { .. }) => match self.operation(id).await {
                Ok(ended)
                    if ended.outcome.is_none()
                        && matches!(ended.state, OperationState::Failed | OperationState::Interrupted) =>
                {
                    (None, ended)
                }
                _ => return,
            },
            None => return,
        };
        let kind = ended.operation.kind;
        // A start that found its tenant made under other rules had a generation to bring first: there was more to do.
        let was_at_the_first_part = part.is_some_and(OperationKind::brings_generation) && !kind.brings_generation();
        let mut outcome = if was_at_the_first_part { Outcome::Unknown } else { outcome };
        if kind == OperationKind::Teardown && outcome == Outcome::Finished && kept.is_none() {
            kept = match record {
                None => Some(Kept::default()),
                Some(record) => self.still_kept(record, ended.operation.started_at).await.ok(),
            };
            if kept.is_none() {
                // A repeat finds out, and does no harm.
                outcome = Outcome::Unknown;
            }
        }
        ended.outcome = Some(outcome);
        if outcome == Outcome::Finished
            && let Some(tenant) = &ended.operation.subdomain
        {
            // Without an answer it has ended all the same.
            let answered = self.answer_of(kind, tenant, record, kept);
            let answer = contained(answered.map(Ok)).await.ok().flatten();
            ended.result = answer.map(|answer| OperationResult {
                created: answer.created(),
                body: serde_json::to_value(&answer).unwrap_or_default(),
            });
        }
        if left.is_some() && !matches!(ledger.find(id), Some(Found::Running(_))) {
            // A later operation on the tenant has ended it meanwhile.
            return;
        }
        let ended = Arc::new(ended);
        self.keep_end(left.as_ref(), &ended, Durability::Synced).await;
        // Otherwise its end has been told, with its failure.
        if left.is_some() {
            self.interrupted_operation_ended(&ended);
        }
    }

    /// What an operation would have answered.
    async fn answer_of(
        &self,
        kind: OperationKind,
        tenant: &Subdomain,
        record: Option<&Record>,
        kept: Option<Kept>,
    ) -> Option<Answered> {
        let status = match kind {
            OperationKind::Restart => "restarted",
            OperationKind::Stop => "stopped",
            OperationKind::Start => "started",
            // Of the host.
            OperationKind::Prune | OperationKind::Cordon | OperationKind::Uncordon => return None,
            OperationKind::Teardown => {
                let kept = kept.unwrap_or_default();
                let torn_down = TornDown { status: "torn_down", subdomain: tenant.clone(), changed: true, kept };
                return Some(Answered::TornDown(torn_down));
            }
            OperationKind::Provision | OperationKind::Update | OperationKind::Rollback | OperationKind::Recover => {
                let record = record?;
                let backend = self.backend(record.backend).ok()?;
                let observed = backend.status(&self.tenant_ref(record)).await.unwrap_or_default();
                return Some(Answered::Provisioned(self.provisioned_answer(kind, record, observed).await));
            }
        };
        Some(Answered::Done(Done { status, subdomain: tenant.clone() }))
    }
}

fn origin(record: OperationRecord) -> Origin {
    Origin { request_id: record.request_id, repeat: record.repeat, promised: true, before: None }
}

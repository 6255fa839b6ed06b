//! The life of an operation: recognised or accepted, carried out on a task of its own, written down when it ends.
//!
//! What is on the disk when: the journal of the tenant before the first effect, always. The operation's own record before
//! its acceptance is told (`Prefer: respond-async`), or before the first effect when its request can be recognised
//! (`Idempotency-Key`); both are written again, synced, before the answer leaves. Of any other operation only the end is
//! written, and left to the kernel: the journal names the operation while it can be half done, and a request that changes
//! nothing waits for no disk.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

use super::contained::contained;
use super::feed::Happening;
use super::ledger::{Claim, Found, Repeat};
use super::operations::{Op, Origin, Running};
use super::{Answered, Ask, Change, Error, Mutation, Orchestrator, Submitted};
use crate::domain::{
    ErrorCode, Failure, Generation, Operation, OperationId, OperationKind, OperationRecord, OperationResult,
    OperationState, Outcome, RepeatKey, Subdomain,
};
use crate::tenant_fs::{Durability, FsError, Record};

/// How long after its deadline an operation may go on, to undo what it did, before its caller is told without its end.
const UNDO_TIME: Duration = Duration::from_secs(30);

/// How an operation was carried out.
pub(super) enum Carried {
    Out {
        operation: Option<OperationId>,
        answer: Result<Answered, Error>,
    },
    /// An earlier operation turned out to have done it.
    Before(Arc<OperationRecord>),
}

impl Orchestrator {
    /// What recognises a repeat of a request: method, path with query, and body under an `Idempotency-Key`.
    pub fn repeat_key(&self, key: &str, method: &str, target: &str, body: &[u8]) -> RepeatKey {
        let hash = |parts: &[&[u8]]| self.inner.key.hash(parts);
        RepeatKey {
            key: hash(&[b"idempotency key", key.as_bytes()]),
            request: hash(&[b"request", method.as_bytes(), target.as_bytes(), body]),
        }
    }

    /// Does what is asked, or accepts it, or finds that it has been done. It runs to its end even if the caller goes away.
    pub async fn submit(&self, change: impl Into<Change>, ask: Ask) -> Result<Submitted, Error> {
        let change = change.into();
        if self.inner.stopping.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        let claim = match &ask.repeat {
            None => None,
            Some(repeat) => loop {
                match self.recognise(repeat).await? {
                    Repeat::Of(earlier) => {
                        if let Some(answer) = self.answer_again(earlier, ask.respond_async).await? {
                            return Ok(answer);
                        }
                    }
                    Repeat::New(claim) => break Some(claim),
                    Repeat::Claimed(_) => return Err(Error::Busy(None)),
                }
            },
        };
        self.inner.operations.ledger.check_room(change.kind(), claim.is_some())?;
        let (accept, accepted) = oneshot::channel();
        let accept = ask.respond_async.then_some(accept);
        let (this, span) = (self.clone(), tracing::Span::current());
        let work = async move {
            match change {
                Change::Tenant(mutation) => this.carry_out(mutation, ask, claim, accept).boxed().await,
                Change::Host(mutation) => this.carry_out_on_host(mutation, ask, claim, accept).boxed().await,
            }
        };
        let running = self.inner.tasks.spawn(work.instrument(span));
        // The sender is dropped without a word when nothing was promised.
        if let Ok(operation) = accepted.await {
            return Ok(Submitted::Accepted { operation: Box::new(operation), replayed: false });
        }
        let settings = &self.inner.settings;
        // A call of the engine that has begun is waited for, whatever the deadline says: an undo must see what it made. But
        // nobody has to wait for that.
        let patience = settings.busy_wait + settings.operation_timeout + UNDO_TIME;
        let Ok(ended) = timeout(patience, running).await else { return Err(Error::Overdue) };
        match ended {
            Ok(Carried::Out { operation, answer }) => Ok(Submitted::Done { operation, answer }),
            Ok(Carried::Before(record)) => Ok(Submitted::Replayed(record)),
            Err(error) => {
                tracing::error!(%error, "an operation ended abnormally");
                Err(Error::Internal)
            }
        }
    }

    /// Looks a key up, and waits while somebody else is about to begin its operation.
    async fn recognise(&self, repeat: &RepeatKey) -> Result<Repeat, Error> {
        loop {
            match self.inner.operations.ledger.recognise(repeat)? {
                // Closed when the other has begun or was refused, which takes it the wait for a busy tenant at most.
                Repeat::Claimed(mut decided) => while decided.changed().await.is_ok() {},
                decided => return Ok(decided),
            }
        }
    }

    /// The answer of an earlier operation, once it has one; none when it was recovered meanwhile and is to be done anew.
    async fn answer_again(&self, earlier: OperationId, respond_async: bool) -> Result<Option<Submitted>, Error> {
        let found = match self.inner.operations.ledger.find(earlier) {
            Some(Found::Running(running)) => Some(running),
            _ => None,
        };
        let limit = self.inner.settings.operation_timeout;
        if respond_async {
            // One that may still be refused without a trace is not promised to anybody: it is waited for.
            if let Some(running) = &found {
                timeout(limit, running.until_known()).await.map_err(|_| Error::Busy(None))?;
            }
            if found.as_ref().is_none_or(|running| running.is_known()) {
                let operation = Box::new(self.operation(earlier).await?);
                return Ok(Some(Submitted::Accepted { operation, replayed: true }));
            }
        }
        let Some(running) = found else {
            return Ok(Some(Submitted::Replayed(Arc::new(self.operation(earlier).await?))));
        };
        let mut ended = running.follow_end();
        drop(running);
        let waited = timeout(limit, ended.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(record)) => {
                let record = record.clone().ok_or(Error::Internal)?;
                let says_something = record.result.is_some() || record.error.is_some();
                Ok(says_something.then_some(Submitted::Replayed(record)))
            }
            // It is being recovered, or undone; either goes on.
            _ => Err(Error::Busy(None)),
        }
    }

    /// All of an operation, from the lock to its record.
    async fn carry_out(
        self,
        mutation: Mutation,
        ask: Ask,
        claim: Option<Claim>,
        accept: Option<oneshot::Sender<OperationRecord>>,
    ) -> Carried {
        let refused = |error| Carried::Out { operation: None, answer: Err(error) };
        let (tenant, kind) = (mutation.tenant().clone(), mutation.kind());
        let settings = &self.inner.settings;
        let origin = Origin::of(ask, claim.as_ref());
        let before = origin.before;
        let operations = &self.inner.operations;
        let begun = operations.begin_for(origin, tenant, kind, settings.busy_wait, settings.operation_timeout).await;
        let op = match begun {
            Ok(op) => op,
            Err(error) => return refused(error),
        };
        if self.inner.stopping.is_cancelled() {
            // It has waited for its turn until it was too late for that.
            return refused(Error::ShuttingDown);
        }
        if let Some(claim) = claim {
            claim.bind(op.running());
        }
        let _counted = self.inner.metrics.operation();
        self.turn(op.tenant());
        let started = Instant::now();
        if let Some(accept) = accept {
            let promised = async {
                self.look_over(&op, &mutation).await?;
                self.write_down(op.running()).await
            };
            if let Err(error) = promised.await {
                self.ended(&op, started, &Err(Box::new(error.failure())), Ending::Refused).await;
                return refused(error);
            }
            op.running().is_to_be_known();
            // Whoever asked may be gone already.
            accept.send(op.running().record()).ok();
        }
        match contained(self.finish_open_operation(&op)).await {
            // What cannot be finished can still be torn down: nothing of it is needed for that.
            Err(error) if kind == OperationKind::Teardown && !error.is_backend_away() => {
                tracing::warn!(tenant = %op.tenant(), %error, "tearing down with an operation open that cannot be finished");
            }
            Err(error) => {
                self.look_after(&op, Some(&error)).await;
                let ending = if op.running().origin.promised { Ending::Ended } else { Ending::Refused };
                self.ended(&op, started, &Err(Box::new(error.failure())), ending).await;
                return Carried::Out { operation: Some(op.id()), answer: Err(error) };
            }
            Ok(()) => {}
        }
        if let Some(record) = self.done_before(before).await {
            // That operation did it, and nobody was told. This one has nothing to do.
            match record.result.clone().filter(|_| op.running().origin.promised) {
                Some(result) => self.ended(&op, started, &Ok(result), Ending::Ended).await,
                None => self.inner.operations.ledger.refuse(op.running(), &record),
            }
            self.leave_whole(op);
            return Carried::Before(record);
        }
        let answer = contained(self.perform(&op, mutation).boxed()).await;
        if matches!(answer, Err(Error::Internal)) && op.running().has_begun() {
            // It did not come to its own undo.
            self.recover_later(op.tenant().clone());
        }
        self.look_after(&op, answer.as_ref().err()).await;
        let told = told(&answer);
        let ending = Ending::of(op.running(), &told);
        if answer.is_ok() {
            self.give_up_left_operations(op.tenant(), op.id()).await;
        }
        self.ended(&op, started, &told, ending).await;
        let operation = (ending != Ending::Refused).then(|| op.id());
        if answer.is_ok() || !op.running().has_begun() {
            self.leave_whole(op);
        }
        Carried::Out { operation, answer }
    }

    /// Ends an operation that has left nothing open, nor has one before it.
    fn leave_whole(&self, op: Op) {
        let tenant = op.tenant().clone();
        drop(op);
        self.recover_sooner(&tenant);
    }

    async fn perform(&self, op: &Op, mutation: Mutation) -> Result<Answered, Error> {
        match mutation {
            Mutation::Provision(request) => self.do_provision(op, *request).await.map(Answered::Provisioned),
            Mutation::Update(request) => self.do_update(op, *request).await.map(Answered::Provisioned),
            Mutation::Rollback { from, .. } => self.do_rollback(op, from).await.map(Answered::Provisioned),
            Mutation::Restart { service, .. } => self.do_restart(op, service).await.map(Answered::Done),
            Mutation::Stop { service, .. } => self.do_stop(op, service).await.map(Answered::Done),
            Mutation::Break { service, .. } => self.do_break(op, service).await.map(Answered::Done),
            Mutation::Start { service, .. } => self.do_start(op, service).await.map(Answered::Done),
            Mutation::Teardown { purge, .. } => self.do_teardown(op, purge).await.map(Answered::TornDown),
        }
    }

    /// What can be said against a request before it is promised, without the backend.
    async fn look_over(&self, op: &Op, mutation: &Mutation) -> Result<(), Error> {
        match mutation {
            Mutation::Provision(request) => {
                let (record, wanted) = self.provision_draft(op, request.as_ref().clone()).await?;
                self.look_over_draft(&record, wanted).await
            }
            Mutation::Update(request) => {
                let (record, wanted) = self.update_draft(op, request.as_ref().clone()).await?;
                self.look_over_draft(&record, wanted).await
            }
            Mutation::Teardown { .. } => Ok(()),
            Mutation::Rollback { from, .. } => {
                let record = self.live_record(op.tenant()).await?;
                match from {
                    Some(from) if *from != record.generation => {
                        Err(Error::GenerationMismatch { at: record.generation, from: *from })
                    }
                    _ => Ok(()),
                }
            }
            Mutation::Restart { .. } | Mutation::Stop { .. } | Mutation::Break { .. } | Mutation::Start { .. } => {
                self.live_record(op.tenant()).await.map(drop)
            }
        }
    }

    /// Called before an operation may take its time, as pulls do: from here on whoever has seen its id finds it again, and
    /// its record is on the disk if a repeat of it has to be recognised.
    pub(super) async fn before_long(&self, op: &Op) -> Result<(), Error> {
        let running = op.running();
        if running.is_durable() && !running.is_known() {
            self.write_down(running).await?;
        }
        running.is_to_be_known();
        Ok(())
    }

    /// Called right before the first effect of an operation: too late to cancel unless it brings a generation.
    pub(super) async fn before_effects(&self, op: &Op) -> Result<(), Error> {
        self.before_long(op).await?;
        let running = op.running();
        running.begins();
        self.turn(op.tenant());
        Ok(())
    }

    pub(super) async fn write_down(&self, running: &Running) -> Result<(), Error> {
        let record = running.record();
        let kind = record.operation.kind;
        match self.disk(move |fs| fs.write_operation(&record, Durability::Synced)).await {
            // Making room must work on a full disk. So must a prune, whose record is needed only if a repeat is to find it.
            Err(error)
                if kind.makes_room()
                    || kind == OperationKind::Prune
                        && !running.is_durable()
                        && matches!(error, Error::Fs(FsError::NoSpace)) =>
            {
                tracing::warn!(operation = %running.id(), %error, "the operation's record could not be written");
                Ok(())
            }
            written => written.map(drop),
        }
    }

    /// The end of an operation on a tenant.
    async fn ended(&self, op: &Op, started: Instant, told: &Told, ending: Ending) {
        let (left, record) = if told.is_err() { self.what_is_left(op).await } else { (None, None) };
        if told.is_err() && left.is_none() {
            // Whatever went wrong, even with its own end: it does not stay open until somebody asks for the tenant.
            self.recover_later(op.tenant().clone());
        }
        op.step_down();
        self.turn(op.tenant());
        let is_done = left == Some(Outcome::Finished);
        self.note_end(op.running(), started, told, left.filter(|_| !is_done), ending).await;
        if is_done {
            // It panicked when all was done: its answer can still be told.
            self.recovered(op.id(), None, Outcome::Finished, record.as_ref(), None).await;
        }
    }

    /// The end of an operation: its record, and whoever waits for it.
    pub(super) async fn note_end(
        &self,
        running: &Arc<Running>,
        started: Instant,
        told: &Told,
        left: Option<Outcome>,
        ending: Ending,
    ) {
        let mut record = running.record();
        record.ended_at = Some(jiff::Timestamp::now());
        match told {
            Ok(result) => {
                record.state = OperationState::Succeeded;
                record.result = Some(result.clone());
            }
            Err(failure) => {
                let cancelled = failure.code == ErrorCode::Cancelled;
                record.state = if cancelled { OperationState::Cancelled } else { OperationState::Failed };
                record.error = Some(failure.as_ref().clone());
                record.outcome = left;
            }
        }
        if ending == Ending::CameToNothing {
            record.repeat = None;
        }
        let (record, took) = (Arc::new(record), started.elapsed());
        match ending {
            Ending::Refused => self.inner.operations.ledger.refuse(running, &record),
            Ending::Ended | Ending::CameToNothing => {
                let durability = if running.is_durable() { Durability::Synced } else { Durability::Written };
                self.keep_end(Some(running), &record, durability).await;
            }
        }
        // Whoever is told of an end finds it.
        self.operation_ended(&record, took, ending);
        self.prune_operations().await;
    }

    /// What is left of an operation that failed, by the record as it is now; none while it stays open and nobody can know.
    async fn what_is_left(&self, op: &Op) -> (Option<Outcome>, Option<Record>) {
        if !op.running().has_begun() {
            return (Some(Outcome::Undone), None);
        }
        let tenant = op.tenant().clone();
        let read = self.disk(move |fs| Ok((fs.journal(&tenant)?, fs.record(&tenant)?))).await;
        let Ok((None, record)) = read else { return (None, None) };
        let outcome = match op.running().now().kind {
            kind if kind.brings_generation() => Self::outcome_by_record(op.id(), kind, record.as_ref()),
            _ => Outcome::Unknown,
        };
        (Some(outcome), record)
    }

    /// Everybody who wants to know of ends hooks in here.
    fn operation_ended(&self, record: &OperationRecord, took: Duration, ending: Ending) {
        let code = record.error.as_ref().map(|failure| failure.code);
        let outcome = if code.is_none() { "succeeded" } else { "failed" };
        // One that was refused is known to nobody but whoever asked.
        if ending != Ending::Refused {
            self.tell_of_end(record, outcome, took);
        }
        self.inner.metrics.operation_ended(record.operation.kind, code, took);
        self.inner.stats.changed();
        let (id, kind) = (record.operation.id, record.operation.kind);
        let (tenant, duration_ms) =
            (record.operation.subdomain.as_ref().map(tracing::field::display), took.as_millis());
        match &record.error {
            None => tracing::info!(operation = %id, tenant, ?kind, duration_ms, "operation succeeded"),
            Some(error) => {
                tracing::warn!(operation = %id, tenant, ?kind, duration_ms, error = error.message, "operation failed");
            }
        }
    }

    /// The same of one that an earlier run of the agent began.
    pub(super) fn interrupted_operation_ended(&self, record: &OperationRecord) {
        let Operation { id, kind, subdomain, started_at, .. } = &record.operation;
        let tenant = subdomain.as_ref().map(tracing::field::display);
        let outcome = match record.outcome {
            Some(Outcome::Finished) => "finished",
            Some(Outcome::Undone) => "undone",
            Some(Outcome::Unknown) | None => "unknown",
        };
        let took = record.ended_at.map(|ended| ended.duration_since(*started_at));
        self.tell_of_end(record, outcome, took.and_then(|took| took.try_into().ok()).unwrap_or_default());
        self.inner.metrics.operation_interrupted(*kind);
        self.inner.stats.changed();
        tracing::info!(operation = %id, tenant, ?kind, outcome, "an interrupted operation has ended");
    }

    fn tell_of_end(&self, record: &OperationRecord, outcome: &'static str, took: Duration) {
        let ended = Happening::OperationEnded {
            operation: record.operation.id,
            kind: record.operation.kind,
            outcome,
            code: record.error.as_ref().map(|failure| failure.code),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        };
        self.inner.feed.publish(record.operation.subdomain.as_ref(), &ended);
    }

    /// Writes down how an operation ended, and lets whoever waits for it know, if it was running until now.
    pub(super) async fn keep_end(
        &self,
        running: Option<&Arc<Running>>,
        record: &Arc<OperationRecord>,
        durability: Durability,
    ) {
        let ledger = &self.inner.operations.ledger;
        let _noting = self.inner.operations.noting.read().await;
        let bytes = self.write_record(record, durability).await;
        match running {
            Some(running) => ledger.close(running, record, bytes),
            None => ledger.amend(record, bytes),
        }
    }

    /// Writes a record, and says how large it is. A failure is logged: what stands is said elsewhere.
    async fn write_record(&self, record: &Arc<OperationRecord>, durability: Durability) -> Option<u64> {
        let (id, writing) = (record.operation.id, Arc::clone(record));
        match self.disk(move |fs| fs.write_operation(&writing, durability)).await {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::warn!(operation = %id, %error, "the operation's record could not be written");
                None
            }
        }
    }

    /// Writes the ends of operations again for which there was no room, or no descriptor, when they ended.
    pub(super) async fn write_what_could_not_be_written(&self) {
        let ledger = &self.inner.operations.ledger;
        for id in ledger.unwritten() {
            // With nobody else about to say more of it.
            let _noting = self.inner.operations.noting.write().await;
            let Some(record) = ledger.unwritten_of(id) else { continue };
            let durability = if record.repeat.is_some() { Durability::Synced } else { Durability::Written };
            let Some(bytes) = self.write_record(&record, durability).await else { return };
            ledger.amend(&record, Some(bytes));
        }
    }

    /// Deletes what is remembered no more.
    pub(super) async fn prune_operations(&self) {
        let gone = self.inner.operations.ledger.prune(jiff::Timestamp::now());
        if gone.is_empty() {
            return;
        }
        let deleted = self.disk(move |fs| gone.into_iter().try_for_each(|id| fs.forget_operation(id))).await;
        if let Err(error) = deleted {
            tracing::warn!(%error, "old operations could not be deleted");
        }
    }

    /// The record of the operation before, if it has turned out to have done what it was to do.
    async fn done_before(&self, before: Option<OperationId>) -> Option<Arc<OperationRecord>> {
        let record = self.operation(before?).await.ok()?;
        (record.outcome == Some(Outcome::Finished)).then(|| Arc::new(record))
    }

    /// An operation, running or ended.
    pub async fn operation(&self, id: OperationId) -> Result<OperationRecord, Error> {
        match self.inner.operations.ledger.find(id).ok_or(Error::NoSuchOperation)? {
            Found::Running(running) => Ok(running.record()),
            Found::Ended { record: Some(record), whole: true, .. } => Ok(record.as_ref().clone()),
            Found::Ended { record, .. } => {
                let read = self.disk(move |fs| fs.operation(id)).await?;
                // Damaged or deleted meanwhile: what is remembered of it is better than nothing.
                read.or_else(|| record.as_deref().cloned()).ok_or(Error::NoSuchOperation)
            }
        }
    }

    /// The newest operations, of one tenant or of all, without their results.
    pub fn operations(&self, tenant: Option<&Subdomain>, most: usize) -> Vec<OperationRecord> {
        self.inner.operations.ledger.list(tenant, most)
    }

    /// Asks for the end of a running operation. It is undone, which takes a while, unless it is too late for that.
    pub async fn cancel(&self, id: OperationId) -> Result<OperationRecord, Error> {
        match self.inner.operations.ledger.find(id).ok_or(Error::NoSuchOperation)? {
            Found::Running(running) => {
                running.cancel()?;
                Ok(running.record())
            }
            Found::Ended { .. } => {
                let record = self.operation(id).await?;
                let cancelled = record.state == OperationState::Cancelled;
                if cancelled { Ok(record) } else { Err(Error::NotCancellable("it has ended")) }
            }
        }
    }

    /// Whether the tenant stands at what an operation of this kind was to bring, when its journal is gone but it never
    /// said how it ended.
    pub(super) fn outcome_by_record(
        id: OperationId,
        kind: OperationKind,
        record: Option<&crate::tenant_fs::Record>,
    ) -> Outcome {
        match (kind, record) {
            (OperationKind::Teardown, None) => Outcome::Finished,
            (_, Some(record)) if record.operation == Some(id) && record.generation != Generation::NONE => {
                Outcome::Finished
            }
            (kind, _) if kind.brings_generation() => Outcome::Undone,
            _ => Outcome::Unknown,
        }
    }
}

pub(super) type Told = Result<OperationResult, Box<Failure>>;

/// What is told of an answer later.
pub(super) fn told(answer: &Result<Answered, Error>) -> Told {
    match answer {
        Ok(answered) => Ok(OperationResult {
            created: answered.created(),
            body: serde_json::to_value(answered).unwrap_or_default(),
        }),
        Err(error) => Err(Box::new(error.failure())),
    }
}

/// What becomes of an operation's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is kept.
    Ended,
    /// It did nothing and promised nothing, but took its time: it is kept for those who have seen its id, and its key stands
    /// for nothing.
    CameToNothing,
    /// It did nothing and promised nothing: the answer has said it all.
    Refused,
}

impl Ending {
    pub(super) fn of(running: &Running, told: &Told) -> Self {
        let touched = running.has_begun() || running.origin.promised;
        match told {
            // Whoever cancelled it knows its id.
            Err(failure) if !touched && failure.code != ErrorCode::Cancelled => {
                if running.is_known() {
                    Self::CameToNothing
                } else {
                    Self::Refused
                }
            }
            _ => Self::Ended,
        }
    }
}

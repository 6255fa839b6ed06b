//! Operations across the death of the agent, which is played here by what it would have left on the disk.

use futures::StreamExt as _;

use super::*;
use crate::backend::BackendError;
use crate::domain::{Operation, OperationRecord, OperationResult, OperationState, Outcome, RepeatKey};
use crate::orchestrator::ledger::{Ledger, Repeat};
use crate::orchestrator::operations::{Current, Origin, Running};
use crate::tenant_fs::Durability;

/// No journal.
const JUNK: &[u8] = b"{\"content\":{}";

impl House {
    fn key(&self, key: &str, what: &str) -> RepeatKey {
        self.orchestrator.repeat_key(key, "POST", what, b"")
    }

    async fn submit(&self, mutation: Mutation, repeat: Option<RepeatKey>) -> Submitted {
        let ask = Ask { repeat, ..Ask::default() };
        self.orchestrator.submit(mutation, ask).await.unwrap()
    }

    fn rollback() -> Mutation {
        Mutation::Rollback { tenant: acme(), from: None }
    }

    /// Ends this agent as a crash does, as far as the disk goes, and starts another one on its root.
    async fn crash(self) -> Self {
        let Self { orchestrator, root } = self;
        orchestrator.shutdown(Duration::ZERO).await;
        drop(orchestrator);
        let path = root.path().join("tenants");
        // The lock goes with the last task of the agent that holds it.
        for _ in 0..1000 {
            match Orchestrator::open(&House::config(&path), std::sync::Arc::default()).await {
                Ok(orchestrator) => return Self { orchestrator, root },
                Err(StartError::TenantsRoot(FsError::Locked)) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the first agent keeps the root");
    }

    async fn ended(&self, id: OperationId) -> OperationRecord {
        for _ in 0..2000 {
            let record = self.orchestrator.operation(id).await.unwrap();
            if record.state != OperationState::Running {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it never ended");
    }

    async fn generation(&self) -> Generation {
        self.orchestrator.status(&acme()).await.unwrap().generation
    }

    async fn desired(&self) -> DesiredState {
        self.orchestrator.record(&acme()).await.unwrap().unwrap().desired
    }

    /// What an agent has on the disk of an operation that runs.
    async fn leave(&self, kind: OperationKind, repeat: Option<RepeatKey>) -> OperationId {
        self.leave_of(Some(acme()), kind, repeat).await
    }

    async fn leave_of_host(&self, kind: OperationKind, repeat: Option<RepeatKey>) -> OperationId {
        self.leave_of(None, kind, repeat).await
    }

    async fn leave_of(
        &self,
        subdomain: Option<Subdomain>,
        kind: OperationKind,
        repeat: Option<RepeatKey>,
    ) -> OperationId {
        let now = jiff::Timestamp::now();
        let id = OperationId::new();
        let operation =
            Operation { id, subdomain, kind, step: "planning".to_owned(), started_at: now, deadline_at: now };
        let record = OperationRecord {
            operation,
            state: OperationState::Running,
            ended_at: None,
            outcome: None,
            result: None,
            error: None,
            progress: crate::domain::Counters::default(),
            events: 7,
            request_id: Some("r-1".to_owned()),
            repeat,
        };
        self.orchestrator.disk(move |fs| fs.write_operation(&record, Durability::Synced)).await.unwrap();
        id
    }

    /// The end of an operation was not written.
    async fn lose_end(&self, id: OperationId) {
        let mut record = self.orchestrator.operation(id).await.unwrap();
        (record.state, record.ended_at, record.result) = (OperationState::Running, None, None);
        self.orchestrator.disk(move |fs| fs.write_operation(&record, Durability::Synced)).await.unwrap();
    }

    async fn journal(&self, operation: OperationId, kind: OperationKind, target: Option<Generation>) {
        let journal = Journal {
            operation,
            kind,
            target,
            service: None,
            undo: serde_json::Value::Null,
            purge: false,
            started_at: jiff::Timestamp::now(),
        };
        self.orchestrator.disk(move |fs| fs.begin(&acme(), &journal)).await.unwrap();
    }

    /// An agent that has found the journal of one of its two tenants damaged. Gives the file, too, and what was in it: an
    /// update that has not come to its commit.
    async fn with_a_damaged_journal() -> (Self, std::path::PathBuf, Vec<u8>) {
        let house = Self::updated().await;
        let other = ProvisionRequest { subdomain: Subdomain::parse("other").unwrap(), ..provision(&web("x:1", 1)) };
        house.orchestrator.provision(other).await.unwrap();
        house.journal(OperationId::new(), OperationKind::Update, Some(Generation(3))).await;
        let file = house.root.path().join("tenants/acme/.agent/operation.json");
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, JUNK).unwrap();
        let house = house.crash().await;
        house.until_degraded(&["tenant:acme"]).await;
        (house, file, whole)
    }

    async fn until_degraded(&self, wanted: &[&str]) {
        let mut degraded = Vec::new();
        for _ in 0..4000 {
            degraded = self.orchestrator.readiness().await.degraded;
            if degraded == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{degraded:?} stays degraded, not {wanted:?}");
    }

    /// Two generations.
    async fn updated() -> Self {
        let house = House::new().await;
        house.provision(&web("x:1", 1000)).await;
        house.update(&web("x:1", 2000)).await;
        house
    }
}

#[tokio::test]
async fn every_mutation_is_on_record_across_a_restart() {
    let house = House::updated().await;
    house.orchestrator.stop(&acme(), None).await.unwrap();
    let before = house.orchestrator.operations(Some(&acme()), 10);
    let kinds: Vec<_> = before.iter().map(|record| record.operation.kind).collect();
    assert_eq!(kinds, [OperationKind::Stop, OperationKind::Update, OperationKind::Provision], "newest first");
    assert!(before.iter().all(|record| record.state == OperationState::Succeeded && record.ended_at.is_some()));
    let provision = house.orchestrator.operation(before[2].operation.id).await.unwrap();
    let OperationResult { created, body } = provision.result.clone().unwrap();
    assert!(created && body["generation"] == 1 && body["status"] == "provisioned", "{body}");
    assert!(provision.progress.steps > 0 && provision.progress.steps == provision.progress.steps_done);
    let house = house.crash().await;
    assert_eq!(house.orchestrator.operations(Some(&acme()), 10), before);
    assert_eq!(house.orchestrator.operation(provision.operation.id).await.unwrap(), provision);
    assert_eq!(house.orchestrator.operations(None, 2).len(), 2);
    assert!(house.orchestrator.operations(Some(&Subdomain::parse("other").unwrap()), 10).is_empty());
    let unknown = house.orchestrator.operation(OperationId::new()).await;
    assert!(matches!(unknown, Err(Error::NoSuchOperation)));
}

#[tokio::test]
async fn a_refusal_leaves_no_record_and_a_failure_does() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    let wrong = house.orchestrator.rollback(&acme(), Some(Generation(7))).await;
    assert_eq!(wrong.unwrap_err().code(), ErrorCode::GenerationMismatch);
    assert_eq!(house.orchestrator.operations(None, 10).len(), 1);
    let request =
        UpdateRequest { compose: Some("services: {web: {image: 'x:1', command: ['false']}}".to_owned()), ..update() };
    let failed = house.orchestrator.update(request).await.unwrap_err();
    let record = &house.orchestrator.operations(None, 10)[0];
    assert_eq!((record.state, record.outcome), (OperationState::Failed, Some(Outcome::Undone)));
    let record = house.orchestrator.operation(record.operation.id).await.unwrap();
    assert_eq!(record.error.unwrap(), failed.failure());
}

#[tokio::test]
async fn a_repeat_with_its_key_is_answered_and_not_done() {
    let house = House::updated().await;
    let key = house.key("k", "/rollback/acme");
    let Submitted::Done { operation, answer } = house.submit(House::rollback(), Some(key.clone())).await else {
        panic!("it is the first")
    };
    let answer = serde_json::to_value(answer.unwrap()).unwrap();
    let other = house.key("k", "/rollback/other");
    let refused = house.orchestrator.submit(House::rollback(), Ask { repeat: Some(other.clone()), ..Ask::default() });
    assert!(matches!(refused.await, Err(Error::IdempotencyMismatch)));
    let house = {
        let again = house.submit(House::rollback(), Some(key.clone())).await;
        assert!(matches!(&again, Submitted::Replayed(record) if record.result.as_ref().unwrap().body == answer));
        house.crash().await
    };
    let Submitted::Replayed(again) = house.submit(House::rollback(), Some(key)).await else {
        panic!("it is remembered")
    };
    assert_eq!((Some(again.operation.id), &again.result.as_ref().unwrap().body), (operation, &answer));
    assert_eq!(house.generation().await, Generation(3));
    // Nothing that was sent is on the disk.
    for file in std::fs::read_dir(house.root.path().join("tenants/.agent/operations")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("/rollback/acme") && !text.contains("\"k\""), "{text}");
    }
}

#[tokio::test]
async fn repeats_at_the_same_time_are_one_operation() {
    let house = House::updated().await;
    let key = house.key("k", "/rollback/acme");
    let asked = (0..8).map(|_| house.submit(House::rollback(), Some(key.clone())));
    let answers = futures::future::join_all(asked).await;
    let done = answers.iter().filter(|answer| matches!(answer, Submitted::Done { .. })).count();
    let replayed = answers.iter().filter(|answer| matches!(answer, Submitted::Replayed(_))).count();
    assert_eq!((done, replayed), (1, 7));
    assert_eq!(house.generation().await, Generation(3));
}

#[tokio::test]
async fn a_refused_request_does_not_use_its_key_up() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    let key = house.key("k", "/rollback/acme");
    let refused = house.submit(House::rollback(), Some(key.clone())).await;
    assert!(matches!(refused, Submitted::Done { operation: None, answer: Err(Error::NoPrevious) }), "{refused:?}");
    house.update(&web("x:1", 2000)).await;
    let done = house.submit(House::rollback(), Some(key)).await;
    assert!(matches!(done, Submitted::Done { answer: Ok(_), .. }), "{done:?}");
}

#[tokio::test]
async fn what_the_host_refused_after_it_was_promised_is_done_anew() {
    let house = House::new().await;
    let cordon = HostMutation::Cordon { reason: None };
    house.orchestrator.submit(cordon, Ask::default()).await.unwrap();
    let key = house.key("k", "/provision");
    let ask = || Ask { respond_async: true, repeat: Some(key.clone()), ..Ask::default() };
    let request = || Mutation::Provision(Box::new(provision(&web("x:1", 1000))));
    let Submitted::Accepted { operation, .. } = house.orchestrator.submit(request(), ask()).await.unwrap() else {
        panic!("the host is looked at later")
    };
    let refused = house.ended(operation.operation.id).await;
    assert_eq!(refused.error.unwrap().code, ErrorCode::HostCordoned);
    house.orchestrator.submit(HostMutation::Uncordon, Ask::default()).await.unwrap();
    let Submitted::Accepted { operation, replayed: false } = house.orchestrator.submit(request(), ask()).await.unwrap()
    else {
        panic!("it is another operation")
    };
    assert_eq!(house.ended(operation.operation.id).await.state, OperationState::Succeeded);
}

/// The agent dies after the commit and before anybody was told: the repeat learns it, and nothing is done twice.
#[tokio::test]
async fn done_but_not_told_with_the_journal_open() {
    let house = House::updated().await;
    let key = house.key("k", "/rollback/acme");
    let id = house.leave(OperationKind::Rollback, Some(key.clone())).await;
    house.journal(id, OperationKind::Rollback, Some(Generation(2))).await;
    let house = house.crash().await;
    let Submitted::Replayed(record) = house.submit(House::rollback(), Some(key)).await else { panic!("it was done") };
    assert_eq!((record.operation.id, record.state), (id, OperationState::Interrupted));
    assert_eq!(record.outcome, Some(Outcome::Finished));
    let body = &record.result.as_ref().unwrap().body;
    assert!(body["generation"] == 2 && body["status"] == "rolled_back", "{body}");
    assert_eq!(house.generation().await, Generation(2), "it is not rolled back a second time");
    assert_eq!(record.request_id.as_deref(), Some("r-1"));
}

#[tokio::test]
async fn done_but_not_told_with_the_journal_gone() {
    let house = House::updated().await;
    let key = house.key("k", "/rollback/acme");
    let id = house.leave(OperationKind::Rollback, Some(key.clone())).await;
    let mut record = house.orchestrator.record(&acme()).await.unwrap().unwrap();
    record.operation = Some(id);
    house.orchestrator.disk(move |fs| fs.commit(&record, OperationKind::Update)).await.unwrap();
    let house = house.crash().await;
    assert_eq!(house.ended(id).await.outcome, Some(Outcome::Finished));
    let again = house.submit(House::rollback(), Some(key)).await;
    assert!(matches!(again, Submitted::Replayed(record) if record.operation.id == id));
    assert_eq!(house.generation().await, Generation(2));
}

#[tokio::test]
async fn what_was_undone_is_done_anew() {
    let house = House::updated().await;
    let (key, other) = (house.key("k", "/rollback/acme"), house.key("k", "/rollback/other"));
    let id = house.leave(OperationKind::Rollback, Some(key.clone())).await;
    house.journal(id, OperationKind::Rollback, Some(Generation(3))).await;
    let house = house.crash().await;
    let record = house.ended(id).await;
    assert_eq!((record.state, record.outcome), (OperationState::Interrupted, Some(Outcome::Undone)));
    assert!(record.result.is_none());
    let refused = house.orchestrator.submit(House::rollback(), Ask { repeat: Some(other), ..Ask::default() });
    assert!(matches!(refused.await, Err(Error::IdempotencyMismatch)), "the key is still its request's");
    let done = house.submit(House::rollback(), Some(key.clone())).await;
    assert!(matches!(done, Submitted::Done { answer: Ok(_), .. }), "{done:?}");
    assert_eq!(house.generation().await, Generation(3));
    let house = house.crash().await;
    let again = house.submit(House::rollback(), Some(key)).await;
    assert!(matches!(again, Submitted::Replayed(record) if record.operation.id != id), "the newer one has the key");
}

/// The client is faster than the recovery: it waits for it, and what was undone is done then.
#[tokio::test]
async fn a_repeat_during_the_recovery_waits_for_it() {
    let house = House::updated().await;
    let key = house.key("k", "/rollback/acme");
    let id = house.leave(OperationKind::Rollback, Some(key.clone())).await;
    house.journal(id, OperationKind::Rollback, Some(Generation(3))).await;
    let house = house.crash().await;
    let done = house.submit(House::rollback(), Some(key)).await;
    assert!(matches!(done, Submitted::Done { answer: Ok(_), .. }), "{done:?}");
    assert_eq!(house.generation().await, Generation(3));
}

/// The record says which way a tenant goes: a stop that had not come to it is none, and its repeat is not told that it was.
#[tokio::test]
async fn a_stop_that_was_not_committed_is_undone() {
    let house = House::updated().await;
    let key = house.key("k", "/stop/acme");
    let id = house.leave(OperationKind::Stop, Some(key.clone())).await;
    house.journal(id, OperationKind::Stop, None).await;
    let house = house.crash().await;
    let record = house.ended(id).await;
    assert_eq!((record.state, record.outcome), (OperationState::Interrupted, Some(Outcome::Undone)));
    assert_eq!(house.desired().await, DesiredState::Running);
    let stop = || Mutation::Stop { tenant: acme(), service: None };
    let again = house.submit(stop(), Some(key.clone())).await;
    assert!(matches!(again, Submitted::Done { answer: Ok(_), .. }), "{again:?}");
    assert_eq!(house.desired().await, DesiredState::Stopped);

    // One that had come to it is finished.
    let record = house.orchestrator.record(&acme()).await.unwrap().unwrap();
    let key = house.key("other", "/stop/acme");
    let id = house.leave(OperationKind::Stop, Some(key.clone())).await;
    house.journal(id, OperationKind::Stop, None).await;
    let record = Record { operation: Some(id), ..record };
    house.orchestrator.disk(move |fs| fs.commit(&record, OperationKind::Stop)).await.unwrap();
    let house = house.crash().await;
    let again = house.submit(stop(), Some(key)).await;
    let Submitted::Replayed(record) = again else { panic!("{again:?}") };
    assert_eq!((record.operation.id, record.outcome), (id, Some(Outcome::Finished)));
    assert_eq!(house.desired().await, DesiredState::Stopped);
}

/// A start that finds its tenant made under other rules brings a generation first. That alone is no start.
#[tokio::test]
async fn the_first_part_of_a_start_is_not_all_of_it() {
    let house = House::updated().await;
    house.orchestrator.stop(&acme(), None).await.unwrap();
    let key = house.key("k", "/start/acme");
    let id = house.leave(OperationKind::Start, Some(key.clone())).await;
    house.journal(id, OperationKind::Update, Some(Generation(2))).await;
    let house = house.crash().await;
    assert_eq!(house.ended(id).await.outcome, Some(Outcome::Unknown));
    let again = house.submit(Mutation::Start { tenant: acme(), service: None }, Some(key)).await;
    assert!(matches!(again, Submitted::Done { answer: Ok(_), .. }), "{again:?}");
    assert_eq!(house.desired().await, DesiredState::Running);
}

/// What a start has written before it was tried says nothing once it has failed.
#[tokio::test]
async fn a_start_that_failed_is_not_done() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    house.orchestrator.stop(&acme(), None).await.unwrap();
    let key = house.key("k", "/start/acme");
    let start = || Mutation::Start { tenant: acme(), service: None };
    let ask = Ask { repeat: Some(key.clone()), ..Ask::default() };
    let orchestrator = &house.orchestrator;
    let record = orchestrator.record(&acme()).await.unwrap().unwrap();
    let op =
        orchestrator.inner.operations.begin(acme(), OperationKind::Start, Duration::ZERO, Duration::from_secs(9)).await;
    let op = op.unwrap();
    let named = Record { operation: Some(op.id()), desired: DesiredState::Running, ..record };
    let written = named.clone();
    orchestrator.disk(move |fs| fs.commit(&written, OperationKind::Start)).await.unwrap();
    let failed = orchestrator.close(&op, &named, Err(Error::Internal)).await;
    assert!(failed.is_err());
    assert_eq!(orchestrator.record(&acme()).await.unwrap().unwrap().operation, None);
    drop(op);
    let done = orchestrator.submit(start(), ask).await.unwrap();
    assert!(matches!(done, Submitted::Done { answer: Ok(_), .. }), "{done:?}");
}

#[tokio::test]
async fn an_older_operation_does_not_take_the_key_of_a_newer_one() {
    let house = House::updated().await;
    let key = house.key("k", "/rollback/acme");
    let older = house.leave(OperationKind::Rollback, Some(key.clone())).await;
    let done = house.submit(House::rollback(), Some(key.clone())).await;
    let Submitted::Done { operation: Some(newer), answer: Ok(_) } = done else { panic!("{done:?}") };
    let house = house.crash().await;
    assert_eq!(house.ended(older).await.outcome, Some(Outcome::Undone));
    let again = house.submit(House::rollback(), Some(key)).await;
    assert!(matches!(again, Submitted::Replayed(record) if record.operation.id == newer));
    assert_eq!(house.generation().await, Generation(3));
}

#[tokio::test]
async fn a_teardown_whose_end_was_lost_still_tells_what_it_has_kept() {
    let house = House::updated().await;
    std::fs::create_dir_all(house.root.path().join("tenants/acme/data/db")).unwrap();
    let key = house.key("k", "/teardown/acme");
    let teardown = || Mutation::Teardown { tenant: acme(), purge: false };
    let done = house.submit(teardown(), Some(key.clone())).await;
    let Submitted::Done { operation: Some(id), answer: Ok(Answered::TornDown(told)) } = done else {
        panic!("{done:?}")
    };
    assert!(told.kept.data && told.kept.archive.is_some(), "{told:?}");
    house.lose_end(id).await;
    let house = house.crash().await;
    let again = house.submit(teardown(), Some(key)).await;
    let Submitted::Replayed(record) = again else { panic!("{again:?}") };
    assert_eq!(record.result.as_ref().unwrap().body, serde_json::to_value(&told).unwrap());
}

/// A repeat that asks not to wait is promised nothing that may still be refused without a trace.
#[tokio::test]
async fn what_may_be_refused_is_not_accepted_by_its_repeat() {
    let house = House::new().await;
    let key = house.key("k", "/provision");
    let first = Mutation::Provision(Box::new(provision("services:\n  web: {image: 'missing:1'}\n")));
    let second = first.clone();
    let asks = [false, true].map(|respond_async| Ask { respond_async, repeat: Some(key.clone()), ..Ask::default() });
    let [sync, detached] = asks;
    let (one, other) =
        tokio::join!(house.orchestrator.submit(first, sync), house.orchestrator.submit(second, detached));
    for submitted in [one, other] {
        if let Ok(Submitted::Accepted { operation, .. }) = submitted {
            let id = operation.operation.id;
            assert!(house.orchestrator.operation(id).await.is_ok(), "what was accepted can be asked for");
        }
    }
}

/// The journal alone is enough: an operation that nobody could ask about again is not written down before its effects.
#[tokio::test]
async fn an_operation_that_only_the_journal_knows_is_on_record_after_the_crash() {
    let house = House::updated().await;
    let id = OperationId::new();
    house.journal(id, OperationKind::Restart, None).await;
    let house = house.crash().await;
    let record = house.ended(id).await;
    assert_eq!((record.state, record.outcome), (OperationState::Interrupted, Some(Outcome::Finished)));
    assert_eq!(record.result.unwrap().body["status"], "restarted");
    let house = house.crash().await;
    assert_eq!(house.ended(id).await.outcome, Some(Outcome::Finished));
}

#[tokio::test]
async fn an_end_that_could_not_be_written_is_written_later() {
    let house = House::new().await;
    let orchestrator = house.orchestrator.clone();
    let never = "services: {web: {image: 'x:1', command: [sleep, '1000'], healthcheck: {test: [CMD, 'false'], \
                 start_period: 1h}}, after: {image: 'x:1', depends_on: {web: {condition: service_healthy}}}}";
    let provisioning = tokio::spawn(async move { orchestrator.provision(provision(never)).await });
    let id = loop {
        let waits = |current: &Current| current.operation.step.contains("waiting");
        if let Some(current) = house.orchestrator.inner.operations.current(&acme()).filter(waits) {
            break current.operation.id;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    // No file can take the place of a directory.
    let in_its_place = house.root.path().join(format!("tenants/.agent/operations/{id}.json"));
    std::fs::create_dir(&in_its_place).unwrap();
    house.orchestrator.cancel(id).await.unwrap();
    assert_eq!(provisioning.await.unwrap().unwrap_err().code(), ErrorCode::Cancelled);
    let ended = house.ended(id).await;
    let ledger = &house.orchestrator.inner.operations.ledger;
    house.orchestrator.write_what_could_not_be_written().await;
    assert_eq!(ledger.unwritten(), [id], "there is still no place for it");
    std::fs::remove_dir(&in_its_place).unwrap();
    house.orchestrator.write_what_could_not_be_written().await;
    assert_eq!(ledger.unwritten(), []);
    let house = house.crash().await;
    assert_eq!(house.orchestrator.operation(id).await.unwrap(), ended);
}

#[tokio::test]
async fn a_restart_with_a_key_is_not_done_twice_when_only_its_end_was_lost() {
    let house = House::updated().await;
    let key = house.key("k", "/restart/acme");
    let restart = || Mutation::Restart { tenant: acme(), service: None };
    let Submitted::Done { operation: Some(id), .. } = house.submit(restart(), Some(key.clone())).await else {
        panic!("it is the first")
    };
    house.lose_end(id).await;
    let house = house.crash().await;
    let again = house.submit(restart(), Some(key)).await;
    assert!(matches!(again, Submitted::Replayed(record) if record.operation.id == id));
}

#[tokio::test]
async fn a_damaged_record_quarantines_its_tenant_only_and_a_repaired_one_is_taken_up() {
    let house = House::updated().await;
    let other = ProvisionRequest { subdomain: Subdomain::parse("other").unwrap(), ..provision(&web("x:1", 1)) };
    house.orchestrator.provision(other).await.unwrap();
    let id = house.leave(OperationKind::Update, None).await;
    house.journal(id, OperationKind::Update, Some(Generation(3))).await;
    let file = house.root.path().join("tenants/acme/.agent/record.json");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, "damaged").unwrap();
    let house = house.crash().await;
    let record = house.orchestrator.operation(id).await.unwrap();
    assert_eq!((record.state, record.outcome), (OperationState::Interrupted, None), "it does not stay running");
    assert!(house.orchestrator.status(&acme()).await.is_err());
    assert!(house.orchestrator.stop(&acme(), None).await.is_err());
    let other = Subdomain::parse("other").unwrap();
    house.orchestrator.restart(&other, None).await.expect("the host serves the others");
    let readiness = house.orchestrator.readiness().await;
    assert_eq!((readiness.ready, readiness.degraded), (true, vec!["tenant:acme".to_owned()]));
    std::fs::write(&file, good).unwrap();
    for _ in 0..2000 {
        if house.orchestrator.readiness().await.degraded.is_empty() {
            assert_eq!(house.orchestrator.operation(id).await.unwrap().outcome, Some(Outcome::Undone));
            assert_eq!(house.generation().await, Generation(2));
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the repaired record was not looked at again");
}

#[tokio::test]
async fn a_tenant_whose_record_is_damaged_is_listed_and_can_be_purged() {
    for (restarted, missing) in [(false, false), (true, false), (false, true), (true, true)] {
        let house = House::updated().await;
        let file = house.root.path().join("tenants/acme/.agent/record.json");
        if missing {
            std::fs::remove_file(file).unwrap();
        } else {
            std::fs::write(file, "damaged").unwrap();
        }
        let house = if restarted { house.crash().await } else { house };
        let refused = [
            house.orchestrator.stop(&acme(), None).await.map(drop),
            house.orchestrator.provision(provision(&web("x:1", 2000))).await.map(drop),
            house.orchestrator.teardown(&acme(), false).await.map(drop),
            house.orchestrator.status(&acme()).await.map(drop),
            house.orchestrator.images(&acme()).await.map(drop),
        ];
        for refused in refused {
            assert_eq!(refused.unwrap_err().code(), ErrorCode::TenantDamaged);
        }
        let lines = house.lines().await;
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&line["subdomain"], &line["state"]), (&"acme".into(), &"failed".into()));
        assert_eq!(line["reasons"][0], "its record cannot be read");
        // After the restart of an agent whose backend forgets, nothing says whose it was.
        assert_eq!(line.get("id").is_none(), restarted, "{line}");
        assert_eq!(house.orchestrator.readiness().await.degraded, ["tenant:acme"]);

        assert!(house.orchestrator.teardown(&acme(), true).await.unwrap().changed);
        let backend = house.orchestrator.backend(BackendName::Memory).unwrap();
        assert_eq!(backend.owned(&BTreeSet::new()).await.unwrap(), []);
        assert!(!house.root.path().join("tenants/acme").exists());
        assert!(house.lines().await.is_empty());
        assert!(house.provision(&web("x:1", 2000)).await.created);
        assert_eq!(house.lines().await[0]["state"], "running");
        assert!(house.orchestrator.readiness().await.degraded.is_empty());
    }
}

#[tokio::test]
async fn a_damaged_journal_degrades_its_tenant_only_and_a_mended_one_is_taken_up() {
    for removed in [false, true] {
        let (house, file, whole) = House::with_a_damaged_journal().await;
        for refused in [
            house.orchestrator.stop(&acme(), None).await.map(drop),
            house.orchestrator.start(&acme(), None).await.map(drop),
            house.orchestrator.restart(&acme(), None).await.map(drop),
            house.orchestrator.rollback(&acme(), None).await.map(drop),
            house.orchestrator.provision(provision(&web("x:1", 3000))).await.map(drop),
            house.orchestrator.update(UpdateRequest { compose: Some(web("x:1", 3000)), ..update() }).await.map(drop),
        ] {
            assert_eq!(refused.unwrap_err().code(), ErrorCode::TenantDamaged);
        }
        let readiness = house.orchestrator.readiness().await;
        assert_eq!((readiness.ready, readiness.degraded), (true, vec!["tenant:acme".to_owned()]));
        let other = Subdomain::parse("other").unwrap();
        house.orchestrator.restart(&other, None).await.expect("the host serves the others");
        assert_eq!(std::fs::read(&file).unwrap(), JUNK, "nobody has touched it");

        if removed {
            std::fs::remove_file(&file).unwrap();
        } else {
            std::fs::write(&file, whole).unwrap();
        }
        house.until_degraded(&[]).await;
        assert_eq!(house.generation().await, Generation(2), "what was open was not committed");
        assert!(!file.exists());
        house.update(&web("x:1", 3000)).await;
        assert_eq!(house.generation().await, Generation(3));
    }
}

#[tokio::test]
async fn what_became_of_an_operation_whose_journal_is_damaged_is_not_known_yet() {
    let house = House::updated().await;
    let id = house.leave(OperationKind::Update, None).await;
    house.journal(id, OperationKind::Update, Some(Generation(3))).await;
    let file = house.root.path().join("tenants/acme/.agent/operation.json");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, JUNK).unwrap();
    let house = house.crash().await;
    let record = house.ended(id).await;
    assert_eq!((record.state, record.outcome), (OperationState::Interrupted, None));
    house.until_degraded(&["tenant:acme"]).await;
    std::fs::write(&file, whole).unwrap();
    house.until_degraded(&[]).await;
    assert_eq!(house.orchestrator.operation(id).await.unwrap().outcome, Some(Outcome::Undone));
}

#[tokio::test]
async fn what_an_operation_has_finished_is_not_said_to_be_open() {
    let (house, file, whole) = House::with_a_damaged_journal().await;
    // The first look after the start is over, and the next one comes four seconds later.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    std::fs::write(&file, whole).unwrap();
    let mut feed = Box::pin(house.orchestrator.events(None, None));
    feed.next().await.unwrap();
    house.update(&web("x:1", 3000)).await;
    assert!(house.orchestrator.readiness().await.degraded.is_empty());
    // The recovery that comes at once finds nothing open.
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(500), feed.next()).await {
        assert!(!(event.data.contains("\"to\":\"running\"") && event.data.contains("still open")), "{}", event.data);
    }
    assert!(house.orchestrator.inner.degraded.is_empty());
}

#[tokio::test]
async fn a_tenant_whose_journal_is_damaged_can_be_torn_down() {
    for purge in [false, true] {
        let (house, file, _) = House::with_a_damaged_journal().await;
        assert!(house.orchestrator.teardown(&acme(), purge).await.unwrap().changed);
        assert!(!file.exists());
        house.until_degraded(&[]).await;
        let left: Vec<_> = house.lines().await.iter().map(|line| line["subdomain"].clone()).collect();
        assert!(left.contains(&"other".into()) && left.contains(&"acme".into()) != purge, "{left:?}");
        assert_eq!(house.root.path().join("tenants/acme").exists(), !purge);
        assert!(house.provision(&web("x:1", 3000)).await.created);
    }
}

#[tokio::test]
async fn a_directory_without_a_record_stays_degraded() {
    let house = House::new().await;
    std::fs::create_dir(house.root.path().join("tenants/acme")).unwrap();
    let house = house.crash().await;
    // Past the first look at it after the start.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(house.orchestrator.readiness().await.degraded, ["tenant:acme"]);
}

/// An operation whose end nobody knew, and a repeat that was promised and came to nothing: the first may yet have done it.
#[test]
fn a_repeat_that_was_nothing_gives_its_key_back() {
    let repeat = RepeatKey { key: "k".to_owned(), request: "r".to_owned() };
    let head = || Operation {
        id: OperationId::new(),
        subdomain: Some(acme()),
        kind: OperationKind::Restart,
        step: String::new(),
        started_at: jiff::Timestamp::now(),
        deadline_at: jiff::Timestamp::now(),
    };
    let origin = || Origin { repeat: Some(repeat.clone()), ..Origin::default() };
    let ended = |record: OperationRecord, state, outcome| OperationRecord {
        state,
        outcome,
        ended_at: Some(jiff::Timestamp::now()),
        error: (state == OperationState::Failed).then(|| Error::Backend(BackendError::Unavailable).failure()),
        ..record
    };
    let ledger = std::sync::Arc::new(Ledger::default());
    let first = Running::left_behind(head(), origin());
    ledger.load(vec![(ended(first.record(), OperationState::Failed, None), 1)]);
    let Ok(Repeat::New(claim)) = ledger.recognise(&repeat) else { panic!("it is done again") };
    assert_eq!(claim.before(), Some(first.id()));
    let ask = Ask { repeat: Some(repeat.clone()), respond_async: true, ..Ask::default() };
    let second = std::sync::Arc::new(Running::left_behind(head(), Origin::of(ask, Some(&claim))));
    claim.bind(&second);
    ledger.open(&second);
    let nothing = ended(second.record(), OperationState::Failed, Some(Outcome::Undone));
    ledger.close(&second, &std::sync::Arc::new(nothing.clone()), Some(1));
    let finished = ended(first.record(), OperationState::Interrupted, Some(Outcome::Finished));
    ledger.amend(&std::sync::Arc::new(finished.clone()), Some(1));
    assert!(matches!(ledger.recognise(&repeat), Ok(Repeat::Of(id)) if id == first.id()));

    // And so it is after a restart of the agent.
    let ledger = std::sync::Arc::new(Ledger::default());
    ledger.load(vec![(finished, 1), (nothing, 1)]);
    assert!(matches!(ledger.recognise(&repeat), Ok(Repeat::Of(id)) if id == first.id()));
}

#[test]
fn what_is_remembered_is_bounded() {
    let ledger = std::sync::Arc::new(Ledger::default());
    let now = jiff::Timestamp::now();
    let record = |age_hours: i64, key: Option<&str>| {
        let at = now.checked_sub(jiff::SignedDuration::from_hours(age_hours)).unwrap();
        let operation = Operation {
            id: OperationId::new(),
            subdomain: Some(acme()),
            kind: OperationKind::Stop,
            step: String::new(),
            started_at: at,
            deadline_at: at,
        };
        OperationRecord {
            operation,
            state: OperationState::Succeeded,
            ended_at: Some(at),
            outcome: None,
            result: None,
            error: None,
            progress: crate::domain::Counters::default(),
            events: 0,
            request_id: None,
            repeat: key.map(|key| RepeatKey { key: key.to_owned(), request: "r".to_owned() }),
        }
    };
    let old = record(25, Some("old"));
    let keyed: Vec<_> = (0..3000).map(|n| record(1, Some(&n.to_string()))).collect();
    let plain: Vec<_> = (0..1100).map(|_| record(1, None)).collect();
    let all = std::iter::once(&old).chain(&keyed).chain(&plain);
    ledger.load(all.map(|record| (record.clone(), 20 << 10)).collect());
    let gone = ledger.prune(now);
    assert!(gone.contains(&old.operation.id) && gone.contains(&plain[0].operation.id));
    assert_eq!(1 + 1100 - gone.len(), (16 << 20) / (20 << 10), "the bytes are what there is least of");
    let repeat = |record: &OperationRecord| ledger.recognise(record.repeat.as_ref().unwrap()).unwrap();
    // However many others there were since.
    for record in &keyed {
        assert!(matches!(repeat(record), Repeat::Of(id) if id == record.operation.id));
        assert!(ledger.find(record.operation.id).is_some());
    }
    assert!(matches!(repeat(&old), Repeat::New(_)));
    assert_eq!(ledger.list(None, 5).len(), 5);
    assert_eq!(ledger.list(None, usize::MAX).len(), 1000 + (16 << 20) / (20 << 10));

    // The bytes of the keyed ones are used up: a new key is refused, anything else is not.
    ledger.check_room(OperationKind::Stop, true).unwrap();
    ledger.load((0..300).map(|n| (record(1, Some(&format!("more-{n}"))), 20 << 10)).collect());
    let refused = ledger.check_room(OperationKind::Stop, true).unwrap_err();
    assert!(matches!(refused, Error::TooManyKeys) && refused.code() == ErrorCode::RateLimited);
    ledger.check_room(OperationKind::Stop, false).unwrap();
    assert!(ledger.prune(now).is_empty());
    assert!(matches!(repeat(&keyed[0]), Repeat::Of(_)));
    // Until their time has come.
    ledger.prune(now.checked_add(jiff::SignedDuration::from_hours(24)).unwrap());
    ledger.check_room(OperationKind::Stop, true).unwrap();
    assert!(matches!(repeat(&keyed[0]), Repeat::New(_)));
}

fn prune() -> PruneRequest {
    PruneRequest { dry_run: false, kinds: BTreeSet::new(), volumes: BTreeSet::new() }
}

#[tokio::test]
async fn one_prune_at_a_time() {
    let house = House::new().await;
    let operations = &house.orchestrator.inner.operations;
    let minute = Duration::from_secs(60);
    let first = operations.begin_on_host(Origin::default(), OperationKind::Prune, minute, minute).await.unwrap();
    let ask = Ask { respond_async: true, ..Ask::default() };
    let second = house.orchestrator.submit(HostMutation::Prune(prune()), ask.clone()).await.unwrap();
    let Submitted::Done { operation: None, answer: Err(Error::Pruning(Some(running))) } = second else {
        panic!("{second:?}")
    };
    assert_eq!((running.id, running.subdomain), (first.running().id(), None));
    // What changes nothing waits for nobody, and neither does a cordon.
    let dry = PruneRequest { dry_run: true, ..prune() };
    assert!(house.orchestrator.prune(dry).await.unwrap().dry_run);
    let cordoned = house.orchestrator.submit(HostMutation::Cordon { reason: None }, ask).await.unwrap();
    let Submitted::Accepted { operation, .. } = cordoned else { panic!("{cordoned:?}") };
    assert_eq!(house.ended(operation.operation.id).await.state, OperationState::Succeeded);
    drop(first);
    assert_eq!(house.orchestrator.prune(prune()).await.unwrap().removed, 0);
    let kinds: Vec<_> = house.orchestrator.operations(None, 10).iter().map(|record| record.operation.kind).collect();
    assert_eq!(kinds, [OperationKind::Cordon], "one that removed nothing is nothing to remember");
    assert!(house.orchestrator.operations(Some(&acme()), 10).is_empty(), "what is done to the host is no tenant's");
}

#[tokio::test]
async fn a_prune_ends_between_two_objects_and_says_what_is_gone() {
    let house = House::new().await;
    let archives = house.root.path().join("tenants/.archive");
    for tenant in ["lost-a", "lost-b"] {
        std::fs::create_dir(archives.join(format!("{tenant}-20990101T000000Z"))).unwrap();
    }
    let operations = &house.orchestrator.inner.operations;
    let minute = Duration::from_secs(60);
    let left = || std::fs::read_dir(&archives).unwrap().count();
    for (cancelled, stopping, limit, code) in [
        (true, false, minute, ErrorCode::Cancelled),
        (false, false, Duration::ZERO, ErrorCode::DeadlineExceeded),
        (false, true, minute, ErrorCode::ShuttingDown),
    ] {
        let op = operations.begin_on_host(Origin::default(), OperationKind::Prune, minute, limit).await.unwrap();
        if cancelled {
            op.running().cancel().unwrap();
        }
        if stopping {
            house.orchestrator.inner.stopping.cancel();
        }
        assert_eq!(house.orchestrator.do_prune(&op, &prune()).await.unwrap_err().code(), code);
        assert_eq!(left(), 2);
    }
}

#[tokio::test]
async fn an_operation_of_the_host_that_an_earlier_agent_left_is_done_anew_under_its_key() {
    let house = House::new().await;
    let key = house.key("k", "cordon");
    let left = house.leave_of_host(OperationKind::Cordon, Some(key.clone())).await;
    let house = house.crash().await;
    let ended = house.ended(left).await;
    assert_eq!((ended.state, ended.outcome), (OperationState::Interrupted, Some(Outcome::Unknown)));
    let ask = Ask { repeat: Some(key), ..Ask::default() };
    let submitted = house.orchestrator.submit(HostMutation::Cordon { reason: None }, ask).await.unwrap();
    let Submitted::Done { operation: Some(id), answer: Ok(Answered::Cordoned(cordoned)) } = submitted else {
        panic!("{submitted:?}")
    };
    assert!(id != left && cordoned.changed && house.orchestrator.cordoned().is_some());
}

//! What is known of operations: those that run, the ones that ended in the last day, and which request each was for.
//!
//! The records of ended operations are on the disk; here is what lists and repeats need of them. Nothing here awaits.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::Error;
use super::operations::Running;
use crate::backend::Progress;
use crate::domain::{
    ErrorCode, Failure, OperationId, OperationKind, OperationRecord, OperationState, Outcome, RepeatKey, Subdomain,
};

/// How long an ended operation, and with it its `Idempotency-Key`, is remembered.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(24);
/// How many ended operations without a key are remembered, and how many bytes their files may have together; the oldest
/// go first. Of those with a key so many are listed.
const MOST: usize = 1000;
const MOST_BYTES: u64 = 16 << 20;
/// The same for ended operations with a key: one every four seconds. None goes before its time; a new one is refused.
const MOST_KEYED: usize = 20_000;
const MOST_KEYED_BYTES: u64 = 64 << 20;
/// How many operations that clients asked for may run at once.
const MOST_RUNNING: usize = 512;
/// Of so many ended operations the events are still there for those who ask late.
const MOST_TOLD: usize = 16;

/// See the module.
#[derive(Default)]
pub(super) struct Ledger(Mutex<Book>);

#[derive(Default)]
struct Book {
    running: HashMap<OperationId, Arc<Running>>,
    /// Those that no request can repeat.
    plain: Shelf,
    /// Those with an `Idempotency-Key`.
    keyed: Shelf,
    /// All of those that could not be written.
    unwritten: HashMap<OperationId, Arc<OperationRecord>>,
    /// By the hash of the `Idempotency-Key`.
    keys: HashMap<Arc<str>, Key>,
    told: VecDeque<(OperationId, Progress)>,
}

/// Ended operations.
#[derive(Default)]
struct Shelf {
    ended: BTreeMap<OperationId, Ended>,
    /// The newest of them, without their results and without their errors' details.
    briefs: BTreeMap<OperationId, OperationRecord>,
    /// The size of their files together.
    bytes: u64,
}

/// What recognises a repeat of an ended operation: there may be many of these.
struct Ended {
    at: Option<Timestamp>,
    answers_repeats: bool,
    key: Option<Arc<str>>,
    /// The size of its file.
    bytes: u64,
}

enum Key {
    /// Somebody is about to begin the operation; the channel closes when that is decided.
    Claimed(watch::Receiver<()>),
    Of(Use),
}

#[derive(Clone)]
struct Use {
    operation: OperationId,
    request: String,
    /// An earlier operation for the same request, which gets the key again if this one turns out to have been nothing.
    before: Option<OperationId>,
}

impl Use {
    /// What the key stood for before.
    fn earlier(&self) -> Option<Self> {
        Some(Self { operation: self.before?, request: self.request.clone(), before: None })
    }
}

/// What is known of one operation.
pub(super) enum Found {
    Running(Arc<Running>),
    /// What is here of its record, which is `whole` or has to be read from the disk, and its events if they are still there.
    Ended {
        record: Option<Arc<OperationRecord>>,
        whole: bool,
        progress: Option<Progress>,
    },
}

/// What an `Idempotency-Key` stands for.
pub(super) enum Repeat {
    /// Nothing yet, or nothing that answers the request: the claim holds it for a new operation.
    New(Claim),
    /// An operation that answers it, now or when it has ended.
    Of(OperationId),
    /// Somebody else is claiming it; ask again when this closes.
    Claimed(watch::Receiver<()>),
}

/// A key on its way to an operation. Dropping it gives the key back to what it stood for before.
pub(super) struct Claim {
    ledger: Arc<Ledger>,
    key: Arc<str>,
    before: Option<Use>,
    bound: bool,
    _decided: watch::Sender<()>,
}

impl Claim {
    /// The operation that the key stood for: it did not answer the request, as far as is known.
    pub(super) fn before(&self) -> Option<OperationId> {
        self.before.as_ref().map(|before| before.operation)
    }

    /// From here on the key stands for this operation.
    pub(super) fn bind(mut self, running: &Running) {
        if let Some(repeat) = &running.origin.repeat {
            let new = Use { operation: running.id(), request: repeat.request.clone(), before: self.before() };
            self.ledger.book().keys.insert(Arc::clone(&self.key), Key::Of(new));
            self.bound = true;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.bound {
            return;
        }
        let before = self.before.take();
        self.ledger.book().hand_back(&self.key, before);
    }
}

/// Whether an ended operation answers a repeat of its request. One that failed and was undone is tried again if the failure
/// was of the kind that passes, or the host's: nothing of it stands, so nothing is done twice. One that would fail the same
/// way again is answered from memory, so that a client that missed the answer learns it. What is not known to have been done
/// is done.
pub(super) fn answers_repeats(record: &OperationRecord) -> bool {
    match record.state {
        OperationState::Running | OperationState::Succeeded => true,
        OperationState::Cancelled => false,
        OperationState::Interrupted => record.outcome == Some(Outcome::Finished),
        OperationState::Failed => match record.outcome {
            Some(Outcome::Finished) => true,
            Some(Outcome::Undone) => {
                record.error.as_ref().is_some_and(|error| !error.code.is_retryable() && !error.code.is_of_the_host())
            }
            Some(Outcome::Unknown) | None => false,
        },
    }
}

/// Whether an ended operation is as if it had not been: nothing of it stands, and a repeat of its request is done.
fn was_nothing(record: &OperationRecord) -> bool {
    let is_undone = record.state == OperationState::Cancelled || record.outcome == Some(Outcome::Undone);
    is_undone && !answers_repeats(record)
}

impl Ledger {
    /// Takes in what an earlier run has written. Running ones are the caller's to recover.
    pub(super) fn load(&self, ended: Vec<(OperationRecord, u64)>) {
        let mut book = self.book();
        for (record, bytes) in ended {
            // In the order of their beginnings: the last one that used a key has it, unless it was nothing.
            if let Some(RepeatKey { key, request }) = &record.repeat
                && !(was_nothing(&record) && book.keys.contains_key(key.as_str()))
            {
                book.give(key.as_str().into(), record.operation.id, request.clone());
            }
            book.shelve(&record, bytes);
        }
    }

    /// An operation begins.
    pub(super) fn open(&self, running: &Arc<Running>) {
        let mut book = self.book();
        book.running.insert(running.id(), Arc::clone(running));
    }

    /// One that an earlier run left: its key is its again.
    pub(super) fn reopen(&self, running: &Arc<Running>) {
        let mut book = self.book();
        if let Some(RepeatKey { key, request }) = running.origin.repeat.clone() {
            // Unless a later operation for the same request has it.
            let is_taken = matches!(book.keys.get(key.as_str()), Some(Key::Of(used)) if used.operation > running.id());
            if !is_taken {
                book.give(key.into(), running.id(), request);
            }
        }
        book.running.insert(running.id(), Arc::clone(running));
    }

    /// Refuses one more operation when too many are running, and one more key when too many would have to be remembered. A
    /// cordon, which is what such a host needs, is not refused for what is running.
    pub(super) fn check_room(&self, kind: OperationKind, has_key: bool) -> Result<(), Error> {
        let book = self.book();
        let is_short = matches!(kind, OperationKind::Cordon | OperationKind::Uncordon);
        if book.running.len() >= MOST_RUNNING && !is_short {
            return Err(Error::TooManyOperations);
        }
        let full = book.keyed.ended.len() >= MOST_KEYED || book.keyed.bytes >= MOST_KEYED_BYTES;
        if has_key && full { Err(Error::TooManyKeys) } else { Ok(()) }
    }

    /// An operation has ended. `bytes` is the size of its file, none when it could not be written.
    pub(super) fn close(&self, running: &Running, record: &Arc<OperationRecord>, bytes: Option<u64>) {
        let mut book = self.book();
        if record.repeat.is_some() {
            book.running.remove(&running.id());
        } else {
            book.forget(running);
        }
        book.told.push_back((running.id(), running.progress.clone()));
        if book.told.len() > MOST_TOLD {
            book.told.pop_front();
        }
        book.replace(record, bytes);
        drop(book);
        running.tell_end(Arc::clone(record));
    }

    /// An operation was refused before it did anything: whoever waits for it is told, and it is forgotten.
    pub(super) fn refuse(&self, running: &Running, record: &Arc<OperationRecord>) {
        self.book().forget(running);
        running.tell_end(Arc::clone(record));
    }

    /// An operation's holder is gone. If it has not ended, it ended abnormally.
    pub(super) fn abandon(&self, running: &Arc<Running>) {
        let mut book = self.book();
        if !book.running.contains_key(&running.id()) {
            return;
        }
        let mut record = running.record();
        if record.operation.kind == OperationKind::Recover || !(running.has_begun() || running.origin.promised) {
            book.forget(running);
        } else {
            book.running.remove(&running.id());
            record.state = OperationState::Failed;
            record.ended_at = Some(Timestamp::now());
            let message = Error::Internal.to_string();
            let error =
                Failure { code: ErrorCode::Internal, message, field: None, line: None, column: None, details: None };
            record.error = Some(error);
            let record = Arc::new(record);
            book.replace(&record, None);
            drop(book);
            running.tell_end(record);
        }
    }

    /// More is known of an ended operation.
    pub(super) fn amend(&self, record: &Arc<OperationRecord>, bytes: Option<u64>) {
        self.book().replace(record, bytes);
    }

    /// The ended operations whose ends could not be written.
    pub(super) fn unwritten(&self) -> Vec<OperationId> {
        self.book().unwritten.keys().copied().collect()
    }

    pub(super) fn unwritten_of(&self, id: OperationId) -> Option<Arc<OperationRecord>> {
        self.book().unwritten.get(&id).cloned()
    }

    pub(super) fn find(&self, id: OperationId) -> Option<Found> {
        let book = self.book();
        if let Some(running) = book.running.get(&id) {
            return Some(Found::Running(Arc::clone(running)));
        }
        let holder = [&book.plain, &book.keyed].into_iter().find(|shelf| shelf.ended.contains_key(&id))?;
        let progress = book.told.iter().find(|(told, _)| *told == id).map(|(_, progress)| progress.clone());
        Some(match book.unwritten.get(&id) {
            Some(record) => Found::Ended { record: Some(Arc::clone(record)), whole: true, progress },
            None => Found::Ended { record: holder.briefs.get(&id).cloned().map(Arc::new), whole: false, progress },
        })
    }

    /// The operations of a tenant that have not ended, but for one.
    pub(super) fn running_of(&self, tenant: &Subdomain, except: OperationId) -> Vec<Arc<Running>> {
        let book = self.book();
        let of_tenant = book.running.values().filter(|running| running.tenant() == Some(tenant));
        of_tenant.filter(|running| running.id() != except).cloned().collect()
    }

    /// Whether an operation runs that may make containers.
    pub(super) fn is_bringing_up(&self) -> bool {
        self.book().running.values().any(|running| running.now().kind.brings_up())
    }

    /// The newest operations, without their results.
    pub(super) fn list(&self, tenant: Option<&Subdomain>, most: usize) -> Vec<OperationRecord> {
        let (running, ended) = {
            let book = self.book();
            let running: Vec<_> = book.running.values().cloned().collect();
            let newest = |shelf: &Shelf| {
                let of_tenant =
                    |brief: &&OperationRecord| tenant.is_none() || tenant == brief.operation.subdomain.as_ref();
                shelf.briefs.values().rev().filter(of_tenant).take(most).cloned().collect::<Vec<_>>()
            };
            (running, [newest(&book.plain), newest(&book.keyed)].concat())
        };
        let running = running.iter().filter(|running| {
            // What nobody asked for is no business of theirs; it is found by its id when it keeps a tenant busy.
            let asked_for = match running.now().kind {
                OperationKind::Recover => false,
                OperationKind::Prune => running.tenant().is_none(),
                _ => true,
            };
            asked_for && (tenant.is_none() || tenant == running.tenant())
        });
        let mut all: Vec<OperationRecord> = running.map(|running| running.record()).chain(ended).collect();
        all.sort_by_key(|record| std::cmp::Reverse(record.operation.id));
        all.truncate(most);
        all
    }

    /// Looks a request's key up, and claims it unless there is an operation that answers the request.
    pub(super) fn recognise(self: &Arc<Self>, repeat: &RepeatKey) -> Result<Repeat, Error> {
        let mut book = self.book();
        let before = match book.keys.get(repeat.key.as_str()) {
            Some(Key::Claimed(decided)) => return Ok(Repeat::Claimed(decided.clone())),
            Some(Key::Of(used)) if used.request != repeat.request => return Err(Error::IdempotencyMismatch),
            Some(Key::Of(used)) => {
                let ended = book.keyed.ended.get(&used.operation).map(|ended| ended.answers_repeats);
                if book.running.contains_key(&used.operation) || ended == Some(true) {
                    return Ok(Repeat::Of(used.operation));
                }
                Some(used.clone())
            }
            None => None,
        };
        let (decided, waiting) = watch::channel(());
        let key: Arc<str> = repeat.key.as_str().into();
        book.keys.insert(Arc::clone(&key), Key::Claimed(waiting));
        drop(book);
        let ledger = Arc::clone(self);
        Ok(Repeat::New(Claim { ledger, key, before, bound: false, _decided: decided }))
    }

    /// Forgets what is too old or too much, and says whose files can go.
    pub(super) fn prune(&self, now: Timestamp) -> Vec<OperationId> {
        let mut book = self.book();
        let mut gone = book.plain.prune(now, MOST, MOST_BYTES);
        // These go when their time has come, however many there are: their limit is one for new ones.
        gone.extend(book.keyed.prune(now, usize::MAX, u64::MAX));
        let gone: Vec<OperationId> = gone
            .into_iter()
            .map(|(id, ended)| {
                book.unwritten.remove(&id);
                if let Some(key) = ended.key
                    && matches!(book.keys.get(&key), Some(Key::Of(used)) if used.operation == id)
                {
                    book.keys.remove(&key);
                }
                id
            })
            .collect();
        gone
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn put(&mut self, record: &OperationRecord, key: Option<Arc<str>>, bytes: u64) {
        let id = record.operation.id;
        let new = Ended { at: record.ended_at, answers_repeats: answers_repeats(record), key, bytes };
        self.bytes += bytes;
        if let Some(old) = self.ended.insert(id, new) {
            self.bytes = self.bytes.saturating_sub(old.bytes);
        }
        self.briefs.insert(id, brief(record));
        if self.briefs.len() > MOST {
            self.briefs.pop_first();
        }
    }

    /// Takes out what is too old or too much.
    fn prune(&mut self, now: Timestamp, most: usize, most_bytes: u64) -> Vec<(OperationId, Ended)> {
        let mut gone = Vec::new();
        // The oldest first; ids are in the order of beginnings, which is near enough to that of ends.
        while let Some((&id, first)) = self.ended.first_key_value() {
            let expired = first.at.is_none_or(|at| now.duration_since(at) > KEPT_FOR);
            if !expired && self.ended.len() <= most && self.bytes <= most_bytes {
                break;
            }
            let Some(ended) = self.ended.remove(&id) else { break };
            self.bytes = self.bytes.saturating_sub(ended.bytes);
            self.briefs.remove(&id);
            gone.push((id, ended));
        }
        gone
    }
}

impl Book {
    /// Puts an ended operation where it belongs.
    fn shelve(&mut self, record: &OperationRecord, bytes: u64) {
        match &record.repeat {
            None => self.plain.put(record, None, bytes),
            Some(repeat) => {
                let known = self.keys.get_key_value(repeat.key.as_str()).map(|(key, _)| Arc::clone(key));
                let key = known.unwrap_or_else(|| repeat.key.as_str().into());
                self.keyed.put(record, Some(key), bytes);
            }
        }
    }

    fn replace(&mut self, record: &Arc<OperationRecord>, bytes: Option<u64>) {
        match bytes {
            Some(_) => self.unwritten.remove(&record.operation.id),
            None => self.unwritten.insert(record.operation.id, Arc::clone(record)),
        };
        let size = || serde_json::to_vec(record.as_ref()).map_or(0, |text| text.len() as u64);
        self.shelve(record, bytes.unwrap_or_else(size));
        if let Some(RepeatKey { key, .. }) = record.repeat.as_ref().filter(|_| was_nothing(record))
            && let Some(Key::Of(used)) = self.keys.get(key.as_str())
            && used.operation == record.operation.id
            && let Some(earlier) = used.earlier().filter(|earlier| self.is_known(earlier.operation))
        {
            self.keys.insert(key.as_str().into(), Key::Of(earlier));
        }
    }

    fn forget(&mut self, running: &Running) {
        self.running.remove(&running.id());
        if let Some(RepeatKey { key, .. }) = &running.origin.repeat
            && let Some(Key::Of(used)) = self.keys.get(key.as_str())
            && used.operation == running.id()
        {
            let earlier = used.earlier();
            self.hand_back(key, earlier);
        }
    }

    /// A key stands for an operation that is known from its record.
    fn give(&mut self, key: Arc<str>, operation: OperationId, request: String) {
        let before = match self.keys.get(&key) {
            Some(Key::Of(used)) if used.request == request => Some(used.operation),
            _ => None,
        };
        self.keys.insert(key, Key::Of(Use { operation, request, before }));
    }

    /// A key stands again for what it stood for before, if that has not been forgotten meanwhile.
    fn hand_back(&mut self, key: &str, before: Option<Use>) {
        match before.filter(|before| self.is_known(before.operation)) {
            Some(before) => self.keys.insert(key.into(), Key::Of(before)),
            None => self.keys.remove(key),
        };
    }

    fn is_known(&self, operation: OperationId) -> bool {
        self.running.contains_key(&operation) || self.keyed.ended.contains_key(&operation)
    }
}

fn brief(record: &OperationRecord) -> OperationRecord {
    let error = record.error.as_ref().map(|error| Failure { details: None, ..error.clone() });
    OperationRecord { result: None, error, ..record.clone() }
}

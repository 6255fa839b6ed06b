//! The events of one operation as a stream: what it told so far, what it tells from now on, and its end.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::watch;

use super::ledger::Found;
use super::{Error, Orchestrator};
use crate::backend::{Progress, TAKEN_UP, Told};
use crate::domain::{OperationId, OperationRecord};

/// How many events a follower takes at a time.
const BATCH: usize = 64;

/// What a follower gets.
#[derive(Debug, Clone)]
pub enum Followed {
    /// An event.
    Told(Told),
    /// Events that came before the ones that follow are not kept any more.
    Gap {
        /// How many, at most; none if nobody knows.
        missed: Option<u64>,
    },
    /// The follower took too long, and so many events are gone: nothing follows on this stream.
    TooSlow {
        /// How many, at most.
        missed: u64,
    },
    /// The operation has ended.
    End {
        /// The number of this event.
        number: u64,
        /// The operation's record.
        record: Arc<OperationRecord>,
    },
}

struct Follower {
    progress: Progress,
    more: watch::Receiver<u64>,
    ended: watch::Receiver<Option<Arc<OperationRecord>>>,
    /// The number of the last event that was taken.
    seen: u64,
    taken: VecDeque<Told>,
    /// The gap before the first event.
    gap: Option<Followed>,
    first: bool,
    over: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<Followed> {
        loop {
            if self.over {
                return None;
            }
            if let Some(gap) = self.gap.take() {
                return Some(gap);
            }
            if let Some(told) = self.taken.pop_front() {
                return Some(Followed::Told(told));
            }
            // In this order: once the end is known there are no more events than those that are seen now.
            let ended = self.ended.borrow_and_update().clone();
            self.more.borrow_and_update();
            let news = self.progress.after(self.seen, BATCH);
            let first = std::mem::replace(&mut self.first, false);
            if news.missed > 0 {
                self.seen += news.missed;
                if first {
                    return Some(Followed::Gap { missed: Some(news.missed) });
                }
                self.over = true;
                return Some(Followed::TooSlow { missed: news.missed });
            }
            if let Some(last) = news.events.last() {
                self.seen = last.number;
                self.taken = news.events.into();
                continue;
            }
            if let Some(record) = ended {
                self.over = true;
                return Some(Followed::End { number: record.events + 1, record });
            }
            let changed = tokio::select! {
                changed = self.more.changed() => changed,
                changed = self.ended.changed() => changed,
            };
            // Nobody is left who could tell anything.
            self.over = changed.is_err();
        }
    }
}

/// Where a follower begins that has seen the event of this number, and the gap that it is told of first. `last` is the
/// number of the last event of an operation that has ended.
fn begin(after: u64, progress: Option<&Progress>, last: Option<u64>) -> (u64, Option<Followed>) {
    match (progress, last) {
        // Told by an earlier run of the agent, which left no count of them; or a number that nobody has given.
        (Some(progress), _) if after < progress.begin() || after > progress.last() => {
            (progress.begin(), Some(Followed::Gap { missed: None }))
        }
        (None, Some(last)) if after != last => {
            let missed = last.checked_sub(after).filter(|_| last < TAKEN_UP);
            (last, Some(Followed::Gap { missed }))
        }
        _ => (after, None),
    }
}

impl Orchestrator {
    /// The events of an operation after the one with this number, to its end. None when the follower has seen the end.
    pub async fn follow(
        &self,
        id: OperationId,
        after: Option<u64>,
    ) -> Result<Option<impl Stream<Item = Followed> + Send + use<>>, Error> {
        let found = self.inner.operations.ledger.find(id).ok_or(Error::NoSuchOperation)?;
        let (progress, ended) = match found {
            Found::Running(running) => (Some(running.progress.clone()), running.follow_end()),
            Found::Ended { progress, .. } => {
                let record = self.operation(id).await?;
                if after == Some(record.events + 1) {
                    return Ok(None);
                }
                (progress, watch::channel(Some(Arc::new(record))).1)
            }
        };
        let last = ended.borrow().as_ref().map(|record| record.events);
        let (seen, gap) = begin(after.unwrap_or(0), progress.as_ref(), last);
        let progress = progress.unwrap_or_default();
        let follower = Follower {
            more: progress.subscribe(),
            progress,
            ended,
            seen,
            taken: VecDeque::new(),
            gap,
            first: true,
            over: false,
        };
        Ok(Some(futures::stream::unfold(follower, |mut follower| async { Some((follower.next().await?, follower)) })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than are kept.
    const MANY: u64 = 1000;

    fn follower(progress: &Progress) -> (watch::Sender<Option<Arc<OperationRecord>>>, Follower) {
        let (end, ended) = watch::channel(None);
        let follower = Follower {
            more: progress.subscribe(),
            progress: progress.clone(),
            ended,
            seen: 0,
            taken: VecDeque::new(),
            gap: None,
            first: true,
            over: false,
        };
        (end, follower)
    }

    fn tell_many(progress: &Progress) {
        (0..MANY).for_each(|number| progress.report(format!("step {number}")));
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_so_and_then_nothing_more() {
        let progress = Progress::new();
        let (_end, mut follower) = follower(&progress);
        progress.report("first");
        assert!(matches!(follower.next().await, Some(Followed::Told(told)) if told.number == 1));
        tell_many(&progress);
        let gone = progress.after(1, 1).missed;
        assert!(gone > 0, "not all of them are kept");
        let told = follower.next().await;
        assert!(matches!(told, Some(Followed::TooSlow { missed }) if missed == gone), "{told:?}");
        assert!(follower.next().await.is_none());
        progress.report("last");
        assert!(follower.next().await.is_none(), "it stays over");
    }

    /// Who comes late has not been slow.
    #[tokio::test]
    async fn who_comes_late_is_told_of_the_gap_and_of_all_that_is_kept() {
        let progress = Progress::new();
        tell_many(&progress);
        let gone = progress.after(0, 1).missed;
        let (_end, mut follower) = follower(&progress);
        let told = follower.next().await;
        assert!(matches!(told, Some(Followed::Gap { missed }) if missed == Some(gone) && gone > 0), "{told:?}");
        for number in gone + 1..=MANY {
            let told = follower.next().await;
            assert!(matches!(&told, Some(Followed::Told(told)) if told.number == number), "{number}: {told:?}");
        }
    }
}

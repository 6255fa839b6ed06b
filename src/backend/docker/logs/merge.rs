//! Merges the logs of several containers by time.
//!
//! As long as a source reads what was there before, its next line is waited for, so that a log that has been written is told
//! in order. A source that is live may be silent for ever: then the others go ahead with lines that are old enough for an
//! earlier one to have come. One that could not hand its lines over in time is not live until it has caught up.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::source::Batch;
use crate::backend::logs::instant_of;
use crate::backend::{BackendError, LogEvent, LogGap, LogStream};

/// Lines that were written at the same time by several containers come in the order of their timestamps if none of
/// them is later than this.
const REORDER: Duration = Duration::from_millis(20);
/// Events that go on at once.
const TOGETHER: usize = 512;

/// What happens to the sources while they are merged.
pub(super) enum News {
    /// One more.
    Source(Head),
    /// There will be no more: it ends with those that there are.
    Last,
    /// It ends with this.
    Failed(BackendError),
}

/// Merges sources until all have ended and, where there is `news`, no more will come: none does when this time has passed.
pub(super) fn merge(
    sources: Vec<Head>,
    news: Option<mpsc::Receiver<News>>,
    until: Option<jiff::Timestamp>,
    alive: impl Send + 'static,
) -> LogStream {
    let (sender, mut receiver) = mpsc::channel(1);
    let end = until.filter(|_| news.is_some()).map(|until| instant_of(until, jiff::Timestamp::now()));
    let merge = Merge { heads: sources, news, end };
    let merging = AbortOnDropHandle::new(feed(sender.clone(), Err(broken()), merge.run(sender)));
    stream::poll_fn(move |context| {
        let _alive = (&merging, &alive);
        receiver.poll_recv(context)
    })
    .boxed()
}

/// Spawns what sends to a channel. If it panics, this is the last that is sent: an end without a word would pass for the end
/// of the log.
pub(super) fn feed<T: Send + 'static>(
    sender: mpsc::Sender<T>,
    last_word: T,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            // Nobody left to read it is no failure.
            let _ = sender.send(last_word).await;
        }
    })
}

/// What is said of a log whose reading has panicked.
pub(super) fn broken() -> BackendError {
    BackendError::Unexpected { what: "reading the log" }
}

struct Merge {
    heads: Vec<Head>,
    news: Option<mpsc::Receiver<News>>,
    end: Option<Instant>,
}

impl Merge {
    async fn run(mut self, out: mpsc::Sender<Result<Vec<LogEvent>, BackendError>>) {
        loop {
            while let Some(news) = self.news.as_mut().and_then(|news| news.try_recv().ok()) {
                if let Some(error) = self.hear(Some(news)) {
                    let _ = out.send(Err(error)).await;
                    return;
                }
            }
            let (batch, failure) = self.next_batch();
            let idle = batch.is_empty() && failure.is_none();
            // A failed send means that the reader has gone.
            if !batch.is_empty() && out.send(Ok(batch)).await.is_err() {
                return;
            }
            if let Some(error) = failure {
                let _ = out.send(Err(error)).await;
                return;
            }
            let over = self.end.is_some_and(|end| Instant::now() >= end);
            if idle && self.heads.is_empty() && (over || self.news.is_none()) {
                return;
            }
            if idle && let Some(error) = self.wait().await {
                let _ = out.send(Err(error)).await;
                return;
            }
        }
    }

    fn hear(&mut self, news: Option<News>) -> Option<BackendError> {
        match news {
            Some(News::Source(head)) => self.heads.push(head),
            Some(News::Failed(error)) => return Some(error),
            Some(News::Last) | None => self.news = None,
        }
        None
    }

    /// What can be told now, in order.
    fn next_batch(&mut self) -> (Vec<LogEvent>, Option<BackendError>) {
        let mut batch = Vec::new();
        while batch.len() < TOGETHER {
            for head in &mut self.heads {
                head.fill_from_waiting();
            }
            self.heads.retain(|head| head.next.is_some() || !head.ended);
            if let [only] = &mut self.heads[..] {
                // Nobody else's lines come in between.
                match only.next.take() {
                    Some(Ok(event)) => batch.push(event),
                    Some(Err(error)) => return (batch, Some(error)),
                    None => break,
                }
                batch.extend(only.current.by_ref());
                continue;
            }
            let silent = self.heads.iter().any(|head| head.next.is_none());
            if self.heads.iter().any(Head::is_awaited) {
                break;
            }
            let earliest = self.heads.iter_mut().filter(|head| head.next.is_some()).min_by_key(|head| head.time());
            let Some(head) = earliest.filter(|head| !silent || head.may_overtake()) else { break };
            if let Some(error) = head.take(&mut batch) {
                return (batch, Some(error));
            }
        }
        (batch, None)
    }

    /// Waits for something to do.
    async fn wait(&mut self) -> Option<BackendError> {
        let reorder = self.heads.iter().any(|head| head.next.is_some());
        let end = self.end.filter(|_| self.heads.is_empty());
        let missing: Vec<_> =
            self.heads.iter_mut().filter(|head| head.next.is_none()).map(|head| Box::pin(head.fill())).collect();
        let filled = async {
            if missing.is_empty() {
                std::future::pending::<()>().await;
            }
            futures::future::select_all(missing).await;
        };
        let heard = async {
            match self.news.as_mut() {
                Some(news) => news.recv().await,
                None => std::future::pending().await,
            }
        };
        let over = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let news = tokio::select! {
            () = filled => return None,
            () = tokio::time::sleep(REORDER), if reorder => return None,
            () = over => return None,
            news = heard => news,
        };
        self.hear(news)
    }
}

/// One source of a merge: its next event, and how to get more.
pub(super) struct Head {
    batches: mpsc::Receiver<Result<Batch, BackendError>>,
    current: std::vec::IntoIter<LogEvent>,
    next: Option<Result<LogEvent, BackendError>>,
    live: bool,
    ended: bool,
    /// When its task may last have waited to hand more over.
    crowded: Option<Instant>,
    _reader: AbortOnDropHandle<()>,
}

impl Head {
    /// Of what a task sends.
    pub(super) fn new(batches: mpsc::Receiver<Result<Batch, BackendError>>, reader: JoinHandle<()>) -> Self {
        Self {
            batches,
            current: Vec::new().into_iter(),
            next: None,
            live: false,
            ended: false,
            crowded: None,
            _reader: AbortOnDropHandle::new(reader),
        }
    }

    /// Of these events, which are all.
    pub(super) fn of(events: Vec<LogEvent>) -> Self {
        let (sender, batches) = mpsc::channel(1);
        let told = tokio::spawn(async move {
            // Nobody left to read it is no failure.
            let _ = sender.send(Ok(Batch::Events(events))).await;
        });
        Self::new(batches, told)
    }

    /// What has no time comes at once.
    fn time(&self) -> Option<jiff::Timestamp> {
        match &self.next {
            Some(Ok(LogEvent::Line(line))) => line.time,
            Some(Ok(LogEvent::Gap(gap))) => gap.from,
            _ => self.gap_behind().and_then(|gap| gap.from),
        }
    }

    /// The gap that the next event moves the cursor past. Nothing comes in between: who went on from there would not hear
    /// of it.
    fn gap_behind(&self) -> Option<&LogGap> {
        let moves = matches!(self.next, Some(Ok(LogEvent::Joined(_) | LogEvent::Left(_))));
        match self.current.as_slice() {
            [LogEvent::Gap(gap), ..] if moves => Some(gap),
            _ => None,
        }
    }

    /// Whether this source's next line need not wait any longer for one that is silent: an earlier one would have come.
    fn may_overtake(&self) -> bool {
        let age = self.time().map(|time| jiff::Timestamp::now().duration_since(time));
        // What comes from the future was written by a clock that has been set back since.
        age.is_none_or(|age| Duration::try_from(age).map_or(true, |age| age >= REORDER))
    }

    /// Takes the next event if it has already come.
    fn fill_from_waiting(&mut self) {
        while self.next.is_none() && !self.ended {
            if self.batches.capacity() == 0 {
                self.crowded = Some(Instant::now());
            }
            match self.batches.try_recv() {
                Ok(batch) => self.accept(Some(batch)),
                Err(mpsc::error::TryRecvError::Disconnected) => self.accept(None),
                Err(mpsc::error::TryRecvError::Empty) => return,
            }
        }
    }

    /// Whether nobody may go ahead of its next event. One that was full a moment ago has more, or is about to say that it is
    /// behind.
    fn is_awaited(&self) -> bool {
        self.next.is_none() && (!self.live || self.crowded.is_some_and(|since| since.elapsed() < REORDER))
    }

    fn accept(&mut self, batch: Option<Result<Batch, BackendError>>) {
        match batch {
            Some(Ok(Batch::Events(events))) => {
                self.current = events.into_iter();
                self.next = self.current.next().map(Ok);
            }
            Some(Ok(Batch::Live)) => self.live = true,
            Some(Ok(Batch::Behind)) => self.live = false,
            Some(Err(error)) => self.next = Some(Err(error)),
            None => self.ended = true,
        }
    }

    /// Takes the next event, and the gap that belongs to it.
    fn take(&mut self, batch: &mut Vec<LogEvent>) -> Option<BackendError> {
        let gap = if self.gap_behind().is_some() { self.current.next() } else { None };
        let taken = self.next.take().transpose();
        self.next = self.current.next().map(Ok);
        match taken {
            Ok(event) => {
                batch.extend(event.into_iter().chain(gap));
                None
            }
            Err(error) => Some(error),
        }
    }

    /// Waits for this source's next event, its end or its going live. Cancelling it loses nothing.
    async fn fill(&mut self) {
        let was_live = self.live;
        while self.next.is_none() && !self.ended && self.live == was_live {
            let batch = self.batches.recv().await;
            self.accept(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_not_the_end_of_a_log() {
        let (sender, batches) = mpsc::channel(1);
        let source = feed(sender, Err(broken()), async { panic!("a test asked for this") });
        let told: Vec<_> = merge(vec![Head::new(batches, source)], None, None, ()).collect().await;
        assert!(matches!(&told[..], [Err(BackendError::Unexpected { .. })]), "{told:?}");
        let (sender, batches) = mpsc::channel(1);
        let source = feed(sender, Err(broken()), async {});
        let told: Vec<_> = merge(vec![Head::new(batches, source)], None, None, ()).collect().await;
        assert!(told.is_empty(), "{told:?}");
    }
}

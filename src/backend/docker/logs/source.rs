//! Reads one container's log: what is there, and what is written as long as the container exists.
//!
//! ```text
//! first part of the log --> Live --> follow until the engine ends it --> read on after the last line --> wait for a start
//!  (a tail, or all that                  ^                                                                     |
//!   comes after a cursor)                +---------------------------------------------------------------------+
//! ```
//! Whenever a log is read again, the place to go on at is looked for among its last lines, in the order of the log. Times
//! only serve to recognise a line: a clock that was set back loses nothing, and the engine need not scan the whole log as it
//! does for `since`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Window;
use super::connection::Reading;
use super::finder::{Finder, Runs};
use crate::backend::docker::demux::Piece;
use crate::backend::docker::engine::{Engine, EngineError};
use crate::backend::logs::instant_of;
use crate::backend::{BackendError, GapReason, LineMark, LogEvent, LogGap, LogLine, LogOrigin, Position, Tail, cursor};
use crate::domain::ContainerId;

/// Among how many of the last lines a place is looked for; in the whole log after that.
const LADDER: [u32; 3] = [256, 4096, 65_536];
/// Up to so many last lines are counted from further back (see [`Source::place_before`]); 24 bytes are held for each.
const COUNTED: u32 = 10_000;
/// A follower that could not hand its lines over for so long is read anew: the engine may have rotated the log twice
/// meanwhile, and its followers then miss what was between without a word.
const SLOW: Duration = Duration::from_millis(250);
/// How often a container that does not run is looked at when no event comes.
const LOOK: Duration = Duration::from_secs(5);
/// The least time between two times of following a container.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the engine may be silent in the middle of what it has.
const MUTE: Duration = Duration::from_secs(60);
/// Among how many of the last lines a place is looked for in a log that cannot be read as a whole.
const READABLE: [u32; 3] = [256, 16, 1];
/// How long a follower looks for its place, which was at the end of the log a moment ago. It tells nothing meanwhile, and the
/// engine may have nothing more to send for ever.
const FOUND: Duration = Duration::from_secs(2);
/// How long lines that were written before `until` may take to come.
const GRACE: Duration = Duration::from_millis(500);

/// The engine's status for a log driver that keeps nothing which could be read.
const NO_LOG: u16 = 501;

/// What a source has to tell.
#[derive(Debug)]
pub(super) enum Batch {
    /// Never empty.
    Events(Vec<LogEvent>),
    /// All that had been written has been told. From here on nobody knows when the next line comes.
    Live,
    /// There is more that has been written, which is told before the next `Live`.
    Behind,
}

/// Where a source begins.
#[derive(Debug, Clone)]
pub(super) enum Start {
    /// With a part of the log.
    Window(Window),
    /// With what comes after this.
    After(Position),
}

/// What has to be known of a container before its log is read.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    /// Whether it has a terminal.
    pub(super) tty: bool,
    /// When it was last started, as the engine says it.
    pub(super) started: Option<String>,
}

/// Why it does not go on.
enum Halt {
    /// Nobody reads any more.
    Unread,
    /// The engine says that it cannot read the log any further.
    Fault(String),
    Engine(EngineError),
}

impl From<EngineError> for Halt {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// How following a log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Followed {
    /// The engine ended it, so the container writes no more; or the time is over.
    ToItsEnd,
    /// The place to go on at is not among the last lines, or was not a moment ago.
    NotFromThere,
    /// Whoever reads it could not follow.
    TooSlowly,
}

/// How a search ended.
enum Search {
    /// What comes after the place has been told.
    Told,
    /// The place is not among these lines.
    Missing { early: Option<u32> },
    /// The engine cannot read all of these lines, and the place is not among those before the damage.
    Damaged,
}

pub(super) struct Source {
    engine: Arc<Engine>,
    id: ContainerId,
    tty: bool,
    origin: Arc<LogOrigin>,
    until: Option<jiff::Timestamp>,
    /// When following ends; never without `until`.
    end: Option<Instant>,
    out: mpsc::Sender<Result<Batch, BackendError>>,
    /// Up to where it has been told.
    position: Position,
    runs: Runs,
    /// Handing over took too long since this was last looked at.
    slow: bool,
    /// There may be lines that have not been read, and that go with the container.
    behind: bool,
    /// Whoever merges it need not wait for its next line.
    live: bool,
    /// So many of the last lines can be read, as far as is known: fewer than [`LADDER`] begins with where the log is damaged
    /// near its end. With none only what is new is told.
    reach: u32,
    /// When the container was started whose lines were last read.
    started: Option<String>,
}

impl Source {
    pub(super) fn new(
        engine: &Arc<Engine>,
        (id, Looked { tty, started }, origin): (ContainerId, Looked, Arc<LogOrigin>),
        until: Option<jiff::Timestamp>,
        out: mpsc::Sender<Result<Batch, BackendError>>,
    ) -> Self {
        let (engine, position, runs) = (Arc::clone(engine), Position::Beginning, Runs::default());
        let end = until.map(|until| instant_of(until, jiff::Timestamp::now()) + GRACE);
        Self {
            engine,
            id,
            tty,
            origin,
            until,
            end,
            out,
            position,
            runs,
            slow: false,
            behind: true,
            live: false,
            reach: LADDER[0],
            started,
        }
    }

    /// Tells everything from `start` on. `changes` ticks when something has happened to one of the tenant's containers;
    /// without it, what is there now is all.
    pub(super) async fn run(mut self, start: Start, changes: Option<watch::Receiver<u64>>) {
        let Err(halt) = self.work(start, changes).await else { return };
        let last = match halt {
            Halt::Unread => return,
            Halt::Engine(EngineError::NotFound(_)) => {
                // In this order: who goes on from the gap does not hear of it again.
                let gap = self.behind.then(|| self.gap(GapReason::Removed, None));
                Ok(Batch::Events([LogEvent::Left(self.origin.source)].into_iter().chain(gap).collect()))
            }
            Halt::Engine(EngineError::Refused { status: NO_LOG, .. }) => {
                Ok(Batch::Events(vec![LogEvent::Joined(self.origin.at(self.position))]))
            }
            // Nothing lets it come here. It would be the log's end.
            Halt::Fault(message) => Err(EngineError::Refused { status: 500, message }.into_backend("reading logs")),
            Halt::Engine(error) => Err(error.into_backend("reading logs")),
        };
        // Nobody left to read it is no failure.
        let _ = self.out.send(last).await;
    }

    async fn work(&mut self, start: Start, changes: Option<watch::Receiver<u64>>) -> Result<(), Halt> {
        let told = match start {
            Start::Window(window) => self.begin(&window).await,
            Start::After(position) => {
                self.position = position;
                self.send(vec![LogEvent::Joined(self.origin.at(position))]).await?;
                self.catch_up().await
            }
        };
        match told {
            Err(Halt::Fault(said)) => {
                self.pass_over(&said).await?;
                self.tell_readable().await?;
            }
            told => told?,
        }
        self.behind = false;
        let Some(mut changes) = changes else { return Ok(()) };
        self.go_live().await?;
        let mut among = LADDER[0];
        while !self.is_over() {
            changes.mark_unchanged();
            let began = Instant::now();
            match self.follow_once(among).await {
                Ok(Followed::ToItsEnd) => {
                    among = LADDER[0];
                    self.rest_until(began + PAUSE).await;
                    if !self.until_started(&mut changes).await? {
                        // It may have run meanwhile.
                        return self.tell_readable().await;
                    }
                }
                Ok(Followed::NotFromThere) => {
                    // More was written than was looked at while the follower was set up. If it was not among the most either,
                    // it has gone or takes too long to come to.
                    among = if among == LADDER[2] { LADDER[0] } else { among.saturating_mul(8).min(LADDER[2]) };
                    self.rest_until(began + PAUSE).await;
                }
                Ok(Followed::TooSlowly) => {}
                Err(Halt::Fault(said)) => {
                    self.pass_over(&said).await?;
                    self.behind = false;
                    self.go_live().await?;
                    self.rest_until(began + LOOK).await;
                }
                Err(halt) => return Err(halt),
            }
        }
        Ok(())
    }

    /// Waits for this moment, or until the time is over.
    async fn rest_until(&self, moment: Instant) {
        tokio::time::sleep_until(self.end.map_or(moment, |end| moment.min(end))).await;
    }

    /// Tells what has been written after the position, as far as that can be read.
    async fn tell_readable(&mut self) -> Result<(), Halt> {
        if self.reach == 0 {
            return Ok(());
        }
        match self.catch_up().await {
            Err(Halt::Fault(_)) => Ok(()),
            told => told,
        }
    }

    /// Tells new lines as they are written, and then what came too late for that.
    async fn follow_once(&mut self, among: u32) -> Result<Followed, Halt> {
        self.behind = true;
        let followed = self.follow(among).await?;
        // When the engine has ended it, there is no more.
        self.behind = followed != Followed::ToItsEnd;
        if self.reach > 0 {
            if self.behind {
                self.live = false;
                self.hand_over(Batch::Behind).await?;
            }
            self.catch_up().await?;
        }
        self.behind = false;
        self.go_live().await?;
        Ok(followed)
    }

    /// Says that all has been told, if it was not live before.
    async fn go_live(&mut self) -> Result<(), Halt> {
        if !std::mem::replace(&mut self.live, true) {
            self.hand_over(Batch::Live).await?;
        }
        Ok(())
    }

    /// Whether the time is over until which lines are wanted.
    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// Waits until the container runs or has run since its log was last read (true), or the time is over. Between two attempts
    /// of the engine to restart it, it runs and has nobody who writes.
    async fn until_started(&mut self, changes: &mut watch::Receiver<u64>) -> Result<bool, Halt> {
        while !self.is_over() {
            let state = self.engine.inspect(&self.id).await?.state.unwrap_or_default();
            let runs = state.running == Some(true) && state.restarting != Some(true);
            if runs || state.started_at != self.started {
                self.started = state.started_at;
                return Ok(true);
            }
            tokio::select! {
                ticked = changes.changed() => ticked.map_err(|_| Halt::Unread)?,
                () = self.rest_until(Instant::now() + LOOK) => {}
            }
        }
        Ok(false)
    }

    /// Tells a part of the log, where nothing has been told before.
    async fn begin(&mut self, window: &Window) -> Result<(), Halt> {
        if let Tail::Lines(lines) = window.tail
            && lines <= COUNTED
        {
            self.position = self.place_before(lines, window.since).await?;
            self.send(vec![LogEvent::Joined(self.origin.at(self.position))]).await?;
            return if lines > 0 { self.catch_up().await } else { Ok(()) };
        }
        let mut reading = self.open(window).await?;
        let since = window.since.and_then(cursor::nanoseconds);
        self.position = since.map_or(Position::Beginning, Position::Since);
        let mut joined = false;
        while let Some(pieces) = self.read(&mut reading, false).await? {
            if let Some(first) = pieces.first().filter(|_| !joined) {
                self.position = place_at(first).unwrap_or(self.position);
                joined = true;
                self.send(vec![LogEvent::Joined(self.origin.at(self.position))]).await?;
            }
            self.tell(pieces).await?;
        }
        if !joined {
            self.send(vec![LogEvent::Joined(self.origin.at(self.position))]).await?;
        }
        Ok(())
    }

    /// The place before the last lines, and not before what is older than `since`. Some more are looked at: the first of
    /// those may be in the middle of a long line, and its pieces are only told apart by counting.
    async fn place_before(&self, lines: u32, since: Option<jiff::Timestamp>) -> Result<Position, Halt> {
        let since = since.and_then(cursor::nanoseconds);
        let tail = Tail::Lines(lines + LADDER[0]);
        let mut reading = self.open(&Window { tail, ..Window::all(false) }).await?;
        let (mut runs, mut marks, most) = (Runs::default(), VecDeque::new(), lines as usize);
        let mut before = None;
        loop {
            let pieces = match self.read(&mut reading, false).await {
                Ok(Some(pieces)) => pieces,
                // Whoever goes on from there comes to that, too.
                Ok(None) | Err(Halt::Fault(_)) => break,
                Err(halt) => return Err(halt),
            };
            for mark in pieces.iter().filter_map(|piece| runs.mark(piece)) {
                marks.push_back(mark);
                if marks.len() > most {
                    before = marks.pop_front();
                }
            }
        }
        let old = marks.iter().rev().find(|mark| Some(mark.time) < since);
        let first = marks.front().map(|mark| LineMark { nth: 0, ..*mark });
        let nothing = since.map_or(Position::Beginning, Position::Since);
        Ok(old.copied().or(before).or(first).map_or(nothing, Position::Line))
    }

    /// Tells what has been written after the position.
    async fn catch_up(&mut self) -> Result<(), Halt> {
        let Position::Line(mut mark) = self.position else {
            self.tell_from_position(false).await?;
            return Ok(());
        };
        if self.reach < LADDER[0] {
            return match self.search(mark, Tail::Lines(self.reach), false).await? {
                Search::Told => Ok(()),
                _ => Err(Halt::Fault("it is damaged near its end".to_owned())),
            };
        }
        for tail in LADDER {
            match self.search(mark, Tail::Lines(tail), false).await? {
                Search::Told => return Ok(()),
                Search::Damaged if tail == LADDER[0] => {
                    for lines in READABLE.into_iter().skip(1) {
                        if let Search::Told = self.search(mark, Tail::Lines(lines), false).await? {
                            self.reach = lines;
                            return Ok(());
                        }
                    }
                }
                _ => {}
            }
        }
        // A second time if the log has lost the first lines of that time since.
        for _ in 0..2 {
            match self.search(mark, Tail::All, false).await? {
                Search::Told => return Ok(()),
                Search::Missing { early: None } | Search::Damaged => break,
                Search::Missing { early: Some(nth) } => mark.nth = nth,
            }
        }
        let mut reading = self.open(&Window::all(false)).await?;
        let mut told = false;
        while let Some(pieces) = self.read(&mut reading, false).await? {
            if let Some(first) = pieces.first().filter(|_| !told) {
                told = true;
                self.begin_anew(Some(first)).await?;
            }
            self.tell(pieces).await?;
        }
        if told { Ok(()) } else { self.begin_anew(None).await }
    }

    /// What was told last is gone; the log begins with this piece now. Who goes on from the gap does not hear of it again.
    async fn begin_anew(&mut self, first: Option<&Piece>) -> Result<(), Halt> {
        let gap = self.gap(GapReason::Rotated, first.and_then(|first| first.time));
        self.position = first.and_then(place_at).unwrap_or(Position::Beginning);
        self.runs = Runs::default();
        self.send(vec![LogEvent::Joined(self.origin.at(self.position)), gap]).await
    }

    /// The engine cannot read on: what it cannot read is left out, up to the last lines, as many of them as it can.
    async fn pass_over(&mut self, said: &str) -> Result<(), Halt> {
        let mut readable = None;
        for lines in READABLE {
            match self.place_before_last(lines).await {
                Err(Halt::Fault(_)) => {}
                place => {
                    readable = Some((place?, lines));
                    break;
                }
            }
        }
        if self.reach == 0 && readable.is_none() {
            // That has been told, and nothing since.
            return Ok(());
        }
        tracing::warn!(container = %self.origin.container, said, "the engine cannot read a log any further");
        let to = readable.and_then(|(place, _)| place.time_of_line());
        let gap = self.gap(GapReason::Unreadable, to);
        let now = || Position::Since(cursor::nanoseconds(jiff::Timestamp::now()).unwrap_or(0));
        (self.position, self.reach) = readable.unwrap_or_else(|| (now(), 0));
        self.runs = Runs::default();
        self.send(vec![LogEvent::Joined(self.origin.at(self.position)), gap]).await
    }

    /// The place before so many last lines.
    async fn place_before_last(&self, lines: u32) -> Result<Position, Halt> {
        let mut reading = self.open(&Window::last(lines)).await?;
        let mut first = None;
        while let Some(pieces) = self.read(&mut reading, false).await? {
            first = first.or_else(|| pieces.iter().find_map(place_at));
        }
        Ok(first.unwrap_or(Position::Beginning))
    }

    /// Tells new lines as they are written, as long as that goes.
    async fn follow(&mut self, among: u32) -> Result<Followed, Halt> {
        self.slow = false;
        let found = match self.position {
            Position::Line(mark) => {
                let among = if self.reach < LADDER[0] { self.reach } else { among };
                matches!(self.search(mark, Tail::Lines(among), true).await?, Search::Told)
            }
            _ => self.tell_from_position(true).await.map(|()| true)?,
        };
        Ok(match found {
            _ if self.slow => Followed::TooSlowly,
            true => Followed::ToItsEnd,
            false => Followed::NotFromThere,
        })
    }

    /// So many more lines are behind the damage, if there is one.
    fn reaches(&mut self, more: usize) {
        self.reach = self.reach.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)).min(LADDER[0]);
    }

    /// The next pieces; none after the last, and none when the time is over until which a log is followed.
    async fn read(&self, reading: &mut Reading, follow: bool) -> Result<Option<Vec<Piece>>, Halt> {
        let next = match (follow, self.end) {
            (true, Some(_)) if self.is_over() => None,
            (true, Some(end)) => tokio::time::timeout_at(end, reading.next()).await.unwrap_or(None),
            (true, None) => reading.next().await,
            (false, _) => tokio::time::timeout(MUTE, reading.next()).await.map_err(|_| EngineError::Timeout)?,
        };
        match next {
            Some(pieces) => Ok(Some(pieces?)),
            None => reading.fault().map_or(Ok(None), |said| Err(Halt::Fault(said))),
        }
    }

    async fn tell_from_position(&mut self, follow: bool) -> Result<(), Halt> {
        let since = match self.position {
            Position::Since(time) => jiff::Timestamp::from_nanosecond(time.into()).ok(),
            _ => None,
        };
        let tail = if self.reach == 0 { Tail::Lines(0) } else { Tail::All };
        let since = since.filter(|_| self.reach > 0);
        let mut reading = self.open(&Window { tail, since, ..Window::all(follow) }).await?;
        while let Some(mut pieces) = self.read(&mut reading, follow).await? {
            // The engine leaves out what is older; newer ones only what comes before the first that is not.
            pieces.retain(|piece| since.is_none_or(|since| piece.time.is_none_or(|time| time >= since)));
            let count = pieces.len();
            self.tell(pieces).await?;
            if follow {
                self.reaches(count);
                if self.slow {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Tells what comes after the mark, if it is among these lines. A follower gives up as soon as it cannot be.
    async fn search(&mut self, mark: LineMark, tail: Tail, follow: bool) -> Result<Search, Halt> {
        let window = Window { tail, ..Window::all(follow) };
        let most = if let Tail::Lines(lines) = tail { usize::try_from(lines).ok() } else { None };
        let mut reading = self.open(&window).await?;
        let deadline = Instant::now() + FOUND;
        // A follower has just caught up.
        let mut finder = Finder::new(mark, most.is_some() && !follow);
        let mut found = false;
        // A clock that was set back since: then it is a matter of looking at all of them, and no use to come back.
        let by_time = most.is_some() && !(follow && tail == Tail::Lines(LADDER[2]));
        loop {
            let next = self.read(&mut reading, follow);
            let next = if follow && !found {
                match tokio::time::timeout_at(deadline, next).await {
                    Ok(next) => next,
                    Err(_) => return Ok(Search::Missing { early: None }),
                }
            } else {
                next.await
            };
            let mut pieces = match next {
                Ok(Some(pieces)) => pieces,
                Ok(None) => break,
                // It may be further back, where that can be read.
                Err(Halt::Fault(_)) if !found && most.is_some() => return Ok(Search::Damaged),
                Err(halt) => return Err(halt),
            };
            if !found {
                let mut rest = None;
                for (at, piece) in pieces.iter().enumerate() {
                    let newer = piece.nanoseconds().is_some_and(|time| time > mark.time);
                    let looked_at_all = follow && most.is_some_and(|most| finder.seen >= most);
                    if finder.seen == 0 && newer && by_time || looked_at_all {
                        return Ok(Search::Missing { early: None });
                    }
                    if let Some(with) = finder.look(piece) {
                        rest = Some(if with { at } else { at + 1 });
                        break;
                    }
                }
                let Some(rest) = rest else { continue };
                found = true;
                self.runs = finder.runs();
                pieces.drain(..rest);
            }
            let count = pieces.len();
            self.tell(pieces).await?;
            if follow {
                self.reaches(count);
                if self.slow {
                    break;
                }
            }
        }
        Ok(if found { Search::Told } else { Search::Missing { early: finder.early } })
    }

    async fn open(&self, window: &Window) -> Result<Reading, Halt> {
        Ok(Reading::open(&self.engine, &self.id, self.tty, window).await?)
    }

    async fn tell(&mut self, pieces: Vec<Piece>) -> Result<(), Halt> {
        let mut lines = Vec::with_capacity(pieces.len());
        let mut last = None;
        for piece in pieces {
            let nth = self.runs.count(piece.stream, piece.nanoseconds());
            if self.until.is_some_and(|until| piece.time.is_some_and(|time| time > until)) {
                continue;
            }
            let Piece { time, stream, line, partial } = piece;
            let line = LogLine { time, origin: Arc::clone(&self.origin), nth, stream, line, partial };
            if line.time.is_some() {
                last = Some(lines.len());
            }
            lines.push(LogEvent::Line(line));
        }
        if let Some(LogEvent::Line(line)) = last.map(|last| &lines[last])
            && let Some(mark) = line.mark()
        {
            self.position = Position::Line(mark);
        }
        if lines.is_empty() { Ok(()) } else { self.send(lines).await }
    }

    fn gap(&self, reason: GapReason, to: Option<jiff::Timestamp>) -> LogEvent {
        LogEvent::Gap(LogGap {
            service: self.origin.service.clone(),
            number: self.origin.number,
            container: Some(self.origin.container.clone()),
            from: self.position.time_of_line(),
            to,
            reason,
        })
    }

    async fn send(&mut self, events: Vec<LogEvent>) -> Result<(), Halt> {
        self.hand_over(Batch::Events(events)).await
    }

    async fn hand_over(&mut self, batch: Batch) -> Result<(), Halt> {
        let began = Instant::now();
        self.out.send(Ok(batch)).await.map_err(|_| Halt::Unread)?;
        self.slow |= began.elapsed() > SLOW;
        Ok(())
    }
}

/// The place before this piece, which is the first that is read; none when it has no time.
fn place_at(first: &Piece) -> Option<Position> {
    Runs::default().mark(first).map(|mark| Position::Line(LineMark { nth: 0, ..mark }))
}

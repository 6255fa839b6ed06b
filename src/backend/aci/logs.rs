//! Logs of a group. Azure gives the last lines of a container as one text, so following is asking again: each line has its
//! time, which together with its text recognises the line that was told last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::site::MOST_LINES;
use super::{ASK, Core, attach, observed};
use crate::backend::cursor::{check, nanoseconds};
use crate::backend::logs::instant_of;
use crate::backend::{
    BackendError, GapReason, LineMark, LogCursor, LogEvent, LogGap, LogLine, LogOrigin, LogQuery, LogSource, LogStream,
    LogStreamKind, ObservedContainer, Position, Tail, TenantRef,
};

/// Between two looks at a log that is followed.
const AGAIN: Duration = Duration::from_secs(2);
/// And between two that a container's own output asks for.
const SOON: Duration = Duration::from_millis(300);
/// How many lines a look asks for that goes on from a known one. If that one is not among them, all are asked for.
const RECENT: u32 = 500;
/// The longest piece of a line, as everywhere else.
const MAX_PIECE: usize = 16 * 1024;

/// The text of a line without the time before it.
pub(super) fn without_time(line: &str) -> &str {
    split(line).map_or(line, |(_, text)| text)
}

fn split(line: &str) -> Option<(Timestamp, &str)> {
    let (time, text) = line.split_once(' ').unwrap_or((line, ""));
    Some((time.parse().ok()?, text))
}

/// One line, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    time: Timestamp,
    /// The how manyeth of this time in a row.
    nth: u32,
    text: Bytes,
    partial: bool,
}

impl Piece {
    fn mark(&self, nth: u32) -> Position {
        let time = nanoseconds(self.time);
        time.map_or(Position::Beginning, |time| {
            Position::Line(LineMark { time, stream: LogStreamKind::Stdout, nth, check: check(&self.text) })
        })
    }

    fn is(&self, mark: &LineMark) -> bool {
        nanoseconds(self.time) == Some(mark.time) && self.nth == mark.nth.max(1) && check(&self.text) == mark.check
    }
}

/// A log as Azure gives it. A line without a time is of the time of the one before.
fn pieces(text: &str) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    for line in text.lines() {
        let before = all.last().map_or(Timestamp::UNIX_EPOCH, |piece| piece.time);
        let (time, rest) = split(line).unwrap_or((before, line));
        let mut rest = Bytes::copy_from_slice(rest.as_bytes());
        loop {
            let text = rest.split_to(rest.len().min(MAX_PIECE));
            let nth = all.last().filter(|last| last.time == time).map_or(1, |last| last.nth.saturating_add(1));
            all.push(Piece { time, nth, text, partial: !rest.is_empty() });
            if rest.is_empty() {
                break;
            }
        }
    }
    all
}

/// Where the last lines begin.
fn last(pieces: &[Piece], lines: usize) -> usize {
    let ends = || pieces.iter().enumerate().filter(|(_, piece)| !piece.partial);
    match ends().count().checked_sub(lines) {
        None | Some(0) => 0,
        Some(before) => ends().nth(before - 1).map_or(0, |(at, _)| at + 1),
    }
}

/// What comes after a position; none when the line of the position is not among these.
fn after(pieces: &[Piece], position: Position) -> Option<usize> {
    match position {
        Position::Beginning => Some(0),
        Position::Since(time) => Some(pieces.iter().take_while(|piece| nanoseconds(piece.time) < Some(time)).count()),
        Position::Line(mark) => {
            let at = pieces.iter().position(|piece| piece.is(&mark))?;
            Some(at + usize::from(mark.nth != 0))
        }
    }
}

pub(super) async fn stream(core: Arc<Core>, tenant: TenantRef, query: LogQuery) -> Result<LogStream, BackendError> {
    let end = query.until.map(|until| instant_of(until, Timestamp::now()));
    let mut follower = Follower { core, tenant, query, told: BTreeMap::new(), end, bell: Arc::default() };
    let (first, there) = follower.first().await?;
    let begins = stream::iter((!first.is_empty()).then_some(Ok(first)));
    if !follower.query.follow || !there {
        return Ok(begins.boxed());
    }
    let more = stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(Some(events)) => Some((Ok(events), Some(follower))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(begins.chain(more).boxed())
}

/// A container whose log is told.
struct Reader {
    origin: Arc<LogOrigin>,
    position: Position,
    /// Rings when there is something new.
    _ring: Option<AbortOnDropHandle<()>>,
}

struct Follower {
    core: Arc<Core>,
    tenant: TenantRef,
    query: LogQuery,
    told: BTreeMap<LogSource, Reader>,
    end: Option<Instant>,
    bell: Arc<Notify>,
}

impl Follower {
    fn reader(&self, origin: Arc<LogOrigin>, position: Position) -> Reader {
        let ring = || attach::ring(&self.core, &self.tenant, origin.container.as_str(), &self.bell);
        let ring = self.query.follow.then(ring);
        Reader { origin, position, _ring: ring }
    }

    fn wants(&self, container: &ObservedContainer) -> bool {
        self.query.services.is_empty() || self.query.services.contains(&container.service)
    }

    fn in_time(&self, piece: &Piece) -> bool {
        let since = self.query.since.filter(|_| self.query.cursor.is_none());
        since.is_none_or(|since| piece.time >= since) && self.query.until.is_none_or(|until| piece.time <= until)
    }

    async fn containers(&self) -> Result<Vec<ObservedContainer>, BackendError> {
        let group = self.core.own(&self.tenant, Instant::now() + ASK).await?;
        Ok(group.as_ref().map(observed).unwrap_or_default())
    }

    /// The last lines of a container, so many or all, and where they begin among what is given: how manyeth of its time a
    /// line is must not depend on how many were asked for.
    async fn read(
        &self,
        container: &ObservedContainer,
        tail: Option<u32>,
    ) -> Result<(Vec<Piece>, usize), BackendError> {
        let lines = tail.and_then(|tail| usize::try_from(tail).ok()).unwrap_or(usize::MAX);
        // One more shows whether a time begins with the first.
        if let Some(asked) = tail.map(|tail| tail.saturating_add(1)).filter(|asked| *asked < MOST_LINES) {
            let mut read = pieces(&self.text(container, Some(asked)).await?);
            let from = last(&read, lines);
            if from == 0 || read.get(from).map(|piece| piece.time) != read.first().map(|piece| piece.time) {
                return Ok((read.split_off(from), 0));
            }
        }
        let read = pieces(&self.text(container, None).await?);
        let from = last(&read, lines);
        Ok((read, from))
    }

    async fn text(&self, container: &ObservedContainer, tail: Option<u32>) -> Result<String, BackendError> {
        let site = self.core.site(&self.tenant)?;
        let group = super::names::group(self.tenant.project().as_str());
        let text = site.log(&group, container.status.name.as_str(), tail, Instant::now() + ASK).await;
        Ok(text.map_err(|error| site.fault(error, "reading a log"))?.unwrap_or_default())
    }

    /// What there is at the start, and whether there is a container.
    async fn first(&mut self) -> Result<(Vec<LogEvent>, bool), BackendError> {
        let (mut events, mut lines) = (Vec::new(), Vec::new());
        let containers = self.containers().await?;
        let sources: BTreeSet<LogSource> = containers.iter().map(|one| LogSource::of(&one.status.id)).collect();
        for mark in self.query.cursor.iter().flat_map(LogCursor::marks) {
            let wanted = self.query.services.is_empty() || self.query.services.contains(&mark.service);
            if wanted && !sources.contains(&mark.source) {
                let (service, number, from) = (mark.service.clone(), mark.number, mark.position.time_of_line());
                let reason = GapReason::Removed;
                // In this order: who goes on from the gap does not hear of it again.
                events.push(LogEvent::Left(mark.source));
                events.push(LogEvent::Gap(LogGap { service, number, container: None, from, to: None, reason }));
            }
        }
        let cursor = self.query.cursor.clone();
        for container in &containers {
            if !self.wants(container) {
                continue;
            }
            let origin = origin(container);
            let tail = match (self.query.tail, &cursor) {
                (Tail::Lines(lines), None) => Some(lines),
                _ => None,
            };
            let (read, from) = self.read(container, tail.map(|tail| tail.max(1))).await?;
            let marked = cursor.as_ref().and_then(|cursor| cursor.mark(origin.source)).map(|mark| mark.position);
            let wanted = read.iter().skip(from).position(|piece| self.in_time(piece)).map(|at| from + at);
            let begins = wanted.filter(|_| tail != Some(0)).unwrap_or(read.len());
            let (from, position, gap) = match marked {
                None if cursor.is_some() => (0, Position::Beginning, None),
                None => (begins, before(&read, begins), None),
                Some(position) => match after(&read, position) {
                    Some(from) => (from, position, None),
                    None => (0, before(&read, 0), Some(rotated(&origin, position, &read))),
                },
            };
            events.push(LogEvent::Joined(origin.at(position)));
            events.extend(gap);
            let last = self.tell(&origin, &read[from..], &mut lines);
            let position = last.or_else(|| read.last().map(|piece| piece.mark(piece.nth))).unwrap_or(position);
            self.told.insert(origin.source, self.reader(origin, position));
        }
        events.extend(in_order(lines));
        Ok((events, !containers.is_empty()))
    }

    /// Adds lines that are wanted; gives the position after all of them.
    fn tell(&self, origin: &Arc<LogOrigin>, pieces: &[Piece], lines: &mut Vec<LogLine>) -> Option<Position> {
        lines.extend(pieces.iter().filter(|piece| self.in_time(piece)).map(|piece| LogLine {
            time: Some(piece.time),
            origin: Arc::clone(origin),
            nth: piece.nth,
            stream: LogStreamKind::Stdout,
            line: piece.text.clone(),
            partial: piece.partial,
        }));
        pieces.last().map(|piece| piece.mark(piece.nth))
    }

    /// The next events; none when there will be no more.
    async fn next(&mut self) -> Result<Option<Vec<LogEvent>>, BackendError> {
        loop {
            let (soon, next) = (Instant::now() + SOON, Instant::now() + AGAIN);
            sleep_until(self.end.map_or(soon, |end| end.min(soon))).await;
            tokio::select! {
                () = self.bell.notified() => {}
                () = sleep_until(self.end.map_or(next, |end| end.min(next))) => {}
            }
            let over = self.end.is_some_and(|end| Instant::now() >= end);
            let (events, there) = self.look().await?;
            if !events.is_empty() {
                return Ok(Some(events));
            }
            if over || !there {
                return Ok(None);
            }
        }
    }

    async fn look(&mut self) -> Result<(Vec<LogEvent>, bool), BackendError> {
        let (mut events, mut lines) = (Vec::new(), Vec::new());
        let containers = self.containers().await?;
        let mut there = BTreeSet::new();
        for container in &containers {
            let source = LogSource::of(&container.status.id);
            there.insert(source);
            if !self.wants(container) {
                continue;
            }
            let known = self.told.get(&source).map(|reader| (Arc::clone(&reader.origin), reader.position));
            let Some((origin, position)) = known else {
                let origin = origin(container);
                let (read, _) = self.read(container, None).await?;
                events.push(LogEvent::Joined(origin.at(Position::Beginning)));
                let position = self.tell(&origin, &read, &mut lines).unwrap_or(Position::Beginning);
                self.told.insert(source, self.reader(origin, position));
                continue;
            };
            let (mut read, _) = self.read(container, Some(RECENT)).await?;
            let mut from = after(&read, position);
            if from.is_none() && !read.is_empty() {
                (read, _) = self.read(container, None).await?;
                from = after(&read, position);
                if from.is_none() {
                    events.push(LogEvent::Joined(origin.at(before(&read, 0))));
                    events.push(rotated(&origin, position, &read));
                }
            }
            let last = self.tell(&origin, &read[from.unwrap_or(0).min(read.len())..], &mut lines);
            if let (Some(last), Some(reader)) = (last, self.told.get_mut(&source)) {
                reader.position = last;
            }
        }
        events.extend(in_order(lines));
        let gone: Vec<LogSource> = self.told.keys().filter(|source| !there.contains(source)).copied().collect();
        for source in gone {
            self.told.remove(&source);
            events.push(LogEvent::Left(source));
        }
        Ok((events, !containers.is_empty()))
    }
}

fn origin(container: &ObservedContainer) -> Arc<LogOrigin> {
    Arc::new(LogOrigin {
        source: LogSource::of(&container.status.id),
        container: container.status.name.clone(),
        service: container.service.clone(),
        number: container.number,
    })
}

/// The place before this piece.
fn before(pieces: &[Piece], at: usize) -> Position {
    match (at.checked_sub(1).and_then(|last| pieces.get(last)), pieces.get(at)) {
        (Some(last), _) => last.mark(last.nth),
        (None, Some(first)) => first.mark(0),
        (None, None) => Position::Beginning,
    }
}

fn rotated(origin: &LogOrigin, position: Position, read: &[Piece]) -> LogEvent {
    LogEvent::Gap(LogGap {
        service: origin.service.clone(),
        number: origin.number,
        container: Some(origin.container.clone()),
        from: position.time_of_line(),
        to: read.first().map(|piece| piece.time),
        reason: GapReason::Rotated,
    })
}

fn in_order(mut lines: Vec<LogLine>) -> impl Iterator<Item = LogEvent> {
    lines.sort_by_key(|line| line.time);
    lines.into_iter().map(LogEvent::Line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "2026-01-02T03:04:05.000000001Z one\n2026-01-02T03:04:05.000000001Z two\nno time\n\
                        2026-01-02T03:04:06Z three";

    #[test]
    fn lines_have_their_times() {
        let read = pieces(TEXT);
        let told: Vec<(&[u8], u32)> = read.iter().map(|piece| (&piece.text[..], piece.nth)).collect();
        assert_eq!(told, [(&b"one"[..], 1), (b"two", 2), (b"no time", 3), (b"three", 1)]);
        assert_eq!(without_time("2026-01-02T03:04:06Z a b"), "a b");
        assert_eq!(without_time("a b"), "a b");
    }

    #[test]
    fn a_position_finds_its_line_again() {
        let read = pieces(TEXT);
        for (at, piece) in read.iter().enumerate() {
            assert_eq!(after(&read, piece.mark(piece.nth)), Some(at + 1));
        }
        assert_eq!(after(&read, read[0].mark(0)), Some(0));
        assert_eq!(after(&read[1..], read[0].mark(1)), None, "it is not there any more");
        assert_eq!(after(&read, Position::Since(nanoseconds(read[3].time).expect("a time"))), Some(3));
        assert_eq!(before(&read, 0), read[0].mark(0));
        assert_eq!(before(&read, 4), read[3].mark(1));
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let read = pieces(&format!("2026-01-02T03:04:06Z {}", "y".repeat(MAX_PIECE + 1)));
        assert_eq!(
            read.iter().map(|piece| (piece.text.len(), piece.partial)).collect::<Vec<_>>(),
            [(MAX_PIECE, true), (1, false)]
        );
        assert_eq!((last(&read, 1), last(&read, 2)), (0, 0));
    }

    #[test]
    fn the_last_lines_begin_after_the_others() {
        let read = pieces(TEXT);
        let begins: Vec<usize> = (0..6).map(|lines| last(&read, lines)).collect();
        assert_eq!(begins, [4, 3, 2, 1, 0, 0]);
    }
}

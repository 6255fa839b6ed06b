//! What a pretend container has written, within bounds, and streams over it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::Instant;

use super::container::Container;
use super::engine::{Shared, State};
use crate::backend::cursor::{check, nanoseconds};
use crate::backend::logs::instant_of;
use crate::backend::{
    BackendError, GapReason, LineMark, LogCursor, LogEvent, LogGap, LogLine, LogOrigin, LogQuery, LogSource, LogStream,
    LogStreamKind, Position, Tail, TenantRef,
};
use crate::domain::ContainerId;

/// Lines that one container keeps.
const MAX_LINES: usize = 10_000;
/// Bytes that one container keeps.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// The longest piece of a line, as large as the Docker Engine's.
const MAX_PIECE: usize = 16 * 1024;

/// One written line.
#[derive(Debug, Clone)]
pub(super) struct Written {
    /// Counts all lines of the engine, so that lines of one instant keep their order.
    pub(super) sequence: u64,
    pub(super) time: jiff::Timestamp,
    pub(super) stream: LogStreamKind,
    /// The how manyeth piece of its line. No two lines have one time.
    pub(super) nth: u32,
    pub(super) line: Bytes,
    pub(super) partial: bool,
}

impl Written {
    fn line_of(&self, origin: &Arc<LogOrigin>) -> LogLine {
        LogLine {
            time: Some(self.time),
            origin: Arc::clone(origin),
            nth: self.nth,
            stream: self.stream,
            line: self.line.clone(),
            partial: self.partial,
        }
    }
}

/// The line of a cursor is no longer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rotated;

/// The last lines of one container.
#[derive(Debug, Default)]
pub(super) struct Ring {
    lines: VecDeque<Written>,
    bytes: usize,
}

impl Ring {
    /// Keeps a line, in pieces when it is long; `sequence` is counted up once for each.
    pub(super) fn push(&mut self, sequence: &mut u64, time: jiff::Timestamp, stream: LogStreamKind, text: &str) {
        let mut rest = Bytes::copy_from_slice(text.as_bytes());
        for nth in 1.. {
            let line = rest.split_to(rest.len().min(MAX_PIECE));
            let partial = !rest.is_empty();
            *sequence += 1;
            self.bytes += line.len();
            self.lines.push_back(Written { sequence: *sequence, time, stream, nth, line, partial });
            while self.lines.len() > MAX_LINES || self.bytes > MAX_BYTES {
                self.bytes -= self.lines.pop_front().map_or(0, |gone| gone.line.len());
            }
            if !partial {
                return;
            }
        }
    }

    /// Lines written after this one, oldest first.
    pub(super) fn after(&self, sequence: u64) -> impl DoubleEndedIterator<Item = &Written> {
        let from = self.lines.partition_point(|written| written.sequence <= sequence);
        self.lines.range(from..)
    }

    /// The line after which a position lies, 0 for none; an error when the line of the position is no longer held.
    fn find(&self, position: Position) -> Result<u64, Rotated> {
        match position {
            Position::Beginning => Ok(0),
            Position::Since(time) => {
                let old = self.lines.iter().take_while(|written| nanoseconds(written.time) < Some(time));
                Ok(old.last().map_or(0, |written| written.sequence))
            }
            Position::Line(mark) => {
                let found = self.lines.iter().find(|written| {
                    nanoseconds(written.time) == Some(mark.time)
                        && written.stream == mark.stream
                        && (mark.nth == 0 || written.nth == mark.nth)
                        && check(&written.line) == mark.check
                });
                found.map(|written| written.sequence - u64::from(mark.nth == 0)).ok_or(Rotated)
            }
        }
    }

    /// Where reading stands when it goes on after this line.
    fn position_after(&self, sequence: u64) -> Position {
        let mark = |written: &Written, nth| {
            let (time, stream, check) = (nanoseconds(written.time)?, written.stream, check(&written.line));
            Some(Position::Line(LineMark { time, stream, nth, check }))
        };
        let told = self.lines.iter().rev().find(|written| written.sequence <= sequence);
        let position = match told {
            Some(told) => mark(told, told.nth),
            None => self.after(0).next().and_then(|first| mark(first, 0)),
        };
        position.unwrap_or(Position::Beginning)
    }

    /// At most 20 of the last lines and at most 4 KiB, for a failure's details.
    pub(super) fn last_words(&self) -> Vec<String> {
        let mut left = 4096_usize;
        let mut words = Vec::new();
        for written in self.lines.iter().rev().take(20) {
            let text = String::from_utf8_lossy(&written.line);
            let Some(rest) = left.checked_sub(text.len()) else { break };
            left = rest;
            words.push(text.into_owned());
        }
        words.reverse();
        words
    }
}

/// Streams what the query asks for; with `follow` until the tenant has no container left or `until` has passed.
pub(super) fn stream(shared: &Arc<Shared>, tenant: TenantRef, query: LogQuery) -> Result<LogStream, BackendError> {
    let mut written = shared.subscribe_written();
    written.mark_unchanged();
    let end = query.until.map(|until| instant_of(until, shared.now()));
    let mut follower =
        Follower { shared: Arc::downgrade(shared), tenant, query, told: BTreeMap::new(), last: 0, end, written };
    let first = follower.first(&*shared.reachable()?);
    let first = futures::stream::iter((!first.is_empty()).then_some(Ok(first)));
    if !follower.query.follow {
        return Ok(first.boxed());
    }
    let more = futures::stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(Some(events)) => Some((Ok(events), Some(follower))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(first.chain(more).boxed())
}

struct Follower {
    /// Weak: a reader does not keep the engine.
    shared: std::sync::Weak<Shared>,
    tenant: TenantRef,
    query: LogQuery,
    /// Containers whose lines are told.
    told: BTreeMap<ContainerId, LogSource>,
    /// The last line that was looked at.
    last: u64,
    end: Option<Instant>,
    written: tokio::sync::watch::Receiver<u64>,
}

impl Follower {
    fn wants(&self, container: &Container) -> bool {
        self.query.services.is_empty() || self.query.services.contains(&container.service)
    }

    fn in_time(&self, written: &Written) -> bool {
        let since = self.query.since.filter(|_| self.query.cursor.is_none());
        since.is_none_or(|since| written.time >= since) && self.query.until.is_none_or(|until| written.time <= until)
    }

    /// What there is at the start, and from where on each container is told.
    fn first(&mut self, state: &State) -> Vec<LogEvent> {
        let mut events = Vec::new();
        let mut lines: Vec<(u64, LogEvent)> = Vec::new();
        let sources: BTreeMap<LogSource, &Container> =
            state.of(&self.tenant).map(|container| (LogSource::of(&container.id), container)).collect();
        for mark in self.query.cursor.iter().flat_map(LogCursor::marks) {
            let wanted = self.query.services.is_empty() || self.query.services.contains(&mark.service);
            if wanted && !sources.contains_key(&mark.source) {
                let (service, number, from) = (mark.service.clone(), mark.number, mark.position.time_of_line());
                let reason = GapReason::Removed;
                // In this order: who goes on from the gap does not hear of it again.
                events.push(LogEvent::Left(mark.source));
                events.push(LogEvent::Gap(LogGap { service, number, container: None, from, to: None, reason }));
            }
        }
        for (source, container) in sources {
            let mark = self.query.cursor.as_ref().and_then(|cursor| cursor.mark(source));
            if !self.wants(container) || container.is_aside() && mark.is_none() {
                continue;
            }
            let origin = Arc::new(container.log_origin());
            let after = match (&self.query.cursor, mark) {
                (None, _) => Ok(self.before_the_tail(container)),
                (Some(_), None) => Ok(0),
                (Some(_), Some(mark)) => container.logs.find(mark.position),
            };
            let from = after.unwrap_or(0);
            let known = mark.filter(|_| after.is_ok()).map(|mark| mark.position);
            let position = known.unwrap_or_else(|| container.logs.position_after(from));
            events.push(LogEvent::Joined(origin.at(position)));
            if let (Err(Rotated), Some(mark)) = (after, mark) {
                let to = container.logs.after(0).next().map(|written| written.time);
                let (service, number) = (origin.service.clone(), origin.number);
                let (container, from) = (Some(origin.container.clone()), mark.position.time_of_line());
                events.push(LogEvent::Gap(LogGap { service, number, container, from, to, reason: GapReason::Rotated }));
            }
            let new = container.logs.after(from).filter(|written| self.in_time(written));
            lines.extend(new.map(|written| (written.sequence, LogEvent::Line(written.line_of(&origin)))));
            self.told.insert(container.id.clone(), source);
        }
        self.last = state.line_sequence;
        events.extend(in_order(lines));
        events
    }

    /// The line before the first one that is wanted.
    fn before_the_tail(&self, container: &Container) -> u64 {
        let tail = match self.query.tail {
            Tail::All => usize::MAX,
            Tail::Lines(count) => usize::try_from(count).unwrap_or(usize::MAX),
        };
        let (mut lines, mut before) = (container.logs.after(0).rev(), None);
        for written in lines.by_ref().take(tail) {
            if self.query.since.is_some_and(|since| written.time < since) {
                before = Some(written.sequence);
                break;
            }
        }
        before.or_else(|| lines.next().map(|written| written.sequence)).unwrap_or(0)
    }

    /// The next events; none when there will be no more.
    async fn next(&mut self) -> Result<Option<Vec<LogEvent>>, BackendError> {
        loop {
            let over = self.end.is_some_and(|end| Instant::now() >= end);
            let Some(shared) = self.shared.upgrade() else { return Ok(None) };
            let (events, there) = self.look(&*shared.reachable()?);
            drop(shared);
            if !events.is_empty() {
                return Ok(Some(events));
            }
            if over || !there {
                return Ok(None);
            }
            let changed = match self.end {
                Some(end) => tokio::time::timeout_at(end, self.written.changed()).await,
                None => Ok(self.written.changed().await),
            };
            if matches!(changed, Ok(Err(_))) {
                return Ok(None);
            }
        }
    }

    /// What is new, and whether the tenant has a container.
    fn look(&mut self, state: &State) -> (Vec<LogEvent>, bool) {
        let mut events = Vec::new();
        let mut lines: Vec<(u64, LogEvent)> = Vec::new();
        let mut there = BTreeSet::new();
        for container in state.of(&self.tenant) {
            there.insert(&container.id);
            let joins = !self.told.contains_key(&container.id);
            if !self.wants(container) || joins && container.is_aside() {
                continue;
            }
            let origin = Arc::new(container.log_origin());
            if joins {
                self.told.insert(container.id.clone(), origin.source);
                events.push(LogEvent::Joined(origin.at(container.logs.position_after(self.last))));
            }
            let new = container.logs.after(self.last).filter(|written| self.in_time(written));
            lines.extend(new.map(|written| (written.sequence, LogEvent::Line(written.line_of(&origin)))));
        }
        self.last = state.line_sequence;
        let gone: Vec<ContainerId> = self.told.keys().filter(|id| !there.contains(id)).cloned().collect();
        events.extend(in_order(lines));
        events.extend(gone.iter().filter_map(|id| self.told.remove(id)).map(LogEvent::Left));
        (events, !there.is_empty())
    }
}

fn in_order(mut lines: Vec<(u64, LogEvent)>) -> impl Iterator<Item = LogEvent> {
    lines.sort_by_key(|(sequence, _)| *sequence);
    lines.into_iter().map(|(_, line)| line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(lines: &[String]) -> Ring {
        let (mut ring, mut sequence) = (Ring::default(), 0);
        for line in lines {
            ring.push(&mut sequence, jiff::Timestamp::UNIX_EPOCH, LogStreamKind::Stdout, line);
        }
        ring
    }

    #[test]
    fn a_ring_keeps_the_newest_lines_within_bounds() {
        let many: Vec<String> = (0..MAX_LINES + 5).map(|n| n.to_string()).collect();
        let kept = ring(&many);
        assert_eq!(kept.after(0).count(), MAX_LINES);
        assert_eq!(kept.after(0).next().map(|written| written.line.clone()), Some(Bytes::from("5")));
        let long: Vec<String> = (0..10).map(|_| "x".repeat(MAX_BYTES / 4)).collect();
        let kept = ring(&long);
        assert!(kept.after(0).map(|written| written.line.len()).sum::<usize>() <= MAX_BYTES);
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let kept = ring(&["y".repeat(MAX_PIECE + 1), String::new()]);
        let pieces: Vec<(usize, bool)> = kept.after(0).map(|written| (written.line.len(), written.partial)).collect();
        assert_eq!(pieces, [(MAX_PIECE, true), (1, false), (0, false)]);
        assert_eq!(kept.after(2).count(), 1);
    }

    #[test]
    fn last_words_are_few_and_short() {
        let kept = ring(&(0..30).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(kept.last_words(), (10..30).map(|n| n.to_string()).collect::<Vec<_>>());
        let kept = ring(&["a".repeat(3000), "b".repeat(3000)]);
        assert_eq!(kept.last_words(), ["b".repeat(3000)]);
    }
}

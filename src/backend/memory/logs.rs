//! What a pretend container has written, within bounds, and streams over it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::Instant;

use super::engine::Shared;
use crate::backend::{BackendError, LogLine, LogQuery, LogStream, LogStreamKind, Tail, TenantRef};

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
    pub(super) line: Bytes,
    pub(super) partial: bool,
}

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
        loop {
            let line = rest.split_to(rest.len().min(MAX_PIECE));
            let partial = !rest.is_empty();
            *sequence += 1;
            self.bytes += line.len();
            self.lines.push_back(Written { sequence: *sequence, time, stream, line, partial });
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
    let (lines, last) = first_lines(shared, &tenant, &query)?;
    let lines = futures::stream::iter(lines.into_iter().map(Ok));
    if !query.follow {
        return Ok(lines.boxed());
    }
    let end = query.until.map(|until| {
        let left = until.duration_since(shared.now());
        Instant::now() + std::time::Duration::try_from(left).unwrap_or_default()
    });
    let follower = Follower { shared: Arc::downgrade(shared), tenant, query, last, end, written };
    let more = futures::stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(Some(lines)) => {
                Some((futures::stream::iter(lines.into_iter().map(Ok).collect::<Vec<_>>()), Some(follower)))
            }
            Ok(None) => None,
            Err(error) => Some((futures::stream::iter(vec![Err(error)]), None)),
        }
    });
    Ok(lines.chain(more.flatten()).boxed())
}

fn first_lines(shared: &Shared, tenant: &TenantRef, query: &LogQuery) -> Result<(Vec<LogLine>, u64), BackendError> {
    let state = shared.reachable()?;
    let mut lines = Vec::new();
    for container in state.current(tenant).filter(|container| wants(query, container)) {
        let all = container.logs.after(0).filter(|written| in_time(query, written));
        let tail = match query.tail {
            Tail::All => usize::MAX,
            Tail::Lines(count) => usize::try_from(count).unwrap_or(usize::MAX),
        };
        lines.extend(all.rev().take(tail).map(|written| (written.sequence, container.log_line(written))));
    }
    lines.sort_by_key(|(sequence, _)| *sequence);
    Ok((lines.into_iter().map(|(_, line)| line).collect(), state.line_sequence))
}

fn wants(query: &LogQuery, container: &super::container::Container) -> bool {
    query.services.is_empty() || query.services.contains(&container.service)
}

fn in_time(query: &LogQuery, written: &Written) -> bool {
    query.since.is_none_or(|since| written.time >= since) && query.until.is_none_or(|until| written.time <= until)
}

struct Follower {
    /// Weak: a reader does not keep the engine.
    shared: std::sync::Weak<Shared>,
    tenant: TenantRef,
    query: LogQuery,
    /// The last line that was looked at.
    last: u64,
    end: Option<Instant>,
    written: tokio::sync::watch::Receiver<u64>,
}

impl Follower {
    /// The next new lines; none when there will be no more.
    async fn next(&mut self) -> Result<Option<Vec<LogLine>>, BackendError> {
        loop {
            let over = self.end.is_some_and(|end| Instant::now() >= end);
            let Some(shared) = self.shared.upgrade() else { return Ok(None) };
            let mut lines: Vec<(u64, LogLine)> = Vec::new();
            let mut there = false;
            {
                let state = shared.reachable()?;
                for container in state.current(&self.tenant) {
                    there = true;
                    if wants(&self.query, container) {
                        let new = container.logs.after(self.last).filter(|written| in_time(&self.query, written));
                        lines.extend(new.map(|written| (written.sequence, container.log_line(written))));
                    }
                }
                self.last = state.line_sequence;
            }
            drop(shared);
            if !lines.is_empty() {
                lines.sort_by_key(|(sequence, _)| *sequence);
                return Ok(Some(lines.into_iter().map(|(_, line)| line).collect()));
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

//! The cursor of a log stream: where reading stands in each container's log, in a text that a client hands back.
//!
//! One time is not enough. Lines of several containers are told in the order of their times only as far as they have come,
//! and several lines may have one time (all pieces of a long line do). So a cursor has a mark for each container.
//!
//! ```text
//! version 2 | latest time of a line (8 bytes) | marks | checksum (4 bytes)            as base64url without padding
//! mark:   container id (first 6 bytes), number, service, kind, what the kind needs
//! line:   how long before the latest time, which of the lines of that time, a hash of its text
//! ```
//! It is checked and not signed: whoever may read a tenant's log gains nothing by making one up. The checksum covers the
//! tenant's name, so that a cursor of another tenant is refused and not taken for one whose containers are gone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::logs::{LogLine, LogStreamKind};
use crate::domain::{ContainerId, ServiceName, Subdomain};

const VERSION: u8 = 2;
/// The longest cursor in bytes before base64. A request line has room for 9 KiB.
const MAX_BYTES: usize = 6000;

/// The first 48 bits of a container's id: as many as people and docker compose use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogSource([u8; 6]);

impl LogSource {
    /// Of this container.
    pub fn of(id: &ContainerId) -> Self {
        let mut bytes = [0; 6];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&id.short()[2 * at..2 * at + 2], 16).unwrap_or(0);
        }
        Self(bytes)
    }
}

/// One line of a container's log, recognised when it is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineMark {
    /// Nanoseconds since 1970, as the backend gives them.
    pub time: i64,
    /// To which stream it was written.
    pub stream: LogStreamKind,
    /// The how manyeth line of this time in a row in its stream, from 1. Zero is the place before the first.
    pub nth: u32,
    /// [`check`] of its text.
    pub check: u32,
}

/// Up to where a container's log has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Nothing: all of it is to be told.
    Beginning,
    /// Whatever is older than this (nanoseconds since 1970) is not wanted.
    Since(i64),
    /// Up to this line and with it; before it, if it is the place before the first of its time.
    Line(LineMark),
}

/// A container and its [`Position`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Which container.
    pub source: LogSource,
    /// Its service.
    pub service: ServiceName,
    /// Its number within the service, from 1.
    pub number: u32,
    /// Up to where it has been told.
    pub position: Position,
}

/// All marks of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogCursor {
    marks: Vec<Mark>,
}

/// A text that is no cursor of this tenant's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor of this tenant's log")]
pub struct InvalidCursor;

impl LogCursor {
    /// Reads what [`LogCursor::text`] has written for this tenant. Nothing else is accepted.
    pub fn parse(text: &str, tenant: &Subdomain) -> Result<Self, InvalidCursor> {
        if text.len() > MAX_BYTES * 4 / 3 + 3 {
            return Err(InvalidCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(InvalidCursor)?;
        if seal(tenant, body) != *checksum {
            return Err(InvalidCursor);
        }
        let cursor = read(&mut Reader(body)).ok_or(InvalidCursor)?;
        let mut again = Vec::with_capacity(bytes.len());
        if cursor.write(tenant, &mut again) && again == bytes { Ok(cursor) } else { Err(InvalidCursor) }
    }

    /// The text of it; none when there are more containers than a request line has room for.
    pub fn text(&self, tenant: &Subdomain) -> Option<String> {
        let (mut bytes, mut text) = (Vec::new(), String::new());
        self.text_over(tenant, &mut bytes, &mut text).then_some(text)
    }

    /// Writes the text of it over `text`, by way of `bytes`; false when there is none. There is a cursor behind every line,
    /// so both buffers are for use again.
    pub fn text_over(&self, tenant: &Subdomain, bytes: &mut Vec<u8>, text: &mut String) -> bool {
        text.clear();
        bytes.clear();
        let fits = self.write(tenant, bytes);
        if fits {
            URL_SAFE_NO_PAD.encode_string(bytes, text);
        }
        fits
    }

    /// Writes it into `out`, which must be empty: the checksum is over all of it.
    fn write(&self, tenant: &Subdomain, out: &mut Vec<u8>) -> bool {
        let latest = self.marks.iter().filter_map(|mark| mark.position.time()).max().unwrap_or(0);
        out.push(VERSION);
        out.extend(latest.to_be_bytes());
        for mark in &self.marks {
            out.extend(mark.source.0);
            varint(out, u64::from(mark.number));
            let name = mark.service.as_str().as_bytes();
            varint(out, name.len() as u64);
            out.extend(name);
            let since = |out: &mut Vec<u8>, time: i64| varint(out, latest.abs_diff(time));
            match &mark.position {
                Position::Beginning => out.push(0),
                Position::Since(time) => {
                    out.push(1);
                    since(out, *time);
                }
                Position::Line(line) => {
                    out.push(if line.stream == LogStreamKind::Stderr { 3 } else { 2 });
                    since(out, line.time);
                    varint(out, u64::from(line.nth));
                    out.extend(line.check.to_be_bytes());
                }
            }
        }
        let checksum = seal(tenant, out);
        out.extend(checksum);
        out.len() <= MAX_BYTES
    }

    /// The marks, in no order.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The mark of a container.
    pub fn mark(&self, source: LogSource) -> Option<&Mark> {
        self.marks.iter().find(|mark| mark.source == source)
    }

    /// A container's log is told from here on.
    pub fn join(&mut self, mark: Mark) {
        self.leave(mark.source);
        self.marks.push(mark);
    }

    /// A container is gone and all of it has been told.
    pub fn leave(&mut self, source: LogSource) {
        self.marks.retain(|mark| mark.source != source);
    }

    /// A line has been told. One without a time cannot be found again: it is told once more after the cursor before it.
    pub fn told(&mut self, line: &LogLine) {
        let mark = self.marks.iter_mut().find(|mark| mark.source == line.origin.source);
        if let (Some(mark), Some(line)) = (mark, line.mark()) {
            mark.position = Position::Line(line);
        }
    }
}

impl Position {
    /// The time of the line that was told last; none when there was none.
    pub(super) fn time_of_line(&self) -> Option<jiff::Timestamp> {
        match self {
            Self::Line(line) => jiff::Timestamp::from_nanosecond(line.time.into()).ok(),
            _ => None,
        }
    }

    fn time(&self) -> Option<i64> {
        match self {
            Self::Beginning => None,
            Self::Since(time) => Some(*time),
            Self::Line(line) => Some(line.time),
        }
    }
}

/// Nanoseconds since 1970; none for times that no clock of a host has (before 1677, after 2262).
pub(super) fn nanoseconds(time: jiff::Timestamp) -> Option<i64> {
    i64::try_from(time.as_nanosecond()).ok()
}

/// CRC-32 of a line's text. It tells lines of one time apart where some of them are no longer held.
pub(super) fn check(text: &[u8]) -> u32 {
    crc32fast::hash(text)
}

fn seal(tenant: &Subdomain, body: &[u8]) -> [u8; 4] {
    let mut seal = crc32fast::Hasher::new();
    seal.update(tenant.as_str().as_bytes());
    seal.update(body);
    seal.finalize().to_be_bytes()
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        self.varint()?.try_into().ok()
    }
}

fn read(bytes: &mut Reader<'_>) -> Option<LogCursor> {
    let [version] = bytes.array()?;
    let latest = i64::from_be_bytes(bytes.array()?);
    let mut cursor = LogCursor::default();
    if version != VERSION {
        return None;
    }
    while !bytes.0.is_empty() {
        let source = LogSource(bytes.array()?);
        let number = bytes.small()?;
        let length = usize::try_from(bytes.varint()?).ok()?;
        let service = ServiceName::parse(std::str::from_utf8(bytes.take(length)?).ok()?).ok()?;
        let [kind] = bytes.array()?;
        let time = |bytes: &mut Reader<'_>| latest.checked_sub_unsigned(bytes.varint()?);
        let position = match kind {
            0 => Position::Beginning,
            1 => Position::Since(time(bytes)?),
            2 | 3 => {
                let stream = if kind == 3 { LogStreamKind::Stderr } else { LogStreamKind::Stdout };
                let (time, nth) = (time(bytes)?, bytes.small()?);
                Position::Line(LineMark { time, stream, nth, check: u32::from_be_bytes(bytes.array()?) })
            }
            _ => return None,
        };
        if cursor.mark(source).is_some() {
            return None;
        }
        cursor.marks.push(Mark { source, service, number, position });
    }
    Some(cursor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(name: &str) -> Subdomain {
        Subdomain::parse(name).unwrap()
    }

    fn positions() -> impl Strategy<Value = Position> {
        let time = prop_oneof![any::<i64>(), 1_790_000_000_000_000_000..1_790_000_100_000_000_000_i64];
        prop_oneof![
            Just(Position::Beginning),
            time.clone().prop_map(Position::Since),
            (time, any::<bool>(), any::<u32>(), any::<u32>()).prop_map(|(time, stderr, nth, check)| {
                let stream = if stderr { LogStreamKind::Stderr } else { LogStreamKind::Stdout };
                Position::Line(LineMark { time, stream, nth, check })
            }),
        ]
    }

    fn cursors() -> impl Strategy<Value = LogCursor> {
        let mark = (any::<[u8; 6]>(), "[a-z][a-z0-9_.-]{0,20}", any::<u32>(), positions());
        let marks = proptest::collection::vec(mark, 0..40);
        marks.prop_map(|marks| {
            let mut cursor = LogCursor::default();
            for (source, service, number, position) in marks {
                let service = ServiceName::parse(&service).unwrap();
                cursor.join(Mark { source: LogSource(source), service, number, position });
            }
            cursor
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(cursor in cursors()) {
            let text = cursor.text(&tenant("acme")).unwrap();
            prop_assert_eq!(LogCursor::parse(&text, &tenant("acme")), Ok(cursor));
            prop_assert!(LogCursor::parse(&text, &tenant("other")).is_err());
        }

        /// No text makes it panic, and no change of a cursor is taken for another one.
        #[test]
        fn whatever_else_is_refused(cursor in cursors(), at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_=-]") {
            let text = cursor.text(&tenant("acme")).unwrap();
            let at = at.index(text.len());
            let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
            prop_assert!(changed == text || LogCursor::parse(&changed, &tenant("acme")).is_err());
            prop_assert!(LogCursor::parse(&text[..at], &tenant("acme")).is_err());
        }

        /// Also not when the checksum is right.
        #[test]
        fn hostile_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let checksum = seal(&tenant("acme"), &bytes);
            bytes.extend(checksum);
            let text = URL_SAFE_NO_PAD.encode(&bytes);
            if let Ok(cursor) = LogCursor::parse(&text, &tenant("acme")) {
                prop_assert_eq!(cursor.text(&tenant("acme")), Some(text));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            let _ = LogCursor::parse(&text, &tenant("acme"));
        }
    }

    #[test]
    fn twenty_containers_fit_into_a_line() {
        let mut cursor = LogCursor::default();
        for n in 0_u8..20 {
            let line = LineMark {
                time: 1_790_000_000_123_456_789 + i64::from(n),
                stream: LogStreamKind::Stdout,
                nth: 1,
                check: 7,
            };
            let service = ServiceName::parse(&format!("service{n}")).unwrap();
            let source = LogSource([n; 6]);
            cursor.join(Mark { source, service, number: 1, position: Position::Line(line) });
        }
        assert!(cursor.text(&tenant("acme")).unwrap().len() < 700);
        for n in 0..=u8::MAX {
            let service = ServiceName::parse(&"x".repeat(100)).unwrap();
            cursor.join(Mark {
                source: LogSource([n, 1, 1, 1, 1, 1]),
                service,
                number: 1,
                position: Position::Beginning,
            });
        }
        assert_eq!(cursor.text(&tenant("acme")), None);
        assert!(LogCursor::parse(&"A".repeat(20_000), &tenant("acme")).is_err());
    }

    #[test]
    fn a_source_is_the_beginning_of_an_id() {
        let id = ContainerId::parse(&format!("0123456789ab{}", "f".repeat(52))).unwrap();
        assert_eq!(LogSource::of(&id), LogSource([0x01, 0x23, 0x45, 0x67, 0x89, 0xab]));
    }
}

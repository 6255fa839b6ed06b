//! Lines as a client wants them: text or NDJSON.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::fmt::temporal::DateTimePrinter;
use serde::Serialize;

use super::{BLOCK, Telling};
use crate::api::error::{ApiError, ErrorBody};
use crate::backend::{GapReason, LogEvent, LogGap, LogLine, LogSource, LogStreamKind};
use crate::domain::{ContainerName, ServiceName};

static TIMES: DateTimePrinter = DateTimePrinter::new();

/// How lines look to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Format {
    /// `service-1 | line`, with the time before it if wanted.
    Text {
        /// Begin each line with its time.
        timestamps: bool,
    },
    /// One JSON object a line.
    Ndjson,
}

impl Format {
    pub(in crate::api) fn content_type(self) -> &'static str {
        match self {
            Self::Text { .. } => "text/plain; charset=utf-8",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

/// Lines as the client wants them.
pub(super) struct Writer {
    pub(super) telling: Telling,
    pub(super) out: Vec<u8>,
    labels: Labels,
    /// For the text of a cursor, and what it is made of.
    cursor: (String, Vec<u8>),
    /// The cursor has every container that is read: something has been told, which comes after all have joined.
    joined: bool,
    /// Text only: the line that stands last goes on with the next piece of this one, which has the same time.
    open: Option<(LogSource, LogStreamKind, Option<jiff::Timestamp>)>,
}

/// How each line of a container's stream begins: `web-1 | `, or the members of its object that say whose it is.
#[derive(Default)]
struct Labels(Vec<(LogSource, LogStreamKind, Vec<u8>)>);

// What `Writer::json_line` writes: that does it piece by piece, because serde takes a tenth of a stream's CPU time for it.
#[cfg(test)]
#[derive(Serialize, schemars::JsonSchema)]
pub(in crate::api) struct JsonLine<'a> {
    pub(super) time: Option<jiff::Timestamp>,
    pub(super) service: &'a ServiceName,
    pub(super) container: &'a ContainerName,
    pub(super) stream: LogStreamKind,
    pub(super) line: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) partial: bool,
    pub(super) cursor: Option<&'a str>,
}

/// The members of a [`JsonLine`] that say whose it is.
#[derive(Serialize)]
struct Whose<'a> {
    service: &'a ServiceName,
    container: &'a ContainerName,
    stream: LogStreamKind,
}

/// Lines are missing here.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::api) struct JsonGap<'a> {
    gap: GapBody<'a>,
    cursor: Option<&'a str>,
}

/// The last line of a stream that did not come to its end.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::api) struct JsonError<'a> {
    #[serde(flatten)]
    error: ErrorBody<'a>,
    cursor: Option<&'a str>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct GapBody<'a> {
    service: &'a ServiceName,
    number: u32,
    container: Option<&'a ContainerName>,
    from: Option<jiff::Timestamp>,
    to: Option<jiff::Timestamp>,
    reason: GapReason,
}

impl Writer {
    pub(super) fn new(telling: Telling) -> Self {
        let joined = !telling.cursor.marks().is_empty();
        let (out, labels, cursor) = (Vec::new(), Labels::default(), Default::default());
        Self { telling, out, labels, cursor, joined, open: None }
    }

    pub(super) fn take(&mut self) -> Bytes {
        // The next one is as long when there is much to tell.
        let next = Vec::with_capacity(if self.out.len() < BLOCK { 0 } else { self.out.len() });
        std::mem::replace(&mut self.out, next).into()
    }

    pub(super) fn event(&mut self, event: LogEvent) {
        match event {
            LogEvent::Joined(mark) => self.telling.cursor.join(mark),
            LogEvent::Line(line) => {
                self.joined = true;
                self.line(&line);
            }
            LogEvent::Gap(gap) => {
                self.joined = true;
                self.gap(&gap);
            }
            LogEvent::Left(source) => {
                self.telling.cursor.leave(source);
                self.labels.forget(source);
            }
        }
    }

    fn line(&mut self, line: &LogLine) {
        match self.telling.format {
            Format::Text { timestamps } => self.text(line, timestamps),
            Format::Ndjson => self.json_line(line),
        }
    }

    fn text(&mut self, line: &LogLine, timestamps: bool) {
        let this = Some((line.origin.source, line.stream, line.time));
        if self.open != this {
            self.finish();
            if timestamps && let Some(time) = line.time {
                print(time, &mut self.out);
                self.put(" ");
            }
            let label = self.labels.of(line, |line, out| {
                out.extend(format!("{}-{} | ", line.origin.service, line.origin.number).into_bytes());
            });
            self.out.extend_from_slice(label);
        }
        // A terminal ends its lines with CR LF.
        let bytes = line.line.strip_suffix(b"\r").filter(|_| !line.partial).unwrap_or(&line.line);
        let text = readable(bytes);
        if memchr::memchr2(b'\r', b'\n', bytes).is_none() {
            self.put(&text);
        } else {
            // A line that breaks could pass for a line of another service.
            self.put(&text.replace(['\r', '\n'], "␤"));
        }
        self.open = this.filter(|_| line.partial);
        if !line.partial {
            self.put("\n");
        }
    }

    /// Writes a [`JsonLine`].
    fn json_line(&mut self, line: &LogLine) {
        let Self { telling, out, labels, cursor: (cursor, bytes), .. } = self;
        telling.cursor.told(line);
        out.extend_from_slice(br#"{"time":"#);
        match line.time {
            Some(time) => {
                out.push(b'"');
                print(time, out);
                out.push(b'"');
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(labels.of(line, |line, out| {
            let LogLine { origin, stream, .. } = line;
            write_json(&Whose { service: &origin.service, container: &origin.container, stream: *stream }, out);
            out[0] = b',';
            out.pop();
        }));
        out.extend_from_slice(br#","line":"#);
        write_json(&*readable(&line.line), out);
        if line.partial {
            out.extend_from_slice(br#","partial":true"#);
        }
        if telling.cursor.text_over(&telling.tenant, bytes, cursor) {
            // Base64 needs no escapes.
            out.extend_from_slice(br#","cursor":""#);
            out.extend_from_slice(cursor.as_bytes());
            out.extend_from_slice(b"\"}\n");
        } else {
            out.extend_from_slice(b",\"cursor\":null}\n");
        }
    }

    fn gap(&mut self, gap: &LogGap) {
        let LogGap { service, number, container, from, to, reason } = gap;
        match self.telling.format {
            Format::Text { .. } => {
                self.finish();
                let moment = |word: &str, time: &Option<jiff::Timestamp>| {
                    time.map_or_else(String::new, |time| format!(" {word} {time}"))
                };
                let (from, to) = (moment("after", from), moment("before", to));
                let why = match reason {
                    GapReason::Rotated => "the log has been rotated",
                    GapReason::Removed => "the container has been removed",
                    GapReason::Unreadable => "the log cannot be read",
                };
                self.put(&format!("gap: lines of {service}-{number}{from}{to} are no longer held: {why}\n"));
            }
            Format::Ndjson => {
                let (container, number, from, to, reason) = (container.as_ref(), *number, *from, *to, *reason);
                let gap = GapBody { service, number, container, from, to, reason };
                self.json(|cursor| JsonGap { gap, cursor });
            }
        }
    }

    pub(super) fn error(&mut self, error: &ApiError) {
        match self.telling.format {
            Format::Text { .. } => {
                self.finish();
                self.put(&format!("error: {}\n", error.message));
            }
            Format::Ndjson => {
                let request_id = self.telling.request_id.clone();
                let joined = self.joined;
                self.json(|cursor| JsonError { error: error.body(&request_id), cursor: cursor.filter(|_| joined) });
            }
        }
    }

    /// Writes what is made of the cursor as it stands.
    fn json<'a, T: Serialize>(&'a mut self, value: impl FnOnce(Option<&'a str>) -> T) {
        let Self { telling, out, cursor: (text, bytes), .. } = self;
        let fits = telling.cursor.text_over(&telling.tenant, bytes, text);
        write_json(&value(fits.then_some(text.as_str())), out);
        out.push(b'\n');
    }

    /// Ends a line that was to go on.
    pub(super) fn finish(&mut self) {
        if self.open.take().is_some() {
            self.put("\n");
        }
    }

    /// What is written next begins a line, wherever the writing was broken off.
    pub(super) fn end_line(&mut self) {
        match self.telling.format {
            Format::Ndjson => {
                let whole = self.out.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                self.out.truncate(whole);
            }
            Format::Text { .. } if self.open.is_none() && self.out.last().is_some_and(|byte| *byte != b'\n') => {
                self.put("\n");
            }
            Format::Text { .. } => {}
        }
    }

    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
}

impl Labels {
    /// That of a line; made by `write` when it is the first one.
    fn of(&mut self, line: &LogLine, write: impl FnOnce(&LogLine, &mut Vec<u8>)) -> &[u8] {
        let (source, stream) = (line.origin.source, line.stream);
        let known = self.0.iter().position(|(of, to, _)| (*of, *to) == (source, stream));
        let at = known.unwrap_or_else(|| {
            let mut label = Vec::new();
            write(line, &mut label);
            self.0.push((source, stream, label));
            self.0.len() - 1
        });
        &self.0[at].2
    }

    fn forget(&mut self, source: LogSource) {
        self.0.retain(|(of, ..)| *of != source);
    }
}

fn write_json(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    if let Err(error) = serde_json::to_writer(out, value) {
        tracing::error!(%error, "a log line could not be written as JSON");
    }
}

fn print(time: jiff::Timestamp, out: &mut Vec<u8>) {
    if let Err(error) = TIMES.print_timestamp(&time, out) {
        tracing::error!(%error, "a log line's time could not be written");
    }
}

/// UTF-8 as it is, anything else with replacement characters. Checking first is several times as fast as `from_utf8_lossy`.
fn readable(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

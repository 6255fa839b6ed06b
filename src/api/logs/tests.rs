//! What a client sees of a log stream, and when the reading ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::stream;
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;
use crate::backend::{
    BackendError, GapReason, LogEvent, LogGap, LogLine, LogOrigin, LogSource, LogStreamKind, Position,
};
use crate::domain::{ContainerId, ContainerName, ServiceName};

fn tenant() -> Subdomain {
    Subdomain::parse("acme").unwrap()
}

fn origin(service: &str) -> LogOrigin {
    let digits: String = service.bytes().map(|byte| format!("{byte:02x}")).collect();
    LogOrigin {
        source: LogSource::of(&ContainerId::parse(&format!("{digits:0<64}")).unwrap()),
        container: ContainerName::parse(&format!("q8-acme-{service}-1")).unwrap(),
        service: ServiceName::parse(service).unwrap(),
        number: 1,
    }
}

fn told(service: &str, text: &[u8], partial: bool) -> LogEvent {
    LogEvent::Line(LogLine {
        time: Some("2026-11-21T08:00:00.5Z".parse().unwrap()),
        origin: Arc::new(origin(service)),
        nth: 1,
        stream: LogStreamKind::Stdout,
        line: Bytes::copy_from_slice(text),
        partial,
    })
}

fn line(service: &str, text: &[u8]) -> LogEvent {
    told(service, text, false)
}

fn piece(service: &str, text: &str) -> LogEvent {
    told(service, text.as_bytes(), true)
}

fn gap(service: &str, from: Option<&str>, to: Option<&str>, reason: GapReason) -> LogEvent {
    let LogOrigin { container, service, number, .. } = origin(service);
    let time = |text: &str| text.parse().unwrap();
    let container = to.map(|_| container);
    LogEvent::Gap(LogGap { service, number, container, from: from.map(time), to: to.map(time), reason })
}

/// Each item alone, as a slow backend gives them.
fn one_by_one(items: Vec<Result<LogEvent, BackendError>>) -> LogStream {
    stream::iter(items.into_iter().map(|item| item.map(|event| vec![event])).collect::<Vec<_>>()).boxed()
}

fn start(lines: LogStream, format: Format, stop: &CancellationToken) -> (Body, Arc<Semaphore>) {
    let places = Arc::new(Semaphore::new(1));
    let place = Arc::clone(&places).try_acquire_owned().unwrap();
    let request_id = RequestId::parse("r-1").unwrap();
    let telling = Telling { tenant: tenant(), cursor: LogCursor::default(), format, request_id };
    (relay(lines, telling, stop.clone(), place), places)
}

async fn whole(items: Vec<Result<LogEvent, BackendError>>, format: Format) -> String {
    let (body, _) = start(one_by_one(items), format, &CancellationToken::new());
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

const TEXT: Format = Format::Text { timestamps: false };

#[tokio::test]
async fn text_has_one_line_for_each() {
    let items = vec![
        Ok(line("web", b"hello")),
        Ok(line("web", b"")),
        Ok(line("db", b"crlf\r")),
        Ok(line("db", b"spoof\nweb-1 | x\rweb-1 | y")),
        Ok(line("web", b"\xff\x1b[31mred")),
        Ok(piece("web", "long ")),
        Ok(line("web", b"line")),
        Ok(piece("web", "cut ")),
        Ok(line("db", b"between")),
        Ok(line("web", b"off")),
        Ok(piece("web", "never ended")),
    ];
    assert_eq!(
        whole(items, TEXT).await,
        "web-1 | hello\nweb-1 | \ndb-1 | crlf\ndb-1 | spoof␤web-1 | x␤web-1 | y\nweb-1 | \u{fffd}\u{1b}[31mred\n\
         web-1 | long line\nweb-1 | cut \ndb-1 | between\nweb-1 | off\nweb-1 | never ended\n"
    );
    let timed = whole(vec![Ok(line("web", b"x"))], Format::Text { timestamps: true }).await;
    assert_eq!(timed, "2026-11-21T08:00:00.5Z web-1 | x\n");
}

#[tokio::test]
async fn ndjson_has_one_object_for_each() {
    let text = whole(vec![Ok(line("web", b"a\n\"b\xff")), Ok(piece("db", "x"))], Format::Ndjson).await;
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let time = "2026-11-21T08:00:00.5Z";
    // Nobody has said where these containers begin.
    let empty = LogCursor::default().text(&tenant());
    assert_eq!(
        lines,
        [
            serde_json::json!({ "time": time, "service": "web", "container": "q8-acme-web-1", "stream": "stdout",
                                "line": "a\n\"b\u{fffd}", "cursor": empty }),
            serde_json::json!({ "time": time, "service": "db", "container": "q8-acme-db-1", "stream": "stdout",
                                "line": "x", "partial": true, "cursor": empty }),
        ]
    );
}

#[tokio::test]
async fn an_error_is_the_last_line() {
    let items = || vec![Ok(piece("web", "x")), Err(BackendError::Unavailable), Ok(line("web", b"never"))];
    assert_eq!(whole(items(), TEXT).await, "web-1 | x\nerror: the backend cannot be reached\n");
    let text = whole(items(), Format::Ndjson).await;
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&last["code"], &last["request_id"]), (&"BACKEND_UNAVAILABLE".into(), &"r-1".into()));
}

#[tokio::test]
async fn a_panic_is_not_the_end_of_a_log() {
    let lines = stream::iter([Ok(vec![line("web", b"one")])]);
    let lines = lines.chain(stream::once(async { panic!("a test asked for this") })).boxed();
    let (body, _) = start(lines, TEXT, &CancellationToken::new());
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert_eq!(text, "web-1 | one\nerror: an unexpected failure; the agent's log has it under this request id\n");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_shows_its_line_at_once() {
    let lines = one_by_one(vec![Ok(line("web", b"first"))]).chain(stream::pending()).boxed();
    let (mut body, _) = start(lines, TEXT, &CancellationToken::new());
    let begun = Instant::now();
    let block = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(block, "web-1 | first\n");
    assert!(begun.elapsed() <= PATIENCE + Duration::from_millis(5), "{:?}", begun.elapsed());
}

/// Endless lines, counting those taken.
fn endless(taken: &Arc<AtomicUsize>) -> LogStream {
    let taken = Arc::clone(taken);
    stream::repeat_with(move || {
        taken.fetch_add(1, Ordering::Relaxed);
        Ok(vec![line("web", &[b'x'; 1000])])
    })
    .boxed()
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_holds_the_writer_back() {
    let taken = Arc::new(AtomicUsize::new(0));
    let (mut body, _) = start(endless(&taken), TEXT, &CancellationToken::new());
    tokio::time::sleep(STALL / 2).await;
    let held = taken.load(Ordering::Relaxed) * 1000;
    assert!(held <= 3 * BLOCK, "{held} bytes are held for a reader that does not read");
    let block = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!((BLOCK..BLOCK + 2000).contains(&block.len()), "{}", block.len());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_ends_the_reading() {
    let (stops, _guard) = (Arc::new(()), CancellationToken::new());
    let held = Arc::clone(&stops);
    // A quiet stream: nothing is ever sent, so only the closed channel tells.
    let lines: LogStream =
        stream::pending().inspect(move |_: &Result<Vec<LogEvent>, BackendError>| drop(held.clone())).boxed();
    let (body, places) = start(lines, TEXT, &CancellationToken::new());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((Arc::strong_count(&stops), places.available_permits()), (2, 0));
    drop(body);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((Arc::strong_count(&stops), places.available_permits()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_streams_with_a_word() {
    let stop = CancellationToken::new();
    let (body, _) = start(stream::pending().boxed(), TEXT, &stop);
    stop.cancel();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "error: the agent is stopping\n");
    let stop = CancellationToken::new();
    let (body, _) = start(endless(&Arc::default()), TEXT, &stop);
    stop.cancel();
    assert!(body.collect().await.unwrap().to_bytes().ends_with(b"error: the agent is stopping\n"));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_is_dropped_with_a_word() {
    for format in [TEXT, Format::Ndjson] {
        let taken = Arc::new(AtomicUsize::new(0));
        let (body, places) = start(endless(&taken), format, &CancellationToken::new());
        tokio::time::sleep(STALL + Duration::from_secs(1)).await;
        // Nothing is held for it but the blocks that had been filled.
        assert_eq!(places.available_permits(), 1);
        let before = taken.load(Ordering::Relaxed);
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        assert_eq!(taken.load(Ordering::Relaxed), before);
        let last = text.lines().last().unwrap();
        assert_eq!(text.lines().count(), before + 1, "every line that was taken is told");
        assert!(last.contains("nothing was read for 10 s"), "{last}");
        if format == Format::Ndjson {
            let last: serde_json::Value = serde_json::from_str(last).unwrap();
            assert_eq!((&last["code"], &last["retryable"]), (&"DEADLINE_EXCEEDED".into(), &true.into()));
        }
    }
    // One that never reads on costs nothing in the end either.
    let (body, _places) = start(endless(&Arc::default()), TEXT, &CancellationToken::new());
    tokio::time::sleep(STALL + LAST_WORD + Duration::from_secs(1)).await;
    assert!(!body.collect().await.unwrap().to_bytes().ends_with(b"cursor\n"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_dropped() {
    let (mut body, _places) = start(endless(&Arc::default()), TEXT, &CancellationToken::new());
    for _ in 0..20 {
        tokio::time::sleep(STALL * 9 / 10).await;
        let block = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(block.starts_with(b"web-1 | x"));
    }
}

#[tokio::test]
async fn gaps_are_told() {
    let (from, to) = ("2026-11-21T08:00:00.5Z", "2026-11-21T09:00:00Z");
    let items = || {
        vec![
            Ok(piece("web", "x")),
            Ok(gap("web", Some(from), Some(to), GapReason::Rotated)),
            Ok(gap("db", None, None, GapReason::Removed)),
        ]
    };
    assert_eq!(
        whole(items(), TEXT).await,
        "web-1 | x\ngap: lines of web-1 after 2026-11-21T08:00:00.5Z before 2026-11-21T09:00:00Z are no longer held: the log \
         has been rotated\ngap: lines of db-1 are no longer held: the container has been removed\n"
    );
    let text = whole(items(), Format::Ndjson).await;
    let gaps: Vec<serde_json::Value> = text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let cursor = LogCursor::default().text(&tenant());
    assert_eq!(
        gaps,
        [
            serde_json::json!({ "gap": { "service": "web", "number": 1, "container": "q8-acme-web-1", "from": from, "to": to,
                                         "reason": "rotated" }, "cursor": cursor }),
            serde_json::json!({ "gap": { "service": "db", "number": 1, "container": null, "from": null, "to": null,
                                         "reason": "removed" }, "cursor": cursor }),
        ]
    );
}

proptest! {
    /// What is written piece by piece is what serde makes of the type that `openapi.json` describes.
    #[test]
    fn a_line_is_the_object_that_is_described(
        texts in prop::collection::vec(("\\PC{0,20}|[\x00-\x7f]{0,20}", any::<bool>(), any::<bool>()), 1..6),
        time in prop::option::of(-1_000_000_000_000_i64..4_000_000_000_000_000_000),
        is_known in any::<bool>(),
    ) {
        let mut cursor = LogCursor::default();
        if is_known {
            cursor.join(origin("web").at(Position::Beginning));
        }
        let request_id = RequestId::parse("r-1").unwrap();
        let telling = Telling { tenant: tenant(), cursor: cursor.clone(), format: Format::Ndjson, request_id };
        let mut writer = Writer::new(telling);
        for (text, partial, is_error) in texts {
            let LogEvent::Line(mut line) = told("web", text.as_bytes(), partial) else { unreachable!("it is a line") };
            line.time = time.map(|time| jiff::Timestamp::from_nanosecond(time.into()).unwrap());
            line.stream = if is_error { LogStreamKind::Stderr } else { LogStreamKind::Stdout };
            cursor.told(&line);
            let cursor = cursor.text(&tenant());
            let described = writer::JsonLine {
                time: line.time,
                service: &line.origin.service,
                container: &line.origin.container,
                stream: line.stream,
                line: &text,
                partial,
                cursor: cursor.as_deref(),
            };
            let described = serde_json::to_string(&described).unwrap() + "\n";
            writer.event(LogEvent::Line(line));
            prop_assert_eq!(String::from_utf8(writer.take().to_vec()).unwrap(), described);
        }
    }
}

#[tokio::test]
async fn every_line_has_its_cursor() {
    let (web, db) = (origin("web"), origin("db"));
    let items = vec![
        Ok(LogEvent::Joined(web.at(Position::Beginning))),
        Ok(LogEvent::Joined(db.at(Position::Since(5)))),
        Ok(line("web", b"one")),
        Ok(line("db", b"two")),
        Ok(LogEvent::Left(web.source)),
        Ok(line("db", b"three")),
    ];
    let text = whole(items, Format::Ndjson).await;
    let cursors: Vec<LogCursor> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| LogCursor::parse(line["cursor"].as_str().unwrap(), &tenant()).unwrap())
        .collect();
    let mark = |service: &str, text: &[u8]| {
        let LogEvent::Line(line) = line(service, text) else { unreachable!("it is a line") };
        Some(Position::Line(line.mark().unwrap()))
    };
    let positions: Vec<_> = cursors
        .iter()
        .map(|cursor| [&web, &db].map(|origin| cursor.mark(origin.source).map(|mark| mark.position)))
        .collect();
    assert_eq!(
        positions,
        [
            [mark("web", b"one"), Some(Position::Since(5))],
            [mark("web", b"one"), mark("db", b"two")],
            [None, mark("db", b"three")],
        ]
    );
}

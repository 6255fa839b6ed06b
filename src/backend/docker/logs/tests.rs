//! Sources and their merge on an engine that is made up, where a log can be as no real one is at will.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::TryStreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use super::super::gate::Ground;
use super::super::networks::Subnet;
use super::source::Batch;
use super::*;
use crate::backend::{GapReason, LineMark, LogLine, LogStreamKind, cursor};
use crate::domain::ContainerName;

/// The log of its only container.
#[derive(Default)]
struct Log {
    messages: Vec<Message>,
    tty: bool,
    /// Whether it ends, as that of a container does which does not run.
    ended: bool,
    restarting: bool,
    starts: u32,
    removed: bool,
    /// Refused with this.
    status: Option<u16>,
    /// How long the engine takes for a hundred lines.
    pause: Duration,
    /// So many times more all that it has is gone, and something else there, when it is asked for to be followed.
    rotations: i64,
    /// How often it has been asked for.
    asked: usize,
}

#[derive(Clone)]
struct Message {
    /// Nanoseconds since 1970; none for the engine's own word.
    time: Option<i64>,
    text: String,
}

#[derive(Clone)]
struct FakeEngine {
    engine: Arc<Engine>,
    log: Arc<Mutex<Log>>,
    bell: Arc<Notify>,
    _place: Arc<(tempfile::TempDir, AbortOnDropHandle<()>)>,
}

impl FakeEngine {
    fn with(messages: impl IntoIterator<Item = Message>) -> Self {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let log = Arc::new(Mutex::new(Log { messages: messages.into_iter().collect(), ..Log::default() }));
        let bell = Arc::new(Notify::new());
        let (shared, ring) = (Arc::clone(&log), Arc::clone(&bell));
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(answer(connection, Arc::clone(&shared), Arc::clone(&ring)));
            }
        });
        let ground = Ground { publish: None, pool: Subnet::parse("10.0.0.0/16").unwrap() };
        let engine = Arc::new(Engine::at(socket, ground));
        Self { engine, log, bell, _place: Arc::new((place, AbortOnDropHandle::new(serving))) }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writes(&self, message: Message) {
        self.log().messages.push(message);
        self.bell.notify_waiters();
    }

    /// The container's log from here on, merged with nobody else's; followed with `changes`.
    fn read(&self, start: Start, until: Option<jiff::Timestamp>, follow: bool) -> LogStream {
        self.read_with(Vec::new(), start, until, follow)
    }

    /// Merged with these.
    fn read_with(
        &self,
        mut others: Vec<Head>,
        start: Start,
        until: Option<jiff::Timestamp>,
        follow: bool,
    ) -> LogStream {
        let (sender, batches) = mpsc::channel(WAITING_BATCHES);
        let looked = {
            let log = self.log();
            Looked { tty: log.tty, started: Some(started(log.starts)) }
        };
        let source = Source::new(&self.engine, (id(), looked, origin()), until, sender.clone());
        let changes = follow.then(|| watch::Sender::new(0));
        let reading = source.run(start, changes.as_ref().map(watch::Sender::subscribe));
        others.push(Head::new(batches, feed(sender, Err(broken()), reading)));
        let (news, hears) = mpsc::channel(1);
        merge(others, follow.then_some(hears), until, (news, changes))
    }
}

fn started(starts: u32) -> String {
    format!("2026-01-01T00:00:{starts:02}Z")
}

async fn answer(mut connection: UnixStream, log: Arc<Mutex<Log>>, bell: Arc<Notify>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default();
    let Some((_, query)) = target.split_once("/logs?") else {
        let state = {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            serde_json::json!({
                "Running": !log.ended || log.restarting, "Restarting": log.restarting, "StartedAt": started(log.starts),
            })
        };
        let body = serde_json::json!({"State": state}).to_string();
        let status = if log.lock().unwrap_or_else(PoisonError::into_inner).removed { 404 } else { 200 };
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        return connection.write_all(format!("{head}{body}").as_bytes()).await;
    };
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let (mut next, tty, status, pause) = {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.asked += 1;
        if log.rotations > 0 && parameter("follow") == Some("true") {
            log.messages = vec![at(2 * NOW - log.rotations * SECOND, &format!("{}\n", log.rotations))];
            log.rotations -= 1;
        }
        let tail = parameter("tail").map_or(usize::MAX, |tail| tail.parse().unwrap());
        let status = log.status.unwrap_or(if log.removed { 404 } else { 200 });
        (log.messages.len().saturating_sub(tail), log.tty, status, log.pause)
    };
    let head = format!("HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.write_all(head.as_bytes()).await?;
    loop {
        let rings = bell.notified();
        let (messages, ended) = {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            (log.messages[next..].to_vec(), log.ended)
        };
        for message in &messages {
            next += 1;
            if next % 100 == 0 {
                tokio::time::sleep(pause).await;
            }
            let time = message.time.map(|time| jiff::Timestamp::from_nanosecond(time.into()).unwrap());
            let text = time.map_or_else(String::new, |time| format!("{time} ")) + &message.text;
            let kind = if time.is_some() { 1 } else { 3 };
            let frame = [kind, 0, 0, 0].into_iter().chain(u32::try_from(text.len()).unwrap().to_be_bytes());
            let body: Vec<u8> = frame.take(if tty { 0 } else { 8 }).chain(text.into_bytes()).collect();
            connection.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await?;
            connection.write_all(&body).await?;
            connection.write_all(b"\r\n").await?;
            if time.is_none() {
                return connection.write_all(b"0\r\n\r\n").await;
            }
        }
        if ended || parameter("follow") != Some("true") {
            return connection.write_all(b"0\r\n\r\n").await;
        }
        if messages.is_empty() {
            rings.await;
        }
    }
}

const SECOND: i64 = 1_000_000_000;
const NOW: i64 = 1_790_000_000 * SECOND;

fn id() -> ContainerId {
    ContainerId::parse(&"a".repeat(64)).unwrap()
}

fn origin() -> Arc<LogOrigin> {
    Arc::new(LogOrigin {
        source: LogSource::of(&id()),
        container: ContainerName::parse("q8-acme-web-1").unwrap(),
        service: ServiceName::parse("web").unwrap(),
        number: 1,
    })
}

fn at(time: i64, text: &str) -> Message {
    Message { time: Some(time), text: text.to_owned() }
}

fn lines(count: i64) -> impl Iterator<Item = Message> {
    (0..count).map(|number| at(NOW + number * SECOND, &format!("{number}\n")))
}

fn all(until: Option<jiff::Timestamp>) -> Start {
    Start::Window(Window { until, ..Window::all(false) })
}

fn mark(time: i64, text: &str) -> Start {
    let check = cursor::check(text.as_bytes());
    Start::After(Position::Line(LineMark { time, stream: LogStreamKind::Stdout, nth: 1, check }))
}

async fn told(stream: LogStream) -> Vec<LogEvent> {
    stream.try_concat().await.unwrap()
}

fn texts(events: &[LogEvent]) -> Vec<String> {
    let text = |line: &LogLine| String::from_utf8_lossy(&line.line).into_owned();
    events.iter().filter_map(|event| if let LogEvent::Line(line) = event { Some(text(line)) } else { None }).collect()
}

fn gaps(events: &[LogEvent]) -> Vec<GapReason> {
    events.iter().filter_map(|event| if let LogEvent::Gap(gap) = event { Some(gap.reason) } else { None }).collect()
}

/// What another service has written.
fn other(time: i64, text: &str) -> LogEvent {
    let origin = LogOrigin {
        source: LogSource::of(&ContainerId::parse(&"b".repeat(64)).unwrap()),
        container: ContainerName::parse("q8-acme-db-1").unwrap(),
        service: ServiceName::parse("db").unwrap(),
        number: 1,
    };
    LogEvent::Line(LogLine {
        time: Some(jiff::Timestamp::from_nanosecond(time.into()).unwrap()),
        origin: Arc::new(origin),
        nth: 1,
        stream: LogStreamKind::Stdout,
        line: bytes::Bytes::copy_from_slice(text.as_bytes()),
        partial: false,
    })
}

/// A source that sends what it is given, and is silent after it.
fn live() -> (mpsc::Sender<Result<Batch, BackendError>>, Head) {
    let (sender, batches) = mpsc::channel(WAITING_BATCHES);
    sender.try_send(Ok(Batch::Live)).unwrap();
    (sender, Head::new(batches, tokio::spawn(std::future::pending())))
}

/// The cursor behind each line and gap.
fn cursors(mut cursor: LogCursor, events: &[LogEvent]) -> Vec<(&LogEvent, LogCursor)> {
    let mut cursors = Vec::new();
    for event in events {
        match event {
            LogEvent::Joined(mark) => cursor.join(mark.clone()),
            LogEvent::Left(source) => cursor.leave(*source),
            LogEvent::Line(line) => cursor.told(line),
            LogEvent::Gap(_) => {}
        }
        if matches!(event, LogEvent::Line(_) | LogEvent::Gap(_)) {
            cursors.push((event, cursor.clone()));
        }
    }
    cursors
}

/// Events until there have been so many lines.
async fn until_lines(stream: &mut LogStream, count: usize) -> Vec<LogEvent> {
    let mut events = Vec::new();
    while texts(&events).len() < count {
        events.extend(stream.next().await.expect("it goes on").unwrap());
    }
    events
}

#[tokio::test]
async fn a_log_that_takes_long_to_read_is_told_to_the_end_although_the_time_is_over() {
    let engine = FakeEngine::with(lines(2000));
    engine.log().pause = Duration::from_millis(50);
    let now = jiff::Timestamp::now();
    let events = told(engine.read(all(Some(now)), Some(now), true)).await;
    assert_eq!(texts(&events).len(), texts_until(2000, now));
}

/// How many of those lines were written by then.
fn texts_until(count: i64, until: jiff::Timestamp) -> usize {
    lines(count).filter(|line| i128::from(line.time.unwrap()) <= until.as_nanosecond()).count()
}

#[tokio::test]
async fn a_container_that_was_silent_is_told_until_the_time_is_over() {
    let engine = FakeEngine::with([]);
    let until = jiff::Timestamp::now() + Duration::from_secs(1);
    let mut stream = engine.read(all(Some(until)), Some(until), true);
    assert!(matches!(&stream.next().await.unwrap().unwrap()[..], [LogEvent::Joined(_)]));
    let nanoseconds = |time: jiff::Timestamp| cursor::nanoseconds(time).unwrap();
    engine.writes(at(nanoseconds(jiff::Timestamp::now()), "in time\n"));
    engine.writes(at(nanoseconds(until) + 1, "too late\n"));
    assert_eq!(texts(&told(stream).await), ["in time"]);
}

#[tokio::test]
async fn a_terminal_that_ended_without_a_newline_is_found_again() {
    let first = [at(NOW, "one\r\n"), at(NOW + SECOND, "foo")];
    let engine = FakeEngine::with(first.clone());
    (engine.log().tty, engine.log().ended) = (true, true);
    let mut stream = engine.read(all(None), None, true);
    assert_eq!(texts(&until_lines(&mut stream, 2).await), ["one", "foo"]);
    engine.log().ended = false;
    engine.writes(at(NOW + 2 * SECOND, "Starting\r\n"));
    let resumed = engine.read(mark(NOW + SECOND, "foo"), None, false);
    let events = told(resumed).await;
    assert_eq!((texts(&events), gaps(&events)), (vec!["Starting".to_owned()], vec![]));
}

#[tokio::test]
async fn what_the_engine_cannot_read_is_a_gap_and_no_line() {
    let fault = Message { time: None, text: "Error grabbing logs: unexpected EOF\n".to_owned() };
    for tty in [false, true] {
        let after = [at(NOW + 50 * SECOND, "late\n"), at(NOW + 60 * SECOND, "later\n")];
        let engine = FakeEngine::with(lines(3).chain([fault.clone()]).chain(after));
        engine.log().tty = tty;
        let events = told(engine.read(all(None), None, false)).await;
        // And the last one, which can be read.
        assert_eq!((texts(&events).len(), gaps(&events)), (4, vec![GapReason::Unreadable]), "{tty}");
        // Where it goes on is told before the gap, so that nobody hears of it twice.
        let gap = events.iter().position(|event| matches!(event, LogEvent::Gap(_))).unwrap();
        let LogEvent::Joined(joined) = &events[gap - 1] else { panic!("{events:?}") };
        let again = told(engine.read(Start::After(joined.position), None, false)).await;
        assert_eq!((texts(&again), gaps(&again)), (texts(&events)[3..].to_vec(), vec![]));
    }
}

#[tokio::test]
async fn what_comes_before_the_damage_is_told_and_the_damage_once() {
    let fault = Message { time: None, text: "Error grabbing logs: unexpected EOF\n".to_owned() };
    for lines_wanted in [Tail::All, Tail::Lines(100)] {
        let engine = FakeEngine::with(lines(3).chain([fault.clone()]));
        let start = Start::Window(Window { tail: lines_wanted, ..Window::all(false) });
        let mut stream = engine.read(start, None, true);
        let mut events = until_lines(&mut stream, 3).await;
        while gaps(&events).is_empty() {
            events.extend(stream.next().await.unwrap().unwrap());
        }
        // Nobody knows when it reads on.
        while texts(&events).len() < 4 {
            engine.writes(at(NOW + 100 * SECOND, "new\n"));
            let next = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
            events.extend(next.ok().flatten().transpose().unwrap().unwrap_or_default());
        }
        assert_eq!((texts(&events)[3].as_str(), gaps(&events)), ("new", vec![GapReason::Unreadable]));
    }
    // From further back than the first look goes.
    let engine = FakeEngine::with(lines(1000).chain([fault]));
    let events = told(engine.read(mark(NOW + 9 * SECOND, "9"), None, false)).await;
    assert_eq!((texts(&events).len(), gaps(&events)), (990, vec![GapReason::Unreadable]));
}

#[tokio::test]
async fn a_container_that_is_removed_after_its_end_has_no_gap() {
    let engine = FakeEngine::with(lines(2));
    let mut stream = engine.read(all(None), None, true);
    until_lines(&mut stream, 2).await;
    engine.log().ended = true;
    engine.bell.notify_waiters();
    tokio::time::sleep(Duration::from_millis(300)).await;
    engine.log().removed = true;
    // The engine has nothing to look at any more either.
    let rest = stream.next().await.unwrap().unwrap();
    assert!(matches!(rest[..], [LogEvent::Left(_)]), "{rest:?}");
}

#[tokio::test]
async fn a_run_that_nobody_has_seen_is_told() {
    let engine = FakeEngine::with(lines(2));
    (engine.log().ended, engine.log().restarting) = (true, true);
    let mut stream = engine.read(all(None), None, true);
    until_lines(&mut stream, 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    // It has come and gone between two looks.
    engine.log().starts += 1;
    engine.writes(at(NOW + 10 * SECOND, "boom\n"));
    assert_eq!(texts(&until_lines(&mut stream, 1).await), ["boom"]);
}

#[tokio::test]
async fn who_follows_a_log_that_cannot_be_read_goes_on_behind_it() {
    let fault = Message { time: None, text: "Error grabbing logs: unexpected EOF\n".to_owned() };
    let engine = FakeEngine::with([fault].into_iter().chain(lines(20_000)));
    let mut stream = engine.read(all(None), None, true);
    let before = until_lines(&mut stream, 256).await;
    assert_eq!((texts(&before)[0].as_str(), gaps(&before)), ("19744", vec![GapReason::Unreadable]));
    engine.writes(at(NOW + 30_000 * SECOND, "new\n"));
    let events = until_lines(&mut stream, 1).await;
    assert_eq!((texts(&events), gaps(&events)), (vec!["new".to_owned()], vec![]));
}

#[tokio::test]
async fn a_clock_that_was_set_back_costs_no_more_than_any_other() {
    let ahead = (0..300).map(|number| at(2 * NOW + number, "ahead\n"));
    let engine = FakeEngine::with(ahead.chain([at(NOW, "back\n"), at(NOW + 1, "on\n")]));
    let mut stream = engine.read(mark(NOW, "back"), None, true);
    assert_eq!(texts(&until_lines(&mut stream, 1).await), ["on"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    engine.writes(at(NOW + 2, "and on\n"));
    assert_eq!(texts(&until_lines(&mut stream, 1).await), ["and on"]);
    assert!(engine.log().asked < 30, "it was read {} times", engine.log().asked);
}

#[tokio::test]
async fn a_container_without_a_log_says_nothing() {
    let engine = FakeEngine::with([]);
    engine.log().status = Some(501);
    for follow in [false, true] {
        let events = engine.read(all(None), None, follow).take(1).boxed();
        assert!(matches!(&told(events).await[..], [LogEvent::Joined(_)]));
    }
}

#[tokio::test]
async fn a_container_in_a_loop_is_not_read_while_it_waits() {
    let engine = FakeEngine::with(lines(3));
    (engine.log().ended, engine.log().restarting) = (true, true);
    let mut stream = engine.read(all(None), None, true);
    until_lines(&mut stream, 3).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(engine.log().asked < 12, "it was read {} times", engine.log().asked);
}

#[tokio::test]
async fn lines_from_the_future_do_not_wait_for_it() {
    let ahead = jiff::Timestamp::now() + Duration::from_secs(3600);
    let line = LogLine {
        time: Some(ahead),
        origin: origin(),
        nth: 1,
        stream: LogStreamKind::Stdout,
        line: bytes::Bytes::from_static(b"ahead"),
        partial: false,
    };
    let ((_silent, silent), (sender, head)) = (live(), live());
    sender.send(Ok(Batch::Events(vec![LogEvent::Line(line)]))).await.unwrap();
    let (_news, hears) = mpsc::channel(1);
    let mut stream = merge(vec![silent, head], Some(hears), None, ());
    assert_eq!(texts(&until_lines(&mut stream, 1).await), ["ahead"]);
}

#[tokio::test]
async fn a_gap_is_heard_of_from_every_cursor_before_it() {
    let others = || (0..200).map(|number| other(NOW + number * SECOND + 1, "other")).collect();
    let Start::After(position) = mark(NOW + 100 * SECOND, "gone") else { unreachable!("it is a mark") };
    // Rotated away, and what cannot be read behind it.
    let fault = Message { time: None, text: "Error grabbing logs: unexpected EOF\n".to_owned() };
    for (damage, reason) in [(None, GapReason::Rotated), (Some(fault), GapReason::Unreadable)] {
        let before = damage.iter().map(|_| at(NOW + 100 * SECOND, "gone\n"));
        let engine = FakeEngine::with(before.chain(damage.clone()).chain([at(NOW + 150 * SECOND, "new\n")]));
        let events = told(engine.read_with(vec![Head::of(others())], Start::After(position), None, false)).await;
        assert_eq!((texts(&events).len(), gaps(&events)), (201, vec![reason]));
        let cursors = cursors(LogCursor::default(), &events);
        let gap = cursors.iter().position(|(event, _)| matches!(event, LogEvent::Gap(_))).unwrap();
        assert_eq!(gap, 100, "the lines that are older come before it");
        for (number, (event, cursor)) in cursors.iter().enumerate() {
            let position = cursor.mark(origin().source).unwrap().position;
            let again = told(engine.read(Start::After(position), None, false)).await;
            assert_eq!(gaps(&again), if number < gap { vec![reason] } else { vec![] }, "{event:?}");
        }
    }
    let query = |cursor: &LogCursor| LogQuery {
        services: Vec::new(),
        tail: Tail::All,
        follow: false,
        since: None,
        until: None,
        cursor: Some(cursor.clone()),
    };
    let mut cursor = LogCursor::default();
    cursor.join(origin().at(position));
    let heads = vec![Head::of(others()), gone(&query(&cursor), &BTreeSet::new()).unwrap()];
    let events = told(merge(heads, None, None, ())).await;
    let cursors = cursors(cursor, &events);
    let gap = cursors.iter().position(|(event, _)| matches!(event, LogEvent::Gap(_))).unwrap();
    assert_eq!(gap, 100);
    for (number, (event, cursor)) in cursors.iter().enumerate() {
        assert_eq!(gone(&query(cursor), &BTreeSet::new()).is_some(), number < gap, "{event:?}");
    }
}

#[tokio::test]
async fn a_log_that_rotates_while_its_end_is_looked_for_is_told_also_when_nothing_follows() {
    let engine = FakeEngine::with(lines(3));
    // One for each rung, and one for the first again.
    engine.log().rotations = 5;
    let mut stream = engine.read(all(None), None, true);
    let events = tokio::time::timeout(Duration::from_secs(20), until_lines(&mut stream, 8)).await.unwrap();
    assert_eq!(texts(&events), ["0", "1", "2", "5", "4", "3", "2", "1"]);
    assert_eq!(gaps(&events), [GapReason::Rotated; 5]);
    engine.writes(at(2 * NOW, "new\n"));
    assert_eq!(texts(&until_lines(&mut stream, 1).await), ["new"]);
}

#[tokio::test]
async fn nobody_goes_ahead_of_a_source_that_is_behind() {
    let ((behind, first), (sender, second)) = (live(), live());
    let (_news, hears) = mpsc::channel(1);
    let mut stream = merge(vec![first, second], Some(hears), None, ());
    sender.send(Ok(Batch::Events(vec![other(NOW, "0"), other(NOW + 3, "3"), other(NOW + 5, "5")]))).await.unwrap();
    behind.send(Ok(Batch::Behind)).await.unwrap();
    let mut events = Vec::new();
    for number in [1, 2, 4] {
        let early = tokio::time::timeout(Duration::from_millis(60), stream.next()).await.ok();
        events.extend(early.into_iter().flatten().flat_map(Result::unwrap));
        assert!(texts(&events).iter().all(|text| text.parse::<i64>().unwrap() < number), "{events:?}");
        let event = other(NOW + number, &number.to_string());
        behind.send(Ok(Batch::Events(vec![event]))).await.unwrap();
    }
    behind.send(Ok(Batch::Live)).await.unwrap();
    events.extend(until_lines(&mut stream, 6 - texts(&events).len()).await);
    assert_eq!(texts(&events), ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn lines_are_in_order_after_a_client_has_paused() {
    const COUNT: i64 = 20_000;
    let engine = FakeEngine::with([at(NOW - SECOND, "first\n")]);
    let (sender, quiet) = live();
    let mut stream = engine.read_with(vec![quiet], all(None), None, true);
    until_lines(&mut stream, 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    engine.log().messages.extend(lines(COUNT));
    engine.bell.notify_waiters();
    let mut events = until_lines(&mut stream, 1).await;
    // Long enough for all between the two to be full.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let waiting = (COUNT / 2..COUNT).step_by(100).map(|number| other(NOW + number * SECOND + 1, "quiet"));
    let waiting: Vec<_> = waiting.collect();
    let count = usize::try_from(COUNT).unwrap() + waiting.len();
    sender.send(Ok(Batch::Events(waiting))).await.unwrap();
    events.extend(until_lines(&mut stream, count - texts(&events).len()).await);
    let times: Vec<_> = events
        .iter()
        .filter_map(|event| if let LogEvent::Line(line) = event { Some(line.time) } else { None })
        .collect();
    assert_eq!((times.len(), times.is_sorted()), (count, true));
    assert!(engine.log().asked > 4, "it was read {} times: nobody was behind", engine.log().asked);
}

//! What a client sees of a log stream, and when the reading ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::stream;
use tokio::sync::Semaphore;

use super::*;
use crate::backend::BackendError;

fn line(service: &str, text: &[u8]) -> LogLine {
    LogLine {
        time: Some("2026-11-21T08:00:00.5Z".parse().unwrap()),
        service: ServiceName::parse(service).unwrap(),
        number: 1,
        container: ContainerName::parse(&format!("q8-acme-{service}-1")).unwrap(),
        stream: LogStreamKind::Stdout,
        line: Bytes::copy_from_slice(text),
        partial: false,
    }
}

fn piece(service: &str, text: &str) -> LogLine {
    LogLine { partial: true, ..line(service, text.as_bytes()) }
}

fn start(lines: LogStream, format: Format, stop: &CancellationToken) -> (Body, Arc<Semaphore>) {
    let places = Arc::new(Semaphore::new(1));
    let place = Arc::clone(&places).try_acquire_owned().unwrap();
    let request_id = RequestId::parse("r-1").unwrap();
    (relay(lines, format, request_id, stop.clone(), place), places)
}

async fn whole(items: Vec<Result<LogLine, BackendError>>, format: Format) -> String {
    let (body, _) = start(stream::iter(items).boxed(), format, &CancellationToken::new());
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
    assert_eq!(
        lines,
        [
            serde_json::json!({ "time": time, "service": "web", "container": "q8-acme-web-1", "stream": "stdout",
                                "line": "a\n\"b\u{fffd}" }),
            serde_json::json!({ "time": time, "service": "db", "container": "q8-acme-db-1", "stream": "stdout",
                                "line": "x", "partial": true }),
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

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_shows_its_line_at_once() {
    let lines = stream::iter([Ok(line("web", b"first"))]).chain(stream::pending()).boxed();
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
        Ok(line("web", &[b'x'; 1000]))
    })
    .boxed()
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_holds_the_writer_back() {
    let taken = Arc::new(AtomicUsize::new(0));
    let (mut body, _) = start(endless(&taken), TEXT, &CancellationToken::new());
    tokio::time::sleep(Duration::from_mins(1)).await;
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
        stream::pending().inspect(move |_: &Result<LogLine, BackendError>| drop(held.clone())).boxed();
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

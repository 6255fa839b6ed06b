//! Log lines of a tenant's containers.
//!
//! The streams are read over a connection of their own instead of through bollard: its decoder holds a terminal's
//! output until a newline comes (bollard issue 805), so that a tenant could fill the agent's memory.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::demux::{Demux, Piece};
use super::engine::{Engine, EngineError};
use super::observe::Container;
use crate::backend::{BackendError, LogLine, LogQuery, LogStream, Tail};
use crate::domain::ContainerId;

/// Lines that were written at the same time by several containers come in the order of their timestamps if none of
/// them is later than this.
const REORDER: Duration = Duration::from_millis(20);
/// How long the first line of a log may take to come before the others go ahead.
const BEGINNING: Duration = Duration::from_millis(200);
/// Batches (one chunk of the engine's answer each) that may wait for a slow reader, for each container.
const WAITING_BATCHES: usize = 4;

/// Which part of one container's log.
pub(super) struct Window {
    tail: Tail,
    follow: bool,
    since: Option<jiff::Timestamp>,
    until: Option<jiff::Timestamp>,
}

impl Window {
    /// The last lines of what has been written so far.
    pub(super) fn last(lines: u32) -> Self {
        Self { tail: Tail::Lines(lines), follow: false, since: None, until: None }
    }

    fn query(&self) -> String {
        let mut query = format!("stdout=true&stderr=true&timestamps=true&follow={}", self.follow);
        if let Tail::Lines(lines) = self.tail {
            query.push_str(&format!("&tail={lines}"));
        }
        for (name, time) in [("since", self.since), ("until", self.until)] {
            if let Some(time) = time {
                query.push_str(&format!("&{name}={}.{:09}", time.as_second(), time.subsec_nanosecond().max(0)));
            }
        }
        query
    }
}

/// Reads one container's log. The stream ends with the log, or after an error.
pub(super) async fn read(
    engine: &Engine,
    id: &ContainerId,
    tty: bool,
    window: &Window,
) -> Result<BoxStream<'static, Result<Vec<Piece>, EngineError>>, EngineError> {
    let unreachable = |error: &dyn std::fmt::Display| EngineError::Unreachable(error.to_string());
    let socket = UnixStream::connect(engine.socket()).await.map_err(|error| unreachable(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(|error| unreachable(&error))?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "log connection ended");
        }
    }));
    let request = hyper::Request::get(format!("/containers/{id}/logs?{}", window.query()))
        .header("Host", "docker")
        .body(Empty::<Bytes>::new())
        .expect("a validated id and a query of numbers make a request");
    let answer = tokio::time::timeout(Duration::from_secs(20), sender.send_request(request))
        .await
        .map_err(|_| EngineError::Timeout)?
        .map_err(|error| unreachable(&error))?;
    match answer.status().as_u16() {
        200 => {}
        404 => return Err(EngineError::NotFound("container".to_owned())),
        status => return Err(EngineError::Refused { status, message: "logs".to_owned() }),
    }
    let state = (answer.into_body(), Some(Demux::new(tty)), connection, sender);
    Ok(stream::unfold(state, |(mut body, mut demux, connection, sender)| async move {
        loop {
            let mut pieces = Vec::new();
            let item = match body.frame().await {
                Some(Ok(frame)) => {
                    let chunk = frame.into_data().unwrap_or_default();
                    demux.as_mut()?.feed(&chunk, &mut pieces);
                    if pieces.is_empty() {
                        continue;
                    }
                    Ok(pieces)
                }
                Some(Err(error)) => {
                    demux = None;
                    Err(EngineError::Unreachable(error.to_string()))
                }
                None => {
                    demux.take()?.finish(&mut pieces);
                    Ok(pieces)
                }
            };
            return Some((item, (body, demux, connection, sender)));
        }
    })
    .boxed())
}

/// The lines of several containers, merged by time.
pub(super) async fn merged(
    engine: &Engine,
    containers: Vec<(Container, bool)>,
    query: &LogQuery,
) -> Result<LogStream, BackendError> {
    let window = Window { tail: query.tail, follow: query.follow, since: query.since, until: query.until };
    let mut sources = Vec::new();
    for (container, tty) in containers {
        match read(engine, &container.id, tty, &window).await {
            Ok(stream) => sources.push((container, stream)),
            // Removed between listing and reading.
            Err(EngineError::NotFound(_)) => {}
            Err(error) => return Err(error.into_backend("reading logs")),
        }
    }
    let lines = sources.into_iter().map(|(container, stream)| lines_of(container, stream)).collect();
    Ok(merge(lines, query.follow))
}

type Batches = Pin<Box<dyn Stream<Item = Result<Vec<LogLine>, BackendError>> + Send>>;

fn lines_of(container: Container, stream: BoxStream<'static, Result<Vec<Piece>, EngineError>>) -> Batches {
    let (service, number, name) = (container.service, container.number, container.name);
    Box::pin(stream.map(move |batch| {
        match batch {
            Ok(pieces) => Ok(pieces
                .into_iter()
                .map(|piece| LogLine {
                    time: piece.time,
                    service: service.clone(),
                    number,
                    container: name.clone(),
                    stream: piece.stream,
                    line: piece.line,
                    partial: piece.partial,
                })
                .collect()),
            Err(error) => Err(error.into_backend("reading logs")),
        }
    }))
}

/// Merges by time. Each source is read by a task of its own into a small channel, so that a slow reader holds the
/// engine back instead of filling memory. While following, a source that is silent is not waited for.
fn merge(mut sources: Vec<Batches>, follow: bool) -> LogStream {
    if sources.len() == 1 {
        let only = sources.remove(0);
        return only
            .flat_map(|batch| match batch {
                Ok(lines) => stream::iter(lines.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            })
            .boxed();
    }
    let (sender, mut receiver) = mpsc::channel(1);
    let merging = tokio::spawn(async move {
        let mut heads: Vec<Head> = sources.into_iter().map(Head::start).collect();
        let started = Instant::now();
        loop {
            let mut batch = Vec::new();
            let mut failure = None;
            while batch.len() < 256 {
                for head in &mut heads {
                    head.fill_from_waiting();
                }
                heads.retain(|head| head.next.is_some() || !head.ended);
                let complete = heads.iter().all(|head| head.next.is_some());
                let earliest = heads.iter_mut().filter(|head| head.next.is_some()).min_by_key(|head| head.time());
                let Some(head) = earliest else { break };
                if !(complete || follow && head.may_overtake(started)) {
                    break;
                }
                match head.take() {
                    Some(Ok(line)) => batch.push(line),
                    Some(Err(error)) => failure = Some(error),
                    None => {}
                }
                if failure.is_some() {
                    break;
                }
            }
            let idle = batch.is_empty() && failure.is_none();
            // A failed send means that the reader has gone.
            if !batch.is_empty() && sender.send(Ok(batch)).await.is_err() {
                return;
            }
            if let Some(error) = failure {
                let _ = sender.send(Err(error)).await;
                return;
            }
            if heads.is_empty() {
                return;
            }
            if idle {
                let reorder = follow && heads.iter().any(|head| head.next.is_some());
                let missing = heads.iter_mut().filter(|head| head.next.is_none()).map(|head| Box::pin(head.fill()));
                tokio::select! {
                    _ = futures::future::select_all(missing) => {}
                    () = tokio::time::sleep(REORDER), if reorder => {}
                }
            }
        }
    });
    let merging = AbortOnDropHandle::new(merging);
    stream::poll_fn(move |context| {
        let _alive = &merging;
        receiver.poll_recv(context)
    })
    .flat_map(|batch: Result<Vec<LogLine>, BackendError>| match batch {
        Ok(lines) => stream::iter(lines.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(error) => stream::iter(vec![Err(error)]),
    })
    .boxed()
}

/// One source of a merge: its next line, and how to get more.
struct Head {
    batches: mpsc::Receiver<Result<Vec<LogLine>, BackendError>>,
    current: std::vec::IntoIter<LogLine>,
    next: Option<Result<LogLine, BackendError>>,
    ended: bool,
    _reader: AbortOnDropHandle<()>,
}

impl Head {
    fn start(mut source: Batches) -> Self {
        let (sender, batches) = mpsc::channel(WAITING_BATCHES);
        let reader = tokio::spawn(async move {
            while let Some(batch) = source.next().await {
                if sender.send(batch).await.is_err() {
                    return;
                }
            }
        });
        let reader = AbortOnDropHandle::new(reader);
        Self { batches, current: Vec::new().into_iter(), next: None, ended: false, _reader: reader }
    }

    fn time(&self) -> Option<jiff::Timestamp> {
        match &self.next {
            Some(Ok(line)) => line.time,
            _ => None,
        }
    }

    /// Whether this source's next line need not wait any longer for a source that is silent: the line is old enough
    /// that an earlier one would have come, and every log has had time to begin.
    fn may_overtake(&self, started: Instant) -> bool {
        let age = self.time().map(|time| jiff::Timestamp::now().duration_since(time));
        let old = age.is_none_or(|age| Duration::try_from(age).is_ok_and(|age| age >= REORDER));
        old && started.elapsed() >= BEGINNING
    }

    /// Takes the next line if it has already come.
    fn fill_from_waiting(&mut self) {
        while self.next.is_none() && !self.ended {
            match self.batches.try_recv() {
                Ok(batch) => self.accept(Some(batch)),
                Err(mpsc::error::TryRecvError::Disconnected) => self.accept(None),
                Err(mpsc::error::TryRecvError::Empty) => return,
            }
        }
    }

    fn accept(&mut self, batch: Option<Result<Vec<LogLine>, BackendError>>) {
        match batch {
            Some(Ok(lines)) => {
                self.current = lines.into_iter();
                self.next = self.current.next().map(Ok);
            }
            Some(Err(error)) => self.next = Some(Err(error)),
            None => self.ended = true,
        }
    }

    fn take(&mut self) -> Option<Result<LogLine, BackendError>> {
        let taken = self.next.take();
        self.next = self.current.next().map(Ok);
        taken
    }

    /// Waits for this source's next line or its end. Cancelling it loses nothing.
    async fn fill(&mut self) {
        while self.next.is_none() && !self.ended {
            let batch = self.batches.recv().await;
            self.accept(batch);
        }
    }
}

/// Which containers of these have a terminal.
pub(super) async fn with_tty(
    engine: &Engine,
    containers: Vec<Container>,
) -> Result<Vec<(Container, bool)>, EngineError> {
    let ttys = futures::future::join_all(containers.iter().map(|container| engine.inspect(&container.id))).await;
    let mut known: HashMap<usize, bool> = HashMap::new();
    for (index, inspected) in ttys.into_iter().enumerate() {
        match inspected {
            Ok(details) => {
                known.insert(index, details.config.and_then(|config| config.tty).unwrap_or(false));
            }
            Err(EngineError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(containers
        .into_iter()
        .enumerate()
        .filter_map(|(index, container)| known.get(&index).map(|tty| (container, *tty)))
        .collect())
}

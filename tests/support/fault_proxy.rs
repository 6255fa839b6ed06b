//! A proxy in front of an engine that disturbs chosen calls.
//!
//! The agent makes a connection for each call, so a connection is a call: its head is read, and then it is either passed on
//! byte by byte (streams and upgraded connections too) or goes wrong in one of the ways that a call can go wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Refused with this status; the engine hears nothing of it.
    Status(u16),
    /// The connection is closed; the engine hears nothing of it.
    ResetBefore,
    /// The engine does it, and its answer is lost.
    ResetAfter,
    /// The engine does it, and half of its answer arrives.
    Truncated,
    /// It takes two seconds longer.
    Slow,
    /// It waits until nothing is disturbed any more ([`FaultProxy::calm`]).
    Hold,
    /// The engine hears nothing of it and the connection stays open without a word.
    Hang,
    /// The engine does it, and the connection stays open without a word.
    HangAfter,
}

/// Which call: the method, the path with `*` for ids and names, and the how-manieth of them (each, if none).
#[derive(Clone)]
pub(crate) struct Rule {
    pub(crate) call: String,
    pub(crate) number: Option<u32>,
    pub(crate) fault: Fault,
}

#[derive(Default)]
struct State {
    rule: Option<Rule>,
    /// Calls that change something since the last look, in their order.
    heard: Vec<String>,
    counts: BTreeMap<String, u32>,
    hits: u32,
    /// A container that cannot be inspected.
    wedged: Option<(String, Fault)>,
    /// Whoever waits for its end is held.
    holding: watch::Sender<()>,
}

impl State {
    fn fault_for(&mut self, head: &str) -> Option<Fault> {
        if let Some((container, fault)) = &self.wedged
            && head.starts_with("GET ")
            && head.contains(&format!("/containers/{container}/json"))
        {
            return Some(*fault);
        }
        let name = name_of(head)?;
        let count = self.counts.entry(name.clone()).or_default();
        *count += 1;
        let count = *count;
        self.heard.push(name.clone());
        let fault =
            self.rule.as_ref().filter(|rule| rule.call == name && rule.number.is_none_or(|number| number == count));
        let fault = fault.map(|rule| rule.fault);
        self.hits += u32::from(fault.is_some());
        fault
    }
}

/// A running proxy. Dropping it ends it and all calls through it.
pub(crate) struct FaultProxy {
    engine: PathBuf,
    place: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

impl FaultProxy {
    /// A proxy in front of the engine at this socket.
    pub(crate) fn before(engine: &Path) -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let state = Arc::new(Mutex::new(State::default()));
        let task = listen(&place.path().join("docker.sock"), engine.to_owned(), Arc::clone(&state));
        Self { engine: engine.to_owned(), place, state, task }
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("docker.sock")
    }

    /// Ends all calls, streams too. Nobody listens any more, as if the engine had ended, until [`FaultProxy::put_back`].
    pub(crate) async fn cut_off(&mut self) {
        self.task.abort();
        // It has been aborted, which is an error of its own.
        drop((&mut self.task).await);
    }

    /// Lets calls through again after [`FaultProxy::cut_off`].
    pub(crate) fn put_back(&mut self) {
        std::fs::remove_file(self.socket()).expect("the old socket");
        self.task = listen(&self.socket(), self.engine.clone(), Arc::clone(&self.state));
    }

    /// The value of `DOCKER_HOST` that leads through it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Disturbs a call from now on; forgets what was disturbed before.
    pub(crate) fn disturb(&self, rule: Rule) {
        *self.state() = State { rule: Some(rule), ..State::default() };
    }

    /// From now on no look at this container succeeds, whatever else is disturbed.
    pub(crate) fn wedge(&self, container: &str, fault: Fault) {
        self.state().wedged = Some((container.to_owned(), fault));
    }

    /// Disturbs nothing any more, and lets go what is held; gives how many calls were disturbed.
    pub(crate) fn calm(&self) -> u32 {
        std::mem::take(&mut *self.state()).hits
    }

    /// How many calls have been disturbed.
    pub(crate) fn hits(&self) -> u32 {
        self.state().hits
    }

    /// The calls that change something, since the last look.
    pub(crate) fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.state()).heard
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen(socket: &Path, engine: PathBuf, state: Arc<Mutex<State>>) -> tokio::task::JoinHandle<()> {
    let listener = UnixListener::bind(socket).expect("a socket");
    tokio::spawn(async move {
        let mut calls = tokio::task::JoinSet::new();
        while let Ok((agent, _)) = listener.accept().await {
            calls.spawn(call(agent, engine.clone(), Arc::clone(&state)));
            while calls.try_join_next().is_some() {}
        }
    })
}

/// `POST /containers/4711/start?t=1` as `POST /containers/*/start`; none for what only reads.
fn name_of(head: &str) -> Option<String> {
    let mut words = head.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    if !["POST", "PUT", "DELETE"].contains(&method) {
        return None;
    }
    let path = target.split('?').next()?;
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let parts: Vec<&str> = match parts.as_slice() {
        [version, rest @ ..] if version.starts_with("v1.") => rest.to_vec(),
        all => all.to_vec(),
    };
    let generic = parts.iter().enumerate().map(|(at, part)| if at == 1 && *part != "create" { "*" } else { part });
    Some(format!("{method} /{}", generic.collect::<Vec<_>>().join("/")))
}

/// One call from its beginning to its end. Whatever breaks on the way ends it, which is what a proxy can do.
async fn call(mut agent: UnixStream, engine: PathBuf, state: Arc<Mutex<State>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = agent.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..count]);
    }
    let (fault, mut release) = fault_for(&head, &state);
    if let Some(Fault::Status(status)) = fault {
        let body = r#"{"message":"this was made up"}"#;
        let answer = format!(
            "HTTP/1.1 {status} Made Up\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        agent.write_all(answer.as_bytes()).await?;
        agent.shutdown().await?;
        // What it still sends is taken, so that it is the answer that it sees and not a reset.
        while agent.read(&mut buffer).await? > 0 {}
        return Ok(());
    }
    match fault {
        Some(Fault::ResetBefore) => return Ok(()),
        Some(Fault::Hang) => {
            while agent.read(&mut buffer).await? > 0 {}
            return Ok(());
        }
        Some(Fault::Slow) => tokio::time::sleep(Duration::from_secs(2)).await,
        // It goes on when the sender goes, with the state that it is a part of.
        Some(Fault::Hold) => drop(release.changed().await),
        _ => {}
    }
    let mut engine = UnixStream::connect(engine).await?;
    engine.write_all(&head).await?;
    if matches!(fault, None | Some(Fault::Slow | Fault::Hold)) {
        tokio::io::copy_bidirectional(&mut agent, &mut engine).await?;
        return Ok(());
    }
    // The rest of the request goes on while the answer is waited for; its first bytes say that the engine has done it.
    let answer = {
        let mut answer = vec![0; 64 << 10];
        let (mut from_agent, _) = agent.split();
        let (mut from_engine, mut to_engine) = engine.split();
        let passing = async {
            tokio::io::copy(&mut from_agent, &mut to_engine).await?;
            // It may have said all; the answer is still to come.
            std::future::pending::<std::io::Result<usize>>().await
        };
        let count = tokio::select! {
            failed = passing => failed?,
            count = from_engine.read(&mut answer) => count?,
        };
        answer.truncate(count);
        answer
    };
    match fault {
        Some(Fault::Truncated) => agent.write_all(&answer[..answer.len() / 2]).await?,
        Some(Fault::HangAfter) => while agent.read(&mut buffer).await? > 0 {},
        _ => {}
    }
    Ok(())
}

/// What happens to a call, and what it waits for if it is held.
fn fault_for(head: &[u8], state: &Mutex<State>) -> (Option<Fault>, watch::Receiver<()>) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    (state.fault_for(&String::from_utf8_lossy(head)), state.holding.subscribe())
}

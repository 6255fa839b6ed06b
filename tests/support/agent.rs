//! The real agent as a process: its own tenants root, port and token.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::Value;
use tempfile::TempDir;

use super::engine::Engine;
use super::http::{self, Answer, Failure, Lines};
use super::openapi;
use super::traces::canaries_in;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_q8-agent");

/// The binary that is run. The benchmarks are given the agent as it is shipped; beside tests Cargo builds one with more features
/// of its crates.
pub(crate) fn binary() -> String {
    std::env::var("Q8_AGENT_BINARY").unwrap_or_else(|_| BINARY.to_owned())
}

/// Longest wait for an answer that is not a stream.
const LIMIT: Duration = Duration::from_secs(120);

/// Where this process' agents get their subnets: another test run's engine may share this machine's routes, and two bridges
/// with one subnet do not work.
pub(crate) fn subnet_pool() -> String {
    format!("10.{}.0.0/16", 193 + std::process::id() % 16)
}

/// How an agent is to be started.
pub(crate) struct Options<'e> {
    engine: Option<&'e Engine>,
    env: BTreeMap<String, OsString>,
    policy: Option<String>,
    files: Option<u64>,
}

impl<'e> Options<'e> {
    /// An agent on an engine.
    pub(crate) fn docker(engine: &'e Engine) -> Self {
        Self { engine: Some(engine), env: BTreeMap::new(), policy: None, files: None }
    }

    /// An agent on the in-memory backend.
    pub(crate) fn memory() -> Self {
        Options { engine: None, env: BTreeMap::new(), policy: None, files: None }.env("Q8_AGENT_BACKEND", "memory")
    }

    /// Sets a variable; later ones win over the harness' own.
    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.insert(String::from(name), value.into());
        self
    }

    /// Sets a policy file with this text.
    #[must_use]
    pub(crate) fn policy(mut self, text: &str) -> Self {
        self.policy = Some(text.to_owned());
        self
    }

    /// Sets the most descriptors that it may have (`ulimit -n`).
    #[must_use]
    pub(crate) fn files(self, most: u64) -> Self {
        Self { files: Some(most), ..self }
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(self) -> Agent<'e> {
        let agent = self.spawn();
        agent.ready().await
    }

    /// Starts it without waiting.
    pub(crate) fn spawn(mut self) -> Agent<'e> {
        let root = tempfile::Builder::new().prefix("q8-tenants-").tempdir().expect("a temporary directory");
        if let Some(text) = &self.policy {
            let file = root.path().join("policy.toml");
            std::fs::write(&file, text).expect("a policy file");
            self.env.insert(String::from("Q8_AGENT_POLICY"), file.into());
        }
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let log = root.path().join("agent.log");
        let mut agent = Agent {
            engine: self.engine,
            env: self.env,
            files: self.files,
            home: root,
            token,
            address,
            log,
            child: None,
            identity: None,
        };
        agent.launch();
        agent
    }
}

/// A started agent. Dropping it kills it, removes everything that carries its label from the engine, and fails the test
/// when its token or a canary is in its log.
pub(crate) struct Agent<'e> {
    engine: Option<&'e Engine>,
    env: BTreeMap<String, OsString>,
    files: Option<u64>,
    home: TempDir,
    token: String,
    address: SocketAddr,
    log: PathBuf,
    child: Option<Child>,
    identity: Option<String>,
}

impl Agent<'_> {
    fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("the agent's log");
        let binary = binary();
        let mut command = match self.files {
            None => Command::new(&binary),
            Some(files) => {
                let mut limited = Command::new("bash");
                limited.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\""), &binary]);
                limited
            }
        };
        // Nothing of the test's own environment but what a service would have.
        command.arg("serve").env_clear().env("PATH", "/usr/bin:/bin").env("RUST_BACKTRACE", "1");
        command
            .env("Q8_AGENT_HOST", self.address.ip().to_string())
            .env("Q8_AGENT_PORT", self.address.port().to_string());
        command.env("Q8_AGENT_ADMIN_TOKEN", &self.token).env("Q8_AGENT_TENANTS_ROOT", self.root());
        if let Some(engine) = self.engine {
            command.env("DOCKER_HOST", engine.host());
            command.env("Q8_AGENT_SUBNET_POOL", subnet_pool());
        }
        // The whole suite is a test that no secret is logged, so everything is.
        command.env("Q8_AGENT_LOG", "trace").envs(&self.env);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{binary} does not start: {error}")));
    }

    async fn ready(mut self) -> Self {
        self.wait_ready(Duration::from_secs(30)).await;
        self
    }

    /// Waits until `/ready` answers 200; fails with the agent's log if it does not, or if the agent ends.
    pub(crate) async fn wait_ready(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            if let Ok(answer) = self.try_request(Method::GET, "/ready", &[], "").await
                && answer.status == 200
            {
                break;
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("the agent can be waited for"));
            assert!(ended.is_none(), "the agent ended ({}):\n{}", ended.expect("just seen"), self.log());
            assert!(Instant::now() < end, "the agent is not ready within {limit:?}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if self.identity.is_none() {
            let info = self.get("/v1/system/info").await.expect(200);
            self.identity = info["agent"].as_str().map(String::from);
        }
    }

    /// The tenants root.
    pub(crate) fn root(&self) -> PathBuf {
        self.home.path().join("tenants")
    }

    /// A directory of the test's own, beside the tenants root.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bearer token that it takes.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Its id, as in the label `dev.q8.agent`.
    pub(crate) fn identity(&self) -> &str {
        self.identity.as_deref().expect("an agent that has been ready has said its id")
    }

    /// The label by which its objects are found on the engine.
    pub(crate) fn label(&self) -> String {
        format!("dev.q8.agent={}", self.identity())
    }

    /// Everything it has written.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the agent runs").id()
    }

    /// Kills it, as a crash or the kernel would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub(crate) async fn terminate(&mut self, limit: Duration) -> ExitStatus {
        let mut child = self.child.take().expect("the agent runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the agent can be signalled");
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait().expect("the agent can be waited for") {
                return status;
            }
            if Instant::now() >= end {
                drop(child.kill());
                drop(child.wait());
                panic!("the agent did not end within {limit:?} of SIGTERM:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for it to end by itself, as it must when its settings are wrong.
    pub(crate) async fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.as_mut().expect("the agent runs").try_wait().expect("it can be waited for")
            {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < end, "the agent still runs after {limit:?}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How it ended by itself, if it has.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("the agent can be waited for")?;
        self.child = None;
        Some(status)
    }

    /// Starts it again on the same root and address after it has ended, and waits until it is ready.
    pub(crate) async fn start_again(&mut self) {
        self.start_again_without_waiting();
        self.wait_ready(Duration::from_secs(30)).await;
    }

    /// Starts it again on the same root and address.
    pub(crate) fn start_again_without_waiting(&mut self) {
        assert!(self.child.is_none(), "the agent still runs");
        self.launch();
    }

    /// Changes a variable for the next start.
    pub(crate) fn set_env(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.insert(String::from(name), value.into());
    }

    /// `GET path` with the token.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], "").await
    }

    /// `POST path` with the token and a JSON body (none for null).
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let (headers, text) = match body {
            Value::Null => (&[][..], String::new()),
            body => (&[("content-type", "application/json")][..], body.to_string()),
        };
        self.request(Method::POST, path, headers, text).await
    }

    /// Any request with the token; an `authorization` among the headers replaces it.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Answer {
        let answer = self.try_request(method, path, headers, body).await;
        answer.unwrap_or_else(|failure| panic!("{path}: {failure}\n{}", self.log()))
    }

    /// The same, where not getting an answer is no failure of the test.
    pub(crate) async fn try_request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Result<Answer, Failure> {
        let authorization = format!("Bearer {}", self.token);
        let mut all = headers.to_vec();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
            all.push(("authorization", &authorization));
        }
        let answer = tokio::time::timeout(LIMIT, async {
            http::complete(http::send(self.address, method.clone(), path, &all, body).await?).await
        });
        let answer = answer.await.unwrap_or_else(|_| panic!("{path}: no answer within {LIMIT:?}\n{}", self.log()));
        if let Ok(answer) = &answer {
            openapi::check(&method, path, answer);
        }
        answer
    }

    /// A `GET` whose answer goes on, such as logs with `follow=true`. Dropping it hangs up.
    pub(crate) async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Lines {
        let authorization = format!("Bearer {}", self.token);
        let mut all = headers.to_vec();
        all.push(("authorization", &authorization));
        let response = http::send(self.address, Method::GET, path, &all, "").await;
        let response = response.unwrap_or_else(|failure| panic!("{path}: {failure}\n{}", self.log()));
        if response.status() != 200 {
            let answer = http::complete(response).await.expect("a refusal has a body");
            panic!("{path}: {} {}", answer.status, answer.text());
        }
        Lines::new(path, response)
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // Shown by the test runner beside the failure.
            #[allow(clippy::print_stderr, reason = "a test's output")]
            {
                eprintln!("--- log of the agent\n{}", self.log());
            }
        }
        self.tidy();
        if !std::thread::panicking() {
            let found = canaries_in(&self.log(), &[&self.token]);
            assert!(found.is_empty(), "secrets are in the agent's log: {found:#?}");
        }
    }
}

impl Agent<'_> {
    fn tidy(&self) {
        let (Some(engine), Some(identity)) = (self.engine, self.identity.as_deref()) else { return };
        let label = format!("dev.q8.agent={identity}");
        // The test's own runtime may be the one that is being dropped.
        std::thread::scope(|scope| {
            let tidy = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                if let Ok(runtime) = runtime {
                    let work = engine.remove_labelled(&label);
                    drop(runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), work).await }));
                }
            });
            drop(tidy.join());
        });
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it has an address").port()
}

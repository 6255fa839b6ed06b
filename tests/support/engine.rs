//! A Docker Engine for the tests: the one that `DOCKER_HOST` names, else a private one that ends with the tests.
//!
//! A test that needs an engine and cannot have one fails; none is skipped.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bollard::errors::Error;
use bollard::query_parameters::{
    InspectNetworkOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/engine.sh");

/// A running engine. Private ones end, with everything in them, when the value is dropped or the process dies.
pub(crate) struct Engine {
    socket: PathBuf,
    directory: Option<PathBuf>,
    watchdog: Option<Watchdog>,
    /// The networks that it has been found to miscount; only its restart corrects that.
    miscounted: Mutex<BTreeSet<String>>,
}

impl Engine {
    /// The engine that all tests of a run use side by side: `DOCKER_HOST` if it is set (`make test` sets it), else a
    /// private one that the test processes of this checkout share; the last of them to end stops it.
    ///
    /// Tests on it leave nothing behind and assume nothing about what else is there.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Engine> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("DOCKER_HOST") {
            Ok(host) if !host.is_empty() => {
                let path = host.strip_prefix("unix://");
                let path = path.unwrap_or_else(|| panic!("DOCKER_HOST must be unix://…, not {host}"));
                Self::at(PathBuf::from(path), None, None)
            }
            _ => {
                let directory = std::env::temp_dir().join(format!("q8-test-{:08x}", hash(env!("CARGO_MANIFEST_DIR"))));
                let watchdog = Watchdog::sharing(&directory);
                script("start", &directory, "host");
                Self::at(directory.join("docker.sock"), Some(directory), Some(watchdog))
            }
        })
    }

    /// An engine of this test alone, for tests that restart or kill it. Its network is its own: ports published on it
    /// cannot be reached from the test, and subnets clash with nobody's.
    pub(crate) fn own() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("q8-own-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        let watchdog = Watchdog::alone(&directory);
        script("start", &directory, "own");
        Self::at(directory.join("docker.sock"), Some(directory), Some(watchdog))
    }

    fn at(socket: PathBuf, directory: Option<PathBuf>, watchdog: Option<Watchdog>) -> Self {
        Self { socket, directory, watchdog, miscounted: Mutex::default() }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The value of `DOCKER_HOST` that leads here.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// A client of its own: connections belong to the runtime that made them, and every test has its own runtime.
    pub(crate) fn docker(&self) -> Docker {
        let path = self.socket.to_str().expect("the engine's path is text");
        Docker::connect_with_unix(path, 120, API_DEFAULT_VERSION)
            .unwrap_or_else(|error| panic!("no client for the engine at {path}: {error}"))
    }

    /// Ends dockerd as an administrator would and starts it again on the same data. Containers that ignore SIGTERM
    /// make this take 10 seconds.
    pub(crate) fn restart(&self) {
        script("restart", self.private(), "own");
        self.known_miscounts().clear();
    }

    /// Kills dockerd: nothing answers until [`Engine::start`]. The containers' processes live on.
    pub(crate) fn kill(&self) {
        script("kill", self.private(), "own");
    }

    /// Starts it again after [`Engine::kill`].
    pub(crate) fn start(&self) {
        script("start", self.private(), "own");
        self.known_miscounts().clear();
    }

    /// Stops dockerd in its tracks (SIGSTOP): it takes connections and never answers, until [`Engine::thaw`].
    pub(crate) fn freeze(&self) {
        script("freeze", self.private(), "own");
    }

    /// Lets it go on after [`Engine::freeze`].
    pub(crate) fn thaw(&self) {
        script("thaw", self.private(), "own");
    }

    /// The directory of a private engine.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    fn private(&self) -> &Path {
        let own = self.watchdog.as_ref().filter(|watchdog| watchdog.alone);
        assert!(own.is_some(), "only an engine from Engine::own() may be disturbed");
        self.directory.as_deref().expect("an own engine has a directory")
    }

    /// Names of everything (containers, networks, volumes) that carries a label, for "nothing is left" checks.
    pub(crate) async fn labelled(&self, label: &str) -> Vec<String> {
        let docker = self.docker();
        let filters = HashMap::from([("label", vec![label])]);
        let containers = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers = docker.list_containers(Some(containers)).await.expect("the engine lists containers");
        let networks = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let networks = docker.list_networks(Some(networks)).await.expect("the engine lists networks");
        let volumes = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let volumes = docker.list_volumes(Some(volumes)).await.expect("the engine lists volumes");
        let mut names: Vec<String> = Vec::new();
        names.extend(containers.into_iter().filter_map(|found| found.names?.into_iter().next()));
        names.extend(networks.into_iter().filter_map(|found| found.name));
        names.extend(volumes.volumes.unwrap_or_default().into_iter().map(|found| found.name));
        names
    }

    /// Those of these networks that the engine miscounts: nothing is on them, and it refuses to remove them. Before 28.1 it
    /// keeps the count of a network's endpoints apart from them, and containers that start and stop at once may leave it too
    /// high until the engine is restarted (moby/moby#42119).
    ///
    /// There is no other way to know than to try: what nothing is on and can be removed is gone afterwards. So name those
    /// only that should not be there; and who is to answer for one that went is not asked here.
    pub(crate) async fn miscounted(&self, networks: &[String]) -> Vec<String> {
        let docker = self.docker();
        let mut refused = Vec::new();
        for name in networks {
            let Ok(found) = docker.inspect_network(name, None::<InspectNetworkOptions>).await else { continue };
            if !found.containers.unwrap_or_default().is_empty() {
                continue;
            }
            let removed = docker.remove_network(name).await;
            if matches!(removed, Err(Error::DockerResponseServerError { status_code: 403, .. })) {
                refused.push(name.clone());
            }
        }
        self.known_miscounts().extend(refused.iter().cloned());
        refused
    }

    /// What carries a label when no network should, except networks that the engine miscounts.
    pub(crate) async fn left(&self, label: &str) -> Vec<String> {
        let mut left = self.labelled(label).await;
        left.retain(|name| !self.is_miscounted(name));
        let miscounted = self.miscounted(&left).await;
        left.retain(|name| !miscounted.contains(name));
        left
    }

    /// Whether this network has been found to be miscounted before; it is until the engine is restarted.
    pub(crate) fn is_miscounted(&self, network: &str) -> bool {
        self.known_miscounts().contains(network)
    }

    fn known_miscounts(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.miscounted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes everything that carries a label, as far as that is possible.
    pub(crate) async fn remove_labelled(&self, label: &str) {
        let docker = self.docker();
        let filters = HashMap::from([("label", vec![label])]);
        let list = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        for id in docker.list_containers(Some(list)).await.into_iter().flatten().filter_map(|found| found.id) {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            drop(docker.remove_container(&id, Some(options)).await);
        }
        let list = ListNetworksOptionsBuilder::new().filters(&filters).build();
        for id in docker.list_networks(Some(list)).await.into_iter().flatten().filter_map(|found| found.id) {
            drop(docker.remove_network(&id).await);
        }
        let list = ListVolumesOptionsBuilder::new().filters(&filters).build();
        for volume in docker.list_volumes(Some(list)).await.into_iter().filter_map(|found| found.volumes).flatten() {
            drop(docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await);
        }
    }
}

/// Runs `scripts/engine.sh`; fails the test with its words if it fails.
pub(super) fn script(command: &str, directory: &Path, network: &str) {
    let output = Command::new("bash")
        .args([SCRIPT, command])
        .arg(directory)
        .env("Q8_ENGINE_NETWORK", network)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("bash is needed for {SCRIPT}: {error}"));
    assert!(
        output.status.success(),
        "this test needs a Docker Engine and {SCRIPT} {command} failed (set DOCKER_HOST=unix://… to use another):\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A shell that waits for the end of its input, which comes when this process ends in whatever way, and then stops the
/// engine. A static is never dropped and a killed process drops nothing, so nobody else could.
struct Watchdog {
    child: Child,
    alone: bool,
}

impl Watchdog {
    fn alone(directory: &Path) -> Self {
        Self::spawn("echo ready; cat >/dev/null; exec bash \"$1\" stop \"$2\"", directory, true)
    }

    /// Each process holds a shared lock; who can turn it into an exclusive one is the last and stops the engine.
    fn sharing(directory: &Path) -> Self {
        let text = "exec 8>\"$3\"; flock -s 8; echo ready; cat >/dev/null; flock -u 8; flock -x -n 8 || exit 0; \
                    exec bash \"$1\" stop \"$2\" 8>&8";
        Self::spawn(text, directory, false)
    }

    fn spawn(text: &str, directory: &Path, alone: bool) -> Self {
        let mut child = Command::new("bash")
            // An interrupt from the keyboard goes to the whole foreground group; the watchdog must outlive it.
            .args(["-c", &format!("trap '' INT TERM HUP; {text}"), "watchdog", SCRIPT])
            .args([directory, &Path::new(env!("CARGO_TARGET_TMPDIR")).join("engine.users")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("the engine's watchdog does not start: {error}"));
        let mut ready = [0; 6];
        let mut output = child.stdout.take().expect("it was piped");
        output.read_exact(&mut ready).unwrap_or_else(|error| panic!("the engine's watchdog says nothing: {error}"));
        Self { child, alone }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(mut input) = self.child.stdin.take() {
            drop(input.flush());
        }
        drop(self.child.wait());
    }
}

/// FNV-1a: two checkouts on one machine get two engines.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

//! A real registry: `docker-registry` on a port of 127.0.0.1, where engines need no TLS, and images pushed into it.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::query_parameters::{
    ListImagesOptionsBuilder, PushImageOptionsBuilder, RemoveImageOptions, RemoveImageOptionsBuilder,
    TagImageOptionsBuilder,
};
use futures::StreamExt as _;
use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::engine::{Engine, script};
use super::http;
use super::images::{Extra, busybox_root};
use super::{eventually, unique};

/// Who may enter a registry from [`Registry::private`].
pub(crate) const USER: &str = "q8";
/// A word that is nowhere else, so that traces of it are found.
pub(crate) const PASSWORD: &str = "canary-of-the-registry-4711";
/// That user and password as a line of a htpasswd file (bcrypt, cheap).
const HTPASSWD: &str = "q8:$2y$04$c8Xl1ZqOq2nUeM3pQ7rTaeTW8xX78N2PBWBC42QK5WOLnNHP1KZtu\n";

/// A registry. Dropping it ends it and removes its images from the engine.
pub(crate) struct Registry {
    engine: &'static Engine,
    home: TempDir,
    private: bool,
    port: u16,
    child: Option<Child>,
}

impl Registry {
    /// A registry that lets everybody in, for the engine that all tests share.
    pub(crate) async fn public() -> Self {
        Self::open(false).await
    }

    /// A registry for [`USER`] with [`PASSWORD`].
    pub(crate) async fn private() -> Self {
        Self::open(true).await
    }

    async fn open(private: bool) -> Self {
        static INSTALL: Once = Once::new();
        // Only if it is missing: this needs root and a network.
        INSTALL.call_once(|| {
            if Command::new("docker-registry").arg("--version").output().is_err() {
                script("install", &std::env::temp_dir(), "host");
            }
        });
        let home = tempfile::Builder::new().prefix("q8-registry-").tempdir().expect("a temporary directory");
        let mut registry = Self { engine: Engine::shared(), home, private, port: 0, child: None };
        registry.back().await;
        registry
    }

    /// Its address as images name it.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// An image in it, such as `web:1`, as Compose files name it.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address())
    }

    /// Everything that it has written, the access log included.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// How often an engine has asked what this tag stands for. That is the first thing in each pull, and in nothing else.
    pub(crate) fn pulls(&self, name: &str) -> usize {
        let (repository, tag) = name.split_once(':').expect("test images have a tag");
        let path = format!(" /v2/{repository}/manifests/{tag} ");
        let asks = |line: &&str| line.contains(&path) && line.contains("docker/") && !line.contains("\"PUT ");
        self.log().lines().filter(asks).count()
    }

    /// Puts an image into it: busybox with `/version` saying this. The engine forgets the image, so that to have it is to
    /// pull it; a tag that is there is moved, and the engine does not know.
    pub(crate) async fn publish(&self, name: &str, version: &str) {
        let (repository, tag) = name.split_once(':').expect("test images have a tag");
        // Another name of the same host: what the engine knows under the address is left alone.
        let pushed = format!("localhost:{}/{repository}", self.port);
        let made = format!("q8test/{}:{tag}", unique("pushed"));
        let content = format!("{version}\n");
        let extra = Extra { path: "version", content: content.as_bytes(), mode: 0o644 };
        self.engine.import(&made, busybox_root(&[extra]), &[]).await;
        let docker = self.engine.docker();
        let options = TagImageOptionsBuilder::new().repo(&pushed).tag(tag).build();
        docker.tag_image(&made, Some(options)).await.expect("an image can be tagged");
        let credentials = self.private.then(|| DockerCredentials {
            username: Some(USER.to_owned()),
            password: Some(PASSWORD.to_owned()),
            ..DockerCredentials::default()
        });
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let mut progress = std::pin::pin!(docker.push_image(&pushed, Some(options), credentials));
        while let Some(line) = progress.next().await {
            line.unwrap_or_else(|error| panic!("{pushed}:{tag} cannot be pushed: {error}\n{}", self.log()));
        }
        for reference in [made, format!("{pushed}:{tag}")] {
            let removed = docker.remove_image(&reference, None::<RemoveImageOptions>, None).await;
            removed.unwrap_or_else(|error| panic!("{reference} cannot be removed: {error}"));
        }
    }

    /// Makes the engine forget an image that nothing runs.
    pub(crate) async fn forget(&self, name: &str) {
        let removed = self.engine.docker().remove_image(&self.image(name), None::<RemoveImageOptions>, None).await;
        removed.unwrap_or_else(|error| panic!("{name} cannot be removed: {error}"));
    }

    /// Ends it: nobody listens there any more.
    pub(crate) fn away(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Starts it, at its old address if it had one.
    pub(crate) async fn back(&mut self) {
        let path = self.home.path();
        let auth = if self.private {
            let users = path.join("users");
            std::fs::write(&users, HTPASSWD).expect("the users' file");
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display())
        } else {
            String::new()
        };
        let settings = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:{}\"}}\n{auth}",
            path.join("storage").display(),
            self.port
        );
        let file = path.join("settings.yml");
        std::fs::write(&file, settings).expect("the registry's settings");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the registry's log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("docker-registry does not start: {error}")));
        // Without a port it takes a free one and says which.
        self.port = eventually("the registry listens", Duration::from_secs(20), async || {
            let log = self.log();
            let (_, said) = log.rsplit_once("listening on 127.0.0.1:")?;
            said.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        })
        .await;
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        eventually("the registry answers", Duration::from_secs(20), async || {
            http::send(address, Method::GET, "/v2/", &[], "").await.ok()
        })
        .await;
    }

    /// Stops it in its tracks (SIGSTOP): it takes connections and never answers, until [`Registry::thaw`].
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Registry::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().expect("the registry runs"));
        kill_process(pid, signal).expect("the registry can be signalled");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.away();
        let work = async {
            let docker = self.engine.docker();
            let reference = format!("{}/*", self.address());
            let filters = HashMap::from([("reference", vec![reference.as_str()])]);
            let list = ListImagesOptionsBuilder::new().filters(&filters).build();
            for image in docker.list_images(Some(list)).await.into_iter().flatten() {
                let options = RemoveImageOptionsBuilder::new().force(true).build();
                drop(docker.remove_image(&image.id, Some(options), None).await);
            }
        };
        // The test's own runtime may be the one that is being dropped.
        std::thread::scope(|scope| {
            let tidy = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                if let Ok(runtime) = runtime {
                    drop(runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), work).await }));
                }
            });
            drop(tidy.join());
        });
    }
}

/// A registry that lets nobody in; gives its address and what it was asked.
pub(crate) async fn refusing() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let heard = Arc::new(Mutex::new(String::new()));
    let ears = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let ears = Arc::clone(&ears);
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = connection.read(&mut buffer).await {
                    ears.lock().expect("no panic").push_str(&String::from_utf8_lossy(&buffer[..length]));
                    let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"\r\n\
                                  Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
                    if connection.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, heard)
}

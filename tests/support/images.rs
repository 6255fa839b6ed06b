//! Images made from the static busybox: no test needs the internet.

use std::process::Command;
use std::sync::OnceLock;

use bollard::body_full;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;

use super::engine::Engine;

/// busybox with its applets. In a shell call `/bin/wget`, because the shell prefers its own, which crashes.
pub(crate) const BUSYBOX: &str = "q8test/busybox:1";
/// The same with one file more, `/version`, to have something to update to.
pub(crate) const BUSYBOX_2: &str = "q8test/busybox:2";

/// A file that an image gets on top of busybox.
pub(crate) struct Extra<'a> {
    /// Without the leading slash.
    pub(crate) path: &'a str,
    pub(crate) content: &'a [u8],
    pub(crate) mode: u32,
}

impl Engine {
    /// Makes [`BUSYBOX`] and [`BUSYBOX_2`] available.
    pub(crate) async fn with_busybox(&self) -> &Self {
        let docker = self.docker();
        for (reference, extra) in
            [(BUSYBOX, &[][..]), (BUSYBOX_2, &[Extra { path: "version", content: b"2\n", mode: 0o644 }])]
        {
            if docker.inspect_image(reference).await.is_err() {
                self.import(reference, busybox_root(extra), &[]).await;
            }
        }
        self
    }

    /// Makes an image from a root file system (tar). `changes` are Dockerfile instructions such as `CMD ["sleep"]`.
    pub(crate) async fn import(&self, reference: &str, root: Vec<u8>, changes: &[&str]) {
        let (repository, tag) = reference.split_once(':').expect("test images have a tag");
        let options = CreateImageOptionsBuilder::new()
            .from_src("-")
            .repo(repository)
            .tag(tag)
            .changes(changes.iter().map(ToString::to_string).collect())
            .build();
        let docker = self.docker();
        let mut answers = std::pin::pin!(docker.create_image(Some(options), Some(body_full(root.into())), None));
        while let Some(answer) = answers.next().await {
            let answer = answer.unwrap_or_else(|error| panic!("the engine does not import {reference}: {error}"));
            assert!(answer.error_detail.is_none(), "the engine does not import {reference}: {answer:?}");
        }
    }

    /// Makes the stand-ins of the templates' images, `q8demo/web:1` and `q8demo/db:1`.
    pub(crate) fn with_demo_images(&self) -> &Self {
        let output = Command::new("bash")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo-images.sh"))
            .env("DOCKER_HOST", self.host())
            .output()
            .expect("bash runs");
        assert!(output.status.success(), "no demo images: {}", String::from_utf8_lossy(&output.stderr));
        self
    }
}

/// A root file system: busybox in `/bin` with a link per applet, `/etc/passwd`, `/tmp`, `/data`, and `extra`.
pub(crate) fn busybox_root(extra: &[Extra<'_>]) -> Vec<u8> {
    let mut root = tar::Builder::new(Vec::new());
    for (path, mode) in [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("data", 0o755)] {
        add(&mut root, tar::EntryType::Directory, path, &[], mode);
    }
    add(&mut root, tar::EntryType::Regular, "bin/busybox", busybox(), 0o755);
    for applet in applets() {
        let mut header = header(tar::EntryType::Symlink, 0, 0o777);
        root.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("a tar in memory");
    }
    let wget = include_bytes!("../../scripts/images/wget");
    add(&mut root, tar::EntryType::Regular, "bin/wget", wget, 0o755);
    let passwd = b"root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
    add(&mut root, tar::EntryType::Regular, "etc/passwd", passwd, 0o644);
    add(&mut root, tar::EntryType::Regular, "etc/group", b"root:x:0:\nuser:x:1000:\nnobody:x:65534:\n", 0o644);
    for file in extra {
        add(&mut root, tar::EntryType::Regular, file.path, file.content, file.mode);
    }
    root.into_inner().expect("a tar in memory")
}

/// Adds one entry, owned by root, from the beginning of time: the same root is the same image.
pub(crate) fn add(root: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, content: &[u8], mode: u32) {
    let mut header = header(kind, content.len(), mode);
    root.append_data(&mut header, path, content).expect("a tar in memory");
}

fn header(kind: tar::EntryType, size: usize, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The machine's busybox, which must be the static one: the images hold no libraries.
fn busybox() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| std::fs::read(path).ok());
        let bytes = found.expect("test images need busybox: apt-get install busybox-static");
        let interpreter = bytes.windows(9).any(|window| window == b"/ld-linux");
        assert!(!interpreter, "this busybox needs libraries; test images need busybox-static");
        bytes
    })
}

fn applets() -> Vec<String> {
    let output = Command::new("busybox").arg("--list").output().expect("busybox runs");
    let names = String::from_utf8(output.stdout).expect("applets have plain names");
    names.lines().filter(|name| !["busybox", "wget", ""].contains(name)).map(String::from).collect()
}

//! The stacks of `tests/data/corpus/stacks` as provision requests, and stand-ins for their images.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::engine::Engine;
use super::images::{Extra, busybox_root};

/// Programs of the stand-ins: a command, a healthcheck or an entrypoint of a stack calls them by these paths.
const PROGRAMS: &[&str] = &[
    "usr/local/bin/bash",
    "usr/local/bin/curl",
    "usr/local/bin/redis-cli",
    "usr/local/bin/pg_isready",
    "usr/local/bin/session",
    "usr/local/bin/postgres",
    "usr/local/bin/mysqld",
    "usr/local/bin/mariadbd",
    "usr/local/bin/redis-server",
    "usr/local/bin/n8n",
    "usr/local/bin/ghost",
    "usr/local/bin/gitea",
    "usr/local/bin/php-fpm",
    "cron.sh",
    "usr/local/bin/nginx",
    "usr/local/bin/coolwsd",
    "docker-entrypoint.sh",
    "usr/local/bin/kong",
    "usr/local/bin/auth",
    "usr/local/bin/postgrest",
    "usr/local/bin/logflare",
    "app/bin/migrate",
    "app/bin/realtime",
    "app/bin/server",
];

/// A stack, and what its author expects around it.
pub(crate) struct Stack {
    /// Its name in the corpus.
    pub(crate) file: &'static str,
    /// Images that it names, and the instruction that says what each runs.
    pub(crate) images: &'static [(&'static str, &'static str)],
    /// Ports of the host that it takes, and the same without them: other tests may want those.
    pub(crate) ports: &'static [(&'static str, &'static str)],
    /// Files that it binds or reads.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Profiles that it is run with.
    pub(crate) profiles: &'static [&'static str],
}

impl Stack {
    /// The body of a provision request, with the variables of the corpus.
    pub(crate) fn request(&self, subdomain: &str, id: &str) -> Value {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/stacks");
        let read = |name: &str| std::fs::read_to_string(corpus.join(name)).expect("a file of the corpus");
        let mut compose = read(&format!("{}.yaml", self.file));
        compose = compose.replace("image: ", "image: q8test/").replace("image: q8test/\"", "image: \"q8test/");
        for (fixed, free) in self.ports {
            assert!(compose.contains(fixed), "{} has no {fixed}", self.file);
            compose = compose.replace(fixed, free);
        }
        // Not every host has a time zone of its own to lend.
        for zone in ["/etc/timezone", "/etc/localtime"].into_iter().filter(|zone| !Path::new(zone).exists()) {
            compose = compose.replace(&format!("- {zone}:{zone}:ro\n"), "\n");
        }
        let mut env = String::new();
        let variables: Map<String, Value> = serde_json::from_str(&read("env.json")).expect("a JSON object");
        for (name, value) in &variables {
            let value = if name == "SUBDOMAIN" { subdomain } else { value.as_str().expect("a text") };
            writeln!(env, "{name}={value}").expect("a text takes text");
        }
        let files: Map<String, Value> =
            self.files.iter().map(|(path, text)| ((*path).to_owned(), json!(text))).collect();
        json!({
            "id": id,
            "subdomain": subdomain,
            "compose_content": compose,
            "env_content": env,
            "files": files,
            "profiles": self.profiles,
        })
    }
}

impl Engine {
    /// Makes the stand-ins of a stack's images, which its request names.
    pub(crate) async fn with_stand_ins(&self, stack: &Stack) -> &Self {
        let program = include_bytes!("../data/stand-ins/program");
        let mut extra: Vec<Extra<'_>> =
            PROGRAMS.iter().map(|path| Extra { path, content: program, mode: 0o755 }).collect();
        extra.push(Extra { path: "srv/health", content: b"healthy\n", mode: 0o644 });
        extra.push(Extra { path: "home/kong/README", content: b"", mode: 0o644 });
        let root = busybox_root(&extra);
        for (image, instruction) in stack.images {
            let reference = format!("q8test/{image}");
            if self.docker().inspect_image(&reference).await.is_err() {
                self.import(&reference, root.clone(), &[instruction]).await;
            }
        }
        self
    }
}

//! What the room promises, on a real file system.

mod host_files;
mod hostile;
mod project_files;
mod tenants;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::*;
use crate::domain::*;

/// A tenants root that goes away with the test.
struct Ground {
    temporary: tempfile::TempDir,
    root: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("tenants");
        Self { temporary, root }
    }

    fn open(&self) -> TenantFs {
        TenantFs::open(&self.root).unwrap()
    }

    /// A directory outside the root that nothing may change.
    fn outside(&self) -> PathBuf {
        let outside = self.temporary.path().join("outside");
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("canary"), "alive").unwrap();
        chmod(&outside.join("canary"), 0o644);
        outside
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

fn sub(text: &str) -> Subdomain {
    Subdomain::parse(text).unwrap()
}

fn record(subdomain: &str, generation: u64) -> Record {
    let now = jiff::Timestamp::now();
    Record {
        version: RECORD_VERSION,
        id: TenantId::parse("t-1").unwrap(),
        subdomain: sub(subdomain),
        backend: BackendName::Docker,
        region: None,
        desired: DesiredState::Running,
        kept: false,
        generation: Generation(generation),
        previous: None,
        fingerprint: String::from("f"),
        adopted: Adopted::default(),
        demand: crate::domain::Demand::default(),
        authorised_images: Vec::new(),
        created_at: now,
        updated_at: now,
        last_error: Some(LastError { code: ErrorCode::ImageNotFound, message: String::from("no image"), at: now }),
    }
}

/// A generation with these files: path, text, mode.
fn content(files: &[(&str, &str, u32)]) -> StoredGeneration {
    let files = files.iter().map(|(path, text, mode)| {
        (ProjectPath::parse(path).unwrap(), FileContent { bytes: text.as_bytes().to_vec(), mode: *mode })
    });
    StoredGeneration {
        spec: TenantSpec {
            id: TenantId::parse("t-1").unwrap(),
            subdomain: sub("a"),
            compose: String::from("services: {}\n"),
            env: String::from("SECRET=canary-7\n"),
            files: files.collect(),
            profiles: BTreeSet::from([String::from("p")]),
            placement: Placement { backend: BackendName::Docker, region: None },
            limits: crate::domain::Limits::default(),
            pinned_images: BTreeMap::new(),
        },
        images: BTreeMap::from([(ServiceName::parse("web").unwrap(), String::from("sha256:1"))]),
    }
}

fn journal() -> Journal {
    Journal {
        operation: OperationId::new(),
        kind: OperationKind::Update,
        target: Some(Generation(2)),
        service: None,
        undo: serde_json::json!({"running": ["0123456789ab"]}),
        purge: false,
        started_at: jiff::Timestamp::now(),
    }
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn inode(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).unwrap().ino()
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

/// An owner that this process may give a file to.
fn some_owner() -> (u32, u32) {
    if rustix::process::geteuid().is_root() {
        (1000, 1001)
    } else {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }
}

/// Every path below a directory, relative to it, directories with a slash at their end.
fn tree(directory: &Path) -> BTreeSet<String> {
    fn walk(base: &Path, directory: &Path, into: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(base).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                into.insert(format!("{name}/"));
                walk(base, &entry.path(), into);
            } else {
                into.insert(name);
            }
        }
    }
    let mut all = BTreeSet::new();
    walk(directory, directory, &mut all);
    all
}

/// The project files of a tenant: all but `data/` and `.agent/`.
fn project_tree(ground: &Ground, tenant: &str) -> Vec<String> {
    let all = tree(&ground.at(tenant));
    all.into_iter().filter(|path| !path.starts_with(".agent/") && !path.starts_with("data/")).collect()
}

fn assert_workshop_is_empty(ground: &Ground) {
    assert_eq!(tree(&ground.at(".agent/staging")), BTreeSet::new());
    assert_eq!(tree(&ground.at(".agent/trash")), BTreeSet::new());
}

#[test]
fn the_first_start_makes_everything_private() {
    let ground = Ground::new();
    let fs = ground.open();
    for (path, wanted) in [
        ("", 0o700),
        (".agent", 0o700),
        (".archive", 0o700),
        (".agent/agent-id", 0o600),
        (".agent/host-key", 0o600),
        (".agent/lock", 0o600),
    ] {
        assert_eq!(mode(&ground.at(path)), wanted, "{path:?}");
    }
    assert_eq!(fs.agent_id().as_str().len(), 32);
    assert_ne!(fs.host_key(), [0; 32]);
    assert_eq!(fs.project_directory(&sub("a")), ground.at("a"));
}

#[test]
fn identity_and_key_survive_a_restart() {
    let ground = Ground::new();
    let (id, key) = {
        let fs = ground.open();
        (fs.agent_id().clone(), fs.host_key())
    };
    let fs = ground.open();
    assert_eq!((fs.agent_id(), fs.host_key()), (&id, key));
}

#[test]
fn one_agent_per_root() {
    let ground = Ground::new();
    let first = ground.open();
    assert!(matches!(TenantFs::open(&ground.root), Err(FsError::Locked)));
    drop(first);
    ground.open();
}

#[test]
fn a_root_that_others_could_use_is_refused() {
    let ground = Ground::new();
    let outside = ground.outside();
    let refused = |path: &Path| matches!(TenantFs::open(path), Err(FsError::Root { .. }));

    std::os::unix::fs::symlink(&outside, &ground.root).unwrap();
    assert!(refused(&ground.root), "a link");
    std::fs::remove_file(&ground.root).unwrap();

    std::fs::write(&ground.root, "").unwrap();
    assert!(refused(&ground.root), "a file");
    std::fs::remove_file(&ground.root).unwrap();

    std::fs::create_dir(&ground.root).unwrap();
    for open in [0o770, 0o707, 0o1777] {
        chmod(&ground.root, open);
        assert!(refused(&ground.root), "{open:o}");
    }
    chmod(&ground.root, 0o755);
    std::os::unix::fs::symlink(&outside, ground.at(".agent")).unwrap();
    assert!(refused(&ground.root), ".agent is a link");
    assert_eq!(tree(&outside).len(), 1);

    assert!(refused(Path::new("relative")));
    assert!(refused(Path::new("/")));
    assert!(refused(&ground.at("../tenants")));
}

#[test]
fn a_root_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can make one.
    }
    let ground = Ground::new();
    std::fs::create_dir(&ground.root).unwrap();
    std::os::unix::fs::chown(&ground.root, Some(1000), None).unwrap();
    assert!(matches!(TenantFs::open(&ground.root), Err(FsError::Root { .. })));
}

#[test]
fn a_damaged_identity_stops_the_start_and_is_not_replaced() {
    for (file, damage) in [("agent-id", "not hexadecimal"), ("agent-id", ""), ("host-key", "short")] {
        let ground = Ground::new();
        drop(ground.open());
        let path = ground.at(".agent").join(file);
        std::fs::write(&path, damage).unwrap();
        assert!(matches!(TenantFs::open(&ground.root), Err(FsError::Root { .. })), "{file}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), damage);
    }
}

#[test]
fn what_a_crash_left_is_cleared_at_the_next_start() {
    let ground = Ground::new();
    drop(ground.open());
    std::fs::write(ground.at(".agent/staging/half-a-file"), "x").unwrap();
    std::fs::create_dir_all(ground.at(".agent/staging/half-a-tenant/.agent")).unwrap();
    std::fs::create_dir_all(ground.at(".agent/trash/0/old-tenant/data/deep")).unwrap();
    std::fs::write(ground.at(".agent/trash/0/old-tenant/data/deep/file"), "x").unwrap();
    ground.open();
    assert_workshop_is_empty(&ground);
}

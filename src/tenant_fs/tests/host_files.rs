//! The agent's own files: the cordon, the list of pulled images, the spare files.
#![allow(clippy::disallowed_methods, reason = "only the agent never starts a process; this mounts file systems")]

use std::io::Write as _;

use rustix::io::Errno;

use super::*;

#[test]
fn the_cordon_outlives_the_agent_and_damage() {
    let ground = Ground::new();
    let cordon = Cordon { since: "2026-11-21T10:30:00Z".parse().unwrap(), reason: Some("new disk".to_owned()) };
    {
        let fs = ground.open();
        assert_eq!(fs.cordoned().unwrap(), None);
        fs.uncordon().unwrap();
        fs.cordon(&cordon).unwrap();
    }
    let fs = ground.open();
    assert_eq!(fs.cordoned().unwrap(), Some(cordon));
    std::fs::write(ground.at(".agent/cordon.json"), "{").unwrap();
    assert!(fs.cordoned().unwrap().is_some_and(|cordon| cordon.reason.is_none()));
    fs.uncordon().unwrap();
    assert_eq!(fs.cordoned().unwrap(), None);
}

#[test]
fn pulled_images_are_known_for_sure_or_not_at_all() {
    let ground = Ground::new();
    let fs = ground.open();
    assert_eq!(fs.pulled_images().unwrap(), BTreeSet::new());
    let images = BTreeSet::from(["sha256:a".to_owned(), "sha256:b".to_owned()]);
    fs.write_pulled_images(&images).unwrap();
    assert_eq!(fs.pulled_images().unwrap(), images);
    std::fs::write(ground.at(".agent/pulled.json"), "[\"sha256:c\"]").unwrap();
    assert_eq!(fs.pulled_images().unwrap(), BTreeSet::new());
}

/// A small file system in memory, unmounted when it is dropped. Mounting needs root, as the tests on an engine do.
struct Small(tempfile::TempDir);

impl Small {
    fn new(options: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let arguments = ["-t", "tmpfs", "-o", &format!("mode=0700,{options}"), "tmpfs"];
        let mounted = std::process::Command::new("mount").args(arguments).arg(place.path()).output().unwrap();
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
        Self(place)
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("tenants")
    }

    /// Takes every free block and every free inode, as whatever has filled the disk would at once.
    fn fill(&self) {
        let mut ballast =
            std::fs::File::options().create(true).append(true).open(self.0.path().join("ballast")).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}
        for number in 0.. {
            if std::fs::File::create_new(self.0.path().join(format!("inode-{number}")))
                .is_err_and(|error| is_no_space(&error))
            {
                break;
            }
        }
    }

    /// Gives all of it back.
    fn empty(&self) {
        for entry in std::fs::read_dir(self.0.path()).unwrap().flatten() {
            if entry.file_type().unwrap().is_file() {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(self.0.path()).output());
    }
}

fn is_no_space(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOSPC.raw_os_error())
}

fn spares(root: &Path) -> usize {
    let files = std::fs::read_dir(root.join(".agent/spares")).unwrap().flatten();
    files.filter(|file| file.metadata().is_ok_and(|file| file.is_file() && file.len() == 16 << 10)).count()
}

#[test]
fn stops_and_teardowns_need_no_space_that_others_could_take() {
    let disk = Small::new("size=4m,nr_inodes=400");
    let fs = TenantFs::open(&disk.root()).unwrap();
    let all = spares(&disk.root());
    fs.create(&record("a", 1)).unwrap();
    fs.stage(&sub("a"), Generation(1), &content(&[("conf/web", "x", 0o644)])).unwrap();
    fs.put_in_place(&sub("a"), Some(Generation(1))).unwrap();
    let full = |what: &str, call: &dyn Fn() -> Result<(), FsError>| {
        disk.fill();
        call().unwrap_or_else(|error| panic!("{what}: {error}"));
    };
    for kind in [OperationKind::Stop, OperationKind::Teardown] {
        let opened = Journal { kind, ..journal() };
        let next = Record { desired: DesiredState::Stopped, kept: kind == OperationKind::Teardown, ..record("a", 1) };
        full("the journal", &|| fs.begin(&sub("a"), &opened));
        assert_eq!(fs.journal(&sub("a")).unwrap().unwrap().operation, opened.operation);
        if kind == OperationKind::Teardown {
            full("the archive", &|| fs.archive(&sub("a")).map(|archive| assert!(archive.is_some())));
        }
        full("the record", &|| fs.commit(&next, kind));
        assert_eq!(fs.record(&sub("a")).unwrap().unwrap().kept, next.kept);
        full("the end", &|| fs.end(&sub("a"), &[]));
    }
    // Others get none of it, and neither does what would not fit.
    disk.fill();
    let left = spares(&disk.root());
    assert!(left < all);
    assert!(matches!(fs.begin(&sub("a"), &journal()), Err(FsError::NoSpace)));
    let cordon = Cordon { since: jiff::Timestamp::now(), reason: None };
    assert!(matches!(fs.cordon(&cordon), Err(FsError::NoSpace)));
    for kind in [OperationKind::Prune, OperationKind::Cordon, OperationKind::Uncordon, OperationKind::Update] {
        assert!(matches!(fs.commit(&record("a", 1), kind), Err(FsError::NoSpace)), "{kind:?}");
    }
    let large = Record { fingerprint: "f".repeat(17 << 10), ..record("a", 1) };
    assert!(matches!(fs.commit(&large, OperationKind::Stop), Err(FsError::NoSpace)));
    assert_eq!(spares(&disk.root()), left);

    full("the purge", &|| fs.purge(&sub("a")));
    assert!(!disk.root().join("a").exists());
    assert_eq!(std::fs::read_dir(disk.root().join(".archive")).unwrap().count(), 0);
    assert_eq!(tree(&disk.root().join(".agent/trash")), BTreeSet::new());
    assert_eq!(tree(&disk.root().join(".agent/staging")), BTreeSet::new());
    disk.empty();
    fs.refill_spares();
    assert_eq!(spares(&disk.root()), all);
}

#[test]
fn spares_end_with_an_error_and_are_made_again() {
    let disk = Small::new("size=4m,nr_inodes=400");
    let fs = TenantFs::open(&disk.root()).unwrap();
    let all = spares(&disk.root());
    fs.create(&record("a", 1)).unwrap();
    for _ in 0..all {
        disk.fill();
        fs.commit(&record("a", 1), OperationKind::Stop).unwrap();
    }
    disk.fill();
    assert!(matches!(fs.commit(&record("a", 1), OperationKind::Stop), Err(FsError::NoSpace)));
    assert_eq!(fs.record(&sub("a")).unwrap().unwrap().generation, Generation(1), "what stood stands");
    disk.empty();
    fs.end(&sub("a"), &[]).unwrap();
    assert_eq!(spares(&disk.root()), all);
}

#[test]
fn a_start_makes_what_is_missing_of_the_spares_and_removes_the_earlier_reserve() {
    let ground = Ground::new();
    drop(ground.open());
    let all = spares(&ground.root);
    assert!(all > 0);
    // Half of one, from a crash, is replaced.
    std::fs::write(ground.at(".agent/spares/0"), "x").unwrap();
    std::fs::remove_file(ground.at(".agent/spares/1")).unwrap();
    std::fs::write(ground.at(".agent/reserve"), "x").unwrap();
    ground.open();
    assert_eq!(spares(&ground.root), all);
    assert!(!ground.at(".agent/reserve").exists());
}

//! Links, fifos and races that somebody planted.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn tenant_with(files: &[(&str, &str, u32)]) -> (Ground, TenantFs) {
    let ground = Ground::new();
    let fs = ground.open();
    fs.create(&record("a", 0)).unwrap();
    fs.stage(&sub("a"), Generation(1), &content(files)).unwrap();
    (ground, fs)
}

fn assert_untouched(outside: &Path) {
    assert_eq!(tree(outside), BTreeSet::from([String::from("canary")]));
    assert_eq!(std::fs::read_to_string(outside.join("canary")).unwrap(), "alive");
    assert_eq!(mode(&outside.join("canary")), 0o644);
}

#[test]
fn links_in_the_place_of_project_files_are_replaced_not_followed() {
    let (ground, fs) = tenant_with(&[("conf/app.conf", "x", 0o600), ("page", "x", 0o644)]);
    let outside = ground.outside();
    symlink(&outside, ground.at("a/conf")).unwrap();
    symlink(outside.join("canary"), ground.at("a/page")).unwrap();
    symlink(outside.join("canary"), ground.at("a/compose.yaml")).unwrap();
    symlink("/nowhere", ground.at("a/.env")).unwrap();
    fs.put_in_place(&sub("a"), Some(Generation(1))).unwrap();
    assert_untouched(&outside);
    for path in ["a/conf", "a/conf/app.conf", "a/page", "a/compose.yaml", "a/.env"] {
        assert!(!std::fs::symlink_metadata(ground.at(path)).unwrap().is_symlink(), "{path}");
    }
}

#[test]
fn removal_takes_the_link_and_leaves_what_it_leads_to() {
    let (ground, fs) = tenant_with(&[("conf/canary", "x", 0o644)]);
    fs.stage(&sub("a"), Generation(2), &content(&[])).unwrap();
    let outside = ground.outside();
    symlink(&outside, ground.at("a/conf")).unwrap();
    fs.put_in_place(&sub("a"), Some(Generation(2))).unwrap();
    assert_untouched(&outside);
}

#[test]
fn a_hard_link_to_a_config_keeps_the_old_content() {
    let (ground, fs) = tenant_with(&[("app.conf", "old", 0o644)]);
    fs.stage(&sub("a"), Generation(2), &content(&[("app.conf", "new", 0o600)])).unwrap();
    fs.put_in_place(&sub("a"), Some(Generation(1))).unwrap();
    std::fs::hard_link(ground.at("a/app.conf"), ground.at("keep")).unwrap();
    fs.put_in_place(&sub("a"), Some(Generation(1))).unwrap();
    assert_ne!(inode(&ground.at("a/app.conf")), inode(&ground.at("keep")), "a file with a second link is not trusted");
    fs.put_in_place(&sub("a"), Some(Generation(2))).unwrap();
    assert_eq!(
        (std::fs::read_to_string(ground.at("keep")).unwrap().as_str(), mode(&ground.at("keep"))),
        ("old", 0o644)
    );
}

#[test]
fn a_fifo_or_directory_in_a_files_place_neither_blocks_nor_stays() {
    let (ground, fs) = tenant_with(&[("fifo", "x", 0o644), ("dir", "x", 0o644)]);
    rustix::fs::mkfifoat(rustix::fs::CWD, ground.at("a/fifo"), rustix::fs::Mode::RUSR).unwrap();
    std::fs::create_dir_all(ground.at("a/dir/made/by/the/engine")).unwrap();
    fs.put_in_place(&sub("a"), Some(Generation(1))).unwrap();
    for path in ["a/fifo", "a/dir"] {
        assert!(std::fs::symlink_metadata(ground.at(path)).unwrap().is_file(), "{path}");
    }
    assert_workshop_is_empty(&ground);
}

#[test]
fn a_link_or_file_on_the_way_to_a_data_directory_is_an_error() {
    let (ground, fs) = tenant_with(&[]);
    let outside = ground.outside();
    fs.ensure_data_directory(&sub("a"), "data", 0, 0).unwrap();
    symlink(&outside, ground.at("a/data/link")).unwrap();
    symlink("nowhere", ground.at("a/data/dangling")).unwrap();
    std::fs::write(ground.at("a/data/file"), "x").unwrap();
    let (uid, gid) = some_owner();
    for path in ["data/link", "data/link/new", "data/dangling", "data/dangling/new", "data/file", "data/file/new"] {
        let refused = fs.ensure_data_directory(&sub("a"), path, uid, gid);
        let shortest = path.strip_suffix("/new").unwrap_or(path);
        assert!(matches!(&refused, Err(FsError::InTheWay { path }) if path == shortest), "{path}: {refused:?}");
    }
    assert_untouched(&outside);
    assert_ne!(owner(&outside), (1000, 1001));
}

#[test]
fn a_container_that_flips_a_link_never_moves_the_agent_outside() {
    let (ground, fs) = tenant_with(&[]);
    let outside = ground.outside();
    fs.ensure_data_directory(&sub("a"), "data", 0, 0).unwrap();
    let (spot, link) = (ground.at("a/data/x"), ground.at("a/data/y"));
    std::fs::create_dir(&spot).unwrap();
    symlink(&outside, &link).unwrap();
    let over = AtomicBool::new(false);
    let (mut made, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let (cwd, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
                rustix::fs::renameat_with(cwd, &spot, cwd, &link, exchange).unwrap();
            }
        });
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while (made < 500 || refused < 500) && std::time::Instant::now() < patience {
            let path = format!("data/x/new{}", made % 50);
            match fs.ensure_data_directory(&sub("a"), &path, 0, 0) {
                Ok(()) => made += 1,
                Err(FsError::InTheWay { path }) if path == "data/x" => refused += 1,
                Err(other) => {
                    over.store(true, Ordering::Relaxed);
                    panic!("{other:?}");
                }
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(made >= 500 && refused >= 500, "too few meetings to show anything: {made} made, {refused} refused");
    assert_untouched(&outside);
}

#[test]
fn purge_follows_nothing_and_copes_with_depth() {
    let (ground, fs) = tenant_with(&[]);
    let outside = ground.outside();
    fs.ensure_data_directory(&sub("a"), "data", 0, 0).unwrap();
    symlink(&outside, ground.at("a/data/link")).unwrap();
    symlink("/", ground.at("a/data/root")).unwrap();
    std::fs::hard_link(outside.join("canary"), ground.at("a/data/hard")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, ground.at("a/data/fifo"), rustix::fs::Mode::RUSR).unwrap();
    std::fs::create_dir(ground.at("a/data/closed")).unwrap();
    std::fs::write(ground.at("a/data/closed/file"), "x").unwrap();
    chmod(&ground.at("a/data/closed"), 0o000);
    // Deeper than any path can name, as a container makes it with `cd` in a loop.
    let mut at =
        rustix::fs::open(ground.at("a/data"), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..5000 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    drop(at);
    fs.purge(&sub("a")).unwrap();
    assert!(!ground.at("a").exists());
    assert_untouched(&outside);
    assert_workshop_is_empty(&ground);
}

#[test]
fn a_tenant_directory_that_is_a_link_is_no_tenant() {
    let ground = Ground::new();
    let fs = ground.open();
    let outside = ground.outside();
    symlink(&outside, ground.at("a")).unwrap();
    assert!(fs.record(&sub("a")).is_err());
    assert!(fs.create(&record("a", 0)).is_err());
    assert!(fs.archive(&sub("a")).is_err());
    assert_eq!(fs.tenants().unwrap().len(), 0);
    fs.purge(&sub("a")).unwrap();
    assert_untouched(&outside);
    assert!(std::fs::symlink_metadata(ground.at("a")).is_err(), "the link is gone");
}

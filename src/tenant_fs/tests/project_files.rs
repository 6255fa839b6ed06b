//! Putting a generation's files in place, from any state to any other.

use super::*;

/// A tenant `a` with these generations stored, from 1.
fn with_generations(generations: &[StoredGeneration]) -> (Ground, TenantFs) {
    let ground = Ground::new();
    let fs = ground.open();
    fs.create(&record("a", 0)).unwrap();
    for (number, generation) in (1..).zip(generations) {
        fs.stage(&sub("a"), Generation(number), generation).unwrap();
    }
    (ground, fs)
}

fn place(fs: &TenantFs, generation: u64) {
    fs.put_in_place(&sub("a"), Some(Generation(generation))).unwrap();
}

/// What is in the project directory when this generation, and no other, is in place.
fn expected_tree(generation: &StoredGeneration) -> Vec<String> {
    let mut all = BTreeSet::from([String::from("compose.yaml"), String::from(".env")]);
    for path in generation.spec.files.keys() {
        all.extend(path.as_str().match_indices('/').map(|(at, _)| path.as_str()[..=at].to_owned()));
        all.insert(path.to_string());
    }
    all.into_iter().collect()
}

#[test]
fn files_have_exactly_the_modes_asked_for() {
    let (ground, fs) = with_generations(&[content(&[("conf/a.conf", "x", 0o640), ("run.sh", "x", 0o4755)])]);
    place(&fs, 1);
    let modes = [("compose.yaml", 0o644), (".env", 0o600), ("conf", 0o755), ("conf/a.conf", 0o640), ("run.sh", 0o755)];
    for (path, wanted) in modes {
        assert_eq!(mode(&ground.at("a").join(path)), wanted, "{path}");
    }
    assert_eq!(std::fs::read_to_string(ground.at("a/.env")).unwrap(), "SECRET=canary-7\n");
}

#[test]
fn an_unchanged_file_and_its_directory_keep_their_inodes() {
    let (ground, fs) = with_generations(&[
        content(&[
            ("html/same", "x", 0o644),
            ("html/text", "old", 0o644),
            ("html/mode", "x", 0o644),
            ("only/old", "x", 0o644),
        ]),
        content(&[
            ("html/same", "x", 0o644),
            ("html/text", "new", 0o644),
            ("html/mode", "x", 0o600),
            ("only/new", "x", 0o644),
        ]),
    ]);
    place(&fs, 1);
    let inodes = |paths: &[&str]| paths.iter().map(|path| inode(&ground.at("a").join(path))).collect::<Vec<_>>();
    let same = ["compose.yaml", ".env", "html", "html/same", "only"];
    let changed = ["html/text", "html/mode"];
    let before = (inodes(&same), inodes(&changed));
    place(&fs, 2);
    assert_eq!(inodes(&same), before.0);
    for (path, (old, new)) in changed.iter().zip(before.1.iter().zip(inodes(&changed))) {
        assert_ne!(*old, new, "{path}");
    }
    assert_eq!(std::fs::read_to_string(ground.at("a/html/text")).unwrap(), "new");
    let all = inodes(&["html/text", "html/mode", "only/new"]);
    place(&fs, 2);
    assert_eq!(inodes(&["html/text", "html/mode", "only/new"]), all, "a repeat writes nothing");
}

#[test]
fn any_generation_can_follow_any_other_and_be_undone() {
    let shapes = [
        content(&[]),
        content(&[("a", "file", 0o644), ("b/c", "x", 0o644)]),
        content(&[("a/b/c", "deep", 0o644), ("b", "file", 0o644)]),
        content(&[("a/b", "file", 0o644), ("z/y/x/w", "x", 0o644)]),
        content(&[("z/y", "file", 0o644), ("a/b/d", "x", 0o644), ("a/e", "x", 0o644)]),
    ];
    let (ground, fs) = with_generations(&shapes);
    for from in 1..=shapes.len() {
        for to in 1..=shapes.len() {
            place(&fs, from as u64);
            place(&fs, to as u64);
            assert_eq!(project_tree(&ground, "a"), expected_tree(&shapes[to - 1]), "{from} -> {to}");
            place(&fs, from as u64);
            assert_eq!(project_tree(&ground, "a"), expected_tree(&shapes[from - 1]), "{from} -> {to} -> {from}");
        }
    }
    fs.put_in_place(&sub("a"), None).unwrap();
    assert_eq!(project_tree(&ground, "a"), [""; 0]);
    assert_workshop_is_empty(&ground);
}

#[test]
fn a_half_placed_generation_is_completed_or_undone() {
    let shapes = [
        content(&[("conf/one", "1", 0o644), ("conf/two", "2", 0o644)]),
        content(&[("conf/one", "1b", 0o644), ("conf/three", "3", 0o644), ("more/four", "4", 0o644)]),
    ];
    for towards in [1, 2] {
        let (ground, fs) = with_generations(&shapes);
        place(&fs, 1);
        // A crash in the middle: one file is new, one is removed, a directory is made and still empty.
        std::fs::write(ground.at("a/conf/one"), "1b").unwrap();
        std::fs::remove_file(ground.at("a/conf/two")).unwrap();
        std::fs::create_dir(ground.at("a/more")).unwrap();
        drop(fs);
        let fs = ground.open();
        place(&fs, towards);
        let expected = &shapes[usize::from(towards == 2)];
        assert_eq!(project_tree(&ground, "a"), expected_tree(expected), "towards {towards}");
        for (path, file) in &expected.spec.files {
            assert_eq!(std::fs::read(ground.at("a").join(path.as_str())).unwrap(), file.bytes, "{path}");
        }
    }
}

#[test]
fn files_of_nobody_stay_and_keep_their_directory() {
    let (ground, fs) = with_generations(&[content(&[("conf/app", "x", 0o644)]), content(&[])]);
    place(&fs, 1);
    std::fs::write(ground.at("a/conf/operators-note"), "mine").unwrap();
    place(&fs, 2);
    assert_eq!(project_tree(&ground, "a"), [".env", "compose.yaml", "conf/", "conf/operators-note"]);
}

#[test]
fn a_generation_that_cannot_be_read_changes_nothing() {
    let (ground, fs) = with_generations(&[content(&[("conf/app", "x", 0o644)]), content(&[])]);
    place(&fs, 1);
    std::fs::write(ground.at("a/.agent/generations/2.json"), "{").unwrap();
    assert!(matches!(fs.put_in_place(&sub("a"), Some(Generation(2))), Err(FsError::Corrupt { .. })));
    assert!(matches!(fs.put_in_place(&sub("a"), Some(Generation(9))), Err(FsError::NoSuchGeneration { .. })));
    assert_eq!(project_tree(&ground, "a"), [".env", "compose.yaml", "conf/", "conf/app"]);
    place(&fs, 1);
}

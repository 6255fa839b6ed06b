//! Records, generations, journals, mounts, archives, purge.

use super::*;

#[test]
fn a_new_tenant_has_a_record_from_the_first_moment() {
    let ground = Ground::new();
    let fs = ground.open();
    assert_eq!(fs.record(&sub("a")).unwrap(), None);
    let first = record("a", 0);
    fs.create(&first).unwrap();
    assert_eq!(fs.record(&sub("a")).unwrap(), Some(first.clone()));
    for (path, wanted) in [("a", 0o700), ("a/.agent", 0o700), ("a/.agent/record.json", 0o600)] {
        assert_eq!(mode(&ground.at(path)), wanted, "{path}");
    }
    let before = inode(&ground.at("a"));
    fs.create(&first).unwrap();
    assert_eq!(inode(&ground.at("a")), before, "a repeat keeps the directory");
    assert_workshop_is_empty(&ground);
}

#[test]
fn commit_replaces_the_record_by_a_new_inode() {
    let ground = Ground::new();
    let fs = ground.open();
    fs.create(&record("a", 0)).unwrap();
    std::fs::hard_link(ground.at("a/.agent/record.json"), ground.at("old")).unwrap();
    let old = std::fs::read(ground.at("old")).unwrap();
    let next = Record { previous: Some(Generation(1)), desired: DesiredState::Stopped, ..record("a", 2) };
    fs.commit(&next, OperationKind::Update).unwrap();
    assert_eq!(fs.record(&sub("a")).unwrap(), Some(next));
    assert_eq!(std::fs::read(ground.at("old")).unwrap(), old);
}

#[test]
fn calls_for_a_tenant_that_is_not_there() {
    let fs_ground = Ground::new();
    let fs = fs_ground.open();
    let absent = sub("a");
    assert!(matches!(fs.commit(&record("a", 1), OperationKind::Update), Err(FsError::NoSuchTenant(_))));
    assert!(matches!(fs.stage(&absent, Generation(1), &content(&[])), Err(FsError::NoSuchTenant(_))));
    assert!(matches!(fs.begin(&absent, &journal()), Err(FsError::NoSuchTenant(_))));
    assert_eq!(fs.journal(&absent).unwrap(), None);
    assert_eq!(fs.archive(&absent).unwrap(), None);
    assert!(!fs.has_data(&absent).unwrap());
    fs.end(&absent, &[]).unwrap();
    fs.purge(&absent).unwrap();
}

#[test]
fn a_damaged_record_is_found_and_hides_no_other_tenant() {
    let ground = Ground::new();
    let fs = ground.open();
    let damaged = ["cut", "flipped", "newer", "copied", "strange", "link", "empty"];
    for name in ["good"].iter().chain(&damaged).chain(&["begun", "with-data", "with-files", "with-journal"]) {
        fs.create(&record(name, 1)).unwrap();
    }
    let file = |name: &str| ground.at(name).join(".agent/record.json");
    let whole = std::fs::read(file("cut")).unwrap();
    std::fs::write(file("cut"), &whole[..whole.len() / 2]).unwrap();
    let flipped = String::from_utf8(std::fs::read(file("flipped")).unwrap()).unwrap();
    std::fs::write(file("flipped"), flipped.replace("\"generation\":1", "\"generation\":7")).unwrap();
    let newer = serde_json::json!({"version": RECORD_VERSION + 1, "shape": "unknown to this agent"});
    std::fs::write(file("newer"), super::super::sealed::seal(&newer)).unwrap();
    std::fs::copy(file("good"), file("copied")).unwrap();
    std::fs::remove_file(file("strange")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, file("strange"), rustix::fs::Mode::RUSR).unwrap();
    std::fs::remove_file(file("link")).unwrap();
    std::os::unix::fs::symlink(file("good"), file("link")).unwrap();
    std::fs::remove_dir_all(ground.at("empty/.agent")).unwrap();
    // What comes before a first record, and what comes after it.
    std::fs::remove_file(file("begun")).unwrap();
    std::fs::remove_file(file("with-data")).unwrap();
    std::fs::create_dir(ground.at("with-data/data")).unwrap();
    std::fs::remove_file(file("with-files")).unwrap();
    fs.stage(&sub("with-files"), Generation(1), &content(&[])).unwrap();
    std::fs::remove_file(file("with-journal")).unwrap();
    fs.begin(&sub("with-journal"), &journal()).unwrap();
    // Not tenants at all.
    std::fs::create_dir(ground.at("lost+found")).unwrap();
    std::fs::write(ground.at("notes"), "").unwrap();
    std::os::unix::fs::symlink(ground.at("good"), ground.at("alias")).unwrap();

    let tenants = fs.tenants().unwrap();
    let seen: Vec<(&str, &str)> = tenants
        .iter()
        .map(|(tenant, record)| {
            let verdict = match record {
                Ok(_) => "ok",
                Err(FsError::Corrupt { tenant: named, what: "record" }) if named == tenant => "corrupt",
                Err(FsError::TooNew { found: 2, known: 1, .. }) => "too new",
                Err(FsError::NoRecord(_)) => "no record",
                Err(_) => "another error",
            };
            (tenant.as_str(), verdict)
        })
        .collect();
    let expected = [
        ("begun", "no record"),
        ("copied", "corrupt"),
        ("cut", "corrupt"),
        ("empty", "no record"),
        ("flipped", "corrupt"),
        ("good", "ok"),
        ("link", "corrupt"),
        ("newer", "too new"),
        ("strange", "corrupt"),
        ("with-data", "corrupt"),
        ("with-files", "corrupt"),
        ("with-journal", "corrupt"),
    ];
    assert_eq!(seen, expected);
    let message = tenants[2].1.as_ref().unwrap_err().to_string();
    assert_eq!(message, "the record of tenant cut is damaged");
}

#[test]
fn generations_and_journal_come_back_as_they_were() {
    let ground = Ground::new();
    let fs = ground.open();
    fs.create(&record("a", 0)).unwrap();
    let tenant = sub("a");
    let stored = content(&[("conf/app.conf", "x\0y", 0o640)]);
    fs.stage(&tenant, Generation(1), &stored).unwrap();
    fs.stage(&tenant, Generation(1), &stored).unwrap();
    assert!(fs.generation(&tenant, Generation(1)).unwrap() == stored);
    assert_eq!(mode(&ground.at("a/.agent/generations/1.json")), 0o600);
    assert!(matches!(fs.generation(&tenant, Generation(2)), Err(FsError::NoSuchGeneration { .. })));

    assert_eq!(fs.journal(&tenant).unwrap(), None);
    let open = journal();
    fs.begin(&tenant, &open).unwrap();
    assert_eq!(fs.journal(&tenant).unwrap(), Some(open));

    std::fs::write(ground.at("a/.agent/operation.json"), "{}").unwrap();
    assert!(matches!(fs.journal(&tenant), Err(FsError::Corrupt { what: "journal", .. })));
    std::fs::write(ground.at("a/.agent/generations/1.json"), "{}").unwrap();
    assert!(matches!(fs.generation(&tenant, Generation(1)), Err(FsError::Corrupt { what: "stored generation", .. })));
}

#[test]
fn a_request_that_needs_one_name_twice_is_refused() {
    let ground = Ground::new();
    let fs = ground.open();
    fs.create(&record("a", 0)).unwrap();
    let twice = content(&[("conf", "x", 0o644), ("conf-x", "x", 0o644), ("conf/app", "x", 0o644)]);
    let refused = fs.stage(&sub("a"), Generation(1), &twice);
    assert!(matches!(refused, Err(FsError::FileAndDirectory { path }) if path == "conf"));
}

#[test]
fn ending_keeps_what_the_record_names_and_can_be_repeated() {
    let ground = Ground::new();
    let fs = ground.open();
    let tenant = sub("a");
    fs.create(&record("a", 0)).unwrap();
    for generation in 1..=4 {
        fs.stage(&tenant, Generation(generation), &content(&[])).unwrap();
    }
    for name in ["used", "unused"] {
        fs.write_mount(&tenant, name, b"x", 0, 0, 0o400).unwrap();
    }
    fs.begin(&tenant, &journal()).unwrap();
    fs.commit(&Record { previous: Some(Generation(2)), ..record("a", 3) }, OperationKind::Update).unwrap();
    for _ in 0..2 {
        fs.end(&tenant, &[String::from("used")]).unwrap();
        let kept: Vec<String> = tree(&ground.at("a/.agent")).into_iter().collect();
        let expected =
            ["generations/", "generations/2.json", "generations/3.json", "mounts/", "mounts/used", "record.json"];
        assert_eq!(kept, expected);
        assert_eq!(fs.journal(&tenant).unwrap(), None);
    }
    assert_workshop_is_empty(&ground);
}

#[test]
fn mounted_files_have_their_owner_and_mode_and_are_written_once() {
    let ground = Ground::new();
    let fs = ground.open();
    fs.create(&record("a", 0)).unwrap();
    let (uid, gid) = some_owner();
    fs.write_mount(&sub("a"), "k1", b"secret", uid, gid, 0o440).unwrap();
    let path = ground.at("a/.agent/mounts/k1");
    assert_eq!((mode(&path), owner(&path)), (0o440, (uid, gid)));
    let before = inode(&path);
    fs.write_mount(&sub("a"), "k1", b"secret", uid, gid, 0o440).unwrap();
    assert_eq!(inode(&path), before);
    fs.write_mount(&sub("a"), "k2", b"x", uid, gid, 0o6755).unwrap();
    assert_eq!(mode(&ground.at("a/.agent/mounts/k2")), 0o755, "no set-user-id file is ever made");
    for bad in ["", ".", "..", ".x", "a/b", "../x", "a\0b"] {
        assert!(matches!(fs.write_mount(&sub("a"), bad, b"", 0, 0, 0o444), Err(FsError::BadName { .. })), "{bad:?}");
    }
}

#[test]
fn data_directories_get_the_owner_once() {
    let ground = Ground::new();
    let fs = ground.open();
    let tenant = sub("a");
    fs.create(&record("a", 0)).unwrap();
    assert!(!fs.has_data(&tenant).unwrap());
    let (uid, gid) = some_owner();
    fs.ensure_data_directory(&tenant, "data/db/main", uid, gid).unwrap();
    for path in ["a/data", "a/data/db", "a/data/db/main"] {
        assert_eq!((mode(&ground.at(path)), owner(&ground.at(path))), (0o755, (uid, gid)), "{path}");
    }
    assert!(fs.has_data(&tenant).unwrap());
    chmod(&ground.at("a/data/db"), 0o711);
    fs.ensure_data_directory(&tenant, "data/db", 0, 0).unwrap();
    assert_eq!((mode(&ground.at("a/data/db")), owner(&ground.at("a/data/db"))), (0o711, (uid, gid)));
    for bad in ["", "/", "db", "data/", "data//x", "data/../x", "data/./x", "datax", "/data", "data/a\0b", ".agent"] {
        let refused = fs.ensure_data_directory(&tenant, bad, 0, 0);
        assert!(matches!(refused, Err(FsError::BadName { .. })), "{bad:?}");
    }
    assert_workshop_is_empty(&ground);
}

#[test]
fn an_archive_holds_the_project_files_and_data_stays() {
    let ground = Ground::new();
    let fs = ground.open();
    let tenant = sub("a");
    fs.create(&record("a", 1)).unwrap();
    fs.stage(&tenant, Generation(1), &content(&[("conf/app.conf", "x", 0o644)])).unwrap();
    fs.put_in_place(&tenant, Some(Generation(1))).unwrap();
    fs.ensure_data_directory(&tenant, "data/db", 0, 0).unwrap();
    let first = fs.archive(&tenant).unwrap().expect("there were files");
    assert_eq!(fs.archive(&tenant).unwrap(), None, "nothing is left to move");
    fs.put_in_place(&tenant, Some(Generation(1))).unwrap();
    let second = fs.archive(&tenant).unwrap().expect("there were files again");
    assert_ne!(first, second);
    for name in [&first, &second] {
        let archive = ground.at(".archive").join(name);
        let files: Vec<String> = tree(&archive).into_iter().collect();
        assert_eq!(files, [".env", "compose.yaml", "conf/", "conf/app.conf"]);
        assert_eq!((mode(&archive), mode(&archive.join(".env"))), (0o700, 0o600));
    }
    assert_eq!(project_tree(&ground, "a"), [""; 0]);
    assert!(fs.has_data(&tenant).unwrap());
    assert!(fs.record(&tenant).unwrap().is_some());
}

#[test]
fn purge_takes_one_tenant_and_no_namesake() {
    let ground = Ground::new();
    let fs = ground.open();
    for name in ["a", "a-b", "a-20261121"] {
        fs.create(&record(name, 1)).unwrap();
        fs.ensure_data_directory(&sub(name), "data/db", 0, 0).unwrap();
        std::fs::create_dir(ground.at(".archive").join(format!("{name}-20261121T103000Z"))).unwrap();
        std::fs::write(ground.at(".archive").join(format!("{name}-20261121T103000Z/compose.yaml")), "").unwrap();
    }
    std::fs::create_dir(ground.at(".archive/a-20261121T103000Z-2")).unwrap();
    for _ in 0..2 {
        fs.purge(&sub("a")).unwrap();
        assert!(!ground.at("a").exists());
        let left: Vec<String> = std::fs::read_dir(ground.at(".archive"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        assert_eq!(left, ["a-20261121-20261121T103000Z", "a-b-20261121T103000Z"]);
        assert_eq!(fs.tenants().unwrap().len(), 2);
    }
    assert_workshop_is_empty(&ground);
}

#[test]
fn archives_are_swept_after_their_time() {
    let ground = Ground::new();
    let fs = ground.open();
    let stamp = |hours: i64| {
        (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours)).strftime("%Y%m%dT%H%M%SZ").to_string()
    };
    let (old, young, future) = (stamp(50), stamp(40), stamp(-10));
    for name in [format!("a-{old}"), format!("a-{young}"), format!("a-{future}"), String::from("notes")] {
        std::fs::create_dir(ground.at(".archive").join(name)).unwrap();
    }
    assert_eq!(fs.sweep_archives(std::time::Duration::from_hours(48)).unwrap(), 1);
    assert_eq!(fs.sweep_archives(std::time::Duration::from_hours(48)).unwrap(), 0);
    let left = tree(&ground.at(".archive"));
    assert_eq!(left, BTreeSet::from([format!("a-{young}/"), format!("a-{future}/"), String::from("notes/")]));
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let ground = Ground::new();
    let fs = ground.open();
    let tenant = |name| Subdomain::parse(name).unwrap();
    std::fs::create_dir(ground.at("theirs")).unwrap();
    std::fs::write(ground.at("theirs/compose.yaml"), "services: {}").unwrap();
    std::fs::create_dir(ground.at("empty")).unwrap();
    assert!(matches!(fs.may_create(&tenant("theirs")), Err(FsError::Occupied(_))));
    for free in ["empty", "new"] {
        fs.may_create(&tenant(free)).unwrap();
    }
    assert_eq!(std::fs::read_to_string(ground.at("theirs/compose.yaml")).unwrap(), "services: {}");
}

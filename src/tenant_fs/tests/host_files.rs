//! The agent's own files: the cordon, the list of pulled images, the reserve.

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

#[test]
fn the_reserve_is_made_at_start_and_again_after_it_went() {
    let ground = Ground::new();
    let reserve = ground.at(".agent/reserve");
    let size = || std::fs::metadata(&reserve).map(|file| file.len()).unwrap_or_default();
    let fs = ground.open();
    let whole = size();
    assert!(whole > 0);
    let urgent = fs.host.with_reserve(|| if size() > 0 { Err(FsError::NoSpace) } else { Ok(()) });
    urgent.unwrap();
    assert_eq!(size(), 0);
    // There is nothing left to give.
    assert!(matches!(fs.host.with_reserve(|| Err::<(), _>(FsError::NoSpace)), Err(FsError::NoSpace)));
    fs.create(&record("a", 1)).unwrap();
    fs.end(&sub("a"), &[]).unwrap();
    assert_eq!(size(), whole);
    drop(fs);
    // Half of one, from a crash of an older kind, is replaced.
    std::fs::write(&reserve, "x").unwrap();
    ground.open();
    assert_eq!(size(), whole);
}

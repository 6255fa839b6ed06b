//! How much disk a tenant takes, whatever it has put there.

use std::os::unix::fs::symlink;

use super::*;

fn tenant() -> (Ground, TenantFs) {
    let ground = Ground::new();
    let fs = ground.open();
    fs.create(&record("a", 0)).unwrap();
    fs.ensure_data_directory(&sub("a"), "data/db", 0, 0).unwrap();
    (ground, fs)
}

fn size(fs: &TenantFs) -> DirectorySize {
    fs.size(&sub("a"), &|| true).unwrap().unwrap()
}

const BLOCK: u64 = 64 << 10;

fn write(path: &Path) {
    std::fs::write(path, vec![7_u8; usize::try_from(BLOCK).unwrap()]).unwrap();
}

#[test]
fn data_counts_for_itself_and_with_the_rest() {
    let (ground, fs) = tenant();
    let empty = size(&fs);
    assert!(empty.complete && empty.total >= empty.data, "{empty:?}");
    write(&ground.at("a/data/db/one"));
    let one = size(&fs);
    assert!((BLOCK..2 * BLOCK).contains(&(one.data - empty.data)), "{empty:?} {one:?}");
    assert_eq!(one.total - empty.total, one.data - empty.data);
    write(&ground.at("a/page"));
    let page = size(&fs);
    assert_eq!(page.data, one.data);
    assert!((BLOCK..2 * BLOCK).contains(&(page.total - one.total)), "{one:?} {page:?}");
    // A directory of that name deeper down is not `data/`.
    std::fs::create_dir_all(ground.at("a/conf/data")).unwrap();
    write(&ground.at("a/conf/data/file"));
    let deeper = size(&fs);
    assert_eq!(deeper.data, page.data);
    assert!(deeper.total - page.total >= BLOCK, "{deeper:?}");
    assert_eq!(fs.size(&sub("nobody"), &|| true).unwrap(), None);
}

#[test]
fn links_are_not_followed_and_one_file_counts_once() {
    let (ground, fs) = tenant();
    let outside = ground.outside();
    write(&outside.join("large"));
    write(&ground.at("a/data/db/one"));
    let before = size(&fs);
    symlink(&outside, ground.at("a/data/away")).unwrap();
    symlink(outside.join("large"), ground.at("a/data/large")).unwrap();
    symlink("..", ground.at("a/data/round")).unwrap();
    for name in ["two", "three", "four"] {
        std::fs::hard_link(ground.at("a/data/db/one"), ground.at("a/data/db").join(name)).unwrap();
    }
    let after = size(&fs);
    assert!(after.complete && after.data - before.data < BLOCK, "{before:?} {after:?}");
    // The whole of data/ is a link: nothing of it is the tenant's.
    std::fs::rename(ground.at("a/data"), ground.at("a/moved")).unwrap();
    symlink(&outside, ground.at("a/data")).unwrap();
    assert_eq!(size(&fs).data, 0);
}

#[test]
fn too_much_is_not_counted_and_said_so() {
    let (ground, fs) = tenant();
    let mut deep = ground.at("a/data/db");
    for _ in 0..80 {
        deep = deep.join("d");
        std::fs::create_dir(&deep).unwrap();
    }
    assert!(!size(&fs).complete, "deeper than a walk goes");
    std::fs::remove_dir_all(ground.at("a/data/db/d")).unwrap();
    assert!(size(&fs).complete);
    for number in 0..40 {
        std::fs::write(ground.at("a/data/db").join(number.to_string()), "x").unwrap();
    }
    let few = fs.size_within(&sub("a"), 20, &|| true).unwrap().unwrap();
    let all = size(&fs);
    assert!(!few.complete && all.complete && few.total < all.total, "{few:?} {all:?}");
}

#[test]
fn a_walk_ends_when_the_agent_does() {
    let (ground, fs) = tenant();
    for number in 0..1200 {
        std::fs::write(ground.at("a/data/db").join(number.to_string()), "x").unwrap();
    }
    let stopped = fs.size(&sub("a"), &|| false).unwrap().unwrap();
    assert!(!stopped.complete && stopped.total < size(&fs).total, "{stopped:?}");
}

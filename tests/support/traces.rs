//! Where a secret would leave traces: the forms that it may have, and all that lies on a disk.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A text, and what of it is left in base64 wherever in the coded data it stands.
pub(crate) fn forms(canary: &str) -> Vec<String> {
    let mut all = vec![canary.to_owned()];
    for shift in 0..3 {
        let bytes = [&b"###"[..shift], canary.as_bytes()].concat();
        for coded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            // The first and last characters depend on what is around.
            all.push(coded[4..coded.len() - 4].to_owned());
        }
    }
    all
}

static CANARIES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Makes a text a canary: from now on every agent's log of this process is searched for it when the agent goes.
pub(crate) fn is_canary(text: &str) {
    CANARIES.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
}

/// The canaries, and these too, that are in a text in any form; each with the line it is in.
pub(crate) fn canaries_in(text: &str, more: &[&str]) -> Vec<(String, String)> {
    let canaries = CANARIES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let all = canaries.iter().map(String::as_str).chain(more.iter().copied());
    all.filter_map(|canary| {
        let form = forms(canary).into_iter().find(|form| text.contains(form))?;
        let line = text.lines().find(|line| line.contains(&form)).unwrap_or_default();
        Some((canary.to_owned(), line.to_owned()))
    })
    .collect()
}

/// Everything below a directory: path -> mode and content.
pub(crate) type Tree = BTreeMap<String, (u32, String)>;

/// A tenants root without what the agent notes about operations for a while: their records, and whom to look at again.
pub(crate) fn without_notes(mut tree: Tree) -> Tree {
    tree.retain(|path, _| {
        let is_note = |place: &str| path.strip_prefix(place).is_some_and(|name| !name.is_empty());
        !is_note(".agent/operations/") && !is_note(".agent/late/")
    });
    tree
}

/// Reads everything below a directory, hidden things too.
pub(crate) fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            // What goes away while it is read is not there.
            let Ok(meta) = path.symlink_metadata() else { continue };
            let name = path.strip_prefix(root).expect("it is below").display().to_string();
            let content = if meta.is_dir() {
                open.push(path);
                String::from("(a directory)")
            } else {
                std::fs::read(&path)
                    .map_or_else(|error| error.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
            };
            found.insert(name, (meta.permissions().mode(), content));
        }
    }
    found
}

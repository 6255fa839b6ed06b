//! Paths inside a container that are the kernel's: what is mounted over them would hide what the engine masks, and a
//! process that starts in them may hold descriptors of the runtime's (CVE-2024-21626).

use super::verdict::Verdict;
use crate::compose::{Hook, Service};

/// File systems of the kernel.
const OF_KERNEL: &[&str] = &["proc", "sys", "dev"];
/// What a container may have its own of.
const OWN: &[&str] = &["dev/shm", "dev/mqueue"];

pub(super) fn judge(field: &str, service: &Service, verdict: &mut Verdict) {
    let mounts = service.mounts.iter().enumerate().map(|(at, mount)| (format!("volumes[{at}]"), mount.target.as_str()));
    let tmpfs = service.tmpfs.iter().enumerate().map(|(at, mount)| (format!("tmpfs[{at}]"), mount.path.as_str()));
    let configs = service.configs.iter().enumerate().map(|(at, one)| (format!("configs[{at}]"), one.target.as_str()));
    let secrets = service.secrets.iter().enumerate().map(|(at, one)| (format!("secrets[{at}]"), one.target.as_str()));
    for (attribute, target) in mounts.chain(tmpfs).chain(configs).chain(secrets) {
        let parts = parts(target);
        let steps_up = target.split('/').any(|part| part == "..");
        verdict.refuse_if(
            steps_up || parts.is_empty() || is_of_kernel(&parts),
            format!("{field}.{attribute}"),
            "mount-target",
            "a path without .. that is not /, and not in /proc, /sys or /dev (but /dev/shm and /dev/mqueue)",
        );
    }
    let hooks = [("post_start", &service.post_start), ("pre_stop", &service.pre_stop)];
    let hooks = hooks.into_iter().flat_map(|(attribute, hooks)| {
        let place =
            move |(at, hook): (usize, &'_ Hook)| (format!("{attribute}[{at}].working_dir"), hook.working_dir.clone());
        hooks.iter().enumerate().map(place)
    });
    let own = std::iter::once(("working_dir".to_owned(), service.working_dir.clone()));
    for (attribute, directory) in own.chain(hooks) {
        verdict.refuse_if(
            directory.is_some_and(|directory| parts(&directory).first() == Some(&"proc")),
            format!("{field}.{attribute}"),
            "working-dir",
            "a directory outside /proc",
        );
    }
}

/// The path's components after `.` and `..` have been followed as text.
fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

fn is_of_kernel(parts: &[&str]) -> bool {
    let joined = parts.join("/");
    OF_KERNEL.contains(&parts[0]) && !OWN.iter().any(|own| joined == *own || joined.starts_with(&format!("{own}/")))
}

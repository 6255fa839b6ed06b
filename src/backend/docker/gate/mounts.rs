//! What a container mounts: a source on the host is looked at as text, and what is at the path is the agent's work.

use bollard::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation, MountTmpfsOptions, MountType,
    MountVolumeOptions,
};

use super::{Allowance, Known, Verdict, demand, is_at_or_below};

/// Host files that many images expect, and that tell a container nothing it could not ask.
const HOST_FILES: &[&str] = &["/etc/localtime", "/etc/timezone"];

/// Options of a tmpfs (tmpfs(5), mount(8)); none of these turns it into another kind of mount.
const TMPFS_WORDS: &[&str] = &[
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "relatime",
    "ro",
    "rprivate",
    "rw",
    "strictatime",
    "suid",
    "sync",
];
const TMPFS_VALUES: &[&str] = &["gid", "huge", "mode", "mpol", "nr_blocks", "nr_inodes", "size", "uid"];

fn is_clean(path: &str) -> bool {
    let parts = path.strip_prefix('/');
    parts.is_some_and(|parts| parts.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0')))
}

/// Whether options of a tmpfs are no more than that.
pub(super) fn is_tmpfs_option(option: &str) -> bool {
    match option.split_once('=') {
        Some((name, _)) => TMPFS_VALUES.contains(&name),
        None => option.is_empty() || TMPFS_WORDS.contains(&option),
    }
}

impl Allowance<'_> {
    pub(super) fn judge_mounts(&self, mounts: &[Mount], known: &Known<'_>) -> Verdict {
        for (at, mount) in mounts.iter().enumerate() {
            let field = format!("HostConfig.Mounts[{at}]");
            if self.confines() {
                self.judge_mount(&field, mount, known)?;
            } else {
                self.judge_trusted_mount(&field, mount)?;
            }
        }
        if self.confines() { self.judge_nesting(mounts) } else { Ok(()) }
    }

    fn judge_mount(&self, field: &str, mount: &Mount, known: &Known<'_>) -> Verdict {
        let Mount {
            target,
            source,
            typ,
            read_only,
            consistency: _,
            bind_options,
            volume_options,
            image_options,
            tmpfs_options,
        } = mount;
        let has_target = target.as_deref().is_some_and(|target| target.starts_with('/'));
        demand(has_target, format!("{field}.Target"), "an absolute path")?;
        demand(image_options.is_none(), format!("{field}.ImageOptions"), "none")?;
        let is = |kind: MountType| *typ == Some(kind);
        demand(is(MountType::BIND) || bind_options.is_none(), format!("{field}.BindOptions"), "for binds only")?;
        demand(
            is(MountType::VOLUME) || volume_options.is_none(),
            format!("{field}.VolumeOptions"),
            "for volumes only",
        )?;
        demand(is(MountType::TMPFS) || tmpfs_options.is_none(), format!("{field}.TmpfsOptions"), "for tmpfs only")?;
        match typ {
            Some(MountType::BIND) => {
                let source = source.as_deref().unwrap_or_default();
                let allowed = self.may_bind(source, *read_only == Some(true));
                demand(allowed, format!("{field}.Source"), "a path that this tenant may mount so")?;
                bind_options.as_ref().map_or(Ok(()), |options| judge_bind_options(field, options))
            }
            Some(MountType::VOLUME) => {
                let allowed = source.as_deref().is_none_or(|source| self.may_mount_volume(source, known));
                demand(allowed, format!("{field}.Source"), "a volume of this project")?;
                let Some(options) = volume_options else { return Ok(()) };
                let MountVolumeOptions { no_copy: _, labels, driver_config, subpath } = options;
                demand(driver_config.is_none(), format!("{field}.VolumeOptions.DriverConfig"), "none")?;
                let is_inside = |path: &String| !path.split('/').any(|part| part == "..") && !path.starts_with('/');
                demand(
                    subpath.as_ref().is_none_or(is_inside),
                    format!("{field}.VolumeOptions.Subpath"),
                    "inside the volume",
                )?;
                self.judge_own_labels(&format!("{field}.VolumeOptions.Labels"), labels.as_ref())
            }
            Some(MountType::TMPFS) => {
                demand(source.is_none(), format!("{field}.Source"), "none")?;
                let Some(options) = tmpfs_options else { return Ok(()) };
                let MountTmpfsOptions { size_bytes: _, mode: _, options } = options;
                demand(options.is_none(), format!("{field}.TmpfsOptions.Options"), "none")
            }
            Some(MountType::CLUSTER | MountType::IMAGE | MountType::NPIPE) | None => {
                demand(false, format!("{field}.Type"), "bind, volume or tmpfs")
            }
        }
    }

    /// An operator's own stack may mount everything but what the agent keeps.
    fn judge_trusted_mount(&self, field: &str, mount: &Mount) -> Verdict {
        let labels = mount.volume_options.as_ref().and_then(|options| options.labels.as_ref());
        self.judge_own_labels(&format!("{field}.VolumeOptions.Labels"), labels)?;
        if mount.typ != Some(MountType::BIND) {
            return Ok(());
        }
        let source = mount.source.as_deref().unwrap_or_default();
        let allowed = self.is_mounted_file(source, mount.read_only == Some(true))
            || (is_clean(source) && !self.reaches_agent(source));
        demand(allowed, format!("{field}.Source"), "an absolute, clean path that does not reach the agent's own files")
    }

    /// Whether a confined container may mount this path of the host.
    pub(super) fn may_bind(&self, source: &str, read_only: bool) -> bool {
        if !is_clean(source) {
            return false;
        }
        let inside = source.strip_prefix(self.directory).and_then(|rest| rest.strip_prefix('/'));
        if let Some(inside) = inside {
            return match inside.split('/').next().unwrap_or_default() {
                ".agent" => self.is_mounted_file(source, read_only),
                ".env" | "compose.yaml" => false,
                "data" => true,
                _ => read_only,
            };
        }
        if HOST_FILES.contains(&source) {
            return read_only;
        }
        // Below a directory that containers may write, a link could lead anywhere.
        let granted = self.grants.binds.iter().any(|grant| {
            (read_only || grant.read_write)
                && (source == grant.path || (!grant.read_write && is_at_or_below(source, &grant.path)))
        });
        granted && !self.reaches_agent(source)
    }

    /// A config or secret, which the agent has written for this tenant.
    fn is_mounted_file(&self, source: &str, read_only: bool) -> bool {
        let name = source.strip_prefix(self.directory).and_then(|rest| rest.strip_prefix("/.agent/mounts/"));
        read_only && name.is_some_and(|name| !name.contains('/') && !matches!(name, "" | "." | ".."))
    }

    /// Whether a path is, is in or holds an `.agent` directory of the tenants root, this tenant's or another's.
    fn reaches_agent(&self, source: &str) -> bool {
        let own = format!("{}/.agent", self.directory);
        if is_at_or_below(source, &own) || is_at_or_below(&own, source.trim_end_matches('/')) {
            return true;
        }
        let Some((root, _)) = self.directory.rsplit_once('/').filter(|(root, _)| !root.is_empty()) else {
            return false;
        };
        let Some(below) = source.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')) else { return false };
        let mut parts = below.split('/');
        parts.next() == Some(".agent") || parts.next().is_none_or(|second| second == ".agent")
    }

    fn may_mount_volume(&self, source: &str, known: &Known<'_>) -> bool {
        self.is_own_object(source) || known.inherited.contains_key(source)
    }

    /// Who writes a directory can put a link in the place of one below it, which the engine would follow.
    fn judge_nesting(&self, mounts: &[Mount]) -> Verdict {
        let data = format!("{}/data", self.directory);
        let binds = || mounts.iter().enumerate().filter(|(_, mount)| mount.typ == Some(MountType::BIND));
        for (at, mount) in binds() {
            let source = mount.source.as_deref().unwrap_or_default();
            let nested = is_at_or_below(source, &data)
                && binds().any(|(_, outer)| {
                    let path = outer.source.as_deref().unwrap_or_default();
                    outer.read_only != Some(true) && path != source && is_at_or_below(source, path)
                });
            demand(!nested, format!("HostConfig.Mounts[{at}].Source"), "not below another one that is writable")?;
        }
        Ok(())
    }
}

fn judge_bind_options(field: &str, options: &MountBindOptions) -> Verdict {
    let MountBindOptions {
        propagation,
        non_recursive: _,
        create_mountpoint,
        // Without it, what is mounted below stays as writable as the host has it; engines before API 1.44 know nothing else.
        read_only_non_recursive: _,
        read_only_force_recursive: _,
    } = options;
    let stays = matches!(propagation, None | Some(Propagation::EMPTY | Propagation::PRIVATE | Propagation::RPRIVATE));
    demand(stays, format!("{field}.BindOptions.Propagation"), "private or rprivate")?;
    demand(*create_mountpoint != Some(true), format!("{field}.BindOptions.CreateMountpoint"), "false")
}

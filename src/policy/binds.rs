//! Binds: where a source is, seen from the project directory, and what may be done with it.

use super::verdict::Verdict;
use super::{BindGrant, Grants, Ground};
use crate::compose::{Mount, MountSource, Project};
use crate::domain::ProjectPath;

/// Host files that many images expect, and that tell a container nothing it could not ask.
const HOST_FILES: &[&str] = &["/etc/localtime", "/etc/timezone"];

const IN_PROJECT: &str = "read-only: files of the request and directories of them; read-write: data/ and below; \
                          and /etc/localtime and /etc/timezone read-only";

/// Where a bind's source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// `data/` or below.
    Data,
    /// A file of the request, or a directory that holds some.
    Request,
    /// Inside the project directory, and nothing of the request or of `data/`.
    Missing,
    /// `.env` or `compose.yaml` of the project.
    OwnFile,
    /// The project directory itself.
    ProjectDirectory,
    /// Something that is, is in or holds an `.agent` directory, this tenant's or another's.
    Agent,
    /// One of the harmless host files.
    HostFile,
    /// Anywhere else on the host.
    Outside,
    /// Not an absolute, clean path.
    Unclean,
}

/// Where `source` is. Only text is looked at: what links the host has outside the project directory is the operator's affair.
pub(super) fn place(project: &Project, ground: &Ground<'_>, source: &str) -> Place {
    let is_clean = source == "/"
        || source.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")));
    if !is_clean {
        return Place::Unclean;
    }
    if let Some(inside) = project.relative(source) {
        return match inside.split('/').next().unwrap_or_default() {
            "" => Place::ProjectDirectory,
            ".agent" => Place::Agent,
            ".env" | "compose.yaml" => Place::OwnFile,
            "data" => Place::Data,
            _ if ground.files.iter().any(|file| is_at_or_below(file.as_str(), inside)) => Place::Request,
            _ => Place::Missing,
        };
    }
    if HOST_FILES.contains(&source) {
        return Place::HostFile;
    }
    if reaches_agent_dir(tenants_root(project), source) { Place::Agent } else { Place::Outside }
}

/// Whether a path outside the project directory is, is in or holds an `.agent` directory of this tenants root.
fn reaches_agent_dir(root: &str, source: &str) -> bool {
    if source == "/" || is_at_or_below(root, source) {
        return true;
    }
    // A project directory right below `/` is nobody's tenants root; it occurs when a file is only checked.
    let below = if root.is_empty() { None } else { source.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')) };
    below.is_some_and(|below| {
        let mut parts = below.split('/');
        let first = parts.next().unwrap_or_default();
        // The host's own, that of another tenant, or the whole directory of another tenant.
        first == ".agent" || parts.next().is_none_or(|second| second == ".agent")
    })
}

/// Whether `path` is `directory` or something below it.
pub(super) fn is_at_or_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The directory that holds the project's directory and those of the other tenants; empty when that is `/`.
fn tenants_root(project: &Project) -> &str {
    project.directory.rfind('/').map_or("", |at| &project.directory[..at])
}

/// The grant that covers a host path; what belongs to other tenants no grant covers. Below a directory that containers may write there is none: a link in it could lead
/// anywhere, and the engine follows links.
fn granted<'a>(grants: &'a Grants, project: &Project, source: &str) -> Option<&'a BindGrant> {
    let root = tenants_root(project);
    if !root.is_empty() && is_at_or_below(source, root) {
        return None;
    }
    grants.binds.iter().find(|grant| source == grant.path || (!grant.read_write && is_at_or_below(source, &grant.path)))
}

/// What baseline says about one bind.
pub(super) fn judge_baseline(
    grants: &Grants,
    project: &Project,
    ground: &Ground<'_>,
    field: &str,
    mount: &Mount,
    verdict: &mut Verdict,
) {
    let MountSource::Bind { source, create_host_path: _, propagation, selinux, recursive } = &mount.source else {
        return;
    };
    let read_write = mount.read_only == Some(false);
    let grant = granted(grants, project, source);
    match (place(project, ground, source), grant) {
        (Place::Data, _) => {}
        (Place::Request, _) => verdict.refuse_if(
            read_write,
            field,
            "bind-writable",
            "files of the request are mounted read-only; a container may write below data/ only",
        ),
        (Place::HostFile, _) => {
            verdict.refuse_if(read_write, field, "bind-writable", "this host file may be mounted read-only");
            // A new SELinux label would be put on the host's own file.
            verdict.refuse_if(selinux.is_some(), field, "bind-selinux", "host files keep their SELinux label");
        }
        (Place::Outside, Some(grant)) => {
            verdict.refuse_if(
                read_write && !grant.read_write,
                field,
                "bind-writable",
                "this path of the host may be mounted read-only",
            );
            verdict.refuse_if(selinux.is_some(), field, "bind-selinux", "host files keep their SELinux label");
        }
        (Place::Missing, _) => refuse_missing(field, verdict),
        (Place::OwnFile, _) => verdict.refuse(field, "bind-own-files", IN_PROJECT),
        (Place::ProjectDirectory, _) => verdict.refuse(field, "bind-project-directory", IN_PROJECT),
        (Place::Agent, _) => verdict.refuse(field, "bind-agent", IN_PROJECT),
        (Place::Outside | Place::Unclean, _) => verdict.refuse(field, "bind-outside", IN_PROJECT),
    }
    verdict.refuse_if(
        recursive.as_ref().is_some_and(|mode| mode == "writable"),
        field,
        "bind-recursive",
        "enabled, disabled or readonly: what is mounted below is read-only too",
    );
    let propagates = propagation.as_ref().is_some_and(|mode| !matches!(mode.as_str(), "rprivate" | "private"));
    verdict.refuse_if(propagates, field, "bind-propagation", "rprivate or private");
}

/// A source that lies below another read-write bind of the same project is refused: who writes the outer one can put a link
/// in the place of the inner one, and the engine, which resolves sources itself, would follow it out to the host.
pub(super) fn judge_nesting(project: &Project, verdict: &mut Verdict) {
    let binds: Vec<(String, &str, bool)> = project
        .services
        .iter()
        .flat_map(|(name, service)| {
            service.mounts.iter().enumerate().filter_map(move |(at, mount)| match &mount.source {
                MountSource::Bind { source, .. } => {
                    Some((format!("services.{name}.volumes[{at}]"), source.as_str(), mount.read_only != Some(true)))
                }
                _ => None,
            })
        })
        .collect();
    for (field, source, _) in &binds {
        // Only `data/` can be written: everything else was refused or becomes read-only.
        let in_data = |path: &str| project.relative(path).is_some_and(|inside| is_at_or_below(inside, "data"));
        let nested = in_data(source)
            && binds.iter().any(|(_, outer, writable)| {
                *writable && in_data(outer) && outer != source && is_at_or_below(source, outer)
            });
        verdict.refuse_if(
            nested,
            field.as_str(),
            "bind-nested",
            "a directory that is not below another directory that this tenant binds read-write",
        );
    }
}

/// What trusted says about one bind: it may be anything that exists and holds no `.agent`.
pub(super) fn judge_trusted(project: &Project, ground: &Ground<'_>, field: &str, mount: &Mount, verdict: &mut Verdict) {
    let MountSource::Bind { source, .. } = &mount.source else { return };
    match place(project, ground, source) {
        Place::Data | Place::Request | Place::OwnFile | Place::HostFile | Place::Outside => {}
        Place::Missing => refuse_missing(field, verdict),
        Place::ProjectDirectory | Place::Agent => verdict.refuse(
            field,
            "bind-agent",
            "any path that is not, is not in and does not hold an .agent directory of the tenants root",
        ),
        Place::Unclean => verdict.refuse(field, "bind-outside", "an absolute path without . and .."),
    }
}

fn refuse_missing(field: &str, verdict: &mut Verdict) {
    verdict.refuse(
        field,
        "bind-source-missing",
        "a path of a file in the request, of a directory that holds some, or below data/",
    );
}

/// Whether the agent makes this bind read-only because its author has not said a mode.
pub(super) fn becomes_read_only(grants: &Grants, project: &Project, ground: &Ground<'_>, mount: &Mount) -> bool {
    match &mount.source {
        MountSource::Bind { source, .. } if mount.read_only.is_none() => match place(project, ground, source) {
            Place::Request | Place::HostFile => true,
            Place::Outside => granted(grants, project, source).is_some_and(|grant| !grant.read_write),
            _ => false,
        },
        _ => false,
    }
}

/// Whether this absolute path is a file of the request.
pub(super) fn is_request_file(project: &Project, ground: &Ground<'_>, path: &str) -> bool {
    let inside = project.relative(path).and_then(|inside| ProjectPath::parse(inside).ok());
    inside.is_some_and(|inside| ground.files.contains(&inside))
}

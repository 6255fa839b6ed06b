//! A tenant's own `.agent/`: record, generations, journal, mounts; and a tenant's beginning and end.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use super::dir::{Dir, Mounts, Owner, absent_is_none, is_no_file};
use super::host::Purpose;
use super::record::read_record;
use super::{FsError, Journal, Record, StoredGeneration, TenantFs, sealed};
use crate::crash;
use crate::domain::{Generation, OperationKind, Subdomain};

pub(super) const AGENT_DIR: &str = ".agent";
const GENERATIONS: &str = "generations";
const MOUNTS: &str = "mounts";
const RECORD: &str = "record.json";
const JOURNAL: &str = "operation.json";

/// An open tenant directory with its `.agent/`.
pub(super) struct Home {
    /// The project directory.
    pub(super) project: Dir,
    /// Its `.agent/`.
    agent: Dir,
}

impl Home {
    /// Which generations are stored.
    pub(super) fn stored_generations(&self) -> Result<BTreeSet<Generation>, FsError> {
        let listing = FsError::io("listing the stored specifications");
        let Some(generations) = absent_is_none(self.agent.dir(GENERATIONS, Mounts::Stay)).map_err(&listing)? else {
            return Ok(BTreeSet::new());
        };
        let names = generations.names().map_err(&listing)?.collect::<Result<Vec<CString>, _>>().map_err(&listing)?;
        let number = |name: &CString| name.to_str().ok()?.strip_suffix(".json")?.parse().ok().map(Generation);
        Ok(names.iter().filter_map(number).collect())
    }
}

/// A tenant directory, and its record or why it cannot be read.
pub type Listed = (Subdomain, Result<Record, FsError>);

impl TenantFs {
    /// Every tenant directory with its record, or why the record cannot be read, by name. One tenant's damage hides no
    /// other tenant.
    pub fn tenants(&self) -> Result<Vec<Listed>, FsError> {
        let mut tenants = Vec::new();
        for tenant in self.names()? {
            let record = match self.host.root.has_dir(tenant.as_str()) {
                Ok(false) => continue,
                Ok(true) => self.record(&tenant).and_then(|found| found.ok_or(FsError::NoRecord(tenant.clone()))),
                Err(error) => Err(FsError::io("looking at the tenant's directory")(error)),
            };
            tenants.push((tenant, record));
        }
        tenants.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(tenants)
    }

    /// The tenant's record; none when there is no such tenant, or a directory of its name in which the agent was not.
    ///
    /// # Errors
    /// [`FsError::Corrupt`] also when the record is gone and something else of the tenant is there: its data is somebody's,
    /// and nobody can tell whose.
    pub fn record(&self, tenant: &Subdomain) -> Result<Option<Record>, FsError> {
        let reading = FsError::io("reading the record");
        let Some(project) = self.host.tenant_dir(tenant)? else { return Ok(None) };
        let Some(agent) = absent_is_none(project.dir(AGENT_DIR, Mounts::Stay)).map_err(&reading)? else {
            return Ok(None);
        };
        match agent.read(RECORD).map_err(unreadable(tenant, "record"))? {
            Some((bytes, _)) => read_record(tenant, &bytes).map(Some),
            None if has_only_begun(&project, &agent).map_err(&reading)? => Ok(None),
            // A purge has taken it away while this looked.
            None if self.host.tenant_dir(tenant)?.is_none() => Ok(None),
            None => Err(FsError::Corrupt { tenant: tenant.clone(), what: "record" }),
        }
    }

    /// Says so when there is a directory of a tenant's name without a record in it.
    pub fn check_record_or_nothing(&self, tenant: &Subdomain) -> Result<(), FsError> {
        let found = self.host.tenant_dir(tenant)?.is_some() && self.record(tenant)?.is_none();
        if found { Err(FsError::NoRecord(tenant.clone())) } else { Ok(()) }
    }

    /// Whether a new tenant may have its directory: it is not there, it is empty, or the agent has been in it.
    ///
    /// # Errors
    /// [`FsError::Occupied`] when it holds what the agent did not put there, which a purge would take.
    pub fn may_create(&self, tenant: &Subdomain) -> Result<(), FsError> {
        let looking = FsError::io("looking at the tenant's directory");
        let Some(project) = self.host.tenant_dir(tenant)? else { return Ok(()) };
        let is_ours = project.has_dir(AGENT_DIR).map_err(&looking)?;
        if is_ours || project.names().map_err(&looking)?.next().is_none() {
            Ok(())
        } else {
            Err(FsError::Occupied(tenant.clone()))
        }
    }

    /// Makes the directories of a new tenant with its first record (generation NONE), all at once: no crash leaves a
    /// directory without a record. For a tenant that is there already it completes the directories and replaces the record.
    pub fn create(&self, record: &Record) -> Result<(), FsError> {
        let _step = crash::step("create");
        let making = FsError::io("making the tenant's directory");
        let workshop = &self.host.workshop;
        if self.host.tenant_dir(&record.subdomain)?.is_none() {
            let (staged, project) = workshop.stage_dir(0o700).map_err(&making)?;
            let made = fill_agent_dir(&project)
                .and_then(|agent| {
                    agent.create_file(RECORD, &sealed::seal(record), 0o600, None)?;
                    agent.sync()?;
                    project.sync()?;
                    workshop.place_dir(&staged, &self.host.root, record.subdomain.as_str())?;
                    self.host.root.sync()
                })
                .map_err(&making);
            if made.is_err() {
                // Nothing to remove when only the last sync failed; a leftover is cleared at the next start.
                workshop.drop_staged(&staged).ok();
            }
            return made;
        }
        let project = self.project_dir(&record.subdomain)?;
        fill_agent_dir(&project).map_err(&making)?;
        self.commit(record, OperationKind::Provision)
    }

    /// Writes a generation's specification where only the agent looks.
    ///
    /// # Errors
    /// [`FsError::FileAndDirectory`] when its files cannot all be on one disk.
    pub fn stage(&self, tenant: &Subdomain, generation: Generation, content: &StoredGeneration) -> Result<(), FsError> {
        let _step = crash::step("stage");
        super::project_files::check_paths(&content.spec)?;
        let staging = FsError::io("storing the specification");
        let generations = self.home(tenant)?.agent.dir(GENERATIONS, Mounts::Stay).map_err(&staging)?;
        self.host
            .workshop
            .write(&generations, &generation_file(generation), &sealed::seal(content), 0o600, None)
            .and_then(|()| generations.sync())
            .map_err(staging)
    }

    /// A stored generation.
    ///
    /// # Errors
    /// [`FsError::NoSuchGeneration`] when it was never stored or is gone.
    pub fn generation(&self, tenant: &Subdomain, generation: Generation) -> Result<StoredGeneration, FsError> {
        let generations = self.home(tenant)?.agent.dir(GENERATIONS, Mounts::Stay);
        let generations = generations.map_err(FsError::io("reading a stored specification"))?;
        let file = generations.read(generation_file(generation)).map_err(unreadable(tenant, "stored generation"))?;
        let (bytes, _) = file.ok_or_else(|| FsError::NoSuchGeneration { tenant: tenant.clone(), generation })?;
        sealed::unseal(&bytes).map_err(|_| FsError::Corrupt { tenant: tenant.clone(), what: "stored generation" })
    }

    /// A file below `.agent/mounts/` for a bind into containers. The name stands for all that follows it: one that
    /// exists is left alone, because a container may have it mounted.
    pub fn write_mount(
        &self,
        tenant: &Subdomain,
        name: &str,
        bytes: &[u8],
        uid: u32,
        gid: u32,
        mode: u32,
    ) -> Result<(), FsError> {
        let _step = crash::step("write_mount");
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > 128 || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(FsError::BadName {
                what: "a mounted file",
                rule: "1 to 128 of letters, digits and . _ -, not starting with a dot",
            });
        }
        let writing = FsError::io("writing a config or secret");
        let mounts = self.home(tenant)?.agent.dir(MOUNTS, Mounts::Stay).map_err(&writing)?;
        if mounts.stat_of(name).map_err(&writing)?.is_some() {
            return Ok(());
        }
        self.host
            .workshop
            .write(&mounts, name, bytes, mode, Some(Owner { uid, gid }))
            .and_then(|()| mounts.sync())
            .map_err(writing)
    }

    /// Writes the journal: from here on the operation is open.
    pub fn begin(&self, tenant: &Subdomain, journal: &Journal) -> Result<(), FsError> {
        let _step = crash::step("journal");
        self.replace(tenant, JOURNAL, &sealed::seal(journal), journal.kind.into(), "writing the journal")
    }

    /// The open operation; none when there is none, or no such tenant.
    pub fn journal(&self, tenant: &Subdomain) -> Result<Option<Journal>, FsError> {
        let home = match self.home(tenant) {
            Err(FsError::NoSuchTenant(_) | FsError::NoRecord(_)) => return Ok(None),
            other => other?,
        };
        let file = home.agent.read(JOURNAL).map_err(unreadable(tenant, "journal"))?;
        let damaged = |_| FsError::Corrupt { tenant: tenant.clone(), what: "journal" };
        file.map(|(bytes, _)| sealed::unseal(&bytes).map_err(damaged)).transpose()
    }

    /// What in the root has a name that a tenant can have.
    fn names(&self) -> Result<Vec<Subdomain>, FsError> {
        let listing = FsError::io("listing the tenants");
        let names = self.host.root.names().map_err(&listing)?;
        let names = names.collect::<Result<Vec<CString>, _>>().map_err(&listing)?;
        Ok(names.iter().filter_map(|name| Subdomain::parse(name.to_str().ok()?).ok()).collect())
    }

    /// When the open journals of all tenants were written.
    pub fn open_journals(&self) -> Result<Vec<SystemTime>, FsError> {
        let looking = FsError::io("looking for journals");
        let mut open = Vec::new();
        for tenant in self.names()? {
            // One that cannot be opened has been told of elsewhere.
            let Ok(home) = self.home(&tenant) else { continue };
            if let Some(stat) = home.agent.stat_of(JOURNAL).map_err(&looking)? {
                open.push(UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0)));
            }
        }
        Ok(open)
    }

    /// Replaces the record durably: the commit. `by` is the operation that it is for.
    pub fn commit(&self, record: &Record, by: OperationKind) -> Result<(), FsError> {
        let _step = crash::step("record");
        self.replace(&record.subdomain, RECORD, &sealed::seal(record), by.into(), "writing the record")
    }

    /// Ends the open operation: removes generations that the record does not name and mounts that are not in `mounts`,
    /// then the journal. The journal goes last, so that a crash in between only makes the next start call this again.
    pub fn end(&self, tenant: &Subdomain, mounts: &[String]) -> Result<(), FsError> {
        let _step = crash::step("end");
        let ending = FsError::io("ending the operation");
        let Some(record) = self.record(tenant)? else { return Ok(()) };
        let home = self.home(tenant)?;
        let kept = [Some(record.generation), record.previous];
        let unnamed = home.stored_generations()?.into_iter().filter(|generation| !kept.contains(&Some(*generation)));
        self.remove_files(&home, GENERATIONS, unnamed.map(generation_file))?;
        if let Some(dir) = absent_is_none(home.agent.dir(MOUNTS, Mounts::Stay)).map_err(&ending)? {
            let names = dir.names().map_err(&ending)?.collect::<Result<Vec<CString>, _>>().map_err(&ending)?;
            let used = |name: &CString| mounts.iter().any(|mount| mount.as_bytes() == name.as_bytes());
            self.remove_files(&home, MOUNTS, names.into_iter().filter(|name| !used(name)))?;
        }
        if home.agent.remove_file(JOURNAL).map_err(&ending)? {
            home.agent.sync().map_err(&ending)?;
        }
        self.refill_spares();
        Ok(())
    }

    /// Deletes the tenant's directory (`data/` included) and its archives. Repeatable. The directory is gone at once;
    /// what then cannot be deleted (because something is mounted below it) is tried again at the next start.
    pub fn purge(&self, tenant: &Subdomain) -> Result<(), FsError> {
        let _step = crash::step("purge");
        // Archives first: once the directory is gone nobody knows of the tenant any more.
        self.remove_archives(tenant)?;
        let discarded = self.host.workshop.discard(&self.host.root, tenant.as_str());
        discarded.map_err(FsError::io("deleting the tenant's files"))?;
        self.refill_spares();
        Ok(())
    }

    /// Makes the spare files again that were used, if there is room by now.
    pub fn refill_spares(&self) {
        self.host.spares.refill(&self.host.workshop);
    }

    /// Opens the project directory.
    pub(super) fn project_dir(&self, tenant: &Subdomain) -> Result<Dir, FsError> {
        self.host.tenant_dir(tenant)?.ok_or_else(|| FsError::NoSuchTenant(tenant.clone()))
    }

    /// Opens the project directory and its `.agent/`.
    pub(super) fn home(&self, tenant: &Subdomain) -> Result<Home, FsError> {
        let project = self.project_dir(tenant)?;
        match project.dir(AGENT_DIR, Mounts::Stay) {
            Ok(agent) => Ok(Home { project, agent }),
            Err(Errno::NOENT) => Err(FsError::NoRecord(tenant.clone())),
            Err(other) => Err(FsError::io("opening the tenant's directory")(other)),
        }
    }

    fn replace(
        &self,
        tenant: &Subdomain,
        name: &str,
        bytes: &[u8],
        purpose: Purpose,
        what: &'static str,
    ) -> Result<(), FsError> {
        let agent = self.home(tenant)?.agent;
        self.host.write(&agent, name, bytes, purpose).map_err(FsError::io(what))
    }

    fn remove_files(
        &self,
        home: &Home,
        place: &str,
        names: impl Iterator<Item = impl Into<Vec<u8>>>,
    ) -> Result<(), FsError> {
        let removing = FsError::io("removing what is no longer needed");
        let Some(dir) = absent_is_none(home.agent.dir(place, Mounts::Stay)).map_err(&removing)? else { return Ok(()) };
        let mut removed = false;
        for name in names {
            let name = CString::new(name).expect("names come from a listing and have no NUL");
            self.host.workshop.discard(&dir, name.as_c_str()).map_err(&removing)?;
            removed = true;
        }
        if removed { dir.sync().map_err(&removing) } else { Ok(()) }
    }
}

/// Whether a directory holds nothing but what comes before a first record.
fn has_only_begun(project: &Dir, agent: &Dir) -> rustix::io::Result<bool> {
    for (dir, known) in [(project, &[AGENT_DIR][..]), (agent, &[GENERATIONS, MOUNTS])] {
        for name in dir.names()? {
            let name = name?;
            if !known.iter().any(|known| known.as_bytes() == name.as_bytes()) {
                return Ok(false);
            }
        }
    }
    for below in [GENERATIONS, MOUNTS] {
        if let Some(dir) = absent_is_none(agent.dir(below, Mounts::Stay))?
            && dir.names()?.next().is_some()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The directories below a project directory's `.agent/`, as far as they are missing.
fn fill_agent_dir(project: &Dir) -> rustix::io::Result<Dir> {
    let agent = project.dir_or_create(AGENT_DIR, 0o700)?;
    agent.dir_or_create(GENERATIONS, 0o700)?;
    agent.dir_or_create(MOUNTS, 0o700)?;
    Ok(agent)
}

fn generation_file(generation: Generation) -> String {
    format!("{generation}.json")
}

/// What is no file where one of the agent's should be is damage as well.
fn unreadable(tenant: &Subdomain, what: &'static str) -> impl Fn(Errno) -> FsError {
    move |error| match error {
        error if is_no_file(error) => FsError::Corrupt { tenant: tenant.clone(), what },
        other => FsError::io("reading the agent's own files")(other),
    }
}

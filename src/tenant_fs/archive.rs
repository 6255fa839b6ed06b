//! `.archive/`: the config files of torn-down tenants, kept for a while.
//!
//! A name is `{subdomain}-{time}` or `{subdomain}-{time}-{n}`, with the time in UTC as `20261121T103000Z`. A subdomain has no
//! capital letter, so the `T` tells where it ends: archives of `a` and of `a-b` cannot be mistaken for each other.

use std::ffi::CString;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustix::io::Errno;

use super::data::DATA_DIR;
use super::dir::{Dir, Mounts};
use super::spares::is_full;
use super::tenant::AGENT_DIR;
use super::{FsError, TenantFs};
use crate::crash;
use crate::domain::Subdomain;

const TIME: &str = "%Y%m%dT%H%M%SZ";

impl TenantFs {
    /// Moves the project files (not `data/`, not `.agent/`) to the archive; gives the archive's name. None if there is
    /// nothing to move. After a crash in between, a repeat moves the rest to an archive of its own.
    pub fn archive(&self, tenant: &Subdomain) -> Result<Option<String>, FsError> {
        let _step = crash::step("archive");
        let archiving = FsError::io("archiving the tenant's files");
        let Some(project) = self.host.tenant_dir(tenant)? else { return Ok(None) };
        let names = project.names().map_err(&archiving)?.collect::<Result<Vec<CString>, _>>().map_err(&archiving)?;
        let stays = |name: &CString| [DATA_DIR, AGENT_DIR].iter().any(|kept| kept.as_bytes() == name.as_bytes());
        let moving: Vec<CString> = names.into_iter().filter(|name| !stays(name)).collect();
        if moving.is_empty() {
            return Ok(None);
        }
        let (name, archive) = self.new_archive(tenant).map_err(&archiving)?;
        for entry in &moving {
            match project.rename(entry.as_c_str(), &archive, entry.as_c_str()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(other) => return Err(archiving(other)),
            }
        }
        archive.sync().and_then(|()| project.sync()).map_err(archiving)?;
        Ok(Some(name))
    }

    /// Deletes archives older than the retention time; gives how many. What is not named like an archive is left alone.
    pub fn sweep_archives(&self, retention: Duration) -> Result<usize, FsError> {
        let _step = crash::step("sweep");
        let now = Timestamp::now();
        self.remove_archives_if(|_, made| Duration::try_from(now.duration_since(made)).is_ok_and(|age| age > retention))
    }

    /// The archives of tenants that `wanted` says yes to, by name.
    pub fn archives_of(&self, wanted: impl Fn(&Subdomain) -> bool) -> Result<Vec<(String, Subdomain)>, FsError> {
        let listing = FsError::io("listing the archives");
        let mut found = Vec::new();
        for name in self.host.archives.names().map_err(&listing)? {
            let name = name.map_err(&listing)?;
            let Some(text) = name.to_str().ok() else { continue };
            if let Some((owner, _)) = parse_name(text).filter(|(owner, _)| wanted(owner)) {
                found.push((text.to_owned(), owner));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The last archive of this tenant that was made since then.
    pub fn archive_since(&self, tenant: &Subdomain, since: Timestamp) -> Result<Option<String>, FsError> {
        // Names tell whole seconds.
        let is_recent = |name: &String| parse_name(name).is_some_and(|(_, made)| made.as_second() >= since.as_second());
        let all = self.archives_of(|owner| owner == tenant)?;
        Ok(all.into_iter().map(|(name, _)| name).rfind(is_recent))
    }

    /// Deletes every archive of this tenant.
    pub fn remove_archives(&self, tenant: &Subdomain) -> Result<usize, FsError> {
        let _step = crash::step("remove_archives");
        self.remove_archives_if(|owner, _| owner == tenant)
    }

    fn remove_archives_if(&self, wanted: impl Fn(&Subdomain, Timestamp) -> bool) -> Result<usize, FsError> {
        let removing = FsError::io("removing archives");
        let archives = &self.host.archives;
        let names = archives.names().map_err(&removing)?.collect::<Result<Vec<CString>, _>>().map_err(&removing)?;
        let mut removed = 0;
        for name in names {
            let parsed = name.to_str().ok().and_then(parse_name);
            if parsed.is_some_and(|(owner, made)| wanted(&owner, made)) {
                self.host.workshop.discard(archives, name.as_c_str()).map_err(&removing)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn new_archive(&self, tenant: &Subdomain) -> rustix::io::Result<(String, Dir)> {
        let first = format!("{tenant}-{}", Timestamp::now().strftime(TIME));
        let mut name = first.clone();
        for number in 2.. {
            let archives = &self.host.archives;
            let made = match archives.create_dir(&name, 0o700, None) {
                Err(error) if is_full(error) => {
                    let placed = self.host.spares.place_dir(archives, &name);
                    placed.and_then(|()| archives.dir(name.as_str(), Mounts::Stay))
                }
                made => made,
            };
            match made {
                Err(Errno::EXIST) => name = format!("{first}-{number}"),
                Err(other) => return Err(other),
                Ok(archive) => {
                    archives.sync()?;
                    return Ok((name, archive));
                }
            }
        }
        Err(Errno::EXIST)
    }
}

/// Whose archive this is and when it was made.
fn parse_name(name: &str) -> Option<(Subdomain, Timestamp)> {
    let (before, _) = name.split_once('T')?;
    let (subdomain, date) = before.rsplit_once('-')?;
    let (time, number) = name[subdomain.len() + 1..].split_once('Z')?;
    let numbered = number.strip_prefix('-').is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()));
    if date.len() != 8 || !(number.is_empty() || numbered) {
        return None;
    }
    let made = DateTime::strptime(TIME, format!("{time}Z")).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some((Subdomain::parse(subdomain).ok()?, made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_to_one_tenant() {
        let cases = [
            ("a-20261121T103000Z", Some("a")),
            ("a-b-20261121T103000Z", Some("a-b")),
            ("a-20261121-20261121T103000Z", Some("a-20261121")),
            ("a-b-20261121T103000Z-12", Some("a-b")),
            ("a-20261121T103000Z-", None),
            ("a-20261121T103000Z-x", None),
            ("a-20261321T103000Z", None),
            ("a-20261121T103000", None),
            ("-20261121T103000Z", None),
            ("A-20261121T103000Z", None),
            ("20261121T103000Z", None),
            ("a", None),
            ("", None),
        ];
        for (name, owner) in cases {
            let parsed = parse_name(name);
            assert_eq!(parsed.as_ref().map(|(tenant, _)| tenant.as_str()), owner, "{name}");
            if let Some((_, made)) = parsed {
                assert_eq!(made.to_string(), "2026-11-21T10:30:00Z");
            }
        }
    }
}

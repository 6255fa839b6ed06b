//! Questions: list, status, images, logs, info, readiness. None of them takes a tenant's lock.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::Stream;
use tokio::time::Instant;

use super::mirror::{self, Entry};
use super::standing::Link;
use super::watching::ANSWER;
use super::{BackendSeen, Error, FeedEvent, Orchestrator, Readiness, SystemInfo, TenantStatus, Verified};
use crate::backend::{BackendError, FRESH_FOR, LogQuery, LogStream};
use crate::domain::{BackendName, ImageInfo, Subdomain};
use crate::tenant_fs::Record;

/// An answer in JSON, with the age of what it says.
pub struct Text {
    /// The whole answer.
    pub body: Bytes,
    /// The same for two answers that differ in their age only.
    pub tag: [u8; 16],
}

impl Text {
    fn new(head: &[u8], age_ms: u64, tail: &[u8], tag: [u8; 16]) -> Self {
        /// The longest number there is.
        const DIGITS: usize = 20;
        let mut body = BytesMut::with_capacity(head.len() + DIGITS + tail.len());
        body.put_slice(head);
        body.put_slice(age_ms.to_string().as_bytes());
        body.put_slice(tail);
        Self { body: body.freeze(), tag }
    }
}

fn millis_since(moment: Instant) -> u64 {
    u64::try_from(moment.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Orchestrator {
    /// Every tenant, one line each, from memory. Of those that are not on the default backend the list tells what is known,
    /// and says so if that is old: one backend that is away hides no tenant of another.
    pub async fn list(&self) -> Result<Text, Error> {
        self.until_in_step(self.inner.settings.default_backend).await?;
        let unread: Vec<Record> = {
            let up = self.inner.mirror.tenants.iter().filter(|entry| entry.record.is_live() && entry.shape.is_none());
            up.map(|entry| entry.record.clone()).collect()
        };
        for record in unread {
            // Its line says that it cannot be read.
            let _ = Box::pin(self.shape(&record)).await;
        }
        let mut oldest = Instant::now();
        let mut lines: Vec<(Subdomain, Bytes, [u8; 16])> = Vec::with_capacity(self.inner.mirror.tenants.len());
        for mut entry in self.inner.mirror.tenants.iter_mut() {
            let current = self.inner.operations.current(entry.key());
            let tenant = entry.key().clone();
            if entry.is_live() && self.is_out_of_sight(&entry) {
                let line = entry.stale_line(current);
                lines.extend(line.map(|line| (tenant, line.clone(), mirror::tag([&line[..]]))));
                continue;
            }
            if entry.is_live() {
                oldest = oldest.min(self.inner.mirror.as_of(&entry).unwrap_or(oldest));
            }
            lines.extend(entry.written(current).map(|written| (tenant, written.line.clone(), written.tag)));
        }
        for (tenant, mut entry) in self.stray_entries() {
            let line = if self.is_out_of_sight(&entry) {
                entry.stale_line(None)
            } else {
                entry.written(None).map(|written| written.line.clone())
            };
            lines.extend(line.map(|line| (tenant, line.clone(), mirror::tag([&line[..]]))));
        }
        let damaged = self.inner.mirror.damaged.iter().map(|known| (known.key().clone(), known.clone()));
        for (tenant, known) in damaged.collect::<Vec<_>>() {
            let operation = self.inner.operations.current(&tenant).map(|current| current.operation);
            let line = known.line(&tenant, operation);
            lines.extend(line.map(|line| (tenant, line.clone(), mirror::tag([&line[..]]))));
        }
        lines.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        let mut tail = BytesMut::with_capacity(lines.iter().map(|(_, line, _)| line.len() + 1).sum::<usize>() + 16);
        tail.put_slice(b",\"tenants\":[");
        for (number, (_, line, _)) in lines.iter().enumerate() {
            if number > 0 {
                tail.put_u8(b',');
            }
            tail.put_slice(line);
        }
        tail.put_slice(b"]}");
        // A line that is not new is in a status that is not new.
        let tag = mirror::tag(lines.iter().map(|(.., tag)| &tag[..]));
        Ok(Text::new(b"{\"age_ms\":", millis_since(oldest), &tail, tag))
    }

    /// Whether what is known of a tenant is old, or doubtful. For those on the default backend the list has waited.
    fn is_out_of_sight(&self, entry: &Entry) -> bool {
        let mirror = &self.inner.mirror;
        let is_old = || mirror.as_of(entry).is_none_or(|as_of| !mirror.is_fresh(entry, as_of));
        entry.doubted || entry.record.backend != self.inner.settings.default_backend && is_old()
    }

    /// One tenant in detail, from memory; with `fresh`, the backend is asked now.
    pub async fn status_text(&self, tenant: &Subdomain, fresh: bool) -> Result<Text, Error> {
        if !fresh && let Some(text) = self.status_at_once(tenant) {
            return Ok(text);
        }
        let known = tokio::time::timeout(ANSWER, Box::pin(self.know(tenant, fresh))).await;
        let unheld = known.map_err(|_| BackendError::Unavailable)??;
        let current = self.inner.operations.current(tenant);
        let write = |entry: &mut Entry| {
            let age = self.inner.mirror.as_of(entry).filter(|_| entry.is_live()).map_or(0, millis_since);
            let written = entry.written(current)?;
            Some(Text::new(&written.head, age, &written.tail, written.tag))
        };
        let text = match (unheld, self.inner.mirror.tenants.get_mut(tenant)) {
            (Some(mut entry), _) => write(&mut entry),
            (None, Some(mut entry)) => write(&mut entry),
            // It was purged this moment.
            (None, None) => return Err(Error::NoSuchTenant(tenant.clone())),
        };
        text.ok_or(Error::Internal)
    }

    /// The status as it was last written, when it is known to hold and no operation makes another one of it.
    pub fn status_at_once(&self, tenant: &Subdomain) -> Option<Text> {
        let (written, as_of) = {
            let entry = self.inner.mirror.tenants.get(tenant)?;
            let as_of = self.inner.mirror.as_of(&entry).filter(|_| entry.is_live())?;
            (entry.last_written()?, Some(as_of).filter(|as_of| self.inner.mirror.is_fresh(&entry, *as_of))?)
        };
        let known = self.inner.operations.current(tenant).is_none();
        known.then(|| Text::new(&written.head, millis_since(as_of), &written.tail, written.tag))
    }

    /// The same as [`Self::status_text`], to be looked at.
    pub async fn status(&self, tenant: &Subdomain) -> Result<TenantStatus, Error> {
        let unheld = self.know(tenant, false).await?;
        let current = self.inner.operations.current(tenant);
        let status = |entry: &Entry| entry.status(current, self.inner.mirror.as_of(entry).map_or(0, millis_since));
        match (unheld, self.inner.mirror.tenants.get(tenant)) {
            (Some(entry), _) => Ok(status(&entry)),
            (None, Some(entry)) => Ok(status(&entry)),
            (None, None) => Err(Error::NoSuchTenant(tenant.clone())),
        }
    }

    /// Makes sure that the mirror has the truth about a tenant, or says that nobody has it. A tenant that is on record but
    /// not in the mirror, because its first provision is under way, is given back, and so is one whose record is lost.
    async fn know(&self, tenant: &Subdomain, fresh: bool) -> Result<Option<Entry>, Error> {
        let held = self.inner.mirror.tenants.get(tenant).map(|entry| self.is_known(&entry, fresh));
        let record = match held {
            Some(None) => return Ok(None),
            Some(Some(record)) => record,
            None => {
                let Some(record) = self.record(tenant).await? else {
                    let stray = self.stray_entry(tenant, fresh).await?;
                    return stray.map(Some).ok_or_else(|| Error::NoSuchTenant(tenant.clone()));
                };
                if !record.is_live() {
                    return Ok(Some(Entry::new(&record)));
                }
                // Its record could not be read at the start, or is being written just now.
                self.found_on_record(&record);
                if self.record(tenant).await?.is_none() {
                    self.off_record(tenant);
                    return Err(Error::NoSuchTenant(tenant.clone()));
                }
                record
            }
        };
        self.shape(&record).await?;
        let is_old =
            || self.inner.mirror.tenants.get(tenant).is_some_and(|entry| self.is_known(&entry, fresh).is_some());
        // Where the watch is slow, a look at the one tenant is sooner there.
        let is_slow = |link: &Link| link.fresh_for > FRESH_FOR;
        if !fresh && is_old() && !self.inner.mirror.links.get(&record.backend).is_some_and(is_slow) {
            self.until_in_step(record.backend).await?;
        }
        if is_old() {
            self.look(&record).await?;
        }
        Ok(None)
    }

    /// None when the entry is fit to be told; else its record.
    fn is_known(&self, entry: &Entry, fresh: bool) -> Option<Record> {
        let needs_truth = entry.is_live();
        let mirror = &self.inner.mirror;
        let is_fresh = || mirror.as_of(entry).is_some_and(|as_of| mirror.is_fresh(entry, as_of));
        let known = !needs_truth || (!fresh && entry.shape.is_some() && is_fresh());
        (!known).then(|| entry.record.clone())
    }

    /// Waits until the mirror is in step with a backend, or until it is clear that the backend is away.
    async fn until_in_step(&self, name: BackendName) -> Result<(), Error> {
        let link = self.inner.mirror.links.get(&name).ok_or(Error::BackendNotConfigured(name))?;
        let mut standing = link.standing.subscribe();
        let failures = standing.borrow().failures;
        let waiting = async {
            loop {
                let (in_step, failed) = {
                    let now = standing.borrow_and_update();
                    (now.in_step, now.failures - failures)
                };
                if in_step.is_some_and(|as_of| as_of.elapsed() <= link.fresh_for) {
                    return Ok(());
                }
                // The first attempt to fail may have begun before the backend was back.
                if failed >= 2 {
                    return Err(BackendError::Unavailable);
                }
                if in_step.is_none() {
                    link.wanted.notify_one();
                }
                standing.changed().await.map_err(|_| BackendError::Unavailable)?;
            }
        };
        let waited = tokio::time::timeout(ANSWER, waiting).await;
        Ok(waited.unwrap_or(Err(BackendError::Unavailable))?)
    }

    /// What happens to all tenants, or to one, from a cursor on. It never ends.
    pub fn events(
        &self,
        cursor: Option<&str>,
        tenant: Option<Subdomain>,
    ) -> impl Stream<Item = FeedEvent> + Send + use<> {
        self.inner.feed.read(cursor, tenant)
    }

    /// The images that a tenant's containers were made from.
    pub async fn images(&self, tenant: &Subdomain) -> Result<Vec<ImageInfo>, Error> {
        let (backend, tenant, _) = self.whereabouts(tenant).await?;
        Ok(self.backend(backend)?.images(&tenant).await?)
    }

    /// The log lines of a tenant.
    pub async fn logs(&self, tenant: &Subdomain, query: &LogQuery) -> Result<LogStream, Error> {
        let (backend, reference, record) = self.whereabouts(tenant).await?;
        // Which services there are nobody knows of one whose record is lost, and is not settled before the first commit.
        if let Some(record) = record {
            let loaded = self.committed(&record).await?;
            if let Some(unknown) = query.services.iter().find(|name| loaded.deployment.service(name).is_none()) {
                return Err(Error::NoSuchService { subdomain: tenant.clone(), service: unknown.clone() });
            }
        }
        Ok(self.backend(backend)?.logs(&reference, query).await?)
    }

    /// The agent and the machine it runs on.
    pub async fn info(&self) -> SystemInfo {
        let settings = &self.inner.settings;
        let backend = &self.inner.backends[&settings.default_backend];
        let tenants = self.disk(crate::tenant_fs::TenantFs::tenants).await.unwrap_or_default();
        let host = backend.host().await.ok();
        let verified = Verified {
            api_on_loopback: settings.listens_on.is_loopback(),
            ports_on_loopback: settings.publish_host.is_loopback(),
            subnet_pool_is_free: backend.is_pool_free().await,
            engine: host.as_ref().map(|host| host.guards).unwrap_or_default(),
            metadata_closed: None,
            host_closed: None,
        };
        let on = |name: BackendName| {
            let there = |record: &Record| record.backend == name && record.is_live();
            tenants.iter().filter(|(_, record)| record.as_ref().is_ok_and(there)).count()
        };
        let backends = self.inner.backends.iter().map(|(name, backend)| BackendSeen {
            name: *name,
            regions: backend.regions().to_vec(),
            capabilities: backend.capabilities(),
            tenants: on(*name),
        });
        SystemInfo {
            version: env!("CARGO_PKG_VERSION"),
            agent: self.inner.fs.agent_id().as_str().to_owned(),
            backend: settings.default_backend,
            backends: backends.collect(),
            policy: settings.policy.profile().as_str(),
            capabilities: backend.capabilities(),
            host,
            verified,
            tenants: tenants.iter().filter(|(_, record)| record.as_ref().is_ok_and(|record| !record.kept)).count(),
            max_tenants: settings.max_tenants,
            uptime_s: self.inner.started.elapsed().as_secs(),
        }
    }

    /// Whether a client's address is a tenant's.
    pub fn is_tenant_address(&self, address: IpAddr) -> bool {
        self.inner.backends.values().any(|backend| backend.is_tenant_address(address))
    }

    /// What `/health` and `/ready` say.
    pub async fn readiness(&self) -> Readiness {
        let backend = &self.inner.backends[&self.inner.settings.default_backend];
        let (health, away) = tokio::join!(backend.health(), self.others_away());
        let usable = health.is_ok();
        if !usable {
            self.doubt(self.inner.settings.default_backend);
        }
        let inventory = self.inner.inventory_done.load(Ordering::Acquire);
        let mut degraded: Vec<String> = self.to_recover().iter().map(|tenant| format!("tenant:{tenant}")).collect();
        let unreadable = self.inner.mirror.tenants.iter().filter(|entry| entry.is_unreadable());
        degraded.extend(unreadable.map(|entry| format!("tenant:{}", entry.key())));
        degraded.extend(away.into_iter().map(|name| format!("backend:{name}")));
        degraded.sort();
        degraded.dedup();
        if !inventory {
            degraded.insert(0, "inventory".to_owned());
        }
        if !usable {
            degraded.insert(0, "backend".to_owned());
        }
        Readiness { ready: usable && inventory && !self.inner.stopping.is_cancelled(), degraded }
    }
}

//! Keeps the mirror true: by what the backends' watches tell, and by a look after every operation.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;

use super::contained::contained;
use super::feed::Happening;
use super::load::Loaded;
use super::mirror::{Damaged, Entry};
use super::operations::Op;
use super::standing::Standing;
use super::summary::Shape;
use super::{Done, Error, Mutation, Orchestrator};
use crate::backend::{BackendError, FRESH_FOR, ObservedContainer, Sighting};
use crate::domain::{BackendName, ErrorCode, ServiceName, Subdomain};
use crate::tenant_fs::Record;

/// Whoever asks is answered, or told that the backend is away, within this time (design: "within 5 s").
pub(super) const ANSWER: Duration = Duration::from_millis(4500);
/// Pauses between attempts to watch a backend that is away; one that is slow is asked as seldom as it would tell.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MOST: Duration = Duration::from_secs(2);

impl Orchestrator {
    /// Watches a backend for ever.
    pub(super) async fn watch_over(self, name: BackendName) {
        let Some(link) = self.inner.mirror.links.get(&name) else { return };
        let mut pause = PAUSE_FIRST;
        let longest = if link.fresh_for > FRESH_FOR { PAUSE_MOST.max(link.fresh_for / 2) } else { PAUSE_MOST };
        loop {
            let watched = contained(self.watch_once(name)).await;
            // It may come again at once: then nobody's question is to hurry it.
            let panicked = matches!(watched, Err(Error::Internal));
            match watched {
                Ok(()) => {
                    pause = PAUSE_FIRST;
                    tracing::warn!(backend = %name, "the watch of the backend has ended");
                }
                Err(error) => tracing::debug!(backend = %name, %error, "the backend cannot be watched"),
            }
            // From here on nothing is known any more of what the containers do.
            link.standing.send_modify(Standing::fail);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = link.wanted.notified(), if !panicked => {}
            }
            pause = (pause * 2).min(longest);
        }
    }

    /// Watches it until the watch ends.
    async fn watch_once(&self, name: BackendName) -> Result<(), Error> {
        let mut sightings = self.backend(name)?.watch().await?;
        while let Some(sighting) = sightings.next().await {
            self.see(name, sighting);
        }
        Ok(())
    }

    /// Takes in one thing that a watch tells.
    fn see(&self, name: BackendName, sighting: Sighting) {
        let mirror = &self.inner.mirror;
        match sighting {
            Sighting::All { containers, as_of } => {
                let mut of: HashMap<Subdomain, Vec<ObservedContainer>> = HashMap::new();
                for container in containers {
                    of.entry(container.tenant.clone()).or_default().push(container);
                }
                for mut entry in mirror.tenants.iter_mut().filter(|entry| entry.record.backend == name) {
                    let own = of.remove(entry.key()).unwrap_or_default();
                    self.alter(&mut entry, |entry| entry.saw_all(own, as_of));
                }
                for (tenant, containers) in &of {
                    if let (Some(mut known), Some(first)) = (mirror.damaged.get_mut(tenant), containers.first()) {
                        *known = Damaged { backend: name, id: Some(first.owner.clone()) };
                    }
                }
                for tenant in of.into_keys().chain(mirror.strays.on(name)) {
                    self.suspect(name, &tenant);
                }
                self.in_step(name, as_of, HashMap::new());
            }
            Sighting::InStep { as_of, behind } => {
                self.in_step(name, as_of, behind);
                // A crash loop ends when nothing happens, which nobody tells.
                for mut entry in mirror.tenants.iter_mut().filter(|entry| entry.has_loops()) {
                    self.alter(&mut entry, |_| {});
                }
                self.look_at_doubted(name);
            }
            Sighting::Changed { container, as_of } => {
                let tenant = container.tenant.clone();
                if !self.with(&tenant, |entry| entry.saw(*container, as_of)) {
                    self.suspect(name, &tenant);
                }
            }
            Sighting::Gone { tenant, container, as_of } => {
                if !self.with(&tenant, |entry| entry.lost(&container, as_of)) {
                    self.suspect(name, &tenant);
                }
            }
            Sighting::Ended(ended) => {
                let lag = jiff::Timestamp::now().duration_since(ended.at);
                let lag = Duration::try_from(lag).unwrap_or_default();
                if let Some(link) = mirror.links.get(&name) {
                    link.standing.send_if_modified(|standing| {
                        standing.heard(lag);
                        // Nobody waits for this.
                        false
                    });
                }
                let at = Instant::now().checked_sub(lag).unwrap_or_else(Instant::now);
                self.with(&ended.tenant, |entry| entry.ended(&ended, at));
            }
            Sighting::OutOfMemory { tenant, service, container } => {
                let Some(entry) = mirror.tenants.get(&tenant) else { return };
                if let Some(container) = entry.container(&container) {
                    let container = container.status.name.clone();
                    self.inner.feed.publish(&tenant, &Happening::OutOfMemory { service, container });
                }
            }
        }
    }

    /// Looks again at a tenant of which something is in doubt, one at a time and none twice before the others.
    fn look_at_doubted(&self, name: BackendName) {
        let mirror = &self.inner.mirror;
        let Some(Ok(turn)) = mirror.links.get(&name).map(|link| Arc::clone(&link.looking).try_lock_owned()) else {
            return;
        };
        let is_doubted = |entry: &Entry| entry.doubted && entry.record.backend == name && entry.is_live();
        let doubted: Vec<Record> =
            mirror.tenants.iter().filter(|entry| is_doubted(entry)).map(|entry| entry.record.clone()).collect();
        if doubted.is_empty() {
            return;
        }
        let passed = usize::try_from(self.inner.started.elapsed().as_secs()).unwrap_or_default();
        let record = doubted[passed % doubted.len()].clone();
        let this = self.clone();
        tokio::spawn(self.inner.stopping.clone().run_until_cancelled_owned(async move {
            let _turn = turn;
            // It stays in doubt, then.
            contained(this.look(&record)).await.ok();
        }));
    }

    fn in_step(&self, name: BackendName, as_of: Instant, behind: HashMap<Subdomain, Instant>) {
        if let Some(link) = self.inner.mirror.links.get(&name) {
            link.standing.send_modify(|standing| standing.step(as_of, behind));
        }
    }

    /// A call has found the backend away, which the watch may not have noticed yet.
    pub(super) fn doubt(&self, name: BackendName) {
        if let Some(link) = self.inner.mirror.links.get(&name) {
            link.standing.send_modify(Standing::doubt);
        }
    }

    /// Changes what is held of a tenant and tells the feed what that makes of it. False when nothing is held of it.
    pub(super) fn with(&self, tenant: &Subdomain, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(mut entry) = self.inner.mirror.tenants.get_mut(tenant) else { return false };
        self.alter(&mut entry, change);
        true
    }

    /// The same with the entry in hand. A panic about one tenant hides none of the others.
    fn alter(&self, entry: &mut Entry, change: impl FnOnce(&mut Entry)) {
        let changed = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let waiting = self.inner.degraded.get(&entry.record.subdomain);
            entry.has_open = waiting.is_some_and(|waiting| waiting.is_open());
            change(entry);
            self.tell(entry);
        }));
        if changed.is_err() {
            entry.doubted = true;
        }
    }

    fn tell(&self, entry: &mut Entry) {
        let tenant = entry.record.subdomain.clone();
        let current = self.inner.operations.current(&tenant);
        entry.tell(current.as_ref().is_some_and(|current| current.brings_up), |happening| {
            if matches!(happening, Happening::RestartLoop { .. }) {
                self.inner.metrics.restart_loop();
            }
            self.inner.feed.publish(&tenant, happening);
        });
        // What an operation is at is its to judge.
        let backend = self.inner.backends.get(&entry.record.backend);
        let limit = self.inner.settings.crash_loop_limit;
        let limit = limit.filter(|_| backend.is_some_and(|backend| backend.capabilities().single_service));
        if let (Some(limit), None) = (limit, current) {
            for service in entry.loop_too_long(limit) {
                self.break_loop(tenant.clone(), service);
            }
        }
    }

    /// Stops a service that has been in a crash loop for too long, as an operation like any other.
    fn break_loop(&self, tenant: Subdomain, service: ServiceName) {
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            let broken = this.answer(Mutation::Break { tenant: tenant.clone(), service: service.clone() }).await;
            match broken {
                Ok(_) => tracing::warn!(%tenant, %service, "a crash loop has lasted too long: the service is stopped"),
                // Somebody was faster.
                Err(Error::NoLoop) => {}
                Err(error) => {
                    tracing::warn!(%tenant, %service, %error, "a crash loop has lasted too long, and cannot be stopped");
                    if matches!(error.code(), ErrorCode::NotFound | ErrorCode::UnsupportedOnBackend) {
                        this.with(&tenant, |entry| entry.give_loop_up(&service));
                    }
                }
            }
        });
    }

    /// The operation of it. What has become of the service since it was found to loop decides.
    pub(super) async fn do_break(&self, op: &Op, service: ServiceName) -> Result<Done, Error> {
        let (tenant, mut is_loop) = (op.tenant(), false);
        self.with(tenant, |entry| is_loop = entry.stop_of_loop_begins(&service));
        if !is_loop {
            return Err(Error::NoLoop);
        }
        let stopped = contained(self.do_stop(op, Some(service.clone())).boxed()).await;
        self.with(tenant, |entry| entry.stop_of_loop_ends(&service, stopped.is_ok()));
        stopped
    }

    /// An operation begins or ends: that alone makes another state.
    pub(super) fn turn(&self, tenant: &Subdomain) {
        self.with(tenant, |_| {});
    }

    /// What is on record of a tenant, as whoever works on it has read or written it just now. The order of the calls decides
    /// what is newer, not the clock, which may be set back.
    pub(super) fn on_record(&self, record: &Record) {
        self.put_on_record(record, true);
    }

    /// The same as somebody else has read it: what is held of the tenant may be newer.
    pub(super) fn found_on_record(&self, record: &Record) {
        self.put_on_record(record, false);
    }

    fn put_on_record(&self, record: &Record, is_newest: bool) {
        let tenant = &record.subdomain;
        self.inner.mirror.strays.forget(tenant);
        self.inner.mirror.damaged.remove(tenant);
        let mut entry = match self.inner.mirror.tenants.entry(tenant.clone()) {
            dashmap::Entry::Occupied(_) if !is_newest => return,
            dashmap::Entry::Occupied(held) => held.into_ref(),
            // One that was not there before.
            dashmap::Entry::Vacant(place) => place.insert(Entry::new(&Record {
                generation: crate::domain::Generation::NONE,
                kept: false,
                ..record.clone()
            })),
        };
        self.alter(&mut entry, |entry| {
            if let Some(happening) = entry.set_record(record) {
                entry.is_new();
                self.inner.feed.publish(tenant, &happening);
            }
            if entry.shape.is_none()
                && let Some(cached) = self.inner.loaded.get(tenant)
                && cached.0 == record.generation
            {
                let (loaded, project) = (&cached.1, cached.1.deployment.project.project());
                entry.shape = Some(Arc::new(Shape::of(project, &loaded.warnings)));
            }
        });
    }

    /// A tenant that is not up on record is being brought up: its status tells of what comes.
    pub(super) fn is_coming(&self, record: &Record, loaded: &Loaded) {
        if record.is_live() {
            return;
        }
        let shape = Arc::new(Shape::of(loaded.deployment.project.project(), &loaded.warnings));
        self.with(&record.subdomain, |entry| entry.shape = Some(shape));
    }

    /// A tenant as it is found when the agent starts: no news.
    pub(super) fn in_stock(&self, record: &Record) {
        self.inner.mirror.tenants.insert(record.subdomain.clone(), Entry::new(record));
    }

    /// The record of a tenant is there and cannot be read: no more is known of it than what there was before.
    pub(super) fn has_damage(&self, tenant: &Subdomain) {
        let mirror = &self.inner.mirror;
        let unseen = Damaged { backend: self.inner.settings.default_backend, id: None };
        let known = mirror.tenants.remove(tenant).map(|(_, entry)| entry.record);
        match known {
            Some(record) => {
                mirror.damaged.insert(tenant.clone(), Damaged { backend: record.backend, id: Some(record.id) });
            }
            None => drop(mirror.damaged.entry(tenant.clone()).or_insert(unseen)),
        }
    }

    /// A tenant is gone with its record.
    pub(super) fn off_record(&self, tenant: &Subdomain) {
        self.inner.mirror.damaged.remove(tenant);
        let removed = self.inner.mirror.tenants.remove(tenant);
        // Of a first provision that failed nobody has heard.
        if removed.is_some_and(|(_, entry)| entry.record.generation != crate::domain::Generation::NONE) {
            self.inner.feed.publish(tenant, &Happening::Purged {});
        }
    }

    /// All containers of a tenant, as they were when they were asked for.
    pub(super) fn saw(&self, tenant: &Subdomain, containers: Vec<ObservedContainer>, as_of: Instant) {
        self.with(tenant, |entry| entry.saw_all(containers, as_of));
    }

    /// Reads the specification of a tenant as far as its status needs it, once for each generation. It is not kept whole:
    /// 200 tenants and their files would be, only to be looked at.
    pub(super) async fn shape(&self, record: &Record) -> Result<(), Error> {
        let tenant = &record.subdomain;
        if self.inner.mirror.tenants.get(tenant).is_none_or(|entry| entry.shape.is_some()) {
            return Ok(());
        }
        let loaded = match self.stored(record, record.generation).await {
            Ok(loaded) => loaded,
            Err(error) => {
                self.with(tenant, |entry| entry.unreadable = true);
                return Err(error);
            }
        };
        let shape = Arc::new(Shape::of(loaded.deployment.project.project(), &loaded.warnings));
        self.with(tenant, |entry| {
            if entry.record.generation == record.generation && entry.record.is_live() {
                entry.shape = Some(shape);
            }
        });
        Ok(())
    }

    /// Asks the backend about one tenant now.
    pub(super) async fn look(&self, record: &Record) -> Result<(), Error> {
        let as_of = Instant::now();
        let (backend, tenant) = (self.backend(record.backend)?, self.tenant_ref(record));
        let looked = tokio::time::timeout(ANSWER, backend.status(&tenant)).await;
        let containers = looked.map_err(|_| BackendError::Unavailable)??;
        self.saw(&record.subdomain, containers, as_of);
        Ok(())
    }

    /// After an operation, while it still has the tenant: whoever gets its answer finds in the mirror what it has done.
    pub(super) async fn look_after(&self, op: &Op, failure: Option<&Error>) {
        if contained(self.look_at(op, failure).map(Ok)).await.is_err() {
            self.with(op.tenant(), |entry| entry.doubted = true);
        }
    }

    async fn look_at(&self, op: &Op, failure: Option<&Error>) {
        let tenant = op.tenant();
        // One that was cancelled at its commit had done everything, and undone it.
        if failure.is_some_and(Error::has_touched_nothing) && !op.running().has_begun() {
            return;
        }
        match self.record(tenant).await {
            Ok(None) => return self.off_record(tenant),
            Ok(Some(record)) if record.generation == crate::domain::Generation::NONE => return self.off_record(tenant),
            Ok(Some(record)) => {
                self.on_record(&record);
                if !record.is_live() {
                    return self.saw(tenant, Vec::new(), Instant::now());
                }
                let shaped = self.shape(&record).await;
                if failure.is_none() && op.has_looked() && shaped.is_ok() {
                    return;
                }
                let away = failure.is_some_and(Error::is_backend_away);
                if away {
                    self.doubt(record.backend);
                }
                if !away && shaped.is_ok() && self.look(&record).await.is_ok() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%tenant, %error, "the record cannot be read after an operation");
                if error.code() == ErrorCode::TenantDamaged {
                    self.has_damage(tenant);
                    return self.recover_later(tenant.clone());
                }
            }
        }
        self.with(tenant, |entry| entry.doubted = true);
    }

    /// Reads what status needs of every tenant in stock, one after another.
    pub(super) async fn warm_up(self) {
        let up = self.inner.mirror.tenants.iter().filter(|entry| entry.record.is_live());
        let records: Vec<Record> = up.map(|entry| entry.record.clone()).collect();
        for record in records {
            if let Err(error) = contained(self.shape(&record)).await {
                tracing::warn!(tenant = %record.subdomain, %error, "the specification cannot be read");
            }
        }
    }
}

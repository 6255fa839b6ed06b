//! Restart, stop, start and teardown.

use std::collections::BTreeSet;

use super::load::Loaded;
use super::operations::Op;
use super::{Done, Error, Kept, Orchestrator, TornDown};
use crate::backend::{Owned, OwnedKind, TenantRef};
use crate::domain::{Adopted, DesiredState, Generation, ObjectName, OperationId, OperationKind, ServiceName, TenantId};
use crate::tenant_fs::{Journal, Record};

impl Orchestrator {
    pub(super) async fn do_restart(&self, op: &Op, service: Option<ServiceName>) -> Result<Done, Error> {
        let record = self.live_record(op.tenant()).await?;
        if service.is_none() && record.desired == DesiredState::Stopped {
            // Nothing runs that could be stopped; and what runs afterwards must not be stopped on record.
            let started = self.set_running(op, None, DesiredState::Running).await?;
            return Ok(Done { status: "restarted", ..started });
        }
        let loaded = self.committed(&record).await?;
        if let Some(service) = &service {
            check_runnable(&record, &loaded, service)?;
        }
        let record = self.readmitted(op, record, &loaded).await?;
        let loaded = self.committed(&record).await?;
        self.open_journal(op, &record, OperationKind::Restart, service.as_ref(), false).await?;
        let run = op.run(Vec::new());
        let restarting = self.backend(record.backend)?.restart(&loaded.deployment, service.as_ref(), &run);
        let restarted = self.timed(op, "restart", restarting).await;
        self.close(op, &record, restarted.map_err(Error::from)).await?;
        Ok(Done { status: "restarted", subdomain: record.subdomain })
    }

    pub(super) async fn do_stop(&self, op: &Op, service: Option<ServiceName>) -> Result<Done, Error> {
        self.set_running(op, service, DesiredState::Stopped).await
    }

    pub(super) async fn do_start(&self, op: &Op, service: Option<ServiceName>) -> Result<Done, Error> {
        self.set_running(op, service, DesiredState::Running).await
    }

    /// Stopping or starting the whole tenant is durable: the record says so before the backend is asked. A single
    /// service leaves the record alone.
    async fn set_running(&self, op: &Op, service: Option<ServiceName>, desired: DesiredState) -> Result<Done, Error> {
        let mut record = self.live_record(op.tenant()).await?;
        let loaded = self.committed(&record).await?;
        if let Some(service) = &service {
            match desired {
                DesiredState::Running => check_runnable(&record, &loaded, service)?,
                DesiredState::Stopped => check_known(&record, &loaded, service)?,
            }
        }
        if desired == DesiredState::Running {
            record = self.readmitted(op, record, &loaded).await?;
        }
        let (kind, status) = match desired {
            DesiredState::Stopped => (OperationKind::Stop, "stopped"),
            DesiredState::Running => (OperationKind::Start, "started"),
        };
        self.open_journal(op, &record, kind, service.as_ref(), false).await?;
        if service.is_none() && record.desired != desired {
            record.desired = desired;
            record.operation = Some(op.id());
            record.updated_at = jiff::Timestamp::now();
            self.commit(&record, kind).await?;
        }
        let loaded = self.committed(&record).await?;
        let (backend, run) = (self.backend(record.backend)?, op.run(Vec::new()));
        let done = match desired {
            DesiredState::Stopped => {
                self.timed(op, "stop", backend.stop(&loaded.deployment, service.as_ref(), &run)).await
            }
            DesiredState::Running => {
                self.timed(op, "start", backend.start(&loaded.deployment, service.as_ref(), &run)).await
            }
        };
        self.close(op, &record, done.map_err(Error::from)).await?;
        Ok(Done { status, subdomain: record.subdomain })
    }

    pub(super) async fn do_teardown(&self, op: &Op, purge: bool) -> Result<TornDown, Error> {
        let nothing =
            |kept: Kept| TornDown { status: "torn_down", subdomain: op.tenant().clone(), changed: false, kept };
        let record = match self.record(op.tenant()).await {
            Err(Error::Fs(error)) if purge && error.is_damage() => {
                self.purge_damaged(op).await?;
                return Ok(TornDown { changed: true, ..nothing(Kept::default()) });
            }
            read => read?,
        };
        let Some(record) = record else {
            return match self.stray_of(op).await? {
                Some((backend, tenant)) => {
                    self.begin_to_the_end(op).await?;
                    let run = op.run(Vec::new());
                    let removed =
                        self.timed(op, "remove", self.backend(backend)?.remove(&tenant, None, purge, &run)).await?;
                    self.inner.mirror.strays.forget(op.tenant());
                    let kept = Kept { volumes: removed.volumes_kept, ..Kept::default() };
                    Ok(TornDown { changed: true, ..nothing(kept) })
                }
                None => Ok(nothing(Kept::default())),
            };
        };
        if record.kept && !purge {
            self.begin_to_the_end(op).await?;
            let (backend, tenant, run) = (self.backend(record.backend)?, self.tenant_ref(&record), op.run(Vec::new()));
            let removed = backend.remove(&tenant, None, false, &run).await?;
            return Ok(nothing(self.kept(&record, removed.volumes_kept, None).await?));
        }
        let journal = self.open_journal(op, &record, OperationKind::Teardown, None, purge).await?;
        let kept = match self.tear_down(op, &journal, &record).await {
            Ok(kept) => kept,
            Err(error) => {
                self.recover_later(op.tenant().clone());
                return Err(error);
            }
        };
        Ok(TornDown { changed: true, ..nothing(kept) })
    }

    /// Removes a tenant whose record cannot be read: what says of itself that it is the tenant's, whatever its id, and then
    /// its directory. Every step may be repeated: as long as the directory is there, the tenant is.
    async fn purge_damaged(&self, op: &Op) -> Result<(), Error> {
        self.begin_to_the_end(op).await?;
        let (tenant, run) = (op.tenant(), op.run(Vec::new()));
        for (name, backend) in &self.inner.backends {
            let seen = if name.is_on_this_host() { backend.tenants().await? } else { Vec::new() };
            let own = seen.into_iter().filter(|container| container.tenant == *tenant);
            let ids: BTreeSet<TenantId> = own.map(|container| container.owner).collect();
            for id in ids {
                // What runs is stopped as any tenant is.
                let (agent, adopted) = (self.inner.fs.agent_id().clone(), Adopted::default());
                let reference = TenantRef { agent, subdomain: tenant.clone(), id, region: None, adopted };
                self.timed(op, "remove", backend.remove(&reference, None, true, &run)).await?;
            }
            let mut rest = backend.owned(&BTreeSet::new()).await?;
            rest.retain(|object| object.tenant.as_ref() == Some(tenant));
            rest.sort_by_key(|object| object.kind);
            for object in rest {
                if !backend.discard(&object).await? {
                    tracing::warn!(%tenant, backend = %name, object = object.name, "it is in use and is left");
                }
            }
        }
        self.delete_files(op).await
    }

    /// The last step of a purge.
    async fn delete_files(&self, op: &Op) -> Result<(), Error> {
        op.report("deleting files");
        let tenant = op.tenant().clone();
        self.disk(move |fs| fs.purge(&tenant)).await?;
        self.off_record(op.tenant());
        self.inner.loaded.remove(op.tenant());
        self.recover_no_more(op.tenant());
        Ok(())
    }

    /// Every step may be repeated; recovery calls this again.
    pub(super) async fn tear_down(&self, op: &Op, journal: &Journal, record: &Record) -> Result<Kept, Error> {
        let (of, purge, begun) = (journal.operation, journal.purge, journal.started_at);
        let backend = self.backend(record.backend)?;
        let loaded = match record.generation {
            Generation::NONE => None,
            // Order is a courtesy: a specification that cannot be read any more must not keep a tenant up.
            _ => self.committed(record).await.ok(),
        };
        let deployment = loaded.as_deref().map(|loaded| &loaded.deployment);
        let (tenant, run) = (self.tenant_ref(record), op.run(Vec::new()));
        let removed = self.timed(op, "remove", backend.remove(&tenant, deployment, purge, &run)).await?;
        if purge {
            self.delete_files(op).await?;
            return Ok(Kept::default());
        }
        op.report("archiving files");
        let tenant = record.subdomain.clone();
        let archived = self.disk(move |fs| match fs.archive(&tenant)? {
            // There was nothing left to move: this is a repeat.
            None => fs.archive_since(&tenant, begun),
            made => Ok(made),
        });
        let archive = archived.await?;
        let kept_record = Record {
            kept: true,
            desired: DesiredState::Running,
            previous: None,
            fingerprint: String::new(),
            updated_at: jiff::Timestamp::now(),
            last_error: None,
            operation: Some(of),
            ..record.clone()
        };
        self.commit(&kept_record, OperationKind::Teardown).await?;
        self.end(record, None).await?;
        self.inner.loaded.remove(&record.subdomain);
        self.kept(record, removed.volumes_kept, archive).await
    }

    async fn kept(&self, record: &Record, volumes: Vec<ObjectName>, archive: Option<String>) -> Result<Kept, Error> {
        let tenant = record.subdomain.clone();
        let data = self.disk(move |fs| fs.has_data(&tenant)).await?;
        Ok(Kept { volumes, data, archive })
    }

    /// The same of a teardown that has ended, and began then: what is there of it now.
    pub(super) async fn still_kept(&self, record: &Record, begun: jiff::Timestamp) -> Result<Kept, Error> {
        let tenant = record.subdomain.clone();
        let archive = self.disk(move |fs| fs.archive_since(&tenant, begun)).await?;
        let owned = self.backend(record.backend)?.owned(&BTreeSet::new()).await?;
        let is_kept =
            |object: &Owned| object.kind == OwnedKind::Volume && object.tenant.as_ref() == Some(&record.subdomain);
        let labelled =
            owned.iter().filter(|object| is_kept(object)).filter_map(|object| ObjectName::parse(&object.name).ok());
        let volumes: BTreeSet<ObjectName> = labelled.chain(record.adopted.volumes.keys().cloned()).collect();
        self.kept(record, volumes.into_iter().collect(), archive).await
    }

    /// The first effect is next, and from here on it cannot be cancelled.
    async fn begin_to_the_end(&self, op: &Op) -> Result<(), Error> {
        op.running().close_to_cancel("what it does is done to its end once it has begun")?;
        self.before_effects(op).await
    }

    async fn open_journal(
        &self,
        op: &Op,
        record: &Record,
        kind: OperationKind,
        service: Option<&ServiceName>,
        purge: bool,
    ) -> Result<Journal, Error> {
        // What nobody can do is not begun.
        self.backend(record.backend)?;
        let journal = Journal {
            operation: op.id(),
            kind,
            target: None,
            service: service.cloned(),
            undo: serde_json::Value::Null,
            purge,
            started_at: jiff::Timestamp::now(),
        };
        self.begin_to_the_end(op).await?;
        let (tenant, written) = (record.subdomain.clone(), journal.clone());
        self.disk(move |fs| fs.begin(&tenant, &written)).await?;
        Ok(journal)
    }

    /// Ends the operation. One that failed because the backend is away stays open and is finished later; any other
    /// failure is the client's to repeat.
    pub(super) async fn close(&self, op: &Op, record: &Record, result: Result<(), Error>) -> Result<(), Error> {
        if let Err(error) = result {
            if error.is_backend_away() {
                self.recover_later(op.tenant().clone());
                return Err(error);
            }
            self.disown(record, op.id()).await?;
            self.end_lightly(record).await?;
            return Err(error);
        }
        if op.running().is_durable() && record.operation != Some(op.id()) {
            // After a crash from here on a repeat must know that it has been done.
            let done = Record { operation: Some(op.id()), ..record.clone() };
            let by = op.running().now().kind;
            self.disk(move |fs| fs.commit(&done, by)).await?;
        }
        self.end_lightly(record).await
    }

    /// A stop or start is in the record before the backend is asked. If it has failed then, it must not pass for done after a
    /// crash from here on.
    pub(super) async fn disown(&self, record: &Record, operation: OperationId) -> Result<(), Error> {
        if record.operation != Some(operation) {
            return Ok(());
        }
        self.commit(&Record { operation: None, ..record.clone() }, OperationKind::Recover).await
    }

    pub(super) async fn end_lightly(&self, record: &Record) -> Result<(), Error> {
        let loaded = self.committed(record).await?;
        self.end(record, Some(&loaded)).await
    }
}

fn check_known(record: &Record, loaded: &Loaded, service: &ServiceName) -> Result<(), Error> {
    match loaded.deployment.service(service) {
        Some(_) => Ok(()),
        None => Err(Error::NoSuchService { subdomain: record.subdomain.clone(), service: service.clone() }),
    }
}

/// A stopped tenant is stopped as a whole: a service of it that runs would run against the record, and until the engine
/// restarts only.
fn check_runnable(record: &Record, loaded: &Loaded, service: &ServiceName) -> Result<(), Error> {
    check_known(record, loaded, service)?;
    match record.desired {
        DesiredState::Running => Ok(()),
        DesiredState::Stopped => Err(Error::Stopped { subdomain: record.subdomain.clone(), service: service.clone() }),
    }
}

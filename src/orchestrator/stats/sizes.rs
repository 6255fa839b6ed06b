//! How much disk tenants take: measured rarely, one thing after the other in the whole agent, and only what somebody has
//! asked about. Nobody waits for it: the answer has what was measured last, with its age.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::VolumeSize;
use crate::domain::{BackendName, Subdomain};
use crate::orchestrator::Orchestrator;
use crate::tenant_fs::DirectorySize;

/// How old the size of a directory may become before a question has it measured again.
const DIRECTORY: Duration = Duration::from_secs(5 * 60);
/// The same for the volumes, all of which the engine walks through for one answer.
const VOLUMES: Duration = Duration::from_secs(15 * 60);
/// How many tenants' directories are remembered; forgetting them costs walks.
const REMEMBERED: usize = 4096;

/// What was measured last.
#[derive(Default)]
pub(super) struct Sizes {
    kept: Mutex<Kept>,
    /// Held by whatever is being measured.
    measuring: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    directories: HashMap<Subdomain, (Instant, DirectorySize)>,
    /// Waiting for their turn.
    waiting: HashSet<Subdomain>,
    volumes: BTreeMap<BackendName, (Instant, Vec<VolumeSize>)>,
    /// When volumes were last asked for; a failure is not repeated at once.
    volumes_asked: Option<Instant>,
}

impl Sizes {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The size of a tenant's directory and its age.
    pub(super) fn directory(&self, tenant: &Subdomain) -> Option<(Duration, DirectorySize)> {
        self.kept().directories.get(tenant).map(|(at, size)| (at.elapsed(), *size))
    }

    /// The volumes of a backend that the predicate picks, and their age.
    pub(super) fn volumes(
        &self,
        backend: BackendName,
        of: impl Fn(&VolumeSize) -> bool,
    ) -> Option<(Duration, Vec<VolumeSize>)> {
        let kept = self.kept();
        let (at, all) = kept.volumes.get(&backend)?;
        Some((at.elapsed(), all.iter().filter(|volume| of(volume)).cloned().collect()))
    }
}

impl Orchestrator {
    /// Has a tenant's directory, and the volumes, measured if what is known is old.
    pub(super) fn measure_sizes(&self, tenant: &Subdomain) {
        let (walks, asks) = {
            let mut kept = self.inner.stats.sizes.kept();
            let old = kept.directories.get(tenant).is_none_or(|(at, _)| at.elapsed() >= DIRECTORY);
            let walks = old && kept.waiting.insert(tenant.clone());
            let asks = kept.volumes_asked.is_none_or(|at| at.elapsed() >= VOLUMES);
            if asks {
                kept.volumes_asked = Some(Instant::now());
            }
            (walks, asks)
        };
        if walks {
            self.in_background(self.clone().measure_directory(tenant.clone()));
        }
        if asks {
            self.in_background(self.clone().measure_volumes());
        }
    }

    fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.inner.stopping.clone().run_until_cancelled_owned(work));
    }

    async fn measure_directory(self, tenant: Subdomain) {
        let sizes = &self.inner.stats.sizes;
        let one_at_a_time = sizes.measuring.lock().await;
        let (of, stopping) = (tenant.clone(), self.inner.stopping.clone());
        let measured = self.disk(move |fs| fs.size(&of, &|| !stopping.is_cancelled())).await;
        drop(one_at_a_time);
        let mut kept = sizes.kept();
        kept.waiting.remove(&tenant);
        match measured {
            Ok(Some(size)) => {
                if kept.directories.len() >= REMEMBERED {
                    kept.directories.clear();
                }
                kept.directories.insert(tenant, (Instant::now(), size));
            }
            Ok(None) => {
                kept.directories.remove(&tenant);
            }
            Err(error) => tracing::debug!(%tenant, %error, "a tenant's directory could not be measured"),
        }
    }

    async fn measure_volumes(self) {
        let sizes = &self.inner.stats.sizes;
        let _one_at_a_time = sizes.measuring.lock().await;
        for (name, backend) in &self.inner.backends {
            match backend.volume_sizes().await {
                Ok(Some(measured)) => drop(sizes.kept().volumes.insert(*name, (Instant::now(), measured))),
                Ok(None) => drop(sizes.kept().volumes.remove(name)),
                Err(error) => tracing::debug!(backend = %name, %error, "the volumes could not be measured"),
            }
        }
    }
}

//! How it stands with the backends that are not the default. They decide nothing about the agent: what is away shows as
//! degraded, and nobody's probe waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Orchestrator;
use super::contained::contained;
use crate::domain::BackendName;

/// That it answers counts for so long, each question being a request to somebody far away; that it does not for less, so
/// that its return is seen.
const KNOWN: Duration = Duration::from_secs(10);
const KNOWN_AWAY: Duration = Duration::from_secs(2);
/// How long a probe waits for what is not known, or not any more.
const GLANCE: Duration = Duration::from_secs(1);
/// How long a backend may take to answer (see [`crate::backend::Backend::health`]).
const PATIENCE: Duration = Duration::from_secs(5);

/// What was last heard of each backend.
pub(super) struct Health {
    of: BTreeMap<BackendName, Heard>,
}

#[derive(Default)]
struct Heard {
    last: Mutex<Option<(Instant, bool)>>,
    /// Held by whoever is asking.
    asking: Arc<tokio::sync::Mutex<()>>,
}

impl Heard {
    fn last(&self) -> Option<(Instant, bool)> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    pub(super) fn of(backends: impl Iterator<Item = BackendName>) -> Self {
        Self { of: backends.map(|name| (name, Heard::default())).collect() }
    }

    /// What was heard last, however long ago; none when it has never been asked.
    pub(super) fn heard(&self, name: BackendName) -> Option<bool> {
        self.of.get(&name)?.last().map(|(_, usable)| usable)
    }
}

impl Orchestrator {
    /// The backends besides the default that cannot be used, and those that tenants are on but the settings do not have.
    pub(super) async fn others_away(&self) -> Vec<BackendName> {
        let default = self.inner.settings.default_backend;
        let others = self.inner.backends.keys().copied().filter(|name| *name != default);
        let asked = others.map(|name| async move { (!self.is_usable(name).await).then_some(name) });
        let mut away: Vec<BackendName> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        for entry in &self.inner.mirror.tenants {
            let backend = entry.record.backend;
            if !self.inner.backends.contains_key(&backend) && !away.contains(&backend) {
                away.push(backend);
            }
        }
        away.sort();
        away
    }

    /// Whether a backend answers, as far as is known now or soon. What has never answered does not.
    async fn is_usable(&self, name: BackendName) -> bool {
        let Some(heard) = self.inner.health.of.get(&name) else { return false };
        if let Some((at, usable)) = heard.last()
            && at.elapsed() < if usable { KNOWN } else { KNOWN_AWAY }
        {
            return usable;
        }
        if let Ok(turn) = Arc::clone(&heard.asking).try_lock_owned() {
            let this = self.clone();
            // It goes on when the probe does not wait any longer: the next one has its answer.
            let asking = tokio::spawn(self.inner.stopping.clone().run_until_cancelled_owned(async move {
                this.ask_for_health(name).await;
                drop(turn);
            }));
            timeout(GLANCE, asking).await.ok();
        }
        heard.last().is_some_and(|(_, usable)| usable)
    }

    async fn ask_for_health(&self, name: BackendName) {
        let (Ok(backend), Some(heard)) = (self.backend(name), self.inner.health.of.get(&name)) else { return };
        let asked = async { Ok(backend.health().await?) };
        let answer = timeout(PATIENCE, contained(asked)).await;
        let usable = matches!(answer, Ok(Ok(())));
        let before = heard.last.lock().unwrap_or_else(PoisonError::into_inner).replace((Instant::now(), usable));
        if usable {
            return;
        }
        self.doubt(name);
        if before.is_none_or(|(_, usable)| usable) {
            tracing::warn!(backend = %name, "the backend cannot be used; tenants elsewhere are not concerned");
        }
    }
}

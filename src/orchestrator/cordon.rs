//! A host that takes no new tenant: what is there goes on, can be updated, stopped and torn down.

use std::sync::{Mutex, PoisonError};

use super::operations::HostOp;
use super::{Cordoned, Error, Orchestrator};
use crate::tenant_fs::Cordon;

/// Whether the host is cordoned, as the file in the tenants root has it.
#[derive(Default)]
pub(super) struct CordonState {
    /// Held while the file changes.
    changing: tokio::sync::Mutex<()>,
    now: Mutex<Option<Cordon>>,
}

impl CordonState {
    pub(super) fn new(now: Option<Cordon>) -> Self {
        Self { changing: tokio::sync::Mutex::default(), now: Mutex::new(now) }
    }

    pub(super) fn get(&self) -> Option<Cordon> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, cordon: Option<Cordon>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = cordon;
    }
}

impl Orchestrator {
    /// The cordon, if there is one.
    pub fn cordoned(&self) -> Option<Cordon> {
        self.inner.cordon.get()
    }

    /// Takes no new tenant from now on, across restarts. A repeat replaces the reason and keeps the time.
    pub(super) async fn do_cordon(&self, op: &HostOp, reason: Option<String>) -> Result<Cordoned, Error> {
        let _one_at_a_time = self.inner.cordon.changing.lock().await;
        op.running().close_to_cancel("it is one step")?;
        let before = self.cordoned();
        let since = before.as_ref().map_or_else(jiff::Timestamp::now, |before| before.since);
        let cordon = Cordon { since, reason };
        let changed = before.as_ref() != Some(&cordon);
        if changed {
            self.before_effect_on_host(op.running()).await?;
            let written = cordon.clone();
            self.disk(move |fs| fs.cordon(&written)).await?;
            self.inner.cordon.set(Some(cordon.clone()));
            self.inner.stats.changed();
            tracing::info!(reason = cordon.reason.as_deref().unwrap_or_default(), "the host is cordoned");
        }
        Ok(Cordoned { status: "cordoned", changed, cordon: Some(cordon) })
    }

    /// Takes new tenants again.
    pub(super) async fn do_uncordon(&self, op: &HostOp) -> Result<Cordoned, Error> {
        let _one_at_a_time = self.inner.cordon.changing.lock().await;
        op.running().close_to_cancel("it is one step")?;
        let changed = self.cordoned().is_some();
        if changed {
            self.before_effect_on_host(op.running()).await?;
            self.disk(crate::tenant_fs::TenantFs::uncordon).await?;
            self.inner.cordon.set(None);
            self.inner.stats.changed();
            tracing::info!("the host is not cordoned any more");
        }
        Ok(Cordoned { status: "uncordoned", changed, cordon: None })
    }
}

//! A tenant that only its backend still knows.

use super::ObservedContainer;
use crate::domain::{Generation, TenantId};

/// A tenant by what its objects say of it, where no record on this host does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Its identity.
    pub id: TenantId,
    /// The location it is in, where the backend has such.
    pub region: Option<String>,
    /// The generation that it was last brought to, if that is told.
    pub generation: Option<Generation>,
    /// Its containers.
    pub containers: Vec<ObservedContainer>,
}

//! What [`Backend::watch`](super::Backend::watch) tells of the tenants' containers.

use std::collections::HashMap;

use futures::stream::BoxStream;
use tokio::time::Instant;

use super::ObservedContainer;
use crate::domain::{ContainerId, ServiceName, Subdomain};

/// What is seen, in the order in which it is seen. It ends at a gap.
pub type Sightings = BoxStream<'static, Sighting>;

/// One thing that was seen. `as_of` is when the backend was asked: what is told is no older than that.
#[derive(Debug, Clone)]
pub enum Sighting {
    /// Every container there is, and no other. The first of a stream.
    All {
        /// All of them, without those that an unfinished apply has set aside.
        containers: Vec<ObservedContainer>,
        /// When they were asked for.
        as_of: Instant,
    },
    /// A container as it is now. Several changes within a short time are one sighting.
    Changed {
        /// The container.
        container: Box<ObservedContainer>,
        /// When it was asked for.
        as_of: Instant,
    },
    /// A container is there no more, or was set aside.
    Gone {
        /// Whose it was.
        tenant: Subdomain,
        /// Which one.
        container: ContainerId,
        /// When it was asked for.
        as_of: Instant,
    },
    /// A run of a container has ended. None is left out, however fast they come.
    Ended(Ended),
    /// The kernel has killed a process of a container because there was no memory left for it.
    OutOfMemory {
        /// Whose it is.
        tenant: Subdomain,
        /// Its service.
        service: ServiceName,
        /// Which one.
        container: ContainerId,
    },
    /// The backend answers: all that was told holds as of then, but for tenants of whom changes are still being looked at.
    InStep {
        /// As of when.
        as_of: Instant,
        /// The exceptions, and as of when what was told holds for them.
        behind: HashMap<Subdomain, Instant>,
    },
}

/// The end of one run of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Whose it is.
    pub tenant: Subdomain,
    /// Its service.
    pub service: ServiceName,
    /// Which one.
    pub container: ContainerId,
    /// The exit code.
    pub code: i64,
    /// When.
    pub at: jiff::Timestamp,
    /// It was told to end. Any other end is its own.
    pub requested: bool,
}

//! What containers use and what a backend has left, in numbers. Counters only grow while a container runs and begin anew
//! with its next start; rates are the business of whoever looks twice.

use std::time::Duration;

use crate::domain::{ContainerId, ContainerName, ObjectName, ServiceName, Subdomain};

/// What one container uses now. What cannot be seen is none; a container that does not run uses nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Whose it is.
    pub tenant: Subdomain,
    /// Its service.
    pub service: ServiceName,
    /// Its number within the service, from 1.
    pub number: u32,
    /// Its name.
    pub name: ContainerName,
    /// Its id.
    pub id: ContainerId,
    /// Whether it runs.
    pub running: bool,
    /// The numbers.
    pub used: Used,
}

/// The numbers of one container at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// When they were taken; none for a container that does not run, or of which the backend tells none.
    pub at: Option<jiff::Timestamp>,
    /// CPU time used since its start.
    pub cpu: Duration,
    /// Time in which it was not let run because its CPU limit was used up, since its start.
    pub throttled: Option<Duration>,
    /// Bytes of memory, without the part of the file cache that can go at once (as `docker stats` counts).
    pub memory: u64,
    /// The most memory that it may have, the host's where it has no limit of its own; none when nothing runs.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes received, all networks together; none with somebody else's network, or none at all.
    pub received: Option<u64>,
    /// Bytes sent, likewise.
    pub sent: Option<u64>,
    /// Bytes read from block devices.
    pub read: Option<u64>,
    /// Bytes written to block devices.
    pub written: Option<u64>,
}

/// What a backend holds and has left for tenants. What it cannot see or does not limit is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// How many images there are.
    pub images: Option<u64>,
    /// The sum of their sizes in bytes; layers that several share are counted for each.
    pub image_bytes: Option<u64>,
    /// Host ports of the publish range that no container has.
    pub free_ports: Option<u64>,
    /// Subnets of the pool that no network has and the host has no route to.
    pub free_subnets: Option<u64>,
}

/// The size of one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSize {
    /// Whose it is by its label; none for one that a tenant may have adopted.
    pub owner: Option<Subdomain>,
    /// Its name.
    pub name: ObjectName,
    /// Bytes.
    pub bytes: u64,
}

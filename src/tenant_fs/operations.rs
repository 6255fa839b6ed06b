//! The operations of the last day, a file each in the host directory. They say what was done; what stands is said by the
//! tenants' records alone, so one that is damaged or lost harms nobody.

use std::ffi::CString;

use super::dir::is_no_file;
use super::{FsError, TenantFs, sealed};
use crate::domain::{OperationId, OperationRecord};

/// Whether a write has to outlive a power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk before the call returns.
    Synced,
    /// With the kernel: it outlives the process, not the machine.
    Written,
}

impl TenantFs {
    /// Every operation that is on the disk, oldest first and without its result, which may be large, with the size of its
    /// file. Damaged files are deleted: nothing could be done with them.
    pub fn operations(&self) -> Result<Vec<(OperationRecord, u64)>, FsError> {
        let listing = FsError::io("listing the operations");
        let dir = &self.host.operations;
        let names = dir.names().map_err(&listing)?.collect::<Result<Vec<CString>, _>>().map_err(&listing)?;
        let mut all = Vec::new();
        for name in names {
            let read = match dir.read(name.as_c_str()) {
                Ok(read) => read,
                Err(error) if is_no_file(error) => None,
                Err(error) => {
                    tracing::warn!(%error, "an operation's file cannot be read now");
                    continue;
                }
            };
            let operation = read.and_then(|(bytes, _)| {
                let operation = OperationRecord { result: None, ..sealed::unseal(&bytes).ok()? };
                let is_its_own = file(operation.operation.id).as_bytes() == name.as_bytes();
                is_its_own.then_some((operation, bytes.len() as u64))
            });
            if let Some(operation) = operation {
                all.push(operation);
                continue;
            }
            tracing::warn!("an operation's file is damaged and is deleted");
            if let Err(error) = self.host.workshop.discard(dir, name.as_c_str()) {
                tracing::warn!(%error, "it cannot be deleted now");
            }
        }
        all.sort_by_key(|(operation, _)| operation.operation.id);
        Ok(all)
    }

    /// One operation; none when it is not there or damaged.
    pub fn operation(&self, id: OperationId) -> Result<Option<OperationRecord>, FsError> {
        let read = self.host.operations.read(file(id)).map_err(FsError::io("reading an operation"))?;
        Ok(read.and_then(|(bytes, _)| sealed::unseal(&bytes).ok()))
    }

    /// Writes an operation, in place of what was written of it before, and says how large its file is.
    pub fn write_operation(&self, operation: &OperationRecord, durability: Durability) -> Result<u64, FsError> {
        let writing = FsError::io("writing an operation");
        let (bytes, name) = (sealed::seal(operation), file(operation.operation.id));
        let dir = &self.host.operations;
        match durability {
            Durability::Synced => self.host.write(dir, &name, &bytes, operation.operation.kind.into()),
            // Not worth a spare: what has no disk is remembered until the agent ends.
            Durability::Written => self.host.workshop.write_unsynced(dir, &name, &bytes, 0o600),
        }
        .map_err(writing)?;
        Ok(bytes.len() as u64)
    }

    /// Deletes an operation's file, if it is there. One that comes back after a power loss is deleted again later.
    pub fn forget_operation(&self, id: OperationId) -> Result<(), FsError> {
        self.host.operations.remove_file(file(id)).map(drop).map_err(FsError::io("deleting an operation"))
    }
}

fn file(id: OperationId) -> String {
    format!("{id}.json")
}

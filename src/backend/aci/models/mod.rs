//! What Azure Resource Manager takes and gives, under its own names (`Microsoft.ContainerInstance` 2025-09-01 with what
//! 2026-07-01 adds, `Microsoft.Storage` 2023-05-01).
//!
//! One type serves both directions, because a group is read as it is written. Requests leave out what is not set. Answers are
//! read with lenience: members that nobody knows are passed over, `null` is "not set", words that nobody knows are kept, a
//! whole number may have a fraction of zero.

mod answers;
mod container;
mod group;
mod secret;
mod storage;
#[cfg(test)]
mod tests;
mod volume;
mod words;

pub(super) use answers::{
    Attached, CachedImage, Capability, CapabilityAmounts, ErrorAnswer, ErrorBody, Exec, ListPage, LocalizedName, Logs,
    OperationProperties, OperationStatus, TagsPatch, TerminalSize, Usage,
};
pub(super) use container::{
    Capabilities, ConfigMap, Container, ContainerInstanceView, ContainerPort, ContainerProperties, ContainerState,
    EnvironmentVariable, Event, ExecAction, Gpu, HttpGet, HttpHeader, InitContainer, InitContainerProperties, Probe,
    ResourceAmounts, Resources, SecurityContext, VolumeMount,
};
pub(super) use group::{
    ConfidentialCompute, ContainerGroup, Diagnostics, DnsConfig, Encryption, Extension, ExtensionProperties,
    GroupInstanceView, GroupProfile, GroupProperties, Identity, IdentityAccess, IdentityAcls, IpAddress, LogAnalytics,
    Port, RegistryCredential, SecretReference, StandbyPool, SubnetId, SystemData, UserAssignedIdentity,
};
pub(super) use secret::Secret;
pub(super) use storage::{AccountKey, AccountKeys, RegenerateKey, ShareProperties, ShareResource};
pub(super) use volume::{AzureFile, Empty, GitRepo, Volume};
pub(super) use words::{AddressType, GroupState, LabelScope, OsType, Provisioning, RestartWord, RunWord, Transport};

use serde::{Deserialize, Deserializer};

/// `null` counts as what is not there.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(input: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(input).map(Option::unwrap_or_default)
}

/// A whole number, which may be written `1.0`; a fraction is cut off.
#[allow(clippy::cast_possible_truncation, reason = "saturates; no number of this API is near the limits")]
fn whole<'de, D: Deserializer<'de>>(input: D) -> Result<Option<i64>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(input)?;
    Ok(number.and_then(|number| number.as_i64().or_else(|| number.as_f64().map(|number| number as i64))))
}

//! Volumes of a group.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Secret, or_default};

/// One volume. It has exactly one source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Volume {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) azure_file: Option<AzureFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) empty_dir: Option<Empty>,
    /// Base64 of each file's content, by its name. Answers have none of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<BTreeMap<String, Secret>>,
    /// Names of `secretReferences`, by file name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret_reference: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) git_repo: Option<GitRepo>,
}

/// `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Empty {}

/// A share of Azure Files. It must exist before the group that mounts it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AzureFile {
    pub(crate) share_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_only: Option<bool>,
    pub(crate) storage_account_name: String,
    /// In no answer: it has to be sent with every PUT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storage_account_key: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storage_account_key_reference: Option<String>,
    /// Since 2026-07-01: an identity in place of a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_assigned_identity_client_id: Option<String>,
}

/// A repository that is cloned into the volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GitRepo {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revision: Option<String>,
}

//! Shares and keys of a storage account (`Microsoft.Storage` 2023-05-01).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Secret, or_default, whole};

/// A share of Azure Files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct ShareResource {
    /// Answers only, as is the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) properties: ShareProperties,
}

/// `properties` of a share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShareProperties {
    /// GiB, 1 to 102400.
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) share_quota: Option<i64>,
    /// Names are letters, digits and `_`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access_tier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enabled_protocols: Option<String>,
    /// Bytes; in an answer to `$expand=stats` only.
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) share_usage_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_modified_time: Option<String>,
}

/// What `listKeys` and `regenerateKey` answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct AccountKeys {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) keys: Vec<AccountKey>,
}

/// One of an account's two keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccountKey {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) key_name: String,
    pub(crate) value: Secret,
    #[serde(default)]
    pub(crate) permissions: Option<String>,
}

/// Asks for a new key in the place of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RegenerateKey<'a> {
    pub(crate) key_name: &'a str,
}

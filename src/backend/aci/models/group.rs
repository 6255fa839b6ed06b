//! A container group as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    AddressType, Container, Event, GroupState, InitContainer, LabelScope, OsType, Provisioning, RestartWord, Secret,
    Transport, Volume, or_default, whole,
};

/// The resource.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerGroup {
    /// Answers only, as are the next two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) tags: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) zones: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<Identity>,
    /// Answers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) system_data: Option<SystemData>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) properties: GroupProperties,
}

/// `properties` of a group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupProperties {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) os_type: Option<OsType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restart_policy: Option<RestartWord>,
    /// `Standard`, `Dedicated` or `Confidential`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sku: Option<String>,
    /// `Regular` or `Spot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) init_containers: Vec<InitContainer>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) containers: Vec<Container>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) image_registry_credentials: Vec<RegistryCredential>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ip_address: Option<IpAddress>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<Volume>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) secret_references: Vec<SecretReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) diagnostics: Option<Diagnostics>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) subnet_ids: Vec<SubnetId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dns_config: Option<DnsConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encryption_properties: Option<Encryption>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) confidential_compute_properties: Option<ConfidentialCompute>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) extensions: Vec<Extension>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity_acls: Option<IdentityAcls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container_group_profile: Option<GroupProfile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) standby_pool_profile: Option<StandbyPool>,
    /// Answers only, as is all that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) is_created_from_standby_pool: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provisioning_state: Option<Provisioning>,
    /// Lists have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance_view: Option<GroupInstanceView>,
}

/// How a group is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct GroupInstanceView {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) events: Vec<Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<GroupState>,
}

/// The group's one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IpAddress {
    #[serde(rename = "type", default = "public")]
    pub(crate) kind: AddressType,
    /// Five at most.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ports: Vec<Port>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dns_name_label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) auto_generated_domain_name_label_scope: Option<LabelScope>,
    /// Answers only. It changes when the group moves to another host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ip: Option<String>,
    /// Answers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fqdn: Option<String>,
}

fn public() -> AddressType {
    AddressType::Public
}

/// A port of the address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) port: u16,
    /// TCP when it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Transport>,
}

/// How a registry lets the group in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RegistryCredential {
    /// A host, without a protocol.
    pub(crate) server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) username: Option<String>,
    /// In no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity_url: Option<String>,
}

/// Managed identities of the group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    /// `SystemAssigned`, `UserAssigned`, `SystemAssigned, UserAssigned` or `None`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) principal_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant_id: Option<String>,
    /// By the resource id of each.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) user_assigned_identities: BTreeMap<String, UserAssignedIdentity>,
}

/// One of them; `{}` in a request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserAssignedIdentity {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) principal_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
}

/// Which containers may use which identity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdentityAcls {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_access: Option<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) acls: Vec<IdentityAccess>,
}

/// One rule of [`IdentityAcls`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct IdentityAccess {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
}

/// A secret in a key vault, by a name that the rest of the group uses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_field_names, reason = "the names of the API")]
pub(crate) struct SecretReference {
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) identity: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) secret_reference_uri: String,
}

/// `diagnostics`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Diagnostics {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_analytics: Option<LogAnalytics>,
}

/// A workspace that gets the logs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogAnalytics {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) workspace_id: String,
    /// In no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workspace_key: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workspace_resource_id: Option<String>,
    /// `ContainerInsights` or `ContainerInstanceLogs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_type: Option<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
}

/// A subnet of a virtual network that is delegated to container groups.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct SubnetId {
    pub(crate) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

/// Name servers, in a virtual network only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DnsConfig {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) name_servers: Vec<String>,
    /// With spaces between them, as the options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) search_domains: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) options: Option<String>,
}

/// A customer's key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Encryption {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) vault_base_url: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) key_name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) key_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
}

/// `confidentialComputeProperties`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfidentialCompute {
    /// Base64 of a policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cce_policy: Option<String>,
}

/// An extension, in a virtual network only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Extension {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) properties: Option<ExtensionProperties>,
}

/// `properties` of an extension.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExtensionProperties {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) extension_type: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) settings: Option<Value>,
    /// Secrets, in no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protected_settings: Option<Value>,
}

impl std::fmt::Debug for ExtensionProperties {
    /// Without the protected settings.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExtensionProperties")
            .field("extension_type", &self.extension_type)
            .field("version", &self.version)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A stored profile that the group is made from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct GroupProfile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) revision: Option<i64>,
}

/// A pool of groups that wait to be used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StandbyPool {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fail_container_group_create_on_reuse_failure: Option<bool>,
}

/// Who made the resource, and when.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SystemData {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_by_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_modified_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_modified_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_modified_by_type: Option<String>,
}

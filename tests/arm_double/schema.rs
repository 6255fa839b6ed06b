//! Which members a request body may have, of which kind, and since which api-version. Everything else is refused, as a real
//! front door that reads strictly does: a member in the wrong place would be lost without a word otherwise.

use serde_json::{Map as Members, Value};

use Kind::{Any, Flag, Integer, List, Map, Named, Number, Object, OneOf, ReadOnly, Text, Texts};

/// What a member holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Whatever is there.
    Any,
    Flag,
    /// A number without a fraction.
    Integer,
    Number,
    Text,
    Texts,
    /// Text by name.
    Map,
    OneOf(&'static [&'static str]),
    Object(&'static [Member]),
    List(&'static [Member]),
    /// Objects by name.
    Named(&'static [Member]),
    /// In answers only. A request that has it shows that an answer was sent back.
    ReadOnly,
}

impl Kind {
    /// What is said of a member that only answers have.
    pub(super) const IS_READ_ONLY: &str = "is read-only";
}

/// One member of an object.
#[derive(Clone, Copy)]
pub(super) struct Member {
    name: &'static str,
    kind: Kind,
    needed: bool,
    /// The first api-version that knows it.
    since: &'static str,
}

const fn may(name: &'static str, kind: Kind) -> Member {
    Member { name, kind, needed: false, since: "" }
}

const fn need(name: &'static str, kind: Kind) -> Member {
    Member { name, kind, needed: true, since: "" }
}

impl Member {
    const fn since(self, version: &'static str) -> Self {
        Self { since: version, ..self }
    }
}

/// What is wrong with a body: where, and what.
pub(super) struct Wrong {
    pub(super) path: String,
    pub(super) what: String,
}

/// Holds an object against its members; gives everything that is wrong with it.
pub(super) fn check(body: &Value, members: &'static [Member], version: &str) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    object(body, members, version, "", &mut wrong);
    wrong
}

fn object(value: &Value, members: &'static [Member], version: &str, path: &str, wrong: &mut Vec<Wrong>) {
    let Some(object) = value.as_object() else {
        return wrong.push(Wrong { path: path.to_owned(), what: format!("is no object: {value}") });
    };
    for (name, value) in object {
        let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match members.iter().find(|member| member.name == name && member.since <= version) {
            Some(member) => kind(value, member.kind, version, &at, wrong),
            None => wrong.push(Wrong { path: at, what: "could not find member".to_owned() }),
        }
    }
    missing(object, members, path, wrong);
}

fn missing(object: &Members<String, Value>, members: &'static [Member], path: &str, wrong: &mut Vec<Wrong>) {
    for member in members.iter().filter(|member| member.needed && !object.contains_key(member.name)) {
        wrong.push(Wrong { path: path.to_owned(), what: format!("required member '{}' is missing", member.name) });
    }
}

fn kind(value: &Value, kind: Kind, version: &str, path: &str, wrong: &mut Vec<Wrong>) {
    let right = match kind {
        Any => true,
        Flag => value.is_boolean(),
        Integer => value.is_u64() || value.is_i64(),
        Number => value.is_number(),
        Text => value.is_string(),
        Texts => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
        Map => value.as_object().is_some_and(|all| all.values().all(Value::is_string)),
        OneOf(choices) => value.as_str().is_some_and(|value| choices.contains(&value)),
        ReadOnly => false,
        Object(members) => return object(value, members, version, path, wrong),
        List(members) => match value.as_array() {
            Some(all) => {
                for (at, value) in all.iter().enumerate() {
                    object(value, members, version, &format!("{path}[{at}]"), wrong);
                }
                return;
            }
            None => false,
        },
        Named(members) => match value.as_object() {
            Some(all) => {
                for (name, value) in all {
                    object(value, members, version, &format!("{path}['{name}']"), wrong);
                }
                return;
            }
            None => false,
        },
    };
    if !right {
        let what = if matches!(kind, ReadOnly) {
            Kind::IS_READ_ONLY.to_owned()
        } else {
            format!("has a wrong value: {value}")
        };
        wrong.push(Wrong { path: path.to_owned(), what });
    }
}

const V2025: &str = "2025-09-01";
const V2026: &str = "2026-07-01";

const USER_ASSIGNED_IDENTITIES: &[Member] = &[may("clientId", ReadOnly), may("principalId", ReadOnly)];
const CONTAINER_GROUP_IDENTITY: &[Member] = &[
    may("principalId", ReadOnly),
    may("tenantId", ReadOnly),
    may("type", OneOf(&["SystemAssigned", "UserAssigned", "SystemAssigned, UserAssigned", "None"])),
    may("userAssignedIdentities", Named(USER_ASSIGNED_IDENTITIES)),
];
const CONFIDENTIAL_COMPUTE_PROPERTIES: &[Member] = &[may("ccePolicy", Text)];
const CONTAINER_GROUP_PROFILE_REFERENCE_DEFINITION: &[Member] = &[may("id", Text), may("revision", Integer)];
const CONFIG_MAP: &[Member] = &[may("keyValuePairs", Map)];
const ENVIRONMENT_VARIABLE: &[Member] =
    &[need("name", Text), may("secureValue", Text), may("secureValueReference", Text).since(V2025), may("value", Text)];
const CONTAINER_EXEC: &[Member] = &[may("command", Texts)];
const HTTP_HEADER: &[Member] = &[may("name", Text), may("value", Text)];
const CONTAINER_HTTP_GET: &[Member] = &[
    may("httpHeaders", List(HTTP_HEADER)),
    may("path", Text),
    need("port", Integer),
    may("scheme", OneOf(&["http", "https"])),
];
const CONTAINER_PROBE: &[Member] = &[
    may("exec", Object(CONTAINER_EXEC)),
    may("failureThreshold", Integer),
    may("httpGet", Object(CONTAINER_HTTP_GET)),
    may("initialDelaySeconds", Integer),
    may("periodSeconds", Integer),
    may("successThreshold", Integer),
    may("timeoutSeconds", Integer),
];
const CONTAINER_PORT: &[Member] = &[need("port", Integer), may("protocol", OneOf(&["TCP", "UDP"]))];
const GPU_RESOURCE: &[Member] = &[need("count", Integer), need("sku", OneOf(&["K80", "P100", "V100"]))];
const RESOURCE_LIMITS: &[Member] = &[may("cpu", Number), may("gpu", Object(GPU_RESOURCE)), may("memoryInGB", Number)];
const RESOURCE_REQUESTS: &[Member] =
    &[need("cpu", Number), may("gpu", Object(GPU_RESOURCE)), need("memoryInGB", Number)];
const RESOURCE_REQUIREMENTS: &[Member] =
    &[may("limits", Object(RESOURCE_LIMITS)), need("requests", Object(RESOURCE_REQUESTS))];
const SECURITY_CONTEXT_CAPABILITIES_DEFINITION: &[Member] = &[may("add", Texts), may("drop", Texts)];
const SECURITY_CONTEXT_DEFINITION: &[Member] = &[
    may("allowPrivilegeEscalation", Flag),
    may("capabilities", Object(SECURITY_CONTEXT_CAPABILITIES_DEFINITION)),
    may("privileged", Flag),
    may("runAsGroup", Integer),
    may("runAsUser", Integer),
    may("seccompProfile", Text),
];
const VOLUME_MOUNT: &[Member] = &[need("mountPath", Text), need("name", Text), may("readOnly", Flag)];
const CONTAINER_PROPERTIES: &[Member] = &[
    may("command", Texts),
    may("configMap", Object(CONFIG_MAP)).since(V2025),
    may("environmentVariables", List(ENVIRONMENT_VARIABLE)),
    may("image", Text),
    may("instanceView", ReadOnly),
    may("livenessProbe", Object(CONTAINER_PROBE)),
    may("ports", List(CONTAINER_PORT)),
    may("readinessProbe", Object(CONTAINER_PROBE)),
    may("resources", Object(RESOURCE_REQUIREMENTS)),
    may("securityContext", Object(SECURITY_CONTEXT_DEFINITION)),
    may("volumeMounts", List(VOLUME_MOUNT)),
];
const CONTAINER: &[Member] = &[need("name", Text), need("properties", Object(CONTAINER_PROPERTIES))];
const LOG_ANALYTICS: &[Member] = &[
    may("logType", OneOf(&["ContainerInsights", "ContainerInstanceLogs"])),
    may("metadata", Map),
    need("workspaceId", Text),
    need("workspaceKey", Text),
    may("workspaceResourceId", Text),
];
const CONTAINER_GROUP_DIAGNOSTICS: &[Member] = &[may("logAnalytics", Object(LOG_ANALYTICS))];
const DNS_CONFIGURATION: &[Member] = &[need("nameServers", Texts), may("options", Text), may("searchDomains", Text)];
const ENCRYPTION_PROPERTIES: &[Member] =
    &[may("identity", Text), need("keyName", Text), need("keyVersion", Text), need("vaultBaseUrl", Text)];
const DEPLOYMENT_EXTENSION_SPEC_PROPERTIES: &[Member] =
    &[need("extensionType", Text), may("protectedSettings", Any), may("settings", Any), need("version", Text)];
const DEPLOYMENT_EXTENSION_SPEC: &[Member] =
    &[need("name", Text), may("properties", Object(DEPLOYMENT_EXTENSION_SPEC_PROPERTIES))];
const IDENTITY_ACCESS_CONTROL: &[Member] = &[may("access", OneOf(&["All", "System", "User"])), may("identity", Text)];
const IDENTITY_ACLS: &[Member] =
    &[may("acls", List(IDENTITY_ACCESS_CONTROL)), may("defaultAccess", OneOf(&["All", "System", "User"]))];
const IMAGE_REGISTRY_CREDENTIAL: &[Member] = &[
    may("identity", Text),
    may("identityUrl", Text),
    may("password", Text),
    may("passwordReference", Text).since(V2025),
    need("server", Text),
    may("username", Text),
];
const INIT_CONTAINER_PROPERTIES_DEFINITION: &[Member] = &[
    may("command", Texts),
    may("environmentVariables", List(ENVIRONMENT_VARIABLE)),
    may("image", Text),
    may("instanceView", ReadOnly),
    may("securityContext", Object(SECURITY_CONTEXT_DEFINITION)),
    may("volumeMounts", List(VOLUME_MOUNT)),
];
const INIT_CONTAINER_DEFINITION: &[Member] =
    &[need("name", Text), need("properties", Object(INIT_CONTAINER_PROPERTIES_DEFINITION))];
const PORT: &[Member] = &[need("port", Integer), may("protocol", OneOf(&["TCP", "UDP"]))];
const IP_ADDRESS: &[Member] = &[
    may(
        "autoGeneratedDomainNameLabelScope",
        OneOf(&["Unsecure", "TenantReuse", "SubscriptionReuse", "ResourceGroupReuse", "Noreuse"]),
    ),
    may("dnsNameLabel", Text),
    may("fqdn", ReadOnly),
    may("ip", Text),
    need("ports", List(PORT)),
    need("type", OneOf(&["Public", "Private"])),
];
const SECRET_REFERENCE: &[Member] = &[need("identity", Text), need("name", Text), need("secretReferenceUri", Text)];
const STANDBY_POOL_PROFILE_DEFINITION: &[Member] =
    &[may("failContainerGroupCreateOnReuseFailure", Flag), may("id", Text)];
const CONTAINER_GROUP_SUBNET_ID: &[Member] = &[need("id", Text), may("name", Text)];
const AZURE_FILE_VOLUME: &[Member] = &[
    may("readOnly", Flag),
    need("shareName", Text),
    may("storageAccountKey", Text),
    may("storageAccountKeyReference", Text).since(V2025),
    need("storageAccountName", Text),
    may("userAssignedIdentityClientId", Text).since(V2026),
];
const GIT_REPO_VOLUME: &[Member] = &[may("directory", Text), need("repository", Text), may("revision", Text)];
const VOLUME: &[Member] = &[
    may("azureFile", Object(AZURE_FILE_VOLUME)),
    may("emptyDir", Object(&[])),
    may("gitRepo", Object(GIT_REPO_VOLUME)),
    need("name", Text),
    may("secret", Map),
    may("secretReference", Map).since(V2025),
];
const CONTAINER_GROUP_PROPERTIES: &[Member] = &[
    may("confidentialComputeProperties", Object(CONFIDENTIAL_COMPUTE_PROPERTIES)),
    may("containerGroupProfile", Object(CONTAINER_GROUP_PROFILE_REFERENCE_DEFINITION)).since(V2025),
    need("containers", List(CONTAINER)),
    may("diagnostics", Object(CONTAINER_GROUP_DIAGNOSTICS)),
    may("dnsConfig", Object(DNS_CONFIGURATION)),
    may("encryptionProperties", Object(ENCRYPTION_PROPERTIES)),
    may("extensions", List(DEPLOYMENT_EXTENSION_SPEC)),
    may("identityAcls", Object(IDENTITY_ACLS)).since(V2025),
    may("imageRegistryCredentials", List(IMAGE_REGISTRY_CREDENTIAL)),
    may("initContainers", List(INIT_CONTAINER_DEFINITION)),
    may("instanceView", ReadOnly),
    may("ipAddress", Object(IP_ADDRESS)),
    may("isCreatedFromStandbyPool", ReadOnly),
    may("osType", OneOf(&["Windows", "Linux"])),
    may("priority", OneOf(&["Regular", "Spot"])),
    may("provisioningState", ReadOnly),
    may("restartPolicy", OneOf(&["Always", "OnFailure", "Never"])),
    may("secretReferences", List(SECRET_REFERENCE)).since(V2025),
    may("sku", OneOf(&["NotSpecified", "Standard", "Dedicated", "Confidential"])),
    may("standbyPoolProfile", Object(STANDBY_POOL_PROFILE_DEFINITION)).since(V2025),
    may("subnetIds", List(CONTAINER_GROUP_SUBNET_ID)),
    may("volumes", List(VOLUME)),
];
/// The body of a container group.
pub(super) const CONTAINER_GROUP: &[Member] = &[
    may("id", ReadOnly),
    may("identity", Object(CONTAINER_GROUP_IDENTITY)),
    may("location", Text),
    may("name", ReadOnly),
    need("properties", Object(CONTAINER_GROUP_PROPERTIES)),
    may("systemData", ReadOnly),
    may("tags", Map),
    may("type", ReadOnly),
    may("zones", Texts),
];

/// The body of a PATCH of a container group.
pub(super) const TAGS: &[Member] = &[need("tags", Map)];
/// The body of an exec.
pub(super) const EXEC: &[Member] = &[need("command", Text), may("terminalSize", Object(TERMINAL))];
const TERMINAL: &[Member] = &[may("cols", Integer), may("rows", Integer)];
/// The body of a resource group.
pub(super) const RESOURCE_GROUP: &[Member] = &[need("location", Text), may("tags", Map)];
/// The body of a storage account, as far as anybody here needs it.
pub(super) const ACCOUNT: &[Member] = &[
    need("location", Text),
    need("kind", OneOf(&["StorageV2", "FileStorage"])),
    need("sku", Object(SKU)),
    may("tags", Map),
    may("properties", Any),
];
const SKU: &[Member] =
    &[need("name", OneOf(&["Standard_LRS", "Standard_ZRS", "Standard_GRS", "Premium_LRS", "Premium_ZRS"]))];
/// The body of a file share.
pub(super) const SHARE: &[Member] = &[may("properties", Object(SHARE_PROPERTIES))];
const SHARE_PROPERTIES: &[Member] = &[
    may("shareQuota", Integer),
    may("metadata", Map),
    may("accessTier", OneOf(&["TransactionOptimized", "Hot", "Cool", "Premium"])),
    may("enabledProtocols", OneOf(&["SMB", "NFS"])),
    may("rootSquash", OneOf(&["NoRootSquash", "RootSquash", "AllSquash"])),
];
/// The body of a new storage key.
pub(super) const REGENERATE: &[Member] = &[need("keyName", OneOf(&["key1", "key2"]))];

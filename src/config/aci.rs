//! The settings of Azure Container Instances: where in Azure, and by whose name. There are none until
//! `Q8_AGENT_ACI_REGIONS` is set; from then on what is missing is an error that names the variable.

use std::path::PathBuf;

use hyper::Uri;
use secrecy::SecretString;
use serde::Deserialize;

use super::{ConfigError, checked, secret, values};

/// The newest api-version with everything that a container group of ours needs.
const API_VERSION: &str = "2025-09-01";
const ARM_ENDPOINT: &str = "https://management.azure.com";
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The instance metadata service has this address on every virtual machine, and no TLS.
const IMDS_ENDPOINT: &str = "http://169.254.169.254";
/// More locations than Azure has.
const MOST_REGIONS: usize = 100;
/// More registries than one host needs.
const MOST_REGISTRIES: usize = 100;

/// Where in Azure tenants can be placed, and how Azure is spoken to.
#[derive(Debug, Clone)]
pub struct AciSettings {
    /// The subscription's id.
    pub subscription: String,
    /// Never empty, each location once; the first is the default.
    pub regions: Vec<AciRegion>,
    /// The api-version of container groups.
    pub api_version: String,
    /// Where Azure Resource Manager answers, without a slash at the end.
    pub arm_endpoint: String,
    /// By whose name.
    pub credentials: AciCredentials,
    /// A file with prices, for estimates.
    pub prices: Option<PathBuf>,
    /// By what groups get at images of registries for which neither the request nor the host has credentials.
    pub registry_identities: Vec<AciRegistryIdentity>,
}

/// A registry that lets a managed identity in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AciRegistryIdentity {
    /// Its host, in lower case.
    pub registry: String,
    /// The resource id of a user-assigned identity that may pull there.
    pub identity: String,
}

/// One location with what tenants share there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AciRegion {
    /// The location's name, such as `eastus`.
    pub location: String,
    /// The resource group of the tenants' container groups.
    pub resource_group: String,
    /// The account of the tenants' file shares; none: no named volumes there.
    pub storage_account: Option<String>,
}

/// How the agent proves who it is.
#[derive(Debug, Clone)]
pub enum AciCredentials {
    /// An application with a secret.
    ClientSecret {
        /// Where tokens are asked for, without a slash at the end.
        authority: String,
        /// The directory.
        tenant: String,
        /// The application.
        client: String,
        /// Its secret.
        secret: SecretString,
    },
    /// An application that trusts somebody else's tokens (workload identity).
    FederatedToken {
        /// Where tokens are asked for, without a slash at the end.
        authority: String,
        /// The directory.
        tenant: String,
        /// The application.
        client: String,
        /// The file with the other's token, which is renewed: it is read each time.
        file: PathBuf,
    },
    /// The identity of the virtual machine.
    ManagedIdentity {
        /// The instance metadata service, without a slash at the end.
        imds: String,
        /// Which of several identities.
        client: Option<String>,
    },
    /// The identity of an App Service or Container App.
    AppService {
        /// The platform's own endpoint, as the platform says it.
        endpoint: String,
        /// What the platform wants to see in each request.
        header: SecretString,
        /// Which of several identities.
        client: Option<String>,
    },
}

/// The variables whose names Azure has given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AzureVariables {
    azure_subscription_id: Option<String>,
    azure_tenant_id: Option<String>,
    azure_client_id: Option<String>,
    azure_client_secret: Option<String>,
    azure_client_secret_file: Option<String>,
    azure_federated_token_file: Option<String>,
    azure_authority_host: Option<String>,
    identity_endpoint: Option<String>,
    identity_header: Option<String>,
}

/// Those that this agent has given.
pub(super) struct OwnVariables {
    pub(super) regions: Option<String>,
    pub(super) api_version: Option<String>,
    pub(super) arm_endpoint: Option<String>,
    pub(super) imds_endpoint: Option<String>,
    pub(super) prices: Option<String>,
    pub(super) registry_identities: Option<String>,
}

/// None when no region is set: what Azure's own variables say may then be meant for somebody else.
pub(super) fn read(own: OwnVariables, azure: AzureVariables) -> Result<Option<AciSettings>, ConfigError> {
    let Some(regions_text) = own.regions else { return Ok(None) };
    let allowed = "a list of location:resource_group:storage_account, such as eastus:tenants-eastus:tenantseastus (the \
                   account may be left out), each location once, in lower case and without spaces";
    let regions = regions(&regions_text).ok_or(ConfigError::Invalid { name: "Q8_AGENT_ACI_REGIONS", allowed })?;
    let subscription = needed(
        "AZURE_SUBSCRIPTION_ID",
        azure.azure_subscription_id.clone(),
        "set when Q8_AGENT_ACI_REGIONS is, to the id of the subscription, such as 00000000-0000-0000-0000-000000000000",
        identifier,
    )?;
    let secure = "an https:// address without a query, such as https://management.azure.com (http:// for a loopback \
                  address only)";
    let arm_endpoint =
        checked("Q8_AGENT_ARM_ENDPOINT", own.arm_endpoint, ARM_ENDPOINT.to_owned(), secure, secure_endpoint)?;
    let api_version = checked(
        "Q8_AGENT_ACI_API_VERSION",
        own.api_version,
        API_VERSION.to_owned(),
        "a date such as 2025-09-01",
        api_version,
    )?;
    let prices = own.prices.map(|path| {
        let allowed = "the absolute path of a file with prices";
        values::absolute_directory(&path).ok_or(ConfigError::Invalid { name: "Q8_AGENT_ACI_PRICES", allowed })
    });
    let prices = prices.transpose()?;
    let registry_identities = own.registry_identities.map_or(Some(Vec::new()), |text| registry_identities(&text));
    let allowed = "a list of registry=identity, such as \
                   shop.azurecr.io=/subscriptions/…/providers/Microsoft.ManagedIdentity/userAssignedIdentities/pull, each \
                   registry once";
    let registry_identities =
        registry_identities.ok_or(ConfigError::Invalid { name: "Q8_AGENT_ACI_REGISTRY_IDENTITIES", allowed })?;
    let credentials = credentials(azure, own.imds_endpoint)?;
    Ok(Some(AciSettings { subscription, regions, api_version, arm_endpoint, credentials, prices, registry_identities }))
}

/// The first kind that is set: a secret, a federated token, the platform's identity, the machine's.
fn credentials(azure: AzureVariables, imds: Option<String>) -> Result<AciCredentials, ConfigError> {
    let authority = checked(
        "AZURE_AUTHORITY_HOST",
        azure.azure_authority_host,
        AUTHORITY.to_owned(),
        "an https:// address without a query, such as https://login.microsoftonline.com (http:// for a loopback address \
         only)",
        secure_endpoint,
    )?;
    let secret = secret(
        "AZURE_CLIENT_SECRET",
        "AZURE_CLIENT_SECRET_FILE",
        azure.azure_client_secret,
        azure.azure_client_secret_file.as_deref(),
    )?;
    let (tenant, client) = (azure.azure_tenant_id, azure.azure_client_id);
    let application = |tenant, client| {
        let tenant = needed(
            "AZURE_TENANT_ID",
            tenant,
            "set together with AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE, to the id or the domain of the directory",
            directory,
        )?;
        let client = needed(
            "AZURE_CLIENT_ID",
            client,
            "set together with AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE, to the id of the application",
            identifier,
        )?;
        Ok::<_, ConfigError>((tenant, client))
    };
    if let Some(secret) = secret {
        let (tenant, client) = application(tenant, client)?;
        return Ok(AciCredentials::ClientSecret { authority, tenant, client, secret });
    }
    if let Some(path) = azure.azure_federated_token_file {
        let (tenant, client) = application(tenant, client)?;
        let allowed = "the absolute path of a file with a token";
        let file = values::absolute_directory(&path)
            .ok_or(ConfigError::Invalid { name: "AZURE_FEDERATED_TOKEN_FILE", allowed })?;
        return Ok(AciCredentials::FederatedToken { authority, tenant, client, file });
    }
    if tenant.is_some() {
        return Err(ConfigError::Invalid {
            name: "AZURE_TENANT_ID",
            allowed: "set together with AZURE_CLIENT_SECRET (or its _FILE) or AZURE_FEDERATED_TOKEN_FILE; a managed \
                      identity needs none of them",
        });
    }
    let client = client.map(|client| {
        let allowed = "the client id of an identity, such as 00000000-0000-0000-0000-000000000000";
        identifier(&client).ok_or(ConfigError::Invalid { name: "AZURE_CLIENT_ID", allowed })
    });
    let client = client.transpose()?;
    let near = "an https:// address, or an http:// one that is loopback or link-local";
    match (azure.identity_endpoint, azure.identity_header) {
        (None, None) => {}
        (Some(endpoint), Some(header)) => {
            let endpoint =
                near_address(&endpoint).ok_or(ConfigError::Invalid { name: "IDENTITY_ENDPOINT", allowed: near })?;
            return Ok(AciCredentials::AppService { endpoint, header: SecretString::from(header), client });
        }
        (Some(_), None) => {
            return Err(ConfigError::Invalid {
                name: "IDENTITY_HEADER",
                allowed: "set together with IDENTITY_ENDPOINT",
            });
        }
        (None, Some(_)) => {
            return Err(ConfigError::Invalid {
                name: "IDENTITY_ENDPOINT",
                allowed: "set together with IDENTITY_HEADER",
            });
        }
    }
    let imds = checked("Q8_AGENT_IMDS_ENDPOINT", imds, IMDS_ENDPOINT.to_owned(), near, |text| {
        near_address(text).map(|address| address.trim_end_matches('/').to_owned())
    })?;
    Ok(AciCredentials::ManagedIdentity { imds, client })
}

/// A setting that has no default.
fn needed(
    name: &'static str,
    value: Option<String>,
    allowed: &'static str,
    parse: impl FnOnce(&str) -> Option<String>,
) -> Result<String, ConfigError> {
    value.and_then(|text| parse(&text)).ok_or(ConfigError::Invalid { name, allowed })
}

fn regions(text: &str) -> Option<Vec<AciRegion>> {
    let mut all: Vec<AciRegion> = Vec::new();
    for item in text.split(',').map(str::trim) {
        let mut parts = item.split(':');
        let (location, group) = (parts.next()?, parts.next()?);
        let account = parts.next().filter(|account| !account.is_empty());
        let good = is_location(location)
            && is_resource_group(group)
            && account.is_none_or(is_storage_account)
            && parts.next().is_none()
            && all.iter().all(|other| other.location != location)
            && all.len() < MOST_REGIONS;
        if !good {
            return None;
        }
        all.push(AciRegion {
            location: location.to_owned(),
            resource_group: group.to_owned(),
            storage_account: account.map(str::to_owned),
        });
    }
    Some(all)
}

fn registry_identities(text: &str) -> Option<Vec<AciRegistryIdentity>> {
    let mut all: Vec<AciRegistryIdentity> = Vec::new();
    for item in text.split(',').map(str::trim) {
        let (registry, identity) = item.split_once('=')?;
        let registry = registry.to_ascii_lowercase();
        let good = is_registry(&registry)
            && is_user_assigned_identity(identity)
            && all.iter().all(|other| other.registry != registry)
            && all.len() < MOST_REGISTRIES;
        if !good {
            return None;
        }
        all.push(AciRegistryIdentity { registry, identity: identity.to_owned() });
    }
    Some(all)
}

/// A host, without a protocol.
fn is_registry(text: &str) -> bool {
    let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b':');
    (1..=253).contains(&text.len()) && text.bytes().all(good) && text.as_bytes()[0].is_ascii_alphanumeric()
}

/// `/subscriptions/{id}/resourceGroups/{name}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}`; capitals
/// make no difference there.
fn is_user_assigned_identity(text: &str) -> bool {
    let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b'(' | b')' | b'/');
    let parts: Vec<&str> = text.split('/').collect();
    let &["", subscriptions, _, groups, _, providers, provider, kind, _] = &parts[..] else { return false };
    let words = [subscriptions, groups, providers, provider, kind].map(str::to_ascii_lowercase);
    let wanted =
        ["subscriptions", "resourcegroups", "providers", "microsoft.managedidentity", "userassignedidentities"];
    text.bytes().all(good) && parts[1..].iter().all(|part| !part.is_empty()) && words == wanted
}

/// As in requests: the short name of a location, never the one for people.
fn is_location(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

/// Azure's rule, without the letters that only some of its clients take: 1 to 90 of letters, digits and `-_.()`, no full
/// stop at the end.
fn is_resource_group(text: &str) -> bool {
    let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b'(' | b')');
    (1..=90).contains(&text.len()) && text.bytes().all(good) && !text.ends_with('.')
}

/// Azure's rule: 3 to 24 lower-case letters and digits.
fn is_storage_account(text: &str) -> bool {
    (3..=24).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// Ids stand in the paths of requests, so only what cannot change a path is let through.
fn identifier(text: &str) -> Option<String> {
    let good = (1..=64).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    good.then(|| text.to_owned())
}

/// The id of a directory or one of its domains.
fn directory(text: &str) -> Option<String> {
    let good = (1..=253).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'))
        && !text.starts_with('.')
        && !text.contains("..");
    good.then(|| text.to_owned())
}

fn api_version(text: &str) -> Option<String> {
    let date = text.strip_suffix("-preview").unwrap_or(text);
    let shape = |(at, c): (usize, u8)| if matches!(at, 4 | 7) { c == b'-' } else { c.is_ascii_digit() };
    (date.len() == 10 && date.bytes().enumerate().all(shape)).then(|| text.to_owned())
}

/// Tokens go there: nobody on the way may read them.
fn secure_endpoint(text: &str) -> Option<String> {
    let uri = address(text)?;
    let good = uri.scheme_str() == Some("https") || is_loopback(uri.host()?);
    good.then(|| text.trim_end_matches('/').to_owned())
}

/// Platforms hand out identities on addresses that no other machine reaches, without TLS.
fn near_address(text: &str) -> Option<String> {
    let uri = address(text)?;
    let host = uri.host()?;
    let is_link_local = host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_link_local());
    let good = uri.scheme_str() == Some("https") || is_loopback(host) || is_link_local;
    good.then(|| text.to_owned())
}

/// An absolute http or https address without user, query and fragment.
fn address(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let good = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.query().is_none()
        && !text.contains(['#', '@', '?'])
        && text.len() <= 512
        && uri.host().is_some_and(|host| !host.is_empty());
    good.then_some(uri)
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_of_a_list() {
        const PULL: &str =
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/pull";
        let read = registry_identities(&format!("Shop.azurecr.io={PULL}, ghcr.io={PULL}")).unwrap();
        assert_eq!(read.iter().map(|one| one.registry.as_str()).collect::<Vec<_>>(), ["shop.azurecr.io", "ghcr.io"]);
        assert!(read.iter().all(|one| one.identity == PULL));
        for bad in [
            String::new(),
            "shop.azurecr.io".to_owned(),
            format!("https://shop.azurecr.io={PULL}"),
            format!("a={PULL},A={PULL}"),
            format!("a={PULL}/more"),
            format!("a={}", PULL.replace("/g/", "//")),
            format!("a={}", PULL.replace("ManagedIdentity", "Storage")),
            format!("a={PULL}?x"),
        ] {
            assert_eq!(registry_identities(&bad), None, "{bad}");
        }
    }

    #[test]
    fn regions_of_a_list() {
        let region = |location: &str, group: &str, account: Option<&str>| AciRegion {
            location: location.to_owned(),
            resource_group: group.to_owned(),
            storage_account: account.map(str::to_owned),
        };
        assert_eq!(
            regions("eastus:tenants-eastus:tenantseastus, westeurope:Tenants_(We).x"),
            Some(vec![
                region("eastus", "tenants-eastus", Some("tenantseastus")),
                region("westeurope", "Tenants_(We).x", None),
            ])
        );
        for bad in [
            "",
            "eastus",
            "East US:g:account",
            "eastus:g/../x:account",
            "eastus:g.:account",
            "eastus:g:No-Account",
            "eastus:g:ac",
            "eastus:g:account:more",
            "eastus:g:account,eastus:h:account",
            "eastus:g:account,",
            ":g:account",
            "eastus::account",
        ] {
            assert_eq!(regions(bad), None, "{bad}");
        }
    }

    #[test]
    fn endpoints() {
        for (text, secure, near) in [
            ("https://management.azure.com", true, true),
            ("https://management.azure.com/", true, true),
            ("http://127.0.0.1:8080", true, true),
            ("http://[::1]:8080", true, true),
            ("http://localhost:8080", true, true),
            ("http://169.254.169.254", false, true),
            ("http://169.254.129.2:8081/msi/token", false, true),
            ("http://management.azure.com", false, false),
            ("http://localhost.example.com", false, false),
            ("http://10.0.0.1", false, false),
            ("http://localhost@example.com", false, false),
            ("https://example.com/?a=b", false, false),
            ("https://example.com/#x", false, false),
            ("ftp://localhost", false, false),
            ("management.azure.com", false, false),
            ("", false, false),
        ] {
            assert_eq!((secure_endpoint(text).is_some(), near_address(text).is_some()), (secure, near), "{text}");
        }
        assert_eq!(secure_endpoint("https://login.microsoftonline.com/").as_deref(), Some(AUTHORITY));
    }

    #[test]
    fn ids_and_versions() {
        for (text, id, domain, version) in [
            ("00000000-0000-0000-0000-000000000000", true, true, false),
            ("contoso.onmicrosoft.com", false, true, false),
            ("../x", false, false, false),
            ("a/b", false, false, false),
            ("a..b", false, false, false),
            ("", false, false, false),
            ("2025-09-01", true, true, true),
            ("2025-09-01-preview", true, true, true),
            ("2025-9-1", true, true, false),
        ] {
            let found = (identifier(text).is_some(), directory(text).is_some(), api_version(text).is_some());
            assert_eq!(found, (id, domain, version), "{text}");
        }
    }
}

//! The settings of Azure Container Instances: where in Azure, and by whose name.

use std::path::PathBuf;

use secrecy::SecretString;

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

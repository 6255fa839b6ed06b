//! What the Main Server asks for: a tenant's specification.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::image::ImageRef;
use super::limits::Limits;
use super::names::{InvalidName, ServiceName, Subdomain, TenantId};
use super::path::ProjectPath;

/// Counts the accepted specifications of one tenant, from 1. Zero: none has been accepted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// Before the first accepted specification.
    pub const NONE: Self = Self(0);

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where tenants run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum BackendName {
    /// The Docker Engine of this host.
    Docker,
    /// The in-memory backend: a pretend engine for development and tests.
    Memory,
    /// Azure Container Instances.
    Aci,
}

impl BackendName {
    /// The word used in requests, records and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Memory => "memory",
            Self::Aci => "aci",
        }
    }

    /// Whether its tenants use this host's memory, CPUs, ports and subnets.
    pub fn is_on_this_host(self) -> bool {
        match self {
            Self::Docker | Self::Memory => true,
            Self::Aci => false,
        }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where one tenant is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// The backend; fixed for the tenant's life.
    pub backend: BackendName,
    /// A cloud location; only cloud backends have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// Whether a tenant's services are meant to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// They are.
    Running,
    /// `stop` was asked for; also the engine's own restart does not bring them back.
    Stopped,
}

/// One file of a request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileContent {
    /// The bytes, as base64 in JSON.
    #[serde(with = "as_base64")]
    pub bytes: Vec<u8>,
    /// Permission bits, `0o644` unless the request says otherwise.
    pub mode: u32,
}

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileContent({} bytes, mode {:o})", self.bytes.len(), self.mode)
    }
}

mod as_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(input)?).map_err(D::Error::custom)
    }
}

/// The whole of what is wanted for one tenant, as accepted. Stored per generation, readable by root only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantSpec {
    /// The tenant's identity.
    pub id: TenantId,
    /// The tenant's name on this host.
    pub subdomain: Subdomain,
    /// The Compose file's text.
    pub compose: String,
    /// The env file's text, the only source of variables for interpolation.
    pub env: String,
    /// The config files, by path in the project directory.
    pub files: BTreeMap<ProjectPath, FileContent>,
    /// Active Compose profiles.
    pub profiles: BTreeSet<String>,
    /// Where it runs.
    pub placement: Placement,
    /// The most that the request lets it have; the host's policy may allow less.
    #[serde(default)]
    pub limits: Limits,
    /// Image ids to run instead of what the references resolve to today; set by a rollback only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pinned_images: BTreeMap<ServiceName, String>,
}

impl fmt::Debug for TenantSpec {
    /// Shows the shape, never a text that may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantSpec")
            .field("id", &self.id)
            .field("subdomain", &self.subdomain)
            .field("files", &self.files.keys())
            .field("profiles", &self.profiles)
            .field("placement", &self.placement)
            .finish_non_exhaustive()
    }
}

/// Credentials for one registry. They live as long as the operation and are never written to disk.
#[derive(Debug, Clone)]
pub struct RegistryAuth {
    /// The registry's host, with its port when it has one, exactly as in image references (`docker.io` for the Hub).
    pub registry: String,
    /// The user name.
    pub username: String,
    /// The password or token.
    pub password: SecretString,
}

impl RegistryAuth {
    /// Accepts a registry's host as it stands in image references, in lower case: host names have none. The Hub's other
    /// names mean the Hub, the one among them that docker login keeps its credentials under.
    pub fn parse_host(text: &str) -> Result<String, InvalidName> {
        let hub = matches!(text, "https://index.docker.io/v1/" | "https://index.docker.io/v1");
        let host = if hub { "docker.io" } else { text };
        let image = ImageRef::parse(&format!("{host}/x")).ok();
        match image {
            // All of it was the host, and none of it part of the repository.
            Some(image) if image.repository() == "x" => Ok(image.registry().to_ascii_lowercase()),
            _ => Err(InvalidName {
                kind: "registry",
                rule: "a host as in image references, such as ghcr.io or registry.example:5000 (docker.io for the Hub), \
                       without https:// and without a path",
            }),
        }
    }
}

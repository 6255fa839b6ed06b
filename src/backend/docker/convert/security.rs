//! `security_opt`: most words go to the engine as they are; a seccomp profile goes there by its content.

use crate::backend::deployment::seccomp_file;
use crate::backend::{BackendError, Deployment};
use crate::compose::Service;
use crate::domain::ServiceName;

/// What `security_opt` comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::backend::docker) struct Security {
    /// `HostConfig.SecurityOpt`.
    pub(in crate::backend::docker) options: Vec<String>,
    /// `systempaths=unconfined`: nothing of `/proc` and `/sys` is masked or read-only.
    pub(in crate::backend::docker) all_paths: bool,
}

/// Reads the options of a service. A profile is a file of the request: the agent reads nothing else of the host.
pub(in crate::backend::docker) fn security_options(
    deployment: &Deployment,
    name: &ServiceName,
    service: &Service,
) -> Result<Security, BackendError> {
    let mut security = Security::default();
    for (index, option) in service.security_opt.iter().enumerate() {
        if matches!(option.as_str(), "systempaths=unconfined" | "systempaths:unconfined") {
            security.all_paths = true;
            continue;
        }
        let Some(path) = seccomp_file(option) else {
            security.options.push(option.clone());
            continue;
        };
        let unsupported = |reason: &str| BackendError::Unsupported {
            field: format!("services.{name}.security_opt[{index}]"),
            reason: reason.to_owned(),
        };
        let bytes =
            deployment.request_file(path).ok_or_else(|| unsupported("the profile is no file of the request"))?;
        let profile: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|_| unsupported("the profile is not JSON"))?;
        security.options.push(format!("seccomp={profile}"));
    }
    Ok(security)
}

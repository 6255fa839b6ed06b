//! What an engine is too old for, refused by its field before anything is touched, or left out with a warning. An old
//! engine does not complain about a member of a request that it does not know: it leaves it out without a word.

use super::convert;
use crate::backend::{BackendError, Deployment};
use crate::compose::{MountSource, Service};
use crate::domain::is_native;

/// A version of the Engine API, such as (1, 41).
pub(super) type ApiVersion = (u32, u32);

/// Docker Engine 23: binds may have their source made.
pub(super) const API_1_42: ApiVersion = (1, 42);
/// Docker Engine 24: annotations.
const API_1_43: ApiVersion = (1, 43);
/// Docker Engine 25: several networks at creation, their own MAC addresses, `start_interval`, recursive read-only binds.
pub(super) const API_1_44: ApiVersion = (1, 44);
/// Docker Engine 26: a part of a volume can be mounted.
const API_1_45: ApiVersion = (1, 45);
/// Docker Engine 28.0: image mounts, gateway priorities, networks without IPv4.
const API_1_48: ApiVersion = (1, 48);
/// Docker Engine 28.1: names of interfaces.
const API_1_49: ApiVersion = (1, 49);

/// Bytes of the request for one container. Engines take more, and keep all of it for as long as the container lives.
const REQUEST: usize = 1 << 20;

/// Refuses a deployment that asks for more than an engine with this API on this platform can do, or for what none can.
pub(super) fn check(wanted: &Deployment, api: ApiVersion, host: Option<&str>) -> Result<(), BackendError> {
    let project = wanted.project.project();
    for (name, service) in &project.services {
        // Foreign programs run in an emulator, if there is one: the host's, with rights that it got for that.
        if let (true, Some(asked), Some(host)) = (wanted.project.is_confined(), &service.platform, host)
            && !is_native(asked, host)
        {
            return Err(BackendError::Unsupported {
                field: format!("services.{name}.platform"),
                reason: format!("this host runs {host}"),
            });
        }
        if convert::size(wanted, service) > REQUEST {
            return Err(BackendError::Unsupported {
                field: format!("services.{name}"),
                reason: "all that its containers are made from would be more than 1 MiB".to_owned(),
            });
        }
        convert::security_options(wanted, name, service)?;
        convert::isolation(name, service)?;
        for (needed, attribute) in needs(service) {
            demand(api, needed, || format!("services.{name}.{attribute}"))?;
        }
    }
    for (key, network) in project.networks.iter().filter(|(_, network)| !network.external) {
        if network.enable_ipv4 == Some(false) {
            demand(api, API_1_48, || format!("networks.{key}.enable_ipv4"))?;
        }
    }
    Ok(())
}

/// What is left out because the engine is too old for it, where the stack means the same without it: a sentence each.
pub(super) fn left_out(wanted: &Deployment, api: ApiVersion) -> impl Iterator<Item = String> {
    let services = wanted.project.project().services.iter().filter(move |_| api < API_1_44);
    let checked_early = services.filter(|(_, service)| {
        service.healthcheck.as_ref().is_some_and(|check| check.start_interval.is_some() && !check.is_disabled())
    });
    checked_early.map(|(name, _)| {
        format!(
            "services.{name}.healthcheck.start_interval: needs Docker Engine 25 or later; `interval` holds from the start"
        )
    })
}

/// The attributes of a service that not every engine knows, with the version that does.
fn needs(service: &Service) -> Vec<(ApiVersion, String)> {
    let mut needs = Vec::new();
    if !service.annotations.is_empty() {
        needs.push((API_1_43, "annotations".to_owned()));
    }
    for (at, mount) in service.mounts.iter().enumerate() {
        let (needed, option) = match &mount.source {
            MountSource::Volume { subpath: Some(_), .. } => (API_1_45, ".volume.subpath"),
            MountSource::Bind { recursive: Some(word), .. } if word == "readonly" => (API_1_44, ".bind.recursive"),
            MountSource::Image { .. } => (API_1_48, ".type"),
            _ => continue,
        };
        needs.push((needed, format!("volumes[{at}]{option}")));
    }
    let primary = convert::primary_network(service);
    for (key, membership) in &service.networks {
        if membership.mac_address.is_some() && primary != Some(key) {
            needs.push((API_1_44, format!("networks.{key}.mac_address")));
        }
        if membership.gw_priority != 0 {
            needs.push((API_1_48, format!("networks.{key}.gw_priority")));
        }
        if membership.interface_name.is_some() {
            needs.push((API_1_49, format!("networks.{key}.interface_name")));
        }
    }
    needs
}

fn demand(api: ApiVersion, needed: ApiVersion, field: impl FnOnce() -> String) -> Result<(), BackendError> {
    if api >= needed {
        return Ok(());
    }
    let release = match needed {
        API_1_43 => "24",
        API_1_44 => "25",
        API_1_45 => "26",
        API_1_48 => "28",
        _ => "28.1",
    };
    Err(BackendError::Unsupported { field: field(), reason: format!("it needs Docker Engine {release} or later") })
}

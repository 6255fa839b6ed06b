//! Networks, volumes, connections and commands.

use std::collections::HashMap;

use bollard::models::{EndpointSettings, ExecConfig, Ipam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest};

use super::container::{is_empty, is_off};
use super::{Allowance, Connection, Verdict, demand, is_numbered_user};
use crate::backend::docker::labels as names;
use crate::backend::docker::networks::Subnet;
use crate::policy::Profile;

impl Allowance<'_> {
    pub(super) fn judge_network(&self, request: &NetworkCreateRequest) -> Verdict {
        let NetworkCreateRequest {
            name,
            driver,
            scope,
            // Both close a network or open it to the tenant's own containers.
            internal: _,
            attachable: _,
            ingress,
            config_only,
            config_from,
            ipam,
            enable_ipv4: _,
            enable_ipv6: _,
            options,
            labels,
        } = request;
        self.judge_object_labels(labels.as_ref(), names::NETWORK)?;
        if !self.confines() {
            return Ok(());
        }
        demand(self.is_own_object(name), "Name", "the project's own name")?;
        demand(driver.as_ref().is_none_or(|driver| driver == "bridge"), "Driver", "bridge")?;
        demand(scope.is_none(), "Scope", "none")?;
        demand(is_off(*ingress), "Ingress", "false")?;
        demand(is_off(*config_only), "ConfigOnly", "false")?;
        demand(config_from.is_none(), "ConfigFrom", "none")?;
        demand(options.as_ref().is_none_or(HashMap::is_empty), "Options", "none: they reach the host's own settings")?;
        let Some(Ipam { driver, config, options }) = ipam else {
            return demand(false, "IPAM", "a subnet of the agent's pool");
        };
        demand(driver.as_ref().is_none_or(|driver| driver == "default"), "IPAM.Driver", "default")?;
        demand(options.as_ref().is_none_or(HashMap::is_empty), "IPAM.Options", "none")?;
        let [config] = config.as_deref().unwrap_or_default() else {
            return demand(false, "IPAM.Config", "one subnet of the agent's pool");
        };
        let IpamConfig { subnet, ip_range, gateway, auxiliary_addresses } = config;
        let in_pool = subnet.as_deref().and_then(Subnet::parse).is_some_and(|subnet| self.ground.pool.contains(subnet));
        demand(in_pool, "IPAM.Config.Subnet", "a subnet of the agent's pool")?;
        demand(ip_range.is_none(), "IPAM.Config.IPRange", "none")?;
        demand(gateway.is_none(), "IPAM.Config.Gateway", "none")?;
        demand(auxiliary_addresses.as_ref().is_none_or(HashMap::is_empty), "IPAM.Config.AuxiliaryAddresses", "none")
    }

    pub(super) fn judge_volume(&self, request: &VolumeCreateRequest) -> Verdict {
        let VolumeCreateRequest { name, driver, driver_opts, labels, cluster_volume_spec } = request;
        self.judge_object_labels(labels.as_ref(), names::VOLUME)?;
        if !self.confines() {
            return Ok(());
        }
        demand(name.as_ref().is_some_and(|name| self.is_own_object(name)), "Name", "the project's own name")?;
        demand(driver.as_ref().is_none_or(|driver| driver == "local"), "Driver", "local")?;
        let plain = driver_opts.as_ref().is_none_or(HashMap::is_empty);
        demand(plain, "DriverOpts", "none: they mount any path of the host")?;
        demand(cluster_volume_spec.is_none(), "ClusterVolumeSpec", "none")
    }

    pub(super) fn judge_connection(&self, connection: &Connection) -> Verdict {
        let Connection { network, container: _, endpoint } = connection;
        if !self.confines() {
            return Ok(());
        }
        demand(self.may_join(network), "Network", "a network of this project")?;
        self.judge_endpoint("EndpointConfig", network, endpoint)
    }

    pub(super) fn judge_endpoint(&self, field: &str, network: &str, endpoint: &EndpointSettings) -> Verdict {
        let EndpointSettings {
            ipam_config,
            links,
            mac_address,
            aliases,
            driver_opts,
            gw_priority: _,
            network_id,
            endpoint_id,
            gateway,
            ip_address,
            ip_prefix_len,
            ipv6_gateway,
            global_ipv6_address,
            global_ipv6_prefix_len,
            dns_names,
        } = endpoint;
        let apart = |alias: &String| alias.rsplit_once('.').is_some_and(|(_, project)| project == self.project);
        let names = self.is_own_object(network) || aliases.iter().flatten().all(apart);
        demand(names, format!("{field}.Aliases"), "on a network of others, names that end in the project's")?;
        demand(ipam_config.is_none(), format!("{field}.IPAMConfig"), "none: addresses are the agent's pool's")?;
        demand(mac_address.is_none(), format!("{field}.MacAddress"), "none")?;
        let own = |link: &String| link.split(':').next().is_some_and(|container| self.is_own_container(container));
        demand(links.iter().flatten().all(own), format!("{field}.Links"), "containers of this project")?;
        let known = |option: &String| option == "com.docker.network.endpoint.ifname";
        demand(
            driver_opts.iter().flat_map(HashMap::keys).all(known),
            format!("{field}.DriverOpts"),
            "an interface's name",
        )?;
        // The engine's own answers, which no request has.
        let texts = [network_id, endpoint_id, gateway, ip_address, ipv6_gateway, global_ipv6_address];
        let said = texts.iter().any(|text| text.is_some())
            || ip_prefix_len.is_some()
            || global_ipv6_prefix_len.is_some()
            || !is_empty(dns_names);
        demand(!said, field, "nothing that is the engine's to say")
    }
}

pub(super) fn judge_command(profile: Profile, config: &ExecConfig) -> Verdict {
    let ExecConfig {
        attach_stdin,
        attach_stdout: _,
        attach_stderr: _,
        console_size,
        detach_keys,
        tty,
        // They stay inside the container.
        env: _,
        cmd: _,
        privileged,
        user,
        working_dir: _,
    } = config;
    if !profile.confines() {
        return Ok(());
    }
    demand(is_off(*privileged), "Privileged", "false")?;
    demand(is_off(*attach_stdin), "AttachStdin", "false")?;
    demand(is_off(*tty), "Tty", "false")?;
    demand(console_size.is_none(), "ConsoleSize", "none")?;
    demand(detach_keys.is_none(), "DetachKeys", "none")?;
    let numbered = profile != Profile::Restricted || user.as_deref().is_none_or(is_numbered_user);
    demand(numbered, "User", "a number other than 0, or the container's own")
}

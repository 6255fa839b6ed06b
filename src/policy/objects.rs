//! Top-level networks, volumes, configs and secrets.

use std::collections::BTreeMap;

use super::binds::is_request_file;
use super::verdict::Verdict;
use super::{Grants, Ground, labels};
use crate::compose::{FileObject, FileSource, Ipam, Network, Project, Volume};
use crate::domain::{ObjectKey, ObjectName};

/// What baseline says about networks and volumes.
pub(super) fn judge_baseline(grants: &Grants, project: &Project, verdict: &mut Verdict) {
    for (key, network) in &project.networks {
        let field = format!("networks.{key}");
        let Network {
            name,
            external,
            driver,
            driver_opts,
            internal: _,
            attachable: _,
            enable_ipv4: _,
            enable_ipv6,
            labels,
            ipam,
        } = network;
        if *external && grants.external_networks.contains(name) {
            continue;
        }
        judge_name(project, &field, key, name, *external, verdict);
        let foreign_driver = driver.as_ref().is_some_and(|driver| driver != "bridge");
        verdict.refuse_if(foreign_driver, format!("{field}.driver"), "network-driver", "bridge");
        verdict.refuse_if(
            !driver_opts.is_empty(),
            format!("{field}.driver_opts"),
            "driver-opts",
            "none: driver options reach the host's own network settings",
        );
        // Addresses that the agent has not given: neither its own door nor the firewall knows them.
        verdict.refuse_if(*enable_ipv6 == Some(true), format!("{field}.enable_ipv6"), "ipv6", "false");
        // Its `default` is what the agent uses, too.
        let own_addresses = ipam.as_ref().is_some_and(|ipam| {
            let Ipam { driver, options, config } = ipam;
            !options.is_empty() || !config.is_empty() || driver.as_ref().is_some_and(|driver| driver != "default")
        });
        verdict.refuse_if(own_addresses, format!("{field}.ipam"), "ipam", "none: the agent gives out the subnets");
        labels::judge_reserved(&field, labels, grants, verdict);
    }
    for (key, volume) in &project.volumes {
        let field = format!("volumes.{key}");
        let Volume { name, external, driver, driver_opts, labels } = volume;
        judge_name(project, &field, key, name, *external, verdict);
        let foreign_driver = driver.as_ref().is_some_and(|driver| driver != "local");
        verdict.refuse_if(foreign_driver, format!("{field}.driver"), "volume-driver", "local");
        verdict.refuse_if(
            !driver_opts.is_empty(),
            format!("{field}.driver_opts"),
            "driver-opts",
            "none: driver options can mount any path of the host",
        );
        labels::judge_reserved(&field, labels, grants, verdict);
    }
}

/// What no profile lets pass: content that is not in the request.
pub(super) fn judge_contents(project: &Project, ground: &Ground<'_>, verdict: &mut Verdict) {
    for (name, service) in &project.services {
        let missing = !service.missing_label_files.is_empty();
        verdict.refuse_if(missing, format!("services.{name}.label_file"), "file-outside", "files of the request");
    }
    judge_file_objects(project, ground, "configs", &project.configs, verdict);
    judge_file_objects(project, ground, "secrets", &project.secrets, verdict);
}

fn judge_name(
    project: &Project,
    field: &str,
    key: &ObjectKey,
    name: &ObjectName,
    external: bool,
    verdict: &mut Verdict,
) {
    if external {
        verdict.refuse(format!("{field}.external"), "external", "only what belongs to this project");
    } else if name.as_str() != format!("{}_{key}", project.name) {
        verdict.refuse(format!("{field}.name"), "foreign-name", "no name: the agent names it {project}_{key}");
    }
}

fn judge_file_objects(
    project: &Project,
    ground: &Ground<'_>,
    kind: &str,
    objects: &BTreeMap<ObjectKey, FileObject>,
    verdict: &mut Verdict,
) {
    for (key, object) in objects {
        // The rest means something to a swarm only, and nothing reads it.
        let FileObject { name: _, source, labels: _, driver: _, driver_opts: _, template_driver: _ } = object;
        let field = format!("{kind}.{key}");
        match source {
            FileSource::Content(_) | FileSource::Environment { value: Some(_), .. } => {}
            FileSource::File { path, bytes } => verdict.refuse_if(
                bytes.is_none() || !is_request_file(project, ground, path),
                format!("{field}.file"),
                "file-outside",
                "a file of the request",
            ),
            FileSource::Environment { value: None, .. } => {
                verdict.refuse(
                    format!("{field}.environment"),
                    "unset-variable",
                    "a variable of the request's env file",
                );
            }
            FileSource::External => {
                verdict.refuse(format!("{field}.external"), "external", "file, content or environment");
            }
        }
    }
}

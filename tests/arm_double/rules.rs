//! What a container group's body must fulfil beyond its members' kinds. A client that is careful never meets these refusals.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// What is wrong: the code and the message of the refusal.
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
}

#[derive(Default)]
struct Findings(Vec<Refusal>);

impl Findings {
    fn unless(&mut self, right: bool, code: &'static str, message: impl FnOnce() -> String) {
        if !right {
            self.0.push(Refusal { code, message: message() });
        }
    }
}

/// Everything that is wrong with a body whose members are known to be of the right kind. `max` are the CPUs and GB that a group
/// may have here.
pub(super) fn check(name: &str, body: &Value, max: (f64, f64)) -> Vec<Refusal> {
    let mut found = Findings::default();
    let properties = &body["properties"];
    found.unless(is_name(name, 1), "InvalidContainerGroupName", || {
        format!("The container group name '{name}' is invalid.")
    });
    tags(&body["tags"], &mut found);
    found.unless(!properties["osType"].is_null(), "InvalidOsType", || {
        "The 'osType' for container group '<null>' is invalid. The value must be one of 'Windows,Linux'.".to_owned()
    });
    found.unless(body["zones"].as_array().is_none_or(|zones| zones.len() <= 1), "InvalidZones", || {
        "At most one zone.".to_owned()
    });
    let (containers, inits) = (list(&properties["containers"]), list(&properties["initContainers"]));
    found.unless(!containers.is_empty(), "InvalidContainers", || "The group has no containers.".to_owned());
    found.unless(containers.len() + inits.len() <= 60, "TooManyContainers", || "More than 60 containers.".to_owned());
    names(containers.iter().chain(inits), &mut found);
    let volumes = volumes(properties, &mut found);
    for container in containers.iter().chain(inits) {
        self::container(container, properties, &volumes, &mut found);
    }
    resources(containers, max, &mut found);
    ports(properties, &mut found);
    credentials(body, &mut found);
    found.0
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Lower-case letters, digits and single hyphens, none of them first or last, up to 63 characters.
fn is_name(name: &str, least: usize) -> bool {
    (least..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// What the rules for tags say; for resource groups and PATCH, too.
pub(super) fn wrong_tags(tags: &Value) -> Vec<Refusal> {
    let mut found = Findings::default();
    self::tags(tags, &mut found);
    found.0
}

fn tags(tags: &Value, found: &mut Findings) {
    let Some(tags) = tags.as_object() else { return };
    found.unless(tags.len() <= 50, "InvalidTags", || "A resource has at most 50 tags.".to_owned());
    for (name, value) in tags {
        let right = (1..=512).contains(&name.chars().count()) && !name.contains(['<', '>', '%', '&', '\\', '?', '/']);
        found.unless(right, "InvalidTagNameCharacters", || format!("The tag name '{name}' is invalid."));
        found.unless(text(value).chars().count() <= 256, "InvalidTagValueLength", || {
            format!("The value of tag '{name}' is too long.")
        });
    }
}

fn names<'a>(containers: impl Iterator<Item = &'a Value>, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    for container in containers {
        let name = text(&container["name"]);
        found.unless(is_name(name, 1), "InvalidContainerName", || format!("The container name '{name}' is invalid."));
        found.unless(seen.insert(name), "DuplicateContainerName", || {
            format!("The container name '{name}' is used twice.")
        });
    }
}

/// The volumes' names and which of them hold secrets.
fn volumes<'a>(properties: &'a Value, found: &mut Findings) -> BTreeMap<&'a str, bool> {
    const SOURCES: &[&str] = &["azureFile", "emptyDir", "secret", "gitRepo", "secretReference"];
    let all = list(&properties["volumes"]);
    found.unless(all.len() <= 20, "TooManyVolumes", || "More than 20 volumes.".to_owned());
    let mut names = BTreeMap::new();
    for volume in all {
        let name = text(&volume["name"]);
        found.unless(is_name(name, 5), "InvalidVolumeName", || format!("The volume name '{name}' is invalid."));
        let sources: Vec<&str> = SOURCES.iter().copied().filter(|source| !volume[*source].is_null()).collect();
        found.unless(sources.len() == 1, "InvalidVolume", || {
            format!("The volume '{name}' has not exactly one source: {sources:?}.")
        });
        let secret = sources.contains(&"secret") || sources.contains(&"secretReference");
        found.unless(names.insert(name, secret).is_none(), "DuplicateVolumeName", || {
            format!("The volume name '{name}' is used twice.")
        });
        for (file, value) in volume["secret"].as_object().into_iter().flatten() {
            found.unless(STANDARD.decode(text(value)).is_ok(), "InvalidSecretVolume", || {
                format!("'{file}' in '{name}' is not base64.")
            });
            let right = !file.is_empty() && file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            found.unless(right, "InvalidSecretVolume", || format!("'{file}' in '{name}' is no name of a file."));
        }
        let file = &volume["azureFile"];
        if file.is_object() {
            let ways = ["storageAccountKey", "storageAccountKeyReference", "userAssignedIdentityClientId"];
            let ways = ways.iter().filter(|way| !text(&file[**way]).is_empty()).count();
            found.unless(ways == 1, "InvalidVolume", || {
                format!("The share of volume '{name}' has {ways} ways to enter it.")
            });
        }
    }
    names
}

fn container(container: &Value, group: &Value, volumes: &BTreeMap<&str, bool>, found: &mut Findings) {
    let (name, properties) = (text(&container["name"]), &container["properties"]);
    let image = text(&properties["image"]);
    found.unless(
        !image.is_empty() && !image.contains("://") && !image.contains(char::is_whitespace),
        "InvalidImageName",
        || format!("The image '{image}' of container '{name}' is invalid."),
    );
    environment(name, properties, group, found);
    mounts(name, properties, volumes, found);
    for member in ["livenessProbe", "readinessProbe"] {
        let probe = &properties[member];
        if probe.is_object() {
            let ways = ["exec", "httpGet"].iter().filter(|way| !probe[**way].is_null()).count();
            found.unless(ways == 1, "InvalidProbe", || {
                format!("The {member} of container '{name}' has {ways} actions.")
            });
            let right = probe["exec"].is_null() || !list(&probe["exec"]["command"]).is_empty();
            found.unless(right, "InvalidProbe", || format!("The {member} of container '{name}' has no command."));
            let right = probe["httpGet"].is_null() || is_port(&probe["httpGet"]["port"]);
            found.unless(right, "InvalidProbe", || format!("The {member} of container '{name}' has no right port."));
            for (number, least) in [
                ("initialDelaySeconds", 0),
                ("periodSeconds", 1),
                ("failureThreshold", 1),
                ("successThreshold", 1),
                ("timeoutSeconds", 1),
            ] {
                let right = probe[number].is_null() || probe[number].as_i64().is_some_and(|value| value >= least);
                found.unless(right, "InvalidProbe", || {
                    format!("{number} of the {member} of container '{name}' is below {least}.")
                });
            }
        }
    }
}

fn environment(container: &str, properties: &Value, group: &Value, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    for variable in list(&properties["environmentVariables"]) {
        let name = text(&variable["name"]);
        let right = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.as_bytes()[0].is_ascii_digit();
        found.unless(right, "InvalidEnvironmentVariableName", || {
            format!("The variable '{name}' of container '{container}' is invalid.")
        });
        found.unless(seen.insert(name), "DuplicateEnvironmentVariable", || {
            format!("The variable '{name}' of container '{container}' is there twice.")
        });
        let kinds = ["value", "secureValue", "secureValueReference"];
        let kinds = kinds.iter().filter(|kind| !variable[**kind].is_null()).count();
        found.unless(kinds == 1, "InvalidEnvironmentVariable", || {
            format!("The variable '{name}' of container '{container}' has {kinds} values.")
        });
        if let Some(reference) = variable["secureValueReference"].as_str() {
            let known = list(&group["secretReferences"]).iter().any(|secret| text(&secret["name"]) == reference);
            found.unless(known, "InvalidSecretReference", || format!("There is no secret reference '{reference}'."));
        }
    }
}

fn mounts(container: &str, properties: &Value, volumes: &BTreeMap<&str, bool>, found: &mut Findings) {
    let all = list(&properties["volumeMounts"]);
    let mut paths: Vec<(String, bool)> = Vec::new();
    for mount in all {
        let (volume, path) = (text(&mount["name"]), text(&mount["mountPath"]));
        found.unless(volumes.contains_key(volume), "VolumeMountNotFound", || {
            format!("Container '{container}' mounts '{volume}', which is no volume.")
        });
        let right = path.starts_with('/') && path.len() > 1 && !path.contains(':');
        found.unless(right, "InvalidVolumeMount", || format!("Container '{container}' mounts '{volume}' at '{path}'."));
        let path = format!("{}/", path.trim_end_matches('/'));
        let secret = volumes.get(volume).copied().unwrap_or_default();
        let clash = paths.iter().any(|(other, other_secret)| {
            *other == path
                || ((secret || *other_secret) && (other.starts_with(&path) || path.starts_with(other.as_str())))
        });
        found.unless(!clash, "DuplicateVolumeMountPath", || {
            format!("Container '{container}' mounts twice at or below '{path}'.")
        });
        paths.push((path, secret));
    }
}

fn steps(value: f64, per_unit: f64) -> bool {
    let steps = value * per_unit;
    (steps - steps.round()).abs() < 1e-6
}

fn resources(containers: &[Value], max: (f64, f64), found: &mut Findings) {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let sum = |member: &str| -> f64 {
        containers.iter().map(|c| number(&c["properties"]["resources"]["requests"][member])).sum()
    };
    let sums = [("cpu", 100.0, sum("cpu"), max.0), ("memoryInGB", 10.0, sum("memoryInGB"), max.1)];
    for container in containers {
        let (name, resources) = (text(&container["name"]), &container["properties"]["resources"]);
        found.unless(resources.is_object(), "ResourceSomeRequestsNotSpecified", || {
            format!("Container '{name}' requests no resources.")
        });
        for (member, per_unit, sum, _) in sums {
            let request = number(&resources["requests"][member]);
            found.unless(request > 0.0 && steps(request, per_unit), "InvalidResourceRequests", || {
                format!(
                    "Container '{name}' requests {member} {request}, which is not a positive multiple of 1/{per_unit}."
                )
            });
            let limit = &resources["limits"][member];
            if !limit.is_null() {
                let limit = number(limit);
                found.unless(
                    steps(limit, per_unit) && limit >= request && limit <= sum + 1e-6,
                    "InvalidResourceLimits",
                    || {
                        format!(
                            "Container '{name}' limits {member} to {limit}; it requests {request}, its group {sum}."
                        )
                    },
                );
            }
        }
    }
    for (member, _, sum, max) in sums {
        found.unless(sum <= max + 1e-6, "ResourceRequestsTooLarge", || {
            format!("The group requests {member} {sum}; at most {max}.")
        });
    }
}

fn is_port(value: &Value) -> bool {
    value.as_u64().is_some_and(|port| (1..=65535).contains(&port))
}

fn port_of(port: &Value) -> (u64, &str) {
    (port["port"].as_u64().unwrap_or_default(), port["protocol"].as_str().unwrap_or("TCP"))
}

fn ports(properties: &Value, found: &mut Findings) {
    let mut exposed = BTreeSet::new();
    for container in list(&properties["containers"]) {
        for port in list(&container["properties"]["ports"]) {
            found.unless(is_port(&port["port"]), "InvalidPort", || format!("{port} is no port."));
            found.unless(exposed.insert(port_of(port)), "DuplicateContainerPorts", || {
                format!("Two containers have the port {port}.")
            });
        }
    }
    let address = &properties["ipAddress"];
    let subnets = list(&properties["subnetIds"]);
    if address.is_null() {
        return;
    }
    let open = list(&address["ports"]);
    found.unless((1..=5).contains(&open.len()), "InvalidIpAddressPorts", || {
        format!("An IP address has 1 to 5 ports, not {}.", open.len())
    });
    let mut seen = BTreeSet::new();
    for port in open {
        found.unless(seen.insert(port_of(port)), "DuplicateIpAddressPorts", || {
            format!("The port {port} is there twice.")
        });
        found.unless(exposed.contains(&port_of(port)), "IpAddressPortNotExposed", || {
            format!("No container exposes the port {port}.")
        });
    }
    let private = address["type"] == "Private";
    found.unless(private != subnets.is_empty(), "InvalidIpAddressType", || {
        "A private address needs a subnet, and a public one has none.".to_owned()
    });
    found
        .unless(properties["priority"] != "Spot", "InvalidIpAddressType", || "A spot group has no address.".to_owned());
    found.unless(address["ip"].is_null(), "InvalidIpAddress", || "An address cannot be chosen.".to_owned());
    if let Some(label) = address["dnsNameLabel"].as_str() {
        let right = (5..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && label.starts_with(|c: char| c.is_ascii_lowercase())
            && !label.ends_with('-')
            && !private;
        found.unless(right, "InvalidDnsNameLabel", || format!("The DNS name label '{label}' is invalid."));
    } else {
        found.unless(address["autoGeneratedDomainNameLabelScope"].is_null(), "InvalidDnsNameLabel", || {
            "A scope without a label.".to_owned()
        });
    }
}

fn credentials(body: &Value, found: &mut Findings) {
    let identities = body["identity"]["userAssignedIdentities"].as_object();
    let mut seen = BTreeSet::new();
    let kind = text(&body["identity"]["type"]);
    found.unless(
        kind.contains("UserAssigned") == identities.is_some_and(|all| !all.is_empty()),
        "InvalidIdentity",
        || "The type of the identity does not fit the identities.".to_owned(),
    );
    for credential in list(&body["properties"]["imageRegistryCredentials"]) {
        let server = text(&credential["server"]);
        let right = !server.is_empty() && !server.contains("://") && !server.contains(['/', ' ']);
        found.unless(right, "InvalidImageRegistryCredential", || format!("'{server}' is no host of a registry."));
        found.unless(seen.insert(server), "DuplicateImageRegistryCredential", || format!("'{server}' is there twice."));
        let has = |member: &str| !text(&credential[member]).is_empty();
        let by_password = has("username") && (has("password") != has("passwordReference")) && !has("identity");
        let by_identity = has("identity") && !has("username") && !has("password") && !has("passwordReference");
        found.unless(by_password || by_identity, "InvalidImageRegistryCredential", || {
            format!("The credential for '{server}' is incomplete.")
        });
        if let Some(identity) = credential["identity"].as_str() {
            let known = identities.is_some_and(|all| all.keys().any(|known| known.eq_ignore_ascii_case(identity)));
            found
                .unless(known, "InvalidImageRegistryCredential", || format!("The group has no identity '{identity}'."));
        }
    }
}

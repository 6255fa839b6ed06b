//! Creation and update of container groups: what is checked in which order, and what becomes of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::answer::Answer;
use super::arm::Entered;
use super::clock::Millis;
use super::faults::Work;
use super::group::{Fate, Group, Run};
use super::groups::{address, transitioning};
use super::program::kind_of;
use super::world::{Key, Region, State, key, short};
use super::{rules, schema};

impl State {
    pub(super) fn put_group(
        &mut self,
        entered: &Entered<'_>,
        resource_group: &str,
        name: &str,
    ) -> Result<Answer, Answer> {
        let (now, body) = (entered.now, &entered.body);
        self.hold(entered, schema::CONTAINER_GROUP)?;
        let location = short(body["location"].as_str().unwrap_or_default());
        let region = self.subscriptions.get(&entered.subscription).and_then(|own| own.regions.get(&location)).cloned();
        let Some(region) = region else {
            self.violation(format!("{name}: the location '{location}' is not known"));
            let code = if location.is_empty() { "LocationRequired" } else { "LocationNotAvailableForResourceType" };
            return Err(Answer::error(
                400,
                code,
                format!(
                    "The provided location '{location}' is not available for resource type 'Microsoft.ContainerInstance/containerGroups'."
                ),
            ));
        };
        let refusals = rules::check(name, body, region.max);
        for refusal in &refusals {
            self.violation(format!("{name}: {}: {}", refusal.code, refusal.message));
        }
        if let Some(refusal) = refusals.into_iter().next() {
            return Err(Answer::error(400, refusal.code, refusal.message));
        }
        let key = key(&entered.subscription, resource_group, name);
        let before = self.groups.get(&key);
        if let Some(before) = before {
            if before.location != location {
                return Err(Answer::error(
                    409,
                    "InvalidResourceLocation",
                    format!(
                        "The resource '{name}' already exists in location '{}' in resource group '{resource_group}'. A resource with the same name cannot be created in location '{location}'. Please select a new resource name.",
                        before.location
                    ),
                ));
            }
            if before.transitioning(now) {
                return Err(transitioning(name));
            }
            if fixed(&before.spec) != fixed(body) {
                return Err(Answer::error(
                    400,
                    "InvalidContainerGroupUpdate",
                    format!(
                        "The updates on container group '{name}' are invalid. If you are going to update the os type, restart policy, network profile, CPU, memory or GPU resources for a container group, you must delete it first and then create a new one."
                    ),
                ));
            }
        }
        self.images(name, body)?;
        let existed = self.groups.contains_key(&key);
        if let Some(seconds) = self.throttle(&entered.subscription, &location, "create", now) {
            return Err(Answer::error(
                429,
                "TooManyRequests",
                format!("The requests for containerGroups in '{location}' exceed the limit."),
            )
            .retry_after(Some(seconds)));
        }
        if !existed {
            self.room(body, &location, &entered.subscription, &region, now)?;
        }
        let fqdn = self.fqdn(entered, resource_group, &key, body, &location)?;
        let number = self.number();
        let fate = self.fate(name, body, Work::Create);
        let group = Group {
            subscription: entered.subscription.clone(),
            resource_group: resource_group.to_owned(),
            name: name.to_owned(),
            location: location.clone(),
            spec: body.clone(),
            created: self.groups.get(&key).map_or(now, |group| group.created),
            run: Run { began: now, fate, stop: None, delays: self.settings.delays },
            deletion: None,
            ip: address(number),
            fqdn,
            written: BTreeMap::new(),
            kills: BTreeMap::new(),
        };
        let view = group.view(now, entered.clock, true);
        self.groups.insert(key.clone(), group);
        let left = self.left(&entered.subscription, &location, "create", now);
        let mut answer = Answer::json(if existed { 200 } else { 201 }, view);
        for (name, left) in [
            "x-ms-ratelimit-remaining-subscription-resource-requests-pt5m",
            "x-ms-ratelimit-remaining-subscription-resource-requests-pt1h",
        ]
        .into_iter()
        .zip(left)
        {
            answer = answer.header(name, left.to_string());
        }
        let Some(operation) = self.operation_for(&key) else { return Ok(answer) };
        Ok(self.begin(operation, &entered.subscription, &location, &entered.version, answer))
    }

    /// Whether every image can be pulled.
    fn images(&self, group: &str, body: &Value) -> Result<(), Answer> {
        let list = |kind: &str| body["properties"][kind].as_array().cloned().unwrap_or_default();
        for container in list("containers").iter().chain(&list("initContainers")) {
            let image = container["properties"]["image"].as_str().unwrap_or_default();
            let host = image
                .split('/')
                .next()
                .filter(|host| image.contains('/') && (host.contains('.') || host.contains(':')));
            let closed = host.and_then(|host| self.registries.get(host).map(|known| (host, known)));
            let open = closed.is_none_or(|(host, (user, password))| {
                let given = list("imageRegistryCredentials");
                given.iter().filter(|own| own["server"] == host).any(|own| {
                    own["identity"].is_string()
                        || own["passwordReference"].is_string()
                        || (own["username"] == user.as_str() && own["password"] == password.as_str())
                })
            });
            if kind_of(image) == "missing" || !open {
                return Err(Answer::error(
                    400,
                    "InaccessibleImage",
                    format!(
                        "The image '{image}' in container group '{group}' is not accessible. Please check the image and registry credential."
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether the quota and the region have room for one more.
    fn room(
        &self,
        body: &Value,
        location: &str,
        subscription: &str,
        region: &Region,
        now: Millis,
    ) -> Result<(), Answer> {
        let cores = |spec: &Value| -> f64 {
            let containers = spec["properties"]["containers"].as_array().into_iter().flatten();
            containers.map(|c| c["properties"]["resources"]["requests"]["cpu"].as_f64().unwrap_or_default()).sum()
        };
        let others: Vec<&Group> = self
            .groups
            .values()
            .filter(|group| group.subscription == subscription && group.location == location)
            .collect();
        let used: f64 = others.iter().filter(|group| !group.stopped(now)).map(|group| cores(&group.spec)).sum();
        let wanted = cores(body);
        let quota = |name: &str, limit: f64, usage: f64, requested: f64| {
            Err(Answer::error(
                400,
                "ContainerGroupQuotaReached",
                format!(
                    "Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota '{name}' exceeded in region '{location}'. Limit: '{limit}', Usage: '{usage}' Requested: '{requested}'."
                ),
            ))
        };
        if others.len() >= region.groups {
            let whole = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            return quota("ContainerGroups", whole(region.groups), whole(others.len()), 1.0);
        }
        if used + wanted > region.cores + 1e-6 {
            return quota("StandardCores", region.cores, used, wanted);
        }
        if !region.capacity {
            let containers = body["properties"]["containers"].as_array().into_iter().flatten();
            let memory: f64 = containers
                .map(|c| c["properties"]["resources"]["requests"]["memoryInGB"].as_f64().unwrap_or_default())
                .sum();
            return Err(Answer::error(
                409,
                "ServiceUnavailable",
                format!(
                    "The requested resource is not available in the location '{location}' at this moment. Please retry with a different resource request or in another location. Resource requested: '{wanted}' CPU '{memory}' GB memory 'Linux' OS"
                ),
            ));
        }
        Ok(())
    }

    /// The name in the DNS, if a label asks for one and it is free.
    fn fqdn(
        &mut self,
        entered: &Entered<'_>,
        resource_group: &str,
        key: &Key,
        body: &Value,
        location: &str,
    ) -> Result<Option<String>, Answer> {
        let address = &body["properties"]["ipAddress"];
        let Some(label) = address["dnsNameLabel"].as_str() else { return Ok(None) };
        let scope = match address["autoGeneratedDomainNameLabelScope"].as_str() {
            None | Some("Unsecure") => None,
            Some("TenantReuse") => Some(self.tokens.tenant.clone()),
            Some("SubscriptionReuse") => Some(entered.subscription.clone()),
            Some("ResourceGroupReuse") => Some(format!("{}/{resource_group}", entered.subscription)),
            Some(_) => Some(self.number().to_string()),
        };
        let fqdn = match scope {
            None => format!("{label}.{location}.azurecontainer.io"),
            Some(scope) => {
                let hash = Sha256::digest(scope.as_bytes());
                let hash: String = hash.iter().take(8).map(|byte| char::from(b'a' + byte % 26)).collect();
                format!("{label}.{hash}.{location}.azurecontainer.io")
            }
        };
        let other = self.groups.iter().any(|(own, group)| own != key && group.fqdn.as_deref() == Some(&fqdn));
        if other || self.taken.contains(&(location.to_owned(), label.to_owned())) {
            let message = format!(
                "The DNS name label '{label}' in container group '{}' is not available. Try using a different label.",
                key.2
            );
            return Err(Answer::error(self.settings.taken_status, "DnsNameLabelAlreadyTaken", message));
        }
        Ok(Some(fqdn))
    }

    /// What becomes of a change: what was made up, or a share that cannot be mounted, or that all goes well.
    pub(super) fn fate(&mut self, name: &str, body: &Value, work: Work) -> Fate {
        if let Some(outcome) = self.outcome(name, work) {
            return Fate::Made(outcome);
        }
        for volume in body["properties"]["volumes"].as_array().into_iter().flatten() {
            let file = &volume["azureFile"];
            if !file.is_object() {
                continue;
            }
            if let Some(why) = self.mount_problem(file) {
                let volume = volume["name"].as_str().unwrap_or_default();
                return Fate::Mount(format!(
                    "MountVolume.SetUp failed for volume \"{volume}\": mount failed: exit status 32 Output: {why}"
                ));
            }
        }
        Fate::Runs
    }
}

/// Everything of a group that an update must not change: the system, the restart policy, the network, zones and kind, and what
/// each container requests.
fn fixed(spec: &Value) -> Value {
    let properties = &spec["properties"];
    let or = |value: &Value, default: &str| if value.is_null() { json!(default) } else { value.clone() };
    let containers = properties["containers"].as_array().into_iter().flatten();
    let resources: serde_json::Map<String, Value> = containers
        .map(|c| (c["name"].as_str().unwrap_or_default().to_owned(), numbers(&c["properties"]["resources"])))
        .collect();
    let mut resources: Vec<(String, Value)> = resources.into_iter().collect();
    resources.sort_by(|a, b| a.0.cmp(&b.0));
    let address = &properties["ipAddress"];
    json!({
        "osType": properties["osType"],
        "restartPolicy": or(&properties["restartPolicy"], "Always"),
        "sku": or(&properties["sku"], "Standard"),
        "priority": or(&properties["priority"], "Regular"),
        "zones": spec["zones"],
        "subnetIds": properties["subnetIds"],
        "dnsConfig": properties["dnsConfig"],
        "address": [address["type"], address["dnsNameLabel"], address["autoGeneratedDomainNameLabelScope"]],
        "resources": resources,
    })
}

/// `2` and `2.0` are the same number.
fn numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> =
                members.iter().map(|(name, value)| (name.clone(), numbers(value))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            json!(members)
        }
        other => other.clone(),
    }
}

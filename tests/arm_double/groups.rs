//! Calls to container groups.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::answer::Answer;
use super::arm::Entered;
use super::clock::Millis;
use super::faults::{Outcome, Work};
use super::group::{Deletion, Fate, Group, Run, Stop};
use super::operations::Operation;
use super::program::kind_of;
use super::sockets::Socket;
use super::world::{Key, State, key, short};
use super::{rules, schema};

impl State {
    /// A call to one group or something in it.
    pub(super) fn group_call(
        &mut self,
        entered: &Entered<'_>,
        resource_group: &str,
        name: &str,
        rest: &[&str],
        names: &[&str],
    ) -> Answer {
        let key = key(&entered.subscription, resource_group, name);
        let now = entered.now;
        match (entered.call.method.as_str(), rest) {
            ("PUT", []) => return self.put_group(entered, resource_group, name).unwrap_or_else(|refusal| refusal),
            ("DELETE", []) => return self.delete_group(entered, &key),
            _ => {}
        }
        let Some(group) = self.groups.get_mut(&key) else {
            return Answer::error(
                404,
                "ResourceNotFound",
                format!(
                    "The Resource 'Microsoft.ContainerInstance/containerGroups/{name}' under resource group '{resource_group}' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
                ),
            );
        };
        match (entered.call.method.as_str(), rest) {
            ("GET", []) => Answer::json(200, group.view(now, entered.clock, true)),
            ("PATCH", []) => self.patch_group(entered, &key),
            ("POST", ["stop"]) => {
                if group.stopped(now) || group.run.stop.is_some() {
                    return Answer::empty(204);
                }
                if group.transitioning(now) {
                    return transitioning(name);
                }
                let until = now + self.settings.delays.stop;
                group.run.stop = Some(Stop { from: now, until });
                Answer::empty(204)
            }
            ("POST", ["start"]) => self.start_group(entered, &key),
            ("POST", ["restart"]) => {
                if group.transitioning(now) {
                    return transitioning(name);
                }
                let was_stopped = group.stopped(now);
                self.run_again(&key, now, was_stopped, Work::Start);
                Answer::empty(204)
            }
            ("GET", ["outboundnetworkdependenciesendpoints"]) => Answer::json(200, json!([])),
            ("GET", ["containers", _, "logs"]) => self.logs(entered, &key, names[1]),
            ("POST", ["containers", _, what @ ("attach" | "exec")]) => self.open(entered, &key, names[1], what),
            _ => self.nowhere(entered.call),
        }
    }

    /// The list of a subscription or of a resource group: without `instanceView`.
    pub(super) fn list_groups(&mut self, entered: &Entered<'_>, resource_group: Option<&str>) -> Answer {
        let mine =
            |key: &Key| key.0 == entered.subscription && resource_group.is_none_or(|own| key.1 == own.to_lowercase());
        let all = self.groups.iter().filter(|(key, _)| mine(key));
        let views = all.map(|(_, group)| group.view(entered.now, entered.clock, false)).collect();
        self.page(entered, views)
    }

    fn put_group(&mut self, entered: &Entered<'_>, resource_group: &str, name: &str) -> Result<Answer, Answer> {
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
        region: &super::world::Region,
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
    fn fate(&mut self, name: &str, body: &Value, work: Work) -> Fate {
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

    /// Runs a group from its beginning, with images that are there.
    fn run_again(&mut self, key: &Key, now: Millis, new_address: bool, work: Work) {
        let Some(spec) = self.groups.get(key).map(|group| group.spec.clone()) else { return };
        let fate = self.fate(&key.2, &spec, work);
        let number = self.number();
        let mut delays = self.settings.delays;
        if !new_address {
            delays.pull = 0;
        }
        if let Some(group) = self.groups.get_mut(key) {
            group.run = Run { began: now, fate, stop: None, delays };
            group.written.clear();
            if new_address {
                group.ip = address(number);
            }
        }
    }

    fn start_group(&mut self, entered: &Entered<'_>, key: &Key) -> Answer {
        let now = entered.now;
        let Some(group) = self.groups.get(key) else { return Answer::empty(404) };
        if group.transitioning(now) {
            return transitioning(&group.name);
        }
        if !group.stopped(now) && group.state(now) == "Running" {
            return Answer::empty(204);
        }
        let location = group.location.clone();
        self.run_again(key, now, true, Work::Start);
        let Some(operation) = self.operation_for(key) else { return Answer::empty(204) };
        self.begin(operation, &entered.subscription, &location, &entered.version, Answer::empty(202))
    }

    fn patch_group(&mut self, entered: &Entered<'_>, key: &Key) -> Answer {
        if let Err(refusal) = self.hold(entered, schema::TAGS) {
            return refusal;
        }
        let tags = &entered.body["tags"];
        for refusal in rules::wrong_tags(tags) {
            self.violation(format!("{}: {}", key.2, refusal.message));
            return Answer::error(400, refusal.code, refusal.message);
        }
        let Some(group) = self.groups.get_mut(key) else { return Answer::empty(404) };
        group.spec["tags"] = tags.clone();
        Answer::json(200, group.view(entered.now, entered.clock, true))
    }

    fn delete_group(&mut self, entered: &Entered<'_>, key: &Key) -> Answer {
        let now = entered.now;
        let Some(location) = self.groups.get(key).map(|group| group.location.clone()) else {
            return Answer::empty(204);
        };
        if let Some(seconds) = self.throttle(&entered.subscription, &location, "delete", now) {
            return Answer::error(
                429,
                "TooManyRequests",
                format!("The deletions of containerGroups in '{location}' exceed the limit."),
            )
            .retry_after(Some(seconds));
        }
        let outcome = self.outcome(&key.2, Work::Delete);
        let (at_once, delay) = (self.settings.delete_at_once, self.settings.delays.delete);
        let Some(group) = self.groups.get_mut(key) else { return Answer::empty(204) };
        let running =
            group.deletion.as_ref().filter(|deletion| deletion.outcome.is_none()).map(|deletion| deletion.until);
        let until = running.unwrap_or(if at_once { now } else { now + delay });
        let error = match &outcome {
            Some(Outcome::Error { code, message }) => Some(((*code).to_owned(), (*message).to_owned())),
            _ => None,
        };
        let end = match &outcome {
            None => Some((until, true)),
            Some(Outcome::Stuck) => None,
            Some(_) => Some((until, false)),
        };
        group.deletion = Some(Deletion { from: now, until, outcome });
        let resource = group.id();
        if at_once {
            return Answer::json(200, group.view(now, entered.clock, true));
        }
        let operation =
            Operation { resource, group: Some(key.clone()), deletes: true, began: now, working: now, end, error };
        self.begin(operation, &entered.subscription, &location, &entered.version, Answer::empty(202))
    }

    fn logs(&mut self, entered: &Entered<'_>, key: &Key, container: &str) -> Answer {
        let Some(group) = self.groups.get(key) else { return Answer::empty(404) };
        let now = entered.now;
        let Some(mut lines) = group.lines(container, now) else {
            return Answer::error(
                404,
                "ContainerNotFound",
                format!("The container '{container}' in container group '{}' is not found.", group.name),
            );
        };
        if !group.has_started(now) {
            return Answer::error(
                409,
                "ContainerGroupDeploymentNotReady",
                format!("The container group '{}' deployment is not ready yet.", group.name),
            );
        }
        if group.stopped(now) {
            lines.drain(..lines.len().saturating_sub(1000));
        }
        match entered.call.parameter("tail").map(str::parse::<usize>) {
            None => {}
            Some(Ok(tail)) => drop(lines.drain(..lines.len().saturating_sub(tail))),
            Some(Err(_)) => {
                self.violation("tail is no number");
                return Answer::error(400, "InvalidTail", "The tail is no number.");
            }
        }
        let stamps = match entered.call.parameter("timestamps") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.violation("timestamps is neither true nor false");
                return Answer::error(400, "InvalidTimestamps", "The value of timestamps is invalid.");
            }
        };
        let content: String = lines
            .iter()
            .map(
                |(at, line)| {
                    if stamps { format!("{} {line}\n", entered.clock.stamp(*at)) } else { format!("{line}\n") }
                },
            )
            .collect();
        Answer::json(200, json!({"content": if content.is_empty() { Value::Null } else { Value::from(content) }}))
    }

    fn open(&mut self, entered: &Entered<'_>, key: &Key, container: &str, what: &str) -> Answer {
        let exec = what == "exec";
        if exec && let Err(refusal) = self.hold(entered, schema::EXEC) {
            return refusal;
        }
        let Some(group) = self.groups.get(key) else { return Answer::empty(404) };
        if group.lines(container, entered.now).is_none() {
            return Answer::error(404, "ContainerNotFound", format!("The container '{container}' is not found."));
        }
        if group.silent(container, entered.now) {
            return Answer::error(409, "ContainerNotRunning", format!("The container '{container}' is not running."));
        }
        if exec && entered.body["command"].as_str().is_some_and(|command| command.trim().contains(' ')) {
            self.violation("exec takes no arguments");
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        let password = format!("pass-{}", uuid::Uuid::new_v4().simple());
        let socket = Socket {
            group: key.clone(),
            container: container.to_owned(),
            password: password.clone(),
            exec,
            opened: entered.now,
            cuts: self.cuts,
        };
        self.sockets.insert(id.clone(), socket);
        Answer::json(
            200,
            json!({"webSocketUri": format!("{}/{what}/caas-{id}?api-version=2018-02-01-preview", self.sockets_at), "password": password}),
        )
    }

    /// `usages`, `capabilities` and `cachedImages` of a location.
    pub(super) fn location(&mut self, entered: &Entered<'_>, location: &str, what: &str) -> Answer {
        let location = short(location);
        let region = self.subscriptions.get(&entered.subscription).and_then(|own| own.regions.get(&location)).cloned();
        let Some(region) = region else {
            return Answer::error(
                400,
                "NoRegisteredProviderFound",
                format!("No registered resource provider found for location '{location}'."),
            );
        };
        let groups: Vec<&Group> = self
            .groups
            .values()
            .filter(|group| group.subscription == entered.subscription && group.location == location)
            .collect();
        let running = groups.iter().filter(|group| !group.stopped(entered.now));
        let cores: f64 = running
            .flat_map(|group| group.containers("containers"))
            .map(|c| c["properties"]["resources"]["requests"]["cpu"].as_f64().unwrap_or_default())
            .sum();
        let usage = |name: &str, words: &str, current: Value, limit: Value| {
            json!({"id": format!("/subscriptions/{}/providers/Microsoft.ContainerInstance/locations/{location}/usages/{name}", entered.subscription),
                "unit": "Count", "currentValue": current, "limit": limit, "name": {"value": name, "localizedValue": words}})
        };
        match what {
            "usages" => Answer::json(
                200,
                json!({"value": [
                    usage("ContainerGroups", "Container Groups", json!(groups.len()), json!(region.groups)),
                    usage("StandardCores", "Standard Cores", json!(cores), json!(region.cores)),
                    usage("StandardSpotCores", "Standard Spot Cores", json!(0), json!(0)),
                ]}),
            ),
            "capabilities" => {
                let capability = |os: &str, address: &str, gpu: &str, count: u32| {
                    json!({"resourceType": "containerGroups", "osType": os, "location": location, "ipAddressType": address, "gpu": gpu,
                        "capabilities": {"maxMemoryInGB": region.max.1, "maxCpu": region.max.0, "maxGpuCount": count}})
                };
                let all = vec![
                    capability("Linux", "Public", "None", 0),
                    capability("Linux", "Private", "None", 0),
                    capability("Windows", "Public", "None", 0),
                ];
                self.page(entered, all)
            }
            "cachedimages" => self.page(
                entered,
                vec![
                    json!({"osType": "Linux", "image": "mcr.microsoft.com/azuredocs/aci-helloworld:latest"}),
                    json!({"osType": "Linux", "image": "nginx:latest"}),
                    json!({"osType": "Windows", "image": "mcr.microsoft.com/windows/nanoserver:1809"}),
                ],
            ),
            _ => self.nowhere(entered.call),
        }
    }
}

fn transitioning(name: &str) -> Answer {
    Answer::error(
        409,
        "ContainerGroupTransitioning",
        format!("The container group '{name}' is still transitioning, please retry later."),
    )
}

fn address(number: u64) -> String {
    format!("20.{}.{}.{}", number / 62_500 % 250, number / 250 % 250, number % 250 + 1)
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

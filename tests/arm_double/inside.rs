//! What is asked about a container (logs, attach, exec) and about a location.

use serde_json::{Value, json};

use super::answer::Answer;
use super::arm::Entered;
use super::group::Group;
use super::schema;
use super::sockets::Socket;
use super::world::{Key, State, short};

impl State {
    pub(super) fn logs(&mut self, entered: &Entered<'_>, key: &Key, container: &str) -> Answer {
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

    pub(super) fn open(&mut self, entered: &Entered<'_>, key: &Key, container: &str, what: &str) -> Answer {
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

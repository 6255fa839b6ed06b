//! Calls to container groups: what they are now, how they stop and start, how they go.

use serde_json::json;

use super::answer::Answer;
use super::arm::Entered;
use super::clock::Millis;
use super::faults::{Outcome, Work};
use super::group::{Deletion, Run, Stop};
use super::operations::Operation;
use super::world::{Key, State, key};
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
                self.run_again(&key, now, was_stopped);
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

    /// Runs a group from its beginning, with images that are there.
    fn run_again(&mut self, key: &Key, now: Millis, new_address: bool) {
        let Some(spec) = self.groups.get(key).map(|group| group.spec.clone()) else { return };
        let fate = self.fate(&key.2, &spec, Work::Start);
        let number = self.number();
        let mut delays = self.settings.delays;
        if !new_address {
            delays.pull = 0;
        }
        if let Some(group) = self.groups.get_mut(key) {
            group.run = Run { began: now, fate, stop: None, delays };
            group.written.clear();
            group.kills.clear();
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
        self.run_again(key, now, true);
        let Some(operation) = self.operation_for(key) else { return Answer::empty(204) };
        self.begin(operation, &entered.subscription, &location, &entered.version, Answer::empty(202))
    }

    fn patch_group(&mut self, entered: &Entered<'_>, key: &Key) -> Answer {
        if let Err(refusal) = self.hold(entered, schema::TAGS) {
            return refusal;
        }
        let tags = &entered.body["tags"];
        if let Some(refusal) = rules::wrong_tags(tags).into_iter().next() {
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
}

pub(super) fn transitioning(name: &str) -> Answer {
    Answer::error(
        409,
        "ContainerGroupTransitioning",
        format!("The container group '{name}' is still transitioning, please retry later."),
    )
}

pub(super) fn address(number: u64) -> String {
    format!("20.{}.{}.{}", number / 62_500 % 250, number / 250 % 250, number % 250 + 1)
}

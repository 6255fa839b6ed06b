//! A container group: what was asked for, and what has become of it by a certain time.
//!
//! Nothing runs in the background: every look computes where the group is from when its last change began.
//!
//! ```text
//! Pending ──► Creating (Pulling, Pulled, init containers) ──► Succeeded (Started)      stop: Running … Stopped
//!                 └─► Failed (FailedMount, an init container that ends badly, an outcome made up)   delete: Deleting … gone
//! ```

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::clock::{Clock, Millis};
use super::faults::Outcome;
use super::program::{Life, Now, Program, fails, kind_of, said};
use super::world::Delays;

#[allow(clippy::struct_field_names, reason = "the resource group is what Azure calls it")]
pub(super) struct Group {
    pub(super) subscription: String,
    pub(super) resource_group: String,
    pub(super) name: String,
    /// In the short form: `eastus`.
    pub(super) location: String,
    /// As it was sent, secrets and all.
    pub(super) spec: Value,
    pub(super) created: Millis,
    pub(super) run: Run,
    pub(super) deletion: Option<Deletion>,
    pub(super) ip: String,
    pub(super) fqdn: Option<String>,
    /// Lines that tests have written, by container.
    pub(super) written: BTreeMap<String, Vec<(Millis, String)>>,
    /// When tests have killed a container, and the code that it left.
    pub(super) kills: BTreeMap<String, Vec<(Millis, i64)>>,
}

/// What began with the last PUT, start or restart.
pub(super) struct Run {
    pub(super) began: Millis,
    pub(super) fate: Fate,
    pub(super) stop: Option<Stop>,
    pub(super) delays: Delays,
}

#[derive(Clone)]
pub(super) enum Fate {
    Runs,
    /// A volume that cannot be mounted.
    Mount(String),
    Made(Outcome),
}

pub(super) struct Stop {
    pub(super) from: Millis,
    pub(super) until: Millis,
}

pub(super) struct Deletion {
    pub(super) from: Millis,
    pub(super) until: Millis,
    pub(super) outcome: Option<Outcome>,
}

/// Members that are never given back.
const SECRETS: &[&str] = &[
    "secureValue",
    "storageAccountKey",
    "password",
    "workspaceKey",
    "workspaceResourceId",
    "logType",
    "metadata",
    "protectedSettings",
];

impl Group {
    pub(super) fn id(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ContainerInstance/containerGroups/{}",
            self.subscription, self.resource_group, self.name
        )
    }

    fn properties(&self) -> &Value {
        &self.spec["properties"]
    }

    pub(super) fn containers(&self, kind: &str) -> Vec<&Value> {
        self.properties()[kind].as_array().into_iter().flatten().collect()
    }

    fn policy(&self) -> &str {
        self.properties()["restartPolicy"].as_str().unwrap_or("Always")
    }

    /// When images begin to be pulled, and when all of them are there.
    fn pulls(&self) -> (Millis, Millis) {
        let delays = &self.run.delays;
        let begin = self.run.began + delays.pending;
        let slow = self.containers("containers").iter().any(|c| kind_of(image(c)) == "slow");
        (begin, begin + delays.pull * if slow { 10 } else { 1 })
    }

    /// When each init container starts and ends, and with what; stops at the first that fails for good.
    fn inits(&self) -> Vec<(String, Millis, Millis, i64)> {
        let delays = &self.run.delays;
        let mut at = self.pulls().1;
        let mut all = Vec::new();
        for container in self.containers("initContainers") {
            let program = Program::of(container, delays);
            // Whatever would run on is taken to be done after a while: an init container has an end.
            let life = Life::of(&program, "Never", at, Millis::MAX / 4, delays, &[]);
            let (end, code) = match life.now {
                Now::Ended { at: end, code, .. } => (end, code),
                _ => (at + delays.init, 0),
            };
            all.push((name(container).to_owned(), at, end, code));
            at = end;
            if code != 0 {
                break;
            }
        }
        all
    }

    /// When the containers start: after images and init containers. None if an init container has failed.
    fn starts(&self) -> Option<Millis> {
        match self.inits().last() {
            Some((.., code)) if *code != 0 => None,
            Some((_, _, end, _)) => Some(end + self.run.delays.start),
            None => Some(self.pulls().1 + self.run.delays.start),
        }
    }

    /// When the change that began last ends, and whether well. None: never.
    pub(super) fn settles(&self) -> Option<(Millis, bool)> {
        let (begin, pulled) = self.pulls();
        match &self.run.fate {
            Fate::Mount(_) => Some((begin + self.run.delays.give_up, false)),
            Fate::Made(Outcome::Stuck) => None,
            Fate::Made(_) => Some((pulled, false)),
            Fate::Runs => match self.starts() {
                Some(start) => Some((start, true)),
                None if self.policy() == "Never" => self.inits().last().map(|(_, _, end, _)| (*end, false)),
                None => self.inits().last().map(|(_, _, end, _)| (*end + self.run.delays.give_up, false)),
            },
        }
    }

    pub(super) fn gone(&self, now: Millis) -> bool {
        self.deletion.as_ref().is_some_and(|deletion| deletion.outcome.is_none() && deletion.until <= now)
    }

    fn deleting(&self, now: Millis) -> bool {
        self.deletion.as_ref().is_some_and(|deletion| match deletion.outcome {
            None | Some(Outcome::Stuck) => true,
            Some(_) => deletion.until > now,
        })
    }

    pub(super) fn provisioning(&self, now: Millis) -> &'static str {
        if self.deleting(now) {
            return "Deleting";
        }
        match self.settles() {
            Some((at, well)) if at <= now => {
                if well {
                    "Succeeded"
                } else {
                    "Failed"
                }
            }
            _ if now < self.pulls().0 => "Pending",
            _ => "Creating",
        }
    }

    /// Whether it is between two states, so that another change is refused.
    pub(super) fn transitioning(&self, now: Millis) -> bool {
        let stopping = self.run.stop.as_ref().is_some_and(|stop| now < stop.until);
        stopping || !matches!(self.provisioning(now), "Succeeded" | "Failed")
    }

    pub(super) fn stopped(&self, now: Millis) -> bool {
        self.run.stop.as_ref().is_some_and(|stop| stop.until <= now)
    }

    /// When its containers stop doing anything.
    fn end(&self, now: Millis) -> Millis {
        self.run.stop.as_ref().map_or(now, |stop| stop.until.min(now))
    }

    fn life(&self, container: &Value, now: Millis) -> Option<Life> {
        let start = self.starts().filter(|_| matches!(self.run.fate, Fate::Runs))?;
        let program = Program::of(container, &self.run.delays);
        let kills = self.kills.get(name(container)).map(Vec::as_slice).unwrap_or_default();
        (start <= now).then(|| Life::of(&program, self.policy(), start, self.end(now), &self.run.delays, kills))
    }

    /// Whether any container has started, so that there are logs.
    pub(super) fn has_started(&self, now: Millis) -> bool {
        let begun = self.inits().first().map(|(_, at, ..)| *at).or_else(|| self.starts());
        matches!(self.run.fate, Fate::Runs) && begun.is_some_and(|at| at <= now)
    }

    /// Everything that a container has written in this run.
    pub(super) fn lines(&self, container: &str, now: Millis) -> Option<Vec<(Millis, String)>> {
        let found = self.containers("containers").into_iter().find(|c| name(c) == container);
        let mut lines = if let Some(container) = found {
            self.life(container, now).map(|life| life.lines).unwrap_or_default()
        } else {
            let init = self.containers("initContainers").into_iter().find(|c| name(c) == container)?;
            let (_, start, end, _) = self.inits().into_iter().find(|(name, ..)| name == container)?;
            let program = Program::of(init, &self.run.delays);
            if start <= now {
                Life::of(&program, "Never", start, end.min(now), &self.run.delays, &[]).lines
            } else {
                Vec::new()
            }
        };
        lines.extend(self.written.get(container).into_iter().flatten().cloned());
        lines.sort_by_key(|(at, _)| *at);
        Some(lines)
    }

    /// Whether a container writes no more: it has ended for good, was stopped, or its group goes.
    pub(super) fn silent(&self, container: &str, now: Millis) -> bool {
        let found = self.containers("containers").into_iter().find(|c| name(c) == container);
        let Some(life) = found.and_then(|container| self.life(container, now)) else { return true };
        self.stopped(now) || self.deleting(now) || matches!(life.now, Now::Ended { .. })
    }

    /// As GET gives it, or as a list does: without what is going on.
    pub(super) fn view(&self, now: Millis, clock: &Clock, whole: bool) -> Value {
        let mut view = self.spec.clone();
        hide(&mut view);
        view["id"] = json!(self.id());
        view["name"] = json!(self.name);
        view["type"] = json!("Microsoft.ContainerInstance/containerGroups");
        view["location"] = json!(self.location);
        let properties = &mut view["properties"];
        properties["provisioningState"] = json!(self.provisioning(now));
        for (member, default) in [
            ("sku", json!("Standard")),
            ("restartPolicy", json!("Always")),
            ("initContainers", json!([])),
            ("imageRegistryCredentials", json!([])),
            ("isCustomProvisioningTimeout", json!(false)),
        ] {
            if properties[member].is_null() {
                properties[member] = default;
            }
        }
        if properties["ipAddress"].is_object() {
            let address = &mut properties["ipAddress"];
            let ports = address["ports"].as_array_mut().into_iter().flatten();
            ports.filter(|port| port["protocol"].is_null()).for_each(|port| port["protocol"] = json!("TCP"));
            if let Some(fqdn) = &self.fqdn {
                address["fqdn"] = json!(fqdn);
            }
            let known = self.run.began + self.run.delays.pending + self.run.delays.ip;
            let off = self.run.stop.is_some();
            address["ip"] = if known <= now && !off { json!(self.ip) } else { Value::Null };
        }
        for kind in ["containers", "initContainers"] {
            for container in properties[kind].as_array_mut().into_iter().flatten() {
                let own = name(container).to_owned();
                let properties = &mut container["properties"];
                let lists: &[&str] =
                    if kind == "containers" { &["ports", "environmentVariables"] } else { &["environmentVariables"] };
                for member in lists {
                    if properties[*member].is_null() {
                        properties[*member] = json!([]);
                    }
                }
                if whole && self.run.began + self.run.delays.pending <= now {
                    properties["instanceView"] = self.container_view(kind, &own, now, clock);
                }
            }
        }
        if whole {
            properties["instanceView"] = json!({"events": self.events(now, clock), "state": self.state(now)});
        }
        view
    }

    fn container_view(&self, kind: &str, own: &str, now: Millis, clock: &Clock) -> Value {
        let mut events = Vec::new();
        let (pulling, pulled) = self.pulls();
        let Some(container) = self.containers(kind).into_iter().find(|c| name(c) == own) else { return Value::Null };
        let image = image(container);
        if pulling <= now && !matches!(self.run.fate, Fate::Mount(_)) {
            events.push(event(clock, pulling, 1, "Pulling", &format!("pulling image \"{image}\""), "Normal"));
        }
        if pulled <= now && matches!(self.run.fate, Fate::Runs) {
            events.push(event(clock, pulled, 1, "Pulled", &format!("Successfully pulled image \"{image}\""), "Normal"));
        }
        let waiting = json!({"state": "Waiting", "detailStatus": ""});
        if kind == "initContainers" {
            let found = self.inits().into_iter().find(|(name, ..)| name == own);
            let state = match found.filter(|_| matches!(self.run.fate, Fate::Runs)) {
                Some((_, start, end, code)) if end <= now => {
                    events.push(event(clock, start, 1, "Started", "Started container", "Normal"));
                    ended(clock, start, end, code)
                }
                Some((_, start, ..)) if start <= now => {
                    events.push(event(clock, start, 1, "Started", "Started container", "Normal"));
                    json!({"state": "Running", "startTime": clock.stamp(start), "detailStatus": ""})
                }
                _ => waiting,
            };
            return json!({"restartCount": 0, "currentState": state, "events": events});
        }
        let Some(life) = self.life(container, now) else {
            return json!({"restartCount": 0, "currentState": waiting, "events": events});
        };
        let first = self.starts().unwrap_or_default();
        events.push(event(clock, first, life.restarts + 1, "Started", "Started container", "Normal"));
        let kind = kind_of(image);
        for (probe, word) in [("livenessProbe", "Liveness"), ("readinessProbe", "Readiness")] {
            if fails(&container["properties"][probe], kind) && first + self.run.delays.sick / 2 <= now {
                let probe = &container["properties"][probe];
                let said = said(probe).unwrap_or_else(|| "HTTP probe failed with statuscode: 503".to_owned());
                let message = format!("{word} probe failed: {said}");
                events.push(event(clock, first + self.run.delays.sick / 2, 1, "Unhealthy", &message, "Warning"));
            }
        }
        let (state, before) = match life.now {
            _ if self.stopped(now) => {
                let at = self.end(now);
                match life.now {
                    Now::Running { since } => (ended(clock, since, at, 0), life.before),
                    Now::Ended { began, at, code } => (ended(clock, began, at, code), life.before),
                    Now::Waiting => (waiting, life.before),
                }
            }
            Now::Running { since } => {
                (json!({"state": "Running", "startTime": clock.stamp(since), "detailStatus": ""}), life.before)
            }
            Now::Ended { began, at, code } => (ended(clock, began, at, code), life.before),
            Now::Waiting => {
                events.push(event(
                    clock,
                    now,
                    life.restarts + 1,
                    "BackOff",
                    "Back-off restarting failed container",
                    "Warning",
                ));
                (
                    json!({"state": "Waiting", "detailStatus": "CrashLoopBackOff: Back-off restarting failed"}),
                    life.before,
                )
            }
        };
        let mut view = json!({"restartCount": life.restarts, "currentState": state, "events": events});
        if let Some((began, at, code)) = before {
            view["previousState"] = ended(clock, began, at, code);
        }
        view
    }

    /// The events of the group itself.
    pub(super) fn events(&self, now: Millis, clock: &Clock) -> Vec<Value> {
        let (pulling, pulled) = self.pulls();
        match &self.run.fate {
            Fate::Mount(why) if pulling <= now => vec![event(clock, pulling, 1, "FailedMount", why, "Warning")],
            Fate::Made(Outcome::Events { name, message } | Outcome::Silent { name, message }) if pulled <= now => {
                vec![event(clock, pulled, 1, name, message, "Warning")]
            }
            _ => Vec::new(),
        }
    }

    /// `instanceView.state`.
    pub(super) fn state(&self, now: Millis) -> &'static str {
        if self.stopped(now) {
            return "Stopped";
        }
        match self.settles() {
            Some((at, well)) if at <= now => {
                if !well {
                    // A mount that fails is tried again, for ever.
                    return if matches!(self.run.fate, Fate::Mount(_)) { "Pending" } else { "Failed" };
                }
            }
            _ => return "Pending",
        }
        let lives: Vec<Life> = self.containers("containers").iter().filter_map(|c| self.life(c, now)).collect();
        let codes: Vec<i64> = lives
            .iter()
            .filter_map(|life| match life.now {
                Now::Ended { code, .. } => Some(code),
                _ => None,
            })
            .collect();
        if codes.len() < lives.len() {
            "Running"
        } else if codes.iter().all(|code| *code == 0) {
            "Succeeded"
        } else {
            "Failed"
        }
    }
}

fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
}

fn image(container: &Value) -> &str {
    container["properties"]["image"].as_str().unwrap_or_default()
}

fn ended(clock: &Clock, began: Millis, at: Millis, code: i64) -> Value {
    let detail = if code == 0 { "Completed" } else { "Error" };
    json!({"state": "Terminated", "exitCode": code, "startTime": clock.stamp(began), "finishTime": clock.stamp(at), "detailStatus": detail})
}

fn event(clock: &Clock, at: Millis, count: u32, name: &str, message: &str, kind: &str) -> Value {
    let at = clock.stamp(at);
    json!({"count": count, "firstTimestamp": at, "lastTimestamp": at, "name": name, "message": message, "type": kind})
}

/// Takes out everything that is never given back.
fn hide(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for name in SECRETS {
                members.shift_remove(*name);
            }
            if let Some(secret) = members.get_mut("secret").filter(|secret| secret.is_object()) {
                *secret = json!({});
            }
            // Names of tags are nobody's secret, whatever they are called.
            members.iter_mut().filter(|(name, _)| *name != "tags").for_each(|(_, value)| hide(value));
        }
        Value::Array(all) => all.iter_mut().for_each(hide),
        _ => {}
    }
}

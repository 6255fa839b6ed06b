//! The model as `docker compose config --format json` prints it (v2.26.1, and later versions for what that one does not
//! know): attributes that say nothing are left out, and every `$` is doubled, so that the output means the same again.

mod service;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Number, Value, json};

use super::model::{FileObject, FileSource, Ipam, Network, Project, Ulimit, Volume};

/// The project as one JSON object. The contents of files are not part of it; their paths are.
pub fn print(project: &Project) -> Value {
    let mut top = Members::new();
    top.set("name", project.name.as_str());
    top.set("services", keyed(&project.services, |service| service::print(service)));
    top.set_some("networks", keyed(&project.networks, network));
    top.set_some("volumes", keyed(&project.volumes, volume));
    top.set_some("configs", keyed(&project.configs, file_object));
    top.set_some("secrets", keyed(&project.secrets, file_object));
    for (key, value) in project.foreign.iter().chain(&project.extensions) {
        top.set(key, value.clone());
    }
    doubled(top.into())
}

/// The members of an object under way.
struct Members(Map<String, Value>);

impl Members {
    fn new() -> Self {
        Self(Map::new())
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// Sets what says something: null, `false`, 0 and what is empty do not.
    fn set_some(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        let is_something = match &value {
            Value::Null | Value::Bool(false) => false,
            Value::Bool(true) => true,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(members) => !members.is_empty(),
        };
        if is_something {
            self.set(key, value);
        }
    }

    /// Sets what is there, whatever it says.
    fn set_given(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }
}

impl From<Members> for Value {
    fn from(members: Members) -> Self {
        Self::Object(members.0)
    }
}

fn keyed<K: ToString, V>(map: &BTreeMap<K, V>, print: impl Fn(&V) -> Value) -> Value {
    Value::Object(map.iter().map(|(key, value)| (key.to_string(), print(value))).collect())
}

fn texts(map: &BTreeMap<String, String>) -> Value {
    keyed(map, |text| text.as_str().into())
}

fn network(network: &Network) -> Value {
    let Network { name, external, driver, driver_opts, internal, attachable, enable_ipv4, enable_ipv6, labels, ipam } =
        network;
    let mut members = Members::new();
    members.set("name", name.as_str());
    members.set_given("driver", driver.clone());
    members.set_some("driver_opts", texts(driver_opts));
    members.set("ipam", ipam.as_ref().map_or_else(|| json!({}), self::ipam));
    members.set_some("external", *external);
    members.set_some("internal", *internal);
    members.set_some("attachable", *attachable);
    members.set_some("labels", texts(labels));
    members.set_given("enable_ipv4", *enable_ipv4);
    members.set_given("enable_ipv6", *enable_ipv6);
    members.into()
}

fn ipam(ipam: &Ipam) -> Value {
    let pools = ipam.config.iter().map(|pool| {
        let mut members = Members::new();
        members.set_given("subnet", pool.subnet.clone());
        members.set_given("gateway", pool.gateway.clone());
        members.set_given("ip_range", pool.ip_range.clone());
        members.set_some("aux_addresses", texts(&pool.aux_addresses));
        members.into()
    });
    let mut members = Members::new();
    members.set_given("driver", ipam.driver.clone());
    members.set_some("config", pools.collect::<Vec<Value>>());
    members.set_some("options", texts(&ipam.options));
    members.into()
}

fn volume(volume: &Volume) -> Value {
    let Volume { name, external, driver, driver_opts, labels } = volume;
    let mut members = Members::new();
    members.set("name", name.as_str());
    members.set_given("driver", driver.clone());
    members.set_some("driver_opts", texts(driver_opts));
    members.set_some("external", *external);
    members.set_some("labels", texts(labels));
    members.into()
}

fn file_object(object: &FileObject) -> Value {
    let FileObject { name, source, labels, driver, driver_opts, template_driver } = object;
    let mut members = Members::new();
    members.set("name", name.as_str());
    match source {
        FileSource::File { path, .. } => members.set("file", path.as_str()),
        FileSource::Content(text) => members.set("content", text.as_str()),
        FileSource::Environment { name, .. } => members.set("environment", name.as_str()),
        FileSource::External => members.set("external", true),
    }
    members.set_some("labels", texts(labels));
    members.set_given("driver", driver.clone());
    members.set_some("driver_opts", texts(driver_opts));
    members.set_given("template_driver", template_driver.clone());
    members.into()
}

/// A number as JSON has it: whole ones without a fraction.
#[allow(clippy::cast_possible_truncation, reason = "only whole numbers within the range in which floats are exact")]
pub(super) fn number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        Value::from(number as i64)
    } else {
        Number::from_f64(number).map_or(Value::Null, Value::Number)
    }
}

/// Billionths as the number they stand for, in the precision in which docker compose keeps it.
fn nano(nanos: Option<i64>) -> Option<Value> {
    let text = |nanos: i64| format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    let single = |nanos: i64| text(nanos).parse::<f32>().ok()?.to_string().parse().ok();
    nanos.map(|nanos| single(nanos).map_or(Value::Null, number))
}

/// A size, which is printed as a string.
fn bytes(size: Option<i64>) -> Option<String> {
    size.map(|size| size.to_string())
}

/// `ulimits` as they were written.
pub(super) fn ulimits(ulimits: &BTreeMap<String, Ulimit>) -> Value {
    keyed(ulimits, |limit| {
        if limit.is_single && limit.soft != 0 {
            return limit.soft.into();
        }
        let mut members = Members::new();
        members.set_some("soft", limit.soft);
        members.set_some("hard", limit.hard);
        members.into()
    })
}

/// `extra_hosts`, sorted.
pub(super) fn hosts(hosts: &BTreeMap<String, Vec<String>>) -> Value {
    let lines = hosts.iter().flat_map(|(host, all)| all.iter().map(move |address| format!("{host}={address}")));
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.into()
}

/// A duration as Go prints it: `1h30m0s`, `1.5s`, `500ms`.
fn duration(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    let fraction = |whole: u64, part: u32, digits: usize| {
        let text = format!("{whole}.{part:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let seconds = duration.as_secs();
    if seconds == 0 {
        return match nanos {
            0 => "0s".to_owned(),
            1..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => format!("{}µs", fraction(u64::from(nanos / 1_000), nanos % 1_000, 3)),
            _ => format!("{}ms", fraction(u64::from(nanos / 1_000_000), nanos % 1_000_000, 6)),
        };
    }
    let rest = fraction(seconds % 60, nanos, 9);
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

fn doubled(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(items) => items.into_iter().map(doubled).collect(),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(key, value)| (key.replace('$', "$$"), doubled(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (1_000_000, "1ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (120_000_000_000, "2m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (5_400_500_000_000, "1h30m0.5s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn numbers_of_cpus() {
        for (nanos, printed) in [(500_000_000, json!(0.5)), (2_000_000_000, json!(2)), (1, json!(1e-9))] {
            assert_eq!(nano(Some(nanos)), Some(printed));
        }
    }
}

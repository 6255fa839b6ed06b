//! Limits and devices of a service.

use std::collections::{BTreeMap, HashMap};

use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::{BlkioConfig, DeviceRequest, Ulimit};
use crate::compose::units;

/// A number of CPUs in billionths; 0 is no limit.
pub(super) fn nano_cpus(field: &Field<'_>) -> Result<Option<i64>, ComposeError> {
    let cpus = field.number()?;
    let nanos = units::nano_cpus(cpus).ok_or_else(|| field.error("must be a number of CPUs such as 0.5"))?;
    Ok(Some(nanos).filter(|&nanos| nanos != 0))
}

/// Bytes; 0 is no limit.
pub(super) fn amount(field: &Field<'_>) -> Result<Option<i64>, ComposeError> {
    Ok(Some(field.bytes()?).filter(|&bytes| bytes != 0))
}

/// Bytes where the schema has a string only: a number is refused, as by docker compose.
pub(super) fn quoted_amount(field: &Field<'_>) -> Result<Option<i64>, ComposeError> {
    field.text()?;
    amount(field)
}

/// A number of processes; 0 is no limit.
pub(super) fn pids(field: &Field<'_>) -> Result<Option<i64>, ComposeError> {
    Ok(Some(field.integer()?).filter(|&pids| pids != 0))
}

/// Microseconds, as a number or a duration.
pub(super) fn cpu_time(field: &Field<'_>) -> Result<i64, ComposeError> {
    match field.integer() {
        Ok(micros) => Ok(micros),
        Err(_) => match field.duration() {
            Ok(duration) => i64::try_from(duration.as_micros()).map_err(|_| field.error("is too large")),
            Err(_) => Err(field.error("must be a number of microseconds")),
        },
    }
}

/// `{name: limit}` or `{name: {soft, hard}}`.
pub(super) fn ulimits(field: &Field<'_>) -> Result<BTreeMap<String, Ulimit>, ComposeError> {
    let mut ulimits = BTreeMap::new();
    for entry in field.entries()? {
        if entry.key().is_empty() || !entry.key().bytes().all(|c| c.is_ascii_lowercase()) {
            return Err(entry.error("the name of a limit has only letters a-z, such as nofile"));
        }
        let ulimit = if entry.is_mapping() {
            let (mut soft, mut hard) = (None, None);
            for attribute in entry.attributes()? {
                match attribute.key() {
                    "soft" => soft = Some(attribute.integer()?),
                    "hard" => hard = Some(attribute.integer()?),
                    _ => return Err(attribute.unknown(&["soft", "hard"])),
                }
            }
            match (soft, hard) {
                (Some(soft), Some(hard)) => Ulimit { soft, hard, is_single: false },
                _ => return Err(entry.error("needs both `soft` and `hard`")),
            }
        } else {
            let limit = entry.integer()?;
            Ulimit { soft: limit, hard: limit, is_single: true }
        };
        ulimits.insert(entry.key().to_owned(), ulimit);
    }
    Ok(ulimits)
}

/// `gpus`: `all`, or a list of requests, each for a GPU.
pub(super) fn gpus(field: &Field<'_>) -> Result<Vec<DeviceRequest>, ComposeError> {
    let gpu = || vec!["gpu".to_owned()];
    if !field.is_sequence() {
        return match field.text() {
            Ok("all") => Ok(vec![DeviceRequest { capabilities: gpu(), count: Some(-1), ..DeviceRequest::default() }]),
            _ => Err(field.error("must be all or a list of device requests")),
        };
    }
    let mut requests = Vec::new();
    for item in field.items()? {
        let mut request = device_request(&item)?;
        if !request.capabilities.iter().any(|capability| capability == "gpu") {
            request.capabilities.push("gpu".to_owned());
        }
        requests.push(request);
    }
    Ok(requests)
}

/// `deploy.resources.reservations.devices`.
pub(super) fn device_requests(field: &Field<'_>) -> Result<Vec<DeviceRequest>, ComposeError> {
    let mut requests = Vec::new();
    for item in field.items()? {
        let request = device_request(&item)?;
        if request.capabilities.is_empty() {
            return Err(item.error("has no `capabilities`, such as [gpu]"));
        }
        requests.push(request);
    }
    Ok(requests)
}

fn device_request(item: &Field<'_>) -> Result<DeviceRequest, ComposeError> {
    let mut request = DeviceRequest::default();
    for attribute in item.attributes()? {
        match attribute.key() {
            "capabilities" => request.capabilities = attribute.distinct_texts()?,
            "driver" => request.driver = Some(attribute.text()?.to_owned()),
            "count" => {
                let all = attribute.text() == Ok("all");
                request.count = Some(if all { -1 } else { attribute.integer()? });
            }
            "device_ids" => request.device_ids = attribute.texts()?,
            "options" => request.options = attribute.pairs()?,
            _ => return Err(attribute.unknown(&["capabilities", "count", "device_ids", "driver", "options"])),
        }
    }
    if request.count.is_some() && !request.device_ids.is_empty() {
        return Err(item.error("has both `count` and `device_ids`: leave one of them out"));
    }
    if request.device_ids.is_empty() {
        request.count = request.count.or(Some(-1));
    }
    Ok(request)
}

/// `source[:target[:permissions]]`, or the same as a mapping. Of two devices at one path the later one counts.
pub(super) fn devices(field: &Field<'_>) -> Result<Vec<String>, ComposeError> {
    let mut devices: Vec<String> = Vec::new();
    let mut by_target: HashMap<String, usize> = HashMap::new();
    for item in field.items()? {
        let (mut source, mut target, mut permissions) = (None, None, "rwm".to_owned());
        if item.is_mapping() {
            for attribute in item.attributes()? {
                match attribute.key() {
                    "source" => source = Some(attribute.some_text()?.to_owned()),
                    "target" => target = Some(attribute.some_text()?.to_owned()),
                    "permissions" => attribute.some_text()?.clone_into(&mut permissions),
                    _ => return Err(attribute.unknown(&["source", "target", "permissions"])),
                }
            }
        } else {
            let mut parts = item.some_text()?.splitn(3, ':').map(str::to_owned);
            (source, target) = (parts.next(), parts.next());
            permissions = parts.next().unwrap_or(permissions);
            if permissions.contains(':') {
                return Err(item.error("has too many colons: write source[:target[:permissions]], or the long syntax"));
            }
        }
        let source = source.ok_or_else(|| item.error("has no `source`"))?;
        let target = target.unwrap_or_else(|| source.clone());
        let device = format!("{source}:{target}:{permissions}");
        if let Some(&at) = by_target.get(&target) {
            devices[at] = device;
        } else {
            by_target.insert(target, devices.len());
            devices.push(device);
        }
    }
    Ok(devices)
}

/// `blkio_config`.
pub(super) fn blkio(field: &Field<'_>) -> Result<BlkioConfig, ComposeError> {
    let mut config = BlkioConfig::default();
    let operations = |rate: &Field<'_>| rate.integer();
    let bytes = |rate: &Field<'_>| rate.bytes();
    for attribute in field.attributes()? {
        let a = &attribute;
        match a.key() {
            "weight" => config.weight = Some(weight(a)?),
            "weight_device" => config.weight_device = per_device(a, "weight", weight)?,
            "device_read_bps" => config.device_read_bps = per_device(a, "rate", bytes)?,
            "device_write_bps" => config.device_write_bps = per_device(a, "rate", bytes)?,
            "device_read_iops" => config.device_read_iops = per_device(a, "rate", operations)?,
            "device_write_iops" => config.device_write_iops = per_device(a, "rate", operations)?,
            _ => {
                let known = [
                    "weight",
                    "weight_device",
                    "device_read_bps",
                    "device_write_bps",
                    "device_read_iops",
                    "device_write_iops",
                ];
                return Err(a.unknown(&known));
            }
        }
    }
    Ok(config)
}

fn weight(field: &Field<'_>) -> Result<u16, ComposeError> {
    u16::try_from(field.integer()?).map_err(|_| field.error("must be a weight from 10 to 1000"))
}

fn per_device<T>(
    field: &Field<'_>,
    name: &str,
    read: impl Fn(&Field<'_>) -> Result<T, ComposeError>,
) -> Result<Vec<(String, T)>, ComposeError> {
    let mut devices = Vec::new();
    for item in field.items()? {
        let (mut path, mut value) = (None, None);
        for attribute in item.attributes()? {
            match attribute.key() {
                "path" => path = Some(attribute.some_text()?.to_owned()),
                key if key == name => value = Some(read(&attribute)?),
                _ => return Err(attribute.unknown(&["path", name])),
            }
        }
        match (path, value) {
            (Some(path), Some(value)) => devices.push((path, value)),
            _ => return Err(item.error(format!("needs `path` and `{name}`"))),
        }
    }
    Ok(devices)
}

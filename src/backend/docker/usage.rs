//! What containers use, as the engine counts it, and the sizes of volumes.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerBlkioStatEntry, ContainerMemoryStats, ContainerStatsResponse, ContainerSummary};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::anonymous::is_anonymous;
use super::engine::{Engine, EngineError};
use super::{labels, status};
use crate::backend::{ContainerUsage, Used, VolumeSize};
use crate::domain::{AgentId, ObjectName, Subdomain};

/// How many containers are asked about at once, whoever asks: each question makes the engine read some ten files.
pub(super) const AT_ONCE: usize = 8;

/// The containers that match the filter, in order. One that goes away meanwhile is left out.
pub(super) async fn containers(
    engine: &Engine,
    measuring: &Semaphore,
    filter: &HashMap<String, Vec<String>>,
) -> Result<Vec<ContainerUsage>, EngineError> {
    let listed = engine.containers(filter).await?;
    let observed = status::sorted(listed.into_iter().filter_map(status::read).collect());
    let asking = observed.into_iter().map(|container| async move {
        let running = matches!(container.status.state.as_str(), "running" | "paused");
        let used = if running {
            // The semaphore is never closed.
            let _place = measuring.acquire().await.ok();
            match engine.stats(&container.status.id).await {
                Ok(stats) => read(&stats),
                // It ended between the two calls.
                Err(EngineError::NotFound(_) | EngineError::Conflict(_)) => return Ok(None),
                Err(error) => return Err(error),
            }
        } else {
            Used::default()
        };
        let (name, id) = (container.status.name, container.status.id);
        let (tenant, service, number) = (container.tenant, container.service, container.number);
        Ok(Some(ContainerUsage { tenant, service, number, name, id, running: used.at.is_some(), used }))
    });
    let all: Vec<Option<ContainerUsage>> = stream::iter(asking).buffered(AT_ONCE).try_collect().await?;
    Ok(all.into_iter().flatten().collect())
}

/// The engine's numbers in our words, cgroup v1 or v2.
fn read(stats: &ContainerStatsResponse) -> Used {
    // The engine answers with the year 1 and nothing else for what has just ended.
    let at = stats.read.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let Some(at) = at.filter(|at| at.as_second() > 0) else { return Used::default() };
    let cpu = stats.cpu_stats.as_ref();
    let total = cpu.and_then(|cpu| cpu.cpu_usage.as_ref()).and_then(|usage| usage.total_usage).unwrap_or(0);
    let throttled = cpu.and_then(|cpu| cpu.throttling_data.as_ref()).and_then(|data| data.throttled_time);
    let memory = stats.memory_stats.as_ref();
    let pids = stats.pids_stats.as_ref();
    let sum = |part: fn(&bollard::models::ContainerNetworkStats) -> Option<u64>| {
        let networks = stats.networks.as_ref().filter(|networks| !networks.is_empty())?;
        Some(networks.values().filter_map(part).fold(0, u64::saturating_add))
    };
    let entries = stats.blkio_stats.as_ref().and_then(|blkio| blkio.io_service_bytes_recursive.as_deref());
    Used {
        at: Some(at),
        cpu: Duration::from_nanos(total),
        throttled: throttled.map(Duration::from_nanos),
        memory: memory.map_or(0, used_memory),
        memory_limit: memory.and_then(|memory| memory.limit).filter(|limit| *limit > 0),
        pids: pids.and_then(|pids| pids.current),
        received: sum(|network| network.rx_bytes),
        sent: sum(|network| network.tx_bytes),
        read: entries.map(|entries| bytes_of(entries, "read")),
        written: entries.map(|entries| bytes_of(entries, "write")),
    }
}

/// As the docker CLI computes it (`calculateMemUsageUnixNoCache`): the file cache that can go at once is no use of the
/// container's. cgroup v1 calls it `total_inactive_file`, v2 `inactive_file`.
fn used_memory(memory: &ContainerMemoryStats) -> u64 {
    let usage = memory.usage.unwrap_or(0);
    let parts = memory.stats.as_ref();
    let cache = parts.and_then(|parts| parts.get("total_inactive_file").or_else(|| parts.get("inactive_file")));
    cache.filter(|cache| **cache < usage).map_or(usage, |cache| usage - cache)
}

/// cgroup v1 writes `Read`, v2 `read`.
fn bytes_of(entries: &[ContainerBlkioStatEntry], what: &str) -> u64 {
    let matching = entries.iter().filter(|entry| entry.op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case(what)));
    matching.filter_map(|entry| entry.value).fold(0, u64::saturating_add)
}

/// `GET /system/df`: `Volumes` until API 1.51, `VolumeUsage.Items` from then on.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DiskUsage {
    volumes: Option<Vec<MeasuredVolume>>,
    volume_usage: Option<VolumeUsage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VolumeUsage {
    items: Option<Vec<MeasuredVolume>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MeasuredVolume {
    name: String,
    labels: Option<HashMap<String, String>>,
    usage_data: Option<UsageData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UsageData {
    /// -1 when the driver cannot tell.
    size: i64,
}

/// Whose containers, among these of the agent's, have which anonymous volumes: those bear no label.
pub(super) fn users(containers: Vec<ContainerSummary>) -> HashMap<String, Subdomain> {
    let of = |container: ContainerSummary| {
        let tenant = Subdomain::parse(container.labels?.get(labels::TENANT)?).ok()?;
        let names = container.mounts?.into_iter().filter_map(|mount| mount.name).filter(|name| is_anonymous(name));
        Some(names.map(|name| (name, tenant.clone())).collect::<Vec<_>>())
    };
    containers.into_iter().filter_map(of).flatten().collect()
}

/// The volumes of the answer that the agent may own: those with its label, those that only its containers tell of, and those
/// without any agent's label, which a tenant may have adopted. None when the answer says nothing about volumes.
pub(super) fn volume_sizes(
    body: &[u8],
    agent: &AgentId,
    users: &HashMap<String, Subdomain>,
) -> Option<Vec<VolumeSize>> {
    let usage: DiskUsage = serde_json::from_slice(body).ok()?;
    let volumes = usage.volumes.or_else(|| usage.volume_usage?.items)?;
    let measured = volumes.into_iter().filter_map(|volume| {
        let labels = volume.labels.unwrap_or_default();
        if labels.get(labels::AGENT).is_some_and(|owner| owner != agent.as_str()) {
            return None;
        }
        Some(VolumeSize {
            owner: match labels.get(labels::TENANT) {
                Some(name) => Subdomain::parse(name).ok(),
                None => users.get(&volume.name).cloned(),
            },
            name: ObjectName::parse(&volume.name).ok()?,
            bytes: u64::try_from(volume.usage_data?.size).ok()?,
        })
    });
    Some(measured.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(text: &str) -> Used {
        read(&serde_json::from_str(text).expect("stats of the engine"))
    }

    #[test]
    fn numbers_of_cgroup_v1_and_v2() {
        let at = "2026-11-21T10:30:00.5Z".parse().ok();
        let v1 = stats(
            r#"{"read": "2026-11-21T10:30:00.5Z", "pids_stats": {"current": 3},
            "blkio_stats": {"io_service_bytes_recursive": [{"major": 8, "minor": 0, "op": "Read", "value": 10},
                {"major": 8, "minor": 0, "op": "Write", "value": 20}, {"major": 8, "minor": 16, "op": "Read", "value": 1},
                {"major": 8, "minor": 0, "op": "Total", "value": 30}]},
            "cpu_stats": {"cpu_usage": {"total_usage": 1500000000, "percpu_usage": [1, 2]},
                "throttling_data": {"periods": 4, "throttled_periods": 2, "throttled_time": 7000}},
            "memory_stats": {"usage": 1000, "limit": 5000, "max_usage": 1200,
                "stats": {"total_inactive_file": 400, "inactive_file": 300}},
            "networks": {"eth0": {"rx_bytes": 5, "tx_bytes": 6}, "eth1": {"rx_bytes": 50, "tx_bytes": 60}}}"#,
        );
        let expected = Used {
            at,
            cpu: Duration::from_millis(1500),
            throttled: Some(Duration::from_micros(7)),
            memory: 600,
            memory_limit: Some(5000),
            pids: Some(3),
            received: Some(55),
            sent: Some(66),
            read: Some(11),
            written: Some(20),
        };
        assert_eq!(v1, expected);
        let v2 = stats(
            r#"{"read": "2026-11-21T10:30:00.5Z", "pids_stats": {"current": 1, "limit": 18446744073709551615},
            "blkio_stats": {"io_service_bytes_recursive": null},
            "cpu_stats": {"cpu_usage": {"total_usage": 9}, "system_cpu_usage": 4, "online_cpus": 2},
            "memory_stats": {"usage": 1000, "limit": 5000, "stats": {"inactive_file": 300, "anon": 1}}}"#,
        );
        let expected = Used {
            at,
            cpu: Duration::from_nanos(9),
            memory: 700,
            memory_limit: Some(5000),
            pids: Some(1),
            ..Used::default()
        };
        assert_eq!(v2, expected);
        // More cache than use: the engine counts them one after the other.
        let odd = r#"{"read": "2026-11-21T10:30:00Z", "memory_stats": {"usage": 10, "stats": {"inactive_file": 300}}}"#;
        assert_eq!(stats(odd).memory, 10);
    }

    #[test]
    fn what_has_just_ended_uses_nothing() {
        let ended = r#"{"read": "0001-01-01T00:00:00Z", "pids_stats": {}, "cpu_stats": {"cpu_usage": {"total_usage": 0}},
            "memory_stats": {}, "blkio_stats": {"io_service_bytes_recursive": null}}"#;
        assert_eq!(stats(ended), Used::default());
    }

    #[test]
    fn volumes_of_old_and_new_engines() {
        let agent = AgentId::parse(&"a".repeat(32)).expect("an id");
        let nameless = "e".repeat(64);
        let items = format!(
            r#"[{{"Name": "q8-acme_data", "Labels": {{"dev.q8.agent": "{agent}", "dev.q8.tenant": "acme"}},
                "UsageData": {{"Size": 12, "RefCount": 1}}}},
            {{"Name": "other", "Labels": null, "UsageData": {{"Size": 1, "RefCount": 0}}}},
            {{"Name": "{nameless}", "Labels": null, "UsageData": {{"Size": 7, "RefCount": 1}}}},
            {{"Name": "foreign", "Labels": {{"dev.q8.agent": "b"}}, "UsageData": {{"Size": 1, "RefCount": 0}}}},
            {{"Name": "remote", "Labels": {{"dev.q8.agent": "{agent}"}}, "UsageData": {{"Size": -1, "RefCount": -1}}}},
            {{"Name": "unseen", "Labels": {{"dev.q8.agent": "{agent}"}}, "UsageData": null}}]"#
        );
        let size = |owner: Option<&str>, name: &str, bytes| VolumeSize {
            owner: owner.map(|name| Subdomain::parse(name).expect("a name")),
            name: ObjectName::parse(name).expect("a name"),
            bytes,
        };
        let summary = |tenant: &str, volume: &str| ContainerSummary {
            labels: Some(HashMap::from([(labels::TENANT.to_owned(), tenant.to_owned())])),
            mounts: Some(vec![
                bollard::models::MountPoint { name: Some(volume.to_owned()), ..Default::default() },
                bollard::models::MountPoint::default(),
            ]),
            ..Default::default()
        };
        let users =
            users(vec![summary("shop", &nameless), summary("shop", "q8-acme_data"), ContainerSummary::default()]);
        let expected = Some(vec![
            size(Some("acme"), "q8-acme_data", 12),
            size(None, "other", 1),
            size(Some("shop"), &nameless, 7),
        ]);
        for text in [
            format!(r#"{{"LayersSize": 5, "Images": [], "Volumes": {items}}}"#),
            format!(r#"{{"VolumeUsage": {{"ActiveCount": 1, "Items": {items}}}}}"#),
        ] {
            assert_eq!(volume_sizes(text.as_bytes(), &agent, &users), expected, "{text}");
        }
        assert_eq!(volume_sizes(b"{\"Images\": []}", &agent, &users), None);
        assert_eq!(volume_sizes(b"nonsense", &agent, &users), None);
    }
}

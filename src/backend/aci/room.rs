//! Whether a region has room for a group, as far as it tells: asked before anything is touched.

use tokio::time::Instant;

use super::models::{Capability, ContainerGroup, Usage};
use super::site::Site;
use super::{Core, prices};
use crate::backend::{BackendError, TenantRef};

/// What a group is to have, and what it has already.
#[derive(Debug, Clone, Copy)]
struct Need {
    cpus: f64,
    memory: f64,
    more_cpus: f64,
    groups: i64,
}

impl Need {
    /// None when it needs no more than it has: that is never refused.
    fn of(wanted: &ContainerGroup, live: Option<&ContainerGroup>) -> Option<Self> {
        let (cpus, memory) = prices::requested(wanted);
        let (had_cpus, had_memory) = live.map_or((0.0, 0.0), prices::requested);
        let grows = live.is_none() || cpus > had_cpus || memory > had_memory;
        let groups = i64::from(live.is_none());
        grows.then_some(Self { cpus, memory, more_cpus: (cpus - had_cpus).max(0.0), groups })
    }

    /// Why the subscription's quota in the region does not suffice, if so.
    fn over_quota(self, usages: &[Usage]) -> Option<String> {
        usages.iter().find_map(|usage| {
            let (current, limit) = (usage.current_value?, usage.limit?);
            #[allow(clippy::cast_possible_truncation, reason = "some cores")]
            let asked = match usage.name.value.as_str() {
                "ContainerGroups" => self.groups,
                "StandardCores" => self.more_cpus.ceil() as i64,
                _ => return None,
            };
            let what = &usage.name.value;
            (asked > 0 && current.saturating_add(asked) > limit)
                .then(|| format!("{asked} more {what} are needed, {current} of {limit} are used"))
        })
    }

    /// Why one group cannot be so large there, if so. Kinds of address differ in what they may have: the largest counts.
    fn too_large(self, able: &[Capability]) -> Option<String> {
        let linux = able.iter().filter(|one| {
            let is_linux = one.os_type.as_deref().is_none_or(|os| os.eq_ignore_ascii_case("linux"));
            is_linux && one.gpu.as_deref().is_none_or(|gpu| gpu.is_empty() || gpu.eq_ignore_ascii_case("none"))
        });
        let (cpus, memory) = linux.fold(None, |most: Option<(f64, f64)>, one| {
            let (cpu, memory) = (one.capabilities.max_cpu?, one.capabilities.max_memory_in_gb?);
            Some(most.map_or((cpu, memory), |(c, m)| (c.max(cpu), m.max(memory))))
        })?;
        (self.cpus > cpus || self.memory > memory).then(|| {
            format!(
                "the group needs {} CPUs and {} GB, a group may have {cpus} and {memory} there",
                self.cpus, self.memory
            )
        })
    }
}

impl Core {
    /// Refuses a group that is to be made, or to grow, where there is no room for it.
    pub(super) async fn has_room(
        &self,
        tenant: &TenantRef,
        wanted: &ContainerGroup,
        live: Option<&ContainerGroup>,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let Some(need) = Need::of(wanted, live) else { return Ok(()) };
        let site = self.site(tenant)?;
        let (usages, able) = tokio::join!(site.usages(deadline), site.capabilities(deadline));
        let usages = usages.map_err(|error| site.fault(error, "reading the usages"))?;
        let able = able.map_err(|error| site.fault(error, "reading the capabilities"))?;
        match need.over_quota(&usages).or_else(|| need.too_large(&able)) {
            Some(message) => Err(BackendError::NoCapacity { region: site.region.location.clone(), message }),
            None => Ok(()),
        }
    }

    /// The other region that a tenant is in already, though nothing on this host tells of it: it must not be made a second
    /// time. `named` is what has its name in the region that is meant.
    pub(super) async fn is_nowhere_else(
        &self,
        tenant: &TenantRef,
        named: Option<&ContainerGroup>,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let own = self.site(tenant)?;
        if named.is_some_and(|group| own.is_at(group)) {
            return Ok(());
        }
        let is_own = |site: &Site<'_>| site.region.location == own.region.location;
        for (site, group) in self.by_name(&tenant.subdomain, |site| !is_own(site), deadline).await? {
            if self.is_of(&group, tenant) {
                return Err(BackendError::Elsewhere { region: site.region.location.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(cpu: f64, memory: f64) -> ContainerGroup {
        let resources = json!({"requests": {"cpu": cpu, "memoryInGB": memory}});
        let container = json!({"name": "a", "properties": {"image": "x", "resources": resources}});
        serde_json::from_value(json!({"properties": {"containers": [container]}})).unwrap()
    }

    fn usage(name: &str, current: i64, limit: i64) -> Usage {
        serde_json::from_value(json!({"name": {"value": name}, "currentValue": current, "limit": limit})).unwrap()
    }

    fn able(gpu: &str, cpu: f64, memory: f64) -> Capability {
        let capabilities = json!({"maxCpu": cpu, "maxMemoryInGB": memory, "maxGpuCount": 0});
        serde_json::from_value(json!({"osType": "Linux", "gpu": gpu, "capabilities": capabilities})).unwrap()
    }

    #[test]
    fn what_does_not_grow_needs_nothing() {
        assert!(Need::of(&group(1.0, 2.0), Some(&group(1.0, 2.0))).is_none());
        assert!(Need::of(&group(1.0, 1.0), Some(&group(2.0, 2.0))).is_none());
        let more = Need::of(&group(2.5, 2.0), Some(&group(1.0, 2.0))).unwrap();
        assert_eq!((more.groups, more.more_cpus.to_bits()), (0, 1.5_f64.to_bits()));
        assert_eq!(Need::of(&group(1.0, 1.0), None).unwrap().groups, 1);
    }

    #[test]
    fn quotas_are_of_what_is_added() {
        let (new, more) =
            (Need::of(&group(2.0, 2.0), None).unwrap(), Need::of(&group(2.0, 2.0), Some(&group(1.0, 1.0))).unwrap());
        for (need, usages, full) in [
            (new, vec![usage("ContainerGroups", 99, 100), usage("StandardCores", 98, 100)], false),
            (new, vec![usage("ContainerGroups", 100, 100)], true),
            (new, vec![usage("StandardCores", 99, 100)], true),
            (more, vec![usage("ContainerGroups", 100, 100), usage("StandardCores", 99, 100)], false),
            (more, vec![usage("StandardCores", 100, 100)], true),
            (new, vec![usage("StandardSpotCores", 0, 0)], false),
        ] {
            assert_eq!(need.over_quota(&usages).is_some(), full, "{usages:?}");
        }
    }

    #[test]
    fn the_largest_that_is_to_be_had_without_a_gpu_counts() {
        let need = Need::of(&group(4.0, 16.0), None).unwrap();
        assert!(need.too_large(&[able("None", 2.0, 8.0), able("None", 4.0, 16.0)]).is_none());
        assert!(need.too_large(&[able("None", 2.0, 8.0), able("V100", 8.0, 64.0)]).is_some());
        assert!(need.too_large(&[]).is_none(), "a region that says nothing is tried");
    }
}

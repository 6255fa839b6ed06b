//! What each container asks for. The sum over the group is what it has and what is paid for.
//!
//! `deploy.resources.reservations` are requests as they stand. A limit without one is a request too, because a group keeps no
//! more ready than what is requested; a service that says nothing gets 1 CPU and 1.5 GB. If that is more than a group may have,
//! those without reservations get their share of what is left, and limits stay limits.

use std::collections::BTreeMap;

use super::order::Order;
use super::{BackendError, Services, unsupported};
use crate::backend::Deployment;
use crate::backend::aci::models::{ResourceAmounts, Resources};
use crate::compose::Service;
use crate::domain::ServiceName;
use crate::policy::nano_cpus;

/// One of the two resources, counted in its smallest step.
#[derive(Clone, Copy)]
struct Kind {
    /// For a service that says nothing.
    default: u32,
    /// The least that a group may ask for.
    least: u32,
    /// The most: of the sum, and so of any one limit.
    most: u32,
    /// Steps in one CPU or gigabyte.
    steps: u32,
    /// For people.
    unit: &'static str,
}

/// Hundredths of a CPU.
const CPU: Kind = Kind { default: 100, least: 100, most: 400, steps: 100, unit: "CPUs" };
/// Tenths of a gigabyte, which is 2^30 bytes as in Compose files.
const MEMORY: Kind = Kind { default: 15, least: 10, most: 160, steps: 10, unit: "GB of memory" };

/// What one service says about one resource: steps, and the attribute that says so.
#[derive(Clone)]
struct Need {
    reserved: Option<(u32, &'static str)>,
    limit: Option<(u32, &'static str)>,
}

/// The resources of every container.
pub(super) fn divide(
    wanted: &Deployment,
    services: &Services<'_>,
    order: &Order<'_>,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<ServiceName, Resources>, BackendError> {
    if !wanted.project.is_confined() {
        for name in &order.init {
            if let Some((_, attribute)) = cpus(services[name]).limit.or_else(|| memory(services[name]).limit) {
                warnings.push(format!(
                    "services.{name}.{attribute}: an init container has no limits; it may use what the group has"
                ));
            }
        }
    }
    let of = |need: fn(&Service) -> Need| -> Vec<(&ServiceName, Need)> {
        order.containers.iter().map(|name| (*name, need(services[name]))).collect()
    };
    let cpus = share(CPU, &of(cpus), warnings)?;
    let memory = share(MEMORY, &of(memory), warnings)?;
    let resources = order.containers.iter().zip(cpus.into_iter().zip(memory)).map(|(name, (cpu, memory))| {
        let amounts = |cpu: Option<u32>, memory: Option<u32>| ResourceAmounts {
            cpu: cpu.map(|steps| CPU.amount(steps)),
            memory_in_gb: memory.map(|steps| MEMORY.amount(steps)),
            gpu: None,
        };
        let has_limits = cpu.limit.is_some() || memory.limit.is_some();
        let resources = Resources {
            requests: amounts(Some(cpu.request), Some(memory.request)),
            limits: has_limits.then(|| amounts(cpu.limit, memory.limit)),
        };
        ((*name).clone(), resources)
    });
    Ok(resources.collect())
}

/// What one container gets of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Given {
    request: u32,
    limit: Option<u32>,
}

/// Divides one resource.
fn share(kind: Kind, needs: &[(&ServiceName, Need)], warnings: &mut Vec<String>) -> Result<Vec<Given>, BackendError> {
    let mut reserved = 0_u32;
    for (name, need) in needs {
        for (steps, attribute) in need.reserved.iter().chain(&need.limit) {
            if *steps > kind.most {
                return Err(unsupported(format!("services.{name}.{attribute}"), kind.too_much("one service")));
            }
        }
        if let Some((steps, attribute)) = need.reserved {
            reserved = reserved.saturating_add(steps);
            if reserved > kind.most {
                return Err(unsupported(format!("services.{name}.{attribute}"), kind.too_much("all services")));
            }
        }
    }
    let floating: Vec<u32> = needs
        .iter()
        .filter(|(_, need)| need.reserved.is_none())
        .map(|(_, need)| need.limit.map_or(kind.default, |(steps, _)| steps))
        .collect();
    let room = kind.most - reserved;
    if u32::try_from(floating.len()).map_or(true, |count| count > room) {
        return Err(unsupported("services", kind.too_much("all services")));
    }
    let asked: u64 = floating.iter().copied().map(u64::from).sum();
    let mut floating = fit(&floating, room);
    let given: u64 = floating.iter().copied().map(u64::from).sum();
    let any_limit = needs.iter().any(|(_, need)| need.reserved.is_none() && need.limit.is_some());
    if given < asked && any_limit {
        warnings.push(format!(
            "services: their limits add up to more than the {} {} of a group; each is sure of its share only",
            kind.show(kind.most),
            kind.unit
        ));
    }
    // From the end, so that each can be taken off.
    floating.reverse();
    let mut requests: Vec<u32> = needs
        .iter()
        .map(|(_, need)| need.reserved.map_or_else(|| floating.pop().unwrap_or(1), |(steps, _)| steps.max(1)))
        .collect();
    let sum: u32 = requests.iter().sum();
    if let (Some(missing), Some(largest)) = (kind.least.checked_sub(sum), requests.iter_mut().max()) {
        *largest += missing;
    }
    let total = sum.max(kind.least);
    let limited = needs.iter().zip(requests).map(|((name, need), request)| {
        let limit = need.limit.map(|(steps, attribute)| {
            if steps > total {
                warnings.push(format!(
                    "services.{name}.{attribute}: the group has no more than {} {}, what its services reserve",
                    kind.show(total),
                    kind.unit
                ));
            }
            steps.min(total).max(request)
        });
        Given { request, limit }
    });
    Ok(limited.collect())
}

/// The amounts themselves if they fit, else in proportion; at least one step each, and there is room for that.
fn fit(amounts: &[u32], room: u32) -> Vec<u32> {
    let sum: u64 = amounts.iter().copied().map(u64::from).sum();
    if sum <= u64::from(room) {
        return amounts.iter().map(|&amount| amount.max(1)).collect();
    }
    let part = |amount: u32| u32::try_from(u64::from(amount) * u64::from(room) / sum).unwrap_or(room).max(1);
    let mut parts: Vec<u32> = amounts.iter().map(|&amount| part(amount)).collect();
    let mut over = parts.iter().sum::<u32>().saturating_sub(room);
    while over > 0 {
        // Those that were raised to one step are taken from the largest.
        let Some(largest) = parts.iter_mut().max().filter(|largest| **largest > 1) else { break };
        *largest -= 1;
        over -= 1;
    }
    parts
}

impl Kind {
    fn amount(self, steps: u32) -> f64 {
        f64::from(steps) / f64::from(self.steps)
    }

    fn show(self, steps: u32) -> String {
        self.amount(steps).to_string()
    }

    fn too_much(self, whose: &str) -> String {
        format!("a group has at most {} {} for {whose}", self.show(self.most), self.unit)
    }
}

fn cpus(service: &Service) -> Need {
    let resources = service.deploy.as_ref().map(|deploy| &deploy.resources);
    let reserved = resources.and_then(|resources| positive(resources.reservations.nano_cpus));
    let attribute = match resources.and_then(|resources| resources.limits.as_ref()) {
        Some(limits) if positive(limits.nano_cpus).is_some() => "deploy.resources.limits.cpus",
        _ if positive(service.resources.nano_cpus).is_some() => "cpus",
        _ => "cpu_quota",
    };
    Need {
        reserved: reserved.map(|nano| (nano_steps(nano), "deploy.resources.reservations.cpus")),
        limit: nano_cpus(service).map(|nano| (nano_steps(nano), attribute)),
    }
}

fn memory(service: &Service) -> Need {
    let resources = service.deploy.as_ref().map(|deploy| &deploy.resources);
    let deployed = resources.and_then(|resources| positive(resources.reservations.memory));
    let reserved_at = if deployed.is_some() { "deploy.resources.reservations.memory" } else { "mem_reservation" };
    let limited = resources.and_then(|resources| positive(resources.limits.as_ref()?.memory));
    let limit_at = if limited.is_some() { "deploy.resources.limits.memory" } else { "mem_limit" };
    let limits = service.limits();
    Need {
        reserved: positive(limits.memory_reservation).map(|bytes| (byte_steps(bytes), reserved_at)),
        limit: positive(limits.memory).map(|bytes| (byte_steps(bytes), limit_at)),
    }
}

/// 0 and less say nothing.
fn positive(amount: Option<i64>) -> Option<u64> {
    amount.and_then(|amount| u64::try_from(amount).ok()).filter(|&amount| amount > 0)
}

/// Rounded up to hundredths.
fn nano_steps(nano: u64) -> u32 {
    u32::try_from(nano.div_ceil(crate::domain::NANO_CPUS / u64::from(CPU.steps))).unwrap_or(u32::MAX)
}

/// Rounded up to tenths of a gigabyte.
fn byte_steps(bytes: u64) -> u32 {
    let steps = (u128::from(bytes) * u128::from(MEMORY.steps)).div_ceil(1 << 30);
    u32::try_from(steps).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(reserved: Option<u32>, limit: Option<u32>) -> Need {
        Need { reserved: reserved.map(|steps| (steps, "r")), limit: limit.map(|steps| (steps, "l")) }
    }

    fn shared(needs: &[Need]) -> Result<Vec<(u32, Option<u32>)>, String> {
        let names: Vec<ServiceName> =
            (0..needs.len()).map(|at| ServiceName::parse(&format!("s{at}")).unwrap()).collect();
        let pairs: Vec<(&ServiceName, Need)> = names.iter().zip(needs.iter().cloned()).collect();
        let given = share(CPU, &pairs, &mut Vec::new()).map_err(|error| error.field().unwrap_or_default())?;
        Ok(given.into_iter().map(|given| (given.request, given.limit)).collect())
    }

    #[test]
    fn a_group_is_divided() {
        for (needs, given) in [
            // Nothing said: the default; with many, a share.
            (vec![need(None, None)], vec![(100, None)]),
            (vec![need(None, None); 8], vec![(50, None); 8]),
            // A limit is asked for as it is, a reservation goes before it.
            (vec![need(None, Some(250))], vec![(250, Some(250))]),
            (vec![need(Some(150), Some(400)), need(Some(250), None)], vec![(150, Some(400)), (250, None)]),
            // The group has no more than what is reserved.
            (vec![need(Some(100), Some(300))], vec![(100, Some(100))]),
            // A group of less than one CPU is none: the largest is given the rest.
            (vec![need(None, Some(25)), need(None, Some(50))], vec![(25, Some(25)), (75, Some(75))]),
            // Reservations stay, the rest shares what is left.
            (
                vec![need(Some(300), None), need(None, Some(100)), need(None, Some(300))],
                vec![(300, None), (25, Some(100)), (75, Some(300))],
            ),
        ] {
            assert_eq!(shared(&needs).unwrap(), given);
        }
    }

    #[test]
    fn what_a_group_cannot_have() {
        for (needs, field) in [
            (vec![need(None, Some(401))], "services.s0.l"),
            (vec![need(Some(500), None)], "services.s0.r"),
            (vec![need(Some(300), None), need(Some(101), None)], "services.s1.r"),
            (vec![need(Some(400), None), need(None, None)], "services"),
        ] {
            assert_eq!(shared(&needs).unwrap_err(), field);
        }
    }

    #[test]
    fn steps_are_rounded_up() {
        assert_eq!(nano_steps(1), 1);
        assert_eq!(nano_steps(10_000_000), 1);
        assert_eq!(nano_steps(10_000_001), 2);
        assert_eq!(byte_steps(1), 1);
        assert_eq!(byte_steps(1 << 30), 10);
        assert_eq!(byte_steps((1 << 30) + 1), 11);
        assert_eq!(byte_steps(512 << 20), 5);
    }

    #[test]
    fn shares_never_add_up_to_more() {
        for count in 1..60_u32 {
            let amounts: Vec<u32> = (0..count).map(|at| at * at * 7 + 1).collect();
            let parts = fit(&amounts, 160);
            assert!(parts.iter().sum::<u32>() <= 160.max(amounts.iter().sum()), "{count}");
            assert!(parts.iter().all(|&part| part >= 1));
        }
    }
}

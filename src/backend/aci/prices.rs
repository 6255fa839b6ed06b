//! What a group costs, by the operator's own table: prices differ by contract, and Azure's list is no part of this API.
//!
//! ```toml
//! currency = "USD"
//!
//! [locations.eastus]                        # as in `Q8_AGENT_ACI_REGIONS`
//! vcpu_hour = 0.0405                        # one CPU for an hour
//! gb_hour = 0.00445                         # one gigabyte of memory for an hour
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use super::models::ContainerGroup;
use super::names;

/// Why a price table is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PricesError {
    /// It is not TOML, has an unknown key, or a value of another type.
    #[error("{}", .0.to_string().trim_end())]
    Toml(#[from] toml::de::Error),
    /// A price that is none.
    #[error("{key}: must be a number, 0 or more")]
    Price {
        /// The key, such as `locations.eastus.gb_hour`.
        key: String,
    },
}

/// Prices by location.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prices {
    /// A word for people.
    pub(crate) currency: String,
    locations: BTreeMap<String, Price>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    vcpu_hour: f64,
    gb_hour: f64,
}

impl Prices {
    /// Reads a table.
    pub(crate) fn parse(text: &str) -> Result<Self, PricesError> {
        let read: Self = toml::from_str(text)?;
        for (location, price) in &read.locations {
            for (name, amount) in [("vcpu_hour", price.vcpu_hour), ("gb_hour", price.gb_hour)] {
                if !amount.is_finite() || amount < 0.0 {
                    return Err(PricesError::Price { key: format!("locations.{location}.{name}") });
                }
            }
        }
        let locations = read.locations.into_iter().map(|(location, price)| (names::location(&location), price));
        Ok(Self { locations: locations.collect(), ..read })
    }

    /// What the group costs per hour while it runs; none for a location that has no price. A stopped group costs nothing.
    pub(crate) fn per_hour(&self, location: &str, group: &ContainerGroup) -> Option<f64> {
        let price = self.locations.get(&names::location(location))?;
        let (cpus, memory) = requested(group);
        Some(cpus * price.vcpu_hour + memory * price.gb_hour)
    }
}

/// The sums of what a group's containers ask for, which is what it has and what is paid for: CPUs and gigabytes.
pub(crate) fn requested(group: &ContainerGroup) -> (f64, f64) {
    let resources = group.properties.containers.iter().filter_map(|container| container.properties.resources.as_ref());
    resources.fold((0.0, 0.0), |(cpus, memory), resources| {
        let asked = &resources.requests;
        (cpus + asked.cpu.unwrap_or(0.0), memory + asked.memory_in_gb.unwrap_or(0.0))
    })
}

#[cfg(test)]
mod tests {
    use super::super::models::{Container, ContainerProperties, GroupProperties, ResourceAmounts, Resources};
    use super::*;

    const TABLE: &str = "
currency = \"USD\"
[locations.\"East US\"]
vcpu_hour = 0.04
gb_hour = 0.005
";

    fn group(amounts: &[(f64, f64)]) -> ContainerGroup {
        let containers = amounts.iter().map(|&(cpu, memory)| {
            let requests = ResourceAmounts { cpu: Some(cpu), memory_in_gb: Some(memory), gpu: None };
            let resources = Some(Resources { requests, limits: None });
            Container {
                name: "x".to_owned(),
                properties: ContainerProperties { resources, ..ContainerProperties::default() },
            }
        });
        let containers = containers.collect();
        ContainerGroup {
            properties: GroupProperties { containers, ..GroupProperties::default() },
            ..Default::default()
        }
    }

    #[test]
    fn a_group_costs_the_sum_of_its_requests() {
        let prices = Prices::parse(TABLE).unwrap();
        let cost = prices.per_hour("eastus", &group(&[(1.0, 1.5), (0.5, 2.5)])).unwrap();
        assert!((cost - (1.5 * 0.04 + 4.0 * 0.005)).abs() < 1e-9, "{cost}");
        assert_eq!(prices.per_hour("westeurope", &group(&[(1.0, 1.0)])), None);
        assert_eq!(prices.currency, "USD");
    }

    #[test]
    fn tables_that_are_none() {
        for (text, told) in [
            ("", "currency"),
            ("currency = 'USD'\n[locations.x]\nvcpu_hour = 1.0", "gb_hour"),
            ("currency = 'USD'\n[locations.x]\nvcpu_hour = -1.0\ngb_hour = 1.0", "locations.x.vcpu_hour"),
            ("currency = 'USD'\n[locations.x]\nvcpu_hour = 1.0\ngb_hour = nan", "locations.x.gb_hour"),
            ("currency = 'USD'\nfree = true\n[locations]", "free"),
        ] {
            let error = Prices::parse(text).expect_err(text).to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}

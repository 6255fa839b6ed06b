//! How many log streams there may be: of one tenant and of all. Each holds a connection to the engine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::Subdomain;

/// The places for streams.
#[derive(Debug, Clone)]
pub(in crate::api) struct Places {
    most: usize,
    most_per_tenant: usize,
    taken: Arc<Mutex<HashMap<Subdomain, usize>>>,
}

/// One place, given back when this is dropped.
#[derive(Debug)]
pub(in crate::api) struct Place {
    tenant: Subdomain,
    taken: Arc<Mutex<HashMap<Subdomain, usize>>>,
}

impl Places {
    pub(in crate::api) fn new(most: usize, most_per_tenant: usize) -> Self {
        Self { most, most_per_tenant, taken: Arc::default() }
    }

    /// A place, or why there is none.
    pub(in crate::api) fn take(&self, tenant: &Subdomain) -> Result<Place, &'static str> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.most {
            return Err("too many log streams are open");
        }
        if taken.get(tenant).copied().unwrap_or(0) >= self.most_per_tenant {
            return Err("too many log streams of this tenant are open");
        }
        *taken.entry(tenant.clone()).or_default() += 1;
        Ok(Place { tenant: tenant.clone(), taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_for_one_and_for_all() {
        let places = Places::new(3, 2);
        let tenant = |name| Subdomain::parse(name).unwrap();
        let first = places.take(&tenant("a")).unwrap();
        let second = places.take(&tenant("a")).unwrap();
        assert!(places.take(&tenant("a")).unwrap_err().contains("of this tenant"));
        let third = places.take(&tenant("b")).unwrap();
        assert!(places.take(&tenant("c")).unwrap_err().contains("too many log streams are open"));
        drop(first);
        let again = places.take(&tenant("a")).unwrap();
        drop((second, third, again));
        assert!(places.taken.lock().unwrap().is_empty());
    }
}

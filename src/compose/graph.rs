//! The order in which services start, and circles in it.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Project;
use crate::domain::ServiceName;

/// Services in start order: each after all it depends on, by name among those that could go at the same time.
pub(super) fn start_order(project: &Project) -> Vec<ServiceName> {
    let mut waits_for: BTreeMap<&ServiceName, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<&ServiceName, Vec<&ServiceName>> = BTreeMap::new();
    for (name, service) in &project.services {
        let present = service.depends_on.keys().filter(|dependency| project.services.contains_key(*dependency));
        let mut count = 0;
        for dependency in present {
            count += 1;
            dependents.entry(dependency).or_default().push(name);
        }
        waits_for.insert(name, count);
    }
    let mut ready: BTreeSet<&ServiceName> =
        waits_for.iter().filter(|&(_, &count)| count == 0).map(|(&name, _)| name).collect();
    let mut order = Vec::with_capacity(project.services.len());
    while let Some(name) = ready.pop_first() {
        order.push(name.clone());
        for dependent in dependents.get(name).into_iter().flatten() {
            if let Some(count) = waits_for.get_mut(dependent) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(dependent);
                }
            }
        }
    }
    order
}

/// A circle of dependencies, beginning and ending with the same service; none when there is no circle.
pub(super) fn cycle(project: &Project) -> Option<Vec<ServiceName>> {
    let ordered: BTreeSet<ServiceName> = start_order(project).into_iter().collect();
    // Whoever is not in the order waits for somebody who is not: following that comes back sooner or later.
    let start = project.services.keys().find(|name| !ordered.contains(*name))?;
    let mut path: Vec<&ServiceName> = vec![start];
    let mut position = BTreeMap::from([(start, 0)]);
    loop {
        let service = project.services.get(*path.last()?)?;
        let next =
            service.depends_on.keys().find(|name| project.services.contains_key(*name) && !ordered.contains(*name))?;
        if let Some(&at) = position.get(next) {
            return Some(path[at..].iter().copied().chain([next]).cloned().collect());
        }
        position.insert(next, path.len());
        path.push(next);
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::compose::tests::load_text;

    fn names(services: Vec<ServiceName>) -> Vec<String> {
        services.into_iter().map(String::from).collect()
    }

    #[test]
    fn every_service_starts_after_all_it_depends_on() {
        let text = "services: {web: {image: x, depends_on: [db, cache]}, db: {image: x}, cache: {image: x}, \
                    job: {image: x, depends_on: [web]}, a: {image: x, network_mode: 'service:job'}}";
        let project = load_text(text).expect("valid").project;
        assert_eq!(names(start_order(&project)), ["cache", "db", "web", "job", "a"]);
    }

    #[test]
    fn a_circle_is_named() {
        let text = "services: {z: {image: x, depends_on: [a]}, a: {image: x, depends_on: [b]}, \
                    b: {image: x, depends_on: [c, d]}, c: {image: x}, d: {image: x, depends_on: [a]}}";
        let error = load_text(text).expect_err("a circle");
        assert!(error.reason.ends_with("a -> b -> d -> a"), "{error}");
        assert_eq!(error.field, "services.a.depends_on.b");
    }

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        let mut text = "services:\n  s0: {image: x}\n".to_owned();
        for at in 1..5000 {
            let _ = writeln!(text, "  s{at}: {{image: x, depends_on: [s{}]}}", at - 1);
        }
        let order = start_order(&load_text(&text).expect("valid").project);
        assert_eq!(order.first().map(ServiceName::as_str), Some("s0"));
        assert_eq!(order.last().map(ServiceName::as_str), Some("s4999"));
    }
}

//! Binds below `data/` that meet those of the containers that are there already.
//!
//! Who can write a directory can put a link in the place of one below it, and the engine resolves the source of a bind
//! itself, when the container starts. The policy therefore refuses a bind below another one that is writable; but the
//! containers of the last generation go on running while those of the next one start, and come back if that fails. So the
//! same must hold between the two.

use super::observe::Observed;
use crate::backend::{BackendError, Deployment};
use crate::compose::MountSource;

/// Refuses a bind below `data/` that lies below or above one of an existing container, if the upper one is writable.
pub(super) fn check(wanted: &Deployment, observed: &Observed) -> Result<(), BackendError> {
    if !wanted.project.is_confined() {
        return Ok(());
    }
    let project = wanted.project.project();
    let in_data = |path: &str| project.relative(path).is_some_and(|path| path == "data" || path.starts_with("data/"));
    let there = || observed.containers.iter().flat_map(|container| &container.binds).filter(|(path, _)| in_data(path));
    for (name, service) in &project.services {
        for (at, mount) in service.mounts.iter().enumerate() {
            let MountSource::Bind { source, .. } = &mount.source else { continue };
            let writable = mount.read_only != Some(true);
            let meets = |(other, other_writable): &(String, bool)| {
                (*other_writable && is_below(source, other)) || (writable && is_below(other, source))
            };
            if in_data(source) && there().any(meets) {
                return Err(BackendError::Unsupported {
                    field: format!("services.{name}.volumes[{at}]"),
                    reason:
                        "it lies below or above a directory that a container of this tenant has bound already, and \
                             the upper one is writable: remove the other bind in an update of its own first"
                            .to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// Whether `path` is inside `directory`, and not the directory itself.
fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::backend::docker::observe::{Container, State};
    use crate::backend::sample;
    use crate::domain::{ContainerId, ContainerName, Generation, ServiceName};
    use crate::policy::Profile;

    fn wanted(profile: Profile, volume: &str) -> Deployment {
        sample::deployment(profile, &format!("services: {{web: {{image: x, volumes: ['{volume}']}}}}"), &[])
    }

    fn there(path: &str, writable: bool) -> Observed {
        let container = Container {
            id: ContainerId::parse(&"a".repeat(64)).unwrap(),
            name: ContainerName::parse("q8-acme-old-1").unwrap(),
            service: ServiceName::parse("old").unwrap(),
            number: 1,
            generation: Generation(1),
            spec: String::new(),
            image_id: String::new(),
            state: State::Exited(0),
            networks: BTreeMap::new(),
            binds: vec![(path.to_owned(), writable)],
            standing: None,
        };
        Observed { containers: vec![container], ..Observed::default() }
    }

    #[test]
    fn what_meets_a_bind_of_the_last_generation_is_refused() {
        for (volume, path, writable, refused) in [
            ("./data/x:/x", "/opt/t/acme/data", true, true),
            ("./data/x/y:/x", "/opt/t/acme/data/x", true, true),
            ("./data/x:/x:ro", "/opt/t/acme/data", true, true),
            ("./data:/x", "/opt/t/acme/data/x", true, true),
            ("./data:/x", "/opt/t/acme/data/x", false, true),
            ("./data/x:/x", "/opt/t/acme/data", false, false),
            ("./data:/x:ro", "/opt/t/acme/data/x", true, false),
            ("./data:/x", "/opt/t/acme/data", true, false),
            ("./data/x:/x", "/opt/t/acme/data/y", true, false),
            ("./data/xy:/x", "/opt/t/acme/data/x", true, false),
            ("/etc/localtime:/x:ro", "/etc", true, false),
        ] {
            let verdict = check(&wanted(Profile::Baseline, volume), &there(path, writable));
            assert_eq!(verdict.is_err(), refused, "{volume} beside {path}: {verdict:?}");
        }
        let trusted = check(&wanted(Profile::Trusted, "./data/x:/x"), &there("/opt/t/acme/data", true));
        assert!(trusted.is_ok(), "what the operator's own stacks do to each other is the operator's affair");
    }
}

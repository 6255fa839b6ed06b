//! What an image says of itself. It becomes a container's wherever its service says nothing, and whoever wrote the image is
//! as much a stranger as whoever wrote the file. So it is judged as a file is, before anything is touched, and as the engine
//! would use it: mending is better than refusing, because whoever uses an image can seldom change it.

use std::time::Duration;

use bollard::models::{HealthConfig, ImageConfig};

use super::gate::Allowance;
use crate::backend::{BackendError, Instead};
use crate::compose::Service;
use crate::domain::ServiceName;

/// Ports that an image may expose, as many as `policy` lets a file expose and some more: the engine tells all of them
/// whenever containers are listed.
const EXPOSED: usize = 1000;
/// Volumes of one image. Each of its containers gets as many.
const VOLUMES: usize = 64;
/// Bytes of an image's labels, as in a file: the engine tells them whenever containers are listed.
const LABEL_BYTES: usize = 64 << 10;
/// Bytes of all that it says: variables and commands are the most of it.
const BYTES: usize = 512 << 10;
/// The shortest time between two healthchecks, as in a file: each is a process.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// What ends a container whose image names a signal that ends nothing.
const STOP_SIGNAL: &str = "SIGTERM";
/// Signals that end a process or that it can take for an end, as in a file, and their numbers on Linux.
const STOP_SIGNALS: &[&str] = &["HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "WINCH", "PWR"];
const STOP_SIGNAL_NUMBERS: &[u32] = &[1, 2, 3, 9, 10, 12, 15, 28, 30];

/// What a stranger's container says in place of its image; an error where that cannot be mended.
pub(super) fn judge(
    allowance: &Allowance<'_>,
    name: &ServiceName,
    service: &Service,
    config: &ImageConfig,
) -> Result<Instead, BackendError> {
    let refuse = |what: String| {
        Err(BackendError::Unsupported { field: format!("services.{name}.image"), reason: format!("the image {what}") })
    };
    let exposed = config.exposed_ports.as_ref().map_or(0, Vec::len);
    if exposed > EXPOSED {
        return refuse(format!("exposes {exposed} ports; it may expose {EXPOSED}"));
    }
    let volumes = config.volumes.as_ref().map_or(0, Vec::len);
    if volumes > VOLUMES {
        return refuse(format!("has {volumes} volumes; it may have {VOLUMES}"));
    }
    let labels = config.labels.iter().flatten();
    if labels.map(|(label, value)| label.len() + value.len()).sum::<usize>() > LABEL_BYTES {
        return refuse("has more than 64 KiB of labels".to_owned());
    }
    if serde_json::to_vec(config).ok().is_none_or(|text| text.len() > BYTES) {
        return refuse("says more than 512 KiB of itself".to_owned());
    }
    if let Some(label) = config.labels.iter().flatten().map(|(label, _)| label).find(|label| {
        allowance.is_acted_on(label) && !Allowance::is_written(label) && !service.labels.contains_key(label.as_str())
    }) {
        return refuse(format!("has the label {label}, which other software of the host may act on"));
    }
    let directory = config.working_dir.as_deref().filter(|_| service.working_dir.is_none());
    if directory.is_some_and(is_of_kernel) {
        return refuse("starts in /proc or /sys; `working_dir` says where else".to_owned());
    }
    let check = config.healthcheck.as_ref().filter(|_| !is_checked_otherwise(service));
    let seldom = |of: fn(&HealthConfig) -> Option<i64>, own: Option<Duration>| {
        let time = check.and_then(of).filter(|_| own.is_none_or(|own| own.is_zero()))?;
        // The engine takes a time below 0 for none at all between two checks.
        let too_short =
            time != 0 && u64::try_from(time).ok().is_none_or(|time| Duration::from_nanos(time) < CHECK_INTERVAL);
        too_short.then_some(CHECK_INTERVAL)
    };
    let own = service.healthcheck.as_ref();
    let signal = config.stop_signal.as_deref().filter(|_| service.stop_signal.is_none());
    Ok(Instead {
        interval: seldom(|check| check.interval, own.and_then(|own| own.interval)),
        start_interval: seldom(|check| check.start_interval, own.and_then(|own| own.start_interval)),
        stop_signal: signal.filter(|signal| !ends(signal)).map(|_| STOP_SIGNAL.to_owned()),
    })
}

/// The paths for which each container of an image gets a volume of its own: those on which the service mounts nothing.
pub(super) fn volumes(service: &Service, config: &ImageConfig) -> u64 {
    let mounts = service.mounts.iter().map(|mount| parts(&mount.target));
    let taken: Vec<Vec<&str>> = mounts.chain(service.tmpfs.iter().map(|mount| parts(&mount.path))).collect();
    let own = config.volumes.iter().flatten().filter(|path| !taken.contains(&parts(path)));
    own.count().try_into().unwrap_or(u64::MAX)
}

/// What is changed against the image's word, a sentence each.
pub(super) fn warnings(name: &ServiceName, instead: &Instead) -> impl Iterator<Item = String> + use<> {
    let Instead { interval, start_interval, stop_signal } = instead;
    let said = [
        interval.map(|_| ("healthcheck.interval", "is 500ms: the image asks for less")),
        start_interval.map(|_| ("healthcheck.start_interval", "is 500ms: the image asks for less")),
        stop_signal.as_ref().map(|_| ("stop_signal", "is SIGTERM: the image's own ends nothing")),
    ];
    let name = name.clone();
    said.into_iter().flatten().map(move |(attribute, what)| format!("services.{name}.{attribute}: {what}"))
}

/// Whether the image's healthcheck is switched off.
fn is_checked_otherwise(service: &Service) -> bool {
    service.healthcheck.as_ref().is_some_and(crate::compose::Healthcheck::is_disabled)
}

fn ends(signal: &str) -> bool {
    let upper = signal.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = |number: u32| STOP_SIGNAL_NUMBERS.contains(&number) || (34..=64).contains(&number);
    signal.is_empty()
        || STOP_SIGNALS.contains(&name)
        || name.starts_with("RTMIN")
        || name.starts_with("RTMAX")
        || signal.parse().is_ok_and(number)
}

/// Whether a directory is one of the kernel's, in which a process may find descriptors of the runtime's (CVE-2024-21626).
fn is_of_kernel(path: &str) -> bool {
    matches!(parts(path).first(), Some(&("proc" | "sys")))
}

/// A path's components after `.` and `..` have been followed as text.
fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::{Value, json};

    use super::*;
    use crate::backend::docker::gate::Ground;
    use crate::backend::docker::networks::Subnet;
    use crate::backend::sample;
    use crate::policy::Profile;

    fn config(text: Value) -> ImageConfig {
        serde_json::from_value(text).expect("an image's configuration")
    }

    /// The verdict on an image that a service with these attributes is made of.
    fn verdict(attributes: &str, text: Value) -> Result<(Instead, u64), BackendError> {
        let file = format!("services: {{a: {{image: x{attributes}}}}}");
        let deployment = sample::deployment(Profile::Baseline, &file, &[]);
        let ground = Ground { publish: None, pool: Subnet::new(Ipv4Addr::new(10, 213, 0, 0), 16) };
        let (name, service) = deployment.project.project().services.first_key_value().expect("a service");
        let config = config(text);
        let instead = judge(&Allowance::of(&deployment, &ground), name, service, &config)?;
        Ok((instead, volumes(service, &config)))
    }

    fn many(what: impl Fn(usize) -> String, count: usize) -> Value {
        (0..count).map(|at| (what(at), json!({}))).collect::<serde_json::Map<_, _>>().into()
    }

    #[test]
    fn what_cannot_be_mended_is_refused() {
        let ports = |count| json!({"ExposedPorts": many(|at| format!("{at}/udp"), count)});
        let paths = |count| json!({"Volumes": many(|at| format!("/v{at}"), count)});
        let label = |name: &str| json!({"Labels": {name: "x"}});
        let long = "x".repeat(64 << 10);
        for (attributes, text, passes) in [
            ("", json!({}), true),
            ("", ports(1000), true),
            ("", ports(1001), false),
            ("", paths(64), true),
            ("", paths(65), false),
            ("", json!({"Labels": {"a": long}}), false),
            ("", json!({"Env": vec![format!("A={long}"); 9]}), false),
            ("", json!({"WorkingDir": "/proc/self/fd/7"}), false),
            ("", json!({"WorkingDir": "/a/..//./sys"}), false),
            ("", json!({"WorkingDir": "proc"}), false),
            (", working_dir: /app", json!({"WorkingDir": "/proc/self/fd/7"}), true),
            ("", json!({"WorkingDir": "/process"}), true),
            ("", label("dev.q8.extra"), false),
            ("", label("com.docker.compose.replace"), false),
            ("", label("Traefik.enable"), false),
            ("", label("maintainer"), true),
            // As `docker compose build` makes them; the container's own are written over these.
            ("", label("com.docker.compose.project"), true),
            ("", label("com.docker.compose.version"), true),
            ("", label("dev.q8.tenant"), true),
        ] {
            let verdict = verdict(attributes, text.clone());
            assert_eq!(verdict.is_ok(), passes, "{attributes} {}", text.to_string().split_at(20).0);
            if let Err(refused) = verdict {
                assert_eq!(refused.field().as_deref(), Some("services.a.image"));
            }
        }
    }

    #[test]
    fn what_can_be_mended_is_told() {
        let slow = Some(CHECK_INTERVAL);
        let check = |interval: i64, start: i64| json!({"Healthcheck": {"Test": ["CMD", "x"], "Interval": interval, "StartInterval": start}});
        for (attributes, text, interval, start_interval) in [
            ("", check(1_000_000, 0), slow, None),
            ("", check(-1, 0), slow, None),
            ("", check(30_000_000_000, 1_000_000), None, slow),
            ("", check(500_000_000, 500_000_000), None, None),
            ("", check(0, 0), None, None),
            (", healthcheck: {interval: 5s}", check(1_000_000, 1_000_000), None, slow),
            (", healthcheck: {retries: 5}", check(1_000_000, 0), slow, None),
            (", healthcheck: {disable: true}", check(1_000_000, 1_000_000), None, None),
        ] {
            let (instead, _) = verdict(attributes, text.clone()).expect("nothing to refuse");
            assert_eq!((instead.interval, instead.start_interval), (interval, start_interval), "{attributes} {text}");
        }
        for (attributes, signal, instead) in [
            ("", "SIGSTOP", Some("SIGTERM")),
            ("", "CHLD", Some("SIGTERM")),
            ("", "17", Some("SIGTERM")),
            ("", "nonsense", Some("SIGTERM")),
            (", stop_signal: SIGINT", "SIGSTOP", None),
            ("", "SIGQUIT", None),
            ("", "SIGRTMIN+3", None),
            ("", "37", None),
        ] {
            let (told, _) = verdict(attributes, json!({"StopSignal": signal})).expect("nothing to refuse");
            assert_eq!(told.stop_signal.as_deref(), instead, "{signal}");
        }
        let (all, _) =
            verdict("", json!({"StopSignal": "0", "Healthcheck": {"Interval": 1, "StartInterval": 1}})).unwrap();
        let name = ServiceName::parse("a").unwrap();
        let told: Vec<String> = warnings(&name, &all).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(told[0], "services.a.healthcheck.interval: is 500ms: the image asks for less");
    }

    #[test]
    fn volumes_of_an_image_are_those_without_a_mount() {
        let text = || json!({"Volumes": {"/data": {}, "/cache/": {}, "/log": {}}});
        for (attributes, count) in
            [("", 3), (", volumes: ['/data']", 2), (", volumes: ['/data'], tmpfs: ['/cache']", 1)]
        {
            assert_eq!(verdict(attributes, text()).expect("nothing to refuse").1, count, "{attributes}");
        }
    }
}

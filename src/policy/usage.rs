//! How much a container may take of what all share, service by service. Sums are `domain::Limits`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::limits::{Defaults, positive};
use super::verdict::Verdict;
use crate::compose::{Exposed, Healthcheck, Project, Resources, Service, TmpfsMount, Ulimit};

/// What a healthcheck costs is a process each time.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Nobody waits longer for a container's end: a stop, an update and a teardown do.
const STOP_GRACE: Duration = Duration::from_mins(5);
/// The weight of a container that says nothing (Engine API `CpuShares`): more takes from the neighbours.
const CPU_SHARES: i64 = 1024;
/// What Docker gives by default on most hosts.
const OPEN_FILES: i64 = 1 << 20;
/// Variables of one service, and bytes of their names and values.
const VARIABLES: usize = 1000;
const VARIABLE_BYTES: usize = 128 << 10;

/// Resource limits (setrlimit(2)) that count within the container's own control group; the others (`nice`, `rtprio`,
/// `rttime`) put its processes before everybody's.
const ULIMITS: &[&str] =
    &["core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nofile", "nproc", "rss", "sigpending", "stack"];

/// Signals that end a process or that it can take for an end.
const STOP_SIGNALS: &[&str] = &["HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "WINCH", "PWR"];
/// Their numbers on Linux.
const STOP_SIGNAL_NUMBERS: &[u32] = &[1, 2, 3, 9, 10, 12, 15, 28, 30];

pub(super) fn judge_resources(
    field: &str,
    service: &Service,
    resources: &Resources,
    defaults: &Defaults,
    verdict: &mut Verdict,
) {
    // A limit itself may be any: it confines, and sums are judged by quota.
    let Resources {
        nano_cpus: _,
        cpu_shares,
        cpu_quota,
        cpu_period: _,
        cpu_rt_period,
        cpu_rt_runtime,
        cpu_count: _,
        cpu_percent: _,
        cpuset: _,
        memory: _,
        memory_reservation: _,
        memory_swap,
        memory_swappiness,
        pids: _,
        shm_size,
    } = resources;
    let at = |attribute: &str| format!("{field}.{attribute}");
    let realtime = cpu_rt_period.is_some() || cpu_rt_runtime.is_some();
    verdict.refuse_if(realtime, at("cpu_rt_runtime"), "realtime", "none: real-time tasks can starve the host");
    verdict.refuse_if(
        cpu_shares.is_some_and(|shares| shares > CPU_SHARES),
        at("cpu_shares"),
        "cpu-shares",
        "at most 1024, which is everybody's weight",
    );
    verdict.refuse_if(
        cpu_quota.is_some_and(|quota| quota < 0),
        at("cpu_quota"),
        "unlimited",
        "microseconds in each cpu_period; without it the default limit holds",
    );
    let swappiness = memory_swappiness.is_some_and(|swappiness| swappiness != 0);
    verdict.refuse_if(swappiness, at("mem_swappiness"), "swappiness", "none: swap is the host's");

    let limits = service.limits();
    for (attribute, limit) in [("pids_limit", limits.pids), ("mem_limit", limits.memory), ("cpus", limits.nano_cpus)] {
        verdict.refuse_if(
            limit.is_some_and(|limit| limit < 0),
            at(attribute),
            "unlimited",
            "a limit; without one the default limit holds",
        );
    }
    let memory = positive(limits.memory).unwrap_or(defaults.memory);
    let fits = |swap: i64| {
        swap == 0
            || (limits.memory.is_some() && positive(Some(swap)).is_some_and(|swap| swap <= memory.saturating_mul(2)))
    };
    verdict.refuse_if(
        !memory_swap.is_none_or(fits),
        at("memswap_limit"),
        "memory-swap",
        "beside mem_limit, and at most twice as much",
    );
    verdict.refuse_if(
        positive(*shm_size).is_some_and(|shm| shm > memory),
        at("shm_size"),
        "shm-size",
        "at most the service's memory limit",
    );
}

pub(super) fn judge_ulimits(field: &str, ulimits: &BTreeMap<String, Ulimit>, verdict: &mut Verdict) {
    for (name, limit) in ulimits {
        let field = format!("{field}.ulimits.{name}");
        let known = ULIMITS.contains(&name.as_str());
        verdict.refuse_if(!known, field.as_str(), "ulimit", &ULIMITS.join(", "));
        let too_many = |count: i64| !(0..=OPEN_FILES).contains(&count);
        verdict.refuse_if(
            name == "nofile" && (too_many(limit.soft) || too_many(limit.hard)),
            field,
            "ulimit",
            "at most 1048576 open files",
        );
    }
}

/// Options of a `tmpfs` entry (tmpfs(5), mount(8)). Others make another kind of mount of it, or another's memory.
const TMPFS_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "diratime",
    "exec",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "relatime",
    "ro",
    "rw",
    "strictatime",
    "suid",
    "sync",
];
/// Those that have a value.
const TMPFS_VALUES: &[&str] = &["gid", "mode", "nr_blocks", "nr_inodes", "size", "uid"];

/// The memory of a tmpfs counts as its container's, so its size may be any.
pub(super) fn judge_tmpfs(field: &str, mounts: &[TmpfsMount], verdict: &mut Verdict) {
    for (index, mount) in mounts.iter().enumerate() {
        let known = |option: &str| match option.split_once('=') {
            Some((name, _)) => TMPFS_VALUES.contains(&name),
            None => option.is_empty() || TMPFS_OPTIONS.contains(&option),
        };
        verdict.refuse_if(
            !mount.options.split(',').all(known),
            format!("{field}.tmpfs[{index}]"),
            "tmpfs-option",
            &format!("{}, and values for {}", TMPFS_OPTIONS.join(", "), TMPFS_VALUES.join(", ")),
        );
    }
}

/// Exposed ports of one container: the engine tells all of them whenever containers are listed.
const EXPOSED: usize = 256;
/// Bytes of one service's labels, for the same reason.
const LABEL_BYTES: usize = 64 << 10;
/// References to configs and secrets in one project, and bytes of the files that are written for them.
const REFERENCES: usize = 200;
const REFERENCE_BYTES: usize = 64 << 20;

pub(super) fn judge_exposed(field: &str, exposed: &[Exposed], verdict: &mut Verdict) {
    judge_exposed_ports(field, exposed, verdict);
    let ports: usize = exposed.iter().map(Exposed::count).sum();
    verdict.refuse_if(
        ports > EXPOSED,
        format!("{field}.expose"),
        "expose",
        "256 ports in all: they need not be exposed",
    );
}

/// No engine and no group has a port of another kind, whoever asks for it.
pub(super) fn judge_exposed_ports(field: &str, exposed: &[Exposed], verdict: &mut Verdict) {
    for (at, _) in exposed.iter().enumerate().filter(|(_, one)| one.ports.is_none()) {
        verdict.refuse(
            format!("{field}.expose[{at}]"),
            "expose-port",
            "PORT or FIRST-LAST from 1 to 65535, /tcp, /udp or /sctp",
        );
    }
}

pub(super) fn judge_labels(field: &str, labels: &BTreeMap<String, String>, verdict: &mut Verdict) {
    let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    verdict.refuse_if(bytes > LABEL_BYTES, format!("{field}.labels"), "labels-size", "64 KiB of names and values");
}

/// Each owner and mode of a config or secret is a file of its own.
pub(super) fn judge_references(project: &Project, verdict: &mut Verdict) {
    let (mut count, mut bytes) = (0_usize, 0_usize);
    for service in project.services.values() {
        for (references, objects) in [(&service.configs, &project.configs), (&service.secrets, &project.secrets)] {
            count += references.len();
            let sizes = references.iter().filter_map(|one| Some(objects.get(&one.source)?.source.bytes()?.len()));
            bytes = sizes.fold(bytes, usize::saturating_add);
        }
    }
    verdict.refuse_if(
        count > REFERENCES || bytes > REFERENCE_BYTES,
        "services",
        "configs-size",
        "200 references to configs and secrets, and 64 MiB of content counted for each of them",
    );
}

pub(super) fn judge_environment(field: &str, variables: &BTreeMap<String, Option<String>>, verdict: &mut Verdict) {
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len)).sum();
    verdict.refuse_if(
        variables.len() > VARIABLES || bytes > VARIABLE_BYTES,
        format!("{field}.environment"),
        "environment-size",
        "at most 1000 variables and 128 KiB of names and values",
    );
}

pub(super) fn judge_healthcheck(field: &str, check: Option<&Healthcheck>, verdict: &mut Verdict) {
    let Some(check) = check else { return };
    for (attribute, time) in [("interval", check.interval), ("start_interval", check.start_interval)] {
        // 0 is "as the image or the engine has it".
        verdict.refuse_if(
            time.is_some_and(|time| !time.is_zero() && time < CHECK_INTERVAL),
            format!("{field}.healthcheck.{attribute}"),
            "healthcheck-interval",
            "at least 500ms",
        );
    }
}

/// `RTMIN`, `RTMIN+1` to `RTMIN+15`, `RTMAX-14` to `RTMAX-1`, `RTMAX`, as the engine knows them.
fn is_real_time(name: &str) -> bool {
    let steps = |text: &str, most: u8| {
        text.parse::<u8>().is_ok_and(|steps| (1..=most).contains(&steps)) && !text.starts_with(['+', '0'])
    };
    matches!(name, "RTMIN" | "RTMAX")
        || name.strip_prefix("RTMIN+").is_some_and(|text| steps(text, 15))
        || name.strip_prefix("RTMAX-").is_some_and(|text| steps(text, 14))
}

pub(super) fn judge_stop(field: &str, signal: Option<&str>, grace: Option<Duration>, verdict: &mut Verdict) {
    let ends = |signal: &str| {
        let upper = signal.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        STOP_SIGNALS.contains(&name)
            || is_real_time(name)
            || signal
                .parse::<u32>()
                .is_ok_and(|number| STOP_SIGNAL_NUMBERS.contains(&number) || (34..=64).contains(&number))
    };
    verdict.refuse_if(
        !signal.is_none_or(ends),
        format!("{field}.stop_signal"),
        "stop-signal",
        &format!("one of {}, or a real-time signal", STOP_SIGNALS.join(", ")),
    );
    verdict.refuse_if(
        grace.is_some_and(|grace| grace > STOP_GRACE),
        format!("{field}.stop_grace_period"),
        "stop-grace-period",
        "at most 5m",
    );
}

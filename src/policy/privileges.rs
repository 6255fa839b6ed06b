//! What a container may do to the kernel it shares with all others.

use std::collections::BTreeMap;

use super::verdict::Verdict;
use crate::compose::{Logging, NamespaceMode, Project};

/// Docker's default capabilities without `NET_RAW` (forged packets to neighbours) and `MKNOD` (device files).
const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Kernel parameters that are a container's own (Pod Security Standards, baseline, "Sysctls").
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

const LOG_DRIVERS: &[&str] = &["json-file", "local"];

/// Options of these two drivers (Docker documentation, "Configure logging drivers").
const LOG_OPTIONS: &[&str] = &[
    "compress",
    "env",
    "env-regex",
    "labels",
    "labels-regex",
    "max-buffer-size",
    "max-file",
    "max-size",
    "mode",
    "tag",
];

pub(super) fn judge_capabilities(field: &str, added: &[String], verdict: &mut Verdict) {
    for (index, capability) in added.iter().enumerate() {
        let upper = capability.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        verdict.refuse_if(
            !CAPABILITIES.contains(&name),
            format!("{field}.cap_add[{index}]"),
            "capability",
            &CAPABILITIES.join(", "),
        );
    }
}

/// Everything else in `security_opt` weakens a profile or loads one.
pub(super) fn judge_security_options(field: &str, options: &[String], verdict: &mut Verdict) {
    for (index, option) in options.iter().enumerate() {
        verdict.refuse_if(
            !matches!(option.as_str(), "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true"),
            format!("{field}.security_opt[{index}]"),
            "security-opt",
            "no-new-privileges:true",
        );
    }
}

pub(super) fn judge_namespace(project: &Project, field: String, mode: Option<&NamespaceMode>, verdict: &mut Verdict) {
    let confined = match mode {
        None | Some(NamespaceMode::Private | NamespaceMode::Shareable | NamespaceMode::None) => true,
        Some(NamespaceMode::Service(service)) => project.services.contains_key(service),
        Some(NamespaceMode::Host | NamespaceMode::Container(_)) => false,
    };
    verdict.refuse_if(
        !confined,
        field,
        "host-namespace",
        "a namespace of its own, or that of another service of this project",
    );
}

pub(super) fn judge_sysctls(field: &str, sysctls: &BTreeMap<String, String>, verdict: &mut Verdict) {
    for sysctl in sysctls.keys().filter(|sysctl| !SYSCTLS.contains(&sysctl.as_str())) {
        verdict.refuse(format!("{field}.sysctls.{sysctl}"), "sysctl", SYSCTLS.join(", "));
    }
}

/// Other drivers send from the host's network, or write where the host's own log is.
pub(super) fn judge_logging(field: &str, logging: Option<&Logging>, verdict: &mut Verdict) {
    let Some(Logging { driver, options }) = logging else { return };
    let foreign = driver.as_ref().is_some_and(|driver| !LOG_DRIVERS.contains(&driver.as_str()));
    verdict.refuse_if(foreign, format!("{field}.logging.driver"), "logging-driver", &LOG_DRIVERS.join(", "));
    for option in options.keys().filter(|option| !LOG_OPTIONS.contains(&option.as_str())) {
        verdict.refuse(format!("{field}.logging.options.{option}"), "logging-option", LOG_OPTIONS.join(", "));
    }
}

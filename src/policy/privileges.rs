//! What a container may do to the kernel it shares with all others.

use std::collections::BTreeMap;

use super::limits::Defaults;
use super::verdict::Verdict;
use super::{Grants, size};
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

/// The most that one container's log files may take together, in bytes.
const LOG_BYTES: u64 = 256 << 20;
/// The most log files of one container: the engine renames all of them whenever the newest is full.
const LOG_FILES: u64 = 20;
/// The least that one of them holds, in bytes.
const LOG_FILE_BYTES: u64 = 64 << 10;
/// The most that the engine may hold back of one container's log, in bytes.
const LOG_BUFFER: u64 = 4 << 20;

/// The most bytes of a tag or a pattern of a log.
const LOG_TEXT: usize = 256;
/// What a tag may name between `{{` and `}}` (Docker documentation, "Customize log driver output").
const TAG_FIELDS: &[&str] = &["ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName"];

/// A capability in capitals and without its `CAP_`, as the engine compares them.
pub(super) fn capability_name(text: &str) -> String {
    let upper = text.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

pub(super) fn judge_capabilities(field: &str, added: &[String], grants: &Grants, verdict: &mut Verdict) {
    for (index, capability) in added.iter().enumerate() {
        let name = capability_name(capability);
        let name = name.as_str();
        verdict.refuse_if(
            !CAPABILITIES.contains(&name) && !grants.capabilities.contains(name),
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

pub(super) fn judge_sysctls(field: &str, sysctls: &BTreeMap<String, String>, grants: &Grants, verdict: &mut Verdict) {
    let allowed = |sysctl: &String| SYSCTLS.contains(&sysctl.as_str()) || grants.sysctls.contains(sysctl);
    for sysctl in sysctls.keys().filter(|sysctl| !allowed(sysctl)) {
        verdict.refuse(format!("{field}.sysctls.{sysctl}"), "sysctl", SYSCTLS.join(", "));
    }
}

/// Other drivers send from the host's network, or write where the host's own log is.
pub(super) fn judge_logging(field: &str, logging: Option<&Logging>, defaults: &Defaults, verdict: &mut Verdict) {
    let Some(Logging { driver, options }) = logging else { return };
    let foreign = driver.as_ref().is_some_and(|driver| !LOG_DRIVERS.contains(&driver.as_str()));
    verdict.refuse_if(foreign, format!("{field}.logging.driver"), "logging-driver", &LOG_DRIVERS.join(", "));
    for option in options.keys().filter(|option| !LOG_OPTIONS.contains(&option.as_str())) {
        verdict.refuse(format!("{field}.logging.options.{option}"), "logging-option", LOG_OPTIONS.join(", "));
    }
    let at = |option: &str| format!("{field}.logging.options.{option}");
    let given = |option: &str| options.get(option).map(String::as_str);
    let number = |option: &str, default: u64| match given(option) {
        None => Some(default),
        Some(text) => text.parse().ok().filter(|&files: &u64| files > 0),
    };
    let files = number("max-file", defaults.log_files);
    verdict.refuse_if(
        files.is_none_or(|files| files > LOG_FILES),
        at("max-file"),
        "logging-size",
        "a number of files from 1 to 20: the engine renames all of them each time",
    );
    let size_of =
        given("max-size").map_or(Some(defaults.log_size), |text| size(text).filter(|&bytes| bytes >= LOG_FILE_BYTES));
    match size_of {
        None => verdict.refuse(at("max-size"), "logging-size", "a size of 64k or more, such as 10m"),
        Some(bytes) => verdict.refuse_if(
            bytes.saturating_mul(files.unwrap_or(1)) > LOG_BYTES,
            at("max-size"),
            "logging-size",
            "at most 256 MiB for all files of a container together (max-size times max-file)",
        ),
    }
    verdict.refuse_if(
        !matches!(given("mode"), None | Some("blocking" | "non-blocking")),
        at("mode"),
        "logging-mode",
        "blocking or non-blocking",
    );
    verdict.refuse_if(
        !given("tag").is_none_or(is_plain_tag),
        at("tag"),
        "logging-tag",
        "at most 256 bytes of text, and {{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageID}}, {{.ImageFullID}}, {{.ImageName}}, {{.DaemonName}}",
    );
    for option in ["env-regex", "labels-regex"] {
        verdict.refuse_if(
            given(option).is_some_and(|pattern| pattern.len() > LOG_TEXT),
            at(option),
            "logging-pattern",
            "at most 256 bytes: the engine compiles it",
        );
    }
    let buffer = given("max-buffer-size").map_or(Some(0), size);
    verdict.refuse_if(
        buffer.is_none_or(|bytes| bytes > LOG_BUFFER),
        at("max-buffer-size"),
        "logging-size",
        "at most 4m: the buffer is the engine's memory",
    );
}

/// Whether a tag has nothing but names in it. It is a template of Go's, and the engine itself runs it: `{{pad "x" 2000000000 0}}`
/// would take two gigabytes of its memory.
fn is_plain_tag(tag: &str) -> bool {
    let mut rest = tag;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, behind)) = after.split_once("}}") else { return false };
        let known = name.trim_matches(' ').strip_prefix('.').is_some_and(|name| TAG_FIELDS.contains(&name));
        if !known || before.contains("}}") {
            return false;
        }
        rest = behind;
    }
    tag.len() <= LOG_TEXT && !rest.contains("}}")
}

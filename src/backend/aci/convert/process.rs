//! What a container runs: command, environment, user and privileges.

use std::collections::BTreeSet;

use super::{BackendError, unsupported};
use crate::backend::Deployment;
use crate::backend::aci::models::{Capabilities, EnvironmentVariable, SecurityContext};
use crate::compose::Service;
use crate::domain::ServiceName;

/// `command` of a container, which stands in place of both the image's ENTRYPOINT and its CMD; empty leaves both.
///
/// Compose's `command` alone keeps the image's ENTRYPOINT, which only the registry knows: it is refused, because sent as it is
/// it would run without it.
pub(super) fn command(name: &ServiceName, service: &Service) -> Result<Vec<String>, BackendError> {
    let field = |attribute: &str| format!("services.{name}.{attribute}");
    match (&service.entrypoint, &service.command) {
        (None, None) => Ok(Vec::new()),
        (None, Some(_)) => Err(unsupported(
            field("command"),
            "a command takes the place of the image's ENTRYPOINT too; set entrypoint to what it is, and the command is \
             put behind it",
        )),
        (Some(entrypoint), command) => {
            // An entrypoint of the file clears the image's command.
            let all: Vec<String> = entrypoint.iter().chain(command.iter().flatten()).cloned().collect();
            if all.is_empty() {
                Err(unsupported(field("entrypoint"), "an empty entrypoint without a command leaves nothing to run"))
            } else {
                Ok(all)
            }
        }
    }
}

/// The variables, by name. All values are sent so that nobody who may read the group sees them: Compose does not say which of
/// them are secrets. An empty value has nothing to hide, and an empty secret is no value to Azure.
pub(super) fn environment(
    name: &ServiceName,
    service: &Service,
    warnings: &mut Vec<String>,
) -> Result<Vec<EnvironmentVariable>, BackendError> {
    let mut variables = Vec::new();
    for (variable, value) in &service.environment {
        let field = format!("services.{name}.environment.{variable}");
        let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        if variable.is_empty() || !variable.bytes().all(word) || variable.as_bytes()[0].is_ascii_digit() {
            return Err(unsupported(
                field,
                "names of variables are of letters, digits and _, and no digit comes first",
            ));
        }
        match value.as_deref() {
            // Never the agent's own.
            None => warnings
                .push(format!("{field}: has no value and is left out; if the image sets it, the image's value holds")),
            Some("") => variables.push(EnvironmentVariable {
                name: variable.clone(),
                value: Some(String::new()),
                ..EnvironmentVariable::default()
            }),
            Some(value) => variables.push(EnvironmentVariable {
                name: variable.clone(),
                secure_value: Some(value.into()),
                ..EnvironmentVariable::default()
            }),
        }
    }
    Ok(variables)
}

/// What containers have unless somebody takes it away: to add one of these means something after `cap_drop: ALL` only.
const USUAL: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// What a confining policy takes from every container, for the sake of a shared host.
const FILLED_IN: &[&str] = &["MKNOD", "NET_RAW"];

/// `securityContext`; none when the file asks for none of it. What a confining policy has filled in is not sent for its own
/// sake: a group is a virtual machine of its own.
pub(super) fn security_context(
    wanted: &Deployment,
    name: &ServiceName,
    service: &Service,
) -> Result<Option<SecurityContext>, BackendError> {
    let field = |attribute: &str| format!("services.{name}.{attribute}");
    let (run_as_user, run_as_group) = match service.user.as_deref().filter(|user| !user.is_empty()) {
        None => (None, None),
        Some(user) => numeric(user)
            .ok_or_else(|| unsupported(field("user"), "only the image knows the number of a name; give numbers"))?,
    };
    let dropped: BTreeSet<String> = service.cap_drop.iter().map(|name| plain(name)).collect();
    let all = dropped.contains("ALL");
    let mut added = BTreeSet::new();
    for (at, capability) in service.cap_add.iter().enumerate() {
        let plain = plain(capability);
        if !USUAL.contains(&plain.as_str()) {
            return Err(unsupported(
                field(&format!("cap_add[{at}]")),
                "a container has the usual capabilities at most",
            ));
        }
        if all || dropped.contains(&plain) {
            added.insert(plain);
        }
    }
    let mut no_new_privileges = false;
    for (at, option) in service.security_opt.iter().enumerate() {
        match option.as_str() {
            "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true" => no_new_privileges = true,
            "no-new-privileges:false" | "no-new-privileges=false" | "seccomp=builtin" | "seccomp:builtin" => {}
            _ => {
                return Err(unsupported(
                    field(&format!("security_opt[{at}]")),
                    "a container has Azure's own profiles; no-new-privileges can be set",
                ));
            }
        }
    }
    let confined = wanted.project.is_confined();
    let filled_in = confined && dropped.iter().all(|name| FILLED_IN.contains(&name.as_str()));
    let capabilities = (!dropped.is_empty() && !filled_in).then(|| Capabilities {
        add: added.iter().map(|name| sent(name)).collect(),
        drop: dropped.iter().map(|name| sent(name)).collect(),
    });
    let asked = run_as_user.is_some() || capabilities.is_some() || (no_new_privileges && !confined);
    Ok(asked.then_some(SecurityContext {
        privileged: None,
        allow_privilege_escalation: no_new_privileges.then_some(false),
        capabilities,
        run_as_user,
        run_as_group,
        seccomp_profile: None,
    }))
}

/// `uid` or `uid:gid` in numbers.
fn numeric(user: &str) -> Option<(Option<i64>, Option<i64>)> {
    let number = |text: &str| if text == "root" { Some(0) } else { text.parse::<u32>().ok().map(i64::from) };
    match user.split_once(':') {
        None => Some((Some(number(user)?), None)),
        Some((uid, gid)) => Some((Some(number(uid)?), Some(number(gid)?))),
    }
}

/// `CAP_CHOWN` and `chown` as `CHOWN`.
fn plain(capability: &str) -> String {
    let upper = capability.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map_or_else(|| upper.clone(), str::to_owned)
}

/// As Azure's own examples write them.
fn sent(capability: &str) -> String {
    if capability == "ALL" { capability.to_owned() } else { format!("CAP_{capability}") }
}

//! `post_start` and `pre_stop` of a service (Compose Specification, `post_start`).

use super::{environment, service};
use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::Hook;

/// The attribute: a list of commands.
pub(super) fn hooks(field: &Field<'_>) -> Result<Vec<Hook>, ComposeError> {
    field.items()?.map(|item| hook(&item)).collect()
}

fn hook(item: &Field<'_>) -> Result<Hook, ComposeError> {
    let mut hook = Hook::default();
    for attribute in item.attributes()? {
        match attribute.key() {
            "command" => hook.command = service::command(&attribute)?.unwrap_or_default(),
            "user" => hook.user = Some(attribute.some_text()?.to_owned()),
            "privileged" => hook.privileged = attribute.boolean()?,
            "working_dir" => hook.working_dir = Some(attribute.some_text()?.to_owned()),
            "environment" => hook.environment = environment::environment(&attribute)?,
            _ => {
                let known = ["command", "environment", "privileged", "user", "working_dir"];
                return Err(attribute.unknown(&known));
            }
        }
    }
    if hook.command.is_empty() { Err(item.error("has no `command`")) } else { Ok(hook) }
}

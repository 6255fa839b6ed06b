//! What `restricted` adds to `baseline`: Pod Security Standards, "Restricted", and no variable that nobody has set.

use super::Ground;
use super::privileges::capability_name;
use super::verdict::Verdict;
use crate::compose::Project;

/// The only capability that may be had (Pod Security Standards).
const CAPABILITY: &str = "NET_BIND_SERVICE";

pub(super) fn judge(project: &Project, ground: &Ground<'_>, verdict: &mut Verdict) {
    for name in ground.undefined {
        verdict.refuse(
            format!("variables.{name}"),
            "undefined-variable",
            format!("a variable that the env file sets, or a default such as ${{{name}:-}}"),
        );
    }
    for (name, service) in &project.services {
        let at = |attribute: &str| format!("services.{name}.{attribute}");
        let root = service.user.as_deref().is_none_or(may_be_root);
        verdict.refuse_if(root, at("user"), "non-root", "a user by its number, not 0, such as \"1000:1000\"");
        for (index, capability) in service.cap_add.iter().enumerate() {
            verdict.refuse_if(
                capability_name(capability) != CAPABILITY,
                at(&format!("cap_add[{index}]")),
                "capability",
                CAPABILITY,
            );
        }
        for (attribute, hooks) in [("post_start", &service.post_start), ("pre_stop", &service.pre_stop)] {
            for (index, hook) in hooks.iter().enumerate() {
                let Some(user) = hook.user.as_deref() else { continue };
                verdict.refuse_if(
                    may_be_root(user),
                    at(&format!("{attribute}[{index}].user")),
                    "non-root",
                    "a user by its number, not 0",
                );
            }
        }
    }
}

/// Whether a `user` is root or could be: a name stands for any number in the image's /etc/passwd, and so does what an image
/// says itself.
fn may_be_root(user: &str) -> bool {
    user.split(':').next().and_then(|uid| uid.parse::<u32>().ok()).is_none_or(|uid| uid == 0)
}

/// Takes all capabilities away and makes root file systems read-only, with a word where the author has said neither.
pub(super) fn confine(project: &mut Project, verdict: &mut Verdict) {
    for (name, service) in &mut project.services {
        if !service.cap_drop.iter().any(|capability| is_all(capability)) {
            service.cap_drop = vec!["ALL".to_owned()];
            verdict
                .warnings
                .push(format!("services.{name}.cap_drop: ALL, under the restricted policy; write it to say so"));
        }
        if !service.read_only {
            service.read_only = true;
            verdict.warnings.push(format!(
                "services.{name}.read_only: true, under the restricted policy; write it to say so, and tmpfs for what is written"
            ));
        }
    }
}

/// Whether an entry of `cap_drop` is all of them.
pub(super) fn is_all(capability: &str) -> bool {
    capability.eq_ignore_ascii_case("ALL") || capability.eq_ignore_ascii_case("CAP_ALL")
}

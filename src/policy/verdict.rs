//! What a judgement collects.

use super::Refusal;

/// Refusals and warnings so far.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) refusals: Vec<Refusal>,
    pub(super) warnings: Vec<String>,
}

impl Verdict {
    /// Refuses a field. `allowed` says what may be there instead and never repeats a value.
    pub(super) fn refuse(&mut self, field: impl Into<String>, rule: &'static str, allowed: impl Into<String>) {
        self.refusals.push(Refusal { field: field.into(), rule, allowed: allowed.into() });
    }

    /// Refuses a field if `refused`.
    pub(super) fn refuse_if(&mut self, refused: bool, field: impl Into<String>, rule: &'static str, allowed: &str) {
        if refused {
            self.refuse(field, rule, allowed);
        }
    }
}

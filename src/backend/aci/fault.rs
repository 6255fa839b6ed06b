//! What Azure says when it cannot, in the words of the rest of the house. What only the operator may see is logged here.

use super::arm::ArmError;
use super::site::Site;
use crate::backend::BackendError;

impl Site<'_> {
    /// A failure of a call, or of the operation that it began.
    pub(super) fn fault(&self, error: ArmError, doing: &str) -> BackendError {
        let region = &self.region.location;
        match error {
            ArmError::Unavailable { message } | ArmError::Unreadable { message } => {
                tracing::warn!(%region, doing, %message, "Azure cannot be reached");
                BackendError::Unavailable
            }
            ArmError::Unauthorised { message } => {
                tracing::error!(%region, doing, %message, "Azure does not accept the agent's credentials");
                BackendError::Unavailable
            }
            ArmError::Deadline { doing } => BackendError::DeadlineExceeded { step: doing, details: None },
            ArmError::QuotaReached(refusal) | ArmError::NoCapacity(refusal) => {
                BackendError::NoCapacity { region: region.clone(), message: refusal.message }
            }
            ArmError::Throttled(refusal) => {
                BackendError::NoCapacity { region: region.clone(), message: refusal.message }
            }
            error => {
                tracing::warn!(%region, doing, %error, "Azure has refused a request");
                BackendError::Refused { message: format!("in {region}, {doing}: {error}") }
            }
        }
    }
}

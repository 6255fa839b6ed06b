//! What a panic ends: the operation, the recovery or the look that it happens in. It is a bug, which the log tells with its
//! place; the agent and its other tenants go on, and what was left half done is recovered as after any failure.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;

use super::Error;

/// Does the work; a panic of it is an internal error.
///
/// What the work shared with others is guarded by locks that are let go on the way, and what it had begun is in the journal.
pub(super) async fn contained<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or(Err(Error::Internal))
}

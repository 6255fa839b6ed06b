//! The route of the change feed.

use std::sync::Arc;

use futures::StreamExt as _;

use super::Handlers;
use crate::api::error::ApiError;
use crate::api::front::Call;
use crate::api::respond::Answer;
use crate::api::{query, sse};
use crate::domain::ErrorCode;

impl Handlers {
    /// A client that connects again by itself repeats the query and adds the newer `Last-Event-ID`.
    pub(super) fn events(&self, call: &Call) -> Result<Answer, ApiError> {
        let (cursor, tenant) = query::events(call.query.as_deref())?;
        let cursor = sse::last_event_id(&call.headers)?.or(cursor.as_deref());
        let full = |_| ApiError::new(ErrorCode::RateLimited, "too many readers of the change feed are connected");
        let place = Arc::clone(&self.feed_readers).try_acquire_owned().map_err(full)?;
        let events = self.orchestrator.events(cursor, tenant);
        let events = events.map(|event| sse::Event {
            id: Some(event.cursor),
            name: event.name,
            data: event.data.as_ref().to_owned(),
        });
        Ok(sse::answer(events, &call.request_id, self.stop.clone(), place))
    }
}

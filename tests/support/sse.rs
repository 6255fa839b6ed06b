//! Server-sent events, each held against the description of the API.

use std::time::Duration;

use serde_json::Value;

use super::http::Lines;
use super::openapi;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// None if it has none.
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// The next event; none when the stream has ended. Comments and `retry` are passed over. Fails the test if the event is not
/// described, or when `limit` is over.
pub(crate) async fn next(stream: &mut Lines, limit: Duration) -> Option<Event> {
    // Comments come for ever.
    let read = tokio::time::timeout(limit, read(stream, limit)).await;
    read.unwrap_or_else(|_| panic!("no event of {} within {limit:?}", stream.path))
}

async fn read(stream: &mut Lines, limit: Duration) -> Option<Event> {
    let mut event = Event { id: None, name: String::new(), data: Value::Null };
    loop {
        let line = stream.next(limit).await?;
        match line.split_once(": ") {
            Some(("id", text)) => event.id = Some(text.to_owned()),
            Some(("event", text)) => text.clone_into(&mut event.name),
            Some(("data", text)) => event.data = serde_json::from_str(text).expect("JSON"),
            _ if line.is_empty() && !event.name.is_empty() => {
                openapi::check_event(&stream.path, &event.name, &event.data);
                return Some(event);
            }
            _ => {}
        }
    }
}

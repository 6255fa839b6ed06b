//! The output of a container as Azure streams it, over a web socket. It has no times, so it cannot be told on as it is: it
//! says that there is something new to be read.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_util::task::AbortOnDropHandle;

use super::arm::ArmError;
use super::{ASK, Core};
use crate::backend::TenantRef;

/// The largest message that is taken in; what it says is not looked at.
const LARGEST: usize = 1 << 20;
/// How long one socket is used: passwords do not last for ever.
const LONGEST: Duration = Duration::from_mins(30);

/// Rings whenever the container writes something, for as long as the handle lives and Azure keeps the socket open. Without
/// a socket nothing rings, and whoever listens asks now and then all the same.
pub(super) fn ring(core: &Arc<Core>, tenant: &TenantRef, container: &str, bell: &Arc<Notify>) -> AbortOnDropHandle<()> {
    let (core, tenant, container, bell) = (Arc::clone(core), tenant.clone(), container.to_owned(), Arc::clone(bell));
    AbortOnDropHandle::new(tokio::spawn(async move {
        let listening = tokio::time::timeout(LONGEST, listen(&core, &tenant, &container, &bell));
        if let Ok(Err(error)) = listening.await {
            tracing::debug!(tenant = %tenant.subdomain, container, %error, "attach does not work; the log is polled");
        }
    }))
}

async fn listen(core: &Core, tenant: &TenantRef, container: &str, bell: &Notify) -> Result<(), ArmError> {
    let broken = |message: String| ArmError::Unavailable { message };
    let site = core.site(tenant).map_err(|error| broken(error.to_string()))?;
    let group = super::names::group(tenant.project().as_str());
    let deadline = Instant::now() + ASK;
    let attached = site.attach(&group, container, deadline).await?;
    let stream = site.arm.web_socket(&attached.web_socket_uri, attached.password.expose(), deadline).await?;
    let limits = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(limits)).await;
    let password = Message::text(attached.password.expose());
    socket.send(password).await.map_err(|error| broken(error.to_string()))?;
    while let Some(message) = socket.next().await {
        message.map_err(|error| broken(error.to_string()))?;
        bell.notify_one();
    }
    Ok(())
}

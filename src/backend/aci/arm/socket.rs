//! Web sockets that Azure gives out addresses of, for `attach` and `exec`: a request that becomes a stream.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    AUTHORIZATION, CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Arm;
use super::error::ArmError;

/// What the connection has become: frames go both ways from here.
pub(in crate::backend::aci) type Upgrade = TokioIo<Upgraded>;

impl Arm {
    /// Opens a web socket. No token goes there, but the password that came with the address: the API's description has it
    /// as the value of `Authorization`, Azure's own tools send it as the first message, which is left to the caller.
    pub(in crate::backend::aci) async fn web_socket(
        &self,
        url: &str,
        password: &str,
        deadline: Instant,
    ) -> Result<Upgrade, ArmError> {
        let broken = |message: String| ArmError::Unavailable { message: format!("web socket: {message}") };
        let key = generate_key();
        let mut request = request(url, &key).ok_or_else(|| broken("no valid address".to_owned()))?;
        if let Ok(mut password) = HeaderValue::try_from(password) {
            password.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, password);
        }
        let opening = async {
            let answer = self.shared.http.open(request).await.map_err(|error| broken(error.to_string()))?;
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(broken(format!("status {}", answer.status().as_u16())));
            }
            let accepted = answer.headers().get(SEC_WEBSOCKET_ACCEPT);
            if accepted.is_none_or(|accepted| accepted.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
                return Err(broken("somebody else's answer".to_owned()));
            }
            hyper::upgrade::on(answer).await.map(TokioIo::new).map_err(|error| broken(error.to_string()))
        };
        match timeout_at(deadline, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(ArmError::Deadline { doing: "opening a web socket".to_owned() }),
        }
    }
}

/// The request that asks for it (RFC 6455, 4.1). Its scheme is a word of its own for the same two transports.
fn request(url: &str, key: &str) -> Option<Request<Full<Bytes>>> {
    let mut parts = url.trim().parse::<Uri>().ok()?.into_parts();
    let scheme = match parts.scheme.as_ref()?.as_str() {
        "wss" | "https" => "https",
        "ws" | "http" => "http",
        _ => return None,
    };
    parts.scheme = scheme.parse().ok();
    let mut request = Request::new(Full::default());
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).ok()?);
    Some(request)
}

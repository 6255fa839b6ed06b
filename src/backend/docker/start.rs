//! Why the engine could not start a container.

use super::engine::EngineError;
use crate::backend::{BackendError, FailureDetails};
use crate::domain::ServiceName;

pub(super) fn is_port_in_use(error: &EngineError) -> bool {
    match error {
        EngineError::NotFound(text) | EngineError::Conflict(text) | EngineError::Refused { message: text, .. } => {
            says_port_in_use(text)
        }
        EngineError::Timeout | EngineError::Unreachable(_) => false,
    }
}

fn says_port_in_use(message: &str) -> bool {
    message.contains("port is already allocated") || message.contains("address already in use")
}

/// Why a container could not be started, read from the engine's message because its status does not tell.
pub(super) fn failure(error: EngineError, service: &ServiceName) -> BackendError {
    let text = match &error {
        EngineError::NotFound(message) | EngineError::Conflict(message) => message.clone(),
        EngineError::Refused { message, .. } => message.clone(),
        EngineError::Timeout | EngineError::Unreachable(_) => return error.into_backend("starting a container"),
    };
    tracing::warn!(%service, error = %text, "a container could not be started");
    let port = says_port_in_use(&text);
    if let (true, Some(port)) = (port, published_port(&text)) {
        return BackendError::PortTaken { service: service.clone(), at: None, port };
    }
    if text.contains("no space left on device") {
        return BackendError::NoSpace;
    }
    let what = if text.contains("executable file not found") || text.contains("no such file or directory") {
        "could not be started: its command was not found in the image"
    } else if text.contains("permission denied") {
        "could not be started: its command may not be executed"
    } else if port {
        "could not be started: one of its ports is in use"
    } else {
        "could not be started"
    };
    BackendError::ServiceExited {
        service: service.clone(),
        what: what.to_owned(),
        details: Box::new(FailureDetails::default()),
    }
}

/// The port in `Bind for 127.0.0.1:8080 failed: port is already allocated` and `listen tcp 127.0.0.1:8080: bind: …`.
fn published_port(message: &str) -> Option<u16> {
    let start = message.find("Bind for ").or_else(|| message.find("listen "))?;
    message[start..].split([' ', ',']).find_map(|word| word.trim_end_matches(':').rsplit_once(':')?.1.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_messages() {
        for (message, port) in [
            ("Bind for 127.0.0.1:8080 failed: port is already allocated", Some(8080)),
            ("Bind for :::80 failed: port is already allocated", Some(80)),
            (
                "driver failed programming external connectivity on endpoint x: Error starting userland proxy: listen tcp4 0.0.0.0:5000: bind: address already in use",
                Some(5000),
            ),
            ("something else", None),
        ] {
            assert_eq!(published_port(message), port, "{message}");
        }
    }
}

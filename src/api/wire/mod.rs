//! What a client may put on the wire: HTTP/1 by the letter, one message at a time.
//!
//! ```text
//! bytes of the client --> gate --> hyper
//!                          | head    the lines of one head, each judged when it is complete
//!                          | chunks  a chunked body, byte by byte
//! ```
//! hyper forgives some of what RFC 9112 calls an attack or leaves to the recipient: Content-Length beside
//! Transfer-Encoding, a repeated Content-Length, a missing or second Host, lines that end in a bare LF, a target with a
//! fragment. Two readers of such a message may disagree where it ends, and what one of them takes for a body is a request
//! to the other. So what can be read in two ways does not reach hyper.

mod chunks;
#[cfg(test)]
mod fuzz;
mod gate;
mod head;

pub(super) use gate::{Exchange, Gate};
pub(super) use head::{MAX_HEAD, MAX_HEADERS, Refusal};

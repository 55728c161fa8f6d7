//! HTTP/1.1 without I/O: bytes in, requests out; answers in, bytes out.
//!
//! One codec serves every runtime, so that the runtime is what differs. [`request`] reads heads over `httparse` and adds what
//! that leaves to its user (which lengths, hosts and line ends are refused), [`body`] reads bodies by length and by chunk,
//! [`answer`] writes.

pub mod answer;
pub mod body;
pub mod request;

pub use answer::{Answer, Status};
pub use body::{BodyLength, Decoder};
pub use request::{Head, parse_head};

/// Longest request or response head, in bytes; a longer request head is answered 431.
pub const MAX_HEAD: usize = 16 * 1024;
/// Most headers in one head; more are answered 431.
pub const MAX_HEADERS: usize = 64;
/// Longest request body, in bytes; a longer one is answered 413.
pub const MAX_BODY: usize = 1024 * 1024;

/// A request that is answered with an error status and a closed connection, because what follows it cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told.
    pub status: Status,
    /// Why, in a few words.
    pub reason: &'static str,
}

impl Refusal {
    pub(crate) const fn bad(reason: &'static str) -> Self {
        Refusal { status: Status::BadRequest, reason }
    }
}

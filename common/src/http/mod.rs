//! HTTP/1.1 without I/O: bytes in, requests out; answers in, bytes out.
//!
//! All runtimes use the same codec, so that only the runtime differs. [`request`] parses heads with `httparse` and adds the
//! checks that `httparse` leaves to its user: lengths, hosts and line ends. [`target`] reads what is asked for, [`body`] decodes
//! bodies, and [`answer`] encodes answers.

pub mod answer;
pub mod body;
pub mod request;
pub mod target;

pub use answer::{Answer, Status};
pub use body::{BodyLength, Decoder};
pub use request::{Head, is_json, parse_head};
pub use target::Target;

/// The longest request or response head, in bytes. Servers answer a longer request head with 431.
pub const MAX_HEAD: usize = 16 * 1024;
/// The maximum number of headers in one head. Servers answer a request with more headers with 431.
pub const MAX_HEADERS: usize = 64;
/// The longest request body, in bytes. Servers answer a longer body with 413.
pub const MAX_BODY: usize = 1024 * 1024;

/// The refusal of a request: an error status, after which the connection closes because later bytes cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status that the client gets.
    pub status: Status,
    /// The reason, in a few words; the body of the answer.
    pub reason: &'static str,
}

impl Refusal {
    pub(crate) const fn bad(reason: &'static str) -> Self {
        Refusal { status: Status::BadRequest, reason }
    }
}
